// Package wire is what moat does to a connection before net/http reads it.
//
//	l := wire.Listen(inner, wire.Options{TLS: cfg, HeaderBytes: 32 << 10})
//	server.Serve(l) // Serve, never ServeTLS: TLS is done already
//
// A connection passes four layers, in this order:
//
//	TCP → PROXY protocol → TLS → framing
//
// # What it protects
//
// Framing. net/http forgives what RFC 9112 lets a server forgive: a
// Content-Length beside a Transfer-Encoding, equal Content-Lengths, folded
// headers, bare line feeds. A gateway must not, because another parser on the
// path, in front or behind, may read such a request differently, and the bytes
// over which the two disagree are a request that nobody checked. Here each of
// them is refused, with its own [guard.Reason], before net/http sees a byte of
// the head. The refusal still goes through net/http and the handler, in its
// turn among pipelined requests: see [RefusedPath].
//
// Time. A TLS handshake, a PROXY header, a request head and a write to a client
// that does not read each have a bound, and none of them holds up Accept.
//
// Memory. What is held back of an unfinished head is at most
// Options.HeaderBytes, and only while it is unfinished; bodies are counted and
// not kept. With Options.Hello, up to 32 KiB of a connection's first request
// besides, while it is unfinished.
//
// # What it does not protect
//
// HTTP/2 has lengths of its own that leave nothing to guess, so it is not
// scanned; it can begin by ALPN over TLS, or by prior knowledge without. The
// syntax of the request line, of Host and of header values stays with net/http,
// which refuses more there than this package would. How slowly a body may come
// is up to the handler, and how many connections one client may open is up to
// the limits above and the network below.
//
// # What it tells
//
// With Options.Hello, what a connection's first bytes say about the program that
// made it: see Hello. They are looked at and not judged.
//
// # Who is trusted
//
// Nobody by default. With Options.ProxyProtocol set, a peer in one of its
// prefixes is believed about who the client is, must say so, and everybody else
// is disconnected: a port either speaks the PROXY protocol or it does not.
package wire
