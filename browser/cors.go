package browser

import (
	"slices"
	"strconv"
	"strings"
	"time"
)

// corsFault is why a CORS check failed: Chromium's name, and the value or name that it
// names along with it.
type corsFault struct {
	name      CORSError
	parameter string
}

// preflightNames are the names of the CORS check's failures when a preflight's answer
// fails it.
var preflightNames = map[CORSError]CORSError{
	MissingAllowOriginHeader:  PreflightMissingAllowOriginHeader,
	MultipleAllowOriginValues: PreflightMultipleAllowOriginValues,
	InvalidAllowOriginValue:   PreflightInvalidAllowOriginValue,
	AllowOriginMismatch:       PreflightAllowOriginMismatch,
	WildcardOriginNotAllowed:  PreflightWildcardOriginNotAllowed,
	InvalidAllowCredentials:   PreflightInvalidAllowCredentials,
}

// corsCheck is https://fetch.spec.whatwg.org/#concept-cors-check. The standard only says
// success or failure; the names are in the order in which Chromium finds them.
func corsCheck(h Header, origin string, include bool) *corsFault {
	allow, ok := h.Get("Access-Control-Allow-Origin")
	switch {
	case !ok:
		return &corsFault{MissingAllowOriginHeader, ""}
	case allow == "*" && !include:
		return nil
	case allow == "*":
		return &corsFault{WildcardOriginNotAllowed, ""}
	case allow != origin && strings.ContainsAny(allow, " ,"):
		return &corsFault{MultipleAllowOriginValues, allow}
	case allow != origin && allow != "null" && !urlLike(allow):
		return &corsFault{InvalidAllowOriginValue, allow}
	case allow != origin:
		return &corsFault{AllowOriginMismatch, allow}
	}
	if include {
		if c := h.Value("Access-Control-Allow-Credentials"); c != "true" {
			return &corsFault{InvalidAllowCredentials, c}
		}
	}
	return nil
}

// urlLike reports whether a URL parser takes the value for an absolute URL. It only
// decides between two names of the same failure.
func urlLike(s string) bool {
	scheme, rest, ok := strings.Cut(s, ":")
	letters := "abcdefghijklmnopqrstuvwxyz"
	if !ok || scheme == "" || strings.Trim(strings.ToLower(scheme), letters+"0123456789+-.") != "" || scheme[0] >= '0' && scheme[0] <= '9' {
		return false
	}
	switch strings.ToLower(scheme) {
	case "http", "https", "ws", "wss", "ftp":
		_, err := parseURL("http:"+"//"+strings.TrimLeft(rest, "/"), nil)
		return err == nil
	}
	return true
}

// allowList parses Access-Control-Allow-Methods or -Headers. ok is false if it is no list
// of tokens.
func allowList(h Header, name string) (list []string, ok bool) {
	for item := range strings.SplitSeq(h.Value(name), ",") {
		item = strings.Trim(item, " \t")
		if item == "" {
			continue
		}
		if !token(item) {
			return nil, false
		}
		list = append(list, item)
	}
	return list, true
}

// permit is what a preflight's answer allows, as the browser remembers it.
type permit struct {
	methods, headers []string // headers in lower case
	include          bool     // it was asked for a credentialed request
	until            time.Time
}

// permitKey is the key of the preflight cache
// (https://fetch.spec.whatwg.org/#concept-cache-match), with the tab's site for the
// network partition key.
type permitKey struct{ partition, origin, url string }

const defaultPreflightAge = 5 * time.Second // https://fetch.spec.whatwg.org/#cors-preflight-fetch-0

// preflightAge is how long the answer may be remembered.
func (p *Profile) preflightAge(h Header) time.Duration {
	v, ok := h.Get("Access-Control-Max-Age")
	n, err := strconv.ParseInt(strings.Trim(v, " \t"), 10, 64)
	switch {
	case ok && err != nil && p.NarrowPermits:
		return 0
	case !ok || err != nil:
		return min(defaultPreflightAge, p.MaxPreflightAge)
	case n <= 0:
		return 0
	case n > int64(p.MaxPreflightAge/time.Second):
		return p.MaxPreflightAge
	}
	return time.Duration(n) * time.Second
}

// newPermit reads what the answer to a preflight allows.
func newPermit(h Header, include bool) (*permit, *corsFault) {
	methods, ok := allowList(h, "Access-Control-Allow-Methods")
	if !ok {
		return nil, &corsFault{InvalidAllowMethodsPreflightResponse, ""}
	}
	headers, ok := allowList(h, "Access-Control-Allow-Headers")
	if !ok {
		return &permit{methods: methods, include: include}, &corsFault{InvalidAllowHeadersPreflightResponse, ""}
	}
	for i, name := range headers {
		headers[i] = strings.ToLower(name)
	}
	return &permit{methods: methods, headers: headers, include: include}, nil
}

// covers holds a request against the permit. "*" is only a wildcard without credentials.
func (m *permit) covers(p *Profile, method string, unsafe []string) *corsFault {
	if !safelistedMethod(method) && !slices.Contains(m.methods, method) && (m.include || !slices.Contains(m.methods, "*")) {
		return &corsFault{MethodDisallowedByPreflightResponse, method}
	}
	wild := !m.include && slices.Contains(m.headers, "*")
	for _, name := range unsafe {
		if slices.Contains(m.headers, name) || wild && (name != "authorization" || p.WildcardCoversAuthorization) {
			continue
		}
		return &corsFault{HeaderDisallowedByPreflightResponse, name}
	}
	return nil
}

// wildAuthorization reports whether it took the "*" to allow Authorization. A browser that
// lets it do so (WildcardCoversAuthorization) does not remember it.
func (m *permit) wildAuthorization(unsafe []string) bool {
	return slices.Contains(unsafe, "authorization") && !slices.Contains(m.headers, "authorization")
}

// exposed returns the names that script can read of a cors answer
// (https://fetch.spec.whatwg.org/#concept-filtered-response-cors).
func exposed(h Header, include bool) []string {
	list, _ := allowList(h, "Access-Control-Expose-Headers")
	all := !include && slices.Contains(list, "*")
	return readable(h, func(name string) bool {
		switch name {
		case "cache-control", "content-language", "content-length", "content-type", "expires", "last-modified", "pragma":
			return true
		}
		return all || slices.ContainsFunc(list, func(l string) bool { return strings.EqualFold(l, name) })
	})
}

// readable returns the names of the fields for which ok holds, sorted. No script ever
// reads Set-Cookie.
func readable(h Header, ok func(name string) bool) []string {
	var names []string
	for _, f := range h {
		if name := strings.ToLower(f.Name); name != "set-cookie" && name != "set-cookie2" && ok(name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}
