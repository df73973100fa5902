package config

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// maxValue bounds how much of a value a fault repeats, in bytes.
const maxValue = 120

// Fault is one thing that is wrong, or worth a warning, and where.
type Fault struct {
	// File, Line and Col say where; lines and columns count from 1, columns in
	// characters. Where a flag is at fault and no file, they are zero.
	File      string
	Line, Col int
	// What is the path of the field, such as "routes[0].policy", or the flag.
	What string
	// Value is what stands there, as it was written: a reference, never what it
	// stands for. It is empty for what is missing, secret, or no scalar.
	Value string
	// Reason says what is wrong and how to mend it.
	Reason string
}

// Error returns the fault in one line: "moat.yaml:14:9: routes[0].policy: "pges": no
// such policy; did you mean "pages"?".
func (f Fault) Error() string {
	var b strings.Builder
	if f.File != "" {
		fmt.Fprintf(&b, "%s:%d:%d: ", f.File, f.Line, f.Col)
	}
	if f.What != "" {
		b.WriteString(f.What + ": ")
	}
	if f.Value != "" {
		fmt.Fprintf(&b, "%q: ", f.Value)
	}
	b.WriteString(f.Reason)
	return b.String()
}

// Faults are everything that is wrong with a configuration, in the order of the file.
type Faults []Fault

// Error returns one line for each fault.
func (f Faults) Error() string {
	lines := make([]string, len(f))
	for i := range f {
		lines[i] = f[i].Error()
	}
	return strings.Join(lines, "\n")
}

func (f Faults) sorted() Faults {
	slices.SortFunc(f, func(a, b Fault) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Col, b.Col), cmp.Compare(a.What, b.What), cmp.Compare(a.Reason, b.Reason))
	})
	return slices.Compact(f)
}

// position is where a field stands.
type position struct {
	line, col int
	// raw is the text with its references, if there are any. What they stand for must
	// not be told.
	raw string
}

// report collects faults by the path of the field that is at fault.
type report struct {
	file string
	at   map[string]position
	// flag, if not nil, names the flag that a path came from. There is no file then.
	flag             func(path string) string
	faults, warnings Faults
	// faulty are the paths that have faults.
	faulty []string
}

// fault notes what is wrong at a path. Whatever reason takes from the file must stand
// in double quotes there.
func (r *report) fault(path, value, reason string) {
	r.faults = append(r.faults, r.describe(path, value, reason))
	r.faulty = append(r.faulty, path)
}

func (r *report) warn(path, value, reason string) {
	r.warnings = append(r.warnings, r.describe(path, value, reason))
}

func (r *report) describe(path, value, reason string) Fault {
	at := r.locate(path)
	if at.raw != "" {
		value, reason = at.raw, redact(reason)
	}
	value, reason = userinfo.ReplaceAllString(value, "//[removed]@"), userinfo.ReplaceAllString(reason, "//[removed]@")
	if len(value) > maxValue {
		value = strings.ToValidUTF8(value[:maxValue], "") + "…"
	}
	f := Fault{File: r.file, Line: at.line, Col: at.col, What: path, Value: value, Reason: reason}
	if r.flag != nil {
		f = Fault{What: r.flag(path), Value: value, Reason: reason}
	}
	return f
}

// userinfo is the part of a URL that may be a password, wherever a URL was put by mistake.
var userinfo = regexp.MustCompile(`//[^/@\s"]*@`)

// locate finds where a path stands, or else the nearest block around it.
func (r *report) locate(path string) position {
	for p := path; ; {
		if at, ok := r.at[p]; ok {
			return at
		}
		i := strings.LastIndexAny(p, ".[")
		if i < 0 {
			return r.at[""]
		}
		p = p[:i]
	}
}

// has reports whether the file sets the field at that path.
func (r *report) has(path string) bool {
	_, ok := r.at[path]
	return ok
}

// redact takes out what stands in double quotes, suggestions included: for a field whose
// value came from a reference it may be a part of that value.
func redact(reason string) string {
	for _, suggestion := range []string{`; write "`, `; did you mean "`} {
		reason, _, _ = strings.Cut(reason, suggestion)
	}
	return quoted.ReplaceAllString(reason, `"…"`)
}

var quoted = regexp.MustCompile(`"(\\.|[^"\\])*"?`)

// join appends a field's name to the path of its block.
func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// item is the path of the i-th item of a list.
func item(path string, i int) string { return fmt.Sprintf("%s[%d]", path, i) }
