package config

import (
	"crypto/tls"
	"crypto/x509"
	"strings"

	"github.com/moat-gateway/moat/store/valkey"
)

// store judges where debts are kept.
func (c *compiler) store() {
	c.out.Gateway.LimitMemory = int(c.f.Store.Memory)
	const path = "store.valkey"
	if !c.has(path) {
		return
	}
	v := &c.f.Store.Valkey
	out := &valkey.Config{
		Mode:   map[string]valkey.Mode{"sentinel": valkey.Sentinel, "cluster": valkey.Cluster}[v.Mode],
		Master: v.Master, Username: v.Username, Password: v.Password.Reveal(),
		SentinelUsername: v.SentinelUsername, SentinelPassword: v.SentinelPassword.Reveal(),
		DB: v.Database, TLS: c.valkeyTLS(join(path, "tls"), &v.TLS), Prefix: v.Prefix, Timeout: v.Timeout,
	}
	for i, a := range v.Addresses {
		if strings.HasPrefix(string(a), ":") {
			c.fault(item(join(path, "addresses"), i), string(a), "no host; write 127.0.0.1"+string(a)+" if the server is on this machine")
		}
		out.Addresses = append(out.Addresses, string(a))
	}
	c.out.Valkey = out
	if !c.clean(path) {
		return // what is missing or malformed has been told
	}
	if err := out.Check(); err != nil {
		for line := range strings.Lines(err.Error()) {
			c.fault(path, "", strings.TrimPrefix(strings.TrimSuffix(line, "\n"), "store/valkey: "))
		}
	}
}

func (c *compiler) valkeyTLS(path string, t *valkeyTLS) *tls.Config {
	if !t.Enabled && t.CA == "" && t.ServerName == "" && t.Certificate == "" && t.Key == "" {
		return nil
	}
	out := &tls.Config{ServerName: t.ServerName, MinVersion: tls.VersionTLS12}
	if t.CA != "" {
		if text, ok := c.pem(join(path, "ca"), t.CA); ok {
			c.out.valkeyPEM = append(c.out.valkeyPEM, text...)
			out.RootCAs = x509.NewCertPool()
			if !out.RootCAs.AppendCertsFromPEM(text) {
				c.fault(join(path, "ca"), t.CA, "holds no certificate in PEM")
			}
		}
	}
	switch {
	case t.Certificate != "" && t.Key != "":
		if cert := c.certificate(path, keyPair{t.Certificate, t.Key}).Load(); cert != nil {
			out.Certificates = []tls.Certificate{*cert}
			c.out.valkeyPEM = append(c.out.valkeyPEM, cert.Leaf.Raw...)
		}
	case t.Certificate != "":
		c.fault(join(path, "certificate"), t.Certificate, "a certificate without its key; write key")
	case t.Key != "":
		c.fault(join(path, "key"), t.Key, "a key without its certificate; write certificate")
	}
	return out
}
