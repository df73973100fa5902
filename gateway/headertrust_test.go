package gateway_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/moat-gateway/moat/gateway"
	"github.com/moat-gateway/moat/guard/clientaddr"
	"github.com/moat-gateway/moat/web"
)

// The header-trust conformance suite: what 2026's advisories against other gateways
// let a client say arrives at the upstream as nothing. Each spoof goes over a real
// connection, spelt as in the advisory.
func TestHeaderTrust(t *testing.T) {
	b := newBackend(t, nil)
	s := start(t, configFor(t, b.URL, plain, func(c *gateway.Config) {
		up := c.Upstreams["app"]
		up.Headers = map[string]string{"X-Gate-Proof": "the-proof"}
		c.Upstreams["app"] = up
	}))
	// What moat itself says of a client on this machine. The upstream gets this and
	// nothing else under any spelling of a name that speaks about the client.
	moatSays := map[string]string{
		"x-forwarded-for": "127.0.0.1", "x-forwarded-proto": "http", "x-forwarded-host": "api.example.com", "x-gate-proof": "the-proof",
	}
	for _, c := range []struct {
		advisory string
		spoofs   []string
	}{
		{"CVE-2026-40575 (GHSA-7x63-xv5r-3p2x), and its incomplete fix: X-Forwarded-Uri is believed", []string{
			"X-Forwarded-Uri: /public", "X-Forwarded-URI: /public", "x-forwarded-uri: /public", "X_Forwarded_Uri: /public", "X-Forwarded-Method: GET", "X-Original-URL: /public",
		}},
		{"CVE-2026-35051: X-Forwarded-Prefix is believed", []string{"X-Forwarded-Prefix: /admin", "X-FORWARDED-PREFIX: //evil.test", "X.Forwarded.Prefix: /admin"}},
		{"CVE-2026-39858: underscores stand for dashes", []string{
			"X_Forwarded_For: 6.6.6.6", "X-Forwarded_For: 6.6.6.6", "x_forwarded_proto: https", "X_Real_IP: 6.6.6.6", "X_Authenticated_User: root", "X_Gate_Proof: guess",
		}},
		{"the sequel: dots stand for dashes", []string{"X.Authenticated.User: root", "X.Real.IP: 6.6.6.6", "X.Forwarded-For: 6.6.6.6", "X.Gate.Proof: guess"}},
		{"GHSA-7r4p-vjf4-gxv4 (CVE-2026-30851): identity headers of the client survive", []string{
			"Remote-User: root", "Remote-Groups: admins", "Remote-Email: root@x", "Remote-Name: root", "X-Authentik-Username: root", "X-Auth-Request-User: root", "X-Webauth-User: root",
		}},
		{"GHSA-f59h-q822-g45g (CVE-2026-52845): and so do their aliases in CGI variables", []string{"Remote_User: root", "Remote_Groups: admins", "REMOTE_USER: root"}},
		{"GHSA-vhr5-ggp3-qq85: X-Forwarded-Proto chooses the rule", []string{"X-Forwarded-Proto: https", "X-Forwarded-Proto: http", "X-Forwarded-Port: 443", "X-Forwarded-Ssl: on", "Front-End-Https: on", "Forwarded: for=6.6.6.6;proto=https;host=evil.test"}},
		{"caddyserver/caddy#5804: the leftmost address is believed", []string{"X-Forwarded-For: 6.6.6.6", "X-Forwarded-For: 6.6.6.6, 127.0.0.1", "X-Real-IP: 6.6.6.6", "True-Client-IP: 6.6.6.6", "CF-Connecting-IP: 6.6.6.6", "X-Client-IP: 6.6.6.6"}},
		{"Connection names what moat sets or has checked", []string{"Connection: X-Forwarded-For, X-Gate-Proof, Origin, X-Forwarded-Host", "Connection: close, X-Gate-Proof"}},
		{"the client guesses what moat sets", []string{"X-Gate-Proof: guess", "x-gate-proof: the-proof", "Moat-Principal: root"}},
	} {
		for _, spoof := range c.spoofs {
			raw(t, s.addr, "GET / HTTP/1.1\r\nHost: api.example.com\r\nOrigin: "+app+"\r\n"+spoof+"\r\nAccept: x/y\r\n\r\n")
			got := b.last.Load().Header
			name, _, _ := strings.Cut(spoof, ":")
			speaks := moatSays[web.FoldName(name)] != ""
			for k, v := range got {
				fold := web.FoldName(k)
				if want, ok := moatSays[fold]; ok {
					if k != http.CanonicalHeaderKey(fold) || len(v) != 1 || v[0] != want {
						t.Errorf("%s: %q: arrived as %s: %q, want %q", c.advisory, spoof, k, v, want)
					}
				} else if fold == web.FoldName(name) && !speaks {
					t.Errorf("%s: %q: arrived as %s: %q", c.advisory, spoof, k, v)
				}
			}
			for k := range moatSays {
				if got.Get(k) == "" {
					t.Errorf("%s: %q: took away %s", c.advisory, spoof, k)
				}
			}
			if got.Get("Origin") != app || got.Get("Accept") != "x/y" {
				t.Errorf("%s: %q: what is the client's own did not arrive: %v", c.advisory, spoof, got)
			}
		}
	}
}

// raw sends bytes on a connection of their own and wants 200.
func raw(t *testing.T, addr, request string) {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	io.WriteString(c, request)
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != http.StatusOK {
		t.Fatalf("%q: %s", request, res.Status)
	}
}

func TestPROXYProtocolNamesTheClient(t *testing.T) {
	b := newBackend(t, nil)
	s := start(t, configFor(t, b.URL, plain), func(c *gateway.ServerConfig) {
		c.Listeners[0].ProxyProtocol = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	})
	const request = "GET / HTTP/1.1\r\nHost: api.example.com\r\nOrigin: " + app + "\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n"
	raw(t, s.addr, "PROXY TCP4 192.0.2.7 127.0.0.1 4711 8080\r\n"+request)
	if got := b.last.Load().Header.Get("X-Forwarded-For"); got != "192.0.2.7" {
		t.Errorf("version 1: %q", got)
	}
	v2 := "\r\n\r\n\x00\r\nQUIT\n\x21\x21\x00\x24" + string(netip.MustParseAddr("2001:db8::7").AsSlice()) + string(netip.IPv6Loopback().AsSlice()) + "\x12\x34\x1f\x90"
	raw(t, s.addr, v2+request)
	if got := b.last.Load().Header.Get("X-Forwarded-For"); got != "2001:db8::7" {
		t.Errorf("version 2: %q", got)
	}
	ran := b.ran.Load()
	c, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	fmt.Fprint(c, request)
	if n, err := io.Copy(io.Discard, c); n != 0 || b.ran.Load() != ran {
		t.Errorf("without the header: %d bytes, %v, backend ran %d times more", n, err, b.ran.Load()-ran)
	}
}

func TestTrustedProxyIsBelievedForOneStepOnly(t *testing.T) {
	b := newBackend(t, nil)
	s := start(t, configFor(t, b.URL, plain, func(c *gateway.Config) {
		c.Trust = clientaddr.Trust{Proxies: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, Header: clientaddr.Forwarded}
	}))
	raw(t, s.addr, "GET / HTTP/1.1\r\nHost: inside\r\nOrigin: "+app+"\r\nForwarded: for=6.6.6.6;host=evil.test, for=\"[2001:db8::7]:99\";proto=https;host=api.example.com\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n")
	h := b.last.Load().Header
	if h.Get("X-Forwarded-For") != "2001:db8::7" || h.Get("X-Forwarded-Proto") != "http" || // by the public origin, not by anybody's word
		h.Get("X-Forwarded-Host") != "api.example.com" || h.Get("Forwarded") != "" {
		t.Errorf("arrived: %v", h)
	}
}
