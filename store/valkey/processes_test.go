package valkey_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/moat-gateway/moat/guard/ratelimit"
	"github.com/moat-gateway/moat/store/valkey"
	"github.com/moat-gateway/moat/store/valkey/valkeytest"
)

// order is what a process is told to do: to send requests for a time from several
// goroutines, with pauses in between if there are any.
type order struct {
	Addr       string
	Limit      ratelimit.Limit
	Lease      int
	Goroutines int
	Until      time.Duration
	Pause      time.Duration
}

// report is what it did.
type report struct {
	Begun, Ended time.Time
	Admitted     []time.Time
	Slowest      time.Duration // of those that were admitted
	Errors       int
	Nodes        int
	Stats        string
	RoundTrips   uint64
}

const workerVariable = "MOAT_TEST_VALKEY_ORDER"

// TestMain lets this binary be one of several processes that share a limit.
func TestMain(m *testing.M) {
	if o, isWorker := os.LookupEnv(workerVariable); isWorker {
		if err := work(o); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

func work(text string) error {
	var o order
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		return err
	}
	ctx := context.Background()
	s, err := valkey.Open(ctx, patient(valkey.Config{Addresses: []string{o.Addr}}))
	if err != nil {
		return err
	}
	defer s.Close()
	// Ready; to begin when told, together with the others.
	fmt.Println("ready")
	if _, err := bufio.NewReader(os.Stdin).ReadString('\n'); err != nil {
		return err
	}
	r := report{Begun: time.Now()}
	var mu sync.Mutex
	var all sync.WaitGroup
	for range o.Goroutines {
		all.Go(func() {
			d := []ratelimit.Demand{{Key: key("shared"), Limit: o.Limit, Cost: 1, Lease: o.Lease}}
			result := make([]ratelimit.Result, 1)
			for {
				begun := time.Now()
				if begun.Sub(r.Begun) > o.Until {
					return
				}
				ok, err := s.Take(ctx, d, result)
				ended := time.Now()
				mu.Lock()
				if err != nil {
					r.Errors++
				}
				if ok {
					r.Admitted = append(r.Admitted, ended)
					r.Slowest = max(r.Slowest, ended.Sub(begun))
				}
				mu.Unlock()
				if !ok {
					time.Sleep(min(result[0].Retry, time.Millisecond))
				}
				// All processes pause together after a request each, so that they hold leases
				// when the server has forgotten them; then they all come at once.
				if cycle := 3 * o.Pause; cycle > 0 {
					if at := ended.Sub(r.Begun) % cycle; at < 2*o.Pause {
						time.Sleep(2*o.Pause - at)
					}
				}
			}
		})
	}
	all.Wait()
	r.Ended, r.Nodes, r.Stats, r.RoundTrips = time.Now(), s.Nodes(), fmt.Sprintf("%+v", s.Stats()), s.Stats().RoundTrips
	return json.NewEncoder(os.Stdout).Encode(r)
}

// runProcesses makes n processes carry out an order at the same time.
func runProcesses(t *testing.T, n int, o order) (all []report) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	type process struct {
		in  io.WriteCloser
		out *bufio.Reader
		cmd *exec.Cmd
	}
	var ps []process
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for range n {
		cmd := exec.CommandContext(ctx, exe)
		cmd.Env = append(os.Environ(), workerVariable+"="+string(text), "GORACE=atexit_sleep_ms=0")
		cmd.Stderr = os.Stderr
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		p := process{in, bufio.NewReader(out), cmd}
		if line, err := p.out.ReadString('\n'); line != "ready\n" {
			t.Fatalf("a process said %q, %v", line, err)
		}
		ps = append(ps, p)
	}
	for _, p := range ps {
		if _, err := io.WriteString(p.in, "go\n"); err != nil {
			t.Fatal(err)
		}
	}
	for _, p := range ps {
		var r report
		if err := json.NewDecoder(p.out).Decode(&r); err != nil {
			t.Fatal(err)
		}
		if err := p.cmd.Wait(); err != nil {
			t.Fatal(err)
		}
		t.Logf("admitted %d, the slowest in %s, %s", len(r.Admitted), r.Slowest, r.Stats)
		all = append(all, r)
	}
	return all
}

func TestProcessesShareOneLimit(t *testing.T) {
	limit := ratelimit.Limit{Count: 1000, Per: time.Second, Burst: 100}
	for _, c := range []struct {
		processes, lease int
		pause            time.Duration
	}{
		{2, 0, 0},
		{2, 30, 50 * time.Millisecond},
		{4, 0, 0},
		{4, 20, 0},
		{4, 20, 100 * time.Millisecond},
	} {
		name := fmt.Sprintf("%d processes, leases of %d, pauses of %s", c.processes, c.lease, c.pause)
		t.Run(name, func(t *testing.T) {
			until := 1500 * time.Millisecond
			if testing.Short() {
				if c.processes > 2 {
					t.Skip("takes seconds: run without -short (make test does)")
				}
				until = 300 * time.Millisecond
			}
			server := valkeytest.Start(t)
			all := runProcesses(t, c.processes, order{server.Addr, limit, c.lease, 4, until, c.pause})
			var admitted []time.Time
			begun, ended := all[0].Begun, all[0].Ended
			var slowest time.Duration
			var roundTrips uint64
			for _, r := range all {
				if r.Errors > 0 {
					t.Errorf("%d errors", r.Errors)
				}
				if r.Begun.Before(begun) {
					begun = r.Begun
				}
				if r.Ended.After(ended) {
					ended = r.Ended
				}
				slowest = max(slowest, r.Slowest)
				admitted = append(admitted, r.Admitted...)
				roundTrips += r.RoundTrips
			}
			slices.SortFunc(admitted, time.Time.Compare)
			rate := float64(limit.Count) / limit.Per.Seconds()
			least := 0.8 * rate * until.Seconds()
			if c.pause > 0 {
				least /= 4 // they do not ask for all that there is
			}
			if n := float64(len(admitted)); n < least {
				t.Errorf("admitted %.0f, want %.0f at least", n, least)
			}
			// In any span of time no more than this, give or take how long an answer is on
			// its way: that is for how many more than the rate there was ever room.
			bound := float64(limit.Burst+c.processes*c.lease) + rate*slowest.Seconds() + 1
			worst, lowest := 0.0, 0.0
			for i, at := range admitted {
				ahead := float64(i) - rate*at.Sub(begun).Seconds()
				if i == 0 {
					lowest = ahead
				}
				lowest = min(lowest, ahead)
				worst = max(worst, ahead-lowest+1)
			}
			if worst > bound {
				t.Errorf("in some span %.0f more than the rate were admitted, want %.0f at most", worst, bound)
			}
			t.Logf("admitted %d in %s, in no span more than %.0f beyond the rate; %d round trips", len(admitted), ended.Sub(begun), worst, roundTrips)
		})
	}
}
