package gateway

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/moat-gateway/moat/guard"
)

const (
	// liveStreams is how many may watch at a time.
	liveStreams = 8
	// liveBuffer and livePerSecond are what one who watches is sent. Nobody reads more than
	// that, and a flood must not have the gate write it to all of them.
	liveBuffer, livePerSecond = 128, 50
	// liveStall is how long one who watches may take no byte; then the connection is closed.
	liveStall = 10 * time.Second
	// liveBeat is how often a stream says that it is still there.
	liveBeat = 15 * time.Second
)

// live passes records on to those who watch. A request never waits for one of them: what does
// not fit is counted and left out.
type live struct {
	watching atomic.Int32
	missed   atomic.Uint64 // by all who ever watched

	mu      sync.Mutex
	streams map[*stream]struct{}
}

// stream is one who watches.
type stream struct {
	matches filter
	records chan Record
	missed  atomic.Uint64
}

// filter says which records are wanted. Each field that is not "" must be met.
type filter struct{ route, step, reason, mode, client string }

// filterOf reads a filter from the query. A route without a name is asked for as "-".
func filterOf(r *http.Request) filter {
	return filter{r.FormValue("route"), r.FormValue("step"), r.FormValue("reason"), r.FormValue("mode"), r.FormValue("client")}
}

func (f filter) record(r *Record) bool {
	return (f.route == "" || f.route == cmp.Or(r.Route, "-")) &&
		(f.step == "" || f.step == r.Step) && (f.reason == "" || f.reason == r.Code) &&
		(f.mode == "" || f.mode == r.Mode) &&
		(f.client == "" || strings.HasPrefix(r.Client, f.client) || f.client == r.Caller)
}

// publish tells those who watch.
func (l *live) publish(rec *Record) {
	if l.watching.Load() == 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for s := range l.streams {
		if !s.matches.record(rec) {
			continue
		}
		select {
		case s.records <- *rec:
		default:
			s.missed.Add(1)
			l.missed.Add(1)
		}
	}
}

// watch adds one who watches, if there is room.
func (l *live) watch(f filter) *stream {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.streams) >= liveStreams {
		return nil
	}
	s := &stream{matches: f, records: make(chan Record, liveBuffer)}
	if l.streams == nil {
		l.streams = make(map[*stream]struct{})
	}
	l.streams[s] = struct{}{}
	l.watching.Add(1)
	return s
}

func (l *live) leave(s *stream) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.streams, s)
	l.watching.Add(-1)
}

// serve sends records as they are made, as server-sent events: "record", and "missed" with
// how many were left out since the last time.
func (l *live) serve(w http.ResponseWriter, r *http.Request) {
	s := l.watch(filterOf(r))
	if s == nil {
		w.Header().Set("Retry-After", "10")
		writeJSON(w, http.StatusServiceUnavailable, map[string]string{"error": fmt.Sprintf("%d are watching already; close one of them", liveStreams)})
		return
	}
	defer l.leave(s)
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	rc := http.NewResponseController(w)
	rc.SetReadDeadline(time.Time{}) //nolint:errcheck // the request has been read, and the server's bound is for that
	send := func(event string, data any) bool {
		text, err := json.Marshal(data)
		if err != nil {
			return false
		}
		rc.SetWriteDeadline(time.Now().Add(liveStall)) //nolint:errcheck // the write then fails or not
		_, err = fmt.Fprintf(w, "event: %s\ndata: %s\n\n", event, text)
		return err == nil && rc.Flush() == nil
	}
	if !send("watching", map[string]int{"per_second": livePerSecond}) {
		return
	}
	beat := time.NewTicker(liveBeat)
	defer beat.Stop()
	var second int64
	sent := 0
	for {
		select {
		case <-r.Context().Done():
			return
		case <-beat.C:
			if !send("beat", s.missed.Swap(0)) {
				return
			}
		case rec := <-s.records:
			if now := time.Now().Unix(); now != second {
				if n := s.missed.Swap(0); n > 0 && !send("missed", n) {
					return
				}
				second, sent = now, 0
			}
			if sent++; sent > livePerSecond {
				s.missed.Add(1)
				l.missed.Add(1)
				continue
			}
			if !send("record", rec.explained()) {
				return
			}
		}
	}
}

// Top is GET /top: who was met most among the latest records.
type Top struct {
	// Of is how many records were looked through, and Since when the oldest was made.
	Of    int       `json:"of"`
	Since time.Time `json:"since"`
	// Clients and Callers are those met most, the worst first.
	Clients []TopEntry `json:"clients"`
	Callers []TopEntry `json:"callers"`
}

// TopEntry is one of those.
type TopEntry struct {
	Who      string `json:"who"`
	Enforced int    `json:"enforced"`
	Reported int    `json:"reported"`
	// Reason is the one that was given most.
	Reason string `json:"reason"`
}

// topEntries is how many are listed.
const topEntries = 10

func (o *observer) top(matches filter) Top {
	type seen struct {
		TopEntry
		reasons map[string]int
	}
	count := func(all map[string]*seen, who string, rec *Record) {
		if who == "" {
			return
		}
		e := all[who]
		if e == nil {
			e = &seen{TopEntry{Who: who}, make(map[string]int)}
			all[who] = e
		}
		if rec.Mode == "enforce" {
			e.Enforced++
		} else {
			e.Reported++
		}
		e.reasons[rec.Code]++
	}
	list := func(all map[string]*seen) []TopEntry {
		out := make([]TopEntry, 0, len(all))
		for _, e := range all {
			for code, n := range e.reasons {
				if best := e.reasons[e.Reason]; n > best || n == best && code < e.Reason {
					e.Reason = code
				}
			}
			out = append(out, e.TopEntry)
		}
		slices.SortFunc(out, func(a, b TopEntry) int {
			return cmp.Or(cmp.Compare(b.Enforced+b.Reported, a.Enforced+a.Reported), cmp.Compare(a.Who, b.Who))
		})
		return out[:min(len(out), topEntries)]
	}
	clients, callers := make(map[string]*seen), make(map[string]*seen)
	var t Top
	o.ringMu.Lock()
	for i := range o.ring {
		if rec := &o.ring[i]; matches.record(rec) {
			if t.Of++; t.Since.IsZero() || rec.Time.Before(t.Since) {
				t.Since = rec.Time
			}
			count(clients, rec.Client, rec)
			count(callers, rec.Caller, rec)
		}
	}
	o.ringMu.Unlock()
	t.Clients, t.Callers = list(clients), list(callers)
	return t
}

// registerDecisions serves what the observer has seen.
func (g *Gateway) registerDecisions(mux *http.ServeMux) {
	mux.HandleFunc("GET /decisions", func(w http.ResponseWriter, r *http.Request) {
		n, err := strconv.Atoi(r.FormValue("n"))
		if err != nil || n < 1 {
			n = 50
		}
		writeJSON(w, http.StatusOK, g.obs.latest(min(n, ringSize), filterOf(r)))
	})
	mux.HandleFunc("GET /decisions/{id}", func(w http.ResponseWriter, r *http.Request) {
		rec, ok := g.obs.find(r.PathValue("id"))
		if !ok {
			writeJSON(w, http.StatusNotFound, map[string]string{"error": errNotFound.Error()})
			return
		}
		writeJSON(w, http.StatusOK, struct {
			Record
			Reproduction Reproduction `json:"reproduction"`
		}{rec, g.reproduce(&rec)})
	})
	mux.HandleFunc("GET /top", func(w http.ResponseWriter, r *http.Request) { writeJSON(w, http.StatusOK, g.obs.top(filterOf(r))) })
	mux.HandleFunc("GET /series", g.obs.series.serve)
	mux.HandleFunc("GET /reasons", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, http.StatusOK, reference()) })
	mux.HandleFunc("GET /live", g.obs.live.serve)
}

// ReasonEntry is one of GET /reasons: what docs/reasons.md says, too.
type ReasonEntry struct {
	Code   string `json:"code"`
	Step   string `json:"step"`
	Status int    `json:"status,omitempty"`
	Means  string `json:"means"`
	Title  string `json:"title,omitempty"`
	Cause  string `json:"cause,omitempty"`
	Fix    string `json:"fix,omitempty"`
}

func reference() (all []ReasonEntry) {
	for _, r := range guard.Reasons() {
		all = append(all, ReasonEntry{r.String(), r.Step().String(), r.Status(), means(r), r.Title(), r.Cause(), r.Fix()})
	}
	return all
}
