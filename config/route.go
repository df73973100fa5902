package config

import (
	"cmp"
	"fmt"
	"maps"
	"net/http"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/moat-gateway/moat/gateway"
	"github.com/moat-gateway/moat/guard"
	"github.com/moat-gateway/moat/guard/bounds"
	"github.com/moat-gateway/moat/guard/cors"
	"github.com/moat-gateway/moat/guard/crosssite"
	"github.com/moat-gateway/moat/web"
)

func (c *compiler) routes() {
	if c.has("routes") && c.f.Routes != nil && len(c.f.Routes) == 0 {
		c.fault("routes", "", "none, so every request would be refused")
	}
	mux := http.NewServeMux()
	for i := range c.f.Routes {
		r, at := &c.f.Routes[i], item("routes", i)
		c.match(mux, i)
		name, where := r.label(), join(at, "match")
		if r.Name != "" {
			where = join(at, "name")
		}
		if j, twice := c.byName[name]; twice && c.f.Routes[j].Match != r.Match {
			c.fault(where, name, "this is the name of "+item("routes", j))
		}
		c.byName[name] = i
		refer(c, join(at, "upstream"), "upstreams", r.Upstream, c.f.Upstreams)
		refer(c, join(at, "policy"), "policies", r.Policy, c.f.Policies)
		field := func(field string) string {
			own, inherited := join(at, field), join(join("policies", r.Policy), field)
			if _, ok := c.f.Policies[r.Policy]; !ok || c.has(own) {
				return own
			}
			return inherited
		}
		set := c.policy(&r.Override, field)
		c.stateChanges(r, at, set)
		out := compiledRoute(r, name, set)
		c.callers(r, at, field, &out)
		out.Cookies = c.hardened(&r.Override.Cookies, field("cookies"))
		out.Fetch = c.fetch(r, at)
		out.RateLimits = c.rateLimits(r, field)
		out.Model = c.model(r, field)
		out.Budgets = c.budgets(r, &out, field)
		out.Body = c.bodies(i, &r.Override.Body, field)
		out.StoreDown = c.storeDown(r.Override.StoreDown, field("store_down"))
		c.out.Gateway.Routes = append(c.out.Gateway.Routes, out)
	}
	c.operations(mux)
}

// label is the route's name in logs, metrics and tests.
func (r *route) label() string { return cmp.Or(r.Name, r.Match) }

// refer notes that a route uses what it names.
func refer[V any](c *compiler, path, block, name string, known map[string]V) {
	if _, ok := known[name]; !ok && name != "" {
		c.fault(path, name, "none of the "+block+" has this name"+c.didYouMean(name, maps.Keys(known)))
	}
	c.used[join(block, name)] = true
}

func compiledRoute(r *route, name string, set *web.OriginSet) gateway.Route {
	p := &r.Override
	out := gateway.Route{
		Name: name, Pattern: r.Match, Upstream: r.Upstream, Origins: set, Methods: slices.Clone(p.Methods),
		CORS: cors.Policy{
			Credentials: p.CORS.Credentials, RequestHeaders: p.CORS.RequestHeaders, ExposedHeaders: p.CORS.ExposedHeaders, MaxAge: p.CORS.MaxAge,
		},
		CrossSite: crosssite.Policy{
			SideEffects: p.SideEffects, AllowSameSite: p.SameSite == "allow", AllowEmbed: p.Embed == "allow", AllowBrowserless: p.Browserless == "allow",
		},
		Bounds: bounds.Policy{
			BodyBytes: int64(p.Limits.BodyBytes), BodyIdle: p.Limits.BodyIdle, AllowMethodOverride: p.MethodOverride == "allow",
		},
		ScrubAlso: p.Scrub.Also, ScrubPass: p.Scrub.Pass,
		PassUpstreamCORS: p.CORS.UpstreamHeaders == "pass", AllowEncodedSlash: p.EncodedSlash == "allow",
	}
	if p.CORS.MaxAge == 0 {
		out.CORS.MaxAge = -1 // written as 0s: forbids remembering
	}
	out.Cost = gateway.Cost{Request: p.Cost.Request, FailedAuth: p.Cost.FailedAuth, Refused: p.Cost.Refused, Preflight: p.Cost.Preflight}
	if p.Cost.Request == 0 {
		out.Cost.Request = -1 // written as 0: costs nothing
	}
	out.CallerCredentials = callerCredentials(p.CallerCredentials)
	out.Modes[guard.Scrub], out.Modes[guard.CORS], out.Modes[guard.Bounds] = p.Modes.Scrub, p.Modes.CORS, p.Modes.Bounds
	out.Modes[guard.CrossSite], out.Modes[guard.RateLimit], out.Modes[guard.Ticket] = p.Modes.CrossSite, p.Modes.RateLimit, p.Modes.Ticket
	out.Modes[guard.Identity], out.Modes[guard.CSRF], out.Modes[guard.Authorization], out.Modes[guard.Cookie] = p.Modes.Identity, p.Modes.CSRF, p.Modes.Authorization, p.Modes.Cookie
	out.Modes[guard.Bot], out.Modes[guard.Budget], out.Modes[guard.Body] = p.Modes.Bot, p.Modes.Budget, p.Modes.Body
	out.Account = p.Account
	out.Tickets, out.StreamedBody = ticketUse(p.Tickets.Use), p.Tickets.StreamedBody == "allow"
	out.NoScript = p.Tickets.NoScript == "allow" && out.Tickets == gateway.TicketsRequired
	return out
}

// stateChanges warns where "*" seems to let every page change something: it does not.
func (c *compiler) stateChanges(r *route, at string, set *web.OriginSet) {
	p := &r.Override
	if !set.Any() || p.Modes.CrossSite != guard.Enforce {
		return
	}
	method, _, _ := cutPattern(r.Match)
	changes := func(m string) bool {
		return (method == "" || m == method) && (p.SideEffects || m != http.MethodGet && m != http.MethodHead && m != http.MethodOptions)
	}
	if i := slices.IndexFunc(p.Methods, changes); i >= 0 {
		c.warn(join(at, "match"), r.Match, fmt.Sprintf(`"*" lets every page read, but lists nobody for what changes state: %s from pages of other sites is refused; list the origins, or leave such methods out`, p.Methods[i]))
	}
}

// cutPattern splits a pattern of ServeMux: [METHOD ][HOST]/PATH.
func cutPattern(pattern string) (method, host, rest string) {
	rest = pattern
	if i := strings.IndexAny(rest, " \t"); i >= 0 {
		method, rest = rest[:i], strings.TrimLeft(rest[i:], " \t")
	}
	if i := strings.IndexByte(rest, '/'); i >= 0 {
		return method, rest[:i], rest[i:]
	}
	return method, rest, ""
}

// match judges the pattern of the i-th route, beside those of the routes before it.
func (c *compiler) match(mux *http.ServeMux, i int) {
	r, at := &c.f.Routes[i], join(item("routes", i), "match")
	method, host, rest := cutPattern(r.Match)
	same, twice := c.byMatch[r.Match]
	switch {
	case r.Match == "":
		return
	case twice:
		c.fault(at, r.Match, "the same pattern as that of "+item("routes", same))
		return
	case rest == "":
		if method == "" && cors.CheckMethod(host) == nil {
			method, host = host, "" // "GET" alone
		}
		c.fault(at, r.Match, fmt.Sprintf("no path; write %q", strings.TrimSpace(method+" "+host+"/")))
		return
	case strings.Contains(rest, "//") || cleaned(rest) != rest:
		c.fault(at, r.Match, "the path is not in its plain form, so nothing matches it; remove dot segments and empty segments")
		return
	case strings.HasPrefix(rest, gateway.OwnPath):
		c.fault(at, r.Match, "the gate itself answers below "+gateway.OwnPath+"; choose another path")
		return
	case method != "" && !c.method(at, r.Match, method):
		return
	case method != "" && len(r.Override.Methods) > 0 && !slices.Contains(r.Override.Methods, method):
		c.fault(at, r.Match, method+" is not among the methods, so every request would be refused")
	}
	c.byMatch[r.Match] = i
	if host != "" {
		c.matchHost(at, r.Match, host)
	}
	if reason := c.register(mux, r.Match); reason != "" {
		c.fault(at, r.Match, reason)
	}
}

// cleaned is path.Clean, which leaves a slash at the end.
func cleaned(p string) string {
	clean := path.Clean(p)
	if strings.HasSuffix(p, "/") && clean != "/" {
		clean += "/"
	}
	return clean
}

// matchHost refuses a host that no request can have.
func (c *compiler) matchHost(at, match, host string) {
	if strings.ContainsAny(host, ":[") {
		c.fault(at, match, "no port and no IPv6 address can stand in a match; leave the host out")
		return
	}
	var hosts []string
	for _, o := range c.out.Gateway.PublicOrigins {
		hosts = append(hosts, o.Host())
	}
	if len(hosts) > 0 && !slices.Contains(hosts, host) && !strings.Contains(host, "{") {
		c.fault(at, match, fmt.Sprintf("%q is not the host of a public origin, so nothing matches it", host)+c.didYouMean(host, slices.Values(hosts)))
	}
}

// register adds a pattern to the ServeMux, and says why it does not go in.
func (c *compiler) register(mux *http.ServeMux, pattern string) (reason string) {
	defer func() {
		if p := recover(); p != nil {
			reason = c.muxReason(fmt.Sprint(p))
		}
	}()
	mux.Handle(pattern, http.NotFoundHandler())
	return ""
}

// muxReason says in our words why ServeMux refused a pattern.
func (c *compiler) muxReason(text string) string {
	_, rest, conflict := strings.Cut(text, " conflicts with pattern ")
	if !conflict {
		if i := strings.LastIndex(text, "at offset "); i >= 0 {
			_, text, _ = strings.Cut(text[i:], ": ")
		}
		return "not a pattern: " + text
	}
	quoted, err := strconv.QuotedPrefix(rest)
	if err != nil {
		return "conflicts with another route"
	}
	pattern, _ := strconv.Unquote(quoted) // QuotedPrefix has checked it
	other := item("routes", c.byMatch[pattern])
	if _, like, ok := strings.Cut(rest, "both match some paths, like "); ok {
		if example, qErr := strconv.QuotedPrefix(like); qErr == nil {
			return fmt.Sprintf("both this and %s match %s, and neither is more specific", other, example)
		}
	}
	return fmt.Sprintf("both this and %s match some requests, and neither is more specific", other)
}
