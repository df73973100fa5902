package ratelimit

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"time"

	"github.com/moat-gateway/moat/guard"
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
	// AtOnce bounds how many requests are under way at the same time; 0 bounds none. Networks
	// around an address have more, as with Limit. It is
	// counted in this process alone, whatever the Store is: a request under way lives here,
	// and what dies with the process must not be counted for ever.
	AtOnce int
	// By says who is counted together: requests that agree in these facts. Without any,
	// everybody is.
	By []Fact
	// Wider bounds the networks around an address. The zero value stands for DefaultWider.
	Wider Wider
	// Tiers have other limits for some. The first that holds the address counts. Those of
	// a tier with a Limit of its own have debts of their own, too.
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
	// the rule's, where they are not zero.
	Exempt bool
	Limit  Limit
	AtOnce int
}

// level is one network around a client, and what it may ask for.
type level struct {
	bits   int   // of the network's prefix; -1 if the rule does not look at addresses
	limit  Limit // zero if the rate is not bounded
	atOnce int   // 0 if that is not bounded
	want   string
}

// tier is a compiled Tier; the last one of a rule holds everybody.
type tier struct {
	nets      []netip.Prefix
	everybody bool
	name      string  // of the keys' limit
	v4, v6    []level // the narrowest first
	policy    string  // the rule's item of RateLimit-Policy, or ""
}

// rule is a compiled Rule.
type rule struct {
	name                                string
	byAddress, byRoute, byMethod, isNew bool
	tiers                               []tier
	lease                               int
	seen                                string // the limit of the keys that tell who is new
}

// Bounds that keep products from overflowing.
const (
	maxCost   = 1_000_000
	maxAtOnce = 1_000_000
	maxWider  = 1 << 16
)

// Check says what is wrong with a rule, if anything is.
func (r Rule) Check() error {
	_, err := compileRule(r)
	return err
}

func compileRule(r Rule) (rule, error) {
	out := rule{name: r.Name, lease: r.Lease, seen: r.Name + "/seen"}
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
	for i, t := range r.Tiers {
		c, err := out.compileTier(t, r, i)
		if err != nil {
			return out, err
		}
		out.tiers = append(out.tiers, c)
	}
	last, err := out.compileTier(Tier{Limit: r.Limit, AtOnce: r.AtOnce}, r, -1)
	last.everybody = true
	out.tiers = append(out.tiers, last)
	return out, err
}

func (r *rule) compileTier(t Tier, of Rule, i int) (tier, error) {
	out := tier{nets: t.For, name: r.name}
	switch {
	case i >= 0 && len(t.For) == 0:
		return out, errors.New("a tier is for no address")
	case t.AtOnce < 0 || t.AtOnce > maxAtOnce:
		return out, fmt.Errorf("the number at once must be from 0 to %d", maxAtOnce)
	case r.isNew && t.AtOnce > 0:
		return out, errors.New("counts by new address, so it cannot have at_once")
	case t.Exempt && (t.Limit != (Limit{}) || t.AtOnce > 0):
		return out, errors.New("a tier is exempt, and has a limit")
	case t.Exempt:
		return out, nil
	}
	if t.Limit != (Limit{}) && t.Limit != of.Limit {
		// A key has one limit, or a debt that is little to one would be a full burst to the other.
		out.name = of.tierName(i)
	}
	t.Limit, t.AtOnce = cmp.Or(t.Limit, of.Limit), cmp.Or(t.AtOnce, of.AtOnce)
	if t.Limit != (Limit{}) {
		if err := t.Limit.Check(); err != nil {
			return out, err
		}
	}
	if !r.byAddress {
		out.v4 = t.level(nil, -1, 1, 1)
		out.v6 = out.v4
		return out, nil
	}
	w := of.Wider
	if max(w.IPv4Net24, w.IPv6Net56, w.IPv6Net48) > maxWider {
		return out, fmt.Errorf("a network has more than %d times the limit of a client", maxWider)
	}
	out.v4 = t.level(t.level(nil, 32, 1, 1), 24, w.IPv4Net24, DefaultWider.IPv4Net24)
	out.v6 = t.level(t.level(t.level(nil, 64, 1, 1), 56, w.IPv6Net56, DefaultWider.IPv6Net56), 48, w.IPv6Net48, DefaultWider.IPv6Net48)
	if net56, net48 := cmp.Or(w.IPv6Net56, DefaultWider.IPv6Net56), cmp.Or(w.IPv6Net48, DefaultWider.IPv6Net48); 0 < net48 && net48 < net56 {
		return out, errors.New("a /48 has less than a /56 within it, which could then never have its own")
	}
	if t.Limit != (Limit{}) {
		q, w := t.Limit.burst(), t.Limit.interval()*t.Limit.burst()
		if w < 1_000_000 { // there are no shorter windows to tell
			q = max(q, 1_000_000/t.Limit.interval())
		}
		out.policy = fmt.Sprintf("%q;q=%d;w=%d", r.name, q, ceilSeconds(w))
	}
	return out, nil
}

// level adds a level with so many times the tier's limit, or the fallback where nothing is
// said. A rate above MaxPerSecond bounds nothing, so it is left out.
func (t *Tier) level(to []level, bits, factor, fallback int) []level {
	factor = cmp.Or(factor, fallback)
	if factor < 0 {
		return to
	}
	l := level{bits: bits, atOnce: t.AtOnce * factor}
	if limit := t.Limit.Times(factor); t.Limit != (Limit{}) && !limit.tooFast() {
		l.limit, l.want = limit, limit.String()
	}
	if l.limit == (Limit{}) && l.atOnce == 0 {
		return to
	}
	return append(to, l)
}

// tierName is the limit of the keys of a tier that has a limit of its own. No rule has
// such a name.
func (r Rule) tierName(i int) string { return fmt.Sprintf("%s/%d", r.Name, i+1) }

// KeyNames are the limits that keys of the rule can have: its name, and those of tiers
// that have debts of their own.
func (r Rule) KeyNames() []string {
	names := []string{r.Name}
	for i, t := range r.Tiers {
		if !t.Exempt && t.Limit != (Limit{}) && t.Limit != r.Limit {
			names = append(names, r.tierName(i))
		}
	}
	return names
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

// tierOf is the tier of an address.
func (r *rule) tierOf(a netip.Addr) *tier {
	for i := range r.tiers {
		t := &r.tiers[i]
		if t.everybody || slices.ContainsFunc(t.nets, func(p netip.Prefix) bool { return p.Contains(a) }) {
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

// key is the key of a request at a level of a tier.
func (r *rule) key(f *Facts, t *tier, bits int) Key {
	k := Key{Limit: t.name}
	if bits >= 0 {
		k.Net, _ = f.Client.Prefix(bits) // an address that is not known is the zero Prefix: they share one
	}
	if r.byRoute {
		k.Route = f.Route
	}
	if r.byMethod {
		k.Method = counted(f.Method)
	}
	return k
}

// counted is the method that a method is counted as: GET includes HEAD, as everywhere, and
// what RFC 9110 and RFC 5789 do not know is one method, or a client could invent some.
func counted(method string) string {
	switch method {
	case http.MethodHead:
		return http.MethodGet
	case http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions:
		return method
	}
	return "other"
}

// reason is that of a refusal by the rule.
func (r *rule) reason(atOnce bool) guard.Reason {
	switch {
	case r.isNew:
		return guard.RateLimitedNew
	case !r.byAddress:
		return guard.RateLimitedTogether
	case atOnce:
		return guard.TooManyAtOnce
	}
	return guard.RateLimited
}
