// Package clientaddr tells the address of the client, by one stated trust.
//
// Without trusted proxies it is the peer of the connection, and no header can change
// it. Behind named proxies it is the rightmost address in their forwarding header that
// is none of theirs: everything to its left may be the client's invention. It is a fact
// about a network path, never an identity: many people share an address, and one
// person has many.
package clientaddr

import (
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"github.com/moat-gateway/moat/guard"
)

// Header is a forwarding header that trusted proxies append to.
type Header string

// The forwarding headers. Exactly one is believed: a proxy that appends to one passes
// the other on as the client wrote it.
const (
	XForwardedFor Header = "X-Forwarded-For"
	Forwarded     Header = "Forwarded" // RFC 7239
)

// Trust names the proxies that are believed.
type Trust struct {
	// Proxies are the addresses from which trusted proxies connect.
	Proxies []netip.Prefix
	// Header is where they append the address of their peer.
	Header Header
	// Host says that with XForwardedFor they also set X-Forwarded-Host, each time: one
	// that does not passes on what the client wrote there.
	Host bool
}

// Guard is a compiled Trust: immutable, and safe for concurrent use. The zero Guard
// trusts nobody.
type Guard struct {
	proxies []netip.Prefix
	header  Header
	host    bool
}

// New compiles a Trust. It refuses a range that holds every address: whoever connects
// could then say who he is.
func New(t Trust) (*Guard, error) {
	g := &Guard{header: t.Header, host: t.Host}
	for _, p := range t.Proxies {
		if !p.IsValid() {
			return nil, fmt.Errorf("%v: not a prefix", p)
		}
		if p.Bits() == 0 {
			return nil, fmt.Errorf("%s: holds every address, so whoever connects could say who he is; name the proxies' own ranges", p)
		}
		g.proxies = append(g.proxies, p.Masked())
	}
	if len(g.proxies) > 0 && g.header != XForwardedFor && g.header != Forwarded {
		return nil, fmt.Errorf("%q: the header is %s or %s", g.header, XForwardedFor, Forwarded)
	}
	return g, nil
}

// Peer is the address at the other end of r's connection, or the zero Addr if
// RemoteAddr holds none.
func Peer(r *http.Request) netip.Addr {
	ap, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	return ap.Addr().Unmap().WithZone("")
}

// Trusts reports whether a is the address of a trusted proxy.
func (g *Guard) Trusts(a netip.Addr) bool {
	return slices.ContainsFunc(g.proxies, func(p netip.Prefix) bool { return p.Contains(a) })
}

// Decide tells the client's address. With a denial, for a forwarding header that
// cannot be read at the place that decides, it is the nearest address that is certain.
func (g *Guard) Decide(r *http.Request) (netip.Addr, guard.Decision) {
	peer := Peer(r)
	if !peer.IsValid() {
		return peer, guard.Denial(guard.ClientAddrUnreadable, "the connection", r.RemoteAddr, "an address and port")
	}
	if len(g.proxies) == 0 || !g.Trusts(peer) {
		return peer, guard.Decision{}
	}
	return g.walk(peer, r.Header[string(g.header)])
}

// walk goes from the right, across all lines as one list (RFC 9110 section 5.3), as
// long as it meets trusted proxies. It reads no further than the first other address.
func (g *Guard) walk(last netip.Addr, lines []string) (netip.Addr, guard.Decision) {
	for _, line := range slices.Backward(lines) {
		for rest := line; rest != ""; {
			var item string
			rest, item = cutLast(rest, g.header == Forwarded)
			if item == "" {
				continue
			}
			a, ok := g.parse(item)
			if !ok {
				return last, guard.Denial(guard.ClientAddrUnreadable, string(g.header), item, "an address")
			}
			last = a
			if !g.Trusts(a) {
				return a, guard.Decision{}
			}
		}
	}
	return last, guard.Decision{}
}

// cutLast splits the last element off a list. With quoted, commas within quoted
// strings do not split (RFC 9110 section 5.6.4).
func cutLast(s string, quoted bool) (rest, item string) {
	inQuotes := false
	for i := len(s) - 1; i >= 0; i-- {
		switch {
		case s[i] == '"' && quoted && (i == 0 || s[i-1] != '\\'):
			inQuotes = !inQuotes
		case s[i] == ',' && !inQuotes:
			return s[:i], strings.Trim(s[i+1:], " \t")
		}
	}
	return "", strings.Trim(s, " \t")
}

func (g *Guard) parse(item string) (netip.Addr, bool) {
	if g.header == Forwarded {
		var ok bool
		if item, ok = parameter(item, "for"); !ok {
			return netip.Addr{}, false
		}
	}
	return ParseNode(item)
}

// ForwardedHost returns the Host that the client used, as the nearest proxy tells it, or
// "" if it tells none or is not trusted with it. The value is that proxy's word only:
// compare it with the public origins.
func (g *Guard) ForwardedHost(r *http.Request) string {
	if len(g.proxies) == 0 || !g.Trusts(Peer(r)) {
		return ""
	}
	if g.header == XForwardedFor {
		if !g.host {
			return ""
		}
		return lastOf(r.Header["X-Forwarded-Host"])
	}
	lines := r.Header[string(Forwarded)]
	if len(lines) == 0 {
		return ""
	}
	// The last element is the proxy's own, as a whole.
	_, element := cutLast(lines[len(lines)-1], true)
	host, _ := parameter(element, "host")
	return host
}

// lastOf is the last element of a list: what the nearest proxy said.
func lastOf(lines []string) string {
	if len(lines) == 0 {
		return ""
	}
	_, item := cutLast(lines[len(lines)-1], false)
	return item
}

// parameter returns the value of the parameter of that name in a forwarded-element (RFC
// 7239 section 4), if it is there exactly once.
func parameter(element, name string) (value string, ok bool) {
	for more := true; more; {
		var pair string
		pair, element, more = cutPair(element)
		n, v, found := strings.Cut(strings.Trim(pair, " \t"), "=")
		if !found || !strings.EqualFold(n, name) {
			continue
		}
		if ok {
			return "", false // twice: no telling which one
		}
		if len(v) >= 2 && v[0] == '"' && v[len(v)-1] == '"' {
			v = v[1 : len(v)-1]
		}
		value, ok = v, true
	}
	return value, ok
}

// cutPair splits at the first semicolon outside a quoted string.
func cutPair(s string) (pair, rest string, more bool) {
	inQuotes := false
	for i := range len(s) {
		switch {
		case s[i] == '"' && (i == 0 || s[i-1] != '\\'):
			inQuotes = !inQuotes
		case s[i] == ';' && !inQuotes:
			return s[:i], s[i+1:], true
		}
	}
	return s, "", false
}

// ParseNode reads an address as proxies write it: with or without a port, IPv6 with or
// without brackets, IPv4 mapped into IPv6 as IPv4. A zone is dropped: it means nothing
// beyond the machine that wrote it.
func ParseNode(s string) (netip.Addr, bool) {
	if len(s) > len("[ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255%0123456789abcdef]:65535") {
		return netip.Addr{}, false
	}
	if a, err := netip.ParseAddr(s); err == nil {
		return a.Unmap().WithZone(""), true
	}
	if inner, ok := strings.CutPrefix(s, "["); ok {
		if inner, ok = strings.CutSuffix(inner, "]"); ok {
			a, err := netip.ParseAddr(inner)
			return a.WithZone("").Unmap(), err == nil && strings.Contains(inner, ":")
		}
	}
	ap, err := netip.ParseAddrPort(s)
	return ap.Addr().Unmap().WithZone(""), err == nil
}

// Handler sets RemoteAddr to the client's address, with port 0, so that what stands
// behind it needs no forwarding header. Requests whose client cannot be told are refused.
func (g *Guard) Handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		addr, d := g.Decide(r)
		if d.Denied() {
			guard.Refuse(w, d.Reason, "")
			return
		}
		if addr != Peer(r) {
			r2 := *r
			r2.RemoteAddr = netip.AddrPortFrom(addr, 0).String()
			r = &r2
		}
		next.ServeHTTP(w, r)
	})
}
