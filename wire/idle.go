package wire

import (
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// idleConn fails a write to a client that has taken nothing for a while. It lies
// below TLS, where HTTP/2 passes too.
type idleConn struct {
	net.Conn
	idle time.Duration // 0: no bound
	tap  *tap          // nil: nobody asks

	mu    sync.Mutex // orders the two below with their effect on Conn
	asked time.Time  // the write deadline that net/http, crypto/tls or a handler set
	set   time.Time  // when the rolling deadline was last moved
}

// NetConn returns the connection below.
func (c *idleConn) NetConn() net.Conn { return c.Conn }

func (c *idleConn) tapped() *tap { return c.tap }

// CloseWrite shuts down the sending side, if the connection below can.
func (c *idleConn) CloseWrite() error { return closeWrite(c.Conn) }

func closeWrite(c net.Conn) error {
	if w, ok := c.(interface{ CloseWrite() error }); ok {
		return w.CloseWrite()
	}
	return errors.ErrUnsupported
}

// roll moves the deadline. A write at a time costs a look at the clock, and every
// eighth of the bound a call into the poller.
func (c *idleConn) roll() error {
	if c.idle <= 0 {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Since(c.set) <= c.idle/8 {
		return nil
	}
	return c.apply()
}

// apply sets the deadline that is in force. mu is held.
func (c *idleConn) apply() error {
	c.set = time.Now()
	return c.Conn.SetWriteDeadline(earlier(c.asked, c.set.Add(c.idle)))
}

// SetWriteDeadline implements net.Conn. The rolling deadline stays in force.
func (c *idleConn) SetWriteDeadline(t time.Time) error {
	if c.idle <= 0 {
		return c.Conn.SetWriteDeadline(t)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	// net/http clears a deadline that it never set, after every request.
	if t.IsZero() && c.asked.IsZero() {
		return nil
	}
	c.asked = t
	return c.apply()
}

// SetDeadline implements net.Conn.
func (c *idleConn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// again reports whether a write that moved n bytes and ended in err was cut by
// the rolling deadline although the client was taking bytes.
func (c *idleConn) again(n int64, err error) bool {
	if c.idle <= 0 || n == 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.apply() == nil // if it was the asked deadline, the next try moves nothing
}

// Write implements net.Conn.
func (c *idleConn) Write(p []byte) (int, error) {
	if err := c.roll(); err != nil {
		return 0, err
	}
	total := 0
	for {
		n, err := c.Conn.Write(p[total:])
		total += n
		if err == nil || !c.again(int64(n), err) {
			return total, err
		}
	}
}

// file is what *os.File and the wrappers that io.Copy puts around it have.
type file interface {
	io.Seeker
	syscall.Conn
	Stat() (fs.FileInfo, error)
}

// ReadFrom lets the connection below send a regular file by itself, which the
// kernel does. From any other source it copies: a source that pauses would let
// the deadline pass without any fault of the client's, and bytes that the kernel
// has taken from it but not sent would be lost.
func (c *idleConn) ReadFrom(r io.Reader) (int64, error) {
	below, ok := c.Conn.(io.ReaderFrom)
	if ok && c.idle <= 0 {
		return below.ReadFrom(r)
	}
	f, regular := regularFile(r)
	if !ok || !regular {
		buf, _ := copyBuffers.Get().(*[copySize]byte)
		defer copyBuffers.Put(buf)
		return io.CopyBuffer(struct{ io.Writer }{c}, struct{ io.Reader }{r}, buf[:])
	}
	start, err := f.Seek(0, io.SeekCurrent)
	if err != nil {
		return 0, err
	}
	if err = c.roll(); err != nil {
		return 0, err
	}
	var total int64
	for {
		n, err := below.ReadFrom(r)
		total += n
		if err == nil || !c.again(n, err) {
			return total, err
		}
		// Where the kernel did not do it after all, more may have been read than sent.
		if at, seekErr := f.Seek(0, io.SeekCurrent); seekErr != nil || at != start+total {
			return total, err
		}
	}
}

func regularFile(r io.Reader) (file, bool) {
	if limited, ok := r.(*io.LimitedReader); ok {
		r = limited.R
	}
	f, ok := r.(file)
	if !ok {
		return nil, false
	}
	info, err := f.Stat()
	return f, err == nil && info.Mode().IsRegular()
}

const copySize = 32 << 10

var copyBuffers = sync.Pool{New: func() any { return new([copySize]byte) }}
