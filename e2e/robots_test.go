package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// A robot that signs with node:crypto is let through by moat, and nobody else who is no browser.
func TestRobotSignsWithNode(t *testing.T) {
	thorough(t)
	t.Parallel()
	out, err := exec.CommandContext(t.Context(), program(t, "node"), filepath.Join("..", "guard", "bot", "testdata", "sign.mjs")).Output()
	if err != nil {
		t.Fatal(err)
	}
	var told struct {
		JWKS     json.RawMessage
		Requests []struct {
			Method, Host, Target string
			Headers              map[string]string
			Tampered             bool
		}
	}
	if err = json.Unmarshal(out, &told); err != nil {
		t.Fatal(err)
	}
	keys := filepath.Join(t.TempDir(), "keys.json")
	if err = os.WriteFile(keys, told.JWKS, 0o600); err != nil {
		t.Fatal(err)
	}
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "served") }))
	t.Cleanup(backend.Close)
	gate := startMoat(t, `version: 1
listen: "{listen}"
admin: "{admin}"
public_origins: [https://api.example]
upstreams: {app: {url: "`+backend.URL+`"}}
bots:
  challenge: off
  slow: off
  deny: 30
  robots: {Agent: {agent: https://agent.example, keys: "`+keys+`"}}
routes:
  - {match: /, upstream: app, auth: public, browserless: allow}
`)
	ask := func(method, target string, headers map[string]string) string {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, "http://"+gate.addr+target, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = "api.example"
		req.Header.Set("User-Agent", "curl/8.1")
		for name, value := range headers {
			req.Header.Set(name, value)
		}
		res, err := http.DefaultTransport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		body, _ := io.ReadAll(res.Body)
		var refused struct{ Code string }
		_ = json.Unmarshal(body, &refused)
		return fmt.Sprint(res.StatusCode, " ", strings.TrimSpace(refused.Code))
	}
	passed := 0
	for i, r := range told.Requests {
		if r.Host != "api.example" {
			continue
		}
		want := "200 "
		if r.Tampered {
			want = "403 bot-signature-invalid"
		}
		if got := ask(r.Method, r.Target, r.Headers); got != want {
			t.Errorf("request %d: %s, want %s", i, got, want)
		}
		if !r.Tampered {
			passed++
			if got := ask(r.Method, r.Target, r.Headers); got != "403 bot-signature-invalid" {
				t.Errorf("request %d again: %s", i, got)
			}
		}
	}
	if passed < 4 {
		t.Errorf("%d requests were to pass", passed)
	}
	if got := ask("GET", "/", nil); got != "403 bot-denied" {
		t.Errorf("unsigned: %s", got)
	}
}
