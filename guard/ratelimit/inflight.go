package ratelimit

import (
	"hash/maphash"
	"sync"
)

// InFlight counts the requests that are under way, by key. The zero value is ready. It
// holds one entry for each key that has a request under way, so connections bound it.
type InFlight struct {
	shards [64]struct {
		mu     sync.Mutex
		counts map[Key]int
	}
}

var inFlightSeed = maphash.MakeSeed()

// enter counts one more, unless there are as many as may be.
func (f *InFlight) enter(k Key, atMost int) bool {
	s := &f.shards[maphash.Comparable(inFlightSeed, k)%uint64(len(f.shards))]
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.counts[k]
	if n >= atMost {
		return false
	}
	if s.counts == nil {
		s.counts = make(map[Key]int)
	}
	s.counts[k] = n + 1
	return true
}

// leave counts one less.
func (f *InFlight) leave(k Key) {
	s := &f.shards[maphash.Comparable(inFlightSeed, k)%uint64(len(f.shards))]
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := s.counts[k]; n > 1 {
		s.counts[k] = n - 1
	} else {
		delete(s.counts, k)
	}
}
