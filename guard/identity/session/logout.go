package session

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/moat-gateway/moat/guard"
	"github.com/moat-gateway/moat/guard/identity/internal/principal"
)

const (
	// maxForm bounds the body of a request to sign out.
	maxForm = 32 << 10
	// tokenAge is how old a logout token may be, and how far in the future.
	tokenAge = 5 * time.Minute
)

func subjectOf(claims []byte) string {
	c, err := principal.ParseClaims(claims)
	if err != nil {
		return ""
	}
	sub, _ := c["sub"].(string)
	return sub
}

// Logout ends the session of a browser; with everywhere=1, in the query or a form, all
// sessions of its user. A navigation is sent on, to the path in return, to the provider, or
// home. Script gets the place to go to as JSON.
//
// It does not look at whose page asks: crosssite and csrf have done so before.
func (g *Guard) Logout(w http.ResponseWriter, r *http.Request, now time.Time) guard.Decision {
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	if err := r.ParseForm(); err != nil {
		if _, large := errors.AsType[*http.MaxBytesError](err); large {
			return guard.Denial(guard.BodyTooLarge, "the form", "more", strconv.Itoa(maxForm)+" bytes")
		}
		return guard.Denial(guard.LoginReturnNotAllowed, "the form", "malformed, or cut off", "a form")
	}
	back, d := g.returnPath(r.Form)
	if d.Denied() {
		return d
	}
	origin, d := g.origin(r)
	if d.Denied() {
		return d
	}
	s, d := g.ofBrowser(r, now)
	switch {
	case d.Reason == guard.IdentityUnavailable:
		return d // the cookie is kept, so that the user can try again
	case !d.Denied():
		if d = g.forget(r, s, r.Form.Get("everywhere") == "1"); d.Denied() {
			return d
		}
	}
	setCookie(w, g.Cookie(), "", 0)
	// Not "cookies": that would reach other hosts of the site. Not "storage": that is the page's.
	w.Header().Set("Clear-Site-Data", `"cache"`)
	to := origin + back
	navigates := r.Header.Get("Sec-Fetch-Mode") == "navigate" || r.Header.Get("Sec-Fetch-Mode") == "" && strings.Contains(r.Header.Get("Accept"), "text/html")
	if g.p.SignOutAtProvider {
		if p, d := g.provider.get(r.Context(), now); !d.Denied() && p.end != "" {
			to = g.endURL(p, origin, s, navigates)
		}
	}
	if navigates {
		redirect(w, http.StatusSeeOther, to)
		return guard.Decision{}
	}
	return answer(w, struct {
		Location string `json:"location"`
	}{to})
}

func (g *Guard) forget(r *http.Request, s *session, everywhere bool) guard.Decision {
	if everywhere {
		if err := g.store.DeleteAll(r.Context(), g.userIndex(subjectOf(s.record.Claims))); err != nil {
			return unavailable(err)
		}
	}
	if err := g.store.Delete(r.Context(), s.entry.ID); err != nil {
		return unavailable(err)
	}
	return guard.Decision{}
}

// endURL is where the provider ends its own session (OpenID Connect RP-Initiated Logout). Script
// is not given the ID token: without, the provider asks the user.
func (g *Guard) endURL(p *provider, origin string, s *session, navigates bool) string {
	u, err := url.Parse(p.end)
	if err != nil {
		panic(err) // it has been checked
	}
	q := u.Query()
	q.Set("client_id", g.p.ClientID)
	q.Set("post_logout_redirect_uri", origin+g.p.Home)
	if s != nil && navigates {
		q.Set("id_token_hint", s.record.IDToken)
	}
	u.RawQuery = q.Encode()
	return u.String()
}

// event is the name that a logout token has for what it is about.
const event = "http://schemas.openid.net/event/backchannel-logout"

// Backchannel is where the provider says that a user has signed out there (OpenID Connect
// Back-Channel Logout 1.0). Who asks is told by the token alone.
func (g *Guard) Backchannel(w http.ResponseWriter, r *http.Request, now time.Time) guard.Decision {
	const where = "logout_token"
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	if err := r.ParseForm(); err != nil {
		return guard.Denial(guard.TokenMalformed, where, "a body that is too large, or malformed", "a form")
	}
	raw := r.PostForm[where]
	if len(raw) != 1 {
		return guard.Denial(guard.TokenMalformed, where, "none, or more than one", "one")
	}
	p, d := g.provider.get(r.Context(), now)
	if d.Denied() {
		return d
	}
	ctx, cancel := g.provider.context(r.Context())
	defer cancel()
	t, err := p.verify(ctx, raw[0], now)
	switch {
	case errors.Is(err, errKeys):
		return g.provider.unavailable(short(err))
	case err != nil:
		return guard.Denial(guard.TokenSignatureInvalid, where, short(err), "a token that the provider has signed for this client, and that has not expired")
	}
	claims, err := parse(t)
	if err != nil {
		return guard.Denial(guard.TokenMalformed, where, short(err), "claims")
	}
	var c struct {
		JTI    string                     `json:"jti"`
		SID    string                     `json:"sid"`
		Events map[string]json.RawMessage `json:"events"`
	}
	if err = t.Claims(&c); err != nil {
		return guard.Denial(guard.TokenMalformed, where, "claims of other types", "those of a logout token")
	}
	_, nonce := claims["nonce"]
	what, isLogout := c.Events[event]
	switch {
	case nonce || !isLogout || !strings.HasPrefix(string(what), "{"):
		// An ID token must not pass for one (section 2.6 of the standard).
		return guard.Denial(guard.TokenClaimMissing, where, "no logout event, or a nonce", event)
	case c.JTI == "" || len(c.JTI) > 255 || t.Subject == "" && c.SID == "":
		return guard.Denial(guard.TokenClaimMissing, where, "no jti, or neither sub nor sid", "both")
	case t.IssuedAt.Before(now.Add(-tokenAge)) || t.IssuedAt.After(now.Add(tokenAge)):
		return guard.Denial(guard.TokenExpired, where, "issued at "+t.IssuedAt.UTC().Format(time.RFC3339), "a time within "+tokenAge.String()+" of now")
	}
	// After a new login it would end that one too.
	used := hashed("jti", g.p.Source, g.p.Issuer, c.JTI)
	first, err := g.store.Put(r.Context(), Entry{ID: used, Expires: t.IssuedAt.Add(3 * tokenAge)})
	switch {
	case err != nil:
		return unavailable(err)
	case !first:
		return guard.Denial(guard.TokenRevoked, where, "one that was used before", "a new one")
	}
	index := g.userIndex(t.Subject)
	if c.SID != "" {
		index = g.sidIndex(c.SID)
	}
	if err := g.store.DeleteAll(r.Context(), index); err != nil {
		g.store.Delete(r.Context(), used) //nolint:errcheck // then the provider's next attempt is refused too.
		return unavailable(err)
	}
	w.Header()["Cache-Control"] = []string{"no-store"}
	w.WriteHeader(http.StatusOK)
	return guard.Decision{}
}
