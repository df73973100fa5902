package gateway

import (
	"context"
	"encoding/base32"
	"encoding/binary"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/moat-gateway/moat/guard"
	"github.com/moat-gateway/moat/guard/ratelimit"
)

const (
	// ringSize is how many decisions are kept for `moat why`.
	ringSize = 4096
	// evidenceBytes bounds each text of a record: what a client sends can be long.
	evidenceBytes = 256
	// logPerSecond bounds the lines that refusals may cause. A flood must not fill the
	// disk; what is left out is counted and said.
	logPerSecond = 100
)

// Record is a decision as the operator sees it. Of the request it holds what decided, and the
// headers of sentHeaders: no credential, cookie or ticket, no value of the query and no body.
type Record struct {
	ID       string    `json:"id"`
	Time     time.Time `json:"time"`
	Route    string    `json:"route"`
	Step     string    `json:"step"`
	Code     string    `json:"code"`
	Mode     string    `json:"mode"`
	Status   int       `json:"status,omitempty"`
	Client   string    `json:"client,omitempty"`
	Caller   string    `json:"caller,omitempty"`
	Method   string    `json:"method"`
	Host     string    `json:"host"`
	Path     string    `json:"path"`
	Where    string    `json:"where,omitempty"`
	Got      string    `json:"got,omitempty"`
	Want     string    `json:"want,omitempty"`
	Cause    string    `json:"cause"`
	Fix      string    `json:"fix"`
	UserSees string    `json:"client_was_told,omitempty"`

	sent sent
}

// observer counts, remembers and logs decisions.
type observer struct {
	log     *slog.Logger
	reg     *prometheus.Registry
	tunnels tunnels
	limits  *limitsSeen
	models  *modelsSeen
	series  *series
	since   time.Time // when counting began
	// spendings is what has become of calls with budgets.
	spendings spendings

	statsMu sync.Mutex
	stats   map[string]*routeStats
	latency *prometheus.HistogramVec
	reloads [2]atomic.Uint64 // refused, applied
	// reloadRefused says that the last of them was.
	reloadRefused atomic.Bool

	ringMu sync.Mutex
	ring   []Record
	next   int
	live   live

	// storeDown says that the rate limits' shared store was last found not to answer, and
	// storeNoted in which second that changed.
	storeDown  atomic.Bool
	storeNoted atomic.Int64
	logSecond  atomic.Int64
	// held and heldAnswers are the bytes of bodies and answers that are in memory to be judged.
	held        room
	heldAnswers atomic.Int64
	logged      atomic.Int64
}

func newObserver(log *slog.Logger) *observer {
	o := &observer{
		log: log, reg: prometheus.NewRegistry(), stats: make(map[string]*routeStats), limits: newLimitsSeen(), since: time.Now(),
		spendings: spendings{refused: make(map[spendingRefused]uint64)},
		latency: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "moat_upstream_response_seconds", Help: "Time from sending a request to the head of the upstream's answer.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60},
		}, []string{"route"}),
	}
	o.reg.MustRegister(o.latency)
	o.models = newModelsSeen(o.reg)
	o.series = newSeries(o)
	return o
}

// routeStats counts a route's decisions. It outlives reloads.
type routeStats struct {
	route   string
	counts  [guard.NumReasons][2]atomic.Uint64 // by reason; enforced, reported
	answers [6]atomic.Uint64                   // of the upstream, by the first digit of the status
	latency prometheus.Observer
	// spared are the requests that passed and that enforcing would have refused, each counted
	// once, by the first reason that it would have met.
	spared [guard.NumReasons]atomic.Uint64
	// unchecked are answers that were not judged, by why.
	unchecked [numSkipped]atomic.Uint64
}

func (o *observer) routeStats(route string) *routeStats {
	o.statsMu.Lock()
	defer o.statsMu.Unlock()
	s := o.stats[route]
	if s == nil {
		s = &routeStats{route: route, latency: o.latency.WithLabelValues(route)}
		o.stats[route] = s
	}
	return s
}

func (s *routeStats) count(r guard.Reason, m guard.Mode) { s.counts[r][m&1].Add(1) }

// eachCount tells every counter that is not zero.
func (o *observer) eachCount(tell func(seriesKey, uint64)) {
	o.statsMu.Lock()
	defer o.statsMu.Unlock()
	for route, s := range o.stats {
		for i := range s.counts {
			k := seriesKey{route: route, reason: guard.Reason(i)}
			for m := range s.counts[i] {
				if n := s.counts[i][m].Load(); n > 0 {
					k.kept = kept(m)
					tell(k, n)
				}
			}
			if n := s.spared[i].Load(); n > 0 {
				k.kept = wouldBe
				tell(k, n)
			}
		}
	}
}

// answered counts an upstream's answer. The transport lets no status through that has not three digits.
func (s *routeStats) answered(status int, d time.Duration) {
	s.answers[min(status/100, 5)].Add(1)
	s.latency.Observe(d.Seconds())
}

// statsOf is where a request's decisions are counted: its route, or the unrouted.
func statsOf(st *state, x *exchange) *routeStats {
	if x.route == nil {
		return st.unrouted
	}
	return x.route.stats
}

// end answers a request that ends at the gate.
func (g *Gateway) end(st *state, x *exchange, w http.ResponseWriter, r *http.Request, d guard.Decision) {
	if !d.Denied() {
		statsOf(st, x).count(d.Reason, guard.Enforce)
		w.WriteHeader(http.StatusNoContent)
		return
	}
	if d.Reason == guard.RequestAborted {
		// Clients come and go: that is worth a count, no record and no line in the log.
		statsOf(st, x).count(d.Reason, guard.Enforce)
		panic(http.ErrAbortHandler)
	}
	g.patience(w, r)(true)
	x.leaveUnread(w, r)
	guard.Refuse(w, d.Reason, g.obs.record(st, x, r, d, guard.Enforce), x.members...)
}

// report records what guards in report mode would have done.
func (o *observer) report(st *state, x *exchange, r *http.Request) {
	for _, d := range x.reports {
		o.record(st, x, r, d, guard.Report)
	}
}

// record counts, remembers and logs a decision, and returns its id.
func (o *observer) record(st *state, x *exchange, r *http.Request, d guard.Decision, m guard.Mode) string {
	stats := statsOf(st, x)
	stats.count(d.Reason, m)
	if refuses := d.Denied() && means(d.Reason) == "refused"; refuses && m == guard.Enforce {
		x.refused = true
	} else if refuses && x.spared == guard.OK {
		x.spared = d.Reason
	}
	if m == guard.Enforce && st.observe != nil && d.Reason != guard.BotSuspected { // who goes on is told when his request is decided
		st.observe(r, x.verdict(d, x.w.Header()))
	}
	rec := Record{
		ID: newID(), Time: time.Now().UTC(), Route: stats.route, Step: d.Reason.Step().String(), Code: d.Reason.String(), Mode: m.String(),
		Method: bound(r, r.Method), Host: bound(r, r.Host), Path: bound(r, r.URL.Path),
		Where: d.Evidence.Where, Want: d.Evidence.Want,
		Got: strings.Clone(bound(r, d.Evidence.Got)), // it may be a part of a long line
	}
	rec.sent = x.keep(r)
	if x.client.IsValid() {
		rec.Client = x.client.String()
	} else if host, _, err := net.SplitHostPort(r.RemoteAddr); err == nil {
		rec.Client = host
	}
	if x.caller != nil {
		rec.Caller = bound(r, x.caller.ID())
	}
	o.ringMu.Lock()
	if len(o.ring) < ringSize {
		o.ring = append(o.ring, rec)
	} else {
		o.ring[o.next] = rec
	}
	o.next = (o.next + 1) % ringSize
	o.ringMu.Unlock()
	o.live.publish(&rec)
	o.logRecord(&rec)
	return rec.ID
}

// store notes whether the store that the rate limits are shared through answers, at most
// once a second. A client that went away meanwhile says nothing about it, nor does a request
// that was decided without asking it: the store itself says when it answers again.
func (o *observer) store(shared ratelimit.Store, err error) {
	down := err != nil
	if errors.Is(err, context.Canceled) || down == o.storeDown.Load() {
		return
	}
	if s, ok := shared.(interface{ Answering() bool }); !down && ok && !s.Answering() {
		return
	}
	last, now := o.storeNoted.Load(), time.Now().Unix()
	if now == last || !o.storeNoted.CompareAndSwap(last, now) {
		return
	}
	o.storeDown.Store(down)
	if down {
		o.log.Error("the rate limits' store does not answer", slog.Any("error", err), slog.String("meanwhile", "each route does what its store_down says"))
	} else {
		o.log.Info("the rate limits' store answers again")
	}
}

// mayLog holds the lines that clients cause to logPerSecond, and says what was left out.
func (o *observer) mayLog(now time.Time) bool {
	second := now.Unix()
	if last := o.logSecond.Load(); last != second && o.logSecond.CompareAndSwap(last, second) {
		if left := o.logged.Swap(0) - logPerSecond; left > 0 {
			o.log.Warn("events not logged", slog.Int64("count", left))
		}
	}
	return o.logged.Add(1) <= logPerSecond
}

// Write takes what net/http's server has to say, which clients can cause too.
func (o *observer) Write(p []byte) (int, error) {
	if o.mayLog(time.Now()) {
		o.log.Warn("server", slog.String("message", strings.TrimSpace(string(p))))
	}
	return len(p), nil
}

// logRecord logs where to look, not what came: the record has that.
func (o *observer) logRecord(rec *Record) {
	if !o.mayLog(rec.Time) {
		return
	}
	attrs := []slog.Attr{
		slog.String("id", rec.ID), slog.String("code", rec.Code), slog.String("step", rec.Step),
		slog.String("route", rec.Route), slog.String("mode", rec.Mode), slog.String("client", rec.Client),
	}
	switch {
	case rec.Step == guard.Cookie.String() && rec.Mode == guard.Enforce.String():
		o.log.LogAttrs(context.Background(), slog.LevelWarn, "cookie removed from an answer", attrs...)
	case rec.Step == guard.Cookie.String():
		o.log.LogAttrs(context.Background(), slog.LevelInfo, "cookie would be changed", attrs...)
	case rec.Code == guard.BotSuspected.String() && rec.Mode == guard.Enforce.String():
		o.log.LogAttrs(context.Background(), slog.LevelInfo, "request made dearer", attrs...)
	case rec.Code == guard.BotSuspected.String():
		o.log.LogAttrs(context.Background(), slog.LevelInfo, "request would be made dearer", attrs...)
	case rec.Mode == guard.Report.String():
		o.log.LogAttrs(context.Background(), slog.LevelInfo, "request would be refused", attrs...)
	case rec.Code == guard.CredentialEchoed.String():
		o.log.LogAttrs(context.Background(), slog.LevelWarn, "credential masked in an answer", attrs...)
	case rec.Code == guard.ModelUsageEstimated.String():
		o.log.LogAttrs(context.Background(), slog.LevelInfo, "call to a model estimated", attrs...)
	case rec.Step == guard.Upstream.String():
		o.log.LogAttrs(context.Background(), slog.LevelWarn, "request failed", attrs...)
	default:
		o.log.LogAttrs(context.Background(), slog.LevelInfo, "request refused", attrs...)
	}
}

// find returns the record with that id.
func (o *observer) find(id string) (Record, bool) {
	o.ringMu.Lock()
	defer o.ringMu.Unlock()
	for i := range o.ring {
		if o.ring[i].ID == id {
			return o.ring[i].explained(), true
		}
	}
	return Record{}, false
}

// latest returns up to n records that match, newest first.
func (o *observer) latest(n int, matches filter) []Record {
	o.ringMu.Lock()
	defer o.ringMu.Unlock()
	out := make([]Record, 0, min(n, len(o.ring)))
	for i := 1; i <= len(o.ring) && len(out) < n; i++ {
		if rec := &o.ring[(o.next-i+len(o.ring))%len(o.ring)]; matches.record(rec) {
			out = append(out, rec.explained())
		}
	}
	return out
}

// explained fills in what follows from the code.
func (r Record) explained() Record {
	reason, _ := guard.ParseReason(r.Code)
	r.Cause, r.Fix, r.UserSees, r.Status = reason.Cause(), reason.Fix(), reason.Title(), reason.Status()
	if r.Mode != guard.Enforce.String() {
		r.UserSees, r.Status = "", 0
	}
	return r
}

// bound shortens what a client sent to what a record holds. Copying keeps a long head
// from living on in the ring, and a short one is not worth it.
func bound(r *http.Request, s string) string {
	if len(s) <= evidenceBytes {
		if len(r.RequestURI) <= 2*evidenceBytes {
			return s
		}
		return strings.Clone(s)
	}
	return strings.ToValidUTF8(s[:evidenceBytes], "") + "…"
}

var idEncoding = base32.NewEncoding("0123456789abcdefghjkmnpqrstvwxyz").WithPadding(base32.NoPadding)

// newID makes an id that is short enough to read out. It is no secret: whoever asks the
// admin listener may see every record anyway.
func newID() string {
	var b [10]byte
	binary.NativeEndian.PutUint64(b[:8], rand.Uint64())                //nolint:gosec // see above.
	binary.NativeEndian.PutUint16(b[8:], uint16(rand.Uint32()&0xffff)) //nolint:gosec // see above.
	return idEncoding.EncodeToString(b[:])
}

// tunnels are the hijacked connections, which the server does not know any more.
type tunnels struct {
	mu    sync.Mutex
	conns map[net.Conn]struct{}
}

func (t *tunnels) add(c net.Conn) (remove func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.conns == nil {
		t.conns = make(map[net.Conn]struct{})
	}
	t.conns[c] = struct{}{}
	return func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		delete(t.conns, c)
	}
}

func (t *tunnels) count() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.conns)
}

// closeAll ends every tunnel: a WebSocket does not end by itself.
func (t *tunnels) closeAll() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for c := range t.conns {
		c.Close() //nolint:errcheck // its goroutines notice.
	}
}
