package jwt

import (
	"crypto/sha256"
	"encoding/binary"
	"runtime"
	"strconv"
	"testing"

	"github.com/moat-gateway/moat/guard/identity/internal/principal"
)

func number(n int) [32]byte {
	return sha256.Sum256(binary.BigEndian.AppendUint64(nil, uint64(n)))
}

// What is charged for a token is about what it takes.
func TestMemoryIsWhatWasAskedFor(t *testing.T) {
	const size = 8 << 20
	heap := func() uint64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	tokens := newTokens(size)
	for n := range 8_000 {
		text := `{"iss":"https://accounts.example","aud":["api"],"sub":"` + strconv.Itoa(n) + `","exp":1800000000,"iat":1800000000,"jti":"5b0c3d7e-` + strconv.Itoa(n) +
			`","scope":"openid profile orders:read","client_id":"web","azp":"web","org":"acme","name":"Alice Example","groups":["staff"]}`
		claims, err := principal.ParseClaims([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		id := number(n)
		e := &entry{principal: principal.New(principal.Facts{Source: "accounts", Subject: strconv.Itoa(n), Claims: claims, Scopes: principal.Strings(claims["scope"])})}
		tokens.good.Put(&id, e, slotCost+entryCost+sizeOf(claims))
	}
	used := int64(heap()) - int64(before)
	if used > size*5/4 || used < size/2 {
		t.Errorf("%d bytes in use, where about %d were asked for", used, size*7/8)
	}
	runtime.KeepAlive(tokens)
}
