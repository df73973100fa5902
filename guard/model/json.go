package model

import (
	"bytes"
	"encoding/json"
)

// maxDepth is how deep arrays and objects may be nested. Schemas of tools are the deepest that
// honest calls hold.
const maxDepth = 64

// maxNames is how many names one object may have: those beyond a few are kept to find the one that is
// there twice, at many times their own size.
const maxNames = 4096

// reader walks over one JSON text (RFC 8259). It accepts what all parsers read alike: a name
// that is there twice is refused at every depth, because moat could believe one of the two and
// the provider the other. It keeps nothing of the text.
type reader struct {
	b     []byte
	i     int
	depth int
	// why is what is wrong. Once it is set nothing more is read.
	why string
}

func (r *reader) fail(why string) {
	if r.why == "" {
		r.why = why
	}
	r.i = len(r.b)
}

// peek is the byte that the next token begins with; 0 at the end.
func (r *reader) peek() byte {
	for ; r.i < len(r.b); r.i++ {
		switch c := r.b[r.i]; c {
		case ' ', '\t', '\n', '\r':
		default:
			return c
		}
	}
	return 0
}

// open goes into an array or object.
func (r *reader) open(begin byte) bool {
	if r.peek() != begin {
		r.fail("not an object or list where one belongs")
		return false
	}
	if r.depth++; r.depth > maxDepth {
		r.fail("nested too deeply")
		return false
	}
	r.i++
	return true
}

// ended reports whether an array or object ends here, and goes past its end or the comma.
func (r *reader) ended(end byte, first bool) bool {
	switch c := r.peek(); {
	case c == end:
		r.i++
		r.depth--
		return true
	case first && c != 0:
		return false
	case c == ',':
		r.i++
		return false
	}
	r.fail("not JSON")
	return true
}

// object calls each for every name; it has to go past the value.
func (r *reader) object(each func(name []byte)) {
	if !r.open('{') {
		return
	}
	var seen names
	for first := true; !r.ended('}', first); first = false {
		name := r.text()
		if r.peek() != ':' {
			r.fail("not JSON")
			return
		}
		r.i++
		if len(seen.many) >= maxNames {
			r.fail("too many names in one object")
			return
		}
		if !seen.add(name) {
			r.fail("a name is there twice")
			return
		}
		each(name)
	}
}

// array calls each for every item; it has to go past it.
func (r *reader) array(each func()) {
	if !r.open('[') {
		return
	}
	for first := true; !r.ended(']', first); first = false {
		each()
	}
}

// skip goes past any value.
func (r *reader) skip() {
	switch r.peek() {
	case '{':
		r.object(func([]byte) { r.skip() })
	case '[':
		r.array(r.skip)
	case '"':
		r.quoted()
	default:
		r.literal()
	}
}

// quoted goes past a string, and returns it with its quotes.
func (r *reader) quoted() (raw []byte, escaped bool) {
	if r.peek() != '"' {
		r.fail("not a text where one belongs")
		return nil, false
	}
	from := r.i
	for r.i++; r.i < len(r.b); r.i++ {
		switch c := r.b[r.i]; {
		case c == '"':
			r.i++
			return r.b[from:r.i], escaped
		case c == '\\':
			escaped = true
			if r.i++; !r.escape() {
				r.fail("not JSON")
				return nil, false
			}
		case c < ' ':
			r.fail("a control character in a text")
			return nil, false
		}
	}
	r.fail("not JSON")
	return nil, false
}

// escape reports whether a backslash may stand before what is here.
func (r *reader) escape() bool {
	if r.i >= len(r.b) {
		return false
	}
	if r.b[r.i] != 'u' {
		return bytes.IndexByte([]byte(`"\/bfnrt`), r.b[r.i]) >= 0
	}
	for range 4 {
		if r.i++; r.i >= len(r.b) || !hex(r.b[r.i]) {
			return false
		}
	}
	return true
}

func hex(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
}

// text goes past a string, and returns what it says. It may be a part of the text that is read.
func (r *reader) text() []byte {
	raw, escaped := r.quoted()
	if len(raw) < 2 {
		return nil
	}
	if !escaped {
		return raw[1 : len(raw)-1]
	}
	var s string
	if err := json.Unmarshal(raw, &s); err != nil {
		r.fail("not JSON")
	}
	return []byte(s)
}

// literal goes past a number, true, false or null, and returns it.
func (r *reader) literal() []byte {
	r.peek()
	from := r.i
	for r.i < len(r.b) && bytes.IndexByte([]byte(" \t\n\r,]}"), r.b[r.i]) < 0 {
		r.i++
	}
	switch word := r.b[from:r.i]; {
	case string(word) == "true", string(word) == "false", string(word) == "null", number(word):
		return word
	}
	r.fail("not JSON")
	return nil
}

// null goes past a null, and reports whether there was one.
func (r *reader) null() bool {
	if r.peek() != 'n' {
		return false
	}
	r.literal()
	return true
}

// number reports whether a word is a number of RFC 8259 section 6.
func number(word []byte) bool {
	word = bytes.TrimPrefix(word, []byte("-"))
	rest := digits(word)
	if len(rest) == len(word) || len(word)-len(rest) > 1 && word[0] == '0' {
		return false
	}
	if len(rest) > 0 && rest[0] == '.' {
		part := rest[1:]
		if rest = digits(part); len(rest) == len(part) {
			return false
		}
	}
	if len(rest) > 0 && (rest[0] == 'e' || rest[0] == 'E') {
		part := rest[1:]
		if len(part) > 0 && (part[0] == '+' || part[0] == '-') {
			part = part[1:]
		}
		if rest = digits(part); len(rest) == len(part) {
			return false
		}
	}
	return len(rest) == 0
}

// digits is what follows the digits that b begins with.
func digits(b []byte) []byte {
	for len(b) > 0 && '0' <= b[0] && b[0] <= '9' {
		b = b[1:]
	}
	return b
}

// names are those of one object. Most have few.
type names struct {
	few  [8][]byte
	n    int
	many map[string]struct{}
}

// add reports whether the name is new.
func (s *names) add(name []byte) bool {
	if s.n < len(s.few) {
		for _, other := range s.few[:s.n] {
			if bytes.Equal(name, other) {
				return false
			}
		}
		s.few[s.n] = name
		s.n++
		return true
	}
	if s.many == nil {
		s.many = make(map[string]struct{})
		for _, other := range s.few {
			s.many[string(other)] = struct{}{}
		}
	}
	if _, there := s.many[string(name)]; there {
		return false
	}
	s.many[string(name)] = struct{}{}
	return true
}
