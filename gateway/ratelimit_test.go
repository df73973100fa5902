package gateway_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/moat-gateway/moat/gateway"
	"github.com/moat-gateway/moat/guard"
	"github.com/moat-gateway/moat/guard/ratelimit"
	"github.com/moat-gateway/moat/web"
)

// limited has each client held to the limit.
func limited(words string, change ...func(*gateway.Route)) func(*gateway.Config) {
	l, err := ratelimit.ParseLimit(words)
	if err != nil {
		panic(err)
	}
	return route(func(r *gateway.Route) {
		r.RateLimits = []ratelimit.Rule{{Name: "client", Limit: l, By: []ratelimit.Fact{ratelimit.Address}}}
		for _, f := range change {
			f(r)
		}
	})
}

func TestPageCanReadThatItIsLimited(t *testing.T) {
	b := newBackend(t, nil)
	g := newGateway(t, configFor(t, b.URL, limited("60/h burst 2")))
	for range 2 {
		if res := serve(g, request("GET", app)); res.StatusCode != http.StatusOK || res.Header.Get("Ratelimit") == "" {
			t.Fatalf("%d %v", res.StatusCode, res.Header)
		}
	}
	res := serve(g, request("GET", app))
	if p := problemOf(t, res); p.Code != "rate-limited" || res.StatusCode != http.StatusTooManyRequests {
		t.Errorf("%d %+v", res.StatusCode, p)
	}
	h := res.Header
	if h.Get("Access-Control-Allow-Origin") != app || h.Get("Retry-After") != "60" {
		t.Errorf("%v", h)
	}
	exposed := strings.Split(h.Get("Access-Control-Expose-Headers"), ",")
	for _, name := range []string{"ratelimit", "ratelimit-policy", "retry-after"} {
		if !slices.Contains(exposed, name) {
			t.Errorf("%s cannot be read: %v", name, exposed)
		}
	}
	if n := b.ran.Load(); n != 2 {
		t.Errorf("the backend ran %d times", n)
	}
}

func preflight() *http.Request {
	return request("OPTIONS", app, "Access-Control-Request-Method", "PUT", "Access-Control-Request-Headers", "content-type")
}

func TestPreflightsAndRefusedRequestsCostNothing(t *testing.T) {
	b := newBackend(t, nil)
	g := newGateway(t, configFor(t, b.URL, limited("60/h burst 1")))
	for range 10 {
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
	for range 10 {
		if res := serve(g, preflight()); res.StatusCode != http.StatusNoContent {
			t.Fatalf("preflight of a client that is limited: %d", res.StatusCode)
		}
	}
}

func TestWhatPreflightsAndRefusedRequestsCostIfTheRouteSaysSo(t *testing.T) {
	for _, c := range []struct {
		name string
		cost gateway.Cost
		ask  *http.Request
		code int
	}{
		{"refused", gateway.Cost{Refused: 4}, request("POST", stranger), http.StatusForbidden},
		{"preflight", gateway.Cost{Preflight: 4}, preflight(), http.StatusNoContent},
	} {
		b := newBackend(t, nil)
		g := newGateway(t, configFor(t, b.URL, limited("60/h burst 10", func(r *gateway.Route) { r.Cost = c.cost })))
		for range 3 { // twelve, of ten
			if res := serve(g, c.ask.Clone(t.Context())); res.StatusCode != c.code {
				t.Fatalf("%s: %d", c.name, res.StatusCode)
			}
		}
		if p := problemOf(t, serve(g, request("GET", app))); p.Code != "rate-limited" {
			t.Errorf("%s: %+v", c.name, p)
		}
		if res := serve(g, c.ask.Clone(t.Context())); res.StatusCode != c.code {
			t.Errorf("%s, limited: %d", c.name, res.StatusCode)
		}
	}
}

func TestFreeRequests(t *testing.T) {
	b := newBackend(t, nil)
	g := newGateway(t, configFor(t, b.URL, limited("60/h burst 1", func(r *gateway.Route) { r.Cost.Request = -1 })))
	for range 5 {
		if res := serve(g, request("GET", app)); res.StatusCode != http.StatusOK {
			t.Fatal(res.StatusCode)
		}
	}
}

func TestLimitInReportModeOnlyRecords(t *testing.T) {
	b := newBackend(t, nil)
	g := newGateway(t, configFor(t, b.URL, limited("60/h burst 1", func(r *gateway.Route) { r.Modes[guard.RateLimit] = guard.Report })))
	for range 3 {
		res := serve(g, request("GET", app))
		if res.StatusCode != http.StatusOK || res.Header.Get("Ratelimit") != "" || strings.Contains(res.Header.Get("Access-Control-Expose-Headers"), "ratelimit") {
			t.Errorf("%d %v", res.StatusCode, res.Header)
		}
	}
	if v := g.Decide(request("GET", app), gateway.Assumed{}); len(v.Reports) != 1 || v.Reports[0].Reason != guard.RateLimited {
		t.Errorf("%+v", v)
	}
}

func TestDecideChargesNothing(t *testing.T) {
	b := newBackend(t, nil)
	g := newGateway(t, configFor(t, b.URL, limited("60/h burst 1")))
	for range 5 {
		if v := g.Decide(request("GET", app), gateway.Assumed{}); v.Decision.Ends() {
			t.Fatalf("%+v", v.Decision)
		}
	}
	if res := serve(g, request("GET", app)); res.StatusCode != http.StatusOK {
		t.Fatal(res.StatusCode)
	}
	if v := g.Decide(request("GET", app), gateway.Assumed{}); v.Decision.Reason != guard.RateLimited {
		t.Errorf("%+v", v.Decision)
	}
}

func TestReloadChangesLimitsWithoutForgettingDebts(t *testing.T) {
	b := newBackend(t, nil)
	g := newGateway(t, configFor(t, b.URL, limited("60/h burst 10")))
	ask := func(n int) (passed int) {
		for range n {
			if serve(g, request("GET", app)).StatusCode == http.StatusOK {
				passed++
			}
		}
		return passed
	}
	reload := func(words string) {
		t.Helper()
		if err := g.Reload(configFor(t, b.URL, limited(words))); err != nil {
			t.Fatal(err)
		}
	}
	if n := ask(10); n != 10 {
		t.Fatalf("%d", n)
	}
	reload("60/h burst 10")
	if n := ask(5); n != 0 {
		t.Errorf("the same limit: %d passed", n)
	}
	reload("60/h burst 15")
	if n := ask(10); n != 5 {
		t.Errorf("five more: %d passed", n)
	}
	reload("3600/h burst 1") // a second until the next, whatever was owed
	if n := ask(3); n != 0 {
		t.Errorf("narrower: %d passed", n)
	}
	time.Sleep(1100 * time.Millisecond)
	if n := ask(3); n != 1 {
		t.Errorf("narrower, a second later: %d passed", n)
	}
}

// Whatever way a request ends, it is not under way any more.
func TestAtOnceCountsUntilTheAnswerIsOver(t *testing.T) {
	hold, entered := make(chan struct{}), make(chan struct{}, 8)
	b := newBackend(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/hold":
			w.WriteHeader(http.StatusOK)
			http.NewResponseController(w).Flush()
			entered <- struct{}{}
			<-hold
		case "/break":
			w.Header().Set("Content-Length", "10")
			io.WriteString(w, "five!")
			http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		}
	})
	s := start(t, configFor(t, b.URL, plain, route(func(r *gateway.Route) {
		r.RateLimits = []ratelimit.Rule{{Name: "slots", AtOnce: 1, By: []ratelimit.Fact{ratelimit.Address}}}
	})))
	c := client(t, s)
	res := do(t, c, "GET", "/hold", nil)
	<-entered
	if got := do(t, c, "GET", "/", nil); got.StatusCode != http.StatusTooManyRequests || got.Header.Get("Retry-After") == "" {
		t.Errorf("while one is under way: %d %v", got.StatusCode, got.Header)
	}
	close(hold)
	read(t, res)
	free := func(after string) {
		t.Helper()
		for range 100 { // the gate notices in its own time
			res := do(t, c, "GET", "/", nil)
			read(t, res)
			if res.StatusCode == http.StatusOK {
				return
			}
			time.Sleep(20 * time.Millisecond)
		}
		t.Errorf("after %s the place is not free", after)
	}
	free("an answer")
	for range 3 {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://api.example.com/break", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		if res, err := c.Do(r); err == nil { // else not even the head came
			if _, err = io.ReadAll(res.Body); err == nil && res.StatusCode == http.StatusOK {
				t.Error("a broken answer passes for a whole one")
			}
			res.Body.Close()
		}
		free("a broken answer")
	}
}

// outage is a shared store that does not answer.
type outage struct{ ratelimit.Store }

func (outage) Take(context.Context, []ratelimit.Demand, []ratelimit.Result) (bool, error) {
	return false, errors.New("no answer in time")
}

func (outage) Nodes() int { return 2 }

func TestSharedStoreThatDoesNotAnswer(t *testing.T) {
	for down, passes := range map[ratelimit.Down]int{ratelimit.DownLocal: 5, ratelimit.DownAllow: 20, ratelimit.DownDeny: 0} {
		t.Run(fmt.Sprint(down), func(t *testing.T) {
			b := newBackend(t, nil)
			g := newGateway(t, configFor(t, b.URL, limited("60/h burst 10", func(r *gateway.Route) { r.StoreDown = down }),
				func(c *gateway.Config) { c.SharedLimits = outage{} }))
			passed := 0
			for range 20 {
				res := serve(g, request("GET", app))
				switch res.StatusCode {
				case http.StatusOK:
					passed++
				case http.StatusServiceUnavailable:
					if p := problemOf(t, res); p.Code != "rate-limit-unavailable" || down != ratelimit.DownDeny {
						t.Errorf("%+v", p)
					}
				}
			}
			if passed != passes {
				t.Errorf("%d passed, want %d", passed, passes)
			}
		})
	}
}

// Where CORS does not answer it, a preflight is a request like any other.
func TestPreflightThatReachesTheUpstreamIsLimited(t *testing.T) {
	b := newBackend(t, nil)
	g := newGateway(t, configFor(t, b.URL, limited("60/h burst 2", func(r *gateway.Route) {
		r.Modes[guard.CORS], r.Modes[guard.Bounds] = guard.Report, guard.Report
	})))
	for range 10 {
		serve(g, preflight())
	}
	if n := b.ran.Load(); n != 2 {
		t.Errorf("%d preflights reached the backend", n)
	}
}

// Refusals that come before the client is told are paid for by whoever asked.
func TestRefusedPathIsPaidByItsClient(t *testing.T) {
	b := newBackend(t, nil)
	g := newGateway(t, configFor(t, b.URL, limited("60/h burst 5", func(r *gateway.Route) { r.Cost.Refused = 5 })))
	bad := request("GET", app)
	bad.URL.Path, bad.URL.RawPath = "/v1/a/b", "/v1/a%2Fb"
	bad.RemoteAddr = "203.0.113.7:1"
	if p := problemOf(t, serve(g, bad)); p.Code != "path-ambiguous" {
		t.Fatalf("%+v", p)
	}
	for addr, want := range map[string]int{"203.0.113.7:1": http.StatusTooManyRequests, "203.0.113.8:1": http.StatusOK} {
		r := request("GET", app)
		r.RemoteAddr = addr
		if res := serve(g, r); res.StatusCode != want {
			t.Errorf("%s: %d, want %d", addr, res.StatusCode, want)
		}
	}
}

func TestLimitOfTheUpstreamDoesNotMixWithOurs(t *testing.T) {
	b := newBackend(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("RateLimit", `"theirs";r=999;t=1`)
		w.Header().Set("Retry-After", "7")
	})
	g := newGateway(t, configFor(t, b.URL, limited("60/h burst 5")))
	if h := serve(g, request("GET", app)).Header; !strings.Contains(strings.Join(h["Ratelimit"], ","), `"client";r=4`) || len(h["Ratelimit"]) != 1 || h.Get("Retry-After") != "7" {
		t.Errorf("%v", h)
	}
	g = newGateway(t, configFor(t, b.URL))
	if h := serve(g, request("GET", app)).Header; h.Get("Ratelimit") != `"theirs";r=999;t=1` {
		t.Errorf("without a limit of ours: %v", h)
	}
}

// Where every page may read, none is told what its visitor has done elsewhere.
func TestStrangersDoNotReadTheVisitorsLimit(t *testing.T) {
	b := newBackend(t, nil)
	anybody, faults := web.NewOriginSet([]string{"*"}, web.OriginSetOptions{})
	if faults != nil {
		t.Fatal(faults)
	}
	g := newGateway(t, configFor(t, b.URL, limited("60/h burst 5", func(r *gateway.Route) {
		r.Origins, r.CORS.Credentials = anybody, false
	})))
	h := serve(g, request("GET", stranger)).Header
	if exposed := h.Get("Access-Control-Expose-Headers"); exposed != "retry-after" || h.Get("Ratelimit") == "" {
		t.Errorf("%q, %v", exposed, h)
	}
}

// A panic on the way must not leave a place taken for ever.
func TestPanicFreesThePlace(t *testing.T) {
	b := newBackend(t, nil)
	g := newGateway(t, configFor(t, b.URL, limited("60/h burst 50", func(r *gateway.Route) { r.RateLimits[0].AtOnce = 1 }), func(c *gateway.Config) {
		c.SharedLimits = breaking{}
	}))
	for range 3 {
		func() {
			defer func() {
				if recover() == nil {
					t.Error("the store did not panic")
				}
			}()
			serve(g, request("GET", app))
		}()
	}
}

type breaking struct{ ratelimit.Store }

func (breaking) Take(context.Context, []ratelimit.Demand, []ratelimit.Result) (bool, error) {
	panic("a fault in a store")
}
