package gateway

import (
	"net/http"
	"slices"
	"strings"

	"github.com/moat-gateway/moat/guard"
)

// harden restricts the cookies that the upstream sets.
func (g *Gateway) harden(st *state, x *exchange, r *http.Request, h http.Header) {
	if len(h["Set-Cookie"]) == 0 {
		return
	}
	defer g.unset(st, x, r, h) // last, since names can be changed
	mode := x.route.modes[guard.Cookie]
	if mode == guard.Off {
		return
	}
	var found []guard.Decision
	x.route.cookies.Response(h, x.secure, mode, func(d guard.Decision) { found = append(found, d) })
	for _, d := range found {
		if mode == guard.Report { // to look at; what is enforced happens with each answer
			g.obs.record(st, x, r, d, mode)
			continue
		}
		x.route.stats.count(d.Reason, mode)
		if st.observe != nil {
			st.observe(r, x.verdict(d, h))
		}
	}
}

// ownCookies is what the names of the gate's own cookies begin with.
const ownCookies = "__Host-moat-"

// mentionOwn reports whether lines of cookies may hold one.
func mentionOwn(lines []string) bool {
	return slices.ContainsFunc(lines, func(line string) bool { return strings.Contains(line, ownCookies) })
}

// dropCookies takes cookies out of a request that are the gate's own: whoever has a session's
// is the user, and no upstream need be.
func dropCookies(h http.Header) {
	lines := h["Cookie"]
	if !mentionOwn(lines) {
		return
	}
	var kept []string
	for _, line := range lines {
		for part := range strings.SplitSeq(line, ";") {
			if part = strings.Trim(part, " \t"); part != "" && !strings.HasPrefix(part, ownCookies) {
				kept = append(kept, part)
			}
		}
	}
	if delete(h, "Cookie"); len(kept) > 0 {
		h["Cookie"] = []string{strings.Join(kept, "; ")}
	}
}

// unset keeps an upstream from setting them, in any mode: whoever sets one signs a visitor in
// as somebody else.
func (g *Gateway) unset(st *state, x *exchange, r *http.Request, h http.Header) {
	lines := h["Set-Cookie"]
	if !mentionOwn(lines) {
		return
	}
	h["Set-Cookie"] = slices.DeleteFunc(lines, func(line string) bool {
		pair, _, _ := strings.Cut(line, ";")
		// A pair without a name comes back as one with its value's.
		name, _, _ := strings.Cut(strings.TrimLeft(pair, "= \t"), "=")
		name = strings.Trim(name, " \t")
		if !strings.HasPrefix(name, ownCookies) {
			return false
		}
		g.obs.record(st, x, r, guard.Decision{
			Outcome: guard.Amend, Reason: guard.CookieDropped, Evidence: guard.Evidence{Where: "Set-Cookie", Got: name, Want: "a cookie that is not the gate's own"},
		}, guard.Enforce)
		return true
	})
	if len(h["Set-Cookie"]) == 0 {
		delete(h, "Set-Cookie")
	}
}
