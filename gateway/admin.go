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

	"github.com/moat-gateway/moat/dashboard"
	"github.com/moat-gateway/moat/guard"
)

// Admin is the operator's side of the gate: the dashboard at /, and what it and other programs
// ask: /healthz, /readyz, /metrics, /decisions, /live, /top, /series, /reasons and /limits.
// Where nothing but Admin serves, without Serve, the series know only when they are asked. It has no authentication: it belongs on a loopback listener. Unless
// anyHost is set it serves only a Host that is this machine, so that a page that
// rebinds its DNS name here is refused.
//
// A page of another origin, in the operator's browser, can do no more than to lead there: what
// it asks for otherwise is refused by Sec-Fetch-Site, it can read nothing, because no answer has
// a CORS header, and it can put nothing into a frame.
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
	mux.HandleFunc("GET /{$}", dashboard.Serve)
	mux.HandleFunc("GET "+dashboard.Path, dashboard.Serve)
	g.registerDecisions(mux)
	g.registerLimits(mux)
	g.registerBudgets(mux)
	g.registerAlerts(mux)
	sameOrigin := http.NewCrossOriginProtection().Handler(mux)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !anyHost && !isLoopbackHost(r.Host) {
			writeText(w, http.StatusMisdirectedRequest, "the admin listener serves only a loopback Host\n")
			return
		}
		h := w.Header()
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cache-Control", "no-store")
		if site := r.Header.Get("Sec-Fetch-Site"); (site == "cross-site" || site == "same-site") && r.Header.Get("Sec-Fetch-Mode") != "navigate" {
			writeText(w, http.StatusForbidden, "the admin listener serves no page but its own\n")
			return
		}
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
		prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "moat_live_missed_total", Help: "Records that those who watch /live were not sent, because they came too fast."},
			func() float64 { return float64(g.obs.live.missed.Load()) }),
		overrideCollector{g},
		limitCollector{g},
		budgetCollector{g},
		alertCollector{g.alerts},
	)
}

var (
	decisionsDesc = prometheus.NewDesc("moat_decisions_total", "Requests by what the gate decided. Reason ok is a request that was forwarded and answered.", []string{"route", "step", "reason", "mode"}, nil)
	uncheckedDesc = prometheus.NewDesc("moat_responses_unchecked_total", "Answers that responses: report did not check: larger than 1 MiB, in a coding other than gzip, or when too many were being checked.", []string{"route", "why"}, nil)
	sparedDesc    = prometheus.NewDesc("moat_would_refuse_total", "Requests that passed and that enforcing what is in report mode would have refused, by the first reason.", []string{"route", "step", "reason"}, nil)
	reloadsDesc   = prometheus.NewDesc("moat_reloads_total", "Attempts to exchange the configuration.", []string{"result"}, nil)
	reloadedDesc  = prometheus.NewDesc("moat_config_last_reload_successful", "0 while the configuration on disk was refused and an older one is in force.", nil, nil)
	storeUpDesc   = prometheus.NewDesc("moat_store_up", "Whether the store that is shared with other processes answered when it was last asked. Absent without one.", nil, nil)
	answersDesc   = prometheus.NewDesc("moat_upstream_answers_total", "Answers of upstreams by the class of their status.", []string{"route", "class"}, nil)
	overrideDesc  = prometheus.NewDesc("moat_dangerous_setting", "1 for each dangerous setting in force.", []string{"setting"}, nil)
)

type decisionCollector struct{ o *observer }

func (c decisionCollector) Describe(ch chan<- *prometheus.Desc) {
	ch <- decisionsDesc
	ch <- uncheckedDesc
	ch <- sparedDesc
	ch <- reloadsDesc
	ch <- reloadedDesc
	ch <- answersDesc
}

func (c decisionCollector) Collect(ch chan<- prometheus.Metric) {
	c.o.eachCount(func(k seriesKey, n uint64) {
		desc, labels := decisionsDesc, []string{k.route, k.reason.Step().String(), k.reason.String()}
		if k.kept == wouldBe {
			desc = sparedDesc
		} else {
			labels = append(labels, guard.Mode(k.kept).String())
		}
		ch <- prometheus.MustNewConstMetric(desc, prometheus.CounterValue, float64(n), labels...)
	})
	c.o.statsMu.Lock()
	for route, s := range c.o.stats {
		for i := range s.answers {
			if n := s.answers[i].Load(); n > 0 {
				ch <- prometheus.MustNewConstMetric(answersDesc, prometheus.CounterValue, float64(n), route, strconv.Itoa(i)+"xx")
			}
		}
		for why, name := range skippedNames {
			if n := s.unchecked[why].Load(); n > 0 {
				ch <- prometheus.MustNewConstMetric(uncheckedDesc, prometheus.CounterValue, float64(n), route, name)
			}
		}
	}
	c.o.statsMu.Unlock()
	reloaded := 1.0
	if c.o.reloadRefused.Load() {
		reloaded = 0
	}
	ch <- prometheus.MustNewConstMetric(reloadedDesc, prometheus.GaugeValue, reloaded)
	for i, result := range []string{"refused", "applied"} {
		ch <- prometheus.MustNewConstMetric(reloadsDesc, prometheus.CounterValue, float64(c.o.reloads[i].Load()), result)
	}
}

type overrideCollector struct{ g *Gateway }

func (c overrideCollector) Describe(ch chan<- *prometheus.Desc) {
	ch <- overrideDesc
	ch <- storeUpDesc
}

func (c overrideCollector) Collect(ch chan<- prometheus.Metric) {
	st := c.g.state.Load()
	if st == nil {
		return
	}
	if st.shared != nil {
		up := 1.0
		if c.g.storeDown() {
			up = 0
		}
		ch <- prometheus.MustNewConstMetric(storeUpDesc, prometheus.GaugeValue, up)
	}
	for _, name := range st.overrides {
		ch <- prometheus.MustNewConstMetric(overrideDesc, prometheus.GaugeValue, 1, name)
	}
}
