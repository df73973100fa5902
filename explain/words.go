package explain

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/moat-gateway/moat/browser"
)

// summary is the outcome in one line.
func (e *Explanation) summary() string {
	v, last, method := e.Trace.Verdict, e.last(), shownRaw(e.method())
	failed := e.Trace.FailedStep()
	switch {
	case e.Pending != nil:
		return e.pendingSummary()
	case v.CORS != "":
		return e.blockedBefore() + v.CORS.Info().Title + "."
	case v.Outcome == browser.Threw && failed != nil:
		return "The browser refuses the call itself: " + shownRaw(failed.Text) + "."
	case last != nil && last.Answer.Failure != "":
		return "No answer came, so there is nothing that CORS could be about: " + netErrorText(last.Answer.Failure) + "."
	case v.Outcome == browser.Blocked && failed != nil:
		return e.blockedBefore() + upperFirst(shownRaw(failed.Text)) + "."
	case v.Outcome == browser.Failed && failed != nil:
		return "The answer is of no use to the page: " + shownRaw(failed.Text) + "."
	}
	status := 0
	if last != nil {
		status = last.Answer.Status
	}
	refusal := ""
	if status >= 400 {
		refusal = ", and it is an error: " + statusWords(status)
	}
	switch v.Type {
	case "opaque":
		return "The " + method + " is sent and executed, but mode no-cors hides its answer from script" + refusal + "."
	case "opaqueredirect":
		return "The answer is a redirect, which script asked the browser not to follow; it sees nothing else of it."
	case "basic":
		return "The page may read the answer: it is of its own origin, and CORS does not apply" + refusal + "."
	case "cors":
		if refusal != "" {
			return "The browser lets the page read the answer" + refusal + "."
		}
		return "The page may read the answer, " + statusWords(status) + "."
	}
	return e.plainSummary(method, refusal)
}

// plainSummary is about what passes without script reading an answer.
func (e *Explanation) plainSummary(method, refusal string) string {
	switch e.Question.Request.API {
	case browser.WebSocket:
		return "The WebSocket opens: no CORS check stands before it, and script reads and writes."
	case browser.EventSource:
		return "The stream of events opens, and script reads it."
	case browser.Form, browser.Link, browser.Frame:
		return "The browser goes there with a " + method + ": CORS does not apply to that, and script of the page reads nothing of the answer" + refusal + "."
	case browser.Beacon, browser.Ping:
		return "The " + method + " is sent and executed; script never gets an answer" + refusal + "."
	case browser.Image, browser.Script, browser.ModuleScript, browser.Stylesheet, browser.Font:
		if e.Trace.Verdict.Outcome == browser.Readable {
			return "It is loaded, and script may read it."
		}
		return "It is loaded and used, but script cannot read it" + refusal + "."
	case browser.XHR, browser.Fetch:
	}
	if refusal != "" {
		return "The browser lets the page read the answer" + refusal + "."
	}
	return "The page may read the answer."
}

// blockedBefore says what had happened when the browser put an end to it.
func (e *Explanation) blockedBefore() string {
	switch e.executed().Answer {
	case ExecutedYes:
		return "Blocked after the backend executed it. "
	case ExecutedNo, ExecutedPreflight, ExecutedUnknown:
	}
	return "Blocked before the " + shownRaw(e.method()) + " was sent. "
}

func (e *Explanation) pendingSummary() string {
	p := e.Pending
	read := "whether the page may read the answer, only the answer shows"
	if p.Needed == nil {
		read = "what comes of it, only the answer shows"
	}
	switch last := e.last(); {
	case p.Preflight:
		return "Not followed to the end: " + shownRaw(p.Why) + "."
	case last == nil && p.Header.Has("Origin"):
		return "No preflight is needed. The browser sends the " + shownRaw(p.Method) + " at once, the backend executes it; " + read + "."
	case last == nil:
		return "The browser sends the " + shownRaw(p.Method) + " at once, the backend executes it; " + read + "."
	case last.Preflight && last.URL == p.URL:
		return "The preflight is passed. The browser then sends the " + shownRaw(p.Method) + ", the backend executes it; " + read + "."
	}
	return "Not followed to the end: " + shownRaw(p.Why) + "."
}

// executed says what of it all the backend has done.
func (e *Explanation) executed() Executed {
	done, last := "", e.last()
	preflights, doubt := 0, false
	for i := range e.Trace.Exchanges {
		x := &e.Trace.Exchanges[i]
		switch {
		case x.Executed:
			if done != "" {
				done += ", then "
			}
			done += shownRaw(x.Method) + " " + shortURL(x.URL)
		case x.Preflight && (x.Answer.Failure == "" || e.Source == FromRecord):
			preflights++
		case !x.Preflight && maybeArrived(x.Answer.Failure):
			doubt = true
		}
	}
	switch {
	case e.Pending != nil:
		return e.executedPending(done, preflights)
	case done != "" && last != nil && last.Executed:
		return Executed{ExecutedYes, executedText(done, last, e.Outcome)}
	case done != "":
		return Executed{ExecutedYes, "Yes, what came before the end: " + done + ". What followed did not reach a handler."}
	case doubt:
		return Executed{ExecutedUnknown, "Nobody knows. The connection stood and no whole answer came back; the backend may have done everything or nothing. Its log tells."}
	case preflights > 0:
		return Executed{ExecutedPreflight, "Only the preflight reached it, an OPTIONS without cookies. The " + shownRaw(e.method()) + " itself was never sent."}
	case last != nil && last.FromCache:
		return Executed{ExecutedNo, "No. The browser answered from its own cache."}
	case last != nil:
		return Executed{ExecutedNo, "No. Nothing of it reached the backend."}
	}
	return Executed{ExecutedNo, "No. The browser sent nothing."}
}

func executedText(done string, last *browser.Exchange, o Outcome) string {
	text := "Yes: " + done
	switch s := last.Answer.Status; {
	case s == 401 || s == 403 || s == 404 || s == 405 || s == 429:
		return text + " reached it and was answered with " + statusWords(s) + ". So it was most likely turned away; that is the backend's own doing and no merit of CORS."
	case o == Blocked:
		return text + " reached it and was answered with " + statusWords(s) + ". The browser withholds the answer; whatever the request changes is changed."
	case s >= 500:
		return text + " reached it and was answered with " + statusWords(s) + ". How far it came, its log tells."
	}
	return text + " reached it and was answered with " + statusWords(last.Answer.Status) + "."
}

func (e *Explanation) executedPending(done string, preflights int) Executed {
	then := " A browser would send the " + shownRaw(e.Pending.Method) + ", and the backend would execute it, whatever CORS headers it then answers with."
	if e.Pending.Preflight {
		then = ""
	}
	switch {
	case done != "":
		return Executed{ExecutedYes, "Yes, so far: " + done + "."}
	case preflights > 0:
		return Executed{ExecutedPreflight, "Not here: only the preflight was sent." + then}
	}
	return Executed{ExecutedNo, "Not here: nothing was sent." + then}
}

// maybeArrived reports whether a request may have been executed although no answer came.
func maybeArrived(failure string) bool {
	switch failure {
	case "net::ERR_TIMED_OUT", "net::ERR_EMPTY_RESPONSE", "net::ERR_CONNECTION_RESET", "net::ERR_CONNECTION_CLOSED",
		"net::ERR_CONNECTION_ABORTED", "net::ERR_INVALID_HTTP_RESPONSE", "net::ERR_RESPONSE_HEADERS_TOO_BIG",
		"net::ERR_HTTP2_PROTOCOL_ERROR", "net::ERR_INCOMPLETE_CHUNKED_ENCODING", "net::ERR_NETWORK_CHANGED",
		"net::ERR_FAILED", "net::ERR_ABORTED":
		return true
	}
	return false
}

// netErrorText says in words what Chromium's name means.
func netErrorText(name string) string {
	words := map[string]string{
		"net::ERR_NAME_NOT_RESOLVED":               "the host's name does not resolve",
		"net::ERR_CONNECTION_REFUSED":              "nothing listens at that host and port",
		"net::ERR_CONNECTION_TIMED_OUT":            "no connection came about in time",
		"net::ERR_CONNECTION_RESET":                "the connection was broken off",
		"net::ERR_CONNECTION_CLOSED":               "the connection was closed",
		"net::ERR_ADDRESS_UNREACHABLE":             "there is no way to the host's address",
		"net::ERR_TIMED_OUT":                       "the server took the request and did not answer in time",
		"net::ERR_EMPTY_RESPONSE":                  "the server closed the connection without an answer",
		"net::ERR_INVALID_HTTP_RESPONSE":           "what answered does not speak HTTP",
		"net::ERR_RESPONSE_HEADERS_TOO_BIG":        "the answer's header is too large",
		"net::ERR_SSL_PROTOCOL_ERROR":              "what answered does not speak TLS; is it http: perhaps",
		"net::ERR_SSL_VERSION_OR_CIPHER_MISMATCH":  "server and browser have no version of TLS in common",
		"net::ERR_CERT_AUTHORITY_INVALID":          "no authority that is trusted has signed the certificate",
		"net::ERR_CERT_COMMON_NAME_INVALID":        "the certificate is for another host",
		"net::ERR_CERT_DATE_INVALID":               "the certificate is expired, or not valid yet",
		"net::ERR_CERT_INVALID":                    "the certificate is not valid",
		"net::ERR_TOO_MANY_REDIRECTS":              "the redirects come to no end",
		"net::ERR_UNSAFE_PORT":                     "browsers never use that port",
		"net::ERR_UNSAFE_REDIRECT":                 "the redirect leads to no URL that is allowed",
		"net::ERR_BLOCKED_BY_CLIENT":               "an extension of the browser blocked it",
		"net::ERR_INTERNET_DISCONNECTED":           "there was no network",
		"net::ERR_SSL_CLIENT_AUTH_CERT_NEEDED":     "the server wants a client's certificate",
		"net::ERR_BAD_SSL_CLIENT_AUTH_CERT":        "the server does not take the client's certificate",
		"net::ERR_ALPN_NEGOTIATION_FAILED":         "the server does not speak HTTP/2, which a stream as body needs",
		"net::ERR_INVALID_RESPONSE":                "the answer is not valid HTTP",
		"net::ERR_HTTP2_PROTOCOL_ERROR":            "the server broke the rules of HTTP/2",
		"net::ERR_INCOMPLETE_CHUNKED_ENCODING":     "the answer broke off",
		"net::ERR_NETWORK_CHANGED":                 "the network changed meanwhile",
		"net::ERR_QUIC_PROTOCOL_ERROR":             "the server broke the rules of HTTP/3",
		"net::ERR_PROXY_CONNECTION_FAILED":         "the proxy cannot be reached",
		"net::ERR_TUNNEL_CONNECTION_FAILED":        "the proxy opens no tunnel",
		"net::ERR_CONNECTION_ABORTED":              "the connection was broken off",
		"net::ERR_SSL_UNRECOGNIZED_NAME_ALERT":     "the server knows no such host",
		"net::ERR_BLOCKED_BY_LOCAL_NETWORK_ACCESS": "the page may not reach the local network",
	}[name]
	if words == "" {
		return "the browser says " + shownRaw(name)
	}
	return words + " (" + name + ")"
}

// failureOf is the step that ended the request.
func failureOf(q Question, t *browser.Trace) *Failure {
	s := t.FailedStep()
	if s == nil {
		return nil
	}
	f := &Failure{
		Step: s.Algorithm, Link: s.Link, Text: shownRaw(s.Text),
		CORS: t.Verdict.CORS, Console: t.Verdict.Console, Firefox: t.Verdict.Firefox,
	}
	if f.CORS != "" {
		f.Docs = docsOf(f.CORS)
		if f.Firefox == "" {
			f.Firefox = f.CORS.Info().Firefox
		}
	}
	f.Came, f.Needed = decidingFields(q, t)
	return f
}

func docsOf(name browser.CORSError) string { return "docs/cors/" + string(name) + ".md" }

// decidingFields are what came in the header, and what would have had to come.
func decidingFields(q Question, t *browser.Trace) (came, needed browser.Header) {
	if len(t.Exchanges) == 0 {
		return nil, nil
	}
	last := t.Exchanges[len(t.Exchanges)-1]
	if last.Answer.Failure != "" {
		return nil, nil
	}
	names := []string{}
	need := func(name, value string) {
		names = append(names, name)
		needed = append(needed, browser.Field{Name: name, Value: value})
	}
	status := func(want string) {
		came = append(came, browser.Field{Name: ":status", Value: strconv.Itoa(last.Answer.Status)})
		needed = append(needed, browser.Field{Name: ":status", Value: want})
	}
	switch v := t.Verdict; {
	case v.CORS == browser.PreflightDisallowedRedirect:
		status("204")
		names = append(names, "Location")
	case v.CORS == browser.RedirectContainsCredentials:
		names = append(names, "Location")
	case v.CORS != "":
		if last.Preflight && (last.Answer.Status < 200 || last.Answer.Status > 299) {
			status("204")
		}
	case strings.HasPrefix(v.BlockedReason, "corp-"):
		need("Cross-Origin-Resource-Policy", "cross-origin")
	case v.BlockedReason == "other":
		names = append(names, "X-Frame-Options")
	default:
		return nil, nil
	}
	if n, ok := NeedOf(q, t); ok {
		need("Access-Control-Allow-Origin", n.Origin)
		if n.Credentials {
			need("Access-Control-Allow-Credentials", "true")
		}
		if m := last.Header.Value("Access-Control-Request-Method"); last.Preflight && m != "GET" && m != "HEAD" && m != "POST" {
			need("Access-Control-Allow-Methods", shownRaw(m))
		}
		if last.Preflight && len(n.Headers) > 0 {
			need("Access-Control-Allow-Headers", shownRaw(commas(n.Headers)))
		}
	}
	for _, f := range last.Answer.Header {
		if slices.ContainsFunc(names, func(n string) bool { return strings.EqualFold(n, f.Name) }) {
			came = append(came, browser.Field{Name: shownRaw(f.Name), Value: shownRaw(f.Value)})
		}
	}
	return came, needed
}

// statusWords is a status with its name (RFC 9110 section 15).
func statusWords(s int) string {
	name := map[int]string{
		101: "Switching Protocols", 200: "OK", 201: "Created", 202: "Accepted", 204: "No Content", 206: "Partial Content",
		301: "Moved Permanently", 302: "Found", 303: "See Other", 304: "Not Modified", 307: "Temporary Redirect", 308: "Permanent Redirect",
		400: "Bad Request", 401: "Unauthorized", 403: "Forbidden", 404: "Not Found", 405: "Method Not Allowed", 406: "Not Acceptable",
		408: "Request Timeout", 409: "Conflict", 410: "Gone", 411: "Length Required", 412: "Precondition Failed", 413: "Content Too Large",
		415: "Unsupported Media Type", 421: "Misdirected Request", 422: "Unprocessable Content", 425: "Too Early", 429: "Too Many Requests", 431: "Request Header Fields Too Large",
		500: "Internal Server Error", 501: "Not Implemented", 502: "Bad Gateway", 503: "Service Unavailable", 504: "Gateway Timeout",
	}[s]
	if name == "" {
		return strconv.Itoa(s)
	}
	return fmt.Sprintf("%d %s", s, name)
}

// upperFirst begins a sentence.
func upperFirst(s string) string {
	if s == "" || s[0] < 'a' || s[0] > 'z' {
		return s
	}
	return string(s[0]-'a'+'A') + s[1:]
}

// shortURL is a URL without its query, for sentences.
func shortURL(raw string) string {
	before, _, ok := strings.Cut(shownRaw(raw), "?")
	if ok {
		before += "?…"
	}
	return before
}
