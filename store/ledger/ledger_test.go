package ledger_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/moat-gateway/moat/guard/budget"
	"github.com/moat-gateway/moat/store/ledger"
	"github.com/moat-gateway/moat/store/storetest"
)

const spendVariable = "MOAT_TEST_LEDGER"

// TestMain lets this binary be a process that spends until it is killed.
func TestMain(m *testing.M) {
	if path, is := os.LookupEnv(spendVariable); is {
		if err := spendForEver(path); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

func open(t testing.TB, path string) *ledger.Ledger {
	t.Helper()
	l, _, err := ledger.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func TestInMemory(t *testing.T) {
	t.Parallel()
	storetest.RunBudgets(t, func(*testing.T) budget.Store { return ledger.New() })
}

func TestInAFile(t *testing.T) {
	t.Parallel()
	storetest.RunBudgets(t, func(t *testing.T) budget.Store { return open(t, filepath.Join(t.TempDir(), "budgets.db")) })
}

func rule(limit budget.Amount) *budget.Rule {
	return &budget.Rule{Name: "x", By: budget.ByVisitor, Per: budget.Month, Cap: limit}
}

func reserve(l *ledger.Ledger, r *budget.Rule, who string, n budget.Amount) (budget.Account, bool, error) {
	results := make([]budget.Result, 1)
	ok, err := l.Reserve(context.Background(), []budget.Demand{{Rule: r, Who: who, Take: n}}, results)
	return results[0].Account, ok, err
}

func used(t testing.TB, l *ledger.Ledger, r *budget.Rule) budget.Amount {
	t.Helper()
	u, err := l.Usage(t.Context(), r, 0)
	if err != nil {
		t.Fatal(err)
	}
	return u.Used
}

// copied is the file as it would be found if the process ended at this moment.
func copied(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	to := filepath.Join(t.TempDir(), "copy.db")
	if err := os.WriteFile(to, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return to
}

func TestCloseLeavesExactFigures(t *testing.T) {
	t.Parallel()
	path, r := filepath.Join(t.TempDir(), "budgets.db"), rule(budget.Amount{Requests: 1 << 20, Money: 1 << 30})
	want := budget.Amount{}
	for i := range 4 {
		l := open(t, path)
		if got := used(t, l, r); got != want {
			t.Fatalf("start %d: %+v, want %+v", i, got, want)
		}
		for range 10 {
			at, ok, err := reserve(l, r, fmt.Sprint(i%2), budget.Amount{Requests: 1, Money: 1000})
			if err != nil || !ok {
				t.Fatal(ok, err)
			}
			if err := l.Settle(t.Context(), []budget.Change{{Account: at, Add: budget.Amount{Money: -999}}}); err != nil {
				t.Fatal(err)
			}
			want = want.Plus(budget.Amount{Requests: 1, Money: 1})
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		if _, _, err := reserve(l, r, "a", budget.Amount{Requests: 1}); err == nil {
			t.Fatal("one that is closed counts")
		}
	}
}

// At no moment a crash gives anything back, and it costs no more than it says.
func TestCrashGivesNothingBackAndCostsAShareOfTheCap(t *testing.T) {
	t.Parallel()
	const limit = 1000
	path, r := filepath.Join(t.TempDir(), "budgets.db"), rule(budget.Amount{Requests: limit})
	l := open(t, path)
	for n := int64(1); n <= 200; n++ {
		if _, ok, err := reserve(l, r, "a", budget.Amount{Requests: 1}); err != nil || !ok {
			t.Fatal(ok, err)
		}
		if n%20 != 0 {
			continue
		}
		after := open(t, copied(t, path))
		if got := used(t, after, r).Requests; got < n || got > n+limit/32 {
			t.Errorf("%d were spent, and after a crash it is %d", n, got)
		}
		after.Close()
	}
	l.Reset(t.Context(), r, "")
	for range limit {
		if _, ok, err := reserve(l, r, "a", budget.Amount{Requests: 1}); err != nil || !ok {
			t.Fatal(ok, err)
		}
	}
	after := open(t, copied(t, path))
	if got := used(t, after, r).Requests; got != limit {
		t.Errorf("the whole cap was spent, and after a crash it is %d", got)
	}
}

// What calls set aside and gave back is not lost for longer than a moment.
func TestMarksThatAreTooHighAreLowered(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "budgets.db")
	synctest.Test(t, func(t *testing.T) {
		l, _, err := ledger.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		r := rule(budget.Amount{Money: 3200})
		at, ok, err := reserve(l, r, "a", budget.Amount{Money: 3000})
		if err != nil || !ok {
			t.Fatal(ok, err)
		}
		crash := func() budget.Money {
			after, _, err := ledger.Open(copied(t, path))
			if err != nil {
				t.Fatal(err)
			}
			defer after.Close()
			return used(t, after, r).Money
		}
		if got := crash(); got < 3000 {
			t.Errorf("what was set aside is not in the file: %v", got)
		}
		if err := l.Settle(t.Context(), []budget.Change{{Account: at, Add: budget.Amount{Money: -2990}}}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(1500 * time.Millisecond)
		synctest.Wait()
		if got := crash(); got < 10 || got > 110 {
			t.Errorf("10 were spent, and after a crash it is %d", int64(got))
		}
	})
}

func TestPeriodsBeginAnewAndAreForgotten(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "budgets.db")
	synctest.Test(t, func(t *testing.T) {
		l, _, err := ledger.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		r := rule(budget.Amount{Requests: 1})
		r.Per = budget.Day
		first, ok, err := reserve(l, r, "a", budget.Amount{Requests: 1})
		if err != nil || !ok {
			t.Fatal(ok, err)
		}
		if _, ok, _ = reserve(l, r, "a", budget.Amount{Requests: 1}); ok {
			t.Error("beyond the cap")
		}
		time.Sleep(time.Until(time.Unix(first.Span.End, 0)) - time.Nanosecond)
		if _, ok, _ = reserve(l, r, "a", budget.Amount{Requests: 1}); ok {
			t.Error("a moment before midnight")
		}
		time.Sleep(time.Nanosecond)
		second, ok, err := reserve(l, r, "a", budget.Amount{Requests: 1})
		if err != nil || !ok || second.Span.Start != first.Span.End {
			t.Errorf("at midnight: %v %v %+v", ok, err, second)
		}
		// What began before midnight is settled there.
		if err = l.Settle(t.Context(), []budget.Change{{Account: first, Add: budget.Amount{Requests: 5}}}); err != nil {
			t.Error(err)
		}
		if got := used(t, l, r).Requests; got != 1 {
			t.Errorf("the new day has %d", got)
		}
		time.Sleep(40 * 24 * time.Hour)
		synctest.Wait()
		if err = l.Close(); err != nil {
			t.Fatal(err)
		}
		if n := books(t, path); n != 0 {
			t.Errorf("%d periods are still in the file", n)
		}
	})
}

func books(t *testing.T, path string) int {
	t.Helper()
	l, _, err := ledger.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Books()
}

func TestNewcomersShareWhenThereAreTooMany(t *testing.T) {
	t.Parallel()
	l, r := ledger.New(), rule(budget.Amount{Requests: 2})
	for i := range budget.MaxAccounts {
		if _, ok, err := reserve(l, r, fmt.Sprint(i), budget.Amount{Requests: 1}); err != nil || !ok {
			t.Fatal(i, ok, err)
		}
	}
	for i, want := range []bool{true, true, false, false} {
		at, ok, err := reserve(l, r, fmt.Sprint("new", i), budget.Amount{Requests: 1})
		if err != nil || ok != want || at.Who != budget.Others {
			t.Errorf("newcomer %d: %v %v %+v", i, ok, err, at)
		}
	}
	if _, ok, err := reserve(l, r, "7", budget.Amount{Requests: 1}); err != nil || !ok {
		t.Errorf("who was there before has lost its own: %v %v", ok, err)
	}
	if u, _ := l.Usage(t.Context(), r, 1); u.Accounts != budget.MaxAccounts+1 {
		t.Errorf("%d accounts", u.Accounts)
	}
}

func TestTwoProcessesDoNotShareAFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "budgets.db")
	open(t, path)
	if _, _, err := ledger.Open(path); !errors.Is(err, ledger.ErrInUse) || !strings.Contains(err.Error(), path) {
		t.Errorf("got %v", err)
	}
}

func TestFilesThatAreRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	at := func(name string, mode os.FileMode, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for path, want := range map[string]string{
		at("empty", 0o600, ""):                               "not a file of budgets",
		at("rubbish", 0o600, strings.Repeat("rubbish", 1e4)): "not a file of budgets",
		at("open", 0o622, ""):                                "others can write it (mode 0622), and so spend: chmod 600",
		filepath.Join(dir, "none", "budgets.db"):             "no such file or directory",
		dir:                                                  "a folder; name a file in it",
	} {
		if l, _, err := ledger.Open(path); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%v, want %q", err, want)
			if err == nil {
				l.Close()
			}
		}
		if err := ledger.Check(path); filepath.Base(path) != "rubbish" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("beforehand: %v, want %q", err, want)
		}
	}
}

// Where a configuration is checked a gate may be at work, or the file not made yet: neither is touched.
func TestCheckLeavesEverythingAsItIs(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "budgets.db")
	if err := ledger.Check(path); err != nil {
		t.Error(err)
	}
	if left, err := os.ReadDir(filepath.Dir(path)); err != nil || len(left) > 0 {
		t.Errorf("made %v, %v", left, err)
	}
	l := open(t, path)
	if err := ledger.Check(path); err != nil {
		t.Errorf("while a gate has it: %v", err)
	}
	if _, ok, err := reserve(l, rule(budget.Amount{Requests: 5}), "7", budget.Amount{Requests: 1}); err != nil || !ok {
		t.Errorf("the gate that has it: %v %v", ok, err)
	}
}

// Wherever a file is damaged, it is refused, or says no less than it said.
func TestDamageGivesNothingBack(t *testing.T) {
	t.Parallel()
	path, r := filepath.Join(t.TempDir(), "budgets.db"), rule(budget.Amount{Requests: 1 << 30})
	l := open(t, path)
	for i := range 50 {
		if _, ok, err := reserve(l, r, fmt.Sprint("somebody", i), budget.Amount{Requests: 1e6}); err != nil || !ok {
			t.Fatal(ok, err)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	refused := 0
	for at := 0; at < len(whole); at += 251 {
		damaged := filepath.Join(t.TempDir(), "damaged.db")
		b := append([]byte(nil), whole...)
		b[at] ^= 0x55
		if err := os.WriteFile(damaged, b, 0o600); err != nil {
			t.Fatal(err)
		}
		l, _, err := ledger.Open(damaged)
		if err != nil {
			refused++
			continue
		}
		// If what is damaged is the newest of the two roots, bbolt takes the other one: that of the write before.
		if got := used(t, l, r); got.Requests < 50e6 {
			t.Errorf("byte %d: it says %+v", at, got)
		}
		l.Close()
	}
	if refused == 0 {
		t.Error("nothing was refused")
	}
}

// A file that has gone, or been cut short, is not written to; and nobody spends beyond what it said.
func TestFileThatIsLostWhileItIsInUse(t *testing.T) {
	t.Parallel()
	for name, lose := range map[string]func(path string) error{
		"removed":   os.Remove,
		"replaced":  func(path string) error { return errors.Join(os.Remove(path), os.WriteFile(path, nil, 0o600)) },
		"cut short": func(path string) error { return os.Truncate(path, 0) },
	} {
		t.Run(name, func(t *testing.T) {
			path, r := filepath.Join(t.TempDir(), "budgets.db"), rule(budget.Amount{Requests: 320})
			l := open(t, path)
			if _, ok, err := reserve(l, r, "a", budget.Amount{Requests: 100}); err != nil || !ok {
				t.Fatal(ok, err)
			}
			if err := lose(path); err != nil {
				t.Fatal(err)
			}
			passed := 0
			var failed error
			for range 100 {
				_, ok, err := reserve(l, r, "a", budget.Amount{Requests: 1})
				if ok && err == nil {
					passed++
				} else {
					failed = err
				}
			}
			if passed > 10 || failed == nil || !strings.Contains(failed.Error(), path) {
				t.Errorf("%d passed, then %v", passed, failed)
			}
			if used := used(t, l, r).Requests; used != int64(100+passed) {
				t.Errorf("%d are counted, and %d passed", used, 100+passed)
			}
		})
	}
}

func TestStopIsDurable(t *testing.T) {
	t.Parallel()
	path, r := filepath.Join(t.TempDir(), "budgets.db"), rule(budget.Amount{Requests: 10})
	l := open(t, path)
	if err := l.Stop(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	after := open(t, copied(t, path)) // killed
	if _, _, err := reserve(after, r, "a", budget.Amount{Requests: 1}); !errors.Is(err, budget.ErrStopped) {
		t.Errorf("got %v", err)
	}
	if err := after.Stop(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	if since, _ := after.Stopped(t.Context()); !since.IsZero() {
		t.Error(since)
	}
}

// spendForEver spends from several goroutines, and writes a byte when it knows that it has.
func spendForEver(path string) error {
	l, _, err := ledger.Open(path)
	if err != nil {
		return err
	}
	r := rule(budget.Amount{Requests: 1 << 40, Money: 320_000})
	var all sync.WaitGroup
	var failed atomic.Pointer[error]
	for range 8 {
		all.Go(func() {
			for {
				at, ok, err := reserve(l, r, "a", budget.Amount{Requests: 1, Money: 5})
				if err == nil && ok {
					if err = l.Settle(context.Background(), []budget.Change{{Account: at, Add: budget.Amount{Money: -3}}}); err == nil {
						_, err = os.Stdout.Write([]byte{'x'})
					}
				}
				if err != nil || !ok {
					failed.Store(&err)
					return
				}
			}
		})
	}
	all.Wait()
	return *failed.Load()
}

// A process is killed again and again: what it knew to be spent is in the file each time.
func TestKilledProcessGivesNothingBack(t *testing.T) {
	t.Parallel()
	path, r := filepath.Join(t.TempDir(), "budgets.db"), rule(budget.Amount{Requests: 1 << 40, Money: 320_000})
	before := budget.Amount{}
	for round := range 5 {
		cmd := exec.CommandContext(t.Context(), os.Args[0])
		cmd.Env = append(os.Environ(), spendVariable+"="+path)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err = cmd.Start(); err != nil {
			t.Fatal(err)
		}
		in := bufio.NewReader(out)
		spent := int64(0)
		for ; spent < 500; spent++ {
			if _, err = in.ReadByte(); err != nil {
				t.Fatalf("round %d: %v", round, err)
			}
		}
		if err = cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		rest, _ := io.ReadAll(in) // what it had said before it died
		spent += int64(len(rest))
		cmd.Wait() // it was killed
		l := open(t, path)
		got := used(t, l, r)
		if err = l.Close(); err != nil {
			t.Fatal(err)
		}
		if got.Requests < before.Requests+spent || got.Money < before.Money+budget.Money(2*spent) {
			t.Errorf("round %d: %+v, then %d calls, then %+v", round, before, spent, got)
		}
		// Of money: a share of the cap, what 8 calls had set aside, and what was set aside and
		// given back within a second, which is at most 3 for each call.
		if got.Money > before.Money+budget.Money(5*(spent+8))+320_000/32 {
			t.Errorf("round %d: a crash cost too much: %+v, then %d calls, then %+v", round, before, spent, got)
		}
		before = got
	}
}

func BenchmarkReserveAndSettle(b *testing.B) {
	site := &budget.Rule{Name: "site", By: budget.BySite, Per: budget.Month, Cap: budget.Amount{Money: 1 << 50}}
	own := &budget.Rule{Name: "own", By: budget.ByVisitor, Per: budget.Day, Cap: budget.Amount{Requests: 1 << 40, Money: 1 << 50}}
	for _, c := range []struct {
		name string
		open func(b *testing.B) *ledger.Ledger
	}{
		{"memory", func(*testing.B) *ledger.Ledger { return ledger.New() }},
		{"file", func(b *testing.B) *ledger.Ledger {
			b.Helper()
			return open(b, filepath.Join(b.TempDir(), "budgets.db"))
		}},
	} {
		b.Run(c.name, func(b *testing.B) {
			l := c.open(b)
			demands := []budget.Demand{{Rule: own, Who: "visitor=1f0c9a2b77e4d310", Take: budget.Amount{Requests: 1, Money: 1000}}, {Rule: site, Take: budget.Amount{Requests: 1, Money: 1000}}}
			results, changes := make([]budget.Result, 2), make([]budget.Change, 2)
			b.ReportAllocs()
			for b.Loop() {
				if ok, err := l.Reserve(b.Context(), demands, results); err != nil || !ok {
					b.Fatal(ok, err)
				}
				for i := range results {
					changes[i] = budget.Change{Account: results[i].Account, Add: budget.Amount{Money: -900}}
				}
				if err := l.Settle(b.Context(), changes); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkNewcomer is the first call of a spender in a period, which waits for the disk; others wait with it.
func BenchmarkNewcomer(b *testing.B) {
	for _, callers := range []int{1, 64} {
		b.Run(fmt.Sprintf("%d at once", callers), func(b *testing.B) {
			l := open(b, filepath.Join(b.TempDir(), "budgets.db"))
			r := rule(budget.Amount{Requests: 100})
			var n atomic.Int64
			var all sync.WaitGroup
			b.ResetTimer()
			for range callers {
				all.Go(func() {
					for i := n.Add(1); i <= int64(b.N); i = n.Add(1) {
						if _, ok, err := reserve(l, r, fmt.Sprint(i), budget.Amount{Requests: 1}); err != nil || !ok && i < budget.MaxAccounts {
							b.Error(ok, err)
							return
						}
					}
				})
			}
			all.Wait()
		})
	}
}
