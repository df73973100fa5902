//go:build !interleave

package memory

import "sync/atomic"

const slots = 8

// cell is a slot. With the build tag interleave, tests decide who has the next turn at it.
type cell = atomic.Uint64
