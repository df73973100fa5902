package csrf

import (
	"crypto/sha256"
	"net/http"
	"slices"
	"strings"
)

// binding is what a token is bound to.
type binding [sha256.Size]byte

// cutCookie cuts a pair of a Cookie line as browsers make them (RFC 6265bis section 5.8.3).
func cutCookie(pair string) (name, value string) {
	name, value, _ = strings.Cut(strings.Trim(pair, " \t"), "=")
	return name, value
}

// session returns the name by which the policy knows a session's cookie. The cookie guard may have
// had the browser keep it with a prefix.
func (g *Guard) session(name string) (known string, ok bool) {
	bare := strings.TrimPrefix(strings.TrimPrefix(name, "__Host-"), "__Secure-")
	if strings.HasPrefix(bare, "__Host-") || strings.HasPrefix(bare, "__Secure-") {
		bare = name // one prefix is put before a name, and none before one that has it
	}
	if slices.Contains(g.sessions, bare) {
		return bare, true
	}
	return name, slices.Contains(g.sessions, name)
}

// ambient reports whether a session's cookie is there that an upstream could know the user by.
func (g *Guard) ambient(lines []string) bool {
	for _, line := range lines {
		for pair := range strings.SplitSeq(line, ";") {
			name, _ := cutCookie(pair)
			if known, ok := g.session(name); ok && !slices.Contains(g.own, known) {
				return true
			}
		}
	}
	return false
}

// one returns the value of the cookie of that name. Two have none.
func one(lines []string, name string) string {
	found, n := "", 0
	for _, line := range lines {
		for pair := range strings.SplitSeq(line, ";") {
			if known, value := cutCookie(pair); known == name {
				found, n = value, n+1
			}
		}
	}
	if n != 1 {
		return ""
	}
	return found
}

// spa is the token that script finds in its cookie. It only tells whether the browser needs
// another one.
func (g *Guard) spa(lines []string) string { return one(lines, g.cookie) }

// browser is the browser's id, or "". It carries no proof of being ours: only this host
// can have set a cookie of that name, and a program that makes one up attacks only itself.
func (g *Guard) browser(lines []string) string {
	id := one(lines, g.id)
	if len(id) != idText {
		return ""
	}
	return id
}

// bind hashes the browser's id and the session's cookies, in the order in which they came.
// A sibling subdomain can plant a session's cookie that it knows a token for; it cannot
// plant the id that it got that token with.
func (g *Guard) bind(id string, lines []string) binding {
	var room [512]byte
	b := append(room[:0], id...)
	for _, line := range lines {
		for pair := range strings.SplitSeq(line, ";") {
			name, value := cutCookie(pair)
			name, ok := g.session(name)
			if !ok || slices.Contains(g.rolling, name) {
				continue
			}
			b = append(append(b, ';'), name...) // which no pair contains, as no name contains "="
			b = append(append(b, '='), value...)
		}
	}
	return sha256.Sum256(b)
}

// carries reports whether a pair of a Cookie line is the guard's own.
func (g *Guard) carries(pair string) bool {
	name, _ := cutCookie(pair)
	return name == g.id || name == g.cookie
}

// stripCookies takes the guard's own out of the cookies. What stays keeps its bytes.
func (g *Guard) stripCookies(h http.Header) {
	var rest []string
	found := false
	for _, line := range h["Cookie"] {
		if !strings.Contains(line, g.cookie) { // the id's name begins so too
			rest = append(rest, line)
			continue
		}
		pairs := slices.DeleteFunc(strings.Split(line, ";"), g.carries)
		found = true
		if len(pairs) > 0 {
			rest = append(rest, strings.TrimLeft(strings.Join(pairs, ";"), " "))
		}
	}
	if !found {
		return
	}
	if h["Cookie"] = rest; rest == nil {
		delete(h, "Cookie")
	}
}
