//go:build interleave

package memory

import (
	"flag"
	"fmt"
	"iter"
	"testing"
	"time"

	"github.com/moat-gateway/moat/guard/ratelimit"
)

var more = flag.Int("preemptions", 0, "how many more preemptions to try in each schedule: each takes some 30 times as long")

// explore runs what setup returns in every order of steps in which a goroutine is stopped
// at most so many times while it could go on. A step is a read or a write of a slot. If
// there are dice, it also tries all ways in which keys choose slots.
func explore(t *testing.T, preemptions int, dice bool, setup func() (goroutines []func(), check func() string)) {
	t.Helper()
	preemptions += *more
	if testing.Short() {
		preemptions--
	}
	schedules := 0
	for prefix := []int{}; prefix != nil; schedules++ {
		goroutines, check := setup()
		taken := run(t, preemptions, dice, goroutines, prefix)
		if fault := check(); fault != "" {
			t.Fatalf("after %d schedules: %s", schedules, fault)
		}
		prefix = following(taken)
	}
	t.Logf("%d schedules", schedules)
}

// choice is which of some ways was taken.
type choice struct{ of, at int }

// following is the schedule after the one that was taken, or nil if that was the last.
func following(taken []choice) []int {
	for k := len(taken) - 1; k >= 0; k-- {
		if taken[k].at+1 < taken[k].of {
			next := make([]int, k+1)
			for i := range k {
				next[i] = taken[i].at
			}
			next[k] = taken[k].at + 1
			return next
		}
	}
	return nil
}

func run(t *testing.T, preemptions int, withDice bool, goroutines []func(), prefix []int) (taken []choice) {
	t.Helper()
	choose := func(of int) int {
		c := choice{of: of}
		if len(taken) < len(prefix) {
			c.at = prefix[len(taken)]
		}
		taken = append(taken, c)
		return c.at
	}
	n := len(goroutines)
	resume, alive, waits := make([]func() (struct{}, bool), n), make([]bool, n), make([]func(), n)
	for i, f := range goroutines {
		next, stop := iter.Pull(func(yield func(struct{}) bool) {
			waits[i] = func() { yield(struct{}{}) }
			waits[i]()
			f()
		})
		defer stop()
		resume[i], alive[i] = next, true
		next()
	}
	rolled = 0
	dice = func() uint64 { return rolled / 2 }
	if withDice {
		dice = func() uint64 { return uint64(choose(slots)) }
	}
	defer func() { turn, dice = func() {}, func() uint64 { return 0 } }()
	current, stopped := 0, 0
	ready := make([]int, 0, n)
	for started := false; ; started = true {
		ready = ready[:0]
		if alive[current] {
			ready = append(ready, current)
		}
		for i := range goroutines {
			if alive[i] && i != current && (!alive[current] || stopped < preemptions || !started) {
				ready = append(ready, i)
			}
		}
		if len(ready) == 0 {
			return taken
		}
		if len(taken) > 2000 {
			t.Fatal("no end to it")
		}
		next := ready[choose(len(ready))]
		if started && alive[current] && next != current {
			stopped++
		}
		current = next
		turn = waits[current]
		if _, ok := resume[current](); !ok {
			alive[current] = false
		}
	}
}

const (
	start  = int64(1e12)
	second = int64(1e6)
	ours   = 7
	other  = 9
)

// world is one bucket.
type world struct {
	*Store
	admitted [100]int64
}

// newWorld returns a bucket with those words in it.
func newWorld(words ...uint64) *world {
	w := &world{Store: New(0)}
	w.step = 60 // sweeps nothing by itself
	for i, word := range words {
		w.table[0][i].v = word
	}
	return w
}

// request asks for 1 of a limit of 1 in a second.
func (w *world) request(tag uint64, burst int, now int64) func() {
	d := ratelimit.Demand{Limit: ratelimit.Limit{Count: 1, Per: time.Second, Burst: burst}, Cost: 1}
	return func() {
		if _, r := w.charge(now, place{&w.table[0], tag}, &d); r.Allowed {
			w.admitted[tag]++
		}
	}
}

// requests asks for 1 of each of some limits, the second if the first is of a new key.
func (w *world) requests(now int64, bursts map[uint64]int, ifNew bool, tags ...uint64) func() {
	demands, ps := make([]ratelimit.Demand, len(tags)), make([]pending, len(tags))
	for i, tag := range tags {
		demands[i] = ratelimit.Demand{Limit: ratelimit.Limit{Count: 1, Per: time.Second, Burst: bursts[tag]}, Cost: 1, IfNew: ifNew && i > 0}
		ps[i].place = place{&w.table[0], tag}
	}
	results := make([]ratelimit.Result, len(tags))
	return func() {
		for w.decide(now, demands, results, ps) {
			if w.chargeAll(now, demands, results, ps) {
				for i, tag := range tags {
					if ps[i].counts {
						w.admitted[tag]++
					}
				}
				return
			}
		}
	}
}

// owes says in how many slots the key has a debt, and how much in all.
func (w *world) owes(tag uint64) (n int, sum int64) {
	for i := range w.table[0] {
		if word := w.table[0][i].v; word>>tagShift == tag && debt(word, start) > 0 {
			n, sum = n+1, sum+debt(word, start)
		}
	}
	return n, sum
}

// charged checks that a key was admitted so often, and that one slot has all that it owes.
func (w *world) charged(tag uint64, least, most int64) string {
	n, sum := w.owes(tag)
	owed := sum - w.admitted[tag]*second
	if got := w.admitted[tag]; least <= got && got <= most && n == 1 && owed >= 0 && owed < 100 {
		return ""
	}
	return fmt.Sprintf("key %d was admitted %d times, want %d to %d; it owes %d in %d slots", tag, w.admitted[tag], least, most, sum, n)
}

// clocks are the times that three requests have read, in the order in which they begin.
var clocks = [][3]int64{
	{start + 9, start + 9, start + 9},
	{start + 9, start + 9, start + 11},
	{start + 9, start + 10, start + 11},
	{start + 10, start + 9, start + 14},
	{start + 9, start + 14, start + 6},
}

func TestInterleavings(t *testing.T) {
	for _, now := range clocks {
		name := func(what string) string { return fmt.Sprint(what, " at ", now[0]-start, now[1]-start, now[2]-start) }
		explored := func(what string, preemptions int, dice bool, setup func() ([]func(), func() string)) {
			t.Run(name(what), func(t *testing.T) { explore(t, preemptions, dice, setup) })
		}
		same := func(burst int, words ...uint64) func() ([]func(), func() string) {
			return func() ([]func(), func() string) {
				w := newWorld(words...)
				// One that has read the clock before others, and comes after them, finds their
				// debts greater by as much, and may be refused.
				least := min(burst, 2) - 1
				if burst == 1 || now[0] == now[1] && now[1] == now[2] {
					least = burst
				}
				return []func(){w.request(ours, burst, now[0]), w.request(ours, burst, now[1]), w.request(ours, burst, now[2])},
					func() string { return w.charged(ours, int64(least), int64(burst)) }
			}
		}
		explored("a new key", 2, true, same(1))
		explored("a new key, two pass", 2, true, same(2))
		explored("a new key, two pass, more preemptions", 3, false, same(2))
		explored("a key forgotten long ago", 2, true, same(2, pack(ours, 0, start-second)))
		explored("a key with two slots forgotten", 2, true, same(2, pack(ours, 0, start-second), 0, pack(ours, 0, start-2*second)))
		// For some of the requests it has been forgotten, and others have read the clock before.
		explored("a key just forgotten", 2, true, same(2, pack(other, 0, start-second), pack(ours, 0, start+7)))

		full := func(grips ...uint64) func() ([]func(), func() string) {
			return func() ([]func(), func() string) {
				w := newWorld(pack(1, grips[0], start+second), pack(2, grips[1], start+second), pack(3, grips[2], start+second))
				return []func(){w.request(ours, 1, now[0]), w.request(ours, 1, now[1]), w.request(other, 1, now[2])}, func() string {
					evicted := w.Stats().Evicted
					n, _ := w.owes(ours)
					// If the one was evicted for the other, it may have come twice.
					if got := w.admitted[ours]; got < 1 || got > 2 || got == 2 && evicted < 3 || n > 1 || n == 0 && evicted < 2 {
						return fmt.Sprintf("admitted %d, in %d slots, %d evicted", got, n, evicted)
					}
					if w.admitted[other] != 1 {
						return fmt.Sprintf("the other was admitted %d times", w.admitted[other])
					}
					return ""
				}
			}
		}
		explored("a full bucket", 2, false, full(0, 0, 0))
		explored("a full bucket of keys with a grip", 2, false, full(grip, 2*grip, 3*grip))
		explored("a full bucket, and one new key", 2, true, same(1, pack(1, 0, start+second), pack(2, grip, start+second), pack(3, grip, start+second)))
		explored("a sweeper", 2, true, func() ([]func(), func() string) {
			w := newWorld(pack(1, 0, start-second), pack(ours, 0, start-second), pack(3, 0, start-second))
			return []func(){w.request(ours, 1, now[0]), w.request(ours, 1, now[1]), func() { w.table[0].sweep(start, now[2]) }},
				func() string { return w.charged(ours, 1, 1) }
		})
	}
	bursts := map[uint64]int{ours: 2, other: 1}
	t.Run("two keys, in either order", func(t *testing.T) {
		explore(t, 2, false, func() ([]func(), func() string) {
			w := newWorld()
			all := []func(){w.requests(start+9, bursts, false, other, ours), w.requests(start+10, bursts, false, ours, other), w.request(ours, 2, start+11)}
			return all, func() string {
				for tag, burst := range bursts {
					n, sum := w.owes(tag)
					if got := w.admitted[tag]; got > int64(burst) || n > 1 || sum < got*second || sum > got*second+100 {
						return fmt.Sprintf("key %d: admitted %d of %d; it owes %d in %d slots", tag, got, burst, sum, n)
					}
				}
				return ""
			}
		})
	})
	for _, budget := range []int{1, 2} {
		t.Run(fmt.Sprint("a new key is new once, of ", budget), func(t *testing.T) {
			explore(t, 2, true, func() ([]func(), func() string) {
				w, bursts := newWorld(), map[uint64]int{ours: 2, other: budget}
				all := []func(){w.requests(start+9, bursts, true, ours, other), w.requests(start+9, bursts, true, ours, other)}
				return all, func() string { return w.charged(ours, 2, 2) + w.charged(other, 1, 1) }
			})
		})
	}
}
