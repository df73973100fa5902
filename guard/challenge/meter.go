package challenge

import (
	"encoding/binary"
	"hash/maphash"
	"math"
	"net/netip"
	"sync/atomic"
	"time"
)

const (
	// halfLife is the time in which a session counts half.
	halfLife = time.Minute
	tick     = time.Second / 16
	// rowCells make two rows of 256 KiB.
	rowCells = 1 << 15
)

// meter estimates how many sessions are opened per minute: from an address (IPv4 /32, IPv6
// /64), from the network around it (/24, /48), and by all.
//
// It is a count-min sketch (Cormode, Muthukrishnan: An Improved Data Stream Summary, 2005)
// whose counts decay: an address, and a network, counts in one cell of each row, and its rate
// is the lower of the two. Nothing is ever evicted and no cell belongs to anybody, so there is
// nothing that a flood of distinct networks could make it forget: all that it can do is to
// raise the rates of others who share both cells with it. Which ones those are nobody can
// choose, because the hash is seeded anew in each process. A flood that fills the table so far
// that quiet visitors are taken for busy ones opens more than 30,000 sessions a minute, each
// from another network; and by then everybody is asked for work because of the rate of all.
type meter struct {
	seed  maphash.Seed
	start time.Time
	_     [32]byte // everybody writes to what follows: it has a cache line of its own
	all   cell
	waits cell
	_     [48]byte
	rows  [2][rowCells]cell
}

// levels are the decayed counts that concern a client, or what is added to them. A steady rate
// of r sessions a minute is a count of r/ln 2.
type levels struct {
	address, network float32
	// all is of sessions that were opened with script, and waits of those without. They are
	// held apart because a wait costs a program nothing: a flood of waits must not make
	// others work.
	all, waits float32
}

func (l levels) plus(d levels) levels {
	return levels{l.address + d.address, l.network + d.network, l.all + d.all, l.waits + d.waits}
}

func (l levels) negative() levels { return levels{-l.address, -l.network, -l.all, -l.waits} }

func newMeter(start time.Time) *meter { return &meter{seed: maphash.MakeSeed(), start: start} }

// tickOf reads the monotonic clock of now, if it has one.
func (m *meter) tickOf(now time.Time) uint32 {
	return uint32(int64(now.Sub(m.start) / tick)) //nolint:gosec // it wraps around, see age.
}

// count adds d, and returns the levels including it. Of levels to which nothing is added it only reads.
func (m *meter) count(now time.Time, client netip.Addr, d levels) levels {
	t := m.tickOf(now)
	address, network := keysOf(client)
	return levels{
		address: m.countKey(t, address, d.address),
		network: m.countKey(t, network, d.network),
		all:     m.all.add(t, d.all),
		waits:   m.waits.add(t, d.waits),
	}
}

func (m *meter) countKey(t uint32, k netKey, n float32) float32 {
	h := maphash.Comparable(m.seed, k)
	return min(m.rows[0][h%rowCells].add(t, n), m.rows[1][h>>32%rowCells].add(t, n))
}

// netKey is a network. Those of both families and lengths are held apart by kind.
type netKey struct {
	kind uint8
	net  uint64
}

// keysOf returns the narrow and the wide network of a client. Clients whose address is not
// known are counted as one.
func keysOf(a netip.Addr) (address, network netKey) {
	switch a = a.Unmap(); {
	case a.Is4():
		b := a.As4()
		v := uint64(binary.BigEndian.Uint32(b[:]))
		return netKey{4, v}, netKey{5, v >> 8}
	case a.Is6():
		b := a.As16()
		v := binary.BigEndian.Uint64(b[:8])
		return netKey{6, v}, netKey{7, v >> 16}
	}
	return netKey{}, netKey{kind: 1}
}

// cell is a decaying count: the tick as of which it holds, in the upper half, and a float32.
type cell struct{ word atomic.Uint64 }

// add decays the count to tick t, adds n, and returns what it then is.
func (c *cell) add(t uint32, n float32) float32 {
	for {
		word := c.word.Load()
		v, at := decay(word, t)
		v = max(v+n, 0)
		if n == 0 || c.word.CompareAndSwap(word, uint64(at)<<32|uint64(math.Float32bits(v))) {
			return v
		}
	}
}

// decay is the count in a word as of tick t. A clock that was set back, or read too early,
// decays nothing.
func decay(word uint64, t uint32) (v float32, at uint32) {
	v, at = math.Float32frombits(uint32(word)), uint32(word>>32) //nolint:gosec // its halves.
	if v == 0 {
		return 0, t
	}
	age := int32(t - at) //nolint:gosec // the distance, also around the end; cells that nobody touched for 4 years count as new.
	if age <= 0 {
		return v, at
	}
	return v * float32(math.Exp2(-float64(age)*float64(tick)/float64(halfLife))), t
}
