package alert

import (
	"testing"
	"time"
)

// An episode is told once when it begins and once when it ends, whatever it does in between.
func TestAnEpisodeFiresOnceAndResolvesOnce(t *testing.T) {
	const minute = time.Minute
	for _, c := range []struct {
		name           string
		lasting, quiet time.Duration
		high           string // a minute for each, h is too high
		want           string // f fires, r resolves
	}{
		{"it is never too high", 0, 0, "------", "......"},
		{"at once", 0, 0, "-hhh--", ".f..r."},
		{"up and down faster than it is quiet", 0, 3 * minute, "h-h--hhh-h--h---h", "f..............r" + "f"},
		{"it is quiet for long enough", 0, 3 * minute, "h----h---", "f..r.f..r"},
		{"too short to be told", 2 * minute, 0, "hh-hh-hhh-", "........fr"},
		{"a break begins it anew", 3 * minute, 0, "hhh-hhhhh-", ".......f.r"},
		{"lasting and quiet", minute, 2 * minute, "hh-h--hh-", ".f...r.f."},
	} {
		var e Episode
		now := time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)
		got := ""
		for _, h := range c.high {
			got += map[Change]string{Same: ".", Fires: "f", Resolves: "r"}[e.Look(now, h == 'h', c.lasting, c.quiet)]
			now = now.Add(minute)
		}
		if got != c.want {
			t.Errorf("%s: %s came to %s; want %s", c.name, c.high, got, c.want)
		}
	}
}

// Since is when it was first too high, also in what is told of its end.
func TestAnEpisodeKnowsItsBeginning(t *testing.T) {
	var e Episode
	at := func(minutes int) time.Time { return time.Date(2026, 6, 1, 12, minutes, 0, 0, time.UTC) }
	for i, high := range []bool{false, true, true, false, false, true} {
		e.Look(at(i), high, time.Minute, time.Minute)
		if i >= 1 && i <= 3 && !e.Since().Equal(at(1)) {
			t.Errorf("minute %d: since %v", i, e.Since())
		}
	}
	if !e.Since().Equal(at(5)) {
		t.Errorf("the next one: since %v", e.Since())
	}
}
