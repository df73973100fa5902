package session_test

import (
	"net/http"
	"sync"
	"testing"

	"github.com/moat-gateway/moat/guard"
)

// Whoever begins a sign-in can end it with codes that he makes up: that is not passed on to the
// provider in any number.
func TestMadeUpCodesDoNotFloodTheProvider(t *testing.T) {
	p := newProvider(t)
	asked, answer := make(chan struct{}, 100), make(chan struct{})
	p.at("/token", func(w http.ResponseWriter, _ *http.Request) {
		asked <- struct{}{}
		<-answer
		refuse(w, "invalid_grant")
	})
	g := newGate(t, p, nil)
	var refused, failed int
	var mu sync.Mutex
	var all sync.WaitGroup
	try := func() {
		b := g.browser()
		q := b.begin(loginPath)
		q.Set("code", "made-up")
		_, d := b.callback(q)
		mu.Lock()
		defer mu.Unlock()
		switch d.Reason { //nolint:exhaustive // no other can come.
		case guard.IdentityUnavailable:
			refused++
		case guard.LoginFailed:
			failed++
		default:
			t.Errorf("%s", d.Reason)
		}
	}
	for range 32 {
		all.Go(try)
	}
	for range 32 {
		<-asked
	}
	for range 50 {
		try()
	}
	close(answer)
	all.Wait()
	if failed != 32 || refused != 50 || p.count("/token") != 32 {
		t.Errorf("%d reached the provider, %d failed, %d were refused", p.count("/token"), failed, refused)
	}
	p.at("/token", nil)
	g.browser().signIn()
}
