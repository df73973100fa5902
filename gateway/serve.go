package gateway

import (
	"crypto"
	"net/http"
	"net/netip"
	"net/url"
	"path"
	"strings"
	"sync/atomic"
	"time"

	"github.com/moat-gateway/moat/guard"
	"github.com/moat-gateway/moat/guard/body"
	"github.com/moat-gateway/moat/guard/bounds"
	"github.com/moat-gateway/moat/guard/budget"
	"github.com/moat-gateway/moat/guard/challenge"
	"github.com/moat-gateway/moat/guard/cors"
	"github.com/moat-gateway/moat/guard/identity"
	"github.com/moat-gateway/moat/guard/identity/dpop"
	"github.com/moat-gateway/moat/guard/identity/session"
	"github.com/moat-gateway/moat/guard/ratelimit"
	"github.com/moat-gateway/moat/guard/scrub"
	"github.com/moat-gateway/moat/guard/ticket"
	"github.com/moat-gateway/moat/store/memory"
	"github.com/moat-gateway/moat/web"
	"github.com/moat-gateway/moat/wire"
)

// Gateway is the gate: an http.Handler whose configuration can be exchanged while it
// serves.
type Gateway struct {
	state atomic.Pointer[state]
	obs   *observer
	// alerts remembers what has been told to whom.
	alerts *alerter
	// debts and inFlight are what the rate limits have counted. They outlive reloads.
	debts    ratelimit.Store
	inFlight ratelimit.InFlight
	// spent is what has been spent of budgets where the configuration has no place to keep it, and
	// underWay what is. They outlive reloads too.
	spent    budget.Store
	underWay budget.InFlight
	// used is what this process has honoured of its tickets, which live as long as usedFor at
	// most, and secret what they are made with if the configuration has none. They outlive
	// reloads too.
	used    *memory.Tickets
	usedFor time.Duration
	secret  []byte
	// signer, proofs and sessions are what this process has of its own where the configuration
	// has none to share. They outlive reloads.
	signer   crypto.Signer
	proofs   *dpop.Guard
	sessions session.Store
	// asks is the challenge guard in force, which has counted those who came.
	asks        *challenge.Guard
	asksPolicy  challenge.Policy
	asksSecrets [][]byte
	swap        chan struct{} // held while a configuration is exchanged
	// writeIdle is how long a client may not take a byte, in ns; it is known when serving.
	writeIdle atomic.Int64
	drain     atomic.Bool
}

// exchange is one request on its way through the gate.
type exchange struct {
	route   *route     // nil until one matches
	client  netip.Addr // zero until it is told
	peer    bool       // the client is the connection's peer
	secure  bool       // the client speaks TLS, to us or to a trusted proxy
	upgrade string     // the protocol that the client asks to upgrade to
	obs     *observer
	w       http.ResponseWriter // nil if nobody has sent the request: see Decide
	// body is the request's, held to the route's bounds; nil if it has none, or until somebody
	// reads it.
	body *bounds.Body
	// caller is who makes the request, if that is known.
	caller *identity.Principal
	// session is the value of the cookie that says so, where the upstream gets the provider's
	// token in its place.
	session string
	// account is the one that the request wants to get into, or "".
	account string
	// reports are the decisions of guards in report mode that would have ended the
	// request.
	reports []guard.Decision
	// spared is the first reason for which a guard in report mode would have refused the
	// request, and refused says that another one has.
	spared  guard.Reason
	refused bool
	// grants are what the rate limits have set aside for the request: those that count by what is
	// known of any request, and those that count by who makes it.
	grants [2]*ratelimit.Grant
	dry    bool // nothing may be charged
	// assumed is what is taken for granted: see Decide.
	assumed Assumed
	// honoured is what the request's ticket said.
	honoured ticket.Honoured
	// suspicion is why a client that looks like a program was let go on, and harder what it adds to
	// the work for its tickets.
	suspicion guard.Decision
	harder    int
	robot     bool // it has proved to be one that is known, which counts once: see nonces
	// match is what the request's head told about its body and its answer, and whole the body if it
	// had to be read.
	match body.Match
	whole *wholeBody
	// budget is what the budgets have set aside for the request; nil if it has none.
	budget *budget.Grant
	// call is what the request asks of a model; nil if it asks none.
	call *call
	// members are what a refusal tells the client besides, in JSON.
	members []string
	// trail is what each guard decided, if somebody asked for it: see Verdict.
	trail *[]Step
}

// ServeHTTP takes a request through the gate.
func (g *Gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	st := g.state.Load()
	x := exchange{w: w, obs: g.obs}
	if st.observe != nil {
		x.trail = new([]Step)
	}
	defer func() {
		if x.body != nil {
			x.body.Close() //nolint:errcheck // stops the transport from reading on; the server drains the rest.
		}
		if x.spared != guard.OK && !x.refused {
			statsOf(st, &x).spared[x.spared].Add(1)
		}
		x.release() // whatever panics: what is under way must not be counted for ever
	}()
	d := st.admit(&x, w.Header(), r)
	x.tellLimits(w.Header())
	g.obs.limits.note(&x, d)
	for _, grant := range x.grants {
		if st.shared != nil && grant != nil {
			g.obs.store(st.shared, grant.Degraded)
		}
	}
	if x.route != nil && d.Ends() {
		st.charge(&x, r, d)
	}
	if len(x.reports) > 0 {
		g.obs.report(st, &x, r)
	}
	if x.suspicion != (guard.Decision{}) {
		g.obs.record(st, &x, r, x.suspicion, guard.Enforce)
	}
	d = st.tarpitted(&x, r, d)
	if st.observe != nil && !d.Denied() { // a refusal is told where it is recorded
		st.observe(r, x.verdict(d, w.Header()))
	}
	if d.Ends() {
		x.refused = d.Denied()
		if x.route != nil && x.route.noScript && d.Reason.Step() == guard.Ticket && challenge.WantsPage(r) {
			g.wait(st, &x, w, r, d)
			return
		}
		if x.signsIn(r, d) {
			g.signIn(st, &x, w, r, d)
			return
		}
		g.end(st, &x, w, r, d)
		return
	}
	if answer := x.route.answer; answer != nil {
		own := x                         // what a function value is given is on the heap; x need not be
		x.grants = [2]*ratelimit.Grant{} // each is given back once
		defer own.releaseLimits()
		answer(st, &own, w, r)
		x.spared, x.refused = own.spared, own.refused
		return
	}
	g.forward(st, &x, w, r)
}

// admit is the data path: it judges a request, step by step, cheap steps first, and
// sets in h the headers that the answer will need, whoever gives it. It changes the
// request: what the client had no right to say is gone afterwards.
func (s *state) admit(x *exchange, h http.Header, r *http.Request) guard.Decision {
	if d := refusedByWire(r); d.Ends() {
		return d
	}
	if d := s.host(x, r); d.Ends() {
		return d
	}
	if d := s.route(x, r); d.Ends() {
		s.readable(h, r)
		return d
	}
	rt := x.route
	// No browser's has an override, which would have the upstream do what nobody was asked about.
	preflight := cors.IsPreflight(r) && bounds.Overrides(r.Header) == ""

	addr, d := s.clientAddr.Decide(r)
	x.client, x.peer = addr, s.direct
	if d = x.settle(guard.ClientAddr, s.addrMode, d); d.Ends() {
		return d
	}
	if mode := rt.modes[guard.CORS]; mode != guard.Off {
		d = rt.cors.Decide(r)
		if mode == guard.Enforce {
			rt.cors.SetHeaders(h, r, d)
		}
		if d = x.settle(guard.CORS, mode, d); d.Ends() {
			return d
		}
	}
	if mode := rt.modes[guard.Bounds]; mode != guard.Off {
		d = rt.bounds.Decide(r)
		if preflight && d.Reason == guard.MethodNotAllowed {
			d = guard.Decision{} // what CORS has not answered is the upstream's to answer
		}
		if mode == guard.Enforce {
			rt.bounds.SetHeaders(h, d)
		}
		if d = x.settle(guard.Bounds, mode, d); d.Ends() {
			return d
		}
	}
	if mode := rt.modes[guard.CrossSite]; mode != guard.Off && !preflight {
		if d = x.settle(guard.CrossSite, mode, rt.crosssite.Decide(r)); d.Ends() {
			return d
		}
	}
	if d = x.limit(r, 0); d.Ends() {
		return d
	}
	if mode := rt.modes[guard.Bot]; s.bots != nil && mode != guard.Off && !preflight {
		if d = x.settle(guard.Bot, mode, s.suspect(x, r)); d.Ends() {
			return d
		}
	}
	if mode := rt.modes[guard.Ticket]; rt.tickets == TicketsRequired && mode != guard.Off && !preflight {
		d = s.ticket(x, r)
		if mode == guard.Enforce {
			ticket.SetHeaders(h, d.Reason)
		}
		if d = x.settle(guard.Ticket, mode, d); d.Ends() {
			return d
		}
	}
	if mode := rt.modes[guard.Identity]; rt.identity != nil && mode != guard.Off && !preflight {
		d = s.identify(x, r)
		if mode == guard.Enforce {
			rt.identity.SetHeaders(h, d)
		}
		if d = x.settle(guard.Identity, mode, d); d.Ends() {
			return d
		}
	}
	if mode := rt.modes[guard.CSRF]; s.auth.csrf != nil && mode != guard.Off && !preflight && rt.answer == nil {
		if d = x.settle(guard.CSRF, mode, s.forged(x, r)); d.Ends() {
			return d
		}
	}
	if mode := rt.modes[guard.Authorization]; rt.authorization != nil && mode != guard.Off && !preflight {
		d = rt.authorization.Decide(x.caller, r, time.Now())
		if mode == guard.Enforce {
			rt.authorization.SetHeaders(h, d)
		}
		if d = x.settle(guard.Authorization, mode, d); d.Ends() {
			return d
		}
	}
	if !preflight {
		if d = x.limit(r, 1); d.Ends() {
			return d
		}
	}
	if mode := rt.modes[guard.Budget]; rt.budgets != nil && mode != guard.Off && !preflight {
		d = x.afford(h)
		if d = x.settle(guard.Budget, budgetMode(mode, d), d); d.Ends() {
			return d
		}
	}
	if mode := rt.modes[guard.Body]; rt.body != nil && mode != guard.Off && !preflight {
		if d = x.settle(guard.Body, mode, x.expects(r)); d.Ends() { // what is in the body is judged before it is forwarded
			return d
		}
	}
	if s.tickets != nil && !ownsPath(r.URL.Path) {
		ticket.Strip(r) // wherever it was sent
	}
	if s.auth.csrf != nil && rt.answer == nil {
		if rt.modes[guard.CSRF] == guard.Enforce && !preflight {
			s.auth.csrf.SetCookie(h, r, time.Now())
		}
		s.auth.csrf.Strip(r.Header)
	}
	if rt.answer == nil {
		dropCookies(r.Header)
	}
	if mode := rt.modes[guard.Cookie]; mode != guard.Off {
		if d = x.settle(guard.Cookie, mode, rt.cookies.Request(r.Header, x.secure, mode)); d.Outcome == guard.Amend {
			rt.stats.count(d.Reason, mode)
		}
	}
	// No step above reads what is removed here, and what was refused needs no cleaning.
	if mode := rt.modes[guard.Scrub]; mode != guard.Off {
		if d = x.settle(guard.Scrub, mode, rt.scrub.Decide(r)); d.Outcome == guard.Amend {
			rt.stats.count(d.Reason, mode)
			rt.scrub.Scrub(r.Header)
		}
	}
	// Only to a WebSocket: an upstream that upgraded to h2c would take requests through
	// the tunnel that nobody here has seen.
	if up := scrub.HopByHop(r.Header); strings.EqualFold(up, "websocket") {
		x.upgrade = up
	}
	return guard.Decision{}
}

// settle applies a guard's mode to its decision: what is only reported does not happen.
func (x *exchange) settle(kind guard.Kind, mode guard.Mode, d guard.Decision) guard.Decision {
	if x.trail != nil {
		*x.trail = append(*x.trail, Step{kind, mode, d})
	}
	if mode == guard.Enforce || d.Outcome == guard.Allow {
		return d
	}
	if mode == guard.Report && d.Outcome != guard.Answer {
		x.reports = append(x.reports, d)
	}
	return guard.Decision{}
}

// refusedByWire carries out what package wire found in the bytes of the request.
func refusedByWire(r *http.Request) guard.Decision {
	code, ok := strings.CutPrefix(r.URL.Path, wire.RefusedPath)
	if !ok {
		return guard.Decision{}
	}
	reason, ok := guard.ParseReason(code)
	if !ok || reason.Step() != guard.Wire || reason.Status() == 0 {
		reason = guard.RequestMalformed
	}
	return guard.Denial(reason, "the request's head", "", "an unambiguous head")
}

// host lets only those requests pass that are meant for a public origin. Behind a
// trusted proxy its word on the client's Host counts, and is put in Host's place.
func (s *state) host(x *exchange, r *http.Request) guard.Decision {
	if host := s.clientAddr.ForwardedHost(r); host != "" {
		r.Host = host
	}
	r.Host = strings.ToLower(r.Host) // as patterns and public origins are spelt
	// Where TLS ends in front of us the connection says http. The public origin knows.
	var told bool
	if x.secure, told = s.public.Secure(r.Host); !told {
		x.secure = r.TLS != nil
	}
	if !s.public.Serves(r.Host) {
		return guard.Denial(guard.HostNotAllowed, "Host", r.Host, "the host of a public origin")
	}
	return guard.Decision{}
}

// route finds the route. A preflight belongs to the route of the method that it asks for.
func (s *state) route(x *exchange, r *http.Request) guard.Decision {
	if fault := ambiguous(r); fault == pathAmbiguous {
		return guard.Denial(guard.PathAmbiguous, "path", r.URL.Path, "a path in its plain form")
	} else if rt := s.lookup(r); rt == nil {
		return guard.Denial(guard.RouteNotFound, "route", r.Method+" "+r.URL.Path, "a declared route")
	} else if x.route = rt; fault == pathEncodedSlash && !rt.encodedSlash {
		return guard.Denial(guard.PathAmbiguous, "path", r.URL.EscapedPath(), "no encoded slash or backslash")
	} else if s.only == nil && rt.answer == nil && s.respelt(r, rt) {
		return guard.Denial(guard.PathAmbiguous, "path", r.URL.Path, "the spelling of the route that it would be in another one")
	}
	// These two would have the upstream tell what moat has added to the request, or open
	// a tunnel: no mode lets them through.
	if r.Method == http.MethodTrace || r.Method == http.MethodConnect {
		return guard.Denial(guard.MethodNotAllowed, "method", r.Method, "any other method")
	}
	return guard.Decision{}
}

// respelt reports whether an upstream that is less exact about paths than ServeMux could
// take r's for one of another route: without regard to case, to parameters behind a
// semicolon, to dots and blanks at the end of a segment, or to a slash at the end.
func (s *state) respelt(r *http.Request, rt *route) bool {
	p := r.URL.Path
	folded := foldPath(p)
	if folded != p {
		if other := s.lookupFolded(r, folded); other != nil && other != rt {
			return true
		}
	}
	// Where a slash at the end is the route's own spelling, it says what it means.
	if trimmed := strings.TrimRight(folded, "/"); trimmed != folded && strings.Count(p, "/") > rt.slashes {
		other := s.lookupFolded(r, trimmed)
		return other != nil && other != rt
	}
	return false
}

func (s *state) lookupFolded(r *http.Request, path string) *route {
	h, _ := s.folded.Handler(&http.Request{Method: wantedMethod(r), Host: r.Host, URL: &url.URL{Path: path}})
	rt, _ := h.(*route)
	return rt
}

// foldPath is how a lenient server could read a path. It is p itself if p is plain.
func foldPath(p string) string {
	if p == strings.ToLower(p) && !strings.ContainsAny(p, "; ") && !strings.Contains(p, "./") && !strings.HasSuffix(p, ".") {
		return p
	}
	segments := strings.Split(strings.ToLower(p), "/")
	for i, seg := range segments {
		seg, _, _ = strings.Cut(seg, ";")
		segments[i] = strings.TrimRight(seg, ". ")
	}
	return path.Clean("/"+strings.Join(segments, "/")) + trailingSlash(p)
}

func trailingSlash(p string) string {
	if len(p) > 1 && strings.HasSuffix(p, "/") {
		return "/"
	}
	return ""
}

// wantedMethod is the method that a request is about: a preflight's is the one that it
// asks for.
func wantedMethod(r *http.Request) string {
	if cors.IsPreflight(r) {
		return r.Header["Access-Control-Request-Method"][0]
	}
	return r.Method
}

func (s *state) lookup(r *http.Request) *route {
	mux := s.mux
	switch {
	case ownsPath(r.URL.Path):
		mux = s.ownMux
	case s.only != nil:
		return s.only
	}
	method := r.Method
	r.Method = wantedMethod(r)
	h, _ := mux.Handler(r)
	r.Method = method
	rt, _ := h.(*route) // anything else is ServeMux's own answer: no such path or method
	return rt
}

// readable lets a page read why nothing is served: if any route lists its origin, the
// refusal carries that route's CORS headers.
func (s *state) readable(h http.Header, r *http.Request) {
	var last *cors.Guard
	for _, rt := range s.routes {
		if rt.modes[guard.CORS] != guard.Enforce || rt.cors == last {
			continue
		}
		last = rt.cors
		if rt.cors.Lists(r) {
			rt.cors.SetHeaders(h, r, guard.Decision{Reason: guard.CORSOriginAllowed})
			return
		}
	}
	web.AddVary(h, "Origin")
}

type pathFault uint8

const (
	pathPlain pathFault = iota
	pathAmbiguous
	pathEncodedSlash
)

// ambiguous finds paths that the upstream could take for others than the one that
// routes were matched against: a dot segment, plain or encoded; an empty segment; a
// control character; and, which a route can allow, an encoded slash or a backslash.
func ambiguous(r *http.Request) pathFault {
	p := r.URL.Path
	if p == "" || p[0] != '/' {
		return pathAmbiguous
	}
	// HTTP/2 lets blanks stand in a target, which the upstream's request line cannot.
	for i := range len(r.URL.RawQuery) {
		if c := r.URL.RawQuery[i]; c <= ' ' || c == 0x7f {
			return pathAmbiguous
		}
	}
	slash := r.URL.RawPath != "" && encodesSlash(r.URL.RawPath)
	for i := range len(p) {
		switch c := p[i]; {
		case c < ' ', c == 0x7f:
			return pathAmbiguous
		case c == '/', c == '\\':
			slash = slash || c == '\\'
			if rest := p[i+1:]; dotSegment(rest) || rest != "" && rest[0] == '/' && !slash {
				return pathAmbiguous
			}
		}
	}
	if !slash {
		return pathPlain
	}
	if strings.Contains(r.URL.EscapedPath(), "//") {
		return pathAmbiguous
	}
	return pathEncodedSlash
}

// dotSegment reports whether s begins with "." or ".." as a whole segment. Some servers
// cut parameters off first, so "..;x" counts too.
func dotSegment(s string) bool {
	if s == "" || s[0] != '.' {
		return false
	}
	s = strings.TrimPrefix(s[1:], ".")
	return s == "" || s[0] == '/' || s[0] == '\\' || s[0] == ';'
}

func encodesSlash(raw string) bool {
	for {
		i := strings.IndexByte(raw, '%')
		if i < 0 || len(raw) < i+3 {
			return false
		}
		if code := raw[i+1 : i+3]; strings.EqualFold(code, "2f") || strings.EqualFold(code, "5c") {
			return true
		}
		raw = raw[i+3:]
	}
}
