package page

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/moat-gateway/moat/browser"
	"github.com/moat-gateway/moat/explain"
)

// Pasted is what a text turned out to be.
type Pasted struct {
	// Kind is explain's: "curl", "fetch", "har", "error" or "url".
	Kind     string    `json:"kind"`
	Findings []Finding `json:"findings"`
	// More is how many more findings there were.
	More int `json:"more,omitempty"`
}

// Finding is one request or one error. Of an error that fits several causes there are
// several Readings, the likeliest first.
type Finding struct {
	Label     string             `json:"label"`
	Diagnosis *explain.Diagnosis `json:"diagnosis,omitempty"`
	// Share is the error's text without what may be secret: it is what a link may carry.
	Share string `json:"share,omitempty"`
	// Other is about an error that is not about CORS.
	Other    *Other    `json:"other,omitempty"`
	Readings []Reading `json:"readings,omitempty"`
}

// Reading is a situation that fits what was pasted.
type Reading struct {
	// Error is what failed, if an error was pasted.
	Error *Info `json:"error,omitempty"`
	// Case is nil if the text does not tell enough.
	Case *browser.Case `json:"case,omitempty"`
	// Notes say what was assumed.
	Notes []string `json:"notes,omitempty"`
}

// Other is what there is to say about an error that CORS headers do not mend.
type Other struct {
	Title string `json:"title"`
	Text  string `json:"text"`
}

// assumedPage is taken where the text does not tell which page asked.
const assumedPage = "https://app.example/"

func paste(text string, now time.Time) (*Pasted, error) {
	if len(text) > maxPaste {
		return nil, fmt.Errorf("the text has %d bytes, more than the %d that are read here", len(text), maxPaste)
	}
	found, err := explain.Paste(text)
	if err != nil {
		return nil, err
	}
	p := &Pasted{Kind: found.Kind}
	for i := range found.Diagnoses {
		p.Findings = append(p.Findings, ofDiagnosis(&found.Diagnoses[i], now))
	}
	for i := range found.Questions {
		p.Findings = append(p.Findings, ofQuestion(&found.Questions[i], nil))
	}
	// CORS is what people come for.
	entries := slices.Clone(found.Entries)
	slices.SortStableFunc(entries, func(a, b explain.Entry) int { return rank(&a) - rank(&b) })
	for i := range entries {
		p.Findings = append(p.Findings, ofQuestion(&entries[i].Question, entries[i].Rules()))
	}
	if len(p.Findings) > maxFindings {
		p.More = len(p.Findings) - maxFindings
		p.Findings = p.Findings[:maxFindings]
	}
	return p, nil
}

func rank(e *explain.Entry) int {
	switch {
	case e.Failure != "":
		return 0
	case e.CrossOrigin:
		return 1
	}
	return 2
}

func ofQuestion(q *explain.Question, answers []browser.Rule) Finding {
	c := browser.Case{Page: q.Page, Requests: []browser.Request{q.Request}, Answers: answers}
	c.Browser.Cookies = q.Cookies
	notes := slices.Clone(q.Notes)
	if c.Page.URL == "" {
		c.Page.URL = assumedPage
		notes = append(notes, "Which page asks is not known from this: "+assumedPage+" is assumed. Put in yours.")
	}
	if len(c.Answers) == 0 {
		c.Answers = withoutCORS()
		notes = append(notes, "What the server answers is not known from this: assumed is one that has never heard of CORS. Put in what yours answers.")
	}
	method := q.Request.Method
	if method == "" {
		method = "GET"
	}
	return Finding{
		Label:    fmt.Sprintf("%s %s", method, q.Request.URL),
		Readings: []Reading{{Case: &c, Notes: notes}},
	}
}

// withoutCORS is what a server answers that has never heard of it.
func withoutCORS() []browser.Rule {
	return []browser.Rule{
		{On: "preflight", Answer: browser.Answer{Status: 404}},
		{On: "actual", Answer: browser.Answer{Status: 200, Header: browser.Header{{Name: "Content-Type", Value: "application/json"}}}},
	}
}

func ofDiagnosis(d *explain.Diagnosis, now time.Time) Finding {
	f := Finding{Label: d.Text, Diagnosis: d, Share: shareableText(d.Text), Other: others[d.Other]}
	names := d.Candidates
	if d.CORS != "" {
		names = []browser.CORSError{d.CORS}
	}
	for _, name := range names {
		info := infoOf(name)
		if info == nil {
			continue
		}
		r := Reading{Error: info}
		r.Case, r.Notes = reconstruct(d, name, now)
		f.Readings = append(f.Readings, r)
	}
	if len(f.Readings) > 0 {
		f.Other = nil
	}
	return f
}

// shareableText makes the URLs in a text shareable.
func shareableText(text string) string {
	var b strings.Builder
	for {
		at := strings.Index(text, "http")
		if at < 0 {
			return b.String() + text
		}
		b.WriteString(text[:at])
		text = text[at:]
		end := strings.IndexAny(text, " '\"`<>“”‘’")
		if end < 0 {
			end = len(text)
		}
		// Some texts end a sentence with a URL.
		url := strings.TrimRight(text[:end], ".,;:)")
		b.WriteString(shareableURL(url))
		text = text[len(url):]
	}
}

// others are the kinds of errors that are taken for CORS and are not.
var others = map[string]*Other{
	explain.OtherCSP:          {"The page's own Content-Security-Policy forbids it", "Nothing was sent. The policy is the page's header or <meta>, not the API's: list the API's origin in the directive that the error names."},
	explain.OtherMixedContent: {"A page over https asked for something over http", "Nothing was sent. No header of the API changes that: serve the API over https and call it so."},
	explain.OtherORB:          {"The answer is nothing that another site's page may show or run", "The request was executed. An <img> or <script> got JSON or HTML, often an error page: look at the answer, or ask with fetch and CORS."},
	explain.OtherCORP:         {"The answer's Cross-Origin-Resource-Policy keeps it from other origins' pages", "The request was executed. If other sites may embed the resource, send Cross-Origin-Resource-Policy: cross-origin with it. A page with Cross-Origin-Embedder-Policy: require-corp needs that from everybody."},
	explain.OtherLNA:          {"The page may not reach the local network", "The API is in a narrower network than the page, and the browser asks its user first. No CORS header replaces that permission."},
	explain.OtherNetwork:      {"There was no answer", "This is no CORS error: the name, the connection or the certificate failed. Open the URL in a tab of its own to see which."},
	explain.OtherAPI:          {"The call itself is refused", "Nothing was sent: fetch throws for this combination of options."},
	explain.OtherWarning:      {"A warning", "Nothing was blocked, yet."},
	explain.OtherUnknown:      {"The text does not say why", "Script never learns the reason. It is in the browser's console, in red, next to this line: paste that one. Or copy the request from the network panel, as cURL or as fetch."},
}
