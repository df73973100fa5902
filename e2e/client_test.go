package e2e

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/network"
	pagedomain "github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/security"
	"github.com/chromedp/chromedp"
)

// pageServer is a backend without any guard of its own: a page, and an API that tells
// what it was sent.
type pageServer struct {
	*httptest.Server
	csp atomic.Value // of the page

	mu    sync.Mutex
	calls []echo
}

// echo is a call as the backend saw it.
type echo struct {
	Method string `json:"method"`
	Target string `json:"target"`
	Type   string `json:"type"`
	Accept string `json:"accept"`
	SHA256 string `json:"sha256"`
	Size   int    `json:"size"`
}

func startPageServer(t *testing.T) *pageServer {
	t.Helper()
	s := &pageServer{}
	s.csp.Store("")
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.Header().Set("Cache-Control", "no-store")
		if csp := s.csp.Load().(string); csp != "" {
			w.Header().Set("Content-Security-Policy", csp)
		}
		io.WriteString(w, `<!doctype html><meta charset="utf-8"><title>A page</title><link rel="icon" href="data:,">`+
			`<script src="/.moat/client.js"></script>`)
	})
	mux.HandleFunc("/api/", func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		sum := sha256.Sum256(body)
		e := echo{r.Method, r.RequestURI, r.Header.Get("Content-Type"), r.Header.Get("Accept"), hex.EncodeToString(sum[:]), len(body)}
		s.mu.Lock()
		s.calls = append(s.calls, e)
		s.mu.Unlock()
		w.Header().Set("Cache-Control", "no-store")
		json.NewEncoder(w).Encode(e)
	})
	mux.HandleFunc("GET /events", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		fmt.Fprintf(w, "data: %s\n\n", r.RequestURI)
	})
	mux.HandleFunc("GET /image", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "image/svg+xml")
		io.WriteString(w, `<svg xmlns="http://www.w3.org/2000/svg" width="7" height="7"/>`)
	})
	s.Server = httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return s
}

func (s *pageServer) seen() []echo {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]echo(nil), s.calls...)
}

// ticketFile asks for tickets on all but the page itself.
const ticketFile = `version: 1
listen: {listen}
admin: {admin}
public_origins: ["{origin}"]
tickets: {settings}
upstreams:
  pages: {url: "{backend}"}
  express: {url: "http://{express}"}
rate_limits:
  plenty: 1000/s
policies:
  demo: {origins: ["{page}"], tickets: {use: require, streamed_body: allow}}
routes:
  - {match: "/{$}", upstream: pages, auth: public}
  - {match: /ws, upstream: express, auth: public, policy: demo}
  - {match: /, upstream: pages, auth: public, policy: demo}
`

func ticketYAML(backend *pageServer, page, settings string, more ...string) string {
	if settings == "" {
		settings = "{rate_limits: plenty}"
	}
	if len(more) == 0 {
		more = []string{"{express}", "127.0.0.1:9"}
	}
	return strings.NewReplacer(append(more, "{settings}", settings, "{backend}", backend.URL, "{page}", page)...).Replace(ticketFile)
}

// clientPrelude is for scripts in pages that have the client.
const clientPrelude = `
const load = (src) => new Promise((done, fail) => add("script", { src, onload: done, onerror: fail }));
const call = async (...args) => { try { return await saw(moat.fetch(...args)) } catch (e) { return String(e) } };
const echoed = async (...args) => {
  const answer = await moat.fetch(...args);
  if (!answer.ok) throw new Error(answer.status + " " + await answer.text());
  return answer.json();
};
const sha = async (bytes) => [...new Uint8Array(await crypto.subtle.digest("SHA-256", bytes))].map((b) => b.toString(16).padStart(2, "0")).join("");
const rest = (ms = 300) => new Promise((done) => setTimeout(done, ms));
`

func (b *tab) client(api, statements string) string {
	b.t.Helper()
	return b.run(api, clientPrelude+statements)
}

// another is a tab that shares the profile of this one.
func (b *tab) another() *tab {
	b.t.Helper()
	ctx, cancel := chromedp.NewContext(b.ctx)
	next := &tab{t: b.t, ctx: ctx, close: sync.OnceFunc(cancel)}
	b.t.Cleanup(next.close)
	if err := chromedp.Listen(ctx, next.note); err != nil {
		b.t.Fatalf("another tab: %v", err)
	}
	return next
}

// asked lists what the browser sent to an origin, in short.
func (b *tab) asked(origin string) string {
	var all []string
	for _, r := range b.to(origin) {
		all = append(all, r.method+" "+strings.TrimPrefix(r.url, origin))
	}
	return strings.Join(all, ", ")
}

func (b *tab) tell(what string, call func(ctx context.Context, target *chromedp.Target) error) {
	b.t.Helper()
	b.do(what, chromedp.Func(call))
}

func TestClientWarmCallsCostNothingMore(t *testing.T) {
	thorough(t)
	backend := startPageServer(t)
	elsewhere := startSite(t, "localhost")
	gate := startMoat(t, ticketYAML(backend, elsewhere, ""))

	t.Run("same origin", func(t *testing.T) {
		b := newTab(t)
		b.open(gate.origin + "/")
		if got := b.client(gate.origin, `await echoed("/api/first"); await rest(); return "warm"`); got != "warm" {
			t.Fatal(got)
		}
		if got, want := b.asked(gate.origin), "GET /, GET /.moat/client.js, POST /.moat/tickets, GET /api/first"; got != want {
			t.Errorf("the first call: %s; want %s", got, want)
		}
		b.forget()
		b.client(gate.origin, `for (const n of [1, 2, 3]) { await echoed("/api/" + n); await echoed("/api/" + n, {method: "POST", body: "x"}); await rest(50) }; return ""`)
		if got, want := b.asked(gate.origin), "GET /api/1, POST /api/1, GET /api/2, POST /api/2, GET /api/3, POST /api/3"; got != want {
			t.Errorf("warm calls: %s; want %s", got, want)
		}
	})

	t.Run("cross-origin", func(t *testing.T) {
		b := newTab(t)
		b.open(elsewhere + "/")
		b.client(gate.origin, `await load(api + "/.moat/client.js"); await echoed("/api/first"); await echoed("/api/post", {method: "POST", body: "x"}); await rest(); return ""`)
		b.forget()
		b.client(gate.origin, `for (const n of [1, 2, 3]) { await echoed("/api/" + n); await echoed("/api/post", {method: "POST", body: "x" + n}); await rest(50) }; return ""`)
		if got, want := b.asked(gate.origin), "GET /api/1, POST /api/post, GET /api/2, POST /api/post, GET /api/3, POST /api/post"; got != want {
			t.Errorf("warm calls: %s; want %s, no preflight among them", got, want)
		}
		for _, e := range backend.seen() {
			if strings.Contains(e.Accept, "moat") || strings.Contains(e.Target, "moat") {
				t.Errorf("the backend sees the token: %+v", e)
			}
		}
	})
}

func TestClientProvesWhatIsSent(t *testing.T) {
	thorough(t)
	backend := startPageServer(t)
	gate := startMoat(t, ticketYAML(backend, startSite(t, "localhost"), ""))
	b := newTab(t)
	b.open(gate.origin + "/")
	got := b.client(gate.origin, `
		const wrong = [];
		const same = (what, got, want) => { if (got !== want) wrong.push(what + ": " + got + ", want " + want) };
		const form = new FormData();
		form.set("field", "v\u00e4lue");
		form.set("file", new Blob([new Uint8Array(100000)]), "a b.bin");
		const bytes = (text) => new TextEncoder().encode(text);
		const bodies = {
			text: ["h\u00e4llo", "text/plain;charset=UTF-8"],
			params: [new URLSearchParams({a: "1 2"}), "application/x-www-form-urlencoded;charset=UTF-8"],
			blob: [new Blob(["x"], {type: "image/png"}), "image/png"],
			file: [new File([new Uint8Array(300000)], "x.bin", {type: "a/b"}), "a/b"],
			bytes: [bytes("bytes").subarray(1), ""],
			empty: ["", "text/plain;charset=UTF-8"],
			none: [undefined, ""],
		};
		for (const [name, [body, type]] of Object.entries(bodies)) {
			const e = await echoed("/api/" + name, {method: "POST", body});
			same(name, e.sha256, await sha(await new Response(body).arrayBuffer()));
			same(name + "'s type", e.type, type);
		}
		const sent = await echoed("/api/form", {method: "POST", body: form});
		same("form", sent.type.slice(0, 30), "multipart/form-data; boundary=");
		same("form has its file", sent.size > 100000, true);
		same("keepalive", (await echoed("/api/keep", {method: "POST", body: "x", keepalive: true})).size, 1);
		const request = new Request("/api/request", {method: "PUT", body: "x", headers: {"content-type": "text/x"}, credentials: "omit", referrer: ""});
		const e = await echoed(request);
		same("request", [e.method, e.type, e.size].join(), "PUT,text/x,1");
		for (const method of ["get", "post", "delete", "PATCH"]) same(method, (await echoed("/api/m", {method})).method, method.toUpperCase());
		for (const target of ["/api/x?", "/api/a%20b/%C3%BC?q=%C3%A4%20b&c=%27%22%3C", "/api/z?%&%zz", "/api/a?b?c=/../d", "/api/'|{}^?q='|{}^\u0060"]) {
			const sent = new URL(target, location).href.slice(origin.length);
			same(target, (await echoed(target + "#f")).target, sent);
		}
		return wrong.join("\n");
	`)
	if got != "" {
		t.Error(got)
	}
	if refused := codes(gate.decisions("")); refused != "" {
		t.Errorf("the gate refused: %s", refused)
	}
}

func TestClientWhereNoHeadersCanBeSet(t *testing.T) {
	thorough(t)
	backend := startPageServer(t)
	express := startExpress(t)
	gate := startMoat(t, ticketYAML(backend, startSite(t, "localhost"), "", "{express}", express.addr))
	b := newTab(t)
	b.open(gate.origin + "/")
	for what, script := range map[string]string{
		"message /events": `const s = new EventSource(await moat.fetch.url("/events")); return new Promise((done) => {
			s.onmessage = (e) => { s.close(); done("message " + e.data) }; s.onerror = () => { s.close(); done("error") } })`,
		"echo hello": `const s = new WebSocket(await moat.fetch.url(api.replace("http", "ws") + "/ws")); return new Promise((done) => {
			s.onopen = () => s.send("hello"); s.onmessage = (e) => { s.close(); done(e.data) }; s.onerror = () => done("error") })`,
		"load 7":  `const i = add("img", {src: await moat.fetch.url("/image?size=7")}); return await event(i, "load", "error") + " " + i.naturalWidth`,
		"error 0": `const i = add("img", {src: "/image?size=7"}); return await event(i, "load", "error") + " " + i.naturalWidth`,
	} {
		if got := b.client(gate.origin, script); got != what {
			t.Errorf("got %q; want %q", got, what)
		}
	}
}

// Chromium sends a stream only where it does not have to know its length: over HTTP/2.
func TestClientSendsStreams(t *testing.T) {
	thorough(t)
	backend := startPageServer(t)
	cert, key := selfSigned(t)
	yaml := strings.Replace(ticketYAML(backend, startSite(t, "localhost"), ""), `listen: {listen}`,
		`listen: [{address: "{listen}", tls: {certificate: `+cert+`, key: `+key+`}}]`, 1)
	gate := startMoat(t, strings.Replace(yaml, `["{origin}"]`, `["https://localhost:{port}"]`, 1))
	origin := strings.Replace(gate.origin, "http:", "https:", 1)
	b := newTab(t)
	b.tell("take any certificate", func(ctx context.Context, target *chromedp.Target) error {
		_, err := cdp.Call(ctx, target, security.SetIgnoreCertificateErrors, security.SetIgnoreCertificateErrorsParams{Ignore: true})
		return err
	})
	b.open(origin + "/")
	got := b.client(origin, `
		const bytes = (text) => new TextEncoder().encode(text);
		let go;
		const body = new ReadableStream({start(c) { c.enqueue(bytes("one,")); go = () => { c.enqueue(bytes("two")); c.close() } }});
		const sent = echoed("/api/stream", {method: "POST", body, duplex: "half"});
		setTimeout(() => go(), 100);
		const e = await sent;
		return String(e.sha256 === await sha(bytes("one,two")))`)
	if got != "true" {
		t.Error(got)
	}
	if refused := codes(gate.decisions("")); refused != "" {
		t.Errorf("the gate refused: %s", refused)
	}
}

// selfSigned makes the files of a certificate for localhost, and of its key.
func selfSigned(t *testing.T) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(90 * 24 * time.Hour), DNSNames: []string{"localhost"}}
	public, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	write := func(name, kind string, der []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	return write("cert.pem", "CERTIFICATE", public), write("key.pem", "PRIVATE KEY", secret)
}

func TestClientTakesTheTicketInThePage(t *testing.T) {
	thorough(t)
	backend := startPageServer(t)
	yaml := strings.Replace(ticketYAML(backend, startSite(t, "localhost"), ""), `upstream: pages, auth: public}`, `upstream: pages, auth: public, tickets: embed}`, 1)
	gate := startMoat(t, yaml)
	b := newTab(t)
	b.open(gate.origin + "/")
	if got := b.client(gate.origin, `for (const n of [1, 2, 3]) await echoed("/api/" + n); return String(document.getElementById("moat-ticket"))`); got != "null" {
		t.Errorf("the page still holds %s", got)
	}
	if got, want := b.asked(gate.origin), "GET /, GET /.moat/client.js, GET /api/1, GET /api/2, GET /api/3"; got != want {
		t.Errorf("asked: %s; want %s", got, want)
	}
	b.client(gate.origin, `for (let n = 4; n < 20; n++) await echoed("/api/" + n); return ""`)
	if refused := codes(gate.decisions("")); refused != "" {
		t.Errorf("the gate refused: %s", refused)
	}
}

func TestClientRenewsWhileIdle(t *testing.T) {
	thorough(t)
	backend := startPageServer(t)
	gate := startMoat(t, ticketYAML(backend, startSite(t, "localhost"), "{rate_limits: plenty, lifetime: 10s}"))
	b := newTab(t)
	b.open(gate.origin + "/")
	// A page in the background does not renew.
	b.tell("come to the front", func(ctx context.Context, target *chromedp.Target) error {
		_, err := cdp.Call(ctx, target, pagedomain.BringToFront, cdp.Empty{})
		return err
	})
	// On a busy machine the ticket may be renewed before the page has said that it has one.
	b.client(gate.origin, `await moat.fetch.ready(); return ""`)
	eventually(t, "the ticket is renewed", func() (string, bool) {
		got := b.asked(gate.origin)
		return got, strings.Count(got, "POST /.moat/tickets") == 2
	})
}

// Twenty tabs of one profile: each ticket is renewed once, whoever does it, and no index
// is used twice.
func TestClientTwentyTabsShareTickets(t *testing.T) {
	thorough(t)
	backend := startPageServer(t)
	gate := startMoat(t, ticketYAML(backend, startSite(t, "localhost"), ""))
	tabs := []*tab{newTab(t)}
	tabs[0].open(gate.origin + "/")
	for len(tabs) < 20 {
		next := tabs[0].another()
		next.open(gate.origin + "/")
		tabs = append(tabs, next)
	}
	everywhere := func(script string) {
		t.Helper()
		var all sync.WaitGroup
		for _, b := range tabs {
			all.Go(func() {
				if got, err := b.tryEval(fmt.Sprintf("(async () => { %s %s %s })()", prelude, clientPrelude, script)); err != nil || got != "done" {
					t.Errorf("%s %v", got, err)
				}
			})
		}
		all.Wait()
	}
	tickets := func() (n int) {
		for _, b := range tabs {
			n += strings.Count(b.asked(gate.origin), "POST /.moat/tickets")
		}
		return n
	}
	everywhere(`await echoed("/api/first"); return "done"`)
	// One index for each tab, and one more for each ahead of need, from tickets of 32.
	if n := tickets(); n > 3 {
		t.Errorf("20 cold tabs asked for %d tickets; want 2", n)
	}
	for range 5 {
		everywhere(`await Promise.all([1, 2, 3].map((n) => echoed("/api/" + n))); return "done"`)
	}
	if n := len(backend.seen()); n != 20+5*20*3 {
		t.Errorf("%d calls reached the backend", n)
	}
	if refused := codes(gate.decisions("")); refused != "" {
		t.Errorf("the gate refused: %s", refused)
	}
	// 320 calls need 10 tickets. What is taken ahead of need and not yet used adds to that.
	if n := tickets(); n > 25 {
		t.Errorf("%d tickets for 320 calls", n)
	}
}

// Private modes refuse storage in one way or another.
func TestClientWithoutStorage(t *testing.T) {
	thorough(t)
	backend := startPageServer(t)
	gate := startMoat(t, ticketYAML(backend, startSite(t, "localhost"), "{rate_limits: plenty, challenge: {quiet_address: 1000/m}}"))
	b := newTab(t)
	for name, broken := range map[string]string{
		"no database":                    `Object.defineProperty(window, "indexedDB", {value: undefined})`,
		"a database that may not open":   `indexedDB.open = null; IDBFactory.prototype.open = () => { throw new DOMException("no", "SecurityError") }`,
		"a database that never opens":    `IDBFactory.prototype.open = () => ({})`,
		"a database that takes no keys":  `IDBObjectStore.prototype.put = () => { throw new DOMException("no", "DataCloneError") }`,
		"a database that gives nothing":  `IDBObjectStore.prototype.get = () => { throw new DOMException("no", "InvalidStateError") }`,
		"no locks":                       `Object.defineProperty(navigator, "locks", {value: undefined})`,
		"a database that goes away soon": `const put = IDBObjectStore.prototype.put; let n = 0; IDBObjectStore.prototype.put = function (...a) { if (n++) throw new DOMException("no", "InvalidStateError"); return put.apply(this, a) }`,
	} {
		b.open(gate.origin + "/")
		if got := b.client(gate.origin, broken+`; for (let i = 0; i < 40; i++) await echoed("/api/" + i); return "done"`); got != "done" {
			t.Errorf("%s: %s", name, got)
		}
	}
	if refused := codes(gate.decisions("")); refused != "" {
		t.Errorf("the gate refused: %s", refused)
	}
}

func TestClientAfterSleep(t *testing.T) {
	thorough(t)
	backend := startPageServer(t)
	gate := startMoat(t, ticketYAML(backend, startSite(t, "localhost"), "{rate_limits: plenty, lifetime: 10s}"))
	b := newTab(t)
	b.open(gate.origin + "/")
	b.client(gate.origin, `await echoed("/api/before"); return ""`)
	state := func(s pagedomain.SetWebLifecycleStateState) {
		b.tell(string(s), func(ctx context.Context, target *chromedp.Target) error {
			_, err := cdp.Call(ctx, target, pagedomain.SetWebLifecycleState, pagedomain.SetWebLifecycleStateParams{State: s})
			return err
		})
	}
	state(pagedomain.SetWebLifecycleStateStateFrozen)
	time.Sleep(11 * time.Second) // until the tickets have expired
	state(pagedomain.SetWebLifecycleStateStateActive)
	b.forget()
	// A clock that did not go on during the sleep does not help the page either.
	for _, clock := range []string{"", "const asleep = Date.now() - 11000; Date.now = () => asleep;"} {
		if got := b.client(gate.origin, clock+`return (await echoed("/api/after")).target`); got != "/api/after" {
			t.Errorf("after sleep: %s", got)
		}
	}
	if n := len(backend.seen()); n != 3 {
		t.Errorf("%d calls reached the backend", n)
	}
}

func TestClientWithAWrongClock(t *testing.T) {
	thorough(t)
	backend := startPageServer(t)
	gate := startMoat(t, ticketYAML(backend, startSite(t, "localhost"), ""))
	for _, skew := range []string{"-365*86400e3", "365*86400e3"} {
		b := newTab(t)
		b.open(gate.origin + "/")
		got := b.client(gate.origin, `const now = Date.now; Date.now = () => now() + `+skew+`;
			for (let i = 0; i < 40; i++) await echoed("/api/" + i); return "done"`)
		if got != "done" {
			t.Error(got)
		}
	}
	if refused := codes(gate.decisions("")); refused != "" {
		t.Errorf("the gate refused: %s", refused)
	}
}

// A phone leaves the WLAN: its address is of another network from one call to the next.
func TestClientMovesToAnotherNetwork(t *testing.T) {
	thorough(t)
	backend := startPageServer(t)
	var address, target atomic.Value
	address.Store("203.0.113.5")
	front := httptest.NewServer(&httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(target.Load().(*url.URL))
		r.Out.Host = r.In.Host
		r.Out.Header["X-Forwarded-For"] = []string{address.Load().(string)}
	}})
	t.Cleanup(front.Close)
	origin := strings.Replace(front.URL, "127.0.0.1", "localhost", 1)
	yaml := strings.Replace(ticketYAML(backend, startSite(t, "localhost"), ""), `public_origins: ["{origin}"]`,
		`public_origins: ["{origin}", "`+origin+`"]`+"\ntrusted_proxies: {from: [127.0.0.1/32], header: X-Forwarded-For}", 1)
	gate := startMoat(t, yaml)
	target.Store(&url.URL{Scheme: "http", Host: gate.addr})

	b := newTab(t)
	b.open(origin + "/")
	b.client(origin, `await echoed("/api/at-home", {method: "POST", body: "x"}); await rest(); return ""`)
	address.Store("198.51.100.7")
	if got := b.client(origin, `return (await echoed("/api/on-the-road", {method: "POST", body: "x"})).target`); got != "/api/on-the-road" {
		t.Error(got)
	}
	if refused := codes(gate.decisions("")); !strings.HasPrefix(refused, "ticket-moved") || strings.Count(refused, "ticket-moved") != 1 {
		t.Errorf("the gate refused: %s; want ticket-moved, once", refused)
	}
}

func TestClientOffline(t *testing.T) {
	thorough(t)
	backend := startPageServer(t)
	gate := startMoat(t, ticketYAML(backend, startSite(t, "localhost"), ""))
	b := newTab(t)
	b.open(gate.origin + "/")
	offline := func(off bool) {
		b.tell("go offline or online", func(ctx context.Context, target *chromedp.Target) error {
			_, err := cdp.Call(ctx, target, network.EmulateNetworkConditionsByRule, network.EmulateNetworkConditionsByRuleParams{
				MatchedNetworkConditions: []*network.Conditions{{Offline: off, DownloadThroughput: -1, UploadThroughput: -1}},
			})
			return err
		})
	}
	offline(true)
	if got := b.client(gate.origin, `return await call("/api/x")`); got != "TypeError: Failed to fetch" {
		t.Errorf("cold and offline: %s", got)
	}
	offline(false)
	b.client(gate.origin, `await echoed("/api/online"); await rest(); return ""`)
	b.forget()
	offline(true)
	if got := b.client(gate.origin, `const all = []; for (let i = 0; i < 4; i++) all.push(await call("/api/x")); return [...new Set(all)].join()`); got != "TypeError: Failed to fetch" {
		t.Errorf("warm and offline: %s", got)
	}
	if n := len(b.to(gate.origin)); n > 2*4 {
		t.Errorf("the client asked %d times for 4 calls: %s", n, b.asked(gate.origin))
	}
	offline(false)
	// The browser takes a moment to believe it.
	eventually(t, "the client goes on", func() (string, bool) {
		got := b.client(gate.origin, `return await call("/api/again")`)
		return got, got != "TypeError: Failed to fetch"
	})
	if got := b.client(gate.origin, `return (await echoed("/api/again")).target`); got != "/api/again" {
		t.Error(got)
	}
}

func TestClientAfterTheGateRestarted(t *testing.T) {
	thorough(t)
	backend := startPageServer(t)
	gate := startMoat(t, ticketYAML(backend, startSite(t, "localhost"), ""))
	b := newTab(t)
	b.open(gate.origin + "/")
	b.client(gate.origin, `await echoed("/api/before"); await rest(); return ""`)
	gate.signal(syscall.SIGTERM)
	gate.wait()
	if gate.process = gate.try(t); gate.process == nil {
		t.Fatal("somebody else took the port")
	}
	b.forget()
	if got := b.client(gate.origin, `return (await echoed("/api/after", {method: "POST", body: "x"})).target`); got != "/api/after" {
		t.Error(got)
	}
	if got := b.asked(gate.origin); !strings.HasPrefix(got, "POST /api/after, POST /.moat/tickets") {
		t.Errorf("asked: %s", got)
	}
}

// A visit more than the quiet ones has to be worked for, whatever the page's policy allows
// the solver to do that with.
func TestClientSolvesChallengesUnderAnyPolicy(t *testing.T) {
	thorough(t)
	backend := startPageServer(t)
	elsewhere := startSite(t, "localhost")
	gate := startMoat(t, ticketYAML(backend, elsewhere, "{rate_limits: plenty, challenge: {quiet_address: 1/m, max_bits: 18}}"))
	// Where the workers come from that began to work.
	const watched = `const ready = new Set(), Native = Worker;
		globalThis.Worker = class extends Native {
			constructor(...args) {
				super(...args);
				this.addEventListener("message", (e) => e.data === "ready" && ready.add(String(args[0]).split(":")[0]));
			}
		};
		const progress = [];
		const fetch = moat({onProgress: (p) => progress.push(p)});
		const answer = await fetch("/api/x");
		return [answer.status, progress.at(-1) ?? "unasked", ...ready].join(" ")`
	strict := "default-src 'none'; connect-src 'self'; base-uri 'none'; form-action 'none'; script-src 'self'"
	for _, c := range []struct{ name, csp, want string }{
		{"no policy", "", "200 1 http"},
		{"own scripts only", strict, "200 1 http"},
		{"workers from blob: only", strict + "; worker-src blob:", "200 1 blob"},
		{"no workers", strict + "; worker-src 'none'", "200 1"},
		{"no workers, but WebAssembly", strict + " 'wasm-unsafe-eval'; worker-src 'none'", "200 1"},
		{"trusted types", strict + "; require-trusted-types-for 'script'", "200 1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			backend.csp.Store(c.csp)
			for range 3 {
				b := newTab(t)
				b.open(gate.origin + "/")
				if got := b.client(gate.origin, watched); got == c.want {
					return
				} else if got != "200 unasked" {
					t.Fatalf("got %s; want %s", got, c.want)
				}
			}
			t.Error("no challenge was asked for")
		})
	}
	t.Run("a page of another origin", func(t *testing.T) {
		b := newTab(t)
		b.open(elsewhere + "/")
		if got, want := b.client(gate.origin, `await load(api + "/.moat/client.js"); `+watched), "200 1 blob"; got != want {
			t.Errorf("got %s; want %s", got, want)
		}
	})
}

// Firefox derives, unwraps, stores and solves too. Its page says itself what it saw.
func TestClientInFirefox(t *testing.T) {
	thorough(t)
	backend := startPageServer(t)
	var api atomic.Value
	said := make(chan string, 1)
	site := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/":
			w.Header().Set("Content-Type", "text/html; charset=utf-8")
			fmt.Fprintf(w, firefoxPage, api.Load())
		case "/said":
			body, err := io.ReadAll(r.Body)
			if err != nil {
				t.Error(err)
			}
			said <- string(body)
		}
	}))
	t.Cleanup(site.Close)
	origin := strings.Replace(site.URL, "127.0.0.1", "localhost", 1)
	gate := startMoat(t, ticketYAML(backend, origin, ""))
	api.Store(gate.origin)

	p := startFirefox(t, origin+"/")
	select {
	case got := <-said:
		if want := "200 200 200 200; stored; 16 of 16 solved"; got != want {
			t.Errorf("the page says %q; want %q", got, want)
		}
	case <-p.done:
		t.Fatalf("Firefox: %v", p.err)
	case <-time.After(4 * patience): // a new profile takes its time
		t.Fatal("the page says nothing")
	}
	if refused := codes(gate.decisions("")); refused != "" {
		t.Errorf("the gate refused: %s", refused)
	}
}

// startFirefox opens a page in Firefox as one who starts it with the page's address, in a new profile
// with these exceptions for certificates.
func startFirefox(t *testing.T, url string, exceptions ...string) *process {
	t.Helper()
	profile := t.TempDir()
	prefs := `user_pref("browser.aboutwelcome.enabled", false);
user_pref("datareporting.policy.dataSubmissionEnabled", false);
user_pref("app.normandy.enabled", false);
user_pref("app.update.disabledForTesting", true);
user_pref("services.settings.server", "data:,");
user_pref("network.captive-portal-service.enabled", false);
user_pref("network.lna.blocking", false);
`
	if err := os.WriteFile(filepath.Join(profile, "user.js"), []byte(prefs), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(profile, "cert_override.txt"), []byte(strings.Join(exceptions, "")), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program(t, "firefox"), "--headless", "--no-remote", "--profile", profile, url)
	cmd.Env = append(os.Environ(), "HOME="+profile, "MOZ_CRASHREPORTER_DISABLE=1")
	return startProcess(t, cmd, func(p *process) { p.signal(syscall.SIGTERM) }, func(*process) {})
}

const firefoxPage = `<!doctype html><meta charset="utf-8"><title>A page</title><link rel="icon" href="data:,">
<script src="%[1]s/.moat/client.js"></script>
<script type="module">
import {solve} from "%[1]s/.moat/solver.js";
const said = [];
try {
  const form = new FormData();
  form.set("file", new Blob(["content"]), "a.txt");
  const status = [];
  for (const [path, init] of [["/api/get?a=b", {}], ["/api/empty?"], ["/api/post", {method: "POST", body: "x"}], ["/api/form", {method: "POST", body: form}]])
    status.push((await moat.fetch(path, init)).status);
  said.push(status.join(" "));

  const answer = (request) => new Promise((done, fail) => { request.onsuccess = () => done(request.result); request.onerror = fail });
  const tickets = (await answer(indexedDB.open("moat"))).transaction("tickets").objectStore("tickets");
  const [kept] = await answer(tickets.getAll());
  said.push(kept?.wrapping?.extractable === false ? "stored" : "not stored");

  const token = crypto.getRandomValues(new Uint8Array(36));
  const solution = await solve({token: btoa(String.fromCharCode(...token)), puzzles: 16, bits: 11});
  let solved = 0;
  for (let i = 0; i < 16; i++) {
    const text = new Uint8Array([...token, i, ...solution.slice(4 * i, 4 * i + 4)]);
    if (new DataView(await crypto.subtle.digest("SHA-256", text)).getUint32(0) >>> 21 === 0) solved++;
  }
  said.push(solved + " of 16 solved");
} catch (error) {
  said.push(String(error));
}
fetch("/said", {method: "POST", body: said.join("; ")});
</script>
`

func TestClientInAnInsecureContext(t *testing.T) {
	thorough(t)
	backend := startPageServer(t)
	insecure := startSite(t, "insecure.test")
	gate := startMoat(t, ticketYAML(backend, startSite(t, "localhost"), ""))
	b := newTab(t)
	b.open(insecure + "/")
	got := b.client(gate.origin, `await load(api + "/.moat/client.js"); try { await moat.fetch("/api/x"); return "sent" }
		catch (e) { return (e instanceof moat.MoatError) + " " + e.code + " " + e.message.includes("https") }`)
	if got != "true insecure-context true" {
		t.Error(got)
	}
	if got := b.asked(gate.origin); got != "GET /.moat/client.js" {
		t.Errorf("asked: %s", got)
	}
}

func TestClientAbort(t *testing.T) {
	thorough(t)
	backend := startPageServer(t)
	gate := startMoat(t, ticketYAML(backend, startSite(t, "localhost"), ""))
	b := newTab(t)
	b.open(gate.origin + "/")
	got := b.client(gate.origin, `
		const abort = new AbortController();
		const aborted = moat.fetch("/api/aborted", {signal: abort.signal}).catch((e) => e.name);
		const other = echoed("/api/other");
		abort.abort();
		return await aborted + " " + (await other).target`)
	if got != "AbortError /api/other" {
		t.Error(got)
	}
	if seen := backend.seen(); len(seen) != 1 {
		t.Errorf("the backend saw %v", seen)
	}
}

// No script gets at a key, wherever it looks.
func TestClientKeysCannotBeExtracted(t *testing.T) {
	thorough(t)
	backend := startPageServer(t)
	gate := startMoat(t, ticketYAML(backend, startSite(t, "localhost"), ""))
	b := newTab(t)
	b.open(gate.origin + "/")
	got := b.client(gate.origin, `
		await echoed("/api/x");
		const request = indexedDB.open("moat");
		await event(request, "success");
		const all = request.result.transaction("tickets").objectStore("tickets").getAll();
		await event(all, "success");
		const [kept] = all.result;
		const found = [];
		for (const [name, value] of Object.entries(kept)) {
			if (!(value instanceof CryptoKey)) continue;
			found.push(name + " " + value.extractable + " " + value.usages + " " + await crypto.subtle.exportKey("raw", value).catch((e) => e.name));
		}
		return all.result.length + ": " + found.sort().join(", ")`)
	if want := "1: key false sign InvalidAccessError, wrapping false unwrapKey InvalidAccessError"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}
