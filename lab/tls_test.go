package lab

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

func authority(t *testing.T, folder string, now time.Time) *Authority {
	t.Helper()
	a, err := OpenAuthority(folder, now)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// TestAuthorityIsKept, for its owner alone, and replaced in time.
func TestAuthorityIsKept(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "moat", "lab")
	now := time.Now()
	first := authority(t, folder, now)
	if !first.New {
		t.Error("the first is not new")
	}
	if runtime.GOOS != "windows" {
		for name, want := range map[string]os.FileMode{"": 0o700, "ca-key.pem": 0o600, "ca.pem": 0o644} {
			info, err := os.Stat(filepath.Join(folder, name))
			if err != nil {
				t.Fatal(err)
			}
			if info.Mode().Perm() != want {
				t.Errorf("%s has the mode %o; want %o", name, info.Mode().Perm(), want)
			}
		}
	}
	if again := authority(t, folder, now.Add(time.Hour)); again.New || !again.cert.Equal(first.cert) {
		t.Error("it was made again")
	}
	if last := authority(t, folder, first.cert.NotAfter.Add(-renewBefore+time.Hour)); !last.New || last.cert.Equal(first.cert) {
		t.Error("it was not made anew before its end")
	}
	files, err := os.ReadDir(folder)
	if err != nil || len(files) != 2 {
		t.Errorf("in its folder are %v, %v; want two files", files, err)
	}
}

// TestAuthorityThatIsNotItsOwnersAloneIsRefused, as is one that does not belong together.
func TestAuthorityThatIsNotItsOwnersAloneIsRefused(t *testing.T) {
	now := time.Now()
	for name, c := range map[string]struct {
		spoil func(folder string) error
		want  string
	}{
		"a key that others can read": {func(f string) error { return os.Chmod(filepath.Join(f, "ca-key.pem"), 0o640) }, "others than its owner"},
		"another's key": {func(f string) error {
			other := filepath.Join(f, "other")
			if _, err := OpenAuthority(other, now); err != nil {
				return err
			}
			return os.Rename(filepath.Join(other, "ca-key.pem"), filepath.Join(f, "ca-key.pem"))
		}, "not the key of"},
		"half a file": {func(f string) error { return os.WriteFile(filepath.Join(f, "ca.pem"), []byte("-----BEGIN"), 0o600) }, "holds no certificate"},
	} {
		folder := t.TempDir()
		authority(t, folder, now)
		if err := c.spoil(folder); err != nil {
			t.Fatal(err)
		}
		if _, err := OpenAuthority(folder, now); err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), folder) {
			t.Errorf("%s: %v; want %q and the file", name, err, c.want)
		}
	}
}

// TestAuthorityIsGoodForThisMachineAlone: a certificate for any other name that it signs, as a
// thief of its key would have it, is not valid.
func TestAuthorityIsGoodForThisMachineAlone(t *testing.T) {
	now := time.Now()
	a := authority(t, t.TempDir(), now)
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	issue := func(c *x509.Certificate) *x509.Certificate {
		c.SerialNumber, c.NotBefore, c.NotAfter = serial(), now.Add(-time.Hour), now.Add(time.Hour)
		der, err := x509.CreateCertificate(rand.Reader, c, a.cert, &key.PublicKey, a.key)
		if err != nil {
			t.Fatal(err)
		}
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		return cert
	}
	server := []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	valid := func(c *x509.Certificate, use x509.ExtKeyUsage) bool {
		_, err := issue(c).Verify(x509.VerifyOptions{Roots: pool, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{use}})
		return err == nil
	}
	name := func(names ...string) *x509.Certificate {
		return &x509.Certificate{Subject: pkix.Name{CommonName: "x"}, DNSNames: names, ExtKeyUsage: server}
	}
	address := func(ip string) *x509.Certificate {
		return &x509.Certificate{IPAddresses: []net.IP{net.ParseIP(ip)}, ExtKeyUsage: server}
	}
	for _, c := range []*x509.Certificate{name("localhost"), name("gate.bank.localhost"), address("127.0.0.1"), address("::1"), address("127.9.9.9")} {
		if !valid(c, x509.ExtKeyUsageServerAuth) {
			t.Errorf("%v %v is not valid", c.DNSNames, c.IPAddresses)
		}
	}
	for _, c := range []*x509.Certificate{name("example.com"), name("localhost.example.com"), name("bank.localhost", "example.com"), address("192.0.2.1"), address("::2")} {
		if valid(c, x509.ExtKeyUsageServerAuth) {
			t.Errorf("%v %v is valid", c.DNSNames, c.IPAddresses)
		}
	}
	mail := &x509.Certificate{DNSNames: []string{"localhost"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageEmailProtection}}
	if valid(mail, x509.ExtKeyUsageEmailProtection) {
		t.Error("it signs for mail")
	}
	if !a.cert.MaxPathLenZero || a.cert.KeyUsage != x509.KeyUsageCertSign {
		t.Error("it can make other authorities")
	}
}

// TestLabOverTLS: all names are covered, and runs are those of https.
func TestLabOverTLS(t *testing.T) {
	lessons, err := Lessons()
	if err != nil {
		t.Fatal(err)
	}
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, err := net.SplitHostPort(listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	names := Localhost("https", port)
	a := authority(t, t.TempDir(), time.Now())
	config, err := a.Config(names, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	l := New(Options{Names: names, Lessons: lessons, TLS: config})
	serveUntilEnd(t, l, listener)
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}, ForceAttemptHTTP2: true,
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, listener.Addr().String())
		},
	}}
	for role, origin := range names.Origins("") {
		r, err := http.NewRequestWithContext(t.Context(), "GET", origin+"/data", nil)
		if err != nil {
			t.Fatal(err)
		}
		res, err := client.Do(r)
		if err != nil {
			t.Errorf("%s: %v", role, err)
			continue
		}
		res.Body.Close()
		if res.ProtoMajor != 2 {
			t.Errorf("%s: %s; want HTTP/2", role, res.Proto)
		}
	}
	for i := range l.o.Lessons {
		if lesson := &l.o.Lessons[i]; lesson.Name == "simple-get" {
			o, err := l.play(t.Context(), reader(l).another(), &lesson.Runs[0], RoleAPI, time.Now())
			if err != nil || !o.Ran || !strings.HasPrefix(o.Events[0].URL, "https://") {
				t.Errorf("%v, %+v", err, o)
			}
		}
	}
}
