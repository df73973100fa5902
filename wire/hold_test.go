package wire

import (
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestHoldBackBufferIsReleased(t *testing.T) {
	const head = "GET / HTTP/1.1\r\nHost: h\r\n\r\n"
	c := newPlain(&cuts{data: []byte(head + head[:9])}, nil, &Options{HeaderBytes: minHeaderBytes})
	p := make([]byte, 4<<10)
	if n, err := c.Read(p); n != len(head) || err != nil {
		t.Fatal(n, err)
	}
	if len(c.buf) != 9 {
		t.Fatalf("%d bytes held, want 9", len(c.buf))
	}
	c.Conn = &cuts{data: []byte(head[9:])}
	if n, err := c.Read(p); n != len(head) || err != nil {
		t.Fatal(n, err)
	}
	if c.buf != nil {
		t.Fatal("the buffer is still there")
	}
}

func TestHeldBytesAreBounded(t *testing.T) {
	for name, stream := range map[string]string{
		"head":    "GET / HTTP/1.1\r\n" + strings.Repeat("X: y\r\n", 1000),
		"trailer": "GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n" + strings.Repeat("X: y\r\n", 2000),
		"upgrade": "GET / HTTP/1.1\r\nUpgrade: x\r\n\r\n" + strings.Repeat("x", 5000),
	} {
		c := newPlain(&cuts{data: []byte(stream), rnd: rand.New(rand.NewPCG(1, 2))}, nil, &Options{HeaderBytes: minHeaderBytes})
		p := make([]byte, 64)
		for i := range 100000 {
			q := p
			if name == "upgrade" && i > 100 {
				q = p[:1]
			}
			_, err := c.Read(q)
			if most := max(minHeaderBytes, trailerBytes); cap(c.buf) > most {
				t.Fatalf("%s: %d bytes held, want at most %d", name, cap(c.buf), most)
			}
			if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
				break
			}
		}
	}
}

// lossy takes ten bytes of a file and sends five, as a copy through memory does
// when it is cut.
type lossy struct{ net.Conn }

func (lossy) SetWriteDeadline(time.Time) error { return nil }

func (lossy) ReadFrom(r io.Reader) (int64, error) {
	_, err := io.ReadFull(r, make([]byte, 10))
	return 5, errors.Join(err, os.ErrDeadlineExceeded)
}

func TestFileOfWhichPartWasLostIsNotContinued(t *testing.T) {
	name := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(name, make([]byte, 100), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	c := &idleConn{Conn: lossy{}, idle: time.Hour}
	if n, err := c.ReadFrom(f); n != 5 || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal(n, err)
	}
}
