package wire

import (
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/net/http2/hpack"
)

// http2Conn is HTTP/2 over TLS whose first bytes are looked at. net/http takes the HTTP/2 of a
// *tls.Conn from nothing else, and lets nobody see its bytes; but from a connection of any kind it
// takes HTTP/2 by prior knowledge. That is what this is to it: it has no ConnectionState, and
// RestoreTLS puts what is missing back into the requests.
type http2Conn struct {
	net.Conn // a *tls.Conn
	tap      *tap
	preface  int  // how much of it has been read
	broken   bool // something else has
}

// newHTTP2 returns c itself where nobody asks, and where RFC 9113 section 9.2.2 does not want its
// cipher suite: net/http, which sees the suite then, ends the connection with the right error.
func newHTTP2(c *tls.Conn) net.Conn {
	t := tapOf(c)
	state := c.ConnectionState()
	if t == nil || state.Version < tls.VersionTLS13 && !slices.Contains(suitesForHTTP2, state.CipherSuite) {
		return c
	}
	t.tls = &state
	return &http2Conn{Conn: c, tap: t}
}

// suitesForHTTP2 are those of TLS 1.2 with ephemeral keys and authenticated encryption that
// crypto/tls has.
var suitesForHTTP2 = []uint16{
	tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
	tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
	tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256, tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
}

// NetConn returns the connection below.
func (c *http2Conn) NetConn() net.Conn { return c.Conn }

var errNoPreface = errors.New("wire: the client agreed on HTTP/2 and speaks something else")

// Read implements net.Conn. Whoever agreed on HTTP/2 and speaks HTTP/1.1 gets no further: nobody
// scans it here.
func (c *http2Conn) Read(p []byte) (int, error) {
	if c.broken {
		return 0, errNoPreface
	}
	n, err := c.Conn.Read(p)
	if c.preface < len(preface) {
		k := min(n, len(preface)-c.preface)
		if c.broken = string(p[:k]) != preface[c.preface:c.preface+k]; c.broken {
			return 0, errNoPreface
		}
		c.preface += k
	}
	if c.tap != nil && n > 0 && c.tap.see(p[:n]) {
		c.tap = nil
	}
	return n, err
}

// RestoreTLS is for the handler of a server that speaks TLS while Options.Hello is set: it sets
// Request.TLS where net/http could not. Such a server needs UnencryptedHTTP2 among its Protocols.
func RestoreTLS(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.TLS == nil {
			if t, ok := r.Context().Value(helloKey{}).(*tap); ok {
				r.TLS = t.tls
			}
		}
		next.ServeHTTP(w, r)
	})
}

const (
	frameHeader = 9 // bytes
	// maxSettings and maxPriorities bound what is kept. Firefox used to send five or six PRIORITY
	// frames; no browser is known to come near to either.
	maxSettings, maxPriorities = 32, 16
)

// Types and flags of frames (RFC 9113 section 6).
const (
	frameHeaders, framePriority, frameSettings, frameWindowUpdate, frameContinuation = 1, 2, 4, 8, 9
	flagAck, flagEndHeaders, flagPadded, flagPriority                                = 1, 4, 8, 0x20
)

// frames reads what a client sends in HTTP/2 up to the end of its first header block. It does not
// judge: what is malformed ends it, and the server will see for itself.
type frames struct {
	settings   []setting
	set        bool
	window     uint32
	priorities []string
	block      []byte // of the first HEADERS, while CONTINUATION frames are to come
	open       bool
	pseudo     []string
	names      names
}

type setting struct {
	id    uint16
	value uint32
}

// read takes the frames that are whole in p, and reports whether it needs no more.
func (f *frames) read(p []byte) (n int, done bool) {
	for len(p)-n >= frameHeader {
		head := p[n : n+frameHeader]
		length := int(head[0])<<16 | int(head[1])<<8 | int(head[2])
		if length > maxHello {
			return n, true
		}
		if len(p)-n < frameHeader+length {
			return n, false
		}
		payload := p[n+frameHeader : n+frameHeader+length]
		n += frameHeader + length
		if f.take(head[3], head[4], binary.BigEndian.Uint32(head[5:])&^(1<<31), payload) {
			return n, true
		}
	}
	return n, false
}

// take takes one frame, and reports whether it was the last that matters.
func (f *frames) take(kind, flags byte, stream uint32, payload []byte) (done bool) {
	if f.open && kind != frameContinuation {
		return true
	}
	switch kind {
	case frameSettings:
		if flags&flagAck == 0 && !f.set {
			f.set = true
			f.settled(payload)
		}
	case frameWindowUpdate:
		if stream == 0 && f.window == 0 && len(payload) == 4 {
			f.window = binary.BigEndian.Uint32(payload) &^ (1 << 31)
		}
	case framePriority:
		if len(payload) == 5 && len(f.priorities) < maxPriorities {
			f.priorities = append(f.priorities, priority(stream, payload))
		}
	case frameHeaders:
		block, ok := fragment(flags, payload)
		if !ok {
			return true
		}
		return f.more(flags, block)
	case frameContinuation:
		if !f.open {
			return true
		}
		return f.more(flags, payload)
	}
	return false
}

func (f *frames) settled(payload []byte) {
	for ; len(payload) >= 6 && len(f.settings) < maxSettings; payload = payload[6:] {
		if id := binary.BigEndian.Uint16(payload); !isGREASE(id) {
			f.settings = append(f.settings, setting{id, binary.BigEndian.Uint32(payload[2:])})
		}
	}
}

// priority is "stream:exclusive:dependency:weight".
func priority(stream uint32, payload []byte) string {
	on := binary.BigEndian.Uint32(payload)
	return fmt.Sprintf("%d:%d:%d:%d", stream, on>>31, on&^(1<<31), int(payload[4])+1)
}

// fragment is the part of a HEADERS frame that belongs to the header block.
func fragment(flags byte, p []byte) ([]byte, bool) {
	padding := 0
	if flags&flagPadded != 0 {
		if len(p) == 0 {
			return nil, false
		}
		padding, p = int(p[0]), p[1:]
	}
	if flags&flagPriority != 0 {
		if len(p) < 5 {
			return nil, false
		}
		p = p[5:]
	}
	if padding > len(p) {
		return nil, false
	}
	return p[:len(p)-padding], true
}

// more adds a piece of the header block, and reads it once it is whole.
func (f *frames) more(flags byte, piece []byte) (done bool) {
	if flags&flagEndHeaders == 0 {
		f.open = true
		f.block = append(f.block, piece...)
		return false
	}
	if f.open {
		piece = append(f.block, piece...)
	}
	// It is the connection's first block: the dynamic table is empty, and as large as it may be
	// before anything is agreed on.
	const table = 4096
	dec := hpack.NewDecoder(table, f.field)
	dec.SetMaxStringLength(maxHello)
	_, _ = dec.Write(piece) // what was read before a fault is what the client sent
	return true
}

func (f *frames) field(h hpack.HeaderField) {
	name, pseudo := strings.CutPrefix(h.Name, ":")
	switch {
	case !pseudo:
		f.names.add(name)
	case len(f.pseudo) < maxNames/8:
		f.pseudo = append(f.pseudo, shortPseudo(name))
	}
}

// shortPseudo is the letter that published fingerprints have for a pseudo-header field.
func shortPseudo(name string) string {
	switch name {
	case "method", "authority", "scheme", "path":
		return name[:1]
	}
	return name[:min(len(name), maxNameBytes)]
}

// String is the fingerprint: see Hello.
func (f *frames) String() string {
	var b strings.Builder
	for i, s := range f.settings {
		if i > 0 {
			b.WriteByte(';')
		}
		b.WriteString(strconv.Itoa(int(s.id)) + ":" + strconv.FormatUint(uint64(s.value), 10))
	}
	window, priorities := "00", "0" // as published where there is none
	if f.window != 0 {
		window = strconv.FormatUint(uint64(f.window), 10)
	}
	if len(f.priorities) > 0 {
		priorities = strings.Join(f.priorities, ",")
	}
	return b.String() + "|" + window + "|" + priorities + "|" + strings.Join(f.pseudo, ",")
}
