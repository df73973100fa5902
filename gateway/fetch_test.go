package gateway_test

import (
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/moat-gateway/moat/gateway"
	"github.com/moat-gateway/moat/guard"
	"github.com/moat-gateway/moat/guard/egress"
	"github.com/moat-gateway/moat/guard/egress/egresstest"
)

// fetching makes the gate fetch from the backend, under the name data.test.
func fetching(t *testing.T, b *backend, change ...func(*egress.Policy)) func(*gateway.Config) {
	t.Helper()
	_, port, err := net.SplitHostPort(b.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	p := egress.Policy{
		Hosts: []string{"data.test:" + port, "inside.test:" + port}, MaxBytes: 1000, Redirects: 1, Timeout: 10 * time.Second,
		DangerouslyAllowNetworks: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")},
		Resolver: egresstest.Resolver(t, func(name string, version int) []netip.Addr {
			a := map[string]string{"data.test": "127.0.0.1", "inside.test": "169.254.169.254"}[name]
			if version != 4 || a == "" {
				return nil
			}
			return []netip.Addr{netip.MustParseAddr(a)}
		}),
	}
	for _, f := range change {
		f(&p)
	}
	return route(func(r *gateway.Route) {
		r.Pattern, r.Upstream, r.Fetch = "GET /fetch", "", &gateway.Fetch{Policy: p}
	})
}

// named is the path of a request for a URL of the backend under that name.
func named(b *backend, name, path string) string {
	return "/fetch?url=" + url.QueryEscape(strings.Replace(b.URL, "127.0.0.1", name, 1)+path)
}

func TestFetchRouteTakesTheSameDataPath(t *testing.T) {
	b := newBackend(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
		w.Header().Set("Set-Cookie", "a=b")
		w.Header().Set("Access-Control-Allow-Origin", "https://evil.test")
		io.WriteString(w, "hello")
	})
	s := start(t, configFor(t, b.URL, plain, fetching(t, b), limited("2/h")))
	c := client(t, s)
	res := do(t, c, "GET", named(b, "data.test", "/x"), nil, "Cookie", "sid=1", "Authorization", "Bearer x")
	if body := read(t, res); res.StatusCode != 200 || body != "hello" {
		t.Fatalf("status %d, %q", res.StatusCode, body)
	}
	if h := res.Header; h.Get("Access-Control-Allow-Origin") != app || h.Get("Set-Cookie") != "" || h.Get("X-Content-Type-Options") != "nosniff" ||
		h.Get("Content-Security-Policy") != "sandbox; default-src 'none'" || h.Get("Ratelimit") == "" {
		t.Errorf("answered %v", h)
	}
	if got := b.last.Load().Header; got["Cookie"] != nil || got["Authorization"] != nil || got["Origin"] != nil || got["X-Forwarded-For"] != nil {
		t.Errorf("went out: %v", got)
	}
	if p := problemOf(t, do(t, c, "GET", named(b, "data.test", "/x"), nil, "Origin", stranger)); p.Code != "cors-origin-not-allowed" {
		t.Errorf("a stranger: %+v", p)
	}
	if p := problemOf(t, do(t, c, "GET", "/fetch?url=http://evil.test/", nil)); p.Code != "egress-not-allowed" || p.Status != 403 {
		t.Errorf("a host that is not listed: %+v", p)
	}
	if p := problemOf(t, do(t, c, "GET", named(b, "data.test", "/x"), nil)); p.Code != "rate-limited" {
		t.Errorf("the third fetch: %+v", p)
	}
}

func TestFetchRefusals(t *testing.T) {
	b := newBackend(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
		switch r.URL.Path {
		case "/redirect":
			w.Header().Set("Location", "http://169.254.169.254/latest/meta-data/")
			w.WriteHeader(302)
		case "/large":
			w.Header().Set("Content-Length", "1001")
		case "/streamed":
			http.NewResponseController(w).Flush()
			w.Write(make([]byte, 1001))
		case "/page":
			w.Header().Set("Content-Type", "text/html")
		}
	})
	s := start(t, configFor(t, b.URL, plain, fetching(t, b)))
	c := client(t, s)
	for _, k := range []struct{ path, code string }{
		{"/fetch", "egress-not-allowed"},
		{"/fetch?url=", "egress-not-allowed"},
		{named(b, "data.test", "/") + "&url=http://evil.test/", "egress-not-allowed"},
		{"/fetch?url=" + url.QueryEscape(b.URL), "egress-not-allowed"},
		{"/fetch?url=file:///etc/passwd", "egress-not-allowed"},
		{named(b, "inside.test", "/"), "egress-address-not-allowed"},
		{named(b, "data.test", "/redirect"), "egress-not-allowed"},
		{named(b, "data.test", "/large"), "egress-too-large"},
		{named(b, "data.test", "/page"), "egress-not-allowed"},
	} {
		if p := problemOf(t, do(t, c, "GET", k.path, nil)); p.Code != k.code {
			t.Errorf("%s: %+v", k.path, p)
		}
	}
	res := do(t, c, "GET", named(b, "data.test", "/streamed"), nil)
	if _, err := io.ReadAll(res.Body); err == nil {
		t.Error("a part passes for the whole")
	}
	if _, records, _ := admin(t, s.Gateway, "GET", "/decisions"); strings.Count(records, "egress-too-large") != 2 {
		t.Error("the operator is not told of the body that was cut off")
	}
	if p := problemOf(t, do(t, c, "POST", "/fetch?url=x", nil)); p.Status != 404 {
		t.Errorf("POST: %+v", p)
	}
}

func TestFetchOfWhatDoesNotAnswer(t *testing.T) {
	hang := make(chan struct{})
	b := newBackend(t, func(http.ResponseWriter, *http.Request) { <-hang })
	t.Cleanup(func() { close(hang) }) // before the backend is closed
	s := start(t, configFor(t, b.URL, plain, fetching(t, b, func(p *egress.Policy) { p.Timeout = 50 * time.Millisecond })))
	if p := problemOf(t, do(t, client(t, s), "GET", named(b, "data.test", "/"), nil)); p.Code != guard.UpstreamTimeout.String() {
		t.Errorf("%+v", p)
	}
}

func TestDecideJudgesWhatWouldBeFetched(t *testing.T) {
	b := newBackend(t, nil)
	g := newGateway(t, configFor(t, b.URL, fetching(t, b)))
	for target, want := range map[string]guard.Reason{named(b, "data.test", "/"): guard.OK, "/fetch?url=http://evil.test/": guard.EgressNotAllowed} {
		r := request("GET", app)
		u, err := url.Parse(self + target)
		if err != nil {
			t.Fatal(err)
		}
		r.URL = u
		if v := g.Decide(r, gateway.Assumed{}); v.Decision.Reason != want || v.Route == "" || v.Upstream != "" {
			t.Errorf("%s: %+v", target, v)
		}
	}
	if b.ran.Load() != 0 {
		t.Error("deciding fetches")
	}
}

func TestRouteWithTwoSources(t *testing.T) {
	b := newBackend(t, nil)
	_, err := gateway.New(configFor(t, b.URL, fetching(t, b), route(func(r *gateway.Route) { r.Upstream = "app" })), nil)
	if err == nil || !strings.Contains(err.Error(), "one of them") {
		t.Errorf("got %v", err)
	}
	_, err = gateway.New(configFor(t, b.URL, fetching(t, b, func(p *egress.Policy) { p.Hosts = []string{"*"} })), nil)
	if err == nil || !strings.Contains(err.Error(), "wildcard") {
		t.Errorf("got %v", err)
	}
}
