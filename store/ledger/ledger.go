package ledger

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/moat-gateway/moat/guard/budget"
)

const (
	// aheadShare is the part of a cap by which the file is ahead.
	aheadShare = 32
	// patience is how long a call waits for the disk.
	patience = 2 * time.Second
	// tidyEvery is how often marks that are too high are lowered, and what is over is forgotten.
	tidyEvery = time.Second
	// kept is the longest that a period which is over is kept, for a clock that is set back.
	kept = 24 * time.Hour
)

// Ledger is a budget.Store for one process. Use New or Open.
type Ledger struct {
	file *file // nil if it only has memory

	// mu guards all below. It is never held while the disk is written.
	mu      sync.Mutex
	current map[currentKey]*book
	books   map[bookKey]*book
	loose   map[*account]struct{} // whose marks are far above what is used
	stopped time.Time
	unsaved bool   // the switch could not be written
	next    *batch // that is to be written next
	closed  bool
	failed  error // why the file could not be written when it was last tried

	wake chan struct{}
	done chan struct{}
}

var _ budget.Store = (*Ledger)(nil)

// currentKey finds the book of a rule's present period.
type currentKey struct {
	budget string
	per    budget.Period
	zone   *time.Location
}

type bookKey struct {
	budget string
	per    budget.Period
	span   budget.Span
}

// book has the accounts of one budget in one period.
type book struct {
	key      bookKey
	accounts map[string]*account
	total    budget.Amount
}

type account struct {
	book *book
	who  string
	// used is what has been used. The file says mark, or more; what of it is not capped it says when
	// it is written anyway.
	used, mark budget.Amount
	limit      budget.Amount // the cap when it was last asked for
	pending    bool          // it is in the next batch
}

// batch is what is written together.
type batch struct {
	accounts []*account
	drop     []bookKey
	stop     bool // the switch is written, too
	done     chan struct{}
	err      error
}

// New makes a Ledger that forgets everything when the process ends.
func New() *Ledger {
	return &Ledger{current: make(map[currentKey]*book), books: make(map[bookKey]*book), loose: make(map[*account]struct{})}
}

// Open makes a Ledger that is kept in a file, which is made if there is none: created says so. No other
// process can have the file at the same time.
func Open(path string) (l *Ledger, created bool, err error) {
	l = New()
	l.wake, l.done = make(chan struct{}, 1), make(chan struct{})
	f, err := openFile(path)
	if err != nil {
		return nil, false, err
	}
	l.file = f
	if err = f.load(l); err != nil {
		f.close()
		return nil, false, err
	}
	go l.write()
	return l, f.created, nil
}

// Durable reports whether there is a file.
func (l *Ledger) Durable() bool { return l.file != nil }

// Close writes exact figures.
func (l *Ledger) Close() error {
	if l.file == nil {
		return nil
	}
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return nil
	}
	l.closed = true
	l.mu.Unlock()
	l.notify()
	<-l.done
	l.mu.Lock()
	defer l.mu.Unlock()
	var rows []row
	for _, b := range l.books {
		for _, a := range b.accounts {
			if a.mark != a.used {
				rows = append(rows, row{a, a.used})
			}
		}
	}
	var stop *time.Time
	if l.unsaved {
		stop = &l.stopped
	}
	err := l.file.write(rows, nil, stop)
	l.file.close()
	return err
}

func (l *Ledger) notify() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// book is that of the rule's present period. It is nil if there is none and none is to be made.
func (l *Ledger) book(r *budget.Rule, now time.Time, make bool) *book {
	at := currentKey{r.Name, r.Per, r.Zone}
	if b := l.current[at]; b != nil && b.key.span.Holds(now) {
		return b
	}
	key := bookKey{r.Name, r.Per, r.Per.At(now, r.Zone)}
	b := l.books[key]
	if b == nil && make {
		l.sweep(now) // without a file nothing else does
		b = newBook(key)
		l.books[key] = b
	}
	if b != nil {
		l.current[at] = b
	}
	return b
}

func newBook(key bookKey) *book { return &book{key: key, accounts: make(map[string]*account)} }

// account is that of the name, or of all who have none of their own any more, if it exists.
func (b *book) account(who string) (*account, string) {
	a := b.accounts[who]
	if a == nil && len(b.accounts) >= budget.MaxAccounts {
		who = budget.Others
		a = b.accounts[who]
	}
	return a, who
}

// Reserve implements budget.Store.
func (l *Ledger) Reserve(ctx context.Context, demands []budget.Demand, results []budget.Result) (bool, error) {
	l.mu.Lock()
	switch {
	case l.closed:
		l.mu.Unlock()
		return false, errClosed
	case !l.stopped.IsZero():
		l.mu.Unlock()
		return false, budget.ErrStopped
	}
	now, room, force := time.Now(), true, true
	for i := range demands {
		d := &demands[i]
		b := l.book(d.Rule, now, true)
		a, who := b.account(d.Who)
		var used budget.Amount
		if a != nil {
			used = a.used
		}
		results[i] = budget.Result{
			Account: budget.Account{Budget: d.Rule.Name, Per: d.Rule.Per, Span: b.key.span, Who: who},
			Used:    used, Lacks: budget.Lacks(d.Rule.Cap, used, d.Take),
		}
		room = room && results[i].Lacks == 0
		force = force && d.Force
	}
	if !room && !force {
		l.mu.Unlock()
		return false, nil
	}
	var wait *batch
	for i := range demands {
		d, r := &demands[i], &results[i]
		b := l.books[bookKey{r.Account.Budget, r.Account.Per, r.Account.Span}]
		a := b.open(r.Account.Who)
		a.limit = d.Rule.Cap
		a.add(d.Take)
		r.Used = a.used
		if due, late := a.due(); l.file != nil && due {
			if l.schedule(a); late {
				wait = l.next
			}
		}
	}
	l.mu.Unlock()
	if wait == nil {
		return room, nil
	}
	if err := l.await(ctx, wait); err != nil {
		l.mu.Lock()
		defer l.mu.Unlock()
		for i := range demands {
			if a := l.find(results[i].Account); a != nil {
				a.add(budget.Amount{}.Minus(demands[i].Take))
			}
		}
		return false, err
	}
	return room, nil
}

// open makes the account if there is none.
func (b *book) open(who string) *account {
	a := b.accounts[who]
	if a == nil {
		a = &account{book: b, who: who}
		b.accounts[who] = a
	}
	return a
}

func (l *Ledger) find(at budget.Account) *account {
	if b := l.books[bookKey{at.Budget, at.Per, at.Span}]; b != nil {
		return b.accounts[at.Who]
	}
	return nil
}

// add changes what has been used, which does not fall below 0.
func (a *account) add(n budget.Amount) {
	before := a.used
	a.used = before.Plus(n).Floor()
	a.book.total = a.book.total.Plus(a.used.Minus(before)).Floor()
}

// ahead is by how much the file is to say more.
func (a *account) ahead() budget.Amount {
	share := func(limit, used int64) int64 {
		if limit == 0 {
			return 0
		}
		return max(min(max(limit/aheadShare, 1), limit-used), 0)
	}
	return budget.Amount{
		Requests: share(a.limit.Requests, a.used.Requests), Bytes: share(a.limit.Bytes, a.used.Bytes),
		Tokens: share(a.limit.Tokens, a.used.Tokens), Money: budget.Money(share(int64(a.limit.Money), int64(a.used.Money))),
	}
}

// due reports whether the file should soon say more of what is capped, and whether it is late: it says
// less than has been used.
func (a *account) due() (due, late bool) {
	ahead := a.ahead()
	for _, u := range [...]budget.Unit{budget.Requests, budget.Bytes, budget.Tokens, budget.Spend} {
		if a.limit.Of(u) == 0 {
			continue
		}
		left := a.mark.Of(u) - a.used.Of(u)
		due, late = due || left < ahead.Of(u)/2, late || left < 0
	}
	return due || late, late
}

// schedule has the account written with the next batch.
func (l *Ledger) schedule(a *account) {
	b := l.batch()
	if !a.pending {
		a.pending = true
		b.accounts = append(b.accounts, a)
	}
}

func (l *Ledger) batch() *batch {
	if l.next == nil {
		l.next = &batch{done: make(chan struct{})}
		l.notify()
	}
	return l.next
}

func (l *Ledger) await(ctx context.Context, b *batch) error {
	t := time.NewTimer(patience)
	defer t.Stop()
	select {
	case <-b.done:
		return b.err
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		err := fmt.Errorf("%s: not written within %s", l.file.path, patience)
		l.mu.Lock()
		defer l.mu.Unlock()
		select {
		case <-b.done: // it has just been
		default:
			l.failed = err
		}
		return err
	}
}

// Failed is why the file could not be written when it was last tried, or nil. It is tried again every second.
func (l *Ledger) Failed() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.failed
}

// write writes batch after batch: those who come while one is being written wait for the next together.
func (l *Ledger) write() {
	defer close(l.done)
	tick := time.NewTicker(tidyEvery)
	defer tick.Stop()
	for {
		select {
		case <-l.wake:
		case now := <-tick.C:
			l.tidy(now)
		}
		for l.writeNext() {
		}
		l.mu.Lock()
		over := l.closed && l.next == nil
		l.mu.Unlock()
		if over {
			return
		}
	}
}

// row is what is written of an account.
type row struct {
	account *account
	mark    budget.Amount
}

// writeNext writes the next batch, if there is one.
func (l *Ledger) writeNext() bool {
	l.mu.Lock()
	b := l.next
	l.next = nil
	if b == nil {
		l.mu.Unlock()
		return false
	}
	rows := make([]row, 0, len(b.accounts))
	for _, a := range b.accounts {
		a.pending = false
		if l.books[a.book.key] != a.book || a.book.accounts[a.who] != a {
			continue // it has been reset, or forgotten
		}
		mark := a.used.Plus(a.ahead())
		// What the file is about to say no longer holds nobody back now, and what it does not say yet
		// lets nobody through.
		a.mark = lower(a.mark, mark)
		rows = append(rows, row{a, mark})
	}
	b.stop = b.stop || l.unsaved
	stopped := l.stopped
	l.mu.Unlock()
	var stop *time.Time
	if b.stop {
		stop = &stopped
	}
	b.err = l.file.write(rows, b.drop, stop)
	l.mu.Lock()
	if l.failed = b.err; b.err == nil {
		for _, r := range rows {
			r.account.mark = r.mark
		}
	}
	if b.stop {
		l.unsaved = b.err != nil
	}
	close(b.done)
	l.mu.Unlock()
	return true
}

func lower(a, b budget.Amount) budget.Amount {
	return budget.Amount{Requests: min(a.Requests, b.Requests), Bytes: min(a.Bytes, b.Bytes), Tokens: min(a.Tokens, b.Tokens), Money: min(a.Money, b.Money)}
}

// tidy lowers marks that are too high, and forgets what is over.
func (l *Ledger) tidy(now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for a := range l.loose {
		l.schedule(a)
	}
	clear(l.loose)
	if l.unsaved || l.failed != nil {
		l.batch()
	}
	l.sweep(now)
}

// sweep forgets the books of periods that are long over.
func (l *Ledger) sweep(now time.Time) {
	for key, b := range l.books {
		if end := time.Unix(key.span.End, 0); now.Sub(end) >= min(time.Duration(key.span.End-key.span.Start)*time.Second, kept) {
			l.forget(b)
		}
	}
}

// forget drops a book.
func (l *Ledger) forget(b *book) {
	delete(l.books, b.key)
	for at, now := range l.current {
		if now == b {
			delete(l.current, at)
		}
	}
	if l.file != nil {
		next := l.batch()
		next.drop = append(next.drop, b.key)
	}
}

// Settle implements budget.Store.
func (l *Ledger) Settle(ctx context.Context, changes []budget.Change) error {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return errClosed
	}
	var wait *batch
	for _, c := range changes {
		b := l.books[bookKey{c.Account.Budget, c.Account.Per, c.Account.Span}]
		if b == nil {
			continue // its period is long over
		}
		_, who := b.account(c.Account.Who) // it may have been reset, and there may be no room for it
		a := b.open(who)
		a.add(c.Add)
		if l.file == nil {
			continue
		}
		if due, late := a.due(); due {
			if l.schedule(a); late {
				wait = l.next
			}
		} else if a.high() {
			l.loose[a] = struct{}{}
		}
	}
	l.mu.Unlock()
	if wait == nil {
		return nil
	}
	return l.await(ctx, wait)
}

// high reports whether the file says far more than has been used.
func (a *account) high() bool {
	ahead := a.ahead()
	return slices.ContainsFunc(budget.Units(), func(u budget.Unit) bool {
		return a.limit.Of(u) > 0 && a.mark.Of(u)-a.used.Of(u) > ahead.Of(u)
	})
}

// Usage implements budget.Store.
func (l *Ledger) Usage(_ context.Context, r *budget.Rule, n int) (budget.Usage, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	out := budget.Usage{Span: r.Per.At(now, r.Zone)}
	b := l.book(r, now, false)
	if b == nil {
		return out, nil
	}
	out.Used, out.Accounts = b.total, len(b.accounts)
	for _, a := range b.accounts {
		if len(out.Top) == n && (n == 0 || !a.used.More(out.Top[n-1].Used)) || a.used == (budget.Amount{}) {
			continue
		}
		i := slices.IndexFunc(out.Top, func(s budget.Spender) bool { return a.used.More(s.Used) })
		if i < 0 {
			i = len(out.Top)
		}
		out.Top = slices.Insert(out.Top, i, budget.Spender{Who: a.who, Used: a.used})
		out.Top = out.Top[:min(len(out.Top), n)]
	}
	return out, nil
}

// Reset implements budget.Store.
func (l *Ledger) Reset(ctx context.Context, r *budget.Rule, who string) (bool, error) {
	l.mu.Lock()
	b := l.book(r, time.Now(), false)
	if b == nil || l.closed {
		closed := l.closed
		l.mu.Unlock()
		if closed {
			return false, errClosed
		}
		return false, nil
	}
	if who == "" {
		l.forget(b)
	} else if a := b.accounts[who]; a != nil {
		a.add(budget.Amount{}.Minus(a.used))
		if l.file != nil {
			l.schedule(a)
		}
	} else {
		l.mu.Unlock()
		return false, nil
	}
	return true, l.unlockAndAwait(ctx)
}

// unlockAndAwait waits for what has been scheduled, if there is a file.
func (l *Ledger) unlockAndAwait(ctx context.Context) error {
	wait := l.next
	l.mu.Unlock()
	if wait == nil {
		return nil
	}
	return l.await(ctx, wait)
}

// Stop implements budget.Store. The switch is on in this process whether it can be written or not.
func (l *Ledger) Stop(ctx context.Context, on bool) error {
	l.mu.Lock()
	switch {
	case l.closed:
		l.mu.Unlock()
		return errClosed
	case on && l.stopped.IsZero():
		l.stopped = time.Now().UTC().Truncate(time.Second)
	case !on:
		l.stopped = time.Time{}
	}
	if l.file != nil {
		l.batch().stop = true
	}
	return l.unlockAndAwait(ctx)
}

// Stopped implements budget.Store.
func (l *Ledger) Stopped(context.Context) (time.Time, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.stopped, nil
}

var errClosed = errors.New("store/ledger: closed")
