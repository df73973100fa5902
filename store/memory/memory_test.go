//go:build !interleave

package memory

import (
	"encoding/binary"
	"fmt"
	"hash/maphash"
	"net/netip"
	"runtime"
	"testing"
	"time"
	"unsafe"

	"github.com/moat-gateway/moat/guard/ratelimit"
	"github.com/moat-gateway/moat/store/storetest"
)

func TestConformance(t *testing.T) {
	storetest.Run(t, func(*testing.T) ratelimit.Store { return New(1 << 20) })
}

// net64 is the nth network of a flood.
func net64(n uint64) netip.Prefix {
	var a [16]byte
	binary.BigEndian.PutUint64(a[:], 0x2001<<48|n)
	return netip.PrefixFrom(netip.AddrFrom16(a), 64)
}

func TestSize(t *testing.T) {
	for bytes, want := range map[int]int{-1: 64 << 10, 0: 64 << 10, 1: 64 << 10, 128<<10 - 1: 64 << 10, 128 << 10: 128 << 10, 3 << 20: 2 << 20, 16 << 20: 16 << 20} {
		if st := New(bytes).Stats(); st.Bytes != want || st.Slots != want/8 {
			t.Errorf("New(%d): %d bytes, %d slots; want %d and %d", bytes, st.Bytes, st.Slots, want, want/8)
		}
	}
	for range 20 {
		if at := uintptr(unsafe.Pointer(&New(0).table[0])); unsafe.Sizeof(bucket{}) != 64 || at%64 != 0 {
			t.Fatalf("a bucket of %d bytes at %#x is no cache line", unsafe.Sizeof(bucket{}), at)
		}
	}
}

func TestTakeAndPeekDoNotAllocate(t *testing.T) {
	s := New(0)
	for _, n := range []int{1, 2, 16} {
		demands := make([]ratelimit.Demand, n)
		for i := range demands {
			demands[i] = ratelimit.Demand{
				Key:   ratelimit.Key{Limit: fmt.Sprint("limit ", i), Net: net64(7), Route: "/v1/orders/{id}", Method: "GET"},
				Limit: ratelimit.Limit{Count: 600, Per: time.Minute}, Cost: 1, IfNew: i == 1,
			}
		}
		results := make([]ratelimit.Result, n)
		var i uint64
		if got := testing.AllocsPerRun(1000, func() {
			demands[0].Key.Net = net64(i / 2)
			i++
			s.Take(t.Context(), demands, results)
			s.Peek(t.Context(), demands, results)
		}); got != 0 {
			t.Errorf("%d demands: %v allocations", n, got)
		}
	}
}

func TestStats(t *testing.T) {
	s := New(1 << 20)
	d := []ratelimit.Demand{{Limit: ratelimit.Limit{Count: 1, Per: time.Hour, Burst: 2}, Cost: 1}}
	var r [1]ratelimit.Result
	fill := func(n int) {
		for i := range n {
			d[0].Key.Net = net64(uint64(i))
			s.Take(t.Context(), d, r[:])
		}
	}
	fill(s.Stats().Slots / 4)
	if st := s.Stats(); st.Occupied < .22 || st.Occupied > .28 || st.Evicted > 100 || st.EvictedThrottled != 0 {
		t.Errorf("a quarter full: %+v", st)
	}
	fill(s.Stats().Slots * 4)
	if st := s.Stats(); st.Occupied < .99 || st.Evicted < uint64(2*st.Slots) || st.Evicted > uint64(4*st.Slots) {
		t.Errorf("overflowing: %+v", st)
	}
}

func TestWhatIsNotChargedIsShownAsItIs(t *testing.T) {
	s := New(0)
	l := ratelimit.Limit{Count: 1, Per: time.Hour, Burst: 3}
	demands := []ratelimit.Demand{
		{Key: ratelimit.Key{Route: "a"}, Limit: l, Cost: 1},
		{Key: ratelimit.Key{Route: "b"}, Limit: l, Cost: 4},
	}
	results := make([]ratelimit.Result, 2)
	if ok, _ := s.Take(t.Context(), demands, results); ok || results[0] != (ratelimit.Result{Allowed: true, New: true, Remaining: 3}) {
		t.Errorf("%v, %+v", ok, results)
	}
}

func TestGripGrowsWithEachReturn(t *testing.T) {
	s := New(0)
	at := s.place(ratelimit.Key{})
	ask := func(now int64, cost int, allowed bool, want uint64) {
		t.Helper()
		d := []ratelimit.Demand{{Limit: ratelimit.Limit{Count: 1, Per: time.Second, Burst: 10}, Cost: cost}}
		got := s.take(now, d, make([]ratelimit.Result, 1))
		if g := at.bucket.find(at.tag, now).word & gripMask / grip; got != allowed || g != want {
			t.Errorf("at %d: got %v and a grip of %d, want %v and %d", now, got, g, allowed, want)
		}
	}
	const second = 1_000_000
	ask(second, 1, true, 0)
	ask(second, 1, true, 1)
	ask(second, 1, true, 1)
	ask(second, 9, false, 2)
	ask(second, 9, false, 3)
	ask(second, 9, false, 3)
	ask(second, 1, true, 3)
	ask(20*second, 1, true, 0)
}

// A tag of 0 would be that of an empty slot.
func TestNoKeyHasTheTagOfAnEmptySlot(t *testing.T) {
	s := New(0)
	k := ratelimit.Key{}
	for i := uint64(0); maphash.Comparable(s.seed, k)>>tagShift != 0; i++ {
		k.Net = net64(i)
	}
	d := []ratelimit.Demand{{Key: k, Limit: ratelimit.Limit{Count: 1, Per: time.Hour}, Cost: 1}}
	r := make([]ratelimit.Result, 1)
	// An empty slot would be a debt of weeks by now.
	if !s.take(20*day, d, r) || !r[0].New || s.take(20*day, d, r) {
		t.Errorf("%+v", r)
	}
}

// Were it always the same, two keys could evict each other for as long as they ask.
func TestAKeyEvictsNowThisOneNowThat(t *testing.T) {
	evicted := make(map[int]bool)
	for now := range int64(64) {
		var b bucket
		for i := range b {
			b[i].Store(pack(uint64(100+i), 0, now+day))
		}
		_, gone, ok := b.reserve(7, now*1024)
		if !ok {
			t.Fatal("no room")
		}
		evicted[gone.slot] = true
	}
	if len(evicted) != slots {
		t.Errorf("in 64 times it evicted only these: %v", evicted)
	}
}

// Tags of 20 bits tell the 8 keys of a bucket apart: in a table that is full of debts, 8 new
// keys of 2^20 are taken for another.
func TestKeysRarelyShareADebt(t *testing.T) {
	s := New(0)
	d := []ratelimit.Demand{{Key: ratelimit.Key{Limit: "full"}, Limit: ratelimit.Limit{Count: 1, Per: time.Hour}, Cost: 1}}
	var r [1]ratelimit.Result
	for i := range uint64(10 * s.Stats().Slots) {
		d[0].Key.Net = net64(i)
		s.Take(t.Context(), d, r[:])
	}
	const n = 1 << 20
	shared := 0
	d[0].Key.Limit = "new"
	for i := range uint64(n) {
		d[0].Key.Net = net64(i)
		if s.Peek(t.Context(), d, r[:]); !r[0].New {
			shared++
		}
	}
	t.Logf("%d of %d new keys share a debt", shared, n)
	if shared > 40 { // 8 are expected; by chance it happens once in 10^15 runs.
		t.Errorf("%d of %d new keys share a debt, want about 8", shared, n)
	}
}

// abusers are clients that ask for more than they may, all the time.
type abusers struct {
	limit    ratelimit.Limit
	name     string
	each     int64 // microseconds between the requests of one
	ideal    float64
	admitted int
}

// A flood brings ten times as many new keys as the table has slots, with a million requests
// in a second. Those who are to be throttled come when the table is full already.
func TestFloodDoesNotFreeWhoIsThrottled(t *testing.T) {
	bytes, rate := 8<<20, int64(1_000_000)
	if testing.Short() || raceDetector {
		bytes, rate = bytes/32, rate/32
	}
	const seconds, late, crowd, second = 10, 2, 50, 1_000_000
	limit := func(words string) ratelimit.Limit {
		l, err := ratelimit.ParseLimit(words)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	for _, c := range []struct {
		flood string
		times int64 // requests for each key
	}{{"600/m burst 20", 1}, {"1/m", 1}, {"1/m", 2}, {"5/h", 1}, {"5/h", 2}} {
		t.Run(fmt.Sprintf("%d of %s", c.times, c.flood), func(t *testing.T) {
			s, words := New(bytes), limit(c.flood)
			throttled := []*abusers{
				{limit: limit("600/m burst 20"), each: second / 40, ideal: 20 + 10*(seconds-late)},
				{limit: limit("60/m burst 20"), each: second / 10, ideal: 20 + seconds - late},
				{limit: limit("1/m"), each: second / 10, ideal: 1},
				{limit: limit("5/h"), each: second / 10, ideal: 5},
			}
			for _, a := range throttled {
				a.name = a.limit.String()
			}
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			d, r := make([]ratelimit.Demand, 1), make([]ratelimit.Result, 1)
			for i := range rate * seconds {
				now := day + i*second/rate
				d[0] = ratelimit.Demand{Key: ratelimit.Key{Limit: "flood", Net: net64(uint64(i / c.times))}, Limit: words, Cost: 1}
				s.take(now, d, r)
				if i < rate*late {
					continue
				}
				for k, a := range throttled {
					// Of a crowd of clients, each in turn.
					every := a.each * rate / second / crowd
					if i%every != int64(k) {
						continue
					}
					d[0] = ratelimit.Demand{Key: ratelimit.Key{Limit: a.name, Net: net64(uint64(i / every % crowd))}, Limit: a.limit, Cost: 1}
					if s.take(now, d, r) {
						a.admitted++
					}
				}
			}
			runtime.ReadMemStats(&after)
			if grown := after.TotalAlloc - before.TotalAlloc; grown > 1<<20 {
				t.Errorf("%d bytes were allocated", grown)
			}
			t.Logf("%+v", s.Stats())
			for _, a := range throttled {
				share := float64(a.admitted) / crowd / a.ideal
				t.Logf("%s: admitted %.2f of what it allows", a.limit, share)
				if share < .9 || share > 1.5 {
					t.Errorf("%s: admitted %.2f of what it allows", a.limit, share)
				}
			}
		})
	}
}
