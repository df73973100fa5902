package lab

import (
	"testing"
	"time"
)

// TestPreflightsThatAreRemembered: how often the browser asks first is all that tells these
// runs apart, and their outcome does not show it.
func TestPreflightsThatAreRemembered(t *testing.T) {
	l := open(t)
	lesson := l.lesson("preflight-cache")
	runs := append(lesson.Runs, lesson.Break...)
	want := map[string]int{"success": 1, "twice": 1, "zero": 2, "url": 2, "wider": 2, "other": 2}
	if len(runs) != len(want) {
		t.Fatalf("%d runs; want %d", len(runs), len(want))
	}
	for _, run := range runs {
		o, err := l.play(t.Context(), reader(l), &run, RoleAPI, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		asked := 0
		for _, e := range o.Events {
			if e.Kind == eventArrived && e.Preflight {
				asked++
			}
		}
		if asked != want[run.ID] {
			t.Errorf("%s: %d preflights; want %d", run.ID, asked, want[run.ID])
		}
	}
}
