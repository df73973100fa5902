package valkey

import (
	"hash/maphash"
	"sync"
	"sync/atomic"
	"time"

	"github.com/moat-gateway/moat/guard/ratelimit"
)

const (
	shards = 16
	// shardKeys is how many keys a shard knows: 16,384 in all, about 350 bytes each.
	shardKeys = 1024
	// looks is how many keys are looked at to find one that can be forgotten.
	looks = 8
	// A debt that the server told is believed for as long as believed. That bounds how
	// long this process refuses a key that another one has Reset.
	believed = int64(10 * time.Second / time.Microsecond)
	// The room of a lease is lost after the time in which the limit forgets a full burst,
	// within these bounds.
	minLease, maxLease = int64(time.Second / time.Microsecond), int64(time.Minute / time.Microsecond)
)

// ledger is what this process knows without asking: what room it has taken in advance,
// and who has none. Its memory is bounded. A key for which there is no room in it is
// asked for strictly, and leases that are not used up are never driven out: a flood of
// new clients costs those that are there no room.
type ledger struct {
	seed maphash.Seed
	// resets and givenBack count what made answers that were on their way out of date.
	resets, givenBack atomic.Uint64

	shards [shards]struct {
		mu   sync.Mutex
		keys map[ratelimit.Key]*known
		_    [64]byte // a cache line
	}
}

// known is what is known of one key. Times are in microseconds of the Store's clock.
type known struct {
	limit ratelimit.Limit
	// debt is what the server told, asked at that time. Others can only have added to it.
	debt, at int64
	// room is for how many requests this process has taken room, until then.
	room  int
	until int64
	// asking says that a Take is about to bring room: only one at a time does.
	asking bool
	// shadow is when the debt of a request from the lease would be forgotten if it had
	// been charged when it came: until then the key is not new.
	shadow int64
}

func newLedger() *ledger {
	l := &ledger{seed: maphash.MakeSeed()}
	for i := range l.shards {
		l.shards[i].keys = map[ratelimit.Key]*known{}
	}
	return l
}

// locked calls f with what is known of a key, if anything is. It reports what f does.
func (l *ledger) locked(k ratelimit.Key, f func(*known) bool) bool {
	s := &l.shards[maphash.Comparable(l.seed, k)%shards]
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.keys[k]; e != nil {
		return f(e)
	}
	return false
}

// upsert calls f with what is known of a key, which may be nothing yet. It does not if
// there is no room to know more.
func (l *ledger) upsert(k ratelimit.Key, now int64, f func(*known)) {
	s := &l.shards[maphash.Comparable(l.seed, k)%shards]
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.keys[k]
	if e == nil {
		if len(s.keys) >= shardKeys {
			n, found := 0, false
			for old, o := range s.keys { // in no order
				if found = !o.holds(now); found {
					delete(s.keys, old)
					break
				}
				if n++; n == looks {
					break
				}
			}
			if !found {
				return
			}
		}
		e = new(known)
		s.keys[k] = e
	}
	f(e)
}

// holds says whether something would be lost if the key were forgotten.
func (e *known) holds(now int64) bool { return e.asking || e.room > 0 && now < e.until }

func (e *known) debtAt(now int64) int64 { return max(e.debt-(now-e.at), 0) }

// foresee is what the server would say to a demand, if enough is known. It is never
// refused longer than the server said: the debt counts from when the server was asked.
func (l *ledger) foresee(d *ratelimit.Demand, now int64) (r ratelimit.Result, isKnown bool) {
	isKnown = l.locked(d.Key, func(e *known) bool {
		if e.limit != d.Limit || now-e.at > believed {
			return false
		}
		if d.Lease > 0 && e.room >= d.Cost && now < e.until {
			r = e.result(now)
			return true
		}
		debt := e.debtAt(now)
		if full, _ := shape(d.Limit); debt > full {
			return false // the server has something to put right: see take.lua
		}
		_, r = apply(d, debt)
		return true
	})
	return r, isKnown
}

// look is what is known of a key.
func (l *ledger) look(d *ratelimit.Demand, now int64) ratelimit.Result {
	r := ratelimit.Result{Allowed: true}
	l.locked(d.Key, func(e *known) bool {
		if e.limit == d.Limit {
			r = e.result(now)
		}
		return true
	})
	return r
}

// result is the room that the server has left and that of the lease.
func (e *known) result(now int64) ratelimit.Result {
	debt := e.debtAt(now)
	if now < e.until {
		_, interval := shape(e.limit)
		debt = max(debt-int64(e.room)*interval, 0)
	}
	_, r := e.limit.Take(debt, 0, 0)
	r.New = e.debtAt(now) == 0 && e.shadow <= now
	return r
}

// spend admits a request from the key's lease, if there is one. With charge false it only
// looks.
func (l *ledger) spend(d *ratelimit.Demand, now int64, charge bool) (r ratelimit.Result, ok bool) {
	ok = l.locked(d.Key, func(e *known) bool {
		if e.limit != d.Limit || now >= e.until || e.room < d.Cost {
			return false
		}
		isNew := e.result(now).New
		before, shadow := e.room, e.shadow
		e.room -= d.Cost
		_, interval := shape(e.limit)
		e.shadow = max(e.shadow, now) + int64(d.Cost)*interval
		r = e.result(now)
		r.New = isNew
		if !charge {
			e.room, e.shadow = before, shadow
		}
		return true
	})
	return r, ok
}

// unspend gives room back to a lease.
func (l *ledger) unspend(d *ratelimit.Demand) {
	l.locked(d.Key, func(e *known) bool {
		if e.limit == d.Limit && e.room+d.Cost <= d.Lease {
			e.room += d.Cost
		}
		return true
	})
}

// ask says for how many requests more to take room, beside one that is not admitted from
// the lease. If it is not 0, grant has to be called.
func (l *ledger) ask(d *ratelimit.Demand, now int64) (more int) {
	l.upsert(d.Key, now, func(e *known) {
		if e.limit != d.Limit || now >= e.until {
			e.limit, e.room, e.until = d.Limit, 0, 0
		}
		if !e.asking {
			more = max(d.Lease-d.Cost-e.room, 0)
			e.asking = more > 0
		}
	})
	return more
}

// grant adds what the server has given after ask, which may be nothing.
func (l *ledger) grant(d *ratelimit.Demand, more int, debt, asked int64, as version) {
	l.locked(d.Key, func(e *known) bool {
		e.asking = false
		if more <= 0 || e.limit != d.Limit || l.resets.Load() != as.resets {
			return false
		}
		full, _ := shape(d.Limit)
		e.room += more
		e.until = asked + min(max(full, minLease), maxLease)
		e.hear(d, debt, asked)
		return true
	})
}

// remember keeps what the server told of a key.
func (l *ledger) remember(d *ratelimit.Demand, debt, asked int64, as version) {
	if l.version() == as {
		l.upsert(d.Key, asked, func(e *known) { e.hear(d, debt, asked) })
	}
}

// update is remember for keys of which something is known.
func (l *ledger) update(d *ratelimit.Demand, debt, asked int64, as version) {
	if l.version() == as {
		l.locked(d.Key, func(e *known) bool {
			e.hear(d, debt, asked)
			return true
		})
	}
}

// hear takes in what the server told. Answers may overtake each other: the greater debt
// is the later one.
func (e *known) hear(d *ratelimit.Demand, debt, asked int64) {
	switch {
	case e.limit != d.Limit:
		e.limit, e.room, e.until = d.Limit, 0, 0
	case e.at+e.debt > asked+debt && asked-e.at <= believed:
		return
	}
	e.debt, e.at = debt, asked
}

// version is what a Take is to know of when it began, so that it can tell afterwards
// whether the answer still holds.
type version struct{ resets, givenBack uint64 }

func (l *ledger) version() version { return version{l.resets.Load(), l.givenBack.Load()} }

// doubt forgets the debt of a key that something was given back to. Its lease stays.
func (l *ledger) doubt(k ratelimit.Key) {
	l.givenBack.Add(1)
	l.locked(k, func(e *known) bool {
		e.debt, e.at = 0, -believed-1
		return true
	})
}

// forget drops all that is known of a key. What is on its way from the server was decided
// before, and is not remembered.
func (l *ledger) forget(k ratelimit.Key) {
	l.resets.Add(1)
	s := &l.shards[maphash.Comparable(l.seed, k)%shards]
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.keys, k)
}

// size is how many keys are known.
func (l *ledger) size() int {
	n := 0
	for i := range l.shards {
		s := &l.shards[i]
		s.mu.Lock()
		n += len(s.keys)
		s.mu.Unlock()
	}
	return n
}

// offset is by how much a server's clock is ahead of the Store's, at most: the least that
// has been seen, in this window of time or the one before. A server decides after it was
// asked, so every answer gives such a bound, and the quickest answer the best one.
type offset struct {
	mu               sync.Mutex
	least, leastThen int64
	window           int64 // 0: none yet
}

// offsetWindow is how long a bound is kept, at least: clocks drift.
const offsetWindow = believed

// locate says when, on the Store's clock, the server decided something: not later than it
// did, unless its clock has just been set forward.
func (o *offset) locate(server, asked, answered int64) int64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	ahead := server - asked
	switch window := answered/offsetWindow + 2; window {
	case o.window:
		o.least = min(o.least, ahead)
	case o.window + 1:
		o.window, o.leastThen, o.least = window, o.least, ahead
	default:
		o.window, o.leastThen, o.least = window, ahead, ahead
	}
	return min(max(server-min(o.least, o.leastThen), asked), answered)
}
