// Package browser is the other end of the wire: a model of what a web browser does with
// a request that a page makes. It follows the Fetch standard (https://fetch.spec.whatwg.org/),
// the cookie rules (RFC 6265bis) and Fetch Metadata, and tells
//
//   - which requests leave the browser, in order, each with the headers that the browser
//     itself sets (Origin, Sec-Fetch-*, Access-Control-Request-*, Cookie, Referer);
//   - which of them a backend would execute;
//   - each step that was taken, with a link to the standard;
//   - what the page's script gets to see, and what the browser says about it: Chromium's
//     CORS error and its text in the console, Firefox's reason.
//
// The model is pure: it does no I/O, keeps no global state and takes the time as an
// argument, so that the same facts always give the same trace. The server is a function
// from request to answer: a recording, an http.Handler, a live client.
//
// Where browsers depart from the standard a Profile says so; Departures lists all of it,
// with the source of each. The model is compared to real Chromium case by case by
// make verify-browser.
//
// Nothing here is a defence: a browser enforces these rules for its user's sake, and
// whatever is no browser ignores them.
package browser
