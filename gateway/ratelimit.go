package gateway

import (
	"cmp"
	"fmt"
	"net/http"

	"github.com/moat-gateway/moat/guard"
	"github.com/moat-gateway/moat/guard/ratelimit"
	"github.com/moat-gateway/moat/store/memory"
)

// limits compiles the rate limits of a route.
func (g *Gateway) limits(c *Config, r Route) (out [2]*ratelimit.Guard, err error) {
	if len(r.RateLimits) == 0 || r.Modes[guard.RateLimit] == guard.Off {
		return out, nil
	}
	if g.debts == nil {
		g.debts = memory.New(cmp.Or(c.LimitMemory, 16<<20))
	}
	store := c.SharedLimits
	if store == nil {
		store = g.debts
	}
	var rules [2][]ratelimit.Rule
	for _, rule := range r.RateLimits {
		i := 0
		if rule.NeedsPrincipal() || rule.NeedsAccount() {
			i = 1
		}
		if rule.NeedsAccount() && r.Account == "" {
			return out, fmt.Errorf("rate limits: %q: counts by account, and the route does not say where a request names one", rule.Name)
		}
		rules[i] = append(rules[i], rule)
	}
	for i := range rules {
		if len(rules[i]) == 0 {
			continue
		}
		out[i], err = ratelimit.New(ratelimit.Policy{Rules: rules[i], Cost: r.Cost.Request, Down: r.StoreDown, Local: g.debts, InFlight: &g.inFlight}, store)
		if err != nil {
			return out, fmt.Errorf("rate limits: %w", err)
		}
	}
	return out, nil
}

// limited reports whether the route has rate limits.
func (rt *route) limited() bool { return rt.limits != [2]*ratelimit.Guard{} }

// limit asks the i-th of the route's guards of rate limits for room.
func (x *exchange) limit(r *http.Request, i int) guard.Decision {
	limits, mode := x.route.limits[i], x.route.modes[guard.RateLimit]
	if limits == nil || x.assumed.Fresh {
		return guard.Decision{}
	}
	if i > 0 {
		if d := x.settle(guard.RateLimit, mode, x.readAccount(r)); d.Ends() {
			return d
		}
	}
	var d guard.Decision
	if x.dry {
		x.grants[i], d = limits.Peek(r.Context(), x.facts(r))
	} else {
		x.grants[i], d = limits.Decide(r.Context(), x.facts(r))
	}
	return x.settle(guard.RateLimit, mode, d)
}

// tellLimits tells the client, once for both of the route's guards.
func (x *exchange) tellLimits(h http.Header) {
	if x.route != nil && x.route.modes[guard.RateLimit] == guard.Enforce && x.grants != [2]*ratelimit.Grant{} {
		ratelimit.SetHeaders(h, x.grants[0], x.grants[1])
	}
}

// facts are what the rate limits count the request by.
func (x *exchange) facts(r *http.Request) ratelimit.Facts {
	return ratelimit.Facts{Client: x.client, Route: x.route.name, Method: r.Method, Principal: x.caller, Account: x.account}
}

// readAccount finds the account that the request wants to get into, if the route has such.
func (x *exchange) readAccount(r *http.Request) (d guard.Decision) {
	if x.route.account == "" || x.dry {
		return d
	}
	field := x.route.account
	if field == "basic" {
		field = "" // no body need be read
	}
	x.bound(r)
	var err error
	if x.account, err = ratelimit.ReadAccount(r, field); err != nil {
		return guard.Denial(guard.AccountUnreadable, "the account in "+x.route.account, err.Error(), "one, where the upstream reads it")
	}
	return d
}

// release gives back what the rate limits have set aside, and settles what the budgets have.
func (x *exchange) release() {
	x.call.settle(false) // what has been sent and not settled
	defer x.settleBudget()
	if x.whole != nil {
		x.whole.Close() //nolint:errcheck // it gives its room back.
	}
	x.releaseLimits()
}

// releaseLimits gives back what the rate limits have set aside.
func (x *exchange) releaseLimits() {
	for i, grant := range x.grants {
		if grant != nil {
			grant.Release()
			x.grants[i] = nil
		}
	}
}

// charge lets the client pay for what ended before the rate limits were asked, or for
// credentials that are wrong.
func (s *state) charge(x *exchange, r *http.Request, d guard.Decision) {
	cost := x.route.cost.Refused
	switch {
	case d.Outcome == guard.Answer:
		cost = x.route.cost.Preflight
	case d.Reason.Step() == guard.RateLimit:
		return
	case wrong(d.Reason):
		cost = max(cost, x.route.cost.FailedAuth)
	}
	s.pay(x, r, cost)
}

// pay charges the client beyond what its request has cost.
func (s *state) pay(x *exchange, r *http.Request, cost int) {
	if cost <= 0 || !x.route.limited() {
		return
	}
	f := x.facts(r)
	if !f.Client.IsValid() { // it ended before the client was told
		if f.Client, _ = s.clientAddr.Decide(r); !f.Client.IsValid() {
			return // or whoever else is not known would pay
		}
	}
	for _, limits := range x.route.limits {
		if limits != nil {
			limits.Charge(r.Context(), f, cost)
		}
	}
}
