package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/network"
)

// signinFile signs people in at the gate. Those who are in a hurry are another way to sign in at
// the same provider.
const signinFile = `version: 1
listen:
  - address: {listen}
    tls: {certificate: "{cert}", key: "{key}"}
  - {plain}
admin: {admin}
public_origins: ["{origin}", "http://{plain}"]
upstreams:
  app: {url: "http://{express}", identity: {headers: {X-User: sub}}}
auth:
  people: {login: {issuer: "{issuer}", client_id: site, client_secret: "${file:{secret}}", scopes: [openid, profile, email, offline_access]}}
  hasty: {login: {issuer: "{issuer}", client_id: hasty, client_secret: "${file:{secret}}", idle: 1m}}
policies:
  app:
    origins: ["{spa}"]
    cors: {credentials: true, request_headers: [content-type]}
    authorize: authenticated
routes:
  - {match: "GET /{$}", upstream: app, auth: public}
  - {match: /app/, upstream: app, auth: people, policy: app}
  - {match: /app/delete, upstream: app, auth: hasty, policy: app}
`

// desk is a gate that people sign in at, before a backend that believes it.
type desk struct {
	backend  *express
	gate     *moat
	provider *oidcProvider
	spa      string
}

func openDesk(t *testing.T) *desk {
	t.Helper()
	d := &desk{spa: startTLS(t, "app.shop.test", pages(t))}
	d.backend = startNode(t, []string{"express/shop.js", d.spa})
	d.gate = startMoatAt(t, "https://id.shop.test", func(gate *moat) string {
		var clients []oidcClient
		for id, name := range map[string]string{"site": "people", "hasty": "hasty"} {
			clients = append(clients, oidcClient{
				ID: id, Secret: siteSecret, RedirectURIs: []string{gate.origin + "/.moat/callback/" + name}, ResponseTypes: []string{"code"},
				GrantTypes: []string{"authorization_code", "refresh_token"}, PostLogoutURIs: []string{gate.origin + "/"},
				// The provider is in the network behind the gate, where it needs no certificate.
				Backchannel: "http://" + gate.plain + "/.moat/backchannel/" + name, BackchannelSID: true,
			})
		}
		d.provider = startOIDC(t, oidcConfig{Clients: clients})
		return strings.NewReplacer("{secret}", secretFile(t, siteSecret), "{cert}", testAuthority(t).cert, "{key}", testAuthority(t).key,
			"{express}", d.backend.addr, "{issuer}", d.provider.issuer, "{spa}", d.spa).Replace(signinFile)
	})
	return d
}

const sessionCookie = "__Host-moat-session-people"

// person is somebody's browser at the desk.
type person struct {
	*tab

	desk *desk
}

func (d *desk) person(t *testing.T) person {
	t.Helper()
	return person{newTab(t), d}
}

// isAsked waits until the tab shows the provider's form.
func (p person) isAsked() {
	p.t.Helper()
	eventually(p.t, "the provider asks who it is", func() (string, bool) {
		at, err := p.tryEval(`document.readyState + " " + location.href`)
		return fmt.Sprint(at, err), strings.HasPrefix(at, "complete "+p.desk.provider.issuer+"/interaction/")
	})
}

// answers types a name into the form, and is sent back to a path.
func (p person) answers(name, path string) {
	p.t.Helper()
	p.eval(fmt.Sprintf(`document.querySelector("input[name=login]").value = %q; document.forms[0].submit(); ""`, name))
	p.arrives(path)
}

func (p person) arrives(path string) {
	p.t.Helper()
	eventually(p.t, "the browser is at "+path, func() (string, bool) {
		at, err := p.tryEval(`document.readyState + " " + location.href`)
		return fmt.Sprint(at, err), at == "complete "+p.desk.gate.origin+path
	})
}

func (p person) signIn(name string) {
	p.t.Helper()
	p.open(p.desk.gate.origin + "/app/")
	p.isAsked()
	p.answers(name, "/app/")
}

// page runs statements in a page that has the functions of shopPrelude.
func (p person) page(statements string) string {
	p.t.Helper()
	return p.run(p.desk.gate.origin, `const prefix = "/app", at = api + prefix;`+shopPrelude+statements)
}

// is who the backend takes the page for, or why it is not asked.
func (p person) is() string {
	p.t.Helper()
	return p.page(`return saw(fetch(at + "/me", { credentials: "include" }).then(async (answer) => {
		const body = await answer.json();
		return new Response(body.user ?? body.code, { status: answer.status });
	}))`)
}

const isAlice = "default 200 alice"

// session is the session's cookie.
func (p person) session() *network.Cookie {
	p.t.Helper()
	all := p.cookies(p.desk.gate.origin)
	i := slices.IndexFunc(all, func(k *network.Cookie) bool { return k.Name == sessionCookie })
	if i < 0 {
		p.t.Fatalf("the browser has no %s", sessionCookie)
	}
	return all[i]
}

// with is a browser that has somebody's cookie.
func (d *desk) with(t *testing.T, k *network.Cookie) person {
	t.Helper()
	p := d.person(t)
	p.setCookie(d.gate.origin, k)
	p.open(d.gate.origin + "/")
	return p
}

func TestPeopleSignInAtTheGateInChromium(t *testing.T) {
	thorough(t)
	t.Parallel()
	d := openDesk(t)
	d.fallsAsleep(t)
	t.Run("and pages see who it is, and no token", func(t *testing.T) {
		t.Parallel()
		p := d.person(t)
		p.open(d.gate.origin + "/app/?a=1&b=%20")
		p.isAsked()
		p.answers("alice", "/app/?a=1&b=%20")
		p.noToken(t)
		k := p.session()
		if !k.HTTPOnly || !k.Secure || k.Path != "/" || k.Domain != "id.shop.test" || k.SameSite != network.CookieSameSiteLax {
			t.Errorf("the session's cookie: %+v", k)
		}
		if got := p.page(`return saw(fetch(at + "/transfer", { method: "POST" }))`); got != "basic 403 csrf-token-missing" {
			t.Errorf("a call without a token: %s", got)
		}
		if got := p.page(`return saw(call("/app/transfer"))`); got != "basic 200 transfer" || d.backend.ledger().Runs["127.0.0.1 transfer alice"] != 1 {
			t.Errorf("a call: %s, ran %v", got, d.backend.ledger().Runs)
		}
	})
	t.Run("and are somebody else's session after each login", func(t *testing.T) {
		t.Parallel()
		p := d.person(t)
		p.signIn("alice")
		first := *p.session()
		// Whoever has the cookie is the user: a stolen one is good, in any browser, until the session ends.
		if got := d.with(t, &first).is(); got != isAlice {
			t.Errorf("with a copy of the cookie: %s", got)
		}
		p.open(d.gate.origin + "/.moat/login/people?return=/app/") // the provider still knows her
		p.arrives("/app/")
		if p.session().Value == first.Value {
			t.Error("the session is the one before the login")
		}
		if got := d.with(t, &first).is(); got != "default 401 session-unknown" {
			t.Errorf("with a copy of the cookie from before: %s", got)
		}
	})
	t.Run("and not into a session that somebody else has prepared", func(t *testing.T) {
		t.Parallel()
		mallory := d.person(t)
		mallory.signIn("mallory")
		planted := *mallory.session()
		// No page can plant this cookie; the test does.
		p := d.with(t, &planted)
		if got := p.is(); got != "default 200 mallory" {
			t.Fatalf("the planted session: %s", got)
		}
		p.open(d.gate.origin + "/.moat/login/people?return=/app/")
		p.isAsked()
		p.answers("alice", "/app/")
		if got := p.is(); got != isAlice {
			t.Errorf("after signing in: %s", got)
		}
		if got := mallory.is(); got != "default 401 session-unknown" {
			t.Errorf("who has planted the session: %s", got)
		}
	})
	t.Run("in two tabs at once", func(t *testing.T) {
		t.Parallel()
		one := d.person(t)
		one.open(d.gate.origin + "/app/?tab=1")
		two := person{one.another(), d}
		two.open(d.gate.origin + "/app/?tab=2")
		one.isAsked()
		two.isAsked()
		one.answers("alice", "/app/?tab=1")
		two.answers("alice", "/app/?tab=2")
		if one.is() != isAlice || two.is() != isAlice {
			t.Errorf("%s, %s", one.is(), two.is())
		}
	})
	t.Run("until they sign out there", func(t *testing.T) {
		t.Parallel()
		p := d.person(t)
		p.signIn("alice")
		spa := person{p.another(), d}
		spa.open(d.spa)
		if got := spa.is(); got != isAlice {
			t.Fatalf("the app of the same site: %s", got)
		}
		out := p.another()
		out.open(d.provider.issuer + "/session/end") // its form sends itself
		eventually(t, "the session has ended under the open pages", func() (string, bool) {
			got := p.is()
			return got, got == "default 401 session-unknown"
		})
		if got := spa.page(`return saw(call("/app/transfer"))`); got != "cors 401 session-unknown" {
			t.Errorf("the app of the same site: %s", got)
		}
		p.open(d.gate.origin + "/app/")
		p.isAsked()
	})
	t.Run("until they sign out here", func(t *testing.T) {
		t.Parallel()
		p := d.person(t)
		p.signIn("alice")
		k := *p.session()
		p.page(`return sent("/.moat/logout/people", {}, { target: "_self" })`)
		p.arrives("/") // by way of the provider
		if got := p.page(`return saw(fetch("/.moat/session/people"))`); got != "basic 401 credentials-missing" {
			t.Errorf("the page is told %s", got)
		}
		if got := d.with(t, &k).is(); got != "default 401 session-unknown" {
			t.Errorf("with a copy of the cookie: %s", got)
		}
		p.open(d.gate.origin + "/app/")
		p.isAsked() // it has forgotten her too
	})
	t.Run("until their app of the same site signs them out", func(t *testing.T) {
		t.Parallel()
		p := d.person(t)
		p.signIn("alice")
		p.open(d.spa)
		if got := p.page(`return (await (await fetch(api + "/.moat/session/people", { credentials: "include" })).json()).subject`); got != "alice" {
			t.Errorf("the app is told %s", got)
		}
		got := p.page(`return (await (await call("/.moat/logout/people")).json()).location`)
		if !strings.HasPrefix(got, d.provider.issuer+"/session/end?") || strings.Contains(got, "eyJ") {
			t.Errorf("to sign out at the provider the app is sent to %s", got)
		}
		if got := p.is(); got != "default 401 credentials-missing" {
			t.Errorf("after that: %s", got)
		}
	})
}

// fallsAsleep signs somebody in, and looks at the end of the test whether she still is, who has done nothing
// for a minute. A cleanup comes after all subtests, and takes no other test's place while it waits.
func (d *desk) fallsAsleep(t *testing.T) {
	t.Helper()
	p := d.person(t)
	p.open(d.gate.origin + "/.moat/login/hasty?return=/app/delete")
	p.isAsked()
	p.answers("alice", "/app/delete")
	idle, err := time.Parse(time.RFC3339, p.page(`return (await (await fetch("/.moat/session/hasty")).json()).idle_expires`))
	if err != nil || time.Until(idle) > time.Minute {
		t.Fatalf("idle at %s: %v", idle, err)
	}
	t.Cleanup(func() {
		// A page that looks who is there is no use of the session.
		for left := time.Until(idle); left > 5*time.Second; left = time.Until(idle) {
			p.page(`return saw(fetch("/.moat/session/hasty"))`)
			time.Sleep(min(10*time.Second, left))
		}
		time.Sleep(time.Until(idle.Add(time.Second)))
		if got := p.page(`return saw(fetch("/app/delete", { headers: { "X-CSRF-Token": await token() } }))`); got != "basic 401 session-expired" {
			t.Errorf("who was idle is told %s", got)
		}
	})
}

// noToken looks for the provider's codes and tokens wherever a page's script can look.
func (p person) noToken(t *testing.T) {
	t.Helper()
	var issued []string
	getJSON(t, p.desk.provider.control+"/__issued", &issued)
	if len(issued) < 4 { // a code, an access token, a refresh token and an ID token
		t.Fatalf("the provider has issued %d codes and tokens", len(issued))
	}
	seen := p.page(`
		const read = async (path) => { const answer = await fetch(path); return [...answer.headers].join() + await answer.text() };
		const all = {
			cookie: document.cookie, storage: JSON.stringify([{ ...localStorage }, { ...sessionStorage }, (await indexedDB.databases()), (await caches.keys())]),
			page: document.documentElement.outerHTML, here: location.href + " " + document.referrer + " " + name + JSON.stringify(history.state),
			session: await read("/.moat/session/people"), csrf: await read("/.moat/csrf"), backend: await read("/app/me"),
		};
		all.performance = JSON.stringify(performance.getEntries());
		return JSON.stringify(all)`)
	for _, secret := range append(issued, p.session().Value, siteSecret, "eyJ") { // as each JWT begins
		if strings.Contains(seen, secret) {
			t.Errorf("the page's script can see %.12s… in %s", secret, seen)
		}
	}
	for _, text := range []string{`\"subject\":\"alice\"`, `alice@example.com`, `\"user\":\"alice\"`} {
		if !strings.Contains(seen, text) {
			t.Errorf("the page's script does not see %s in %s", text, seen)
		}
	}
	if strings.Contains(seen, `\"cookie\"`) || strings.Contains(seen, `\"authorization\"`) {
		t.Errorf("the backend got a credential: %s", seen)
	}
}
