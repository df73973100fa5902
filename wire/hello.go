package wire

import (
	"bytes"
	"context"
	"crypto/tls"
	"net"
	"strings"
	"sync/atomic"
)

// Hello is what a connection's first bytes tell about the program that made it. It is bounded to
// some 5 kB, whatever they are.
type Hello struct {
	// JA4 is that of the TLS ClientHello, or "" without TLS.
	JA4 string
	// HTTP2 is what the client says of itself in HTTP/2, or "" if it does not speak it: the first
	// SETTINGS in their order, how much the first WINDOW_UPDATE adds to the connection, the PRIORITY
	// frames, and the order of the first request's pseudo-header fields, in the form that
	// measurements are published in: "1:65536;2:0;4:6291456;6:262144|15663105|0|m,a,s,p".
	HTTP2 string
	// HeaderOrder are the names of the first request's header fields, as they were sent, without
	// pseudo-header fields, 64 at most. It is nil if they were not found within the first 32 KiB.
	HeaderOrder []string
}

const (
	// maxHello is how far into a connection its first request has to be whole.
	maxHello = 32 << 10
	// maxNames and maxNameBytes bound what is kept of header names.
	maxNames, maxNameBytes = 64, 64
)

// tap gathers a Hello from a connection's bytes as they pass. Only its reader uses it, but for what
// is atomic.
type tap struct {
	ja4   string               // written by the handshake, before anything is read
	tls   *tls.ConnectionState // likewise, of an http2Conn
	hello atomic.Pointer[Hello]

	seen   int
	held   []byte // what was seen and not understood yet
	h2     bool
	frames frames // with h2
	order  []string
}

type helloKey struct{}

// ConnContext is for http.Server.ConnContext, where HelloOf finds what it has put. A server that
// speaks TLS needs RestoreTLS besides.
func ConnContext(ctx context.Context, c net.Conn) context.Context {
	if t := tapOf(c); t != nil {
		return context.WithValue(ctx, helloKey{}, t)
	}
	return ctx
}

// HelloOf is what is known of the connection of a request, or nil. It is the same for all requests
// of a connection and must not be changed.
func HelloOf(ctx context.Context) *Hello {
	if t, ok := ctx.Value(helloKey{}).(*tap); ok {
		return t.hello.Load()
	}
	return nil
}

// tapOf finds the tap of a connection below any that have a NetConn method.
func tapOf(c net.Conn) *tap {
	for c != nil {
		if i, ok := c.(interface{ tapped() *tap }); ok {
			return i.tapped()
		}
		below, ok := c.(interface{ NetConn() net.Conn })
		if !ok {
			return nil
		}
		c = below.NetConn()
	}
	return nil
}

// newTap returns nil if nobody asks.
func (o *Options) newTap() *tap {
	if o.Hello == nil || !o.Hello() {
		return nil
	}
	return new(tap)
}

// see looks at the next bytes, and reports whether it needs no more.
func (t *tap) see(p []byte) (done bool) {
	t.seen += len(p)
	if len(t.held) > 0 {
		t.held = append(t.held, p...)
		p = t.held
	}
	n, done := t.read(p)
	if !done && t.seen < maxHello {
		t.held = append(t.held[:0], p[n:]...)
		return false
	}
	h := &Hello{JA4: t.ja4, HeaderOrder: t.order}
	if t.h2 {
		h.HTTP2 = t.frames.String()
	}
	t.finish(h)
	return true
}

// read takes in what is whole of p.
func (t *tap) read(p []byte) (n int, done bool) {
	if !t.h2 {
		if !strings.HasPrefix(preface, string(p[:min(len(p), len(preface))])) {
			head, _, whole := bytes.Cut(p, []byte("\r\n\r\n"))
			if whole {
				t.order = headerOrder(head)
			}
			return 0, whole
		}
		if len(p) < len(preface) {
			return 0, false
		}
		t.h2, n = true, len(preface)
	}
	read, done := t.frames.read(p[n:])
	if done {
		t.order = t.frames.names.list()
	}
	return n + read, done
}

// finish lets requests have what there is. The bytes are not kept.
func (t *tap) finish(h *Hello) {
	t.hello.Store(h)
	t.held, t.order, t.frames = nil, nil, frames{}
}

// headerOrder are the names in a head that the scanner has passed.
func headerOrder(head []byte) []string {
	var names names
	_, fields, _ := bytes.Cut(head, []byte("\r\n"))
	for line := range bytes.SplitSeq(fields, []byte("\r\n")) {
		name, _, _ := bytes.Cut(line, []byte(":"))
		names.add(string(name))
	}
	return names.list()
}

// names are header names, the first of them.
type names struct{ all []string }

func (n *names) add(name string) {
	if name != "" && len(n.all) < maxNames {
		n.all = append(n.all, name[:min(len(name), maxNameBytes)])
	}
}

// list joins the names' memory: a cut one would hold on to all of its own.
func (n *names) list() []string {
	text := strings.Join(n.all, "")
	out := make([]string, len(n.all))
	for i, name := range n.all {
		out[i], text = text[:len(name)], text[len(name):]
	}
	return out
}
