package lab

import (
	"cmp"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

// Authority is a certificate authority for this machine's own names. Whoever trusts it trusts
// it for localhost, the names below that, and the loopback addresses, and for nothing else:
// its certificate says so, and browsers hold it to that (RFC 5280 section 4.2.1.10). Its key
// is readable by its owner alone.
type Authority struct {
	// File is its certificate, to be trusted. New is set if it was made just now.
	File string
	New  bool

	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

const (
	authorityLife = 2 * 365 * 24 * time.Hour
	// renewBefore is how long before its end an authority is replaced.
	renewBefore = 30 * 24 * time.Hour
	// certificateLife is that of a server's certificate, which is made at each start.
	certificateLife = 30 * 24 * time.Hour
)

var loopbackRanges = []*net.IPNet{
	{IP: net.IPv4(127, 0, 0, 0).To4(), Mask: net.CIDRMask(8, 32)},
	{IP: net.IPv6loopback, Mask: net.CIDRMask(128, 128)},
}

// OpenAuthority opens the authority that is kept in the folder, or makes one if there is none
// or it will soon have expired.
func OpenAuthority(folder string, now time.Time) (*Authority, error) {
	a := &Authority{File: filepath.Join(folder, "ca.pem")}
	keyFile := filepath.Join(folder, "ca-key.pem")
	err := a.load(keyFile)
	switch {
	case err == nil && now.Before(a.cert.NotAfter.Add(-renewBefore)):
		return a, nil
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return nil, err
	}
	if err = a.make(now); err != nil {
		return nil, err
	}
	if err = os.MkdirAll(folder, 0o700); err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(a.key)
	if err != nil {
		return nil, err
	}
	// The key first: a certificate without its key would be of no use, and is made anew.
	if err := replaceFile(keyFile, "PRIVATE KEY", der, 0o600); err != nil {
		return nil, err
	}
	return a, replaceFile(a.File, "CERTIFICATE", a.cert.Raw, 0o644)
}

// load reads the authority's files.
func (a *Authority) load(keyFile string) error {
	info, err := os.Stat(keyFile)
	if err != nil {
		return err
	}
	if runtime.GOOS != "windows" && info.Mode().Perm()&0o077 != 0 {
		return fmt.Errorf("%s: others than its owner can reach it, and whoever has it can make certificates for localhost: remove its folder, and what was told to trust it", keyFile)
	}
	der, err := readPEM(keyFile, "PRIVATE KEY")
	if err != nil {
		return err
	}
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return fmt.Errorf("%s: %w", keyFile, err)
	}
	if der, err = readPEM(a.File, "CERTIFICATE"); err != nil {
		return err
	}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		return fmt.Errorf("%s: %w", a.File, err)
	}
	var ok bool
	if a.key, ok = key.(*ecdsa.PrivateKey); !ok || !a.key.PublicKey.Equal(a.cert.PublicKey) {
		return fmt.Errorf("%s: not the key of %s: remove both", keyFile, a.File)
	}
	return nil
}

func readPEM(file, kind string) ([]byte, error) {
	text, err := os.ReadFile(file) //nolint:gosec // of the lab's own folder
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(text)
	if block == nil || block.Type != kind {
		return nil, fmt.Errorf("%s: holds no %s", file, strings.ToLower(kind))
	}
	return block.Bytes, nil
}

// replaceFile writes a file so that nobody sees half of it.
func replaceFile(file, kind string, der []byte, mode fs.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(file), filepath.Base(file)+"-*") // mode 0600
	if err != nil {
		return err
	}
	err = errors.Join(pem.Encode(f, &pem.Block{Type: kind, Bytes: der}), f.Chmod(mode), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), file)
	}
	if err != nil {
		err = errors.Join(err, os.Remove(f.Name()))
	}
	return err
}

func (a *Authority) make(now time.Time) (err error) {
	if a.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return err
	}
	machine, _ := os.Hostname()
	machine = cmp.Or(machine, "this machine")
	template := &x509.Certificate{
		SerialNumber: serial(),
		// Who finds it in a list of authorities, years later, should know what it is.
		Subject:               pkix.Name{CommonName: "moat lab on " + machine + ", for localhost only"},
		NotBefore:             now.Add(-time.Hour),
		NotAfter:              now.Add(authorityLife),
		KeyUsage:              x509.KeyUsageCertSign,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true, IsCA: true, MaxPathLenZero: true,
		PermittedDNSDomainsCritical: true, PermittedDNSDomains: []string{"localhost"}, PermittedIPRanges: loopbackRanges,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &a.key.PublicKey, a.key)
	if err != nil {
		return err
	}
	a.New = true
	a.cert, err = x509.ParseCertificate(der)
	return err
}

func serial() *big.Int {
	b := make([]byte, 16)
	rand.Read(b)
	b[0] &= 0x7f // it has to be positive
	return new(big.Int).SetBytes(b)
}

// Config serves the lab's names with a certificate that lives in memory alone.
func (a *Authority) Config(n Names, now time.Time) (*tls.Config, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: "moat lab"}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(certificateLife),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
	}
	// Each by its own name: browsers take no wildcard for what is right below a top-level one.
	for _, host := range n.hosts {
		host, _, _ = strings.Cut(host, ":")
		if net.ParseIP(host) == nil {
			template.DNSNames = append(template.DNSNames, host)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, a.key)
	if err != nil {
		return nil, err
	}
	return &tls.Config{
		MinVersion:   tls.VersionTLS12,
		NextProtos:   []string{"h2", "http/1.1"},
		Certificates: []tls.Certificate{{Certificate: [][]byte{der, a.cert.Raw}, PrivateKey: key}},
	}, nil
}
