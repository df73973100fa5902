package valkey

import (
	"fmt"
	"testing"
	"time"

	"github.com/moat-gateway/moat/guard/ratelimit"
)

// Times in these tests are microseconds of a clock of their own.
const second = int64(time.Second / time.Microsecond)

func leasing(name string, lease int) *ratelimit.Demand {
	return &ratelimit.Demand{Key: ratelimit.Key{Limit: name}, Limit: ratelimit.Limit{Count: 60, Per: time.Minute, Burst: 30}, Cost: 1, Lease: lease}
}

// lend gives a key a lease as if the server had been asked.
func lend(t *testing.T, l *ledger, d *ratelimit.Demand, now int64) {
	t.Helper()
	more := l.ask(d, now)
	if more != d.Lease-d.Cost {
		t.Fatalf("asks for %d, want %d", more, d.Lease-d.Cost)
	}
	l.grant(d, more, int64(d.Lease)*second, now, l.version())
}

func spendable(l *ledger, d *ratelimit.Demand, now int64) (n int) {
	for {
		if _, ok := l.spend(d, now, true); !ok {
			return n
		}
		n++
	}
}

func TestALeaseIsSpentOnce(t *testing.T) {
	l, d := newLedger(), leasing("a", 10)
	lend(t, l, d, 0)
	for range 3 {
		if _, ok := l.spend(d, second, false); !ok {
			t.Error("to look is refused")
		}
	}
	if n := spendable(l, d, second); n != 9 {
		t.Errorf("admitted %d, want 9", n)
	}
	l.unspend(d)
	if n := spendable(l, d, second); n != 1 {
		t.Errorf("admitted %d of 1 that was given back", n)
	}
	other := leasing("a", 10)
	other.Limit.Count++
	lend(t, l, d, second)
	if n := spendable(l, other, second); n != 0 {
		t.Errorf("another limit admitted %d from the lease", n)
	}
}

func TestALeaseIsLostWhenTheLimitHasForgottenIt(t *testing.T) {
	for _, c := range []struct {
		limit ratelimit.Limit
		lasts int64
	}{
		{ratelimit.Limit{Count: 60, Per: time.Minute, Burst: 30}, 30 * second},
		{ratelimit.Limit{Count: 1000, Per: time.Second, Burst: 100}, second},
		{ratelimit.Limit{Count: 1, Per: time.Hour, Burst: 20}, 60 * second},
	} {
		l, d := newLedger(), leasing("a", 10)
		d.Limit = c.limit
		lend(t, l, d, 0)
		if _, ok := l.spend(d, c.lasts-1, false); !ok {
			t.Errorf("%s: lost too early", c.limit)
		}
		if _, ok := l.spend(d, c.lasts, false); ok {
			t.Errorf("%s: not lost", c.limit)
		}
		// What was lost does not come back with the next lease.
		lend(t, l, d, c.lasts)
		if n := spendable(l, d, c.lasts); n != 9 {
			t.Errorf("%s: admitted %d, want 9", c.limit, n)
		}
	}
}

// However many ask at once, a process never holds more than one lease of a key.
func TestOnlyOneAtATimeBringsALease(t *testing.T) {
	l, d := newLedger(), leasing("a", 10)
	if more := l.ask(d, 0); more != 9 {
		t.Fatalf("asks for %d", more)
	}
	if more := l.ask(d, 0); more != 0 {
		t.Errorf("a second one asks for %d", more)
	}
	l.grant(d, 5, 0, 0, l.version())
	dear := *d
	dear.Cost = 6
	if more := l.ask(&dear, 0); more != 0 { // 10 - 6 - 5
		t.Errorf("with 5 left, one that costs 6 asks for %d more", more)
	}
	dear.Cost = 7
	dear.Lease = 20
	if more := l.ask(&dear, 0); more != 8 { // 20 - 7 - 5
		t.Errorf("with 5 left, one that costs 7 asks for %d more", more)
	}
}

func TestAnAnswerFromBeforeAResetIsNotBelieved(t *testing.T) {
	l, d := newLedger(), leasing("a", 10)
	as := l.version()
	more := l.ask(d, 0)
	l.forget(d.Key)
	l.grant(d, more, 10*second, 0, as)
	l.remember(d, 30*second, 0, as)
	if n := spendable(l, d, 0); n != 0 {
		t.Errorf("admitted %d", n)
	}
	if r, known := l.foresee(d, 0); known {
		t.Errorf("foresees %+v", r)
	}
	l.remember(d, 30*second, 0, l.version())
	as = l.version()
	l.doubt(d.Key)
	l.update(d, 30*second, 0, as)
	if r, known := l.foresee(d, 0); known {
		t.Errorf("foresees %+v of a key that was given something back", r)
	}
}

func TestARefusalIsKnownNoLongerThanTheServerSaid(t *testing.T) {
	l, d := newLedger(), leasing("a", 0)
	l.remember(d, 30*second, 0, l.version()) // full: room for one in a second
	for _, now := range []int64{0, second / 2, second - 1} {
		r, known := l.foresee(d, now)
		if want := time.Duration(second-now) * time.Microsecond; !known || r.Allowed || r.Retry != want {
			t.Errorf("at %d: %+v, %v; want Retry %s", now, r, known, want)
		}
	}
	if r, _ := l.foresee(d, second); !r.Allowed {
		t.Errorf("%+v", r)
	}
	// One that costs more has to wait for longer.
	dear := *d
	dear.Cost = 4
	if r, known := l.foresee(&dear, second); !known || r.Retry != 3*time.Second {
		t.Errorf("%+v, %v", r, known)
	}
	if _, known := l.foresee(&dear, believed+1); known {
		t.Error("known for longer than others' Resets may take to be seen")
	}
	// Answers that overtake each other do not make debts smaller.
	l.remember(d, 30*second, 5*second, l.version())
	l.remember(d, 20*second, 4*second, l.version())
	if r, _ := l.foresee(d, 5*second); r.Allowed {
		t.Errorf("%+v", r)
	}
}

// A flood of other keys takes no room away from those that have a lease, and no more
// memory than there is.
func TestAFloodTakesNoLeases(t *testing.T) {
	l := newLedger()
	var had []*ratelimit.Demand
	for i := range 1000 {
		d := leasing(fmt.Sprint("regular ", i), 10)
		lend(t, l, d, 0)
		had = append(had, d)
	}
	for i := range 4 * shards * shardKeys {
		d := leasing(fmt.Sprint("stranger ", i), 10)
		if i%2 == 0 {
			l.grant(d, l.ask(d, 0), 10*second, 0, l.version())
		} else {
			l.remember(d, 30*second, 0, l.version())
		}
	}
	if n := l.size(); n > shards*shardKeys {
		t.Errorf("%d keys are known", n)
	}
	for _, d := range had {
		if n := spendable(l, d, second); n != 9 {
			t.Fatalf("%s: admitted %d, want 9", d.Key.Limit, n)
		}
	}
	// When the strangers' leases are lost there is room for others.
	late := 31 * second
	got := 0
	for i := range 1000 {
		d := leasing(fmt.Sprint("later ", i), 10)
		if more := l.ask(d, late); more > 0 {
			l.grant(d, more, 10*second, late, l.version())
			got++
		}
	}
	if got < 900 {
		t.Errorf("%d of 1000 got a lease", got)
	}
}

func TestShapesAreThoseOfTheLimits(t *testing.T) {
	for _, c := range []struct {
		limit          string
		full, interval int64
	}{
		{"60/m", 60 * second, second},
		{"60/m burst 20", 20 * second, second},
		{"7/s burst 1", 142858, 142858},
		{"1000000/s burst 1", 1, 1},
		{"1/31d", 31 * 86400 * second, 31 * 86400 * second},
	} {
		l, err := ratelimit.ParseLimit(c.limit)
		if err != nil {
			t.Fatal(err)
		}
		if full, interval := shape(l); full != c.full || interval != c.interval {
			t.Errorf("%s: %d, %d; want %d, %d", c.limit, full, interval, c.full, c.interval)
		}
	}
}

func TestWhenAServerDecidedIsNeverToldTooLate(t *testing.T) {
	var o offset
	const ahead = 1_800_000_000 * second // the server's clock
	// The server decides at some time between the question and the answer.
	for _, c := range []struct{ asked, decided, answered, want int64 }{
		{1000, 1500, 9000, 1000},
		{10_000, 10_100, 10_200, 10_000},
		{20_000, 25_000, 30_000, 24_900}, // as good as the quickest so far
		{30_000, 30_010, 30_020, 30_000},
		{40_000, 45_000, 50_000, 44_990},
		{offsetWindow + 1000, offsetWindow + 3000, offsetWindow + 4000, offsetWindow + 2990},
		{3*offsetWindow + 1000, 3*offsetWindow + 3000, 3*offsetWindow + 4000, 3*offsetWindow + 1000},
	} {
		if at := o.locate(ahead+c.decided, c.asked, c.answered); at != c.want {
			t.Errorf("%+v: %d", c, at)
		}
	}
	// A clock that was set back is believed at once, one that was set forward not beyond
	// the answer.
	now := 3*offsetWindow + 10_000
	if at := o.locate(ahead-3600*second+now+100, now, now+200); at != now {
		t.Errorf("set back: %d", at-now)
	}
	if at := o.locate(ahead+now+100, now, now+200); at != now+200 {
		t.Errorf("set forward: %d", at-now)
	}
}
