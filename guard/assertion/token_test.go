package assertion_test

import (
	"bytes"
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"net/http"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/moat-gateway/moat/guard/assertion"
	"github.com/moat-gateway/moat/guard/identity"
	"github.com/moat-gateway/moat/guard/identity/assume"
)

const issuer = "https://api.example.com"

func p256(t testing.TB) crypto.Signer {
	t.Helper()
	k, err := assertion.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func edwards(t testing.TB) crypto.Signer {
	t.Helper()
	_, k, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func newSigner(t testing.TB, keys ...crypto.Signer) *assertion.Signer {
	t.Helper()
	s, err := assertion.NewSigner(keys, issuer)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func policy(change func(*assertion.TokenPolicy)) assertion.Policy {
	p := assertion.TokenPolicy{Header: "X-Moat-Identity", Audience: "orders"}
	if change != nil {
		change(&p)
	}
	return assertion.Policy{Token: &p}
}

// say returns the token that an upstream gets.
func say(t testing.TB, g *assertion.Guard, p *identity.Principal, at time.Time) string {
	t.Helper()
	h := make(http.Header)
	if err := g.Set(h, p, at); err != nil {
		t.Fatal(err)
	}
	return h.Get("X-Moat-Identity")
}

// verify does what an upstream with a stock library does.
func verify(t testing.TB, jwks []byte, text string, at time.Time) map[string]any {
	t.Helper()
	var set jose.JSONWebKeySet
	if err := json.Unmarshal(jwks, &set); err != nil {
		t.Fatal(err)
	}
	token, err := jwt.ParseSigned(text, []jose.SignatureAlgorithm{jose.ES256, jose.EdDSA})
	if err != nil {
		t.Fatal(err)
	}
	var standard jwt.Claims
	all := make(map[string]any)
	if err = token.Claims(set, &standard, &all); err != nil {
		t.Fatal(err)
	}
	if err = standard.ValidateWithLeeway(jwt.Expected{Issuer: issuer, AnyAudience: jwt.Audience{"orders"}, Time: at}, 0); err != nil {
		t.Fatal(err)
	}
	return all
}

func TestATokenIsWhatAStockVerifierAccepts(t *testing.T) {
	for name, key := range map[string]crypto.Signer{"ES256": p256(t), "EdDSA": edwards(t)} {
		t.Run(name, func(t *testing.T) {
			s := newSigner(t, key)
			g := newGuard(t, policy(func(p *assertion.TokenPolicy) { p.Claims = []string{"email", "org", "org.id", "phone"} }), s)
			text := say(t, g, assume.Principal(alice), now)
			got := verify(t, s.JWKS(), text, now)
			want := map[string]any{
				"iss": issuer, "aud": "orders", "sub": "staff|alice", "scope": "read write", "roles": []any{"admin"},
				"iat": float64(now.Unix() - 5), "exp": float64(now.Unix() + 60),
				"email": "alice@example.com", "org": map[string]any{"id": 7.0, "name": "Acme, Inc."}, "org.id": 7.0,
				"moat": map[string]any{"source": "staff", "method": "jwt", "sub": "alice", "credential": "j-1"},
			}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("%v\nwant\n%v", got, want)
			}
			token, err := jose.ParseSignedCompact(text, []jose.SignatureAlgorithm{jose.SignatureAlgorithm(name)})
			if err != nil || token.Signatures[0].Header.ExtraHeaders["typ"] != "JWT" {
				t.Errorf("%v %v", token, err)
			}
		})
	}
}

func TestTheSubjectAsItsIssuerHasIt(t *testing.T) {
	s := newSigner(t, p256(t))
	g := newGuard(t, policy(func(p *assertion.TokenPolicy) { p.Subject = "sub" }), s)
	if got := verify(t, s.JWKS(), say(t, g, assume.Principal(alice), now), now); got["sub"] != "alice" {
		t.Error(got["sub"])
	}
	nobody := assume.Principal(assume.Who{Source: "staff", Method: identity.APIKey})
	for _, subject := range []string{"id", "sub"} {
		g = newGuard(t, policy(func(p *assertion.TokenPolicy) { p.Subject = subject }), s)
		if got := verify(t, s.JWKS(), say(t, g, nobody, now), now); len(got) != 5 || got["sub"] != nil {
			t.Errorf("%s: %v", subject, got)
		}
	}
}

func TestATokenServesForHalfItsLife(t *testing.T) {
	s := newSigner(t, p256(t))
	g, p := newGuard(t, policy(nil), s), assume.Principal(alice)
	first := say(t, g, p, now)
	if say(t, g, p, now.Add(29*time.Second)) != first {
		t.Error("it was made anew before half of its life was over")
	}
	if say(t, g, assume.Principal(alice), now) == first {
		t.Error("another principal got it")
	}
	second := say(t, g, p, now.Add(30*time.Second))
	if second == first {
		t.Error("it was not made anew")
	}
	if c := verify(t, s.JWKS(), second, now.Add(89*time.Second)); c["exp"] != float64(now.Unix()+90) {
		t.Error(c["exp"])
	}
	if back := say(t, g, p, now.Add(-time.Hour)); back == second {
		t.Error("a clock that was set back got a token of the future")
	}
}

// slow is a key whose every signature has to be let through.
type slow struct {
	crypto.Signer
	asked, let chan struct{}
}

func (s slow) Sign(random io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	s.asked <- struct{}{}
	<-s.let
	return s.Signer.Sign(random, digest, opts)
}

func TestNobodyWaitsWhileATokenIsMadeAnew(t *testing.T) {
	key := slow{p256(t), make(chan struct{}), make(chan struct{})}
	g, p := newGuard(t, policy(nil), newSigner(t, key)), assume.Principal(alice)
	texts := make(chan string)
	ask := func(at time.Time) {
		go func() {
			h := make(http.Header)
			if err := g.Set(h, p, at); err != nil {
				t.Error(err)
			}
			texts <- h.Get("X-Moat-Identity")
		}()
		<-key.asked
	}
	ask(now)
	key.let <- struct{}{}
	first, later := <-texts, now.Add(time.Minute/2)
	ask(later)
	if say(t, g, p, later) != first { // it would wait for the key
		t.Error("another token was made")
	}
	key.let <- struct{}{}
	if second := <-texts; second == first || say(t, g, p, later) != second {
		t.Error("the new token does not count")
	}
}

// broken is a key that cannot be had.
type broken struct{ crypto.Signer }

func (broken) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	return nil, errors.New("the device is gone")
}

func TestWithoutASignatureNothingIsSaid(t *testing.T) {
	p := policy(nil)
	p.Headers = map[string]string{"X-User": "sub"}
	for _, key := range []crypto.Signer{p256(t), edwards(t)} {
		h := http.Header{"X-User": {"mallory"}, "X-Moat-Identity": {"mallory"}}
		err := newGuard(t, p, newSigner(t, broken{key})).Set(h, assume.Principal(alice), now)
		if err == nil || !strings.Contains(err.Error(), "the device is gone") || len(h) != 0 {
			t.Errorf("%v, %q", err, h)
		}
	}
}

func TestATokenDoesNotOutliveTheCallersCredential(t *testing.T) {
	s := newSigner(t, p256(t))
	g := newGuard(t, policy(nil), s)
	p := assume.Principal(with(func(w *assume.Who) { w.Expires = now.Add(20*time.Second + 900*time.Millisecond) }))
	text := say(t, g, p, now)
	if c := verify(t, s.JWKS(), text, now); c["exp"] != float64(now.Unix()+20) {
		t.Error(c["exp"])
	}
	if say(t, g, p, now.Add(19*time.Second)) != text {
		t.Error("it was made anew for nothing")
	}
	if err := g.Set(make(http.Header), p, now.Add(20*time.Second)); err != assertion.ErrExpired { //nolint:errorlint // no other may stand around it.
		t.Error(err)
	}
}

func TestWhatATokenCannotSayIsRefused(t *testing.T) {
	g := newGuard(t, policy(func(p *assertion.TokenPolicy) { p.Claims = []string{"c"} }), newSigner(t, p256(t)))
	for name, test := range map[string]struct {
		who  assume.Who
		want string
	}{
		"a scope that reads as two": {with(func(w *assume.Who) { w.Scopes = []string{"read admin"} }), "scope"},
		"a scope with a line end":   {with(func(w *assume.Who) { w.Scopes = []string{"read\nadmin"} }), "scope"},
		"a scope that is no ASCII":  {with(func(w *assume.Who) { w.Scopes = []string{"read\u00a0admin"} }), "scope"},
		"an empty scope":            {with(func(w *assume.Who) { w.Scopes = []string{""} }), "scope"},
		"a subject":                 {with(func(w *assume.Who) { w.Subject = "a\xff" }), "UTF-8"},
		"a role":                    {with(func(w *assume.Who) { w.Roles = []string{"a\xff"} }), "UTF-8"},
		"a claim":                   {claims("c", []any{map[string]any{"a": "\xff"}}), "UTF-8"},
		"a claim's name":            {claims("c", map[string]any{"\xff": "a"}), "UTF-8"},
		"too long a claim":          {claims("c", strings.Repeat("x", 6000)), "8192"},
	} {
		h := http.Header{"X-Moat-Identity": {"mallory"}}
		if err := g.Set(h, assume.Principal(test.who), now); err == nil || !strings.Contains(err.Error(), test.want) || len(h) != 0 {
			t.Errorf("%s: %v, %d headers", name, err, len(h))
		}
	}
}

// An upstream that has read the key set of one step verifies the tokens of the next.
func TestAKeyIsReplacedWithoutARefusal(t *testing.T) {
	older, newer := p256(t), edwards(t)
	steps := [][]crypto.Signer{{older}, {older, newer}, {newer, older}, {newer}}
	for i, keys := range steps[1:] {
		s := newSigner(t, keys...)
		text := say(t, newGuard(t, policy(nil), s), assume.Principal(alice), now)
		verify(t, newSigner(t, steps[i]...).JWKS(), text, now)
		verify(t, s.JWKS(), text, now)
	}
}

func TestThePublishedKeys(t *testing.T) {
	// RFC 8037 appendix A.1 to A.3.
	seed, err := hex.DecodeString("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
	if err != nil {
		t.Fatal(err)
	}
	s := newSigner(t, p256(t), ed25519.NewKeyFromSeed(seed))
	var set jose.JSONWebKeySet
	if err = json.Unmarshal(s.JWKS(), &set); err != nil || len(set.Keys) != 2 {
		t.Fatal(err)
	}
	if got := set.Keys[1].KeyID; got != "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k" {
		t.Error(got)
	}
	for _, k := range set.Keys {
		sum, err := k.Thumbprint(crypto.SHA256)
		if err != nil || k.KeyID != base64.RawURLEncoding.EncodeToString(sum) || !k.IsPublic() || k.Use != "sig" {
			t.Errorf("%+v, %v", k, err)
		}
	}
	if bytes.Contains(s.JWKS(), []byte(`"d"`)) {
		t.Error("a private key is published")
	}
}

func TestKeysThatAreRefused(t *testing.T) {
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	key := p256(t)
	many := make([]crypto.Signer, 17)
	for i := range many {
		many[i] = p256(t)
	}
	for want, keys := range map[string][]crypto.Signer{
		"0 keys": nil, "17 keys": many, "key 2: it is on another curve": {key, p384}, "key 1: it is of type *rsa": {rsaKey}, "key 2 is key 1 again": {key, key},
	} {
		if _, err = assertion.NewSigner(keys, issuer); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	if _, err = assertion.NewSigner([]crypto.Signer{key}, ""); err == nil {
		t.Error("no issuer")
	}
}

func TestKeysAreReadFromPEM(t *testing.T) {
	pkcs8 := func(key any) []byte {
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	}
	key, ed := p256(t), edwards(t)
	ec, ok := key.(*ecdsa.PrivateKey)
	if !ok {
		t.Fatalf("%T", key)
	}
	der, err := x509.MarshalECPrivateKey(ec)
	if err != nil {
		t.Fatal(err)
	}
	sec1 := pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der})
	for name, c := range map[string]struct {
		text []byte
		want crypto.Signer
	}{"PKCS #8": {pkcs8(key), key}, "SEC 1": {sec1, key}, "Ed25519": {pkcs8(ed), ed}} {
		read, kErr := assertion.ParseKey(c.text)
		if kErr != nil || !reflect.DeepEqual(read.Public(), c.want.Public()) {
			t.Errorf("%s: %v", name, kErr)
		}
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	x25519, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		text []byte
		want string
	}{
		"nothing":          {nil, "no PEM"},
		"not PEM":          {[]byte("hunter2"), "no PEM"},
		"two keys":         {append(pkcs8(key), pkcs8(ed)...), "more than one"},
		"a public key":     {pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), "PUBLIC KEY"},
		"encrypted":        {pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: der}), "not encrypted"},
		"cut":              {pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der[:20]}), "cannot be read"},
		"another curve":    {pkcs8(p384), "another curve"},
		"only for secrets": {pkcs8(x25519), "signs nothing"},
	} {
		var got crypto.Signer
		if got, err = assertion.ParseKey(c.text); err == nil || got != nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

func TestManyCallersAtOnceAreToldApart(t *testing.T) {
	p := policy(nil)
	p.Headers = map[string]string{"X-User": "sub"}
	s := newSigner(t, edwards(t))
	g := newGuard(t, p, s)
	people := make([]*identity.Principal, 200)
	for i := range people {
		people[i] = assume.Principal(with(func(w *assume.Who) { w.Subject = strings.Repeat("a", i+1) }))
	}
	var wg sync.WaitGroup
	for worker := range 4 {
		wg.Go(func() {
			h := make(http.Header)
			for i := range 2000 {
				who := people[(i*7+worker)%len(people)]
				if err := g.Set(h, who, now.Add(time.Duration(i)*time.Second/20)); err != nil {
					t.Error(err)
				}
				if got := h.Get("X-User"); got != who.Subject() {
					t.Errorf("%s is said to be %s", who.Subject(), got)
				}
			}
		})
	}
	wg.Wait()
}
