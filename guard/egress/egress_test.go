package egress_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/moat-gateway/moat/guard"
	"github.com/moat-gateway/moat/guard/egress"
	"github.com/moat-gateway/moat/guard/egress/egresstest"
)

func newGuard(t testing.TB, p egress.Policy) *egress.Guard {
	t.Helper()
	g, err := egress.New(p)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.Close)
	return g
}

func TestOnlyListedHostsAreFetched(t *testing.T) {
	g := newGuard(t, egress.Policy{Hosts: []string{"api.example", "*.wiki.example", "odd.example:8443", "BÜCHER.example", "one.example."}})
	for raw, want := range map[string]string{
		"https://api.example/a?b=c":           "https://api.example/a?b=c",
		"HTTP://API.EXAMPLE":                  "http://api.example",
		"https://api.example./":               "https://api.example/",
		"https://api.example:443/":            "https://api.example/",
		"http://api.example:80/":              "http://api.example/",
		"https://de.wiki.example/":            "https://de.wiki.example/",
		"https://odd.example:8443/":           "https://odd.example:8443/",
		"http://odd.example:8443/":            "http://odd.example:8443/",
		"https://xn--bcher-kva.example/":      "https://xn--bcher-kva.example/",
		"https://bücher.example/größe?q=ü#x":  "https://xn--bcher-kva.example/gr%C3%B6%C3%9Fe?q=%C3%BC",
		"https://ａｐｉ.example/":                "https://api.example/",
		"https://one.example/%2e%2e/x%2Fy":    "https://one.example/%2e%2e/x%2Fy",
		"https://api.example/?u=//evil@evil/": "https://api.example/?u=//evil@evil/",
	} {
		u, d := g.Decide(raw)
		if d.Denied() || u.String() != want {
			t.Errorf("%s: %v %+v, want %s", raw, u, d, want)
		}
	}
	for _, raw := range []string{
		"", "/", "//api.example/", "api.example", "https:", "https:///x", "https:api.example", "ftp://api.example/", "file:///etc/passwd", "gopher://api.example/", "javascript:alert(1)",
		"https://evil.example/", "https://api.example.evil/", "https://xapi.example/", "https://wiki.example/", "https://a.b.wiki.example/", "https://.wiki.example/",
		"https://user@api.example/", "https://user:pass@api.example/", "https://@api.example/", "https://api.example@evil.example/", "https://evil.example#@api.example/",
		"https://evil.example?@api.example/", "https://evil.example\\@api.example/", "https://api.example\\.evil.example/", "https:\\\\api.example\\", "https://api.example%2eevil.example/",
		"https://api.example:8443/", "https://api.example:22/", "https://odd.example/", "http://api.example:443/", "https://api.example:80/", "https://api.example:0443/", "https://api.example:99999/", "https://api.example:-1/", "https://api.example:4 43/",
		"https://api.example../", "https://api..example/", "https://api.example /", " https://api.example/", "https://api.example/\r\nHost: evil", "https://api.example/a b", "https://api.example/?a b", "https://api.example/\x00", "https://api.example/\xff",
		"http://127.0.0.1/", "http://127.1/", "http://2130706433/", "http://0x7f.1/", "http://0x7f000001/", "http://0177.0.0.1/", "http://0/", "http://①②⑦.⓪.⓪.①/", "http://[::1]/", "http://[::ffff:127.0.0.1]/",
		"http://[::]/", "http://[fe80::1%25eth0]/", "http://169.254.169.254/latest/meta-data/", "http://169.254.169.254./", "http://localhost/", "http://metadata.google.internal/",
		"https://api.example/" + strings.Repeat("x", 9000),
	} {
		if u, d := g.Decide(raw); !d.Denied() || u != nil || d.Reason != guard.EgressNotAllowed {
			t.Errorf("%q: %v %+v", raw, u, d)
		}
	}
	if _, d := newGuard(t, egress.Policy{}).Decide("https://api.example/"); !d.Denied() {
		t.Error("the zero policy allows")
	}
	if _, d := g.Decide("https://user:hunter2@evil.example/path?token=hunter2"); strings.Contains(fmt.Sprint(d), "hunter2") {
		t.Errorf("the evidence tells a secret: %+v", d)
	}
}

func TestOnlyPublicAddresses(t *testing.T) {
	for _, s := range []string{"8.8.8.8", "1.1.1.1", "100.63.255.255", "100.128.0.0", "172.15.255.255", "172.32.0.0", "192.0.1.0", "198.17.255.255", "223.255.255.255", "2606:4700::1", "2a00:1450::1", "2001:4860::8888", "2001:200::"} {
		if !egress.Public(netip.MustParseAddr(s)) {
			t.Errorf("%s is refused", s)
		}
	}
	for _, s := range []string{
		"0.0.0.0", "0.1.2.3", "10.0.0.1", "100.64.0.1", "100.127.255.255", "127.0.0.1", "127.255.255.255", "169.254.169.254", "172.16.0.1", "172.31.255.255", "192.0.0.1", "192.0.0.170", "192.0.2.1",
		"192.88.99.1", "192.168.1.1", "198.18.0.1", "198.19.255.255", "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255",
		"::", "::1", "::ffff:127.0.0.1", "::ffff:8.8.8.8", "::7f00:1", "64:ff9b::7f00:1", "64:ff9b::808:808", "64:ff9b:1::1", "100::1", "100:0:0:1::1", "2001::1", "2001:0:4136:e378::1", "2001:1::1", "2001:10::1", "2001:20::1",
		"2001:db8::1", "2002:7f00:1::1", "3fff::1", "3fff:fff::1", "5f00::1", "fc00::1", "fd00:ec2::254", "fe80::1", "fe80::1%eth0", "2606:4700::1%eth0", "fec0::1", "ff02::1",
	} {
		if egress.Public(netip.MustParseAddr(s)) {
			t.Errorf("%s is allowed", s)
		}
	}
	if egress.Public(netip.Addr{}) {
		t.Error("no address is allowed")
	}
}

// site is a server on one loopback address, under the names that the resolver knows.
type site struct {
	*httptest.Server
	port string
	ran  atomic.Int64
	last atomic.Pointer[http.Request]
}

func newSite(t *testing.T, address string, h http.HandlerFunc) *site {
	t.Helper()
	lis, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	s := new(site)
	s.Server = &httptest.Server{Listener: lis, Config: &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.ran.Add(1)
		s.last.Store(r.Clone(context.Background()))
		w.Header().Set("Connection", "close") // each fetch resolves anew
		h(w, r)
	}), ReadHeaderTimeout: 5 * time.Second}}
	s.Start()
	t.Cleanup(s.Close)
	_, s.port, _ = net.SplitHostPort(lis.Addr().String())
	return s
}

func text(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain")
	io.WriteString(w, "hello")
}

// addresses resolves each name to its addresses, and the others to none.
func addresses(names map[string]string) func(string, int) []netip.Addr {
	return func(name string, _ int) (out []netip.Addr) {
		for a := range strings.FieldsSeq(names[name]) {
			out = append(out, netip.MustParseAddr(a))
		}
		return out
	}
}

var ours = []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}

func fetch(t *testing.T, g *egress.Guard, raw string) (*http.Response, guard.Decision) {
	t.Helper()
	res, d, err := g.Fetch(t.Context(), "GET", raw, nil)
	if err != nil {
		t.Fatalf("%s: %v", raw, err)
	}
	if res != nil {
		t.Cleanup(func() { res.Body.Close() })
	}
	return res, d
}

// A name that resolves to a public address when it is checked, and to one inside when it is
// dialled, gains nothing: there is one resolution, and what it gave is what is checked.
func TestNameThatRebindsReachesNothingInside(t *testing.T) {
	outside := newSite(t, "127.0.0.1:0", text)
	inside := newSite(t, "127.0.0.2:"+outside.port, text)
	var asked atomic.Int64
	g := newGuard(t, egress.Policy{
		Hosts: []string{"rebind.test:" + outside.port}, MaxBytes: 100, DangerouslyAllowNetworks: ours,
		Resolver: egresstest.Resolver(t, func(_ string, version int) []netip.Addr {
			if version == 4 && asked.Add(1)%2 == 0 {
				return []netip.Addr{netip.MustParseAddr("127.0.0.2")}
			}
			return []netip.Addr{netip.MustParseAddr("127.0.0.1")}
		}),
	})
	for i := range 6 {
		res, d := fetch(t, g, "http://rebind.test:"+outside.port+"/")
		if refused := i%2 == 1; d.Denied() != refused || refused && d.Reason != guard.EgressAddressNotAllowed {
			t.Fatalf("fetch %d: %+v", i, d)
		} else if !refused {
			io.Copy(io.Discard, res.Body)
			res.Body.Close()
		}
	}
	if outside.ran.Load() != 3 || inside.ran.Load() != 0 {
		t.Errorf("outside saw %d requests, inside %d", outside.ran.Load(), inside.ran.Load())
	}
}

func TestListedNameOfAnAddressThatIsNotPublic(t *testing.T) {
	for _, a := range []string{"127.0.0.1", "10.0.0.1", "169.254.169.254", "0.0.0.0", "192.168.1.1", "100.64.0.1", "::ffff:127.0.0.1", "::ffff:169.254.169.254", "::1", "fd00:ec2::254", "64:ff9b::7f00:1", "10.0.0.1 192.168.0.1"} {
		g := newGuard(t, egress.Policy{Hosts: []string{"inside.test"}, MaxBytes: 100, Resolver: egresstest.Resolver(t, addresses(map[string]string{"inside.test": a}))})
		res, d, err := g.Fetch(t.Context(), "GET", "http://inside.test/", nil)
		if res != nil || err == nil && d.Reason != guard.EgressAddressNotAllowed || err != nil && !strings.Contains(a, ":") {
			t.Errorf("%s: %v, %+v, %v", a, res, d, err)
		}
	}
}

// A network of one's own is only ever asked for an address that is allowed.
func TestOwnNetworkIsGivenAllowedAddressesOnly(t *testing.T) {
	s := newSite(t, "127.0.0.1:0", text)
	var dialled []string
	g := newGuard(t, egress.Policy{
		Hosts: []string{"a.test", "inside.test", "mixed.test", "down.test", "nowhere.test"}, MaxBytes: 100,
		DangerouslyAllowNetworks: []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24")},
		Resolver: egresstest.Resolver(t, addresses(map[string]string{
			"a.test": "203.0.113.1", "inside.test": "169.254.169.254 10.0.0.5", "mixed.test": "10.0.0.5 203.0.113.1", "down.test": "203.0.113.9 203.0.113.1",
		})),
		Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
			dialled = append(dialled, address)
			if address == "203.0.113.9:80" {
				return nil, errors.New("down")
			}
			var d net.Dialer
			return d.DialContext(ctx, network, "127.0.0.1:"+s.port)
		},
	})
	for _, x := range []struct {
		host   string
		reason guard.Reason
		fails  bool
		want   []string
	}{
		{host: "a.test", want: []string{"203.0.113.1:80"}},
		{host: "inside.test", reason: guard.EgressAddressNotAllowed},
		{host: "mixed.test", want: []string{"203.0.113.1:80"}},
		{host: "down.test", want: []string{"203.0.113.9:80", "203.0.113.1:80"}},
		{host: "nowhere.test", fails: true},
	} {
		dialled = nil
		g.Close() // or a connection that is idle would serve
		res, d, err := g.Fetch(t.Context(), "GET", "http://"+x.host+"/", nil)
		if res != nil {
			io.Copy(io.Discard, res.Body)
			res.Body.Close()
		}
		if d.Reason != x.reason || (err != nil) != x.fails || !slices.Equal(dialled, x.want) {
			t.Errorf("%s: %+v, %v, dialled %v; want %v", x.host, d, err, dialled, x.want)
		}
	}
}

func TestRedirectsAreCheckedFromScratch(t *testing.T) {
	s := newSite(t, "127.0.0.1:0", func(w http.ResponseWriter, r *http.Request) {
		if to := r.URL.Query().Get("to"); to != "" {
			w.Header().Set("Location", to)
			w.WriteHeader(http.StatusFound)
			return
		}
		text(w, r)
	})
	inside := newSite(t, "127.0.0.2:"+s.port, text)
	g := newGuard(t, egress.Policy{
		Hosts: []string{"a.test:" + s.port, "b.test:" + s.port, "inside.test:" + s.port}, MaxBytes: 100, Redirects: 2, DangerouslyAllowNetworks: ours,
		Resolver: egresstest.Resolver(t, addresses(map[string]string{"a.test": "127.0.0.1", "b.test": "127.0.0.1", "inside.test": "127.0.0.2", "evil.test": "127.0.0.1"})),
	})
	a, b := "http://a.test:"+s.port, "http://b.test:"+s.port
	to := func(target string) string { return a + "/?to=" + url.QueryEscape(target) }
	for _, target := range []string{"/plain", "plain", b + "/", "//b.test:" + s.port + "/", b + "/?to=" + url.QueryEscape(a+"/")} {
		res, d := fetch(t, g, to(target))
		if d.Denied() {
			t.Errorf("to %s: %+v", target, d)
		} else if body, err := io.ReadAll(res.Body); string(body) != "hello" || err != nil {
			t.Errorf("to %s: %q, %v", target, body, err)
		}
	}
	for target, reason := range map[string]guard.Reason{
		"":                                     0, // not a redirect
		"http://169.254.169.254/latest/":       guard.EgressNotAllowed,
		"http://localhost:" + s.port:           guard.EgressNotAllowed,
		"http://127.0.0.1:" + s.port:           guard.EgressNotAllowed,
		"http://[::ffff:127.0.0.1]:" + s.port:  guard.EgressNotAllowed,
		"http://0x7f.1:" + s.port:              guard.EgressNotAllowed,
		"http://2130706433:" + s.port:          guard.EgressNotAllowed,
		"http://evil.test:" + s.port:           guard.EgressNotAllowed,
		"http://user@b.test:" + s.port:         guard.EgressNotAllowed,
		"//evil.test/":                         guard.EgressNotAllowed,
		`\\evil.test/`:                         guard.EgressNotAllowed,
		"file:///etc/passwd":                   guard.EgressNotAllowed,
		"http://a.test/":                       guard.EgressNotAllowed, // another port
		"http://inside.test:" + s.port:         guard.EgressAddressNotAllowed,
		b + "/?to=" + url.QueryEscape(to("/")): guard.EgressNotAllowed, // one too many
	} {
		if _, d := fetch(t, g, to(target)); d.Reason != reason {
			t.Errorf("to %q: %+v", target, d)
		}
	}
	if n := inside.ran.Load(); n != 0 {
		t.Errorf("inside saw %d requests", n)
	}
}

func TestNothingOfTheCallerGoesOutAndOnlyContentComesBack(t *testing.T) {
	t.Setenv("HTTP_PROXY", "http://127.0.0.1:1") // nobody is there
	t.Setenv("http_proxy", "http://127.0.0.1:1")
	s := newSite(t, "127.0.0.1:0", func(w http.ResponseWriter, r *http.Request) {
		for k, v := range map[string]string{
			"Set-Cookie": "a=b", "Location": "/x", "Access-Control-Allow-Origin": "*", "Content-Security-Policy": "script-src *", "Refresh": "0;url=//evil", "Link": "<x>",
			"Etag": `"1"`, "Last-Modified": "Mon, 01 Jun 2026 12:00:00 GMT", "Cache-Control": "max-age=60", "Content-Type": "text/plain", "Trailer": "X-T", "Service-Worker-Allowed": "/",
		} {
			w.Header().Set(k, v)
		}
		io.WriteString(w, "hello")
		w.Header().Set("X-T", "1")
	})
	g := newGuard(t, egress.Policy{
		Hosts: []string{"a.test:" + s.port}, MaxBytes: 5, DangerouslyAllowNetworks: ours, Resolver: egresstest.Resolver(t, addresses(map[string]string{"a.test": "127.0.0.1"})),
	})
	res, d, err := g.Fetch(t.Context(), "GET", "http://a.test:"+s.port+"/x", http.Header{
		"Accept": {"text/plain"}, "Accept-Language": {"de"}, "Authorization": {"Bearer x"}, "Cookie": {"a=b"}, "Origin": {"https://app.example"}, "Referer": {"x"}, "X-Forwarded-For": {"192.0.2.1"},
	})
	if err != nil || d.Denied() {
		t.Fatal(err, d)
	}
	defer res.Body.Close()
	if body, rErr := io.ReadAll(res.Body); string(body) != "hello" || rErr != nil {
		t.Errorf("body %q, %v", body, rErr)
	}
	want := http.Header{
		"Content-Type": {"text/plain"}, "Etag": {`"1"`}, "Last-Modified": {"Mon, 01 Jun 2026 12:00:00 GMT"}, "Cache-Control": {"max-age=60"},
		"X-Content-Type-Options": {"nosniff"}, "Content-Security-Policy": {"sandbox; default-src 'none'"},
	}
	if fmt.Sprint(res.Header) != fmt.Sprint(want) || res.Trailer != nil {
		t.Errorf("came back: %v, trailer %v", res.Header, res.Trailer)
	}
	sent := http.Header{"Accept": {"text/plain"}, "Accept-Language": {"de"}, "Accept-Encoding": {"identity"}, "User-Agent": {"moat"}}
	if got := s.last.Load(); fmt.Sprint(got.Header) != fmt.Sprint(sent) || got.Host != "a.test:"+s.port {
		t.Errorf("went out: %s %v", got.Host, got.Header)
	}
}

func TestAnswersAreBounded(t *testing.T) {
	s := newSite(t, "127.0.0.1:0", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", r.URL.Query().Get("type"))
		switch r.URL.Path {
		case "/declared":
			w.Header().Set("Content-Length", "11")
			io.WriteString(w, "hello world")
		case "/streamed":
			http.NewResponseController(w).Flush()
			io.WriteString(w, "hello world")
		case "/encoded":
			w.Header().Set("Content-Encoding", "gzip")
		case "/missing":
			w.WriteHeader(http.StatusNotFound)
			io.WriteString(w, "<h1>x</h1>")
		case "/slow":
			http.NewResponseController(w).Flush()
			<-r.Context().Done()
		default:
			io.WriteString(w, "0123456789")
		}
	})
	base := "http://a.test:" + s.port
	policy := egress.Policy{
		Hosts: []string{"a.test:" + s.port}, MaxBytes: 10, Timeout: 10 * time.Second, DangerouslyAllowNetworks: ours, Resolver: egresstest.Resolver(t, addresses(map[string]string{"a.test": "127.0.0.1"})),
	}
	g := newGuard(t, policy)
	for path, reason := range map[string]guard.Reason{
		"/exact?type=text/plain": 0, "/exact?type=TEXT/plain%3Bcharset=utf-8": 0, "/exact?type=application/json": 0, "/exact?type=image/png": 0,
		"/exact?type=text/html": guard.EgressNotAllowed, "/exact?type=image/svg%2Bxml": guard.EgressNotAllowed, "/exact?type=nonsense": guard.EgressNotAllowed, "/exact?type=text/plain,text/html": guard.EgressNotAllowed,
		"/declared?type=text/plain": guard.EgressTooLarge, "/encoded?type=text/plain": guard.UpstreamBadResponse,
	} {
		if _, d := fetch(t, g, base+path); d.Reason != reason {
			t.Errorf("%s: %+v", path, d)
		}
	}
	res, _ := fetch(t, g, base+"/exact?type=text/plain")
	if body, err := io.ReadAll(res.Body); len(body) != 10 || err != nil {
		t.Errorf("a body of the bound's size: %q, %v", body, err)
	}
	res, _ = fetch(t, g, base+"/streamed?type=text/plain")
	var tooLarge *egress.TooLargeError
	if body, err := io.ReadAll(res.Body); string(body) != "hello worl" || !errors.As(err, &tooLarge) {
		t.Errorf("a body beyond the bound: %q, %v", body, err)
	}
	// An error page of a type that is not passed is a status and nothing else.
	res, _ = fetch(t, g, base+"/missing?type=text/html")
	if body, err := io.ReadAll(res.Body); res.StatusCode != 404 || len(body) != 0 || err != nil || res.Header.Get("Content-Type") != "" {
		t.Errorf("an error page: %d %q, %v", res.StatusCode, body, err)
	}
	if _, d, err := g.Fetch(t.Context(), "POST", base+"/exact?type=text/plain", nil); d.Reason != guard.MethodNotAllowed || err != nil {
		t.Errorf("POST: %+v, %v", d, err)
	}
	policy.Timeout = 100 * time.Millisecond
	res, _ = fetch(t, newGuard(t, policy), base+"/slow?type=text/plain")
	if body, err := io.ReadAll(res.Body); len(body) != 0 || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a body that does not end: %q, %v", body, err)
	}
}

func TestHandler(t *testing.T) {
	s := newSite(t, "127.0.0.1:0", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
		http.NewResponseController(w).Flush()
		io.WriteString(w, r.URL.RawQuery)
	})
	g := newGuard(t, egress.Policy{
		Hosts: []string{"a.test:" + s.port, "gone.test"}, MaxBytes: 5, DangerouslyAllowNetworks: ours, Resolver: egresstest.Resolver(t, addresses(map[string]string{"a.test": "127.0.0.1"})),
	})
	gate := httptest.NewServer(g.Handler("url"))
	defer gate.Close()
	for target, want := range map[string]string{
		"http://a.test:" + s.port + "/?hello":  "200 hello",
		"http://a.test:" + s.port + "/?hello!": "broken",
		"http://evil.test/":                    "403 ",
		"http://gone.test/":                    "502 ",
	} {
		got := "broken"
		if res, err := http.Get(gate.URL + "/?url=" + url.QueryEscape(target)); err == nil {
			if body, rErr := io.ReadAll(res.Body); rErr == nil {
				got = fmt.Sprint(res.StatusCode, " ", string(body))
			}
			res.Body.Close()
		}
		if !strings.HasPrefix(got, want) {
			t.Errorf("%s: %s, want %s", target, got, want)
		}
	}
}

// Whatever a caller writes, the gate asks listed hosts only, by a URL that every parser reads
// the same.
func FuzzDecide(f *testing.F) {
	for _, s := range []string{
		"https://api.example/a?b#c", "http://x.wiki.example:80/", "https://odd.example:8443", "https://api.example@evil.example/", "https://evil.example\\@api.example", "http://[::ffff:127.0.0.1]/",
		"http://0x7f.1/", "https://api.example%00.evil/", "https://ａｐｉ。example/", "//api.example/", "https://api.example:443:80/", "https://BÜCHER.example/ü?ü",
	} {
		f.Add(s)
	}
	g := newGuard(f, egress.Policy{Hosts: []string{"api.example", "*.wiki.example", "odd.example:8443", "bücher.example"}})
	f.Fuzz(func(t *testing.T, raw string) {
		u, d := g.Decide(raw)
		if d.Denied() {
			return
		}
		again, err := url.Parse(u.String())
		if err != nil || again.Host != u.Host || again.User != nil || again.RequestURI() != u.RequestURI() || again.Fragment != "" {
			t.Fatalf("%q: %q is read as %v, %v", raw, u, again, err)
		}
		label, rest, _ := strings.Cut(u.Host, ".")
		wiki := rest == "wiki.example" && strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-_") == "" && label != ""
		if !wiki && u.Host != "api.example" && u.Host != "odd.example:8443" && u.Host != "xn--bcher-kva.example" {
			t.Fatalf("%q: host %q", raw, u.Host)
		}
		if u.Scheme != "http" && u.Scheme != "https" || strings.ContainsFunc(u.RequestURI(), func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
			t.Fatalf("%q: %q", raw, u)
		}
		if other, d2 := g.Decide(u.String()); d2.Denied() || other.String() != u.String() {
			t.Fatalf("%q: %q is refused, or another one: %v %+v", raw, u, other, d2)
		}
	})
}

func ExampleGuard_Fetch() {
	g, err := egress.New(egress.Policy{Hosts: []string{"*.wikipedia.org"}, MaxBytes: 1 << 20, Redirects: 3})
	if err != nil {
		panic(err)
	}
	_, d, _ := g.Fetch(context.Background(), http.MethodGet, "http://169.254.169.254/latest/meta-data/", nil)
	fmt.Println(d.Reason)
	// Output: egress-not-allowed
}

// Public allows nothing that Go knows to be special, and no second form of an address.
func FuzzPublic(f *testing.F) {
	for _, s := range []string{"8.8.8.8", "127.0.0.1", "2606:4700::1", "::ffff:8.8.8.8", "fe80::1"} {
		f.Add(netip.MustParseAddr(s).AsSlice())
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		a, ok := netip.AddrFromSlice(b)
		if !ok || !egress.Public(a) {
			return
		}
		if !a.IsGlobalUnicast() || a.IsPrivate() || a.IsLoopback() || a.IsLinkLocalUnicast() || a.IsMulticast() || a.IsUnspecified() || a.Is4In6() {
			t.Fatalf("%s is public", a)
		}
		if a.Is4() && egress.Public(netip.AddrFrom16(a.As16())) {
			t.Fatalf("%s is public as an IPv6 address, too", a)
		}
	})
}
