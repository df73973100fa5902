package valkey_test

import (
	"errors"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/moat-gateway/moat/guard/ratelimit"
	"github.com/moat-gateway/moat/store/valkey"
)

// thorough marks what is not for the inner loop.
func thorough(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("takes seconds: run without -short (make test does)")
	}
}

func open(t *testing.T, cfg valkey.Config) *valkey.Store {
	t.Helper()
	s, err := valkey.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func eventually(t *testing.T, what string, look func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !look(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within 30 s", what)
		}
	}
}

var slow = ratelimit.Limit{Count: 1, Per: time.Hour, Burst: 20}

func key(name string) ratelimit.Key {
	return ratelimit.Key{Limit: name, Net: netip.MustParsePrefix("192.0.2.7/32")}
}

func demand(name string, l ratelimit.Limit) ratelimit.Demand {
	return ratelimit.Demand{Key: key(name), Limit: l, Cost: 1}
}

// client asks a store.
type client struct {
	*testing.T
	*valkey.Store
}

func (c client) take(demands ...ratelimit.Demand) (ok bool, r []ratelimit.Result, err error) {
	r = make([]ratelimit.Result, len(demands))
	ok, err = c.Take(c.Context(), demands, r)
	return ok, r, err
}

func (c client) allow(demands ...ratelimit.Demand) []ratelimit.Result {
	c.Helper()
	ok, r, err := c.take(demands...)
	if err != nil || !ok {
		c.Fatalf("ok %v, error %v, %+v", ok, err, r)
	}
	return r
}

func (c client) deny(demands ...ratelimit.Demand) []ratelimit.Result {
	c.Helper()
	ok, r, err := c.take(demands...)
	if err != nil || ok {
		c.Fatalf("ok %v, error %v, %+v", ok, err, r)
	}
	return r
}

// unavailable expects that the store cannot be asked, and returns why.
func (c client) unavailable(demands ...ratelimit.Demand) error {
	c.Helper()
	ok, r, err := c.take(demands...)
	if ok || !errors.Is(err, valkey.ErrUnavailable) {
		c.Fatalf("ok %v, error %v, %+v", ok, err, r)
	}
	return err
}

// left is for how many requests there is room.
func (c client) left(d ratelimit.Demand) int {
	c.Helper()
	d.Cost, d.Lease = 0, 0
	r := make([]ratelimit.Result, 1)
	if _, err := c.Peek(c.Context(), []ratelimit.Demand{d}, r); err != nil {
		c.Fatal(err)
	}
	return r[0].Remaining
}

// goroutines are the stacks of those that Stores have started.
func goroutines() (stacks []string) {
	buf := make([]byte, 4<<20)
	for stack := range strings.SplitSeq(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
		if strings.Contains(stack, "store/valkey.(*") || strings.Contains(stack, "valkey-go") {
			stacks = append(stacks, stack)
		}
	}
	return stacks
}

// noneLeft expects that what was closed has ended.
func noneLeft(t *testing.T) {
	t.Helper()
	eventually(t, "all goroutines have ended", func() bool { return len(goroutines()) == 0 })
}

func hasAll(t *testing.T, text string, words ...string) {
	t.Helper()
	for _, w := range words {
		if !strings.Contains(text, w) {
			t.Errorf("%q lacks %q", text, w)
		}
	}
}
