package wire

import (
	"container/list"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// maxGreeting bounds the connections whose PROXY header or TLS handshake is not
// finished.
const maxGreeting = 1024

var (
	errUntrusted = errors.New("wire: the peer is not one of the proxies that may speak the PROXY protocol")
	errCrowded   = errors.New("wire: too many unfinished handshakes; the oldest was dropped")
)

// greeter is a listener that settles with each connection who it is for and how
// it is encrypted, all at once, and accepts those that are done.
type greeter struct {
	inner net.Listener
	opts  *Options

	ctx  context.Context // ends when the listener is closed
	stop context.CancelFunc
	done chan net.Conn
	errs chan error

	mu      sync.Mutex
	closed  bool
	pending *list.List // of net.Conn, the oldest in front
}

func newGreeter(inner net.Listener, o *Options) *greeter {
	g := &greeter{inner: inner, opts: o, done: make(chan net.Conn), errs: make(chan error), pending: list.New()}
	g.ctx, g.stop = context.WithCancel(context.Background())
	go g.run()
	return g
}

// Addr implements net.Listener.
func (g *greeter) Addr() net.Addr { return g.inner.Addr() }

// Accept implements net.Listener.
func (g *greeter) Accept() (net.Conn, error) {
	select {
	case c := <-g.done:
		return c, nil
	case err := <-g.errs:
		return nil, err
	case <-g.ctx.Done():
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (g *greeter) Close() error {
	g.mu.Lock()
	g.closed = true
	g.stop()
	for e := g.pending.Front(); e != nil; e = e.Next() {
		closePending(e)
	}
	g.mu.Unlock()
	return g.inner.Close()
}

// run accepts from the listener below. It hands an error on before it tries
// again, so the pace after a passing one, such as a want of file descriptors, is
// that of whoever calls Accept.
func (g *greeter) run() {
	for {
		c, err := g.inner.Accept()
		if err == nil {
			g.admit(c)
			continue
		}
		select {
		case g.errs <- err:
		case <-g.ctx.Done():
			return
		}
		if errors.Is(err, net.ErrClosed) {
			_ = g.Close() // whoever closed the listener below has the error already
			return
		}
	}
}

func (g *greeter) admit(c net.Conn) {
	if g.opts.ProxyProtocol != nil && !trusted(c.RemoteAddr(), g.opts.ProxyProtocol) {
		_ = c.Close()
		g.opts.Refused(c.RemoteAddr(), errUntrusted)
		return
	}
	g.mu.Lock()
	if g.closed {
		g.mu.Unlock()
		_ = c.Close()
		return
	}
	var evicted net.Conn
	if g.pending.Len() >= maxGreeting {
		// Not the newest: an honest handshake takes a few round trips, so among the
		// oldest are those that never mean to finish.
		oldest := g.pending.Front()
		evicted = closePending(oldest)
		g.pending.Remove(oldest)
	}
	place := g.pending.PushBack(c)
	g.mu.Unlock()
	if evicted != nil {
		g.opts.Refused(evicted.RemoteAddr(), errCrowded)
	}
	go g.serve(c, place)
}

func closePending(e *list.Element) net.Conn {
	c, ok := e.Value.(net.Conn)
	if !ok {
		return nil
	}
	_ = c.Close()
	return c
}

// serve sees one connection through to Accept.
func (g *greeter) serve(raw net.Conn, place *list.Element) {
	c, err := g.greet(raw)
	// Before it is handed over: from then on it is not the listener's to close.
	g.mu.Lock()
	g.pending.Remove(place) // does nothing if it was evicted
	g.mu.Unlock()
	if err == nil {
		select {
		case g.done <- c:
			return
		case <-g.ctx.Done():
			err = net.ErrClosed
		}
	}
	_ = raw.Close()
	// Closed here, by eviction or by Close: that is told elsewhere or not at all.
	if !errors.Is(err, net.ErrClosed) && g.ctx.Err() == nil {
		g.opts.Refused(raw.RemoteAddr(), fmt.Errorf("wire: %w", err))
	}
}

// greet does what must be done before HTTP, within the time for it.
func (g *greeter) greet(raw net.Conn) (net.Conn, error) {
	idle := &idleConn{Conn: raw, idle: g.opts.WriteIdle, tap: g.opts.newTap()}
	if err := idle.SetDeadline(time.Now().Add(g.opts.HandshakeTimeout)); err != nil {
		return nil, err
	}
	var c net.Conn = idle
	if g.opts.ProxyProtocol != nil {
		proxied, err := readProxyHeader(idle)
		if err != nil {
			return nil, err
		}
		c = proxied
	}
	if g.opts.TLS == nil {
		if err := idle.SetDeadline(time.Time{}); err != nil {
			return nil, err
		}
		return newPlain(c, idle, g.opts), nil
	}
	t := tls.Server(c, g.opts.TLS)
	if err := t.HandshakeContext(g.ctx); err != nil {
		answerPlaintext(err)
		return nil, fmt.Errorf("TLS handshake: %w", err)
	}
	if err := idle.SetDeadline(time.Time{}); err != nil {
		return nil, err
	}
	switch protocol := t.ConnectionState().NegotiatedProtocol; protocol {
	case "h2":
		return newHTTP2(t), nil
	case "", "http/1.1":
		return newSecure(t, g.opts), nil
	default:
		return nil, fmt.Errorf("TLS handshake: nothing here speaks %q", protocol)
	}
}

// answerPlaintext tells a client that took the port for an unencrypted one, in
// words that a person at a browser sees.
func answerPlaintext(err error) {
	var mistake tls.RecordHeaderError
	if !errors.As(err, &mistake) || mistake.Conn == nil {
		return
	}
	switch string(mistake.RecordHeader[:]) {
	case "GET /", "HEAD ", "POST ", "PUT /", "OPTIO":
		_, _ = io.WriteString(mistake.Conn, "HTTP/1.0 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n"+
			"This port speaks HTTPS: use https:// in the URL.\n")
	}
}
