package wire

import (
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
)

// watchHello has a configuration tell the tap of each connection the JA4 of its ClientHello.
func watchHello(c *tls.Config) {
	next := c.GetConfigForClient
	c.GetConfigForClient = func(h *tls.ClientHelloInfo) (*tls.Config, error) {
		if t := tapOf(h.Conn); t != nil {
			t.ja4 = ja4(h)
		}
		if next == nil {
			return nil, nil //nolint:nilnil // crypto/tls takes it for the configuration at hand
		}
		return next(h)
	}
}

// maxHelloItems is more than any client offers in all lists together.
const maxHelloItems = 1024

const (
	extensionServerName = 0x0000
	extensionALPN       = 0x0010
)

// ja4 is the JA4 fingerprint of a TLS client (FoxIO, BSD 3-Clause; none of the methods that JA4+
// adds is here). GREASE is left out everywhere (RFC 8701), also of the signature algorithms, where
// Chromium began to put it in 2026: it is drawn anew for each connection.
func ja4(h *tls.ClientHelloInfo) string {
	if len(h.CipherSuites)+len(h.Extensions)+len(h.SignatureSchemes) > maxHelloItems {
		return "" // no client's; to sort 64 kB of them takes longer than the handshake
	}
	ciphers := hexes(h.CipherSuites)
	extensions := hexes(h.Extensions)
	sni := byte('i')
	if slices.Contains(h.Extensions, extensionServerName) {
		sni = 'd'
	}
	a := fmt.Sprintf("t%s%c%02d%02d%s", ja4Version(h.SupportedVersions), sni, min(len(ciphers), 99), min(len(extensions), 99), ja4ALPN(h.SupportedProtos))

	slices.Sort(ciphers)
	extensions = slices.DeleteFunc(extensions, func(e string) bool { return e == "0000" || e == "0010" })
	slices.Sort(extensions)
	c := strings.Join(extensions, ",")
	if schemes := hexes(h.SignatureSchemes); len(schemes) > 0 {
		c += "_" + strings.Join(schemes, ",")
	}
	return a + "_" + hash12(strings.Join(ciphers, ",")) + "_" + hash12(c)
}

func ja4Version(offered []uint16) string {
	var highest uint16
	for _, v := range offered {
		if !isGREASE(v) {
			highest = max(highest, v)
		}
	}
	switch highest {
	case tls.VersionTLS13:
		return "13"
	case tls.VersionTLS12:
		return "12"
	case tls.VersionTLS11:
		return "11"
	case tls.VersionTLS10:
		return "10"
	}
	return "00"
}

// ja4ALPN is the first and the last character of the first protocol, or, where one of them is no
// letter or digit, of its hexadecimal form.
func ja4ALPN(protos []string) string {
	if len(protos) == 0 || protos[0] == "" {
		return "00"
	}
	p := protos[0]
	if !alphanumeric(p[0]) || !alphanumeric(p[len(p)-1]) {
		p = hex.EncodeToString([]byte(p))
	}
	return string([]byte{p[0], p[len(p)-1]})
}

func alphanumeric(b byte) bool {
	return '0' <= b && b <= '9' || 'a' <= b && b <= 'z' || 'A' <= b && b <= 'Z'
}

// isGREASE reports whether a value is one of those that RFC 8701 reserves so that nobody relies on
// not meeting them: 0x0a0a, 0x1a1a and so on.
func isGREASE(v uint16) bool { return v&0x0f0f == 0x0a0a && v>>8 == v&0xff }

func hexes[T ~uint16](values []T) []string {
	out := make([]string, 0, len(values))
	for _, v := range values {
		if !isGREASE(uint16(v)) {
			out = append(out, fmt.Sprintf("%04x", uint16(v)))
		}
	}
	return out
}

func hash12(s string) string {
	if s == "" {
		return "000000000000"
	}
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:6])
}
