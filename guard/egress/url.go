package egress

import (
	"errors"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/net/idna"
	"golang.org/x/net/publicsuffix"

	"github.com/moat-gateway/moat/guard"
)

// host is an entry of the list.
type host struct {
	name   string // in ASCII and lower case; of a pattern, what follows "*."
	anyOne bool   // "*.": one label in front
	port   string // "" for the scheme's own
}

// CheckHost says why a text cannot stand in Hosts.
func CheckHost(s string) error {
	_, err := parseHost(s)
	return err
}

func parseHost(s string) (h host, err error) {
	name := s
	if i := strings.LastIndexByte(s, ':'); i >= 0 {
		name, h.port = s[:i], s[i+1:]
		if !validPort(h.port) {
			return h, errors.New("not a host such as api.example.com, *.example.com or api.example.com:8443")
		}
	}
	name, h.anyOne = strings.CutPrefix(name, "*.")
	if name == "*" || strings.Contains(name, "*") {
		return h, errors.New("a wildcard stands only for the first label, as in *.example.com")
	}
	if h.name, err = canonical(name); err != nil {
		return h, err
	}
	if h.anyOne {
		if suffix, icann := publicsuffix.PublicSuffix(h.name); icann && suffix == h.name || !strings.Contains(h.name, ".") {
			return h, errors.New("covers hosts of anybody; list domains that are one owner's")
		}
	}
	return h, nil
}

// canonical is a host's name as DNS has it: without a dot at the end, in lower case, and in
// ASCII. What browsers and resolvers could take for an address is no name.
func canonical(name string) (string, error) {
	ascii, err := idna.Lookup.ToASCII(strings.TrimSuffix(name, "."))
	if err != nil || ascii == "" || len(ascii) > 253 || strings.Trim(ascii, "abcdefghijklmnopqrstuvwxyz0123456789-_.") != "" || slices.Contains(strings.Split(ascii, "."), "") {
		return "", errors.New("not the name of a host")
	}
	if endsInNumber(ascii) {
		return "", errors.New("an address in place of a name")
	}
	return ascii, nil
}

// endsInNumber is the URL standard's test for an IPv4 address in any spelling: 127.1,
// 0x7f.1, 2130706433 (https://url.spec.whatwg.org/#ends-in-a-number-checker).
func endsInNumber(name string) bool {
	last := strings.TrimSuffix(name, ".")
	last = last[strings.LastIndexByte(last, '.')+1:]
	if last != "" && strings.Trim(last, "0123456789") == "" {
		return true
	}
	hex, ok := strings.CutPrefix(strings.ToLower(last), "0x")
	return ok && strings.Trim(hex, "0123456789abcdef") == ""
}

func validPort(s string) bool {
	n, err := strconv.ParseUint(s, 10, 16)
	return err == nil && n > 0 && strconv.FormatUint(n, 10) == s
}

// matches reports whether the entry covers a name and a port, which is "" for the scheme's own.
func (h *host) matches(name, port string) bool {
	if h.port != port {
		return false
	}
	if !h.anyOne {
		return h.name == name
	}
	_, rest, ok := strings.Cut(name, ".")
	return ok && rest == h.name
}

// unprintable reports whether a URL holds what no URL does: a blank or a control character,
// which could end a line of the request; or a backslash, which browsers take for a slash.
func unprintable(s string) bool {
	return strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r == 0x7f || r == '\\' || r == '\uFFFD' })
}

// Decide reads a URL and reports whether it may be fetched. The URL that it returns is made
// anew from what was checked, and holds nothing else.
func (g *Guard) Decide(raw string) (*url.URL, guard.Decision) {
	refuse := func(want string) (*url.URL, guard.Decision) {
		return nil, guard.Denial(guard.EgressNotAllowed, "URL", withoutQuery(raw), want)
	}
	if len(raw) > maxURL || unprintable(raw) {
		return refuse("a URL of ordinary length, without blanks, control characters and backslashes")
	}
	u, err := url.Parse(raw)
	switch {
	case err != nil || u.Opaque != "" || u.Host == "":
		return refuse("a whole URL, such as https://api.example.com/path")
	case u.Scheme != "http" && u.Scheme != "https":
		return refuse("http or https")
	case u.User != nil:
		return refuse("no name and password")
	case strings.ContainsAny(u.Host, "[]"):
		return refuse("a name, and no address")
	}
	name, err := canonical(u.Hostname())
	if err != nil {
		return refuse("the name of a listed host")
	}
	port := u.Port()
	if port != "" && !validPort(port) {
		return refuse("a port from 1 to 65535")
	}
	if u.Scheme == "http" && port == "80" || u.Scheme == "https" && port == "443" {
		port = ""
	}
	listed := false
	for i := range g.hosts {
		listed = listed || g.hosts[i].matches(name, port)
	}
	if !listed {
		return refuse("a listed host, at its port")
	}
	out := &url.URL{Scheme: u.Scheme, Host: name, Path: u.Path, RawPath: u.RawPath, RawQuery: asciiQuery(u.RawQuery)}
	if port != "" {
		out.Host += ":" + port
	}
	return out, guard.Decision{}
}

// withoutQuery is what a record may hold of a URL: its query and its password may be secret.
func withoutQuery(raw string) string {
	raw, _, _ = strings.Cut(raw, "?")
	raw, _, _ = strings.Cut(raw, "#")
	if i := strings.LastIndexByte(raw, '@'); i >= 0 {
		raw = "…" + raw[i:]
	}
	return raw
}

// asciiQuery encodes what is not ASCII in a query, as browsers do. A request's line is ASCII.
func asciiQuery(q string) string {
	var b strings.Builder
	for i := range len(q) {
		if q[i] < 0x80 {
			b.WriteByte(q[i])
			continue
		}
		const hex = "0123456789ABCDEF"
		b.Write([]byte{'%', hex[q[i]>>4], hex[q[i]&15]})
	}
	return b.String()
}
