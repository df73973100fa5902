package jwt

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/moat-gateway/moat/guard"
	"github.com/moat-gateway/moat/guard/identity"
	"github.com/moat-gateway/moat/guard/identity/internal/jws"
)

// Issuer is whose tokens are accepted, and which of them.
type Issuer struct {
	// Source is the issuer's name in the configuration.
	Source string
	// Issuer is the exact iss. Two may have the same one if they have no audience in common.
	Issuer string
	// Audiences: one of them has to be in aud.
	Audiences []string
	// Algorithms are those that the issuer signs with. HS256, HS384 and HS512 do not stand
	// beside others: else a public key could pass for a secret.
	Algorithms []string

	// The keys come from exactly one of these: the URL of a JWK Set; a JWK Set or PEM itself; a
	// secret; or discovery, at the URL that Issuer is (OpenID Connect Discovery 1.0, RFC 8414).
	JWKSURL  string
	JWKS     []byte
	Secret   []byte
	Discover bool
	// PastSecrets are honoured beside Secret, for as long as tokens that they signed live.
	PastSecrets [][]byte

	// Types are the accepted typ, and "" for none; without any they are "", "JWT" and "at+jwt". Case and
	// the prefix "application/" do not count.
	Types []string
	// Leeway is by how much the issuer's clock and this one may differ; 0 means not at all.
	Leeway time.Duration
	// MaxAge is how long after iat a token is good at most; 0 asks for no iat.
	MaxAge time.Duration
	// Required are the paths of claims that have to be there, beside exp and sub.
	Required []string
	// ScopeClaim is the path of the scopes; "" means "scope", or else "scp".
	ScopeClaim string
	// RolesClaim is the path of the roles; without one there are none.
	RolesClaim string
	// RequireProof accepts only tokens that are bound to a key (cnf.jkt).
	RequireProof bool
	// Revoked are the tokens that are not good any more, or nil.
	Revoked *Revocations
}

// Policy says whose tokens are accepted. The zero Policy accepts none.
type Policy struct {
	Issuers []Issuer
	// CacheBytes is about how much memory verified tokens take; 0 means DefaultCacheBytes.
	CacheBytes int
	// StaleFor is how long keys stay good while their issuer does not answer; 0 means
	// DefaultStaleFor.
	StaleFor time.Duration
}

const (
	// DefaultCacheBytes holds some 3,000 tokens.
	DefaultCacheBytes = 8 << 20
	// DefaultStaleFor outlives a night in which nobody mends the issuer.
	DefaultStaleFor = 24 * time.Hour

	minCacheBytes = 64 << 10
	maxLeeway     = 10 * time.Minute
)

// Verifier verifies tokens. It is safe for concurrent use. Its keys and its memory of tokens
// outlive a reload: see New.
type Verifier struct {
	byIss   map[string][]*issuer
	revoked map[*issuer]*Revocations // of each issuer, maybe nil
	sets    []*keySet
	tokens  *tokens
}

// issuer is a compiled Issuer: immutable, and the same one after a reload that did not change it.
type issuer struct {
	Issuer
	keys *keySet
}

// New compiles a Policy. It keeps the keys and the verified tokens of the issuers of before
// that did not change; before may be nil. Both have to be closed.
func New(p Policy, before *Verifier) (*Verifier, error) {
	p.CacheBytes, p.StaleFor = cmp.Or(p.CacheBytes, DefaultCacheBytes), cmp.Or(p.StaleFor, DefaultStaleFor)
	v := &Verifier{byIss: make(map[string][]*issuer), revoked: make(map[*issuer]*Revocations)}
	var errs []error
	if p.CacheBytes < minCacheBytes {
		errs = append(errs, fmt.Errorf("cache of %d bytes: the least is %d", p.CacheBytes, minCacheBytes))
	}
	if p.StaleFor < 0 {
		errs = append(errs, fmt.Errorf("stale for %s: it is not negative", p.StaleFor))
	}
	sources := make(map[string]bool)
	for i := range p.Issuers {
		conf := p.Issuers[i]
		if sources[conf.Source] {
			errs = append(errs, fmt.Errorf("issuer %q stands there twice", conf.Source))
		}
		sources[conf.Source] = true
		if err := v.add(conf, p.StaleFor, before); err != nil {
			errs = append(errs, fmt.Errorf("issuer %q: %w", conf.Source, err))
		}
	}
	if len(errs) > 0 {
		v.Close()
		return nil, errors.Join(errs...)
	}
	if before != nil && before.tokens.size == p.CacheBytes {
		v.tokens = before.tokens
	} else {
		v.tokens = newTokens(p.CacheBytes)
	}
	return v, nil
}

// add compiles one issuer, or takes over what before has of it.
func (v *Verifier) add(conf Issuer, stale time.Duration, before *Verifier) error {
	if err := conf.check(); err != nil {
		return err
	}
	for _, other := range v.byIss[conf.Issuer] {
		for _, a := range conf.Audiences {
			if slices.Contains(other.Audiences, a) {
				return fmt.Errorf("audience %q of %s is also that of issuer %q", a, conf.Issuer, other.Source)
			}
		}
	}
	revoked := conf.Revoked
	conf.Revoked = nil
	if len(conf.Types) == 0 {
		conf.Types = []string{"", "JWT", "at+jwt"}
	}
	conf.Types = slices.Clone(conf.Types)
	for i, t := range conf.Types {
		conf.Types[i] = mediaType(t)
	}
	set, err := newKeySet(&conf, stale)
	if err != nil {
		return err
	}
	iss := &issuer{conf, set}
	if before != nil {
		iss = before.sameAs(iss)
	}
	iss.keys.hold()
	v.sets = append(v.sets, iss.keys)
	v.byIss[conf.Issuer] = append(v.byIss[conf.Issuer], iss)
	v.revoked[iss] = revoked
	return nil
}

// sameAs returns the issuer that v has in the place of next, or next, with the keys that v has
// if they come from the same place.
func (v *Verifier) sameAs(next *issuer) *issuer {
	for old := range v.revoked {
		if next.keys.sameAs(old.keys) {
			next.keys = old.keys
		}
		if next.keys == old.keys && reflect.DeepEqual(next.Issuer, old.Issuer) {
			return old
		}
	}
	return next
}

func (i *Issuer) check() error {
	var errs []error
	fault := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if i.Source == "" || strings.Contains(i.Source, "|") {
		fault(`the name is empty or has a "|"`)
	}
	if i.Issuer == "" {
		fault("no issuer: without the exact iss anybody's tokens would do")
	}
	if len(i.Audiences) == 0 || slices.Contains(i.Audiences, "") {
		fault("no audience: a token for any other service would do")
	}
	if len(i.Algorithms) == 0 {
		fault("no algorithms: list those that the issuer signs with, such as RS256")
	}
	symmetric := 0
	for _, a := range i.Algorithms {
		if !slices.Contains(jws.Known, a) {
			fault("algorithm %q: it is one of %s", a, strings.Join(jws.Known, ", "))
		}
		if jws.Symmetric(a) {
			symmetric++
		}
	}
	if symmetric > 0 && symmetric < len(i.Algorithms) {
		fault("algorithms %v: HS with a secret does not stand beside others, or a public key could pass for the secret", i.Algorithms)
	}
	sources := 0
	for _, has := range []bool{i.JWKSURL != "", len(i.JWKS) > 0, len(i.Secret) > 0, i.Discover} {
		if has {
			sources++
		}
	}
	switch {
	case sources != 1:
		fault("%d sources of keys: give one JWKS URL, JWKS, secret or discovery", sources)
	case len(i.Algorithms) > 0 && (len(i.Secret) > 0) != (symmetric > 0):
		fault("algorithms %v: a secret goes with HS256, HS384 or HS512, and only with these", i.Algorithms)
	}
	if len(i.PastSecrets) > 0 && len(i.Secret) == 0 {
		fault("past secrets without a secret")
	}
	if i.Leeway < 0 || i.Leeway > maxLeeway {
		fault("leeway %s: it is between 0 and %s", i.Leeway, maxLeeway)
	}
	if i.MaxAge < 0 {
		fault("max age %s: it is not negative", i.MaxAge)
	}
	return errors.Join(errs...)
}

// checkURL accepts what nobody in between can change: https, and http on this machine.
func checkURL(text string) error {
	u, err := url.Parse(text)
	if err != nil {
		return errors.New("not a URL")
	}
	if u.User != nil || u.Fragment != "" || u.Hostname() == "" {
		return errors.New("a host is wanted, and neither user information nor fragment")
	}
	if u.Scheme == "https" || u.Scheme == "http" && loopback(u.Hostname()) {
		return nil
	}
	return fmt.Errorf("scheme %q: keys come by https, or by http from this machine", u.Scheme)
}

// Close ends what is under way for this Verifier, and waits for it. What a later Verifier has
// taken over goes on.
func (v *Verifier) Close() {
	for _, s := range v.sets {
		s.release()
	}
	v.sets = nil
}

// Recognizes reports whether the text begins as a JSON object in base64url does, and has parts.
func (v *Verifier) Recognizes(text string) bool {
	return (strings.HasPrefix(text, "ey") || strings.HasPrefix(text, "ew")) && strings.Contains(text, ".")
}

// Verify says whose token it is.
func (v *Verifier) Verify(ctx context.Context, text string, now time.Time) (*identity.Principal, guard.Decision) {
	if len(text) > jws.MaxSize {
		return nil, malformed(fmt.Sprintf("longer than %d bytes", jws.MaxSize))
	}
	id := digest(text)
	if p, d, ok := v.remembered(ctx, &id, now); ok {
		return p, d
	}
	t, d := read(text)
	if d.Denied() {
		return nil, d
	}
	iss, d := v.issuerOf(t)
	if d.Denied() {
		return nil, d
	}
	e, d := iss.judge(t, now)
	if d.Denied() {
		return nil, d
	}
	if d = iss.prove(ctx, v.tokens, &id, t, e, now); d.Denied() {
		return nil, d
	}
	v.tokens.good.Put(&id, e, slotCost+entryCost+sizeOf(t.claims))
	if d = v.revoked[iss].judge(e); d.Denied() {
		return nil, d
	}
	return e.principal, verified
}

// digest does not allocate for a token of usual size.
func digest(text string) [32]byte {
	var room [1 << 10]byte
	return sha256.Sum256(append(room[:0], text...))
}

// entryCost is about what an entry takes beside its claims.
const entryCost = 400

var verified = guard.Decision{Reason: guard.IdentityVerified}

// remembered looks for what an earlier check of the same text has found. What can change is
// judged anew: the time, the issuer's keys, and what is revoked.
func (v *Verifier) remembered(ctx context.Context, id *[32]byte, now time.Time) (*identity.Principal, guard.Decision, bool) {
	if e, ok := v.tokens.good.Get(id); ok {
		revoked, configured := v.revoked[e.issuer]
		if !configured || now.Before(e.from) || !now.Before(e.until) || !e.issuer.keys.stillHas(ctx, e.key, now) {
			return nil, guard.Decision{}, false
		}
		if d := revoked.judge(e); d.Denied() {
			return nil, d, true
		}
		return e.principal, verified, true
	}
	if b, ok := v.tokens.bad.Get(id); ok {
		if _, configured := v.revoked[b.issuer]; configured && b.issuer.keys.unchanged(b.keys, now) {
			return nil, b.decision, true
		}
	}
	return nil, guard.Decision{}, false
}

// issuerOf finds the issuer that the token says it is of, and of several the one whose
// audience it names.
func (v *Verifier) issuerOf(t *token) (*issuer, guard.Decision) {
	candidates := v.byIss[t.iss]
	if len(candidates) == 0 {
		return nil, denial(guard.TokenIssuerUnknown, "iss", t.iss, "an issuer of the configuration")
	}
	for _, iss := range candidates {
		if slices.ContainsFunc(t.aud, func(a string) bool { return slices.Contains(iss.Audiences, a) }) {
			return iss, guard.Decision{}
		}
	}
	var want []string
	for _, iss := range candidates {
		want = append(want, iss.Audiences...)
	}
	return nil, denial(guard.TokenAudienceWrong, "aud", strings.Join(t.aud, " "), strings.Join(want, " or "))
}
