package model

import "bytes"

// Meter takes the provider's figures out of an answer while it passes, in a bounded memory and
// whatever its parts are. An answer is believed only to raise what a call has taken: of
// several figures the largest counts, and one that is no whole number is none.
type Meter struct {
	json scanner
	sse  bool
	done bool // see Done

	// The rest is about a stream of events (HTML Living Standard section 9.2).
	where   uint8 // in the line
	n       int   // bytes of the line's field name so far
	data    bool  // the event has data
	mark    int   // bytes of "[DONE]" that the event's data has begun with; -1 if it has not
	afterCR bool
}

const (
	inName uint8 = iota
	inData
	inOther
)

// NewMeter returns a Meter for an answer of that Content-Type.
func NewMeter(contentType string) *Meter {
	const events = "text/event-stream"
	m := &Meter{sse: len(contentType) >= len(events) && bytes.EqualFold([]byte(contentType[:len(events)]), []byte(events))}
	m.json.reset()
	return m
}

// Write reads the next bytes of the answer. It returns no error, and keeps nothing of p.
func (m *Meter) Write(p []byte) (int, error) {
	n := len(p)
	if !m.sse {
		m.json.write(p)
		return n, nil
	}
	for len(p) > 0 {
		if m.afterCR {
			if m.afterCR = false; p[0] == '\n' {
				p = p[1:]
				continue
			}
		}
		end := bytes.IndexByte(p, '\n')
		line := p
		if end >= 0 {
			line = p[:end]
		}
		if cr := bytes.IndexByte(line, '\r'); cr >= 0 {
			end, line = cr, p[:cr]
		}
		m.line(line)
		if end < 0 {
			return n, nil
		}
		m.endLine()
		m.afterCR = p[end] == '\r'
		p = p[end+1:]
	}
	return n, nil
}

// Done reports whether the provider has said that nothing follows.
func (m *Meter) Done() bool { return m.done }

const dataField = "data:"

// line reads a part of a line.
func (m *Meter) line(part []byte) {
	for m.where == inName && len(part) > 0 {
		c := part[0]
		part = part[1:]
		if c != dataField[m.n] {
			m.where = inOther
		}
		if m.n++; m.where == inName && m.n == len(dataField) {
			m.where, m.data = inData, true
		}
	}
	if m.where != inData || len(part) == 0 {
		return
	}
	const done = "[DONE]"
	for _, c := range part {
		if m.mark < 0 {
			break
		}
		switch {
		case c == ' ' && (m.mark == 0 || m.mark == len(done)):
		case m.mark < len(done) && c == done[m.mark]:
			m.mark++
		default:
			m.mark = -1
		}
	}
	m.json.write(part)
}

// endLine ends a line; an empty one ends the event.
func (m *Meter) endLine() {
	if m.n == 0 {
		m.endEvent()
	}
	m.where, m.n = inName, 0
}

func (m *Meter) endEvent() {
	if m.data {
		m.done = m.done || m.mark == len("[DONE]") || m.json.terminal
	}
	m.data, m.mark = false, 0
	m.json.reset()
}

// Took is what the call has taken. ended says that the answer came whole. Where the
// provider's figures are not there, or could be followed by others because the answer broke off, the
// call has taken the most that it could, and is estimated: whoever hangs up early saves nothing.
func (c *Call) Took(m *Meter, ended bool) (u Usage, estimated bool) {
	if m == nil {
		return c.Most, true
	}
	if ended && m.sse {
		m.endLine() // the last line need not end
		m.endEvent()
	}
	f := &m.json.found
	u = Usage{Input: f[input], CacheRead: f[cacheRead], CacheWrite: f[cacheWrite], Output: f[output]}
	if cached := min(f[cachedInput], u.Input); cached > 0 { // of OpenAI's input; Anthropic's is beside it
		u.Input, u.CacheRead = u.Input-cached, u.CacheRead+cached
	}
	if thought := f[total] - u.Tokens(); f[total] > 0 && thought > 0 { // some leave reasoning out of the output, and not of the total
		u.Output += thought
	}
	nothing := u.Tokens() == u.Output // no call has an input of nothing: these are no figures
	if nothing {
		u.Input, u.CacheWrite, estimated = c.Most.Input, c.Most.CacheWrite, true
	}
	// A stream of messages has figures from its first event on, and ends after an error, too.
	if nothing || m.json.seen&(1<<output) == 0 || (!ended || m.sse && m.json.begun) && !m.done {
		u.Output, estimated = max(u.Output, c.Most.Output), true
	}
	return u, estimated
}

// The figures.
const (
	input = iota
	output
	total
	cachedInput
	cacheRead
	cacheWrite
	figures
)

// maxPath is above the depth of the names that lead to a figure.
const maxPath = 5

// scanner finds figures in JSON. It does not judge the JSON.
type scanner struct {
	found [figures]int64
	seen  uint8 // which of them, a bit for each

	depth   int
	objects uint64       // which of the containers are objects, by depth
	path    [maxPath]int // what leads to the value at each depth; 0 leads nowhere
	name    bool         // the next text is a name
	// text is the beginning of the text that is read, if it matters.
	quoted, escaped bool
	text            [32]byte
	n               int
	number          bool
	whole           bool // the number is a whole one so far
	value           int64
	terminal        bool // the type is that of a stream's last event
	begun           bool // a stream has begun that such an event ends
}

// reset begins another text. What has been found stays.
func (s *scanner) reset() {
	s.depth, s.objects, s.path, s.name = 0, 0, [maxPath]int{}, false
	s.quoted, s.escaped, s.number, s.terminal = false, false, false, false
}

func (s *scanner) write(p []byte) {
	for i := 0; i < len(p); i++ {
		c := p[i]
		if s.quoted {
			if s.escaped {
				s.escaped = false
				continue
			}
			end := bytes.IndexByte(p[i:], '"')
			part := p[i:]
			if end >= 0 {
				part = part[:end]
			}
			if back := bytes.IndexByte(part, '\\'); back >= 0 {
				s.escaped, s.n = true, len(s.text)+1 // a name that is escaped is none that matters
				i += back
				continue
			}
			s.keep(part)
			if i += len(part); end >= 0 {
				s.quoted = false
				s.endText()
			}
			continue
		}
		if s.number {
			if '0' <= c && c <= '9' {
				s.value = min(s.value*10+int64(c-'0'), maxFigure)
				continue
			}
			if c == '.' || c == 'e' || c == 'E' || c == '+' || c == '-' {
				s.whole = false
				continue
			}
			s.number = false
			s.endNumber()
		}
		switch {
		case c == '"':
			s.quoted, s.n = true, 0
		case '0' <= c && c <= '9' || c == '-':
			s.number, s.whole, s.value = true, c != '-', int64(max(c, '0')-'0')
		case c == '{' || c == '[':
			s.push(c == '{')
		case c == '}' || c == ']':
			s.depth = max(s.depth-1, 0)
			s.name = false
		case c == ',':
			s.name = s.object()
		}
	}
}

func (s *scanner) push(object bool) {
	s.depth++
	if s.depth < 64 {
		s.objects &^= 1 << s.depth
		if object {
			s.objects |= 1 << s.depth
		}
	}
	if s.depth < maxPath {
		s.path[s.depth] = nowhere
	}
	s.name = object && s.depth < 64
}

func (s *scanner) object() bool { return s.depth < 64 && s.objects>>s.depth&1 == 1 }

// keep keeps what a text begins with, if it is a name or the type of an event.
func (s *scanner) keep(part []byte) {
	if s.depth >= maxPath || s.n > len(s.text) {
		return
	}
	s.n += copy(s.text[min(s.n, len(s.text)):], part)
	if s.n == len(s.text) {
		s.n++ // longer than any that matters
	}
}

// The places of the names. A figure's is that of its parent, and its own.
const (
	nowhere = iota
	inUsage
	inDetails // of the input
	inAnswer  // the answer as a whole, in an event
	isType
	isFigure // and which one
)

func (s *scanner) endText() {
	if s.depth >= maxPath || s.depth == 0 || !s.object() {
		return
	}
	text := s.text[:min(s.n, len(s.text))]
	if !s.name {
		if s.depth == 1 && s.path[1] == isType {
			switch string(text) {
			case "response.completed", "response.incomplete", "response.failed", "message_stop":
				s.terminal = true
			case "message_start":
				s.begun = true
			}
		}
		return
	}
	s.name = false
	s.path[s.depth] = place(s.depth, s.path[s.depth-1], string(text))
}

// place is where a name leads, at that depth and below that parent.
func place(depth, parent int, name string) int {
	switch {
	case depth == 1 && name == "type":
		return isType
	case depth == 1 && (name == "response" || name == "message"):
		return inAnswer
	case name == "usage" && (depth == 1 || parent == inAnswer):
		return inUsage
	case parent == inUsage:
		switch name {
		case "input_tokens", "prompt_tokens":
			return isFigure + input
		case "output_tokens", "completion_tokens":
			return isFigure + output
		case "total_tokens":
			return isFigure + total
		case "cache_read_input_tokens":
			return isFigure + cacheRead
		case "cache_creation_input_tokens":
			return isFigure + cacheWrite
		case "input_tokens_details", "prompt_tokens_details":
			return inDetails
		}
	case parent == inDetails && name == "cached_tokens":
		return isFigure + cachedInput
	}
	return nowhere
}

func (s *scanner) endNumber() {
	if !s.whole || s.depth >= maxPath || !s.object() {
		return
	}
	if f := s.path[s.depth] - isFigure; f >= 0 {
		s.found[f] = max(s.found[f], s.value)
		s.seen |= 1 << f
	}
}
