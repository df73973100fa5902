package budget

import (
	"context"
	"errors"
	"time"
)

// MaxAccounts is how many spenders a Store counts apart in one budget and period. Those that come
// when there are so many share one account, Others: a flood of names can then take from
// newcomers, and never get more for itself, nor take memory without bound.
const MaxAccounts = 100_000

// Others is the account that newcomers share when there are MaxAccounts.
const Others = "(others)"

// ErrStopped is what Reserve says while the kill switch is on.
var ErrStopped = errors.New("budget: stopped by the operator")

// Account is one counter: what one spender has spent of a budget in one period.
type Account struct {
	Budget string
	Per    Period
	Span   Span
	// Who is "" where all share the budget.
	Who string
	// Order is the unit by which the Store finds those who have used most, if it needs one.
	Order Unit
}

// Demand asks for room in one budget.
type Demand struct {
	Rule *Rule
	Who  string
	Take Amount
	// Force takes it whether there is room or not. Lacks is told all the same.
	Force bool
}

// Result is what a Store found out about a Demand.
type Result struct {
	// Account is where it has been taken from: that of Others, perhaps.
	Account Account
	// Used is how much has been used up, what the Demand took included.
	Used Amount
	// Lacks is the unit of which there was no room, or 0.
	Lacks Unit
}

// Change is what is added to an account, or taken off it.
type Change struct {
	Account Account
	Add     Amount
}

// Store holds what has been spent. Periods are those of its clock. What it cannot do is an error, and
// nobody spends then.
type Store interface {
	// Reserve takes what each demand asks for, if there is room for all of them, as Lacks says; or
	// nothing. It fills in results, which are as many, and reports whether there was room. An
	// error that is not ErrStopped means that the Store cannot count. Once it says that there was room, what
	// was taken stays taken, whatever becomes of the process. The same account may not be
	// named twice.
	Reserve(ctx context.Context, demands []Demand, results []Result) (ok bool, err error)
	// Settle changes accounts, of which none falls below 0. Those of a period that is over may have
	// been forgotten. If it fails, accounts say at least what they said before.
	Settle(ctx context.Context, changes []Change) error
	// Usage is what has been used of a budget in the present period, by all together, and the n
	// accounts that have used most.
	Usage(ctx context.Context, r *Rule, n int) (Usage, error)
	// Reset forgets what the account of that name has used in the present period, or what all have if
	// who is "". It reports whether there was something to forget.
	Reset(ctx context.Context, r *Rule, who string) (bool, error)
	// Stop turns the kill switch on or off, durably, for all processes that share the Store.
	Stop(ctx context.Context, on bool) error
	// Stopped is since when it is on, or the zero Time.
	Stopped(ctx context.Context) (since time.Time, err error)
}

// Usage is what has been used of a budget in a period.
type Usage struct {
	Span Span
	Used Amount
	// Accounts is how many there are.
	Accounts int
	Top      []Spender
}

// Spender is one account of a Usage.
type Spender struct {
	Who  string `json:"who"`
	Used Amount `json:"used"`
}

// More reports whether a has used more than b: of money first, then of tokens, bytes and requests.
func (a Amount) More(b Amount) bool {
	for _, u := range [...]Unit{Spend, Tokens, Bytes} {
		if a.Of(u) != b.Of(u) {
			return a.Of(u) > b.Of(u)
		}
	}
	return a.Requests > b.Requests
}
