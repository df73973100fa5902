package bench

import (
	"net/http"
	"regexp"
	"slices"
	"strings"
)

// This file is the browser's side of the CORS protocol, written from
// https://fetch.spec.whatwg.org/ and from nothing else: what a page may do, given an
// answer's head.

// corsCheck is https://fetch.spec.whatwg.org/#concept-cors-check.
func corsCheck(origin string, credentials bool, h http.Header) bool {
	values := h["Access-Control-Allow-Origin"]
	if len(values) == 0 {
		return false
	}
	allowed := strings.Join(values, ", ")
	if !credentials && allowed == "*" {
		return true
	}
	if allowed != origin {
		return false
	}
	return !credentials || strings.Join(h["Access-Control-Allow-Credentials"], ", ") == "true"
}

var (
	token  = regexp.MustCompile("^[!#$%&'*+.^_`|~0-9A-Za-z-]+$")
	digits = regexp.MustCompile("^[0-9]+$")
)

// listValues is https://fetch.spec.whatwg.org/#extract-header-list-values for lists of
// tokens.
func listValues(lines []string) (values []string, ok bool) {
	for v := range strings.SplitSeq(strings.Join(lines, ","), ",") {
		v = strings.Trim(v, " \t")
		if v == "" {
			continue
		}
		if !token.MatchString(v) {
			return nil, false
		}
		values = append(values, v)
	}
	return values, true
}

// preflightPasses is step 7 of https://fetch.spec.whatwg.org/#cors-preflight-fetch,
// for a request with the method and the unsafe header names, in lower case.
func preflightPasses(origin, method string, names []string, credentials bool, status int, h http.Header) bool {
	if !corsCheck(origin, credentials, h) || status < 200 || status > 299 {
		return false
	}
	methods, ok := listValues(h["Access-Control-Allow-Methods"])
	if !ok {
		return false
	}
	allowed, ok := listValues(h["Access-Control-Allow-Headers"])
	if !ok {
		return false
	}
	wild := func(list []string) bool { return !credentials && slices.Contains(list, "*") }
	safe := method == "GET" || method == "HEAD" || method == "POST"
	if !slices.Contains(methods, method) && !safe && !wild(methods) {
		return false
	}
	for _, name := range names {
		listed := slices.ContainsFunc(allowed, func(a string) bool { return strings.EqualFold(a, name) })
		if !listed && (name == "authorization" || !wild(allowed)) {
			return false
		}
	}
	return true
}

// maxAge is for how long the browser remembers a preflight that passed.
func maxAge(h http.Header) string {
	v := h["Access-Control-Max-Age"]
	if len(v) != 1 || !digits.MatchString(v[0]) {
		return "5"
	}
	return v[0]
}

// exposed is https://fetch.spec.whatwg.org/#concept-response-cors-exposed-header-name-list,
// sorted, and "*" where it stands for all.
func exposed(credentials bool, h http.Header) string {
	names, _ := listValues(h["Access-Control-Expose-Headers"])
	if !credentials && slices.Contains(names, "*") {
		return "*"
	}
	for i, n := range names {
		names[i] = strings.ToLower(n)
	}
	slices.Sort(names)
	return strings.Join(slices.Compact(names), ",")
}
