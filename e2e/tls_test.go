package e2e

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// authority is the one certificate of all hosts that the browser reaches over TLS. Without TLS
// there are no Secure and no __Host- cookies on these hosts, and no Fetch Metadata.
type authority struct {
	certificate tls.Certificate
	// spki is the hash of its key, by which the browser is told to trust it.
	spki string
	// cert and key are the files of both.
	cert, key string
}

var theAuthority once[*authority]

func testAuthority(t *testing.T) *authority {
	t.Helper()
	return theAuthority.get(t, func(t *testing.T) *authority {
		t.Helper()
		private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		template := &x509.Certificate{
			SerialNumber: big.NewInt(time.Now().UnixNano()), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
			DNSNames: []string{"localhost", "evil.test", "partner.test", "*.shop.test"},
		}
		public, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
		if err != nil {
			t.Fatal(err)
		}
		secret, err := x509.MarshalPKCS8PrivateKey(private)
		if err != nil {
			t.Fatal(err)
		}
		spki, err := x509.MarshalPKIXPublicKey(private.Public())
		if err != nil {
			t.Fatal(err)
		}
		sum := sha256.Sum256(spki)
		leaf, err := x509.ParseCertificate(public)
		if err != nil {
			t.Fatal(err)
		}
		a := &authority{
			certificate: tls.Certificate{Certificate: [][]byte{public}, PrivateKey: private, Leaf: leaf}, spki: base64.StdEncoding.EncodeToString(sum[:]),
			cert: scratchFile("cert.pem"), key: scratchFile("key.pem"),
		}
		for path, block := range map[string]*pem.Block{a.cert: {Type: "CERTIFICATE", Bytes: public}, a.key: {Type: "PRIVATE KEY", Bytes: secret}} {
			if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		return a
	})
}

// startTLS serves over TLS under a host name, which the browser takes to loopback, and returns
// the origin.
func startTLS(t *testing.T, host string, h http.Handler) string {
	t.Helper()
	server := httptest.NewUnstartedServer(h)
	server.TLS = &tls.Config{Certificates: []tls.Certificate{testAuthority(t).certificate}, MinVersion: tls.VersionTLS12}
	server.StartTLS()
	t.Cleanup(server.Close)
	_, port, err := net.SplitHostPort(server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return "https://" + net.JoinHostPort(host, port)
}

// startTLSFront ends TLS for a backend, and does nothing else.
func startTLSFront(t *testing.T, host string, backend *express) string {
	t.Helper()
	return startTLS(t, host, httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: backend.addr}))
}

// tlsClient is a program that finds the hosts on this machine, as the browser does.
func tlsClient(t *testing.T, jar http.CookieJar) *http.Client {
	t.Helper()
	roots := x509.NewCertPool()
	roots.AddCert(testAuthority(t).certificate.Leaf)
	return &http.Client{Jar: jar, Timeout: patience, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			_, port, err := net.SplitHostPort(addr)
			if err != nil {
				return nil, err
			}
			return new(net.Dialer).DialContext(ctx, network, net.JoinHostPort("127.0.0.1", port))
		},
		IdleConnTimeout: time.Second,
	}}
}

// secretFile is a file with a secret, for a reference in moat.yaml.
func secretFile(t *testing.T, secret string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(path, []byte(secret), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
