package gateway

import (
	"cmp"
	"context"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/moat-gateway/moat/guard"
)

const (
	// fineStep and coarseStep are the widths of the buckets, which are kept for fineSpan and
	// coarseSpan.
	fineStep, fineSpan     = 10 * time.Second, time.Hour
	coarseStep, coarseSpan = time.Minute, 24 * time.Hour
	// sampleEvery is how late a count can get into its bucket.
	sampleEvery = time.Second
	// seriesPerBucket bounds what a bucket tells apart. Beyond that the routes of the least
	// frequent decisions are told no more: each counts for otherRoutes. With the reasons of
	// those a bucket has less than 1,400 counts of 8 bytes, so all 1,800 take 20 MB at most;
	// what nobody meets takes nothing.
	seriesPerBucket = 1024
	otherRoutes     = "(other routes)"
)

// kept says what a count is of.
type kept uint8

const (
	enforced = kept(guard.Enforce)
	reported = kept(guard.Report)
	wouldBe  = kept(2) // see routeStats.spared
)

// seriesKey is what is counted apart. Routes are those of the configuration, so the keys are
// as few as the counters.
type seriesKey struct {
	route  string
	reason guard.Reason
	kept   kept
}

// series remembers the counters by time. It reads them every second, so a request pays
// nothing for it. It outlives reloads, and not the process.
type series struct {
	obs *observer

	mu     sync.Mutex
	keys   []seriesKey // by id; it only grows
	ids    map[seriesKey]uint32
	last   []uint64 // by id, what the counter said
	fine   ring
	coarse ring
}

type (
	// ring holds the buckets in which something was counted, the oldest first.
	ring struct {
		step, span time.Duration
		buckets    []bucket
	}
	bucket struct {
		at     int64 // ns, a multiple of the ring's step
		counts []keyCount
	}
	keyCount struct{ key, n uint32 } // in the order of the keys
)

func newSeries(o *observer) *series {
	return &series{
		obs: o, ids: make(map[seriesKey]uint32),
		fine: ring{step: fineStep, span: fineSpan}, coarse: ring{step: coarseStep, span: coarseSpan},
	}
}

// run reads the counters until ctx is done.
func (s *series) run(ctx context.Context) {
	every(ctx, sampleEvery, func(now time.Time) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.sample(now)
	})
}

// every calls do once a period, until ctx is done.
func every(ctx context.Context, period time.Duration, do func(now time.Time)) {
	tick := time.NewTicker(period)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			do(now)
		}
	}
}

// sum is how many decisions match that were made since then. It counts the whole of the
// bucket in which that time lies: up to ten seconds more, and a minute more if that is longer
// ago than an hour. More than a day is not remembered, nor what was before the process.
func (s *series) sum(since time.Time, match func(route string, r guard.Reason, m guard.Mode) bool) (n uint64) {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sample(now)
	from := &s.fine
	if now.Sub(since) > fineSpan {
		from = &s.coarse
	}
	matches := make([]bool, len(s.keys))
	for id, k := range s.keys {
		matches[id] = k.kept != wouldBe && match(k.route, k.reason, guard.Mode(k.kept))
	}
	for _, b := range from.since(since) {
		for _, c := range b.counts {
			if matches[c.key] {
				n += uint64(c.n)
			}
		}
	}
	return n
}

// sample puts what was counted since the last time into the buckets of now. s.mu is held.
func (s *series) sample(now time.Time) {
	var counts []keyCount
	s.obs.eachCount(func(k seriesKey, total uint64) {
		id, ok := s.ids[k]
		if !ok {
			id = s.id(k)
		}
		if n := total - s.last[id]; n > 0 {
			s.last[id] = total
			counts = append(counts, keyCount{id, uint32(min(n, 1<<32-1))})
		}
	})
	slices.SortFunc(counts, byKey)
	s.fine.add(now, counts, s.fold)
	s.coarse.add(now, counts, s.fold)
}

func byKey(a, b keyCount) int { return cmp.Compare(a.key, b.key) }

func (s *series) id(k seriesKey) uint32 {
	id, ok := s.ids[k]
	if !ok {
		id = uint32(len(s.keys)) //nolint:gosec // as many as there are counters
		s.ids[k] = id
		s.keys, s.last = append(s.keys, k), append(s.last, 0)
	}
	return id
}

// fold holds a bucket to its bound: see seriesPerBucket.
func (s *series) fold(counts []keyCount) []keyCount {
	if len(counts) <= seriesPerBucket {
		return counts
	}
	slices.SortFunc(counts, func(a, b keyCount) int { return cmp.Or(cmp.Compare(b.n, a.n), byKey(a, b)) })
	var rest []keyCount
	for _, c := range counts[seriesPerBucket:] {
		k := s.keys[c.key]
		k.route = otherRoutes
		rest = append(rest, keyCount{s.id(k), c.n})
	}
	slices.SortFunc(rest, byKey)
	kept := slices.Clone(counts[:seriesPerBucket])
	slices.SortFunc(kept, byKey)
	return merge(kept, rest)
}

// add puts counts into the bucket of now, and forgets what is too old. Where the clock was set
// back, what it had counted in a time to come is forgotten.
func (r *ring) add(now time.Time, counts []keyCount, fold func([]keyCount) []keyCount) {
	at := now.Truncate(r.step).UnixNano()
	for len(r.buckets) > 0 && r.buckets[len(r.buckets)-1].at > at {
		r.buckets = r.buckets[:len(r.buckets)-1]
	}
	old := 0
	for old < len(r.buckets) && r.buckets[old].at <= at-int64(r.span) {
		old++
	}
	r.buckets = slices.Delete(r.buckets, 0, old)
	if len(counts) == 0 {
		return
	}
	if n := len(r.buckets); n == 0 || r.buckets[n-1].at < at {
		r.buckets = append(r.buckets, bucket{at: at})
	}
	b := &r.buckets[len(r.buckets)-1]
	b.counts = fold(merge(b.counts, counts))
}

// since are the buckets that end after then.
func (r *ring) since(then time.Time) []bucket {
	i := 0
	for i < len(r.buckets) && r.buckets[i].at+int64(r.step) <= then.UnixNano() {
		i++
	}
	return r.buckets[i:]
}

// merge adds two lists of counts, each in the order of its keys.
func merge(a, b []keyCount) []keyCount {
	out := make([]keyCount, 0, len(a)+len(b))
	for len(a) > 0 || len(b) > 0 {
		var c keyCount
		if len(b) == 0 || len(a) > 0 && a[0].key <= b[0].key {
			c, a = a[0], a[1:]
		} else {
			c, b = b[0], b[1:]
		}
		if n := len(out); n > 0 && out[n-1].key == c.key {
			out[n-1].n = uint32(min(uint64(out[n-1].n)+uint64(c.n), 1<<32-1))
		} else {
			out = append(out, c)
		}
	}
	return slices.Clip(out)
}

// Series is GET /series of the admin listener: decisions by time.
type Series struct {
	// Range is what was asked for: 1h, 6h or 24h.
	Range string `json:"range"`
	// From is the beginning of the first of Buckets buckets of Step seconds. The last one is
	// not over yet.
	From    time.Time `json:"from"`
	Step    int       `json:"step"`
	Buckets int       `json:"buckets"`
	// Since is when counting began: the start of the process.
	Since time.Time   `json:"since"`
	Rows  []SeriesRow `json:"rows"`
}

// SeriesRow is how often one thing was decided.
type SeriesRow struct {
	// Route is "" for requests that no route matched.
	Route  string `json:"route"`
	Step   string `json:"step"`
	Reason string `json:"reason"`
	// Mode is enforce, report, or would_refuse: requests that passed and that enforcing would
	// have refused, each counted once, for the first reason that it would have met.
	Mode string `json:"mode"`
	// Means is served, answered (by the gate), noted (and perhaps changed), refused, failed
	// (behind the gate) or aborted (by the client).
	Means string `json:"means"`
	Total uint64 `json:"total"`
	// Points are pairs: a bucket's index and its count. Buckets without any are left out.
	Points [][2]uint64 `json:"points"`
}

// seriesRanges are the ranges that can be asked for. All have 360 buckets.
var seriesRanges = map[string]struct{ span, step time.Duration }{
	"1h": {time.Hour, 10 * time.Second}, "6h": {6 * time.Hour, time.Minute}, "24h": {24 * time.Hour, 4 * time.Minute},
}

// over gathers the buckets of a range.
func (s *series) over(name string) Series {
	r := seriesRanges[name]
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sample(now)
	from := &s.fine
	if r.step > fineStep {
		from = &s.coarse
	}
	n := int(r.span / r.step)
	first := now.Truncate(r.step).Add(-r.span + r.step)
	out := Series{Range: name, From: first.UTC(), Step: int(r.step / time.Second), Buckets: n, Since: s.obs.since.UTC(), Rows: []SeriesRow{}}
	rows := make(map[uint32]*SeriesRow)
	for _, b := range from.since(first) {
		i := uint64(b.at-first.UnixNano()) / uint64(r.step) //nolint:gosec // both are after first
		for _, c := range b.counts {
			row := rows[c.key]
			if row == nil {
				row = s.keys[c.key].row()
				rows[c.key] = row
			}
			row.Total += uint64(c.n)
			if last := len(row.Points) - 1; last >= 0 && row.Points[last][0] == i {
				row.Points[last][1] += uint64(c.n)
			} else {
				row.Points = append(row.Points, [2]uint64{i, uint64(c.n)})
			}
		}
	}
	for id := range s.keys {
		if row := rows[uint32(id)]; row != nil {
			out.Rows = append(out.Rows, *row)
		}
	}
	slices.SortStableFunc(out.Rows, func(a, b SeriesRow) int { return cmp.Compare(b.Total, a.Total) })
	return out
}

func (k seriesKey) row() *SeriesRow {
	mode := "would_refuse"
	if k.kept != wouldBe {
		mode = guard.Mode(k.kept).String()
	}
	return &SeriesRow{Route: k.route, Step: k.reason.Step().String(), Reason: k.reason.String(), Mode: mode, Means: means(k.reason)}
}

// means is what a reason says of the request.
func means(r guard.Reason) string {
	switch step := r.Step(); {
	case r == guard.OK:
		return "served"
	case r == guard.RequestAborted:
		return "aborted"
	case r.Title() != "" && r.Status() == 0:
		return "answered"
	case step == guard.Upstream, step == guard.Credential && r.Status() != 0:
		return "failed"
	case r.Status() == 0:
		return "noted"
	}
	return "refused"
}

func (s *series) serve(w http.ResponseWriter, r *http.Request) {
	name := cmp.Or(r.FormValue("range"), "1h")
	if _, ok := seriesRanges[name]; !ok {
		writeJSON(w, http.StatusBadRequest, map[string]string{"error": "range is 1h, 6h or 24h"})
		return
	}
	writeJSON(w, http.StatusOK, s.over(name))
}
