package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// Bounds on what a visitor loads, in bytes: the model, which comes when it is needed, and
// everything else.
const (
	maxModel       = 7 << 20
	maxModelZipped = 2 << 20
	maxFirstLoad   = 150 << 10
)

// explainPageCSP is the strictest policy that the page can be served with.
const explainPageCSP = "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; connect-src 'self'; " +
	"img-src 'self'; worker-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

var explainDist once[string]

// explainPage builds the page, once for all tests.
func explainPage(t *testing.T) string {
	t.Helper()
	return explainDist.get(t, func(t *testing.T) string {
		t.Helper()
		dist := scratchFile("explain-page")
		out, err := exec.CommandContext(t.Context(), "/bin/sh", "../explain/web/build.sh", dist).CombinedOutput()
		if err != nil {
			t.Fatalf("build.sh: %v\n%s", err, out)
		}
		return dist
	})
}

// explainTab is a tab that shows the page, and what it complained about.
type explainTab struct {
	*tab
	url    string
	server *httptest.Server

	mu         sync.Mutex
	complaints []string
}

func openExplain(t *testing.T, fragment string) *explainTab {
	t.Helper()
	files := http.FileServer(http.Dir(explainPage(t)))
	e := &explainTab{tab: newTab(t), server: httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Security-Policy", explainPageCSP)
		w.Header().Set("X-Content-Type-Options", "nosniff")
		files.ServeHTTP(w, r)
	}))}
	t.Cleanup(e.server.Close)
	e.url = strings.Replace(e.server.URL, "127.0.0.1", "localhost", 1)
	if err := chromedp.Listen(e.ctx, e.listen); err != nil {
		t.Fatal(err)
	}
	e.open(e.url + "/" + fragment)
	return e
}

func (e *explainTab) listen(event any) {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch v := event.(type) {
	case *log.EventEntryAdded:
		e.complaints = append(e.complaints, fmt.Sprintf("%s: %s", v.Entry.Source, v.Entry.Text))
	case *runtime.EventExceptionThrown:
		e.complaints = append(e.complaints, "exception: "+v.ExceptionDetails.Text)
	case *runtime.EventConsoleAPICalled:
		if slices.Contains([]string{"error", "warning", "assert"}, string(v.Type)) {
			e.complaints = append(e.complaints, "console: "+string(v.Type))
		}
	}
}

func (e *explainTab) complained() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return append([]string(nil), e.complaints...)
}

// do runs statements in the page. They know el, the component, root, its shadow root,
// text(selector), press(text of a button) and until(condition).
func (e *explainTab) script(statements string) string {
	e.t.Helper()
	return e.eval(`(async () => {
		const until = async (what) => {
			for (let i = 0; i < 400; i++) {
				const value = await what();
				if (value) return value;
				await new Promise((done) => setTimeout(done, 50));
			}
			throw new Error("never: " + what + "; it says: " + root.querySelector(".message").textContent + root.querySelector(".status").textContent);
		};
		const el = document.querySelector("moat-explain");
		await customElements.whenDefined("moat-explain");
		const root = el.shadowRoot;
		const text = (selector) => root.querySelector(selector)?.innerText ?? "";
		const press = (label) => [...root.querySelectorAll("button")].find((b) => b.textContent === label).click();
		` + statements + `
	})()`)
}

func wantAll(t *testing.T, what, text string, parts ...string) {
	t.Helper()
	for _, p := range parts {
		if !strings.Contains(text, p) {
			t.Errorf("%s lacks %q:\n%s", what, p, text)
		}
	}
}

func TestExplainPageIsSmall(t *testing.T) {
	thorough(t)
	dist := explainPage(t)
	sizes := map[string]int64{}
	entries, err := os.ReadDir(dist)
	if err != nil {
		t.Fatal(err)
	}
	rest := int64(0)
	for _, entry := range entries {
		info, err := os.Stat(filepath.Join(dist, entry.Name()))
		if err != nil {
			t.Fatal(err)
		}
		sizes[entry.Name()] = info.Size()
		if !strings.HasPrefix(entry.Name(), "moat.wasm") {
			rest += info.Size()
		}
	}
	if n := sizes["moat.wasm"]; n == 0 || n > maxModel {
		t.Errorf("the model has %d bytes, more than %d", n, maxModel)
	}
	if n := sizes["moat.wasm.gz"]; n == 0 || n > maxModelZipped {
		t.Errorf("the model has %d bytes compressed, more than %d", n, maxModelZipped)
	}
	if rest > maxFirstLoad {
		t.Errorf("all but the model has %d bytes, even before compression more than %d", rest, maxFirstLoad)
	}
	for _, own := range []string{"index.html", "sw.js"} {
		b, err := os.ReadFile(filepath.Join(dist, own))
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(b), `"VERSION"`) || strings.Contains(string(b), `["FILES"]`) {
			t.Errorf("%s was not filled in", own)
		}
	}
}

func TestExplainPageReadsWhatIsPasted(t *testing.T) {
	thorough(t)
	e := openExplain(t, "")
	const chrome = "Access to fetch at 'https://api.example/items' from origin 'https://app.example' has been blocked by CORS policy: " +
		"Response to preflight request doesn't pass access control check: No 'Access-Control-Allow-Origin' header is present on the requested resource."
	said := e.script(`
		root.querySelector("textarea").value = ` + quoted(chrome) + `;
		press("Explain it");
		await until(() => text(".diagnosis") && el.answer);
		return text(".main-column");`)
	wantAll(t, "the page", said,
		"Chrome's message", "The answer to the preflight lacks Access-Control-Allow-Origin", "Only the preflight: an OPTIONS without cookies.",
		"CORS-preflight fetch", "Blocked before the POST was sent", "OPTIONS https://api.example/items", "only answers", "✕ fails here",
		"Express", "PreflightMissingAllowOriginHeader", "CORSMissingAllowOrigin", chrome)

	said = e.script(`
		root.querySelector("textarea").value = ` + quoted("curl -X PUT https://api.example/items/1 -H 'Origin: https://shop.example' -H 'Authorization: Bearer abc'") + `;
		press("Explain it");
		await until(() => el.answer?.case.page.url === "https://shop.example/");
		return text(".main-column") + root.querySelector("[data-field=url]").value + location.href;`)
	wantAll(t, "the page", said, "never heard of CORS", "Blocked before the PUT was sent", "https://api.example/items/1")
	if strings.Contains(said, "abc") || strings.Contains(said, "Chrome's message") {
		t.Errorf("the page keeps what it should not:\n%s", said)
	}

	said = e.script(`
		root.querySelector("textarea").value = "it does not work";
		press("Explain it");
		return until(() => text(".message"));`)
	wantAll(t, "the message", said, "no error of a browser is known")
}

func TestExplainPageExplainsWhatIsDescribed(t *testing.T) {
	thorough(t)
	e := openExplain(t, "")
	said := e.script(`
		await until(() => root.querySelectorAll(".presets button").length > 5);
		press("A stranger's form, with your cookie");
		await until(() => el.answer?.case.requests[0].api === "form");
		return text(".result");`)
	wantAll(t, "the form", said, "CORS does not apply", "POST https://bank.example/transfer", "Cookie: session=…", "executes it")

	said = e.script(`
		press("“*” and cookies");
		await until(() => el.answer?.error?.name === "WildcardOriginNotAllowed");
		const heard = [];
		el.addEventListener("explained", (event) => heard.push(event.detail.explanation.outcome));
		const fields = [...root.querySelectorAll("select")];
		const credentials = fields.find((s) => [...s.options].some((o) => o.value === "omit"));
		credentials.value = "omit";
		credentials.dispatchEvent(new Event("change"));
		await until(() => heard.includes("allowed"));
		return text(".verdict") + " heard: " + heard.at(-1) + " " + root.querySelector("[role=status]").textContent;`)
	wantAll(t, "without credentials", said, "The page may read the answer, 200 OK", "heard: allowed")

	// Tabs go by the keyboard.
	said = e.script(`
		press("Blocked, and executed all the same");
		await until(() => el.answer?.error?.name === "MissingAllowOriginHeader");
		const first = root.querySelector("[role=tab]");
		first.focus();
		first.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowLeft", bubbles: true }));
		const chosen = root.querySelector("[role=tab][aria-selected=true]");
		return chosen.textContent + " " + (root.activeElement === chosen) + " " + [...root.querySelectorAll("[role=tabpanel]")].filter((p) => !p.hidden).length;`)
	if said != "FastAPI true 1" {
		t.Errorf("the tabs: %s", said)
	}

	// The embedder's interface: a property, a method, an event.
	said = e.script(`
		const other = document.createElement("moat-explain");
		other.case = { page: { url: "https://app.example/" }, requests: [{ api: "fetch", url: "https://app.example/same" }], answers: [{ answer: { status: 200 } }] };
		document.body.append(other);
		const { explanation } = await other.explain();
		const before = location.hash;
		return explanation.summary + (location.hash === before);`)
	wantAll(t, "the second component", said, "of its own origin", "true")
	e.unspoilt()
}

func TestExplainPageIsShared(t *testing.T) {
	thorough(t)
	e := openExplain(t, "")
	link := e.script(`
		await until(() => root.querySelectorAll(".presets button").length > 5);
		press("Redirected, and now the origin is “null”");
		await until(() => el.answer?.error?.name === "AllowOriginMismatch");
		await until(() => location.hash.startsWith("#1."));
		return location.href;`)
	const state = `
		await until(() => el.answer);
		return ["diagnosis", "verdict", "lanes", "mends", "said", "steps"].map((part) => text("." + part)).join("|") + [...root.querySelectorAll("input[type=text], textarea, select")].map((c) => c.value).join("|");`
	before := e.script(state)
	e.open("about:blank")
	e.open(link)
	if after := e.script(state); after != before {
		t.Errorf("the link shows another state:\n%s\nnot\n%s", after, before)
	}

	link = e.script(`
		await el.paste("(Reason: CORS header ‘Access-Control-Allow-Origin’ missing). https://api.example/?token=c2VjcmV0c2VjcmV0c2VjcmV0");
		press("PreflightMissingAllowOriginHeader");
		await until(() => el.answer?.error?.name === "PreflightMissingAllowOriginHeader");
		const shown = location.hash;
		await until(() => location.hash !== shown || el.answer);
		await new Promise((done) => setTimeout(done, 300));
		return location.href;`)
	before = e.script(state)
	e.open("about:blank")
	e.open(link)
	after := e.script(state)
	wantAll(t, "the shared error", after, "Firefox's message", "Blocked before the POST was sent")
	if after == "" || strings.Contains(after, "c2VjcmV0") || !strings.Contains(before, "Firefox's message") {
		t.Errorf("the shared error is\n%s\nand was\n%s", after, before)
	}
	e.unspoilt()
}

func TestExplainPageBelievesNoLink(t *testing.T) {
	thorough(t)
	e := openExplain(t, "#<script>window.pwned=1</script>")
	const message = `return until(() => text(".message"));`
	wantAll(t, "script tags", e.script(message), "The link cannot be read")
	for name, make := range map[string]string{
		"garbage":  `"#1.AAAAAAAA"`,
		"too long": `"#1." + "A".repeat(200_000)`,
		"a bomb": `await (async () => {
			const zeros = new Blob([new Uint8Array(50_000_000)]).stream().pipeThrough(new CompressionStream("deflate-raw"));
			const bytes = new Uint8Array(await new Response(zeros).arrayBuffer());
			let b = ""; for (const x of bytes) b += String.fromCharCode(x);
			return "#1." + btoa(b).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
		})()`,
		"no case":       `"#" + await pack({ case: "<img src=x onerror=window.pwned=1>" })`,
		"a list":        `"#" + await pack([1])`,
		"nothing":       `"#" + await pack({})`,
		"odd types":     `"#" + await pack({ case: { page: [], requests: "x", answers: { length: 9 } } })`,
		"a deep one":    `"#" + await pack(JSON.parse('{"case":' + "[".repeat(50_000) + "]".repeat(50_000) + "}"))`,
		"a poisoned":    `"#" + await pack(JSON.parse('{"case":{"__proto__":{"page":1}}}'))`,
		"a bad URL":     `"#" + await pack({ case: { page: { url: "javascript:window.pwned=1" }, requests: [{ api: "fetch", url: "x" }] } })`,
		"a wrong error": `"#" + await pack({ text: "<script>window.pwned=1</script>" })`,
	} {
		e.open("about:blank")
		e.open(e.url + "/")
		said := e.script(`
			const { pack } = await import("/share.js");
			location.hash = ` + make + `;
			` + message)
		if said == "" || strings.Contains(e.eval("String(window.pwned)"), "1") {
			t.Errorf("%s: %q", name, said)
		}
	}

	// Markup in a case that is in order is text.
	e.open("about:blank")
	e.open(e.url + "/")
	said := e.script(`
		const evil = "<img src=x onerror=window.pwned=1><script>window.pwned=1</" + "script>";
		const { pack } = await import("/share.js");
		location.hash = "#" + await pack({
			notes: [evil], case: {
				page: { url: "https://app.example/" }, requests: [{ api: "fetch", url: "https://api.example/?" + evil, headers: [["X-A", evil]] }],
				answers: [{ on: "preflight", answer: { status: 302, headers: [["Location", "javascript:window.pwned=1//" + evil], ["Vary", evil]] } }],
			},
		});
		await until(() => text(".notes").includes(evil));
		const links = [...root.querySelectorAll("a")].map((a) => a.href);
		return text(".result") + " images: " + root.querySelectorAll("img, script, iframe").length + " strange links: " + links.filter((l) => !l.startsWith("https://")).length;`)
	wantAll(t, "markup", said, "<img src=x onerror=window.pwned=1>", "images: 0", "strange links: 0")
	if pwned := e.eval("String(window.pwned)"); pwned != "undefined" {
		t.Errorf("a link ran script: %s", pwned)
	}
	e.unspoilt()
}

func TestExplainPageWorksOffline(t *testing.T) {
	thorough(t)
	e := openExplain(t, "")
	e.script(`return until(() => document.documentElement.dataset.offline === "ready" && navigator.serviceWorker.controller && document.getElementById("offline").textContent);`)
	e.server.Close()
	e.open("about:blank")
	e.open(e.url + "/")
	said := e.script(`
		await until(() => root.querySelectorAll(".presets button").length > 5);
		press("An image that stays at home");
		await until(() => el.answer?.case.requests[0].api === "img");
		return text(".verdict");`)
	wantAll(t, "offline", said, "Blocked after the backend executed it")
}

// unspoilt fails the test if the page asked anybody else, or complained; and shows that
// complaints would have been heard.
func (e *explainTab) unspoilt() {
	e.t.Helper()
	e.tab.mu.Lock()
	for _, r := range e.requests {
		if !strings.HasPrefix(r.url, e.url+"/") && !strings.HasPrefix(r.url, "about:") {
			e.t.Errorf("the page asked %s", r.url)
		}
	}
	e.tab.mu.Unlock()
	if c := e.complained(); len(c) > 0 {
		e.t.Errorf("the page complained: %s", strings.Join(c, "\n"))
	}
	e.eval(`document.body.append(Object.assign(document.createElement("script"), { textContent: "window.pwned = 1" })); ""`)
	eventually(e.t, "a violation of the policy is heard", func() (string, bool) {
		c := e.complained()
		return strings.Join(c, "\n"), len(c) > 0
	})
}

func quoted(text string) string {
	b, err := json.Marshal(text)
	if err != nil {
		panic(err)
	}
	return string(b)
}
