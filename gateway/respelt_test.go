package gateway_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/moat-gateway/moat/gateway"
	"github.com/moat-gateway/moat/guard"
)

// Express, Tomcat and IIS take these spellings for the declared path. None may get the
// looser policy of the routes around it.
func TestAnotherSpellingOfARouteIsNotAnotherRoute(t *testing.T) {
	b := newBackend(t, nil)
	g := newGateway(t, configFor(t, b.URL, func(c *gateway.Config) {
		wide, strict, item := c.Routes[0], c.Routes[0], c.Routes[0]
		wide.Pattern = "/api/"
		strict.Pattern, strict.CrossSite.SideEffects = "/api/delete-note", true
		item.Pattern = "/api/items/{id}/"
		c.Routes = []gateway.Route{wide, strict, item}
	}))
	decide := func(path string) gateway.Verdict {
		r := request("GET", app)
		u, err := url.Parse(self + path)
		if err != nil {
			t.Fatal(err)
		}
		r.URL = u
		return g.Decide(r, gateway.Assumed{})
	}
	for _, path := range []string{
		"/api/delete-note/", "/api/Delete-Note", "/API/delete-note", "/api/delete-note;x=1", "/api;v=2/delete-note", "/;/api/delete-note",
		"/api/delete-note.", "/api/delete-note%20", "/api/DELETE-NOTE;a/", "/api./delete-note",
	} {
		if v := decide(path); !v.Decision.Denied() {
			t.Errorf("%s passes by route %q", path, v.Route)
		}
	}
	for path, route := range map[string]string{
		"/api/delete-note": "/api/delete-note", "/api/": "/api/", "/api/other": "/api/", "/api/Other/": "/api/", "/api/Other;v=1": "/api/",
		"/api/items/7/": "/api/items/{id}/", "/api/items/Seven/": "/api/items/{id}/", "/api/items/7/parts/": "/api/items/{id}/", "/api/v1.2/x": "/api/",
	} {
		if v := decide(path); v.Decision.Denied() || v.Route != route {
			t.Errorf("%s: %s by route %q, want %q", path, v.Decision.Reason, v.Route, route)
		}
	}
}

func TestPatternsThatDifferOnlyInCaseAreAFault(t *testing.T) {
	_, err := gateway.New(configFor(t, "http://127.0.0.1:1", func(c *gateway.Config) {
		other := c.Routes[0]
		c.Routes[0].Pattern, other.Pattern = "/Admin", "/admin"
		c.Routes = append(c.Routes, other)
	}), nil)
	if err == nil || !strings.Contains(err.Error(), "only in case") {
		t.Error(err)
	}
}

func TestTRACEPassesInNoMode(t *testing.T) {
	b := newBackend(t, nil)
	g := newGateway(t, configFor(t, b.URL, route(func(r *gateway.Route) {
		for _, k := range guard.Guards() {
			r.Modes[k] = guard.Off
		}
	})))
	for _, method := range []string{http.MethodTrace, http.MethodConnect} {
		if d := g.Decide(request(method, app), gateway.Assumed{}).Decision; !d.Denied() {
			t.Errorf("%s: %s", method, d.Reason)
		}
	}
}

func TestReportedCORSDoesNotExcuseAPreflightFromBounds(t *testing.T) {
	b := newBackend(t, nil)
	g := newGateway(t, configFor(t, b.URL, route(func(r *gateway.Route) { r.Modes[guard.CORS] = guard.Report })))
	r := request("OPTIONS", stranger, "Access-Control-Request-Method", "DELETE", "X-Http-Method-Override", "DELETE")
	if d := g.Decide(r, gateway.Assumed{}).Decision; d.Reason != guard.MethodOverride {
		t.Errorf("%s", d.Reason)
	}
}

func TestBlanksInAQueryAreRefused(t *testing.T) {
	b := newBackend(t, nil)
	g := newGateway(t, configFor(t, b.URL))
	for _, query := range []string{"a HTTP/1.1 b", "a\tb", "a\x7fb"} {
		r := request("GET", app)
		r.URL.RawQuery = query
		if d := g.Decide(r, gateway.Assumed{}).Decision; d.Reason != guard.PathAmbiguous {
			t.Errorf("%q: %s", query, d.Reason)
		}
	}
}
