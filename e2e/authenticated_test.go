package e2e

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/moat-gateway/moat/store/valkey/valkeytest"
)

// shop is the place of docs/recipes/authenticated.md: its gate, its backend, its page and its
// identity provider.
type shop struct {
	*cook
	gate     *moat
	page     *page
	provider *oidcProvider
}

// The public origin of the section on two gates.
const shopOrigin = "https://api.shop.example"

// TestRecipeAuthenticated does what docs/recipes/authenticated.md says, block by block, as a newcomer would.
func TestRecipeAuthenticated(t *testing.T) {
	thorough(t)
	r := readRecipe(t, "authenticated.md")
	backend, yaml, keys, keysShown, start := r.take("js"), r.take("yaml"), r.take("sh"), r.take("text"), r.take("sh")
	s := startShop(t, backend, yaml, keys, keysShown, start)

	s.prints(s.run(r.take("sh")), r.take("text")) // nobody
	s.prints(s.run(r.take("sh")), r.take("text")) // an API key
	s.prints(s.run(r.take("sh")), r.take("text")) // a token
	s.prints(s.run(r.take("sh")), r.take("text")) // which is not enough
	s.people(r.take("html"))
	s.prints(s.run(r.take("sh")), r.take("text")) // the shop's own cookie
	s.prints(s.run(r.take("sh")), r.take("text")) // too many calls
	s.prints(s.run(r.take("sh")), r.take("text")) // guesses
	s.prints(s.run(r.take("sh")), r.take("text")) // forgeries

	s.change("    browserless: allow ", r.take("yaml")+"    browserless: allow ")
	s.prints(s.run(r.take("sh")), r.take("text")) // report
	s.write(s.place.Replace(yaml))

	s.takeBack(r.take("sh"), r.take("text"))
	s.replaceSecrets(r.take("yaml"))
	s.twoGates(backend, yaml, r.take("yaml"))
	if r.next != len(r.blocks) {
		t.Errorf("nothing executes the blocks after %d of %d", r.next, len(r.blocks))
	}
}

// startShop sets up all that the recipe needs, and runs its gate.
func startShop(t *testing.T, backend, yaml, keys, keysShown, start string) *shop {
	t.Helper()
	s := &shop{cook: &cook{t: t, dir: t.TempDir()}, page: startPage(t)}
	for range 5 {
		m := &moat{addr: freeAddress(t), admin: freeAddress(t), file: filepath.Join(s.dir, "moat.yaml")}
		_, port, _ := net.SplitHostPort(m.addr)
		m.origin = "http://localhost:" + port
		s.gate = m
		s.provider = startOIDC(t, oidcConfig{Clients: []oidcClient{
			{
				ID: "moat", Secret: "the-secret-of-moat", RedirectURIs: []string{m.origin + "/.moat/callback/people", shopOrigin + "/.moat/callback/people"},
				ResponseTypes: []string{"code"}, GrantTypes: []string{"authorization_code", "refresh_token"}, PostLogoutURIs: []string{shopOrigin + "/"},
				Backchannel: m.origin + "/.moat/backchannel/people", BackchannelSID: true,
			},
			{ID: "app", Secret: "the-secret-of-app", RedirectURIs: []string{}, ResponseTypes: []string{}, GrantTypes: []string{"client_credentials"}},
		}})
		shopAddr := s.startBackend(backend, "GATE="+m.origin, "PAGE="+s.page.origin)
		s.place = strings.NewReplacer("localhost:8080", "localhost:"+port, "127.0.0.1:8080", m.addr, "127.0.0.1:9090", m.admin,
			"127.0.0.1:3000", shopAddr, "https://id.example.com", s.provider.issuer, "https://shop.example", s.page.origin)
		m.write(t, s.place.Replace(yaml))
		bin := t.TempDir()
		s.env = []string{"PATH=" + bin + ":" + os.Getenv("PATH")}
		script := fmt.Sprintf(`#!/bin/sh
case $1 in
run) echo $$ >%[2]s/pid; exec %[1]s "$@" --log-format json ;;
why | limits) exec %[1]s "$@" --admin %[3]s ;;
esac
exec %[1]s "$@"
`, moatCommand(t), bin, m.admin)
		if err := os.WriteFile(filepath.Join(bin, "moat"), []byte(script), 0o700); err != nil {
			t.Fatal(err)
		}
		s.remove("keys.db")
		s.prints(s.run("exec 2>&1\n"+keys), keysShown)
		if s.serve(m, start, bin) {
			return s
		}
	}
	t.Fatal("moat finds every port taken")
	return nil
}

func (s *shop) remove(name string) {
	if err := os.RemoveAll(filepath.Join(s.dir, name)); err != nil {
		s.t.Fatal(err)
	}
}

// startBackend runs the recipe's backend, with the packages of express/, and returns its address.
func (s *shop) startBackend(text string, env ...string) string {
	s.t.Helper()
	packages, err := filepath.Abs("express/node_modules")
	if err != nil {
		s.t.Fatal(err)
	}
	s.file("shop.js", text)
	addr := freeAddress(s.t)
	_, port, _ := net.SplitHostPort(addr)
	cmd := exec.Command(program(s.t, "node"), "shop.js")
	cmd.Dir = s.dir
	cmd.Env = append(append(cmd.Environ(), "NODE_PATH="+packages, "PORT="+port), env...)
	p := startProcess(s.t, cmd, func(p *process) {
		if !p.ended() {
			p.signal(syscall.SIGTERM)
		}
	}, func(*process) {})
	eventually(s.t, "the backend listens", func() (string, bool) {
		conn, dialErr := net.Dial("tcp", addr)
		if dialErr == nil {
			conn.Close()
		}
		return p.stderr.String(), dialErr == nil
	})
	return addr
}

func (s *shop) file(name, text string) {
	s.t.Helper()
	if err := os.WriteFile(filepath.Join(s.dir, name), []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// change replaces what stands in moat.yaml once, and waits until it holds.
func (s *shop) change(old, text string) {
	s.t.Helper()
	before := s.gate.read(s.t)
	if strings.Count(before, old) != 1 {
		s.t.Fatalf("moat.yaml has %q %d times; want once:\n%s", old, strings.Count(before, old), before)
	}
	s.write(strings.Replace(before, old, text, 1))
}

// write replaces moat.yaml, and waits until it holds.
func (s *shop) write(yaml string) {
	s.t.Helper()
	s.reloaded(func() { s.gate.write(s.t, yaml) })
}

// reloaded changes a file that moat watches, and waits until moat has read it anew.
func (s *shop) reloaded(change func()) {
	s.t.Helper()
	n := len(s.gate.log("configuration reloaded"))
	change()
	eventually(s.t, "moat reads its file anew", func() (string, bool) { return s.gate.stderr.String(), len(s.gate.log("configuration reloaded")) > n })
}

// people signs in with a browser, and changes something by script and by a form.
func (s *shop) people(html string) {
	t, gate := s.t, s.gate.origin
	t.Helper()
	s.page.show(html, gate)
	tab := newTab(t)
	tab.open(s.page.origin)
	at := func(origin string) {
		t.Helper()
		eventually(t, "the browser gets to "+origin, func() (string, bool) {
			where, err := tab.tryEval("document.readyState + ' ' + location.origin")
			return fmt.Sprint(where, err), where == "complete "+origin
		})
	}
	tab.click("#in")
	at(s.provider.issuer)
	tab.eval(`document.querySelector("input[name=login]").value = "alice"`)
	tab.click("button")
	at(s.page.origin)

	for _, x := range [][2]string{
		{`call("/users/alice/cards", {card: "visa"}).then((r) => r.text())`, `{"path":"/users/alice/cards","who":"people|alice"}`},
		{`call("/users/bob/cards", {card: "visa"}).then(async (r) => (await r.json()).code)`, "authorization-condition-false"},
		{`fetch(api + "/users/alice/cards", {method: "POST", credentials: "include"}).then(async (r) => (await r.json()).code)`, "csrf-token-missing"},
		{`fetch(api + "/.moat/session/people", {credentials: "include"}).then(async (r) => (await r.json()).subject)`, "alice"},
		{`String(document.cookie.includes("session"))`, "false"},
	} {
		if got := tab.eval(x[0]); got != x[1] {
			t.Errorf("%s: %s; want %s", x[0], got, x[1])
		}
	}
	eventually(t, "the form has a token", func() (string, bool) {
		token := tab.eval("document.forms.cards.csrf_token.value")
		return token, token != ""
	})
	tab.forget()
	tab.click("#cards button")
	if got := tab.shows(gate); !strings.HasPrefix(got, "document 200") || !strings.Contains(got, "people|alice") {
		t.Errorf("the form: %s", got)
	}

	// A page elsewhere, to which the browser is as good: its form does not run the backend.
	evil := startPage(t)
	evil.show(fmt.Sprintf(`<form method="post" action="%s/users/alice/cards"><button>Win</button></form>`, gate), gate)
	tab.open(strings.Replace(evil.origin, "localhost", "127.0.0.1", 1))
	tab.forget()
	tab.click("button")
	if got := tab.shows(gate); !strings.HasPrefix(got, "document 403") {
		t.Errorf("a stranger's form: %s", got)
	}

	// Who signs out at the provider is signed out here: the provider tells the gate.
	tab.open(s.provider.issuer + "/session/end")
	eventually(t, "the provider has told the gate", func() (string, bool) {
		n := s.provider.count("backchannel success")
		return s.provider.stderr.String(), n == 1
	})
	tab.open(s.page.origin)
	if got := tab.eval(`fetch(api + "/users/alice/cards", {credentials: "include"}).then(async (r) => (await r.json()).code)`); got != "session-unknown" {
		t.Errorf("signed out at the provider: %s", got)
	}
}

// takeBack follows the block that revokes a key and a token.
func (s *shop) takeBack(block, shown string) {
	s.t.Helper()
	revoke, calls, ok := strings.Cut(block, "sleep 3\n")
	if !ok {
		s.t.Fatal("the block does not wait")
	}
	var printed, got string
	s.reloaded(func() { printed = s.run(revoke) })
	eventually(s.t, "both are taken back", func() (string, bool) {
		got = s.run(calls)
		return got, strings.Contains(got, "api-key-revoked") && strings.Contains(got, "token-revoked")
	})
	s.prints(printed+got, shown)
	s.reloaded(func() { s.file("revoked.txt", "") })
}

// replaceSecrets follows the table on that, while a user, a program and a page go on calling.
func (s *shop) replaceSecrets(block string) {
	t := s.t
	t.Helper()
	pemKey := func() string {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	}
	s.file("identity.pem", pemKey())
	s.file("identity-new.pem", pemKey())
	s.file("csrf.key", rand.Text()+rand.Text())
	s.file("csrf-new.key", rand.Text()+rand.Text())
	s.file("client.key", "the-secret-of-moat")
	both := merged("\n"+s.gate.read(t), block)
	csrfBoth, identityBoth := `["${file:csrf-new.key}", "${file:csrf.key}"]`, `["${file:identity.pem}", "${file:identity-new.pem}"]`
	both = strings.Replace(both, `  secrets: "${env:MOAT_CSRF_SECRET}"`+"\n", "", 1)
	both = strings.Replace(both, "${env:MOAT_CLIENT_SECRET}", "${file:client.key}", 1)
	identity := "identity_keys: " + identityBoth
	if strings.Count(block, identity) != 1 || strings.Count(both, csrfBoth) != 1 {
		t.Fatalf("the block on secrets is another one:\n%s\n%s", block, both)
	}
	both = strings.Replace(both, "\nroutes:\n", "\n"+identity+"\nroutes:\n", 1)

	s.write(strings.NewReplacer(csrfBoth, `"${file:csrf.key}"`, identityBoth, `"${file:identity.pem}"`).Replace(both))
	const csrf = `csrf() { curl -s -b jar -c jar http://localhost:8080/.moat/csrf -H 'Sec-Fetch-Site: same-origin' | sed 's/.*"token":"\([^"]*\)".*/\1/'; }` + "\n"
	s.run(csrf + "csrf > old.token\nmoat key create --config moat.yaml --owner acme --scope orders:read > acme.key\nmoat key rotate $(cut -c 6-13 acme.key) --config moat.yaml --grace 7d > next.key")
	s.run(`at=$(curl -sL -b people -c people -o signin.html -w '%{url_effective}' 'http://localhost:8080/.moat/login/people?return=/users/alice/')
curl -sL -b people -c people -o signed-in.json "$at" -d login=alice`)
	eventually(t, "moat knows the keys", func() (string, bool) {
		// Until then they are wrong, which costs the address ten each.
		got := s.run(`curl -s http://localhost:8080/orders/7 -H "X-Api-Key: $(cat next.key)"; sleep 1`)
		return got, strings.Contains(got, "partners|acme")
	})
	goOn := func(when string) {
		t.Helper()
		for name, x := range map[string][2]string{
			"a program with the old key": {`curl -s http://localhost:8080/orders/7 -H "X-Api-Key: $(cat acme.key)"`, `{"path":"/orders/7","who":"partners|acme","scope":"orders:read"}`},
			"one with the new key":       {`curl -s http://localhost:8080/orders/7 -H "X-Api-Key: $(cat next.key)"`, `{"path":"/orders/7","who":"partners|acme","scope":"orders:read"}`},
			"who is signed in":           {`curl -s -b people http://localhost:8080/users/alice/`, `{"path":"/users/alice/","who":"people|alice"}`},
			"an app":                     {`curl -s http://localhost:8080/users/app/cards -H "Authorization: Bearer $(cat app.token)"`, `{"path":"/users/app/cards","who":"apps|app","scope":"read"}`},
			"a page with its old token":  {`curl -s -b jar http://localhost:8080/cart -d item=book -H "X-CSRF-Token: $(cat old.token)"`, `{"user":"alice","item":"book"}`},
		} {
			if got := s.run(x[0]); got != x[1] {
				t.Errorf("%s, %s: %s", name, when, got)
			}
		}
	}
	goOn("at first")
	s.write(both)
	goOn("both CSRF secrets, the new identity key published")
	s.change(identityBoth, `["${file:identity-new.pem}", "${file:identity.pem}"]`)
	goOn("the new identity key signs")
	s.reloaded(func() { s.file("client.key", "another secret") })
	goOn("another client secret")
	s.change(`["${file:identity-new.pem}", "${file:identity.pem}"]`, `"${file:identity-new.pem}"`)
	goOn("the old identity key gone")
	s.change(csrfBoth, `"${file:csrf-new.key}"`)
	if got := s.run(`curl -s -b jar http://localhost:8080/cart -d item=book -H "X-CSRF-Token: $(cat old.token)"`); !strings.Contains(got, "csrf-token-invalid") {
		t.Errorf("a token of a secret that is gone: %s", got)
	}
	if got := s.run(csrf + `curl -s -b jar -c jar http://localhost:8080/cart -d item=book -H "X-CSRF-Token: $(csrf)"`); got != `{"user":"alice","item":"book"}` {
		t.Errorf("a token of the new secret: %s", got)
	}
}

// twoGates follows the section on two gates, behind a proxy that sends every other request to the other one.
func (s *shop) twoGates(backend, yaml, block string) {
	t := s.t
	t.Helper()
	const password = "correct horse"
	server := valkeytest.Start(t, "--requirepass", password)
	for name, value := range map[string]string{"MOAT_CLIENT_SECRET": "the-secret-of-moat", "MOAT_CSRF_SECRET": strings.Repeat("0123456789abcdef", 2), "VALKEY_PASSWORD": password} {
		t.Setenv(name, value)
	}
	text, _, _ := strings.Cut(strings.Replace(yaml, "public_origins: [http://localhost:8080]\n", block, 1), "\ntests:\n")
	// The second gate's own origin is that of the first: the backend needs the keys of one of them.
	shared := strings.NewReplacer("listen: 127.0.0.1:8080", "listen: {listen}", "admin: 127.0.0.1:9090", "admin: {admin}", "http://127.0.0.1:8080", "http://{listen}",
		"10.0.0.5:6379", server.Addr, "${file:identity.pem}", "${file:"+s.dir+"/identity.pem}", "file: keys.db", "file: "+s.dir+"/keys.db", "revoked.txt", s.dir+"/revoked.txt",
		"https://id.example.com", s.provider.issuer, "https://shop.example", s.page.origin, "127.0.0.1:3000", "{shop}").Replace(text)
	// The backend has to know a gate, and the gates the backend.
	shopAddr := freeAddress(t)
	shared = strings.ReplaceAll(shared, "{shop}", shopAddr)
	one := startMoat(t, shared)
	other := startMoat(t, shared)
	behind := s.startBackend(backend, "GATE="+shopOrigin, "JWKS=http://"+one.addr+"/.moat/jwks.json")
	for _, m := range []*moat{one, other} {
		m.write(t, strings.ReplaceAll(m.read(t), shopAddr, behind))
		m.signal(syscall.SIGHUP)
		eventually(t, "moat reads its file anew", func() (string, bool) { return m.stderr.String(), len(m.log("configuration reloaded")) > 0 })
	}

	var turn atomic.Int32
	front := httptest.NewTLSServer(&httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.Out.URL.Scheme, r.Out.URL.Host = "http", []string{one.addr, other.addr}[turn.Add(1)%2]
		r.Out.Host = r.In.Host
		r.SetXForwarded()
		r.Out.Header.Del("X-Forwarded-Host")
	}})
	t.Cleanup(front.Close)
	browser := func() *http.Client {
		jar, err := cookiejar.New(nil)
		if err != nil {
			t.Fatal(err)
		}
		dial := func(ctx context.Context, network, addr string) (net.Conn, error) {
			if addr == "api.shop.example:443" {
				addr = front.Listener.Addr().String()
			}
			return new(net.Dialer).DialContext(ctx, network, addr)
		}
		return &http.Client{Jar: jar, Timeout: patience, Transport: &http.Transport{DialContext: dial, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	}
	alice, elsewhere := browser(), browser()
	for _, c := range []*http.Client{alice, elsewhere} {
		if at := s.provider.signIn(c, shopOrigin+"/.moat/login/people?return=/users/alice/cards", "alice"); at.body != `{"path":"/users/alice/cards","who":"people|alice"}` {
			t.Fatalf("signed in, at %s: %s", at.Request.URL, at.body)
		}
	}
	for range 4 {
		if at := fetchPage(t, alice, newGet(t, shopOrigin+"/users/alice/")); at.StatusCode != http.StatusOK {
			t.Errorf("one of two gates: %s", at.body)
		}
	}
	csrf := func(c *http.Client) string {
		req := newGet(t, shopOrigin+"/.moat/csrf")
		req.Header.Set("Sec-Fetch-Site", "same-origin")
		token, _, _ := strings.Cut(strings.TrimPrefix(fetchPage(t, c, req).body, `{"token":"`), `"`)
		return token
	}
	post := func(c *http.Client, path string, form url.Values) shownPage {
		token := csrf(c)
		req := newForm(t, shopOrigin+path, form)
		req.Header.Set("Origin", shopOrigin)
		req.Header.Set("X-CSRF-Token", token)
		return fetchPage(t, c, req)
	}
	if at := post(alice, "/login", url.Values{"username": {"alice"}, "password": {"wonderland"}}); !strings.Contains(strings.Join(at.Header["Set-Cookie"], "\n"), "__Host-sid=") {
		t.Errorf("%s %s: the shop's cookie: %q", at.Status, at.body, at.Header["Set-Cookie"])
	}
	for range 2 {
		if at := post(alice, "/cart", url.Values{"item": {"book"}}); at.body != `{"user":"alice","item":"book"}` {
			t.Errorf("the cart, by one of two gates: %s", at.body)
		}
	}
	post(alice, "/.moat/logout/people", url.Values{"everywhere": {"1"}})
	for _, c := range []*http.Client{alice, elsewhere} {
		for range 2 {
			if at := fetchPage(t, c, newGet(t, shopOrigin+"/users/alice/")); at.StatusCode != http.StatusUnauthorized {
				t.Errorf("signed out everywhere: %s %s", at.Status, at.body)
			}
		}
	}
	s.provider.signIn(elsewhere, shopOrigin+"/.moat/login/people", "alice")
	s.withoutValkey(server, one, elsewhere)
}

// withoutValkey looks at what holds while the store does not answer.
func (s *shop) withoutValkey(server *valkeytest.Server, gate *moat, alice *http.Client) {
	s.t.Helper()
	server.Pause()
	if at := fetchPage(s.t, alice, newGet(s.t, shopOrigin+"/users/alice/")); at.StatusCode != http.StatusServiceUnavailable || !strings.Contains(at.body, "identity-unavailable") {
		s.t.Errorf("a session, without its store: %s %s", at.Status, at.body)
	}
	for name, x := range map[string][2]string{
		"a key":   {`curl -s http://{gate}/orders/7 -H "X-Api-Key: $(cat next.key)"`, `{"path":"/orders/7","who":"partners|acme","scope":"orders:read"}`},
		"a token": {`curl -s http://{gate}/users/app/cards -H "Authorization: Bearer $(cat app.token)"`, `{"path":"/users/app/cards","who":"apps|app","scope":"read"}`},
	} {
		if got := s.run(strings.Replace(x[0], "{gate}", gate.addr, 1)); got != x[1] {
			s.t.Errorf("%s, without a store: %s", name, got)
		}
	}
	server.Continue()
	eventually(s.t, "the session is there again", func() (string, bool) {
		at := fetchPage(s.t, alice, newGet(s.t, shopOrigin+"/users/alice/"))
		return at.body, at.StatusCode == http.StatusOK
	})
}
