package config

import (
	"strings"
	"testing"

	"github.com/moat-gateway/moat/gateway"
	"github.com/moat-gateway/moat/guard"
)

const backend = "http://127.0.0.1:3000"

func TestZeroServes(t *testing.T) {
	for _, c := range []struct {
		name   string
		zero   ZeroConfig
		public string
	}{
		{"defaults", ZeroConfig{Upstream: backend}, "http://127.0.0.1:8080 http://localhost:8080 http://[::1]:8080"},
		{"another loopback address", ZeroConfig{Upstream: backend, Listen: "127.0.0.2:80"}, "http://127.0.0.2 http://localhost http://127.0.0.1 http://[::1]"},
		{"IPv6", ZeroConfig{Upstream: backend, Listen: "[::1]:8000"}, "http://[::1]:8000 http://localhost:8000 http://127.0.0.1:8000"},
		{"localhost", ZeroConfig{Upstream: backend, Listen: "localhost:8000"}, "http://localhost:8000 http://127.0.0.1:8000 http://[::1]:8000"},
		{
			"everywhere",
			ZeroConfig{Upstream: backend, Listen: ":8000", PublicOrigins: []string{"https://api.example.com"}},
			"https://api.example.com http://localhost:8000 http://127.0.0.1:8000 http://[::1]:8000",
		},
		{"one interface", ZeroConfig{Upstream: backend, Listen: "192.0.2.1:80", PublicOrigins: []string{"https://api.example.com"}}, "https://api.example.com"},
		{"any port", ZeroConfig{Upstream: backend, Listen: "127.0.0.1:0", PublicOrigins: []string{"http://localhost:1"}}, "http://localhost:1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			l, err := Zero(c.zero)
			if err != nil {
				t.Fatal(err)
			}
			var public []string
			for _, o := range l.Gateway.PublicOrigins {
				public = append(public, o.String())
			}
			if got := strings.Join(public, " "); got != c.public {
				t.Errorf("public origins %s, want %s", got, c.public)
			}
			if _, err = gateway.New(l.Gateway, nil); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestZeroDecides(t *testing.T) {
	request := func(headers ...string) TestRequest {
		r := TestRequest{Method: "POST", URL: "http://localhost:8080/x", Headers: make(map[string]string), From: defaultOf[TestRequest]().From}
		for i := 0; i+1 < len(headers); i += 2 {
			r.Headers[headers[i]] = headers[i+1]
		}
		return r
	}
	page := []string{"https://app.example.com"}
	preflight := request("Origin", page[0], "Access-Control-Request-Method", "POST", "Access-Control-Request-Headers", "authorization,x-mine")
	preflight.Method = "OPTIONS"
	for _, c := range []struct {
		name   string
		zero   ZeroConfig
		req    TestRequest
		expect string
	}{
		{"the page", ZeroConfig{Origins: page}, request("Origin", page[0]), allow},
		{"a stranger", ZeroConfig{Origins: page}, request("Origin", "https://evil.example"), "cors-origin-not-allowed"},
		{"a stranger, reported", ZeroConfig{Origins: page, Report: true}, request("Origin", "https://evil.example"), allow},
		{"curl", ZeroConfig{Origins: page}, request(), "cross-site-browserless"},
		{"curl, denied", ZeroConfig{Browserless: "deny"}, request(), "cross-site-browserless"},
		{"curl, allowed", ZeroConfig{Browserless: "allow"}, request(), allow},
		{"a header", ZeroConfig{Origins: page}, preflight, "cors-header-not-allowed"},
		{"a header, allowed", ZeroConfig{Origins: page, AllowHeaders: []string{"X-Mine", "Authorization"}}, preflight, "cors-preflight-approved"},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.zero.Upstream = backend
			l, err := Zero(c.zero)
			if err != nil {
				t.Fatal(err)
			}
			if len(l.Warnings) > 0 {
				t.Errorf("warnings: %v", l.Warnings)
			}
			g, err := gateway.New(l.Gateway, nil)
			if err != nil {
				t.Fatal(err)
			}
			if err = (Test{Name: c.name, Request: c.req, Expect: c.expect}).Run(g); err != nil {
				t.Error(err)
			}
		})
	}
	l, err := Zero(ZeroConfig{Upstream: backend, Origins: page, Credentials: true, Report: true, Admin: "off", RateLimit: "60/m burst 20"})
	if err != nil {
		t.Fatal(err)
	}
	r := l.Gateway.Routes[0]
	if len(r.RateLimits) != 1 || r.RateLimits[0].Limit.String() != "60/m burst 20" || r.Modes[guard.RateLimit] != guard.Report {
		t.Errorf("limits %+v", r.RateLimits)
	}
	if !r.CORS.Credentials || r.Modes[guard.Scrub] != guard.Report || l.Server.Admin != "" {
		t.Errorf("got %+v, admin %q", r, l.Server.Admin)
	}
}

func TestZeroFaultsNameTheFlag(t *testing.T) {
	for _, c := range []struct {
		zero ZeroConfig
		want string // every fault, in one line each
	}{
		{ZeroConfig{}, `--upstream: missing`},
		{ZeroConfig{Upstream: "localhost:3000"}, `--upstream: "localhost:3000": not a URL such as http://127.0.0.1:3000`},
		{
			ZeroConfig{Upstream: backend, Origins: []string{"https://app.example.com/", "https://ok.example", "null"}},
			`--origin: "https://app.example.com/": a slash at the end; write "https://app.example.com"` + "\n" +
				`--origin: "null": null is the origin of every sandboxed frame and local file, so it stands for anybody`,
		},
		{ZeroConfig{Upstream: backend, Origins: []string{"*"}, Credentials: true}, `--credentials: any page could act with its visitors' cookies: credentials is true and origins is "*"; list the origins`},
		{ZeroConfig{Upstream: backend, Listen: "8080"}, `--listen: "8080": no host; write "127.0.0.1:8080"`},
		{
			ZeroConfig{Upstream: backend, Listen: "0.0.0.0:8080"},
			"--public-origin: missing: other machines can reach what --listen names, so say under which origin clients know the gate, such as https://api.example.com",
		},
		{
			ZeroConfig{Upstream: backend, Listen: "127.0.0.1:0"},
			"--public-origin: missing: with port 0 in --listen nobody knows the port beforehand, so say under which origin clients know the gate",
		},
		{ZeroConfig{Upstream: backend, PublicOrigins: []string{"https://x.example/"}}, `--public-origin: "https://x.example/": a slash at the end; write "https://x.example"`},
		{ZeroConfig{Upstream: backend, Browserless: "yes"}, `--browserless: "yes": write allow or deny`},
		{ZeroConfig{Upstream: backend, Admin: "0.0.0.0:9090"}, `--admin: "0.0.0.0:9090": other machines can reach this address, and the admin listener asks nobody for a password; write 127.0.0.1:9090, or set admin.dangerously_allow_non_loopback`},
		{ZeroConfig{Upstream: backend, AllowHeaders: []string{"Cookie"}}, `--allow-header: "Cookie": script cannot set this header (https://fetch.spec.whatwg.org/#forbidden-request-header); remove it`},
		{ZeroConfig{Upstream: backend, RateLimit: "60/min"}, `--rate-limit: "60/min": not a limit; did you mean "60/m"?`},
		{ZeroConfig{Upstream: backend, RateLimit: "0/m"}, `--rate-limit: "0/m": admits nothing; the count must be at least 1`},
		{ZeroConfig{Upstream: "${env:HOME}"}, `--upstream: "${env:HOME}": there are no environment variables here`},
	} {
		_, err := Zero(c.zero)
		if err == nil || err.Error() != c.want {
			t.Errorf("%+v:\ngot  %v\nwant %s", c.zero, err, c.want)
		}
	}
}

func TestZeroWarnings(t *testing.T) {
	l, err := Zero(ZeroConfig{Upstream: backend, Origins: []string{"*"}})
	if err != nil {
		t.Fatal(err)
	}
	if len(l.Warnings) != 1 || l.Warnings[0].File != "" || !strings.Contains(l.Warnings[0].Reason, "lists nobody") {
		t.Errorf("warnings: %v", l.Warnings)
	}
}
