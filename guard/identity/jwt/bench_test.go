package jwt_test

import (
	"crypto/rand"
	"crypto/rsa"
	"strconv"
	"testing"

	"github.com/moat-gateway/moat/guard"
	"github.com/moat-gateway/moat/guard/identity/jwt"
)

// signers are one for each way to sign, with its issuer.
func signers(b *testing.B) map[string]struct {
	signer
	jwt.Issuer
} {
	b.Helper()
	r, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		b.Fatal(err)
	}
	secret := make([]byte, 32)
	es, rs, hs := newSigner(b, "one"), signer{"one", "RS256", r, &r.PublicKey}, signer{"one", "HS256", secret, secret}
	shared, pairs := accounts(nil), accounts(jwks(b, rs))
	shared.Secret, shared.Algorithms, pairs.Algorithms = secret, []string{"HS256"}, []string{"RS256"}
	return map[string]struct {
		signer
		jwt.Issuer
	}{"ES256": {es, accounts(jwks(b, es))}, "RS256": {rs, pairs}, "HS256": {hs, shared}}
}

// some are claims as they often come: tokens of 500 to 700 bytes.
func some(n int) claims {
	return claims{
		"jti": "5b0c3d7e-" + strconv.Itoa(n), "scope": "openid profile orders:read", "client_id": "web", "azp": "web",
		"org": "acme", "name": "Alice Example", "email": "alice@acme.example", "groups": []string{"staff", "orders"}, "sid": "0c7a2f5e-93d1",
	}
}

func BenchmarkVerify(b *testing.B) {
	for name, s := range signers(b) {
		b.Run(name+"/cached", func(b *testing.B) {
			v := verifier(b, s.Issuer)
			token := s.sign(b, some(0))
			b.ReportAllocs()
			for b.Loop() {
				if _, d := v.Verify(b.Context(), token, start); d.Denied() {
					b.Fatal(told(d))
				}
			}
			b.ReportMetric(float64(len(token)), "token-bytes")
		})
		b.Run(name+"/uncached", func(b *testing.B) {
			// As many as do not fit into the least memory.
			v, err := jwt.New(jwt.Policy{Issuers: []jwt.Issuer{s.Issuer}, CacheBytes: 64 << 10}, nil)
			if err != nil {
				b.Fatal(err)
			}
			defer v.Close()
			var tokens []string
			for n := range 512 {
				tokens = append(tokens, s.sign(b, some(n)))
			}
			b.ReportAllocs()
			n := 0
			for b.Loop() {
				if _, d := v.Verify(b.Context(), tokens[n%len(tokens)], start); d.Denied() {
					b.Fatal(told(d))
				}
				n++
			}
		})
		b.Run(name+"/bad", func(b *testing.B) {
			v := verifier(b, s.Issuer)
			token := s.sign(b, some(0))
			token = token[:len(token)-8] + "AAAAAAAA"
			b.ReportAllocs()
			for b.Loop() {
				if _, d := v.Verify(b.Context(), token, start); d.Reason != guard.TokenSignatureInvalid {
					b.Fatal(told(d))
				}
			}
		})
	}
}
