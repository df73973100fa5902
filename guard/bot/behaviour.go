package bot

import (
	"hash/maphash"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	visitorSets   = 2048
	visitorPlaces = 8
	// span is how long a visit is counted over.
	span = 10 * time.Minute
	// pathBits is how many paths of a visit can be told apart.
	pathBits = 256
)

// What is too much for a person, in one span.
const (
	manyPaths   = 100
	manyCalls   = 30 // without a page
	manyPages   = 20 // without anything that pages load
	manyTickets = 6  // without a use
	manyUses    = 100
	// hurry is the gap that a row of uses does not exceed.
	hurry = 250 * time.Millisecond
	// evenGaps is how many gaps between new paths are compared, and evenly is the square of how much
	// they may differ from their mean, by it. People and pages come in bursts, which is above 1.
	evenGaps = 16
	evenly   = 0.2 * 0.2
	// leastGap is the mean from which gaps are compared at all: a page loads its parts in less.
	leastGap = 0.05
)

// visitors remembers what clients have done in the last ten minutes or so: by address (IPv6: the
// /64) and User-Agent, so that those behind one address are told apart a little.
//
// Its memory is fixed at some 1.7 MB. Where a visitor is remembered a seeded hash decides, which
// nobody can foretell; when that set of 8 is full, who has not come for ten minutes is forgotten, or
// else who came least. Whoever is forgotten has no points: a flood of new visitors makes the table
// blind, and nobody suspect. A request takes the lock of one set in 2,048, for a moment.
type visitors struct {
	seed  maphash.Seed
	start time.Time
	// pages and parts are what all visitors have loaded: parts are images, styles and so on.
	pages, parts atomic.Uint64
	sets         [visitorSets]visitorSet
}

type visitorSet struct {
	mu     sync.Mutex
	places [visitorPlaces]visit
}

// visit is what one visitor has done since it began. Numbers stop at their greatest.
type visit struct {
	visitor uint64 // 0 is nobody
	// begun, last, acted and used are times after the start: of the visit, of its last request, of the
	// last one that is no part of a page, and of the last one with a ticket.
	begun, last, acted, used time.Duration
	paths                    [pathBits / 64]uint64
	// gaps before new paths: how many, their mean in seconds, and the sum of the squares of how much
	// they differ from it (Welford).
	gaps       uint16
	mean, sum2 float32

	requests, different, pages, parts, calls uint16
	// asked and spent are tickets, and row those spent in a hurry.
	asked, spent, row uint16
	// paged says that a page was loaded, and signs what script saw, as long as the visitor comes.
	paged bool
	signs Signs
}

func newVisitors() *visitors { return &visitors{seed: maphash.MakeSeed(), start: time.Now()} }

// see notes a request, if it is not known yet, and what the page's script has seen; and says what the
// visitor's behaviour is like, and all that its pages' scripts have seen.
func (v *visitors) see(q *subject, known bool, s Signs) (found, Signs) {
	id, ok := v.idOf(q)
	if !ok {
		return found{}, s
	}
	now := q.facts.Now.Sub(v.start)
	path := maphash.String(v.seed, q.URL.Path) % pathBits
	set := &v.sets[id%visitorSets]
	set.mu.Lock()
	defer set.mu.Unlock()
	at := set.find(id, now)
	if at == nil {
		if q.facts.Dry || known && s == 0 {
			return found{}, s
		}
		at = set.room(now)
		*at = visit{visitor: id, begun: now, last: now}
	}
	if q.facts.Dry {
		return v.judge(at, q), at.signs | s
	}
	if !known {
		v.note(at, q, now, path)
	}
	at.signs |= s
	return v.judge(at, q), at.signs
}

// idOf tells visitors apart. Those whose address is not known are nobody.
func (v *visitors) idOf(q *subject) (uint64, bool) {
	a := q.facts.Client.Unmap()
	if !a.IsValid() {
		return 0, false
	}
	if a.Is6() {
		b := a.As16()
		clear(b[8:])
		a = netip.AddrFrom16(b)
	}
	id := maphash.Comparable(v.seed, a) ^ maphash.String(v.seed, q.first("User-Agent"))
	return max(id, 1), true
}

func (s *visitorSet) find(id uint64, now time.Duration) *visit {
	for i := range s.places {
		if p := &s.places[i]; p.visitor == id {
			if now-p.last > span {
				return nil // as if he had never been here
			}
			return p
		}
	}
	return nil
}

func (s *visitorSet) room(now time.Duration) *visit {
	least := &s.places[0]
	for i := range s.places {
		p := &s.places[i]
		if p.visitor == 0 || now-p.last > span {
			return p
		}
		if p.requests < least.requests {
			least = p
		}
	}
	return least
}

func (v *visitors) note(at *visit, q *subject, now time.Duration, path uint64) {
	if now-at.begun > span {
		*at = visit{visitor: at.visitor, begun: now, last: now, acted: at.acted, paged: at.paged, signs: at.signs}
	}
	at.last = max(at.last, now)
	more(&at.requests)
	switch {
	case subresource(q.dest):
		more(&at.parts)
		v.parts.Add(1)
		return // they come by themselves, with a page
	case q.mode == "navigate" && q.dest == "document", q.mode == "" && strings.HasPrefix(q.first("Accept"), "text/html"):
		more(&at.pages)
		at.paged = true
		v.pages.Add(1)
	default:
		more(&at.calls)
	}
	switch q.facts.Tickets {
	case NoTicket:
	case AsksForTicket:
		more(&at.asked)
		return
	case SpendsTicket:
		if more(&at.spent); now-at.used > hurry {
			at.row = 0
		}
		more(&at.row)
		at.used = now
	}
	if bit := uint64(1) << (path % 64); at.paths[path/64]&bit == 0 {
		at.paths[path/64] |= bit
		if more(&at.different); at.different > 1 {
			at.gap(float32((now - at.acted).Seconds()))
		}
	}
	at.acted = now
}

func (t *visit) gap(seconds float32) {
	more(&t.gaps)
	d := seconds - t.mean
	t.mean += d / float32(t.gaps)
	t.sum2 += d * (seconds - t.mean)
}

func (v *visitors) judge(t *visit, q *subject) (f found) {
	if t.gaps >= evenGaps && t.mean >= leastGap && t.sum2 <= evenly*t.mean*t.mean*float32(t.gaps) {
		f.add(20, "new paths at even intervals")
	}
	if t.different >= manyPaths {
		f.add(20, "a hundred paths within ten minutes")
	}
	if q.facts.Pages && t.calls >= manyCalls && !t.paged {
		f.add(20, "calls, and no page that makes them")
	}
	// Only where the others' pages load something through the gate.
	if t.pages >= manyPages && t.parts == 0 && v.parts.Load() > v.pages.Load() {
		f.add(20, "pages, and nothing that they load")
	}
	if t.asked >= manyTickets && t.spent == 0 {
		f.add(30, "tickets that are not used")
	}
	if t.row >= manyUses {
		f.add(20, "a hundred calls without a pause")
	}
	return f
}

func more(n *uint16) {
	if *n < 1<<16-1 {
		*n++
	}
}
