package challenge_test

import (
	"encoding/binary"
	"math"
	"net/netip"
	"testing"
	"time"

	"github.com/moat-gateway/moat/guard"
	"github.com/moat-gateway/moat/guard/challenge"
)

// bits is what a client is asked for now.
func bits(t testing.TB, g *challenge.Guard, f challenge.Facts) int {
	t.Helper()
	p := g.Wait(f) // tells the same, and admits nobody
	return int(decoded(t, p.Token)[7])
}

func v4(n uint32) netip.Addr {
	return netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, n)))
}

// v6 is an address in the n-th /48.
func v6(n, host uint64) netip.Addr {
	b := binary.BigEndian.AppendUint64(nil, 0x2001<<48|n<<16)
	return netip.AddrFrom16([16]byte(binary.BigEndian.AppendUint64(b, host)))
}

func TestEachDoublingOfARateDoublesTheWork(t *testing.T) {
	g := open(t, challenge.Policy{QuietAddress: 10, QuietNetwork: 1e6, QuietAll: 1e6}, secret)
	f := facts(noon)
	count := 0
	for _, c := range []struct{ sessions, bits int }{{13, 0}, {14, 15}, {27, 15}, {28, 16}, {56, 16}, {57, 17}, {115, 18}, {1700, 21}, {1846, 22}, {9000, 22}} {
		for ; count < c.sessions; count++ {
			g.Count(f)
		}
		if got := bits(t, g, f); got != c.bits {
			t.Errorf("after %d sessions: 2^%d, want 2^%d", count, got, c.bits)
		}
	}
	f.Now = noon.Add(5 * time.Minute) // 281 are left
	if got := bits(t, g, f); got != 19 {
		t.Errorf("five minutes after 9,000 sessions: 2^%d", got)
	}
	f.Now = noon.Add(10 * time.Minute) // 9 are left
	if got := bits(t, g, f); got != 0 {
		t.Errorf("ten minutes after 9,000 sessions: 2^%d", got)
	}
}

func TestWhatCountsTogether(t *testing.T) {
	for _, c := range []struct {
		name           string
		busy, asked    string
		quiet          challenge.Policy
		together       bool
		renewed, renew bool
	}{
		{"an IPv4 address", "192.0.2.7", "::ffff:192.0.2.7", challenge.Policy{QuietAddress: 1}, true, false, false},
		{"its neighbour", "192.0.2.7", "192.0.2.8", challenge.Policy{QuietAddress: 1}, false, false, false},
		{"a /24", "192.0.2.7", "192.0.2.8", challenge.Policy{QuietNetwork: 1}, true, false, false},
		{"another /24", "192.0.2.7", "192.0.3.7", challenge.Policy{QuietNetwork: 1}, false, false, false},
		{"a /64", "2001:db8:1:2::7", "2001:db8:1:2:ffff::8", challenge.Policy{QuietAddress: 1}, true, false, false},
		{"another /64", "2001:db8:1:2::7", "2001:db8:1:3::7", challenge.Policy{QuietAddress: 1}, false, false, false},
		{"a /48", "2001:db8:1:2::7", "2001:db8:1:3::7", challenge.Policy{QuietNetwork: 1}, true, false, false},
		{"another /48", "2001:db8:1:2::7", "2001:db8:2:2::7", challenge.Policy{QuietNetwork: 1}, false, false, false},
		{"all", "192.0.2.7", "2001:db8::1", challenge.Policy{QuietAll: 1}, true, false, false},
		{"all, to who renews", "192.0.2.7", "2001:db8::1", challenge.Policy{QuietAll: 1}, false, false, true},
		{"renewals, to all", "192.0.2.7", "2001:db8::1", challenge.Policy{QuietAll: 1}, false, true, false},
		{"renewals, to an address", "192.0.2.7", "192.0.2.7", challenge.Policy{QuietAddress: 1}, true, true, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, rate := range []*float64{&c.quiet.QuietAddress, &c.quiet.QuietNetwork, &c.quiet.QuietAll} {
				if *rate == 0 {
					*rate = 1e6
				}
			}
			g := open(t, c.quiet, secret)
			for range 32 {
				g.Count(challenge.Facts{Now: noon, Client: netip.MustParseAddr(c.busy), Renewal: c.renewed})
			}
			if got := bits(t, g, challenge.Facts{Now: noon, Client: netip.MustParseAddr(c.asked), Renewal: c.renew}); (got > 0) != c.together {
				t.Errorf("asked for 2^%d", got)
			}
		})
	}
}

func TestAScoreAsksForWork(t *testing.T) {
	g := open(t, challenge.Policy{}, secret)
	f := facts(noon)
	for score, want := range []int{0, 0, 17, 18, 19, 20, 21, 22, 22} {
		f.Score = score
		if got := bits(t, g, f); got != want {
			t.Errorf("a score of %d: 2^%d, want 2^%d", score, got, want)
		}
	}
	f.Score = math.MaxInt
	if got := bits(t, g, f); got != 22 {
		t.Errorf("an endless score: 2^%d", got)
	}
}

// More sessions anywhere, or a higher score, are never asked for less; a renewal is never
// asked for more; the quiet are asked for nothing.
func FuzzDifficulty(f *testing.F) {
	f.Add(uint16(0), uint16(0), uint16(0), uint8(0), uint16(0))
	f.Add(uint16(5), uint16(36), uint16(1390), uint8(1), uint16(0))
	f.Add(uint16(100), uint16(500), uint16(2000), uint8(3), uint16(30))
	f.Fuzz(func(t *testing.T, address, network, all uint16, score uint8, seconds uint16) {
		g := open(t, challenge.Policy{}, secret)
		neighbour, stranger := v4(0xc0000208), v4(0x0a000001)
		for client, n := range map[netip.Addr]uint16{home: address % 4096, neighbour: network % 4096, stranger: all % 4096} {
			for range n {
				g.Count(challenge.Facts{Now: noon, Client: client})
			}
		}
		fresh := challenge.Facts{Now: noon.Add(time.Duration(seconds) * time.Second), Client: home, Score: int(score)}
		got := bits(t, g, fresh)
		if got != 0 && (got < 15 || got > 22) {
			t.Fatalf("2^%d", got)
		}
		a, n, e := float64(address%4096), float64(network%4096), float64(all%4096)
		if left := math.Exp2(-float64(seconds) / 60); a*left+1 < 7.2 && (a+n)*left+1 < 43.2 && (a+n+e)*left+1 < 1442 && score < 2 && got != 0 {
			t.Errorf("the quiet are asked for 2^%d", got)
		}
		renewal, later, odd := fresh, fresh, fresh
		renewal.Renewal, later.Now = true, fresh.Now.Add(time.Second)
		odd.Score++
		if r := bits(t, g, renewal); r > got {
			t.Errorf("a renewal is asked for 2^%d, a session for 2^%d", r, got)
		}
		if l := bits(t, g, later); l > got {
			t.Errorf("2^%d, and 2^%d a second later", got, l)
		}
		if o := bits(t, g, odd); o < got {
			t.Errorf("2^%d, and 2^%d with a higher score", got, o)
		}
		for _, client := range []netip.Addr{stranger, neighbour, home} {
			g.Count(challenge.Facts{Now: fresh.Now, Client: client})
			more := bits(t, g, fresh)
			if more < got {
				t.Errorf("2^%d, and 2^%d after another session from %s", got, more, client)
			}
			got = more
		}
	})
}

// party opens sessions at a steady rate, each from an address of its own choice.
type party struct {
	name   string
	rate   float64 // sessions per minute
	score  int
	client func(i int) netip.Addr

	opened, asked int
	hashes        float64
	due           float64
}

// flood lets the parties open sessions side by side and has all of them do the work that they are
// asked for. The first five minutes, in which the rates rise, are not counted.
func flood(t *testing.T, g *challenge.Guard, minutes int, parties ...*party) {
	t.Helper()
	const step = 50 * time.Millisecond
	for at := time.Duration(0); at < time.Duration(minutes)*time.Minute; at += step {
		for _, p := range parties {
			for p.due += p.rate * step.Minutes(); p.due >= 1; p.due-- {
				f := challenge.Facts{Now: noon.Add(at), Client: p.client(p.opened), Score: p.score}
				p.opened++
				ask, d := g.Decide(t.Context(), f, challenge.Answer{}, nil)
				if d.Reason == guard.ChallengeRequired {
					g.Count(f) // as when it is solved
					if at >= 5*time.Minute {
						p.asked++
						p.hashes += float64(ask.Puzzles) * math.Exp2(float64(ask.Bits))
					}
				}
			}
		}
	}
	for _, p := range parties {
		each := p.hashes / math.Max(1, p.rate*float64(minutes-5))
		t.Logf("%-46s %7.0f/min, %9.0f hashes each, %6.2f s of native code a minute", p.name, p.rate, each, each*p.rate/13.5e6)
	}
}

func quietVisitors() *party {
	return &party{name: "quiet visitors", rate: 200, client: func(i int) netip.Addr { return v4(0x50000000 + uint32(i)*1009) }}
}

func TestAFloodFromOneNetworkCostsOnlyThatNetwork(t *testing.T) {
	quiet := quietVisitors()
	near := &party{name: "an attacker in one /24", rate: 600, client: func(i int) netip.Addr { return v4(0xc6336400 + uint32(i)%256) }}
	one := &party{name: "an attacker with one address", rate: 100, client: func(int) netip.Addr { return v4(0xcb007101) }}
	slow := &party{name: "an attacker who takes his time", rate: 3, client: func(int) netip.Addr { return v4(0xcb007201) }}
	school := &party{name: "a school behind one address", rate: 20, client: func(int) netip.Addr { return v4(0xcb007301) }}
	hops := &party{name: "a scraper who moves on with each session", rate: 30, score: 2, client: func(i int) netip.Addr { return v6(uint64(i)*31, 1) }}
	flood(t, open(t, challenge.Policy{}, secret), 15, quiet, near, one, slow, school, hops)
	if quiet.asked > 0 || slow.asked > 0 {
		t.Errorf("%d quiet visitors, and %d slow attackers, are asked for work", quiet.asked, slow.asked)
	}
	if each := near.hashes / 6000; each < 1<<18 {
		t.Errorf("in one /24, 20 times its quiet rate costs %.0f hashes a session", each)
	}
	if each := hops.hashes / 300; each < 1<<17 {
		t.Errorf("a hop costs %.0f hashes", each)
	}
}

func TestAFloodFromThousandsOfNetworksIsPaidForByAllThatAreNew(t *testing.T) {
	for _, c := range []struct{ rate, atLeast, atMost float64 }{
		{700, 0, 0}, // 900 in all
		{3000, 1 << 15, 1 << 17},
		{30000, 1 << 19, 1 << 20},
	} {
		quiet := quietVisitors()
		wide := &party{name: "an attacker in 1,000 /48s", rate: c.rate, client: func(i int) netip.Addr { return v6(uint64(i%1000), uint64(i)) }}
		g := open(t, challenge.Policy{}, secret)
		flood(t, g, 7, quiet, wide)
		if each := quiet.hashes / 400; each < c.atLeast || each > c.atMost {
			t.Errorf("at %.0f a minute quiet visitors do %.0f hashes each", c.rate, each)
		}
		if wide.hashes/wide.rate < quiet.hashes/quiet.rate {
			t.Errorf("at %.0f a minute the attacker does less than quiet visitors", c.rate)
		}
		asked := 0
		for i := range uint32(100) {
			known := challenge.Facts{Now: noon.Add(7 * time.Minute), Client: v4(0x60000000 + i*1009), Renewal: true}
			if bits(t, g, known) != 0 {
				asked++
			}
		}
		if asked > 5 { // one or two may share all their cells with busy networks
			t.Errorf("at %.0f a minute %d of 100 known visitors are asked for work", c.rate, asked)
		}
	}
}

// Work that was done ahead, while it was cheap, is not good for a burst.
func TestWorkDoneAheadIsNotSpentAtOnce(t *testing.T) {
	g := open(t, challenge.Policy{QuietAddress: 1, QuietNetwork: 1e6, QuietAll: 1e6}, secret)
	var m memory
	f := facts(noon)
	g.Count(f)
	var hoard []challenge.Answer
	for range 64 {
		ask, d := g.Decide(t.Context(), f, challenge.Answer{}, m.once)
		want(t, d, guard.ChallengeRequired)
		hoard = append(hoard, solve(ask))
	}
	opened := 0
	for _, a := range hoard {
		if _, d := g.Decide(t.Context(), f, a, m.once); !d.Denied() {
			opened++
		}
	}
	// Eight times the quiet count of 1.44 asks for 2^18 hashes; 2^15 are enough below.
	if opened != 10 {
		t.Errorf("%d sessions are opened with hoarded work", opened)
	}
}

// A rate that rises while an honest visitor solves asks for nothing again, up to four times.
func TestARateThatRisesMeanwhileAsksNobodyAgain(t *testing.T) {
	g := open(t, challenge.Policy{QuietAddress: 10, QuietNetwork: 1e6, QuietAll: 1e6}, secret)
	var m memory
	f := facts(noon)
	for range 14 {
		g.Count(f)
	}
	ask, _ := g.Decide(t.Context(), f, challenge.Answer{}, m.once)
	a := solve(ask)
	for range 96 {
		g.Count(f)
	}
	_, d := g.Decide(t.Context(), f, a, m.once)
	want(t, d, guard.ChallengeSolved)
	a = solve(ask)
	for range 10 {
		g.Count(f)
	}
	harder, d := g.Decide(t.Context(), f, a, m.once)
	want(t, d, guard.ChallengeFailed)
	if harder.Bits != 14 {
		t.Errorf("asked for puzzles of %d bits", harder.Bits)
	}
}

func TestARefusalCountsNothing(t *testing.T) {
	g := open(t, challenge.Policy{QuietAddress: 1e6, QuietNetwork: 1e6, QuietAll: 1}, secret)
	var m memory
	f := facts(noon)
	g.Count(f)
	before, _ := g.Decide(t.Context(), f, challenge.Answer{}, m.once)
	a := solve(before)
	_, d := g.Decide(t.Context(), f, a, m.once)
	want(t, d, guard.ChallengeSolved)
	asked := bits(t, g, f)
	for range 1000 {
		_, d = g.Decide(t.Context(), f, challenge.Answer{}, m.once)
		want(t, d, guard.ChallengeRequired)
		_, d = g.Decide(t.Context(), f, a, m.once)
		want(t, d, guard.ChallengeFailed)
	}
	if got := bits(t, g, f); got != asked {
		t.Errorf("refusals raise the work from 2^%d to 2^%d", asked, got)
	}
}

func TestClientsWhoseAddressIsNotKnownAreOne(t *testing.T) {
	g := open(t, challenge.Policy{}, secret)
	for range 10 {
		g.Count(challenge.Facts{Now: noon})
	}
	if bits(t, g, challenge.Facts{Now: noon}) == 0 {
		t.Error("they are asked for nothing")
	}
}
