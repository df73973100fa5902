package gateway_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/moat-gateway/moat/gateway"
	"github.com/moat-gateway/moat/guard"
	"github.com/moat-gateway/moat/guard/budget"
	"github.com/moat-gateway/moat/guard/ticket"
	"github.com/moat-gateway/moat/guard/ticket/tickettest"
	"github.com/moat-gateway/moat/store/ledger"
)

// called is a call of the page's, to the model.
func called(v *tickettest.Visit, body string) *http.Request {
	r := asPage(httptest.NewRequest(http.MethodPost, self+chatAPI, strings.NewReader(body)), app)
	r.RequestURI = chatAPI
	r.Header.Set("Content-Type", "application/json")
	if v != nil {
		r.Header.Set(ticket.Header, v.Token(http.MethodPost, chatAPI, []byte(body)))
	}
	return r
}

// visits hands out tickets' uses.
type visits struct {
	*testing.T
	gate http.Handler
	now  *tickettest.Visit
	left int
}

func (v *visits) next() *tickettest.Visit {
	if v.left == 0 {
		v.now = &tickettest.Visit{}
		open(v.T, v.gate, v.now)
		v.left = v.now.Uses
	}
	v.left--
	return v.now
}

// Denial of wallet: whatever is sent to spend the site's money at a provider, the provider's own ledger says
// what it has got.
func TestTenThousandHostileCallsCostTheProviderNothing(t *testing.T) {
	p, store := startProvider(t), ledger.New()
	// An honest call takes what there is: what comes after it is over budget besides all else.
	honest := prompt("say 7", "")
	budgets := []budget.Rule{
		site(budget.Amount{Tokens: 1e9}),
		{Name: "day", By: budget.ByVisitor, Per: budget.Day, Cap: budget.Amount{Tokens: most(t, honest).Tokens}},
	}
	g := newGateway(t, configFor(t, p.URL, modelled(store, budgets...), route(func(r *gateway.Route) { r.CrossSite.AllowBrowserless, r.Bounds.BodyBytes = false, 32<<10 }), ticketed(func(c *gateway.Config) {
		c.Tickets.ChallengeMode = guard.Off // they have solved what there was
	})))
	v := &visits{T: t, gate: g}
	spender := v.next()
	if res := serve(g, called(spender, honest)); res.StatusCode != http.StatusOK {
		t.Fatal(res.Status, codeOf(t, res))
	}
	calls, tokens := p.calls.Load(), p.tokens.Load()
	if calls != 1 || tokens == 0 {
		t.Fatalf("the honest call: %d calls, %d tokens", calls, tokens)
	}
	used := called(spender, honest)
	v.left--
	if res := serve(g, used.Clone(t.Context())); codeOf(t, res) != guard.BudgetSpent.String() {
		t.Fatal("there is something left")
	}
	replay := func() *http.Request {
		r := used.Clone(t.Context())
		r.Body = io.NopCloser(strings.NewReader(honest))
		return r
	}
	with := func(more string) func() *http.Request {
		return func() *http.Request { return called(v.next(), prompt("hello", more)) }
	}
	attacks := []struct {
		name string
		make func() *http.Request
	}{
		{"no ticket", func() *http.Request { return called(nil, honest) }},
		{"curl", func() *http.Request {
			r := httptest.NewRequest(http.MethodPost, self+chatAPI, strings.NewReader(honest))
			r.Header.Set("Content-Type", "application/json")
			return r
		}},
		{"a used ticket", replay},
		{"a ticket for another body", func() *http.Request {
			r := called(v.next(), honest)
			r.Body = io.NopCloser(strings.NewReader(strings.Replace(honest, "say 7", "say 9", 1)))
			return r
		}},
		{"a ticket of another page", func() *http.Request {
			r := called(v.next(), honest)
			r.Header.Set("Origin", stranger)
			return r
		}},
		{"a ticket from another network", func() *http.Request {
			r := called(v.next(), honest)
			r.RemoteAddr = "198.51.100.7:4711"
			return r
		}},
		{"a forged ticket", func() *http.Request {
			r := called(v.next(), honest)
			token := []byte(r.Header.Get(ticket.Header))
			token[len(token)/3] ^= 1
			r.Header.Set(ticket.Header, string(token))
			return r
		}},
		{"another method", func() *http.Request {
			r := called(v.next(), honest)
			r.Method = http.MethodGet
			return r
		}},
		{"another path", func() *http.Request {
			r := called(v.next(), honest)
			r.URL.Path = "/v1/embeddings"
			return r
		}},
		{"another Host", func() *http.Request {
			r := called(v.next(), honest)
			r.Host = "evil.test"
			return r
		}},
		{"a body that is too large", func() *http.Request { return called(v.next(), prompt(strings.Repeat("a", 64<<10), "")) }},
		{"no JSON", func() *http.Request { return called(v.next(), "{") }},
		{"two models", with(`,"model":"large"`)},
		{"a model that is not offered", func() *http.Request { return called(v.next(), strings.Replace(honest, "small", "large", 1)) }},
		{"too many tokens", with(`,"max_tokens":100000`)},
		{"too many answers", with(`,"n":128,"max_tokens":100`)},
		{"a bound that is none", with(`,"max_tokens":-1`)},
		{"a search", with(`,"web_search_options":{}`)},
		{"a tool that the provider runs", with(`,"tools":[{"type":"web_search"}]`)},
		{"priority", with(`,"service_tier":"priority"`)},
		{"a predicted output", with(`,"prediction":{"type":"content","content":"a"}`)},
		{"an image", func() *http.Request {
			return called(v.next(), `{"model":"small","messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"https://evil.test/a.png"}}]}]}`)
		}},
		{"another one's money", func() *http.Request {
			r := called(v.next(), honest)
			r.Header.Set("OpenAI-Organization", "org-other")
			return r
		}},
		{"compressed", func() *http.Request {
			r := called(v.next(), honest)
			r.Header.Set("Content-Encoding", "gzip")
			return r
		}},
		{"over budget", func() *http.Request { // a longer prompt than the visitor's day allows
			return called(v.next(), prompt(strings.Repeat("long ", 400), ""))
		}},
	}
	const hostile = 10_000
	refused := make(map[string]map[string]int)
	for i := range hostile {
		a := attacks[i%len(attacks)]
		res := serve(g, a.make())
		if res.StatusCode < 400 {
			t.Fatalf("%s: %s", a.name, res.Status)
		}
		if refused[a.name] == nil {
			refused[a.name] = make(map[string]int)
		}
		refused[a.name][codeOf(t, res)]++
	}
	if c, n := p.calls.Load()-calls, p.tokens.Load()-tokens; c != 0 || n != 0 {
		t.Errorf("%d hostile calls: the provider got %d of them, and made %d tokens", hostile, c, n)
	}
	for _, a := range attacks {
		t.Log(a.name, refused[a.name])
	}
	settled(t, store, budgets[0], budget.Amount{Requests: usedOf(t, store, budgets[0]).Requests, Tokens: tokens, Money: budget.Money(p.nanos.Load())})
}

// crowd is many callers at once, of whom some stream and some hang up.
func crowd(t *testing.T, gates []*gate, callers, each int) {
	t.Helper()
	var wg sync.WaitGroup
	for i := range callers {
		c := client(t, gates[i%len(gates)])
		wg.Go(func() {
			for j := range each {
				body := prompt(fmt.Sprintf("say %d and more", 1+(i*7+j*13)%150), []string{"", `,"stream":true`, `,"n":2,"max_tokens":40`}[(i+j)%3])
				ctx, cancel := context.WithCancel(context.Background())
				req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://api.example.com"+chatAPI, strings.NewReader(body))
				if err != nil {
					t.Error(err)
					cancel()
					return
				}
				req.Header.Set("Content-Type", "application/json")
				res, err := c.Do(req)
				if err != nil {
					t.Error(err)
					cancel()
					return
				}
				if (i+j)%5 == 0 {
					res.Body.Read(make([]byte, 8)) // it hangs up
					cancel()
				} else {
					io.Copy(io.Discard, res.Body)
				}
				res.Body.Close()
				cancel()
			}
		})
	}
	wg.Wait()
}

// The most that is spent is the cap: what a call may take is set aside before the provider gets it. There is
// no overshoot where the provider keeps to the bound of the call.
func TestTheCapHoldsForManyAtOnce(t *testing.T) {
	p, store := startProvider(t), ledger.New()
	limit := site(budget.Amount{Tokens: 40_000, Money: 100_000_000})
	crowd(t, []*gate{start(t, configFor(t, p.URL, modelled(store, limit)))}, 64, 12)
	capped(t, p, limit)
}

func capped(t *testing.T, p *provider, limit budget.Rule) {
	t.Helper()
	p.Close() // whatever it was at, it has ended
	tokens, nanos := p.tokens.Load(), p.nanos.Load()
	t.Logf("the provider made %d calls, %d tokens for %d billionths", p.calls.Load(), tokens, nanos)
	if tokens > limit.Cap.Tokens || nanos > int64(limit.Cap.Money) {
		t.Errorf("the provider's bill is %d tokens and %d billionths; the cap is %+v", tokens, nanos, limit.Cap)
	}
	if p.calls.Load() < 50 || tokens < limit.Cap.Tokens/20 {
		t.Errorf("of a cap of %d tokens only %d were spent, in %d calls: this shows nothing", limit.Cap.Tokens, tokens, p.calls.Load())
	}
}
