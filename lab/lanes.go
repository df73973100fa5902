package lab

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/moat-gateway/moat/browser"
)

// moment is something that happened in one of the four lanes.
type moment struct {
	Lane  string // script, browser, network or backend
	Title string
	Lines []string
	// Link leads to the standard.
	Link string
	Bad  bool
}

// Label is the lane's heading.
func (m moment) Label() string {
	return map[string]string{"script": "Page script", "browser": "Browser", "network": "Network", "backend": "Backend"}[m.Lane]
}

// moments tells in order what became of a run's requests: what the model of the browser did
// and why, and what the servers noted.
func moments(o *Outcome) (all []moment) {
	if len(o.traces) == 0 {
		all = append(all, moment{Lane: "script", Title: "No browser, no script: a plain HTTP client asks."})
	}
	told := map[int]bool{} // the requests of which the ledger's events have their place
	for i, t := range o.traces {
		all = append(all, callMoment(o.made.Requests[i]))
		all = append(all, stepMoments(t.Steps, 0)...)
		for j, x := range t.Exchanges {
			all = append(all, exchangeMoments(x, o.Events, told)...)
			all = append(all, stepMoments(t.Steps, j+1)...)
		}
		all = append(all, verdictMoment(t.Verdict))
	}
	return append(all, backendMoments(o.Events, func(e Event) bool { return !told[e.Request] })...)
}

// exchangeMoments are those of one request that left the browser, or that its cache
// answered.
func exchangeMoments(x browser.Exchange, events []Event, told map[int]bool) []moment {
	title := x.Method + " " + x.URL
	if x.FromCache {
		return []moment{{Lane: "browser", Title: "From its cache: " + title, Lines: answerLines(x.Answer.Header)}}
	}
	all := []moment{{Lane: "network", Title: "→ " + title, Lines: fieldLines(x.Header)}}
	if n := numberOf(x, events, told); n > 0 {
		told[n] = true
		all = append(all, backendMoments(events, func(e Event) bool { return e.Request == n })...)
	}
	if x.Answer.Failure != "" {
		return append(all, moment{Lane: "network", Title: "← no answer: " + x.Answer.Failure, Bad: true})
	}
	return append(all, moment{Lane: "network", Title: fmt.Sprintf("← %d", x.Answer.Status), Lines: answerLines(x.Answer.Header)})
}

// numberOf is the number that the servers gave the request, or 0 if it reached none of
// those that keep the ledger.
func numberOf(x browser.Exchange, events []Event, told map[int]bool) int {
	url, _, _ := strings.Cut(x.URL, "#")
	if rest, ok := strings.CutPrefix(url, "ws"); ok {
		url = "http" + rest
	}
	for _, e := range events {
		if e.Kind == eventArrived && e.Method == x.Method && e.URL == url && !told[e.Request] {
			return e.Request
		}
	}
	return 0
}

func callMoment(q browser.Request) moment {
	m := moment{Lane: "script", Title: string(q.API) + " " + cmp.Or(q.Method, "") + " " + q.URL, Lines: fieldLines(q.Header)}
	m.Title = strings.Join(strings.Fields(m.Title), " ")
	add := func(name, value string) {
		if value != "" {
			m.Lines = append(m.Lines, name+": "+value)
		}
	}
	add("mode", q.Mode)
	add("credentials", q.Credentials)
	if q.WithCredentials {
		add("withCredentials", "true")
	}
	if q.Body != nil {
		add("body, as "+q.Body.Kind, q.Body.Text)
	}
	return m
}

func stepMoments(steps []browser.Step, sent int) (all []moment) {
	for _, s := range steps {
		// What an answer means for the backend, the backend's own lane tells.
		if s.Exchange == sent && s.Algorithm != "HTTP-network fetch" {
			all = append(all, moment{Lane: "browser", Title: s.Text, Lines: []string{s.Algorithm}, Link: s.Link, Bad: s.Failed})
		}
	}
	return all
}

func verdictMoment(v browser.Verdict) moment {
	m := moment{Lane: "script", Title: "Script sees: " + cmp.Or(v.Script, string(v.Outcome)), Bad: v.Outcome != browser.Readable}
	if v.CORS != "" {
		m.Lines = append(m.Lines, "Chromium calls it "+string(v.CORS))
	}
	if v.Console != "" {
		m.Lines = append(m.Lines, "The console: "+v.Console)
	}
	return m
}

// backendMoments are what the servers noted, of the requests that are meant.
func backendMoments(events []Event, meant func(Event) bool) (all []moment) {
	for _, e := range events {
		if !meant(e) {
			continue
		}
		m := moment{Lane: "backend"}
		switch e.Kind {
		case eventArrived:
			m.Title = "Arrived: " + e.Method + " " + e.URL
			if e.Preflight {
				m.Title = "Arrived: the preflight " + e.Method + " " + e.URL
			}
			if e.Body != "" {
				m.Lines = append(m.Lines, "body: "+e.Body)
			}
		case eventGate:
			m.Title, m.Bad = "moat: "+strings.TrimSpace(e.Outcome+" "+e.Reason), e.Outcome == "deny"
			m.Lines = slices.DeleteFunc([]string{e.Text, e.Fix}, func(s string) bool { return s == "" })
		case eventRan:
			m.Title = "The handler ran: " + e.Did
			if e.Books != nil {
				m.Lines = append(m.Lines, fmt.Sprintf("alice has %d, mallory %d", e.Books.Alice, e.Books.Mallory))
			}
		default:
			continue // what the answer was stands in the network's lane
		}
		all = append(all, m)
	}
	return all
}

func fieldLines(h browser.Header) (lines []string) {
	for _, f := range h {
		lines = append(lines, f.Name+": "+f.Value)
	}
	return lines
}

// answerLines are the fields that decide something, in an order that does not change.
func answerLines(h browser.Header) []string {
	lines := fieldLines(slices.DeleteFunc(slices.Clone(h), func(f browser.Field) bool {
		name := strings.ToLower(f.Name)
		return !strings.HasPrefix(name, "access-control-") && !strings.HasPrefix(name, "cross-origin-") &&
			!slices.Contains([]string{"vary", "set-cookie", "location", "content-type", "www-authenticate", "retry-after", "cache-control"}, name)
	}))
	slices.Sort(lines)
	return lines
}
