//go:build !race

package budget_test

import (
	"testing"

	"github.com/moat-gateway/moat/guard/budget"
)

func TestDecideAllocatesItsGrantAndNames(t *testing.T) {
	l := open(t, visitor(budget.Amount{Requests: 1 << 40}), site(budget.Amount{Requests: 1 << 40}))
	f := budget.Facts{Client: home, Visitor: [8]byte{1}}
	if n := testing.AllocsPerRun(1000, func() {
		gr, _ := l.g.Decide(f)
		gr.Sent()
		gr.Release()
	}); n > 3 {
		t.Errorf("%v allocations", n)
	}
}
