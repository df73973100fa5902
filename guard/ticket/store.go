package ticket

import (
	"context"
	"errors"
	"time"
)

// Lineage is an unbroken memory of which uses have been honoured. A store that may have
// forgotten one begins another lineage, and tickets of the old one are worth nothing: so no
// use is honoured twice because somebody forgot the first.
type Lineage [16]byte

// Store remembers what has been used. Package store/memory has one for one process, and
// store/valkey one that many share; package store/storetest has the tests that any other
// must pass. A Store is safe for concurrent use.
//
// A Store fails closed: whatever it cannot know to be the first use it does not report as
// one. It never blocks for longer than its own stated bound.
type Store interface {
	// Lineage is the present one and the time since when it has been; ok is false while that
	// is not known. It does not block.
	Lineage() (l Lineage, since time.Time, ok bool)
	// Number returns a number below 1<<48 that no other ticket of the lineage has. The ticket
	// expires MaxLifetime from now at the latest.
	Number(ctx context.Context) (Lineage, uint64, error)
	// Use marks one use (0 to 31) of the numbered ticket, and reports whether it was the first
	// to do so. A lineage that is not the present one, or a number that the store did not give out in it, was never the first.
	Use(ctx context.Context, l Lineage, number uint64, use uint8) (first bool, err error)
	// Once marks something that somebody else has numbered, such as a solved challenge, and
	// reports whether it was the first to do so until expires. Space tells kinds apart.
	Once(ctx context.Context, space uint8, id uint64, expires time.Time) (first bool, err error)
}

// MaxLifetime is the longest that a ticket can live.
const MaxLifetime = 10 * time.Minute

// ErrFull is the error of a Store that has no room left. It forgets nothing to make room.
var ErrFull = errors.New("no room left for tickets")
