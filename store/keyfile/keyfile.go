package keyfile

import (
	"cmp"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"github.com/moat-gateway/moat/guard/identity/apikey"
)

// lockTimeout is how long another process may have the file. A write takes milliseconds.
const lockTimeout = 5 * time.Second

// The buckets, and what is in them.
var (
	bucketMeta = []byte("moat api keys") // format and revision
	bucketKeys = []byte("keys")          // id: CRC-32, then a record
	bucketUsed = []byte("used")          // id: minute of the last use

	keyFormat   = []byte("format")
	keyRevision = []byte("revision") // random, and another one after each change of a key
)

const format = "1"

// What a damaged length cannot exceed, in bytes.
const (
	maxID     = 64
	maxRecord = 64 << 10
)

// record is a key in the file, as JSON.
type record struct {
	Hash       []byte    `json:"hash"`
	Owner      string    `json:"owner"`
	Note       string    `json:"note,omitzero"`
	Scopes     []string  `json:"scopes,omitempty"`
	Created    time.Time `json:"created"`
	Expires    time.Time `json:"expires,omitzero"`
	Revoked    time.Time `json:"revoked,omitzero"`
	ReplacedBy string    `json:"replaced_by,omitzero"`
	GraceUntil time.Time `json:"grace_until,omitzero"`
}

// encode makes a value of a key. bbolt has checksums of its own roots only, and a date with
// a flipped bit is a date.
func encode(k *apikey.Key) ([]byte, error) {
	if err := k.Validate(); err != nil {
		return nil, err
	}
	text, err := json.Marshal(record{k.Hash[:], k.Owner, k.Note, k.Scopes, k.Created, k.Expires, k.Revoked, k.ReplacedBy, k.GraceUntil})
	if err != nil {
		return nil, err
	}
	return append(binary.BigEndian.AppendUint32(nil, sum(k.ID, text)), text...), nil
}

func sum(id string, text []byte) uint32 {
	return crc32.Update(crc32.ChecksumIEEE([]byte(id)), crc32.IEEETable, text)
}

func decode(id, value []byte) (k apikey.Key, err error) {
	if len(id) > maxID || len(value) > maxRecord { // which the checksum would be slow to notice
		return k, errors.New("it is too long")
	}
	k.ID = string(id)
	if len(value) < 4 || binary.BigEndian.Uint32(value) != sum(k.ID, value[4:]) {
		return k, errors.New("its checksum does not fit")
	}
	var r record
	if err = json.Unmarshal(value[4:], &r); err != nil {
		return k, err
	}
	if len(r.Hash) != len(k.Hash) {
		return k, errors.New("no hash")
	}
	k.Hash = [len(k.Hash)]byte(r.Hash)
	k.Owner, k.Note, k.Scopes, k.Created, k.Expires = r.Owner, r.Note, r.Scopes, r.Created, r.Expires
	k.Revoked, k.ReplacedBy, k.GraceUntil = r.Revoked, r.ReplacedBy, r.GraceUntil
	return k, k.Validate()
}

// List reads all keys, the oldest first.
func List(path string) (keys []apikey.Key, err error) {
	keys, _, err = load(path, "")
	return keys, err
}

// load reads all keys, unless the revision is still known.
func load(path, known string) (keys []apikey.Key, revision string, err error) {
	err = within(path, reading, func(tx *bbolt.Tx) error {
		if revision, err = revisionOf(tx); err != nil || revision == known {
			return err
		}
		keys, err = all(tx)
		return err
	})
	return keys, revision, err
}

var (
	errForeign = errors.New("not a file of API keys")
	errDamaged = errors.New("damaged: restore it from a backup, or make new keys in another file")
)

func revisionOf(tx *bbolt.Tx) (string, error) {
	meta := tx.Bucket(bucketMeta)
	if meta == nil || tx.Bucket(bucketKeys) == nil || tx.Bucket(bucketUsed) == nil {
		return "", errForeign
	}
	f, revision := meta.Get(keyFormat), meta.Get(keyRevision)
	switch {
	case len(f) > maxID || len(revision) > maxID:
		return "", errDamaged
	case string(f) != format:
		return "", fmt.Errorf("its format is %q; this moat knows %q", f, format)
	}
	return string(revision), nil
}

func all(tx *bbolt.Tx) (keys []apikey.Key, err error) {
	used := tx.Bucket(bucketUsed)
	err = tx.Bucket(bucketKeys).ForEach(func(id, value []byte) error {
		k, damage := decode(id, value)
		if damage != nil {
			return fmt.Errorf("key %q is damaged: %w", id[:min(len(id), maxID)], damage)
		}
		k.LastUsed = lastUsed(used.Get(id))
		keys = append(keys, k)
		return nil
	})
	slices.SortFunc(keys, func(a, b apikey.Key) int { return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(a.ID, b.ID)) })
	return keys, err
}

func lastUsed(value []byte) time.Time {
	if len(value) != 8 {
		return time.Time{}
	}
	return time.Unix(int64(binary.BigEndian.Uint64(value)), 0).UTC() //nolint:gosec // written from an int64.
}

// Edit changes the keys, all or nothing. Keys that edit takes away stay. With create the
// file is made if there is none.
func Edit(path string, create bool, edit func(keys map[string]*apikey.Key) error) error {
	m := writing
	if create {
		m = creating
	}
	return within(path, m, func(tx *bbolt.Tx) error {
		if err := begin(tx, create); err != nil {
			return err
		}
		list, err := all(tx)
		if err != nil {
			return err
		}
		keys := make(map[string]*apikey.Key, len(list))
		for i := range list {
			keys[list[i].ID] = &list[i]
		}
		if err = edit(keys); err != nil {
			return err
		}
		return put(tx, keys)
	})
}

// begin makes the buckets in a file that is new, or that somebody was killed over making.
func begin(tx *bbolt.Tx, create bool) error {
	if first, _ := tx.Cursor().First(); first == nil && create {
		meta, err := tx.CreateBucket(bucketMeta)
		if err != nil {
			return err
		}
		_, err = tx.CreateBucket(bucketKeys)
		_, err2 := tx.CreateBucket(bucketUsed)
		return errors.Join(err, err2, meta.Put(keyFormat, []byte(format)), renew(meta))
	}
	_, err := revisionOf(tx)
	return err
}

func renew(meta *bbolt.Bucket) error { return meta.Put(keyRevision, []byte(rand.Text())) }

func put(tx *bbolt.Tx, keys map[string]*apikey.Key) error {
	bucket, changed := tx.Bucket(bucketKeys), false
	for id, k := range keys {
		value, err := encode(k)
		if err != nil {
			return err
		}
		if string(bucket.Get([]byte(id))) == string(value) {
			continue
		}
		if err = bucket.Put([]byte(id), value); err != nil {
			return err
		}
		changed = true
	}
	if !changed {
		return nil
	}
	return renew(tx.Bucket(bucketMeta))
}

// use is what somebody wants of the file.
type use int

const (
	reading use = iota
	writing
	creating
)

// within opens the file for the time of one transaction.
func within(path string, u use, do func(*bbolt.Tx) error) error {
	err := transact(path, u, do)
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		err = e.Err // the path stands in front in any case
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, bolterrors.ErrInvalid), errors.Is(err, bolterrors.ErrVersionMismatch):
		err = errForeign
	case errors.Is(err, bolterrors.ErrChecksum):
		err = errDamaged
	case errors.Is(err, bolterrors.ErrTimeout):
		return fmt.Errorf("%s: another process has had it locked for %v", path, lockTimeout)
	}
	return fmt.Errorf("%s: %w", path, err)
}

func transact(path string, u use, do func(*bbolt.Tx) error) (err error) {
	var (
		file *os.File
		db   *bbolt.DB
	)
	// What is in the file is mapped into memory. If it is damaged bbolt panics, and if
	// somebody cuts it short meanwhile the process would die, were it not for this.
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if recover() != nil {
			err = errDamaged // what is wrong with which page helps nobody
		}
		switch {
		case db != nil:
			if e := db.Close(); err == nil {
				err = e
			}
		case file != nil:
			giveUp(file)
		}
	}()
	db, err = bbolt.Open(path, 0o600, &bbolt.Options{
		ReadOnly: u == reading, Timeout: lockTimeout, NoStatistics: true,
		OpenFile: func(name string, flag int, mode os.FileMode) (_ *os.File, err error) {
			if u != creating {
				flag &^= os.O_CREATE
			}
			file, err = openSafe(name, flag, mode, u)
			return file, err
		},
	})
	if err != nil {
		return err
	}
	if u == reading {
		return db.View(do)
	}
	return db.Update(do)
}

// openSafe opens a file that nobody but its owner can write.
func openSafe(name string, flag int, mode os.FileMode, u use) (*os.File, error) {
	file, err := os.OpenFile(name, flag, mode) //nolint:gosec // the operator named it.
	if err != nil {
		return nil, err
	}
	info, err := file.Stat()
	switch {
	case err != nil:
	case !info.Mode().IsRegular():
		err = errors.New("not a file")
	case runtime.GOOS != "windows" && info.Mode().Perm()&0o022 != 0: // there, modes say nothing
		err = fmt.Errorf("others can write it (mode %04o), and so make keys: chmod 600", info.Mode().Perm())
	case info.Size() == 0 && u != creating:
		err = errForeign
	}
	if err != nil {
		file.Close() //nolint:errcheck // nothing was written.
		return nil, err
	}
	return file, nil
}
