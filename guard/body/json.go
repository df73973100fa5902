package body

import (
	"bytes"
	"encoding/json"
	"hash/maphash"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"
	"unicode/utf16"
	"unicode/utf8"
)

// maxNumber bounds the text of a number, in bytes. 256-bit integers have 78 digits; what reads a
// number of a million digits takes time that grows with its square.
const maxNumber = 128

// DefaultDepth is how deep arrays and objects may stand in one another where nothing else is said.
const DefaultDepth = 32

// JSON bounds a JSON text (RFC 8259). Beyond that grammar, names must differ within their object,
// strings must be Unicode, and numbers finite: what parsers read differently is refused, so that
// the upstream reads what was judged here.
type JSON struct {
	// Depth is how deep arrays and objects may stand in one another; 0 means DefaultDepth.
	Depth int
	// Exact refuses numbers that are another one as an IEEE 754 double, which is how most
	// languages read them.
	Exact bool
}

// Check says what is wrong with the text, or nil. It allocates nothing for most texts that are right.
func (j JSON) Check(text []byte) *Fault {
	s, _ := scanners.Get().(*scanner)
	defer s.free()
	s.reset(text, j)
	return s.run()
}

// scanner reads a text once, without a call for each value: its stack is a list.
type scanner struct {
	text   []byte
	pos    int
	depth  int
	exact  bool
	frames []frame
	names  nameSet
}

// frame is an array or object that is open.
type frame struct {
	object bool
	n      int  // an array's items so far; an object's id
	name   span // the last name in the object
}

// span is a part of the text, or of what names with escapes stand for.
type span struct {
	from, to int32
	decoded  bool
}

var scanners = sync.Pool{New: func() any { return new(scanner) }}

// keptNames is how much of a table of names is kept for the next text.
const keptNames = 1 << 10

func (s *scanner) reset(text []byte, j JSON) {
	s.text, s.pos, s.depth, s.exact = text, 0, j.Depth, j.Exact
	if s.depth == 0 {
		s.depth = DefaultDepth
	}
	s.frames = s.frames[:0]
	s.names.reset(text)
}

func (s *scanner) free() {
	s.text, s.names.text = nil, nil
	if cap(s.names.table) > keptNames || cap(s.names.decoded) > 16<<10 {
		s.names = nameSet{}
	}
	scanners.Put(s)
}

// fault is what is wrong at the place where the scanner is.
func (s *scanner) fault(detail string) *Fault { return &Fault{Pointer: s.pointer(), Detail: detail} }

// pointer is the JSON Pointer of the value that is being read.
func (s *scanner) pointer() string {
	var p pointer
	for _, f := range s.frames {
		switch {
		case !f.object:
			p.index(f.n)
		case f.name != span{}:
			p.name(string(s.names.unquoted(f.name)))
		}
	}
	return p.String()
}

func (s *scanner) blanks() {
	for s.pos < len(s.text) {
		switch s.text[s.pos] {
		case ' ', '\t', '\n', '\r':
			s.pos++
		default:
			return
		}
	}
}

// peek is the next byte that is no blank, or 0 at the end. NUL stands nowhere in JSON.
func (s *scanner) peek() byte {
	s.blanks()
	if s.pos == len(s.text) {
		return 0
	}
	return s.text[s.pos]
}

func (s *scanner) run() *Fault {
	if bytes.HasPrefix(s.text, []byte("\xef\xbb\xbf")) {
		return s.fault("begins with a byte order mark")
	}
	objects := 0
value:
	switch c := s.peek(); {
	case c == '{' || c == '[':
		if len(s.frames) == s.depth {
			return s.fault("deeper than " + strconv.Itoa(s.depth) + " levels")
		}
		s.pos++
		f := frame{object: c == '{'}
		if f.object {
			objects++
			f.n = objects
		}
		s.frames = append(s.frames, f)
		if s.peek() == closing(f) {
			goto end
		}
		if f.object {
			goto name
		}
		goto value
	case c == '"':
		if _, fault := s.string(); fault != nil {
			return fault
		}
	case c == '-' || '0' <= c && c <= '9':
		if fault := s.number(); fault != nil {
			return fault
		}
	case c == 't' && s.word("true"), c == 'f' && s.word("false"), c == 'n' && s.word("null"):
	case c == 0 && s.pos == len(s.text):
		return s.fault("ends too early")
	default:
		return s.fault("not JSON")
	}
next:
	if len(s.frames) == 0 {
		if s.blanks(); s.pos < len(s.text) {
			return s.fault("something stands behind the end")
		}
		return nil
	}
	{
		f := &s.frames[len(s.frames)-1]
		switch s.peek() {
		case ',':
			s.pos++
			if f.object {
				goto name
			}
			f.n++
			goto value
		case closing(*f):
			goto end
		case 0:
			if s.pos == len(s.text) {
				return s.fault("ends too early")
			}
		}
		return s.fault("not JSON")
	}
end:
	s.pos++
	s.frames = s.frames[:len(s.frames)-1]
	goto next
name:
	{
		f := &s.frames[len(s.frames)-1]
		f.name = span{}
		if s.peek() != '"' {
			return s.fault("not JSON")
		}
		sp, fault := s.string()
		if fault != nil {
			return fault
		}
		f.name = sp
		if sp.decoded && bytes.Contains(s.text[sp.from:sp.to], []byte(`\u0000`)) {
			return s.fault("a name holds NUL") // where strings of C end
		}
		if !s.names.add(f.n, sp) {
			return s.fault("the name occurs twice")
		}
		if s.peek() != ':' {
			return s.fault("not JSON")
		}
		s.pos++
		goto value
	}
}

func closing(f frame) byte {
	if f.object {
		return '}'
	}
	return ']'
}

func (s *scanner) word(w string) bool {
	if !bytes.HasPrefix(s.text[s.pos:], []byte(w)) {
		return false
	}
	s.pos += len(w)
	return true
}

// string reads a string, and returns what stands between its quotes.
func (s *scanner) string() (span, *Fault) {
	s.pos++
	from, escapes := s.pos, false
	for s.pos < len(s.text) {
		switch c := s.text[s.pos]; {
		case c == '"':
			sp := span{int32(from), int32(s.pos), escapes} //nolint:gosec // bodies are far below 2 GiB.
			s.pos++
			return sp, nil
		case c == '\\':
			escapes = true
			if !s.escape() {
				return span{}, s.fault("a string holds an escape that stands for no character")
			}
		case c < ' ':
			return span{}, s.fault("a string holds a control character")
		case c < utf8.RuneSelf:
			s.pos++
		default:
			r, n := utf8.DecodeRune(s.text[s.pos:])
			if r == utf8.RuneError && n == 1 {
				return span{}, s.fault("a string is not UTF-8")
			}
			s.pos += n
		}
	}
	return span{}, s.fault("ends too early")
}

// escape reads one escape, or a pair that stands for one character. A surrogate alone is none.
func (s *scanner) escape() bool {
	if s.pos+1 >= len(s.text) {
		return false
	}
	switch s.text[s.pos+1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		s.pos += 2
		return true
	case 'u':
	default:
		return false
	}
	r, ok := hex4(s.text[s.pos:])
	if !ok {
		return false
	}
	s.pos += 6
	if !utf16.IsSurrogate(r) {
		return true
	}
	low, ok := hex4(s.text[s.pos:])
	if !ok || utf16.DecodeRune(r, low) == utf8.RuneError {
		return false
	}
	s.pos += 6
	return true
}

// hex4 reads the \uXXXX that b begins with.
func hex4(b []byte) (rune, bool) {
	if len(b) < 6 || b[0] != '\\' || b[1] != 'u' {
		return 0, false
	}
	var r rune
	for _, c := range b[2:6] {
		switch {
		case '0' <= c && c <= '9':
			c -= '0'
		case 'a' <= c && c <= 'f':
			c -= 'a' - 10
		case 'A' <= c && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, false
		}
		r = r<<4 | rune(c)
	}
	return r, true
}

func (s *scanner) digits() (n int) {
	for s.pos < len(s.text) && '0' <= s.text[s.pos] && s.text[s.pos] <= '9' {
		s.pos++
		n++
	}
	return n
}

func (s *scanner) number() *Fault {
	from := s.pos
	if s.text[s.pos] == '-' {
		s.pos++
	}
	zero := s.pos < len(s.text) && s.text[s.pos] == '0'
	n := s.digits()
	if n == 0 || zero && n > 1 {
		return s.fault("not JSON")
	}
	plain := true
	if s.pos < len(s.text) && s.text[s.pos] == '.' {
		plain = false
		s.pos++
		if s.digits() == 0 {
			return s.fault("not JSON")
		}
	}
	if s.pos < len(s.text) && s.text[s.pos]|0x20 == 'e' {
		plain = false
		s.pos++
		if s.pos < len(s.text) && (s.text[s.pos] == '+' || s.text[s.pos] == '-') {
			s.pos++
		}
		switch exponent := s.digits(); {
		case exponent == 0:
			return s.fault("not JSON")
		case exponent > 5: // even of 0: readers count in integers of their own
			return s.fault("a number is out of range")
		}
	}
	text := s.text[from:s.pos]
	switch {
	case len(text) > maxNumber:
		return s.fault("a number has more than " + strconv.Itoa(maxNumber) + " characters")
	case plain && n <= 15: // a double holds it
		return nil
	}
	return s.double(text)
}

// double refuses what no double can hold, or, if asked to, what none holds exactly.
func (s *scanner) double(text []byte) *Fault {
	f, err := strconv.ParseFloat(string(text), 64)
	switch {
	case err != nil || math.IsInf(f, 0):
		return s.fault("a number is out of range")
	case f == 0 && significant(text) != "":
		return s.fault("a number is out of range")
	case s.exact && !sameDecimal(text, f):
		return s.fault("a number has more digits than a double holds")
	}
	return nil
}

// significant are the digits of a number without zeros at either end.
func significant(number []byte) string {
	mantissa := string(number)
	if i := strings.IndexAny(mantissa, "eE"); i >= 0 {
		mantissa = mantissa[:i]
	}
	mantissa = strings.Replace(strings.TrimPrefix(mantissa, "-"), ".", "", 1)
	return strings.Trim(mantissa, "0")
}

// sameDecimal reports whether the double is written as the text is, to the last digit.
func sameDecimal(text []byte, f float64) bool {
	var buf [32]byte
	return significant(text) == significant(strconv.AppendFloat(buf[:0], f, 'e', -1, 64))
}

// nameSet holds the names of all objects of a text: a hash table that no sender can fill with
// collisions, because its seed is the process's own.
type nameSet struct {
	text    []byte
	decoded []byte // of names with escapes
	table   []entry
	n       int
}

type entry struct {
	hash   uint64
	object int32 // from 1
	name   span
}

var seed = maphash.MakeSeed()

func (t *nameSet) reset(text []byte) {
	t.text, t.decoded, t.n = text, t.decoded[:0], 0
	clear(t.table)
}

// add adds a name to an object, and reports whether it was not there. A name that occurs twice may
// be spelt in two ways.
func (t *nameSet) add(object int, name span) bool {
	if name.decoded {
		from := len(t.decoded)
		t.decoded = appendUnquoted(t.decoded, t.text[name.from:name.to])
		name.from, name.to = int32(from), int32(len(t.decoded)) //nolint:gosec // it is no longer than the text.
	}
	if 2*t.n >= len(t.table) {
		t.grow()
	}
	b := t.bytes(name)
	hash := maphash.Bytes(seed, b) ^ uint64(object)*0x9e3779b97f4a7c15 //nolint:gosec // it is above 0.
	for i := hash & uint64(len(t.table)-1); ; i = (i + 1) & uint64(len(t.table)-1) {
		switch e := &t.table[i]; {
		case e.object == 0:
			*e = entry{hash, int32(object), name} //nolint:gosec // bodies are far below 2 GiB.
			t.n++
			return true
		case e.hash == hash && e.object == int32(object) && bytes.Equal(t.bytes(e.name), b): //nolint:gosec // as above.
			return false
		}
	}
}

func (t *nameSet) bytes(name span) []byte {
	if name.decoded {
		return t.decoded[name.from:name.to]
	}
	return t.text[name.from:name.to]
}

// unquoted is what the quoted name in the text stands for.
func (t *nameSet) unquoted(name span) []byte {
	if name.decoded {
		return appendUnquoted(nil, t.text[name.from:name.to])
	}
	return t.text[name.from:name.to]
}

func (t *nameSet) grow() {
	old := t.table
	t.table = make([]entry, max(64, 2*len(old)))
	mask := uint64(len(t.table) - 1) //nolint:gosec // it is not empty.
	for _, e := range old {
		if e.object == 0 {
			continue
		}
		i := e.hash & mask
		for t.table[i].object != 0 {
			i = (i + 1) & mask
		}
		t.table[i] = e
	}
}

// appendUnquoted appends what the inside of a string stands for, which has been checked.
func appendUnquoted(dst, b []byte) []byte {
	for len(b) > 0 {
		i := bytes.IndexByte(b, '\\')
		if i < 0 {
			return append(dst, b...)
		}
		dst = append(dst, b[:i]...)
		b = b[i:]
		if b[1] != 'u' {
			dst = append(dst, escapes[b[1]])
			b = b[2:]
			continue
		}
		r, _ := hex4(b)
		b = b[6:]
		if utf16.IsSurrogate(r) {
			low, _ := hex4(b)
			r = utf16.DecodeRune(r, low)
			b = b[6:]
		}
		dst = utf8.AppendRune(dst, r)
	}
	return dst
}

var escapes = [256]byte{'"': '"', '\\': '\\', '/': '/', 'b': '\b', 'f': '\f', 'n': '\n', 'r': '\r', 't': '\t'}

// decode makes of a text that has been checked the values that a schema looks at. Numbers keep
// their digits.
func decode(text []byte) any {
	d := decoder{text}
	return d.value()
}

type decoder struct{ b []byte }

// next takes the blanks and a comma or colon away, and returns the byte behind them.
func (d *decoder) next() byte {
	i := 0
	for d.b[i] == ' ' || d.b[i] == '\t' || d.b[i] == '\n' || d.b[i] == '\r' || d.b[i] == ',' || d.b[i] == ':' {
		i++
	}
	d.b = d.b[i:]
	return d.b[0]
}

func (d *decoder) value() any {
	switch d.next() {
	case '{':
		d.b = d.b[1:]
		m := make(map[string]any)
		for d.next() != '}' {
			name := d.string()
			m[name] = d.value()
		}
		d.b = d.b[1:]
		return m
	case '[':
		d.b = d.b[1:]
		list := []any{}
		for d.next() != ']' {
			list = append(list, d.value())
		}
		d.b = d.b[1:]
		return list
	case '"':
		return d.string()
	case 't':
		d.b = d.b[4:]
		return true
	case 'f':
		d.b = d.b[5:]
		return false
	case 'n':
		d.b = d.b[4:]
		return nil
	}
	i := slices.IndexFunc(d.b, func(c byte) bool { return c != '+' && c != '-' && c != '.' && (c < '0' || c > '9') && c|0x20 != 'e' })
	if i < 0 {
		i = len(d.b)
	}
	n := json.Number(d.b[:i])
	d.b = d.b[i:]
	return n
}

func (d *decoder) string() string {
	i, escaped := 1, false
	for d.b[i] != '"' {
		if d.b[i] == '\\' {
			escaped = true
			i++
		}
		i++
	}
	inside := d.b[1:i]
	d.b = d.b[i+1:]
	if escaped {
		return string(appendUnquoted(nil, inside))
	}
	return string(inside)
}
