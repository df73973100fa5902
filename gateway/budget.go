package gateway

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/moat-gateway/moat/guard"
	"github.com/moat-gateway/moat/guard/budget"
	"github.com/moat-gateway/moat/store/ledger"
)

// budgets compiles the budgets of a route.
func (g *Gateway) budgets(s *state, r Route) (*budget.Guard, error) {
	if len(r.Budgets) == 0 || r.Modes[guard.Budget] == guard.Off {
		return nil, nil
	}
	for _, rule := range r.Budgets {
		i := slices.IndexFunc(s.budgetRules, func(other budget.Rule) bool { return other.Name == rule.Name })
		if i < 0 {
			s.budgetRules = append(s.budgetRules, rule)
		} else if !sameRule(s.budgetRules[i], rule) {
			return nil, fmt.Errorf("budgets: %q: another route has another budget of this name", rule.Name)
		}
	}
	bg, err := budget.New(budget.Policy{Rules: r.Budgets, InFlight: &g.underWay}, s.spent)
	if err != nil {
		return nil, fmt.Errorf("budgets: %w", err)
	}
	return bg, nil
}

func sameRule(a, b budget.Rule) bool {
	zones := fmt.Sprint(a.Zone) == fmt.Sprint(b.Zone)
	a.Zone, b.Zone = nil, nil
	return zones && a == b
}

// spentIn is the store of budgets: one that outlives the process, or this process's own.
func (g *Gateway) spentIn(c *Config) budget.Store {
	if c.Spent != nil {
		return c.Spent
	}
	if g.spent == nil {
		g.spent = ledger.New()
	}
	return g.spent
}

// afford sets aside what any request takes of the route's budgets, before anybody reads its body.
func (x *exchange) afford(h http.Header) (d guard.Decision) {
	if x.dry {
		return d // what is left is no part of the configuration
	}
	x.budget, d = x.route.budgets.Decide(budget.Facts{
		Client: x.client, Visitor: x.honoured.Visitor, Caller: x.caller, Report: x.route.modes[guard.Budget] == guard.Report,
	})
	if x.route.modes[guard.Budget] == guard.Enforce {
		x.tellBudget(h, d)
	}
	return d
}

// tellBudget tells a client that is refused when it may come again.
func (x *exchange) tellBudget(h http.Header, d guard.Decision) {
	wait := int64(1) // for what nobody knows the end of
	refused := x.budget.Refused()
	switch {
	case !d.Denied():
		return
	case d.Reason == guard.BudgetSpent || d.Reason == guard.BudgetSpentTogether:
		wait = max(int64(time.Until(refused.Reset)/time.Second)+1, 1)
		x.members = append(x.members, `"reset":"`+refused.Reset.Format(time.RFC3339)+`"`, `"unit":"`+refused.Unit.String()+`"`)
		if refused.Left != nil {
			left, err := json.Marshal(refused.Left)
			if err != nil {
				panic(err) // four numbers
			}
			x.members = append(x.members, `"left":`+string(left))
		}
	case d.Reason == guard.BudgetStopped:
		wait = 60
	case d.Reason != guard.BudgetTooManyAtOnce && d.Reason != guard.BudgetUnavailable:
		return // MODEL's reasons: to come again would not help
	}
	h["Retry-After"] = []string{strconv.FormatInt(wait, 10)}
}

// budgetMode is the mode in which a decision about budgets holds: the kill switch is no policy that could
// be tried out.
func budgetMode(mode guard.Mode, d guard.Decision) guard.Mode {
	if d.Reason == guard.BudgetStopped {
		return guard.Enforce
	}
	return mode
}

// spendings is what the gate has seen of budgets, for metrics.
type spendings struct {
	mu      sync.Mutex
	refused map[spendingRefused]uint64
	// failed are the calls that could not be counted, or not settled.
	failed uint64
}

type spendingRefused struct {
	budget string
	unit   budget.Unit
	mode   guard.Mode
}

// note counts what has become of a request's budgets.
func (s *spendings) note(gr *budget.Grant, mode guard.Mode) (failed error) {
	refused, failed := gr.Refused(), gr.Failed()
	if refused == nil && failed == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if refused != nil {
		s.refused[spendingRefused{refused.Budget, refused.Unit, mode}]++
	}
	if failed != nil {
		s.failed++
	}
	return failed
}

// settleBudget ends the request's part in the budgets.
func (x *exchange) settleBudget() {
	if x.budget == nil {
		return
	}
	x.budget.Release()
	if err := x.obs.spendings.note(x.budget, x.route.modes[guard.Budget]); err != nil && x.obs.mayLog(time.Now()) {
		x.obs.log.Error("a call is not counted in its budgets", slog.String("route", x.route.name), slog.Any("error", err))
	}
}

// Budgets is what budgets have been spent: the answer to GET /budgets.
type Budgets struct {
	// Stopped says that the kill switch is on.
	Stopped      bool          `json:"stopped"`
	StoppedSince *time.Time    `json:"stopped_since,omitempty"`
	Budgets      []BudgetSpent `json:"budgets"`
	// Store is what keeps them: "memory", "ledger" or "valkey".
	Store string `json:"store"`
	// Error is why the store cannot be asked, or its file not be written, if it cannot.
	Error string `json:"error,omitempty"`
}

// BudgetSpent is one budget in the present period.
type BudgetSpent struct {
	Name   string    `json:"name"`
	By     string    `json:"by"`
	Per    string    `json:"per"`
	Resets time.Time `json:"resets"`
	Routes []string  `json:"routes"`
	Mode   string    `json:"mode"`
	// Cap is of each spender, and what is 0 is not capped; Used is of all together.
	Cap    budget.Amount `json:"cap"`
	AtOnce int           `json:"at_once,omitempty"`
	Used   budget.Amount `json:"used"`
	// Spenders is how many there are, and Top those that have used most.
	Spenders int              `json:"spenders"`
	Top      []budget.Spender `json:"top"`
}

// topSpenders is how many GET /budgets lists of each budget.
const topSpenders = 20

func (g *Gateway) budgetsNow(ctx context.Context) Budgets {
	st := g.state.Load()
	out := Budgets{Budgets: []BudgetSpent{}, Store: st.spentKind()}
	since, err := st.spent.Stopped(ctx)
	if !since.IsZero() {
		out.Stopped, out.StoppedSince = true, &since
	}
	for _, r := range st.budgetRules {
		var u budget.Usage
		if err == nil {
			u, err = st.spent.Usage(ctx, &r, topSpenders)
		}
		b := BudgetSpent{
			Name: r.Name, By: r.By.String(), Per: r.Per.String(), Cap: r.Cap, AtOnce: r.AtOnce, Used: u.Used, Spenders: u.Accounts, Top: u.Top,
			Resets: time.Unix(cmp.Or(u.Span.End, r.Per.At(time.Now(), r.Zone).End), 0).UTC(), Mode: guard.Report.String(),
		}
		if b.Top == nil || r.By == budget.BySite {
			b.Top = []budget.Spender{}
		}
		for _, rt := range st.routes {
			if rt.budgets != nil && rt.budgets.Has(r.Name) {
				b.Routes = append(b.Routes, rt.name)
				if rt.modes[guard.Budget] == guard.Enforce {
					b.Mode = guard.Enforce.String()
				}
			}
		}
		out.Budgets = append(out.Budgets, b)
	}
	if l, ok := st.spent.(*ledger.Ledger); ok && err == nil {
		err = l.Failed() // the figures are known all the same
	}
	if err != nil {
		out.Error = err.Error()
	}
	return out
}

func (s *state) spentKind() string {
	switch l := s.spent.(type) {
	case *ledger.Ledger:
		if l.Durable() {
			return "ledger"
		}
		return "memory"
	default:
		return "valkey"
	}
}

var errNoSuchBudget = errors.New("no such budget")

// resetBudget forgets what a spender has used of a budget in the present period, or what all have.
func (g *Gateway) resetBudget(ctx context.Context, name, who string) (bool, error) {
	st := g.state.Load()
	i := slices.IndexFunc(st.budgetRules, func(r budget.Rule) bool { return r.Name == name })
	if i < 0 {
		var names []string
		for _, r := range st.budgetRules {
			names = append(names, r.Name)
		}
		return false, fmt.Errorf("%w: %q; in force: %q", errNoSuchBudget, name, names)
	}
	did, err := st.spent.Reset(ctx, &st.budgetRules[i], who)
	if err != nil {
		return false, fmt.Errorf("budget %q: %w", name, err)
	}
	if did {
		g.obs.log.Warn("budget reset", slog.String("budget", name), slog.String("who", cmp.Or(who, "all")))
	}
	return did, nil
}

var errNoBudgets = errors.New("no budget is in force at this gate, so nothing was stopped: ask one whose routes have budgets")

// stopBudgets turns the kill switch. Without budgets it would stop nothing here, and by the store that is
// shared other gates, unseen.
func (g *Gateway) stopBudgets(ctx context.Context, on bool) error {
	st := g.state.Load()
	if on && len(st.budgetRules) == 0 {
		return errNoBudgets
	}
	err := st.spent.Stop(ctx, on)
	if err == nil {
		g.obs.log.Warn("budgets' kill switch", slog.Bool("stopped", on))
	}
	return err
}

// registerBudgets adds the budgets to the admin listener.
func (g *Gateway) registerBudgets(mux *http.ServeMux) {
	mux.HandleFunc("GET /budgets", func(w http.ResponseWriter, r *http.Request) {
		writeJSON(w, http.StatusOK, g.budgetsNow(r.Context()))
	})
	turn := func(on bool) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			switch err := g.stopBudgets(r.Context(), on); {
			case err == nil:
				writeJSON(w, http.StatusOK, g.budgetsNow(r.Context()))
			case errors.Is(err, errNoBudgets):
				writeJSON(w, http.StatusNotFound, map[string]string{"error": err.Error()})
			default:
				writeJSON(w, http.StatusServiceUnavailable, map[string]string{"error": err.Error()})
			}
		}
	}
	mux.HandleFunc("POST /budgets/stop", turn(true))
	mux.HandleFunc("POST /budgets/resume", turn(false))
	mux.HandleFunc("DELETE /budgets", func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		if q.Has("who") && q.Get("who") == "" {
			writeJSON(w, http.StatusBadRequest, map[string]string{"error": "who is empty, which names nobody; leave it out to reset the budget of all"})
			return
		}
		did, err := g.resetBudget(r.Context(), q.Get("budget"), q.Get("who"))
		switch {
		case err == nil:
			writeJSON(w, http.StatusOK, map[string]bool{"reset": did})
		case errors.Is(err, errNoSuchBudget):
			writeJSON(w, http.StatusNotFound, map[string]string{"error": err.Error()})
		default:
			writeJSON(w, http.StatusServiceUnavailable, map[string]string{"error": err.Error()})
		}
	})
}

var (
	budgetUsedDesc    = prometheus.NewDesc("moat_budget_used", "What has been used of a budget in the present period by all together; money in the currency's unit.", []string{"budget", "unit"}, nil)
	budgetCapDesc     = prometheus.NewDesc("moat_budget_cap", "The cap of a budget, which each of its spenders has; money in the currency's unit.", []string{"budget", "unit"}, nil)
	budgetResetDesc   = prometheus.NewDesc("moat_budget_reset_timestamp_seconds", "When a budget begins anew.", []string{"budget"}, nil)
	budgetSpenderDesc = prometheus.NewDesc("moat_budget_spenders", "How many spenders a budget has in the present period.", []string{"budget"}, nil)
	budgetRefusedDesc = prometheus.NewDesc("moat_budget_refused_total", "Calls that a budget refused, or would have refused.", []string{"budget", "unit", "mode"}, nil)
	budgetFailedDesc  = prometheus.NewDesc("moat_budget_store_failures_total", "Calls that the budgets' store could not count, or not settle.", nil, nil)
	budgetStoppedDesc = prometheus.NewDesc("moat_budget_stopped", "1 while the budgets' kill switch is on.", nil, nil)
	budgetStoreUpDesc = prometheus.NewDesc("moat_budget_store_up", "1 if the budgets' store answers.", nil, nil)
)

type budgetCollector struct{ g *Gateway }

func (c budgetCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{budgetUsedDesc, budgetCapDesc, budgetResetDesc, budgetSpenderDesc, budgetRefusedDesc, budgetFailedDesc, budgetStoppedDesc, budgetStoreUpDesc} {
		ch <- d
	}
}

func (c budgetCollector) Collect(ch chan<- prometheus.Metric) {
	seen := &c.g.obs.spendings
	seen.mu.Lock()
	refused, failed := maps.Clone(seen.refused), seen.failed
	seen.mu.Unlock()
	for by, n := range refused {
		ch <- prometheus.MustNewConstMetric(budgetRefusedDesc, prometheus.CounterValue, float64(n), by.budget, by.unit.String(), by.mode.String())
	}
	st := c.g.state.Load()
	if st == nil || len(st.budgetRules) == 0 {
		return
	}
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	ch <- prometheus.MustNewConstMetric(budgetFailedDesc, prometheus.CounterValue, float64(failed))
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	now := c.g.budgetsNow(ctx)
	for _, b := range now.Budgets {
		gauge(budgetResetDesc, float64(b.Resets.Unix()), b.Name)
		for _, u := range budget.Units() {
			if b.Cap.Of(u) > 0 {
				gauge(budgetCapDesc, float64(b.Cap.Of(u))/scale(u), b.Name, u.String())
			}
			if now.Error == "" && (b.Cap.Of(u) > 0 || b.Used.Of(u) > 0 || u == budget.Requests) {
				gauge(budgetUsedDesc, float64(b.Used.Of(u))/scale(u), b.Name, u.String())
			}
		}
		if now.Error == "" {
			gauge(budgetSpenderDesc, float64(b.Spenders), b.Name)
		}
	}
	up, stopped := 1.0, 0.0
	if now.Error != "" {
		up = 0
	}
	if now.Stopped {
		stopped = 1
	}
	gauge(budgetStoreUpDesc, up)
	gauge(budgetStoppedDesc, stopped)
}

func scale(u budget.Unit) float64 {
	if u == budget.Spend {
		return 1e9
	}
	return 1
}
