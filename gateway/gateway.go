package gateway

import (
	"errors"
	"log/slog"
	"net/http"
	"time"

	"github.com/moat-gateway/moat/guard"
	"github.com/moat-gateway/moat/guard/identity"
)

// New returns a Gateway for the configuration, or says everything that is wrong with
// it. A nil log discards.
func New(c Config, log *slog.Logger) (*Gateway, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	g := &Gateway{obs: newObserver(log), swap: make(chan struct{}, 1)}
	g.alerts = &alerter{g: g, episodes: make(map[episode]*told)}
	g.registerMetrics()
	st, err := g.compile(c)
	if err != nil {
		return nil, err
	}
	g.state.Store(st)
	g.alerts.use(c.Alerts)
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
		g.ReloadRefused()
		return err
	}
	old := g.state.Swap(st)
	for _, u := range old.upstreams {
		u.close() // only idle connections; those in use close when they become idle
	}
	for _, rt := range old.routes {
		if rt.fetch != nil {
			rt.fetch.egress.Close()
		}
	}
	if v := old.auth.jwt; v != nil {
		time.AfterFunc(verifying, v.Close)
	}
	g.obs.reloads[1].Add(1)
	g.obs.reloadRefused.Store(false)
	g.alerts.use(c.Alerts)
	g.warnOverrides(st)
	return nil
}

// verifying is longer than any request under way waits for an issuer's keys.
const verifying = time.Minute

// ReloadRefused counts a reload that failed before it could become a Config.
func (g *Gateway) ReloadRefused() {
	g.obs.reloads[0].Add(1)
	g.obs.reloadRefused.Store(true)
}

func (g *Gateway) warnOverrides(st *state) {
	for _, name := range st.overrides {
		g.obs.log.Warn("dangerous setting in force", slog.String("setting", name))
	}
}

// Verdict is what the gate does with a request, or would do: see Config.Observe and Decide.
type Verdict struct {
	// Decision is the one that ended the request, or the zero Decision if it is forwarded.
	Decision guard.Decision
	// Reports are the decisions of guards in report mode.
	Reports []guard.Decision
	// Route and Upstream are "" if no route matched.
	Route, Upstream string
	// Header has what the gate adds to the answer.
	Header http.Header
	// Trail is what each guard decided, in the order of the data path. A guard that is off
	// or that was not reached has no place in it.
	Trail []Step
}

// Assumed is what Decide takes for granted about a request that is judged on paper, because
// nobody was there to get it.
type Assumed struct {
	// Ticket says that the request's ticket is good for it, and CSRF that its token is.
	Ticket, CSRF bool
	// Caller is who makes the request, or nil.
	Caller *identity.Principal
	// Fresh says that nobody has asked for anything before: rate limits have room.
	Fresh bool
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
func (g *Gateway) Decide(r *http.Request, a Assumed) Verdict {
	st := g.state.Load()
	x := exchange{dry: true, assumed: a}
	h := make(http.Header)
	x.trail = new([]Step)
	d := st.admit(&x, h, r)
	x.tellLimits(h)
	x.release()
	if x.route != nil && x.route.fetch != nil && !d.Ends() {
		d = x.route.fetch.decide(r)
	}
	return x.verdict(d, h)
}

// verdict is what has become of the request so far.
func (x *exchange) verdict(d guard.Decision, h http.Header) Verdict {
	v := Verdict{Decision: d, Reports: x.reports, Header: h}
	if x.trail != nil {
		v.Trail = *x.trail
	}
	if x.route != nil {
		v.Route = x.route.name
		if x.route.upstream != nil {
			v.Upstream = x.route.upstream.name
		}
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
