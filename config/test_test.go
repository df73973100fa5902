package config

import (
	"errors"
	"strings"
	"testing"

	"github.com/moat-gateway/moat/gateway"
)

const gate = `version: 1
public_origins: [https://api.example.com, http://localhost:8080]
trusted_proxies: {from: [10.0.0.0/8], header: X-Forwarded-For}
upstreams: {app: {url: http://127.0.0.1:3000}}
policies: {pages: {origins: [https://app.example.com], limits: {body_bytes: 10}}}
routes:
  - {match: /, name: all, upstream: app, auth: public, policy: pages}
  - {match: POST /hook, name: hook, upstream: app, auth: public, browserless: allow}
  - {match: /lenient, name: lenient, upstream: app, auth: public, modes: {cors: report, cross_site: report}}
tests:
`

// runTests runs the tests that follow, one a line, and returns what failed.
func runTests(t *testing.T, tests ...string) []string {
	t.Helper()
	l, err := Parse("moat.yaml", []byte(gate+"  - "+strings.Join(tests, "\n  - ")+"\n"), hermetic())
	if err != nil {
		t.Fatal(err)
	}
	g, err := gateway.New(l.Gateway, nil)
	if err != nil {
		t.Fatal(err)
	}
	failed := make([]string, len(l.Tests))
	for i, test := range l.Tests {
		if err = test.Run(g); err == nil {
			continue
		}
		var f Fault
		if failed[i] = err.Error(); !errors.As(err, &f) || f.Line != 11+i {
			t.Errorf("%v: want a Fault in line %d", err, 11+i)
		}
	}
	return failed
}

func TestTestsThatHold(t *testing.T) {
	for _, failed := range runTests(
		t,
		`{name: a listed page, request: {method: POST, url: "https://api.example.com/x?y=1", headers: {origin: https://app.example.com}}, expect: allow, route: all}`,
		`{name: no path, request: {url: "https://api.example.com", headers: {Sec-Fetch-Site: none}}, expect: allow, route: all}`,
		`{name: a preflight, request: {method: OPTIONS, url: "https://api.example.com/", headers: {Origin: https://app.example.com, Access-Control-Request-Method: PUT}}, expect: cors-preflight-approved}`,
		`{name: a method, request: {method: PROPFIND, url: "https://api.example.com/", headers: {Sec-Fetch-Site: same-origin}}, expect: method-not-allowed}`,
		`{name: a large body, request: {method: POST, url: "https://api.example.com/", headers: {Content-Length: "11", Sec-Fetch-Site: same-origin}}, expect: body-too-large}`,
		`{name: a body that fits, request: {method: POST, url: "https://api.example.com/", headers: {Content-Length: "10", Sec-Fetch-Site: same-origin}}, expect: allow}`,
		`{name: a forged Host, request: {url: "https://api.example.com/", headers: {Host: evil.example}}, expect: host-not-allowed}`,
		`{name: a proxy's word, request: {url: "https://api.example.com/hook", method: POST, from: 10.1.1.1, headers: {X-Forwarded-For: nonsense}}, expect: client-address-unreadable}`,
		`{name: anybody's word, request: {url: "https://api.example.com/hook", method: POST, from: 192.0.2.1, headers: {X-Forwarded-For: nonsense}}, expect: allow, route: hook}`,
		`{name: IPv6, request: {url: "https://api.example.com/hook", method: POST, from: "2001:db8::1"}, expect: allow}`,
		`{name: an encoded slash, request: {url: "https://api.example.com/a%2Fb"}, expect: path-ambiguous}`,
		`{name: reported, request: {url: "https://api.example.com/lenient", headers: {Origin: https://evil.example}}, expect: allow, route: lenient}`,
	) {
		if failed != "" {
			t.Error(failed)
		}
	}
}

func TestTestsThatFailSayWhy(t *testing.T) {
	tests := map[string][]string{
		`{name: t, request: {url: "https://api.example.com/", headers: {Origin: https://evil.example}}, expect: allow}`: {
			`moat.yaml:11:5: tests[0]: "t": expected allow, got cors-origin-not-allowed on route "all"`, `Origin is "https://evil.example"`, "add its origin",
		},
		`{name: t, request: {url: "https://api.example.com/", headers: {Sec-Fetch-Site: none}}, expect: cross-site-browserless}`: {
			`expected cross-site-browserless, got allow on route "all"`,
		},
		`{name: t, request: {url: "https://api.example.com/hook", method: POST}, expect: allow, route: all}`: {`expected route "all", got "hook"`},
		`{name: t, request: {url: "https://evil.example/"}, expect: allow}`:                                  {"got host-not-allowed, and no route matches", `Host is "evil.example"`},
		`{name: t, request: {url: "https://api.example.com/lenient"}, expect: cross-site-browserless}`: {
			`got allow on route "lenient"`, "cross_site is in report mode, so it only recorded that",
		},
	}
	for test, want := range tests {
		failed := runTests(t, test)[0]
		for _, part := range want {
			if !strings.Contains(failed, part) {
				t.Errorf("%s:\ngot  %s\nwant %s", test, failed, part)
			}
		}
	}
}
