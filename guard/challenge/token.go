package challenge

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"math/bits"
	"sync"
	"time"
)

// Lifetime is how long a challenge can be answered.
const Lifetime = 2 * time.Minute

// The kinds of token.
const (
	work = 0x20 // to be solved
	wait = 0x21 // to be waited for
)

// token is what a challenge is told and recognized by:
//
//	0      kind
//	1      kid
//	2–5    expires, Unix seconds
//	6      puzzles; 0 of a wait
//	7      bits of each puzzle; of a wait those of all the work that it stands for
//	8–15   id, random
//	16–19  bind
//	20–35  tag, the first half of HMAC-SHA256 over what is before it
//
// It has a length of its own, so it is none of the other things that begin with a class byte.
type token [36]byte

const signed = 20

func (t *token) expires() int64 { return int64(binary.BigEndian.Uint32(t[2:])) }

func (t *token) id() uint64 { return binary.BigEndian.Uint64(t[8:]) }

func (t *token) text() string { return base64.RawURLEncoding.EncodeToString(t[:]) }

// encoding refuses what a text could have in its spare bits.
var encoding = base64.RawURLEncoding.Strict()

// decode fills dst from text, which must have no more and no less than that. The decoder
// skips line ends; a text that has some is too short.
func decode(dst []byte, text string) bool {
	if len(text) != encoding.EncodedLen(len(dst)) {
		return false
	}
	n, err := encoding.Decode(dst, []byte(text))
	return err == nil && n == len(dst)
}

// keyring has the keys of all secrets. The first one signs.
type keyring []*key

type key struct {
	kid  byte
	macs sync.Pool
}

const minSecret = 32

func newKeyring(secrets [][]byte) (keyring, error) {
	if len(secrets) == 0 {
		return nil, errors.New("no secret to sign challenges with")
	}
	var ring keyring
	for i, s := range secrets {
		if len(s) < minSecret {
			return nil, fmt.Errorf("secret %d has %d bytes; it needs %d, from a random source", i+1, len(s), minSecret)
		}
		b, err := hkdf.Key(sha256.New, s, []byte("moat ticket v1"), "challenge", sha256.Size+1)
		if err != nil {
			return nil, err
		}
		k := &key{kid: b[sha256.Size]}
		k.macs.New = func() any { return hmac.New(sha256.New, b[:sha256.Size]) }
		ring = append(ring, k)
	}
	return ring, nil
}

// tag is the tag of a token.
func (k *key) tag(t *token) []byte {
	h, ok := k.macs.Get().(hash.Hash)
	if !ok {
		panic("challenge: the pool holds hashes")
	}
	defer k.macs.Put(h)
	h.Reset()
	h.Write(t[:signed])
	return h.Sum(nil)[:len(token{})-signed]
}

// seal makes a token that expires Lifetime after the second that now is in.
func (ring keyring) seal(kind, puzzles, bits uint8, bind [4]byte, now time.Time) (t token) {
	t[0], t[1], t[6], t[7] = kind, ring[0].kid, puzzles, bits
	expires := now.Add(Lifetime + time.Second - 1).Unix()
	binary.BigEndian.PutUint32(t[2:], uint32(expires)) //nolint:gosec // until 2106.
	rand.Read(t[8:16])                                 // never fails
	copy(t[16:], bind[:])
	copy(t[signed:], ring[0].tag(&t))
	return t
}

// open reads a token that one of the keys has signed.
func (ring keyring) open(kind uint8, text string) (t token, ok bool) {
	if !decode(t[:], text) || t[0] != kind {
		return t, false
	}
	for _, k := range ring {
		// Two secrets can have the same kid.
		if k.kid == t[1] && hmac.Equal(k.tag(&t), t[signed:]) {
			return t, true
		}
	}
	return t, false
}

// solved reports whether the nonces solve all puzzles of the token.
func (t *token) solved(nonces []byte) bool {
	var b [len(token{}) + 5]byte
	copy(b[:], t[:])
	for i := range int(t[6]) {
		b[len(token{})] = byte(i)
		copy(b[len(token{})+1:], nonces[4*i:4*i+4])
		sum := sha256.Sum256(b[:])
		if bits.LeadingZeros64(binary.BigEndian.Uint64(sum[:])) < int(t[7]) {
			return false
		}
	}
	return true
}
