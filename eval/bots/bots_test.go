package main

import (
	"context"
	"maps"
	"math"
	"os"
	"regexp"
	"testing"
)

// The figures are those of R's binom.confint(k, n, methods = "wilson").
func TestWilson(t *testing.T) {
	for _, c := range []struct {
		k, n      int
		low, high float64
	}{
		{0, 0, 0, 1}, {0, 20, 0, 0.1611}, {20, 20, 0.8389, 1}, {0, 50, 0, 0.0713}, {50, 50, 0.9287, 1}, {1, 10, 0.0179, 0.4042}, {5, 10, 0.2366, 0.7634},
	} {
		if low, high := wilson(c.k, c.n); math.Abs(low-c.low) > 5e-5 || math.Abs(high-c.high) > 5e-5 {
			t.Errorf("%d of %d: %.4f to %.4f; want %.4f to %.4f", c.k, c.n, low, high, c.low, c.high)
		}
	}
	if got, want := rate(20, 20), "100 % (84–100)"; got != want {
		t.Errorf("%q; want %q", got, want)
	}
	if got := rate(0, 0); got != "–" {
		t.Errorf("of none: %q", got)
	}
}

func TestRecordsAreAddedUp(t *testing.T) {
	v := verdict{points: map[string]int{}}
	for _, rec := range []record{
		{Where: "score 60", Got: "headers +20 (no Accept-Language), client +40 (headless); only reported: ja4 +40 (Chromium does not: 12 (x))"},
		{Where: "score 100", Got: "headers +20 (no Accept-Language), client +40 (headless); only reported: ja4 +40 (Chromium does not)"},
		{Where: "score 30", Got: "only reported: header_order +30 (x)"},
	} {
		if err := v.add(&rec); err != nil {
			t.Error(err)
		}
	}
	if want := map[string]int{"headers": 20, "client": 40, "ja4": 40, "header_order": 30}; v.score != 60 || v.all != 100 || !maps.Equal(v.points, want) {
		t.Errorf("%+v; want 60, 100, %v", v, want)
	}
	if err := v.add(&record{Where: "score 60", Got: "headers +20 (no Accept-L"}); err == nil {
		t.Error("a record whose signals are not its score is counted")
	}
}

// One visit with the real moat, so that the harness does not fall behind it. The browsers are for make eval-bots.
func TestAVisitIsJudged(t *testing.T) {
	if testing.Short() {
		t.Skip("builds moat and runs it: run without -short (make test does)")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*patience)
	defer cancel()
	b, err := prepare(ctx)
	if b != nil {
		defer os.RemoveAll(b.dir)
	}
	if err != nil {
		t.Fatal(err)
	}
	s, err := startSite(ctx, b.dir, b.file("moat"), botsYAML)
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	naive := regexp.MustCompile(`^Go net/http`)
	for _, tl := range tools("156") {
		if !naive.MatchString(tl.name) {
			continue
		}
		o := visits(ctx, b, s, &tl, 2)
		if o.visits != 2 || o.failed != 0 {
			t.Fatalf("%s: %d visits, %d failed: %v", tl.name, o.visits, o.failed, o.fault)
		}
		if reaching(o.all, challengeAt) != 2 || o.others["ticket-missing"] != 2 {
			t.Errorf("%s: scores %v, refused by %v", tl.name, o.all, o.others)
		}
	}
}
