package valkey

import (
	"context"
	"encoding/base64"
	"strconv"
	"time"

	"github.com/moat-gateway/moat/guard/identity/session"
)

// Sessions is a session.Store in the servers of a Store, for all processes that share it. Use
// Store.Sessions.
type Sessions struct {
	s    *Store
	root string // which all names begin with
	slot int
}

var _ session.Store = (*Sessions)(nil)

// Sessions returns the store of sessions. It ends with the Store. Each call makes one round
// trip, and waits for it at most for the timeout.
func (s *Store) Sessions() *Sessions {
	root := s.cfg.Prefix + ":{sessions}"
	return &Sessions{s, root, slotOf(root)}
}

func (s *Sessions) entry(id session.ID) string {
	return s.root + ":" + base64.RawURLEncoding.EncodeToString(id[:])
}

func (s *Sessions) index(id session.ID) string {
	return s.root + ":index:" + base64.RawURLEncoding.EncodeToString(id[:])
}

// until is when an entry expires: in milliseconds since 1970, and from now.
func until(expires time.Time) (at, left string) {
	return strconv.FormatInt(expires.UnixMilli(), 10), strconv.FormatInt(max(time.Until(expires).Milliseconds(), 1), 10)
}

// Put implements session.Store. It is never full: the server refuses what it has no room for.
func (s *Sessions) Put(ctx context.Context, e session.Entry) (bool, error) {
	keys := []string{s.entry(e.ID)}
	for _, index := range e.Indexes {
		keys = append(keys, s.index(index))
	}
	at, left := until(e.Expires)
	return s.done(ctx, newCall(putSession, keys, []string{string(e.Sealed), at, left, strconv.Itoa(session.MaxIndexed)}))
}

// Get implements session.Store.
func (s *Sessions) Get(ctx context.Context, id session.ID) (session.Entry, bool, error) {
	c := newCall(getSession, []string{s.entry(id)}, nil)
	c.words = true
	if err := s.s.call(ctx, s.slot, c); err != nil {
		return session.Entry{}, false, err
	}
	switch {
	case len(c.reply) == 1 && c.reply[0] == 0:
		return session.Entry{}, false, nil
	case len(c.reply) != 2:
		return session.Entry{}, false, &unavailable{errReply}
	}
	return session.Entry{ID: id, Sealed: []byte(c.word), Expires: time.UnixMilli(c.reply[1])}, true, nil
}

// Touch implements session.Store.
func (s *Sessions) Touch(ctx context.Context, id session.ID, expires time.Time) error {
	at, left := until(expires)
	return s.s.call(ctx, s.slot, newCall(touchSession, []string{s.entry(id)}, []string{at, left}))
}

// Replace implements session.Store.
func (s *Sessions) Replace(ctx context.Context, id session.ID, old, sealed []byte) (bool, error) {
	return s.done(ctx, newCall(replaceSession, []string{s.entry(id)}, []string{string(old), string(sealed)}))
}

// Delete implements session.Store.
func (s *Sessions) Delete(ctx context.Context, id session.ID) error {
	return s.s.call(ctx, s.slot, newCall(deleteSession, []string{s.entry(id)}, nil))
}

// DeleteAll implements session.Store.
func (s *Sessions) DeleteAll(ctx context.Context, index session.ID) error {
	return s.s.call(ctx, s.slot, newCall(deleteSessions, []string{s.index(index)}, nil))
}

// done makes a call whose answer is whether it did something.
func (s *Sessions) done(ctx context.Context, c *call) (bool, error) {
	if err := s.s.call(ctx, s.slot, c); err != nil {
		return false, err
	}
	if len(c.reply) != 1 {
		return false, &unavailable{errReply}
	}
	return c.first(c.reply[0])
}
