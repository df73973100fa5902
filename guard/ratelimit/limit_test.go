package ratelimit

import (
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

func TestParseLimit(t *testing.T) {
	for text, want := range map[string]Limit{
		"60/m":             {60, time.Minute, 0},
		"60/m burst 20":    {60, time.Minute, 20},
		"60/m, burst 20":   {60, time.Minute, 20},
		" 5 / 10s burst 1": {5, 10 * time.Second, 1},
		"1000/d":           {1000, 24 * time.Hour, 0},
		"1/h":              {1, time.Hour, 0},
		"1000000/s":        {1_000_000, time.Second, 0},
	} {
		got, err := ParseLimit(text)
		if err != nil || got != want {
			t.Errorf("%q: %+v, %v", text, got, err)
		}
		if back, err := ParseLimit(got.String()); err != nil || back.interval() != got.interval() || back.burst() != got.burst() {
			t.Errorf("%q: written as %q, which is %+v, %v", text, got, back, err)
		}
	}
}

func TestParseLimitSaysWhatToWrite(t *testing.T) {
	for text, want := range map[string]string{
		"":                          `such as "60/m"`,
		"sixty a minute":            `such as "60/m"`,
		"60":                        `such as "60/m"`,
		"60/m burst":                `such as "60/m"`,
		"-1/m":                      `such as "60/m"`,
		"1e3/m":                     `such as "60/m"`,
		"60/m\nburst 20; rm":        `such as "60/m"`,
		"60 per minute":             `did you mean "60/m"?`,
		"60 requests per 5 minutes": `did you mean "60/5m"?`,
		"5/sec burst 9":             `did you mean "5/s burst 9"?`,
		"100 an hour":               `did you mean "100/h"?`,
		"60 R/Min":                  `did you mean "60/m"?`,
		"0/m":                       "at least 1",
		"60/0m":                     "time must be",
		"60/m burst 0":              "write burst 1",
		"1000001/s":                 "faster than 1000000",
		"1/d burst 32":              "32 days",
		"99999/99999d":              "99999 days",
		"99999999999999999999/m":    `such as "60/m"`,
	} {
		if got, err := ParseLimit(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %+v, %v; want %q", text, got, err, want)
		}
	}
}

// The longest limit is one: what is rounded up beyond it is no fault of the operator's.
func TestLongestLimits(t *testing.T) {
	for _, text := range []string{"1/31d", "7/31d", "31/31d", "1000/31d burst 1000", "1/d burst 31"} {
		if _, err := ParseLimit(text); err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func FuzzParseLimit(f *testing.F) {
	for _, s := range []string{"60/m burst 20", "5/10s", "1/31d", "1000000/s", "60 per minute", "999999999/99999d burst 999999999"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		l, err := ParseLimit(s)
		if err != nil {
			return
		}
		back, err := ParseLimit(l.String())
		if err != nil || back.interval() != l.interval() || back.burst() != l.burst() {
			t.Errorf("%q is %+v, written %q, read as %+v: %v", s, l, l, back, err)
		}
		if _, r := l.Take(0, 1, 1); !r.Allowed || !r.New || r.Remaining != int(l.burst())-1 {
			t.Errorf("%q: the first request: %+v", s, r)
		}
	})
}

// holds checks what Take promises about any single step.
func holds(t *testing.T, l Limit, tat, now int64, cost int) {
	t.Helper()
	full := l.interval() * l.burst()
	next, r := l.Take(tat, now, cost)
	debt := min(max(tat-now, 0), full)
	switch {
	case next < now, next > now+full:
		t.Errorf("%v: TAT %d at %d is out of bounds", l, next, now)
	case r.New != (debt == 0):
		t.Errorf("%v: a debt of %d, New %v", l, debt, r.New)
	case r.Remaining < 0, int64(r.Remaining) > l.burst(), r.Reset != time.Duration(next-now)*time.Microsecond:
		t.Errorf("%v: %+v", l, r)
	case r.Allowed && (next-now != debt+l.interval()*int64(max(cost, 0)) || r.Retry != 0):
		t.Errorf("%v: allowed at a debt of %d and a cost of %d: %d later, %+v", l, debt, cost, next-now, r)
	case !r.Allowed && next != now+debt:
		t.Errorf("%v: refused, and not free: %d, was %d", l, next-now, debt)
	case !r.Allowed && !l.Admits(cost) && r.Retry != NeverAllowed:
		t.Errorf("%v: a cost of %d is said to be allowed in %v", l, cost, r.Retry)
	}
	if !r.Allowed && l.Admits(cost) {
		wait := int64(r.Retry / time.Microsecond)
		if _, then := l.Take(next, now+wait, cost); !then.Allowed {
			t.Errorf("%v: refused after Retry", l)
		}
		if _, before := l.Take(next, now+wait-1, cost); before.Allowed {
			t.Errorf("%v: allowed before Retry", l)
		}
	}
	if charged, r := l.Charge(tat, now, cost); !r.Allowed || charged < next || charged > now+full {
		t.Errorf("%v: charged to %d, %+v", l, charged-now, r)
	}
}

func FuzzTake(f *testing.F) {
	f.Add(60, int64(time.Minute), 20, int64(0), int64(1), 1)
	f.Add(1, int64(31*24*time.Hour), 1, int64(math.MaxInt64/4), int64(5), 4_000_000)
	f.Add(1_000_000, int64(time.Second), 900_000_000, int64(-5), int64(1<<41), 1<<30)
	f.Fuzz(func(t *testing.T, count int, per int64, burst int, tat, now int64, cost int) {
		l := Limit{count, time.Duration(per), burst}
		if l.Check() != nil || now < 0 || now > 1<<60 || tat > 1<<61 || tat < -1<<61 {
			return
		}
		holds(t, l, tat, now, cost)
	})
}

// In any span of time no more is admitted than the burst and what the rate gives in it, and
// nothing is refused that there was room for: held against a bucket that leaks, and against
// the sum over every window, on random schedules.
func TestTakeAgainstAnExactModel(t *testing.T) {
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 1))
	limits := []string{"60/m burst 20", "5/s burst 1", "7/s", "3000/s burst 10", "1/m burst 1", "100/h burst 3", "1/d burst 2", "250000/s burst 40"}
	for range 400 {
		l, err := ParseLimit(limits[r.IntN(len(limits))])
		if err != nil {
			t.Fatal(err)
		}
		interval, full := l.interval(), l.interval()*l.burst()
		type admitted struct{ at, cost int64 }
		var (
			all      []admitted
			tat, now int64
			level    int64 // of the model: what has not leaked out yet
		)
		for range 200 {
			step := r.Int64N(2*interval + 1)
			switch r.IntN(8) {
			case 0:
				step = r.Int64N(3*full + 1)
			case 1, 2, 3:
				step = 0
			}
			now += step
			level = max(level-step, 0)
			cost := int64(1 + r.IntN(int(min(l.burst(), 4))))
			if r.IntN(20) == 0 {
				cost = 0
			}
			var got Result
			tat, got = l.Take(tat, now, int(cost))
			want := level+cost*interval <= full
			if want {
				level += cost * interval
				all = append(all, admitted{now, cost})
			}
			if got.Allowed != want || int64(got.Remaining) != (full-level)/interval {
				t.Fatalf("seed %d: %v: at %d a cost of %d: %+v, want %v with %d left", seed, l, now, cost, got, want, (full-level)/interval)
			}
		}
		per := int64(l.Per / time.Microsecond)
		for i := range all {
			var sum int64
			for j := i; j < len(all); j++ {
				sum += all[j].cost
				span := all[j].at - all[i].at
				if most := l.burst() + span/interval; sum > most {
					t.Fatalf("seed %d: %v: %d admitted in %d µs, at most %d", seed, l, sum, span, most)
				}
				if span <= per && sum > l.burst()+int64(l.Count) {
					t.Fatalf("seed %d: %v: %d admitted in %v", seed, l, sum, l.Per)
				}
			}
		}
	}
}

// A clock that is set back, or a limit that is narrowed, refuses for no longer than the
// limit takes to forget a burst.
func TestClockThatJumps(t *testing.T) {
	l := Limit{60, time.Minute, 20}
	full := l.interval() * l.burst()
	tat, _ := l.Charge(0, 1<<50, 20)
	for _, now := range []int64{5, 1 << 40, 1<<50 - 1} { // set back
		next, r := l.Take(tat, now, 1)
		if r.Allowed || r.Retry > time.Duration(full)*time.Microsecond || next > now+full {
			t.Errorf("at %d: %+v", now, r)
		}
		if _, r = l.Take(next, now+full, 20); !r.Allowed {
			t.Errorf("at %d: a burst later: %+v", now, r)
		}
	}
	if _, r := l.Take(tat, 1<<55, 20); !r.Allowed { // set forward
		t.Errorf("%+v", r)
	}
}

func TestZeroLimitAdmitsNothing(t *testing.T) {
	var l Limit
	if _, r := l.Take(0, 1, 1); r.Allowed || r.Retry != NeverAllowed {
		t.Errorf("%+v", r)
	}
	if l.Check() == nil {
		t.Error("the zero Limit passes for one")
	}
}

func TestTimesAndShare(t *testing.T) {
	l := Limit{60, time.Minute, 20}
	if got := l.Times(16); got != (Limit{960, time.Minute, 320}) {
		t.Errorf("%+v", got)
	}
	if got := l.Share(4); got != (Limit{60, 4 * time.Minute, 5}) {
		t.Errorf("%+v", got)
	}
	if got := (Limit{60, time.Minute, 2}).Share(4); got.Burst != 1 {
		t.Errorf("%+v", got)
	}
}
