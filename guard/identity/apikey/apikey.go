package apikey

import (
	"context"
	"crypto/subtle"
	"iter"
	"strings"
	"sync/atomic"
	"time"

	"github.com/moat-gateway/moat/guard"
	"github.com/moat-gateway/moat/guard/identity"
	"github.com/moat-gateway/moat/guard/identity/internal/principal"
)

// Set is the keys that there are, in memory. The zero Set holds none. It is safe for
// concurrent use.
type Set struct {
	keys atomic.Pointer[map[string]*entry]
}

// entry is a key and what Verify wants of it at hand.
type entry struct {
	key  Key
	used *atomic.Int64 // the minute of its last use; carried from one Replace to the next
	// principal is that of the Verifier that asked last: nearly always there is one.
	principal atomic.Pointer[identity.Principal]
}

// Replace makes keys all that there are. It must not be called twice at once.
func (s *Set) Replace(keys []Key) {
	next := make(map[string]*entry, len(keys))
	for _, k := range keys {
		e := &entry{key: k, used: new(atomic.Int64)}
		if before := s.entry(k.ID); before != nil {
			e.used = before.used
		}
		next[k.ID] = e
	}
	s.keys.Store(&next)
}

func (s *Set) entry(id string) *entry {
	if m := s.keys.Load(); m != nil {
		return (*m)[id]
	}
	return nil
}

// Used are the ids of the keys that have been used since a time, with the minute of their
// last use.
func (s *Set) Used(since time.Time) iter.Seq2[string, time.Time] {
	return func(yield func(string, time.Time) bool) {
		m := s.keys.Load()
		if m == nil {
			return
		}
		for id, e := range *m {
			if used := e.used.Load(); used > 0 && used >= minute(since) && !yield(id, time.Unix(used*60, 0).UTC()) {
				return
			}
		}
	}
}

func minute(t time.Time) int64 { return t.Unix() / 60 }

// Policy says whose keys they are. The zero Policy knows none.
type Policy struct {
	// Source is the name that the configuration has for these keys.
	Source string
	Keys   *Set
}

// Verifier finds out whose an API key is.
type Verifier struct{ p Policy }

// New makes a Verifier.
func New(p Policy) *Verifier {
	if p.Keys == nil {
		p.Keys = new(Set)
	}
	return &Verifier{p}
}

// Recognizes reports whether a text begins as a key does.
func (v *Verifier) Recognizes(text string) bool { return strings.HasPrefix(text, prefix) }

const where = "API key"

// nobody stands for a key that there is not, so that an id that nobody has costs what a
// wrong secret does. No text has this hash.
var nobody = new(entry)

// Verify says whose key it is.
func (v *Verifier) Verify(_ context.Context, text string, now time.Time) (*identity.Principal, guard.Decision) {
	id, hash, ok := parse(text)
	if !ok {
		return nil, guard.Denial(guard.APIKeyUnknown, where, "a text that is no key, or one with a typo", "moat_ID_SECRET with its check digits")
	}
	e := v.p.Keys.entry(id)
	if e == nil {
		e = nobody
	}
	if subtle.ConstantTimeCompare(hash[:], e.key.Hash[:]) != 1 {
		return nil, guard.Denial(guard.APIKeyUnknown, where, "id "+id, "the text of a key that was made here")
	}
	switch e.key.State(now) {
	case Revoked:
		return nil, guard.Denial(guard.APIKeyRevoked, where, "id "+id, "a key that has not been revoked or replaced")
	case Expired:
		return nil, guard.Denial(guard.APIKeyExpired, where, "id "+id+", good until "+e.key.Expires.Format(time.RFC3339), "a key that has not expired")
	case Active, Replaced:
	}
	// Most requests find the minute there already, and no core takes the line from another.
	if m := minute(now); e.used.Load() < m {
		e.used.Store(m)
	}
	return e.principalOf(v.p.Source), guard.Decision{Reason: guard.IdentityVerified}
}

func (e *entry) principalOf(source string) *identity.Principal {
	if p := e.principal.Load(); p != nil && p.Source() == source {
		return p
	}
	k := &e.key
	claims := map[string]any{"key_id": k.ID}
	if k.Note != "" {
		claims["note"] = k.Note
	}
	expires := k.Expires
	if k.ReplacedBy != "" && (expires.IsZero() || k.GraceUntil.Before(expires)) {
		expires = k.GraceUntil
	}
	p := principal.New(principal.Facts{
		Source: source, Method: principal.APIKey, Subject: k.Owner, Scopes: k.Scopes, Claims: claims, Expires: expires, Credential: k.ID,
	})
	e.principal.Store(p)
	return p
}
