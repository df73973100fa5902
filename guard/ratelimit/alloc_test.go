//go:build !race

package ratelimit_test

import (
	"testing"

	"github.com/moat-gateway/moat/guard/ratelimit"
)

// The race detector makes sync.Pool drop what it holds, so this is left out there; make
// check runs it.
func TestDecideDoesNotAllocate(t *testing.T) {
	d := open(t, ratelimit.Policy{Rules: []ratelimit.Rule{byAddress("client", "100000/s"), {Name: "all", Limit: words("1000000/s")}}})
	f := facts("2001:db8::1")
	if n := testing.AllocsPerRun(1000, func() {
		gr, _ := d.g.Decide(t.Context(), f)
		gr.Release()
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
}
