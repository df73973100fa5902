package cookie

import (
	"net/http"
	"net/url"
	"strings"

	"github.com/moat-gateway/moat/guard"
	"github.com/moat-gateway/moat/web"
)

const (
	hostPrefix   = "__Host-"
	securePrefix = "__Secure-"
)

// Request gives the upstream the cookies under the names that it knows, and takes away
// those that came under such a name: a sibling subdomain can have planted them. It is to be
// called once, after all that reads cookies of the gate's own. In another mode than
// guard.Enforce it tells the same and changes nothing.
func (g *Guard) Request(h http.Header, secure bool, mode guard.Mode) guard.Decision {
	lines := h["Cookie"]
	if len(lines) == 0 || len(g.host)+len(g.secureNames) == 0 {
		return guard.Decision{}
	}
	planted, found := "", false
	for _, line := range lines {
		for pair := range strings.SplitSeq(line, ";") {
			switch name := pairName(pair); {
			case g.mapped(name) > 0:
				found = true
			case secure && planted == "" && g.posing(name):
				planted, found = name, true
			}
		}
	}
	if found && mode == guard.Enforce {
		g.rewrite(h, secure)
	}
	if planted == "" {
		return guard.Decision{}
	}
	return guard.Decision{
		Outcome: guard.Amend, Reason: guard.CookieDropped,
		Evidence: guard.Evidence{Where: "Cookie", Got: planted, Want: "the name with a prefix, under which the gate had the browser keep it"},
	}
}

// pairName is the name in a pair of a Cookie line. Without "=", servers differ about which
// of name and value it is.
func pairName(pair string) string {
	name, _, _ := strings.Cut(pair, "=")
	return strings.Trim(name, blanks)
}

// mapped returns the length of the prefix that the gate has put before the name.
func (g *Guard) mapped(name string) int {
	if rest, ok := strings.CutPrefix(name, hostPrefix); ok && g.host.match(rest) {
		return len(hostPrefix)
	}
	if rest, ok := strings.CutPrefix(name, securePrefix); ok && g.secureNames.match(rest) {
		return len(securePrefix)
	}
	return 0
}

// posing reports whether an upstream could take the name for one that only the gate sets.
// Some decode names, some ignore case, and PHP reads "a.b", "a b" and "a[b" as "a_b".
func (g *Guard) posing(name string) bool {
	if strings.Contains(name, "%") {
		if decoded, err := url.PathUnescape(name); err == nil {
			name = decoded
		}
	}
	if prefixOf(name).prefix != "" {
		return false
	}
	name = strings.TrimLeft(name, " \t+")
	name = strings.TrimRight(name, "[] \t")
	var b [64]byte
	folded := web.AppendFolded(b[:0], name)
	return g.host.matchFolded(folded) || g.secureNames.matchFolded(folded)
}

// rewrite changes the Cookie lines. What stays keeps its bytes.
func (g *Guard) rewrite(h http.Header, secure bool) {
	var rest []string
	for _, line := range h["Cookie"] {
		var kept []string
		for pair := range strings.SplitSeq(line, ";") {
			name := pairName(pair)
			if n := g.mapped(name); n > 0 {
				i := strings.Index(pair, name)
				kept = append(kept, pair[:i]+pair[i+n:])
			} else if !secure || !g.posing(name) {
				kept = append(kept, pair)
			}
		}
		if len(kept) > 0 {
			rest = append(rest, strings.TrimLeft(strings.Join(kept, ";"), blanks))
		}
	}
	if h["Cookie"] = rest; rest == nil {
		delete(h, "Cookie")
	}
}
