package gateway_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/moat-gateway/moat/gateway"
	"github.com/moat-gateway/moat/guard"
	"github.com/moat-gateway/moat/guard/budget"
	"github.com/moat-gateway/moat/store/ledger"
)

// A preflight that is the upstream's to answer passes most guards, so it may bring nothing.
func TestPreflightsCarryNoCall(t *testing.T) {
	for _, mode := range []guard.Mode{guard.Off, guard.Report} {
		p := startProvider(t)
		s := start(t, configFor(t, p.URL, modelled(ledger.New(), lots), func(c *gateway.Config) { c.Routes[0].Modes[guard.CORS] = mode }))
		res := do(t, client(t, s), "OPTIONS", chatAPI, strings.NewReader(prompt("say 50", "")),
			"Origin", "https://app.example.com", "Access-Control-Request-Method", "POST", "Content-Type", "application/json")
		read(t, res)
		if n := p.tokens.Load(); n != 0 {
			t.Errorf("with cors %v: the provider made %d tokens", mode, n)
		}
	}
}

func TestWhatTheProviderTellsItsCustomerStaysHere(t *testing.T) {
	b := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Openai-Organization", "operators-org")
		w.Header().Set("X-Ratelimit-Remaining-Tokens", "149984")
		w.Header().Set("X-Request-Id", "req_1")
		w.WriteHeader(http.StatusNoContent)
	}))
	defer b.Close()
	s := start(t, configFor(t, b.URL, modelled(ledger.New(), lots)))
	h := post(t, client(t, s), prompt("say 7", "")).Header
	if h.Get("Openai-Organization")+h.Get("X-Ratelimit-Remaining-Tokens") != "" || h.Get("X-Request-Id") != "req_1" {
		t.Errorf("%v", h)
	}
}

// What has been sent is in nobody's memory while the answer comes.
func TestSlowAnswersHoldNoRoomForBodies(t *testing.T) {
	p := startProvider(t)
	p.step = make(chan struct{})
	s := start(t, configFor(t, p.URL, modelled(ledger.New(), lots)))
	c := client(t, s)
	long := prompt(strings.Repeat("a", 1000<<10), `,"stream":true`)
	for i := range 140 { // 128 MiB are 131 of them
		res := post(t, c, long)
		defer res.Body.Close()
		if res.StatusCode != http.StatusOK {
			t.Fatalf("after %d: %s %s", i, res.Status, read(t, res))
		}
	}
}

func TestWhoHasNothingLeftTakesNothingOfTheSites(t *testing.T) {
	p, store := startProvider(t), ledger.New()
	all := site(budget.Amount{Requests: 10})
	own := budget.Rule{Name: "own", By: budget.ByAddress, Per: budget.Day, Cap: budget.Amount{Tokens: 50}}
	s := start(t, configFor(t, p.URL, modelled(store, own, all)))
	c := client(t, s)
	for range 11 {
		if res := post(t, c, prompt("say 7", "")); res.StatusCode != http.StatusTooManyRequests || !strings.Contains(read(t, res), `"budget-spent"`) {
			t.Fatal(res.Status)
		}
	}
	settled(t, store, all, budget.Amount{})
	if n := p.calls.Load(); n != 0 {
		t.Errorf("the provider got %d calls", n)
	}
}

// What cannot be read costs whoever sends it nothing of a budget of tokens. It must not use up the site's requests.
func TestRefusedBodiesTakeNothingOfTheSites(t *testing.T) {
	p, store := startProvider(t), ledger.New()
	all := site(budget.Amount{Requests: 10})
	own := budget.Rule{Name: "own", By: budget.ByAddress, Per: budget.Day, Cap: budget.Amount{Tokens: 5000}}
	c := client(t, start(t, configFor(t, p.URL, modelled(store, own, all))))
	for range 25 {
		if code := codeOf(t, post(t, c, "{")); code != guard.ModelRequestUnreadable.String() {
			t.Fatal(code)
		}
		if settled(t, store, all, budget.Amount{}); t.Failed() { // what it took is given back when it is over
			return
		}
	}
	settled(t, store, own, budget.Amount{Requests: 25})
	if res := post(t, c, prompt("say 7", "")); res.StatusCode != http.StatusOK {
		t.Error(res.Status)
	}
	settled(t, store, all, budget.Amount{Requests: 1})
}

// Some providers send a bill for what they filtered, or gave up on, when they had worked.
func TestAnAnswerThatMayHaveTakenWorkIsCharged(t *testing.T) {
	for status, free := range map[int]bool{400: false, 408: false, 504: false, 524: false, 401: true, 404: true, 413: true, 429: true, 500: true, 503: true, 529: true} {
		b := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(status)
			io.WriteString(w, `{"error":{"code":"content_filter"}}`)
		}))
		store := ledger.New()
		body := prompt("say 7", "")
		if res := post(t, client(t, start(t, configFor(t, b.URL, modelled(store, lots)))), body); res.StatusCode != status {
			t.Errorf("%d: %s", status, res.Status)
		}
		want := budget.Amount{}
		if !free {
			want = most(t, body)
		}
		if status == 400 { // there was nothing but the prompt
			want.Tokens -= 100
			want.Money -= 100 * answerPrice
		}
		want.Requests = 1
		settled(t, store, lots, want)
		b.Close()
	}
}

func TestBytesThatAreFetchedCount(t *testing.T) {
	b := newBackend(t, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, strings.Repeat("x", 400)) })
	g := newGateway(t, configFor(t, b.URL, fetching(t, b), budgeted(byAddress(budget.Amount{Bytes: 300}))))
	fetch := func() *http.Response {
		r := request("GET", app)
		r.URL, _ = r.URL.Parse(named(b, "data.test", "/"))
		return serve(g, r)
	}
	if res := fetch(); res.StatusCode != http.StatusOK {
		t.Fatal(res.Status)
	}
	if p := problemOf(t, fetch()); p.Code != "budget-spent" {
		t.Errorf("after 400 bytes of 300: %+v", p)
	}
}

// An empty WHO is a variable that was not set, and not everybody.
func TestResetOfNobodyResetsNobody(t *testing.T) {
	b := newBackend(t, nil)
	g := newGateway(t, configFor(t, b.URL, budgeted(byAddress(budget.Amount{Requests: 1}))))
	serve(g, request("GET", app))
	if code, body, _ := admin(t, g, "DELETE", "/budgets?budget=client&who="); code != http.StatusBadRequest || spent(t, g).Budgets[0].Used.Requests != 1 {
		t.Errorf("%d %s", code, body)
	}
}

// Of what a store was asked for and nobody waited for, nobody would know whether it has been taken, and give it back.
func TestWhoeverLeavesWhileTheStoreIsAskedIsCountedAllTheSame(t *testing.T) {
	b := newBackend(t, nil)
	l, _, err := ledger.Open(filepath.Join(t.TempDir(), "moat.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	g := newGateway(t, configFor(t, b.URL, budgeted(ofSite(budget.Amount{Requests: 50})), func(c *gateway.Config) { c.Spent = l }))
	gone, leave := context.WithCancel(t.Context())
	leave()
	func() {
		defer func() { _ = recover() }() // the connection is closed
		serve(g, request("GET", app).WithContext(gone))
	}()
	if _, text, _ := admin(t, g, "GET", "/metrics"); !strings.Contains(text, "moat_budget_store_failures_total 0") {
		t.Error("whoever leaves is taken for a failure of the store")
	}
	if used := spent(t, g).Budgets[0].Used; used.Requests != 1 {
		t.Errorf("used %+v", used)
	}
}

// A full disk, say. Who looks at the figures, and who waits for an alert, has to be told.
func TestAFileThatCannotBeWrittenIsTold(t *testing.T) {
	b := newBackend(t, nil)
	path := filepath.Join(t.TempDir(), "moat.db")
	l, _, err := ledger.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	g := newGateway(t, configFor(t, b.URL, budgeted(ofSite(budget.Amount{Requests: 320})), func(c *gateway.Config) { c.Spent = l }))
	if res := serve(g, request("GET", app)); res.StatusCode != http.StatusOK || spent(t, g).Error != "" {
		t.Fatalf("%s, %+v", res.Status, spent(t, g))
	}
	if err = os.Rename(path, path+"~"); err != nil {
		t.Fatal(err)
	}
	status := http.StatusOK
	for range 320 {
		if status = serve(g, request("GET", app)).StatusCode; status != http.StatusOK {
			break
		}
	}
	now := spent(t, g)
	_, text, _ := admin(t, g, "GET", "/metrics")
	if status != http.StatusServiceUnavailable || !strings.Contains(now.Error, path) || !strings.Contains(text, "moat_budget_store_up 0") || now.Budgets[0].Used.Requests == 0 {
		t.Fatalf("status %d, %+v", status, now)
	}
	if err = os.Rename(path+"~", path); err != nil {
		t.Fatal(err)
	}
	for range 3000 { // it tries again by itself
		if now = spent(t, g); now.Error == "" {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if status = serve(g, request("GET", app)).StatusCode; now.Error != "" || status != http.StatusOK {
		t.Errorf("mended: status %d, %+v", status, now)
	}
}
