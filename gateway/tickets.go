package gateway

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/moat-gateway/moat/client"
	"github.com/moat-gateway/moat/guard"
	"github.com/moat-gateway/moat/guard/bot"
	"github.com/moat-gateway/moat/guard/bounds"
	"github.com/moat-gateway/moat/guard/challenge"
	"github.com/moat-gateway/moat/guard/cors"
	"github.com/moat-gateway/moat/guard/crosssite"
	"github.com/moat-gateway/moat/guard/ratelimit"
	"github.com/moat-gateway/moat/guard/ticket"
	"github.com/moat-gateway/moat/store/memory"
	"github.com/moat-gateway/moat/web"
)

// Tickets is what routes that ask for tickets share.
type Tickets struct {
	// Policy of the tickets. Without a secret the process has one of its own, so that a
	// restart voids all tickets, and no other process knows them.
	Policy ticket.Policy
	// Origins lists the pages that get tickets, beside those that are same-origin.
	Origins *web.OriginSet
	// Challenge says when those who want tickets have to work for them.
	Challenge     challenge.Policy
	ChallengeMode guard.Mode
	// RateLimits are those on getting tickets.
	RateLimits []ratelimit.Rule
	// Memory is how many bytes may be taken to remember uses; 0 means 64 MiB. It counts when
	// tickets are first configured.
	Memory int
	// Shared is the store that processes share their tickets through, or nil. The gate
	// does not close it.
	Shared ticket.Store
}

// TicketUse is what a route does with tickets.
type TicketUse uint8

const (
	// TicketsOff asks for none.
	TicketsOff TicketUse = iota
	// TicketsRequired lets a call through that has one.
	TicketsRequired
	// TicketsEmbedded asks for none, and puts the first one into HTML that passes.
	TicketsEmbedded
)

// tickets is a compiled Tickets.
type tickets struct {
	guard *ticket.Guard
	// issuing is where tickets are got.
	issuing *route
	asks    *challenge.Guard
	mode    guard.Mode // of the challenges
}

// compileTickets adds to the state what the gate answers itself.
func (g *Gateway) compileTickets(s *state, c *Config) error {
	if c.Tickets == nil {
		return nil
	}
	t := *c.Tickets
	if t.Origins != nil && t.Origins.Any() {
		return errors.New(`tickets: origins: "*" names no page; list those that get tickets`)
	}
	if len(t.Policy.Secrets) == 0 {
		secret, err := g.processSecret()
		if err != nil {
			return fmt.Errorf("tickets: %w", err)
		}
		t.Policy.Secrets = [][]byte{secret}
	}
	// What was given to live shorter may be forgotten too early for what lives longer.
	if life := cmp.Or(t.Policy.Lifetime, ticket.DefaultLifetime); g.used == nil || life > g.usedFor {
		g.used, g.usedFor = memory.NewTickets(cmp.Or(t.Memory, 64<<20), life), life
	}
	tg, err := ticket.New(t.Policy, g.used, t.Shared)
	if err != nil {
		return fmt.Errorf("tickets: %w", err)
	}
	// A reload that changes nothing about challenges does not forget who came.
	if g.asks == nil || g.asksPolicy != t.Challenge || !slices.EqualFunc(g.asksSecrets, t.Policy.Secrets, bytes.Equal) {
		if g.asks, err = challenge.New(t.Challenge, t.Policy.Secrets); err != nil {
			return fmt.Errorf("tickets: challenge: %w", err)
		}
		g.asksPolicy, g.asksSecrets = t.Challenge, t.Policy.Secrets
	}
	s.tickets = &tickets{guard: tg, asks: g.asks, mode: t.ChallengeMode}
	everybody, _ := web.NewOriginSet([]string{"*"}, web.OriginSetOptions{}) // has no fault
	for _, f := range client.Files() {
		if _, err = g.compileOwn(s, c, Route{
			Name: "moat " + f.Name, Pattern: "GET " + OwnPath + f.Name, Auth: AuthPublic, Origins: everybody,
			CrossSite: crosssite.Policy{AllowEmbed: true, AllowBrowserless: true}, Bounds: bounds.Policy{BodyIdle: 10 * time.Second},
		}, scriptAnswerer(f)); err != nil {
			return err
		}
	}
	if slices.ContainsFunc(c.Routes, func(r Route) bool { return r.NoScript }) {
		var enter *route
		if enter, err = g.compileOwn(s, c, Route{
			Name: "moat enter", Pattern: "GET " + enterPath, Auth: AuthPublic, RateLimits: t.RateLimits,
			// Browsers say over plain http as little here as on the route that they come from, which has judged that.
			CrossSite: crosssite.Policy{AllowBrowserless: true}, Bounds: bounds.Policy{BodyIdle: 10 * time.Second},
		}, g.enter); err != nil {
			return err
		}
		enter.modes[guard.Bot] = botMode(c.Routes)
	}
	if s.tickets.issuing, err = g.compileOwn(s, c, Route{
		Name: "moat tickets", Pattern: "POST " + OwnPath + "tickets", Auth: AuthPublic, Origins: t.Origins,
		CORS: cors.Policy{RequestHeaders: []string{"Content-Type"}, MaxAge: cors.ChromeMaxAge},
		// Larger than any honest document, and small enough to be read at once.
		Bounds: bounds.Policy{BodyBytes: 16 << 10, BodyIdle: 10 * time.Second}, RateLimits: t.RateLimits,
	}, g.issue); err != nil {
		return err
	}
	s.tickets.issuing.modes[guard.Bot] = botMode(c.Routes)
	return nil
}

// ticket judges the request's ticket.
func (s *state) ticket(x *exchange, r *http.Request) (d guard.Decision) {
	if x.assumed.Ticket {
		return guard.Decision{Reason: guard.TicketHonoured}
	}
	x.honoured, d = s.tickets.guard.Decide(r.Context(), r, ticket.Facts{
		Now: time.Now(), Client: x.client, StreamedBody: x.route.streamedBody, Pass: x.route.noScript, Dry: x.dry,
	})
	return d
}

// issue answers those who want tickets.
func (g *Gateway) issue(st *state, x *exchange, w http.ResponseWriter, r *http.Request) {
	now, t := time.Now(), st.tickets.guard
	refuse := func(d guard.Decision) {
		ticket.SetHeaders(w.Header(), d.Reason)
		g.end(st, x, w, r, d)
	}
	if d := script(r); d.Denied() {
		refuse(d)
		return
	}
	q, d := t.Read(now, x.route.bounds.Body(w, r, nil))
	if d.Denied() {
		refuse(d)
		return
	}
	if d = st.confirm(x, r, bot.Signs(q.Signs)); d.Ends() {
		refuse(d)
		return
	}
	f := visitor(x, r)
	moved := q.Moved(f.Bind)
	f.Renewal, f.Score = q.Renews() && !moved, score(r, moved)+x.harder
	if d = g.challenge(st, x, r, q, f); d.Denied() {
		refuse(d)
		return
	}
	reply, d := t.Issue(r.Context(), q, now, r.Header.Get("Origin"), f.Bind)
	if d.Denied() {
		refuse(d)
		return
	}
	x.route.stats.count(guard.OK, guard.Enforce)
	w.Header()["Cache-Control"] = []string{"no-store"}
	writeJSON(w, http.StatusOK, reply)
}

// challenge asks for work where that is called for, before a ticket is issued.
func (g *Gateway) challenge(st *state, x *exchange, r *http.Request, q *ticket.Request, f challenge.Facts) guard.Decision {
	t := st.tickets
	if t.mode == guard.Off {
		return guard.Decision{}
	}
	ask, d := t.asks.Decide(r.Context(), f, challenge.Answer{Token: q.Challenge, Solution: q.Solution}, t.once)
	switch {
	case !d.Denied():
		x.route.stats.count(d.Reason, t.mode)
		return guard.Decision{}
	case t.mode == guard.Report:
		t.asks.Count(f)
		g.obs.record(st, x, r, d, guard.Report)
		return guard.Decision{}
	case ask != (challenge.Ask{}):
		text, err := json.Marshal(ask)
		if err != nil {
			panic(err) // plain fields
		}
		x.members = append(x.members, `"challenge":`+string(text))
	}
	return d
}

// once lets a solved challenge count once. What was solved before the store began to
// remember may have counted then.
func (t *tickets) once(ctx context.Context, id uint64, expires time.Time) (bool, error) {
	return t.guard.Once(ctx, ticket.SpaceChallenge, id, expires, challenge.Lifetime)
}

// score says how unlike a page in a browser the client looks, or how unlike itself.
func score(r *http.Request, moved bool) (n int) {
	if r.Header.Get("Sec-Fetch-Site") == "" {
		n += 2 // no browser of after 2023
	}
	if r.Header.Get("Accept-Language") == "" {
		n++
	}
	if moved {
		n++
	}
	return n
}

// script lets through what a page's script sends with fetch: never a form, a link or a
// frame, whosever page that is. Browsers that do not say are judged by their Origin alone.
func script(r *http.Request) guard.Decision {
	if len(r.Header["Origin"]) == 0 {
		return guard.Denial(guard.CrossSiteBrowserless, "Origin", "", "Origin, as every browser sends with POST")
	}
	mode, dest := r.Header.Get("Sec-Fetch-Mode"), r.Header.Get("Sec-Fetch-Dest")
	if mode != "" && mode != "cors" && mode != "same-origin" || dest != "" && dest != "empty" {
		return guard.Denial(guard.CrossSiteRequest, "Sec-Fetch-Mode", mode+" "+dest, "a fetch by script")
	}
	return guard.Decision{}
}
