package explain

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/moat-gateway/moat/browser"
)

// FromFetch reads a call of fetch: written by hand, or copied as fetch or fetch (Node.js)
// from the network panel of a browser. It knows literals, new Headers, URLSearchParams,
// FormData, Blob and URL, JSON.stringify, and constants that the text itself declares;
// it runs nothing. A variable whose value it needs is an error that names it; elsewhere
// a placeholder is put in and noted.
//
// Values of cookies and of fields such as Authorization are not kept.
func FromFetch(text string) (*Question, error) {
	questions, err := fetchCalls(text)
	if err != nil {
		return nil, err
	}
	first := &questions[0]
	if more := len(questions) - 1; more > 0 {
		first.Notes = append(first.Notes, fmt.Sprintf("Only the first call of fetch was read; %d more were left out.", more))
	}
	return first, nil
}

func fetchCalls(text string) ([]Question, error) {
	if len(text) > maxPaste {
		return nil, tooLarge("fetch", len(text), maxPaste, "shorten the body")
	}
	p := jsParser{text: unwrapPaste(text), vars: map[string]js{}, seen: map[int]bool{}}
	if err := p.scan(); err != nil {
		return nil, err
	}
	if len(p.calls) == 0 {
		return nil, errors.New(`fetch: the text has no call of fetch; paste one, such as fetch("https://api.example/", {method: "PUT"})`)
	}
	var questions []Question
	for _, call := range p.calls {
		q, err := fetchQuestion(call)
		if err != nil {
			return nil, err
		}
		questions = append(questions, *q)
	}
	return questions, nil
}

// The kinds of JavaScript values.
type jsKind int

const (
	jsUnknown jsKind = iota // a value that is not in the text; name says whose
	jsString
	jsNumber // or true or false; text is how it is written
	jsNull   // or undefined
	jsObject
	jsArray
	jsCall // of name, with items as arguments
)

// js is a value.
type js struct {
	kind jsKind
	// text is a string's content. What is not known of it is replaced by a placeholder:
	// the first is of the value called name, at offset at.
	text   string
	name   string
	at     int
	fields []jsField
	items  []js
}

type jsField struct {
	key   string
	value js
}

func (v js) get(key string) (js, bool) {
	for _, f := range slices.Backward(v.fields) { // the last one counts
		if f.key == key {
			return f.value, f.value.kind != jsNull
		}
	}
	return js{}, false
}

// placeholder stands for an unknown value in a string: the last part of its name.
func (v js) placeholder() string {
	name := v.name[strings.LastIndexByte(v.name, '.')+1:]
	if !isToken(name) {
		return "value"
	}
	return name
}

// string is what JavaScript makes of the value where it needs a string. ok is false if
// that is not known at all, as for an object.
func (v js) string() (s js, ok bool) {
	switch v.kind {
	case jsString:
		return v, true
	case jsNumber:
		return js{kind: jsString, text: v.text}, true
	case jsNull:
		return js{kind: jsString, text: "null"}, true
	case jsUnknown:
		return js{kind: jsString, text: v.placeholder(), name: v.name}, true
	case jsCall:
		return v.callString()
	case jsObject, jsArray:
	}
	return js{}, false
}

func (v js) callString() (js, bool) {
	arg := js{kind: jsNull}
	if len(v.items) > 0 {
		arg = v.items[0]
	}
	s, ok := arg.string()
	switch v.name {
	case "encodeURIComponent", "encodeURI":
		if ok && s.name == "" && v.name == "encodeURIComponent" {
			s.text = strings.ReplaceAll(url.QueryEscape(s.text), "+", "%20")
		}
		return s, ok
	case "String":
		return s, ok
	case "btoa":
		return js{kind: jsString, text: hidden}, true
	case "new URL":
		return v.callURL()
	case "new URLSearchParams":
		return js{kind: jsString, text: formText(arg)}, true
	}
	return js{kind: jsUnknown, name: v.name + "(…)"}.string()
}

// callURL resolves new URL(reference, base).
func (v js) callURL() (js, bool) {
	if len(v.items) == 0 {
		return js{}, false
	}
	ref, ok := v.items[0].string()
	if !ok || len(v.items) == 1 {
		return ref, ok
	}
	base, ok := v.items[1].string()
	if !ok || base.name != "" {
		return base, ok
	}
	if ref.name != "" && ref.at == 0 {
		return ref, true
	}
	b, err := url.Parse(base.text)
	if err != nil {
		return js{}, false
	}
	r, err := url.Parse(ref.text)
	if err != nil {
		return js{}, false
	}
	at := 0
	if ref.name != "" {
		at = len(base.text) + ref.at // behind the host in any case
	}
	return js{kind: jsString, text: b.ResolveReference(r).String(), name: ref.name, at: at}, true
}

func formText(v js) string {
	if v.kind == jsString {
		return strings.TrimPrefix(v.text, "?")
	}
	var pairs []string
	for _, pair := range pairsOf(v) {
		s, ok := pair.value.string()
		if !ok {
			s.text = hidden
		}
		pairs = append(pairs, url.QueryEscape(pair.key)+"="+url.QueryEscape(s.text))
	}
	return strings.Join(pairs, "&")
}

// pairsOf reads an object, or an array of pairs.
func pairsOf(v js) []jsField {
	if v.kind != jsArray {
		return v.fields
	}
	var pairs []jsField
	for _, item := range v.items {
		if item.kind == jsArray && len(item.items) == 2 {
			key, _ := item.items[0].string()
			pairs = append(pairs, jsField{key.text, item.items[1]})
		}
	}
	return pairs
}

const (
	maxDepth  = 60
	maxEffort = 8 * maxPaste
)

// foundCall is a call of fetch that was found.
type foundCall struct {
	args []js
	line int
}

// jsParser reads the part of JavaScript in which requests are written.
type jsParser struct {
	text   string
	i      int
	depth  int
	effort int
	fatal  bool // the rest of the text cannot be read either
	vars   map[string]js
	seen   map[int]bool
	calls  []foundCall
}

func (p *jsParser) errorf(format string, args ...any) error {
	i := min(p.i, len(p.text))
	p.effort += i / 16 // counting lines; errors in constants are passed over
	return fmt.Errorf("fetch: line %d: "+format, append([]any{1 + strings.Count(p.text[:i], "\n")}, args...)...)
}

// scan looks for calls of fetch and for constants, and skips all else.
func (p *jsParser) scan() error {
	for p.i < len(p.text) {
		if p.effort++; p.effort > maxEffort {
			return p.errorf("the code is too involved to be read; paste the call of fetch alone")
		}
		c := p.text[p.i]
		switch {
		case c == '"' || c == '\'' || c == '`':
			p.skipString(c)
		case strings.HasPrefix(p.text[p.i:], "//") || strings.HasPrefix(p.text[p.i:], "/*"):
			if err := p.space(); err != nil {
				return nil //nolint:nilerr // a comment that does not end: there is nothing behind it
			}
		case isIdentStart(c):
			if err := p.statement(); err != nil {
				return err
			}
		case '0' <= c && c <= '9':
			p.ident()
		default:
			p.i++
		}
	}
	return nil
}

// skipString skips a string in code that is not read. It may end anywhere.
func (p *jsParser) skipString(quote byte) {
	for p.i++; p.i < len(p.text); p.i++ {
		switch c := p.text[p.i]; {
		case c == '\\':
			p.i++
		case c == quote, c == '\n' && quote != '`':
			p.i++
			return
		}
	}
}

// statement reads what begins with a word.
func (p *jsParser) statement() error {
	start := p.i
	word := p.ident()
	switch word {
	case "const", "let", "var":
		if err := p.space(); err != nil {
			return err
		}
		name := p.ident()
		after := p.i
		if name == "" || p.space() != nil || !p.eat("=") || strings.HasPrefix(p.text[p.i:], "=") {
			p.i = after
			return nil
		}
		after = p.i
		v, err := p.expression()
		switch {
		case p.fatal:
			return err
		case err != nil:
			p.i = after // the call of fetch, if it is in there, is still to be found
		default:
			p.vars[name] = v
		}
		return nil
	case "function", "class":
		_ = p.space()
		p.ident()
		return nil
	case "fetch", "window", "self", "globalThis":
		if start > 0 && p.text[start-1] == '.' {
			return nil
		}
		after := p.i
		if word != "fetch" && (!p.eat(".") || p.ident() != "fetch") {
			p.i = after
			return nil
		}
		if p.space() != nil || !strings.HasPrefix(p.text[p.i:], "(") {
			p.i = max(after, p.i)
			return nil
		}
		p.eat("(")
		_, err := p.call("fetch")
		return err
	}
	return nil
}

func isIdentStart(c byte) bool { return isNameByte(c) || c == '$' || c >= utf8.RuneSelf }

func (p *jsParser) ident() string {
	start := p.i
	for p.i < len(p.text) && (isIdentStart(p.text[p.i]) || '0' <= p.text[p.i] && p.text[p.i] <= '9') {
		p.i++
	}
	p.effort += p.i - start
	return p.text[start:p.i]
}

// space skips white space and comments.
func (p *jsParser) space() error {
	for p.i < len(p.text) {
		rest := p.text[p.i:]
		switch {
		case strings.IndexByte(" \t\r\n\v\f", rest[0]) >= 0:
			p.i++
			p.effort++
		case strings.HasPrefix(rest, "\u00a0"):
			p.i += len("\u00a0")
		case strings.HasPrefix(rest, "//"):
			line, _, _ := strings.Cut(rest, "\n")
			p.i += len(line)
			p.effort += len(line)
		case strings.HasPrefix(rest, "/*"):
			comment, _, ok := strings.Cut(rest[2:], "*/")
			if !ok {
				p.fatal = true
				return p.errorf("a comment is not closed; paste the whole call")
			}
			p.i += len(comment) + 4
			p.effort += len(comment)
		default:
			return nil
		}
	}
	return nil
}

// eat takes s if it comes next.
func (p *jsParser) eat(s string) bool {
	if !strings.HasPrefix(p.text[p.i:], s) {
		return false
	}
	p.i += len(s)
	return true
}

// eatSpaced takes s if it comes next behind white space.
func (p *jsParser) eatSpaced(s string) (bool, error) {
	if err := p.space(); err != nil {
		return false, err
	}
	return p.eat(s), nil
}

func (p *jsParser) unexpected() error {
	if p.i >= len(p.text) {
		p.fatal = true
		return p.errorf("the text ends within the call; paste all of it")
	}
	_, n := utf8.DecodeRuneInString(p.text[p.i:])
	return p.errorf("%q is not expected here; moat explain reads literals only, so put values in for code", p.text[p.i:p.i+n])
}

// expression reads a value, a sum of values, or another expression, whose value is then
// unknown.
func (p *jsParser) expression() (js, error) {
	p.depth++
	defer func() { p.depth-- }()
	p.effort += 16
	if p.depth > maxDepth || p.effort > maxEffort {
		p.fatal = true
		return js{}, p.errorf("the code is too involved to be read; paste the call of fetch alone, with short values")
	}
	left, err := p.operand()
	if err != nil {
		return js{}, err
	}
	for {
		if err := p.space(); err != nil {
			return js{}, err
		}
		switch {
		case p.eat("+"):
			right, err := p.operand()
			if err != nil {
				return js{}, err
			}
			if left, err = p.concat(left, right); err != nil {
				return js{}, err
			}
		case strings.HasPrefix(p.text[p.i:], "=>"):
			return js{}, p.errorf("a function is not expected here; put in the value that it gives")
		case p.eat("?"):
			if _, err := p.expression(); err != nil {
				return js{}, err
			}
			if ok, err := p.eatSpaced(":"); err != nil || !ok {
				return js{}, p.unexpected()
			}
			if _, err := p.expression(); err != nil {
				return js{}, err
			}
			return js{name: orName(left, "… ? … : …")}, nil
		case p.operator():
			if _, err := p.operand(); err != nil {
				return js{}, err
			}
			left = js{name: orName(left, "an expression")}
		default:
			return left, nil
		}
	}
}

func orName(v js, otherwise string) string {
	if v.name != "" {
		return v.name
	}
	return otherwise
}

// operator takes an operator whose result is not computed.
func (p *jsParser) operator() bool {
	return slices.ContainsFunc([]string{"||", "&&", "??", "===", "!==", "==", "!=", "<=", ">=", "<", ">", "-", "*", "/", "%"}, p.eat)
}

func (p *jsParser) concat(a, b js) (js, error) {
	left, ok := a.string()
	right, okToo := b.string()
	if !ok || !okToo {
		return js{name: orName(a, orName(b, "an expression"))}, nil
	}
	p.effort += len(left.text) + len(right.text)
	if left.name == "" && right.name != "" {
		left.name, left.at = right.name, len(left.text)+right.at
	}
	left.text += right.text
	if len(left.text) > maxPaste {
		p.fatal = true
		return js{}, p.errorf("a string becomes longer than %d bytes; shorten it", maxPaste)
	}
	return left, nil
}

// operand reads a value and what hangs on it: members, calls.
func (p *jsParser) operand() (js, error) {
	if err := p.space(); err != nil {
		return js{}, err
	}
	if p.i >= len(p.text) {
		return js{}, p.unexpected()
	}
	switch c := p.text[p.i]; {
	case c == '"' || c == '\'':
		p.i++
		s, err := p.quoted(c)
		if err != nil {
			return js{}, err
		}
		return p.members(js{kind: jsString, text: s})
	case c == '`':
		p.i++
		v, err := p.template()
		if err != nil {
			return js{}, err
		}
		return p.members(v)
	case c == '{':
		p.i++
		return p.object()
	case c == '[':
		p.i++
		items, err := p.list("]")
		return js{kind: jsArray, items: items}, err
	case c == '(':
		p.i++
		v, err := p.expression()
		if err != nil {
			return js{}, err
		}
		if ok, err := p.eatSpaced(")"); err != nil || !ok {
			return js{}, p.unexpected()
		}
		return p.members(v)
	case '0' <= c && c <= '9' || c == '.' && !strings.HasPrefix(p.text[p.i:], "..."):
		return p.number()
	case c == '-' || c == '+' || c == '!' || c == '~':
		return p.unary(c)
	case isIdentStart(c):
		return p.named()
	}
	return js{}, p.unexpected()
}

func (p *jsParser) unary(c byte) (js, error) {
	p.i++
	p.depth++
	defer func() { p.depth-- }()
	if p.depth > maxDepth {
		return js{}, p.unexpected()
	}
	v, err := p.operand()
	if err == nil && v.kind == jsNumber && c == '-' {
		v.text = "-" + v.text
		return v, nil
	}
	return js{name: orName(v, "an expression")}, err
}

func (p *jsParser) number() (js, error) {
	start := p.i
	for p.i < len(p.text) && (p.text[p.i] == '.' || isIdentStart(p.text[p.i]) || '0' <= p.text[p.i] && p.text[p.i] <= '9') {
		p.i++
	}
	p.effort += p.i - start
	text := strings.ReplaceAll(p.text[start:p.i], "_", "")
	if len(text) > 64 {
		return js{}, p.errorf("a number has %d digits; shorten it", len(text))
	}
	return js{kind: jsNumber, text: text}, nil
}

// named reads what begins with a word.
func (p *jsParser) named() (js, error) {
	start := p.i
	switch word := p.ident(); word {
	case "true", "false":
		return js{kind: jsNumber, text: word}, nil
	case "null", "undefined":
		return js{kind: jsNull}, nil
	case "await", "void", "typeof":
		p.depth++
		defer func() { p.depth-- }()
		if p.depth > maxDepth {
			return js{}, p.unexpected()
		}
		return p.operand()
	case "function", "class", "async":
		p.i = start
		return js{}, p.errorf("a function is not expected here; put in the value that it gives")
	case "new":
		return p.construct()
	default:
		v, ok := p.vars[word]
		if !ok {
			v = js{name: word}
		}
		return p.members(v)
	}
}

func (p *jsParser) construct() (js, error) {
	if err := p.space(); err != nil {
		return js{}, err
	}
	name := p.ident()
	if name == "" {
		return js{}, p.unexpected()
	}
	name = "new " + name
	ok, err := p.eatSpaced("(")
	if err != nil {
		return js{}, err
	}
	if !ok {
		return js{kind: jsCall, name: name}, nil
	}
	v, err := p.call(name)
	if err != nil {
		return js{}, err
	}
	return p.members(v)
}

// members reads .name, [index] and (arguments).
func (p *jsParser) members(v js) (js, error) {
	for {
		before := p.i
		if err := p.space(); err != nil {
			return js{}, err
		}
		var err error
		switch {
		case p.eat("?."), p.eat("."):
			if v, err = p.member(v); err != nil {
				return js{}, err
			}
		case p.eat("["):
			if _, err = p.expression(); err != nil {
				return js{}, err
			}
			var ok bool
			if ok, err = p.eatSpaced("]"); err != nil || !ok {
				return js{}, p.unexpected()
			}
			v = js{name: orName(v, "an array") + "[…]"}
		case strings.HasPrefix(p.text[p.i:], "(") && v.kind == jsUnknown:
			p.i++
			if v, err = p.call(v.name); err != nil {
				return js{}, err
			}
		default:
			p.i = before
			return v, nil
		}
		if p.effort += 16 + len(v.name); p.effort > maxEffort || len(v.name) > 1024 {
			p.fatal = true
			return js{}, p.errorf("the code is too involved to be read; paste the call of fetch alone")
		}
	}
}

func (p *jsParser) member(v js) (js, error) {
	if err := p.space(); err != nil {
		return js{}, err
	}
	name := p.ident()
	if name == "" {
		return js{}, p.unexpected()
	}
	if field, ok := v.get(name); ok && v.kind == jsObject {
		return field, nil
	}
	if s, ok := v.string(); ok && (name == "toString" || name == "href") && v.kind != jsUnknown {
		if name == "toString" {
			if open, err := p.eatSpaced("("); err != nil || !open {
				return js{}, p.unexpected()
			}
			if shut, err := p.eatSpaced(")"); err != nil || !shut {
				return js{}, p.unexpected()
			}
		}
		return s, nil
	}
	return js{name: orName(v, "value") + "." + name}, nil
}

// call reads arguments, from behind the parenthesis.
func (p *jsParser) call(name string) (js, error) {
	start := p.i
	args, err := p.list(")")
	if err != nil {
		return js{}, err
	}
	if name == "fetch" || name == "window.fetch" || name == "self.fetch" || name == "globalThis.fetch" {
		if !p.seen[start] {
			p.seen[start] = true
			if len(p.calls) == maxParts {
				p.fatal = true
				return js{}, p.errorf("there are more than %d calls of fetch; paste fewer", maxParts)
			}
			p.calls = append(p.calls, foundCall{args, 1 + strings.Count(p.text[:start], "\n")})
		}
		return js{name: "fetch(…)"}, nil
	}
	return js{kind: jsCall, name: name, items: args}, nil
}

// list reads values up to the end.
func (p *jsParser) list(end string) ([]js, error) {
	var items []js
	for {
		if err := p.space(); err != nil {
			return nil, err
		}
		if p.eat(end) {
			return items, nil
		}
		if p.eat("...") {
			v, err := p.expression()
			if err != nil {
				return nil, err
			}
			return nil, p.errorf("...%s is not known; put its values in", orName(v, "value"))
		}
		v, err := p.expression()
		if err != nil {
			return nil, err
		}
		items = append(items, v)
		comma, err := p.eatSpaced(",")
		if err != nil {
			return nil, err
		}
		if !comma && !strings.HasPrefix(p.text[p.i:], end) {
			return nil, p.unexpected()
		}
	}
}

// object reads from behind the brace.
func (p *jsParser) object() (js, error) {
	v := js{kind: jsObject}
	for {
		if err := p.space(); err != nil {
			return js{}, err
		}
		if p.eat("}") {
			return v, nil
		}
		fields, err := p.field()
		if err != nil {
			return js{}, err
		}
		p.effort += len(fields)
		if v.fields = append(v.fields, fields...); len(v.fields) > maxPaste/8 {
			p.fatal = true
			return js{}, p.errorf("an object has more than %d fields; paste a shorter one", maxPaste/8)
		}
		comma, err := p.eatSpaced(",")
		if err != nil {
			return js{}, err
		}
		if !comma && !strings.HasPrefix(p.text[p.i:], "}") {
			return js{}, p.unexpected()
		}
	}
}

// field reads "key: value", a bare variable, or "...object".
func (p *jsParser) field() ([]jsField, error) {
	if p.eat("...") {
		v, err := p.expression()
		switch {
		case err != nil:
			return nil, err
		case v.kind != jsObject:
			return nil, p.errorf("...%s is not known; put its fields in", orName(v, "value"))
		}
		return v.fields, nil
	}
	if p.i >= len(p.text) {
		return nil, p.unexpected()
	}
	var key string
	bare := false
	switch c := p.text[p.i]; {
	case c == '"' || c == '\'':
		p.i++
		var err error
		if key, err = p.quoted(c); err != nil {
			return nil, err
		}
	case c == '[':
		p.i++
		v, err := p.expression()
		if err != nil {
			return nil, err
		}
		if ok, err := p.eatSpaced("]"); err != nil || !ok {
			return nil, p.unexpected()
		}
		if v.kind != jsString || v.name != "" {
			return nil, p.errorf("the name of a field is %s; put it in", short(orName(v, "code")))
		}
		key = v.text
	case isIdentStart(c) || '0' <= c && c <= '9':
		key, bare = p.ident(), true
	default:
		return nil, p.unexpected()
	}
	colon, err := p.eatSpaced(":")
	if err != nil {
		return nil, err
	}
	if !colon {
		if !bare || !strings.HasPrefix(p.text[p.i:], ",") && !strings.HasPrefix(p.text[p.i:], "}") {
			return nil, p.unexpected()
		}
		v, ok := p.vars[key]
		if !ok {
			v = js{name: key}
		}
		return []jsField{{key, v}}, nil
	}
	v, err := p.expression()
	return []jsField{{key, v}}, err
}

// quoted reads a string from behind its quote.
func (p *jsParser) quoted(quote byte) (string, error) {
	var s strings.Builder
	for p.i < len(p.text) {
		c := p.text[p.i]
		p.i++
		p.effort++
		switch c {
		case quote:
			return s.String(), nil
		case '\n':
			p.i--
			return "", p.errorf("a string (%c) is not closed on its line; paste the whole call", quote)
		case '\\':
			p.escape(&s)
		default:
			s.WriteByte(c)
		}
	}
	return "", p.unexpected()
}

// escape reads an escape from behind the backslash.
func (p *jsParser) escape(s *strings.Builder) {
	if p.i >= len(p.text) {
		return
	}
	c := p.text[p.i]
	p.i++
	switch c {
	case 'n', 't', 'r', 'b', 'f', 'v', '0':
		s.WriteByte("\n\t\r\b\f\v\x00"[strings.IndexByte("ntrbfv0", c)])
	case '\r':
		p.eat("\n")
	case '\n':
	case 'x':
		if r, ok := p.hex(2); ok {
			s.WriteRune(r)
		}
	case 'u':
		if p.eat("{") {
			digits, _, ok := strings.Cut(p.text[p.i:], "}")
			if v, err := strconv.ParseUint(digits, 16, 21); ok && err == nil {
				p.i += len(digits) + 1
				s.WriteRune(rune(v))
			}
			return
		}
		r, _ := p.hex(4)
		if utf16.IsSurrogate(r) && p.eat(`\u`) {
			low, _ := p.hex(4)
			r = utf16.DecodeRune(r, low)
		}
		s.WriteRune(r)
	default:
		s.WriteByte(c)
	}
}

func (p *jsParser) hex(n int) (rune, bool) {
	if p.i+n > len(p.text) {
		return utf8.RuneError, false
	}
	v, err := strconv.ParseUint(p.text[p.i:p.i+n], 16, 16)
	if err != nil {
		return utf8.RuneError, false
	}
	p.i += n
	return rune(v), true
}

// template reads a template string from behind its backtick.
func (p *jsParser) template() (js, error) {
	v := js{kind: jsString}
	var s strings.Builder
	for p.i < len(p.text) {
		c := p.text[p.i]
		p.i++
		p.effort++
		switch {
		case c == '`':
			v.text = s.String()
			return v, nil
		case c == '\\':
			p.escape(&s)
		case c == '$' && p.eat("{"):
			inner, err := p.expression()
			if err != nil {
				return js{}, err
			}
			if ok, err := p.eatSpaced("}"); err != nil || !ok {
				return js{}, p.unexpected()
			}
			part, ok := inner.string()
			if !ok {
				part = js{text: "value", name: orName(inner, "an expression")}
			}
			if v.name == "" && part.name != "" {
				v.name, v.at = part.name, s.Len()+part.at
			}
			p.effort += len(part.text)
			if s.WriteString(part.text); s.Len() > maxPaste {
				p.fatal = true
				return js{}, p.errorf("a string becomes longer than %d bytes; shorten it", maxPaste)
			}
		default:
			s.WriteByte(c)
		}
	}
	p.fatal = true
	return js{}, p.errorf("a template string (`) is not closed; paste the whole call")
}

// fetchRequest is a call whose arguments are being read.
type fetchRequest struct {
	sent
	line int
	init map[string]string
}

func (r *fetchRequest) errorf(format string, args ...any) error {
	return fmt.Errorf("fetch: line %d: "+format, append([]any{r.line}, args...)...)
}

// silentOptions do not matter to what is explained.
var silentOptions = []string{"signal", "keepalive", "priority", "integrity", "duplex", "window", "attributionReporting", "browsingTopics"}

// enumerations are the values that fetch takes (https://fetch.spec.whatwg.org/#requestinit).
// For others it throws.
var enumerations = map[string][]string{
	"mode":        {"cors", "no-cors", "same-origin", "navigate"},
	"credentials": {"omit", "same-origin", "include"},
	"redirect":    {"follow", "error", "manual"},
	"cache":       {"default", "no-store", "reload", "no-cache", "force-cache", "only-if-cached"},
	"referrerPolicy": {
		"", "no-referrer", "no-referrer-when-downgrade", "same-origin", "origin", "strict-origin",
		"origin-when-cross-origin", "strict-origin-when-cross-origin", "unsafe-url",
	},
}

func fetchQuestion(call foundCall) (*Question, error) {
	r := &fetchRequest{sent: sent{source: "fetch", method: "GET"}, line: call.line, init: map[string]string{}}
	args := call.args
	if len(args) > 0 && args[0].kind == jsCall && args[0].name == "new Request" {
		args = slices.Concat(args[0].items, args[1:])
		args = args[:min(len(args), 2)]
	}
	if len(args) == 0 {
		return nil, r.errorf("fetch has no URL; put it in")
	}
	if err := r.findURL(args[0]); err != nil {
		return nil, err
	}
	if len(args) > 1 && args[1].kind != jsNull {
		if err := r.options(args[1]); err != nil {
			return nil, err
		}
	}
	r.recorded = looksRecorded(r.header)
	r.resolve()
	q, err := r.question()
	if err != nil {
		return nil, err
	}
	if q.Request.API == browser.Fetch {
		if mode := r.init["mode"]; q.Request.Mode == "" && mode != "navigate" {
			q.Request.Mode = mode
		}
		q.Request.Redirect, q.Request.Cache = r.init["redirect"], r.init["cache"]
		q.Request.ReferrerPolicy = r.init["referrerPolicy"]
	}
	return q, nil
}

func (r *fetchRequest) findURL(v js) error {
	s, ok := v.string()
	if !ok {
		return r.errorf("the URL is not a string; put it in")
	}
	r.url = strings.TrimSpace(s.text)
	if s.name == "" {
		return nil
	}
	path := 0
	if _, behind, found := strings.Cut(s.text, "://"); found {
		scheme := len(s.text) - len(behind)
		path = scheme + strings.IndexAny(behind+"/", "/?#")
	}
	if s.at <= path && (s.at == 0 || path > 0) {
		return r.errorf("the URL needs the value of %s; put it in", short(s.name))
	}
	r.note("In the URL, %s stands for the value of %s.", short(js{name: s.name}.placeholder()), short(s.name))
	return nil
}

// options reads fetch's second argument.
func (r *fetchRequest) options(init js) error {
	if init.kind != jsObject {
		return r.errorf("the options are %s; put in the object", short(orName(init, "not an object")))
	}
	for _, f := range init.fields {
		if _, ok := init.get(f.key); !ok {
			continue // null
		}
		switch {
		case f.key == "headers" || f.key == "body" || f.key == "method":
		case f.key == "referrer" || enumerations[f.key] != nil:
			s, ok := f.value.string()
			if !ok || s.name != "" {
				return r.errorf("the option %s is %s; put its value in", f.key, short(orName(f.value, "not a string")))
			}
			if values := enumerations[f.key]; values != nil && !slices.Contains(values, s.text) {
				return r.errorf("the option %s is %s, for which fetch throws; take one of %s", f.key, short(s.text), strings.Join(values, ", "))
			}
			r.init[f.key] = s.text
		case !slices.Contains(silentOptions, f.key):
			r.note("The option %s was left out: what it does is not explained here, if fetch knows it at all.", short(f.key))
		}
	}
	if v, ok := init.get("method"); ok {
		s, isString := v.string()
		if !isString || s.name != "" || !isToken(s.text) {
			return r.errorf("the method is %s; put in a method, such as PUT", short(orName(v, v.text)))
		}
		r.method = s.text
	}
	if v, ok := init.get("headers"); ok {
		if err := r.headers(v); err != nil {
			return err
		}
	}
	if v, ok := init.get("body"); ok {
		r.findBody(v)
	}
	r.credentials = r.init["credentials"]
	if r.init["mode"] == "navigate" {
		r.mode = "navigate" // as copied; script cannot ask for it
	}
	return nil
}

func (r *fetchRequest) headers(v js) error {
	if v.kind == jsCall && v.name == "new Headers" {
		if len(v.items) == 0 {
			return nil
		}
		v = v.items[0]
	}
	if v.kind != jsObject && v.kind != jsArray {
		return r.errorf("the headers are %s; put in the object", short(orName(v, "not an object")))
	}
	for _, f := range pairsOf(v) {
		s, ok := f.value.string()
		if !ok {
			return r.errorf("the value of the header field %s is not a string; put one in", short(f.key))
		}
		if s.name != "" {
			if slices.Contains(byValue, strings.ToLower(f.key)) {
				return r.errorf("the value of %s decides whether there is a preflight, and needs the value of %s; put it in", f.key, short(s.name))
			}
			r.note("The value of %s is not known to moat explain; a placeholder was put in.", short(s.name))
		}
		r.header = append(r.header, browser.Field{Name: f.key, Value: s.text})
	}
	return nil
}

// findBody finds out what kind of body it is, which decides about Content-Type.
func (r *fetchRequest) findBody(v js) {
	r.body = &browser.Body{Kind: "text"}
	switch v.kind {
	case jsString, jsNumber:
		r.body.Text = v.text
	case jsUnknown:
		r.unknownBody(v.name)
	case jsCall:
		r.callBody(v)
	case jsObject, jsArray:
		r.body.Text = "[object Object]"
		r.note("The body is an object, which fetch sends as the text [object Object]; JSON.stringify is missing.")
	case jsNull:
		r.body = nil
	}
	if v.kind == jsString && v.name != "" {
		r.note("The value of %s is not known to moat explain; a placeholder was put in.", short(v.name))
	}
}

func (r *fetchRequest) unknownBody(name string) {
	lower := lowerASCII(name)
	for _, kind := range []string{"form-data", "blob", "buffer", "stream"} {
		if strings.Contains(lower, strings.ReplaceAll(kind, "-", "")) {
			r.body.Kind = kind
			r.note("The body is %s, taken as %s after its name.", short(name), kind)
			return
		}
	}
	r.note("The body is %s, taken as a string.", short(name))
}

func (r *fetchRequest) callBody(v js) {
	arg := js{kind: jsNull}
	if len(v.items) > 0 {
		arg = v.items[0]
	}
	switch v.name {
	case "JSON.stringify":
		var s strings.Builder
		writeJSON(&s, arg)
		r.body.Text = s.String()
	case "new URLSearchParams":
		r.body.Kind, r.body.Text = "urlencoded", formText(arg)
	case "new FormData":
		r.body.Kind = "form-data"
	case "new Blob":
		r.body.Kind = "blob"
		if len(v.items) > 1 {
			typ, _ := v.items[1].get("type")
			if s, ok := typ.string(); ok && typ.kind == jsString {
				r.body.Type = s.text
			}
		}
	case "new ArrayBuffer", "new Uint8Array", "new DataView":
		r.body.Kind = "buffer"
	case "new ReadableStream":
		r.body.Kind = "stream"
	default:
		if strings.HasSuffix(v.name, ".encode") {
			r.body.Kind = "buffer"
			return
		}
		r.unknownBody(v.name + "(…)")
	}
}

// writeJSON writes a literal as JSON.stringify does. What is unknown becomes a
// placeholder; it stops at the length at which bodies are cut.
func writeJSON(s *strings.Builder, v js) {
	if s.Len() > maxBody {
		return
	}
	switch v.kind {
	case jsString:
		text, err := json.Marshal(v.text)
		if err != nil {
			return // no string does that
		}
		for _, as := range [][2]string{{`\u003c`, "<"}, {`\u003e`, ">"}, {`\u0026`, "&"}} { // JavaScript leaves these alone
			text = bytes.ReplaceAll(text, []byte(as[0]), []byte(as[1]))
		}
		s.Write(text)
	case jsNumber:
		s.WriteString(v.text)
	case jsNull:
		s.WriteString("null")
	case jsUnknown, jsCall:
		s.WriteString(`"` + hidden + `"`)
	case jsArray:
		s.WriteByte('[')
		for i, item := range v.items {
			if i > 0 {
				s.WriteByte(',')
			}
			writeJSON(s, item)
		}
		s.WriteByte(']')
	case jsObject:
		s.WriteByte('{')
		for i, f := range v.fields {
			if s.Len() > maxBody {
				return
			}
			if i > 0 {
				s.WriteByte(',')
			}
			writeJSON(s, js{kind: jsString, text: f.key})
			s.WriteByte(':')
			writeJSON(s, f.value)
		}
		s.WriteByte('}')
	}
}

// resolve completes a relative URL if the page is known.
func (r *fetchRequest) resolve() {
	if referrer, ok := r.init["referrer"]; ok && referrer != "about:client" {
		if referrer == "" {
			if r.init["referrerPolicy"] == "" {
				r.init["referrerPolicy"] = "no-referrer"
			}
		} else {
			r.page = referrer
		}
	}
	u, err := url.Parse(r.url)
	if err != nil || u.IsAbs() {
		return
	}
	referer, _ := r.header.Get("Referer")
	for _, page := range []string{r.page, referer} {
		if base, ok := pageURL(page); ok {
			r.url = base.ResolveReference(u).String()
			return
		}
	}
	if u.Host == "" {
		r.note("The URL is relative: it is taken from the page's.")
	}
}
