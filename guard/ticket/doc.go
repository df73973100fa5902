// Package ticket has a page's calls carry a short-lived ticket and a proof: each is
// honoured once, for the one method, path, query and body that it was made for
// (docs/ticket-format.md).
//
// It protects a public API from whoever copies a request from the network tab, replays it,
// changes it, or calls from a page of another origin; and it makes everybody else come to
// the gate first, where visitors can be counted, slowed down and challenged.
//
// It does not tell people from programs. Whoever does what the page's script does gets
// tickets too, at the rate that the limits and challenges in front of issuing allow.
package ticket
