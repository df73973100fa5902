package e2e

import (
	"strings"
	"testing"
	"time"
)

// place is where a scenario's requests go.
type place struct {
	origin  string
	backend *express
	gate    *moat // nil where nothing stands before the backend
}

// stage is a backend and, on its own, the same behind moat, with the pages that call
// them.
type stage struct {
	pages         map[string]string // origins, by where the pages are from
	bare, guarded *express
	gate          *moat
}

func newStage(t *testing.T) stage {
	t.Helper()
	pages := map[string]string{
		stranger: startSite(t, "evil.test"), neighbour: startSite(t, "127.0.0.1"),
		sibling: startSite(t, "localhost"), friendly: startSite(t, "localhost"),
	}
	s := stage{pages: pages, bare: startExpress(t, pages[friendly]), guarded: startExpress(t, pages[friendly])}
	s.gate = startMoat(t, moatYAML(s.guarded, pages[friendly]))
	return s
}

func (s stage) bareBackend() place { return place{s.bare.origin, s.bare, nil} }
func (s stage) behindMoat() place  { return place{s.gate.origin, s.guarded, s.gate} }

func TestScenarios(t *testing.T) {
	thorough(t)
	on := newStage(t)
	for _, s := range scenarios {
		t.Run(s.name, func(t *testing.T) {
			s.check(t)
			t.Run("bare", func(t *testing.T) {
				t.Parallel()
				s.run(t, on.pages, on.bareBackend(), s.bare)
			})
			t.Run("moat", func(t *testing.T) {
				t.Parallel()
				s.run(t, on.pages, on.behindMoat(), s.moat)
			})
		})
	}
}

// check holds the table to what it is there to prove.
func (s scenario) check(t *testing.T) {
	t.Helper()
	switch s.kind {
	case attack:
		if s.bare.runs != 1 && s.bare.arrived != "OPTIONS" {
			t.Errorf("only a preflight keeps an attack from the bare backend: %v", s.bare)
		}
		if s.moat.arrived != "" || s.moat.runs != 0 || s.moat.code == "" {
			t.Errorf("an attack must not pass moat, and moat must say why: %v", s.moat)
		}
	case use:
		if s.bare.runs != 1 || s.moat.runs != 1 || s.moat.saw != s.bare.saw || s.moat.code != "" {
			t.Errorf("through moat it must work as it does without: bare %v; moat %v", s.bare, s.moat)
		}
	case fault:
		if !strings.HasPrefix(s.moat.saw, "cors ") && (s.moat.cors == "" || strings.Contains(s.moat.cors, "AllowOrigin")) {
			t.Errorf("the friendly page must be able to tell why: %v", s.moat)
		}
	}
}

// run lets it happen, in a tab of its own, and compares what came of it.
func (s scenario) run(t *testing.T, pages map[string]string, api place, want outcome) {
	b := newTab(t)
	b.open(api.origin + "/login")
	page := pages[s.page]
	switch s.page {
	case own:
		page = api.origin
	case private:
		page = api.origin + "/?referrer=no-referrer"
	case rebound:
		page = strings.Replace(api.origin, "localhost", "evil.test", 1)
	}
	b.open(page)
	api.backend.reset()
	b.forget()
	since := ""
	if api.gate != nil {
		since = api.gate.lastDecision()
	}

	var got outcome
	do := strings.NewReplacer("{stranger}", pages[stranger]).Replace(s.do)
	if do != "" {
		got.saw = b.run(api.origin, do)
	}
	if s.click != "" {
		b.click(s.click)
	}
	if s.types != "" {
		b.open(api.origin + s.types)
	}
	if s.leaves {
		got.saw = b.shows(api.origin)
	}
	b.settled(api.origin)
	// What script does not wait for may still be on its way, to the end that is expected
	// or to another.
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(pause) {
		got = s.look(b, api, since, got)
		if got == want || time.Now().After(deadline) {
			break
		}
	}
	b.close()
	if got = s.look(b, api, since, got); got != want {
		t.Errorf("%s\n got %v\nwant %v", do, got, want)
	}
	l := api.backend.ledger()
	if l.Balance != 1000-50*l.Runs["transfer"] || l.Deleted != l.Runs["delete"] {
		t.Errorf("%d of 1000 are left and %d things deleted after the runs %v", l.Balance, l.Deleted, l.Runs)
	}
	for _, r := range l.Requests {
		if s.origin != "" && r.Origin != s.origin {
			t.Errorf("the backend got the Origin %q, not %q", r.Origin, s.origin)
		}
	}
}

// look reads what has come of it so far; got has what the page saw.
func (s scenario) look(b *tab, api place, since string, got outcome) outcome {
	l := api.backend.ledger()
	got.arrived, got.runs, got.cookies = l.arrived(), l.runs(), l.cookies()
	got.cors = b.corsErrors(api.origin)
	if api.gate != nil {
		got.code = codes(api.gate.decisions(since))
	}
	return got
}
