package assertion

import (
	"hash/maphash"
	"math"
	"sync/atomic"

	"github.com/moat-gateway/moat/guard/identity"
)

// A Guard remembers 16,384 principals: what is said about each, MaxBytes at most, and the
// Principal, which it keeps alive. Eight ways are a line of the processor's cache, and enough
// that a quarter as many callers hardly ever displace each other.
const (
	sets = 2048
	ways = 8
)

// entry is what was said about a principal. Only renewing changes.
type entry struct {
	principal            *identity.Principal
	values               []string
	made, renew, expires int64 // Unix seconds
	renewing             atomic.Bool
}

// fresh reports whether there is no need for another one. A clock that was set back makes
// what it said before untrue.
func (e *entry) fresh(now int64) bool { return e.made-slack <= now && now < e.renew }

// good reports whether it can still be said.
func (e *entry) good(now int64) bool { return e.made-slack <= now && now < e.expires }

// table finds entries by their Principal itself: it never changes, whereas two tokens of one
// user can differ in anything but the name. Finding takes no lock.
type table struct {
	seed maphash.Seed
	sets [sets][ways]atomic.Pointer[entry]
}

func newTable() *table { return &table{seed: maphash.MakeSeed()} }

// find returns the principal's entry, or nil, and where one belongs: in its own place, in an
// empty one, or in that of whoever has not been here for longest.
func (t *table) find(p *identity.Principal) (e *entry, place *atomic.Pointer[entry]) {
	set := &t.sets[maphash.Comparable(t.seed, p)%sets]
	oldest := int64(math.MaxInt64)
	for i := range set {
		e = set[i].Load()
		if e != nil && e.principal == p {
			return e, &set[i]
		}
		made := int64(math.MinInt64)
		if e != nil {
			made = e.made
		}
		if place == nil || made < oldest {
			place, oldest = &set[i], made
		}
	}
	return nil, place
}
