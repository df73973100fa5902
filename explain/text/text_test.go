package text_test

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/moat-gateway/moat/browser"
	"github.com/moat-gateway/moat/explain"
	"github.com/moat-gateway/moat/explain/text"
)

var update = flag.Bool("update", false, "write the golden files")

var now = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)

func question(api browser.API, method, target string, header ...browser.Field) explain.Question {
	return explain.Question{
		Page:    browser.Page{URL: "https://app.example"},
		Request: browser.Request{API: api, Method: method, URL: target, Header: header},
	}
}

func answers(status int, header ...browser.Field) browser.Server {
	return func(m browser.Message) browser.Answer {
		if !m.Preflight && status == 0 {
			return browser.Answer{Failure: explain.Withheld + "nobody asked for it"}
		}
		return browser.Answer{Status: max(status, 200), Header: header}
	}
}

func explained(t testing.TB, q explain.Question, s browser.Server) *explain.Explanation {
	t.Helper()
	e, err := explain.Explain(q, s, now, "")
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// items is a JSON POST with cookies.
func items() explain.Question {
	q := question(browser.Fetch, "POST", "https://api.example/v1/items", browser.Field{Name: "Content-Type", Value: "application/json"})
	q.Request.Credentials, q.Request.Body = "include", &browser.Body{Kind: "text", Text: "{}"}
	return q
}

func cases(t testing.TB) map[string]*explain.Explanation {
	allow := browser.Field{Name: "Access-Control-Allow-Origin", Value: "https://app.example"}
	credentials := browser.Field{Name: "Access-Control-Allow-Credentials", Value: "true"}
	long := question(browser.Fetch, "", "https://api.example/"+strings.Repeat("long/", 60)+"?q="+strings.Repeat("x", 300))
	policy, err := explain.Setting{Now: now}.ExplainPolicy(question(browser.Fetch, "", "https://api.example/items"), func(browser.Message) explain.Ruling {
		return explain.Ruling{Refused: true, Answer: browser.Answer{Status: 403}, Steps: []explain.GateStep{
			{Request: "GET /items", Step: "host", Outcome: "allow", Code: "ok", Where: "moat.yaml:2:17", Field: "public_origins", Written: "public_origins: [https://api.example]"},
			{
				Request: "GET /items", Step: "cors", Mode: "enforce", Outcome: "deny", Code: "cors-origin-not-allowed", Cause: "A page of an origin that the policy does not list made the request.",
				Seen: `Origin: "https://app.example"`, Want: "an origin of the policy's list", Field: "policies.pages.origins", Fix: "If the page is yours, add its origin to the policy's origins.",
			},
			{Request: "GET /items", Step: "bounds", Mode: "enforce", Outcome: "not reached"},
		}}
	})
	if err != nil {
		t.Fatal(err)
	}
	return map[string]*explain.Explanation{
		"preflight-blocked": explained(t, items(), answers(404, browser.Field{Name: "Server", Value: "nginx/1.29"})),
		"answer-blocked":    explained(t, question(browser.Fetch, "", "https://api.example/v1/items"), answers(200, browser.Field{Name: "Access-Control-Allow-Origin", Value: "https://www.app.example"})),
		"allowed":           explained(t, items(), answers(201, allow, credentials, browser.Field{Name: "Access-Control-Allow-Headers", Value: "content-type"})),
		"not-sent":          explained(t, items(), answers(0, allow, credentials, browser.Field{Name: "Access-Control-Allow-Headers", Value: "content-type"})),
		"no-answer": explained(t, question(browser.Fetch, "", "https://api.example/"), func(browser.Message) browser.Answer {
			return browser.Answer{Failure: "net::ERR_CERT_DATE_INVALID"}
		}),
		"before-sending": explained(t, question(browser.Fetch, "", "http://api.example/items"), answers(200)),
		"long":           explained(t, long, answers(200, browser.Field{Name: "Access-Control-Allow-Origin", Value: "https://" + strings.Repeat("a", 300) + ".example"})),
		"console": explain.ExplainDiagnosis(explain.Diagnosis{
			Browser: "chrome", CORS: browser.MissingAllowOriginHeader, URL: "https://api.example/items", Origin: "https://app.example", API: browser.Fetch, Text: "Access to fetch at …",
		}),
		"policy": policy,
	}
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name+".txt")
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%s is other than reviewed (%v); go test ./explain/text -update\n%s", path, err, got)
	}
}

func TestTextIsAsReviewed(t *testing.T) {
	for name, e := range cases(t) {
		var b bytes.Buffer
		if err := text.Write(&b, e, text.Options{}); err != nil {
			t.Fatal(err)
		}
		golden(t, name, b.Bytes())
	}
	e := cases(t)["preflight-blocked"]
	for name, o := range map[string]text.Options{
		"narrow": {Width: 60},
		"ascii":  {ASCII: true, For: []explain.Target{explain.ForMoat}},
		"color":  {Color: true, Width: 100, For: []explain.Target{explain.ForCaddy}},
	} {
		var b bytes.Buffer
		if err := text.Write(&b, e, o); err != nil {
			t.Fatal(err)
		}
		golden(t, name, b.Bytes())
	}
}

// What the documents show is what comes out.
func TestDocumentsShowRealOutput(t *testing.T) {
	e := cases(t)["preflight-blocked"]
	var b bytes.Buffer
	if err := text.Write(&b, e, text.Options{}); err != nil {
		t.Fatal(err)
	}
	for path, until := range map[string]string{
		"../../docs/explain.md": "\n    # In the http block.",
		"../../README.md":       "\nWhat failed",
	} {
		doc, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		shown, _, _ := strings.Cut(b.String(), until)
		if !strings.Contains(string(doc), shown) {
			t.Errorf("%s does not show\n%s", path, shown)
		}
	}
}

func TestLinesAreAsReviewed(t *testing.T) {
	var b bytes.Buffer
	all := cases(t)
	list := []*explain.Explanation{all["allowed"], all["preflight-blocked"], all["not-sent"]}
	for i, e := range list {
		if err := text.Line(&b, "#"+string(rune('0'+i))+" "+e.Question.Request.Method+" "+e.Question.Request.URL, e, text.Options{}); err != nil {
			t.Fatal(err)
		}
	}
	if err := text.Count(&b, list, text.Options{}); err != nil {
		t.Fatal(err)
	}
	golden(t, "lines", b.Bytes())
}

// No line but code and links is wider than the terminal.
func TestWidthIsRespected(t *testing.T) {
	for name, e := range cases(t) {
		for _, width := range []int{60, 72, 80, 100} {
			var b bytes.Buffer
			if err := text.Write(&b, e, text.Options{Width: width}); err != nil {
				t.Fatal(err)
			}
			code := map[string]bool{}
			for _, m := range e.Mends {
				for l := range strings.Lines(m.Code) {
					code[strings.TrimSpace(l)] = true
				}
			}
			for _, c := range e.Changes {
				code[c.Example] = true
			}
			for l := range strings.Lines(b.String()) {
				l = strings.TrimRight(l, "\n")
				if utf8.RuneCountInString(l) > width && !code[strings.TrimSpace(l)] && !strings.Contains(l, "https://") && !strings.Contains(l, "docs/") {
					t.Errorf("%s at %d: %d columns: %s", name, width, utf8.RuneCountInString(l), l)
				}
			}
		}
	}
}

func TestStrangersCannotSteerTheTerminal(t *testing.T) {
	e := &explain.Explanation{
		Summary: "a\x1b[31mb\u009b31mc\u202ed\u061ce\u2066f\U000e0041g\ufff9h",
		Notes:   []string{"n\u180eo\u200fp"},
	}
	var b strings.Builder
	if err := text.Write(&b, e, text.Options{}); err != nil {
		t.Fatal(err)
	}
	if got := b.String(); !strings.Contains(got, "a[31mb31mcdefgh\n") || !strings.Contains(got, "nop") {
		t.Errorf("%q", got)
	}
}

func TestASCIIIsASCII(t *testing.T) {
	for name, e := range cases(t) {
		var b bytes.Buffer
		if err := text.Write(&b, e, text.Options{ASCII: true}); err != nil {
			t.Fatal(err)
		}
		if i := strings.IndexFunc(b.String(), func(r rune) bool { return r >= 0x80 || r < ' ' && r != '\n' && r != '\t' }); i >= 0 {
			t.Errorf("%s: %q", name, b.String()[i:min(i+20, b.Len())])
		}
	}
}

func TestColourIsOnlyWhereAllowed(t *testing.T) {
	for name, e := range cases(t) {
		var plain, colored bytes.Buffer
		if err := text.Write(&plain, e, text.Options{}); err != nil {
			t.Fatal(err)
		}
		if err := text.Write(&colored, e, text.Options{Color: true}); err != nil {
			t.Fatal(err)
		}
		if strings.Contains(plain.String(), "\x1b") || !strings.Contains(colored.String(), "\x1b[") {
			t.Errorf("%s: escape sequences", name)
		}
	}
}

// The server of the answer, if its header tells, is the one that gets its change written.
func TestTheServerThatAnsweredIsMended(t *testing.T) {
	for header, want := range map[browser.Field]string{
		{Name: "Server", Value: "nginx/1.29.1"}:     "add_header Access-Control-Allow-Origin",
		{Name: "Server", Value: "Caddy"}:            "header_down",
		{Name: "X-Powered-By", Value: "Express"}:    `require("cors")`,
		{Name: "Server", Value: "uvicorn"}:          "CORSMiddleware",
		{Name: "Server", Value: "openresty/1.0"}:    "proxy_hide_header",
		{Name: "Server", Value: "something\x1b[2J"}: "To have it written down for your server: --for",
	} {
		var b bytes.Buffer
		if err := text.Write(&b, explained(t, items(), answers(404, header)), text.Options{}); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(b.String(), want) || strings.Contains(b.String(), "\x1b") {
			t.Errorf("%v: no %q in\n%s", header, want, b.String())
		}
	}
}

// What servers and pages write does not reach the terminal as a command.
func FuzzText(f *testing.F) {
	f.Add("https://api.example/\x1b[2J", "X-A", "\u202e", 200, "Access-Control-Allow-Origin", "\x07", 80)
	f.Fuzz(func(t *testing.T, target, name, value string, status int, n1, v1 string, width int) {
		e, err := explain.Explain(question(browser.Fetch, "PUT", target, browser.Field{Name: name, Value: value}), answers(status, browser.Field{Name: n1, Value: v1}), now, "")
		if err != nil {
			return
		}
		var b bytes.Buffer
		if err := text.Write(&b, e, text.Options{Width: width, For: explain.Targets()}); err != nil {
			t.Fatal(err)
		}
		if i := strings.IndexFunc(b.String(), func(r rune) bool {
			return r < ' ' && r != '\n' && r != '\t' || r >= 0x7f && r < 0xa0 || r == 0x202e
		}); i >= 0 {
			t.Fatalf("%q", b.String()[i:])
		}
	})
}
