package valkey_test

import (
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/moat-gateway/moat/guard/ratelimit"
	"github.com/moat-gateway/moat/store/valkey"
	"github.com/moat-gateway/moat/store/valkey/valkeytest"
)

const nameOfA = "moat:{192.0.2.0/24}:a:[192.0.2.7/32]::"

func TestKeysLastAsLongAsTheirDebts(t *testing.T) {
	server := valkeytest.Start(t)
	c := client{t, open(t, patient(valkey.Config{Addresses: []string{server.Addr}}))}
	lasts := func(atLeast, atMost time.Duration) {
		t.Helper()
		ms, err := strconv.Atoi(server.MustDo("PTTL", nameOfA))
		if err != nil || ms < int(atLeast.Milliseconds()) || ms > int(atMost.Milliseconds()) {
			t.Errorf("the key lasts for %d ms, %v; want %s to %s", ms, err, atLeast, atMost)
		}
	}
	month := ratelimit.Limit{Count: 31, Per: ratelimit.MaxHorizon}
	d := demand("a", month)
	for i := range 31 {
		c.allow(d)
		lasts(time.Duration(i+1)*24*time.Hour-time.Minute, time.Duration(i+1)*24*time.Hour)
	}
	c.deny(d)
	// Whole microseconds, to the last digit.
	if tat := server.MustDo("GET", nameOfA); len(tat) != 16 || strings.ContainsAny(tat, ".e") {
		t.Errorf("the TAT is %s", tat)
	}
	if err := c.Reset(t.Context(), d.Key); err != nil {
		t.Fatal(err)
	}
	lasts(-2*time.Millisecond, -2*time.Millisecond) // there is none
	quick := demand("a", ratelimit.Limit{Count: 1, Per: 50 * time.Millisecond})
	c.allow(quick)
	lasts(0, 50*time.Millisecond)
	eventually(t, "the debt is forgotten", func() bool { return server.MustDo("DBSIZE") == "1" }) // the set of processes
	d.Cost = 0
	c.allow(d)
	c.left(d)
	if n := server.MustDo("DBSIZE"); n != "1" {
		t.Errorf("%s keys after requests that cost nothing", n)
	}
}

// A clock that was set back leaves debts behind that would last for years.
func TestNoDebtRefusesForLongerThanTheLimit(t *testing.T) {
	server := valkeytest.Start(t)
	limit := ratelimit.Limit{Count: 10, Per: 200 * time.Millisecond}
	for name, tat := range map[string]string{
		"a year ahead":     strconv.FormatInt(time.Now().AddDate(1, 0, 0).UnixMicro(), 10),
		"beyond 2^53":      "9223372036854775807",
		"beyond all":       "1e300",
		"without end":      "inf",
		"nonsense":         "sixty",
		"not a number":     "nan",
		"a negative":       "-5",
		"empty":            "",
		"long gone":        "1000000",
		"with a fraction":  strconv.FormatInt(time.Now().AddDate(1, 0, 0).UnixMicro(), 10) + ".25",
		"with an exponent": "1.8e15",
	} {
		t.Run(name, func(t *testing.T) {
			c := client{t, open(t, patient(valkey.Config{Addresses: []string{server.Addr}}))}
			server.MustDo("SET", nameOfA, tat)
			d := demand("a", limit)
			begun := time.Now()
			for {
				ok, r, err := c.take(d)
				if err != nil {
					t.Fatal(err)
				}
				if ok {
					break
				}
				if r[0].Retry > limit.Per || r[0].Reset > limit.Per {
					t.Fatalf("%+v", r[0])
				}
				time.Sleep(r[0].Retry)
			}
			if took := time.Since(begun); took > 700*time.Millisecond {
				t.Errorf("refused for %s", took)
			}
			if err := c.Reset(t.Context(), d.Key); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestAKeyOfAnotherTypeIsAnError(t *testing.T) {
	server := valkeytest.Start(t)
	c := client{t, open(t, patient(valkey.Config{Addresses: []string{server.Addr}}))}
	server.MustDo("RPUSH", nameOfA, "x")
	hasAll(t, c.unavailable(demand("a", slow)).Error(), "WRONGTYPE")
	c.allow(demand("b", slow))
	if err := c.Reset(t.Context(), key("a")); err != nil {
		t.Error(err)
	}
	c.allow(demand("a", slow))
}

func TestManyAtOnceShareRoundTrips(t *testing.T) {
	server := valkeytest.Start(t)
	p := startProxy(t, server.Addr)
	c := client{t, open(t, patient(valkey.Config{Addresses: []string{p.addr}}))}
	c.allow(demand("a", slow))
	p.each.Store(int64(30 * time.Millisecond))
	before := c.Stats().RoundTrips
	begun := time.Now()
	var all sync.WaitGroup
	for i := range 200 {
		all.Go(func() {
			if ok, _, err := c.take(demand(fmt.Sprint("key ", i), slow)); !ok || err != nil {
				t.Errorf("ok %v, error %v", ok, err)
			}
		})
	}
	all.Wait()
	trips := c.Stats().RoundTrips - before
	if took := time.Since(begun); trips > 10 || took > 300*time.Millisecond {
		t.Errorf("200 Takes took %s and %d round trips of 30ms", took, trips)
	}
}

func TestALeaseSavesRoundTrips(t *testing.T) {
	server := valkeytest.Start(t)
	c := client{t, open(t, patient(valkey.Config{Addresses: []string{server.Addr}}))}
	limit := ratelimit.Limit{Count: 1, Per: time.Hour, Burst: 105}
	d := demand("a", limit)
	d.Lease = 10
	before := c.Stats()
	for i := range 105 {
		r := c.allow(d)
		if r[0].Remaining != 104-i || r[0].New != (i == 0) {
			t.Errorf("request %d: %+v", i, r[0])
		}
	}
	after := c.Stats()
	trips, local := after.RoundTrips-before.RoundTrips, after.LocalAdmissions-before.LocalAdmissions
	if trips > 14 || local < 90 { // some announce the process, one sends the script
		t.Errorf("%d round trips, %d admitted locally", trips, local)
	}
	for range 100 {
		if r := c.deny(d); r[0].Retry > time.Hour || r[0].Remaining != 0 {
			t.Fatalf("%+v", r[0])
		}
	}
	end := c.Stats()
	if n := end.LocalRefusals - after.LocalRefusals; n < 99 {
		t.Errorf("%d of 100 were refused locally, want all but the first at most", n)
	}
	// Reset drops what this process knows, too.
	if err := c.Reset(t.Context(), d.Key); err != nil {
		t.Fatal(err)
	}
	c.allow(d)
	if err := c.Reset(t.Context(), d.Key); err != nil {
		t.Fatal(err)
	}
	for range 105 {
		c.allow(d)
	}
	c.deny(d)
}

// While the server is down, leases go on.
func TestALeaseNeedsNoServer(t *testing.T) {
	server := valkeytest.Start(t)
	c := client{t, open(t, valkey.Config{Addresses: []string{server.Addr}, Timeout: valkey.MaxTimeout})}
	d := demand("a", slow)
	d.Lease = 5
	c.allow(d)
	server.Kill()
	for range 4 {
		c.allow(d)
	}
	c.unavailable(d)
}

// What one demand got from its lease goes back if another one is refused.
func TestLeasedAndStrictDemandsAreAllOrNothing(t *testing.T) {
	server := valkeytest.Start(t)
	c := client{t, open(t, patient(valkey.Config{Addresses: []string{server.Addr}}))}
	leased, strict := demand("leased", slow), demand("strict", ratelimit.Limit{Count: 1, Per: time.Hour, Burst: 3})
	leased.Lease = 10
	for range 3 {
		c.allow(leased, strict)
	}
	for range 30 {
		r := c.deny(leased, strict)
		if !r[0].Allowed || r[0].Remaining != 17 || r[1].Allowed {
			t.Fatalf("%+v", r)
		}
	}
	for range 17 {
		c.allow(leased)
	}
	c.deny(leased)

	// IfNew asks for the first demand's key, when that is admitted from a lease, too.
	first, budget := demand("first", slow), demand("budget", ratelimit.Limit{Count: 1, Per: time.Hour, Burst: 1})
	first.Lease, budget.IfNew = 5, true
	for range 12 {
		c.allow(first, budget)
	}
	other := demand("other", slow)
	other.Lease = 5
	if r := c.deny(other, budget); !r[0].New {
		t.Errorf("%+v", r)
	}
	c.allow(other)
}

// Processes that share a key leave each other room.
func TestLeasesLeaveRoomForOthers(t *testing.T) {
	server := valkeytest.Start(t)
	cfg := patient(valkey.Config{Addresses: []string{server.Addr}})
	b, a := client{t, open(t, cfg)}, client{t, open(t, cfg)}
	if n := a.Nodes(); n != 2 {
		t.Errorf("the second one counts %d processes", n)
	}
	d := demand("a", slow)
	d.Lease = 20
	a.allow(d)
	for range 5 {
		b.allow(d)
	}
	// Together they admit no more than the limit, whoever holds the leases.
	n := 6
	for _, c := range []client{a, b, a, b} {
		for {
			ok, _, err := c.take(d)
			if err != nil {
				t.Fatal(err)
			}
			if !ok {
				break
			}
			n++
		}
	}
	if n != slow.Burst {
		t.Errorf("admitted %d, want %d", n, slow.Burst)
	}
}

func TestProcessesAreCounted(t *testing.T) {
	thorough(t)
	server := valkeytest.Start(t)
	cfg := patient(valkey.Config{Addresses: []string{server.Addr}})
	a := open(t, cfg)
	b, err := valkey.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	other := cfg
	other.Prefix = "other"
	open(t, other)
	eventually(t, "both know of both", func() bool { return a.Nodes() == 2 && b.Nodes() == 2 })
	b.Close()
	if n := server.MustDo("ZCARD", "moat:{nodes}"); n != "1" {
		t.Errorf("%s processes after one said good-bye", n)
	}
	eventually(t, "one is left", func() bool { return a.Nodes() == 1 })
	// One that has died is forgotten when its word no longer holds.
	server.MustDo("ZADD", "moat:{nodes}", strconv.FormatInt(time.Now().Add(3*time.Second).UnixMicro(), 10), "died")
	eventually(t, "it is counted", func() bool { return a.Nodes() == 2 })
	eventually(t, "it is forgotten", func() bool { return a.Nodes() == 1 })
}
