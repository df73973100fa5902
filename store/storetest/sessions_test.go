package storetest_test

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/moat-gateway/moat/guard/identity/session"
	"github.com/moat-gateway/moat/store/storetest"
)

// sessions is the simplest store of sessions. It too can be told to do one thing wrong.
type sessions struct {
	fault string
	room  int

	mu  sync.Mutex
	all []session.Entry // in the order in which they were put
}

func TestSessionsWithoutFaultsPass(t *testing.T) {
	storetest.RunSessions(t, func(*testing.T) (a, b session.Store) {
		s := &sessions{fault: *fault, room: 1 << 20}
		if s.is("handles do not share") {
			return s, &sessions{fault: *fault, room: 1 << 20}
		}
		return s, s
	})
	storetest.RunFullSessions(t, func(*testing.T) session.Store { return &sessions{fault: *fault, room: 100} })
}

var sessionFaults = []string{
	"handles do not share", "an entry is put twice", "nothing is locked", "entries never expire", "entries expire early", "what has expired cannot be put again",
	"touching does nothing", "touching makes entries", "touching leaves the indexes", "anybody replaces", "replacing makes entries", "replacing changes what was given away",
	"replacing does nothing", "deleting does nothing", "an index deletes nothing", "an index deletes all", "an entry's name is an index",
	"an index is never full", "a full index forgets its last", "what has expired fills an index", "content is text", "content is cut",
	"nothing is ever full", "room is made by forgetting", "content outgrows the room", "indexes are told",
}

func TestEveryFaultOfSessionsIsFound(t *testing.T) {
	var all sync.WaitGroup // all at once: they spend their time waiting for entries to expire
	for _, f := range sessionFaults {
		all.Go(func() {
			out, err := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestSessionsWithoutFaultsPass$", "-test.failfast", "-test.timeout=60s", "-fault="+f).CombinedOutput()
			if err == nil || !strings.Contains(string(out), "--- FAIL") {
				t.Errorf("%s: it passes: %v\n%s", f, err, out)
			}
		})
	}
	all.Wait()
}

func (s *sessions) is(fault string) bool { return s.fault == fault }

// gap lets the lock go for a moment where a store without one would be.
func (s *sessions) gap() {
	if s.is("nothing is locked") {
		s.mu.Unlock()
		runtime.Gosched()
		s.mu.Lock()
	}
}

// find is the index of an entry that has not expired, or -1.
func (s *sessions) find(id session.ID) int {
	now := time.Now()
	if s.is("entries expire early") {
		now = now.Add(time.Second)
	}
	return slices.IndexFunc(s.all, func(e session.Entry) bool {
		return e.ID == id && (now.Before(e.Expires) || s.is("entries never expire"))
	})
}

func (s *sessions) Put(_ context.Context, e session.Entry) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	found := s.find(e.ID) >= 0
	s.gap()
	switch {
	case found && !s.is("an entry is put twice"):
		return false, nil
	case s.is("what has expired cannot be put again") && slices.ContainsFunc(s.all, func(o session.Entry) bool { return o.ID == e.ID }):
		return false, nil
	}
	s.all = slices.DeleteFunc(s.all, func(o session.Entry) bool {
		return o.ID == e.ID || !s.is("what has expired fills an index") && !s.is("entries never expire") && !s.is("what has expired cannot be put again") && !time.Now().Before(o.Expires)
	})
	for _, index := range e.Indexes {
		var of []session.ID
		for _, o := range s.all {
			if slices.Contains(o.Indexes, index) {
				of = append(of, o.ID)
			}
		}
		if len(of) >= session.MaxIndexed && !s.is("an index is never full") {
			if s.is("a full index forgets its last") {
				slices.Reverse(of)
			}
			s.all = slices.DeleteFunc(s.all, func(o session.Entry) bool { return o.ID == of[0] })
		}
	}
	if len(s.all) >= s.room && !s.is("nothing is ever full") {
		if !s.is("room is made by forgetting") {
			return false, session.ErrFull
		}
		s.all = s.all[1:]
	}
	e.Sealed = bytes.Clone(e.Sealed)
	switch {
	case s.is("content is text"):
		e.Sealed, _, _ = bytes.Cut(e.Sealed, []byte{0})
	case s.is("content is cut"):
		e.Sealed = e.Sealed[:min(len(e.Sealed), 32<<10)]
	}
	s.all = append(s.all, e)
	return true, nil
}

func (s *sessions) Get(_ context.Context, id session.ID) (session.Entry, bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := s.find(id)
	if i < 0 {
		return session.Entry{}, false, nil
	}
	e := s.all[i]
	if !s.is("indexes are told") {
		e.Indexes = nil
	}
	return e, true, nil
}

func (s *sessions) Touch(_ context.Context, id session.ID, expires time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch i := s.find(id); {
	case s.is("touching does nothing"):
	case i >= 0:
		s.all[i].Expires = expires
		if s.is("touching leaves the indexes") {
			s.all[i].Indexes = nil
		}
	case s.is("touching makes entries"):
		s.all = append(s.all, session.Entry{ID: id, Expires: expires})
	}
	return nil
}

func (s *sessions) Replace(_ context.Context, id session.ID, old, sealed []byte) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := s.find(id)
	switch {
	case i < 0 && s.is("replacing makes entries"):
		s.all = append(s.all, session.Entry{ID: id, Sealed: sealed, Expires: time.Now().Add(time.Hour)})
		return true, nil
	case i < 0 || !bytes.Equal(s.all[i].Sealed, old) && !s.is("anybody replaces"):
		return false, nil
	case len(s.all) >= s.room && len(sealed) > len(old) && !s.is("content outgrows the room"):
		return false, session.ErrFull
	case s.is("replacing does nothing"):
	case s.is("replacing changes what was given away"):
		s.all[i].Sealed = append(s.all[i].Sealed[:0], sealed...)
	default:
		s.all[i].Sealed = bytes.Clone(sealed)
	}
	return true, nil
}

func (s *sessions) Delete(_ context.Context, id session.ID) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.is("deleting does nothing") {
		s.all = slices.DeleteFunc(s.all, func(e session.Entry) bool { return e.ID == id })
	}
	return nil
}

func (s *sessions) DeleteAll(_ context.Context, index session.ID) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.is("an index deletes nothing") {
		return nil
	}
	s.all = slices.DeleteFunc(s.all, func(e session.Entry) bool {
		return slices.Contains(e.Indexes, index) || s.is("an index deletes all") || s.is("an entry's name is an index") && e.ID == index
	})
	return nil
}
