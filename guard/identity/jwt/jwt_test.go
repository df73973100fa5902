package jwt_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/moat-gateway/moat/guard"
	"github.com/moat-gateway/moat/guard/identity"
	"github.com/moat-gateway/moat/guard/identity/jwt"
)

// start is a moment; no test depends on which.
var start = time.Date(2026, 11, 21, 16, 0, 0, 0, time.UTC)

// signer signs tokens as an issuer does.
type signer struct {
	id, algorithm string
	private       any
	public        any
}

func newSigner(t testing.TB, id string) signer {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return signer{id, "ES256", k, &k.PublicKey}
}

func (s signer) jwk() jose.JSONWebKey {
	return jose.JSONWebKey{Key: s.public, KeyID: s.id, Use: "sig", Algorithm: s.algorithm}
}

// jwks is the key set of an issuer that signs with these.
func jwks(t testing.TB, signers ...signer) []byte {
	t.Helper()
	set := jose.JSONWebKeySet{Keys: []jose.JSONWebKey{}}
	for _, s := range signers {
		set.Keys = append(set.Keys, s.jwk())
	}
	b, err := json.Marshal(set)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

type claims map[string]any

// sign makes a token that is good for an hour from start, but for what is said otherwise; nil
// takes a claim away.
func (s signer) sign(t testing.TB, other claims) string {
	t.Helper()
	c := claims{"iss": issuer, "aud": "api", "sub": "alice", "exp": start.Add(time.Hour).Unix(), "iat": start.Unix()}
	for name, v := range other {
		if c[name] = v; v == nil {
			delete(c, name)
		}
	}
	b, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	options := new(jose.SignerOptions)
	if s.id != "" {
		options.WithHeader("kid", s.id)
	}
	js, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.SignatureAlgorithm(s.algorithm), Key: s.private}, options.WithType("at+jwt"))
	if err != nil {
		t.Fatal(err)
	}
	j, err := js.Sign(b)
	if err != nil {
		t.Fatal(err)
	}
	text, err := j.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return text
}

const issuer = "https://accounts.example"

// accounts is an issuer with these keys.
func accounts(keys []byte) jwt.Issuer {
	return jwt.Issuer{Source: "accounts", Issuer: issuer, Audiences: []string{"api"}, Algorithms: []string{"ES256"}, JWKS: keys}
}

func verifier(t testing.TB, issuers ...jwt.Issuer) *jwt.Verifier {
	t.Helper()
	v, err := jwt.New(jwt.Policy{Issuers: issuers}, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(v.Close)
	return v
}

// allow wants the token to be accepted at that time after start.
func allow(t testing.TB, v *jwt.Verifier, token string, after time.Duration) *identity.Principal {
	t.Helper()
	p, d := v.Verify(t.Context(), token, start.Add(after))
	if d.Reason != guard.IdentityVerified || d.Denied() || p == nil {
		t.Fatalf("after %s: %v, want it accepted", after, told(d))
	}
	return p
}

// deny wants it refused.
func deny(t testing.TB, v *jwt.Verifier, token string, after time.Duration, want guard.Reason) guard.Decision {
	t.Helper()
	p, d := v.Verify(t.Context(), token, start.Add(after))
	if !d.Denied() || d.Reason != want || p != nil {
		t.Fatalf("after %s: %v, want %s", after, told(d), want)
	}
	return d
}

func told(d guard.Decision) string {
	return fmt.Sprintf("%s %s %+v", d.Outcome, d.Reason, d.Evidence)
}

func TestATokenIsWhatItsIssuerSaid(t *testing.T) {
	s := newSigner(t, "one")
	conf := accounts(jwks(t, s))
	conf.RolesClaim = "realm_access.roles"
	v := verifier(t, conf)
	token := s.sign(t, claims{"scope": "read write", "jti": "t1", "realm_access": claims{"roles": []string{"admin"}}})
	for range 2 { // the second time it is remembered
		p := allow(t, v, token, 0)
		if p.ID() != "accounts|alice" || p.Issuer() != issuer || p.Method() != identity.JWT || !p.HasScope("write") || !p.HasRole("admin") ||
			p.Credential() != "t1" || !p.Expires().Equal(start.Add(time.Hour)) || p.Confirmation() != "" {
			t.Errorf("%+v", p)
		}
	}
	if _, d := v.Verify(context.Background(), token[:len(token)-4]+"AAAA", start); d.Reason != guard.TokenSignatureInvalid {
		t.Error(told(d))
	}
}

func TestOneIssuerForTwoServicesIsToldApartByAudience(t *testing.T) {
	s := newSigner(t, "one")
	staff := accounts(jwks(t, s))
	staff.Source, staff.Audiences = "staff", []string{"admin"}
	v := verifier(t, accounts(jwks(t, s)), staff)
	for _, c := range []struct {
		audience any
		source   string
	}{{"api", "accounts"}, {"admin", "staff"}, {[]string{"else", "admin"}, "staff"}, {[]string{"admin", "api"}, "accounts"}} {
		if p := allow(t, v, s.sign(t, claims{"aud": c.audience}), 0); p.Source() != c.source {
			t.Errorf("%v: of %s, want %s", c.audience, p.Source(), c.source)
		}
	}
	deny(t, v, s.sign(t, claims{"aud": "else"}), 0, guard.TokenAudienceWrong)
}

func TestTypesAreListed(t *testing.T) {
	s := newSigner(t, "one")
	conf := accounts(jwks(t, s))
	token := s.sign(t, nil) // its typ is at+jwt
	for _, c := range []struct {
		types []string
		good  bool
	}{{nil, true}, {[]string{"at+jwt"}, true}, {[]string{"application/AT+JWT"}, true}, {[]string{"", "JWT"}, false}, {[]string{}, true}} {
		conf.Types = c.types
		v := verifier(t, conf)
		if c.good {
			allow(t, v, token, 0)
		} else {
			deny(t, v, token, 0, guard.TokenClaimMissing)
		}
	}
}

func TestScopesStandWhereIssuersPutThem(t *testing.T) {
	s := newSigner(t, "one")
	for _, c := range []struct {
		path   string
		claims claims
		good   bool
	}{
		{"", claims{"scope": "a b"}, true},
		{"", claims{"scp": []string{"a", "b"}}, true},
		{"", claims{"scp": "a b"}, true},
		{"", claims{"scope": "c", "scp": "a b"}, false},
		{"permissions", claims{"permissions": []string{"a", "b"}}, true},
		{"permissions", claims{"scope": "a b"}, false},
		{"", claims{"scope": 7}, false},
	} {
		conf := accounts(jwks(t, s))
		conf.ScopeClaim = c.path
		if p := allow(t, verifier(t, conf), s.sign(t, c.claims), 0); p.HasScope("b") != c.good {
			t.Errorf("%q, %v: %v", c.path, c.claims, p.Scopes())
		}
	}
}

func TestWhatIsRememberedIsJudgedByTheTimeAgain(t *testing.T) {
	s := newSigner(t, "one")
	conf := accounts(jwks(t, s))
	conf.Leeway = 10 * time.Second
	v := verifier(t, conf)
	token := s.sign(t, claims{"nbf": start.Unix(), "exp": start.Add(time.Minute).Unix()})
	allow(t, v, token, 0)
	deny(t, v, token, -11*time.Second, guard.TokenNotYetValid)
	allow(t, v, token, -10*time.Second)
	allow(t, v, token, 69*time.Second)
	deny(t, v, token, 70*time.Second, guard.TokenExpired)
}

func TestABadTokenCostsNoSecondSignature(t *testing.T) {
	s := newSigner(t, "one")
	v := verifier(t, accounts(jwks(t, s)))
	token := newSigner(t, "one").sign(t, nil)
	deny(t, v, token, 0, guard.TokenSignatureInvalid)
	// Checking a signature, and even parsing, takes hundreds.
	if n := testing.AllocsPerRun(100, func() { deny(t, v, token, 0, guard.TokenSignatureInvalid) }); n > 2 {
		t.Errorf("%v allocations for a token that is known to be bad", n)
	}
}

func TestBadTokensPushOutNoGoodOne(t *testing.T) {
	s := newSigner(t, "one")
	v, err := jwt.New(jwt.Policy{Issuers: []jwt.Issuer{accounts(jwks(t, s))}, CacheBytes: 64 << 10}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	good := s.sign(t, nil)
	allow(t, v, good, 0)
	bad := good[:len(good)-6]
	for n := range 2000 {
		_, d := v.Verify(t.Context(), bad+fmt.Sprintf("%05dA", n), start)
		if !d.Denied() {
			t.Fatal(told(d))
		}
	}
	if n := testing.AllocsPerRun(10, func() { allow(t, v, good, 0) }); n > 2 {
		t.Errorf("%v allocations: the good token was forgotten", n)
	}
}

func TestRevocationHoldsForWhatIsRemembered(t *testing.T) {
	s := newSigner(t, "one")
	for name, c := range map[string]struct {
		list string
		good bool
	}{
		"nothing":              {"# nobody\n\n", true},
		"another token":        {"jti other", true},
		"the token":            {"jti t1 # lost", false},
		"the session":          {"sid s1", false},
		"the subject":          {"sub alice", false},
		"another subject":      {"sub Alice", true},
		"issued before":        {"sub alice before 2026-11-21T16:00:01Z", false},
		"issued then":          {"sub alice before 2026-11-21T16:00:00Z", true},
		"issued after":         {"sub alice before 2026-11-21T15:00:00Z", true},
		"in another zone":      {"sub alice before 2026-11-21T17:00:01+01:00", false},
		"the later of two":     {"sub alice before 2026-11-21T16:00:01Z\nsub alice before 2026-11-21T15:00:00Z", false},
		"always, and before":   {"sub alice\nsub alice before 2026-11-21T15:00:00Z", false},
		"quoted":               {`sub "alice"`, false},
		"quoted, with a blank": {`jti "t1 #x"`, true},
		"with CR":              {"jti t1\r\n", false},
	} {
		revoked, err := jwt.ParseRevocations([]byte(c.list))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		before := verifier(t, accounts(jwks(t, s)))
		token := s.sign(t, claims{"jti": "t1", "sid": "s1"})
		allow(t, before, token, 0)
		conf := accounts(jwks(t, s))
		conf.Revoked = revoked
		after, err := jwt.New(jwt.Policy{Issuers: []jwt.Issuer{conf}}, before)
		if err != nil {
			t.Fatal(err)
		}
		defer after.Close()
		for _, v := range []*jwt.Verifier{after, after, verifier(t, conf)} { // remembered, and not
			if c.good {
				allow(t, v, token, 0)
			} else {
				deny(t, v, token, 0, guard.TokenRevoked)
			}
		}
		undated := s.sign(t, claims{"iat": nil, "jti": nil, "sid": nil})
		if strings.Contains(c.list, "before") {
			deny(t, after, undated, 0, guard.TokenRevoked)
		}
	}
}

func TestFaultsInRevocationsNameTheLine(t *testing.T) {
	for list, want := range map[string]string{
		"jti a\nsub":                      "line 2: want",
		"jti":                             "line 1: want",
		"sub a before":                    "line 1: want",
		"sub a since 2026-11-21":          "line 1: want",
		"sub a before yesterday":          "line 1: the time",
		"# a\n\njti a b":                  "line 3: want",
		"kid a":                           "line 1: want",
		`jti ""`:                          "line 1: want",
		"\n" + `jti "a`:                   "line 2: the quote",
		strings.Repeat("# x\n", 5<<20):    "longer",
		"sub a before 2026-11-21T16:00Z":  "line 1: the time",
		"sid a before 2026-11-21T16:00:0": "line 1: want",
	} {
		if _, err := jwt.ParseRevocations([]byte(list)); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%.40q: %v, want %q", list, err, want)
		}
	}
}

func TestFaultsInThePolicy(t *testing.T) {
	s := newSigner(t, "one")
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	private, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: s.private}}})
	if err != nil {
		t.Fatal(err)
	}
	spki, err := x509.MarshalPKIXPublicKey(s.public)
	if err != nil {
		t.Fatal(err)
	}
	public := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: spki})
	good := accounts(jwks(t, s))
	for name, c := range map[string]struct {
		change func(*jwt.Issuer)
		want   string
	}{
		"no name":              {func(i *jwt.Issuer) { i.Source = "" }, "the name is empty"},
		"no issuer":            {func(i *jwt.Issuer) { i.Issuer = "" }, "no issuer"},
		"no audience":          {func(i *jwt.Issuer) { i.Audiences = nil }, "no audience"},
		"an empty audience":    {func(i *jwt.Issuer) { i.Audiences = []string{""} }, "no audience"},
		"no algorithms":        {func(i *jwt.Issuer) { i.Algorithms = nil }, "no algorithms"},
		"none":                 {func(i *jwt.Issuer) { i.Algorithms = []string{"none"} }, `algorithm "none"`},
		"HS beside ES":         {func(i *jwt.Issuer) { i.Algorithms = []string{"ES256", "HS256"} }, "could pass for the secret"},
		"HS with keys":         {func(i *jwt.Issuer) { i.Algorithms = []string{"HS256"} }, "a secret goes with HS256"},
		"ES with a secret":     {func(i *jwt.Issuer) { i.JWKS, i.Secret = nil, make([]byte, 32) }, "a secret goes with HS256"},
		"no keys":              {func(i *jwt.Issuer) { i.JWKS = nil }, "0 sources of keys"},
		"keys twice":           {func(i *jwt.Issuer) { i.JWKSURL = "https://a.example" }, "2 sources of keys"},
		"keys in the clear":    {func(i *jwt.Issuer) { i.JWKS, i.JWKSURL = nil, "http://a.example/keys" }, "by https"},
		"a password":           {func(i *jwt.Issuer) { i.JWKS, i.JWKSURL = nil, "https://u:p@a.example/keys" }, "user information"},
		"no host":              {func(i *jwt.Issuer) { i.JWKS, i.JWKSURL = nil, "https:///keys" }, "a host"},
		"discovery of no URL":  {func(i *jwt.Issuer) { i.JWKS, i.Discover, i.Issuer = nil, true, "accounts" }, "a host"},
		"a private key":        {func(i *jwt.Issuer) { i.JWKS = private }, "key 1: it is private"},
		"a private key in PEM": {func(i *jwt.Issuer) { i.JWKS = bytes.ReplaceAll(public, []byte("PUBLIC"), []byte("PRIVATE")) }, "it is private"},
		"no PEM that is known": {func(i *jwt.Issuer) { i.JWKS = bytes.ReplaceAll(public, []byte("PUBLIC"), []byte("STRANGE")) }, "no public key"},
		"a weak key":           {func(i *jwt.Issuer) { i.JWKS = jwks(t, signer{"a", "RS256", nil, &weak.PublicKey}) }, "RSA with 1024 bits"},
		"no set":               {func(i *jwt.Issuer) { i.JWKS = []byte("ssh-rsa AAAA") }, "no JWK Set"},
		"an empty set":         {func(i *jwt.Issuer) { i.JWKS = []byte(`{"keys":[]}`) }, "no key that can be used"},
		"a short secret": {func(i *jwt.Issuer) {
			i.JWKS, i.Secret, i.Algorithms = nil, make([]byte, 31), []string{"HS256"}
		}, "31 bytes"},
		"too short for HS512": {func(i *jwt.Issuer) {
			i.JWKS, i.Secret, i.Algorithms = nil, make([]byte, 63), []string{"HS512"}
		}, "too short for HS512"},
		"a public key as the secret": {func(i *jwt.Issuer) {
			i.JWKS, i.Secret, i.Algorithms = nil, public, []string{"HS256"}
		}, "the secret is PEM"},
		"a short past secret": {func(i *jwt.Issuer) {
			i.JWKS, i.Secret, i.PastSecrets, i.Algorithms = nil, make([]byte, 32), [][]byte{make([]byte, 16)}, []string{"HS256"}
		}, "16 bytes"},
		"too many secrets": {func(i *jwt.Issuer) {
			i.JWKS, i.Secret, i.PastSecrets, i.Algorithms = nil, make([]byte, 32), make([][]byte, 8), []string{"HS256"}
		}, "9 secrets"},
		"past secrets of keys": {func(i *jwt.Issuer) { i.PastSecrets = [][]byte{make([]byte, 32)} }, "past secrets"},
		"leeway":               {func(i *jwt.Issuer) { i.Leeway = time.Hour }, "leeway 1h"},
		"negative leeway":      {func(i *jwt.Issuer) { i.Leeway = -1 }, "leeway"},
		"negative age":         {func(i *jwt.Issuer) { i.MaxAge = -1 }, "max age"},
	} {
		conf := good
		c.change(&conf)
		if _, err := jwt.New(jwt.Policy{Issuers: []jwt.Issuer{conf}}, nil); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	staff := good
	staff.Source = "staff"
	for want, p := range map[string]jwt.Policy{
		"stands there twice":     {Issuers: []jwt.Issuer{good, good}},
		`is also that of issuer`: {Issuers: []jwt.Issuer{good, staff}},
		"the least is":           {Issuers: []jwt.Issuer{good}, CacheBytes: 1},
		"it is not negative":     {Issuers: []jwt.Issuer{good}, StaleFor: -1},
	} {
		if _, err := jwt.New(p, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	deny(t, verifier(t), s.sign(t, nil), 0, guard.TokenIssuerUnknown) // the zero Policy accepts nobody
	good.JWKS = public
	allow(t, verifier(t, good), s.sign(t, nil), 0) // a key without a name is any
}

// What a key set holds beside keys that can be used does no harm, and is not used.
func TestKeysThatAreNotUsed(t *testing.T) {
	one, weak := newSigner(t, "one"), signer{id: "weak", algorithm: "RS256"}
	k, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	weak.private, weak.public = k, &k.PublicKey
	huge := rsa.PublicKey{N: new(big.Int).Lsh(big.NewInt(1), 16383), E: 65537}
	huge.N.SetBit(huge.N, 0, 1)
	small := rsa.PublicKey{N: new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), 2048), big.NewInt(1)), E: 1}
	member := func(k jose.JSONWebKey, name string, v any) map[string]any {
		text, fault := k.MarshalJSON()
		if fault != nil {
			t.Fatal(fault)
		}
		m := make(map[string]any)
		if fault = json.Unmarshal(text, &m); fault != nil {
			t.Fatal(fault)
		}
		if m[name] = v; v == nil {
			delete(m, name)
		}
		return m
	}
	other := newSigner(t, "other").jwk()
	set, err := json.Marshal(map[string]any{"keys": []any{
		"no key", 7, nil,
		map[string]any{},
		map[string]any{"kty": "AKP"},
		map[string]any{"kty": "oct", "kid": "one", "k": "c2VjcmV0"},
		weak.jwk(),
		jose.JSONWebKey{Key: &huge, KeyID: "one"},
		jose.JSONWebKey{Key: &small, KeyID: "one"},
		member(one.jwk(), "use", "enc"), member(other, "use", "enc"), member(other, "key_ops", []string{"encrypt"}), member(other, "alg", "ES384"),
		member(other, "alg", "ECDH-ES"), member(other, "kid", strings.Repeat("k", 300)), member(other, "x", "AAAA"), member(other, "d", "AAAA"),
		member(one.jwk(), "key_ops", []string{"verify"}),
	}})
	if err != nil {
		t.Fatal(err)
	}
	server := newKeyServer(t)
	server.answerWith(func(w http.ResponseWriter, _ *http.Request) { w.Write(set) })
	conf := server.issuer()
	conf.Algorithms = []string{"ES256", "RS256"}
	v := verifier(t, conf)
	allow(t, v, one.sign(t, nil), 0)
	d := deny(t, v, signer{"other", "ES256", newSigner(t, "other").private, nil}.sign(t, nil), 0, guard.TokenKeyUnknown)
	if !strings.Contains(d.Evidence.Want, "one of the 1 keys") {
		t.Errorf("%+v", d.Evidence)
	}
	deny(t, v, weak.sign(t, nil), 0, guard.TokenKeyUnknown)
}

// Without a kid each key may be the one; how many are tried is bounded.
func TestATokenWithoutKIDCostsFewSignatures(t *testing.T) {
	keys := make([]signer, 9)
	for i := range keys {
		keys[i] = newSigner(t, "")
	}
	allow(t, verifier(t, accounts(jwks(t, keys[:8]...))), keys[7].sign(t, nil), 0)
	deny(t, verifier(t, accounts(jwks(t, keys...))), keys[7].sign(t, nil), 0, guard.TokenKeyUnknown)
}

func TestWhatLooksLikeAToken(t *testing.T) {
	v := verifier(t)
	for text, want := range map[string]bool{
		newSigner(t, "one").sign(t, nil): true, "eyJ.e30.": true, "ewo.x": true,
		"": false, "eyJhbGciOiJub25lIn0": false, "moat_live_abc.def": false, "abc.def.ghi": false,
	} {
		if v.Recognizes(text) != want {
			t.Errorf("%q: %t, want %t", text, !want, want)
		}
	}
}

func TestABoundTokenTellsItsKey(t *testing.T) {
	const thumbprint = "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"
	s := newSigner(t, "one")
	p := allow(t, verifier(t, accounts(jwks(t, s))), s.sign(t, claims{"cnf": claims{"jkt": thumbprint}}), 0)
	if p.Confirmation() != thumbprint {
		t.Errorf("confirmation %q", p.Confirmation())
	}
}
