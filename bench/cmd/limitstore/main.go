// Command limitstore measures store/valkey beside go-redis/redis_rate, both in front of
// the same real server, and prints Markdown tables.
//
// Contestants take turns in rounds that begin with another one each. What counts is how
// they stand to each other within a run: server, clients and whatever else the machine
// does share its cores.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/go-redis/redis_rate/v10"
	"github.com/redis/go-redis/v9"          //nolint:depguard // the contestant.
	client "github.com/valkey-io/valkey-go" //nolint:depguard // the client without the store, for comparison.

	"github.com/moat-gateway/moat/guard/ratelimit"
	"github.com/moat-gateway/moat/store/valkey"
	"github.com/moat-gateway/moat/store/valkey/valkeytest"
)

func main() {
	rounds := flag.Int("rounds", 5, "interleaved rounds")
	each := flag.Duration("time", time.Second, "how long to measure one contestant in one round")
	goroutines := flag.String("goroutines", "1,16,128", "how many ask at once")
	keys := flag.Int("keys", 1000, "how many clients there are")
	pause := flag.Duration("pause", 3*time.Second, "how long the server is stopped in the end; 0 leaves that out")
	flag.Parse()
	h := &host{}
	err := run(h, os.Stdout, *rounds, *each, *goroutines, *keys, *pause)
	h.close()
	if err != nil {
		fmt.Fprintln(os.Stderr, "limitstore: error:", err)
		os.Exit(1)
	}
}

// contestant decides about one request of one client.
type contestant struct {
	name   string
	decide func(ctx context.Context, key int) error
}

// cell is what a contestant did.
type cell struct {
	perSecond, p50, p99, client, server []float64 // by round
}

func run(h *host, w io.Writer, rounds int, each time.Duration, goroutines string, keys int, pause time.Duration) (err error) {
	defer func() {
		if said := recover(); said != nil {
			f, ok := said.(failure)
			if !ok {
				panic(said)
			}
			err = f
		}
	}()
	server := valkeytest.Start(h)
	pid, err := strconv.Atoi(field(server.MustDo("INFO", "server"), "process_id"))
	if err != nil {
		return err
	}
	all, stop, err := contestants(server.Addr, keys)
	if err != nil {
		return err
	}
	defer stop()
	fmt.Fprintf(w, "%s, %d clients, %d rounds of %s.\n", version(server), keys, rounds, each)
	for word := range strings.SplitSeq(goroutines, ",") {
		n, err := strconv.Atoi(word)
		if err != nil || n < 1 {
			return fmt.Errorf("-goroutines: %q is not a number above 0", word)
		}
		cells := make([]cell, len(all))
		for r := range rounds {
			for i := range all {
				j := (i + r) % len(all)
				if err := cells[j].measure(all[j], n, keys, each, pid); err != nil {
					return fmt.Errorf("%s: %w", all[j].name, err)
				}
			}
		}
		fmt.Fprintf(w, "\n| %d at once | decisions/s | × | p50 µs | p99 µs | client µs | server µs |\n|-|-|-|-|-|-|-|\n", n)
		for i, c := range cells {
			fmt.Fprintf(w, "| %s | %.0f | %.2f | %.0f | %.0f | %.1f | %.1f |\n", all[i].name, median(c.perSecond),
				ratio(c.perSecond, cells[0].perSecond), median(c.p50), median(c.p99), median(c.client), median(c.server))
		}
	}
	if pause > 0 {
		return stopped(w, server, pause)
	}
	return nil
}

// stopped shows what requests notice of a server that is stopped, and goes on later.
func stopped(w io.Writer, server *valkeytest.Server, pause time.Duration) error {
	const callers = 128
	rdb := redis.NewClient(&redis.Options{Addr: server.Addr})
	defer rdb.Close() //nolint:errcheck // it is over
	limiter := redis_rate.NewLimiter(rdb)
	store, err := valkey.Open(context.Background(), valkey.Config{Addresses: []string{server.Addr}})
	if err != nil {
		return err
	}
	defer store.Close()
	fmt.Fprintf(w, "\nThe server is stopped for %s, and %d callers ask every 5 ms; decisions that took more than 50 ms, the longest, and what failed.\n\n", pause, callers)
	fmt.Fprintf(w, "| | decisions | failed | longer than 50 ms | longest | until all is well again |\n|-|-|-|-|-|-|\n")
	for _, who := range []contestant{
		{"redis_rate, as it is by default", func(ctx context.Context, _ int) error {
			_, err := limiter.Allow(ctx, "stopped", redis_rate.PerSecond(1_000_000))
			return err
		}},
		{"**moat**, as it is by default", func(ctx context.Context, _ int) error {
			d := []ratelimit.Demand{{Key: ratelimit.Key{Limit: "stopped"}, Limit: ratelimit.Limit{Count: 1_000_000, Per: time.Second}, Cost: 1}}
			_, err := store.Take(ctx, d, make([]ratelimit.Result, 1))
			return err
		}},
	} {
		var decisions, failed, long, longest, lastFailure atomic.Int64
		done := make(chan struct{})
		var all sync.WaitGroup
		for range callers {
			all.Go(func() {
				for {
					select {
					case <-done:
						return
					case <-time.After(5 * time.Millisecond):
					}
					begun := time.Now()
					err := who.decide(context.Background(), 0)
					took := time.Since(begun)
					decisions.Add(1)
					if err != nil {
						failed.Add(1)
						lastFailure.Store(time.Now().UnixNano())
					}
					if took > 50*time.Millisecond {
						long.Add(1)
						lastFailure.Store(time.Now().UnixNano())
					}
					for old := longest.Load(); int64(took) > old && !longest.CompareAndSwap(old, int64(took)); old = longest.Load() {
					}
				}
			})
		}
		time.Sleep(time.Second / 2)
		server.Pause()
		time.Sleep(pause)
		server.Continue()
		resumed := time.Now()
		time.Sleep(2 * time.Second)
		close(done)
		all.Wait()
		fmt.Fprintf(w, "| %s | %d | %d | %d | %s | %s |\n", who.name, decisions.Load(), failed.Load(), long.Load(),
			time.Duration(longest.Load()).Round(time.Millisecond), max(time.Unix(0, lastFailure.Load()).Sub(resumed), 0).Round(time.Millisecond))
	}
	return nil
}

// contestants lists the contestants; the first one is what the others are compared to.
func contestants(addr string, keys int) ([]contestant, func(), error) {
	const perSecond = 1_000_000 // all are admitted: a refusal that is remembered costs nothing
	names := make([]string, keys)
	demands := make([]ratelimit.Demand, keys)
	for i := range keys {
		a := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
		names[i] = a.String()
		demands[i] = ratelimit.Demand{
			Key:   ratelimit.Key{Limit: "bench", Net: netip.PrefixFrom(a, 32)},
			Limit: ratelimit.Limit{Count: perSecond, Per: time.Second}, Cost: 1,
		}
	}
	rdb := redis.NewClient(&redis.Options{Addr: addr})
	limiter := redis_rate.NewLimiter(rdb)
	one, err := client.NewClient(client.ClientOption{InitAddress: []string{addr}, DisableCache: true})
	if err != nil {
		return nil, nil, err
	}
	store, err := valkey.Open(context.Background(), valkey.Config{Addresses: []string{addr}, Timeout: valkey.MaxTimeout})
	if err != nil {
		return nil, nil, err
	}
	stop := func() {
		rdb.Close() //nolint:errcheck // it is over
		one.Close()
		store.Close()
	}
	rate := redis_rate.PerSecond(perSecond)
	take := func(ctx context.Context, ds ...ratelimit.Demand) error {
		var results [3]ratelimit.Result
		ok, err := store.Take(ctx, ds, results[:len(ds)])
		if err == nil && !ok {
			err = errors.New("refused")
		}
		return err
	}
	wider := func(i int, bits int) ratelimit.Demand {
		d := demands[i]
		if bits == 0 {
			d.Key.Net = netip.Prefix{}
		} else {
			d.Key.Net = netip.PrefixFrom(d.Key.Net.Addr(), bits).Masked()
		}
		return d
	}
	leased := func(lease int) func(context.Context, int) error {
		return func(ctx context.Context, i int) error {
			d := demands[i]
			d.Key.Limit, d.Lease = "leased "+strconv.Itoa(lease), lease
			return take(ctx, d)
		}
	}
	return []contestant{
		{"redis_rate v10.0.1, go-redis v9.23.0", func(ctx context.Context, i int) error {
			r, err := limiter.Allow(ctx, names[i], rate)
			if err == nil && r.Allowed == 0 {
				err = errors.New("refused")
			}
			return err
		}},
		{"valkey-go v1.0.79, GET alone", func(ctx context.Context, i int) error {
			err := one.Do(ctx, one.B().Get().Key(names[i]).Build()).Error()
			if client.IsValkeyNil(err) {
				err = nil
			}
			return err
		}},
		{"**moat, strict**", func(ctx context.Context, i int) error { return take(ctx, demands[i]) }},
		{"**moat, strict, 3 limits at once**", func(ctx context.Context, i int) error {
			return take(ctx, demands[i], wider(i, 24), wider(i, 0))
		}},
		{"redis_rate, 3 limits one by one", func(ctx context.Context, i int) error {
			for _, name := range [...]string{names[i], "net", "all"} {
				if _, err := limiter.Allow(ctx, name, rate); err != nil {
					return err
				}
			}
			return nil
		}},
		{"**moat, leases of 10**", leased(10)},
		{"**moat, leases of 100**", leased(100)},
	}, stop, nil
}

// measure lets n goroutines ask for a time.
func (c *cell) measure(who contestant, n, keys int, each time.Duration, server int) error {
	ctx := context.Background()
	took := make([][]time.Duration, n)
	errs := make([]error, n)
	runtime.GC()
	own, other := cpuOf(0), cpuOf(server)
	begun := time.Now()
	var all sync.WaitGroup
	for g := range n {
		all.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(g), 1)) //nolint:gosec // a load, not a secret.
			for {
				from := time.Now()
				if from.Sub(begun) > each {
					return
				}
				if errs[g] = who.decide(ctx, rnd.IntN(keys)); errs[g] != nil {
					return
				}
				took[g] = append(took[g], time.Since(from))
			}
		})
	}
	all.Wait()
	elapsed := time.Since(begun)
	own, other = cpuOf(0)-own, cpuOf(server)-other
	if err := errors.Join(errs...); err != nil {
		return err
	}
	times := slices.Concat(took...)
	slices.Sort(times)
	micros := func(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }
	count := float64(len(times))
	c.perSecond = append(c.perSecond, count/elapsed.Seconds())
	c.p50 = append(c.p50, micros(times[len(times)/2]))
	c.p99 = append(c.p99, micros(times[len(times)*99/100]))
	c.client = append(c.client, micros(own)/count)
	c.server = append(c.server, micros(other)/count)
	return nil
}

// cpuOf is the processor time that a process has used, 0 being this one.
func cpuOf(pid int) time.Duration {
	if pid == 0 {
		var u syscall.Rusage
		if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
			return 0
		}
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/schedstat", pid))
	if err != nil {
		return 0 // only Linux tells
	}
	ns, _, _ := strings.Cut(string(stat), " ")
	d, _ := strconv.ParseInt(ns, 10, 64) // or 0
	return time.Duration(d)
}

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	return v[len(v)/2]
}

// ratio is the median of the ratios within each round.
func ratio(v, to []float64) float64 {
	r := make([]float64, len(v))
	for i := range v {
		r[i] = v[i] / to[i]
	}
	return median(r)
}

func version(s *valkeytest.Server) string {
	info := s.MustDo("INFO", "server")
	if v := field(info, "valkey_version"); v != "" {
		return "Valkey " + v
	}
	return "Redis " + field(info, "redis_version")
}

func field(info, name string) string {
	_, rest, _ := strings.Cut(info, name+":")
	value, _, _ := strings.Cut(rest, "\r\n")
	return value
}

// host is what valkeytest needs instead of a test.
type host struct{ cleanups []func() }

type failure struct{ error }

func (h *host) Helper()                   {}
func (h *host) Failed() bool              { return false }
func (h *host) Logf(string, ...any)       {}
func (h *host) Cleanup(f func())          { h.cleanups = append(h.cleanups, f) }
func (h *host) Fatalf(f string, a ...any) { panic(failure{fmt.Errorf(f, a...)}) }

func (h *host) TempDir() string {
	dir, err := os.MkdirTemp("", "limitstore-")
	if err != nil {
		panic(failure{err})
	}
	h.Cleanup(func() { os.RemoveAll(dir) }) //nolint:errcheck // in the system's own directory
	return dir
}

func (h *host) close() {
	for _, f := range slices.Backward(h.cleanups) {
		f()
	}
}
