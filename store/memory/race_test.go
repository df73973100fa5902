//go:build !interleave

package memory

import (
	"os/exec"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/moat-gateway/moat/guard/ratelimit"
)

// The protocol by which requests share a bucket is tried in all orders of its steps, up to
// a number of preemptions. That needs slots which wait, and so a build of its own.
func TestInEveryOrderOfStepsAKeyHasOneDebt(t *testing.T) {
	args := []string{"test", "-count=1", "-tags=interleave", "-run=^TestInterleavings$", "."}
	if testing.Short() {
		args = append(args, "-short")
	}
	out, err := exec.CommandContext(t.Context(), "go", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

// together runs f in n goroutines that begin as close to each other as can be.
func together(n int, f func(i int)) {
	var wg sync.WaitGroup
	var ready atomic.Int64
	for i := range n {
		wg.Go(func() {
			ready.Add(1)
			for ready.Load() < int64(n) {
				runtime.Gosched()
			}
			f(i)
		})
	}
	wg.Wait()
}

func TestFirstRequestsOfANewKeyAtOnceGetOneBurst(t *testing.T) {
	s := New(0)
	for _, k := range keysApart(s, 2000) {
		d := []ratelimit.Demand{{Key: k, Limit: ratelimit.Limit{Count: 1, Per: time.Hour, Burst: 2}, Cost: 1}}
		var n atomic.Int64
		together(4, func(int) {
			var r [1]ratelimit.Result
			for range 2 {
				if ok, _ := s.Take(t.Context(), d, r[:]); ok {
					n.Add(1)
				}
			}
		})
		if n.Load() != 2 {
			t.Fatalf("%+v: admitted %d of a burst of 2", k, n.Load())
		}
	}
}

// Several goroutines ask for one key, while others bring keys to its bucket without end.
func TestAKeyInACrowdedBucketGetsItsBurstAndNoMoreUntilItIsEvicted(t *testing.T) {
	s := New(0)
	const burst = 20
	hammered := ratelimit.Key{Route: "hammered"}
	at := s.place(hammered)
	var crowd [][]ratelimit.Demand
	for _, k := range keysApart(s, 200_000) {
		if p := s.place(k); p.bucket == at.bucket && p != at {
			crowd = append(crowd, []ratelimit.Demand{{Key: k, Limit: ratelimit.Limit{Count: 1, Per: time.Hour}, Cost: 1}})
		}
	}
	d := []ratelimit.Demand{{Key: hammered, Limit: ratelimit.Limit{Count: 1, Per: time.Hour, Burst: burst}, Cost: 1}}
	var admitted, fresh atomic.Int64
	together(4, func(i int) {
		var r [1]ratelimit.Result
		for j := range 20_000 {
			if i < 2 {
				s.Take(t.Context(), crowd[(i*len(crowd)/2+j)%len(crowd)], r[:])
				continue
			}
			if ok, _ := s.Take(t.Context(), d, r[:]); ok {
				admitted.Add(1)
				if r[0].New {
					fresh.Add(1)
				}
			}
		}
	})
	st := s.Stats()
	t.Logf("%d others, %d evictions, %d times new, admitted %d", len(crowd), st.Evicted, fresh.Load(), admitted.Load())
	if st.Evicted == 0 || admitted.Load() < burst || admitted.Load() > burst*fresh.Load() {
		t.Errorf("admitted %d of a burst of %d, though it was new %d times; %d evictions", admitted.Load(), burst, fresh.Load(), st.Evicted)
	}
}
