//go:build !interleave

package memory

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/moat-gateway/moat/guard/ratelimit"
)

const (
	day   = int64(24 * time.Hour / time.Microsecond)
	round = int64(1) << tatBits // after which the clock seems to begin anew
)

// seeded returns a random source, and logs what to seed it with to have the same again.
func seeded(t *testing.T) *rand.Rand {
	t.Helper()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// keysApart returns n keys that share no slot.
func keysApart(s *Store, n int) []ratelimit.Key {
	keys := make([]ratelimit.Key, 0, n)
	seen := make(map[place]bool)
	for i := 0; len(keys) < n; i++ {
		if k := (ratelimit.Key{Route: fmt.Sprint(i)}); !seen[s.place(k)] {
			seen[s.place(k)] = true
			keys = append(keys, k)
		}
	}
	return keys
}

// history is what a key was admitted, and knows from the definition of a limit alone
// whether more may be: within any span of time no more than the burst, and what the time
// brings.
type history []struct{ at, cost int64 }

func (h history) room(interval, burst, now, cost int64) bool {
	if cost > burst {
		return false
	}
	sum := cost
	for _, past := range slices.Backward(h) {
		sum += past.cost
		if sum*interval > burst*interval+now-past.at {
			return false
		}
	}
	return true
}

func TestEveryDecisionIsThatOfTheLimitInWords(t *testing.T) {
	r := seeded(t)
	steps := 30_000
	if testing.Short() || raceDetector {
		steps /= 10
	}
	for _, start := range []int64{0, 1, day, round - day, round - 1, round, 5*round - int64(time.Millisecond), 1000 * round} {
		s := New(0)
		keys := keysApart(s, 12)
		limits := make([]ratelimit.Limit, len(keys))
		histories := make([]history, len(keys))
		for i := range limits {
			limits[i] = []ratelimit.Limit{
				{Count: 1, Per: time.Microsecond, Burst: 1 + r.IntN(5)},
				{Count: 1 + r.IntN(1000), Per: time.Second, Burst: 1 + r.IntN(50)},
				{Count: 1 + r.IntN(100), Per: time.Minute, Burst: 1 + r.IntN(5)},
				{Count: 5, Per: time.Hour},
				{Count: 1, Per: 31 * 24 * time.Hour, Burst: 1},
			}[r.IntN(5)]
		}
		now := start
		var pause int64 // that the last refusal named
		for range steps {
			// From a microsecond to a month, as many of each magnitude.
			switch r.IntN(4) {
			case 0:
				now += int64(1) << r.IntN(42)
			case 1:
				now += pause
			case 2:
				now += max(pause-1, 0)
			case 3:
			}
			demands := make([]ratelimit.Demand, 1+r.IntN(3)*r.IntN(2))
			results := make([]ratelimit.Result, len(demands))
			want, next := true, make(map[int]history)
			for i := range demands {
				k := r.IntN(len(keys))
				l, cost := limits[k], 1+r.IntN(3)*r.IntN(2)
				demands[i] = ratelimit.Demand{Key: keys[k], Limit: l, Cost: cost}
				if l.Burst == 0 {
					l.Burst = l.Count
				}
				interval := (l.Per.Microseconds() + int64(l.Count) - 1) / int64(l.Count)
				if _, again := next[k]; !again {
					next[k] = histories[k]
				}
				want = want && next[k].room(interval, int64(l.Burst), now, int64(cost))
				next[k] = append(slices.Clip(next[k]), struct{ at, cost int64 }{now, int64(cost)})
			}
			if got := s.take(now, demands, results); got != want {
				t.Fatalf("started at %d, now %d: got %v for %+v: %+v", start, now, got, demands, results)
			}
			if want {
				for k, h := range next {
					histories[k] = h[max(len(h)-300, 0):]
				}
			}
			pause = 0
			if !want && len(demands) == 1 && results[0].Retry != ratelimit.NeverAllowed {
				pause = results[0].Retry.Microseconds()
			}
		}
	}
}

func TestForYearsNoDebtIsLostAndNoneComesBack(t *testing.T) {
	r := seeded(t)
	steps := 200_000
	if testing.Short() {
		steps = 30_000
	}
	s := New(0)
	keys := keysApart(s, 300)
	limits := []ratelimit.Limit{
		{Count: 10, Per: time.Second},
		{Count: 1, Per: time.Minute},
		{Count: 5, Per: 24 * time.Hour},
		{Count: 31, Per: 31 * 24 * time.Hour},
	}
	tats := make(map[ratelimit.Key]int64)
	var now int64
	for range steps {
		switch r.IntN(2000) {
		case 0, 1, 2:
			now += r.Int64N(2 * day)
		case 3: // Nobody asks anything for long.
			now += r.Int64N(2 * round)
		case 4:
			now += round - r.Int64N(40*day)
		default:
			now += r.Int64N(int64(time.Minute / time.Microsecond))
		}
		k := keys[r.IntN(len(keys))]
		d := []ratelimit.Demand{{Key: k, Limit: limits[r.IntN(len(limits))], Cost: 1 + r.IntN(3)}}
		var got [1]ratelimit.Result
		if r.IntN(4) == 0 {
			s.sweep(now)
			var buf [1]pending
			s.decide(now, d, got[:], s.pending(buf[:0], d))
			if _, want := d[0].Limit.Take(tats[k], now, d[0].Cost); got[0] != want {
				t.Fatalf("on day %d: Peek says %+v, want %+v", now/day, got[0], want)
			}
			continue
		}
		s.take(now, d, got[:])
		tat, want := d[0].Limit.Take(tats[k], now, d[0].Cost)
		tats[k] = tat
		if got[0] != want {
			t.Fatalf("on day %d: got %+v, want %+v", now/day, got[0], want)
		}
	}
	t.Logf("%d years", now/day/365)
}

func TestAfterALongSilenceNobodyMeetsWhatIsForgotten(t *testing.T) {
	month := ratelimit.Limit{Count: 1, Per: 31 * 24 * time.Hour}
	for i, silence := range []int64{31 * day, 40 * day, 45 * day, round, round + 10*day, 10*round + 20*day} {
		s := New(i % 3 << 24) // in a large table, some come while it is swept
		keys := keysApart(s, 200)
		for _, k := range keys {
			if !s.take(day, []ratelimit.Demand{{Key: k, Limit: month, Cost: 1}}, make([]ratelimit.Result, 1)) {
				t.Fatal("a new key is refused")
			}
		}
		var wg sync.WaitGroup
		for g := range 8 {
			wg.Go(func() {
				for i := range keys {
					d := []ratelimit.Demand{{Key: keys[(i+g*25)%len(keys)], Limit: month}}
					var r [1]ratelimit.Result
					if s.take(day+silence, d, r[:]); !r[0].New {
						t.Errorf("after %d days: %+v", silence/day, r[0])
					}
				}
			})
		}
		wg.Wait()
	}
}

func TestTakeGoesByTheProcessClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(0)
		d := []ratelimit.Demand{{Limit: ratelimit.Limit{Count: 1, Per: 24 * time.Hour, Burst: 31}, Cost: 31}}
		var r [1]ratelimit.Result
		for month := range 36 {
			if ok, err := s.Take(t.Context(), d, r[:]); !ok || err != nil {
				t.Fatalf("month %d: %+v, %v", month, r[0], err)
			}
			time.Sleep(31*24*time.Hour - time.Microsecond)
			if ok, _ := s.Take(t.Context(), d, r[:]); ok || r[0].Retry != time.Microsecond {
				t.Fatalf("month %d, a microsecond too soon: %+v", month, r[0])
			}
			time.Sleep(time.Microsecond)
			if month%3 == 0 {
				time.Sleep(time.Duration(month) * 7 * 24 * time.Hour)
			}
		}
	})
}

func TestPeekAfterALongSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(0)
		d := []ratelimit.Demand{{Limit: ratelimit.Limit{Count: 1, Per: 31 * 24 * time.Hour}, Cost: 1}}
		var r [1]ratelimit.Result
		s.Take(t.Context(), d, r[:])
		time.Sleep(45 * 24 * time.Hour)
		if ok, err := s.Peek(t.Context(), d, r[:]); !ok || err != nil || !r[0].New {
			t.Errorf("%+v, %v", r[0], err)
		}
		if st := s.Stats(); st.Occupied != 0 {
			t.Errorf("%+v", st)
		}
	})
}

// A goroutine may be stopped between reading the clock and asking. What others were charged
// in between is then beyond a full burst, as if the limit had become narrower.
func TestAClockReadLongAgoForgivesNothing(t *testing.T) {
	s := New(0)
	s.start = s.start.Add(-time.Hour)
	full := []ratelimit.Demand{{Limit: ratelimit.Limit{Count: 1, Per: time.Minute, Burst: 5}, Cost: 5}}
	one := []ratelimit.Demand{full[0], {Key: ratelimit.Key{Route: "other"}, Limit: full[0].Limit, Cost: 1}}
	one[0].Cost = 1
	r := make([]ratelimit.Result, 2)
	long := s.now() - (10 * time.Minute).Microseconds()
	if !s.take(s.now(), full, r) {
		t.Fatal("a new key is refused")
	}
	for n := 1; n <= 2; n++ {
		if s.take(long, one[:n], r) {
			t.Errorf("allowed beyond the burst")
		}
		if _, err := s.Peek(t.Context(), one[:1], r); err != nil || r[0].Reset < 4*time.Minute {
			t.Errorf("a refusal has forgiven debt: %+v", r[0])
		}
	}
}

// Between reading the clock and asking, the debt that a narrower limit would cut may have
// been forgotten.
func TestAClockReadLongAgoIsReadAgain(t *testing.T) {
	s := New(0)
	s.start = s.start.Add(-time.Hour)
	wide := ratelimit.Demand{Limit: ratelimit.Limit{Count: 1000, Per: time.Second, Burst: 10}, Cost: 10}
	narrow := wide
	narrow.Limit.Burst, narrow.Cost = 3, 0
	r := make([]ratelimit.Result, 2)
	s.take(100, []ratelimit.Demand{wide}, r)
	wide.Cost = 1
	if !s.take(200, []ratelimit.Demand{narrow, wide}, r) || !r[0].New {
		t.Errorf("%+v", r)
	}
}

func TestALimitBeyondTheHorizonIsForgottenAtTheHorizon(t *testing.T) {
	// Limit.Share makes such limits of slow ones with a small burst.
	l := ratelimit.Limit{Count: 1, Per: 31 * 24 * time.Hour}.Share(10)
	s := New(0)
	d := []ratelimit.Demand{{Limit: l, Cost: 1}}
	var r [1]ratelimit.Result
	for month := range int64(20) {
		if !s.take(month*31*day, d, r[:]) {
			t.Fatalf("month %d: refused", month)
		}
		if s.take((month+1)*31*day-1, d, r[:]) {
			t.Fatalf("month %d: allowed before its end", month)
		}
	}
}
