package gateway

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httputil"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	josejwt "github.com/go-jose/go-jose/v4/jwt"

	"github.com/moat-gateway/moat/guard/bounds"
	"github.com/moat-gateway/moat/guard/cors"
	"github.com/moat-gateway/moat/guard/crosssite"
	"github.com/moat-gateway/moat/guard/identity/jwt"
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

// benchIssuer is an issuer, and n of its tokens as a provider makes them.
func benchIssuer(b *testing.B, algorithm jose.SignatureAlgorithm, n int) (jwt.Issuer, [][]string) {
	b.Helper()
	is := jwt.Issuer{Source: "accounts", Issuer: "https://accounts.example.com", Audiences: []string{"https://api.example.com"}, Algorithms: []string{string(algorithm)}}
	var private any
	if algorithm == jose.HS256 {
		is.Secret = []byte(rand.Text() + rand.Text())
		private = is.Secret
	} else {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			b.Fatal(err)
		}
		if is.JWKS, err = json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: key.Public(), KeyID: "2026-11"}}}); err != nil {
			b.Fatal(err)
		}
		private = key
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: algorithm, Key: jose.JSONWebKey{Key: private, KeyID: "2026-11"}}, nil)
	if err != nil {
		b.Fatal(err)
	}
	tokens := make([][]string, n)
	for i := range tokens {
		text, err := josejwt.Signed(signer).Claims(map[string]any{
			"iss": is.Issuer, "aud": is.Audiences, "sub": "24828976" + strconv.Itoa(i), "exp": time.Now().Add(time.Hour).Unix(),
			"iat": time.Now().Unix(), "jti": rand.Text(), "scope": "openid profile orders:read orders:write", "roles": []string{"customer", "reviewer"},
			"email": "alice@example.com", "org": "acme", "azp": "web", "sid": "0d5a1b1e-93c2-4c8e-8a5f-58b8f0b1d9f4",
		}).Serialize()
		if err != nil {
			b.Fatal(err)
		}
		tokens[i] = []string{"Bearer " + text}
	}
	return is, tokens
}

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
	// As many tokens as the gate remembers, and more than it does.
	const warm = 256
	es, few := benchIssuer(b, jose.ES256, warm)
	newES, many := benchIssuer(b, jose.ES256, 8192)
	hs, fewHS := benchIssuer(b, jose.HS256, warm)
	newHS, manyHS := benchIssuer(b, jose.HS256, 8192)
	known := func(is jwt.Issuer, rules ...ratelimit.Rule) *Gateway {
		c := c
		c.Callers = &Callers{JWT: []jwt.Issuer{is}}
		c.Routes = slices.Clone(c.Routes)
		c.Routes[0].Auth, c.Routes[0].Sources, c.Routes[0].RateLimits = AuthRequired, []string{"accounts"}, rules
		gate, err := New(c, nil)
		if err != nil {
			b.Fatal(err)
		}
		gate.state.Load().upstreams["app"].transport = instant{}
		return gate
	}
	user := ratelimit.Rule{Name: "user", Limit: visitor.Limit, By: []ratelimit.Fact{ratelimit.Principal}}
	proxy := &httputil.ReverseProxy{Transport: instant{}, BufferPool: pool{}, Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(up); r.SetXForwarded() }}

	for _, bench := range []struct {
		name, method, origin string
		h                    http.Handler
		tokens               [][]string
	}{
		{"plain/ReverseProxy", "GET", "", proxy, nil},
		{"plain/moat", "GET", "", g, nil},
		{"cors/moat", "GET", app, g, nil},
		{"preflight/moat", "OPTIONS", app, g, nil},
		{"refused/moat", "GET", "https://evil.test", g, nil},
		{"visitor/moat", "GET", "", limited(visitor), nil},
		{"visitor+everybody/moat", "GET", "", limited(visitor, everybody), nil},
		{"limited/moat", "GET", "", limited(never), nil},
		{"plain with a token/moat", "GET", "", g, few},
		{"token/moat", "GET", "", known(es), few},
		{"cors+ES256+visitor+user/moat", "GET", app, known(es, visitor, user), few},
		{"cors+HS256+visitor+user/moat", "GET", app, known(hs, visitor, user), fewHS},
		{"cors+new ES256+visitor+user/moat", "GET", app, known(newES, visitor, user), many},
		{"cors+new HS256+visitor+user/moat", "GET", app, known(newHS, visitor, user), manyHS},
	} {
		b.Run(bench.name, func(b *testing.B) {
			origin := []string{bench.origin}
			serve := func(i int) {
				r := &http.Request{
					Method: bench.method, Host: "127.0.0.1:8080", RemoteAddr: "127.0.0.1:4711", Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Body: http.NoBody,
					URL: &url.URL{Path: "/v1/items", RawQuery: "page=2&sort=name"}, RequestURI: "/v1/items?page=2&sort=name",
					Header: http.Header{
						"User-Agent": {"Mozilla/5.0"}, "Accept": {"*/*"}, "Accept-Language": {"en"}, "Accept-Encoding": {"gzip"},
						"Cookie": {"theme=dark"}, "Sec-Fetch-Mode": {"cors"},
					},
				}
				if bench.origin != "" {
					r.Header["Origin"] = origin
				}
				if len(bench.tokens) > 0 {
					r.Header["Authorization"] = bench.tokens[i%len(bench.tokens)]
				}
				if bench.method == "OPTIONS" {
					r.Header["Access-Control-Request-Method"] = []string{"POST"}
					r.Header["Access-Control-Request-Headers"] = []string{"authorization,content-type"}
				}
				bench.h.ServeHTTP(&discard{make(http.Header)}, r)
			}
			for i := range warm {
				serve(i)
			}
			b.ReportAllocs()
			for i := warm; b.Loop(); i++ {
				serve(i)
			}
		})
	}
}
