package storetest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/moat-gateway/moat/guard/budget"
)

// RunBudgets tests the stores of budgets that open returns, as Run does.
func RunBudgets(t *testing.T, open func(t *testing.T) budget.Store) {
	t.Helper()
	for _, c := range []struct {
		name string
		test func(l spenders)
	}{
		{"a cap of each unit holds", capOfEachUnit},
		{"a new request needs something left of every unit", somethingLeft},
		{"all demands are taken or none", allTakenOrNone},
		{"accounts are equal only if all their names are", accountsApart},
		{"Force takes beyond the cap, and says so", forceTakes},
		{"Settle changes, and never below nothing", settles},
		{"another cap counts at once, and keeps what was used", anotherCap},
		{"Usage tells the sum and who used most", usage},
		{"Reset forgets one, or all", resets},
		{"the switch stops everybody until it is turned back", stops},
		{"the largest amounts are exact", largest},
		{"many at once never exceed the cap", neverExceeded},
		{"many at once take of all budgets or of none", concurrentAllTaken},
		{"a context that is over takes nothing", overTakesNothing},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(spenders{t, open(t)}) })
	}
}

// spenders ask a store, and fail the test if the answer is not the one expected.
type spenders struct {
	*testing.T
	store budget.Store
}

func rule(name string, limit budget.Amount) *budget.Rule {
	return &budget.Rule{Name: name, By: budget.ByVisitor, Per: budget.Month, Cap: limit}
}

func take(r *budget.Rule, who string, n budget.Amount) budget.Demand {
	return budget.Demand{Rule: r, Who: who, Take: n}
}

var one = budget.Amount{Requests: 1}

func (s spenders) reserve(demands ...budget.Demand) (bool, []budget.Result) {
	s.Helper()
	results := make([]budget.Result, len(demands))
	ok, err := s.store.Reserve(s.Context(), demands, results)
	if err != nil {
		s.Fatalf("the store could not count: %v", err)
	}
	all := true
	for i, r := range results {
		all = all && r.Lacks == 0
		if !r.Account.Span.Holds(time.Now()) || r.Account.Budget != demands[i].Rule.Name || r.Account.Per != demands[i].Rule.Per || r.Account.Who != demands[i].Who {
			s.Fatalf("result %d is %+v", i, r)
		}
	}
	if ok != all {
		s.Fatalf("the store says %v, its results %+v", ok, results)
	}
	return ok, results
}

func (s spenders) allow(demands ...budget.Demand) []budget.Result {
	s.Helper()
	ok, results := s.reserve(demands...)
	if !ok {
		s.Fatalf("refused: %+v", results)
	}
	return results
}

func (s spenders) deny(lacks budget.Unit, demands ...budget.Demand) []budget.Result {
	s.Helper()
	ok, results := s.reserve(demands...)
	if ok {
		s.Fatalf("not refused: %+v", results)
	}
	for _, r := range results {
		if r.Lacks == lacks {
			return results
		}
	}
	s.Fatalf("refused, but not for %v: %+v", lacks, results)
	return nil
}

func (s spenders) settle(at budget.Account, add budget.Amount) {
	s.Helper()
	if err := s.store.Settle(s.Context(), []budget.Change{{Account: at, Add: add}}); err != nil {
		s.Fatal(err)
	}
}

// uses says what all have used of a budget.
func (s spenders) uses(r *budget.Rule, want budget.Amount) budget.Usage {
	s.Helper()
	u, err := s.store.Usage(s.Context(), r, 20)
	if err != nil {
		s.Fatal(err)
	}
	if u.Used != want || !u.Span.Holds(time.Now()) {
		s.Fatalf("used %+v, want %+v", u, want)
	}
	return u
}

func amountOf(u budget.Unit, n int64) (a budget.Amount) {
	switch u {
	case budget.Requests:
		a.Requests = n
	case budget.Bytes:
		a.Bytes = n
	case budget.Tokens:
		a.Tokens = n
	case budget.Spend:
		a.Money = budget.Money(n)
	case budget.AtOnce:
	}
	return a
}

func capOfEachUnit(s spenders) {
	for _, u := range budget.Units() {
		r := rule(u.String(), amountOf(u, 10))
		s.allow(take(r, "a", amountOf(u, 4)))
		if got := s.allow(take(r, "a", amountOf(u, 4))); got[0].Used != amountOf(u, 8) {
			s.Errorf("used %+v", got[0].Used)
		}
		if got := s.deny(u, take(r, "a", amountOf(u, 3))); got[0].Used != amountOf(u, 8) {
			s.Errorf("after a refusal %+v is used", got[0].Used)
		}
		s.allow(take(r, "a", amountOf(u, 2)))
		s.deny(u, take(r, "a", amountOf(u, 1)))
		s.uses(r, amountOf(u, 10))
	}
}

func somethingLeft(s spenders) {
	for _, u := range []budget.Unit{budget.Bytes, budget.Tokens, budget.Spend} {
		r := rule(u.String(), amountOf(u, 10))
		s.allow(take(r, "a", one))
		s.allow(take(r, "a", amountOf(u, 10)))
		s.deny(u, take(r, "a", one))
		s.allow(take(r, "a", amountOf(budget.Requests, 0))) // no new request
	}
	last := rule("last", budget.Amount{Requests: 1, Tokens: 10})
	s.allow(take(last, "a", one))
	s.allow(take(last, "a", amountOf(budget.Tokens, 5))) // of the request that was the last
	s.deny(budget.Requests, take(last, "a", one))
}

func allTakenOrNone(s spenders) {
	wide, narrow := rule("wide", budget.Amount{Requests: 10}), rule("narrow", budget.Amount{Requests: 1})
	s.allow(take(wide, "a", one), take(narrow, "", one))
	for range 3 {
		s.deny(budget.Requests, take(wide, "b", one), take(narrow, "", one))
		s.deny(budget.Requests, take(narrow, "", one), take(wide, "b", one))
	}
	s.uses(wide, one)
	s.uses(narrow, one)
}

func accountsApart(s spenders) {
	for _, name := range []string{"x", "x:y", "X", "x y", "x{y}"} {
		for _, who := range []string{"a", "A", "203.0.113.7", "2001:db8::/64", "visitor=00ff", "principal=accounts|alice", `principal="{}`} {
			r := rule(name, budget.Amount{Requests: 1})
			s.allow(take(r, who, one))
			s.deny(budget.Requests, take(r, who, one))
		}
	}
	hourly := rule("x", budget.Amount{Requests: 1})
	hourly.Per = budget.Hour
	s.allow(take(hourly, "a", one))
}

func forceTakes(s spenders) {
	r := rule("x", budget.Amount{Requests: 1})
	forced := take(r, "a", one)
	forced.Force = true
	s.allow(forced)
	s.deny(budget.Requests, forced)
	if got := s.deny(budget.Requests, forced); got[0].Used.Requests != 3 {
		s.Errorf("used %+v", got[0].Used)
	}
	s.uses(r, budget.Amount{Requests: 3})
}

func settles(s spenders) {
	r := rule("x", budget.Amount{Tokens: 100, Money: 1000})
	at := s.allow(take(r, "a", budget.Amount{Tokens: 90, Money: 900}))[0].Account
	s.deny(budget.Tokens, take(r, "a", budget.Amount{Tokens: 20}))
	s.settle(at, budget.Amount{Tokens: -80, Money: -890})
	s.uses(r, budget.Amount{Tokens: 10, Money: 10})
	s.allow(take(r, "a", budget.Amount{Tokens: 90}))
	s.settle(at, budget.Amount{Tokens: 50}) // more than was reserved
	s.uses(r, budget.Amount{Tokens: 150, Money: 10})
	s.deny(budget.Tokens, take(r, "a", one))
	s.settle(at, budget.Amount{Tokens: -1000, Money: -5})
	s.uses(r, budget.Amount{Money: 5})
	gone := at
	gone.Span = budget.Span{Start: 0, End: 3600}
	s.settle(gone, budget.Amount{Tokens: 5})
	s.uses(r, budget.Amount{Money: 5})
}

func anotherCap(s spenders) {
	s.allow(take(rule("x", budget.Amount{Requests: 5}), "a", budget.Amount{Requests: 3}))
	s.deny(budget.Requests, take(rule("x", budget.Amount{Requests: 3}), "a", one))
	s.deny(budget.Requests, take(rule("x", budget.Amount{Requests: 2}), "a", one))
	s.allow(take(rule("x", budget.Amount{Requests: 4}), "a", one))
	s.allow(take(rule("x", budget.Amount{Tokens: 1}), "a", one)) // it was not capped for a while
	s.deny(budget.Requests, take(rule("x", budget.Amount{Requests: 5}), "a", one))
}

func usage(s spenders) {
	r := rule("x", budget.Amount{Money: 1000})
	for i, who := range []string{"c", "a", "d", "b"} {
		s.allow(take(r, who, budget.Amount{Requests: 1, Money: budget.Money(10 * (i + 1))}))
	}
	u := s.uses(r, budget.Amount{Requests: 4, Money: 100})
	if fmt.Sprint(u.Top) != "[{b {1 0 0 0.00000004}} {d {1 0 0 0.00000003}} {a {1 0 0 0.00000002}} {c {1 0 0 0.00000001}}]" || u.Accounts != 4 {
		s.Errorf("%+v", u)
	}
	if u, err := s.store.Usage(s.Context(), r, 2); err != nil || len(u.Top) != 2 || u.Top[0].Who != "b" || u.Used.Requests != 4 {
		s.Errorf("%+v, %v", u, err)
	}
	site := rule("site", budget.Amount{Requests: 10})
	site.By = budget.BySite
	s.uses(site, budget.Amount{})
	s.allow(take(site, "", one))
	s.uses(site, one)
}

func resets(s spenders) {
	r := rule("x", budget.Amount{Requests: 1})
	reset := func(who string, want bool) {
		s.Helper()
		if did, err := s.store.Reset(s.Context(), r, who); err != nil || did != want {
			s.Fatalf("Reset(%q) = %v, %v", who, did, err)
		}
	}
	reset("a", false)
	reset("", false)
	s.allow(take(r, "a", one))
	s.allow(take(r, "b", one))
	reset("nobody", false)
	reset("a", true)
	s.uses(r, one)
	s.allow(take(r, "a", one))
	s.deny(budget.Requests, take(r, "b", one))
	reset("", true)
	s.uses(r, budget.Amount{})
	s.allow(take(r, "a", one))
	s.allow(take(r, "b", one))
}

func stops(s spenders) {
	r := rule("x", budget.Amount{Requests: 10})
	stop := func(on bool) {
		s.Helper()
		if err := s.store.Stop(s.Context(), on); err != nil {
			s.Fatal(err)
		}
	}
	since := func() time.Time {
		s.Helper()
		at, err := s.store.Stopped(s.Context())
		if err != nil {
			s.Fatal(err)
		}
		return at
	}
	at := s.allow(take(r, "a", one))[0].Account
	if !since().IsZero() {
		s.Error("stopped from the start")
	}
	stop(false)
	stop(true)
	first := since()
	stop(true)
	if first.IsZero() || !since().Equal(first) {
		s.Errorf("stopped since %v, then %v", first, since())
	}
	_, err := s.store.Reserve(s.Context(), []budget.Demand{take(r, "a", one)}, make([]budget.Result, 1))
	if !errors.Is(err, budget.ErrStopped) {
		s.Errorf("got %v", err)
	}
	s.settle(at, one) // what is under way ends
	stop(false)
	if !since().IsZero() {
		s.Error("still stopped")
	}
	s.uses(r, budget.Amount{Requests: 2})
	s.allow(take(r, "a", one))
}

func largest(s spenders) {
	const most = budget.MaxAmount
	r := rule("x", budget.Amount{Requests: most, Bytes: most, Tokens: most, Money: most})
	all := budget.Amount{Requests: most - 1, Bytes: most - 1, Tokens: most - 1, Money: most - 1}
	s.allow(take(r, "a", all))
	s.deny(budget.Bytes, take(r, "a", budget.Amount{Requests: 1, Bytes: 2}))
	s.allow(take(r, "a", budget.Amount{Requests: 1, Bytes: 1, Tokens: 1, Money: 1}))
	s.uses(r, budget.Amount{Requests: most, Bytes: most, Tokens: most, Money: most})
}

// neverExceeded has many calls reserve, and settle less: at no moment more is used than the cap, and in
// the end exactly what was settled.
func neverExceeded(s spenders) {
	const limit, workers, calls = 10_000, 16, 60
	r := rule("x", budget.Amount{Money: limit})
	var settled, refused atomic.Int64
	var all sync.WaitGroup
	for w := range workers {
		all.Go(func() {
			random := rand.New(rand.NewPCG(uint64(w), 1)) //nolint:gosec // a test's schedule.
			for range calls {
				most := 1 + random.Int64N(400)
				results := make([]budget.Result, 1)
				ok, err := s.store.Reserve(s.Context(), []budget.Demand{take(r, "a", amountOf(budget.Spend, most))}, results)
				switch {
				case err != nil:
					s.Error(err)
					return
				case results[0].Used.Money > limit:
					s.Errorf("%v is used of %v", results[0].Used.Money, budget.Money(limit))
				case !ok:
					refused.Add(1)
					continue
				}
				took := random.Int64N(most + 1)
				settled.Add(took)
				if err := s.store.Settle(s.Context(), []budget.Change{{Account: results[0].Account, Add: amountOf(budget.Spend, took-most)}}); err != nil {
					s.Error(err)
				}
			}
		})
	}
	all.Wait()
	if n := settled.Load(); n > limit || n < limit/2 || refused.Load() == 0 {
		s.Errorf("%d settled of %d, %d refused: the cap was not tried", n, limit, refused.Load())
	}
	s.uses(r, amountOf(budget.Spend, settled.Load()))
}

func concurrentAllTaken(s spenders) {
	const limit, workers, calls = 200, 16, 40
	site, own := rule("site", budget.Amount{Requests: limit}), rule("own", budget.Amount{Requests: 20})
	var passed atomic.Int64
	var all sync.WaitGroup
	for w := range workers {
		all.Go(func() {
			for range calls {
				ok, err := s.store.Reserve(s.Context(), []budget.Demand{take(own, fmt.Sprint(w), one), take(site, "", one)}, make([]budget.Result, 2))
				if err != nil {
					s.Error(err)
					return
				}
				if ok {
					passed.Add(1)
				}
			}
		})
	}
	all.Wait()
	if passed.Load() != limit {
		s.Errorf("%d passed of %d", passed.Load(), limit)
	}
	s.uses(site, amountOf(budget.Requests, limit))
	s.uses(own, amountOf(budget.Requests, limit))
}

func overTakesNothing(s spenders) {
	r := rule("x", budget.Amount{Requests: 10})
	ctx, cancel := context.WithCancel(s.Context())
	cancel()
	passed := int64(0)
	for range 5 {
		if ok, err := s.store.Reserve(ctx, []budget.Demand{take(r, "a", one)}, make([]budget.Result, 1)); err == nil && ok {
			passed++ // it needed nobody
		}
	}
	// What a server was asked for and did not answer may be spent: never less.
	u, err := s.store.Usage(s.Context(), r, 1)
	if err != nil || u.Used.Requests < passed || u.Used.Requests > 5 {
		s.Errorf("%d passed, %+v, %v", passed, u, err)
	}
}
