package valkeytest

import (
	"strings"
	"testing"
	"time"
)

func TestServersAreWhatTheyAreSaidToBe(t *testing.T) {
	s := Start(t, "--databases", "3")
	s.MustDo("SET", "a", "b")
	if got := s.MustDo("GET", "a"); got != "b" {
		t.Errorf("got %q", got)
	}
	if _, err := s.Do("SELECT", "3"); err == nil {
		t.Error("there are more databases than were asked for")
	}
	s.Pause()
	s.Continue()
	s.Kill()
	if _, err := s.Do("PING"); err == nil {
		t.Error("a killed server answers")
	}
	s.Restart()
	if got := s.MustDo("DBSIZE"); got != "0" {
		t.Errorf("%s keys after it was started again", got)
	}
	secure := StartTLS(t, NewAuthority(t), time.Now().Add(time.Hour), "user somebody on >secret ~* +get")
	if got := secure.MustDo("ACL", "WHOAMI"); got != "admin" {
		t.Errorf("got %q", got)
	}

	if testing.Short() {
		t.Skip("the rest takes seconds: run without -short (make test does)")
	}
	c := StartCluster(t, 3)
	if got := c.Of(slots-1).MustDo("CLUSTER", "COUNTKEYSINSLOT", "16383"); got != "0" {
		t.Errorf("got %q", got)
	}
	if _, err := c.Of(0).Do("SET", "foo", "bar"); err == nil || !strings.HasPrefix(err.Error(), "MOVED 12182 "+c.Of(12182).Addr) {
		t.Errorf("got %v", err)
	}
	w := StartSentinel(t, 1)
	if !strings.Contains(w.Primary.MustDo("INFO", "replication"), "connected_slaves:1") {
		t.Error("the primary has no replica")
	}
	if _, err := w.Replica.Do("SET", "a", "b"); err == nil || !strings.HasPrefix(err.Error(), "READONLY") {
		t.Errorf("got %v", err)
	}
}
