package gateway

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/moat-gateway/moat/guard"
	"github.com/moat-gateway/moat/guard/bot"
	"github.com/moat-gateway/moat/wire"
)

// Bots says what becomes of clients that look like programs.
type Bots struct {
	// Policy is what a client is judged by, but for its Robots, which are made of those below.
	Policy bot.Policy
	// Robots are those that are known.
	Robots []bot.Robot
	// Resolver is for their names; nil stands for the system's.
	Resolver *net.Resolver
	// SlowCost is what a request that is slowed takes of its rate limits, beyond its own cost; 0
	// stands for 9.
	SlowCost int
	// TarpitAtOnce bounds the requests that are kept waiting at the same time, by default 64, and
	// TarpitFor says how long each is, by default 10s.
	TarpitAtOnce int
	TarpitFor    time.Duration
}

// bots is a compiled Bots.
type bots struct {
	guard    *bot.Guard
	slowCost int
	// tarpit has a token for each request that is kept waiting.
	tarpit    chan struct{}
	tarpitFor time.Duration
	// pages says that the gate puts tickets into the pages that call it, so that it has seen them.
	pages bool
}

func (g *Gateway) compileBots(s *state, c *Config) error {
	if c.Bots == nil {
		return nil
	}
	b := *c.Bots
	var err error
	if b.Policy.Robots, err = b.compileRobots(); err != nil {
		return fmt.Errorf("bots: %w", err)
	}
	var old *bot.Guard
	if st := g.state.Load(); st != nil && st.bots != nil {
		old = st.bots.guard
	}
	bg, err := bot.New(b.Policy, old)
	if err != nil {
		return fmt.Errorf("bots: %w", err)
	}
	if b.SlowCost < 0 || b.TarpitAtOnce < 0 || b.TarpitFor < 0 {
		return errors.New("bots: a cost, a number and a time are above 0")
	}
	s.bots = &bots{
		guard: bg, slowCost: cmp.Or(b.SlowCost, 9), tarpitFor: cmp.Or(b.TarpitFor, 10*time.Second),
		tarpit: make(chan struct{}, cmp.Or(b.TarpitAtOnce, 64)),
		pages:  slices.ContainsFunc(c.Routes, func(r Route) bool { return r.Tickets == TicketsEmbedded }),
	}
	return nil
}

// suspect judges whether the client is the browser that it says it is. In report mode nothing is
// done about one that is not.
func (s *state) suspect(x *exchange, r *http.Request) guard.Decision {
	if x.dry && len(r.Header["User-Agent"]) == 0 {
		return guard.Decision{} // a request that somebody made up, and of which he says only what matters
	}
	return s.suspected(x, r, s.bots.guard.Decide(r, s.botFacts(x, r)))
}

// confirm judges a request for a ticket once more, with what the page's script has seen of its
// browser.
func (s *state) confirm(x *exchange, r *http.Request, signs bot.Signs) guard.Decision {
	mode := x.route.modes[guard.Bot]
	if s.bots == nil || mode == guard.Off || signs == 0 || x.robot {
		return guard.Decision{}
	}
	x.reports, x.suspicion = nil, guard.Decision{} // what was found before the body was read is on record
	d := x.settle(guard.Bot, mode, s.suspected(x, r, s.bots.guard.Client(r, s.botFacts(x, r), signs)))
	x.obs.report(s, x, r)
	if x.suspicion != (guard.Decision{}) {
		x.obs.record(s, x, r, x.suspicion, guard.Enforce)
	}
	return s.tarpitted(x, r, d)
}

// tarpitted keeps a client waiting that is to be refused then.
func (s *state) tarpitted(x *exchange, r *http.Request, d guard.Decision) guard.Decision {
	if d.Reason != guard.BotTarpitted {
		return d
	}
	x.releaseLimits() // who is kept waiting takes nobody's place at_once
	if !s.bots.hold(r.Context()) {
		d.Reason = guard.BotDenied // there is no room
	}
	return d
}

// suspected does what a verdict asks for while the request goes on.
func (s *state) suspected(x *exchange, r *http.Request, v bot.Verdict) guard.Decision {
	enforced := x.route.modes[guard.Bot] == guard.Enforce
	x.robot = v.Decision.Reason == guard.BotVerified
	if v.Reported.Outcome != guard.Allow {
		x.reports = append(x.reports, v.Reported)
	}
	if enforced && v.Decision.Outcome == guard.Amend {
		x.harder, x.suspicion = v.Harder, v.Decision
		if v.Action == bot.Slow && !x.dry {
			s.pay(x, r, s.bots.slowCost)
		}
	}
	return v.Decision
}

// botMode is how those who want tickets are judged: as strictly as on the strictest route that
// has tickets.
func botMode(routes []Route) guard.Mode {
	mode := guard.Off
	for _, r := range routes {
		if r.Tickets != TicketsOff {
			mode = min(mode, r.Modes[guard.Bot])
		}
	}
	return mode
}

// botFacts are what the client of a request is judged by.
func (s *state) botFacts(x *exchange, r *http.Request) bot.Facts {
	f := bot.Facts{
		Now: time.Now(), Client: x.client, Secure: x.secure, Trustworthy: x.secure || onThisMachine(r.Host),
		Direct: s.direct, Pages: s.bots.pages, Dry: x.dry,
	}
	switch {
	case s.tickets == nil:
	case x.route == s.tickets.issuing:
		f.Tickets = bot.AsksForTicket
	case x.route.tickets == TicketsRequired:
		f.Tickets = bot.SpendsTicket
	}
	if hello := wire.HelloOf(r.Context()); hello != nil && s.direct {
		f.JA4, f.HTTP2, f.HeaderOrder = hello.JA4, hello.HTTP2, hello.HeaderOrder
	}
	return f
}

// onThisMachine reports whether browsers trust a host over plain http, too
// (https://w3c.github.io/webappsec-secure-contexts/#is-origin-trustworthy).
func onThisMachine(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.TrimSuffix(strings.Trim(host, "[]"), ".")
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	a, err := netip.ParseAddr(host)
	return err == nil && a.IsLoopback()
}

// hold keeps a client waiting, if there is room in the tarpit. Whoever goes away leaves it.
func (b *bots) hold(ctx context.Context) bool {
	select {
	case b.tarpit <- struct{}{}:
	default:
		return false
	}
	defer func() { <-b.tarpit }()
	t := time.NewTimer(b.tarpitFor)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
	return true
}
