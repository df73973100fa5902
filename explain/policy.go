package explain

import (
	"github.com/moat-gateway/moat/browser"
)

// Ruling is what a policy decides about a request.
type Ruling struct {
	// Answer is what the client gets. Where the request is passed on, it has what the
	// gate adds to an answer whose status is assumed.
	Answer browser.Answer
	Steps  []GateStep
	// Refused is set if the gate ends the request with a refusal, Passed if it passes it
	// on. A preflight that it answers itself is neither.
	Refused, Passed bool
}

// ExplainPolicy explains what a policy makes of a request. decide is asked about each
// request that would leave the browser.
func (s Setting) ExplainPolicy(q Question, decide func(browser.Message) Ruling) (*Explanation, error) {
	var rulings []Ruling
	e, err := s.ask(q, func(m browser.Message) browser.Answer {
		r := decide(m)
		rulings = append(rulings, r)
		return r.Answer
	})
	if err != nil {
		return nil, err
	}
	e.Source = FromPolicy
	passed, refused, n := false, false, 0
	for i := range e.Trace.Exchanges {
		x := &e.Trace.Exchanges[i]
		if x.FromCache || n >= len(rulings) {
			continue
		}
		r := rulings[n]
		n++
		x.Executed = x.Executed && r.Passed
		passed = passed || r.Passed && !x.Preflight
		refused = r.Refused
		e.Gate = append(e.Gate, r.Steps...)
	}
	e.judge()
	switch {
	case refused:
		e.refusedByGate()
	case passed:
		e.Executed = Executed{ExecutedYes, "Yes. moat passes the " + shownRaw(e.method()) + " on, and the upstream executes it."}
		if e.Pending != nil {
			e.Summary = "moat lets the " + shownRaw(e.method()) + " pass; whether the page may read the answer, the upstream decides."
			break
		}
		if e.Outcome == Allowed && e.Trace.Verdict.Type == "cors" {
			e.Summary = "moat lets the " + shownRaw(e.method()) + " pass, and the page may read the answer."
		}
		e.Notes = append(e.Notes, "What the upstream answers is not known. It is taken to be 200, with the header that moat adds.")
	}
	return e, nil
}

// refusedByGate says who refused it. What the browser makes of a refusal is not what is to
// be mended.
func (e *Explanation) refusedByGate() {
	e.Outcome = Refused
	e.Failure, e.Mends, e.Changes = nil, nil, nil // a stranger's page is not to be mended
	e.Summary = "moat refuses it."
	e.Executed = Executed{ExecutedNo, "No. moat ends it before the upstream."}
	for _, s := range e.Gate {
		if s.Outcome == gateDeny {
			e.Summary = "moat refuses the " + shownRaw(e.method()) + ", " + s.Code + ": the backend never sees it."
			e.Changes = []Change{{Code: s.Code, Who: ByServer, Title: "If the request is legitimate", Text: s.Fix}}
		}
	}
}

const gateDeny = "deny"
