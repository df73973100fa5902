package budget

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Money is an amount of a currency in billionths of its unit: $1 is 1e9.
type Money int64

// MaxAmount is the most that can be capped and counted of any unit: what a Lua number holds
// exactly, with room for what calls under way add.
const MaxAmount = 1 << 52

const moneyDigits = 9

// ParseMoney reads a plain decimal number of the currency's unit, such as 0.05.
func ParseMoney(s string) (Money, error) {
	whole, part, dotted := strings.Cut(s, ".")
	if len(part) > moneyDigits {
		return 0, fmt.Errorf("more than %d digits behind the point", moneyDigits)
	}
	if whole == "" || dotted && part == "" || strings.Trim(whole+part, "0123456789") != "" {
		return 0, errors.New("not an amount of money; write a number such as 0.05")
	}
	n, err := strconv.ParseInt(whole+part+strings.Repeat("0", moneyDigits-len(part)), 10, 64)
	if err != nil || n > MaxAmount {
		return 0, fmt.Errorf("larger than %s", Money(MaxAmount))
	}
	return Money(n), nil
}

// String is the amount as ParseMoney reads it.
func (m Money) String() string {
	sign, n := "", uint64(m) //nolint:gosec // what is negative is turned below.
	if m < 0 {
		sign, n = "-", -n
	}
	s := fmt.Sprintf("%s%d.%09d", sign, n/1e9, n%1e9)
	return strings.TrimSuffix(strings.TrimRight(s, "0"), ".")
}

// MarshalJSON writes the amount as a number.
func (m Money) MarshalJSON() ([]byte, error) { return []byte(m.String()), nil }

// UnmarshalJSON reads what MarshalJSON has written.
func (m *Money) UnmarshalJSON(b []byte) error {
	s, negative := strings.CutPrefix(string(b), "-")
	n, err := ParseMoney(s)
	if negative {
		n = -n
	}
	*m = n
	return err
}

// Amount is what calls take of a budget.
type Amount struct {
	Requests int64 `json:"requests,omitempty"`
	Bytes    int64 `json:"bytes,omitempty"`
	Tokens   int64 `json:"tokens,omitempty"`
	Money    Money `json:"spend,omitempty"`
}

// Unit is what is counted.
type Unit uint8

// The units. The zero Unit is none.
const (
	Requests Unit = iota + 1
	Bytes
	Tokens
	Spend
	// AtOnce is not counted in a Store: calls under way end by themselves.
	AtOnce
)

// Units are those that Stores count.
func Units() []Unit { return []Unit{Requests, Bytes, Tokens, Spend} }

func (u Unit) String() string {
	switch u {
	case Requests:
		return "requests"
	case Bytes:
		return "bytes"
	case Tokens:
		return "tokens"
	case Spend:
		return "spend"
	case AtOnce:
		return "at_once"
	}
	return fmt.Sprintf("Unit(%d)", uint8(u))
}

// Of is how much there is of a unit.
func (a Amount) Of(u Unit) int64 {
	switch u {
	case Requests:
		return a.Requests
	case Bytes:
		return a.Bytes
	case Tokens:
		return a.Tokens
	case Spend:
		return int64(a.Money)
	case AtOnce:
	}
	return 0
}

// Text is how much there is of a unit, in words.
func (a Amount) Text(u Unit) string {
	if u == Spend {
		return a.Money.String() + " of " + u.String()
	}
	return strconv.FormatInt(a.Of(u), 10) + " " + u.String()
}

// Plus adds. What is beyond any cap stays there.
func (a Amount) Plus(b Amount) Amount {
	return Amount{plus(a.Requests, b.Requests), plus(a.Bytes, b.Bytes), plus(a.Tokens, b.Tokens), Money(plus(int64(a.Money), int64(b.Money)))}
}

func plus(a, b int64) int64 {
	switch {
	case b > 0 && a > math.MaxInt64-b:
		return math.MaxInt64
	case b < 0 && a < math.MinInt64-b:
		return math.MinInt64
	}
	return a + b
}

// Minus subtracts.
func (a Amount) Minus(b Amount) Amount {
	return a.Plus(Amount{-b.Requests, -b.Bytes, -b.Tokens, -b.Money})
}

// Floor is a without what is less than nothing.
func (a Amount) Floor() Amount {
	return Amount{max(a.Requests, 0), max(a.Bytes, 0), max(a.Tokens, 0), max(a.Money, 0)}
}

// Lacks is the first unit of which a budget with that cap, of which so much has been used, has no
// room for what is to be taken; or 0. What is 0 in the cap is not capped. A new request, which takes one
// of Requests, needs something left of every unit: what it will take of the others is not known yet.
func Lacks(limit, used, take Amount) Unit {
	for _, u := range [...]Unit{Requests, Bytes, Tokens, Spend} {
		most, t := limit.Of(u), take.Of(u)
		if most == 0 || t <= 0 && take.Requests == 0 {
			continue
		}
		if left := most - used.Of(u); left <= 0 || t > left {
			return u
		}
	}
	return 0
}
