package storetest

import (
	"bytes"
	"crypto/rand"
	"errors"
	"strconv"
	"testing"
	"time"

	"github.com/moat-gateway/moat/guard/identity/session"
)

// RunSessions tests a session.Store. Open is called once for each test, and each time returns
// two handles of one store, such as two processes have that share it; of a store that cannot
// be shared it is the same one twice. Nobody else uses that store. What it needs, open closes
// with t.Cleanup.
func RunSessions(t *testing.T, open func(t *testing.T) (a, b session.Store)) {
	t.Helper()
	for _, c := range []struct {
		name string
		test func(h handles)
	}{
		{"what one puts both get", putGet},
		{"an entry is put once", putOnce},
		{"one of 100 that put at once is first", putAtOnce},
		{"nothing touches what is not there", touchNothing},
		{"content is replaced by who knows the old one", replaced},
		{"one of 100 that replace at once does", replaceAtOnce},
		{"what is deleted is gone", deleted},
		{"an index deletes its own and no others", indexed},
		{"an index that is full forgets its first", fullIndex},
		{"any bytes are kept, up to the bound", anyBytes},
		{"what has expired takes no room in an index", expiredIndex},
		{"an entry is kept until it expires", untilExpired},
		{"a touched entry is kept longer, and is found by its indexes", touched},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, b := open(t)
			c.test(handles{t, [2]session.Store{a, b}})
		})
	}
}

// RunFullSessions tests that a bounded session.Store which is full says so, and forgets
// nobody. Open returns a store that has room for a few hundred entries.
func RunFullSessions(t *testing.T, open func(t *testing.T) session.Store) {
	t.Helper()
	s := open(t)
	h := handles{t, [2]session.Store{s, s}}
	var all []session.Entry
	for {
		e := entry(time.Hour)
		fresh, err := s.Put(t.Context(), e)
		if errors.Is(err, session.ErrFull) && !fresh {
			break
		}
		if err != nil || !fresh {
			t.Fatalf("fresh %v, error %v", fresh, err)
		}
		if all = append(all, e); len(all) > 10_000 {
			t.Fatal("it is never full")
		}
	}
	if len(all) == 0 {
		t.Fatal("it is full from the start")
	}
	for _, e := range all {
		h.has(0, e)
	}
	if _, err := s.Put(t.Context(), entry(time.Hour)); !errors.Is(err, session.ErrFull) {
		t.Errorf("got %v, want it to be full still", err)
	}
	if done, err := s.Replace(t.Context(), all[0].ID, all[0].Sealed, make([]byte, session.MaxSealed)); done || !errors.Is(err, session.ErrFull) {
		t.Errorf("replaced %v, error %v, want it to be full for more content too", done, err)
	}
	h.delete(0, all[0].ID)
	h.put(true, 0, entry(time.Hour))
}

// handles are two of a store.
type handles struct {
	*testing.T
	of [2]session.Store
}

func newID() (id session.ID) {
	rand.Read(id[:])
	return id
}

func entry(life time.Duration, indexes ...session.ID) session.Entry {
	id := newID()
	return session.Entry{ID: id, Indexes: indexes, Sealed: bytes.Repeat(id[:], 8), Expires: time.Now().Add(life).Truncate(time.Millisecond)}
}

func (h handles) put(want bool, at int, e session.Entry) {
	h.Helper()
	fresh, err := h.of[at].Put(h.Context(), e)
	if err != nil || fresh != want {
		h.Fatalf("put: fresh is %v, want %v (%v)", fresh, want, err)
	}
}

func (h handles) has(at int, want session.Entry) {
	h.Helper()
	got, ok, err := h.of[at].Get(h.Context(), want.ID)
	if err != nil || !ok || got.ID != want.ID || !bytes.Equal(got.Sealed, want.Sealed) || !got.Expires.Equal(want.Expires) || got.Indexes != nil {
		h.Fatalf("got %x of %d bytes until %s, %v, %v; want %x of %d bytes until %s",
			got.ID[:4], len(got.Sealed), got.Expires, ok, err, want.ID[:4], len(want.Sealed), want.Expires)
	}
}

func (h handles) lacks(at int, id session.ID) {
	h.Helper()
	if got, ok, err := h.of[at].Get(h.Context(), id); err != nil || ok {
		h.Fatalf("%x is there until %s (%v)", id[:4], got.Expires, err)
	}
}

func (h handles) touch(at int, e *session.Entry, life time.Duration) {
	h.Helper()
	e.Expires = time.Now().Add(life).Truncate(time.Millisecond)
	if err := h.of[at].Touch(h.Context(), e.ID, e.Expires); err != nil {
		h.Fatal(err)
	}
}

func (h handles) delete(at int, id session.ID) {
	h.Helper()
	if err := h.of[at].Delete(h.Context(), id); err != nil {
		h.Fatal(err)
	}
}

func (h handles) deleteAll(at int, index session.ID) {
	h.Helper()
	if err := h.of[at].DeleteAll(h.Context(), index); err != nil {
		h.Fatal(err)
	}
}

// gone waits until an entry is.
func (h handles) gone(e session.Entry) {
	h.Helper()
	for deadline := e.Expires.Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		_, ok, err := h.of[1].Get(h.Context(), e.ID)
		now := time.Now()
		switch {
		case err != nil:
			h.Fatal(err)
		case !ok && now.Before(e.Expires.Add(-100*time.Millisecond)):
			h.Fatal("an entry was forgotten before it expired")
		case !ok:
			return
		case now.After(deadline):
			h.Fatal("an entry was not forgotten when it had expired")
		}
	}
}

func putGet(h handles) {
	a, b := entry(time.Hour), entry(time.Minute, newID())
	h.put(true, 0, a)
	h.put(true, 1, b)
	for at := range 2 {
		h.has(at, a)
		h.has(at, b)
		h.lacks(at, newID())
	}
}

func putOnce(h handles) {
	e := entry(time.Hour)
	h.put(true, 0, e)
	other := entry(time.Minute, newID())
	other.ID = e.ID
	h.put(false, 0, other)
	h.put(false, 1, other)
	h.has(0, e)
	h.deleteAll(0, other.Indexes[0])
	h.has(1, e)
}

func putAtOnce(h handles) {
	e := entry(time.Hour)
	firsts, errs := AtOnce(100, func(i int) (bool, error) { return h.of[i%2].Put(h.Context(), e) })
	if firsts != 1 || errs != 0 {
		h.Errorf("%d of 100 were first, %d failed", firsts, errs)
	}
}

func untilExpired(h handles) {
	e := entry(2*time.Second, newID())
	h.put(true, 0, e)
	h.gone(e)
	e.Expires = time.Now().Add(time.Hour).Truncate(time.Millisecond)
	h.put(true, 1, e)
	h.has(0, e)
}

func touched(h handles) {
	e := entry(3*time.Second, newID())
	h.put(true, 0, e)
	h.touch(1, &e, time.Hour)
	other := entry(3 * time.Second)
	h.put(true, 0, other)
	h.gone(other)
	h.has(0, e)
	h.deleteAll(1, e.Indexes[0])
	h.lacks(0, e.ID)
}

func touchNothing(h handles) {
	e := entry(time.Hour)
	h.touch(0, &e, time.Hour)
	h.lacks(1, e.ID)
}

func replaced(h handles) {
	e := entry(time.Hour, newID())
	h.put(true, 0, e)
	old, _, err := h.of[1].Get(h.Context(), e.ID)
	if err != nil {
		h.Fatal(err)
	}
	replace := func(want bool, at int, id session.ID, old, sealed string) {
		h.Helper()
		if done, err := h.of[at].Replace(h.Context(), id, []byte(old), []byte(sealed)); done != want || err != nil {
			h.Fatalf("replace: %v, want %v (%v)", done, want, err)
		}
	}
	replace(true, 0, e.ID, string(e.Sealed), "new")
	replace(false, 1, e.ID, string(e.Sealed), "newer")
	replace(false, 1, newID(), "", "newer")
	if !bytes.Equal(old.Sealed, e.Sealed) {
		h.Error("what Get had returned was changed")
	}
	e.Sealed = []byte("new")
	h.has(1, e)
	h.deleteAll(0, e.Indexes[0])
	replace(false, 1, e.ID, "new", "newer")
	h.lacks(0, e.ID)
}

func replaceAtOnce(h handles) {
	e := entry(time.Hour)
	h.put(true, 0, e)
	firsts, errs := AtOnce(100, func(i int) (bool, error) {
		return h.of[i%2].Replace(h.Context(), e.ID, e.Sealed, []byte(strconv.Itoa(i)))
	})
	if firsts != 1 || errs != 0 {
		h.Errorf("%d of 100 did, %d failed", firsts, errs)
	}
}

func deleted(h handles) {
	e, other := entry(time.Hour, newID()), entry(time.Hour)
	h.put(true, 0, e)
	h.put(true, 0, other)
	h.delete(1, e.ID)
	h.delete(0, e.ID)
	h.delete(0, newID())
	h.lacks(0, e.ID)
	h.has(0, other)
	h.put(true, 1, e)
	h.has(0, e)
}

func indexed(h handles) {
	user, other, sid := newID(), newID(), newID()
	a, b, c, d := entry(time.Hour, user, sid), entry(time.Hour, user), entry(time.Hour, other), entry(time.Hour)
	for _, e := range []session.Entry{a, b, c, d} {
		h.put(true, 0, e)
	}
	h.deleteAll(1, sid)
	h.lacks(0, a.ID)
	h.has(0, b)
	h.deleteAll(0, newID())
	h.deleteAll(1, b.ID) // the name of an entry is not that of an index
	h.has(0, b)
	h.put(true, 1, a)
	h.deleteAll(0, user)
	h.lacks(1, a.ID)
	h.lacks(1, b.ID)
	h.has(1, c)
	h.has(1, d)
	h.deleteAll(0, user)
}

func fullIndex(h handles) {
	user, sid := newID(), newID()
	first := entry(time.Hour, user, sid)
	h.put(true, 0, first)
	stranger := entry(time.Hour, newID())
	h.put(true, 0, stranger)
	var rest []session.Entry
	for range session.MaxIndexed - 1 {
		time.Sleep(2 * time.Millisecond) // a server orders them by milliseconds
		e := entry(time.Hour, user)
		h.put(true, len(rest)%2, e)
		rest = append(rest, e)
	}
	h.has(0, first)
	time.Sleep(2 * time.Millisecond)
	h.put(true, 0, entry(time.Hour, user))
	h.lacks(0, first.ID)
	for _, e := range rest {
		h.has(0, e)
	}
	h.has(0, stranger)
	h.put(true, 0, entry(time.Hour, sid))
}

func expiredIndex(h handles) {
	user := newID()
	kept := entry(time.Hour, user)
	h.put(true, 0, kept)
	last := kept
	for range session.MaxIndexed - 1 {
		last = entry(time.Second, user)
		h.put(true, 0, last)
	}
	h.gone(last)
	h.put(true, 0, entry(time.Hour, user))
	h.has(1, kept)
}

func anyBytes(h handles) {
	for _, n := range []int{0, 1, 255, session.MaxSealed} {
		e := entry(time.Hour)
		e.Sealed = make([]byte, n)
		rand.Read(e.Sealed)
		if n > 4 {
			copy(e.Sealed, "\x00\r\n$")
		}
		h.put(true, 0, e)
		h.has(1, e)
	}
}
