// Package jws reads JSON Web Signatures in compact form (RFC 7515) more strictly than the
// standard asks, so that no other parser can read another token in the same text, and checks
// signatures with go-jose. What the claims mean is for the verifiers that use it.
package jws

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/go-jose/go-jose/v4"
)

const (
	// MaxSize is the longest token that is read, in bytes.
	MaxSize = 16 << 10
	// maxValues is the most JSON values in header and claims, about: what is parsed before the
	// signature is checked must not cost more than the signature.
	maxValues = 1000
	// maxParameter is the longest alg, kid or typ.
	maxParameter = 256
	// minRSA is what is still strong; verifying with more than maxRSA costs too much.
	minRSA, maxRSA = 2048, 8192
)

// Split decodes the header and the payload of a token. The signature is not yet checked.
func Split(text string) (header, payload []byte, err error) {
	if len(text) > MaxSize {
		return nil, nil, fmt.Errorf("longer than %d bytes", MaxSize)
	}
	first, rest, _ := strings.Cut(text, ".")
	second, third, _ := strings.Cut(rest, ".")
	if n := strings.Count(text, "."); n != 2 {
		return nil, nil, fmt.Errorf("%d parts, where a signed token has 3 and an encrypted one 5", n+1)
	}
	if header, err = decode(first); err != nil {
		return nil, nil, fmt.Errorf("header: %w", err)
	}
	if payload, err = decode(second); err != nil {
		return nil, nil, fmt.Errorf("payload: %w", err)
	}
	if bytes.Count(header, comma)+bytes.Count(payload, comma) > maxValues {
		return nil, nil, fmt.Errorf("more than %d values", maxValues)
	}
	if third == "" {
		return header, payload, nil // alg "none" has none, and is refused for that
	}
	if _, err = decode(third); err != nil {
		return nil, nil, fmt.Errorf("signature: %w", err)
	}
	return header, payload, nil
}

var comma = []byte(",")

// base64url refuses bits behind the end: else two texts would be one token.
var base64url = base64.RawURLEncoding.Strict()

func decode(part string) ([]byte, error) {
	b, err := base64url.DecodeString(part)
	// The decoder passes over line ends.
	if err != nil || part == "" || strings.ContainsAny(part, "\r\n") {
		return nil, errors.New("not base64url in its only spelling")
	}
	return b, nil
}

// Header is what matters of a token's header.
type Header struct{ Algorithm, KeyID, Type string }

// refused parameters change what is signed or how (crit, b64, zip, enc), or name or bring a
// key that nobody has to believe (RFC 8725 sections 3.1 and 3.10).
var refused = []string{"crit", "b64", "zip", "enc", "jku", "x5u", "x5c"}

// ReadHeader judges a header. A key that it brings, jwk, is for the caller to judge.
func ReadHeader(parameters map[string]any) (h Header, err error) {
	for _, name := range refused {
		if _, has := parameters[name]; has {
			return h, fmt.Errorf("the header has %q", name)
		}
	}
	for name, into := range map[string]*string{"alg": &h.Algorithm, "kid": &h.KeyID, "typ": &h.Type} {
		v, has := parameters[name]
		text, ok := v.(string)
		if has && !ok || len(text) > maxParameter {
			return h, fmt.Errorf("the header's %s is no string, or longer than %d bytes", name, maxParameter)
		}
		*into = text
	}
	if h.Algorithm == "" {
		return h, errors.New("the header has no alg")
	}
	return h, nil
}

// Algorithms are those that a public key, or a secret ([]byte), is good and strong enough for.
func Algorithms(key any) ([]string, error) {
	switch k := key.(type) {
	case *rsa.PublicKey:
		if n := k.N.BitLen(); n < minRSA || n > maxRSA {
			return nil, fmt.Errorf("RSA with %d bits, where %d to %d are accepted", n, minRSA, maxRSA)
		}
		if k.E < 3 || k.E%2 == 0 {
			return nil, fmt.Errorf("RSA with the exponent %d", k.E)
		}
		return []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}, nil
	case *ecdsa.PublicKey:
		if name, ok := curves[k.Params().BitSize]; ok {
			return []string{name}, nil
		}
	case ed25519.PublicKey:
		if len(k) == ed25519.PublicKeySize {
			return []string{"EdDSA"}, nil
		}
	case []byte:
		var names []string
		for i, name := range []string{"HS256", "HS384", "HS512"} {
			// RFC 7518 section 3.2: at least as long as the hash.
			if len(k) >= 32+16*i {
				names = append(names, name)
			}
		}
		if names == nil {
			return nil, fmt.Errorf("a secret of %d bytes, where 32 are the least", len(k))
		}
		return names, nil
	}
	return nil, errors.New("a key of a kind that signs no tokens here")
}

var curves = map[int]string{256: "ES256", 384: "ES384", 521: "ES512"}

// Known are the names of all algorithms.
var Known = []string{
	"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "HS256", "HS384", "HS512",
}

// Symmetric reports whether whoever can verify can also sign.
func Symmetric(algorithm string) bool { return strings.HasPrefix(algorithm, "HS") }

// Verify reports whether the text, which Split has read, is signed with this key by this
// algorithm. That the two fit each other, the caller knows from Algorithms.
func Verify(text, algorithm string, key any) bool {
	s, err := jose.ParseSignedCompact(text, []jose.SignatureAlgorithm{jose.SignatureAlgorithm(algorithm)})
	if err != nil {
		return false
	}
	_, err = s.Verify(key)
	return err == nil
}

// maxShown is how much of a value is shown.
const maxShown = 128

// Printable is what of a text that a stranger has sent can be shown to the operator.
func Printable(s string) string {
	cut := len(s) > maxShown
	if cut {
		s = strings.ToValidUTF8(s[:maxShown], "")
	}
	if q := strconv.Quote(s); q[1:len(q)-1] != s {
		s = q
	}
	if cut {
		s += "…"
	}
	return s
}
