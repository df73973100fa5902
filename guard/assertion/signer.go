package assertion

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"unicode/utf8"
)

// maxKeys bounds what is published, and what every upstream has to read.
const maxKeys = 16

// signatureBytes is the length of both kinds of signatures.
const signatureBytes = 64

// Signer signs tokens. It is immutable, and safe for concurrent use.
type Signer struct {
	issuer string
	key    crypto.Signer // the newest
	hash   crypto.Hash   // of what it signs; 0 for the text itself
	head   string        // of a token, encoded, with the dot
	jwks   []byte
}

// jwk is a public key (RFC 7517), its members in the order of RFC 7638. Only the first four
// are what the thumbprint covers.
type jwk struct {
	Curve     string `json:"crv"`
	Type      string `json:"kty"`
	X         string `json:"x"`
	Y         string `json:"y,omitempty"`
	Algorithm string `json:"alg,omitempty"`
	KeyID     string `json:"kid,omitempty"`
	Use       string `json:"use,omitempty"`
}

// NewSigner returns a Signer. The keys are of P-256 or Ed25519: the first one signs, and all
// are published. The issuer is the iss of tokens.
func NewSigner(keys []crypto.Signer, issuer string) (*Signer, error) {
	if len(keys) == 0 || len(keys) > maxKeys {
		return nil, fmt.Errorf("%d keys: there are between 1 and %d", len(keys), maxKeys)
	}
	if issuer == "" || !utf8.ValidString(issuer) {
		return nil, errors.New("issuer: none, or not UTF-8; take a public origin of the gate")
	}
	public := make([]jwk, 0, len(keys))
	for i, key := range keys {
		k, err := publish(key)
		if err != nil {
			return nil, fmt.Errorf("key %d: %w", i+1, err)
		}
		if at := slices.Index(public, k); at >= 0 {
			return nil, fmt.Errorf("key %d is key %d again", i+1, at+1)
		}
		public = append(public, k)
	}
	s := &Signer{issuer: issuer, key: keys[0]}
	if public[0].Algorithm == "ES256" {
		s.hash = crypto.SHA256
	}
	// Stock verifiers refuse a typ that they do not know; issuer and audience tell our tokens
	// from others.
	head := fmt.Sprintf(`{"alg":%q,"kid":%q,"typ":"JWT"}`, public[0].Algorithm, public[0].KeyID)
	s.head = base64.RawURLEncoding.EncodeToString([]byte(head)) + "."
	var err error
	s.jwks, err = json.Marshal(map[string][]jwk{"keys": public})
	return s, err
}

func publish(key crypto.Signer) (k jwk, err error) {
	b64 := base64.RawURLEncoding
	var alg string
	switch pub := key.Public().(type) {
	case *ecdsa.PublicKey:
		if pub.Curve != elliptic.P256() {
			return k, errors.New("it is on another curve; make one of P-256: openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256")
		}
		point, pErr := pub.Bytes() // 4, x, y
		if pErr != nil {
			return k, errors.New("it is no point of P-256")
		}
		k, alg = jwk{Type: "EC", Curve: "P-256", X: b64.EncodeToString(point[1:33]), Y: b64.EncodeToString(point[33:])}, "ES256"
	case ed25519.PublicKey:
		k, alg = jwk{Type: "OKP", Curve: "Ed25519", X: b64.EncodeToString(pub)}, "EdDSA"
	default:
		return k, fmt.Errorf("it is of type %T; make one of P-256 or Ed25519", key)
	}
	thumbed, err := json.Marshal(k) // RFC 7638 section 3
	if err != nil {
		return k, err
	}
	sum := sha256.Sum256(thumbed)
	k.KeyID, k.Algorithm, k.Use = b64.EncodeToString(sum[:]), alg, "sig"
	return k, nil
}

// JWKS are the public keys, as a JWK Set. It must not be changed.
func (s *Signer) JWKS() []byte { return s.jwks }

// size is how long a token about so many bytes of claims is.
func (s *Signer) size(claims int) int {
	return len(s.head) + base64.RawURLEncoding.EncodedLen(claims) + 1 + base64.RawURLEncoding.EncodedLen(signatureBytes)
}

// sign returns prefix and a JWS in the compact serialization (RFC 7515 section 7.1).
func (s *Signer) sign(prefix string, claims []byte) (string, error) {
	b := make([]byte, 0, len(prefix)+s.size(len(claims)))
	b = append(append(b, prefix...), s.head...)
	b = base64.RawURLEncoding.AppendEncode(b, claims)
	signature, err := s.signature(b[len(prefix):])
	if err != nil {
		return "", err
	}
	return string(base64.RawURLEncoding.AppendEncode(append(b, '.'), signature)), nil
}

func (s *Signer) signature(input []byte) ([]byte, error) {
	if s.hash == 0 {
		return s.key.Sign(rand.Reader, input, s.hash)
	}
	sum := sha256.Sum256(input)
	der, err := s.key.Sign(rand.Reader, sum[:], s.hash)
	if err != nil {
		return nil, err
	}
	var rs struct{ R, S *big.Int }
	if _, err = asn1.Unmarshal(der, &rs); err != nil {
		return nil, err
	}
	raw := make([]byte, signatureBytes) // RFC 7518 section 3.4
	rs.R.FillBytes(raw[:32])
	rs.S.FillBytes(raw[32:])
	return raw, nil
}

// ParseKey reads a private key of P-256 or Ed25519 in PEM. Its errors do not repeat the text.
func ParseKey(text []byte) (crypto.Signer, error) {
	block, rest := pem.Decode(text)
	if block == nil {
		return nil, errors.New("no PEM; make a key with: openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256")
	}
	if more, _ := pem.Decode(rest); more != nil {
		return nil, fmt.Errorf("more than one PEM block, the first is %q; a file holds one key, without its parameters or certificate", block.Type)
	}
	var key any
	var err error
	switch block.Type {
	case "PRIVATE KEY":
		key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	case "EC PRIVATE KEY":
		key, err = x509.ParseECPrivateKey(block.Bytes)
	default:
		return nil, fmt.Errorf("the PEM block is %q; a private key that is not encrypted is \"PRIVATE KEY\" or \"EC PRIVATE KEY\"", block.Type)
	}
	if err != nil {
		return nil, errors.New("the PEM block cannot be read as a private key")
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("a key of type %T signs nothing; make one of P-256 or Ed25519", key)
	}
	if _, err = publish(signer); err != nil {
		return nil, err
	}
	return signer, nil
}

// GenerateKey makes a key of P-256, which every verifier knows.
func GenerateKey() (crypto.Signer, error) {
	return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
}
