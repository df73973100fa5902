package challenge

import (
	"math"
	"math/rand/v2"
	"net/netip"
	"sync"
	"testing"
	"time"
)

var start = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

func addr(n uint32) netip.Addr {
	return netip.AddrFrom4([4]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)})
}

// one session.
var one = levels{address: 1, network: 1, all: 1}

func (l levels) times(n float32) levels {
	return levels{n * l.address, n * l.network, n * l.all, n * l.waits}
}

func near(got float32, want float64) bool { return math.Abs(float64(got)-want) <= want/1000 }

func TestASessionCountsHalfAfterAMinute(t *testing.T) {
	m := newMeter(start)
	client := addr(0xc0000207)
	m.count(start, client, one.times(64))
	for minutes, want := range []float64{64, 32, 16, 8} {
		l := m.count(start.Add(time.Duration(minutes)*time.Minute), client, levels{})
		if !near(l.address, want) || !near(l.network, want) || !near(l.all, want) {
			t.Errorf("after %d minutes: %v, want %v", minutes, l, want)
		}
	}
	// Looking often, which moves no cell, and counting often, which does, lose no time.
	for now := start; now.Before(start.Add(3 * time.Minute)); now = now.Add(7 * time.Millisecond) {
		m.count(now, client, levels{all: 1e-9})
	}
	if l := m.count(start.Add(3*time.Minute), client, levels{}); !near(l.address, 8) || !near(l.all, 8) {
		t.Errorf("counted often: %v, want 8", l)
	}
}

func TestAClockThatIsSetBackForgetsNothing(t *testing.T) {
	m := newMeter(start)
	client := addr(0xc0000207)
	m.count(start, client, one.times(64))
	for _, back := range []time.Duration{time.Second, time.Hour, 300 * 24 * time.Hour} {
		if l := m.count(start.Add(-back), client, levels{}); l != one.times(64) {
			t.Errorf("%s earlier: %v", back, l)
		}
		m.count(start.Add(-back), client, one)
		if l := m.count(start, client, one.negative()); l != one.times(64) {
			t.Errorf("after a session %s earlier: %v", back, l)
		}
	}
}

// However many networks there are, nobody's rate is told lower than it is: nothing is evicted.
func TestAFloodOfNetworksMakesNothingForgotten(t *testing.T) {
	m := newMeter(start)
	busy := addr(0xc0000207)
	exact := 0.0
	for second := range 120 {
		now := start.Add(time.Duration(second) * time.Second)
		exact = exact*math.Exp2(-1.0/60) + 1
		m.count(now, busy, one)
		for range 2000 {
			m.count(now, addr(rand.Uint32()|1<<31), one)
		}
		if l := m.count(now, busy, levels{}); float64(l.address) < exact*0.999 || float64(l.network) < exact*0.999 {
			t.Fatalf("after %d s: %v, want at least %v", second, l, exact)
		}
	}
}

// The rate at which a flood makes quiet visitors look busy is far beyond the one at which all
// are asked for work anyway.
func TestAFloodThatFillsTheTableIsOneThatAllPayFor(t *testing.T) {
	for _, c := range []struct {
		perMinute int
		most      float64
	}{{1000, 0.001}, {30000, 0.02}, {60000, 0.15}} {
		m := newMeter(start)
		for i := range c.perMinute * 5 { // five minutes, in a place where each of them is alone
			m.count(start.Add(time.Duration(i)*time.Minute/time.Duration(c.perMinute)), addr(uint32(i)*2654435761), one)
		}
		end := start.Add(5 * time.Minute)
		busy := 0
		const visitors = 10000
		for i := range visitors {
			if m.count(end, netip.AddrFrom16([16]byte{0x20, 1, byte(i >> 8), byte(i)}), levels{}).address+1 > 5/math.Ln2 {
				busy++
			}
		}
		share := float64(busy) / visitors
		t.Logf("%6d sessions a minute from as many networks: %5.2f %% of quiet visitors look busy", c.perMinute, 100*share)
		if share > c.most {
			t.Errorf("%d sessions a minute make %.2f %% of quiet visitors look busy", c.perMinute, 100*share)
		}
	}
}

func TestNoSessionIsLostAmongMany(t *testing.T) {
	m := newMeter(start)
	client := addr(0xc0000207)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 10000 {
				m.count(start, client, one)
			}
		})
	}
	wg.Wait()
	if l := m.count(start, client, levels{}); l != one.times(80000) {
		t.Errorf("80,000 sessions are %v", l)
	}
}

func BenchmarkMeter(b *testing.B) {
	m := newMeter(time.Now())
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		m.count(m.start.Add(time.Duration(i)*time.Millisecond), addr(uint32(i)*2654435761), one)
	}
}
