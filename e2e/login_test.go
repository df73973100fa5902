package e2e

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/moat-gateway/moat/guard"
	"github.com/moat-gateway/moat/guard/identity/session"
	"github.com/moat-gateway/moat/store/memory"
	"github.com/moat-gateway/moat/store/valkey"
	"github.com/moat-gateway/moat/store/valkey/valkeytest"
	"github.com/moat-gateway/moat/web"
)

// loginSite is a page's server that signs its users in with the session guard alone.
type loginSite struct {
	t        *testing.T
	provider *oidcProvider
	origin   string
	guard    *session.Guard
	client   http.Client  // trusts it
	ahead    atomic.Int64 // of the clock, in nanoseconds
}

// almost is so long that an access token of an hour is due to be renewed, and a session is not
// idle yet.
const almost = 59*time.Minute + 30*time.Second

func (s *loginSite) now() time.Time { return time.Now().Add(time.Duration(s.ahead.Load())) }

// pass lets time pass.
func (s *loginSite) pass(d time.Duration) { s.ahead.Add(int64(d)) }

// startLogin starts a provider, and a site that is a client of it.
func startLogin(t *testing.T, cfg oidcConfig, change func(*session.Policy)) *loginSite {
	t.Helper()
	thorough(t)
	s := &loginSite{t: t}
	front := httptest.NewTLSServer(http.HandlerFunc(s.serve))
	t.Cleanup(front.Close)
	// What the provider's process has no certificate for.
	back := httptest.NewServer(http.HandlerFunc(s.serve))
	t.Cleanup(back.Close)
	s.origin, s.client = front.URL, *front.Client()
	cfg.Clients = []oidcClient{{
		ID: "site", Secret: "the-site's-own-secret", RedirectURIs: []string{front.URL + "/.moat/callback/staff"}, ResponseTypes: []string{"code"},
		GrantTypes: []string{"authorization_code", "refresh_token"}, PostLogoutURIs: []string{front.URL + "/"},
		Backchannel: back.URL + "/.moat/backchannel/staff", BackchannelSID: true,
	}}
	s.provider = startOIDC(t, cfg)
	s.guard = s.newGuard(memory.NewSessions(1<<20), change)
	return s
}

func (s *loginSite) newGuard(store session.Store, change func(*session.Policy)) *session.Guard {
	s.t.Helper()
	origin, err := web.ParseOrigin(s.origin)
	if err != nil {
		s.t.Fatal(err)
	}
	p := session.Policy{
		Source: "staff", Issuer: s.provider.issuer, ClientID: "site", ClientSecret: "the-site's-own-secret", RolesClaim: "roles",
		Scopes: []string{"openid", "profile", "email", "offline_access"}, Public: web.NewPublicOrigins([]web.Origin{origin}),
	}
	if change != nil {
		change(&p)
	}
	g, err := session.New(p, store, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	return g
}

func (s *loginSite) serve(w http.ResponseWriter, r *http.Request) {
	now := s.now()
	var d guard.Decision
	switch r.Method + " " + r.URL.Path {
	case "GET /.moat/login/staff":
		d = s.guard.Login(w, r, now)
	case "GET /.moat/callback/staff":
		d = s.guard.Callback(w, r, now)
	case "POST /.moat/logout/staff":
		d = s.guard.Logout(w, r, now)
	case "POST /.moat/backchannel/staff":
		d = s.guard.Backchannel(w, r, now)
	case "GET /.moat/session/staff":
		d = s.guard.Info(w, r, now)
	case "GET /token":
		var text string
		s.guard.Verify(r.Context(), value(r, s.guard.Cookie()), now) // as in front of every route
		if text, d = s.guard.AccessToken(r.Context(), value(r, s.guard.Cookie()), now); !d.Denied() {
			io.WriteString(w, text)
		}
	default:
		p, found := s.guard.Verify(r.Context(), value(r, s.guard.Cookie()), now)
		if d = found; !d.Denied() {
			io.WriteString(w, "hello "+p.ID()+" "+strings.Join(p.Roles(), ","))
		}
	}
	if d.Denied() {
		guard.Refuse(w, d.Reason, "")
		s.t.Logf("%s %s: %s: %+v", r.Method, r.URL.Path, d.Reason, d.Evidence)
	}
}

func value(r *http.Request, cookie string) string {
	c, err := r.Cookie(cookie)
	if err != nil {
		return ""
	}
	return c.Value
}

// browser is one with its own cookies.
func (s *loginSite) browser() *http.Client {
	jar, err := cookiejar.New(nil)
	if err != nil {
		s.t.Fatal(err)
	}
	c := s.client
	c.Jar = jar
	return &c
}

func (s *loginSite) get(c *http.Client, path string) (status int, body string) {
	s.t.Helper()
	at := fetchPage(s.t, c, newGet(s.t, s.origin+path))
	return at.StatusCode, at.body
}

func (s *loginSite) says(c *http.Client, path string, want string) {
	s.t.Helper()
	if status, body := s.get(c, path); status != http.StatusOK || body != want {
		s.t.Fatalf("%s: %d %q, want %q", path, status, body, want)
	}
}

func (s *loginSite) refuses(c *http.Client, path string, want guard.Reason) {
	s.t.Helper()
	status, body := s.get(c, path)
	if status != want.Status() || !strings.Contains(body, `"`+want.String()+`"`) {
		s.t.Fatalf("%s: %d %s, want %s", path, status, body, want)
	}
}

func (s *loginSite) signIn(c *http.Client, name string) {
	s.t.Helper()
	at := s.provider.signIn(c, s.origin+"/.moat/login/staff?return=/app%3Fa%3D1", name)
	if got := at.Request.URL.String(); got != s.origin+"/app?a=1" || at.StatusCode != http.StatusOK {
		s.t.Fatalf("after signing in: %s at %s\n%s", at.Status, got, at.body)
	}
}

func (s *loginSite) signOut(c *http.Client, form map[string][]string) shownPage {
	s.t.Helper()
	req := newForm(s.t, s.origin+"/.moat/logout/staff", form)
	req.Header.Set("Accept", "text/html")
	return fetchPage(s.t, c, req)
}

func TestUsersSignInAtACertifiedProvider(t *testing.T) {
	s := startLogin(t, oidcConfig{}, nil)
	alice, admin := s.browser(), s.browser()
	s.refuses(alice, "/", guard.SessionUnknown)
	s.signIn(alice, "alice")
	s.says(alice, "/", "hello staff|alice user")
	s.signIn(admin, "admin")
	s.says(admin, "/", "hello staff|admin admin,user")

	_, text := s.get(alice, "/.moat/session/staff")
	var info struct {
		Subject              string
		Claims               map[string]any
		Expires, IdleExpires time.Time
	}
	if err := json.Unmarshal([]byte(text), &info); err != nil {
		t.Fatal(err)
	}
	if info.Subject != "alice" || info.Claims["email"] != "alice@example.com" || time.Until(info.Expires) < 11*time.Hour {
		t.Errorf("the page is told %s", text)
	}
	token := s.token(alice)
	if strings.Contains(text, token) || strings.Contains(text, "token") {
		t.Errorf("the page is told a token: %s", text)
	}
	// The provider knows its token.
	req := newGet(t, s.provider.issuer+"/me")
	req.Header.Set("Authorization", "Bearer "+token)
	if at := fetchPage(t, client, req); at.StatusCode != http.StatusOK || !strings.Contains(at.body, `"alice"`) {
		t.Errorf("the access token: %s %s", at.Status, at.body)
	}
	if n := s.provider.count("/jwks"); n != 1 {
		t.Errorf("its keys were fetched %d times", n)
	}
}

func (s *loginSite) token(c *http.Client) string {
	s.t.Helper()
	status, token := s.get(c, "/token")
	if status != http.StatusOK || token == "" {
		s.t.Fatalf("no access token: %d %s", status, token)
	}
	return token
}

func TestSeveralTabsSignInAtOnce(t *testing.T) {
	s := startLogin(t, oidcConfig{}, nil)
	c := s.browser()
	// Both are at the provider before either comes back.
	first := fetchPage(t, c, newGet(t, s.origin+"/.moat/login/staff?return=/one"))
	second := fetchPage(t, c, newGet(t, s.origin+"/.moat/login/staff?return=/two"))
	for _, tab := range []struct {
		at   shownPage
		path string
	}{{first, "/one"}, {second, "/two"}} {
		at := fetchPage(t, c, newForm(t, tab.at.Request.URL.String(), map[string][]string{"login": {"alice"}}))
		if at.StatusCode != http.StatusOK || at.Request.URL.Path != tab.path || at.body != "hello staff|alice user" {
			t.Errorf("%s: %s at %s: %s", tab.path, at.Status, at.Request.URL, at.body)
		}
	}
}

func TestASessionIsAnotherOneAfterEachLogin(t *testing.T) {
	s := startLogin(t, oidcConfig{}, nil)
	c := s.browser()
	s.signIn(c, "alice")
	first := cookieOf(t, c, s.origin, s.guard.Cookie())
	s.signIn(c, "alice")
	second := cookieOf(t, c, s.origin, s.guard.Cookie())
	if first == second {
		t.Fatal("the session is the same one")
	}
	old := s.browser()
	req := newGet(t, s.origin+"/")
	req.AddCookie(&http.Cookie{Name: s.guard.Cookie(), Value: first})
	if at := fetchPage(t, old, req); at.StatusCode != http.StatusUnauthorized {
		t.Errorf("the session that a login replaced: %s", at.Status)
	}
}

func cookieOf(t *testing.T, c *http.Client, origin, name string) string {
	t.Helper()
	for _, k := range c.Jar.Cookies(newGet(t, origin).URL) {
		if k.Name == name {
			return k.Value
		}
	}
	t.Fatalf("the browser has no %s", name)
	return ""
}

func TestSomebodyElsesAnswerSignsNobodyIn(t *testing.T) {
	s := startLogin(t, oidcConfig{}, nil)
	attacker, victim := s.browser(), s.browser()
	attacker.CheckRedirect = func(req *http.Request, _ []*http.Request) error {
		if strings.HasPrefix(req.URL.String(), s.origin) {
			return http.ErrUseLastResponse
		}
		return nil
	}
	// The attacker's own sign-in, up to the redirect that would end it.
	at := fetchPage(t, attacker, newGet(t, s.origin+"/.moat/login/staff"))
	at = fetchPage(t, attacker, newForm(t, at.Request.URL.String(), map[string][]string{"login": {"mallory"}}))
	link := at.Header.Get("Location")
	if !strings.HasPrefix(link, s.origin+"/.moat/callback/staff?code=") {
		t.Fatalf("the attacker got to %s, to go on to %s", at.Request.URL, link)
	}
	callback := strings.TrimPrefix(link, s.origin)
	s.refuses(victim, callback, guard.LoginStateUnknown)
	// Nor where the victim is about to sign in.
	fetchPage(t, victim, newGet(t, s.origin+"/.moat/login/staff"))
	s.refuses(victim, callback, guard.LoginStateUnknown)
	s.refuses(victim, "/", guard.SessionUnknown)
	// It is the attacker's own, once.
	attacker.CheckRedirect = nil
	s.says(attacker, callback, "hello staff|mallory user")
	s.refuses(attacker, callback, guard.LoginStateUnknown)
}

func TestAccessTokensAreRenewedOnce(t *testing.T) {
	s := startLogin(t, oidcConfig{TTL: map[string]int{"IdToken": 86400}}, nil)
	c := s.browser()
	s.signIn(c, "alice")
	tokens := map[string]bool{s.token(c): true}
	for i := 1; i <= 3; i++ {
		s.pass(almost)
		var all sync.WaitGroup
		var mu sync.Mutex
		for range 20 {
			all.Go(func() {
				token := s.token(c)
				mu.Lock()
				defer mu.Unlock()
				tokens[token] = true
			})
		}
		all.Wait()
		if n := s.provider.count("grant refresh_token"); n != i || len(tokens) != i+1 {
			t.Fatalf("%d renewals of %d, %d tokens", n, i, len(tokens))
		}
	}
	s.provider.revokeAll()
	s.says(c, "/", "hello staff|alice user")
	s.pass(almost)
	s.refuses(c, "/token", guard.SessionExpired)
	s.refuses(c, "/", guard.SessionUnknown)
}

func TestUsersSignOut(t *testing.T) {
	s := startLogin(t, oidcConfig{}, nil)
	one, two, bob := s.browser(), s.browser(), s.browser()
	s.signIn(one, "alice")
	s.signIn(two, "alice")
	s.signIn(bob, "bob")
	stolen := cookieOf(t, one, s.origin, s.guard.Cookie())
	if at := s.signOut(one, map[string][]string{"return": {"/bye"}}); at.Request.URL.String() != s.origin+"/bye" {
		t.Errorf("signed out to %s", at.Request.URL)
	}
	s.refuses(one, "/", guard.SessionUnknown)
	s.says(two, "/", "hello staff|alice user")
	req := newGet(t, s.origin+"/")
	req.AddCookie(&http.Cookie{Name: s.guard.Cookie(), Value: stolen})
	if at := fetchPage(t, s.browser(), req); at.StatusCode != http.StatusUnauthorized {
		t.Errorf("the cookie of a session that has ended: %s", at.Status)
	}
	s.signIn(one, "alice")
	s.signOut(one, map[string][]string{"everywhere": {"1"}})
	s.refuses(one, "/", guard.SessionUnknown)
	s.refuses(two, "/", guard.SessionUnknown)
	s.says(bob, "/", "hello staff|bob user")
}

func TestSigningOutAtTheProviderEndsTheSessionHere(t *testing.T) {
	s := startLogin(t, oidcConfig{}, nil)
	one, two := s.browser(), s.browser()
	s.signIn(one, "alice")
	s.signIn(two, "alice")
	s.provider.signOut(one, fetchPage(t, one, newGet(t, s.provider.issuer+"/session/end")))
	// Its logout token has a sid: only that browser's session ends.
	eventually(t, "the session has ended", func() (string, bool) {
		status, body := s.get(one, "/")
		return body, status == http.StatusUnauthorized
	})
	s.says(two, "/", "hello staff|alice user")
	if n := s.provider.count("backchannel success"); n != 1 {
		t.Errorf("%d logout tokens were accepted", n)
	}
}

func TestSigningOutHereEndsTheSessionAtTheProvider(t *testing.T) {
	s := startLogin(t, oidcConfig{}, func(p *session.Policy) { p.SignOutAtProvider = true })
	c := s.browser()
	s.signIn(c, "alice")
	at := s.provider.signOut(c, s.signOut(c, nil))
	if at.Request.URL.String() != s.origin+"/" {
		t.Errorf("the provider sent the browser to %s", at.Request.URL)
	}
	// Who signs in now is asked again who it is.
	if at := fetchPage(t, c, newGet(t, s.origin+"/.moat/login/staff")); !strings.Contains(at.Request.URL.Path, "/interaction/") {
		t.Errorf("the provider still knows the user: %s", at.Request.URL)
	}
}

func TestTheProviderIsDown(t *testing.T) {
	s := startLogin(t, oidcConfig{}, nil)
	c := s.browser()
	s.signIn(c, "alice")
	token := s.token(c)
	s.provider.kill()
	s.pass(almost)
	s.says(c, "/", "hello staff|alice user") // who is signed in stays so
	s.says(c, "/token", token)
	s.pass(time.Minute)
	s.refuses(c, "/token", guard.IdentityUnavailable)
	s.says(c, "/", "hello staff|alice user")

	// A gate that starts now, without a provider to ask.
	s.ahead.Store(0)
	s.guard = s.newGuard(memory.NewSessions(1<<20), nil)
	s.refuses(c, "/.moat/login/staff", guard.IdentityUnavailable)
	s.refuses(c, "/", guard.SessionUnknown)
	port := s.provider.port
	s.provider = startOIDC(t, oidcConfig{Port: port, Clients: []oidcClient{{
		ID: "site", Secret: "the-site's-own-secret", RedirectURIs: []string{s.origin + "/.moat/callback/staff"}, ResponseTypes: []string{"code"},
		GrantTypes: []string{"authorization_code", "refresh_token"},
	}}})
	eventually(t, "the provider is found again", func() (string, bool) {
		at := fetchPage(t, c, newGet(t, s.origin+"/.moat/login/staff"))
		return at.Status, at.StatusCode == http.StatusOK
	})
	s.signIn(c, "bob")
	s.says(c, "/", "hello staff|bob user")
}

func TestProcessesShareSessionsThroughAValkey(t *testing.T) {
	s := startLogin(t, oidcConfig{}, nil)
	server := valkeytest.Start(t)
	var guards []*session.Guard
	for range 2 {
		store, err := valkey.Open(t.Context(), valkey.Config{Addresses: []string{server.Addr}, Timeout: valkey.MaxTimeout})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(store.Close)
		guards = append(guards, s.newGuard(store.Sessions(), nil))
	}
	verify := func(text string, want guard.Reason) {
		t.Helper()
		for i, g := range guards {
			if _, d := g.Verify(t.Context(), text, time.Now()); d.Reason != want {
				t.Errorf("process %d: %s %+v, want %s", i, d.Reason, d.Evidence, want)
			}
		}
	}
	one, two := s.browser(), s.browser()
	s.guard = guards[0]
	s.signIn(one, "alice")
	s.guard = guards[1]
	s.signIn(two, "alice")
	first, second := cookieOf(t, one, s.origin, s.guard.Cookie()), cookieOf(t, two, s.origin, s.guard.Cookie())
	verify(first, guard.IdentityVerified)
	verify(second, guard.IdentityVerified)

	// One of them renews the access token, and both have the new one.
	later := time.Now().Add(almost)
	var all sync.WaitGroup
	tokens := make([]string, 40)
	for i := range tokens {
		all.Go(func() {
			var d guard.Decision
			if tokens[i], d = guards[i%2].AccessToken(t.Context(), first, later); d.Denied() {
				t.Errorf("%s %+v", d.Reason, d.Evidence)
			}
		})
	}
	all.Wait()
	if slices.Sort(tokens); tokens[0] == "" || tokens[0] != tokens[len(tokens)-1] || s.provider.count("grant refresh_token") != 1 {
		t.Errorf("%d renewals: %q", s.provider.count("grant refresh_token"), slices.Compact(tokens))
	}

	s.signOut(two, map[string][]string{"everywhere": {"1"}})
	verify(first, guard.SessionUnknown)
	verify(second, guard.SessionUnknown)
	s.signIn(one, "alice")
	text := cookieOf(t, one, s.origin, s.guard.Cookie())
	verify(text, guard.IdentityVerified)
	server.Kill()
	verify(text, guard.IdentityUnavailable)
}
