package gateway_test

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/textproto"
	"net/url"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/moat-gateway/moat/gateway"
	"github.com/moat-gateway/moat/guard"
	"github.com/moat-gateway/moat/web"
)

// gate is a running gate, reached over real sockets.
type gate struct {
	*gateway.Gateway
	addr, admin string
	stop        context.CancelFunc
	stopped     chan error
}

func serverConfig() gateway.ServerConfig {
	return gateway.ServerConfig{
		Listeners: []gateway.Listener{{Address: "127.0.0.1:0"}}, Admin: "127.0.0.1:0", HeaderBytes: 32 << 10,
		HeaderTimeout: 5 * time.Second, Idle: time.Minute, WriteIdle: 5 * time.Second, Grace: 10 * time.Second,
	}
}

func start(t *testing.T, c gateway.Config, change ...func(*gateway.ServerConfig)) *gate {
	t.Helper()
	return startLogged(t, c, io.Discard, change...)
}

func startLogged(t *testing.T, c gateway.Config, log io.Writer, change ...func(*gateway.ServerConfig)) *gate {
	t.Helper()
	sc := serverConfig()
	for _, f := range change {
		f(&sc)
	}
	g, err := gateway.New(c, slog.New(slog.NewTextHandler(log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	s := &gate{Gateway: g, stop: cancel, stopped: make(chan error, 1)}
	up := make(chan gateway.Addresses, 1)
	go func() { s.stopped <- s.Serve(ctx, sc, func(a gateway.Addresses) { up <- a }) }()
	select {
	case a := <-up:
		s.addr, s.admin = a.Listeners[0], a.Admin
	case err := <-s.stopped:
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		select {
		case <-s.stopped:
		case <-time.After(30 * time.Second):
			t.Error("the server does not stop")
		}
	})
	return s
}

// lockedBuffer collects a log that several goroutines write.
type lockedBuffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// client speaks to the gate as a page of the app would.
func client(t *testing.T, s *gate, protocols ...func(*http.Protocols)) *http.Client {
	t.Helper()
	p := new(http.Protocols)
	p.SetHTTP1(true)
	for _, f := range protocols {
		*p = http.Protocols{}
		f(p)
	}
	tr := &http.Transport{
		Protocols: p, DisableCompression: true, ExpectContinueTimeout: 5 * time.Second,
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, // the test's own certificate
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "tcp", s.addr)
		},
	}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: time.Minute}
}

func do(t *testing.T, c *http.Client, method, path string, body io.Reader, headers ...string) *http.Response {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, "http://api.example.com"+path, body)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Origin", app)
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	res, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { res.Body.Close() })
	return res
}

func read(t *testing.T, res *http.Response) string {
	t.Helper()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// plain makes the gate public without TLS, too.
func plain(c *gateway.Config) {
	o, err := web.ParseOrigin("http://api.example.com")
	if err != nil {
		panic(err)
	}
	c.PublicOrigins = append(c.PublicOrigins, o)
}

func TestEventsArriveWhenTheUpstreamSendsThem(t *testing.T) {
	seen := make(chan struct{})
	b := newBackend(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		w.(http.Flusher).Flush()
		<-seen // the head has arrived
		for i := range 3 {
			fmt.Fprintf(w, "data: %d\n\n", i)
			w.(http.Flusher).Flush()
			<-seen // so has the event
		}
	})
	s := start(t, configFor(t, b.URL, plain))
	res := do(t, client(t, s), "GET", "/events", nil)
	seen <- struct{}{}
	lines := bufio.NewScanner(res.Body)
	for i := range 3 {
		lines.Scan()
		if lines.Text() != fmt.Sprintf("data: %d", i) {
			t.Fatalf("%q, %v", lines.Text(), lines.Err())
		}
		lines.Scan()
		seen <- struct{}{}
	}
}

func TestTrailers(t *testing.T) {
	b := newBackend(t, func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		w.Header().Set("Trailer", "Checksum")
		w.Header().Set("Got", r.Trailer.Get("Client-Sum")+"/"+r.Trailer.Get("X-Real-Ip")+"/"+r.Trailer.Get("Unannounced"))
		io.WriteString(w, "body")
		w.Header().Set("Checksum", "42")
	})
	s := start(t, configFor(t, b.URL, plain))
	for name, c := range map[string]*http.Client{"HTTP/1.1": client(t, s), "h2c": client(t, s, func(p *http.Protocols) { p.SetUnencryptedHTTP2(true) })} {
		r, err := http.NewRequestWithContext(t.Context(), "POST", "http://api.example.com/", io.MultiReader(strings.NewReader("x")))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Origin", app)
		r.Trailer = http.Header{"Client-Sum": {"7"}, "X-Real-Ip": {"6.6.6.6"}}
		res, err := c.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		if got := read(t, res); got != "body" || res.Trailer.Get("Checksum") != "42" || res.Header.Get("Got") != "7//" {
			t.Errorf("%s: body %q, trailer %v, upstream got %q", name, got, res.Trailer, res.Header.Get("Got"))
		}
	}
}

func TestUnannouncedTrailers(t *testing.T) {
	b := newBackend(t, func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, "body")
		w.(http.Flusher).Flush()
		w.Header().Set(http.TrailerPrefix+"Grpc-Status", "0")
	})
	s := start(t, configFor(t, b.URL, plain))
	res := do(t, client(t, s), "GET", "/", nil)
	if got := read(t, res); got != "body" || res.Trailer.Get("Grpc-Status") != "0" {
		t.Errorf("%q, %v", got, res.Trailer)
	}
}

func TestExpectContinue(t *testing.T) {
	b := newBackend(t, func(w http.ResponseWriter, r *http.Request) { io.Copy(w, r.Body) })
	s := start(t, configFor(t, b.URL, plain))
	sent := 0
	body := func() io.Reader { return &counting{strings.NewReader("hello"), &sent} }
	if res := do(t, client(t, s), "POST", "/", body(), "Expect", "100-continue"); read(t, res) != "hello" {
		t.Error(res.Status)
	}
	sent = 0
	if res := do(t, client(t, s), "POST", "/", body(), "Expect", "100-continue", "Origin", stranger); res.StatusCode != http.StatusForbidden || sent != 0 {
		t.Errorf("refused: %s, but the client sent %d bytes", res.Status, sent)
	}
}

type counting struct {
	io.Reader
	n *int
}

func (c *counting) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	*c.n += n
	return n, err
}

func TestHeadRangeAndConditional(t *testing.T) {
	b := newBackend(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Etag", `"v1"`)
		http.ServeContent(w, r, "x.txt", time.Time{}, strings.NewReader("0123456789"))
	})
	s := start(t, configFor(t, b.URL, plain))
	c := client(t, s)
	if res := do(t, c, "HEAD", "/", nil); res.ContentLength != 10 || read(t, res) != "" {
		t.Errorf("HEAD: %d", res.ContentLength)
	}
	if res := do(t, c, "GET", "/", nil, "Range", "bytes=2-4"); res.StatusCode != http.StatusPartialContent || read(t, res) != "234" || res.Header.Get("Content-Range") != "bytes 2-4/10" {
		t.Errorf("Range: %s %v", res.Status, res.Header)
	}
	if res := do(t, c, "GET", "/", nil, "If-None-Match", `"v1"`); res.StatusCode != http.StatusNotModified || res.Header.Get("Vary") != "Origin" {
		t.Errorf("conditional: %s %v", res.Status, res.Header)
	}
}

func TestEarlyHints(t *testing.T) {
	b := newBackend(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Link", "</a.css>; rel=preload")
		w.WriteHeader(http.StatusEarlyHints)
		w.Header().Del("Link")
		io.WriteString(w, "done")
	})
	s := start(t, configFor(t, b.URL, plain))
	var hint string
	ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
		hint = fmt.Sprint(code, " ", h.Get("Link"))
		return nil
	}})
	r, err := http.NewRequestWithContext(ctx, "GET", "http://api.example.com/", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Origin", app)
	res, err := client(t, s).Do(r)
	if err != nil {
		t.Fatal(err)
	}
	if got := read(t, res); got != "done" || hint != "103 </a.css>; rel=preload" || res.Header.Get("Link") != "" || res.Header.Get("Access-Control-Allow-Origin") != app {
		t.Errorf("%q, hint %q, %v", got, hint, res.Header)
	}
}

func TestLargeBodiesStreamInConstantMemory(t *testing.T) {
	size := int64(1 << 30)
	if testing.Short() {
		size = 64 << 20
	}
	b := newBackend(t, func(w http.ResponseWriter, r *http.Request) {
		n, err := io.Copy(io.Discard, r.Body)
		if err != nil || r.Method == "POST" && n != size {
			t.Errorf("the upstream read %d bytes, %v", n, err)
		}
		if r.Method == "GET" {
			io.Copy(w, io.LimitReader(zeros{}, size))
		}
	})
	s := start(t, configFor(t, b.URL, plain, route(func(r *gateway.Route) { r.Bounds.BodyBytes = -1 })))
	for range 2 { // what other tests have left goes, and what that held on to
		runtime.GC()
	}
	var peak atomic.Uint64
	done := make(chan struct{})
	go func() {
		for {
			select {
			case <-done:
				return
			case <-time.After(20 * time.Millisecond):
				var m runtime.MemStats
				runtime.ReadMemStats(&m)
				peak.Store(max(peak.Load(), m.HeapInuse))
			}
		}
	}()
	c := client(t, s)
	if res := do(t, c, "POST", "/", io.LimitReader(zeros{}, size)); res.StatusCode != http.StatusOK {
		t.Error(res.Status)
	}
	if n, err := io.Copy(io.Discard, do(t, c, "GET", "/", nil).Body); n != size || err != nil {
		t.Errorf("the client read %d bytes, %v", n, err)
	}
	close(done)
	if p := peak.Load(); p > 40<<20 {
		t.Errorf("the heap grew to %d MiB", p>>20)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

func TestBodyBoundsHoldWhileStreaming(t *testing.T) {
	b := newBackend(t, func(_ http.ResponseWriter, r *http.Request) { io.Copy(io.Discard, r.Body) })
	s := start(t, configFor(t, b.URL, plain, route(func(r *gateway.Route) { r.Bounds.BodyBytes, r.Bounds.BodyIdle = 1000, 100*time.Millisecond })))
	res := do(t, client(t, s), "POST", "/", io.LimitReader(zeros{}, 100_000))
	if p := problemOf(t, res); p.Code != guard.BodyTooLarge.String() || res.Header.Get("Access-Control-Allow-Origin") != app {
		t.Errorf("%s %v", p.Code, res.Header)
	}
	slow, w := io.Pipe()
	defer w.Close()
	go w.Write([]byte("x"))
	res = do(t, client(t, s), "POST", "/", slow)
	if p := problemOf(t, res); p.Code != guard.BodyTooSlow.String() {
		t.Error(p.Code)
	}
}

func TestWebSocket(t *testing.T) {
	b := newBackend(t, func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true}) // the naked backend
		if err != nil {
			return
		}
		defer c.CloseNow()
		for {
			kind, msg, err := c.Read(r.Context())
			if err != nil || c.Write(r.Context(), kind, msg) != nil {
				return
			}
		}
	})
	s := start(t, configFor(t, b.URL, plain))
	dial := func(from string) (*websocket.Conn, *http.Response, error) {
		return websocket.Dial(t.Context(), "ws://"+s.addr+"/", &websocket.DialOptions{Host: "api.example.com", HTTPHeader: http.Header{"Origin": {from}}})
	}
	for _, from := range []string{app, "http://api.example.com"} {
		c, _, err := dial(from)
		if err != nil {
			t.Fatal(err)
		}
		for _, msg := range []string{"hello", strings.Repeat("x", 20_000), "GET / HTTP/1.1\r\nHost: evil\r\n\r\n"} {
			if err := c.Write(t.Context(), websocket.MessageText, []byte(msg)); err != nil {
				t.Fatal(err)
			}
			if _, got, err := c.Read(t.Context()); err != nil || string(got) != msg {
				t.Fatalf("%d bytes, %v", len(got), err)
			}
		}
		if err := c.Close(websocket.StatusNormalClosure, ""); err != nil {
			t.Error(err)
		}
	}
	ran := b.ran.Load()
	for _, from := range []string{stranger, "null", "https://api.example.com.evil.test"} {
		if _, res, err := dial(from); err == nil || res.StatusCode != http.StatusForbidden {
			t.Errorf("%s: %v", from, err)
		}
	}
	if b.ran.Load() != ran {
		t.Error("a stranger's handshake reached the backend")
	}
}

func TestNothingButAWebSocketIsATunnel(t *testing.T) {
	b := newBackend(t, func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, r.Header.Get("Upgrade"), r.Header.Get("Connection"), r.Header.Get("Http2-Settings"))
	})
	s := start(t, configFor(t, b.URL, plain))
	for _, up := range []string{"h2c", "HTTP/3.0", "websocket, h2c", "tls/1.2"} {
		res := do(t, client(t, s), "GET", "/", nil, "Connection", "Upgrade, HTTP2-Settings", "Upgrade", up, "Http2-Settings", "AAMAAABkAARAAAAAAAIAAAAA")
		if got := read(t, res); got != "" || res.StatusCode != http.StatusOK {
			t.Errorf("%s: %s, arrived %q", up, res.Status, got)
		}
	}
}

func TestAnswerDoesNotWaitForAnUnfinishedUpload(t *testing.T) {
	b := newBackend(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "2")
		w.WriteHeader(http.StatusUnauthorized)
		io.WriteString(w, "no")
	})
	s := start(t, configFor(t, b.URL, plain))
	c, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(3 * time.Second)) // the body may pause for longer
	io.WriteString(c, "POST / HTTP/1.1\r\nHost: api.example.com\r\nOrigin: "+app+"\r\nContent-Length: 1000000\r\n\r\nbeginning")
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := read(t, res); res.StatusCode != http.StatusUnauthorized || got != "no" {
		t.Errorf("%s %q", res.Status, got)
	}
}

func TestTunnelsSurviveReloadAndEndAtShutdown(t *testing.T) {
	b := newBackend(t, func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true})
		if err != nil {
			return
		}
		defer c.CloseNow()
		for {
			kind, msg, err := c.Read(context.Background())
			if err != nil || c.Write(context.Background(), kind, msg) != nil {
				return
			}
		}
	})
	s := start(t, configFor(t, b.URL, plain))
	c, _, err := websocket.Dial(t.Context(), "ws://"+s.addr+"/", &websocket.DialOptions{Host: "api.example.com", HTTPHeader: http.Header{"Origin": {app}}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.CloseNow()
	if err := s.Reload(configFor(t, "http://127.0.0.1:1", plain)); err != nil {
		t.Fatal(err)
	}
	if err := c.Write(t.Context(), websocket.MessageText, []byte("still here")); err != nil {
		t.Fatal(err)
	}
	if _, got, err := c.Read(t.Context()); err != nil || string(got) != "still here" {
		t.Fatalf("%q %v", got, err)
	}
	s.stop()
	if _, _, err := c.Read(t.Context()); err == nil {
		t.Error("the tunnel outlived the gate")
	}
}

func TestDrainLosesNoRequest(t *testing.T) {
	entered, release := make(chan struct{}), make(chan struct{})
	b := newBackend(t, func(w http.ResponseWriter, _ *http.Request) {
		entered <- struct{}{}
		<-release
		io.WriteString(w, "whole")
	})
	s := start(t, configFor(t, b.URL, plain))
	answer := make(chan string, 1)
	go func() {
		res := do(t, client(t, s), "GET", "/", nil)
		answer <- read(t, res)
	}()
	<-entered
	s.stop()
	for {
		c, err := net.Dial("tcp", s.addr)
		if err != nil {
			break // no longer accepting
		}
		c.Close()
	}
	close(release)
	if got := <-answer; got != "whole" {
		t.Errorf("%q", got)
	}
	if err := <-s.stopped; err != nil {
		t.Error(err)
	}
	s.stopped <- nil
}

// rawUpstream answers every connection with bytes of the test's choice.
func rawUpstream(t *testing.T, answer func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				if _, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
					answer(c)
				}
			}()
		}
	}()
	return "http://" + l.Addr().String()
}

func TestBrokenUpstreams(t *testing.T) {
	reset := func(c net.Conn) { c.(*net.TCPConn).SetLinger(0) }
	for _, c := range []struct {
		name   string
		answer func(net.Conn)
		want   guard.Reason
	}{
		{"closes at once", func(net.Conn) {}, guard.UpstreamBadResponse},
		{"resets at once", reset, guard.UpstreamBadResponse},
		{"no HTTP", func(c net.Conn) { io.WriteString(c, "SSH-2.0-OpenSSH\r\n") }, guard.UpstreamBadResponse},
		{"bad header", func(c net.Conn) { io.WriteString(c, "HTTP/1.1 200 OK\r\nbad header\r\n\r\n") }, guard.UpstreamBadResponse},
		{"bad length", func(c net.Conn) { io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n") }, guard.UpstreamBadResponse},
		{"switches protocols unasked", func(c net.Conn) {
			io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
		}, guard.UpstreamBadResponse},
		{"huge head", func(c net.Conn) {
			io.WriteString(c, "HTTP/1.1 200 OK\r\nX: "+strings.Repeat("x", 2<<20)+"\r\n\r\n")
		}, guard.UpstreamBadResponse},
		{"says nothing", func(c net.Conn) { io.Copy(io.Discard, c) }, guard.UpstreamTimeout},
	} {
		s := start(t, configFor(t, rawUpstream(t, c.answer), plain, func(cfg *gateway.Config) {
			up := cfg.Upstreams["app"]
			if up.ResponseTimeout = 10 * time.Second; c.want == guard.UpstreamTimeout {
				up.ResponseTimeout = 200 * time.Millisecond // the others must not depend on how busy the machine is
			}
			cfg.Upstreams["app"] = up
		}))
		res := do(t, client(t, s), "POST", "/", strings.NewReader("x"))
		if p := problemOf(t, res); p.Code != c.want.String() || res.Header.Get("Access-Control-Allow-Origin") != app {
			t.Errorf("%s: %s %v, want %s", c.name, p.Code, res.Header, c.want)
		}
	}
}

func TestBrokenStreamIsNeverPassedOffAsComplete(t *testing.T) {
	for name, answer := range map[string]func(net.Conn){
		"short of its length": func(c net.Conn) { io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart") },
		"reset in a chunk": func(c net.Conn) {
			io.WriteString(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\n")
			time.Sleep(50 * time.Millisecond)
			c.(*net.TCPConn).SetLinger(0)
		},
		"bad chunk": func(c net.Conn) {
			io.WriteString(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\nzz\r\n")
		},
	} {
		s := start(t, configFor(t, rawUpstream(t, answer), plain))
		for proto, c := range map[string]*http.Client{"HTTP/1.1": client(t, s), "h2c": client(t, s, func(p *http.Protocols) { p.SetUnencryptedHTTP2(true) })} {
			r, err := http.NewRequestWithContext(t.Context(), "GET", "http://api.example.com/", nil)
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("Origin", app)
			res, err := c.Do(r)
			if err != nil {
				continue // broken off before its head was sent
			}
			defer res.Body.Close()
			if b, err := io.ReadAll(res.Body); err == nil {
				t.Errorf("%s over %s: %q came as if whole", name, proto, b)
			}
		}
	}
}

// Whatever a parser might read differently is refused before any handler runs.
func TestSmugglingShapesAreRefused(t *testing.T) {
	b := newBackend(t, nil)
	s := start(t, configFor(t, b.URL, plain))
	const head = "POST / HTTP/1.1\r\nHost: api.example.com\r\nOrigin: " + app + "\r\n"
	for shape, want := range map[string]guard.Reason{
		head + "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n":    guard.FramingLengthConflict,
		head + "Content-Length: 4\r\nContent-Length: 4\r\n\r\nabcd":                  guard.FramingDuplicateLength,
		head + "Content-Length: 4\r\nContent-Length: 5\r\n\r\nabcde":                 guard.FramingDuplicateLength,
		head + "Content-Length: +4\r\n\r\nabcd":                                      guard.FramingLength,
		head + "Content-Length: 4, 4\r\n\r\nabcd":                                    guard.FramingLength,
		head + "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n":                        guard.FramingTransferEncoding,
		head + "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n":               guard.FramingTransferEncoding,
		head + "Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n0\r\n\r\n": guard.FramingTransferEncoding,
		head + "X: a\r\n b\r\n\r\n":                                                  guard.FramingFoldedHeader,
		head + "X: a\nContent-Length: 0\r\n\r\n":                                     guard.FramingLineEnd,
		head + "Content-Length : 4\r\n\r\nabcd":                                      guard.FramingHeaderName,
		head + "X: " + strings.Repeat("x", 40<<10) + "\r\n\r\n":                      guard.FramingHeadSize,
	} {
		c, err := net.Dial("tcp", s.addr)
		if err != nil {
			t.Fatal(err)
		}
		c.SetDeadline(time.Now().Add(10 * time.Second))
		go io.WriteString(c, shape+"GET /smuggled HTTP/1.1\r\nHost: api.example.com\r\nSec-Fetch-Site: same-origin\r\n\r\n")
		res, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Errorf("%.80q: %v", shape, err)
			continue
		}
		if p := problemOf(t, res); p.Code != want.String() || !res.Close {
			t.Errorf("%.80q: %s, close %v; want %s", shape, p.Code, res.Close, want)
		}
		c.Close()
	}
	if n := b.ran.Load(); n != 0 {
		t.Errorf("the backend ran %d times", n)
	}
}

func TestClientThatGoesAwayStopsTheUpstream(t *testing.T) {
	entered, gone := make(chan struct{}), make(chan struct{})
	b := newBackend(t, func(_ http.ResponseWriter, r *http.Request) {
		close(entered)
		<-r.Context().Done()
		close(gone)
	})
	s := start(t, configFor(t, b.URL, plain))
	ctx, cancel := context.WithCancel(t.Context())
	r, err := http.NewRequestWithContext(ctx, "GET", "http://api.example.com/", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Origin", app)
	go func() { <-entered; cancel() }()
	if res, err := client(t, s).Do(r); err == nil {
		res.Body.Close()
		t.Error("answered")
	}
	select {
	case <-gone:
	case <-time.After(30 * time.Second):
		t.Error("the upstream works on for nobody")
	}
}

func TestTLSWithHTTP1And2(t *testing.T) {
	b := newBackend(t, nil)
	cert := certificate(t)
	s := start(t, configFor(t, b.URL), func(c *gateway.ServerConfig) {
		c.Listeners[0].TLS = &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}
	})
	for name, set := range map[string]func(*http.Protocols){
		"HTTP/1.1": func(p *http.Protocols) { p.SetHTTP1(true) }, "HTTP/2.0": func(p *http.Protocols) { p.SetHTTP2(true) },
	} {
		r, err := http.NewRequestWithContext(t.Context(), "GET", self+"/", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Origin", self)
		res, err := client(t, s, set).Do(r)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		res.Body.Close()
		if res.Proto != name || res.StatusCode != http.StatusOK || b.last.Load().Header.Get("X-Forwarded-Proto") != "https" {
			t.Errorf("%s: %s %s, %v", name, res.Proto, res.Status, b.last.Load().Header)
		}
	}
}

func TestHTTP2Upstream(t *testing.T) {
	var proto atomic.Value
	up := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		proto.Store(r.Proto)
		w.Header().Set("Trailer", "Grpc-Status")
		w.(http.Flusher).Flush()
		for buf := make([]byte, 4); ; w.(http.Flusher).Flush() { // both directions at once
			if _, err := io.ReadFull(r.Body, buf); err != nil {
				break
			}
			w.Write(buf)
		}
		w.Header().Set("Grpc-Status", "0")
	}))
	up.Config.Protocols = new(http.Protocols)
	up.Config.Protocols.SetUnencryptedHTTP2(true)
	up.Start()
	defer up.Close()
	s := start(t, configFor(t, strings.Replace(up.URL, "http:", "h2c:", 1), plain))
	body, w := io.Pipe()
	r, err := http.NewRequestWithContext(t.Context(), "POST", "http://api.example.com/", body)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Origin", app)
	r.Header.Set("Te", "trailers")
	res, err := client(t, s, func(p *http.Protocols) { p.SetUnencryptedHTTP2(true) }).Do(r)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 { // each message is answered before the next is sent
		io.WriteString(w, "ping")
		buf := make([]byte, 4)
		if _, err := io.ReadFull(res.Body, buf); err != nil || string(buf) != "ping" {
			t.Fatalf("%q %v", buf, err)
		}
	}
	w.Close()
	io.Copy(io.Discard, res.Body)
	if proto.Load() != "HTTP/2.0" || res.Trailer.Get("Grpc-Status") != "0" {
		t.Errorf("%v %v", proto.Load(), res.Trailer)
	}
}

func TestUpstreamPathPrefixAndHost(t *testing.T) {
	b := newBackend(t, nil)
	for preserve, wantHost := range map[bool]string{true: "api.example.com", false: strings.TrimPrefix(b.URL, "http://")} {
		g := newGateway(t, configFor(t, b.URL+"/base%2Fx/", func(c *gateway.Config) {
			up := c.Upstreams["app"]
			up.PreserveHost = preserve
			c.Upstreams["app"] = up
		}, route(func(r *gateway.Route) { r.AllowEncodedSlash = true })))
		r := request("GET", app)
		r.URL, _ = url.Parse(self + "/a%2Fb?q=%20;x")
		serve(g, r)
		if got := b.last.Load(); got.RequestURI != "/base%2Fx/a%2Fb?q=%20;x" || got.Host != wantHost {
			t.Errorf("arrived: %s, Host %s, want %s", got.RequestURI, got.Host, wantHost)
		}
	}
}

func certificate(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"api.example.com"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func TestConnectionEndsWithAnAnswerThatLeavesABodyUnread(t *testing.T) {
	var log lockedBuffer
	b := newBackend(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/early" {
			w.Header().Set("Content-Length", "5")
			io.WriteString(w, "early")
			return
		}
		io.Copy(io.Discard, r.Body)
	})
	c := configFor(t, b.URL, plain, route(func(r *gateway.Route) { r.Bounds.BodyBytes = 50_000 }))
	s := startLogged(t, c, &log)
	for path, size := range map[string]int{"/": 100_000, "/early": 40_000} {
		for _, chunked := range []bool{true, false} {
			conn, err := net.Dial("tcp", s.addr)
			if err != nil {
				t.Fatal(err)
			}
			conn.SetDeadline(time.Now().Add(10 * time.Second))
			head := "POST " + path + " HTTP/1.1\r\nHost: api.example.com\r\nOrigin: " + app + "\r\n"
			body := strings.Repeat("x", size)
			if chunked {
				io.WriteString(conn, head+fmt.Sprintf("Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", size, body))
			} else {
				io.WriteString(conn, head+fmt.Sprintf("Content-Length: %d\r\n\r\n%s", size, body))
			}
			res, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Fatalf("%s, chunked %v: %v", path, chunked, err)
			}
			io.Copy(io.Discard, res.Body)
			conn.Close()
			if want := map[string]int{"/": http.StatusRequestEntityTooLarge, "/early": http.StatusOK}[path]; res.StatusCode != want {
				t.Errorf("%s, chunked %v: %s", path, chunked, res.Status)
			}
		}
	}
	s.stop()
	<-s.stopped
	s.stopped <- nil
	if text := log.String(); strings.Contains(text, "panic") {
		t.Errorf("net/http panicked:\n%s", text)
	}
}

// A client that opens no HTTP/2 window blocks no connection, only its streams.
func TestHTTP2ClientThatTakesNothingIsCut(t *testing.T) {
	gone := make(chan struct{}, 1)
	b := newBackend(t, func(w http.ResponseWriter, r *http.Request) {
		io.Copy(w, io.LimitReader(zeros{}, 64<<20))
		gone <- struct{}{}
	})
	s := start(t, configFor(t, b.URL, plain), func(c *gateway.ServerConfig) { c.WriteIdle = 200 * time.Millisecond })
	res := do(t, client(t, s, func(p *http.Protocols) { p.SetUnencryptedHTTP2(true) }), "GET", "/", nil)
	select { // nobody reads res.Body
	case <-gone:
	case <-time.After(30 * time.Second):
		t.Error("the upstream is still held")
	}
	res.Body.Close()
}

func TestHTTP2StreamMayBeSilentForLongerThanAWriteMayTake(t *testing.T) {
	b := newBackend(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for range 3 {
			io.WriteString(w, "data: x\n\n")
			w.(http.Flusher).Flush()
			time.Sleep(300 * time.Millisecond)
		}
	})
	s := start(t, configFor(t, b.URL, plain), func(c *gateway.ServerConfig) { c.WriteIdle = 100 * time.Millisecond })
	res := do(t, client(t, s, func(p *http.Protocols) { p.SetUnencryptedHTTP2(true) }), "GET", "/", nil)
	if got := read(t, res); got != strings.Repeat("data: x\n\n", 3) {
		t.Errorf("%q", got)
	}
}

func TestUpstreamCORSInInterimResponsesAndTrailersEndsHere(t *testing.T) {
	b := newBackend(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Link", "</a>")
		w.Header().Set("Access-Control-Allow-Origin", "*")
		w.WriteHeader(http.StatusEarlyHints)
		w.Header().Set("Trailer", "Access-Control-Allow-Origin, Set-Cookie, Sum")
		io.WriteString(w, "x")
		w.Header().Set("Access-Control-Allow-Origin", "*")
		w.Header().Set("Set-Cookie", "a=b")
		w.Header().Set("Sum", "1")
	})
	s := start(t, configFor(t, b.URL, plain))
	var hint textproto.MIMEHeader
	r, err := http.NewRequestWithContext(httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{
		Got1xxResponse: func(_ int, h textproto.MIMEHeader) error { hint = h; return nil },
	}), "GET", "http://api.example.com/", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Origin", app)
	res, err := client(t, s).Do(r)
	if err != nil {
		t.Fatal(err)
	}
	read(t, res)
	res.Body.Close()
	if got := hint.Get("Access-Control-Allow-Origin"); got == "*" || hint.Get("Link") == "" {
		t.Errorf("103: %v", hint)
	}
	if res.Trailer.Get("Sum") != "1" || res.Trailer.Get("Access-Control-Allow-Origin") != "" || res.Trailer.Get("Set-Cookie") != "" {
		t.Errorf("trailers: %v", res.Trailer)
	}
}
