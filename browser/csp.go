package browser

import (
	"net/url"
	"strings"
)

// cspDirectives are the directives that govern an API, the most specific first
// (https://w3c.github.io/webappsec-csp/#directive-fallback-list).
var cspDirectives = map[API][]string{
	Fetch:        {"connect-src", "default-src"},
	XHR:          {"connect-src", "default-src"},
	EventSource:  {"connect-src", "default-src"},
	Beacon:       {"connect-src", "default-src"},
	Ping:         {"connect-src", "default-src"},
	WebSocket:    {"connect-src", "default-src"},
	Image:        {"img-src", "default-src"},
	Font:         {"font-src", "default-src"},
	Script:       {"script-src-elem", "script-src", "default-src"},
	ModuleScript: {"script-src-elem", "script-src", "default-src"},
	Stylesheet:   {"style-src-elem", "style-src", "default-src"},
	Frame:        {"frame-src", "child-src", "default-src"},
	Form:         {"form-action"},
}

// cspBlocks returns the directive of the page's policy that forbids the URL, or "".
func cspBlocks(policy string, api API, self, to location, redirected bool) string {
	directives := map[string]string{}
	for d := range strings.SplitSeq(policy, ";") {
		name, sources, _ := cutSpace(strings.Trim(d, space))
		name = strings.ToLower(name)
		if _, twice := directives[name]; name != "" && !twice {
			directives[name] = sources
		}
	}
	for _, name := range cspDirectives[api] {
		sources, ok := directives[name]
		if !ok {
			continue
		}
		for s := range strings.FieldsSeq(sources) {
			if sourceMatches(s, self, to, redirected) {
				return ""
			}
		}
		return strings.TrimRight(name+" "+strings.Join(strings.Fields(sources), " "), " ")
	}
	return ""
}

const space = " \t\r\n\f"

// cutSpace cuts at the first white space.
func cutSpace(s string) (before, after string, found bool) {
	i := strings.IndexAny(s, space)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+1:], true
}

// sourceMatches is https://w3c.github.io/webappsec-csp/#match-url-to-source-expression.
func sourceMatches(s string, self, to location, redirected bool) bool {
	switch strings.ToLower(s) {
	case "'self'":
		secure := to.url.Scheme == "https" || to.url.Scheme == "wss"
		return to.origin == self.origin || to.origin.Host() == self.origin.Host() && secure && defaultPorts(self.url, to.url)
	case "*":
		switch to.url.Scheme {
		case "http", "https", "ws", "wss":
			return true
		}
		return false
	}
	if strings.HasPrefix(s, "'") {
		return false
	}
	if scheme, ok := strings.CutSuffix(s, ":"); ok && !strings.Contains(scheme, "/") {
		return schemeMatches(strings.ToLower(scheme), to.url.Scheme)
	}
	scheme, rest, ok := strings.Cut(s, "://")
	if !ok {
		scheme, rest = self.url.Scheme, s
	}
	if !schemeMatches(strings.ToLower(scheme), to.url.Scheme) {
		return false
	}
	hostport, path, hasPath := strings.Cut(rest, "/")
	host, port, _ := cutPort(strings.ToLower(hostport))
	name := to.origin.Host()
	if suffix, wild := strings.CutPrefix(host, "*"); wild {
		if !strings.HasSuffix(name, suffix) || len(name) <= len(suffix) {
			return false
		}
	} else if host != name {
		return false
	}
	if !portMatches(port, scheme, to.url) {
		return false
	}
	if !hasPath || redirected || path == "" {
		return true
	}
	path = "/" + path
	return to.url.Path == path || strings.HasSuffix(path, "/") && strings.HasPrefix(to.url.Path, path)
}

// schemeMatches is https://w3c.github.io/webappsec-csp/#match-schemes.
func schemeMatches(a, b string) bool {
	switch a {
	case "http":
		return b == "http" || b == "https"
	case "ws":
		return b == "ws" || b == "wss" || b == "http" || b == "https"
	case "wss":
		return b == "wss" || b == "https"
	}
	return a == b
}

func portMatches(port, scheme string, u *url.URL) bool {
	have := u.Port()
	if have == "" {
		have = schemePort(u.Scheme)
	}
	switch port {
	case "*":
		return true
	case "":
		return have == schemePort(u.Scheme) && (schemePort(scheme) == have || have == "443")
	}
	return port == have || port == "80" && have == "443"
}

func schemePort(scheme string) string {
	switch scheme {
	case "https", "wss":
		return "443"
	}
	return "80"
}

func defaultPorts(a, b *url.URL) bool {
	return a.Port() == b.Port() || a.Port() == "" && b.Port() == ""
}
