package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/moat-gateway/moat/alert"
	"github.com/moat-gateway/moat/guard"
	"github.com/moat-gateway/moat/guard/bounds"
	"github.com/moat-gateway/moat/guard/budget"
	"github.com/moat-gateway/moat/guard/ratelimit"
	"github.com/moat-gateway/moat/web"
)

// watched is a gate in front of a backend, whose alerts go to a receiver. Its clock is turned by
// hand, so that hours pass at once.
type watched struct {
	*testing.T
	g      *Gateway
	config Config
	now    time.Time
	status int // that the backend answers with
	got    chan alert.Message
}

func watch(t *testing.T, rules ...AlertRule) *watched {
	t.Helper()
	w := &watched{T: t, now: time.Now(), status: http.StatusOK, got: make(chan alert.Message, 100)}
	receiver := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var m alert.Message
		if err := json.NewDecoder(r.Body).Decode(&m); err != nil {
			t.Error(err)
		}
		w.got <- m
	}))
	t.Cleanup(receiver.Close)
	backend := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(w.status) }))
	t.Cleanup(backend.Close)
	self, err := web.ParseOrigin("https://api.example.com")
	if err != nil {
		t.Fatal(err)
	}
	to := func(text string) *url.URL {
		u, uErr := url.Parse(text)
		if uErr != nil {
			t.Fatal(uErr)
		}
		return u
	}
	var report guard.Modes
	report[guard.Bounds] = guard.Report
	open := Route{
		Name: "items", Pattern: "/items", Upstream: "app", Auth: AuthPublic, Methods: []string{"GET"},
		Bounds: bounds.Policy{BodyBytes: 1 << 20, BodyIdle: time.Second},
	}
	open.CrossSite.AllowBrowserless = true
	tried := open
	tried.Name, tried.Pattern, tried.Modes = "tried", "/tried", report
	gone := open
	gone.Name, gone.Pattern, gone.Upstream = "gone", "/gone", "nobody"
	w.config = Config{
		PublicOrigins: []web.Origin{self},
		Upstreams:     map[string]Upstream{"app": {URL: to(backend.URL)}, "nobody": {URL: to("http://127.0.0.1:1")}},
		Routes:        []Route{open, tried, gone},
		Alerts:        &Alerts{Instance: "gate-1", Webhooks: []alert.Policy{{Name: "ops", URL: to(receiver.URL)}}, Rules: rules},
	}
	if w.g, err = New(w.config, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	return w
}

// ask makes n requests.
func (w *watched) ask(n int, method, path string) {
	w.Helper()
	for range n {
		rec := httptest.NewRecorder()
		r := httptest.NewRequest(method, "https://api.example.com"+path, nil)
		w.g.ServeHTTP(rec, r)
	}
}

// pass lets time pass, looking each second.
func (w *watched) pass(d time.Duration) {
	w.Helper()
	for end := w.now.Add(d); w.now.Before(end); {
		w.now = w.now.Add(lookEvery)
		w.g.alerts.look(w.Context(), w.now)
	}
}

// told expects the next messages, "+ rule" or "- rule", and none but those. A marker is sent
// after them, and the messages arrive in their order.
func (w *watched) told(want ...string) []alert.Message {
	w.Helper()
	w.g.alerts.send(w.Context(), alert.Message{Type: "end"})
	var all []alert.Message
	var got []string
	for m := range w.got {
		switch m.Type {
		case "end":
			if !slices.Equal(got, want) {
				w.Errorf("told %v; want %v", got, want)
			}
			return all
		case alert.Firing:
			got = append(got, "+ "+m.Data.Rule)
		case alert.Resolved:
			got = append(got, "- "+m.Data.Rule)
		}
		if (m.Type == alert.Firing) != (m.Data.State == "firing") {
			w.Errorf("type %s, state %s", m.Type, m.Data.State)
		}
		all = append(all, m)
	}
	return nil
}

func refusals(name string, threshold float64) AlertRule {
	return AlertRule{Name: name, On: OnRefused, Threshold: threshold, Window: 5 * time.Minute, KeepFiring: 5 * time.Minute}
}

func share(name string, on AlertOn, threshold float64) AlertRule {
	return AlertRule{Name: name, On: on, Threshold: threshold, Share: true, Least: 20, Window: 5 * time.Minute, KeepFiring: 5 * time.Minute}
}

func TestTenThousandRefusalsAreOneAlert(t *testing.T) {
	w := watch(t, refusals("refused", 100))
	w.ask(50, "GET", "/items")
	w.ask(99, "POST", "/items")
	w.pass(10 * time.Second)
	w.told()
	for range 100 {
		w.ask(100, "POST", "/items")
		w.pass(2 * time.Second)
	}
	m := w.told("+ refused")[0]
	if d := m.Data; d.Value < 100 || d.Value > 300 || d.Threshold != 100 || d.Unit != "requests" || d.Window != 300 || d.Instance != "gate-1" || d.Since.After(m.Timestamp) ||
		len(d.Top) != 1 || d.Top[0].Reason != "method-not-allowed" || d.Top[0].Step != "bounds" || float64(d.Top[0].Count) != d.Value {
		t.Errorf("told %+v", m)
	}
	w.pass(9 * time.Minute) // five of the window, and not yet five of quiet
	w.told()
	w.pass(2 * time.Minute)
	if d := w.told("- refused")[0].Data; d.Value != 0 || d.Top != nil {
		t.Errorf("at its end: %+v", d)
	}
	w.pass(time.Hour)
	w.told()
	w.ask(100, "POST", "/items")
	w.pass(time.Second)
	w.told("+ refused")
}

// What a rule counts is what it says: by route, step and reason, refused or only reported.
func TestWhatARuleCounts(t *testing.T) {
	items, ours, others := refusals("items", 10), refusals("bounds", 10), refusals("others", 1)
	items.Routes, ours.Steps, others.Steps = []string{"items"}, []guard.Kind{guard.Bounds}, []guard.Kind{guard.RateLimit, guard.Identity}
	missing, would := refusals("missing", 10), refusals("would", 10)
	missing.Reasons, would.On = []guard.Reason{guard.RouteNotFound}, OnWouldRefuse
	w := watch(t, items, ours, others, missing, would)
	w.ask(9, "POST", "/items")
	w.pass(time.Second)
	w.told()
	w.ask(1, "POST", "/gone") // the method is refused there too, and it is another route
	w.pass(time.Second)
	w.told("+ bounds")
	w.ask(1, "POST", "/items")
	w.pass(time.Second)
	w.told("+ items")
	w.ask(10, "POST", "/tried")
	w.pass(time.Second)
	w.told("+ would")
	w.ask(10, "GET", "/nowhere")
	w.pass(time.Second)
	w.told("+ missing")
	w.ask(100, "GET", "/gone") // is no refusal
	w.pass(time.Second)
	w.told()
}

// A share is of all requests to the same routes, once there are enough of them.
func TestAShareOfRequests(t *testing.T) {
	w := watch(t, share("refused", OnRefused, 0.25), share("would", OnWouldRefuse, 0.5), share("upstream", OnUpstreamFailed, 0.1))
	w.ask(19, "POST", "/items")
	w.pass(time.Second)
	w.told() // all of them, but too few
	w.ask(81, "GET", "/items")
	w.pass(time.Second)
	w.told() // 19 of 100
	w.ask(9, "POST", "/items")
	w.pass(time.Second)
	if d := w.told("+ refused")[0].Data; d.Unit != "share" || d.Value != 28.0/109 || d.Threshold != 0.25 {
		t.Errorf("28 of 109: %+v", d)
	}
	w.status = http.StatusInternalServerError
	w.ask(6, "GET", "/items")
	w.status = http.StatusBadRequest // what the client did wrong
	w.ask(100, "GET", "/items")
	w.ask(18, "GET", "/gone")
	w.pass(time.Second)
	d := w.told("+ upstream")[0].Data
	if d.Value != 24.0/233 || len(d.Top) != 1 || d.Top[0].Reason != "upstream-unreachable" || d.Top[0].Count != 18 {
		t.Errorf("18 not reached and 6 failed of 233: %+v", d)
	}
	w.ask(400, "POST", "/tried") // half of all, though none was refused
	w.pass(time.Second)
	w.told("+ would")
}

func TestForAWhile(t *testing.T) {
	r := refusals("refused", 10)
	r.Window, r.For = 10*time.Second, time.Minute
	w := watch(t, r)
	for range 11 { // 55 s of it
		w.ask(10, "POST", "/items")
		w.pass(5 * time.Second)
	}
	w.told()
	w.pass(time.Minute) // a break
	for range 15 {
		w.ask(10, "POST", "/items")
		w.pass(5 * time.Second)
	}
	w.told("+ refused")
}

// A window moves, in steps: what was longer ago than it does not count, and nothing in it is lost.
func TestTheWindowMoves(t *testing.T) {
	w := watch(t, refusals("refused", 100))
	for range 60 { // 75 or 90 in any 5 minutes, 900 in all
		w.ask(15, "POST", "/items")
		w.pass(time.Minute)
	}
	w.told()
	w.ask(30, "POST", "/items")
	w.pass(time.Second)
	w.told("+ refused")
}

// A reload takes neither the count nor the episode away, and counts nothing twice.
func TestAlertsSurviveAReload(t *testing.T) {
	state := AlertRule{Name: "reload", On: OnReloadRefused}
	w := watch(t, refusals("refused", 100), refusals("other", 1000), state)
	w.ask(60, "POST", "/items")
	w.pass(time.Second)
	if err := w.g.Reload(w.config); err != nil {
		t.Fatal(err)
	}
	w.ask(60, "POST", "/items")
	w.pass(time.Second)
	w.told("+ refused")

	c := w.config
	c.Routes = nil
	if w.g.Reload(c) == nil {
		t.Fatal("no routes, and no fault")
	}
	w.pass(time.Minute)
	w.told("+ reload")
	for range 10 {
		if err := w.g.Reload(w.config); err != nil {
			t.Fatal(err)
		}
		w.pass(2 * time.Second)
	}
	w.told("- reload")

	// A higher threshold: it goes on, and ends. A new rule does not look back. One that is gone ends.
	a := *w.config.Alerts
	higher, fresh := refusals("refused", 1000), refusals("fresh", 1)
	a.Rules, c = []AlertRule{higher, fresh}, w.config
	c.Alerts = &a
	if err := w.g.Reload(c); err != nil {
		t.Fatal(err)
	}
	w.pass(5 * time.Minute)
	w.told("- refused")
	w.ask(2000, "POST", "/items")
	w.pass(time.Second)
	w.told("+ refused", "+ fresh")
	b := a
	b.Rules = []AlertRule{higher}
	c.Alerts = &b
	if err := w.g.Reload(c); err != nil {
		t.Fatal(err)
	}
	w.pass(time.Second)
	if d := w.told("- fresh")[0].Data; d.State != "resolved" {
		t.Errorf("a rule that is gone: %+v", d)
	}
}

// Who takes a webhook out does not want it told what waits, for as long as a day.
func TestAWebhookThatIsTakenOutIsForgotten(t *testing.T) {
	w := watch(t)
	gone, nobody := w.config.Alerts.Webhooks[0], &url.URL{Scheme: "http", Host: "127.0.0.1:1"}
	gone.Name, gone.URL = "gone", nobody
	both, c := *w.config.Alerts, w.config
	both.Webhooks = append([]alert.Policy{gone}, both.Webhooks...)
	c.Alerts = &both
	if err := w.g.Reload(c); err != nil {
		t.Fatal(err)
	}
	w.g.alerts.send(t.Context(), alert.Message{Type: alert.Test})
	old := w.g.alerts.hooks[0]
	if err := w.g.Reload(w.config); err != nil {
		t.Fatal(err)
	}
	if _, _, dropped := old.Counts(); old.Name() != "gone" || dropped != 1 {
		t.Errorf("%s: dropped %d", old.Name(), dropped)
	}
	if _, _, dropped := w.g.alerts.hooks[0].Counts(); dropped != 0 {
		t.Errorf("the other one: dropped %d", dropped)
	}
}

// The shared store is down as soon as requests find it so.
func TestAStoreThatIsDownIsTold(t *testing.T) {
	w := watch(t, AlertRule{Name: "store", On: OnStoreDown, For: 10 * time.Second, KeepFiring: 10 * time.Second})
	var shared sometimes
	c := w.config
	c.SharedLimits, c.Routes = &shared, slices.Clone(c.Routes)
	c.Routes[0].RateLimits = []ratelimit.Rule{{Name: "many", Limit: ratelimit.Limit{Burst: 1e6, Count: 1e6, Per: time.Second}, By: []ratelimit.Fact{ratelimit.Address}}}
	if err := w.g.Reload(c); err != nil {
		t.Fatal(err)
	}
	shared.Store = w.g.debts
	found := func(down bool) { // the gate notes a change at most once a second
		for shared.down.Store(down); w.g.storeDown() != down; time.Sleep(10 * time.Millisecond) {
			w.ask(1, "GET", "/items")
		}
	}
	w.ask(1, "GET", "/items")
	w.pass(time.Minute)
	w.told()
	found(true)
	w.pass(5 * time.Second)
	w.told()
	w.pass(10 * time.Second)
	w.told("+ store")
	found(false)
	w.pass(time.Minute)
	w.told("- store")
	found(true)
	if err := w.g.Reload(w.config); err != nil { // no store is shared any more
		t.Fatal(err)
	}
	w.pass(time.Minute)
	w.told()
}

// The site's budget is told as it nears its cap and once more when it is spent; one visitor's
// only where a rule names it; the kill switch as long as it is on.
func TestBudgetsAreTold(t *testing.T) {
	near := AlertRule{Name: "near", On: OnBudget, Threshold: .8, Share: true}
	spent, one := near, near
	spent.Name, spent.Threshold = "spent", 1
	one.Name, one.Threshold, one.Budgets = "one", .5, []string{"each"}
	w := watch(t, near, spent, one, AlertRule{Name: "stopped", On: OnStopped})
	c := w.config
	c.Routes = slices.Clone(c.Routes)
	c.Routes[0].Budgets = []budget.Rule{
		{Name: "site", By: budget.BySite, Per: budget.Day, Cap: budget.Amount{Requests: 10}, Zone: time.UTC},
		{Name: "each", By: budget.ByAddress, Per: budget.Day, Cap: budget.Amount{Requests: 100}, Zone: time.UTC},
	}
	if err := w.g.Reload(c); err != nil {
		t.Fatal(err)
	}
	w.ask(7, "GET", "/items")
	w.pass(askEvery)
	w.told()
	w.ask(1, "GET", "/items")
	w.pass(askEvery)
	if d := w.told("+ near")[0].Data; d.Budget != "site" || d.Value != .8 || d.Unit != "share" {
		t.Errorf("%+v", d)
	}
	w.ask(50, "GET", "/items")
	w.pass(askEvery)
	w.told("+ spent")
	if err := w.g.stopBudgets(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	w.pass(time.Hour)
	w.told("+ stopped")
	if err := w.g.stopBudgets(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	if _, err := w.g.resetBudget(t.Context(), "site", ""); err != nil {
		t.Fatal(err)
	}
	w.pass(askEvery)
	w.told("- near", "- spent", "- stopped")
	c.Routes = slices.Clone(c.Routes)
	c.Routes[0].Budgets = c.Routes[0].Budgets[1:]
	c.Routes[0].Budgets[0].Cap.Requests = 20
	if err := w.g.Reload(c); err != nil {
		t.Fatal(err)
	}
	w.ask(15, "GET", "/items")
	w.pass(askEvery)
	if d := w.told("+ one")[0].Data; d.Budget != "each" || d.Value < .5 {
		t.Errorf("%+v", d)
	}
}

// sometimes is a shared store that does not answer while it is down.
type sometimes struct {
	ratelimit.Store
	down atomic.Bool
}

func (s *sometimes) Take(ctx context.Context, demands []ratelimit.Demand, results []ratelimit.Result) (bool, error) {
	if s.down.Load() {
		return false, errors.New("no answer in time")
	}
	return s.Store.Take(ctx, demands, results)
}

func TestAlertsThatCannotBeAreRefused(t *testing.T) {
	w := watch(t)
	far, err := url.Parse("http://alerts.example/")
	if err != nil {
		t.Fatal(err)
	}
	for _, change := range []func(*Alerts){
		func(a *Alerts) { a.Rules = []AlertRule{{Name: "x", On: OnRefused, Threshold: 1}} },
		func(a *Alerts) { a.Rules = []AlertRule{{Name: "x", On: OnRefused, Window: time.Minute}} },
		func(a *Alerts) { a.Webhooks = []alert.Policy{{Name: "x"}} },
		func(a *Alerts) { a.Webhooks = []alert.Policy{{Name: "x", URL: far}} },
	} {
		c, a := w.config, *w.config.Alerts
		c.Alerts = &a
		change(&a)
		if err := w.g.Reload(c); err == nil || !strings.Contains(err.Error(), "alerts: ") {
			t.Errorf("%+v: %v", a, err)
		}
	}
}

// The test message goes out at once, whatever waits, and the operator hears what came back.
func TestATestMessage(t *testing.T) {
	w := watch(t)
	c, a := w.config, *w.config.Alerts
	dead := a.Webhooks[0]
	dead.Name, dead.URL = "dead", w.config.Upstreams["nobody"].URL
	a.Webhooks = append(a.Webhooks, dead)
	c.Alerts = &a
	if err := w.g.Reload(c); err != nil {
		t.Fatal(err)
	}
	admin := httptest.NewServer(w.g.Admin(false))
	defer admin.Close()
	res, err := http.Post(admin.URL+"/alerts/test", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var got []alert.Attempt
	if err = json.NewDecoder(res.Body).Decode(&got); err != nil {
		t.Fatal(err)
	}
	if len(got) != 2 || got[0].Webhook != "ops" || got[0].Status != 200 || got[0].Error != "" || got[1].Webhook != "dead" || !strings.Contains(got[1].Error, "refused") {
		t.Errorf("%+v", got)
	}
	if m := <-w.got; m.Type != alert.Test || m.Data.Instance != "gate-1" {
		t.Errorf("the receiver got %+v", m)
	}
	if res, err = http.Get(admin.URL + "/alerts/test"); err != nil || res.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("by GET, as any page can: %v, %v", res.StatusCode, err)
	}
}
