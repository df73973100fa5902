package storetest

import (
	"context"
	"errors"
	"math"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/moat-gateway/moat/guard/ticket"
)

// RunTickets tests a ticket.Store. Open is called once for each test, and each time returns
// two handles of one store, such as two processes have that share it; of a store that
// cannot be shared it is the same one twice. Nobody else uses that store, and nothing makes
// it forget. What it needs, open closes with t.Cleanup.
func RunTickets(t *testing.T, open func(t *testing.T) (a, b ticket.Store)) {
	t.Helper()
	for _, c := range []struct {
		name string
		test func(n nodes)
	}{
		{"both have one lineage", oneLineage},
		{"numbers are not given out twice", numbers},
		{"a use is first once, wherever it is made", useOnce},
		{"uses and tickets are independent", independent},
		{"what was not given out was never first", notGivenOut},
		{"one of 1,000 at once is first", useAtOnce},
		{"what is marked once is marked for all", once},
		{"one of 1,000 marks at once is first", onceAtOnce},
		{"a caller who has gone spends at most one", gone},
		{"a mark holds until it expires", onceUntil},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, b := open(t)
			c.test(nodes{t, [2]ticket.Store{a, b}})
		})
	}
}

// RunFull tests that a bounded ticket.Store which is full says so, and forgets nothing. Open
// returns a store that has room for some thousand tickets and marks.
func RunFull(t *testing.T, open func(t *testing.T) ticket.Store) {
	t.Helper()
	t.Run("tickets", func(t *testing.T) {
		s := open(t)
		n := nodes{t, [2]ticket.Store{s, s}}
		var all []numbered
		for {
			l, number, err := s.Number(t.Context())
			if errors.Is(err, ticket.ErrFull) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			k := numbered{l, number}
			n.first(true, 0, k, 31)
			all = append(all, k)
		}
		if len(all) == 0 {
			t.Fatal("it is full from the start")
		}
		for _, k := range all {
			n.first(false, 0, k, 31)
			n.first(true, 0, k, 0)
		}
		if _, _, err := s.Number(t.Context()); !errors.Is(err, ticket.ErrFull) {
			t.Errorf("got %v, want it to be full still", err)
		}
	})
	t.Run("marks", func(t *testing.T) {
		s := open(t)
		n := nodes{t, [2]ticket.Store{s, s}}
		expires := time.Now().Add(time.Hour)
		id := uint64(0)
		for ; ; id++ {
			first, err := s.Once(t.Context(), 0, id, expires)
			if errors.Is(err, ticket.ErrFull) && !first {
				break
			}
			if err != nil || !first {
				t.Fatalf("mark %d: first %v, error %v", id, first, err)
			}
		}
		for i := range id {
			n.once(false, 0, 0, i, expires)
		}
		if first, err := s.Once(t.Context(), 0, id, expires); first || !errors.Is(err, ticket.ErrFull) {
			t.Errorf("first %v, error %v, want it to be full still", first, err)
		}
	})
}

// AtOnce calls f for 0 to n-1, all at once, and returns how often it was true. An error is
// no success, and is counted apart.
func AtOnce(n int, f func(i int) (bool, error)) (successes, failures int) {
	var yes, no atomic.Int64
	var all sync.WaitGroup
	begin := make(chan struct{})
	for i := range n {
		all.Go(func() {
			<-begin
			ok, err := f(i)
			if ok {
				yes.Add(1)
			}
			if err != nil {
				no.Add(1)
			}
		})
	}
	close(begin)
	all.Wait()
	return int(yes.Load()), int(no.Load())
}

// nodes are two handles of a store.
type nodes struct {
	*testing.T
	of [2]ticket.Store
}

type numbered struct {
	lineage ticket.Lineage
	number  uint64
}

func (n nodes) number(node int) numbered {
	n.Helper()
	l, number, err := n.of[node].Number(n.Context())
	if err != nil {
		n.Fatalf("no number: %v", err)
	}
	if number >= 1<<48 {
		n.Fatalf("number %d is too large", number)
	}
	return numbered{l, number}
}

func (n nodes) first(want bool, node int, k numbered, use uint8) {
	n.Helper()
	got, err := n.of[node].Use(n.Context(), k.lineage, k.number, use)
	if err != nil {
		n.Fatalf("use %d of %d: %v", use, k.number, err)
	}
	if got != want {
		n.Fatalf("use %d of %d: first is %v, want %v", use, k.number, got, want)
	}
}

func (n nodes) once(want bool, node int, space uint8, id uint64, expires time.Time) {
	n.Helper()
	got, err := n.of[node].Once(n.Context(), space, id, expires)
	if err != nil {
		n.Fatalf("mark %d in space %d: %v", id, space, err)
	}
	if got != want {
		n.Fatalf("mark %d in space %d: first is %v, want %v", id, space, got, want)
	}
}

func oneLineage(n nodes) {
	k := n.number(0)
	a, since, ok := n.of[0].Lineage()
	b, _, also := n.of[1].Lineage()
	if !ok || !also || a != b || a != k.lineage || a == (ticket.Lineage{}) {
		n.Errorf("lineages %x, %v and %x, %v; that of a number is %x", a, ok, b, also, k.lineage)
	}
	if since.IsZero() || since.After(time.Now()) {
		n.Errorf("since %s", since)
	}
}

func numbers(n nodes) {
	const each = 3000
	var mu sync.Mutex
	seen := make(map[numbered]bool)
	AtOnce(16, func(i int) (bool, error) {
		for range each {
			l, number, err := n.of[i%2].Number(n.Context())
			if err != nil || number >= 1<<48 {
				n.Errorf("number %d, error %v", number, err)
				return false, err
			}
			mu.Lock()
			if k := (numbered{l, number}); seen[k] {
				n.Errorf("%d was given out twice", number)
			} else {
				seen[k] = true
			}
			mu.Unlock()
		}
		return true, nil
	})
}

func useOnce(n nodes) {
	for node := range 2 {
		k := n.number(node)
		n.first(true, node, k, 3)
		n.first(false, node, k, 3)
		n.first(false, 1-node, k, 3)
		n.first(true, 1-node, k, 4)
		n.first(false, node, k, 4)
	}
}

func independent(n nodes) {
	var all []numbered
	for i := range 6 {
		all = append(all, n.number(i%2))
	}
	for use := range uint8(32) {
		for i, k := range all {
			n.first(true, i/3, k, use)
		}
	}
	for _, k := range all {
		for use := range uint8(32) {
			n.first(false, 0, k, use)
		}
		n.first(false, 0, k, 32)
		n.first(false, 0, k, math.MaxUint8)
	}
}

func notGivenOut(n nodes) {
	k := n.number(0)
	for _, number := range []uint64{
		k.number ^ 1<<47, k.number ^ 1<<46, k.number + 1<<24, k.number - 1<<24, k.number | 1<<48, k.number | 1<<63, 1<<48 - 1, math.MaxUint64,
	} {
		n.first(false, 0, numbered{k.lineage, number}, 0)
		n.first(false, 1, numbered{k.lineage, number}, 0)
	}
	other := k
	other.lineage[15] ^= 1
	n.first(false, 0, other, 0)
	n.first(false, 0, numbered{number: k.number}, 0)
	n.first(true, 0, k, 0) // none of which has spent it
}

func useAtOnce(n nodes) {
	for use := range uint8(4) {
		k := n.number(int(use % 2))
		firsts, errs := AtOnce(1000, func(i int) (bool, error) {
			return n.of[i%2].Use(n.Context(), k.lineage, k.number, use)
		})
		if firsts != 1 || errs != 0 {
			n.Fatalf("%d of 1,000 were first, %d failed", firsts, errs)
		}
	}
}

func once(n nodes) {
	expires := time.Now().Add(time.Hour)
	for _, id := range []uint64{0, 1, 1 << 47, math.MaxUint64} {
		for _, space := range []uint8{0, 1, math.MaxUint8} {
			n.once(true, 0, space, id, expires)
		}
	}
	for _, id := range []uint64{0, 1, 1 << 47, math.MaxUint64} {
		for _, space := range []uint8{0, 1, math.MaxUint8} {
			n.once(false, 0, space, id, expires)
			n.once(false, 1, space, id, expires.Add(time.Minute))
		}
	}
	n.once(false, 0, 0, 2, time.Now().Add(-time.Second)) // what has expired was never first
	n.once(false, 0, 0, 3, time.Time{})
}

func onceAtOnce(n nodes) {
	expires := time.Now().Add(time.Hour)
	for id := range uint64(4) {
		firsts, errs := AtOnce(1000, func(i int) (bool, error) {
			return n.of[i%2].Once(n.Context(), 1, id, expires)
		})
		if firsts != 1 || errs != 0 {
			n.Fatalf("%d of 1,000 were first, %d failed", firsts, errs)
		}
	}
}

func onceUntil(n nodes) {
	expires := time.Now().Add(2 * time.Second)
	n.once(true, 0, 0, 7, expires)
	for deadline := expires.Add(8 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		first, err := n.of[1].Once(n.Context(), 0, 7, time.Now().Add(time.Hour))
		now := time.Now()
		if err != nil {
			n.Fatal(err)
		}
		if first && now.Before(expires) {
			n.Fatal("a mark was forgotten before it expired")
		}
		if first {
			return
		}
		if now.After(deadline) {
			n.Fatal("a mark was not forgotten when it had expired")
		}
	}
}

func gone(n nodes) {
	ctx, leave := context.WithCancel(n.Context())
	leave()
	k := n.number(0)
	firsts := 0
	for range 10 {
		// An error says nothing of whether the use has been marked.
		if first, err := n.of[0].Use(ctx, k.lineage, k.number, 0); first && err == nil {
			firsts++
		}
		if first, err := n.of[1].Use(n.Context(), k.lineage, k.number, 0); err != nil {
			n.Fatal(err)
		} else if first {
			firsts++
		}
	}
	if firsts > 1 {
		n.Errorf("%d were first", firsts)
	}
}
