package memory

import (
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"github.com/moat-gateway/moat/guard/ticket"
	"github.com/moat-gateway/moat/store/storetest"
)

func TestTicketsConform(t *testing.T) {
	storetest.RunTickets(t, func(*testing.T) (a, b ticket.Store) {
		s := NewTickets(4<<20, 0)
		return s, s
	})
	storetest.RunFull(t, func(*testing.T) ticket.Store { return NewTickets(128<<10, 0) })
}

// number gives one out, and fails the test if there is none.
func number(t testing.TB, s *Tickets) uint64 {
	t.Helper()
	_, n, err := s.Number(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func first(t testing.TB, s *Tickets, n uint64, use uint8) bool {
	t.Helper()
	got, err := s.Use(t.Context(), s.lineage, n, use)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// fill gives out numbers until there is no room.
func fill(t testing.TB, s *Tickets) (all []uint64) {
	t.Helper()
	for {
		_, n, err := s.Number(t.Context())
		if err != nil {
			return all
		}
		all = append(all, n)
	}
}

func TestNoNumberIsUsableBeforeItIsGivenOut(t *testing.T) {
	s := NewTickets(0, 0)
	last := number(t, s)
	for range 3 * chunkTickets {
		if first(t, s, last+1, 0) || first(t, s, last+1<<chunkBits, 0) {
			t.Fatalf("use of a number after %d, which is the last", last)
		}
		_, next, err := s.Number(t.Context())
		if err != nil {
			break
		}
		if next != last+1 && next != last+1+headWords {
			t.Fatalf("%d comes after %d", next, last)
		}
		if !first(t, s, next, 0) {
			t.Fatalf("the first use of %d is not the first", next)
		}
		last = next
	}
}

func TestRoomComesBackWhenTicketsHaveExpired(t *testing.T) {
	const lifetime = 2 * time.Minute
	synctest.Test(t, func(t *testing.T) {
		s := NewTickets(256<<10, lifetime)
		seen := map[uint64]bool{}
		for round := range 5 {
			first5 := number(t, s)
			time.Sleep(time.Minute)
			all := append(fill(t, s), first5)
			if len(all) < 7*chunkTickets {
				t.Fatalf("round %d: room for %d tickets", round, len(all))
			}
			for _, n := range all {
				if seen[n] {
					t.Fatalf("%d was given out twice", n)
				}
				seen[n] = true
			}
			// A ticket lives from when the caller read the clock, which is before it asked;
			// the last of them are good for all their time.
			time.Sleep(lifetime)
			if got := fill(t, s); len(got) != 0 {
				t.Fatalf("round %d: %d more while tickets live", round, len(got))
			}
			for _, n := range all {
				if !first(t, s, n, 7) || first(t, s, n, 7) {
					t.Fatalf("%d was forgotten while it lives", n)
				}
			}
			time.Sleep(slack + 2*time.Second)
			number(t, s)
			for _, n := range all {
				if first(t, s, n, 8) {
					t.Fatalf("%d is known after its room was given to others", n)
				}
			}
		}
	})
}

// Whoever is stopped between finding a chunk and marking its bit, while the chunk is
// dropped and others come, has marked nobody else's.
func TestAUseThatIsLateMarksNobodyElses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewTickets(0, time.Minute)
		old := number(t, s)
		c := s.current.Load()
		for range 10 {
			fill(t, s)
			time.Sleep(2 * time.Minute)
		}
		n := number(t, s)
		for i := range c.words {
			c.words[i].Store(1<<32 - 1)
		}
		if first(t, s, old, 0) || !first(t, s, n, 0) || first(t, s, n, 0) {
			t.Error("a late use has marked another ticket, or was first")
		}
	})
}

func TestUsesWhileChunksComeAndGo(t *testing.T) {
	s := NewTickets(0, time.Nanosecond)
	s.since = s.since.Add(-time.Hour)
	var firsts, given atomic.Int64
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for range 20_000 {
				_, n, err := s.Number(t.Context())
				if err != nil {
					s.mu.Lock()
					s.since = s.since.Add(-time.Minute) // an hour passes in no time
					s.mu.Unlock()
					continue
				}
				given.Add(1)
				var both sync.WaitGroup
				for range 2 {
					both.Go(func() {
						if ok, _ := s.Use(t.Context(), s.lineage, n, 5); ok {
							firsts.Add(1)
						}
					})
				}
				both.Wait()
			}
		})
	}
	all.Wait()
	if firsts.Load() > given.Load() || firsts.Load() == 0 {
		t.Errorf("%d first uses of %d tickets", firsts.Load(), given.Load())
	}
}

func TestTheLastNumberIsBelow2To48(t *testing.T) {
	s := NewTickets(1<<20, 0)
	s.current.Load().index = 1<<(48-chunkBits) - 1
	all := fill(t, s)
	if len(all) != chunkTickets || all[len(all)-1] != 1<<48-1 {
		t.Errorf("%d numbers, the last is %d", len(all), all[len(all)-1])
	}
}

// The system's clock may be turned forth and back. Neither makes anything be forgotten
// before it has expired.
func TestAMarkIsKeptUntilItIsOverByBothClocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewTickets(0, 0)
		expires := time.Now().Add(time.Minute)
		mark := func(want bool) {
			t.Helper()
			if got, err := s.Once(t.Context(), 1, 2, expires.Add(10*time.Hour)); err != nil || got != want {
				t.Fatalf("first %v, error %v", got, err)
			}
		}
		if ok, _ := s.Once(t.Context(), 1, 2, expires); !ok {
			t.Fatal("not the first")
		}
		time.Sleep(59 * time.Second)
		mark(false)
		time.Sleep(4 * time.Second)
		// As if the system's clock had been set back.
		for i := range s.marks {
			for k := range s.marks[i].system {
				if s.marks[i].system[k] != 0 {
					s.marks[i].system[k] += 3600
				}
			}
		}
		mark(false)
		time.Sleep(time.Hour + 5*time.Second)
		mark(true)
		mark(false)
	})
}

func TestWhatIsUsedOfTheBytes(t *testing.T) {
	if got := unsafe.Sizeof(chunk{}); got != chunkBytes {
		t.Errorf("a chunk has %d bytes", got)
	}
	if got := unsafe.Sizeof(marks{}); got > marksBytes {
		t.Errorf("a bucket of marks has %d bytes", got)
	}
	const bytes = 64 << 20
	before := heap()
	s := NewTickets(bytes, 0)
	n := len(fill(t, s))
	total := heap() - before
	each := float64(total-int64(len(s.marks)*marksBytes)) / float64(n*32)
	runtime.KeepAlive(s)
	t.Logf("%.4f bytes for each use of %d tickets, %d in all", each, n, total)
	if each > 0.13 || total > bytes+bytes/100 {
		t.Errorf("%.4f bytes for each use, %d in all", each, total)
	}
}

func heap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

func TestTicketsAllocateNothingForAUse(t *testing.T) {
	s := NewTickets(64<<20, 0)
	n, id, expires := number(t, s), uint64(0), time.Now().Add(time.Hour)
	for name, f := range map[string]func(){
		"Use":  func() { s.Use(t.Context(), s.lineage, n, 1) },
		"Once": func() { s.Once(t.Context(), 1, id, expires); id++ },
	} {
		if got := testing.AllocsPerRun(1000, f); got != 0 {
			t.Errorf("%s: %v allocations", name, got)
		}
	}
}

func BenchmarkTicketsUse(b *testing.B) {
	s := NewTickets(64<<20, 0)
	all := fill(b, s)
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		s.Use(b.Context(), s.lineage, all[i%len(all)], uint8(i&31))
		i++
	}
}

func BenchmarkTicketsUseParallel(b *testing.B) {
	s := NewTickets(64<<20, 0)
	all := fill(b, s)
	ctx := b.Context()
	b.ReportAllocs()
	var from atomic.Uint64
	b.RunParallel(func(pb *testing.PB) {
		for i := from.Add(1 << 16); pb.Next(); i++ {
			s.Use(ctx, s.lineage, all[i%uint64(len(all))], uint8(i&31))
		}
	})
}

func BenchmarkTicketsNumber(b *testing.B) {
	const bytes = 64 << 20
	s := NewTickets(bytes, 0)
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := s.Number(b.Context()); err != nil {
			s = NewTickets(bytes, 0)
		}
	}
}

func BenchmarkTicketsOnce(b *testing.B) {
	s := NewTickets(64<<20, 0)
	expires := time.Now().Add(time.Hour)
	b.ReportAllocs()
	id := uint64(0)
	for b.Loop() {
		s.Once(b.Context(), 1, id&(1<<20-1), expires)
		id++
	}
}

func BenchmarkTicketsMemory(b *testing.B) {
	for b.Loop() {
		before := heap()
		s := NewTickets(64<<20, 0)
		n := len(fill(b, s))
		b.ReportMetric(float64(heap()-before-int64(len(s.marks)*marksBytes))/float64(n*32), "B/use")
		runtime.KeepAlive(s)
	}
	b.ReportMetric(0, "ns/op")
}
