package session

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"sync"
	"time"

	"github.com/moat-gateway/moat/guard"
	"github.com/moat-gateway/moat/guard/identity"
	"github.com/moat-gateway/moat/guard/identity/internal/principal"
	"github.com/moat-gateway/moat/web"
)

const (
	// DefaultLifetime and DefaultIdle are those of a session whose Policy does not say.
	DefaultLifetime = 12 * time.Hour
	DefaultIdle     = time.Hour
	// afterlife is how much longer than its session an entry is kept, so that its user can be
	// told that it has expired.
	afterlife = time.Hour
	// touchEvery is how often the idle clock of a session is set back at most: a session may
	// end this much too early, and a request in a hundred writes to the store.
	touchEvery = time.Minute
	// maxToken bounds each of the provider's tokens, and its claims, in bytes.
	maxToken = 16 << 10
)

// Policy says who signs users in, and what their sessions are like.
type Policy struct {
	// Source is the name that the configuration has for the provider: letters, digits, "-" and
	// "_". It stands in the names of cookies and in paths.
	Source string
	// Issuer is the provider: https, or http on this machine.
	Issuer string
	// ClientID and ClientSecret are what the gate has been given there. A public client has no
	// secret; PKCE is used in any case.
	ClientID, ClientSecret string
	// Scopes are asked for, and openid in any case.
	Scopes []string
	// Public are the origins that browsers know the gate by. The provider sends them back to
	// ORIGIN/.moat/callback/SOURCE of the one where they began.
	Public *web.PublicOrigins
	// Lifetime ends a session in any case, Idle when no request has come for so long.
	Lifetime, Idle time.Duration
	// ScopeClaim and RolesClaim are the paths of the claims that hold them, or "".
	ScopeClaim, RolesClaim string
	// SignOutAtProvider ends the session at the provider too, where a page signs its user out
	// and the provider has an end_session_endpoint.
	SignOutAtProvider bool
	// Home is the path to return to where none is named; "" stands for "/".
	Home string
	// Transport reaches the provider. Nil stands for one that uses no proxy.
	Transport http.RoundTripper
}

// Guard signs users in and knows them again. It is safe for concurrent use.
type Guard struct {
	p        Policy
	about    string // what a session is sealed for
	store    Store
	provider *discovery
	known    known
	asking   chan struct{} // has a place for each sign-in that the provider is asked about

	mu      sync.Mutex // guards flights; it is never held while somebody is asked
	flights map[ID]*flight
}

var _ identity.Verifier = (*Guard)(nil)

var sourceForm = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)

// New compiles a Policy. The provider is asked when it is needed, so that the gate starts
// without it. What before, the Guard of an earlier Policy or nil, knows of the same provider
// is taken over.
func New(p Policy, s Store, before *Guard) (*Guard, error) {
	p.Lifetime, p.Idle, p.Home = cmp.Or(p.Lifetime, DefaultLifetime), cmp.Or(p.Idle, DefaultIdle), cmp.Or(p.Home, "/")
	if !slices.Contains(p.Scopes, "openid") { // without it the provider does not say who the user is
		p.Scopes = append([]string{"openid"}, p.Scopes...)
	}
	var errs []error
	if !sourceForm.MatchString(p.Source) {
		errs = append(errs, fmt.Errorf("source %q: it has letters, digits, \"-\" and \"_\", at most 64", p.Source))
	}
	if err := checkURL(p.Issuer, p.Issuer); err != nil {
		errs = append(errs, fmt.Errorf("issuer: %w", err))
	}
	if p.ClientID == "" {
		errs = append(errs, errors.New("no client id"))
	}
	if p.Lifetime < time.Minute || p.Idle < time.Minute || p.Idle > p.Lifetime {
		errs = append(errs, fmt.Errorf("idle %s, lifetime %s: each is a minute at least, and idle no longer than lifetime", p.Idle, p.Lifetime))
	}
	if !returnable(p.Home) {
		errs = append(errs, fmt.Errorf("home %q: not a path of this gate, such as /app", p.Home))
	}
	if !slices.ContainsFunc(p.Public.All(), keepsCookies) {
		errs = append(errs, errors.New("no public origin with https: browsers would not keep the session's cookie"))
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	g := &Guard{p: p, about: p.Source + "\n" + p.Issuer + "\n" + p.ClientID, store: s, provider: newDiscovery(&p), flights: make(map[ID]*flight), asking: make(chan struct{}, maxAsking)}
	if before != nil && before.provider.same(g.provider) {
		g.provider = before.provider
	}
	return g, nil
}

// keepsCookies reports whether browsers keep a Secure cookie of the origin.
func keepsCookies(o web.Origin) bool { return o.Scheme() == "https" || o.Loopback() }

// Cookie is the name of the cookie that holds a session.
func (g *Guard) Cookie() string { return "__Host-moat-session-" + g.p.Source }

// Recognizes implements identity.Verifier.
func (g *Guard) Recognizes(text string) bool {
	_, ok := parseSecret(text)
	return ok
}

// Verify implements identity.Verifier. It asks the Store for each request, so that a session
// that has been ended anywhere is over at once.
func (g *Guard) Verify(ctx context.Context, text string, now time.Time) (*identity.Principal, guard.Decision) {
	s, d := g.find(ctx, text)
	if d.Denied() {
		return nil, d
	}
	v := versionOf(&s.entry)
	o := g.known.find(v)
	if o == nil {
		if d = g.unseal(s); d.Denied() {
			return nil, d
		}
		p, err := g.principal(s)
		if err != nil {
			return nil, unreadable(err)
		}
		o = &opened{p, s.record.Began, len(s.record.Claims)}
		g.known.add(v, o)
	}
	s.ends = g.ends(o.began)
	if d = g.alive(ctx, s, now); d.Denied() {
		return nil, d
	}
	if until := g.keptUntil(s, now); until.Sub(s.entry.Expires) >= min(touchEvery, g.p.Idle/4) {
		// If this fails the session expires sooner than it had to.
		g.store.Touch(ctx, s.entry.ID, until) //nolint:errcheck // see above.
	}
	return o.principal, guard.Decision{Reason: guard.IdentityVerified}
}

// record is what a session holds, and only its browser can open.
type record struct {
	Began   int64           `json:"began"` // Unix seconds
	Claims  json.RawMessage `json:"claims"`
	IDToken string          `json:"id_token,omitempty"`
	Access  string          `json:"access,omitempty"`
	// AccessDue is from when it is renewed, and AccessUntil when it ends, in Unix milliseconds.
	AccessDue   int64  `json:"access_due,omitempty"`
	AccessUntil int64  `json:"access_until,omitempty"`
	Refresh     string `json:"refresh,omitempty"`
	// Renewed counts how often the access token was.
	Renewed int `json:"renewed,omitempty"`
}

// session is one that is open.
type session struct {
	secret secret
	entry  Entry
	record record
	ends   time.Time // in any case
}

// find finds the session of a cookie, and does not open it.
func (g *Guard) find(ctx context.Context, text string) (*session, guard.Decision) {
	sec, ok := parseSecret(text)
	if !ok {
		return nil, deny(guard.SessionUnknown, "a text that is none of the gate's", "a cookie as it was set")
	}
	e, ok, err := g.store.Get(ctx, sec.id())
	switch {
	case err != nil:
		return nil, unavailable(err)
	case !ok:
		return nil, deny(guard.SessionUnknown, "no such session", "a session")
	}
	return &session{secret: sec, entry: e}, guard.Decision{}
}

// open finds the session of a cookie, and opens it.
func (g *Guard) open(ctx context.Context, text string, now time.Time) (*session, guard.Decision) {
	s, d := g.find(ctx, text)
	if d.Denied() {
		return nil, d
	}
	if d = g.unseal(s); d.Denied() {
		return nil, d
	}
	return s, g.alive(ctx, s, now)
}

func (g *Guard) unseal(s *session) guard.Decision {
	plain, err := s.secret.open("session", g.about, s.entry.Sealed)
	if err != nil || json.Unmarshal(plain, &s.record) != nil {
		return deny(guard.SessionUnknown, "a session of another policy, or one that was changed in the store", "a session as it was stored")
	}
	s.ends = g.ends(s.record.Began)
	return guard.Decision{}
}

func (g *Guard) ends(began int64) time.Time { return time.Unix(began, 0).Add(g.p.Lifetime) }

// alive refuses a session that is over.
func (g *Guard) alive(ctx context.Context, s *session, now time.Time) guard.Decision {
	idle := s.entry.Expires.Add(-afterlife)
	if now.Before(idle) && now.Before(s.ends) {
		return guard.Decision{}
	}
	g.store.Delete(ctx, s.entry.ID) //nolint:errcheck // it is not honoured in any case.
	return deny(guard.SessionExpired, "over since "+earlier(idle, s.ends).UTC().Format(time.RFC3339), "a session in use")
}

func (g *Guard) seal(s *session) ([]byte, error) {
	plain, err := json.Marshal(&s.record)
	if err != nil {
		return nil, err
	}
	sealed := s.secret.seal("session", g.about, plain)
	if len(sealed) > MaxSealed {
		return nil, fmt.Errorf("its tokens and claims have more than %d bytes", MaxSealed)
	}
	return sealed, nil
}

// keptUntil is until when the entry of a session is kept that is used now.
func (g *Guard) keptUntil(s *session, now time.Time) time.Time {
	return earlier(now.Add(g.p.Idle), s.ends).Add(afterlife)
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// principal is who the session is of.
func (g *Guard) principal(s *session) (*identity.Principal, error) {
	claims, err := principal.ParseClaims(s.record.Claims)
	if err != nil {
		return nil, err
	}
	subject, _ := claims["sub"].(string) // identify has seen to it
	return principal.New(principal.Facts{
		Source: g.p.Source, Method: identity.Session, Issuer: g.p.Issuer, Subject: subject,
		Scopes: listed(claims, g.p.ScopeClaim), Roles: listed(claims, g.p.RolesClaim),
		Claims: claims, Expires: s.ends, Credential: public(s.entry.ID),
	}), nil
}

func listed(claims map[string]any, path string) []string {
	if path == "" {
		return nil
	}
	v, _ := principal.Lookup(claims, path)
	return principal.Strings(v)
}

// public names a session to the operator, who finds it by that in the Store.
func public(id ID) string { return base64.RawURLEncoding.EncodeToString(id[:16]) }

// told are the claims that Info tells a page.
var told = []string{
	"name", "given_name", "family_name", "middle_name", "nickname", "preferred_username", "picture", "email", "email_verified", "locale", "zoneinfo",
}

// Info tells a page who is signed in, and until when. It tells no token, and does not set the
// idle clock back, so a page may ask while its user is away.
func (g *Guard) Info(w http.ResponseWriter, r *http.Request, now time.Time) guard.Decision {
	s, d := g.ofBrowser(r, now)
	if d.Denied() {
		return d
	}
	p, err := g.principal(s)
	if err != nil {
		return unreadable(err)
	}
	claims := make(map[string]any)
	for _, name := range told {
		if v, ok := p.Claims()[name]; ok {
			claims[name] = v
		}
	}
	return answer(w, struct {
		Source      string         `json:"source"`
		Subject     string         `json:"subject"`
		Claims      map[string]any `json:"claims"`
		Scopes      []string       `json:"scopes,omitempty"`
		Roles       []string       `json:"roles,omitempty"`
		Expires     time.Time      `json:"expires"`
		IdleExpires time.Time      `json:"idle_expires"`
	}{p.Source(), p.Subject(), claims, p.Scopes(), p.Roles(), s.ends.UTC(), earlier(s.entry.Expires.Add(-afterlife), s.ends).UTC().Truncate(time.Second)})
}

// ofBrowser finds the session of a request.
func (g *Guard) ofBrowser(r *http.Request, now time.Time) (*session, guard.Decision) {
	texts := cookies(r, g.Cookie())
	switch len(texts) {
	case 0:
		return nil, guard.Denial(guard.CredentialsMissing, "Cookie", "", "a session")
	case 1:
		return g.open(r.Context(), texts[0], now)
	}
	return nil, guard.Denial(guard.CredentialsAmbiguous, "Cookie", "the session's cookie twice", "one")
}

func answer(w http.ResponseWriter, v any) guard.Decision {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err) // claims came from JSON
	}
	h := w.Header()
	h["Content-Type"], h["Cache-Control"] = []string{"application/json"}, []string{"no-store"}
	w.Write(text)
	return guard.Decision{}
}

// deny never says what the cookie was.
func deny(r guard.Reason, got, want string) guard.Decision {
	return guard.Denial(r, "the session's cookie", got, want)
}

func unreadable(err error) guard.Decision {
	return deny(guard.SessionUnknown, short(err), "a session as it was stored")
}

func unavailable(err error) guard.Decision {
	return guard.Denial(guard.IdentityUnavailable, "the store of sessions", short(err), "a store that answers")
}
