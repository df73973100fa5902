package browser

import (
	"strconv"
	"strings"
)

// throw ends a request that the API itself refuses.
func (l *load) throw(algorithm, link, format string, args ...any) bool {
	l.fail(algorithm, link, format, args...)
	l.t.Verdict = Verdict{Outcome: Threw, Script: l.api.throws}
	return false
}

func (l *load) corsFailed(f corsFault) bool {
	facts := ConsoleFacts{
		Error: f.name, API: l.req.API, URL: l.url().url.String(), FirstURL: l.urls[0].url.String(),
		Origin: l.from.origin.String(), Parameter: f.parameter, Space: l.b.Space(l.url().url.Host),
	}
	if l.opaque {
		facts.Origin = "null"
	}
	l.t.Verdict = Verdict{
		Outcome: Blocked, Script: l.api.failed, CORS: f.name,
		Console: facts.Text(), Firefox: l.firefoxName(f),
	}
	if l.req.API == WebSocket {
		l.t.Verdict = Verdict{Outcome: Blocked, Script: l.api.failed, NetError: "net::ERR_BLOCKED_BY_LOCAL_NETWORK_ACCESS_CHECKS"}
	}
	return false
}

// firefoxFailed is Firefox's name where it has none for the reason.
const firefoxFailed = "CORSDidNotSucceed"

// firefoxFailure is Firefox's name of a failure that is not CORS, on the way of a request
// that is.
func (l *load) firefoxFailure() string {
	if l.crossed {
		return firefoxFailed
	}
	return ""
}

// firefoxName is Firefox's name of the fault. It takes for several values only what came in
// several fields.
func (l *load) firefoxName(f corsFault) string {
	if f.name == MultipleAllowOriginValues || f.name == PreflightMultipleAllowOriginValues {
		if answer := l.t.Exchanges[len(l.t.Exchanges)-1].Answer; len(answer.Header.Values("Access-Control-Allow-Origin")) < 2 {
			return AllowOriginMismatch.Info().Firefox
		}
	}
	if f.name == PreflightDisallowedRedirect && l.redirect == "manual" {
		return PreflightInvalidStatus.Info().Firefox
	}
	return f.name.Info().Firefox
}

func (l *load) blocked(reason, netError string) bool {
	l.t.Verdict = Verdict{Outcome: Blocked, Script: l.api.failed, BlockedReason: reason, NetError: netError, Firefox: l.firefoxFailure()}
	return false
}

func (l *load) netError(name string) bool {
	outcome := Failed
	if strings.HasPrefix(name, "net::ERR_BLOCKED") || strings.HasPrefix(name, "net::ERR_UNSAFE") {
		outcome = Blocked
	}
	l.t.Verdict = Verdict{Outcome: outcome, Script: l.api.failed, NetError: name, Firefox: l.firefoxFailure()}
	return false
}

// finish is what the API makes of an answer that passed all checks.
func (l *load) finish(a Answer) {
	v := &l.t.Verdict
	defer func() { v.Body = v.Outcome == Readable && l.method != "HEAD" && a.Status != 204 && a.Status != 304 }()
	status := strconv.Itoa(a.Status)
	switch l.req.API {
	case Fetch, XHR:
		l.finishScripted(a)
	case EventSource:
		kind := essence(a.Header.Value("Content-Type"))
		if a.Status != 200 || kind != "text/event-stream" {
			l.fail("EventSource", linkSSE, "status %s and type %q are no event stream", status, kind)
			*v = Verdict{Outcome: Failed, Script: "error"}
			return
		}
		*v = Verdict{Outcome: Readable, Script: "open", Status: a.Status}
	case Image, Script, ModuleScript, Stylesheet, Font:
		l.finishElement(a)
	case Beacon, Ping:
		*v = Verdict{Outcome: Opaque, Script: l.api.failed}
	case WebSocket:
		if a.Status != 101 {
			l.fail("WebSocket", linkWebSockets, "status %s is no handshake", status)
			*v = Verdict{Outcome: Failed, Script: "error"}
			return
		}
		l.step("WebSocket", linkWebSockets, "no CORS check here: script reads and writes")
		*v = Verdict{Outcome: Readable, Script: "open", Status: 101}
	case Link, Form, Frame:
		l.finishNavigation(a)
	}
}

// finishScripted filters the answer (https://fetch.spec.whatwg.org/#concept-filtered-response).
func (l *load) finishScripted(a Answer) {
	status := strconv.Itoa(a.Status)
	v := Verdict{Outcome: Readable, Status: a.Status, Type: "basic"}
	switch {
	case l.mode == "no-cors" && l.left:
		v = Verdict{Outcome: Opaque, Type: "opaque", Script: "opaque 0"}
		l.step("opaque filtered response", linkFiltered, "script gets an answer without status, headers and body")
	case l.cors:
		v.Type = "cors"
		v.Headers = exposed(a.Header, l.credentials == "include")
		l.step("CORS filtered response", linkFiltered, "script can read status %s, the body and: %s", status, strings.Join(v.Headers, ", "))
	default:
		v.Headers = readable(a.Header, func(string) bool { return true })
	}
	if v.Script == "" {
		v.Script = v.Type + " " + status
	}
	if l.req.API == XHR {
		v.Script = "load " + status
	}
	l.t.Verdict = v
}

// finishElement is for what is shown or run, and never read.
func (l *load) finishElement(a Answer) {
	v := Verdict{Outcome: Opaque, Script: "load"}
	if l.cors || l.sameOriginAs(l.url()) {
		v.Outcome = Readable
	}
	l.t.Verdict = v
	kind := essence(a.Header.Value("Content-Type"))
	if !usable(l.req.API, kind, a) {
		l.fail("the element", linkNoSniff, "status %d and type %q are not what a %s needs", a.Status, kind, l.req.API)
		l.t.Verdict = Verdict{Outcome: Failed, Script: "error"}
		if l.cors && (l.req.API == ModuleScript && !javaScript(kind) || l.req.API == Script && scriptTypeBlocks(a.Header) || l.req.API == Stylesheet && kind != "text/css" && noSniff(a.Header)) {
			l.t.Verdict.Firefox = firefoxFailed
		}
		if l.req.API == Stylesheet && !l.p.MistypedStylesheetsFail && a.Status >= 200 && a.Status <= 299 && !noSniff(a.Header) {
			l.t.Verdict.Script = "load" // and applies nothing
		}
	}
}

// usable reports whether an element can do something with the answer.
func usable(api API, kind string, a Answer) bool {
	success := a.Status >= 200 && a.Status <= 299
	if api == Image { // whatever its status
		return isImage(kind, a.Body)
	}
	return success &&
		(api != Script || !scriptTypeBlocks(a.Header)) &&
		(api != ModuleScript || javaScript(kind)) &&
		(api != Stylesheet || kind == "text/css")
}

func isImage(kind, body string) bool {
	if kind == "image/svg+xml" {
		return strings.Contains(body, "<svg")
	}
	for _, signature := range []string{"BM", "GIF8", "\x89PNG", "\xff\xd8\xff"} {
		if strings.HasPrefix(body, signature) {
			return true
		}
	}
	return false
}

func (l *load) finishNavigation(a Answer) {
	v := Verdict{Outcome: Opaque, Script: "shown"}
	if l.req.API == Frame {
		v.Script = "load"
		if why := framingForbidden(a.Header, l); why != "" {
			l.fail("X-Frame-Options", "https://html.spec.whatwg.org/#the-x-frame-options-header", "%s", why)
			v = Verdict{Outcome: Blocked, Script: "load", BlockedReason: "other", NetError: "net::ERR_BLOCKED_BY_RESPONSE"}
		}
	}
	if l.sameOriginAs(l.url()) {
		v.Outcome = Readable
	}
	l.t.Verdict = v
}

// framingForbidden is X-Frame-Options.
func framingForbidden(h Header, l *load) string {
	switch x := strings.ToLower(strings.Trim(h.Value("X-Frame-Options"), " ")); {
	case x == "deny":
		return "X-Frame-Options: DENY keeps the document out of every frame"
	case x == "sameorigin" && (l.opaque || l.from.origin != l.url().origin || l.top.origin != l.url().origin):
		return "X-Frame-Options: SAMEORIGIN keeps the document out of other origins' frames"
	}
	return ""
}
