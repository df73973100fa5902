package valkey

import (
	"context"
	"errors"
	"testing"
	"time"
)

// A Take may need several calls. Once its time is over none of them waits.
func TestADeadlineStaysOver(t *testing.T) {
	l := newLane(&Store{}, "")
	l.closed.Store(nil) // open, with nobody who works
	deadline := time.NewTimer(time.Millisecond)
	begun := time.Now()
	for range tolerated {
		if err := l.do(t.Context(), deadline, newCall(take, nil, nil)); !errors.Is(err, errTimeout) {
			t.Errorf("got %v", err)
		}
	}
	if took := time.Since(begun); took > time.Second {
		t.Errorf("%d calls took %s", tolerated, took)
	}
	if l.closed.Load() == nil {
		t.Error("the lane is still open")
	}
}

// What waits is bounded, and what does not fit fails at once.
func TestAQueueIsBounded(t *testing.T) {
	l := newLane(&Store{}, "")
	l.closed.Store(nil)
	gone, leave := context.WithCancel(t.Context())
	leave()
	for range queued {
		if err := l.do(gone, time.NewTimer(time.Hour), newCall(take, nil, nil)); !errors.Is(err, context.Canceled) {
			t.Fatalf("got %v", err)
		}
	}
	if err := l.do(t.Context(), time.NewTimer(time.Hour), newCall(take, nil, nil)); !errors.Is(err, errQueueFull) {
		t.Errorf("got %v", err)
	}
	l.post(newCall(take, nil, nil)) // does not wait either
	if l.closed.Load() != nil {
		t.Error("callers who leave have closed the lane")
	}
}
