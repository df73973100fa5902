package demo

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os/exec"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// chromium starts a headless browser with a new profile, or skips under -short.
func chromium(t *testing.T) context.Context {
	t.Helper()
	if testing.Short() {
		t.Skip("drives a real Chromium, which takes seconds: run without -short (make test does)")
	}
	path := ""
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome", "google-chrome-stable"} {
		if found, err := exec.LookPath(name); err == nil {
			path = found
			break
		}
	}
	if path == "" {
		t.Fatal("no Chromium in PATH; run make setup")
	}
	options := append(slices.Clone(chromedp.DefaultExecAllocatorOptions[:]),
		chromedp.ExecPath(path), chromedp.NoSandbox, chromedp.DisableGPU, chromedp.UserDataDir(t.TempDir()),
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-component-update", true), chromedp.WindowSize(1280, 900))
	// The test's own context ends before the clean-up, which still needs the browser.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 90*time.Second)
	t.Cleanup(cancel)
	ctx, cancelAllocator := chromedp.NewExecAllocator(ctx, options...)
	t.Cleanup(cancelAllocator)
	ctx, cancelBrowser := chromedp.NewContext(ctx)
	// Waits for the browser's end, before its profile is removed.
	t.Cleanup(func() {
		if err := chromedp.Cancel(ctx); err != nil {
			t.Logf("closing Chromium: %v", err)
		}
		cancelBrowser()
	})
	err := chromedp.Listen(ctx, func(event any) {
		switch e := event.(type) {
		case *runtime.EventExceptionThrown:
			thrown := e.ExceptionDetails.Text
			if x := e.ExceptionDetails.Exception; x != nil {
				thrown += ": " + x.Description
			}
			t.Errorf("the page threw: %s", thrown)
		case *log.EventEntryAdded:
			// What CORS and the gate refuse is on the console too, and expected.
			if e.Entry.Source == log.EntrySourceSecurity || e.Entry.Source == log.EntrySourceViolation {
				t.Errorf("the console: %s", e.Entry.Text)
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return ctx
}

// visit opens a page and waits until it shows the ledger.
func visit(t *testing.T, ctx context.Context, page string) {
	t.Helper()
	if err := chromedp.Do(ctx, chromedp.Navigate(page), chromedp.WaitVisible("#figures div")); err != nil {
		t.Fatal(err)
	}
}

// look evaluates an expression in the page.
func look[T any](t *testing.T, ctx context.Context, expression string) T {
	t.Helper()
	v, err := chromedp.Run(ctx, chromedp.Evaluate[T](expression))
	if err != nil {
		t.Fatalf("%s: %v", expression, err)
	}
	return v
}

// await waits until an expression is true.
func await(t *testing.T, ctx context.Context, expression string) {
	t.Helper()
	if err := chromedp.Do(ctx, chromedp.Poll[chromedp.Void](expression)); err != nil {
		t.Fatalf("waiting for %s: %v", expression, err)
	}
}

func click(t *testing.T, ctx context.Context, selector string) {
	t.Helper()
	if err := chromedp.Do(ctx, chromedp.Click(selector)); err != nil {
		t.Fatalf("click %s: %v", selector, err)
	}
}

// standIn is the least of a gate: it refuses what is not the friendly page's, answers
// its preflights and forwards the rest. What moat itself does with these attacks, the
// end-to-end tests prove; here the pages are under test.
func standIn(t *testing.T) (origin string, forwardTo func(*Demo)) {
	var to atomic.Pointer[Demo]
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		d := to.Load()
		if r.Header.Get("Origin") != d.FriendlyOrigin() {
			w.Header().Set("Content-Type", "application/problem+json")
			w.WriteHeader(http.StatusForbidden)
			w.Write([]byte(`{"status":403}`))
			return
		}
		w.Header().Set("Access-Control-Allow-Origin", d.FriendlyOrigin())
		if r.Method == http.MethodOptions {
			w.Header().Set("Access-Control-Allow-Headers", "Content-Type")
			return
		}
		upstream, err := url.Parse(d.BackendURL())
		if err != nil {
			t.Error(err)
			return
		}
		proxy := httputil.ReverseProxy{
			Rewrite: func(p *httputil.ProxyRequest) {
				p.SetURL(upstream)
				p.SetXForwarded()
			},
			ModifyResponse: func(res *http.Response) error {
				res.Header.Del("Access-Control-Allow-Origin")
				return nil
			},
		}
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	u, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	return "http://localhost:" + u.Port(), func(d *Demo) { to.Store(d) }
}

const rows = `[...document.querySelectorAll("#summary tbody tr")].map(r => [...r.cells].map(c => c.textContent).join(" | ")).join("\n")`

// said is what the script saw of an action, done what the backend did.
func said(id, target string) string {
	return `document.querySelector("#` + id + ` .` + target + ` dd").textContent`
}

func done(id, target string) string {
	return `document.querySelectorAll("#` + id + ` .` + target + ` dd")[1].textContent`
}

func runAll(t *testing.T, ctx context.Context, page string) (table, status string) {
	t.Helper()
	visit(t, ctx, page)
	click(t, ctx, "#run-all")
	await(t, ctx, `document.querySelector("#run-all").disabled`)
	await(t, ctx, `!document.querySelector("#run-all").disabled`)
	return look[string](t, ctx, rows), look[string](t, ctx, `document.querySelector("#status").textContent`)
}

func TestMoneyMovesWhileTheBrowserBlocks(t *testing.T) {
	ctx := chromium(t)
	gate, forwardTo := standIn(t)
	d := open(t, gate)
	forwardTo(d)

	table, status := runAll(t, ctx, d.origins.Stranger)
	want := strings.Join([]string{
		"Plain read | yes: read the data | no | not told",
		"Form-style POST | yes: Alice −50 | no | not told",
		"JSON called text | yes: Alice −50 | no | not told",
		"Hidden form | yes: Alice −50 | no | not told",
		"Image tag | yes: deleted note 1 | no | not told",
		"no-cors POST | yes: Alice −50 | no | not told",
		"JSON POST | no: preflight failed | no | not told",
	}, "\n")
	if table != want {
		t.Errorf("the table is\n%s\nwant\n%s", table, want)
	}
	if want := "Bare backend: 6 of 7 reached the handler, Alice lost 200. Through moat: 0 of 7 reached the handler, Alice lost 0."; status != want {
		t.Errorf("the page says %q; want %q", status, want)
	}
	for _, id := range []string{"read", "urlencoded", "text", "json"} {
		for _, target := range []string{"bare", "moat"} {
			if saw := look[string](t, ctx, said(id, target)); saw != "TypeError: Failed to fetch" {
				t.Errorf("%s, %s: the script saw %q; want no more than that it failed", id, target, saw)
			}
		}
	}
	r := reading(t, d, "")
	if r.Balances["alice"] != 800 || r.Balances["mallory"] != 200 || len(r.Notes) != 9 || r.Preflights != 1 {
		t.Errorf("the ledger has %v, %d notes, %d preflights; want mallory richer by 200, 9, 1", r.Balances, len(r.Notes), r.Preflights)
	}
	for _, e := range r.Requests {
		if e.Cookie || e.Site != "cross-site" || e.Via != "bare" {
			t.Errorf("recorded %+v; want a bare cross-site request without a cookie", e)
		}
	}

	click(t, ctx, "#reset")
	await(t, ctx, `!document.querySelector("#requests-none").hidden`)
	figures := look[string](t, ctx, `document.querySelector("#figures").textContent`)
	if strings.ContainsAny(figures, "+−") {
		t.Errorf("after the reset the figures are %q; want no change", figures)
	}
}

func TestPageSaysWhenTheGateDoesNotAnswer(t *testing.T) {
	ctx := chromium(t)
	server := httptest.NewServer(nil)
	u, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	server.Close()
	d := open(t, "http://localhost:"+u.Port())
	table, status := runAll(t, ctx, d.origins.Stranger)
	if got := strings.Count(table, " | no server answers | –"); got != 7 {
		t.Errorf("the table is\n%s\nwant a gate that does not answer, not one that refuses", table)
	}
	if !strings.HasSuffix(status, "Through moat: does not answer.") {
		t.Errorf("the page says %q", status)
	}
}

func TestFriendlyPageWorksEitherWay(t *testing.T) {
	ctx := chromium(t)
	gate, forwardTo := standIn(t)
	d := open(t, gate)
	forwardTo(d)
	visit(t, ctx, d.FriendlyOrigin())
	for _, c := range []struct{ id, saw, did string }{
		{"data", "copper", "the handler ran once: read the data"},
		{"transfer", "moved 10 from alice to bob", "the handler ran once: moved 10 from alice to bob"},
		{"stream", "5 ticks over 1.", "the handler ran once: streamed ticks"},
	} {
		for _, target := range []string{"bare", "moat"} {
			click(t, ctx, "#"+c.id+" ."+target+" button")
			await(t, ctx, done(c.id, target)+`.includes("handler")`)
			saw, did := look[string](t, ctx, said(c.id, target)), look[string](t, ctx, done(c.id, target))
			if !strings.Contains(saw, c.saw) {
				t.Errorf("%s, %s: the page got %q; want %q", c.id, target, saw, c.saw)
			}
			if !strings.HasSuffix(did, c.did) {
				t.Errorf("%s, %s: the backend %q; want %q", c.id, target, did, c.did)
			}
		}
	}
	r := reading(t, d, "")
	if r.Balances["bob"] != 20 || r.Preflights != 1 {
		t.Errorf("bob has %d, %d preflights; want 20 and the bare one", r.Balances["bob"], r.Preflights)
	}
	via := map[string]int{}
	for _, e := range r.Requests {
		if e.Ran {
			via[e.Via]++
		}
	}
	if via["bare"] != 3 || via["moat"] != 3 {
		t.Errorf("requests came via %v; want three each", via)
	}
}
