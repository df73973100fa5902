package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"
)

var chromium once[*browser]

// browser is the one Chromium that all tests share. A tab in it has a profile of its
// own.
type browser struct {
	ctx   context.Context
	close func()
}

func theBrowser(t *testing.T) *browser {
	t.Helper()
	return chromium.get(t, func(t *testing.T) *browser {
		t.Helper()
		profile := scratchFile("profile")
		options := append(slices.Clone(chromedp.DefaultExecAllocatorOptions[:]),
			chromedp.ExecPath(program(t, "chromium")), chromedp.UserDataDir(profile),
			chromedp.NoSandbox, chromedp.DisableGPU, chromedp.WindowSize(1280, 900),
			chromedp.Flag("disable-quic", true), chromedp.Flag("disable-component-update", true),
			// Strangers need a host of another site. All hosts are on loopback, so Local
			// Network Access, which looks at addresses, asks for no permission.
			chromedp.Flag("host-resolver-rules", "MAP *.test 127.0.0.1, MAP localhost 127.0.0.1"),
			chromedp.Flag("ignore-certificate-errors-spki-list", testAuthority(t).spki),
		)
		// A new profile of Debian's Chromium blocks third-party cookies: attacks that
		// need the victim's cookies would fail for a reason that is not the gate's.
		profileFile := filepath.Join(profile, "Default", "Preferences")
		if err := os.MkdirAll(filepath.Dir(profileFile), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(profileFile, []byte(`{"profile":{"cookie_controls_mode":0}}`), 0o600); err != nil {
			t.Fatal(err)
		}
		// Not the context of the test that happens to come first: the browser outlives it.
		ctx, cancelAllocator := chromedp.NewExecAllocator(context.Background(), options...)
		ctx, cancelBrowser := chromedp.NewContext(ctx)
		b := &browser{ctx: ctx, close: func() {
			closing, cancel := context.WithTimeout(ctx, patience)
			defer cancel()
			// Graceful first; whatever becomes of that, the next two end it.
			chromedp.Cancel(closing)
			cancelBrowser()
			cancelAllocator()
		}}
		if err := chromedp.Do(ctx); err != nil {
			b.close()
			t.Fatalf("Chromium: %v", err)
		}
		return b
	})
}

// closeBrowser runs after the last test.
func closeBrowser() {
	if chromium.made {
		chromium.it.close()
	}
}

// tab is a tab with a profile of its own: it shares no cookie, no cached answer and no
// remembered preflight with other tabs.
type tab struct {
	t     *testing.T
	ctx   context.Context
	close func()

	mu       sync.Mutex
	requests []*sent
}

// sent is a request that the browser made, and what became of it, as the protocol that
// feeds DevTools tells it.
type sent struct {
	id        network.RequestID
	kind      network.ResourceType
	method    string
	url       string
	status    int64
	corsError string
	over      bool
}

func newTab(t *testing.T) *tab {
	t.Helper()
	ctx, cancel := chromedp.NewContext(theBrowser(t).ctx, chromedp.WithNewBrowserContext())
	b := &tab{t: t, ctx: ctx, close: sync.OnceFunc(cancel)}
	t.Cleanup(b.close)
	if err := chromedp.Listen(ctx, b.note); err != nil {
		t.Fatalf("a new tab: %v", err)
	}
	return b
}

// cookies are those that the profile has for an origin.
func (b *tab) cookies(origin string) (all []*network.Cookie) {
	b.t.Helper()
	b.do("read the cookies", chromedp.Func(func(ctx context.Context, target *chromedp.Target) error {
		found, err := cdp.Call(ctx, target, network.GetCookies, network.GetCookiesParams{URLs: []string{origin + "/"}})
		all = found.Cookies
		return err
	}))
	return all
}

// setCookie puts a cookie into the profile, for that origin's host alone.
func (b *tab) setCookie(origin string, k *network.Cookie) {
	b.t.Helper()
	b.do("set a cookie", chromedp.Func(func(ctx context.Context, target *chromedp.Target) error {
		_, err := cdp.Call(ctx, target, network.SetCookies, network.SetCookiesParams{Cookies: []*network.CookieParam{{
			Name: k.Name, Value: k.Value, URL: origin + "/", Path: "/", Secure: true, HTTPOnly: k.HTTPOnly, SameSite: k.SameSite,
		}}})
		return err
	}))
}

func (b *tab) note(event any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch e := event.(type) {
	case *network.EventRequestWillBeSent:
		if r := b.request(e.RequestID); r != nil { // a redirect goes on under its id
			r.method, r.url = e.Request.Method, e.Request.URL
			return
		}
		b.requests = append(b.requests, &sent{id: e.RequestID, kind: e.Type, method: e.Request.Method, url: e.Request.URL})
	case *network.EventResponseReceived:
		if r := b.request(e.RequestID); r != nil {
			r.status = e.Response.Status
		}
	case *network.EventLoadingFinished:
		if r := b.request(e.RequestID); r != nil {
			r.over = true
		}
	case *network.EventLoadingFailed:
		if r := b.request(e.RequestID); r != nil {
			r.over = true
			if e.CorsErrorStatus != nil {
				r.corsError = string(e.CorsErrorStatus.CorsError)
			}
		}
	}
}

// request is nil if the request was forgotten.
func (b *tab) request(id network.RequestID) *sent {
	for _, r := range b.requests {
		if r.id == id {
			return r
		}
	}
	return nil
}

// forget leaves only what the browser sends from now on.
func (b *tab) forget() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.requests = nil
}

// to returns what the browser sent to an origin, apart from asking for an icon.
func (b *tab) to(origin string) []sent {
	b.mu.Lock()
	defer b.mu.Unlock()
	var all []sent
	for _, r := range b.requests {
		if strings.HasPrefix(r.url, origin+"/") && !strings.HasSuffix(r.url, "/favicon.ico") {
			all = append(all, *r)
		}
	}
	return all
}

// corsErrors are the names that Chromium has for what CORS made it keep from the page.
func (b *tab) corsErrors(origin string) string {
	var names []string
	for _, r := range b.to(origin) {
		if r.corsError != "" {
			names = append(names, r.corsError)
		}
	}
	return strings.Join(names, " ")
}

// settled waits until the browser is done with what it sent to an origin.
func (b *tab) settled(origin string) {
	b.t.Helper()
	eventually(b.t, "the browser's requests are over", func() (string, bool) {
		for _, r := range b.to(origin) {
			// What is shown in a frame of another site ends in a process of its own, which
			// does not tell this tab.
			if !r.over && (r.kind != network.ResourceTypeDocument || r.status == 0) {
				return fmt.Sprintf("%+v", r), false
			}
		}
		return "", true
	})
}

// open goes to a page as one does who types its URL.
func (b *tab) open(url string) {
	b.t.Helper()
	b.do("open "+url, chromedp.Navigate(url))
}

func (b *tab) click(selector string) {
	b.t.Helper()
	b.do("click "+selector, chromedp.Click(chromedp.CSS(selector)))
}

func (b *tab) do(what string, step chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	if err := chromedp.Do(ctx, step); err != nil {
		b.t.Fatalf("%s: %v", what, err)
	}
}

// eval evaluates an expression in the page, and waits if it is a promise.
func (b *tab) eval(expression string) string {
	b.t.Helper()
	v, err := b.tryEval(expression)
	if err != nil {
		b.t.Fatalf("%s: %v", expression, err)
	}
	return v
}

func (b *tab) tryEval(expression string) (string, error) {
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	return chromedp.Run(ctx, chromedp.Evaluate[string](expression, chromedp.EvalAwaitPromise))
}

// run runs statements in the page; what they return is what the page came to see. They
// know api, the origin to call, and the functions of prelude.
func (b *tab) run(api, statements string) string {
	b.t.Helper()
	v, err := b.tryEval(b.script(api, statements))
	if err != nil {
		b.t.Fatalf("%s: %v", statements, err)
	}
	return v
}

func (b *tab) script(api, statements string) string {
	return fmt.Sprintf("(async () => { const api = %q; %s\n%s })()", api, prelude, statements)
}

// prelude is for scripts in pages. saw tells what script sees of an answer: its type,
// its status and, of its body, the reason's code or the handler's name.
const prelude = `
const told = (text) => {
  try { const body = JSON.parse(text); return body.code ?? body.handler ?? text } catch { return text.slice(0, 60) }
};
const saw = async (asked) => {
  try {
    const answer = await asked;
    return (answer.type + " " + answer.status + " " + told(await answer.text())).trim();
  } catch (error) {
    return String(error);
  }
};
const add = (tag, properties) => document.body.appendChild(Object.assign(document.createElement(tag), properties));
const event = (target, ...names) => new Promise((done) => {
  for (const name of names) target.addEventListener(name, () => done(name), { once: true });
});
const message = () => new Promise((done) => addEventListener("message", (e) => done(e.data), { once: true }));
// socket sends a word through a WebSocket and waits for its echo.
const socket = (api) => new Promise((done) => {
  const s = new WebSocket(api.replace("http:", "ws:") + "/ws");
  const end = (text) => { s.close(); done(text) };
  s.onopen = () => s.send("hello");
  s.onmessage = (e) => end(e.data);
  s.onerror = () => end("error");
});
// stream waits for the third event of a stream.
const stream = (api) => new Promise((done) => {
  const s = new EventSource(api + "/events", { withCredentials: true });
  const end = (text) => { s.close(); done(text) };
  s.onmessage = (e) => e.data === "3" && end("message " + e.data);
  s.onerror = () => end("error");
});
const json = JSON.stringify({ amount: 50 });
const submit = (to) => {
  const form = add("form", { method: "post", action: to });
  form.innerHTML = '<input type="hidden" name="amount" value="50">';
  form.submit();
};
`

// shows waits for a document of the origin, and returns its status and what it says.
func (b *tab) shows(origin string) string {
	b.t.Helper()
	var seen string
	eventually(b.t, "the browser shows a document of "+origin, func() (string, bool) {
		var status int64
		for _, r := range b.to(origin) {
			if r.kind == network.ResourceTypeDocument && r.over {
				status = r.status
			}
		}
		if status == 0 {
			return "no answer", false
		}
		// A page that is on its way out may still be the one that evaluates.
		text, err := b.tryEval(`(() => { ` + prelude + ` return document.readyState + " " + location.origin + " " + told(document.body.innerText) })()`)
		if err != nil {
			return err.Error(), false
		}
		text, complete := strings.CutPrefix(text, "complete "+origin+" ")
		seen = strings.TrimSpace(fmt.Sprintf("document %d %s", status, text))
		return text, complete
	})
	return seen
}
