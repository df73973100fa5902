package explain_test

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/moat-gateway/moat/browser"
	"github.com/moat-gateway/moat/explain"
)

var now = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)

const itemsURL = "https://api.example/v1/items"

// asking is a question of script.
func asking(method string, header ...string) explain.Question {
	q := explain.Question{Page: browser.Page{URL: "https://app.example/"}, Request: browser.Request{API: browser.Fetch, URL: itemsURL, Method: method}}
	for i := 0; i+1 < len(header); i += 2 {
		q.Request.Header = append(q.Request.Header, browser.Field{Name: header[i], Value: header[i+1]})
	}
	return q
}

// answers is a server that has one answer.
func answers(status int, header ...string) browser.Server {
	return func(browser.Message) browser.Answer {
		a := browser.Answer{Status: status}
		for i := 0; i+1 < len(header); i += 2 {
			a.Header = append(a.Header, browser.Field{Name: header[i], Value: header[i+1]})
		}
		return a
	}
}

func fails(name string) browser.Server {
	return func(browser.Message) browser.Answer { return browser.Answer{Failure: name} }
}

// preflightsOnly asks the server for preflights, and nobody for the rest.
func preflightsOnly(s browser.Server) browser.Server {
	return func(m browser.Message) browser.Answer {
		if m.Preflight {
			return s(m)
		}
		return browser.Answer{Failure: explain.Withheld + "nobody asked"}
	}
}

func TestExplainSaysWhatBecomesOfIt(t *testing.T) {
	schema := compileSchema(t)
	allow := []string{"Access-Control-Allow-Origin", "https://app.example"}
	with := func(api browser.API, q explain.Question) explain.Question {
		q.Request.API = api
		return q
	}
	mode := func(mode string) explain.Question {
		q := asking("GET")
		q.Request.Mode = mode
		return q
	}
	local := asking("GET")
	local.Request.URL = "https://192.168.1.10/"
	for name, c := range map[string]struct {
		q        explain.Question
		server   browser.Server
		outcome  explain.Outcome
		executed explain.ExecutedAnswer
		summary  string // a part of it
	}{
		"allowed":                  {asking("GET"), answers(200, allow...), explain.Allowed, "yes", "may read the answer, 200 OK"},
		"preflighted":              {asking("PUT"), answers(200, append(allow, "Access-Control-Allow-Methods", "PUT")...), explain.Allowed, "yes", "may read the answer"},
		"refused":                  {asking("GET"), answers(403, allow...), explain.Refused, "yes", "403 Forbidden"},
		"own origin":               {func() explain.Question { q := asking("GET"); q.Request.URL = "/x"; return q }(), answers(200), explain.Allowed, "yes", "own origin"},
		"answer blocked":           {asking("GET"), answers(200), explain.Blocked, "yes", "Blocked after the backend executed it."},
		"preflight blocked":        {asking("PUT"), answers(404), explain.Blocked, "only the preflight", "Blocked before the PUT was sent."},
		"not sent":                 {local, answers(200), explain.Blocked, "no", "Blocked before the GET was sent."},
		"the call throws":          {asking("TRACE"), answers(200), explain.Blocked, "no", "refuses the call itself"},
		"no-cors":                  {mode("no-cors"), answers(200), explain.Allowed, "yes", "mode no-cors hides its answer"},
		"image":                    {with(browser.Image, asking("")), answers(200, "Content-Type", "image/svg+xml"), explain.Blocked, "yes", "of no use to the page"},
		"beacon":                   {with(browser.Beacon, asking("")), answers(204), explain.Allowed, "yes", "never gets an answer"},
		"form":                     {with(browser.Form, asking("POST")), answers(200), explain.Allowed, "yes", "CORS does not apply"},
		"form refused":             {with(browser.Form, asking("POST")), answers(403), explain.Refused, "yes", "403"},
		"websocket":                {with(browser.WebSocket, asking("")), answers(101), explain.Allowed, "yes", "WebSocket opens"},
		"nothing listens":          {asking("GET"), fails("net::ERR_CONNECTION_REFUSED"), explain.Unknown, "no", "nothing listens"},
		"no answer":                {asking("POST"), fails("net::ERR_EMPTY_RESPONSE"), explain.Unknown, "unknown", "without an answer"},
		"no answer to a preflight": {asking("PUT"), fails("net::ERR_TIMED_OUT"), explain.Unknown, "no", "did not answer in time"},
		"not asked":                {asking("GET"), preflightsOnly(answers(200)), explain.Unknown, "no", "No preflight is needed"},
		"only the preflight asked": {asking("PUT"), preflightsOnly(answers(200, append(allow, "Access-Control-Allow-Methods", "PUT")...)), explain.Unknown, "only the preflight", "The preflight is passed"},
		"preflight says no":        {asking("PUT"), preflightsOnly(answers(200)), explain.Blocked, "only the preflight", "lacks Access-Control-Allow-Origin"},
	} {
		t.Run(name, func(t *testing.T) {
			e, err := explain.Explain(c.q, c.server, now, "")
			if err != nil {
				t.Fatal(err)
			}
			validate(t, schema, e)
			if e.Outcome != c.outcome || e.Executed.Answer != c.executed || !strings.Contains(e.Summary, c.summary) {
				t.Errorf("%s, executed %q: %s", e.Outcome, e.Executed.Answer, e.Summary)
			}
			if strings.ContainsAny(e.Summary, "\n") || !strings.HasSuffix(e.Summary, ".") || !strings.HasSuffix(e.Executed.Text, ".") {
				t.Errorf("not a line of sentences: %q, %q", e.Summary, e.Executed.Text)
			}
			if len(e.Lanes) < 2 || e.Lanes[0].From != explain.ThePage {
				t.Errorf("lanes %+v", e.Lanes)
			}
		})
	}
}

func TestExplainNamesWhatCameAndWhatWasNeeded(t *testing.T) {
	header := func(h browser.Header) string {
		var all []string
		for _, f := range h {
			all = append(all, f.Name+": "+f.Value)
		}
		return strings.Join(all, "; ")
	}
	credentialed := asking("PUT", "X-Trace", "1", "Content-Type", "application/json")
	credentialed.Request.Credentials = "include"
	for name, c := range map[string]struct {
		q            explain.Question
		server       browser.Server
		came, needed string
	}{
		"nothing came": {asking("GET"), answers(200), "", "Access-Control-Allow-Origin: https://app.example"},
		"another origin": {
			asking("GET"), answers(200, "access-control-allow-origin", "https://app.example/"),
			"access-control-allow-origin: https://app.example/", "Access-Control-Allow-Origin: https://app.example",
		},
		"all that a preflight needs": {
			credentialed, answers(200, "Access-Control-Allow-Origin", "*"), "Access-Control-Allow-Origin: *",
			"Access-Control-Allow-Origin: https://app.example; Access-Control-Allow-Credentials: true; Access-Control-Allow-Methods: PUT; Access-Control-Allow-Headers: content-type, x-trace",
		},
		"a status": {
			asking("PUT"), answers(401, "Access-Control-Allow-Origin", "https://app.example"),
			":status: 401; Access-Control-Allow-Origin: https://app.example",
			":status: 204; Access-Control-Allow-Origin: https://app.example; Access-Control-Allow-Methods: PUT",
		},
		"a redirect": {asking("PUT"), answers(302, "Location", "https://api.example/login"), ":status: 302; Location: https://api.example/login", ":status: 204; Access-Control-Allow-Origin: https://app.example; Access-Control-Allow-Methods: PUT"},
	} {
		e, err := explain.Explain(c.q, c.server, now, "")
		if err != nil {
			t.Fatal(err)
		}
		if e.Failure == nil || header(e.Failure.Came) != c.came || header(e.Failure.Needed) != c.needed {
			t.Errorf("%s: %+v", name, e.Failure)
		}
		if len(e.Mends) != len(explain.Targets()) {
			t.Errorf("%s: %d mends", name, len(e.Mends))
		}
	}
}

func TestTargetsAreThoseOfMends(t *testing.T) {
	mends, err := explain.Mends(explain.Need{Origin: "https://app.example"})
	if err != nil {
		t.Fatal(err)
	}
	for i, target := range explain.Targets() {
		if i >= len(mends) || mends[i].Target != target {
			t.Fatalf("%v, and the mends are %v", explain.Targets(), mends)
		}
	}
}

func TestExplainRefusesQuestionsWithoutAPage(t *testing.T) {
	q := asking("GET")
	q.Page.URL = ""
	if _, err := explain.Explain(q, answers(200), now, ""); !errors.Is(err, explain.ErrNoPage) {
		t.Errorf("%v", err)
	}
	if _, err := explain.Explain(asking("GET"), answers(200), now, "lynx"); err == nil {
		t.Error("there is no such browser")
	}
	q.Page.URL = "app.example"
	if _, err := explain.Explain(q, answers(200), now, ""); err == nil {
		t.Error("that is no page")
	}
}

func TestExplainKeepsNoSecret(t *testing.T) {
	q := asking("PUT", "Authorization", "Bearer SECRET", "X-Api-Key", "SECRET")
	q.Request.Credentials = "include"
	q.Request.Body = &browser.Body{Kind: "text", Text: "SECRET"}
	q.Cookies = []browser.Seed{{URL: itemsURL, SetCookie: "session=SECRET; Secure; SameSite=None"}}
	var sent []string
	server := func(m browser.Message) browser.Answer {
		sent = append(sent, m.Header.Value("Cookie"), m.Header.Value("Authorization"))
		a := browser.Answer{Status: 200, Header: browser.Header{
			{Name: "Access-Control-Allow-Origin", Value: "https://app.example"},
			{Name: "Access-Control-Allow-Credentials", Value: "true"},
			{Name: "Access-Control-Allow-Methods", Value: "PUT"},
			{Name: "Access-Control-Allow-Headers", Value: "authorization, x-api-key"},
		}}
		if !m.Preflight {
			a.Header = append(a.Header, browser.Field{Name: "Set-Cookie", Value: "id=SECRET; Secure; SameSite=None"})
			a.Body = "SECRET"
		}
		return a
	}
	e, err := explain.Explain(q, server, now, "")
	if err != nil {
		t.Fatal(err)
	}
	if e.Outcome != explain.Allowed || strings.Join(sent, "|") != "||session=SECRET|Bearer SECRET" {
		t.Errorf("%s, sent %q", e.Summary, sent)
	}
	leaks(t, "SECRET", e)
	if q.Request.Header[0].Value != "Bearer SECRET" || q.Request.Body.Text != "SECRET" {
		t.Error("the question was changed")
	}
	e, err = explain.Explain(q, preflightsOnly(server), now, "")
	if err != nil {
		t.Fatal(err)
	}
	leaks(t, "SECRET", e)
	if e.Pending == nil || e.Pending.Header.Value("Cookie") != "session=…" {
		t.Errorf("%+v", e.Pending)
	}
}

func TestExplainKeepsNoSecretOfURLsAndUnknownFields(t *testing.T) {
	const secrets = "?access_token=SECRET&key=SECRET&next=https://u:SECRET@x.example/%3Fcode%3DSECRET#id_token=SECRET"
	q := asking("PUT", "X-Functions-Key", "SECRET", "Ocp-Apim-Whatever", "SECRET")
	q.Page.URL += secrets
	q.Page.Ancestors = []string{"https://top.example/" + secrets}
	q.Request.URL += secrets
	var sent []string
	server := func(m browser.Message) browser.Answer {
		a := answers(200, "Access-Control-Allow-Origin", "*", "Access-Control-Allow-Methods", "*", "Access-Control-Allow-Headers", "*")(m)
		if !m.Preflight && len(sent) == 0 {
			sent = append(sent, m.URL, m.Header.Value("X-Functions-Key"))
			a.Status, a.Header = 307, append(a.Header, browser.Field{Name: "Location", Value: "https://api.example/" + secrets})
		}
		return a
	}
	for name, s := range map[string]browser.Server{
		"allowed": server, "pending": preflightsOnly(server), "blocked": answers(404), "failed": fails("net::ERR_FAILED"),
	} {
		t.Run(name, func(t *testing.T) {
			e, err := explain.Explain(q, s, now, "")
			if err != nil {
				t.Fatal(err)
			}
			leaks(t, "SECRET", e)
		})
	}
	for _, h := range [][]string{{"X Api Key", "SECRET"}, {"X Api Key", strings.Repeat("SECRET", 20)}, {"Authorization", "Bearer SECRET\n\"…\x01"}} {
		e, err := explain.Explain(asking("GET", h...), server, now, "")
		if err != nil {
			t.Fatal(err)
		}
		if e.Executed.Answer != explain.ExecutedNo {
			t.Errorf("%q: %s", h, e.Summary)
		}
		leaks(t, "SECRET", e)
	}
	if len(sent) != 2 || !strings.Contains(sent[0], "key=SECRET") || sent[1] != "SECRET" {
		t.Errorf("the server was sent %q", sent)
	}
	e, err := explain.Setting{Now: now}.ExplainPolicy(q, func(browser.Message) explain.Ruling {
		return explain.Ruling{Answer: browser.Answer{Status: 403}, Refused: true, Steps: []explain.GateStep{{Request: "PUT /v1" + secrets, Seen: "path: /v1" + secrets, Outcome: "deny"}}}
	})
	if err != nil {
		t.Fatal(err)
	}
	leaks(t, "SECRET", e)
	leaks(t, "SECRET", explain.ExplainDiagnosis(explain.Diagnosis{CORS: browser.MissingAllowOriginHeader, URL: itemsURL + secrets, Text: "Access to fetch at '" + itemsURL + secrets + "' has been blocked"}))
}

func TestWithoutSecretsKeepsWhatIsNone(t *testing.T) {
	for text, want := range map[string]string{
		"GET https://api.example/items?page=2&monkey=1#top":              "",
		"see https://fetch.spec.whatwg.org/#cors-check, mail a@b.test":   "",
		`"https://u:p@ss@api.example:bad/" is no URL`:                    `"https://%E2%80%A6@api.example:bad/" is no URL`,
		"'https://api.example/?Token=a' from origin 'https://a.example'": "'https://api.example/?Token=%E2%80%A6' from origin 'https://a.example'",
		"https://a.example/#access_token=a&state=b then more":            "https://a.example/#%E2%80%A6 then more",
	} {
		if want == "" {
			want = text
		}
		if got := explain.WithoutSecrets(text); got != want {
			t.Errorf("%s\n got %s\nwant %s", text, got, want)
		}
	}
}

func TestPendingAsksNoGrantForOriginNull(t *testing.T) {
	q := asking("GET")
	q.Page.Sandboxed = true
	e, err := explain.Explain(q, preflightsOnly(answers(204)), now, "")
	if err != nil {
		t.Fatal(err)
	}
	if e.Pending == nil || len(e.Pending.Needed) > 0 {
		t.Errorf("%+v", e.Pending)
	}
}

func TestExplainSaysThatACookieIsNotKept(t *testing.T) {
	q := asking("GET")
	q.Cookies = []browser.Seed{{URL: itemsURL, SetCookie: "__Host-a=SECRET; Path=/x"}}
	e, err := explain.Explain(q, answers(200), now, "")
	if err != nil {
		t.Fatal(err)
	}
	leaks(t, "SECRET", e)
	if len(e.Notes) == 0 || !strings.Contains(e.Notes[0], "__Host-a") {
		t.Errorf("%q", e.Notes)
	}
}

func TestExplainTakesTheStateOfTheBrowser(t *testing.T) {
	s := explain.Setting{Now: now, Space: func(string) browser.AddressSpace { return browser.Public }}
	q := asking("GET")
	q.Request.URL = "https://192.168.1.10/"
	e, err := s.Explain(q, answers(200, "Access-Control-Allow-Origin", "*"))
	if err != nil || e.Outcome != explain.Allowed {
		t.Errorf("%v %v", e, err)
	}
	s = explain.Setting{Now: now, LocalNetworkAllowed: true}
	if e, err = s.Explain(q, answers(200, "Access-Control-Allow-Origin", "*")); err != nil || e.Outcome != explain.Allowed {
		t.Errorf("%v %v", e, err)
	}
}

func TestExplainSaysThatHTMLIsNoData(t *testing.T) {
	e, err := explain.Explain(asking("GET"), answers(200, "Access-Control-Allow-Origin", "*", "Content-Type", "text/html; charset=utf-8"), now, "")
	if err != nil {
		t.Fatal(err)
	}
	if len(e.Notes) != 1 || !strings.Contains(e.Notes[0], "HTML") {
		t.Errorf("%q", e.Notes)
	}
}

func TestExplainEntryGoesByTheRecording(t *testing.T) {
	schema := compileSchema(t)
	origin := harField("Origin", "https://app.example")
	put := harEntryOf("PUT", "https://api.example/x", origin, 200, harField("Access-Control-Allow-Origin", "https://app.example"))
	preflight := func(answer string) string {
		return harEntryOf("OPTIONS", "https://api.example/x", origin+","+harField("Access-Control-Request-Method", "PUT"), 204, answer)
	}
	for name, c := range map[string]struct {
		file    []byte
		outcome explain.Outcome
		note    string
	}{
		"whole":               {harOf(preflight(harField("Access-Control-Allow-Origin", "https://app.example")+","+harField("Access-Control-Allow-Methods", "PUT")), put), explain.Allowed, ""},
		"no method":           {harOf(preflight(harField("Access-Control-Allow-Origin", "https://app.example")), put), explain.Blocked, ""},
		"preflight cached":    {harOf(put), explain.Allowed, "taken as passed"},
		"preflight alone":     {harOf(preflight(harField("Access-Control-Allow-Origin", "*") + "," + harField("Access-Control-Allow-Methods", "*"))), explain.Unknown, ""},
		"blocked in recorder": {harOf(harEntryOf("GET", "https://api.example/x", origin, 0, "")), explain.Unknown, "recorded no answer"},
	} {
		entries, err := explain.FromHAR(c.file)
		if err != nil {
			t.Fatal(err)
		}
		e, err := explain.ExplainEntry(&entries[0], now, "")
		if err != nil {
			t.Fatal(err)
		}
		validate(t, schema, e)
		if e.Outcome != c.outcome || !strings.Contains(strings.Join(e.Notes, " "), c.note) || e.Source != explain.FromRecord || e.Entry == nil {
			t.Errorf("%s: %s: %s %q", name, e.Outcome, e.Summary, e.Notes)
		}
	}
}

// Every text that is known comes to an explanation, and every one of CORS to a way out.
func TestExplainDiagnosisMendsWhatTheTextTells(t *testing.T) {
	schema := compileSchema(t)
	files, err := filepath.Glob("testdata/paste/console/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		all, err := explain.Decode(string(b))
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range all {
			e := explain.ExplainDiagnosis(d)
			validate(t, schema, e)
			if e.Summary == "" || e.Executed.Text == "" || e.Outcome != explain.Allowed && (e.Failure == nil || len(e.Changes) == 0) {
				t.Errorf("%q is explained by %+v", d.Text, e)
			}
			if d.CORS != "" && (e.Failure.Docs == "" || e.Failure.Link == "") {
				t.Errorf("%q: %+v", d.Text, e.Failure)
			}
		}
	}
	for _, name := range browser.CORSErrors() {
		d := explain.Diagnosis{CORS: name, Origin: "https://app.example", URL: itemsURL, Text: "x"}
		e := explain.ExplainDiagnosis(d)
		validate(t, schema, e)
		if e.Outcome != explain.Blocked || e.Failure.CORS != name {
			t.Errorf("%s: %+v", name, e)
		}
	}
}

func TestExplainDiagnosisOfPreflightHeader(t *testing.T) {
	all, err := explain.Decode("Access to fetch at 'https://api.example/x' from origin 'https://app.example' has been blocked by CORS policy: Request header field x-trace is not allowed by Access-Control-Allow-Headers in preflight response.")
	if err != nil || len(all) != 1 {
		t.Fatal(all, err)
	}
	e := explain.ExplainDiagnosis(all[0])
	b, err := json.Marshal(e.Failure.Needed)
	if err != nil || string(b) != `[["Access-Control-Allow-Headers","x-trace"]]` || e.Executed.Answer != explain.ExecutedPreflight || len(e.Mends) == 0 {
		t.Errorf("%s %v %+v", b, err, e)
	}
	if !strings.Contains(e.Mends[0].Code, `"x-trace"`) || !strings.Contains(e.Mends[0].Code, `"https://app.example"`) {
		t.Errorf("%s", e.Mends[0].Code)
	}
}

// Whatever a server answers, there is an explanation of the published form, with no
// control character in it.
func FuzzExplain(f *testing.F) {
	schema := compileSchema(f)
	f.Add("PUT", "X-Trace", "1", 200, "Access-Control-Allow-Origin", "*", "Location", "/x")
	f.Add("GET", "Accept", "*/*", 302, "Location", "http://10.0.0.1/\x1b[31m", "Set-Cookie", "a=b")
	f.Fuzz(func(t *testing.T, method, name, value string, status int, n1, v1, n2, v2 string) {
		e, err := explain.Explain(asking(method, name, value), answers(status, n1, v1, n2, v2), now, "")
		if err != nil {
			return
		}
		validate(t, schema, e)
		for _, ev := range e.Lanes {
			for _, text := range append(ev.Details, ev.Title, e.Summary, e.Executed.Text) {
				if i := strings.IndexFunc(text, func(r rune) bool { return r < ' ' || r >= 0x7f && r < 0xa0 }); i >= 0 {
					t.Fatalf("a control character at %d of %q", i, text)
				}
			}
		}
	})
}
