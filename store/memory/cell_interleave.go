//go:build interleave

package memory

// Three slots are enough to be full, and leave few enough schedules to try them all.
const slots = 3

// turn waits until it is the caller's turn.
var turn = func() {}

// cell is an atomic.Uint64 whose operations are steps of a schedule.
type cell struct{ v uint64 }

func (c *cell) Load() uint64 {
	turn()
	return c.v
}

func (c *cell) CompareAndSwap(old, word uint64) bool {
	turn()
	if c.v != old {
		return false
	}
	c.v = word
	return true
}

// rolled is how often roll was called, and dice says what for: which slot to try first.
var (
	rolled uint64
	dice   = func() uint64 { return 0 }
)

// roll returns a number that is never the same again.
func roll() uint64 {
	rolled++
	return rolled<<(64-reservedBits) + dice()
}
