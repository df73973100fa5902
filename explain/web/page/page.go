// Package page is what the page of explain/web asks of the model: text in, JSON out. It
// believes nothing of what it is given, because a page gets it from whoever wrote the
// link, and it does no I/O.
package page

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/moat-gateway/moat/browser"
	"github.com/moat-gateway/moat/explain"
)

// Bounds on what is taken, in bytes and in pieces. A HAR file is the largest that people
// paste.
const (
	maxCase     = 256 << 10
	maxPaste    = 8 << 20
	maxPieces   = 200 // cookies, rules, header fields of a message
	maxFindings = 50
)

// Call answers one question of the page: "explain" takes a browser.Case and returns an
// Answer, "paste" takes any text and returns what it turned out to be, "play" takes a
// browser.Case with any number of requests and returns a Played. What cannot be answered is {"error": "…"}; nothing that is passed makes it panic.
func Call(name, input string, now time.Time) (output string) {
	defer func() {
		if p := recover(); p != nil {
			output = failure(fmt.Errorf("moat has a bug here, and lives on: %v", p))
		}
	}()
	var answer any
	var err error
	switch name {
	case "explain":
		answer, err = explainText(input, now)
	case "paste":
		answer, err = paste(input, now)
	case "play":
		answer, err = play(input, now)
	default:
		err = fmt.Errorf("there is no function %.40q", name)
	}
	if err != nil {
		return failure(err)
	}
	b, err := json.Marshal(answer)
	if err != nil {
		return failure(err)
	}
	return string(b)
}

func failure(err error) string {
	b, _ := json.Marshal(map[string]string{"error": err.Error()}) //nolint:errchkjson // strings always can
	return string(b)
}

// Answer is what the model says of a case.
type Answer struct {
	// Case is the case without what may be secret: it is what a link may carry.
	Case        browser.Case         `json:"case"`
	Explanation *explain.Explanation `json:"explanation"`
	// Error is about the verdict's CORS error, if it is one.
	Error *Info `json:"error,omitempty"`
}

// Info is what there is to say about a CORS error.
type Info struct {
	Name    browser.CORSError `json:"name"`
	Title   string            `json:"title"`
	Cause   string            `json:"cause"`
	Reached string            `json:"reached"`
	Mend    string            `json:"mend"`
	Step    string            `json:"step"`
	Link    string            `json:"link"`
	Firefox string            `json:"firefox,omitempty"`
}

func infoOf(name browser.CORSError) *Info {
	i := name.Info()
	if i.Title == "" {
		return nil
	}
	return &Info{name, i.Title, i.Cause, i.Reached, i.Mend, i.Step, i.Link, i.Firefox}
}

func explainText(input string, now time.Time) (*Answer, error) {
	c, err := readCase(input)
	if err != nil {
		return nil, err
	}
	return explainCase(c, now)
}

func readCase(input string) (browser.Case, error) {
	var c browser.Case
	if len(input) > maxCase {
		return c, fmt.Errorf("the case has %d bytes, more than the %d that are read", len(input), maxCase)
	}
	d := json.NewDecoder(strings.NewReader(input))
	d.DisallowUnknownFields()
	if err := d.Decode(&c); err != nil {
		return c, fmt.Errorf("this is no case: %w", err)
	}
	return c, nil
}

func explainCase(c browser.Case, now time.Time) (*Answer, error) {
	if len(c.Requests) != 1 {
		return nil, fmt.Errorf("the case has %d requests; one at a time is explained", len(c.Requests))
	}
	if err := bounded(&c); err != nil {
		return nil, err
	}
	setting := explain.Setting{
		Profile: c.Browser.Profile, Now: now,
		BlockThirdPartyCookies: c.Browser.BlockThirdPartyCookies, LocalNetworkAllowed: c.Browser.LocalNetworkAllowed,
		Space: func(host string) browser.AddressSpace { return space(&c, host) },
	}
	q := explain.Question{Page: c.Page, Request: c.Requests[0], Cookies: c.Browser.Cookies}
	e, err := setting.Explain(q, c.Serve)
	if err != nil {
		return nil, err
	}
	c.Page, c.Requests, c.Browser.Cookies = e.Question.Page, []browser.Request{e.Question.Request}, e.Question.Cookies
	return &Answer{Case: shareable(c), Explanation: e, Error: infoOf(e.Trace.Verdict.CORS)}, nil
}

// shareable finishes what explain has begun for the question: it takes what may be
// secret out of URLs and answers.
func shareable(c browser.Case) browser.Case {
	c.Want = nil
	c.Page.URL = shareableURL(c.Page.URL)
	c.Requests[0].URL = shareableURL(c.Requests[0].URL)
	c.Answers = slices.Clone(c.Answers)
	for i := range c.Answers {
		r := &c.Answers[i]
		r.URL, r.Answer.Header = shareableURL(r.URL), slices.Clone(r.Answer.Header)
		for j, f := range r.Answer.Header {
			switch strings.ToLower(f.Name) {
			case "location":
				r.Answer.Header[j].Value = shareableURL(f.Value)
			case "set-cookie":
				name, rest, _ := strings.Cut(f.Value, "=")
				if _, attributes, ok := strings.Cut(rest, ";"); ok {
					rest = "…;" + attributes
				} else {
					rest = "…"
				}
				r.Answer.Header[j].Value = name + "=" + rest
			}
		}
	}
	return c
}

// shareableURL is the URL as explain reads it when it is pasted.
func shareableURL(raw string) string {
	p, err := explain.Paste(raw)
	if err != nil || p.Kind != explain.PastedURL {
		return raw // relative, or what no browser asks for
	}
	return p.Questions[0].Request.URL
}

func bounded(c *browser.Case) error {
	pieces := max(len(c.Page.Ancestors), len(c.Browser.Cookies), len(c.Answers), len(c.Browser.Addresses), len(c.Requests))
	for i := range c.Requests {
		pieces = max(pieces, len(c.Requests[i].Header))
	}
	for i := range c.Answers {
		pieces = max(pieces, len(c.Answers[i].Answer.Header))
	}
	if pieces > maxPieces {
		return fmt.Errorf("the case has a list of %d entries, more than the %d that are read", pieces, maxPieces)
	}
	return nil
}

// space is as in browser.Case.Run.
func space(c *browser.Case, host string) browser.AddressSpace {
	if s, ok := c.Browser.Addresses[host]; ok {
		return s
	}
	if i := strings.LastIndexByte(host, ':'); i > 0 {
		if s, ok := c.Browser.Addresses[host[:i]]; ok {
			return s
		}
	}
	return browser.SpaceOf(host)
}
