package e2e

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"image/png"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"

	cdpbrowser "github.com/chromedp/cdproto/browser"
	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/log"
	cdpage "github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// dashboardFile is a gate with something enforced, something reported and something spent.
const dashboardFile = `version: 1
listen: {listen}
admin: {admin}
public_origins: ["{origin}"]
trusted_proxies: {from: [127.0.0.1/32], header: X-Forwarded-For}
upstreams: {app: {url: "http://{nobody}"}, model: {url: "http://{upstream}"}}
rate_limits: {visitor: {limit: 1/h burst 5, by: address}}
routes:
  - {match: /shop/, name: shop, upstream: model, auth: public, origins: ["https://shop.example"], browserless: allow}
  - {match: /trial/, name: trial, upstream: model, auth: public, origins: ["https://shop.example"], modes: {cors: report, cross_site: report}}
  - {match: /limited/, name: limited, upstream: model, auth: public, browserless: allow, rate_limits: visitor}
  - {match: /down/, name: down, upstream: app, auth: public, browserless: allow}
`

// dashboardTab is a tab with the dashboard in it, and what the page complained about.
type dashboardTab struct {
	*tab
	gate *moat

	complaintsMu sync.Mutex
	complaints   []string
}

func newDashboard(t *testing.T, m *moat) *dashboardTab {
	t.Helper()
	p := &dashboardTab{tab: newTab(t), gate: m}
	err := chromedp.Listen(p.ctx, func(event any) {
		p.complaintsMu.Lock()
		defer p.complaintsMu.Unlock()
		switch e := event.(type) {
		case *log.EventEntryAdded:
			// An id that nobody was told is not found.
			if !strings.Contains(e.Entry.Text, "404") {
				p.complaints = append(p.complaints, e.Entry.Text+" "+e.Entry.URL)
			}
		case *runtime.EventExceptionThrown:
			p.complaints = append(p.complaints, "exception: "+e.ExceptionDetails.Text)
		case *cdpage.EventJavascriptDialogOpening:
			p.complaints = append(p.complaints, "a dialog: "+e.Message)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	p.open("about:blank")
	for _, name := range []string{"clipboard-read", "clipboard-write"} {
		p.do("let it copy", chromedp.Func(func(ctx context.Context, target *chromedp.Target) error {
			_, err := cdp.Call(ctx, target, cdpbrowser.SetPermission, cdpbrowser.SetPermissionParams{
				Permission: &cdpbrowser.PermissionDescriptor{Name: name}, Setting: "granted", Origin: p.origin(), BrowserContextID: chromedp.FromContext(p.ctx).BrowserContextID,
			})
			return err
		}))
	}
	p.open(p.origin() + "/")
	p.waitFor("the dashboard is there", `document.querySelector("h1") !== null`)
	return p
}

func (p *dashboardTab) origin() string { return "http://" + p.gate.admin }

// waitFor waits for an expression of the page to be true, or a text, and returns it.
func (p *dashboardTab) waitFor(what, expression string) string {
	p.t.Helper()
	var seen string
	eventually(p.t, what, func() (string, bool) {
		v, err := p.tryEval("String(" + expression + ")")
		if err != nil {
			return err.Error(), false
		}
		seen = v
		return v, v != "" && v != "false" && v != "null" && v != "undefined"
	})
	return seen
}

// unspoilt fails the test if the page complained, or asked anybody but its own origin.
func (p *dashboardTab) unspoilt() {
	p.t.Helper()
	p.complaintsMu.Lock()
	defer p.complaintsMu.Unlock()
	for _, c := range p.complaints {
		p.t.Errorf("the page complained: %s", c)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, r := range p.requests {
		if !strings.HasPrefix(r.url, p.origin()+"/") {
			p.t.Errorf("the page asked %s", r.url)
		}
	}
}

// press presses a button with the keyboard.
func (p *dashboardTab) press(selector string) {
	p.t.Helper()
	p.do("press "+selector, chromedp.SendKeys(chromedp.CSS(selector), kb.Enter))
}

// metricSum adds up the series whose line has all of that.
func (m *moat) metricSum(name string, having ...string) (sum int) {
	m.t.Helper()
	for line := range strings.Lines(m.metrics()) {
		if !strings.HasPrefix(line, name+"{") || slices.ContainsFunc(having, func(h string) bool { return !strings.Contains(line, h) }) {
			continue
		}
		var n int
		if _, err := fmt.Sscan(line[strings.LastIndexByte(line, ' '):], &n); err != nil {
			m.t.Fatal(err)
		}
		sum += n
	}
	return sum
}

// knock sends a request to the gate through a proxy that it trusts, for a client of that address.
func (m *moat) knock(method, path, from string, header ...string) int {
	m.t.Helper()
	r, err := http.NewRequestWithContext(m.t.Context(), method, m.origin+path, http.NoBody)
	if err != nil {
		m.t.Fatal(err)
	}
	r.Header.Set("X-Forwarded-For", from)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	res, err := client.Do(r)
	if err != nil {
		m.t.Fatal(err)
	}
	res.Body.Close()
	return res.StatusCode
}

func startWatched(t *testing.T) *moat {
	t.Helper()
	up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("{}")) }))
	t.Cleanup(up.Close)
	return startMoat(t, strings.ReplaceAll(dashboardFile, "{upstream}", up.Listener.Addr().String()))
}

// visit makes traffic of each kind.
func (m *moat) visit() {
	evil := []string{"Origin", "https://evil.example", "Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "cors"}
	for range 12 {
		m.knock("GET", "/shop/items", "203.0.113.5")
	}
	for range 7 {
		m.knock("GET", "/shop/items?coupon=CANARY", "198.51.100.23", evil...)
	}
	for range 5 {
		m.knock("GET", "/trial/", "203.0.113.6", "Sec-Fetch-Site", "same-origin")
	}
	for range 4 {
		m.knock("POST", "/trial/", "198.51.100.23", evil...) // two guards object
	}
	for range 9 {
		m.knock("GET", "/limited/", "198.51.100.99")
	}
	for range 3 {
		m.knock("GET", "/down/", "203.0.113.7")
	}
	m.knock("GET", "/.env", "192.0.2.66")
}

// TestDashboardFiguresAreTheMetrics: what the overview shows of real traffic is what /metrics
// counts, enforced and reported apart.
func TestDashboardFiguresAreTheMetrics(t *testing.T) {
	thorough(t)
	t.Parallel()
	m := startWatched(t)
	m.visit()
	p := newDashboard(t, m)
	for id, want := range map[string]int{
		"served":  m.metricSum("moat_decisions_total", `reason="ok"`),
		"refused": m.metricSum("moat_decisions_total", `mode="enforce"`, `reason="cors-origin-not-allowed"`) + m.metricSum("moat_decisions_total", `reason="rate-limited"`) + m.metricSum("moat_decisions_total", `reason="route-not-found"`),
		"spared":  m.metricSum("moat_would_refuse_total"),
		"failed":  m.metricSum("moat_decisions_total", `reason="upstream-unreachable"`),
	} {
		if want == 0 {
			t.Errorf("%s: the metrics have none", id)
		}
		p.waitFor(fmt.Sprintf("%s is %d", id, want), fmt.Sprintf(`document.getElementById(%q)?.dataset.n === "%d"`, id, want))
	}
	if spared := m.metricSum("moat_would_refuse_total"); spared != 4 {
		t.Errorf("%d requests would have been refused; want 4, each once", spared)
	}
	text := p.eval(`document.querySelector("#enforcing").parentElement.innerText`)
	for _, want := range []string{"Of 29 requests that passed, 4 (14%)", "cors-origin-not-allowed", "trial", "44%"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in: %s", want, text)
		}
	}
	if top := p.eval(`document.querySelector("section[aria-label='Top clients'] li").innerText`); !strings.Contains(top, "198.51.100.23") {
		t.Errorf("the client that was met most is %q", top)
	}
	// One route alone.
	p.eval(`(() => { const s = document.querySelector(".controls select"); s.value = "/limited"; s.dispatchEvent(new Event("change", { bubbles: true })); return "" })()`)
	p.waitFor("one route is shown", `document.getElementById("refused").dataset.n === "4" && document.getElementById("served").dataset.n === "5"`)
	// The chart by keyboard.
	p.eval(`(document.querySelector(".plot svg").focus(), "")`)
	p.do("to the last bar", chromedp.KeyEvent(kb.End))
	p.waitFor("the bar is read out", `/refused 4.*served 5|served 5.*refused 4/.test(document.querySelector(".readout").textContent)`)
	p.unspoilt()
}

// TestDashboardLive: a refusal appears when it is made, a filter holds the rest back, a pause
// holds all back and loses none, and a row says why.
func TestDashboardLive(t *testing.T) {
	thorough(t)
	t.Parallel()
	m := startWatched(t)
	p := newDashboard(t, m)
	p.open(p.origin() + "/#/live")
	p.waitFor("it watches", `document.querySelector(".state").textContent === "Watching"`)
	rows := func(n int) {
		t.Helper()
		p.waitFor(fmt.Sprintf("%d rows", n), fmt.Sprintf(`document.querySelectorAll(".tail tbody tr").length === %d`, n))
	}
	m.knock("GET", "/nowhere", "192.0.2.1")
	rows(1)
	m.knock("GET", "/shop/", "192.0.2.2", "Origin", "https://evil.example")
	m.knock("GET", "/trial/", "192.0.2.3", "Origin", "https://evil.example")
	rows(3)

	p.press("#pause")
	m.knock("GET", "/nowhere", "192.0.2.1")
	p.waitFor("the pause tells", `document.querySelector(".state").textContent.includes("1 waiting")`)
	rows(3)
	p.press("#pause")
	rows(4)

	p.eval(`(() => { const s = document.querySelector("select[name=mode]"); s.value = "report"; s.dispatchEvent(new Event("change", { bubbles: true })); return "" })()`)
	rows(1)
	p.eval(`(() => { const s = document.querySelector("input[name=client]"); s.value = "192.0.2.9"; s.dispatchEvent(new Event("change", { bubbles: true })); return "" })()`)
	rows(0)
	m.knock("GET", "/trial/", "192.0.2.4", "Origin", "https://evil.example")
	m.knock("GET", "/trial/", "192.0.2.9", "Origin", "https://evil.example")
	rows(1)
	p.click(".tail tbody tr td")
	p.waitFor("the row says why", `document.querySelector(".why #code")?.textContent === "cors-origin-not-allowed"`)
	if text := p.eval(`document.querySelector(".why").innerText`); !strings.Contains(text, "enforcing would have refused it") || !strings.Contains(text, "https://evil.example") {
		t.Errorf("it says: %s", text)
	}
	p.unspoilt()
}

// TestDashboardVectorIsCopied: what one copies is what moat check takes, and what curl sends.
func TestDashboardVectorIsCopied(t *testing.T) {
	thorough(t)
	t.Parallel()
	m := startWatched(t)
	p := newDashboard(t, m)
	m.knock("GET", "/shop/items?coupon=CANARY&page=2", "192.0.2.2", "Origin", "https://evil.example", "Authorization", "Bearer CANARY", "Cookie", "sid=CANARY")
	id := m.lastDecision()
	p.open(p.origin() + "/#/why")
	p.do("type the id", chromedp.SendKeys(chromedp.CSS("input[name=id]"), id+kb.Enter))
	p.waitFor("it is explained", `document.querySelector("#test") !== null`)
	p.press("figure:has(#test) .copy")
	p.waitFor("the button tells", `document.querySelector("figure:has(#test) .copy").textContent === "Copied"`)
	item := p.eval(`navigator.clipboard.readText()`)
	p.press("figure:has(#curl) .copy")
	p.waitFor("the button tells", `document.querySelector("figure:has(#curl) .copy").textContent === "Copied"`)
	command := p.eval(`navigator.clipboard.readText()`)
	if strings.Contains(item+command, "CANARY") || strings.Contains(p.eval(`document.documentElement.outerHTML`), "CANARY") {
		t.Errorf("a secret is shown:\n%s\n%s", item, command)
	}

	file := m.file + ".with-test.yaml"
	if err := os.WriteFile(file, []byte(m.read(t)+"tests:\n"+item), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), moatCommand(t), "check", file).CombinedOutput(); err != nil || !strings.Contains(string(out), "1 tests passed") {
		t.Errorf("moat check: %v\n%s\n%s", err, out, item)
	}
	// Without the line that decides the test fails: it is no test that always passes.
	if err := os.WriteFile(file, []byte(m.read(t)+"tests:\n"+strings.Replace(item, "https://evil.example", "https://shop.example", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), moatCommand(t), "check", file).CombinedOutput(); err == nil {
		t.Errorf("moat check takes another request: %s", out)
	}
	out, err := exec.CommandContext(t.Context(), "/bin/sh", "-c", command).Output()
	if err != nil || !strings.Contains(string(out), "cors-origin-not-allowed") {
		t.Errorf("curl: %v\n%s\n%s", err, out, command)
	}

	// What cannot be had again says so.
	for range 7 {
		m.knock("GET", "/limited/", "192.0.2.3")
	}
	p.open(p.origin() + "/#/why/" + m.lastDecision())
	p.waitFor("there is no test", `document.querySelector("#code")?.textContent === "rate-limited" && document.querySelector("#test") === null && document.querySelector("#because").textContent.includes("as the limit has room")`)
	p.open(p.origin() + "/#/why/no-such-id")
	p.waitFor("an unknown id", `document.querySelector("[role=alert]")?.textContent.includes("no such decision")`)
	p.unspoilt()
}

// spendingFile is a gate whose visitors have budgets.
const spendingFile = `version: 1
listen: {listen}
admin: {admin}
public_origins: ["{origin}"]
trusted_proxies: {from: [127.0.0.1/32], header: X-Forwarded-For}
upstreams: {model: {url: "http://{upstream}"}}
store: {file: moat.db}
budgets:
  each: {by: address, per: day, requests: 4}
  site: {by: site, per: month, requests: 40}
routes:
  - {match: /ask/, name: ask, upstream: model, auth: public, browserless: allow, budgets: [each, site]}
  - {match: /, name: pages, upstream: model, auth: public, browserless: allow}
`

// TestDashboardBudgetsAndKillSwitch: what is spent stands against its cap, and the switch stops
// what spends and nothing else, after a second look, until somebody resumes.
func TestDashboardBudgetsAndKillSwitch(t *testing.T) {
	thorough(t)
	t.Parallel()
	up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("{}")) }))
	t.Cleanup(up.Close)
	m := startMoat(t, strings.ReplaceAll(spendingFile, "{upstream}", up.Listener.Addr().String()))
	for range 6 {
		m.knock("GET", "/ask/", "203.0.113.5")
	}
	m.knock("GET", "/ask/", "203.0.113.6")
	p := newDashboard(t, m)
	p.waitFor("what is spent", `/5 of 40 requests, 13%/.test(document.querySelector("#budgets").parentElement.innerText)`)
	if text := p.eval(`document.querySelector("#budgets").parentElement.innerText`); !strings.Contains(text, "each address may use 4") || !strings.Contains(text, "203.0.113.5") {
		t.Errorf("the budgets are: %s", text)
	}
	ask := func(want int, page int) {
		t.Helper()
		if got := m.knock("GET", "/ask/", "203.0.113.9"); got != want {
			t.Errorf("a call: status %d; want %d", got, want)
		}
		if got := m.knock("GET", "/", "203.0.113.9"); got != page {
			t.Errorf("a page: status %d; want %d", got, page)
		}
	}
	ask(200, 200)
	p.press("#stop")
	p.waitFor("it asks", `document.querySelector("dialog").open`)
	p.press("dialog button:last-child")
	p.waitFor("it is left running", `!document.querySelector("dialog").open`)
	ask(200, 200)
	p.press("#stop")
	p.press("#stop-now")
	p.waitFor("it is stopped", `document.querySelector(".kill [role=status]")?.textContent.startsWith("Spending is stopped since")`)
	ask(503, 200)
	p.press("#resume")
	p.waitFor("it goes on", `document.querySelector("#stop") !== null`)
	ask(200, 200)
	p.unspoilt()
}

// TestDashboardShowsHostileText: what a client sends stands there as text, wherever it stands.
func TestDashboardShowsHostileText(t *testing.T) {
	thorough(t)
	t.Parallel()
	m := startWatched(t)
	p := newDashboard(t, m)
	const script = `<img src=x onerror=alert(1)>`
	encoded := strings.NewReplacer("<", "%3C", ">", "%3E", " ", "%20").Replace(script) + "%E2%80%AE%3Cscript%3Ealert(2)%3C/script%3E"
	m.knock("GET", "/shop/"+encoded+"?"+encoded+"=1", "192.0.2.2", "Origin", script, "User-Agent", script, "Accept-Language", `"><svg onload=alert(3)>`, "Content-Type", script)
	m.knock("GET", "/trial/"+encoded, "192.0.2.2", "Origin", "https://"+`"onmouseover="alert(4)`, "Sec-Fetch-Site", script)
	m.knock("GET", "/"+encoded, "192.0.2.2", "Origin", "javascript:alert(5)")
	ids := []string{}
	for _, d := range m.decisions("") {
		ids = append(ids, d.ID)
	}
	if len(ids) < 3 {
		t.Fatalf("%d decisions", len(ids))
	}
	for _, screen := range append([]string{"", "live", "live/" + encoded, "why/" + encoded, "reasons/" + encoded}, func() (all []string) {
		for _, id := range ids {
			all = append(all, "why/"+id)
		}
		return all
	}()...) {
		p.open("about:blank")
		p.open(p.origin() + "/#/" + screen)
		p.waitFor("the screen is there", `document.querySelector("h1") !== null && !document.body.innerText.includes("Asking")`)
		if slices.Contains(ids, strings.TrimPrefix(screen, "why/")) {
			p.waitFor("it is explained", `document.querySelector(".why") !== null`)
		}
		if found := p.eval(`[...document.querySelectorAll("#app img, #app script, #app svg[onload], #app iframe, #app [onerror], #app [onmouseover], #app a[href^='javascript:']")].map((e) => e.outerHTML).join()`); found != "" {
			t.Errorf("%s has markup of the client's: %s", screen, found)
		}
	}
	p.open(p.origin() + "/#/live")
	p.waitFor("the text is shown as text", `document.querySelector(".tail")?.innerText.includes("<img src=x onerror=alert(1)>")`)
	p.unspoilt()
}

// TestDashboardIsUsable: on every screen, light and dark, axe-core finds no serious fault, nothing
// scrolls sideways at the width of a phone, and nothing moves for those who want it so.
func TestDashboardIsUsable(t *testing.T) {
	thorough(t)
	t.Parallel()
	m := startWatched(t)
	m.visit()
	engine := axe(t)
	p := newDashboard(t, m)
	look := &labTab{tab: p.tab}
	for _, screen := range []string{"", "live", "why/" + m.lastDecision(), "reasons"} {
		for _, scheme := range []string{"light", "dark"} {
			look.look(scheme, 1280)
			p.open("about:blank")
			p.open(p.origin() + "/#/" + screen)
			p.waitFor("the screen is there", `document.querySelector(".figures, .tail tbody tr, .why, .reasons") !== null`)
			p.eval(engine + `; ""`)
			if found := p.eval(`axe.run(document, { resultTypes: ["violations"] }).then((r) => r.violations
				.filter((v) => v.impact === "serious" || v.impact === "critical")
				.map((v) => v.id + ": " + v.help + ": " + v.nodes.map((n) => n.html.slice(0, 160) + " " + n.any.map((a) => a.message).join("; ")).join(" | ")).join("\n"))`); found != "" {
				t.Errorf("%s, %s: axe-core:\n%s", screen, scheme, found)
			}
			if moving := p.eval(`document.getAnimations().filter((a) => a.playState === "running").length + ""`); moving != "0" {
				t.Errorf("%s: %s things move", screen, moving)
			}
			look.look(scheme, 360)
			if wide := p.eval(`[...document.querySelectorAll("body *")].filter((e) => document.documentElement.scrollWidth > innerWidth && e.getBoundingClientRect().right > innerWidth + 1).slice(0, 5).map((e) => e.outerHTML.slice(0, 120)).join("\n")`); wide != "" {
				t.Errorf("%s: wider than a phone:\n%s", screen, wide)
			}
		}
	}
	p.unspoilt()
}

var takeDashboard = flag.Bool("dashboard.picture", false, "take the picture of the dashboard anew, of the page at the address in MOAT_DASHBOARD")

// TestDashboardPicture: the picture in the docs is there, and small.
func TestDashboardPicture(t *testing.T) {
	const file = "../docs/dashboard.png"
	if *takeDashboard {
		p := &labTab{tab: newTab(t)}
		p.look("light", 1280)
		p.open(os.Getenv("MOAT_DASHBOARD"))
		p.until("the figures are there", `document.querySelector(".would tbody tr") !== null`)
		shot := p.picture(`JSON.stringify({ x: 0, y: 0, width: 1280, height: document.querySelector("#enforcing").parentElement.getBoundingClientRect().bottom + scrollY + 24, scale: 1 })`)
		if err := os.WriteFile(file, shot, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if c, err := png.DecodeConfig(bytes.NewReader(b)); err != nil || c.Width != 1280 || len(b) > 200<<10 {
		t.Errorf("%s: %v, %d pixels wide, %d bytes; want 1280, and 200 KiB at most", file, err, c.Width, len(b))
	}
}
