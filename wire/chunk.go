package wire

import "math"

const (
	// chunkLineBytes bounds a chunk's size and extensions. Extensions are
	// tolerated because RFC 9112 section 7.1.1 wants them ignored, but no client
	// is known to need any.
	chunkLineBytes = 256

	// chunkExcess bounds what a body may have in chunk lines beyond 16 bytes and
	// twice the data per chunk. net/http has the same rule with twice the bound,
	// and must not be the one to object: it would leave the rest of the body
	// unread on a connection whose boundaries the scanner still vouches for.
	chunkExcess = 8 << 10
)

// chunkLine is the line that announces a chunk, as far as it has been read.
type chunkLine struct {
	digits int
	bytes  int // of the line, its end not counted
	excess int64
}

// chunkByte takes one byte of a chunked body that is not data. It returns 0
// where the byte is left for the section that follows.
func (s *scanner) chunkByte(b byte) (step int, ok bool) {
	switch s.phase {
	case inChunkSize, inChunkExtension:
		if b == '\r' {
			s.phase = inChunkLF
			return 1, s.chunk.digits > 0
		}
		s.chunk.bytes++
		return 1, s.chunk.bytes <= chunkLineBytes && s.chunkLineByte(b)
	case inChunkLF:
		if b != '\n' || !s.chunkAllowance() {
			return 0, false
		}
		if s.left > 0 {
			s.phase = inChunkData
			return 1, true
		}
		// The last chunk. Its LF goes on only together with the whole trailer
		// section, nearly always one CRLF: net/http reports a fault that comes
		// later than that in words of its own.
		s.phase = inTrailer
		s.sec = section{line: 1, seen: 1}
		return 0, true
	case inChunkDataCR:
		s.phase = inChunkDataLF
		return 1, b == '\r'
	case inChunkDataLF:
		s.phase = inChunkSize
		s.chunk = chunkLine{excess: s.chunk.excess}
		return 1, b == '\n'
	case inHead, inLength, inChunkData, inTrailer, passed:
	}
	return 0, false
}

// chunkLineByte takes one byte of a chunk line before its CR. RFC 9112 section
// 7.1.1 would have a blank before an extension tolerated; net/http does not, and
// the reason to refuse what it refuses is that of chunkExcess.
func (s *scanner) chunkLineByte(b byte) bool {
	switch {
	case s.phase == inChunkExtension:
		return b == '\t' || b >= ' ' && b != 0x7f
	case s.chunk.digits > 0 && b == ';':
		s.phase = inChunkExtension
		return true
	}
	d := hexDigit(b)
	if d < 0 || s.chunk.digits == 16 || s.left > math.MaxInt64>>4 {
		return false
	}
	s.chunk.digits++
	s.left = s.left<<4 | d
	return true
}

// chunkAllowance adds the line to what the body has spent on lines.
func (s *scanner) chunkAllowance() bool {
	spent := s.chunk.excess + int64(s.chunk.bytes) + 2 - 16
	s.chunk.excess = max(0, spent-2*min(s.left, chunkExcess))
	return s.chunk.excess <= chunkExcess
}

// hexDigit returns the value of b, or -1.
func hexDigit(b byte) int64 {
	switch {
	case '0' <= b && b <= '9':
		return int64(b - '0')
	case 'a' <= b && b <= 'f':
		return int64(b-'a') + 10
	case 'A' <= b && b <= 'F':
		return int64(b-'A') + 10
	}
	return -1
}
