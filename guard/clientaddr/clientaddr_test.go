package clientaddr_test

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	"github.com/moat-gateway/moat/guard/clientaddr"
)

func behind(t testing.TB, header clientaddr.Header, proxies ...string) *clientaddr.Guard {
	t.Helper()
	trust := clientaddr.Trust{Header: header}
	for _, p := range proxies {
		trust.Proxies = append(trust.Proxies, netip.MustParsePrefix(p))
	}
	g, err := clientaddr.New(trust)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func from(remote string, headers ...string) *http.Request {
	r := httptest.NewRequest("GET", "https://api.example.com/", nil)
	r.RemoteAddr = remote
	for i := 0; i < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	return r
}

func TestDecide(t *testing.T) {
	const xff = "X-Forwarded-For"
	direct := &clientaddr.Guard{}
	one := behind(t, clientaddr.XForwardedFor, "10.0.0.0/8", "fd00::/8")
	rfc := behind(t, clientaddr.Forwarded, "10.0.0.0/8")
	for _, c := range []struct {
		name string
		g    *clientaddr.Guard
		r    *http.Request
		want string
		deny bool
	}{
		{"nobody is trusted", direct, from("192.0.2.1:99", xff, "1.1.1.1"), "192.0.2.1", false},
		{"IPv6 peer", direct, from("[2001:db8::1]:99"), "2001:db8::1", false},
		{"zone is dropped", direct, from("[fe80::1%eth0]:99"), "fe80::1", false},
		{"IPv4 mapped", direct, from("[::ffff:192.0.2.1]:99"), "192.0.2.1", false},
		{"no address", direct, from("@"), "invalid IP", true},
		{"an untrusted peer says what it likes", one, from("192.0.2.1:99", xff, "10.0.0.1, 1.1.1.1"), "192.0.2.1", false},
		{"one proxy", one, from("10.0.0.1:99", xff, "1.1.1.1"), "1.1.1.1", false},
		{"the left is the client's invention", one, from("10.0.0.1:99", xff, "6.6.6.6, 1.1.1.1"), "1.1.1.1", false},
		{"two proxies", one, from("10.0.0.1:99", xff, "6.6.6.6, 1.1.1.1, 10.0.0.2"), "1.1.1.1", false},
		{"several lines are one list", one, from("10.0.0.1:99", xff, "6.6.6.6", xff, "1.1.1.1", xff, "10.0.0.2"), "1.1.1.1", false},
		{"proxies only", one, from("10.0.0.1:99", xff, "10.0.0.3, 10.0.0.2"), "10.0.0.3", false},
		{"no header", one, from("10.0.0.1:99"), "10.0.0.1", false},
		{"empty elements", one, from("10.0.0.1:99", xff, " , 1.1.1.1 ,, "), "1.1.1.1", false},
		{"port", one, from("10.0.0.1:99", xff, "1.1.1.1:4711"), "1.1.1.1", false},
		{"IPv6", one, from("10.0.0.1:99", xff, "2001:db8::7"), "2001:db8::7", false},
		{"IPv6 in brackets", one, from("10.0.0.1:99", xff, "[2001:db8::7]"), "2001:db8::7", false},
		{"IPv6 and port", one, from("[fd00::1]:99", xff, "[2001:db8::7]:443"), "2001:db8::7", false},
		{"mapped client", one, from("10.0.0.1:99", xff, "::ffff:1.1.1.1"), "1.1.1.1", false},
		{"mapped proxy", one, from("10.0.0.1:99", xff, "1.1.1.1, ::ffff:10.0.0.2"), "1.1.1.1", false},
		{"junk where it decides", one, from("10.0.0.1:99", xff, "1.1.1.1, unknown"), "10.0.0.1", true},
		{"junk farther left", one, from("10.0.0.1:99", xff, "<script>, 1.1.1.1"), "1.1.1.1", false},
		{"junk behind a proxy", one, from("10.0.0.1:99", xff, "x, 10.0.0.2"), "10.0.0.2", true},
		{"IPv4 in brackets", one, from("10.0.0.1:99", xff, "[1.1.1.1]"), "10.0.0.1", true},
		{"leading zeros", one, from("10.0.0.1:99", xff, "1.1.1.01"), "10.0.0.1", true},
		{"the other header is not believed", one, from("10.0.0.1:99", "Forwarded", "for=1.1.1.1"), "10.0.0.1", false},
		{"huge", one, from("10.0.0.1:99", xff, strings.Repeat("6.6.6.6,", 10000)+"1.1.1.1"), "1.1.1.1", false},

		{"Forwarded", rfc, from("10.0.0.1:99", "Forwarded", `for=1.1.1.1;proto=https;by=10.0.0.1`), "1.1.1.1", false},
		{"Forwarded, IPv6", rfc, from("10.0.0.1:99", "Forwarded", `For="[2001:db8::7]:4711"`), "2001:db8::7", false},
		{"Forwarded, list", rfc, from("10.0.0.1:99", "Forwarded", `for=6.6.6.6, for=1.1.1.1, for=10.0.0.9`), "1.1.1.1", false},
		{"Forwarded, quoted comma", rfc, from("10.0.0.1:99", "Forwarded", `for=1.1.1.1;host="a,for=6.6.6.6"`), "1.1.1.1", false},
		{"Forwarded, obfuscated", rfc, from("10.0.0.1:99", "Forwarded", `for=_hidden`), "10.0.0.1", true},
		{"Forwarded, unknown", rfc, from("10.0.0.1:99", "Forwarded", `for=unknown`), "10.0.0.1", true},
		{"Forwarded, twice", rfc, from("10.0.0.1:99", "Forwarded", `for=1.1.1.1;for=6.6.6.6`), "10.0.0.1", true},
		{"Forwarded, none", rfc, from("10.0.0.1:99", "Forwarded", `proto=https`), "10.0.0.1", true},
		{"Forwarded, X-Forwarded-For is not believed", rfc, from("10.0.0.1:99", xff, "1.1.1.1"), "10.0.0.1", false},
	} {
		addr, d := c.g.Decide(c.r)
		if addr.String() != c.want || d.Denied() != c.deny {
			t.Errorf("%s: %s %s, want %s", c.name, addr, d.Reason, c.want)
		}
	}
}

func TestForwardedHost(t *testing.T) {
	g, rfc := behind(t, clientaddr.XForwardedFor, "10.0.0.0/8"), behind(t, clientaddr.Forwarded, "10.0.0.0/8")
	sets, err := clientaddr.New(clientaddr.Trust{Proxies: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}, Header: clientaddr.XForwardedFor, Host: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		g    *clientaddr.Guard
		r    *http.Request
		want string
	}{
		// A proxy that only appends the address passes on what the client wrote.
		{g, from("10.0.0.1:9", "X-Forwarded-Host", "admin.example.com"), ""},
		{sets, from("10.0.0.1:9", "X-Forwarded-Host", "api.example.com"), "api.example.com"},
		{sets, from("192.0.2.1:9", "X-Forwarded-Host", "api.example.com"), ""},
		{sets, from("10.0.0.1:9", "X-Forwarded-Host", "evil.test, api.example.com"), "api.example.com"},
		{rfc, from("10.0.0.1:9", "Forwarded", `for=1.1.1.1;host="api.example.com"`, "X-Forwarded-Host", "evil.test"), "api.example.com"},
		{rfc, from("10.0.0.1:9", "Forwarded", `for=6.6.6.6;host=evil.test, for=1.1.1.1`), ""},
		{rfc, from("192.0.2.1:9", "Forwarded", `for=1.1.1.1;host=evil.test`), ""},
	} {
		if got := c.g.ForwardedHost(c.r); got != c.want {
			t.Errorf("%v: %q, want %q", c.r.Header, got, c.want)
		}
	}
}

func TestNewRefusesEverybody(t *testing.T) {
	for _, p := range []string{"0.0.0.0/0", "::/0"} {
		if _, err := clientaddr.New(clientaddr.Trust{Proxies: []netip.Prefix{netip.MustParsePrefix(p)}, Header: clientaddr.XForwardedFor}); err == nil {
			t.Errorf("trusting %s was accepted", p)
		}
	}
	if _, err := clientaddr.New(clientaddr.Trust{Proxies: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}, Header: "X-Real-IP"}); err == nil {
		t.Error("a header that proxies do not append to was accepted")
	}
}

func TestHandlerSetsRemoteAddr(t *testing.T) {
	var got string
	h := behind(t, clientaddr.XForwardedFor, "10.0.0.0/8").Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got = r.RemoteAddr }))
	h.ServeHTTP(httptest.NewRecorder(), from("10.0.0.1:99", "X-Forwarded-For", "2001:db8::7"))
	if got != "[2001:db8::7]:0" {
		t.Errorf("RemoteAddr %q", got)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, from("10.0.0.1:99", "X-Forwarded-For", "junk"))
	if w.Code != http.StatusBadRequest {
		t.Errorf("junk: %d", w.Code)
	}
}

// What an untrusted client writes to the left never changes the answer.
func FuzzForwardedFor(f *testing.F) {
	f.Add("6.6.6.6", "1.1.1.1")
	f.Add(`",`, "[2001:db8::7]:443")
	f.Add("a\",\"", "unknown")
	xff, fwd := behind(f, clientaddr.XForwardedFor, "10.0.0.0/8"), behind(f, clientaddr.Forwarded, "10.0.0.0/8")
	f.Fuzz(func(t *testing.T, client, appended string) {
		if strings.ContainsAny(appended, `,";`) || strings.Trim(appended, " \t") == "" {
			return // a proxy appends one element
		}
		want, wantD := xff.Decide(from("10.0.0.1:9", "X-Forwarded-For", appended))
		if want.IsValid() && strings.HasPrefix(want.String(), "10.") {
			return // the proxy named another proxy: the next element rightly counts
		}
		if got, d := xff.Decide(from("10.0.0.1:9", "X-Forwarded-For", client+","+appended)); got != want || d.Denied() != wantD.Denied() {
			t.Fatalf("%q before %q: %s, want %s", client, appended, got, want)
		}
		if got, d := fwd.Decide(from("10.0.0.1:9", "Forwarded", client, "Forwarded", "for="+appended)); !d.Denied() && !wantD.Denied() && got != want {
			t.Fatalf("Forwarded: %q before %q: %s, want %s", client, appended, got, want)
		}
	})
}
