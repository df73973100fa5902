// Package identity finds out who makes a request, from what the request shows: a token, an
// API key, or a session's cookie. What it finds is a Principal, and only the verifiers,
// which are the packages below this one, can make one.
//
// It believes nothing that a request says about its caller but what a verifier has proved.
// A request that shows two credentials is refused, as another server could pick the other
// one. A credential that is shown and bad is refused, even where nobody need show any.
//
// It does not protect from somebody who has stolen a bearer token or a key: whoever has it
// is the principal. Short lifetimes, and tokens that are bound to a key (package dpop), make
// that worth less. What browsers send by themselves, a session's cookie, says who the user
// is and nothing about whose page made the request: that is for crosssite and csrf.
package identity

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/moat-gateway/moat/guard"
)

// maxToken is the longest token that anybody is asked about, in bytes.
const maxToken = 16 << 10

// Verifier finds out whose a credential is. It is safe for concurrent use.
type Verifier interface {
	// Recognizes reports whether the text looks like a credential of this kind. It judges
	// nothing, and is cheap.
	Recognizes(text string) bool
	// Verify says whose credential it is. The Decision of one that is good has the reason
	// IdentityVerified. The text is in no Decision, nor is any part of it that is secret.
	Verify(ctx context.Context, text string, now time.Time) (*Principal, guard.Decision)
}

// Policy says which credentials a route accepts. The zero Policy accepts none.
type Policy struct {
	// Sources are the names of those whose word counts here: see Principal.Source.
	Sources []string
	// Bearer are asked about a token in Authorization: the first that recognizes it.
	Bearer []Verifier
	// KeyHeader is the header that may hold an API key, such as X-Api-Key, and Keys is asked
	// about it.
	KeyHeader string
	Keys      Verifier
	// Cookie is the name of the session's cookie, and Sessions is asked about its value.
	Cookie   string
	Sessions Verifier
	// Login is the path where browsers sign in; it stands in the challenge for a session.
	Login string
	// Anonymous lets requests pass that show nothing. They have no Principal.
	Anonymous bool
	// ProofAlgorithms are those of DPoP proofs, for the challenge. Without any DPoP is not spoken.
	ProofAlgorithms []string
}

// Guard is a compiled Policy: immutable, and safe for concurrent use.
type Guard struct {
	p          Policy
	keyHeader  string // in its canonical form, or ""
	challenges []challenge
}

// challenge is one way to say who one is, as WWW-Authenticate tells it (RFC 9110 section 11.6.1).
type challenge struct {
	plain string // what it is when nothing was shown
	error bool   // it has error parameters (RFC 6750 section 3)
}

// New compiles a Policy.
func New(p Policy) *Guard {
	g := &Guard{p: p}
	if p.Keys != nil {
		g.keyHeader = http.CanonicalHeaderKey(p.KeyHeader)
	}
	if len(p.ProofAlgorithms) > 0 {
		g.challenges = append(g.challenges, challenge{`DPoP algs="` + strings.Join(p.ProofAlgorithms, " ") + `"`, true})
	}
	if len(p.Bearer) > 0 {
		g.challenges = append(g.challenges, challenge{`Bearer realm="moat"`, true})
	}
	if p.Keys != nil && len(p.Bearer) == 0 {
		g.challenges = append(g.challenges, challenge{`ApiKey realm="moat", header="` + p.KeyHeader + `"`, false})
	}
	if p.Sessions != nil {
		g.challenges = append(g.challenges, challenge{`Cookie realm="moat", form-action="` + p.Login + `", cookie-name="` + p.Cookie + `"`, false})
	}
	return g
}

// shown is the credential that a request shows.
type shown struct {
	text     string
	where    string // it was found
	verifier Verifier
}

// Decide finds out who makes the request. The Principal is nil if the request is refused, or
// shows nothing where it need not.
func (g *Guard) Decide(r *http.Request, now time.Time) (*Principal, guard.Decision) {
	s, d := g.find(r.Header)
	if d.Denied() {
		return nil, d
	}
	if s.text == "" {
		if g.p.Anonymous {
			return nil, guard.Decision{}
		}
		return nil, guard.Denial(guard.CredentialsMissing, "credentials", "", g.accepted())
	}
	p, d := s.verifier.Verify(r.Context(), s.text, now)
	if d.Denied() {
		return nil, d
	}
	if !slices.Contains(g.p.Sources, p.Source()) {
		return nil, guard.Denial(guard.CredentialsNotAccepted, s.where, p.Method().String()+" of "+p.Source(), "of "+strings.Join(g.p.Sources, " or "))
	}
	return p, d
}

// find finds the one credential. What a caller shows on purpose counts before a cookie,
// which its browser sends in any case.
func (g *Guard) find(h http.Header) (shown, guard.Decision) {
	lines := h["Authorization"]
	var keys []string
	if g.keyHeader != "" {
		keys = h[g.keyHeader]
	}
	switch {
	case len(lines)+len(keys) > 1:
		return shown{}, guard.Denial(guard.CredentialsAmbiguous, "Authorization and API key", "more than one", "one credential")
	case len(keys) == 1:
		return g.key(keys[0])
	case len(lines) == 1:
		return g.bearer(lines[0])
	}
	return g.cookie(h["Cookie"])
}

func (g *Guard) key(text string) (shown, guard.Decision) {
	if len(text) > maxToken || text == "" {
		return shown{}, guard.Denial(guard.CredentialsMalformed, g.keyHeader, "nothing, or too much", "an API key")
	}
	return shown{text, g.keyHeader, g.p.Keys}, guard.Decision{}
}

func (g *Guard) bearer(line string) (shown, guard.Decision) {
	const where = "Authorization"
	scheme, text, _ := strings.Cut(line, " ")
	switch {
	case !strings.EqualFold(scheme, "Bearer") && !strings.EqualFold(scheme, "DPoP"):
		// The scheme may be the credential itself, sent without one.
		return shown{}, guard.Denial(guard.CredentialsNotAccepted, where, "another scheme", g.accepted())
	// What else no token holds is for the verifiers to find, which read it anyway.
	case len(text) > maxToken || text == "" || strings.IndexByte(text, ' ') >= 0 || strings.IndexByte(text, ',') >= 0:
		return shown{}, guard.Denial(guard.CredentialsMalformed, where, "no token, or too long a one", `"Bearer" and a token`)
	}
	for _, v := range g.p.Bearer {
		if v.Recognizes(text) {
			return shown{text, where, v}, guard.Decision{}
		}
	}
	if len(g.p.Bearer) == 0 {
		return shown{}, guard.Denial(guard.CredentialsNotAccepted, where, "a token", g.accepted())
	}
	return shown{}, guard.Denial(guard.TokenMalformed, where, "a text of no known form", g.accepted())
}

// cookie finds the session. A second cookie of the name is one that somebody has planted.
func (g *Guard) cookie(lines []string) (s shown, d guard.Decision) {
	if g.p.Sessions == nil {
		return shown{}, guard.Decision{}
	}
	for _, line := range lines {
		for part := range strings.SplitSeq(line, ";") {
			name, value, _ := strings.Cut(strings.Trim(part, " \t"), "=")
			switch {
			case name != g.p.Cookie || value == "":
			case s.text != "" || len(value) > maxToken:
				return shown{}, guard.Denial(guard.CredentialsAmbiguous, "Cookie", "the session's cookie twice, or too long", "one")
			default:
				s = shown{value, "Cookie", g.p.Sessions}
			}
		}
	}
	return s, guard.Decision{}
}

// accepted says in words what would be accepted.
func (g *Guard) accepted() string {
	return "credentials of " + strings.Join(g.p.Sources, " or ")
}

// SetHeaders tells the client of a refusal how to say who it is, or what was wrong with what
// it said: WWW-Authenticate (RFC 9110 section 11.6.1, RFC 6750 section 3, RFC 9449 section 7.1).
func (g *Guard) SetHeaders(h http.Header, d guard.Decision) {
	if s := d.Reason.Status(); d.Reason.Step() != guard.Identity || s != http.StatusUnauthorized && s != http.StatusBadRequest {
		return
	}
	for _, c := range g.challenges {
		text := c.plain
		if code := errorCode(d.Reason); c.error && code != "" {
			text += `, error="` + code + `", error_description="` + d.Reason.Title() + `"`
		}
		h["Www-Authenticate"] = append(h["Www-Authenticate"], text)
	}
}

// errorCode is the standard's word for a reason.
func errorCode(r guard.Reason) string {
	switch r { //nolint:exhaustive // all others are a bad token.
	case guard.CredentialsMissing, guard.SessionUnknown, guard.SessionExpired:
		return "" // RFC 6750 section 3.1: no error if the request shows nothing
	case guard.CredentialsAmbiguous, guard.CredentialsMalformed:
		return "invalid_request"
	case guard.ProofMissing, guard.ProofInvalid, guard.ProofUsed:
		return "invalid_dpop_proof"
	}
	return "invalid_token"
}

type contextKey struct{}

// FromContext is the Principal that Handler has found, or nil.
func FromContext(ctx context.Context) *Principal {
	p, _ := ctx.Value(contextKey{}).(*Principal)
	return p
}

// Handler refuses what Decide refuses, and passes the rest to next, which asks FromContext. It
// refuses tokens that are bound to a key, too: it asks for no proof, and whoever had stolen one
// would come in. Who serves those calls Decide, and then that of package dpop.
func (g *Guard) Handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p, d := g.Decide(r, time.Now())
		if p != nil && p.Confirmation() != "" {
			d = guard.Denial(guard.ProofMissing, "Authorization", "a token that is bound to a key", "one that is not")
		}
		if d.Denied() {
			g.SetHeaders(w.Header(), d)
			guard.Refuse(w, d.Reason, "")
			return
		}
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), contextKey{}, p)))
	})
}
