// Package lab is moat lab: a small world of real servers on one machine, and a page in
// which the reader's own browser does the real thing to them.
//
// The world has a bank (a site, its API, and a blog on a sibling subdomain), a stranger's
// site, and a real moat in front of the same API. Each is an origin of its own, and the
// page is served on each of the sites: what its script does, that site does.
//
//	names.go     roles and their origins; the allow-list of hosts
//	lab.go       the listener: which host is whose
//	visitors.go  who is here, and the door of a lab that is shared
//	visitor.go   one reader's world: the bank's books, the answers in force, the gate
//	ledger.go    what arrived and what it did, as it happens
//	answers.go   what the API's CORS middleware answers: rules, which are data
//	backend.go   the API: it does what it is asked to; its endpoints, in a table. backend_*.go
//	             are these by theme, backend_door.go is where a request comes in
//	gate.go      the real moat, with the reader's own moat.yaml
//	keys.go      what a moat.yaml can refer to, and alice's credentials
//	lesson.go    a lesson as lessons/ has it
//	play.go      a run with the browser's model in the place of the browser; player.go makes its requests
//	defend.go    a moat.yaml held against a battery of attacks and legitimate requests
//	control.go   what the page asks of the lab, below /.lab/
//	page.go      the page's files, which web builds, and the policies they come with
//	tls.go       certificates for this machine's own names
//
// State is in memory and bounded. Nothing here is a defence, and much of it is wrong on
// purpose: the API is what moat is for.
package lab
