// Package scrub removes what a client has no right to say: headers that moat itself
// sets or that upstreams believe, in any spelling, and the hop-by-hop headers that
// belong to one connection only.
//
// It protects upstreams that take X-Forwarded-For, X-Real-IP or an identity header at
// its word. Many servers map "X-Real-IP", "x_real_ip" and "X.Real.IP" to one variable,
// so names are compared by their letters and digits only.
//
// It does not protect an upstream that can be reached without passing moat.
package scrub

import (
	"net/http"
	"slices"
	"strings"

	"golang.org/x/net/http/httpguts"

	"github.com/moat-gateway/moat/guard"
	"github.com/moat-gateway/moat/web"
)

// defaults are the names, folded, that upstreams believe about who is calling or where
// from. A name that ends in "*" stands for all that begin so.
var defaults = []string{
	"forwarded", "forwarded-*", "x-forwarded", "x-forwarded-*", "x-forward-*", "x-original-*", "x-rewrite-url",
	"x-real-ip", "x-real-port", "x-client-ip", "x-clientip", "x-cluster-client-ip", "x-remote-*", "x-originating-ip", "x-host",
	"x-http-host-override", "x-http-destinationurl", "x-proxyuser-ip", "x-envoy-*", "x-azure-clientip", "x-azure-socketip",
	"front-end-https", "x-url-scheme", "x-scheme", "x-https", "cloudfront-*", "x-arr-*", "x-sucuri-*", "incap-client-ip",
	"true-client-ip", "client-ip", "cf-connecting-ip", "cf-connecting-ipv6", "cf-pseudo-ipv4", "cf-ipcountry",
	"fastly-client-ip", "fly-client-ip", "x-appengine-*", "x-vercel-*", "x-nf-client-connection-ip", "wl-proxy-*",
	"proxy", "proxy-*", "remote-addr", "remote-host", "remote-user", "remote-groups", "remote-name", "remote-email",
	"x-user", "x-user-id", "x-user-name", "x-user-email", "x-user-role*", "x-user-groups", "x-username", "x-userinfo",
	"x-email", "x-groups", "x-roles", "x-scopes", "x-id-token", "x-authenticated-*", "x-authentik-*", "x-webauth-*",
	"x-auth-request-*", "x-auth-user*", "x-auth-email", "x-auth-groups", "x-auth-roles", "x-auth-subject",
	"x-jwt-claim*", "x-jwt-payload", "x-token-claim*", "x-token-subject", "x-consumer-*", "x-credential-*",
	"x-anonymous-consumer", "x-identity", "x-identity-*", "x-principal", "x-principal-*", "x-subject",
	"x-goog-authenticated-*", "x-goog-iap-*", "x-ms-client-principal*", "x-ms-token-*", "x-amzn-oidc-*", "x-amzn-mtls-*",
	"x-client-cert*", "x-client-verify", "x-client-dn", "client-cert", "client-cert-chain", "x-ssl-*", "ssl-client-*", "x-pomerium-*", "x-vouch-*", "tailscale-user-*",
	"cf-access-*", "oidc-*", "iv-*", "sm-*", "impersonate-*", "teleport-*", "x-replit-user-*", "moat-*", "x-moat-*",
}

// hopByHop are the headers that belong to one connection (RFC 9110 section 7.6.1), in
// canonical form. Te and Upgrade are looked at apart.
var hopByHop = []string{
	"Connection", "Keep-Alive", "Proxy-Connection", "Transfer-Encoding", "Trailer", "Http2-Settings",
	"Proxy-Authenticate", "Proxy-Authorization",
}

// Guard is a compiled list of names: immutable, and safe for concurrent use.
type Guard struct {
	forged   map[string]struct{} // folded
	prefixes []string            // folded
	passed   map[string]struct{} // folded: exceptions to prefixes
	initials [256]bool           // of all names and prefixes, both cases
}

// New returns a Guard for the names that upstreams are known to believe, and for
// extra: those that moat is configured to set. A "*" at the end of an extra name
// stands for any rest. The names in pass are let through, however they are spelt.
func New(extra, pass []string) *Guard {
	g := &Guard{forged: make(map[string]struct{}), passed: make(map[string]struct{})}
	for _, n := range pass {
		g.passed[web.FoldName(n)] = struct{}{}
	}
	for _, name := range slices.Concat(defaults, extra) {
		n, prefix := strings.CutSuffix(name, "*")
		if n = web.FoldName(n); n == "" {
			continue
		}
		if prefix {
			g.prefixes = append(g.prefixes, n)
		} else {
			g.forged[n] = struct{}{}
		}
		g.initials[n[0]], g.initials[upper(n[0])] = true, true
	}
	return g
}

// Forged reports whether a client may not send a header of that name. It does not
// allocate for a name of ordinary length.
func (g *Guard) Forged(name string) bool {
	if name == "" || !g.initials[name[0]] {
		return false
	}
	var b [64]byte
	folded := b[:0]
	if len(name) > len(b) {
		folded = make([]byte, 0, len(name))
	}
	folded = web.AppendFolded(folded, name)
	if _, ok := g.passed[string(folded)]; ok {
		return false
	}
	if _, ok := g.forged[string(folded)]; ok {
		return true
	}
	for _, p := range g.prefixes {
		if len(folded) >= len(p) && string(folded[:len(p)]) == p {
			return true
		}
	}
	return false
}

// Decide returns the first header of h that the client may not send. It changes nothing.
func (g *Guard) Decide(r *http.Request) guard.Decision {
	for name := range r.Header {
		if g.Forged(name) {
			return guard.Decision{
				Outcome: guard.Amend, Reason: guard.ScrubForgedHeader,
				Evidence: guard.Evidence{Where: "header", Got: name, Want: "only moat or a trusted proxy to set it"},
			}
		}
	}
	for name := range r.Trailer {
		if g.Forged(name) {
			return guard.Decision{
				Outcome: guard.Amend, Reason: guard.ScrubForgedHeader,
				Evidence: guard.Evidence{Where: "trailer", Got: name, Want: "only moat or a trusted proxy to set it"},
			}
		}
	}
	return guard.Decision{}
}

// Scrub removes every forged header from h, in place.
func (g *Guard) Scrub(h http.Header) {
	for name := range h {
		if g.Forged(name) {
			delete(h, name)
		}
	}
}

// HopByHop removes from h, in place, the headers that belong to the client's
// connection, and those that Connection names. What Connection may not name stays: by
// naming one of them a client could take from the upstream what moat had set or checked.
//
// "Te: trailers" is kept, for gRPC; an upgrade is returned, and the caller sets it
// again if it means to upgrade.
func HopByHop(h http.Header) (upgrade string) {
	if conn := h["Connection"]; conn != nil {
		if httpguts.HeaderValuesContainsToken(conn, "upgrade") {
			upgrade = h.Get("Upgrade")
		}
		for _, line := range conn {
			for name := range strings.SplitSeq(line, ",") {
				name = http.CanonicalHeaderKey(strings.Trim(name, " \t"))
				if !keep[name] {
					delete(h, name)
				}
			}
		}
	}
	if te := h["Te"]; te != nil {
		if web.HeaderContains(te, "trailers") {
			h["Te"] = []string{"trailers"}
		} else {
			delete(h, "Te")
		}
	}
	delete(h, "Upgrade")
	for _, name := range hopByHop {
		delete(h, name)
	}
	return upgrade
}

// Trailer reports whether a client may send a trailer of that name, in canonical form: one
// that neither poses as moat nor as a header that has been checked (RFC 9110 section 6.5.1).
func (g *Guard) Trailer(name string) bool {
	return !g.Forged(name) && !keep[name] && !slices.Contains(hopByHop, name) && name != "Upgrade"
}

// keep are the headers that Connection must not make vanish.
var keep = map[string]bool{
	"Authorization": true, "Cookie": true, "Origin": true, "Host": true, "Content-Length": true, "Content-Type": true,
	"Content-Encoding": true, "Sec-Fetch-Site": true, "Sec-Fetch-Mode": true, "Sec-Fetch-Dest": true, "Expect": true,
	"Te": true, "If-Match": true, "If-None-Match": true, "Range": true, "Cache-Control": true,
}

// Handler removes forged headers, and passes the request to next.
func (g *Guard) Handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if g.Decide(r).Outcome == guard.Amend {
			r2 := *r
			r2.Header, r2.Trailer = r.Header.Clone(), r.Trailer.Clone()
			g.Scrub(r2.Header)
			g.Scrub(r2.Trailer)
			r = &r2
		}
		next.ServeHTTP(w, r)
	})
}

func upper(c byte) byte {
	if 'a' <= c && c <= 'z' {
		return c - 'a' + 'A'
	}
	return c
}
