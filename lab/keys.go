package lab

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"io/fs"
	"path/filepath"
	"strings"
	"time"

	"github.com/moat-gateway/moat/guard/identity/apikey"
)

// keys are what a visitor's moat.yaml can refer to, and what alice calls with. They open
// nothing outside of the lab.
type keys struct {
	secret  [32]byte
	signer  *ecdsa.PrivateKey
	apiKeys *apikey.Set
	// told are the texts that runs have for alice's credentials, and for what attackers make of
	// them, each with its name in front.
	told []string
}

// What a token of the lab says: iss and aud.
const (
	tokenIssuer   = "https://issuer.bank.test" //nolint:gosec // it is public
	tokenAudience = "bank-api"
)

func newKeys(now time.Time) *keys {
	k := &keys{apiKeys: new(apikey.Set)}
	rand.Read(k.secret[:])
	var err error
	if k.signer, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		panic(err) // nor does this
	}
	text, key, err := apikey.Generate(apikey.Key{Owner: "alice", Scopes: []string{"read"}}, now)
	if err != nil {
		panic(err) // its owner is well-formed
	}
	k.apiKeys.Replace([]apikey.Key{key})
	k.told = append(k.tokens(now), "{api_key}", text)
	return k
}

// env is what ${env:NAME} stands for: a secret of its own for each name that ends in SECRET.
func (k *keys) env(name string) (value string, ok bool) {
	if !strings.HasSuffix(name, "SECRET") {
		return "", false
	}
	return hex.EncodeToString(k.derive(name)), true
}

func (k *keys) derive(name string) []byte {
	mac := hmac.New(sha256.New, k.secret[:])
	mac.Write([]byte(name))
	return mac.Sum(nil)
}

// own are the secrets that a gate would make up for itself. It is the same one for all gates of
// a visitor, for what his pages have of it outlives them.
func (k *keys) own(of string) [][]byte { return [][]byte{k.derive("own secret for " + of)} }

// file is what the files are that a moat.yaml can name: the issuer's public keys. No file of
// this machine is read.
func (k *keys) file(name string) ([]byte, error) {
	if filepath.Base(name) != "jwks.json" {
		return nil, fs.ErrNotExist
	}
	return k.jwks(), nil
}

func (k *keys) jwks() []byte {
	key := jwk(&k.signer.PublicKey)
	key["use"], key["kid"] = "sig", "lab"
	b, err := json.Marshal(map[string]any{"keys": []any{key}})
	if err != nil {
		panic(err) // it is made of strings
	}
	return b
}

func jwk(key *ecdsa.PublicKey) map[string]string {
	point, err := key.Bytes()
	if err != nil {
		panic(err) // it was made on the curve
	}
	return map[string]string{"kty": "EC", "crv": "P-256", "alg": "ES256", "x": base64url(point[1:33]), "y": base64url(point[33:])}
}

func base64url(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// tokenLife is longer than anybody stays.
const tokenLife = 7 * 24 * time.Hour

// tokens are alice's access token, and what attackers make of one.
func (k *keys) tokens(now time.Time) []string {
	claims := func(sub, audience string, life time.Duration) map[string]any {
		return map[string]any{"iss": tokenIssuer, "aud": audience, "sub": sub, "scope": "read", "iat": now.Add(-time.Hour).Unix(), "exp": now.Add(life).Unix()}
	}
	shared, _ := k.env("JWT_SECRET")
	alice := k.sign("ES256", nil, claims("alice", tokenAudience, tokenLife))
	mallory := k.sign("ES256", nil, claims("mallory", tokenAudience, tokenLife))
	header, rest, _ := strings.Cut(mallory, ".")
	_, signature, _ := strings.Cut(rest, ".")
	return []string{
		"{token}", alice,
		"{token:expired}", k.sign("ES256", nil, claims("alice", tokenAudience, -5*time.Minute)),
		"{token:other}", k.sign("ES256", nil, claims("alice", "shop-api", tokenLife)),
		// Mallory's own, with alice put into it.
		"{token:altered}", header + "." + segment(claims("alice", tokenAudience, tokenLife)) + "." + signature,
		// No signature at all (RFC 8725 section 2.1).
		"{token:none}", k.sign("none", nil, claims("alice", tokenAudience, tokenLife)),
		// The public key, taken for a shared secret.
		"{token:confused}", k.sign("HS256", k.jwks(), claims("alice", tokenAudience, tokenLife)),
		// A key of the attacker's, which the token brings along.
		"{token:embedded}", embedded(claims("alice", tokenAudience, tokenLife)),
		// What an issuer signs that shares ${env:JWT_SECRET} with the gate.
		"{token:shared}", k.sign("HS256", []byte(shared), claims("alice", tokenAudience, tokenLife)),
	}
}

func segment(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // it is made of strings and numbers
	}
	return base64url(b)
}

// sign makes a token as who says alg would. The secret is that of HS256.
func (k *keys) sign(alg string, secret []byte, claims map[string]any) string {
	text := segment(map[string]string{"alg": alg, "typ": "JWT", "kid": "lab"}) + "." + segment(claims)
	var signature []byte
	switch alg {
	case "ES256":
		signature = es256(k.signer, text)
	case "HS256":
		mac := hmac.New(sha256.New, secret)
		mac.Write([]byte(text))
		signature = mac.Sum(nil)
	}
	return text + "." + base64url(signature)
}

func es256(key *ecdsa.PrivateKey, text string) []byte {
	digest := sha256.Sum256([]byte(text))
	r, s, err := ecdsa.Sign(rand.Reader, key, digest[:])
	if err != nil {
		panic(err) // the key is whole
	}
	return append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...)
}

// embedded is a token that brings the key along that it was signed with.
func embedded(claims map[string]any) string {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err) // it never fails
	}
	text := segment(map[string]any{"alg": "ES256", "typ": "JWT", "jwk": jwk(&key.PublicKey)}) + "." + segment(claims)
	return text + "." + base64url(es256(key, text))
}
