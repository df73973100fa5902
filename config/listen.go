package config

import (
	"crypto/tls"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"time"

	"github.com/moat-gateway/moat/gateway"
)

// soon is how long before a certificate's end a warning begins.
const soon = 7 * 24 * time.Hour

func (c *compiler) server() {
	s, l := &c.out.Server, c.f.Limits
	s.HeaderBytes, s.HeaderTimeout, s.Idle, s.WriteIdle = int(l.HeaderBytes), l.HeaderTimeout, l.Idle, l.WriteIdle
	s.Grace, s.Delay = c.f.Shutdown.Grace, c.f.Shutdown.Delay
	if c.has("listen") && c.f.Listen != nil && len(c.f.Listen) == 0 {
		c.fault("listen", "", "names no address, so nobody could connect")
	}
	taken := make(map[address]string)
	for i := range c.f.Listen {
		c.listener(i, taken)
	}
	c.admin(taken)
	c.transport()
}

func (c *compiler) listener(i int, taken map[address]string) {
	l, path := c.f.Listen[i], item("listen", i)
	at := c.addressAt(path)
	if other, ok := taken[l.Address]; ok {
		c.fault(at, string(l.Address), "the address of "+other)
	} else if !strings.HasSuffix(string(l.Address), ":0") && l.Address != "" {
		taken[l.Address] = path
	}
	if c.f.Development.AnyLocalhostPort && l.Address != "" && !loopback(l.Address) {
		c.fault(at, string(l.Address), "other machines can reach this address, and development.dangerously_allow_any_localhost_port must not be left on unnoticed; remove one of the two")
	}
	c.ranges(join(path, "proxy_protocol"), l.ProxyProtocol)
	if l.ProxyProtocol != nil && len(l.ProxyProtocol) == 0 {
		c.fault(join(path, "proxy_protocol"), "", "names no load balancer, so every connection would be closed; remove the line if there is none")
	}
	out := gateway.Listener{Address: string(l.Address), ProxyProtocol: l.ProxyProtocol}
	var cert *atomic.Pointer[tls.Certificate]
	if l.TLS.Certificate != "" && l.TLS.Key != "" {
		cert = c.certificate(join(path, "tls"), l.TLS)
		out.TLS = &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return cert.Load(), nil
		}}
	}
	c.out.Server.Listeners = append(c.out.Server.Listeners, out)
	c.out.certificates = append(c.out.certificates, cert)
}

// addressAt is where the address of a block stands, which may be written without the block.
func (c *compiler) addressAt(path string) string {
	if inner := join(path, "address"); c.has(inner) {
		return inner
	}
	return path
}

// ranges refuses a range of every address: whoever connects could say who he is.
func (c *compiler) ranges(path string, list []netip.Prefix) {
	for i, p := range list {
		if p.IsValid() && p.Bits() == 0 {
			c.fault(item(path, i), p.String(), "holds every address, so whoever connects could say who he is; name the proxies' own ranges")
		}
	}
}

// certificate loads a pair, and says where it is at fault. The pointer is never nil.
func (c *compiler) certificate(path string, pair keyPair) *atomic.Pointer[tls.Certificate] {
	out := new(atomic.Pointer[tls.Certificate])
	certPEM, ok := c.pem(join(path, "certificate"), pair.Certificate)
	keyPEM, keyOK := c.pem(join(path, "key"), pair.Key)
	if !ok || !keyOK {
		return out
	}
	cert, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		at := "certificate"
		if strings.Contains(err.Error(), "key") {
			at = "key"
		}
		c.fault(join(path, at), "", strings.TrimPrefix(err.Error(), "tls: "))
		return out
	}
	out.Store(&cert)
	at, now := join(path, "certificate"), c.opts.Now
	switch from, to := cert.Leaf.NotBefore, cert.Leaf.NotAfter; {
	case now.Before(from):
		c.fault(at, pair.Certificate, "the certificate is not valid before "+from.UTC().Format(time.RFC3339))
	case now.After(to):
		c.fault(at, pair.Certificate, "the certificate has expired at "+to.UTC().Format(time.RFC3339))
	case now.Add(soon).After(to):
		c.warn(at, pair.Certificate, "the certificate expires at "+to.UTC().Format(time.RFC3339))
	}
	return out
}

func (c *compiler) pem(path, name string) ([]byte, bool) {
	b, err := c.read(name)
	if err != nil {
		c.fault(path, name, cannotRead(err))
	}
	return b, err == nil
}

func (c *compiler) admin(taken map[address]string) {
	a := c.f.Admin
	path := c.addressAt("admin")
	if a.Address == off || a.Address == "" {
		return
	}
	if other, ok := taken[a.Address]; ok {
		c.fault(path, string(a.Address), "the address of "+other)
	}
	if !loopback(a.Address) {
		if !a.NonLoopback {
			c.fault(path, string(a.Address), "other machines can reach this address, and the admin listener asks nobody for a password; write 127.0.0.1:9090, or set admin.dangerously_allow_non_loopback")
		}
		c.out.Server.AdminAnyHost = true
	}
	c.out.Server.Admin = string(a.Address)
}

// loopback reports whether only this machine can reach the address.
func loopback(a address) bool {
	host, _, err := net.SplitHostPort(string(a))
	if err != nil {
		return false
	}
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}

// transport warns of https: origins that nothing here speaks TLS for.
func (c *compiler) transport() {
	var certs []*tls.Certificate
	speaksTLS := len(c.f.TrustedProxies.From) > 0
	for i, l := range c.out.Server.Listeners {
		speaksTLS = speaksTLS || l.TLS != nil || len(l.ProxyProtocol) > 0
		if p := c.out.certificates[i]; p != nil && p.Load() != nil {
			certs = append(certs, p.Load())
		}
	}
	behindProxy := len(c.f.TrustedProxies.From) > 0
	for i, s := range c.f.PublicOrigins {
		host, https := strings.CutPrefix(s, "https://")
		if !https {
			continue
		}
		path := item("public_origins", i)
		if !speaksTLS {
			c.warn(path, s, "no listener has tls and no proxy is trusted, so nothing can serve an https: origin")
			continue
		}
		if h, _, err := net.SplitHostPort(host); err == nil {
			host = h
		}
		covered := len(certs) == 0 || behindProxy
		for _, cert := range certs {
			covered = covered || cert.Leaf.VerifyHostname(host) == nil
		}
		if !covered {
			c.warn(path, s, fmt.Sprintf("no certificate is for the host %q", host))
		}
	}
}
