package valkeytest

import (
	"strings"
	"testing"
	"time"
)

func TestServers(t *testing.T) {
	t0 := time.Now()
	a := NewAuthority(t)
	s := StartTLS(t, a, time.Now().Add(time.Hour), "user x on >y ~* +@all")
	t.Log(s.MustDo("ACL", "WHOAMI"), time.Since(t0))
	c := StartCluster(t, 3)
	t.Log(c.Addresses(), time.Since(t0))
	w := StartSentinel(t, 3)
	t.Log(w.Addresses(), time.Since(t0))
	s1 := Start(t)
	s1.Pause()
	s1.Continue()
	s1.Kill()
	s1.Restart()
	if !strings.Contains(s1.MustDo("INFO", "server"), "redis_version") {
		t.Error("no version")
	}
	t.Log(time.Since(t0))
}
