package wire

import (
	"github.com/moat-gateway/moat/guard"
)

// RefusedPath begins the path of the request that stands in for one whose head
// was refused; the code of the guard.Reason follows it. The stand-in is a GET
// with the refused request's Host, if that was sane and came before the fault,
// and with an empty Host otherwise. It closes the connection.
//
// It exists so that net/http answers in order: pipelined requests before the
// bad one get their responses first, and the refusal looks like any other.
// A client that asks for such a path itself is merely refused, so the handler
// has nothing to verify.
const RefusedPath = "/.moat/refused/"

// FramingError is what reading a chunked body ends with when its framing breaks
// the rules. It reaches the handler through Request.Body, where errors.As finds it.
type FramingError struct {
	Reason guard.Reason
}

func (e *FramingError) Error() string { return "wire: refused body: " + e.Reason.String() }

// standIn is the request that net/http reads in place of a refused head.
func standIn(why guard.Reason, host []byte) []byte {
	if !saneHost(host) {
		host = nil
	}
	b := make([]byte, 0, 128+len(host))
	b = append(b, "GET "+RefusedPath...)
	b = append(b, why.String()...)
	b = append(b, " HTTP/1.1\r\nHost: "...)
	b = append(b, host...)
	return append(b, "\r\nConnection: close\r\n\r\n"...)
}

// saneHost lets through the letters of a DNS name or an IP address and a port.
// It is no judgement on the host, only a promise that the stand-in is well-formed.
func saneHost(host []byte) bool {
	const longest = 253 + len(":65535")
	if len(host) > longest {
		return false
	}
	for _, b := range host {
		switch {
		case 'a' <= b && b <= 'z', 'A' <= b && b <= 'Z', '0' <= b && b <= '9':
		case b == '.', b == '-', b == '_', b == ':', b == '[', b == ']':
		default:
			return false
		}
	}
	return true
}
