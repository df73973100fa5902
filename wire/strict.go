package wire

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/moat-gateway/moat/guard"
)

const (
	// firstHold is the size at which a hold-back buffer begins.
	firstHold = 2 << 10

	// A client that has been refused may still be sending. Were the connection
	// closed with bytes unread, TCP would answer them with a reset, and the reset
	// can overtake the refusal and destroy it. So its last bytes are read and
	// dropped, for at most this long and this much.
	lingerTime  = 500 * time.Millisecond
	lingerBytes = 1 << 20
)

// strictConn is a connection whose Read passes only requests that every parser
// frames alike. Like any connection of net/http's server it has one reader at a
// time; the deadlines and Close may be used beside it.
type strictConn struct {
	net.Conn
	scan scanner

	buf    []byte // held back; the first ready bytes of it may be delivered
	ready  int
	end    error       // what Read returns once ready is 0; nil while it goes on
	broken atomic.Bool // end was reached through a refusal

	headTimeout time.Duration

	tap *tap // nil: nobody asks, or it has seen enough

	mu    sync.Mutex // orders the two below with their effect on Conn
	asked time.Time  // the read deadline that net/http or a handler set
	limit time.Time  // by when the head that is held must be whole; zero: none is
}

// plainConn is what net/http gets without TLS.
type plainConn struct {
	strictConn
	idle *idleConn
}

// secureConn is what net/http gets for HTTP/1.1 over TLS. The ConnectionState
// method is all that net/http's server needs to fill in Request.TLS.
type secureConn struct {
	strictConn
	tls *tls.Conn
}

func newStrict(c net.Conn, o *Options) strictConn {
	return strictConn{Conn: c, scan: scanner{max: o.HeaderBytes}, headTimeout: o.HeadTimeout, tap: tapOf(c)}
}

func newPlain(c net.Conn, idle *idleConn, o *Options) *plainConn {
	p := &plainConn{strictConn: newStrict(c, o), idle: idle}
	p.scan.opening = true
	return p
}

func newSecure(c *tls.Conn, o *Options) *secureConn {
	return &secureConn{strictConn: newStrict(c, o), tls: c}
}

// ReadFrom lets net/http hand a file to the kernel.
func (c *plainConn) ReadFrom(r io.Reader) (int64, error) { return c.idle.ReadFrom(r) }

// ConnectionState is that of the TLS connection below.
func (c *secureConn) ConnectionState() tls.ConnectionState { return c.tls.ConnectionState() }

// NetConn returns the connection below.
func (c *strictConn) NetConn() net.Conn { return c.Conn }

// CloseWrite shuts down the sending side, if the connection below can.
func (c *strictConn) CloseWrite() error { return closeWrite(c.Conn) }

// Passthrough ends the scanning of a hijacked connection, whose next bytes are
// another protocol's; those held back come first. It must be called before
// anything is read from the connection or from the buffer that Hijack returns.
//
// It finds the connection below any that have a NetConn method, and does nothing
// if there is none of this package's.
//
// What a client sends behind a request with an Upgrade header is left alone
// until net/http asks for a next request. Behind any other it is HTTP, whatever
// the handler has in mind: a handler that hijacks those may find it refused.
func Passthrough(c net.Conn) {
	for c != nil {
		if s, ok := c.(interface{ passthrough() }); ok {
			s.passthrough()
			return
		}
		below, ok := c.(interface{ NetConn() net.Conn })
		if !ok {
			return
		}
		c = below.NetConn()
	}
}

func (c *strictConn) passthrough() {
	c.scan.phase = passed
	c.ready = len(c.buf)
}

// Read implements net.Conn.
func (c *strictConn) Read(p []byte) (int, error) {
	n, err := c.read(p)
	if c.tap != nil && n > 0 {
		c.show(p[:n])
	}
	return n, err
}

// show lets the tap see what net/http gets, but for a stand-in, which no client has sent.
func (c *strictConn) show(p []byte) {
	if c.end != nil {
		c.tap.finish(&Hello{JA4: c.tap.ja4})
		c.tap = nil
	} else if c.tap.see(p) {
		c.tap = nil
	}
}

func (c *strictConn) read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if c.ready > 0 {
		return c.deliver(p), nil
	}
	// net/http reads a single byte to learn, while a handler runs, that the client
	// has gone. When the handler is done it aborts that read by a deadline in the
	// past, so whatever such a read has gathered must still be here for the next.
	watch := len(p) == 1
	if c.end != nil {
		return 0, c.ended(watch)
	}
	if !watch && c.scan.phase == inHead {
		c.scan.upgrade = false // net/http wants a next request: there was no upgrade
	}
	if len(c.buf) == 0 && (!watch || !c.scan.undecided()) {
		n, err := c.Conn.Read(p)
		if n == 0 || c.scan.phase == passed {
			return n, err
		}
		// Should err not be nil here, the next Read gets it again from below.
		if n = c.inPlace(p[:n]); n > 0 {
			return n, nil
		}
	}
	return c.held(p, watch)
}

// inPlace judges what was just read into the caller's buffer and returns how much
// of it is delivered by that. It takes over the rest.
func (c *strictConn) inPlace(p []byte) int {
	n, why := c.scan.scan(p)
	if why != guard.OK {
		c.refuse(why, p[n:])
	} else if n < len(p) {
		c.buf = append(make([]byte, 0, max(firstHold, len(p)-n)), p[n:]...)
	}
	return n
}

// held reads on behind the bytes that are held back, until some can be delivered.
func (c *strictConn) held(p []byte, watch bool) (int, error) {
	for {
		if c.ready == 0 && c.end == nil {
			c.judge()
		}
		if c.ready > 0 || c.end != nil {
			c.boundHead(false)
			return c.read(p)
		}
		if c.scan.undecided() && len(c.buf) >= c.scan.max {
			return 0, &FramingError{guard.FramingHeadSize}
		}
		// A watching read has no bound on the next head: were it to fail, net/http
		// would take it for the client's leaving and cancel the request at hand.
		if !watch && len(c.buf) > 0 {
			c.boundHead(true)
		}
		n, err := c.Conn.Read(c.room())
		c.buf = c.buf[:len(c.buf)+n]
		if n == 0 && err != nil {
			return 0, err
		}
	}
}

// judge scans what is held.
func (c *strictConn) judge() {
	n, why := c.scan.scan(c.buf)
	if n == 0 && why == guard.OK && c.scan.dropEmptyLine(c.buf) {
		c.buf = c.buf[len("\r\n"):]
		n, why = c.scan.scan(c.buf)
	}
	c.ready = n
	if why == guard.OK {
		return
	}
	good := c.buf[:n:n]
	c.refuse(why, c.buf[n:])
	c.buf = append(good, c.buf...)
	c.ready = len(c.buf)
}

// refuse ends the stream. Where rest is the beginning of a bad head, the stand-in
// takes its place; in a body there is no place for one, and Read fails.
func (c *strictConn) refuse(why guard.Reason, rest []byte) {
	c.broken.Store(true)
	if c.scan.phase != inHead {
		c.buf, c.end = nil, &FramingError{why}
		return
	}
	c.buf = standIn(why, c.scan.host(rest))
	c.ready = len(c.buf)
	c.end = io.EOF
}

func (c *strictConn) deliver(p []byte) int {
	n := copy(p, c.buf[:c.ready])
	c.buf = c.buf[n:]
	c.ready -= n
	if len(c.buf) == 0 {
		c.buf = nil
	}
	return n
}

// ended is what Read says after the last byte. The fault of a body is told once:
// net/http's body reader remembers it, and its server, looking for a next
// request, should find an orderly end.
func (c *strictConn) ended(watch bool) error {
	err := c.end
	c.end = io.EOF
	if !watch || !errors.Is(err, io.EOF) {
		return err
	}
	// The handler that refuses is at work. An EOF now would cancel its context.
	scratch := make([]byte, firstHold)
	for {
		if _, below := c.Conn.Read(scratch); below != nil {
			return below
		}
	}
}

// room is where held bytes can be added.
func (c *strictConn) room() []byte {
	if len(c.buf) == cap(c.buf) {
		// Larger than either bound, an unfinished section is not held but refused.
		size := min(max(2*len(c.buf), firstHold), max(c.scan.max, trailerBytes))
		c.buf = append(make([]byte, 0, size), c.buf...)
	}
	return c.buf[len(c.buf):cap(c.buf)]
}

// boundHead starts the time in which a head that has begun must be whole, or
// ends it. net/http alone would not: between requests it waits for four bytes
// under its IdleTimeout and only then begins to count ReadHeaderTimeout, but it
// sees none of a head until all of it is there.
func (c *strictConn) boundHead(on bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.headTimeout <= 0 || on != c.limit.IsZero() {
		return
	}
	c.limit = time.Time{}
	if on {
		c.limit = time.Now().Add(c.headTimeout)
	}
	// Should this fail, so does the read that it is for.
	_ = c.Conn.SetReadDeadline(earlier(c.asked, c.limit))
}

// SetReadDeadline implements net.Conn.
func (c *strictConn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.asked = t
	return c.Conn.SetReadDeadline(earlier(t, c.limit))
}

// SetDeadline implements net.Conn.
func (c *strictConn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// Close closes the connection, after a refusal with care that it arrives.
func (c *strictConn) Close() error {
	// Only the first of several calls lingers, so that http.Server.Close can
	// break off what a handler's end began.
	if c.broken.Swap(false) && c.CloseWrite() == nil {
		if c.Conn.SetReadDeadline(time.Now().Add(lingerTime)) == nil {
			_, _ = io.CopyN(io.Discard, c.Conn, lingerBytes)
		}
	}
	return c.Conn.Close()
}

// earlier returns the earlier of two deadlines. A zero one is none.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}
