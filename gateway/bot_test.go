package gateway_test

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/moat-gateway/moat/gateway"
	"github.com/moat-gateway/moat/guard"
	"github.com/moat-gateway/moat/guard/body"
	"github.com/moat-gateway/moat/guard/bot"
	"github.com/moat-gateway/moat/guard/budget"
	"github.com/moat-gateway/moat/guard/crosssite"
	"github.com/moat-gateway/moat/guard/ratelimit"
	"github.com/moat-gateway/moat/guard/ticket/tickettest"
)

// watched is a gate that looks at who calls, on a route that lets programs call too.
func watched(change ...func(*gateway.Bots)) func(*gateway.Config) {
	return func(c *gateway.Config) {
		c.Bots = &gateway.Bots{Policy: bot.Policy{Modes: bot.DefaultModes(), Challenge: 20, Slow: 40, Deny: 60}}
		c.Routes[0].CrossSite = crosssite.Policy{AllowBrowserless: true}
		for _, f := range change {
			f(c.Bots)
		}
	}
}

// browserGET is what Chromium's script on a page of the app sends.
func browserGET() *http.Request {
	r := asPage(httptest.NewRequest("GET", self+"/v1/items", nil), app)
	for k, v := range map[string]string{
		"Accept": "*/*", "Accept-Language": "en-US,en;q=0.9", "Accept-Encoding": "gzip, deflate, br, zstd", "Sec-Ch-Ua": `"Not:A-Brand";v="8", "Chromium";v="156"`,
		"Sec-Ch-Ua-Mobile": "?0", "Sec-Ch-Ua-Platform": `"Linux"`,
	} {
		r.Header.Set(k, v)
	}
	return r
}

// program is a GET of a program that calls itself so.
func program(agent string) *http.Request {
	r := httptest.NewRequest("GET", self+"/v1/items", nil)
	r.RemoteAddr = "127.0.0.1:4711"
	r.Header.Set("User-Agent", agent)
	r.Header.Set("Accept", "*/*")
	return r
}

func records(t *testing.T, g *gateway.Gateway) (all []gateway.Record) {
	t.Helper()
	_, text, _ := admin(t, g, "GET", "/decisions")
	if err := json.Unmarshal([]byte(text), &all); err != nil {
		t.Fatal(err)
	}
	return all
}

func TestAProgramThatTakesABrowsersNameReachesNothing(t *testing.T) {
	b := newBackend(t, nil)
	g := newGateway(t, configFor(t, b.URL, watched()))
	if code := codeOf(t, serve(g, browserGET())); code != "" || b.ran.Load() != 1 {
		t.Fatalf("a browser: %q", code)
	}
	if all := records(t, g); len(all) != 0 {
		t.Errorf("a browser left %+v", all)
	}
	res := serve(g, program(browserAgent))
	body, _ := io.ReadAll(res.Body)
	if res.StatusCode != http.StatusForbidden || b.ran.Load() != 1 {
		t.Fatalf("%s %s", res.Status, body)
	}
	for _, secret := range []string{"fetch_metadata", "headers", "score", "60"} {
		if strings.Contains(string(body), secret) {
			t.Errorf("the client is told %q: %s", secret, body)
		}
	}
	const want = "fetch_metadata +40 (no Sec-Fetch-*, which this browser always sends); headers +30 (no Accept-Language)"
	if all := records(t, g); len(all) != 1 || all[0].Code != "bot-denied" || all[0].Where != "score 70" || all[0].Got != want || all[0].Want != "less than deny, 60" {
		t.Errorf("%+v; want %s", all, want)
	}
}

func TestAProgramThatSaysSoIsMadeDearer(t *testing.T) {
	b := newBackend(t, nil)
	limited := func(c *gateway.Config) {
		c.Routes[0].RateLimits = []ratelimit.Rule{{Name: "client", Limit: ratelimit.Limit{Count: 25, Per: time.Hour, Burst: 25}, By: []ratelimit.Fact{ratelimit.Address}}}
	}
	g := newGateway(t, configFor(t, b.URL, watched(), limited))
	admitted := func(r func() *http.Request) (n int) {
		for codeOf(t, serve(g, r())) == "" {
			n++
		}
		return n
	}
	if n := admitted(func() *http.Request { return program("curl/8.5.0") }); n != 3 { // 10 each; the last takes what is left
		t.Errorf("curl was admitted %d times", n)
	}
	if all := records(t, g); all[len(all)-1].Code != "bot-suspected" || all[len(all)-1].Mode != "enforce" || !strings.Contains(all[len(all)-1].Got, "headers +40 (curl)") {
		t.Errorf("%+v", all[len(all)-1])
	}
	g = newGateway(t, configFor(t, b.URL, watched(), limited))
	if n := admitted(browserGET); n != 25 {
		t.Errorf("a browser was admitted %d times", n)
	}
}

func TestInReportModeNothingIsDoneAboutPrograms(t *testing.T) {
	b := newBackend(t, nil)
	g := newGateway(t, configFor(t, b.URL, watched(), route(func(r *gateway.Route) { r.Modes[guard.Bot] = guard.Report })))
	if code := codeOf(t, serve(g, program(browserAgent))); code != "" {
		t.Errorf("refused: %s", code)
	}
	if all := records(t, g); len(all) != 1 || all[0].Code != "bot-denied" || all[0].Mode != "report" {
		t.Errorf("%+v", all)
	}
	g = newGateway(t, configFor(t, b.URL, watched(), route(func(r *gateway.Route) { r.Modes[guard.Bot] = guard.Off })))
	if code := codeOf(t, serve(g, program(browserAgent))); code != "" || len(records(t, g)) != 0 {
		t.Errorf("off: %s %+v", code, records(t, g))
	}
}

func TestAReportedSignalTellsWhatItWouldAdd(t *testing.T) {
	b := newBackend(t, nil)
	g := newGateway(t, configFor(t, b.URL, watched(func(b *gateway.Bots) { b.Policy.Modes[bot.Headers] = guard.Report })))
	if code := codeOf(t, serve(g, program("curl/8.5.0"))); code != "" {
		t.Errorf("refused: %s", code)
	}
	if all := records(t, g); len(all) != 1 || all[0].Code != "bot-suspected" || all[0].Mode != "report" || all[0].Got != "only reported: headers +40 (curl)" {
		t.Errorf("%+v", all)
	}
}

func TestWhoLooksLikeAProgramWorksMoreForTickets(t *testing.T) {
	b := newBackend(t, nil)
	g := newGateway(t, configFor(t, b.URL, ticketed(), watched()))
	ask := func(change func(http.Header)) string {
		t.Helper()
		var v tickettest.Visit
		doc, err := v.Open()
		if err != nil {
			t.Fatal(err)
		}
		r := wantsTicket(doc)
		r.Header = browserGET().Header
		r.Header.Set("Content-Type", "application/json")
		change(r.Header)
		res := serve(g, r)
		body, _ := io.ReadAll(res.Body)
		return string(body)
	}
	if reply := ask(func(http.Header) {}); !strings.Contains(reply, `"ticket"`) {
		t.Fatalf("a browser is asked for work: %s", reply)
	}
	if reply := ask(func(h http.Header) { h.Del("Accept-Language") }); !strings.Contains(reply, `"bits":14`) { // 2^(15+2+1), in 16 puzzles
		t.Errorf("%s", reply)
	}
	if reply := ask(func(h http.Header) { h.Set("User-Agent", "curl/8.5.0"); h.Del("Accept-Language") }); !strings.Contains(reply, `"bits":15`) { // and 2 more
		t.Errorf("%s", reply)
	}
	if reply := ask(func(h http.Header) { h.Del("Sec-Fetch-Site"); h.Set("Sec-Ch-Ua-Platform", `"Windows"`) }); !strings.Contains(reply, "bot-denied") {
		t.Errorf("%s", reply)
	}
}

func TestWhatThePagesScriptSawCountsFromThenOn(t *testing.T) {
	b := newBackend(t, nil)
	g := newGateway(t, configFor(t, b.URL, ticketed(), watched()))
	var v tickettest.Visit
	doc, err := v.Open()
	if err != nil {
		t.Fatal(err)
	}
	signed := strings.TrimSuffix(string(doc), "}") + `,"signs":1}`
	r := wantsTicket([]byte(signed))
	r.Header = browserGET().Header
	res := serve(g, r)
	if body, _ := io.ReadAll(res.Body); !strings.Contains(string(body), "bot-denied") {
		t.Fatalf("%s", body)
	}
	// Whoever has the same address and User-Agent may be somebody else.
	if code := codeOf(t, serve(g, browserGET())); code == "bot-denied" {
		t.Errorf("the next call: %q", code)
	}
	if all := records(t, g); !slices.ContainsFunc(all, func(r gateway.Record) bool {
		return r.Code == "bot-suspected" && r.Got == "client +30 (webdriver)" && r.Path == "/v1/items"
	}) || all[len(all)-1].Got != "client +60 (webdriver)" {
		t.Errorf("%+v", all)
	}
}

// What is found while a ticket is asked for is recorded, though the request has been admitted before.
func TestWhatThePagesScriptSawIsRecorded(t *testing.T) {
	b := newBackend(t, nil)
	for _, mode := range []guard.Mode{guard.Enforce, guard.Report} {
		g := newGateway(t, configFor(t, b.URL, ticketed(), watched(func(b *gateway.Bots) { b.Policy.Modes[bot.Client] = mode })))
		var v tickettest.Visit
		doc, err := v.Open()
		if err != nil {
			t.Fatal(err)
		}
		r := wantsTicket([]byte(strings.TrimSuffix(string(doc), "}") + `,"signs":2}`))
		r.Header = browserGET().Header
		body, _ := io.ReadAll(serve(g, r).Body)
		if asked := strings.Contains(string(body), "challenge-required"); asked != (mode == guard.Enforce) {
			t.Errorf("%s: %s", mode, body)
		}
		all := records(t, g)
		if last := all[len(all)-1]; last.Code != "bot-suspected" || last.Mode != mode.String() || !strings.HasSuffix(last.Got, "client +40 (headless)") {
			t.Errorf("%s: %+v", mode, all)
		}
	}
}

// A tarpit keeps no more than its share of the gate busy.
func TestTheTarpitIsBounded(t *testing.T) {
	b := newBackend(t, nil)
	s := start(t, configFor(t, b.URL, watched(func(b *gateway.Bots) {
		b.Policy.Tarpit, b.Policy.Deny, b.TarpitAtOnce, b.TarpitFor = 60, 0, 2, time.Hour
	})))
	get := func(ctx context.Context) (*http.Response, error) {
		r, err := http.NewRequestWithContext(ctx, "GET", "http://"+s.addr+"/v1/items", http.NoBody)
		if err != nil {
			return nil, err
		}
		r.Host, r.Header = "api.example.com", program(browserAgent).Header
		return http.DefaultTransport.RoundTrip(r)
	}
	held, leave := context.WithCancel(t.Context())
	defer leave()
	var holders sync.WaitGroup
	for range 2 {
		holders.Go(func() {
			for held.Err() == nil { // the others below may be there first
				if res, err := get(held); err == nil {
					res.Body.Close()
				}
			}
		})
	}
	// Until both are in there is room, and those who come wait; then they are refused at once.
	refused := func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		res, err := get(ctx)
		if err != nil {
			return false
		}
		defer res.Body.Close()
		if code := codeOf(t, res); code != "bot-denied" {
			t.Errorf("refused with %s", code)
		}
		return true
	}
	for !refused() {
	}
	leave()
	holders.Wait()
	if b.ran.Load() != 0 {
		t.Error("something reached the upstream")
	}
	for refused() { // whoever goes away leaves room
	}
}

// The library that a program speaks TLS and HTTP/2 with is known, whatever it says in its headers.
func TestABorrowedNameDoesNotFitTheConnection(t *testing.T) {
	b := newBackend(t, nil)
	cert := certificate(t)
	enforced := func(b *gateway.Bots) {
		for s := range b.Policy.Modes {
			b.Policy.Modes[s] = guard.Enforce
		}
	}
	s := start(t, configFor(t, b.URL, watched(enforced)), func(c *gateway.ServerConfig) {
		c.Listeners[0].TLS = &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}
	})
	for _, http2 := range []bool{true, false} {
		p := new(http.Protocols)
		p.SetHTTP1(!http2)
		p.SetHTTP2(http2)
		tr := &http.Transport{
			Protocols: p, TLSClientConfig: &tls.Config{InsecureSkipVerify: true, ServerName: "api.example.com"}, // the test's own certificate
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, "tcp", s.addr)
			},
		}
		defer tr.CloseIdleConnections()
		r := browserGET()
		r.RequestURI = ""
		res, err := tr.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		want := []string{"ja4 +40 (Go)"}
		if http2 {
			want = append(want, "http2 +40 (Go)")
		} else {
			want = append(want, "header_order +30")
		}
		rec := records(t, s.Gateway)[0]
		for _, signal := range want {
			if !strings.Contains(rec.Got, signal) {
				t.Errorf("HTTP/2 %v: %s %q has no %q", http2, rec.Code, rec.Got, signal)
			}
		}
	}
}

// Who is kept waiting takes no place of those that others could have at the same time, neither on a
// route nor where tickets are got.
func TestWhoIsKeptWaitingTakesNobodysPlace(t *testing.T) {
	b := newBackend(t, nil)
	one := []ratelimit.Rule{{Name: "slots", AtOnce: 1, By: []ratelimit.Fact{ratelimit.Address}}}
	tarpit := watched(func(b *gateway.Bots) {
		b.Policy.Tarpit, b.Policy.Deny, b.TarpitAtOnce, b.TarpitFor = 60, 0, 1, time.Hour
	})
	slots := ofSite(budget.Amount{Requests: 1000})
	slots.AtOnce = 1
	guarded := newGateway(t, configFor(t, b.URL, tarpit, route(func(r *gateway.Route) {
		r.RateLimits, r.Budgets, r.Body = one, []budget.Rule{slots}, &body.Policy{StrictJSON: true}
	})))
	tickets := newGateway(t, configFor(t, b.URL, ticketed(func(c *gateway.Config) { c.Tickets.RateLimits = one }), tarpit))
	synctest.Test(t, func(t *testing.T) {
		begun := time.Now()
		for name, c := range map[string]struct {
			gate *gateway.Gateway
			ask  func() *http.Request
		}{
			"a route": {guarded, func() *http.Request { return program(browserAgent) }},
			"tickets": {tickets, func() *http.Request {
				var v tickettest.Visit
				doc, err := v.Open()
				if err != nil {
					t.Fatal(err)
				}
				r := wantsTicket([]byte(strings.TrimSuffix(string(doc), "}") + `,"signs":1}`))
				r.Header = browserGET().Header
				return r
			}},
		} {
			var waits sync.WaitGroup
			first := c.ask()
			waits.Go(func() {
				if code := codeOf(t, serve(c.gate, first)); code != "bot-tarpitted" {
					t.Errorf("%s: the first is refused with %s", name, code)
				}
			})
			synctest.Wait()
			if code := codeOf(t, serve(c.gate, c.ask())); code != "bot-denied" {
				t.Errorf("%s: the second is refused with %s, want bot-denied, for the tarpit is full", name, code)
			}
			if c.gate == guarded {
				r := httptest.NewRequest("POST", self+"/v1/items", strings.NewReader("a;b"))
				r.RemoteAddr, r.Header = "127.0.0.1:4711", browserGET().Header
				r.Header.Set("Content-Type", "text/csv")
				if code := codeOf(t, serve(c.gate, r)); code != "body-type-not-allowed" { // which is asked for last
					t.Errorf("a browser is refused with %s", code)
				}
			}
			waits.Wait()
		}
		if time.Since(begun) != 2*time.Hour {
			t.Errorf("both waited %s", time.Since(begun))
		}
	})
}
