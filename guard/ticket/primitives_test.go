package ticket

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"testing"
)

func FuzzSumIsHMAC(f *testing.F) {
	f.Add([]byte("key"), []byte("message"))
	f.Fuzz(func(t *testing.T, k, msg []byte) {
		key := sha256.Sum256(k)
		h := hmac.New(sha256.New, key[:])
		h.Write(msg)
		if got := sum(&key, append(make([]byte, sha256.BlockSize), msg...)); !hmac.Equal(got[:], h.Sum(nil)) {
			t.Fatalf("%x", got)
		}
	})
}

// decode is what the standard library does, for each length that is used.
func FuzzDecode(f *testing.F) {
	f.Add(encoding.EncodeToString(make([]byte, 47)))
	f.Add(encoding.EncodeToString(bytes.Repeat([]byte{0xfb, 0xff}, 16)))
	f.Add("AB")
	f.Add("A\nB")
	f.Fuzz(func(t *testing.T, text string) {
		want, err := encoding.DecodeString(text)
		for n := range 49 {
			got := make([]byte, n)
			ok := decode(got, text)
			if ok != (err == nil && len(want) == n && len(text) == encoding.EncodedLen(n)) || ok && !bytes.Equal(got, want) {
				t.Fatalf("%q into %d bytes: %v %x, want %x %v", text, n, ok, got, want, err)
			}
		}
	})
}
