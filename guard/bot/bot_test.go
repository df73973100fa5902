package bot

import (
	"bufio"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/moat-gateway/moat/guard"
)

const (
	chrome   = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/156.0.0.0 Safari/537.36"
	fox      = "Mozilla/5.0 (X11; Linux x86_64; rv:153.0) Gecko/20100101 Firefox/153.0"
	iphone   = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.5 Mobile/15E148 Safari/604.1"
	webview  = "Mozilla/5.0 (Linux; Android 14; Pixel 8; wv) AppleWebKit/537.36 (KHTML, like Gecko) Version/4.0 Chrome/156.0.0.0 Mobile Safari/537.36"
	pixel    = "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/156.0.0.0 Mobile Safari/537.36"
	edge     = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/156.0.0.0 Safari/537.36 Edg/156.0.0.0"
	headless = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) HeadlessChrome/156.0.0.0 Safari/537.36"
	googler  = "Mozilla/5.0 AppleWebKit/537.36 (KHTML, like Gecko; compatible; Googlebot/2.1; +http://www.google.com/bot.html) Chrome/156.0.0.0 Safari/537.36"
)

// head reads a request as it goes over the wire; each line ends with a line feed alone.
func head(tb testing.TB, text string) *http.Request {
	tb.Helper()
	r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(strings.ReplaceAll(strings.TrimSpace(text), "\n", "\r\n") + "\r\n\r\n")))
	if err != nil {
		tb.Fatal(err)
	}
	return r
}

// calls are what a script's fetch sends, by browser, without the line of the User-Agent.
const (
	chromeCall = "Host: api.example\nSec-Ch-Ua-Platform: \"Linux\"\nSec-Ch-Ua: \"Not:A-Brand\";v=\"8\", \"Chromium\";v=\"156\"\nSec-Ch-Ua-Mobile: ?0\n" + foxCall
	foxCall    = "Accept: */*\nAccept-Language: en-US,en;q=0.9\nAccept-Encoding: gzip, deflate, br, zstd\nSec-Fetch-Site: same-origin\nSec-Fetch-Mode: cors\nSec-Fetch-Dest: empty\n"
)

var honest = Facts{Client: netip.MustParseAddr("192.0.2.1"), Secure: true, Trustworthy: true, Direct: true}

// with changes a head: "-Name" drops a field, anything else is one that is set.
func with(head string, changes ...string) string {
	for _, c := range changes {
		name, _, _ := strings.Cut(strings.TrimPrefix(c, "-"), ":")
		var kept []string
		for line := range strings.SplitSeq(strings.TrimSpace(head), "\n") {
			if n, _, _ := strings.Cut(line, ":"); !strings.EqualFold(n, name) {
				kept = append(kept, line)
			}
		}
		if c[0] != '-' {
			kept = append(kept, c)
		}
		head = strings.Join(kept, "\n") + "\n"
	}
	return head
}

func TestWhatEachSignalSays(t *testing.T) {
	get := "GET /v1 HTTP/1.1\n"
	ofChrome, ofFox := get+"User-Agent: "+chrome+"\n"+chromeCall, get+"Host: api.example\nUser-Agent: "+fox+"\n"+foxCall
	plain := honest
	plain.Trustworthy, plain.Secure = false, false
	proxied := honest
	proxied.Direct = false
	for _, c := range []struct {
		name  string
		head  string
		facts Facts
		want  string // the evidence, or "" for no points
	}{
		{"Chromium", ofChrome, honest, ""},
		{"Firefox", ofFox, honest, ""},
		{"Safari", with(ofFox, "User-Agent: "+iphone), honest, ""},
		{"Edge", with(ofChrome, "User-Agent: "+edge, `Sec-Ch-Ua-Platform: "Windows"`), honest, ""},
		{"Chromium on Android", with(ofChrome, "User-Agent: "+pixel, `Sec-Ch-Ua-Platform: "Android"`, "Sec-Ch-Ua-Mobile: ?1"), honest, ""},
		{"the desktop's page on Android", with(ofChrome, `Sec-Ch-Ua-Platform: "Android"`), honest, ""},
		{"an app's view, without hints", with(ofFox, "User-Agent: "+webview), honest, ""},
		{"over plain http there is neither Fetch Metadata nor a hint", get + "Host: api.example\nUser-Agent: " + chrome + "\nAccept: */*\nAccept-Language: en\nAccept-Encoding: gzip, deflate\n", plain, ""},
		{"a Chromium of 2019", with(get+"User-Agent: "+strings.Replace(chrome, "156", "74", 1)+"\n"+chromeCall, "-Sec-Fetch-Site", "-Sec-Fetch-Mode", "-Sec-Fetch-Dest", "-Sec-Ch-Ua", "-Sec-Ch-Ua-Mobile", "-Sec-Ch-Ua-Platform"), honest, ""},
		{"a WebSocket", with(get+"User-Agent: "+chrome+"\nHost: api.example\n", "Upgrade: websocket", "Connection: Upgrade", "Sec-Websocket-Key: x"), honest, ""},
		{"a download through a navigation", with(ofChrome, "Sec-Fetch-Mode: navigate", "-Accept"), honest, ""},
		{"a browser behind a proxy of HTTP/1.0", strings.Replace(ofFox, "HTTP/1.1", "HTTP/1.0", 1), proxied, ""},

		{"Safari's player of streams", get + "Host: api.example\nUser-Agent: AppleCoreMedia/1.0.0.22F76 (iPhone; U; CPU OS 18_5 like Mac OS X; en_us)\nAccept: */*\nRange: bytes=0-1\n", honest, ""},
		{"Opera Mini", get + "Host: api.example\nUser-Agent: Opera/9.80 (Android; Opera Mini/36.2/191.249; U; en) Presto/2.12.423 Version/12.16\nAccept: text/html\n", honest, ""},
		{"Edge as Internet Explorer", get + "Host: api.example\nUser-Agent: Mozilla/4.0 (compatible; MSIE 7.0; Windows NT 10.0; WOW64; Trident/7.0)\nAccept: */*\n", honest, ""},
		{"a robot under such a name", get + "Host: api.example\nUser-Agent: Mozilla/4.0 (compatible; MSIE 7.0; Examplebot/1.0)\nAccept: */*\n", honest, "headers +40 (a robot that is not known here)"},

		{"no Fetch Metadata", with(ofChrome, "-Sec-Fetch-Site", "-Sec-Fetch-Mode", "-Sec-Fetch-Dest"), honest, "fetch_metadata +40 (no Sec-Fetch-*, which this browser always sends)"},
		{"no Fetch Metadata of Safari", with(ofFox, "User-Agent: "+iphone, "-Sec-Fetch-Site", "-Sec-Fetch-Mode", "-Sec-Fetch-Dest"), honest, "fetch_metadata +40 (no Sec-Fetch-*, which this browser always sends)"},
		{"a part of it", with(ofChrome, "-Sec-Fetch-Site"), honest, "fetch_metadata +40 (some of Sec-Fetch-*, where browsers send all)"},
		{"an upgrade that is none", with(ofChrome, "-Sec-Fetch-Site", "-Sec-Fetch-Mode", "-Sec-Fetch-Dest", "Upgrade: h2c", "Connection: Upgrade"), honest, "fetch_metadata +40 (no Sec-Fetch-*, which this browser always sends)"},
		{"a site that does not exist", with(ofChrome, "Sec-Fetch-Site: same"), honest, "fetch_metadata +40 (a Sec-Fetch-Site that does not exist)"},
		{"a navigation to an image", with(ofFox, "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: image"), honest, "fetch_metadata +40 (a navigation to a sub-resource)"},
		{"a navigation with PUT", strings.Replace(with(ofFox, "Sec-Fetch-Mode: navigate", "Origin: https://api.example"), "GET", "PUT", 1), honest, "fetch_metadata +40 (a navigation with a method that none has)"},
		{"a form that posts JSON", strings.Replace(with(ofFox, "Sec-Fetch-Mode: navigate", "Origin: https://api.example", "Content-Type: application/json"), "GET", "POST", 1), honest, "fetch_metadata +40 (a navigation that posts JSON)"},
		{"a document by fetch", with(ofFox, "Sec-Fetch-Dest: document"), honest, "fetch_metadata +40 (a document that nobody navigates to)"},
		{"a user who does not navigate", with(ofFox, "Sec-Fetch-User: ?1"), honest, "fetch_metadata +40 (Sec-Fetch-User without a navigation)"},
		{"JSON without CORS", strings.Replace(with(ofFox, "Sec-Fetch-Mode: no-cors", "Origin: https://api.example", "Content-Type: application/json"), "GET", "POST", 1), honest, "fetch_metadata +40 (no-cors with what takes CORS)"},
		{"CORS without Origin", with(ofFox, "Sec-Fetch-Site: cross-site"), honest, "fetch_metadata +40 (CORS across origins without Origin)"},
		{"an image by POST", strings.Replace(with(ofFox, "Sec-Fetch-Mode: no-cors", "Sec-Fetch-Dest: image", "Origin: https://api.example"), "GET", "POST", 1), honest, "fetch_metadata +40 (a sub-resource with a method that loads none)"},
		{"POST without Origin", strings.Replace(ofFox, "GET", "POST", 1), honest, "fetch_metadata +40 (no Origin, which this browser always sends with this method)"},

		{"no User-Agent", with(ofFox, "-User-Agent"), honest, "headers +40 (no User-Agent)"},
		{"curl", get + "Host: api.example\nUser-Agent: curl/8.5.0\nAccept: */*\n", honest, "headers +40 (curl)"},
		{"Node.js", get + "Host: api.example\nUser-Agent: node\nAccept: */*\nAccept-Language: *\nSec-Fetch-Mode: cors\nAccept-Encoding: gzip, deflate\n", honest, "fetch_metadata +40 (some of Sec-Fetch-*, where browsers send all); headers +40 (node)"},
		{"Python", get + "Host: api.example\nUser-Agent: python-requests/2.31.0\nAccept-Encoding: gzip, deflate\nAccept: */*\n", honest, "headers +40 (python-requests)"},
		{"headless Chromium", with(ofChrome, "User-Agent: "+headless), honest, "headers +40 (HeadlessChrome)"},
		{"its brand alone", with(ofChrome, `Sec-Ch-Ua: "HeadlessChrome";v="156", "Chromium";v="156"`), honest, "headers +40 (HeadlessChrome)"},
		{"a robot", with(ofFox, "User-Agent: "+googler), honest, "headers +40 (a robot that is not known here)"},
		{"an app", get + "Host: api.example\nUser-Agent: Acme/7 CFNetwork/1568\nAccept: */*\n", honest, "headers +20 (a User-Agent that no browser has)"},
		{"two names", with(ofFox, "-X") + "User-Agent: " + fox + "\n", honest, "headers +40 (two User-Agents)"},
		{"HTTP/1.0", strings.Replace(ofFox, "HTTP/1.1", "HTTP/1.0", 1), honest, "headers +40 (HTTP/1.0, which no browser speaks)"},
		{"Firefox with hints", with(ofChrome, "User-Agent: "+fox), honest, "headers +40 (sec-ch-ua, which this browser does not send)"},
		{"a navigation without hints", with(ofFox, "User-Agent: "+chrome, "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document", "Sec-Fetch-Site: none", "Accept: text/html"), honest, "headers +40 (no sec-ch-ua, which this browser sends with navigations)"},
		{"hints of another version", with(ofChrome, `Sec-Ch-Ua: "Chromium";v="155"`), honest, "headers +40 (sec-ch-ua and User-Agent are of two versions)"},
		{"hints of another system", with(ofChrome, `Sec-Ch-Ua-Platform: "Windows"`), honest, "headers +40 (sec-ch-ua-platform and User-Agent are of two systems)"},
		{"hints of another device", with(ofChrome, "Sec-Ch-Ua-Mobile: ?1"), honest, "headers +40 (sec-ch-ua-mobile and User-Agent are of two devices)"},
		{"no language", with(ofFox, "-Accept-Language"), honest, "headers +20 (no Accept-Language)"},
		{"any language", with(ofFox, "Accept-Language: *"), honest, "headers +20 (Accept-Language: *)"},
		{"no Accept", with(ofFox, "-Accept"), honest, "headers +20 (no Accept)"},
		{"a navigation that asks for anything", with(ofFox, "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document"), honest, "headers +20 (a navigation that does not ask for HTML)"},
		{"no coding", with(ofFox, "-Accept-Encoding"), honest, "headers +10 (no Accept-Encoding)"},
		{"gzip alone", with(ofFox, "Accept-Encoding: gzip"), honest, "headers +10 (an Accept-Encoding without br)"},
		{"curl under Chromium's name", get + "Host: api.example\nUser-Agent: " + chrome + "\nAccept: */*\n", honest, "fetch_metadata +40 (no Sec-Fetch-*, which this browser always sends); headers +30 (no Accept-Language)"},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := newGuard(t, all())
			c.facts.Now = time.Now()
			if v := g.Decide(head(t, c.head), c.facts); v.Decision.Evidence.Got != c.want {
				t.Errorf("%q; want %q", v.Decision.Evidence.Got, c.want)
			}
		})
	}
}

func TestConnectionsAreHeldAgainstTheClaim(t *testing.T) {
	const (
		goSettings     = "2:0;4:4194304;5:16384;6:10485760|1073741824|0|a,m,p,s"
		chromeSettings = "1:65536;2:0;4:6291456;6:262144|15663105|0|m,a,s,p"
		goTLS          = "t13d1312h2_f57a46bbacb6_ab7e3b40a677"
		chromeTLS      = "t13d1517h2_8daaf6152771_cb7bf5808d99"
	)
	inOrder := []string{"Host", "Connection", "sec-ch-ua", "User-Agent", "Accept", "Sec-Fetch-Site", "Sec-Fetch-Mode", "Sec-Fetch-Dest", "Referer", "Accept-Encoding", "Accept-Language"}
	for _, c := range []struct {
		agent string
		ja4   string
		http2 string
		order []string
		want  string
	}{
		{chrome, chromeTLS, chromeSettings, inOrder, ""},
		{chrome, "t13d1517h2_000000000000_cb7bf5808d99", "1:1|00|0|m,a,s,p", nil, ""}, // nobody's that is known
		{chrome, "", "", nil, ""},
		{"Acme/7", goTLS, goSettings, nil, "headers +20 (a User-Agent that no browser has)"}, // which claims nothing
		{chrome, goTLS, "", nil, "ja4 +40 (Go)"},
		{fox, chromeTLS, "", nil, "ja4 +40 (Chromium)"},
		{iphone, chromeTLS, "", nil, "ja4 +40 (Chromium)"},
		{chrome, "", goSettings, nil, "http2 +40 (Go)"},
		{chrome, "nonsense", "nonsense", []string{"", "nonsense"}, ""},
		{chrome, "", "", []string{"Host", "User-Agent", "Accept-Encoding", "Connection", "Accept"}, "header_order +30 (Connection is not where this browser puts it)"},
		{chrome, "", "", []string{"Host", "Connection", "Accept-Encoding", "Sec-Fetch-Site"}, "header_order +30 (Sec-Fetch-Site stands too late)"},
		{chrome, "", "", []string{"Host", "Connection", "sec-fetch-site"}, "header_order +30 (sec-fetch-site is spelt otherwise)"},
		{chrome, "", "", []string{"Host", "Connection", "Sec-Ch-Ua-Mobile"}, "header_order +30 (sec-ch-ua is spelt otherwise)"},
		{fox, "", "", []string{"Host", "Accept", "User-Agent"}, "header_order +30 (User-Agent is not where this browser puts it)"},
		{fox, "", "", []string{"Host", "User-Agent", "Accept", "Sec-Fetch-Site", "Sec-Fetch-Mode", "Sec-Fetch-Dest"}, "header_order +30 (Sec-Fetch-Mode stands too late)"},
	} {
		f := honest
		f.Now, f.JA4, f.HTTP2, f.HeaderOrder = time.Now(), c.ja4, c.http2, c.order
		r := head(t, "GET / HTTP/1.1\nHost: api.example\nUser-Agent: "+c.agent+"\n"+foxCall)
		if v := newGuard(t, all()).Decide(r, f); v.Decision.Evidence.Got != c.want {
			t.Errorf("%.40s %s %s %v: %q; want %q", c.agent, c.ja4, c.http2, c.order, v.Decision.Evidence.Got, c.want)
		}
	}
}

func TestTheScoreDecides(t *testing.T) {
	curl := head(t, "GET / HTTP/1.1\nHost: api.example\nUser-Agent: curl/8.5.0\nAccept: */*") // 40
	f := honest
	f.Now = time.Now()
	for _, c := range []struct {
		challenge, slow, tarpit, deny int
		action                        Action
		outcome                       guard.Outcome
		reason                        guard.Reason
		harder                        int
	}{
		{0, 0, 0, 0, Allow, guard.Allow, guard.OK, 0},
		{41, 0, 0, 0, Allow, guard.Allow, guard.OK, 0},
		{40, 0, 0, 0, Challenge, guard.Amend, guard.BotSuspected, 2},
		{20, 40, 0, 60, Slow, guard.Amend, guard.BotSuspected, 3},
		{0, 40, 0, 60, Slow, guard.Amend, guard.BotSuspected, 0},
		{20, 30, 40, 0, Tarpit, guard.Deny, guard.BotTarpitted, 3},
		{20, 30, 35, 40, Deny, guard.Deny, guard.BotDenied, 3},
		{20, 30, 40, 35, Tarpit, guard.Deny, guard.BotTarpitted, 3},
		{20, 30, 60, 40, Deny, guard.Deny, guard.BotDenied, 3},
	} {
		g := newGuard(t, Policy{Modes: DefaultModes(), Challenge: c.challenge, Slow: c.slow, Tarpit: c.tarpit, Deny: c.deny})
		v := g.Decide(curl, f)
		if v.Score != 40 || v.Action != c.action || v.Decision.Outcome != c.outcome || v.Decision.Reason != c.reason || v.Harder != c.harder || v.Reported != (guard.Decision{}) {
			t.Errorf("%+v: %+v", c, v)
		}
	}
}

func TestOnlyEnforcedSignalsCount(t *testing.T) {
	lying := head(t, "GET / HTTP/1.1\nHost: api.example\nUser-Agent: "+chrome+"\nAccept: */*") // 40 and 30
	f := honest
	f.Now = time.Now()
	p := Policy{Modes: DefaultModes(), Challenge: 20, Slow: 40, Deny: 60}
	p.Modes[FetchMetadata] = guard.Report
	v := newGuard(t, p).Decide(lying, f)
	if v.Score != 30 || v.Action != Challenge || !strings.HasSuffix(v.Decision.Evidence.Got, "; only reported: fetch_metadata +40 (no Sec-Fetch-*, which this browser always sends)") ||
		v.Reported.Reason != guard.BotDenied || v.Reported.Evidence.Where != "score 70" {
		t.Errorf("%+v", v)
	}
	p.Modes[Headers] = guard.Off
	if v = newGuard(t, p).Decide(lying, f); v.Score != 0 || v.Decision != (guard.Decision{}) || v.Reported.Reason != guard.BotSuspected {
		t.Errorf("%+v", v)
	}
	p.Modes[FetchMetadata] = guard.Off
	if v = newGuard(t, p).Decide(lying, f); v != (Verdict{}) {
		t.Errorf("%+v", v)
	}
}

// Signals and their weights are in configurations, records and documents.
func TestSignalsAreStable(t *testing.T) {
	var b strings.Builder
	for s := range NumSignals {
		fmt.Fprintln(&b, s, s.Weight(), DefaultModes()[s])
	}
	const want = `fetch_metadata 40 enforce
headers 40 enforce
header_order 30 report
ja4 40 report
http2 40 report
behaviour 30 report
reputation 100 enforce
client 60 enforce
`
	if b.String() != want {
		t.Error(b.String())
	}
}

func TestListsGiveTheirPoints(t *testing.T) {
	list, faults := ParseList([]byte("192.0.2.0/24\nAS64500\n"))
	if faults != nil {
		t.Fatal(faults)
	}
	table, faults := ParseASNs([]byte("198.51.100.0\t198.51.100.255\t64500\tDE\tEXAMPLE\n"))
	if faults != nil {
		t.Fatal(faults)
	}
	p := all()
	p.Lists = &Lists{[]ScoredList{{"datacentres", 30, list}, {"abusers", 90, list}}, table}
	g := newGuard(t, p)
	r := head(t, "GET / HTTP/1.1\nHost: api.example\nUser-Agent: "+fox+"\n"+foxCall)
	for addr, want := range map[string]int{"192.0.2.7": 90, "::ffff:192.0.2.7": 90, "198.51.100.7": 90, "203.0.113.7": 0, "2001:db8::1": 0} {
		f := honest
		f.Now, f.Client = time.Now(), netip.MustParseAddr(addr)
		if v := g.Decide(r, f); v.Score != want {
			t.Errorf("%s: %d; want %d", addr, v.Score, want)
		}
	}
	if _, err := New(Policy{Lists: &Lists{Lists: p.Lists.Lists}}, nil); err == nil {
		t.Error("systems without a table of them")
	}
}

func TestRobotsThatProveThemselvesAreNotScored(t *testing.T) {
	s := newSigner(1)
	p := all()
	p.Robots = s.robots(t)
	p.Deny = 1
	g := newGuard(t, p)
	f := honest
	r := toAPI("/")
	r.Header.Set("User-Agent", "curl/8.5.0")
	f.Now = time.Now()
	s.sign(t, r, usual, "AAECAwQFBgcICQ", f.Now, time.Minute)
	if v := g.Decide(r, f); v.Decision.Reason != guard.BotVerified || v.Decision.Denied() || v.Score != 0 {
		t.Errorf("%+v", v)
	}
	if v := g.Decide(r, f); v.Decision.Reason != guard.BotSignatureInvalid || !v.Decision.Denied() { // its nonce was used
		t.Errorf("a replay: %+v", v)
	}
	f.Dry = true
	if v := g.Decide(r, f); v.Decision.Reason != guard.BotDenied { // nobody is asked
		t.Errorf("dry: %+v", v)
	}
}

func TestABrowsersRequestAllocatesNothing(t *testing.T) {
	g := newGuard(t, Policy{Modes: DefaultModes(), Challenge: 20, Slow: 40, Deny: 60})
	for _, c := range capturedRequests(t)[:40] {
		r, f := c.request(t)
		if n := testing.AllocsPerRun(20, func() { g.Decide(r, f) }); n > 0 {
			t.Errorf("%s %s: %v allocations", c.Browser, c.Target, n)
		}
	}
}

func BenchmarkDecide(b *testing.B) {
	g := newGuard(b, Policy{Modes: DefaultModes(), Challenge: 20, Slow: 40, Deny: 60})
	all := capturedRequests(b)
	pick := func(browser, proto string) (*http.Request, Facts) {
		for _, c := range all {
			if c.Browser == browser && c.Proto == proto && c.Scheme == "https" && c.Target == "/post.json" {
				return c.request(b)
			}
		}
		b.Fatal("no such request")
		return nil, Facts{}
	}
	run := func(name string, r *http.Request, f Facts) {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				g.Decide(r, f)
			}
		})
	}
	for _, browser := range []string{"chromium", "firefox"} {
		for _, proto := range []string{"HTTP/1.1", "HTTP/2.0"} {
			r, f := pick(browser, proto)
			run(browser+" "+proto, r, f)
		}
	}
	f := honest
	f.Now = time.Now()
	run("curl", head(b, "GET / HTTP/1.1\nHost: api.example\nUser-Agent: curl/8.5.0\nAccept: */*"), f)
	run("curl as chromium", head(b, "GET / HTTP/1.1\nHost: api.example\nUser-Agent: "+chrome+"\nAccept: */*"), f)
	for _, size := range []int{1 << 10, 32 << 10} { // time in proportion
		r := head(b, "GET / HTTP/1.1\nHost: api.example\nUser-Agent: Mozilla/5.0 ("+strings.Repeat("Mozilla/5.0 (; ", size/15)+"\nAccept: */*")
		run(fmt.Sprintf("a name of %d bytes", size), r, f)
	}
}

func FuzzDecide(f *testing.F) {
	for _, c := range []string{chromeCall, "Host: x\n" + foxCall, "Host: x\nUser-Agent: " + googler, "Host: x\nUser-Agent: Mozilla/5.0 (", "Host: x\nSec-Ch-Ua: \"Chromium\";v=\""} {
		f.Add("GET / HTTP/1.1\r\n"+strings.ReplaceAll(c, "\n", "\r\n")+"\r\n", "t13d1517h2_8daaf6152771_cb7bf5808d99", "|00|0|m,a,s,p", "Host,Connection,Accept", uint16(1))
	}
	g, err := New(all(), nil)
	if err != nil {
		f.Fatal(err)
	}
	most := 0
	for s := range NumSignals {
		most += s.Weight()
	}
	f.Fuzz(func(t *testing.T, text, ja4, http2, order string, signs uint16) {
		r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(text)))
		if err != nil {
			return
		}
		facts := Facts{Now: time.Now(), Client: netip.MustParseAddr("192.0.2.1"), Trustworthy: true, Direct: true, JA4: ja4, HTTP2: http2, HeaderOrder: strings.Split(order, ",")}
		for _, v := range []Verdict{g.Decide(r, facts), g.Client(r, facts, Signs(signs))} {
			if v.Score < 0 || v.Score > most || (v.Score > 0) != (v.Decision.Evidence.Got != "") {
				t.Fatalf("%+v", v)
			}
		}
	})
}

func FuzzClaimOf(f *testing.F) {
	for _, ua := range []string{chrome, fox, iphone, webview, edge, googler, "Mozilla/5.0 () AppleWebKit/537.36 (KHTML, like Gecko) Chrome/99999"} {
		f.Add(ua)
	}
	f.Fuzz(func(t *testing.T, ua string) {
		c := claimOf(ua)
		if c.major < 0 || c.major > 9999 || (c.family >= chromium) != (c.major > 0) {
			t.Errorf("%q: %+v", ua, c)
		}
	})
}
