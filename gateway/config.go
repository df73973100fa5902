// Package gateway composes the guards around upstreams. serve.go is the data path: one
// function that reads top to bottom, one line for each step that may end a request.
//
// A Gateway is an http.Handler that owns the requests it is given: it removes headers
// from them. Its configuration can be exchanged while it serves; a request sees one
// configuration from its first step to its last.
package gateway

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/moat-gateway/moat/guard"
	"github.com/moat-gateway/moat/guard/assertion"
	"github.com/moat-gateway/moat/guard/authorization"
	"github.com/moat-gateway/moat/guard/body"
	"github.com/moat-gateway/moat/guard/bounds"
	"github.com/moat-gateway/moat/guard/budget"
	"github.com/moat-gateway/moat/guard/clientaddr"
	"github.com/moat-gateway/moat/guard/cookie"
	"github.com/moat-gateway/moat/guard/cors"
	"github.com/moat-gateway/moat/guard/credential"
	"github.com/moat-gateway/moat/guard/crosssite"
	"github.com/moat-gateway/moat/guard/csrf"
	"github.com/moat-gateway/moat/guard/identity"
	"github.com/moat-gateway/moat/guard/identity/session"
	"github.com/moat-gateway/moat/guard/model"
	"github.com/moat-gateway/moat/guard/ratelimit"
	"github.com/moat-gateway/moat/guard/scrub"
	"github.com/moat-gateway/moat/guard/ticket"
	"github.com/moat-gateway/moat/web"
)

// Config is what a Gateway does, before it is compiled.
type Config struct {
	// PublicOrigins are the origins under which clients know the gate. A request for
	// any other Host is refused.
	PublicOrigins []web.Origin
	// Trust names the proxies in front of the gate, if there are any.
	Trust clientaddr.Trust
	// ClientAddrMode is the mode of the client address guard, which runs before a
	// route's own modes can count.
	ClientAddrMode guard.Mode
	// Upstreams by name.
	Upstreams map[string]Upstream
	// Routes, in no order: the most specific pattern wins.
	Routes []Route
	// LimitMemory is how many bytes the table of rate limits takes; 0 means 16 MiB. It is
	// made when a limit is first configured, and then outlives reloads, so no debt is
	// forgotten.
	LimitMemory int
	// SharedLimits is the store that processes share their rate limits through; nil keeps
	// them in this one. The gate does not close it.
	SharedLimits ratelimit.Store
	// Spent keeps what has been spent of budgets; nil keeps it in this process, which forgets it when
	// it ends. The gate does not close it.
	Spent budget.Store
	// Tickets is what routes that ask for tickets share; nil if none does.
	Tickets *Tickets
	// Bots says what becomes of clients that look like programs; nil if nobody looks.
	Bots *Bots
	// Callers is how callers say who they are; nil if nobody is asked.
	Callers *Callers
	// Alerts is what somebody is told about; nil if nobody is.
	Alerts *Alerts
	// Overrides names the dangerous settings in force, for the log and the metrics.
	Overrides []string
	// Observe, if set, is told what the gate decides about each request: before it is forwarded
	// or answered, and once more if something ends or changes it after that, such as an upstream
	// that does not answer. It is called by the request's own goroutine, must not change what it
	// is given, and holds the request up for as long as it runs. What a request brings is as
	// secret as the request is.
	Observe func(*http.Request, Verdict)
	// Transport, if set, stands around the transport of each upstream, by name. It gets requests
	// as the upstream will, credentials included, owns their headers, and must pass the body of an
	// answer with status 101 on as it is.
	Transport func(upstream string, next http.RoundTripper) http.RoundTripper
}

// Upstream is a backend.
type Upstream struct {
	// URL has the scheme http, https, or h2c (HTTP/2 without TLS), a host, and an
	// optional path that is put before each request's.
	URL *url.URL
	// PreserveHost sends the client's Host instead of the URL's.
	PreserveHost bool
	// Headers are set on each request. Clients cannot send them.
	Headers map[string]string
	// Credential is put into each request in the place of the caller's.
	Credential credential.Policy
	// Identity is what the upstream is told about the caller.
	Identity assertion.Policy
	// DialTimeout bounds connecting, TLS included; 0 means 5 s.
	DialTimeout time.Duration
	// ResponseTimeout bounds the wait for the head of the answer; 0 means 60 s.
	ResponseTimeout time.Duration
}

// Auth is how a route's callers are identified.
type Auth uint8

const (
	// AuthUnset is the zero value, and refused: nobody publishes a route by leaving a
	// line out.
	AuthUnset Auth = iota
	// AuthPublic identifies nobody.
	AuthPublic
	// AuthRequired identifies callers by the route's Sources.
	AuthRequired
)

// Route is what is served, to whom, and from where.
type Route struct {
	// Name is the route's label in logs and metrics. Empty stands for Pattern.
	Name string
	// Pattern is a pattern of net/http.ServeMux: "[METHOD ][HOST]/[PATH]".
	Pattern string
	// Upstream names where the route's requests go; or Fetch says what is fetched for them.
	Upstream string
	Fetch    *Fetch
	// Auth must be written.
	Auth Auth
	// Sources are those of Config.Callers whose word counts here.
	Sources []string
	// Anonymous lets requests pass that show no credentials.
	Anonymous bool
	// Authorize says which of the callers that are known may call. Its Pattern is filled in.
	Authorize authorization.Policy
	// CSRF is what the route does about requests that no session makes.
	CSRF CSRFUse
	// Cookies hardens what the upstream sets.
	Cookies cookie.Policy
	// Account is where a request names the account that somebody wants to get into: a field, or
	// "basic" for the user of Basic credentials. "" names none.
	Account string
	// Origins lists the pages that may call: for CORS, for cross-site requests and for
	// WebSockets alike.
	Origins *web.OriginSet
	// CORS, CrossSite and Bounds are the guards' policies. Their Origins, Public and
	// Methods are filled in from the route.
	CORS      cors.Policy
	CrossSite crosssite.Policy
	Bounds    bounds.Policy
	// RateLimits are those that hold here. Routes that name the same one share it.
	RateLimits []ratelimit.Rule
	// Cost is what a request takes from the rate limits.
	Cost Cost
	// Model is what calls may ask of a provider of language models; nil if the upstream is none.
	Model *model.Policy
	// Budgets are those that hold here. Routes that name the same one share it.
	Budgets []budget.Rule
	// StoreDown is what holds while SharedLimits does not answer.
	StoreDown ratelimit.Down
	// Tickets is what the route does with tickets.
	Tickets TicketUse
	// StreamedBody accepts bodies that a ticket's proof does not cover, as its token says.
	StreamedBody bool
	// NoScript gives browsers without script a way in that is slower and good for less.
	NoScript bool
	// Body says what parameters and bodies are like; nil looks into none.
	Body *body.Policy
	// Methods are the allowed ones; a method in Pattern narrows them.
	Methods []string
	// ScrubAlso and ScrubPass change the set of headers that clients may not send.
	ScrubAlso, ScrubPass []string
	// CallerCredentials says what becomes of the caller's Authorization and cookies.
	CallerCredentials CallerCredentials
	// PassUpstreamCORS leaves the upstream's Access-Control-* headers in its answers.
	PassUpstreamCORS bool
	// AllowEncodedSlash lets %2F and %5C stand in paths.
	AllowEncodedSlash bool
	// Modes of the guards on this route.
	Modes guard.Modes
}

// Cost is what requests take from the rate limits.
type Cost struct {
	// Request is what one costs that passes; 0 stands for 1, and a negative cost for nothing.
	Request int
	// FailedAuth is what one costs whose credentials are wrong; and, on a route with an
	// Account, one that the upstream answers with 401 or 403.
	FailedAuth int
	// Refused is what one costs that another guard of the route refuses, and Preflight what
	// a preflight costs. They take what room there is, and change no answer.
	Refused, Preflight int
}

// state is a compiled Config: immutable.
type state struct {
	public     *web.PublicOrigins
	clientAddr *clientaddr.Guard
	addrMode   guard.Mode
	direct     bool // nobody stands in front of the gate
	mux        *http.ServeMux
	folded     *http.ServeMux // the same patterns in lower case: see respelt
	routes     []*route
	only       *route // if one route matches everything
	upstreams  map[string]*upstream
	shared     ratelimit.Store // or nil
	spent      budget.Store
	// budgetRules are those that some route has.
	budgetRules []budget.Rule
	tickets     *tickets // or nil
	bots        *bots    // or nil
	auth        *auth
	own         []*route // what the gate itself answers
	ownMux      *http.ServeMux
	overrides   []string
	unrouted    *routeStats
	observe     func(*http.Request, Verdict) // or nil
	obs         *observer
}

// route is a compiled Route. It is an http.Handler only so that a ServeMux can hold it.
type route struct {
	name      string
	upstream  *upstream
	fetch     *fetcher // in the place of upstream
	scrub     *scrub.Guard
	cors      *cors.Guard
	bounds    *bounds.Guard
	crosssite *crosssite.Guard
	// limits are those by what is known of any request, and those by who makes it; nil if there are none.
	limits        [2]*ratelimit.Guard
	rules         []ratelimit.Rule // what they were made of
	identity      *identity.Guard  // nil if nobody is asked
	sources       []string         // whose word counts
	keyHeader     string           // that holds an API key, or ""
	login         *session.Guard   // where browsers sign in, or nil
	authorization *authorization.Guard
	budgets       *budget.Guard // or nil
	model         *model.Guard  // or nil
	body          *body.Guard   // or nil
	csrf          CSRFUse
	sideEffects   bool
	cookies       *cookie.Guard
	account       string
	methods       []string
	cost          Cost
	tickets       TicketUse
	streamedBody  bool
	noScript      bool
	answer        answerer // of a route that has no upstream
	modes         guard.Modes
	passCORS      bool
	stripCaller   bool // the caller's credentials end here
	stripShown    bool // those that it shows on purpose do
	stripKeys     bool // API keys do
	exchange      bool // a session becomes the provider's token
	encodedSlash  bool
	slashes       int // in the pattern's path
	stats         *routeStats
}

func (*route) ServeHTTP(http.ResponseWriter, *http.Request) {
	panic("gateway: a route is looked up, not called")
}

// compile turns a Config into a state, or says everything that is wrong with it.
func (g *Gateway) compile(c Config) (*state, error) {
	stats := g.obs.routeStats
	s := &state{
		public:    web.NewPublicOrigins(c.PublicOrigins),
		addrMode:  c.ClientAddrMode,
		direct:    len(c.Trust.Proxies) == 0,
		mux:       http.NewServeMux(),
		folded:    http.NewServeMux(),
		ownMux:    http.NewServeMux(),
		auth:      new(auth),
		upstreams: make(map[string]*upstream),
		shared:    c.SharedLimits,
		spent:     g.spentIn(&c),
		overrides: c.Overrides,
		unrouted:  stats(""),
		observe:   c.Observe,
		obs:       g.obs,
	}
	var errs []error
	if len(c.PublicOrigins) == 0 {
		errs = append(errs, errors.New("public origins: none, so every Host would be refused"))
	}
	var err error
	if s.clientAddr, err = clientaddr.New(c.Trust); err != nil {
		errs = append(errs, fmt.Errorf("trusted proxies: %w", err))
	}
	var owned []string // headers that moat sets
	var before map[string]*upstream
	if old := g.state.Load(); old != nil {
		before = old.upstreams
	}
	for name, u := range c.Upstreams {
		if s.upstreams[name], err = newUpstream(name, u, before[name]); err != nil {
			errs = append(errs, fmt.Errorf("upstream %s: %w", name, err))
		} else if c.Transport != nil {
			s.upstreams[name].transport = c.Transport(name, s.upstreams[name].transport)
		}
		for h := range u.Headers {
			if web.FoldName(h) != "authorization" { // which may be the caller's for another upstream
				owned = append(owned, h)
			}
		}
	}
	if err = g.compileTickets(s, &c); err != nil {
		errs = append(errs, err)
	}
	if err = g.compileBots(s, &c); err != nil {
		errs = append(errs, err)
	}
	if err = g.compileAuth(s, &c); err != nil {
		errs = append(errs, fmt.Errorf("auth: %w", err))
	}
	for name, u := range c.Upstreams {
		if up := s.upstreams[name]; up != nil && (len(u.Identity.Headers) > 0 || u.Identity.Token != nil) {
			if up.identity, err = assertion.New(u.Identity, s.auth.signer); err != nil {
				errs = append(errs, fmt.Errorf("upstream %s: identity: %w", name, err))
				continue
			}
			if err = up.contradicts(u); err != nil {
				errs = append(errs, fmt.Errorf("upstream %s: identity: %w", name, err))
			}
			owned = append(owned, up.identity.Names()...)
		}
	}
	if c.Alerts != nil {
		if err = c.Alerts.check(); err != nil {
			errs = append(errs, fmt.Errorf("alerts: %w", err))
		}
	}
	if len(c.Routes) == 0 {
		errs = append(errs, errors.New("routes: none, so every request would be refused"))
	}
	names := make(map[string]bool)
	for _, r := range c.Routes {
		if r.Name == "" {
			r.Name = r.Pattern
		}
		if names[r.Name] {
			errs = append(errs, fmt.Errorf("route %s: two routes have this name", r.Name))
			continue
		}
		names[r.Name] = true
		rt, err := g.compileRoute(s, &c, r, owned, nil)
		if err == nil {
			err = register(s.mux, r.Pattern, rt)
		}
		if err == nil {
			method, host, path := cutPattern(r.Pattern)
			rt.slashes = strings.Count(path, "/")
			if fErr := register(s.folded, strings.TrimLeft(method+" "+strings.ToLower(host+path), " "), rt); fErr != nil {
				err = errors.New("differs from another route's pattern only in case, which many upstreams do not see")
			}
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("route %s: %w", r.Name, err))
			continue
		}
		rt.stats = stats(r.Name)
		s.routes = append(s.routes, rt)
	}
	if len(errs) > 0 {
		if s.auth.jwt != nil {
			s.auth.jwt.Close()
		}
		return nil, errors.Join(errs...)
	}
	if len(c.Routes) == 1 && c.Routes[0].Pattern == "/" {
		s.only = s.routes[0]
	}
	return s, nil
}

func (g *Gateway) compileRoute(s *state, c *Config, r Route, owned []string, answer answerer) (*route, error) {
	var errs []error
	if r.Auth == AuthUnset {
		errs = append(errs, errors.New("auth: not set; write auth: public if anybody may call"))
	}
	var fetch *fetcher
	up := s.upstreams[r.Upstream]
	if r.Fetch != nil && r.Upstream == "" {
		var err error
		if fetch, err = newFetcher(r.Fetch); err != nil {
			errs = append(errs, fmt.Errorf("fetch: %w", err))
		}
		r.Methods, answer = fetchMethods(r.Methods), g.fetch
	} else if r.Fetch != nil {
		errs = append(errs, errors.New("upstream and fetch: a route has one of them"))
	} else if up == nil && answer == nil {
		errs = append(errs, fmt.Errorf("upstream: %q: not defined", r.Upstream))
	}
	method, _, _ := cutPattern(r.Pattern)
	methods, err := narrow(r.Methods, method)
	if err != nil {
		errs = append(errs, err)
	}
	r.CORS.Origins, r.CORS.Public, r.CORS.Methods = r.Origins, s.public, methods
	r.CrossSite.Origins, r.CrossSite.Public = r.Origins, s.public
	r.Bounds.Methods = methods
	if r.Tickets != TicketsOff && c.Tickets == nil {
		errs = append(errs, errors.New("tickets: the route asks for what is not configured"))
	}
	if c.Tickets != nil { // a page's client sends one with each call to the gate
		r.CORS.RequestHeaders = append(slices.Clip(r.CORS.RequestHeaders), ticket.Header)
	}
	limits, err := g.limits(c, r)
	if err != nil {
		errs = append(errs, err)
	}
	if limits != [2]*ratelimit.Guard{} && r.Modes[guard.RateLimit] == guard.Enforce {
		// Where every page may read, none is told how much its visitor has asked for lately.
		exposed := ratelimit.Headers()
		if r.Origins != nil && r.Origins.Any() {
			exposed = []string{"Retry-After"}
		}
		r.CORS.ExposedHeaders = append(slices.Clip(r.CORS.ExposedHeaders), exposed...)
	}
	budgets, err := g.budgets(s, r)
	if err != nil {
		errs = append(errs, err)
	}
	if budgets != nil && r.Modes[guard.Budget] == guard.Enforce {
		r.CORS.ExposedHeaders = append(slices.Clip(r.CORS.ExposedHeaders), "Retry-After")
	}
	if s.auth.csrf != nil && r.CORS.Credentials { // a page that calls with cookies sends its token along
		r.CORS.RequestHeaders = append(slices.Clip(r.CORS.RequestHeaders), cmp.Or(c.Callers.CSRF.Header, csrf.DefaultHeader))
	}
	if r.Auth == AuthRequired {
		r.CORS.ExposedHeaders = append(slices.Clip(r.CORS.ExposedHeaders), "WWW-Authenticate")
	}
	mg, err := r.models(methods)
	if err != nil {
		errs = append(errs, err)
	}
	cg, faults := cors.New(r.CORS)
	errs = append(errs, faults...)
	for _, name := range r.ScrubPass {
		if slices.ContainsFunc(slices.Concat(owned, up.ownedHeaders()), func(o string) bool { return web.FoldName(o) == web.FoldName(name) }) {
			errs = append(errs, fmt.Errorf("scrub: %q may not pass: the gate sets it, and a client could pose as the gate", name))
		}
	}
	ck, err := cookie.New(r.Cookies)
	if err != nil {
		errs = append(errs, fmt.Errorf("cookies: %w", err))
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	rt := &route{
		name: r.Name, upstream: up, fetch: fetch, modes: r.Modes, passCORS: r.PassUpstreamCORS, encodedSlash: r.AllowEncodedSlash,
		stripCaller: r.CallerCredentials.strip(up), stripKeys: r.CallerCredentials != CallerCredentialsPass, exchange: r.CallerCredentials == CallerCredentialsExchange, stripShown: r.CallerCredentials == CallerCredentialsAuto && up != nil && up.identity != nil,
		csrf: r.CSRF, sideEffects: r.CrossSite.SideEffects, cookies: ck, account: r.Account,
		scrub: scrub.New(slices.Concat(owned, up.ownedHeaders(), r.ScrubAlso), r.ScrubPass),
		cors:  cg, bounds: bounds.New(r.Bounds), crosssite: crosssite.New(r.CrossSite),
		budgets: budgets, model: mg,
		limits: limits, rules: r.RateLimits, methods: methods, cost: r.Cost, tickets: r.Tickets, streamedBody: r.StreamedBody, noScript: r.NoScript, answer: answer,
	}
	if r.Body != nil {
		rt.body = body.New(*r.Body)
	}
	return rt, rt.compileIdentity(s, c, &r)
}

// narrow applies the method of a pattern to the list of methods. As in ServeMux, GET
// includes HEAD.
func narrow(methods []string, pattern string) ([]string, error) {
	switch {
	case pattern == "":
		if len(methods) == 0 {
			return nil, errors.New("methods: none, so every request would be refused")
		}
		return methods, nil
	case len(methods) > 0 && !slices.Contains(methods, pattern):
		return nil, fmt.Errorf("methods: %s is not in the list, but the pattern matches nothing else", pattern)
	case pattern == http.MethodGet:
		return []string{http.MethodGet, http.MethodHead}, nil
	}
	return []string{pattern}, nil
}

// cutPattern splits a ServeMux pattern.
func cutPattern(p string) (method, host, path string) {
	rest := p
	if i := strings.IndexAny(p, " \t"); i >= 0 {
		method, rest = p[:i], strings.TrimLeft(p[i:], " \t")
	}
	if i := strings.IndexByte(rest, '/'); i >= 0 {
		return method, rest[:i], rest[i:]
	}
	return method, rest, ""
}

// register adds a route, turning ServeMux's panics about faulty or conflicting
// patterns into errors.
func register(mux *http.ServeMux, pattern string, rt *route) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%v", p)
		}
	}()
	mux.Handle(pattern, rt)
	return nil
}
