// Package dpop asks whoever shows a token that is bound to a key for a proof that he has the
// key (RFC 9449, DPoP): a signature over this method, this URL and this token, made now and
// used once.
//
// It protects from whoever has got at a token, in a log, at another service or on the way, and
// from the repetition of a request. It does not protect from script that runs in the client
// and uses its key there, and the proof covers neither the query nor the body.
//
// It believes the verifier of the token about which key it is bound to. Where the memory of
// used proofs is full or does not answer, proofs are refused: a proof that may have been used
// is worth nothing. It asks for no nonces of the server's (section 8): a proof that was made
// in advance is good for MaxAge, and once.
package dpop

import (
	"cmp"
	"context"
	"crypto"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/moat-gateway/moat/guard"
	"github.com/moat-gateway/moat/guard/identity"
	"github.com/moat-gateway/moat/guard/identity/internal/jws"
	"github.com/moat-gateway/moat/guard/identity/internal/principal"
)

const (
	// DefaultMaxAge is by how much a proof's iat may differ from now.
	DefaultMaxAge = 60 * time.Second
	// DefaultMemory is for 2,000 proofs a second at DefaultMaxAge, in some 12 MiB.
	DefaultMemory = 1 << 18

	// grace is for how many seconds more a proof is remembered: a request may have waited for
	// its issuer's keys before it is judged, by the time at which it came.
	grace = 15

	maxMaxAge = 10 * time.Minute
	maxProof  = 8 << 10
	maxJTI    = 256
)

// defaultAlgorithms are what clients of the field sign with: browsers' and phones' keys are
// P-256, and RSA is there for those who have no other.
var defaultAlgorithms = []string{"ES256", "EdDSA", "PS256", "RS256"}

// Policy says which proofs are accepted.
type Policy struct {
	// Algorithms of proofs, none of them symmetric; nil means ES256, EdDSA, PS256 and RS256.
	Algorithms []string
	// MaxAge is by how much iat may differ from now, both ways; 0 means DefaultMaxAge.
	MaxAge time.Duration
	// Memory is how many proofs are remembered; 0 means DefaultMemory. When it is full, proofs
	// are refused.
	Memory int
	// Since is when the own memory began. A proof that was made before may have been used
	// before, at a process that is gone, and is refused. The zero Time knows of no such process.
	Since time.Time
	// Once, if not nil, remembers used proofs in the place of the own memory, for all processes
	// that share it. It reports whether id is there for the first time, and has to keep it until expires.
	Once func(ctx context.Context, id uint64, expires time.Time) (first bool, err error)
}

// Guard is a compiled Policy. It is safe for concurrent use.
type Guard struct {
	algorithms []string
	maxAge     int64 // seconds
	once       func(ctx context.Context, id uint64, expires time.Time) (bool, error)
	memory     *memory
	since      int64
}

// Target is where the request went, as its client has to have named it.
type Target struct {
	// Scheme is "https" or "http", and Host a Host header.
	Scheme, Host string
}

// New compiles a Policy.
func New(p Policy) (*Guard, error) {
	if p.Algorithms == nil {
		p.Algorithms = defaultAlgorithms
	}
	p.MaxAge, p.Memory = cmp.Or(p.MaxAge, DefaultMaxAge), cmp.Or(p.Memory, DefaultMemory)
	var errs []error
	if len(p.Algorithms) == 0 {
		errs = append(errs, errors.New("no algorithms"))
	}
	for _, a := range p.Algorithms {
		if !slices.Contains(jws.Known, a) || jws.Symmetric(a) {
			errs = append(errs, fmt.Errorf("algorithm %q: it is one of %s", a, strings.Join(jws.Known[:len(jws.Known)-3], ", ")))
		}
	}
	if p.MaxAge < time.Second || p.MaxAge > maxMaxAge {
		errs = append(errs, fmt.Errorf("max age %s: it is between 1s and %s", p.MaxAge, maxMaxAge))
	}
	if p.Memory < 0 {
		errs = append(errs, fmt.Errorf("memory for %d proofs: it is not negative", p.Memory))
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	g := &Guard{algorithms: slices.Clone(p.Algorithms), maxAge: int64(p.MaxAge / time.Second), once: p.Once}
	if g.once == nil {
		g.memory = newMemory(p.Memory, 2*g.maxAge+grace)
		if !p.Since.IsZero() {
			g.since = p.Since.Unix()
		}
	}
	return g, nil
}

// Algorithms are those of proofs, for a challenge. The slice must not be changed.
func (g *Guard) Algorithms() []string { return g.algorithms }

// proof is what a proof says.
type proof struct {
	text, algorithm string
	key             any
	claims          map[string]any
	iat             int64
}

// Decide judges the proof of a request whose token has identified p. A principal whose token
// is not bound needs none, and must not come with the scheme that promises one.
func (g *Guard) Decide(ctx context.Context, r *http.Request, p *identity.Principal, t Target, now time.Time) guard.Decision {
	if p == nil {
		return guard.Decision{}
	}
	var line string
	if v := r.Header["Authorization"]; len(v) == 1 {
		line = v[0]
	}
	scheme, token, _ := strings.Cut(line, " ")
	spoken, bound := strings.EqualFold(scheme, "DPoP"), p.Confirmation() != ""
	switch {
	case !spoken && !bound:
		return guard.Decision{}
	case !bound:
		return guard.Denial(guard.ProofInvalid, "Authorization", "DPoP", "Bearer: the token is bound to no key")
	case !spoken:
		return guard.Denial(guard.ProofMissing, "Authorization", "no DPoP", "the scheme DPoP: the token is bound to a key")
	}
	lines := r.Header["Dpop"]
	if len(lines) == 0 {
		return guard.Denial(guard.ProofMissing, "DPoP", "", "a proof")
	}
	if len(lines) > 1 {
		return invalid("", "more than one", "one proof")
	}
	f, d := g.read(lines[0], p.Confirmation(), now)
	if d.Denied() {
		return d
	}
	if d = f.judge(r, token, t); d.Denied() {
		return d
	}
	if !jws.Verify(f.text, f.algorithm, f.key) {
		return invalid("signature", "another", "that of the proof's key")
	}
	return g.use(ctx, f, p.Confirmation(), now)
}

// invalid refuses a proof. It may be good yet for another request, and is never shown.
func invalid(part, got, want string) guard.Decision {
	return guard.Denial(guard.ProofInvalid, strings.TrimSpace("DPoP "+part), jws.Printable(got), want)
}

// read reads a proof that is to be of the key with this thumbprint. The key is compared before
// the signature is computed: nobody but the token's owner chooses what that costs.
func (g *Guard) read(text, thumbprint string, now time.Time) (*proof, guard.Decision) {
	const form = "a signed JWT in compact form"
	if len(text) > maxProof {
		return nil, invalid("", fmt.Sprintf("longer than %d bytes", maxProof), form)
	}
	rawHeader, rawClaims, err := jws.Split(text)
	if err != nil {
		return nil, invalid("", err.Error(), form)
	}
	parameters, err := principal.ParseClaims(rawHeader)
	if err != nil {
		return nil, invalid("header", err.Error(), form)
	}
	h, err := jws.ReadHeader(parameters)
	if err != nil {
		return nil, invalid("header", err.Error(), form)
	}
	if !strings.EqualFold(h.Type, "dpop+jwt") {
		return nil, invalid("typ", h.Type, "dpop+jwt")
	}
	if !slices.Contains(g.algorithms, h.Algorithm) {
		return nil, invalid("alg", h.Algorithm, strings.Join(g.algorithms, " or "))
	}
	f := &proof{text: text, algorithm: h.Algorithm}
	if f.key, err = readKey(parameters["jwk"], h.Algorithm, thumbprint); err != nil {
		return nil, invalid("jwk", err.Error(), "the public key that the token is bound to")
	}
	if f.claims, err = principal.ParseClaims(rawClaims); err != nil {
		return nil, invalid("claims", err.Error(), form)
	}
	switch iat := f.claims["iat"].(type) {
	case int64:
		f.iat = iat
	case float64:
		f.iat = int64(max(min(iat, 1<<40), 0))
	default:
		return nil, invalid("iat", "no number", "seconds since 1970")
	}
	if at := now.Unix(); f.iat < at-g.maxAge || f.iat > at+g.maxAge {
		return nil, invalid("iat", fmt.Sprint(f.iat), fmt.Sprintf("%d seconds around %d", g.maxAge, at))
	}
	if f.iat < g.since {
		return nil, invalid("iat", fmt.Sprint(f.iat), fmt.Sprintf("%d or later, when this process began to remember proofs", g.since))
	}
	return f, guard.Decision{}
}

// readKey reads the key that a proof brings.
func readKey(v any, algorithm, thumbprint string) (any, error) {
	members, ok := v.(map[string]any)
	if !ok {
		return nil, errors.New("none")
	}
	for _, name := range []string{"k", "d", "p", "q", "dp", "dq", "qi", "priv", "x5c", "x5u"} {
		if _, has := members[name]; has {
			return nil, fmt.Errorf("it has %q", name)
		}
	}
	text, err := json.Marshal(members)
	if err != nil {
		return nil, err
	}
	var k jose.JSONWebKey
	if err = k.UnmarshalJSON(text); err != nil {
		return nil, errors.New("not a public key that is known here")
	}
	print, err := k.Thumbprint(crypto.SHA256)
	if err != nil || base64.RawURLEncoding.EncodeToString(print) != thumbprint {
		return nil, errors.New("another key")
	}
	fit, err := jws.Algorithms(k.Key)
	if err != nil {
		return nil, err
	}
	if !slices.Contains(fit, algorithm) {
		return nil, fmt.Errorf("not one for %s", algorithm)
	}
	return k.Key, nil
}

// judge compares what the proof is for with the request.
func (f *proof) judge(r *http.Request, token string, t Target) guard.Decision {
	claim := func(name string) string { s, _ := f.claims[name].(string); return s }
	if htm := claim("htm"); htm != r.Method {
		return invalid("htm", htm, jws.Printable(r.Method))
	}
	if htu := claim("htu"); !t.is(htu, r.URL) {
		return invalid("htu", htu, jws.Printable(t.Scheme+"://"+t.Host+r.URL.EscapedPath()))
	}
	if sum := sha256.Sum256([]byte(token)); claim("ath") != base64.RawURLEncoding.EncodeToString(sum[:]) {
		return invalid("ath", "of another token, or none", "the SHA-256 of this one")
	}
	if jti := claim("jti"); jti == "" || len(jti) > maxJTI {
		return invalid("jti", jti, fmt.Sprintf("a name of 1 to %d bytes", maxJTI))
	}
	return guard.Decision{}
}

// is reports whether htu names the target's path. Query and fragment do not count (section
// 4.3), nor does what RFC 3986 sections 6.2.2 and 6.2.3 hold for the same.
func (t Target) is(htu string, at *url.URL) bool {
	u, err := url.Parse(htu)
	if err != nil || u.User != nil || u.Opaque != "" {
		return false
	}
	scheme := strings.ToLower(t.Scheme)
	return u.Scheme == scheme && authority(scheme, u.Host) == authority(scheme, t.Host) &&
		normal(u.EscapedPath()) == normal(at.EscapedPath())
}

func authority(scheme, host string) string {
	host = strings.ToLower(host)
	switch scheme {
	case "https":
		host = strings.TrimSuffix(host, ":443")
	case "http":
		host = strings.TrimSuffix(host, ":80")
	}
	return strings.TrimSuffix(host, ":")
}

// normal is a path in its normal form: what need not be escaped is not, the rest is so in
// capital letters.
func normal(path string) string {
	if path == "" {
		return "/"
	}
	var b strings.Builder
	for i := 0; i < len(path); i++ {
		if path[i] != '%' || i+2 >= len(path) {
			b.WriteByte(path[i])
			continue
		}
		c, err := url.PathUnescape(path[i : i+3])
		if err == nil && unreserved(c[0]) {
			b.WriteString(c)
		} else {
			b.WriteString(strings.ToUpper(path[i : i+3]))
		}
		i += 2
	}
	return b.String()
}

func unreserved(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("-._~", c) >= 0
}

// use marks the proof as used. The name of a proof is its own key's: nobody can use up another's.
func (g *Guard) use(ctx context.Context, f *proof, thumbprint string, now time.Time) guard.Decision {
	jti, _ := f.claims["jti"].(string)
	sum := sha256.Sum256([]byte(thumbprint + "." + jti))
	id, until := binary.BigEndian.Uint64(sum[:]), f.iat+g.maxAge+grace
	var first bool
	var err error
	if g.once != nil {
		first, err = g.once(ctx, id, time.Unix(until, 0))
	} else {
		first, err = g.memory.use(id, until, now.Unix())
	}
	switch {
	case err != nil:
		return guard.Denial(guard.IdentityUnavailable, "memory of proofs", err.Error(), "room, and an answer")
	case !first:
		return guard.Denial(guard.ProofUsed, "DPoP jti", jws.Printable(jti), "one that is new")
	}
	return guard.Decision{}
}
