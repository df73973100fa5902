package web

import (
	"slices"
	"strconv"
	"strings"
	"testing"
)

func set(t *testing.T, list ...string) *OriginSet {
	t.Helper()
	s, faults := NewOriginSet(list, OriginSetOptions{})
	for _, f := range faults {
		t.Fatal(f)
	}
	return s
}

func TestOriginSetLists(t *testing.T) {
	s := set(t, "https://app.example.com", "https://*.example.org", "https://ports.example.com:*", "https://*.deep.example.net:*", "https://*.fixed.example.net:8443", "http://localhost:5173", "http://*.localhost:3000")
	for _, o := range []string{
		"https://app.example.com", "https://a.example.org", "https://a.b.c.example.org", "https://ports.example.com", "https://ports.example.com:8443",
		"https://x.deep.example.net", "https://x.deep.example.net:1", "https://x.fixed.example.net:8443", "http://localhost:5173", "http://a.localhost:3000",
	} {
		if !s.Lists(o) {
			t.Errorf("%s is not listed", o)
		}
	}
	for _, o := range []string{
		"", "null", "https://app.example.com.evil.test", "https://evil-app.example.com", "http://app.example.com", "https://app.example.com:8443",
		"https://example.org", "https://barexample.org", "https://a.example.org:8443", "http://a.example.org", "https://.example.org", "https://a..example.org",
		"https://evil.test/.example.org", "https://evil.test#.example.org", "https://evil@a.example.org", "https://a.example.org.", "https://A.example.org",
		"https://a.example.org ", "https://x.fixed.example.net", "https://deep.example.net", "https://ports.example.com:0", "https://ports.example.com:99999",
		"http://localhost", "http://localhost:51730", "https://*.example.org", "*", "https://" + strings.Repeat("a", 250) + ".example.org",
	} {
		if s.Lists(o) {
			t.Errorf("%s is listed", o)
		}
	}
}

func TestAnyOriginListsNobody(t *testing.T) {
	s := set(t, "*")
	if !s.Any() || s.Lists("https://example.com") {
		t.Error(`"*" must be Any and list nobody by name`)
	}
}

func TestOriginSetRefuses(t *testing.T) {
	for entry, reason := range map[string]string{
		"https://*":                        "whole labels",
		"https://*example.com":             "whole labels",
		"https://app.*.example.com":        "whole labels",
		"https://ex*mple.com":              "whole labels",
		"*://example.com":                  "whole labels",
		"https://*.*.example.com":          "whole labels",
		"h*":                               "whole labels",
		"https://*.com":                    "public suffix",
		"https://*.co.uk":                  "public suffix",
		"https://*.github.io":              "public suffix",
		"https://*.vercel.app":             "public suffix",
		"https://*.digitaloceanspaces.com": "public suffix",
		"https://*.compute.amazonaws.com":  "public suffix",
		"https://*.amazonaws.com":          "public suffix",
		"https://*.windows.net":            "public suffix",
		"https://*.kawasaki.jp":            "public suffix",
		"https://*.127.0.0.1":              "no subdomains",
		"https://*.[::1]":                  "no subdomains",
		"https://*.example.com/":           "slash",
		"https://*.example.com:443":        "default port",
		"https://*.Example.com":            "upper case",
		"http://app.example.com":           "network path",
		"http://*.example.com":             "network path",
		"http://localhost:*":               "any_localhost_port",
		"http://127.0.0.1:*":               "any_localhost_port",
		"null":                             "anybody",
		"/https://example\\.com/":          "scheme",
	} {
		_, faults := NewOriginSet([]string{"https://fine.example.com", entry}, OriginSetOptions{})
		if len(faults) != 1 || faults[0].Index != 1 || !strings.Contains(faults[0].Reason, reason) {
			t.Errorf("%s: %v; want one fault about %q", entry, faults, reason)
		}
	}
	if _, faults := NewOriginSet([]string{"null", "https://*.com", "*"}, OriginSetOptions{}); len(faults) != 3 {
		t.Errorf("want all three faults at once, got %v", faults)
	}
}

func TestOverridesAcceptOnlyTheirOwnFault(t *testing.T) {
	if _, f := NewOriginSet([]string{"https://*.github.io"}, OriginSetOptions{DangerouslyAllowPublicSuffix: true}); f != nil {
		t.Error(f)
	}
	if _, f := NewOriginSet([]string{"http://intranet.example.com"}, OriginSetOptions{DangerouslyAllowInsecureOrigins: true}); f != nil {
		t.Error(f)
	}
	if _, f := NewOriginSet([]string{"http://localhost:*", "http://[::1]:*"}, OriginSetOptions{DangerouslyAllowAnyLocalhostPort: true}); f != nil {
		t.Error(f)
	}
	all := OriginSetOptions{true, true, true}
	if _, f := NewOriginSet([]string{"null", "https://*example.com", "https://example.com/"}, all); len(f) != 3 {
		t.Errorf("want three faults whatever is overridden, got %v", f)
	}
}

func TestOriginSetDoesNotAllocate(t *testing.T) {
	list := []string{"https://*.example.org", "https://ports.example.com:*"}
	for i := range 1000 {
		list = append(list, "https://app"+strconv.Itoa(i)+".example.com")
	}
	s := set(t, list...)
	long := "https://" + strings.Repeat("a.", 120) + "example.org"
	for _, o := range []string{"https://app999.example.com", "https://x.example.org", "https://ports.example.com:1", "https://evil.test", long, strings.Repeat("x", 64<<10)} {
		if n := testing.AllocsPerRun(100, func() { s.Lists(o) }); n != 0 {
			t.Errorf("Lists(%.40q) allocates %v times", o, n)
		}
	}
}

// naive matches a pattern label by label, the slow and obvious way.
func naive(pattern, origin string) bool {
	o, err := ParseOrigin(origin)
	if err != nil {
		return false
	}
	scheme, rest, _ := strings.Cut(pattern, "://")
	if o.Scheme() != scheme {
		return false
	}
	rest, anyPort := strings.CutSuffix(rest, ":*")
	host, sub := strings.CutPrefix(rest, "*.")
	if !anyPort {
		want := Origin{scheme: scheme, host: o.host, port: o.port}
		var port uint16
		host, port, _ = splitPort(host)
		if want.port != port {
			return false
		}
	}
	if !sub {
		return o.host == host
	}
	labels, base := strings.Split(o.host, "."), strings.Split(host, ".")
	return len(labels) > len(base) && slices.Equal(labels[len(labels)-len(base):], base)
}

func FuzzOriginSet(f *testing.F) {
	f.Add("https://*.example.org", "https://a.example.org")
	f.Add("https://*.example.org:*", "https://a.example.org:8443")
	f.Add("https://ports.example.com:*", "https://ports.example.com")
	f.Add("https://*.fixed.example.net:8443", "https://barfixed.example.net:8443")
	f.Add("http://localhost:5173", "http://localhost:5173")
	f.Fuzz(func(t *testing.T, pattern, origin string) {
		s, faults := NewOriginSet([]string{pattern}, OriginSetOptions{true, true, true})
		if faults != nil || s.Any() {
			return
		}
		if got, want := s.Lists(origin), naive(pattern, origin); got != want {
			t.Fatalf("pattern %q, origin %q: %v, want %v", pattern, origin, got, want)
		}
	})
}
