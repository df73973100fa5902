package gateway

import (
	"encoding/json"
	"net"
	"net/http"
	"net/netip"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/moat-gateway/moat/guard"
)

// Admin is the operator's side of the gate: /healthz, /readyz, /metrics, /decisions and
// /limits. It has no authentication: it belongs on a loopback listener. Unless
// anyHost is set it serves only a Host that is this machine, so that a page that
// rebinds its DNS name here is refused.
//
// A page of another origin, in the operator's browser, can change nothing: what is not
// safe needs a preflight, which nobody answers, and is refused here besides. It can read
// nothing, because no answer has a CORS header.
func (g *Gateway) Admin(anyHost bool) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { writeText(w, http.StatusOK, "ok\n") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if g.drain.Load() {
			writeText(w, http.StatusServiceUnavailable, "shutting down\n")
			return
		}
		writeText(w, http.StatusOK, "ready\n")
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(g.obs.reg, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /decisions", func(w http.ResponseWriter, r *http.Request) {
		n, err := strconv.Atoi(r.FormValue("n"))
		if err != nil || n < 1 {
			n = 50
		}
		writeJSON(w, http.StatusOK, g.obs.latest(min(n, ringSize)))
	})
	mux.HandleFunc("GET /decisions/{id}", func(w http.ResponseWriter, r *http.Request) {
		rec, ok := g.obs.find(r.PathValue("id"))
		if !ok {
			writeJSON(w, http.StatusNotFound, map[string]string{"error": errNotFound.Error()})
			return
		}
		writeJSON(w, http.StatusOK, rec)
	})
	g.registerLimits(mux)
	sameOrigin := http.NewCrossOriginProtection().Handler(mux)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !anyHost && !isLoopbackHost(r.Host) {
			writeText(w, http.StatusMisdirectedRequest, "the admin listener serves only a loopback Host\n")
			return
		}
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("Cross-Origin-Resource-Policy", "same-origin")
		sameOrigin.ServeHTTP(w, r)
	})
}

func isLoopbackHost(hostport string) bool {
	host, _, err := net.SplitHostPort(hostport)
	if err != nil {
		host = hostport
	}
	if host == "localhost" {
		return true
	}
	a, err := netip.ParseAddr(host)
	return err == nil && a.IsLoopback()
}

func writeText(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	w.Write([]byte(text))
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(v) //nolint:errcheck,errchkjson // a client that is gone misses nothing.
}

// registerMetrics adds what is counted outside the client library to the registry.
// Every label's values come from a closed set: routes as configured, steps, codes, modes.
func (g *Gateway) registerMetrics() {
	g.obs.reg.MustRegister(
		decisionCollector{g.obs},
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "moat_tunnels", Help: "Upgraded connections, such as WebSockets."},
			func() float64 { return float64(g.obs.tunnels.count()) }),
		overrideCollector{g},
		limitCollector{g},
	)
}

var (
	decisionsDesc = prometheus.NewDesc("moat_decisions_total", "Requests by what the gate decided. Reason ok is a request that was forwarded and answered.", []string{"route", "step", "reason", "mode"}, nil)
	reloadsDesc   = prometheus.NewDesc("moat_reloads_total", "Attempts to exchange the configuration.", []string{"result"}, nil)
	overrideDesc  = prometheus.NewDesc("moat_dangerous_setting", "1 for each dangerous setting in force.", []string{"setting"}, nil)
)

type decisionCollector struct{ o *observer }

func (c decisionCollector) Describe(ch chan<- *prometheus.Desc) {
	ch <- decisionsDesc
	ch <- reloadsDesc
}

func (c decisionCollector) Collect(ch chan<- prometheus.Metric) {
	c.o.statsMu.Lock()
	defer c.o.statsMu.Unlock()
	for route, s := range c.o.stats {
		for i := range s.counts {
			reason := guard.Reason(i)
			for m := range s.counts[i] {
				if n := s.counts[i][m].Load(); n > 0 {
					ch <- prometheus.MustNewConstMetric(decisionsDesc, prometheus.CounterValue, float64(n), route, reason.Step().String(), reason.String(), guard.Mode(m).String())
				}
			}
		}
	}
	for i, result := range []string{"refused", "applied"} {
		ch <- prometheus.MustNewConstMetric(reloadsDesc, prometheus.CounterValue, float64(c.o.reloads[i].Load()), result)
	}
}

type overrideCollector struct{ g *Gateway }

func (c overrideCollector) Describe(ch chan<- *prometheus.Desc) { ch <- overrideDesc }

func (c overrideCollector) Collect(ch chan<- prometheus.Metric) {
	st := c.g.state.Load()
	if st == nil {
		return
	}
	for _, name := range st.overrides {
		ch <- prometheus.MustNewConstMetric(overrideDesc, prometheus.GaugeValue, 1, name)
	}
}
