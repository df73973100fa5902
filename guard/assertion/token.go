package assertion

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/moat-gateway/moat/guard/identity"
)

const (
	// DefaultLifetime is how long a token lives where the policy does not say.
	DefaultLifetime = time.Minute
	minLifetime     = 5 * time.Second
	maxLifetime     = time.Hour
	// slack is how many seconds an upstream's clock may be behind ours: some refuse what was
	// issued in their future.
	slack = 5
)

// TokenPolicy is a token about the caller: a JWT (RFC 7519) in the compact serialization.
type TokenPolicy struct {
	// Header holds it. In Authorization it stands behind "Bearer ", in the place of the
	// caller's own credential.
	Header string
	// Audience is what the upstream calls itself. It is required: a token for anybody would be
	// one for any other upstream too.
	Audience string
	// Subject says what sub is: "id", the principal's ID, which is the default; or "sub", the
	// name that its issuer gave it. Two sources can give one name to two people, so "sub" is
	// for upstreams behind one source.
	Subject string
	// Claims are the paths of claims to carry over, each under its path as it is written.
	Claims []string
	// Lifetime is a minute where it is 0. No token outlives the caller's own credential.
	Lifetime time.Duration
}

// own are claims that the gate makes itself, or that would say something about its token.
var own = []string{"iss", "sub", "aud", "exp", "nbf", "iat", "jti", "scope", "roles", "cnf", "act", "moat"}

type token struct {
	TokenPolicy
	bearer   string // what stands before it
	lifetime int64  // seconds
	signer   *Signer
}

func newToken(p TokenPolicy, s *Signer) (*token, error) {
	t := &token{TokenPolicy: p, signer: s}
	if strings.EqualFold(p.Header, "Authorization") {
		t.bearer = "Bearer "
	}
	var errs []error
	if s == nil {
		errs = append(errs, errors.New("there is no key to sign it with"))
	}
	if p.Audience == "" || !utf8.ValidString(p.Audience) {
		errs = append(errs, errors.New("audience: none, or not UTF-8; say what the upstream calls itself"))
	}
	if p.Subject != "" && p.Subject != "id" && p.Subject != "sub" {
		errs = append(errs, fmt.Errorf(`subject %q: it is "id" or "sub"`, p.Subject))
	}
	for i, c := range p.Claims {
		switch {
		case c == "" || slices.Contains(p.Claims[:i], c):
			errs = append(errs, fmt.Errorf("claims: %q is empty, or stands there twice", c))
		case slices.Contains(own, c):
			errs = append(errs, fmt.Errorf("claims: %q is moat's own to say; the caller's are in sub, scope, roles and moat", c))
		}
	}
	var err error
	if t.lifetime, err = lifetime(p.Lifetime); err != nil {
		errs = append(errs, err)
	}
	return t, errors.Join(errs...)
}

// facts are how the caller was identified.
type facts struct {
	Source     string `json:"source"`
	Method     string `json:"method"`
	Issuer     string `json:"iss,omitempty"`
	Subject    string `json:"sub,omitempty"`
	Credential string `json:"credential,omitempty"`
}

// add makes a token for the entry's principal, and adds it to the values. There is no jti: a
// token is for as many requests as come while it is fresh, and upstreams that remember jtis would
// refuse the second one.
func (t *token) add(e *entry, room int) error {
	p := e.principal
	e.expires = e.made + t.lifetime
	e.renew = e.made + t.lifetime/2
	if end := p.Expires(); !end.IsZero() && end.Unix() <= e.expires {
		e.expires = end.Unix()
		e.renew = e.expires // another one would not live longer
	}
	if e.expires <= e.made {
		return ErrExpired
	}
	claims, err := t.claims(p)
	if err != nil {
		return fmt.Errorf("assertion: token: %w", err)
	}
	claims["iat"], claims["exp"] = e.made-slack, e.expires
	payload, err := json.Marshal(claims)
	if err != nil {
		return fmt.Errorf("assertion: token: %w", err)
	}
	if size := len(t.bearer) + t.signer.size(len(payload)); size > room {
		return fmt.Errorf("assertion: token: more than %d bytes would be said about the caller; carry fewer claims", MaxBytes)
	}
	text, err := t.signer.sign(t.bearer, payload)
	if err != nil {
		return fmt.Errorf("assertion: token: %w", err)
	}
	e.values = append(e.values, text)
	return nil
}

func (t *token) claims(p *identity.Principal) (map[string]any, error) {
	claims := map[string]any{
		"iss": t.signer.issuer, "aud": t.Audience,
		"moat": facts{p.Source(), p.Method().String(), p.Issuer(), p.Subject(), p.Credential()},
	}
	for _, path := range t.Claims {
		if v, ok := p.Claim(path); ok {
			if !wellFormed(v) {
				return nil, errUTF8
			}
			claims[path] = v
		}
	}
	for _, s := range slices.Concat([]string{p.Issuer(), p.ID(), p.Credential()}, p.Roles()) {
		if !utf8.ValidString(s) {
			return nil, errUTF8
		}
	}
	sub := id(p)
	if t.Subject == "sub" {
		sub = p.Subject()
	}
	if sub != "" {
		claims["sub"] = sub
	}
	for _, s := range p.Scopes() {
		if !scopeToken(s) {
			return nil, errors.New("a scope holds a blank, a quote, a backslash, or what is not ASCII: it would read as another one (RFC 6749 section 3.3)")
		}
	}
	if len(p.Scopes()) > 0 {
		claims["scope"] = strings.Join(p.Scopes(), " ") // RFC 8693 section 4.2
	}
	if len(p.Roles()) > 0 {
		claims["roles"] = p.Roles() // RFC 9068 section 2.2.3.1
	}
	return claims, nil
}

func scopeToken(s string) bool {
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c >= 0x7f || c == '"' || c == '\\' {
			return false
		}
	}
	return s != ""
}

// wellFormed reports whether all texts of a JSON value are UTF-8. Encoders replace what is
// not: two texts could become one.
func wellFormed(v any) bool {
	switch v := v.(type) {
	case string:
		return utf8.ValidString(v)
	case []any:
		return !slices.ContainsFunc(v, func(v any) bool { return !wellFormed(v) })
	case map[string]any:
		for name, v := range v {
			if !utf8.ValidString(name) || !wellFormed(v) {
				return false
			}
		}
	}
	return true
}
