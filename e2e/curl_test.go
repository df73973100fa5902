package e2e

import (
	"encoding/json"
	"os/exec"
	"strings"
	"testing"
)

// answer is what curl was told.
type answer struct {
	// version is that of HTTP.
	version, status string
	body            string
}

// curl runs curl with the arguments, and returns what it was answered.
func curl(t *testing.T, args ...string) answer {
	t.Helper()
	const end = "\nanswered with %{http_version} %{http_code}"
	cmd := exec.CommandContext(t.Context(), program(t, "curl"), append([]string{"-sS", "--noproxy", "*", "--max-time", "20", "-w", end}, args...)...)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s", cmd, err, out)
	}
	body, last, ok := strings.Cut(string(out), "\nanswered with ")
	version, status, ok2 := strings.Cut(last, " ")
	if !ok || !ok2 {
		t.Fatalf("%s printed %q", cmd, out)
	}
	return answer{version, status, body}
}

// says is the status and, of the body, the handler's name or the reason's code.
func (a answer) says() string {
	var body struct{ Handler, Code string }
	if json.Unmarshal([]byte(a.body), &body) != nil {
		return a.status
	}
	return a.status + " " + body.Handler + body.Code
}

func TestCurl(t *testing.T) {
	thorough(t)
	t.Parallel()
	const friend = "http://localhost:5173"
	backend := startExpress(t, friend)
	gate := startMoat(t, moatYAML(backend, friend))
	asBrowser := []string{
		"-A", "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/156.0.0.0 Safari/537.36",
		"-H", "Sec-Fetch-Site: same-site", "-H", "Sec-Fetch-Mode: cors", "-H", "Sec-Fetch-Dest: empty",
	}

	for _, c := range []struct {
		name, path string
		args       []string
		// bare and moat are what is answered without moat and through it.
		bare, moat string
		// begun says that the upstream sees the request begin before moat refuses it.
		begun bool
	}{
		{
			name: "C and row 5: no Origin", path: "/api/data",
			bare: "200 data", moat: "403 cross-site-browserless",
		},
		{
			name: "row 5: no Origin, and a POST", path: "/transfer", args: []string{"-d", "amount=50"},
			bare: "200 transfer", moat: "403 cross-site-browserless",
		},
		{
			name: "a stranger's Origin", path: "/api/data", args: []string{"-H", "Origin: http://evil.test"},
			bare: "200 data", moat: "403 cors-origin-not-allowed",
		},
		// Without identity an Origin proves nothing: a browser's word on its page is worth
		// something only from a browser, and nobody can tell that this is none. moat does
		// not claim to. What it claims is that no page makes a browser do this.
		{
			name: "the friendly Origin, forged", path: "/api/data", args: []string{"-H", "Origin: " + friend},
			bare: "200 data", moat: "200 data",
		},
		{
			name: "the friendly Origin, forged, and a POST", path: "/transfer", args: []string{"-H", "Origin: " + friend, "-d", "amount=50"},
			bare: "200 transfer", moat: "200 transfer",
		},
		{
			name: "all that a browser says, forged", path: "/transfer", args: append([]string{"-H", "Origin: " + friend, "--json", `{"amount":50}`}, asBrowser...),
			bare: "200 transfer", moat: "200 transfer",
		},
		{
			name: "a webhook where programs are wanted", path: "/hook", args: []string{"-X", "POST"},
			bare: "200 hook", moat: "200 hook",
		},
		{
			name: "a stranger's page where programs are wanted", path: "/hook", args: []string{"-X", "POST", "-H", "Origin: http://evil.test"},
			bare: "200 hook", moat: "403 cors-origin-not-allowed",
		},
		{
			name: "a preflight of a stranger", path: "/transfer",
			args: []string{"-X", "OPTIONS", "-H", "Origin: http://evil.test", "-H", "Access-Control-Request-Method: POST"},
			bare: "200", moat: "403 cors-origin-not-allowed",
		},
		{
			name: "TRACE", path: "/api/data", args: []string{"-X", "TRACE", "-H", "Origin: " + friend},
			bare: "404", moat: "405 method-not-allowed",
		},
		{
			name: "a method that overrides", path: "/api/data", args: []string{"-H", "Origin: " + friend, "-H", "X-HTTP-Method-Override: DELETE"},
			bare: "200 data", moat: "400 method-override",
		},
		{
			name: "two lengths", path: "/transfer",
			args: []string{"-H", "Origin: " + friend, "-H", "Content-Length: 3", "-H", "Transfer-Encoding: chunked", "-d", "amount=50"},
			bare: "400", moat: "400 framing-length-conflict",
		},
		{
			name: "a dot segment", path: "/api/../delete", args: []string{"--path-as-is", "-H", "Origin: " + friend},
			bare: "404", moat: "400 path-ambiguous",
		},
		{
			name: "an encoded dot segment", path: "/api/%2e%2e/delete", args: []string{"--path-as-is", "-H", "Origin: " + friend},
			bare: "404", moat: "400 path-ambiguous",
		},
		{
			name: "an encoded slash", path: "/api%2fdata", args: []string{"-H", "Origin: " + friend},
			bare: "404", moat: "404 route-not-found",
		},
		{
			name: "an empty segment", path: "//delete", args: []string{"--path-as-is", "-H", "Origin: " + friend},
			bare: "404", moat: "400 path-ambiguous",
		},
		{
			// Express compares paths without case, and with or without a slash at the end.
			name: "another spelling of the path", path: "/DELETE/", args: []string{"-H", "Origin: " + friend},
			bare: "200 delete", moat: "404 route-not-found",
		},
		{
			name: "another Host", path: "/api/data", args: []string{"-H", "Host: evil.test", "-H", "Origin: " + friend},
			bare: "200 data", moat: "421 host-not-allowed",
		},
		{
			name: "another Host that names the right one too", path: "/api/data",
			args: []string{"-H", "Host: evil.test", "-H", "X-Forwarded-Host: " + strings.TrimPrefix(gate.origin, "http://"), "-H", "Origin: " + friend},
			bare: "200 data", moat: "421 host-not-allowed",
		},
		{
			name: "a body that is too large", path: "/api/note", args: []string{"-H", "Origin: " + friend, "-d", strings.Repeat("x", 2000)},
			bare: "200 note", moat: "413 body-too-large",
		},
		{
			name: "a body that is too large, and does not say so", path: "/api/note",
			args: []string{"-H", "Origin: " + friend, "-H", "Transfer-Encoding: chunked", "-d", strings.Repeat("x", 2000)},
			bare: "200 note", moat: "413 body-too-large", begun: true,
		},
		{
			name: "a route that nobody declared", path: "/admin", args: []string{"-H", "Origin: " + friend},
			bare: "404", moat: "404 route-not-found",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			// Where the name is resolved is not under test: --connect-to leaves the Host.
			if got := curl(t, append(c.args, "--connect-to", "::"+backend.addr, backend.origin+c.path)...).says(); got != c.bare {
				t.Errorf("bare: %s; want %s", got, c.bare)
			}
			backend.reset()
			if got := curl(t, append(c.args, "--connect-to", "::"+gate.addr, gate.origin+c.path)...).says(); got != c.moat {
				t.Errorf("through moat: %s; want %s", got, c.moat)
			}
			served, l := strings.HasPrefix(c.moat, "200"), backend.ledger()
			if served && l.runs() != 1 || !served && (l.runs() > 0 || len(l.Requests) > 0 && !c.begun) {
				t.Errorf("%s, and the backend got %q", c.moat, l.arrived())
			}
		})
	}

	t.Run("HTTP/2 without TLS", func(t *testing.T) {
		got := curl(t, "--http2-prior-knowledge", "-H", "Origin: "+friend, "--connect-to", "::"+gate.addr, gate.origin+"/api/data")
		if got.version != "2" || got.says() != "200 data" {
			t.Errorf("HTTP/%s: %s; want HTTP/2: 200 data", got.version, got.says())
		}
		got = curl(t, "--http2-prior-knowledge", "--connect-to", "::"+gate.addr, gate.origin+"/api/data")
		if got.version != "2" || got.says() != "403 cross-site-browserless" {
			t.Errorf("HTTP/%s: %s; want HTTP/2: 403 cross-site-browserless", got.version, got.says())
		}
	})

	t.Run("who is calling cannot be forged", func(t *testing.T) {
		backend.reset()
		got := curl(t, "-H", "Origin: "+friend, "--connect-to", "::"+gate.addr,
			"-H", "X-Forwarded-For: 6.6.6.6", "-H", "X_Forwarded_For: 6.6.6.6", "-H", "Forwarded: for=6.6.6.6", "-H", "X-Real-IP: 6.6.6.6",
			"-H", "X-Forwarded-Proto: https", "-H", "X-Forwarded-Host: evil.test", "-H", "X-Forwarded-User: root", "-H", "Remote.User: root",
			"-H", "Connection: close, Origin, X-Forwarded-For", gate.origin+"/api/data")
		if got.says() != "200 data" {
			t.Fatalf("%s; want 200 data", got.says())
		}
		l := backend.ledger()
		if len(l.Requests) != 1 {
			t.Fatalf("the backend got %q; want one request", l.arrived())
		}
		headers := l.Requests[0].Headers
		for name, want := range map[string]any{
			"x-forwarded-for": "127.0.0.1", "x-forwarded-proto": "http", "x-forwarded-host": strings.TrimPrefix(gate.origin, "http://"), "origin": friend,
		} {
			if headers[name] != want {
				t.Errorf("the backend got %s: %v; want %v", name, headers[name], want)
			}
		}
		for name, value := range headers {
			if text, ok := value.(string); ok && (strings.Contains(text, "6.6.6.6") || strings.Contains(text, "evil.test") || text == "root") {
				t.Errorf("the backend got %s: %s", name, text)
			}
		}
	})
}
