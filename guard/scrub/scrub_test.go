package scrub_test

import (
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/moat-gateway/moat/guard"
	"github.com/moat-gateway/moat/guard/scrub"
	"github.com/moat-gateway/moat/web"
)

func TestForged(t *testing.T) {
	g := scrub.New([]string{"X-Gate-Proof", "X-Mine-*"}, []string{"X-User-Id", "X-Forwarded-Prefix"})
	for _, n := range []string{
		// The names of 2026's advisories, and how they were spelt to get past.
		"X-Forwarded-Uri", "X-Forwarded-For", "X_Forwarded_For", "x.forwarded.for", "X-Forwarded_Host", "X-FORWARDED-PROTO",
		"Forwarded", "FORWARDED", "X-Real-Ip", "X_Real_IP", "X.Real.IP", "X-Authenticated-User", "X.Authenticated.User", "X_authenticated-user",
		"Remote-User", "REMOTE_USER", "X-Original-Url", "X-Rewrite-Url", "X-Auth-Request-Email", "Cf-Connecting-Ip", "True-Client-Ip",
		"X-Goog-Iap-Jwt-Assertion", "X-Amzn-Oidc-Identity", "X-Ms-Client-Principal-Id", "X-Client-Cert-Chain", "Ssl-Client-Verify", "Proxy", "Moat-Anything",
		"X-Gate-Proof", "x_gate_proof", "x-gate~proof", "X-Mine-Too", "X~Real~Ip", "x!forwarded!for", "Client-Cert", "Cf-Access-Jwt-Assertion",
	} {
		if !g.Forged(n) {
			t.Errorf("a client may send %s", n)
		}
	}
	for _, n := range []string{
		"", "Accept", "Authorization", "Cookie", "Origin", "Content-Type", "User-Agent", "Sec-Fetch-Site", "X-Request-Id", "X-Requested-With",
		"X-Csrf-Token", "X-Auth-Token", "X-Api-Key", "X-User-Agent", "X-Gate", "Traceparent", "Referer", "Range", "If-Match",
		"X-User-Id", "x_user_id", "X-Forwarded-Prefix", "X-Forward", "Xforwardedfor", strings.Repeat("X", 1000),
	} {
		if g.Forged(n) {
			t.Errorf("a client may not send %s", n)
		}
	}
	if !g.Forged("X-Forwarded-" + strings.Repeat("a", 1000)) {
		t.Error("a long name gets past")
	}
}

func TestHandlerRemovesFromHeaderAndTrailer(t *testing.T) {
	var got http.Header
	h := scrub.New(nil, nil).Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		got = r.Header.Clone()
		maps.Copy(got, r.Trailer)
	}))
	r := httptest.NewRequest("POST", "/", strings.NewReader("x"))
	r.Header.Set("X-Forwarded-For", "1.1.1.1")
	r.Header["x_real_ip"] = []string{"1.1.1.1"}
	r.Header.Set("Accept", "*/*")
	r.Trailer = http.Header{"Remote-User": nil, "Checksum": nil}
	h.ServeHTTP(httptest.NewRecorder(), r)
	if names := slices.Sorted(maps.Keys(got)); !slices.Equal(names, []string{"Accept", "Checksum"}) {
		t.Errorf("arrived: %v", names)
	}
	if r.Header.Get("X-Forwarded-For") == "" {
		t.Error("the caller's header map was changed")
	}
}

func TestDecide(t *testing.T) {
	g := scrub.New(nil, nil)
	r := httptest.NewRequest("GET", "/", nil)
	if d := g.Decide(r); d.Outcome != guard.Allow {
		t.Errorf("nothing forged: %s", d.Outcome)
	}
	r.Header.Set("X-Real-Ip", "1.1.1.1")
	if d := g.Decide(r); d.Outcome != guard.Amend || d.Reason != guard.ScrubForgedHeader || d.Evidence.Got != "X-Real-Ip" {
		t.Errorf("%+v", d)
	}
}

func TestHopByHop(t *testing.T) {
	h := http.Header{
		"Connection": {"keep-alive, X-Debug, Upgrade", "Authorization, cookie, origin, content-length"}, "Keep-Alive": {"timeout=5"}, "X-Debug": {"1"},
		"Authorization": {"Bearer x"}, "Cookie": {"a=b"}, "Origin": {"https://app.example"}, "Content-Length": {"3"}, "Te": {"trailers, deflate"}, "Trailer": {"X"},
		"Upgrade": {"websocket"}, "Proxy-Authorization": {"Basic x"}, "Proxy-Connection": {"close"}, "Transfer-Encoding": {"chunked"}, "Accept": {"*/*"},
	}
	if up := scrub.HopByHop(h); up != "websocket" {
		t.Errorf("upgrade %q", up)
	}
	want := []string{"Accept", "Authorization", "Content-Length", "Cookie", "Origin", "Te"}
	if got := slices.Sorted(maps.Keys(h)); !slices.Equal(got, want) {
		t.Errorf("left: %v, want %v", got, want)
	}
	if h.Get("Te") != "trailers" {
		t.Errorf("Te: %q", h.Get("Te"))
	}
	// Without Connection: Upgrade there is no upgrade (RFC 9110 section 7.8).
	if up := scrub.HopByHop(http.Header{"Upgrade": {"websocket"}, "Te": {"deflate"}}); up != "" {
		t.Errorf("upgrade %q without Connection", up)
	}
}

func TestForgedDoesNotAllocate(t *testing.T) {
	g := scrub.New(nil, nil)
	for _, n := range []string{"X-Forwarded-For", "User-Agent", "X-Requested-With", "x_real_ip"} {
		if a := testing.AllocsPerRun(100, func() { g.Forged(n) }); a != 0 {
			t.Errorf("%s: %v allocations", n, a)
		}
	}
}

// No spelling of a forbidden name gets past.
func FuzzForged(f *testing.F) {
	f.Add("X-Forwarded-For", uint64(0b1010))
	f.Add("remote-user", ^uint64(0))
	g := scrub.New(nil, nil)
	f.Fuzz(func(t *testing.T, name string, bits uint64) {
		b := []byte(name)
		for i := range b {
			odd := bits>>(i%64)&1 == 1
			switch {
			case odd && (b[i] == '-' || b[i] == '_'):
				b[i] = '.'
			case odd && 'a' <= b[i]|0x20 && b[i]|0x20 <= 'z':
				b[i] ^= 0x20
			}
		}
		if g.Forged(name) != g.Forged(string(b)) || g.Forged(name) != g.Forged(web.FoldName(name)) {
			t.Fatalf("%q and %q are judged apart", name, b)
		}
	})
}
