package valkey

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/moat-gateway/moat/guard/budget"
)

// kept is how long the accounts of a period that is over are there for calls that began in it.
const kept = int64(time.Hour / time.Second)

// Budgets is a budget.Store in the servers of a Store, for all processes that share it. Use
// Store.Budgets.
type Budgets struct {
	s    *Store
	root string // which all names begin with
	slot int
}

var _ budget.Store = (*Budgets)(nil)

// Budgets returns the store of budgets. It ends with the Store. Each call makes one round
// trip, and waits for it at most for the timeout.
func (s *Store) Budgets() *Budgets {
	root := s.cfg.Prefix + ":{budgets}"
	return &Budgets{s, root, slotOf(root)}
}

func (b *Budgets) stop() string { return b.root + ":stop" }

// names are those of the accounts of a budget in a period, and of those that have used most.
func (b *Budgets) names(name string, per budget.Period, span budget.Span) (accounts, top string) {
	accounts = b.root + ":" + per.String() + ":" + strconv.FormatInt(span.Start, 10) + ":" + string(appendEscaped(nil, name))
	return accounts, accounts + ":top"
}

// orderOf is the unit by which those are found who have used most: that of the cap that costs most.
func orderOf(limit budget.Amount) budget.Unit {
	for _, u := range [...]budget.Unit{budget.Spend, budget.Tokens, budget.Bytes} {
		if limit.Of(u) > 0 {
			return u
		}
	}
	return budget.Requests
}

func (a *arguments) amount(n budget.Amount) {
	for _, u := range [...]budget.Unit{budget.Requests, budget.Bytes, budget.Tokens, budget.Spend} {
		a.number(n.Of(u))
	}
}

// Reserve implements budget.Store, on the server's clock.
func (b *Budgets) Reserve(ctx context.Context, demands []budget.Demand, results []budget.Result) (bool, error) {
	return b.reserveAt(ctx, time.Now(), demands, results)
}

func (b *Budgets) reserveAt(ctx context.Context, now time.Time, demands []budget.Demand, results []budget.Result) (bool, error) {
	for range 2 {
		c := b.reserve(now, demands, results)
		if err := b.s.call(ctx, b.slot, c); err != nil {
			return false, err
		}
		switch {
		case len(c.reply) == 2 && c.reply[0] == 2:
			return false, budget.ErrStopped
		case len(c.reply) == 2 && c.reply[0] == 3:
			now = time.Unix(c.reply[1], 0) // here it is another hour, day or month than there
			continue
		case len(c.reply) != 2+6*len(demands):
			return false, &unavailable{errReply}
		}
		for i := range demands {
			n := c.reply[2+6*i:]
			results[i].Used = budget.Amount{Requests: n[0], Bytes: n[1], Tokens: n[2], Money: budget.Money(n[3])}
			results[i].Lacks = budget.Unit(n[4]) //nolint:gosec // 0 to 4.
			if n[5] == 1 {
				results[i].Account.Who = budget.Others
			}
		}
		return c.reply[0] == 1, nil
	}
	return false, &unavailable{errPeriod}
}

func (b *Budgets) reserve(now time.Time, demands []budget.Demand, results []budget.Result) *call {
	keys := make([]string, 1, 1+2*len(demands))
	keys[0] = b.stop()
	var args arguments
	args.number(budget.MaxAccounts)
	args.word(budget.Others)
	for i := range demands {
		d := &demands[i]
		span := d.Rule.Per.At(now, d.Rule.Zone)
		results[i] = budget.Result{Account: budget.Account{Budget: d.Rule.Name, Per: d.Rule.Per, Span: span, Who: d.Who, Order: orderOf(d.Rule.Cap)}}
		accounts, top := b.names(d.Rule.Name, d.Rule.Per, span)
		keys = append(keys, accounts, top)
		args.word(d.Who)
		args.number(span.Start)
		args.number(span.End)
		args.number(span.End + kept)
		if d.Force {
			args.word("f")
		} else {
			args.word("")
		}
		args.number(int64(orderOf(d.Rule.Cap)))
		args.amount(d.Rule.Cap)
		args.amount(d.Take)
	}
	return newCall(reserveBudgets, keys, args.strings())
}

// Settle implements budget.Store. What is given back is never given back twice, if that means that it
// is not given back at all; what is added is added at least once, if the server can be asked.
func (b *Budgets) Settle(ctx context.Context, changes []budget.Change) error {
	keys := make([]string, 0, 2*len(changes))
	var args arguments
	less := false
	for i := range changes {
		at, add := &changes[i].Account, changes[i].Add
		accounts, top := b.names(at.Budget, at.Per, at.Span)
		keys = append(keys, accounts, top)
		args.word(at.Who)
		args.number(int64(max(at.Order, budget.Requests)))
		args.amount(add)
		less = less || add.Floor() != add
	}
	c := newCall(settleBudgets, keys, args.strings())
	c.givesBack, c.wanted = less, true
	return b.s.call(ctx, b.slot, c)
}

// Usage implements budget.Store. The accounts that have used most are the first by the unit of the
// budget that costs most.
func (b *Budgets) Usage(ctx context.Context, r *budget.Rule, n int) (budget.Usage, error) {
	out := budget.Usage{Span: r.Per.At(time.Now(), r.Zone)}
	accounts, top := b.names(r.Name, r.Per, out.Span)
	c := newCall(useBudget, []string{accounts, top}, []string{strconv.Itoa(n)})
	c.words = true
	if err := b.s.call(ctx, b.slot, c); err != nil {
		return out, err
	}
	var all string
	var rows json.RawMessage
	if len(c.reply) != 1 || json.Unmarshal([]byte(c.word), &[]any{&all, &rows}) != nil {
		return out, &unavailable{errReply}
	}
	var err error
	if out.Used, err = readAmount(all); err != nil {
		return out, err
	}
	if out.Accounts = int(c.reply[0]); r.By != budget.BySite && out.Accounts > 0 {
		out.Accounts-- // that of all together
	}
	var most [][2]string
	if string(rows) != "{}" && json.Unmarshal(rows, &most) != nil { // Lua has no empty list
		return out, &unavailable{errReply}
	}
	for _, row := range most {
		used, err := readAmount(row[1])
		if err != nil {
			return out, err
		}
		if used != (budget.Amount{}) {
			out.Top = append(out.Top, budget.Spender{Who: row[0], Used: used})
		}
	}
	slices.SortStableFunc(out.Top, func(x, y budget.Spender) int {
		switch {
		case x.Used.More(y.Used):
			return -1
		case y.Used.More(x.Used):
			return 1
		}
		return strings.Compare(x.Who, y.Who)
	})
	return out, nil
}

func readAmount(text string) (a budget.Amount, err error) {
	if text == "" {
		return a, nil
	}
	if _, err = fmt.Sscan(text, &a.Requests, &a.Bytes, &a.Tokens, (*int64)(&a.Money)); err != nil {
		err = &unavailable{errReply}
	}
	return a, err
}

// Reset implements budget.Store.
func (b *Budgets) Reset(ctx context.Context, r *budget.Rule, who string) (bool, error) {
	accounts, top := b.names(r.Name, r.Per, r.Per.At(time.Now(), r.Zone))
	c := newCall(resetBudget, []string{accounts, top}, []string{who})
	if err := b.s.call(ctx, b.slot, c); err != nil {
		return false, err
	}
	return len(c.reply) == 1 && c.reply[0] == 1, nil
}

// Stop implements budget.Store. It holds for the next call of each process: the switch is looked at by
// the script that decides.
func (b *Budgets) Stop(ctx context.Context, on bool) error {
	word := "off"
	if on {
		word = "on"
	}
	return b.s.call(ctx, b.slot, newCall(stopBudgets, []string{b.stop()}, []string{word}))
}

// Stopped implements budget.Store.
func (b *Budgets) Stopped(ctx context.Context) (time.Time, error) {
	c := newCall(stopBudgets, []string{b.stop()}, []string{""})
	if err := b.s.call(ctx, b.slot, c); err != nil {
		return time.Time{}, err
	}
	switch {
	case len(c.reply) != 1:
		return time.Time{}, &unavailable{errReply}
	case c.reply[0] == 0:
		return time.Time{}, nil
	}
	return time.Unix(c.reply[0], 0).UTC(), nil
}
