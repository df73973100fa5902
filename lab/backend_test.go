package lab

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"
)

// caller makes real requests at a lab's listener, whatever their host is.
type caller struct {
	t testing.TB
	l *Lab
	// v is whose world it calls.
	v       *visitor
	address string
}

func newCaller(t testing.TB, l *Lab, v *visitor) *caller {
	t.Helper()
	u, err := url.Parse(v.origins[RoleAPI])
	if err != nil {
		t.Fatal(err)
	}
	return &caller{t, l, v, "127.0.0.1:" + u.Port()}
}

// reply is an answer that has been read.
type reply struct {
	status int
	header http.Header
	body   string
}

func (c *caller) send(method, target, body string, header ...string) (*http.Response, error) {
	target = c.l.o.Names.fill(target, c.v.id)
	u, err := url.Parse(target)
	if err != nil {
		return nil, err
	}
	r, err := http.NewRequestWithContext(c.t.Context(), method, "http://"+c.address+u.RequestURI(), strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	r.Host = u.Host
	for i := 0; i < len(header); i += 2 {
		r.Header.Add(header[i], c.l.o.Names.fill(header[i+1], c.v.id, "{session}", c.v.session, "{csrf}", c.v.csrf))
	}
	client := http.Client{
		Transport:     &http.Transport{DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Timeout:       20 * time.Second,
	}
	return client.Do(r)
}

func (c *caller) call(method, target, body string, header ...string) reply {
	c.t.Helper()
	res, err := c.send(method, target, body, header...)
	if err != nil {
		c.t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		c.t.Error(err)
	}
	return reply{res.StatusCode, res.Header, string(b)}
}

// did are the texts of what has run in a run.
func did(v *visitor, run int) []string {
	var all []string
	for _, e := range v.ledger.of(run) {
		if e.Kind == eventRan {
			all = append(all, e.Did)
		}
	}
	return all
}

const session = "session={session}"

// TestEndpoints has each endpoint of the table in backend.go: what it answers, and whether
// the ledger says that it ran.
func TestEndpoints(t *testing.T) {
	l := open(t)
	c := newCaller(t, l, reader(l))
	form, plain := "application/x-www-form-urlencoded", "text/plain"
	for _, x := range []struct {
		method, path, body string
		header             []string
		status             int
		ran                string // "" if it must not
		says               string // a part of the body, or of the header Location
		alice              int
	}{
		{method: "GET", path: "/data", status: 200, ran: "read the data", says: "copper"},
		{method: "HEAD", path: "/data", status: 200, ran: "read the data"},
		{method: "PUT", path: "/data", body: "{}", status: 200, ran: "read the data"},
		{method: "OPTIONS", path: "/data", status: 204},
		{method: "OPTIONS", path: "/transfer?amount=5", status: 204},
		{method: "OPTIONS", path: "/data", header: []string{"Access-Control-Request-Method", "PUT", "Origin", "{bank}"}, status: 204},
		{method: "GET", path: "/nothing", status: 404},
		{method: "POST", path: "/me", status: 405},

		{method: "GET", path: "/transfer?amount=5", status: 200, ran: "moved 5 from alice to mallory", alice: -5},
		{method: "POST", path: "/transfer", body: "amount=6", header: []string{"Content-Type", form}, status: 200, ran: "moved 6 from alice to mallory", alice: -6},
		{method: "POST", path: "/transfer", body: `{"amount": 7}`, header: []string{"Content-Type", "application/json"}, status: 200, ran: "moved 7 from alice to mallory", alice: -7},
		{method: "POST", path: "/transfer", body: `{"amount": 7}`, header: []string{"Content-Type", plain}, status: 200, ran: "moved 7 from alice to mallory", alice: -7},
		{method: "POST", path: "/transfer", body: `{"amount": "8"}`, status: 200, ran: "moved 8 from alice to mallory", alice: -8},
		{method: "POST", path: "/transfer", body: `{"amount": 7, "note": "="}` + "\r\n", header: []string{"Content-Type", plain}, status: 200, ran: "moved 7 from alice to mallory", alice: -7},
		{method: "POST", path: "/transfer", body: "amount=9\r\n", header: []string{"Content-Type", plain}, status: 200, ran: "moved 9 from alice to mallory", alice: -9},
		{
			method: "POST", path: "/transfer", body: "--x\r\nContent-Disposition: form-data; name=\"amount\"\r\n\r\n10\r\n--x--\r\n",
			header: []string{"Content-Type", "multipart/form-data; boundary=x"}, status: 200, ran: "moved 10 from alice to mallory", alice: -10,
		},
		{method: "POST", path: "/transfer?amount=-5", status: 200, ran: "moved nothing"},
		{method: "POST", path: "/transfer?amount=100000", status: 200, ran: "moved nothing"},
		{method: "POST", path: "/transfer?amount=9223372036854775808", status: 200, ran: "moved nothing"},

		{method: "GET", path: "/me", status: 401, says: "no session"},
		{method: "GET", path: "/me", header: []string{"Cookie", "session=guessed"}, status: 401},
		{method: "GET", path: "/me", header: []string{"Cookie", "other={session}"}, status: 401},
		{method: "GET", path: "/me", header: []string{"Cookie", session}, status: 200, ran: "read alice's balance", says: `"user":"alice"`},
		{method: "GET", path: "/me", header: []string{"Cookie", "a=b; __Host-session={session}"}, status: 200, ran: "read alice's balance"},
		{method: "POST", path: "/account/transfer?amount=5", status: 401},
		{method: "POST", path: "/account/transfer?amount=5", header: []string{"Cookie", session}, status: 200, ran: "moved 5 from alice to mallory", alice: -5},
		{method: "GET", path: "/account/transfer?amount=5", header: []string{"Cookie", session}, status: 200, ran: "moved 5 from alice to mallory", alice: -5},
		{method: "GET", path: "/account/token", status: 401},
		{method: "GET", path: "/account/token", header: []string{"Cookie", session}, status: 200, ran: "gave out the CSRF token", says: c.v.csrf},
		{method: "POST", path: "/account/safe-transfer?amount=5", header: []string{"Cookie", session}, status: 403, says: "no CSRF token"},
		{method: "POST", path: "/account/safe-transfer?amount=5", header: []string{"X-CSRF-Token", "{csrf}"}, status: 401},
		{method: "POST", path: "/account/safe-transfer?amount=5", header: []string{"Cookie", session, "X-CSRF-Token", "guessed"}, status: 403},
		{method: "POST", path: "/account/safe-transfer?amount=5", header: []string{"Cookie", session, "X-CSRF-Token", "{csrf}"}, status: 200, ran: "moved 5 from alice to mallory", alice: -5},
		{
			method: "POST", path: "/account/safe-transfer", body: "amount=5&csrf_token=" + c.v.csrf, header: []string{"Cookie", session, "Content-Type", form},
			status: 200, ran: "moved 5 from alice to mallory", alice: -5,
		},

		{method: "GET", path: "/notes", status: 200, ran: "listed the notes", says: "[1 2 3]"},
		{method: "GET", path: "/notes/delete?id=2", header: []string{"Accept", "image/avif,*/*"}, status: 200, ran: "deleted note 2", says: "<svg"},
		{method: "GET", path: "/notes/delete?id=2", header: []string{"Accept", "text/html,*/*"}, status: 200, ran: "deleted nothing", says: "<p>deleted nothing"},
		{method: "GET", path: "/notes/delete?id=<b>", header: []string{"Accept", "text/html,*/*"}, status: 200, ran: "deleted nothing", says: "&lt;b&gt;"},
		{method: "GET", path: "/notes?as=script", status: 200, ran: "listed the notes", says: "/* alice's notes: [1 3] */"},
		{method: "GET", path: "/notes/3", status: 200, ran: `read note "3"`},
		{method: "POST", path: "/notes/3", body: "text=x", status: 200, ran: `wrote note "3"`},
		{method: "PUT", path: "/notes/3", status: 405},
		{method: "POST", path: "/notes/3", header: []string{"X-HTTP-Method-Override", "DELETE"}, status: 200, ran: "deleted note 3"},
		{method: "POST", path: "/notes/1", body: "_method=delete", header: []string{"Content-Type", form}, status: 200, ran: "deleted note 1"},
		{method: "DELETE", path: "/notes/1", status: 200, ran: "deleted nothing"},

		{method: "GET", path: "/sign-in", status: 200, ran: "signed alice in", says: `["session","__Host-session"]`},
		{method: "GET", path: "/sign-in?back=" + url.QueryEscape("{stranger}/a?b=c#d"), status: 303, ran: "signed alice in", says: "{stranger}/a?b=c#d"},
		{method: "GET", path: "/sign-in?back=https://evil.example/", status: 400},
		{method: "GET", path: "/sign-out", status: 200, ran: "signed alice out", says: "signed out"},
		{method: "GET", path: "/cookie?name=session", status: 200, ran: "sent Set-Cookie", says: `["session"]`},
		{method: "GET", path: "/cookie?name=other", status: 404},
		{method: "GET", path: "/cookies", status: 200, ran: "saw no cookie"},
		{method: "GET", path: "/cookies", header: []string{"Cookie", "a=1; b=2; a=3"}, status: 200, ran: "saw the cookies a, b, a", says: `{"name":"a","value":"3"}`},

		{method: "GET", path: "/redirect?to=" + url.QueryEscape("{gate}/data"), status: 302, ran: "led on", says: "{gate}/data"},
		{method: "POST", path: "/redirect?status=307&to=" + url.QueryEscape("{stranger}/.lab/hop?to=x"), status: 405},
		{method: "GET", path: "/redirect?status=200&to=" + url.QueryEscape("{api}/"), status: 400},

		{method: "GET", path: "/cached", status: 200, ran: "gave answer number 1"},
		{method: "GET", path: "/cached?as=image&max-age=5", status: 200, ran: "gave answer number 2", says: "<svg"},

		{method: "GET", path: "/ws", status: 401},
		{method: "GET", path: "/ws", header: []string{"Cookie", session}, status: 426},
		{method: "GET", path: "/stream", status: 401},
		{method: "HEAD", path: "/stream", header: []string{"Cookie", session}, status: 200},

		{method: "POST", path: "/ask", body: "prompt=why", header: []string{"Content-Type", form}, status: 200, ran: "asked the AI model: call 1, 2 cents in all", says: `\"why\"`},
		{method: "GET", path: "/limited", status: 200, ran: "asked the AI model: call 2"},
		{method: "GET", path: "/limited", status: 200, ran: "asked the AI model: call 3"},
		{method: "GET", path: "/limited", status: 200, ran: "asked the AI model: call 4"},
		{method: "GET", path: "/limited", status: 429, says: "enough"},
		{method: "GET", path: "/limited", header: []string{"X-Forwarded-For", "198.51.100.7, 192.0.2.1"}, status: 200, ran: "asked the AI model: call 5, 10 cents in all"},
	} {
		x.path = l.o.Names.fill(strings.ReplaceAll(x.path, "%7B", "{"), "")
		x.path = strings.ReplaceAll(x.path, "%7D", "}")
		x.path = l.o.Names.fill(x.path, "")
		t.Run(x.method+" "+x.path, func(t *testing.T) {
			run := c.v.ledger.begin()
			c.v.mu.Lock()
			c.v.cookies = []string{"session={session}; Path=/", "__Host-session={session}; Path=/; Secure"}
			c.v.mu.Unlock()
			before := c.v.booksNow().Alice
			got := c.call(x.method, "{api}"+x.path, x.body, x.header...)
			if says := got.body + got.header.Get("Location"); got.status != x.status || !strings.Contains(says, l.o.Names.fill(x.says, "")) {
				t.Errorf("%d %v %s; want %d with %q", got.status, got.header, got.body, x.status, x.says)
			}
			all := did(c.v, run)
			if x.ran == "" && len(all) > 0 || x.ran != "" && (len(all) != 1 || !strings.HasPrefix(all[0], x.ran)) {
				t.Errorf("ran: %q; want %q", all, x.ran)
			}
			if change := c.v.booksNow().Alice - before; change != x.alice {
				t.Errorf("alice's balance changed by %d; want %d", change, x.alice)
			}
			checkLedger(t, c.v.ledger.of(run), 1, got.status)
		})
	}
}

// checkLedger has the events of a run in which requests were made one after another: each
// arrives, may run, and is answered, in that order and with its number.
func checkLedger(t *testing.T, events []Event, requests int, status int) {
	t.Helper()
	var kinds []string
	for i, e := range events {
		kinds = append(kinds, fmt.Sprintf("%d %s", e.Request, e.Kind))
		if i > 0 && e.Seq != events[i-1].Seq+1 {
			t.Errorf("event %d follows %d", e.Seq, events[i-1].Seq)
		}
	}
	kinds = slices.DeleteFunc(kinds, func(k string) bool { return strings.HasSuffix(k, eventRan) || strings.HasSuffix(k, eventGate) })
	var want []string
	for n := range requests {
		want = append(want, fmt.Sprintf("%d %s", n+1, eventArrived), fmt.Sprintf("%d %s", n+1, eventAnswered))
	}
	if !slices.Equal(kinds, want) {
		t.Errorf("the ledger has %v; want %v", kinds, want)
	}
	if a := events[len(events)-1].Answer; a == nil || a.Status != status {
		t.Errorf("the ledger has the answer %+v; want %d", a, status)
	}
}

// TestRedirectsLeadToTheLabOnly: or everybody could use the lab's name to send people away.
func TestRedirectsLeadToTheLabOnly(t *testing.T) {
	l := open(t)
	c := newCaller(t, l, reader(l))
	host := strings.TrimPrefix(l.o.Names.Origin(RoleBank, ""), "http://")
	for _, to := range []string{
		"", "/", "//evil.example/", "https://evil.example/", "https://" + host, "http://" + host + ".evil.example/", "http://" + host + "@evil.example/", "http://a@" + host + "/",
		"http://evil.example\\@" + host, "http://" + host + "\\@evil.example", "javascript:alert(1)", "data:text/html,x", "http:" + host, " http://evil.example/", "http://bank.localhost/",
		"http://" + host + "\r\nSet-Cookie: a=b", "ftp://" + host + "/",
	} {
		for _, at := range []string{"{api}/redirect?to=", "{api}/sign-in?back=", "{api}/sign-out?back=", "{stranger}/.lab/hop?to=", "{blog}/.lab/hop?status=307&to="} {
			if to == "" && strings.Contains(at, "back") {
				continue // then it leads nowhere
			}
			got := c.call("GET", at+url.QueryEscape(to), "")
			if got.status != http.StatusBadRequest || got.header.Get("Location") != "" {
				t.Errorf("%s%q: %d, Location %q", at, to, got.status, got.header.Get("Location"))
			}
		}
	}
}

// TestHopMayBeFollowedByEveryOrigin: the stranger's redirect may be followed by every origin.
func TestHopMayBeFollowedByEveryOrigin(t *testing.T) {
	l := open(t)
	c := newCaller(t, l, reader(l))
	got := c.call("POST", l.o.Names.fill("{stranger}/.lab/hop?status=308&to=", "")+url.QueryEscape(l.o.Names.fill("{api}/data", "")), "x", "Origin", "{bank}", "Sec-Fetch-Site", "cross-site")
	if got.status != 308 || got.header.Get("Location") != l.o.Names.fill("{api}/data", "") || got.header.Get("Access-Control-Allow-Origin") != l.o.Names.fill("{bank}", "") {
		t.Errorf("%d %v", got.status, got.header)
	}
	got = c.call("OPTIONS", "{stranger}/.lab/hop?to=x", "", "Origin", "{bank}", "Access-Control-Request-Method", "PUT", "Access-Control-Request-Headers", "authorization")
	if got.status != 204 || got.header.Get("Access-Control-Allow-Methods") != "PUT" || got.header.Get("Access-Control-Allow-Headers") != "authorization" {
		t.Errorf("%d %v", got.status, got.header)
	}
}

// TestRulesAreTheMiddlewares: what the run's rules say is on every answer, also on those
// of handlers that set a status or a field themselves.
func TestRulesAreTheMiddlewares(t *testing.T) {
	l := open(t)
	c := newCaller(t, l, reader(l))
	var answers Answers
	if err := json.Unmarshal([]byte(`[
		{"headers": [["Vary", "Origin"]]},
		{"on": "actual", "origin": ["`+l.o.Names.Origin(RoleBank, "")+`"], "headers": [["Access-Control-Allow-Origin", "{origin}"]]},
		{"on": "preflight", "status": 200, "headers": [["Access-Control-Allow-Methods", "PUT"]]},
		{"path": "/cookie", "headers": [["Set-Cookie", "a=b; SameSite=None"]]},
		{"path": "/data", "on": "actual", "status": 404}
	]`), &answers); err != nil {
		t.Fatal(err)
	}
	c.v.begin(answers.Rules, nil)
	got := c.call("GET", "{api}/cached", "", "Origin", "{bank}")
	if h := got.header; h.Get("Vary") != "Origin" || h.Get("Access-Control-Allow-Origin") != l.o.Names.Origin(RoleBank, "") || h.Get("Cache-Control") != "max-age=60" {
		t.Errorf("/cached: %v", h)
	}
	if got = c.call("GET", "{api}/cached", "", "Origin", "{blog}"); got.header.Get("Access-Control-Allow-Origin") != "" || got.header.Get("Vary") != "Origin" {
		t.Errorf("/cached for the blog: %v", got.header)
	}
	if got = c.call("OPTIONS", "{api}/data", "", "Origin", "{bank}", "Access-Control-Request-Method", "PUT"); got.status != 200 || got.header.Get("Access-Control-Allow-Methods") != "PUT" {
		t.Errorf("preflight: %d %v", got.status, got.header)
	}
	if got = c.call("GET", "{api}/cookie", ""); got.header.Get("Set-Cookie") != "a=b; SameSite=None" {
		t.Errorf("/cookie: %v", got.header)
	}
	if got = c.call("GET", "{api}/data", ""); got.status != 404 || !strings.Contains(got.body, "copper") {
		t.Errorf("/data: %d %s", got.status, got.body)
	}
}

// TestHostileRequestsAreAnswered: whatever comes is answered with 4xx or done, noted once
// and in order, and the next request is served as ever.
func TestHostileRequestsAreAnswered(t *testing.T) {
	l := open(t)
	c := newCaller(t, l, reader(l))
	host := strings.TrimPrefix(c.v.origins[RoleAPI], "http://")
	deep := strings.Repeat(`{"amount":`, 6000) + "1" + strings.Repeat("}", 6000)
	parts := strings.Repeat("--x\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n\r\n", 1000) + "--x--\r\n"
	for _, head := range []string{
		"TRACE /transfer?amount=1 HTTP/1.1\r\n",
		"M-SEARCH * HTTP/1.1\r\n",
		"GET //evil.example/ HTTP/1.1\r\n",
		"GET /a/../../data HTTP/1.1\r\n",
		"GET /%00%ff%2e%2e HTTP/1.1\r\n",
		"GET /notes/%2e%2e%2fdata HTTP/1.1\r\n",
		"GET http://evil.example/data HTTP/1.1\r\n",
		"GET /data?" + strings.Repeat("a&", 20000) + " HTTP/1.1\r\n",
		"GET /data?;%zz HTTP/1.1\r\n",
		"GET /proxy?url=%00 HTTP/1.1\r\n",
		"GET /proxy?url=http%3A%2F%2Frates.example%2Fmoved%3Fto%3Dhttp%3A%2F%2Fa%2520b%2F HTTP/1.1\r\n",
		"GET /redirect?to=%0d%0aSet-Cookie:a HTTP/1.1\r\n",
		"GET /cached?max-age=-1 HTTP/1.1\r\n",
		"GET /cached?as=..%2f HTTP/1.1\r\n",
		"GET /limited HTTP/1.1\r\nX-Forwarded-For: " + strings.Repeat(",", 5000) + "\r\n",
		"GET /cookies HTTP/1.1\r\nCookie: " + strings.Repeat("a=b; ", 5000) + "\r\n",
		"GET /me HTTP/1.1\r\nCookie: \xff\xfe=\x80\r\nOrigin: \xff\r\n",
		"GET /ws HTTP/1.1\r\nCookie: session=" + c.v.session + "\r\nUpgrade: websocket\r\nConnection: upgrade\r\n",
		"OPTIONS * HTTP/1.1\r\nAccess-Control-Request-Method: PUT\r\n",
		"OPTIONS /data HTTP/1.1\r\nAccess-Control-Request-Method: \x7f\r\n",
		"POST /transfer HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: " + fmt.Sprint(len(deep)) + "\r\n\r\n" + deep,
		"POST /transfer HTTP/1.1\r\nContent-Type: multipart/form-data; boundary=x\r\nContent-Length: " + fmt.Sprint(len(parts)) + "\r\n\r\n" + parts,
		"POST /transfer HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
		"POST /ask HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n\xff\xff\xff\xff\xff",
	} {
		c.v.begin(nil, []string{"bad\r\nX: y", "=", ""})
		line, rest, _ := strings.Cut(head, "\r\n")
		if !strings.Contains(rest, "\r\n\r\n") {
			rest += "\r\n"
		}
		conn, err := (&net.Dialer{Timeout: 5 * time.Second}).DialContext(t.Context(), "tcp", c.address)
		if err != nil {
			t.Fatal(err)
		}
		if err = conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if _, err = fmt.Fprintf(conn, "%s\r\nHost: %s\r\nConnection: close\r\n%s", line, host, rest); err != nil {
			t.Fatal(err)
		}
		answers := bufio.NewReader(conn)
		res, err := http.ReadResponse(answers, nil)
		for err == nil && res.StatusCode == http.StatusContinue {
			res, err = http.ReadResponse(answers, nil)
		}
		if err != nil {
			t.Errorf("%.60q: %v", line, err)
			continue
		}
		if res.StatusCode >= 500 && !strings.Contains(line, "/proxy") {
			t.Errorf("%.60q: %s", line, res.Status)
		}
		if to := res.Header.Get("Location"); strings.HasPrefix(to, "//") || strings.HasPrefix(to, "http") {
			t.Errorf("%.60q: leads to %q", line, to)
		}
		res.Body.Close()
		conn.Close()
		events := c.v.ledger.of(c.v.ledger.run)
		if len(events) > 0 { // net/http itself refuses some
			checkLedger(t, events, 1, res.StatusCode)
		}
		if _, err := json.Marshal(events); err != nil {
			t.Errorf("%.60q: %v", line, err)
		}
	}
	if got := c.call("GET", "{api}/sign-in", ""); got.status != 200 || got.header.Get("X") != "" {
		t.Errorf("sign-in with lines that are no cookies: %d %v", got.status, got.header)
	}
	if got := c.call("GET", "{api}/data", ""); got.status != 200 {
		t.Errorf("after all that: %d", got.status)
	}
}
