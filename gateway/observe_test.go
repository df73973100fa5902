package gateway_test

import (
	"net/http"
	"slices"
	"testing"

	"github.com/moat-gateway/moat/gateway"
	"github.com/moat-gateway/moat/guard"
)

// TestObserverIsToldWhatTheGateDecides: what is told is what happens to that very request,
// before it happens.
func TestObserverIsToldWhatTheGateDecides(t *testing.T) {
	b := newBackend(t, nil)
	type told struct {
		outcome guard.Outcome
		reason  guard.Reason
		ran     int64 // what the backend had run by then
	}
	var seen []told
	var last gateway.Verdict
	c := configFor(t, b.URL, func(c *gateway.Config) {
		c.Observe = func(_ *http.Request, v gateway.Verdict) {
			seen = append(seen, told{v.Decision.Outcome, v.Decision.Reason, b.ran.Load()})
			last = v
		}
	})
	g := newGateway(t, c)
	for _, x := range []struct {
		name string
		r    *http.Request
		want []told
	}{
		{"it passes", request("GET", app), []told{{guard.Allow, guard.OK, 0}}},
		{"it is refused", request("GET", stranger), []told{{guard.Deny, guard.CORSOriginNotAllowed, 1}}},
		{"the gate answers a preflight", request("OPTIONS", app, "Access-Control-Request-Method", "PUT"), []told{{guard.Answer, guard.CORSPreflightApproved, 1}}},
	} {
		seen = nil
		serve(g, x.r)
		if !slices.Equal(seen, x.want) {
			t.Errorf("%s: told %+v; want %+v", x.name, seen, x.want)
		}
		if last.Route != "/" || len(last.Trail) == 0 {
			t.Errorf("%s: no route or trail in %+v", x.name, last)
		}
	}

	b.Close()
	seen = nil
	serve(g, request("GET", app))
	if want := []told{{guard.Allow, guard.OK, 1}, {guard.Deny, guard.UpstreamUnreachable, 1}}; !slices.Equal(seen, want) {
		t.Errorf("an upstream that is down: told %+v; want %+v", seen, want)
	}
}
