package gateway

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/moat-gateway/moat/guard"
	"github.com/moat-gateway/moat/guard/ratelimit"
	"github.com/moat-gateway/moat/store/memory"
)

// limitsSeen is what the gate has seen its rate limits do.
type limitsSeen struct {
	watch *ratelimit.Watch

	mu         sync.Mutex
	refused    map[refusedBy]uint64
	unanswered uint64 // by the store
	lastError  string
	lastAt     time.Time
}

// refusedBy is a label set: limits and routes have the names of the configuration.
type refusedBy struct {
	limit, route string
	mode         guard.Mode
}

func newLimitsSeen() *limitsSeen {
	return &limitsSeen{watch: ratelimit.NewWatch(), refused: make(map[refusedBy]uint64)}
}

// note remembers what the rate limits made of a request. Those whose client is known count
// for it, whether the limits were asked or another guard had refused them already.
func (s *limitsSeen) note(x *exchange, d guard.Decision) {
	if x.route == nil {
		return
	}
	d, mode := x.limited(d)
	of := x.grants[0]
	for _, grant := range x.grants {
		if grant == nil {
			continue
		}
		if _, _, refused := grant.Refusal(); refused || of == nil {
			of = grant
		}
	}
	s.watch.Note(x.client, of, d, mode)
	if of == nil || !d.Denied() && x.unanswered() == nil {
		return
	}
	unanswered := x.unanswered()
	if errors.Is(unanswered, context.Canceled) {
		unanswered = nil // the client did not wait
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if k, _, ok := of.Refusal(); ok {
		s.refused[refusedBy{k.Limit, x.route.name, mode}]++
	}
	if unanswered != nil {
		s.unanswered++
		s.lastError, s.lastAt = unanswered.Error(), time.Now()
	}
}

// unanswered is why a store could not be asked, if one could not.
func (x *exchange) unanswered() error {
	for _, grant := range x.grants {
		if grant != nil && grant.Degraded != nil {
			return grant.Degraded
		}
	}
	return nil
}

// limited is the refusal of the rate limits, if there is one, given the decision that the
// request ended with.
func (x *exchange) limited(d guard.Decision) (guard.Decision, guard.Mode) {
	if d.Denied() && d.Reason.Step() == guard.RateLimit {
		return d, guard.Enforce
	}
	for _, d := range x.reports {
		if d.Reason.Step() == guard.RateLimit {
			return d, guard.Report
		}
	}
	return guard.Decision{}, guard.Enforce
}

// Limits is what the rate limits do at the moment, as the operator sees it: GET /limits of
// the admin listener.
type Limits struct {
	// Limited are the keys that have to wait now, those refused most first, and LimitedInAll
	// is how many there are.
	Limited      []LimitedKey `json:"limited"`
	LimitedInAll int          `json:"limited_in_all"`
	// Talkers are the clients that have asked most since TalkersSince, and Requests how
	// often all clients have.
	Talkers      []Talker       `json:"talkers"`
	TalkersSince time.Time      `json:"talkers_since"`
	Requests     uint64         `json:"requests"`
	Limits       []LimitInForce `json:"limits"`
	Store        *LimitStore    `json:"store,omitempty"`
}

// LimitedKey is a ratelimit.Limited.
type LimitedKey struct {
	Limit   string    `json:"limit"`
	Key     string    `json:"key"`
	Reason  string    `json:"reason"`
	Want    string    `json:"want"`
	Mode    string    `json:"mode"`
	Since   time.Time `json:"since"`
	Refused uint64    `json:"refused"`
	Again   int64     `json:"again_in_seconds"`
}

// Talker is a ratelimit.Talker.
type Talker struct {
	Client   string `json:"client"`
	Requests uint64 `json:"requests"`
	// AtLeast says that there may have been more.
	AtLeast bool `json:"at_least,omitempty"`
	// Refused by the rate limits. WouldRefuse are those that limits in report mode let pass.
	Refused     uint64 `json:"refused"`
	WouldRefuse uint64 `json:"would_refuse"`
	// Share of all clients' requests.
	Share float64 `json:"share"`
}

// LimitInForce is a rate limit, and where it holds. One that is enforced on some routes and
// reported on others is listed twice.
type LimitInForce struct {
	Name   string      `json:"name"`
	Limit  string      `json:"limit,omitempty"`
	AtOnce int         `json:"at_once,omitempty"`
	By     []string    `json:"by"`
	Tiers  []LimitTier `json:"tiers,omitempty"`
	Mode   string      `json:"mode"`
	Routes []string    `json:"routes"`
}

// LimitTier is a ratelimit.Tier.
type LimitTier struct {
	For    []netip.Prefix `json:"for,omitempty"`
	Claim  string         `json:"claim,omitempty"`
	Values []string       `json:"values,omitempty"`
	Exempt bool           `json:"exempt,omitempty"`
	Limit  string         `json:"limit,omitempty"`
	AtOnce int            `json:"at_once,omitempty"`
}

// LimitStore is where the debts are.
type LimitStore struct {
	// Kind is "memory", or that of the shared store.
	Kind string `json:"kind"`
	// Nodes is how many processes share the store, and Unanswered how many requests of this
	// one it has not answered in time.
	Nodes       int        `json:"nodes,omitempty"`
	Down        bool       `json:"down,omitempty"` // it is not asked at the moment, because it does not answer
	Unanswered  uint64     `json:"unanswered"`
	LastError   string     `json:"last_error,omitempty"`
	LastErrorAt *time.Time `json:"last_error_at,omitempty"`
	// Bytes is the size of this process's table, Slots how many debts have room in it and
	// Occupied the share of those that hold one. Evicted debts were forgotten early, for
	// lack of room; EvictedLimited of them were of clients that had been refused.
	Bytes          int     `json:"bytes"`
	Slots          int     `json:"slots"`
	Occupied       float64 `json:"occupied"`
	Evicted        uint64  `json:"evicted"`
	EvictedLimited uint64  `json:"evicted_limited"`
}

// limitsNow answers GET /limits, with up to n keys and n talkers.
func (g *Gateway) limitsNow(n int) Limits {
	st, watch := g.state.Load(), g.obs.limits.watch
	out := Limits{Limited: []LimitedKey{}, Talkers: []Talker{}, Limits: []LimitInForce{}, Store: g.limitStore(st)}
	var rows []ratelimit.Limited
	rows, out.LimitedInAll = watch.Limited(n)
	for _, l := range rows {
		out.Limited = append(out.Limited, LimitedKey{
			Limit: l.Key.Limit, Key: l.Key.Text(), Reason: l.Reason.String(), Want: l.Want, Mode: l.Mode.String(),
			Since: l.Since.UTC(), Refused: l.Refused, Again: int64(math.Ceil(time.Until(l.Again).Seconds())),
		})
	}
	all := watch.Talkers(n)
	out.TalkersSince, out.Requests = all.Since.UTC(), all.Requests
	for _, t := range all.Top {
		out.Talkers = append(out.Talkers, Talker{
			Client: ratelimit.Key{Net: t.Client}.Text(), Requests: t.Requests, AtLeast: t.AtLeast,
			Refused: t.Refused, WouldRefuse: t.Reported, Share: float64(t.Requests) / float64(all.Requests),
		})
	}
	for _, in := range st.limitsInForce() {
		l := LimitInForce{Name: in.rule.Name, Limit: limitText(in.rule.Limit), AtOnce: in.rule.AtOnce, By: []string{}, Mode: in.mode.String()}
		for _, f := range in.rule.By {
			l.By = append(l.By, factName(f))
		}
		for _, claim := range in.rule.ByClaims {
			l.By = append(l.By, "claim:"+claim)
		}
		for _, t := range in.rule.Tiers {
			l.Tiers = append(l.Tiers, LimitTier{For: t.For, Claim: t.Claim, Values: t.Values, Exempt: t.Exempt, Limit: limitText(t.Limit), AtOnce: t.AtOnce})
		}
		for _, rt := range in.routes {
			l.Routes = append(l.Routes, rt.name)
		}
		out.Limits = append(out.Limits, l)
	}
	return out
}

// limitInForce is a rule and the routes on which it holds in one mode.
type limitInForce struct {
	rule   ratelimit.Rule
	mode   guard.Mode
	routes []*route
}

func (s *state) limitsInForce() []limitInForce {
	var out []limitInForce
	for _, rt := range slices.Concat(s.routes, s.own) {
		if !rt.limited() {
			continue
		}
		mode := rt.modes[guard.RateLimit]
		for _, rule := range rt.rules {
			i := slices.IndexFunc(out, func(l limitInForce) bool { return l.rule.Name == rule.Name && l.mode == mode })
			if i < 0 {
				i, out = len(out), append(out, limitInForce{rule: rule, mode: mode})
			}
			out[i].routes = append(out[i].routes, rt)
		}
	}
	slices.SortStableFunc(out, func(a, b limitInForce) int {
		return cmp.Or(cmp.Compare(a.rule.Name, b.rule.Name), cmp.Compare(a.mode, b.mode))
	})
	return out
}

func limitText(l ratelimit.Limit) string {
	if l == (ratelimit.Limit{}) {
		return ""
	}
	return l.String()
}

func factName(f ratelimit.Fact) string {
	switch f {
	case ratelimit.Address:
		return "address"
	case ratelimit.Route:
		return "route"
	case ratelimit.Method:
		return "method"
	case ratelimit.NewAddress:
		return "new_address"
	case ratelimit.Principal:
		return "principal"
	case ratelimit.Credential:
		return "api_key"
	case ratelimit.Account:
		return "account"
	}
	return fmt.Sprintf("Fact(%d)", f)
}

// limitStore says where the debts are, if the state has any. It is then safe to read
// g.debts, which is made before the first such state and never exchanged.
func (g *Gateway) limitStore(st *state) *LimitStore {
	if !slices.ContainsFunc(slices.Concat(st.routes, st.own), func(rt *route) bool { return rt.limited() }) {
		return nil
	}
	out := &LimitStore{Kind: "memory"}
	if st.shared != nil {
		out.Kind, _, _ = strings.Cut(strings.TrimPrefix(fmt.Sprintf("%T", st.shared), "*"), ".")
		if s, ok := st.shared.(interface{ Nodes() int }); ok {
			out.Nodes = s.Nodes()
		}
		if s, ok := st.shared.(interface{ Answering() bool }); ok {
			out.Down = !s.Answering()
		}
	}
	if s, ok := g.debts.(interface{ Stats() memory.Stats }); ok {
		table := s.Stats()
		out.Bytes, out.Slots, out.Occupied = table.Bytes, table.Slots, table.Occupied
		out.Evicted, out.EvictedLimited = table.Evicted, table.EvictedThrottled
	}
	seen := g.obs.limits
	seen.mu.Lock()
	defer seen.mu.Unlock()
	out.Unanswered, out.LastError = seen.unanswered, seen.lastError
	if seen.lastError != "" {
		at := seen.lastAt.UTC()
		out.LastErrorAt = &at
	}
	return out
}

// LimitsReset is what a reset has done: the answer to DELETE /limits.
type LimitsReset struct {
	Reset []ResetKey `json:"reset"`
	// StillLimited are keys of wider networks, or of everybody, that hold the client back
	// all the same.
	StillLimited []ResetKey `json:"still_limited,omitempty"`
}

// ResetKey is a key of a limit.
type ResetKey struct {
	Limit string `json:"limit"`
	Key   string `json:"key"`
}

// Refusals of a reset.
var (
	errNoSuchLimit = errors.New("no such limit")
	errNoSuchKey   = errors.New("no such key")
)

// resetLimit forgets the debt of a key, given as Key.Text writes it, to the limit of that
// name, or to all that have such a key. An address, or "everybody", alone stands for all
// routes and declared methods where the limit counts by them.
func (g *Gateway) resetLimit(ctx context.Context, name, text string) (LimitsReset, error) {
	st := g.state.Load()
	keys, err := st.keysOf(name, text)
	if err != nil {
		return LimitsReset{}, err
	}
	var out LimitsReset
	for _, k := range keys {
		for _, tier := range st.keyNames(k.Limit) {
			k := k
			k.Limit = tier
			for _, s := range []ratelimit.Store{g.debts, st.shared} {
				if s == nil {
					continue
				}
				if err = s.Reset(ctx, k); err != nil {
					return out, fmt.Errorf("limit %q: %s: the limits' store: %w", k.Limit, k.Text(), err)
				}
			}
			g.obs.limits.watch.Forget(k)
		}
		out.Reset = append(out.Reset, ResetKey{k.Limit, k.Text()})
		g.obs.log.Info("rate limit reset", slog.String("limit", k.Limit), slog.String("key", k.Text()))
	}
	rows, _ := g.obs.limits.watch.Limited(math.MaxInt)
	for _, l := range rows {
		if l.Mode == guard.Enforce && slices.ContainsFunc(keys, func(k ratelimit.Key) bool { return holds(l.Key, k) }) {
			out.StillLimited = append(out.StillLimited, ResetKey{l.Key.Limit, l.Key.Text()})
		}
	}
	return out, nil
}

// keyNames are the limits that keys of the rule of that name can have.
func (s *state) keyNames(rule string) []string {
	for _, l := range s.limitsInForce() {
		if l.rule.Name == rule {
			return l.rule.KeyNames()
		}
	}
	return nil
}

// holds reports whether what a limit refuses to key a may be a request of key b.
func holds(a, b ratelimit.Key) bool {
	return (!a.Net.IsValid() || b.Net.IsValid() && a.Net.Bits() <= b.Net.Bits() && a.Net.Contains(b.Net.Addr())) &&
		(a.Who == "" || a.Who == b.Who) && (a.Route == "" || b.Route == "" || a.Route == b.Route) && (a.Method == "" || b.Method == "" || a.Method == b.Method)
}

// keysOf finds the keys that a text stands for.
func (s *state) keysOf(name, text string) ([]ratelimit.Key, error) {
	var (
		out   []ratelimit.Key
		names []string
		fault error
	)
	for _, l := range s.limitsInForce() {
		names = append(names, l.rule.Name)
		if name != "" && name != l.rule.Name {
			continue
		}
		keys, err := l.keys(text, name != "")
		if err != nil {
			fault = err
		}
		out = append(out, keys...)
	}
	slices.Sort(names)
	switch names = slices.Compact(names); {
	case len(names) == 0:
		return nil, fmt.Errorf("%w: no rate limit is in force", errNoSuchLimit)
	case name != "" && !slices.Contains(names, name):
		return nil, fmt.Errorf("%w: %q; in force: %s", errNoSuchLimit, name, strings.Join(names, ", "))
	case len(out) == 0 && len(names) > 1 && name == "":
		return nil, fmt.Errorf("%w: %q: none of the limits counts by that: %s", errNoSuchKey, text, strings.Join(names, ", "))
	case len(out) == 0:
		return nil, fmt.Errorf("%w: %q: limit %q: %w", errNoSuchKey, text, cmp.Or(name, names[0]), fault)
	}
	slices.SortFunc(out, func(a, b ratelimit.Key) int {
		return cmp.Or(cmp.Compare(a.Limit, b.Limit), cmp.Compare(a.Text(), b.Text()))
	})
	return slices.Compact(out), nil
}

// keys are those that the text stands for. A limit that is not named is not meant by what
// would only be a key of clients without an address.
func (l *limitInForce) keys(text string, named bool) ([]ratelimit.Key, error) {
	if l.rule.Limit == (ratelimit.Limit{}) {
		return nil, errors.New("bounds only what is under way, which ends by itself")
	}
	k, err := l.rule.ParseKey(text)
	if err != nil {
		return nil, err
	}
	by := func(f ratelimit.Fact) bool { return slices.Contains(l.rule.By, f) }
	byName := by(ratelimit.Principal) || by(ratelimit.Credential) || by(ratelimit.Account) || len(l.rule.ByClaims) > 0
	if !named && !k.Net.IsValid() && (by(ratelimit.Address) || byName && k.Who == "") {
		return nil, errors.New("counts by address or name; name the limit to mean clients whose address is not known")
	}
	whole := k.Route == "" && k.Method == "" // of the routes and methods
	var out []ratelimit.Key
	for _, rt := range l.routes {
		if by(ratelimit.Route) && !whole && rt.name != k.Route {
			continue
		}
		if by(ratelimit.Route) {
			k.Route = rt.name
		}
		methods := []string{k.Method}
		if by(ratelimit.Method) && whole {
			methods = rt.methods
		}
		for _, k.Method = range methods {
			out = append(out, k)
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("does not hold on a route %q", k.Route)
	}
	return out, nil
}

// registerLimits adds the rate limits to the admin listener.
func (g *Gateway) registerLimits(mux *http.ServeMux) {
	mux.HandleFunc("GET /limits", func(w http.ResponseWriter, r *http.Request) {
		n, err := strconv.Atoi(r.FormValue("n"))
		if err != nil || n < 1 {
			n = 50
		}
		writeJSON(w, http.StatusOK, g.limitsNow(n))
	})
	mux.HandleFunc("DELETE /limits", func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		done, err := g.resetLimit(r.Context(), q.Get("limit"), q.Get("key"))
		switch {
		case err == nil:
			writeJSON(w, http.StatusOK, done)
		case errors.Is(err, errNoSuchLimit):
			writeJSON(w, http.StatusNotFound, map[string]string{"error": err.Error()})
		case errors.Is(err, errNoSuchKey):
			writeJSON(w, http.StatusBadRequest, map[string]string{"error": err.Error()})
		default:
			writeJSON(w, http.StatusServiceUnavailable, map[string]string{"error": err.Error()})
		}
	})
}

var (
	rateLimitedDesc = prometheus.NewDesc("moat_rate_limited_total", "Requests that a rate limit refused, or would have refused.", []string{"limit", "route", "mode"}, nil)
	unansweredDesc  = prometheus.NewDesc("moat_limit_store_unanswered_total", "Requests for which the shared store of the rate limits gave no answer in time.", nil, nil)
	tableBytesDesc  = prometheus.NewDesc("moat_limit_table_bytes", "Size of this process's table of rate limits.", nil, nil)
	occupiedDesc    = prometheus.NewDesc("moat_limit_table_occupied_ratio", "Share of the table that holds debts.", nil, nil)
	evictedDesc     = prometheus.NewDesc("moat_limit_table_evicted_total", "Debts that were forgotten early, for lack of room, of clients that had been refused or not.", []string{"refused"}, nil)
)

type limitCollector struct{ g *Gateway }

func (c limitCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{rateLimitedDesc, unansweredDesc, tableBytesDesc, occupiedDesc, evictedDesc} {
		ch <- d
	}
}

func (c limitCollector) Collect(ch chan<- prometheus.Metric) {
	seen := c.g.obs.limits
	seen.mu.Lock()
	refused := maps.Clone(seen.refused)
	seen.mu.Unlock()
	for by, n := range refused {
		ch <- prometheus.MustNewConstMetric(rateLimitedDesc, prometheus.CounterValue, float64(n), by.limit, by.route, by.mode.String())
	}
	st := c.g.state.Load()
	if st == nil {
		return
	}
	s := c.g.limitStore(st)
	if s == nil {
		return
	}
	ch <- prometheus.MustNewConstMetric(unansweredDesc, prometheus.CounterValue, float64(s.Unanswered))
	ch <- prometheus.MustNewConstMetric(tableBytesDesc, prometheus.GaugeValue, float64(s.Bytes))
	ch <- prometheus.MustNewConstMetric(occupiedDesc, prometheus.GaugeValue, s.Occupied)
	ch <- prometheus.MustNewConstMetric(evictedDesc, prometheus.CounterValue, float64(s.EvictedLimited), "yes")
	ch <- prometheus.MustNewConstMetric(evictedDesc, prometheus.CounterValue, float64(s.Evicted-s.EvictedLimited), "no")
}
