package gateway_test

import (
	"bytes"
	"encoding/json"
	"html"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/moat-gateway/moat/gateway"
	"github.com/moat-gateway/moat/guard"
	"github.com/moat-gateway/moat/guard/challenge"
	"github.com/moat-gateway/moat/guard/ratelimit"
	"github.com/moat-gateway/moat/guard/ticket"
	"github.com/moat-gateway/moat/guard/ticket/tickettest"
)

// nextOf is where a waiting room's page leads.
func nextOf(t *testing.T, res *http.Response) string {
	t.Helper()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	_, next, ok := strings.Cut(string(text), `href="`)
	next, _, _ = strings.Cut(next, `"`)
	if !ok {
		t.Fatalf("%s: no page that leads on: %s", res.Status, text)
	}
	return html.UnescapeString(next)
}

// pass waits in the room that a navigation to target leads to, and returns the pass and where
// it leads.
func pass(t *testing.T, h http.Handler, target string) (cookie *http.Cookie, to string) {
	t.Helper()
	res := serve(h, navigation(target))
	next := nextOf(t, res)
	time.Sleep(2100 * time.Millisecond)
	res = serve(h, navigation(next, res.Cookies()[0]))
	if res.StatusCode != http.StatusSeeOther {
		t.Fatalf("%s: %s", next, res.Status)
	}
	return res.Cookies()[0], res.Header.Get("Location")
}

func TestAPassIsForRoutesThatAdmitBrowsersWithoutScript(t *testing.T) {
	t.Parallel() // it waits
	b := newBackend(t, nil)
	g := newGateway(t, configFor(t, b.URL, ticketed(func(c *gateway.Config) {
		c.Routes = append(c.Routes, c.Routes[0])
		c.Routes[1].Pattern, c.Routes[1].NoScript = "GET /page", true
	})))
	cookie, _ := pass(t, g, "/page")
	r := chat(nil, "{}")
	r.Header.Del("Sec-Fetch-Mode") // which only browsers have to send
	r.AddCookie(cookie)
	if code := codeOf(t, serve(g, r)); code != "ticket-missing" {
		t.Errorf("a call with a pass in the place of a ticket: %q", code)
	}
	if code := codeOf(t, serve(g, navigation("/page", cookie))); code != "" {
		t.Errorf("a navigation with a pass: %q", code)
	}
}

func TestWithoutSuchARouteThereIsNoWaitingRoom(t *testing.T) {
	g := newGateway(t, configFor(t, newBackend(t, nil).URL, ticketed()))
	res := serve(g, navigation("/.moat/enter?wait=x&to=/", &http.Cookie{Name: ticket.PassCookie(true), Value: "none"}))
	if code := codeOf(t, res); code != "route-not-found" {
		t.Errorf("%q", code)
	}
}

func TestTheUpstreamSeesNoPass(t *testing.T) {
	t.Parallel() // it waits
	b := newBackend(t, nil)
	g := newGateway(t, configFor(t, b.URL, ticketed(route(func(r *gateway.Route) { r.NoScript = true }))))
	cookie, _ := pass(t, g, "/page")
	r := navigation("/page")
	r.Header.Set("Cookie", "a=1; "+cookie.Name+"="+cookie.Value+"; b=2")
	if code := codeOf(t, serve(g, r)); code != "" {
		t.Fatal(code)
	}
	if got := b.last.Load().Header["Cookie"]; len(got) != 1 || got[0] != "a=1; b=2" {
		t.Errorf("the upstream got %q", got)
	}
}

func TestAWaitLeadsOnWithoutTheTokenThatWasRefused(t *testing.T) {
	t.Parallel() // it waits
	g := newGateway(t, configFor(t, newBackend(t, nil).URL, ticketed(route(func(r *gateway.Route) { r.NoScript = true }))))
	var v tickettest.Visit
	open(t, g, &v)
	target := "/file?a=1&moat=" + v.Token("GET", "/file?a=1", nil)
	if code := codeOf(t, serve(g, navigation(target))); code != "" {
		t.Fatal(code)
	}
	// The link again: with the token it would be refused, and wait, for ever.
	if _, to := pass(t, g, target); to != "/file?a=1" {
		t.Errorf("leads to %s", to)
	}
}

func TestAProofIsOfThePathThatTheUpstreamSees(t *testing.T) {
	b := newBackend(t, nil)
	g := newGateway(t, configFor(t, b.URL, ticketed()))
	var v tickettest.Visit
	open(t, g, &v)
	target := "/file&moat=" + v.Token("GET", "/file", nil)
	r := asPage(httptest.NewRequest("GET", self+target, nil), app)
	r.RequestURI = target
	if code := codeOf(t, serve(g, r)); code != "ticket-missing" || b.ran.Load() != 0 {
		t.Errorf("a proof of /file, sent with another path: %q", code)
	}
}

func TestWhatIsNoTokenStaysInTheQuery(t *testing.T) {
	b := newBackend(t, nil)
	g := newGateway(t, configFor(t, b.URL, ticketed()))
	var v tickettest.Visit
	open(t, g, &v)
	const target = "/search?q=castle&moat=wet&page=2"
	r := asPage(httptest.NewRequest("GET", self+target, nil), app)
	r.RequestURI = target
	r.Header.Set(ticket.Header, v.Token("GET", target, nil))
	if code := codeOf(t, serve(g, r)); code != "" {
		t.Fatal(code)
	}
	if got := b.last.Load().URL.RequestURI(); got != target {
		t.Errorf("the upstream got %s", got)
	}
}

func TestABrowserThatSaysNothingCanWaitToo(t *testing.T) {
	g := newGateway(t, configFor(t, newBackend(t, nil).URL, plain, ticketed(route(func(r *gateway.Route) {
		r.NoScript, r.CrossSite.AllowBrowserless = true, true
	}))))
	// All do over plain http.
	navigates := func(target string, cookies ...*http.Cookie) *http.Request {
		r := navigation(target, cookies...)
		r.Header = http.Header{"User-Agent": {browserAgent}, "Accept-Language": {"en"}, "Accept": {"text/html,*/*;q=0.8"}, "Cookie": r.Header["Cookie"]}
		return r
	}
	res := serve(g, navigates("/page"))
	if res = serve(g, navigates(nextOf(t, res), res.Cookies()[0])); res.StatusCode != http.StatusUnauthorized || nextOf(t, res) == "" {
		t.Errorf("too early: %s", res.Status)
	}
}

func TestAReloadWithAnotherSecretSignsNoChallengeWithTheOldOne(t *testing.T) {
	b := newBackend(t, nil)
	with := func(secret byte) gateway.Config {
		return configFor(t, b.URL, ticketed(func(c *gateway.Config) {
			c.Tickets.Policy.Secrets = [][]byte{bytes.Repeat([]byte{secret}, 32)}
			c.Tickets.Challenge = challenge.Policy{QuietAddress: 0.001, MaxBits: 15}
		}))
	}
	kid := func(g *gateway.Gateway) string {
		doc, err := new(tickettest.Visit).Open()
		if err != nil {
			t.Fatal(err)
		}
		var p struct{ Challenge challenge.Ask }
		if err = json.NewDecoder(serve(g, wantsTicket(doc)).Body).Decode(&p); err != nil || p.Challenge.Token == "" {
			t.Fatalf("%+v, %v", p, err)
		}
		return p.Challenge.Token[:3] // kind and kid
	}
	g := newGateway(t, with(1))
	before := kid(g)
	if again := newGateway(t, with(2)); kid(again) == before {
		t.Fatal("these secrets show no difference")
	}
	if err := g.Reload(with(2)); err != nil {
		t.Fatal(err)
	}
	if kid(g) == before {
		t.Error("challenges are signed with the secret of before")
	}
}

func TestOperatorSeesAndResetsTheLimitOnGettingTickets(t *testing.T) {
	g := newGateway(t, configFor(t, newBackend(t, nil).URL, ticketed(func(c *gateway.Config) {
		c.Tickets.RateLimits = []ratelimit.Rule{rule("tickets", "60/h burst 2", ratelimit.Address)}
	})))
	getTickets := func(n int) (code string) {
		for range n {
			doc, err := new(tickettest.Visit).Open()
			if err != nil {
				t.Fatal(err)
			}
			code = codeOf(t, serve(g, wantsTicket(doc)))
		}
		return code
	}
	if code := getTickets(3); code != "rate-limited" {
		t.Fatalf("%q", code)
	}
	if l := limitsOf(t, g); len(l.Limits) != 1 || l.Limits[0].Name != "tickets" || l.Store == nil {
		t.Errorf("in force: %+v, in %+v", l.Limits, l.Store)
	}
	if got := reset(t, g, "limit=tickets&key=127.0.0.1"); got != `{"reset":[{"limit":"tickets","key":"127.0.0.1"}]}` {
		t.Error(got)
	}
	if code := getTickets(2); code != "" {
		t.Errorf("after a reset: %q", code)
	}
}

func TestVisitsByPagesCountWhereChallengesAreOnlyReported(t *testing.T) {
	b := newBackend(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		io.WriteString(w, "<!doctype html><title>demo</title>")
	})
	with := func(mode guard.Mode) gateway.Config {
		return configFor(t, b.URL, ticketed(func(c *gateway.Config) {
			c.Routes[0].Tickets = gateway.TicketsEmbedded
			c.Tickets.Challenge, c.Tickets.ChallengeMode = challenge.Policy{QuietAddress: 2, MaxBits: 15}, mode
		}))
	}
	g := newGateway(t, with(guard.Report))
	for i := range 8 {
		if text, _ := io.ReadAll(serve(g, navigation("/page")).Body); !strings.Contains(string(text), "moat-ticket") {
			t.Fatalf("page %d has no ticket: %s", i, text)
		}
	}
	if err := g.Reload(with(guard.Enforce)); err != nil {
		t.Fatal(err)
	}
	doc, err := new(tickettest.Visit).Open()
	if err != nil {
		t.Fatal(err)
	}
	if code := codeOf(t, serve(g, wantsTicket(doc))); code != "challenge-required" {
		t.Errorf("after 8 visits, where 2 a minute are quiet: %q", code)
	}
}

// Its window is shut, so that nothing of the answer's body may be sent.
func TestHTTP2ClientThatTakesNothingOfTheGatesOwnAnswersIsCut(t *testing.T) {
	s := start(t, configFor(t, newBackend(t, nil).URL, plain, ticketed(route(func(r *gateway.Route) { r.NoScript = true }))), func(c *gateway.ServerConfig) { c.WriteIdle = 200 * time.Millisecond })
	conn, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	io.WriteString(conn, http2.ClientPreface)
	f := http2.NewFramer(conn, conn)
	if err = f.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0}); err != nil {
		t.Fatal(err)
	}
	var head bytes.Buffer
	enc := hpack.NewEncoder(&head)
	left := make(map[uint32]string)
	for i, path := range []string{"/.moat/client.js", "/page"} {
		id := uint32(2*i + 1)
		left[id] = path
		head.Reset()
		for _, h := range [][2]string{{":method", "GET"}, {":scheme", "http"}, {":authority", "api.example.com"}, {":path", path}, {"sec-fetch-site", "none"}, {"sec-fetch-mode", "navigate"}, {"sec-fetch-dest", "document"}} {
			if err = enc.WriteField(hpack.HeaderField{Name: h[0], Value: h[1]}); err != nil {
				t.Fatal(err)
			}
		}
		if err = f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: head.Bytes(), EndStream: true, EndHeaders: true}); err != nil {
			t.Fatal(err)
		}
	}
	for len(left) > 0 {
		frame, err := f.ReadFrame()
		if err != nil {
			t.Fatalf("%v are held: %v", left, err)
		}
		if _, ok := frame.(*http2.RSTStreamFrame); ok {
			delete(left, frame.Header().StreamID)
		}
	}
}
