package wire

import (
	"crypto/tls"
	"net"
	"net/netip"
	"time"
)

// What a zero in Options means.
const (
	DefaultHeaderBytes      = 32 << 10
	DefaultHandshakeTimeout = 10 * time.Second
)

// minHeaderBytes is the least bound on a head that is taken seriously.
const minHeaderBytes = 256

// Options says what lies between TCP and net/http.
type Options struct {
	// TLS, if not nil, makes every connection a TLS one. NextProtos decides about
	// HTTP/2; if it is empty, "h2" and "http/1.1" are offered. A connection that
	// negotiates anything else, such as an ACME challenge, ends after the handshake.
	TLS *tls.Config

	// ProxyProtocol, if not nil, makes every connection begin with a PROXY header,
	// of version 1 or 2, from a peer in one of these prefixes. Connections from
	// elsewhere, or with a bad header or none, are closed. An empty list that is
	// not nil trusts nobody and closes all.
	ProxyProtocol []netip.Prefix

	// HeaderBytes bounds the head of an HTTP/1.1 request, from the request line to
	// the empty line. It is DefaultHeaderBytes if zero and at least 256. The
	// server's MaxHeaderBytes must not be smaller, or net/http refuses first.
	HeaderBytes int

	// HeadTimeout bounds the time from the first byte of a head to its last. The
	// server's ReadHeaderTimeout does so for a connection's first head only, and
	// its IdleTimeout for the others. Zero leaves it at those.
	HeadTimeout time.Duration

	// HandshakeTimeout bounds the PROXY header and the TLS handshake together. It
	// is DefaultHandshakeTimeout if zero.
	HandshakeTimeout time.Duration

	// WriteIdle is how long a client may take no byte of what is written to it
	// before the write fails. Zero is no bound.
	WriteIdle time.Duration

	// Hello, if not nil, is asked for each connection whether its first bytes are to be looked at
	// for HelloOf. Nothing is looked at or kept otherwise. It must be safe for concurrent use, and
	// quick. Over TLS it needs RestoreTLS.
	Hello func() bool

	// Refused, if not nil, is told of each connection that was closed before
	// net/http saw it, and why. Peer is who connected, not who a PROXY header
	// names. It must be safe for concurrent use, and quick.
	Refused func(peer net.Addr, err error)
}

// Listen puts moat's layers on top of inner. What it returns is for
// http.Server.Serve: with HTTP/2, its Accept yields a *tls.Conn whose handshake
// is done, which net/http recognizes, and otherwise a connection whose requests
// are scanned. Request.TLS is set in both cases. For a connection of HTTP/2 that
// Options.Hello wants to be looked at, see RestoreTLS.
//
// Closing it closes inner, and all connections that Accept has not returned.
func Listen(inner net.Listener, o Options) net.Listener {
	if o.HeaderBytes == 0 {
		o.HeaderBytes = DefaultHeaderBytes
	}
	o.HeaderBytes = max(o.HeaderBytes, minHeaderBytes)
	if o.HandshakeTimeout <= 0 {
		o.HandshakeTimeout = DefaultHandshakeTimeout
	}
	if o.Refused == nil {
		o.Refused = func(net.Addr, error) {}
	}
	if o.TLS != nil {
		o.TLS = o.TLS.Clone()
		if len(o.TLS.NextProtos) == 0 {
			o.TLS.NextProtos = []string{"h2", "http/1.1"}
		}
		if o.Hello != nil {
			watchHello(o.TLS)
		}
	}
	if o.TLS == nil && o.ProxyProtocol == nil {
		return &plainListener{inner, &o}
	}
	return newGreeter(inner, &o)
}

// plainListener accepts connections with which there is nothing to settle first.
type plainListener struct {
	net.Listener
	opts *Options
}

// Accept implements net.Listener.
func (l *plainListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	idle := &idleConn{Conn: c, idle: l.opts.WriteIdle, tap: l.opts.newTap()}
	return newPlain(idle, idle, l.opts), nil
}
