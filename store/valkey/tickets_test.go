package valkey_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/moat-gateway/moat/guard/ticket"
	"github.com/moat-gateway/moat/store/storetest"
	"github.com/moat-gateway/moat/store/valkey"
	"github.com/moat-gateway/moat/store/valkey/valkeytest"
)

// pair opens two stores of tickets that share a server, as two processes do.
func pair(t *testing.T, cfg valkey.Config) (a, b *valkey.Tickets) {
	t.Helper()
	return open(t, patient(cfg)).Tickets(0), open(t, patient(cfg)).Tickets(0)
}

func TestTicketsConform(t *testing.T) {
	server := valkeytest.Start(t)
	storetest.RunTickets(t, func(t *testing.T) (a, b ticket.Store) {
		return pair(t, valkey.Config{Addresses: []string{server.Addr}, Prefix: t.Name()})
	})
}

func TestTicketsConformInACluster(t *testing.T) {
	thorough(t)
	nodes := valkeytest.StartCluster(t, 3)
	storetest.RunTickets(t, func(t *testing.T) (a, b ticket.Store) {
		return pair(t, valkey.Config{Addresses: nodes.Addresses(), Mode: valkey.Cluster, Prefix: t.Name()})
	})
}

// issue waits until a store gives out a number of a lineage other than old.
func issue(t *testing.T, s ticket.Store, old ticket.Lineage) (l ticket.Lineage, number uint64) {
	t.Helper()
	eventually(t, "there are tickets", func() bool {
		var err error
		l, number, err = s.Number(t.Context())
		return err == nil && l != old
	})
	return l, number
}

// works expects that a new ticket is good for one use, everywhere.
func works(t *testing.T, old ticket.Lineage, stores ...*valkey.Tickets) {
	t.Helper()
	for _, s := range stores {
		l, number := issue(t, s, old)
		for i, at := range stores {
			eventually(t, "a use is decided", func() bool {
				first, err := at.Use(t.Context(), l, number, 9)
				if err == nil && first != (i == 0) {
					t.Errorf("a new ticket: first is %v at store %d", first, i)
				}
				return err == nil
			})
		}
		eventually(t, "the lineage is known", func() bool {
			now, _, ok := s.Lineage()
			return ok && now == l
		})
	}
}

// follow makes a server a replica, and waits until it has all data.
func follow(t *testing.T, replica, of *valkeytest.Server) {
	t.Helper()
	host, port, _ := strings.Cut(of.Addr, ":")
	replica.MustDo("REPLICAOF", host, port)
	eventually(t, "it follows", func() bool {
		return strings.Contains(replica.MustDo("INFO", "replication"), "master_link_status:up")
	})
}

// What may have been forgotten is honoured never again, however the server came to forget it.
func TestNothingIsHonouredTwiceThoughTheServerForgets(t *testing.T) {
	// What forgets is prepared before there are tickets, and keep comes before any is used.
	for name, prepare := range map[string]func(*testing.T, *valkeytest.Server) (keep, forget func()){
		"killed, and started empty": func(_ *testing.T, s *valkeytest.Server) (keep, forget func()) {
			return func() {}, func() { s.Kill(); s.Restart() }
		},
		"killed, and started from a snapshot": func(t *testing.T, s *valkeytest.Server) (keep, forget func()) {
			return func() { s.MustDo("SAVE") }, func() {
				s.Kill()
				s.Restart()
				if s.MustDo("DBSIZE") == "0" {
					t.Error("it has not read the snapshot")
				}
			}
		},
		"FLUSHALL": func(_ *testing.T, s *valkeytest.Server) (keep, forget func()) {
			return func() {}, func() { s.MustDo("FLUSHALL") }
		},
		// It is the same process before and after, and the data are those of its lineage.
		"given old data back by what was its replica": func(t *testing.T, s *valkeytest.Server) (keep, forget func()) {
			other := valkeytest.Start(t, "--repl-diskless-sync-delay", "0")
			follow(t, other, s)
			return func() {
					eventually(t, "it has all data", func() bool {
						return other.MustDo("DBSIZE") == s.MustDo("DBSIZE") && other.MustDo("HGET", "moat:{tickets}", "next") == s.MustDo("HGET", "moat:{tickets}", "next")
					})
					other.MustDo("REPLICAOF", "NO", "ONE")
				}, func() {
					follow(t, s, other)
					s.MustDo("REPLICAOF", "NO", "ONE")
				}
		},
	} {
		for _, when := range []string{"when all are spent", "at any time"} {
			t.Run(name+" "+when, func(t *testing.T) {
				server := valkeytest.Start(t, "--repl-diskless-sync-delay", "0")
				keep, forget := prepare(t, server)
				a, b := pair(t, valkey.Config{Addresses: []string{server.Addr}})
				const tickets = 4
				var lineage ticket.Lineage
				var given [tickets]uint64
				for i := range given {
					lineage, given[i] = issue(t, []*valkey.Tickets{a, b}[i%2], ticket.Lineage{})
				}
				keep()
				expires := time.Now().Add(time.Hour)
				var honoured [tickets + 1]atomic.Int64
				var firsts, asked atomic.Int64
				stop := make(chan struct{})
				var all sync.WaitGroup
				for i := range 1000 {
					at := []*valkey.Tickets{a, b}[i%2]
					all.Go(func() {
						for k := i; ; k++ {
							select {
							case <-stop:
								return
							default:
							}
							asked.Add(1)
							var first bool
							var err error
							n := k % (tickets + 1)
							if n < tickets {
								first, err = at.Use(t.Context(), lineage, given[n], 5)
							} else {
								first, err = at.Once(t.Context(), 1, 2, expires)
								// What was issued before the present lineage began is not honoured.
								l, _, ok := at.Lineage()
								first = first && ok && l == lineage
							}
							if err != nil {
								time.Sleep(time.Millisecond)
							}
							if first && err == nil {
								honoured[n].Add(1)
								firsts.Add(1)
							}
						}
					})
				}
				if when == "when all are spent" {
					eventually(t, when, func() bool { return firsts.Load() == tickets+1 })
				}
				forget()
				works(t, lineage, a, b)
				before := asked.Load()
				eventually(t, "all have tried again", func() bool { return asked.Load() > before+3000 })
				close(stop)
				all.Wait()
				for n := range honoured {
					if got := honoured[n].Load(); got > 1 || got == 0 && when == "when all are spent" {
						t.Errorf("%d was honoured %d times, by %d attempts", n, got, asked.Load())
					}
				}
			})
		}
	}
}

// A primary that is replaced may have honoured what the next one has not heard of.
func TestTicketsEndWithTheirPrimary(t *testing.T) {
	thorough(t)
	w := valkeytest.StartSentinel(t, 1)
	a, b := pair(t, valkey.Config{Addresses: w.Addresses(), Mode: valkey.Sentinel, Master: valkeytest.Master})
	l, number := issue(t, a, ticket.Lineage{})
	if first, err := a.Use(t.Context(), l, number, 0); err != nil || !first {
		t.Fatalf("first %v, error %v", first, err)
	}
	w.Primary.Pause()
	works(t, l, a, b)
	for _, s := range []*valkey.Tickets{a, b} {
		for use := range uint8(32) {
			if first, err := s.Use(t.Context(), l, number, use); first || err != nil {
				t.Errorf("use %d after the failover: first %v, error %v", use, first, err)
			}
		}
	}
}

func TestWhileTheServerCannotBeAskedThereAreNoTickets(t *testing.T) {
	server := valkeytest.Start(t)
	s := open(t, valkey.Config{Addresses: []string{server.Addr}})
	tickets := s.Tickets(0)
	l, number := issue(t, tickets, ticket.Lineage{})
	expires := time.Now().Add(time.Hour)
	server.Pause()
	began := time.Now()
	firsts, errs := storetest.AtOnce(100, func(int) (bool, error) { return tickets.Use(t.Context(), l, number, 0) })
	if firsts != 0 || errs != 100 {
		t.Errorf("%d were first, %d failed", firsts, errs)
	}
	if took := time.Since(began); took > 500*time.Millisecond {
		t.Errorf("they took %s", took)
	}
	eventually(t, "the store is down", func() bool { return s.Stats().State == valkey.Down })
	if _, _, ok := tickets.Lineage(); ok {
		t.Error("the lineage is known")
	}
	if _, _, err := tickets.Number(t.Context()); !errors.Is(err, valkey.ErrUnavailable) {
		t.Errorf("Number: %v", err)
	}
	if first, err := tickets.Use(t.Context(), l, number, 1); first || !errors.Is(err, valkey.ErrUnavailable) {
		t.Errorf("Use: first %v, error %v", first, err)
	}
	if first, err := tickets.Once(t.Context(), 0, 0, expires); first || !errors.Is(err, valkey.ErrUnavailable) {
		t.Errorf("Once: first %v, error %v", first, err)
	}
	server.Continue()
	// It has forgotten nothing, so it is the same lineage, and at most one is honoured.
	eventually(t, "the lineage is known", func() bool {
		now, _, ok := tickets.Lineage()
		return ok && now == l
	})
	honoured := 0
	for range 10 {
		if first, err := tickets.Use(t.Context(), l, number, 0); first && err == nil {
			honoured++
		}
	}
	if honoured > 1 {
		t.Errorf("honoured %d times", honoured)
	}
	works(t, ticket.Lineage{}, tickets)
}

// The server has marked the use, and its answer is lost. It is made again, and what that
// finds is no replay, nor is it to be honoured.
func TestAUseWhoseAnswerIsLostIsAnError(t *testing.T) {
	server := valkeytest.Start(t)
	p := startProxy(t, server.Addr)
	tickets := open(t, patient(valkey.Config{Addresses: []string{p.addr}})).Tickets(0)
	eventually(t, "the answer to a use is lost", func() bool {
		l, number := issue(t, tickets, ticket.Lineage{})
		p.cut.Store(true)
		first, err := tickets.Use(t.Context(), l, number, 0)
		if first && p.cut.Load() {
			return false // it was another answer that was lost
		}
		if !first && err == nil {
			t.Fatal("it is taken for a replay")
		}
		return err != nil && strings.Contains(err.Error(), "may have been marked")
	})
}

// A server that runs out of memory may evict what tickets need.
func TestNothingIsHonouredTwiceThoughKeysAreEvicted(t *testing.T) {
	server := valkeytest.Start(t, "--maxmemory-policy", "volatile-random")
	a, b := pair(t, valkey.Config{Addresses: []string{server.Addr}})
	l, number := issue(t, a, ticket.Lineage{})
	expires := time.Now().Add(time.Hour)
	for range 2 {
		a.Use(t.Context(), l, number, 0)
		a.Once(t.Context(), 0, 0, expires)
	}
	server.MustDo("CONFIG", "SET", "maxmemory", "1")
	eventually(t, "all is evicted that can be", func() bool { return server.MustDo("DBSIZE") == "1" })
	server.MustDo("CONFIG", "SET", "maxmemory", "0")
	for range 3 {
		for use := range uint8(32) {
			if first, err := b.Use(t.Context(), l, number, use); first && err == nil {
				t.Errorf("use %d of a range that was evicted is the first", use)
			}
		}
		first, err := b.Once(t.Context(), 0, 0, expires)
		if now, _, ok := b.Lineage(); first && err == nil && ok && now == l {
			t.Error("a mark that was evicted is honoured again")
		}
	}
	works(t, l, a, b)
}

// What was issued before a lineage began may have been honoured before it.
func TestALineageSaysSinceWhen(t *testing.T) {
	server := valkeytest.Start(t)
	a, b := pair(t, valkey.Config{Addresses: []string{server.Addr}})
	var old ticket.Lineage
	for range 3 {
		began := time.Now()
		server.MustDo("FLUSHALL")
		old, _ = issue(t, a, old)
		works(t, ticket.Lineage{}, a, b)
		for _, s := range []*valkey.Tickets{a, b} {
			// The server's clock has microseconds, and is read in between.
			if _, since, ok := s.Lineage(); !ok || since.Before(began.Add(-time.Millisecond)) || since.After(time.Now()) {
				t.Errorf("since %s, %v, and it began after %s", since, ok, began)
			}
		}
	}
}

func TestWhatTicketsCostTheServer(t *testing.T) {
	server := valkeytest.Start(t)
	s := open(t, patient(valkey.Config{Addresses: []string{server.Addr}}))
	tickets := s.Tickets(2 * time.Minute)
	l, number := issue(t, tickets, ticket.Lineage{})
	for use := range uint8(32) {
		if _, err := tickets.Use(t.Context(), l, number, use); err != nil {
			t.Fatal(err)
		}
	}
	name := fmt.Sprintf("moat:{tickets}:%x:%d", l, number>>10)
	size, err := strconv.Atoi(server.MustDo("MEMORY", "USAGE", name))
	if each := float64(size) / (1024 * 32); err != nil || each > 0.2 {
		t.Errorf("%.3f bytes for each use, error %v", each, err)
	} else {
		t.Logf("%.3f bytes for each use", each)
	}
	// It lives as long as the tickets, a minute in which they are issued, and 10 seconds.
	left, err := strconv.Atoi(server.MustDo("PTTL", name))
	if err != nil || left > 190_000 || left < 180_000-int(valkey.MaxTimeout.Milliseconds()) {
		t.Errorf("it is kept for %d ms more, error %v", left, err)
	}
	// Numbers are reserved 1,024 at a time. Some round trips are those of the Store itself.
	before := s.Stats().RoundTrips
	for range 20 * 1024 {
		if _, _, err := tickets.Number(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if trips := s.Stats().RoundTrips - before; trips < 19 || trips > 60 {
		t.Errorf("%d round trips for 20,480 numbers", trips)
	}
}

func BenchmarkTicketsUse(b *testing.B) {
	for _, at := range []int{1, 128} {
		b.Run(strconv.Itoa(at), func(b *testing.B) {
			tickets := benchmarked(b)
			l, number, err := tickets.Number(b.Context())
			if err != nil {
				b.Fatal(err)
			}
			var failed atomic.Int64
			b.SetParallelism((at + runtime.GOMAXPROCS(0) - 1) / runtime.GOMAXPROCS(0))
			b.ReportAllocs()
			b.ResetTimer()
			body := func() {
				if _, err := tickets.Use(context.Background(), l, number, 3); err != nil {
					failed.Add(1)
				}
			}
			if at == 1 {
				for b.Loop() {
					body()
				}
			} else {
				b.RunParallel(func(pb *testing.PB) {
					for pb.Next() {
						body()
					}
				})
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "decisions/s")
			if failed.Load() > 0 {
				b.Errorf("%d failed", failed.Load())
			}
		})
	}
}

func BenchmarkTicketsNumber(b *testing.B) {
	tickets := benchmarked(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := tickets.Number(context.Background()); err != nil {
			b.Fatal(err)
		}
	}
}

func benchmarked(b *testing.B) *valkey.Tickets {
	b.Helper()
	s, err := valkey.Open(b.Context(), valkey.Config{Addresses: []string{valkeytest.Start(b).Addr}, Timeout: valkey.MaxTimeout})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(s.Close)
	return s.Tickets(0)
}
