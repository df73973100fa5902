package wire

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/pires/go-proxyproto"
)

// proxiedConn is a connection whose proxy has said who the client is.
type proxiedConn struct {
	*idleConn
	early         *bufio.Reader // what came along with the header; nil once read
	remote, local net.Addr
}

// RemoteAddr is the client's address, or the proxy's where it speaks for itself.
func (c *proxiedConn) RemoteAddr() net.Addr { return c.remote }

// LocalAddr is the address that the client connected to.
func (c *proxiedConn) LocalAddr() net.Addr { return c.local }

// Read implements net.Conn.
func (c *proxiedConn) Read(p []byte) (int, error) {
	if c.early != nil {
		if c.early.Buffered() > 0 {
			return c.early.Read(p)
		}
		c.early = nil
	}
	return c.idleConn.Read(p)
}

// trusted reports whether the peer of c may, and must, say who the client is.
func trusted(peer net.Addr, proxies []netip.Prefix) bool {
	tcp, ok := peer.(*net.TCPAddr)
	if !ok {
		return false
	}
	addr := tcp.AddrPort().Addr().Unmap().WithZone("")
	for _, p := range proxies {
		if p.Contains(addr) {
			return true
		}
	}
	return false
}

// readProxyHeader reads the header that must open c. The library's parser is used
// without its Conn and Listener, whose policies decide at the first Read: here
// everything is decided before the connection is accepted.
//
// The parser wants a version 1 header to come in one segment, as its
// specification demands of senders, and refuses one that does not.
func readProxyHeader(c *idleConn) (*proxiedConn, error) {
	const buffer = 512
	early := bufio.NewReaderSize(c, buffer)
	h, err := proxyproto.Read(early)
	if err != nil {
		return nil, fmt.Errorf("PROXY header: %w", err)
	}
	p := &proxiedConn{idleConn: c, early: early, remote: c.RemoteAddr(), local: c.LocalAddr()}
	// LOCAL, and UNKNOWN in version 1, is the proxy's own connection, for instance
	// a health check: the real addresses hold, whatever the header has.
	if h.Command.IsLocal() {
		return p, nil
	}
	src, dst, ok := h.TCPAddrs()
	if !ok {
		return nil, errors.New("PROXY header: the announced client does not speak TCP")
	}
	p.remote, p.local = src, dst
	return p, nil
}
