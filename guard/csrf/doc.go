// Package csrf has requests that a browser makes with the user's cookies carry a token
// that only a page which may read this site's answers can have. It is the second lock
// behind package crosssite.
//
// A token is bound to the browser, by a random id in a cookie whose prefix keeps sibling
// subdomains from planting it (RFC 6265bis section 4.1.3.2), and to the session, by the
// cookies that are one. A cookie alone never counts, whatever it holds.
//
// It protects from what a stranger's page, a sibling subdomain, a sandboxed frame or a form
// makes a browser do, logging in as somebody else included.
//
// It does not protect a page that a stranger can inject script into, nor credentials that
// are no cookies and that a browser sends by itself: HTTP Basic, client certificates. A
// WebSocket handshake is a GET that cannot carry a header: it is package crosssite's.
package csrf
