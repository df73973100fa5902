package e2e

import (
	"crypto/sha256"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/moat-gateway/moat/wire"
)

// greeted is a server that remembers what each connection's first bytes told.
type greeted struct {
	addr string
	mu   sync.Mutex
	// of has the connections by the path that they asked for first.
	of map[string][]wire.Hello
	// came gets the path of each request.
	came chan string
}

func newGreeted(t *testing.T, secure bool) *greeted {
	t.Helper()
	g := &greeted{of: make(map[string][]wire.Hello), came: make(chan string, 100)}
	conns := make(map[string]bool)
	var p http.Protocols
	p.SetHTTP1(true)
	p.SetHTTP2(true)
	p.SetUnencryptedHTTP2(true)
	srv := &http.Server{Protocols: &p, ConnContext: wire.ConnContext, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		g.mu.Lock()
		if h := wire.HelloOf(r.Context()); h != nil && !conns[r.RemoteAddr] {
			conns[r.RemoteAddr] = true
			g.of[r.URL.Path] = append(g.of[r.URL.Path], *h)
		}
		g.mu.Unlock()
		w.Header().Set("Connection", "close") // GOAWAY in HTTP/2
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprint(w, `<!doctype html><link rel="icon" href="data:,"><p>`)
		g.came <- r.URL.Path
	})}
	o := wire.Options{Hello: func() bool { return true }}
	if secure {
		o.TLS = &tls.Config{Certificates: []tls.Certificate{testAuthority(t).certificate}, MinVersion: tls.VersionTLS12}
		srv.Handler = wire.RestoreTLS(srv.Handler)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g.addr = l.Addr().String()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = srv.Serve(wire.Listen(l, o))
	}()
	t.Cleanup(func() {
		srv.Close()
		<-done
	})
	return g
}

// origin is the server's under a host.
func (g *greeted) origin(scheme, host string) string {
	_, port, _ := net.SplitHostPort(g.addr)
	return scheme + "://" + net.JoinHostPort(host, port)
}

func (g *greeted) hellos(path string) []wire.Hello {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Clone(g.of[path])
}

// ja4s are the different ones among them, without their numbers of ciphers and extensions.
func ja4s(all []wire.Hello) (different []string) {
	for _, h := range all {
		if !slices.Contains(different, h.JA4) {
			different = append(different, h.JA4)
		}
	}
	return different
}

func TestHelloOfCurl(t *testing.T) {
	thorough(t)
	t.Parallel()
	secure, plain := newGreeted(t, true), newGreeted(t, false)
	for _, c := range []struct {
		path, option string
		g            *greeted
		ja4          string
		http2        bool
		order        []string
	}{
		{"/1", "--http1.1", plain, "", false, []string{"Host", "User-Agent", "Accept", "X-Own"}},
		{"/2", "--http2-prior-knowledge", plain, "", true, []string{"user-agent", "accept", "x-own"}},
		{"/1", "--http1.1", secure, "t13d", false, []string{"Host", "User-Agent", "Accept", "X-Own"}},
		{"/2", "--http2", secure, "t13d", true, []string{"user-agent", "accept", "x-own"}},
	} {
		url := c.g.origin("http", "localhost")
		if c.g == secure {
			url = c.g.origin("https", "localhost")
		}
		for range 3 {
			curl(t, c.option, "--insecure", "-H", "X-Own: x", url+c.path)
		}
		got := c.g.hellos(c.path)
		if len(got) != 3 || len(ja4s(got)) != 1 {
			t.Fatalf("%s: %+v", c.option, got)
		}
		for _, h := range got {
			// nghttp2 begins with MAX_CONCURRENT_STREAMS, and curl sends method, path, scheme, authority.
			if !strings.HasPrefix(h.JA4, c.ja4) || (h.JA4 == "") != (c.ja4 == "") || strings.HasPrefix(h.HTTP2, "3:100;4:") != c.http2 || strings.HasSuffix(h.HTTP2, "|0|m,p,s,a") != c.http2 || !slices.Equal(h.HeaderOrder, c.order) {
				t.Errorf("%s: %+v", c.option, h)
			}
		}
	}
}

func TestHelloOfChromium(t *testing.T) {
	thorough(t)
	t.Parallel()
	g := newGreeted(t, true)
	origin := g.origin("https", "greet.shop.test")
	for range 10 {
		newTab(t).open(origin + "/fresh")
	}
	all := g.hellos("/fresh")
	if len(all) < 10 {
		t.Fatalf("%d connections", len(all))
	}
	if different := ja4s(all); len(different) != 1 {
		t.Errorf("%d fresh connections have the JA4s %q, want one", len(all), different)
	}
	for _, h := range all {
		// What Chromium has sent since 2023, as published in many places; its cipher suites since 2020.
		if h.HTTP2 != "1:65536;2:0;4:6291456;6:262144|15663105|0|m,a,s,p" || !strings.HasPrefix(h.JA4, "t13d15") || !strings.Contains(h.JA4, "h2_8daaf6152771_") {
			t.Errorf("%+v", h)
		}
		if !slices.IsSortedFunc([]string{"sec-ch-ua", "upgrade-insecure-requests", "user-agent", "accept", "sec-fetch-site", "sec-fetch-dest", "accept-encoding", "accept-language"},
			func(a, b string) int { return slices.Index(h.HeaderOrder, a) - slices.Index(h.HeaderOrder, b) }) || !slices.Contains(h.HeaderOrder, "sec-ch-ua") {
			t.Errorf("header order %q", h.HeaderOrder)
		}
	}
	// A connection that resumes a TLS session has one extension more: JA4 counts it. The cipher suites stay.
	b := newTab(t)
	for range 5 {
		b.open(origin + "/again")
	}
	again := ja4s(g.hellos("/again"))
	for _, one := range again {
		if !strings.Contains(one, "_8daaf6152771_") {
			t.Errorf("resumed: %s", one)
		}
	}
	if len(again) > 2 {
		t.Errorf("five connections of one profile have the JA4s %q, want one, and one where a session is resumed", again)
	}
	t.Logf("Chromium: %s; one profile: %q; %q", all[0].JA4, again, all[0].HeaderOrder)
}

func TestHelloOfFirefox(t *testing.T) {
	thorough(t)
	t.Parallel()
	g := newGreeted(t, true)
	_, port, err := net.SplitHostPort(g.addr)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(testAuthority(t).certificate.Certificate[0])
	fingerprint := strings.ReplaceAll(fmt.Sprintf("% X", sum), " ", ":")
	// The exception that a person makes who says that he knows this certificate.
	startFirefox(t, g.origin("https", "localhost")+"/firefox", "localhost:"+port+":\tOID.2.16.840.1.101.3.4.2.1\t"+fingerprint+"\t\n")
	select {
	case <-g.came:
	case <-time.After(4 * patience):
		t.Fatal("Firefox did not come")
	}
	h := g.hellos("/firefox")[0]
	if !strings.HasPrefix(h.HTTP2, "1:65536;2:0;4:131072;5:16384|12517377|") || !strings.HasSuffix(h.HTTP2, "|m,p,a,s") || !strings.HasPrefix(h.JA4, "t13d") || h.HeaderOrder[0] != "user-agent" {
		t.Errorf("%+v", h)
	}
	t.Logf("Firefox: %+v", h)
}
