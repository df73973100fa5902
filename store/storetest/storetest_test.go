package storetest_test

import (
	"context"
	"errors"
	"flag"
	"maps"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/moat-gateway/moat/guard/ratelimit"
	"github.com/moat-gateway/moat/store/storetest"
)

var fault = flag.String("fault", "", "what the reference store is to do wrong")

// reference is the simplest store: a map behind a mutex. It can be told to do one thing
// wrong, so that the tests themselves can be tested.
type reference struct {
	mu    sync.Mutex
	start time.Time
	tats  map[any]int64
	fault string
}

func open(fault string) func(*testing.T) ratelimit.Store {
	return func(*testing.T) ratelimit.Store {
		return &reference{start: time.Now(), tats: make(map[any]int64), fault: fault}
	}
}

func TestAStoreWithoutFaultsPasses(t *testing.T) { storetest.Run(t, open(*fault)) }

// faults are what the tests must find.
var faults = []string{
	"a refusal is charged", "what is asked before a refusal is charged", "the same key is charged once",
	"IfNew looks at its own key", "IfNew always counts", "IfNew never counts",
	"Force goes beyond the burst", "Force is refused", "Force is not charged",
	"cost 0 costs 1", "cost 0 is refused when full", "every cost is 1", "never is sometime",
	"Peek charges", "Peek sees no cost", "Reset does nothing", "Reset forgets all",
	"limits share debts", "routes share debts", "methods share debts", "networks share debts", "lengths of networks share debts", "keys are joined", "keys fold case",
	"another burst is another key", "a narrower limit is not seen", "a narrower limit is not kept",
	"nothing is locked", "no room comes back", "room comes back twice as fast", "room comes back by the second", "debts are forgotten early",
	"everything is New", "nothing is New", "Remaining is one more", "Retry is short", "Retry is long", "Reset time is Retry", "results are left", "a refused result is allowed",
	"a context that is over is refused", "a context that is over is charged", "no demands are refused", "a refusal is an error",
}

func TestEveryFaultIsFound(t *testing.T) {
	for _, f := range faults {
		t.Run(f, func(t *testing.T) {
			t.Parallel()
			out, err := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestAStoreWithoutFaultsPasses$", "-test.timeout=60s", "-fault="+f).CombinedOutput()
			if err == nil || !strings.Contains(string(out), "--- FAIL") {
				t.Errorf("it passes: %v\n%s", err, out)
			}
		})
	}
}

func (s *reference) is(fault string) bool { return s.fault == fault }

func (s *reference) key(d ratelimit.Demand) any {
	k := d.Key
	switch s.fault {
	case "limits share debts":
		k.Limit = ""
	case "routes share debts":
		k.Route = ""
	case "methods share debts":
		k.Method = ""
	case "networks share debts":
		k.Net = netip.PrefixFrom(netip.Addr{}, k.Net.Bits())
	case "lengths of networks share debts":
		k.Net = netip.PrefixFrom(k.Net.Addr(), 0)
	case "keys are joined":
		return strings.Join([]string{k.Limit, k.Net.String(), k.Route, k.Method}, ":")
	case "keys fold case":
		k.Limit = strings.ToLower(k.Limit)
	case "another burst is another key":
		return [2]any{k, d.Limit.Burst}
	}
	return k
}

func (s *reference) now() int64 {
	d := time.Since(s.start) + time.Hour
	switch s.fault {
	case "no room comes back":
		d = time.Hour
	case "room comes back twice as fast":
		d *= 2
	case "room comes back by the second":
		d = d.Truncate(time.Second)
	}
	return d.Microseconds()
}

func (s *reference) Take(ctx context.Context, demands []ratelimit.Demand, results []ratelimit.Result) (bool, error) {
	if err := ctx.Err(); err != nil && !s.is("a context that is over is charged") {
		if s.is("a context that is over is refused") {
			return false, nil
		}
		return false, err
	}
	ok := s.decide(demands, results, true)
	return ok, s.err(ctx, ok)
}

func (s *reference) Peek(ctx context.Context, demands []ratelimit.Demand, results []ratelimit.Result) (bool, error) {
	if s.is("Peek sees no cost") {
		demands = slices.Clone(demands)
		for i := range demands {
			demands[i].Cost = 0
		}
	}
	ok := s.decide(demands, results, s.is("Peek charges"))
	return ok, s.err(ctx, ok)
}

func (s *reference) err(ctx context.Context, ok bool) error {
	if !ok && s.is("a refusal is an error") {
		return errors.New("refused")
	}
	return ctx.Err()
}

func (s *reference) Reset(_ context.Context, k ratelimit.Key) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.is("Reset forgets all"):
		clear(s.tats)
	case !s.is("Reset does nothing"):
		delete(s.tats, s.key(ratelimit.Demand{Key: k}))
	}
	return nil
}

func (s *reference) decide(demands []ratelimit.Demand, results []ratelimit.Result, charge bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	now, next, kept := s.now(), make(map[any]int64), make(map[any]int64)
	ok, isNew := len(demands) > 0 || !s.is("no demands are refused"), false
	for i, d := range demands {
		key := s.key(d)
		tat, again := next[key]
		if !again || s.is("the same key is charged once") {
			tat = s.tats[key]
		}
		if s.is("debts are forgotten early") && tat-now < 3500e6 {
			tat = 0
		}
		if i == 0 || s.is("IfNew looks at its own key") {
			isNew = tat <= now
		}
		if d.IfNew && (!isNew || s.is("IfNew never counts")) && !s.is("IfNew always counts") {
			results[i] = ratelimit.Result{Allowed: true}
			next[key] = tat
			continue
		}
		next[key], results[i] = s.one(d, tat, now)
		if !results[i].Allowed {
			ok = false
			kept[key] = min(s.tats[key], next[key])
		}
		s.spoil(&results[i])
	}
	if s.is("nothing is locked") {
		s.mu.Unlock()
		runtime.Gosched()
		s.mu.Lock()
	}
	if charge {
		s.write(ok, demands, results, next, kept)
	}
	return ok
}

func (s *reference) write(ok bool, demands []ratelimit.Demand, results []ratelimit.Result, next, kept map[any]int64) {
	if !ok {
		if !s.is("a narrower limit is not kept") {
			maps.Copy(s.tats, kept)
		}
		if s.is("what is asked before a refusal is charged") {
			for i, d := range demands {
				if !results[i].Allowed {
					break
				}
				s.tats[s.key(d)] = next[s.key(d)]
			}
		}
		if !s.is("a refusal is charged") {
			return
		}
	}
	maps.Copy(s.tats, next)
}

func (s *reference) one(d ratelimit.Demand, tat, now int64) (int64, ratelimit.Result) {
	switch {
	case s.is("cost 0 costs 1"):
		d.Cost = max(d.Cost, 1)
	case s.is("every cost is 1"):
		d.Cost = min(d.Cost, 1)
	case s.is("Force is refused"):
		d.Force = false
	case s.is("Force goes beyond the burst") && d.Force:
		_, r := d.Limit.Charge(tat, now, d.Cost)
		return max(tat, now) + int64(d.Cost)*d.Limit.Per.Microseconds()/int64(d.Limit.Count), r
	case s.is("Force is not charged") && d.Force:
		_, r := d.Limit.Charge(tat, now, d.Cost)
		return tat, r
	}
	take := d.Limit.Take
	if d.Force {
		take = d.Limit.Charge
	}
	next, r := take(tat, now, d.Cost)
	switch {
	case s.is("cost 0 is refused when full") && r.Remaining == 0 && d.Cost == 0:
		r.Allowed, r.Retry = false, time.Second
	case s.is("a refusal is charged") && !r.Allowed:
		next += int64(d.Cost) * d.Limit.Per.Microseconds() / int64(max(d.Limit.Count, 1))
	case s.is("a narrower limit is not seen") && tat > next:
		return tat, ratelimit.Result{Retry: time.Duration(tat-now) * time.Microsecond, Reset: time.Duration(tat-now) * time.Microsecond}
	}
	return next, r
}

// spoil makes a result wrong that was right.
func (s *reference) spoil(r *ratelimit.Result) {
	waits := !r.Allowed && r.Retry != ratelimit.NeverAllowed
	switch {
	case s.is("everything is New"):
		r.New = true
	case s.is("nothing is New"):
		r.New = false
	case s.is("Remaining is one more"):
		r.Remaining++
	case s.is("Retry is short") && waits:
		r.Retry = max(r.Retry-10*time.Millisecond, 1)
	case s.is("Retry is long") && waits:
		r.Retry += 10 * time.Millisecond
	case s.is("never is sometime") && r.Retry == ratelimit.NeverAllowed:
		r.Retry = time.Hour
	case s.is("Reset time is Retry"):
		r.Reset = r.Retry
	case s.is("results are left"):
		*r = ratelimit.Result{Allowed: r.Allowed}
	case s.is("a refused result is allowed"):
		r.Allowed = true
	}
}
