// Command limittable compares rate limiters that keep their state in the process: bytes
// for each key, and nanoseconds for each decision with one goroutine and with two, over a
// million IPv6 networks in random order. The result is a Markdown table.
//
// All get the same limit and the same keys, one after another in memory, so that only the
// limiter itself has to look for something. Those that count by a text are given texts that
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

// worker is what one goroutine asks: may this key do one more?
type worker func(k key) bool

// key is a network, in the forms that the contestants want.
type key struct {
	net  netip.Prefix
	text string
}

// contestant is a limiter, and how a goroutine asks it.
type contestant struct {
	name string
	note string // on its state
	make func() (ask func() worker, stop func())
}

// network is the i-th of the keys.
func network(i uint32) netip.Prefix {
	a := [16]byte{0x20, 0x01, 0x0d, 0xb8, byte(i >> 24), byte(i >> 16), byte(i >> 8), byte(i)} //nolint:gosec // its bytes.
	return netip.PrefixFrom(netip.AddrFrom16(a), 64)
}

// inOrder lists keys one after another in memory, as they will be asked for: what waits for
// memory is then the limiter, and not the list.
func inOrder(n int, next func(i int) uint32) []key {
	list := make([]key, n)
	text := make([]byte, 0, 32*n)
	ends := make([]int, n)
	for i := range list {
		list[i].net = network(next(i))
		text = list[i].net.AppendTo(text)
		ends[i] = len(text)
	}
	all, start := string(text), 0
	for i, end := range ends {
		list[i].text = all[start:end]
		start = end
	}
	return list
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
		all = append(all, contestant{"moat", t.note, func() (func() worker, func()) {
			s := memory.New(t.bytes)
			return func() worker {
				demand := []ratelimit.Demand{{Key: ratelimit.Key{Limit: "visitor"}, Limit: limit, Cost: 1}}
				result := make([]ratelimit.Result, 1)
				return func(k key) bool {
					demand[0].Key.Net = k.net
					ok, _ := s.Take(context.Background(), demand, result) // it never fails
					return ok
				}
			}, none
		}})
	}
	return append(all,
		contestant{"x/time, mutex and map", "grows", func() (func() worker, func()) {
			var mu sync.Mutex
			m := make(map[netip.Prefix]*rate.Limiter)
			return func() worker {
				return func(k key) bool {
					mu.Lock()
					l := m[k.net]
					if l == nil {
						l = rate.NewLimiter(rate.Every(per/count), burst)
						m[k.net] = l
					}
					mu.Unlock()
					return l.Allow()
				}
			}, none
		}},
		contestant{"x/time, sync.Map", "grows", func() (func() worker, func()) {
			var m sync.Map
			return func() worker {
				return func(k key) bool {
					l, ok := m.Load(k.net)
					if !ok {
						l, _ = m.LoadOrStore(k.net, rate.NewLimiter(rate.Every(per/count), burst))
					}
					return l.(*rate.Limiter).Allow() //nolint:errcheck,forcetypeassert // what was stored above.
				}
			}, none
		}},
		contestant{"throttled v2, GCRA", "grows", func() (func() worker, func()) {
			s, err := memstore.NewCtx(0)
			check(err)
			l, err := throttled.NewGCRARateLimiterCtx(s, throttled.RateQuota{MaxRate: throttled.PerMin(count), MaxBurst: burst - 1})
			check(err)
			return func() worker {
				return func(k key) bool {
					limited, _, err := l.RateLimitCtx(context.Background(), k.text, 1)
					return !limited && err == nil
				}
			}, none
		}},
		contestant{"httprate", "windows; forgets after two", func() (func() worker, func()) {
			l := httprate.NewRateLimiter(count, per, httprate.WithResponseHeaders(httprate.ResponseHeaders{}))
			return func() worker {
				r, err := http.NewRequestWithContext(context.Background(), http.MethodGet, "/", http.NoBody)
				check(err)
				return func(k key) bool { return !l.OnLimit(nil, r, k.text) }
			}, none
		}},
		contestant{"go-limiter", "forgets after 12 h", func() (func() worker, func()) {
			s, err := memorystore.New(&memorystore.Config{Tokens: count, Interval: per})
			check(err)
			return func() worker {
				return func(k key) bool {
					_, _, _, ok, err := s.Take(context.Background(), k.text)
					return ok && err == nil
				}
			}, func() { check(s.Close(context.Background())) }
		}},
		contestant{"ulule/limiter", "windows; a timer cleans up", func() (func() worker, func()) {
			l := limiter.New(ulule.NewStoreWithOptions(limiter.StoreOptions{Prefix: "l", CleanUpInterval: time.Minute}), limiter.Rate{Period: per, Limit: count})
			return func() worker {
				return func(k key) bool {
					c, err := l.Get(context.Background(), k.text)
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

func measure(c contestant, every []key, drawn [][]key) figures {
	var before, after runtime.MemStats
	runtime.GC()
	runtime.GC() // what the one before has left behind may need two
	runtime.ReadMemStats(&before)
	ask, stop := c.make()
	defer stop()
	fill := ask()
	for _, k := range every {
		if !fill(k) {
			check(fmt.Errorf("%s refuses the first request of a key", c.name))
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	var f figures
	f.bytes = float64(int64(after.HeapAlloc)-int64(before.HeapAlloc)) / float64(len(every)) //nolint:gosec // of one machine.
	f.one = timed(ask, drawn[:1])
	f.two = timed(ask, drawn)
	w, i := ask(), 0
	f.allocs = testing.AllocsPerRun(10_000, func() {
		w(drawn[0][i])
		i++
	})
	runtime.KeepAlive(ask)
	return f
}

// timed is the time for each decision when each list is asked by a goroutine of its own.
func timed(ask func() worker, lists [][]key) float64 {
	var wg sync.WaitGroup
	ops := 0
	start := time.Now()
	for _, list := range lists {
		ops += len(list)
		wg.Go(func() {
			w := ask()
			for i := range list {
				w(list[i])
			}
		})
	}
	wg.Wait()
	return float64(time.Since(start)) / float64(ops)
}

func main() {
	n := flag.Int("keys", 1_000_000, "distinct keys")
	ops := flag.Int("ops", 2_000_000, "decisions of each goroutine in each measurement")
	rounds := flag.Int("rounds", 3, "rounds; the median counts")
	flag.Parse()
	if *n < 1000 || *n > 10_000_000 || *ops < 20_000 || *rounds < 1 {
		check(errors.New("-keys must be from 1,000 to 10,000,000, -ops at least 20,000, -rounds at least 1"))
	}
	every := inOrder(*n, func(i int) uint32 { return uint32(i) }) //nolint:gosec // at most ten millions.
	var drawn [][]key
	for g := range uint64(2) {
		r := rand.New(rand.NewPCG(g, 7))                                                        //nolint:gosec // an order, no secret.
		drawn = append(drawn, inOrder(*ops, func(int) uint32 { return r.Uint32N(uint32(*n)) })) //nolint:gosec // as above.
	}
	all := contestants(*n)
	results := make([][]figures, len(all))
	for round := range *rounds {
		for i := range all {
			j := (i + round) % len(all)
			fmt.Fprintf(os.Stderr, "limittable: round %d, %s\n", round+1, all[j].name)
			results[j] = append(results[j], measure(all[j], every, drawn))
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
