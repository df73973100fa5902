// Package authorization decides what a known caller may do: with scopes, roles, claims, and
// a condition over the caller, the request and the values in its path. The last is for the
// check that a valid token alone never makes, whose object this is:
//
//	path.sub == principal.sub
//
// It believes the Principal, whom package identity has verified, and nothing else. What the
// request says is compared with that, never taken for it: see the variables at New.
//
// It does not protect objects whose owner only the upstream knows. Names match as a whole:
// "orders" is no "orders:read", and neither implies the other. What cannot be decided, for
// want of a claim or because it costs too much, is denied.
package authorization

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/moat-gateway/moat/guard"
	"github.com/moat-gateway/moat/guard/identity"
)

// Policy is what a caller must have, all of it. The zero Policy asks for nothing: whether
// somebody need say who he is, is for package identity.
type Policy struct {
	// Scopes must all be among the principal's.
	Scopes []string
	// Roles are enough one by one.
	Roles []string
	// Claims must each have the value, a string, bool or int64, or be a list that contains it.
	// They are named as Principal.Claim has it.
	Claims map[string]any
	// Condition is an expression in CEL (https://cel.dev) that must be true: see New.
	Condition string
	// Pattern is the route's, as a http.ServeMux has it. Its wildcards are the values that the
	// Condition knows as path.NAME.
	Pattern string
}

// Guard is a compiled Policy: immutable, and safe for concurrent use.
type Guard struct {
	scopes, roles []string
	claims        []claim
	condition     *condition // or nil
	challenge     []string   // WWW-Authenticate for whom a scope fails
}

// claim is what a claim must be.
type claim struct {
	path string
	want any
}

// New compiles a Policy. Everything that is wrong with it is told at once.
//
// A Condition knows these variables. What a caller or a request does not have is an error
// where it is used, and so a refusal; it is never an empty text that equals another one.
//
//	principal.anonymous  bool; of somebody unknown all else is an error
//	principal.sub        string, the subject
//	principal.iss        string, the issuer; API keys have none
//	principal.source     string, the configuration's name for the issuer
//	principal.method     string: jwt, api_key, introspection, session
//	principal.credential string, the token's jti or the key's id
//	principal.scopes     list(string)
//	principal.roles      list(string)
//	principal.claims     map(string, dyn)
//	request.method       string
//	request.host         string, in lower case and without the port
//	request.path         string, decoded; one with dot segments is none
//	request.query        map(string, list(string)), decoded; all values of a name
//	request.time         timestamp
//	path.NAME            string, the value of {NAME} or {NAME...} in the Pattern, decoded once
func New(p Policy) (*Guard, error) {
	g := &Guard{scopes: slices.Clone(p.Scopes), roles: slices.Clone(p.Roles)}
	var errs []error
	for _, s := range p.Scopes {
		if !isScope(s) {
			errs = append(errs, fmt.Errorf("scope %q: not a scope; use printable ASCII without blanks, quotes and backslashes (RFC 6749 section 3.3)", s))
		}
	}
	if slices.Contains(p.Roles, "") {
		errs = append(errs, errors.New("a role has no name"))
	}
	for _, path := range slices.Sorted(maps.Keys(p.Claims)) {
		want := p.Claims[path]
		switch want.(type) {
		case string, bool, int64:
		default:
			errs = append(errs, fmt.Errorf("claim %q: compared with a %T; use a text, a whole number, true or false, or a condition", path, want))
		}
		g.claims = append(g.claims, claim{path, want})
	}
	if p.Condition != "" {
		var err error
		if g.condition, err = compile(p.Condition, p.Pattern); err != nil {
			errs = append(errs, err)
		}
	}
	g.challenge = []string{`Bearer error="insufficient_scope", scope="` + strings.Join(p.Scopes, " ") + `"`}
	return g, errors.Join(errs...)
}

// isScope reports whether s is a scope-token.
func isScope(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(c rune) bool { return c <= ' ' || c > '~' || c == '"' || c == '\\' })
}

// Decide judges a request of the principal, who is nil if nobody has said who he is. Whom
// nobody knows has no scope, no role and no claim.
func (g *Guard) Decide(p *identity.Principal, r *http.Request, now time.Time) guard.Decision {
	for _, s := range g.scopes {
		if p == nil || !p.HasScope(s) {
			return guard.Denial(guard.AuthorizationScopeMissing, "scopes", has(p, (*identity.Principal).Scopes), s)
		}
	}
	if len(g.roles) > 0 && (p == nil || !slices.ContainsFunc(g.roles, p.HasRole)) {
		return guard.Denial(guard.AuthorizationRoleMissing, "roles", has(p, (*identity.Principal).Roles), strings.Join(g.roles, " or "))
	}
	for _, c := range g.claims {
		if p == nil {
			return guard.Denial(guard.AuthorizationClaimDiffers, "claim "+c.path, nobody, text(c.want))
		}
		if got, ok := p.Claim(c.path); !ok {
			return guard.Denial(guard.AuthorizationClaimDiffers, "claim "+c.path, "no such claim", text(c.want))
		} else if !equals(got, c.want) {
			return guard.Denial(guard.AuthorizationClaimDiffers, "claim "+c.path, text(got), text(c.want))
		}
	}
	if g.condition == nil {
		return guard.Decision{}
	}
	return g.condition.decide(p, r, now)
}

const nobody = "nobody is known"

// has is what the principal has of a kind, to the operator.
func has(p *identity.Principal, list func(*identity.Principal) []string) string {
	if p == nil {
		return nobody
	}
	return strings.Join(list(p), " ")
}

// equals reports whether a claim is the value, or a list that contains it.
func equals(got, want any) bool {
	switch got := got.(type) {
	case string, bool, int64:
		return got == want
	case []any:
		// An element may be a list or an object, which cannot be compared by ==.
		return slices.ContainsFunc(got, func(e any) bool {
			switch e.(type) {
			case string, bool, int64:
				return e == want
			}
			return false
		})
	}
	return false
}

// text is a claim's value to the operator. A list or an object may hold anything about a
// person, so it is told by its kind.
func text(v any) string {
	switch v := v.(type) {
	case string:
		return strconv.Quote(v[:min(len(v), 128)])
	case bool, int64, float64:
		return fmt.Sprint(v)
	case []any:
		return fmt.Sprintf("a list of %d without it", len(v))
	case nil:
		return "null"
	}
	return "an object"
}

// SetHeaders tells a client whose scopes do not suffice which it needs (RFC 6750 section 3.1).
// Roles, claims and conditions are not told: no token that it could ask for has them.
func (g *Guard) SetHeaders(h http.Header, d guard.Decision) {
	if d.Denied() && d.Reason == guard.AuthorizationScopeMissing {
		h["Www-Authenticate"] = append(h["Www-Authenticate"], g.challenge...)
	}
}

// Handler refuses what Decide refuses, and passes the rest to next. It asks for whom the
// Handler of package identity, in front of it, has found.
func (g *Guard) Handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if d := g.Decide(identity.FromContext(r.Context()), r, time.Now()); d.Denied() {
			g.SetHeaders(w.Header(), d)
			guard.Refuse(w, d.Reason, "")
			return
		}
		next.ServeHTTP(w, r)
	})
}
