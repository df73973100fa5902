package ratelimit_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"

	"github.com/moat-gateway/moat/guard/ratelimit"
	"github.com/moat-gateway/moat/store/memory"
)

// A limit in front of a handler. Behind a proxy, clientaddr's Handler belongs in front of
// it, or all clients count as one.
func ExampleGuard_Handler() {
	limit, err := ratelimit.ParseLimit("60/m burst 2")
	if err != nil {
		panic(err)
	}
	g, err := ratelimit.New(ratelimit.Policy{Rules: []ratelimit.Rule{
		{Name: "visitor", Limit: limit, By: []ratelimit.Fact{ratelimit.Address}},
	}}, memory.New(1<<20))
	if err != nil {
		panic(err)
	}
	h := g.Handler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "work") }))

	for range 3 {
		w := httptest.NewRecorder()
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.RemoteAddr = "203.0.113.7:4711"
		h.ServeHTTP(w, r)
		fmt.Println(w.Code, w.Header()["Ratelimit"], w.Header()["Retry-After"])
	}
	// Output:
	// 200 ["visitor";r=1;t=1] []
	// 200 ["visitor";r=0;t=2] []
	// 429 ["visitor";r=0;t=2] [1]
}

// The wrong wiring: whoever takes the address from a header that the client sends lets
// each client choose what it is counted by.
func ExampleGuard_Decide_wrong() {
	g, err := ratelimit.New(ratelimit.Policy{Rules: []ratelimit.Rule{
		{Name: "visitor", Limit: ratelimit.Limit{Count: 1, Per: 3600e9}, By: []ratelimit.Fact{ratelimit.Address}},
	}}, memory.New(1<<20))
	if err != nil {
		panic(err)
	}
	for i := range 3 {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Header.Set("X-Forwarded-For", fmt.Sprintf("198.51.100.%d", i))
		chosen, _ := netip.ParseAddr(r.Header.Get("X-Forwarded-For")) // do not
		grant, d := g.Decide(r.Context(), ratelimit.Facts{Client: chosen})
		fmt.Println(d.Outcome)
		grant.Release()
	}
	// Output:
	// allow
	// allow
	// allow
}
