package bot

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

func parseList(t testing.TB, text string) *List {
	t.Helper()
	l, faults := ParseList([]byte(text))
	for _, f := range faults {
		t.Error(f)
	}
	return l
}

func parseASNs(t testing.TB, text string) *ASNs {
	t.Helper()
	a, faults := ParseASNs([]byte(text))
	for _, f := range faults {
		t.Error(f)
	}
	return a
}

func TestList(t *testing.T) {
	l := parseList(t, "\ufeff# hosting\r\n192.0.2.0/24\n\n  198.51.100.7  ; one\n2001:db8::/32 # all of it\n2001:db8:1::/48\nAS64500\nas64501 # b\n::ffff:203.0.113.9\n10.0.0.0/8\n10.2.0.0/16\n255.255.255.255\n")
	for addr, want := range map[string]bool{
		"192.0.2.0": true, "192.0.2.255": true, "192.0.1.255": false, "192.0.3.0": false, "::ffff:192.0.2.1": true,
		"198.51.100.7": true, "198.51.100.8": false, "203.0.113.9": true, "255.255.255.255": true, "0.0.0.0": false,
		"2001:db8::": true, "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff": true, "2001:db9::": false, "::1": false, "fe80::1%eth0": false,
		"10.0.0.0": true, "10.2.3.4": true, "10.255.255.255": true, "11.0.0.0": false,
	} {
		if got := l.Holds(netip.MustParseAddr(addr), 0); got != want {
			t.Errorf("%s: %v", addr, got)
		}
	}
	if !l.NeedsASNs() || !l.Holds(netip.MustParseAddr("1.1.1.1"), 64501) || l.Holds(netip.MustParseAddr("1.1.1.1"), 64502) || l.Holds(netip.Addr{}, 0) {
		t.Error("systems")
	}
}

func TestBadLines(t *testing.T) {
	for text, want := range map[string]string{
		"192.0.2.0/24\nexample.com": `line 2: "example.com" is no address`,
		"192.0.2.1/24":              `write 192.0.2.0/24`,
		"0.0.0.0/0":                 `holds every address`,
		"::/0":                      `holds every address`,
		"::ffff:192.0.2.0/120":      `write it as IPv4`,
		"192.0.2.0/33":              `is no address`,
		"192.0.2.1-192.0.2.9":       `is no address`,
		"64500":                     `is no address`,
		"AS0":                       `from 1 to 4294967295`,
		"AS4294967296":              `from 1 to 4294967295`,
		"ASx":                       `from 1 to 4294967295`,
		"fe80::1%eth0":              `is no address`,
		strings.Repeat("1", 600):    `is longer than 512 bytes`,
	} {
		if _, faults := ParseList([]byte(text)); len(faults) != 1 || !strings.Contains(faults[0].Error(), want) {
			t.Errorf("%.40q: %v, want %s", text, faults, want)
		}
	}
	for text, want := range map[string]string{
		"1.0.0.0\t1.0.0.255\t13335\tUS\tA\nx\t1.0.0.255\t1\tUS\tA":              `line 2: "x\t1.0.0.255\t1\tUS\tA" does not begin with an address`,
		"1.0.0.0\t1.0.0\t13335\tUS\tA":                                          "no range of addresses",
		"1.0.0.9\t1.0.0.1\t13335\tUS\tA":                                        "no range of addresses",
		"1.0.0.9\t2001:db8::\t13335\tUS\tA":                                     "no range of addresses",
		"1.0.0.0\t1.0.0.255\tx\tUS\tA":                                          "no AS number",
		"1.0.0.0 1.0.0.255 13335 US A":                                          "with tabs between",
		"1.0.0.0\t1.0.0.255\t1\tUS\tA\n1.0.0.255\t1.0.1.0\t2\tUS\tB":            "1.0.0.255\" is in two ranges",
		"2001:db8::\t2001:db8::9\t1\tUS\tA\n2001:db8::2\t2001:db8::3\t2\tUS\tB": "in two ranges",
	} {
		if _, faults := ParseASNs([]byte(text)); len(faults) != 1 || !strings.Contains(faults[0].Error(), want) {
			t.Errorf("%.40q: %v, want %s", text, faults, want)
		}
	}
	if _, faults := ParseList([]byte(strings.Repeat("x\n", 1000))); len(faults) != maxFaults {
		t.Errorf("%d faults are told", len(faults))
	}
}

func TestTooManyLines(t *testing.T) {
	if _, faults := ParseList([]byte(strings.Repeat("192.0.2.1\n", MaxListEntries+1))); len(faults) != 1 || !strings.Contains(faults[0].Reason, "beyond the 1048576 lines") {
		t.Error(faults)
	}
}

func TestASNs(t *testing.T) {
	a := parseASNs(t, "1.0.0.0\t1.0.0.255\t13335\tUS\tCLOUDFLARENET\n1.0.1.0\t1.0.3.255\t0\tNone\tNot routed\n1.0.4.0\t1.0.7.255\t38803\tAU\tGTELECOM Gtelecom Pty Ltd\n"+
		"2001:200::\t2001:200:ffff:ffff:ffff:ffff:ffff:ffff\t2500\tJP\tWIDE\n192.0.2.0\t192.0.2.9\tAS64500\tNone\n")
	for addr, want := range map[string]AS{
		"1.0.0.0": {13335, "US", "CLOUDFLARENET"}, "1.0.0.255": {13335, "US", "CLOUDFLARENET"}, "1.0.1.0": {}, "1.0.5.1": {38803, "AU", "GTELECOM Gtelecom Pty Ltd"},
		"2001:200::1": {2500, "JP", "WIDE"}, "2001:201::": {}, "0.0.0.0": {}, "192.0.2.9": {64500, "", ""}, "192.0.2.10": {},
	} {
		if got := a.Of(netip.MustParseAddr(addr)); got != want {
			t.Errorf("%s: %+v, want %+v", addr, got, want)
		}
	}
	if got := (*ASNs)(nil).Of(netip.MustParseAddr("1.0.0.0")); got != (AS{}) {
		t.Error(got)
	}
}

func TestListsGiveTheMostOfTheirPoints(t *testing.T) {
	l := &Lists{
		Lists: []ScoredList{{"hosting", 30, parseList(t, "AS64500\n")}, {"bad", 100, parseList(t, "192.0.2.5")}, {"less", 20, parseList(t, "192.0.2.0/24")}},
		ASNs:  parseASNs(t, "192.0.2.0\t192.0.2.9\t64500\tDE\tx\n"),
	}
	for addr, want := range map[string]string{"192.0.2.4": "30 hosting", "192.0.2.5": "100 bad", "192.0.2.10": "20 less", "192.0.3.1": "0 "} {
		points, name := l.lookup(netip.MustParseAddr(addr))
		if got := fmt.Sprint(points, " ", name); got != want {
			t.Errorf("%s: %s, want %s", addr, got, want)
		}
	}
}

// A list holds what one of its lines holds.
func TestListAgreesWithItsLines(t *testing.T) {
	rnd := rand.New(rand.NewPCG(8, 8))
	addr := func() netip.Addr {
		if rnd.IntN(2) == 0 {
			return netip.AddrFrom4([4]byte{10, 0, byte(rnd.IntN(4)), byte(rnd.IntN(256))})
		}
		return netip.AddrFrom16([16]byte{0x20, 0x01, 15: byte(rnd.IntN(256)), 8: byte(rnd.IntN(3))})
	}
	for range 200 {
		var lines []string
		var prefixes []netip.Prefix
		for range rnd.IntN(30) {
			a := addr()
			p, err := a.Prefix(a.BitLen() - rnd.IntN(10))
			if err != nil {
				t.Fatal(err)
			}
			prefixes, lines = append(prefixes, p), append(lines, p.String())
		}
		l := parseList(t, strings.Join(lines, "\n"))
		for range 200 {
			a := addr()
			if want := slices.ContainsFunc(prefixes, func(p netip.Prefix) bool { return p.Contains(a) }); l.Holds(a, 0) != want {
				t.Fatalf("%s in %q: want %v", a, lines, want)
			}
		}
	}
}

func FuzzParseList(f *testing.F) {
	f.Add("192.0.2.0/24 # x\nAS1\n::/1\n")
	f.Add("1.0.0.0\t1.0.0.255\t13335\tUS\tA\n")
	f.Fuzz(func(t *testing.T, text string) {
		ParseASNs([]byte(text))
		l, faults := ParseList([]byte(text))
		if len(faults) > 0 {
			return
		}
		for line := range strings.Lines(text) {
			line = strings.TrimSpace(strings.TrimPrefix(line, "\ufeff"))
			if a, err := netip.ParseAddr(line); err == nil && !l.Holds(a, 0) {
				t.Fatalf("%q lacks %s", text, a)
			}
		}
	})
}

// whole is a table as large as that of the internet, for which it is made.
func whole() string {
	var b strings.Builder
	for i := range 400_000 {
		fmt.Fprintf(&b, "%d.%d.%d.0\t%d.%d.%d.127\t%d\tUS\tNAME-%d\n", 1+i>>16, i>>8&255, i&255, 1+i>>16, i>>8&255, i&255, 1+i%80_000, i%80_000)
	}
	for i := range 150_000 {
		fmt.Fprintf(&b, "2a00:%x:%x::\t2a00:%x:%x:7fff:ffff:ffff:ffff:ffff\t%d\tDE\tNAME-%d\n", i>>8, i&255, i>>8, i&255, 1+i%80_000, i%80_000)
	}
	return b.String()
}

func TestLookupsAllocateNothing(t *testing.T) {
	l := &Lists{
		Lists: []ScoredList{{"x", 1, parseList(t, "AS5\n192.0.2.0/24\n2001:db8::/32")}},
		ASNs:  parseASNs(t, "1.0.0.0\t1.0.0.255\t13335\tUS\tA\n"),
	}
	for _, a := range []string{"1.0.0.1", "192.0.2.1", "2001:db8::1"} {
		addr := netip.MustParseAddr(a)
		if n := testing.AllocsPerRun(100, func() { l.lookup(addr) }); n != 0 {
			t.Errorf("%s: %v allocations", a, n)
		}
	}
}

func BenchmarkASNs(b *testing.B) {
	text := []byte(whole())
	b.Run("load", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, faults := ParseASNs(text); faults != nil {
				b.Fatal(faults[0])
			}
		}
	})
	table, _ := ParseASNs(text)
	rnd := rand.New(rand.NewPCG(1, 1))
	addrs := make([]netip.Addr, 1<<12)
	for i := range addrs {
		addrs[i] = netip.AddrFrom4([4]byte{byte(1 + rnd.IntN(6)), byte(rnd.IntN(256)), byte(rnd.IntN(256)), byte(rnd.IntN(256))})
	}
	b.Run("of", func(b *testing.B) {
		b.ReportAllocs()
		i := 0
		for b.Loop() {
			i++
			table.Of(addrs[i%len(addrs)])
		}
	})
}
