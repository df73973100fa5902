// Package web holds the vocabulary of the web that the guards share: origins and
// sites, sets of origins, the public origins that a gate answers for, and reading
// header lists. It knows nothing of policy.
package web

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"golang.org/x/net/idna"
	"golang.org/x/net/publicsuffix"
)

// maxHost is the longest host name that DNS can carry (RFC 1035 section 2.3.4).
const maxHost = 253

// MaxOrigin bounds a serialized origin: a scheme, "://", a host, a port.
const MaxOrigin = 32 + len("://") + maxHost + len(":65535")

// Origin is a tuple origin (RFC 6454; https://html.spec.whatwg.org/#concept-origin-tuple):
// what a browser puts into the Origin header. Only ParseOrigin makes one, so an
// Origin is always in the one spelling that browsers use. The zero Origin is no origin.
type Origin struct {
	scheme, host string // host with brackets, if IPv6
	port         uint16 // 0: the scheme's default
}

// OriginError says what is wrong with an origin, and how it should be spelt if
// that can be told.
type OriginError struct {
	Value, Reason string
	// Suggest is the right spelling of what was probably meant, or "".
	Suggest string
}

func (e *OriginError) Error() string {
	if e.Suggest != "" {
		return fmt.Sprintf("%s; write %s", e.Reason, e.Suggest)
	}
	return e.Reason
}

// ParseOrigin reads a serialized origin: scheme://host or scheme://host:port, in
// exactly the spelling that a browser sends. Whatever can never equal an Origin
// header is refused, with the right spelling where there is one: a path, a slash at
// the end, user information, the scheme's default port, upper case, Unicode, a dot
// at the end, an IPv6 address that is not in its canonical form.
func ParseOrigin(s string) (Origin, error) {
	if o, ok := scanOrigin(s); ok {
		return o, nil
	}
	return Origin{}, diagnose(s)
}

// String returns the ASCII serialization (RFC 6454 section 6.2).
func (o Origin) String() string {
	if o.IsZero() {
		return ""
	}
	s := o.scheme + "://" + o.host
	if o.port != 0 {
		s += ":" + strconv.Itoa(int(o.port))
	}
	return s
}

// IsZero reports whether o is no origin at all.
func (o Origin) IsZero() bool { return o.scheme == "" }

// Scheme returns the scheme, without a colon.
func (o Origin) Scheme() string { return o.scheme }

// Host returns the host, with brackets around an IPv6 address.
func (o Origin) Host() string { return o.host }

// HostPort returns the host, and the port where it is not the scheme's default:
// what a browser sends as Host to a server of this origin.
func (o Origin) HostPort() string {
	if o.port == 0 {
		return o.host
	}
	return o.host + ":" + strconv.Itoa(int(o.port))
}

// Loopback reports whether the host can only be this machine: "localhost", a name
// below it (https://www.rfc-editor.org/rfc/rfc6761#section-6.3), or a loopback address.
func (o Origin) Loopback() bool {
	if o.host == "localhost" || strings.HasSuffix(o.host, ".localhost") {
		return true
	}
	a, err := netip.ParseAddr(strings.Trim(o.host, "[]"))
	return err == nil && a.IsLoopback()
}

// Site returns the schemeful site: scheme and registrable domain
// (https://html.spec.whatwg.org/#obtain-a-site). A host without a registrable
// domain (an address, a public suffix, "localhost") is its own site. Ports do not count.
func (o Origin) Site() string { return o.scheme + "://" + o.registrable() }

// SameSite reports whether a and b are schemefully same-site.
func SameSite(a, b Origin) bool {
	return !a.IsZero() && a.scheme == b.scheme && a.registrable() == b.registrable()
}

// registrable is the registrable domain of the host, or the host if it has none.
func (o Origin) registrable() string {
	if o.isAddress() {
		return o.host
	}
	if d, err := publicsuffix.EffectiveTLDPlusOne(o.host); err == nil {
		return d
	}
	return o.host
}

// isAddress reports whether the host is an IP address: a valid host whose last label
// is a number is nothing else.
func (o Origin) isAddress() bool {
	last := o.host[strings.LastIndexByte(o.host, '.')+1:]
	return o.host[0] == '[' || strings.Trim(last, "0123456789") == ""
}

// defaultPort is the port that a browser leaves out, for the schemes that have one
// (https://url.spec.whatwg.org/#special-scheme).
func defaultPort(scheme string) uint16 {
	switch scheme {
	case "http", "ws":
		return 80
	case "https", "wss":
		return 443
	case "ftp":
		return 21
	}
	return 0
}

// scanOrigin reads an origin in its only spelling. It does not allocate.
func scanOrigin(s string) (Origin, bool) {
	if len(s) > MaxOrigin {
		return Origin{}, false
	}
	scheme, rest, ok := strings.Cut(s, "://")
	if !ok || !validScheme(scheme) {
		return Origin{}, false
	}
	host, port, ok := splitPort(rest)
	if !ok || port != 0 && port == defaultPort(scheme) || !validHost(host) {
		return Origin{}, false
	}
	return Origin{scheme, host, port}, true
}

// splitPort splits host[:port]. A port is 1 to 65535 without leading zeros; the
// returned port is 0 where there is none.
func splitPort(s string) (host string, port uint16, ok bool) {
	// A port has at most 5 digits, so a colon further to the left belongs to none.
	digits := len(s)
	for digits > 0 && len(s)-digits < 6 && s[digits-1] >= '0' && s[digits-1] <= '9' {
		digits--
	}
	if digits == 0 || s[digits-1] != ':' {
		return s, 0, true
	}
	n := 0
	for _, c := range []byte(s[digits:]) {
		n = n*10 + int(c-'0')
	}
	if digits == len(s) || s[digits] == '0' || n > 65535 {
		return "", 0, false
	}
	return s[:digits-1], uint16(n), true
}

// validScheme accepts lower-case schemes (RFC 3986 section 3.1). Schemes whose
// pages have an opaque origin are not accepted: their Origin is "null".
func validScheme(s string) bool {
	if s == "" || len(s) > 32 || s[0] < 'a' || s[0] > 'z' {
		return false
	}
	for i := 1; i < len(s); i++ {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '+' && c != '-' && c != '.' {
			return false
		}
	}
	switch s {
	case "file", "data", "blob", "about", "javascript":
		return false
	}
	return true
}

const (
	hostByte  = 1 << iota // may stand in a host name
	digitByte             // 0-9
)

var hostBytes = func() (t [256]uint8) {
	for c := 'a'; c <= 'z'; c++ {
		t[c] = hostByte
	}
	for c := '0'; c <= '9'; c++ {
		t[c] = hostByte | digitByte
	}
	// Underscores are no letters of a host name, but browsers resolve and send them.
	t['-'], t['_'], t['.'] = hostByte, hostByte, hostByte
	return t
}()

// validHost accepts a lower-case domain name without a dot at its end, an IPv4
// address in dotted decimal, or an IPv6 address in brackets, each in canonical form.
func validHost(h string) bool {
	if h == "" || len(h) > maxHost {
		return false
	}
	if h[0] == '[' {
		a, err := netip.ParseAddr(strings.TrimSuffix(h[1:], "]"))
		return err == nil && h[len(h)-1] == ']' && a.Is6() && a.Zone() == "" && !a.Is4In6() && a.String() == h[1:len(h)-1]
	}
	if !validLabels(h) {
		return false
	}
	// A last label that is all digits makes the host an IPv4 address
	// (https://url.spec.whatwg.org/#ends-in-a-number-checker), in one spelling.
	last := h[strings.LastIndexByte(h, '.')+1:]
	for i := range len(last) {
		if hostBytes[last[i]]&digitByte == 0 {
			return !strings.HasPrefix(last, "0x")
		}
	}
	a, err := netip.ParseAddr(h)
	return err == nil && a.Is4()
}

// validLabels reports whether s is one or more labels, each of 1 to 63 host bytes. It
// has no branch for each byte: a stranger chooses how long the host is.
func validLabels(s string) bool {
	if s == "" || s[0] == '.' || s[len(s)-1] == '.' || strings.Contains(s, "..") {
		return false
	}
	all := uint8(hostByte)
	for i := range len(s) {
		all &= hostBytes[s[i]]
	}
	if all == 0 {
		return false
	}
	for len(s) > 63 {
		dot := strings.LastIndexByte(s[:64], '.')
		if dot < 0 {
			return false
		}
		s = s[dot+1:]
	}
	return true
}

// diagnose finds out why s is no origin in its only spelling.
func diagnose(s string) *OriginError {
	e := &OriginError{Value: s}
	scheme, rest, ok := strings.Cut(s, "://")
	lower := strings.ToLower(scheme)
	switch {
	case s == "":
		e.Reason = "an origin must not be empty"
		return e
	case s == "null":
		e.Reason = "null is the origin of every sandboxed frame and local file, so it stands for anybody"
		return e
	case len(s) > MaxOrigin:
		e.Reason = fmt.Sprintf("longer than an origin can be (%d bytes)", MaxOrigin)
		return e
	case !ok:
		e.Reason = "no scheme"
		e.Suggest = suggestion("https", s)
		return e
	case !validScheme(lower):
		e.Reason = fmt.Sprintf("no page has an origin with the scheme %q", scheme)
		return e
	}
	e.Suggest = suggestion(lower, rest)
	var faults []string
	if lower != scheme {
		faults = append(faults, "the scheme is in upper case")
	}
	if i := strings.IndexAny(rest, "/?#"); i >= 0 {
		switch {
		case rest[i:] == "/":
			faults = append(faults, "a slash at the end")
		case rest[i] == '/':
			faults = append(faults, "a path")
		default:
			faults = append(faults, "a query or fragment")
		}
		rest = rest[:i]
	}
	if i := strings.LastIndexByte(rest, '@'); i >= 0 {
		faults = append(faults, "user information")
		e.Value = scheme + "://[removed]@" + rest[i+1:] // it may be a password
		rest = rest[i+1:]
	}
	host, port, portOK := splitPort(rest)
	switch {
	case !portOK:
		faults = append(faults, "the port is not a number from 1 to 65535")
		e.Suggest = ""
	case port != 0 && port == defaultPort(lower):
		faults = append(faults, fmt.Sprintf("%d is the default port of %s, which browsers leave out", port, lower))
	}
	if portOK && !validHost(host) {
		faults = append(faults, hostFault(host))
	}
	e.Reason = strings.Join(faults, ", ")
	if e.Reason == "" {
		e.Reason = "malformed"
	}
	return e
}

func hostFault(host string) string {
	switch {
	case host == "":
		return "no host"
	case strings.HasSuffix(host, ".") && validHost(strings.ToLower(strings.TrimSuffix(host, "."))):
		return "a dot at the end of the host"
	case host != strings.ToLower(host) && validHost(strings.ToLower(host)):
		return "the host is in upper case"
	case strings.Contains(host, "*"):
		return "a wildcard where none may stand"
	case strings.IndexFunc(host, func(r rune) bool { return r > 0x7e }) >= 0:
		return "the host is not ASCII; browsers send its Punycode form"
	case strings.HasPrefix(host, "["):
		return "the IPv6 address is not in its canonical form"
	default:
		return fmt.Sprintf("%q is no host name or address", host)
	}
}

var errNoSuggestion = errors.New("no suggestion")

// suggestion is the origin that was probably meant, or "".
func suggestion(scheme, rest string) string {
	o, err := mend(scheme, rest)
	if err != nil {
		return ""
	}
	return o.String()
}

func mend(scheme, rest string) (Origin, error) {
	if i := strings.IndexAny(rest, "/?#"); i >= 0 {
		rest = rest[:i]
	}
	rest = rest[strings.LastIndexByte(rest, '@')+1:]
	host, port, ok := splitPort(rest)
	if !ok {
		return Origin{}, errNoSuggestion
	}
	if port == defaultPort(scheme) {
		port = 0
	}
	host = strings.TrimSuffix(host, ".")
	if strings.HasPrefix(host, "[") {
		a, err := netip.ParseAddr(strings.Trim(host, "[]"))
		if err != nil {
			return Origin{}, errNoSuggestion
		}
		host = "[" + a.String() + "]"
	} else if ascii, err := idna.Lookup.ToASCII(host); err == nil {
		host = ascii
	} else {
		host = strings.ToLower(host)
	}
	o := Origin{scheme, host, port}
	if _, valid := scanOrigin(o.String()); !valid {
		return Origin{}, errNoSuggestion
	}
	return o, nil
}
