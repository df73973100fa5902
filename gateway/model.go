package gateway

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/moat-gateway/moat/guard"
	"github.com/moat-gateway/moat/guard/bounds"
	"github.com/moat-gateway/moat/guard/budget"
	"github.com/moat-gateway/moat/guard/cors"
	"github.com/moat-gateway/moat/guard/model"
)

// maxCall bounds the body of a call to a model, which is read whole before anything is spent. The
// route's own bound is lower in most configurations.
const maxCall = 16 << 20

// models compiles what a route may ask of models.
func (r *Route) models(methods []string) (*model.Guard, error) {
	if r.Model == nil {
		return nil, nil //nolint:nilnil // a route without models.
	}
	// A GET could open a WebSocket, or ask for what a stored call has said.
	if !slices.Equal(methods, []string{http.MethodPost}) {
		return nil, fmt.Errorf("model: a call to a model is a POST, and the route allows %s", strings.Join(methods, ", "))
	}
	g, err := model.New(*r.Model)
	if err != nil {
		return nil, fmt.Errorf("model: %w", err)
	}
	return g, nil
}

// call is a call to a model on its way through the gate.
type call struct {
	*model.Call
	grant   *budget.Grant
	count   func(u model.Usage, estimated bool)
	tap     *model.Meter // nil until the provider answers
	sent    bool         // the provider may have got it
	settled bool
}

// price reads a call to a model, and sets aside the most that it may cost. In report mode nothing is
// changed.
func (o *outgoing) price(st *state, x *exchange, r *http.Request) guard.Decision {
	mode := x.route.modes[guard.Budget]
	if x.route.model == nil || mode == guard.Off {
		return guard.Decision{}
	}
	if cors.IsPreflight(r) && bounds.Overrides(r.Header) == "" {
		// It is the upstream's to answer, was asked for no budget, and calls nothing: what it carries stays here.
		o.req.Body, o.req.ContentLength, o.req.TransferEncoding, o.req.Trailer = http.NoBody, 0, nil, nil
		return guard.Decision{}
	}
	settle := func(d guard.Decision) guard.Decision {
		if !d.Denied() || budgetMode(mode, d) == guard.Enforce {
			return d
		}
		x.obs.record(st, x, r, d, guard.Report)
		return guard.Decision{}
	}
	body, d := o.whole(x, r, maxCall)
	if d.Denied() {
		return settle(d)
	}
	asked, d := x.route.model.Decide(r.Header, body)
	if !d.Denied() && x.upgrade != "" {
		d = guard.Denial(guard.ModelRequestUnreadable, "Upgrade", x.upgrade, "no upgrade: what passes afterwards cannot be counted")
	}
	if d.Denied() {
		return settle(d)
	}
	if mode == guard.Enforce {
		o.send(x, asked.Body, len(asked.Body) != len(body))
		asked.Body = nil // nobody reads it any more, and the answer may take long
	}
	if d = x.budget.Reserve(amount(asked, asked.Most)); d.Denied() {
		if d = settle(d); d.Denied() {
			return d
		}
	}
	c := &call{Call: asked, grant: x.budget}
	y := *x // the closure outlives this frame; the others' x need not
	c.count = func(u model.Usage, estimated bool) {
		st.obs.models.count(y.route.name, c, u, estimated)
		if estimated {
			st.obs.record(st, &y, r, guard.Decision{
				Reason: guard.ModelUsageEstimated, Evidence: guard.Evidence{Where: "the answer", Got: "no figures to its end", Want: "the provider's own figures"},
			}, guard.Enforce)
		}
	}
	// From here on the provider may do what it is asked, whether or not anybody waits for it.
	o.trace.GotConn = func(httptrace.GotConnInfo) { c.sent = true }
	x.call = c
	return guard.Decision{}
}

// send has the provider get the call as it was read.
func (o *outgoing) send(x *exchange, body []byte, changed bool) {
	o.req.Body = http.NoBody
	if x.whole != nil {
		x.whole.Reader = bytes.NewReader(body) // whose room is given back when it has been sent
		o.req.Body = x.whole
	}
	o.req.ContentLength, o.req.TransferEncoding, o.req.Trailer = int64(len(body)), nil, nil
	// There is no GetBody: the transport would make a call a second time that has an Idempotency-Key and whose connection broke.
	askForPlain(o.req.Header) // figures cannot be read in what is compressed
	o.req.Header["Accept-Encoding"] = []string{"identity"}
	if changed {
		for _, name := range []string{"Content-Digest", "Repr-Digest", "Digest", "Content-Md5"} {
			delete(o.req.Header, name)
		}
	}
}

func amount(c *model.Call, u model.Usage) budget.Amount {
	return budget.Amount{Tokens: u.Tokens(), Money: budget.Money(c.Cost(u))}
}

// keepAccount removes what a provider tells its customer alone: who that is, and what is left of its limits.
func keepAccount(h http.Header) {
	for name := range h {
		switch {
		case name == "Openai-Organization", name == "Openai-Project", name == "Anthropic-Organization-Id",
			strings.HasPrefix(name, "X-Ratelimit-"), strings.HasPrefix(name, "Anthropic-Ratelimit-"):
			delete(h, name)
		}
	}
}

// meter reads what the call has cost from the answer as it passes.
func (c *call) meter(res *http.Response) {
	if c == nil {
		return
	}
	switch code := res.StatusCode; {
	case code >= 200 && code <= 299:
	case code == http.StatusBadRequest:
		// Azure answers so to prompts that it filters, which anybody can write, and charges for reading them.
		c.Most.Output = 0
	case code == http.StatusRequestTimeout, code == http.StatusGatewayTimeout, code == statusOriginTimeout:
		// Somebody gave up waiting for a provider that is at work.
	default:
		c.settled = true // nothing was done, so nothing is owed
		c.grant.Settle(budget.Amount{})
		return
	}
	c.tap = model.NewMeter(res.Header.Get("Content-Type"))
	res.Body = &metered{ReadCloser: res.Body, c: c}
}

// statusOriginTimeout is what a CDN in front of a provider says in the place of 504.
const statusOriginTimeout = 524

// settle puts what the call has taken in the place of what was set aside. ended says that the answer came whole.
func (c *call) settle(ended bool) {
	if c == nil || c.settled {
		return
	}
	c.settled = true
	if !c.sent {
		c.grant.Settle(budget.Amount{})
		return
	}
	u, estimated := c.Took(c.tap, ended)
	c.grant.Settle(amount(c.Call, u))
	c.count(u, estimated)
}

// metered has the meter read what passes, as it passes.
type metered struct {
	io.ReadCloser
	c   *call
	end error // what follows what has been read
}

// Read settles only once its caller has passed on all that came before.
func (t *metered) Read(p []byte) (int, error) {
	if t.end != nil {
		t.c.settle(errors.Is(t.end, io.EOF))
		return 0, t.end
	}
	if t.c.tap.Done() {
		t.c.settle(false)
	}
	n, err := t.ReadCloser.Read(p)
	t.c.tap.Write(p[:n]) //nolint:errcheck // it returns none.
	t.end = err
	if n == 0 && err != nil {
		return t.Read(p)
	}
	return n, nil
}

// modelsSeen counts what calls to models have taken.
type modelsSeen struct{ calls, tokens, spend *prometheus.CounterVec }

func newModelsSeen(reg prometheus.Registerer) *modelsSeen {
	vec := func(name, help string, labels ...string) *prometheus.CounterVec {
		v := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, append([]string{"route", "model", "figures"}, labels...))
		reg.MustRegister(v)
		return v
	}
	return &modelsSeen{
		calls:  vec("moat_model_calls_total", "Calls to models that the provider may have worked for, by where their figures come from: the provider, or an estimate of the most that it can be."),
		tokens: vec("moat_model_tokens_total", "Tokens of these calls.", "kind"),
		spend:  vec("moat_model_spend_total", "What these calls have cost, by the prices of the configuration."),
	}
}

func (m *modelsSeen) count(route string, c *call, u model.Usage, estimated bool) {
	figures := "provider"
	if estimated {
		figures = "estimated"
	}
	m.calls.WithLabelValues(route, c.Model, figures).Inc()
	m.spend.WithLabelValues(route, c.Model, figures).Add(float64(c.Cost(u)) / 1e9)
	for _, k := range [...]struct {
		kind string
		n    int64
	}{{"input", u.Input}, {"cache_read", u.CacheRead}, {"cache_write", u.CacheWrite}, {"output", u.Output}} {
		if k.n > 0 {
			m.tokens.WithLabelValues(route, c.Model, figures, k.kind).Add(float64(k.n))
		}
	}
}
