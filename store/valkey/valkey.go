package valkey

import (
	"context"
	"crypto/rand"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/moat-gateway/moat/guard/ratelimit"
)

const (
	// workers make the calls of one lane.
	workers = 2
	// lanes is how many a cluster has.
	lanes = 16
	// A process tells every announceEvery that it shares the store; its word holds for
	// announceTTL.
	announceEvery = 2 * time.Second
	announceTTL   = 7 * time.Second
)

// ErrUnavailable is what errors of Take and Peek wrap: the limits could not be asked.
var ErrUnavailable = errors.New("store/valkey: not available")

type unavailable struct{ why error }

func (u *unavailable) Error() string { return ErrUnavailable.Error() + ": " + u.why.Error() }

func (u *unavailable) Unwrap() []error { return []error{ErrUnavailable, u.why} }

// Store is a ratelimit.Store in a server that many processes share. Use Open.
type Store struct {
	cfg    Config
	id     string
	start  time.Time
	conn   conn
	lanes  []*lane
	ledger *ledger
	nodes  atomic.Int64

	stats struct {
		roundTrips, errors, timeouts, spared, localAdmissions, localRefusals atomic.Uint64
	}
	lastError atomic.Pointer[unavailable]

	ctx   context.Context //nolint:containedctx // it ends with the Store, not with a call.
	close context.CancelFunc
	all   sync.WaitGroup
}

var _ ratelimit.Store = (*Store)(nil)

// Open starts a Store. It fails if the Config is wrong, and not if the server cannot be
// reached: then Take says ErrUnavailable until it can. Open waits until it knows which of
// the two it is, at most for about a second.
func Open(ctx context.Context, cfg Config) (*Store, error) {
	if err := cfg.Check(); err != nil {
		return nil, err
	}
	if cfg.Prefix == "" {
		cfg.Prefix = DefaultPrefix
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = DefaultTimeout
	}
	if cfg.TLS != nil {
		cfg.TLS = cfg.TLS.Clone()
	}
	s := &Store{cfg: cfg, id: rand.Text(), start: time.Now(), ledger: newLedger()}
	s.ctx, s.close = context.WithCancel(context.WithoutCancel(ctx))
	s.conn.s = s
	s.nodes.Store(1)
	n := 1
	if cfg.Mode == Cluster {
		n = lanes
	}
	for i := range n {
		s.lanes = append(s.lanes, newLane(s, probeName(cfg.Prefix, i*slots/n, (i+1)*slots/n)))
	}
	for _, l := range s.lanes {
		for range workers {
			s.all.Go(l.work)
		}
		s.all.Go(l.reopen)
	}
	wait, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	for _, l := range s.lanes {
		select {
		case <-l.probed:
		case <-wait.Done():
		}
	}
	first := announceEvery
	if s.announceFor(announceTTL) != nil {
		first = firstProbe
	}
	s.all.Go(func() { s.announce(first) })
	return s, nil
}

// Close stops all that the Store has started. It takes back its word that it shares the
// store, if the server answers.
func (s *Store) Close() {
	if s.ctx.Err() != nil {
		return
	}
	s.announceFor(0) //nolint:errcheck // its word is forgotten in a few seconds
	s.close()
	s.conn.close()
	s.all.Wait()
	s.conn.close() // one that was being made
	for _, l := range s.lanes {
		l.closed.Store(&unavailable{errClosed})
		l.drain()
	}
}

// Take implements ratelimit.Store.
func (s *Store) Take(ctx context.Context, demands []ratelimit.Demand, results []ratelimit.Result) (bool, error) {
	return s.decide(ctx, demands, results, true)
}

// Peek implements ratelimit.Store.
func (s *Store) Peek(ctx context.Context, demands []ratelimit.Demand, results []ratelimit.Result) (bool, error) {
	return s.decide(ctx, demands, results, false)
}

// Reset implements ratelimit.Store. Other processes may hold a lease of the key, or refuse
// it from memory, for some seconds more.
func (s *Store) Reset(ctx context.Context, k ratelimit.Key) error {
	s.ledger.forget(k)
	name := keyName(s.cfg.Prefix, k)
	err := s.call(ctx, slotOf(name), newCall(forget, []string{name}, nil))
	s.ledger.forget(k)
	return err
}

// Nodes is how many processes share the store, this one included, as far as it is known.
// While the server cannot be asked, that is what it said last.
func (s *Store) Nodes() int { return int(s.nodes.Load()) }

// announce tells the others that this process shares the store, and counts them.
func (s *Store) announce(pause time.Duration) {
	for s.sleep(pause) {
		pause = firstProbe
		if s.lane(slotOf(s.nodesName())).closed.Load() == nil && s.announceFor(announceTTL) == nil {
			s.conn.follow()
			pause = announceEvery
		}
	}
}

func (s *Store) nodesName() string { return s.cfg.Prefix + ":{nodes}" }

func (s *Store) announceFor(ttl time.Duration) error {
	name := s.nodesName()
	var a arguments
	a.word(s.id)
	a.number(int64(ttl / time.Microsecond))
	c := newCall(announce, []string{name}, a.strings())
	if err := s.call(s.ctx, slotOf(name), c); err != nil {
		return err
	}
	if len(c.reply) == 1 && ttl > 0 {
		s.nodes.Store(max(c.reply[0], 1))
	}
	return nil
}

func (s *Store) call(ctx context.Context, slot int, c *call) error {
	deadline := time.NewTimer(s.cfg.Timeout)
	defer deadline.Stop()
	return s.lane(slot).do(ctx, deadline, c)
}

func (s *Store) lane(slot int) *lane { return s.lanes[slot*len(s.lanes)/slots] }

// clock is in microseconds.
func (s *Store) clock() int64 { return int64(time.Since(s.start) / time.Microsecond) }

// sleep reports whether the Store is still open.
func (s *Store) sleep(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-s.ctx.Done():
		return false
	}
}

// State is whether the servers can be asked.
type State uint8

const (
	// Up: they can.
	Up State = iota
	// Partly: some nodes of a cluster cannot, and Takes that need them fail at once.
	Partly
	// Down: they cannot, and Takes fail at once. About once a second it is tried again.
	Down
)

func (s State) String() string {
	switch s {
	case Up:
		return "up"
	case Partly:
		return "partly"
	case Down:
		return "down"
	}
	return "unknown"
}

// Stats are for metrics. All but State, Nodes, Known and LastError only grow.
type Stats struct {
	State State
	// Nodes: see Store.Nodes.
	Nodes int
	// RoundTrips to the server; many requests may share one.
	RoundTrips uint64
	// Errors are Takes that failed otherwise than for time, Timeouts those for which the
	// time was over, and Spared those that failed at once because the server was known to
	// be down.
	Errors, Timeouts, Spared uint64
	// LocalAdmissions are Takes that leases admitted, and LocalRefusals those of keys that
	// were known to have no room. Both cost no round trip.
	LocalAdmissions, LocalRefusals uint64
	// Known is of how many keys this process has a lease or remembers a refusal.
	Known int
	// LastError is the last that happened while asking, nil if none has. It is kept when
	// the servers can be asked again.
	LastError error
}

// Answering reports whether the servers can be asked: State is Up.
func (s *Store) Answering() bool { return s.Stats().State == Up }

// Stats says how the Store is doing.
func (s *Store) Stats() Stats {
	st := Stats{
		Nodes:           s.Nodes(),
		RoundTrips:      s.stats.roundTrips.Load(),
		Errors:          s.stats.errors.Load(),
		Timeouts:        s.stats.timeouts.Load(),
		Spared:          s.stats.spared.Load(),
		LocalAdmissions: s.stats.localAdmissions.Load(),
		LocalRefusals:   s.stats.localRefusals.Load(),
		Known:           s.ledger.size(),
	}
	if last := s.lastError.Load(); last != nil {
		st.LastError = last
	}
	down := 0
	for _, l := range s.lanes {
		if l.closed.Load() != nil {
			down++
		}
	}
	switch down {
	case 0:
	case len(s.lanes):
		st.State = Down
	default:
		st.State = Partly
	}
	return st
}
