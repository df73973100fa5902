package page_test

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/moat-gateway/moat/browser"
	"github.com/moat-gateway/moat/explain/web/page"
)

var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func call[T any](t *testing.T, name, input string) T {
	t.Helper()
	var answer T
	if err := json.Unmarshal([]byte(page.Call(name, input, now)), &answer); err != nil {
		t.Fatal(err)
	}
	return answer
}

type failure struct{ Error string }

func asJSON(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestPresetsComeToWhatTheyTeach(t *testing.T) {
	b, err := os.ReadFile("../presets.json")
	if err != nil {
		t.Fatal(err)
	}
	var presets []struct {
		Title string
		Case  browser.Case
	}
	if err = json.Unmarshal(b, &presets); err != nil {
		t.Fatal(err)
	}
	for _, p := range presets {
		a := call[page.Answer](t, "explain", asJSON(t, p.Case))
		if a.Explanation == nil {
			t.Errorf("%s: no explanation: %s", p.Title, page.Call("explain", asJSON(t, p.Case), now))
			continue
		}
		got, want := a.Explanation.Trace.Verdict, p.Case.Want[0].Verdict
		if got.Outcome != want.Outcome || got.Script != want.Script || got.CORS != want.CORS || got.NetError != want.NetError {
			t.Errorf("%s: %+v, want %+v", p.Title, got, want)
		}
		if (got.CORS != "") != (a.Error != nil) {
			t.Errorf("%s: verdict %q and what is said of it: %+v", p.Title, got.CORS, a.Error)
		}
		if again := call[page.Answer](t, "explain", asJSON(t, a.Case)); again.Explanation.Summary != a.Explanation.Summary {
			t.Errorf("%s: the case in the answer says %q, not %q", p.Title, again.Explanation.Summary, a.Explanation.Summary)
		}
	}
}

// A pasted error is shown as a situation in which the model says just the same.
func TestPastedErrorsAreReconstructed(t *testing.T) {
	for _, name := range browser.CORSErrors() {
		facts := browser.ConsoleFacts{
			Error: name, API: browser.Fetch, URL: "https://api.example/x", Origin: "https://app.example",
			Parameter: parameters[name], Space: browser.Local,
		}
		if name == browser.InsecureLocalNetwork {
			facts.Origin, facts.URL = "http://app.example", "http://api.example/x"
		}
		p := call[page.Pasted](t, "paste", facts.Text())
		if p.Kind != "error" || len(p.Findings) != 1 || len(p.Findings[0].Readings) != 1 {
			t.Errorf("%s: %+v", name, p)
			continue
		}
		r := p.Findings[0].Readings[0]
		if r.Error == nil || r.Error.Name != name {
			t.Errorf("%s: read as %+v", name, r.Error)
		}
		if unrepeatable[name] {
			continue
		}
		if r.Case == nil {
			t.Errorf("%s: no case that comes to it", name)
			continue
		}
		a := call[page.Answer](t, "explain", asJSON(t, r.Case))
		if a.Explanation == nil || a.Explanation.Trace.Verdict.CORS != name {
			t.Errorf("%s: the case comes to %+v", name, a.Explanation)
		}
	}
}

var parameters = map[browser.CORSError]string{
	browser.MultipleAllowOriginValues:           "https://app.example, *",
	browser.PreflightMultipleAllowOriginValues:  "https://app.example, *",
	browser.InvalidAllowOriginValue:             "app.example",
	browser.PreflightInvalidAllowOriginValue:    "app.example",
	browser.AllowOriginMismatch:                 "https://b.example",
	browser.PreflightAllowOriginMismatch:        "https://b.example",
	browser.InvalidAllowCredentials:             "True",
	browser.PreflightInvalidAllowCredentials:    "True",
	browser.MethodDisallowedByPreflightResponse: "DELETE",
	browser.HeaderDisallowedByPreflightResponse: "x-a",
}

// unrepeatable hang on what a case does not hold.
var unrepeatable = map[browser.CORSError]bool{
	browser.CorsDisabledScheme:        true, // the URL is none of http or https
	browser.InvalidLocalNetworkAccess: true, // the call's targetAddressSpace
}

func TestPasteReadsOtherThings(t *testing.T) {
	for text, want := range map[string]struct{ kind, label, says string }{
		"curl https://api.example/x -H 'Origin: https://app.example'": {"curl", "GET https://api.example/x", "never heard of CORS"},
		`fetch("https://api.example/x", {method: "PUT"})`:             {"fetch", "PUT https://api.example/x", "https://app.example/ is assumed"},
		"https://api.example/x":                                       {"url", "GET https://api.example/x", "is assumed"},
	} {
		p := call[page.Pasted](t, "paste", text)
		if p.Kind != want.kind || len(p.Findings) != 1 || p.Findings[0].Label != want.label || len(p.Findings[0].Readings) != 1 {
			t.Errorf("%s: %+v", text, p)
			continue
		}
		r := p.Findings[0].Readings[0]
		if r.Case == nil || !strings.Contains(strings.Join(r.Notes, " "), want.says) {
			t.Errorf("%s: %+v", text, r)
		}
	}
	for text, title := range map[string]string{
		"Uncaught (in promise) TypeError: Failed to fetch":     "The text does not say why",
		"GET https://api.example/x net::ERR_NAME_NOT_RESOLVED": "There was no answer",
		"(blocked:csp)": "The page's own Content-Security-Policy forbids it",
	} {
		p := call[page.Pasted](t, "paste", text)
		if len(p.Findings) != 1 || p.Findings[0].Other == nil || p.Findings[0].Other.Title != title {
			t.Errorf("%s: %+v", text, p)
		}
	}
}

func TestWhatIsSharedHoldsNoSecret(t *testing.T) {
	const secret = "c2VjcmV0c2VjcmV0c2VjcmV0"
	const api = "https://api.example/?access_token=" + secret
	c := browser.Case{
		Page: browser.Page{URL: "https://app.example/"},
		Requests: []browser.Request{{
			API: browser.Fetch, URL: api, Method: "POST",
			Header: browser.Header{{Name: "Authorization", Value: "Bearer " + secret}}, Body: &browser.Body{Kind: "text", Text: secret},
		}},
		Answers: []browser.Rule{{URL: api, Answer: browser.Answer{Status: 302, Header: browser.Header{
			{Name: "Set-Cookie", Value: "s=" + secret}, {Name: "Location", Value: api},
		}}}},
	}
	c.Browser.Cookies = []browser.Seed{{URL: "https://api.example/", SetCookie: "s=" + secret + "; Secure"}}
	a := call[page.Answer](t, "explain", asJSON(t, c))
	if text := asJSON(t, a.Case); a.Explanation == nil || strings.Contains(text, secret) {
		t.Errorf("the secret is in %s", text)
	}
	f := call[page.Pasted](t, "paste", "Fetch API cannot load "+api+". Access to fetch at '"+api+"' from origin 'https://app.example' has been blocked by CORS policy: No 'Access-Control-Allow-Origin' header is present on the requested resource.").Findings[0]
	if f.Diagnosis == nil || f.Share == "" || strings.Contains(f.Share, secret) {
		t.Errorf("the secret is in %q", f.Share)
	}
	again := call[page.Pasted](t, "paste", f.Share).Findings[0]
	if again.Diagnosis.CORS != f.Diagnosis.CORS || again.Share != f.Share {
		t.Errorf("%q is read as %+v", f.Share, again)
	}
}

// Of a sequence, each request has the answer that the server gave to it, and finds what the
// ones before it left behind.
func TestPlayGoesThroughASequence(t *testing.T) {
	const url = "https://api.example/x"
	allow := browser.Header{{Name: "Access-Control-Allow-Origin", Value: "https://app.example"}, {Name: "Access-Control-Allow-Headers", Value: "authorization"}}
	put := browser.Request{API: browser.Fetch, URL: url, Header: browser.Header{{Name: "Authorization", Value: "Bearer a"}}}
	c := browser.Case{
		Page:     browser.Page{URL: "https://app.example/"},
		Requests: []browser.Request{put, put, put},
		Answers: []browser.Rule{
			{URL: url, On: "preflight", Answer: browser.Answer{Status: 204, Header: allow}},
			{URL: url, On: "actual", Answer: browser.Answer{Status: 200, Header: allow}},
			{URL: url, On: "actual", Answer: browser.Answer{Status: 429, Header: allow}},
		},
	}
	traces := call[page.Played](t, "play", asJSON(t, c)).Traces
	if len(traces) != 3 {
		t.Fatalf("%d traces, want 3", len(traces))
	}
	for i, want := range []struct {
		exchanges int
		script    string
	}{{2, "cors 200"}, {1, "cors 429"}, {1, "cors 429"}} {
		if got := traces[i]; len(got.Exchanges) != want.exchanges || got.Verdict.Script != want.script {
			t.Errorf("request %d: %d exchanges, %q; want %d, %q", i, len(got.Exchanges), got.Verdict.Script, want.exchanges, want.script)
		}
	}
}

func TestCallRefuses(t *testing.T) {
	many := `{"page":{"url":"https://app.example/"},"requests":[{"api":"fetch","url":"/"}],"answers":[{"answer":{"headers":[` + strings.Repeat(`["a","b"],`, 300) + `["a","b"]]}}]}`
	for name, c := range map[string]struct{ function, input, want string }{
		"no function":   {"run", "", "no function"},
		"no JSON":       {"explain", "<script>", "no case"},
		"unknown field": {"explain", `{"pages":{}}`, "unknown field"},
		"no request":    {"explain", `{"page":{"url":"https://app.example/"}}`, "0 requests"},
		"no page":       {"explain", `{"requests":[{"api":"fetch","url":"/"}]}`, "which page"},
		"no API":        {"explain", `{"page":{"url":"https://app.example/"},"requests":[{"api":3,"url":"/"}]}`, "no case"},
		"profile":       {"explain", `{"page":{"url":"https://app.example/"},"browser":{"profile":"lynx"},"requests":[{"api":"fetch","url":"/"}]}`, "lynx"},
		"many":          {"explain", many, "301 entries"},
		"large":         {"explain", strings.Repeat(" ", 300<<10), "more than"},
		"nothing":       {"paste", "", "nothing"},
		"no play":       {"play", `{"page":{"url":"https://app.example/"},"requests":[{"api":"none","url":"/"}]}`, "not known"},
		"long play":     {"play", `{"page":{"url":"https://app.example/"},"requests":[` + strings.Repeat(`{},`, 300) + `{}]}`, "301 entries"},
		"huge":          {"paste", strings.Repeat("x", 9<<20), "more than"},
		"prose":         {"paste", "it does not work", "no error of a browser"},
	} {
		if got := call[failure](t, c.function, c.input); !strings.Contains(got.Error, c.want) {
			t.Errorf("%s: %q lacks %q", name, got.Error, c.want)
		}
	}
}

func FuzzCall(f *testing.F) {
	f.Add("explain", `{"page":{"url":"https://app.example/"},"requests":[{"api":"fetch","url":"https://api.example/"}],"answers":[{"answer":{"status":200}}]}`)
	f.Add("paste", "Access to fetch at 'https://api.example/x' from origin 'null' has been blocked by CORS policy: No 'Access-Control-Allow-Origin' header is present on the requested resource.")
	f.Fuzz(func(t *testing.T, name, input string) {
		out := page.Call(name, input, now)
		if !json.Valid([]byte(out)) {
			t.Errorf("no JSON: %q", out)
		}
		if strings.Contains(out, "moat has a bug here") {
			t.Error(out)
		}
	})
}
