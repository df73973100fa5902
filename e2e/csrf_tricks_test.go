package e2e

// trick is what a page does to make the browser of somebody who visits it act for it at a shop.
type trick struct {
	name string
	// from are the pages that do it, and on the customers that it is for.
	from, on []string
	// do is in the page: see shopPrelude. Where it is the user's doing, there was a click.
	do      string
	clicked bool
	// leaves says that the browser leaves the page, for a document of the shop.
	leaves bool
	// saw is what the page comes to see, where that matters.
	saw string
	// runs is the handler that runs where nothing guards it, and as whom, if not as the victim. It is ""
	// where the browser itself does not let the request happen.
	runs, as string
	// gates says that it is against the gate's own paths, where no handler runs.
	gates bool
	// deaf says that no token can hold it off, since it is no request that can carry one.
	deaf bool
	// plants says that it leaves cookies behind.
	plants bool
}

var (
	foreign   = []string{stranger, sibling}
	siblings  = []string{sibling}
	signedIn  = []string{ownSession, gateSession}
	onlyOwn   = []string{ownSession}
	onlyGate  = []string{gateSession}
	signedOut = []string{noSession, newcomer}
)

var tricks = []trick{
	// What a form can send.
	{name: "a form", from: foreign, on: signedIn, runs: "transfer", do: `return sent(at + "/transfer")`},
	{name: "a multipart form", from: foreign, on: signedIn, runs: "transfer", do: `return sent(at + "/transfer", null, { enctype: "multipart/form-data" })`},
	{
		name: "a form that is JSON", from: foreign, on: signedIn, runs: "transfer",
		do: `return sent(at + "/transfer", { '{"amount":50,"x":"': '"}' }, { enctype: "text/plain" })`,
	},
	{
		name: "a form that submits itself, in a frame", from: foreign, on: signedIn, runs: "transfer",
		do: `add("iframe", { src: stranger + "/form?to=" + encodeURIComponent(at + "/transfer") }); return ""`,
	},
	{
		name: "a form in a sandbox", from: foreign, on: signedIn, runs: "transfer",
		do: "add('iframe', { sandbox: 'allow-scripts allow-forms', srcdoc: `<form method=post action=${at}/transfer><input name=amount value=50></form><script>document.forms[0].submit()</script>` }); return ``",
	},
	{
		name: "a form in a document without an origin", from: foreign, on: signedIn, runs: "transfer",
		do: "add('iframe', { src: `data:text/html,<form method=post action=${at}/transfer><input name=amount value=50></form><script>document.forms[0].submit()</scr` + `ipt>` }); return ``",
	},
	{
		name: "a form without a referrer", from: foreign, on: signedIn, runs: "transfer",
		do: "add('iframe', { srcdoc: `<meta name=referrer content=no-referrer><form method=post action=${at}/transfer><input name=amount value=50></form><script>document.forms[0].submit()</script>` }); return ``",
	},
	{
		name: "a form that is sent on", from: []string{stranger, sibling, friendly}, on: signedIn, runs: "transfer",
		do: `return sent(stranger + "/on?to=" + encodeURIComponent(at + "/transfer"))`,
	},
	{
		name: "a form with an empty token", from: foreign, on: signedIn, runs: "transfer",
		do: `return sent(at + "/transfer", { csrf_token: "" })`,
	},
	{
		name: "a form in this window", from: foreign, on: []string{ownSession, unsaidSession}, runs: "transfer", leaves: true,
		// The cookie that says nothing is younger than two minutes.
		do: `setTimeout(() => sent(at + "/transfer", null, { target: "_self" })); return ""`,
	},
	{
		name: "a form in a window that it opens", from: foreign, on: []string{ownSession, gateSession, unsaidSession}, runs: "transfer", clicked: true,
		do: `const popup = "popup" + Math.random(); open("about:blank", popup); return sent(at + "/transfer", null, { target: popup })`,
	},

	// What script can send without asking.
	{name: "text by fetch", from: foreign, on: signedIn, runs: "transfer", saw: "opaque 0", do: `return noCORS(json, { "Content-Type": "text/plain" })`},
	{name: "a Blob by fetch", from: foreign, on: signedIn, runs: "transfer", saw: "opaque 0", do: `return noCORS(new Blob([json]))`},
	{name: "a form by fetch", from: foreign, on: signedIn, runs: "transfer", saw: "opaque 0", do: `return noCORS(new URLSearchParams({ amount: 50 }))`},
	{
		name: "text by fetch with CORS", from: foreign, on: signedIn, runs: "transfer", saw: failed,
		do: `return saw(fetch(at + "/transfer", { method: "POST", credentials: "include", body: json }))`,
	},
	{
		name: "fetch in a sandbox", from: foreign, on: signedIn, runs: "transfer",
		do: "add('iframe', { sandbox: 'allow-scripts', srcdoc: `<script>fetch('${at}/transfer', { method: 'POST', mode: 'no-cors', credentials: 'include', body: '{}' })</script>` }); return ``",
	},
	{name: "a beacon", from: foreign, on: signedIn, runs: "transfer", saw: "true", do: `return String(navigator.sendBeacon(at + "/transfer", json))`},
	{
		name: "a beacon of a form", from: foreign, on: signedIn, runs: "transfer", saw: "true",
		do: `const form = new FormData(); form.set("amount", "50"); return String(navigator.sendBeacon(at + "/transfer", form))`,
	},
	{name: "a link's ping", from: foreign, on: signedIn, runs: "transfer", do: `add("a", { href: "#", ping: at + "/transfer" }).click(); return ""`},
	{
		name: "a token that is made up, in a header", from: foreign, on: signedIn, saw: failed, // the browser asks first, and gets no answer that it likes
		do: `return saw(fetch(at + "/transfer", { method: "POST", credentials: "include", headers: { "X-CSRF-Token": prey.Token } }))`,
	},

	// Methods that are not what they seem.
	{name: "a form that stands for DELETE", from: foreign, on: signedIn, runs: "cancel", do: `return sent(at + "/orders/7", { _method: "DELETE" })`},
	{
		name: "a header that stands for DELETE", from: foreign, on: signedIn, saw: failed,
		do: `return saw(fetch(at + "/orders/7", { method: "POST", credentials: "include", headers: { "X-HTTP-Method-Override": "DELETE" } }))`,
	},
	{name: "DELETE", from: foreign, on: signedIn, saw: failed, do: `return saw(fetch(at + "/orders/7", { method: "DELETE", credentials: "include" }))`},

	// A GET that changes something, which is declared.
	{name: "an image", from: foreign, on: signedIn, runs: "delete", do: `add("img", { src: at + "/delete?" + Math.random() }); return ""`},
	{name: "a prefetch", from: foreign, on: signedIn, runs: "delete", do: `add("link", { rel: "prefetch", href: at + "/delete?" + Math.random() }); return ""`},
	{name: "a frame", from: foreign, on: signedIn, runs: "delete", do: `add("iframe", { src: at + "/delete" }); return ""`},
	{name: "a script", from: foreign, on: signedIn, runs: "delete", do: `add("script", { src: at + "/delete?" + Math.random() }); return ""`},
	{name: "HEAD", from: foreign, on: signedIn, runs: "delete", saw: "opaque 0", do: `return saw(fetch(at + "/delete?" + Math.random(), { method: "HEAD", mode: "no-cors", credentials: "include" }))`},
	{
		name: "a link", from: foreign, on: []string{ownSession, gateSession, unsaidSession}, runs: "delete", leaves: true,
		do: `setTimeout(() => add("a", { href: at + "/delete" }).click()); return ""`,
	},

	// Tokens are in headers, which a handshake does not have: see docs/guards/csrf.md.
	{name: "a WebSocket", from: foreign, on: signedIn, runs: "ws", deaf: true, do: `talk(at + "/ws"); return ""`},

	// A sibling can set cookies for the whole site.
	{
		name: "its own token", from: foreign, on: signedIn, runs: "transfer",
		do: `return sent(at + "/transfer", { csrf_token: prey.Token })`,
	},
	{
		name: "its own session and token", from: siblings, on: onlyOwn, runs: "transfer", as: "mallory", plants: true,
		do: `plant("sid", prey.SID, "/transfer"); return sent(at + "/transfer", { csrf_token: prey.Token })`,
	},
	{
		name: "its own session, token, and the browser's id that belongs to it", from: siblings, on: onlyOwn, runs: "transfer", as: "mallory", plants: true, saw: notPlanted,
		do: plantID + `plant("sid", prey.SID, "/transfer"); return sent(at + "/transfer", { csrf_token: prey.Token }) + planting`,
	},
	{
		name: "its own token and id", from: siblings, on: onlyGate, runs: "transfer", plants: true, saw: notPlanted,
		do: plantID + `return sent(at + "/transfer", { csrf_token: prey.Token }) + planting`,
	},
	{
		name: "a session of the gate's", from: siblings, on: onlyGate, runs: "transfer", plants: true, saw: notPlanted,
		do: `const planting = plantHost("moat-session-people", prey.ID); return sent(at + "/transfer") + planting`,
	},

	// Who is signed in as somebody else leaves what is hers with him.
	{name: "signing in", from: foreign, on: signedOut, runs: "login", as: anybody, do: `return sent(api + "/login", { user: "mallory" })`},
	{name: "signing in with its own token", from: foreign, on: signedOut, runs: "login", as: anybody, do: `return sent(api + "/login", { user: "mallory", csrf_token: prey.Early })`},
	{
		name: "signing in with its own token and id", from: siblings, on: signedOut, runs: "login", as: anybody, plants: true, saw: notPlanted,
		do: plantID + `return sent(api + "/login", { user: "mallory", csrf_token: prey.Early }) + planting`,
	},
	{
		name: "the answer to its own sign-in, in a frame", from: foreign, on: []string{gateSession, noSession}, gates: true,
		do: `await event(add("iframe", { src: link }), "load"); return ""`,
	},
	{
		name: "the answer to its own sign-in", from: foreign, on: []string{gateSession, noSession}, gates: true, leaves: true,
		do: `setTimeout(() => { location = link }); return ""`,
	},

	// The gate's own.
	{
		name: "signing out", from: foreign, on: onlyGate, gates: true,
		do: `const frame = add("iframe", { name: "out" }); sent(api + "/.moat/logout/people", {}, { target: "out" }); await event(frame, "load"); return ""`,
	},
	{
		name: "signing out by fetch", from: foreign, on: onlyGate, gates: true,
		do: `return saw(fetch(api + "/.moat/logout/people", { method: "POST", mode: "no-cors", credentials: "include" }))`,
	},
	{name: "asking for a token", from: foreign, on: signedIn, gates: true, saw: failed, do: `return saw(fetch(api + "/.moat/csrf", { credentials: "include" }))`},
	{name: "asking who it is", from: foreign, on: onlyGate, gates: true, saw: failed, do: `return saw(fetch(api + "/.moat/session/people", { credentials: "include" }))`},
}

// anybody is whoever the victim has become.
const anybody = "anybody"

// plantID tries to give the browser the id that an attacker's token belongs to. The browser should not take it.
const (
	plantID    = `const planting = plantHost("moat-csrf-id", prey.ID); `
	notPlanted = "not planted"
)

// purchase is what a customer does, with her token.
type purchase struct{ name, do, saw, runs string }

// purchases are those on the shop's own page, and appPurchases those in its single-page app on another host of the site.
var (
	purchases = []purchase{
		{"JSON", `return saw(call(prefix + "/transfer", { headers: { "Content-Type": "application/json" }, body: json }))`, "basic 200 transfer", "transfer"},
		{"JSON, with the token of the cookie", `
			const cookie = document.cookie.match(/(?:^|; )__Host-moat-csrf=([^;]*)/)[1];
			return saw(fetch(at + "/transfer", { method: "POST", headers: { "X-CSRF-Token": cookie }, body: json }))`, "basic 200 transfer", "transfer"},
		{"a form", `return sent(at + "/transfer", { csrf_token: await token(), amount: 50 })`, "", "transfer"},
		{"a multipart form", `return sent(at + "/transfer", { csrf_token: await token(), amount: 50 }, { enctype: "multipart/form-data" })`, "", "transfer"},
		{"a beacon", `return String(navigator.sendBeacon(at + "/transfer", new URLSearchParams({ csrf_token: await token() })))`, "true", "transfer"},
		{"DELETE", `return saw(call(prefix + "/orders/7", { method: "DELETE" }))`, "basic 200 cancel", "cancel"},
		{"a GET that deletes", `return saw(call(prefix + "/delete", { method: "GET" }))`, "basic 200 delete", "delete"},
		{"a WebSocket", `return talk(at + "/ws")`, "echo hello", "ws"},
	}
	appPurchases = []purchase{
		{"JSON", `return saw(call(prefix + "/transfer", { headers: { "Content-Type": "application/json" }, body: json }))`, "cors 200 transfer", "transfer"},
		{"DELETE", `return saw(call(prefix + "/orders/7", { method: "DELETE" }))`, "cors 200 cancel", "cancel"},
		{"a GET that deletes", `return saw(call(prefix + "/delete", { method: "GET" }))`, "cors 200 delete", "delete"},
		{"a WebSocket", `return talk(at + "/ws")`, "echo hello", "ws"},
	}
)
