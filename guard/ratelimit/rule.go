package ratelimit

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// Fact is something about a request that a limit counts by.
type Fact uint8

const (
	// Address is the client's address, and the networks around it: see Wider.
	Address Fact = iota + 1
	// Route is the route, or whatever the caller of Decide names so.
	Route
	// Method is the request's method.
	Method
	// NewAddress makes a limit count only clients that have not been admitted for KnownFor,
	// each once. It bounds how fast somebody with very many addresses can bring them into
	// play, while those who are known pass.
	NewAddress
)

// KnownFor is how long after a request a client is not new: see NewAddress.
const KnownFor = 10 * time.Minute

// Rule is a limit with a name.
type Rule struct {
	// Name stands in headers, logs and keys. Rules of one name share their debts,
	// whichever policy they are in. It is up to 64 letters, digits, "_" and "-".
	Name string
	// Limit bounds the rate. The zero Limit bounds none.
	Limit Limit
	// AtOnce bounds how many requests are under way at the same time; 0 bounds none. It is
	// counted in this process alone, whatever the Store is: a request under way lives here,
	// and what dies with the process must not be counted for ever.
	AtOnce int
	// By says who is counted together: requests that agree in these facts. Without any,
	// everybody is.
	By []Fact
	// Wider bounds the networks around an address. The zero value stands for DefaultWider.
	Wider Wider
	// Tiers have other limits for some. The first that holds the address counts.
	Tiers []Tier
	// Lease is Demand.Lease: over how much a process may dispose without asking a store
	// that is shared.
	Lease int
}

// Wider says how many times its own limit the networks around an address have, all their
// clients together. A factor that is negative bounds nothing; 0 stands for DefaultWider's.
//
// An IPv6 /64 is what one household or one server has, a /56 or /48 what some providers
// give to each of their customers for the asking: without these levels one of them has
// 65,536 clients' worth of requests. The factors leave room for honest neighbours.
type Wider struct {
	IPv4Net24, IPv6Net56, IPv6Net48 int
}

// DefaultWider are the factors where nothing is said.
var DefaultWider = Wider{IPv4Net24: 16, IPv6Net56: 4, IPv6Net48: 16}

// Tier is another limit for some addresses.
type Tier struct {
	For []netip.Prefix
	// Exempt takes them out of the rule. Otherwise Limit and AtOnce stand in the place of
	// the rule's.
	Exempt bool
	Limit  Limit
	AtOnce int
}

// level is one network around a client and its limit.
type level struct {
	bits  int // of the network's prefix; -1 if the rule does not look at addresses
	limit Limit
	want  string
}

// tier is a compiled Tier; the last one of a rule holds everybody.
type tier struct {
	nets   []netip.Prefix // nil for everybody
	v4, v6 []level        // the narrowest first
	atOnce int
	policy string // the rule's item of RateLimit-Policy, or ""
}

// rule is a compiled Rule.
type rule struct {
	name                                string
	byAddress, byRoute, byMethod, isNew bool
	tiers                               []tier
	lease                               int
}

// maxCost bounds what a request may cost, so that no product overflows.
const maxCost = 1_000_000

// Check says what is wrong with a rule, if anything is.
func (r Rule) Check() error {
	_, err := compileRule(r)
	return err
}

func compileRule(r Rule) (rule, error) {
	out := rule{name: r.Name, lease: r.Lease}
	if !validName(r.Name) {
		return out, errors.New("not a name; use up to 64 letters, digits, _ and -")
	}
	for _, f := range r.By {
		switch f {
		case Address:
			out.byAddress = true
		case Route:
			out.byRoute = true
		case Method:
			out.byMethod = true
		case NewAddress:
			out.isNew = true
		default:
			return out, fmt.Errorf("no such fact: %d", f)
		}
	}
	if out.isNew && out.byAddress {
		return out, errors.New("counts by address and by new address; a client is new only once, so that bounds nothing")
	}
	if out.isNew && (r.Limit == (Limit{}) || r.AtOnce > 0) {
		return out, errors.New("counts by new address, so it needs a limit, and cannot have at_once")
	}
	if r.Limit == (Limit{}) && r.AtOnce == 0 {
		return out, errors.New("bounds neither a rate nor how many at once")
	}
	if r.Lease < 0 || r.Lease > maxCost {
		return out, fmt.Errorf("the lease must be from 0 to %d", maxCost)
	}
	for _, t := range append(slices.Clone(r.Tiers), Tier{Limit: r.Limit, AtOnce: r.AtOnce}) {
		c, err := out.compileTier(t, r.Wider)
		if err != nil {
			return out, err
		}
		out.tiers = append(out.tiers, c)
	}
	out.tiers[len(out.tiers)-1].nets = nil
	return out, nil
}

func (r *rule) compileTier(t Tier, w Wider) (tier, error) {
	out := tier{nets: t.For, atOnce: t.AtOnce}
	switch {
	case t.AtOnce < 0:
		return out, errors.New("the number at once is negative")
	case t.Exempt && (t.Limit != (Limit{}) || t.AtOnce > 0):
		return out, errors.New("a tier is exempt, and has a limit")
	case t.Exempt:
		out.atOnce = 0
		return out, nil
	case t.Limit == (Limit{}):
		return out, nil
	}
	if err := t.Limit.Check(); err != nil {
		return out, err
	}
	if !r.byAddress {
		out.v4 = []level{{-1, t.Limit, t.Limit.String()}}
		out.v6 = out.v4
		return out, nil
	}
	add := func(to []level, bits, factor, fallback int) []level {
		if factor == 0 {
			factor = fallback
		}
		l := t.Limit.Times(max(factor, 1))
		if factor < 0 || l.Check() != nil {
			return to // off, or faster than MaxPerSecond, which bounds nothing any more
		}
		return append(to, level{bits, l, l.String()})
	}
	out.v4 = add(add(nil, 32, 1, 1), 24, w.IPv4Net24, DefaultWider.IPv4Net24)
	out.v6 = add(add(add(nil, 64, 1, 1), 56, w.IPv6Net56, DefaultWider.IPv6Net56), 48, w.IPv6Net48, DefaultWider.IPv6Net48)
	for _, levels := range [][]level{out.v4, out.v6} {
		for i := 1; i < len(levels); i++ {
			if levels[i].limit.Count < levels[i-1].limit.Count {
				return out, fmt.Errorf("a /%d has less than a /%d within it, which could then never have its own", levels[i].bits, levels[i-1].bits)
			}
		}
	}
	out.policy = fmt.Sprintf("%q;q=%d;w=%d", r.name, t.Limit.burst(), ceilSeconds(t.Limit.interval()*t.Limit.burst()))
	return out, nil
}

// ceilSeconds is a number of microseconds in whole seconds, at least 1.
func ceilSeconds(us int64) int64 { return max((us+999_999)/1_000_000, 1) }

func validName(s string) bool {
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '_', c == '-' && i > 0:
		default:
			return false
		}
	}
	return s != "" && len(s) <= 64
}

// narrow is the network that is one client: the IPv4 address, or the IPv6 /64. For an
// address that is not known it is the zero Prefix, so that such clients share one.
func narrow(a netip.Addr) netip.Prefix {
	bits := 64
	if a.Is4() {
		bits = 32
	}
	p, err := a.Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return p
}

// tierOf is the tier of an address.
func (r *rule) tierOf(a netip.Addr) *tier {
	for i := range r.tiers {
		t := &r.tiers[i]
		if t.nets == nil || slices.ContainsFunc(t.nets, func(p netip.Prefix) bool { return p.Contains(a) }) {
			return t
		}
	}
	return nil // never: the last holds everybody
}

func (t *tier) levels(a netip.Addr) []level {
	switch {
	case a.Is6():
		return t.v6
	case a.Is4(), len(t.v4) == 0:
		return t.v4
	}
	return t.v4[:1] // nobody knows the networks around an address that is not known
}

// key is the key of a request at a level of the rule.
func (r *rule) key(f *Facts, bits int) Key {
	k := Key{Limit: r.name}
	if r.byAddress && bits >= 0 {
		k.Net, _ = f.Client.Prefix(bits) // an address that is not known is the zero Prefix: they share one
	}
	if r.byRoute {
		k.Route = f.Route
	}
	if r.byMethod {
		k.Method = f.Method
	}
	return k
}
