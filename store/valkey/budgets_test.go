package valkey_test

import (
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/moat-gateway/moat/guard/budget"
	"github.com/moat-gateway/moat/store/valkey"
	"github.com/moat-gateway/moat/store/valkey/valkeytest"
)

func siteBudget(limit budget.Amount) *budget.Rule {
	return &budget.Rule{Name: "site", By: budget.BySite, Per: budget.Month, Cap: limit}
}

func reserve(t *testing.T, s budget.Store, r *budget.Rule, who string, n budget.Amount) (budget.Result, bool, error) {
	t.Helper()
	results := make([]budget.Result, 1)
	ok, err := s.Reserve(t.Context(), []budget.Demand{{Rule: r, Who: who, Take: n}}, results)
	return results[0], ok, err
}

var oneRequest = budget.Amount{Requests: 1}

// Two processes have one cap, and one switch.
func TestBudgetsAreShared(t *testing.T) {
	server := valkeytest.Start(t)
	cfg := patient(valkey.Config{Addresses: []string{server.Addr}})
	a, b := open(t, cfg).Budgets(), open(t, cfg).Budgets()
	r := siteBudget(budget.Amount{Requests: 200})
	var passed atomic.Int64
	var all sync.WaitGroup
	for _, s := range []budget.Store{a, b, a, b, a, b} {
		all.Go(func() {
			for range 50 {
				if _, ok, err := reserve(t, s, r, "", oneRequest); err != nil {
					t.Error(err)
				} else if ok {
					passed.Add(1)
				}
			}
		})
	}
	all.Wait()
	if passed.Load() != 200 {
		t.Errorf("%d passed of 200", passed.Load())
	}
	// Stopped by one, the other's very next call is refused.
	if err := a.Stop(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	if _, _, err := reserve(t, b, r, "", oneRequest); !errors.Is(err, budget.ErrStopped) {
		t.Errorf("got %v", err)
	}
	if err := b.Stop(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	if _, _, err := reserve(t, a, r, "", oneRequest); err != nil {
		t.Errorf("got %v", err)
	}
}

// Whoever cannot count does not spend, until the server is there again and says what it said before.
func TestBudgetsFailClosed(t *testing.T) {
	server := valkeytest.Start(t, "--appendonly", "yes", "--appendfsync", "always")
	store := open(t, patient(valkey.Config{Addresses: []string{server.Addr}}))
	s, r := store.Budgets(), siteBudget(budget.Amount{Money: 100})
	res, ok, err := reserve(t, s, r, "", budget.Amount{Requests: 1, Money: 60})
	if err != nil || !ok {
		t.Fatal(ok, err)
	}
	server.Kill()
	for range 20 {
		if _, ok, err := reserve(t, s, r, "", budget.Amount{Requests: 1, Money: 1}); ok || !errors.Is(err, valkey.ErrUnavailable) {
			t.Fatalf("without a server: %v, %v", ok, err)
		}
	}
	if err := s.Settle(t.Context(), []budget.Change{{Account: res.Account, Add: budget.Amount{Money: -60}}}); !errors.Is(err, valkey.ErrUnavailable) {
		t.Errorf("got %v", err)
	}
	server.Restart()
	eventually(t, "the store is up", func() bool { return store.Answering() })
	if u, err := s.Usage(t.Context(), r, 1); err != nil || u.Used != (budget.Amount{Requests: 1, Money: 60}) {
		t.Errorf("what was not settled is not spent: %+v, %v", u, err)
	}
	if _, ok, err := reserve(t, s, r, "", budget.Amount{Money: 41}); ok || err != nil {
		t.Errorf("%v, %v", ok, err)
	}
}

// The server is killed again and again while many spend: what they knew to be spent is, and never more than the cap.
func TestBudgetsOfAServerThatIsKilled(t *testing.T) {
	thorough(t)
	server := valkeytest.Start(t, "--appendonly", "yes", "--appendfsync", "always")
	store := open(t, valkey.Config{Addresses: []string{server.Addr}, Timeout: 200 * time.Millisecond})
	s, r := store.Budgets(), siteBudget(budget.Amount{Requests: 3000})
	var known atomic.Int64
	var over atomic.Bool
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for !over.Load() {
				if _, ok, err := reserve(t, s, r, "", oneRequest); err == nil && ok {
					known.Add(1)
				}
			}
		})
	}
	for i := range 3 {
		before := known.Load()
		eventually(t, "calls pass", func() bool { return known.Load() > before+100 || known.Load() == 3000 })
		server.Kill()
		server.Restart()
		eventually(t, fmt.Sprint("the store is up after kill ", i), store.Answering)
	}
	over.Store(true)
	all.Wait()
	var u budget.Usage
	eventually(t, "the server answers in time", func() bool {
		var err error
		u, err = s.Usage(t.Context(), r, 1)
		return err == nil
	})
	if u.Used.Requests < known.Load() || u.Used.Requests > 3000 {
		t.Errorf("%d passed, and the server says %+v", known.Load(), u)
	}
}

// accountsOf is the name of the hash that an account is in, as operators find it.
func accountsOf(a budget.Account) string {
	return fmt.Sprintf("moat:{budgets}:%s:%d:%s", a.Per, a.Span.Start, a.Budget)
}

func TestBudgetsAreForgottenAfterTheirPeriod(t *testing.T) {
	server := valkeytest.Start(t)
	s := open(t, patient(valkey.Config{Addresses: []string{server.Addr}})).Budgets()
	r := siteBudget(budget.Amount{Requests: 10})
	r.By = budget.ByVisitor
	res, _, err := reserve(t, s, r, "visitor=00", oneRequest)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Settle(t.Context(), []budget.Change{{Account: res.Account, Add: oneRequest}}); err != nil {
		t.Fatal(err)
	}
	accounts := accountsOf(res.Account)
	for _, name := range []string{accounts, accounts + ":top"} {
		if at, err := strconv.ParseInt(server.MustDo("EXPIRETIME", name), 10, 64); err != nil || at != res.Account.Span.End+3600 {
			t.Errorf("%s expires at %d, and its period ends at %d", name, at, res.Account.Span.End)
		}
	}
}

func TestNewcomersShareABudgetWhenThereAreTooMany(t *testing.T) {
	server := valkeytest.Start(t)
	s := open(t, patient(valkey.Config{Addresses: []string{server.Addr}})).Budgets()
	r := &budget.Rule{Name: "x", By: budget.ByVisitor, Per: budget.Month, Cap: budget.Amount{Requests: 2}}
	first, _, err := reserve(t, s, r, "a", oneRequest)
	if err != nil {
		t.Fatal(err)
	}
	server.MustDo("EVAL", "for i = 2, tonumber(ARGV[1]) do redis.call('HSET', KEYS[1], 'v' .. i, '1 0 0 0') end return 1", "1", accountsOf(first.Account), strconv.Itoa(budget.MaxAccounts))
	for i, want := range []bool{true, true, false} {
		res, ok, err := reserve(t, s, r, fmt.Sprint("new", i), oneRequest)
		if err != nil || ok != want || res.Account.Who != budget.Others {
			t.Errorf("newcomer %d: %v %v %+v", i, ok, err, res)
		}
	}
	if res, ok, err := reserve(t, s, r, "a", oneRequest); err != nil || !ok || res.Account.Who != "a" {
		t.Errorf("who was there before has lost its own: %v %v %+v", ok, err, res)
	}
}

func BenchmarkBudgets(b *testing.B) {
	server := valkeytest.Start(b)
	store, err := valkey.Open(b.Context(), patient(valkey.Config{Addresses: []string{server.Addr}}))
	if err != nil {
		b.Fatal(err)
	}
	defer store.Close()
	s := store.Budgets()
	site := siteBudget(budget.Amount{Money: 1 << 50})
	own := &budget.Rule{Name: "own", By: budget.ByVisitor, Per: budget.Day, Cap: budget.Amount{Requests: 1 << 40, Money: 1 << 50}}
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		demands := []budget.Demand{{Rule: own, Who: "visitor=1f0c9a2b77e4d310", Take: budget.Amount{Requests: 1, Money: 1000}}, {Rule: site, Take: budget.Amount{Requests: 1, Money: 1000}}}
		results, changes := make([]budget.Result, 2), make([]budget.Change, 2)
		for pb.Next() {
			if ok, err := s.Reserve(b.Context(), demands, results); err != nil || !ok {
				b.Error(ok, err)
				return
			}
			for i := range results {
				changes[i] = budget.Change{Account: results[i].Account, Add: budget.Amount{Money: -900}}
			}
			if err := s.Settle(b.Context(), changes); err != nil {
				b.Error(err)
				return
			}
		}
	})
}
