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
	"github.com/moat-gateway/moat/guard/bounds"
	"github.com/moat-gateway/moat/guard/clientaddr"
	"github.com/moat-gateway/moat/guard/cors"
	"github.com/moat-gateway/moat/guard/crosssite"
	"github.com/moat-gateway/moat/guard/ratelimit"
	"github.com/moat-gateway/moat/guard/scrub"
	"github.com/moat-gateway/moat/store/memory"
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
	// Overrides names the dangerous settings in force, for the log and the metrics.
	Overrides []string
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
)

// Route is what is served, to whom, and from where.
type Route struct {
	// Name is the route's label in logs and metrics. Empty stands for Pattern.
	Name string
	// Pattern is a pattern of net/http.ServeMux: "[METHOD ][HOST]/[PATH]".
	Pattern string
	// Upstream names where the route's requests go.
	Upstream string
	// Auth must be written.
	Auth Auth
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
	// StoreDown is what holds while SharedLimits does not answer.
	StoreDown ratelimit.Down
	// Methods are the allowed ones; a method in Pattern narrows them.
	Methods []string
	// ScrubAlso and ScrubPass change the set of headers that clients may not send.
	ScrubAlso, ScrubPass []string
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
	overrides  []string
	unrouted   *routeStats
}

// route is a compiled Route. It is an http.Handler only so that a ServeMux can hold it.
type route struct {
	name         string
	upstream     *upstream
	scrub        *scrub.Guard
	cors         *cors.Guard
	bounds       *bounds.Guard
	crosssite    *crosssite.Guard
	limits       *ratelimit.Guard // nil if nothing is limited
	rules        []ratelimit.Rule // what limits was made of
	methods      []string
	cost         Cost
	modes        guard.Modes
	passCORS     bool
	encodedSlash bool
	slashes      int // in the pattern's path
	stats        *routeStats
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
		upstreams: make(map[string]*upstream),
		shared:    c.SharedLimits,
		overrides: c.Overrides,
		unrouted:  stats(""),
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
	for name, u := range c.Upstreams {
		if s.upstreams[name], err = newUpstream(name, u); err != nil {
			errs = append(errs, fmt.Errorf("upstream %s: %w", name, err))
		}
		for h := range u.Headers {
			owned = append(owned, h)
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
		rt, err := g.compileRoute(s, &c, r, owned)
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
		return nil, errors.Join(errs...)
	}
	if len(c.Routes) == 1 && c.Routes[0].Pattern == "/" {
		s.only = s.routes[0]
	}
	return s, nil
}

func (g *Gateway) compileRoute(s *state, c *Config, r Route, owned []string) (*route, error) {
	var errs []error
	if r.Auth != AuthPublic {
		errs = append(errs, errors.New("auth: not set; write auth: public if anybody may call"))
	}
	up := s.upstreams[r.Upstream]
	if up == nil {
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
	limits, err := g.limits(c, r)
	if err != nil {
		errs = append(errs, err)
	}
	if limits != nil && r.Modes[guard.RateLimit] == guard.Enforce {
		// Where every page may read, none is told how much its visitor has asked for lately.
		exposed := ratelimit.Headers()
		if r.Origins != nil && r.Origins.Any() {
			exposed = []string{"Retry-After"}
		}
		r.CORS.ExposedHeaders = append(slices.Clip(r.CORS.ExposedHeaders), exposed...)
	}
	cg, faults := cors.New(r.CORS)
	errs = append(errs, faults...)
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return &route{
		name: r.Name, upstream: up, modes: r.Modes, passCORS: r.PassUpstreamCORS, encodedSlash: r.AllowEncodedSlash,
		scrub: scrub.New(slices.Concat(owned, r.ScrubAlso), r.ScrubPass),
		cors:  cg, bounds: bounds.New(r.Bounds), crosssite: crosssite.New(r.CrossSite),
		limits: limits, rules: r.RateLimits, methods: methods, cost: r.Cost,
	}, nil
}

// limits compiles the rate limits of a route.
func (g *Gateway) limits(c *Config, r Route) (*ratelimit.Guard, error) {
	if len(r.RateLimits) == 0 || r.Modes[guard.RateLimit] == guard.Off {
		return nil, nil
	}
	if g.debts == nil {
		g.debts = memory.New(cmp.Or(c.LimitMemory, 16<<20))
	}
	store := c.SharedLimits
	if store == nil {
		store = g.debts
	}
	l, err := ratelimit.New(ratelimit.Policy{Rules: r.RateLimits, Cost: r.Cost.Request, Down: r.StoreDown, Local: g.debts, InFlight: &g.inFlight}, store)
	if err != nil {
		return nil, fmt.Errorf("rate limits: %w", err)
	}
	return l, nil
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
