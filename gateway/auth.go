package gateway

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/moat-gateway/moat/guard"
	"github.com/moat-gateway/moat/guard/assertion"
	"github.com/moat-gateway/moat/guard/authorization"
	"github.com/moat-gateway/moat/guard/bounds"
	"github.com/moat-gateway/moat/guard/challenge"
	"github.com/moat-gateway/moat/guard/cors"
	"github.com/moat-gateway/moat/guard/crosssite"
	"github.com/moat-gateway/moat/guard/csrf"
	"github.com/moat-gateway/moat/guard/identity"
	"github.com/moat-gateway/moat/guard/identity/apikey"
	"github.com/moat-gateway/moat/guard/identity/dpop"
	"github.com/moat-gateway/moat/guard/identity/introspection"
	"github.com/moat-gateway/moat/guard/identity/jwt"
	"github.com/moat-gateway/moat/guard/identity/session"
	"github.com/moat-gateway/moat/guard/ratelimit"
	"github.com/moat-gateway/moat/store/memory"
	"github.com/moat-gateway/moat/web"
)

// Callers is how callers say who they are. Routes name the sources that they accept.
type Callers struct {
	JWT           []jwt.Issuer
	Keys          []Keys
	Introspection []introspection.Policy
	Logins        []session.Policy
	// Sessions is the store that processes share their sessions through; nil keeps them in this one.
	Sessions session.Store
	// RateLimits are those on signing in.
	RateLimits []ratelimit.Rule
	// CSRF is how pages prove that they are those of the session. Its SessionCookies are the
	// upstreams' own; those of Logins are added. Without a secret the process has one of its own.
	CSRF csrf.Policy
	// Origins lists the pages that may get a CSRF token and see their session, beside those
	// that are same-origin.
	Origins *web.OriginSet
	// IdentityKeys sign what upstreams are told, the newest first. Without any the process has
	// one of its own.
	IdentityKeys []crypto.Signer
}

// Keys are API keys, and the header that holds one.
type Keys struct {
	Source, Header string
	// Set is what keys there are; nil stands for none.
	Set *apikey.Set
}

// CSRFUse is what a route does about requests that no session makes.
type CSRFUse uint8

const (
	// CSRFAuto asks for a token where a session's cookie comes along.
	CSRFAuto CSRFUse = iota
	// CSRFRequire asks for one in any case, as a login form needs.
	CSRFRequire
)

// auth is a compiled Callers.
type auth struct {
	jwt    *jwt.Verifier // or nil
	keys   map[string]keys
	asked  map[string]*introspection.Verifier
	logins map[string]*session.Guard
	proofs *dpop.Guard
	csrf   *csrf.Guard // or nil if no cookie says who calls
	signer *assertion.Signer
}

type keys struct {
	verifier *apikey.Verifier
	header   string // in its canonical form
	folded   string // as careless servers compare it
}

// dropKeys takes API keys out of a request, also those that nobody has asked for: each is
// between its owner and the gate.
func (a *auth) dropKeys(h http.Header) {
	for _, k := range a.keys {
		for name, lines := range h { // servers read X_Api_Key for X-Api-Key, too
			if len(name) == len(k.header) && web.FoldName(name) == k.folded && slices.ContainsFunc(lines, k.verifier.Recognizes) {
				delete(h, name)
			}
		}
		if slices.ContainsFunc(h["Authorization"], func(line string) bool {
			_, text, _ := strings.Cut(line, " ")
			return k.verifier.Recognizes(text)
		}) {
			delete(h, "Authorization")
		}
	}
}

// compileAuth compiles what routes identify their callers with. What outlives a reload is
// taken over from the configuration before.
func (g *Gateway) compileAuth(s *state, c *Config) error {
	if c.Callers == nil {
		return nil
	}
	s.auth.keys, s.auth.asked, s.auth.logins = make(map[string]keys), make(map[string]*introspection.Verifier), make(map[string]*session.Guard)
	a, before := s.auth, &auth{}
	if old := g.state.Load(); old != nil {
		before = old.auth
	}
	var errs []error
	var err error
	if len(c.Callers.JWT) > 0 {
		if a.jwt, err = jwt.New(jwt.Policy{Issuers: c.Callers.JWT}, before.jwt); err != nil {
			errs = append(errs, err)
		}
	}
	if len(c.Callers.JWT)+len(c.Callers.Introspection) > 0 { // whose tokens may be bound
		if err = g.compileProofs(a, c); err != nil {
			errs = append(errs, err)
		}
	}
	for _, k := range c.Callers.Keys {
		if k.Set == nil {
			k.Set = new(apikey.Set)
		}
		a.keys[k.Source] = keys{apikey.New(apikey.Policy{Source: k.Source, Keys: k.Set}), http.CanonicalHeaderKey(k.Header), web.FoldName(k.Header)}
	}
	for _, p := range c.Callers.Introspection {
		if a.asked[p.Source], err = introspection.New(p, before.asked[p.Source]); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", p.Source, err))
		}
	}
	sessions := c.Callers.Sessions
	if sessions == nil && len(c.Callers.Logins) > 0 {
		if g.sessions == nil {
			g.sessions = memory.NewSessions(sessionBytes)
		}
		sessions = g.sessions
	}
	ambient := slices.Clone(c.Callers.CSRF.SessionCookies)
	for _, p := range c.Callers.Logins {
		p.Public = s.public
		login, lErr := session.New(p, sessions, before.logins[p.Source])
		if lErr != nil {
			errs = append(errs, fmt.Errorf("%s: %w", p.Source, lErr))
			continue
		}
		a.logins[p.Source] = login
		ambient = append(ambient, login.Cookie())
	}
	if len(ambient) > 0 {
		if err = g.compileCSRF(s, c, ambient); err != nil {
			errs = append(errs, err)
		}
	}
	// After CSRF: a page of another origin that signs its user out sends its token along, as with each call.
	for _, p := range c.Callers.Logins {
		if login := a.logins[p.Source]; login != nil {
			if err = g.compileLogin(s, c, p.Source, login); err != nil {
				errs = append(errs, err)
			}
		}
	}
	if err = g.compileSigner(s, c); err != nil {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// sessionBytes is what this process takes for the sessions that it keeps itself.
const sessionBytes = 64 << 20

// compileProofs remembers used proofs where sessions are kept, if processes share that, and in
// memory that outlives reloads if not.
func (g *Gateway) compileProofs(a *auth, c *Config) (err error) {
	if shared := c.Callers.Sessions; shared != nil {
		a.proofs, err = dpop.New(dpop.Policy{Once: func(ctx context.Context, id uint64, expires time.Time) (bool, error) {
			return shared.Put(ctx, session.Entry{ID: sha256.Sum256(binary.BigEndian.AppendUint64([]byte("dpop "), id)), Expires: expires})
		}})
		return err
	}
	if g.proofs == nil {
		if g.proofs, err = dpop.New(dpop.Policy{Since: time.Now()}); err != nil {
			return err
		}
	}
	a.proofs = g.proofs
	return nil
}

// processSecret is what the process makes up where the configuration has no secret.
func (g *Gateway) processSecret() ([]byte, error) {
	if g.secret == nil {
		g.secret = make([]byte, 32)
		if _, err := rand.Read(g.secret); err != nil {
			return nil, err
		}
	}
	return g.secret, nil
}

func (g *Gateway) compileCSRF(s *state, c *Config, ambient []string) (err error) {
	p := c.Callers.CSRF
	p.OwnCookies = ambient[len(p.SessionCookies):]
	p.SessionCookies = ambient
	if len(p.Secrets) == 0 {
		secret, sErr := g.processSecret()
		if sErr != nil {
			return fmt.Errorf("csrf: %w", sErr)
		}
		p.Secrets = [][]byte{secret}
	}
	if s.auth.csrf, err = csrf.New(p); err != nil {
		return fmt.Errorf("csrf: %w", err)
	}
	_, err = g.compileOwn(s, c, Route{
		Name: "moat csrf", Pattern: "GET " + OwnPath + "csrf", Auth: AuthPublic, Origins: c.Callers.Origins,
		CORS: cors.Policy{Credentials: true, MaxAge: cors.ChromeMaxAge}, Bounds: bounds.Policy{BodyIdle: ownBodyIdle},
	}, func(_ *state, x *exchange, w http.ResponseWriter, r *http.Request) {
		x.route.stats.count(guard.OK, guard.Enforce)
		s.auth.csrf.Issue(w, r, time.Now())
	})
	return err
}

// compileSigner publishes the keys with which upstreams verify what they are told.
func (g *Gateway) compileSigner(s *state, c *Config) error {
	if !slices.ContainsFunc(slices.Collect(maps.Values(c.Upstreams)), func(u Upstream) bool { return u.Identity.Token != nil }) {
		return nil
	}
	signers := c.Callers.IdentityKeys
	if len(signers) == 0 {
		if g.signer == nil {
			key, err := assertion.GenerateKey()
			if err != nil {
				return fmt.Errorf("identity keys: %w", err)
			}
			g.signer = key
		}
		signers = []crypto.Signer{g.signer}
	}
	issuer := ""
	if len(c.PublicOrigins) > 0 {
		issuer = c.PublicOrigins[0].String()
	}
	signer, err := assertion.NewSigner(signers, issuer)
	if err != nil {
		return fmt.Errorf("identity keys: %w", err)
	}
	s.auth.signer = signer
	everybody, _ := web.NewOriginSet([]string{"*"}, web.OriginSetOptions{}) // has no fault
	_, err = g.compileOwn(s, c, Route{
		Name: "moat keys", Pattern: "GET " + OwnPath + "jwks.json", Auth: AuthPublic, Origins: everybody,
		CrossSite: crosssite.Policy{AllowEmbed: true, AllowBrowserless: true}, Bounds: bounds.Policy{BodyIdle: ownBodyIdle},
	}, func(_ *state, x *exchange, w http.ResponseWriter, _ *http.Request) {
		x.route.stats.count(guard.OK, guard.Enforce)
		h := w.Header()
		h["Content-Type"], h["Cache-Control"] = []string{"application/jwk-set+json"}, []string{"public, max-age=300"}
		w.Write(signer.JWKS())
	})
	return err
}

// compileLogin serves what signs users in and out.
func (g *Gateway) compileLogin(s *state, c *Config, name string, login *session.Guard) error {
	type handler = func(w http.ResponseWriter, r *http.Request, now time.Time) guard.Decision
	for _, own := range []struct {
		pattern string
		handle  handler
		route   Route
	}{
		// Links and bookmarks of other sites may lead here: it begins what only this browser can finish.
		{"GET " + OwnPath + "login/", login.Login, Route{CrossSite: crosssite.Policy{AllowBrowserless: true}, RateLimits: c.Callers.RateLimits}},
		// The provider sends the browser here, from its own site. State, nonce and PKCE say whose answer it is.
		{"GET " + OwnPath + "callback/", login.Callback, Route{CrossSite: crosssite.Policy{AllowBrowserless: true}, RateLimits: c.Callers.RateLimits}},
		{"POST " + OwnPath + "logout/", login.Logout, Route{Origins: c.Callers.Origins, CORS: cors.Policy{Credentials: true}, Bounds: bounds.Policy{BodyBytes: 4 << 10}}},
		// The provider itself calls, with a token that it has signed.
		{"POST " + OwnPath + "backchannel/", login.Backchannel, Route{CrossSite: crosssite.Policy{AllowBrowserless: true}, Bounds: bounds.Policy{BodyBytes: 64 << 10}}},
		{"GET " + OwnPath + "session/", login.Info, Route{Origins: c.Callers.Origins, CORS: cors.Policy{Credentials: true}}},
	} {
		r := own.route
		_, word, _ := strings.Cut(own.pattern, OwnPath)
		r.Name, r.Pattern, r.Auth, r.Bounds.BodyIdle = "moat "+word+name, own.pattern+name, AuthPublic, ownBodyIdle
		if _, err := g.compileOwn(s, c, r, func(st *state, x *exchange, w http.ResponseWriter, r *http.Request) {
			r.Body = x.route.bounds.Body(w, r, nil)
			switch d := own.handle(w, r, time.Now()); {
			case !d.Denied():
				x.route.stats.count(guard.OK, guard.Enforce)
			case challenge.WantsPage(r) && d.Reason != guard.RequestAborted:
				session.WritePage(w, d.Reason, g.obs.record(st, x, r, d, guard.Enforce), OwnPath+"login/"+name)
			default:
				g.end(st, x, w, r, d)
			}
		}); err != nil {
			return err
		}
	}
	return nil
}

// ownBodyIdle is how long a body that the gate itself reads may pause.
const ownBodyIdle = 10 * time.Second

// compileIdentity compiles who may call a route.
func (rt *route) compileIdentity(s *state, c *Config, r *Route) error {
	a := s.auth
	if r.Auth == AuthPublic && len(r.Sources) == 0 {
		return nil
	}
	p := identity.Policy{Sources: r.Sources, Anonymous: r.Anonymous}
	var errs []error
	twice := func(kind string) {
		errs = append(errs, fmt.Errorf("auth: names two of the kind %s; a route can have one", kind))
	}
	var bearer []identity.Verifier // asked last, since it recognizes every text
	for _, name := range r.Sources {
		key, isKey := a.keys[name]
		asked, isAsked := a.asked[name]
		login, isLogin := a.logins[name]
		switch {
		case isKey && p.Keys != nil:
			twice("api_key")
		case isKey:
			p.Keys, p.KeyHeader = key.verifier, key.header
			p.Bearer = append([]identity.Verifier{key.verifier}, p.Bearer...)
		case isAsked && bearer != nil:
			twice("introspection")
		case isAsked:
			bearer = []identity.Verifier{asked}
			p.ProofAlgorithms = a.proofs.Algorithms()
		case isLogin && p.Sessions != nil:
			twice("login")
		case isLogin:
			p.Sessions, p.Cookie, p.Login, rt.login = login, login.Cookie(), OwnPath+"login/"+name, login
		case c.Callers != nil && slices.ContainsFunc(c.Callers.JWT, func(i jwt.Issuer) bool { return i.Source == name }):
			if !slices.Contains(p.Bearer, identity.Verifier(a.jwt)) {
				p.Bearer = append(p.Bearer, a.jwt)
				p.ProofAlgorithms = a.proofs.Algorithms()
			}
		default:
			errs = append(errs, fmt.Errorf("auth: %q: not defined", name))
		}
	}
	p.Bearer = append(p.Bearer, bearer...)
	rt.identity, rt.sources, rt.keyHeader = identity.New(p), r.Sources, http.CanonicalHeaderKey(p.KeyHeader)
	if a := &r.Authorize; len(a.Scopes)+len(a.Roles)+len(a.Claims) == 0 && a.Condition == "" {
		return errors.Join(errs...) // whoever is known may call
	}
	r.Authorize.Pattern = r.Pattern
	var err error
	if rt.authorization, err = authorization.New(r.Authorize); err != nil {
		errs = append(errs, fmt.Errorf("authorize: %w", err))
	}
	return errors.Join(errs...)
}

// identify finds out who makes the request.
func (s *state) identify(x *exchange, r *http.Request) (d guard.Decision) {
	if p := x.assumed.Caller; p != nil {
		if !slices.Contains(x.route.sources, p.Source()) {
			return guard.Denial(guard.CredentialsNotAccepted, "the test's caller", p.Source(), "of "+strings.Join(x.route.sources, " or "))
		}
		x.caller = p
		return guard.Decision{Reason: guard.IdentityVerified}
	}
	if x.dry { // judging on paper asks nobody over the network
		ctx, cancel := context.WithCancel(r.Context())
		cancel()
		r = r.WithContext(ctx)
	}
	now := time.Now()
	p, d := x.route.identity.Decide(r, now)
	if d.Denied() || p == nil {
		return d
	}
	if p.Ambient() && x.route.exchange {
		if c, err := r.Cookie(s.auth.logins[p.Source()].Cookie()); err == nil {
			x.session = c.Value
		}
	}
	if s.auth.proofs != nil {
		if proof := s.auth.proofs.Decide(r.Context(), r, p, x.target(r), now); proof.Denied() {
			return proof
		}
	}
	x.caller = p
	return d
}

// target is where the request went, as its client has named it.
func (x *exchange) target(r *http.Request) dpop.Target {
	if x.secure {
		return dpop.Target{Scheme: "https", Host: r.Host}
	}
	return dpop.Target{Scheme: "http", Host: r.Host}
}

// forged judges whether another site's page could have made a request that a cookie speaks for.
func (s *state) forged(x *exchange, r *http.Request) guard.Decision {
	if x.assumed.CSRF {
		return guard.Decision{Reason: guard.CSRFTokenValid}
	}
	x.bound(r) // it may look for the token in a form
	return s.auth.csrf.Decide(r, csrf.Facts{
		Now: time.Now(), Require: x.route.csrf == CSRFRequire, SideEffects: x.route.sideEffects,
		Ambient: x.caller != nil && x.caller.Ambient(), Explicit: x.caller != nil && !x.caller.Ambient(),
	})
}

// signsIn reports whether a refusal is worth sending the browser to sign in: a person has
// navigated there, and has no session that lasts.
func (x *exchange) signsIn(r *http.Request, d guard.Decision) bool {
	switch d.Reason { //nolint:exhaustive // no other is mended by signing in.
	case guard.CredentialsMissing, guard.SessionUnknown, guard.SessionExpired:
		return x.route.login != nil && challenge.WantsPage(r)
	}
	return false
}

// signIn sends a browser to sign in, and then back.
func (g *Gateway) signIn(st *state, x *exchange, w http.ResponseWriter, r *http.Request, d guard.Decision) {
	g.obs.record(st, x, r, d, guard.Enforce)
	g.patience(w, r)(true)
	h := w.Header()
	h["Cache-Control"], h["Referrer-Policy"] = []string{"no-store"}, []string{"no-referrer"}
	h["Location"] = []string{x.route.login.SignIn(r.URL.RequestURI())}
	w.WriteHeader(http.StatusSeeOther)
}

// wrong reports whether a refusal is one of credentials that are wrong, and not merely absent
// or old: guessing costs more than calling.
func wrong(r guard.Reason) bool {
	switch r { //nolint:exhaustive // these are all that honest clients meet too, or that are our own fault.
	case guard.CredentialsMissing, guard.TokenExpired, guard.APIKeyExpired, guard.SessionUnknown, guard.SessionExpired, guard.IdentityUnavailable:
		return false
	}
	return r.Step() == guard.Identity
}

// failed lets an attempt to get into an account pay that the upstream has refused.
func (s *state) failed(x *exchange, r *http.Request, status int) {
	if x.route.account != "" && (status == http.StatusUnauthorized || status == http.StatusForbidden) {
		s.pay(x, r, x.route.cost.FailedAuth)
	}
}
