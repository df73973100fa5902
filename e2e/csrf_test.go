package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// The hosts of the shop. Behind each stands the same backend, with other guards.
const (
	// bareShop has no gate before it, and openShop one that does not judge whose page asks. The
	// attacks that succeed there are real.
	bareShop, openShop = "bare.shop.test", "open.shop.test"
	// wholeShop has all guards. The others have one of the two locks alone, and no help of CORS.
	wholeShop, tokenShop, siteShop = "whole.shop.test", "token.shop.test", "site.shop.test"
)

// shopModes are the guards of each gate.
var shopModes = map[string]string{
	openShop:  "{cors: off, cross_site: off, csrf: off}",
	wholeShop: "{}",
	tokenShop: "{cors: off, cross_site: off}",
	siteShop:  "{cors: off, csrf: off}",
}

// shopFile is what all of them have in common. The session's cookies go wherever cookies can
// go: none of the attacks fails for want of them.
const shopFile = `version: 1
listen:
  - address: {listen}
    tls: {certificate: "{cert}", key: "{key}"}
  - {plain}
admin: {admin}
public_origins: [{origins}, "http://{plain}"]
upstreams:
  shop: {url: "http://{express}", preserve_host: true}
  app: {url: "http://{express}", preserve_host: true, identity: {headers: {X-User: sub}}}
auth:
  people: {login: {issuer: "{issuer}", client_id: site, client_secret: "${file:{secret}}"}}
csrf: {session_cookies: [sid, unsaid], third_party: allow}
policies:
  shop:
    origins: ["{spa}", "{partner}"]
    cors: {credentials: true, request_headers: [content-type], upstream_headers: pass}
    cookies: {same_site: none}
routes:
`

const shopRoutes = `
  - {match: "GET {host}/login", name: "{host} login page", upstream: shop, auth: public, policy: shop, modes: {modes}}
  - {match: "POST {host}/login", name: "{host} login", upstream: shop, auth: public, policy: shop, csrf: require, modes: {modes}}
  - {match: "POST {host}/login-unsaid", name: "{host} unsaid", upstream: shop, auth: public, policy: shop, csrf: require, cookies: {same_site: keep}, modes: {modes}}
  - {match: "{host}/", name: "{host} own", upstream: shop, auth: public, policy: shop, method_override: {override}, modes: {modes}}
  - {match: "{host}/delete", name: "{host} delete", upstream: shop, auth: public, policy: shop, side_effects: true, modes: {modes}}
  - {match: "{host}/app/", name: "{host} app", upstream: app, auth: people, authorize: authenticated, policy: shop, method_override: {override}, modes: {modes}}
  - {match: "{host}/app/delete", name: "{host} app delete", upstream: app, auth: people, authorize: authenticated, policy: shop, side_effects: true, modes: {modes}}
`

// mall is the shops, and those who want something of them.
type mall struct {
	t       *testing.T
	backend *express
	gate    *moat
	issuer  *oidcProvider
	bare    string
	// The origins of pages: of the shop's own single-page app, of one on another site, which is listed too, of
	// a sibling subdomain that somebody else has, and of another site.
	spa, partner, sibling, stranger string
}

const siteSecret = "the-site's-own-secret"

func openMall(t *testing.T) *mall {
	t.Helper()
	m := &mall{
		t: t, spa: startTLS(t, "app.shop.test", pages(t)), partner: startTLS(t, "partner.test", pages(t)),
		sibling: startTLS(t, "evil.shop.test", pages(t)), stranger: startTLS(t, "evil.test", pages(t)),
	}
	m.backend = startNode(t, []string{"express/shop.js", m.spa, m.partner})
	m.bare = startTLSFront(t, bareShop, m.backend)
	hosts := slices.Sorted(maps.Keys(shopModes))
	m.gate = startMoatAt(t, "https://"+wholeShop, func(gate *moat) string {
		port := gate.origin[strings.LastIndex(gate.origin, ":"):]
		var origins, callbacks []string
		yaml := shopFile
		for _, host := range hosts {
			origins = append(origins, `"https://`+host+port+`"`)
			callbacks = append(callbacks, "https://"+host+port+"/.moat/callback/people")
			override := "allow"
			if host == wholeShop {
				override = "deny"
			}
			yaml += strings.NewReplacer("{host}", host, "{modes}", shopModes[host], "{override}", override).Replace(shopRoutes)
		}
		m.issuer = startOIDC(t, oidcConfig{Clients: []oidcClient{{
			ID: "site", Secret: siteSecret, RedirectURIs: callbacks, ResponseTypes: []string{"code"}, GrantTypes: []string{"authorization_code"},
		}}})
		return strings.NewReplacer("{secret}", secretFile(t, siteSecret), "{cert}", testAuthority(t).cert, "{key}", testAuthority(t).key, "{origins}", strings.Join(origins, ", "),
			"{express}", m.backend.addr, "{issuer}", m.issuer.issuer, "{spa}", m.spa, "{partner}", m.partner).Replace(yaml)
	})
	return m
}

// origin is where a shop is.
func (m *mall) origin(host string) string {
	if host == bareShop {
		return m.bare
	}
	return strings.Replace(m.gate.origin, wholeShop, host, 1)
}

// ran tells what a shop's handlers did, for whom, and how often.
func (m *mall) ran(host string) map[string]int {
	m.t.Helper()
	mine := make(map[string]int)
	for what, n := range m.backend.ledger().Runs {
		if rest, ok := strings.CutPrefix(what, host+" "); ok {
			mine[rest] = n
		}
	}
	return mine
}

// refused are the reasons for which a shop's gate has refused requests, since a decision.
func (m *mall) refused(host, since string) []string {
	var list []string
	for _, d := range m.gate.decisions(since) {
		if strings.HasPrefix(d.Route, host+" ") {
			list = append(list, d.Code)
		}
	}
	return list
}

// customer is somebody's browser, and the shop where she is.
type customer struct {
	*tab

	mall *mall
	host string
	api  string
	// kind is how the shop knows her, and prefix the path below which it does.
	kind, prefix string
	consts       string // what scripts know besides
}

// How a shop knows its customers.
const (
	ownSession    = "own session"    // by a cookie of its own
	unsaidSession = "unsaid session" // by one whose SameSite is not said
	gateSession   = "login at moat"
	noSession     = "nobody"   // she has only looked at the form to sign in
	newcomer      = "newcomer" // she was never there
)

// customer signs somebody in, as people do.
func (m *mall) customer(t *testing.T, host, kind string) *customer {
	t.Helper()
	c := &customer{tab: newTab(t), mall: m, host: host, api: m.origin(host), kind: kind}
	switch kind {
	case gateSession:
		c.prefix = "/app"
		c.signIn("/app/", "alice")
	case noSession:
		c.open(c.api + "/login")
		c.spread()
	case newcomer:
	default:
		path := map[string]string{ownSession: "/login", unsaidSession: "/login-unsaid"}[kind]
		c.open(c.api + "/login")
		if got := c.shop(`return saw(call("` + path + `", { body: new URLSearchParams({ user: "alice" }) }))`); got != "basic 200 login" {
			t.Fatalf("alice signs in at %s: %s", host, got)
		}
		c.spread()
	}
	return c
}

// signIn goes to a page of the shop, is sent to the provider, and comes back.
func (c *customer) signIn(path, name string) {
	c.t.Helper()
	c.open(c.api + path)
	c.eval(fmt.Sprintf(`document.querySelector("input[name=login]").value = %q; document.forms[0].submit(); ""`, name))
	c.shows(c.api)
	c.spread()
}

// spread gives the shop's cookies SameSite=None, as if the browser knew no SameSite: what the gate
// adds to its own cookies is not what holds off the attacks. Those that say nothing are left.
func (c *customer) spread() {
	c.t.Helper()
	for _, k := range c.cookies(c.api) {
		if k.SameSite != "" {
			k.SameSite = network.CookieSameSiteNone
			c.setCookie(c.api, k)
		}
	}
}

// shop runs statements in a page that knows the shop.
func (c *customer) shop(statements string) string {
	c.t.Helper()
	return c.run(c.api, c.within(statements))
}

func (c *customer) within(statements string) string {
	return fmt.Sprintf("const prefix = %q, at = api + prefix, stranger = %q;\n%s\n%s\n%s", c.prefix, c.mall.stranger, c.consts, shopPrelude, statements)
}

// shopPrelude is for the shop's own pages as for those of others.
const shopPrelude = `
// token is what the gate gives to pages that may read its answers.
const token = async () => {
  const answer = await fetch(api + "/.moat/csrf", { credentials: "include" });
  return answer.ok ? (await answer.json()).token : "";
};
// call is what a page of the shop does to change something.
const call = async (path, init) =>
  fetch(api + path, { method: "POST", credentials: "include", ...init, headers: { ...init?.headers, ...(await token().then((t) => t && { "X-CSRF-Token": t }, () => ({}))) } });
// sent makes a form, and sends it into a frame, or where target says.
const sent = (action, fields, attributes) => {
  const name = "frame" + Math.random();
  if (!attributes?.target) add("iframe", { name });
  const form = add("form", { method: "post", action, target: name, ...attributes });
  for (const [name, value] of Object.entries(fields ?? { amount: 50 })) form.append(Object.assign(document.createElement("input"), { type: "hidden", name, value }));
  form.submit();
  return "";
};
const noCORS = (body, headers) => saw(fetch(at + "/transfer", { method: "POST", mode: "no-cors", credentials: "include", body, headers }));
// plant sets a cookie for the whole site, as a sibling can; uproot takes those away.
const planted = window.planted ??= [];
const plant = (name, value, path) => {
  const where = "; Domain=shop.test; Secure; Path=" + (path ?? "/");
  document.cookie = name + "=" + value + where + "; SameSite=None";
  planted.push(name + "=" + where + "; Max-Age=0");
};
// plantHost tries each way to a cookie that no sibling may set: as it is, in another case, for one path, and
// without a name, when the value looks like name and value together.
const plantHost = (name, value) => {
  for (const prefix of ["__Host-", "__host-", "=__Host-", "=__HOST-"]) for (const path of ["/", "/login", "/transfer"]) plant(prefix + name, value, path);
  return /__host-/i.test(document.cookie) ? "planted " + document.cookie : "not planted";
};
const uproot = () => { for (const line of planted.splice(0)) document.cookie = line; return document.cookie };
const talk = (url) => new Promise((done) => {
  const s = new WebSocket(url.replace("https:", "wss:"));
  s.onopen = () => s.send("hello");
  s.onmessage = (e) => { s.close(); done(e.data) };
  s.onerror = () => done("error");
});
`

// prey is what an attacker has got for himself at a shop: a session, the browser's id, and tokens
// of it before and after he signed in.
type prey struct{ SID, ID, Early, Token string }

func (m *mall) prey(t *testing.T, host string) (p prey) {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	c := tlsClient(t, jar)
	send := func(req *http.Request) shownPage {
		req.Header.Set("Sec-Fetch-Site", "same-origin") // he is no browser, and says what he likes
		at := fetchPage(t, c, req)
		if at.StatusCode != http.StatusOK {
			t.Fatalf("the attacker at %s: %s %s", req.URL, at.Status, at.body)
		}
		return at
	}
	token := func() string {
		if host == bareShop {
			return "none"
		}
		var answer struct{ Token string }
		if err := json.Unmarshal([]byte(send(newGet(t, m.origin(host)+"/.moat/csrf")).body), &answer); err != nil {
			t.Fatal(err)
		}
		return answer.Token
	}
	p.Early = token()
	at := send(newForm(t, m.origin(host)+"/login", url.Values{"user": {"mallory"}, "csrf_token": {p.Early}}))
	p.Token, p.ID = token(), "none"
	for _, k := range jar.Cookies(at.Request.URL) {
		switch k.Name {
		case "sid":
			p.SID = k.Value
		case "__Host-moat-csrf-id":
			p.ID = k.Value
		}
	}
	if p.SID == "" || host != bareShop && p.ID == "none" {
		t.Fatalf("mallory lacks something at %s: %v", host, jar.Cookies(at.Request.URL))
	}
	return p
}

// link is where a sign-in of the attacker's own at the gate would end.
func (m *mall) link(t *testing.T, host string) string {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	c := tlsClient(t, jar)
	c.CheckRedirect = func(req *http.Request, _ []*http.Request) error {
		if strings.HasPrefix(req.URL.Path, "/.moat/callback/") {
			return http.ErrUseLastResponse
		}
		return nil
	}
	at := m.issuer.signIn(c, m.origin(host)+"/.moat/login/people", "mallory")
	link := at.Header.Get("Location")
	if !strings.HasPrefix(link, m.origin(host)+"/.moat/callback/people?code=") {
		t.Fatalf("the attacker got to %s, to go on to %q", at.Request.URL, link)
	}
	return link
}

// attack has a page do what it can, and looks at what came of it.
func (c *customer) attack(t *testing.T, k trick) {
	before, since := c.mall.ran(c.host), c.mall.gate.lastDecision()
	c.forget()
	if saw := c.act(k); k.saw != "" && saw != k.saw {
		t.Errorf("the page saw %q, want %q", saw, k.saw)
	}
	if k.leaves {
		c.shows(c.api)
	}
	switch {
	case k.gates, k.runs == "":
		c.settled(c.api)
	case c.holdsOff(k):
		var codes []string
		eventually(t, "the gate refuses it", func() (string, bool) {
			codes = c.mall.refused(c.host, since)
			return fmt.Sprintf("no decision; ran %v, before %v", c.mall.ran(c.host), before), len(codes) > 0
		})
		for _, code := range codes {
			if lock := map[string]string{tokenShop: "csrf-token-", siteShop: "cross-site-"}[c.host]; !strings.HasPrefix(code, lock) {
				t.Errorf("refused as %s, and not by %s", code, lock)
			}
		}
	default: // it is a real one
		eventually(t, "the handler runs", func() (string, bool) {
			now := c.mall.ran(c.host)
			return fmt.Sprint(now), count(now, k.runs, k.victim(c.kind)) > count(before, k.runs, k.victim(c.kind))
		})
	}
	if now := c.mall.ran(c.host); c.holdsOff(k) && !maps.Equal(now, before) {
		t.Errorf("it made a handler run: %v, before %v", now, before)
	}
	if k.plants {
		c.shop("return uproot()")
	}
}

func (c *customer) guarded() bool { return c.host != bareShop && c.host != openShop }

// holdsOff reports whether it must not get through to the shop.
func (c *customer) holdsOff(k trick) bool { return c.guarded() && (!k.deaf || c.host != tokenShop) }

// act does it, as if the user had clicked where that is the page's trick.
func (c *customer) act(k trick) string {
	c.t.Helper()
	if !k.clicked {
		return c.shop(k.do)
	}
	ctx, cancel := context.WithTimeout(c.ctx, patience)
	defer cancel()
	saw, err := chromedp.Run(ctx, chromedp.Evaluate[string](c.script(c.api, c.within(k.do)), chromedp.EvalAwaitPromise, func(p *runtime.EvaluateParams) { p.UserGesture = new(true) }))
	if err != nil {
		c.t.Fatalf("%s: %v", k.do, err)
	}
	return saw
}

// victim is the user for whom it runs.
func (k trick) victim(kind string) string {
	switch {
	case k.as != "":
		return k.as
	case slices.Contains(signedOut, kind):
		return "nobody"
	}
	return "alice"
}

// count is how often a handler ran for a user.
func count(runs map[string]int, handler, user string) (n int) {
	for what, times := range runs {
		if name, who, _ := strings.Cut(what, " "); name == handler && (who == user || user == anybody) {
			n += times
		}
	}
	return n
}

// besiege lets a customer of a shop come to one bad page after the other, and then use the shop.
func (m *mall) besiege(t *testing.T, host, kind string) {
	c := m.customer(t, host, kind)
	stolen, err := json.Marshal(m.prey(t, host))
	if err != nil {
		t.Fatal(err)
	}
	link := ""
	if host != bareShop {
		link = m.link(t, host)
	}
	c.consts = fmt.Sprintf("const prey = %s, link = %q;", stolen, link)
	began := m.ran(host)
	pages := map[string]string{stranger: m.stranger, sibling: m.sibling, friendly: m.spa}
	for _, from := range []string{stranger, sibling, friendly} {
		there := false
		for _, k := range tricks {
			if !slices.Contains(k.from, from) || !slices.Contains(k.on, kind) || k.gates && host == bareShop {
				continue
			}
			t.Run(kind+"/"+from+"/"+k.name, func(t *testing.T) {
				c.t = t
				if !there {
					c.open(pages[from])
				}
				c.attack(t, k)
				there = !k.leaves
			})
		}
	}
	c.t = t
	now := m.ran(host)
	if host == tokenShop { // see trick.deaf
		delete(began, "ws alice")
		delete(now, "ws alice")
	}
	if c.guarded() && !maps.Equal(now, began) { // nor later, while others were at it
		t.Errorf("the attacks made handlers run: %v, before %v", now, began)
	}
	if host == bareShop {
		return
	}
	c.open(c.api + "/")
	who := `return saw(fetch(at + "/me").then(async (answer) => new Response((await answer.json()).user ?? "nobody")))`
	switch {
	case slices.Contains(signedIn, kind):
		if got := c.shop(who); got != "default 200 alice" {
			t.Errorf("after all that she is %s", got)
		}
		c.buys(t, "its own page", c.api+"/", purchases)
		c.buys(t, "its app", m.spa, appPurchases)
		c.buys(t, "its app on another site", m.partner, appPurchases)
	case c.guarded() && slices.Contains(signedOut, kind):
		if got := c.shop(who) + ", " + c.shop(`return saw(fetch("/.moat/session/people"))`); got != "default 200 nobody, basic 401 credentials-missing" {
			t.Errorf("after all that she is %s", got)
		}
	}
}

// buys lets the customer do what the shop is there for.
func (c *customer) buys(t *testing.T, where, page string, all []purchase) {
	c.open(page)
	for _, u := range all {
		t.Run(c.kind+"/"+where+"/"+u.name, func(t *testing.T) {
			c.t = t
			before, since := c.mall.ran(c.host), c.mall.gate.lastDecision()
			if saw := c.shop(u.do); u.saw != "" && saw != u.saw {
				t.Errorf("the page saw %q, want %q; refused as %v", saw, u.saw, c.mall.refused(c.host, since))
				return
			}
			eventually(t, "the handler runs", func() (string, bool) {
				now := c.mall.ran(c.host)
				return fmt.Sprintf("%v; refused as %v", now, c.mall.refused(c.host, since)), count(now, u.runs, "alice") == count(before, u.runs, "alice")+1
			})
		})
	}
	c.t = t
}

func TestNoOtherPageInChromiumMakesTheHandlerRun(t *testing.T) {
	thorough(t)
	t.Parallel()
	m := openMall(t)
	for _, host := range []string{bareShop, openShop, wholeShop, tokenShop, siteShop} {
		t.Run(host, func(t *testing.T) {
			t.Parallel()
			kinds := []string{ownSession, gateSession}
			switch host {
			case bareShop:
				kinds = kinds[:1] // it has no login of moat's
			case openShop:
				kinds = kinds[1:]
			}
			for _, kind := range append(kinds, unsaidSession, noSession, newcomer) {
				m.besiege(t, host, kind)
			}
		})
	}
}
