package lab

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/moat-gateway/moat/browser"
)

// The kinds of events, in the order in which a request meets them.
const (
	eventArrived  = "arrived"  // a request reached the server
	eventGate     = "gate"     // moat decided about it
	eventRan      = "ran"      // the API's handler did what it was asked to
	eventAnswered = "answered" // the answer left the server
)

// Event is something that happened at the servers.
type Event struct {
	Seq int `json:"seq"`
	// Run is the number of the run in which it happened; 0 is before the first.
	Run  int    `json:"run"`
	Kind string `json:"kind"`
	// At is when, in milliseconds since the run began.
	At int64 `json:"at"`
	// Request is the number of the request that it belongs to, from 1 in each run.
	Request int `json:"request"`

	// Arrived: what came. To is "api" or "gate".
	To        Role           `json:"to,omitempty"`
	Method    string         `json:"method,omitempty"`
	URL       string         `json:"url,omitempty"`
	Header    browser.Header `json:"headers,omitempty"`
	Body      string         `json:"body,omitempty"`
	Preflight bool           `json:"preflight,omitempty"`
	// Curl is set if it came from the lab's own client, which is no browser.
	Curl bool `json:"curl,omitempty"`

	// Gate: what moat decided.
	Outcome string `json:"outcome,omitempty"` // "allow", "deny", "preflight"; "amend" if it changed the answer
	Reason  string `json:"reason,omitempty"`  // the code, as docs/reasons.md has it
	Text    string `json:"text,omitempty"`    // what the operator is told
	Fix     string `json:"fix,omitempty"`
	// Trail is what each guard found, in their order.
	Trail []Step `json:"trail,omitempty"`

	// Ran: what was done, for people, and the books after it.
	Did   string `json:"did,omitempty"`
	Books *Books `json:"books,omitempty"`

	// Answered: its head. Of a request that came to no good end, Text says what became of it.
	Answer *browser.Answer `json:"answer,omitempty"`
}

// Step is what a guard of moat found.
type Step struct {
	Guard  string `json:"guard"`
	Mode   string `json:"mode"`
	Reason string `json:"reason"`
}

// maxEvents and maxSize bound what is kept of a visitor's events; the oldest go first. maxSize
// is in bytes of their texts.
const (
	maxEvents = 1000
	maxSize   = 1 << 20
)

// size is what an event takes, about.
func (e *Event) size() int {
	n := len(e.Method) + len(e.URL) + len(e.Body) + len(e.Text) + len(e.Fix) + len(e.Did)
	fields := e.Header
	if e.Answer != nil {
		fields = append(slices.Clip(fields), e.Answer.Header...)
	}
	for _, f := range fields {
		n += len(f.Name) + len(f.Value)
	}
	return n
}

// ledger keeps a visitor's events, and tells those who listen.
type ledger struct {
	mu      sync.Mutex
	seq     int
	run     int
	began   time.Time
	request int
	events  []Event
	size    int
	changed chan struct{} // closed and replaced with every event
}

func newLedger() *ledger { return &ledger{changed: make(chan struct{}), began: time.Now()} }

// begin starts a run, and returns its number.
func (l *ledger) begin() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.run++
	l.request = 0
	l.began = time.Now()
	return l.run
}

// call is a request's place in the ledger. It belongs to the run in which it arrived, also
// if it outlasts that, as streams do.
type call struct {
	run, number int
	began       int64 // when the run did, in milliseconds
}

// String is how a call goes along in a header field, and parseCall reads it.
func (c call) String() string { return fmt.Sprintf("%d-%d-%d", c.run, c.number, c.began) }

func parseCall(s string) (c call, err error) {
	_, err = fmt.Sscanf(s, "%d-%d-%d", &c.run, &c.number, &c.began)
	return c, err
}

// arrive numbers a request.
func (l *ledger) arrive() call {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.request++
	return call{l.run, l.request, l.began.UnixMilli()}
}

func (l *ledger) note(c call, e Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.seq++
	e.Seq, e.Run, e.Request, e.At = l.seq, c.run, c.number, time.Now().UnixMilli()-c.began
	l.events = append(l.events, e)
	l.size += e.size()
	for len(l.events) > maxEvents || l.size > maxSize {
		l.size -= l.events[0].size()
		l.events[0] = Event{} // or the array would keep its texts
		l.events = l.events[1:]
	}
	close(l.changed)
	l.changed = make(chan struct{})
}

// last is the number of the latest event.
func (l *ledger) last() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.seq
}

// since returns the events after seq, and what is closed when there are more.
func (l *ledger) since(seq int) ([]Event, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var found []Event
	for _, e := range l.events {
		if e.Seq > seq {
			found = append(found, e)
		}
	}
	return found, l.changed
}

// amended reports whether moat's changing the answer of a call was the last thing noted.
func (l *ledger) amended(c call) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.events) == 0 {
		return false
	}
	last := l.events[len(l.events)-1]
	return last.Run == c.run && last.Request == c.number && last.Outcome == "amend"
}

// next is closed when there is another event.
func (l *ledger) next() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.changed
}

// of returns the events of a run.
func (l *ledger) of(run int) []Event {
	l.mu.Lock()
	defer l.mu.Unlock()
	var found []Event
	for _, e := range l.events {
		if e.Run == run {
			found = append(found, e)
		}
	}
	return found
}
