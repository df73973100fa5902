package lab

import (
	"strings"
	"sync"
	"testing"
)

// TestLedgerForgetsTheOldest: in number and in size it has a bound, and the newest are there.
func TestLedgerForgetsTheOldest(t *testing.T) {
	l := newLedger()
	l.begin()
	for range 3 * maxEvents {
		l.note(l.arrive(), Event{Kind: eventArrived})
	}
	events := l.of(1)
	if len(events) != maxEvents || events[maxEvents-1].Request != 3*maxEvents || events[0].Seq != 2*maxEvents+1 {
		t.Errorf("%d events, the first %+v, the last %+v", len(events), events[0], events[len(events)-1])
	}
	for range 100 {
		l.note(l.arrive(), Event{Kind: eventArrived, Body: strings.Repeat("x", maxSize/10)})
	}
	if events = l.of(1); len(events) != 10 || events[9].Request != 3*maxEvents+100 {
		t.Errorf("%d events of a tenth of the bound each", len(events))
	}
	l.note(l.arrive(), Event{Kind: eventRan, Did: "one more"})
	if events = l.of(1); len(events) != 10 || events[9].Did != "one more" || l.size > maxSize {
		t.Errorf("%d events, %d bytes", len(events), l.size)
	}
}

// TestEventsBelongToTheRunOfTheirRequest: whatever has begun since.
func TestEventsBelongToTheRunOfTheirRequest(t *testing.T) {
	l := newLedger()
	first := l.begin()
	c := l.arrive()
	l.note(c, Event{Kind: eventArrived})
	second := l.begin()
	other := l.arrive()
	again, err := parseCall(c.String())
	if err != nil || again != c {
		t.Fatalf("%v is read as %v: %v", c, again, err)
	}
	l.note(other, Event{Kind: eventArrived})
	l.note(again, Event{Kind: eventAnswered})
	if got := l.of(first); len(got) != 2 || got[1].Kind != eventAnswered || got[1].Request != 1 || got[1].Seq != 3 {
		t.Errorf("the first run has %+v", got)
	}
	if got := l.of(second); len(got) != 1 || got[0].Request != 1 {
		t.Errorf("the second run has %+v", got)
	}
}

// TestSinceMissesNothing: who follows the ledger by its changes gets every event once, in
// order, however fast they come.
func TestSinceMissesNothing(t *testing.T) {
	l := newLedger()
	const writers, each = 8, 50
	var wg sync.WaitGroup
	for range writers {
		wg.Go(func() {
			for range each {
				l.note(l.arrive(), Event{Kind: eventArrived})
			}
		})
	}
	for seq := 0; seq < writers*each; {
		events, changed := l.since(seq)
		for _, e := range events {
			if e.Seq != seq+1 {
				t.Fatalf("event %d follows %d", e.Seq, seq)
			}
			seq = e.Seq
		}
		if seq < writers*each {
			<-changed
		}
	}
	wg.Wait()
}
