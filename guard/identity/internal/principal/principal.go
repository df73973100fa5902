// Package principal makes Principals. It is internal, so that only a verifier, which is a
// package below guard/identity, can make one: the compiler keeps everybody else from
// claiming that somebody has been identified.
package principal

import (
	"slices"
	"strings"
	"time"
)

// Method is how somebody was identified.
type Method uint8

// The methods. Session is the only one whose credential a browser sends by itself.
const (
	JWT Method = iota + 1
	APIKey
	Introspection
	Session
)

var methods = [...]string{JWT: "jwt", APIKey: "api_key", Introspection: "introspection", Session: "session"}

func (m Method) String() string {
	if m > 0 && int(m) < len(methods) {
		return methods[m]
	}
	return "unknown"
}

// Facts are what a verifier has found out.
type Facts struct {
	// Source is the name that the configuration has for whoever vouches.
	Source string
	Method Method
	// Issuer is who gave Subject its name: one for each Source. It is "" for API keys, whose
	// Subject is the owner that the operator wrote down.
	Issuer, Subject string
	// Scopes and Roles, each sorted and without duplicates by New.
	Scopes, Roles []string
	// Claims are JSON values as ParseClaims makes them. They are not changed afterwards.
	Claims map[string]any
	// Expires is when the credential stops being good; zero for never.
	Expires time.Time
	// Credential names the credential without being it: an API key's id, a token's jti, a
	// session's public id. It may be told to the operator, and is "" if there is none.
	Credential string
	// Confirmation is the SHA-256 thumbprint of the key whose possession must be proved
	// (cnf.jkt: RFC 9449 section 6), or "".
	Confirmation string
}

// Principal is who makes a request, as a verifier has found out. It is immutable.
type Principal struct {
	f  Facts
	id string
}

// New makes a Principal.
func New(f Facts) *Principal {
	f.Scopes, f.Roles = sorted(f.Scopes), sorted(f.Roles)
	return &Principal{f: f, id: f.Source + "|" + f.Subject}
}

func sorted(list []string) []string {
	list = slices.Clone(list)
	slices.Sort(list)
	return slices.Compact(list)
}

// ID tells the principal from all others: no Source has a "|" in its name, and each has its
// subjects from one issuer.
func (p *Principal) ID() string { return p.id }

// Source is the name that the configuration has for whoever vouches.
func (p *Principal) Source() string { return p.f.Source }

// Method is how the principal was identified.
func (p *Principal) Method() Method { return p.f.Method }

// Ambient reports whether browsers send the credential by themselves, whoever's page makes
// the request: then CSRF is possible.
func (p *Principal) Ambient() bool { return p.f.Method == Session }

// Issuer is who made the subject's name.
func (p *Principal) Issuer() string { return p.f.Issuer }

// Subject is the principal's name at its issuer.
func (p *Principal) Subject() string { return p.f.Subject }

// Scopes are how far the credential reaches. The slice must not be changed.
func (p *Principal) Scopes() []string { return p.f.Scopes }

// HasScope reports whether the credential reaches that far.
func (p *Principal) HasScope(s string) bool { return has(p.f.Scopes, s) }

// Roles are what the principal is. The slice must not be changed.
func (p *Principal) Roles() []string { return p.f.Roles }

// HasRole reports whether the principal is that.
func (p *Principal) HasRole(s string) bool { return has(p.f.Roles, s) }

func has(list []string, s string) bool {
	_, found := slices.BinarySearch(list, s)
	return found
}

// Claim is the claim at a path such as "org" or "realm_access.roles": string, bool, int64,
// float64, []any or map[string]any. A claim whose own name has dots is found by that name.
func (p *Principal) Claim(path string) (v any, ok bool) { return Lookup(p.f.Claims, path) }

// Claims are all claims. The map must not be changed.
func (p *Principal) Claims() map[string]any { return p.f.Claims }

// Expires is when the credential stops being good; zero for never.
func (p *Principal) Expires() time.Time { return p.f.Expires }

// Credential names the credential without being it, or is "".
func (p *Principal) Credential() string { return p.f.Credential }

// Confirmation is the thumbprint of the key whose possession must be proved, or "".
func (p *Principal) Confirmation() string { return p.f.Confirmation }

// Lookup finds a claim by its path.
func Lookup(claims map[string]any, path string) (v any, ok bool) {
	if v, ok = claims[path]; ok {
		return v, true
	}
	for head, rest, cut := strings.Cut(path, "."); cut; head, rest, cut = strings.Cut(rest, ".") {
		below, isMap := claims[head].(map[string]any)
		if !isMap {
			return nil, false
		}
		claims = below
		if v, ok = claims[rest]; ok {
			return v, true
		}
	}
	return nil, false
}

// Strings reads a list of strings from a claim: a list, or, as scope has it (RFC 8693
// section 4.2), one string with blanks between.
func Strings(v any) []string {
	switch v := v.(type) {
	case string:
		return strings.Fields(v)
	case []any:
		list := make([]string, 0, len(v))
		for _, e := range v {
			if s, ok := e.(string); ok {
				list = append(list, s)
			}
		}
		return list
	}
	return nil
}
