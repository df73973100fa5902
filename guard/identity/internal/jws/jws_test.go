package jws_test

import (
	"encoding/base64"
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"

	"github.com/moat-gateway/moat/guard/identity/internal/jws"
)

// vectors are the examples of the standards.
func vectors(t testing.TB) (v struct {
	Signed []struct {
		Name, Algorithm, Token string
		Key                    jose.JSONWebKey
	}
	Unsigned []struct{ Name, Token string }
},
) {
	t.Helper()
	text, err := os.ReadFile("../../../../vectors/jwt/signatures.json")
	if err != nil {
		t.Fatal(err)
	}
	if err = json.Unmarshal(text, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

func TestTheExamplesOfTheStandards(t *testing.T) {
	v := vectors(t)
	for _, c := range v.Signed {
		if _, _, err := jws.Split(c.Token); err != nil {
			t.Errorf("%s: %v", c.Name, err)
		}
		if fit, err := jws.Algorithms(c.Key.Key); err != nil || !slices.Contains(fit, c.Algorithm) {
			t.Errorf("%s: the key is for %v, %v", c.Name, fit, err)
		}
		if !jws.Verify(c.Token, c.Algorithm, c.Key.Key) {
			t.Errorf("%s: the signature does not fit", c.Name)
		}
		for _, other := range jws.Known {
			if other != c.Algorithm && jws.Verify(c.Token, other, c.Key.Key) {
				t.Errorf("%s: verified by %s", c.Name, other)
			}
		}
		for _, other := range v.Signed {
			if other.Token != c.Token && other.Key.KeyID != c.Key.KeyID && jws.Verify(c.Token, c.Algorithm, other.Key.Key) {
				t.Errorf("%s: verified with the key of %s", c.Name, other.Name)
			}
		}
		changed := strings.Replace(c.Token, ".", ".A", 1)
		if jws.Verify(changed, c.Algorithm, c.Key.Key) {
			t.Errorf("%s: verified with another payload", c.Name)
		}
	}
	for _, c := range v.Unsigned {
		for _, signed := range v.Signed {
			for _, algorithm := range append(jws.Known, "none", "") {
				if jws.Verify(c.Token, algorithm, signed.Key.Key) {
					t.Errorf("%s: verified by %q", c.Name, algorithm)
				}
			}
		}
	}
}

// FuzzSplit wants that what is split is one text for one token: put together again it is the same.
func FuzzSplit(f *testing.F) {
	for _, c := range vectors(f).Signed {
		f.Add(c.Token)
	}
	for _, s := range []string{"", "..", "e30.e30.", "e30.e30.AA", "e30.e31.AA", "e30\n.e30.AA", "e30=.e30.AA", "e30.e30.AA.AA"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		header, payload, err := jws.Split(text)
		if err != nil {
			return
		}
		third := text[strings.LastIndexByte(text, '.')+1:]
		if again := base64.RawURLEncoding.EncodeToString(header) + "." + base64.RawURLEncoding.EncodeToString(payload) + "." + third; again != text {
			t.Errorf("%q was read as %q", text, again)
		}
	})
}
