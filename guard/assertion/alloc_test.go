//go:build !race

package assertion_test

import (
	"testing"

	"github.com/moat-gateway/moat/guard/assertion"
	"github.com/moat-gateway/moat/guard/identity/assume"
)

// The race detector allocates by itself, so this is left out there; make check runs it.
func TestWhatWasSaidBeforeCostsNoAllocation(t *testing.T) {
	p := policy(func(p *assertion.TokenPolicy) { p.Header = "Authorization" })
	p.Headers = map[string]string{"X-User": "sub", "X-Roles": "roles"}
	g, who, h := newGuard(t, p, newSigner(t, p256(t))), assume.Principal(alice), request()
	if n := testing.AllocsPerRun(1000, func() {
		if err := g.Set(h, who, now); err != nil {
			t.Fatal(err)
		}
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
}
