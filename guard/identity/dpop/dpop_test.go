package dpop_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/moat-gateway/moat/guard"
	"github.com/moat-gateway/moat/guard/identity"
	"github.com/moat-gateway/moat/guard/identity/dpop"
	"github.com/moat-gateway/moat/guard/identity/internal/principal"
)

// start is a moment; no test depends on which.
var start = time.Date(2026, 11, 21, 16, 0, 0, 0, time.UTC)

const token = "header.claims.signature"

var target = dpop.Target{Scheme: "https", Host: "api.example"}

var b64 = base64.RawURLEncoding

// client has a key, and a token that is bound to it.
type client struct {
	algorithm string
	key       crypto.Signer
}

func newClient(t testing.TB) client {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return client{"ES256", k}
}

func (c client) jwk() jose.JSONWebKey { return jose.JSONWebKey{Key: c.key.Public()} }

func (c client) principal(t testing.TB) *identity.Principal {
	t.Helper()
	k := c.jwk()
	print, err := k.Thumbprint(crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	return principal.New(principal.Facts{Source: "accounts", Subject: "alice", Method: principal.JWT, Confirmation: b64.EncodeToString(print)})
}

type members map[string]any

// proof makes a proof for GET https://api.example/orders, but for what is said otherwise; nil
// takes a member away.
func (c client) proof(t testing.TB, header, claims members) string {
	t.Helper()
	sum := sha256.Sum256([]byte(token))
	h := members{"typ": "dpop+jwt", "alg": c.algorithm, "jwk": c.jwk()}
	p := members{"jti": "1", "htm": "GET", "htu": "https://api.example/orders", "iat": start.Unix(), "ath": b64.EncodeToString(sum[:])}
	input := part(t, h, header) + "." + part(t, p, claims)
	return input + "." + b64.EncodeToString(c.sign(t, input))
}

func part(t testing.TB, m, other members) string {
	t.Helper()
	for name, v := range other {
		if m[name] = v; v == nil {
			delete(m, name)
		}
	}
	b, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b64.EncodeToString(b)
}

func (c client) sign(t testing.TB, input string) []byte {
	t.Helper()
	sum := sha256.Sum256([]byte(input))
	switch k := c.key.(type) {
	case *ecdsa.PrivateKey:
		r, s, err := ecdsa.Sign(rand.Reader, k, sum[:])
		if err != nil {
			t.Fatal(err)
		}
		return append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...)
	case ed25519.PrivateKey:
		return ed25519.Sign(k, []byte(input))
	case *rsa.PrivateKey:
		b, err := rsa.SignPKCS1v15(rand.Reader, k, crypto.SHA256, sum[:])
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	t.Fatal("no such key")
	return nil
}

func newGuard(t testing.TB, p dpop.Policy) *dpop.Guard {
	t.Helper()
	g, err := dpop.New(p)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func request(target string, proofs ...string) *http.Request {
	r := httptest.NewRequest(http.MethodGet, target, http.NoBody)
	r.Header.Set("Authorization", "DPoP "+token)
	for _, p := range proofs {
		r.Header.Add("DPoP", p)
	}
	return r
}

func allow(t testing.TB, d guard.Decision) {
	t.Helper()
	if d.Ends() {
		t.Errorf("%s %+v, want it allowed", d.Reason, d.Evidence)
	}
}

func deny(t testing.TB, d guard.Decision, want guard.Reason) {
	t.Helper()
	if !d.Denied() || d.Reason != want {
		t.Errorf("%s %s %+v, want %s", d.Outcome, d.Reason, d.Evidence, want)
	}
}

func TestWhoNeedsAProof(t *testing.T) {
	g := newGuard(t, dpop.Policy{})
	c := newClient(t)
	bound, unbound := c.principal(t), principal.New(principal.Facts{Source: "accounts", Subject: "bob"})
	decide := func(p *identity.Principal, authorization string, proofs ...string) guard.Decision {
		r := request("/orders", proofs...)
		if r.Header.Set("Authorization", authorization); authorization == "" {
			r.Header.Del("Authorization")
		}
		return g.Decide(t.Context(), r, p, target, start)
	}
	allow(t, decide(nil, ""))
	allow(t, decide(unbound, "Bearer "+token))
	allow(t, decide(unbound, "")) // a session, or a key in a header of its own
	allow(t, decide(unbound, "Bearer "+token, "no proof is read"))
	deny(t, decide(unbound, "DPoP "+token, c.proof(t, nil, nil)), guard.ProofInvalid)
	deny(t, decide(bound, "Bearer "+token), guard.ProofMissing)
	deny(t, decide(bound, "Bearer "+token, c.proof(t, nil, nil)), guard.ProofMissing)
	deny(t, decide(bound, "", c.proof(t, nil, nil)), guard.ProofMissing)
	deny(t, decide(bound, "DPoP "+token), guard.ProofMissing)
	deny(t, decide(bound, "DPoP "+token, c.proof(t, nil, nil), c.proof(t, nil, nil)), guard.ProofInvalid)
	deny(t, decide(bound, "DPoP "+token, c.proof(t, nil, nil)+", "+c.proof(t, nil, nil)), guard.ProofInvalid)
	deny(t, decide(bound, "DPoP other.claims.signature", c.proof(t, nil, nil)), guard.ProofInvalid)
	allow(t, decide(bound, "dpop "+token, c.proof(t, nil, nil)))
}

func TestTheExamplesOfTheStandard(t *testing.T) {
	text, err := os.ReadFile("../../../vectors/jwt/dpop.json")
	if err != nil {
		t.Fatal(err)
	}
	var cases []struct {
		Name, Thumbprint, Method, URL, Token, Reason, Proof string
		Now                                                 int64
	}
	if err = json.Unmarshal(text, &cases); err != nil {
		t.Fatal(err)
	}
	for _, c := range cases {
		u, err := url.Parse(c.URL)
		if err != nil {
			t.Fatal(err)
		}
		r := request(u.Path, c.Proof)
		r.Method = c.Method
		r.Header.Set("Authorization", "DPoP "+c.Token)
		p := principal.New(principal.Facts{Source: "accounts", Subject: "alice", Confirmation: c.Thumbprint})
		g := newGuard(t, dpop.Policy{})
		d := g.Decide(t.Context(), r, p, dpop.Target{Scheme: u.Scheme, Host: u.Host}, time.Unix(c.Now, 0))
		if c.Reason == "" {
			allow(t, d)
		} else if d.Reason.String() != c.Reason || !strings.Contains(d.Evidence.Where, "ath") {
			t.Errorf("%s: %s %+v", c.Name, d.Reason, d.Evidence)
		}
	}
}

func TestWhatAProofHasToSay(t *testing.T) {
	c, other := newClient(t), newClient(t)
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	private := members{}
	b, err := jose.JSONWebKey{Key: c.key}.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	if err = json.Unmarshal(b, &private); err != nil {
		t.Fatal(err)
	}
	weakling := client{"RS256", weak}
	for name, a := range map[string]struct {
		client         client
		header, claims members
		where          string // the evidence is
	}{
		"another typ":         {c, members{"typ": "JWT"}, nil, "typ"},
		"no typ":              {c, members{"typ": nil}, nil, "typ"},
		"alg none":            {c, members{"alg": "none"}, nil, "alg"},
		"alg HS256":           {c, members{"alg": "HS256"}, nil, "alg"},
		"alg of another key":  {c, members{"alg": "EdDSA"}, nil, "jwk"},
		"alg is not listed":   {c, members{"alg": "ES384"}, nil, "alg"},
		"no key":              {c, members{"jwk": nil}, nil, "jwk"},
		"a key that is text":  {c, members{"jwk": "key"}, nil, "jwk"},
		"a private key":       {c, members{"jwk": private}, nil, "jwk"},
		"a secret":            {c, members{"jwk": members{"kty": "oct", "k": "c2VjcmV0"}}, nil, "jwk"},
		"a certificate":       {c, members{"jwk": members{"kty": "EC", "x5c": []string{"MII"}}}, nil, "jwk"},
		"an unknown key":      {c, members{"jwk": members{"kty": "XYZ"}}, nil, "jwk"},
		"another's key":       {other, nil, nil, "jwk"},
		"another's signature": {other, members{"jwk": c.jwk()}, nil, "signature"},
		"a weak key":          {weakling, nil, nil, "jwk"},
		"critical":            {c, members{"crit": []string{"x"}}, nil, "header"},
		"a place of keys":     {c, members{"jku": "https://a.example"}, nil, "header"},
		"another method":      {c, nil, members{"htm": "POST"}, "htm"},
		"the method's case":   {c, nil, members{"htm": "get"}, "htm"},
		"no method":           {c, nil, members{"htm": nil}, "htm"},
		"no URL":              {c, nil, members{"htu": nil}, "htu"},
		"a path alone":        {c, nil, members{"htu": "/orders"}, "htu"},
		"another host":        {c, nil, members{"htu": "https://api.example.evil.test/orders"}, "htu"},
		"another scheme":      {c, nil, members{"htu": "http://api.example/orders"}, "htu"},
		"another port":        {c, nil, members{"htu": "https://api.example:8443/orders"}, "htu"},
		"another path":        {c, nil, members{"htu": "https://api.example/order"}, "htu"},
		"a slash more":        {c, nil, members{"htu": "https://api.example/orders/"}, "htu"},
		"a path's case":       {c, nil, members{"htu": "https://api.example/Orders"}, "htu"},
		"a slash escaped":     {c, nil, members{"htu": "https://api.example%2Forders"}, "htu"},
		"user information":    {c, nil, members{"htu": "https://api.example@evil.test/orders"}, "htu"},
		"a user":              {c, nil, members{"htu": "https://u@api.example/orders"}, "htu"},
		"opaque":              {c, nil, members{"htu": "https:api.example/orders"}, "htu"},
		"too old":             {c, nil, members{"iat": start.Unix() - 61}, "iat"},
		"too new":             {c, nil, members{"iat": start.Unix() + 61}, "iat"},
		"a time without end":  {c, nil, members{"iat": 1e300}, "iat"},
		"no time":             {c, nil, members{"iat": nil}, "iat"},
		"time as text":        {c, nil, members{"iat": "now"}, "iat"},
		"no token":            {c, nil, members{"ath": nil}, "ath"},
		"another token":       {c, nil, members{"ath": "fUHyO2r2Z3DZ53EsNrWBb0xWXoaNy59IiKCAqksmQEo"}, "ath"},
		"no name":             {c, nil, members{"jti": nil}, "jti"},
		"an empty name":       {c, nil, members{"jti": ""}, "jti"},
		"a name without end":  {c, nil, members{"jti": strings.Repeat("x", 257)}, "jti"},
		"a name that is none": {c, nil, members{"jti": 1}, "jti"},
		"too much":            {c, nil, members{"pad": strings.Repeat("x", 8<<10)}, ""},
	} {
		g := newGuard(t, dpop.Policy{})
		p := c.principal(t)
		if a.client == weakling {
			p = weakling.principal(t)
		}
		text := a.client.proof(t, a.header, a.claims)
		d := g.Decide(t.Context(), request("/orders", text), p, target, start)
		if d.Reason != guard.ProofInvalid || d.Evidence.Where != strings.TrimSpace("DPoP "+a.where) {
			t.Errorf("%s: %s %+v", name, d.Reason, d.Evidence)
		}
		if all := d.Evidence.Got + d.Evidence.Want; len(all) > 600 || strings.Contains(all, text[len(text)-20:]) {
			t.Errorf("%s: evidence %q", name, all)
		}
		// What was refused has used nothing up.
		allow(t, g.Decide(t.Context(), request("/orders", c.proof(t, nil, nil)), c.principal(t), target, start))
	}
	for name, a := range map[string]struct{ header, claims members }{
		"typ in capitals":    {members{"typ": "DPoP+JWT"}, nil},
		"query, fragment":    {nil, members{"htu": "https://api.example/orders?a=b#c"}},
		"the default port":   {nil, members{"htu": "https://api.example:443/orders"}},
		"capitals":           {nil, members{"htu": "HTTPS://API.Example/orders"}},
		"escaped for naught": {nil, members{"htu": "https://api.example/%6frders"}},
		"old":                {nil, members{"iat": start.Unix() - 60}},
		"new":                {nil, members{"iat": start.Unix() + 60}},
		"parts of a second":  {nil, members{"iat": float64(start.Unix()) + 0.5}},
		"more":               {nil, members{"nonce": "n", "x": []int{1}}},
	} {
		d := newGuard(t, dpop.Policy{}).Decide(t.Context(), request("/orders?page=2", c.proof(t, a.header, a.claims)), c.principal(t), target, start)
		if d.Ends() {
			t.Errorf("%s: %s %+v", name, d.Reason, d.Evidence)
		}
	}
}

func TestPathsAreComparedInTheirNormalForm(t *testing.T) {
	c := newClient(t)
	for _, x := range []struct {
		path, htu string
		same      bool
	}{
		{"/", "https://api.example", true},
		{"/a%2fb", "https://api.example/a%2Fb", true},
		{"/a%2Fb", "https://api.example/a/b", false},
		{"/a%20b", "https://api.example/a%20b", true},
		{"/caf%C3%A9", "https://api.example/caf%c3%a9", true},
		{"/~a", "https://api.example/%7Ea", true},
		{"/a%25", "https://api.example/a%25", true},
		{"/a%2541", "https://api.example/aA", false},
		{"/a", "https://api.example/b/../a", false},
		{"/a", "https://api.example//a", false},
	} {
		r := request(x.path, c.proof(t, nil, members{"htu": x.htu}))
		d := newGuard(t, dpop.Policy{}).Decide(t.Context(), r, c.principal(t), target, start)
		if d.Denied() == x.same {
			t.Errorf("%s and %s: %s %+v", x.path, x.htu, d.Reason, d.Evidence)
		}
	}
	plain := dpop.Target{Scheme: "http", Host: "LOCALHOST:80"}
	allow(t, newGuard(t, dpop.Policy{}).Decide(t.Context(), request("/", c.proof(t, nil, members{"htu": "http://localhost"})), c.principal(t), plain, start))
}

func TestEachAlgorithm(t *testing.T) {
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	r, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []client{newClient(t), {"EdDSA", ed}, {"RS256", r}} {
		all, one := newGuard(t, dpop.Policy{}), newGuard(t, dpop.Policy{Algorithms: []string{"ES256"}})
		allow(t, all.Decide(t.Context(), request("/orders", c.proof(t, nil, nil)), c.principal(t), target, start))
		d := one.Decide(t.Context(), request("/orders", c.proof(t, nil, nil)), c.principal(t), target, start)
		if (c.algorithm == "ES256") == d.Denied() {
			t.Errorf("%s: %s %+v", c.algorithm, d.Reason, d.Evidence)
		}
	}
}

func TestAProofIsGoodOnce(t *testing.T) {
	g := newGuard(t, dpop.Policy{})
	c, other := newClient(t), newClient(t)
	decide := func(c client, after time.Duration, claims members) guard.Decision {
		return g.Decide(t.Context(), request("/orders", c.proof(t, nil, claims)), c.principal(t), target, start.Add(after))
	}
	allow(t, decide(c, 0, nil))
	deny(t, decide(c, 0, nil), guard.ProofUsed)
	deny(t, decide(c, 60*time.Second, nil), guard.ProofUsed)
	deny(t, decide(c, 61*time.Second, nil), guard.ProofInvalid)
	allow(t, decide(c, 0, members{"jti": "2"}))
	allow(t, decide(other, 0, nil)) // the name is the key's own
	allow(t, decide(c, 0, members{"jti": "3", "iat": start.Unix() + 60}))
	deny(t, decide(c, 120*time.Second, members{"jti": "3", "iat": start.Unix() + 60}), guard.ProofUsed)
	allow(t, decide(c, time.Hour, members{"iat": start.Unix() + 3600})) // the old use is forgotten
}

func TestAProofFromBeforeTheMemoryIsNotBelieved(t *testing.T) {
	g := newGuard(t, dpop.Policy{Since: start})
	c := newClient(t)
	decide := func(iat int64) guard.Decision {
		return g.Decide(t.Context(), request("/orders", c.proof(t, nil, members{"iat": iat})), c.principal(t), target, start.Add(time.Second))
	}
	deny(t, decide(start.Unix()-1), guard.ProofInvalid)
	allow(t, decide(start.Unix()))
}

func TestFullMemoryRefusesAndForgetsNothing(t *testing.T) {
	g := newGuard(t, dpop.Policy{Memory: 3})
	c := newClient(t)
	decide := func(after time.Duration, jti string) guard.Decision {
		now := start.Add(after)
		return g.Decide(t.Context(), request("/orders", c.proof(t, nil, members{"jti": jti, "iat": now.Unix()})), c.principal(t), target, now)
	}
	for _, jti := range []string{"1", "2", "3"} {
		allow(t, decide(0, jti))
	}
	deny(t, decide(0, "4"), guard.IdentityUnavailable)
	deny(t, decide(0, "1"), guard.ProofUsed)
	deny(t, decide(75*time.Second, "4"), guard.IdentityUnavailable)
	allow(t, decide(76*time.Second, "4"))
	for n := range 200 { // far more than fit, a minute and a half apart
		allow(t, decide(time.Duration(n+1)*100*time.Second, fmt.Sprint(n)))
	}
}

func TestASharedMemoryIsAsked(t *testing.T) {
	c := newClient(t)
	seen := make(map[uint64]time.Time)
	var fault error
	once := func(_ context.Context, id uint64, expires time.Time) (bool, error) {
		if fault != nil {
			return false, fault
		}
		_, used := seen[id]
		seen[id] = expires
		return !used, nil
	}
	one, two := newGuard(t, dpop.Policy{Once: once}), newGuard(t, dpop.Policy{Once: once})
	text := c.proof(t, nil, nil)
	allow(t, one.Decide(t.Context(), request("/orders", text), c.principal(t), target, start))
	deny(t, two.Decide(t.Context(), request("/orders", text), c.principal(t), target, start), guard.ProofUsed)
	for _, expires := range seen {
		if expires.Before(start.Add(time.Minute)) || expires.After(start.Add(2*time.Minute)) {
			t.Errorf("remembered until %s", expires)
		}
	}
	fault = errors.New("no answer")
	d := one.Decide(t.Context(), request("/orders", c.proof(t, nil, members{"jti": "2"})), c.principal(t), target, start)
	if deny(t, d, guard.IdentityUnavailable); d.Evidence.Got != "no answer" {
		t.Errorf("%+v", d.Evidence)
	}
}

func TestFaultsInThePolicy(t *testing.T) {
	for want, p := range map[string]dpop.Policy{
		"no algorithms":     {Algorithms: []string{}},
		`algorithm "HS256"`: {Algorithms: []string{"HS256"}},
		`algorithm "none"`:  {Algorithms: []string{"ES256", "none"}},
		"max age 500ms":     {MaxAge: 500 * time.Millisecond},
		"max age 1h":        {MaxAge: time.Hour},
		"memory for -1":     {Memory: -1},
	} {
		if _, err := dpop.New(p); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	if got := newGuard(t, dpop.Policy{}).Algorithms(); len(got) != 4 || got[0] != "ES256" {
		t.Errorf("%v", got)
	}
}

// FuzzDecide wants that no proof but the one that was made is accepted, that it is accepted
// once, and that no text is too strange to be judged.
func FuzzDecide(f *testing.F) {
	// A key and signatures that are the same in each process that fuzzes.
	c := client{"EdDSA", ed25519.NewKeyFromSeed(make([]byte, 32))}
	good := c.proof(f, nil, nil)
	f.Add(good, "/orders")
	f.Add(good[:len(good)-1], "/orders")
	f.Add(good+".", "/%6Frders")
	f.Add("e30.e30.AA", "/%")
	f.Add(c.proof(f, members{"jwk": nil}, members{"iat": -1}), "")
	p := c.principal(f)
	f.Fuzz(func(t *testing.T, text, path string) {
		g := newGuard(t, dpop.Policy{Memory: 8})
		r := request("/orders", text)
		r.URL.Path, r.URL.RawPath = path, path
		for range 2 {
			d := g.Decide(t.Context(), r, p, target, start)
			if !d.Denied() && (text != good || path != "/orders") {
				t.Errorf("accepted for %q: %q", path, text)
			}
		}
		for bit := range 8 {
			changed := []byte(good)
			changed[len(text)*8%len(good)] ^= 1 << bit
			if d := g.Decide(t.Context(), request("/orders", string(changed)), p, target, start); !d.Denied() && !bytes.Equal(changed, []byte(good)) {
				t.Errorf("accepted: %q", changed)
			}
		}
	})
}

func BenchmarkDecide(b *testing.B) {
	c := newClient(b)
	p := c.principal(b)
	g := newGuard(b, dpop.Policy{Once: func(context.Context, uint64, time.Time) (bool, error) { return true, nil }})
	r := request("/orders", c.proof(b, nil, nil))
	b.ReportAllocs()
	for b.Loop() {
		if d := g.Decide(b.Context(), r, p, target, start); d.Denied() {
			b.Fatal(d.Evidence)
		}
	}
}
