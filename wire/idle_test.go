package wire_test

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/moat-gateway/moat/wire"
)

// small is a listener whose connections buffer little, so that a client which
// does not read is soon felt. It counts what is handed to the kernel as a file.
type small struct {
	net.Listener
	files atomic.Int64
}

type smallConn struct {
	*net.TCPConn
	files *atomic.Int64
}

func (l *small) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	tcp := c.(*net.TCPConn)
	return smallConn{tcp, &l.files}, tcp.SetWriteBuffer(32 << 10)
}

func (c smallConn) ReadFrom(r io.Reader) (int64, error) {
	c.files.Add(1)
	return c.TCPConn.ReadFrom(r)
}

// pair returns both ends of a connection, the server's under Options.
func pair(t *testing.T, o wire.Options) (server net.Conn, client *net.TCPConn, files *atomic.Int64) {
	t.Helper()
	inner := &small{Listener: listen(t)}
	l := wire.Listen(inner, o)
	t.Cleanup(func() { l.Close() })
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	client = c.(*net.TCPConn)
	if err = client.SetReadBuffer(32 << 10); err != nil {
		t.Fatal(err)
	}
	if server, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	return server, client, &inner.files
}

const bulk = 8 << 20

func bulkBytes(t *testing.T) []byte {
	t.Helper()
	b := make([]byte, bulk)
	if _, err := rand.Read(b); err != nil {
		t.Fatal(err)
	}
	return b
}

func bulkFile(t *testing.T, b []byte) *os.File {
	t.Helper()
	name := filepath.Join(t.TempDir(), "bulk")
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// sends are the ways in which bytes get onto a connection.
var sends = map[string]func(t *testing.T, c net.Conn, b []byte) error{
	"write": func(_ *testing.T, c net.Conn, b []byte) error {
		_, err := c.Write(b)
		return err
	},
	"copy": func(_ *testing.T, c net.Conn, b []byte) error {
		_, err := io.Copy(c, struct{ io.Reader }{bytes.NewReader(b)})
		return err
	},
	"file": func(t *testing.T, c net.Conn, b []byte) error {
		_, err := io.Copy(c, bulkFile(t, b))
		return err
	},
	"part of a file": func(t *testing.T, c net.Conn, b []byte) error {
		_, err := io.CopyN(c, bulkFile(t, append(bytes.Clone(b), "not this"...)), int64(len(b)))
		return err
	},
}

func TestClientThatReadsNothingIsCut(t *testing.T) {
	for name, send := range sends {
		t.Run(name, func(t *testing.T) {
			server, _, _ := pair(t, wire.Options{WriteIdle: 200 * time.Millisecond})
			start := time.Now()
			err := send(t, server, bulkBytes(t))
			if took := time.Since(start); !errors.Is(err, os.ErrDeadlineExceeded) || took > patience {
				t.Fatalf("after %v: %v", took, err)
			}
		})
	}
}

func TestClientThatReadsSlowlyGetsAll(t *testing.T) {
	for name, send := range sends {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const idle = time.Second
			server, client, files := pair(t, wire.Options{WriteIdle: idle})
			want := bulkBytes(t)
			sent := make(chan error, 1)
			start := time.Now()
			go func() {
				err := send(t, server, want)
				sent <- errors.Join(err, server.Close())
			}()
			sum := sha256.New()
			for {
				_, err := io.CopyN(sum, client, bulk/16)
				if errors.Is(err, io.EOF) {
					break
				}
				if err != nil {
					t.Fatal(err)
				}
				time.Sleep(idle / 8)
			}
			if err := <-sent; err != nil {
				t.Fatal(err)
			}
			if got := sha256.Sum256(want); !bytes.Equal(sum.Sum(nil), got[:]) {
				t.Fatal("other bytes arrived than were sent")
			}
			if took := time.Since(start); took < idle {
				t.Fatalf("took only %v, which proves nothing", took)
			}
			if byKernel := files.Load() > 0; byKernel != (name == "file" || name == "part of a file") {
				t.Fatalf("handed to the kernel %d times", files.Load())
			}
		})
	}
}

func TestPausesBetweenWritesAreNoFault(t *testing.T) {
	const idle = 50 * time.Millisecond
	server, client, _ := pair(t, wire.Options{WriteIdle: idle})
	for range 3 {
		if _, err := server.Write([]byte("event\n")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(3 * idle)
	}
	r, w := io.Pipe()
	go func() {
		for range 3 {
			_, _ = w.Write([]byte("event\n"))
			time.Sleep(3 * idle)
		}
		w.Close()
	}()
	if _, err := io.Copy(server, r); err != nil {
		t.Fatal(err)
	}
	server.Close()
	if got, err := io.ReadAll(client); err != nil || string(got) != "event\nevent\nevent\nevent\nevent\nevent\n" {
		t.Fatalf("%q, %v", got, err)
	}
}

func TestWriteDeadlineOfAHandlerHoldsBesideTheRollingOne(t *testing.T) {
	server, _, _ := pair(t, wire.Options{WriteIdle: time.Hour})
	if err := server.SetWriteDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if _, err := server.Write(bulkBytes(t)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal(err)
	}
	if err := server.SetDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	if err := server.SetDeadline(time.Now().Add(-time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := server.Write(bulkBytes(t)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal(err)
	}
	if _, err := server.Read(make([]byte, 9)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal(err)
	}
}

func TestWithoutWriteIdleFilesGoToTheKernelToo(t *testing.T) {
	server, client, files := pair(t, wire.Options{})
	go func() {
		_, _ = io.Copy(server, bulkFile(t, []byte("file")))
		server.Close()
	}()
	if got, err := io.ReadAll(client); err != nil || string(got) != "file" || files.Load() != 1 {
		t.Fatalf("%q, %v, %d", got, err, files.Load())
	}
}

func TestFileServerSendsByTheKernel(t *testing.T) {
	inner := &small{Listener: listen(t)}
	f := bulkFile(t, bulkBytes(t)[:bulk/16])
	srv := &http.Server{ReadHeaderTimeout: patience, Handler: http.FileServer(http.Dir(filepath.Dir(f.Name())))}
	go func() { _ = srv.Serve(wire.Listen(inner, wire.Options{WriteIdle: patience})) }()
	defer srv.Close()
	c, err := net.Dial("tcp", inner.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	conn := newClient(t, c).send("GET /bulk HTTP/1.0\r\n\r\n")
	res, err := http.ReadResponse(conn.r, nil)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := io.Copy(io.Discard, res.Body); n != bulk/16 || err != nil {
		t.Fatal(n, err)
	}
	if inner.files.Load() == 0 {
		t.Fatal("net/http did not find ReadFrom")
	}
}

func TestHTTP2ClientThatReadsNothingIsCut(t *testing.T) {
	failed := make(chan error, 1)
	s := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		_, err := io.Copy(w, zeros{})
		failed <- err
	}, option(func(o *wire.Options) { o.WriteIdle = 300 * time.Millisecond; o.TLS = testTLS(t) }))
	c := dialTLS(t, s.addr, "h2")
	// Windows so large that only TCP can hold the server back.
	frames := "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" +
		"\x00\x00\x06\x04\x00\x00\x00\x00\x00\x00\x04\x7f\xff\xff\xff" +
		"\x00\x00\x04\x08\x00\x00\x00\x00\x00\x7f\xff\x00\x00" +
		"\x00\x00\x0c\x01\x05\x00\x00\x00\x01\x82\x87\x84\x01\x07example"
	if _, err := io.WriteString(c, frames); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-failed:
		if err == nil {
			t.Fatal("an endless response came to its end")
		}
	case <-time.After(patience):
		t.Fatal("never cut")
	}
}
