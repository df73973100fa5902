package valkeytest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"time"
)

// Authority signs certificates.
type Authority struct {
	t    T
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
}

// NewAuthority makes an authority that nobody trusts.
func NewAuthority(t T) *Authority {
	t.Helper()
	a := &Authority{t: t}
	der, key := a.sign(&x509.Certificate{
		Subject: pkix.Name{CommonName: "authority"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
		NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: time.Now().Add(48 * time.Hour),
	})
	var err error
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatalf("%v", err)
	}
	a.key = key
	return a
}

// sign signs with the authority's key, or the new one if there is no authority yet.
func (a *Authority) sign(cert *x509.Certificate) (der []byte, key *ecdsa.PrivateKey) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatalf("%v", err)
	}
	parent, with := a.cert, a.key
	if parent == nil {
		parent, with = cert, key
	}
	cert.SerialNumber = big.NewInt(time.Now().UnixNano())
	if der, err = x509.CreateCertificate(rand.Reader, cert, parent, &key.PublicKey, with); err != nil {
		a.t.Fatalf("%v", err)
	}
	return der, key
}

// Trust is a client's configuration that trusts the authority.
func (a *Authority) Trust() *tls.Config {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
}

// StartTLS starts a server that speaks only TLS, with a certificate that the authority
// signed and that ends then. Rules are lines of an ACL file; if there are any, the user
// "admin" with that password is what Do uses, and others have to be named.
func StartTLS(t T, a *Authority, ends time.Time, rules ...string) *Server {
	t.Helper()
	der, key := a.sign(&x509.Certificate{
		Subject: pkix.Name{CommonName: "server"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		NotBefore: time.Now().Add(-24 * time.Hour), NotAfter: ends,
	})
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatalf("%v", err)
	}
	encode := func(kind string, der []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
	}
	s := start(t, func(port, dir string) []string {
		acl := ""
		if len(rules) > 0 {
			acl = "user default off\nuser admin on >admin ~* &* +@all\n"
		}
		for _, r := range rules {
			acl += r + "\n"
		}
		return append(
			common(dir), "--port", "0", "--tls-port", port, "--tls-auth-clients", "no",
			"--tls-ca-cert-file", write(t, dir, "ca.pem", encode("CERTIFICATE", a.cert.Raw)),
			"--tls-cert-file", write(t, dir, "cert.pem", encode("CERTIFICATE", der)),
			"--tls-key-file", write(t, dir, "key.pem", encode("PRIVATE KEY", private)),
			"--aclfile", write(t, dir, "users.acl", acl),
		)
	})
	s.tls = a.Trust()
	if len(rules) > 0 {
		s.username, s.password = "admin", "admin"
	}
	return s
}
