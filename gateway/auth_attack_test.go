package gateway_test

import (
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/moat-gateway/moat/gateway"
	"github.com/moat-gateway/moat/guard"
	"github.com/moat-gateway/moat/guard/identity/apikey"
	"github.com/moat-gateway/moat/guard/identity/introspection"
	"github.com/moat-gateway/moat/guard/identity/jwt"
	"github.com/moat-gateway/moat/guard/identity/session"
	"github.com/moat-gateway/moat/guard/ratelimit"
	"github.com/moat-gateway/moat/web"
)

// withLogin has users sign in at a provider.
func withLogin(t *testing.T, issuer string) func(*gateway.Config) {
	return func(c *gateway.Config) {
		c.PublicOrigins = []web.Origin{origin(t, self)}
		c.Callers = &gateway.Callers{Logins: []session.Policy{{Source: "staff", Issuer: issuer, ClientID: "moat"}}}
		r := &c.Routes[0]
		r.Auth, r.Sources = gateway.AuthRequired, []string{"staff"}
	}
}

// An upstream, or whoever can have it repeat a header, must not sign a visitor in as somebody else.
func TestNoUpstreamSetsTheGatesOwnCookies(t *testing.T) {
	b := newBackend(t, func(w http.ResponseWriter, _ *http.Request) {
		for _, name := range []string{"__Host-moat-session-staff", "__Host-moat-csrf", "__Host-moat-csrf-id", "__Host-moat-login-staff-AAAAAAAA", "theirs"} {
			w.Header().Add("Set-Cookie", name+"=x; Path=/; Secure")
		}
		w.Header().Set("Link", "</a.css>; rel=preload")
		w.WriteHeader(http.StatusEarlyHints)
		w.WriteHeader(http.StatusOK)
	})
	for _, mode := range []guard.Mode{guard.Enforce, guard.Report, guard.Off} {
		g := newGateway(t, configFor(t, b.URL, withLogin(t, "https://id.example"), route(func(r *gateway.Route) {
			r.Anonymous, r.Modes[guard.Cookie] = true, mode
		})))
		front := httptest.NewServer(g)
		t.Cleanup(front.Close)
		hints := http.Header{}
		r, _ := http.NewRequestWithContext(httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{
			Got1xxResponse: func(_ int, h textproto.MIMEHeader) error { hints = http.Header(h); return nil },
		}), http.MethodGet, front.URL+"/", http.NoBody)
		r.Host = "api.example.com"
		r.Header.Set("Sec-Fetch-Site", "none")
		res, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		got := strings.Join(res.Header["Set-Cookie"], "\n")
		if strings.Contains(got, "__Host-moat-") || !strings.Contains(got, "theirs") {
			t.Errorf("%s: %s", mode, got)
		}
		if hints.Get("Link") == "" || hints["Set-Cookie"] != nil {
			t.Errorf("%s: interim: %v", mode, hints)
		}
	}
}

func TestNoUpstreamSeesASignInUnderWay(t *testing.T) {
	b := newBackend(t, nil)
	g := newGateway(t, configFor(t, b.URL, withLogin(t, "https://id.example"), route(func(r *gateway.Route) {
		r.Anonymous, r.CallerCredentials = true, gateway.CallerCredentialsPass
	})))
	serve(g, request("GET", app, "Cookie", "a=1; __Host-moat-login-staff-AAAAAAAA=secret; b=2"))
	if got := b.last.Load().Header.Get("Cookie"); got != "a=1; b=2" {
		t.Errorf("%q", got)
	}
}

func TestNewRefusesSourcesThatNobodyDefines(t *testing.T) {
	b := newBackend(t, nil)
	_, err := gateway.New(configFor(t, b.URL, route(func(r *gateway.Route) {
		r.Auth, r.Sources = gateway.AuthRequired, []string{"accounts"}
	})), nil)
	if err == nil || !strings.Contains(err.Error(), `"accounts": not defined`) {
		t.Errorf("%v", err)
	}
}

func TestAnAccountInBasicCredentialsLeavesTheBodyAlone(t *testing.T) {
	b := newBackend(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusUnauthorized) })
	l, _ := ratelimit.ParseLimit("60/h burst 20")
	g := newGateway(t, configFor(t, b.URL, route(func(r *gateway.Route) {
		r.CrossSite.AllowBrowserless = true
		r.RateLimits = []ratelimit.Rule{{Name: "account", Limit: l, By: []ratelimit.Fact{ratelimit.Account}}}
		r.Account, r.Cost.FailedAuth = "basic", 10
	})))
	try := func(user string) *http.Response {
		r := httptest.NewRequest("PUT", self+"/file?basic=mallory", strings.NewReader("\x00\x01 any bytes"))
		r.Header.Set("Content-Type", "application/octet-stream")
		r.Header.Set("Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(user+":x")))
		return serve(g, r)
	}
	for i, want := range []int{401, 401, 429} {
		if res := try("alice"); res.StatusCode != want {
			t.Errorf("%d: %d, want %d", i, res.StatusCode, want)
		}
	}
	if res := try("bob"); res.StatusCode != 401 {
		t.Errorf("bob: %d", res.StatusCode)
	}
}

func TestJudgingOnPaperAsksNoServerAtAll(t *testing.T) {
	var asked atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		io.WriteString(w, `{"keys":[]}`)
	}))
	defer server.Close()
	b := newBackend(t, nil)
	c := configFor(t, b.URL, known(func(r *gateway.Route) { r.Sources = []string{"accounts", "opaque"} }))
	c.Callers.JWT[0] = jwt.Issuer{Source: "accounts", Issuer: issuer.Issuer, Audiences: issuer.Audiences, Algorithms: []string{"ES256"}, JWKSURL: server.URL}
	c.Callers.Introspection = []introspection.Policy{{Source: "opaque", URL: server.URL, ClientID: "moat"}}
	g := newGateway(t, c)
	es := "eyJhbGciOiJFUzI1NiJ9." + strings.Split(token(t, "alice"), ".")[1] + "." + strings.Repeat("A", 86)
	for _, text := range []string{es, "opaque"} {
		if v := g.Decide(request("GET", app, bearer(text)...), gateway.Assumed{}); !v.Decision.Denied() {
			t.Errorf("%s: %+v", text, v.Decision)
		}
	}
	time.Sleep(200 * time.Millisecond)
	if n := asked.Load(); n > 0 {
		t.Errorf("asked %d times", n)
	}
}

// Whatever page a visitor without a session asks for, signing in leads somewhere.
func TestEveryPageLeadsToASignInThatBegins(t *testing.T) {
	b := newBackend(t, nil)
	var idp *httptest.Server
	idp = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, strings.ReplaceAll(`{"issuer":"@","authorization_endpoint":"@/a","token_endpoint":"@/t","jwks_uri":"@/k","response_types_supported":["code"],"subject_types_supported":["public"],"id_token_signing_alg_values_supported":["RS256"]}`, "@", idp.URL))
	}))
	defer idp.Close()
	g := newGateway(t, configFor(t, b.URL, withLogin(t, idp.URL)))
	for _, target := range []string{"/", "/a?b=c", `/a?re=\d`, "/a?q=" + strings.Repeat("x", 4000), "/a?q=\xc3\xa4", "/a?q=%5C&next=//evil.test"} {
		r := httptest.NewRequest("GET", self+"/", nil)
		path, query, _ := strings.Cut(target, "?")
		r.URL.Path, r.URL.RawQuery, r.RequestURI = path, query, target
		r.Header.Set("Accept", "text/html")
		r.Header.Set("Sec-Fetch-Site", "none")
		r.Header.Set("Sec-Fetch-Mode", "navigate")
		r.Header.Set("Sec-Fetch-Dest", "document")
		res := serve(g, r)
		if res.StatusCode != http.StatusSeeOther {
			t.Errorf("%.40q: %d", target, res.StatusCode)
			continue
		}
		next := httptest.NewRequest("GET", self+res.Header.Get("Location"), nil)
		next.Header.Set("Sec-Fetch-Site", "none")
		if res := serve(g, next); res.StatusCode != http.StatusFound || !strings.HasPrefix(res.Header.Get("Location"), idp.URL) {
			t.Errorf("%.40q: to sign in: %d %.80s", target, res.StatusCode, res.Header.Get("Location"))
		}
	}
}

// A token that is bound to a key is worth nothing to who has not got that, whoever vouches for it.
func TestABoundTokenThatWasAskedAboutNeedsItsProof(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, `{"active":true,"sub":"alice","cnf":{"jkt":"0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"}}`)
	}))
	defer server.Close()
	b := newBackend(t, nil)
	c := configFor(t, b.URL, known(func(r *gateway.Route) { r.Sources = []string{"opaque"} }))
	c.Callers = &gateway.Callers{Introspection: []introspection.Policy{{Source: "opaque", URL: server.URL, ClientID: "moat"}}}
	g := newGateway(t, c)
	res := serve(g, request("GET", app, bearer("stolen")...))
	if p := problemOf(t, res); p.Code != "proof-missing" || b.ran.Load() != 0 {
		t.Errorf("%+v", p)
	}
	if h := strings.Join(res.Header["Www-Authenticate"], "\n"); !strings.Contains(h, `DPoP algs="ES256`) {
		t.Errorf("the challenge does not say how: %s", h)
	}
	if p := problemOf(t, serve(g, request("GET", app, "Authorization", "DPoP stolen"))); p.Code != "proof-missing" {
		t.Errorf("%+v", p)
	}
}

// An API key is between its owner and the gate, also where the gate asks nobody.
func TestNoUpstreamSeesAnAPIKey(t *testing.T) {
	text, key, err := apikey.Generate(apikey.Key{Owner: "acme"}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	set := new(apikey.Set)
	set.Replace([]apikey.Key{key})
	b := newBackend(t, nil)
	for name, auth := range map[string]func(*gateway.Route){
		"told":         func(r *gateway.Route) { r.Auth, r.Sources, r.Upstream = gateway.AuthPublic, nil, "told" },
		"public":       func(r *gateway.Route) { r.Auth, r.Sources = gateway.AuthPublic, nil },
		"asked":        func(*gateway.Route) {},
		"only looked":  func(r *gateway.Route) { r.Modes[guard.Identity] = guard.Report },
		"not asked":    func(r *gateway.Route) { r.Modes[guard.Identity] = guard.Off },
		"of a session": func(r *gateway.Route) { r.CallerCredentials = gateway.CallerCredentialsExchange },
	} {
		c := configFor(t, b.URL, known(auth))
		c.Callers.Keys[0].Set = set
		told := c.Upstreams["app"]
		told.Identity.Headers = map[string]string{"X-User": "sub"}
		c.Upstreams["told"] = told
		g := newGateway(t, c)
		for _, headers := range [][]string{{"X-Api-Key", text}, bearer(text), {"X-Api-Key", text[:len(text)-1] + "0"}, append(bearer(token(t, "alice")), "X_Api_Key", text), {"X.Api.key", text}} {
			b.last.Store(nil)
			serve(g, request("GET", app, headers...))
			if r := b.last.Load(); r != nil && strings.Contains(fmt.Sprint(r.Header), key.ID) {
				t.Errorf("%s: %v", name, r.Header)
			}
		}
		b.last.Store(nil)
		serve(g, request("GET", app, "X-Api-Key", "the upstream's own"))
		if r := b.last.Load(); r != nil && r.Header.Get("X-Api-Key") == "" {
			t.Errorf("%s: another key: %v", name, r.Header)
		}
	}
}

// Only a preflight as browsers send them goes where nobody need say who he is.
func TestWhatIsNoPreflightNeedsCredentials(t *testing.T) {
	b := newBackend(t, nil)
	for _, mode := range []guard.Mode{guard.Off, guard.Report} {
		g := newGateway(t, configFor(t, b.URL, known(func(r *gateway.Route) {
			r.Methods = append(r.Methods, "OPTIONS", "DELETE")
			r.Modes[guard.CORS], r.Modes[guard.Bounds] = mode, mode
		})))
		r := preflight()
		r.Header.Set("X-Http-Method-Override", "DELETE")
		serve(g, r)
		if b.ran.Load() != 0 {
			t.Errorf("%s: a method override passed as a preflight", mode)
		}
		if serve(g, preflight()); b.ran.Load() != 1 && mode == guard.Off {
			t.Errorf("%s: a preflight does not reach the upstream that answers it", mode)
		}
		b.ran.Store(0)
	}
}

// A shared cache must not give one visitor's cookies to the next, whatever the upstream tells it.
func TestTheGatesCookiesAreForOneVisitor(t *testing.T) {
	said := "Public, max-age=600, S-MaxAge=700"
	b := newBackend(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Cache-Control", said)
		for _, name := range []string{"CDN-Cache-Control", "Cloudflare-CDN-Cache-Control", "Surrogate-Control"} {
			w.Header().Set(name, "public, max-age=600")
		}
	})
	g := newGateway(t, configFor(t, b.URL, withLogin(t, "https://id.example"), route(func(r *gateway.Route) { r.Anonymous = true })))
	r := httptest.NewRequest("GET", self+"/", nil)
	r.Header.Set("Sec-Fetch-Mode", "navigate")
	r.Header.Set("Sec-Fetch-Site", "none")
	h := serve(g, r).Header
	if len(h["Set-Cookie"]) == 0 {
		t.Fatalf("%v", h)
	}
	for name, v := range h {
		if strings.Contains(strings.ToLower(strings.Join(v, ",")), "public") {
			t.Errorf("%s: %q", name, v)
		}
	}
	// What it says about the visitor's own cache stays.
	for was, want := range map[string]string{
		"Public, max-age=600, S-MaxAge=700": "private, max-age=600", "no-cache": "private, no-cache", "no-store": "no-store", "private, max-age=1": "private, max-age=1",
	} {
		said = was
		if got := serve(g, r.Clone(t.Context())).Header.Values("Cache-Control"); len(got) != 1 || got[0] != want {
			t.Errorf("%q: %q, want %q", was, got, want)
		}
	}
}

// Whoever is signed in at the gate may do what anybody may: no upstream is told of the session there.
func TestASessionThatDoesNotCountAsksForNoToken(t *testing.T) {
	b := newBackend(t, nil)
	c := configFor(t, b.URL, withLogin(t, "https://id.example"))
	public := c.Routes[0]
	public.Pattern, public.Methods, public.Auth, public.Sources = "POST /beacon", nil, gateway.AuthPublic, nil
	c.Routes = append(c.Routes, public)
	c.Callers.CSRF.SessionCookies = []string{"sid"}
	g := newGateway(t, c)
	for cookie, want := range map[string]int{"__Host-moat-session-staff=" + strings.Repeat("A", 43): 200, "sid=1": 403, "__Host-sid=1": 403} {
		r := httptest.NewRequest("POST", self+"/beacon", nil)
		r.Header.Set("Origin", self)
		r.Header.Set("Sec-Fetch-Site", "same-origin")
		r.Header.Set("Cookie", cookie)
		if res := serve(g, r); res.StatusCode != want {
			t.Errorf("%s: %d, want %d", cookie, res.StatusCode, want)
		}
	}
}

func TestNewLetsNoClientSayWhoItIs(t *testing.T) {
	b := newBackend(t, nil)
	c := configFor(t, b.URL, known(func(r *gateway.Route) { r.ScrubPass = []string{"x_user"} }))
	u := c.Upstreams["app"]
	u.Identity.Headers = map[string]string{"X-User": "sub"}
	c.Upstreams["app"] = u
	if _, err := gateway.New(c, nil); err == nil || !strings.Contains(err.Error(), `"x_user" may not pass`) {
		t.Errorf("%v", err)
	}
}

func TestWhoLeavesWhileTheProviderIsAskedGetsNoPage(t *testing.T) {
	leave := make(chan struct{})
	idp := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-leave }))
	defer idp.Close()
	defer close(leave)
	b := newBackend(t, nil)
	g := newGateway(t, configFor(t, b.URL, withLogin(t, idp.URL)))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r := httptest.NewRequestWithContext(ctx, "GET", self+"/.moat/login/staff", nil)
	r.Header.Set("Accept", "text/html")
	r.Header.Set("Sec-Fetch-Site", "none")
	r.Header.Set("Sec-Fetch-Mode", "navigate")
	r.Header.Set("Sec-Fetch-Dest", "document")
	defer func() {
		if p := recover(); p != http.ErrAbortHandler { //nolint:errorlint // as net/http compares it.
			t.Errorf("%v", p)
		}
	}()
	serve(g, r)
	t.Error("an answer")
}
