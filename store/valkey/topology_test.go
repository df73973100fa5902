package valkey_test

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/moat-gateway/moat/guard/ratelimit"
	"github.com/moat-gateway/moat/store/valkey"
	"github.com/moat-gateway/moat/store/valkey/valkeytest"
)

// unhurried is a Config for tests in which servers must answer in time, and must not.
func unhurried(cfg valkey.Config) valkey.Config {
	cfg.Timeout = 250 * time.Millisecond
	return cfg
}

func TestSentinelsNameTheNextPrimary(t *testing.T) {
	thorough(t)
	w := valkeytest.StartSentinel(t, 3)
	for _, s := range w.Sentinels {
		setUser(t, s, "sentinel")
	}
	cfg := valkey.Config{
		Addresses: append([]string{"127.0.0.1:1"}, w.Addresses()...), Mode: valkey.Sentinel, Master: valkeytest.Master,
		SentinelUsername: "moat", SentinelPassword: secret,
	}
	c := client{t, open(t, unhurried(cfg))}
	c.allow(demand("a", slow))
	if role := w.Primary.MustDo("EXISTS", "moat:{192.0.2.0/24}:a:[192.0.2.7/32]::"); role != "1" {
		t.Errorf("the debt is not with the primary: %s", role)
	}

	// One that fails over while nobody asks, by the operator's will: the old primary lives
	// on as a replica, which must not be written to.
	w.Sentinels[0].MustDo("SENTINEL", "FAILOVER", valkeytest.Master)
	began := time.Now()
	eventually(t, "the replica is the primary", func() bool {
		c.take(demand("a", slow))
		role, err := w.Replica.Do("INFO", "replication") // it closes connections when it changes
		return err == nil && strings.Contains(role, "role:master") && c.Stats().State == valkey.Up
	})
	eventually(t, "debts are with the new primary", func() bool {
		c.take(demand("b", ratelimit.Limit{Count: 1000, Per: time.Minute}))
		n, err := w.Replica.Do("EXISTS", "moat:{192.0.2.0/24}:b:[192.0.2.7/32]::")
		return err == nil && n == "1"
	})
	t.Logf("switched over in %s", time.Since(began))

	wrong := cfg
	wrong.Master = "nobody"
	hasAll(t, client{t, open(t, wrong)}.unavailable(demand("a", slow)).Error(), w.Sentinels[0].Addr, `no master "nobody"`)
	wrong = cfg
	wrong.SentinelPassword = "wrong"
	hasAll(t, client{t, open(t, wrong)}.unavailable(demand("a", slow)).Error(), "sentinel "+w.Sentinels[0].Addr, "WRONGPASS")
}

func TestAPrimaryThatDiesIsReplaced(t *testing.T) {
	thorough(t)
	w := valkeytest.StartSentinel(t, 1)
	c := client{t, open(t, unhurried(valkey.Config{Addresses: w.Addresses(), Mode: valkey.Sentinel, Master: valkeytest.Master}))}
	c.allow(demand("a", slow))
	load := startLoad(c, 8)
	time.Sleep(50 * time.Millisecond)
	began := time.Now()
	w.Primary.Pause() // it is worse than dying: its connections stay
	eventually(t, "the store is down", func() bool { return c.Stats().State == valkey.Down })
	eventually(t, "the store is up", func() bool { return c.Stats().State == valkey.Up })
	t.Logf("failed over in %s, the slowest Take took %s", time.Since(began), time.Duration(load.slowest.Load()))
	load.end()
	c.allow(demand("b", slow))
	if took := time.Duration(load.slowest.Load()); took > 900*time.Millisecond {
		t.Errorf("a Take took %s", took)
	}
}

// setUser makes the user whom the documentation describes.
func setUser(t *testing.T, s *valkeytest.Server, mode string) {
	t.Helper()
	s.MustDo(append([]string{"ACL", "SETUSER"}, strings.Fields(rules(t, mode))[1:]...)...)
}

func clusterDemand(third int, l ratelimit.Limit) ratelimit.Demand {
	d := demand("client", l)
	d.Key.Net = netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, byte(third), 1}), 32)
	return d
}

// keyOf is the demand's key on the server.
func keyOf(third int) string {
	return fmt.Sprintf("moat:{10.0.%d.0/24}:client:[10.0.%d.1/32]::", third, third)
}

// clients are one client of each node.
func clients(t *testing.T, nodes valkeytest.Nodes) map[*valkeytest.Server]int {
	t.Helper()
	of := map[*valkeytest.Server]int{}
	for third := range 256 {
		slot, err := strconv.Atoi(nodes[0].MustDo("CLUSTER", "KEYSLOT", keyOf(third)))
		if err != nil {
			t.Fatal(err)
		}
		of[nodes.Of(slot)] = third
		if len(of) == len(nodes) {
			break
		}
	}
	return of
}

func TestANodeOfAClusterThatIsGoneTakesOnlyItsOwnWithIt(t *testing.T) {
	thorough(t)
	nodes := valkeytest.StartCluster(t, 3)
	for _, n := range nodes {
		n.MustDo("CONFIG", "SET", "cluster-require-full-coverage", "no")
	}
	c := client{t, open(t, unhurried(valkey.Config{Addresses: nodes.Addresses()[:1], Mode: valkey.Cluster}))}
	of := clients(t, nodes)
	for _, third := range of {
		c.allow(clusterDemand(third, slow))
	}
	for name, take := range map[string]struct{ away, back func(*valkeytest.Server) }{
		"killed": {(*valkeytest.Server).Kill, (*valkeytest.Server).Restart},
		"paused": {(*valkeytest.Server).Pause, (*valkeytest.Server).Continue},
	} {
		t.Run(name, func(t *testing.T) {
			gone := nodes[2]
			take.away(gone)
			eventually(t, "its clients are not waited for", func() bool {
				begun := time.Now()
				_, _, err := c.take(clusterDemand(of[gone], slow))
				return err != nil && time.Since(begun) < time.Millisecond
			})
			if s := c.Stats(); s.State != valkey.Partly {
				t.Errorf("%+v", s)
			}
			for range 20 {
				for node, third := range of {
					begun := time.Now()
					ok, r, err := c.take(clusterDemand(third, slow))
					if (err != nil) != (node == gone) {
						t.Errorf("node %s: ok %v, error %v, %+v", node.Addr, ok, err, r)
					}
					if took := time.Since(begun); took > 900*time.Millisecond {
						t.Errorf("a Take took %s", took)
					}
				}
			}
			take.back(gone)
			eventually(t, "the store is up", func() bool { return c.Stats().State == valkey.Up })
			c.allow(clusterDemand(of[gone], slow))
			for _, third := range of {
				if err := c.Reset(t.Context(), clusterDemand(third, slow).Key); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// In a cluster a Take may need several scripts. What the earlier ones took is given back
// if a later one refuses, or cannot be asked.
func TestInAClusterARefusalCostsNothingEither(t *testing.T) {
	thorough(t)
	nodes := valkeytest.StartCluster(t, 3)
	for _, n := range nodes {
		setUser(t, n, "cluster")
	}
	c := client{t, open(t, patient(valkey.Config{Addresses: nodes.Addresses(), Mode: valkey.Cluster, Username: "moat", Password: secret}))}
	of := clients(t, nodes)
	a, b, full := clusterDemand(of[nodes[0]], slow), clusterDemand(of[nodes[1]], slow), clusterDemand(of[nodes[2]], slow)
	for range slow.Burst {
		c.allow(full)
	}
	forced := a
	forced.Force, forced.Cost = true, 100
	leased := b
	leased.Lease = 8
	c.allow(a) // it is in debt before
	for range 3 {
		r := c.deny(a, forced, a, leased, full)
		if r[0].Remaining != slow.Burst-1 || r[3].Remaining != slow.Burst {
			t.Errorf("%+v", r)
		}
		// So that the next one asks the server again.
		if err := c.Reset(t.Context(), key("another")); err != nil {
			t.Error(err)
		}
	}
	if left := c.left(a); left != slow.Burst-1 {
		t.Errorf("room for %d, want %d", left, slow.Burst-1)
	}
	if left := c.left(b); left != slow.Burst {
		t.Errorf("room for %d, want %d", left, slow.Burst)
	}
	if c.allow(b)[0].New != true {
		t.Error("a debt that was given back is still there")
	}
	// IfNew asks about the first demand's key, wherever that is.
	budget := full
	budget.IfNew = true
	c.allow(a, budget)
	newcomer := clusterDemand(of[nodes[0]]+1, slow)
	newcomer.Key.Limit = "another"
	r := c.deny(newcomer, budget)
	if !r[0].New || r[1].Allowed {
		t.Errorf("%+v", r)
	}
	nodes[2].Pause()
	for range 10 {
		c.take(a, full)
	}
	eventually(t, "all is given back", func() bool { return c.left(a) == slow.Burst-2 })
	nodes[2].Continue()
}

// While a slot moves to another node, its new keys are there already.
func TestASlotOfAClusterMoves(t *testing.T) {
	thorough(t)
	nodes := valkeytest.StartCluster(t, 3)
	for _, n := range nodes {
		setUser(t, n, "cluster")
	}
	c := client{t, open(t, patient(valkey.Config{Addresses: nodes.Addresses(), Mode: valkey.Cluster, Username: "moat", Password: secret}))}
	third := clients(t, nodes)[nodes[0]]
	slot := nodes[0].MustDo("CLUSTER", "KEYSLOT", keyOf(third))
	from, to := nodes[0].MustDo("CLUSTER", "MYID"), nodes[1].MustDo("CLUSTER", "MYID")
	nodes[1].MustDo("CLUSTER", "SETSLOT", slot, "IMPORTING", from)
	nodes[0].MustDo("CLUSTER", "SETSLOT", slot, "MIGRATING", to)
	for range slow.Burst / 2 {
		c.allow(clusterDemand(third, slow))
	}
	for _, n := range nodes {
		n.MustDo("CLUSTER", "SETSLOT", slot, "NODE", to)
	}
	for range slow.Burst / 2 {
		c.allow(clusterDemand(third, slow))
	}
	c.deny(clusterDemand(third, slow))
	if s := c.Stats(); s.Errors != 0 || s.State != valkey.Up {
		t.Errorf("%+v", s)
	}
}
