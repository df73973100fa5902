package gateway

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"time"

	"github.com/moat-gateway/moat/guard"
	"github.com/moat-gateway/moat/guard/assertion"
	"github.com/moat-gateway/moat/guard/credential"
	"github.com/moat-gateway/moat/web"
)

// CallerCredentials says what becomes of the Authorization and the cookies that a caller
// sends.
type CallerCredentials uint8

const (
	// CallerCredentialsAuto strips them where the upstream has a credential of ours, and
	// passes them where it has none.
	CallerCredentialsAuto CallerCredentials = iota
	// CallerCredentialsStrip removes them, and the cookies that the upstream sets.
	CallerCredentialsStrip
	// CallerCredentialsPass passes them, but for those that ours replaces.
	CallerCredentialsPass
	// CallerCredentialsExchange is Pass, but that a session of ours becomes the access token
	// that the provider gave it.
	CallerCredentialsExchange
)

// ownedHeaders are those that an upstream's credential sets, but for Authorization: no
// client may send them to it, not even as trailers.
func (up *upstream) ownedHeaders() []string {
	if up == nil { // of a fetch route
		return nil
	}
	return up.owned
}

// strip reports whether the caller's credentials end here.
func (c CallerCredentials) strip(up *upstream) bool {
	return c == CallerCredentialsStrip || c == CallerCredentialsAuto && up != nil && up.speaks
}

// setCredential compiles what moat adds to the upstream's requests. Headers that tell the
// upstream who calls it, as a proof that it is moat does, are a secret as well, but replace no
// caller's credential, unless they set Authorization.
func (up *upstream) setCredential(u Upstream, old *upstream) error {
	up.speaks = !u.Credential.Zero()
	p := u.Credential
	for name := range p.Headers {
		if web.FoldName(name) != "authorization" {
			up.owned = append(up.owned, name)
		}
	}
	p.Headers = maps.Clone(p.Headers)
	for name, value := range u.Headers {
		if p.Headers == nil {
			p.Headers = make(map[string]string)
		}
		if _, twice := p.Headers[name]; twice {
			return fmt.Errorf("headers: %q: set twice", name)
		}
		p.Headers[name] = value
		up.speaks = up.speaks || web.FoldName(name) == "authorization"
	}
	if p.Zero() {
		return nil
	}
	var before *credential.Guard
	if old != nil {
		before = old.credential
	}
	var err error
	if up.credential, err = credential.New(p, before); err != nil {
		return fmt.Errorf("credential: %w", err)
	}
	return nil
}

// contradicts finds a header that both a credential and the caller's identity would set.
func (up *upstream) contradicts(u Upstream) error {
	taken := make(map[string]bool)
	for _, name := range up.owned {
		taken[web.FoldName(name)] = true
	}
	for name := range u.Headers {
		taken[web.FoldName(name)] = true
	}
	if t := u.Identity.Token; t != nil && up.speaks && web.FoldName(t.Header) == "authorization" {
		return errors.New("the token goes into Authorization, which the upstream's own credential sets; name another header")
	}
	for _, name := range up.identity.Names() {
		if taken[web.FoldName(name)] {
			return fmt.Errorf("%s: the upstream's headers or credential set it, too", name)
		}
	}
	return nil
}

// authenticate puts the upstream's credential into the request, in the place of the caller's.
func (o *outgoing) authenticate(st *state, x *exchange, r *http.Request) (d guard.Decision) {
	if x.route.stripCaller {
		credential.StripCaller(r.Header)
	}
	if x.route.stripCaller || x.route.stripShown {
		delete(r.Header, "Authorization")
		delete(r.Header, "Dpop")
		delete(r.Header, x.route.keyHeader)
	}
	if x.route.stripKeys {
		st.auth.dropKeys(r.Header)
	}
	if x.session != "" {
		var token string
		if token, d = st.auth.logins[x.caller.Source()].AccessToken(r.Context(), x.session, time.Now()); d.Denied() {
			return d
		}
		r.Header["Authorization"] = []string{"Bearer " + token}
	}
	if i := x.route.upstream.identity; i != nil {
		if x.route.modes[guard.Scrub] != guard.Enforce {
			i.Scrub(r.Header)
		}
		if err := i.Set(r.Header, x.caller, time.Now()); errors.Is(err, assertion.ErrExpired) {
			return guard.Denial(guard.TokenExpired, "exp", "now", "a token that lasts until the upstream has been told")
		} else if err != nil {
			return guard.Denial(guard.CredentialUnavailable, "the caller's identity", err.Error(), "one that fits into a header")
		}
	}
	if c := x.route.upstream.credential; c != nil {
		o.sent, d = c.Use(r.Context(), r.Header, &o.url)
	}
	return d
}

// confidential keeps the credential, and the cookies that go with it, out of the
// upstream's answer.
func (g *Gateway) confidential(st *state, x *exchange, o *outgoing, r *http.Request, res *http.Response) guard.Decision {
	if x.route.stripCaller {
		// A session that the upstream opens is one of ours with it, not the caller's.
		delete(res.Header, "Set-Cookie")
	}
	if o.sent == nil {
		return guard.Decision{}
	}
	y := *x // the closure outlives this frame; the others' x need not
	return o.sent.Answer(res, func(where string) {
		g.obs.record(st, &y, r, guard.Decision{
			Reason: guard.CredentialEchoed, Evidence: guard.Evidence{Where: where, Want: "an answer that does not repeat the request's credential"},
		}, guard.Enforce)
	})
}

// errorText is an error about the upstream, without what must not be told.
func (o *outgoing) errorText(err error) string {
	if o.sent == nil {
		return err.Error()
	}
	return o.sent.Text(err.Error())
}
