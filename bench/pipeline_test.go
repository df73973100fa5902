package bench

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"maps"
	"net/http"
	"net/http/httputil"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	jwtmiddleware "github.com/auth0/go-jwt-middleware/v2"
	"github.com/auth0/go-jwt-middleware/v2/validator"
	"github.com/go-chi/httprate"
	"github.com/go-chi/jwtauth/v5"
	"github.com/go-jose/go-jose/v4"
	"github.com/jub0bs/cors"
	jwxtwo "github.com/lestrrat-go/jwx/v2/jwt"
	rscors "github.com/rs/cors"
	"golang.org/x/time/rate"
)

// The peers' half of cmd/pipelinetable: what people put together in front of their upstream
// from middleware. The other half is BenchmarkServe in package gateway, where the transport,
// the request and the writer of the answer are the same.

// instant answers at once, so that only what stands before it is measured.
type instant struct{}

func (instant) RoundTrip(r *http.Request) (*http.Response, error) {
	return &http.Response{
		StatusCode: http.StatusOK, ContentLength: 2, Request: r, Body: io.NopCloser(strings.NewReader("ok")),
		Header: http.Header{"Content-Type": {"application/json"}, "Content-Length": {"2"}, "Date": {"x"}, "Server": {"x"}, "Cache-Control": {"no-store"}},
	}, nil
}

var copyBuffers = sync.Pool{New: func() any { return make([]byte, 32<<10) }}

// bufferPool spares ReverseProxy its buffers.
type bufferPool struct{}

func (bufferPool) Get() []byte {
	b, _ := copyBuffers.Get().([]byte)
	return b
}

// Put allocates the 24 bytes of a slice header: httputil.BufferPool wants slices. All rows of
// BenchmarkPipeline pay that, the plain proxy too.
func (bufferPool) Put(b []byte) { copyBuffers.Put(b) } //nolint:staticcheck // see above.

func reverseProxy() http.Handler {
	up := &url.URL{Scheme: "http", Host: "127.0.0.1:3000"}
	return &httputil.ReverseProxy{
		Transport: instant{}, BufferPool: bufferPool{},
		Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(up); r.SetXForwarded() },
	}
}

// discarded forgets an answer, but for its head.
type discarded struct {
	h      http.Header
	status int
}

func (d *discarded) Header() http.Header         { return d.h }
func (d *discarded) Write(p []byte) (int, error) { return len(p), nil }
func (d *discarded) WriteHeader(status int)      { d.status = status }

const (
	pipelineApp = "https://app.example.com"
	plenty      = 1_000_000_000
)

// pipelines are the contestants: CORS, a token of k, a limit by address and one by user with
// a burst of that many, each from packages that are often put together.
func pipelines(t testing.TB, k signingKey, burst int, next http.Handler) map[string]http.Handler {
	t.Helper()
	jub0bs, err := cors.NewMiddleware(cors.Config{
		Origins: []string{pipelineApp}, Credentialed: true, Methods: []string{"GET", "POST"}, RequestHeaders: []string{"Authorization", "Content-Type"},
	})
	if err != nil {
		t.Fatal(err)
	}
	rs := rscors.New(rscors.Options{
		AllowedOrigins: []string{pipelineApp}, AllowCredentials: true, AllowedMethods: []string{"GET", "POST"}, AllowedHeaders: []string{"Authorization", "Content-Type"},
	})
	jwtAuth := jwtauth.New(string(k.algorithm), nil, k.public, jwxtwo.WithIssuer(tokenIssuer), jwxtwo.WithAudience(tokenAudience), jwxtwo.WithRequiredClaim("exp"))
	byUser := func(sub func(context.Context) string) func(http.Handler) http.Handler {
		return httprate.LimitBy(burst, time.Hour, func(r *http.Request) (string, error) { return sub(r.Context()), nil })
	}
	byAddress := func(next http.Handler) http.Handler {
		return httprate.LimitBy(burst, time.Hour, func(r *http.Request) (string, error) { return address(r), nil })(next)
	}
	auth0, err := validator.New(
		func(context.Context) (any, error) { return k.public, nil }, validator.SignatureAlgorithm(k.algorithm), tokenIssuer, []string{tokenAudience},
	)
	if err != nil {
		t.Fatal(err)
	}
	return map[string]http.Handler{
		"jub0bs+golang-jwt+x-time": jub0bs.Wrap(limitBy(burst, address, golangAuth(k, limitBy(burst, golangSubject, next)))),
		"rs+jwtauth+httprate": rs.Handler(byAddress(jwtauth.Verifier(jwtAuth)(jwtauth.Authenticator(jwtAuth)(byUser(func(ctx context.Context) string {
			token, _, _ := jwtauth.FromContext(ctx)
			return token.Subject()
		})(next))))),
		"rs+auth0+httprate": rs.Handler(byAddress(jwtmiddleware.New(auth0.ValidateToken).CheckJWT(byUser(func(ctx context.Context) string {
			claims, _ := ctx.Value(jwtmiddleware.ContextKey{}).(*validator.ValidatedClaims)
			return claims.RegisteredClaims.Subject
		})(next)))),
	}
}

type subjectKey struct{}

// golangAuth is the middleware that golang-jwt leaves to its users.
func golangAuth(k signingKey, next http.Handler) http.Handler {
	verify := golangVerifier(k)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		text, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		sub, err := "", errors.New("no token")
		if ok {
			sub, err = verify(text)
		}
		if err != nil {
			http.Error(w, "unauthorized", http.StatusUnauthorized)
			return
		}
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), subjectKey{}, sub)))
	})
}

func golangSubject(r *http.Request) string {
	sub, _ := r.Context().Value(subjectKey{}).(string)
	return sub
}

func address(r *http.Request) string {
	host, _, _ := strings.Cut(r.RemoteAddr, ":")
	return host
}

// limitBy is the map of limiters with which x/time/rate is used, without what cleans it up.
func limitBy(burst int, key func(*http.Request) string, next http.Handler) http.Handler {
	var mu sync.Mutex
	all := make(map[string]*rate.Limiter)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		k := key(r)
		mu.Lock()
		l := all[k]
		if l == nil {
			l = rate.NewLimiter(rate.Every(time.Hour/time.Duration(burst)), burst)
			all[k] = l
		}
		mu.Unlock()
		if !l.Allow() {
			http.Error(w, "too many", http.StatusTooManyRequests)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// pipelineRequest is the request of package gateway's BenchmarkServe.
func pipelineRequest(method, origin, token string) *http.Request {
	r := &http.Request{
		Method: method, Host: "127.0.0.1:8080", RemoteAddr: "127.0.0.1:4711", Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Body: http.NoBody,
		URL: &url.URL{Path: "/v1/items", RawQuery: "page=2&sort=name"}, RequestURI: "/v1/items?page=2&sort=name",
		Header: http.Header{
			"User-Agent": {"Mozilla/5.0"}, "Accept": {"*/*"}, "Accept-Language": {"en"}, "Accept-Encoding": {"gzip"},
			"Cookie": {"theme=dark"}, "Sec-Fetch-Mode": {"cors"},
		},
	}
	if origin != "" {
		r.Header["Origin"] = []string{origin}
	}
	if token != "" {
		r.Header["Authorization"] = []string{"Bearer " + token}
	}
	return r
}

// TestPipelinesAgree holds the contestants to the same duties, before anything is measured.
func TestPipelinesAgree(t *testing.T) {
	for _, k := range signingKeys(t) {
		good := func(sub string) string { return k.sign(t, func(c map[string]any) { c["sub"] = sub }) }
		ran := false
		for name, h := range pipelines(t, k, 5, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { ran = true })) {
			ask := func(method, origin, from, token string) (status int, allowed string) {
				ran = false
				r := pipelineRequest(method, origin, token)
				r.RemoteAddr = from + ":4711"
				if method == http.MethodOptions {
					r.Header["Access-Control-Request-Method"] = []string{"GET"}
					r.Header["Access-Control-Request-Headers"] = []string{"authorization"}
				}
				w := &discarded{make(http.Header), http.StatusOK}
				h.ServeHTTP(w, r)
				return w.status, w.h.Get("Access-Control-Allow-Origin")
			}
			check := func(what string, status int, allowed string, wantStatus int, wantAllowed string, wantRan bool) {
				t.Helper()
				if status != wantStatus || allowed != wantAllowed || ran != wantRan {
					t.Errorf("%s %s: %s: %d, %q, ran: %v; want %d, %q, %v", k.algorithm, name, what, status, allowed, ran, wantStatus, wantAllowed, wantRan)
				}
			}
			status, allowed := ask("GET", pipelineApp, "192.0.2.1", good("alice"))
			check("a user", status, allowed, 200, pipelineApp, true)
			status, allowed = ask("OPTIONS", pipelineApp, "192.0.2.1", "")
			check("a preflight", status-status%100, allowed, 200, pipelineApp, false)
			status, _ = ask("GET", pipelineApp, "192.0.2.1", "")
			if status == http.StatusBadRequest { // what auth0's says where there is no token
				status = http.StatusUnauthorized
			}
			check("nobody", status, "", 401, "", false)
			status, _ = ask("GET", pipelineApp, "192.0.2.1", good("alice")+"x")
			check("a forger", status, "", 401, "", false)
			status, _ = ask("GET", pipelineApp, "192.0.2.1", k.sign(t, func(c map[string]any) { c["aud"] = "billing" }))
			check("another audience", status, "", 401, "", false)
			for i := range 4 {
				status, _ = ask("GET", pipelineApp, "192.0.2."+strconv.Itoa(10+i), good("alice"))
				check("a user from elsewhere", status, "", 200, "", true)
			}
			status, _ = ask("GET", pipelineApp, "192.0.2.20", good("alice"))
			check("a user who has had enough", status, "", 429, "", false)
			status, _ = ask("GET", pipelineApp, "192.0.2.1", good("bob"))
			check("another user", status, "", 200, "", true)
			status, _ = ask("GET", pipelineApp, "192.0.2.1", good("carol"))
			check("an address that has had enough", status, "", 429, "", false)
		}
	}
}

// BenchmarkPipeline is the peers' half; go run ./cmd/pipelinetable has both.
func BenchmarkPipeline(b *testing.B) {
	b.Run("plain/ReverseProxy", func(b *testing.B) { benchPipeline(b, reverseProxy(), "", nil) })
	for _, k := range signingKeys(b) {
		if k.algorithm == jose.RS256 {
			continue
		}
		tokens := make([]string, 256)
		for i := range tokens {
			tokens[i] = k.sign(b, func(c map[string]any) { c["sub"], c["jti"] = "user-"+strconv.Itoa(i), rand.Text() })
		}
		all := pipelines(b, k, plenty, reverseProxy())
		for _, name := range slices.Sorted(maps.Keys(all)) {
			b.Run(string(k.algorithm)+"/"+name, func(b *testing.B) { benchPipeline(b, all[name], pipelineApp, tokens) })
		}
	}
}

func benchPipeline(b *testing.B, h http.Handler, origin string, tokens []string) {
	headers := make([][]string, len(tokens))
	for i, text := range tokens {
		headers[i] = []string{"Bearer " + text}
	}
	w := &discarded{status: http.StatusOK}
	from := []string{origin}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		r := pipelineRequest("GET", "", "")
		if origin != "" {
			r.Header["Origin"] = from
		}
		if len(headers) > 0 {
			r.Header["Authorization"] = headers[i%len(headers)]
		}
		w.h = make(http.Header)
		h.ServeHTTP(w, r)
	}
	if w.status != http.StatusOK {
		b.Fatal(w.status)
	}
}
