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

// dice is what roll returns next.
var dice uint64

// roll returns a number that is different each time, and the same in each run of a schedule.
func roll() uint64 {
	dice += 0x9e3779b97f4a7c15
	return dice
}
