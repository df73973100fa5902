package browser

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"text/template"
)

var update = flag.Bool("update", false, "write the generated pages")

// testdata/console.json is what Chromium 156 wrote to its console, measured with a page at
// http://app.test:8080 (or https://app.test:8443) that calls http://api.test:8081 (or
// https://api.test:8444) with each API, and answers that fail in each way.
func TestConsoleTextsAreChromiums(t *testing.T) {
	measured := readConsole(t)
	for _, m := range measured {
		if got := m.Facts.Text(); got != m.Text {
			t.Errorf("%+v:\n got %s\nwant %s", m.Facts, got, m.Text)
		}
	}
	for _, name := range CORSErrors() {
		if !slices.ContainsFunc(measured, func(m measurement) bool { return m.Facts.Error == name }) {
			t.Errorf("%s was not measured", name)
		}
	}
}

type measurement struct {
	Facts ConsoleFacts `json:"facts"`
	Text  string       `json:"text"`
}

func readConsole(t *testing.T) []measurement {
	t.Helper()
	b, err := os.ReadFile("testdata/console.json")
	if err != nil {
		t.Fatal(err)
	}
	var all []measurement
	if err := json.Unmarshal(b, &all); err != nil || len(all) == 0 {
		t.Fatalf("testdata/console.json: %d measurements, %v", len(all), err)
	}
	return all
}

func TestConsoleSaysNothing(t *testing.T) {
	facts := ConsoleFacts{
		Error: InsecureLocalNetwork, API: Frame, Origin: "http://app.test:8080",
		URL: "http://api.test:8081/items", Space: Loopback,
	}
	if got := facts.Text(); got != "" {
		t.Errorf("of a frame: %s", got)
	}
	facts.API, facts.Error = Fetch, ""
	if got := facts.Text(); got != "" {
		t.Errorf("of no error: %s", got)
	}
	facts.API, facts.Error = XHR, DisallowedByMode
	if got := facts.Text(); got != "" {
		t.Errorf("of what only fetch can raise: %s", got)
	}
	// A redirect back to where it came from is none to the console.
	facts.Error, facts.FirstURL = MissingAllowOriginHeader, facts.URL
	if got := facts.Text(); strings.Contains(got, "redirected") {
		t.Errorf("of a redirect to the same URL: %s", got)
	}
}

func TestEveryCORSErrorIsExplained(t *testing.T) {
	for _, name := range CORSErrors() {
		i := name.Info()
		for field, text := range map[string]string{"Step": i.Step, "Title": i.Title, "Cause": i.Cause, "Reached": i.Reached, "Mend": i.Mend} {
			if text == "" {
				t.Errorf("%s has no %s", name, field)
			}
		}
		if !strings.HasPrefix(i.Link, "https://") {
			t.Errorf("%s: link %q", name, i.Link)
		}
		if strings.HasSuffix(i.Title, ".") || !strings.HasSuffix(i.Mend, ".") || !strings.HasSuffix(i.Cause, ".") {
			t.Errorf("%s: a title has no full stop, a sentence has one", name)
		}
		if (i.Firefox != "") && i.FirefoxText == "" {
			t.Errorf("%s: %s without its text", name, i.Firefox)
		}
		preflight := strings.HasPrefix(string(name), "Preflight") || strings.HasSuffix(string(name), "PreflightResponse")
		if preflight != (i.Reached == reachedPreflight) || preflight != (i.Step == stepPreflight) {
			t.Errorf("%s: step %q, reached %q", name, i.Step, i.Reached)
		}
	}
	if i := CORSError("Nonsense").Info(); i != (CORSErrorInfo{}) {
		t.Errorf("an unknown name has %+v", i)
	}
}

// What the pages' examples are about.
const (
	examplePage   = "https://app.example"
	exampleURL    = "https://api.example/items"
	exampleDevice = "http://192.168.1.10/status"
)

// example is a call that comes to the error, and what Chromium's console then says.
type example struct {
	call string
	// page is examplePage if empty.
	page  string
	facts ConsoleFacts
}

func exampleOf(name CORSError) example {
	get := "fetch('" + exampleURL + "')"
	cookies := "fetch('" + exampleURL + "', {credentials: 'include'})"
	put := "fetch('" + exampleURL + "', {method: 'PUT'})"
	putCookies := "fetch('" + exampleURL + "', {method: 'PUT', credentials: 'include'})"
	device := "fetch('" + exampleDevice + "')"
	e := example{call: get}
	switch name {
	case DisallowedByMode:
		e.call = "fetch('" + exampleURL + "', {mode: 'same-origin'})"
	case NoCorsRedirectModeNotFollow:
		e.call = "fetch('" + exampleURL + "', {mode: 'no-cors', redirect: 'error'})"
	case CorsDisabledScheme:
		e.call, e.facts.URL = "fetch('localhost:3000/items')", "localhost:3000/items"
	case InsecureLocalNetwork:
		e.call, e.page, e.facts.URL, e.facts.Space = device, "http://app.example", exampleDevice, Local
	case LocalNetworkAccessPermissionDenied:
		e.call, e.facts.URL, e.facts.Space = device, exampleDevice, Local
	case InvalidLocalNetworkAccess:
		e.call = "fetch('" + exampleDevice + "', {targetAddressSpace: 'loopback'})"
		e.facts.URL, e.facts.Space, e.facts.TargetSpace = exampleDevice, Local, Loopback
	case MissingAllowOriginHeader, RedirectContainsCredentials:
	case MultipleAllowOriginValues:
		e.facts.Parameter = examplePage + ", *"
	case InvalidAllowOriginValue:
		e.facts.Parameter = "app.example"
	case AllowOriginMismatch:
		e.facts.Parameter = "https://www.app.example"
	case WildcardOriginNotAllowed, InvalidAllowCredentials:
		e.call = cookies
	case PreflightMissingAllowOriginHeader, PreflightInvalidStatus, PreflightDisallowedRedirect,
		InvalidAllowMethodsPreflightResponse, InvalidAllowHeadersPreflightResponse:
		e.call = put
	case PreflightMultipleAllowOriginValues:
		e.call, e.facts.Parameter = put, examplePage+", *"
	case PreflightInvalidAllowOriginValue:
		e.call, e.facts.Parameter = put, "app.example"
	case PreflightAllowOriginMismatch:
		e.call, e.facts.Parameter = put, "https://www.app.example"
	case PreflightWildcardOriginNotAllowed, PreflightInvalidAllowCredentials:
		e.call = putCookies
	case MethodDisallowedByPreflightResponse:
		e.call, e.facts.Parameter = put, "PUT"
	case HeaderDisallowedByPreflightResponse:
		e.call = "fetch('" + exampleURL + "', {headers: {'X-Request-Id': '1'}})"
		e.facts.Parameter = "x-request-id"
	}
	if e.page == "" {
		e.page = examplePage
	}
	e.facts.Error, e.facts.API, e.facts.Origin = name, Fetch, e.page
	if e.facts.URL == "" {
		e.facts.URL = exampleURL
	}
	return e
}

// What people try, and should not.
const (
	notNoCors  = "`mode: \"no-cors\"` is no way out: script gets an empty answer, and only GET, HEAD and POST without headers of their own can be sent."
	notSwitch  = "Do not switch web security off, by a flag or an extension. It mends one browser, yours, and opens every site in it to every other."
	notProxy   = "Do not go through a public CORS proxy: whoever runs it reads and changes what passes, tokens too. A path of your own server that goes to this one API is fine."
	notReflect = "Do not send back whatever `Origin` came. Compare it with a list, the whole string: no prefix, no ending, no pattern without its ends."
	notBoth    = "Do not send `*` with `Access-Control-Allow-Credentials: true`: no browser accepts it. To reflect every origin instead is accepted, and lets every site read what is the user's."
	notRequest = "Do not set `Access-Control-Allow-Origin` in the request. It belongs in the answer; in the request it only causes a preflight."
	notOptions = "Do not let OPTIONS through to the handler that changes things, and do not ask it for a token: a preflight never carries one."
	notHeaders = "CORS headers do not help here, nor does `Access-Control-Allow-Private-Network`: that belongs to an earlier design, which browsers gave up."
)

func warnings(name CORSError) []string {
	switch {
	case name.Info().Step == stepLocal:
		return []string{notHeaders, notSwitch, notProxy}
	case name == DisallowedByMode || name == NoCorsRedirectModeNotFollow || name == CorsDisabledScheme || name == RedirectContainsCredentials:
		return []string{notNoCors, notSwitch, notProxy}
	case strings.Contains(string(name), "Wildcard") || strings.Contains(string(name), "Credentials"):
		return []string{notBoth, notNoCors, notSwitch, notProxy}
	case name == PreflightMissingAllowOriginHeader:
		return []string{notOptions, notReflect, notRequest, notNoCors, notSwitch, notProxy}
	case name == MissingAllowOriginHeader:
		return []string{notReflect, notRequest, notNoCors, notSwitch, notProxy}
	case name.Info().Step == stepCORSCheck || strings.Contains(string(name), "Origin"):
		return []string{notReflect, notBoth, notNoCors, notSwitch, notProxy}
	}
	return []string{notOptions, notReflect, notNoCors, notSwitch, notProxy}
}

// The pages are generated: go test ./browser -run Generated -update. What is data comes
// from the table in corserror.go; what is told at length, from testdata/corspages.
func TestGeneratedCORSPagesAreCurrent(t *testing.T) {
	const dir = "../docs/cors"
	want := map[string][]byte{"README.md": corsIndex()}
	advice, err := template.ParseGlob("testdata/corspages/*.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range CORSErrors() {
		want[string(name)+".md"] = corsPage(t, advice, name)
	}
	for file, page := range want {
		comparePage(t, filepath.Join(dir, file), page)
	}
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if _, ok := want[f.Name()]; !ok {
			t.Errorf("%s/%s is no page of a CORS error", dir, f.Name())
		}
	}
}

func comparePage(t *testing.T, path string, want []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%s is not current (%v): run make docs", path, err)
	}
}

const generated = "<!-- Generated from browser/corserror.go and browser/testdata/corspages by \"make docs\". Do not edit. -->\n"

func corsPage(t *testing.T, advice *template.Template, name CORSError) []byte {
	t.Helper()
	i, e := name.Info(), exampleOf(name)
	var b bytes.Buffer
	fmt.Fprintf(&b, "# %s\n\n%s\n**%s.** %s\n", name, generated, i.Title, i.Cause)

	fmt.Fprintf(&b, "\n## What the console says\n\nChrome, Edge and other Chromium browsers:\n\n%s", block("text", e.facts.Text()))
	if name == CorsDisabledScheme {
		e.facts.URL, e.facts.FirstURL = "ftp://files.example/items", exampleURL
		fmt.Fprintf(&b, "\nAfter a redirect, or with other APIs than fetch:\n\n%s", block("text", e.facts.Text()))
	}
	switch {
	case i.Firefox != "":
		fmt.Fprintf(&b, "\nFirefox, which calls it [%s](https://developer.mozilla.org/en-US/docs/Web/HTTP/Guides/CORS/Errors/%s):\n\n%s", i.Firefox, i.Firefox, block("text", i.FirefoxText))
	case i.FirefoxText != "":
		fmt.Fprintf(&b, "\nFirefox:\n\n%s", block("text", i.FirefoxText))
	default:
		b.WriteString("\nFirefox says nothing of its own.\n")
	}
	if i.Safari != "" {
		fmt.Fprintf(&b, "\nSafari (from WebKit's source):\n\n%s", block("text", i.Safari))
	} else {
		b.WriteString("\nSafari says nothing of its own.\n")
	}
	b.WriteString("\nScript learns none of this: only `TypeError: Failed to fetch`, or an `error` event.\n")

	fmt.Fprintf(&b, "\n## What reached your server\n\n%s\n", i.Reached)

	fmt.Fprintf(&b, "\n## Mend it\n\n%s\n\n", i.Mend)
	facts := struct{ PreflightToo, Curl string }{}
	if i.Step == stepPreflight {
		facts.PreflightToo, facts.Curl = ", to the OPTIONS and to the request after it,", " -X OPTIONS -H 'Access-Control-Request-Method: PUT'"
	}
	var text bytes.Buffer
	if err := advice.ExecuteTemplate(&text, string(name)+".md", facts); err != nil {
		t.Fatal(err)
	}
	b.WriteString(strings.TrimRight(text.String(), "\n") + "\n")

	b.WriteString("\n## What not to do\n\n")
	for _, w := range warnings(name) {
		fmt.Fprintf(&b, "- %s\n", w)
	}

	send := "" // only the answer to the request itself shows it
	if i.Step == stepCORSCheck || i.Step == stepRedirect {
		send = "--send "
	}
	if name != CorsDisabledScheme && name != InvalidLocalNetworkAccess { // which no command line asks for
		fmt.Fprintf(&b, "\n## See it\n\n%s", block("sh", fmt.Sprintf("moat explain %s--from %s/ %q", send, e.page, e.call)))
	}
	fmt.Fprintf(&b, "\nIt does what the browser would do, and shows each step and what would mend it.\n")
	fmt.Fprintf(&b, "\n*Step: [%s](%s). [All CORS errors](README.md).*\n", i.Step, i.Link)
	page := b.Bytes()
	// Each template that is left leaves an empty line behind.
	for bytes.Contains(page, []byte("\n\n\n")) {
		page = bytes.ReplaceAll(page, []byte("\n\n\n"), []byte("\n\n"))
	}
	return page
}

func block(language, text string) string { return "```" + language + "\n" + text + "\n```\n" }

// stepMeaning says to readers of the index where they are.
var stepMeaning = map[string]string{
	stepMainFetch: "Before anything is sent.",
	stepRedirect:  "When an answer sends the browser elsewhere.",
	stepLocal:     "When the connection is made, before CORS. It is no part of CORS, and only reported as if it were.",
	stepPreflight: "The browser asks with an OPTIONS whether the page may send the request, and does not get the permission.",
	stepCORSCheck: "The request was sent and executed; may the page read the answer?",
}

func corsIndex() []byte {
	var b bytes.Buffer
	b.WriteString("# CORS errors\n\n" + generated + `
A page asked another origin for something, and the browser kept the answer from it. Look below for the sentence that your
console shows; each page says what happened, whether your server has already done the work, and how to mend it.

The console is where the reason is: press F12. Script sees only ` + "`TypeError: Failed to fetch`" + `, Firefox's
` + "`NetworkError when attempting to fetch resource`" + `, Safari's ` + "`Load failed`" + `; the same when the server is down or its
certificate is bad, which is no CORS error: then the console says nothing of CORS, or Firefox's "CORS request did not succeed".

Three things to know first:

- **CORS protects the reading.** A request that needs no preflight is executed by your server, whatever the browser then says.
- **It is mended on the server that was asked**, by headers in its answers; never in the page.
- **Only browsers do it.** That curl or Postman get an answer says nothing.

The names are Chromium's, as DevTools has them in the Issues panel and in its protocol (` + "`corsErrorStatus`" + `).
`)
	step := ""
	for _, name := range CORSErrors() {
		i := name.Info()
		if i.Step != step {
			step = i.Step
			fmt.Fprintf(&b, "\n## %s\n\n%s ([standard](%s))\n\n| error | what happened | Chrome's console |\n| --- | --- | --- |\n",
				strings.ToUpper(step[:1])+step[1:], stepMeaning[step], i.Link)
		}
		fmt.Fprintf(&b, "| [%s](%s.md) | %s | %s |\n", name, name, i.Title, cell(sentence(exampleOf(name).facts.Text())))
	}
	b.WriteString(`
Chromium's line begins with what made the request: ` + "`Access to fetch at`, `XMLHttpRequest at`, `image at`, `script at`, `font at`, `CSS stylesheet at`, `resource at`" + `
(EventSource, beacon, ping). "Have the server send the header with a valid value" comes only with fetch, and the sentence about
withCredentials only with XMLHttpRequest. Older versions added advice to use no-cors; it never helped.

## Firefox

Measured with Firefox 153. The names are those of MDN.

| reason | what its console says | page |
| --- | --- | --- |
`)
	index(&b, CORSErrors(), func(i CORSErrorInfo) (string, string) {
		_, reason, ok := strings.Cut(i.FirefoxText, "(Reason: ")
		if !ok {
			return "–", i.FirefoxText
		}
		reason, _, _ = strings.Cut(reason, "\n")
		reason, _, _ = strings.Cut(reason, "). Status code")
		return i.Firefox, strings.TrimSuffix(strings.TrimSuffix(reason, "."), ")")
	})
	b.WriteString(`
Firefox logs "CORS request did not succeed" once more after each failed preflight; the line before it is the reason.

## Safari

From WebKit's source, not measured. A second line follows: ` + "`Fetch API cannot load URL due to access control checks.`" + ` or
` + "`XMLHttpRequest cannot load URL due to access control checks.`" + ` WebKit looks at a preflight's status first, so what Chromium calls
PreflightMissingAllowOriginHeader can be ` + "`Preflight response is not successful`" + `.

| what its console says | page |
| --- | --- |
`)
	index(&b, CORSErrors(), func(i CORSErrorInfo) (string, string) {
		line, _, _ := strings.Cut(i.Safari, "\n")
		return "-", line
	})
	return b.Bytes()
}

// index writes a row for each text, with the pages that it may be about. A name of "-" is
// left out, with its column.
func index(b *bytes.Buffer, names []CORSError, of func(CORSErrorInfo) (name, text string)) {
	type row struct{ name, text string }
	var rows []row
	pages := map[row][]string{}
	for _, n := range names {
		name, text := of(n.Info())
		if text == "" {
			continue
		}
		r := row{name, text}
		if pages[r] == nil {
			rows = append(rows, r)
		}
		pages[r] = append(pages[r], fmt.Sprintf("[%s](%s.md)", n, n))
	}
	for _, r := range rows {
		if r.name != "-" {
			fmt.Fprintf(b, "| %s ", r.name)
		}
		fmt.Fprintf(b, "| %s | %s |\n", cell(r.text), strings.Join(pages[r], ", "))
	}
}

// sentence is the part of Chromium's line that tells the errors apart.
func sentence(text string) string {
	for _, before := range []string{"blocked by CORS policy: ", "cannot load " + exampleURL + ". ", "cannot load localhost:3000/items. "} {
		if _, after, ok := strings.Cut(text, before); ok {
			return strings.ReplaceAll(after, "Response to preflight request doesn't pass access control check: ", "Response to preflight request doesn't pass … ")
		}
	}
	return text
}

func cell(text string) string { return strings.ReplaceAll(text, "|", "\\|") }
