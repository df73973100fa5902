package jwt_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/moat-gateway/moat/guard"
	"github.com/moat-gateway/moat/guard/identity/jwt"
)

// attacks is vectors/jwt/attacks.json, which says in README.md what its members are.
type attacks struct {
	Now     int64
	Issuers []struct {
		Source, Issuer, Secret      string
		Audiences, Algorithms, Keys []string
		Required                    []string
		Leeway                      int64
		MaxAge                      int64 `json:"max_age"`
		RequireProof                bool  `json:"require_proof"`
	}
	Keys     map[string]jose.JSONWebKey
	Accepted []attack
	Attacks  []attack
}

type attack struct {
	Name, Header, Claims, Sign, Key, Text, Loose, Got string
	HeaderHex                                         string `json:"header_hex"`
	SecretIs                                          string `json:"secret_is"`
	SignedClaims                                      string `json:"signed_claims"`
	Cut                                               int
	Reason                                            string
}

func readAttacks(t testing.TB) (a attacks) {
	t.Helper()
	text, err := os.ReadFile("../../../vectors/jwt/attacks.json")
	if err != nil {
		t.Fatal(err)
	}
	if err = json.Unmarshal(text, &a); err != nil {
		t.Fatal(err)
	}
	return a
}

func (a *attacks) now() time.Time { return time.Unix(a.Now, 0) }

// policy is whom the attacks are made on.
func (a *attacks) policy(t testing.TB) (p jwt.Policy) {
	t.Helper()
	for _, i := range a.Issuers {
		conf := jwt.Issuer{
			Source: i.Source, Issuer: i.Issuer, Audiences: i.Audiences, Algorithms: i.Algorithms, Required: i.Required, RequireProof: i.RequireProof,
			Leeway: time.Duration(i.Leeway) * time.Second, MaxAge: time.Duration(i.MaxAge) * time.Second,
		}
		if i.Secret != "" {
			conf.Secret = a.secret(t, i.Secret, "")
		} else {
			var set jose.JSONWebKeySet
			for _, name := range i.Keys {
				set.Keys = append(set.Keys, a.public(t, name))
			}
			b, err := json.Marshal(set)
			if err != nil {
				t.Fatal(err)
			}
			conf.JWKS = b
		}
		p.Issuers = append(p.Issuers, conf)
	}
	return p
}

func (a *attacks) public(t testing.TB, name string) jose.JSONWebKey {
	t.Helper()
	k, ok := a.Keys[name]
	if !ok {
		t.Fatalf("no key %q", name)
	}
	return k.Public()
}

// secret is a key as one of HMAC: its own bytes, or what an attacker takes for it.
func (a *attacks) secret(t testing.TB, name, is string) []byte {
	t.Helper()
	switch is {
	case "":
		secret, _ := a.Keys[name].Key.([]byte)
		return secret // of no key: empty
	case "pem":
		der, err := x509.MarshalPKIXPublicKey(a.public(t, name).Key)
		if err != nil {
			t.Fatal(err)
		}
		return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	}
	text, err := a.public(t, name).MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	var members map[string]string
	if err = json.Unmarshal(text, &members); err != nil {
		t.Fatal(err)
	}
	b, err := b64.DecodeString(members[is])
	if err != nil || len(b) == 0 {
		t.Fatalf("%s of %s: %v", is, name, err)
	}
	return b
}

var b64 = base64.RawURLEncoding

// token makes the attack's token.
func (a *attacks) token(t testing.TB, c *attack) string {
	t.Helper()
	header := []byte(c.Header)
	if c.HeaderHex != "" {
		var err error
		if header, err = hex.DecodeString(c.HeaderHex); err != nil {
			t.Fatal(err)
		}
	}
	first, second := b64.EncodeToString(header), b64.EncodeToString([]byte(c.Claims))
	if c.Loose == "claims" {
		const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
		last := strings.IndexByte(alphabet, second[len(second)-1])
		second = second[:len(second)-1] + alphabet[last+1:last+2]
	}
	signed := second
	if c.SignedClaims != "" {
		signed = b64.EncodeToString([]byte(c.SignedClaims))
	}
	signature := a.sign(t, c, first+"."+signed)
	signature = signature[:len(signature)-c.Cut]
	text := c.Text
	if text == "" {
		text = "{header}.{claims}.{signature}"
	}
	return strings.NewReplacer("{header}", first, "{claims}", second, "{signature}", b64.EncodeToString(signature)).Replace(text)
}

// sign signs by what the attack says, whatever alg says.
func (a *attacks) sign(t testing.TB, c *attack, input string) []byte {
	t.Helper()
	sum := sha256.Sum256([]byte(input))
	check := func(b []byte, err error) []byte {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	switch k := a.Keys[c.Key].Key.(type) {
	case *rsa.PrivateKey:
		switch c.Sign {
		case "RS256":
			return check(rsa.SignPKCS1v15(rand.Reader, k, crypto.SHA256, sum[:]))
		case "RS384":
			h := crypto.SHA384.New()
			h.Write([]byte(input))
			return check(rsa.SignPKCS1v15(rand.Reader, k, crypto.SHA384, h.Sum(nil)))
		case "PS256":
			return check(rsa.SignPSS(rand.Reader, k, crypto.SHA256, sum[:], &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}))
		}
	case *ecdsa.PrivateKey:
		switch c.Sign {
		case "ES256-DER":
			return check(ecdsa.SignASN1(rand.Reader, k, sum[:]))
		case "ES256":
			return signES(t, k, sum[:])
		case "ES512":
			h := crypto.SHA512.New()
			h.Write([]byte(input))
			return signES(t, k, h.Sum(nil))
		}
	case ed25519.PrivateKey:
		if c.Sign == "EdDSA" {
			return ed25519.Sign(k, []byte(input))
		}
	}
	switch c.Sign {
	case "none":
		return nil
	case "HS256":
		h := hmac.New(sha256.New, a.secret(t, c.Key, c.SecretIs))
		h.Write([]byte(input))
		return h.Sum(nil)
	}
	t.Fatalf("%s: key %s does not sign by %s", c.Name, c.Key, c.Sign)
	return nil
}

func signES(t testing.TB, k *ecdsa.PrivateKey, sum []byte) []byte {
	t.Helper()
	r, s, err := ecdsa.Sign(rand.Reader, k, sum)
	if err != nil {
		t.Fatal(err)
	}
	size := (k.Params().BitSize + 7) / 8
	fill := func(n *big.Int) []byte { return n.FillBytes(make([]byte, size)) }
	return append(fill(r), fill(s)...)
}

func TestAttackTable(t *testing.T) {
	a := readAttacks(t)
	v, err := jwt.New(a.policy(t), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	for _, c := range a.Accepted {
		token := a.token(t, &c)
		for range 2 {
			if p, d := v.Verify(t.Context(), token, a.now()); d.Reason != guard.IdentityVerified || p == nil {
				t.Errorf("%s: %s, want it accepted", c.Name, told(d))
			}
		}
	}
	for _, c := range a.Attacks {
		token := a.token(t, &c)
		for range 2 { // the second time it may be remembered
			p, d := v.Verify(t.Context(), token, a.now())
			if !d.Denied() || d.Reason.String() != c.Reason || p != nil {
				t.Errorf("%s: %s, want %s", c.Name, told(d), c.Reason)
			}
			if !strings.Contains(d.Evidence.Got, c.Got) {
				t.Errorf("%s: the evidence is %q, want %q in it", c.Name, d.Evidence.Got, c.Got)
			}
			tellsNothing(t, c.Name, token, d)
		}
	}
}

// tellsNothing wants evidence that is short, printable, and has no part of the token.
func tellsNothing(t *testing.T, name, token string, d guard.Decision) {
	t.Helper()
	all := d.Evidence.Where + d.Evidence.Got + d.Evidence.Want
	if len(all) > 1024 || strings.ContainsFunc(all, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		t.Errorf("%s: evidence of %d bytes: %q", name, len(all), all)
	}
	for part := range strings.SplitSeq(token, ".") {
		if len(part) > 16 && strings.Contains(all, part[:16]) {
			t.Errorf("%s: a part of the token is in the evidence: %q", name, all)
		}
	}
}
