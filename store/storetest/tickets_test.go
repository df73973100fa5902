package storetest_test

import (
	"context"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/moat-gateway/moat/guard/ticket"
	"github.com/moat-gateway/moat/store/storetest"
)

// tickets is the simplest store of tickets: maps behind a mutex. It too can be told to do
// one thing wrong.
type tickets struct {
	fault string
	room  int

	mu    sync.Mutex
	since time.Time
	next  uint64
	uses  map[[2]uint64]bool
	marks map[[2]uint64]time.Time
}

func openTickets(fault string, room int) *tickets {
	return &tickets{fault: fault, room: room, since: time.Now(), next: 1 << 40, uses: map[[2]uint64]bool{}, marks: map[[2]uint64]time.Time{}}
}

func TestTicketsWithoutFaultsPass(t *testing.T) {
	storetest.RunTickets(t, func(*testing.T) (a, b ticket.Store) {
		s := openTickets(*fault, 1<<20)
		if s.is("nodes do not share") {
			return s, openTickets(*fault, 1<<20)
		}
		return s, s
	})
	storetest.RunFull(t, func(*testing.T) ticket.Store { return openTickets(*fault, 1000) })
}

var ticketFaults = []string{
	"nodes do not share", "nothing is locked", "numbers repeat", "numbers are too large", "nothing is ever full",
	"room is made by forgetting uses", "room is made by forgetting marks",
	"every use is first", "no use is first", "uses share a bit", "tickets share a word", "uses are taken modulo 32",
	"any number is known", "numbers lose their high bits", "any lineage is the present one", "the lineage is not known", "it began in the future",
	"every mark is first", "spaces share marks", "marks lose their high bits", "marks expire early", "marks never expire",
	"another expiry is another mark", "what has expired is marked",
}

func TestEveryFaultOfTicketsIsFound(t *testing.T) {
	for _, f := range ticketFaults {
		t.Run(f, func(t *testing.T) {
			t.Parallel()
			out, err := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestTicketsWithoutFaultsPass$", "-test.failfast", "-test.timeout=60s", "-fault="+f).CombinedOutput()
			if err == nil || !strings.Contains(string(out), "--- FAIL") {
				t.Errorf("it passes: %v\n%s", err, out)
			}
		})
	}
}

func (s *tickets) is(fault string) bool { return s.fault == fault }

// lock is let go for a moment where a store without a lock would be.
func (s *tickets) gap() {
	if s.is("nothing is locked") {
		s.mu.Unlock()
		runtime.Gosched()
		s.mu.Lock()
	}
}

func (s *tickets) Lineage() (ticket.Lineage, time.Time, bool) {
	since := s.since
	if s.is("it began in the future") {
		since = since.Add(time.Hour)
	}
	return ticket.Lineage{1}, since, !s.is("the lineage is not known")
}

func (s *tickets) Number(context.Context) (ticket.Lineage, uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.next
	if n-1<<40 >= uint64(s.room) && !s.is("nothing is ever full") {
		if !s.is("room is made by forgetting uses") || n-1<<40 > uint64(2*s.room) {
			return ticket.Lineage{}, 0, ticket.ErrFull
		}
		clear(s.uses)
	}
	if n-1<<40 > 1<<16 {
		panic("it is never full")
	}
	s.gap()
	s.next = n + 1
	switch {
	case s.is("numbers repeat") && n%1000 == 999:
		n--
	case s.is("numbers are too large"):
		n |= 1 << 48
	}
	return ticket.Lineage{1}, n, nil
}

func (s *tickets) Use(_ context.Context, l ticket.Lineage, number uint64, use uint8) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.is("numbers lose their high bits") {
		number = 1<<40 | number&(1<<40-1)
	}
	if s.is("uses are taken modulo 32") {
		if use %= 32; s.uses[[2]uint64{number, uint64(use)}] {
			return true, nil
		}
	}
	known := number >= 1<<40 && number < s.next || s.is("any number is known")
	if use > 31 || !known || l != (ticket.Lineage{1}) && !s.is("any lineage is the present one") {
		return false, nil
	}
	k := [2]uint64{number, uint64(use)}
	switch s.fault {
	case "uses share a bit":
		k[1] = 0
	case "tickets share a word":
		k[0] /= 2
	}
	first := !s.uses[k]
	s.gap()
	s.uses[k] = true
	return (first || s.is("every use is first")) && !s.is("no use is first"), nil
}

func (s *tickets) Once(_ context.Context, space uint8, id uint64, expires time.Time) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if !expires.After(now) && !s.is("what has expired is marked") {
		return false, nil
	}
	switch s.fault {
	case "spaces share marks":
		space = 0
	case "marks lose their high bits":
		id &= 1<<32 - 1
	case "another expiry is another mark":
		id += uint64(expires.Unix())
	}
	k := [2]uint64{uint64(space), id}
	until, marked := s.marks[k]
	if marked && (now.Before(until) || s.is("marks never expire")) {
		return s.is("every mark is first"), nil
	}
	if len(s.marks) >= s.room && !s.is("nothing is ever full") {
		if !s.is("room is made by forgetting marks") || id > uint64(2*s.room) {
			return false, ticket.ErrFull
		}
		clear(s.marks)
	}
	if len(s.marks) > 1<<16 {
		panic("it is never full")
	}
	s.gap()
	if s.is("marks expire early") {
		expires = expires.Add(-time.Second)
	}
	s.marks[k] = expires
	return true, nil
}
