package explain_test

import (
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/moat-gateway/moat/browser"
	"github.com/moat-gateway/moat/explain"
)

var updateMends = flag.Bool("update-mends", false, "write testdata/mend anew")

const (
	page = "https://app.example/index.html"
	api  = "https://api.example/items"
)

var (
	mendNow = time.Date(2026, 7, 2, 12, 0, 0, 0, time.UTC)

	simpleNeed = explain.Need{Origin: "https://app.example", API: "https://api.example", Methods: []string{"GET"}}
	fullNeed   = explain.Need{
		Origin: "https://app.example", API: "https://api.example", Methods: []string{"PUT"},
		Headers: []string{"X-Request-ID", "authorization", "content-type"}, Credentials: true,
		Expose: []string{"X-Total-Count"}, MaxAge: time.Hour,
	}
	insecureNeed = explain.Need{
		Origin: "http://a.rather.long.name.of.a.preview.deployment.app.example:8080", API: "http://api.example:8081",
		Methods: []string{"PROPFIND", "DELETE"},
	}
)

func mends(t *testing.T, n explain.Need) []explain.Mend {
	t.Helper()
	all, err := explain.Mends(n)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestMendsAreAsReviewed(t *testing.T) {
	for name, need := range map[string]explain.Need{"simple": simpleNeed, "full": fullNeed, "insecure": insecureNeed} {
		var b strings.Builder
		for _, m := range mends(t, need) {
			b.WriteString("-- " + string(m.Target) + ": " + m.Title + " (" + m.Language + ")\n-- " + m.File + "\n" + m.Code + "-- " + m.Note + "\n\n")
		}
		file := filepath.Join("testdata", "mend", name+".txt")
		if *updateMends {
			if err := os.WriteFile(file, []byte(b.String()), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if b.String() != string(want) {
			t.Errorf("the mends differ from %s; look at them, then run go test ./explain -run Mend -update-mends\n%s", file, &b)
		}
	}
}

func TestMendsNameOneOriginAndNoOther(t *testing.T) {
	for _, need := range []explain.Need{simpleNeed, fullNeed, insecureNeed} {
		for _, m := range mends(t, need) {
			if !strings.Contains(m.Code, need.Origin) && !strings.Contains(m.Code, strings.ReplaceAll(need.Origin, ".", `\.`)) {
				t.Errorf("%s does not name the origin:\n%s", m.Target, m.Code)
			}
			for line := range strings.Lines(m.Code) {
				if strings.Contains(line, "Allow-Origin") && (strings.Contains(line, "*") || strings.Contains(line, "http_origin")) {
					t.Errorf("%s grants more than one origin: %s", m.Target, line)
				}
			}
			if strings.Contains(m.Code, "\t ") || strings.HasSuffix(m.Code, "\n\n") || !strings.HasSuffix(m.Code, "\n") {
				t.Errorf("%s is not laid out well:\n%q", m.Target, m.Code)
			}
		}
	}
}

func TestMendsRefuseWhatNoServerShouldGrant(t *testing.T) {
	deny := func(change func(*explain.Need), want ...string) {
		t.Helper()
		n := fullNeed
		n.Headers, n.Expose, n.Methods = slices.Clone(n.Headers), slices.Clone(n.Expose), slices.Clone(n.Methods)
		change(&n)
		all, err := explain.Mends(n)
		if err == nil {
			t.Errorf("%+v is not refused: %s", n, all[0].Code)
			return
		}
		for _, w := range want {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%v\nlacks %q", err, w)
			}
		}
	}
	origin := func(s string) func(*explain.Need) { return func(n *explain.Need) { n.Origin = s } }
	deny(origin(""), "must not be empty")
	deny(origin("null"), "anybody")
	deny(origin("*"), "origin")
	deny(origin("https://*.app.example"), "wildcard")
	deny(origin("https://app.example/"), "write https://app.example")
	deny(origin("https://app.example\"; }"), "origin")
	deny(origin("https://app.example\nlisten: 0.0.0.0:80"), "origin")
	deny(origin("https://app.example#{x}"), "origin")
	deny(func(n *explain.Need) { n.API = "https://api.example { respond" }, "API")
	deny(func(n *explain.Need) { n.API = "ftp://api.example" }, "only http and https")

	method := func(s string) func(*explain.Need) { return func(n *explain.Need) { n.Methods = append(n.Methods, s) } }
	deny(method(""), "method")
	deny(method("*"), "method")
	deny(method("patch"), "write PATCH")
	deny(method("Trace"), "forbidden-method")
	deny(method("GET, DELETE"), "method")
	deny(method(`X"`), "method")
	deny(method("$request_method"), "method")

	header := func(s string) func(*explain.Need) { return func(n *explain.Need) { n.Headers = append(n.Headers, s) } }
	for _, s := range []string{"", "*", "x\"y", "x y", "x\r\ny", "x;y", "$http_x", "{$SECRET}", "x`y", "x'y", "x#y", "x\\", "ä", strings.Repeat("x", 101)} {
		deny(header(s), "request header")
		deny(func(n *explain.Need) { n.Expose = append(n.Expose, s) }, "response header")
	}
	deny(header("Cookie"), "script cannot set it")
	deny(header("Sec-Fetch-Site"), "script cannot set it")
	deny(func(n *explain.Need) { n.Expose = []string{"Set-Cookie"} }, "never read it")
	deny(func(n *explain.Need) { n.MaxAge = -1 }, "max age")
	deny(func(n *explain.Need) { n.MaxAge = 25 * time.Hour }, "max age")

	deny(func(n *explain.Need) { n.Origin, n.Methods, n.Headers = "null", []string{"patch"}, []string{"*"} }, "anybody", "PATCH", "request header")
}

// Whatever stands in a Need, the mends have the lines that they would have with harmless
// values of its shape, and between the quotes nothing that could end them.
func FuzzMends(f *testing.F) {
	f.Add("https://app.example", "https://api.example", "PUT", "x-request-id", "x-total")
	f.Add("http://[::1]:3000", "http://localhost:8080", "GET", "", "")
	f.Add("https://a\"; map", "https://b {", "G\nET", "x: y", "$z")
	f.Add("capacitor://localhost", "https://api.example", "M-SEARCH", "a_b.c", "d")
	f.Fuzz(func(t *testing.T, origin, target, method, header, expose string) {
		got, err := explain.Mends(explain.Need{
			Origin: origin, API: target, Methods: []string{method}, Headers: []string{header}, Expose: []string{expose}, Credentials: true,
		})
		if err != nil {
			return
		}
		for _, value := range []string{origin, method, header, expose} {
			if strings.ContainsAny(value, "\"'`\\${}()#;,<>%&|*?!~^=\x00 \t\r\n") {
				t.Errorf("%q went into a configuration", value)
			}
		}
		for _, m := range got {
			if strings.Count(m.Code, `"`)%2 != 0 {
				t.Errorf("%s: an open quote:\n%s", m.Target, m.Code)
			}
			for i := range len(m.Code) {
				if c := m.Code[i]; c < 0x20 && c != '\n' && c != '\t' || c == 0x7f {
					t.Fatalf("%s: %q in the code", m.Target, c)
				}
			}
		}
	})
}

// ask plays a question against a server that answers as the rules say.
func ask(t *testing.T, q explain.Question, rules ...browser.Rule) *browser.Trace {
	t.Helper()
	c := browser.Case{Page: q.Page, Browser: browser.State{Cookies: q.Cookies}, Requests: []browser.Request{q.Request}, Answers: rules}
	traces, err := c.Run(mendNow)
	if err != nil {
		t.Fatal(err)
	}
	return &traces[0]
}

func fetched(url, method string, header browser.Header) explain.Question {
	return explain.Question{
		Page:    browser.Page{URL: page},
		Request: browser.Request{API: browser.Fetch, URL: url, Method: method, Header: header},
	}
}

func withCredentials(q explain.Question) explain.Question {
	q.Request.Credentials = "include"
	return q
}

func answer(status int, fields ...string) browser.Rule {
	r := browser.Rule{Answer: browser.Answer{Status: status}}
	for i := 0; i < len(fields); i += 2 {
		r.Answer.Header = append(r.Answer.Header, browser.Field{Name: fields[i], Value: fields[i+1]})
	}
	return r
}

func on(what string, r browser.Rule) browser.Rule {
	r.On = what
	return r
}

func at(url string, r browser.Rule) browser.Rule {
	r.URL = url
	return r
}

// granting is a server that grants exactly the need.
func granting(n explain.Need) []browser.Rule {
	fields := []string{"Access-Control-Allow-Origin", n.Origin, "Vary", "Origin"}
	if n.Credentials {
		fields = append(fields, "Access-Control-Allow-Credentials", "true")
	}
	return []browser.Rule{
		on("preflight", answer(204, append(slices.Clone(fields),
			"Access-Control-Allow-Methods", strings.Join(n.Methods, ","), "Access-Control-Allow-Headers", strings.Join(n.Headers, ","))...)),
		answer(200, fields...),
	}
}

func TestNeedOfIsEnoughAndNoMoreForMends(t *testing.T) {
	auth := browser.Header{{Name: "Authorization", Value: "Bearer x"}, {Name: "X-Request-ID", Value: "7"}, {Name: "Accept", Value: "text/html"}}
	post := fetched(api, "POST", browser.Header{{Name: "Content-Type", Value: "application/json"}})
	post.Request.Body = &browser.Body{Kind: "text", Text: "{}"}
	upload := explain.Question{Page: browser.Page{URL: page}, Request: browser.Request{
		API: browser.XHR, URL: api, Method: "POST", UploadListener: true, Body: &browser.Body{Kind: "text", Text: "x"},
	}}
	noCORS := fetched(api, "GET", auth)
	noCORS.Request.Mode = "no-cors"
	ok := []string{"Access-Control-Allow-Origin", "https://app.example"}
	for _, c := range []struct {
		name                string
		q                   explain.Question
		rules               []browser.Rule
		fails               browser.CORSError
		methods, headers    string
		preflight, noCORSOK bool
	}{
		{name: "nothing at all", q: fetched(api, "GET", nil), rules: []browser.Rule{answer(200)}, fails: browser.MissingAllowOriginHeader, methods: "GET"},
		{name: "an origin with a slash", q: fetched(api, "", nil), rules: []browser.Rule{answer(200, "Access-Control-Allow-Origin", "https://app.example/")}, fails: browser.AllowOriginMismatch, methods: "GET"},
		{name: "a star and credentials", q: withCredentials(fetched(api, "GET", nil)), rules: []browser.Rule{answer(200, "Access-Control-Allow-Origin", "*")}, fails: browser.WildcardOriginNotAllowed, methods: "GET"},
		{name: "no credentials granted", q: withCredentials(fetched(api, "GET", nil)), rules: []browser.Rule{answer(200, ok...)}, fails: browser.InvalidAllowCredentials, methods: "GET"},
		{name: "JSON", q: post, rules: []browser.Rule{answer(404)}, fails: browser.PreflightMissingAllowOriginHeader, methods: "POST", headers: "content-type", preflight: true},
		{name: "authentication before the preflight", q: withCredentials(fetched(api, "PUT", auth)), rules: []browser.Rule{answer(401, append(ok, "Access-Control-Allow-Credentials", "true")...)}, fails: browser.PreflightInvalidStatus, methods: "PUT", headers: "authorization x-request-id", preflight: true},
		{name: "a method too few", q: fetched(api, "DELETE", nil), rules: []browser.Rule{answer(200, ok...)}, fails: browser.MethodDisallowedByPreflightResponse, methods: "DELETE", preflight: true},
		{name: "a header too few", q: fetched(api, "GET", auth), rules: []browser.Rule{answer(200, append(ok, "Access-Control-Allow-Headers", "authorization")...)}, fails: browser.HeaderDisallowedByPreflightResponse, methods: "GET", headers: "authorization x-request-id", preflight: true},
		{name: "the preflight passes, the answer lacks the header", q: fetched(api, "PUT", auth), rules: []browser.Rule{
			on("preflight", answer(204, append(ok, "Access-Control-Allow-Methods", "PUT", "Access-Control-Allow-Headers", "authorization, x-request-id")...)), answer(500),
		}, fails: browser.MissingAllowOriginHeader, methods: "PUT", headers: "authorization x-request-id", preflight: true},
		{name: "an upload listener", q: upload, rules: []browser.Rule{answer(405)}, fails: browser.PreflightMissingAllowOriginHeader, methods: "POST", preflight: true},
		{name: "no-cors", q: noCORS, rules: []browser.Rule{answer(200)}, methods: "GET", headers: "authorization x-request-id", noCORSOK: true},
		{name: "a redirect to a login", q: fetched(api, "PUT", nil), rules: []browser.Rule{answer(302, "Location", "/login?next=items")}, fails: browser.PreflightDisallowedRedirect, methods: "PUT", preflight: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			trace := ask(t, c.q, c.rules...)
			if trace.Verdict.CORS != c.fails {
				t.Fatalf("it fails with %q, not %q", trace.Verdict.CORS, c.fails)
			}
			n, needed := explain.NeedOf(c.q, trace)
			if !needed || n.Origin != "https://app.example" || n.API != "https://api.example" ||
				strings.Join(n.Methods, " ") != c.methods || strings.Join(n.Headers, " ") != c.headers ||
				n.Preflight != c.preflight || n.Credentials != (c.q.Request.Credentials == "include") {
				t.Errorf("%v %+v", needed, n)
			}
			mends(t, n)
			if c.noCORSOK {
				c.q.Request.Mode = "cors"
			}
			if v := ask(t, c.q, granting(n)...).Verdict; v.Outcome != browser.Readable {
				t.Errorf("granted, it is still %+v", v)
			}
		})
	}
}

func TestNeedOfIsNothingWhereNoHeaderMends(t *testing.T) {
	sandboxed := fetched(api, "GET", nil)
	sandboxed.Page.Sandboxed = true
	sameOrigin := fetched(api, "GET", nil)
	sameOrigin.Request.Mode = "same-origin"
	csp := fetched(api, "GET", nil)
	csp.Page.CSP = "connect-src 'self'"
	for name, c := range map[string]struct {
		q     explain.Question
		rules []browser.Rule
	}{
		"it works":      {fetched(api, "GET", nil), granting(simpleNeed)},
		"sandbox":       {sandboxed, []browser.Rule{answer(200)}},
		"mode":          {sameOrigin, []browser.Rule{answer(200)}},
		"CSP":           {csp, []browser.Rule{answer(200)}},
		"mixed content": {fetched("http://api.example/items", "GET", nil), []browser.Rule{answer(200)}},
		"no answer":     {fetched(api, "GET", nil), []browser.Rule{{Answer: browser.Answer{Failure: "net::ERR_CONNECTION_REFUSED"}}}},
		"other URL":     {fetched(api, "PUT", nil), []browser.Rule{answer(301, "Location", "https://api.example/v2/items")}},
		"slash":         {fetched(api, "PUT", nil), []browser.Rule{answer(307, "Location", "/items/")}},
		"redirect taint": {fetched(api, "GET", nil), []browser.Rule{
			at(api, answer(302, "Location", "https://other.example/x", "Access-Control-Allow-Origin", "https://app.example")),
			at("https://other.example/x", answer(200)),
		}},
	} {
		if n, ok := explain.NeedOf(c.q, ask(t, c.q, c.rules...)); ok {
			t.Errorf("%s: %+v", name, n)
		}
	}
}

func TestMendChanges(t *testing.T) {
	allowed := []string{"Access-Control-Allow-Origin", "https://app.example", "Access-Control-Allow-Credentials", "true"}
	put := fetched(api, "PUT", nil)
	get := fetched(api, "GET", nil)
	page := func(change func(*browser.Page), q explain.Question) explain.Question { change(&q.Page); return q }
	request := func(change func(*browser.Request), q explain.Question) explain.Question { change(&q.Request); return q }
	cookie := func(line string) explain.Question {
		q := withCredentials(get)
		q.Cookies = []browser.Seed{{URL: "https://api.example/login", SetCookie: line, Age: 600}}
		return q
	}
	for _, c := range []struct {
		name    string
		q       explain.Question
		rules   []browser.Rule
		codes   string
		example string
		text    string
	}{
		{"it works", get, granting(simpleNeed), "", "", ""},
		{"only a header is missing", get, []browser.Rule{answer(200)}, "", "", ""},
		{
			"a slash is added", put,
			[]browser.Rule{answer(307, "Location", "/items/")},
			"preflight-redirect", `fetch("https://api.example/items/", …)`, "slash",
		},
		{
			"http goes to https", page(func(p *browser.Page) { p.URL = "http://app.example/" }, fetched("http://api.example/items?a=1", "PUT", nil)),
			[]browser.Rule{answer(301, "Location", "https://api.example/items?a=1")},
			"preflight-redirect", `fetch("https://api.example/items?a=1", …)`, "https",
		},
		{
			"another host", put,
			[]browser.Rule{answer(301, "Location", "https://www.api.example/items")},
			"preflight-redirect", `fetch("https://www.api.example/items", …)`, "www.api.example",
		},
		{
			"moved", put,
			[]browser.Rule{answer(308, "Location", "https://u:p@api.example/v2/\"x")},
			"preflight-redirect", `fetch("https://api.example/v2/%22x", …)`, "moved",
		},
		{"a login", put, []browser.Rule{answer(302, "Location", "https://login.example/?next=x")}, "preflight-login", "", "before"},
		{"401", put, []browser.Rule{answer(401, allowed...)}, "preflight-auth", "", "status 401"},
		{"405", put, []browser.Rule{answer(405, allowed...)}, "preflight-route", "", "status 405"},
		{"500", put, []browser.Rule{answer(500, allowed...)}, "preflight-status", "", "status 500"},
		{"an error without the headers", get, []browser.Rule{answer(502)}, "error-answer", "", "status 502"},
		{
			"two layers", get,
			[]browser.Rule{answer(200, "Access-Control-Allow-Origin", "https://app.example", "Access-Control-Allow-Origin", "*")},
			"two-layers", "", `"https://app.example, *"`,
		},
		{"a star and credentials", withCredentials(get), []browser.Rule{answer(200, "Access-Control-Allow-Origin", "*")}, "no-credentials", `credentials: "omit"`, ""},
		{"lower case", fetched(api, "patch", nil), []browser.Rule{answer(200, append(allowed, "Access-Control-Allow-Methods", "PATCH")...)}, "method-case", `method: "PATCH"`, ""},
		{
			"user and password in a redirect", get,
			[]browser.Rule{answer(302, append(allowed, "Location", "https://u:p@other.example/")...)},
			"redirect-credentials", "", "",
		},
		{"mode same-origin", request(func(r *browser.Request) { r.Mode = "same-origin" }, get), nil, "mode-same-origin", `mode: "cors"`, ""},
		{"mode no-cors", request(func(r *browser.Request) { r.Mode = "no-cors" }, get), []browser.Rule{answer(200)}, "mode-no-cors", `mode: "cors"`, ""},
		{"a sandbox", page(func(p *browser.Page) { p.Sandboxed = true }, get), []browser.Rule{answer(200)}, "sandbox", "", "anybody"},
		{
			"a tainted redirect", get,
			[]browser.Rule{at(api, answer(302, append(allowed, "Location", "https://other.example/x")...)), answer(200)},
			"redirect-taint", `fetch("https://other.example/x", …)`, "anybody",
		},
		{"mixed content", fetched("http://api.example/items", "GET", nil), nil, "mixed-content", `fetch("https://api.example/items", …)`, ""},
		{"the local network", fetched("http://192.168.0.7/", "GET", nil), nil, "local-network-permission", "", "permission"},
		{"the local network, secure", fetched("https://192.168.0.7/", "GET", nil), nil, "local-network-permission", "", "permission"},
		{
			"CSP", page(func(p *browser.Page) { p.CSP = "default-src 'self'; img-src *" }, get),
			nil, "csp", "Content-Security-Policy: default-src 'self'; img-src *; connect-src 'self' https://api.example", "",
		},
		{
			"CSP with none", page(func(p *browser.Page) { p.CSP = "Connect-Src 'none' ;img-src *" }, get),
			nil, "csp", "Content-Security-Policy: connect-src https://api.example; img-src *", "",
		},
		{
			"CORP", request(func(r *browser.Request) { r.API = browser.Image }, get),
			[]browser.Rule{answer(200, "Cross-Origin-Resource-Policy", "same-site")},
			"corp", "Cross-Origin-Resource-Policy: cross-origin", "same-site",
		},
		{
			"COEP", page(func(p *browser.Page) { p.COEP = "require-corp" }, request(func(r *browser.Request) { r.API = browser.Image }, get)),
			[]browser.Rule{answer(200)},
			"corp", "Cross-Origin-Resource-Policy: cross-origin", "crossorigin",
		},
		{
			"ORB", request(func(r *browser.Request) { r.API = browser.Script }, get),
			[]browser.Rule{answer(200, "Content-Type", "application/json", "X-Content-Type-Options", "nosniff")},
			"orb", `fetch("https://api.example/items", …)`, "",
		},
		{"no answer", get, []browser.Rule{{Answer: browser.Answer{Failure: "net::ERR_CERT_DATE_INVALID"}}}, "network", "", "certificate"},
		{
			"headers of answers", fetched(api, "GET", browser.Header{{Name: "Access-Control-Allow-Origin", Value: "*"}, {Name: "Content-Type", Value: "application/json"}}),
			[]browser.Rule{answer(200)},
			"response-header-sent needless-header", "", "grants nothing",
		},
		{"a Lax cookie", cookie("id=secret; Path=/; SameSite=Lax; HttpOnly"), granting(fullNeed), "cookie-samesite", "Set-Cookie: id=…; Path=/; HttpOnly; Secure; SameSite=None", "SameSite=Lax"},
		{"a cookie without SameSite", cookie("id=secret"), []browser.Rule{answer(200)}, "cookie-samesite", "Set-Cookie: id=…; Secure; SameSite=None", "Chromium"},
		{"a cookie that travels", cookie("id=secret; Secure; SameSite=None"), granting(fullNeed), "", "", ""},
		{"a cookie of another host", func() explain.Question {
			q := cookie("id=secret")
			q.Cookies[0].URL = "https://other.example/"
			return q
		}(), granting(fullNeed), "", "", ""},
		{"a Lax cookie and no credentials", func() explain.Question { q := cookie("id=secret"); q.Request.Credentials = "omit"; return q }(), granting(fullNeed), "", "", ""},
		{"a Lax cookie of the page's own site", func() explain.Question {
			q := cookie("id=secret; SameSite=Lax")
			q.Page.URL = "https://www.api.example/"
			return q
		}(), []browser.Rule{answer(200)}, "", "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			trace := ask(t, c.q, c.rules...)
			var codes []string
			var text, example string
			for _, change := range explain.Changes(c.q, trace) {
				codes = append(codes, change.Code)
				text += change.Title + change.Text
				example += change.Example
				if change.Who == "" || change.Title == "" || change.Text == "" || (change.Language == "") != (change.Example == "") {
					t.Errorf("%+v", change)
				}
			}
			if strings.Join(codes, " ") != c.codes || !strings.Contains(text, c.text) || c.example != "" && example != c.example {
				t.Errorf("%q\n%s\n%s\nverdict %+v", codes, text, example, trace.Verdict)
			}
			if strings.Contains(text+example, "secret") || strings.ContainsRune(text+example, 0x1b) {
				t.Errorf("it tells too much: %q", text+example)
			}
		})
	}
}

func TestMendedCSPAllowsTheRequest(t *testing.T) {
	for _, policy := range []string{
		"default-src 'none'", "default-src https://cdn.example; connect-src 'self'", "connect-src", "img-src *; connect-src 'self'; connect-src 'none'",
		";;connect-src  wss://x.example ", "default-src 'self'; script-src 'self'",
	} {
		q := fetched(api, "GET", nil)
		q.Page.CSP = policy
		changes := explain.Changes(q, ask(t, q))
		if len(changes) != 1 || changes[0].Code != "csp" {
			t.Fatalf("%q: %+v", policy, changes)
		}
		q.Page.CSP = strings.TrimPrefix(changes[0].Example, "Content-Security-Policy: ")
		if v := ask(t, q, granting(simpleNeed)...).Verdict; v.Outcome != browser.Readable {
			t.Errorf("%q was mended to %q, and still: %+v", policy, q.Page.CSP, v)
		}
	}
}
