package jwt

import "github.com/moat-gateway/moat/guard/identity/internal/recent"

// tokens remembers what checks have found, by the SHA-256 of the whole token. What was good
// and what was bad are apart, so that a flood of bad tokens pushes out no good one.
type tokens struct {
	size int // bytes
	good *recent.Table[*entry]
	bad  *recent.Table[*refusal]
}

const shards = 16

func newTokens(size int) *tokens {
	return &tokens{size, recent.New[*entry](size/8*7, shards), recent.New[*refusal](size/8, shards)}
}

// slotCost is about what a table takes for a value beside it.
const slotCost = 160

// sizeOf is about how many bytes a claim takes in memory.
func sizeOf(v any) int {
	n := 16
	switch v := v.(type) {
	case string:
		n += 16 + len(v)
	case []any:
		n += 24
		for _, e := range v {
			n += sizeOf(e)
		}
	case map[string]any:
		n += 48 + 8*40 // a map has room for 8 at least
		for name, e := range v {
			n += 40 + len(name) + sizeOf(e)
		}
	}
	return n
}
