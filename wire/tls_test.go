package wire_test

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/moat-gateway/moat/guard"
	"github.com/moat-gateway/moat/wire"
)

var testCertificate = sync.OnceValue(func() tls.Certificate {
	s := httptest.NewTLSServer(nil)
	defer s.Close()
	return s.TLS.Certificates[0]
})

func testTLS(t *testing.T) *tls.Config {
	t.Helper()
	return &tls.Config{Certificates: []tls.Certificate{testCertificate()}}
}

// trusting is a client's view of that certificate. What is tested here lies
// below the question of whom to trust.
func trusting(protocols ...string) *tls.Config {
	return &tls.Config{InsecureSkipVerify: true, NextProtos: protocols}
}

func dialTLS(t *testing.T, addr string, protocols ...string) *client {
	t.Helper()
	c, err := tls.Dial("tcp", addr, trusting(protocols...))
	if err != nil {
		t.Fatal(err)
	}
	return newClient(t, c)
}

func overTLS(t *testing.T) setting {
	return option(func(o *wire.Options) { o.TLS = testTLS(t) })
}

func showTLS(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	fmt.Fprintf(w, "%s tls=%v done=%v [%s] %v", r.Proto, r.TLS != nil, r.TLS != nil && r.TLS.HandshakeComplete, body, err)
}

func TestTLSWithEitherHTTP(t *testing.T) {
	for _, c := range []struct {
		h2    bool
		proto string
	}{{false, "HTTP/1.1"}, {true, "HTTP/2.0"}} {
		t.Run(c.proto, func(t *testing.T) {
			s := serve(t, showTLS, overTLS(t))
			tr := &http.Transport{TLSClientConfig: trusting(), ForceAttemptHTTP2: c.h2}
			defer tr.CloseIdleConnections()
			for range 3 {
				req, err := http.NewRequestWithContext(t.Context(), "POST", "https://"+s.addr, strings.NewReader("body"))
				if err != nil {
					t.Fatal(err)
				}
				res, err := tr.RoundTrip(req)
				if err != nil {
					t.Fatal(err)
				}
				defer res.Body.Close()
				if got, _ := io.ReadAll(res.Body); string(got) != c.proto+" tls=true done=true [body] <nil>" {
					t.Fatalf("%s", got)
				}
			}
		})
	}
}

func TestWithoutTLSRequestHasNone(t *testing.T) {
	s := serve(t, showTLS)
	s.dial().send("GET / HTTP/1.1\r\nHost: h\r\n\r\n").want(200, "HTTP/1.1 tls=false done=false [] <nil>")
}

func TestTLSConnectionsAreScanned(t *testing.T) {
	for _, protocols := range [][]string{nil, {"http/1.1"}} {
		for _, c := range badHeads {
			t.Run(c.name, func(t *testing.T) {
				s := serve(t, echo, overTLS(t), smallHeads)
				dialTLS(t, s.addr, protocols...).send(c.head + smuggled).wantRefused(c.want)
				s.wantSeen()
			})
		}
	}
}

// Over TLS, ALPN alone decides about HTTP/2.
func TestHTTP2PrefaceOverTLSWithoutALPNIsNoWayAroundTheScanner(t *testing.T) {
	s := serve(t, echo, overTLS(t))
	c := dialTLS(t, s.addr).send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + "GET /behind HTTP/1.1\nHost: h\n\n" + smuggled)
	_, _ = io.Copy(io.Discard, c.r)
	for _, seen := range s.seen() {
		if seen != "PRI *" {
			t.Errorf("%q got through", seen)
		}
	}
}

func TestHijackOverTLS(t *testing.T) {
	s := serve(t, hijackEcho(t, func(c net.Conn) net.Conn { return c }), overTLS(t))
	c := dialTLS(t, s.addr).send("GET / HTTP/1.1\r\nHost: h\r\nUpgrade: echo\r\n\r\n\x00\n").want101()
	c.send("\x00\n\x00")
	got := make([]byte, 5)
	if _, err := io.ReadFull(c.r, got); err != nil || string(got) != "\x00\n\x00\n\x00" {
		t.Fatalf("%q, %v", got, err)
	}
}

func (c *client) want101() *client {
	c.t.Helper()
	c.want(http.StatusSwitchingProtocols, "")
	return c
}

func TestUnknownProtocolEndsAfterTheHandshake(t *testing.T) {
	refused := make(chan error, 1)
	s := serve(t, echo, option(func(o *wire.Options) {
		o.TLS = testTLS(t)
		o.TLS.NextProtos = []string{"h2", "http/1.1", "acme-tls/1"}
		o.Refused = func(_ net.Addr, err error) { refused <- err }
	}))
	c := dialTLS(t, s.addr, "acme-tls/1")
	if got := c.Conn.(*tls.Conn).ConnectionState().NegotiatedProtocol; got != "acme-tls/1" {
		t.Fatalf("negotiated %q", got)
	}
	if n, err := c.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Fatal(n, err)
	}
	if err := <-refused; !strings.Contains(err.Error(), "acme-tls/1") {
		t.Fatal(err)
	}
}

func TestPlainHTTPOnATLSPortIsTold(t *testing.T) {
	s := serve(t, echo, overTLS(t))
	c := s.dial().send("GET / HTTP/1.1\r\nHost: h\r\n\r\n")
	got, err := io.ReadAll(c.r)
	if err != nil || !strings.HasPrefix(string(got), "HTTP/1.0 400 ") || !strings.Contains(string(got), "https://") {
		t.Fatalf("%q, %v", got, err)
	}
	s.wantSeen()
}

func TestSlowHandshakesHoldUpNobodyAndEnd(t *testing.T) {
	refused := make(chan error, 64)
	s := serve(t, echo, option(func(o *wire.Options) {
		o.TLS = testTLS(t)
		o.HandshakeTimeout = time.Second
		o.Refused = func(_ net.Addr, err error) { refused <- err }
	}))
	silent := make([]*client, 20)
	for i := range silent {
		silent[i] = s.dial().send("\x16\x03\x01") // the beginning of a record
	}
	dialTLS(t, s.addr).send("GET / HTTP/1.1\r\nHost: h\r\n\r\n").want(200, "GET / []")
	for _, c := range silent {
		c.wantEnd()
		if err := <-refused; err == nil {
			t.Fatal("closed for no reason")
		}
	}
}

func TestFloodOfHandshakesDropsTheOldest(t *testing.T) {
	refused := make(chan error, 64)
	s := serve(t, echo, option(func(o *wire.Options) {
		o.TLS = testTLS(t)
		o.HandshakeTimeout = time.Hour
		o.Refused = func(_ net.Addr, err error) { refused <- err }
	}))
	oldest := s.dial()
	for range 1023 {
		c, err := net.Dial("tcp", s.addr)
		if err != nil {
			t.Skipf("this machine grants too few sockets: %v", err)
		}
		defer c.Close()
	}
	for range 2 {
		dialTLS(t, s.addr).send("GET / HTTP/1.1\r\nHost: h\r\n\r\n").want(200, "GET / []")
	}
	if err := <-refused; !strings.Contains(err.Error(), "too many") {
		t.Fatal(err)
	}
	if n, err := oldest.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Fatal(n, err)
	}
}

func TestCloseEndsWhatIsPending(t *testing.T) {
	before := runtime.NumGoroutine()
	inner := listen(t)
	l := wire.Listen(inner, wire.Options{TLS: testTLS(t), HandshakeTimeout: time.Hour})
	accepted := make(chan error, 1)
	go func() {
		_, err := l.Accept()
		accepted <- err
	}()
	var clients []net.Conn
	for range 10 {
		c, err := net.Dial("tcp", inner.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		clients = append(clients, c)
	}
	time.Sleep(20 * time.Millisecond) // so that most are in their handshake
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-accepted; !errors.Is(err, net.ErrClosed) {
		t.Fatal(err)
	}
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Fatal(err)
	}
	for _, c := range clients {
		_ = c.SetReadDeadline(time.Now().Add(patience))
		if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal(err)
		}
	}
	eventually(t, "the goroutines end", func() bool { return runtime.NumGoroutine() <= before })
}

func TestFinishedHandshakeThatNobodyAcceptsIsClosed(t *testing.T) {
	before := runtime.NumGoroutine()
	inner := listen(t)
	l := wire.Listen(inner, wire.Options{TLS: testTLS(t)})
	c := dialTLS(t, inner.Addr().String())
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal(err)
	}
	eventually(t, "the goroutines end", func() bool { return runtime.NumGoroutine() <= before })
}

func TestListenerClosedFromBelowEnds(t *testing.T) {
	before := runtime.NumGoroutine()
	inner := listen(t)
	l := wire.Listen(inner, wire.Options{TLS: testTLS(t)})
	inner.Close()
	for range 3 {
		if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
			t.Fatal(err)
		}
	}
	eventually(t, "the goroutines end", func() bool { return runtime.NumGoroutine() <= before })
}

func TestServerLeavesNothingBehind(t *testing.T) {
	before := runtime.NumGoroutine()
	for _, settings := range [][]setting{nil, {overTLS(t)}} {
		func() {
			s := serve(t, echo, settings...)
			c := s.dial().send("GET / HT")
			s.server.Close()
			c.Close()
		}()
	}
	eventually(t, "the goroutines end", func() bool { return runtime.NumGoroutine() <= before })
}

// passing is a listener that fails now and then, as accept does without file
// descriptors.
type passing struct {
	net.Listener
	failures chan error
}

func (l *passing) Accept() (net.Conn, error) {
	select {
	case err := <-l.failures:
		return nil, err
	default:
		return l.Listener.Accept()
	}
}

func TestAcceptErrorsAreHandedOn(t *testing.T) {
	want := errors.New("no file descriptors")
	inner := &passing{listen(t), make(chan error, 2)}
	inner.failures <- want
	inner.failures <- want
	l := wire.Listen(inner, wire.Options{TLS: testTLS(t)})
	defer l.Close()
	for range 2 {
		if _, err := l.Accept(); !errors.Is(err, want) {
			t.Fatal(err)
		}
	}
	go func() {
		c, err := tls.Dial("tcp", inner.Addr().String(), trusting())
		if err == nil {
			defer c.Close()
			_, _ = io.Copy(io.Discard, c)
		}
	}()
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
}

func TestRefusalArrivesOverTLS(t *testing.T) {
	s := serve(t, echo, overTLS(t))
	c := dialTLS(t, s.addr).send("GET / HTTP/1.1\nHost: h\n\n" + strings.Repeat("x", 100000))
	c.wantRefused(guard.FramingLineEnd)
}
