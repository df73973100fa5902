package valkeytest

import (
	"fmt"
	"strconv"
	"strings"
)

// Master is the name that Sentinels have for their primary.
const Master = "limits"

// Watched is a primary with a replica, and the Sentinels that watch over them.
type Watched struct {
	Primary, Replica *Server
	Sentinels        []*Server
}

// StartSentinel starts a primary, a replica and n Sentinels. They take a primary that does
// not answer for half a second for dead.
func StartSentinel(t T, n int) *Watched {
	t.Helper()
	w := &Watched{Primary: Start(t, "--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1")}
	host, port, _ := strings.Cut(w.Primary.Addr, ":")
	w.Replica = Start(t, "--replicaof", host, port)
	eventually(t, "the replica follows", func() bool {
		return strings.Contains(w.Replica.MustDo("INFO", "replication"), "master_link_status:up")
	})
	for range n {
		w.Sentinels = append(w.Sentinels, start(t, func(own, dir string) []string {
			return []string{write(t, dir, "sentinel.conf", fmt.Sprintf(
				"bind 127.0.0.1\nport %s\ndir %s\nsentinel monitor %[3]s %s %s %d\n"+
					"sentinel down-after-milliseconds %[3]s 500\nsentinel failover-timeout %[3]s 2000\n",
				own, dir, Master, host, port, n/2+1)), "--sentinel"}
		}))
	}
	for _, s := range w.Sentinels {
		eventually(t, "the Sentinels know the others and the replica", func() bool {
			info := s.MustDo("INFO", "sentinel")
			return strings.Contains(info, fmt.Sprintf("slaves=1,sentinels=%d", n))
		})
	}
	return w
}

// Addresses are those of the Sentinels.
func (w *Watched) Addresses() []string { return addresses(w.Sentinels) }

// Nodes is a cluster of primaries.
type Nodes []*Server

const slots = 1 << 14

// StartCluster starts n primaries that share the slots.
func StartCluster(t T, n int) Nodes {
	t.Helper()
	var c Nodes
	for range n {
		c = append(c, start(t, func(port, dir string) []string {
			return append(common(dir), "--port", port, "--cluster-enabled", "yes", "--cluster-node-timeout", "1000")
		}))
	}
	for i, s := range c {
		own := []string{"CLUSTER", "ADDSLOTS"}
		for slot := i * slots / n; slot < (i+1)*slots/n; slot++ {
			own = append(own, strconv.Itoa(slot))
		}
		s.MustDo(own...)
		s.MustDo("CLUSTER", "SET-CONFIG-EPOCH", strconv.Itoa(i+1))
		if i > 0 {
			host, port, _ := strings.Cut(s.Addr, ":")
			c[0].MustDo("CLUSTER", "MEET", host, port)
		}
	}
	for _, s := range c {
		eventually(t, "the cluster is whole", func() bool {
			info := s.MustDo("CLUSTER", "INFO")
			return strings.Contains(info, "cluster_state:ok") && strings.Contains(info, fmt.Sprintf("cluster_size:%d", n))
		})
	}
	return c
}

// Addresses are those of all nodes.
func (c Nodes) Addresses() []string { return addresses(c) }

// Of returns the node that has a slot.
func (c Nodes) Of(slot int) *Server { return c[slot*len(c)/slots] }

func addresses(servers []*Server) []string {
	var all []string
	for _, s := range servers {
		all = append(all, s.Addr)
	}
	return all
}
