package wire

import (
	"bytes"
	"math"

	"github.com/moat-gateway/moat/guard"
)

// preface opens an HTTP/2 connection (RFC 9113 section 3.4).
const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

// trailerBytes bounds a trailer section. It is net/http's own bound, the size of
// its read buffer: were this one larger, net/http would give up on a section
// that the scanner has passed, and the two would disagree about what follows.
const trailerBytes = 4 << 10

// phase is what the next byte belongs to.
type phase uint8

const (
	inHead phase = iota
	inLength
	inChunkSize
	inChunkExtension
	inChunkLF
	inChunkData
	inChunkDataCR
	inChunkDataLF
	inTrailer
	passed // not ours any more: HTTP/2, or another protocol after an upgrade
)

// scanner follows the boundaries of the messages in a stream of HTTP/1.1
// requests. It keeps no bytes: its caller holds those that it does not pass yet.
type scanner struct {
	max     int // of a head, in bytes
	phase   phase
	opening bool  // nothing has been passed yet, so this may become HTTP/2
	skipped bool  // an empty line before this head was dropped
	upgrade bool  // the last head asked for one; see undecided
	left    int64 // bytes of the body or chunk still to come
	sec     section
	chunk   chunkLine
}

// section is a head or a trailer section as far as it has been read. Its offsets
// count from the section's first byte.
type section struct {
	line  int // where the current line begins
	seen  int // up to where that line is known to have no LF
	lines int // finished ones

	http11  bool
	upgrade bool
	chunked bool
	sized   bool
	length  int64

	hosts            int
	hostFrom, hostTo int
}

// scan looks at p, which continues the stream after the bytes that earlier calls
// passed, and returns how many of its bytes may go on. With guard.OK, what is
// left of p belongs to a section that is not whole, or waits for an upgrade to
// be decided: it must come again, with more behind it. With any other reason,
// the rest of the stream is lost, and phase says whether a head or a body broke.
//
// The verdict and the bytes passed do not depend on how the stream is cut.
func (s *scanner) scan(p []byte) (n int, why guard.Reason) {
	if s.opening {
		k := min(len(p), len(preface))
		if string(p[:k]) == preface[:k] {
			if k == len(preface) {
				s.phase = passed
				return len(p), guard.OK
			}
			return 0, guard.OK
		}
		s.opening = false
	}
	for n < len(p) {
		switch s.phase {
		case inHead:
			if s.upgrade {
				return n, guard.OK
			}
			if p[n] == '\r' && !s.skipped {
				if len(p)-n > 1 && p[n+1] != '\n' {
					return n, guard.FramingLineEnd
				}
				return n, guard.OK // for dropEmptyLine
			}
			end, fault := s.lines(p[n:], s.max)
			if fault == guard.OK && end > 0 {
				fault = s.endHead()
			}
			if fault != guard.OK || end == 0 {
				return n, fault
			}
			n += end
		case inTrailer:
			end, fault := s.lines(p[n:], trailerBytes)
			if fault != guard.OK || end == 0 {
				return n, fault
			}
			n += end
			s.nextMessage()
		case inLength:
			n += s.skip(p[n:])
			if s.left == 0 {
				s.nextMessage()
			}
		case inChunkData:
			n += s.skip(p[n:])
			if s.left == 0 {
				s.phase = inChunkDataCR
			}
		case inChunkSize, inChunkExtension, inChunkLF, inChunkDataCR, inChunkDataLF:
			step, ok := s.chunkByte(p[n])
			if !ok {
				return n, guard.RequestMalformed
			}
			n += step
		case passed:
			return len(p), guard.OK
		}
	}
	return n, guard.OK
}

// skip counts off bytes of a body or chunk.
func (s *scanner) skip(p []byte) int {
	n := len(p)
	if int64(n) > s.left {
		n = int(s.left)
	}
	s.left -= int64(n)
	return n
}

// dropEmptyLine reports whether held, the beginning of a head, opens with an
// empty line that is to be dropped. RFC 9112 section 2.2 asks a server to ignore
// "at least one" before the request line, for clients of old that end a body with
// a CRLF which its length does not count. One is dropped, and not passed, since
// net/http tolerates it only after a POST; a second one is refused.
func (s *scanner) dropEmptyLine(held []byte) bool {
	if s.phase != inHead || s.upgrade || s.skipped || !bytes.HasPrefix(held, []byte("\r\n")) {
		return false
	}
	s.skipped = true
	return true
}

// lines reads on in the section that begins at p[0]. It returns where the
// section ends, or 0 if p does not have all of it.
func (s *scanner) lines(p []byte, limit int) (end int, why guard.Reason) {
	sec := &s.sec
	within := p[:min(len(p), limit)]
	for {
		i := bytes.IndexByte(within[sec.seen:], '\n')
		if i < 0 {
			sec.seen = len(within)
			if len(p) >= limit {
				return 0, s.tooLarge()
			}
			return 0, guard.OK
		}
		lf := sec.seen + i
		from := sec.line
		if lf == from || p[lf-1] != '\r' {
			return 0, guard.FramingLineEnd
		}
		sec.line, sec.seen = lf+1, lf+1
		sec.lines++
		line := p[from : lf-1]
		switch {
		case s.phase == inHead && from == 0:
			why = sec.requestLine(line)
		case len(line) == 0:
			return sec.line, sec.check(p[:sec.line])
		default:
			why = s.field(line, from)
		}
		if why != guard.OK {
			return 0, why
		}
	}
}

func (s *scanner) tooLarge() guard.Reason {
	if s.phase == inTrailer {
		return guard.RequestMalformed
	}
	return guard.FramingHeadSize
}

// check looks through the finished section for what no line of it may hold. Every
// line ends in CRLF by now, so a CR too many stands somewhere else.
func (sec *section) check(p []byte) guard.Reason {
	if bytes.Count(p, []byte{'\r'}) != sec.lines || bytes.IndexByte(p, 0) >= 0 {
		return guard.FramingLineEnd
	}
	return guard.OK
}

// requestLine looks for the version only: net/http refuses a malformed line.
func (sec *section) requestLine(line []byte) guard.Reason {
	if len(line) == 0 {
		return guard.FramingLineEnd
	}
	sec.http11 = bytes.HasSuffix(line, []byte(" HTTP/1.1"))
	return guard.OK
}

// field checks a header or trailer line that begins at the offset from.
func (s *scanner) field(line []byte, from int) guard.Reason {
	if line[0] == ' ' || line[0] == '\t' {
		return guard.FramingFoldedHeader
	}
	colon := len(line)
	for i, b := range line {
		if !isToken[b] {
			colon = i
			break
		}
	}
	if colon == 0 || colon == len(line) || line[colon] != ':' {
		return guard.FramingHeaderName
	}
	sec := &s.sec
	// The lengths sort out nearly every other header without a comparison.
	switch colon {
	case len("host"):
		if !foldEqual(line[:colon], "host") {
			return guard.OK
		}
		if s.phase == inTrailer {
			return guard.RequestMalformed
		}
		sec.hosts++
		sec.hostFrom, sec.hostTo = from+colon+1, from+len(line)
	case len("upgrade"):
		if foldEqual(line[:colon], "upgrade") {
			sec.upgrade = true
		}
	case len("content-length"):
		if !foldEqual(line[:colon], "content-length") {
			return guard.OK
		}
		// RFC 9110 section 6.5.1: what frames a message cannot follow it.
		if s.phase == inTrailer {
			return guard.RequestMalformed
		}
		return sec.contentLength(trimBlank(line[colon+1:]))
	case len("transfer-encoding"):
		if !foldEqual(line[:colon], "transfer-encoding") {
			return guard.OK
		}
		if s.phase == inTrailer {
			return guard.RequestMalformed
		}
		return sec.transferEncoding(trimBlank(line[colon+1:]))
	}
	return guard.OK
}

func (sec *section) contentLength(value []byte) guard.Reason {
	if sec.sized {
		return guard.FramingDuplicateLength
	}
	if len(value) == 0 {
		return guard.FramingLength
	}
	var n int64
	for _, b := range value {
		d := int64(b) - '0'
		if d < 0 || d > 9 || n > (math.MaxInt64-d)/10 {
			return guard.FramingLength
		}
		n = n*10 + d
	}
	sec.sized, sec.length = true, n
	return guard.OK
}

// transferEncoding accepts the one coding that every HTTP/1.1 recipient knows.
// In HTTP/1.0 the field means nothing to net/http and something to others (RFC
// 9112 section 6.1), so there it is refused. A later HTTP/1.x is treated like 1.0.
func (sec *section) transferEncoding(value []byte) guard.Reason {
	if sec.chunked || !sec.http11 || !foldEqual(value, "chunked") {
		return guard.FramingTransferEncoding
	}
	sec.chunked = true
	return guard.OK
}

// endHead decides what follows a head that is whole.
func (s *scanner) endHead() guard.Reason {
	sec := &s.sec
	switch {
	case sec.chunked && sec.sized:
		return guard.FramingLengthConflict
	case sec.chunked:
		s.phase = inChunkSize
		s.chunk = chunkLine{}
	case sec.length > 0:
		s.phase = inLength
		s.left = sec.length
	}
	s.upgrade = sec.upgrade
	*sec = section{}
	s.skipped = false
	return guard.OK
}

// undecided says that a message which asked for an upgrade is over, its body
// included. Nothing after it is looked at until it is known whether the
// connection is still HTTP.
func (s *scanner) undecided() bool { return s.upgrade && s.phase == inHead }

func (s *scanner) nextMessage() {
	s.phase = inHead
	s.sec = section{}
}

// host is the value of the only Host line in held, the head being read, so far.
func (s *scanner) host(held []byte) []byte {
	if s.sec.hosts != 1 {
		return nil
	}
	return trimBlank(held[s.sec.hostFrom:s.sec.hostTo])
}

// isToken has the characters of a field name (RFC 9110 section 5.6.2).
var isToken = func() (t [256]bool) {
	for b := range t {
		t[b] = '0' <= b && b <= '9' || 'a' <= b && b <= 'z' || 'A' <= b && b <= 'Z'
	}
	for _, b := range []byte("!#$%&'*+-.^_`|~") {
		t[b] = true
	}
	return t
}()

// foldEqual compares without regard to ASCII case. bytes.EqualFold would fold
// the Kelvin sign into "chunked". want is lower case.
func foldEqual(b []byte, want string) bool {
	if len(b) != len(want) {
		return false
	}
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		if c != want[i] {
			return false
		}
	}
	return true
}

// trimBlank removes optional white space (RFC 9110 section 5.6.3), and nothing
// else that Unicode calls a space.
func trimBlank(b []byte) []byte {
	for len(b) > 0 && (b[0] == ' ' || b[0] == '\t') {
		b = b[1:]
	}
	for len(b) > 0 && (b[len(b)-1] == ' ' || b[len(b)-1] == '\t') {
		b = b[:len(b)-1]
	}
	return b
}
