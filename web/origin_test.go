package web

import (
	"strings"
	"testing"
)

func TestParseOriginAcceptsOnlyWhatBrowsersSend(t *testing.T) {
	for _, s := range []string{
		"https://example.com", "http://localhost:5173", "https://sub.example.com:8443", "http://127.0.0.1:8080",
		"http://[::1]:3000", "https://xn--bcher-kva.example", "capacitor://localhost", "chrome-extension://abcdefghijklmnop",
		"https://under_score.example.com", "https://1.example.com",
	} {
		o, err := ParseOrigin(s)
		if err != nil {
			t.Errorf("ParseOrigin(%q): %v", s, err)
			continue
		}
		if o.String() != s {
			t.Errorf("ParseOrigin(%q).String() = %q", s, o.String())
		}
	}
}

func TestParseOriginRefusesAndOffersTheRightSpelling(t *testing.T) {
	for _, c := range []struct{ in, suggest, reason string }{
		{"https://example.com/", "https://example.com", "slash"},
		{"https://example.com/app", "https://example.com", "path"},
		{"https://example.com?x=1", "https://example.com", "query"},
		{"https://user:secret@example.com", "https://example.com", "user information"},
		{"https://example.com:443", "https://example.com", "default port"},
		{"http://example.com:80", "http://example.com", "default port"},
		{"HTTPS://Example.COM", "https://example.com", "upper case"},
		{"https://example.com.", "https://example.com", "dot at the end"},
		{"https://bücher.example", "https://xn--bcher-kva.example", "Punycode"},
		{"example.com", "https://example.com", "no scheme"},
		{"localhost:3000", "https://localhost:3000", "no scheme"},
		{"https://[0:0:0:0:0:0:0:1]", "https://[::1]", "canonical"},
		{"null", "", "anybody"},
		{"", "", "empty"},
		{"https://", "", "no host"},
		{"https://exa mple.com", "", "no host name"},
		{"https://example.com:0", "", "port"},
		{"https://example.com:65536", "", "port"},
		{"https://example.com:080", "", "port"},
		{"https://256.1.1.1", "", "no host name"},
		{"https://1.2.3", "", "no host name"},
		{"https://0x7f.1", "", "no host name"},
		{"https://a..b", "", "no host name"},
		{"file:///etc/passwd", "", "scheme"},
		{"https://" + strings.Repeat("a", 64) + ".com", "", "no host name"},
		{"https://" + strings.Repeat("a.", 200) + "com", "", "longer"},
	} {
		_, err := ParseOrigin(c.in)
		if err == nil {
			t.Errorf("ParseOrigin(%q): accepted", c.in)
			continue
		}
		if !strings.Contains(err.Error(), c.reason) {
			t.Errorf("ParseOrigin(%q): %v; want a word of %q", c.in, err, c.reason)
		}
		oe, _ := err.(*OriginError) //nolint:errorlint // returned unwrapped.
		if oe == nil || oe.Suggest != c.suggest {
			t.Errorf("ParseOrigin(%q) suggests %q, want %q", c.in, oe.Suggest, c.suggest)
		}
		if strings.Contains(err.Error(), "secret") || strings.Contains(oe.Value, "secret") {
			t.Errorf("ParseOrigin(%q) repeats a password: %v", c.in, err)
		}
	}
}

func TestSite(t *testing.T) {
	same := [][2]string{
		{"https://a.example.com", "https://example.com:8443"},
		{"http://localhost:5173", "http://localhost:3000"},
		{"https://a.b.co.uk", "https://b.co.uk"},
	}
	cross := [][2]string{
		{"https://a.example.com", "http://a.example.com"},
		{"http://localhost", "http://127.0.0.1"},
		{"https://alice.github.io", "https://bob.github.io"},
		{"https://a.co.uk", "https://b.co.uk"},
		{"http://1.2.3.4", "http://2.2.3.4"},
	}
	for _, c := range same {
		if !SameSite(parse(t, c[0]), parse(t, c[1])) {
			t.Errorf("%v: want same-site", c)
		}
	}
	for _, c := range cross {
		if SameSite(parse(t, c[0]), parse(t, c[1])) {
			t.Errorf("%v: want cross-site", c)
		}
	}
}

func parse(t *testing.T, s string) Origin {
	t.Helper()
	o, err := ParseOrigin(s)
	if err != nil {
		t.Fatalf("ParseOrigin(%q): %v", s, err)
	}
	return o
}

// Parsing and serializing are inverse, so no two strings make one origin.
func FuzzParseOrigin(f *testing.F) {
	for _, s := range []string{"https://example.com", "http://[::1]:3000", "null", "https://a.b.c:65535", "HTTPS://A.", "https://1.2.3.4", "x://-_-"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		o, err := ParseOrigin(s)
		if err != nil {
			oe, ok := err.(*OriginError) //nolint:errorlint // returned unwrapped.
			if !ok || oe.Reason == "" {
				t.Fatalf("ParseOrigin(%q): %#v", s, err)
			}
			if oe.Suggest != "" {
				if _, err := ParseOrigin(oe.Suggest); err != nil {
					t.Fatalf("ParseOrigin(%q) suggests %q: %v", s, oe.Suggest, err)
				}
			}
			return
		}
		if o.String() != s {
			t.Fatalf("ParseOrigin(%q).String() = %q", s, o.String())
		}
	})
}
