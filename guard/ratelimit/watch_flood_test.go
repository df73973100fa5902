//go:build !race

package ratelimit_test

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/moat-gateway/moat/guard"
	"github.com/moat-gateway/moat/guard/ratelimit"
)

// Under the race detector ten million requests take half a minute, and nothing here runs
// at the same time as anything else; make check runs it.

// A flood of new clients makes the Watch no larger, and hides nobody who stands out.
func TestWatchNamesAHeavyTalkerInAFlood(t *testing.T) {
	const n = 10_000_000
	w := ratelimit.NewWatch()
	heavy := addr("203.0.113.7")
	var flood [16]byte
	flood[0] = 0x20
	for i := range n {
		binary.BigEndian.PutUint32(flood[4:], uint32(i))
		w.Note(netip.AddrFrom16(flood), nil, guard.Decision{}, guard.Enforce)
		if i%500 == 0 { // one in 500, where one in 3,500 is promised
			w.Note(heavy, nil, guard.Decision{}, guard.Enforce)
		}
	}
	all := w.Talkers(4096)
	asked := uint64(n / 500)
	if all.Requests != uint64(n)+asked {
		t.Errorf("%d requests, want %d", all.Requests, uint64(n)+asked)
	}
	if got := all.Top[0]; got.Client.Addr() != heavy || got.Requests > asked || got.Requests < asked*9/10 {
		t.Errorf("%+v, want %s with %d", got, heavy, asked)
	}
	for _, c := range all.Top[1:] {
		if c.Requests > 1 || !c.AtLeast {
			t.Fatalf("%+v, of a client that asked once", c)
		}
	}
}

func TestWatchDoesNotAllocate(t *testing.T) {
	w := ratelimit.NewWatch()
	d := open(t, ratelimit.Policy{Rules: []ratelimit.Rule{byAddress("client", "1/h")}})
	d.allow(1, "203.0.113.7")
	refused, dec := d.g.Decide(t.Context(), facts("203.0.113.7"))
	defer refused.Release()
	w.Note(addr("203.0.113.7"), refused, dec, guard.Enforce) // the first refusal makes room
	var a [16]byte
	if n := testing.AllocsPerRun(100_000, func() {
		binary.BigEndian.PutUint32(a[:], binary.BigEndian.Uint32(a[:])+1)
		w.Note(netip.AddrFrom16(a), refused, guard.Decision{}, guard.Enforce)
		w.Note(addr("203.0.113.7"), refused, dec, guard.Enforce)
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
}
