package explain

import (
	"fmt"
	"strings"

	"github.com/moat-gateway/moat/browser"
)

// lanesOf tells what travelled, from the page's call to what script sees in the end.
func lanesOf(e *Explanation) []Event {
	t := &e.Trace
	all := []Event{callEvent(e.Question)}
	decides := func(sent int) {
		for _, s := range t.Steps {
			// Where an answer is what failed, the failure is drawn at its arrow.
			if s.Exchange != sent || !worthALane(s) || s.Failed && all[len(all)-1].Failed {
				continue
			}
			all = append(all, Event{From: TheBrowser, To: TheBrowser, Title: shownRaw(s.Text), Failed: s.Failed})
		}
	}
	decides(0)
	for i := range t.Exchanges {
		x := &t.Exchanges[i]
		all = append(all, sentEvent(&x.Message, x))
		if x.Answer.Failure == "" {
			all = append(all, answerEvent(x, t.Verdict, i == len(t.Exchanges)-1))
		}
		decides(i + 1)
	}
	if e.Pending != nil {
		p := sentEvent(&e.Pending.Message, nil)
		switch e.Source {
		case FromRecord:
			p.Title += " (the file has no answer)"
		case FromPolicy:
			p.Title += " (the answer is not known)"
		case FromServer, FromConsole:
			p.Title = "not sent: " + p.Title
		}
		return append(all, p)
	}
	return append(all, seenEvent(e))
}

// worthALane reports whether a step explains something that the events around it do not
// show.
func worthALane(s browser.Step) bool {
	if s.Failed {
		return true
	}
	switch s.Algorithm {
	case "main fetch", "CORS filtered response", "CORS check", "HTTP-network fetch", "HTTP-redirect fetch":
		return false
	}
	return true
}

// callEvent is what script, or markup, asks for.
func callEvent(q Question) Event {
	r := q.Request
	ev := Event{From: ThePage, To: TheBrowser, Title: shownRaw(callText(q))}
	detail := func(name, value string) {
		if value != "" {
			ev.Details = append(ev.Details, shownRaw(name+": "+value))
		}
	}
	page := q.Page.URL
	if q.Page.Sandboxed {
		page += " (sandboxed)"
	}
	detail("page", page)
	if n := len(q.Page.Ancestors); n > 0 {
		detail("in a tab of", q.Page.Ancestors[n-1])
	}
	detail("mode", r.Mode)
	detail("credentials", r.Credentials)
	if r.WithCredentials && (r.API == browser.XHR || r.API == browser.EventSource) {
		detail("withCredentials", "true")
	}
	detail("crossorigin", r.CrossOrigin)
	detail("redirect", r.Redirect)
	for _, f := range r.Header {
		detail(f.Name, f.Value)
	}
	if r.Body != nil {
		detail("body", r.Body.Kind)
	}
	return ev
}

// callText is the call, as far as it fits into a line.
func callText(q Question) string {
	r := q.Request
	url := scriptString(r.URL)
	switch r.API {
	case browser.Fetch:
		if m := r.Method; m != "" && m != "GET" {
			return fmt.Sprintf("fetch(%s, {method: %s})", url, scriptString(m))
		}
		return "fetch(" + url + ")"
	case browser.XHR:
		m := r.Method
		if m == "" {
			m = "GET"
		}
		return fmt.Sprintf("xhr.open(%s, %s)", scriptString(m), url)
	case browser.EventSource:
		return "new EventSource(" + url + ")"
	case browser.WebSocket:
		return "new WebSocket(" + url + ")"
	case browser.Beacon:
		return "navigator.sendBeacon(" + url + ")"
	case browser.Form:
		m := strings.ToLower(r.Method)
		if m == "" {
			m = "get"
		}
		return fmt.Sprintf("<form method=%s action=%s>", m, url)
	case browser.Link:
		return "<a href=" + url + ">"
	case browser.Ping:
		return "<a ping=" + url + ">"
	case browser.Image:
		return "<img src=" + url + ">"
	case browser.Script:
		return "<script src=" + url + ">"
	case browser.ModuleScript:
		return "<script type=module src=" + url + ">"
	case browser.Stylesheet:
		return "<link rel=stylesheet href=" + url + ">"
	case browser.Font:
		return "@font-face {src: url(" + url + ")}"
	case browser.Frame:
		return "<iframe src=" + url + ">"
	}
	return string(r.API) + " " + url
}

// sentEvent is a request on its way. x is nil if it was not made.
func sentEvent(m *browser.Message, x *browser.Exchange) Event {
	ev := Event{From: TheBrowser, To: TheBackend, Title: shownRaw(m.Method + " " + m.URL)}
	if m.Preflight {
		ev.Title += " (preflight)"
	}
	for _, f := range m.Header {
		if !strings.HasPrefix(f.Name, "Sec-") && f.Name != "Referer" {
			ev.Details = append(ev.Details, shownRaw(f.Name+": "+f.Value))
		}
	}
	if !m.Preflight && !m.Header.Has("Cookie") && m.Header.Has("Origin") {
		ev.Details = append(ev.Details, "(no cookies)")
	}
	switch {
	case x == nil:
	case x.FromCache:
		ev.To, ev.Title = TheBrowser, ev.Title+": answered from the browser's own cache"
	case x.Answer.Failure != "":
		ev.To, ev.Failed = TheNetwork, true
		ev.Details = append(ev.Details, netErrorText(x.Answer.Failure))
	}
	return ev
}

// answerEvent is an answer. What it has to say about CORS is told even if it says nothing.
func answerEvent(x *browser.Exchange, v browser.Verdict, last bool) Event {
	ev := Event{From: TheBackend, To: TheBrowser, Title: statusWords(x.Answer.Status), Failed: last && v.CORS != "" && v.Outcome == browser.Blocked}
	if x.FromCache {
		ev.From = TheBrowser
	}
	allow := false
	for _, f := range x.Answer.Header {
		name := strings.ToLower(f.Name)
		allow = allow || name == "access-control-allow-origin"
		switch name {
		case "vary", "location", "set-cookie", "content-type", "cross-origin-resource-policy", "x-frame-options", "server", "x-powered-by":
		default:
			if !strings.HasPrefix(name, "access-control-") {
				continue
			}
		}
		ev.Details = append(ev.Details, shownRaw(f.Name+": "+f.Value))
	}
	if !allow && x.Header.Has("Origin") && (x.Preflight || v.CORS != "" && last) {
		ev.Details = append(ev.Details, "(no Access-Control-Allow-Origin)")
	}
	for _, name := range x.Stored {
		ev.Details = append(ev.Details, "(the browser keeps the cookie "+shownRaw(name)+")")
	}
	return ev
}

// seenEvent is what the page gets to see.
func seenEvent(e *Explanation) Event {
	v := e.Trace.Verdict
	ev := Event{From: TheBrowser, To: ThePage, Title: scriptSees(e), Failed: e.Outcome == Blocked || v.Outcome == browser.Failed}
	if v.Outcome == browser.Readable && v.Type == "cors" {
		ev.Details = append(ev.Details, "readable headers: "+shownRaw(strings.Join(v.Headers, ", ")))
		if len(v.Headers) == 0 {
			ev.Details = []string{"readable headers: none"}
		}
	}
	return ev
}

func scriptSees(e *Explanation) string {
	v := e.Trace.Verdict
	switch {
	case v.Script == "TypeError" && e.Browser == "firefox":
		return "TypeError: NetworkError when attempting to fetch resource."
	case v.Script == "TypeError" && v.Outcome != browser.Threw:
		return "TypeError: Failed to fetch"
	case v.Script == "TypeError" || v.Script == "throws":
		return "the call throws"
	case v.Script == "":
		return "nothing, not even an event"
	case v.Outcome == browser.Readable && v.Status != 0:
		return statusWords(v.Status) + ", to be read by script"
	case strings.HasPrefix(v.Script, "opaque"):
		return "an opaque answer: no status, no header, no body"
	case v.Script == "error":
		return `an "error" event, without a reason`
	case v.Script == "load":
		return `a "load" event`
	case v.Script == "shown":
		return "the answer is shown in place of the page"
	}
	return shownRaw(v.Script)
}
