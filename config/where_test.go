package config_test

import (
	"testing"

	"github.com/moat-gateway/moat/config"
)

func TestWhereFindsTheLineThatHolds(t *testing.T) {
	const text = `version: 1
public_origins: [https://api.example]
upstreams:
  api: {url: "http://127.0.0.1:3000"}
policies:
  pages:
    origins: [https://app.example]
    cors:
      credentials: true
routes:
  - match: /
    upstream: api
    auth: public
    policy: pages
  - match: /open/
    upstream: api
    auth: public
    policy: pages
    origins: ["https://other.example"]
`
	l, err := config.Parse("moat.yaml", []byte(text), config.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ route, field, where, path, text string }{
		{"/", "origins", "moat.yaml:7:14", "policies.pages.origins", "origins: [https://app.example]"},
		{"/", "cors.credentials", "moat.yaml:9:20", "policies.pages.cors.credentials", "credentials: true"},
		{"/open/", "origins", "moat.yaml:19:14", "routes[1].origins", `origins: ["https://other.example"]`},
		{"/open/", "match", "moat.yaml:15:12", "routes[1].match", "- match: /open/"},
		{"/", "methods", "", "policies.pages.methods", ""},
		{"", "public_origins", "moat.yaml:2:17", "public_origins", "public_origins: [https://api.example]"},
		{"", "trusted_proxies.header", "", "trusted_proxies.header", ""},
	} {
		p := l.Where(c.route, c.field)
		if p.String() != c.where || p.Field != c.path || p.Text != c.text {
			t.Errorf("Where(%q, %q) = %v %q %q, want %s %q %q", c.route, c.field, p, p.Field, p.Text, c.where, c.path, c.text)
		}
	}
}
