package gateway_test

import (
	"bytes"
	"encoding/json"
	"html"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/moat-gateway/moat/gateway"
	"github.com/moat-gateway/moat/guard"
	"github.com/moat-gateway/moat/guard/challenge"
	"github.com/moat-gateway/moat/guard/challenge/challengetest"
	"github.com/moat-gateway/moat/guard/ticket"
	"github.com/moat-gateway/moat/guard/ticket/tickettest"
)

const browserAgent = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/156.0.0.0 Safari/537.36"

// ticketed is a gate whose one route asks for tickets.
func ticketed(change ...func(*gateway.Config)) func(*gateway.Config) {
	return func(c *gateway.Config) {
		c.Tickets = &gateway.Tickets{Origins: c.Routes[0].Origins, Memory: 64 << 10}
		c.Routes[0].Tickets = gateway.TicketsRequired
		for _, f := range change {
			f(c)
		}
	}
}

// asPage makes r what a browser's script on the page sends.
func asPage(r *http.Request, page string) *http.Request {
	r.Header.Set("Origin", page)
	r.RemoteAddr = "127.0.0.1:4711"
	for k, v := range map[string]string{"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty", "User-Agent": browserAgent, "Accept-Language": "en"} {
		r.Header.Set(k, v)
	}
	return r
}

func wantsTicket(doc []byte) *http.Request {
	return asPage(httptest.NewRequest("POST", self+"/.moat/tickets", bytes.NewReader(doc)), app)
}

// open gets the visit its first ticket.
func open(t *testing.T, h http.Handler, v *tickettest.Visit) {
	t.Helper()
	doc, err := v.Open()
	if err != nil {
		t.Fatal(err)
	}
	res := serve(h, wantsTicket(doc))
	reply, _ := io.ReadAll(res.Body)
	if res.StatusCode != http.StatusOK || res.Header.Get("Cache-Control") != "no-store" || res.Header.Get("Access-Control-Allow-Origin") != app {
		t.Fatalf("%s %v %s", res.Status, res.Header, reply)
	}
	if err = v.Take(reply); err != nil {
		t.Fatal(err)
	}
}

// chat is a call of the page.
func chat(v *tickettest.Visit, body string) *http.Request {
	r := asPage(httptest.NewRequest("POST", self+"/v1/chat", strings.NewReader(body)), app)
	r.RequestURI = "/v1/chat"
	r.Header.Set("Content-Type", "application/json")
	if v != nil {
		r.Header.Set(ticket.Header, v.Token("POST", "/v1/chat", []byte(body)))
	}
	return r
}

// codeOf is the code of a refusal, or "" of what was served.
func codeOf(t *testing.T, res *http.Response) string {
	t.Helper()
	if res.StatusCode == http.StatusOK {
		return ""
	}
	var p struct{ Code string }
	if err := json.NewDecoder(res.Body).Decode(&p); err != nil {
		t.Fatal(err)
	}
	return p.Code
}

func TestOnlyCallsWithATicketReachTheUpstream(t *testing.T) {
	b := newBackend(t, nil)
	g := newGateway(t, configFor(t, b.URL, ticketed()))
	res := serve(g, chat(nil, "{}"))
	if code := codeOf(t, res); code != "ticket-missing" || res.Header.Get("Access-Control-Allow-Origin") != app || res.Header.Get("Www-Authenticate") != "Moat-Ticket" {
		t.Errorf("%s %v", code, res.Header)
	}
	var v tickettest.Visit
	open(t, g, &v)
	r := chat(&v, `{"prompt":"hello"}`)
	replay := r.Clone(t.Context())
	if code := codeOf(t, serve(g, r)); code != "" {
		t.Fatal(code)
	}
	if got := b.last.Load(); got.Header.Get(ticket.Header) != "" || got.Header.Get("Content-Type") != "application/json" {
		t.Errorf("the upstream got %v", got.Header)
	}
	replay.Body = io.NopCloser(strings.NewReader(`{"prompt":"hello"}`))
	if code := codeOf(t, serve(g, replay)); code != "ticket-used" {
		t.Errorf("replay: %q", code)
	}
	if n := b.ran.Load(); n != 1 {
		t.Errorf("the backend ran %d times", n)
	}
}

func TestOneOfAThousandReplaysIsHonoured(t *testing.T) {
	b := newBackend(t, nil)
	g := newGateway(t, configFor(t, b.URL, ticketed()))
	var v tickettest.Visit
	open(t, g, &v)
	token := v.Token("POST", "/v1/chat", []byte("{}"))
	var wg sync.WaitGroup
	var served atomic.Int64
	for range 1000 {
		wg.Go(func() {
			r := chat(nil, "{}")
			r.Header.Set(ticket.Header, token)
			if serve(g, r).StatusCode == http.StatusOK {
				served.Add(1)
			}
		})
	}
	wg.Wait()
	if served.Load() != 1 || b.ran.Load() != 1 {
		t.Errorf("%d served, the backend ran %d times", served.Load(), b.ran.Load())
	}
}

func TestTheUpstreamNeverGetsAnotherBody(t *testing.T) {
	b := newBackend(t, func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err == nil {
			w.Header().Set("X-Whole", "yes")
		}
	})
	s := start(t, configFor(t, b.URL, plain, ticketed()))
	var v tickettest.Visit
	open(t, s, &v)
	for _, size := range []int{10, 64 << 10, 200 << 10} {
		body := strings.Repeat("a", size)
		for _, sent := range []string{body, body[:size-1] + "b"} {
			for name, reader := range map[string]io.Reader{"with its length": strings.NewReader(sent), "chunked": io.MultiReader(strings.NewReader(sent))} {
				r, err := http.NewRequest("POST", "http://"+s.addr+"/v1/chat", reader)
				if err != nil {
					t.Fatal(err)
				}
				asPage(r, app).Host = "api.example.com"
				if v.Next == v.Uses {
					open(t, s, &v)
				}
				r.Header.Set(ticket.Header, v.Token("POST", "/v1/chat", []byte(body)))
				res, err := http.DefaultTransport.RoundTrip(r)
				if err != nil {
					t.Fatal(err)
				}
				if whole := res.Header.Get("X-Whole") == "yes"; whole != (sent == body) {
					t.Errorf("%d bytes, %s, changed: %v: %s", size, name, sent != body, res.Status)
				} else if !whole && codeOf(t, res) != "ticket-body-differs" {
					t.Errorf("%d bytes, %s: %s", size, name, res.Status)
				}
				res.Body.Close()
			}
		}
	}
}

func TestTicketsAreForTheSitesOwnPages(t *testing.T) {
	g := newGateway(t, configFor(t, newBackend(t, nil).URL, ticketed()))
	doc, err := new(tickettest.Visit).Open()
	if err != nil {
		t.Fatal(err)
	}
	for about, c := range map[string]struct {
		change func(*http.Request)
		want   string
	}{
		"a stranger's page": {func(r *http.Request) { r.Header.Set("Origin", stranger) }, "cors-origin-not-allowed"},
		"curl":              {func(r *http.Request) { r.Header = http.Header{"User-Agent": {"curl/8"}} }, "cross-site-browserless"},
		"a sandbox":         {func(r *http.Request) { r.Header.Set("Origin", "null") }, "cors-origin-not-allowed"},
		"a form": {func(r *http.Request) {
			r.Header.Set("Sec-Fetch-Mode", "navigate")
			r.Header.Set("Sec-Fetch-Dest", "document")
		}, "cross-site-request"},
		"no Origin":    {func(r *http.Request) { r.Header.Del("Origin"); r.Header.Set("Sec-Fetch-Site", "same-origin") }, "cross-site-browserless"},
		"GET":          {func(r *http.Request) { r.Method = "GET" }, "route-not-found"},
		"another path": {func(r *http.Request) { r.URL.Path = "/.moat/other" }, "route-not-found"},
		"another case": {func(r *http.Request) { r.URL.Path = "/.Moat/tickets" }, "ticket-missing"},
		"another host": {func(r *http.Request) { r.Host = "evil.test" }, "host-not-allowed"},
	} {
		r := wantsTicket(doc)
		c.change(r)
		if code := codeOf(t, serve(g, r)); code != c.want {
			t.Errorf("%s: %q, want %s", about, code, c.want)
		}
	}
}

func TestManySessionsHaveToWork(t *testing.T) {
	b := newBackend(t, nil)
	g := newGateway(t, configFor(t, b.URL, ticketed(func(c *gateway.Config) {
		c.Tickets.Challenge = challenge.Policy{QuietAddress: 2, QuietNetwork: 2, QuietAll: 100, MaxBits: 15}
	})))
	asked := 0
	for range 10 {
		var v tickettest.Visit
		doc, err := v.Open()
		if err != nil {
			t.Fatal(err)
		}
		res := serve(g, wantsTicket(doc))
		if res.StatusCode == http.StatusUnauthorized {
			asked++
			var p struct {
				Code      string
				Challenge challenge.Ask
			}
			if err = json.NewDecoder(res.Body).Decode(&p); err != nil || p.Code != "challenge-required" || p.Challenge.Puzzles == 0 {
				t.Fatalf("%+v, %v", p, err)
			}
			answered := map[string]string{"challenge": p.Challenge.Token, "solution": challengetest.Solve(p.Challenge.Token, p.Challenge.Puzzles, p.Challenge.Bits)}
			if err = json.Unmarshal(doc, &answered); err != nil {
				t.Fatal(err)
			}
			if doc, err = json.Marshal(answered); err != nil {
				t.Fatal(err)
			}
			if res = serve(g, wantsTicket(doc)); res.StatusCode != http.StatusOK {
				t.Fatalf("solved: %s", codeOf(t, res))
			}
			if code := codeOf(t, serve(g, wantsTicket(doc))); code != "challenge-failed" {
				t.Errorf("solved once, told twice: %q", code)
			}
		}
	}
	if asked < 5 {
		t.Errorf("%d of 10 sessions had to work", asked)
	}
}

func TestReportedTicketsStopNothing(t *testing.T) {
	b := newBackend(t, nil)
	g := newGateway(t, configFor(t, b.URL, ticketed(route(func(r *gateway.Route) { r.Modes[guard.Ticket] = guard.Report }))))
	if code := codeOf(t, serve(g, chat(nil, "{}"))); code != "" || b.ran.Load() != 1 {
		t.Errorf("%q", code)
	}
}

func TestAProxiedPageGetsItsFirstTicket(t *testing.T) {
	const page = "<!doctype html><html><head><title>demo</title></head><body></body></html>"
	b := newBackend(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Accept-Encoding") != "" || r.Header.Get("If-None-Match") != "" {
			t.Errorf("asked for %v", r.Header)
		}
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.Header().Set("ETag", `"1"`)
		w.Header().Set("CDN-Cache-Control", "max-age=600") // counts before Cache-Control (RFC 9213)
		io.WriteString(w, page)
	})
	g := newGateway(t, configFor(t, b.URL, ticketed(func(c *gateway.Config) {
		c.Routes = append(c.Routes, c.Routes[0])
		c.Routes[1].Pattern, c.Routes[1].Tickets = "GET /app/", gateway.TicketsEmbedded
	})))
	r := httptest.NewRequest("GET", self+"/app/", nil)
	r.RemoteAddr = "127.0.0.1:4711"
	for k, v := range map[string]string{"Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document", "User-Agent": browserAgent, "Accept-Language": "en", "Accept-Encoding": "gzip", "If-None-Match": `"1"`} {
		r.Header.Set(k, v)
	}
	res := serve(g, r)
	text, _ := io.ReadAll(res.Body)
	_, rest, ok := strings.Cut(string(text), `<head><script type="application/json" id="moat-ticket">`)
	doc, rest, ended := strings.Cut(rest, "</script>")
	if !ok || !ended || !strings.HasPrefix(rest, "<title>") || res.Header.Get("ETag") != "" || res.Header.Get("Cache-Control") != "no-store" || res.Header.Get("CDN-Cache-Control") != "" {
		t.Fatalf("%v %s", res.Header, text)
	}
	var v tickettest.Visit
	if err := v.Take([]byte(doc)); err != nil || v.Uses != 8 {
		t.Fatalf("%+v, %v", v, err)
	}
	call := chat(&v, "{}")
	call.Header.Set("Origin", self)
	call.Header.Set("Sec-Fetch-Site", "same-origin")
	if code := codeOf(t, serve(g, call)); code != "" {
		t.Errorf("its first call: %q", code)
	}
}

// navigation is what a browser sends whose user goes somewhere.
func navigation(target string, cookies ...*http.Cookie) *http.Request {
	r := httptest.NewRequest("GET", self+target, nil)
	r.RequestURI, r.RemoteAddr = target, "127.0.0.1:4711"
	for k, v := range map[string]string{"Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document", "User-Agent": browserAgent, "Accept-Language": "de"} {
		r.Header.Set(k, v)
	}
	for _, c := range cookies {
		r.AddCookie(c)
	}
	return r
}

func TestABrowserWithoutScriptWaitsAndThenMayGoOn(t *testing.T) {
	b := newBackend(t, nil)
	g := newGateway(t, configFor(t, b.URL, ticketed(route(func(r *gateway.Route) { r.NoScript = true }))))
	res := serve(g, navigation("/page?a=1"))
	text, _ := io.ReadAll(res.Body)
	if res.StatusCode != http.StatusUnauthorized || res.Header.Get("Content-Language") != "de" || b.ran.Load() != 0 {
		t.Fatalf("%s %s", res.Status, text)
	}
	_, refresh, _ := strings.Cut(string(text), `href="`)
	refresh, _, _ = strings.Cut(refresh, `"`)
	refresh = html.UnescapeString(refresh)
	if code := codeOf(t, serve(g, navigation(refresh))); code != "challenge-failed" {
		t.Errorf("without cookies: %q", code)
	}
	probe := res.Cookies()[0]
	if res = serve(g, navigation(refresh, probe)); res.StatusCode != http.StatusUnauthorized {
		t.Errorf("too early: %s", res.Status)
	}
	time.Sleep(2100 * time.Millisecond) // the wait, which rounds up
	res = serve(g, navigation(refresh, probe))
	if res.StatusCode != http.StatusSeeOther || res.Header.Get("Location") != "/page?a=1" || len(res.Cookies()) != 1 {
		t.Fatalf("%s %v", res.Status, res.Header)
	}
	pass := res.Cookies()[0]
	if res = serve(g, navigation(refresh, pass)); res.StatusCode != http.StatusUnauthorized || b.ran.Load() != 0 {
		t.Errorf("the same wait again: %s", res.Status)
	}
	for range ticket.PassUses {
		if code := codeOf(t, serve(g, navigation("/page?a=1", pass))); code != "" {
			t.Errorf("with its pass: %q", code)
		}
	}
	if res = serve(g, navigation("/page?a=1", pass)); res.StatusCode != http.StatusUnauthorized {
		t.Errorf("one too many: %s", res.Status)
	}
	r := navigation("/page?a=1")
	r.Header.Set("Sec-Fetch-Dest", "empty")
	r.Header.Set("Sec-Fetch-Mode", "cors")
	if res = serve(g, r); res.Header.Get("Content-Type") != "application/problem+json" {
		t.Errorf("an API client is shown %s", res.Header.Get("Content-Type"))
	}
}

func TestTheGateServesThePagesClient(t *testing.T) {
	g := newGateway(t, configFor(t, newBackend(t, nil).URL, ticketed()))
	for _, name := range []string{"client.js", "client.mjs", "solver.js"} {
		r := httptest.NewRequest("GET", self+"/.moat/"+name, nil)
		r.Header.Set("Sec-Fetch-Site", "cross-site")
		r.Header.Set("Sec-Fetch-Mode", "no-cors")
		r.Header.Set("Sec-Fetch-Dest", "script")
		res := serve(g, r)
		if text, _ := io.ReadAll(res.Body); res.StatusCode != http.StatusOK || len(text) == 0 || res.Header.Get("Content-Type") != "text/javascript; charset=utf-8" {
			t.Errorf("%s: %s %v, %d bytes", name, res.Status, res.Header, len(text))
		}
		r.Header.Set("If-None-Match", res.Header.Get("ETag"))
		r.Header.Set("Origin", stranger)
		r.Header.Set("Sec-Fetch-Mode", "cors")
		if res = serve(g, r); res.StatusCode != http.StatusNotModified || res.Header.Get("Access-Control-Allow-Origin") != "*" {
			t.Errorf("%s, again: %s %v", name, res.Status, res.Header)
		}
	}
}
