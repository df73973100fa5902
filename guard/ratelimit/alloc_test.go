//go:build !race

package ratelimit_test

import (
	"testing"

	"github.com/moat-gateway/moat/guard/ratelimit"
)

// The race detector makes sync.Pool drop what it holds, so this is left out there; make
// check runs it.
func TestDecideDoesNotAllocate(t *testing.T) {
	byUser := ratelimit.Rule{Name: "user", Limit: words("100000/s"), By: []ratelimit.Fact{ratelimit.Principal}}
	for _, c := range []struct {
		name  string
		first ratelimit.Rule
		most  float64
	}{
		{"by address", byAddress("client", "100000/s"), 0},
		{"by principal: the key's name", byUser, 1},
	} {
		d := open(t, ratelimit.Policy{Rules: []ratelimit.Rule{c.first, {Name: "all", Limit: words("1000000/s")}}})
		f := from(alice, "2001:db8::1", "")
		if n := testing.AllocsPerRun(1000, func() {
			gr, _ := d.g.Decide(t.Context(), f)
			gr.Release()
		}); n > c.most {
			t.Errorf("%s: %v allocations", c.name, n)
		}
	}
}
