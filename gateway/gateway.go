package gateway

import (
	"errors"
	"log/slog"
	"net/http"

	"github.com/moat-gateway/moat/guard"
)

// New returns a Gateway for the configuration, or says everything that is wrong with
// it. A nil log discards.
func New(c Config, log *slog.Logger) (*Gateway, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	g := &Gateway{obs: newObserver(log), swap: make(chan struct{}, 1)}
	g.registerMetrics()
	st, err := g.compile(c)
	if err != nil {
		return nil, err
	}
	g.state.Store(st)
	g.warnOverrides(st)
	return g, nil
}

// Reload exchanges the configuration. Requests under way finish with the old one;
// counters live on. If c is faulty the old one stays, and the error says why.
func (g *Gateway) Reload(c Config) error {
	g.swap <- struct{}{}
	defer func() { <-g.swap }()
	st, err := g.compile(c)
	if err != nil {
		g.obs.reloads[0].Add(1)
		return err
	}
	old := g.state.Swap(st)
	for _, u := range old.upstreams {
		u.close() // only idle connections; those in use close when they become idle
	}
	g.obs.reloads[1].Add(1)
	g.warnOverrides(st)
	return nil
}

// ReloadRefused counts a reload that failed before it could become a Config.
func (g *Gateway) ReloadRefused() { g.obs.reloads[0].Add(1) }

func (g *Gateway) warnOverrides(st *state) {
	for _, name := range st.overrides {
		g.obs.log.Warn("dangerous setting in force", slog.String("setting", name))
	}
}

// Verdict is what the gate would do with a request.
type Verdict struct {
	// Decision is the one that ended the request, or the zero Decision if it would be
	// forwarded.
	Decision guard.Decision
	// Reports are the decisions of guards in report mode.
	Reports []guard.Decision
	// Route and Upstream are "" if no route matched.
	Route, Upstream string
	// Header has what the gate would add to the answer.
	Header http.Header
	// Trail is what each guard decided, in the order of the data path. A guard that is off
	// or that was not reached has no place in it.
	Trail []Step
}

// Step is what a guard decided about a request, before its mode had a say.
type Step struct {
	Guard    guard.Kind
	Mode     guard.Mode
	Decision guard.Decision
}

// Decide runs the data path up to the upstream, and says what it found. It is what
// ServeHTTP does, without consequences: nothing is forwarded, counted, charged or logged. It
// changes r's headers.
func (g *Gateway) Decide(r *http.Request) Verdict {
	st := g.state.Load()
	x := exchange{dry: true}
	v := Verdict{Header: make(http.Header)}
	x.trail = &v.Trail
	v.Decision = st.admit(&x, v.Header, r)
	if x.grant != nil {
		x.grant.Release()
	}
	v.Reports = x.reports
	if x.route != nil {
		v.Route, v.Upstream = x.route.name, x.route.upstream.name
	}
	return v
}

// Drain makes the gate tell load balancers that it is about to stop, by /readyz.
func (g *Gateway) Drain() { g.drain.Store(true) }

// CloseTunnels ends the WebSockets and other upgraded connections.
func (g *Gateway) CloseTunnels() { g.obs.tunnels.closeAll() }

// Tunnels is the number of upgraded connections.
func (g *Gateway) Tunnels() int { return g.obs.tunnels.count() }

// errNotFound is the admin listener's answer to an id that is not in the ring.
var errNotFound = errors.New("no such decision: it may have been overwritten by newer ones, or be of another instance")
