package challenge

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"encoding/json"
	"html/template"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"golang.org/x/text/language"

	"github.com/moat-gateway/moat/guard"
)

//go:embed page.html
var pageSource string

//go:embed page.json
var pageTexts []byte

var page = template.Must(template.New("page").Parse(pageSource))

// texts are the page's, by language; the first language stands for those that are missing.
var texts, languages = func() (all []text, matcher language.Matcher) {
	if err := json.Unmarshal(pageTexts, &all); err != nil {
		panic(err) // a part of the program
	}
	var tags []language.Tag
	for _, t := range all {
		tags = append(tags, language.MustParse(t.Lang))
	}
	return all, language.NewMatcher(tags)
}()

type text struct {
	Lang, Dir                   string
	Title, Status, Reason, Link string
}

// pagePolicy lets the page have its own style sheet, and nothing else.
var pagePolicy = func() string {
	_, style, _ := strings.Cut(pageSource, "<style>")
	style, _, _ = strings.Cut(style, "</style>")
	sum := sha256.Sum256([]byte(style))
	return "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) +
		"'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
}()

// The names of the query that the page comes back with.
const (
	queryWait = "wait"
	queryTo   = "to"
)

// WritePage answers a navigation with a page that comes back by itself when the wait is over. It has no script, and
// needs none. gate is the path that it comes back to; Return reads what it brings.
func WritePage(w http.ResponseWriter, r *http.Request, gate string, p Pause, to Target) {
	t := textFor(r.Header["Accept-Language"])
	var b bytes.Buffer
	err := page.Execute(&b, struct {
		text
		Seconds int
		Next    string
	}{t, int((p.Left + time.Second - 1) / time.Second), gate + "?" + url.Values{queryWait: {p.Token}, queryTo: {to.String()}}.Encode()})
	if err != nil {
		panic(err) // a template of ours, into memory
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Language", t.Lang)
	h.Set("Content-Length", strconv.Itoa(b.Len()))
	h.Set("Content-Security-Policy", pagePolicy)
	h.Set("Cache-Control", "no-store")
	h.Set("Referrer-Policy", "no-referrer") // the address holds a token
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(guard.ChallengeRequired.Status())
	w.Write(b.Bytes())
}

// Return reads what the page comes back with. A target that leads elsewhere is "/".
func Return(u *url.URL) (token string, to Target) {
	q := u.Query()
	to, err := ParseTarget(q.Get(queryTo))
	if err != nil {
		to = Target{}
	}
	return q.Get(queryWait), to
}

// textFor chooses by Accept-Language (RFC 9110 section 12.5.4).
func textFor(accept []string) text {
	const longest = 512 // browsers send a few dozen bytes
	if len(accept) != 1 || len(accept[0]) > longest {
		return texts[0]
	}
	tags, _, err := language.ParseAcceptLanguage(accept[0])
	if err != nil {
		return texts[0]
	}
	_, i, _ := languages.Match(tags...)
	return texts[i]
}

// WantsPage reports whether the request is a person's browser opening a page in a window of
// its own. Everybody else gets a problem document: a program that asks for JSON must never be
// handed HTML.
func WantsPage(r *http.Request) bool {
	if r.Method != http.MethodGet || r.Header["Sec-Purpose"] != nil || r.Header["Upgrade"] != nil || r.Header["X-Requested-With"] != nil {
		return false
	}
	mode, dest := r.Header["Sec-Fetch-Mode"], r.Header["Sec-Fetch-Dest"]
	if mode != nil || dest != nil {
		return len(mode) == 1 && mode[0] == "navigate" && len(dest) == 1 && dest[0] == "document"
	}
	// Browsers of before 2023, and all of them over plain http.
	return prefersHTML(strings.Join(r.Header["Accept"], ","))
}

// prefersHTML reports whether an Accept names text/html, nothing is asked for rather, and
// JSON not even as much (RFC 9110 section 12.5.1).
func prefersHTML(accept string) bool {
	const longest = 1024
	if len(accept) > longest || strings.Contains(accept, `"`) {
		return false
	}
	html, data, rest := 0, 0, 0
	for element := range strings.SplitSeq(accept, ",") {
		params := strings.Split(element, ";")
		q, ok := weight(params[1:])
		if !ok {
			return false
		}
		switch name := strings.ToLower(strings.TrimSpace(params[0])); {
		case name == "text/html":
			html = max(html, q)
		case name == "application/json", strings.HasSuffix(name, "+json"), name == "text/event-stream":
			data = max(data, q)
		default:
			rest = max(rest, q)
		}
	}
	return html > data && html >= rest
}

// weight is q in thousandths.
func weight(params []string) (q int, ok bool) {
	for _, p := range params {
		name, value, _ := strings.Cut(strings.TrimSpace(p), "=")
		if !strings.EqualFold(name, "q") {
			continue
		}
		whole, fraction, _ := strings.Cut(value, ".")
		n, err := strconv.ParseUint(whole+(fraction + "000")[:max(3, len(fraction))], 10, 16)
		if err != nil || len(whole) != 1 || len(fraction) > 3 || n > 1000 {
			return 0, false
		}
		return int(n), true
	}
	return 1000, true
}
