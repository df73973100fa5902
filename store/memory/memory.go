// Package memory keeps the debts of ratelimit.Limits in the memory of one process, and the
// uses of tickets, see Tickets.
//
// All memory is taken at once, by New, and never grows: a flood of new clients costs no more
// than the table that the operator chose. No goroutine cleans up, no request waits for
// another, nothing is allocated for a request, and nothing can fail: Take and Peek never
// return an error, and do not look at their context. (After days in which nobody asked for
// anything the first requests wait until the table is swept: some milliseconds.) There is
// nothing to trust but the process itself; debts are lost when it ends.
//
// # Bounds
//
// The table has slots of 8 bytes, 8 to a bucket, which is a cache line. A key can only be in
// the bucket that its hash chooses; the hash is seeded anew in each process, so that nobody
// can choose keys that meet. Two things follow from the fixed size.
//
// Debts may be forgotten early. If all slots of a bucket hold debts, a new key takes the slot
// of one that has come only once, before that of one that has come back, before that of one
// that goes on being refused. Whoever is forgotten gets at most a fresh burst. Nobody is
// limited for lack of room. See Stats, and docs/performance.md for what to size.
//
// Keys may share a debt. Two keys of one bucket are held apart by 20 bits of their hashes. A
// client that comes into a table full of debts shares one of them with a probability of 8 in
// 1,048,576, until one of the two is forgotten.
//
// Within these bounds a key never gets more than its Limit, whatever the number of
// goroutines. A request is decided as of the time at which it read the clock. Several demands
// are charged one after the other and taken back if the last room has gone meanwhile, so a
// request that comes in between may be refused, or its client be taken for known, though a
// microsecond later it would not.
//
// # Tickets
//
// Tickets remembers which uses of tickets, and which solved challenges, have been honoured.
// It is the opposite of a Store in one thing: nothing is ever forgotten early, for what is
// forgotten could be honoured twice. It fails closed: when there is no room it gives out no
// number, marks nothing and says ticket.ErrFull, and room comes back as tickets expire. Its
// lineage is that of the process, so nothing issued by an earlier one is honoured.
//
// A ticket costs 4 bytes, whatever the number of its uses, and a mark 17. They are kept by the
// clock that nobody can turn, for the lifetime and 10 seconds. A caller reads the clock
// before it asks for the number of a ticket that expires that long after.
package memory

import (
	"context"
	"hash/maphash"
	"math/bits"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/moat-gateway/moat/guard/ratelimit"
)

const (
	bucketBytes = 8 * slots
	// minBuckets make 64 KiB.
	minBuckets = 1 << 10
	// sweepBits: every bucket is swept once in 2^39 microseconds, which are 6.4 days. That
	// is soon enough, see past, and one bucket every 2 seconds in a table of 16 MiB.
	sweepBits = 39
	// horizon bounds the debt that is stored.
	horizon = int64(ratelimit.MaxHorizon / time.Microsecond)
)

// Store is a ratelimit.Store in memory. Use New.
type Store struct {
	table []bucket
	seed  maphash.Seed
	start time.Time
	// step is the binary logarithm of the microseconds from sweeping one bucket to sweeping
	// the next, and swept is for how many such steps that has been done.
	step     int
	swept    atomic.Int64
	sweeping sync.Mutex
	lost     [16]struct {
		evicted, throttled atomic.Uint64
		_                  [48]byte // a cache line for each
	}
}

var _ ratelimit.Store = (*Store)(nil)

// New returns a Store with a table of at most that many bytes, rounded down to a power of
// two, and of at least 64 KiB.
func New(bytes int) *Store {
	logN := bits.Len(uint(max(bytes/bucketBytes, minBuckets))) - 1
	return &Store{
		table: make([]bucket, 1<<logN), // the runtime aligns objects of this size to pages
		seed:  maphash.MakeSeed(),
		start: time.Now(),
		step:  max(sweepBits-logN, 0),
	}
}

// now reads the Store's clock: microseconds since New, monotonic.
func (s *Store) now() int64 { return int64(time.Since(s.start) / time.Microsecond) }

// Take implements ratelimit.Store. It does not allocate for up to 16 demands.
func (s *Store) Take(_ context.Context, demands []ratelimit.Demand, results []ratelimit.Result) (bool, error) {
	return s.take(s.now(), demands, results), nil
}

// Peek implements ratelimit.Store.
func (s *Store) Peek(_ context.Context, demands []ratelimit.Demand, results []ratelimit.Result) (bool, error) {
	now := s.now()
	s.sweep(now)
	var buf [16]pending
	return s.decide(now, demands, results, s.pending(buf[:0], demands)), nil
}

// Reset implements ratelimit.Store.
func (s *Store) Reset(_ context.Context, k ratelimit.Key) error {
	at := s.place(k)
	for {
		e := at.bucket.find(at.tag, 0)
		if e.slot < 0 {
			return nil
		}
		at.bucket.swap(e, 0)
	}
}

// place is where a key's debt is kept.
type place struct {
	bucket *bucket
	tag    uint64
}

func (s *Store) place(k ratelimit.Key) place {
	h := maphash.Comparable(s.seed, k)
	return place{&s.table[int(h)&(len(s.table)-1)], max(h>>tagShift, 1)} //nolint:gosec // its low bits.
}

// pending is a demand on its way.
type pending struct {
	place
	counts bool  // see Demand.IfNew
	tat    int64 // after this demand, as decide sees it
	taken  int64 // by how much it has moved the TAT
}

func (s *Store) pending(buf []pending, demands []ratelimit.Demand) []pending {
	for i := range demands {
		buf = append(buf, pending{place: s.place(demands[i].Key)})
	}
	return buf
}

func (s *Store) take(now int64, demands []ratelimit.Demand, results []ratelimit.Result) bool {
	s.sweep(now)
	if len(demands) == 0 {
		return true
	}
	if len(demands) == 1 && !demands[0].IfNew {
		_, results[0] = s.charge(now, s.place(demands[0].Key), &demands[0])
		return results[0].Allowed
	}
	var buf [16]pending
	ps := s.pending(buf[:0], demands)
	for s.decide(now, demands, results, ps) {
		if s.chargeAll(now, demands, results, ps) {
			return true
		}
		// What look has found with a later clock would be found again, and decide not see it.
		now = max(now, s.now())
	}
	for i := range demands {
		if !results[i].Allowed {
			s.refused(now, ps[i].place, &demands[i])
		}
	}
	return false
}

// decide answers all demands, and charges nothing.
func (s *Store) decide(now int64, demands []ratelimit.Demand, results []ratelimit.Result, ps []pending) bool {
	ok := true
	for i := range demands {
		d, p := &demands[i], &ps[i]
		tat := p.before(now, ps[:i])
		results[i] = ratelimit.Result{Allowed: true, New: tat == now}
		p.tat = tat
		if p.counts = !d.IfNew || results[0].New; p.counts {
			p.tat, results[i] = apply(d, tat, now)
			ok = ok && results[i].Allowed
		}
	}
	if ok {
		return true
	}
	if results[0].New && ps[0].before(now, nil) != now {
		// Another request of the new client has been charged meanwhile, perhaps the very
		// room that was missing here: this one is not new any more.
		return s.decide(now, demands, results, ps)
	}
	// What is not charged leaves the room as it is.
	for i := range demands {
		if results[i].Allowed && ps[i].counts {
			_, results[i] = demands[i].Limit.Take(ps[i].before(now, nil), now, 0)
		}
	}
	return false
}

// before is the TAT that a demand meets, after those that come before it in the same Take.
func (p *pending) before(now int64, earlier []pending) int64 {
	for _, other := range slices.Backward(earlier) {
		if other.place == p.place {
			return other.tat
		}
	}
	return now + max(p.bucket.find(p.tag, now).debt, 0)
}

func apply(d *ratelimit.Demand, tat, now int64) (int64, ratelimit.Result) {
	if d.Force {
		return d.Limit.Charge(tat, now, d.Cost)
	}
	return d.Limit.Take(tat, now, d.Cost)
}

// chargeAll charges what decide has found room for. If that room has gone since, it gives
// back what it has charged and returns false.
func (s *Store) chargeAll(now int64, demands []ratelimit.Demand, results []ratelimit.Result, ps []pending) bool {
	isNew := results[0].New
	for i := range demands {
		p := &ps[i]
		if !p.counts {
			continue
		}
		p.taken, results[i] = s.charge(now, p.place, &demands[i])
		// Of several first requests of a client only one finds it new still.
		if results[i].Allowed && results[0].New == isNew {
			continue
		}
		for j := range ps[:i+1] {
			if ps[j].counts {
				ps[j].refund(now, ps[j].taken)
			}
		}
		return false
	}
	return true
}

// charge takes what one demand asks for, if there is room, and says how far it moved the TAT.
func (s *Store) charge(now int64, at place, d *ratelimit.Demand) (taken int64, r ratelimit.Result) {
	for {
		e, tat, next, r := s.look(now, at, d)
		if !r.Allowed {
			if !at.refuse(e, next) {
				continue
			}
			return 0, r
		}
		// A limit that fails its Check could ask for more than a slot can say.
		next = min(next, now+horizon)
		if next == tat {
			return 0, r
		}
		var hold uint64
		if e.debt > 0 {
			hold = max(e.word&gripMask, grip)
		} else if e = s.room(now, at, e); e.slot < 0 {
			continue
		}
		if at.bucket.swap(e, pack(at.tag, hold, next)) {
			return next - tat, r
		}
	}
}

// look finds the key's entry, and what a demand makes of its TAT.
//
// A TAT beyond a full burst is that of a limit which was wider. But it seems so, too, if now
// was read before others charged the key, and it would be cut by what they have paid: so the
// clock is read again, after the entry.
func (s *Store) look(now int64, at place, d *ratelimit.Demand) (e entry, tat, next int64, r ratelimit.Result) {
	e = at.bucket.find(at.tag, now)
	tat = now + max(e.debt, 0)
	if next, r = apply(d, tat, now); next < tat {
		now = max(now, s.now())
		e.debt = debt(e.word, now)
		tat = now + max(e.debt, 0)
		next, r = apply(d, tat, now)
	}
	return e, tat, next, r
}

// room returns an entry of the key's own to be charged, given what was found of it, or none
// if somebody else was faster.
func (s *Store) room(now int64, at place, e entry) entry {
	none := entry{slot: -1}
	if e.slot < 0 {
		var gone entry
		var ok bool
		if e, gone, ok = at.bucket.reserve(at.tag, now); !ok {
			return none
		}
		if gone.word != 0 && gone.debt > 0 {
			s.forgot(at, gone)
		}
	}
	if !at.bucket.claim(e, now) {
		return none
	}
	return e
}

// refund undoes a charge. The debt is then what it would be without it; had the key come out
// of debt while the charge stood, somebody else's charge counts from a little earlier.
func (at place) refund(now, taken int64) {
	for {
		e := at.bucket.find(at.tag, now)
		if e.debt <= 0 || at.bucket.swap(e, pack(at.tag, e.word&gripMask, now+max(e.debt-taken, 0))) {
			return
		}
	}
}

// refuse notes that the key has been refused, and what a narrower limit has made of its debt.
// Its fourth refusal and all later ones write nothing.
func (at place) refuse(e entry, next int64) bool {
	word := pack(at.tag, min(e.word&gripMask+grip, gripMask), next)
	return e.debt <= 0 || e.word == word || at.bucket.swap(e, word)
}

// refused notes a refusal that decide has come to.
func (s *Store) refused(now int64, at place, d *ratelimit.Demand) {
	for {
		if e, _, next, r := s.look(now, at, d); r.Allowed || at.refuse(e, next) {
			return
		}
	}
}

// sweep clears the buckets whose turn has come, so that no TAT is left in the table until
// the clock has gone round and it seems to lie ahead.
func (s *Store) sweep(now int64) {
	if now>>s.step > s.swept.Load() {
		s.catchUp(now)
	}
}

func (s *Store) catchUp(now int64) {
	due := now >> s.step
	// Somebody else is at it. That needs waiting for only if nobody has asked for anything
	// for so long that the table cannot be read any more.
	if n := int64(len(s.table)); due-s.swept.Load() < n/2 {
		if !s.sweeping.TryLock() {
			return
		}
	} else {
		s.sweeping.Lock()
	}
	defer s.sweeping.Unlock()
	done := s.swept.Load()
	for i := max(done, due-int64(len(s.table))); i < due; i++ {
		s.table[i&int64(len(s.table)-1)].sweep(done<<s.step, now)
	}
	s.swept.Store(max(due, done))
}

func (s *Store) forgot(at place, gone entry) {
	c := &s.lost[at.tag%uint64(len(s.lost))]
	c.evicted.Add(1)
	if gone.word&gripMask != 0 {
		c.throttled.Add(1)
	}
}

// Stats says how full a Store is.
type Stats struct {
	// Bytes is the size of the table, and Slots the number of debts that fit into it.
	Bytes, Slots int
	// Occupied is the share of slots that hold a debt, from a sample: give or take 1 %.
	Occupied float64
	// Evicted is how many debts have been forgotten early, for lack of room, and
	// EvictedThrottled how many of them were of clients that had gone on asking: if it
	// grows, clients get bursts that they should not get, and the table is too small.
	Evicted, EvictedThrottled uint64
}

// Stats reads 64 KiB of the table, and takes some microseconds.
func (s *Store) Stats() Stats {
	st := Stats{Bytes: len(s.table) * bucketBytes, Slots: len(s.table) * slots}
	now := s.now()
	s.sweep(now)
	// Any buckets speak for all: keys are spread by a hash.
	live := 0
	for i := range s.table[:minBuckets] {
		for j := range s.table[i] {
			if word := s.table[i][j].Load(); word != 0 && debt(word, now) > 0 {
				live++
			}
		}
	}
	st.Occupied = float64(live) / (minBuckets * slots)
	for i := range s.lost {
		st.Evicted += s.lost[i].evicted.Load()
		st.EvictedThrottled += s.lost[i].throttled.Load()
	}
	return st
}
