package model

import (
	"cmp"
	"math"
	"math/bits"
)

// Price is what a million tokens cost, in billionths of the currency's unit: $0.25 is 250e6.
type Price struct {
	Input, Output int64
	// CacheRead is the price of input that the provider had kept from an earlier call, and
	// CacheWrite that of input which it is asked to keep. 0 in CacheWrite refuses to ask; what a provider keeps unasked costs
	// what any input does then.
	CacheRead, CacheWrite int64
}

// MaxPrice is the highest price: 10,000 for a million tokens.
const MaxPrice = 10_000 * 1e9

// maxFigure is the most of a figure that is believed: no call takes a billion tokens.
const maxFigure = 1 << 30

// Usage is what a call takes, in tokens. No token counts twice.
type Usage struct{ Input, CacheRead, CacheWrite, Output int64 }

// Tokens are all of them.
func (u Usage) Tokens() int64 { return u.Input + u.CacheRead + u.CacheWrite + u.Output }

// Cost is what the tokens cost, in billionths of the currency's unit, rounded up.
func (p Price) Cost(u Usage) int64 {
	var hi, lo uint64
	for _, x := range [...][2]int64{{u.Input, p.Input}, {u.CacheRead, p.CacheRead}, {u.CacheWrite, cmp.Or(p.CacheWrite, p.Input)}, {u.Output, p.Output}} {
		h, l := bits.Mul64(uint64(max(x[0], 0)), uint64(max(x[1], 0)))
		var carry uint64
		lo, carry = bits.Add64(lo, l, 0)
		hi, _ = bits.Add64(hi, h, carry)
	}
	if hi >= 1e6 {
		return math.MaxInt64
	}
	cost, rest := bits.Div64(hi, lo, 1e6)
	if rest > 0 {
		cost++
	}
	return int64(min(cost, math.MaxInt64))
}
