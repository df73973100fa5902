package valkey

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/moat-gateway/moat/guard/ticket"
)

const (
	// A range of numbers is one key. A process gives out numbers of a range for openFor.
	rangeBits = 10
	inRange   = 1 << rangeBits
	openFor   = time.Minute
	// extra is for how much longer than the tickets live their uses are remembered: a
	// process may be stopped between asking for a number and reading the clock.
	extra = 10 * time.Second
)

var (
	errUnknownLineage = errors.New("it is not known yet what the server remembers of tickets")
	errForgotten      = errors.New("the server may have forgotten which tickets are used")
	errUnsure         = errors.New("the connection was lost, and the use may have been marked before")
)

// Tickets is a ticket.Store in the servers of a Store, for all processes that share it. Use
// Store.Tickets.
type Tickets struct {
	s    *Store
	root string // the key of the lineage, which all names begin with
	slot int
	// keep is for how many milliseconds a range is kept.
	keep string

	known   atomic.Pointer[lineage]
	current atomic.Pointer[numbers]

	mu     sync.Mutex // guards what follows; it is never held while the server is asked
	ahead  *numbers
	flight *flight

	look   chan struct{}
	orders chan *flight
}

var _ ticket.Store = (*Tickets)(nil)

// lineage is one that the server has said it remembers. That it still does every script
// finds out for itself; nothing depends on how old this knowledge is.
type lineage struct {
	ticket.Lineage
	name  string
	since time.Time
}

// numbers is a range that this process has reserved.
type numbers struct {
	*lineage
	base  uint64
	given atomic.Uint64
	ends  int64 // on the Store's clock
}

func (n *numbers) left(of *lineage, now int64) bool {
	return n != nil && n.lineage == of && now < n.ends && n.given.Load() < inRange
}

// flight is a range that is being reserved, for all who wait for one.
type flight struct {
	done chan struct{}
	err  error
}

// landed is for who need not wait.
var landed = func() *flight {
	f := &flight{done: make(chan struct{})}
	close(f.done)
	return f
}()

// Tickets returns the store of tickets that live no longer than lifetime; 0 stands for
// ticket.MaxLifetime. It ends with the Store. Like Open it does not fail if the server
// cannot be asked.
func (s *Store) Tickets(lifetime time.Duration) *Tickets {
	if lifetime <= 0 || lifetime > ticket.MaxLifetime {
		lifetime = ticket.MaxLifetime
	}
	root := s.cfg.Prefix + ":{tickets}"
	t := &Tickets{
		s: s, root: root, slot: slotOf(root),
		keep: strconv.FormatInt((lifetime + openFor + extra).Milliseconds(), 10),
		look: make(chan struct{}, 1), orders: make(chan *flight, 1),
	}
	pause := announceEvery
	if t.ask() != nil {
		pause = firstProbe
	}
	s.all.Go(func() { t.work(pause) })
	return t
}

// Lineage implements ticket.Store. Since is on this process's clock, and never too early as
// long as the server's is not set. While the server cannot be asked ok is false.
func (t *Tickets) Lineage() (ticket.Lineage, time.Time, bool) {
	k := t.lineage()
	if k == nil {
		return ticket.Lineage{}, time.Time{}, false
	}
	return k.Lineage, k.since, true
}

func (t *Tickets) lineage() *lineage {
	if t.s.lane(t.slot).closed.Load() != nil {
		return nil
	}
	return t.known.Load()
}

// Number implements ticket.Store. It waits for the server only if the range that was
// reserved ahead is spent or was not used for a minute, and at most for the timeout.
func (t *Tickets) Number(ctx context.Context) (ticket.Lineage, uint64, error) {
	k := t.lineage()
	if n, ok := t.take(k); ok {
		return k.Lineage, n, nil
	}
	deadline := time.NewTimer(t.s.cfg.Timeout)
	defer deadline.Stop()
	for {
		if k = t.lineage(); k == nil {
			return ticket.Lineage{}, 0, &unavailable{errUnknownLineage}
		}
		f := t.order(k, false)
		select {
		case <-f.done:
		case <-deadline.C:
			return ticket.Lineage{}, 0, &unavailable{errTimeout}
		case <-ctx.Done():
			return ticket.Lineage{}, 0, &unavailable{context.Cause(ctx)}
		case <-t.s.ctx.Done():
			return ticket.Lineage{}, 0, &unavailable{errClosed}
		}
		if f.err != nil {
			return ticket.Lineage{}, 0, f.err
		}
		if n, ok := t.take(k); ok {
			return k.Lineage, n, nil
		}
	}
}

// take gives out a number of the current range.
func (t *Tickets) take(k *lineage) (uint64, bool) {
	n := t.current.Load()
	if k == nil || !n.left(k, t.s.clock()) {
		return 0, false
	}
	i := n.given.Add(1) - 1
	if i == inRange/2 {
		t.order(k, true)
	}
	return n.base + i, i < inRange
}

// order has a range reserved, the next one or one that is needed now, unless there is one.
func (t *Tickets) order(k *lineage, next bool) *flight {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.s.clock()
	isOpen := t.current.Load().left(k, now)
	if !isOpen && t.ahead.left(k, now) {
		t.current.Store(t.ahead)
		t.ahead, isOpen = nil, true
	}
	if isOpen && (!next || t.ahead.left(k, now)) {
		return landed
	}
	if t.flight == nil {
		t.flight = &flight{done: make(chan struct{})}
		t.orders <- t.flight // there is no other, so this does not wait
	}
	return t.flight
}

// work looks after the lineage, and reserves ranges, until the Store is closed.
func (t *Tickets) work(pause time.Duration) {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	for {
		select {
		case <-t.s.ctx.Done():
			return
		case f := <-t.orders:
			t.land(f)
			continue
		case <-t.look:
		case <-timer.C:
		}
		pause = announceEvery
		if t.ask() != nil {
			pause = firstProbe
		}
		timer.Reset(pause)
	}
}

// ask asks which lineage the server remembers. If it remembers none, this begins one.
func (t *Tickets) ask() error {
	var fresh ticket.Lineage
	var start [8]byte
	rand.Read(fresh[:])
	rand.Read(start[:])
	var a arguments
	a.word(hex.EncodeToString(fresh[:]))
	a.number(int64(binary.BigEndian.Uint64(start[:]) >> (64 - 47 + rangeBits)))
	c := newCall(askLineage, []string{t.root}, a.strings())
	if err := t.s.call(t.s.ctx, t.slot, c); err != nil {
		return err
	}
	now := time.Now()
	if len(c.reply) != 5 {
		return &unavailable{errReply}
	}
	var l ticket.Lineage
	for i, word := range c.reply[1:] {
		binary.BigEndian.PutUint32(l[4*i:], uint32(word)) //nolint:gosec // it was read from 8 hexadecimal digits
	}
	if k := t.known.Load(); k == nil || k.Lineage != l {
		age := time.Duration(c.reply[0]) * time.Microsecond
		t.known.Store(&lineage{l, hex.EncodeToString(l[:]), now.Add(-age)})
	}
	return nil
}

// forgotten is told that the server does not remember a lineage any more.
func (t *Tickets) forgotten(k *lineage) {
	t.known.CompareAndSwap(k, nil)
	t.lookAgain()
}

func (t *Tickets) lookAgain() {
	select {
	case t.look <- struct{}{}:
	default:
	}
}

// land reserves a range.
func (t *Tickets) land(f *flight) {
	n, err := t.reserve()
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case err != nil:
		f.err = err
	case t.current.Load().left(n.lineage, t.s.clock()):
		t.ahead = n
	default:
		t.current.Store(n)
	}
	t.flight = nil
	close(f.done)
}

func (t *Tickets) reserve() (*numbers, error) {
	k := t.known.Load()
	if k == nil {
		return nil, &unavailable{errUnknownLineage}
	}
	asked := t.s.clock()
	c := newCall(reserveRange, []string{t.root}, []string{k.name, t.keep})
	said, err := t.say(t.s.ctx, c)
	switch {
	case err != nil:
		return nil, err
	case said == -1:
		t.forgotten(k)
		return nil, &unavailable{errForgotten}
	case said <= 0 || said >= 1<<(48-rangeBits):
		return nil, &unavailable{errReply}
	}
	return &numbers{lineage: k, base: uint64(said) << rangeBits, ends: asked + openFor.Microseconds()}, nil
}

// Use implements ticket.Store. It makes one round trip, and waits for it at most for the
// timeout. After an error it is not known whether the use has been marked.
func (t *Tickets) Use(ctx context.Context, l ticket.Lineage, number uint64, use uint8) (bool, error) {
	if number >= 1<<48 || use > 31 {
		return false, nil
	}
	name := hex.EncodeToString(l[:])
	var a arguments
	a.word(name)
	a.number(int64(number%inRange)*32 + int64(use))
	keys := []string{t.root, t.root + ":" + name + ":" + strconv.FormatUint(number>>rangeBits, 10)}
	c := newCall(markUse, keys, a.strings())
	said, err := t.say(ctx, c)
	if err != nil {
		return false, err
	}
	// The server knows better than this process which lineage is the present one.
	if k := t.known.Load(); k != nil && (k.Lineage == l) != (said >= 0) {
		t.forgotten(k)
	}
	return c.first(said)
}

// Once implements ticket.Store. It makes one round trip, and waits for it at most for the
// timeout. After an error it is not known whether it has been marked.
func (t *Tickets) Once(ctx context.Context, space uint8, id uint64, expires time.Time) (bool, error) {
	k := t.lineage()
	if k == nil {
		return false, &unavailable{errUnknownLineage}
	}
	left := time.Until(expires)
	if left <= 0 {
		return false, nil
	}
	var a arguments
	a.word(k.name)
	a.number((left + time.Second).Milliseconds())
	name := t.root + ":" + k.name + ":once:" + strconv.Itoa(int(space)) + ":" + strconv.FormatUint(id, 10)
	c := newCall(markOnce, []string{t.root, name}, a.strings())
	said, err := t.say(ctx, c)
	if err != nil {
		return false, err
	}
	if said == -1 {
		t.forgotten(k)
		return false, &unavailable{errForgotten}
	}
	return c.first(said)
}

// say makes a call whose answer is one number.
func (t *Tickets) say(ctx context.Context, c *call) (int64, error) {
	if err := t.s.call(ctx, t.slot, c); err != nil {
		return 0, err
	}
	if len(c.reply) != 1 {
		return 0, &unavailable{errReply}
	}
	return c.reply[0], nil
}

// first reads the answer to whether this was the first to mark something.
func (c *call) first(said int64) (bool, error) {
	if said == 0 && c.resent {
		return false, &unavailable{errUnsure}
	}
	return said == 1, nil
}
