package session

import (
	"context"
	"crypto/sha256"
	"errors"
	"time"
)

// ID names an Entry, or an index of entries. It is a hash: who knows it has nothing.
type ID [sha256.Size]byte

// Entry is what a Store keeps: a session, or a mark that something has happened.
type Entry struct {
	ID ID
	// Indexes are the names under which DeleteAll finds the entry.
	Indexes []ID
	// Sealed is the content: at most MaxSealed bytes that only the session's browser can read.
	Sealed []byte
	// Expires is until when the entry is kept.
	Expires time.Time
}

const (
	// MaxSealed is how many bytes an entry may hold.
	MaxSealed = 64 << 10
	// MaxIndexed is how many entries an index has. The next one takes the place of the one
	// that was put first: so a user who signs in over and over ends sessions of his own only.
	MaxIndexed = 64
)

// ErrFull is what Put says when a bounded Store has no room.
var ErrFull = errors.New("the store of sessions is full")

// Store keeps sessions. It is safe for concurrent use. An error means that it is not known
// whether something was done.
type Store interface {
	// Put keeps a new entry. It reports false, and keeps what there is, if there is one of that
	// ID. A store that is full forgets nobody's entry: it returns ErrFull.
	Put(ctx context.Context, e Entry) (fresh bool, err error)
	// Get returns an entry without its indexes. Sealed must not be changed.
	Get(ctx context.Context, id ID) (e Entry, ok bool, err error)
	// Touch lets an entry be kept until another time, if it is there.
	Touch(ctx context.Context, id ID, expires time.Time) error
	// Replace changes the content of an entry whose content is old, and reports whether it did.
	Replace(ctx context.Context, id ID, old, sealed []byte) (done bool, err error)
	// Delete forgets an entry, if it is there.
	Delete(ctx context.Context, id ID) error
	// DeleteAll forgets all entries of an index.
	DeleteAll(ctx context.Context, index ID) error
}
