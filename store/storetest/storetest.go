// Package storetest has the tests that every ratelimit.Store must pass, and every
// ticket.Store: see RunTickets.
//
// They run against real time, since a store may live on a server whose clock cannot be
// turned, and hold on a machine that stops for seconds: what they demand is computed from
// how long things took. What could have been decided either way is accepted either way.
//
// All demands have Lease 0. How much a store admits beyond a limit when it is allowed to
// lease is for the store to state, and to test.
package storetest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/moat-gateway/moat/guard/ratelimit"
)

// Run tests the stores that open returns. It is called once for each test, and each time
// returns a store that knows of no debts. What the store needs, open closes with t.Cleanup.
// It may look after processes, but must leave the store's clock alone.
func Run(t *testing.T, open func(t *testing.T) ratelimit.Store) {
	t.Helper()
	for _, c := range []struct {
		name string
		test func(c client)
	}{
		{"a burst passes, then requests are refused", burst},
		{"room comes back with time", refill},
		{"results say what is left", results},
		{"a refusal costs nothing", refusalIsFree},
		{"all demands are charged or none", allOrNothing},
		{"the same key twice counts twice", sameKeyTwice},
		{"IfNew counts for new keys only", ifNew},
		{"Force charges what there is room for", force},
		{"cost 0 asks for no room", costZero},
		{"cost above the burst is never allowed", costAboveBurst},
		{"Peek changes nothing and says what Take will", peek},
		{"Reset forgets", reset},
		{"keys are equal only if all fields are", keys},
		{"a key keeps its debt when its limit changes", changedLimit},
		{"no demands are no refusal", noDemands},
		{"many at once get no more than one after the other", concurrent},
		{"many at once are charged for all or nothing", concurrentAllOrNothing},
		{"many at once are new once", concurrentNew},
		{"a context that is over is no refusal", cancelled},
		{"any schedule is decided within the bounds of its times", schedule},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(client{t, open(t)}) })
	}
}

// slow limits refill so rarely that no request is regained while a test runs.
func slow(burst int) ratelimit.Limit {
	return ratelimit.Limit{Count: 1, Per: time.Hour, Burst: burst}
}

// client asks a store, and fails the test if the answer is not the one expected.
type client struct {
	*testing.T
	store ratelimit.Store
}

// key returns a key that is different for each name.
func key(name string) ratelimit.Key {
	return ratelimit.Key{Limit: "storetest", Net: netip.MustParsePrefix("192.0.2.7/32"), Route: name}
}

func demand(name string, l ratelimit.Limit, cost int) ratelimit.Demand {
	return ratelimit.Demand{Key: key(name), Limit: l, Cost: cost}
}

// decide calls Take or Peek, and checks what holds for any answer.
func (c client) decide(what func(context.Context, []ratelimit.Demand, []ratelimit.Result) (bool, error), demands []ratelimit.Demand) (bool, []ratelimit.Result) {
	c.Helper()
	results := make([]ratelimit.Result, len(demands))
	for i := range results {
		results[i] = ratelimit.Result{Allowed: i%2 == 0, New: true, Remaining: -99, Retry: -99, Reset: -99}
	}
	ok, err := what(c.Context(), demands, results)
	if err != nil {
		c.Fatalf("the store could not decide: %v", err)
	}
	all := true
	for i, r := range results {
		all = all && r.Allowed
		switch {
		case r.Remaining < 0, r.Reset < 0, r.Retry < 0, r.Allowed && r.Retry != 0, !r.Allowed && r.Retry == 0:
			c.Fatalf("result %d is %+v, which cannot be", i, r)
		}
	}
	if ok != all {
		c.Fatalf("the store says %v, its results %+v", ok, results)
	}
	return ok, results
}

func (c client) take(demands ...ratelimit.Demand) (bool, []ratelimit.Result) {
	c.Helper()
	return c.decide(c.store.Take, demands)
}

func (c client) peek(demands ...ratelimit.Demand) (bool, []ratelimit.Result) {
	c.Helper()
	return c.decide(c.store.Peek, demands)
}

func (c client) allow(demands ...ratelimit.Demand) []ratelimit.Result {
	c.Helper()
	ok, results := c.take(demands...)
	if !ok {
		c.Fatalf("refused %s: %+v", list(demands), results)
	}
	return results
}

// deny expects a refusal by the demands at those indices, and by no others.
func (c client) deny(by []int, demands ...ratelimit.Demand) []ratelimit.Result {
	c.Helper()
	ok, results := c.take(demands...)
	if ok {
		c.Fatalf("allowed %s", list(demands))
	}
	for i, r := range results {
		want := true
		for _, j := range by {
			want = want && i != j
		}
		if r.Allowed != want {
			c.Fatalf("result %d of %s: allowed is %v, want %v", i, list(demands), r.Allowed, want)
		}
	}
	return results
}

// room expects that there is room for exactly n requests, and uses it up.
func (c client) room(n int, d ratelimit.Demand) {
	c.Helper()
	d.Cost = 1
	for i := range n {
		if ok, _ := c.take(d); !ok {
			c.Fatalf("room for %d requests, want %d", i, n)
		}
	}
	if ok, _ := c.take(d); ok {
		c.Fatalf("room for more than %d requests", n)
	}
}

// wait waits for as long as the store said.
func (c client) wait(d time.Duration) {
	c.Helper()
	if d > time.Second {
		c.Fatalf("to wait for %s is too long", d)
	}
	time.Sleep(d)
}

func list(demands []ratelimit.Demand) string {
	words := make([]string, len(demands))
	for i, d := range demands {
		words[i] = fmt.Sprintf("%d of %s (%s)", d.Cost, d.Key.Route, d.Limit)
	}
	return strings.Join(words, ", ")
}

var first = []int{0}

func burst(c client) {
	c.room(5, demand("a", slow(5), 1))
	c.room(1, demand("b", slow(1), 1))
	c.allow(demand("c", slow(5), 3))
	c.deny(first, demand("c", slow(5), 3))
	c.allow(demand("c", slow(5), 2))
	// A Burst of 0 is the Count.
	c.room(3, demand("d", ratelimit.Limit{Count: 3, Per: 24 * time.Hour}, 1))
}

func refill(c client) {
	m := newModel(c)
	d := demand("a", ratelimit.Limit{Count: 1, Per: 50 * time.Millisecond, Burst: 2}, 1)
	for range 3 {
		m.take(d)
	}
	for range 5 {
		ok, r := m.take(d)
		for !ok {
			// A client that waits as it was told is let in.
			c.wait(r[0].Retry)
			ok, r = m.take(d)
		}
	}
	_, r := m.take(d)
	c.wait(r[0].Reset + m.slack())
	if _, r = m.take(d); !r[0].New {
		c.Errorf("not New after the Reset time: %+v", r[0])
	}
}

func results(c client) {
	l := slow(5)
	near := func(what string, got, want time.Duration) {
		c.Helper()
		if got > want+time.Millisecond || got < want-10*time.Minute {
			c.Errorf("%s is %s, want %s or a little less", what, got, want)
		}
	}
	check := func(r ratelimit.Result, isNew bool, remaining int, retry, reset time.Duration) {
		c.Helper()
		if r.New != isNew || r.Remaining != remaining {
			c.Errorf("got %+v, want New %v and Remaining %d", r, isNew, remaining)
		}
		near("Retry", r.Retry, retry)
		near("Reset", r.Reset, reset)
	}
	check(c.allow(demand("a", l, 1))[0], true, 4, 0, time.Hour)
	check(c.allow(demand("a", l, 3))[0], false, 1, 0, 4*time.Hour)
	check(c.deny(first, demand("a", l, 3))[0], false, 1, 2*time.Hour, 4*time.Hour)
	check(c.allow(demand("a", l, 1))[0], false, 0, 0, 5*time.Hour)
	check(c.deny(first, demand("a", l, 1))[0], false, 0, time.Hour, 5*time.Hour)
	check(c.deny(first, demand("a", l, 5))[0], false, 0, 5*time.Hour, 5*time.Hour)
	// The answers of several demands stand in their order.
	r := c.allow(demand("b", slow(2), 1), demand("c", slow(9), 3), demand("d", slow(4), 0))
	check(r[0], true, 1, 0, time.Hour)
	check(r[1], true, 6, 0, 3*time.Hour)
	check(r[2], true, 4, 0, 0)
}

func refusalIsFree(c client) {
	l := slow(5)
	c.allow(demand("a", l, 3))
	for range 20 {
		c.deny(first, demand("a", l, 3))
	}
	c.room(2, demand("a", l, 1))
	for range 20 {
		c.deny(first, demand("a", l, 1))
	}
	_, r := c.peek(demand("a", l, 1))
	if r[0].Retry > time.Hour {
		c.Errorf("after many refusals Retry is %s, want 1h", r[0].Retry)
	}
}

func allOrNothing(c client) {
	for refusing := range 3 {
		name := func(i int) string { return fmt.Sprint("refused by ", refusing, ", demand ", i) }
		demands := make([]ratelimit.Demand, 3)
		for i := range demands {
			demands[i] = demand(name(i), slow(4), 1)
		}
		c.allow(demands...)
		full := demands[refusing]
		full.Cost = 3
		c.allow(full)
		for range 5 {
			c.deny([]int{refusing}, demands...)
		}
		for i, d := range demands {
			if i == refusing {
				c.room(0, d)
			} else {
				c.room(3, d)
			}
		}
		c.deny([]int{0, 1, 2}, demands...)
	}
	// A demand that is forced is not charged either if another is refused.
	c.room(1, demand("full", slow(1), 1))
	forced := demand("forced", slow(2), 1)
	forced.Force = true
	c.deny([]int{1}, forced, demand("full", slow(1), 1))
	c.deny(first, demand("full", slow(1), 1), forced)
	c.room(2, demand("forced", slow(2), 1))
}

func sameKeyTwice(c client) {
	c.allow(demand("a", slow(5), 2), demand("a", slow(5), 2))
	c.room(1, demand("a", slow(5), 1))

	// Room for either is no room for both.
	if ok, _ := c.take(demand("b", slow(3), 2), demand("b", slow(3), 2)); ok {
		c.Error("allowed 2 and 2 of a burst of 3")
	}
	c.room(3, demand("b", slow(3), 1))

	// One key to two limits has one debt.
	c.allow(demand("c", slow(5), 1), demand("x", slow(1), 1), demand("c", slow(3), 1))
	c.room(1, demand("c", slow(3), 1))
	c.room(2, demand("c", slow(5), 1))
}

func ifNew(c client) {
	budget := demand("budget", slow(2), 1)
	budget.IfNew = true
	for i := range 2 {
		d := demand(fmt.Sprint("client ", i), slow(3), 1)
		if r := c.allow(d, budget); !r[0].New {
			c.Errorf("not New at first: %+v", r[0])
		}
		for range 2 {
			if r := c.allow(d, budget); r[0].New {
				c.Errorf("New again: %+v", r[0])
			}
		}
	}
	// The budget is spent: no new client is let in, and those that are known still are.
	c.allow(demand("client 0", slow(9), 1), budget)
	c.deny([]int{1}, demand("client 2", slow(3), 1), budget)
	// The refusal cost the new client nothing, so it is still new.
	if r := c.allow(demand("client 2", slow(3), 1)); !r[0].New {
		c.Errorf("a refused client is not New: %+v", r[0])
	}
	c.allow(demand("client 2", slow(3), 1), budget)
	// What does not count cannot refuse, however much it asks for.
	budget.Cost = 99
	c.allow(demand("client 2", slow(3), 1), budget)

	// It is the first demand's key that must be new, not its own.
	other := demand("other", slow(2), 1)
	other.IfNew = true
	c.allow(demand("client 3", slow(3), 1), demand("client 0", slow(9), 1), other)
	c.allow(demand("client 0", slow(9), 1), demand("client 4", slow(3), 1), other)
	c.room(1, demand("other", slow(2), 1))
}

func force(c client) {
	l := slow(5)
	forced := func(name string, cost int) ratelimit.Demand {
		d := demand(name, l, cost)
		d.Force = true
		return d
	}
	if r := c.allow(forced("a", 2)); r[0].Remaining != 3 || !r[0].New {
		c.Errorf("got %+v, want New and Remaining 3", r[0])
	}
	for range 3 {
		if r := c.allow(forced("a", 4)); r[0].Remaining != 0 || r[0].Reset > 5*time.Hour {
			c.Errorf("got %+v, want Remaining 0 and Reset 5h", r[0])
		}
	}
	r := c.deny(first, demand("a", l, 1))
	if r[0].Retry > time.Hour {
		c.Errorf("Retry is %s, want 1h: a forced charge goes no farther than a full burst", r[0].Retry)
	}
	c.allow(forced("b", 99))
	c.room(0, demand("b", l, 1))
}

func costZero(c client) {
	l := slow(2)
	for range 5 {
		if r := c.allow(demand("a", l, 0)); !r[0].New || r[0].Remaining != 2 || r[0].Reset != 0 {
			c.Errorf("got %+v, want New and Remaining 2", r[0])
		}
	}
	c.room(2, demand("a", l, 1))
	if r := c.allow(demand("a", l, 0)); r[0].New || r[0].Remaining != 0 {
		c.Errorf("got %+v, want Remaining 0", r[0])
	}
	c.allow(demand("a", l, 0), demand("b", l, 1))
	c.room(1, demand("b", l, 1))
}

func costAboveBurst(c client) {
	l := slow(5)
	for range 2 {
		r := c.deny(first, demand("a", l, 6))
		if r[0].Retry != ratelimit.NeverAllowed || !r[0].New {
			c.Errorf("got %+v, want New and Retry NeverAllowed", r[0])
		}
	}
	c.deny([]int{1}, demand("b", l, 1), demand("a", l, 6))
	c.room(5, demand("a", l, 1))
	c.room(5, demand("b", l, 1))
	if r := c.deny(first, demand("a", l, 6)); r[0].Retry != ratelimit.NeverAllowed {
		c.Errorf("got %+v, want Retry NeverAllowed", r[0])
	}
	if r := c.deny(first, demand("a", ratelimit.Limit{}, 1)); r[0].Retry != ratelimit.NeverAllowed {
		c.Errorf("got %+v from the zero Limit, want Retry NeverAllowed", r[0])
	}
}

func peek(c client) {
	l := slow(3)
	isNew := demand("budget", slow(1), 1)
	isNew.IfNew = true
	forced := demand("forced", slow(1), 1)
	forced.Force = true
	for i := range 5 {
		demands := []ratelimit.Demand{demand("a", l, 1), isNew, forced, demand("b", slow(9), 2)}
		for range 3 {
			c.peek(demands...)
		}
		before, want := c.peek(demands...)
		ok, got := c.take(demands...)
		if ok != before {
			c.Errorf("request %d: Peek says %v, Take %v", i, before, ok)
		}
		for j := range got {
			if got[j].Allowed != want[j].Allowed || got[j].New != want[j].New || got[j].Remaining != want[j].Remaining ||
				(got[j].Retry-want[j].Retry).Abs() > 10*time.Minute || (got[j].Reset-want[j].Reset).Abs() > 10*time.Minute {
				c.Errorf("request %d, result %d: Peek says %+v, Take %+v", i, j, want[j], got[j])
			}
		}
	}
}

func reset(c client) {
	forget := func(name string) {
		c.Helper()
		if err := c.store.Reset(c.Context(), key(name)); err != nil {
			c.Fatal(err)
		}
	}
	forget("a")
	c.room(3, demand("a", slow(3), 1))
	c.room(2, demand("b", slow(2), 1))
	forget("a")
	if _, r := c.peek(demand("a", slow(3), 1)); !r[0].New {
		c.Errorf("not New after Reset: %+v", r[0])
	}
	c.room(3, demand("a", slow(3), 1))
	c.room(0, demand("b", slow(2), 1))
}

func keys(c client) {
	net := netip.MustParsePrefix
	all := []ratelimit.Key{
		{},
		{Limit: "a"},
		{Limit: "b"},
		{Route: "a"},
		{Route: "b"},
		{Method: "a"},
		{Method: "b"},
		{Who: "a"},
		{Who: "b"},
		{Limit: "a", Who: "a"},
		{Who: "a", Route: "a"},
		{Who: "192.0.2.0/24"},
		{Net: net("192.0.2.0/24"), Who: "a"},
		{Net: net("0.0.0.0/0")},
		{Net: net("::/0")},
		{Net: net("192.0.2.0/24")},
		{Net: net("192.0.2.0/25")},
		{Net: net("192.0.3.0/24")},
		{Net: net("192.0.2.0/32")},
		{Net: net("::ffff:192.0.2.0/120")},
		{Net: net("2001:db8::/48")},
		{Net: net("2001:db8::/64")},
		{Net: net("2001:db8:0:1::/64")},
		{Limit: "a", Net: net("192.0.2.0/24")},
		{Limit: "a", Route: "a"},
		{Limit: "a", Method: "a"},
		{Route: "a", Method: "a"},
		{Limit: "a", Net: net("192.0.2.0/24"), Route: "a", Method: "a"},
		{Limit: "A"},
		{Limit: "aa"},
		{Route: "aa"},
		{Limit: "{a}"},
		{Limit: "{a", Route: "}"},
		{Limit: "192.0.2.0/24"},
		{Route: "192.0.2.0/24"},
		{Limit: "\xff"},
		{Limit: "\xfe"},
		{Limit: "é"},
		{Limit: "e\u0301"},
		{Route: strings.Repeat("a", 2000)},
		{Route: strings.Repeat("a", 2001)},
	}
	// What a store might join fields with, or write in place of it.
	for _, sep := range []string{" ", ":", "|", "/", ",", ";", "-", "_", ".", "\x00", "\n", "\t", `\`, `"`, "%", "%3A", "%3a", `\:`, "::"} {
		all = append(all,
			ratelimit.Key{Limit: "a" + sep, Route: "a"},
			ratelimit.Key{Limit: "a", Route: sep + "a"},
			ratelimit.Key{Route: "a" + sep, Limit: "a"},
			ratelimit.Key{Route: "a", Limit: sep + "a"},
			ratelimit.Key{Route: "a" + sep, Method: "a"},
			ratelimit.Key{Route: "a", Method: sep + "a"},
			ratelimit.Key{Method: "a" + sep, Route: "a"},
			ratelimit.Key{Method: "a", Route: sep + "a"},
			ratelimit.Key{Method: "a" + sep, Limit: "a"},
			ratelimit.Key{Method: "a", Limit: sep + "a"},
			ratelimit.Key{Limit: "a" + sep, Method: "a"},
			ratelimit.Key{Limit: "a", Method: sep + "a"},
			ratelimit.Key{Who: "a" + sep, Route: "a"},
			ratelimit.Key{Who: "a", Route: sep + "a"},
			ratelimit.Key{Limit: "a" + sep, Who: "a"},
			ratelimit.Key{Limit: "a", Who: sep + "a"},
			ratelimit.Key{Limit: "a" + sep + "a"},
			ratelimit.Key{Limit: sep},
			ratelimit.Key{Route: sep},
		)
	}
	for _, k := range all {
		d := ratelimit.Demand{Key: k, Limit: slow(1), Cost: 1}
		if ok, r := c.take(d); !ok || !r[0].New {
			c.Fatalf("key %.80q shares the debt of another: %+v", fmt.Sprintf("%+v", k), r[0])
		}
		if ok, _ := c.take(d); ok {
			c.Fatalf("key %.80q has no debt of its own", fmt.Sprintf("%+v", k))
		}
	}
}

func changedLimit(c client) {
	// Debt is time: one request of 1/h is an hour, and so are two of 2/h.
	c.allow(demand("wider", slow(3), 3))
	c.room(0, demand("wider", slow(3), 1))
	c.room(2, demand("wider", slow(5), 1))
	half := ratelimit.Limit{Count: 2, Per: time.Hour, Burst: 12}
	c.allow(demand("faster", slow(3), 3))
	c.room(6, demand("faster", half, 1))

	// A debt beyond a full burst counts as a full burst.
	c.allow(demand("narrower", slow(9), 8))
	r := c.deny(first, demand("narrower", slow(2), 1))
	if r[0].Retry > time.Hour || r[0].Reset > 2*time.Hour {
		c.Errorf("got %+v, want Retry 1h and Reset 2h", r[0])
	}
	c.allow(demand("still narrower", slow(9), 2))
	c.room(1, demand("still narrower", slow(3), 1))

	// It is written back by the refusal: were it only seen so, the client would meet a full
	// burst for as long as the old limit takes to forget it.
	quick := ratelimit.Limit{Count: 1, Per: time.Millisecond, Burst: 10}
	c.allow(demand("shorter", slow(9), 8))
	ok, r := c.take(demand("shorter", quick, 10))
	if ok || r[0].Retry > 10*time.Millisecond {
		c.Errorf("got %+v, want a refusal with Retry 10ms", r[0])
	}
	c.wait(r[0].Retry + slackAfter(0))
	c.allow(demand("shorter", quick, 10))
	// The same among other demands.
	c.allow(demand("shorter too", slow(9), 8))
	_, r = c.take(demand("other", slow(9), 1), demand("shorter too", quick, 10))
	c.wait(r[1].Retry + slackAfter(0))
	c.allow(demand("other", slow(9), 1), demand("shorter too", quick, 10))
}

func noDemands(c client) {
	c.allow()
	if ok, _ := c.peek(); !ok {
		c.Error("Peek refuses nothing")
	}
}

// atOnce runs f in many goroutines, n times in all, and says how long that took.
func atOnce(n int, f func(i int)) time.Duration {
	const goroutines = 16
	var next atomic.Int64
	var wg sync.WaitGroup
	start := time.Now()
	for range goroutines {
		wg.Go(func() {
			for i := int(next.Add(1)); i <= n; i = int(next.Add(1)) {
				f(i - 1)
			}
		})
	}
	wg.Wait()
	return time.Since(start)
}

// try is Take for goroutines, which must not end the test.
func (c client) try(demands ...ratelimit.Demand) (bool, []ratelimit.Result) {
	results := make([]ratelimit.Result, len(demands))
	ok, err := c.store.Take(c.Context(), demands, results)
	if err != nil {
		c.Errorf("the store could not decide: %v", err)
	}
	return ok, results
}

func concurrent(c client) {
	const b = 100
	for _, l := range []ratelimit.Limit{slow(b), {Count: 2000, Per: time.Second, Burst: b}} {
		for range 5 {
			d := demand(l.String(), l, 1)
			var admitted atomic.Int64
			took := atOnce(8*b, func(int) {
				if ok, _ := c.try(d); ok {
					admitted.Add(1)
				}
			})
			// The last of those that had to be refused may have come any time later, but if
			// nothing was regained there are exactly as many as the burst.
			most := b + int64((took+slackAfter(took))/(l.Per/time.Duration(l.Count)))
			if n := admitted.Load(); n < b || n > most {
				c.Errorf("%s: admitted %d requests in %s, want %d to %d", l, n, took, b, most)
			}
			if err := c.store.Reset(c.Context(), d.Key); err != nil {
				c.Fatal(err)
			}
		}
	}
}

func concurrentAllOrNothing(c client) {
	const n = 200
	limits := []ratelimit.Limit{slow(100), slow(60), slow(80)}
	// The demands come in different orders, so that they meet halfway.
	orders := [][]int{{0, 1, 2}, {2, 1, 0}, {1, 0, 2}, {1, 2}, {2, 1}, {0, 2}}
	var charged [3]atomic.Int64
	atOnce(n, func(i int) {
		order := orders[i%len(orders)]
		demands := make([]ratelimit.Demand, 0, len(order))
		for _, k := range order {
			demands = append(demands, demand(fmt.Sprint(k), limits[k], 1))
		}
		if ok, _ := c.try(demands...); ok {
			for _, k := range order {
				charged[k].Add(1)
			}
		}
	})
	full := 0
	for k, l := range limits {
		left := int64(l.Burst) - charged[k].Load()
		if left < 0 {
			c.Fatalf("limit %d admitted %d requests of a burst of %d", k, charged[k].Load(), l.Burst)
		}
		if left == 0 {
			full++
		}
		c.room(int(left), demand(fmt.Sprint(k), l, 1))
	}
	if full == 0 {
		c.Error("requests were refused though no limit was full")
	}
}

func concurrentNew(c client) {
	const keys, each = 50, 8
	// With room to spare: a request may have read the clock before those that it meets.
	budget := demand("budget", slow(2*keys), 1)
	budget.IfNew = true
	atOnce(keys*each, func(i int) {
		if ok, r := c.try(demand(fmt.Sprint("client ", i/each), slow(2*each), 1), budget); !ok {
			c.Errorf("refused: %+v", r)
		}
	})
	c.room(keys, demand("budget", slow(2*keys), 1))
}

func cancelled(c client) {
	ctx, cancel := context.WithCancel(c.Context())
	cancel()
	d := demand("a", slow(2), 1)
	r := make([]ratelimit.Result, 1)
	ok, err := c.store.Take(ctx, []ratelimit.Demand{d}, r)
	switch {
	case err == nil && !ok:
		c.Fatalf("refused: %+v", r)
	case err == nil:
		c.room(1, d) // It needs no context to decide.
	case ok:
		c.Fatalf("allowed, and could not decide: %v", err)
	case !errors.Is(err, context.Canceled):
		c.Errorf("the error is %v, want one that is context.Canceled", err)
		fallthrough
	default:
		c.room(2, d) // Nothing was sent, so nothing was charged.
	}
	if ok, err = c.store.Peek(ctx, []ratelimit.Demand{d}, r); ok && err != nil {
		c.Errorf("Peek allows, and could not decide: %v", err)
	}
}

// schedule plays random demands at random times.
func schedule(c client) {
	seed := rand.Uint64() //nolint:gosec // a test's cases.
	c.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0)) //nolint:gosec // a test's cases.
	limits := []ratelimit.Limit{
		{Count: 1, Per: time.Hour, Burst: 20},
		{Count: 50, Per: time.Second, Burst: 3},
		{Count: 1000, Per: time.Second, Burst: 10},
		{Count: 7, Per: 100 * time.Millisecond, Burst: 1},
		{Count: 3, Per: 100 * time.Millisecond},
	}
	m := newModel(c)
	for range 400 {
		demands := make([]ratelimit.Demand, 1+rnd.IntN(3))
		for i := range demands {
			k := rnd.IntN(len(limits))
			l := limits[k]
			if rnd.IntN(10) == 0 {
				l.Burst = 1 + rnd.IntN(10)
			}
			demands[i] = demand(fmt.Sprint("key ", k), l, rnd.IntN(4))
			demands[i].Force = rnd.IntN(8) == 0
			demands[i].IfNew = rnd.IntN(8) == 0
		}
		if rnd.IntN(4) == 0 {
			m.peek(demands...)
		} else {
			m.take(demands...)
		}
		if rnd.IntN(3) == 0 {
			time.Sleep(time.Duration(rnd.IntN(5000)) * time.Microsecond)
		}
	}
}
