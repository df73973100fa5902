package explain

import (
	"net/url"
	"time"

	"github.com/moat-gateway/moat/browser"
)

// ExplainEntry explains a request by the answers that were recorded.
func ExplainEntry(entry *Entry, now time.Time, profile string) (*Explanation, error) {
	var notes []string
	serve := func(m browser.Message) browser.Answer {
		if a, ok := entry.answer(m); ok {
			return a
		}
		if m.Preflight {
			notes = append(notes, "The file has no preflight of this request: the browser remembered the answer to an earlier one. It is taken as passed.")
			return passedPreflight(m)
		}
		if entry.Failure != "" {
			return browser.Answer{Failure: Withheld + "the file holds no answer, only " + entry.Failure + ", which is how a CORS failure is recorded too; ask the server itself"}
		}
		return browser.Answer{Failure: Withheld + "the file holds no answer to " + shortURL(m.URL)}
	}
	e, err := Setting{Profile: profile, Now: now}.ask(entry.Question, serve)
	if err != nil {
		return nil, err
	}
	e.Source, e.Entry = FromRecord, new(entry.Index)
	e.Notes = append(e.Notes, notes...)
	e.judge()
	if e.Pending != nil {
		// It was made, by the browser that recorded it.
		e.Executed = Executed{ExecutedUnknown, "The file does not tell whether the " + shownRaw(e.method()) + " was sent."}
		e.Summary = "The file does not tell: " + shownRaw(e.Pending.Why) + "."
	}
	return e, nil
}

// answer is the first that was recorded for such a request.
func (e *Entry) answer(m browser.Message) (browser.Answer, bool) {
	for _, r := range e.Recorded {
		if (r.On == "preflight") == m.Preflight && sameURL(r.URL, m.URL) {
			return r.Answer, true
		}
	}
	return browser.Answer{}, false
}

// sameURL compares a recorded URL with one that the model has parsed and written again.
func sameURL(a, b string) bool {
	if a == b {
		return true
	}
	x, err := url.Parse(a)
	if err != nil {
		return false
	}
	y, err := url.Parse(b)
	return err == nil && sameOrigin(x, y) && x.EscapedPath() == y.EscapedPath() && x.RawQuery == y.RawQuery
}

// passedPreflight is an answer that allows what is asked for.
func passedPreflight(m browser.Message) browser.Answer {
	return browser.Answer{Status: 204, Header: browser.Header{
		{Name: "Access-Control-Allow-Origin", Value: m.Header.Value("Origin")},
		{Name: "Access-Control-Allow-Credentials", Value: "true"},
		{Name: "Access-Control-Allow-Methods", Value: m.Header.Value("Access-Control-Request-Method")},
		{Name: "Access-Control-Allow-Headers", Value: m.Header.Value("Access-Control-Request-Headers")},
	}}
}
