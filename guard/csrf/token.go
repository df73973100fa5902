package csrf

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/binary"
	"time"

	"github.com/moat-gateway/moat/guard"
)

// A token is a mask, and under it: the version, the minute of issue, and an HMAC over both
// and what the token is bound to. The mask makes each copy of it another text, so that
// compression tells nothing of it where an answer repeats what the request held (BREACH).
const (
	version  = 1
	macAt    = 1 + 4
	macSize  = 16
	size     = macAt + macSize
	textSize = 2 * size / 3 * 4
)

var encoding = base64.RawURLEncoding.Strict()

// key makes and checks tokens.
type key [sha256.Size]byte

// mint makes a token with the newest key.
func (g *Guard) mint(b *binding, now time.Time) string {
	var raw [2 * size]byte
	mask, body := raw[:size], raw[size:]
	rand.Read(mask)
	body[0] = version
	binary.BigEndian.PutUint32(body[1:], minute(now))
	mac := g.keys[0].sum(body[:macAt], b)
	copy(body[macAt:], mac[:macSize])
	subtle.XORBytes(body, body, mask)
	return encoding.EncodeToString(raw[:])
}

func minute(t time.Time) uint32 { return uint32(t.Unix() / 60) } //nolint:gosec // until the year 10136.

// verify judges a token.
func (g *Guard) verify(token string, b *binding, now time.Time) guard.Reason {
	var text [textSize]byte
	var raw [2 * size]byte
	if len(token) != textSize {
		return guard.CSRFTokenInvalid
	}
	copy(text[:], token)
	// It skips line ends, and then there are fewer bytes.
	if n, err := encoding.Decode(raw[:], text[:]); err != nil || n != len(raw) {
		return guard.CSRFTokenInvalid
	}
	body := raw[size:]
	subtle.XORBytes(body, body, raw[:size])
	if body[0] != version || !g.made(body, b) {
		return guard.CSRFTokenInvalid
	}
	issued := time.Unix(int64(binary.BigEndian.Uint32(body[1:]))*60, 0)
	// It was issued in that minute, by a clock that may differ by another one.
	switch age := now.Sub(issued); {
	case age < -time.Minute:
		return guard.CSRFTokenInvalid
	case age >= g.lifetime+time.Minute:
		return guard.CSRFTokenExpired
	}
	return guard.CSRFTokenValid
}

// made reports whether one of the keys made it.
func (g *Guard) made(body []byte, b *binding) bool {
	ok := 0
	for i := range g.keys {
		mac := g.keys[i].sum(body[:macAt], b)
		ok |= subtle.ConstantTimeCompare(mac[:macSize], body[macAt:])
	}
	return ok == 1
}

// sum is HMAC-SHA256 (RFC 2104), without the allocations of crypto/hmac. Its message has one length.
func (k *key) sum(head []byte, b *binding) [sha256.Size]byte {
	var inner [sha256.BlockSize + macAt + len(b)]byte
	outer := outerPad
	copy(inner[:], innerPad[:])
	subtle.XORBytes(inner[:], inner[:len(k)], k[:])
	subtle.XORBytes(outer[:], outer[:len(k)], k[:])
	copy(inner[sha256.BlockSize:], head)
	copy(inner[sha256.BlockSize+macAt:], b[:])
	digest := sha256.Sum256(inner[:])
	copy(outer[sha256.BlockSize:], digest[:])
	return sha256.Sum256(outer[:])
}

var (
	innerPad = [sha256.BlockSize]byte(bytes.Repeat([]byte{0x36}, sha256.BlockSize))
	outerPad = [sha256.BlockSize + sha256.Size]byte(bytes.Repeat([]byte{0x5c}, sha256.BlockSize+sha256.Size))
)
