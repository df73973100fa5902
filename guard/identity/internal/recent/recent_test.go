package recent

import (
	"crypto/sha256"
	"encoding/binary"
	"testing"
)

func number(n int) Digest { return sha256.Sum256(binary.BigEndian.AppendUint64(nil, uint64(n))) }

func TestWhatIsUsedStaysWithinTheBound(t *testing.T) {
	table := New[int](16*10*100, 16)
	used, once := number(-1), number(-2)
	table.Put(&used, -1, 100)
	table.Put(&once, -2, 100)
	for n := range 10_000 {
		id := number(n)
		table.Put(&id, n, 100)
		if v, ok := table.Get(&used); !ok || v != -1 {
			t.Fatalf("after %d newcomers what is used all the time was forgotten", n)
		}
		if n%3 == 0 {
			table.Remove(&id)
			if _, ok := table.Get(&id); ok {
				t.Fatal("what was removed is there")
			}
		}
	}
	if _, ok := table.Get(&once); ok {
		t.Error("what was never used stayed")
	}
	slots := 0
	for i := range table.shards {
		s := &table.shards[i]
		if s.taken > table.room || s.taken != 100*len(s.slots) || len(s.slots) != len(s.ring) || len(s.slots) > 10 {
			t.Errorf("shard %d: %d taken by %d slots and a ring of %d", i, s.taken, len(s.slots), len(s.ring))
		}
		for place, at := range s.ring {
			if at.place != place || s.slots[at.id] != at {
				t.Errorf("shard %d: slot %d is out of place", i, place)
			}
		}
		slots += len(s.slots)
	}
	if slots < 16*8 {
		t.Errorf("%d slots where 160 fit", slots)
	}
	large := number(-3)
	table.Put(&large, -3, table.room+1)
	if _, ok := table.Get(&large); ok {
		t.Error("one that is too large was kept")
	}
	table.Put(&used, 7, 200) // replaced
	if v, _ := table.Get(&used); v != 7 {
		t.Errorf("%d, want the newer value", v)
	}
	table.Put(&used, 8, table.room+1) // by one that does not fit
	if _, ok := table.Get(&used); ok {
		t.Error("what no longer holds stayed")
	}
}
