//go:build !race

package authorization_test

import (
	"testing"

	"github.com/moat-gateway/moat/guard/authorization"
)

// The race detector makes sync.Pool drop what it holds, so this is left out there; make
// check runs it.
func TestWithoutAConditionNothingIsAllocated(t *testing.T) {
	g := build(t, authorization.Policy{Scopes: []string{"profile"}, Roles: []string{"editor"}, Claims: map[string]any{"org": "acme", "groups": "staff", "level": int64(7)}})
	r := get(t, "/")
	if n := testing.AllocsPerRun(1000, func() { g.Decide(alice, r, noon) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}
