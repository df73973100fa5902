package jwt

import (
	"context"
	"encoding/base64"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/moat-gateway/moat/guard"
	"github.com/moat-gateway/moat/guard/identity/internal/jws"
	"github.com/moat-gateway/moat/guard/identity/internal/principal"
)

// token is what a text says, true or not.
type token struct {
	text   string
	header jws.Header
	claims map[string]any
	iss    string
	aud    []string
}

// entry is what is remembered of a token whose signature is good.
type entry struct {
	principal *principal.Principal
	issuer    *issuer
	key       *key
	// The token is good from and until.
	from, until time.Time
	// For revocations. issued is math.MinInt64 if the token does not say.
	jti, sid string
	issued   int64
}

// refusal is what is remembered of a token whose signature is not good.
type refusal struct {
	issuer   *issuer
	keys     uint64 // number of the keys that it did not fit
	decision guard.Decision
}

// denial names a part of the token. What a token says of itself is shown in part, and in
// printable form; the token never is.
func denial(r guard.Reason, part, got, want string) guard.Decision {
	return guard.Denial(r, "token "+part, jws.Printable(got), want)
}

func malformed(got string) guard.Decision {
	return denial(guard.TokenMalformed, "form", got, "a signed JWT in compact form")
}

// shown is a value of JSON for the operator.
func shown(v any) string {
	if s, ok := v.(string); ok {
		return strconv.Quote(jws.Printable(s))
	}
	return fmt.Sprintf("a %T", v)
}

// read reads a token.
func read(text string) (*token, guard.Decision) {
	rawHeader, rawClaims, err := jws.Split(text)
	if err != nil {
		return nil, malformed(err.Error())
	}
	parameters, err := principal.ParseClaims(rawHeader)
	if err != nil {
		return nil, malformed("header: " + err.Error())
	}
	t := &token{text: text}
	if t.header, err = jws.ReadHeader(parameters); err != nil {
		return nil, malformed(err.Error())
	}
	if _, has := parameters["jwk"]; has {
		return nil, malformed(`the header has "jwk": a token does not bring its own key`)
	}
	if t.claims, err = principal.ParseClaims(rawClaims); err != nil {
		return nil, malformed("claims: " + err.Error())
	}
	var ok bool
	if t.iss, ok = t.claims["iss"].(string); !ok {
		return nil, missing("iss", t.claims["iss"], "a string")
	}
	if t.aud, ok = audience(t.claims["aud"]); !ok {
		return nil, missing("aud", t.claims["aud"], "a string or a list of strings")
	}
	return t, guard.Decision{}
}

// missing refuses a claim that is not there, or not what it has to be.
func missing(claim string, v any, want string) guard.Decision {
	got := "nothing"
	if v != nil {
		got = shown(v)
	}
	return denial(guard.TokenClaimMissing, claim, got, want)
}

// audience reads aud, one string or a list (RFC 7519 section 4.1.3).
func audience(v any) ([]string, bool) {
	switch v := v.(type) {
	case nil:
		return nil, true
	case string:
		return []string{v}, true
	case []any:
		list := principal.Strings(v)
		return list, len(list) == len(v)
	}
	return nil, false
}

// mediaType is a typ without what does not count in it (RFC 7515 section 4.1.9).
func mediaType(typ string) string {
	typ = strings.ToLower(typ)
	if short, ok := strings.CutPrefix(typ, "application/"); ok && !strings.Contains(short, "/") {
		return short
	}
	return typ
}

// judge judges all that costs little, before the signature: a token that would be refused in
// any case neither costs one nor has keys fetched. What it returns is true if the signature is good.
func (i *issuer) judge(t *token, now time.Time) (*entry, guard.Decision) {
	if !slices.Contains(i.Algorithms, t.header.Algorithm) {
		return nil, denial(guard.TokenAlgorithmNotAllowed, "alg", t.header.Algorithm, strings.Join(i.Algorithms, " or "))
	}
	e, d := i.times(t, now)
	if d.Denied() {
		return nil, d
	}
	if !slices.Contains(i.Types, mediaType(t.header.Type)) {
		return nil, denial(guard.TokenClaimMissing, "typ", t.header.Type, strings.Join(i.Types, " or "))
	}
	sub, ok := t.claims["sub"].(string)
	if !ok || sub == "" {
		return nil, missing("sub", t.claims["sub"], "a name for the principal")
	}
	for _, path := range i.Required {
		if v, has := principal.Lookup(t.claims, path); !has || v == nil {
			return nil, missing(path, nil, "the claim")
		}
	}
	bound, d := i.confirmation(t.claims)
	if d.Denied() {
		return nil, d
	}
	e.jti, _ = t.claims["jti"].(string)
	e.sid, _ = t.claims["sid"].(string)
	e.principal = principal.New(principal.Facts{
		Source: i.Source, Method: principal.JWT, Issuer: i.Issuer.Issuer, Subject: sub,
		Scopes: i.scopes(t.claims), Roles: list(t.claims, i.RolesClaim), Claims: t.claims,
		Expires: e.until, Credential: e.jti, Confirmation: bound,
	})
	return e, guard.Decision{}
}

// times judges when the token is good.
func (i *issuer) times(t *token, now time.Time) (*entry, guard.Decision) {
	var dates [3]int64
	for at, name := range [...]string{"exp", "nbf", "iat"} {
		v, has := t.claims[name]
		seconds, ok := date(v)
		needed := name == "exp" || name == "iat" && i.MaxAge > 0
		if has && !ok || !has && needed {
			return nil, missing(name, v, "seconds since 1970")
		}
		if !has {
			seconds = math.MinInt64
		}
		dates[at] = seconds
	}
	exp, nbf, iat := dates[0], dates[1], dates[2]
	e := &entry{issuer: i, until: time.Unix(exp, 0).Add(i.Leeway), issued: iat}
	if oldest := time.Unix(iat, 0).Add(i.MaxAge + i.Leeway); i.MaxAge > 0 && oldest.Before(e.until) {
		e.until = oldest
	}
	if !now.Before(e.until) {
		return nil, denial(guard.TokenExpired, "exp", e.until.UTC().Format(time.RFC3339), "a time after "+now.UTC().Format(time.RFC3339))
	}
	// iat in the future is a clock that is wrong, or somebody who wants to outlive "sub X before T".
	if from := max(nbf, iat); from != math.MinInt64 {
		if e.from = time.Unix(from, 0).Add(-i.Leeway); now.Before(e.from) {
			return nil, denial(guard.TokenNotYetValid, "nbf or iat", e.from.UTC().Format(time.RFC3339), "a time before "+now.UTC().Format(time.RFC3339))
		}
	}
	return e, guard.Decision{}
}

// maxDate is the end of the year 9999. What lies behind it is a mistake in the unit.
const maxDate = 253402300799

// date reads a NumericDate (RFC 7519 section 2); parts of a second are cut off.
func date(v any) (int64, bool) {
	switch v := v.(type) {
	case int64:
		return v, v >= 0 && v <= maxDate
	case float64:
		return int64(v), v >= 0 && v <= maxDate
	}
	return 0, false
}

func (i *issuer) scopes(claims map[string]any) []string {
	if i.ScopeClaim != "" {
		return list(claims, i.ScopeClaim)
	}
	if s := list(claims, "scope"); s != nil {
		return s
	}
	return list(claims, "scp")
}

func list(claims map[string]any, path string) []string {
	if path == "" {
		return nil
	}
	v, _ := principal.Lookup(claims, path)
	return principal.Strings(v)
}

// confirmation is the thumbprint of the key that the token is bound to, or "". A token that is
// bound in a way that cannot be proved here is nobody's (RFC 7800 section 3.1).
func (i *issuer) confirmation(claims map[string]any) (string, guard.Decision) {
	cnf, bound := claims["cnf"]
	if !bound {
		if i.RequireProof {
			return "", denial(guard.ProofMissing, "cnf", "nothing", "cnf.jkt, the key that the token is bound to")
		}
		return "", guard.Decision{}
	}
	members, _ := cnf.(map[string]any)
	jkt, _ := members["jkt"].(string)
	if b, err := base64.RawURLEncoding.Strict().DecodeString(jkt); err != nil || len(b) != 32 || len(jkt) != 43 || len(members) != 1 {
		return "", denial(guard.TokenClaimMissing, "cnf", "another binding", "cnf.jkt alone, a SHA-256 thumbprint")
	}
	return jkt, guard.Decision{}
}

// prove judges the signature. Where it does not fit the keys that are known, newer ones are
// looked for.
func (i *issuer) prove(ctx context.Context, known *tokens, id *[32]byte, t *token, e *entry, now time.Time) guard.Decision {
	s, err := i.keys.get(ctx, now)
	if err != nil {
		return guard.Denial(guard.IdentityUnavailable, "keys of issuer "+i.Source, jws.Printable(err.Error()), "an issuer that answers")
	}
	for range maxRotations {
		d := i.checkOnce(known, id, s, t, e)
		if !d.Denied() {
			return d
		}
		next, changed := i.keys.renew(ctx, now, s)
		if !changed {
			return d
		}
		s = next
	}
	return i.checkOnce(known, id, s, t, e)
}

// maxRotations is how often the keys can change while one token is looked at.
const maxRotations = 3

// checkOnce does not compute again what is known to be bad for these keys.
func (i *issuer) checkOnce(known *tokens, id *[32]byte, s *snapshot, t *token, e *entry) guard.Decision {
	if r, ok := known.bad.Get(id); ok && r.issuer == i && r.keys == s.number {
		return r.decision
	}
	d := i.check(s, t, e)
	if d.Reason == guard.TokenSignatureInvalid {
		known.bad.Put(id, &refusal{i, s.number, d}, slotCost+refusalCost+len(d.Evidence.Got)+len(d.Evidence.Want))
	}
	return d
}

const refusalCost = 200

// check looks for a key in s that has signed the token.
func (i *issuer) check(s *snapshot, t *token, e *entry) guard.Decision {
	candidates := s.find(t.header.KeyID, t.header.Algorithm)
	if len(candidates) == 0 || len(candidates) > maxCandidates {
		return denial(guard.TokenKeyUnknown, "kid", t.header.KeyID,
			fmt.Sprintf("one of the %d keys of issuer %s; %d fit by kid and alg %s", len(s.keys), i.Source, len(candidates), t.header.Algorithm))
	}
	for _, k := range candidates {
		if jws.Verify(t.text, t.header.Algorithm, k.public) {
			e.key = k
			return guard.Decision{}
		}
	}
	return denial(guard.TokenSignatureInvalid, "signature", "another, for kid "+jws.Printable(t.header.KeyID)+" and alg "+t.header.Algorithm,
		"that of issuer "+i.Source)
}
