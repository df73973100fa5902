package web

import "strings"

// PublicOrigins are the origins under which clients know the gate: what stands in
// the address bar when a page of ours is same-origin with the API. They decide which
// Host is served at all, and so what a DNS-rebinding page or a forged Host can reach.
// It is immutable, so safe for concurrent use.
type PublicOrigins struct {
	byHost map[string][]publicOrigin
	all    []Origin
}

type publicOrigin struct {
	origin Origin
	text   string
}

// NewPublicOrigins compiles a list of public origins.
func NewPublicOrigins(list []Origin) *PublicOrigins {
	p := &PublicOrigins{byHost: make(map[string][]publicOrigin), all: list}
	for _, o := range list {
		keys := []string{o.HostPort()}
		if o.port == 0 {
			// RFC 9110 section 4.2.3: an explicit default port names the same server.
			switch o.scheme {
			case "http":
				keys = append(keys, o.host+":80")
			case "https":
				keys = append(keys, o.host+":443")
			}
		}
		for _, k := range keys {
			p.byHost[k] = append(p.byHost[k], publicOrigin{o, o.String()})
		}
	}
	return p
}

// All returns the public origins as they were listed.
func (p *PublicOrigins) All() []Origin { return p.all }

func (p *PublicOrigins) lookup(host string) []publicOrigin {
	if len(host) > maxHost+len(":65535") {
		return nil
	}
	return p.byHost[strings.ToLower(host)]
}

// Serves reports whether host, a Host header, names one of the public origins.
func (p *PublicOrigins) Serves(host string) bool { return p.lookup(host) != nil }

// Secure reports whether clients reach host, a Host header, by https only. It is false
// if they can reach it by http too, and told is false if nothing is known.
func (p *PublicOrigins) Secure(host string) (secure, told bool) {
	secure, plain := false, false
	for _, o := range p.lookup(host) {
		secure, plain = secure || o.origin.scheme == "https", plain || o.origin.scheme == "http"
	}
	return secure, secure != plain
}

// SameOrigin reports whether origin, an Origin header, is a public origin of that
// very host. A page on one public origin is not same-origin with another, and Host
// alone never decides: the pair must have been configured.
func (p *PublicOrigins) SameOrigin(origin, host string) bool {
	// Most strangers' Origins are told by their length: ours is a scheme longer than Host.
	if scheme := len(origin) - len(host); scheme > len("https://:443") || scheme < len("http://")-len(":443") {
		return false
	}
	for _, o := range p.lookup(host) {
		if o.text == origin {
			return true
		}
	}
	return false
}

// SameSite reports whether origin, an Origin header, is schemefully same-site with a
// public origin of that host.
func (p *PublicOrigins) SameSite(origin, host string) bool {
	parsed, ok := scanOrigin(origin)
	if !ok {
		return false
	}
	for _, o := range p.lookup(host) {
		if SameSite(parsed, o.origin) {
			return true
		}
	}
	return false
}

// Of returns the origin that clients reach host, a Host header, by: the one with https, if
// there are two.
func (p *PublicOrigins) Of(host string) (o Origin, ok bool) {
	for _, l := range p.lookup(host) {
		if !ok || l.origin.scheme == "https" {
			o, ok = l.origin, true
		}
	}
	return o, ok
}
