package memory

import (
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/moat-gateway/moat/guard/ratelimit"
)

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

func TestFirstRequestsOfANewClientAtOnceGetOneBurst(t *testing.T) {
	s := New(0)
	seen := map[place]bool{}
	for i := range 3000 {
		k := ratelimit.Key{Route: fmt.Sprint(i)}
		if seen[s.place(k)] {
			t.Log("collision", i)
			continue
		}
		seen[s.place(k)] = true
		d := []ratelimit.Demand{{Key: ratelimit.Key{Route: fmt.Sprint(i)}, Limit: ratelimit.Limit{Count: 1, Per: time.Hour, Burst: 2}, Cost: 1}}
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
			t.Fatalf("key %d: admitted %d of a burst of 2", i, n.Load())
		}
	}
}
