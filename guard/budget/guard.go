package budget

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/moat-gateway/moat/guard"
	"github.com/moat-gateway/moat/guard/identity"
	"github.com/moat-gateway/moat/web"
)

// Policy is what one route's calls may spend.
type Policy struct {
	// Rules all hold at once: a call that one of them refuses costs the others nothing.
	Rules []Rule
	// InFlight counts for AtOnce. Guards that share Rules share it; nil stands for one of the
	// Guard's own.
	InFlight *InFlight
}

// Guard is a compiled Policy: immutable, and safe for concurrent use. Its memory is in its Store.
type Guard struct {
	rules    []Rule
	store    Store
	inFlight *InFlight
	bytes    bool // some rule counts them
}

// New compiles a Policy.
func New(p Policy, s Store) (*Guard, error) {
	g := &Guard{rules: slices.Clone(p.Rules), store: s, inFlight: p.InFlight}
	if g.inFlight == nil {
		g.inFlight = new(InFlight)
	}
	var errs []error
	for i := range g.rules {
		r := &g.rules[i]
		if err := r.Check(); err != nil {
			errs = append(errs, fmt.Errorf("%q: %w", r.Name, err))
		}
		if slices.ContainsFunc(g.rules[:i], func(other Rule) bool { return other.Name == r.Name }) {
			errs = append(errs, fmt.Errorf("%q: named twice", r.Name))
		}
		g.bytes = g.bytes || r.Cap.Bytes > 0
	}
	// What is a caller's own is asked first, so that a call which has no room of its own is told so,
	// and not that the site has none.
	slices.SortStableFunc(g.rules, func(a, b Rule) int { return int(a.By) - int(b.By) })
	return g, errors.Join(errs...)
}

// Has reports whether a budget of that name holds here.
func (g *Guard) Has(name string) bool {
	return slices.ContainsFunc(g.rules, func(r Rule) bool { return r.Name == name })
}

// Facts are what a request is counted by.
type Facts struct {
	// Client is the client's address, as package clientaddr tells it. Clients whose address is not
	// known are counted as one.
	Client netip.Addr
	// Visitor is the chain of tickets that the request belongs to, or zero.
	Visitor [8]byte
	// Caller is who makes the request, or nil if that is not known.
	Caller *identity.Principal
	// Report counts what is refused all the same, because it is not refused in fact.
	Report bool
}

// who is the name of the account that a request is counted by.
func (r *Rule) who(f *Facts) string {
	switch {
	case r.By == BySite:
		return ""
	case r.By == ByNetwork:
		return addressText(web.Network(f.Client, 24, 48))
	case r.By == ByVisitor && f.Visitor != [8]byte{}:
		return "visitor=" + hex.EncodeToString(f.Visitor[:])
	case r.By == ByPrincipal && f.Caller != nil:
		return "principal=" + nameOf(f.Caller.ID())
	}
	return addressText(web.Narrowest(f.Client))
}

func addressText(p netip.Prefix) string {
	switch {
	case !p.IsValid():
		return "unknown"
	case p.IsSingleIP():
		return p.Addr().String()
	}
	return p.String()
}

// maxName is how long a name may be before its hash stands for it, in bytes.
const maxName = 128

// nameOf writes an id so that it is one word that can be printed. No two ids are written alike.
func nameOf(id string) string {
	if len(id) > maxName {
		sum := sha256.Sum256([]byte(id))
		return "~" + hex.EncodeToString(sum[:16])
	}
	var b []byte
	for i := range len(id) {
		if c := id[i]; c <= ' ' || c >= 0x7f || c == '%' || c == '~' {
			b = fmt.Appendf(b, "%%%02X", c)
		} else {
			b = append(b, c)
		}
	}
	return string(b)
}

// Decide sets one request aside in each budget, and refuses where nothing is left of one of its
// units, or too many calls are under way. The Grant is never nil, and is to be released when the
// request is over.
func (g *Guard) Decide(f Facts) (*Grant, guard.Decision) {
	gr := &Grant{g: g, report: f.Report}
	gr.demands, gr.begun = gr.roomD[:0], gr.roomR[:0]
	for i := range g.rules {
		gr.demands = append(gr.demands, Demand{Rule: &g.rules[i], Who: g.rules[i].who(&f), Take: Amount{Requests: 1}, Force: f.Report})
		gr.begun = append(gr.begun, Result{})
	}
	d := gr.enter()
	if d.Denied() && !f.Report {
		gr.begun = nil
		return gr, d
	}
	if s := gr.reserve(gr.begun); s.Denied() {
		if !gr.counted {
			gr.begun = nil
		}
		return gr, s
	} else if !d.Denied() {
		d = s
	}
	return gr, d
}

// Grant is what the budgets have set aside for one request. A nil Grant has no budgets: it
// reserves nothing and refuses nothing.
type Grant struct {
	g       *Guard
	report  bool
	demands []Demand
	begun   []Result // of Decide
	entered []spender
	refusal Refusal
	bytes   atomic.Int64 // that have passed

	mu      sync.Mutex
	held    []Result // of Reserve
	most    Amount   // that was reserved
	sent    bool
	settled bool
	counted bool // the last reserve has taken something
	failed  error

	// Few routes have more than two budgets: one allocation does for all of it.
	roomD [3]Demand
	roomR [3]Result
}

// Refusal is why a call was refused, for whoever made it.
type Refusal struct {
	Budget string
	Unit   Unit
	// Reset is when the budget begins anew; zero where that does not help.
	Reset time.Time
	// Left is what is left of the caller's own budget, if the rule tells it; or nil.
	Left *Amount
}

// Refused is what was refused last, or nil.
func (gr *Grant) Refused() *Refusal {
	if gr == nil || gr.refusal.Unit == 0 {
		return nil
	}
	return &gr.refusal
}

// Failed is why the Store could not count, or be told what was really taken; or nil.
func (gr *Grant) Failed() error {
	if gr == nil {
		return nil
	}
	gr.mu.Lock()
	defer gr.mu.Unlock()
	return gr.failed
}

// enter counts the request among those under way.
func (gr *Grant) enter() (d guard.Decision) {
	for i := range gr.demands {
		r, who := gr.demands[i].Rule, gr.demands[i].Who
		if r.AtOnce == 0 {
			continue
		}
		s := spender{r.Name, who}
		room, entered := gr.g.inFlight.enter(s, r.AtOnce, gr.report)
		if entered {
			gr.entered = append(gr.entered, s)
		}
		if !room && !d.Denied() {
			gr.refusal = Refusal{Budget: r.Name, Unit: AtOnce}
			d = guard.Denial(guard.BudgetTooManyAtOnce, "budget "+r.Name, whoText(who), fmt.Sprintf("at most %d at once", r.AtOnce))
			if !gr.report {
				gr.leave()
				return d
			}
		}
	}
	return d
}

func (gr *Grant) leave() {
	for _, s := range gr.entered {
		gr.g.inFlight.leave(s)
	}
	gr.entered = nil
}

func whoText(who string) string {
	if who == "" {
		return "everybody"
	}
	return who
}

// reserve takes what the demands ask for. In report mode it does so whether there is room or not.
func (gr *Grant) reserve(results []Result) guard.Decision {
	gr.counted = false
	if len(gr.demands) == 0 {
		return guard.Decision{}
	}
	// The client may go meanwhile, and it has to be known what has been taken, or nobody gives it back. Stores bound the wait.
	ok, err := gr.g.store.Reserve(context.Background(), gr.demands, results)
	switch {
	case errors.Is(err, ErrStopped):
		return guard.Denial(guard.BudgetStopped, "the kill switch", "on", "off")
	case err != nil:
		gr.failed = err
		return guard.Denial(guard.BudgetUnavailable, "the budgets' store", err.Error(), "a store that counts")
	}
	gr.counted = ok || gr.report
	if ok {
		return guard.Decision{Reason: guard.BudgetSettled}
	}
	i := slices.IndexFunc(results, func(r Result) bool { return r.Lacks != 0 })
	return gr.refuse(gr.demands[i].Rule, &results[i], gr.demands[i].Take)
}

func (gr *Grant) refuse(r *Rule, res *Result, take Amount) guard.Decision {
	used, unit := res.Used, res.Lacks
	if gr.report {
		used = used.Minus(take)
	}
	end := time.Unix(res.Account.Span.End, 0).UTC()
	gr.refusal = Refusal{Budget: r.Name, Unit: unit, Reset: end}
	if r.TellLeft {
		left := r.counts(r.Cap.Minus(used)).Floor()
		gr.refusal.Left = &left
	}
	reason := guard.BudgetSpent
	if r.By == BySite {
		reason = guard.BudgetSpentTogether
	}
	got := whoText(res.Account.Who) + ": " + used.Text(unit) + " used"
	if take.Of(unit) > 0 && unit != Requests {
		got += ", and " + take.Text(unit) + " asked for"
	}
	want := fmt.Sprintf("at most %s in this %s, which ends at %s", r.Cap.Text(unit), r.Per, end.Format(time.RFC3339))
	return guard.Denial(reason, "budget "+r.Name, got, want)
}

// Reserve sets more aside, once: the most that the call may take. All budgets have room, or nothing
// is taken and the call is refused.
func (gr *Grant) Reserve(most Amount) guard.Decision {
	if gr == nil {
		return guard.Decision{}
	}
	gr.mu.Lock()
	defer gr.mu.Unlock()
	if gr.held != nil || gr.settled {
		panic("budget: Reserve: called before")
	}
	for i := range gr.demands {
		gr.demands[i].Take = gr.demands[i].Rule.counts(most)
	}
	held := make([]Result, len(gr.demands))
	d := gr.reserve(held)
	if gr.counted {
		gr.held, gr.most = held, most
	}
	return d
}

// Sent says that the call is on its way to whom it costs something: from now on what is reserved
// stays spent unless Settle says otherwise.
func (gr *Grant) Sent() {
	if gr == nil {
		return
	}
	gr.mu.Lock()
	defer gr.mu.Unlock()
	gr.sent = true
}

// Settle puts what the call has really taken in the place of what was reserved, which may be more or
// less. Only the first Settle counts. One that nothing was reserved for takes it.
func (gr *Grant) Settle(took Amount) {
	if gr == nil {
		return
	}
	gr.mu.Lock()
	defer gr.mu.Unlock()
	gr.settle(took)
}

func (gr *Grant) settle(took Amount) {
	if gr.settled {
		return
	}
	gr.settled = true
	if gr.held != nil {
		gr.change(gr.held, took.Minus(gr.most))
	} else {
		gr.change(gr.begun, took)
	}
}

// change adds to the accounts that results were taken from.
func (gr *Grant) change(results []Result, add Amount) {
	var changes []Change
	for i := range results {
		if a := gr.demands[i].Rule.counts(add); a != (Amount{}) {
			changes = append(changes, Change{results[i].Account, a})
		}
	}
	gr.write(changes)
}

func (gr *Grant) write(changes []Change) {
	if len(changes) == 0 {
		return
	}
	// The client may have gone, and it has to be written all the same. Stores bound the wait.
	if err := gr.g.store.Settle(context.Background(), changes); err != nil {
		gr.failed = fmt.Errorf("not settled: %w", err)
	}
}

// giveBack returns the request itself to the budgets of the site. All share them, and nobody is to use them up with
// requests that cost him nothing because they are refused for what is in them.
func (gr *Grant) giveBack() {
	var changes []Change
	for i := range gr.begun {
		if gr.demands[i].Rule.By == BySite {
			changes = append(changes, Change{gr.begun[i].Account, Amount{Requests: -1}})
		}
	}
	gr.write(changes)
}

// Count returns a body that counts what is read of it, if a budget counts bytes; or the body itself.
func (gr *Grant) Count(body io.ReadCloser) io.ReadCloser {
	if !gr.CountsBytes() || body == nil {
		return body
	}
	return &counted{body, gr}
}

// CountsBytes reports whether a budget counts bytes.
func (gr *Grant) CountsBytes() bool { return gr != nil && gr.g.bytes }

// Passed counts bytes that have passed. They are settled when the Grant is released.
func (gr *Grant) Passed(n int64) {
	if gr != nil {
		gr.bytes.Add(n)
	}
}

type counted struct {
	io.ReadCloser
	gr *Grant
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	c.gr.bytes.Add(int64(n))
	return n, err
}

// Release ends the call, once. Bytes are settled. If nothing was sent, what was reserved and not settled is given back, and to
// the site the request; else it stays spent.
func (gr *Grant) Release() {
	if gr == nil {
		return
	}
	gr.mu.Lock()
	defer gr.mu.Unlock()
	if gr.held != nil && !gr.sent {
		gr.settle(Amount{})
	}
	if n := gr.bytes.Swap(0); n > 0 && gr.begun != nil {
		gr.change(gr.begun, Amount{Bytes: n})
	}
	if !gr.sent && gr.failed == nil {
		gr.giveBack()
	}
	gr.begun = nil
	gr.leave()
}
