package live

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/moat-gateway/moat/browser"
	"github.com/moat-gateway/moat/explain"
)

// get is the message of a plain GET.
func get(target string) browser.Message { return browser.Message{Method: http.MethodGet, URL: target} }

func hostOf(t *testing.T, raw string) string {
	t.Helper()
	u, err := url.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	return u.Hostname()
}

// client may send to the hosts of the URLs.
func client(t *testing.T, o Options, named ...string) *Client {
	t.Helper()
	for _, n := range named {
		o.Named = append(o.Named, hostOf(t, n))
	}
	c := New(t.Context(), o)
	t.Cleanup(c.Close)
	return c
}

func TestServerSendsWhatTheModelSays(t *testing.T) {
	var got *http.Request
	var body []byte
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = r
		body, _ = io.ReadAll(r.Body)
		w.Header().Add("Set-Cookie", "a=1")
		w.Header().Add("Set-Cookie", "b=2")
		fmt.Fprint(w, "hello")
	}))
	defer srv.Close()
	c := client(t, Options{Send: true}, srv.URL)
	a := c.Server(browser.Message{
		Method: http.MethodPut, URL: srv.URL + "/x?y=1", Body: &browser.Body{Kind: "text", Text: "{}"},
		Header: browser.Header{
			{Name: "Content-Type", Value: "multipart/form-data; boundary=…"},
			{Name: "Origin", Value: "https://app.example"},
			{Name: "Authorization", Value: "Bearer …"},
			{Name: "X-Token", Value: "t"},
			{Name: "Cookie", Value: "known=1; unknown=…"},
		},
	})
	if a.Status != 200 || a.Body != "hello" || strings.Join(a.Header.Values("set-cookie"), "|") != "a=1|b=2" {
		t.Errorf("%+v", a)
	}
	if got.Method != "PUT" || got.RequestURI != "/x?y=1" || string(body) != "{}" || got.Header.Get("Origin") != "https://app.example" ||
		got.Header.Get("Content-Type") != "multipart/form-data; boundary=moat" || got.Header.Get("X-Token") != "t" || got.Header.Get("Cookie") != "known=1" {
		t.Errorf("%+v", got.Header)
	}
	if got.Header.Get("Authorization") != "" || !strings.Contains(strings.Join(c.Notes(), " "), "Authorization was not sent") {
		t.Errorf("%q, notes %q", got.Header.Get("Authorization"), c.Notes())
	}
}

func TestServerSendsOnlyPreflightsUnlessTold(t *testing.T) {
	asked := ""
	srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { asked += r.Method + " " }))
	defer srv.Close()
	c := client(t, Options{}, srv.URL)
	for _, method := range []string{"GET", "HEAD", "POST", "DELETE"} {
		if a := c.Server(browser.Message{Method: method, URL: srv.URL}); !strings.HasPrefix(a.Failure, explain.Withheld) {
			t.Errorf("%s: %+v", method, a)
		}
	}
	if a := c.Server(browser.Message{Method: "OPTIONS", URL: srv.URL, Preflight: true}); a.Status != 200 || asked != "OPTIONS " {
		t.Errorf("%+v, asked %q", a, asked)
	}
}

// hostile is a listener that answers each connection by hand.
func hostile(t *testing.T, answer func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				io.ReadAtLeast(conn, make([]byte, 4096), 4)
				answer(conn)
			}()
		}
	}()
	return "http://" + l.Addr().String()
}

func TestServerNamesFailuresAsChromiumDoes(t *testing.T) {
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	free.Close()
	over := make(chan struct{})
	defer close(over)
	plainHTTP := httptest.NewServer(http.NotFoundHandler())
	defer plainHTTP.Close()
	untrusted := httptest.NewTLSServer(http.NotFoundHandler())
	untrusted.Config.ErrorLog = log.New(io.Discard, "", 0)
	defer untrusted.Close()
	for name, c := range map[string]struct{ target, want string }{
		"nothing listens":  {"http://" + free.Addr().String(), "net::ERR_CONNECTION_REFUSED"},
		"no such name":     {"http://nowhere.invalid/", "net::ERR_NAME_NOT_RESOLVED"},
		"silence":          {hostile(t, func(net.Conn) { <-over }), "net::ERR_TIMED_OUT"},
		"hangs up":         {hostile(t, func(net.Conn) {}), "net::ERR_EMPTY_RESPONSE"},
		"no HTTP":          {hostile(t, func(c net.Conn) { io.WriteString(c, "220 smtp.example ESMTP\r\n") }), "net::ERR_INVALID_HTTP_RESPONSE"},
		"endless header":   {hostile(t, func(c net.Conn) { io.WriteString(c, "HTTP/1.1 200 OK\r\nA: "+strings.Repeat("x", 1<<20)+"\r\n\r\n") }), "net::ERR_RESPONSE_HEADERS_TOO_BIG"},
		"http for https":   {strings.Replace(plainHTTP.URL, "http", "https", 1), "net::ERR_SSL_PROTOCOL_ERROR"},
		"unknown signer":   {untrusted.URL, "net::ERR_CERT_AUTHORITY_INVALID"},
		"no URL":           {"http://%zz/", "net::ERR_INVALID_URL"},
		"a broken head":    {hostile(t, func(c net.Conn) { io.WriteString(c, "HTTP/1.1 200 OK\r\nA") }), "net::ERR_INVALID_HTTP_RESPONSE"},
		"a broken message": {hostile(t, func(c net.Conn) { io.WriteString(c, "HTTP/1.1 200 OK\r\nbad header\r\n\r\n") }), "net::ERR_INVALID_HTTP_RESPONSE"},
	} {
		t.Run(name, func(t *testing.T) {
			o := Options{Send: true, AllowPrivate: true}
			if c.want == "net::ERR_TIMED_OUT" {
				o.Timeout = 300 * time.Millisecond // all others answer, be it late
			}
			cl := New(t.Context(), o)
			defer cl.Close()
			if a := cl.Server(get(c.target)); a.Failure != c.want {
				t.Errorf("%+v, notes %q", a, cl.Notes())
			}
		})
	}
}

// certificate makes a self-signed one.
func certificate(t *testing.T, host string, until time.Time) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: host}, DNSNames: []string{host},
		NotBefore: until.Add(-48 * time.Hour), NotAfter: until, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, &template, &template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool
}

func TestServerJudgesCertificates(t *testing.T) {
	for name, c := range map[string]struct {
		host  string
		until time.Time
		trust bool
		skip  bool
		want  string
	}{
		"trusted":    {"api.example", time.Now().Add(time.Hour), true, false, ""},
		"untrusted":  {"api.example", time.Now().Add(time.Hour), false, false, "net::ERR_CERT_AUTHORITY_INVALID"},
		"other host": {"other.example", time.Now().Add(time.Hour), true, false, "net::ERR_CERT_COMMON_NAME_INVALID"},
		"expired":    {"api.example", time.Now().Add(-time.Hour), true, false, "net::ERR_CERT_DATE_INVALID"},
		"-k":         {"other.example", time.Now().Add(-time.Hour), false, true, ""},
	} {
		t.Run(name, func(t *testing.T) {
			cert, pool := certificate(t, c.host, c.until)
			srv := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
			srv.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
			srv.Config.ErrorLog = log.New(io.Discard, "", 0)
			srv.StartTLS()
			defer srv.Close()
			_, port, _ := net.SplitHostPort(srv.Listener.Addr().String())
			o := Options{Send: true, DangerouslySkipVerify: c.skip, Resolve: map[string]netip.Addr{"api.example:" + port: netip.MustParseAddr("127.0.0.1")}}
			if o.RootCAs = x509.NewCertPool(); c.trust {
				o.RootCAs = pool
			}
			cl := client(t, o)
			if a := cl.Server(get("https://api.example:" + port)); a.Failure != c.want {
				t.Errorf("%+v, notes %q", a, cl.Notes())
			}
		})
	}
}

func TestServerReadsLittleAndNotForLong(t *testing.T) {
	over := make(chan struct{})
	defer close(over)
	endless := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			if _, err := io.WriteString(w, strings.Repeat("x", 4096)); err != nil {
				return
			}
		}
	}))
	defer endless.Close()
	slow := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "begin")
		w.(http.Flusher).Flush()
		select {
		case <-over:
		case <-r.Context().Done():
		}
	}))
	defer slow.Close()
	cl := client(t, Options{Send: true, Timeout: 300 * time.Millisecond}, endless.URL)
	if a := cl.Server(get(endless.URL)); a.Status != 200 || len(a.Body) != maxBody {
		t.Errorf("%d, %d bytes %s", a.Status, len(a.Body), a.Failure)
	}
	if a := cl.Server(get(slow.URL)); a.Status != 200 || a.Body != "begin" || len(cl.Notes()) != 1 {
		t.Errorf("%+v %q", a, cl.Notes())
	}
}

func TestServerEndsWithItsContext(t *testing.T) {
	over := make(chan struct{})
	defer close(over)
	ctx, cancel := context.WithCancel(t.Context())
	cl := New(ctx, Options{Send: true, Named: []string{"127.0.0.1"}})
	defer cl.Close()
	target := hostile(t, func(net.Conn) { <-over })
	time.AfterFunc(20*time.Millisecond, cancel)
	begin := time.Now()
	if a := cl.Server(get(target)); a.Failure == "" || time.Since(begin) > 5*time.Second {
		t.Errorf("%+v after %v", a, time.Since(begin))
	}
}

// record is what a server was asked.
type record struct {
	mu  sync.Mutex
	all []*http.Request
}

func (r *record) add(q *http.Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = append(r.all, q)
}

// explainLive asks a question of script of a page that may reach this machine.
func explainLive(t *testing.T, c *Client, r browser.Request) *explain.Explanation {
	t.Helper()
	r.API = browser.Fetch
	s := explain.Setting{Now: time.Now(), LocalNetworkAllowed: true}
	e, err := s.Explain(explain.Question{Page: browser.Page{URL: "http://localhost:5173/"}, Request: r}, c.Server)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func allowing(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	origin := r.Header.Get("Origin")
	h.Set("Access-Control-Allow-Origin", origin)
	h.Set("Access-Control-Allow-Credentials", "true")
	h.Set("Access-Control-Allow-Methods", r.Header.Get("Access-Control-Request-Method"))
	h.Set("Access-Control-Allow-Headers", r.Header.Get("Access-Control-Request-Headers"))
}

func TestNoSecretGoesToAnotherHost(t *testing.T) {
	var there record
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		allowing(w, r)
		there.add(r)
	}))
	defer other.Close()
	// The other host is 127.0.0.1; the named one is called localhost.
	first := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		allowing(w, r)
		if r.Method != http.MethodOptions {
			http.Redirect(w, r, other.URL+"/there", http.StatusTemporaryRedirect)
		}
	}))
	defer first.Close()
	target := strings.Replace(first.URL, "127.0.0.1", "localhost", 1)
	cl := client(t, Options{Send: true, AllowPrivate: true}, target)
	e := explainLive(t, cl, browser.Request{
		Method: http.MethodGet, URL: target, Credentials: "include",
		Header: browser.Header{{Name: "Authorization", Value: "Bearer SECRET"}, {Name: "X-Api-Key", Value: "SECRET"}, {Name: "X-Odd", Value: "SECRET"}},
	})
	if len(there.all) == 0 {
		t.Fatalf("the redirect was not followed: %s", e.Summary)
	}
	for _, r := range there.all {
		for name, values := range r.Header {
			if strings.Contains(strings.Join(values, ""), "SECRET") {
				t.Errorf("%s went to another host: %q", name, values)
			}
		}
	}
	if !strings.Contains(strings.Join(cl.Notes(), " "), "X-Api-Key was not sent") {
		t.Errorf("notes %q", cl.Notes())
	}

	there.all = nil
	e = explainLive(t, cl, browser.Request{Method: http.MethodPost, URL: target, Body: &browser.Body{Kind: "text", Text: "password=SECRET"}})
	for _, r := range there.all {
		if r.Method != http.MethodOptions {
			t.Errorf("the body went to another host: %s", r.Method)
		}
	}
	if e.Outcome != explain.Unknown || e.Pending == nil || !strings.Contains(e.Pending.Why, "the body") {
		t.Errorf("%s: %s", e.Outcome, e.Summary)
	}
}

func TestNoSecretGoesFromTLSToPlainText(t *testing.T) {
	c := client(t, Options{}, "https://api.example", "https://listed.example")
	for _, step := range []struct {
		target string
		want   bool
	}{
		{"http://api.example/", true}, // it was named like this, and nothing was secure yet
		{"https://API.example:8443/", true},
		{"http://listed.example/", false}, // never asked over TLS itself, and yet a way down
		{"http://api.example/", false},
		{"ws://api.example./", false},
		{"https://api.example/", true},
		{"https://other.example/", false},
	} {
		u, err := url.Parse(step.target)
		if err != nil {
			t.Fatal(err)
		}
		if got := c.trusts(u); got != step.want {
			t.Errorf("%s is trusted: %v", step.target, got)
		}
	}
}

func TestNoRedirectLeadsToAPrivateAddress(t *testing.T) {
	var inside record
	private := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		allowing(w, r)
		inside.add(r)
	}))
	defer private.Close()
	first := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		allowing(w, r)
		http.Redirect(w, r, private.URL, http.StatusFound)
	}))
	defer first.Close()
	target := strings.Replace(first.URL, "127.0.0.1", "localhost", 1)
	e := explainLive(t, client(t, Options{Send: true}, target), browser.Request{URL: target})
	if e.Outcome != explain.Unknown || e.Pending == nil || !strings.Contains(e.Pending.Why, "private address 127.0.0.1") || len(inside.all) > 0 {
		t.Errorf("%s: %s, %d requests inside", e.Outcome, e.Summary, len(inside.all))
	}
	if e = explainLive(t, client(t, Options{Send: true}, target, private.URL), browser.Request{URL: target}); len(inside.all) != 1 {
		t.Errorf("it was named: %s", e.Summary)
	}
	if e = explainLive(t, client(t, Options{Send: true, AllowPrivate: true}, target), browser.Request{URL: target}); len(inside.all) != 2 {
		t.Errorf("it was allowed: %s", e.Summary)
	}
}

func TestRedirectsComeToAnEnd(t *testing.T) {
	var asked record
	var srv *httptest.Server
	srv = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.add(r)
		allowing(w, r)
		http.Redirect(w, r, srv.URL+"/again", http.StatusFound)
	}))
	defer srv.Close()
	e := explainLive(t, client(t, Options{Send: true}, srv.URL), browser.Request{URL: srv.URL})
	if len(asked.all) != 21 || e.Outcome != explain.Unknown && e.Outcome != explain.Blocked || e.Trace.Verdict.NetError != "net::ERR_TOO_MANY_REDIRECTS" {
		t.Errorf("%d requests, %s: %s", len(asked.all), e.Outcome, e.Summary)
	}
}

func TestOnlyPublicAddressesArePublic(t *testing.T) {
	for a, want := range map[string]bool{
		"93.184.215.14": true, "2606:2800:21f:cb07:6820:80da:af6b:8b2c": true, "8.8.8.8": true,
		"127.0.0.1": false, "127.9.9.9": false, "10.1.2.3": false, "172.16.0.1": false, "172.31.255.255": false, "192.168.1.1": false,
		"169.254.169.254": false, "100.64.0.1": false, "0.0.0.0": false, "0.1.2.3": false, "192.0.0.192": false, "198.18.0.1": false,
		"224.0.0.1": false, "255.255.255.255": false, "::1": false, "::": false, "fe80::1": false, "fe80::1%eth0": false,
		"fd00:ec2::254": false, "fc00::1": false, "ff02::1": false, "::ffff:127.0.0.1": false, "::ffff:10.0.0.1": false,
		"64:ff9b::7f00:1": false, "2002:7f00:1::": false, "::127.0.0.1": false, "::ffff:0:127.0.0.1": false,
	} {
		if got := public(netip.MustParseAddr(a)); got != want {
			t.Errorf("public(%s) = %v", a, got)
		}
	}
}

func TestSpaceGoesByWhatTheNameResolvesTo(t *testing.T) {
	cl := client(t, Options{
		Resolve: map[string]netip.Addr{"pinned.example:443": netip.MustParseAddr("127.0.0.1")},
		LookupNetIP: func(_ context.Context, _, host string) ([]netip.Addr, error) {
			switch host {
			case "vpn.example":
				return []netip.Addr{netip.MustParseAddr("10.1.1.1")}, nil
			case "api.example":
				return []netip.Addr{netip.MustParseAddr("93.184.215.14")}, nil
			}
			return nil, errors.New("no such host")
		},
	})
	for host, want := range map[string]browser.AddressSpace{
		"vpn.example": browser.Local, "vpn.example:8443": browser.Local, "api.example": browser.Public, "nowhere.example": browser.Public,
		"pinned.example:443": browser.Public, "localhost:3000": browser.Loopback, "[::1]:80": browser.Loopback, "93.184.215.14": browser.Public,
	} {
		if got := cl.Space(host); got != want {
			t.Errorf("Space(%s) = %s, want %s", host, got, want)
		}
	}
	if len(cl.Notes()) != 1 || !strings.Contains(cl.Notes()[0], "10.1.1.1") {
		t.Errorf("%q", cl.Notes())
	}
}

func TestServerOpensWebSockets(t *testing.T) {
	var got http.Header
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = r.Header
		w.Header().Set("Connection", "Upgrade")
		w.Header().Set("Upgrade", "websocket")
		w.WriteHeader(http.StatusSwitchingProtocols)
	}))
	defer srv.Close()
	cl := client(t, Options{Send: true}, srv.URL)
	a := cl.Server(get(strings.Replace(srv.URL, "http", "ws", 1)))
	if a.Status != 101 || got.Get("Upgrade") != "websocket" || got.Get("Sec-Websocket-Version") != "13" {
		t.Errorf("%+v %v", a, got)
	}
}

func TestRootCAsReadsPEM(t *testing.T) {
	cert, _ := certificate(t, "api.example", time.Now().Add(time.Hour))
	dir := t.TempDir()
	good, bad := filepath.Join(dir, "good.pem"), filepath.Join(dir, "bad.pem")
	if err := os.WriteFile(good, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Certificate[0]}), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(bad, []byte("nothing"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := RootCAs(good); err != nil {
		t.Error(err)
	}
	for _, name := range []string{bad, filepath.Join(dir, "none.pem")} {
		if _, err := RootCAs(name); err == nil {
			t.Errorf("%s was read", filepath.Base(name))
		}
	}
}
