// Package crosssite refuses what other sites' pages make a browser do: cross-site
// request forgery, embedding, and WebSocket hijacking. It is the server's use of
// Fetch Metadata (https://www.w3.org/TR/fetch-metadata/) and of the Origin header.
//
// It protects from a browser that acts for a stranger's page, whether the request
// needs a preflight or not: form POSTs, JSON sent as text/plain, images and links that
// trigger a GET with side effects, sandboxed frames, WebSocket handshakes.
//
// It does not protect from anything that is no browser: such a client sends the
// headers that it likes. A subdomain of the same site counts as a stranger unless the
// policy says otherwise, because Strict and Lax cookies travel from there.
package crosssite

import (
	"net/http"
	"strings"

	"github.com/moat-gateway/moat/guard"
	"github.com/moat-gateway/moat/web"
)

// Policy says what other sites' pages may do. The zero Policy lets none do anything.
type Policy struct {
	// Origins lists the pages that are no strangers: the same list that CORS uses.
	// An OriginSet of "*" lets anybody read, but lists nobody here.
	Origins *web.OriginSet
	// Public is what this server is called from outside.
	Public *web.PublicOrigins
	// SideEffects declares that even GET and HEAD change state on this route.
	SideEffects bool
	// AllowSameSite treats pages of the same site (sibling subdomains, other ports) as
	// no strangers.
	AllowSameSite bool
	// AllowEmbed lets other sites load this without CORS, as images, scripts, styles,
	// frames or no-cors fetches do, where the method is safe and there are no side effects.
	AllowEmbed bool
	// AllowBrowserless lets requests pass that have neither Origin nor Sec-Fetch-Site,
	// as curl, webhooks and mobile apps send them.
	AllowBrowserless bool
}

// Guard is a compiled Policy: immutable, and safe for concurrent use.
type Guard struct{ p Policy }

// New compiles a Policy.
func New(p Policy) *Guard {
	if p.Origins == nil {
		p.Origins = &web.OriginSet{}
	}
	if p.Public == nil {
		p.Public = web.NewPublicOrigins(nil)
	}
	return &Guard{p}
}

// Decide judges a request. It reads the method, the Host and the headers, changes
// nothing, and does not allocate unless a site has to be told from Origin alone. A preflight passes: it does nothing by itself, and
// its actual request is judged here in its turn.
func (g *Guard) Decide(r *http.Request) guard.Decision {
	var origin, site string
	if v := r.Header["Origin"]; len(v) > 0 {
		origin = v[0]
	}
	if v := r.Header["Sec-Fetch-Site"]; len(v) > 0 {
		site = v[0]
	}
	if origin == "" && site == "" {
		if g.p.AllowBrowserless {
			return guard.Decision{}
		}
		return guard.Denial(guard.CrossSiteBrowserless, "Sec-Fetch-Site", "", "Sec-Fetch-Site or Origin, as every browser sends")
	}
	// An unsafe method is judged the same, socket or not.
	socket := safe(r.Method) && isWebSocket(r)
	if !socket && !g.p.SideEffects && safe(r.Method) {
		return g.read(r, site)
	}
	if g.p.SideEffects && isPrefetch(r.Header) {
		return guard.Denial(guard.CrossSitePrefetch, "Sec-Purpose", r.Header["Sec-Purpose"][0], "a request that the user asked for")
	}
	return g.act(r, origin, site, socket)
}

// read judges a request that changes nothing. With CORS, a page can read only what
// the cors guard lets it; here the rest is judged, what is loaded without CORS.
func (g *Guard) read(r *http.Request, site string) guard.Decision {
	mode := r.Header.Get("Sec-Fetch-Mode")
	dest := r.Header.Get("Sec-Fetch-Dest")
	switch {
	case site != "cross-site", g.p.AllowEmbed, mode != "no-cors" && !frames(dest):
		return guard.Decision{}
	}
	return guard.Denial(guard.CrossSiteEmbed, "Sec-Fetch-Dest", dest, "a request with CORS, or a navigation of the whole window")
}

// frames reports whether the answer would stand inside another page. These are
// navigations in the eyes of Fetch Metadata.
func frames(dest string) bool {
	switch dest {
	case "object", "embed", "iframe", "frame", "fencedframe":
		return true
	}
	return false
}

// act judges a request that changes state.
func (g *Guard) act(r *http.Request, origin, site string, socket bool) guard.Decision {
	switch {
	case site == "same-origin", site == "none" && origin == "" && !safe(r.Method):
		// none: the user did it. A GET proves less: a typed URL or a link in a mail may have
		// been redirected here by a stranger, and none stays none.
		return guard.Decision{}
	case site == "" && origin != "" && g.p.Public.SameOrigin(origin, r.Host):
		// Old browsers, and WebSocket handshakes, come without Sec-Fetch-Site.
		return guard.Decision{}
	case origin != "" && g.p.Origins.Lists(origin):
		return guard.Decision{Reason: guard.CrossSiteOriginAllowed}
	case g.p.AllowSameSite && origin != "null" && (site == "same-site" || site == "" && g.p.Public.SameSite(origin, r.Host)):
		return guard.Decision{Reason: guard.CrossSiteSameSite}
	case socket:
		return guard.Denial(guard.CrossSiteWebSocket, "Origin", origin, "an origin of the policy's list")
	case origin == "null":
		return guard.Denial(guard.CrossSiteOpaqueOrigin, "Origin", origin, "an origin of the policy's list")
	case origin == "":
		return guard.Denial(guard.CrossSiteRequest, "Sec-Fetch-Site", site, "same-origin")
	}
	return guard.Denial(guard.CrossSiteRequest, "Origin", origin, "an origin of the policy's list")
}

// safe reports whether the method changes nothing by its definition (RFC 9110 section
// 9.2.1). TRACE, safe too, never gets here.
func safe(method string) bool {
	return method == http.MethodGet || method == http.MethodHead || method == http.MethodOptions
}

// isWebSocket reports whether r is a WebSocket handshake (RFC 6455 section 4.1). Any
// other upgrade is left to its method.
func isWebSocket(r *http.Request) bool {
	v := r.Header["Upgrade"]
	if len(v) == 1 && len(v[0]) <= 64 {
		return web.ListContains(v[0], "websocket")
	}
	return len(v) > 0 // nobody honest sends this; the stricter rule is on the safe side
}

// isPrefetch reports whether the browser fetches on speculation
// (https://fetch.spec.whatwg.org/#sec-purpose-header).
func isPrefetch(h http.Header) bool {
	v := h["Sec-Purpose"]
	return len(v) > 0 && strings.HasPrefix(v[0], "prefetch")
}

// Handler refuses what Decide refuses, and passes the rest to next.
func (g *Guard) Handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if d := g.Decide(r); d.Denied() {
			guard.Refuse(w, d.Reason, "")
			return
		}
		next.ServeHTTP(w, r)
	})
}
