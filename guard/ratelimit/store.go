package ratelimit

import (
	"context"
	"net/netip"
)

// Key says whose debt it is, and to which limit. Keys are equal if all fields are. The
// zero value of a field says that the limit does not look at it.
type Key struct {
	// Limit is the name of the limit: debts to different limits never meet.
	Limit string
	// Net is the network of the client.
	Net netip.Prefix
	// Who is the principal, the API key, the claims or the account, as in
	// "principal=accounts|alice" or "claim:org=acme,account=bob". It is printable ASCII
	// without blanks, and of a bounded length.
	Who string
	// Route and Method are those of the request.
	Route, Method string
}

// Demand asks a limit for room.
type Demand struct {
	Key   Key
	Limit Limit
	// Cost is what the request costs, in requests. 0 asks for no room, and is always
	// allowed.
	Cost int
	// IfNew makes the demand count only if the key of the first demand of the same Take is
	// new. A demand that does not count is Allowed.
	IfNew bool
	// Force charges what there is room for, and allows in any case: see Limit.Charge.
	Force bool
	// Lease lets a store that is shared between processes take room for so many requests
	// at once and admit from it without asking again. 0 asks each time.
	Lease int
}

// Store keeps the debts. Package store/memory has one for one process, and store/valkey
// one that many share; package store/storetest has the tests that any other must
// pass. A Store is safe for concurrent use.
//
// A Store never blocks for longer than its own stated bound. It returns an error if, and
// only if, it could not decide: then it charged nothing, as far as it knows, and the Guard
// does what its Policy says about that.
type Store interface {
	// Take charges all demands, or none: if one is refused, the others cost nothing. It
	// fills in results, which is as long as demands, and reports whether all are allowed.
	Take(ctx context.Context, demands []Demand, results []Result) (ok bool, err error)
	// Peek is Take without the charge.
	Peek(ctx context.Context, demands []Demand, results []Result) (ok bool, err error)
	// Reset forgets the debt of a key.
	Reset(ctx context.Context, k Key) error
}
