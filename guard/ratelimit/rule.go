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
	"github.com/moat-gateway/moat/guard/identity"
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
	// Principal is who makes the request. A request of nobody who is known is counted by its
	// address and the networks around it instead: leaving the token out gains nothing.
	Principal
	// Credential is the API key that the request shows. Whoever shows something else is
	// counted as Principal has it: a new token is had for the asking, a new key is not.
	Credential
	// Account is the account that the request wants to get into, and names: see ReadAccount.
	// Requests that name none are counted as one.
	Account
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
	// ByClaims are claims of the principal that it is counted by, too: a tenant's users share
	// what is counted by "org". Who has no such claim, or has it as a list or an object, is
	// counted with all others of whom that is so, and who is not known as Principal has it.
	ByClaims []string
	// Wider bounds the networks around an address. The zero value stands for DefaultWider.
	Wider Wider
	// Tiers have other limits for some. The first that the address or the principal belongs
	// to counts. Those of a tier with a Limit of its own have debts of their own, too.
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

// Tier is another limit for some addresses, or for those who have some claim.
type Tier struct {
	For []netip.Prefix
	// Claim is a claim of the principal, which must be one of Values, or be a list that has
	// one of them. Numbers, true and false are written as in JSON.
	Claim  string
	Values []string
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
	nets           []netip.Prefix
	claim          string
	values         []string
	everybody      bool
	name           string // of the keys' limit
	unknown, known ladder // for requests without a principal, and with one
}

// ladder is what a request is counted by: at each level all demands are made at once.
type ladder struct {
	v4, v6 []level // the narrowest first
	policy string  // the rule's item of RateLimit-Policy, or ""
}

// rule is a compiled Rule.
type rule struct {
	name                                string
	byAddress, byRoute, byMethod, isNew bool
	// byCredential is set with byPrincipal only, and byIdentity if either is, or byClaims.
	byPrincipal, byCredential, byIdentity, byAccount bool
	byClaims                                         []string
	tiers                                            []tier
	lease                                            int
	seen                                             string // the limit of the keys that tell who is new
}

// Bounds that keep products from overflowing.
const (
	maxCost   = 1_000_000
	maxAtOnce = 1_000_000
	maxWider  = 1 << 16
	maxClaims = 4
	maxName   = 128 // bytes of a claim's name
)

// Check says what is wrong with a rule, if anything is.
func (r Rule) Check() error {
	_, err := compileRule(r)
	return err
}

// NeedsPrincipal reports whether the rule counts a request otherwise if it is known who
// makes it.
func (r Rule) NeedsPrincipal() bool {
	return r.byIdentity() || slices.ContainsFunc(r.Tiers, func(t Tier) bool { return t.Claim != "" })
}

func (r Rule) byIdentity() bool {
	return slices.Contains(r.By, Principal) || slices.Contains(r.By, Credential) || len(r.ByClaims) > 0
}

// NeedsAccount reports whether the rule counts by the account that a request names.
func (r Rule) NeedsAccount() bool { return slices.Contains(r.By, Account) }

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
		case Principal:
			out.byPrincipal = true
		case Credential:
			out.byPrincipal, out.byCredential = true, true
		case Account:
			out.byAccount = true
		default:
			return out, fmt.Errorf("no such fact: %d", f)
		}
	}
	out.byClaims, out.byIdentity = slices.Clone(r.ByClaims), r.byIdentity()
	if len(r.ByClaims) > maxClaims {
		return out, fmt.Errorf("counts by more than %d claims", maxClaims)
	}
	for i, path := range r.ByClaims {
		if path == "" || len(path) > maxName || slices.Contains(r.ByClaims[:i], path) {
			return out, fmt.Errorf("the claim %.128q has no name, too long a one, or stands there twice", path)
		}
	}
	if slices.Contains(r.By, Principal) && out.byCredential {
		return out, errors.New("counts by principal and by API key; a key has one owner, so the key alone says it")
	}
	if out.isNew && (out.byIdentity || out.byAccount) {
		return out, errors.New("counts by new address, and by who that is; a client is new by its address alone")
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
	out := tier{nets: t.For, claim: t.Claim, values: slices.Clone(t.Values), name: r.name}
	switch {
	case i >= 0 && len(t.For) == 0 && t.Claim == "":
		return out, errors.New("a tier is for no address and no claim")
	case len(t.For) > 0 && t.Claim != "":
		return out, errors.New("a tier is for addresses and for a claim; make two of it")
	case (t.Claim == "") != (len(t.Values) == 0):
		return out, errors.New("a tier has a claim without values, or values without a claim")
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
	w := of.Wider
	if max(w.IPv4Net24, w.IPv6Net56, w.IPv6Net48) > maxWider {
		return out, fmt.Errorf("a network has more than %d times the limit of a client", maxWider)
	}
	net56, net48 := cmp.Or(w.IPv6Net56, DefaultWider.IPv6Net56), cmp.Or(w.IPv6Net48, DefaultWider.IPv6Net48)
	if (r.byAddress || r.byIdentity) && 0 < net48 && net48 < net56 {
		return out, errors.New("a /48 has less than a /56 within it, which could then never have its own")
	}
	// What is told is what the client alone has used: by its address, or by its own name.
	out.unknown = t.ladder(r.byAddress || r.byIdentity, r.byAddress || r.byIdentity, w, r.name)
	out.known = t.ladder(r.byAddress, r.byAddress || r.byPrincipal, w, r.name)
	return out, nil
}

// ladder has the levels of the tier's limit, with the networks around an address or without.
func (t *Tier) ladder(byAddress, told bool, w Wider, name string) (l ladder) {
	if byAddress {
		l.v4 = t.level(t.level(nil, 32, 1, 1), 24, w.IPv4Net24, DefaultWider.IPv4Net24)
		l.v6 = t.level(t.level(t.level(nil, 64, 1, 1), 56, w.IPv6Net56, DefaultWider.IPv6Net56), 48, w.IPv6Net48, DefaultWider.IPv6Net48)
	} else {
		l.v4 = t.level(nil, -1, 1, 1)
		l.v6 = l.v4
	}
	if told && t.Limit != (Limit{}) {
		q, w := t.Limit.burst(), t.Limit.interval()*t.Limit.burst()
		if w < 1_000_000 { // there are no shorter windows to tell
			q = max(q, 1_000_000/t.Limit.interval())
		}
		l.policy = fmt.Sprintf("%q;q=%d;w=%d", name, q, ceilSeconds(w))
	}
	return l
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

// tierOf is the tier of a request.
func (r *rule) tierOf(f *Facts) *tier {
	for i := range r.tiers {
		t := &r.tiers[i]
		if t.everybody || slices.ContainsFunc(t.nets, func(p netip.Prefix) bool { return p.Contains(f.Client) }) || t.claim != "" && t.has(f.Principal) {
			return t
		}
	}
	return nil // never: the last holds everybody
}

// has reports whether the principal has the tier's claim.
func (t *tier) has(p *identity.Principal) bool {
	if p == nil {
		return false
	}
	v, _ := p.Claim(t.claim)
	if list, ok := v.([]any); ok {
		return slices.ContainsFunc(list, t.holds)
	}
	return t.holds(v)
}

func (t *tier) holds(v any) bool {
	s, ok := claimText(v)
	return ok && slices.Contains(t.values, s)
}

func (t *tier) ladder(p *identity.Principal) *ladder {
	if p == nil {
		return &t.unknown
	}
	return &t.known
}

func (l *ladder) levels(a netip.Addr) []level {
	switch {
	case a.Is6():
		return l.v6
	case a.Is4(), len(l.v4) == 0:
		return l.v4
	}
	return l.v4[:1] // nobody knows the networks around an address that is not known
}

// key is the key of a request at a level of a tier.
func (r *rule) key(f *Facts, t *tier, who string, bits int) Key {
	k := Key{Limit: t.name, Who: who}
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

// reason is that of a refusal by the rule, of a request that is of a known principal or not.
func (r *rule) reason(known, atOnce bool) guard.Reason {
	switch {
	case r.isNew:
		return guard.RateLimitedNew
	case !r.byAddress && !r.byIdentity && !r.byAccount:
		return guard.RateLimitedTogether
	case atOnce:
		return guard.TooManyAtOnce
	case r.byAccount:
		return guard.RateLimitedAccount
	case known && r.byIdentity:
		return guard.RateLimitedPrincipal
	}
	return guard.RateLimited
}
