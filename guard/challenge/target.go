package challenge

import (
	"errors"
	"strings"
)

// Target is where a visitor goes on after a wait: a path here, with its query. The zero
// Target is "/". Only ParseTarget makes another, so none leads to another site.
type Target struct{ s string }

const maxTarget = 2048

// ParseTarget reads a path and query, as a request has them.
//
// It is stricter than a browser must be held to, so that it need not know how each reads what
// is odd: browsers take a backslash for a slash, skip tabs and line ends, and take what
// begins with two slashes for another host. None of these is in a path that a route serves.
func ParseTarget(s string) (Target, error) {
	path, _, _ := strings.Cut(s, "?")
	switch {
	case len(s) > maxTarget:
		return Target{}, errors.New("the target is longer than 2048 bytes")
	case !strings.HasPrefix(s, "/"):
		return Target{}, errors.New("the target does not begin with a slash")
	case strings.ContainsFunc(s, func(c rune) bool { return c <= ' ' || c >= 0x7f || strings.ContainsRune("\\#\"<>", c) }):
		return Target{}, errors.New("the target has a character that no path and query has")
	}
	for segment := range strings.SplitSeq(strings.TrimSuffix(path[1:], "/"), "/") {
		switch strings.ReplaceAll(strings.ToLower(segment), "%2e", ".") {
		case ".", "..":
			return Target{}, errors.New("the target's path has a dot segment")
		case "":
			if path != "/" {
				return Target{}, errors.New("the target's path has an empty segment")
			}
		}
	}
	return Target{s}, nil
}

// String is what to put into Location.
func (t Target) String() string {
	if t.s == "" {
		return "/"
	}
	return t.s
}
