package session

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"github.com/moat-gateway/moat/guard"
	"github.com/moat-gateway/moat/guard/identity/internal/principal"
)

const (
	// loginTime is how long signing in may take.
	loginTime = 10 * time.Minute
	// maxLogins is how many sign-ins can be under way in a browser; the next one takes the place
	// of the first. Each has a cookie, and a server refuses requests with too many of those.
	maxLogins = 8
	// maxReturn bounds the path to return to, and maxParameter what the provider sends back.
	maxReturn, maxParameter = 2 << 10, 8 << 10
	// maxAsking is for how many sign-ins the provider is asked at once.
	maxAsking = 32
	// labelLen is how much of a state stands in the name of its cookie.
	labelLen = 8
)

// A sign-in is known to the browser alone: a random secret in a cookie, from which the nonce
// and the PKCE verifier are derived, and the state, which is sealed by it. So whoever begins
// sign-ins without end costs the gate no memory; who does not have the cookie can neither
// make a state nor end what another browser began; and with the cookie, which is deleted at
// the callback, a state is gone.

// loginCookies is what the names of the cookies begin with that hold sign-ins under way.
func (g *Guard) loginCookies() string { return "__Host-moat-login-" + g.p.Source + "-" }

func (g *Guard) loginCookie(state string) string { return g.loginCookies() + state[:labelLen] }

func setCookie(w http.ResponseWriter, name, value string, life time.Duration) {
	c := http.Cookie{Name: name, Value: value, Path: "/", Secure: true, HttpOnly: true, SameSite: http.SameSiteLaxMode} //nolint:gosec // Strict would keep it from the redirect that comes from the provider.
	if c.MaxAge = int(life / time.Second); value == "" {
		c.MaxAge = -1
	}
	w.Header().Add("Set-Cookie", c.String())
}

// Login sends the browser to the provider. The path to come back to is in the parameter
// return.
func (g *Guard) Login(w http.ResponseWriter, r *http.Request, now time.Time) guard.Decision {
	back, d := g.returnPath(r.URL.Query())
	if d.Denied() {
		return d
	}
	origin, d := g.origin(r)
	if d.Denied() {
		return d
	}
	p, d := g.provider.get(r.Context(), now)
	if d.Denied() {
		return d
	}
	s := newSecret()
	state := encoding.EncodeToString(s.seal("state", g.about+"\n"+origin, append(binary.BigEndian.AppendUint64(nil, uint64(now.Unix())), back...))) //nolint:gosec // not before 1970.
	g.makeRoom(w, r)
	setCookie(w, g.loginCookie(state), s.text(), loginTime)
	conf := g.client(p, origin)
	redirect(w, http.StatusFound, conf.AuthCodeURL(state, oidc.Nonce(s.nonce()), oauth2.S256ChallengeOption(s.verifier())))
	return guard.Decision{}
}

func (s *secret) nonce() string    { return encoding.EncodeToString(s.derive("nonce")) }
func (s *secret) verifier() string { return encoding.EncodeToString(s.derive("verifier")) }

// makeRoom lets the browser forget its first sign-in if it has too many under way.
func (g *Guard) makeRoom(w http.ResponseWriter, r *http.Request) {
	var names []string
	for _, c := range r.Cookies() {
		if strings.HasPrefix(c.Name, g.loginCookies()) && len(names) < 4*maxLogins {
			names = append(names, c.Name)
		}
	}
	for i := range max(0, len(names)-maxLogins+1) {
		setCookie(w, names[i], "", 0) // browsers send those that are older first (RFC 6265 section 5.4)
	}
}

// SignIn is where a browser signs in to come back to a path and query, or home where they are too
// long, or not in the form of a URL.
func (g *Guard) SignIn(back string) string {
	at := "/.moat/login/" + g.p.Source
	back = strings.ReplaceAll(back, `\`, "%5C") // which browsers leave in a query as it is
	if !returnable(back) {
		return at
	}
	return at + "?return=" + url.QueryEscape(back)
}

// origin is the public origin that the browser has asked.
func (g *Guard) origin(r *http.Request) (string, guard.Decision) {
	o, ok := g.p.Public.Of(r.Host)
	if !ok || !keepsCookies(o) {
		return "", guard.Denial(guard.HostNotAllowed, "Host", r.Host, "the host of a public origin with https")
	}
	return o.String(), guard.Decision{}
}

func (g *Guard) client(p *provider, origin string) *oauth2.Config {
	conf := p.conf
	conf.RedirectURL = origin + "/.moat/callback/" + g.p.Source
	return &conf
}

// returnPath reads the parameter return.
func (g *Guard) returnPath(q url.Values) (string, guard.Decision) {
	switch back := q["return"]; {
	case len(back) == 0 || len(back) == 1 && back[0] == "":
		return g.p.Home, guard.Decision{}
	case len(back) == 1 && returnable(back[0]):
		return back[0], guard.Decision{}
	default:
		path, _, _ := strings.Cut(strings.Join(back, " "), "?") // a query may be for nobody else's eyes
		return "", guard.Denial(guard.LoginReturnNotAllowed, "return", path, "one path of this gate, such as /app")
	}
}

// returnable reports whether a text is a path of the gate, with a query perhaps, however it is
// resolved. What a browser or a proxy takes for "//host" is none, nor is what it would leave
// out or turn into a slash; and the gate's own paths are not for pages.
func returnable(s string) bool {
	if !strings.HasPrefix(s, "/") || len(s) > maxReturn || strings.HasPrefix(s, "/.moat/") {
		return false
	}
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c > '~' || c == '\\' {
			return false
		}
	}
	path := s
	if i := strings.IndexAny(s, "?#"); i >= 0 {
		path = s[:i]
	}
	_, err := url.Parse(s)
	return err == nil && !strings.Contains(path, "//")
}

func redirect(w http.ResponseWriter, status int, to string) {
	h := w.Header()
	// The URL of the request or of the answer holds what others should not be told.
	h["Location"], h["Cache-Control"], h["Referrer-Policy"] = []string{to}, []string{"no-store"}, []string{"no-referrer"}
	w.WriteHeader(status)
}

// Callback is where the provider sends the browser back to. It begins a session, under an ID
// that is new at each sign-in.
func (g *Guard) Callback(w http.ResponseWriter, r *http.Request, now time.Time) guard.Decision {
	origin, d := g.origin(r)
	if d.Denied() {
		return d
	}
	q := r.URL.Query()
	sec, back, d := g.begun(w, r, q, origin, now)
	if d.Denied() {
		return d
	}
	p, d := g.provider.get(r.Context(), now)
	if d.Denied() {
		return d
	}
	code, d := g.code(p, q)
	if d.Denied() {
		return d
	}
	// Anybody can begin a sign-in and end it with a code of his own making, as often as he likes.
	select {
	case g.asking <- struct{}{}:
		defer func() { <-g.asking }()
	default:
		return g.provider.unavailable("it has " + strconv.Itoa(maxAsking) + " sign-ins to answer for already")
	}
	ctx, cancel := g.provider.context(r.Context())
	defer cancel()
	tok, err := g.client(p, origin).Exchange(ctx, code, oauth2.VerifierOption(sec.verifier()))
	if err != nil {
		return failed("the token endpoint", fault(err))
	}
	s := &session{secret: newSecret(), record: record{Began: now.Unix()}, ends: now.Add(g.p.Lifetime)}
	if d = s.take(tok, now); d.Denied() {
		return d
	}
	if d = g.identify(ctx, p, s, tok, sec.nonce(), now); d.Denied() {
		return d
	}
	if d = g.keep(r.Context(), s, now); d.Denied() {
		return d
	}
	for _, old := range cookies(r, g.Cookie()) {
		if o, ok := parseSecret(old); ok {
			g.store.Delete(r.Context(), o.id()) //nolint:errcheck // it ends by itself.
		}
	}
	setCookie(w, g.Cookie(), s.secret.text(), g.p.Lifetime)
	redirect(w, http.StatusSeeOther, origin+back)
	return guard.Decision{}
}

// begun finds the sign-in that a callback ends, and lets the browser forget it.
func (g *Guard) begun(w http.ResponseWriter, r *http.Request, q url.Values, origin string, now time.Time) (s secret, back string, d guard.Decision) {
	unknown := func(got string) (secret, string, guard.Decision) {
		return secret{}, "", guard.Denial(guard.LoginStateUnknown, "state", got, "the answer to a sign-in that this browser has begun")
	}
	state := q["state"]
	if len(state) != 1 || len(state[0]) < labelLen || len(state[0]) > maxParameter {
		return unknown("none")
	}
	sealed, err := encoding.DecodeString(state[0])
	if err != nil {
		return unknown("none of the gate's")
	}
	name := g.loginCookie(state[0])
	values := cookies(r, name)
	if len(values) != 1 {
		return unknown("of another browser, or used")
	}
	s, ok := parseSecret(values[0])
	if !ok {
		return unknown("with a cookie that is none of the gate's")
	}
	plain, err := s.open("state", g.about+"\n"+origin, sealed)
	if err != nil || len(plain) < 8 {
		return unknown("of another sign-in")
	}
	setCookie(w, name, "", 0)
	at := time.Unix(int64(binary.BigEndian.Uint64(plain)), 0) //nolint:gosec // the gate wrote it.
	if back = string(plain[8:]); now.Sub(at) > loginTime || at.Sub(now) > loginTime || !returnable(back) {
		return unknown("begun at " + at.UTC().Format(time.RFC3339))
	}
	return s, back, guard.Decision{}
}

// code reads the provider's answer.
func (g *Guard) code(p *provider, q url.Values) (string, guard.Decision) {
	const where = "the identity provider's answer"
	// RFC 9207: an answer of another provider would have this one be told that one's code.
	if iss := q["iss"]; len(iss) > 1 || len(iss) == 1 && iss[0] != g.p.Issuer || len(iss) == 0 && p.tellsIss {
		return "", guard.Denial(guard.LoginFailed, where, "of another issuer", g.p.Issuer)
	}
	if e := q["error"]; len(e) > 0 {
		return "", failed(where, errorCode(e[0]))
	}
	code := q["code"]
	if len(code) != 1 || code[0] == "" || len(code[0]) > maxParameter {
		return "", failed(where, "no code")
	}
	return code[0], guard.Decision{}
}

// errorCodes are those of RFC 6749 sections 4.1.2.1 and 5.2, and OpenID Connect Core section 3.1.2.6.
var errorCodes = []string{
	"invalid_request", "invalid_client", "invalid_grant", "unauthorized_client", "unsupported_grant_type", "invalid_scope",
	"access_denied", "unsupported_response_type", "server_error", "temporarily_unavailable",
	"interaction_required", "login_required", "account_selection_required", "consent_required",
}

// errorCode repeats an error code, and no other text: anybody can have written it.
func errorCode(code string) string {
	if slices.Contains(errorCodes, code) {
		return code
	}
	return "an error"
}

func failed(where, got string) guard.Decision {
	return guard.Denial(guard.LoginFailed, where, got, "a token of the user who has signed in")
}

// fault says why the token endpoint gave no token, in words that hold nothing which came: it
// knows the client's secret, and may repeat that.
func fault(err error) string {
	var (
		said *oauth2.RetrieveError
		op   *net.OpError
	)
	switch {
	case errors.As(err, &said) && said.Response != nil:
		return "it answered " + strconv.Itoa(said.Response.StatusCode) + " " + errorCode(said.ErrorCode)
	case errors.Is(err, context.DeadlineExceeded):
		return "it did not answer within " + askTimeout.String()
	case errors.As(err, &op) && op.Op == "dial":
		return op.Error()
	case errors.Is(err, errTooLarge):
		return errTooLarge.Error()
	}
	return "its answer is not that of RFC 6749 section 5.1"
}

// take puts what the token endpoint has answered into the session.
func (s *session) take(tok *oauth2.Token, now time.Time) guard.Decision {
	switch {
	case !strings.EqualFold(tok.TokenType, "Bearer") && tok.TokenType != "":
		return failed("the access token", "of another type than Bearer")
	case !visible(tok.AccessToken) || !visible(tok.RefreshToken) && tok.RefreshToken != "":
		return failed("the access token", "longer than "+strconv.Itoa(maxToken)+" bytes, or not of the form of one")
	}
	life := accessLife(tok)
	s.record.Access, s.record.Refresh = tok.AccessToken, tok.RefreshToken
	s.record.AccessDue, s.record.AccessUntil = now.Add(life-min(renewBefore, life/5)).UnixMilli(), now.Add(life).UnixMilli()
	return guard.Decision{}
}

// identify finds out whom an ID token is of, and puts that into the session. The nonce is ""
// where tokens were renewed: then the user has to be the one of before. The reason is
// IdentityUnavailable where nothing is known that speaks against the token.
func (g *Guard) identify(ctx context.Context, p *provider, s *session, tok *oauth2.Token, nonce string, now time.Time) guard.Decision {
	const where, from = "the ID token", "the userinfo endpoint"
	raw := idToken(tok)
	t, err := p.verify(ctx, raw, now)
	switch {
	case errors.Is(err, errKeys) || errors.Is(err, errTooSoon):
		return g.provider.unavailable(short(err))
	case err != nil:
		return failed(where, short(err))
	case nonce != "" && t.Nonce != nonce:
		return failed(where, "with the nonce of another sign-in")
	case nonce == "" && t.Subject != subjectOf(s.record.Claims):
		return failed(where, "of another user")
	case t.AccessTokenHash != "" && t.VerifyAccessToken(tok.AccessToken) != nil:
		return failed(where, "for another access token (at_hash)")
	case t.Subject == "" || len(t.Subject) > 255:
		return failed(where, "without a subject, or with one of more than 255 bytes")
	}
	claims, err := parse(t)
	if err != nil {
		return failed(where, short(err))
	}
	if p.userinfo {
		u, uErr := p.oidc.UserInfo(ctx, oauth2.StaticTokenSource(tok))
		switch {
		case uErr != nil: // go-oidc repeats the answer
			return g.provider.unavailable(from + " gives no answer that can be read")
		case u.Subject != t.Subject: // OpenID Connect Core section 5.3.2
			return failed(from, "claims of another user")
		}
		more, uErr := parse(u)
		if uErr != nil {
			return failed(from, short(uErr))
		}
		maps.Copy(more, claims) // what is signed counts
		claims = more
	}
	text, err := json.Marshal(claims)
	if err != nil || len(text) > maxToken {
		return failed(where, "more than "+strconv.Itoa(maxToken)+" bytes of claims")
	}
	s.record.IDToken, s.record.Claims = raw, text
	return guard.Decision{}
}

// idToken is the ID token that came with an access token, or "".
func idToken(tok *oauth2.Token) string {
	raw, _ := tok.Extra("id_token").(string)
	return raw
}

func parse(c interface{ Claims(v any) error }) (map[string]any, error) {
	var raw json.RawMessage
	if err := c.Claims(&raw); err != nil {
		return nil, err
	}
	return principal.ParseClaims(raw)
}

// visible reports whether a token can stand in a header.
func visible(token string) bool {
	for i := range len(token) {
		if token[i] <= ' ' || token[i] > '~' {
			return false
		}
	}
	return token != "" && len(token) <= maxToken
}

// keep puts a new session into the Store.
func (g *Guard) keep(ctx context.Context, s *session, now time.Time) guard.Decision {
	claims, err := principal.ParseClaims(s.record.Claims)
	if err != nil {
		return failed("the session", short(err))
	}
	subject, _ := claims["sub"].(string)
	s.entry = Entry{ID: s.secret.id(), Indexes: []ID{g.userIndex(subject)}, Expires: g.keptUntil(s, now)}
	if sid, ok := claims["sid"].(string); ok && sid != "" {
		s.entry.Indexes = append(s.entry.Indexes, g.sidIndex(sid))
	}
	if s.entry.Sealed, err = g.seal(s); err != nil {
		return failed("the session", short(err))
	}
	fresh, err := g.store.Put(ctx, s.entry)
	switch {
	case err != nil:
		return unavailable(err)
	case !fresh:
		return unavailable(errors.New("it has a session of that name"))
	}
	return guard.Decision{}
}

func (g *Guard) userIndex(subject string) ID { return hashed("user", g.p.Source, g.p.Issuer, subject) }
func (g *Guard) sidIndex(sid string) ID      { return hashed("sid", g.p.Source, g.p.Issuer, sid) }
