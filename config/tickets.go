package config

import (
	"fmt"
	"slices"
	"time"

	"github.com/moat-gateway/moat/gateway"
	"github.com/moat-gateway/moat/guard"
	"github.com/moat-gateway/moat/guard/challenge"
	"github.com/moat-gateway/moat/guard/ratelimit"
	"github.com/moat-gateway/moat/guard/ticket"
	"github.com/moat-gateway/moat/web"
)

// issuing is the limit on getting tickets where none is named.
var issuing = ratelimit.Rule{Name: "tickets", Limit: ratelimit.Limit{Count: 30, Per: time.Minute, Burst: 30}, By: []ratelimit.Fact{ratelimit.Address}, Wider: ratelimit.Wider{IPv4Net24: 16, IPv6Net56: 4, IPv6Net48: 16}}

// tickets judges the block, and puts together what the routes that have tickets need.
// The routes have been judged.
func (c *compiler) tickets() {
	const path = "tickets"
	t := &c.f.Tickets
	c.ticketUses()
	asked := slices.ContainsFunc(c.out.Gateway.Routes, func(r gateway.Route) bool { return r.Tickets != gateway.TicketsOff })
	if !asked {
		if c.has(path) {
			c.warn(path, "", "no route uses it")
		}
		return
	}
	out := &gateway.Tickets{Policy: ticket.Policy{Lifetime: t.Lifetime, Uses: t.Uses}, Memory: int(t.Memory), Origins: c.ticketOrigins()}
	for i, s := range t.Secrets {
		out.Policy.Secrets = append(out.Policy.Secrets, c.ticketSecret(item(join(path, "secrets"), i), s))
	}
	for _, name := range keys(t.Issuers) {
		out.Policy.Issuers = append(out.Policy.Issuers, c.ticketSecret(join(join(path, "issuers"), name), t.Issuers[name]))
	}
	if c.out.Valkey != nil && len(t.Secrets) == 0 {
		c.fault(join(path, "secrets"), "", "missing: processes that share a store honour each other's tickets, so they need the same secret; write secrets: ${env:MOAT_TICKET_SECRET} or another reference to it")
	}
	out.RateLimits = []ratelimit.Rule{issuing}
	if names := t.RateLimits; c.has(join(path, "rate_limits")) {
		r := route{}
		r.Override.RateLimits, r.Override.Cost = names, cost{Request: 1}
		out.RateLimits = c.rateLimits(&r, func(field string) string { return join(path, field) })
	}
	quiet := func(field string, l ratelimit.Limit) float64 {
		if at := join(join(path, "challenge"), field); l.Burst != 0 && l.Burst != l.Count {
			c.fault(at, l.String(), "no burst can stand here; write how many are quiet, such as 5/m")
		}
		return float64(l.Count) * float64(time.Minute) / float64(max(l.Per, 1))
	}
	out.ChallengeMode, out.Challenge = t.Challenge.Mode, challenge.Policy{
		QuietAddress: quiet("quiet_address", t.Challenge.QuietAddress), QuietNetwork: quiet("quiet_network", t.Challenge.QuietNetwork),
		QuietAll: quiet("quiet_all", t.Challenge.QuietAll), MaxBits: t.Challenge.MaxBits,
	}
	c.out.Gateway.Tickets = out
}

// ticketUses judges what each route says of tickets.
func (c *compiler) ticketUses() {
	for i, r := range c.out.Gateway.Routes {
		p, at := &c.f.Routes[i].Override, join(item("routes", i), "tickets")
		switch {
		case r.Tickets != gateway.TicketsRequired && (p.Tickets.NoScript == "allow" || p.Tickets.StreamedBody == "allow"):
			c.warn(at, "", "no_script and streamed_body have no effect: the route does not require tickets")
		case r.Tickets == gateway.TicketsRequired && r.Modes[guard.Ticket] == guard.Off:
			c.warn(at, "", "modes.ticket is off, so no ticket is asked for")
		}
	}
}

func (c *compiler) ticketSecret(at string, s Secret) []byte {
	if n := len(s.Reveal()); n < ticket.MinSecret && c.clean(at) {
		c.fault(at, "", fmt.Sprintf("has %d bytes, and a secret for tickets has %d or more; make one with openssl rand -base64 32", n, ticket.MinSecret))
	}
	return []byte(s.Reveal())
}

// ticketOrigins are the origins of all routes that have tickets, together.
func (c *compiler) ticketOrigins() *web.OriginSet {
	return c.together(func(r *gateway.Route, where func(string) string) bool {
		if r.Tickets == gateway.TicketsOff {
			return false
		}
		if r.Origins.Any() {
			if at := where("origins"); c.once(at+" of tickets", false) {
				c.fault(at, "*", "tickets are for the pages of listed origins; list them")
			}
			return false
		}
		if mode := r.Modes[guard.CrossSite]; mode != guard.Enforce && r.Tickets == gateway.TicketsRequired {
			if at := where("modes.cross_site"); c.once(at+" of tickets", false) {
				c.warn(at, mode.String(), "does not enforce, so pages of other origins can spend what they hold of tickets")
			}
		}
		return true
	})
}

// together are the origins of those routes, each of which has been judged.
func (c *compiler) together(of func(r *gateway.Route, where func(field string) string) bool) *web.OriginSet {
	var list []string
	opt := web.OriginSetOptions{DangerouslyAllowAnyLocalhostPort: c.f.Development.AnyLocalhostPort}
	for i := range c.out.Gateway.Routes {
		where := func(field string) string {
			own := join(item("routes", i), field)
			if policy := c.f.Routes[i].Policy; policy != "" && !c.has(own) {
				return join(join("policies", policy), field)
			}
			return own
		}
		if !of(&c.out.Gateway.Routes[i], where) {
			continue
		}
		p := &c.f.Routes[i].Override
		list = added(list, p.Origins...)
		opt.DangerouslyAllowPublicSuffix = opt.DangerouslyAllowPublicSuffix || p.PublicSuffix
		opt.DangerouslyAllowInsecureOrigins = opt.DangerouslyAllowInsecureOrigins || p.InsecureOrigins
	}
	set, _ := web.NewOriginSet(list, opt)
	return set
}

// ticketUse is what a route does with tickets.
func ticketUse(word string) gateway.TicketUse {
	switch word {
	case "require":
		return gateway.TicketsRequired
	case "embed":
		return gateway.TicketsEmbedded
	}
	return gateway.TicketsOff
}
