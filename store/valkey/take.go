package valkey

import (
	"context"
	"sync"
	"time"

	"github.com/moat-gateway/moat/guard/ratelimit"
)

// shape is a limit as the script reads it, in microseconds.
func shape(l ratelimit.Limit) (full, interval int64) {
	if !l.Admits(1) {
		return 0, 1
	}
	interval, _ = l.Take(0, 0, 1)
	full, _ = l.Charge(0, 0, burst(l)+1)
	return full, interval
}

func burst(l ratelimit.Limit) int {
	if l.Burst == 0 {
		return l.Count
	}
	return l.Burst
}

// cost is that of a demand, but no more than can never be allowed: what it is multiplied
// with must not overflow.
func cost(d *ratelimit.Demand) int { return min(max(d.Cost, 0), burst(d.Limit)+1) }

// apply answers a demand that counts, for a key with that debt.
func apply(d *ratelimit.Demand, debt int64) (next int64, r ratelimit.Result) {
	if d.Force {
		return d.Limit.Charge(debt, 0, cost(d))
	}
	return d.Limit.Take(debt, 0, cost(d))
}

// taking is a Take on its way.
type taking struct {
	s       *Store
	demands []ratelimit.Demand
	results []ratelimit.Result
	charge  bool
	asked   int64   // when, on the Store's clock
	as      version // of the ledger, then

	notes []note
	// isNew is whether the first demand's key is new, once that is known.
	isNew, knowsNew bool
	args            arguments
}

// note is what a Take has found out about one demand. Debts are in microseconds.
type note struct {
	name  string
	slot  int
	state state
	more  int   // for how many requests a lease was asked for
	gave  int   // how many it got
	now   int64 // on the server's clock
	at    int64 // the same, on the Store's clock
	first int64 // the debt before this Take
	debt  int64 // the debt after this demand
	added int64 // by this demand
}

type state uint8

const (
	open     state = iota // to be asked for
	skipped               // does not count
	leased                // admitted from a lease
	foreseen              // from what the server told before
	decided               // by the server
)

var (
	takings = sync.Pool{New: func() any { return new(taking) }}
	timers  = sync.Pool{New: func() any { return time.NewTimer(time.Hour) }}
)

func (s *Store) decide(ctx context.Context, demands []ratelimit.Demand, results []ratelimit.Result, charge bool) (bool, error) {
	t, _ := takings.Get().(*taking)
	defer func() {
		t.demands, t.results = nil, nil
		takings.Put(t)
	}()
	*t = taking{s: s, demands: demands, results: results, charge: charge, asked: s.clock(), as: s.ledger.version(), notes: t.notes[:0], args: t.args}
	for range demands {
		t.notes = append(t.notes, note{})
	}
	if t.refusedHere() {
		s.stats.localRefusals.Add(1)
		return false, nil
	}
	if t.admitHere() {
		if charge {
			s.stats.localAdmissions.Add(1)
		}
		return true, nil
	}
	if ctx.Err() != nil {
		return false, &unavailable{context.Cause(ctx)}
	}
	deadline, _ := timers.Get().(*time.Timer)
	deadline.Reset(s.cfg.Timeout)
	defer func() {
		deadline.Stop()
		timers.Put(deadline)
	}()
	return t.askAll(ctx, deadline)
}

// refusedHere refuses what the server is known to refuse, if enough is known to say what
// became of the other demands.
func (t *taking) refusedHere() bool {
	if !t.charge {
		return false
	}
	refused := false
	for i := range t.demands {
		d := &t.demands[i]
		if d.IfNew {
			// Only a first key that is new would have it count, and that is not known.
			if i == 0 || t.results[0].New {
				return false
			}
			t.results[i] = ratelimit.Result{Allowed: true}
			continue
		}
		r, known := t.s.ledger.foresee(d, t.asked)
		if !known {
			return false
		}
		t.results[i] = r
		refused = refused || !r.Allowed
	}
	if !refused {
		return false
	}
	for i := range t.demands {
		if d := &t.demands[i]; !d.IfNew && t.results[i].Allowed {
			t.results[i] = t.s.ledger.look(d, t.asked)
		}
	}
	return true
}

// admitHere admits from leases, and reports whether nothing else is left to ask for.
func (t *taking) admitHere() bool {
	all := true
	for i := range t.demands {
		d, n := &t.demands[i], &t.notes[i]
		if d.IfNew && t.skip(i) {
			continue
		}
		if d.Lease > 0 && d.Cost > 0 && !d.Force && (!d.IfNew || t.knowsNew) {
			if r, ok := t.s.ledger.spend(d, t.asked, t.charge); ok {
				t.results[i], n.state = r, leased
				if i == 0 {
					t.isNew, t.knowsNew = r.New, true
				}
				continue
			}
		}
		all = false
	}
	return all
}

// skip settles an IfNew demand if it is known not to count.
func (t *taking) skip(i int) bool {
	if !t.knowsNew || t.isNew {
		return false
	}
	t.results[i] = ratelimit.Result{Allowed: true}
	t.notes[i].state = skipped
	return true
}

// askAll asks the server for what is left. In a cluster a script can only reach the keys
// of one slot, so it asks slot after slot, and gives back what it was given if a later one
// refuses or fails.
func (t *taking) askAll(ctx context.Context, deadline *time.Timer) (bool, error) {
	for i := range t.demands {
		if n := &t.notes[i]; n.state == open {
			n.name = keyName(t.s.cfg.Prefix, t.demands[i].Key)
			if t.s.cfg.Mode == Cluster {
				n.slot = slotOf(n.name)
			}
		}
	}
	ok := true
	for i := 0; ok && i < len(t.demands); i++ {
		if t.notes[i].state != open {
			continue
		}
		var err error
		if ok, err = t.askSlot(ctx, deadline, i); err != nil {
			t.giveBack(ctx, nil)
			return false, err
		}
	}
	if !ok {
		t.giveBack(ctx, deadline)
		t.refused(ctx, deadline)
		return false, nil
	}
	for i := range t.demands {
		d, n := &t.demands[i], &t.notes[i]
		switch {
		case n.more > 0:
			t.s.ledger.grant(d, n.gave, n.debt, n.at, t.as)
		case n.state == decided && t.charge:
			t.s.ledger.update(d, n.debt, n.at, t.as)
		}
	}
	return true, nil
}

// giveBack gives back what was taken before something was refused or failed. Without a
// deadline it does not wait until the server has it.
func (t *taking) giveBack(ctx context.Context, deadline *time.Timer) {
	if !t.charge {
		return
	}
	for i := range t.demands {
		d, n := &t.demands[i], &t.notes[i]
		if n.state == leased {
			t.s.ledger.unspend(d)
		}
		if n.more > 0 {
			t.s.ledger.grant(d, 0, 0, 0, t.as)
		}
	}
	for i := range t.notes {
		if t.notes[i].added > 0 {
			t.giveBackSlot(ctx, deadline, i)
		}
	}
}

func (t *taking) giveBackSlot(ctx context.Context, deadline *time.Timer, first int) {
	slot := t.notes[first].slot
	var keys []string
	t.args.buf, t.args.ends = t.args.buf[:0], t.args.ends[:0]
	for i := first; i < len(t.notes); i++ {
		n := &t.notes[i]
		if n.slot != slot || n.added == 0 {
			continue
		}
		added := n.added
		for j := i + 1; j < len(t.notes); j++ { // the same key once more
			if t.notes[j].name == n.name {
				added += t.notes[j].added
				t.notes[j].added = 0
			}
		}
		n.added = 0
		keys = append(keys, n.name)
		t.s.ledger.doubt(t.demands[i].Key)
		defer t.s.ledger.doubt(t.demands[i].Key)
		t.args.number(added)
		t.args.number(n.now + n.first)
	}
	c := newCall(giveBack, keys, t.args.strings())
	c.givesBack = true
	if deadline == nil {
		t.s.lane(slot).post(c)
		return
	}
	t.s.lane(slot).do(ctx, deadline, c) //nolint:errcheck // the client has paid for nothing, and its debt will be forgotten.
}

// refused fills in the results of the other demands: what is not charged leaves the room
// as it is. It also remembers what the server told, so that the next refusal costs nothing.
func (t *taking) refused(ctx context.Context, deadline *time.Timer) {
	charge := t.charge
	t.charge = false
	for i := range t.demands {
		d, n := &t.demands[i], &t.notes[i]
		if n.state == open {
			if r, known := t.s.ledger.foresee(d, t.asked); known && !d.IfNew {
				t.results[i], n.state = r, foreseen
			} else if _, err := t.askSlot(ctx, deadline, i); err != nil {
				t.results[i], n.state = ratelimit.Result{Allowed: true}, foreseen
			}
		}
		switch n.state {
		case decided:
			if t.results[i].Allowed {
				_, t.results[i] = d.Limit.Take(n.first, 0, 0)
			}
			if charge {
				t.s.ledger.remember(d, n.first, n.at, t.as)
			}
		case foreseen, leased:
			if t.results[i].Allowed {
				t.results[i] = t.s.ledger.look(d, t.asked)
			}
		case open, skipped:
		}
	}
}

// askSlot asks for all that has the same slot as the first.
func (t *taking) askSlot(ctx context.Context, deadline *time.Timer, first int) (bool, error) {
	slot := t.notes[first].slot
	var keys []string
	t.args.buf, t.args.ends = t.args.buf[:0], t.args.ends[:0]
	if t.charge {
		t.args.word("")
	} else {
		t.args.word("1")
	}
	t.args.number(int64(t.s.Nodes()))
	for i := first; i < len(t.demands); i++ {
		d, n := &t.demands[i], &t.notes[i]
		if n.state != open || n.slot != slot || d.IfNew && t.skip(i) {
			continue
		}
		full, interval := shape(d.Limit)
		price := full + 1
		if d.Limit.Admits(cost(d)) {
			price = interval * int64(cost(d))
		}
		kind := ""
		if d.IfNew && !t.knowsNew { // then the first demand is in this script
			kind = "n"
		}
		if d.Force {
			kind += "f"
		}
		if t.charge && d.Lease > 0 && d.Cost > 0 && !d.Force && kind == "" {
			n.more = t.s.ledger.ask(d, t.asked)
		}
		t.args.number(full)
		t.args.number(interval)
		t.args.number(price)
		t.args.word(kind)
		t.args.number(int64(n.more))
		keys = append(keys, n.name)
	}
	if len(keys) == 0 {
		return true, nil
	}
	c := newCall(take, keys, t.args.strings())
	if err := t.s.lane(slot).do(ctx, deadline, c); err != nil {
		return false, err
	}
	if len(c.reply) != 1+2*len(keys) {
		return false, &unavailable{errReply}
	}
	return t.read(first, slot, c.reply, t.s.lane(slot).ahead.locate(c.reply[0], t.asked, t.s.clock())), nil
}

// read works out what the server has decided, from what it found.
func (t *taking) read(first, slot int, reply []int64, decidedAt int64) bool {
	ok, at := true, 1
	for i := first; i < len(t.demands); i++ {
		d, n := &t.demands[i], &t.notes[i]
		if n.state != open || n.slot != slot {
			continue
		}
		found, gave := reply[at], reply[at+1]
		at += 2
		n.state, n.now, n.at, n.first, n.gave = decided, reply[0], decidedAt, found, int(gave)
		for j := range i { // the same key, earlier in this Take
			if t.notes[j].state == decided && t.notes[j].name == n.name {
				n.first = t.notes[j].first
				break
			}
		}
		if i == 0 {
			t.isNew, t.knowsNew = found == 0, true
		}
		if d.IfNew && !t.isNew {
			t.results[i] = ratelimit.Result{Allowed: true, New: found == 0}
			n.state = skipped
			continue
		}
		_, interval := shape(d.Limit)
		n.debt, t.results[i] = apply(d, found)
		n.debt += gave * interval
		n.added = n.debt - found
		ok = ok && t.results[i].Allowed
	}
	if !ok || !t.charge { // none of them was charged
		for i := first; i < len(t.notes); i++ {
			if t.notes[i].slot == slot {
				t.notes[i].added = 0
			}
		}
	}
	return ok
}
