package gateway_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	josejwt "github.com/go-jose/go-jose/v4/jwt"

	"github.com/moat-gateway/moat/gateway"
	"github.com/moat-gateway/moat/guard"
	"github.com/moat-gateway/moat/guard/assertion"
	"github.com/moat-gateway/moat/guard/authorization"
	"github.com/moat-gateway/moat/guard/cookie"
	"github.com/moat-gateway/moat/guard/csrf"
	"github.com/moat-gateway/moat/guard/identity/apikey"
	"github.com/moat-gateway/moat/guard/identity/jwt"
	"github.com/moat-gateway/moat/guard/ratelimit"
)

var shared = []byte("a secret that the issuer shares with the gate")

// issuer signs tokens as "accounts" does.
var issuer = jwt.Issuer{Source: "accounts", Issuer: "https://accounts.example", Audiences: []string{"api"}, Algorithms: []string{"HS256"}, Secret: shared}

// token is one of a user, with other claims in the place of those that it would have.
func token(t testing.TB, sub string, other ...any) string {
	t.Helper()
	claims := map[string]any{"iss": issuer.Issuer, "aud": "api", "sub": sub, "exp": time.Now().Add(time.Hour).Unix()}
	for i := 0; i < len(other); i += 2 {
		claims[other[i].(string)] = other[i+1] //nolint:forcetypeassert // names.
	}
	return sign(t, shared, claims)
}

func sign(t testing.TB, secret []byte, claims map[string]any) string {
	t.Helper()
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.HS256, Key: secret}, nil)
	if err != nil {
		t.Fatal(err)
	}
	text, err := josejwt.Signed(signer).Claims(claims).Serialize()
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// known has the gate ask who calls.
func known(change ...func(*gateway.Route)) func(*gateway.Config) {
	return func(c *gateway.Config) {
		c.Callers = &gateway.Callers{JWT: []jwt.Issuer{issuer}, Keys: []gateway.Keys{{Source: "partners", Header: "X-Api-Key", Set: new(apikey.Set)}}}
		r := &c.Routes[0]
		r.Auth, r.Sources = gateway.AuthRequired, []string{"accounts", "partners"}
		r.CrossSite.AllowBrowserless = true
		for _, f := range change {
			f(r)
		}
	}
}

func bearer(text string) []string { return []string{"Authorization", "Bearer " + text} }

func TestNobodyWhoIsNotKnownReachesTheBackend(t *testing.T) {
	b := newBackend(t, nil)
	g := newGateway(t, configFor(t, b.URL, known()))
	good := token(t, "alice")
	none := "eyJhbGciOiJub25lIn0" + good[strings.Index(good, "."):strings.LastIndex(good, ".")+1]
	for name, test := range map[string]struct {
		headers []string
		code    string
	}{
		"nothing":           {nil, "credentials-missing"},
		"another secret":    {bearer(sign(t, []byte("another secret, which is long enough too"), map[string]any{"iss": issuer.Issuer, "aud": "api", "sub": "alice", "exp": time.Now().Add(time.Hour).Unix()})), "token-signature-invalid"},
		"no algorithm":      {bearer(none), "token-algorithm-not-allowed"},
		"expired":           {bearer(token(t, "alice", "exp", time.Now().Add(-time.Hour).Unix())), "token-expired"},
		"another audience":  {bearer(token(t, "alice", "aud", "other")), "token-audience-wrong"},
		"another issuer":    {bearer(token(t, "alice", "iss", "https://evil.test")), "token-issuer-unknown"},
		"a changed payload": {bearer(strings.Replace(good, ".e", ".f", 1)), "token-malformed"},
		"an unknown key":    {[]string{"X-Api-Key", "moat_abcdefgh_0123456789012345678901234567890101234567"}, "api-key-unknown"},
		"a token and a key": {append(bearer(good), "X-Api-Key", "moat_abcdefgh_x"), "credentials-ambiguous"},
		"two tokens":        {append(bearer(good), bearer(good)...), "credentials-ambiguous"},
		"Basic":             {[]string{"Authorization", "Basic YWxpY2U6cGFzcw=="}, "credentials-not-accepted"},
		"no text":           {[]string{"Authorization", "Bearer"}, "credentials-malformed"},
	} {
		t.Run(name, func(t *testing.T) {
			res := serve(g, request("GET", app, test.headers...))
			if p := problemOf(t, res); p.Code != test.code {
				t.Errorf("%+v, want %s", p, test.code)
			}
			h := res.Header
			if h.Get("Access-Control-Allow-Origin") != app || !strings.Contains(h.Get("Access-Control-Expose-Headers"), "www-authenticate") {
				t.Errorf("the page cannot read why: %v", h)
			}
			if res.StatusCode == http.StatusUnauthorized && h.Get("Www-Authenticate") == "" {
				t.Errorf("401 without a challenge: %v", h)
			}
		})
	}
	if n := b.ran.Load(); n != 0 {
		t.Errorf("the backend ran %d times", n)
	}
	if res := serve(g, request("GET", app, bearer(good)...)); res.StatusCode != http.StatusOK || b.ran.Load() != 1 {
		t.Errorf("a good token: %d", res.StatusCode)
	}
}

func TestAPreflightNeedsNoCredentials(t *testing.T) {
	b := newBackend(t, nil)
	g := newGateway(t, configFor(t, b.URL, known()))
	if res := serve(g, preflight()); res.StatusCode != http.StatusNoContent || res.Header.Get("Access-Control-Allow-Origin") != app {
		t.Errorf("%d %v", res.StatusCode, res.Header)
	}
}

func TestAnAPIKeyIsAnsweredForUntilItIsRevoked(t *testing.T) {
	b := newBackend(t, nil)
	text, key, err := apikey.Generate(apikey.Key{Owner: "acme", Scopes: []string{"read"}}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	set := new(apikey.Set)
	set.Replace([]apikey.Key{key})
	g := newGateway(t, configFor(t, b.URL, known(func(r *gateway.Route) { r.Authorize.Scopes = []string{"read"} }), func(c *gateway.Config) { c.Callers.Keys[0].Set = set }))
	for _, headers := range [][]string{{"X-Api-Key", text}, bearer(text)} {
		if res := serve(g, request("GET", app, headers...)); res.StatusCode != http.StatusOK {
			t.Errorf("%v: %d", headers[0], res.StatusCode)
		}
	}
	key.Revoked = time.Now()
	set.Replace([]apikey.Key{key})
	if p := problemOf(t, serve(g, request("GET", app, "X-Api-Key", text))); p.Code != "api-key-revoked" {
		t.Errorf("%+v", p)
	}
}

func TestOnlyWhoIsMeantReachesAnObject(t *testing.T) {
	b := newBackend(t, nil)
	g := newGateway(t, configFor(t, b.URL, known(func(r *gateway.Route) {
		r.Pattern = "/v1/{owner}"
		r.Authorize = authorization.Policy{Condition: `path.owner == principal.sub || "admin" in principal.roles`}
	})))
	if p := problemOf(t, serve(g, request("GET", app, bearer(token(t, "alice"))...))); p.Code != "authorization-condition-false" || p.Status != http.StatusForbidden {
		t.Errorf("%+v", p)
	}
	if res := serve(g, request("GET", app, bearer(token(t, "items"))...)); res.StatusCode != http.StatusOK {
		t.Errorf("%d", res.StatusCode)
	}
	if n := b.ran.Load(); n != 1 {
		t.Errorf("the backend ran %d times", n)
	}
}

func TestTheUpstreamIsToldWhoCallsByTheGateAlone(t *testing.T) {
	b := newBackend(t, nil)
	c := configFor(t, b.URL, known(func(r *gateway.Route) { r.Anonymous = true }), func(c *gateway.Config) {
		u := c.Upstreams["app"]
		u.Identity = assertion.Policy{
			Headers: map[string]string{"X-User": "sub"}, Token: &assertion.TokenPolicy{Header: "Authorization", Audience: "backend", Subject: "sub"},
		}
		c.Upstreams["app"] = u
	})
	g := newGateway(t, c)
	forged := []string{"X-User", "admin", "X_user", "admin", "X.User", "admin", "Dpop", "proof"}
	if res := serve(g, request("GET", app, forged...)); res.StatusCode != http.StatusOK {
		t.Fatalf("%d", res.StatusCode)
	}
	for name, v := range b.last.Load().Header {
		if strings.Contains(strings.ToLower(name), "user") && name != "User-Agent" || name == "Authorization" || name == "Dpop" {
			t.Errorf("nobody is known, and the upstream gets %s: %q", name, v)
		}
	}
	if res := serve(g, request("GET", app, append(forged, bearer(token(t, "alice"))...)...)); res.StatusCode != http.StatusOK {
		t.Fatalf("%d", res.StatusCode)
	}
	h := b.last.Load().Header
	if got := h["X-User"]; len(got) != 1 || got[0] != "alice" {
		t.Errorf("X-User: %q", got)
	}
	jwks := serve(g, httptest.NewRequest("GET", self+"/.moat/jwks.json", nil))
	var set jose.JSONWebKeySet
	if err := json.NewDecoder(jwks.Body).Decode(&set); err != nil {
		t.Fatal(err)
	}
	text, _ := strings.CutPrefix(h.Get("Authorization"), "Bearer ")
	parsed, err := josejwt.ParseSigned(text, []jose.SignatureAlgorithm{jose.ES256})
	if err != nil {
		t.Fatal(err)
	}
	var claims josejwt.Claims
	if err = parsed.Claims(set, &claims); err != nil {
		t.Fatal(err)
	}
	if err = claims.Validate(josejwt.Expected{Issuer: self, Subject: "alice", AnyAudience: josejwt.Audience{"backend"}, Time: time.Now()}); err != nil {
		t.Error(err)
	}
}

// cookieSession has the upstream's own cookie say who calls. Cross-site requests pass, so
// that what is shown is what the token alone holds.
func cookieSession(c *gateway.Config) {
	c.Callers = &gateway.Callers{CSRF: csrf.Policy{SessionCookies: []string{"sid"}}, Origins: c.Routes[0].Origins}
	c.Routes[0].Modes[guard.CrossSite], c.Routes[0].Modes[guard.CORS] = guard.Off, guard.Off
}

// csrfToken gets a token as the page does, and the cookies that belong to it.
func csrfToken(t *testing.T, g http.Handler, cookies string) (token, all string) {
	t.Helper()
	r := httptest.NewRequest("GET", self+"/.moat/csrf", nil)
	r.Header.Set("Origin", app)
	r.Header.Set("Sec-Fetch-Site", "same-site")
	r.Header.Set("Cookie", cookies)
	res := serve(g, r)
	var doc struct{ Token, Header string }
	if err := json.NewDecoder(res.Body).Decode(&doc); err != nil || doc.Token == "" || doc.Header != "X-CSRF-Token" {
		t.Fatalf("%d %v %+v", res.StatusCode, err, doc)
	}
	if got := res.Header.Get("Access-Control-Allow-Origin"); got != app {
		t.Errorf("the page may not read it: %q", got)
	}
	for _, c := range res.Cookies() {
		cookies += "; " + c.Name + "=" + c.Value
	}
	return doc.Token, cookies
}

func TestWhatAnUpstreamsSessionChangesNeedsAToken(t *testing.T) {
	b := newBackend(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Write(body)
	})
	g := newGateway(t, configFor(t, b.URL, cookieSession))
	send := func(cookies, body string, headers ...string) *http.Response {
		r := request("POST", stranger, headers...)
		r.Body, r.ContentLength = io.NopCloser(strings.NewReader(body)), int64(len(body))
		r.Header.Set("Cookie", cookies)
		return serve(g, r)
	}
	const form = "application/x-www-form-urlencoded"
	good, cookies := csrfToken(t, g, "sid=alice")
	other, _ := csrfToken(t, g, "sid=mallory")
	for name, test := range map[string]struct {
		cookies string
		body    string
		headers []string
		code    string
	}{
		"a form":                    {cookies, "to=eve", []string{"Content-Type", form}, "csrf-token-missing"},
		"text/plain":                {cookies, `{"to":"eve"}`, []string{"Content-Type", "text/plain"}, "csrf-token-missing"},
		"a beacon":                  {cookies, "to=eve", []string{"Content-Type", "application/octet-stream"}, "csrf-token-missing"},
		"the cookie alone":          {cookies + "; __Host-moat-csrf=" + good, "to=eve", []string{"Content-Type", form}, "csrf-token-missing"},
		"another session's token":   {cookies, "", []string{"X-Csrf-Token", other}, "csrf-token-invalid"},
		"a token made up":           {cookies, "", []string{"X-Csrf-Token", "abc"}, "csrf-token-invalid"},
		"another browser's token":   {"sid=alice; __Host-moat-csrf-id=AAAAAAAAAAAAAAAAAAAAAA", "", []string{"X-Csrf-Token", good}, "csrf-token-invalid"},
		"two tokens":                {cookies, "", []string{"X-Csrf-Token", good, "X-Csrf-Token", good}, "csrf-token-invalid"},
		"a token in a second field": {cookies, "csrf_token=" + url.QueryEscape(other) + "&csrf_token=" + url.QueryEscape(good), []string{"Content-Type", form}, "csrf-token-invalid"},
	} {
		if p := problemOf(t, send(test.cookies, test.body, test.headers...)); p.Code != test.code {
			t.Errorf("%s: %+v, want %s", name, p, test.code)
		}
	}
	if n := b.ran.Load(); n != 0 {
		t.Fatalf("the backend ran %d times", n)
	}
	body := "to=bob&csrf_token=" + url.QueryEscape(good) + "&note=" + strings.Repeat("x", 100_000)
	for name, res := range map[string]*http.Response{
		"a header":   send(cookies, body, "X-Csrf-Token", good, "Content-Type", form),
		"a field":    send(cookies, body, "Content-Type", form),
		"no session": send("theme=dark", body, "Content-Type", form),
	} {
		if got, _ := io.ReadAll(res.Body); res.StatusCode != http.StatusOK || string(got) != body {
			t.Errorf("%s: %d, %d bytes of %d", name, res.StatusCode, len(got), len(body))
		}
	}
	h := b.last.Load().Header
	if strings.Contains(fmt.Sprint(h["Cookie"]), "moat-csrf") || h["X-Csrf-Token"] != nil {
		t.Errorf("the upstream gets %v", h)
	}
}

func TestAPageOfAnotherOriginMaySendItsToken(t *testing.T) {
	b := newBackend(t, nil)
	g := newGateway(t, configFor(t, b.URL, func(c *gateway.Config) {
		c.Callers = &gateway.Callers{CSRF: csrf.Policy{SessionCookies: []string{"sid"}}, Origins: c.Routes[0].Origins}
	}))
	res := serve(g, request("OPTIONS", app, "Access-Control-Request-Method", "POST", "Access-Control-Request-Headers", "x-csrf-token"))
	if res.StatusCode != http.StatusNoContent {
		t.Fatalf("%d %+v", res.StatusCode, problemOf(t, res))
	}
	good, cookies := csrfToken(t, g, "sid=alice")
	if res = serve(g, request("POST", app, "Cookie", cookies, "X-Csrf-Token", good)); res.StatusCode != http.StatusOK {
		t.Errorf("%d", res.StatusCode)
	}
}

func TestATokenOfTheCallersOwnNeedsNoOther(t *testing.T) {
	b := newBackend(t, nil)
	g := newGateway(t, configFor(t, b.URL, known(), func(c *gateway.Config) { c.Callers.CSRF.SessionCookies = []string{"sid"} }))
	r := request("POST", app, append(bearer(token(t, "alice")), "Cookie", "sid=alice")...)
	if res := serve(g, r); res.StatusCode != http.StatusOK {
		t.Errorf("%d", res.StatusCode)
	}
}

func TestAReloadVoidsNoToken(t *testing.T) {
	b := newBackend(t, nil)
	c := configFor(t, b.URL, cookieSession)
	g := newGateway(t, c)
	good, cookies := csrfToken(t, g, "sid=alice")
	if err := g.Reload(c); err != nil {
		t.Fatal(err)
	}
	if res := serve(g, request("POST", app, "Cookie", cookies, "X-Csrf-Token", good)); res.StatusCode != http.StatusOK {
		t.Errorf("%d", res.StatusCode)
	}
}

func TestTheUpstreamsCookiesAreHardenedAndMapped(t *testing.T) {
	b := newBackend(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Add("Set-Cookie", "sid=a=b; Expires=Wed, 21 Oct 2037 07:28:00 GMT")
		w.Header().Add("Set-Cookie", "theme=dark; SameSite=None")
	})
	g := newGateway(t, configFor(t, b.URL, route(func(r *gateway.Route) { r.Cookies = cookie.Policy{HostPrefix: []string{"sid"}} })))
	res := serve(g, request("GET", app, "Cookie", "sid=planted; __Host-sid=mine; theme=dark"))
	if got := b.last.Load().Header.Get("Cookie"); strings.Contains(got, "planted") || !strings.Contains(got, "sid=mine") || strings.Contains(got, "__Host-") {
		t.Errorf("the upstream gets %q", got)
	}
	for _, line := range res.Header["Set-Cookie"] {
		if !strings.Contains(line, "SameSite=Lax") || !strings.Contains(line, "Secure") {
			t.Errorf("%q", line)
		}
	}
	if got := res.Header["Set-Cookie"][0]; !strings.HasPrefix(got, "__Host-sid=a=b; ") || !strings.Contains(got, "Expires=Wed, 21 Oct 2037 07:28:00 GMT") || !strings.Contains(got, "HttpOnly") {
		t.Errorf("%q", got)
	}
}

func TestAUserHasOneLimitWhereverHeComesFrom(t *testing.T) {
	b := newBackend(t, nil)
	l, _ := ratelimit.ParseLimit("60/h burst 2")
	g := newGateway(t, configFor(t, b.URL, known(func(r *gateway.Route) {
		r.RateLimits = []ratelimit.Rule{{Name: "user", Limit: l, By: []ratelimit.Fact{ratelimit.Principal}}}
	})))
	ask := func(sub, from string) *http.Response {
		r := request("GET", app, bearer(token(t, sub))...)
		r.RemoteAddr = from + ":1"
		return serve(g, r)
	}
	for i := range 2 {
		if res := ask("alice", fmt.Sprintf("192.0.2.%d", i)); res.StatusCode != http.StatusOK {
			t.Fatalf("%d", res.StatusCode)
		}
	}
	if p := problemOf(t, ask("alice", "198.51.100.7")); p.Code != "rate-limited-principal" {
		t.Errorf("%+v", p)
	}
	if res := ask("bob", "192.0.2.1"); res.StatusCode != http.StatusOK {
		t.Errorf("bob: %d", res.StatusCode)
	}
	if n := b.ran.Load(); n != 3 {
		t.Errorf("the backend ran %d times", n)
	}
}

func TestGuessingCostsMoreThanCalling(t *testing.T) {
	b := newBackend(t, nil)
	g := newGateway(t, configFor(t, b.URL, known(func(r *gateway.Route) {
		l, _ := ratelimit.ParseLimit("60/h burst 20")
		r.RateLimits = []ratelimit.Rule{{Name: "client", Limit: l, By: []ratelimit.Fact{ratelimit.Address}}}
		r.Cost.FailedAuth = 10
	})))
	for range 3 { // who says nothing, or comes too late, is not guessing
		serve(g, request("GET", app))
		serve(g, request("GET", app, bearer(token(t, "alice", "exp", 1))...))
	}
	if p := problemOf(t, serve(g, request("GET", app, bearer("eyJhbGciOiJIUzI1NiJ9.e30.AAAA")...))); p.Status != http.StatusUnauthorized {
		t.Fatalf("%+v", p)
	}
	res := serve(g, request("GET", app, bearer(token(t, "alice"))...))
	if got := res.Header.Get("Ratelimit"); !strings.Contains(got, ";r=2;") {
		t.Errorf("%d %q", res.StatusCode, got)
	}
}

func TestAnAccountIsTriedAFewTimesFromWherever(t *testing.T) {
	b := newBackend(t, func(w http.ResponseWriter, r *http.Request) {
		if body, _ := io.ReadAll(r.Body); !strings.Contains(string(body), `"password":"right"`) {
			w.WriteHeader(http.StatusUnauthorized)
		}
	})
	l, _ := ratelimit.ParseLimit("60/h burst 30")
	g := newGateway(t, configFor(t, b.URL, route(func(r *gateway.Route) {
		r.CrossSite.AllowBrowserless = true
		r.RateLimits = []ratelimit.Rule{{Name: "account", Limit: l, By: []ratelimit.Fact{ratelimit.Account}}}
		r.Account, r.Cost.FailedAuth = "username", 10
	})))
	try := func(i int, user, password string) *http.Response {
		r := httptest.NewRequest("POST", self+"/login", strings.NewReader(fmt.Sprintf(`{"username":%q,"password":%q}`, user, password)))
		r.Header.Set("Content-Type", "application/json")
		r.RemoteAddr = fmt.Sprintf("192.0.2.%d:1", i)
		return serve(g, r)
	}
	refused := 0
	for i := range 20 {
		if try(i, []string{"alice", "ALICE", " Alice "}[i%3], fmt.Sprint(i)).StatusCode == http.StatusTooManyRequests {
			refused++
		}
	}
	if n := b.ran.Load(); n > 3 || refused < 17 {
		t.Errorf("%d attempts reached the backend, %d were refused", n, refused)
	}
	if res := try(0, "bob", "right"); res.StatusCode != http.StatusOK {
		t.Errorf("bob: %d", res.StatusCode)
	}
	r := httptest.NewRequest("POST", self+"/login", strings.NewReader(`{"username":"bob","username":"alice","password":"x"}`))
	r.Header.Set("Content-Type", "application/json")
	if p := problemOf(t, serve(g, r)); p.Code != "account-unreadable" {
		t.Errorf("%+v", p)
	}
}

func TestReportModeIdentifiesAndRefusesNobody(t *testing.T) {
	b := newBackend(t, nil)
	g := newGateway(t, configFor(t, b.URL, known(func(r *gateway.Route) {
		r.Modes[guard.Identity], r.Modes[guard.Authorization] = guard.Report, guard.Report
		r.Authorize.Scopes = []string{"read"}
	})))
	v := g.Decide(request("GET", app), gateway.Assumed{})
	if v.Decision.Ends() || len(v.Reports) != 2 || v.Reports[0].Reason != guard.CredentialsMissing || v.Reports[1].Reason != guard.AuthorizationScopeMissing {
		t.Errorf("%+v", v)
	}
	if res := serve(g, request("GET", app, bearer("nonsense")...)); res.StatusCode != http.StatusOK {
		t.Errorf("%d", res.StatusCode)
	}
}

// A request that is judged on paper asks no issuer.
func TestJudgingOnPaperAsksNobody(t *testing.T) {
	asked := make(chan struct{}, 16)
	keys := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked <- struct{}{} }))
	defer keys.Close()
	b := newBackend(t, nil)
	c := configFor(t, b.URL, known())
	c.Callers.JWT[0] = jwt.Issuer{Source: "accounts", Issuer: issuer.Issuer, Audiences: issuer.Audiences, Algorithms: []string{"ES256"}, JWKSURL: keys.URL}
	g := newGateway(t, c)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	v := g.Decide(request("GET", app, bearer("eyJhbGciOiJFUzI1NiJ9."+strings.Split(token(t, "alice"), ".")[1]+".AAAA")...).WithContext(ctx), gateway.Assumed{})
	if !v.Decision.Denied() {
		t.Errorf("%+v", v.Decision)
	}
	if len(asked) > 0 {
		t.Error("the issuer was asked")
	}
}
