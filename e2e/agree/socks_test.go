package agree

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strconv"
	"testing"

	"github.com/moat-gateway/moat/browser"
	"github.com/moat-gateway/moat/browser/browsertest"
)

// newSOCKS starts a SOCKS5 proxy (RFC 1928) that leads all hosts and ports to the world,
// and returns where it listens. Firefox can be told where a name is, but not at which
// port; and to HTTP and TLS such a proxy is not there.
func newSOCKS(t *testing.T, w *world) (host string, port int) {
	t.Helper()
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_ = serveSOCKS(c, w.port)
			}()
		}
	}()
	return "127.0.0.1", l.Addr().(*net.TCPAddr).Port //nolint:forcetypeassert // it is TCP
}

// port is where in the world a host is.
func (w *world) port(host string) int {
	if host == "localhost" {
		return w.ports[browser.Loopback]
	}
	if space, ok := browsertest.Addresses[host]; ok {
		return w.ports[space]
	}
	return w.ports[browser.Public]
}

func serveSOCKS(c net.Conn, port func(host string) int) error {
	buf := make([]byte, 256)
	read := func(n int) ([]byte, error) {
		_, err := io.ReadFull(c, buf[:n])
		return buf[:n], err
	}
	b, err := read(2) // version, number of methods
	if err != nil {
		return err
	}
	if _, err = read(int(b[1])); err != nil {
		return err
	}
	if _, err = c.Write([]byte{5, 0}); err != nil { // no authentication
		return err
	}
	if b, err = read(5); err != nil { // version, command, 0, kind of address, length
		return err
	}
	if b[1] != 1 || b[3] != 3 {
		_, _ = c.Write([]byte{5, 8, 0, 1, 0, 0, 0, 0, 0, 0})
		return errors.New("only CONNECT, and only to names")
	}
	if b, err = read(int(b[4]) + 2); err != nil {
		return err
	}
	host := string(b[:len(b)-2])
	_ = binary.BigEndian.Uint16(b[len(b)-2:]) // the world answers at all ports
	to, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port(host))))
	if err != nil {
		return err
	}
	defer to.Close()
	if _, err = c.Write([]byte{5, 0, 0, 1, 0, 0, 0, 0, 0, 0}); err != nil {
		return err
	}
	go func() {
		_, _ = io.Copy(to, c)
		_ = to.Close()
	}()
	_, err = io.Copy(c, to)
	return err
}
