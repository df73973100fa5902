package config

import (
	"bufio"
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/moat-gateway/moat/gateway"
)

const vectorSecret = "a secret that is only in this test, and long enough"

// vectorGate has something for each guard to refuse.
const vectorGate = `version: 1
public_origins: [http://api.localhost]
upstreams: {app: {url: "UPSTREAM"}}
auth:
  accounts: {jwt: {issuer: accounts, audience: api, algorithms: HS256, secrets: "${env:VECTOR_SECRET}"}}
tickets: {}
csrf: {session_cookies: [sid]}
budgets: {day: {by: address, per: day, requests: 1}}
store: {file: moat.db}
rate_limits:
  once: {limit: 1/h burst 1, by: address}
policies:
  pages: {origins: [https://app.example], methods: [GET, POST], limits: {body_bytes: 1KiB}}
routes:
  - {match: /pages/, name: pages, upstream: app, auth: public, policy: pages}
  - {match: /open/, name: open, upstream: app, auth: public, browserless: allow, methods: [GET]}
  - {match: /lenient/, name: lenient, upstream: app, auth: public, methods: [GET], modes: {cors: report, cross_site: report, bounds: report}}
  - {match: /ticket/, name: ticket, upstream: app, auth: public, policy: pages, tickets: require, browserless: allow}
  - {match: /scoped/, name: scoped, upstream: app, auth: accounts, browserless: allow, authorize: {scopes: [write]}}
  - {match: /claimed/, name: claimed, upstream: app, auth: accounts, browserless: allow, authorize: {scopes: [read], if: principal.claims.org == "acme"}}
  - {match: /roles/, name: roles, upstream: app, auth: accounts, browserless: allow, authorize: {roles: admin}}
  - {match: /session/, name: session, upstream: app, auth: public, browserless: allow, methods: [POST]}
  - {match: /json/, name: json, upstream: app, auth: public, browserless: allow, body: {json: strict}}
  - {match: /spending/, name: spending, upstream: app, auth: public, browserless: allow, budgets: day}
  - {match: /limited/, name: limited, upstream: app, auth: public, browserless: allow, rate_limits: once}
  - {match: /fetch, name: fetch, auth: public, browserless: allow, fetch: {hosts: [data.example]}}
`

func vectorOptions() Options {
	return Options{Getenv: func(name string) (string, bool) { return vectorSecret, name == "VECTOR_SECRET" }}
}

// liveGate is a gate that serves, and what its operator sees.
type liveGate struct {
	t     *testing.T
	text  string
	gate  *httptest.Server
	admin *httptest.Server
	log   *syncBuffer
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func startGate(t *testing.T) *liveGate {
	t.Helper()
	return startGateOf(t, vectorGate)
}

func startGateOf(t *testing.T, text string) *liveGate {
	t.Helper()
	up := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	t.Cleanup(up.Close)
	l := &liveGate{t: t, text: strings.Replace(text, "UPSTREAM", up.URL, 1), log: new(syncBuffer)}
	loaded, err := Parse("moat.yaml", []byte(l.text), vectorOptions())
	if err != nil {
		t.Fatal(err)
	}
	g, err := gateway.New(loaded.Gateway, slog.New(slog.NewJSONHandler(l.log, &slog.HandlerOptions{Level: slog.LevelDebug})))
	if err != nil {
		t.Fatal(err)
	}
	l.gate, l.admin = httptest.NewServer(g), httptest.NewServer(g.Admin(false))
	t.Cleanup(l.gate.Close)
	t.Cleanup(l.admin.Close)
	return l
}

// send sends lines as they are, with Host and the connection's end added, and returns the id of
// the refusal, or "" if there is none.
func (l *liveGate) send(lines ...string) string {
	l.t.Helper()
	var d net.Dialer
	conn, err := d.DialContext(l.t.Context(), "tcp", strings.TrimPrefix(l.gate.URL, "http://"))
	if err != nil {
		l.t.Fatal(err)
	}
	defer conn.Close()
	head, body, _ := strings.Cut(strings.Join(lines[1:], "\r\n"), "\r\n\r\n")
	if !strings.HasPrefix(head, "Host:") {
		head = strings.TrimSuffix("Host: api.localhost\r\n"+head, "\r\n")
	}
	fmt.Fprintf(conn, "%s\r\n%s\r\nConnection: close\r\n\r\n%s", lines[0], head, body)
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		l.t.Fatalf("%q: %v", lines, err)
	}
	defer res.Body.Close()
	var problem struct{ ID string }
	text, err := io.ReadAll(res.Body)
	if err != nil {
		l.t.Fatal(err)
	}
	if res.StatusCode < 300 {
		return ""
	}
	if err := json.Unmarshal(text, &problem); err != nil || problem.ID == "" {
		l.t.Fatalf("%q: %d %s", lines, res.StatusCode, text)
	}
	return problem.ID
}

// ask reads what the admin listener tells.
func (l *liveGate) ask(path string) string {
	l.t.Helper()
	req, err := http.NewRequestWithContext(l.t.Context(), http.MethodGet, l.admin.URL+path, http.NoBody)
	if err != nil {
		l.t.Fatal(err)
	}
	res, err := l.admin.Client().Do(req)
	if err != nil {
		l.t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		l.t.Fatalf("%s: %d %s %v", path, res.StatusCode, text, err)
	}
	return string(text)
}

type explained struct {
	gateway.Record
	Reproduction gateway.Reproduction `json:"reproduction"`
}

func (l *liveGate) explain(id string) (d explained) {
	l.t.Helper()
	if err := json.Unmarshal([]byte(l.ask("/decisions/"+id)), &d); err != nil {
		l.t.Fatal(err)
	}
	return d
}

// token is a token of the issuer accounts.
func vectorToken(t *testing.T, claims string) string {
	t.Helper()
	enc := base64.RawURLEncoding
	text := enc.EncodeToString([]byte(`{"alg":"HS256"}`)) + "." +
		enc.EncodeToString(fmt.Appendf(nil, `{"iss":"accounts","aud":"api","sub":"alice","exp":%d,%s}`, time.Now().Add(time.Hour).Unix(), claims))
	mac := hmac.New(sha256.New, []byte(vectorSecret))
	mac.Write([]byte(text))
	return text + "." + enc.EncodeToString(mac.Sum(nil))
}

// TestVectorsReproduceWhatWasRefused: what a real gate has refused on the wire is refused for
// the same reason by moat check, once its vector is in the configuration's tests.
func TestVectorsReproduceWhatWasRefused(t *testing.T) {
	l := startGate(t)
	bearer := "Authorization: Bearer " + vectorToken(t, `"scope":"read","roles":["user"]`)
	var tests strings.Builder
	n := 0
	for _, x := range []struct {
		code  string
		lines []string
	}{
		{"host-not-allowed", []string{"GET /pages/ HTTP/1.1", "Host: evil.test"}},
		{"path-ambiguous", []string{"GET /pages/%2e%2e/admin HTTP/1.1"}},
		{"path-ambiguous", []string{"GET /pages/a%2Fb HTTP/1.1"}},
		{"route-not-found", []string{"GET /nowhere?x=1 HTTP/1.1"}},
		{"cors-origin-not-allowed", []string{"GET /pages/1?q=secret HTTP/1.1", "Origin: https://evil.test"}},
		{"cors-origin-malformed", []string{"GET /pages/ HTTP/1.1", "Origin: https://evil.test/'; echo \"$HOME\" #"}},
		{"cors-method-not-allowed", []string{"OPTIONS /pages/ HTTP/1.1", "Origin: https://app.example", "Access-Control-Request-Method: PATCH"}},
		{"cors-header-not-allowed", []string{"OPTIONS /pages/ HTTP/1.1", "Origin: https://app.example", "Access-Control-Request-Method: GET", "Access-Control-Request-Headers: x-other"}},
		{"method-not-allowed", []string{"DELETE /open/1 HTTP/1.1"}},
		{"method-override", []string{"POST /pages/ HTTP/1.1", "Sec-Fetch-Site: same-origin", "X-HTTP-Method-Override: DELETE", "Content-Length: 0"}},
		{"body-too-large", []string{"POST /pages/ HTTP/1.1", "Sec-Fetch-Site: same-origin", "Content-Length: 2048"}},
		{"cross-site-request", []string{"POST /pages/ HTTP/1.1", "Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: no-cors", "Content-Length: 0"}},
		{"cross-site-browserless", []string{"GET /pages/ HTTP/1.1", "User-Agent: curl/8"}},
		{"cross-site-opaque-origin", []string{"POST /open/ HTTP/1.1", "Origin: null", "Sec-Fetch-Site: cross-site"}},
		{"cross-site-websocket", []string{"GET /open/ws HTTP/1.1", "Origin: https://evil.test", "Upgrade: websocket", "Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: websocket"}},
		{"ticket-missing", []string{"GET /ticket/ HTTP/1.1"}},
		{"body-type-not-allowed", []string{"POST /json/ HTTP/1.1", "Content-Type: text/plain", "Content-Length: 2", "\r\n{}"}},
		{"body-encoded", []string{"POST /json/ HTTP/1.1", "Content-Type: application/json", "Content-Encoding: gzip", "Content-Length: 2", "\r\n{}"}},
		{"credentials-missing", []string{"GET /scoped/ HTTP/1.1"}},
		{"authorization-scope-missing", []string{"GET /scoped/ HTTP/1.1", bearer}},
		{"authorization-role-missing", []string{"GET /roles/ HTTP/1.1", bearer}},
	} {
		d := l.explain(l.send(x.lines...))
		if d.Code != x.code {
			if d.Code == "cors-origin-not-allowed" { // CORS stands before the cross-site check
				t.Logf("%q: %s", x.lines, d.Code)
			} else {
				t.Errorf("%q: refused for %s; want %s", x.lines, d.Code, x.code)
			}
		}
		if !d.Reproduction.Same || d.Reproduction.Test == "" {
			t.Errorf("%s: is not had again: %s\n%s", d.Code, d.Reproduction.Because, d.Reproduction.Curl)
			continue
		}
		if !strings.Contains(d.Reproduction.Test, "expect: "+d.Code+"\n") || len(d.Reproduction.Trail) == 0 && d.Step != "host" && d.Step != "route" {
			t.Errorf("%s: %s, %+v", d.Code, d.Reproduction.Test, d.Reproduction.Trail)
		}
		tests.WriteString(d.Reproduction.Test)
		n++
	}
	// What was only reported passes, and is reported again.
	for code, lines := range map[string][]string{
		"cors-origin-not-allowed": {"GET /lenient/ HTTP/1.1", "Origin: https://evil.test"},
		"cross-site-browserless":  {"GET /lenient/ HTTP/1.1"},
		"method-not-allowed":      {"PUT /lenient/ HTTP/1.1", "Sec-Fetch-Site: same-origin", "Content-Length: 0"},
	} {
		if id := l.send(lines...); id != "" {
			t.Fatalf("%q: refused", lines)
		}
		var found []gateway.Record
		if err := json.Unmarshal([]byte(l.ask("/decisions?mode=report&reason="+code)), &found); err != nil || len(found) != 1 {
			t.Fatalf("%s: %d records, %v", code, len(found), err)
		}
		d := l.explain(found[0].ID)
		if !d.Reproduction.Same || !strings.Contains(d.Reproduction.Test, "expect: allow\n    reports: "+code+"\n") {
			t.Errorf("reported %s: %+v", code, d.Reproduction)
		}
		tests.WriteString(d.Reproduction.Test)
		n++
	}
	failed := l.check(tests.String())
	if len(failed) != n {
		t.Fatalf("%d tests; want %d", len(failed), n)
	}
	for _, err := range failed {
		if err != nil {
			t.Error(err)
		}
	}
}

// TestVectorsOfBots: what a request's head gives away is had again.
func TestVectorsOfBots(t *testing.T) {
	l := startGateOf(t, `version: 1
public_origins: [http://api.localhost]
upstreams: {app: {url: "UPSTREAM"}}
bots: {slow: off, deny: 40}
policies: {any: {browserless: allow}}
routes:
  - {match: /, name: all, upstream: app, auth: public, policy: any}
  - {match: /lenient/, name: lenient, upstream: app, auth: public, policy: any, modes: {bot: report}}
`)
	headless := "User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) HeadlessChrome/156.0.0.0 Safari/537.36"
	d := l.explain(l.send("GET / HTTP/1.1", headless))
	if d.Code != "bot-denied" || !d.Reproduction.Same || !strings.Contains(d.Reproduction.Test, "expect: bot-denied\n") {
		t.Errorf("%s: %+v", d.Code, d.Reproduction)
	}
	tests := d.Reproduction.Test
	if id := l.send("GET /lenient/ HTTP/1.1", headless); id != "" {
		t.Fatal("refused")
	}
	var found []gateway.Record
	if err := json.Unmarshal([]byte(l.ask("/decisions?mode=report")), &found); err != nil || len(found) != 1 {
		t.Fatalf("%d records, %v", len(found), err)
	}
	d = l.explain(found[0].ID)
	if !d.Reproduction.Same || !strings.Contains(d.Reproduction.Test, "reports: bot-denied\n") {
		t.Errorf("%s: %+v", d.Code, d.Reproduction)
	}
	tests += d.Reproduction.Test
	if id := l.send("GET / HTTP/1.1", "User-Agent: my program", "Accept: */*"); id != "" {
		t.Fatal("refused")
	}
	if err := json.Unmarshal([]byte(l.ask("/decisions?reason=bot-suspected&mode=enforce")), &found); err != nil || len(found) != 1 {
		t.Fatalf("%d records, %v", len(found), err)
	}
	if d = l.explain(found[0].ID); d.Reproduction.Same || !strings.HasPrefix(d.Reproduction.Because, "The request went on.") {
		t.Errorf("%s: %+v", d.Code, d.Reproduction)
	}
	failed := l.check(tests)
	if len(failed) != 2 || failed[0] != nil || failed[1] != nil {
		t.Error(failed)
	}
}

// check runs tests under the gate's configuration, as moat check does.
func (l *liveGate) check(tests string) (failed []error) {
	l.t.Helper()
	loaded, err := Parse("moat.yaml", []byte(l.text+"tests:\n"+tests), vectorOptions())
	if err != nil {
		l.t.Fatalf("%v\n%s", err, tests)
	}
	g, err := gateway.New(loaded.Gateway, nil)
	if err != nil {
		l.t.Fatal(err)
	}
	for _, test := range loaded.Tests {
		failed = append(failed, test.Run(g))
	}
	return failed
}

// TestVectorsAreNotMadeUp: what cannot be had on paper has no test, and says why.
func TestVectorsAreNotMadeUp(t *testing.T) {
	l := startGate(t)
	l.send("GET /limited/ HTTP/1.1")
	l.send("GET /spending/ HTTP/1.1")
	for code, lines := range map[string][]string{
		"rate-limited":                  {"GET /limited/ HTTP/1.1"},
		"budget-spent":                  {"GET /spending/ HTTP/1.1"},
		"body-malformed":                {"POST /json/ HTTP/1.1", "Content-Type: application/json", "Content-Length: 14", "\r\n{\"a\":1,\"a\":22}"},
		"token-malformed":               {"GET /scoped/ HTTP/1.1", "Authorization: Bearer nonsense"},
		"ticket-malformed":              {"GET /ticket/ HTTP/1.1", "Moat-Ticket: nonsense"},
		"csrf-token-missing":            {"POST /session/ HTTP/1.1", "Cookie: sid=1", "Content-Length: 0"},
		"egress-not-allowed":            {"GET /fetch?url=https://evil.test/ HTTP/1.1"},
		"authorization-condition-false": {"GET /claimed/ HTTP/1.1", "Authorization: Bearer " + vectorToken(t, `"scope":"read","org":"other"`)},
		// Somebody who pastes this must not have a file of his read.
		"cors-origin-not-allowed": {"GET /pages/ HTTP/1.1", "Origin: ${file:/etc/passwd}"},
	} {
		d := l.explain(l.send(lines...))
		if d.Code != code {
			t.Errorf("%q: refused for %s; want %s", lines, d.Code, code)
		}
		if r := d.Reproduction; r.Same || r.Test != "" || r.Because == "" || strings.Contains(r.Curl, "${") {
			t.Errorf("%s: %+v", code, r)
		} else if step := d.Step; (step == "rate_limit" || step == "budget" || step == "body") && !strings.HasPrefix(r.Because, "No test can have it again. It depends on ") {
			t.Errorf("%s: %s", code, r.Because)
		}
	}
}

// TestCurlIsOneCommand: what a client sent stands in the command as it is, and runs nothing.
func TestCurlIsOneCommand(t *testing.T) {
	sh, err := exec.LookPath("sh")
	if err != nil {
		t.Fatal(err)
	}
	l := startGate(t)
	hostile := "https://a.test/';touch pwned;echo `touch pwned` $(touch pwned) \\"
	d := l.explain(l.send("GET /pages/';touch%20pwned;'?a';touch=1&ok=2 HTTP/1.1", "Origin: "+hostile, "User-Agent: -x", "Accept:"))
	dir := t.TempDir()
	// In the place of curl, something that tells what it is given.
	if err = os.WriteFile(filepath.Join(dir, "curl"), []byte("#!/bin/sh\nprintf '%s\\n' \"$@\" > args\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), sh, "-c", d.Reproduction.Curl)
	cmd.Dir, cmd.Env = dir, []string{"PATH=" + dir + string(os.PathListSeparator) + os.Getenv("PATH")}
	if out, runErr := cmd.CombinedOutput(); runErr != nil {
		t.Fatalf("%v: %s\n%s", runErr, out, d.Reproduction.Curl)
	}
	args, err := os.ReadFile(filepath.Join(dir, "args"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"Origin: " + hostile, "User-Agent: -x", "Accept;", "http://api.localhost/pages/';touch%20pwned;'?ok="} {
		if !strings.Contains("\n"+string(args), "\n"+want+"\n") {
			t.Errorf("no %q among %q", want, args)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "pwned")); err == nil {
		t.Error("the command runs what the client sent")
	}
}

// TestRecordsHoldNoSecret: wherever a client puts one, it is nowhere that the operator looks.
func TestRecordsHoldNoSecret(t *testing.T) {
	l := startGate(t)
	const canary = "CANARY"
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, l.admin.URL+"/live", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	live, err := l.admin.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer live.Body.Close()
	tail := bufio.NewReader(live.Body)

	secrets := []string{
		"Authorization: Bearer " + canary, "Proxy-Authorization: Basic " + canary, "Cookie: sid=" + canary + "; __Host-moat=" + canary,
		"Moat-Ticket: " + canary, "DPoP: " + canary, "X-API-Key: " + canary, "X-CSRF-Token: " + canary, "X-Moat-Csrf: " + canary,
		"Referer: https://a.test/?" + canary, "Sec-WebSocket-Protocol: moat." + canary, "X-Amz-Security-Token: " + canary, "Cf-Access-Token: " + canary,
		"X-Forwarded-For: " + canary, "Forwarded: for=" + canary, "Range: " + canary, "If-Match: " + canary,
	}
	query := "?token=" + canary + "&" + canary + "&k=" + canary + "%20" + canary + "&a[" + canary + "]=1&" + strings.Repeat(canary, 9) + "=1&ok=1"
	n := 0
	for _, head := range [][]string{
		{"GET /pages/" + query + " HTTP/1.1", "Origin: https://evil.test"},
		{"POST /pages/" + query + " HTTP/1.1", "Sec-Fetch-Site: cross-site"},
		{"GET /lenient/" + query + " HTTP/1.1", "Origin: https://evil.test"},
		{"GET /ticket/" + query + " HTTP/1.1"},
		{"GET /scoped/" + query + " HTTP/1.1"},
		{"GET /nowhere" + query + " HTTP/1.1"},
		{"POST /session/" + query + " HTTP/1.1"},
		{"GET /fetch?url=https://alice:" + canary + "@data.example.test/x%3Fk=" + canary + " HTTP/1.1"},
		{"GET http://alice:" + canary + "@api.localhost/nowhere" + query + " HTTP/1.1"},
	} {
		l.send(append(append(head, secrets...), "Content-Type: application/x-www-form-urlencoded", "Content-Length: 15", "\r\npassword="+canary)...)
		n++
	}
	var all []gateway.Record
	if err = json.Unmarshal([]byte(l.ask("/decisions?n=4096")), &all); err != nil || len(all) < n {
		t.Fatalf("%d records, %v", len(all), err)
	}
	told := map[string]string{"log": l.log.String()}
	for _, path := range []string{"/decisions?n=4096", "/top", "/series", "/metrics", "/limits"} {
		told[path] = l.ask(path)
	}
	for _, rec := range all {
		told["/decisions/ of "+rec.Code] = l.ask("/decisions/" + rec.ID)
	}
	for range all {
		for {
			line, readErr := tail.ReadString('\n')
			if readErr != nil {
				t.Fatal(readErr)
			}
			if told["/live"] += line; strings.HasPrefix(line, "event: record") {
				break
			}
		}
	}
	line, err := tail.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	told["/live"] += line
	for where, text := range told {
		if i := strings.Index(text, canary); i >= 0 {
			t.Errorf("%s: …%s…", where, text[max(0, i-120):min(len(text), i+40)])
		}
	}
	if !strings.Contains(told["/decisions/ of cors-origin-not-allowed"], "token=") {
		t.Errorf("the names of the query are not kept: %s", told["/decisions/ of cors-origin-not-allowed"])
	}
}
