package session_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/moat-gateway/moat/guard"
	"github.com/moat-gateway/moat/guard/identity/session"
)

const logoutPath = "/.moat/logout/staff"

func navigates(r *http.Request) { r.Header.Set("Sec-Fetch-Mode", "navigate") }

func TestSigningOutEndsTheSession(t *testing.T) {
	g := newGate(t, newProvider(t), nil)
	b, other := g.browser(), g.browser()
	b.signIn()
	other.signIn()
	was := b.session()
	res, d := b.do(g.Logout, "POST", logoutPath, "return=/bye", navigates)
	if d.Denied() || res.StatusCode != http.StatusSeeOther || res.Header.Get("Location") != origin+"/bye" || res.Header.Get("Clear-Site-Data") != `"cache"` || b.session() != "" {
		t.Errorf("%d %v, %s", res.StatusCode, res.Header, d.Reason)
	}
	if _, d = g.Verify(t.Context(), was, time.Now()); d.Reason != guard.SessionUnknown {
		t.Errorf("the session: %s", d.Reason)
	}
	other.is(guard.IdentityVerified)
	// Who is signed out may sign out.
	if res, d = b.do(g.Logout, "POST", logoutPath, ""); d.Denied() || body(t, res) != `{"location":"`+origin+`/"}` {
		t.Errorf("again: %d %s", res.StatusCode, d.Reason)
	}
	b.signIn()
	if _, d = b.do(g.Logout, "POST", logoutPath+"?everywhere=1", ""); d.Denied() {
		t.Error(d.Reason)
	}
	other.is(guard.SessionUnknown)
}

func TestSigningOutSendsNobodyElsewhere(t *testing.T) {
	g := newGate(t, newProvider(t), nil)
	b := g.browser()
	b.signIn()
	for _, form := range []string{"return=//evil.example", "return=https://evil.example", "return=/a&return=/b", "return=/%5Cevil.example", "return=/a&b=%zz"} {
		if _, d := b.do(g.Logout, "POST", logoutPath, form); d.Reason != guard.LoginReturnNotAllowed {
			t.Errorf("%s: %s", form, d.Reason)
		}
	}
	if _, d := b.do(g.Logout, "POST", logoutPath, "a="+strings.Repeat("a", 1<<20)); d.Reason != guard.BodyTooLarge {
		t.Errorf("a huge form: %s", d.Reason)
	}
	b.is(guard.IdentityVerified)
}

func TestSigningOutAtTheProviderTellsScriptNoToken(t *testing.T) {
	for name, navigation := range map[string]bool{"a navigation": true, "script": false} {
		t.Run(name, func(t *testing.T) {
			g := newGate(t, newProvider(t), func(p *session.Policy) { p.SignOutAtProvider, p.Home = true, "/home" })
			b := g.browser()
			b.signIn()
			mode := "cors"
			if navigation {
				mode = "navigate"
			}
			res, d := b.do(g.Logout, "POST", logoutPath, "", func(r *http.Request) { r.Header.Set("Sec-Fetch-Mode", mode) })
			to := res.Header.Get("Location")
			if text := body(t, res); !navigation {
				to = strings.ReplaceAll(strings.TrimSuffix(strings.TrimPrefix(text, `{"location":"`), `"}`), `\u0026`, "&")
			}
			u, err := url.Parse(to)
			if err != nil || d.Denied() || !strings.HasPrefix(to, issuer+"/end?") {
				t.Fatalf("to %q: %s", to, d.Reason)
			}
			q := u.Query()
			if q.Get("x") != "1" || q.Get("client_id") != "gate" || q.Get("post_logout_redirect_uri") != origin+"/home" || (q.Get("id_token_hint") != "") != navigation {
				t.Errorf("with %v", q)
			}
		})
	}
}

// logoutToken makes a logout token, with what changes it.
func (p *provider) logoutToken(changes map[string]any) string {
	return p.signed(map[string]any{
		"iss": issuer, "aud": "gate", "iat": time.Now().Unix(), "exp": time.Now().Add(2 * time.Minute).Unix(), "jti": "1", "sub": "alice", "sid": "sid of alice",
		"events": map[string]any{"http://schemas.openid.net/event/backchannel-logout": map[string]any{}},
	}, changes)
}

func TestLogoutTokensEndWhatTheyName(t *testing.T) {
	for name, changes := range map[string]map[string]any{
		"a session":                   {},
		"a session, without its user": {"sub": nil},
		"a user":                      {"sid": nil},
	} {
		t.Run(name, func(t *testing.T) {
			g := newGate(t, newProvider(t), nil)
			alice, bob := g.browser(), g.browser()
			alice.signIn()
			g.provider.subject, g.provider.userinfo["sub"] = "bob", "bob"
			bob.signIn()
			form := "logout_token=" + g.provider.logoutToken(changes)
			res, d := g.browser().do(g.Backchannel, "POST", "/.moat/backchannel/staff", form)
			if d.Denied() || res.StatusCode != http.StatusOK || res.Header.Get("Cache-Control") != "no-store" {
				t.Fatalf("%d, %s %+v", res.StatusCode, d.Reason, d.Evidence)
			}
			alice.is(guard.SessionUnknown)
			bob.is(guard.IdentityVerified)
			// Who signs in again is not signed out by who repeats it.
			g.provider.subject, g.provider.userinfo["sub"] = "alice", "alice"
			alice.signIn()
			if _, d = g.browser().do(g.Backchannel, "POST", "/", form); d.Reason != guard.TokenRevoked {
				t.Errorf("again: %s", d.Reason)
			}
			alice.is(guard.IdentityVerified)
		})
	}
}

func TestLogoutTokensThatAreNoneEndNothing(t *testing.T) {
	stranger := newProvider(t)
	const event = "http://schemas.openid.net/event/backchannel-logout"
	at := func(d time.Duration) int64 { return time.Now().Add(d).Unix() }
	for name, c := range map[string]struct {
		changes func() map[string]any
		sign    func(map[string]any) string
		reason  guard.Reason
	}{
		"another audience":      {func() map[string]any { return map[string]any{"aud": "other"} }, nil, guard.TokenSignatureInvalid},
		"another issuer":        {func() map[string]any { return map[string]any{"iss": "https://evil.example"} }, nil, guard.TokenSignatureInvalid},
		"expired":               {func() map[string]any { return map[string]any{"exp": at(-time.Minute)} }, nil, guard.TokenSignatureInvalid},
		"no end":                {func() map[string]any { return map[string]any{"exp": nil} }, nil, guard.TokenSignatureInvalid},
		"old":                   {func() map[string]any { return map[string]any{"iat": at(-6 * time.Minute)} }, nil, guard.TokenExpired},
		"of the future":         {func() map[string]any { return map[string]any{"iat": at(6 * time.Minute)} }, nil, guard.TokenExpired},
		"of no time":            {func() map[string]any { return map[string]any{"iat": nil} }, nil, guard.TokenExpired},
		"an ID token":           {func() map[string]any { return map[string]any{"events": nil, "nonce": "x"} }, nil, guard.TokenClaimMissing},
		"a nonce":               {func() map[string]any { return map[string]any{"nonce": "x"} }, nil, guard.TokenClaimMissing},
		"an empty nonce":        {func() map[string]any { return map[string]any{"nonce": ""} }, nil, guard.TokenClaimMissing},
		"no event":              {func() map[string]any { return map[string]any{"events": map[string]any{}} }, nil, guard.TokenClaimMissing},
		"an event that is none": {func() map[string]any { return map[string]any{"events": map[string]any{event: 1}} }, nil, guard.TokenClaimMissing},
		"a list of events":      {func() map[string]any { return map[string]any{"events": []string{event}} }, nil, guard.TokenMalformed},
		"nobody":                {func() map[string]any { return map[string]any{"sub": nil, "sid": nil} }, nil, guard.TokenClaimMissing},
		"no jti":                {func() map[string]any { return map[string]any{"jti": nil} }, nil, guard.TokenClaimMissing},
		"alg none":              {func() map[string]any { return nil }, unsigned, guard.TokenSignatureInvalid},
		"the secret as a key":   {func() map[string]any { return nil }, func(m map[string]any) string { return jws(t, jose.HS256, []byte(clientSecret+clientSecret), m) }, guard.TokenSignatureInvalid},
		"another key":           {func() map[string]any { return nil }, func(m map[string]any) string { return jws(t, jose.ES256, stranger.key, m) }, guard.TokenSignatureInvalid},
		"no token":              {func() map[string]any { return nil }, func(map[string]any) string { return "" }, guard.TokenSignatureInvalid},
		"two":                   {func() map[string]any { return nil }, func(map[string]any) string { return "a&logout_token=b" }, guard.TokenMalformed},
		"a huge one":            {func() map[string]any { return nil }, func(map[string]any) string { return strings.Repeat("a", 20<<10) }, guard.TokenSignatureInvalid},
		"a huge form":           {func() map[string]any { return nil }, func(map[string]any) string { return strings.Repeat("a", 1<<20) }, guard.TokenMalformed},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newGate(t, newProvider(t), nil)
				b := g.browser()
				b.signIn()
				g.provider.sign = c.sign
				_, d := g.browser().do(g.Backchannel, "POST", "/", "logout_token="+g.provider.logoutToken(c.changes()))
				if d.Reason != c.reason {
					t.Errorf("%s %+v, want %s", d.Reason, d.Evidence, c.reason)
				}
				b.is(guard.IdentityVerified)
				if len(g.store.entries) != 1 {
					t.Error("it takes room in the store")
				}
			})
		})
	}
}

func TestBadSignaturesCauseNoStormOfFetches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stranger := newProvider(t)
		g := newGate(t, newProvider(t), nil)
		g.provider.sign = func(m map[string]any) string { return jws(t, jose.ES256, stranger.key, m) }
		for range 1000 {
			g.browser().do(g.Backchannel, "POST", "/", "logout_token="+g.provider.logoutToken(nil))
			time.Sleep(10 * time.Millisecond)
		}
		if n := g.provider.count("/keys"); n > 2 {
			t.Errorf("its keys were fetched %d times in 10 s", n)
		}
	})
}

func TestALogoutTokenCanBeSentAgainIfTheStoreFailed(t *testing.T) {
	g := newGate(t, newProvider(t), nil)
	b := g.browser()
	b.signIn()
	form := "logout_token=" + g.provider.logoutToken(nil)
	g.store.failsDeleteAll = true
	if _, d := g.browser().do(g.Backchannel, "POST", "/", form); d.Reason != guard.IdentityUnavailable {
		t.Error(d.Reason)
	}
	g.store.failsDeleteAll = false
	if _, d := g.browser().do(g.Backchannel, "POST", "/", form); d.Denied() {
		t.Error(d.Reason)
	}
	b.is(guard.SessionUnknown)
}
