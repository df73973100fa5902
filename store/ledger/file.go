package ledger

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"github.com/moat-gateway/moat/guard/budget"
)

// lockTimeout is how long another process may have the file: one that is just about to end.
const lockTimeout = 2 * time.Second

// The buckets, and what is in them.
var (
	bucketMeta  = []byte("moat budgets") // format, and since when the switch is on
	bucketBooks = []byte("books")        // a bucket for each budget and period: name: record

	keyFormat  = []byte("format")
	keyStopped = []byte("stopped")
)

const (
	format = "1"
	// maxName bounds what a damaged length can be.
	maxName    = 1 << 10
	recordSize = 4 + 4*8
)

// ErrInUse is what Open says of a file that another process has.
var ErrInUse = errors.New("another process has it: each gate needs a file of its own; gates that share budgets do so through store.valkey")

var (
	errForeign  = errors.New("not a file of budgets")
	errDamaged  = errors.New("damaged: restore it from a backup; or move it away, and what has been spent in this period is forgotten")
	errReplaced = errors.New("removed or replaced while it is in use: what has been spent would be forgotten at the next start; put it back, or start the gate anew")
)

// file is the file.
type file struct {
	path    string
	db      *bbolt.DB
	info    os.FileInfo
	created bool
	// damaged says that bbolt has panicked. It holds its locks then, so it is not asked again.
	damaged bool
}

func openFile(path string) (f *file, err error) {
	f = &file{path: path}
	var opened *os.File
	err = f.guarded(func() error {
		f.db, err = bbolt.Open(path, 0o600, &bbolt.Options{
			// The list of free pages is written: to find them anew bbolt reads the file in a goroutine whose
			// panics nobody can catch.
			Timeout: lockTimeout, NoStatistics: true,
			OpenFile: func(name string, flag int, mode os.FileMode) (*os.File, error) {
				opened, err = f.openSafe(name, flag, mode)
				return opened, err
			},
		})
		return err
	})
	if err != nil && opened != nil {
		opened.Close() //nolint:errcheck // nothing was written.
	}
	return f, err
}

// Check says whether Open could make or write the file, and changes nothing. Whether it is whole, and nobody
// else has it, only Open finds out.
func Check(path string) error {
	f := &file{path: path}
	return f.guarded(func() error {
		opened, err := f.openSafe(path, os.O_RDWR, 0)
		switch {
		case err == nil:
			return opened.Close()
		case !f.created:
			return err
		}
		probe, err := os.CreateTemp(filepath.Dir(path), ".moat-check-*") // not the file itself: a gate may be making that
		if err != nil {
			return err
		}
		return errors.Join(probe.Close(), os.Remove(probe.Name()))
	})
}

// openSafe opens a file that nobody but its owner can write.
func (f *file) openSafe(name string, flag int, mode os.FileMode) (*os.File, error) {
	before, err := os.Stat(name)
	if err == nil && before.IsDir() {
		return nil, errors.New("a folder; name a file in it")
	}
	f.created = errors.Is(err, fs.ErrNotExist)
	opened, err := os.OpenFile(name, flag, mode) //nolint:gosec // the operator named it.
	if err != nil {
		return nil, err
	}
	f.info, err = opened.Stat()
	switch {
	case err != nil:
	case !f.info.Mode().IsRegular():
		err = errors.New("not a file")
	case runtime.GOOS != "windows" && f.info.Mode().Perm()&0o022 != 0: // there, modes say nothing
		err = fmt.Errorf("others can write it (mode %04o), and so spend: chmod 600", f.info.Mode().Perm())
	case f.info.Size() == 0 && !f.created:
		err = errForeign // somebody has emptied it
	}
	if err != nil {
		opened.Close() //nolint:errcheck // nothing was written.
		return nil, err
	}
	return opened, nil
}

// guarded runs what touches the file. It is mapped into memory: if it is damaged bbolt panics, and if
// somebody cuts it short meanwhile the process would die, were it not for this.
func (f *file) guarded(do func() error) (err error) {
	if f.damaged {
		return fmt.Errorf("%s: %w", f.path, errDamaged)
	}
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if recover() != nil {
			f.damaged = true
			err = errDamaged // what is wrong with which page helps nobody
		}
		if e, ok := errors.AsType[*fs.PathError](err); ok {
			err = e.Err // the path stands in front in any case
		}
		switch {
		case err == nil:
			return
		case errors.Is(err, bolterrors.ErrInvalid), errors.Is(err, bolterrors.ErrVersionMismatch):
			err = errForeign
		case errors.Is(err, bolterrors.ErrChecksum):
			err = errDamaged
		case errors.Is(err, bolterrors.ErrTimeout):
			err = ErrInUse
		case errors.Is(err, fs.ErrNotExist):
			err = fmt.Errorf("%w: its folder is missing; make it for the user that moat runs as", err)
		case errors.Is(err, fs.ErrPermission):
			err = fmt.Errorf("%w: let the user that moat runs as write it and its folder", err)
		}
		err = fmt.Errorf("%s: %w", f.path, err)
	}()
	return do()
}

func (f *file) close() {
	f.guarded(f.db.Close) //nolint:errcheck // all has been written.
}

// load reads all that is in the file, or makes what is to be in it.
func (f *file) load(l *Ledger) error {
	return f.guarded(func() error {
		return f.db.Update(func(tx *bbolt.Tx) error {
			if first, _ := tx.Cursor().First(); first == nil {
				meta, err := tx.CreateBucket(bucketMeta)
				if err != nil {
					return err
				}
				_, err = tx.CreateBucket(bucketBooks)
				return errors.Join(err, meta.Put(keyFormat, []byte(format)))
			}
			meta, books := tx.Bucket(bucketMeta), tx.Bucket(bucketBooks)
			if meta == nil || books == nil {
				return errForeign
			}
			if v := meta.Get(keyFormat); len(v) > maxName {
				return errDamaged
			} else if string(v) != format {
				return fmt.Errorf("its format is %q; this moat knows %q", v, format)
			}
			if v := meta.Get(keyStopped); len(v) == 8 {
				l.stopped = time.Unix(int64(binary.BigEndian.Uint64(v)), 0).UTC() //nolint:gosec // written from an int64.
			} else if v != nil {
				return errDamaged
			}
			return books.ForEachBucket(func(name []byte) error { return l.loadBook(name, books.Bucket(name)) })
		})
	})
}

func (l *Ledger) loadBook(name []byte, in *bbolt.Bucket) error {
	key, ok := readKey(name)
	if !ok {
		return errDamaged
	}
	b := newBook(key)
	l.books[key] = b
	return in.ForEach(func(who, value []byte) error {
		if len(who) > maxName || len(b.accounts) > budget.MaxAccounts {
			return errDamaged
		}
		mark, ok := readRecord(who, value)
		if !ok {
			return errDamaged
		}
		a := b.open(string(who[1:]))
		a.add(mark)
		a.mark = mark
		return nil
	})
}

// write writes all of it, or nothing.
func (f *file) write(rows []row, drop []bookKey, stopped *time.Time) error {
	return f.guarded(func() error {
		if now, err := os.Stat(f.path); err != nil || !os.SameFile(now, f.info) {
			return errReplaced
		}
		return f.db.Update(func(tx *bbolt.Tx) error {
			books := tx.Bucket(bucketBooks)
			for _, key := range drop {
				if err := books.DeleteBucket(key.bytes()); err != nil && !errors.Is(err, bolterrors.ErrBucketNotFound) {
					return err
				}
			}
			if stopped != nil {
				if err := writeStopped(tx.Bucket(bucketMeta), *stopped); err != nil {
					return err
				}
			}
			for _, r := range rows {
				in, err := books.CreateBucketIfNotExists(r.account.book.key.bytes())
				if err != nil {
					return err
				}
				who := whoKey(r.account.who)
				if err = in.Put(who, record(who, r.mark)); err != nil {
					return err
				}
			}
			return nil
		})
	})
}

func writeStopped(meta *bbolt.Bucket, since time.Time) error {
	if since.IsZero() {
		return meta.Delete(keyStopped)
	}
	return meta.Put(keyStopped, binary.BigEndian.AppendUint64(nil, uint64(since.Unix()))) //nolint:gosec // after 1970.
}

// bytes is the key in the file: the period, its first and last second, the name.
func (k bookKey) bytes() []byte {
	b := []byte{byte(k.per)}
	b = binary.BigEndian.AppendUint64(b, uint64(k.span.Start)) //nolint:gosec // after 1970.
	b = binary.BigEndian.AppendUint64(b, uint64(k.span.End))   //nolint:gosec // after 1970.
	return append(b, k.budget...)
}

func readKey(b []byte) (k bookKey, ok bool) {
	if len(b) < 18 || len(b) > maxName {
		return k, false
	}
	k.per = budget.Period(b[0])
	k.span = budget.Span{Start: int64(binary.BigEndian.Uint64(b[1:])), End: int64(binary.BigEndian.Uint64(b[9:]))} //nolint:gosec // written from an int64.
	k.budget = string(b[17:])
	return k, k.span.Start < k.span.End
}

// whoKey is the key of an account: bbolt has no empty ones.
func whoKey(who string) []byte { return append([]byte{'='}, who...) }

// record is an account as it is written. bbolt has checksums of its own roots only, and a figure with
// a flipped bit is a figure.
func record(who []byte, a budget.Amount) []byte {
	b := make([]byte, 4, recordSize)
	for _, u := range budget.Units() {
		b = binary.BigEndian.AppendUint64(b, uint64(a.Of(u))) //nolint:gosec // not negative.
	}
	binary.BigEndian.PutUint32(b, sum(who, b[4:]))
	return b
}

func readRecord(who, b []byte) (a budget.Amount, ok bool) {
	if len(b) != recordSize || len(who) == 0 || binary.BigEndian.Uint32(b) != sum(who, b[4:]) {
		return a, false
	}
	n := func(i int) int64 { return int64(binary.BigEndian.Uint64(b[4+8*i:])) } //nolint:gosec // written from an int64.
	a = budget.Amount{Requests: n(0), Bytes: n(1), Tokens: n(2), Money: budget.Money(n(3))}
	return a, a == a.Floor()
}

func sum(who, text []byte) uint32 {
	return crc32.Update(crc32.ChecksumIEEE(who), crc32.IEEETable, text)
}
