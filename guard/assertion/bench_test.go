package assertion_test

import (
	"crypto"
	"net/http"
	"strconv"
	"testing"
	"time"

	"github.com/moat-gateway/moat/guard/assertion"
	"github.com/moat-gateway/moat/guard/identity"
	"github.com/moat-gateway/moat/guard/identity/assume"
)

// request is a map like that of a browser's request.
func request() http.Header {
	h := make(http.Header)
	for _, name := range []string{
		"Accept", "Accept-Encoding", "Accept-Language", "Authorization", "Cache-Control", "Content-Length", "Content-Type", "Origin", "Referer",
		"Sec-Fetch-Dest", "Sec-Fetch-Mode", "Sec-Fetch-Site", "User-Agent",
	} {
		h[name] = []string{"x"}
	}
	return h
}

// BenchmarkWarm is the cost for a caller about whom everything was said before.
func BenchmarkWarm(b *testing.B) {
	s := newSigner(b, p256(b))
	exchange := policy(func(p *assertion.TokenPolicy) { p.Header = "Authorization" })
	beside := policy(nil)
	three := headers("X-User", "sub", "X-Roles", "roles", "X-Email", "claim:email")
	all := headers("X-User", "sub", "X-Roles", "roles", "X-Email", "claim:email")
	all.Token = beside.Token
	for _, c := range []struct {
		name   string
		policy assertion.Policy
	}{{"exchange", exchange}, {"token", beside}, {"headers", three}, {"both", all}} {
		b.Run(c.name, func(b *testing.B) {
			g, p, h := newGuard(b, c.policy, s), assume.Principal(alice), request()
			b.ReportAllocs()
			for b.Loop() {
				if err := g.Set(h, p, now); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkCrowd is the cost where thousands of callers take turns, each of whom was here before.
func BenchmarkCrowd(b *testing.B) {
	for _, n := range []int{4_000, 8_000} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			g, h := newGuard(b, policy(nil), newSigner(b, p256(b))), request()
			people := make([]*identity.Principal, n)
			turn := func(i int) {
				if err := g.Set(h, people[i%n], now); err != nil {
					b.Fatal(err)
				}
			}
			for i := range people {
				people[i] = assume.Principal(alice)
				turn(i)
			}
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				turn(i)
			}
		})
	}
}

// BenchmarkCold is the cost for a caller who is new, or whose token is half through its life.
func BenchmarkCold(b *testing.B) {
	for _, c := range []struct {
		name   string
		policy assertion.Policy
		key    crypto.Signer
	}{
		{"headers", headers("X-User", "sub", "X-Roles", "roles", "X-Email", "claim:email"), p256(b)},
		{"ES256", policy(nil), p256(b)},
		{"EdDSA", policy(nil), edwards(b)},
	} {
		b.Run(c.name, func(b *testing.B) {
			g, p, h, at := newGuard(b, c.policy, newSigner(b, c.key)), assume.Principal(alice), request(), now
			b.ReportAllocs()
			for b.Loop() {
				at = at.Add(time.Hour)
				if err := g.Set(h, p, at); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
