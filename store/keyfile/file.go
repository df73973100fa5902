package keyfile

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"go.etcd.io/bbolt"

	"github.com/moat-gateway/moat/guard/identity/apikey"
)

const (
	pollEvery  = time.Second
	flushEvery = time.Minute
)

// File is a file of keys that is in use.
type File struct {
	path     string
	report   func(error)
	keys     apikey.Set
	revision string
	flushed  time.Time // when last uses were written; those before are in the file
	damaged  string    // the revision that was damaged when they were to be written
	stop     chan struct{}
	done     chan struct{}
}

// Open reads the file, and keeps up with it until Close. Report, which may be nil, is called
// when the file can no longer be read, or last uses not be written, and with nil when both
// work again.
func Open(path string, report func(error)) (*File, error) {
	f := &File{path: path, report: report, flushed: time.Now(), stop: make(chan struct{}), done: make(chan struct{})}
	if err := f.read(); err != nil {
		return nil, err
	}
	go f.follow()
	return f, nil
}

// Keys are the keys that the file has, or had when it could last be read.
func (f *File) Keys() *apikey.Set { return &f.keys }

// Close writes last uses, and no longer keeps up.
func (f *File) Close() error {
	close(f.stop)
	<-f.done
	return f.flush(time.Now())
}

func (f *File) follow() {
	defer close(f.done)
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	var unwritten error
	told := ""
	for {
		select {
		case <-f.stop:
			return
		case <-tick.C:
		}
		err, text := f.read(), ""
		if now := time.Now(); err == nil && now.Sub(f.flushed) >= flushEvery && f.damaged != f.revision {
			unwritten = f.flush(now)
		}
		if err == nil && unwritten != nil {
			err = fmt.Errorf("when keys were last used is not written: %w", unwritten)
		}
		if err != nil {
			text = err.Error()
		}
		if text != told && f.report != nil {
			f.report(err)
		}
		told = text
	}
}

func (f *File) read() error {
	keys, revision, err := load(f.path, f.revision)
	if err != nil || revision == f.revision {
		return err
	}
	f.keys.Replace(keys)
	f.revision = revision
	return nil
}

// flush writes last uses.
func (f *File) flush(now time.Time) error {
	uses := maps.Collect(f.keys.Used(f.flushed))
	// bbolt is slow when much is put into one page in one transaction, and nobody else can
	// write meanwhile.
	for ids := range slices.Chunk(slices.Sorted(maps.Keys(uses)), 1000) {
		err := within(f.path, writing, func(tx *bbolt.Tx) error { return writeUses(tx, ids, uses) })
		if errors.Is(err, errDamaged) {
			f.damaged = f.revision // each attempt at it would cost memory that bbolt does not give back
		}
		if err != nil {
			return err
		}
	}
	f.flushed = now
	return nil
}

// writeUses writes the last uses of some keys. Another process may have written later ones.
func writeUses(tx *bbolt.Tx, ids []string, uses map[string]time.Time) error {
	if _, err := revisionOf(tx); err != nil {
		return err
	}
	keys, used := tx.Bucket(bucketKeys), tx.Bucket(bucketUsed)
	for _, id := range ids {
		t := uses[id]
		if keys.Get([]byte(id)) == nil || !t.After(lastUsed(used.Get([]byte(id)))) {
			continue
		}
		if err := used.Put([]byte(id), binary.BigEndian.AppendUint64(nil, uint64(t.Unix()))); err != nil { //nolint:gosec // after 1970.
			return err
		}
	}
	return nil
}
