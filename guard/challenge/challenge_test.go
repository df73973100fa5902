package challenge_test

import (
	"bytes"
	"context"
	"errors"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/moat-gateway/moat/guard"
	"github.com/moat-gateway/moat/guard/challenge"
	"github.com/moat-gateway/moat/guard/challenge/challengetest"
)

var (
	secret = bytes.Repeat([]byte{1}, 32)
	other  = bytes.Repeat([]byte{2}, 32)
	noon   = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	home   = netip.MustParseAddr("192.0.2.7")
	bind   = [4]byte{192, 0, 2, 1}
)

// busy asks everybody for the least work.
var busy = challenge.Policy{QuietAddress: 0.001, QuietNetwork: 0.001, QuietAll: 0.001, MaxBits: 15}

func open(t testing.TB, p challenge.Policy, secrets ...[]byte) *challenge.Guard {
	t.Helper()
	g, err := challenge.New(p, secrets)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// memory remembers what was used.
type memory struct {
	mu   sync.Mutex
	used map[uint64]bool
}

func (m *memory) once(_ context.Context, id uint64, _ time.Time) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.used == nil {
		m.used = map[uint64]bool{}
	}
	first := !m.used[id]
	m.used[id] = true
	return first, nil
}

func facts(now time.Time) challenge.Facts {
	return challenge.Facts{Now: now, Client: home, Bind: bind}
}

func solve(a challenge.Ask) challenge.Answer {
	return challenge.Answer{Token: a.Token, Solution: challengetest.Solve(a.Token, a.Puzzles, a.Bits)}
}

func want(t testing.TB, d guard.Decision, r guard.Reason) {
	t.Helper()
	if d.Reason != r || d.Denied() != (r != guard.OK && r != guard.ChallengeSolved) {
		t.Errorf("%s %s %+v, want %s", d.Outcome, d.Reason, d.Evidence, r)
	}
}

func TestAQuietVisitorIsAskedForNothing(t *testing.T) {
	g := open(t, challenge.Policy{}, secret)
	var m memory
	for i := range 7 {
		ask, d := g.Decide(t.Context(), facts(noon), challenge.Answer{}, m.once)
		want(t, d, guard.OK)
		if ask != (challenge.Ask{}) {
			t.Errorf("session %d is asked %+v", i+1, ask)
		}
	}
	ask, d := g.Decide(t.Context(), facts(noon), challenge.Answer{}, m.once)
	want(t, d, guard.ChallengeRequired)
	if len(ask.Token) != 48 || ask.Puzzles != 16 || ask.Bits != 11 {
		t.Errorf("asked %+v, want 16 puzzles of 11 bits", ask)
	}
}

func TestASolutionIsHonouredOnce(t *testing.T) {
	g := open(t, busy, secret)
	var m memory
	ask, d := g.Decide(t.Context(), facts(noon), challenge.Answer{}, m.once)
	want(t, d, guard.ChallengeRequired)
	a := solve(ask)
	_, d = g.Decide(t.Context(), facts(noon.Add(time.Minute)), a, m.once)
	want(t, d, guard.ChallengeSolved)
	again, d := g.Decide(t.Context(), facts(noon.Add(time.Minute)), a, m.once)
	want(t, d, guard.ChallengeFailed)
	if again.Token == "" || again.Token == ask.Token {
		t.Error("who fails gets no new challenge")
	}
}

func TestOfManyAtOnceOneIsHonoured(t *testing.T) {
	g := open(t, busy, secret)
	var m memory
	ask, _ := g.Decide(t.Context(), facts(noon), challenge.Answer{}, m.once)
	a := solve(ask)
	var wg sync.WaitGroup
	var mu sync.Mutex
	solved := 0
	for range 1000 {
		wg.Go(func() {
			if _, d := g.Decide(t.Context(), facts(noon), a, m.once); !d.Denied() {
				mu.Lock()
				solved++
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if solved != 1 {
		t.Errorf("%d are honoured", solved)
	}
}

func TestWhatIsNoSolution(t *testing.T) {
	issuer := open(t, busy, secret)
	ask, _ := issuer.Decide(t.Context(), facts(noon), challenge.Answer{}, nil)
	good := solve(ask)
	unused := func(context.Context, uint64, time.Time) (bool, error) {
		t.Error("marked as used before all else is checked")
		return true, nil
	}
	elsewhere := facts(noon)
	elsewhere.Bind[3]++
	for _, c := range []struct {
		name string
		g    *challenge.Guard
		f    challenge.Facts
		a    challenge.Answer
	}{
		{"no solution", issuer, facts(noon), challenge.Answer{Token: good.Token}},
		{"no token", issuer, facts(noon), challenge.Answer{Solution: good.Solution}},
		{"short solution", issuer, facts(noon), challenge.Answer{Token: good.Token, Solution: good.Solution[:84]}},
		{"long solution", issuer, facts(noon), challenge.Answer{Token: good.Token, Solution: good.Solution + "AAAA"}},
		{"padded", issuer, facts(noon), challenge.Answer{Token: good.Token + "=", Solution: good.Solution}},
		{"a line end", issuer, facts(noon), challenge.Answer{Token: good.Token, Solution: good.Solution[:85] + "\n"}},
		{"spare bits", issuer, facts(noon), challenge.Answer{Token: good.Token, Solution: good.Solution[:85] + "B"}},
		{"late", issuer, facts(noon.Add(challenge.Lifetime)), good},
		{"another client", issuer, elsewhere, good},
		{"another secret", open(t, busy, other), facts(noon), good},
		{"a secret with another's number", open(t, busy, other, bytes.Repeat([]byte{3}, 32)), facts(noon), good},
		{"huge", issuer, facts(noon), challenge.Answer{Token: strings.Repeat("A", 1<<20), Solution: strings.Repeat("A", 1<<20)}},
	} {
		t.Run(c.name, func(t *testing.T) {
			ask, d := c.g.Decide(t.Context(), c.f, c.a, unused)
			want(t, d, guard.ChallengeFailed)
			if ask.Token == "" {
				t.Error("no new challenge")
			}
		})
	}
	var m memory
	_, d := open(t, busy, other, secret).Decide(t.Context(), facts(noon.Add(challenge.Lifetime-time.Second)), good, m.once)
	want(t, d, guard.ChallengeSolved)
}

func TestNothingIsHonouredWhileTheStoreIsDown(t *testing.T) {
	g := open(t, busy, secret)
	ask, _ := g.Decide(t.Context(), facts(noon), challenge.Answer{}, nil)
	ask, d := g.Decide(t.Context(), facts(noon), solve(ask), func(context.Context, uint64, time.Time) (bool, error) {
		return true, errors.New("no answer")
	})
	want(t, d, guard.TicketUnavailable)
	if ask != (challenge.Ask{}) {
		t.Error("work is asked for that cannot be honoured")
	}
}

func TestPolicyIsChecked(t *testing.T) {
	for _, c := range []struct {
		p       challenge.Policy
		secrets [][]byte
		want    string
	}{
		{challenge.Policy{QuietAddress: -1}, [][]byte{secret}, "the quiet rate of an address is -1"},
		{challenge.Policy{QuietAll: 1e9}, [][]byte{secret}, "the quiet rate of all is 1e+09"},
		{challenge.Policy{MaxBits: 14}, [][]byte{secret}, "want 2^15 to 2^26"},
		{challenge.Policy{MaxBits: 27}, [][]byte{secret}, "want 2^15 to 2^26"},
		{challenge.Policy{}, nil, "no secret"},
		{challenge.Policy{}, [][]byte{secret, []byte("hush")}, "secret 2 has 4 bytes"},
	} {
		_, err := challenge.New(c.p, c.secrets)
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "hush") {
			t.Errorf("%+v: %v, want %q", c.p, err, c.want)
		}
	}
}
