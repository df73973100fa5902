package wire_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/moat-gateway/moat/guard"
	"github.com/moat-gateway/moat/wire"
)

// patience is how long a test waits for what must happen. It is no measure of
// how long it takes.
const patience = 20 * time.Second

// site is a server behind the layers, and what reached its handler.
type site struct {
	t      *testing.T
	addr   string
	server *http.Server

	mu     sync.Mutex
	served []string // method and path of each request that the application saw
}

type setting func(*site, *wire.Options)

func configure(f func(*http.Server)) setting { return func(s *site, _ *wire.Options) { f(s.server) } }

func option(f func(*wire.Options)) setting { return func(_ *site, o *wire.Options) { f(o) } }

// serve starts a server. Its handler turns a stand-in into a refusal, as the
// gateway does, and hands every other request to app.
func serve(t *testing.T, app http.HandlerFunc, settings ...setting) *site {
	t.Helper()
	s := &site{t: t}
	var p http.Protocols
	p.SetHTTP1(true)
	p.SetHTTP2(true)
	p.SetUnencryptedHTTP2(true)
	s.server = &http.Server{
		Protocols:         &p,
		ReadHeaderTimeout: patience,
		ErrorLog:          log.New(io.Discard, "", 0),
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if code, refused := strings.CutPrefix(r.URL.Path, wire.RefusedPath); refused {
				refuse(w, r, code)
				return
			}
			s.mu.Lock()
			s.served = append(s.served, r.Method+" "+r.URL.Path)
			s.mu.Unlock()
			app(w, r)
		}),
	}
	var o wire.Options
	for _, f := range settings {
		f(s, &o)
	}
	inner := listen(t)
	s.addr = inner.Addr().String()
	l := wire.Listen(inner, o)
	stopped := make(chan error, 1)
	go func() { stopped <- s.server.Serve(l) }()
	t.Cleanup(func() {
		s.server.Close()
		if err := <-stopped; !errors.Is(err, http.ErrServerClosed) {
			t.Errorf("Serve: %v", err)
		}
	})
	return s
}

func refuse(w http.ResponseWriter, r *http.Request, code string) {
	reason, ok := guard.ParseReason(code)
	if !ok {
		http.Error(w, "unknown reason "+code, http.StatusInternalServerError)
		return
	}
	w.Header().Set("Refused-Host", r.Host)
	w.WriteHeader(reason.Status())
	fmt.Fprint(w, code)
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// echo answers with the body it got, or with the reason for which it got none.
func echo(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	var framing *wire.FramingError
	switch {
	case errors.As(err, &framing):
		w.WriteHeader(http.StatusBadRequest)
		fmt.Fprint(w, framing.Reason)
	case err != nil:
		http.Error(w, "body: "+err.Error(), http.StatusInternalServerError)
	default:
		fmt.Fprintf(w, "%s %s [%s]", r.Method, r.URL.Path, body)
	}
}

func (s *site) seen() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.served...)
}

func (s *site) dial() *client {
	s.t.Helper()
	c, err := net.Dial("tcp", s.addr)
	if err != nil {
		s.t.Fatal(err)
	}
	return newClient(s.t, c)
}

// client speaks to a site byte by byte.
type client struct {
	net.Conn
	t *testing.T
	r *bufio.Reader
}

func newClient(t *testing.T, c net.Conn) *client {
	t.Helper()
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return &client{Conn: c, t: t, r: bufio.NewReader(c)}
}

func (c *client) send(s string) *client {
	c.t.Helper()
	if _, err := io.WriteString(c, s); err != nil {
		c.t.Fatalf("sending %.40q: %v", s, err)
	}
	return c
}

// dribble sends s in pieces that arrive one by one.
func (c *client) dribble(s string) *client {
	c.t.Helper()
	for i := range len(s) {
		c.send(s[i : i+1])
		if i%8 == 0 {
			time.Sleep(100 * time.Microsecond) // lets the pieces be read apart
		}
	}
	return c
}

// want reads a response and compares its status and body.
func (c *client) want(status int, body string) *http.Response {
	c.t.Helper()
	res, err := http.ReadResponse(c.r, nil)
	if err != nil {
		c.t.Fatalf("reading a response: %v", err)
	}
	got, err := io.ReadAll(res.Body)
	if err != nil {
		c.t.Fatalf("reading a body: %v", err)
	}
	if res.StatusCode != status || string(got) != body {
		c.t.Fatalf("got %d %q, want %d %q", res.StatusCode, got, status, body)
	}
	return res
}

func (c *client) wantRefused(reason guard.Reason) *http.Response {
	c.t.Helper()
	res := c.want(reason.Status(), reason.String())
	c.wantEnd()
	return res
}

// wantEnd checks that the server ends the connection in order, without a reset.
func (c *client) wantEnd() {
	c.t.Helper()
	rest, err := io.ReadAll(c.r)
	if err != nil || len(rest) > 0 {
		c.t.Fatalf("after the last response: %.80q, %v", rest, err)
	}
}

func (s *site) wantSeen(want ...string) {
	s.t.Helper()
	if got := s.seen(); strings.Join(got, ", ") != strings.Join(want, ", ") {
		s.t.Fatalf("the handler saw %q, want %q", got, want)
	}
}

// eventually waits until f holds.
func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !f(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("never: " + what)
		}
	}
}

// counter counts the connections that net/http has open.
type counter struct{ n atomic.Int64 }

func (c *counter) hook(_ net.Conn, s http.ConnState) {
	switch s {
	case http.StateNew:
		c.n.Add(1)
	case http.StateClosed, http.StateHijacked:
		c.n.Add(-1)
	case http.StateActive, http.StateIdle:
	}
}
