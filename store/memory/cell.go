//go:build !interleave

package memory

import (
	"math/rand/v2"
	"sync/atomic"
)

const slots = 8

// cell is a slot. With the build tag interleave, tests decide who has the next turn at it.
type cell = atomic.Uint64

// roll returns any number. Who could foretell it would know which key of a full bucket goes
// next, and not even which keys share a bucket.
func roll() uint64 { return rand.Uint64() } //nolint:gosec // see above.
