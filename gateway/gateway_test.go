package gateway_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/moat-gateway/moat/gateway"
	"github.com/moat-gateway/moat/guard"
	"github.com/moat-gateway/moat/guard/bounds"
	"github.com/moat-gateway/moat/guard/clientaddr"
	"github.com/moat-gateway/moat/guard/cors"
	"github.com/moat-gateway/moat/web"
)

const (
	self     = "https://api.example.com"
	app      = "https://app.example"
	stranger = "https://evil.test"
)

// backend is a real upstream that counts what reaches its handler.
type backend struct {
	*httptest.Server
	ran  atomic.Int64
	last atomic.Pointer[http.Request]
}

func newBackend(t *testing.T, h http.HandlerFunc) *backend {
	t.Helper()
	b := &backend{}
	b.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b.ran.Add(1)
		b.last.Store(r.Clone(r.Context()))
		if h != nil {
			h(w, r)
		}
	}))
	t.Cleanup(b.Close)
	return b
}

func origin(t *testing.T, s string) web.Origin {
	t.Helper()
	o, err := web.ParseOrigin(s)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// configFor is a gate in front of b with every guard on, changed by each of change.
func configFor(t *testing.T, b string, change ...func(*gateway.Config)) gateway.Config {
	t.Helper()
	u, err := url.Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	origins, faults := web.NewOriginSet([]string{app}, web.OriginSetOptions{})
	if faults != nil {
		t.Fatal(faults)
	}
	c := gateway.Config{
		PublicOrigins: []web.Origin{origin(t, self)},
		Upstreams:     map[string]gateway.Upstream{"app": {URL: u}},
		LimitMemory:   64 << 10,
		Routes: []gateway.Route{{
			Pattern: "/", Upstream: "app", Auth: gateway.AuthPublic, Origins: origins,
			Methods: []string{"GET", "HEAD", "POST", "PUT"},
			CORS:    cors.Policy{Credentials: true, RequestHeaders: []string{"Content-Type"}, MaxAge: time.Hour},
			Bounds:  bounds.Policy{BodyBytes: 1 << 20, BodyIdle: 5 * time.Second},
		}},
	}
	for _, f := range change {
		f(&c)
	}
	return c
}

func route(change func(*gateway.Route)) func(*gateway.Config) {
	return func(c *gateway.Config) { change(&c.Routes[0]) }
}

func newGateway(t *testing.T, c gateway.Config) *gateway.Gateway {
	t.Helper()
	g, err := gateway.New(c, nil)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// request is one that a browser's page at origin would send.
func request(method, origin string, headers ...string) *http.Request {
	r := httptest.NewRequest(method, self+"/v1/items?page=2", nil)
	if origin != "" {
		r.Header.Set("Origin", origin)
		r.Header.Set("Sec-Fetch-Site", "cross-site")
		r.Header.Set("Sec-Fetch-Mode", "cors")
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header[headers[i]] = append(r.Header[headers[i]], headers[i+1])
	}
	return r
}

func serve(h http.Handler, r *http.Request) *http.Response {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result()
}

type problem struct {
	Type, Title, Code, ID string
	Status                int
}

func problemOf(t *testing.T, res *http.Response) problem {
	t.Helper()
	var p problem
	if ct := res.Header.Get("Content-Type"); ct != "application/problem+json" {
		t.Fatalf("Content-Type %q", ct)
	}
	if err := json.NewDecoder(res.Body).Decode(&p); err != nil {
		t.Fatal(err)
	}
	if p.Status != res.StatusCode || p.Type != guard.ReasonsURL+p.Code || p.ID == "" || p.Title == "" {
		t.Errorf("status %d, problem %+v", res.StatusCode, p)
	}
	return p
}

func TestHostileRequestsNeverReachTheBackend(t *testing.T) {
	b := newBackend(t, nil)
	g := newGateway(t, configFor(t, b.URL))
	deny := func(want guard.Reason, r *http.Request) {
		t.Helper()
		res := serve(g, r)
		if p := problemOf(t, res); p.Code != want.String() || res.StatusCode != want.Status() {
			t.Errorf("%d %s, want %s", res.StatusCode, p.Code, want)
		}
	}
	otherHost := request("GET", app)
	otherHost.Host = "evil.test"
	deny(guard.HostNotAllowed, otherHost)
	for _, path := range []string{"//x", "/a/../admin", "/a/%2e%2e/admin", "/a/..%2fadmin", "/a/..;/admin", "/a/.", "/%2e", "/a//b", "/a%5c..%5cadmin", "/a%2fb", "/a%0ab", "/a%7f"} {
		r := request("GET", app)
		r.URL, _ = url.Parse(self + path)
		deny(guard.PathAmbiguous, r)
	}
	deny(guard.CORSOriginNotAllowed, request("GET", stranger))
	deny(guard.CORSOriginNotAllowed, request("POST", stranger, "Content-Type", "application/x-www-form-urlencoded"))
	deny(guard.CORSOriginNotAllowed, request("POST", "null"))
	deny(guard.CORSOriginNotAllowed, request("OPTIONS", stranger, "Access-Control-Request-Method", "PUT"))
	deny(guard.CORSMethodNotAllowed, request("OPTIONS", app, "Access-Control-Request-Method", "DELETE"))
	deny(guard.CORSHeaderNotAllowed, request("OPTIONS", app, "Access-Control-Request-Method", "PUT", "Access-Control-Request-Headers", "x-evil"))
	deny(guard.MethodNotAllowed, request("DELETE", app))
	deny(guard.MethodNotAllowed, request("TRACE", app))
	deny(guard.MethodNotAllowed, request("OPTIONS", app))
	deny(guard.MethodOverride, request("POST", app, "X-Http-Method-Override", "DELETE"))
	deny(guard.CrossSiteBrowserless, request("GET", ""))
	deny(guard.CrossSiteEmbed, request("GET", "", "Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "no-cors", "Sec-Fetch-Dest", "image"))
	deny(guard.CrossSiteRequest, request("POST", "", "Sec-Fetch-Site", "cross-site"))
	deny(guard.FramingLengthConflict, httptest.NewRequest("GET", self+"/.moat/refused/framing-length-conflict", nil))
	deny(guard.RequestMalformed, httptest.NewRequest("GET", self+"/.moat/refused/ok", nil))
	if n := b.ran.Load(); n != 0 {
		t.Errorf("the backend ran %d times", n)
	}
	res := serve(g, request("OPTIONS", app, "Access-Control-Request-Method", "PUT", "Access-Control-Request-Headers", "content-type"))
	if res.StatusCode != http.StatusNoContent || res.Header.Get("Access-Control-Allow-Origin") != app || b.ran.Load() != 0 {
		t.Errorf("preflight: %d %v, backend ran %d times", res.StatusCode, res.Header, b.ran.Load())
	}
	if res = serve(g, request("POST", app)); res.StatusCode != http.StatusOK || b.ran.Load() != 1 {
		t.Errorf("allowed: %d, backend ran %d times", res.StatusCode, b.ran.Load())
	}
}

func TestMostSpecificRouteWinsAndPreflightsFollowTheirMethod(t *testing.T) {
	b := newBackend(t, nil)
	g := newGateway(t, configFor(t, b.URL, func(c *gateway.Config) {
		r := c.Routes[0]
		r.Methods = nil
		r.Pattern = "GET /v1/"
		post := r
		post.Pattern = "POST api.example.com/v1/{id}"
		c.Routes = []gateway.Route{r, post}
	}))
	for _, c := range []struct {
		r     *http.Request
		route string
		want  guard.Reason
	}{
		{request("GET", app), "GET /v1/", guard.OK},
		{request("HEAD", app), "GET /v1/", guard.OK},
		{request("POST", app), "POST api.example.com/v1/{id}", guard.OK},
		{request("PUT", app), "", guard.RouteNotFound},
		{request("OPTIONS", app, "Access-Control-Request-Method", "POST"), "POST api.example.com/v1/{id}", guard.CORSPreflightApproved},
		{request("OPTIONS", app, "Access-Control-Request-Method", "PUT"), "", guard.RouteNotFound},
	} {
		v := g.Decide(c.r, gateway.Assumed{})
		if v.Route != c.route || v.Decision.Reason != c.want {
			t.Errorf("%s: route %q, %s; want %q, %s", c.r.Method, v.Route, v.Decision.Reason, c.route, c.want)
		}
		// A page of ours may read every answer, a refusal too.
		if v.Header.Get("Access-Control-Allow-Origin") != app {
			t.Errorf("%s: %s is not readable: %v", c.r.Method, v.Decision.Reason, v.Header)
		}
	}
}

func TestRefusalsOfTheGateAreReadableByThePage(t *testing.T) {
	down := httptest.NewServer(nil)
	down.Close()
	g := newGateway(t, configFor(t, down.URL))
	for _, r := range []*http.Request{request("GET", app), request("DELETE", app)} {
		res := serve(g, r)
		if res.Header.Get("Access-Control-Allow-Origin") != app || res.Header.Get("Access-Control-Allow-Credentials") != "true" || !slices.Contains(res.Header["Vary"], "Origin") {
			t.Errorf("%s: %d is not readable: %v", r.Method, res.StatusCode, res.Header)
		}
	}
	if p := problemOf(t, serve(g, request("GET", app))); p.Code != guard.UpstreamUnreachable.String() {
		t.Errorf("down: %s", p.Code)
	}
}

func TestUpstreamCORSHeadersAreReplacedAndVaryIsMerged(t *testing.T) {
	b := newBackend(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Access-Control-Allow-Origin", "*")
		w.Header().Set("Access-Control-Allow-Private-Network", "true")
		w.Header().Add("Vary", "Accept-Encoding")
		w.Header().Add("Vary", "Cookie")
	})
	res := serve(newGateway(t, configFor(t, b.URL)), request("GET", app))
	if got := res.Header.Values("Access-Control-Allow-Origin"); !slices.Equal(got, []string{app}) {
		t.Errorf("Access-Control-Allow-Origin: %q", got)
	}
	if got := res.Header.Values("Access-Control-Allow-Private-Network"); got != nil {
		t.Errorf("Access-Control-Allow-Private-Network: %q", got)
	}
	if got := strings.Join(res.Header.Values("Vary"), ", "); got != "Accept-Encoding, Cookie, Origin" {
		t.Errorf("Vary: %s", got)
	}
	res = serve(newGateway(t, configFor(t, b.URL, route(func(r *gateway.Route) { r.PassUpstreamCORS = true }))), request("GET", app))
	if got := res.Header.Values("Access-Control-Allow-Private-Network"); !slices.Equal(got, []string{"true"}) {
		t.Errorf("passed: Access-Control-Allow-Private-Network: %q", got)
	}
}

func TestReportModeRunsTheSameCodeAndChangesNothing(t *testing.T) {
	b := newBackend(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Access-Control-Allow-Origin", "https://theirs.example")
	})
	g := newGateway(t, configFor(t, b.URL, route(func(r *gateway.Route) {
		for _, k := range guard.Guards() {
			r.Modes[k] = guard.Report
		}
	})))
	hostile := func() *http.Request {
		return request("DELETE", stranger, "X-Forwarded-Evil", "1", "X-Http-Method-Override", "PUT")
	}
	v := g.Decide(hostile(), gateway.Assumed{})
	var codes []string
	for _, d := range v.Reports {
		codes = append(codes, d.Reason.String())
	}
	want := []string{"cors-origin-not-allowed", "method-override", "cross-site-request", "scrub-forged-header"}
	if v.Decision.Ends() || !slices.Equal(codes, want) {
		t.Errorf("decision %s, reports %v, want %v", v.Decision.Reason, codes, want)
	}
	res := serve(g, hostile())
	if res.StatusCode != http.StatusOK || b.ran.Load() != 1 || b.last.Load().Header.Get("X-Forwarded-Evil") != "1" {
		t.Errorf("report mode interfered: %d, ran %d, %v", res.StatusCode, b.ran.Load(), b.last.Load().Header)
	}
	if got := res.Header.Values("Access-Control-Allow-Origin"); !slices.Equal(got, []string{"https://theirs.example"}) {
		t.Errorf("report mode changed CORS: %q", got)
	}
	// A preflight is the upstream's to answer, as if moat were not there.
	serve(g, request("OPTIONS", stranger, "Access-Control-Request-Method", "PUT"))
	if b.ran.Load() != 2 || b.last.Load().Method != "OPTIONS" {
		t.Errorf("the preflight did not reach the upstream")
	}
	for _, k := range []guard.Kind{guard.Scrub, guard.CORS, guard.Bounds, guard.CrossSite} {
		off := newGateway(t, configFor(t, b.URL, route(func(r *gateway.Route) { r.Modes[k] = guard.Off })))
		for _, d := range off.Decide(hostile(), gateway.Assumed{}).Reports {
			t.Errorf("%s is off but reports %s", k, d.Reason)
		}
	}
}

func TestOnlyMoatSpeaksAboutTheClient(t *testing.T) {
	b := newBackend(t, nil)
	u := func(c *gateway.Config) {
		up := c.Upstreams["app"]
		up.Headers = map[string]string{"X-Gate-Proof": "s3cret-proof"}
		c.Upstreams["app"] = up
	}
	g := newGateway(t, configFor(t, b.URL, u))
	forged := map[string]string{
		"X-Forwarded-For": "6.6.6.6", "X_Forwarded_For": "6.6.6.6", "X.Forwarded.For": "6.6.6.6", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "evil.test",
		"X-Forwarded-Uri": "/admin", "X-Forwarded-Prefix": "/admin", "X-Forwarded-Method": "DELETE", "X-Forwarded-Port": "1", "X-Forwarded-Server": "x", "Forwarded": "for=6.6.6.6",
		"X-Real-Ip": "6.6.6.6", "X_real_ip": "6.6.6.6", "X-Original-Url": "/admin", "X-Rewrite-Url": "/admin", "X-Client-Ip": "6.6.6.6", "True-Client-Ip": "6.6.6.6",
		"X-Authenticated-User": "root", "X.Authenticated.User": "root", "X_Authenticated_User": "root", "Remote-User": "root", "X-Auth-Request-User": "root", "X-Auth-Request-Email": "r@x",
		"X-User-Id": "1", "X-Gate-Proof": "guess", "x_gate_proof": "guess", "X.Gate.Proof": "guess", "Moat-Principal": "root", "Proxy": "http://evil.test",
		"Keep-Alive": "x", "Proxy-Connection": "x", "Te": "x", "Http2-Settings": "x", "Proxy-Authorization": "x",
	}
	r := request("GET", app, "Connection", "X-Harmless, Cookie", "X-Harmless", "1", "Cookie", "a=b", "Accept", "x/y")
	for k, v := range forged {
		r.Header[k] = []string{v}
	}
	r.RemoteAddr = "192.0.2.7:4711"
	serve(g, r)
	got := b.last.Load().Header
	want := http.Header{
		"X-Forwarded-For": {"192.0.2.7"}, "X-Forwarded-Proto": {"https"}, "X-Forwarded-Host": {"api.example.com"}, "X-Gate-Proof": {"s3cret-proof"}, "Accept-Encoding": {"identity"},
		"Accept": {"x/y"}, "Cookie": {"a=b"}, "Origin": {app}, "Sec-Fetch-Site": {"cross-site"}, "Sec-Fetch-Mode": {"cors"},
	}
	for k, v := range got {
		if !slices.Equal(v, want[k]) {
			t.Errorf("arrived: %s: %q, want %q", k, v, want[k])
		}
	}
	for k := range want {
		if got[k] == nil {
			t.Errorf("%s did not arrive", k)
		}
	}
}

func TestTrustedProxySpeaksForTheClient(t *testing.T) {
	b := newBackend(t, nil)
	g := newGateway(t, configFor(t, b.URL, func(c *gateway.Config) {
		c.Trust = clientaddr.Trust{Proxies: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}, Header: clientaddr.XForwardedFor, Host: true}
	}))
	r := request("GET", app, "X-Forwarded-For", "6.6.6.6, 2001:db8::7", "X-Forwarded-Host", "api.example.com", "X-Forwarded-Proto", "https")
	r.RemoteAddr, r.Host, r.TLS = "10.1.2.3:99", "gate.internal", nil
	if res := serve(g, r); res.StatusCode != http.StatusOK {
		t.Fatal(res.Status)
	}
	h := b.last.Load().Header
	if h.Get("X-Forwarded-For") != "2001:db8::7" || h.Get("X-Forwarded-Proto") != "https" || h.Get("X-Forwarded-Host") != "api.example.com" {
		t.Errorf("arrived: %v", h)
	}
	// The same from anybody else is nothing.
	r = request("GET", app, "X-Forwarded-Host", "api.example.com")
	r.RemoteAddr, r.Host = "192.0.2.7:99", "gate.internal"
	if p := problemOf(t, serve(g, r)); p.Code != guard.HostNotAllowed.String() {
		t.Errorf("forged host: %s", p.Code)
	}
}

func TestDecisionsAreFoundByTheOperatorAndTellNothingSecret(t *testing.T) {
	b := newBackend(t, nil)
	g := newGateway(t, configFor(t, b.URL))
	r := request("GET", stranger, "Cookie", "sid=s3cret", "Authorization", "Bearer s3cret")
	r.URL.RawQuery = "token=s3cret"
	p := problemOf(t, serve(g, r))

	admin := g.Admin(false)
	get := func(path, host string) (int, string) {
		r := httptest.NewRequest("GET", path, nil)
		r.Host = host
		res := serve(admin, r)
		body, _ := io.ReadAll(res.Body)
		return res.StatusCode, string(body)
	}
	status, body := get("/decisions/"+p.ID, "localhost:9090")
	for _, want := range []string{p.ID, "cors-origin-not-allowed", stranger, "/v1/items", "GET"} {
		if !strings.Contains(body, want) {
			t.Errorf("the record does not say %q: %d %s", want, status, body)
		}
	}
	_, metrics := get("/metrics", "127.0.0.1:9090")
	_, list := get("/decisions", "[::1]:9090")
	for _, text := range []string{body, metrics, list} {
		if strings.Contains(text, "s3cret") {
			t.Errorf("a secret leaked: %s", text)
		}
	}
	if !strings.Contains(metrics, `moat_decisions_total{mode="enforce",reason="cors-origin-not-allowed",route="/",step="cors"} 1`) || strings.Contains(metrics, "evil.test") {
		t.Errorf("metrics: %s", metrics)
	}
	if status, _ := get("/decisions/nosuch", "localhost"); status != http.StatusNotFound {
		t.Errorf("unknown id: %d", status)
	}
	if status, _ := get("/metrics", "evil.test"); status != http.StatusMisdirectedRequest {
		t.Errorf("rebound Host: %d", status)
	}
	for _, path := range []string{"/healthz", "/readyz"} {
		if status, _ := get(path, "localhost"); status != http.StatusOK {
			t.Errorf("%s: %d", path, status)
		}
	}
	g.Drain()
	if status, _ := get("/readyz", "localhost"); status != http.StatusServiceUnavailable {
		t.Errorf("draining: %d", status)
	}
}

func TestRingIsBoundedAndKeepsTheNewest(t *testing.T) {
	g := newGateway(t, configFor(t, "http://127.0.0.1:1"))
	var last problem
	for range 5000 {
		last = problemOf(t, serve(g, request("GET", stranger+strings.Repeat("x", 1000))))
	}
	res := serve(g.Admin(true), httptest.NewRequest("GET", "/decisions?n=100000", nil))
	var all []gateway.Record
	if err := json.NewDecoder(res.Body).Decode(&all); err != nil {
		t.Fatal(err)
	}
	if len(all) != 4096 || all[0].ID != last.ID || len(all[0].Got) > 300 {
		t.Errorf("%d records, newest %s, want %s; Got has %d bytes", len(all), all[0].ID, last.ID, len(all[0].Got))
	}
}

func TestReloadIsAtomicAndABadOneChangesNothing(t *testing.T) {
	one, two := newBackend(t, nil), newBackend(t, nil)
	g := newGateway(t, configFor(t, one.URL))
	serve(g, request("GET", app))
	bad := configFor(t, two.URL, func(c *gateway.Config) { c.Routes = append(c.Routes, gateway.Route{Pattern: "bad pattern {"}) })
	if err := g.Reload(bad); err == nil {
		t.Fatal("a bad configuration was accepted")
	}
	serve(g, request("GET", app))
	if one.ran.Load() != 2 || two.ran.Load() != 0 {
		t.Errorf("after a bad reload: %d %d", one.ran.Load(), two.ran.Load())
	}
	if err := g.Reload(configFor(t, two.URL)); err != nil {
		t.Fatal(err)
	}
	serve(g, request("GET", app))
	if one.ran.Load() != 2 || two.ran.Load() != 1 {
		t.Errorf("after a reload: %d %d", one.ran.Load(), two.ran.Load())
	}
}

func TestNewSaysEverythingThatIsWrong(t *testing.T) {
	_, err := gateway.New(gateway.Config{
		Trust:     clientaddr.Trust{Proxies: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")}, Header: clientaddr.XForwardedFor},
		Upstreams: map[string]gateway.Upstream{"a": {}, "b": {URL: &url.URL{Scheme: "ftp", Host: "x", User: url.UserPassword("u", "s3cret")}}},
		Routes:    []gateway.Route{{Pattern: "/", Upstream: "nosuch"}, {Pattern: "GET /", Methods: []string{"PUT"}, Auth: gateway.AuthPublic}, {Pattern: "/"}},
	}, nil)
	if err == nil {
		t.Fatal("accepted")
	}
	for _, want := range []string{"public origins: none", "0.0.0.0/0", "upstream a: url: not set", "the scheme is http, https or h2c", "a password in a URL", "auth: not set", `"nosuch": not defined`, "GET is not in the list", "two routes have this name"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("nothing says %q in:\n%v", want, err)
		}
	}
	if strings.Contains(err.Error(), "s3cret") {
		t.Errorf("a password leaked: %v", err)
	}
}
