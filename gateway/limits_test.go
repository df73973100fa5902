package gateway_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/moat-gateway/moat/gateway"
	"github.com/moat-gateway/moat/guard"
	"github.com/moat-gateway/moat/guard/ratelimit"
)

// admin asks the admin listener, as a program on this machine does unless headers say
// otherwise.
func admin(t *testing.T, g *gateway.Gateway, method, path string, headers ...string) (int, string, http.Header) {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), method, "http://127.0.0.1:9090"+path, http.NoBody)
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	res := serve(g.Admin(false), r)
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(b), res.Header
}

func limitsOf(t *testing.T, g *gateway.Gateway) (l gateway.Limits) {
	t.Helper()
	code, body, _ := admin(t, g, "GET", "/limits")
	if err := json.Unmarshal([]byte(body), &l); err != nil || code != http.StatusOK {
		t.Fatalf("%d %s: %v", code, body, err)
	}
	return l
}

func from(client string, r *http.Request) *http.Request {
	r.RemoteAddr = client + ":4711"
	return r
}

func rule(name, words string, by ...ratelimit.Fact) ratelimit.Rule {
	l, err := ratelimit.ParseLimit(words)
	if err != nil {
		panic(err)
	}
	return ratelimit.Rule{Name: name, Limit: l, By: by}
}

// ask sends n requests, and returns the last status.
func ask(g *gateway.Gateway, n int, client, method string) (status int) {
	for range n {
		status = serve(g, from(client, request(method, app))).StatusCode
	}
	return status
}

func TestOperatorSeesWhoIsLimitedAndWhoAsksMost(t *testing.T) {
	b := newBackend(t, nil)
	g := newGateway(t, configFor(t, b.URL, limited("60/h burst 2")))
	if l := limitsOf(t, g); len(l.Limited)+len(l.Talkers) > 0 || l.Limited == nil || l.Talkers == nil {
		t.Errorf("%+v", l)
	}
	ask(g, 5, "203.0.113.7", "GET")
	ask(g, 1, "[2001:db8::1]", "GET")
	serve(g, from("203.0.113.9", request("POST", stranger))) // another guard refuses it

	l := limitsOf(t, g)
	if len(l.Limited) != 1 || l.LimitedInAll != 1 {
		t.Fatalf("%+v", l)
	}
	k := l.Limited[0]
	if k.Limit != "client" || k.Key != "203.0.113.7" || k.Reason != "rate-limited" || k.Want != "60/h burst 2" || k.Mode != "enforce" || k.Refused != 3 || k.Again != 60 {
		t.Errorf("%+v", k)
	}
	want := []gateway.Talker{
		{Client: "203.0.113.7", Requests: 5, Refused: 3, Share: 5. / 7},
		{Client: "203.0.113.9", Requests: 1, Share: 1. / 7},
		{Client: "2001:db8::/64", Requests: 1, Share: 1. / 7},
	}
	if !slices.Equal(l.Talkers, want) || l.Requests != 7 {
		t.Errorf("%+v", l)
	}
	if in := l.Limits; len(in) != 1 || in[0].Name != "client" || in[0].Limit != "60/h burst 2" || !slices.Equal(in[0].By, []string{"address"}) || !slices.Equal(in[0].Routes, []string{"/"}) || in[0].Mode != "enforce" {
		t.Errorf("%+v", in)
	}
	if s := l.Store; s == nil || s.Kind != "memory" || s.Bytes != 64<<10 || s.Slots == 0 {
		t.Errorf("%+v", s)
	}
	if _, body, _ := admin(t, g, "GET", "/limits?n=1"); strings.Count(body, `"client":`) != 1 {
		t.Errorf("%s", body)
	}
	_, metrics, _ := admin(t, g, "GET", "/metrics")
	for _, line := range []string{
		`moat_rate_limited_total{limit="client",mode="enforce",route="/"} 3`, "moat_limit_table_bytes 65536",
		`moat_limit_table_evicted_total{refused="yes"} 0`, "moat_limit_store_unanswered_total 0", "moat_limit_table_occupied_ratio ",
	} {
		if !strings.Contains(metrics, "\n"+line) {
			t.Errorf("no %s", line)
		}
	}
}

func TestWhatIsOnlyReportedIsShownAsSuch(t *testing.T) {
	b := newBackend(t, nil)
	g := newGateway(t, configFor(t, b.URL, limited("60/h burst 2", func(r *gateway.Route) { r.Modes[guard.RateLimit] = guard.Report })))
	if status := ask(g, 5, "203.0.113.7", "GET"); status != http.StatusOK {
		t.Fatal(status)
	}
	l := limitsOf(t, g)
	if len(l.Limited) != 1 || l.Limited[0].Mode != "report" || l.Limited[0].Refused != 3 || l.Limits[0].Mode != "report" {
		t.Errorf("%+v", l)
	}
	if talker := l.Talkers[0]; talker.Refused != 0 || talker.WouldRefuse != 3 || talker.Requests != 5 {
		t.Errorf("%+v", talker)
	}
	if _, metrics, _ := admin(t, g, "GET", "/metrics"); !strings.Contains(metrics, `moat_rate_limited_total{limit="client",mode="report",route="/"} 3`) {
		t.Error("it is not counted as reported")
	}
}

func TestWithoutLimitsThereAreTalkersAllTheSame(t *testing.T) {
	b := newBackend(t, nil)
	g := newGateway(t, configFor(t, b.URL))
	ask(g, 2, "203.0.113.7", "GET")
	if l := limitsOf(t, g); len(l.Talkers) != 1 || l.Limits == nil || len(l.Limits) > 0 || l.Store != nil {
		t.Errorf("%+v", l)
	}
	if code, body, _ := admin(t, g, "DELETE", "/limits?key=203.0.113.7"); code != http.StatusNotFound || !strings.Contains(body, "no rate limit is in force") {
		t.Errorf("%d %s", code, body)
	}
}

// reset resets a key, and returns what the answer says was reset.
func reset(t *testing.T, g *gateway.Gateway, query string) string {
	t.Helper()
	code, body, _ := admin(t, g, "DELETE", "/limits?"+query)
	if code != http.StatusOK {
		t.Fatalf("%s: %d %s", query, code, body)
	}
	return strings.TrimSpace(body)
}

func TestResetGivesAKeyAFreshBurst(t *testing.T) {
	b := newBackend(t, nil)
	g := newGateway(t, configFor(t, b.URL, limited("60/h burst 2")))
	for _, query := range []string{"key=203.0.113.7", "key=203.0.113.7&limit=client", "key=203.0.113.7/32"} {
		if status := ask(g, 3, "203.0.113.7", "GET"); status != http.StatusTooManyRequests {
			t.Fatal(status)
		}
		if got := reset(t, g, query); got != `{"reset":[{"limit":"client","key":"203.0.113.7"}]}` {
			t.Error(got)
		}
		if l := limitsOf(t, g); len(l.Limited) > 0 {
			t.Errorf("%+v", l.Limited)
		}
		if status := ask(g, 2, "203.0.113.7", "GET"); status != http.StatusOK {
			t.Error(status)
		}
		reset(t, g, query)
	}
}

func TestResetOfAnAddressAloneMeansEveryRouteAndMethod(t *testing.T) {
	b := newBackend(t, nil)
	g := newGateway(t, configFor(t, b.URL, func(c *gateway.Config) {
		r := c.Routes[0]
		r.RateLimits = []ratelimit.Rule{
			rule("all", "1000/s"), rule("each", "60/h burst 9", ratelimit.Address, ratelimit.Route, ratelimit.Method),
			{Name: "slots", AtOnce: 5, By: []ratelimit.Fact{ratelimit.Address}},
		}
		r.Name, r.Methods = "a", []string{"GET", "POST"}
		c.Routes[0] = r
		r.Name, r.Pattern = "b", "PUT /b"
		c.Routes = append(c.Routes, r)
		c.Routes[1].Methods = nil
	}))
	for query, want := range map[string]string{
		"key=2001:db8::1":                    `{"reset":[{"limit":"each","key":"2001:db8::/64 GET a"},{"limit":"each","key":"2001:db8::/64 POST a"},{"limit":"each","key":"2001:db8::/64 PUT b"}]}`,
		"key=2001:db8::/64%20POST%20a":       `{"reset":[{"limit":"each","key":"2001:db8::/64 POST a"}]}`,
		"key=everybody":                      `{"reset":[{"limit":"all","key":"everybody"}]}`,
		"key=GET%20a&limit=each":             `{"reset":[{"limit":"each","key":"GET a"}]}`,
		"key=203.0.113.0/24%20GET%20a":       `{"reset":[{"limit":"each","key":"203.0.113.0/24 GET a"}]}`,
		"key=203.0.113.7%20BREW%20b":         `{"reset":[{"limit":"each","key":"203.0.113.7 BREW b"}]}`,
		"key=%3A%3Affff%3A203.0.113.7+GET+a": `{"reset":[{"limit":"each","key":"203.0.113.7 GET a"}]}`,
		"key=everybody&limit=each":           `{"reset":[{"limit":"each","key":"GET a"},{"limit":"each","key":"POST a"},{"limit":"each","key":"PUT b"}]}`,
	} {
		if got := reset(t, g, query); got != want {
			t.Errorf("%s: %s", query, got)
		}
	}
	for _, c := range []struct {
		query string
		code  int
		err   string
	}{
		{"key=203.0.113.7&limit=nosuch", 404, `no such limit: "nosuch"; in force: all, each, slots`},
		{"key=203.0.113.7&limit=all", 400, `no such key: "203.0.113.7": limit "all": "203.0.113.7": more than this limit counts by`},
		{"key=203.0.113.7&limit=slots", 400, `no such key: "203.0.113.7": limit "slots": bounds only what is under way, which ends by itself`},
		{"key=203.0.113.7+GET+c&limit=each", 400, `no such key: "203.0.113.7 GET c": limit "each": does not hold on a route "c"`},
		{"key=203.0.113.0/16&limit=each", 400, `no such key: "203.0.113.0/16": limit "each": "203.0.113.0/16": an IPv4 client is counted by its address and its /24`},
		{"limit=each", 400, `no such key: "": limit "each": no key`},
		{"key=203.0.113.0/16", 400, `no such key: "203.0.113.0/16": none of the limits counts by that: all, each, slots`},
	} {
		code, body, _ := admin(t, g, "DELETE", "/limits?"+c.query)
		var answer struct{ Error string }
		if err := json.Unmarshal([]byte(body), &answer); err != nil || code != c.code || answer.Error != c.err {
			t.Errorf("%s: %d %s, want %d %s", c.query, code, answer.Error, c.code, c.err)
		}
	}
}

func TestResetOfAnAccount(t *testing.T) {
	b := newBackend(t, nil)
	g := newGateway(t, configFor(t, b.URL, route(func(r *gateway.Route) {
		r.Account = "email"
		r.RateLimits = []ratelimit.Rule{rule("all", "1000/s"), rule("logins", "1/h", ratelimit.Account, ratelimit.Route)}
	})))
	login := func(client, account string) int {
		r := from(client, request("GET", app))
		r.URL.RawQuery = "email=" + account
		return serve(g, r).StatusCode
	}
	name := limitsOf(t, g).Limits[1].Routes[0]
	for range 2 {
		if status := login("203.0.113.7", "bob"); status != http.StatusOK {
			t.Error(status)
		}
		if status := login("198.51.100.7", "Bob"); status != http.StatusTooManyRequests {
			t.Error(status)
		}
		if l := limitsOf(t, g).Limited; len(l) != 1 || l[0].Key != "account=bob "+name || l[0].Reason != "rate-limited-account" {
			t.Errorf("%+v", l)
		}
		if got, want := reset(t, g, "key=account%3DBOB"), `{"reset":[{"limit":"logins","key":"account=bob `+name+`"}]}`; got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	if got := reset(t, g, "key=everybody"); got != `{"reset":[{"limit":"all","key":"everybody"}]}` {
		t.Error(got)
	}
}

func TestResetSaysWhatStillHoldsTheClientBack(t *testing.T) {
	b := newBackend(t, nil)
	g := newGateway(t, configFor(t, b.URL, route(func(r *gateway.Route) {
		client := rule("client", "60/h burst 2", ratelimit.Address)
		client.Wider.IPv4Net24 = 1
		r.RateLimits = []ratelimit.Rule{client}
	})))
	ask(g, 2, "203.0.113.8", "GET")
	ask(g, 3, "203.0.113.7", "GET")
	want := `{"reset":[{"limit":"client","key":"203.0.113.7"}],"still_limited":[{"limit":"client","key":"203.0.113.0/24"}]}`
	if got := reset(t, g, "key=203.0.113.7"); got != want {
		t.Error(got)
	}
	reset(t, g, "key=203.0.113.0/24")
	if status := ask(g, 1, "203.0.113.7", "GET"); status != http.StatusOK {
		t.Error(status)
	}
}

// deaf is a shared store that cannot be asked.
type deaf struct{ outage }

func (deaf) Reset(context.Context, ratelimit.Key) error { return errors.New("dial tcp: refused") }

func TestOperatorSeesThatTheSharedStoreDoesNotAnswer(t *testing.T) {
	b := newBackend(t, nil)
	g := newGateway(t, configFor(t, b.URL, limited("60/h burst 2"), func(c *gateway.Config) { c.SharedLimits = deaf{} }))
	ask(g, 3, "203.0.113.7", "GET")
	l := limitsOf(t, g)
	if s := l.Store; s == nil || s.Kind != "gateway_test" || s.Nodes != 2 || s.Unanswered != 3 || s.LastError == "" || s.LastErrorAt == nil {
		t.Errorf("%+v", s)
	}
	if len(l.Limited) != 1 { // by this process's share
		t.Errorf("%+v", l)
	}
	code, body, _ := admin(t, g, "DELETE", "/limits?key=203.0.113.7")
	if code != http.StatusServiceUnavailable || !strings.Contains(body, "203.0.113.7: the limits' store: dial tcp: refused") {
		t.Errorf("%d %s", code, body)
	}
}

func TestResetIsLogged(t *testing.T) {
	b := newBackend(t, nil)
	var log strings.Builder
	g, err := gateway.New(configFor(t, b.URL, limited("60/h")), slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	reset(t, g, "key=203.0.113.7")
	if !strings.Contains(log.String(), `level=INFO msg="rate limit reset" limit=client key=203.0.113.7`) {
		t.Error(log.String())
	}
}

// The operator's browser visits pages. None of them may use the admin listener.
func TestPagesCanNeitherResetNorRead(t *testing.T) {
	b := newBackend(t, nil)
	g := newGateway(t, configFor(t, b.URL, limited("60/h burst 1")))
	ask(g, 2, "203.0.113.7", "GET")
	for _, headers := range [][]string{
		{"Sec-Fetch-Site", "cross-site", "Origin", stranger},
		{"Sec-Fetch-Site", "same-site", "Origin", "http://127.0.0.1:5173"},
		{"Origin", stranger}, // a browser that sends no fetch metadata
		{"Origin", "null"},
	} {
		if code, body, h := admin(t, g, "DELETE", "/limits?key=203.0.113.7", headers...); code != http.StatusForbidden || h.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("%v: %d %s", headers, code, body)
		}
		preflight := append(slices.Clone(headers), "Access-Control-Request-Method", "DELETE")
		if code, _, h := admin(t, g, "OPTIONS", "/limits?key=203.0.113.7", preflight...); code < 300 || h.Get("Access-Control-Allow-Methods")+h.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("%v: preflight: %d %v", headers, code, h)
		}
		if _, _, h := admin(t, g, "GET", "/limits", headers...); h.Get("Access-Control-Allow-Origin") != "" || h.Get("Cross-Origin-Resource-Policy") != "same-origin" {
			t.Errorf("%v: %v", headers, h)
		}
	}
	for _, method := range []string{"GET", "DELETE"} {
		if code, body, _ := admin(t, g, method, "/limits?key=203.0.113.7", "Sec-Fetch-Site", "same-origin"); code != http.StatusOK {
			t.Errorf("%s: %d %s", method, code, body)
		}
		// A name that was bound to 127.0.0.1 makes its page same-origin.
		r := httptest.NewRequestWithContext(t.Context(), method, "http://rebound.example:9090/limits?key=203.0.113.7", http.NoBody)
		r.Header.Set("Sec-Fetch-Site", "same-origin")
		if res := serve(g.Admin(false), r); res.StatusCode != http.StatusMisdirectedRequest {
			t.Errorf("%s of a rebound name: %d", method, res.StatusCode)
		}
	}
	for _, method := range []string{"POST", "PUT"} {
		if code, _, _ := admin(t, g, method, "/limits"); code != http.StatusMethodNotAllowed {
			t.Errorf("%s: %d", method, code)
		}
	}
}
