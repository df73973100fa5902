package gateway

import (
	"io"
	"net/http"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/moat-gateway/moat/guard/bounds"
	"github.com/moat-gateway/moat/guard/cors"
	"github.com/moat-gateway/moat/guard/crosssite"
	"github.com/moat-gateway/moat/guard/ratelimit"
	"github.com/moat-gateway/moat/web"
)

// instant answers at once, so that only the gate's own work is measured.
type instant struct{}

func (instant) RoundTrip(r *http.Request) (*http.Response, error) {
	return &http.Response{
		StatusCode: http.StatusOK, ContentLength: 2, Request: r, Body: io.NopCloser(strings.NewReader("ok")),
		Header: http.Header{"Content-Type": {"application/json"}, "Content-Length": {"2"}, "Date": {"x"}, "Server": {"x"}, "Cache-Control": {"no-store"}},
	}, nil
}

// pool spares the reference its buffers, as a user would who cares.
type pool struct{}

func (pool) Get() []byte {
	b, _ := buffers.Get().(*[]byte)
	return *b
}
func (pool) Put(b []byte) { buffers.Put(&b) }

type discard struct{ h http.Header }

func (d *discard) Header() http.Header         { return d.h }
func (d *discard) Write(p []byte) (int, error) { return len(p), nil }
func (d *discard) WriteHeader(int)             {}

// BenchmarkServe measures the gate without any connection, beside httputil.ReverseProxy
// on the same work.
func BenchmarkServe(b *testing.B) {
	const public, app = "http://127.0.0.1:8080", "https://app.example.com"
	self, err := web.ParseOrigin(public)
	if err != nil {
		b.Fatal(err)
	}
	set, faults := web.NewOriginSet([]string{app}, web.OriginSetOptions{})
	if faults != nil {
		b.Fatal(faults)
	}
	up := &url.URL{Scheme: "http", Host: "127.0.0.1:3000"}
	c := Config{
		PublicOrigins: []web.Origin{self}, Upstreams: map[string]Upstream{"app": {URL: up}},
		Routes: []Route{{
			Pattern: "/", Upstream: "app", Auth: AuthPublic, Origins: set, Methods: []string{"GET", "POST"},
			CORS: cors.Policy{Credentials: true, RequestHeaders: []string{"Authorization", "Content-Type"}}, Bounds: bounds.Policy{BodyBytes: 1 << 20},
			CrossSite: crosssite.Policy{AllowBrowserless: true},
		}},
	}
	g, err := New(c, nil)
	if err != nil {
		b.Fatal(err)
	}
	g.state.Load().upstreams["app"].transport = instant{}
	visitor := ratelimit.Rule{Name: "visitor", Limit: ratelimit.Limit{Count: 60_000, Per: time.Second, Burst: 1e9}, By: []ratelimit.Fact{ratelimit.Address}}
	everybody := ratelimit.Rule{Name: "everybody", Limit: ratelimit.Limit{Count: 1e6, Per: time.Second, Burst: 1e9}}
	limited := func(rules ...ratelimit.Rule) *Gateway {
		c := c
		c.Routes = slices.Clone(c.Routes)
		c.Routes[0].RateLimits = rules
		gate, err := New(c, nil)
		if err != nil {
			b.Fatal(err)
		}
		gate.state.Load().upstreams["app"].transport = instant{}
		return gate
	}
	never := visitor
	never.Limit = ratelimit.Limit{Count: 1, Per: 24 * time.Hour}
	proxy := &httputil.ReverseProxy{Transport: instant{}, BufferPool: pool{}, Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(up); r.SetXForwarded() }}

	for _, bench := range []struct {
		name, method, origin string
		h                    http.Handler
	}{
		{"plain/ReverseProxy", "GET", "", proxy},
		{"plain/moat", "GET", "", g},
		{"cors/moat", "GET", app, g},
		{"preflight/moat", "OPTIONS", app, g},
		{"refused/moat", "GET", "https://evil.test", g},
		{"visitor/moat", "GET", "", limited(visitor)},
		{"visitor+everybody/moat", "GET", "", limited(visitor, everybody)},
		{"limited/moat", "GET", "", limited(never)},
	} {
		b.Run(bench.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				r := &http.Request{
					Method: bench.method, Host: "127.0.0.1:8080", RemoteAddr: "127.0.0.1:4711", Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Body: http.NoBody,
					URL: &url.URL{Path: "/v1/items", RawQuery: "page=2&sort=name"}, RequestURI: "/v1/items?page=2&sort=name",
					Header: http.Header{
						"User-Agent": {"Mozilla/5.0"}, "Accept": {"*/*"}, "Accept-Language": {"en"}, "Accept-Encoding": {"gzip"},
						"Cookie": {"theme=dark"}, "Sec-Fetch-Mode": {"cors"},
					},
				}
				if bench.origin != "" {
					r.Header["Origin"] = []string{bench.origin}
				}
				if bench.method == "OPTIONS" {
					r.Header["Access-Control-Request-Method"] = []string{"POST"}
					r.Header["Access-Control-Request-Headers"] = []string{"authorization,content-type"}
				}
				bench.h.ServeHTTP(&discard{make(http.Header)}, r)
			}
		})
	}
}
