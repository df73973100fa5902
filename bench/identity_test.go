package bench

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-jose/go-jose/v4"
	josejwt "github.com/go-jose/go-jose/v4/jwt"
	"github.com/golang-jwt/jwt/v5"
	"github.com/lestrrat-go/jwx/v3/jwk"
	jwxjwt "github.com/lestrrat-go/jwx/v3/jwt"

	moatjwt "github.com/moat-gateway/moat/guard/identity/jwt"
)

const (
	tokenIssuer   = "https://login.example.com/realms/shop"
	tokenAudience = "https://api.example.com"
	keyID         = "2026-11"
)

// signingKey is an issuer's key.
type signingKey struct {
	algorithm jose.SignatureAlgorithm
	private   any
	public    any // the same where it is a secret
}

func signingKeys(t testing.TB) []signingKey {
	t.Helper()
	secret := make([]byte, 32)
	if _, err := rand.Read(secret); err != nil {
		t.Fatal(err)
	}
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rs, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return []signingKey{{jose.HS256, secret, secret}, {jose.ES256, ec, &ec.PublicKey}, {jose.RS256, rs, &rs.PublicKey}}
}

func (k signingKey) set() jose.JSONWebKeySet {
	return jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: k.public, KeyID: keyID, Algorithm: string(k.algorithm), Use: "sig"}}}
}

// sign makes a token like those of a large open-source identity provider, some 900 bytes of it.
func (k signingKey) sign(t testing.TB, change func(map[string]any)) string {
	t.Helper()
	claims := map[string]any{
		"iss": tokenIssuer, "aud": []string{tokenAudience, "account"}, "sub": "f3b2c1d0-6a55-4c0e-9d6e-0d1c2b3a4958",
		"iat": time.Now().Unix(), "exp": time.Now().Add(time.Hour).Unix(), "jti": rand.Text(), "typ": "Bearer", "azp": "shop-web",
		"scope": "openid profile email orders:read", "email": "alice@example.com", "email_verified": true, "name": "Alice Example",
		"realm_access": map[string]any{"roles": []string{"offline_access", "customer", "uma_authorization"}},
	}
	if change != nil {
		change(claims)
	}
	payload, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	s, err := jose.NewSigner(jose.SigningKey{Algorithm: k.algorithm, Key: k.private}, new(jose.SignerOptions).WithType("JWT").WithHeader("kid", keyID))
	if err != nil {
		t.Fatal(err)
	}
	object, err := s.Sign(payload)
	if err != nil {
		t.Fatal(err)
	}
	text, err := object.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// verifiers are the contestants: each says whose token it is, if the issuer has signed it for
// this audience and it has not expired. All look up the key by its kid.
func verifiers(t testing.TB, k signingKey) map[string]func(string) (sub string, err error) {
	t.Helper()
	all := map[string]func(string) (string, error){
		"moat":       warmMoat(t, k),
		"golang-jwt": golangVerifier(k),
		"go-jose":    joseVerifier(k),
		"jwx":        jwxVerifier(t, k),
	}
	if k.algorithm != jose.HS256 { // an ID token's key set is one of public keys
		all["go-oidc"] = oidcVerifier(k)
	}
	return all
}

func newMoatVerifier(t testing.TB, k signingKey) *moatjwt.Verifier {
	t.Helper()
	is := moatjwt.Issuer{
		Source: "login", Issuer: tokenIssuer, Audiences: []string{tokenAudience}, Algorithms: []string{string(k.algorithm)}, RolesClaim: "realm_access.roles",
	}
	if secret, ok := k.public.([]byte); ok {
		is.Secret = secret
	} else {
		var err error
		if is.JWKS, err = json.Marshal(k.set()); err != nil {
			t.Fatal(err)
		}
	}
	v, err := moatjwt.New(moatjwt.Policy{Issuers: []moatjwt.Issuer{is}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func warmMoat(t testing.TB, k signingKey) func(string) (string, error) {
	t.Helper()
	v := newMoatVerifier(t, k)
	t.Cleanup(v.Close)
	return func(text string) (string, error) {
		p, d := v.Verify(context.Background(), text, time.Now())
		if d.Denied() {
			return "", errors.New(d.Reason.String())
		}
		return p.Subject(), nil
	}
}

func golangVerifier(k signingKey) func(string) (string, error) {
	keys := map[string]any{keyID: k.public}
	parser := jwt.NewParser(
		jwt.WithValidMethods([]string{string(k.algorithm)}), jwt.WithExpirationRequired(), jwt.WithIssuer(tokenIssuer), jwt.WithAudience(tokenAudience),
	)
	return func(text string) (string, error) {
		claims := jwt.MapClaims{}
		_, err := parser.ParseWithClaims(text, claims, func(t *jwt.Token) (any, error) {
			id, ok := t.Header["kid"].(string)
			if !ok || keys[id] == nil {
				return nil, errors.New("an unknown key")
			}
			return keys[id], nil
		})
		if err != nil {
			return "", err
		}
		return claims.GetSubject()
	}
}

func joseVerifier(k signingKey) func(string) (string, error) {
	set, algorithms := k.set(), []jose.SignatureAlgorithm{k.algorithm}
	return func(text string) (string, error) {
		token, err := josejwt.ParseSigned(text, algorithms)
		if err != nil {
			return "", err
		}
		var standard josejwt.Claims
		var all map[string]any
		if err = token.Claims(&set, &standard, &all); err != nil {
			return "", err
		}
		if standard.Expiry == nil {
			return "", errors.New("no exp")
		}
		err = standard.ValidateWithLeeway(josejwt.Expected{Issuer: tokenIssuer, AnyAudience: josejwt.Audience{tokenAudience}, Time: time.Now()}, 0)
		return standard.Subject, err
	}
}

func jwxVerifier(t testing.TB, k signingKey) func(string) (string, error) {
	t.Helper()
	text, err := json.Marshal(k.set())
	if err != nil {
		t.Fatal(err)
	}
	set, err := jwk.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	options := []jwxjwt.ParseOption{
		jwxjwt.WithKeySet(set), jwxjwt.WithIssuer(tokenIssuer), jwxjwt.WithAudience(tokenAudience), jwxjwt.WithRequiredClaim("exp"),
	}
	return func(text string) (string, error) {
		token, err := jwxjwt.Parse([]byte(text), options...)
		if err != nil {
			return "", err
		}
		sub, _ := token.Subject()
		return sub, nil
	}
}

func oidcVerifier(k signingKey) func(string) (string, error) {
	set := &oidc.StaticKeySet{PublicKeys: []crypto.PublicKey{k.public}} // tries each; there is one
	v := oidc.NewVerifier(tokenIssuer, set, &oidc.Config{ClientID: tokenAudience, SupportedSigningAlgs: []string{string(k.algorithm)}})
	return func(text string) (string, error) {
		token, err := v.Verify(context.Background(), text)
		if err != nil {
			return "", err
		}
		var all map[string]any
		return token.Subject, token.Claims(&all)
	}
}

// TestVerifiersAgree holds the contestants to the same policy, before anything is measured.
func TestVerifiersAgree(t *testing.T) {
	for _, k := range signingKeys(t) {
		good := k.sign(t, nil)
		end := strings.LastIndexByte(good, '.')
		other := k.sign(t, func(c map[string]any) { c["sub"] = "mallory" })
		bad := map[string]string{
			"another's signature": good[:end] + other[strings.LastIndexByte(other, '.'):],
			"no signature":        good[:end+1],
			"another audience":    k.sign(t, func(c map[string]any) { c["aud"] = "billing" }),
			"another issuer":      k.sign(t, func(c map[string]any) { c["iss"] = "https://login.example.org" }),
			"expired":             k.sign(t, func(c map[string]any) { c["exp"] = time.Now().Add(-time.Hour).Unix() }),
			"without an end":      k.sign(t, func(c map[string]any) { delete(c, "exp") }),
		}
		for name, verify := range verifiers(t, k) {
			for range 2 { // ours remembers
				if sub, err := verify(good); err != nil || !strings.HasPrefix(sub, "f3b2") {
					t.Errorf("%s %s: %q, %v", k.algorithm, name, sub, err)
				}
				for fault, text := range bad {
					if sub, err := verify(text); err == nil {
						t.Errorf("%s %s: %s passes as %s", k.algorithm, name, fault, sub)
					}
				}
			}
		}
	}
}

// BenchmarkTokens verifies one token. The peers remember none, so that to them each is as the first: ours
// stands there twice, with tokens that it has seen before (warm) and with those that it has not (cold). Beside
// the signature all read every claim, and check issuer, audience and expiry.
func BenchmarkTokens(b *testing.B) {
	for _, k := range signingKeys(b) {
		texts := make([]string, 256)
		for i := range texts {
			texts[i] = k.sign(b, func(c map[string]any) { c["sub"] = "user-" + strconv.Itoa(i) })
		}
		all := verifiers(b, k)
		for _, name := range []string{"moat", "golang-jwt", "go-jose", "jwx", "go-oidc"} {
			verify := all[name]
			if verify == nil {
				continue
			}
			label := name
			if name == "moat" {
				label = "moat/warm"
			}
			b.Run(string(k.algorithm)+"/"+label, func(b *testing.B) { benchVerify(b, texts, verify) })
		}
		b.Run(string(k.algorithm)+"/moat/cold", func(b *testing.B) { benchMoatCold(b, k, texts) })
	}
}

func benchVerify(b *testing.B, texts []string, verify func(string) (string, error)) {
	for _, text := range texts {
		if _, err := verify(text); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if _, err := verify(texts[i%len(texts)]); err != nil {
			b.Fatal(err)
		}
	}
}

func benchMoatCold(b *testing.B, k signingKey, texts []string) {
	var v *moatjwt.Verifier
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if i%len(texts) == 0 { // one that remembers nothing
			b.StopTimer()
			if v != nil {
				v.Close()
			}
			v = newMoatVerifier(b, k)
			b.StartTimer()
		}
		if _, d := v.Verify(b.Context(), texts[i%len(texts)], time.Now()); d.Denied() {
			b.Fatal(d.Reason)
		}
	}
	v.Close()
}
