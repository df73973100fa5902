package e2e

import (
	"maps"
	"net/http"
	"strings"
	"syscall"
	"testing"
)

// A preflight is asked once. What moat answers is remembered for longer than what
// Express does, which says nothing of it and gets five seconds.
func TestPreflightIsRemembered(t *testing.T) {
	thorough(t)
	t.Parallel()
	s := newStage(t)
	for _, api := range []place{s.bareBackend(), s.behindMoat()} {
		b := newTab(t)
		b.open(s.pages[friendly])
		const post = `await saw(fetch(api + "/transfer", { method: "POST", headers: { "Content-Type": "application/json" }, body: json }))`
		if saw := b.run(api.origin, `return `+post+` + ", " + `+post); saw != "cors 200 transfer, cors 200 transfer" {
			t.Errorf("the page saw %q", saw)
		}
		preflights := 0
		for _, r := range b.to(api.origin) {
			if r.method == http.MethodOptions {
				preflights++
			}
		}
		arrived, want := api.backend.ledger().arrived(), "OPTIONS POST POST"
		if api.gate != nil {
			want = "POST POST"
		}
		if preflights != 1 || arrived != want {
			t.Errorf("the browser sent %d preflights, and the backend got %q; want 1, %q", preflights, arrived, want)
		}
	}
}

// In report mode moat tells what it would refuse, and the attacks succeed as they do
// without it: so these tests would notice a gate that does not hold.
func TestReportRefusesNothing(t *testing.T) {
	thorough(t)
	t.Parallel()
	on := newStage(t)
	yaml := strings.Replace(on.gate.read(t), "policies:\n  pages:\n", "policies:\n  pages:\n    modes: {cors: report, cross_site: report, cookie: report}\n", 1)
	on.gate.write(t, yaml)
	on.gate.signal(syscall.SIGHUP)
	eventually(t, "moat reloads", func() (string, bool) {
		applied := on.gate.metric(`moat_reloads_total{result="applied"}`)
		return applied, applied == "1"
	})
	// Each guard says what it would have done: where one would have ended the request,
	// the next is asked too.
	codes := map[string]string{
		"A, D and row 1: a simple GET":       "cors-origin-not-allowed",
		"E and row 3: a POST of JSON":        "cors-origin-not-allowed",
		"a form that submits itself":         "cors-origin-not-allowed cross-site-request",
		"a form in a sandbox":                "cors-origin-not-allowed cross-site-opaque-origin",
		"an image that deletes":              "cross-site-request",
		"a GET without CORS":                 "cross-site-embed",
		"a WebSocket":                        "cors-origin-not-allowed cross-site-websocket",
		"B: the same from the friendly page": "",
	}
	for _, s := range scenarios {
		code, ok := codes[s.name]
		if !ok {
			continue
		}
		delete(codes, s.name)
		t.Run(s.name, func(t *testing.T) {
			want := s.bare
			want.code = code
			since := on.gate.lastDecision()
			s.run(t, on.pages, on.behindMoat(), want)
			for _, d := range on.gate.decisions(since) {
				if d.Mode != "report" {
					t.Errorf("moat did not only report: %+v", d)
				}
			}
		})
	}
	if len(codes) > 0 {
		t.Errorf("no scenario has these names: %v", codes)
	}
}

// Browsers tell Sec-Fetch-Site only to https: and to localhost. Elsewhere a GET of a page
// of the same origin, a typed URL and a stranger's image all look like curl: there moat
// can let all of them pass or none, and what carries an Origin is judged as ever.
func TestPlainHTTPTellsLess(t *testing.T) {
	thorough(t)
	t.Parallel()
	evil := startSite(t, "evil.test")
	backend := startExpress(t)
	yaml := strings.NewReplacer(
		`public_origins: ["{origin}"]`, "public_origins: [\"http://api.test:{port}\"]\ndangerously_allow_insecure_public_origins: true",
		"policies:\n  pages:\n", "policies:\n  pages:\n    browserless: {browserless}\n",
	).Replace(moatYAML(backend, "http://localhost:5173"))
	const (
		image = `return event(add("img", { src: api + "/delete" }), "load", "error")`
		post  = `return saw(fetch(api + "/transfer", { method: "POST", mode: "no-cors", body: json }))`
	)
	for _, c := range []struct {
		browserless, ownGET string
		ran                 map[string]int // by the stranger's page
		codes               string
	}{
		{"deny", "basic 403 cross-site-browserless", map[string]int{}, "cross-site-browserless cors-origin-not-allowed"},
		{"allow", "basic 200 data", map[string]int{"delete": 1}, "cors-origin-not-allowed"},
	} {
		t.Run("browserless "+c.browserless, func(t *testing.T) {
			gate := startMoat(t, strings.Replace(yaml, "{browserless}", c.browserless, 1))
			api := strings.Replace(gate.origin, "localhost", "api.test", 1)
			b := newTab(t)
			b.open(api + "/")
			if saw := b.run(api, `return saw(fetch("/api/data"))`); saw != c.ownGET {
				t.Errorf("the API's own page saw %q; want %q", saw, c.ownGET)
			}
			if saw := b.run(api, `return saw(fetch("/transfer", { method: "POST", body: json }))`); saw != "basic 200 transfer" {
				t.Errorf("the API's own page saw %q of its POST", saw)
			}
			b.open(evil)
			backend.reset()
			since := gate.lastDecision()
			b.run(api, image)
			b.run(api, post)
			if ran := backend.ledger().Runs; !maps.Equal(ran, c.ran) {
				t.Errorf("the stranger's page made these handlers run: %v; want %v", ran, c.ran)
			}
			if got := codes(gate.decisions(since)); got != c.codes {
				t.Errorf("moat refused the stranger's page for %q; want %q", got, c.codes)
			}
		})
	}
}
