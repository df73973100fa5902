package browser

import (
	"encoding/json"
	"strings"

	"github.com/moat-gateway/moat/web"
)

// corpFault is Chromium's two names of why a resource may not be embedded.
type corpFault struct{ reason, netError string }

// corpBlocks is https://fetch.spec.whatwg.org/#cross-origin-resource-policy-check for a
// request that is not CORS.
func corpBlocks(h Header, coep string, initiator location, opaque bool, target web.Origin, credentials bool) *corpFault {
	policy, ok := h.Get("Cross-Origin-Resource-Policy")
	if policy != "same-origin" && policy != "same-site" && policy != "cross-origin" {
		ok = false
	}
	if !opaque && initiator.origin == target {
		return nil
	}
	if !ok {
		if coep == "require-corp" || coep == "credentialless" && credentials {
			return &corpFault{"corp-not-same-origin-after-defaulted-to-same-origin-by-coep", "net::ERR_BLOCKED_BY_RESPONSE.NotSameOriginAfterDefaultedToSameOriginByCoep"}
		}
		return nil
	}
	switch policy {
	case "same-origin":
		return &corpFault{"corp-not-same-origin", "net::ERR_BLOCKED_BY_RESPONSE.NotSameOrigin"}
	case "same-site":
		if opaque || !sameSiteHost(initiator.origin, target) || initiator.origin.Scheme() != "https" && target.Scheme() == "https" {
			return &corpFault{"corp-not-same-site", "net::ERR_BLOCKED_BY_RESPONSE.NotSameSite"}
		}
	}
	return nil
}

// sameSiteHost is "schemelessly same site".
func sameSiteHost(a, b web.Origin) bool {
	strip := func(o web.Origin) string {
		_, host, _ := strings.Cut(o.Site(), "://")
		return host
	}
	return strip(a) == strip(b)
}

// javaScript reports whether it is a JavaScript MIME type essence
// (https://mimesniff.spec.whatwg.org/#javascript-mime-type).
func javaScript(essence string) bool {
	switch essence {
	case "application/ecmascript", "application/javascript", "application/x-ecmascript", "application/x-javascript",
		"text/ecmascript", "text/javascript", "text/javascript1.0", "text/javascript1.1", "text/javascript1.2",
		"text/javascript1.3", "text/javascript1.4", "text/javascript1.5", "text/jscript", "text/livescript",
		"text/x-ecmascript", "text/x-javascript":
		return true
	}
	return false
}

func jsonType(essence string) bool {
	return essence == "application/json" || essence == "text/json" || strings.HasSuffix(essence, "+json")
}

func xmlType(essence string) bool {
	return essence == "application/xml" || essence == "text/xml" || strings.HasSuffix(essence, "+xml") && essence != "image/svg+xml"
}

// noSniff is https://fetch.spec.whatwg.org/#determine-nosniff.
func noSniff(h Header) bool {
	first, _, _ := strings.Cut(h.Value("X-Content-Type-Options"), ",")
	return strings.EqualFold(strings.Trim(first, " \t"), "nosniff")
}

// orbBlocks is opaque response blocking (https://github.com/annevk/orb), as far as type
// and the beginning of the body tell.
func orbBlocks(a Answer) bool {
	kind := essence(a.Header.Value("Content-Type"))
	sniffed := kind == "text/html" || kind == "text/plain" || jsonType(kind) || xmlType(kind)
	text := strings.TrimLeft(a.Body, " \t\r\n")
	switch {
	case kind == "text/css", kind == "image/svg+xml":
		return false
	case neverSniffed(kind), sniffed && noSniff(a.Header):
		return true
	case kind == "", isImage(kind, a.Body):
		return false
	}
	return strings.HasPrefix(text, ")]}'") || looksJSON(text) || looksHTML(text) || strings.HasPrefix(text, "<?xml")
}

// orbParses is orbBlocks for a browser that parses what it lets through.
func orbParses(a Answer) bool {
	kind := essence(a.Header.Value("Content-Type"))
	switch {
	case javaScript(kind):
		return false
	case kind == "text/css", kind == "image/svg+xml", kind == "":
		return false
	}
	return orbBlocks(a) || !isImage(kind, a.Body) && json.Valid([]byte(a.Body))
}

func neverSniffed(kind string) bool {
	switch kind {
	case "application/gzip", "application/x-gzip", "application/x-protobuf", "application/zip", "text/event-stream",
		"application/msword", "application/pdf", "application/vnd.ms-excel", "text/csv", "application/x-zip-compressed",
		"application/vnd.ms-powerpoint", "application/vnd.openxmlformats-officedocument.wordprocessingml.document":
		return true
	}
	return false
}

// looksJSON: an object whose first key is a string.
func looksJSON(body string) bool {
	rest, ok := strings.CutPrefix(strings.TrimLeft(body, " \t\r\n"), "{")
	if !ok {
		return false
	}
	rest = strings.TrimLeft(rest, " \t\r\n")
	if !strings.HasPrefix(rest, `"`) {
		return false
	}
	_, rest, ok = strings.Cut(rest[1:], `"`)
	return ok && strings.HasPrefix(strings.TrimLeft(rest, " \t\r\n"), ":")
}

func looksHTML(body string) bool {
	body = strings.ToLower(strings.TrimLeft(body, " \t\r\n"))
	for _, tag := range []string{
		"<!doctype html", "<script", "<html", "<head", "<iframe", "<h1", "<div", "<font", "<table", "<a",
		"<style", "<title", "<b", "<body", "<br", "<p",
	} {
		if rest, ok := strings.CutPrefix(body, tag); ok && (rest == "" || strings.ContainsAny(rest[:1], " \t\r\n>/")) {
			return true
		}
	}
	return false
}

// scriptTypeBlocks reports whether a classic script of that type does not run
// (https://fetch.spec.whatwg.org/#should-response-to-request-be-blocked-due-to-mime-type?).
func scriptTypeBlocks(h Header) bool {
	kind := essence(h.Value("Content-Type"))
	for _, prefix := range []string{"audio/", "image/", "video/"} {
		if strings.HasPrefix(kind, prefix) {
			return true
		}
	}
	return kind == "text/csv" || noSniff(h) && !javaScript(kind)
}
