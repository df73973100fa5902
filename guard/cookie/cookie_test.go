package cookie_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/moat-gateway/moat/guard"
	"github.com/moat-gateway/moat/guard/cookie"
)

func newGuard(t testing.TB, p cookie.Policy) *cookie.Guard {
	t.Helper()
	g, err := cookie.New(p)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// set has the guard see an answer that sets cookies, and returns what the browser gets.
func set(g *cookie.Guard, secure bool, lines ...string) (got []string, said []guard.Decision) {
	h := http.Header{"Set-Cookie": slices.Clone(lines)}
	g.Response(h, secure, guard.Enforce, func(d guard.Decision) { said = append(said, d) })
	return h["Set-Cookie"], said
}

const lax = "; SameSite=Lax"

func TestWhatTheBrowserGets(t *testing.T) {
	var (
		zero   cookie.Policy
		strict = cookie.Policy{SameSite: cookie.Strict}
		none   = cookie.Policy{SameSite: cookie.None}
		keep   = cookie.Policy{SameSite: cookie.Keep, AllowInsecure: true, Script: []string{"*"}}
		host   = cookie.Policy{HostPrefix: []string{"sid", "app_*"}, SecurePrefix: []string{"lang"}}
		apart  = cookie.Policy{Partitioned: []string{"widget*"}, SameSite: cookie.None}
		narrow = cookie.Policy{HostOnly: true}
	)
	const plain = false
	tests := []struct {
		name   string
		policy cookie.Policy
		secure bool
		line   string
		want   string // "" if it is dropped
		said   string
	}{
		// SameSite.
		{"says nothing", zero, true, "a=b", "a=b; SameSite=Lax; Secure", "SameSite=Lax, Secure"},
		{"Lax", zero, true, "a=b; samesite=lax; Secure", "a=b; samesite=lax; Secure", ""},
		{"Strict", zero, true, "a=b; SameSite=Strict; Secure", "a=b; SameSite=Strict; Secure", ""},
		{"None", zero, true, "a=b; SameSite=None; Secure", "a=b; Secure; SameSite=Lax", "SameSite=Lax"},
		{"None, spelt oddly", zero, true, "a=b;\tsAmEsItE \t=  nONE\t ;Secure", "a=b;Secure; SameSite=Lax", "SameSite=Lax"},
		{"an unknown value", zero, true, "a=b; SameSite=Relaxed; Secure", "a=b; Secure; SameSite=Lax", "SameSite=Lax"},
		{"a quoted value", zero, true, `a=b; SameSite="Strict"; Secure`, "a=b; Secure; SameSite=Lax", "SameSite=Lax"},
		{"no value", zero, true, "a=b; SameSite; Secure", "a=b; Secure; SameSite=Lax", "SameSite=Lax"},
		{"the last one counts: None", zero, true, "a=b; SameSite=Lax; SameSite=None; Secure", "a=b; Secure; SameSite=Lax", "SameSite=Lax"},
		{"the last one counts: Strict", zero, true, "a=b; SameSite=None; SameSite=Strict; Secure", "a=b; Secure; SameSite=Strict", "SameSite=Strict"},
		{"one too long to count", zero, true, "a=b; SameSite=Lax" + strings.Repeat(" ", 10) + "; Secure; SameSite=" + strings.Repeat("n", 1025), "", "kept"},
		{"strict of Lax", strict, true, "a=b; SameSite=Lax; Secure", "a=b; Secure; SameSite=Strict", "SameSite=Strict"},
		{"strict of none", strict, plain, "a=b", "a=b; SameSite=Strict", "SameSite=Strict"},
		{"the word None", none, true, "a=b; SameSite=None; Secure", "a=b; SameSite=None; Secure", ""},
		{"the word None, nothing said", none, plain, "a=b", "a=b" + lax, "SameSite=Lax"},
		{"None needs Secure", none, plain, "a=b; SameSite=None", "a=b; SameSite=None; Secure", "Secure"},
		{"None made Lax does not", zero, plain, "a=b; SameSite=None", "a=b" + lax, "SameSite=Lax"},
		{"kept", keep, true, "session=b; SameSite=Relaxed", "session=b; SameSite=Relaxed", ""},
		{"kept, but None needs Secure", keep, plain, "a=b; SameSite=None", "a=b; SameSite=None; Secure", "Secure"},

		// Secure.
		{"https", zero, true, "a=b; SameSite=Lax", "a=b; SameSite=Lax; Secure", "Secure"},
		{"http", zero, plain, "a=b; SameSite=Lax", "a=b; SameSite=Lax", ""},
		{"Secure with a value", zero, true, "a=b; SameSite=Lax; secure=false", "a=b; SameSite=Lax; secure=false", ""},
		{"what only looks like Secure", zero, true, "a=b; SameSite=Lax; \u017fecure", "a=b; SameSite=Lax; \u017fecure; Secure", "Secure"},
		{"no Secure wanted", cookie.Policy{AllowInsecure: true}, true, "a=b", "a=b" + lax, "SameSite=Lax"},

		// HttpOnly.
		{"a session", zero, plain, "PHPSESSID=b" + lax, "PHPSESSID=b; SameSite=Lax; HttpOnly", "HttpOnly"},
		{"a session that has it", zero, plain, "connect.sid=b; HTTPONLY" + lax, "connect.sid=b; HTTPONLY; SameSite=Lax", ""},
		{"a session with a prefix", zero, plain, "__Secure-id_token=b; Secure" + lax, "__Secure-id_token=b; Secure; SameSite=Lax; HttpOnly", "HttpOnly"},
		{"a CSRF token", zero, plain, "XSRF-TOKEN=b" + lax, "XSRF-TOKEN=b; SameSite=Lax", ""},
		{"an author", zero, plain, "author=b" + lax, "author=b; SameSite=Lax", ""},
		{"named", cookie.Policy{HTTPOnly: []string{"x*"}}, plain, "xyz=b" + lax, "xyz=b; SameSite=Lax; HttpOnly", "HttpOnly"},
		{"named, case matters", cookie.Policy{HTTPOnly: []string{"x*"}}, plain, "Xyz=b" + lax, "Xyz=b; SameSite=Lax", ""},
		{"named others", cookie.Policy{HTTPOnly: []string{"x"}}, plain, "session=b" + lax, "session=b; SameSite=Lax", ""},
		{"for script", cookie.Policy{Script: []string{"session*"}}, plain, "session_hint=b" + lax, "session_hint=b; SameSite=Lax", ""},

		// Prefixes.
		{"host", host, true, "sid=b; SameSite=Lax; HttpOnly", "__Host-sid=b; SameSite=Lax; HttpOnly; Path=/; Secure", "__Host-, Path=/, Secure"},
		{"host, a pattern", host, true, "app_x=b; SameSite=Lax; Secure; Path=/", "__Host-app_x=b; SameSite=Lax; Secure; Path=/", "__Host-"},
		{"host, narrowed", host, true, "\t sid =b; Domain=example.com; Path=/app; SameSite=Lax; Secure; HttpOnly; path=/x", "\t __Host-sid =b; SameSite=Lax; Secure; HttpOnly; Path=/", "__Host-, no Domain, Path=/"},
		{"host, deleted", host, true, "sid=; Max-Age=0; Path=/; Secure; HttpOnly; SameSite=Lax", "__Host-sid=; Max-Age=0; Path=/; Secure; HttpOnly; SameSite=Lax", "__Host-"},
		{"host, over http", host, plain, "sid=b; HttpOnly" + lax, "sid=b; HttpOnly" + lax, ""},
		{"secure", host, true, "lang=b; Domain=example.com; Path=/x; Secure" + lax, "__Secure-lang=b; Domain=example.com; Path=/x; Secure" + lax, "__Secure-"},
		{"an upstream's own __Host-", zero, true, "__Host-x=b; Domain=example.com" + lax, "__Host-x=b" + lax + "; Path=/; Secure", "no Domain, Path=/, Secure"},
		{"an upstream's own, in another case", zero, plain, "__hOST-x=b; Path=/a" + lax, "__hOST-x=b" + lax + "; Path=/; Secure", "Path=/, Secure"},
		{"an upstream's own __Secure-", keep, plain, "__Secure-x=b", "__Secure-x=b; Secure", "Secure"},
		{"an upstream's own __Host-Http-", keep, true, "__Host-Http-x=b; Path=/", "__Host-Http-x=b; Path=/; Secure; HttpOnly", "Secure, HttpOnly"},
		{"an upstream's own __Http-", keep, true, "__Http-x=b", "__Http-x=b; Secure; HttpOnly", "Secure, HttpOnly"},
		{"no prefix before a prefix", cookie.Policy{HostPrefix: []string{"*"}}, true, "__Secure-x=b; Secure" + lax, "__Secure-x=b; Secure" + lax, ""},

		// Partitioned and Domain.
		{"partitioned", apart, true, "widget1=b; SameSite=None; Secure", "widget1=b; SameSite=None; Secure; Partitioned", "Partitioned"},
		{"partitioned already", apart, true, "widget1=b; SameSite=None; Partitioned", "widget1=b; SameSite=None; Partitioned; Secure", "Secure"},
		{"partitioned, over http", apart, plain, "widget1=b" + lax, "widget1=b" + lax, ""},
		{"partitioned by the upstream", keep, plain, "x=b; Partitioned", "x=b; Partitioned; Secure", "Secure"},
		{"narrowed", narrow, plain, "a=b; DOMAIN=.example.com; Path=/x" + lax, "a=b; Path=/x" + lax, "no Domain"},
		{"narrowed, deleted", narrow, plain, "a=; domain=example.com; Expires=Thu, 01 Jan 1970 00:00:00 GMT" + lax, "a=; Expires=Thu, 01 Jan 1970 00:00:00 GMT" + lax, "no Domain"},

		// What is left as it is.
		{"a date", zero, plain, "a=b; Expires=Wed, 21-Oct-2026 07:28:00 GMT", "a=b; Expires=Wed, 21-Oct-2026 07:28:00 GMT" + lax, "SameSite=Lax"},
		{"an odd date", zero, plain, "a=b;expires=21 Oct 26 07:28,GMT+0100 ;x", "a=b;expires=21 Oct 26 07:28,GMT+0100 ;x" + lax, "SameSite=Lax"},
		{"odd values", zero, plain, `a="b c", ü=d== ,e;  v=1;; Priority=High;`, `a="b c", ü=d== ,e;  v=1;; Priority=High;` + lax, "SameSite=Lax"},
		{"a semicolon in quotes ends it all the same", zero, plain, `a="b;SameSite=Strict"`, `a="b` + lax, "SameSite=Lax"},
		{"no name", zero, plain, "just a value", "just a value" + lax, "SameSite=Lax"},
		{"an empty name", zero, plain, "=a session=", "=a session=" + lax, "SameSite=Lax"},
		{"an empty value", zero, plain, "a=" + lax, "a=" + lax, ""},
		{"a tab", zero, plain, "a=b\tc" + lax, "a=b\tc" + lax, ""},

		// What is dropped.
		{"nothing", zero, true, "; Path=/", "", "a name or a value"},
		{"nothing at all", zero, true, "", "", "a name or a value"},
		{"no name and a prefix", zero, true, "=__Host-sid=x", "", "a name"},
		{"no name and a prefix, without =", zero, true, "__secure-sid", "", "a name"},
		{"a control character", zero, true, "a=b\x01", "", "no control characters"},
		{"a control character in an attribute", zero, true, "a=b; Path=/\x7f", "", "no control characters"},
		{"as large as can be", zero, plain, "a=" + strings.Repeat("b", 4095) + lax, "a=" + strings.Repeat("b", 4095) + lax, ""},
		{"too large", zero, plain, "a=" + strings.Repeat("b", 4096) + lax, "", "at most 4096 bytes"},
		{"too large with its prefix", host, true, "sid=" + strings.Repeat("b", 4090) + lax, "", "at most 4096 bytes"},
		{"too large for the policy", cookie.Policy{MaxBytes: 10}, plain, "a=0123456789", "", "at most 10 bytes"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if test.said == "kept" { // what is ignored stays as it is
				test.want, test.said = test.line, ""
			}
			g := newGuard(t, test.policy)
			got, said := set(g, test.secure, test.line)
			if strings.Join(got, "\n") != test.want {
				t.Errorf("%q, want %q", got, test.want)
			}
			checkSaid(t, said, test.line, test.want, test.said)
			if again, more := set(g, test.secure, got...); !slices.Equal(again, got) || more != nil {
				t.Errorf("the second time it is %q", again)
			}
			// Reporting tells the same, and changes nothing.
			h := http.Header{"Set-Cookie": {test.line}}
			var told []guard.Decision
			g.Response(h, test.secure, guard.Report, func(d guard.Decision) { told = append(told, d) })
			if !slices.Equal(told, said) || h["Set-Cookie"][0] != test.line {
				t.Errorf("%q; told %+v, want %+v", h["Set-Cookie"], told, said)
			}
		})
	}
}

func checkSaid(t *testing.T, said []guard.Decision, line, want, reasons string) {
	t.Helper()
	if reasons == "" {
		if said != nil {
			t.Errorf("%+v", said)
		}
		return
	}
	reason := guard.CookieHardened
	if want == "" {
		reason = guard.CookieDropped
	}
	name, _, ok := strings.Cut(strings.Split(line, ";")[0], "=")
	if name = strings.Trim(name, " \t"); !ok {
		name = ""
	}
	e := guard.Evidence{Where: "Set-Cookie", Got: name, Want: reasons}
	if len(said) != 1 || said[0] != (guard.Decision{Outcome: guard.Amend, Reason: reason, Evidence: e}) {
		t.Errorf("%+v, want %s %+v", said, reason, e)
	}
}

func TestSeveralLinesKeepTheirOrder(t *testing.T) {
	g := newGuard(t, cookie.Policy{MaxCookies: 2})
	got, said := set(g, false, "a=1", "\x00=", "b=2"+lax, "c=3", "d=4")
	if want := []string{"a=1" + lax, "b=2" + lax}; !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	names := ""
	for _, d := range said {
		names += d.Evidence.Got + ": " + d.Reason.String() + "\n"
	}
	if want := "a: cookie-hardened\n\x00: cookie-dropped\nc: cookie-dropped\nd: cookie-dropped\n"; names != want {
		t.Errorf("%q", names)
	}
	h := http.Header{"Set-Cookie": {""}}
	if g.Response(h, true, guard.Enforce, func(guard.Decision) {}); len(h) != 0 {
		t.Errorf("%v", h)
	}
}

func TestWhatTheUpstreamGets(t *testing.T) {
	g := newGuard(t, cookie.Policy{HostPrefix: []string{"sid", "app_*"}, SecurePrefix: []string{"lang"}})
	tests := []struct {
		name    string
		secure  bool
		lines   []string
		want    []string
		dropped string
	}{
		{"its own name", true, []string{"a=b; __Host-sid=x=y; c=d"}, []string{"a=b; sid=x=y; c=d"}, ""},
		{"all of them", true, []string{"__Host-sid=x;__Secure-lang=de;  __Host-app_1=2"}, []string{"sid=x;lang=de;  app_1=2"}, ""},
		{"several lines", true, []string{"a=b", "__Host-sid=x"}, []string{"a=b", "sid=x"}, ""},
		{"nothing to do", true, []string{`a="b c" ;; ü=d; e`}, []string{`a="b c" ;; ü=d; e`}, ""},
		{"planted beside it", true, []string{"sid=evil; __Host-sid=x"}, []string{"sid=x"}, "sid"},
		{"planted alone", true, []string{"sid=evil"}, nil, "sid"},
		{"planted in a line of its own", true, []string{"a=b", "sid=evil"}, []string{"a=b"}, "sid"},
		{"planted by a pattern", true, []string{"a=b; app_2=evil"}, []string{"a=b"}, "app_2"},
		{"planted without a value", true, []string{"sid; a=b"}, []string{"a=b"}, "sid"},
		{"planted for who ignores case", true, []string{"SID=evil; a=b"}, []string{"a=b"}, "SID"},
		{"planted for who decodes", true, []string{"s%69d=evil; a=b"}, []string{"a=b"}, "s%69d"},
		{"planted for PHP", true, []string{"app.2=evil; sid[]=evil; %20sid=evil; a=b"}, []string{"a=b"}, "app.2"},
		{"__Host- that is not mapped", true, []string{"__Host-other=x"}, []string{"__Host-other=x"}, ""},
		{"the other prefix", true, []string{"__Secure-sid=evil; __Host-lang=x"}, []string{"__Secure-sid=evil; __Host-lang=x"}, ""},
		{"a prefix in another case", true, []string{"__HOST-sid=evil"}, []string{"__HOST-sid=evil"}, ""},
		{"others that look alike", true, []string{"sid2=a; mysid=b; s-id=c"}, []string{"sid2=a; mysid=b; s-id=c"}, ""},
		{"over http it has no prefix", false, []string{"sid=x; a=b"}, []string{"sid=x; a=b"}, ""},
		{"a long name", true, []string{"app_" + strings.Repeat("x", 100) + "=evil"}, nil, "app_" + strings.Repeat("x", 100)},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			report := http.Header{"Cookie": slices.Clone(test.lines)}
			told := g.Request(report, test.secure, guard.Report)
			h := http.Header{"Cookie": slices.Clone(test.lines)}
			d := g.Request(h, test.secure, guard.Enforce)
			if !slices.Equal(h["Cookie"], test.want) || len(h) != min(1, len(test.want)) {
				t.Errorf("%q, want %q", h, test.want)
			}
			if (d.Reason == guard.CookieDropped) != (test.dropped != "") || d.Evidence.Got != test.dropped || d.Denied() {
				t.Errorf("%+v, want %q dropped", d, test.dropped)
			}
			if told != d || !slices.Equal(report["Cookie"], test.lines) {
				t.Errorf("reported %+v, %q", told, report["Cookie"])
			}
		})
	}
	all := newGuard(t, cookie.Policy{HostPrefix: []string{"*"}})
	h := http.Header{"Cookie": {"__Secure-own=x; __Host-sid=y; planted=z"}}
	if all.Request(h, true, guard.Enforce); h.Get("Cookie") != "__Secure-own=x; sid=y" {
		t.Errorf("with a prefix for all: %v", h)
	}
	if h := (http.Header{"Cookie": {"__Host-sid=x; sid=y"}}); newGuard(t, cookie.Policy{}).Request(h, true, guard.Enforce) != (guard.Decision{}) || h.Get("Cookie") != "__Host-sid=x; sid=y" {
		t.Errorf("without prefixes: %v", h)
	}
}

// What is set with a prefix comes back under its own name, and is deleted by its own name.
func TestThereAndBack(t *testing.T) {
	g := newGuard(t, cookie.Policy{HostPrefix: []string{"sid"}})
	got, _ := set(g, true, "sid=x; Path=/app; Domain=example.com; Max-Age=60")
	made, err := http.ParseSetCookie(got[0])
	if err != nil {
		t.Fatal(err)
	}
	got, _ = set(g, true, "sid=; Path=/app; Domain=example.com; Max-Age=0; Expires=Thu, 01 Jan 1970 00:00:00 GMT")
	deleted, err := http.ParseSetCookie(got[0])
	if err != nil {
		t.Fatal(err)
	}
	// A browser tells cookies apart by these (RFC 6265bis section 5.7).
	if made.Name != deleted.Name || made.Path != deleted.Path || made.Domain != deleted.Domain || deleted.MaxAge >= 0 {
		t.Errorf("%+v is not deleted by %+v", made, deleted)
	}
	h := http.Header{"Cookie": {made.Name + "=" + made.Value}}
	if g.Request(h, true, guard.Enforce); h.Get("Cookie") != "sid=x" {
		t.Errorf("%v", h)
	}
}

func TestFaultsOfAPolicy(t *testing.T) {
	for want, p := range map[string]cookie.Policy{
		`http_only: "a b"`:    {HTTPOnly: []string{"a b"}},
		`script: ""`:          {Script: []string{""}},
		`host_prefix: "a=b"`:  {HostPrefix: []string{"a=b"}},
		`"__Host-x" has one`:  {HostPrefix: []string{"__Host-x"}},
		`"__secure-x" has`:    {SecurePrefix: []string{"__secure-x"}},
		`partitioned: "a*b*"`: {Partitioned: []string{"a;b*"}},
		"same_site: 4":        {SameSite: 4},
		"max_bytes 5000":      {MaxBytes: 5000},
		"max_cookies -1":      {MaxCookies: -1},
	} {
		want = strings.Replace(want, "a*b*", "a;b*", 1)
		if _, err := cookie.New(p); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

func TestMostRequestsCostNothing(t *testing.T) {
	g := newGuard(t, cookie.Policy{HostPrefix: []string{"sid"}})
	answer := http.Header{"Content-Type": {"text/html"}}
	good := http.Header{"Set-Cookie": {"a=b; Path=/; Secure; SameSite=Lax"}}
	request := http.Header{"Cookie": {"theme=dark; lang=en; _ga=GA1.1.123456789.1234567890"}}
	report := func(guard.Decision) { t.Error("reported") }
	for name, f := range map[string]func(){
		"no cookie is set": func() { g.Response(answer, true, guard.Enforce, report) },
		"a good one is":    func() { g.Response(good, true, guard.Enforce, report) },
		"others come":      func() { g.Request(request, true, guard.Enforce) },
	} {
		if n := testing.AllocsPerRun(100, f); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

func BenchmarkResponse(b *testing.B) {
	g := newGuard(b, cookie.Policy{HostPrefix: []string{"sid"}})
	for name, line := range map[string]string{
		"good": "a=b; Path=/; Expires=Wed, 21 Oct 2026 07:28:00 GMT; Secure; HttpOnly; SameSite=Lax", "hardened": "sid=b; Path=/app; Expires=Wed, 21 Oct 2026 07:28:00 GMT",
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			h := http.Header{"Set-Cookie": {line}}
			for b.Loop() {
				h["Set-Cookie"][0] = line
				g.Response(h, true, guard.Enforce, func(guard.Decision) {})
			}
		})
	}
}

func BenchmarkRequest(b *testing.B) {
	g := newGuard(b, cookie.Policy{HostPrefix: []string{"sid"}})
	for name, line := range map[string]string{"others": "theme=dark; lang=en; _ga=GA1.1.123456789.1234567890", "mapped": "theme=dark; __Host-sid=0123456789abcdef"} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			h := http.Header{"Cookie": {line}}
			for b.Loop() {
				h["Cookie"] = append(h["Cookie"][:0], line)
				g.Request(h, true, guard.Enforce)
			}
		})
	}
}
