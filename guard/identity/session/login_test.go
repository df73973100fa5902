package session_test

import (
	"encoding/json"
	"maps"
	"net/http"
	"net/url"
	"path"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/moat-gateway/moat/guard"
	"github.com/moat-gateway/moat/guard/identity/session"
)

func TestAUserSignsInAndIsKnownAgain(t *testing.T) {
	g := newGate(t, newProvider(t), nil)
	b := g.browser()
	res, d := b.callback(b.begin(loginPath + "?return=/app%3Fa%3D1"))
	if d.Denied() || res.StatusCode != http.StatusSeeOther || res.Header.Get("Location") != origin+"/app?a=1" ||
		res.Header.Get("Cache-Control") != "no-store" || res.Header.Get("Referrer-Policy") != "no-referrer" {
		t.Fatalf("%d %v: %s %+v", res.StatusCode, res.Header, d.Reason, d.Evidence)
	}
	if len(b.cookies) != 1 || b.cookies[0].Name != "__Host-moat-session-staff" || g.Cookie() != b.cookies[0].Name || b.cookies[0].MaxAge != 12*3600 {
		t.Errorf("the browser has %v", b.cookies)
	}
	if !g.Recognizes(b.session()) || g.Recognizes(b.session()+"A") || g.Recognizes("") || g.Recognizes(strings.Repeat("\n", 43)) {
		t.Error("what it recognizes is not what it sets")
	}
	p, d := g.Verify(t.Context(), b.session(), time.Now())
	if d.Reason != guard.IdentityVerified {
		t.Fatalf("%s %+v", d.Reason, d.Evidence)
	}
	email, _ := p.Claim("email")
	if p.ID() != "staff|alice" || p.Issuer() != issuer || !p.Ambient() || !p.HasRole("user") || !p.HasScope("read") || email != "alice@example.com" ||
		len(p.Credential()) != 22 || strings.Contains(b.session(), p.Credential()) || time.Until(p.Expires()).Round(time.Minute) != 12*time.Hour {
		t.Errorf("%+v", p)
	}
	res, d = b.do(g.Info, "GET", "/.moat/session/staff", "")
	var info map[string]any
	if err := json.Unmarshal([]byte(body(t, res)), &info); err != nil || d.Denied() || res.Header.Get("Cache-Control") != "no-store" {
		t.Fatalf("%v %s", err, d.Reason)
	}
	if info["subject"] != "alice" || info["expires"] == nil || info["idle_expires"] == nil || len(info) != 7 {
		t.Errorf("the page is told %v", info)
	}
	if _, d = g.browser().do(g.Info, "GET", "/.moat/session/staff", ""); d.Reason != guard.CredentialsMissing {
		t.Errorf("a stranger is told: %s", d.Reason)
	}
}

func TestAnswersThatAreNotOfThisSignInAreRefused(t *testing.T) {
	for name, change := range map[string]func(g *gate, b *browser, q url.Values){
		"no state":             func(_ *gate, _ *browser, q url.Values) { q.Del("state") },
		"two states":           func(_ *gate, _ *browser, q url.Values) { q.Add("state", q.Get("state")) },
		"a short state":        func(_ *gate, _ *browser, q url.Values) { q.Set("state", q.Get("state")[:7]) },
		"half a state":         func(_ *gate, _ *browser, q url.Values) { q.Set("state", q.Get("state")[:20]) },
		"a long state":         func(_ *gate, _ *browser, q url.Values) { q.Set("state", strings.Repeat("A", 9000)) },
		"another browser":      func(_ *gate, b *browser, _ url.Values) { b.cookies = nil },
		"another host":         func(_ *gate, b *browser, _ url.Values) { b.host = "other.example" },
		"the state of another": func(g *gate, _ *browser, q url.Values) { q.Set("state", g.browser().begin(loginPath).Get("state")) },
		"the cookie of another": func(g *gate, b *browser, _ url.Values) {
			other := g.browser()
			other.begin(loginPath)
			b.cookies[0].Value = other.cookies[0].Value
		},
		"a cookie of no login": func(_ *gate, b *browser, _ url.Values) { b.cookies[0].Value = "1" },
		"the cookie twice":     func(_ *gate, b *browser, _ url.Values) { b.cookies = append(b.cookies, b.cookies[0]) },
		"a used one":           func(_ *gate, b *browser, q url.Values) { b.callback(maps.Clone(q)) },
		"late":                 func(*gate, *browser, url.Values) { time.Sleep(10*time.Minute + time.Second) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newGate(t, newProvider(t), nil)
				b := g.browser()
				q := b.begin(loginPath)
				change(g, b, q)
				before := b.session()
				if _, d := b.callback(q); d.Reason != guard.LoginStateUnknown || b.session() != before {
					t.Errorf("%s %+v", d.Reason, d.Evidence)
				}
			})
		})
	}
}

func TestAStateCannotBeChanged(t *testing.T) {
	g := newGate(t, newProvider(t), nil)
	b := g.browser()
	q := b.begin(loginPath)
	state := []byte(q.Get("state"))
	for i := range state {
		was := state[i]
		if state[i] = 'A'; was == 'A' {
			state[i] = 'B'
		}
		if _, d := b.callback(url.Values{"code": q["code"], "state": {string(state)}}); d.Reason != guard.LoginStateUnknown {
			t.Fatalf("with another character %d: %s", i, d.Reason)
		}
		state[i] = was
	}
	if _, d := b.callback(q); d.Denied() {
		t.Errorf("unchanged: %s", d.Reason)
	}
}

func TestAnswersOfAnotherProviderAreRefused(t *testing.T) {
	for name, c := range map[string]struct {
		promised bool
		change   func(q url.Values)
		reason   guard.Reason
	}{
		"its own":                  {true, func(q url.Values) { q.Set("iss", issuer) }, guard.OK},
		"its own, not promised":    {false, func(q url.Values) { q.Set("iss", issuer) }, guard.OK},
		"none, none promised":      {false, func(url.Values) {}, guard.OK},
		"another":                  {false, func(q url.Values) { q.Set("iss", "https://evil.example") }, guard.LoginFailed},
		"a longer one":             {false, func(q url.Values) { q.Set("iss", issuer+"/") }, guard.LoginFailed},
		"none":                     {true, func(url.Values) {}, guard.LoginFailed},
		"two":                      {true, func(q url.Values) { q["iss"] = []string{issuer, issuer} }, guard.LoginFailed},
		"an error":                 {false, func(q url.Values) { q.Set("error", "access_denied") }, guard.LoginFailed},
		"no code":                  {false, func(q url.Values) { q.Del("code") }, guard.LoginFailed},
		"two codes":                {false, func(q url.Values) { q.Add("code", "x") }, guard.LoginFailed},
		"a code that is not known": {false, func(q url.Values) { q.Set("code", "x") }, guard.LoginFailed},
	} {
		t.Run(name, func(t *testing.T) {
			p := newProvider(t)
			p.metadata["authorization_response_iss_parameter_supported"] = c.promised
			g := newGate(t, p, nil)
			b := g.browser()
			q := b.begin(loginPath)
			c.change(q)
			if _, d := b.callback(q); d.Reason != c.reason || (b.session() != "") != (c.reason == guard.OK) {
				t.Errorf("%s %+v", d.Reason, d.Evidence)
			}
		})
	}
	g := newGate(t, newProvider(t), nil)
	b := g.browser()
	q := b.begin(loginPath)
	q.Set("error", "<script>"+clientSecret)
	if _, d := b.callback(q); d.Evidence.Got != "an error" {
		t.Errorf("what anybody can have written is repeated: %q", d.Evidence.Got)
	}
}

func TestTokensThatDoNotVerifySignNobodyIn(t *testing.T) {
	stranger := newProvider(t)
	set := func(name string, v any) func(*provider) {
		return func(p *provider) { p.claims[name] = v }
	}
	answers := func(name string, v any) func(*provider) {
		return func(p *provider) { p.answer = func(a map[string]any) { a[name] = v } }
	}
	at := func(path string, h http.HandlerFunc) func(*provider) {
		return func(p *provider) { p.at(path, h) }
	}
	for name, change := range map[string]func(*provider){
		"another nonce":           set("nonce", "x"),
		"no nonce":                set("nonce", nil),
		"another audience":        set("aud", "other"),
		"no audience":             set("aud", nil),
		"another party":           set("azp", "other"),
		"audiences, and no party": set("aud", []string{"gate", "other"}),
		"another issuer":          set("iss", "https://evil.example"),
		"another access token":    set("at_hash", "AAAAAAAAAAAAAAAAAAAAAA"),
		"expired":                 set("exp", 1),
		"no end":                  set("exp", nil),
		"no subject":              set("sub", nil),
		"a long subject":          set("sub", strings.Repeat("a", 256)),
		"a subject that is none":  set("sub", 1),
		"too much to keep":        set("much", strings.Repeat("a", 15<<10)),
		"deep claims":             set("deep", json.RawMessage(strings.Repeat("[", 30)+strings.Repeat("]", 30))),
		"alg none":                func(p *provider) { p.sign = unsigned },
		"the secret as a key": func(p *provider) {
			p.sign = func(c map[string]any) string { return jws(t, jose.HS256, []byte(clientSecret+clientSecret), c) }
		},
		"another key": func(p *provider) {
			p.sign = func(c map[string]any) string { return jws(t, jose.ES256, stranger.key, c) }
		},
		"a claim twice": func(p *provider) {
			p.sign = func(c map[string]any) string {
				text, _ := json.Marshal(c)
				s, _ := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: p.key, KeyID: "1"}}, nil)
				o, _ := s.Sign([]byte(`{"roles":["admin"],` + string(text[1:])))
				compact, _ := o.CompactSerialize()
				return compact
			}
		},
		"no ID token":              answers("id_token", nil),
		"an ID token of one part":  answers("id_token", "eyJ"),
		"a huge ID token":          answers("id_token", strings.Repeat("a", 20<<10)),
		"a MAC token":              answers("token_type", "mac"),
		"no access token":          answers("access_token", ""),
		"an access token of lines": answers("access_token", "a\r\nb"),
		"a huge refresh token":     answers("refresh_token", strings.Repeat("a", 20<<10)),
		"somebody else's userinfo": func(p *provider) { p.userinfo["sub"] = "bob" },
		"nobody's userinfo":        func(p *provider) { delete(p.userinfo, "sub") },
		"the endpoint fails":       at("/token", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) }),
		"the endpoint refuses":     at("/token", func(w http.ResponseWriter, _ *http.Request) { refuse(w, "the secret is "+clientSecret) }),
		"the endpoint redirects": at("/token", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, issuer+"/elsewhere", http.StatusTemporaryRedirect)
		}),
		"the endpoint says much": at("/token", func(w http.ResponseWriter, _ *http.Request) { w.Write(make([]byte, 1<<20)) }),
		"the endpoint hangs":     at("/token", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newProvider(t)
				change(p)
				b := newGate(t, p, nil).browser()
				began := time.Now()
				_, d := b.callback(b.begin(loginPath))
				if d.Reason != guard.LoginFailed || b.session() != "" || len(b.g.store.entries) > 0 {
					t.Errorf("%s %+v, %d entries", d.Reason, d.Evidence, len(b.g.store.entries))
				}
				if took := time.Since(began); took > 20*time.Second {
					t.Errorf("took %s", took)
				}
				if len(d.Evidence.Got) > 250 {
					t.Errorf("repeats %d bytes", len(d.Evidence.Got))
				}
				if p.count("/elsewhere") > 0 {
					t.Error("the code went elsewhere")
				}
			})
		})
	}
}

func TestAProviderThatCannotBeAskedSignsNobodyIn(t *testing.T) {
	at := func(path string, h http.HandlerFunc) func(*provider) {
		return func(p *provider) { p.at(path, h) }
	}
	for name, change := range map[string]func(*provider){
		"huge userinfo":  func(p *provider) { p.userinfo["much"] = strings.Repeat("a", 1<<20) },
		"userinfo fails": at("/userinfo", func(w http.ResponseWriter, _ *http.Request) { refuse(w, "server_error") }),
		"the keys hang":  at("/keys", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }),
		"the keys are much": at("/keys", func(w http.ResponseWriter, _ *http.Request) {
			w.Write([]byte(`{"keys":[` + strings.Repeat(" ", 1<<20) + `]}`))
		}),
		"the keys are not there": at("/keys", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotFound) }),
		"userinfo hangs":         at("/userinfo", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newProvider(t)
				change(p)
				b := newGate(t, p, nil).browser()
				began := time.Now()
				if _, d := b.callback(b.begin(loginPath)); d.Reason != guard.IdentityUnavailable || b.session() != "" || time.Since(began) > 20*time.Second {
					t.Errorf("%s %+v after %s", d.Reason, d.Evidence, time.Since(began))
				}
			})
		})
	}
}

func TestANewLoginNeverTakesAnOldCookie(t *testing.T) {
	g := newGate(t, newProvider(t), nil)
	planted := strings.Repeat("A", 43)
	b := g.browser()
	b.cookies = []*http.Cookie{{Name: g.Cookie(), Value: planted}}
	b.signIn()
	first := b.session()
	b.signIn()
	if first == planted || b.session() == first {
		t.Error("a session got a name that there was before")
	}
	for _, old := range []string{planted, first} {
		if _, d := g.Verify(t.Context(), old, time.Now()); d.Reason != guard.SessionUnknown {
			t.Errorf("the old one: %s", d.Reason)
		}
	}
	b.is(guard.IdentityVerified)
}

func TestSignInsWithoutEndTakeNoRoom(t *testing.T) {
	g := newGate(t, newProvider(t), nil)
	b := g.browser()
	first := b.begin(loginPath)
	for range 20 {
		b.begin(loginPath)
		if len(b.cookies) > 8 {
			t.Fatalf("the browser has %d cookies", len(b.cookies))
		}
	}
	last := b.begin(loginPath)
	if len(g.store.entries) > 0 {
		t.Errorf("the store has %d entries", len(g.store.entries))
	}
	if _, d := b.callback(first); d.Reason != guard.LoginStateUnknown {
		t.Errorf("the first: %s", d.Reason)
	}
	if _, d := b.callback(last); d.Denied() {
		t.Errorf("the last: %s", d.Reason)
	}
}

func TestOnlyConfiguredOriginsAreReturnedTo(t *testing.T) {
	g := newGate(t, newProvider(t), nil)
	b := g.browser()
	for _, host := range []string{"evil.example", "plain.example", "", "app.example.evil.example", "app.example:8443"} {
		b.host = host
		if _, d := b.do(g.Login, "GET", loginPath, ""); d.Reason != guard.HostNotAllowed {
			t.Errorf("%q: %s", host, d.Reason)
		}
	}
	for host, want := range map[string]string{"app.example": origin, "APP.example:443": origin, "other.example": "https://other.example"} {
		b.host = host
		res, _ := b.do(g.Login, "GET", loginPath, "")
		u, err := url.Parse(res.Header.Get("Location"))
		if err != nil || u.Query().Get("redirect_uri") != want+"/.moat/callback/staff" {
			t.Errorf("%q: %s", host, u)
		}
	}
}

func TestTheBrowserReturnsToPathsOfThisGateAlone(t *testing.T) {
	g := newGate(t, newProvider(t), func(p *session.Policy) { p.Home = "/home" })
	for back, ok := range map[string]bool{
		"": true, "/": true, "/app": true, "/app?next=https://evil.example/": true, "/app?a=//b#c": true, "/a/b/": true, "/%2F%2Fevil.example": true,
		"//evil.example": false, "/\\evil.example": false, "\\/evil.example": false, "/\t/evil.example": false, "/\n/evil.example": false, " //evil.example": false,
		"https://evil.example": false, "https:evil.example": false, "javascript:alert(1)": false, "app": false, "?a": false, "#": false, "/a//evil.example": false,
		"/.//evil.example": false, "/%2e//evil.example": false, "/..//evil.example": false, "/a\\b": false, "/a b": false, "/a\x00": false, "/a\x7f": false, "/ü": false,
		"/.moat/logout/staff": false, "/%zz": false, "/" + strings.Repeat("a", 2047): true, "/" + strings.Repeat("a", 2048): false, "///evil.example": false, "/\u2028": false,
	} {
		_, d := g.browser().do(g.Login, "GET", loginPath+"?return="+url.QueryEscape(back), "")
		if d.Denied() == ok || d.Denied() && d.Reason != guard.LoginReturnNotAllowed {
			t.Errorf("%q: %s, want ok %v", back, d.Reason, ok)
		}
	}
	if _, d := g.browser().do(g.Login, "GET", loginPath+"?return=/a&return=/b", ""); d.Reason != guard.LoginReturnNotAllowed {
		t.Errorf("two: %s", d.Reason)
	}
	b := g.browser()
	if res, _ := b.callback(b.begin(loginPath)); res.Header.Get("Location") != origin+"/home" {
		t.Errorf("home is %s", res.Header.Get("Location"))
	}
}

// FuzzReturn wants that where a browser is sent to is at this gate, whoever resolves it: as it
// is, as a path that a server cleans, and as a browser reads it that takes "\" for "/" and
// leaves out blanks (https://url.spec.whatwg.org/#concept-basic-url-parser).
func FuzzReturn(f *testing.F) {
	for _, s := range []string{"/app", "//evil.example", "/\\evil.example", "/a/..//evil.example", "/.//e", "/%2e//e", "/a?b=//c", "/a#//c", "/\t/e", "http:///e", "/;@e", "/:80"} {
		f.Add(s)
	}
	base, err := url.Parse(origin + "/.moat/callback/staff")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, back string) {
		g := newGate(t, newProvider(t), nil)
		b := g.browser()
		res, d := b.do(g.Login, "GET", loginPath+"?return="+url.QueryEscape(back), "")
		if d.Denied() || back == "" {
			return
		}
		u, err := url.Parse(res.Header.Get("Location"))
		if err != nil {
			t.Fatal(err)
		}
		g.provider.codes["fuzz"] = u.Query()
		res, d = b.callback(url.Values{"code": {"fuzz"}, "state": {u.Query().Get("state")}})
		location, ok := strings.CutPrefix(res.Header.Get("Location"), origin)
		if d.Denied() || !ok || location != back {
			t.Fatalf("%q: %s, to %q", back, d.Reason, res.Header.Get("Location"))
		}
		asBrowser := strings.NewReplacer("\\", "/", "\t", "", "\n", "", "\r", "").Replace(strings.Trim(back, " \x00\x01\x1f"))
		onlyPath, _, _ := strings.Cut(back, "?")
		for _, s := range []string{origin + back, back, asBrowser, path.Clean(onlyPath)} {
			to, err := base.Parse(s)
			if err != nil || to.Scheme != "https" || to.Host != "app.example" || to.User != nil {
				t.Errorf("%q as %q is %v, %v", back, s, to, err)
			}
		}
	})
}
