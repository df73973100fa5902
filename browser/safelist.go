package browser

import (
	"slices"
	"strconv"
	"strings"
)

// normalizeMethod is https://fetch.spec.whatwg.org/#concept-method-normalize: only these
// six are put into upper case, so "patch" stays what it is.
func normalizeMethod(m string) string {
	switch up := strings.ToUpper(m); up {
	case "DELETE", "GET", "HEAD", "OPTIONS", "POST", "PUT":
		return up
	}
	return m
}

func safelistedMethod(m string) bool { return m == "GET" || m == "HEAD" || m == "POST" }

// forbiddenMethod is https://fetch.spec.whatwg.org/#forbidden-method.
func forbiddenMethod(m string) bool {
	return strings.EqualFold(m, "CONNECT") || strings.EqualFold(m, "TRACE") || strings.EqualFold(m, "TRACK")
}

// forbiddenHeaders are the names of https://fetch.spec.whatwg.org/#forbidden-request-header.
var forbiddenHeaders = []string{
	"accept-charset", "accept-encoding", "access-control-request-headers", "access-control-request-method",
	"connection", "content-length", "cookie", "cookie2", "date", "dnt", "expect", "host", "keep-alive", "origin",
	"referer", "set-cookie", "te", "trailer", "transfer-encoding", "upgrade", "via",
}

// ForbiddenRequestHeader reports whether a browser silently drops the header when script
// sets it (https://fetch.spec.whatwg.org/#forbidden-request-header).
func ForbiddenRequestHeader(name, value string) bool {
	name = strings.ToLower(name)
	if slices.Contains(forbiddenHeaders, name) || strings.HasPrefix(name, "proxy-") || strings.HasPrefix(name, "sec-") {
		return true
	}
	if name == "x-http-method" || name == "x-http-method-override" || name == "x-method-override" {
		for m := range strings.SplitSeq(value, ",") {
			if forbiddenMethod(strings.Trim(m, " \t")) {
				return true
			}
		}
	}
	return false
}

// unsafeByte is https://fetch.spec.whatwg.org/#cors-unsafe-request-header-byte.
func unsafeByte(c byte) bool {
	return c < 0x20 && c != '\t' || c == 0x7f || strings.IndexByte(`"():<>?@[\]{}`, c) >= 0
}

func contains(s string, f func(byte) bool) bool {
	for i := range len(s) {
		if f(s[i]) {
			return true
		}
	}
	return false
}

func languageByte(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z' || strings.IndexByte(" *,-.;=", c) >= 0
}

const (
	maxSafeValue  = 128  // https://fetch.spec.whatwg.org/#cors-safelisted-request-header, step 1
	maxSafeValues = 1024 // https://fetch.spec.whatwg.org/#cors-unsafe-request-header-names, step 3
)

// safelistedHeader is https://fetch.spec.whatwg.org/#cors-safelisted-request-header.
func (p *Profile) safelistedHeader(name, value string) bool {
	name = strings.ToLower(name)
	switch name {
	case "dpr", "width", "viewport-width", "downlink", "rtt", "device-memory":
		_, err := strconv.ParseFloat(value, 64)
		return p.SafeClientHints && err == nil
	case "save-data":
		return p.SafeClientHints && strings.EqualFold(value, "on")
	case "user-agent":
		return !p.UnsafeUserAgent
	}
	if len(value) > maxSafeValue {
		return false
	}
	switch name {
	case "accept":
		return !contains(value, unsafeByte)
	case "accept-language", "content-language":
		return !contains(value, func(c byte) bool { return !languageByte(c) })
	case "content-type":
		if contains(value, unsafeByte) {
			return false
		}
		if first, rest, list := strings.Cut(value, ","); list && p.FetchHeadersStayApart {
			return p.safelistedHeader(name, first) && p.safelistedHeader(name, rest)
		}
		switch essence(value) {
		case "application/x-www-form-urlencoded", "multipart/form-data", "text/plain":
			return true
		}
		return false
	case "range":
		return simpleRange(value)
	}
	return false
}

// simpleRange is "parsing a single range header value" with a range start.
func simpleRange(v string) bool {
	rest, ok := strings.CutPrefix(v, "bytes=")
	if !ok {
		return false
	}
	from, to, ok := strings.Cut(rest, "-")
	digits := func(s string) bool {
		return !contains(s, func(c byte) bool { return c < '0' || c > '9' })
	}
	if !ok || from == "" || !digits(from) || !digits(to) {
		return false
	}
	from, to = strings.TrimLeft(from, "0"), strings.TrimLeft(to, "0")
	return strings.HasSuffix(rest, "-") || len(from) < len(to) || len(from) == len(to) && from <= to
}

// essence is the type of a media type that parses (https://mimesniff.spec.whatwg.org/#parse-a-mime-type),
// in lower case; "" if it does not.
func essence(v string) string {
	v, _, _ = strings.Cut(v, ";")
	v = strings.Trim(v, "\t\n\r ")
	kind, sub, ok := strings.Cut(v, "/")
	sub = strings.TrimRight(sub, "\t\n\r ")
	if !ok || !token(kind) || !token(sub) {
		return ""
	}
	return strings.ToLower(kind + "/" + sub)
}

// token is RFC 9110's.
func token(s string) bool {
	return s != "" && !contains(s, func(c byte) bool {
		return c <= ' ' || c >= 0x7f || strings.IndexByte(`"(),/:;<=>?@[\]{}`, c) >= 0
	})
}

// UnsafeRequestHeaders are the https://fetch.spec.whatwg.org/#cors-unsafe-request-header-names
// of a header list: those for which a browser asks first, in lower case and sorted.
func (p *Profile) UnsafeRequestHeaders(h Header) []string {
	var names, safe []string
	total := 0
	for _, f := range h {
		if p.safelistedHeader(f.Name, f.Value) {
			safe = append(safe, strings.ToLower(f.Name))
			total += len(f.Value)
		} else {
			names = append(names, strings.ToLower(f.Name))
		}
	}
	if total > maxSafeValues && !p.SafeValuesAreUnlimited {
		names = append(names, safe...)
	}
	slices.Sort(names)
	if p.FetchHeadersStayApart {
		return names
	}
	return slices.Compact(names)
}
