package wire

import (
	"fmt"
	"net"
	"strings"
	"testing"
	"time"
)

// repeat is a connection on which the same request comes over and over.
type repeat struct {
	net.Conn
	data string
}

func (c *repeat) Read(p []byte) (int, error)      { return copy(p, c.data), nil }
func (c *repeat) SetReadDeadline(time.Time) error { return nil }

// ordinary is what a browser sends, about 500 bytes.
var ordinary = "GET /v1/chat/completions?stream=true HTTP/1.1\r\n" +
	"Host: api.example.com\r\n" +
	"User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n" +
	"Accept: application/json\r\n" +
	"Accept-Language: en-US,en;q=0.5\r\n" +
	"Accept-Encoding: gzip, deflate, br\r\n" +
	"Origin: https://app.example.com\r\n" +
	"Connection: keep-alive\r\n" +
	"Referer: https://app.example.com/chat\r\n" +
	"Sec-Fetch-Dest: empty\r\n" +
	"Sec-Fetch-Mode: cors\r\n" +
	"Sec-Fetch-Site: same-site\r\n" +
	"Cookie: session=" + strings.Repeat("0123456789", 6) + "\r\n\r\n"

func BenchmarkRead(b *testing.B) {
	post := strings.Replace(ordinary, "GET", "POST", 1)
	post = strings.Replace(post, "Accept:", "Content-Length: 100\r\nAccept:", 1) + strings.Repeat("x", 100)
	for _, c := range []struct{ name, stream string }{{"GET", ordinary}, {"POST", post}} {
		p := make([]byte, 4<<10)
		below := &repeat{data: c.stream}
		asked := &idleConn{Conn: below, tap: new(tap)}
		for name, conn := range map[string]net.Conn{
			"bare":    below,
			"scanned": newPlain(below, nil, &Options{HeaderBytes: DefaultHeaderBytes}),
			"tapped":  newPlain(asked, asked, &Options{HeaderBytes: DefaultHeaderBytes}), // it has seen the first request
		} {
			b.Run(fmt.Sprintf("%s %d bytes/%s", c.name, len(c.stream), name), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if n, err := conn.Read(p); n != len(c.stream) || err != nil {
						b.Fatal(n, err)
					}
				}
			})
		}
	}
}

// sink takes every write.
type sink struct{ net.Conn }

func (sink) Write(p []byte) (int, error)      { return len(p), nil }
func (sink) SetReadDeadline(time.Time) error  { return nil }
func (sink) SetWriteDeadline(time.Time) error { return nil }

func BenchmarkWrite(b *testing.B) {
	p := make([]byte, 512)
	for name, conn := range map[string]net.Conn{"bare": sink{}, "watched": &idleConn{Conn: sink{}, idle: 30 * time.Second}} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_, _ = conn.Write(p)
			}
		})
	}
}

func BenchmarkDeadlines(b *testing.B) {
	below := sink{}
	for name, conn := range map[string]net.Conn{"bare": below, "scanned": newPlain(below, nil, &Options{})} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_ = conn.SetReadDeadline(time.Time{})
			}
		})
	}
}
