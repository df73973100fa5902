package ratelimit

import (
	"cmp"
	"encoding/binary"
	"hash/maphash"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/moat-gateway/moat/guard"
)

// Watch remembers who is limited now and who asks most, so that an operator can be told.
// It decides nothing. Its memory is fixed, at about 1 MiB, and as much again for the names of
// those who are limited by name, so that a flood of new clients costs no more; no goroutine
// cleans up, and a request that is admitted allocates nothing.
//
// Whom it remembers is chosen by a seeded hash, as in store/memory: a client, or a key, has
// one of 512 sets with 8 places. What follows from that:
//
// Talkers are counted by Space-Saving (Metwally, Agrawal, El Abbadi: Efficient Computation
// of Frequent and Top-k Elements in Data Streams, 2005), set by set. When a set is full a
// new client takes the place of the one with the lowest count, and goes on from that count
// in rank, but not in what is told: no count is ever too high. It is whole unless
// AtLeast says that another may have had the client's place before. A client that makes
// more than an eighth of its set's requests, which is about one in 3,500 of all where no
// other stands out, always has a place.
//
// Keys that are limited give way in order of time: when a set is full the one that may come
// again soonest is forgotten.
type Watch struct {
	start   time.Time
	talkers [watchSets]talkerSet
	waits   [watchSets]waitSet
}

const (
	watchSets   = 512
	watchPlaces = 8
	// window is half of the span that talkers are counted over: the requests of this
	// window and of the one before are told, which are those of the last 5 to 10 minutes.
	window = 5 * time.Minute
	// calm ends a row of refusals. Whoever comes back at the time that it was told, and is
	// refused again soon, has been limited all the while.
	calm = time.Minute
)

var watchSeed = maphash.MakeSeed()

// NewWatch returns a Watch that has seen nothing.
func NewWatch() *Watch { return &Watch{start: time.Now()} }

// Note tells the Watch of a request, and what the limits decided about it in mode m. The
// Grant is nil if they were not asked; then the request counts all the same.
func (w *Watch) Note(client netip.Addr, gr *Grant, d guard.Decision, m guard.Mode) {
	now := time.Since(w.start)
	if id, ok := talkerID(client); ok {
		w.talkers[maphash.Comparable(watchSeed, id)%watchSets].count(id, int64(now/window), d.Denied(), m)
	}
	if !d.Denied() || gr == nil {
		return
	}
	if k, wait, ok := gr.Refusal(); ok {
		w.setOf(k).add(k, d, m, now, now+min(wait, MaxHorizon))
	}
}

// Talkers are the clients that ask most.
type Talkers struct {
	// Since is when the span began that requests are counted over.
	Since time.Time
	// Requests are those of all clients.
	Requests uint64
	// Top is in order of requests.
	Top []Talker
}

// Talker is a client that asks much.
type Talker struct {
	// Client is an IPv4 address or an IPv6 /64.
	Client netip.Prefix
	// Requests are all of its requests. Of these limits refused some, and limits in report
	// mode would have refused Reported.
	Requests, Refused, Reported uint64
	// AtLeast says that there may have been more, at the beginning of the span.
	AtLeast bool
}

// Talkers returns the n clients that ask most.
func (w *Watch) Talkers(n int) Talkers {
	now := time.Since(w.start)
	win := int64(now / window)
	out := Talkers{Since: time.Now().Add(min(window*time.Duration(max(win-1, 0))-now, 0))}
	for i := range w.talkers {
		out.Requests += w.talkers[i].list(win, &out.Top)
	}
	slices.SortFunc(out.Top, func(a, b Talker) int {
		return cmp.Or(cmp.Compare(b.Requests, a.Requests), a.Client.Compare(b.Client))
	})
	out.Top = out.Top[:min(n, len(out.Top))]
	return out
}

// talkerSet counts the clients of one set, in this window and in the one before.
type talkerSet struct {
	mu     sync.Mutex
	window int64
	// lost is the window after the last one in which somebody lost his place. Who comes
	// anew may have been counted before.
	lost    int64
	clients [watchPlaces]uint64
	places  [watchPlaces]talker
}

// talker has the place of a client.
type talker struct {
	now, before tally
	whole       int64 // the window from which on all is counted
}

// tally is what is counted in one window.
type tally struct {
	requests, refused, reported uint32
	head                        uint32 // the requests of who had the place before
}

func (t *tally) weight() uint64 { return uint64(t.requests) + uint64(t.head) }

func (t *talker) weight() uint64 { return t.now.weight() + t.before.weight() }

func (s *talkerSet) count(id uint64, win int64, refused bool, m guard.Mode) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.turn(win)
	t := s.place(id)
	t.now.requests++
	switch {
	case refused && m == guard.Enforce:
		t.now.refused++
	case refused:
		t.now.reported++
	}
}

// turn begins a new window if it is time. A reading of the clock that is late counts in
// the window that has begun meanwhile.
func (s *talkerSet) turn(win int64) {
	if win <= s.window {
		return
	}
	for i := range s.places {
		t := &s.places[i]
		t.before = t.now
		if win > s.window+1 {
			t.before = tally{}
		}
		t.now = tally{}
	}
	s.window = win
}

// place returns the client's place, and gives it one if it has none.
func (s *talkerSet) place(id uint64) *talker {
	for i, c := range s.clients {
		if c == id {
			return &s.places[i]
		}
	}
	last := 0
	for i := range s.places {
		if s.places[i].weight() < s.places[last].weight() {
			last = i
		}
	}
	t := &s.places[last]
	if t.weight() > 0 {
		s.lost = s.window + 1
	}
	*t = talker{now: tally{head: uint32(t.now.weight())}, before: tally{head: uint32(t.before.weight())}, whole: s.lost} //nolint:gosec // five minutes' requests of one client are fewer.
	s.clients[last] = id
	return t
}

// list adds the set's clients, and returns the number of all their requests.
func (s *talkerSet) list(win int64, out *[]Talker) (requests uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.turn(win)
	for i := range s.places {
		t := &s.places[i]
		requests += t.weight()
		n := uint64(t.now.requests) + uint64(t.before.requests)
		if n == 0 {
			continue
		}
		*out = append(*out, Talker{
			Client: talkerNet(s.clients[i]), Requests: n,
			Refused:  uint64(t.now.refused) + uint64(t.before.refused),
			Reported: uint64(t.now.reported) + uint64(t.before.reported),
			AtLeast:  t.whole >= s.window && t.whole > 0,
		})
	}
	return requests
}

// The id of an IPv6 client is the first half of its address, and that of an IPv4 client
// lies in 0:1::/32, which is reserved (RFC 4291 section 4), as is 0:2::/64 for ::/64.
const (
	idV4   = 1 << 32
	idZero = 2 << 32
)

func talkerID(a netip.Addr) (uint64, bool) {
	if !a.IsValid() {
		return 0, false
	}
	if a = a.Unmap(); a.Is4() {
		b := a.As4()
		return idV4 | uint64(binary.BigEndian.Uint32(b[:])), true
	}
	b := a.As16()
	return cmp.Or(binary.BigEndian.Uint64(b[:8]), idZero), true
}

func talkerNet(id uint64) netip.Prefix {
	var b [16]byte
	switch {
	case id>>32 == 1:
		binary.BigEndian.PutUint64(b[:8], id)
		return netip.PrefixFrom(netip.AddrFrom4([4]byte(b[4:8])), 32)
	case id != idZero:
		binary.BigEndian.PutUint64(b[:8], id)
	}
	return netip.PrefixFrom(netip.AddrFrom16(b), 64)
}

// Limited is a key that a limit has refused, and that has to wait still.
type Limited struct {
	Key    Key
	Reason guard.Reason
	// Want is the limit in words: that of the network, if it is one of the wider ones.
	Want string
	// Mode is Report if nothing was refused, but would have been.
	Mode guard.Mode
	// Since is when the row of refusals began, Refused how many there were, and Again when
	// there is room for one more request. What comes back by then and is refused within a
	// minute goes on with the row.
	Since, Again time.Time
	Refused      uint64
}

// Limited returns the n keys of those that are limited now that were refused most, and how
// many there are in all.
func (w *Watch) Limited(n int) (most []Limited, all int) {
	now, wall := time.Since(w.start), time.Now()
	for i := range w.waits {
		w.waits[i].list(now, wall, &most)
	}
	slices.SortFunc(most, func(a, b Limited) int {
		return cmp.Or(cmp.Compare(b.Refused, a.Refused), a.Since.Compare(b.Since), cmp.Compare(a.Key.Limit, b.Key.Limit), strings.Compare(a.Key.Text(), b.Key.Text()))
	})
	return most[:min(n, len(most))], len(most)
}

// Forget is for a key whose debt has been forgotten: it is limited no more.
func (w *Watch) Forget(k Key) { w.setOf(k).forget(k) }

func (w *Watch) setOf(k Key) *waitSet { return &w.waits[maphash.Comparable(watchSeed, k)%watchSets] }

// waitSet holds the keys of one set. Most have none, so the places are made when needed.
type waitSet struct {
	mu     sync.Mutex
	places *[watchPlaces]wait
}

// wait has the place of a key that was refused. An empty one has ended.
type wait struct {
	key          Key
	reason       guard.Reason
	mode         guard.Mode
	want         string
	since, until time.Duration // after the Watch's start
	refused      uint64
}

func (s *waitSet) add(k Key, d guard.Decision, m guard.Mode, now, until time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.places == nil {
		s.places = new([watchPlaces]wait)
	}
	soonest := &s.places[0]
	for i := range s.places {
		p := &s.places[i]
		if p.refused > 0 && p.reason == d.Reason && p.mode == m && p.key == k {
			if now-p.until > calm {
				p.since, p.refused = now, 0
			}
			p.until, p.want = until, d.Evidence.Want
			p.refused++
			return
		}
		if p.until < soonest.until {
			soonest = p
		}
	}
	k.Method = strings.Clone(k.Method) // or the whole head of the request would stay
	*soonest = wait{k, d.Reason, m, d.Evidence.Want, now, until, 1}
}

func (s *waitSet) forget(k Key) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.places == nil {
		return
	}
	for i := range s.places {
		if s.places[i].key == k {
			s.places[i] = wait{}
		}
	}
}

func (s *waitSet) list(now time.Duration, wall time.Time, out *[]Limited) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.places == nil {
		return
	}
	for i := range s.places {
		if p := &s.places[i]; p.refused > 0 && p.until > now {
			*out = append(*out, Limited{
				Key: p.key, Reason: p.reason, Want: p.want, Mode: p.mode, Refused: p.refused,
				Since: wall.Add(p.since - now), Again: wall.Add(p.until - now),
			})
		}
	}
}
