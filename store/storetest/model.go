package storetest

import (
	"context"
	"maps"
	"time"

	"github.com/moat-gateway/moat/guard/ratelimit"
)

// model knows between which bounds a key's TAT lies, from when calls began and ended, and
// fails the test if a store's answer lies outside of what they allow. It is written from
// the definition of GCRA, and shares no code with Limit.Take.
type model struct {
	client
	start time.Time
	tats  map[ratelimit.Key]span
}

// span is two times since the model's start: no sooner, and no later.
type span struct{ lo, hi time.Duration }

func newModel(c client) *model {
	return &model{c, time.Now(), make(map[ratelimit.Key]span)}
}

func (m *model) now() time.Duration { return time.Since(m.start) }

// slack is how far the store's clock may have moved away from ours since the start, and
// what it may round.
func (m *model) slack() time.Duration { return slackAfter(m.now()) }

func slackAfter(d time.Duration) time.Duration { return 2*time.Millisecond + d/1000 }

// verdict is what the model says of a demand.
type verdict struct {
	mayAllow, mayDeny  bool
	interval, full     time.Duration
	before, after, was span // the TAT for the request, with its cost, and as it was stored
}

// see judges a demand that was decided at some time within when.
func (m *model) see(d ratelimit.Demand, tat, when span) verdict {
	burst := d.Limit.Burst
	if burst == 0 {
		burst = d.Limit.Count
	}
	// Whole microseconds, rounded up.
	interval := time.Duration(d.Limit.Per.Microseconds()+int64(d.Limit.Count)-1) / time.Duration(d.Limit.Count) * time.Microsecond
	v := verdict{interval: interval, full: interval * time.Duration(burst), was: tat}
	cost := interval * time.Duration(d.Cost)
	clamp := func(tat, now time.Duration) time.Duration { return min(max(tat, now), now+v.full) }
	v.before = span{clamp(tat.lo, when.lo), clamp(tat.hi, when.hi)}
	v.after = span{min(v.before.lo+cost, when.lo+v.full), min(v.before.hi+cost, when.hi+v.full)}
	least := clamp(tat.lo, when.hi) - when.hi + cost
	most := clamp(tat.hi, when.lo) - when.lo + cost
	v.mayAllow = d.Force || least <= v.full+m.slack()
	v.mayDeny = !d.Force && most > v.full-m.slack()
	if d.Cost == 0 {
		v.mayDeny = false
	}
	if d.Cost > burst && !d.Force {
		v.mayAllow = false
	}
	return v
}

func (m *model) take(demands ...ratelimit.Demand) (bool, []ratelimit.Result) {
	m.Helper()
	return m.check(m.store.Take, true, demands)
}

func (m *model) peek(demands ...ratelimit.Demand) (bool, []ratelimit.Result) {
	m.Helper()
	return m.check(m.store.Peek, false, demands)
}

func (m *model) check(what func(context.Context, []ratelimit.Demand, []ratelimit.Result) (bool, error), charges bool, demands []ratelimit.Demand) (bool, []ratelimit.Result) {
	m.Helper()
	var when span
	when.lo = m.now()
	ok, results := m.decide(what, demands)
	when.hi = m.now()

	next := make(map[ratelimit.Key]span)
	kept := make(map[ratelimit.Key]span)
	mustAllow, mayAllow := true, true
	for i, d := range demands {
		tat, seen := next[d.Key]
		if !seen {
			tat = m.tats[d.Key]
			kept[d.Key] = tat
		}
		next[d.Key] = tat
		if d.IfNew && !results[0].New {
			if !results[i].Allowed {
				m.Fatalf("demand %d does not count, and is refused: %+v", i, results[i])
			}
			continue
		}
		v := m.see(d, tat, when)
		mustAllow = mustAllow && !v.mayDeny
		mayAllow = mayAllow && v.mayAllow
		m.compare(i, d, v, when, results[i], ok, seen)
		if results[i].Allowed {
			next[d.Key] = v.after
		}
		// What a narrower limit makes of a debt is kept when it refuses. Where another one
		// does, it may be.
		was := kept[d.Key]
		was.lo = min(was.lo, when.lo+v.full)
		if !results[i].Allowed && len(demands) == 1 {
			was.hi = min(was.hi, when.hi+v.full)
		}
		kept[d.Key] = was
		if d.Cost == 0 {
			next[d.Key] = span{min(tat.lo, when.lo+v.full), tat.hi}
		}
	}
	if ok && !mayAllow || !ok && mustAllow {
		m.Fatalf("%v: got %v for %s, results %+v", when, ok, list(demands), results)
	}
	switch {
	case ok && charges:
		maps.Copy(m.tats, next)
	case charges:
		maps.Copy(m.tats, kept)
	}
	return ok, results
}

// compare holds a result against a verdict.
func (m *model) compare(i int, d ratelimit.Demand, v verdict, when span, r ratelimit.Result, ok, again bool) {
	m.Helper()
	slack := m.slack()
	within := func(what string, got, least, most time.Duration) {
		m.Helper()
		if got < max(least-slack, 0) || got > max(most+slack, 0) {
			m.Fatalf("demand %d of %s: %s is %s, want %s to %s", i, d.Limit, what, got, least, most)
		}
	}
	if i == 0 && (r.New && v.was.lo > when.hi+slack || !r.New && v.was.hi < when.lo-slack) {
		m.Fatalf("New is %v at %v, but the key is in debt until %v", r.New, when, v.was)
	}
	if again {
		// What is refused the second time depends on what the store makes of the first.
		return
	}
	if r.Allowed && !v.mayAllow || !r.Allowed && !v.mayDeny {
		m.Fatalf("demand %d of %s at %v: allowed is %v, in debt until %v", i, d.Limit, when, r.Allowed, v.before)
	}
	if !r.Allowed && r.Retry != ratelimit.NeverAllowed {
		cost := v.interval * time.Duration(d.Cost)
		within("Retry", r.Retry, v.before.lo-when.hi+cost-v.full, v.before.hi-when.lo+cost-v.full)
	}
	// Where another demand was refused, nothing was charged; but a store may show what
	// would be left if it had been.
	after := v.after
	if !r.Allowed {
		after = v.before
	}
	least := after
	if !ok {
		least = v.before
	}
	within("Reset", r.Reset, least.lo-when.hi, after.hi-when.lo)
	within("Remaining, as time", time.Duration(r.Remaining)*v.interval, v.full-(after.hi-when.lo)-v.interval, v.full-max(least.lo-when.hi, 0))
}
