// Command limittable compares rate limiters that keep their state in the process: bytes
// for each key, and nanoseconds for each decision with one goroutine and with two, over a
// million IPv6 networks in random order. The result is a Markdown table.
//
// All get the same limit and the same keys. Those that count by a text are given texts that
// were made before, and whose memory is not counted.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/go-chi/httprate"
	"github.com/sethvargo/go-limiter/memorystore"
	"github.com/throttled/throttled/v2"
	"github.com/throttled/throttled/v2/store/memstore"
	"github.com/ulule/limiter/v3"
	ulule "github.com/ulule/limiter/v3/drivers/store/memory"
	"golang.org/x/time/rate"

	"github.com/moat-gateway/moat/guard/ratelimit"
	"github.com/moat-gateway/moat/store/memory"
)

const (
	count = 60
	per   = time.Minute
	burst = 20
)

// worker is what one goroutine asks: may key i do one more?
type worker func(i uint32) bool

// contestant is a limiter, and how a goroutine asks it.
type contestant struct {
	name string
	note string // on its state
	make func(keys *keys) (ask func() worker, stop func())
}

// keys are the same networks in the forms that the contestants want.
type keys struct {
	nets  []netip.Prefix
	texts []string
}

func newKeys(n int) *keys {
	k := &keys{make([]netip.Prefix, n), make([]string, n)}
	for i := range n {
		a := [16]byte{0x20, 0x01, 0x0d, 0xb8, byte(i >> 24), byte(i >> 16), byte(i >> 8), byte(i)}
		k.nets[i] = netip.PrefixFrom(netip.AddrFrom16(a), 64)
		k.texts[i] = k.nets[i].String()
	}
	return k
}

func none() {}

func contestants(n int) []contestant {
	var all []contestant
	limit := ratelimit.Limit{Count: count, Per: per, Burst: burst}
	// Two slots for each key, rounded up to what New rounds to.
	table := 1 << 16
	for table < 16*n {
		table *= 2
	}
	for _, t := range []struct {
		bytes int
		note  string
	}{{table, "fixed; who came once goes first"}, {table / 2, "the same, half as large"}} {
		all = append(all, contestant{"moat", t.note, func(k *keys) (func() worker, func()) {
			s := memory.New(t.bytes)
			return func() worker {
				demand := []ratelimit.Demand{{Key: ratelimit.Key{Limit: "visitor"}, Limit: limit, Cost: 1}}
				result := make([]ratelimit.Result, 1)
				return func(i uint32) bool {
					demand[0].Key.Net = k.nets[i]
					ok, _ := s.Take(context.Background(), demand, result) // it never fails
					return ok
				}
			}, none
		}})
	}
	return append(all,
		contestant{"x/time, mutex and map", "grows", func(k *keys) (func() worker, func()) {
			var mu sync.Mutex
			m := make(map[netip.Prefix]*rate.Limiter)
			return func() worker {
				return func(i uint32) bool {
					mu.Lock()
					l := m[k.nets[i]]
					if l == nil {
						l = rate.NewLimiter(rate.Every(per/count), burst)
						m[k.nets[i]] = l
					}
					mu.Unlock()
					return l.Allow()
				}
			}, none
		}},
		contestant{"x/time, sync.Map", "grows", func(k *keys) (func() worker, func()) {
			var m sync.Map
			return func() worker {
				return func(i uint32) bool {
					l, ok := m.Load(k.nets[i])
					if !ok {
						l, _ = m.LoadOrStore(k.nets[i], rate.NewLimiter(rate.Every(per/count), burst))
					}
					return l.(*rate.Limiter).Allow() //nolint:errcheck,forcetypeassert // what was stored above.
				}
			}, none
		}},
		contestant{"throttled v2, GCRA", "grows", func(k *keys) (func() worker, func()) {
			s, err := memstore.NewCtx(0)
			check(err)
			l, err := throttled.NewGCRARateLimiterCtx(s, throttled.RateQuota{MaxRate: throttled.PerMin(count), MaxBurst: burst - 1})
			check(err)
			return func() worker {
				return func(i uint32) bool {
					limited, _, err := l.RateLimitCtx(context.Background(), k.texts[i], 1)
					return !limited && err == nil
				}
			}, none
		}},
		contestant{"httprate", "windows; forgets after two", func(k *keys) (func() worker, func()) {
			l := httprate.NewRateLimiter(count, per, httprate.WithResponseHeaders(httprate.ResponseHeaders{}))
			return func() worker {
				r, err := http.NewRequestWithContext(context.Background(), http.MethodGet, "/", http.NoBody)
				check(err)
				return func(i uint32) bool { return !l.OnLimit(nil, r, k.texts[i]) }
			}, none
		}},
		contestant{"go-limiter", "forgets after 12 h", func(k *keys) (func() worker, func()) {
			s, err := memorystore.New(&memorystore.Config{Tokens: count, Interval: per})
			check(err)
			return func() worker {
				return func(i uint32) bool {
					_, _, _, ok, err := s.Take(context.Background(), k.texts[i])
					return ok && err == nil
				}
			}, func() { check(s.Close(context.Background())) }
		}},
		contestant{"ulule/limiter", "windows; a timer cleans up", func(k *keys) (func() worker, func()) {
			l := limiter.New(ulule.NewStoreWithOptions(limiter.StoreOptions{Prefix: "l", CleanUpInterval: time.Minute}), limiter.Rate{Period: per, Limit: count})
			return func() worker {
				return func(i uint32) bool {
					c, err := l.Get(context.Background(), k.texts[i])
					return !c.Reached && err == nil
				}
			}, none
		}},
	)
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "limittable: error:", err)
		os.Exit(1)
	}
}

// figures are what is measured of a contestant.
type figures struct {
	bytes, one, two, allocs float64
}

func measure(c contestant, k *keys, ops int) figures {
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	ask, stop := c.make(k)
	defer stop()
	fill := ask()
	for i := range k.nets {
		if !fill(uint32(i)) {
			check(fmt.Errorf("%s refuses the first request of a key", c.name))
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	var f figures
	f.bytes = float64(after.HeapAlloc-before.HeapAlloc) / float64(len(k.nets))
	f.one = timed(1, ops, ask, len(k.nets))
	f.two = timed(2, ops, ask, len(k.nets))
	w, next := ask(), indexes(9, len(k.nets))
	f.allocs = testing.AllocsPerRun(10_000, func() { w(next()) })
	runtime.KeepAlive(ask)
	return f
}

// indexes returns what draws one of n keys.
func indexes(seed, n int) func() uint32 {
	r := rand.New(rand.NewPCG(uint64(seed), 7))          //nolint:gosec // an order, no secret.
	return func() uint32 { return r.Uint32N(uint32(n)) } //nolint:gosec // at most ten millions.
}

// timed is the time for each decision when that many goroutines share ops.
func timed(goroutines, ops int, ask func() worker, n int) float64 {
	var wg sync.WaitGroup
	start := time.Now()
	for g := range goroutines {
		wg.Go(func() {
			w, next := ask(), indexes(g, n)
			for range ops / goroutines {
				w(next())
			}
		})
	}
	wg.Wait()
	return float64(time.Since(start)) / float64(ops)
}

func main() {
	n := flag.Int("keys", 1_000_000, "distinct keys")
	ops := flag.Int("ops", 4_000_000, "decisions in each measurement")
	rounds := flag.Int("rounds", 3, "rounds; the median counts")
	flag.Parse()
	if *n < 1000 || *n > 10_000_000 || *ops < 1000 || *rounds < 1 {
		check(errors.New("-keys must be from 1,000 to 10,000,000, -ops at least 1,000, -rounds at least 1"))
	}
	k := newKeys(*n)
	all := contestants(*n)
	results := make([][]figures, len(all))
	for round := range *rounds {
		for i := range all {
			j := (i + round) % len(all)
			fmt.Fprintf(os.Stderr, "limittable: round %d, %s\n", round+1, all[j].name)
			results[j] = append(results[j], measure(all[j], k, *ops))
		}
	}
	fmt.Printf("| %d keys | B/key | ns, 1 goroutine | ns, 2 goroutines | allocations | state |\n| --- | --- | --- | --- | --- | --- |\n", *n)
	for i, c := range all {
		median := func(of func(figures) float64) float64 {
			var v []float64
			for _, f := range results[i] {
				v = append(v, of(f))
			}
			slices.Sort(v)
			return v[len(v)/2]
		}
		fmt.Printf("| %s | %.1f | %.0f | %.0f | %.0f | %s |\n", c.name, median(func(f figures) float64 { return f.bytes }),
			median(func(f figures) float64 { return f.one }), median(func(f figures) float64 { return f.two }), median(func(f figures) float64 { return f.allocs }), c.note)
	}
}
