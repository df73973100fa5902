package gateway_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/moat-gateway/moat/gateway"
	"github.com/moat-gateway/moat/guard"
	"github.com/moat-gateway/moat/guard/budget"
	"github.com/moat-gateway/moat/store/ledger"
)

func budgeted(rules ...budget.Rule) func(*gateway.Config) {
	return route(func(r *gateway.Route) { r.Budgets = rules })
}

func byAddress(limit budget.Amount) budget.Rule {
	return budget.Rule{Name: "client", By: budget.ByAddress, Per: budget.Month, Cap: limit}
}

func ofSite(limit budget.Amount) budget.Rule {
	return budget.Rule{Name: "site", By: budget.BySite, Per: budget.Month, Cap: limit}
}

// spent is what the admin listener says of the budgets.
func spent(t *testing.T, g *gateway.Gateway) (b gateway.Budgets) {
	t.Helper()
	_, body, _ := admin(t, g, "GET", "/budgets")
	if err := json.Unmarshal([]byte(body), &b); err != nil {
		t.Fatal(err)
	}
	return b
}

func TestPageCanReadWhenItsQuotaBeginsAnew(t *testing.T) {
	t.Parallel()
	b := newBackend(t, nil)
	site := ofSite(budget.Amount{Requests: 3})
	mine := byAddress(budget.Amount{Requests: 2})
	mine.TellLeft = true
	g := newGateway(t, configFor(t, b.URL, budgeted(site, mine)))
	for range 2 {
		if res := serve(g, from("203.0.113.7", request("GET", app))); res.StatusCode != http.StatusOK {
			t.Fatalf("%d", res.StatusCode)
		}
	}
	res := serve(g, from("203.0.113.7", request("GET", app)))
	body, _ := io.ReadAll(res.Body)
	var p struct {
		Code, Unit string
		Reset      time.Time
		Left       map[string]any
	}
	if err := json.Unmarshal(body, &p); err != nil {
		t.Fatal(err)
	}
	if res.StatusCode != http.StatusTooManyRequests || p.Code != "budget-spent" || p.Unit != "requests" || p.Left == nil || p.Reset.Day() != 1 || !p.Reset.After(time.Now()) {
		t.Errorf("%d %s", res.StatusCode, body)
	}
	if exposed := strings.Split(res.Header.Get("Access-Control-Expose-Headers"), ","); res.Header.Get("Access-Control-Allow-Origin") != app || res.Header.Get("Retry-After") == "" || !slices.Contains(exposed, "retry-after") {
		t.Errorf("%v", res.Header)
	}
	// Another client has its own, until the site has none; which says nothing of what others have spent.
	if res = serve(g, from("203.0.113.8", request("GET", app))); res.StatusCode != http.StatusOK {
		t.Fatalf("%d", res.StatusCode)
	}
	res = serve(g, from("203.0.113.8", request("GET", app)))
	body, _ = io.ReadAll(res.Body)
	var told map[string]any
	if err := json.Unmarshal(body, &told); err != nil || told["code"] != "budget-spent-together" {
		t.Errorf("%s", body)
	}
	for member := range told {
		if !slices.Contains([]string{"type", "title", "status", "code", "id", "reset", "unit"}, member) {
			t.Errorf("a refusal by the site's budget tells %s: %s", member, body)
		}
	}
	if n := b.ran.Load(); n != 3 {
		t.Errorf("the backend ran %d times", n)
	}
	now := spent(t, g)
	if len(now.Budgets) != 2 || now.Budgets[0].Used.Requests != 3 || now.Budgets[1].Used.Requests != 3 || len(now.Budgets[1].Top) != 2 ||
		now.Budgets[1].Top[0].Who != "203.0.113.7" || now.Stopped || now.Store != "memory" || len(now.Budgets[0].Top) != 0 {
		t.Errorf("%+v", now)
	}
}

func TestPreflightsAndRefusedRequestsTakeNothingOfABudget(t *testing.T) {
	t.Parallel()
	b := newBackend(t, nil)
	g := newGateway(t, configFor(t, b.URL, budgeted(ofSite(budget.Amount{Requests: 1}))))
	for range 5 {
		if res := serve(g, preflight()); res.StatusCode != http.StatusNoContent {
			t.Fatalf("preflight: %d", res.StatusCode)
		}
		if p := problemOf(t, serve(g, request("POST", stranger))); p.Code != "cors-origin-not-allowed" {
			t.Fatalf("%+v", p)
		}
	}
	if res := serve(g, request("GET", app)); res.StatusCode != http.StatusOK {
		t.Errorf("%d", res.StatusCode)
	}
	if p := problemOf(t, serve(g, request("GET", app))); p.Code != "budget-spent-together" {
		t.Errorf("%+v", p)
	}
}

func TestBytesOfBothBodiesCount(t *testing.T) {
	t.Parallel()
	b := newBackend(t, func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		io.WriteString(w, strings.Repeat("x", 400))
	})
	g := newGateway(t, configFor(t, b.URL, budgeted(byAddress(budget.Amount{Bytes: 1000}))))
	post := func() *http.Request {
		r := httptest.NewRequest("POST", self+"/v1", strings.NewReader(strings.Repeat("y", 300)))
		r.Header.Set("Origin", app)
		r.Header.Set("Sec-Fetch-Site", "cross-site")
		return r
	}
	for range 2 { // the second one passes whole: it began below the cap
		if res := serve(g, post()); res.StatusCode != http.StatusOK {
			t.Fatalf("%d", res.StatusCode)
		}
	}
	if p := problemOf(t, serve(g, post())); p.Code != "budget-spent" {
		t.Errorf("%+v", p)
	}
	if used := spent(t, g).Budgets[0].Used; used != (budget.Amount{Requests: 2, Bytes: 1400}) {
		t.Errorf("%+v", used)
	}
}

func TestAtOnceBoundsCallsUnderWay(t *testing.T) {
	t.Parallel()
	arrived, leave := make(chan struct{}), make(chan struct{})
	b := newBackend(t, func(http.ResponseWriter, *http.Request) {
		arrived <- struct{}{}
		<-leave
	})
	r := ofSite(budget.Amount{})
	r.AtOnce = 1
	g := newGateway(t, configFor(t, b.URL, budgeted(r)))
	done := make(chan int)
	go func() { done <- serve(g, request("GET", app)).StatusCode }()
	<-arrived
	res := serve(g, request("GET", app))
	if p := problemOf(t, res); p.Code != "budget-too-many-at-once" || res.Header.Get("Retry-After") != "1" {
		t.Errorf("%+v %v", p, res.Header)
	}
	close(leave)
	if code := <-done; code != http.StatusOK {
		t.Errorf("%d", code)
	}
	go func() { <-arrived }()
	if res := serve(g, request("GET", app)); res.StatusCode != http.StatusOK {
		t.Errorf("%d: the place was not given back", res.StatusCode)
	}
}

func TestReportModeCountsAndRefusesNothing(t *testing.T) {
	t.Parallel()
	b := newBackend(t, nil)
	r := byAddress(budget.Amount{Requests: 1})
	r.AtOnce = 1
	g := newGateway(t, configFor(t, b.URL, budgeted(r), route(func(r *gateway.Route) { r.Modes[guard.Budget] = guard.Report })))
	for range 3 {
		res := serve(g, request("GET", app))
		if res.StatusCode != http.StatusOK || res.Header.Get("Retry-After") != "" {
			t.Fatalf("%d %v", res.StatusCode, res.Header)
		}
	}
	if now := spent(t, g).Budgets[0]; now.Used.Requests != 3 || now.Mode != "report" {
		t.Errorf("%+v", now)
	}
	_, text, _ := admin(t, g, "GET", "/metrics")
	for _, want := range []string{
		`moat_budget_refused_total{budget="client",mode="report",unit="requests"} 2`, `moat_budget_used{budget="client",unit="requests"} 3`,
		`moat_budget_cap{budget="client",unit="requests"} 1`, `moat_budget_stopped 0`, `moat_budget_store_up 1`, `moat_budget_spenders{budget="client"} 1`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %s in the metrics", want)
		}
	}
	// The kill switch is no policy to try out.
	admin(t, g, "POST", "/budgets/stop")
	if p := problemOf(t, serve(g, request("GET", app))); p.Code != "budget-stopped" {
		t.Errorf("%+v", p)
	}
}

func TestKillSwitchStopsEveryRouteThatHasABudget(t *testing.T) {
	t.Parallel()
	b := newBackend(t, nil)
	c := configFor(t, b.URL, budgeted(ofSite(budget.Amount{Requests: 100})))
	free := c.Routes[0]
	free.Pattern, free.Budgets = "/free", nil
	c.Routes = append(c.Routes, free)
	g := newGateway(t, c)
	if code, body, _ := admin(t, g, "POST", "/budgets/stop"); code != http.StatusOK {
		t.Fatalf("%d %s", code, body)
	}
	res := serve(g, request("GET", app))
	if p := problemOf(t, res); p.Code != "budget-stopped" || res.StatusCode != http.StatusServiceUnavailable || res.Header.Get("Retry-After") == "" {
		t.Errorf("%+v %v", p, res.Header)
	}
	r := request("GET", app)
	r.URL.Path = "/free"
	if res := serve(g, r); res.StatusCode != http.StatusOK {
		t.Errorf("a route without a budget: %d", res.StatusCode)
	}
	if now := spent(t, g); !now.Stopped || now.StoppedSince == nil {
		t.Errorf("%+v", now)
	}
	admin(t, g, "POST", "/budgets/resume")
	if res := serve(g, request("GET", app)); res.StatusCode != http.StatusOK {
		t.Errorf("%d", res.StatusCode)
	}
	// A page in the operator's browser cannot turn it.
	if code, _, _ := admin(t, g, "POST", "/budgets/stop", "Sec-Fetch-Site", "cross-site"); code != http.StatusForbidden || spent(t, g).Stopped {
		t.Errorf("another site's page stopped it: %d", code)
	}
}

// Who asks the wrong gate is told that nothing was stopped, and nothing is.
func TestAGateWithoutBudgetsStopsNothing(t *testing.T) {
	t.Parallel()
	b := newBackend(t, nil)
	c := configFor(t, b.URL)
	c.Spent = ledger.New() // as a store that other gates share
	g := newGateway(t, c)
	if code, body, _ := admin(t, g, "POST", "/budgets/stop"); code != http.StatusNotFound || !strings.Contains(body, "nothing was stopped") {
		t.Errorf("%d %s", code, body)
	}
	if since, err := c.Spent.Stopped(t.Context()); err != nil || !since.IsZero() {
		t.Errorf("stopped since %v, %v", since, err)
	}
	if code, body, _ := admin(t, g, "POST", "/budgets/resume"); code != http.StatusOK {
		t.Errorf("%d %s", code, body)
	}
}

func TestCountersOutliveReloads(t *testing.T) {
	t.Parallel()
	b := newBackend(t, nil)
	with := func(n int64) gateway.Config {
		if n == 0 {
			return configFor(t, b.URL)
		}
		return configFor(t, b.URL, budgeted(ofSite(budget.Amount{Requests: n})))
	}
	g := newGateway(t, with(2))
	serve(g, request("GET", app))
	serve(g, request("GET", app))
	for _, step := range []struct {
		cap  int64
		want int
	}{{2, 429}, {3, 200}, {3, 429}, {1, 429}, {0, 200}, {3, 429}, {4, 200}} {
		if err := g.Reload(with(step.cap)); err != nil {
			t.Fatal(err)
		}
		if res := serve(g, request("GET", app)); res.StatusCode != step.want {
			t.Errorf("with a cap of %d: %d, want %d", step.cap, res.StatusCode, step.want)
		}
	}
}

func TestResetLetsASpenderStartAfresh(t *testing.T) {
	t.Parallel()
	b := newBackend(t, nil)
	g := newGateway(t, configFor(t, b.URL, budgeted(byAddress(budget.Amount{Requests: 1}))))
	ask := func() int { return serve(g, from("203.0.113.7", request("GET", app))).StatusCode }
	if ask() != 200 || ask() != 429 {
		t.Fatal("the cap does not hold")
	}
	for path, want := range map[string]int{"/budgets?budget=other": 404, "/budgets": 404, "/budgets?budget=client&who=203.0.113.8": 200} {
		if code, body, _ := admin(t, g, "DELETE", path); code != want {
			t.Errorf("%s: %d %s", path, code, body)
		}
	}
	if ask() != 429 {
		t.Fatal("reset what was not named")
	}
	admin(t, g, "DELETE", "/budgets?budget=client&who=203.0.113.7")
	if ask() != 200 || ask() != 429 {
		t.Error("not reset")
	}
}

// A store that cannot be written lets nobody spend.
func TestStoreThatCannotCountFailsClosed(t *testing.T) {
	t.Parallel()
	b := newBackend(t, nil)
	l, _, err := ledger.Open(filepath.Join(t.TempDir(), "moat.db"))
	if err != nil {
		t.Fatal(err)
	}
	g := newGateway(t, configFor(t, b.URL, budgeted(ofSite(budget.Amount{Requests: 5})), func(c *gateway.Config) { c.Spent = l }))
	if res := serve(g, request("GET", app)); res.StatusCode != http.StatusOK {
		t.Fatalf("%d", res.StatusCode)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	res := serve(g, request("GET", app))
	if p := problemOf(t, res); p.Code != "budget-unavailable" || res.StatusCode != http.StatusServiceUnavailable || b.ran.Load() != 1 {
		t.Errorf("%+v", p)
	}
	_, text, _ := admin(t, g, "GET", "/metrics")
	if !strings.Contains(text, "moat_budget_store_failures_total 1") {
		t.Error("the failure is not counted")
	}
}

func TestManyAtOnceDoNotExceedTheCap(t *testing.T) {
	t.Parallel()
	b := newBackend(t, nil)
	l, _, err := ledger.Open(filepath.Join(t.TempDir(), "moat.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	g := newGateway(t, configFor(t, b.URL, budgeted(ofSite(budget.Amount{Requests: 50})), func(c *gateway.Config) { c.Spent = l }))
	var passed atomic.Int64
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			for range 10 {
				if serve(g, request("GET", app)).StatusCode == http.StatusOK {
					passed.Add(1)
				}
			}
		})
	}
	all.Wait()
	if passed.Load() != 50 || b.ran.Load() != 50 {
		t.Errorf("%d passed, the backend ran %d times", passed.Load(), b.ran.Load())
	}
}

func TestRoutesMayNotGiveTwoBudgetsOneName(t *testing.T) {
	t.Parallel()
	c := configFor(t, "http://127.0.0.1:1", budgeted(ofSite(budget.Amount{Requests: 5})))
	other := c.Routes[0]
	other.Pattern, other.Budgets = "/other", []budget.Rule{ofSite(budget.Amount{Requests: 6})}
	c.Routes = append(c.Routes, other)
	if _, err := gateway.New(c, nil); err == nil || !strings.Contains(err.Error(), `"site": another route has another budget of this name`) {
		t.Errorf("%v", err)
	}
}
