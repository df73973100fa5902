package lab

import (
	"fmt"
	"io"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"testing"

	"github.com/moat-gateway/moat/guard"
	"github.com/moat-gateway/moat/guard/egress"
)

// TestOpenProxy: it reaches what it should not, in the lab's own network, and nothing else.
func TestOpenProxy(t *testing.T) {
	l := open(t)
	c := newCaller(t, l, reader(l))
	const credential = "http://169.254.169.254/latest/meta-data/iam/security-credentials/bank-api"
	elsewhere := "the lab's network ends here"
	for _, x := range []struct {
		target string
		status int
		says   string
	}{
		{"http://rates.example/rates", 200, "EUR"},
		{"https://rates.example/rates", 200, "EUR"},
		{"http://RATES.example.:8080/rates", 200, "EUR"},
		{"{api}/data", 200, "copper"},
		{"{stranger}/.lab/hop?to=" + url.QueryEscape("{api}/data"), 200, "copper"},
		{"{bank}/.lab/ledger?run=0", 403, "only its page"},
		{"{bank}/.lab//../.lab/boot", 403, "only its page"},
		{credential, 200, "SecretAccessKey"},
		{"http://metadata.internal/", 200, "security-credentials"},
		{"http://2852039166/", 200, "security-credentials"},
		{"http://0xa9fea9fe/", 200, "security-credentials"},
		{"http://0251.0376.0251.0376/", 200, "security-credentials"},
		{"http://169.254.43518/", 200, "security-credentials"},
		{"http://[::ffff:169.254.169.254]/", 200, "security-credentials"},
		{"http://rates.example/moved?to=" + url.QueryEscape(credential), 200, "SecretAccessKey"},
		{"http://inner.rates.example/", 200, "admin page"},
		{"http://localhost:6379/debug", 200, "DATABASE_URL"},
		{"http://127.0.0.1/debug", 200, "DATABASE_URL"},
		{"http://rates.example/nothing", 404, ""},

		{"http://example.com/", 502, elsewhere},
		{"https://example.com/", 502, elsewhere},
		{"http://1.1.1.1/", 502, elsewhere},
		{"http://10.0.0.6/", 502, elsewhere},
		{"http://127.0.0.2/", 502, elsewhere},
		{"http://[::1]/", 502, elsewhere},
		{"http://0/", 502, elsewhere},
		{"http://" + c.address + "/", 200, "The API's own machine"}, // not the lab's own port: there is no such thing in this network
		{"http://rates.example/moved?to=" + url.QueryEscape("http://example.com/"), 502, elsewhere},
		{"ftp://rates.example/", 502, "unsupported protocol"},
		{"file:///etc/passwd", 502, "unsupported protocol"},
		{"gopher://10.0.0.5/", 502, "unsupported protocol"},
		{"http://", 502, "no Host"},
		{"", 502, "unsupported protocol"},
		{"http://a b/", 400, "not a URL"},
		{"http://rates.example/moved?to=" + url.QueryEscape("/moved?to=/moved?to=/"), 404, ""},
	} {
		run := c.v.begin(nil, nil)
		target := l.o.Names.fill(strings.NewReplacer("%7B", "{", "%7D", "}").Replace(x.target), "")
		got := c.call("GET", "{api}/proxy?url="+url.QueryEscape(target), "")
		if got.status != x.status || !strings.Contains(got.body, x.says) {
			t.Errorf("%s: %d %s; want %d with %q", target, got.status, got.body, x.status, x.says)
		}
		if fetched := got.status < 500 && got.status != 400; fetched != strings.Contains(strings.Join(did(c.v, run), "\n"), "fetched ") {
			t.Errorf("%s: ran %q", target, did(c.v, run))
		}
	}
}

// TestProxyIsBounded: in what it passes on, and in how often it is led on.
func TestProxyIsBounded(t *testing.T) {
	l := open(t)
	c := newCaller(t, l, reader(l))
	if got := c.call("GET", "{api}/proxy?url=http://rates.example/big", ""); got.status != 200 || len(got.body) != maxBody {
		t.Errorf("%d, %d bytes", got.status, len(got.body))
	}
	// A URL that leads to the proxy again, as often as there is room for.
	target := l.o.Names.fill("{api}/data", "")
	for range 4 {
		target = l.o.Names.fill("{api}/proxy?url=", "") + url.QueryEscape(target)
	}
	if got := c.call("GET", target, ""); got.status != 200 || !strings.Contains(got.body, "copper") {
		t.Errorf("%d %s", got.status, got.body)
	}
	if c.v.share.busy != 0 {
		t.Errorf("%d requests are still counted", c.v.share.busy)
	}
}

// TestProxyPaysOut: what trusts its own network does what the proxy asks for, and the ledger
// has it by the request that asked.
func TestProxyPaysOut(t *testing.T) {
	l := open(t)
	c := newCaller(t, l, reader(l))
	run := c.v.begin(nil, nil)
	c.call("GET", "{api}/proxy?url="+url.QueryEscape("http://admin.bank.internal/pay?amount=100"), "")
	if c.v.booksNow().Alice != 900 {
		t.Errorf("alice has %d", c.v.booksNow().Alice)
	}
	for _, e := range c.v.ledger.of(run) {
		if e.Request != 1 {
			t.Errorf("event %+v", e)
		}
	}
}

// TestProxyGivesAway: what is inside notes what it gave away, before the proxy does that it
// fetched it, and by the same request. A partner gives nothing away.
func TestProxyGivesAway(t *testing.T) {
	l := open(t)
	c := newCaller(t, l, reader(l))
	for target, says := range map[string]string{
		"http://metadata.internal/": "listed",
		"http://169.254.169.254/latest/meta-data/iam/security-credentials/bank-api": "credentials",
		"http://localhost/":           "own page",
		"http://127.0.0.1/debug":      "password",
		"http://admin.bank.internal/": "admin page",
		"http://rates.example/rates":  "",
	} {
		run := c.v.begin(nil, nil)
		c.call("GET", "{api}/proxy?url="+url.QueryEscape(target), "")
		all := did(c.v, run)
		if says == "" && len(all) != 1 || says != "" && (len(all) != 2 || !strings.Contains(all[0], says)) || !strings.HasPrefix(all[len(all)-1], "fetched ") {
			t.Errorf("%s: ran %q", target, all)
		}
		for _, e := range c.v.ledger.of(run) {
			if e.Request != 1 {
				t.Errorf("%s: event %+v", target, e)
			}
		}
	}
}

// TestGuardInTheLabsNetwork: the real guard of a fetch route sees that network and no
// other, and refuses what is inside of it.
func TestGuardInTheLabsNetwork(t *testing.T) {
	l := open(t)
	v := reader(l)
	stranger := strings.TrimPrefix(l.o.Names.Origin(RoleStranger, ""), "http://")
	p := egress.Policy{
		Hosts:    []string{"rates.example", "inner.rates.example", "metadata.internal", "gone.example", "localhost", stranger},
		MaxBytes: 1000, Redirects: 2, ContentTypes: []string{"application/json", "text/plain"},
	}
	fetch := func(p egress.Policy, target string) (status int, body string, reason guard.Reason) {
		v.confineFetch(&p)
		g, err := egress.New(p)
		if err != nil {
			t.Fatal(err)
		}
		defer g.Close()
		res, d, err := g.Fetch(t.Context(), "GET", target, nil)
		if err != nil || res == nil {
			return 0, fmt.Sprint(err), d.Reason
		}
		defer res.Body.Close()
		b, err := io.ReadAll(res.Body)
		if err != nil {
			return 0, err.Error(), 0
		}
		return res.StatusCode, string(b), 0
	}
	to := func(target string) string { return "http://rates.example/moved?to=" + url.QueryEscape(target) }
	for _, x := range []struct {
		target string
		status int
		says   string
		reason guard.Reason
	}{
		{"http://rates.example/rates", 200, "EUR", 0},
		{to("/rates"), 200, "EUR", 0},
		{"http://" + stranger + "/.lab/schema", 403, "only its page", 0}, // it gets to the lab, and is refused there
		{"http://169.254.169.254/", 0, "", guard.EgressNotAllowed},
		{"http://10.0.0.5/", 0, "", guard.EgressNotAllowed},
		{"http://admin.bank.internal/", 0, "", guard.EgressNotAllowed},
		{"http://inner.rates.example/", 0, "", guard.EgressAddressNotAllowed},
		{"http://metadata.internal/", 0, "", guard.EgressAddressNotAllowed},
		{"http://localhost/debug", 0, "", guard.EgressAddressNotAllowed},
		{to("http://169.254.169.254/"), 0, "", guard.EgressNotAllowed},
		{to("http://inner.rates.example/"), 0, "", guard.EgressAddressNotAllowed},
		{"http://gone.example/", 0, "no such host", 0},
		{"http://rates.example/page", 0, "", guard.EgressNotAllowed},
		{"http://rates.example/big", 0, "", guard.EgressNotAllowed}, // it does not say what it is
	} {
		status, body, reason := fetch(p, x.target)
		if status != x.status || reason != x.reason || !strings.Contains(body, x.says) {
			t.Errorf("%s: %d %.200s, %s; want %d %s, %s", x.target, status, body, reason, x.status, x.says, x.reason)
		}
	}
	// What a reader allows by name he gets: of the lab's network, not of the machine's.
	p.DangerouslyAllowNetworks = []netip.Prefix{netip.MustParsePrefix("169.254.0.0/16")}
	if status, body, _ := fetch(p, "http://metadata.internal/"); status != 200 || !strings.Contains(body, "credentials") {
		t.Errorf("an allowed inner address: %d %s", status, body)
	}
}

// FuzzParseAddr: what netip reads as an address is the same one here, and each address
// survives being written as one number.
func FuzzParseAddr(f *testing.F) {
	for _, s := range []string{"127.0.0.1", "127.1", "0x7f.1", "2130706433", "0177.0.0.1", "::ffff:10.0.0.5", "1.2.3.4.5", "256.1.1.1", "1_0.1", "", ".", "4294967296"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, ok := parseAddr(s)
		if want, err := netip.ParseAddr(s); err == nil && (!ok || a != want.Unmap()) {
			t.Errorf("%q: %s, %v; want %s", s, a, ok, want.Unmap())
		}
		if ok && a.Is4In6() {
			t.Errorf("%q: %s is a mapped address", s, a)
		}
		if !ok || !a.Is4() {
			return
		}
		b := a.As4()
		var n uint64
		for _, x := range b {
			n = n<<8 | uint64(x)
		}
		if again, ok := parseAddr(netip.AddrFrom4(b).String()); !ok || again != a {
			t.Errorf("%q: %s is read as %s", s, a, again)
		}
		if again, ok := parseAddr(strconv.FormatUint(n, 10)); !ok || again != a {
			t.Errorf("%q: %s as %d is read as %s", s, a, n, again)
		}
	})
}

// TestGateFetchesInTheLab: a moat.yaml with a fetch route is the mend of the open proxy.
func TestGateFetchesInTheLab(t *testing.T) {
	l := open(t)
	c := newCaller(t, l, reader(l))
	yaml := head + `routes:
  - match: GET /proxy
    auth: public
    origins: ["{bank}"]
    fetch: {hosts: [rates.example, inner.rates.example], max_bytes: 64KiB, redirects: 1}
`
	if _, err := l.configure(c.v, yaml, false); err != nil {
		t.Fatal(err)
	}
	for target, want := range map[string]struct {
		status int
		reason string
	}{
		"http://rates.example/rates":             {200, ""},
		"http://rates.example/moved?to=/rates":   {200, ""},
		"http://169.254.169.254/":                {403, "egress-not-allowed"},
		"http://inner.rates.example/":            {403, "egress-address-not-allowed"},
		"http://rates.example/moved?to=//a.test": {403, "egress-not-allowed"},
	} {
		run := c.v.begin(nil, nil)
		got := c.call("GET", "{gate}/proxy?url="+url.QueryEscape(target), "", "Origin", "{bank}", "Sec-Fetch-Site", "same-site", "Sec-Fetch-Mode", "cors")
		if got.status != want.status || want.status == 200 && !strings.Contains(got.body, "EUR") {
			t.Errorf("%s: %d %s; want %d", target, got.status, got.body, want.status)
		}
		var reason string
		for _, e := range c.v.ledger.of(run) {
			if e.Kind == eventGate && e.Outcome == "deny" {
				reason = e.Reason
			}
		}
		if reason != want.reason {
			t.Errorf("%s: the ledger has %q; want %q", target, reason, want.reason)
		}
	}
}
