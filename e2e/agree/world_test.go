package agree

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	_ "embed"
	"encoding/base64"
	"fmt"
	"html"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/moat-gateway/moat/browser"
	"github.com/moat-gateway/moat/browser/browsertest"
)

//go:embed agree.js
var agreeJS string

// world is every server that a generated case can talk to: it answers all hosts, over
// http and https on the same port, as the case's rules say, and remembers what came. It
// has one port for each address space.
type world struct {
	ports map[browser.AddressSpace]int
	// key is the public key of its certificate, as Chromium wants it to be told.
	key string

	mu    sync.Mutex
	cases map[string]*played
	pages map[string]browser.Page // by URL
	seeds map[string][]sown       // by token
}

// played is a case in the world and what reached it.
type played struct {
	browser.Case
	id      string
	arrived []browser.Message
}

// sown are cookies that an origin sets.
type sown struct {
	origin string
	lines  []string
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{
		ports: map[browser.AddressSpace]int{},
		cases: map[string]*played{}, pages: map[string]browser.Page{}, seeds: map[string][]sown{},
	}
	certificate := w.certificate(t)
	for _, space := range []browser.AddressSpace{browser.Public, browser.Local, browser.Loopback} {
		var lc net.ListenConfig
		l, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		w.ports[space] = l.Addr().(*net.TCPAddr).Port //nolint:forcetypeassert // it is TCP
		plain, secure := newSide(l), newSide(l)
		go split(l, plain, secure)
		for _, serve := range []func(*http.Server) error{
			func(s *http.Server) error { return s.Serve(plain) },
			func(s *http.Server) error { return s.ServeTLS(secure, "", "") },
		} {
			s := &http.Server{
				Handler: w, ReadHeaderTimeout: patience,
				// Browsers open connections that they then have no use for.
				ErrorLog:  log.New(io.Discard, "", 0),
				TLSConfig: &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{certificate}},
			}
			go func() { _ = serve(s) }()
			t.Cleanup(func() { _ = s.Close() })
		}
		t.Cleanup(func() { _ = l.Close() })
	}
	return w
}

// resolver are the rules that lead every host of the cases here.
func (w *world) resolver() string {
	var rules []string
	for host, space := range browsertest.Addresses {
		rules = append(rules, fmt.Sprintf("MAP %s 127.0.0.1:%d", host, w.ports[space]))
	}
	return strings.Join(append(rules, fmt.Sprintf("MAP localhost 127.0.0.1:%d", w.ports[browser.Loopback]),
		fmt.Sprintf("MAP *.test 127.0.0.1:%d", w.ports[browser.Public])), ",")
}

// spaces tells Chromium in which address space the ports are.
func (w *world) spaces() string {
	return fmt.Sprintf("127.0.0.1:%d=public,127.0.0.1:%d=local", w.ports[browser.Public], w.ports[browser.Local])
}

func (w *world) certificate(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "moat's tests"},
		DNSNames:  []string{"localhost", "*.test", "*.app.test", "app.test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	spki, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(spki)
	w.key = base64.StdEncoding.EncodeToString(sum[:])
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// side is a listener for the connections of one kind.
type side struct {
	net.Listener
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newSide(l net.Listener) *side {
	return &side{Listener: l, conns: make(chan net.Conn), done: make(chan struct{})}
}

func (s *side) Accept() (net.Conn, error) {
	select {
	case c := <-s.conns:
		return c, nil
	case <-s.done:
		return nil, net.ErrClosed
	}
}

func (s *side) Close() error {
	s.once.Do(func() { close(s.done) })
	return nil
}

type peeked struct {
	net.Conn
	r *bufio.Reader
}

func (p peeked) Read(b []byte) (int, error) { return p.r.Read(b) }

// split tells TLS from HTTP by the first byte.
func split(l net.Listener, plain, secure *side) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			p := peeked{c, bufio.NewReader(c)}
			_ = c.SetReadDeadline(time.Now().Add(5 * patience))
			first, err := p.r.Peek(1)
			if err != nil {
				_ = c.Close()
				return
			}
			_ = c.SetReadDeadline(time.Time{})
			to := plain
			if first[0] == 0x16 {
				to = secure
			}
			select {
			case to.conns <- p:
			case <-to.done:
				_ = c.Close()
			}
		}()
	}
}

func (w *world) ServeHTTP(out http.ResponseWriter, r *http.Request) {
	scheme := "http"
	if r.TLS != nil {
		scheme = "https"
	}
	url := scheme + "://" + r.Host + r.URL.RequestURI()
	if id, ok := strings.CutPrefix(r.URL.Path, browsertest.Root); ok {
		id, _, _ = strings.Cut(id, "/")
		w.serveCase(out, r, id, url)
		return
	}
	if rest, ok := strings.CutPrefix(r.URL.Path, "/seed/"); ok {
		w.serveSeed(out, r, rest)
		return
	}
	w.mu.Lock()
	p, ok := w.pages[url]
	w.mu.Unlock()
	if !ok {
		http.NotFound(out, r)
		return
	}
	w.servePage(out, url, p)
}

// servePage serves a page or one of those that frame it.
func (w *world) servePage(out http.ResponseWriter, url string, p browser.Page) {
	h := out.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	frame := ""
	if url == p.URL {
		for name, value := range map[string]string{
			"Content-Security-Policy": p.CSP, "Cross-Origin-Embedder-Policy": p.COEP, "Referrer-Policy": p.ReferrerPolicy,
		} {
			if value != "" {
				h.Set(name, value)
			}
		}
	} else {
		sandbox := ""
		if p.Sandboxed {
			sandbox = ` sandbox="allow-scripts allow-forms"`
		}
		frame = fmt.Sprintf(`<iframe class=next src=%q%s></iframe>`, html.EscapeString(p.URL), sandbox)
	}
	_, _ = fmt.Fprintf(out, "<!doctype html><title>page</title><link rel=icon href='data:,'><body>%s<script>%s</script>", frame, agreeJS)
}

func (w *world) serveSeed(out http.ResponseWriter, r *http.Request, rest string) {
	token, at, _ := strings.Cut(rest, "/")
	i, _ := strconv.Atoi(at)
	w.mu.Lock()
	all := w.seeds[token]
	w.mu.Unlock()
	if i < 0 || i >= len(all) {
		http.NotFound(out, r)
		return
	}
	for _, line := range all[i].lines {
		out.Header().Add("Set-Cookie", line)
	}
	out.Header().Set("Cache-Control", "no-store")
	if i+1 < len(all) {
		http.Redirect(out, r, fmt.Sprintf("%s/seed/%s/%d", all[i+1].origin, token, i+1), http.StatusTemporaryRedirect)
	}
}

func (w *world) serveCase(out http.ResponseWriter, r *http.Request, id, url string) {
	m := browser.Message{Method: r.Method, URL: url}
	m.Preflight = r.Method == http.MethodOptions && r.Header.Get("Access-Control-Request-Method") != ""
	if strings.EqualFold(r.Header.Get("Upgrade"), "websocket") {
		m.URL = "ws" + strings.TrimPrefix(url, "http")
	}
	for name, values := range r.Header {
		for _, v := range values {
			m.Header = append(m.Header, browser.Field{Name: name, Value: v})
		}
	}
	w.mu.Lock()
	c := w.cases[id]
	if c == nil {
		w.mu.Unlock()
		http.NotFound(out, r)
		return
	}
	c.arrived = append(c.arrived, m)
	a := c.Serve(m)
	w.mu.Unlock()
	if a.Status == http.StatusSwitchingProtocols {
		conn, err := websocket.Accept(out, r, &websocket.AcceptOptions{InsecureSkipVerify: true})
		if err == nil {
			ctx, cancel := context.WithTimeout(r.Context(), patience)
			defer cancel()
			_, _, _ = conn.Read(ctx)
			_ = conn.CloseNow()
		}
		return
	}
	h := out.Header()
	h["Content-Type"], h["Date"] = nil, nil // none but the case's
	for _, f := range a.Header {
		key := http.CanonicalHeaderKey(f.Name)
		h[key] = append(h[key], f.Value)
	}
	out.WriteHeader(a.Status)
	_ = http.NewResponseController(out).Flush() // so that no Content-Length is added
	if a.Status >= 200 && a.Status != 204 && a.Status != 304 {
		_, _ = out.Write([]byte(a.Body))
	}
}

// stages makes a case part of the world, under an id that is part of all its URLs.
func (w *world) stage(c browser.Case, id string) *played {
	p := &played{Case: moved(c, id), id: id}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cases[id] = p
	return p
}

func (w *world) strike(p *played) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.cases, p.id)
}
