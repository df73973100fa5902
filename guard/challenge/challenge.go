package challenge

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"strconv"
	"time"

	"github.com/moat-gateway/moat/guard"
)

// Work is told in bits: b bits are 2^b hashes, on average.
const (
	// minBits is the least that is asked for, if anything is: some ms of a page's script.
	minBits = 15
	// limitBits bounds Policy.MaxBits. 2^26 hashes are 4 s of a page's script on a desktop, 11 s without WebAssembly, and a
	// minute or more on a phone, and a challenge is to be answered in two.
	limitBits = 26
	// puzzleBits: all work is split into 2^puzzleBits puzzles, whose times even out. The
	// unluckiest visitor in a thousand does 1.95 times the average work; with one puzzle, 6.9 times.
	puzzleBits = 4
	puzzles    = 1 << puzzleBits
	// slack is by how much the work that is asked for may have grown since the client
	// was told. Without it honest visitors would solve in circles while a flood grows; with
	// more of it work could be done ahead, while it is cheap.
	slack = 2
	// askingScore is the score from which on work is asked even of the quiet.
	askingScore = 2
)

// ofRenewal is what a renewal counts where it comes from, or one session could be renewed without
// end. Among all it counts nothing: the visitor is not a new one.
const ofRenewal = 1.0 / 16

// Policy says what is quiet, and what is asked for beyond. A zero field stands for its
// default.
type Policy struct {
	// The sessions per minute up to which nothing is asked for: from one address (IPv4) or
	// /64 (IPv6), by default 5; from the /24 or /48 around it, by default 30; and by all, by
	// default 1,000. A session counts half after a minute, so about 1.4 times as many may come at once.
	QuietAddress, QuietNetwork, QuietAll float64
	// MaxBits bounds the work: 2^MaxBits hashes. By default 22, at least 15, at most 26.
	MaxBits int
}

// Guard is a compiled Policy and a meter of the sessions that were opened. It is safe for
// concurrent use, and has half a MiB of memory that never grows.
type Guard struct {
	quiet   levels
	maxBits int
	keys    keyring
	meter   *meter
}

// New compiles a Policy. Of the secrets, 32 random bytes or more each, the first signs and all
// verify. Processes that share them honour each other's challenges.
func New(p Policy, secrets [][]byte) (*Guard, error) {
	g := &Guard{maxBits: p.MaxBits, meter: newMeter(time.Now())}
	var errs []error
	quiet := func(name string, rate, byDefault float64) float32 {
		switch {
		case rate == 0:
			rate = byDefault
		case !(rate > 0 && rate <= 1e6): // also what is no number
			errs = append(errs, fmt.Errorf("%s is %v sessions per minute; it must be above 0, and at most a million", name, rate))
		}
		return float32(rate / math.Ln2)
	}
	g.quiet = levels{
		address: quiet("the quiet rate of an address", p.QuietAddress, 5),
		network: quiet("the quiet rate of a network", p.QuietNetwork, 30),
		all:     quiet("the quiet rate of all", p.QuietAll, 1000),
	}
	if g.maxBits == 0 {
		g.maxBits = 22
	}
	if g.maxBits < minBits || g.maxBits > limitBits {
		errs = append(errs, fmt.Errorf("the most work is 2^%d hashes; want 2^%d to 2^%d: less is nothing, more keeps a phone busy for longer than a challenge lives", g.maxBits, minBits, limitBits))
	}
	var err error
	if g.keys, err = newKeyring(secrets); err != nil {
		errs = append(errs, err)
	}
	return g, errors.Join(errs...)
}

// Facts are what a session, or its renewal, is judged by.
type Facts struct {
	Now time.Time
	// Client is the client's address, as package clientaddr tells it. Clients whose
	// address is not known are counted as one.
	Client netip.Addr
	// Bind is what the client must still be when it has solved the challenge, such as its
	// network and the family of its browser.
	Bind [4]byte
	// Score says how unlike a page in a browser the client looks. A score of 2 or more is
	// asked for work even when all is quiet; each point doubles what is asked for.
	Score int
	// Renewal is for a visitor who has proved to be known and whose network is the same. It
	// counts a sixteenth of a session, and is asked for nothing because of what all do.
	// Whoever has moved opens a session: hopping from network to network costs each time.
	Renewal bool
}

// Ask is what a client is to solve: the member "challenge" of docs/ticket-format.md.
type Ask struct {
	Token   string `json:"token"`
	Puzzles int    `json:"puzzles"`
	Bits    int    `json:"bits"`
}

// Answer is what a client has sent: the members "challenge" and "solution".
type Answer struct {
	Token, Solution string
}

// Once marks an id until it expires, and reports whether it was the first to do so. Who has
// forgotten something since the id was issued, Lifetime before it expires, must report false.
type Once func(ctx context.Context, id uint64, expires time.Time) (first bool, err error)

// Decide admits a session or a renewal, and counts it; or it refuses, and asks for work. The
// Ask is zero if the client has nothing to solve.
//
// Nothing is counted that is refused, so raising somebody's rates costs what sessions cost.
func (g *Guard) Decide(ctx context.Context, f Facts, a Answer, once Once) (Ask, guard.Decision) {
	bits := g.asked(&f, work)
	var d guard.Decision
	paid := 0
	if bits > 0 {
		if a == (Answer{}) {
			return g.ask(&f, bits), required(bits)
		}
		if paid, d = g.verify(ctx, &f, a, bits, once); d.Reason == guard.TicketUnavailable {
			return Ask{}, d
		} else if d.Denied() {
			return g.ask(&f, bits), d
		}
	}
	if bits = g.admit(&f, work, paid); bits > 0 {
		return g.ask(&f, bits), required(bits)
	}
	return Ask{}, d
}

// Count counts a session that was opened though Decide refused it, in report mode.
func (g *Guard) Count(f Facts) { g.meter.count(f.Now, f.Client, f.counts(work)) }

// counts is what the session, opened by work or a wait, adds to the levels.
func (f *Facts) counts(kind uint8) levels {
	switch {
	case f.Renewal:
		return levels{address: ofRenewal, network: ofRenewal}
	case kind == wait:
		return levels{address: 1, network: 1, waits: 1}
	}
	return levels{address: 1, network: 1, all: 1}
}

// asked is the work that is asked for now.
func (g *Guard) asked(f *Facts, kind uint8) (bits int) {
	return g.bits(f, kind, g.meter.count(f.Now, f.Client, levels{}).plus(f.counts(kind)))
}

// admit counts a session, unless the work that is asked for is more than what was paid, up
// to the slack. Of many that come at the same moment each is judged by those before it: so
// work that was done ahead, while it was cheap, cannot be spent all at once.
func (g *Guard) admit(f *Facts, kind uint8, paid int) (missing int) {
	d := f.counts(kind)
	bits := g.bits(f, kind, g.meter.count(f.Now, f.Client, d))
	if enough(paid, bits) {
		return 0
	}
	g.meter.count(f.Now, f.Client, d.negative())
	return bits
}

func enough(paid, bits int) bool { return bits == 0 || paid > 0 && bits <= paid+slack }

// bits is the work that is asked for at these levels, which include the session itself.
func (g *Guard) bits(f *Facts, kind uint8, l levels) int {
	own := max(excess(l.address, g.quiet.address), excess(l.network, g.quiet.network))
	all := -1
	switch {
	case f.Renewal:
	case kind == wait:
		all = excess(l.all+l.waits, g.quiet.all)
	default:
		all = excess(l.all, g.quiet.all)
	}
	if own < 0 && all < 0 && f.Score < askingScore {
		return 0
	}
	return min(minBits+max(own, 0)+max(all, 0)+min(max(f.Score, 0), limitBits), g.maxBits)
}

// excess is how often the quiet count must be doubled to come near a count that is above it; -1
// for one that is not.
func excess(count, quiet float32) int {
	if count <= quiet {
		return -1
	}
	return math.Ilogb(float64(count / quiet))
}

func (g *Guard) ask(f *Facts, bits int) Ask {
	each := bits - puzzleBits
	t := g.keys.seal(work, puzzles, uint8(each), f.Bind, f.Now) //nolint:gosec // 11 to 22.
	return Ask{Token: t.text(), Puzzles: puzzles, Bits: each}
}

func required(bits int) guard.Decision {
	return guard.Denial(guard.ChallengeRequired, "challenge", "", "work of 2^"+strconv.Itoa(bits)+" hashes")
}

func failed(got, want string) guard.Decision {
	return guard.Denial(guard.ChallengeFailed, "challenge", got, want)
}

// verify returns the work that the answer shows. Cheap checks come first, and the one
// that marks the challenge as used comes last.
func (g *Guard) verify(ctx context.Context, f *Facts, a Answer, bits int, once Once) (paid int, d guard.Decision) {
	t, ok := g.keys.open(work, a.Token)
	if !ok {
		return 0, failed("a token that is malformed or not signed here", "the token as it was issued")
	}
	if d = g.current(&t, f); d.Denied() {
		return 0, d
	}
	var nonces [4 * puzzles]byte
	paid = int(t[7]) + puzzleBits
	switch {
	case t[6] != puzzles:
		return 0, failed("a challenge of another version", "one that was issued here")
	case !enough(paid, bits):
		return 0, failed("work of 2^"+strconv.Itoa(paid)+" hashes", "2^"+strconv.Itoa(bits-slack)+" at least, since more sessions are opened now")
	case !decode(nonces[:], a.Solution):
		return 0, failed("a solution that is malformed", "4 bytes for each puzzle")
	case !t.solved(nonces[:]):
		return 0, failed("a solution that is wrong", "hashes that begin with enough zero bits")
	}
	if d = spend(ctx, &t, once); d.Denied() {
		return 0, d
	}
	return paid, guard.Decision{Reason: guard.ChallengeSolved}
}

// current refuses a token that has expired, or that somebody else was given.
func (g *Guard) current(t *token, f *Facts) guard.Decision {
	switch {
	case f.Now.Unix() >= t.expires():
		return failed("a challenge that has expired", "an answer within "+Lifetime.String())
	case [4]byte(t[16:signed]) != f.Bind:
		return failed("another client's challenge", "an answer from the network and browser that asked")
	}
	return guard.Decision{}
}

// spend fails closed: if nobody knows whether a token was used, it is not honoured.
func spend(ctx context.Context, t *token, once Once) guard.Decision {
	first, err := once(ctx, t.id(), time.Unix(t.expires(), 0))
	switch {
	case err != nil:
		return guard.Denial(guard.TicketUnavailable, "challenge", err.Error(), "a store that answers")
	case !first:
		return failed("a challenge that was answered before", "a new one for each session")
	}
	return guard.Decision{}
}
