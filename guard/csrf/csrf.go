package csrf

import (
	"cmp"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"

	"github.com/moat-gateway/moat/guard"
	"github.com/moat-gateway/moat/web"
)

// What holds where the Policy does not say.
const (
	DefaultHeader   = "X-CSRF-Token"
	DefaultField    = "csrf_token"
	DefaultCookie   = "__Host-moat-csrf"
	DefaultLifetime = 2 * time.Hour
)

const (
	// MinSecret is how many bytes a secret has at least.
	MinSecret = 32
	// MaxLifetime is the longest that a token may live.
	MaxLifetime = 7 * 24 * time.Hour
	// idText is the length of a browser's id: 16 random bytes, in base64url.
	idText = 22
)

// Policy says what is an ambient credential, and where tokens are.
type Policy struct {
	// Secrets have 32 random bytes or more each. The first one issues, all are honoured: to
	// rotate, put a new one in front, and take the old one away a Lifetime later.
	Secrets [][]byte
	// SessionCookies are the names of all cookies that a browser is known by here: the
	// upstream's and the gate's own.
	SessionCookies []string
	// OwnCookies are those of SessionCookies that no upstream gets. They ask for a token only where
	// the gate has identified the caller by one: see Facts.Ambient.
	OwnCookies []string
	// Rolling are those of SessionCookies whose value changes from answer to answer, as that
	// of a session kept in the cookie itself does. Tokens are bound to the browser alone then.
	Rolling []string
	// Header that carries the token.
	Header string
	// Field of urlencoded and multipart forms that carries the token where no Header does.
	Field string
	// Cookie is where script finds the token. Its name begins with __Host-. The browser's id
	// is in a cookie of this name and "-id", which script cannot read.
	Cookie string
	// Lifetime of a token.
	Lifetime time.Duration
	// AllowThirdParty has the browser's id travel from pages of other sites too
	// (SameSite=None), as the session's cookies must where such pages call with credentials.
	AllowThirdParty bool
}

// Guard is a compiled Policy: immutable, and safe for concurrent use.
type Guard struct {
	header, field, cookie, id string
	canonical                 string
	lifetime                  time.Duration
	sessions, rolling, own    []string
	keys                      []key
	sameSite                  string
}

// New compiles a Policy.
func New(p Policy) (*Guard, error) {
	g := &Guard{
		header: cmp.Or(p.Header, DefaultHeader), field: cmp.Or(p.Field, DefaultField), cookie: cmp.Or(p.Cookie, DefaultCookie),
		lifetime: cmp.Or(p.Lifetime, DefaultLifetime), sessions: slices.Clone(p.SessionCookies), rolling: slices.Clone(p.Rolling), own: slices.Clone(p.OwnCookies), sameSite: "Lax",
	}
	g.canonical, g.id = http.CanonicalHeaderKey(g.header), g.cookie+"-id"
	if p.AllowThirdParty {
		g.sameSite = "None"
	}
	errs := g.faults()
	if len(p.Secrets) == 0 {
		errs = append(errs, errors.New("no secret"))
	}
	for i, s := range p.Secrets {
		if len(s) < MinSecret {
			errs = append(errs, fmt.Errorf("secret %d: a secret has at least %d bytes, such as openssl rand -base64 32 makes", i+1, MinSecret))
			continue
		}
		k, err := hkdf.Key(sha256.New, s, []byte("moat csrf v1"), "token", sha256.Size)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		g.keys = append(g.keys, key(k))
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return g, nil
}

func (g *Guard) faults() (errs []error) {
	if g.lifetime < time.Minute || g.lifetime > MaxLifetime {
		errs = append(errs, fmt.Errorf("lifetime %s: it is between 1m and %s", g.lifetime, MaxLifetime))
	}
	if !httpguts.ValidHeaderFieldName(g.header) || g.canonical == "Cookie" {
		errs = append(errs, fmt.Errorf("header %q: the name of a header that script sets, such as %s", g.header, DefaultHeader))
	}
	if g.field == "" || len(g.field) > 256 {
		errs = append(errs, fmt.Errorf("field %q: a name of 1 to 256 bytes", g.field))
	}
	if rest, ok := strings.CutPrefix(g.cookie, "__Host-"); !ok || !httpguts.ValidHeaderFieldName(rest) {
		errs = append(errs, fmt.Errorf("cookie %q: a name that begins with __Host-, or a sibling subdomain can plant it", g.cookie))
	}
	for _, name := range g.sessions {
		if name == g.cookie || name == g.id || !httpguts.ValidHeaderFieldName(name) {
			errs = append(errs, fmt.Errorf("session cookie %q: the name of a cookie that identifies the user", name))
		}
	}
	for _, name := range g.rolling {
		if !slices.Contains(g.sessions, name) {
			errs = append(errs, fmt.Errorf("rolling %q: it is not among the session cookies", name))
		}
	}
	return errs
}

// Facts are what a request is judged by.
type Facts struct {
	Now time.Time
	// Require asks for a token without a session too: a stranger's page must not sign a
	// user in as somebody else.
	Require bool
	// SideEffects declares that even GET and HEAD change state on this route.
	SideEffects bool
	// Ambient says that the gate has identified the caller by what a browser sends by itself.
	Ambient bool
	// Explicit says that the gate has identified the caller by a token or key that script or a
	// program put into a header. No page of a stranger can do that, so no token is needed.
	Explicit bool
}

// Decide judges a request. A preflight, which has no credentials, is not to be judged. It
// changes nothing, but for this: where the token can only be in a form, the first 64 KiB
// of r.Body are read, and r.Body is replaced by one that begins with them.
func (g *Guard) Decide(r *http.Request, f Facts) guard.Decision {
	cookies := r.Header["Cookie"]
	switch {
	case f.Explicit:
		return guard.Decision{}
	case !f.SideEffects && safe(r):
		return guard.Decision{}
	case !f.Require && !f.Ambient && !g.ambient(cookies):
		return guard.Decision{}
	}
	token, where, d := g.find(r)
	if d.Denied() {
		return d
	}
	id := g.browser(cookies)
	if id == "" {
		return guard.Denial(guard.CSRFTokenInvalid, "Cookie", "no "+g.id, "the cookie that came with the token")
	}
	b := g.bind(id, cookies)
	reason := g.verify(token, &b, f.Now)
	if reason.Status() != 0 {
		return guard.Denial(reason, where, "", "a token that GET /.moat/csrf answered in this session")
	}
	return guard.Decision{Reason: reason}
}

// safe reports whether the method changes nothing by its definition (RFC 9110 section
// 9.2.1), and no header asks the upstream to take it for another.
func safe(r *http.Request) bool {
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions:
	default:
		return false
	}
	for name := range r.Header {
		if overrides(name) {
			return false
		}
	}
	return true
}

// overrides reports whether a header asks to take the request for another method, in any
// of the spellings that frameworks read as one.
func overrides(name string) bool {
	switch len(name) {
	case len("x-http-method"), len("x-method-override"), len("x-http-method-override"):
	default:
		return false
	}
	switch web.FoldName(name) {
	case "x-http-method", "x-method-override", "x-http-method-override":
		return true
	}
	return false
}

// find finds the token, in the header or, where there is none, in a form.
func (g *Guard) find(r *http.Request) (token, where string, d guard.Decision) {
	v, ok := r.Header[g.canonical]
	switch {
	case len(v) == 1 && v[0] != "":
		return v[0], g.header, guard.Decision{}
	case len(v) > 1:
		return "", "", guard.Denial(guard.CSRFTokenInvalid, g.header, "the header "+strconv.Itoa(len(v))+" times", "one")
	case !ok:
		values := g.inForm(r)
		if len(values) > 1 {
			return "", "", guard.Denial(guard.CSRFTokenInvalid, g.field, "the field "+strconv.Itoa(len(values))+" times", "one")
		}
		if len(values) == 1 && values[0] != "" {
			return values[0], g.field, guard.Decision{}
		}
	}
	return "", "", guard.Denial(guard.CSRFTokenMissing, g.header, "", "a token that GET /.moat/csrf answered")
}

// Token returns a new token for the request's session, or "" if the browser has no id yet:
// Issue and SetCookie give it one.
func (g *Guard) Token(r *http.Request, now time.Time) string {
	id := g.browser(r.Header["Cookie"])
	if id == "" {
		return ""
	}
	b := g.bind(id, r.Header["Cookie"])
	return g.mint(&b, now)
}

// Issue answers GET /.moat/csrf: a token in JSON, and the cookies that belong to it. Who may
// read the answer across origins is for CORS to say.
func (g *Guard) Issue(w http.ResponseWriter, r *http.Request, now time.Time) {
	token := g.give(w.Header(), r, now)
	body, err := json.Marshal(struct {
		Token     string `json:"token"`
		Header    string `json:"header"`
		Field     string `json:"field"`
		ExpiresIn int    `json:"expires_in"`
	}{token, g.header, g.field, int(g.lifetime / time.Second)})
	if err != nil {
		panic(err) // four plain fields
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	w.Write(body)
}

// SetCookie gives the browser what it needs, in the headers of an answer: on a navigation
// to a page if it has no good token, and on a request that changes state if its token is
// half spent. r is the request as it came, before Strip. An answer that sets a cookie is for
// nobody else: a shared cache must not keep it.
func (g *Guard) SetCookie(h http.Header, r *http.Request, now time.Time) {
	old := g.spa(r.Header["Cookie"])
	navigation := r.Method == http.MethodGet && slices.Equal(r.Header["Sec-Fetch-Mode"], navigate)
	if !navigation && (safe(r) || old == "") {
		return
	}
	if id := g.browser(r.Header["Cookie"]); id != "" {
		b := g.bind(id, r.Header["Cookie"])
		if g.verify(old, &b, now.Add(g.lifetime/2)) == guard.CSRFTokenValid {
			return
		}
	}
	g.give(h, r, now)
	h.Add("Cache-Control", "private")
}

var navigate = []string{"navigate"}

// give makes a token, and sets the cookies that belong to it.
func (g *Guard) give(h http.Header, r *http.Request, now time.Time) string {
	id := g.browser(r.Header["Cookie"])
	if id == "" {
		id = newID()
		h.Add("Set-Cookie", g.id+"="+id+"; Path=/; Secure; HttpOnly; SameSite="+g.sameSite)
	}
	b := g.bind(id, r.Header["Cookie"])
	token := g.mint(&b, now)
	h.Add("Set-Cookie", g.cookie+"="+token+"; Path=/; Max-Age="+strconv.Itoa(int(g.lifetime/time.Second))+"; Secure; SameSite=Lax")
	return token
}

func newID() string {
	var b [16]byte
	rand.Read(b[:])
	return encoding.EncodeToString(b[:])
}

// Strip takes out of a request what nobody behind the gate has a use for. A form's field
// stays where it is.
func (g *Guard) Strip(h http.Header) {
	delete(h, g.canonical)
	g.stripCookies(h)
}

// Handler refuses what Decide refuses, and passes the rest to next without the header and
// cookies of the guard. Issue has to be mounted beside it.
func (g *Guard) Handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		in := *r // the caller's request is not ours to change
		now := time.Now()
		if d := g.Decide(&in, Facts{Now: now}); d.Denied() {
			guard.Refuse(w, d.Reason, "")
			return
		}
		g.SetCookie(w.Header(), r, now)
		in.Header = r.Header.Clone()
		g.Strip(in.Header)
		next.ServeHTTP(w, &in)
	})
}
