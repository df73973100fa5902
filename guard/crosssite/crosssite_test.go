package crosssite_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/moat-gateway/moat/guard"
	"github.com/moat-gateway/moat/guard/crosssite"
	"github.com/moat-gateway/moat/web"
)

const (
	self     = "https://api.example.com"
	app      = "https://app.example"
	sibling  = "https://blog.example.com"
	stranger = "https://evil.test"
)

func newGuard(t *testing.T, change func(*crosssite.Policy)) *crosssite.Guard {
	t.Helper()
	set, faults := web.NewOriginSet([]string{app}, web.OriginSetOptions{})
	if faults != nil {
		t.Fatal(faults)
	}
	o, err := web.ParseOrigin(self)
	if err != nil {
		t.Fatal(err)
	}
	p := crosssite.Policy{Origins: set, Public: web.NewPublicOrigins([]web.Origin{o})}
	if change != nil {
		change(&p)
	}
	return crosssite.New(p)
}

type browser map[string]string

// What browsers send, by kind of request.
func fetch(site, origin string) browser {
	return browser{"Sec-Fetch-Site": site, "Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty", "Origin": origin}
}

func form(site, origin string) browser {
	return browser{"Sec-Fetch-Site": site, "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document", "Origin": origin}
}

func link(site string) browser {
	return browser{"Sec-Fetch-Site": site, "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
}

func image(site string) browser {
	return browser{"Sec-Fetch-Site": site, "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"}
}

func socket(origin string) browser {
	return browser{"Origin": origin, "Connection": "Upgrade", "Upgrade": "websocket"}
}

func TestDecide(t *testing.T) {
	type policy = crosssite.Policy
	for _, c := range []struct {
		name   string
		change func(*policy)
		method string
		sends  browser
		want   guard.Reason
	}{
		// Reading.
		{"same-origin GET", nil, "GET", browser{"Sec-Fetch-Site": "same-origin"}, guard.OK},
		{"typed URL", nil, "GET", link("none"), guard.OK},
		{"link from a stranger to a page that only reads", nil, "GET", link("cross-site"), guard.OK},
		{"CORS GET of a stranger is the cors guard's", nil, "GET", fetch("cross-site", stranger), guard.OK},
		{"image on a stranger's page", nil, "GET", image("cross-site"), guard.CrossSiteEmbed},
		{"no-cors fetch of a stranger", nil, "GET", browser{"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "empty"}, guard.CrossSiteEmbed},
		{"frame on a stranger's page", nil, "GET", browser{"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"}, guard.CrossSiteEmbed},
		{"object on a stranger's page", nil, "GET", browser{"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "object"}, guard.CrossSiteEmbed},
		{"frame on a sibling's page", nil, "GET", browser{"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"}, guard.OK},
		{"image where embedding is allowed", func(p *policy) { p.AllowEmbed = true }, "GET", image("cross-site"), guard.OK},
		{"image on a sibling's page", nil, "GET", image("same-site"), guard.OK},

		// The GET that deletes.
		{"image to side effects", func(p *policy) { p.SideEffects, p.AllowEmbed = true, true }, "GET", image("cross-site"), guard.CrossSiteRequest},
		{"link to side effects", func(p *policy) { p.SideEffects = true }, "GET", link("cross-site"), guard.CrossSiteRequest},
		{"typed URL to side effects, or one that a stranger redirected", func(p *policy) { p.SideEffects = true }, "GET", link("none"), guard.CrossSiteRequest},
		{"the user's own POST, sent again", nil, "POST", link("none"), guard.OK},
		{"own page to side effects", func(p *policy) { p.SideEffects = true }, "GET", link("same-origin"), guard.OK},
		{"prefetch to side effects", func(p *policy) { p.SideEffects = true }, "GET", browser{"Sec-Fetch-Site": "same-origin", "Sec-Purpose": "prefetch;prerender"}, guard.CrossSitePrefetch},
		{"prefetch that only reads", nil, "GET", browser{"Sec-Fetch-Site": "same-origin", "Sec-Purpose": "prefetch"}, guard.OK},
		{"listed page to side effects", func(p *policy) { p.SideEffects = true }, "GET", fetch("cross-site", app), guard.CrossSiteOriginAllowed},

		// Changing state.
		{"own page", nil, "POST", fetch("same-origin", self), guard.OK},
		{"own form without referrer", nil, "POST", form("same-origin", "null"), guard.OK},
		{"old browser, own page", nil, "POST", browser{"Origin": self}, guard.OK},
		{"listed page", nil, "POST", fetch("cross-site", app), guard.CrossSiteOriginAllowed},
		{"listed page, old browser", nil, "POST", browser{"Origin": app}, guard.CrossSiteOriginAllowed},
		{"stranger's form", nil, "POST", form("cross-site", stranger), guard.CrossSiteRequest},
		{"stranger's text/plain JSON", nil, "POST", fetch("cross-site", stranger), guard.CrossSiteRequest},
		{"stranger, old browser", nil, "DELETE", browser{"Origin": stranger}, guard.CrossSiteRequest},
		{"stranger without Origin", nil, "POST", browser{"Sec-Fetch-Site": "cross-site"}, guard.CrossSiteRequest},
		{"user info in Origin", nil, "POST", browser{"Origin": "https://evil@api.example.com"}, guard.CrossSiteRequest},
		{"sandboxed frame", nil, "POST", form("cross-site", "null"), guard.CrossSiteOpaqueOrigin},
		{"sandboxed frame, old browser", nil, "POST", browser{"Origin": "null"}, guard.CrossSiteOpaqueOrigin},
		{"sibling", nil, "POST", form("same-site", sibling), guard.CrossSiteRequest},
		{"sibling where allowed", func(p *policy) { p.AllowSameSite = true }, "POST", form("same-site", sibling), guard.CrossSiteSameSite},
		{"sibling where allowed, old browser", func(p *policy) { p.AllowSameSite = true }, "POST", browser{"Origin": sibling}, guard.CrossSiteSameSite},
		{"insecure sibling where allowed, old browser", func(p *policy) { p.AllowSameSite = true }, "POST", browser{"Origin": "http://blog.example.com"}, guard.CrossSiteRequest},
		{"sandboxed frame of a sibling where allowed", func(p *policy) { p.AllowSameSite = true }, "POST", form("same-site", "null"), guard.CrossSiteOpaqueOrigin},

		// WebSockets: no Sec-Fetch-* comes with the handshake.
		{"own socket", nil, "GET", socket(self), guard.OK},
		{"listed socket", nil, "GET", socket(app), guard.CrossSiteOriginAllowed},
		{"stranger's socket", nil, "GET", socket(stranger), guard.CrossSiteWebSocket},
		{"sandboxed socket", nil, "GET", socket("null"), guard.CrossSiteWebSocket},
		{"sibling's socket", nil, "GET", socket(sibling), guard.CrossSiteWebSocket},
		{"stranger's socket hidden in a list", nil, "GET", browser{"Origin": stranger, "Upgrade": "h2c, WebSocket"}, guard.CrossSiteWebSocket},

		// No browser.
		{"curl", nil, "GET", browser{}, guard.CrossSiteBrowserless},
		{"curl posts", nil, "POST", browser{}, guard.CrossSiteBrowserless},
		{"webhook where allowed", func(p *policy) { p.AllowBrowserless = true }, "POST", browser{}, guard.OK},
		{"stranger where browserless is allowed", func(p *policy) { p.AllowBrowserless = true }, "POST", fetch("cross-site", stranger), guard.CrossSiteRequest},
	} {
		r := httptest.NewRequest(c.method, self+"/transfer", strings.NewReader(`{"to":"mallory"}`))
		for k, v := range c.sends {
			r.Header.Set(k, v)
		}
		g := newGuard(t, c.change)
		d := g.Decide(r)
		if d.Reason != c.want || d.Denied() != (c.want.Status() != 0) {
			t.Errorf("%s: %s %s, want %s", c.name, d.Outcome, d.Reason, c.want)
		}
		if n := testing.AllocsPerRun(20, func() { g.Decide(r) }); n != 0 && c.want != guard.CrossSiteSameSite {
			t.Errorf("%s: %v allocations", c.name, n)
		}
	}
}

func TestAnyOriginListsNobodyForStateChanges(t *testing.T) {
	set, faults := web.NewOriginSet([]string{"*"}, web.OriginSetOptions{})
	if faults != nil {
		t.Fatal(faults)
	}
	g := newGuard(t, func(p *crosssite.Policy) { p.Origins = set })
	r := httptest.NewRequest("POST", self+"/transfer", nil)
	r.Header.Set("Origin", stranger)
	if d := g.Decide(r); d.Reason != guard.CrossSiteRequest {
		t.Errorf("%s", d.Reason)
	}
}

func TestHandlerRunsNothingItRefuses(t *testing.T) {
	ran := 0
	h := newGuard(t, nil).Handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { ran++ }))
	r := httptest.NewRequest("POST", self+"/transfer", nil)
	r.Header.Set("Origin", stranger)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	if ran != 0 || w.Code != http.StatusForbidden || !strings.Contains(w.Body.String(), "cross-site-request") {
		t.Errorf("ran %d times, %d %s", ran, w.Code, w.Body)
	}
	r.Header.Set("Origin", app)
	h.ServeHTTP(httptest.NewRecorder(), r)
	if ran != 1 {
		t.Errorf("a listed page: ran %d times", ran)
	}
}

// Whatever the headers, a state-changing request passes only with a sign that no
// browser gives to a stranger's page.
func FuzzDecide(f *testing.F) {
	f.Add("POST", stranger, "cross-site", "cors", "")
	f.Add("GET", "null", "same-site", "no-cors", "websocket")
	set, _ := web.NewOriginSet([]string{app}, web.OriginSetOptions{})
	o, err := web.ParseOrigin(self)
	if err != nil {
		f.Fatal(err)
	}
	g := crosssite.New(crosssite.Policy{Origins: set, Public: web.NewPublicOrigins([]web.Origin{o}), SideEffects: true})
	f.Fuzz(func(t *testing.T, method, origin, site, mode, upgrade string) {
		r := &http.Request{Method: method, Host: "api.example.com", Header: http.Header{
			"Origin": {origin}, "Sec-Fetch-Site": {site}, "Sec-Fetch-Mode": {mode}, "Upgrade": {upgrade},
		}}
		if g.Decide(r).Denied() {
			return
		}
		if site == "same-origin" || site == "none" && origin == "" && method != "GET" && method != "HEAD" && method != "OPTIONS" || origin == self || origin == app {
			return
		}
		t.Fatalf("%s from %q, Sec-Fetch-Site %q passes", method, origin, site)
	})
}
