// Package moat is a gateway that protects HTTP APIs where CORS cannot.
//
// CORS decides whether a browser lets script read an answer; the backend decides
// whether to honour the request. moat is the part that decides: it stands in front of
// any backend, or inside a Go server as net/http middleware, and says why.
//
// This package holds only documentation. The command is in cmd/moat; each guard can be
// used by itself.
//
// # Life of a request
//
// A request goes through one fixed pipeline. Each step may end it with a
// [github.com/moat-gateway/moat/guard.Decision], which has one of a closed set of
// reasons (docs/reasons.md). Cheap steps stand before dear ones, and a refused request
// costs the backend nothing. The pipeline is one function, admit, in gateway/serve.go:
//
//	wire            the connection: PROXY protocol, TLS, unambiguous HTTP/1.1 framing
//	host            the Host is that of a public origin, or it ends here
//	route           the path is plain, and a declared route matches; a preflight belongs
//	                to the route of the method that it asks for
//	client address  from the connection, or by the word of a named proxy
//	cors            a preflight is answered here; a stranger's page ends here; CORS headers
//	                and Vary are set now, so that a page can read any later refusal
//	bounds          the method is declared, the body is not too large
//	cross-site      a stranger's page changes nothing, embeds nothing, opens no socket
//	rate limit      the client's address, its networks, and everybody together ask for no
//	                more than the route's limits allow, over time and at once
//	ticket          the call has a proof that is good for it alone, and for the first time;
//	                what the gate itself answers below /.moat/ ends here
//	identity        a token, an API key or a session says who calls, and a verifier has
//	                proved it; what is shown and bad ends here, even where none is needed
//	csrf            where a cookie speaks for the caller, the page proves that it may
//	authorization   the caller may do this, and to this object
//	rate limit      again, by who calls and by the account that is tried
//	scrub           what only moat may say is removed, in any spelling
//	credential      the body is the one that the proof covers; the caller's credentials are
//	                replaced by moat's own, which is masked where the answer repeats it; the
//	                upstream is told who calls
//	egress          of a fetch route, in the place of an upstream: listed hosts, public addresses
//	upstream        streamed both ways; its own CORS headers are replaced, Vary is merged
//	cookie          the cookies that it sets get the restrictions that they lack
//	record          counted, and if refused kept for `moat why` and logged
//
// Each guard runs as enforce, report or off, by route. Report runs the same code and
// records what would have happened.
//
// # Packages
//
// A package imports only from lines above its own (layers_test.go):
//
//	web             the vocabulary: origins, sites, public origins, header lists
//	dashboard       the page of the admin listener, and its build
//	client          what a page loads: fetch with tickets, in TypeScript, and its build
//	browser         the other end of the wire: what a browser does with a page's request
//	browser/*       generated cases, to hold it against real browsers
//	explain         what people paste, what the browser made of it, and what mends it
//	explain/*       the live server, the terminal, the page in WebAssembly
//	guard           Decision, Reason, Mode, and the answer to the client
//	guard/identity  who calls: a Principal, which only the verifiers below it can make
//	guard/*         one package for each protection; none imports another
//	wire            the connection before net/http reads it
//	alert           signed webhooks, once for each episode
//	store/storetest what every store of debts, of tickets and of sessions must do
//	store/*         those: in fixed memory, or in a Valkey or Redis that many share; and the
//	                file of API keys
//	gateway         composes the guards around upstreams; serve.go is the data path
//	config          moat.yaml, with faults at file:line:col
//	config/onpaper  what a configuration would decide, without a gate that runs
//	config/onpaper  what a configuration would decide, for moat explain and the lab
//	demo            a sample backend and two pages, to see it happen
//	lab             lessons with real servers, a real browser and a real gate
//	run             what moat run does with a configuration: stores, files, reloads
//	cmd/moat        the command
//	e2e             real Chromium, real curl, a real Express backend
//	e2e/agree       real browsers against the model
package moat
