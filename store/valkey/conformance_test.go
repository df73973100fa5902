package valkey_test

import (
	"context"
	"hash/maphash"
	"net/netip"
	"testing"

	"github.com/moat-gateway/moat/guard/budget"
	"github.com/moat-gateway/moat/guard/ratelimit"
	"github.com/moat-gateway/moat/store/storetest"
	"github.com/moat-gateway/moat/store/valkey"
	"github.com/moat-gateway/moat/store/valkey/valkeytest"
)

// patient is a Config for tests of what is decided, not of how soon: the machine may be busy.
func patient(cfg valkey.Config) valkey.Config {
	cfg.Timeout = valkey.MaxTimeout
	return cfg
}

func TestConformance(t *testing.T) {
	server := valkeytest.Start(t)
	storetest.Run(t, func(t *testing.T) ratelimit.Store {
		return open(t, patient(valkey.Config{Addresses: []string{server.Addr}, Prefix: t.Name()}))
	})
}

func TestConformanceOfBudgets(t *testing.T) {
	server := valkeytest.Start(t)
	storetest.RunBudgets(t, func(t *testing.T) budget.Store {
		return open(t, patient(valkey.Config{Addresses: []string{server.Addr}, Prefix: t.Name()})).Budgets()
	})
}

func TestConformanceInACluster(t *testing.T) {
	thorough(t)
	c := valkeytest.StartCluster(t, 3)
	cfg := func(t *testing.T) valkey.Config {
		return patient(valkey.Config{Addresses: c.Addresses(), Mode: valkey.Cluster, Prefix: t.Name()})
	}
	t.Run("budgets", func(t *testing.T) {
		storetest.RunBudgets(t, func(t *testing.T) budget.Store { return open(t, cfg(t)).Budgets() })
	})
	t.Run("in one slot", func(t *testing.T) {
		storetest.Run(t, func(t *testing.T) ratelimit.Store { return open(t, cfg(t)) })
	})
	t.Run("scattered", func(t *testing.T) {
		storetest.Run(t, func(t *testing.T) ratelimit.Store { return scattered{open(t, cfg(t))} })
	})
}

// scattered puts every key into another network, and so the keys of a Take into different
// slots.
type scattered struct{ *valkey.Store }

var seed = maphash.MakeSeed()

func scatter(k ratelimit.Key) ratelimit.Key {
	h := maphash.Comparable(seed, k)
	k.Route = k.Net.String() + " " + k.Route
	k.Net = netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(h), byte(h >> 8), 1}), 32)
	return k
}

func scatterAll(demands []ratelimit.Demand) []ratelimit.Demand {
	var all []ratelimit.Demand
	for _, d := range demands {
		d.Key = scatter(d.Key)
		all = append(all, d)
	}
	return all
}

func (s scattered) Take(ctx context.Context, demands []ratelimit.Demand, results []ratelimit.Result) (bool, error) {
	return s.Store.Take(ctx, scatterAll(demands), results)
}

func (s scattered) Peek(ctx context.Context, demands []ratelimit.Demand, results []ratelimit.Result) (bool, error) {
	return s.Store.Peek(ctx, scatterAll(demands), results)
}

func (s scattered) Reset(ctx context.Context, k ratelimit.Key) error {
	return s.Store.Reset(ctx, scatter(k))
}
