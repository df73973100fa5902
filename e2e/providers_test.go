package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"github.com/moat-gateway/moat/store/valkey/valkeytest"
)

// invoice is what the provider would send a bill for: its own ledger.
type invoice struct {
	Calls, Input, Cached, CacheWrite, Output int
}

func (i invoice) tokens() int { return i.Input + i.Cached + i.CacheWrite + i.Output }

// billionths is what that costs at the prices of providersFile.
func (i invoice) billionths() int64 {
	return int64(i.Input)*1000 + int64(i.Cached)*100 + int64(i.CacheWrite)*2000 + int64(i.Output)*5000
}

func (e *express) invoice() (i invoice) {
	e.t.Helper()
	getJSON(e.t, e.control+"/bill", &i)
	return i
}

func startProviders(t *testing.T) *express {
	t.Helper()
	return startNode(t, []string{"providers/server.js"})
}

const providersFile = `version: 1
listen: {listen}
admin: {admin}
public_origins: ["{origin}"]
upstreams:
  provider: {url: "http://{provider}"}
store: {store}
models:
  small: {input: 1, cached: 0.1, cache_write: 2, output: 5}
budgets:
  site: {by: site, per: month, tokens: {tokens}, spend: 1000}
policies:
  server: {browserless: allow, budgets: [site]}
routes:
  - {match: POST /v1/chat/completions, name: chat, upstream: provider, auth: public, policy: server, model: {api: openai-chat, max_tokens: 100}}
  - {match: POST /v1/completions, name: completions, upstream: provider, auth: public, policy: server, model: {api: openai-completions, max_tokens: 100}}
  - {match: POST /v1/responses, name: responses, upstream: provider, auth: public, policy: server, model: {api: openai-responses, max_tokens: 100}}
  - {match: POST /v1/messages, name: messages, upstream: provider, auth: public, policy: server, model: {api: anthropic-messages, max_tokens: 100}}
`

// providersYAML fills in a gate's file.
func providersYAML(p *express, store string, tokens int) string {
	return strings.NewReplacer("{provider}", p.addr, "{store}", store, "{tokens}", fmt.Sprint(tokens)).Replace(providersFile)
}

// budgetUsed is what a gate says has been used of the site's budget.
func (m *moat) budgetUsed() (requests, tokens int, spend string) {
	m.t.Helper()
	var list struct {
		Budgets []struct {
			Used struct {
				Requests, Tokens int
				Spend            json.Number
			}
		}
	}
	getJSON(m.t, "http://"+m.admin+"/budgets", &list)
	if len(list.Budgets) != 1 {
		m.t.Fatalf("%+v", list)
	}
	u := list.Budgets[0].Used
	return u.Requests, u.Tokens, u.Spend.String()
}

// The providers' own libraries accept what passes, and what they count, what the provider counts and what the
// budget was charged with are the same.
func TestProvidersOwnLibrariesCountAsTheGateDoes(t *testing.T) {
	p := startProviders(t)
	gate := startMoat(t, providersYAML(p, "{file: "+t.TempDir()+"/spent}", 1_000_000_000))
	cmd := exec.Command(program(t, "node"), "providers/sdk.js", gate.origin)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s%s\nare its packages there? make setup installs them", err, out, &stderr)
	}
	var told invoice
	words := map[string]int{}
	for line := range strings.Lines(string(out)) {
		var call struct {
			Name, Text                        string
			Input, Cached, CacheWrite, Output int
		}
		if err = json.Unmarshal([]byte(line), &call); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		t.Logf("%+v", call)
		if call.Name == "refused" && call.Text != "400 BadRequestError" {
			t.Errorf("a refusal is %q to the library", call.Text)
		}
		words[call.Name] = len(strings.Fields(call.Text))
		told.Input += call.Input
		told.Cached += call.Cached
		told.CacheWrite += call.CacheWrite
		told.Output += call.Output
	}
	for name, want := range map[string]int{
		"chat": 7, "chat, two answers": 8, "chat stream": 9, "chat stream that moat asked for figures and gave a bound": 100, "completions, two answers to each of two prompts": 28, "completions stream that moat asked for figures and gave a bound": 100, "responses": 6, "responses stream": 12, "responses stream, to its bound": 100, "messages": 8, "messages stream": 11, "left": 0,
	} {
		if words[name] != want {
			t.Errorf("%s: %d words, want %d", name, words[name], want)
		}
	}
	// The one that was left is charged with the most that it could cost.
	const provider, estimated = `figures="provider"`, `figures="estimated"`
	eventually(t, "all calls are settled", func() (string, bool) {
		m := gate.metrics()
		return m, strings.Count(m, estimated) > 0 && sumOf(t, m, "moat_model_calls_total", provider) == 11
	})
	m := gate.metrics()
	for kind, want := range map[string]int{"input": told.Input, "cache_read": told.Cached, "cache_write": told.CacheWrite, "output": told.Output} {
		if got := sumOf(t, m, "moat_model_tokens_total", provider, `kind="`+kind+`"`); got != float64(want) {
			t.Errorf("%s: the gate counts %v tokens, the libraries %d", kind, got, want)
		}
	}
	left := int(sumOf(t, m, "moat_model_tokens_total", estimated))
	bill := p.invoice()
	_, tokens, _ := gate.budgetUsed()
	if bill.Calls != 12 || tokens != told.tokens()+left || bill.tokens() > tokens || left < 100 {
		t.Errorf("the provider's bill: %+v; the libraries: %+v; used: %d, of which %d are estimated", bill, told, tokens, left)
	}
	if got := sumOf(t, m, "moat_model_spend_total", provider); fmt.Sprintf("%.6f", got) != fmt.Sprintf("%.6f", float64(told.billionths())/1e9) {
		t.Errorf("spent: %v, want %v", got, float64(told.billionths())/1e9)
	}
}

// sumOf adds up the series of a name that have all these labels.
func sumOf(t *testing.T, metrics, name string, labels ...string) (sum float64) {
	t.Helper()
lines:
	for line := range strings.Lines(metrics) {
		series, value, ok := strings.Cut(strings.TrimSpace(line), "} ")
		if !ok || !strings.HasPrefix(series, name+"{") {
			continue
		}
		for _, label := range labels {
			if !strings.Contains(series, label) {
				continue lines
			}
		}
		var n float64
		if _, err := fmt.Sscan(value, &n); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		sum += n
	}
	return sum
}

// flood has callers call until they are refused, or have called so often. Every sixth hangs up.
func flood(t *testing.T, gates []*moat, callers, each int) {
	t.Helper()
	var wg sync.WaitGroup
	for i := range callers {
		wg.Go(func() {
			for j := range each {
				gate := gates[(i+j)%len(gates)]
				body := fmt.Sprintf(`{"model":"small","messages":[{"role":"user","content":"say %d"}],"stream":%v}`, 20+(i*13+j*7)%90, j%2 == 0)
				req, err := http.NewRequest(http.MethodPost, gate.origin+"/v1/chat/completions", strings.NewReader(body))
				if err != nil {
					t.Error(err)
					return
				}
				req.Header.Set("Content-Type", "application/json")
				res, err := client.Do(req)
				if err != nil {
					continue // the gate is being killed
				}
				if (i+j)%6 == 0 {
					res.Body.Read(make([]byte, 16))
				} else {
					new(bytes.Buffer).ReadFrom(res.Body)
				}
				res.Body.Close()
			}
		})
	}
	wg.Wait()
}

// withinCap holds the provider's ledger against the cap, once it has finished what it was at.
func withinCap(t *testing.T, p *express, limit int) {
	t.Helper()
	var last invoice
	eventually(t, "the provider has finished", func() (string, bool) {
		now := p.invoice()
		same := now == last
		last = now
		return fmt.Sprint(now), same && now.Calls > 0
	})
	t.Logf("the provider's bill: %+v, %d tokens of %d", last, last.tokens(), limit)
	if last.tokens() > limit || last.tokens() < limit/20 {
		t.Errorf("the provider made %d tokens; the cap is %d", last.tokens(), limit)
	}
}

func TestTheCapOutlivesAPowerCut(t *testing.T) {
	const limit = 8000
	p := startProviders(t)
	gate := startMoat(t, providersYAML(p, "{file: "+t.TempDir()+"/spent}", limit))
	done := make(chan struct{})
	go func() {
		defer close(done)
		flood(t, []*moat{gate}, 16, 2)
	}()
	eventually(t, "the provider is at work", func() (string, bool) {
		i := p.invoice()
		return fmt.Sprint(i), i.Output > 100
	})
	gate.kill()
	<-done
	if gate.process = gate.try(t); gate.process == nil {
		t.Fatal("the port was taken meanwhile")
	}
	if _, tokens, _ := gate.budgetUsed(); tokens == 0 {
		t.Error("what was spent before the power cut is forgotten")
	}
	flood(t, []*moat{gate}, 16, 6)
	withinCap(t, p, limit)
}

func TestTwoGatesShareOneCap(t *testing.T) {
	const limit = 8000
	p, valkey := startProviders(t), valkeytest.Start(t)
	file := providersYAML(p, "{valkey: {addresses: ["+valkey.Addr+"], timeout: 1s}}", limit)
	gates := []*moat{startMoat(t, file), startMoat(t, file)}
	flood(t, gates, 32, 6)
	withinCap(t, p, limit)
}
