package gateway

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/moat-gateway/moat/alert"
	"github.com/moat-gateway/moat/guard"
	"github.com/moat-gateway/moat/guard/budget"
)

// Alerts says what somebody is told about, and where. Serve looks at it each second.
type Alerts struct {
	// Instance is what messages say they come from.
	Instance string
	Webhooks []alert.Policy
	Rules    []AlertRule
}

// AlertOn is what a rule looks at.
type AlertOn uint8

const (
	// OnRefused counts requests that were refused.
	OnRefused AlertOn = iota
	// OnWouldRefuse counts requests that passed, and that guards in report mode would have refused.
	OnWouldRefuse
	// OnUpstreamFailed counts requests that an upstream did not answer, or with a status of 500 or more.
	OnUpstreamFailed
	// OnBudget is the share of its cap that a budget has used.
	OnBudget
	// OnStopped says that the kill switch has been pulled.
	OnStopped
	// OnStoreDown says that the shared store does not answer.
	OnStoreDown
	// OnReloadRefused says that the last reload was refused.
	OnReloadRefused
)

var alertOns = [...]string{"refused", "would_refuse", "upstream_failed", "budget", "stopped", "store_down", "reload_refused"}

func (o AlertOn) String() string { return alertOns[o] }

// ParseAlertOn returns what has that name.
func ParseAlertOn(s string) (AlertOn, bool) {
	i := slices.Index(alertOns[:], s)
	return AlertOn(max(i, 0)), i >= 0 //nolint:gosec // of a short list.
}

// Counts reports whether it is a number of requests in a window.
func (o AlertOn) Counts() bool { return o <= OnUpstreamFailed }

// AlertRule is one thing that somebody is told about.
type AlertRule struct {
	Name string
	On   AlertOn
	// Threshold is the least value that fires: a number of requests; or if Share is set, a part of 1,
	// of all requests to the Routes, or of a budget's cap. It means nothing to what is so or not.
	Threshold float64
	Share     bool
	// Least is how many requests there must be for a share of them to mean anything.
	Least uint64
	// Window is how far back requests are counted.
	Window time.Duration
	// For is how long the value must have reached the threshold, and KeepFiring how long it must
	// not have, before somebody is told.
	For, KeepFiring time.Duration
	// Routes, Steps and Reasons narrow what counts, and empty stands for all. Budgets are those that
	// are looked at; empty stands for those of the whole site: that one of many visitors has used up
	// what it may is no news.
	Routes, Budgets []string
	Steps           []guard.Kind
	Reasons         []guard.Reason
}

func (a *Alerts) check() error {
	var errs []error
	for _, r := range a.Rules {
		if r.On.Counts() && (r.Window < time.Second || r.Threshold <= 0) {
			errs = append(errs, fmt.Errorf("rule %s: a count needs a window of 1 s or more, and a threshold", r.Name))
		}
	}
	for _, w := range a.Webhooks {
		if w.URL == nil || w.URL.Scheme != "https" && (w.URL.Scheme != "http" || !alert.Local(w.URL)) {
			errs = append(errs, fmt.Errorf("webhook %s: its URL is https, or http on this machine", w.Name))
		}
	}
	return errors.Join(errs...)
}

// windowSlices is in how many steps a window moves.
const windowSlices = 60

// tally is what has been counted since the process began, for one rule.
type tally struct {
	all     uint64 // requests, whatever became of them
	failed  uint64 // answers of upstreams with a status of 500 or more
	reasons [guard.NumReasons]uint64
}

// ended reports whether requests end with the reason: each does so once.
func ended(r guard.Reason) bool {
	switch r { //nolint:exhaustive // the others are refusals, or no end.
	case guard.OK, guard.CORSPreflightApproved, guard.UpstreamAborted, guard.RequestAborted:
		return true
	}
	return r.Status() != 0
}

// counts reports whether a decision for the reason counts for the rule.
func (r *AlertRule) counts(reason guard.Reason) bool {
	switch {
	case len(r.Steps) > 0 && !slices.Contains(r.Steps, reason.Step()), len(r.Reasons) > 0 && !slices.Contains(r.Reasons, reason):
		return false
	case r.On == OnUpstreamFailed:
		return reason.Step() == guard.Upstream && reason != guard.RequestAborted
	}
	return reason.Status() != 0 && reason.Step() != guard.Upstream
}

func (o *observer) tally(r *AlertRule) *tally {
	t := new(tally)
	o.statsMu.Lock()
	defer o.statsMu.Unlock()
	for name, s := range o.stats {
		if len(r.Routes) > 0 && !slices.Contains(r.Routes, name) {
			continue
		}
		if r.On == OnUpstreamFailed {
			t.failed += s.answers[5].Load()
		}
		for i := range s.counts {
			reason := guard.Reason(i)
			if ended(reason) {
				t.all += s.counts[i][guard.Enforce].Load()
			}
			switch {
			case !r.counts(reason):
			case r.On == OnWouldRefuse:
				t.reasons[i] += s.spared[i].Load()
			default:
				t.reasons[i] += s.counts[i][guard.Enforce].Load()
			}
		}
	}
	return t
}

// window is a rule's tallies, the oldest first. What is counted is the difference to that one.
type window struct {
	past []*tally
	last time.Time
}

// difference is what was counted in the rule's window, and all requests in it.
func (w *window) difference(r *AlertRule, now time.Time, t *tally) (counted, all uint64, top []alert.Count) {
	if w.past == nil {
		w.past, w.last = []*tally{t}, now
	}
	old := w.past[0]
	for i := range t.reasons {
		if n := t.reasons[i] - old.reasons[i]; n > 0 {
			reason := guard.Reason(i)
			top = append(top, alert.Count{Reason: reason.String(), Step: reason.Step().String(), Count: n})
			counted += n
		}
	}
	slices.SortFunc(top, func(a, b alert.Count) int { return cmp.Compare(b.Count, a.Count) })
	counted, all = counted+t.failed-old.failed, t.all-old.all
	if now.Sub(w.last) >= r.Window/windowSlices {
		w.past, w.last = append(w.past, t), now
		// One more than what fits, so that the oldest is as old as the window.
		if len(w.past) > windowSlices+1 {
			w.past = slices.Delete(w.past, 0, len(w.past)-windowSlices-1)
		}
	}
	return counted, all, top[:min(len(top), 5)]
}

// lookEvery is how often the rules are looked at, and askEvery how often the budgets' store is asked.
const (
	lookEvery = time.Second
	askEvery  = 10 * time.Second
)

// alerter looks at the rules, and remembers what it has told. It outlives reloads.
type alerter struct {
	g *Gateway

	mu       sync.Mutex
	now      Alerts
	hooks    []*alert.Webhook
	windows  map[string]*window
	episodes map[episode]*told
	// spent is what the budgets' store said last, at asked; while it says nothing what it said before counts.
	spent Budgets
	asked time.Time
}

// episode is what a rule can fire for: itself, or one budget.
type episode struct{ rule, budget string }

type told struct {
	alert.Episode
	data alert.Data // as of when it was last looked at
	seen bool       // in this round
}

// use exchanges the rules and the webhooks. What fires goes on firing, and is not told again.
func (a *alerter) use(next *Alerts) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if next == nil {
		next = new(Alerts)
	}
	var hooks []*alert.Webhook
	for _, p := range next.Webhooks {
		i := slices.IndexFunc(a.hooks, func(w *alert.Webhook) bool { return w.Name() == p.Name })
		if i < 0 {
			hooks = append(hooks, alert.NewWebhook(p, a.g.obs.log))
			continue
		}
		a.hooks[i].Use(p)
		hooks = append(hooks, a.hooks[i])
	}
	for _, w := range a.hooks {
		if !slices.Contains(hooks, w) {
			w.Drop()
		}
	}
	windows := make(map[string]*window)
	now := time.Now()
	for i := range next.Rules {
		r := &next.Rules[i]
		if !r.On.Counts() {
			continue
		}
		was := slices.IndexFunc(a.now.Rules, func(old AlertRule) bool { return old.Name == r.Name })
		if windows[r.Name] = new(window); was >= 0 && sameCount(r, &a.now.Rules[was]) {
			windows[r.Name] = a.windows[r.Name]
		} else {
			windows[r.Name].difference(r, now, a.g.obs.tally(r)) // what was before does not count
		}
	}
	a.now, a.hooks, a.windows = *next, hooks, windows
}

// sameCount reports whether two rules count the same.
func sameCount(a, b *AlertRule) bool {
	return a.On == b.On && a.Window == b.Window && slices.Equal(a.Routes, b.Routes) && slices.Equal(a.Steps, b.Steps) && slices.Equal(a.Reasons, b.Reasons)
}

// run looks until ctx is done.
func (a *alerter) run(ctx context.Context) {
	every(ctx, lookEvery, func(now time.Time) { a.look(ctx, now) })
}

func (a *alerter) look(ctx context.Context, now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if now.Sub(a.asked) >= askEvery {
		a.asked = now
		a.ask(ctx)
	}
	for i := range a.now.Rules {
		r := &a.now.Rules[i]
		d := alert.Data{Rule: r.Name, On: r.On.String(), Threshold: r.Threshold, Unit: "requests", Instance: a.now.Instance}
		switch r.On {
		case OnRefused, OnWouldRefuse, OnUpstreamFailed:
			counted, all, top := a.windows[r.Name].difference(r, now, a.g.obs.tally(r))
			d.Value, d.Window, d.Top = float64(counted), r.Window.Seconds(), top
			high := d.Value >= r.Threshold
			if r.Share {
				d.Value, d.Unit = min(d.Value/float64(max(all, 1)), 1), "share"
				high = d.Value >= r.Threshold && all >= r.Least
			}
			a.tell(ctx, now, r, d, high)
		case OnBudget:
			d.Unit = "share"
			for _, b := range a.spent.Budgets {
				if slices.Contains(r.Budgets, b.Name) || len(r.Budgets) == 0 && b.By == budget.BySite.String() {
					d.Budget, d.Value = b.Name, b.share()
					a.tell(ctx, now, r, d, d.Value >= r.Threshold)
				}
			}
		case OnStopped:
			a.state(ctx, now, r, d, a.spent.Stopped)
		case OnStoreDown:
			a.state(ctx, now, r, d, a.g.storeDown() || a.spent.Error != "")
		case OnReloadRefused:
			a.state(ctx, now, r, d, a.g.obs.reloadRefused.Load())
		}
	}
	for key, t := range a.episodes {
		// The rule or the budget is gone from the configuration: nobody will tell its end otherwise.
		if !t.seen {
			if t.Firing() {
				a.send(ctx, alert.Message{Type: alert.Resolved, Timestamp: now.UTC(), Data: t.data})
			}
			delete(a.episodes, key)
			continue
		}
		t.seen = false
	}
}

// ask asks the budgets' store, if a rule wants to know.
func (a *alerter) ask(ctx context.Context) {
	wanted := slices.ContainsFunc(a.now.Rules, func(r AlertRule) bool { return !r.On.Counts() && r.On != OnReloadRefused })
	if !wanted || len(a.g.state.Load().budgetRules) == 0 {
		a.spent = Budgets{}
		return
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	if next := a.g.budgetsNow(ctx); next.Error == "" {
		a.spent = next
	} else {
		a.spent.Error = next.Error
	}
}

// share is how much of its cap a budget has used, by whoever has used most of it, of whatever it caps.
func (b *BudgetSpent) share() float64 {
	used := []budget.Amount{b.Used}
	if b.By != budget.BySite.String() {
		used = nil
		for _, s := range b.Top {
			used = append(used, s.Used)
		}
	}
	most := 0.0
	for _, u := range used {
		for _, unit := range budget.Units() {
			if limit := b.Cap.Of(unit); limit > 0 {
				most = max(most, float64(u.Of(unit))/float64(limit))
			}
		}
	}
	return most
}

// state is about what is so, or not.
func (a *alerter) state(ctx context.Context, now time.Time, r *AlertRule, d alert.Data, so bool) {
	d.Unit, d.Threshold = "state", 1
	if so {
		d.Value = 1
	}
	a.tell(ctx, now, r, d, so)
}

// tell takes an episode on, and sends what has become of it.
func (a *alerter) tell(ctx context.Context, now time.Time, r *AlertRule, d alert.Data, high bool) {
	key := episode{r.Name, d.Budget}
	t := a.episodes[key]
	if t == nil {
		t = new(told)
		a.episodes[key] = t
	}
	change := t.Look(now, high, r.For, r.KeepFiring)
	d.Since = t.Since().UTC()
	d.State = "resolved" // if it ends before it is looked at again
	t.data, t.seen = d, true
	m := alert.Message{Type: alert.Resolved, Timestamp: now.UTC(), Data: d}
	switch change {
	case alert.Same:
		return
	case alert.Fires:
		m.Type, m.Data.State = alert.Firing, "firing"
	case alert.Resolves:
	}
	a.g.obs.log.Warn("alert", slog.String("rule", r.Name), slog.String("state", m.Data.State), slog.Float64("value", d.Value))
	a.send(ctx, m)
}

func (a *alerter) send(ctx context.Context, m alert.Message) {
	for _, w := range a.hooks {
		w.Send(ctx, m)
	}
}

// testPatience bounds a test message: a person waits for what comes of it.
const testPatience = 8 * time.Second

// test sends a message to each webhook at once, and says what came of it.
func (a *alerter) test(ctx context.Context) []alert.Attempt {
	ctx, cancel := context.WithTimeout(ctx, testPatience)
	defer cancel()
	a.mu.Lock()
	hooks, instance := a.hooks, a.now.Instance
	a.mu.Unlock()
	now := time.Now().UTC()
	m := alert.Message{Type: alert.Test, Timestamp: now, Data: alert.Data{Rule: "test", On: "test", State: "test", Unit: "state", Since: now, Instance: instance}}
	out := make([]alert.Attempt, len(hooks))
	var wg sync.WaitGroup
	for i, w := range hooks {
		wg.Go(func() { out[i] = w.Try(ctx, m) })
	}
	wg.Wait()
	return out
}

// storeDown reports whether the shared store was last found not to answer.
func (g *Gateway) storeDown() bool {
	return g.state.Load().shared != nil && g.obs.storeDown.Load()
}

func (g *Gateway) registerAlerts(mux *http.ServeMux) {
	mux.HandleFunc("POST /alerts/test", func(w http.ResponseWriter, r *http.Request) {
		writeJSON(w, http.StatusOK, g.alerts.test(r.Context()))
	})
}

var (
	alertsDesc      = prometheus.NewDesc("moat_alerts_total", "Alerts by what became of them: sent, failed (an attempt that is repeated), dropped (given up, or too many waited).", []string{"webhook", "result"}, nil)
	alertFiringDesc = prometheus.NewDesc("moat_alert_firing", "1 while an alert's rule fires.", []string{"rule"}, nil)
)

type alertCollector struct{ a *alerter }

func (c alertCollector) Describe(ch chan<- *prometheus.Desc) {
	ch <- alertsDesc
	ch <- alertFiringDesc
}

func (c alertCollector) Collect(ch chan<- prometheus.Metric) {
	c.a.mu.Lock()
	defer c.a.mu.Unlock()
	for _, w := range c.a.hooks {
		sent, failed, dropped := w.Counts()
		for result, n := range map[string]uint64{"sent": sent, "failed": failed, "dropped": dropped} {
			ch <- prometheus.MustNewConstMetric(alertsDesc, prometheus.CounterValue, float64(n), w.Name(), result)
		}
	}
	for i := range c.a.now.Rules {
		name, firing := c.a.now.Rules[i].Name, 0.0
		for key, t := range c.a.episodes {
			if key.rule == name && t.Firing() {
				firing = 1
			}
		}
		ch <- prometheus.MustNewConstMetric(alertFiringDesc, prometheus.GaugeValue, firing, name)
	}
}
