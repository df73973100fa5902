// Package recent remembers what verifiers have found out, by the SHA-256 of a credential:
// what is remembered opens nothing.
package recent

import (
	"crypto/sha256"
	"sync"
)

// Digest stands for a credential.
type Digest = [sha256.Size]byte

// Table is a map of bounded size. What was not used since it was last looked at makes room
// first (CLOCK), and newcomers before what has proved useful. It is safe for concurrent use.
type Table[V any] struct {
	room   int // of each shard
	shards []shard[V]
}

type shard[V any] struct {
	mu    sync.Mutex
	slots map[Digest]*slot[V]
	ring  []*slot[V]
	hand  int
	taken int
}

type slot[V any] struct {
	id    Digest
	value V
	cost  int
	place int // in the ring
	used  bool
}

// New makes a Table with that much room, in whatever unit costs have, in so many parts that
// do not wait for each other.
func New[V any](room, shards int) *Table[V] {
	return &Table[V]{room: room / shards, shards: make([]shard[V], shards)}
}

func (t *Table[V]) shard(id *Digest) *shard[V] { return &t.shards[int(id[0])%len(t.shards)] }

// Get returns what is remembered.
func (t *Table[V]) Get(id *Digest) (v V, ok bool) {
	s := t.shard(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	found := s.slots[*id]
	if found == nil {
		return v, false
	}
	found.used = true
	return found.value, true
}

// Put remembers v, if it fits at all.
func (t *Table[V]) Put(id *Digest, v V, cost int) {
	s := t.shard(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.slots[*id]
	switch {
	case cost > t.room:
		if old != nil {
			s.remove(old)
		}
		return
	case old != nil && cost <= old.cost:
		s.taken += cost - old.cost
		old.value, old.cost = v, cost
		return
	case old != nil:
		s.remove(old)
	case s.slots == nil:
		s.slots = make(map[Digest]*slot[V])
	}
	for s.taken+cost > t.room {
		s.evict()
	}
	next := &slot[V]{id: *id, value: v, cost: cost, place: len(s.ring), used: old != nil && old.used}
	s.slots[*id] = next
	s.ring = append(s.ring, next)
	s.taken += cost
}

// Remove forgets.
func (t *Table[V]) Remove(id *Digest) {
	s := t.shard(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	if found := s.slots[*id]; found != nil {
		s.remove(found)
	}
}

// evict removes one slot. The latest takes its place under the hand, so that it is the next to
// go unless it was used meanwhile.
func (s *shard[V]) evict() {
	for {
		if s.hand >= len(s.ring) {
			s.hand = 0
		}
		at := s.ring[s.hand]
		if !at.used {
			s.remove(at)
			return
		}
		at.used = false
		s.hand++
	}
}

func (s *shard[V]) remove(at *slot[V]) {
	delete(s.slots, at.id)
	s.taken -= at.cost
	last := len(s.ring) - 1
	s.ring[at.place] = s.ring[last]
	s.ring[at.place].place = at.place
	s.ring[last] = nil
	s.ring = s.ring[:last]
}
