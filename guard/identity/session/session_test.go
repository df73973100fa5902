package session_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/moat-gateway/moat/guard"
	"github.com/moat-gateway/moat/guard/identity/session"
	"github.com/moat-gateway/moat/store/memory"
	"github.com/moat-gateway/moat/web"
)

func TestASessionEndsWhenItIsIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newGate(t, newProvider(t), nil).browser()
		b.signIn()
		for range 8 {
			time.Sleep(59 * time.Minute)
			b.is(guard.IdentityVerified)
		}
		// A page that asks who is signed in keeps nobody signed in.
		time.Sleep(40 * time.Minute)
		if _, d := b.do(b.g.Info, "GET", "/.moat/session/staff", ""); d.Denied() {
			t.Error(d.Reason)
		}
		time.Sleep(20 * time.Minute)
		b.is(guard.SessionExpired)
		b.is(guard.SessionUnknown) // it has been told once
	})
}

func TestASessionEndsInAnyCase(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t, newProvider(t), nil)
		b := g.browser()
		b.signIn()
		for range 12*4 - 1 {
			time.Sleep(15 * time.Minute)
			b.is(guard.IdentityVerified)
		}
		time.Sleep(15 * time.Minute)
		b.is(guard.SessionExpired)
		b.signIn()
		// A shorter lifetime counts for sessions that are there.
		shorter := gateOn(t, g.provider, g.store, func(p *session.Policy) { p.Lifetime = 2 * time.Hour })
		time.Sleep(50 * time.Minute)
		b.is(guard.IdentityVerified)
		time.Sleep(50 * time.Minute)
		b.is(guard.IdentityVerified)
		time.Sleep(20 * time.Minute)
		if _, d := shorter.Verify(t.Context(), b.session(), time.Now()); d.Reason != guard.SessionExpired {
			t.Error(d.Reason)
		}
	})
}

func TestRequestsSeldomWriteToTheStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newGate(t, newProvider(t), nil).browser()
		b.signIn()
		for range 1200 {
			time.Sleep(500 * time.Millisecond)
			b.is(guard.IdentityVerified)
		}
		if n := b.g.store.touches; n != 10 {
			t.Errorf("%d writes in 10 minutes", n)
		}
	})
}

func TestTheStoreHoldsNothingThatItsReaderCanUse(t *testing.T) {
	g := newGate(t, newProvider(t), nil)
	b := g.browser()
	b.signIn()
	if len(g.store.entries) != 1 {
		t.Fatalf("%d entries", len(g.store.entries))
	}
	e := g.store.entries[0]
	all := bytes.Join([][]byte{e.ID[:], e.Sealed, e.Indexes[0][:], e.Indexes[1][:]}, nil)
	for _, secret := range []string{"alice", "access-", "refresh-", "eyJ", "claims", "example", b.session()} {
		if bytes.Contains(all, []byte(secret)) {
			t.Errorf("it holds %q in clear", secret)
		}
	}
	// Nor can its writer make a session of it: what is changed, or put in another's place, is none.
	other := g.browser()
	other.signIn()
	replace := func(sealed []byte) {
		t.Helper()
		now, _, err := g.store.Get(t.Context(), e.ID)
		if err != nil {
			t.Fatal(err)
		}
		if done, err := g.store.Replace(t.Context(), e.ID, now.Sealed, sealed); !done || err != nil {
			t.Fatal(done, err)
		}
	}
	replace(g.store.entries[1].Sealed)
	b.is(guard.SessionUnknown)
	for _, i := range []int{0, len(e.Sealed) / 2, len(e.Sealed) - 1} {
		changed := bytes.Clone(e.Sealed)
		changed[i] ^= 1
		replace(changed)
		b.is(guard.SessionUnknown)
	}
	replace(nil)
	b.is(guard.SessionUnknown)
	replace(e.Sealed)
	b.is(guard.IdentityVerified)
	// A session is one of its provider, whatever that is called now.
	for name, change := range map[string]func(*session.Policy){
		"source": func(p *session.Policy) { p.Source = "others" }, "client": func(p *session.Policy) { p.ClientID = "gate2" },
		"issuer": func(p *session.Policy) { p.Issuer = "https://login2.example" },
	} {
		if _, d := gateOn(t, g.provider, g.store, change).Verify(t.Context(), b.session(), time.Now()); d.Reason != guard.SessionUnknown {
			t.Errorf("another %s: %s", name, d.Reason)
		}
	}
}

func TestWithoutItsStoreItRefuses(t *testing.T) {
	g := newGate(t, newProvider(t), nil)
	b := g.browser()
	b.signIn()
	q := g.browser()
	answer := q.begin(loginPath)
	g.store.fails = errors.New("no connection to 192.0.2.1")
	b.is(guard.IdentityUnavailable)
	_, info := b.do(g.Info, "GET", "/", "")
	_, logout := b.do(g.Logout, "POST", "/", "")
	_, callback := q.callback(answer)
	_, token := g.AccessToken(t.Context(), b.session(), time.Now())
	_, back := b.do(g.Backchannel, "POST", "/", "logout_token="+g.provider.logoutToken(nil))
	for name, d := range map[string]guard.Decision{"info": info, "logout": logout, "callback": callback, "token": token, "back-channel": back} {
		if d.Reason != guard.IdentityUnavailable || !strings.Contains(d.Evidence.Got, "192.0.2.1") {
			t.Errorf("%s: %s %+v", name, d.Reason, d.Evidence)
		}
	}
	if b.session() == "" || q.session() != "" {
		t.Error("who could not sign out has lost the cookie, or somebody has signed in")
	}
	g.store.fails = nil
	b.is(guard.IdentityVerified)
}

func TestAFullStoreEndsNobodysSession(t *testing.T) {
	g := gateOn(t, newProvider(t), &spy{Store: memory.NewSessions(0)}, nil)
	var all []*browser
	for i := 0; ; i++ {
		if i > 1000 {
			t.Fatal("it is never full")
		}
		g.provider.subject = "user" + strconv.Itoa(i)
		g.provider.userinfo["sub"] = g.provider.subject
		b := g.browser()
		if _, d := b.callback(b.begin(loginPath)); d.Denied() {
			if d.Reason != guard.IdentityUnavailable || d.Evidence.Got != session.ErrFull.Error() {
				t.Fatalf("%s %+v", d.Reason, d.Evidence)
			}
			break
		}
		all = append(all, b)
	}
	for _, b := range all {
		b.is(guard.IdentityVerified)
	}
}

func TestOneUsersLoginsEndSessionsOfHisOwn(t *testing.T) {
	g := newGate(t, newProvider(t), nil)
	g.provider.claims["sid"] = nil
	bob := g.browser()
	g.provider.subject, g.provider.userinfo["sub"] = "bob", "bob"
	bob.signIn()
	g.provider.subject, g.provider.userinfo["sub"] = "alice", "alice"
	var all []*browser
	for range session.MaxIndexed + 2 {
		b := g.browser()
		b.signIn()
		all = append(all, b)
	}
	all[0].is(guard.SessionUnknown)
	all[1].is(guard.SessionUnknown)
	all[2].is(guard.IdentityVerified)
	bob.is(guard.IdentityVerified)
}

func TestTheProviderIsFoundWhenItIsThere(t *testing.T) {
	const path = "/.well-known/openid-configuration"
	synctest.Test(t, func(t *testing.T) {
		p := newProvider(t)
		p.at(path, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) })
		g := newGate(t, p, nil)
		refused := func() {
			t.Helper()
			if _, d := g.browser().do(g.Login, "GET", loginPath, ""); d.Reason != guard.IdentityUnavailable || !strings.Contains(d.Evidence.Got, "503") {
				t.Fatalf("%s %+v", d.Reason, d.Evidence)
			}
		}
		for range 100 {
			refused()
		}
		if n := p.count(path); n != 1 {
			t.Errorf("it was asked %d times at once", n)
		}
		for range 3600 {
			time.Sleep(time.Second)
			refused()
		}
		if n := p.count(path); n > 130 {
			t.Errorf("it was asked %d times in an hour", n)
		}
		p.at(path, nil)
		time.Sleep(31 * time.Second)
		b := g.browser()
		b.signIn()

		// What is known is renewed, and counts while it cannot be.
		asked := p.count(path)
		p.at(path, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) })
		time.Sleep(59 * time.Minute)
		b.signIn()
		if p.count(path) != asked {
			t.Error("it was asked again too soon")
		}
		time.Sleep(2 * time.Minute)
		b.signIn()
		synctest.Wait()
		if p.count(path) != asked+1 {
			t.Errorf("it was asked %d times", p.count(path)-asked)
		}
		// A new policy for the same provider begins with what is known.
		again, err := session.New(policy(t, p, func(p *session.Policy) { p.Idle = time.Minute }), g.store, g.Guard)
		if err != nil {
			t.Fatal(err)
		}
		(&gate{t, again, g.store, p}).browser().signIn()
	})
}

func TestAProviderThatHangsIsNotWaitedForLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProvider(t)
		p.at("/.well-known/openid-configuration", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
		g := newGate(t, p, nil)
		began := time.Now()
		if _, d := g.browser().do(g.Login, "GET", loginPath, ""); d.Reason != guard.IdentityUnavailable || time.Since(began) != 10*time.Second {
			t.Errorf("%s after %s", d.Reason, time.Since(began))
		}
		if _, d := g.browser().do(g.Login, "GET", loginPath, ""); d.Reason != guard.IdentityUnavailable || time.Since(began) != 10*time.Second {
			t.Errorf("the next: %s after %s", d.Reason, time.Since(began))
		}
	})
}

func TestProvidersThatCannotBeTrustedAreNotUsed(t *testing.T) {
	for name, c := range map[string]struct {
		member string
		value  any
		want   string
	}{
		"another issuer":          {"issuer", "https://evil.example", "did not match"},
		"codes in clear":          {"token_endpoint", "http://login.example/token", "token_endpoint is without https"},
		"codes to this machine":   {"token_endpoint", "http://127.0.0.1/token", "token_endpoint is without https"},
		"keys in clear":           {"jwks_uri", "http://login.example/keys", "jwks_uri is without https"},
		"no keys":                 {"jwks_uri", nil, "jwks_uri is not a URL"},
		"no place to sign in":     {"authorization_endpoint", "javascript:alert(1)", "authorization_endpoint is not a URL"},
		"userinfo in clear":       {"userinfo_endpoint", "http://login.example/me", "userinfo_endpoint is without https"},
		"the end is a script":     {"end_session_endpoint", "javascript://x/%0aalert(1)", "end_session_endpoint is without https"},
		"more than can be read":   {"much", strings.Repeat("a", 1<<20), "larger than"},
		"more than is to be told": {"issuer", strings.Repeat("a", 1<<16), "did not match"},
	} {
		t.Run(name, func(t *testing.T) {
			p := newProvider(t)
			p.metadata[c.member] = c.value
			_, d := newGate(t, p, nil).browser().do(newGate(t, p, nil).Login, "GET", loginPath, "")
			if d.Reason != guard.IdentityUnavailable || !strings.Contains(d.Evidence.Got, c.want) && len(d.Evidence.Got) < 200 || len(d.Evidence.Got) > 200 {
				t.Errorf("%s %+v, want %q", d.Reason, d.Evidence, c.want)
			}
		})
	}
}

func TestAPolicyThatCannotWorkIsRefusedWithAllItsFaults(t *testing.T) {
	_, err := session.New(session.Policy{
		Source: "a|b", Issuer: "http://login.example", Public: web.NewPublicOrigins(nil), Lifetime: time.Hour, Idle: 2 * time.Hour, Home: "//evil.example",
	}, memory.NewSessions(0), nil)
	for _, want := range []string{`source "a|b"`, "issuer: without https", "no client id", "idle 2h0m0s", `home "//evil.example"`, "no public origin with https"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v lacks %q", err, want)
		}
	}
}

func TestAPublicClientHasNoSecret(t *testing.T) {
	p := newProvider(t)
	p.at("/token", func(w http.ResponseWriter, r *http.Request) {
		if _, _, basic := r.BasicAuth(); basic || r.FormValue("client_id") != "gate" || r.FormValue("code_verifier") == "" || r.FormValue("client_secret") != "" {
			t.Errorf("it asks with %v", r.Form)
		}
		json.NewEncoder(w).Encode(map[string]string{"error": "invalid_grant"})
	})
	b := newGate(t, p, func(p *session.Policy) { p.ClientSecret = "" }).browser()
	b.callback(b.begin(loginPath))
	if p.count("/token") != 1 {
		t.Error("the token endpoint was not asked once")
	}
}

func BenchmarkVerify(b *testing.B) {
	g := newGate(b, newProvider(b), nil)
	user := g.browser()
	user.signIn()
	text, now := user.session(), time.Now()
	b.ReportAllocs()
	for b.Loop() {
		if _, d := g.Verify(b.Context(), text, now); d.Denied() {
			b.Fatal(d.Reason)
		}
	}
}
