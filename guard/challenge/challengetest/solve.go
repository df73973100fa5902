// Package challengetest solves challenges, as an attacker with native code would.
package challengetest

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"math/bits"
)

// Solve returns the solution of a challenge of docs/ticket-format.md, or "" if the token is
// none. It takes one core 2^bits hashes for each puzzle, on average.
func Solve(token string, puzzles, zeros int) string {
	b, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil {
		return ""
	}
	at := len(b)
	b = append(b, 0, 0, 0, 0, 0)
	var out []byte
	for i := range puzzles {
		b[at] = byte(i)
		for nonce := uint32(0); ; nonce++ {
			binary.BigEndian.PutUint32(b[at+1:], nonce)
			sum := sha256.Sum256(b)
			if bits.LeadingZeros64(binary.BigEndian.Uint64(sum[:])) >= zeros {
				out = append(out, b[at+1:]...)
				break
			}
		}
	}
	return base64.RawURLEncoding.EncodeToString(out)
}
