package session

import (
	"context"
	"errors"
	"strconv"
	"time"

	"golang.org/x/oauth2"

	"github.com/moat-gateway/moat/guard"
)

const (
	// renewBefore is how long before its end an access token is renewed, or a fifth of its life
	// if that is less.
	renewBefore = time.Minute
	// unsaidLife is that of an access token whose provider does not say.
	unsaidLife = time.Hour
	// claimed is for how long the process that renews a session's tokens is the only one.
	claimed = 30 * time.Second
	// look is how often a process looks whether another one has renewed them.
	look = 50 * time.Millisecond
)

func accessLife(tok *oauth2.Token) time.Duration {
	if tok.ExpiresIn <= 0 {
		return unsaidLife
	}
	return time.Duration(min(tok.ExpiresIn, 365*24*3600)) * time.Second
}

// flight is a renewal that several requests wait for.
type flight struct {
	done   chan struct{}
	access string
	d      guard.Decision
}

// AccessToken returns the provider's access token of a session, renewed if it is due: once for
// all requests that need it, also of other processes that share the Store.
func (g *Guard) AccessToken(ctx context.Context, text string, now time.Time) (string, guard.Decision) {
	s, d := g.open(ctx, text, now)
	if d.Denied() {
		return "", d
	}
	ends := time.UnixMilli(s.record.AccessUntil)
	if now.Before(time.UnixMilli(s.record.AccessDue)) {
		return s.record.Access, guard.Decision{}
	}
	if s.record.Refresh == "" {
		if now.Before(ends) {
			return s.record.Access, guard.Decision{}
		}
		return "", deny(guard.SessionExpired, "its access token has expired, and there is no refresh token", "a session of a provider that gives refresh tokens")
	}
	f := g.renewal(ctx, s, now)
	select {
	case <-f.done:
	case <-ctx.Done():
		return "", guard.Denial(guard.RequestAborted, "the client's connection", "closed", "open until there is a token")
	}
	if f.d.Reason == guard.IdentityUnavailable && now.Before(ends) {
		return s.record.Access, guard.Decision{}
	}
	return f.access, f.d
}

// renewal is the one of the session that is under way, or a new one.
func (g *Guard) renewal(ctx context.Context, s *session, now time.Time) *flight {
	g.mu.Lock()
	defer g.mu.Unlock()
	f, ok := g.flights[s.entry.ID]
	if !ok {
		f = &flight{done: make(chan struct{})}
		g.flights[s.entry.ID] = f
		// A provider that has given new tokens may honour the old ones no more: no client's
		// leaving may lose them.
		go g.land(context.WithoutCancel(ctx), f, s, now)
	}
	return f
}

func (g *Guard) land(ctx context.Context, f *flight, s *session, now time.Time) {
	ctx, cancel := context.WithTimeout(ctx, 2*askTimeout)
	defer cancel()
	f.access, f.d = g.renew(ctx, s, now)
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.flights, s.entry.ID)
	close(f.done)
}

// renew renews the tokens, unless another process has or does.
func (g *Guard) renew(ctx context.Context, s *session, now time.Time) (string, guard.Decision) {
	claim := hashed("renewal", string(s.entry.ID[:]), strconv.Itoa(s.record.Renewed))
	tick := time.NewTicker(look)
	defer tick.Stop()
	for {
		mine, err := g.store.Put(ctx, Entry{ID: claim, Expires: time.Now().Add(claimed)})
		if err != nil {
			return "", unavailable(err)
		}
		e, ok, err := g.store.Get(ctx, s.entry.ID)
		switch {
		case err != nil:
			return "", unavailable(err)
		case !ok:
			return "", deny(guard.SessionUnknown, "signed out meanwhile", "a session")
		}
		current := &session{secret: s.secret, entry: e}
		switch d := g.unseal(current); {
		case d.Denied():
			return "", d
		case current.record.Renewed != s.record.Renewed:
			return current.record.Access, guard.Decision{}
		case mine:
			return g.exchange(ctx, current, claim, now)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return "", unavailable(errors.New("another process renews the access token, and has not done so in time"))
		}
	}
}

// exchange renews the tokens. Nobody else does so meanwhile.
func (g *Guard) exchange(ctx context.Context, s *session, claim ID, now time.Time) (string, guard.Decision) {
	p, d := g.provider.get(ctx, now)
	if d.Denied() {
		g.store.Delete(ctx, claim) //nolint:errcheck // it expires by itself.
		return "", d
	}
	ask, cancel := g.provider.context(ctx)
	defer cancel()
	tok, err := p.conf.TokenSource(ask, &oauth2.Token{RefreshToken: s.record.Refresh}).Token()
	var said *oauth2.RetrieveError
	switch {
	case errors.As(err, &said) && said.ErrorCode == "invalid_grant":
		// The provider has ended what the session stands on.
		if err = g.store.Delete(ctx, s.entry.ID); err != nil {
			return "", unavailable(err)
		}
		return "", deny(guard.SessionExpired, "the provider honours its refresh token no more", "a session that the provider has not ended")
	case err != nil:
		g.store.Delete(ctx, claim) //nolint:errcheck // it expires by itself.
		return "", guard.Denial(guard.IdentityUnavailable, "the token endpoint", fault(err), "a token")
	}
	old := s.entry.Sealed
	if d = s.take(tok, now); !d.Denied() && idToken(tok) != "" {
		d = g.identify(ask, p, s, tok, "", now)
	}
	// What it was said to be it still is, where the new ID token cannot be checked at the moment.
	if d.Denied() && d.Reason != guard.IdentityUnavailable {
		g.store.Delete(ctx, s.entry.ID) //nolint:errcheck // its refresh token is used, so it ends here or at the next attempt.
		return "", deny(guard.SessionExpired, "its tokens were renewed, with "+d.Evidence.Where+" "+d.Evidence.Got, "tokens of the same user")
	}
	s.record.Renewed++
	sealed, err := g.seal(s)
	if err != nil {
		return "", guard.Denial(guard.IdentityUnavailable, "the session", short(err), "tokens that fit")
	}
	done, err := g.store.Replace(ctx, s.entry.ID, old, sealed)
	switch {
	case err != nil:
		return "", unavailable(err)
	case !done:
		return "", deny(guard.SessionUnknown, "signed out meanwhile", "a session")
	}
	return s.record.Access, guard.Decision{}
}
