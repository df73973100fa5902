package dpop

import (
	"errors"
	"sync"
)

// memory remembers used proofs until they are too old to be accepted. It forgets none before,
// so it can be full.
type memory struct {
	limit int

	mu   sync.Mutex
	seen map[uint64]struct{}
	due  [][]uint64 // by the second, as a ring, until which they are remembered
	at   int64      // the first second that is in due
}

func newMemory(limit int, seconds int64) *memory {
	return &memory{limit: limit, seen: make(map[uint64]struct{}), due: make([][]uint64, seconds+2)}
}

var errFull = errors.New("full")

// use remembers id up to and with the second until, and reports whether it is new.
func (m *memory) use(id uint64, until, now int64) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.forget(now)
	if _, used := m.seen[id]; used {
		return false, nil
	}
	if len(m.seen) >= m.limit {
		return false, errFull
	}
	m.seen[id] = struct{}{}
	at := max(until, m.at) % int64(len(m.due)) // another request's now may be later
	m.due[at] = append(m.due[at], id)
	return true, nil
}

// forget forgets what was due before now.
func (m *memory) forget(now int64) {
	m.at = max(m.at, now-int64(len(m.due))) // each second of the ring once, after a long pause
	for ; m.at < now; m.at++ {
		at := m.at % int64(len(m.due))
		for _, id := range m.due[at] {
			delete(m.seen, id)
		}
		m.due[at] = nil
	}
}
