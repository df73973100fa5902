package body

import (
	"strconv"
	"strings"

	"github.com/moat-gateway/moat/guard"
)

const (
	// maxFaults is how many faults one answer names.
	maxFaults = 8
	// maxPointer bounds a pointer, in bytes: the names in it come from the sender.
	maxPointer = 256
)

// Fault is one thing that is wrong with a request or an answer, and where. It names rules and
// places, and never a value that came.
type Fault struct {
	// Pointer is a JSON Pointer into the body, as a URI fragment (RFC 6901 section 6): "#/items/0/price".
	// "#" is the whole. It is empty where Parameter is set.
	Pointer string
	// Parameter is that of the request: "query limit", "path id", "header X-Tenant", "cookie theme".
	Parameter string
	// Detail is the rule: "maximum: 100"; or, where none of a schema's is broken, what was found: "the
	// name occurs twice".
	Detail string
}

const notDeclared = "not declared"

// denial is the refusal for the fault. What has a rule has a value too, which nobody is told.
func (f Fault) denial(reason guard.Reason) guard.Decision {
	ruled := reason == guard.BodyInvalid || reason == guard.ParameterInvalid || reason == guard.ResponseInvalid
	if ruled && f.Detail != notDeclared {
		return guard.Denial(reason, f.Where(), "", f.Detail)
	}
	return guard.Denial(reason, f.Where(), f.Detail, "")
}

// Where names the place for a record.
func (f Fault) Where() string {
	if f.Parameter != "" {
		return f.Parameter
	}
	return "body " + f.Pointer
}

// Member is the member of a problem document that tells the faults: RFC 9457 section 3 has the like
// as its example.
func Member(faults []Fault) string {
	b := []byte(`"errors":[`)
	for i, f := range faults {
		if i > 0 {
			b = append(b, ',')
		}
		if f.Parameter != "" {
			b = append(b, `{"parameter":`...)
			b = appendQuoted(b, f.Parameter)
		} else {
			b = append(b, `{"pointer":`...)
			b = appendQuoted(b, f.Pointer)
		}
		b = append(b, `,"detail":`...)
		b = append(appendQuoted(b, f.Detail), '}')
	}
	return string(append(b, ']'))
}

const hex = "0123456789abcdef"

// appendQuoted appends a JSON string. What is not plain ASCII is escaped, so that nothing that came
// from a stranger means anything to whoever shows it.
func appendQuoted(b []byte, s string) []byte {
	b = append(b, '"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b = append(b, '\\', byte(r))
		case r >= ' ' && r < 0x7f && r != '<' && r != '>' && r != '&':
			b = append(b, byte(r))
		case r > 0xffff:
			r -= 0x10000
			b = appendUnit(appendUnit(b, 0xd800+r>>10), 0xdc00+r&0x3ff)
		default:
			b = appendUnit(b, r)
		}
	}
	return append(b, '"')
}

func appendUnit(b []byte, u rune) []byte {
	return append(b, '\\', 'u', hex[u>>12&15], hex[u>>8&15], hex[u>>4&15], hex[u&15])
}

// pointer builds a JSON Pointer as a URI fragment. It stops growing at maxPointer.
type pointer struct {
	b   []byte
	cut bool
}

func (p *pointer) index(i int) { p.token(strconv.Itoa(i)) }

func (p *pointer) name(s string) { p.token(s) }

func (p *pointer) token(s string) {
	if p.cut {
		return
	}
	begin := len(p.b)
	p.b = append(p.b, '/')
	for i := range len(s) {
		switch c := s[i]; {
		case c == '~':
			p.b = append(p.b, "~0"...)
		case c == '/':
			p.b = append(p.b, "~1"...)
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', strings.IndexByte("-._!$()*+,;=:@", c) >= 0:
			p.b = append(p.b, c)
		default:
			p.b = append(p.b, '%', hex[c>>4], hex[c&15])
		}
		if len(p.b) > maxPointer {
			p.b, p.cut = append(p.b[:begin], "/..."...), true
			return
		}
	}
}

func (p *pointer) String() string { return "#" + string(p.b) }

// pointerTo is the pointer of a list of tokens.
func pointerTo(tokens []string) string {
	var p pointer
	for _, t := range tokens {
		p.token(t)
	}
	return p.String()
}
