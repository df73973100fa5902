package challenge_test

import (
	"math"
	"testing"
	"time"

	"github.com/moat-gateway/moat/guard"
	"github.com/moat-gateway/moat/guard/challenge"
	"github.com/moat-gateway/moat/guard/challenge/challengetest"
)

var loose = challenge.Policy{QuietAddress: 1e6, QuietNetwork: 1e6, QuietAll: 1e6}

func TestAQuietVisitorCostsNoMemory(t *testing.T) {
	g := open(t, loose, secret)
	if n := testing.AllocsPerRun(1000, func() {
		g.Decide(t.Context(), facts(noon), challenge.Answer{}, everFirst)
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkQuiet(b *testing.B) {
	g := open(b, loose, secret)
	f := facts(noon)
	b.ReportAllocs()
	for b.Loop() {
		f.Now = f.Now.Add(10 * time.Millisecond)
		if _, d := g.Decide(b.Context(), f, challenge.Answer{}, everFirst); d.Denied() {
			b.Fatal(d)
		}
	}
}

func BenchmarkAsk(b *testing.B) {
	g := open(b, busy, secret)
	b.ReportAllocs()
	for b.Loop() {
		g.Decide(b.Context(), facts(noon), challenge.Answer{}, everFirst)
	}
}

func BenchmarkSolved(b *testing.B) {
	g := open(b, busy, secret)
	ask, _ := g.Decide(b.Context(), facts(noon), challenge.Answer{}, everFirst)
	a := solve(ask)
	b.ReportAllocs()
	for b.Loop() {
		if _, d := g.Decide(b.Context(), facts(noon), a, everFirst); d.Reason != guard.ChallengeSolved {
			b.Fatal(d)
		}
	}
}

// BenchmarkRefused is an answer whose first nonce is wrong, as of somebody who guesses.
func BenchmarkRefused(b *testing.B) {
	g := open(b, busy, secret)
	ask, _ := g.Decide(b.Context(), facts(noon), challenge.Answer{}, everFirst)
	a := solve(ask)
	a.Solution = "AAAAAA" + a.Solution[6:]
	b.ReportAllocs()
	for b.Loop() {
		g.Decide(b.Context(), facts(noon), a, everFirst)
	}
}

// BenchmarkSolve is what 2^15 hashes cost who has native code.
func BenchmarkSolve(b *testing.B) {
	g := open(b, busy, secret)
	n := 0
	for b.Loop() {
		ask, _ := g.Decide(b.Context(), facts(noon), challenge.Answer{}, everFirst)
		challengetest.Solve(ask.Token, ask.Puzzles, ask.Bits)
		n++
	}
	b.ReportMetric(float64(n)*math.Exp2(15)/b.Elapsed().Seconds()/1e6, "Mhash/s")
}
