package config

import (
	"fmt"
	"strings"
)

// Place is where a file sets something.
type Place struct {
	// File, Line and Col are as in Fault. Line is 0 if the file does not set it, and what
	// holds is the default.
	File      string
	Line, Col int
	// Field is the path of the field, such as "policies.pages.origins".
	Field string
	// Text is the line as it is written, with references, and not what they stand for.
	Text string
}

// String is the place as faults have it: "moat.yaml:14:5".
func (p Place) String() string {
	if p.Line == 0 {
		return ""
	}
	return fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Col)
}

// Where tells where a field of the route of that name is set, such as "origins" or
// "cors.request_headers": on the route itself, or else in the policy that it follows. For
// route "" it is a field of the file, such as "public_origins".
func (l *Loaded) Where(route, field string) Place {
	paths := []string{field}
	for i := range l.source.Routes {
		r := &l.source.Routes[i]
		if route == "" || r.label() != route {
			continue
		}
		at := item("routes", i)
		paths = []string{join(at, field)}
		if r.Policy != "" {
			paths = append(paths, join(join("policies", r.Policy), field))
		}
		break
	}
	for _, path := range paths {
		if at, ok := l.at[path]; ok && at.line > 0 && len(l.Files) > 0 {
			return Place{File: l.Files[0], Line: at.line, Col: at.col, Field: path, Text: l.line(at.line)}
		}
	}
	return Place{Field: paths[len(paths)-1]}
}

// line is one line of the file, without what surrounds it.
func (l *Loaded) line(n int) string {
	i := 0
	for text := range strings.Lines(string(l.text)) {
		if i++; i == n {
			return strings.TrimSpace(text)
		}
	}
	return ""
}
