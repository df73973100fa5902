package budget_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	_ "time/tzdata" // the zones below are to be known everywhere

	"github.com/moat-gateway/moat/guard"
	"github.com/moat-gateway/moat/guard/budget"
	"github.com/moat-gateway/moat/guard/identity"
	"github.com/moat-gateway/moat/guard/identity/assume"
	"github.com/moat-gateway/moat/store/ledger"
)

var home = netip.MustParseAddr("203.0.113.7")

func visitor(limit budget.Amount) budget.Rule {
	return budget.Rule{Name: "visitor", By: budget.ByVisitor, Per: budget.Month, Cap: limit}
}

func site(limit budget.Amount) budget.Rule {
	return budget.Rule{Name: "site", By: budget.BySite, Per: budget.Month, Cap: limit}
}

// till is a guard with its store.
type till struct {
	*testing.T
	g *budget.Guard
	s budget.Store
}

func open(t *testing.T, rules ...budget.Rule) till {
	t.Helper()
	s := ledger.New()
	g, err := budget.New(budget.Policy{Rules: rules}, s)
	if err != nil {
		t.Fatal(err)
	}
	return till{t, g, s}
}

func (t till) begin(f budget.Facts, want guard.Reason) *budget.Grant {
	t.Helper()
	gr, d := t.g.Decide(f)
	if d.Reason != want || d.Denied() != (want != guard.BudgetSettled) {
		t.Fatalf("%v, want %v: %+v", d.Reason, want, d.Evidence)
	}
	return gr
}

func (t till) used(r budget.Rule, want budget.Amount) {
	t.Helper()
	u, err := t.s.Usage(t.Context(), &r, 0)
	if err != nil || u.Used != want {
		t.Fatalf("%s: used %+v, want %+v (%v)", r.Name, u.Used, want, err)
	}
}

func from(addr string) budget.Facts { return budget.Facts{Client: netip.MustParseAddr(addr)} }

func TestReserveBeforeSettleAfter(t *testing.T) {
	own, all := visitor(budget.Amount{Tokens: 1000, Money: 100}), site(budget.Amount{Money: 150})
	l := open(t, own, all)
	gr := l.begin(from("203.0.113.7"), guard.BudgetSettled)
	if d := gr.Reserve(budget.Amount{Tokens: 500, Money: 80}); d.Denied() {
		t.Fatal(d)
	}
	gr.Sent()
	// While it is set aside nobody else gets it.
	other := l.begin(from("203.0.113.8"), guard.BudgetSettled)
	d := other.Reserve(budget.Amount{Tokens: 500, Money: 80})
	if d.Reason != guard.BudgetSpentTogether || other.Refused().Budget != "site" || other.Refused().Unit != budget.Spend {
		t.Fatalf("%+v %+v", d, other.Refused())
	}
	l.used(own, budget.Amount{Requests: 2, Tokens: 500, Money: 80})
	gr.Settle(budget.Amount{Tokens: 20, Money: 3})
	gr.Settle(budget.Amount{Tokens: 999, Money: 99}) // only the first counts
	gr.Release()
	gr.Release()
	other.Release()
	l.used(own, budget.Amount{Requests: 2, Tokens: 20, Money: 3})
	l.used(all, budget.Amount{Requests: 1, Tokens: 20, Money: 3}) // the other was not sent
}

func TestWhatIsNotSettledStaysSpentIfItWasSent(t *testing.T) {
	own := visitor(budget.Amount{Tokens: 1000})
	for _, c := range []struct {
		name string
		end  func(*budget.Grant)
		want int64
	}{
		{"sent, and never heard of again", func(gr *budget.Grant) { gr.Sent() }, 500},
		{"not sent", func(*budget.Grant) {}, 0},
		{"sent to nobody", func(gr *budget.Grant) { gr.Sent(); gr.Settle(budget.Amount{}) }, 0},
		{"took more than was reserved", func(gr *budget.Grant) { gr.Sent(); gr.Settle(budget.Amount{Tokens: 700}) }, 700},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := open(t, own)
			gr := l.begin(from("203.0.113.7"), guard.BudgetSettled)
			if d := gr.Reserve(budget.Amount{Tokens: 500}); d.Denied() {
				t.Fatal(d)
			}
			c.end(gr)
			gr.Release()
			l.used(own, budget.Amount{Requests: 1, Tokens: c.want})
		})
	}
	l := open(t, own)
	gr := l.begin(from("203.0.113.7"), guard.BudgetSettled)
	gr.Settle(budget.Amount{Tokens: 7}) // nothing was reserved for it
	gr.Release()
	l.used(own, budget.Amount{Requests: 1, Tokens: 7})
}

func TestWhoIsCountedByWhat(t *testing.T) {
	alice := assume.Principal(assume.Who{Source: "accounts", Subject: "alice"})
	odd := assume.Principal(assume.Who{Source: "accounts", Subject: "a b%~\x1b"})
	chain := [8]byte{1, 2, 3, 4, 5, 6, 7, 8}
	for _, c := range []struct {
		by   budget.By
		f    budget.Facts
		want string
	}{
		{budget.BySite, budget.Facts{Client: home}, ""},
		{budget.ByVisitor, budget.Facts{Client: home, Visitor: chain}, "visitor=0102030405060708"},
		{budget.ByVisitor, budget.Facts{Client: home}, "203.0.113.7"}, // nobody escapes by leaving the ticket out
		{budget.ByVisitor, budget.Facts{Client: netip.MustParseAddr("2001:db8:1:2:3::4")}, "2001:db8:1:2::/64"},
		{budget.ByAddress, budget.Facts{Client: home, Visitor: chain}, "203.0.113.7"},
		{budget.ByAddress, budget.Facts{Client: netip.MustParseAddr("::ffff:203.0.113.7")}, "203.0.113.7"},
		{budget.ByAddress, budget.Facts{Client: netip.MustParseAddr("2001:db8:1:2:3::4%eth0")}, "2001:db8:1:2::/64"},
		{budget.ByAddress, budget.Facts{}, "unknown"},
		{budget.ByNetwork, budget.Facts{Client: home}, "203.0.113.0/24"},
		{budget.ByNetwork, budget.Facts{Client: netip.MustParseAddr("2001:db8:1:2:3::4")}, "2001:db8:1::/48"},
		{budget.ByPrincipal, budget.Facts{Client: home, Caller: alice}, "principal=" + alice.ID()},
		{budget.ByPrincipal, budget.Facts{Client: home}, "203.0.113.7"},
		{budget.ByPrincipal, budget.Facts{Client: home, Caller: odd}, "principal=" + strings.ReplaceAll(odd.ID(), odd.Subject(), "a%20b%25%7E%1B")},
	} {
		r := budget.Rule{Name: "x", By: c.by, Per: budget.Day, Cap: budget.Amount{Requests: 5}}
		l := open(t, r)
		l.begin(c.f, guard.BudgetSettled).Sent()
		u, err := l.s.Usage(t.Context(), &r, 1)
		if err != nil || len(u.Top) != 1 || u.Top[0].Who != c.want {
			t.Errorf("%v of %+v: %+v, want %q", c.by, c.f, u.Top, c.want)
		}
	}
	long := assume.Principal(assume.Who{Source: "accounts", Subject: strings.Repeat("a", 5000)})
	r := budget.Rule{Name: "x", By: budget.ByPrincipal, Per: budget.Day, Cap: budget.Amount{Requests: 5}}
	l := open(t, r)
	l.begin(budget.Facts{Caller: long}, guard.BudgetSettled).Release()
	if u, _ := l.s.Usage(t.Context(), &r, 1); len(u.Top) != 1 || len(u.Top[0].Who) > 64 {
		t.Errorf("a long name is not bounded: %+v", u.Top)
	}
}

func TestReportCountsWhatItDoesNotRefuse(t *testing.T) {
	own := visitor(budget.Amount{Requests: 1, Tokens: 10})
	own.AtOnce = 1
	l := open(t, own)
	f := from("203.0.113.7")
	f.Report = true
	a := l.begin(f, guard.BudgetSettled)
	b, d := l.g.Decide(f)
	if !d.Denied() {
		t.Error("nothing to report")
	}
	if d = b.Reserve(budget.Amount{Tokens: 50}); d.Reason != guard.BudgetSpent {
		t.Errorf("%+v", d)
	}
	b.Sent()
	b.Settle(budget.Amount{Tokens: 40})
	a.Release()
	b.Release()
	l.used(own, budget.Amount{Requests: 2, Tokens: 40})
	f.Report = false
	c, d := l.g.Decide(f)
	if d.Reason != guard.BudgetSpent {
		t.Errorf("%+v: a place at once was not given back, or what was reported not counted", d)
	}
	c.Release()
}

func TestBytesCountAsTheyPass(t *testing.T) {
	own := visitor(budget.Amount{Bytes: 10})
	l := open(t, own)
	gr := l.begin(from("203.0.113.7"), guard.BudgetSettled)
	for range 2 {
		if _, err := io.Copy(io.Discard, gr.Count(io.NopCloser(strings.NewReader("123456789")))); err != nil {
			t.Fatal(err)
		}
	}
	gr.Release()
	l.used(own, budget.Amount{Requests: 1, Bytes: 18})
	l.begin(from("203.0.113.7"), guard.BudgetSpent).Release()

	free := open(t, site(budget.Amount{Requests: 5}))
	gr = free.begin(from("203.0.113.7"), guard.BudgetSettled)
	if body := io.NopCloser(strings.NewReader("")); gr.Count(body) != body {
		t.Error("counts what nobody asked about")
	}
	gr.Release()
}

func TestNilGrantHasNoBudgets(t *testing.T) {
	var gr *budget.Grant
	if d := gr.Reserve(budget.Amount{Money: 1}); d.Denied() {
		t.Error(d)
	}
	gr.Sent()
	gr.Settle(budget.Amount{Money: 1})
	gr.Passed(5)
	gr.Release()
	if gr.Refused() != nil || gr.Failed() != nil || gr.CountsBytes() {
		t.Error("it has something")
	}
}

// broken is a store whose disk, or server, has gone: a real Ledger that is closed.
type broken struct{ budget.Store }

func (broken) Reserve(context.Context, []budget.Demand, []budget.Result) (bool, error) {
	return false, errors.New("gone")
}

func TestStoreThatCannotCountRefuses(t *testing.T) {
	g, err := budget.New(budget.Policy{Rules: []budget.Rule{site(budget.Amount{Requests: 5})}}, broken{ledger.New()})
	if err != nil {
		t.Fatal(err)
	}
	gr, d := g.Decide(from("203.0.113.7"))
	if d.Reason != guard.BudgetUnavailable || gr.Failed() == nil {
		t.Errorf("%+v, %v", d, gr.Failed())
	}
	gr.Settle(budget.Amount{Money: 5})
	gr.Release()
}

// Whatever calls do, what they have been told they may take is never more than the cap, and what is used
// in the end is exactly what was settled, what was left to stand, and nothing of what was given back.
func TestCapsHoldUnderConcurrency(t *testing.T) {
	const limit, workers, calls = 5000, 16, 100
	own, all := visitor(budget.Amount{Money: limit / 4}), site(budget.Amount{Money: limit})
	l := open(t, own, all)
	var want, over atomic.Int64 // over is what was settled beyond what was reserved
	var together sync.WaitGroup
	for w := range workers {
		together.Go(func() {
			for i := range calls {
				gr, d := l.g.Decide(budget.Facts{Client: home, Visitor: [8]byte{1 + byte(w%8)}})
				if d.Denied() {
					gr.Release()
					continue
				}
				most := int64(1 + (w*31+i*7)%50)
				if gr.Reserve(budget.Amount{Money: budget.Money(most)}).Denied() {
					gr.Release()
					continue
				}
				switch (w + i) % 4 {
				case 0: // nothing was sent
				case 1:
					gr.Sent()
					want.Add(most)
				case 2:
					gr.Sent()
					gr.Settle(budget.Amount{Money: budget.Money(most / 3)})
					want.Add(most / 3)
				case 3:
					gr.Sent()
					gr.Settle(budget.Amount{Money: budget.Money(most + 1)})
					want.Add(most + 1)
					over.Add(1)
				}
				gr.Release()
			}
		})
	}
	together.Wait()
	u, err := l.s.Usage(t.Context(), &all, 0)
	if err != nil || int64(u.Used.Money) != want.Load() || want.Load() > limit+over.Load() || want.Load() < limit-100 {
		t.Errorf("used %d, settled %d of %d, %d of it beyond reservations; %v", int64(u.Used.Money), want.Load(), limit, over.Load(), err)
	}
}

func TestPeriodsMeetAndHoldTheirMoments(t *testing.T) {
	for _, name := range []string{"UTC", "Europe/Zurich", "America/Sao_Paulo", "Africa/Cairo", "Asia/Kathmandu", "Australia/Lord_Howe", "Pacific/Apia", "America/Havana"} {
		zone, err := time.LoadLocation(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, per := range []budget.Period{budget.Hour, budget.Day, budget.Month} {
			at := time.Date(2010, 1, 1, 0, 0, 0, 0, time.UTC)
			span := per.At(at, zone)
			for at.Year() < 2012 || per != budget.Hour && at.Year() < 2027 {
				next := per.At(time.Unix(span.End, 0), zone)
				last := per.At(time.Unix(span.End-1, 0), zone)
				if !span.Holds(at) || next.Start != span.End || last != span || span.Start >= span.End {
					t.Fatalf("%s per %s at %s: %+v, last %+v, next %+v", name, per, at.In(zone), span, last, next)
				}
				at, span = time.Unix(span.End, 0), next
			}
		}
	}
	zone, _ := time.LoadLocation("Europe/Zurich")
	if got := budget.Month.At(time.Date(2026, 11, 30, 23, 30, 0, 0, time.UTC), zone); got.Start != time.Date(2026, 11, 30, 23, 0, 0, 0, time.UTC).Unix() {
		t.Errorf("half past midnight in Zurich is in the new month: %+v", got)
	}
}

func TestMoneyIsExact(t *testing.T) {
	for text, want := range map[string]budget.Money{"0": 0, "50": 50e9, "0.05": 5e7, "0.000000001": 1, "1.10": 11e8, "4503599.627370496": budget.MaxAmount} {
		if got, err := budget.ParseMoney(text); err != nil || got != want {
			t.Errorf("%s: %v, %v", text, int64(got), err)
		}
	}
	for _, text := range []string{"", ".5", "5.", "-1", "+1", "1e3", "1,5", "0x1", "1_0", "0.0000000001", "4503599.627370497", "99999999999999999999", "NaN", "1.2.3", " 1", "١"} {
		if got, err := budget.ParseMoney(text); err == nil {
			t.Errorf("%q: %v", text, got)
		}
	}
	b, err := json.Marshal(budget.Amount{Requests: 2, Money: -1_500_000_000})
	if err != nil || string(b) != `{"requests":2,"spend":-1.5}` {
		t.Errorf("%s, %v", b, err)
	}
}

func FuzzParseMoney(f *testing.F) {
	for _, s := range []string{"0.05", "50", "0.000000001", "4503599.627370496", "1e3", "-0"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		m, err := budget.ParseMoney(s)
		if err != nil {
			return
		}
		again, err := budget.ParseMoney(m.String())
		if err != nil || again != m || m < 0 || m > budget.MaxAmount {
			t.Errorf("%q is %d, written %q, read %d (%v)", s, int64(m), m, int64(again), err)
		}
		var back budget.Money
		if b, err := json.Marshal(m); err != nil || json.Unmarshal(b, &back) != nil || back != m {
			t.Errorf("%q in JSON: %s (%v)", s, b, err)
		}
	})
}

func TestRulesThatAreRefused(t *testing.T) {
	good := site(budget.Amount{Requests: 1})
	for want, change := range map[string]func(*budget.Rule){
		"no name":                           func(r *budget.Rule) { r.Name = "" },
		"by:":                               func(r *budget.Rule) { r.By = 0 },
		"per:":                              func(r *budget.Rule) { r.Per = 0 },
		"caps nothing":                      func(r *budget.Rule) { r.Cap = budget.Amount{} },
		"tokens: -1":                        func(r *budget.Rule) { r.Cap.Tokens = -1 },
		"spend: 4503599627370497":           func(r *budget.Rule) { r.Cap.Money = budget.MaxAmount + 1 },
		"at_once: -1":                       func(r *budget.Rule) { r.AtOnce = -1 },
		"site's budget is nobody's to know": func(r *budget.Rule) { r.TellLeft = true },
	} {
		r := good
		change(&r)
		if _, err := budget.New(budget.Policy{Rules: []budget.Rule{r}}, ledger.New()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	if _, err := budget.New(budget.Policy{Rules: []budget.Rule{good, good}}, ledger.New()); err == nil {
		t.Error("two of one name")
	}
}

func BenchmarkCall(b *testing.B) {
	s := ledger.New()
	g, err := budget.New(budget.Policy{Rules: []budget.Rule{visitor(budget.Amount{Requests: 1 << 40, Money: 1 << 50}), site(budget.Amount{Money: 1 << 50})}}, s)
	if err != nil {
		b.Fatal(err)
	}
	f := budget.Facts{Client: home, Visitor: [8]byte{1}, Caller: (*identity.Principal)(nil)}
	b.Run("request", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			gr, _ := g.Decide(f)
			gr.Sent()
			gr.Release()
		}
	})
	b.Run("reserve and settle", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			gr, _ := g.Decide(f)
			gr.Reserve(budget.Amount{Money: 1000})
			gr.Sent()
			gr.Settle(budget.Amount{Money: 1})
			gr.Release()
		}
	})
}
