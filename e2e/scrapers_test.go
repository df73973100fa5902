package e2e

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/systeminfo"
	"github.com/chromedp/chromedp"
)

// scrapers are those who have read the format and written a client of their own, before the preset with
// nothing changed. What stops them are the limits. They know them: they keep their tickets, and go
// elsewhere when they are told to wait.
func (s *siege) scrapers() {
	for _, x := range []struct {
		name    string
		from    func(i int) string
		got     string
		atOnce  int
		perTime float64 // a second
		shared  bool    // with all visitors
	}{
		{"a client of its own, from one address", func(int) string { return "2001:db8::1" }, "10, then 20 a minute", 10, 20. / 60, false},
		{"the same, from 65,536 /64 of one IPv6 /48", func(i int) string { return fmt.Sprintf("2001:db8:1:%x::1", i*257%65536) }, "160, then 320 a minute", 160, 320. / 60, false},
		{"the same, from as many IPv6 /48 as it likes", func(i int) string { return fmt.Sprintf("2001:%x:%x::1", 0xdb8+i>>16, i&0xffff) }, "100, then 50 a second", 100, 50, true},
	} {
		s.measure(x.name, "", func(a *attempt) {
			gate := startMoat(a.T, presetYAML(a.T, s.model, s.page))
			var next atomic.Int64
			start := time.Now()
			over := func() bool {
				return time.Since(start) > 5*time.Second && (time.Since(start) > patience || a.through() >= x.atOnce)
			}
			var wg sync.WaitGroup
			workers := make([]*caller, 4) // as many as one address may have under way
			for i := range workers {
				workers[i] = s.caller(a.T)
				workers[i].gate = gate
				wg.Go(func() { workers[i].scrape(a, func() string { return x.from(int(next.Add(1))) }, over) })
			}
			// Somebody who visits the page meanwhile.
			visitor, served, wanted := s.caller(a.T), 0, 0
			visitor.gate, visitor.from = gate, "203.0.113.7"
			for !over() && x.shared {
				if wanted++; visitor.tickets > 0 || visitor.open() == "" {
					body := chat("visitor")
					if visitor.call(http.MethodPost, chatPath, visitor.token(body), body) == "" {
						served++
					}
				}
				time.Sleep(500 * time.Millisecond)
			}
			wg.Wait()
			took, through := time.Since(start), a.through()
			if most := x.atOnce + int(took.Seconds()*x.perTime) + 1; through > most || through < x.atOnce {
				a.Errorf("%d completions in %v; want from %d to %d", through, took, x.atOnce, most)
			}
			hashes, tickets, addresses := 0, 0, make(map[string]bool)
			for _, w := range workers {
				hashes, tickets = hashes+w.hashes, tickets+w.tickets
				maps.Copy(addresses, w.served)
			}
			a.got = x.got
			a.cost = fmt.Sprintf("%d completions in %.0f s took %d address(es), %d tickets and %s hashes", through, took.Seconds(), len(addresses), tickets, thousands(hashes))
			if x.shared {
				a.cost += fmt.Sprintf("; a visitor meanwhile got %d of %d calls", served, wanted)
			}
		})
	}
}

// scrape calls until it is over, from the next address whenever it is told to wait.
func (c *caller) scrape(a *attempt, next func() string, over func() bool) {
	body := chat("scrape")
	c.from = next()
	for !over() {
		var code string
		switch {
		case c.tickets == 0:
			code = c.open()
		case c.visit.Next == c.visit.Uses:
			code = c.renew()
		default:
			switch code = c.call(http.MethodPost, chatPath, c.token(body), body); {
			case code == "":
				c.served[c.from] = true
			case code == "ticket-moved":
				code = c.renew()
			case strings.HasPrefix(code, "rate-limited"):
				c.visit.Next-- // the ticket was not looked at
			}
		}
		if code == "" {
			continue
		}
		code, _, _ = strings.Cut(code, "-together") // which of the limits is first, is a matter of time
		code, _, _ = strings.Cut(code, "-new")
		a.said(code)
		time.Sleep(20 * time.Millisecond) // so that most of the machine's time is the gate's
		c.from = next()
	}
}

// driven is a browser that a program drives: the page itself, as far as anybody can tell.
func (s *siege) driven() {
	const calls = 1000
	s.attack("a headless Chromium that a program drives, where calls have no limit", calls, "", func(a *attempt) {
		tab := newTab(a.T)
		tab.open(s.page)
		before, start := theBrowser(a.T).processes(a.T), time.Now()
		tab.eval(`window.over = 0; ""`)
		for range 4 {
			tab.eval(fmt.Sprintf(`(async () => { for (let i = 0; i < %d; i++) { await chat("driven", () => {}); over++ } })(); ""`, calls/4))
		}
		for deadline := time.Now().Add(4 * patience); tab.eval("String(over)") != strconv.Itoa(calls) && time.Now().Before(deadline); {
			time.Sleep(50 * time.Millisecond)
		}
		took, after := time.Since(start), theBrowser(a.T).processes(a.T)
		for range calls {
			a.said("")
		}
		a.cost = fmt.Sprintf("%.1f s, %.1f s of CPU", took.Seconds(), after.cpu-before.cpu)
		if after.memory > 0 {
			a.cost += fmt.Sprintf(" and %d MB of memory", after.memory>>20)
		}
		a.cost += ", no hashes"
	})
}

// usage is what the browser's processes have used so far: seconds, and bytes, where Linux tells them.
type usage struct {
	cpu    float64
	memory int
}

func (b *browser) processes(t *testing.T) (u usage) {
	t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	all, err := cdp.Call(ctx, chromedp.FromContext(b.ctx).Browser, systeminfo.GetProcessInfo, cdp.Empty{})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range all.ProcessInfo {
		u.cpu += p.CPUTime
		text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", p.ID))
		if _, rest, ok := strings.Cut(string(text), "\nPss:"); ok {
			n, _ := strconv.Atoi(strings.Fields(rest)[0])
			u.memory += n << 10
		}
	}
	return u
}
