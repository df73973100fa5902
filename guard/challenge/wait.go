package challenge

import (
	"context"
	"time"

	"github.com/moat-gateway/moat/guard"
)

// Pause is what a visitor without script is to wait for.
type Pause struct {
	Token string
	// Left is for how long the token is good for nothing yet.
	Left time.Duration
}

// Wait asks a visitor whose browser runs no script to wait: 1 second if nothing else would be
// asked for, and 3 to 10 where others work, rounded up to the next second of the clock.
//
// A wait keeps no program from waiting a thousand times at once. What is given for it should
// be less than what is given for work. Who waits counts where he comes from, and among all that
// wait: others do not work for it.
func (g *Guard) Wait(f Facts) Pause {
	return g.pause(&f, g.asked(&f, wait))
}

func (g *Guard) pause(f *Facts, bits int) Pause {
	t := g.keys.seal(wait, 0, uint8(bits), f.Bind, f.Now) //nolint:gosec // 0 to 26.
	return Pause{Token: t.text(), Left: t.from().Sub(f.Now)}
}

// from is when a wait is over.
func (t *token) from() time.Time {
	return time.Unix(t.expires(), 0).Add(waitFor(int(t[7])) - Lifetime)
}

// waitFor is the wait that stands for so many bits of work.
func waitFor(bits int) time.Duration {
	return time.Duration(min(max(bits-12, 1), 10)) * time.Second
}

// Waited admits and counts a visitor who comes back after a wait; or it refuses, and says
// what to wait for now. Who comes back early keeps what was waited.
func (g *Guard) Waited(ctx context.Context, f Facts, text string, once Once) (Pause, guard.Decision) {
	t, ok := g.keys.open(wait, text)
	if !ok {
		return g.Wait(f), failed("a token that is malformed or not signed here", "the token as it was issued")
	}
	if d := g.current(&t, &f); d.Denied() {
		return g.Wait(f), d
	}
	if left := t.from().Sub(f.Now); left > 0 {
		return Pause{Token: text, Left: left}, guard.Denial(guard.ChallengeRequired, "challenge", "a wait that is not over", "another "+left.String())
	}
	if d := spend(ctx, &t, once); d.Reason == guard.TicketUnavailable {
		return Pause{}, d
	} else if d.Denied() {
		return g.Wait(f), d
	}
	if bits := g.admit(&f, wait, int(t[7])); bits > 0 {
		return g.pause(&f, bits), required(bits)
	}
	return Pause{}, guard.Decision{Reason: guard.ChallengeSolved}
}
