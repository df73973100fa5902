package challenge_test

import (
	"crypto/sha256"
	"encoding/base64"
	"html"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/moat-gateway/moat/guard"
	"github.com/moat-gateway/moat/guard/challenge"
)

const gate = "/.moat/wait"

func target(t testing.TB, s string) challenge.Target {
	t.Helper()
	to, err := challenge.ParseTarget(s)
	if err != nil {
		t.Fatal(err)
	}
	return to
}

func navigation(header ...string) *http.Request {
	r := httptest.NewRequest(http.MethodGet, "/", http.NoBody)
	for i := 0; i < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
	}
	return r
}

func written(t testing.TB, r *http.Request, p challenge.Pause, to challenge.Target) (body string, h http.Header) {
	t.Helper()
	w := httptest.NewRecorder()
	challenge.WritePage(w, r, gate, p, to)
	if w.Code != http.StatusUnauthorized {
		t.Errorf("status %d", w.Code)
	}
	return w.Body.String(), w.Header()
}

// refreshes finds what the browser will do by itself, and link what the user can.
var (
	refreshes = regexp.MustCompile(`<meta http-equiv="refresh" content="(\d+); url=([^"]*)">`)
	link      = regexp.MustCompile(`<a href="([^"]*)">`)
)

func TestThePageComesBackWithItsTokenAndTarget(t *testing.T) {
	g := open(t, challenge.Policy{}, secret)
	var m memory
	p := g.Wait(facts(noon))
	body, _ := written(t, navigation(), p, target(t, "/a%20b/?q=1&x=%26"))
	refresh, a := refreshes.FindStringSubmatch(body), link.FindStringSubmatch(body)
	if refresh == nil || a == nil || refresh[1] != "1" || refresh[2] != a[1] {
		t.Fatalf("refresh %q, link %q", refresh, a)
	}
	u, err := url.Parse(html.UnescapeString(a[1]))
	if err != nil || u.Path != gate || u.Host != "" {
		t.Fatalf("comes back to %q: %v", u, err)
	}
	token, to := challenge.Return(u)
	if token != p.Token || to.String() != "/a%20b/?q=1&x=%26" {
		t.Errorf("comes back with %q, to %q", token, to)
	}
	_, d := g.Waited(t.Context(), facts(noon.Add(time.Second)), token, m.once)
	want(t, d, guard.ChallengeSolved)
}

func TestThePageHasAStyleSheetAndNothingElse(t *testing.T) {
	body, h := written(t, navigation(), challenge.Pause{}, challenge.Target{})
	_, style, _ := strings.Cut(body, "<style>")
	style, _, _ = strings.Cut(style, "</style>")
	sum := sha256.Sum256([]byte(style))
	want := "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
	if got := h.Get("Content-Security-Policy"); got != want {
		t.Errorf("policy\n%s, want\n%s", got, want)
	}
	for _, no := range []string{"<script", "style=", "src=", "animation", "transition", "http:", "https:"} {
		if strings.Contains(body, no) {
			t.Errorf("the page has %q", no)
		}
	}
	for name, want := range map[string]string{
		"Content-Type": "text/html; charset=utf-8", "Cache-Control": "no-store", "Referrer-Policy": "no-referrer",
		"X-Content-Type-Options": "nosniff", "Content-Language": "en",
	} {
		if got := h.Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}

func TestThePageSpeaksTheVisitorsLanguage(t *testing.T) {
	for _, c := range []struct{ accept, lang string }{
		{"", "en"},
		{"de-CH, de;q=0.9, en;q=0.8", "de"},
		{"en;q=0.1, fr", "fr"},
		{"fr;q=0, es;q=0.5", "es"},
		{"nb, nn;q=0.9, pl;q=0.3", "pl"},
		{"tlh", "en"},
		{"*", "en"},
		{"pt-BR", "pt"},
		{"it-IT", "it"},
		{"nl-BE", "nl"},
		{"ru", "ru"},
		{"ja", "ja"},
		{"zh-TW, zh;q=0.9", "zh"},
		{"zh-Hans-CN", "zh"},
		{"ar-EG, en;q=0.5", "ar"},
		{"de;q=2, <script>", "en"},
		{strings.Repeat("de,", 1000), "en"},
	} {
		body, h := written(t, navigation("Accept-Language", c.accept), challenge.Pause{}, challenge.Target{})
		dir := "ltr"
		if c.lang == "ar" {
			dir = "rtl"
		}
		if !strings.Contains(body, `<html lang="`+c.lang+`" dir="`+dir+`">`) || h.Get("Content-Language") != c.lang {
			t.Errorf("%.40q is told in %q", c.accept, h.Get("Content-Language"))
		}
		if strings.Count(body, "<p") != 3 || strings.Contains(body, "<p></p>") || strings.Contains(body, "<title></title>") {
			t.Errorf("%s: a text is missing:\n%s", c.lang, body)
		}
	}
}

func TestOnlyAPersonsBrowserIsShownThePage(t *testing.T) {
	for _, c := range []struct {
		name   string
		page   bool
		header []string
	}{
		{"a browser", true, []string{"Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "document", "Accept", "*/*"}},
		{"a frame", false, []string{"Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "iframe", "Accept", "text/html"}},
		{"fetch for HTML", false, []string{"Sec-Fetch-Mode", "cors", "Sec-Fetch-Dest", "empty", "Accept", "text/html"}},
		{"half of Fetch Metadata", false, []string{"Sec-Fetch-Mode", "navigate", "Accept", "text/html"}},
		{"two modes", false, []string{"Sec-Fetch-Mode", "navigate", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "document"}},
		{"a prefetch", false, []string{"Sec-Purpose", "prefetch", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "document"}},
		{"a socket", false, []string{"Upgrade", "websocket", "Accept", "text/html"}},
		{"Chromium over http", true, []string{"Accept", "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8,application/signed-exchange;v=b3;q=0.7"}},
		{"Firefox over http", true, []string{"Accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}},
		{"Lynx", true, []string{"Accept", "text/html, text/plain, text/sgml, text/css, application/xhtml+xml, */*;q=0.01"}},
		{"two lines", true, []string{"Accept", "text/html", "Accept", "*/*;q=0.1"}},
		{"nothing said", false, nil},
		{"curl", false, []string{"Accept", "*/*"}},
		{"axios", false, []string{"Accept", "application/json, text/plain, */*"}},
		{"JSON or HTML", false, []string{"Accept", "application/json, text/html"}},
		{"JSON rather", false, []string{"Accept", "text/html;q=0.9, application/vnd.api+json"}},
		{"HTML, but anything rather", false, []string{"Accept", "text/html;q=0.5, */*"}},
		{"HTML rather than JSON", true, []string{"Accept", "text/html, application/json;q=0.9"}},
		{"no HTML", false, []string{"Accept", "text/html;q=0"}},
		{"a broken weight", false, []string{"Accept", "text/html;q=1.5"}},
		{"a broken weight elsewhere", false, []string{"Accept", "text/html, */*;q=0.1234"}},
		{"EventSource", false, []string{"Accept", "text/event-stream, text/html"}},
		{"jQuery", false, []string{"X-Requested-With", "XMLHttpRequest", "Accept", "text/html, */*; q=0.01"}},
		{"endless", false, []string{"Accept", "text/html" + strings.Repeat(",a/b", 1000)}},
	} {
		if got := challenge.WantsPage(navigation(c.header...)); got != c.page {
			t.Errorf("%s: %v", c.name, got)
		}
	}
	r := navigation("Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "document")
	for _, method := range []string{http.MethodHead, http.MethodPost, http.MethodOptions} {
		if r.Method = method; challenge.WantsPage(r) {
			t.Errorf("%s: true", method)
		}
	}
}

func TestATargetIsAPathHere(t *testing.T) {
	for _, s := range []string{"/", "/a", "/a/", "/a/b?c=d&e=[1]", "/?next=//elsewhere.example", "/a?https://elsewhere.example", "/%E2%82%AC", "/a..b", "/@elsewhere.example", "/:80"} {
		if to := target(t, s); to.String() != s {
			t.Errorf("%q becomes %q", s, to)
		}
	}
	for _, s := range []string{
		"", "a", "//evil.example", "///evil.example", "/\\evil.example", "\\\\evil.example", "\\/evil.example", "/a\\b",
		"https://evil.example/", "https:evil.example", "javascript:alert(1)", "data:text/html,x", "?a", "#a", ".", "@evil.example",
		" /", "/ ", "/\t/evil.example", "/\n/evil.example", "/\r\nSet-Cookie: a=b", "/\x00", "/\x7f", "\t//evil.example",
		"/.//evil.example", "/..//evil.example", "/a/..//evil.example", "/a//b", "/a//", "/./", "/..", "/%2e%2e/", "/%2E./b", "/.%2e",
		"/a#b", "/a\"b", "/<a>", "/é", "/\u2028", "/" + strings.Repeat("a", 2048),
	} {
		if to, err := challenge.ParseTarget(s); err == nil || to.String() != "/" {
			t.Errorf("%q is taken for %q", s, to)
		}
		u := &url.URL{Path: gate, RawQuery: url.Values{"to": {s}}.Encode()}
		if _, to := challenge.Return(u); to.String() != "/" {
			t.Errorf("%q leads to %q", s, to)
		}
	}
}

// A browser would stay where it is: read as browsers read it, and as Go does.
func FuzzATargetStaysHere(f *testing.F) {
	for _, s := range []string{"/", "/a?b", "//evil", "/\\evil", "/\t/evil", "/a/..//evil", "https://evil", "/%2e%2e//evil", "/@evil:80", "/?//evil"} {
		f.Add(s)
	}
	strip := strings.NewReplacer("\t", "", "\n", "", "\r", "", "\\", "/")
	f.Fuzz(func(t *testing.T, s string) {
		to, err := challenge.ParseTarget(s)
		if err != nil {
			return
		}
		here, _ := url.Parse("https://here.example/x/y")
		u, err := here.Parse(to.String())
		if err != nil && !strings.Contains(s, "%") { // Go refuses a % that begins nothing; browsers do not
			t.Fatalf("%q: %v", s, err)
		}
		if err == nil && (u.Scheme != "https" || u.Host != "here.example" || u.User != nil) {
			t.Errorf("%q leads to %s", s, u)
		}
		read := strip.Replace(strings.Trim(to.String(), "\x00 "))
		if path, _, _ := strings.Cut(read, "?"); !strings.HasPrefix(path, "/") || strings.Contains(path, "//") {
			t.Errorf("%q is read as %q", s, read)
		}
		// What Go's Redirect makes of it is the same again.
		w := httptest.NewRecorder()
		http.Redirect(w, navigation(), to.String(), http.StatusSeeOther)
		if _, err := challenge.ParseTarget(w.Header().Get("Location")); err != nil {
			t.Errorf("%q is sent as %q: %v", s, w.Header().Get("Location"), err)
		}
	})
}

func TestAWaitIsWaitedFor(t *testing.T) {
	g := open(t, challenge.Policy{}, secret)
	var m memory
	p := g.Wait(facts(noon.Add(time.Millisecond)))
	if p.Left != 1999*time.Millisecond {
		t.Errorf("a quiet visitor waits for %s", p.Left)
	}
	early, d := g.Waited(t.Context(), facts(noon.Add(1500*time.Millisecond)), p.Token, m.once)
	want(t, d, guard.ChallengeRequired)
	if early.Token != p.Token || early.Left != 500*time.Millisecond {
		t.Errorf("who comes early is told %+v", early)
	}
	_, d = g.Waited(t.Context(), facts(noon.Add(2*time.Second)), p.Token, m.once)
	want(t, d, guard.ChallengeSolved)
	again, d := g.Waited(t.Context(), facts(noon.Add(2*time.Second)), p.Token, m.once)
	want(t, d, guard.ChallengeFailed)
	if again.Token == p.Token || again.Left <= 0 {
		t.Errorf("who comes again is told %+v", again)
	}
	late := g.Wait(facts(noon))
	_, d = g.Waited(t.Context(), facts(noon.Add(challenge.Lifetime)), late.Token, m.once)
	want(t, d, guard.ChallengeFailed)
	elsewhere := facts(noon.Add(time.Second))
	elsewhere.Bind[0]++
	_, d = g.Waited(t.Context(), elsewhere, late.Token, m.once)
	want(t, d, guard.ChallengeFailed)
}

func TestAWaitGrowsWithTheWorkOfOthers(t *testing.T) {
	g := open(t, challenge.Policy{QuietAddress: 1, QuietNetwork: 1e6, QuietAll: 1e6}, secret)
	var m memory
	f := facts(noon)
	var last time.Duration
	for range 200 {
		p := g.Wait(f)
		if p.Left < last {
			t.Fatalf("a wait of %s after one of %s", p.Left, last)
		}
		last = p.Left
		g.Count(f)
	}
	if last != 10*time.Second {
		t.Errorf("the longest wait is %s", last)
	}
	f.Score = 2
	quiet := f
	quiet.Client = quiet.Client.Next()
	if p := g.Wait(quiet); p.Left != 5*time.Second {
		t.Errorf("an odd client waits for %s", p.Left)
	}
	// A wait that was short, because all was quiet, is not good in a flood.
	short := open(t, challenge.Policy{}, secret).Wait(facts(noon))
	p, d := g.Waited(t.Context(), facts(noon.Add(time.Second)), short.Token, m.once)
	want(t, d, guard.ChallengeRequired)
	if p.Left < 9*time.Second {
		t.Errorf("who waited too little is told %s", p.Left)
	}
}

// A program can wait a thousand times at once for nothing. That must not make others work.
func TestAFloodOfWaitsIsWaitedForByThoseWhoWait(t *testing.T) {
	g := open(t, challenge.Policy{QuietAddress: 1e6, QuietNetwork: 1e6, QuietAll: 1}, secret)
	var m memory
	waits := func(n int) {
		var tokens []string
		for range n {
			tokens = append(tokens, g.Wait(facts(noon)).Token)
		}
		for _, token := range tokens {
			g.Waited(t.Context(), facts(noon.Add(time.Minute)), token, m.once)
		}
	}
	for range 100 {
		waits(10)
	}
	if p := g.Wait(facts(noon.Add(time.Minute))); p.Left < 5*time.Second {
		t.Errorf("after a flood of waits one waits for %s", p.Left)
	}
	ask, d := g.Decide(t.Context(), facts(noon.Add(time.Minute)), challenge.Answer{}, m.once)
	want(t, d, guard.OK)
	if ask != (challenge.Ask{}) {
		t.Errorf("after a flood of waits others are asked %+v", ask)
	}
}

func TestAWaitIsNoSolutionAndNoSolutionAWait(t *testing.T) {
	g := open(t, busy, secret)
	var m memory
	f := facts(noon.Add(time.Minute))
	p := g.Wait(facts(noon))
	_, d := g.Decide(t.Context(), f, challenge.Answer{Token: p.Token, Solution: strings.Repeat("A", 86)}, m.once)
	want(t, d, guard.ChallengeFailed)
	ask, _ := g.Decide(t.Context(), facts(noon), challenge.Answer{}, m.once)
	_, d = g.Waited(t.Context(), f, ask.Token, m.once)
	want(t, d, guard.ChallengeFailed)
}
