package lab

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

// TestEachCheckOfATokenHasItsHole: and no other; the strict one has none.
func TestEachCheckOfATokenHasItsHole(t *testing.T) {
	l := open(t)
	c := newCaller(t, l, reader(l))
	var issued struct {
		Token string `json:"access_token"`
	}
	if err := json.Unmarshal([]byte(c.call("GET", "{api}/jwt/token", "").body), &issued); err != nil {
		t.Fatal(err)
	}
	// The attacker has what is public, and a key of his own.
	var published jose.JSONWebKeySet
	text := c.call("GET", "{api}/jwt/jwks", "").body
	if err := json.Unmarshal([]byte(text), &published); err != nil || len(published.Keys) != 1 || !published.Keys[0].IsPublic() {
		t.Fatal(err, text)
	}
	own, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	claims := func(life time.Duration) map[string]any {
		return map[string]any{"iss": tokenIssuer, "aud": tokenAudience, "sub": "mallory", "exp": time.Now().Add(life).Unix()}
	}
	sign := func(key jose.SigningKey, embed bool) string {
		signer, err := jose.NewSigner(key, &jose.SignerOptions{EmbedJWK: embed})
		if err != nil {
			t.Fatal(err)
		}
		token, err := jwt.Signed(signer).Claims(claims(time.Hour)).Serialize()
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	parts := strings.Split(issued.Token, ".")
	tokens := map[string]string{
		"none":      segment(map[string]string{"alg": "nOnE"}) + "." + segment(claims(time.Hour)) + ".",
		"confused":  sign(jose.SigningKey{Algorithm: jose.HS256, Key: []byte(text)}, false),
		"embedded":  sign(jose.SigningKey{Algorithm: jose.ES256, Key: own}, true),
		"unchecked": parts[0] + "." + segment(claims(time.Hour)) + "." + parts[2],
		"expired":   c.v.keys.sign("ES256", nil, claims(-time.Hour)),
	}
	for _, check := range []string{"strict", "none", "confused", "embedded", "unchecked", "expired"} {
		at := "{api}/jwt/" + check
		if got := c.call("GET", at, "", "Authorization", "Bearer "+issued.Token); got.status != 200 || !strings.Contains(got.body, `"user":"alice"`) {
			t.Errorf("%s: alice's own: %d %s", check, got.status, got.body)
		}
		for name, token := range tokens {
			run := c.v.begin(nil, nil)
			got := c.call("GET", at, "", "Authorization", "Bearer "+token)
			// Who checks no signature takes all of these but what has expired.
			let := name == check || check == "unchecked" && name != "expired"
			if want := map[bool]int{true: 200, false: 401}[let]; got.status != want || (len(did(c.v, run)) == 1) != let {
				t.Errorf("%s: the token for %s: %d %s; want %d", check, name, got.status, got.body, want)
			}
		}
		for _, junk := range []string{"", "a", "a.b.c", "..", strings.Repeat(".", 1000), "e30.e30.", "bnVsbA.bnVsbA.", segment(map[string]any{"alg": "ES256", "jwk": map[string]string{"kty": "EC"}}) + ".e30.AA", strings.Repeat("A", 30000)} {
			if got := c.call("GET", at, "", "Authorization", "Bearer "+junk); got.status != 401 && got.status != 403 {
				t.Errorf("%s: %.40q: %d %s", check, junk, got.status, got.body)
			}
		}
		if got := c.call("GET", at, ""); got.status != 401 || got.header.Get("WWW-Authenticate") != "Bearer" {
			t.Errorf("%s: without a token: %d", check, got.status)
		}
	}
	if got := c.call("GET", "{api}/jwt/other", "", "Authorization", "Bearer "+issued.Token); got.status != 404 {
		t.Errorf("another check: %d", got.status)
	}
}
