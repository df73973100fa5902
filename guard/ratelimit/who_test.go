package ratelimit_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/moat-gateway/moat/guard"
	"github.com/moat-gateway/moat/guard/identity"
	"github.com/moat-gateway/moat/guard/identity/assume"
	"github.com/moat-gateway/moat/guard/ratelimit"
	"github.com/moat-gateway/moat/store/memory"
)

type (
	by   = []ratelimit.Fact
	rule = ratelimit.Rule
	tier = ratelimit.Tier
)

var (
	alice = assume.Principal(assume.Who{Source: "accounts", Subject: "alice", Method: identity.JWT, Claims: map[string]any{"org": "acme", "plan": "pro"}})
	bob   = assume.Principal(assume.Who{Source: "accounts", Subject: "bob", Method: identity.JWT, Credential: "jti", Claims: map[string]any{"org": "acme", "orgs": []any{"a", int64(7)}}})
	carol = assume.Principal(assume.Who{Source: "accounts", Subject: "carol", Method: identity.Session})
	key1  = assume.Principal(assume.Who{Source: "keys", Subject: "alice", Method: identity.APIKey, Credential: "k1"})
	key2  = assume.Principal(assume.Who{Source: "keys", Subject: "alice", Method: identity.APIKey, Credential: "k2"})
)

// anybody is a verifier that takes a token for its owner's name.
type anybody struct{}

func (anybody) Recognizes(string) bool { return true }

func (anybody) Verify(_ context.Context, text string, _ time.Time) (*identity.Principal, guard.Decision) {
	return assume.Principal(assume.Who{Source: "accounts", Subject: text, Method: identity.JWT}), guard.Decision{Reason: guard.IdentityVerified}
}

// from is what a request of somebody is counted by.
func from(who *identity.Principal, addr, account string) ratelimit.Facts {
	f := facts(addr)
	f.Principal, f.Account = who, account
	return f
}

// ask is a request that is to pass, or to be refused for the reason and under the key.
type ask struct {
	f      ratelimit.Facts
	reason guard.Reason // OK if it passes
	key    string
}

func TestWhoIsCountedTogether(t *testing.T) {
	const home, office = "203.0.113.7", "198.51.100.7"
	once := words("1/h")
	long := strings.Repeat("a", 200)
	for _, c := range []struct {
		name string
		rule rule
		asks []ask
	}{
		{"a principal, wherever he is", rule{By: by{ratelimit.Principal}}, []ask{
			{from(alice, home, ""), guard.OK, ""},
			{from(bob, home, ""), guard.OK, ""},
			{from(alice, office, ""), guard.RateLimitedPrincipal, "principal=accounts|alice"},
			{from(key1, home, ""), guard.OK, ""},
			{from(key2, home, ""), guard.RateLimitedPrincipal, "principal=keys|alice"},
		}},
		{"who leaves the token out, by address", rule{By: by{ratelimit.Principal}}, []ask{
			{from(alice, home, ""), guard.OK, ""},
			{from(nil, home, ""), guard.OK, ""},
			{from(nil, home, ""), guard.RateLimited, home},
			{from(nil, office, ""), guard.OK, ""},
			{from(alice, home, ""), guard.RateLimitedPrincipal, "principal=accounts|alice"},
		}},
		{"an API key, and the owner of anything else", rule{By: by{ratelimit.Credential}}, []ask{
			{from(key1, home, ""), guard.OK, ""},
			{from(key2, home, ""), guard.OK, ""},
			{from(key1, office, ""), guard.RateLimitedPrincipal, "api_key=keys|k1"},
			{from(bob, home, ""), guard.OK, ""},
			{from(bob, office, ""), guard.RateLimitedPrincipal, "principal=accounts|bob"},
		}},
		{"a tenant", rule{ByClaims: []string{"org"}}, []ask{
			{from(alice, home, ""), guard.OK, ""},
			{from(bob, office, ""), guard.RateLimitedPrincipal, "claim:org=acme"},
			{from(carol, office, ""), guard.OK, ""},
			{from(key1, home, ""), guard.RateLimitedPrincipal, "claim:org="},
			{from(nil, office, ""), guard.OK, ""},
			{from(nil, office, ""), guard.RateLimited, office},
		}},
		{"a claim that is a list is none", rule{ByClaims: []string{"orgs"}}, []ask{
			{from(alice, home, ""), guard.OK, ""},
			{from(bob, office, ""), guard.RateLimitedPrincipal, "claim:orgs="},
		}},
		{"a principal and the address", rule{By: by{ratelimit.Address, ratelimit.Principal}}, []ask{
			{from(alice, home, ""), guard.OK, ""},
			{from(alice, office, ""), guard.OK, ""},
			{from(bob, home, ""), guard.OK, ""},
			{from(alice, home, ""), guard.RateLimitedPrincipal, home + " principal=accounts|alice"},
		}},
		{"a principal and the route", rule{By: by{ratelimit.Principal, ratelimit.Route, ratelimit.Method}}, []ask{
			{from(alice, home, ""), guard.OK, ""},
			{from(alice, office, ""), guard.RateLimitedPrincipal, "principal=accounts|alice GET r"},
		}},
		{"an account, whoever tries it", rule{By: by{ratelimit.Account}}, []ask{
			{from(nil, home, "bob@c.test"), guard.OK, ""},
			{from(nil, office, " BOB@c.test "), guard.RateLimitedAccount, "account=bob@c.test"},
			{from(alice, office, "ｂｏｂ\u200b@c.test"), guard.RateLimitedAccount, "account=bob@c.test"},
			{from(nil, home, "bob@d.test"), guard.OK, ""},
			{from(nil, home, "zo\u00e9"), guard.OK, ""},
			{from(nil, home, "ZOe\ufe0f\u200d\u0301"), guard.RateLimitedAccount, "account=zo%C3%A9"},
		}},
		{"no account", rule{By: by{ratelimit.Account}}, []ask{
			{from(nil, home, ""), guard.OK, ""},
			{from(nil, office, " "), guard.RateLimitedAccount, "account="},
		}},
		{"an account and the address", rule{By: by{ratelimit.Address, ratelimit.Account}}, []ask{
			{from(nil, home, "bob"), guard.OK, ""},
			{from(nil, office, "bob"), guard.OK, ""},
			{from(nil, home, "bob"), guard.RateLimitedAccount, home + " account=bob"},
		}},
		{"all of it", rule{By: by{ratelimit.Account, ratelimit.Principal}, ByClaims: []string{"org", "plan"}}, []ask{
			{from(alice, home, "a,b=c d~%"), guard.OK, ""},
			{from(alice, home, "a,b=c d~%"), guard.RateLimitedAccount, "principal=accounts|alice,claim:org=acme,claim:plan=pro,account=a%2Cb%3Dc%20d%7E%25"},
			{from(nil, home, "a"), guard.OK, ""},
			{from(nil, home, "a"), guard.RateLimitedAccount, home + " account=a"},
		}},
		{"a long name, by its hash", rule{By: by{ratelimit.Account}}, []ask{
			{from(nil, home, long), guard.OK, ""},
			{from(nil, home, long), guard.RateLimitedAccount, "account=~c2a908d98f5df987ade41b5fce213067"},
			{from(nil, home, "~c2a908d98f5df987ade41b5fce213067"), guard.OK, ""},
			{from(nil, home, long+"a"), guard.OK, ""},
		}},
		{"tiers by a claim", rule{By: by{ratelimit.Principal}, Tiers: []tier{
			{Claim: "plan", Values: []string{"team", "pro"}, Limit: words("2/h")}, {Claim: "orgs", Values: []string{"7"}, Exempt: true},
		}}, []ask{
			{from(alice, home, ""), guard.OK, ""},
			{from(alice, home, ""), guard.OK, ""},
			{from(alice, home, ""), guard.RateLimitedPrincipal, "principal=accounts|alice"},
			{from(bob, home, ""), guard.OK, ""},
			{from(bob, home, ""), guard.OK, ""},
			{from(carol, home, ""), guard.OK, ""},
			{from(carol, home, ""), guard.RateLimitedPrincipal, "principal=accounts|carol"},
			{from(nil, home, ""), guard.OK, ""},
			{from(nil, home, ""), guard.RateLimited, home},
		}},
		{"tiers by a claim, of addresses", rule{By: by{ratelimit.Address}, Tiers: []tier{{Claim: "plan", Values: []string{"pro"}, Limit: words("2/h")}}}, []ask{
			{from(alice, home, ""), guard.OK, ""},
			{from(alice, home, ""), guard.OK, ""},
			{from(alice, home, ""), guard.RateLimited, home},
			{from(nil, home, ""), guard.OK, ""},
			{from(nil, home, ""), guard.RateLimited, home},
		}},
		{"everybody, of whom some are known", rule{}, []ask{
			{from(alice, home, "bob"), guard.OK, ""},
			{from(nil, home, ""), guard.RateLimitedTogether, "everybody"},
		}},
		{"at once", rule{By: by{ratelimit.Principal}, AtOnce: 1}, []ask{
			{from(alice, home, ""), guard.OK, ""},
			{from(alice, home, ""), guard.TooManyAtOnce, "principal=accounts|alice"},
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.rule.Name, c.rule.Limit = "l", once
			g := open(t, ratelimit.Policy{Rules: []rule{c.rule}}).g
			for i, a := range c.asks {
				gr, d := g.Decide(t.Context(), a.f)
				defer gr.Release()
				if d.Reason != a.reason || d.Evidence.Got != a.key {
					t.Fatalf("request %d: %s %q, want %s %q", i+1, d.Reason, d.Evidence.Got, a.reason, a.key)
				}
				if k, _, ok := gr.Refusal(); ok {
					if got, err := c.rule.ParseKey(a.key); got.Who != k.Who || got.Net != k.Net || err != nil {
						t.Errorf("%q is read as %+v, %v; want %+v", a.key, got, err, k)
					}
				}
			}
		})
	}
}

// A request that ended before its account was told is not one that names none: logins without
// a name would otherwise pay for every bad token.
func TestNoAccountIsChargedForWhatDoesNotNameIt(t *testing.T) {
	g := open(t, ratelimit.Policy{Rules: []rule{{Name: "l", Limit: words("2/h"), By: by{ratelimit.Account}}}}).g
	for _, c := range []struct {
		account string
		want    guard.Reason
	}{{"", guard.OK}, {"bob", guard.RateLimitedAccount}} {
		f := from(nil, "203.0.113.7", c.account)
		g.Charge(t.Context(), f, 2)
		gr, d := g.Decide(t.Context(), f)
		gr.Release()
		if d.Reason != c.want {
			t.Errorf("%q: %s, want %s", c.account, d.Reason, c.want)
		}
	}
}

func TestNeeds(t *testing.T) {
	for _, c := range []struct {
		rule               rule
		principal, account bool
	}{
		{rule{By: by{ratelimit.Address, ratelimit.Route, ratelimit.Method}, Tiers: []tier{{For: everyone}}}, false, false},
		{rule{By: by{ratelimit.Principal}}, true, false},
		{rule{By: by{ratelimit.Credential}}, true, false},
		{rule{ByClaims: []string{"org"}}, true, false},
		{rule{By: by{ratelimit.Address}, Tiers: []tier{{For: everyone}, {Claim: "plan"}}}, true, false},
		{rule{By: by{ratelimit.Account}}, false, true},
	} {
		if p, a := c.rule.NeedsPrincipal(), c.rule.NeedsAccount(); p != c.principal || a != c.account {
			t.Errorf("%+v: %v, %v", c.rule, p, a)
		}
	}
}

func TestNewRefusesWhatCannotBeCountedByName(t *testing.T) {
	for _, c := range []struct {
		rule rule
		want string
	}{
		{rule{By: by{ratelimit.Principal, ratelimit.Credential}}, "a key has one owner"},
		{rule{By: by{ratelimit.NewAddress, ratelimit.Principal}}, "new by its address alone"},
		{rule{By: by{ratelimit.NewAddress, ratelimit.Account}}, "new by its address alone"},
		{rule{By: by{ratelimit.NewAddress}, ByClaims: []string{"org"}}, "new by its address alone"},
		{rule{ByClaims: []string{"a", "b", "c", "d", "e"}}, "more than 4 claims"},
		{rule{ByClaims: []string{"org", "org"}}, `"org" has no name`},
		{rule{ByClaims: []string{""}}, `"" has no name`},
		{rule{ByClaims: []string{strings.Repeat("a", 129)}}, "has no name"},
		{rule{By: by{ratelimit.Principal}, Wider: ratelimit.Wider{IPv6Net56: 8, IPv6Net48: 4}}, "could then never have its own"},
		{rule{Tiers: []tier{{Claim: "plan", AtOnce: 1}}}, "without values"},
		{rule{Tiers: []tier{{For: everyone, Values: []string{"pro"}, AtOnce: 1}}}, "values without a claim"},
		{rule{Tiers: []tier{{For: everyone, Claim: "plan", Values: []string{"pro"}, AtOnce: 1}}}, "make two of it"},
	} {
		c.rule.Name, c.rule.Limit = "a", words("1/m")
		if err := c.rule.Check(); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, want %q", c.rule, err, c.want)
		}
	}
}

// A client is told what it has used up itself, and not what its tenant has, or whoever else
// tries the same account.
func TestHeadersTellAPrincipalOfItsOwn(t *testing.T) {
	for _, c := range []struct {
		name string
		rule rule
		who  *identity.Principal
		told bool
	}{
		{"a principal", rule{By: by{ratelimit.Principal}}, alice, true},
		{"an address, for want of a principal", rule{By: by{ratelimit.Principal}}, nil, true},
		{"an API key", rule{By: by{ratelimit.Credential}}, key1, true},
		{"a tenant", rule{ByClaims: []string{"org"}}, alice, false},
		{"a principal in a tenant", rule{By: by{ratelimit.Principal}, ByClaims: []string{"org"}}, alice, true},
		{"an address in a tenant", rule{By: by{ratelimit.Address}, ByClaims: []string{"org"}}, alice, true},
		{"an account", rule{By: by{ratelimit.Account}}, alice, false},
		{"an address that tries an account", rule{By: by{ratelimit.Address, ratelimit.Account}}, nil, true},
	} {
		c.rule.Name, c.rule.Limit = "l", words("60/m burst 2")
		g := open(t, ratelimit.Policy{Rules: []rule{c.rule}}).g
		gr, _ := g.Decide(t.Context(), from(c.who, "203.0.113.7", "bob"))
		h := make(http.Header)
		ratelimit.SetHeaders(h, gr)
		gr.Release()
		want := ""
		if c.told {
			want = `"l";r=1;t=1`
		}
		if h.Get("RateLimit") != want {
			t.Errorf("%s: %v", c.name, h)
		}
	}
}

func TestHandlerAsksIdentityWhoThatIs(t *testing.T) {
	g, err := ratelimit.New(ratelimit.Policy{Rules: []rule{{Name: "l", Limit: words("1/h"), By: by{ratelimit.Principal}}}}, memory.New(1<<16))
	if err != nil {
		t.Fatal(err)
	}
	h := identity.New(identity.Policy{Sources: []string{"accounts"}, Bearer: []identity.Verifier{anybody{}}}).
		Handler(g.Handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})))
	for i, token := range []string{"a", "b", "a"} {
		r, w := httptest.NewRequest(http.MethodGet, "/", http.NoBody), httptest.NewRecorder()
		r.Header.Set("Authorization", "Bearer "+token)
		if h.ServeHTTP(w, r); (w.Code == http.StatusOK) != (i < 2) {
			t.Errorf("request %d: %d", i+1, w.Code)
		}
	}
}

func TestKeysTellPrincipalsApart(t *testing.T) {
	who := func(source, subject string) *identity.Principal {
		return assume.Principal(assume.Who{Source: source, Subject: subject, Method: identity.JWT, Claims: map[string]any{"a": subject, "b": source}})
	}
	seen := make(map[string][2]string)
	g := open(t, ratelimit.Policy{Rules: []rule{{Name: "l", Limit: words("1/h"), AtOnce: 1, By: by{ratelimit.Principal}, ByClaims: []string{"a", "b"}}}}).g
	subjects := []string{"", "a", "b", "a,b", "a=b", "a,claim:a=b", "%2C", ",", "A", "ä", "a ", " a", "a\x00", "~", "|", "a|a", "\xff"}
	for _, long := range []int{127, 128, 129, 200} {
		subjects = append(subjects, strings.Repeat("x", long), strings.Repeat(",", long))
	}
	for _, source := range []string{"s", "t", "s-t"} {
		for _, subject := range subjects {
			g.Decide(t.Context(), from(who(source, subject), "203.0.113.7", ""))
			gr, d := g.Decide(t.Context(), from(who(source, subject), "203.0.113.7", ""))
			gr.Release()
			k := d.Evidence.Got
			if at, ok := seen[k]; ok || k == "" {
				t.Errorf("%q of %s has the key of %v: %q", subject, source, at, k)
			}
			seen[k] = [2]string{source, subject}
		}
	}
}

func FuzzKeysTellAccountsApart(f *testing.F) {
	f.Add("alice", "bob")
	f.Add("a,claim:org=b", "a%2Cclaim:org%3Db")
	f.Add("¨İΣς", "ℌ\u00ad")
	f.Add("e\u200d\u0301", "e\u034f\u0301")
	r := rule{Name: "l", Limit: words("1/h"), By: by{ratelimit.Account, ratelimit.Route}, AtOnce: 1}
	f.Fuzz(func(t *testing.T, a, b string) {
		g := open(t, ratelimit.Policy{Rules: []rule{r}}).g
		key := func(account string) string {
			gr, d := g.Decide(t.Context(), from(nil, "203.0.113.7", account))
			defer gr.Release()
			if !d.Denied() {
				again, denied := g.Decide(t.Context(), from(nil, "203.0.113.7", account))
				defer again.Release()
				d = denied
			}
			if k := d.Evidence.Got; strings.ContainsFunc(k, func(c rune) bool { return c < ' ' || c >= 0x7f }) || len(k) > 200 {
				t.Errorf("%q is not printable, or is long", k)
			}
			return d.Evidence.Got
		}
		ka, kb := key(a), key(b)
		k, err := r.ParseKey(ka)
		if err != nil || k.Text() != ka {
			t.Errorf("%q is read as %q, %v", ka, k.Text(), err)
		}
		if plain := func(s string) bool {
			return !strings.ContainsFunc(s, func(c rune) bool { return c <= ' ' || c >= 0x7f })
		}; plain(a) && plain(b) {
			if (ka == kb) != strings.EqualFold(a, b) {
				t.Errorf("%q is %q, %q is %q", a, ka, b, kb)
			}
		}
	})
}
