package browser

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	"github.com/moat-gateway/moat/web"
	"golang.org/x/net/idna"
)

// location is a parsed URL and its origin. For ws: and wss: the origin is that of the
// http: or https: URL, as for everything that asks for a WebSocket's site.
type location struct {
	url    *url.URL
	origin web.Origin
}

// String is the URL without its fragment, which never leaves the browser.
func (l location) String() string {
	u := *l.url
	u.Fragment, u.RawFragment = "", ""
	return u.String()
}

// wire is the URL as a server gets to see it: without credentials, which travel, if at
// all, in Authorization.
func (l location) wire() string {
	u := *l.url
	u.Fragment, u.RawFragment, u.User = "", "", nil
	return u.String()
}

func (l location) credentials() bool { return l.url.User != nil }

// parseURL resolves a reference as a browser does that is given it by a page, as far as
// net/url can: http, https, ws and wss with a host.
func parseURL(ref string, base *url.URL) (location, error) {
	ref = strings.Trim(ref, "\t\n\f\r ")
	u, err := url.Parse(ref)
	if err != nil {
		if wrong, ok := errors.AsType[*url.Error](err); ok {
			err = wrong.Err
		}
		return location{}, fmt.Errorf("%.100q is no URL: %w", ref, err)
	}
	if base != nil {
		u = base.ResolveReference(u)
	}
	u.Scheme = strings.ToLower(u.Scheme)
	as, ok := map[string]string{"http": "http", "https": "https", "ws": "http", "wss": "https"}[u.Scheme]
	if !ok || u.Opaque != "" {
		return location{}, &schemeError{ref, u.Scheme}
	}
	host, err := canonicalHost(u.Hostname())
	if err != nil {
		return location{}, fmt.Errorf("%.100q is no URL: %w", ref, err)
	}
	port := u.Port()
	if port != "" {
		n, bad := strconv.ParseUint(port, 10, 16)
		if bad != nil {
			return location{}, fmt.Errorf("%.100q is no URL: the port is no number from 0 to 65535", ref)
		}
		port = strconv.FormatUint(n, 10)
	}
	if port == "80" && as == "http" || port == "443" && as == "https" {
		port = ""
	}
	u.Host = host
	if port != "" {
		u.Host += ":" + port
	}
	if u.Path == "" {
		u.Path = "/"
	}
	origin, err := web.ParseOrigin(as + "://" + u.Host)
	if err != nil {
		return location{}, fmt.Errorf("%.100q is no URL: %w", ref, err)
	}
	return location{u, origin}, nil
}

// schemeError is about a URL that is one, but of a scheme that makes no HTTP request.
type schemeError struct{ url, scheme string }

func (e *schemeError) Error() string {
	if e.scheme == "" {
		return fmt.Sprintf("%.100q is no URL: it lacks a scheme; write https://…", e.url)
	}
	return fmt.Sprintf("%.100q has the scheme %q; only http, https, ws and wss make a request that this models", e.url, e.scheme)
}

func canonicalHost(h string) (string, error) {
	if h == "" {
		return "", errors.New("it has no host")
	}
	if a, err := netip.ParseAddr(h); err == nil {
		if a.Is6() {
			return "[" + a.WithZone("").String() + "]", nil
		}
		return a.String(), nil
	}
	ascii, err := idna.Lookup.ToASCII(h)
	if err != nil {
		return strings.ToLower(h), nil //nolint:nilerr // names that IDNA refuses, such as a_b, browsers still look up; ParseOrigin has the last word
	}
	return ascii, nil
}

// SpaceOf is the address space that a host's name alone tells: addresses and the names
// that are reserved for this machine and the local network.
func SpaceOf(host string) AddressSpace {
	name := strings.ToLower(host)
	if h, port, ok := cutPort(name); ok && port != "" {
		name = h
	}
	name = strings.Trim(name, "[]")
	if a, err := netip.ParseAddr(name); err == nil {
		switch a = a.Unmap(); {
		case a.IsLoopback() || a.IsUnspecified():
			return Loopback
		case a.IsPrivate() || a.IsLinkLocalUnicast() || netip.MustParsePrefix("100.64.0.0/10").Contains(a):
			return Local
		}
		return Public
	}
	switch {
	case name == "localhost" || strings.HasSuffix(name, ".localhost"):
		return Loopback
	case strings.HasSuffix(name, ".local"):
		return Local
	}
	return Public
}

func cutPort(hostport string) (host, port string, ok bool) {
	i := strings.LastIndexByte(hostport, ':')
	if i < 0 || strings.HasSuffix(hostport, "]") || strings.Count(hostport, ":") > 1 && !strings.HasPrefix(hostport, "[") {
		return hostport, "", false
	}
	return hostport[:i], hostport[i+1:], true
}

// trustworthy is "potentially trustworthy origin"
// (https://w3c.github.io/webappsec-secure-contexts/#is-origin-trustworthy).
func trustworthy(o web.Origin) bool { return o.Scheme() == "https" || o.Loopback() }

// badPorts are https://fetch.spec.whatwg.org/#bad-port.
var badPorts = portSet(`1 7 9 11 13 15 17 19 20 21 22 23 25 37 42 43 53 69 77 79 87 95 101 102 103 104 109 110 111
	113 115 117 119 123 135 137 139 143 161 179 389 427 465 512 513 514 515 526 530 531 532 540 548 554 556 563 587 601
	636 989 990 993 995 1719 1720 1723 2049 3659 4045 4190 5060 5061 6000 6566 6665 6666 6667 6668 6669 6679 6697 10080 0`)

func portSet(list string) map[string]bool {
	set := map[string]bool{}
	for p := range strings.FieldsSeq(list) {
		set[p] = true
	}
	return set
}
