package jwt_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"
	josejwt "github.com/go-jose/go-jose/v4/jwt"

	"github.com/moat-gateway/moat/guard/identity/jwt"
)

// FuzzVerify wants that nothing in a token's text can be changed, and that what is accepted is
// read as go-jose reads it. The issuer signs whatever it is made to: the hostile part may be
// within what is signed.
func FuzzVerify(f *testing.F) {
	a := readAttacks(f)
	secret := make([]byte, 32)
	for _, c := range append(a.Accepted, a.Attacks...) {
		f.Add(c.Header, c.Claims, uint16(len(c.Name)))
	}
	const header = `{"alg":"HS256","typ":"JWT"}`
	f.Add(header, `{"iss":"https://accounts.example","aud":"api","sub":"alice","exp":1900000000}`, uint16(3))
	f.Add(header, `{"iss":"https://accounts.example","aud":["x","api"],"sub":"al\u00efce","exp":19e8,"iat":1.5,"scope":"a b","a":[{},null,-0.0]}`, uint16(700))
	conf := accounts(nil)
	conf.Secret, conf.Algorithms = secret, []string{"HS256"}
	v := verifier(f, conf)
	f.Fuzz(func(t *testing.T, header, payload string, at uint16) {
		input := b64.EncodeToString([]byte(header)) + "." + b64.EncodeToString([]byte(payload))
		h := hmac.New(sha256.New, secret)
		h.Write([]byte(input))
		text := input + "." + b64.EncodeToString(h.Sum(nil))
		p, d := v.Verify(t.Context(), text, start)
		if (p == nil) != d.Denied() {
			t.Fatalf("%v and %s", p, told(d))
		}
		if p == nil {
			tellsNothing(t, "refused", text, d)
			return
		}
		parsed, err := josejwt.ParseSigned(text, []jose.SignatureAlgorithm{jose.HS256})
		if err != nil {
			t.Fatalf("accepted, and %v", err)
		}
		var want map[string]any
		if err = parsed.Claims(secret, &want); err != nil {
			t.Fatalf("accepted, and %v", err)
		}
		b, err := json.Marshal(p.Claims())
		if err != nil {
			t.Fatal(err)
		}
		var got map[string]any
		if err = json.Unmarshal(b, &got); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("claims %v, want %v", got, want)
		}
		i := int(at) % len(text)
		for bit := range 8 {
			changed := text[:i] + string([]byte{text[i] ^ 1<<bit}) + text[i+1:]
			if _, d := v.Verify(t.Context(), changed, start); !d.Denied() {
				t.Errorf("byte %d of %q changed to %q, and accepted", i, text, changed[i])
			}
		}
	})
}

// FuzzParseRevocations wants that a list is read or refused with its line, and that adding
// comments and empty lines to a good one changes nothing.
func FuzzParseRevocations(f *testing.F) {
	for _, s := range []string{"jti a", "sub a before 2026-11-21T16:00:00Z", `sid "a b" # c`, "\xff", `jti "`, "jti a\r\n\r\nsub b", "#", `sub "\x00"`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, list string) {
		r, err := jwt.ParseRevocations([]byte(list))
		if err != nil {
			if !strings.HasPrefix(err.Error(), "line ") {
				t.Errorf("no line in %q", err)
			}
			return
		}
		again, err := jwt.ParseRevocations([]byte("# comment\n\n" + strings.ReplaceAll(list, "\n", " # comment\n\n")))
		if err != nil || !reflect.DeepEqual(r, again) {
			t.Errorf("%q: %v, and with comments %v, %v", list, r, again, err)
		}
	})
}
