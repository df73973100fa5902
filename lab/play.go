package lab

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/moat-gateway/moat/browser"
)

// Outcome is what became of a run.
type Outcome struct {
	Expect
	// Trace is the model's of the last request; of the lab's own client there is none.
	Trace *browser.Trace `json:"trace,omitempty"`
	// Events are the servers'.
	Events []Event `json:"events"`

	// made is the run with all names filled in, and traces are those of all its requests.
	made   *Run
	traces []browser.Trace
}

// play makes a run with the browser's model in the place of a browser: the requests are
// real, and go to a listener of the lab's.
func (l *Lab) play(ctx context.Context, v *visitor, run *Run, target Role, now time.Time) (Outcome, error) {
	if run.Do != "" {
		return Outcome{}, fmt.Errorf("run %q is a script: only a browser can do it", run.ID)
	}
	run = l.expand(v, run, target)
	number := v.begin(run.Answers.Rules, run.Cookies)
	before := v.booksNow()
	p, err := l.newPlayer(ctx, v)
	if err != nil {
		return Outcome{}, err
	}
	page := l.page(v, run)
	if err := p.signIn(run, page, target, now); err != nil {
		return Outcome{}, err
	}
	o := Outcome{made: run}
	from := 0
	for i, request := range run.Requests {
		request = p.answersIn(request)
		if run.Tickets != "" {
			if err := p.prove(&request, run.Tickets, page, target, now); err != nil {
				return Outcome{}, fmt.Errorf("run %q: ticket: %w", run.ID, err)
			}
		}
		last := i == len(run.Requests)-1
		if last {
			from = v.ledger.last()
		}
		if run.From == RoleLab {
			a := p.ask(browser.Message{Method: request.Method, URL: request.URL, Header: append(slices.Clone(request.Header), browser.Field{Name: ownClient, Value: "1"}), Body: request.Body})
			o.Readable, o.Left = a.Status != 0, true
			continue
		}
		trace, err := p.browser.Do(now, page, request, p.ask)
		if err != nil {
			return Outcome{}, fmt.Errorf("run %q: %w", run.ID, err)
		}
		o.traces = append(o.traces, trace)
		if last {
			o.Trace, o.Readable, o.Error = &trace, trace.Verdict.Outcome == browser.Readable, trace.Verdict.CORS
			o.Left = slices.ContainsFunc(trace.Exchanges, func(x browser.Exchange) bool { return !x.Preflight && !x.FromCache })
		}
	}
	o.Events = v.ledger.of(number)
	o.count(slices.DeleteFunc(slices.Clone(o.Events), func(e Event) bool { return e.Seq <= from }))
	o.Alice = v.booksNow().Alice - before.Alice
	return o, nil
}

// count reads from the ledger what arrived and what ran.
func (o *Outcome) count(events []Event) {
	for _, e := range events {
		switch e.Kind {
		case eventArrived:
			o.Arrived = o.Arrived || !e.Preflight
		case eventRan:
			o.Ran = true
		case eventGate:
			if e.Outcome == "deny" {
				o.Reason = e.Reason
			}
		}
	}
}

// page is the document whose script it is.
func (l *Lab) page(v *visitor, run *Run) browser.Page {
	p := browser.Page{URL: l.o.Names.Origin(run.From, v.id) + "/"}
	if run.Sandboxed {
		p.Sandboxed, p.Ancestors = true, []string{p.URL}
	}
	return p
}

// expand puts origins and secrets in the place of their names. {once} is a text that no
// other run has: with it a URL is in no cache yet.
func (l *Lab) expand(v *visitor, run *Run, target Role) *Run {
	r := *run
	r.once = randomID()
	fill := func(s string) string {
		o := l.o.Names
		return o.fill(s, v.id, append(slices.Clone(v.keys.told), "{target}", o.Origin(target, v.id), "{target:ws}", o.fill("{"+string(target)+":ws}", v.id),
			"{target:host}", o.fill("{"+string(target)+":host}", v.id), "{session}", v.session, "{once}", r.once)...)
	}
	r.Requests = slices.Clone(run.Requests)
	for i := range r.Requests {
		q := &r.Requests[i]
		q.URL = fill(q.URL)
		q.Header = fillHeader(q.Header, fill)
		if q.Body != nil {
			body := *q.Body
			body.Text = fill(body.Text)
			q.Body = &body
		}
	}
	r.Cookies = slices.Clone(run.Cookies)
	for i := range r.Cookies {
		r.Cookies[i] = fill(r.Cookies[i])
	}
	r.Answers.Rules = slices.Clone(run.Answers.Rules)
	for i := range r.Answers.Rules {
		rule := &r.Answers.Rules[i]
		rule.Header = fillHeader(rule.Header, fill)
		rule.Origin = slices.Clone(rule.Origin)
		for j := range rule.Origin {
			rule.Origin[j] = fill(rule.Origin[j])
		}
	}
	return &r
}

func fillHeader(h browser.Header, fill func(string) string) browser.Header {
	h = slices.Clone(h)
	for i := range h {
		h[i].Value = fill(h[i].Value)
	}
	return h
}
