package cookie_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/moat-gateway/moat/guard"
	"github.com/moat-gateway/moat/guard/cookie"
)

// stored is what a browser makes of a Set-Cookie line from https://api.example.com/, or of
// one without TLS: draft-ietf-httpbis-rfc6265bis-20 sections 5.6 and 5.7, step by step, and
// without what depends on time.
type stored struct {
	name, value               string
	expires, maxAge           string // those that count, as they stand there
	domain, path, sameSite    string
	secure, httpOnly          bool
	partitioned, secureOrigin bool
}

var (
	controls = regexp.MustCompile("[\x00-\x08\x0a-\x1f\x7f]")
	digits   = regexp.MustCompile(`^-?[0-9]*$`)
)

func store(line string, secureOrigin bool) (c stored, ok bool) {
	c.secureOrigin = secureOrigin
	if controls.MatchString(line) { // 5.6 step 1
		return c, false
	}
	pair, unparsed, _ := strings.Cut(line, ";")
	if name, value, found := strings.Cut(pair, "="); found {
		c.name, c.value = name, value
	} else {
		c.value = pair
	}
	c.name, c.value = strings.Trim(c.name, " \t"), strings.Trim(c.value, " \t")
	if len(c.name)+len(c.value) > 4096 || c.name == "" && c.value == "" {
		return c, false
	}
	hasPath := false
	for av := range strings.SplitSeq(unparsed, ";") {
		name, value, _ := strings.Cut(av, "=")
		name, value = lower(strings.Trim(name, " \t")), strings.Trim(value, " \t")
		if len(value) > 1024 {
			continue
		}
		switch name {
		case "expires":
			c.expires = value
		case "max-age":
			if value != "" && digits.MatchString(value) {
				c.maxAge = value
			}
		case "domain":
			c.domain = lower(strings.TrimPrefix(value, "."))
		case "path":
			hasPath = true
			if c.path = value; !strings.HasPrefix(value, "/") {
				c.path = "the default path"
			}
		case "secure":
			c.secure = true
		case "httponly":
			c.httpOnly = true
		case "samesite":
			if c.sameSite = lower(value); !slices.Contains([]string{"none", "strict", "lax"}, c.sameSite) {
				c.sameSite = ""
			}
		case "partitioned":
			c.partitioned = true
		}
	}
	name := lower(c.name)
	switch {
	case c.secure && !secureOrigin,
		c.sameSite == "none" && !c.secure,
		c.partitioned && !c.secure,
		strings.HasPrefix(name, "__secure-") && !c.secure,
		strings.HasPrefix(name, "__http-") && (!c.secure || !c.httpOnly),
		strings.HasPrefix(name, "__host-") && (!c.secure || c.domain != "" || !hasPath || c.path != "/"),
		strings.HasPrefix(name, "__host-http-") && !c.httpOnly:
		return c, false
	}
	if value := lower(c.value); c.name == "" {
		for _, p := range []string{"__secure-", "__host-", "__http-", "__host-http-"} {
			if strings.HasPrefix(value, p) {
				return c, false
			}
		}
	}
	return c, true
}

// lower is for ASCII: strings.ToLower makes a k of the Kelvin sign.
func lower(s string) string {
	return strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}, s)
}

var lines = []string{
	"a=b", "a=b; Secure; HttpOnly; SameSite=None", "sid=x; Domain=example.com; Path=/app; Expires=Wed, 21 Oct 2026 07:28:00 GMT",
	"__Host-x=y; Path=/a; Path=/", "sid=; Max-Age=0; Max-Age=x; Max-Age=-1", `sid="a;b"; path`, "=sid=evil", "sid", ";;;", "widget=1; Partitioned; SameSite=None",
	"a=b; \u017fecure; SameSite=\u212aeep; Domain=", "__http-a=b; samesite=lax ;samesite = none", "\tlang = x ; PATH = / ; secure = no", "a=b; Path=/" + strings.Repeat("x", 1024),
	"a=" + strings.Repeat("b", 4095), "session=ü=; Expires=Thu, 01-Jan-70 00:00:00 GMT; Priority=High", "a=b\x00; Secure", "__Secure-=; secure",
}

var policies = []cookie.Policy{
	{},
	{SameSite: cookie.Strict, HTTPOnly: []string{"*"}, HostOnly: true},
	{SameSite: cookie.None, Partitioned: []string{"w*"}, AllowInsecure: true},
	{SameSite: cookie.Keep, HostPrefix: []string{"*"}},
	{HostPrefix: []string{"sid", "a*"}, SecurePrefix: []string{"lang"}, Script: []string{"s*"}},
}

func TestLinesAsBrowsersReadThem(t *testing.T) {
	for _, line := range lines {
		for _, p := range policies {
			agree(t, p, line, true)
			agree(t, p, line, false)
		}
	}
}

// Whatever the line: a browser stores the same cookie, with no fewer restrictions and with
// those of the policy; and a second time nothing changes.
func FuzzResponse(f *testing.F) {
	for i, line := range lines {
		f.Add(line, uint8(i), i%3 > 0)
	}
	f.Fuzz(func(t *testing.T, line string, policy uint8, secure bool) {
		agree(t, policies[int(policy)%len(policies)], line, secure)
	})
}

func agree(t *testing.T, p cookie.Policy, line string, secure bool) {
	t.Helper()
	g := newGuard(t, p)
	got, _ := set(g, secure, line)
	was, kept := store(line, secure)
	if len(got) == 0 {
		// Too long with its prefix is too long.
		if kept && len(was.name)+len(was.value) <= 4096-len("__Secure-") {
			t.Fatalf("%q is dropped, where browsers keep %+v", line, was)
		}
		return
	}
	if again, said := set(g, secure, got[0]); !slices.Equal(again, got) || said != nil {
		t.Fatalf("%q becomes %q, and that %q", line, got[0], again)
	}
	is, keeps := store(got[0], secure)
	if kept && !keeps {
		t.Fatalf("browsers keep %q, and not %q", line, got[0])
	}
	if rest, ok := strings.CutSuffix(is.name, was.name); !ok || rest != "" && (!secure || rest != "__Host-" && rest != "__Secure-") {
		t.Fatalf("%q: %q is called %q", line, was.name, is.name)
	}
	if is.value != was.value || is.expires != was.expires || is.maxAge != was.maxAge || was.secure && !is.secure || was.httpOnly && !is.httpOnly || was.partitioned && !is.partitioned {
		t.Fatalf("%q: of %+v becomes %+v", line, was, is)
	}
	host := strings.HasPrefix(lower(is.name), "__host-")
	if !host && is.path != was.path || !host && !p.HostOnly && is.domain != was.domain || (host || p.HostOnly) && is.domain != "" {
		t.Fatalf("%q: of %+v becomes %+v", line, was, is)
	}
	if !wanted(p.SameSite, was.sameSite, is.sameSite) {
		t.Fatalf("%q: %q", line, got[0])
	}
	if secure && (!p.AllowInsecure && !is.secure || !keeps) {
		t.Fatalf("%q: %q is not safe, or is lost", line, got[0])
	}
	unchanged(t, line, got[0])
}

func wanted(p cookie.SameSite, was, is string) bool {
	switch p {
	case cookie.Keep:
		return is == was
	case cookie.None:
		return is == was && is != "" || is == "lax" && was == ""
	case cookie.Strict:
		return is == "strict"
	case cookie.AtLeastLax:
	}
	return is == "lax" && was != "strict" || is == "strict" && was == "strict"
}

// unchanged holds what net/http reads against what it read before.
func unchanged(t *testing.T, before, after string) {
	t.Helper()
	was, err := http.ParseSetCookie(before)
	is, err2 := http.ParseSetCookie(after)
	if (err == nil) != (err2 == nil) {
		t.Fatalf("%q: %v; %q: %v", before, err, after, err2)
	}
	if err == nil && (!strings.HasSuffix(is.Name, was.Name) || is.Value != was.Value || is.Quoted != was.Quoted || is.RawExpires != was.RawExpires || !is.Expires.Equal(was.Expires) || is.MaxAge != was.MaxAge) {
		t.Fatalf("%q is %+v, %q is %+v", before, was, after, is)
	}
}

// Whatever cookies come: the upstream gets each that is not planted once, in order, and
// none under a name of the gate's own that did not come with its prefix.
func FuzzRequest(f *testing.F) {
	f.Add("a=b; __Host-sid=x; sid=evil;c", true)
	f.Add("__Host-sid; =sid=x; SID=; s%69d=;__Host-__Host-sid=", true)
	f.Add(" ;;__Secure-lang=;\tlang\t=", false)
	g := newGuard(f, cookie.Policy{HostPrefix: []string{"sid"}, SecurePrefix: []string{"lang"}})
	own := map[string]string{"__Host-sid": "sid", "__Secure-lang": "lang"}
	f.Fuzz(func(t *testing.T, line string, secure bool) {
		var want []string
		for pair := range strings.SplitSeq(line, ";") {
			pair = strings.Trim(pair, " \t")
			name, _, _ := strings.Cut(pair, "=")
			name = strings.Trim(name, " \t")
			if bare, ok := own[name]; ok {
				pair = strings.Replace(pair, name, bare, 1)
			} else if secure && (name == "sid" || name == "lang") {
				continue
			}
			want = append(want, pair)
		}
		h := http.Header{"Cookie": {line}}
		d := g.Request(h, secure, guard.Enforce)
		if d.Denied() {
			t.Fatal("refused")
		}
		var got []string
		for _, l := range h["Cookie"] {
			for pair := range strings.SplitSeq(l, ";") {
				got = append(got, strings.Trim(pair, " \t"))
			}
		}
		for i := 0; i < len(want); { // more may have been dropped: what some servers take for such a name
			if i < len(got) && got[i] == want[i] {
				i++
			} else if d.Reason == guard.CookieDropped {
				want = slices.Delete(want, i, i+1)
			} else {
				break
			}
		}
		if !slices.Equal(got, want) {
			t.Fatalf("%q becomes %q", line, h["Cookie"])
		}
	})
}

// A reverse proxy of the standard library with the guard.
func Example() {
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Set-Cookie", "sid=secret; Domain=example.com")
	}))
	defer upstream.Close()
	target, _ := url.Parse(upstream.URL)
	g, err := cookie.New(cookie.Policy{HostPrefix: []string{"sid"}})
	if err != nil {
		panic(err)
	}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			g.Request(r.Out.Header, true, guard.Enforce)
		},
		ModifyResponse: func(r *http.Response) error {
			g.Response(r.Header, true, guard.Enforce, func(d guard.Decision) {
				println(d.Reason.String(), d.Evidence.Got, d.Evidence.Want) // to a log
			})
			return nil
		},
	}
	w := httptest.NewRecorder()
	proxy.ServeHTTP(w, httptest.NewRequest("GET", "https://api.example.com/", nil))
	fmt.Println(w.Header().Get("Set-Cookie"))
	// Output: __Host-sid=secret; Path=/; SameSite=Lax; Secure; HttpOnly
}
