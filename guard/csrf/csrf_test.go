package csrf_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"io"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/moat-gateway/moat/guard"
	"github.com/moat-gateway/moat/guard/csrf"
)

var (
	start  = time.Date(2026, 11, 21, 12, 0, 30, 0, time.UTC)
	secret = bytes.Repeat([]byte{7}, 32)
)

const id = csrf.DefaultCookie + "-id"

// newGuard is that of a site where every cookie travels from everywhere, as with
// SameSite=None: nothing but the token stands between a stranger's page and the handler.
func newGuard(t testing.TB, change func(*csrf.Policy)) *csrf.Guard {
	t.Helper()
	p := csrf.Policy{Secrets: [][]byte{secret}, SessionCookies: []string{"session", "__Host-moat"}, AllowThirdParty: true}
	if change != nil {
		change(&p)
	}
	g, err := csrf.New(p)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// cookies of a browser for this site, in order.
type cookies []string

// visit has a browser with those cookies get a token, and returns the cookies that it has then.
func visit(t testing.TB, g *csrf.Guard, now time.Time, jar ...string) (token string, after cookies) {
	t.Helper()
	r := httptest.NewRequest("GET", "/.moat/csrf", nil)
	cookies(jar).addTo(r)
	w := httptest.NewRecorder()
	g.Issue(w, r, now)
	var answer struct {
		Token, Header, Field string
		Expires              int `json:"expires_in"`
	}
	if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil {
		t.Fatal(err)
	}
	if answer.Header == "" || answer.Field == "" || answer.Expires <= 0 {
		t.Errorf("%+v", answer)
	}
	for _, c := range w.Result().Cookies() {
		jar = append(jar, c.Name+"="+c.Value)
	}
	return answer.Token, jar
}

func (c cookies) addTo(r *http.Request) {
	if len(c) > 0 {
		r.Header.Set("Cookie", strings.Join(c, "; "))
	}
}

func (c cookies) without(name string) (rest cookies) {
	for _, pair := range c {
		if !strings.HasPrefix(pair, name+"=") {
			rest = append(rest, pair)
		}
	}
	return rest
}

type body struct{ mime, text string }

func urlencoded(pairs ...string) body {
	v := url.Values{}
	for i := 0; i < len(pairs); i += 2 {
		v.Add(pairs[i], pairs[i+1])
	}
	return body{"application/x-www-form-urlencoded", v.Encode()}
}

func parts(pairs ...string) body {
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	for i := 0; i < len(pairs); i += 2 {
		w.WriteField(pairs[i], pairs[i+1])
	}
	w.Close()
	return body{w.FormDataContentType(), b.String()}
}

func request(method string, b body, jar cookies, headers ...string) *http.Request {
	r := httptest.NewRequest(method, "/transfer", strings.NewReader(b.text))
	if b.mime != "" {
		r.Header.Set("Content-Type", b.mime)
	}
	jar.addTo(r)
	for i := 0; i < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	return r
}

const field = csrf.DefaultField

func TestTheTokenOfThisSessionLetsThrough(t *testing.T) {
	g := newGuard(t, nil)
	token, jar := visit(t, g, start, "session=alice")
	fresh, visitor := visit(t, g, start)
	login := csrf.Facts{Require: true}
	tests := map[string]struct {
		r    *http.Request
		f    csrf.Facts
		want guard.Reason
	}{
		"the header":                        {request("POST", body{}, jar, "X-CSRF-Token", token), csrf.Facts{}, guard.CSRFTokenValid},
		"DELETE":                            {request("DELETE", body{}, jar, "X-CSRF-Token", token), csrf.Facts{}, guard.CSRFTokenValid},
		"the cookie's, put into the header": {request("PUT", body{"application/json", "{}"}, jar, "X-CSRF-Token", jar.value(csrf.DefaultCookie)), csrf.Facts{}, guard.CSRFTokenValid},
		"a form":                            {request("POST", urlencoded("a", "b", field, token), jar), csrf.Facts{}, guard.CSRFTokenValid},
		"a multipart form":                  {request("POST", parts("a", "b", field, token), jar), csrf.Facts{}, guard.CSRFTokenValid},
		"the header, beside a form's":       {request("POST", urlencoded(field, "stale"), jar, "X-CSRF-Token", token), csrf.Facts{}, guard.CSRFTokenValid},
		"a session with a prefix":           {request("POST", body{}, cookies{"__Host-session=alice", jar.pair(id)}, "X-CSRF-Token", token), csrf.Facts{}, guard.CSRFTokenValid},
		"signing in":                        {request("POST", urlencoded("user", "alice", field, fresh), visitor), login, guard.CSRFTokenValid},
		"a GET that changes state":          {request("GET", body{}, jar, "X-CSRF-Token", token), csrf.Facts{SideEffects: true}, guard.CSRFTokenValid},
		"a GET":                             {request("GET", body{}, jar), csrf.Facts{Ambient: true, Require: true}, guard.OK},
		"a HEAD":                            {request("HEAD", body{}, jar), csrf.Facts{Ambient: true}, guard.OK},
		"a caller with a token of its own":  {request("POST", body{}, jar), csrf.Facts{Explicit: true, SideEffects: true}, guard.OK},
		"no session":                        {request("POST", body{}, cookies{"theme=dark", jar.pair(id)}), csrf.Facts{}, guard.OK},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) { decide(t, g, test.r, test.f, test.want) })
	}
}

func (c cookies) value(name string) string {
	_, v, _ := strings.Cut(c.pair(name), "=")
	return v
}

func (c cookies) pair(name string) string {
	for _, pair := range c {
		if strings.HasPrefix(pair, name+"=") {
			return pair
		}
	}
	return ""
}

func decide(t *testing.T, g *csrf.Guard, r *http.Request, f csrf.Facts, want guard.Reason) {
	t.Helper()
	if f.Now.IsZero() {
		f.Now = start
	}
	d := g.Decide(r, f)
	if d.Reason != want || d.Denied() != (want.Status() != 0) {
		t.Errorf("%s %s %+v, want %s", d.Outcome, d.Reason, d.Evidence, want)
	}
	if e := d.Evidence; strings.Contains(e.Got+e.Want+e.Where, "alice") {
		t.Errorf("the evidence tells: %+v", e)
	}
}

// What a stranger's page can make a browser send, with every cookie that the browser has, and
// with a token that the stranger has got for himself. The cross-site guard is off.
func TestNoStrangersPageGetsThrough(t *testing.T) {
	g := newGuard(t, nil)
	_, victim := visit(t, g, start, "session=alice")
	_, visitor := visit(t, g, start)
	theirs, mallory := visit(t, g, start, "session=mallory")
	anonymous, _ := visit(t, g, start)
	const stranger, sibling = "https://evil.test", "https://blog.example.com"
	missing, invalid := guard.CSRFTokenMissing, guard.CSRFTokenInvalid
	login := csrf.Facts{Require: true}
	tests := map[string]struct {
		r    *http.Request
		f    csrf.Facts
		want guard.Reason
	}{
		"form POST":                       {request("POST", urlencoded("to", "mallory"), victim, "Origin", stranger), csrf.Facts{}, missing},
		"form POST with his own token":    {request("POST", urlencoded("to", "mallory", field, theirs), victim, "Origin", stranger), csrf.Facts{}, invalid},
		"form POST without a type":        {request("POST", body{"", "csrf_token=" + theirs}, victim, "Origin", stranger), csrf.Facts{}, missing},
		"text/plain JSON":                 {request("POST", body{"text/plain", `{"to":"mallory","csrf_token":"` + theirs + `"}`}, victim, "Origin", stranger), csrf.Facts{}, missing},
		"a text/plain form":               {request("POST", body{"text/plain", "csrf_token=" + theirs + "\r\n"}, victim, "Origin", stranger), csrf.Facts{}, missing},
		"multipart":                       {request("POST", parts("to", "mallory"), victim, "Origin", stranger), csrf.Facts{}, missing},
		"multipart with his own token":    {request("POST", parts("to", "mallory", field, theirs), victim, "Origin", stranger), csrf.Facts{}, invalid},
		"sendBeacon":                      {request("POST", body{"text/plain;charset=UTF-8", "to=mallory"}, victim, "Origin", stranger), csrf.Facts{}, missing},
		"sendBeacon of a form":            {request("POST", body{"application/x-www-form-urlencoded;charset=UTF-8", "to=mallory&csrf_token=" + theirs}, victim, "Origin", stranger), csrf.Facts{}, invalid},
		"a sandboxed frame":               {request("POST", urlencoded("to", "mallory"), victim, "Origin", "null"), csrf.Facts{}, missing},
		"a sandboxed frame, his token":    {request("POST", urlencoded(field, theirs), victim, "Origin", "null"), csrf.Facts{}, invalid},
		"no Origin at all":                {request("POST", urlencoded("to", "mallory"), victim), csrf.Facts{}, missing},
		"the token in the query":          {requestTo("POST", "/transfer?csrf_token="+theirs, victim), csrf.Facts{}, missing},
		"a session that the gate knows":   {request("POST", urlencoded("to", "mallory"), cookies{"other=alice"}), csrf.Facts{Ambient: true}, missing},
		"the cookie alone":                {request("POST", body{}, victim), csrf.Facts{}, missing},
		"the cookie, and an empty header": {request("POST", body{}, victim, "X-CSRF-Token", ""), csrf.Facts{}, missing},

		// A sibling subdomain sets cookies of its parent domain; those with the prefix it cannot.
		"a sibling":                                     {request("POST", urlencoded("to", "mallory", field, theirs), victim, "Origin", sibling), csrf.Facts{}, invalid},
		"a sibling plants the token's cookie":           {request("POST", urlencoded(field, theirs), append(cookies{"moat-csrf=" + theirs, "csrf_token=" + theirs}, victim...), "Origin", sibling), csrf.Facts{}, invalid},
		"a sibling plants even the readable cookie":     {request("POST", urlencoded(field, theirs), append(cookies{csrf.DefaultCookie + "=" + theirs}, victim.without(csrf.DefaultCookie)...), "Origin", sibling), csrf.Facts{}, invalid},
		"a sibling plants his session":                  {request("POST", urlencoded(field, theirs), append(cookies{"session=mallory"}, victim...), "Origin", sibling), csrf.Facts{}, invalid},
		"a sibling plants his session alone":            {request("POST", urlencoded(field, theirs), append(cookies{"session=mallory"}, visitor...), "Origin", sibling), csrf.Facts{}, invalid},
		"a sibling plants an id of another case":        {request("POST", urlencoded(field, theirs), append(cookies{strings.ToLower(mallory.pair(id)), "session=mallory"}, visitor...), "Origin", sibling), csrf.Facts{}, invalid},
		"a sibling could plant a second id":             {request("POST", urlencoded(field, theirs), append(cookies{mallory.pair(id), "session=mallory"}, visitor...), "Origin", sibling), csrf.Facts{}, invalid},
		"a sibling plants his session in a new browser": {request("POST", urlencoded(field, theirs), cookies{"session=mallory"}, "Origin", sibling), csrf.Facts{}, invalid},

		// Whatever the upstream takes the method for.
		"method override":                     {request("GET", body{}, victim, "X-HTTP-Method-Override", "DELETE"), csrf.Facts{}, missing},
		"method override in another spelling": {request("GET", body{}, victim, "x_http_method", "POST"), csrf.Facts{}, missing},
		"a form that says it is a GET":        {request("POST", urlencoded("_method", "GET", "to", "mallory"), victim), csrf.Facts{}, missing},
		"a method in lower case":              {request("get", body{}, victim), csrf.Facts{}, missing},
		"an unknown method":                   {request("PURGE", body{}, victim), csrf.Facts{}, missing},
		"a GET that changes state":            {request("GET", body{}, victim), csrf.Facts{SideEffects: true}, missing},

		// The stranger signs the user in as himself.
		"login":                                {request("POST", urlencoded("user", "mallory"), visitor, "Origin", stranger), login, missing},
		"login with his own token":             {request("POST", urlencoded("user", "mallory", field, anonymous), visitor, "Origin", stranger), login, invalid},
		"login in a new browser":               {request("POST", urlencoded("user", "mallory", field, anonymous), nil, "Origin", stranger), login, invalid},
		"login, and a sibling planted session": {request("POST", urlencoded("user", "mallory", field, theirs), append(cookies{"session=mallory"}, visitor...), "Origin", sibling), login, invalid},

		"the header twice": {request("POST", body{}, victim, "X-CSRF-Token", theirs, "X-CSRF-Token", theirs), csrf.Facts{}, invalid},
		"the field twice":  {request("POST", urlencoded(field, theirs, field, theirs), victim), csrf.Facts{}, invalid},
		"the part twice":   {request("POST", parts(field, theirs, field, theirs), victim), csrf.Facts{}, invalid},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) { decide(t, g, test.r, test.f, test.want) })
	}
}

func requestTo(method, target string, jar cookies) *http.Request {
	r := httptest.NewRequest(method, target, nil)
	jar.addTo(r)
	return r
}

// Even those who hold a valid token send it once.
func TestATokenIsSentOnce(t *testing.T) {
	g := newGuard(t, nil)
	token, jar := visit(t, g, start, "session=alice")
	for name, r := range map[string]*http.Request{
		"headers": request("POST", body{}, jar, "X-CSRF-Token", token, "X-CSRF-Token", token),
		"fields":  request("POST", urlencoded(field, token, field, token), jar),
		"parts":   request("POST", parts(field, token, field, token), jar),
		"a list":  request("POST", body{}, jar, "X-CSRF-Token", token+", "+token),
	} {
		t.Run(name, func(t *testing.T) { decide(t, g, r, csrf.Facts{}, guard.CSRFTokenInvalid) })
	}
}

func TestATokenIsOfOneSession(t *testing.T) {
	g := newGuard(t, nil)
	before, jar := visit(t, g, start)
	with := func(token string, c ...string) *http.Request {
		return request("POST", body{}, append(c, jar.pair(id)), "X-CSRF-Token", token)
	}
	decide(t, g, with(before, "session=alice"), csrf.Facts{}, guard.CSRFTokenInvalid) // signed in since
	after, _ := visit(t, g, start, "session=alice", jar.pair(id))
	decide(t, g, with(after, "session=alice"), csrf.Facts{}, guard.CSRFTokenValid)
	decide(t, g, with(after, "session=bob"), csrf.Facts{}, guard.CSRFTokenInvalid)
	decide(t, g, with(after), csrf.Facts{Require: true}, guard.CSRFTokenInvalid) // signed out
	decide(t, g, with(after, "session=alic", "e=session"), csrf.Facts{}, guard.CSRFTokenInvalid)
	decide(t, g, with(after, "theme=dark", "session=alice"), csrf.Facts{}, guard.CSRFTokenValid)
	decide(t, g, with(after, "session=alice", "__Host-moat=x"), csrf.Facts{}, guard.CSRFTokenInvalid)

	rolling := newGuard(t, func(p *csrf.Policy) { p.Rolling = []string{"session"} })
	token, _ := visit(t, rolling, start, "session=1", jar.pair(id))
	decide(t, rolling, with(token, "session=2"), csrf.Facts{}, guard.CSRFTokenValid)
	decide(t, rolling, with(token, "__Host-session=3"), csrf.Facts{}, guard.CSRFTokenValid)
	decide(t, rolling, with(token, "__Host-moat=x"), csrf.Facts{}, guard.CSRFTokenInvalid)
	decide(t, rolling, request("POST", body{}, cookies{"session=2"}, "X-CSRF-Token", token), csrf.Facts{}, guard.CSRFTokenInvalid)
}

func TestATokenLivesForItsLifetime(t *testing.T) {
	g := newGuard(t, nil)
	token, jar := visit(t, g, start, "session=alice")
	for after, want := range map[time.Duration]guard.Reason{
		0:                             guard.CSRFTokenValid,
		csrf.DefaultLifetime:          guard.CSRFTokenValid,
		csrf.DefaultLifetime + 1*60e9: guard.CSRFTokenExpired,
		-time.Minute:                  guard.CSRFTokenValid, // another process's clock
		-2 * time.Minute:              guard.CSRFTokenInvalid,
	} {
		decide(t, g, request("POST", body{}, jar, "X-CSRF-Token", token), csrf.Facts{Now: start.Add(after)}, want)
	}
}

func TestASecretCanBeRotated(t *testing.T) {
	old := newGuard(t, nil)
	rotated := newGuard(t, func(p *csrf.Policy) { p.Secrets = [][]byte{bytes.Repeat([]byte{8}, 32), secret} })
	gone := newGuard(t, func(p *csrf.Policy) { p.Secrets = [][]byte{bytes.Repeat([]byte{8}, 32)} })
	token, jar := visit(t, old, start, "session=alice")
	decide(t, rotated, request("POST", body{}, jar, "X-CSRF-Token", token), csrf.Facts{}, guard.CSRFTokenValid)
	decide(t, gone, request("POST", body{}, jar, "X-CSRF-Token", token), csrf.Facts{}, guard.CSRFTokenInvalid)
	token, _ = visit(t, rotated, start, jar...)
	decide(t, gone, request("POST", body{}, jar, "X-CSRF-Token", token), csrf.Facts{}, guard.CSRFTokenValid)
}

func TestNoBitOfATokenCanBeFlipped(t *testing.T) {
	g := newGuard(t, nil)
	token, jar := visit(t, g, start, "session=alice")
	raw, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil {
		t.Fatal(err)
	}
	for bit := range len(raw) * 8 {
		raw[bit/8] ^= 1 << (bit % 8)
		decide(t, g, request("POST", body{}, jar, "X-CSRF-Token", base64.RawURLEncoding.EncodeToString(raw)), csrf.Facts{}, guard.CSRFTokenInvalid)
		raw[bit/8] ^= 1 << (bit % 8)
	}
	for _, text := range []string{token[:55], token + "A", token[:28] + "\n" + token[29:], token[:54] + "\r\n", strings.Repeat("A", 56), strings.Repeat("é", 28)} {
		decide(t, g, request("POST", urlencoded(field, text), jar), csrf.Facts{}, guard.CSRFTokenInvalid)
	}
}

// Only what is the same token under another mask is accepted.
func FuzzVerify(f *testing.F) {
	g := newGuard(f, nil)
	token, jar := visit(f, g, start, "session=alice")
	f.Add(token)
	f.Add(strings.Repeat("A", 56))
	f.Add(token[:55] + "B")
	want := unmask(f, token)
	f.Fuzz(func(t *testing.T, text string) {
		r := &http.Request{Method: "POST", Header: http.Header{"Cookie": {strings.Join(jar, "; ")}, "X-Csrf-Token": {text}}}
		if d := g.Decide(r, csrf.Facts{Now: start}); !d.Denied() && unmask(t, text) != want {
			t.Fatalf("%q is accepted", text)
		}
	})
}

// A token of one request is good for another only if both have the same session's cookies,
// in the same order, whatever stands around them.
func FuzzBinding(f *testing.F) {
	f.Add("session=a; session=b", "session=a;session=b")
	f.Add("session=a=session=b", "x; session=a; session=b")
	f.Add("session", "__Host-moat=; session=")
	f.Add("__Secure-session=a;__Host-moat=b", "session=a; moat=b")
	f.Add("__Host-__Host-moat=a", "__Host-moat=a")
	f.Add("__Host-__Host-moat", "x")
	g := newGuard(f, nil)
	const own = id + "=0123456789012345678901; "
	f.Fuzz(func(t *testing.T, a, b string) {
		if strings.Contains(a+b, id) {
			return // a second id is none
		}
		r := &http.Request{Method: "POST", Header: http.Header{"Cookie": {own + a}}}
		token := g.Token(r, start)
		r.Header = http.Header{"Cookie": {own + b}, "X-Csrf-Token": {token}}
		d := g.Decide(r, csrf.Facts{Now: start, Require: true})
		if same := slices.Equal(sessionsOf(a), sessionsOf(b)); d.Denied() == same {
			t.Fatalf("%s: a token of %q for %q", d.Reason, a, b)
		}
	})
}

func sessionsOf(line string) (pairs [][2]string) {
	for pair := range strings.SplitSeq(line, ";") {
		name, value, _ := strings.Cut(strings.Trim(pair, " \t"), "=")
		for _, n := range []string{"session", "__Secure-session", "__Host-session", "__Host-__Secure-session"} {
			if name == n {
				name = "session"
			}
		}
		if name == "session" || name == "__Host-moat" {
			pairs = append(pairs, [2]string{name, value})
		}
	}
	return pairs
}

func unmask(t testing.TB, token string) (rest [21]byte) {
	raw, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil || len(raw) != 2*len(rest) {
		t.Fatalf("%q is no token: %v", token, err)
	}
	for i := range rest {
		rest[i] = raw[i] ^ raw[i+len(rest)]
	}
	return rest
}

func TestEveryTokenIsAnotherText(t *testing.T) {
	g := newGuard(t, nil)
	first, jar := visit(t, g, start, "session=alice")
	second, _ := visit(t, g, start, jar...)
	if first == second || unmask(t, first) != unmask(t, second) {
		t.Errorf("%s and %s", first, second)
	}
}

func TestIssueGivesTheBrowserItsCookies(t *testing.T) {
	for third, sameSite := range map[bool]string{false: "Lax", true: "None"} {
		g := newGuard(t, func(p *csrf.Policy) { p.AllowThirdParty = third })
		w := httptest.NewRecorder()
		g.Issue(w, httptest.NewRequest("GET", "/.moat/csrf", nil), start)
		set := w.Header()["Set-Cookie"]
		if len(set) != 2 || !strings.HasSuffix(set[0], "; Path=/; Secure; HttpOnly; SameSite="+sameSite) || !strings.HasSuffix(set[1], "; Path=/; Max-Age=7200; Secure; SameSite=Lax") {
			t.Errorf("%q", set)
		}
		if w.Header().Get("Cache-Control") != "no-store" || w.Header().Get("Content-Type") != "application/json" {
			t.Errorf("%v", w.Header())
		}
	}
	// Who has an id keeps it, or the tokens of its other windows would be void.
	g := newGuard(t, nil)
	_, jar := visit(t, g, start)
	if _, again := visit(t, g, start, jar...); len(again) != len(jar)+1 {
		t.Errorf("%v", again)
	}
	// What is no id is replaced.
	for _, bad := range []string{id + "=short", id + "=" + strings.Repeat("a", 22) + "; " + id + "=" + strings.Repeat("b", 22)} {
		if _, again := visit(t, g, start, bad); len(again) != 3 {
			t.Errorf("%v", again)
		}
	}
}

func TestPagesGetTheirCookies(t *testing.T) {
	g := newGuard(t, nil)
	_, jar := visit(t, g, start, "session=alice")
	half := start.Add(csrf.DefaultLifetime/2 + time.Minute)
	tests := map[string]struct {
		r    *http.Request
		now  time.Time
		want int // cookies
	}{
		"the first page":                              {request("GET", body{}, nil, "Sec-Fetch-Mode", "navigate"), start, 2},
		"the next page":                               {request("GET", body{}, jar, "Sec-Fetch-Mode", "navigate"), start, 0},
		"a page in another session":                   {request("GET", body{}, append(cookies{"session=bob"}, jar[1:]...), "Sec-Fetch-Mode", "navigate"), start, 1},
		"a page when the token is half spent":         {request("GET", body{}, jar, "Sec-Fetch-Mode", "navigate"), half, 1},
		"a call when the token is half spent":         {request("POST", body{}, jar, "Sec-Fetch-Mode", "cors"), half, 1},
		"a call of whoever does not use it":           {request("POST", body{}, jar.without(csrf.DefaultCookie), "Sec-Fetch-Mode", "cors"), half, 0},
		"a call that only reads":                      {request("GET", body{}, jar, "Sec-Fetch-Mode", "cors"), half, 0},
		"a program":                                   {request("GET", body{}, nil), start, 0},
		"a form of another site, without Lax cookies": {request("POST", body{}, nil, "Sec-Fetch-Mode", "navigate"), start, 0},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			h := http.Header{"Cache-Control": {"max-age=60"}}
			g.SetCookie(h, test.r, test.now)
			if got := len(h["Set-Cookie"]); got != test.want {
				t.Errorf("%q", h["Set-Cookie"])
			}
			if private := h.Values("Cache-Control")[len(h["Cache-Control"])-1] == "private"; private != (test.want > 0) {
				t.Errorf("%q", h["Cache-Control"])
			}
		})
	}
}

func TestHandler(t *testing.T) {
	g := newGuard(t, nil)
	ran, got := 0, ""
	h := g.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		ran++
		b, _ := io.ReadAll(r.Body)
		got = r.Header.Get("Cookie") + "|" + r.Header.Get("X-CSRF-Token") + "|" + string(b)
	}))
	token, jar := visit(t, g, time.Now(), "session=alice")

	w := httptest.NewRecorder()
	h.ServeHTTP(w, request("POST", urlencoded("to", "mallory"), jar))
	if ran != 0 || w.Code != http.StatusForbidden || !strings.Contains(w.Body.String(), "csrf-token-missing") {
		t.Errorf("ran %d times, %d %s", ran, w.Code, w.Body)
	}
	r := request("POST", urlencoded(field, token), append(cookies{jar.pair(id), "theme=dark"}, jar...).without("x"))
	r.Header.Set("Cookie", "theme=dark; "+strings.Join(jar, "; "))
	h.ServeHTTP(httptest.NewRecorder(), r)
	if want := "theme=dark; session=alice||csrf_token=" + token; got != want {
		t.Errorf("the upstream gets %q, want %q", got, want)
	}
	r = request("POST", body{}, jar[1:])
	h.ServeHTTP(httptest.NewRecorder(), r)
	if got != "||" || r.Header.Get("Cookie") == "" {
		t.Errorf("the upstream gets %q, of the caller's %q", got, r.Header)
	}
}

func TestTheUpstreamSeesNothingOfTheGuard(t *testing.T) {
	g := newGuard(t, nil)
	const spa = csrf.DefaultCookie
	tests := map[string]struct{ lines, want []string }{
		"none":          {[]string{`a="b c" ;;  d=e`, "f"}, []string{`a="b c" ;;  d=e`, "f"}},
		"both":          {[]string{spa + "=x; a=b;  c=d; " + id + "=y;e"}, []string{"a=b;  c=d;e"}},
		"alone":         {[]string{id + "=y", spa + "=x"}, nil},
		"in one line":   {[]string{"a=b", spa + "=x"}, []string{"a=b"}},
		"twice":         {[]string{id + "=y; a=b; " + id + "=z; " + spa}, []string{"a=b"}},
		"almost a name": {[]string{spa + "-x=y"}, []string{spa + "-x=y"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			h := http.Header{"Cookie": test.lines, "X-Csrf-Token": {"x", "y"}}
			if g.Strip(h); !slices.Equal(h["Cookie"], test.want) || len(h) != min(1, len(test.want)) {
				t.Errorf("%q", h)
			}
		})
	}
}

func TestFaultsOfAPolicy(t *testing.T) {
	tests := map[string]struct {
		change func(*csrf.Policy)
		want   string
	}{
		"no secret":               {func(p *csrf.Policy) { p.Secrets = nil }, "no secret"},
		"a short secret":          {func(p *csrf.Policy) { p.Secrets = append(p.Secrets, []byte("hunter2")) }, "secret 2: a secret has at least 32 bytes"},
		"too short a life":        {func(p *csrf.Policy) { p.Lifetime = time.Second }, "lifetime 1s"},
		"too long a life":         {func(p *csrf.Policy) { p.Lifetime = 200 * time.Hour }, "lifetime 200h0m0s"},
		"a cookie to be planted":  {func(p *csrf.Policy) { p.Cookie = "csrf" }, `cookie "csrf"`},
		"no header":               {func(p *csrf.Policy) { p.Header = "X CSRF" }, `header "X CSRF"`},
		"a header of browsers":    {func(p *csrf.Policy) { p.Header = "cookie" }, `header "cookie"`},
		"a long field":            {func(p *csrf.Policy) { p.Field = strings.Repeat("x", 257) }, "field"},
		"its own as a session":    {func(p *csrf.Policy) { p.SessionCookies = []string{id} }, "session cookie"},
		"rolling, but no session": {func(p *csrf.Policy) { p.Rolling = []string{"x"} }, `rolling "x"`},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			p := csrf.Policy{Secrets: [][]byte{secret}, SessionCookies: []string{"session"}}
			test.change(&p)
			_, err := csrf.New(p)
			if err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("%v, want %q", err, test.want)
			}
		})
	}
}

func BenchmarkDecide(b *testing.B) {
	g := newGuard(b, nil)
	token, jar := visit(b, g, start, "session=eyJhbGciOiJIUzI1NiJ9.c29tZXRoaW5nIG9mIHVzdWFsIGxlbmd0aA")
	r := request("POST", body{"application/json", "{}"}, append(cookies{"theme=dark", "lang=en"}, jar...), "X-CSRF-Token", token)
	for name, r := range map[string]*http.Request{"token": r, "read": request("GET", body{}, jar), "no session": request("POST", body{}, cookies{"theme=dark"})} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if g.Decide(r, csrf.Facts{Now: start}).Denied() {
					b.Fatal("refused")
				}
			}
		})
	}
}

func TestDecideDoesNotAllocate(t *testing.T) {
	g := newGuard(t, nil)
	token, jar := visit(t, g, start, "session=alice")
	r := request("POST", body{}, jar, "X-CSRF-Token", token)
	if n := testing.AllocsPerRun(100, func() { g.Decide(r, csrf.Facts{Now: start}) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
