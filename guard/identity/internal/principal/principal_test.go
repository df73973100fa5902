package principal_test

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"github.com/moat-gateway/moat/guard/identity/internal/principal"
)

func TestClaimsThatTwoParsersCouldReadDifferentlyAreRefused(t *testing.T) {
	for text, want := range map[string]string{
		`{"sub":"a","sub":"b"}`:      "twice",
		`{"a":{"b":1,"b":2}}`:        "twice",
		`{"sub":"a","\u0073ub":"b"}`: "twice",
		`{"sub":"a"}{}`:              "follows",
		`{"sub":"a"} x`:              "follows",
		`["sub"]`:                    "not an object",
		`{"a":` + strings.Repeat("[", 20) + strings.Repeat("]", 20) + `}`: "nests",
		`{"a":1e999}`:      "too large",
		"{\"a\":\"\xff\"}": "UTF-8",
		`{"a":}`:           "not JSON",
		`{"a"`:             "not JSON",
		``:                 "not JSON",
	} {
		if _, err := principal.ParseClaims([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}

func TestNumbersKeepTheirValue(t *testing.T) {
	c, err := principal.ParseClaims([]byte(`{"id":9007199254740993,"exp":1.7e9,"half":0.5,"minus":-0.0,"list":[1,"a",null,true,{}]}`))
	want := map[string]any{
		"id": int64(9007199254740993), "exp": int64(1_700_000_000), "half": 0.5, "minus": int64(0), "list": []any{int64(1), "a", nil, true, map[string]any{}},
	}
	if err != nil || !reflect.DeepEqual(c, want) {
		t.Errorf("%#v, %v", c, err)
	}
}

func TestAClaimIsFoundByItsPath(t *testing.T) {
	p := principal.New(principal.Facts{
		Scopes: []string{"b", "a", "b"}, Roles: []string{"admin"},
		Claims: map[string]any{"realm_access": map[string]any{"roles": []any{"x", int64(1), "y"}}, "https://a.example/org": "acme", "scope": "a  b"},
	})
	roles, _ := p.Claim("realm_access.roles")
	scope, _ := p.Claim("scope")
	org, _ := p.Claim("https://a.example/org")
	if got := principal.Strings(roles); !reflect.DeepEqual(got, []string{"x", "y"}) {
		t.Errorf("roles: %q", got)
	}
	if got := principal.Strings(scope); !reflect.DeepEqual(got, []string{"a", "b"}) {
		t.Errorf("scope: %q", got)
	}
	for _, path := range []string{"", ".", "realm_access.", "realm_access.roles.x", "nobody.there"} {
		if v, ok := p.Claim(path); ok {
			t.Errorf("%q: %v", path, v)
		}
	}
	if org != "acme" || !p.HasScope("a") || !p.HasRole("admin") || p.HasScope("c") || len(p.Scopes()) != 2 {
		t.Errorf("%v %v", org, p.Scopes())
	}
}

// FuzzParseClaims wants that what is accepted is read as encoding/json reads it.
func FuzzParseClaims(f *testing.F) {
	for _, s := range []string{`{}`, `{"a":1,"a":2}`, `{"a":[1,2.5,{"b":null}]}`, `{"\u0061":1,"a":2}`, `{"a":1}{`, "{\"a\":\"\xff\"}", `{"a":1e400}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		got, err := principal.ParseClaims(text)
		if err != nil {
			return
		}
		var want map[string]any
		if err = json.Unmarshal(text, &want); err != nil {
			t.Fatalf("%q: accepted, and %v", text, err)
		}
		var again map[string]any
		b, err := json.Marshal(got)
		if err != nil {
			t.Fatal(err)
		}
		if err = json.Unmarshal(b, &again); err != nil || !reflect.DeepEqual(again, want) {
			t.Errorf("%q: %v, want %v", text, again, want)
		}
	})
}
