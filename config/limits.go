package config

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/moat-gateway/moat/guard"
	"github.com/moat-gateway/moat/guard/ratelimit"
)

var facts = map[string]ratelimit.Fact{
	"address": ratelimit.Address, "route": ratelimit.Route, "method": ratelimit.Method, "new_address": ratelimit.NewAddress,
	"principal": ratelimit.Principal, "api_key": ratelimit.Credential, "account": ratelimit.Account,
}

// rateLimit judges the limit of that name, alone.
func (c *compiler) rateLimit(name string) {
	l, path := c.f.RateLimits[name], join("rate_limits", name)
	r := ratelimit.Rule{
		Name: name, Limit: l.Limit, AtOnce: l.AtOnce, Lease: l.Lease,
		Wider: ratelimit.Wider{IPv4Net24: int(l.Wider.IPv4Net24), IPv6Net56: int(l.Wider.IPv6Net56), IPv6Net48: int(l.Wider.IPv6Net48)},
	}
	for i, word := range l.By {
		if slices.Contains(l.By[:i], word) {
			c.fault(item(join(path, "by"), i), word, "listed twice")
		}
		if f := facts[word]; f != 0 {
			r.By = append(r.By, f)
		} else if claim, ok := strings.CutPrefix(word, "claim:"); ok && !slices.Contains(r.ByClaims, claim) {
			r.ByClaims = append(r.ByClaims, claim)
		}
	}
	if c.has(join(path, "wider")) && !byAddress(r) {
		c.warn(join(path, "wider"), "", "has no effect: the limit does not count by address")
	}
	switch at := join(path, "lease"); {
	case l.Lease == 0:
	case c.out.Valkey == nil:
		c.warn(at, "", "has no effect: no store is shared")
	default:
		limits := []ratelimit.Limit{l.Limit}
		for _, t := range l.Tiers {
			limits = append(limits, t.Limit)
		}
		for _, limit := range limits {
			if limit != (ratelimit.Limit{}) && !limit.Admits(l.Lease) {
				c.fault(at, "", fmt.Sprintf("takes room for %d requests at once, which %s never has", l.Lease, limit))
				break
			}
		}
	}
	var before []netip.Prefix
	for i, t := range l.Tiers {
		at := item(join(path, "tiers"), i)
		out := ratelimit.Tier{For: t.For, Claim: t.Claim, Values: t.Values, Exempt: t.Exempt, Limit: t.Limit, AtOnce: t.AtOnce}
		for j, p := range t.For {
			if p.Addr().Is4In6() {
				c.fault(item(join(at, "for"), j), p.String(), fmt.Sprintf("holds no client: IPv4 addresses are written as such; write %q", mapped(p)))
			}
		}
		switch {
		case c.has(join(at, "for")) && len(t.For) == 0 && c.clean(join(at, "for")):
			c.fault(join(at, "for"), "", "none, so the tier never counts")
			continue
		case len(t.For) == 0 && t.Claim == "" && c.clean(at):
			c.fault(at, "", "is for nobody; write for with addresses, or claim and values")
			continue
		case t.Exempt && (t.Limit != (ratelimit.Limit{}) || t.AtOnce > 0):
			c.fault(at, "", "exempt, and with a limit of its own; remove one of the two")
			continue
		case !t.Exempt && t.Limit == (ratelimit.Limit{}) && t.AtOnce == 0:
			c.fault(at, "", "says nothing; give it a limit, at_once, or exempt: true")
			continue
		}
		for j, p := range t.For {
			if k := slices.IndexFunc(before, func(b netip.Prefix) bool { return b.Bits() <= p.Bits() && b.Contains(p.Addr()) }); k >= 0 {
				c.warn(item(join(at, "for"), j), p.String(), fmt.Sprintf("never counts: %s in a tier before holds it", before[k]))
			}
		}
		before = append(before, t.For...)
		r.Tiers = append(r.Tiers, out)
	}
	if !c.clean(path) {
		return // what is missing or malformed has been told
	}
	if err := r.Check(); err != nil {
		c.fault(path, "", err.Error())
		return
	}
	c.rules[name] = r
}

// mapped is the range of IPv4 addresses that a range of IPv6 is mapped from, or that of one.
func mapped(p netip.Prefix) netip.Prefix {
	return netip.PrefixFrom(p.Addr().Unmap(), max(p.Bits()-96, 0)).Masked()
}

// rateLimits judges the limits that a route names, side by side.
func (c *compiler) rateLimits(r *route, where func(field string) string) []ratelimit.Rule {
	var out []ratelimit.Rule
	p := &r.Override
	isNew := ""
	switch costs := where("cost"); {
	case len(p.RateLimits) == 0 && c.has(costs) && c.once(costs+" alone", false):
		c.warn(costs, "", "has no effect: no rate limit holds here")
	case len(p.RateLimits) > 0 && p.Modes.RateLimit == guard.Off && c.once(where("modes.rate_limit"), false):
		c.warn(where("modes.rate_limit"), "off", "no rate limit holds here, though some are named")
	}
	for i, name := range p.RateLimits {
		at := item(where("rate_limits"), i)
		if name == "" {
			continue
		}
		if _, ok := c.f.RateLimits[name]; !ok {
			if c.once(at, false) {
				c.fault(at, name, "none of the rate_limits has this name"+c.didYouMean(name, maps.Keys(c.f.RateLimits)))
			}
			continue
		}
		c.used[join("rate_limits", name)] = true
		rule, ok := c.rules[name]
		if !ok || slices.ContainsFunc(out, func(r ratelimit.Rule) bool { return r.Name == name }) {
			continue // it is faulty, or listed twice: both have been told
		}
		c.modes[name] |= 1 << p.Modes.RateLimit
		if c.modes[name]&(1<<guard.Enforce|1<<guard.Report) == 1<<guard.Enforce|1<<guard.Report && c.once("modes of "+name, false) {
			c.warn(at, name, "is enforced on one route and only reported on another: requests of both count")
		}
		if rule.NeedsAccount() && p.Account == "" {
			c.fault(at, name, "counts by account, and nothing says where a request names one; write account, with the field's name, or basic")
			continue
		}
		if rule.NeedsPrincipal() && slices.Contains(r.Auth, public) && c.once(at+" of "+name+" "+r.Match, false) {
			c.warn(at, name, "counts by address alone on route "+r.Match+": auth is public, so nobody is known")
		}
		for _, limit := range limitsOf(rule) {
			if slices.Contains(rule.By, ratelimit.NewAddress) {
				break // each client costs it one
			}
			if !limit.Admits(p.Cost.Request) {
				costAt := where("cost")
				if c.has(where("cost.request")) {
					costAt = where("cost.request")
				}
				c.fault(costAt, "", fmt.Sprintf("a request costs %d, and the rate limit %q, %s, never has room for that much at once; raise its burst or lower the cost", p.Cost.Request, name, limit))
				break
			}
		}
		for _, other := range out {
			c.contradiction(at, rule, other)
		}
		if slices.Contains(rule.By, ratelimit.NewAddress) {
			if isNew != "" && c.once(at+" new", false) {
				c.fault(at, name, fmt.Sprintf("the second limit by new address, beside %q; a client is new to one of them only", isNew))
			}
			isNew = name
		}
		out = append(out, rule)
	}
	return out
}

// storeDown is what holds on a route while the shared store does not answer.
func (c *compiler) storeDown(word, at string) ratelimit.Down {
	if c.out.Valkey == nil && c.has(at) && c.once(at, false) {
		c.warn(at, word, "has no effect: no store is shared")
	}
	switch word {
	case "allow":
		return ratelimit.DownAllow
	case "deny":
		return ratelimit.DownDeny
	}
	return ratelimit.DownLocal
}

// limitsOf are the limit of a rule and those of its tiers.
func limitsOf(r ratelimit.Rule) []ratelimit.Limit {
	var out []ratelimit.Limit
	if r.Limit != (ratelimit.Limit{}) {
		out = append(out, r.Limit)
	}
	for _, t := range r.Tiers {
		if t.Limit != (ratelimit.Limit{}) {
			out = append(out, t.Limit)
		}
	}
	return out
}

// contradiction warns of two limits, one of which can never be the one that refuses: each
// request that it counts is counted by the other one too, with others or alone, and that
// one never has more room.
func (c *compiler) contradiction(at string, a, b ratelimit.Rule) {
	if !c.once(at+" beside "+b.Name, false) {
		return
	}
	for _, pair := range [][2]ratelimit.Rule{{a, b}, {b, a}} {
		idle, strict := pair[0], pair[1]
		plain := idle.AtOnce == 0 && len(idle.Tiers)+len(strict.Tiers) == 0 && idle.Limit != (ratelimit.Limit{}) && strict.Limit != (ratelimit.Limit{})
		if !plain || !coarser(strict, idle) || !strict.Limit.Covers(idle.Limit) {
			continue
		}
		// With address, the networks around count too, each by its own factor.
		if byAddress(strict) && strict.Wider != idle.Wider {
			continue
		}
		c.warn(at, idle.Name, fmt.Sprintf("never refuses anything: %s, %s, counts all that it counts, and is no more than %s", strict.Name, strict.Limit, idle.Limit))
		return
	}
}

// coarser reports whether requests that agree in what fine counts by agree in what coarse does.
func coarser(coarse, fine ratelimit.Rule) bool {
	if slices.Contains(coarse.By, ratelimit.NewAddress) || slices.Contains(fine.By, ratelimit.NewAddress) {
		return false // these count clients, not requests
	}
	return subset(coarse.By, fine.By) && subset(coarse.ByClaims, fine.ByClaims)
}

func subset[E comparable](some, all []E) bool {
	return !slices.ContainsFunc(some, func(e E) bool { return !slices.Contains(all, e) })
}

// byAddress reports whether the rule counts some requests by address.
func byAddress(r ratelimit.Rule) bool {
	return slices.Contains(r.By, ratelimit.Address) || slices.Contains(r.By, ratelimit.Principal) || slices.Contains(r.By, ratelimit.Credential) || len(r.ByClaims) > 0
}

// clean reports whether the decoder found no fault at path or below it.
func (c *compiler) clean(path string) bool {
	return !slices.ContainsFunc(c.faulty, func(at string) bool {
		return at == path || strings.HasPrefix(at, path+".") || strings.HasPrefix(at, path+"[")
	})
}
