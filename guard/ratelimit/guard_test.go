package ratelimit_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/moat-gateway/moat/guard"
	"github.com/moat-gateway/moat/guard/ratelimit"
	"github.com/moat-gateway/moat/store/memory"
)

// desk asks a Guard the way tests read: allow("203.0.113.7"), deny(...).
type desk struct {
	t *testing.T
	g *ratelimit.Guard
}

func open(t *testing.T, p ratelimit.Policy) desk {
	t.Helper()
	g, err := ratelimit.New(p, memory.New(1<<20))
	if err != nil {
		t.Fatal(err)
	}
	return desk{t, g}
}

func byAddress(name, limit string) ratelimit.Rule {
	return ratelimit.Rule{Name: name, Limit: words(limit), By: []ratelimit.Fact{ratelimit.Address}}
}

func words(s string) ratelimit.Limit {
	l, err := ratelimit.ParseLimit(s)
	if err != nil {
		panic(err)
	}
	return l
}

func facts(addr string) ratelimit.Facts {
	return ratelimit.Facts{Client: netip.MustParseAddr(addr), Route: "r", Method: http.MethodGet}
}

// allow asks n times.
func (d desk) allow(n int, addr string) {
	d.t.Helper()
	for i := range n {
		gr, dec := d.g.Decide(d.t.Context(), facts(addr))
		gr.Release()
		if dec.Denied() {
			d.t.Fatalf("%s: request %d refused: %v", addr, i+1, dec)
		}
	}
}

func (d desk) deny(addr string, reason guard.Reason, got, want string) {
	d.t.Helper()
	gr, dec := d.g.Decide(d.t.Context(), facts(addr))
	defer gr.Release()
	if dec.Reason != reason || !dec.Denied() || dec.Evidence.Got != got || dec.Evidence.Want != want {
		d.t.Fatalf("%s: %v, want %v for %q, %q", addr, dec, reason, got, want)
	}
}

func TestLimitCountsTheAddressAndTheNetworksAroundIt(t *testing.T) {
	d := open(t, ratelimit.Policy{Rules: []ratelimit.Rule{byAddress("client", "60/h burst 4")}})
	d.allow(4, "203.0.113.7")
	d.deny("203.0.113.7", guard.RateLimited, "203.0.113.7", "60/h burst 4")
	for i := range 15 { // 16 times as much for the /24
		d.allow(4, fmt.Sprintf("203.0.113.%d", 10+i))
	}
	d.deny("203.0.113.200", guard.RateLimited, "203.0.113.0/24", "960/h burst 64")
	d.allow(4, "203.0.112.200")

	d.allow(4, "2001:db8:1:100::1")
	d.deny("2001:db8:1:100::2", guard.RateLimited, "2001:db8:1:100::/64", "60/h burst 4")
	for i := range 3 {
		d.allow(4, fmt.Sprintf("2001:db8:1:1%02x::1", i+1))
	}
	d.deny("2001:db8:1:1ff::1", guard.RateLimited, "2001:db8:1:100::/56", "240/h burst 16")
	for i := range 12 { // with the four above, 16 times as much for the /48
		d.allow(4, fmt.Sprintf("2001:db8:1:%x00::1", i+2))
	}
	d.deny("2001:db8:1:ff00::1", guard.RateLimited, "2001:db8:1::/48", "960/h burst 64")
	d.allow(1, "2001:db8:2::1")
}

func TestWiderNetworksCanBeLeftAlone(t *testing.T) {
	r := byAddress("client", "60/h burst 1")
	r.Wider = ratelimit.Wider{IPv4Net24: -1, IPv6Net56: -1, IPv6Net48: -1}
	d := open(t, ratelimit.Policy{Rules: []ratelimit.Rule{r}})
	for i := range 200 {
		d.allow(1, fmt.Sprintf("203.0.113.%d", i))
		d.allow(1, fmt.Sprintf("2001:db8:1:%x::", i))
	}
	d.deny("203.0.113.9", guard.RateLimited, "203.0.113.9", "60/h burst 1")
}

func TestClientsWithoutAnAddressAreOneClient(t *testing.T) {
	d := open(t, ratelimit.Policy{Rules: []ratelimit.Rule{byAddress("client", "60/h burst 1")}})
	for i, want := range []bool{false, true} {
		gr, dec := d.g.Decide(t.Context(), ratelimit.Facts{})
		gr.Release()
		if dec.Denied() != want {
			t.Errorf("request %d: %v", i, dec)
		}
	}
}

func TestRefusedRequestCostsNoLimitAnything(t *testing.T) {
	d := open(t, ratelimit.Policy{Rules: []ratelimit.Rule{
		byAddress("client", "60/h burst 10"),
		{Name: "all", Limit: words("60/h burst 2")},
	}})
	d.allow(2, "203.0.113.7")
	for range 20 {
		d.deny("203.0.113.7", guard.RateLimitedTogether, "everybody", "60/h burst 2")
	}
	gr, _ := d.g.Peek(t.Context(), facts("203.0.113.7"))
	defer gr.Release()
	h := make(http.Header)
	ratelimit.SetHeaders(h, gr)
	if got := h["Ratelimit"][0]; !strings.HasPrefix(got, `"client";r=8;`) {
		t.Errorf("RateLimit: %s", got)
	}
}

func TestTiers(t *testing.T) {
	r := byAddress("client", "60/h burst 1")
	r.Tiers = []ratelimit.Tier{
		{For: []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}, Limit: words("60/h burst 3")},
		{For: []netip.Prefix{netip.MustParsePrefix("198.51.0.0/16"), netip.MustParsePrefix("2001:db8::/32")}, Exempt: true},
	}
	d := open(t, ratelimit.Policy{Rules: []ratelimit.Rule{r}})
	d.allow(3, "198.51.100.1")
	d.deny("198.51.100.1", guard.RateLimited, "198.51.100.1", "60/h burst 3")
	d.allow(50, "198.51.7.7")
	d.allow(50, "2001:db8::7")
	d.allow(1, "192.0.2.1")
	d.deny("192.0.2.1", guard.RateLimited, "192.0.2.1", "60/h burst 1")
}

// A tier with a limit of its own has debts of its own: what is little to one would be a
// full burst to the other, and would free the one or lock the other out.
func TestTiersDoNotShareDebts(t *testing.T) {
	all := ratelimit.Rule{Name: "all", Limit: words("500/s"), Tiers: []ratelimit.Tier{
		{For: []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}, Limit: words("60/h burst 3")},
	}}
	d := open(t, ratelimit.Policy{Rules: []ratelimit.Rule{all}})
	for range 3 {
		d.allow(1, "198.51.100.1")
		d.allow(10, "192.0.2.1")
	}
	d.deny("198.51.100.2", guard.RateLimitedTogether, "everybody", "60/h burst 3")
	d.allow(10, "192.0.2.1")

	client := byAddress("client", "60/h burst 4")
	client.Tiers = []ratelimit.Tier{{For: []netip.Prefix{netip.MustParsePrefix("192.0.2.7/32")}, Limit: words("100000/h")}}
	d = open(t, ratelimit.Policy{Rules: []ratelimit.Rule{client}})
	d.allow(1000, "192.0.2.7")
	d.allow(4, "192.0.2.9")
}

func TestTierInheritsWhatItDoesNotSay(t *testing.T) {
	r := byAddress("client", "60/h burst 2")
	r.AtOnce = 1
	r.Tiers = []ratelimit.Tier{
		{For: []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}, AtOnce: 2},
		{For: []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24")}, Limit: words("60/h burst 3")},
	}
	d := open(t, ratelimit.Policy{Rules: []ratelimit.Rule{r}})
	d.allow(2, "198.51.100.1")
	d.deny("198.51.100.1", guard.RateLimited, "198.51.100.1", "60/h burst 2")
	gr, _ := d.g.Decide(t.Context(), facts("203.0.113.1"))
	d.deny("203.0.113.1", guard.TooManyAtOnce, "203.0.113.1", "at most 1 at once")
	gr.Release()
}

// What a dual-stack socket calls a client, and the methods that a client invents, make no
// other key.
func TestOneClientHasOneKey(t *testing.T) {
	d := open(t, ratelimit.Policy{Rules: []ratelimit.Rule{{
		Name: "client", Limit: words("60/h burst 2"), By: []ratelimit.Fact{ratelimit.Address, ratelimit.Method},
	}}})
	d.allow(1, "203.0.113.7")
	d.allow(1, "::ffff:203.0.113.7")
	d.deny("203.0.113.7", guard.RateLimited, "203.0.113.7 GET", "60/h burst 2")
	d.deny("::ffff:203.0.113.7", guard.RateLimited, "203.0.113.7 GET", "60/h burst 2")
	passed := 0
	for _, m := range []string{"HEAD", "GET0", "GET1", "get", "PROPFIND", ""} {
		gr, dec := d.g.Decide(t.Context(), ratelimit.Facts{Client: netip.MustParseAddr("203.0.113.7"), Route: "r", Method: m})
		gr.Release()
		if !dec.Denied() {
			passed++
		}
	}
	if passed != 2 {
		t.Errorf("%d passed with methods that are one", passed)
	}
}

func TestRoutesAndMethodsAreCountedApartOnlyIfTheLimitSaysSo(t *testing.T) {
	apart := ratelimit.Rule{Name: "apart", Limit: words("60/h burst 1"), By: []ratelimit.Fact{ratelimit.Address, ratelimit.Route, ratelimit.Method}}
	together := byAddress("together", "60/h burst 3")
	d := open(t, ratelimit.Policy{Rules: []ratelimit.Rule{apart, together}})
	for i, f := range []ratelimit.Facts{
		{Route: "a", Method: "GET"}, {Route: "a", Method: "POST"}, {Route: "b", Method: "GET"}, {Route: "b", Method: "POST"},
	} {
		f.Client = netip.MustParseAddr("203.0.113.7")
		gr, dec := d.g.Decide(t.Context(), f)
		gr.Release()
		if dec.Denied() != (i == 3) {
			t.Errorf("%v: %v", f, dec)
		}
		if i == 3 && dec.Evidence.Where != "limit together" {
			t.Errorf("%v", dec)
		}
	}
	gr, dec := d.g.Decide(t.Context(), ratelimit.Facts{Client: netip.MustParseAddr("203.0.113.7"), Route: "a", Method: "GET"})
	gr.Release()
	if want := "203.0.113.7 GET a"; dec.Evidence.Got != want && dec.Evidence.Where == "limit apart" {
		t.Errorf("%v, want %s", dec, want)
	}
}

// Somebody with very many addresses is held to the budget for new ones; whoever is known
// passes meanwhile, however seldom he asks.
func TestNewAddressBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := open(t, ratelimit.Policy{Rules: []ratelimit.Rule{
			byAddress("client", "60/m burst 10"),
			{Name: "new", Limit: words("1/h burst 3"), By: []ratelimit.Fact{ratelimit.NewAddress}},
		}})
		d.allow(5, "203.0.113.7")
		d.allow(1, "2001:db8::1")
		d.allow(1, "2001:db8:0:1::1")
		d.deny("2001:db8:0:2::1", guard.RateLimitedNew, "everybody", "1/h burst 3")
		d.allow(3, "2001:db8::2") // the same /64
		time.Sleep(9 * time.Minute)
		d.allow(1, "203.0.113.7") // none of its debts is left, and it is known
		d.deny("192.0.2.2", guard.RateLimitedNew, "everybody", "1/h burst 3")
		time.Sleep(9 * time.Minute)
		d.allow(1, "203.0.113.7")
		d.deny("2001:db8::1", guard.RateLimitedNew, "everybody", "1/h burst 3") // forgotten
		time.Sleep(time.Hour)
		d.allow(1, "2001:db8::1")
	})
}

// A client is not known by what was refused, costs the budget one whatever it asks for, and
// the budget is nobody's address.
func TestNewAddressBudgetIsSpentByNewClientsOnly(t *testing.T) {
	d := open(t, ratelimit.Policy{Cost: 5, Rules: []ratelimit.Rule{
		byAddress("client", "60/m burst 10"),
		{Name: "new", Limit: words("1/h burst 3"), By: []ratelimit.Fact{ratelimit.NewAddress}},
	}})
	for range 20 {
		d.g.Charge(t.Context(), ratelimit.Facts{Route: "r"}, 1)
		d.g.Charge(t.Context(), facts("192.0.2.9"), 1)
	}
	d.allow(1, "192.0.2.1")
	d.allow(1, "192.0.2.2")
	d.allow(1, "192.0.2.3")
	gr, dec := d.g.Decide(t.Context(), facts("192.0.2.9"))
	gr.Release()
	if !dec.Denied() {
		t.Error("a client that was only ever refused is known")
	}
	d.deny("192.0.2.4", guard.RateLimitedNew, "everybody", "1/h burst 3")
}

func TestAtOnceCountsTheNetworksAround(t *testing.T) {
	d := open(t, ratelimit.Policy{Rules: []ratelimit.Rule{{Name: "slots", AtOnce: 1, By: []ratelimit.Fact{ratelimit.Address}}}})
	var held []*ratelimit.Grant
	defer func() {
		for _, gr := range held {
			gr.Release()
		}
	}()
	for i := range 4 {
		gr, dec := d.g.Decide(t.Context(), facts(fmt.Sprintf("2001:db8:1:%x::1", i)))
		if held = append(held, gr); dec.Denied() {
			t.Fatal(dec)
		}
	}
	d.deny("2001:db8:1:ff::1", guard.TooManyAtOnce, "2001:db8:1::/56", "at most 4 at once")
	d.allow(1, "2001:db8:1:100::1")
	all := open(t, ratelimit.Policy{Rules: []ratelimit.Rule{{Name: "slots", AtOnce: 1}}})
	gr, _ := all.g.Decide(t.Context(), facts("192.0.2.1"))
	defer gr.Release()
	all.deny("192.0.2.2", guard.RateLimitedTogether, "everybody", "at most 1 at once")
}

func TestAtOnce(t *testing.T) {
	r := ratelimit.Rule{Name: "slots", AtOnce: 2, By: []ratelimit.Fact{ratelimit.Address}}
	d := open(t, ratelimit.Policy{Rules: []ratelimit.Rule{r, byAddress("client", "60/h burst 3")}})
	first, dec := d.g.Decide(t.Context(), facts("203.0.113.7"))
	if dec.Denied() {
		t.Fatal(dec)
	}
	second, _ := d.g.Decide(t.Context(), facts("203.0.113.7"))
	d.deny("203.0.113.7", guard.TooManyAtOnce, "203.0.113.7", "at most 2 at once")
	d.allow(1, "203.0.113.8")
	first.Release()
	d.allow(1, "203.0.113.7")
	// The rate refuses now, and what it refuses is not under way.
	for range 5 {
		d.deny("203.0.113.7", guard.RateLimited, "203.0.113.7", "60/h burst 3")
	}
	second.Release()
}

func TestAtOnceUnderConcurrency(t *testing.T) {
	d := open(t, ratelimit.Policy{Rules: []ratelimit.Rule{{Name: "slots", AtOnce: 3, By: []ratelimit.Fact{ratelimit.Address}}}})
	var (
		wg     sync.WaitGroup
		mu     sync.Mutex
		inside int
		most   int
	)
	for range 16 {
		wg.Go(func() {
			for range 500 {
				gr, dec := d.g.Decide(context.Background(), facts("203.0.113.7"))
				if !dec.Denied() {
					mu.Lock()
					inside++
					most = max(most, inside)
					mu.Unlock()
					mu.Lock()
					inside--
					mu.Unlock()
				}
				gr.Release()
			}
		})
	}
	wg.Wait()
	if most > 3 {
		t.Errorf("%d at once", most)
	}
	d.allow(1, "203.0.113.7") // all have left
}

func TestCost(t *testing.T) {
	d := open(t, ratelimit.Policy{Cost: 4, Rules: []ratelimit.Rule{byAddress("client", "60/h burst 10")}})
	d.allow(2, "203.0.113.7")
	d.deny("203.0.113.7", guard.RateLimited, "203.0.113.7", "60/h burst 10")
	free := open(t, ratelimit.Policy{Cost: -1, Rules: []ratelimit.Rule{byAddress("client", "60/h burst 1")}})
	free.allow(100, "203.0.113.7")
}

func TestChargeTakesWhatRoomThereIs(t *testing.T) {
	d := open(t, ratelimit.Policy{Rules: []ratelimit.Rule{byAddress("client", "60/h burst 10")}})
	d.g.Charge(t.Context(), facts("203.0.113.7"), 3)
	d.allow(5, "203.0.113.7")
	d.g.Charge(t.Context(), facts("203.0.113.7"), 100)
	d.deny("203.0.113.7", guard.RateLimited, "203.0.113.7", "60/h burst 10")
	d.g.Charge(t.Context(), facts("203.0.113.8"), 0)
	d.allow(10, "203.0.113.8")
}

func TestPeekChargesNothing(t *testing.T) {
	d := open(t, ratelimit.Policy{Rules: []ratelimit.Rule{{Name: "c", Limit: words("60/h burst 2"), AtOnce: 1, By: []ratelimit.Fact{ratelimit.Address}}}})
	for range 10 {
		gr, dec := d.g.Peek(t.Context(), facts("203.0.113.7"))
		gr.Release()
		if dec.Denied() {
			t.Fatal(dec)
		}
	}
	d.allow(2, "203.0.113.7")
	gr, dec := d.g.Peek(t.Context(), facts("203.0.113.7"))
	defer gr.Release()
	if dec.Reason != guard.RateLimited {
		t.Errorf("%v", dec)
	}
}

var everyone = []netip.Prefix{netip.MustParsePrefix("::/0"), netip.MustParsePrefix("0.0.0.0/0")}

func TestNewRefuses(t *testing.T) {
	ok := words("60/m burst 5")
	for _, c := range []struct {
		policy ratelimit.Policy
		want   string
	}{
		{ratelimit.Policy{Rules: []ratelimit.Rule{{Name: "", Limit: ok}}}, "not a name"},
		{ratelimit.Policy{Rules: []ratelimit.Rule{{Name: `a";q=1`, Limit: ok}}}, "not a name"},
		{ratelimit.Policy{Rules: []ratelimit.Rule{{Name: "a"}}}, "neither a rate nor"},
		{ratelimit.Policy{Rules: []ratelimit.Rule{{Name: "a", Limit: ok, By: []ratelimit.Fact{99}}}}, "no such fact"},
		{ratelimit.Policy{Rules: []ratelimit.Rule{
			{Name: "a", Limit: ok, By: []ratelimit.Fact{ratelimit.NewAddress}}, {Name: "b", Limit: ok, By: []ratelimit.Fact{ratelimit.NewAddress}},
		}}, "the second limit by new address"},
		{ratelimit.Policy{Rules: []ratelimit.Rule{{Name: "a", AtOnce: 1, By: []ratelimit.Fact{ratelimit.NewAddress}}}}, "needs a limit"},
		{ratelimit.Policy{Rules: []ratelimit.Rule{{Name: "a", Limit: ok, By: []ratelimit.Fact{ratelimit.NewAddress, ratelimit.Address}}}}, "new only once"},
		{ratelimit.Policy{Rules: []ratelimit.Rule{{Name: "a", Limit: ratelimit.Limit{Count: -1, Per: time.Second}}}}, "at least 1"},
		{ratelimit.Policy{Cost: 6, Rules: []ratelimit.Rule{{Name: "a", Limit: ok}}}, `"a": a request costs 6, and 60/m burst 5 never has room for more than 5`},
		{ratelimit.Policy{Cost: 1 << 30, Rules: []ratelimit.Rule{{Name: "a", Limit: ok}}}, "must not cost more"},
		{ratelimit.Policy{Rules: []ratelimit.Rule{{Name: "a", Limit: ok, Tiers: []ratelimit.Tier{{For: everyone, Exempt: true, AtOnce: 1}}}}}, "exempt"},
		{ratelimit.Policy{Rules: []ratelimit.Rule{{Name: "a", Limit: ok, Tiers: []ratelimit.Tier{{Exempt: true}}}}}, "for no address"},
		{ratelimit.Policy{Rules: []ratelimit.Rule{{Name: "a", Limit: ok, By: []ratelimit.Fact{ratelimit.NewAddress}, Tiers: []ratelimit.Tier{{For: everyone, AtOnce: 1}}}}}, "cannot have at_once"},
		{ratelimit.Policy{Rules: []ratelimit.Rule{{Name: "a", Limit: ok, By: []ratelimit.Fact{ratelimit.Address}, Wider: ratelimit.Wider{IPv4Net24: 1 << 20}}}}, "more than 65536 times"},
		{ratelimit.Policy{Rules: []ratelimit.Rule{{Name: "a", Limit: ok, By: []ratelimit.Fact{ratelimit.Address}, Wider: ratelimit.Wider{IPv6Net56: 8, IPv6Net48: 4}}}}, "could then never have its own"},
	} {
		_, err := ratelimit.New(c.policy, memory.New(1<<16))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, want %q", c.policy, err, c.want)
		}
	}
}

// down is a shared store that cannot be reached.
type down struct {
	ratelimit.Store
	nodes int
}

var errDown = errors.New("no answer")

func (down) Take(context.Context, []ratelimit.Demand, []ratelimit.Result) (bool, error) {
	return false, errDown
}

func (d down) Nodes() int { return d.nodes }

func TestStoreThatIsDown(t *testing.T) {
	policy := func(d ratelimit.Down) ratelimit.Policy {
		return ratelimit.Policy{Rules: []ratelimit.Rule{byAddress("client", "60/h burst 8")}, Down: d, Local: memory.New(1 << 16)}
	}
	for _, c := range []struct {
		down   ratelimit.Down
		nodes  int
		allows int
		reason guard.Reason
		want   string
	}{
		{ratelimit.DownLocal, 0, 8, guard.RateLimited, "60/h burst 8"},
		{ratelimit.DownLocal, 4, 2, guard.RateLimited, "60/h burst 8"},
		{ratelimit.DownDeny, 1, 0, guard.RateLimitUnavailable, "an answer in time"},
	} {
		g, err := ratelimit.New(policy(c.down), down{nodes: c.nodes})
		if err != nil {
			t.Fatal(err)
		}
		d := desk{t, g}
		d.allow(c.allows, "203.0.113.7")
		gr, dec := g.Decide(t.Context(), facts("203.0.113.7"))
		if dec.Reason != c.reason || !dec.Denied() || dec.Evidence.Want != c.want || !errors.Is(gr.Degraded, errDown) {
			t.Errorf("%v: %v %v", c, dec, gr.Degraded)
		}
		h := make(http.Header)
		ratelimit.SetHeaders(h, gr)
		if h.Get("Retry-After") == "" {
			t.Errorf("%v: no Retry-After", c)
		}
		gr.Release()
	}
	g, err := ratelimit.New(policy(ratelimit.DownAllow), down{})
	if err != nil {
		t.Fatal(err)
	}
	desk{t, g}.allow(100, "203.0.113.7")
	g.Charge(t.Context(), facts("203.0.113.7"), 5)
}

// The share of one process must still let a request pass that is dear.
func TestShareOfADearRequest(t *testing.T) {
	g, err := ratelimit.New(ratelimit.Policy{
		Rules: []ratelimit.Rule{byAddress("client", "60/h burst 8")}, Cost: 5, Local: memory.New(1 << 16),
	}, down{nodes: 4})
	if err != nil {
		t.Fatal(err)
	}
	d := desk{t, g}
	d.allow(1, "203.0.113.7")
	d.deny("203.0.113.7", guard.RateLimited, "203.0.113.7", "60/h burst 8")
}

func TestHandlerTellsTheClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, err := ratelimit.New(ratelimit.Policy{Rules: []ratelimit.Rule{
			byAddress("client", "60/m burst 2"), byAddress("day", "1000/d burst 100"), {Name: "all", Limit: words("100/s")},
		}}, memory.New(1<<16))
		if err != nil {
			t.Fatal(err)
		}
		served := 0
		h := g.Handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { served++ }))
		ask := func() *httptest.ResponseRecorder {
			r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", http.NoBody)
			r.RemoteAddr = "[::ffff:203.0.113.7]:1234"
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			return w
		}
		w := ask()
		for name, want := range map[string]string{
			"Ratelimit-Policy": `"client";q=2;w=2, "day";q=100;w=8640`, "Ratelimit": `"client";r=1;t=1, "day";r=99;t=87`, "Retry-After": "",
		} {
			if got := strings.Join(w.Header().Values(name), ", "); got != want {
				t.Errorf("%s: %s, want %s", name, got, want)
			}
		}
		ask()
		w = ask()
		var problem struct{ Code string }
		if err := json.Unmarshal(w.Body.Bytes(), &problem); err != nil || problem.Code != "rate-limited" {
			t.Errorf("%s %v", w.Body, err)
		}
		if w.Code != http.StatusTooManyRequests || w.Header().Get("Retry-After") != "1" || served != 2 {
			t.Errorf("%d %v, %d served", w.Code, w.Header(), served)
		}
		time.Sleep(time.Second)
		if w = ask(); w.Code != http.StatusOK {
			t.Errorf("after Retry-After: %d", w.Code)
		}
	})
}

// The window that is told is never shorter than a second, so the quota is what passes in one.
func TestPolicyOfAShortWindow(t *testing.T) {
	for limit, want := range map[string]string{"100/s burst 20": `"c";q=100;w=1`, "10/s burst 1": `"c";q=10;w=1`, "10/s burst 30": `"c";q=30;w=3`} {
		d := open(t, ratelimit.Policy{Rules: []ratelimit.Rule{byAddress("c", limit)}})
		gr, _ := d.g.Decide(t.Context(), facts("203.0.113.8"))
		h := make(http.Header)
		ratelimit.SetHeaders(h, gr)
		gr.Release()
		if h["Ratelimit-Policy"][0] != want {
			t.Errorf("%s: %v, want %s", limit, h, want)
		}
	}
}

// A client whose network has no more room is told to wait, and not how much its neighbours
// have asked for.
func TestHeadersTellOfTheNetworkOnlyThatItIsFull(t *testing.T) {
	d := open(t, ratelimit.Policy{Rules: []ratelimit.Rule{byAddress("c", "60/m burst 2")}})
	for i := range 16 {
		d.allow(2, fmt.Sprintf("203.0.113.%d", i))
	}
	gr, dec := d.g.Decide(t.Context(), facts("203.0.113.99"))
	defer gr.Release()
	h := make(http.Header)
	ratelimit.SetHeaders(h, gr)
	if !dec.Denied() || h["Ratelimit"][0] != `"c";r=0;t=1` || h.Get("Retry-After") != "1" {
		t.Errorf("%v %v", dec, h)
	}
}

// What neighbours and everybody together use is nobody's business.
func TestHeadersTellNothingOfOthers(t *testing.T) {
	d := open(t, ratelimit.Policy{Rules: []ratelimit.Rule{{Name: "all", Limit: words("60/h burst 1")}}})
	d.allow(1, "203.0.113.7")
	gr, _ := d.g.Decide(t.Context(), facts("203.0.113.8"))
	defer gr.Release()
	h := make(http.Header)
	ratelimit.SetHeaders(h, gr)
	if len(h["Ratelimit"])+len(h["Ratelimit-Policy"]) > 0 || h.Get("Retry-After") != "60" {
		t.Errorf("%v", h)
	}
}

func BenchmarkDecide(b *testing.B) {
	all := ratelimit.Rule{Name: "all", Limit: words("1000000/s")}
	for name, first := range map[string]ratelimit.Rule{
		"address":   byAddress("client", "1000000/s burst 100000000"),
		"principal": {Name: "user", Limit: words("1000000/s burst 100000000"), By: []ratelimit.Fact{ratelimit.Principal}},
		"claim":     {Name: "tenant", Limit: words("1000000/s burst 100000000"), ByClaims: []string{"org"}},
		"account":   {Name: "login", Limit: words("1000000/s burst 100000000"), By: []ratelimit.Fact{ratelimit.Account}},
	} {
		b.Run(name, func(b *testing.B) {
			g, err := ratelimit.New(ratelimit.Policy{Rules: []ratelimit.Rule{first, all}}, memory.New(1<<20))
			if err != nil {
				b.Fatal(err)
			}
			f := facts("2001:db8::1")
			f.Principal, f.Account = alice, "alice@example.com"
			h := make(http.Header)
			b.ReportAllocs()
			for b.Loop() {
				gr, _ := g.Decide(b.Context(), f)
				ratelimit.SetHeaders(h, gr)
				gr.Release()
			}
		})
	}
}
