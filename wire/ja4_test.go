package wire

import (
	"crypto/tls"
	"testing"
)

// chromium106 is the ClientHello that FoxIO's own description of JA4 works through, in the order
// of its JA4_ro line.
func chromium106() *tls.ClientHelloInfo {
	return &tls.ClientHelloInfo{
		CipherSuites:      []uint16{0x1301, 0x1302, 0x1303, 0xc02b, 0xc02f, 0xc02c, 0xc030, 0xcca9, 0xcca8, 0xc013, 0xc014, 0x009c, 0x009d, 0x002f, 0x0035},
		Extensions:        []uint16{0x001b, 0x0000, 0x0033, 0x0010, 0x4469, 0x0017, 0x002d, 0x000d, 0x0005, 0x0023, 0x0012, 0x002b, 0xff01, 0x000b, 0x000a, 0x0015},
		SignatureSchemes:  []tls.SignatureScheme{0x0403, 0x0804, 0x0401, 0x0503, 0x0805, 0x0501, 0x0806, 0x0601},
		SupportedVersions: []uint16{tls.VersionTLS13, tls.VersionTLS12},
		SupportedProtos:   []string{"h2", "http/1.1"},
	}
}

func TestJA4(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*tls.ClientHelloInfo)
		want   string
	}{
		// https://github.com/FoxIO-LLC/ja4/blob/main/technical_details/JA4.md
		{"of the specification", func(*tls.ClientHelloInfo) {}, "t13d1516h2_8daaf6152771_e5627efa2ab1"},
		// Published measurements of Chrome 131 to 142: 0x4469 has become 0x44cd, padding has gone and ECH come.
		{"Chrome 142", func(h *tls.ClientHelloInfo) {
			h.Extensions = []uint16{0x002d, 0x000d, 0x0023, 0x000a, 0x0017, 0x0005, 0x0033, 0x0000, 0x44cd, 0x001b, 0xff01, 0x002b, 0x000b, 0xfe0d, 0x0012, 0x0010}
		}, "t13d1516h2_8daaf6152771_d8a2da3f94cd"},
		{"GREASE everywhere", func(h *tls.ClientHelloInfo) {
			h.CipherSuites = append([]uint16{0x2a2a}, h.CipherSuites...)
			h.Extensions = append([]uint16{0xdada}, append(h.Extensions, 0xfafa)...)
			h.SignatureSchemes = append([]tls.SignatureScheme{0x5a5a}, h.SignatureSchemes...)
			h.SupportedVersions = append([]uint16{0xcaca}, h.SupportedVersions...)
		}, "t13d1516h2_8daaf6152771_e5627efa2ab1"},
		// The rest is by hand: sha256sum of the sorted lists, for example of "009c,c02f".
		{"what looks like GREASE and is not", func(h *tls.ClientHelloInfo) {
			h.CipherSuites = append(h.CipherSuites, 0x1a2a)
		}, "t13d1616h2_38af97adec30_e5627efa2ab1"},
		{"no server name", func(h *tls.ClientHelloInfo) {
			h.Extensions[1] = 0x0022
		}, "t13i1516h2_8daaf6152771_2e80156ac17b"},
		// Go 1.24's own client, as measured by others, by address and with HTTP/1.1 only.
		{"Go", func(h *tls.ClientHelloInfo) {
			h.CipherSuites = []uint16{0xc02b, 0xc02f, 0xc02c, 0xc030, 0xcca9, 0xcca8, 0xc009, 0xc013, 0xc00a, 0xc014, 0x1301, 0x1302, 0x1303}
			h.Extensions = []uint16{0x0005, 0x000a, 0x000b, 0x000d, 0x0010, 0x0012, 0x0017, 0x002b, 0x0033, 0xff01}
			h.SignatureSchemes = []tls.SignatureScheme{0x0804, 0x0403, 0x0807, 0x0805, 0x0806, 0x0401, 0x0501, 0x0601, 0x0503, 0x0603, 0x0201, 0x0203}
			h.SupportedProtos = []string{"http/1.1"}
		}, "t13i1310h1_f57a46bbacb6_e7c285222651"},
		{"TLS 1.2 without extensions", func(h *tls.ClientHelloInfo) {
			*h = tls.ClientHelloInfo{CipherSuites: []uint16{0xc02f, 0x009c}, SupportedVersions: []uint16{tls.VersionTLS12, tls.VersionTLS11}}
		}, "t12i020000_08dfa304a768_000000000000"},
		{"more than any client offers", func(h *tls.ClientHelloInfo) { h.CipherSuites = make([]uint16, 32<<10) }, ""},
		{"nothing at all", func(h *tls.ClientHelloInfo) { *h = tls.ClientHelloInfo{} }, "t00i000000_000000000000_000000000000"},
	} {
		h := chromium106()
		c.change(h)
		if got := ja4(h); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

func TestJA4CountsTo99(t *testing.T) {
	h := chromium106()
	for i := range uint16(300) {
		h.CipherSuites = append(h.CipherSuites, 0x2000+i)
		h.Extensions = append(h.Extensions, 0x2000+i)
	}
	if got := ja4(h)[:10]; got != "t13d9999h2" {
		t.Error(got)
	}
}

// The examples of the specification.
func TestJA4ALPN(t *testing.T) {
	for proto, want := range map[string]string{
		"": "00", "h2": "h2", "http/1.1": "h1", "h": "hh",
		"\xab": "ab", "\xab\xcd": "ad", "\x30\xab": "3b", "\x30\x31\xab\xcd": "3d", "\x30\xab\xcd\x31": "01",
	} {
		if got := ja4ALPN([]string{proto}); got != want {
			t.Errorf("%q gives %s, want %s", proto, got, want)
		}
	}
}
