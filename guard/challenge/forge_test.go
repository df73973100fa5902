package challenge_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/moat-gateway/moat/guard"
	"github.com/moat-gateway/moat/guard/challenge"
)

// solves holds an answer against docs/ticket-format.md, in its words.
func solves(token, solution []byte, puzzles, bits int) bool {
	if len(solution) != 4*puzzles {
		return false
	}
	for i := range puzzles {
		in := append(bytes.Clone(token), byte(i))
		in = append(in, solution[4*i:4*i+4]...)
		var digits strings.Builder
		for _, b := range sha256.Sum256(in) {
			fmt.Fprintf(&digits, "%08b", b)
		}
		if !strings.HasPrefix(digits.String(), strings.Repeat("0", bits)) {
			return false
		}
	}
	return true
}

// issued are challenges of one Guard, and answers to them.
func issued(t testing.TB, g *challenge.Guard, n int) (tokens, solutions [][]byte) {
	t.Helper()
	for range n {
		ask, _ := g.Decide(t.Context(), facts(noon), challenge.Answer{}, nil)
		a := solve(ask)
		tokens, solutions = append(tokens, decoded(t, a.Token)), append(solutions, decoded(t, a.Solution))
	}
	return tokens, solutions
}

func decoded(t testing.TB, s string) []byte {
	t.Helper()
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func everFirst(context.Context, uint64, time.Time) (bool, error) { return true, nil }

func accepts(t testing.TB, g *challenge.Guard, token, solution []byte) bool {
	t.Helper()
	text := base64.RawURLEncoding.EncodeToString
	_, d := g.Decide(t.Context(), facts(noon), challenge.Answer{Token: text(token), Solution: text(solution)}, everFirst)
	if !d.Denied() && d.Reason != guard.ChallengeSolved {
		t.Errorf("passes as %s", d.Reason)
	}
	return !d.Denied()
}

func TestNoFlippedBitIsAccepted(t *testing.T) {
	g := open(t, busy, secret)
	tokens, solutions := issued(t, g, 1)
	token, solution := tokens[0], solutions[0]
	if !accepts(t, g, token, solution) {
		t.Fatal("the answer itself is refused")
	}
	for i := range 8 * len(token) {
		token[i/8] ^= 1 << (i % 8)
		if accepts(t, g, token, solution) {
			t.Errorf("bit %d of the token can be flipped", i)
		}
		token[i/8] ^= 1 << (i % 8)
	}
	for i := range 8 * len(solution) {
		solution[i/8] ^= 1 << (i % 8)
		// One in 2,048 others is a solution as well.
		if got, want := accepts(t, g, token, solution), solves(token, solution, 16, 11); got != want {
			t.Errorf("with bit %d of the solution flipped: %v, want %v", i, got, want)
		}
		solution[i/8] ^= 1 << (i % 8)
	}
}

func TestNoSpliceIsAccepted(t *testing.T) {
	g := open(t, busy, secret)
	tokens, solutions := issued(t, g, 2)
	waiting := decoded(t, g.Wait(facts(noon.Add(-time.Minute))).Token)
	for _, from := range [][]byte{tokens[1], waiting, make([]byte, 36)} {
		for i := range 36 {
			for j := i + 1; j <= 36; j++ {
				spliced := bytes.Clone(tokens[0])
				copy(spliced[i:j], from[i:j])
				if bytes.Equal(spliced, tokens[0]) || bytes.Equal(spliced, from) {
					continue // nothing is spliced
				}
				for _, s := range solutions {
					if accepts(t, g, spliced, s) {
						t.Errorf("bytes %d to %d can be another token's", i, j)
					}
				}
				text := base64.RawURLEncoding.EncodeToString(spliced)
				if _, d := g.Waited(t.Context(), facts(noon), text, everFirst); !d.Denied() {
					t.Errorf("bytes %d to %d make a wait", i, j)
				}
			}
		}
	}
	if accepts(t, g, tokens[0], solutions[1]) || accepts(t, g, tokens[1], solutions[0]) {
		t.Error("the solution of another challenge is accepted")
	}
}

// Two secrets can have the same kid; then both are tried.
func TestSecretsOfOneKidAreHeldApart(t *testing.T) {
	kid := func(s []byte) byte {
		ask, _ := open(t, busy, s).Decide(t.Context(), facts(noon), challenge.Answer{}, nil)
		return decoded(t, ask.Token)[1]
	}
	twin := bytes.Repeat([]byte{9}, 32)
	for i := 0; kid(twin) != kid(secret); i++ {
		copy(twin, fmt.Sprintf("%08d", i))
	}
	g := open(t, busy, secret)
	tokens, solutions := issued(t, g, 1)
	if accepts(t, open(t, busy, twin), tokens[0], solutions[0]) {
		t.Error("accepted under another secret")
	}
	if !accepts(t, open(t, busy, twin, secret), tokens[0], solutions[0]) {
		t.Error("refused under the second of two secrets of one kid")
	}
}

// Whatever is sent, it is accepted if it is an issued token and solves it, and only then.
func FuzzOnlySolutionsAreAccepted(f *testing.F) {
	g := open(f, busy, secret)
	tokens, solutions := issued(f, g, 2)
	text := base64.RawURLEncoding.EncodeToString
	f.Add("", "", uint16(0), uint16(0), uint8(16))
	f.Add("", "", uint16(0), uint16(0), uint8(3))
	f.Add("", "", uint16(0), uint16(511), uint8(1))
	f.Add("\n", "=", uint16(287), uint16(3), uint8(31))
	f.Add(strings.Repeat("A", 48), strings.Repeat("A", 86), uint16(0), uint16(0), uint8(0))
	f.Fuzz(func(t *testing.T, token, solution string, flipToken, flipSolution uint16, how uint8) {
		a := challenge.Answer{Token: token, Solution: solution}
		if how > 0 { // not what the fuzzer made up, but what was issued, bent
			tok, sol := bytes.Clone(tokens[how%2]), bytes.Clone(solutions[how/2%2])
			if how&4 != 0 {
				tok[int(flipToken/8)%len(tok)] ^= 1 << (flipToken % 8)
			}
			if how&8 != 0 {
				sol[int(flipSolution/8)%len(sol)] ^= 1 << (flipSolution % 8)
			}
			a = challenge.Answer{Token: text(tok) + token, Solution: text(sol) + solution}
		}
		_, d := g.Decide(t.Context(), facts(noon), a, everFirst)
		want := false
		for _, tok := range tokens {
			sol, err := base64.RawURLEncoding.Strict().DecodeString(a.Solution)
			want = want || a.Token == text(tok) && err == nil && a.Solution == text(sol) && solves(tok, sol, 16, 11)
		}
		if d.Denied() == want {
			t.Errorf("%q: %s, want accepted: %v", a, d.Reason, want)
		}
	})
}
