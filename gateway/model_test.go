package gateway_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/moat-gateway/moat/gateway"
	"github.com/moat-gateway/moat/guard"
	"github.com/moat-gateway/moat/guard/budget"
	"github.com/moat-gateway/moat/guard/model"
	"github.com/moat-gateway/moat/store/ledger"
)

const chatAPI = "/v1/chat/completions"

// provider is a server of models that keeps a ledger of its own: what it would send a bill for. It speaks chat
// completions. Its answers have as many tokens as the prompt says, and no more than the call allows.
type provider struct {
	*httptest.Server
	calls, tokens, nanos atomic.Int64
	mu                   sync.Mutex
	bodies               []string
	// step, if set, is awaited before each event of a stream.
	step chan struct{}
}

const (
	promptPrice, answerPrice = 250, 2000 // billionths for a token
)

func startProvider(t *testing.T) *provider {
	t.Helper()
	p := &provider{}
	p.Server = httptest.NewServer(http.HandlerFunc(p.complete))
	t.Cleanup(p.Close)
	return p
}

func (p *provider) complete(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	var call struct {
		Max      int `json:"max_completion_tokens"`
		MaxOld   int `json:"max_tokens"`
		N        int
		Stream   bool
		Messages []struct{ Content string }
		Options  struct {
			Usage bool `json:"include_usage"`
		} `json:"stream_options"`
	}
	if err != nil || json.Unmarshal(body, &call) != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	p.calls.Add(1)
	p.mu.Lock()
	p.bodies = append(p.bodies, string(body))
	p.mu.Unlock()
	prompt, want := "", 10
	for _, m := range call.Messages {
		prompt += m.Content
	}
	if strings.Contains(prompt, "overloaded") {
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	fmt.Sscanf(prompt, "say %d", &want)
	if bound := max(call.Max, call.MaxOld); bound > 0 {
		want = min(want, bound)
	}
	want *= max(call.N, 1)
	in := (len(prompt) + 3) / 4
	p.bill(in, 0)
	usage := func(out int) string {
		return fmt.Sprintf(`{"prompt_tokens":%d,"completion_tokens":%d,"total_tokens":%d}`, in, out, in+out)
	}
	if !call.Stream {
		p.bill(0, want)
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"choices":[{"message":{"content":%q}}],"usage":%s}`, strings.Repeat("a ", want), usage(want))
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	http.NewResponseController(w).Flush()
	for range want {
		if p.step != nil {
			select {
			case <-p.step:
			case <-r.Context().Done():
				return
			}
		}
		if r.Context().Err() != nil {
			return
		}
		p.bill(0, 1)
		fmt.Fprintf(w, "data: {\"choices\":[{\"delta\":{\"content\":\"a \"}}],\"usage\":null}\n\n")
		http.NewResponseController(w).Flush()
	}
	if call.Options.Usage {
		fmt.Fprintf(w, "data: {\"choices\":[],\"usage\":%s}\n\n", usage(want))
	}
	fmt.Fprint(w, "data: [DONE]\n\n")
}

func (p *provider) bill(in, out int) {
	p.tokens.Add(int64(in + out))
	p.nanos.Add(int64(in)*promptPrice + int64(out)*answerPrice)
}

// modelled is a route of calls to a provider, with budgets in the store.
func modelled(store budget.Store, budgets ...budget.Rule) func(*gateway.Config) {
	return func(c *gateway.Config) {
		c.Spent = store
		r := &c.Routes[0]
		r.Pattern, r.Name, r.Methods = "POST "+chatAPI, "chat", []string{"POST"}
		r.CrossSite.AllowBrowserless = true
		r.Budgets = budgets
		r.Model = &model.Policy{
			API: model.OpenAIChat, Models: map[string]model.Price{"small": {Input: promptPrice * 1e6, CacheRead: promptPrice * 1e6, Output: answerPrice * 1e6}},
			MaxTokens: 100, AskForUsage: true,
		}
	}
}

// site is a budget of the whole site, in tokens or money.
func site(limit budget.Amount) budget.Rule {
	return budget.Rule{Name: "site", By: budget.BySite, Per: budget.Month, Cap: limit}
}

// lots is a budget that nobody uses up.
var lots = site(budget.Amount{Tokens: 1e12, Money: 1e12})

// usedOf is what the site has used.
func usedOf(t *testing.T, s budget.Store, r budget.Rule) budget.Amount {
	t.Helper()
	u, err := s.Usage(context.Background(), &r, 1)
	if err != nil {
		t.Fatal(err)
	}
	return u.Used
}

// settled waits until the site has used that much.
func settled(t *testing.T, s budget.Store, r budget.Rule, want budget.Amount) {
	t.Helper()
	var got budget.Amount
	for range 3000 {
		if got = usedOf(t, s, r); got == want {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("used %+v, want %+v", got, want)
}

func prompt(text, more string) string {
	return fmt.Sprintf(`{"model":"small","messages":[{"role":"user","content":%q}]%s}`, text, more)
}

func post(t *testing.T, c *http.Client, body string, headers ...string) *http.Response {
	t.Helper()
	return do(t, c, http.MethodPost, chatAPI, strings.NewReader(body), append([]string{"Content-Type", "application/json"}, headers...)...)
}

func TestACallIsChargedWithTheProvidersFigures(t *testing.T) {
	p, store := startProvider(t), ledger.New()
	s := start(t, configFor(t, p.URL, modelled(store, lots)))
	c := client(t, s)
	for _, body := range []string{
		prompt("say 7", ""), prompt("say 50", `,"stream":true`), prompt("say 500", ""), prompt("say 5", `,"n":3,"max_tokens":9`), prompt("say 5", `,"stream":true,"stream_options":{"include_usage":false}`),
	} {
		res := post(t, c, body)
		if text := read(t, res); res.StatusCode != http.StatusOK {
			t.Fatalf("%s: %s %s", body, res.Status, text)
		}
	}
	settled(t, store, lots, budget.Amount{Requests: 5, Tokens: p.tokens.Load(), Money: budget.Money(p.nanos.Load())})
	if want := int64(5*2 + 7 + 50 + 100 + 15 + 5); p.tokens.Load() != want {
		t.Errorf("the provider counts %d tokens, want %d", p.tokens.Load(), want)
	}
	if got, want := p.bodies[2], prompt("say 500", `,"max_completion_tokens":100`); got != want {
		t.Errorf("the provider got %s\nwant %s", got, want)
	}
	if got, want := p.bodies[3], prompt("say 5", `,"n":3,"max_tokens":9`); got != want {
		t.Errorf("the provider got %s\nwant %s", got, want)
	}
	metrics := operator(t, s, "/metrics")
	for _, want := range []string{
		`moat_model_calls_total{figures="provider",model="small",route="chat"} 5`,
		`moat_model_tokens_total{figures="provider",kind="output",model="small",route="chat"} 177`,
		`moat_model_tokens_total{figures="provider",kind="input",model="small",route="chat"} 10`,
	} {
		if !strings.Contains(metrics, want) {
			t.Errorf("no %s in the metrics", want)
		}
	}
}

func TestEventsOfAModelReachTheClientBeforeTheNextOneIsMade(t *testing.T) {
	p, store := startProvider(t), ledger.New()
	p.step = make(chan struct{})
	s := start(t, configFor(t, p.URL, modelled(store, lots)))
	res := post(t, client(t, s), prompt("say 20", `,"stream":true`))
	lines := bufio.NewReader(res.Body)
	for range 20 {
		p.step <- struct{}{} // the provider makes one event, and waits
		for _, want := range []string{"data: {\"choices\":[{\"delta\":{\"content\":\"a \"}}],\"usage\":null}\n", "\n"} {
			if line, err := lines.ReadString('\n'); line != want || err != nil {
				t.Fatalf("%q %v", line, err)
			}
		}
	}
	rest, err := io.ReadAll(lines)
	if want := "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":2,\"completion_tokens\":20,\"total_tokens\":22}}\n\ndata: [DONE]\n\n"; string(rest) != want || err != nil {
		t.Errorf("%q %v", rest, err)
	}
	settled(t, store, lots, budget.Amount{Requests: 1, Tokens: 22, Money: 2*promptPrice + 20*answerPrice})
}

// operator reads what the gate tells its operator.
func operator(t *testing.T, s *gate, path string) string {
	t.Helper()
	res, err := http.Get("http://" + s.admin + path)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	return read(t, res)
}

func decisions(t *testing.T, s *gate) (list []gateway.Record) {
	t.Helper()
	if err := json.Unmarshal([]byte(operator(t, s, "/decisions?n=1000")), &list); err != nil {
		t.Fatal(err)
	}
	return list
}

// most is what a call of that body can take.
func most(t *testing.T, body string) budget.Amount {
	t.Helper()
	var c gateway.Config
	c.Routes = make([]gateway.Route, 1)
	modelled(nil)(&c)
	g, err := model.New(*c.Routes[0].Model)
	if err != nil {
		t.Fatal(err)
	}
	call, d := g.Decide(http.Header{"Content-Type": {"application/json"}}, []byte(body))
	if d.Denied() {
		t.Fatal(d)
	}
	return budget.Amount{Tokens: call.Most.Tokens(), Money: budget.Money(call.Cost(call.Most))}
}

func TestWhoeverHangsUpPaysTheMostThatTheCallCouldCost(t *testing.T) {
	p, store := startProvider(t), ledger.New()
	p.step = make(chan struct{})
	s := start(t, configFor(t, p.URL, modelled(store, lots)))
	body := prompt("say 90", `,"stream":true`)
	ctx, hangUp := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+s.addr+chatAPI, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Host = "api.example.com"
	req.Header.Set("Content-Type", "application/json")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		p.step <- struct{}{}
	}
	if _, err = io.ReadFull(res.Body, make([]byte, 60)); err != nil {
		t.Fatal(err)
	}
	hangUp()
	res.Body.Close()
	estimated := func() (n int) {
		for _, d := range decisions(t, s) {
			if d.Code == guard.ModelUsageEstimated.String() {
				n++
			}
		}
		return n
	}
	for range 3000 { // the gate has to notice that nobody is there
		if estimated() > 0 {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if n := estimated(); n != 1 {
		t.Errorf("%d records of an estimate, want 1", n)
	}
	want := most(t, body)
	want.Requests = 1
	settled(t, store, lots, want)
}

func TestWhatTheProviderDidNotDoCostsNothing(t *testing.T) {
	p, store := startProvider(t), ledger.New()
	c := client(t, start(t, configFor(t, p.URL, modelled(store, lots))))
	if res := post(t, c, prompt("overloaded", "")); res.StatusCode != http.StatusServiceUnavailable {
		t.Error(res.Status)
	}
	nobody := startProvider(t)
	nobody.Close()
	c = client(t, start(t, configFor(t, nobody.URL, modelled(store, lots))))
	if res := post(t, c, prompt("say 5", "")); res.StatusCode != http.StatusBadGateway {
		t.Error(res.Status)
	}
	settled(t, store, lots, budget.Amount{Requests: 2})
}

func TestCallsWhoseCostNobodyCanBoundReachNoProvider(t *testing.T) {
	p, store := startProvider(t), ledger.New()
	c := client(t, start(t, configFor(t, p.URL, modelled(store, lots))))
	for _, x := range []struct {
		body    string
		headers []string
		want    guard.Reason
	}{
		{`{`, nil, guard.ModelRequestUnreadable},
		{``, nil, guard.ModelRequestUnreadable},
		{prompt("a", `,"model":"large"`), nil, guard.ModelRequestUnreadable},
		{strings.Replace(prompt("a", ""), "small", "large", 1), nil, guard.ModelNotAllowed},
		{prompt("a", `,"max_tokens":101`), nil, guard.ModelTokensTooMany},
		{prompt("a", `,"web_search_options":{}`), nil, guard.ModelFieldNotAllowed},
		{prompt("a", ""), []string{"Content-Encoding", "gzip"}, guard.ModelRequestUnreadable},
		{prompt("a", ""), []string{"Connection", "Upgrade", "Upgrade", "websocket"}, guard.ModelRequestUnreadable},
		{prompt("a", ""), []string{"OpenAI-Organization", "org-other"}, guard.ModelFieldNotAllowed},
		{prompt(strings.Repeat("a", 2<<20), ""), nil, guard.BodyTooLarge},
	} {
		res := post(t, c, x.body, x.headers...)
		if got := codeOf(t, res); got != x.want.String() {
			t.Errorf("%.80s: %s, want %v", x.body, got, x.want)
		}
	}
	if p.calls.Load() != 0 {
		t.Errorf("the provider got %d calls", p.calls.Load())
	}
}

func TestReportedCallsAreCountedAndNotChanged(t *testing.T) {
	p, store := startProvider(t), ledger.New()
	small := site(budget.Amount{Tokens: 5})
	s := start(t, configFor(t, p.URL, modelled(store, small), route(func(r *gateway.Route) { r.Modes[guard.Budget] = guard.Report })))
	c := client(t, s)
	for _, body := range []string{prompt("say 7", ""), prompt("say 7", `,"store":true`), "{", prompt("say 500", `,"max_tokens":500`)} {
		post(t, c, body)
		p.mu.Lock()
		got := ""
		if n := len(p.bodies); n > 0 {
			got = p.bodies[n-1]
		}
		p.mu.Unlock()
		if got != body && body != "{" {
			t.Errorf("the provider got %s, want %s", got, body)
		}
	}
	codes := map[string]int{}
	for _, d := range decisions(t, s) {
		if d.Mode != guard.Report.String() {
			t.Errorf("%+v", d)
		}
		codes[d.Code]++
	}
	for _, want := range []guard.Reason{guard.BudgetSpentTogether, guard.ModelFieldNotAllowed, guard.ModelRequestUnreadable, guard.ModelTokensTooMany} {
		if codes[want.String()] == 0 {
			t.Errorf("no record of %v in %v", want, codes)
		}
	}
	if got := usedOf(t, store, small).Tokens; got != 9 { // of the first call alone: nobody could tell of the others
		t.Errorf("%d tokens are counted", got)
	}
}

func TestAtTheCapCallersAreToldWhenItBeginsAnew(t *testing.T) {
	p, store := startProvider(t), ledger.New()
	body := prompt("say 7", "")
	cap := site(budget.Amount{Tokens: most(t, body).Tokens + 8})
	c := client(t, start(t, configFor(t, p.URL, modelled(store, cap))))
	post(t, c, body)
	settled(t, store, cap, budget.Amount{Requests: 1, Tokens: 9, Money: 2*promptPrice + 7*answerPrice})
	res := post(t, c, body)
	var told struct {
		Code  string
		Reset time.Time
		Unit  string
	}
	if err := json.NewDecoder(res.Body).Decode(&told); err != nil || res.StatusCode != http.StatusTooManyRequests || told.Code != guard.BudgetSpentTogether.String() ||
		told.Unit != "tokens" || told.Reset.Before(time.Now()) || res.Header.Get("Retry-After") == "" {
		t.Errorf("%s %+v %v %v", res.Status, told, res.Header, err)
	}
	if p.calls.Load() != 1 {
		t.Errorf("the provider got %d calls", p.calls.Load())
	}
}
