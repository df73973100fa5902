package ratelimit

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/moat-gateway/moat/guard"
	"github.com/moat-gateway/moat/guard/identity"
	"github.com/moat-gateway/moat/web"
)

// Down says what holds while a shared store cannot be asked.
type Down uint8

const (
	// DownLocal counts in this process, and admits its share: each limit divided by the
	// number of processes that last shared the store.
	DownLocal Down = iota
	// DownDeny refuses: nothing is served uncounted, and nothing is served.
	DownDeny
	// DownAllow admits everything: what stands behind is on its own.
	DownAllow
)

// Policy is what one route asks of its clients.
type Policy struct {
	// Rules all hold at once: a request that one of them refuses costs the others nothing.
	Rules []Rule
	// Cost of a request; 0 stands for 1, and a negative cost for nothing.
	Cost int
	// Down says what holds while the store cannot be asked.
	Down Down
	// Local is the store for DownLocal. It is not asked otherwise.
	Local Store
	// InFlight counts for AtOnce. Guards that share Rules share it; nil stands for one of
	// the Guard's own.
	InFlight *InFlight
}

// Guard is a compiled Policy: immutable, and safe for concurrent use. Its memory is in
// its Store.
type Guard struct {
	rules    []rule
	cost     int
	down     Down
	store    Store
	local    Store
	inFlight *InFlight
	byClient bool // some rule has a policy to tell
}

// New compiles a Policy.
func New(p Policy, s Store) (*Guard, error) {
	g := &Guard{cost: p.Cost, down: p.Down, store: s, local: p.Local, inFlight: p.InFlight}
	if p.Cost == 0 {
		g.cost = 1
	}
	if g.inFlight == nil {
		g.inFlight = new(InFlight)
	}
	if p.Cost > maxCost {
		return nil, fmt.Errorf("a request must not cost more than %d", maxCost)
	}
	var errs []error
	for _, r := range p.Rules {
		c, err := compileRule(r)
		if err != nil {
			errs = append(errs, fmt.Errorf("%q: %w", r.Name, err))
			continue
		}
		if c.isNew && slices.ContainsFunc(g.rules, func(r rule) bool { return r.isNew }) {
			errs = append(errs, fmt.Errorf("%q: the second limit by new address; a client is new to one of them only", r.Name))
		}
		for _, t := range c.tiers {
			if l := t.known.v4; len(l) > 0 && l[0].limit != (Limit{}) && !c.isNew && !l[0].limit.Admits(g.cost) {
				errs = append(errs, fmt.Errorf("%q: a request costs %d, and %s never has room for more than %d", r.Name, g.cost, l[0].limit, l[0].limit.burst()))
			}
			g.byClient = g.byClient || t.unknown.policy != "" || t.known.policy != ""
		}
		g.rules = append(g.rules, c)
	}
	// Whether a client is new is the first demand. What is its own stands before what it
	// shares with everybody, so that a place that all share is not held by who has none.
	rank := func(r rule) int {
		switch {
		case r.isNew:
			return 0
		case r.byAddress, r.byIdentity, r.byAccount:
			return 1
		}
		return 2
	}
	slices.SortStableFunc(g.rules, func(a, b rule) int { return cmp.Compare(rank(a), rank(b)) })
	return g, errors.Join(errs...)
}

// Facts are what a request is counted by.
type Facts struct {
	// Client is the client's address, as package clientaddr tells it. Clients whose
	// address is not known are counted as one.
	Client        netip.Addr
	Route, Method string
	// Principal is who makes the request, or nil if that is not known.
	Principal *identity.Principal
	// Account is the name of the account that the request wants to get into, as it stands
	// there, or "": see ReadAccount.
	Account string
}

// Grant is what Decide has set aside for a request. It is to be released when the
// request is over, and not used afterwards.
type Grant struct {
	g       *Guard
	demands []Demand
	results []Result
	rules   []ruleOf // of each demand
	asked   []asked  // of each rule
	known   bool     // who makes the request
	entered []Key
	refused Key // that was refused, if one was
	retry   time.Duration
	// Degraded is why the store could not be asked, if it could not.
	Degraded error
}

// ruleOf is the rule and level that a demand comes from, and what the rule tells the client.
type ruleOf struct {
	rule   *rule
	level  *level
	policy string
}

// asked is what a rule asks of a request.
type asked struct {
	tier   *tier
	levels []level
	who    string // of the keys
}

var grants = sync.Pool{New: func() any { return new(Grant) }}

// Decide charges a request, or refuses it. The Grant is never nil.
func (g *Guard) Decide(ctx context.Context, f Facts) (*Grant, guard.Decision) {
	gr := g.demand(&f, g.cost, true)
	if d := gr.enter(&f); d.Denied() {
		return gr, d
	}
	if len(gr.demands) == 0 {
		return gr, guard.Decision{}
	}
	answered := false
	defer func() {
		if !answered { // the store panics, and nobody will release the Grant
			gr.leave()
		}
	}()
	ok, err := g.store.Take(ctx, gr.demands, gr.results)
	answered = true
	return gr, gr.decide(ctx, ok, err)
}

// Peek is Decide without a charge. Requests under way are not counted either.
func (g *Guard) Peek(ctx context.Context, f Facts) (*Grant, guard.Decision) {
	gr := g.demand(&f, g.cost, true)
	if len(gr.demands) == 0 {
		return gr, guard.Decision{}
	}
	ok, err := g.store.Peek(ctx, gr.demands, gr.results)
	if err != nil {
		gr.Degraded = err
		return gr, guard.Decision{}
	}
	return gr, gr.decide(ctx, ok, nil)
}

// Charge makes the client pay for something that has been decided already, such as a
// request that another guard refused. It takes what room there is. It makes nobody known
// who was new, and no account pays for a request that does not name it.
func (g *Guard) Charge(ctx context.Context, f Facts, cost int) {
	if cost <= 0 {
		return
	}
	gr := g.demand(&f, min(cost, maxCost), false)
	defer gr.Release()
	if len(gr.demands) == 0 {
		return
	}
	for i := range gr.demands {
		gr.demands[i].Force = true
	}
	if _, err := g.store.Take(ctx, gr.demands, gr.results); err != nil && g.down == DownLocal && g.local != nil {
		gr.share()
		g.local.Take(ctx, gr.demands, gr.results) //nolint:errcheck // the request is decided, charged or not.
	}
}

// demand lists what a request asks for, of limits by new address only if it is to pass.
func (g *Guard) demand(f *Facts, cost int, pass bool) *Grant {
	gr, _ := grants.Get().(*Grant)
	gr.g, gr.refused, gr.retry, gr.Degraded, gr.known = g, Key{}, 0, nil, f.Principal != nil
	gr.demands, gr.results, gr.rules, gr.asked, gr.entered = gr.demands[:0], gr.results[:0], gr.rules[:0], gr.asked[:0], gr.entered[:0]
	f.Client = f.Client.Unmap().WithZone("") // one client, one key
	for i := range g.rules {
		r := &g.rules[i]
		t := r.tierOf(f)
		l := t.ladder(f.Principal)
		a := asked{tier: t, levels: l.levels(f.Client)}
		if len(a.levels) > 0 && (r.byIdentity || r.byAccount) {
			a.who = r.who(f)
		}
		gr.asked = append(gr.asked, a)
		if cost < 0 || !pass && r.byAccount && f.Account == "" {
			continue // what ended before the account was told is not one of those without
		}
		each := cost
		if r.isNew {
			if !pass || len(a.levels) == 0 {
				continue
			}
			each = 1 // a client is new once, whatever it asks for
			gr.add(Demand{Key: Key{Limit: r.seen, Net: web.Narrowest(f.Client)}, Limit: seen, Cost: 1, Force: true}, ruleOf{r, &a.levels[0], l.policy})
		}
		for j := range a.levels {
			at := &a.levels[j]
			if at.limit == (Limit{}) {
				continue
			}
			gr.add(Demand{Key: r.key(f, t, a.who, at.bits), Limit: at.limit, Cost: each, IfNew: r.isNew, Lease: r.lease}, ruleOf{r, at, l.policy})
		}
	}
	return gr
}

// seen is a debt that says no more than that a client was here, for as long as KnownFor.
var seen = Limit{Count: 1, Per: KnownFor, Burst: 1}

func (gr *Grant) add(d Demand, of ruleOf) {
	gr.demands, gr.results, gr.rules = append(gr.demands, d), append(gr.results, Result{}), append(gr.rules, of)
}

// enter counts the request among those under way.
func (gr *Grant) enter(f *Facts) guard.Decision {
	for i := range gr.g.rules {
		r := &gr.g.rules[i]
		a := &gr.asked[i]
		for j := range a.levels {
			l := &a.levels[j]
			if l.atOnce == 0 {
				continue
			}
			k := r.key(f, a.tier, a.who, l.bits)
			if !gr.g.inFlight.enter(k, l.atOnce) {
				gr.leave()
				gr.refused, gr.retry = k, time.Second // nobody knows when one of them ends
				return guard.Denial(r.reason(gr.known, true), "limit "+r.name, k.Text(), fmt.Sprintf("at most %d at once", l.atOnce))
			}
			gr.entered = append(gr.entered, k)
		}
	}
	return guard.Decision{}
}

func (gr *Grant) leave() {
	for _, k := range gr.entered {
		gr.g.inFlight.leave(k)
	}
	gr.entered = gr.entered[:0]
}

// decide turns what a store said into a Decision.
func (gr *Grant) decide(ctx context.Context, ok bool, err error) guard.Decision {
	if err != nil {
		gr.Degraded = err
		switch gr.g.down {
		case DownAllow:
			return guard.Decision{}
		case DownLocal:
			if gr.g.local != nil {
				gr.share()
				ok, err = gr.g.local.Take(ctx, gr.demands, gr.results)
			}
		case DownDeny:
		}
		if err != nil {
			gr.retry = time.Second
			return guard.Denial(guard.RateLimitUnavailable, "the limits' store", "", "an answer in time")
		}
	}
	if ok {
		return guard.Decision{}
	}
	last := 0 // of those that refused, the one to wait for longest
	for i, r := range gr.results {
		if !r.Allowed && r.Retry >= gr.retry {
			last, gr.retry = i, r.Retry
		}
	}
	gr.refused = gr.demands[last].Key
	of := gr.rules[last]
	return guard.Denial(of.rule.reason(gr.known, false), "limit "+of.rule.name, gr.refused.Text(), of.level.want)
}

// share divides the limits by the number of processes that share them.
func (gr *Grant) share() {
	n := 1
	if s, ok := gr.g.store.(interface{ Nodes() int }); ok {
		n = max(s.Nodes(), 1)
	}
	for i := range gr.demands {
		d := &gr.demands[i]
		d.Limit, d.Lease = d.Limit.Share(n), 0
		d.Limit.Burst = max(d.Limit.Burst, d.Cost) // or such a request could never pass
	}
}

// Refusal is the key that was refused and for how long, if one was: a client that has too
// many requests under way is told to wait for a second.
func (gr *Grant) Refusal() (k Key, retry time.Duration, ok bool) {
	return gr.refused, gr.retry, gr.refused.Limit != ""
}

// Release ends the request's part in what is counted at once.
func (gr *Grant) Release() {
	gr.leave()
	grants.Put(gr)
}

// SetHeaders tells the client its limits, by RateLimit-Policy and RateLimit (IETF
// draft-ietf-httpapi-ratelimit-headers-10) and, after a refusal, Retry-After (RFC 9110
// section 10.2.3). Of the policies it tells those that count the client by its address, or
// by who it is: what others use, its neighbours or everybody together, is not told, only
// that there is no more room. Keys are never told. Grants that are nil are passed over.
func SetHeaders(h http.Header, grants ...*Grant) {
	var room [256]byte
	var some [4]string
	policies, state := some[:0], room[:0] // policies in lines of their own: nothing need be put together
	for _, gr := range grants {
		if gr == nil {
			continue
		}
		if gr.retry > 0 && gr.retry != NeverAllowed {
			h["Retry-After"] = []string{strconv.FormatInt(ceilSeconds(int64(gr.retry/time.Microsecond)), 10)}
		}
		if !gr.g.byClient || len(gr.demands) == 0 || gr.results[0] == (Result{}) {
			continue
		}
		for i := 0; i < len(gr.demands); {
			of := gr.rules[i]
			left, reset := gr.results[i].Remaining, gr.results[i].Reset
			for i++; i < len(gr.demands) && gr.rules[i].rule == of.rule; i++ {
				if !gr.results[i].Allowed { // the network around it has no more
					left, reset = 0, gr.results[i].Retry
				}
			}
			if of.policy == "" {
				continue
			}
			if policies = append(policies, of.policy); len(policies) > 1 {
				state = append(state, ", "...)
			}
			state = append(state, '"')
			state = append(state, of.rule.name...)
			state = append(state, `";r=`...)
			state = strconv.AppendInt(state, int64(max(left, 0)), 10)
			state = append(state, ";t="...)
			state = strconv.AppendInt(state, int64((reset+time.Second-1)/time.Second), 10)
		}
	}
	if len(policies) == 0 {
		return
	}
	if h["Ratelimit"] != nil { // another Guard's
		h["Ratelimit-Policy"], h["Ratelimit"] = append(h["Ratelimit-Policy"], policies...), append(h["Ratelimit"], string(state))
		return
	}
	values := append(append(make([]string, 0, len(policies)+1), string(state)), policies...)
	h["Ratelimit"], h["Ratelimit-Policy"] = values[:1:1], values[1:]
}

// Headers are those that SetHeaders may set. A page of another origin can read them if
// CORS exposes them.
func Headers() []string { return []string{"RateLimit", "RateLimit-Policy", "Retry-After"} }

// Handler refuses what Decide refuses. It counts by the address of the connection's peer,
// so behind a proxy clientaddr's Handler belongs in front of it. Route is the pattern that a
// ServeMux in front has matched, and Principal whom identity's Handler in front has found. It
// knows of no account.
func (g *Guard) Handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var f Facts
		if ap, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
			f.Client = ap.Addr().Unmap().WithZone("")
		}
		f.Route, f.Method, f.Principal = r.Pattern, r.Method, identity.FromContext(r.Context())
		gr, d := g.Decide(r.Context(), f)
		defer gr.Release()
		SetHeaders(w.Header(), gr)
		if d.Denied() {
			guard.Refuse(w, d.Reason, "")
			return
		}
		next.ServeHTTP(w, r)
	})
}
