package explain

import (
	"cmp"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/moat-gateway/moat/browser"
)

// Report is what moat explain --json prints.
type Report struct {
	Explanations []*Explanation `json:"explanations"`
}

// Explanation is what there is to say about one request of a page. Its JSON is the
// published form: explain.schema.json describes it.
type Explanation struct {
	// Source says whose answers it goes by.
	Source Source `json:"source"`
	// Question is what was asked, without what may be secret.
	Question Question `json:"question"`
	// Browser is the name of the browser's profile.
	Browser string  `json:"browser"`
	Outcome Outcome `json:"outcome"`
	// Summary is the outcome in one line of plain words.
	Summary string `json:"summary"`
	// Executed answers what people never ask: did the backend do it anyway?
	Executed Executed `json:"executed"`
	// Lanes is what travelled, in order.
	Lanes []Event       `json:"lanes,omitempty"`
	Trace browser.Trace `json:"trace,omitzero"`
	// Pending is the request that the browser would make next, if nobody was asked for its
	// answer.
	Pending *Pending `json:"pending,omitempty"`
	// Failure is the step that ended the request, if one did.
	Failure *Failure `json:"failure,omitempty"`
	// Entry is the place of the request in the HAR file, from 0.
	Entry *int `json:"har_entry,omitempty"`
	// Gate is what a policy of moat decided, guard by guard, if it was asked.
	Gate []GateStep `json:"gate,omitempty"`
	// Mends grant what is lacking, each for another kind of server; Changes are to be made
	// besides or instead.
	Mends   []Mend   `json:"mends,omitempty"`
	Changes []Change `json:"changes,omitempty"`
	Notes   []string `json:"notes,omitempty"`
}

// Source is where the answers came from.
type Source string

// The sources.
const (
	FromServer  Source = "server"  // a live server, or any other browser.Server
	FromRecord  Source = "har"     // a HAR file
	FromPolicy  Source = "policy"  // moat's own decision, by its configuration
	FromConsole Source = "console" // an error text: nothing was asked
)

// Outcome is what becomes of the request, in one word.
type Outcome string

// The outcomes.
const (
	// Allowed: the browser lets it pass, and the server has no objection.
	Allowed Outcome = "allowed"
	// Blocked: the browser does not send the request, or withholds the answer.
	Blocked Outcome = "blocked"
	// Refused: the browser lets it pass, and the server answers with an error.
	Refused Outcome = "refused"
	// Unknown: there is no answer to judge by.
	Unknown Outcome = "unknown"
)

// Executed says whether the backend did what it was asked to do.
type Executed struct {
	Answer ExecutedAnswer `json:"answer"`
	Text   string         `json:"text"`
}

// ExecutedAnswer is Executed in a word.
type ExecutedAnswer string

// The answers.
const (
	ExecutedYes       ExecutedAnswer = "yes"
	ExecutedNo        ExecutedAnswer = "no"
	ExecutedPreflight ExecutedAnswer = "only the preflight"
	ExecutedUnknown   ExecutedAnswer = "unknown"
)

// Party is one of those between whom a request travels.
type Party string

// The parties, in the order of the lanes.
const (
	ThePage    Party = "page"
	TheBrowser Party = "browser"
	TheNetwork Party = "network"
	TheBackend Party = "backend"
)

// Event is something that travelled from one party to another, or that one of them did
// by itself.
type Event struct {
	From    Party    `json:"from"`
	To      Party    `json:"to"`
	Title   string   `json:"title"`
	Details []string `json:"details,omitempty"`
	// Failed is set where the way ends.
	Failed bool `json:"failed,omitempty"`
}

// Pending is a request that was not made.
type Pending struct {
	browser.Message
	// Why says why it was not made.
	Why string `json:"why"`
	// Needed are the header fields that its answer must have so that script can read it.
	Needed browser.Header `json:"needed,omitempty"`
}

// Failure is the step that ended the request.
type Failure struct {
	// Step is the algorithm's name in the standard, and Link leads to it.
	Step string `json:"step"`
	Link string `json:"link,omitempty"`
	// Text says what it found, in plain words.
	Text string `json:"text"`
	// Came are the header fields that decided, as they came, and Needed what they would
	// have to be. ":status" stands for the status.
	Came   browser.Header `json:"came,omitempty"`
	Needed browser.Header `json:"needed,omitempty"`
	// CORS is Chromium's name of the failure, if it is one of CORS; Console the text in
	// its console, Firefox the name that Firefox has for it, and Docs the page in this
	// repository about it.
	CORS    browser.CORSError `json:"cors_error,omitempty"`
	Console string            `json:"console,omitempty"`
	Firefox string            `json:"firefox,omitempty"`
	Docs    string            `json:"docs,omitempty"`
}

// GateStep is what one step of moat's data path decides about one request.
type GateStep struct {
	// Request is the request, such as "OPTIONS /items".
	Request string `json:"request"`
	// Step is the step or guard, and Mode the guard's mode; steps that always hold have
	// none.
	Step string `json:"step"`
	Mode string `json:"mode,omitempty"`
	// Outcome is "allow", "amend", "answer", "deny", "report" (it would deny), "off" or
	// "not reached".
	Outcome string `json:"outcome"`
	// Code is the reason's, explained in docs/reasons.md; Cause and Fix are what the
	// operator is told.
	Code  string `json:"code,omitempty"`
	Cause string `json:"cause,omitempty"`
	Fix   string `json:"fix,omitempty"`
	// Seen is the part of the request that decided, and Want what would have passed.
	Seen string `json:"seen,omitempty"`
	Want string `json:"want,omitempty"`
	// Where is the line of the configuration that decided, as file:line:column, Field
	// its path and Written what stands there. A setting that the file leaves out has only
	// a Field.
	Where   string `json:"where,omitempty"`
	Field   string `json:"field,omitempty"`
	Written string `json:"written,omitempty"`
}

// Withheld begins the Failure of an Answer for which a Server did not ask anybody; the
// rest of the Failure says why. What such an answer would mean stays open.
const Withheld = "withheld: "

// Setting is the state in which the browser is found.
type Setting struct {
	// Profile is "chromium" (also for ""), "firefox" or "standard".
	Profile string
	Now     time.Time
	// BlockThirdPartyCookies and LocalNetworkAllowed are as in browser.Browser.
	BlockThirdPartyCookies, LocalNetworkAllowed bool
	// Space says in which address space a host is; nil goes by its name.
	Space func(hostport string) browser.AddressSpace
}

// ErrNoPage is about a question that does not say which page asks. Origin, and with it
// all of CORS, hangs on that.
var ErrNoPage = errors.New("it is not said which page makes the request")

// Explain asks the server what the browser would ask it, and explains what becomes of it.
func Explain(q Question, server browser.Server, now time.Time, profile string) (*Explanation, error) {
	return Setting{Profile: profile, Now: now}.Explain(q, server)
}

// Explain asks the server what a browser in this state would ask it, and explains what
// becomes of it. An error is about the question: what a server does is never one.
func (s Setting) Explain(q Question, server browser.Server) (*Explanation, error) {
	e, err := s.ask(q, server)
	if err != nil {
		return nil, err
	}
	e.judge()
	return e, nil
}

// ask takes the question through the model.
func (s Setting) ask(q Question, server browser.Server) (*Explanation, error) {
	profile, err := browser.ProfileNamed(s.Profile)
	if err != nil {
		return nil, err
	}
	if q.Page.URL == "" {
		return nil, ErrNoPage
	}
	b := browser.New(profile)
	b.BlockThirdPartyCookies, b.LocalNetworkAllowed = s.BlockThirdPartyCookies, s.LocalNetworkAllowed
	if s.Space != nil {
		b.Space = s.Space
	}
	e := &Explanation{Source: FromServer, Browser: profile.Name, Notes: slices.Clone(q.Notes)}
	for _, c := range q.Cookies {
		if err = b.SetCookie(c.URL, c.SetCookie, c.Top, s.Now.Add(-time.Duration(c.Age)*time.Second)); err != nil {
			e.Notes = append(e.Notes, "A browser does not keep this: "+redactError(err)+".")
		}
	}
	t, err := b.Do(s.Now, q.Page, q.Request, server)
	if err != nil {
		return nil, err
	}
	for i := range t.Steps {
		t.Steps[i].Text = withoutValues(t.Steps[i].Text, q.Request.Header)
	}
	e.Question, e.Trace = redactQuestion(q), t
	return e, nil
}

// judge fills in what the trace means.
func (e *Explanation) judge() {
	html := answeredWithHTML(&e.Trace)
	e.Pending = cutWithheld(&e.Trace)
	redactTrace(&e.Trace)
	for i := range e.Gate {
		g := &e.Gate[i]
		g.Request, g.Seen = WithoutSecrets(g.Request), WithoutSecrets(g.Seen)
	}
	q, t := e.Question, &e.Trace
	if e.Pending == nil {
		e.Failure = failureOf(q, t)
		if n, ok := NeedOf(q, t); ok {
			mends, err := Mends(n)
			if err != nil {
				e.Notes = append(e.Notes, "No change can be written out: "+strings.ReplaceAll(err.Error(), "\n", "; ")+".")
			}
			e.Mends = mends
		}
		e.Changes = Changes(q, t)
	} else {
		redactMessage(&e.Pending.Message)
		e.Pending.Needed = pendingNeeds(q, &e.Pending.Message)
	}
	if html {
		e.Notes = append(e.Notes, "The answer is an HTML page, not data: a login page, an error page or the site itself. Is the URL the API's?")
	}
	e.Outcome = e.outcome()
	e.Executed = e.executed()
	e.Summary = e.summary()
	e.Lanes = lanesOf(e)
}

// cutWithheld takes from the trace the request for which nobody was asked, and what the
// model made of that.
func cutWithheld(t *browser.Trace) *Pending {
	n := len(t.Exchanges)
	if n == 0 {
		return nil
	}
	last := t.Exchanges[n-1]
	why, ok := strings.CutPrefix(last.Answer.Failure, Withheld)
	if !ok {
		return nil
	}
	t.Exchanges = t.Exchanges[:n-1]
	t.Steps = slices.DeleteFunc(t.Steps, func(s browser.Step) bool { return s.Exchange >= n })
	t.Verdict = browser.Verdict{}
	return &Pending{Message: last.Message, Why: why}
}

// pendingNeeds are the fields without which script could not read the answer. Origin null
// is anybody's: no server should grant it anything.
func pendingNeeds(q Question, m *browser.Message) browser.Header {
	if m.Preflight || !m.Header.Has("Origin") || m.Header.Value("Origin") == "null" || (q.Request.API != browser.Fetch && q.Request.API != browser.XHR && q.Request.API != browser.EventSource) {
		return nil
	}
	needed := browser.Header{{Name: "Access-Control-Allow-Origin", Value: m.Header.Value("Origin")}}
	if needsCredentials(q.Request) {
		needed = append(needed, browser.Field{Name: "Access-Control-Allow-Credentials", Value: "true"})
	}
	return needed
}

func answeredWithHTML(t *browser.Trace) bool {
	if len(t.Exchanges) == 0 {
		return false
	}
	last := t.Exchanges[len(t.Exchanges)-1]
	if last.Preflight || last.Answer.Failure != "" {
		return false
	}
	switch last.Header.Value("Sec-Fetch-Dest") {
	case "document", "iframe":
		return false
	}
	return essence(last.Answer.Header.Value("Content-Type")) == "text/html"
}

func (e *Explanation) outcome() Outcome {
	v := e.Trace.Verdict
	last := e.last()
	switch {
	case e.Pending != nil:
		return Unknown
	case v.Outcome == browser.Blocked || v.Outcome == browser.Threw:
		return Blocked
	case last != nil && last.Answer.Failure != "":
		return Unknown
	case last != nil && !last.Preflight && last.Answer.Status >= 400:
		return Refused
	case v.Outcome == browser.Failed:
		return Blocked
	}
	return Allowed
}

// last is the last request that left the browser, or nil.
func (e *Explanation) last() *browser.Exchange {
	if n := len(e.Trace.Exchanges); n > 0 {
		return &e.Trace.Exchanges[n-1]
	}
	return nil
}

// method is that of the request in question, as it stood at the end.
func (e *Explanation) method() string {
	last := e.last()
	switch {
	case e.Pending != nil && e.Pending.Preflight:
		return e.Pending.Header.Value("Access-Control-Request-Method")
	case e.Pending != nil:
		return e.Pending.Method
	case last != nil && last.Preflight:
		return last.Header.Value("Access-Control-Request-Method")
	case last != nil:
		return last.Method
	}
	return cmp.Or(strings.ToUpper(e.Question.Request.Method), "GET")
}

// Targets returns all that a Mend can be for, in the order of Mends.
func Targets() []Target {
	return []Target{ForMoat, ForGo, ForGoNetHTTP, ForNginx, ForCaddy, ForExpress, ForSpring, ForFastAPI}
}

// SameOrigin reports whether a page and a URL, which may be relative to it, are of one
// origin as far as their text tells.
func SameOrigin(page, target string) bool {
	p, ok := pageURL(page)
	if !ok {
		return false
	}
	t, err := p.Parse(target)
	return err == nil && sameOrigin(p, t)
}
