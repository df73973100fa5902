package gateway

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/moat-gateway/moat/guard"
)

func anything(string, guard.Reason, guard.Mode) bool { return true }

// TestSeriesCountsByTime: what is counted stands in the bucket of its time, and a sum takes
// no more than what it asks for and the rest of the first bucket.
func TestSeriesCountsByTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newObserver(nil)
		a, b := o.routeStats("a"), o.routeStats("b")
		a.count(guard.OK, guard.Enforce)
		o.series.over("1h")
		time.Sleep(5 * time.Minute)
		a.count(guard.HostNotAllowed, guard.Enforce)
		b.count(guard.HostNotAllowed, guard.Report)
		b.count(guard.HostNotAllowed, guard.Report)
		b.spared[guard.HostNotAllowed].Add(1)

		for _, x := range []struct {
			since time.Duration
			match func(string, guard.Reason, guard.Mode) bool
			want  uint64
		}{
			{time.Minute, anything, 3},
			{10 * time.Minute, anything, 4},
			{10 * time.Minute, func(route string, _ guard.Reason, _ guard.Mode) bool { return route == "a" }, 2},
			{10 * time.Minute, func(_ string, _ guard.Reason, m guard.Mode) bool { return m == guard.Report }, 2},
			{20 * time.Hour, anything, 4},
		} {
			if got := o.series.sum(time.Now().Add(-x.since), x.match); got != x.want {
				t.Errorf("the last %s: %d; want %d", x.since, got, x.want)
			}
		}

		s := o.series.over("1h")
		want := map[string]uint64{"a ok enforce": 1, "a host-not-allowed enforce": 1, "b host-not-allowed report": 2, "b host-not-allowed would_refuse": 1}
		if len(s.Rows) != len(want) {
			t.Errorf("%d rows: %+v", len(s.Rows), s.Rows)
		}
		for _, row := range s.Rows {
			if name := row.Route + " " + row.Reason + " " + row.Mode; row.Total != want[name] {
				t.Errorf("%s: %d; want %d", name, row.Total, want[name])
			}
			at := s.From.Add(time.Duration(row.Points[0][0]) * time.Duration(s.Step) * time.Second)
			since := 5 * time.Minute
			if row.Reason != "ok" {
				since = 0
			}
			if d := time.Since(at) - since; d < 0 || d >= 10*time.Second {
				t.Errorf("%s stands in the bucket of %s before its time", row.Reason, d)
			}
		}

		time.Sleep(2 * time.Hour)
		if s := o.series.over("1h"); len(s.Rows) != 0 {
			t.Errorf("after two hours the last one has %+v", s.Rows)
		}
		if got := o.series.sum(time.Now().Add(-3*time.Hour), anything); got != 4 {
			t.Errorf("after two hours the last three have %d; want 4", got)
		}
		time.Sleep(24 * time.Hour)
		if s := o.series.over("24h"); len(s.Rows) != 0 {
			t.Errorf("after a day the last one has %+v", s.Rows)
		}
	})
}

// TestSeriesIsSampledEverySecond: whoever asks late still learns when.
func TestSeriesIsSampledEverySecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newObserver(nil)
		go o.series.run(t.Context())
		for range 60 {
			o.routeStats("a").count(guard.OK, guard.Enforce)
			time.Sleep(10 * time.Second)
		}
		if s := o.series.over("1h"); len(s.Rows) != 1 || len(s.Rows[0].Points) < 59 {
			t.Errorf("one count in each of 60 buckets is %+v", s.Rows)
		}
		if s := o.series.over("24h"); len(s.Rows) != 1 || len(s.Rows[0].Points) > 4 || s.Rows[0].Total != 60 {
			t.Errorf("ten minutes are %+v of a day", s.Rows)
		}
	})
}

// TestSeriesAreBounded: a gate with very many routes, all of which refuse for every reason at
// once, keeps every count by its reason, and no more than the bound.
func TestSeriesAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newObserver(nil)
		const routes = 100
		for i := range routes {
			s := o.routeStats(fmt.Sprintf("route %d", i))
			for r := range guard.NumReasons {
				s.count(guard.Reason(r), guard.Enforce)
				s.count(guard.Reason(r), guard.Enforce)
				s.count(guard.Reason(r), guard.Report)
			}
		}
		if got, want := o.series.sum(time.Now(), anything), uint64(3*routes*guard.NumReasons); got != want {
			t.Errorf("%d in all; want %d", got, want)
		}
		for _, b := range append(o.series.fine.buckets, o.series.coarse.buckets...) {
			if most := seriesPerBucket + 3*guard.NumReasons; len(b.counts) > most || cap(b.counts) > most {
				t.Errorf("a bucket has %d counts, room for %d; want %d", len(b.counts), cap(b.counts), most)
			}
		}
		of := func(want guard.Mode) func(string, guard.Reason, guard.Mode) bool {
			return func(_ string, r guard.Reason, m guard.Mode) bool { return r == guard.BotDenied && m == want }
		}
		if e, r := o.series.sum(time.Now(), of(guard.Enforce)), o.series.sum(time.Now(), of(guard.Report)); e != 2*routes || r != routes {
			t.Errorf("of one reason %d enforced and %d reported; want %d and %d", e, r, 2*routes, routes)
		}
	})
}

// TestSeriesWhenTheClockIsSetBack: nothing of a time to come is left, and counting goes on.
func TestSeriesWhenTheClockIsSetBack(t *testing.T) {
	now := time.Now()
	same := func(c []keyCount) []keyCount { return c }
	r := ring{step: fineStep, span: fineSpan}
	r.add(now, []keyCount{{0, 1}}, same)
	r.add(now.Add(-30*time.Minute), []keyCount{{0, 2}}, same)
	if len(r.buckets) != 1 || r.buckets[0].counts[0].n != 2 {
		t.Errorf("the buckets are %+v", r.buckets)
	}
}
