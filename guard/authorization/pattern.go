package authorization

import (
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// pattern finds the values of a route's wildcards in a path, as http.ServeMux does. It is
// apart from the mux because a request is judged on paper too, where no mux has seen it.
type pattern struct {
	segments []segment
}

// segment is what stands between two slashes: a literal, decoded, or a wildcard.
type segment struct {
	literal string
	wild    bool
	rest    bool   // it takes the rest of the path, slashes included
	name    string // "" for the rest after a closing slash
}

// parsePattern reads "[METHOD ][HOST]/path". What it means, and what is wrong with it, is for
// http.ServeMux to say: see valid.
func parsePattern(text string) (p pattern, err error) {
	if err = valid(text); err != nil {
		return p, err
	}
	path := text[strings.IndexByte(text, '/')+1:]
	parts := strings.Split(path, "/")
	for i, s := range parts {
		name, wild := strings.CutPrefix(s, "{")
		name, rest := strings.CutSuffix(strings.TrimSuffix(name, "}"), "...")
		switch {
		case s == "{$}": // nothing follows the slash
			p.segments = append(p.segments, segment{})
		case wild:
			p.segments = append(p.segments, segment{wild: true, rest: rest, name: name})
		case s == "" && i == len(parts)-1: // what ends in a slash takes all below
			p.segments = append(p.segments, segment{wild: true, rest: true})
		case s == "": // ServeMux would take it for a wildcard
			return p, errors.New("has an empty segment, which no path has")
		default:
			p.segments = append(p.segments, segment{literal: unescape(s)})
		}
	}
	return p, nil
}

// valid reports what http.ServeMux finds wrong with a pattern. It says so by a panic.
func valid(text string) (err error) {
	defer func() {
		if fault, ok := recover().(error); ok {
			err = fault
		}
	}()
	http.NewServeMux().Handle(text, http.NotFoundHandler())
	return nil
}

// names are the wildcards that have one.
func (p pattern) names() []string {
	var names []string
	for _, s := range p.segments {
		if s.name != "" {
			names = append(names, s.name)
		}
	}
	slices.Sort(names)
	return names
}

// value is the value of a wildcard in a path, if the pattern matches that.
func (p pattern) value(u *url.URL, name string) (value string, ok bool) {
	left, found := strings.CutPrefix(u.EscapedPath(), "/")
	for i, s := range p.segments {
		if !found {
			return "", false // the path is shorter
		}
		if s.rest {
			if s.name == name {
				value, ok = unescape(left), true
			}
			return value, ok
		}
		var part string
		part, left, found = strings.Cut(left, "/")
		part = unescape(part)
		switch {
		case !s.wild && part != s.literal, s.wild && part == "", i == len(p.segments)-1 && found:
			return "", false
		case s.name == name:
			value, ok = part, true
		}
	}
	return value, ok
}

// unescape decodes once. What is no encoding stands for itself, as with http.ServeMux.
func unescape(s string) string {
	if u, err := url.PathUnescape(s); err == nil {
		return u
	}
	return s
}

// climbs reports whether a server may take the path, which is decoded, for another one: if it
// has a dot segment, be it encoded, between backslashes, or with parameters behind a semicolon.
// A ServeMux lets /users/alice/%2E%2E/bob stand: alice's, by its segments, and bob's to others.
func climbs(path string) bool {
	for s := range strings.FieldsFuncSeq(path, func(c rune) bool { return c == '/' || c == '\\' }) {
		if s[0] != '.' {
			continue
		}
		if s, _, _ = strings.Cut(s, ";"); s == "." || s == ".." {
			return true
		}
	}
	return false
}
