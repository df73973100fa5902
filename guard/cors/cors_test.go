package cors_test

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/moat-gateway/moat/guard"
	"github.com/moat-gateway/moat/guard/cors"
	"github.com/moat-gateway/moat/web"
)

const (
	app      = "https://app.example"
	stranger = "https://app.example.evil.test"
	self     = "https://api.example"
)

func origins(t *testing.T, list ...string) *web.OriginSet {
	t.Helper()
	s, faults := web.NewOriginSet(list, web.OriginSetOptions{})
	for _, f := range faults {
		t.Fatal(f)
	}
	return s
}

func public(t *testing.T, list ...string) *web.PublicOrigins {
	t.Helper()
	var all []web.Origin
	for _, s := range list {
		o, err := web.ParseOrigin(s)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, o)
	}
	return web.NewPublicOrigins(all)
}

func policy(t *testing.T) cors.Policy {
	t.Helper()
	return cors.Policy{
		Origins: origins(t, app, "https://*.preview.example"), Public: public(t, self), Credentials: true,
		Methods: []string{"GET", "HEAD", "POST", "PUT"}, RequestHeaders: []string{"Authorization", "Content-Type"},
		ExposedHeaders: []string{"X-Request-Id"}, MaxAge: 2 * time.Hour,
	}
}

func compile(t *testing.T, p cors.Policy) *cors.Guard {
	t.Helper()
	g, faults := cors.New(p)
	for _, f := range faults {
		t.Fatal(f)
	}
	return g
}

func request(method, origin string, headers ...string) *http.Request {
	r := httptest.NewRequest(method, self+"/v1/items", nil)
	if origin != "" {
		r.Header.Set("Origin", origin)
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	return r
}

func TestDecide(t *testing.T) {
	g := compile(t, policy(t))
	const acrm, acrh = "Access-Control-Request-Method", "Access-Control-Request-Headers"
	decide := func(want guard.Reason, method, origin string, headers ...string) {
		t.Helper()
		r := request(method, origin, headers...)
		d := g.Decide(r)
		if d.Reason != want {
			t.Errorf("%s from %q %v: %s, want %s", method, origin, headers, d.Reason, want)
		}
		if d.Denied() != (want.Status() != 0) {
			t.Errorf("%s from %q %v: outcome %s for %s", method, origin, headers, d.Outcome, want)
		}
	}
	// No CORS request, or none that crosses origins.
	decide(guard.OK, "GET", "")
	decide(guard.OK, "POST", self)
	decide(guard.OK, "POST", "null", "Sec-Fetch-Site", "same-origin")
	decide(guard.OK, "POST", "https://tls-ends-elsewhere.example", "Sec-Fetch-Site", "same-origin")
	// Actual requests.
	decide(guard.CORSOriginAllowed, "GET", app)
	decide(guard.CORSOriginAllowed, "DELETE", app) // methods are bounded elsewhere
	decide(guard.CORSOriginAllowed, "GET", "https://pr-7.preview.example")
	decide(guard.CORSOriginNotAllowed, "GET", stranger)
	decide(guard.CORSOriginNotAllowed, "GET", "null")
	decide(guard.CORSOriginNotAllowed, "POST", "null", "Sec-Fetch-Site", "cross-site")
	decide(guard.CORSOriginNotAllowed, "GET", "https://evil@api.example")
	decide(guard.CORSOriginNotAllowed, "GET", "http://app.example")
	decide(guard.CORSOriginNotAllowed, "GET", app+"/")
	decide(guard.CORSOriginNotAllowed, "GET", app+".")
	decide(guard.CORSOriginNotAllowed, "GET", "https://preview.example")
	decide(guard.CORSOriginNotAllowed, "GET", strings.Repeat("x", 64<<10))
	decide(guard.CORSOriginMalformed, "GET", app, "Origin", app)
	// An OPTIONS that asks for no method is no preflight.
	decide(guard.CORSOriginAllowed, "OPTIONS", app)
	decide(guard.OK, "OPTIONS", "", acrm, "PUT")
	// Preflights.
	decide(guard.CORSPreflightApproved, "OPTIONS", app, acrm, "PUT")
	decide(guard.CORSPreflightApproved, "OPTIONS", app, acrm, "POST") // upload listener: no ACRH
	decide(guard.CORSPreflightApproved, "OPTIONS", app, acrm, "PUT", acrh, "authorization,content-type")
	decide(guard.CORSPreflightApproved, "OPTIONS", app, acrm, "PUT", acrh, "Content-Type, AUTHORIZATION")
	decide(guard.CORSPreflightApproved, "OPTIONS", app, acrm, "PUT", acrh, "content-type", acrh, "authorization")
	decide(guard.CORSPreflightApproved, "OPTIONS", app, acrm, "PUT", acrh, " ,, authorization\t,")
	decide(guard.CORSPreflightApproved, "OPTIONS", app, acrm, "PUT", acrh, "")
	decide(guard.CORSOriginNotAllowed, "OPTIONS", stranger, acrm, "PUT")
	decide(guard.CORSOriginNotAllowed, "OPTIONS", stranger, acrm, "PUT", "Sec-Fetch-Site", "same-origin")
	decide(guard.CORSMethodNotAllowed, "OPTIONS", app, acrm, "DELETE")
	decide(guard.CORSMethodNotAllowed, "OPTIONS", app, acrm, "put") // methods are case-sensitive
	decide(guard.CORSMethodNotAllowed, "OPTIONS", app, acrm, strings.Repeat("P", 64<<10))
	decide(guard.CORSHeaderNotAllowed, "OPTIONS", app, acrm, "PUT", acrh, "x-other")
	decide(guard.CORSHeaderNotAllowed, "OPTIONS", app, acrm, "PUT", acrh, "authorization,x-other")
	decide(guard.CORSHeaderNotAllowed, "OPTIONS", app, acrm, "PUT", acrh, "authorization content-type")
	decide(guard.CORSHeaderNotAllowed, "OPTIONS", app, acrm, "PUT", acrh, strings.Repeat(" ", 64)+",x-other")
	decide(guard.CORSHeaderNotAllowed, "OPTIONS", app, acrm, "PUT", acrh, strings.Repeat("a", 64<<10))
	decide(guard.CORSRequestHeadersOversize, "OPTIONS", app, acrm, "PUT", acrh, strings.Repeat(",", 1024))
	decide(guard.CORSRequestHeadersOversize, "OPTIONS", app, acrm, "PUT", acrh, strings.Repeat("authorization,", 1024))
}

func TestHandler(t *testing.T) {
	ran := 0
	h := compile(t, policy(t)).Handler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		ran++
		w.Header().Add("Vary", "Accept-Encoding")
		w.WriteHeader(http.StatusTeapot)
	}))
	serve := func(r *http.Request) *http.Response {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w.Result()
	}
	want := func(res *http.Response, name string, values ...string) {
		t.Helper()
		if got := res.Header.Values(name); !slices.Equal(got, values) {
			t.Errorf("%s: %q, want %q", name, got, values)
		}
	}

	res := serve(request("GET", app))
	want(res, "Access-Control-Allow-Origin", app)
	want(res, "Access-Control-Allow-Credentials", "true")
	want(res, "Access-Control-Expose-Headers", "x-request-id")
	want(res, "Vary", "Origin", "Accept-Encoding")
	if res.StatusCode != http.StatusTeapot || ran != 1 {
		t.Errorf("allowed: status %d, handler ran %d times", res.StatusCode, ran)
	}

	res = serve(request("GET", ""))
	want(res, "Vary", "Origin", "Accept-Encoding")
	want(res, "Access-Control-Allow-Origin")
	ran = 0

	res = serve(request("POST", stranger))
	want(res, "Access-Control-Allow-Origin")
	want(res, "Vary", "Origin")
	want(res, "Content-Type", "application/problem+json")
	if res.StatusCode != http.StatusForbidden {
		t.Errorf("stranger: %d", res.StatusCode)
	}

	res = serve(request("OPTIONS", app, "Access-Control-Request-Method", "PUT"))
	want(res, "Access-Control-Allow-Origin", app)
	want(res, "Access-Control-Allow-Credentials", "true")
	want(res, "Access-Control-Allow-Methods", "GET,HEAD,POST,PUT")
	want(res, "Access-Control-Allow-Headers", "authorization,content-type")
	want(res, "Access-Control-Max-Age", "7200")
	if res.StatusCode != http.StatusNoContent {
		t.Errorf("preflight: %d", res.StatusCode)
	}

	// The page may read why its preflight was refused.
	res = serve(request("OPTIONS", app, "Access-Control-Request-Method", "DELETE"))
	want(res, "Access-Control-Allow-Origin", app)
	if res.StatusCode != http.StatusForbidden {
		t.Errorf("refused preflight: %d", res.StatusCode)
	}
	if ran != 0 {
		t.Errorf("the handler ran %d times for requests that end at the guard", ran)
	}
}

func TestAnyOriginIsLiteral(t *testing.T) {
	g := compile(t, cors.Policy{Origins: origins(t, "*"), Methods: []string{"GET"}, RequestHeaders: []string{"*", "Authorization"}})
	for _, r := range []*http.Request{
		request("GET", stranger), request("OPTIONS", stranger, "Access-Control-Request-Method", "GET", "Access-Control-Request-Headers", "x-anything"),
		httptest.NewRequest("GET", "/", nil), // an image's: what it gets may be in a cache when a page asks
	} {
		w := httptest.NewRecorder()
		g.Handler(http.NotFoundHandler()).ServeHTTP(w, r)
		if got := w.Header().Get("Access-Control-Allow-Origin"); got != "*" {
			t.Errorf("%s: Access-Control-Allow-Origin %q, want *", r.Method, got)
		}
		if w.Header().Get("Access-Control-Allow-Credentials") != "" {
			t.Errorf("%s: credentials with *", r.Method)
		}
	}
}

func TestNewReportsAllFaults(t *testing.T) {
	_, faults := cors.New(cors.Policy{
		Origins: origins(t, "*"), Credentials: true, Methods: []string{"get", "TRACE", "BAD METHOD"},
		RequestHeaders: []string{"*", "Cookie", "Sec-Fetch-Site", "x y"}, ExposedHeaders: []string{"*", "Set-Cookie"}, MaxAge: 48 * time.Hour,
	})
	text := ""
	for _, f := range faults {
		text += f.Error() + "\n"
	}
	for _, want := range []string{
		`origins is "*"`, `"get": methods are case-sensitive; write "GET"`, `"TRACE": never passes`, `"BAD METHOD": not a method`,
		`request_headers: "*"`, `"cookie": script cannot`, `"sec-fetch-site": script cannot`, `"x y": not a header name`,
		`exposed_headers: "*"`, `"set-cookie": script can never read`, "max_age: 48h",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no fault says %q in:\n%s", want, text)
		}
	}
}

// The list check agrees with splitting, trimming and lower-casing, below its budget.
func FuzzRequestHeaders(f *testing.F) {
	for _, s := range []string{"", "authorization", "Authorization , CONTENT-TYPE", ",,", "x", "authorization\n", "authorization,\tcontent-type,"} {
		f.Add(s, "")
	}
	f.Add(strings.Repeat(" ", 29)+",", "content-type"+strings.Repeat(" ", 17)+",authorization") // as many blanks as may be
	set, faults := web.NewOriginSet([]string{app}, web.OriginSetOptions{})
	if faults != nil {
		f.Fatal(faults)
	}
	g, errs := cors.New(cors.Policy{Origins: set, Methods: []string{"PUT"}, RequestHeaders: []string{"Authorization", "Content-Type"}})
	if errs != nil {
		f.Fatal(errs)
	}
	f.Fuzz(func(t *testing.T, a, b string) {
		r := request("OPTIONS", app, "Access-Control-Request-Method", "PUT", "Access-Control-Request-Headers", a, "Access-Control-Request-Headers", b)
		got := g.Decide(r).Reason
		names, empty, ok := 0, 0, true
		for _, line := range []string{a, b} {
			for e := range strings.SplitSeq(line, ",") {
				if len(e) > 29 { // a name and 16 blanks: longer is taken for a longer name
					ok = false
				}
				switch strings.ToLower(strings.Trim(e, " \t")) {
				case "":
					empty++
				case "authorization", "content-type":
					names++
				default:
					ok = false
				}
			}
		}
		switch {
		case got == guard.CORSPreflightApproved && (!ok || names > 2 || empty > 16):
			t.Fatalf("approved %q %q", a, b)
		case got != guard.CORSPreflightApproved && ok && names <= 2 && empty <= 16:
			t.Fatalf("%s for %q %q", got, a, b)
		}
	})
}
