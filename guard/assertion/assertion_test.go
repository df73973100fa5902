package assertion_test

import (
	"errors"
	"math"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/moat-gateway/moat/guard/assertion"
	"github.com/moat-gateway/moat/guard/identity"
	"github.com/moat-gateway/moat/guard/identity/assume"
)

var now = time.Unix(1_800_000_000, 0)

var alice = assume.Who{
	Source: "staff", Subject: "alice", Method: identity.JWT, Scopes: []string{"write", "read"}, Roles: []string{"admin"}, Credential: "j-1",
	Claims: map[string]any{"iss": "https://login.example", "email": "alice@example.com", "org": map[string]any{"id": int64(7), "name": "Acme, Inc."}},
}

func with(change func(*assume.Who)) assume.Who {
	w := alice
	change(&w)
	return w
}

func headers(pairs ...string) assertion.Policy {
	p := assertion.Policy{Headers: make(map[string]string)}
	for i := 0; i < len(pairs); i += 2 {
		p.Headers[pairs[i]] = pairs[i+1]
	}
	return p
}

func newGuard(t testing.TB, p assertion.Policy, s *assertion.Signer) *assertion.Guard {
	t.Helper()
	g, err := assertion.New(p, s)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func claims(name string, v any) assume.Who {
	return with(func(w *assume.Who) { w.Claims = map[string]any{name: v} })
}

func TestWhatHeadersSay(t *testing.T) {
	long := strings.Repeat("x", assertion.MaxBytes)
	for name, test := range map[string]struct {
		who  assume.Who
		what string
		want string // "" if the header is absent
	}{
		"subject":                    {alice, "sub", "alice"},
		"source":                     {alice, "source", "staff"},
		"method":                     {alice, "method", "jwt"},
		"credential":                 {alice, "credential", "j-1"},
		"id":                         {alice, "id", "staff|alice"},
		"scopes":                     {alice, "scopes", "read,write"},
		"roles":                      {alice, "roles", "admin"},
		"claim":                      {alice, "claim:email", "alice@example.com"},
		"claim inside an object":     {alice, "claim:org.id", "7"},
		"comma and blank":            {alice, "claim:org.name", "Acme%2C%20Inc."},
		"no such claim":              {alice, "claim:phone", ""},
		"no credential":              {assume.Who{Source: "s", Subject: "a"}, "credential", ""},
		"no issuer":                  {alice, "iss", ""},
		"no scopes":                  {assume.Who{Source: "s", Subject: "a"}, "scopes", ""},
		"nobody's id":                {assume.Who{Source: "s"}, "id", ""},
		"line end":                   {claims("name", "a\r\nX-Admin: 1"), "claim:name", "a%0D%0AX-Admin:%201"},
		"bare control characters":    {claims("name", "\x00\t\n\x7f"), "claim:name", "%00%09%0A%7F"},
		"blanks that HTTP would cut": {claims("name", " a "), "claim:name", "%20a%20"},
		"not ASCII":                  {claims("name", "Zoë"), "claim:name", "Zo%C3%AB"},
		"what forms read as blank":   {claims("name", "a+b"), "claim:name", "a%2Bb"},
		"what looks encoded":         {claims("name", "a%2Cb"), "claim:name", "a%252Cb"},
		"what looks quoted":          {claims("name", []any{`"a`, `b"`}), "claim:name", "%22a,b%22"},
		"item with a comma":          {claims("groups", []any{"a,b", "c"}), "claim:groups", "a%2Cb,c"},
		"empty items":                {claims("groups", []any{"", "a", nil, "", "b"}), "claim:groups", "a,b"},
		"empty list":                 {claims("groups", []any{}), "claim:groups", ""},
		"empty text":                 {claims("name", ""), "claim:name", ""},
		"null":                       {claims("name", nil), "claim:name", ""},
		"numbers":                    {claims("n", []any{int64(-5), 0.5, 1e21, int64(9007199254740993)}), "claim:n", "-5,0.5,1e%2B21,9007199254740993"},
		"true and false":             {claims("b", []any{true, false}), "claim:b", "true,false"},
		"as long as may be":          {claims("name", long), "claim:name", long},
	} {
		t.Run(name, func(t *testing.T) {
			h := http.Header{"X-User": {"mallory"}, "Accept": {"*/*"}}
			if err := newGuard(t, headers("X-User", test.what), nil).Set(h, assume.Principal(test.who), now); err != nil {
				t.Fatal(err)
			}
			got, there := h["X-User"]
			if there != (test.want != "") || there && (len(got) != 1 || got[0] != test.want) || len(h["Accept"]) != 1 {
				t.Errorf("%q, want %q", h, test.want)
			}
		})
	}
}

func TestWhatCannotBeSaidWholeIsNotSaid(t *testing.T) {
	for name, test := range map[string]struct {
		who  assume.Who
		want string
	}{
		"object":                  {claims("c", map[string]any{"a": "b"}), "object"},
		"list of lists":           {claims("c", []any{[]any{"a"}}), "object"},
		"too long":                {claims("c", strings.Repeat("x", assertion.MaxBytes+1)), "8192"},
		"too long once encoded":   {claims("c", strings.Repeat(",", assertion.MaxBytes/3+1)), "8192"},
		"too long with the rest":  {claims("c", strings.Repeat("x", assertion.MaxBytes-4)), "8192"},
		"list too long":           {claims("c", []any{strings.Repeat("x", assertion.MaxBytes-3), strings.Repeat("x", 8000)}), "8192"},
		"not UTF-8":               {claims("c", "a\xff"), "UTF-8"},
		"not JSON":                {claims("c", struct{}{}), "object"},
		"no number":               {claims("c", math.NaN()), "NaN"},
		"a role that is no UTF-8": {with(func(w *assume.Who) { w.Roles = []string{"a\xff"} }), "X-Roles"},
	} {
		t.Run(name, func(t *testing.T) {
			h := http.Header{"X-User": {"mallory"}, "X-Claim": {"mallory"}, "X-Roles": {"mallory"}, "X-Zone": {"mallory"}}
			g := newGuard(t, headers("X-User", "sub", "X-Claim", "claim:c", "X-Roles", "roles", "X-Zone", "source"), nil)
			err := g.Set(h, assume.Principal(test.who), now)
			if err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "xxx") {
				t.Errorf("%v, want %q", err, test.want)
			}
			if len(h) != 0 {
				t.Errorf("%d headers are left", len(h))
			}
		})
	}
}

func TestNothingIsSaidAboutNobody(t *testing.T) {
	g := newGuard(t, headers("X-User", "sub", "x-roles", "roles"), nil)
	h := http.Header{"X-User": {"mallory"}, "X-Roles": {"admin"}, "Accept": {"*/*"}}
	if err := g.Set(h, nil, now); err != nil || len(h) != 1 {
		t.Errorf("%v, %q", err, h)
	}
}

func TestScrubKnowsEverySpelling(t *testing.T) {
	g := newGuard(t, headers("X-User", "sub", "X-Roles", "roles"), nil)
	h := http.Header{"X-User": {"m"}, "X_user": {"m"}, "x.USER": {"m"}, "X~Roles": {"m"}, "X-User-Agent": {"m"}, "X-Use": {"m"}, "": {"m"}}
	if g.Scrub(h); len(h) != 3 {
		t.Errorf("%q", h)
	}
}

func TestARequestCannotChangeWhatTheNextOneSays(t *testing.T) {
	g, p := newGuard(t, headers("X-User", "sub", "X-Zone", "source"), nil), assume.Principal(alice)
	for range 2 {
		h := make(http.Header)
		if err := g.Set(h, p, now); err != nil {
			t.Fatal(err)
		}
		h.Add("X-User", "mallory")
		if h["X-Zone"][0] != "staff" || h["X-User"][0] != "alice" {
			t.Errorf("%q", h)
		}
	}
}

func TestFaultsOfAPolicy(t *testing.T) {
	s := newSigner(t, p256(t))
	token := func(change func(*assertion.TokenPolicy)) assertion.Policy {
		p := assertion.TokenPolicy{Header: "X-Moat-Identity", Audience: "orders"}
		change(&p)
		return assertion.Policy{Token: &p}
	}
	both := token(func(p *assertion.TokenPolicy) { p.Header = "X_User" })
	both.Headers = map[string]string{"X-User": "sub"}
	for name, test := range map[string]struct {
		policy assertion.Policy
		want   string
	}{
		"nothing":                     {assertion.Policy{}, "nothing is said"},
		"no name":                     {headers("", "sub"), "no name"},
		"not a name":                  {headers("X User", "sub"), "no name"},
		"line end in a name":          {headers("X-User\r\n", "sub"), "no name"},
		"two spellings":               {headers("X-User", "sub", "x_user", "id"), "one header"},
		"two cases":                   {headers("X-User", "sub", "X-USER", "id"), "one header"},
		"framing":                     {headers("Content-Length", "sub"), "something else"},
		"framing, spelt otherwise":    {headers("content_length", "sub"), "something else"},
		"hop by hop":                  {headers("Connection", "sub"), "something else"},
		"what the gate sets":          {headers("X-Forwarded-For", "sub"), "something else"},
		"what a user's credential is": {headers("Authorization", "sub"), "something else"},
		"cookies":                     {headers("Cookie", "sub"), "something else"},
		"a method":                    {headers("X-HTTP-Method-Override", "sub"), "something else"},
		"nothing that is known":       {headers("X-User", "name"), `"name"`},
		"no path":                     {headers("X-User", "claim:"), `"claim:"`},
		"token under a header's name": {both, "one header"},
		"no audience":                 {token(func(p *assertion.TokenPolicy) { p.Audience = "" }), "audience"},
		"no header":                   {token(func(p *assertion.TokenPolicy) { p.Header = "" }), "no name"},
		"token in a cookie":           {token(func(p *assertion.TokenPolicy) { p.Header = "Cookie" }), "something else"},
		"too short a life":            {token(func(p *assertion.TokenPolicy) { p.Lifetime = time.Second }), "lifetime 1s"},
		"too long a life":             {token(func(p *assertion.TokenPolicy) { p.Lifetime = 2 * time.Hour }), "lifetime 2h"},
		"own claim":                   {token(func(p *assertion.TokenPolicy) { p.Claims = []string{"aud"} }), `"aud"`},
		"a key's claim":               {token(func(p *assertion.TokenPolicy) { p.Claims = []string{"cnf"} }), `"cnf"`},
		"claim twice":                 {token(func(p *assertion.TokenPolicy) { p.Claims = []string{"org", "org"} }), "twice"},
		"another subject":             {token(func(p *assertion.TokenPolicy) { p.Subject = "email" }), `"email"`},
	} {
		if _, err := assertion.New(test.policy, s); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q", name, err, test.want)
		}
	}
	if _, err := assertion.New(token(func(*assertion.TokenPolicy) {}), nil); err == nil {
		t.Error("a token without a key")
	}
	two := headers("Host", "sub", "X-User", "nobody")
	if _, err := assertion.New(two, nil); err == nil || !strings.Contains(err.Error(), "Host") || !strings.Contains(err.Error(), "nobody") {
		t.Errorf("not every fault is told: %v", err)
	}
}

func TestNamesAreThoseThatOnlyTheGateSets(t *testing.T) {
	p := headers("x-forwarded-user", "sub", "X-Roles", "roles")
	p.Token = &assertion.TokenPolicy{Header: "authorization", Audience: "orders"}
	if got := strings.Join(newGuard(t, p, newSigner(t, p256(t))).Names(), " "); got != "X-Roles X-Forwarded-User" {
		t.Error(got)
	}
}

func TestATokenTakesThePlaceOfTheCallersOwn(t *testing.T) {
	g := newGuard(t, assertion.Policy{Token: &assertion.TokenPolicy{Header: "Authorization", Audience: "orders"}}, newSigner(t, p256(t)))
	h := http.Header{"Authorization": {"Bearer theirs", "Basic dTpw"}}
	if err := g.Set(h, assume.Principal(alice), now); err != nil {
		t.Fatal(err)
	}
	if v := h["Authorization"]; len(v) != 1 || !strings.HasPrefix(v[0], "Bearer ey") {
		t.Errorf("%q", v)
	}
	if err := g.Set(h, nil, now); err != nil || len(h) != 0 {
		t.Errorf("%v, %q", err, h)
	}
	h = http.Header{"Authorization": {"Bearer theirs"}}
	expired := with(func(w *assume.Who) { w.Expires = now })
	if err := g.Set(h, assume.Principal(expired), now); !errors.Is(err, assertion.ErrExpired) || len(h) != 0 {
		t.Errorf("%v, %q", err, h)
	}
}
