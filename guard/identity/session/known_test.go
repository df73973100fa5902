package session

import (
	"encoding/binary"
	"testing"
)

func TestOpenedSessionsAreKeptWithinBounds(t *testing.T) {
	for name, bytes := range map[string]int{"many": 100, "large": maxToken} {
		t.Run(name, func(t *testing.T) {
			var k known
			number := func(i uint32) (v version) {
				binary.BigEndian.PutUint32(v.id[:], i)
				return v
			}
			first := &opened{bytes: bytes}
			k.add(number(0), first)
			for i := range uint32(20_000) {
				k.add(number(i+1), &opened{bytes: bytes})
				if k.find(number(0)) != first {
					t.Fatalf("what is used again and again is forgotten after %d others", i)
				}
				total := 0
				for _, half := range []map[version]*opened{k.young, k.old} {
					if len(half) > halfKnown {
						t.Fatalf("%d in a half", len(half))
					}
					total += len(half) * bytes
				}
				if total > 2*halfBytes {
					t.Fatalf("%d bytes", total)
				}
			}
			if k.find(number(1)) != nil {
				t.Error("what is not used is kept")
			}
		})
	}
}
