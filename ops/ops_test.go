// Package ops holds what operators load into Prometheus and Grafana. This test keeps it true: every
// expression is parsed by Prometheus' own parser, and every metric, label and value in it is one that
// a running gate has told, after traffic that brings it about.
package ops

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql/parser"

	"github.com/moat-gateway/moat/config"
	"github.com/moat-gateway/moat/gateway"
	"github.com/moat-gateway/moat/guard"
	"github.com/moat-gateway/moat/run"
)

const counting = `version: 1
listen: 127.0.0.1:0
admin: 127.0.0.1:0
public_origins: [http://gate.localhost]
upstreams:
  app: {url: "%[1]s", dangerously_allow_echo: true}
  nobody: {url: "http://127.0.0.1:1"}
%[2]s
tickets: {secrets: "${env:TICKET_SECRET}"}
rate_limits: {few: {limit: 1/h, by: address}}
budgets: {site: {by: site, per: day, requests: 2}}
alerts:
  webhooks: {ops: {url: "%[1]s/hook", format: slack}}
  rules: {refused: {on: refused, threshold: 1}, reload: {on: reload_refused}}
policies: {open: {browserless: allow, modes: {cross_site: report}}}
routes:
  - {match: /open, name: open, upstream: app, auth: public, policy: open}
  - {match: /tried, name: tried, upstream: app, auth: public, modes: {cross_site: report}}
  - {match: /limited, name: limited, upstream: app, auth: public, policy: open, rate_limits: few}
  - {match: /spent, name: spent, upstream: app, auth: public, policy: open, budgets: site}
  - {match: /ticket, name: ticket, upstream: app, auth: public, policy: open, tickets: require}
  - {match: /gone, name: gone, upstream: nobody, auth: public, policy: open}
`

// series are what gates have told: by metric, the labels of each series.
type series map[string][]map[string]string

// scrape runs a gate with that configuration, has it do everything once, and reads its metrics.
func scrape(t *testing.T, store string, into series) {
	t.Helper()
	up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.RawQuery == "fail" {
			w.WriteHeader(http.StatusInternalServerError)
		}
	}))
	defer up.Close()
	text := fmt.Sprintf(counting, up.URL, store)
	name := filepath.Join(t.TempDir(), "moat.yaml")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	started, stopped := make(chan gateway.Addresses, 1), make(chan error, 1)
	go func() {
		stopped <- run.Gate(ctx, slog.New(slog.DiscardHandler), func() (*config.Loaded, error) { return config.Load(name) },
			run.Options{Started: func(a gateway.Addresses) { started <- a }})
	}()
	var at gateway.Addresses
	select {
	case err := <-stopped:
		t.Fatal(err)
	case at = <-started:
	}
	for _, path := range []string{"/open", "/open?fail", "/tried", "/limited", "/limited", "/spent", "/spent", "/spent", "/ticket", "/gone", "/nowhere"} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+at.Listeners[0]+path, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		r.Host = "gate.localhost"
		res, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
	}
	res, err := http.Get("http://" + at.Admin + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	parse := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parse.TextToMetricFamilies(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	io.Copy(io.Discard, res.Body)
	res.Body.Close()
	stop()
	if err = <-stopped; err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			set := map[string]string{"job": "moat", "instance": "gate-1"}
			for _, l := range m.GetLabel() {
				set[l.GetName()] = l.GetValue()
			}
			names := []string{f.GetName()}
			switch f.GetType() { //nolint:exhaustive // the others have one name
			case dto.MetricType_HISTOGRAM:
				names = []string{f.GetName() + "_sum", f.GetName() + "_count"}
				bucket := maps.Clone(set)
				bucket["le"] = "+Inf"
				into[f.GetName()+"_bucket"] = append(into[f.GetName()+"_bucket"], bucket)
			case dto.MetricType_SUMMARY:
				names = append(names, f.GetName()+"_sum", f.GetName()+"_count")
			}
			for _, n := range names {
				into[n] = append(into[n], set)
			}
		}
	}
}

func told(t *testing.T) series {
	t.Helper()
	t.Setenv("TICKET_SECRET", strings.Repeat("0123456789abcdef", 4))
	s := series{"up": {{"job": "moat", "instance": "gate-1"}}}
	scrape(t, "store: {file: spent.db}", s)
	scrape(t, "store: {valkey: {addresses: \"127.0.0.1:1\"}}", s) // that does not answer
	return s
}

// check holds an expression against what was told, and returns the labels that its result can have.
func (s series) check(t *testing.T, where, text string) map[string]bool {
	t.Helper()
	expr, err := parser.ParseExpr(text)
	if err != nil {
		t.Errorf("%s: %v", where, err)
		return nil
	}
	left := make(map[string]bool)
	parser.Inspect(expr, func(n parser.Node, _ []parser.Node) error {
		if v, ok := n.(*parser.VectorSelector); ok {
			matched := slices.Clone(s[v.Name])
			if len(matched) == 0 {
				t.Errorf("%s: no gate tells %s", where, v.Name)
			}
			for _, m := range v.LabelMatchers {
				if m.Name == model.MetricNameLabel {
					continue
				}
				if !slices.ContainsFunc(s[v.Name], func(set map[string]string) bool { _, has := set[m.Name]; return has }) {
					t.Errorf("%s: %s has no label %s", where, v.Name, m.Name)
				}
				known(t, where, m)
				matched = slices.DeleteFunc(matched, func(set map[string]string) bool { return !m.Matches(set[m.Name]) })
			}
			if len(matched) == 0 {
				t.Errorf("%s: no series of the traffic is one of %s", where, v)
			}
			for _, set := range s[v.Name] {
				for l := range set {
					left[l] = true
				}
			}
		}
		return nil
	})
	parser.Inspect(expr, func(n parser.Node, _ []parser.Node) error {
		if a, ok := n.(*parser.AggregateExpr); ok {
			for _, l := range a.Grouping {
				if !left[l] {
					t.Errorf("%s: nothing in it has the label %s", where, l)
				}
			}
		}
		return nil
	})
	return left
}

// known checks that what a matcher says of reasons, steps and modes are such.
func known(t *testing.T, where string, m *labels.Matcher) {
	t.Helper()
	words := make(map[string]bool)
	for _, r := range guard.Reasons() {
		switch m.Name {
		case "reason":
			words[r.String()] = true
		case "step":
			words[r.Step().String()] = true
		}
	}
	if len(words) == 0 {
		return
	}
	for alternative := range strings.SplitSeq(m.Value, "|") {
		re, err := regexp.Compile("^(" + alternative + ")$")
		if err != nil || !slices.ContainsFunc(slices.Collect(maps.Keys(words)), re.MatchString) {
			t.Errorf("%s: no %s is %q", where, m.Name, alternative)
		}
	}
}

var legend = regexp.MustCompile(`{{ *\$?(?:labels\.)?([a-z_]+) *}}`)

// labelsIn are the labels that a text is filled in with.
func labelsIn(text string) (names []string) {
	for _, m := range legend.FindAllStringSubmatch(text, -1) {
		names = append(names, m[1])
	}
	return names
}

func TestRulesAreAboutWhatGatesTell(t *testing.T) {
	s := told(t)
	data, err := os.ReadFile("prometheus/moat.rules.yml")
	if err != nil {
		t.Fatal(err)
	}
	groups, errs := rulefmt.Parse(data, false, model.UTF8Validation)
	if errs != nil {
		t.Fatal(errs)
	}
	runbook, err := os.ReadFile("../docs/operate.md")
	if err != nil {
		t.Fatal(err)
	}
	alerts := 0
	for _, g := range groups.Groups {
		for _, r := range g.Rules {
			left := s.check(t, r.Record+r.Alert, r.Expr)
			if r.Record != "" {
				// Its labels are before the first colon, as Prometheus names recordings.
				set := map[string]string{}
				by, _, _ := strings.Cut(r.Record, ":")
				for _, l := range []string{"route", "step", "reason", "budget", "unit"} {
					if slices.Contains(strings.Split(by, "_"), l) {
						set[l] = "x"
						if !left[l] {
							t.Errorf("%s: nothing in it has the label %s", r.Record, l)
						}
					}
				}
				s[r.Record] = append(s[r.Record], set)
				continue
			}
			alerts++
			for _, l := range labelsIn(r.Annotations["summary"]) {
				if !left[l] {
					t.Errorf("%s: nothing in it has the label %s", r.Alert, l)
				}
			}
			if url := "https://github.com/moat-gateway/moat/blob/main/docs/operate.md#" + strings.ToLower(r.Alert); r.Annotations["runbook_url"] != url {
				t.Errorf("%s: its runbook is %s; want %s", r.Alert, r.Annotations["runbook_url"], url)
			}
			if !strings.Contains(string(runbook), "\n### "+r.Alert+"\n") {
				t.Errorf("docs/operate.md has no section on %s", r.Alert)
			}
		}
	}
	if alerts < 10 || len(s) < 50 {
		t.Errorf("%d alerts, %d metrics", alerts, len(s))
	}
}

func TestTheDashboardShowsWhatGatesTell(t *testing.T) {
	s := told(t)
	data, err := os.ReadFile("grafana/moat.json")
	if err != nil {
		t.Fatal(err)
	}
	var board struct {
		Title, UID    string
		SchemaVersion int
		Templating    struct {
			List []struct{ Name, Definition string }
		}
		Annotations struct{ List []struct{ Name, Expr string } }
		Panels      []struct {
			ID          int
			Title, Type string
			Description string
			GridPos     struct{ X, Y, W, H int }
			Targets     []struct{ Expr, LegendFormat, RefID string }
		}
	}
	if err = json.Unmarshal(data, &board); err != nil || board.Title != "moat" || board.SchemaVersion < 39 || len(board.Panels) < 20 {
		t.Fatalf("%v: %+v", err, board)
	}
	variables := regexp.MustCompile(`\$[a-z_]+`)
	plain := func(expr string) string {
		return variables.ReplaceAllStringFunc(expr, func(v string) string {
			if v == "$__rate_interval" {
				return "5m"
			}
			if !slices.ContainsFunc(board.Templating.List, func(l struct{ Name, Definition string }) bool { return "$"+l.Name == v }) {
				t.Errorf("%s: no such variable: %s", expr, v)
			}
			return ".*"
		})
	}
	ids, used := make(map[int]bool), make(map[[2]int]string)
	for _, p := range board.Panels {
		if ids[p.ID] || p.Title == "" || p.Type != "row" && (len(p.Targets) == 0 || p.Description == "") {
			t.Errorf("panel %d, %q: twice, or empty", p.ID, p.Title)
		}
		ids[p.ID] = true
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				if other := used[[2]int{x, y}]; other != "" || x >= 24 {
					t.Errorf("%q lies over %q", p.Title, other)
				}
				used[[2]int{x, y}] = p.Title
			}
		}
		for _, target := range p.Targets {
			left := s.check(t, p.Title, plain(target.Expr))
			for _, l := range labelsIn(target.LegendFormat) {
				if !left[l] {
					t.Errorf("%s: nothing in it has the label %s", p.Title, l)
				}
			}
		}
	}
	for _, a := range board.Annotations.List {
		s.check(t, a.Name, plain(a.Expr))
	}
	query := regexp.MustCompile(`^label_values\((.*), ([a-z]+)\)$`)
	for _, v := range board.Templating.List {
		if m := query.FindStringSubmatch(v.Definition); m != nil {
			if left := s.check(t, v.Name, plain(m[1])); !left[m[2]] {
				t.Errorf("variable %s: nothing has the label %s", v.Name, m[2])
			}
		}
	}
}
