package session_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/moat-gateway/moat/guard"
)

// tokens asks n times at once, of each gate in turn, and returns the different answers.
func tokens(t *testing.T, text string, n int, gates ...*gate) map[string]int {
	t.Helper()
	var mu sync.Mutex
	got := map[string]int{}
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() {
			token, d := gates[i%len(gates)].AccessToken(t.Context(), text, time.Now())
			if d.Denied() {
				token = d.Reason.String()
			}
			mu.Lock()
			defer mu.Unlock()
			got[token]++
		})
	}
	all.Wait()
	return got
}

func wants(t *testing.T, got map[string]int, want string) {
	t.Helper()
	if len(got) != 1 || got[want] == 0 {
		t.Fatalf("got %v, want %s", got, want)
	}
}

func TestAccessTokensAreRenewedOnceForAllProcesses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t, newProvider(t), nil)
		other := gateOn(t, g.provider, g.store, nil)
		b := g.browser()
		b.signIn()
		g.provider.at("/token", func(w http.ResponseWriter, r *http.Request) {
			time.Sleep(3 * time.Second)
			g.provider.serve(w, r)
		})
		wants(t, tokens(t, b.session(), 50, g, other), "access-1")
		for i, want := range []string{"access-2", "access-3", "access-4"} {
			time.Sleep(59*time.Minute + 30*time.Second)
			wants(t, tokens(t, b.session(), 50, g, other), want)
			if n := g.provider.count("/token"); n != i+2 {
				t.Fatalf("%d questions for %d tokens", n, i+2)
			}
			b.is(guard.IdentityVerified)
		}
	})
}

func TestAUserWhomTheProviderHasEndedIsSignedOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newGate(t, newProvider(t), nil).browser()
		b.signIn()
		b.g.provider.live = "another"
		time.Sleep(59*time.Minute + 30*time.Second)
		got := tokens(t, b.session(), 10, b.g) // who comes later finds no session
		if got[guard.SessionExpired.String()] == 0 || got[guard.SessionExpired.String()]+got[guard.SessionUnknown.String()] != 10 {
			t.Errorf("got %v", got)
		}
		b.is(guard.SessionUnknown)
	})
}

func TestATokenCountsWhileItCannotBeRenewed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newGate(t, newProvider(t), nil).browser()
		b.signIn()
		b.g.provider.at("/token", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) })
		time.Sleep(59*time.Minute + 30*time.Second)
		wants(t, tokens(t, b.session(), 10, b.g), "access-1")
		b.is(guard.IdentityVerified)
		time.Sleep(time.Minute)
		wants(t, tokens(t, b.session(), 10, b.g), guard.IdentityUnavailable.String())
		b.is(guard.IdentityVerified)
		b.g.provider.at("/token", nil)
		wants(t, tokens(t, b.session(), 10, b.g), "access-2")
	})
}

func TestAnotherProcessRenewsWhenOneHasFailed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t, newProvider(t), nil)
		other := gateOn(t, g.provider, g.store, nil)
		b := g.browser()
		b.signIn()
		time.Sleep(time.Hour - time.Second)
		b.is(guard.IdentityVerified)
		time.Sleep(time.Minute)
		failed := false
		g.provider.at("/token", func(w http.ResponseWriter, r *http.Request) {
			if !failed {
				failed = true
				time.Sleep(time.Second)
				w.WriteHeader(http.StatusBadGateway)
				return
			}
			g.provider.serve(w, r)
		})
		got := tokens(t, b.session(), 2, g, other)
		if got["access-2"] != 1 || got[guard.IdentityUnavailable.String()] != 1 {
			t.Errorf("got %v", got)
		}
	})
}

func TestWhoSignsOutMeanwhileStaysSignedOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newGate(t, newProvider(t), nil).browser()
		b.signIn()
		text := b.session()
		b.g.provider.at("/token", func(w http.ResponseWriter, r *http.Request) {
			if _, d := b.do(b.g.Logout, "POST", logoutPath, ""); d.Denied() {
				t.Error(d.Reason)
			}
			b.g.provider.serve(w, r)
		})
		time.Sleep(59*time.Minute + 30*time.Second)
		wants(t, tokens(t, text, 1, b.g), guard.SessionUnknown.String())
		if _, d := b.g.Verify(t.Context(), text, time.Now()); d.Reason != guard.SessionUnknown {
			t.Error(d.Reason)
		}
	})
}

func TestAClientWhoLeavesLosesNoToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newGate(t, newProvider(t), nil).browser()
		b.signIn()
		b.g.provider.at("/token", func(w http.ResponseWriter, r *http.Request) {
			time.Sleep(time.Second)
			b.g.provider.serve(w, r)
		})
		time.Sleep(59*time.Minute + 30*time.Second)
		ctx, leave := context.WithTimeout(t.Context(), time.Millisecond)
		defer leave()
		if _, d := b.g.AccessToken(ctx, b.session(), time.Now()); d.Reason != guard.RequestAborted {
			t.Error(d.Reason)
		}
		time.Sleep(2 * time.Second)
		wants(t, tokens(t, b.session(), 1, b.g), "access-2")
		if n := b.g.provider.count("/token"); n != 2 {
			t.Errorf("%d questions", n)
		}
	})
}

func TestRenewalTellsWhatHasChanged(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*provider)
		want   string
		roles  string // then
	}{
		"roles":               {func(p *provider) { p.claims["roles"] = []string{"admin"} }, "access-2", "admin"},
		"no roles":            {func(p *provider) { p.claims["roles"] = nil }, "access-2", ""},
		"no ID token":         {func(p *provider) { p.answer = func(a map[string]any) { delete(a, "id_token") } }, "access-2", "user"},
		"another user":        {func(p *provider) { p.subject, p.userinfo["sub"] = "bob", "bob" }, guard.SessionExpired.String(), ""},
		"a bad token":         {func(p *provider) { p.claims["aud"] = "other" }, guard.SessionExpired.String(), ""},
		"userinfo of another": {func(p *provider) { p.userinfo["sub"] = "bob" }, guard.SessionExpired.String(), ""},
		"another user, and no userinfo": {func(p *provider) {
			p.subject = "bob"
			p.at("/userinfo", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) })
		}, guard.SessionExpired.String(), ""},
		"no userinfo": {func(p *provider) {
			p.claims["roles"] = []string{"admin"}
			p.at("/userinfo", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) })
		}, "access-2", "user"},
		"keys that cannot be fetched": {func(p *provider) {
			p.at("/keys", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) })
			key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
			p.sign = func(c map[string]any) string { return jws(p.t, jose.ES256, key, c) }
			if err != nil {
				p.t.Fatal(err)
			}
		}, "access-2", "user"},
		"another key": {func(p *provider) {
			key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
			p.sign = func(c map[string]any) string { return jws(p.t, jose.ES256, key, c) }
			if err != nil {
				p.t.Fatal(err)
			}
		}, guard.SessionExpired.String(), ""},
		"no next token": {func(p *provider) { p.answer = func(a map[string]any) { delete(a, "refresh_token") } }, "access-2", "user"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newGate(t, newProvider(t), nil).browser()
				b.signIn()
				c.change(b.g.provider)
				time.Sleep(59*time.Minute + 30*time.Second)
				wants(t, tokens(t, b.session(), 1, b.g), c.want)
				p, d := b.g.Verify(t.Context(), b.session(), time.Now())
				switch {
				case c.want == guard.SessionExpired.String():
					if !d.Denied() {
						t.Error("the session is good")
					}
				case d.Denied():
					t.Error(d.Reason)
				case c.roles != "" && !p.HasRole(c.roles) || c.roles == "" && len(p.Roles()) > 0:
					t.Errorf("roles %v", p.Roles())
				}
			})
		})
	}
}

func TestWithoutARefreshTokenTheAccessTokenEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProvider(t)
		p.answer = func(a map[string]any) { delete(a, "refresh_token") }
		b := newGate(t, p, nil).browser()
		b.signIn()
		time.Sleep(59*time.Minute + 30*time.Second)
		b.is(guard.IdentityVerified)
		wants(t, tokens(t, b.session(), 1, b.g), "access-1")
		time.Sleep(time.Minute)
		wants(t, tokens(t, b.session(), 1, b.g), guard.SessionExpired.String())
		b.is(guard.IdentityVerified)
	})
}
