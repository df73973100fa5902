package demo

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/url"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"
)

const gateOrigin = "http://localhost:8080"

// open starts a demo on ports of the system's choice, and closes it after the test.
func open(t *testing.T, gate string) *Demo {
	t.Helper()
	d, err := Start(Options{Gate: gate, Admin: "127.0.0.1:9090", AnyPort: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

// client follows no redirect, so that a test sees the server's own answer.
func client(t *testing.T) *http.Client {
	tr := &http.Transport{}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{
		Transport: tr, Timeout: 10 * time.Second,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// send sends a request with header lines "Name: value" and returns the answer and its body.
func send(t *testing.T, method, target, body string, header ...string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, target, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range header {
		name, value, _ := strings.Cut(line, ": ")
		if name == "Host" {
			req.Host = value
			continue
		}
		req.Header.Add(name, value)
	}
	res, err := client(t).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, string(b)
}

func (d *Demo) backend(path string) string { return d.origins.Backend + path }

func reading(t *testing.T, d *Demo, query string) Reading {
	t.Helper()
	res, body := send(t, "GET", d.origins.Ledger+"/ledger"+query, "")
	if res.StatusCode != http.StatusOK {
		t.Fatalf("GET /ledger: %s: %s", res.Status, body)
	}
	var r Reading
	if err := json.Unmarshal([]byte(body), &r); err != nil {
		t.Fatal(err)
	}
	return r
}

func last(t *testing.T, d *Demo) Entry {
	t.Helper()
	r := reading(t, d, "")
	if len(r.Requests) == 0 {
		t.Fatal("the ledger has no request")
	}
	return r.Requests[len(r.Requests)-1]
}

func TestCORSNamesOnlyTheFriendlyOrigin(t *testing.T) {
	d := open(t, gateOrigin)
	for _, c := range []struct{ name, origin, want string }{
		{"friendly", d.FriendlyOrigin(), d.FriendlyOrigin()},
		{"stranger", d.origins.Stranger, ""},
		{"no origin", "", ""},
		{"opaque", "null", ""},
		{"prefix of the friendly one", d.FriendlyOrigin() + ".evil.example", ""},
	} {
		var header []string
		if c.origin != "" {
			header = append(header, "Origin: "+c.origin)
		}
		res, body := send(t, "GET", d.backend(dataPath), "", header...)
		if got := res.Header.Get("Access-Control-Allow-Origin"); got != c.want {
			t.Errorf("%s: Access-Control-Allow-Origin is %q; want %q", c.name, got, c.want)
		}
		if got := res.Header.Values("Vary"); len(got) != 1 || got[0] != "Origin" {
			t.Errorf("%s: Vary is %q; want Origin", c.name, got)
		}
		// The lesson: whoever asks, the work is done.
		if res.StatusCode != http.StatusOK || !strings.Contains(body, "copper") {
			t.Errorf("%s: %s %s; want the data", c.name, res.Status, body)
		}
	}
	if got := reading(t, d, "").Runs[dataPath]; got != 5 {
		t.Errorf("the handler ran %d times; want 5", got)
	}
}

func TestPreflightIsAnsweredAndRunsNoHandler(t *testing.T) {
	d := open(t, gateOrigin)
	for _, c := range []struct{ origin, allowOrigin, allowHeaders, did string }{
		{d.FriendlyOrigin(), d.FriendlyOrigin(), "Content-Type", "answered a preflight: approved"},
		{d.origins.Stranger, "", "", "answered a preflight: not approved"},
	} {
		res, _ := send(t, "OPTIONS", d.backend(transferPath), "", "Origin: "+c.origin,
			"Access-Control-Request-Method: POST", "Access-Control-Request-Headers: content-type")
		if res.StatusCode != http.StatusNoContent {
			t.Errorf("%s: %s; want 204, for CORS refuses nobody", c.origin, res.Status)
		}
		if got := res.Header.Get("Access-Control-Allow-Origin"); got != c.allowOrigin {
			t.Errorf("%s: Access-Control-Allow-Origin is %q; want %q", c.origin, got, c.allowOrigin)
		}
		if got := res.Header.Get("Access-Control-Allow-Headers"); got != c.allowHeaders {
			t.Errorf("%s: Access-Control-Allow-Headers is %q; want %q", c.origin, got, c.allowHeaders)
		}
		if e := last(t, d); e.Ran || e.Did != c.did || e.Method != "OPTIONS" {
			t.Errorf("%s: recorded %+v; want %q, not run", c.origin, e, c.did)
		}
	}
	if r := reading(t, d, ""); r.Preflights != 2 || len(r.Runs) != 0 {
		t.Errorf("%d preflights, runs %v; want 2 and none", r.Preflights, r.Runs)
	}
}

func TestMoneyMovesUnderEveryEncoding(t *testing.T) {
	d := open(t, gateOrigin)
	const urlencoded = "Content-Type: application/x-www-form-urlencoded"
	for i, c := range []struct{ name, query, body, contentType string }{
		{"query", "?to=mallory&amount=50", "", ""},
		{"form", "", "to=mallory&amount=50", urlencoded},
		{"form with charset", "", "to=mallory&amount=50", urlencoded + "; charset=UTF-8"},
		{"JSON called text", "", `{"to":"mallory","amount":50}`, "Content-Type: text/plain;charset=UTF-8"},
		{"JSON", "", `{"to":"mallory","amount":50}`, "Content-Type: application/json"},
		{"JSON of an untyped Blob", "", `{"to":"mallory","amount":50}`, ""},
		{"the body's word counts", "?to=bob&amount=1", "to=mallory&amount=50", urlencoded},
	} {
		header := []string{"Origin: " + d.origins.Stranger}
		if c.contentType != "" {
			header = append(header, c.contentType)
		}
		res, body := send(t, "POST", d.backend(transferPath)+c.query, c.body, header...)
		if res.StatusCode != http.StatusOK {
			t.Errorf("%s: %s %s", c.name, res.Status, body)
		}
		moved := int64(50 * (i + 1))
		if got := reading(t, d, "").Balances; got["mallory"] != moved || got["alice"] != opening-moved || got["bob"] != 0 {
			t.Errorf("%s: balances %v; want %d moved from alice to mallory", c.name, got, moved)
		}
	}
}

func TestTransferThatCannotBeMadeMovesNothing(t *testing.T) {
	d := open(t, gateOrigin)
	for _, c := range []struct {
		name, query, body string
		status            int
	}{
		{"no such payee", "?to=trent&amount=50", "", http.StatusConflict},
		{"to herself", "?to=alice&amount=50", "", http.StatusConflict},
		{"negative", "?to=mallory&amount=-50", "", http.StatusConflict},
		{"nothing", "?to=mallory&amount=0", "", http.StatusConflict},
		{"more than there is", "?to=mallory&amount=1001", "", http.StatusConflict},
		{"more than fits", "?to=mallory&amount=99999999999999999999", "", http.StatusBadRequest},
		{"no amount", "?to=mallory", "", http.StatusBadRequest},
		{"broken JSON", "", `{"to":"mallory",`, http.StatusBadRequest},
		{"too large", "", `{"to":"` + strings.Repeat("m", maxBody) + `"}`, http.StatusBadRequest},
	} {
		res, body := send(t, "POST", d.backend(transferPath)+c.query, c.body)
		if res.StatusCode != c.status {
			t.Errorf("%s: %s %s; want %d", c.name, res.Status, body, c.status)
		}
		if e := last(t, d); !e.Ran || !strings.HasPrefix(e.Did, "moved nothing") {
			t.Errorf("%s: recorded %+v; want a handler that ran and moved nothing", c.name, e)
		}
	}
	if got := reading(t, d, "").Balances; got["alice"] != opening || got["mallory"] != 0 {
		t.Errorf("balances %v; want the opening ones", got)
	}
}

func TestGetDeletesANote(t *testing.T) {
	d := open(t, gateOrigin)
	if res, body := send(t, "GET", d.backend(deletePath)+"?id=3", ""); res.StatusCode != http.StatusOK {
		t.Fatalf("%s %s", res.Status, body)
	}
	if got := reading(t, d, "").Notes; len(got) != noteMax-1 || got[1] != 2 || got[2] != 4 {
		t.Errorf("notes %v; want all but 3", got)
	}
	for _, id := range []string{"3", "11", "0", "x", ""} {
		if res, _ := send(t, "GET", d.backend(deletePath)+"?id="+id, ""); res.StatusCode != http.StatusNotFound {
			t.Errorf("id %q: %s; want 404", id, res.Status)
		}
	}
	if got := len(reading(t, d, "").Notes); got != noteMax-1 {
		t.Errorf("%d notes; want %d", got, noteMax-1)
	}
}

func TestLoginSetsACookieWithoutSameSite(t *testing.T) {
	d := open(t, gateOrigin)
	res, _ := send(t, "GET", d.backend(loginPath), "")
	cookies := res.Cookies()
	if len(cookies) != 1 || cookies[0].Name != sessionCookie || cookies[0].SameSite != 0 || !cookies[0].HttpOnly {
		t.Fatalf("cookies %v; want one that leaves SameSite to the browser", cookies)
	}
	send(t, "GET", d.backend(dataPath), "", "Cookie: session=alice")
	if !last(t, d).Cookie {
		t.Error("the session cookie was not recorded")
	}
	send(t, "GET", d.backend(dataPath), "", "Cookie: other=1")
	if last(t, d).Cookie {
		t.Error("a cookie of another name was recorded as the session's")
	}
}

func TestStreamTicksAsItGoes(t *testing.T) {
	d := open(t, gateOrigin)
	began := time.Now()
	res, body := send(t, "GET", d.backend(streamPath), "")
	if got := res.Header.Get("Content-Type"); got != "text/event-stream" {
		t.Errorf("Content-Type is %q", got)
	}
	if got := strings.Count(body, "data: tick "); got != ticks || !strings.HasSuffix(body, "event: done\ndata: done\n\n") {
		t.Errorf("got %q; want %d ticks, then done", body, ticks)
	}
	if took := time.Since(began); took < (ticks-1)*tickEvery {
		t.Errorf("it took %s; want at least %s", took, (ticks-1)*tickEvery)
	}
}

func TestLedgerTellsWhoAskedAndByWhichWay(t *testing.T) {
	d := open(t, gateOrigin)
	send(t, "GET", d.backend(dataPath), "", "Origin: "+d.origins.Stranger, "Sec-Fetch-Site: cross-site")
	e := last(t, d)
	want := Entry{Seq: 1, Time: e.Time, Method: "GET", Path: dataPath, Origin: d.origins.Stranger, Site: "cross-site", Via: "bare", Ran: true, Did: "read the data"}
	if e != want {
		t.Errorf("got %+v\nwant %+v", e, want)
	}
	if age := time.Since(e.Time); age < 0 || age > time.Minute {
		t.Errorf("the time is %s", e.Time)
	}
	send(t, "GET", d.backend(dataPath), "", "X-Forwarded-For: 127.0.0.1", "X-Forwarded-Proto: http", "X-Forwarded-Host: localhost:8080")
	if got := last(t, d).Via; got != "moat" {
		t.Errorf("a forwarded request came via %q; want moat", got)
	}
	long := strings.Repeat("x", 5000)
	send(t, "GET", d.backend(dataPath), "", "Origin: "+long, "Sec-Fetch-Site: "+long)
	if e := last(t, d); len(e.Origin) != 200 || len(e.Site) != 200 {
		t.Errorf("kept %d and %d bytes of two long headers; want 200", len(e.Origin), len(e.Site))
	}
	send(t, "GET", d.backend("/nowhere"), "")
	if got := reading(t, d, "").Seq; got != 3 {
		t.Errorf("a request that reached no handler was recorded as %d", got)
	}
}

func TestLedgerIsReadableFromEveryPageAndNeverStored(t *testing.T) {
	d := open(t, gateOrigin)
	res, _ := send(t, "GET", d.origins.Ledger+"/ledger", "", "Origin: "+d.origins.Stranger)
	if got := res.Header.Get("Access-Control-Allow-Origin"); got != "*" {
		t.Errorf("Access-Control-Allow-Origin is %q; want *", got)
	}
	if got := res.Header.Get("Cache-Control"); got != "no-store" {
		t.Errorf("Cache-Control is %q; want no-store", got)
	}
	if r := reading(t, d, ""); r.Seq != 0 {
		t.Errorf("reading the ledger was recorded: %+v", r.Requests)
	}
}

func TestLedgerTellsWhatIsNew(t *testing.T) {
	d := open(t, gateOrigin)
	for range 3 {
		send(t, "GET", d.backend(dataPath), "")
	}
	if r := reading(t, d, "?since=2"); len(r.Requests) != 1 || r.Requests[0].Seq != 3 {
		t.Errorf("since 2: %+v; want the third", r.Requests)
	}
	if r := reading(t, d, "?since=3"); r.Requests == nil || len(r.Requests) != 0 {
		t.Errorf("since 3: %+v; want an empty list", r.Requests)
	}
	if res, _ := send(t, "GET", d.origins.Ledger+"/ledger?since=-1", ""); res.StatusCode != http.StatusBadRequest {
		t.Errorf("since -1: %s; want 400", res.Status)
	}
}

func TestHistoryIsBounded(t *testing.T) {
	l := newLedger()
	for range historyN + 7 {
		l.note(Entry{Path: dataPath, Ran: true}, "")
	}
	r := l.read(0)
	if len(r.Requests) != historyN || r.Requests[0].Seq != 8 || r.Seq != historyN+7 {
		t.Errorf("%d requests, from %d to %d; want %d, from 8", len(r.Requests), r.Requests[0].Seq, r.Seq, historyN)
	}
	if r.Runs[dataPath] != historyN+7 {
		t.Errorf("%d runs; want all %d", r.Runs[dataPath], historyN+7)
	}
}

func TestReset(t *testing.T) {
	d := open(t, gateOrigin)
	spend := func() {
		send(t, "POST", d.backend(transferPath)+"?to=mallory&amount=50", "")
		send(t, "GET", d.backend(deletePath)+"?id=1", "")
	}
	for _, header := range [][]string{nil, {"Origin: " + d.FriendlyOrigin()}, {"Origin: " + d.origins.Stranger}} {
		spend()
		before := reading(t, d, "")
		if res, body := send(t, "POST", d.origins.Ledger+"/reset", "", header...); res.StatusCode != http.StatusOK {
			t.Fatalf("%v: %s %s", header, res.Status, body)
		}
		r := reading(t, d, "")
		if r.Balances["alice"] != opening || r.Balances["mallory"] != 0 || len(r.Notes) != noteMax || len(r.Runs) != 0 || len(r.Requests) != 0 {
			t.Errorf("%v: after the reset: %+v", header, r)
		}
		if r.Resets != before.Resets+1 || r.Seq != before.Seq {
			t.Errorf("%v: resets %d, seq %d; want %d and the same seq %d", header, r.Resets, r.Seq, before.Resets+1, before.Seq)
		}
	}
	spend()
	for _, origin := range []string{"https://evil.example", "null", d.FriendlyOrigin() + ".evil.example"} {
		if res, _ := send(t, "POST", d.origins.Ledger+"/reset", "", "Origin: "+origin); res.StatusCode != http.StatusForbidden {
			t.Errorf("reset from %s: %s; want 403", origin, res.Status)
		}
	}
	if got := reading(t, d, "").Balances["mallory"]; got != 50 {
		t.Errorf("a refused reset changed mallory's balance to %d", got)
	}
}

func TestPagesAndLedgerServeOnlyTheirOwnHost(t *testing.T) {
	d := open(t, gateOrigin)
	for _, server := range []string{d.origins.Ledger, d.origins.Friendly, d.origins.Stranger} {
		u, err := url.Parse(server)
		if err != nil {
			t.Fatal(err)
		}
		path := "/"
		if server == d.origins.Ledger {
			path = "/ledger"
		}
		for _, host := range []string{"rebound.evil.example:" + u.Port(), "evil.example", "localhost.evil.example:" + u.Port(), "localhost"} {
			if res, body := send(t, "GET", server+path, "", "Host: "+host); res.StatusCode != http.StatusMisdirectedRequest || strings.Contains(body, "alice") {
				t.Errorf("%s, Host %s: %s; want 421", server, host, res.Status)
			}
		}
		other := "127.0.0.1:" + u.Port()
		if u.Hostname() == "127.0.0.1" {
			other = "localhost:" + u.Port()
		}
		res, _ := send(t, "GET", server+path, "", "Host: "+other)
		if got := res.Header.Get("Location"); res.StatusCode != http.StatusTemporaryRedirect || got != server+path {
			t.Errorf("Host %s: %s to %q; want a redirect to %s", other, res.Status, got, server+path)
		}
	}
}

func TestPagesLoadNothingButTheirOwnFiles(t *testing.T) {
	d := open(t, gateOrigin)
	for server, name := range map[string]string{d.origins.Friendly: "friendly", d.origins.Stranger: "stranger"} {
		res, page := send(t, "GET", server+"/", "")
		csp := res.Header.Get("Content-Security-Policy")
		for _, want := range []string{"default-src 'none'", "script-src 'self';", "style-src 'self';", "connect-src " + gateOrigin + " " + d.origins.Backend + " " + d.origins.Ledger + ";"} {
			if !strings.Contains(csp, want) {
				t.Errorf("%s: the policy lacks %q: %s", name, want, csp)
			}
		}
		for _, want := range []string{`data-gate="` + gateOrigin + `"`, `data-backend="` + d.origins.Backend + `"`, `data-ledger="` + d.origins.Ledger + `"`} {
			if !strings.Contains(page, want) {
				t.Errorf("%s: the page lacks %s", name, want)
			}
		}
		for file, media := range map[string]string{
			name + ".js": "text/javascript; charset=utf-8", "common.js": "text/javascript; charset=utf-8",
			"style.css": "text/css; charset=utf-8", name + ".svg": "image/svg+xml",
		} {
			res, body := send(t, "GET", server+"/"+file, "")
			if got := res.Header.Get("Content-Type"); res.StatusCode != http.StatusOK || got != media {
				t.Errorf("%s: %s, %q; want 200, %q", file, res.Status, got, media)
			}
			// The namespace of an SVG is a name, not an address.
			if strings.Contains(strings.ReplaceAll(body, "http://www.w3.org/2000/svg", ""), "://") {
				t.Errorf("%s: refers to another server", file)
			}
		}
		for _, path := range []string{"/stranger.html", "/nothing.js", "/page", "/..%2fpage.go"} {
			if res, _ := send(t, "GET", server+path, ""); res.StatusCode != http.StatusNotFound {
				t.Errorf("%s%s: %s; want 404", server, path, res.Status)
			}
		}
	}
}

func TestAddresses(t *testing.T) {
	d := open(t, gateOrigin)
	a := d.Addresses()
	if a.Gate != "localhost:8080" || a.Admin != "127.0.0.1:9090" {
		t.Errorf("gate %q, admin %q", a.Gate, a.Admin)
	}
	for name, address := range map[string]string{"backend": a.Backend, "ledger": a.Ledger, "friendly": a.Friendly} {
		if !strings.HasPrefix(address, "localhost:") {
			t.Errorf("%s is at %s; want localhost", name, address)
		}
	}
	if !strings.HasPrefix(a.Stranger, "127.0.0.1:") {
		t.Errorf("the stranger is at %s; want 127.0.0.1, another site than localhost", a.Stranger)
	}
	if d.FriendlyOrigin() != "http://"+a.Friendly {
		t.Errorf("the friendly origin is %s", d.FriendlyOrigin())
	}
	if res, _ := send(t, "GET", d.BackendURL()+dataPath, ""); res.StatusCode != http.StatusOK {
		t.Errorf("%s: %s", d.BackendURL(), res.Status)
	}
}

func TestGateMustBeAnOriginOfAnotherSiteThanTheStranger(t *testing.T) {
	for gate, want := range map[string]string{
		"":                               "not an origin",
		"localhost:8080":                 "not an origin",
		"http://localhost:8080/":         "not an origin",
		"http://u:p@localhost:8080":      "not an origin",
		"ftp://localhost:8080":           "not an origin",
		"http://LOCALHOST:8080":          "not an origin",
		"http://localhost:8080; img *":   "demo: gate",
		"http://localhost:8080'unsafe-x": "demo: gate",
		"http://127.0.0.1:8080":          "must be of another site",
	} {
		d, err := Start(Options{Gate: gate, AnyPort: true})
		if err == nil {
			d.Close()
			t.Errorf("gate %q was accepted", gate)
		} else if !strings.Contains(err.Error(), want) {
			t.Errorf("gate %q: %v; want %q", gate, err, want)
		}
	}
}

// freePort returns a port that was free a moment ago.
func freePort(t *testing.T) int {
	t.Helper()
	l, err := listenOn(t.Context(), "localhost", 0)
	if err != nil {
		t.Fatal(err)
	}
	defer l.close()
	n, err := strconv.Atoi(l.port)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestPreferredPortIsUsedIfFree(t *testing.T) {
	port := freePort(t)
	l, err := listen(t.Context(), "localhost", port)
	if err != nil {
		t.Fatal(err)
	}
	defer l.close()
	if want := "localhost:" + strconv.Itoa(port); l.address != want {
		t.Errorf("listens on %s; want %s", l.address, want)
	}
}

func TestBusyPortFallsBack(t *testing.T) {
	taken := []string{"127.0.0.1:0"}
	if hasIPv6(t.Context()) {
		// The dev server that was left running: ::1 alone is taken.
		taken = append(taken, "[::1]:0")
	}
	for _, address := range taken {
		other, err := new(net.ListenConfig).Listen(t.Context(), "tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer other.Close()
		_, port, err := net.SplitHostPort(other.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		n, err := strconv.Atoi(port)
		if err != nil {
			t.Fatal(err)
		}
		d, err := start(Options{Gate: gateOrigin}, ports{friendly: n})
		if err != nil {
			t.Fatalf("%s taken: %v", address, err)
		}
		if d.Addresses().Friendly == "localhost:"+port {
			t.Errorf("the friendly page is on port %s, half of which is somebody else's", port)
		}
		res, _ := send(t, "GET", d.backend(dataPath), "", "Origin: "+d.FriendlyOrigin())
		if got := res.Header.Get("Access-Control-Allow-Origin"); got != d.FriendlyOrigin() {
			t.Errorf("CORS names %q; want the page's real origin %s", got, d.FriendlyOrigin())
		}
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestDefaultPortsOrOthers(t *testing.T) {
	// Whatever runs on this machine, starting twice succeeds.
	for range 2 {
		d, err := Start(Options{Gate: gateOrigin})
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		if res, _ := send(t, "GET", d.origins.Friendly+"/", ""); res.StatusCode != http.StatusOK {
			t.Errorf("%s: %s", d.origins.Friendly, res.Status)
		}
	}
}

func TestCloseLeavesNothingListening(t *testing.T) {
	d, err := Start(Options{Gate: gateOrigin, AnyPort: true})
	if err != nil {
		t.Fatal(err)
	}
	// A stream under way and a connection that says nothing do not hold it up.
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, "GET", d.backend(streamPath), nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := client(t).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	silent, err := new(net.Dialer).DialContext(ctx, "tcp", d.Addresses().Stranger)
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()

	began := time.Now()
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("Close took %s", took)
	}
	if body, _ := io.ReadAll(res.Body); strings.Contains(string(body), "event: done") {
		t.Error("Close waited for the stream")
	}
	a := d.Addresses()
	for _, address := range []string{a.Backend, a.Ledger, a.Friendly, a.Stranger} {
		if conn, err := new(net.Dialer).DialContext(ctx, "tcp", address); err == nil {
			conn.Close()
			t.Errorf("%s still listens", address)
		}
	}
	if err := d.Close(); err != nil {
		t.Errorf("the second Close: %v", err)
	}
	// A goroutine whose connection is closed takes a moment to end.
	stacks := make([]byte, 1<<20)
	running := func() string {
		stacks = stacks[:runtime.Stack(stacks[:cap(stacks)], true)]
		for _, f := range []string{"demo.(*Demo)", "demo.backend", "http.(*Server)"} {
			if strings.Contains(string(stacks), f) {
				return f
			}
		}
		return ""
	}
	for end := time.Now().Add(30 * time.Second); running() != ""; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s still runs after Close:\n%s", running(), stacks)
		}
	}
}

func TestGuide(t *testing.T) {
	d := open(t, gateOrigin)
	var b strings.Builder
	if err := d.Guide(&b); err != nil {
		t.Fatal(err)
	}
	text := b.String()
	t.Log("\n" + text)
	if lines := strings.Count(text, "\n"); lines > 25 {
		t.Errorf("%d lines; want at most 25", lines)
	}
	for _, want := range []string{
		d.origins.Stranger, d.origins.Friendly, d.origins.Ledger + "/ledger", "127.0.0.1:9090",
		"curl " + d.origins.Backend + "/api/data", "curl " + gateOrigin + "/api/data",
		"curl -H 'Origin: " + d.origins.Stranger + "' " + gateOrigin + "/api/data",
		"curl -H 'Origin: " + d.origins.Friendly + "' " + gateOrigin + "/api/data",
		"moat why <id>",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the guide lacks %q", want)
		}
	}
}
