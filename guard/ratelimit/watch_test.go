package ratelimit_test

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/moat-gateway/moat/guard"
	"github.com/moat-gateway/moat/guard/ratelimit"
	"github.com/moat-gateway/moat/store/memory"
)

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

// watched asks the desk's Guard, as the gateway does, and tells the Watch.
func (d desk) watched(w *ratelimit.Watch, a string, m guard.Mode) {
	gr, dec := d.g.Decide(d.t.Context(), facts(a))
	w.Note(addr(a), gr, dec, m)
	gr.Release()
}

// limited are the rows as an operator would tell them.
func limited(w *ratelimit.Watch, n int) []string {
	rows, all := w.Limited(n)
	var out []string
	for _, l := range rows {
		out = append(out, fmt.Sprintf("%s %s %s %q %s x%d since %s for %s", l.Key.Limit, l.Key.Text(), l.Reason, l.Want, l.Mode, l.Refused,
			time.Since(l.Since).Round(time.Second), time.Until(l.Again).Round(time.Second)))
	}
	if all > len(rows) {
		out = append(out, fmt.Sprintf("and %d more", all-len(rows)))
	}
	return out
}

func wantRows(t *testing.T, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("got:\n\t%s\nwant:\n\t%s", strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
	}
}

func TestWatchKnowsWhoIsLimitedNow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := ratelimit.NewWatch()
		d := open(t, ratelimit.Policy{Rules: []ratelimit.Rule{byAddress("client", "60/m burst 1")}})
		d.watched(w, "203.0.113.7", guard.Enforce)
		wantRows(t, limited(w, 9))
		d.watched(w, "203.0.113.7", guard.Enforce)
		d.watched(w, "203.0.113.7", guard.Enforce)
		d.watched(w, "2001:db8::1", guard.Report)
		d.watched(w, "2001:db8::2", guard.Report)
		wantRows(t, limited(w, 9),
			`client 203.0.113.7 rate-limited "60/m burst 1" enforce x2 since 0s for 1s`,
			`client 2001:db8::/64 rate-limited "60/m burst 1" report x1 since 0s for 1s`)
		wantRows(t, limited(w, 1),
			`client 203.0.113.7 rate-limited "60/m burst 1" enforce x2 since 0s for 1s`, "and 1 more")

		// Whoever comes again when told to, and too often, is limited since the first time.
		time.Sleep(time.Second)
		wantRows(t, limited(w, 9))
		d.watched(w, "203.0.113.7", guard.Enforce)
		wantRows(t, limited(w, 9))
		d.watched(w, "203.0.113.7", guard.Enforce)
		wantRows(t, limited(w, 9), `client 203.0.113.7 rate-limited "60/m burst 1" enforce x3 since 1s for 1s`)

		// After a minute of calm that is forgotten.
		time.Sleep(2*time.Minute + time.Second)
		d.watched(w, "203.0.113.7", guard.Enforce)
		d.watched(w, "203.0.113.7", guard.Enforce)
		wantRows(t, limited(w, 9), `client 203.0.113.7 rate-limited "60/m burst 1" enforce x1 since 0s for 1s`)

		w.Forget(ratelimit.Key{Limit: "client", Net: netip.MustParsePrefix("203.0.113.7/32")})
		wantRows(t, limited(w, 9))
	})
}

func TestWatchKnowsTooManyAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := ratelimit.NewWatch()
		r := byAddress("client", "60/m")
		r.AtOnce = 1
		d := open(t, ratelimit.Policy{Rules: []ratelimit.Rule{r}})
		first, _ := d.g.Decide(t.Context(), facts("203.0.113.7"))
		defer first.Release()
		d.watched(w, "203.0.113.7", guard.Enforce)
		wantRows(t, limited(w, 9), `client 203.0.113.7 too-many-at-once "at most 1 at once" enforce x1 since 0s for 1s`)
	})
}

func TestWatchForgetsWhoEndsSoonest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := ratelimit.NewWatch()
		long := open(t, ratelimit.Policy{Rules: []ratelimit.Rule{byAddress("long", "1/h")}})
		long.watched(w, "203.0.113.7", guard.Enforce)
		long.watched(w, "203.0.113.7", guard.Enforce)
		r := byAddress("short", "60/m burst 1")
		r.Wider = ratelimit.Wider{IPv4Net24: -1}
		short := open(t, ratelimit.Policy{Rules: []ratelimit.Rule{r}})
		for i := range 20_000 {
			a := netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}).String()
			short.watched(w, a, guard.Enforce)
			short.watched(w, a, guard.Enforce)
		}
		rows, all := w.Limited(100_000)
		if all != 4096 {
			t.Errorf("%d are remembered, want 4096", all)
		}
		if !slices.ContainsFunc(rows, func(l ratelimit.Limited) bool { return l.Key.Limit == "long" }) {
			t.Error("the one that has to wait longest is forgotten")
		}
	})
}

// talkers are the rows of the heaviest clients.
func talkers(w *ratelimit.Watch, n int) []string {
	all := w.Talkers(n)
	out := []string{fmt.Sprintf("%d since %s", all.Requests, time.Since(all.Since).Round(time.Second))}
	for _, c := range all.Top {
		least := ""
		if c.AtLeast {
			least = "at least "
		}
		out = append(out, fmt.Sprintf("%s %s%d refused %d reported %d", c.Client, least, c.Requests, c.Refused, c.Reported))
	}
	return out
}

func TestWatchNamesTheTalkers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := ratelimit.NewWatch()
		d := open(t, ratelimit.Policy{Rules: []ratelimit.Rule{byAddress("client", "60/h burst 3")}})
		for range 5 {
			d.watched(w, "203.0.113.7", guard.Enforce)
		}
		for _, a := range []string{"2001:db8::1", "2001:db8::2", "2001:db8::3", "2001:db8::ffff"} {
			d.watched(w, a, guard.Report)
		}
		w.Note(addr("::1"), nil, guard.Decision{}, guard.Off)
		w.Note(addr("::ffff:203.0.113.8"), nil, guard.Decision{}, guard.Off)
		w.Note(netip.Addr{}, nil, guard.Decision{}, guard.Off) // nobody to name
		wantRows(t, talkers(w, 9), "11 since 0s",
			"203.0.113.7/32 5 refused 2 reported 0", "2001:db8::/64 4 refused 0 reported 1",
			"203.0.113.8/32 1 refused 0 reported 0", "::/64 1 refused 0 reported 0")

		// The span slides by five minutes, and holds five to ten.
		time.Sleep(6 * time.Minute)
		d.watched(w, "203.0.113.7", guard.Enforce)
		wantRows(t, talkers(w, 1), "12 since 6m0s", "203.0.113.7/32 6 refused 2 reported 0")
		time.Sleep(4 * time.Minute)
		wantRows(t, talkers(w, 9), "1 since 5m0s", "203.0.113.7/32 1 refused 0 reported 0")
		time.Sleep(time.Hour)
		wantRows(t, talkers(w, 9), "0 since 5m0s")
	})
}

func TestWatchIsSafeForConcurrentUse(t *testing.T) {
	w := ratelimit.NewWatch()
	r := byAddress("client", "60/h burst 10")
	r.Wider = ratelimit.Wider{IPv4Net24: -1}
	d := open(t, ratelimit.Policy{Rules: []ratelimit.Rule{r}})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for i := range 1000 {
				d.watched(w, fmt.Sprintf("203.0.113.%d", i%50), guard.Enforce)
				if i%100 == 0 {
					w.Limited(10)
					w.Talkers(10)
					w.Forget(ratelimit.Key{Limit: "client", Net: netip.MustParsePrefix("203.0.113.9/32")})
				}
			}
		})
	}
	wg.Wait()
	all := w.Talkers(50)
	if all.Requests != 4000 || len(all.Top) != 50 {
		t.Errorf("%d requests of %d clients", all.Requests, len(all.Top))
	}
	for _, c := range all.Top {
		if c.Requests != 80 || c.Refused != 70 || c.AtLeast {
			t.Errorf("%+v", c)
		}
	}
}

func BenchmarkWatch(b *testing.B) {
	g, err := ratelimit.New(ratelimit.Policy{Rules: []ratelimit.Rule{byAddress("client", "1/h")}}, memory.New(1<<16))
	if err != nil {
		b.Fatal(err)
	}
	f := facts("203.0.113.7")
	first, _ := g.Decide(b.Context(), f)
	first.Release()
	refused, d := g.Decide(b.Context(), f)
	b.Run("admitted", func(b *testing.B) {
		w := ratelimit.NewWatch()
		b.ReportAllocs()
		for b.Loop() {
			w.Note(f.Client, refused, guard.Decision{}, guard.Enforce)
		}
	})
	b.Run("flood", func(b *testing.B) {
		w := ratelimit.NewWatch()
		b.ReportAllocs()
		var a [16]byte
		for i := 0; b.Loop(); i++ {
			binary.BigEndian.PutUint64(a[:], uint64(i)*0x9e3779b97f4a7c15)
			w.Note(netip.AddrFrom16(a), refused, guard.Decision{}, guard.Enforce)
		}
	})
	b.Run("refused", func(b *testing.B) {
		w := ratelimit.NewWatch()
		b.ReportAllocs()
		for b.Loop() {
			w.Note(f.Client, refused, d, guard.Enforce)
		}
	})
	b.Run("parallel", func(b *testing.B) {
		w := ratelimit.NewWatch()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				w.Note(f.Client, refused, guard.Decision{}, guard.Enforce)
			}
		})
	})
}
