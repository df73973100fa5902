package memory_test

import (
	"crypto/rand"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/moat-gateway/moat/guard/identity/session"
	"github.com/moat-gateway/moat/store/memory"
	"github.com/moat-gateway/moat/store/storetest"
)

func TestSessionsConform(t *testing.T) {
	storetest.RunSessions(t, func(*testing.T) (a, b session.Store) {
		s := memory.NewSessions(4 << 20)
		return s, s
	})
	t.Run("full", func(t *testing.T) {
		storetest.RunFullSessions(t, func(*testing.T) session.Store { return memory.NewSessions(0) })
	})
}

func fill(t *testing.T, s *memory.Sessions, e session.Entry) (n int) {
	t.Helper()
	for ; ; n++ {
		rand.Read(e.ID[:])
		for i := range e.Indexes {
			e.Indexes = append([]session.ID{}, e.Indexes...)
			rand.Read(e.Indexes[i][:])
		}
		if fresh, err := s.Put(t.Context(), e); err != nil {
			return n
		} else if !fresh {
			t.Fatal("an ID twice")
		}
	}
}

func TestSessionsTakeNoMoreMemoryThanTheyMay(t *testing.T) {
	for name, e := range map[string]session.Entry{
		"marks":    {},
		"small":    {Indexes: make([]session.ID, 2), Sealed: make([]byte, 100)},
		"sessions": {Indexes: make([]session.ID, 2), Sealed: make([]byte, 4<<10)},
		"large":    {Sealed: make([]byte, session.MaxSealed)},
	} {
		t.Run(name, func(t *testing.T) {
			const room = 16 << 20
			var before, after runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&before)
			s := memory.NewSessions(room)
			e.Expires = time.Now().Add(time.Hour)
			n := fill(t, s, e)
			runtime.GC()
			runtime.ReadMemStats(&after)
			took := int(after.HeapAlloc) - int(before.HeapAlloc)
			t.Logf("%d entries in %d bytes: %d each, beside %d of content", n, took, took/n-len(e.Sealed), len(e.Sealed))
			if took > room || took < room/4 {
				t.Errorf("took %d bytes of %d", took, room)
			}
			runtime.KeepAlive(s)
		})
	}
}

func TestSessionsMakeRoomOfWhatHasExpired(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memory.NewSessions(0)
		n := fill(t, s, session.Entry{Expires: time.Now().Add(time.Second)})
		time.Sleep(time.Second)
		if again := fill(t, s, session.Entry{Expires: time.Now().Add(time.Hour)}); again != n {
			t.Errorf("room for %d, and for %d when all had expired", n, again)
		}
	})
}
