package session

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"net/http"
)

// secret is what a cookie holds: 256 random bits, and everything else is derived from them.
type secret [32]byte

// textLen is the length of a secret in a cookie.
const textLen = 43

// encoding refuses what a text could have in its spare bits. It skips line ends, which make a
// text of the right length too short.
var encoding = base64.RawURLEncoding.Strict()

func newSecret() (s secret) {
	rand.Read(s[:]) // never fails
	return s
}

func parseSecret(text string) (s secret, ok bool) {
	if len(text) != textLen {
		return s, false
	}
	n, err := encoding.Decode(s[:], []byte(text))
	return s, err == nil && n == len(s)
}

func (s *secret) text() string { return encoding.EncodeToString(s[:]) }

// id names the session in the Store.
func (s *secret) id() ID { return sha256.Sum256(s[:]) }

// derive makes 32 bytes for a purpose (RFC 5869). The secret is random already, so there is
// nothing to extract.
func (s *secret) derive(purpose string) []byte {
	b, err := hkdf.Expand(sha256.New, s[:], "moat session v1 "+purpose, 32)
	if err != nil {
		panic(err) // 32 bytes are not too many
	}
	return b
}

func (s *secret) aead(purpose string) cipher.AEAD {
	block, err := aes.NewCipher(s.derive(purpose))
	if err != nil {
		panic(err) // 32 bytes are a key
	}
	a, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		panic(err) // AES has blocks of the right size
	}
	return a
}

// seal encrypts and authenticates, for who knows the secret; about is authenticated too.
func (s *secret) seal(purpose, about string, plain []byte) []byte {
	return s.aead(purpose).Seal(nil, nil, plain, []byte(about)) //nolint:gosec // it makes a random nonce itself.
}

func (s *secret) open(purpose, about string, sealed []byte) ([]byte, error) {
	plain, err := s.aead(purpose).Open(nil, nil, sealed, []byte(about))
	if err != nil {
		return nil, errors.New("not sealed by this cookie")
	}
	return plain, nil
}

// hashed names what is told by several texts, each of which may be anything.
func hashed(texts ...string) ID {
	h := sha256.New()
	for _, t := range texts {
		sum := sha256.Sum256([]byte(t))
		h.Write(sum[:])
	}
	return ID(h.Sum(nil))
}

// cookies finds the values of the cookies of a name, in their order.
func cookies(r *http.Request, name string) (values []string) {
	for _, c := range r.CookiesNamed(name) {
		if c.Value != "" {
			values = append(values, c.Value)
		}
	}
	return values
}
