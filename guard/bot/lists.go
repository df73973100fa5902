package bot

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// What a file may hold. A line of a list takes up to 32 bytes of memory, a row of an ASN table up to 40.
const (
	MaxListEntries = 1 << 20
	MaxASNRows     = 2 << 20

	// maxFaults is how many bad lines of a file are told.
	maxFaults = 10
	maxLine   = 512
	maxName   = 64
)

// Lists are the operator's lists of addresses, and the table that finds the autonomous system of
// an address.
type Lists struct {
	Lists []ScoredList
	ASNs  *ASNs // nil: there is none
}

// A ScoredList is a list, and what being on it adds to a score.
type ScoredList struct {
	Name  string
	Score int
	List  *List
}

// lookup returns the points of an address, and the name of the list that it is on: of several, the
// one with the most.
func (l *Lists) lookup(a netip.Addr) (points int, name string) {
	as := l.ASNs.Of(a)
	for i := range l.Lists {
		if s := &l.Lists[i]; s.Score > points && s.List.Holds(a, as.Number) {
			points, name = s.Score, s.Name
		}
	}
	return points, name
}

// A LineError is a line of a list or of an ASN table that cannot be used.
type LineError struct {
	Line   int
	Value  string
	Reason string
}

func (e *LineError) Error() string { return fmt.Sprintf("line %d: %q %s", e.Line, e.Value, e.Reason) }

// A List holds address ranges and autonomous systems. It is immutable.
type List struct {
	addrs ranges
	asns  []uint32 // sorted
}

// ParseList reads a list: a line has an address, an address range in CIDR form, or the number of an
// autonomous system such as AS64500; what follows "#" or ";" is a comment. Each bad line is told,
// the first ten at most; a list with one is not to be used.
func ParseList(text []byte) (*List, []*LineError) {
	l := &List{}
	faults := eachLine(text, MaxListEntries, func(line string) error {
		if i := strings.IndexAny(line, "#;"); i >= 0 {
			line = strings.TrimSpace(line[:i])
		}
		if line == "" {
			return nil
		}
		if number, ok := cutAS(line); ok {
			n, err := parseASN(number)
			if err != nil {
				return err
			}
			l.asns = append(l.asns, n)
			return nil
		}
		p, err := parsePrefix(line)
		if err != nil {
			return err
		}
		l.addrs.add(p.Addr(), lastOf(p), 0)
		return nil
	})
	slices.Sort(l.asns)
	l.asns = slices.Compact(l.asns)
	l.addrs.union()
	return l, faults
}

// Holds reports whether the list has the address, or the autonomous system that it belongs to, which
// is 0 if it is not known.
func (l *List) Holds(a netip.Addr, asn uint32) bool {
	if _, ok := l.addrs.find(a); ok {
		return true
	}
	if asn == 0 {
		return false
	}
	_, ok := slices.BinarySearch(l.asns, asn)
	return ok
}

// NeedsASNs reports whether the list names autonomous systems, which only an ASN table can find.
func (l *List) NeedsASNs() bool { return len(l.asns) > 0 }

// An AS is an autonomous system.
type AS struct {
	Number  uint32
	Country string // as the table has it, such as "DE"; may be empty
	Name    string
}

// ASNs tells which autonomous system announces an address. It is immutable.
type ASNs struct {
	addrs   ranges
	systems []AS
}

// ParseASNs reads a table in the TSV form of iptoasn.com: first address, last address, AS number,
// country, name. Rows of AS 0, which nobody announces, are left out.
func ParseASNs(text []byte) (*ASNs, []*LineError) {
	t := &ASNs{}
	known := make(map[AS]uint32)
	faults := eachLine(text, MaxASNRows, func(line string) error {
		if strings.HasPrefix(line, "#") {
			return nil
		}
		first, rest, _ := strings.Cut(line, "\t")
		last, rest, _ := strings.Cut(rest, "\t")
		number, rest, _ := strings.Cut(rest, "\t")
		country, name, _ := strings.Cut(rest, "\t")
		from, err := netip.ParseAddr(first)
		if err != nil {
			return errors.New("does not begin with an address; a row is: first address, last address, AS number, country, name, with tabs between")
		}
		to, err := netip.ParseAddr(last)
		from, to = from.Unmap(), to.Unmap()
		if err != nil || from.Is4() != to.Is4() || to.Less(from) || from.Zone() != "" || to.Zone() != "" {
			return errors.New("has no range of addresses: the second is not at or after the first, or not of its family")
		}
		n, err := parseASN(strings.TrimPrefix(number, "AS"))
		if err != nil && number != "0" {
			return err
		}
		if n == 0 {
			return nil
		}
		if len(country) != 2 {
			country = "" // "None" and the like
		}
		as := AS{n, country, name[:min(len(name), maxName)]}
		index, ok := known[as]
		if !ok {
			as.Country, as.Name = strings.Clone(as.Country), strings.Clone(as.Name)
			index = uint32(len(t.systems)) //nolint:gosec // at most MaxASNRows
			known[as] = index
			t.systems = append(t.systems, as)
		}
		t.addrs.add(from, to, index)
		return nil
	})
	if at, ok := t.addrs.overlap(); ok && len(faults) == 0 {
		faults = append(faults, &LineError{0, at.String(), "is in two ranges that overlap"})
	}
	return t, faults
}

// Of is the system that announces an address. Number is 0 if the table has none.
func (t *ASNs) Of(a netip.Addr) AS {
	if t == nil {
		return AS{}
	}
	if i, ok := t.addrs.find(a); ok {
		return t.systems[i]
	}
	return AS{}
}

// eachLine calls parse with every line that is not empty, and says which it refused.
func eachLine(text []byte, most int, parse func(line string) error) (faults []*LineError) {
	number, count := 0, 0
	for raw := range strings.Lines(strings.TrimPrefix(string(text), "\ufeff")) {
		number++
		line := strings.TrimSpace(raw[:min(len(raw), maxLine)])
		if line == "" {
			continue
		}
		count++
		var err error
		switch {
		case count > most:
			err = fmt.Errorf("is beyond the %d lines that a file may have", most)
		case len(raw) > maxLine:
			err = fmt.Errorf("is longer than %d bytes", maxLine)
		default:
			err = parse(line)
		}
		if err != nil {
			faults = append(faults, &LineError{number, line[:min(len(line), maxName)], err.Error()})
		}
		if count > most || len(faults) == maxFaults {
			break
		}
	}
	return faults
}

func cutAS(s string) (number string, ok bool) {
	if len(s) > 2 && (s[0]|0x20) == 'a' && (s[1]|0x20) == 's' {
		return s[2:], true
	}
	return "", false
}

func parseASN(s string) (uint32, error) {
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil || n == 0 {
		return 0, errors.New("has no AS number, which is from 1 to 4294967295")
	}
	return uint32(n), nil
}

func parsePrefix(s string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" {
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	switch {
	case err != nil:
		return p, errors.New("is no address, no range such as 192.0.2.0/24, and no AS number such as AS64500")
	case p.Bits() == 0:
		return p, errors.New("holds every address")
	case p.Addr().Is4In6():
		return p, errors.New("is an IPv4 range written as IPv6; write it as IPv4")
	case p.Masked() != p:
		return p, fmt.Errorf("has bits behind its length; write %s", p.Masked())
	}
	return p, nil
}

func lastOf(p netip.Prefix) netip.Addr {
	b := p.Addr().As16()
	bits := p.Bits()
	if p.Addr().Is4() {
		bits += 96
	}
	for i := bits; i < 128; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a := netip.AddrFrom16(b)
	if p.Addr().Is4() {
		a = a.Unmap()
	}
	return a
}

// ranges are address ranges, each with a number. A table of prefixes such as a trie would be faster
// by a few tens of nanoseconds, and would have to split each range of an ASN table, which is not
// made of prefixes; sorted ranges take 12 bytes each for IPv4, hold both kinds of file, and need no
// library.
type ranges struct {
	v4 []range4
	v6 []range6
}

type range4 struct{ first, last, value uint32 }

type range6 struct {
	first, last addr6
	value       uint32
}

type addr6 struct{ hi, lo uint64 }

func (a addr6) compare(b addr6) int {
	if c := cmp.Compare(a.hi, b.hi); c != 0 {
		return c
	}
	return cmp.Compare(a.lo, b.lo)
}

func to4(a netip.Addr) uint32 {
	b := a.As4()
	return binary.BigEndian.Uint32(b[:])
}

func to6(a netip.Addr) addr6 {
	b := a.As16()
	return addr6{binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])}
}

func (r *ranges) add(first, last netip.Addr, value uint32) {
	if first.Is4() {
		r.v4 = append(r.v4, range4{to4(first), to4(last), value})
		return
	}
	r.v6 = append(r.v6, range6{to6(first), to6(last), value})
}

func (r *ranges) sort() {
	slices.SortFunc(r.v4, func(a, b range4) int { return cmp.Compare(a.first, b.first) })
	slices.SortFunc(r.v6, func(a, b range6) int { return a.first.compare(b.first) })
}

// union makes the ranges disjoint, where their numbers do not matter.
func (r *ranges) union() {
	r.sort()
	n := 0
	for _, e := range r.v4 {
		if n > 0 && e.first <= r.v4[n-1].last {
			r.v4[n-1].last = max(r.v4[n-1].last, e.last)
			continue
		}
		r.v4[n] = e
		n++
	}
	r.v4 = slices.Clip(r.v4[:n])
	n = 0
	for _, e := range r.v6 {
		if n > 0 && e.first.compare(r.v6[n-1].last) <= 0 {
			if e.last.compare(r.v6[n-1].last) > 0 {
				r.v6[n-1].last = e.last
			}
			continue
		}
		r.v6[n] = e
		n++
	}
	r.v6 = slices.Clip(r.v6[:n])
}

// overlap sorts the ranges and returns an address that two of them hold.
func (r *ranges) overlap() (netip.Addr, bool) {
	r.sort()
	for i := 1; i < len(r.v4); i++ {
		if r.v4[i].first <= r.v4[i-1].last {
			var b [4]byte
			binary.BigEndian.PutUint32(b[:], r.v4[i].first)
			return netip.AddrFrom4(b), true
		}
	}
	for i := 1; i < len(r.v6); i++ {
		if r.v6[i].first.compare(r.v6[i-1].last) <= 0 {
			var b [16]byte
			binary.BigEndian.PutUint64(b[:8], r.v6[i].first.hi)
			binary.BigEndian.PutUint64(b[8:], r.v6[i].first.lo)
			return netip.AddrFrom16(b), true
		}
	}
	return netip.Addr{}, false
}

// find returns the number of the range that holds an address.
func (r *ranges) find(a netip.Addr) (value uint32, ok bool) {
	switch a = a.Unmap(); {
	case a.Is4():
		key := to4(a)
		i, found := slices.BinarySearchFunc(r.v4, key, func(e range4, k uint32) int { return cmp.Compare(e.first, k) })
		if !found {
			i--
		}
		if i >= 0 && key <= r.v4[i].last {
			return r.v4[i].value, true
		}
	case a.Is6():
		key := to6(a)
		i, found := slices.BinarySearchFunc(r.v6, key, func(e range6, k addr6) int { return e.first.compare(k) })
		if !found {
			i--
		}
		if i >= 0 && key.compare(r.v6[i].last) <= 0 {
			return r.v6[i].value, true
		}
	}
	return math.MaxUint32, false
}
