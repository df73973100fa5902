package browser

import (
	"strings"
	"testing"
	"time"
)

var page = Page{URL: "https://app.test/page"}

// sent makes a request and returns the methods of what left, such as "OPTIONS PUT".
func sent(t *testing.T, b *Browser, at time.Time, r Request, server Server) string {
	t.Helper()
	trace, err := b.Do(at, page, r, server)
	if err != nil {
		t.Fatal(err)
	}
	var methods []string
	for _, x := range trace.Exchanges {
		if !x.FromCache {
			methods = append(methods, x.Method)
		}
	}
	return strings.Join(methods, " ")
}

func granting(fields ...string) Server {
	return func(Message) Answer {
		h := Header{{"Access-Control-Allow-Origin", "https://app.test"}, {"Access-Control-Allow-Methods", "PUT"}}
		for i := 0; i+1 < len(fields); i += 2 {
			h.add(fields[i], fields[i+1])
		}
		return Answer{Status: 200, Header: h}
	}
}

func TestPreflightsAreRememberedAsLongAsTheAnswerSays(t *testing.T) {
	put := Request{API: Fetch, URL: "https://api.test/x", Method: "PUT"}
	for _, test := range []struct {
		maxAge string
		kept   time.Duration
	}{
		{"", 5 * time.Second},
		{"60", time.Minute},
		{"0", 0},
		{"-1", 0},
		{"x", 5 * time.Second},
		{"7200", 2 * time.Hour},
		{"86400", 2 * time.Hour},
		{"99999999999999999999", 5 * time.Second},
	} {
		server := granting()
		if test.maxAge != "" {
			server = granting("Access-Control-Max-Age", test.maxAge)
		}
		b := New(&chromium)
		if got := sent(t, b, noon, put, server); got != "OPTIONS PUT" {
			t.Errorf("Max-Age %q: at first %s", test.maxAge, got)
		}
		if got := sent(t, b, noon.Add(test.kept-time.Second), put, server); test.kept > 0 && got != "PUT" {
			t.Errorf("Max-Age %q: a second before it ends: %s", test.maxAge, got)
		}
		if got := sent(t, b, noon.Add(test.kept), put, server); got != "OPTIONS PUT" {
			t.Errorf("Max-Age %q: when it has ended: %s", test.maxAge, got)
		}
	}
}

func TestPreflightsAreRememberedForTheURLAndItsQuery(t *testing.T) {
	b := New(&chromium)
	put := Request{API: Fetch, URL: "https://api.test/x?a=1", Method: "PUT"}
	sent(t, b, noon, put, granting())
	put.URL = "https://api.test/x?a=2"
	if got := sent(t, b, noon, put, granting()); got != "OPTIONS PUT" {
		t.Errorf("another query: %s", got)
	}
	put.URL = "https://api.test/x?a=1#part"
	if got := sent(t, b, noon, put, granting()); got != "PUT" {
		t.Errorf("another fragment: %s", got)
	}
}

func TestLaxCookiesTravelWithYoungPostsOnly(t *testing.T) {
	for age, want := range map[time.Duration]string{0: "sid=1", 2 * time.Minute: "sid=1", 121 * time.Second: ""} {
		b := New(&chromium)
		if err := b.SetCookie("https://api.test/", "sid=1", "", noon.Add(-age)); err != nil {
			t.Fatal(err)
		}
		trace, err := b.Do(noon, page, Request{API: Form, URL: "https://api.test/x", Method: "POST"}, granting())
		if err != nil {
			t.Fatal(err)
		}
		if got := trace.Exchanges[0].Header.Value("Cookie"); got != want {
			t.Errorf("%v old: %q, want %q", age, got, want)
		}
	}
}

func TestCookiesExpire(t *testing.T) {
	b := New(&chromium)
	for _, line := range []string{"a=1; Max-Age=10; SameSite=None; Secure", "b=2; Expires=Sat, 21 Nov 2026 12:01:00 GMT; SameSite=None; Secure", "c=3; SameSite=None; Secure"} {
		if err := b.SetCookie("https://api.test/", line, "", noon); err != nil {
			t.Fatal(err)
		}
	}
	for after, want := range map[time.Duration]string{0: "a=1; b=2; c=3", 30 * time.Second: "b=2; c=3", time.Hour: "c=3"} {
		trace, err := b.Do(noon.Add(after), page, Request{API: Fetch, URL: "https://api.test/x", Credentials: "include"}, granting())
		if err != nil {
			t.Fatal(err)
		}
		if got := trace.Exchanges[0].Header.Value("Cookie"); got != want {
			t.Errorf("after %v: %q, want %q", after, got, want)
		}
	}
	if err := b.SetCookie("https://api.test/", "a=; Max-Age=0; Secure", "", noon); err != nil {
		t.Fatal(err)
	}
	if len(b.Jar.cookies) != 2 {
		t.Errorf("Max-Age=0 removes: %+v", b.Jar.cookies)
	}
}

func TestProfilesDisagreeWhereTheyDepart(t *testing.T) {
	bearer := Request{API: Fetch, URL: "https://api.test/x", Header: Header{{"Authorization", "Bearer x"}}}
	for name, want := range map[string]CORSError{"chromium": "", "standard": HeaderDisallowedByPreflightResponse} {
		p, err := ProfileNamed(name)
		if err != nil {
			t.Fatal(err)
		}
		trace, err := New(p).Do(noon, page, bearer, granting("Access-Control-Allow-Headers", "*"))
		if err != nil {
			t.Fatal(err)
		}
		if got := trace.Verdict.CORS; got != want {
			t.Errorf("%s: * and Authorization: %q, want %q", name, got, want)
		}
	}
}

func TestSpaceOfHosts(t *testing.T) {
	for host, want := range map[string]AddressSpace{
		"app.example": Public, "192.0.2.1": Public, "8.8.8.8:443": Public, "[2001:db8::1]": Public,
		"10.1.2.3": Local, "192.168.0.1:8080": Local, "172.16.0.1": Local, "169.254.169.254": Local, "100.64.0.1": Local,
		"printer.local": Local, "[fd00::1]:80": Local, "[fe80::1]": Local,
		"localhost": Loopback, "localhost:3000": Loopback, "app.localhost": Loopback, "127.0.0.1": Loopback, "[::1]:80": Loopback,
		"[::ffff:127.0.0.1]": Loopback, "0.0.0.0": Loopback,
	} {
		if got := SpaceOf(host); got != want {
			t.Errorf("SpaceOf(%q) = %s, want %s", host, got, want)
		}
	}
}

func TestURLsAreReadAsBrowsersDo(t *testing.T) {
	base, err := parseURL("https://app.test/a/b?c", nil)
	if err != nil {
		t.Fatal(err)
	}
	for ref, want := range map[string]string{
		"https://API.test": "https://api.test/", "https://api.test:443/x": "https://api.test/x", "http://api.test:080/": "http://api.test/",
		"../d": "https://app.test/d", "?q": "https://app.test/a/b?q", "//other.test/x": "https://other.test/x", " /y\n": "https://app.test/y",
		"https://bücher.test/": "https://xn--bcher-kva.test/", "https://[::1]:8443/": "https://[::1]:8443/", "wss://api.test/": "wss://api.test/",
		"https://api.test/x#y": "https://api.test/x",
	} {
		if got, bad := parseURL(ref, base.url); bad != nil || got.String() != want {
			t.Errorf("%q is %v (%v), want %s", ref, got, bad, want)
		}
	}
	for _, ref := range []string{"data:text/plain,x", "javascript:alert(1)", "file:///etc/passwd", "https://", "https://a b/", "https://a:99999/", "https:opaque", "http://%zz/"} {
		if got, bad := parseURL(ref, nil); bad == nil {
			t.Errorf("%q is %v, but no request of a browser's to a server", ref, got)
		}
	}
}

func TestPoliciesOfThePage(t *testing.T) {
	self, err := parseURL("https://app.test/page", nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		policy, url string
		blocked     bool
	}{
		{"", "https://api.test/", false},
		{"connect-src 'none'", "https://app.test/", true},
		{"connect-src 'self'", "https://app.test/x", false},
		{"connect-src 'self'", "wss://app.test/x", false},
		{"connect-src 'self'", "https://app.test:8443/x", true},
		{"connect-src\t'self'", "https://api.test/", true},
		{"default-src https:", "https://api.test/", false},
		{"default-src https:", "http://localhost/", true},
		{"default-src 'none'; connect-src *", "https://api.test/", false},
		{"connect-src 'none'; connect-src *", "https://api.test/", true},
		{"connect-src *.test", "https://api.test/", false},
		{"connect-src *.api.test", "https://api.test/", true},
		{"connect-src https://api.test:*", "https://api.test:8443/", false},
		{"connect-src https://api.test/v1/", "https://api.test/v1/x", false},
		{"connect-src https://api.test/v1/", "https://api.test/v2/x", true},
		{"connect-src https://api.test/v1", "https://api.test/v1/x", true},
		{"img-src 'none'", "https://api.test/", false},
	} {
		to, err := parseURL(test.url, nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := cspBlocks(test.policy, Fetch, self, to, false) != ""; got != test.blocked {
			t.Errorf("%q blocks %s: %v, want %v", test.policy, test.url, got, test.blocked)
		}
	}
}

func TestBadCasesAreNamed(t *testing.T) {
	for _, c := range []Case{
		{Page: Page{URL: "app.test"}, Requests: []Request{{API: Fetch, URL: "/"}}},
		{Page: page, Requests: []Request{{API: "gopher", URL: "/"}}},
		{Page: Page{URL: page.URL, Ancestors: []string{"x"}}, Requests: []Request{{API: Fetch, URL: "/"}}},
		{Page: page, Browser: State{Profile: "netscape"}},
		{Page: page, Browser: State{Cookies: []Seed{{URL: "https://api.test/", SetCookie: "a=1; SameSite=None"}}}},
		{Page: page, Browser: State{Cookies: []Seed{{URL: "api.test", SetCookie: "a=1"}}}},
	} {
		if _, err := c.Run(noon); err == nil {
			t.Errorf("%+v was played", c)
		} else if strings.TrimSpace(err.Error()) == "" {
			t.Error("an error says what is wrong")
		}
	}
}
