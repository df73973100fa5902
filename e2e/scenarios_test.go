package e2e

import "fmt"

// kind is what a scenario proves.
type kind int

const (
	// attack must not reach the backend through moat.
	attack kind = iota
	// use must work through moat as it does without: the handler runs once, and nothing
	// is refused.
	use
	// fault is refused, by moat or by Express, and the friendly page can tell why.
	fault
)

// The pages, by where they are from.
const (
	stranger  = "stranger"  // http://evil.test: another site
	neighbour = "neighbour" // http://127.0.0.1: another site too, whatever the address says
	sibling   = "sibling"   // http://localhost on another port: the same site, another origin
	friendly  = "friendly"  // http://localhost on the port whose origin the lists have
	own       = "own"       // a page of the API itself
	private   = "private"   // the same, under Referrer-Policy: no-referrer
	rebound   = "rebound"   // http://evil.test on the API's port: a name rebound to its address
)

// scenario is something that a page does. The victim is logged in: there are cookies
// that travel with requests of the same site, and others that travel with all.
type scenario struct {
	name string
	kind kind
	page string
	do   string // in the page: see tab.run
	// click is what the user then clicks; types, the path on the API that the user types.
	click, types string
	// leaves says that the browser leaves the page, for a document of the API.
	leaves bool
	// origin is the Origin that reaches the backend, where it matters.
	origin     string
	bare, moat outcome
}

// outcome is what a scenario comes to.
type outcome struct {
	// arrived are the methods of the requests that the backend got, preflights included.
	arrived string
	// runs counts how often handlers ran.
	runs int
	// saw is what the page, or the user, came to see.
	saw string
	// cors has the names of Chromium's CORS errors, which no script is told.
	cors string
	// cookies are those that reached the backend.
	cookies string
	// code is moat's reason for each refusal.
	code string
}

func (o outcome) String() string {
	return fmt.Sprintf("arrived %q, runs %d, saw %q, CORS error %q, cookies %q, reason %q", o.arrived, o.runs, o.saw, o.cors, o.cookies, o.code)
}

const failed = "TypeError: Failed to fetch"

var scenarios = []scenario{
	{
		name: "A, D and row 1: a simple GET", page: stranger,
		do:   `return saw(fetch(api + "/api/data"))`,
		bare: outcome{arrived: "GET", runs: 1, saw: failed, cors: "MissingAllowOriginHeader"},
		moat: outcome{saw: failed, cors: "MissingAllowOriginHeader", code: "cors-origin-not-allowed"},
	},
	{
		name: "A simple GET with the victim's cookies", page: stranger,
		do:   `return saw(fetch(api + "/api/data", { credentials: "include" }))`,
		bare: outcome{arrived: "GET", runs: 1, saw: failed, cors: "MissingAllowOriginHeader", cookies: "everywhere"},
		moat: outcome{saw: failed, cors: "MissingAllowOriginHeader", code: "cors-origin-not-allowed"},
	},
	{
		name: "B: the same from the friendly page", kind: use, page: friendly,
		do:   `return saw(fetch(api + "/api/data"))`,
		bare: outcome{arrived: "GET", runs: 1, saw: "cors 200 data"},
		moat: outcome{arrived: "GET", runs: 1, saw: "cors 200 data"},
	},
	{
		name: "E and row 3: a POST of JSON", page: stranger,
		do:   `return saw(fetch(api + "/transfer", { method: "POST", headers: { "Content-Type": "application/json" }, body: json }))`,
		bare: outcome{arrived: "OPTIONS", saw: failed, cors: "PreflightMissingAllowOriginHeader"},
		moat: outcome{saw: failed, cors: "PreflightMissingAllowOriginHeader", code: "cors-origin-not-allowed"},
	},
	{
		name: "F and row 2: a GET with Authorization", page: stranger,
		do:   `return saw(fetch(api + "/api/private", { headers: { Authorization: "Bearer 1" } }))`,
		bare: outcome{arrived: "OPTIONS", saw: failed, cors: "PreflightMissingAllowOriginHeader"},
		moat: outcome{saw: failed, cors: "PreflightMissingAllowOriginHeader", code: "cors-origin-not-allowed"},
	},
	{
		name: "G: a POST of JSON with Authorization from the friendly page", kind: use, page: friendly,
		do:   `return saw(fetch(api + "/transfer", { method: "POST", headers: { "Content-Type": "application/json", Authorization: "Bearer 1" }, body: json }))`,
		bare: outcome{arrived: "OPTIONS POST", runs: 1, saw: "cors 200 transfer"},
		moat: outcome{arrived: "POST", runs: 1, saw: "cors 200 transfer"},
	},

	// What strangers can do without asking.
	{
		name: "row 4: a POST of a form by fetch", page: stranger,
		do:   `return saw(fetch(api + "/transfer", { method: "POST", body: new URLSearchParams({ amount: 50 }), credentials: "include" }))`,
		bare: outcome{arrived: "POST", runs: 1, saw: failed, cors: "MissingAllowOriginHeader", cookies: "everywhere"},
		moat: outcome{saw: failed, cors: "MissingAllowOriginHeader", code: "cors-origin-not-allowed"},
	},
	{
		name: "a form that submits itself", page: stranger,
		do:     `setTimeout(() => { location = "{stranger}/form?to=" + api + "/transfer" }); return ""`,
		leaves: true,
		// A cookie without SameSite is Lax, but for two minutes travels with a form's POST.
		bare: outcome{arrived: "POST", runs: 1, saw: "document 200 transfer", cookies: "everywhere session"},
		moat: outcome{saw: "document 403 cors-origin-not-allowed", code: "cors-origin-not-allowed"},
	},
	{
		name: "a form of a page on an address", page: neighbour,
		do:     `setTimeout(() => submit(api + "/transfer")); return ""`,
		leaves: true,
		bare:   outcome{arrived: "POST", runs: 1, saw: "document 200 transfer", cookies: "everywhere session"},
		moat:   outcome{saw: "document 403 cors-origin-not-allowed", code: "cors-origin-not-allowed"},
	},
	{
		name: "a form in a stranger's frame on the friendly page", page: friendly,
		do:   `add("iframe", { src: "{stranger}/form?to=" + api + "/transfer" }); return ""`,
		bare: outcome{arrived: "POST", runs: 1, cookies: "everywhere"},
		moat: outcome{code: "cors-origin-not-allowed"},
	},
	{
		name: "JSON called text", page: stranger,
		do:   `return saw(fetch(api + "/transfer", { method: "POST", headers: { "Content-Type": "text/plain" }, body: json }))`,
		bare: outcome{arrived: "POST", runs: 1, saw: failed, cors: "MissingAllowOriginHeader"},
		moat: outcome{saw: failed, cors: "MissingAllowOriginHeader", code: "cors-origin-not-allowed"},
	},
	{
		name: "JSON in a Blob, without a type", page: stranger,
		do:   `return saw(fetch(api + "/transfer", { method: "POST", body: new Blob([json]) }))`,
		bare: outcome{arrived: "POST", runs: 1, saw: failed, cors: "MissingAllowOriginHeader"},
		moat: outcome{saw: failed, cors: "MissingAllowOriginHeader", code: "cors-origin-not-allowed"},
	},
	{
		name: "a POST without CORS", page: stranger,
		do:   `return saw(fetch(api + "/transfer", { method: "POST", mode: "no-cors", body: json, credentials: "include" }))`,
		bare: outcome{arrived: "POST", runs: 1, saw: "opaque 0", cookies: "everywhere"},
		moat: outcome{saw: "opaque 0", code: "cors-origin-not-allowed"},
	},
	{
		name: "a beacon", page: stranger,
		do:   `return String(navigator.sendBeacon(api + "/transfer", json))`,
		bare: outcome{arrived: "POST", runs: 1, saw: "true", cookies: "everywhere"},
		moat: outcome{saw: "true", code: "cors-origin-not-allowed"},
	},
	{
		name: "a GET without CORS", page: stranger,
		do:   `return saw(fetch(api + "/api/data", { mode: "no-cors" }))`,
		bare: outcome{arrived: "GET", runs: 1, saw: "opaque 0"},
		moat: outcome{saw: "opaque 0", code: "cross-site-embed"},
	},
	{
		name: "data as a script", page: stranger,
		do: `return event(add("script", { src: api + "/api/data" }), "load", "error")`,
		// The browser keeps JSON from scripts (ORB); the handler has run by then.
		bare: outcome{arrived: "GET", runs: 1, saw: "error", cookies: "everywhere"},
		moat: outcome{saw: "error", code: "cross-site-embed"},
	},
	{
		name: "an image that deletes", page: stranger,
		do:   `return event(add("img", { src: api + "/delete" }), "load", "error")`,
		bare: outcome{arrived: "GET", runs: 1, saw: "error", cookies: "everywhere"},
		moat: outcome{saw: "error", code: "cross-site-request"},
	},
	{
		name: "a link that deletes", page: stranger,
		do:    `add("a", { id: "link", href: api + "/delete", textContent: "a prize" }); return ""`,
		click: "#link", leaves: true,
		bare: outcome{arrived: "GET", runs: 1, saw: "document 200 delete", cookies: "everywhere session"},
		moat: outcome{saw: "document 403 cross-site-request", code: "cross-site-request"},
	},
	{
		name: "a frame that deletes", page: stranger,
		do:   `return event(add("iframe", { src: api + "/delete" }), "load", "error")`,
		bare: outcome{arrived: "GET", runs: 1, saw: "load", cookies: "everywhere"},
		moat: outcome{saw: "load", code: "cross-site-request"},
	},
	{
		name: "a prefetch that deletes", page: stranger,
		do:   `return event(add("link", { rel: "prefetch", href: api + "/delete" }), "load", "error")`,
		bare: outcome{arrived: "GET", runs: 1, saw: "load", cookies: "everywhere"},
		moat: outcome{saw: "error", code: "cross-site-prefetch"},
	},
	{
		name: "a prefetch that deletes, on the API's own page", page: own,
		do:   `return event(add("link", { rel: "prefetch", href: api + "/delete" }), "load", "error")`,
		bare: outcome{arrived: "GET", runs: 1, saw: "load", cookies: "everywhere session"},
		moat: outcome{saw: "error", code: "cross-site-prefetch"},
	},
	{
		name: "a form in a sandbox", page: stranger, origin: "null",
		do:   "add('iframe', { sandbox: 'allow-scripts allow-forms', srcdoc: `<form method=post action=${api}/transfer><input name=amount value=50></form><script>document.forms[0].submit()</script>` }); return ``",
		bare: outcome{arrived: "POST", runs: 1, cookies: "everywhere"},
		moat: outcome{code: "cors-origin-not-allowed"},
	},
	{
		// A sandboxed frame has a process of its own, and so has its CORS error.
		name: "a fetch in a sandbox", page: stranger, origin: "null",
		do:   "add('iframe', { sandbox: 'allow-scripts', srcdoc: `<script>fetch('${api}/api/data', { credentials: 'include' }).then((a) => 'read', String).then((v) => parent.postMessage(v, '*'))</script>` }); return message()",
		bare: outcome{arrived: "GET", runs: 1, saw: failed, cookies: "everywhere"},
		moat: outcome{saw: failed, code: "cors-origin-not-allowed"},
	},
	{
		name: "a form in a sandbox on the API's own page", page: own, origin: "null",
		do:   "add('iframe', { sandbox: 'allow-scripts allow-forms', srcdoc: `<form method=post action=${api}/transfer><input name=amount value=50></form><script>document.forms[0].submit()</script>` }); return ``",
		bare: outcome{arrived: "POST", runs: 1, cookies: "everywhere"},
		moat: outcome{code: "cors-origin-not-allowed"},
	},
	{
		name: "a POST that a stranger's server sends on", page: friendly, origin: "null",
		do: `return saw(fetch("{stranger}/on?to=" + api + "/transfer", { method: "POST", mode: "no-cors", body: json, credentials: "include" }))`,
		// Chromium looks at where a chain of redirects began and where it ends: the same
		// site, so all cookies travel.
		bare: outcome{arrived: "POST", runs: 1, saw: "opaque 0", cookies: "everywhere session"},
		moat: outcome{saw: "opaque 0", code: "cors-origin-not-allowed"},
	},
	{
		name: "a POST from a sibling", page: sibling,
		do: `return saw(fetch(api + "/transfer", { method: "POST", headers: { "Content-Type": "text/plain" }, body: json, credentials: "include" }))`,
		// The same site, so all cookies travel; SameSite=Strict ones would, too.
		bare: outcome{arrived: "POST", runs: 1, saw: failed, cors: "MissingAllowOriginHeader", cookies: "everywhere session"},
		moat: outcome{saw: failed, cors: "MissingAllowOriginHeader", code: "cors-origin-not-allowed"},
	},
	{
		name: "an image of a sibling that deletes", page: sibling,
		do:   `return event(add("img", { src: api + "/delete" }), "load", "error")`,
		bare: outcome{arrived: "GET", runs: 1, saw: "error", cookies: "everywhere session"},
		moat: outcome{saw: "error", code: "cross-site-request"},
	},
	{
		name: "a WebSocket", page: stranger,
		do:   `return socket(api)`,
		bare: outcome{arrived: "GET", runs: 1, saw: "echo hello", cookies: "everywhere"},
		moat: outcome{saw: "error", code: "cors-origin-not-allowed"},
	},
	{
		name: "an EventSource", page: stranger,
		do:   `return stream(api)`,
		bare: outcome{arrived: "GET", runs: 1, saw: "error", cors: "MissingAllowOriginHeader", cookies: "everywhere"},
		moat: outcome{saw: "error", cors: "MissingAllowOriginHeader", code: "cors-origin-not-allowed"},
	},
	{
		name: "a POST to what anybody may read", page: stranger,
		do:   `return saw(fetch(api + "/api/public", { method: "POST", body: json }))`,
		bare: outcome{arrived: "POST", runs: 1, saw: failed, cors: "MissingAllowOriginHeader"},
		moat: outcome{saw: "cors 403 cross-site-request", code: "cross-site-request"},
	},
	{
		name: "a fetch in a sandbox, to what anybody may read", page: stranger, origin: "null",
		do:   "add('iframe', { sandbox: 'allow-scripts', srcdoc: `<script>fetch('${api}/api/public', { method: 'POST' }).then((a) => a.text(), String).then((v) => parent.postMessage(v, '*'))</script>` }); return told(await message())",
		bare: outcome{arrived: "POST", runs: 1, saw: failed},
		moat: outcome{saw: "cross-site-opaque-origin", code: "cross-site-opaque-origin"},
	},
	{
		name: "a name that was rebound to the API's address", page: rebound,
		do:   `return saw(fetch("/transfer", { method: "POST", headers: { "Content-Type": "application/json" }, body: json }))`,
		bare: outcome{arrived: "POST", runs: 1, saw: "basic 200 transfer"},
		// Chromium takes a 421 to mean this connection, and asks once more on another.
		moat: outcome{saw: "basic 421 host-not-allowed", code: "host-not-allowed host-not-allowed"},
	},

	// What must go on working.
	{
		name: "the friendly page with cookies", kind: use, page: friendly,
		do:   `return saw(fetch(api + "/api/data", { credentials: "include" }))`,
		bare: outcome{arrived: "GET", runs: 1, saw: "cors 200 data", cookies: "everywhere session"},
		moat: outcome{arrived: "GET", runs: 1, saw: "cors 200 data", cookies: "everywhere session"},
	},
	{
		name: "the friendly page's DELETE", kind: use, page: friendly,
		do:   `return saw(fetch(api + "/api/data", { method: "DELETE", credentials: "include" }))`,
		bare: outcome{arrived: "OPTIONS DELETE", runs: 1, saw: "cors 200 remove", cookies: "everywhere session"},
		moat: outcome{arrived: "DELETE", runs: 1, saw: "cors 200 remove", cookies: "everywhere session"},
	},
	{
		name: "the friendly page's form", kind: use, page: friendly,
		do:     `setTimeout(() => submit(api + "/transfer")); return ""`,
		leaves: true,
		bare:   outcome{arrived: "POST", runs: 1, saw: "document 200 transfer", cookies: "everywhere session"},
		moat:   outcome{arrived: "POST", runs: 1, saw: "document 200 transfer", cookies: "everywhere session"},
	},
	{
		name: "the friendly page's beacon", kind: use, page: friendly,
		do:   `return String(navigator.sendBeacon(api + "/transfer", json))`,
		bare: outcome{arrived: "POST", runs: 1, saw: "true", cookies: "everywhere session"},
		moat: outcome{arrived: "POST", runs: 1, saw: "true", cookies: "everywhere session"},
	},
	{
		name: "the friendly page deletes", kind: use, page: friendly,
		do:   `return saw(fetch(api + "/delete"))`,
		bare: outcome{arrived: "GET", runs: 1, saw: "cors 200 delete"},
		moat: outcome{arrived: "GET", runs: 1, saw: "cors 200 delete"},
	},
	{
		name: "the friendly page's WebSocket", kind: use, page: friendly,
		do:   `return socket(api)`,
		bare: outcome{arrived: "GET", runs: 1, saw: "echo hello", cookies: "everywhere session"},
		moat: outcome{arrived: "GET", runs: 1, saw: "echo hello", cookies: "everywhere session"},
	},
	{
		name: "the friendly page's EventSource", kind: use, page: friendly,
		do:   `return stream(api)`,
		bare: outcome{arrived: "GET", runs: 1, saw: "message 3", cookies: "everywhere session"},
		moat: outcome{arrived: "GET", runs: 1, saw: "message 3", cookies: "everywhere session"},
	},
	{
		name: "the API's own page: GET", kind: use, page: own,
		do:   `return saw(fetch("/api/data"))`,
		bare: outcome{arrived: "GET", runs: 1, saw: "basic 200 data", cookies: "everywhere session"},
		moat: outcome{arrived: "GET", runs: 1, saw: "basic 200 data", cookies: "everywhere session"},
	},
	{
		name: "the API's own page: POST of JSON", kind: use, page: own,
		do:   `return saw(fetch("/transfer", { method: "POST", headers: { "Content-Type": "application/json" }, body: json }))`,
		bare: outcome{arrived: "POST", runs: 1, saw: "basic 200 transfer", cookies: "everywhere session"},
		moat: outcome{arrived: "POST", runs: 1, saw: "basic 200 transfer", cookies: "everywhere session"},
	},
	{
		name: "the API's own page: form without a referrer", kind: use, page: private, origin: "null",
		do:     `setTimeout(() => submit("/transfer")); return ""`,
		leaves: true,
		bare:   outcome{arrived: "POST", runs: 1, saw: "document 200 transfer", cookies: "everywhere session"},
		moat:   outcome{arrived: "POST", runs: 1, saw: "document 200 transfer", cookies: "everywhere session"},
	},
	{
		name: "the API's own page: WebSocket", kind: use, page: own,
		do:   `return socket(api)`,
		bare: outcome{arrived: "GET", runs: 1, saw: "echo hello", cookies: "everywhere session"},
		moat: outcome{arrived: "GET", runs: 1, saw: "echo hello", cookies: "everywhere session"},
	},
	{
		name: "the API's own page: EventSource", kind: use, page: own,
		do:   `return stream(api)`,
		bare: outcome{arrived: "GET", runs: 1, saw: "message 3", cookies: "everywhere session"},
		moat: outcome{arrived: "GET", runs: 1, saw: "message 3", cookies: "everywhere session"},
	},
	{
		name: "the API's own page: delete", kind: use, page: own,
		do:   `return saw(fetch("/delete"))`,
		bare: outcome{arrived: "GET", runs: 1, saw: "basic 200 delete", cookies: "everywhere session"},
		moat: outcome{arrived: "GET", runs: 1, saw: "basic 200 delete", cookies: "everywhere session"},
	},
	{
		// A stranger's page may have redirected it: Sec-Fetch-Site stays none.
		name: "a URL that is typed, and deletes", kind: attack, page: stranger, types: "/delete", leaves: true,
		bare: outcome{arrived: "GET", runs: 1, saw: "document 200 delete", cookies: "everywhere session"},
		moat: outcome{saw: "document 403 cross-site-request", code: "cross-site-request"},
	},
	{
		name: "a stranger's link to a page", kind: use, page: stranger,
		do:    `add("a", { id: "link", href: api + "/", textContent: "worth reading" }); return ""`,
		click: "#link", leaves: true,
		bare: outcome{arrived: "GET", runs: 1, saw: "document 200", cookies: "everywhere session"},
		moat: outcome{arrived: "GET", runs: 1, saw: "document 200", cookies: "everywhere session"},
	},

	// What the friendly page is told when it errs, or when the backend does.
	{
		name: "401 of Express", kind: fault, page: friendly,
		do:   `return saw(fetch(api + "/api/private"))`,
		bare: outcome{arrived: "GET", runs: 1, saw: "cors 401 private"},
		moat: outcome{arrived: "GET", runs: 1, saw: "cors 401 private"},
	},
	{
		name: "403 of Express", kind: fault, page: friendly,
		do:   `return saw(fetch(api + "/api/forbidden"))`,
		bare: outcome{arrived: "GET", runs: 1, saw: "cors 403 forbidden"},
		moat: outcome{arrived: "GET", runs: 1, saw: "cors 403 forbidden"},
	},
	{
		name: "404 of Express", kind: fault, page: friendly,
		do:   `return (await saw(fetch(api + "/api/nothing"))).slice(0, 8)`,
		bare: outcome{arrived: "GET", saw: "cors 404"},
		moat: outcome{arrived: "GET", saw: "cors 404"},
	},
	{
		name: "413 of Express", kind: fault, page: friendly,
		do:   `return (await saw(fetch(api + "/transfer", { method: "POST", headers: { "Content-Type": "application/json" }, body: '"' + "x".repeat(200000) + '"' }))).slice(0, 8)`,
		bare: outcome{arrived: "OPTIONS POST", saw: "cors 413"},
		moat: outcome{arrived: "POST", saw: "cors 413"},
	},
	{
		name: "400 of moat", kind: fault, page: friendly,
		do:   `return (await saw(fetch(api + "/api//data"))).slice(0, 23)`,
		bare: outcome{arrived: "GET", saw: "cors 404 <!DOCTYPE html"},
		moat: outcome{saw: "cors 400 path-ambiguous", code: "path-ambiguous"},
	},
	{
		name: "404 of moat", kind: fault, page: friendly,
		do:   `return (await saw(fetch(api + "/nothing"))).slice(0, 24)`,
		bare: outcome{arrived: "GET", saw: "cors 404 <!DOCTYPE html>"},
		moat: outcome{saw: "cors 404 route-not-found", code: "route-not-found"},
	},
	{
		name: "413 of moat", kind: fault, page: friendly,
		do:   `return saw(fetch(api + "/api/note", { method: "POST", body: "x".repeat(2000) }))`,
		bare: outcome{arrived: "POST", runs: 1, saw: "cors 200 note"},
		moat: outcome{saw: "cors 413 body-too-large", code: "body-too-large"},
	},
	{
		name: "413 of moat, for a body that takes long to send", kind: fault, page: friendly,
		do:   `return (await saw(fetch(api + "/api/note", { method: "POST", body: "x".repeat(4_000_000) }))).slice(0, 23)`,
		bare: outcome{arrived: "POST", saw: "cors 413 <!DOCTYPE html"},
		moat: outcome{saw: "cors 413 body-too-large", code: "body-too-large"},
	},
	{
		name: "502 of moat", kind: fault, page: friendly,
		do:   `return (await saw(fetch(api + "/down"))).split("\n")[0]`,
		bare: outcome{arrived: "GET", saw: "cors 404 <!DOCTYPE html>"},
		moat: outcome{saw: "cors 502 upstream-unreachable", code: "upstream-unreachable"},
	},
	{
		// Script never learns why a preflight failed. DevTools does: the error is not that
		// the origin may not ask, but that the answer is no.
		name: "a preflight for a header that is not listed", kind: fault, page: friendly,
		do:   `return saw(fetch(api + "/api/data", { headers: { "X-Custom": "1" } }))`,
		bare: outcome{arrived: "OPTIONS GET", runs: 1, saw: "cors 200 data"},
		moat: outcome{saw: failed, cors: "PreflightInvalidStatus", code: "cors-header-not-allowed"},
	},
	{
		name: "a preflight for a method that is not listed", kind: fault, page: friendly,
		do:   `return saw(fetch(api + "/api/data", { method: "PROPFIND" }))`,
		bare: outcome{arrived: "OPTIONS", saw: failed, cors: "MethodDisallowedByPreflightResponse"},
		moat: outcome{saw: failed, cors: "PreflightInvalidStatus", code: "cors-method-not-allowed"},
	},
}
