package browser

// Exchange is a request that left the browser, and what came back.
type Exchange struct {
	Message
	Answer Answer `json:"answer"`
	// Executed is set if a backend would execute it: it is no preflight, and it arrived.
	Executed bool `json:"executed"`
	// Stored are the names of the cookies that the browser kept from the answer. It keeps
	// them whatever CORS says.
	Stored []string `json:"stored,omitempty"`
	// FromCache is set if the browser's own cache answered: nothing reached the server.
	FromCache bool `json:"from_cache,omitempty"`
}

// Step is a step of the standard that mattered.
type Step struct {
	// Algorithm is its name in the standard, and Link leads to it.
	Algorithm string `json:"algorithm"`
	Link      string `json:"link"`
	// Text says what it found, in plain words.
	Text string `json:"text"`
	// Failed is set on the step that ended the request.
	Failed bool `json:"failed,omitempty"`
	// Exchange is how many requests had left before this step.
	Exchange int `json:"exchange"`
}

// Outcome is what became of a request, in one word.
type Outcome string

// The outcomes.
const (
	// Readable: script gets the answer, its status and its body.
	Readable Outcome = "readable"
	// Opaque: the answer came and may have been used (shown, run), but script cannot
	// read it.
	Opaque Outcome = "opaque"
	// Blocked: the browser withholds the answer, or did not send the request. See
	// Trace.Exchanges for whether the backend executed it.
	Blocked Outcome = "blocked"
	// Failed: the network gave no answer.
	Failed Outcome = "failed"
	// Threw: the API refused the request at once; nothing was sent.
	Threw Outcome = "threw"
)

// Verdict is what the page came to see.
type Verdict struct {
	Outcome Outcome `json:"outcome"`
	// Script is what script observes, briefly: "cors 200", "opaque 0", "TypeError",
	// "load 200", "load", "error", "open", "shown", "true".
	Script string `json:"script"`
	// Status is the answer's, if script can read it.
	Status int `json:"status,omitempty"`
	// Type is the type of fetch's Response: basic, cors, opaque, opaqueredirect.
	Type string `json:"type,omitempty"`
	// Body is set if script can read the answer's body, or what it was sent as.
	Body bool `json:"body,omitempty"`
	// Headers are the names of the answer's header fields that script can read, in lower
	// case and sorted.
	Headers []string `json:"readable_headers,omitempty"`
	// CORS is Chromium's name of what failed, or empty if it was not CORS.
	CORS CORSError `json:"cors_error,omitempty"`
	// NetError and BlockedReason are what Chromium's protocol says of a failure that is
	// not CORS.
	NetError      string `json:"net_error,omitempty"`
	BlockedReason string `json:"blocked_reason,omitempty"`
	// Console is the text in Chromium's console.
	Console string `json:"console,omitempty"`
	// Firefox is Firefox's name of the reason: "CORSMissingAllowOrigin".
	Firefox string `json:"firefox,omitempty"`
}

// Trace is all that happened.
type Trace struct {
	Exchanges []Exchange `json:"exchanges,omitempty"`
	Steps     []Step     `json:"steps,omitempty"`
	Verdict   Verdict    `json:"verdict"`
}

// Executed reports whether the backend executed anything.
func (t *Trace) Executed() bool {
	for _, e := range t.Exchanges {
		if e.Executed {
			return true
		}
	}
	return false
}

// FailedStep returns the step that ended the request, or nil.
func (t *Trace) FailedStep() *Step {
	for i := range t.Steps {
		if t.Steps[i].Failed {
			return &t.Steps[i]
		}
	}
	return nil
}
