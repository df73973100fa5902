package memory

import (
	"bytes"
	"context"
	"slices"
	"sync"
	"time"

	"github.com/moat-gateway/moat/guard/identity/session"
)

const (
	// sessionBytes is what an entry takes beside its content, and indexBytes what an index and a
	// place in it do, measured and rounded up.
	sessionBytes, indexBytes = 512, 256
	// sweepEvery is how often expired entries are looked for at least.
	sweepEvery = time.Minute
)

// Sessions is a session.Store for one process: who is signed in has to sign in again when it
// restarts. Use NewSessions.
type Sessions struct {
	room int // in bytes

	// mu guards what follows.
	mu      sync.Mutex
	used    int
	entries map[session.ID]*session.Entry
	// indexes have their entries in the order in which they were put.
	indexes map[session.ID][]session.ID
	// soonest is no later than the first of the entries expires, and swept when they were
	// looked through.
	soonest, swept time.Time
}

var _ session.Store = (*Sessions)(nil)

// NewSessions returns a store of that many bytes, and not less than 256 KiB. It takes them as
// it needs them. A session of 4 KiB takes some 5 KiB, so 64 MiB hold 13,000.
func NewSessions(size int) *Sessions {
	return &Sessions{room: max(size, 256<<10), entries: make(map[session.ID]*session.Entry), indexes: make(map[session.ID][]session.ID)}
}

func weight(e *session.Entry) int { return sessionBytes + indexBytes*len(e.Indexes) + len(e.Sealed) }

// Put implements session.Store. It does not look at its context.
func (s *Sessions) Put(_ context.Context, e session.Entry) (bool, error) {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if old, ok := s.entries[e.ID]; ok {
		if now.Before(old.Expires) {
			return false, nil
		}
		s.drop(old)
	}
	for _, index := range e.Indexes {
		if of := s.indexes[index]; len(of) >= session.MaxIndexed {
			for _, id := range slices.Clone(of) {
				s.find(id) // which drops it if it has expired
			}
		}
		if of := s.indexes[index]; len(of) >= session.MaxIndexed {
			s.drop(s.entries[of[0]])
		}
	}
	full := s.used+weight(&e) > s.room
	if full && !now.Before(s.soonest) || now.Sub(s.swept) >= sweepEvery {
		s.sweep(now)
		full = s.used+weight(&e) > s.room
	}
	if full {
		return false, session.ErrFull
	}
	e.Indexes, e.Sealed = slices.Clone(e.Indexes), slices.Clone(e.Sealed)
	s.entries[e.ID] = &e
	s.used += weight(&e)
	for _, index := range e.Indexes {
		s.indexes[index] = append(s.indexes[index], e.ID)
	}
	if e.Expires.Before(s.soonest) {
		s.soonest = e.Expires
	}
	return true, nil
}

// sweep drops what has expired.
func (s *Sessions) sweep(now time.Time) {
	s.swept, s.soonest = now, now.Add(sweepEvery)
	for _, e := range s.entries {
		switch {
		case !now.Before(e.Expires):
			s.drop(e)
		case e.Expires.Before(s.soonest):
			s.soonest = e.Expires
		}
	}
}

// drop forgets an entry.
func (s *Sessions) drop(e *session.Entry) {
	delete(s.entries, e.ID)
	s.used -= weight(e)
	for _, index := range e.Indexes {
		of := slices.DeleteFunc(s.indexes[index], func(id session.ID) bool { return id == e.ID })
		if s.indexes[index] = of; len(of) == 0 {
			delete(s.indexes, index)
		}
	}
}

// find returns an entry that has not expired, or nil.
func (s *Sessions) find(id session.ID) *session.Entry {
	e, ok := s.entries[id]
	switch {
	case !ok:
		return nil
	case !time.Now().Before(e.Expires):
		s.drop(e)
		return nil
	}
	return e
}

// Get implements session.Store. It does not look at its context.
func (s *Sessions) Get(_ context.Context, id session.ID) (session.Entry, bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.find(id)
	if e == nil {
		return session.Entry{}, false, nil
	}
	return session.Entry{ID: id, Sealed: e.Sealed, Expires: e.Expires}, true, nil
}

// Touch implements session.Store. It does not look at its context.
func (s *Sessions) Touch(_ context.Context, id session.ID, expires time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.find(id); e != nil {
		e.Expires = expires
		if expires.Before(s.soonest) {
			s.soonest = expires
		}
	}
	return nil
}

// Replace implements session.Store. It does not look at its context.
func (s *Sessions) Replace(_ context.Context, id session.ID, old, sealed []byte) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.find(id)
	if e == nil || !bytes.Equal(e.Sealed, old) {
		return false, nil
	}
	if s.used+len(sealed)-len(old) > s.room {
		return false, session.ErrFull
	}
	s.used += len(sealed) - len(old)
	e.Sealed = slices.Clone(sealed) // a new one: Get has given the old one away
	return true, nil
}

// Delete implements session.Store. It does not look at its context.
func (s *Sessions) Delete(_ context.Context, id session.ID) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e, ok := s.entries[id]; ok {
		s.drop(e)
	}
	return nil
}

// DeleteAll implements session.Store. It does not look at its context.
func (s *Sessions) DeleteAll(_ context.Context, index session.ID) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range slices.Clone(s.indexes[index]) {
		s.drop(s.entries[id])
	}
	return nil
}
