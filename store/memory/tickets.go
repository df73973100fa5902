package memory

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"hash/maphash"
	"math"
	"math/bits"
	"sync"
	"sync/atomic"
	"time"

	"github.com/moat-gateway/moat/guard/ticket"
)

const (
	chunkBits  = 12
	chunkBytes = 4 << chunkBits
	// headWords is the room of a chunk's head, in words. No ticket has the numbers that
	// they would have, so a chunk is exactly 16 KiB, which the allocator has a class for.
	headWords    = 4
	chunkTickets = 1<<chunkBits - headWords
	// slack is for a caller that reads the clock after it has got its number, and for
	// expiries in whole seconds.
	slack = 10 * time.Second
)

// Tickets is a ticket.Store for one process. Use NewTickets.
type Tickets struct {
	lineage  ticket.Lineage
	since    time.Time
	lifetime time.Duration

	// ring has the chunk of a number at its index modulo the length. Chunks are opened and
	// dropped in the order of their indices, at most room of them at a time, and never
	// reused: a late Use of a dropped one marks a word that no other number ever has.
	ring    []atomic.Pointer[chunk]
	current atomic.Pointer[chunk]

	mu     sync.Mutex // guards what follows, and opening and dropping chunks
	room   int
	oldest uint64
	live   int

	seed  maphash.Seed
	marks []marks
}

var _ ticket.Store = (*Tickets)(nil)

// chunk has a word for each ticket, and in it a bit for each use.
type chunk struct {
	index uint64 // of the chunk: its numbers divided by 2^chunkBits
	given atomic.Uint32
	// full is when the last number was given out, in seconds since the store began,
	// rounded up; 0 if that is yet to come.
	full  uint32
	words [chunkTickets]atomic.Uint32
}

// NewTickets returns a store for tickets that live no longer than lifetime; 0 stands for
// ticket.MaxLifetime. Half of the bytes are for numbered tickets, half for what is marked by
// Once. It takes them as it needs them, never more, and not less than 64 KiB.
func NewTickets(bytes int, lifetime time.Duration) *Tickets {
	if lifetime <= 0 || lifetime > ticket.MaxLifetime {
		lifetime = ticket.MaxLifetime
	}
	bytes = max(bytes, 64<<10)
	s := &Tickets{
		since:    time.Now(),
		lifetime: lifetime,
		room:     bytes / 2 / chunkBytes,
		seed:     maphash.MakeSeed(),
		marks:    make([]marks, bytes/2/marksBytes),
	}
	s.ring = make([]atomic.Pointer[chunk], 1<<bits.Len(uint(s.room-1)))
	rand.Read(s.lineage[:])
	var start [8]byte
	rand.Read(start[:])
	// Below 2^47, which leaves as many numbers again.
	s.oldest = binary.BigEndian.Uint64(start[:]) >> (64 - 47 + chunkBits)
	s.add(s.oldest)
	return s
}

// Lineage implements ticket.Store. It is that of the process.
func (s *Tickets) Lineage() (ticket.Lineage, time.Time, bool) { return s.lineage, s.since, true }

// Number implements ticket.Store. It does not look at its context.
func (s *Tickets) Number(context.Context) (ticket.Lineage, uint64, error) {
	for {
		c := s.current.Load()
		for i := c.given.Load(); i < chunkTickets; i = c.given.Load() {
			if c.given.CompareAndSwap(i, i+1) {
				return s.lineage, c.index<<chunkBits + headWords + uint64(i), nil
			}
		}
		if err := s.open(c); err != nil {
			return ticket.Lineage{}, 0, err
		}
	}
}

// open opens the chunk after a full one, unless somebody else has.
func (s *Tickets) open(full *chunk) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.current.Load() != full {
		return nil
	}
	now := time.Since(s.since)
	if full.full == 0 {
		full.full = stamp(seconds(now) + 1)
	}
	for s.live > 0 {
		last := s.place(s.oldest)
		if seconds(now-s.lifetime-slack) < int64(last.Load().full) {
			break
		}
		last.Store(nil)
		s.oldest++
		s.live--
	}
	next := full.index + 1
	if s.live == s.room || next >= 1<<(48-chunkBits) {
		return ticket.ErrFull
	}
	s.add(next)
	return nil
}

func (s *Tickets) add(index uint64) {
	c := &chunk{index: index}
	s.place(index).Store(c)
	s.live++
	s.current.Store(c)
}

// place is where the chunk with that index is, or another one, or none.
func (s *Tickets) place(index uint64) *atomic.Pointer[chunk] {
	return &s.ring[index&uint64(len(s.ring)-1)] //nolint:gosec // a length is not negative
}

// Use implements ticket.Store. It neither waits nor allocates, and never fails.
func (s *Tickets) Use(_ context.Context, l ticket.Lineage, number uint64, use uint8) (bool, error) {
	c := s.place(number >> chunkBits).Load()
	i := number&(1<<chunkBits-1) - headWords // of a number that no ticket has it is far beyond
	if l != s.lineage || c == nil || c.index != number>>chunkBits || i >= uint64(c.given.Load()) || use > 31 {
		return false, nil
	}
	bit := uint32(1) << use
	return c.words[i].Or(bit)&bit == 0, nil
}

const (
	marksBytes = 1 << 10
	perMarks   = 59 // which are 1,011 bytes
)

// marks is a bucket of what Once has marked, as an array for each field. Which bucket is
// chosen by a hash with a seed, so that nobody can choose marks that meet. While all
// buckets together are half full, one in 10^6 is full.
type marks struct {
	mu  sync.Mutex
	ids [perMarks]uint64
	// A mark is forgotten when it is over by both clocks: that of the process, of which
	// this is in seconds since the store began, and the system's, in seconds since 1970.
	// Who turns the system's forth and back gets nothing honoured twice.
	process, system [perMarks]uint32
	spaces          [perMarks]uint8
}

// Once implements ticket.Store. It does not look at its context.
func (s *Tickets) Once(_ context.Context, space uint8, id uint64, expires time.Time) (bool, error) {
	now := time.Now()
	left := expires.Sub(now)
	if left <= 0 {
		return false, nil
	}
	process, system := seconds(now.Sub(s.since)), now.Unix()
	m := &s.marks[at(maphash.Comparable(s.seed, mark{space, id}), len(s.marks))]
	m.mu.Lock()
	defer m.mu.Unlock()
	free := -1
	for i := range m.ids {
		switch {
		case int64(m.process[i]) <= process && int64(m.system[i]) <= system:
			free = i
		case m.ids[i] == id && m.spaces[i] == space:
			return false, nil
		}
	}
	if free < 0 {
		return false, ticket.ErrFull
	}
	// One second because what is left was cut to seconds, one because the clock was.
	m.ids[free], m.spaces[free] = id, space
	m.process[free], m.system[free] = stamp(process+seconds(left)+2), stamp(expires.Unix()+2)
	return true, nil
}

// mark is what the hash is of.
type mark struct {
	space uint8
	id    uint64
}

// at maps a hash to an index below n, evenly.
func at(hash uint64, n int) uint64 {
	index, _ := bits.Mul64(hash, uint64(n)) //nolint:gosec // n is a length
	return index
}

func seconds(d time.Duration) int64 { return int64(d / time.Second) }

// stamp makes seconds fit. What does not, in a hundred years, is kept for ever.
func stamp(seconds int64) uint32 { return uint32(min(max(seconds, 0), math.MaxUint32)) }
