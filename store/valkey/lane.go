package valkey

import (
	"context"
	"errors"
	"net"
	"slices"
	"sync/atomic"
	"time"

	client "github.com/valkey-io/valkey-go"
)

const (
	// queued is how many calls may wait in a lane. At 100,000 a second they are 10 ms.
	queued = 1024
	// maxBatch is how many calls are sent at once. A batch holds the server for about
	// 128 × 10 µs.
	maxBatch = 128
	// attempts bounds how many connections are tried that turn out to have been closed.
	attempts = 3
	// tolerated is how many failures in a row are taken for accidents.
	tolerated = 3
	// While a lane is closed, one call tries whether the server is there again: soon
	// after it went, for most interruptions are short, then every second.
	firstProbe, lastProbe = 100 * time.Millisecond, time.Second
)

// lane is a queue of calls, with workers that make them and a breaker. A caller only
// ever waits for a channel and a timer: whatever the client does (dials, asks for names,
// shakes hands, waits behind a server that has stopped) it does it to a worker. That is
// the whole proof that no request waits for longer than the timeout, and that neither
// goroutines nor memory pile up behind a server that has gone.
//
// Without a cluster there is one lane. In a cluster each has a range of slots, so that a
// node that has gone takes only its own with it.
type lane struct {
	s     *Store
	queue chan *call
	probe string // a key of this lane

	closed  atomic.Pointer[unavailable] // why, nil if the lane is open
	fails   atomic.Int32                // in a row
	ahead   offset
	tripped chan struct{}
	probed  chan struct{} // closed once the first probe is over
}

func newLane(s *Store, probe string) *lane {
	l := &lane{s: s, queue: make(chan *call, queued), probe: probe, tripped: make(chan struct{}, 1), probed: make(chan struct{})}
	l.closed.Store(&unavailable{errConnecting})
	return l
}

// do makes a call, within the deadline or a shorter one of ctx.
func (l *lane) do(ctx context.Context, deadline *time.Timer, c *call) error {
	if why := l.closed.Load(); why != nil {
		l.s.stats.spared.Add(1)
		return why
	}
	select {
	case l.queue <- c:
	default:
		l.s.stats.errors.Add(1)
		return &unavailable{errQueueFull}
	}
	select {
	case <-c.done:
	case <-deadline.C:
		deadline.Reset(0) // it stays over, for the next call of the same Take
		if c.abandon() {
			l.s.stats.timeouts.Add(1)
			l.failed(errTimeout)
			return &unavailable{errTimeout}
		}
		<-c.done
	case <-ctx.Done():
		// The caller has gone, which says nothing about the server.
		if c.abandon() {
			return &unavailable{context.Cause(ctx)}
		}
		<-c.done
	}
	if c.err != nil {
		l.s.stats.errors.Add(1)
		return &unavailable{c.err}
	}
	return nil
}

// post leaves a call to be made, if it can be, without waiting.
func (l *lane) post(c *call) {
	if l.closed.Load() != nil {
		return
	}
	select {
	case l.queue <- c:
	default:
	}
}

func (l *lane) succeeded() {
	if l.fails.Load() != 0 {
		l.fails.Store(0)
	}
}

func (l *lane) failed(err error) {
	l.s.lastError.Store(&unavailable{err})
	if l.fails.Add(1) >= tolerated {
		l.trip(err)
	}
}

// trip closes the lane: from now on nobody waits for the server.
func (l *lane) trip(err error) {
	l.s.lastError.Store(&unavailable{err})
	if l.closed.CompareAndSwap(nil, &unavailable{err}) {
		l.tripped <- struct{}{}
	}
}

// reopen tries, while the lane is closed, whether the server is there again.
func (l *lane) reopen() {
	first := l.probed
	for {
		for delay := firstProbe; !l.try(); delay = min(2*delay, lastProbe) {
			if first != nil {
				close(first)
				first = nil
			}
			if !l.s.sleep(delay) {
				return
			}
		}
		l.fails.Store(0)
		l.closed.Store(nil)
		if first != nil {
			close(first)
			first = nil
		}
		select {
		case <-l.tripped:
		case <-l.s.ctx.Done():
			return
		}
		if !l.s.sleep(firstProbe) {
			return
		}
	}
}

// try makes a call that charges a key of nobody, for a millisecond. It needs all that
// others need: a connection, a node with that slot, the right to write.
func (l *lane) try() bool {
	c := newCall(take, []string{l.probe}, []string{"", "1", "1000", "1000", "1000", "", "0"})
	select {
	case l.queue <- c:
	case <-l.s.ctx.Done():
		return false
	}
	select {
	case <-c.done:
	case <-l.s.ctx.Done():
		return false
	}
	if c.err != nil {
		l.s.stats.errors.Add(1)
		why := &unavailable{c.err}
		l.s.lastError.Store(why)
		l.closed.Store(why)
		return false
	}
	return true
}

// work makes calls until the Store is closed.
func (l *lane) work() {
	batch := make([]*call, 0, maxBatch)
	for {
		batch = batch[:0]
		select {
		case <-l.s.ctx.Done():
			return
		case c := <-l.queue:
			batch = append(batch, c)
		}
	fill:
		for len(batch) < maxBatch {
			select {
			case c := <-l.queue:
				batch = append(batch, c)
			default:
				break fill
			}
		}
		l.run(batch)
	}
}

// run makes a batch of calls.
func (l *lane) run(batch []*call) {
	calls := batch[:0]
	for _, c := range batch {
		if !c.unwanted() {
			calls = append(calls, c)
		}
	}
	ctx, cancel := context.WithTimeout(l.s.ctx, dialTimeout+l.s.cfg.Timeout)
	defer cancel()
	var lost error
	for attempt := range attempts {
		if calls, lost = l.send(ctx, calls, false); len(calls) > 0 && lost == nil {
			calls, lost = l.send(ctx, calls, true)
		}
		if lost == nil {
			return
		}
		// A connection may have been closed while it was not used, and nobody noticed:
		// the server was started anew. One that has just been made tells. Had the calls
		// been made all the same they are made twice, and their clients charged twice.
		if attempt == attempts-1 || isTimeout(lost) || errors.Is(lost, errDial) {
			break
		}
		calls = slices.DeleteFunc(calls, func(c *call) bool {
			if c.givesBack {
				c.answer(nil, lost)
			}
			return c.givesBack
		})
		for _, c := range calls {
			c.resent = true
		}
	}
	late := isTimeout(lost)
	if lost = l.s.explain(lost); late && !errors.Is(lost, errDial) {
		l.failed(lost)
	} else {
		l.trip(lost)
	}
	for _, c := range calls {
		c.answer(nil, lost)
	}
}

// send makes calls, and returns those that have not been answered: because the connection
// was lost, or because the server does not know their scripts.
func (l *lane) send(ctx context.Context, calls []*call, withText bool) (rest []*call, lost error) {
	if len(calls) == 0 {
		return nil, nil
	}
	conn, err := l.s.conn.get()
	if err != nil {
		return calls, err
	}
	cmds := make([]client.Completed, len(calls))
	for i, c := range calls {
		cmds[i] = c.command(conn.B(), withText)
	}
	l.s.stats.roundTrips.Add(1)
	for i, r := range conn.DoMulti(ctx, cmds...) {
		c := calls[i]
		if err := r.NonValkeyError(); err != nil {
			rest, lost = append(rest, c), err
			continue
		}
		reply, err := c.read(r)
		switch said, isSaid := client.IsValkeyErr(err); {
		case err == nil:
			l.succeeded()
			c.answer(reply, nil)
		case isSaid && said.IsNoScript() && !withText:
			rest = append(rest, c)
		default:
			if isSaid && isReadOnly(said) {
				l.s.conn.replica(conn)
			}
			err = l.s.explain(err)
			l.failed(err)
			c.answer(nil, err)
		}
	}
	if lost != nil {
		l.s.conn.lost(conn, lost)
	}
	return rest, lost
}

// drain answers what is left when the Store is closed.
func (l *lane) drain() {
	for {
		select {
		case c := <-l.queue:
			c.answer(nil, errClosed)
		default:
			return
		}
	}
}

func isTimeout(err error) bool {
	var t net.Error
	return errors.Is(err, context.DeadlineExceeded) || errors.As(err, &t) && t.Timeout()
}
