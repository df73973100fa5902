package valkey

import (
	"testing"
	"time"

	"github.com/moat-gateway/moat/guard/budget"
	"github.com/moat-gateway/moat/store/valkey/valkeytest"
)

// A process whose clock is in another hour is told the server's, and counts there.
func TestPeriodsAreThoseOfTheServer(t *testing.T) {
	server := valkeytest.Start(t)
	store, err := Open(t.Context(), Config{Addresses: []string{server.Addr}, Timeout: MaxTimeout})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	s := store.Budgets()
	demands := []budget.Demand{{Rule: &budget.Rule{Name: "x", By: budget.BySite, Per: budget.Hour, Cap: budget.Amount{Requests: 1}}, Take: budget.Amount{Requests: 1}}}
	for _, wrong := range []time.Duration{-2 * time.Hour, 2 * time.Hour} {
		c := s.reserve(time.Now().Add(wrong), demands, make([]budget.Result, 1))
		if err := store.call(t.Context(), s.slot, c); err != nil {
			t.Fatal(err)
		}
		if len(c.reply) != 2 || c.reply[0] != 3 || time.Since(time.Unix(c.reply[1], 0)).Abs() > time.Hour {
			t.Errorf("a clock that is %s wrong is answered %v", wrong, c.reply)
		}
	}
	results := make([]budget.Result, 1)
	if ok, err := s.reserveAt(t.Context(), time.Now().Add(-2*time.Hour), demands, results); err != nil || !ok || !results[0].Account.Span.Holds(time.Now()) {
		t.Errorf("%v, %v, %+v", ok, err, results)
	}
}
