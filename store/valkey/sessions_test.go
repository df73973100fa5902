package valkey_test

import (
	"testing"
	"time"

	"github.com/moat-gateway/moat/guard/identity/session"
	"github.com/moat-gateway/moat/store/storetest"
	"github.com/moat-gateway/moat/store/valkey"
	"github.com/moat-gateway/moat/store/valkey/valkeytest"
)

func TestSessionsConform(t *testing.T) {
	server := valkeytest.Start(t)
	storetest.RunSessions(t, func(t *testing.T) (a, b session.Store) {
		cfg := patient(valkey.Config{Addresses: []string{server.Addr}, Prefix: t.Name()})
		return open(t, cfg).Sessions(), open(t, cfg).Sessions()
	})
}

func TestSessionsConformInACluster(t *testing.T) {
	thorough(t)
	nodes := valkeytest.StartCluster(t, 3)
	storetest.RunSessions(t, func(t *testing.T) (a, b session.Store) {
		cfg := patient(valkey.Config{Addresses: nodes.Addresses(), Mode: valkey.Cluster, Prefix: t.Name()})
		return open(t, cfg).Sessions(), open(t, cfg).Sessions()
	})
}

func TestSessionsNeedAServer(t *testing.T) {
	server := valkeytest.Start(t)
	s := open(t, valkey.Config{Addresses: []string{server.Addr}}).Sessions()
	e := session.Entry{ID: session.ID{1}, Sealed: []byte("content"), Expires: time.Now().Add(time.Hour)}
	if fresh, err := s.Put(t.Context(), e); !fresh || err != nil {
		t.Fatal(fresh, err)
	}
	server.Kill()
	if _, ok, err := s.Get(t.Context(), e.ID); ok || err == nil {
		t.Errorf("got an entry of no server: %v", err)
	}
	if fresh, err := s.Put(t.Context(), session.Entry{ID: session.ID{2}, Expires: e.Expires}); fresh || err == nil {
		t.Errorf("put an entry into no server: %v", err)
	}
	if s.Touch(t.Context(), e.ID, e.Expires) == nil || s.Delete(t.Context(), e.ID) == nil || s.DeleteAll(t.Context(), session.ID{3}) == nil {
		t.Error("something was done without a server")
	}
}

func TestSessionsLeaveNothingBehind(t *testing.T) {
	server := valkeytest.Start(t)
	s := open(t, patient(valkey.Config{Addresses: []string{server.Addr}, Prefix: "left"})).Sessions()
	for i := range byte(8) {
		e := session.Entry{ID: session.ID{i}, Indexes: []session.ID{{9}, {10, i}}, Sealed: []byte("content"), Expires: time.Now().Add(time.Hour)}
		if _, err := s.Put(t.Context(), e); err != nil {
			t.Fatal(err)
		}
		if i%2 == 0 {
			if err := s.Delete(t.Context(), e.ID); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := s.DeleteAll(t.Context(), session.ID{9}); err != nil {
		t.Fatal(err)
	}
	if left := server.MustDo("EVAL", "return '(' .. table.concat(redis.call('KEYS', ARGV[1]), ' ') .. ')'", "0", "left:{sessions}*"); left != "()" {
		t.Errorf("left: %s", left)
	}
}
