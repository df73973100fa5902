package web

import (
	"net/http"
	"strings"
	"testing"
)

func TestPublicOrigins(t *testing.T) {
	p := NewPublicOrigins([]Origin{parse(t, "https://api.example.com"), parse(t, "https://other.example.com"), parse(t, "http://localhost:8080")})
	for host, want := range map[string]bool{
		"api.example.com": true, "api.example.com:443": true, "API.example.com": true, "localhost:8080": true,
		"api.example.com:80": false, "api.example.com:8443": false, "evil.test": false, "localhost": false, "": false,
		"api.example.com.evil.test": false, "api.example.com.": false, strings.Repeat("a", 70000): false,
	} {
		if got := p.Serves(host); got != want {
			t.Errorf("Serves(%.40q) = %v", host, got)
		}
	}
	if !p.SameOrigin("https://api.example.com", "api.example.com") || !p.SameOrigin("https://api.example.com", "api.example.com:443") {
		t.Error("a public origin is same-origin with itself")
	}
	for _, c := range [][2]string{
		{"http://api.example.com", "api.example.com"},
		{"https://other.example.com", "api.example.com"}, // public both, but not the same
		{"https://evil.test", "evil.test"},               // Host alone never decides
		{"null", "api.example.com"},
	} {
		if p.SameOrigin(c[0], c[1]) {
			t.Errorf("%v: same-origin", c)
		}
	}
	if !p.SameSite("https://www.example.com", "api.example.com") || p.SameSite("http://www.example.com", "api.example.com") || p.SameSite("null", "api.example.com") {
		t.Error("SameSite is schemeful and wants an origin")
	}
}

func TestAddVaryKeepsWhatIsThere(t *testing.T) {
	for _, c := range []struct{ before, want []string }{
		{nil, []string{"Origin"}},
		{[]string{"Accept-Encoding"}, []string{"Accept-Encoding", "Origin"}},
		{[]string{"Accept-Encoding, origin"}, []string{"Accept-Encoding, origin"}},
		{[]string{"*"}, []string{"*"}},
		{[]string{"X-Origin"}, []string{"X-Origin", "Origin"}},
	} {
		h := http.Header{}
		if c.before != nil {
			h["Vary"] = c.before
		}
		AddVary(h, "Origin")
		if strings.Join(h["Vary"], "|") != strings.Join(c.want, "|") {
			t.Errorf("%v: %v, want %v", c.before, h["Vary"], c.want)
		}
	}
}
