// Package guard holds the vocabulary that every protection shares: a Decision,
// the closed set of Reasons it can give, and the Mode it runs in.
//
// A guard is a package below this one. Each has a pure Decide, which looks at a
// request and answers with a Decision, and a net/http middleware around it.
// Guards do not import one another; the gateway composes them.
package guard

import "fmt"

// Outcome is what a Decision means for the request.
type Outcome uint8

const (
	// Allow lets the request go on to the next step.
	Allow Outcome = iota
	// Amend lets it go on after the guard has changed it, for instance by
	// removing a header that the client had no right to send.
	Amend
	// Answer ends the request here with a success: the gate itself is the
	// responder, as it is for a preflight.
	Answer
	// Deny ends the request here with a refusal.
	Deny
)

func (o Outcome) String() string {
	switch o {
	case Allow:
		return "allow"
	case Amend:
		return "amend"
	case Answer:
		return "answer"
	case Deny:
		return "deny"
	}
	return fmt.Sprintf("Outcome(%d)", uint8(o))
}

// Decision is what a guard found, and why. The zero Decision allows.
//
// A Decision says that the request was judged; an error, where a guard returns
// one, says that it could not be.
type Decision struct {
	Outcome  Outcome
	Reason   Reason
	Evidence Evidence
}

// Evidence is the fact that decided. It goes to the operator only: Got may hold
// anything that a client sent, at any length, so whoever records it bounds it
// first (see Record in the gateway).
type Evidence struct {
	// Where names the part of the request, for instance "Origin".
	Where string
	// Got is what the request said there, as it came.
	Got string
	// Want is what would have been accepted, in words.
	Want string
}

// Denied reports whether the request must not go on.
func (d Decision) Denied() bool { return d.Outcome == Deny }

// Ends reports whether the request ends here, refused or answered.
func (d Decision) Ends() bool { return d.Outcome >= Answer }

// Fix is the change that would let a legitimate request pass.
func (d Decision) Fix() string { return d.Reason.Fix() }

// Denial is a Decision to refuse.
func Denial(r Reason, where, got, want string) Decision {
	return Decision{Outcome: Deny, Reason: r, Evidence: Evidence{Where: where, Got: got, Want: want}}
}

// Mode says what becomes of a guard's Decision.
type Mode uint8

const (
	// Enforce carries the Decision out.
	Enforce Mode = iota
	// Report runs the same code and records what Enforce would have done, but
	// lets the request go on unchanged.
	Report
	// Off does not run the guard.
	Off
)

var modeNames = [...]string{Enforce: "enforce", Report: "report", Off: "off"}

func (m Mode) String() string {
	if int(m) < len(modeNames) {
		return modeNames[m]
	}
	return fmt.Sprintf("Mode(%d)", uint8(m))
}

// MarshalText returns the mode's name.
func (m Mode) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

// UnmarshalText accepts "enforce", "report" and "off".
func (m *Mode) UnmarshalText(b []byte) error {
	for i, n := range modeNames {
		if n == string(b) {
			*m = Mode(i)
			return nil
		}
	}
	return fmt.Errorf("unknown mode %q; want enforce, report or off", b)
}

// Kind names a guard or another step of the data path that can decide. It is a
// closed set, fit for a metric label.
type Kind uint8

// The steps of the data path, in its order. The guards among them, see Guards,
// run in a Mode; the others always hold.
const (
	Wire Kind = iota
	Host
	RouteStep
	ClientAddr
	CORS
	Bounds
	CrossSite
	RateLimit
	Bot
	Ticket
	Challenge
	Identity
	CSRF
	Authorization
	Budget
	Body
	Scrub
	Egress
	Credential
	Upstream
	Cookie
	numKinds
)

var kindNames = [numKinds]string{
	"wire", "host", "route", "client_address", "cors", "bounds", "cross_site", "rate_limit", "bot", "ticket",
	"challenge", "identity", "csrf", "authorization", "budget", "body", "scrub", "egress", "credential", "upstream", "cookie",
}

func (k Kind) String() string {
	if k < numKinds {
		return kindNames[k]
	}
	return fmt.Sprintf("Kind(%d)", uint8(k))
}

// Guards returns the steps that run in a Mode, in the order of the data path.
func Guards() []Kind {
	return []Kind{ClientAddr, CORS, Bounds, CrossSite, RateLimit, Bot, Ticket, Identity, CSRF, Authorization, Budget, Body, Scrub, Cookie}
}

// Modes holds a Mode for each guard. The zero value enforces all.
type Modes [numKinds]Mode
