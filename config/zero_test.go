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
			l, err := Zero(c.zero, hermetic())
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
			l, err := Zero(c.zero, hermetic())
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
	l, err := Zero(ZeroConfig{Upstream: backend, Origins: page, Credentials: true, Report: true, Admin: "off", RateLimit: "60/m burst 20"}, hermetic())
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
		{ZeroConfig{Upstream: "${env:HOME}"}, `--upstream: "${env:HOME}": the environment variable HOME is not set; set it where moat is started, or write ${file:PATH}`},
		{
			ZeroConfig{Upstream: backend, Credential: []string{"Authorization: Bearer CANARY-in-plain", "CANARY", "X-Api-Key: ${env:UNSET}"}},
			"--credential: a secret must not stand on the command line, where every program of this machine can read it; put it into the environment variable NAME and write 'Authorization: Bearer ${env:NAME}', in single quotes, or the shell replaces it; ${file:PATH} reads it from a file\n" +
				"--credential: not a header; write it as 'Authorization: Bearer ${env:NAME}'\n" +
				`--credential: "${env:UNSET}": the environment variable UNSET is not set; set it where moat is started, or write ${file:PATH}`,
		},
		{ZeroConfig{Upstream: backend, Credential: []string{"Host: ${env:GATE_PROOF}"}}, `--credential: "${env:GATE_PROOF}": the Host is that of the url, or the client's with preserve_host: true`},
	} {
		_, err := Zero(c.zero, hermetic())
		if err == nil || err.Error() != c.want {
			t.Errorf("%+v:\ngot  %v\nwant %s", c.zero, err, c.want)
		}
	}
}

func TestZeroWarnings(t *testing.T) {
	l, err := Zero(ZeroConfig{Upstream: backend, Origins: []string{"*"}}, hermetic())
	if err != nil {
		t.Fatal(err)
	}
	if len(l.Warnings) != 1 || l.Warnings[0].File != "" || !strings.Contains(l.Warnings[0].Reason, "lists nobody") {
		t.Errorf("warnings: %v", l.Warnings)
	}
}

func TestAPresetIsAStarterFileWithTheFlagsPutIn(t *testing.T) {
	env := Options{Getenv: func(name string) (string, bool) { return "CANARY-key", name == "OPENAI_API_KEY" }}
	for _, name := range Presets() {
		l, err := Zero(ZeroConfig{Upstream: "https://api.openai.example", Origins: []string{"https://demo.example"}, PublicOrigins: []string{"https://api.demo.example"}, Preset: name}, env)
		if err != nil {
			t.Fatal(err)
		}
		text, _ := Starter(name)
		want, err := Parse("moat.yaml", text, env)
		if err != nil {
			t.Fatal(err)
		}
		if n := len(l.Gateway.PublicOrigins); n != 4 { // those of this machine, too
			t.Errorf("%d public origins", n)
		}
		_, got, _ := strings.Cut(summary(l), "\nupstream:")
		if _, text, _ := strings.Cut(summary(want), "\nupstream:"); got != text {
			t.Errorf("got\n%s\nwant\n%s", got, text)
		}
	}
	l, err := Zero(ZeroConfig{Upstream: backend, Origins: []string{"https://demo.example"}, Preset: "public-ai", RateLimit: "5/m", Report: true}, env)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range l.Gateway.Routes {
		if len(r.RateLimits) != 3 || r.RateLimits[2].Limit.String() != "5/m" || r.Modes[guard.Ticket] != guard.Report {
			t.Errorf("%+v %v", r.RateLimits, r.Modes)
		}
	}
	l, err = Zero(ZeroConfig{Upstream: backend, Origins: []string{"https://demo.example"}, Preset: "public-ai", Models: []string{"gpt-5-mini=0.25/2"}}, env)
	if err != nil {
		t.Fatal(err)
	}
	if m := l.Gateway.Routes[0].Model; len(m.Models) != 1 || m.Models["gpt-5-mini"].Input != 25e7 || m.Models["gpt-5-mini"].Output != 2e9 {
		t.Errorf("%+v", m)
	}
	if len(l.Warnings) > 0 {
		t.Errorf("warnings: %v", l.Warnings)
	}
	for _, wrong := range []string{"gpt-5-mini", "gpt-5-mini=cheap", "gpt-5-mini=0.25", "gpt-5-mini=0.25/", "=1/2"} {
		if _, err = Zero(ZeroConfig{Upstream: backend, Preset: "public-ai", Models: []string{wrong}}, env); err == nil || !strings.HasPrefix(err.Error(), "--model: \"") || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", wrong, err)
		}
	}
	if _, err = Zero(ZeroConfig{Upstream: backend, Preset: "public-ai", Models: []string{"m=1/2", "m=2/3"}}, env); err == nil || !strings.Contains(err.Error(), `"m=2/3": has its prices twice`) {
		t.Errorf("a model with two prices: %v", err)
	}
	// Who leaves the prices out is told what is offered then, and who gives them where nothing reads calls, that nothing does.
	l, err = Zero(ZeroConfig{Upstream: backend, Origins: []string{"https://demo.example"}, Preset: "public-ai"}, env)
	if err != nil || len(l.Warnings) != 1 || !strings.HasPrefix(l.Warnings[0].Error(), "--model: missing: only demo-1 can be called") {
		t.Errorf("without a model: %v, %v", err, l.Warnings)
	}
	if _, err = Zero(ZeroConfig{Upstream: backend, Models: []string{"gpt-5-mini=0.25/2"}}, env); err == nil || !strings.Contains(err.Error(), "with --preset public-ai alone") {
		t.Errorf("without the preset: %v", err)
	}
	if _, err = Zero(ZeroConfig{Upstream: backend, Preset: "public-api"}, env); err == nil || err.Error() != `--preset: "public-api": no such preset; there is public-ai` {
		t.Errorf("%v", err)
	}
	if _, err = Zero(ZeroConfig{Upstream: backend, Origins: []string{"https://demo.example"}, Preset: "public-ai"}, hermetic()); err == nil || !strings.Contains(err.Error(), "OPENAI_API_KEY") {
		t.Errorf("without a key: %v", err)
	}
}

func TestZeroCredential(t *testing.T) {
	l, err := Zero(ZeroConfig{Upstream: backend, Credential: []string{"Authorization: Bearer ${env:GATE_PROOF}", "X-Org:${file:token.txt}"}}, hermetic())
	if err != nil {
		t.Fatal(err)
	}
	p := l.Gateway.Upstreams["upstream"].Credential
	if p.Headers["Authorization"] != "Bearer CANARY-proof" || p.Headers["X-Org"] != "CANARY-token" || len(p.Secrets) != 2 || len(l.Files) != 1 {
		t.Errorf("got %d headers, %d secrets, files %v", len(p.Headers), len(p.Secrets), l.Files)
	}
}
