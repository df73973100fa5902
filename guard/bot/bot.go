package bot

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/moat-gateway/moat/guard"
)

// Signal is one of the things that are looked at. Their names and weights are stable.
type Signal uint8

// The signals, in the order in which they are told.
const (
	// FetchMetadata looks at Sec-Fetch-Site, -Mode and -Dest.
	FetchMetadata Signal = iota
	// Headers looks at User-Agent and at what a browser of that name sends beside it.
	Headers
	// HeaderOrder looks at the order of the header fields' names.
	HeaderOrder
	// JA4 looks at the TLS ClientHello.
	JA4
	// HTTP2 looks at the settings of an HTTP/2 connection.
	HTTP2
	// Behaviour looks at what the client has done lately.
	Behaviour
	// Reputation looks the address up in the operator's lists.
	Reputation
	// Client is what the page's own script has seen of its browser.
	Client
	// NumSignals is how many there are.
	NumSignals
)

// signals has what is fixed about each. A weight is the most that the signal can add.
var signals = [NumSignals]struct {
	name   string
	weight int
	mode   guard.Mode
}{
	FetchMetadata: {"fetch_metadata", 40, guard.Enforce},
	Headers:       {"headers", 40, guard.Enforce},
	HeaderOrder:   {"header_order", 30, guard.Report},
	JA4:           {"ja4", 40, guard.Report},
	HTTP2:         {"http2", 40, guard.Report},
	Behaviour:     {"behaviour", 30, guard.Report},
	Reputation:    {"reputation", 100, guard.Enforce},
	Client:        {"client", 60, guard.Enforce},
}

func (s Signal) String() string {
	if s < NumSignals {
		return signals[s].name
	}
	return fmt.Sprintf("Signal(%d)", uint8(s))
}

// Weight is the most that the signal can add to a score.
func (s Signal) Weight() int { return signals[s].weight }

// DefaultModes are those in which each signal is where nobody says otherwise: Enforce where no
// browser can get points for being one, Report where that rests on what was seen of browsers.
func DefaultModes() (m [NumSignals]guard.Mode) {
	for s := range signals {
		m[s] = signals[s].mode
	}
	return m
}

// Policy says what counts, and what it leads to.
type Policy struct {
	// Modes of the signals.
	Modes [NumSignals]guard.Mode
	// Challenge, Slow, Tarpit and Deny are the scores from which something is done; 0 is never.
	// Where a score reaches both Tarpit and Deny, the one that asks for more points counts.
	Challenge, Slow, Tarpit, Deny int
	// Lists that addresses are looked up in, or nil.
	Lists *Lists
	// Robots that are known by name, or nil.
	Robots *Robots
}

// remembered is the most that a page's signs count in requests that do not bring them: these may be a
// neighbour's, who has the same address and User-Agent. It makes tickets dearer, and refuses nobody.
const remembered = 30

// Facts are what a request is judged by, beside its head.
type Facts struct {
	Now    time.Time
	Client netip.Addr
	// Secure says that the client speaks TLS; Trustworthy, that its page's origin is one to which
	// browsers send Sec-Fetch-* and sec-ch-ua: https, or this machine
	// (https://w3c.github.io/webappsec-secure-contexts/#is-origin-trustworthy).
	Secure, Trustworthy bool
	// Direct says that nobody stands in front of the gate who may have made the connection.
	Direct bool
	// JA4, HTTP2 and HeaderOrder are what the connection's first bytes tell (see wire.Hello);
	// empty where that is not known, as where somebody else made the connection.
	JA4, HTTP2  string
	HeaderOrder []string
	// Pages says that every page that calls here is loaded through the gate too.
	Pages bool
	// Tickets is what the request has to do with tickets.
	Tickets TicketUse
	// Dry notes nothing, and asks nobody.
	Dry bool
}

// TicketUse is what a request has to do with tickets.
type TicketUse uint8

const (
	// NoTicket is for a request that has nothing to do with tickets.
	NoTicket TicketUse = iota
	// AsksForTicket is for one that wants a ticket.
	AsksForTicket
	// SpendsTicket is for one that needs a ticket.
	SpendsTicket
)

// Action is what a score leads to.
type Action uint8

// The actions, each stricter than those before it.
const (
	Allow Action = iota
	// Challenge has the client work more for its tickets.
	Challenge
	// Slow has the request cost more of its rate limits, beside Challenge.
	Slow
	// Tarpit keeps the client waiting, and then refuses.
	Tarpit
	// Deny refuses at once.
	Deny
)

// Verdict is what the signals say together.
type Verdict struct {
	// Score is the sum of the points of the enforced signals.
	Score  int
	Action Action
	// Harder is what the score adds to challenge.Facts.Score.
	Harder int
	// Decision amends, with BotSuspected, where the request goes on and something is done about it.
	Decision guard.Decision
	// Reported is what would be decided if the signals that are only reported were enforced. It
	// allows if that is nothing stricter.
	Reported guard.Decision
}

// Guard is a compiled Policy and a memory of fixed size of what clients have done lately. It is
// safe for concurrent use.
type Guard struct {
	p    Policy
	made fingerprints
	seen *visitors
}

// New compiles a Policy. What old, which may be nil, has seen of clients goes on to count.
func New(p Policy, old *Guard) (*Guard, error) {
	g := &Guard{p: p}
	if old != nil {
		g.seen = old.seen
		if p.Robots != nil && old.p.Robots != nil {
			p.Robots.Inherit(old.p.Robots)
		}
	} else {
		g.seen = newVisitors()
	}
	var errs []error
	for _, t := range []struct {
		name  string
		score int
	}{{"challenge", p.Challenge}, {"slow", p.Slow}, {"tarpit", p.Tarpit}, {"deny", p.Deny}} {
		if t.score < 0 {
			errs = append(errs, fmt.Errorf("%s is %d; a score is above 0, and 0 is never", t.name, t.score))
		}
	}
	if p.Tarpit > 0 && p.Tarpit == p.Deny {
		errs = append(errs, fmt.Errorf("tarpit and deny are both %d; one of them must ask for more", p.Deny))
	}
	if p.Lists != nil {
		for _, l := range p.Lists.Lists {
			if l.List.NeedsASNs() && p.Lists.ASNs == nil {
				errs = append(errs, fmt.Errorf("list %s names autonomous systems, and there is no table that tells which addresses are theirs", l.Name))
			}
		}
	}
	var err error
	if g.made, err = parseFingerprints(fingerprintsTSV); err != nil {
		errs = append(errs, fmt.Errorf("fingerprints.tsv: %w", err))
	}
	return g, errors.Join(errs...)
}

// Decide judges a request, and notes what it says about its client's behaviour. It allocates nothing
// for one that gets no points.
func (g *Guard) Decide(r *http.Request, f Facts) Verdict { return g.judge(r, f, false, 0) }

// Client judges a request for a ticket once more, with what the page's script has seen of its
// browser. That is remembered for the client's next requests.
func (g *Guard) Client(r *http.Request, f Facts, s Signs) Verdict { return g.judge(r, f, true, s) }

func (g *Guard) judge(r *http.Request, f Facts, known bool, s Signs) Verdict {
	q := read(r, f)
	var all [NumSignals]found
	if g.p.Robots != nil && !f.Dry {
		if d := g.identify(&q, &all[Headers]); d != (guard.Decision{}) {
			return Verdict{Decision: d}
		}
	}
	on := func(s Signal) bool { return g.p.Modes[s] != guard.Off }
	if on(FetchMetadata) {
		all[FetchMetadata] = fetchMetadata(&q)
	}
	if on(Headers) && all[Headers].points == 0 {
		all[Headers] = headers(&q)
	}
	if on(HeaderOrder) {
		all[HeaderOrder] = headerOrder(&q)
	}
	if on(JA4) {
		all[JA4] = g.made.tls(&q)
	}
	if on(HTTP2) {
		all[HTTP2] = g.made.settings(&q)
	}
	if on(Behaviour) || on(Client) {
		own := s.found()
		all[Behaviour], s = g.seen.see(&q, known, s)
		all[Client] = s.found()
		all[Client].points = max(own.points, min(all[Client].points, remembered))
	}
	if on(Reputation) && g.p.Lists != nil && f.Client.IsValid() {
		if points, name := g.p.Lists.lookup(f.Client); points > 0 {
			all[Reputation].add(points, name)
		}
	}
	return g.verdict(&all)
}

// identify asks whether the request is a known robot's. One that is not who it says gets points for
// its headers.
func (g *Guard) identify(q *subject, f *found) guard.Decision {
	c := g.p.Robots.Identify(q.Context(), q.Request, q.facts.Client, q.facts.Secure, q.facts.Now)
	switch c.Proof {
	case Verified:
		return guard.Decision{Reason: guard.BotVerified, Evidence: guard.Evidence{Where: "the robot " + c.Robot, Got: c.Why}}
	case NoClaim, Unverified: // nobody knows yet: it is judged as any other
	case Refuted:
		if c.Signed {
			return guard.Denial(guard.BotSignatureInvalid, "Signature of the robot "+c.Robot, c.Why, "a signature of a key of that robot's, for this request")
		}
		f.add(40, "says that it is "+c.Robot+", and is not: "+c.Why)
	}
	return guard.Decision{}
}

// verdict adds up. The points of a signal are bounded by its weight.
func (g *Guard) verdict(all *[NumSignals]found) (v Verdict) {
	would := 0
	for s := range all {
		f := &all[s]
		f.points = min(f.points, signals[s].weight)
		switch g.p.Modes[s] {
		case guard.Enforce:
			v.Score += f.points
			would += f.points
		case guard.Report:
			would += f.points
		case guard.Off:
			f.points = 0
		}
	}
	if would == 0 {
		return v
	}
	v.Action = g.action(v.Score)
	if v.Action >= Challenge && g.p.Challenge > 0 {
		v.Harder = min(2+(v.Score-g.p.Challenge)/20, maxHarder)
	}
	if v.Action > Allow {
		v.Decision = g.decision(v.Action, v.Score, all)
	}
	if a := g.action(would); a > v.Action {
		v.Reported = g.decision(a, would, all)
	}
	return v
}

// maxHarder bounds what a score adds to that of a challenge: each point doubles the work.
const maxHarder = 6

// action is what a score leads to.
func (g *Guard) action(score int) Action {
	reaches := func(least int) bool { return least > 0 && score >= least }
	switch deny, tarpit := reaches(g.p.Deny), reaches(g.p.Tarpit); {
	case deny && tarpit && g.p.Tarpit > g.p.Deny:
		return Tarpit
	case deny:
		return Deny
	case tarpit:
		return Tarpit
	case reaches(g.p.Slow):
		return Slow
	case reaches(g.p.Challenge):
		return Challenge
	}
	return Allow
}

// decision tells the operator which signals said what.
func (g *Guard) decision(a Action, score int, all *[NumSignals]found) guard.Decision {
	var b strings.Builder
	for _, mode := range [...]guard.Mode{guard.Enforce, guard.Report} {
		for s, f := range all {
			if f.points == 0 || g.p.Modes[s] != mode {
				continue
			}
			if b.Len() > 0 {
				b.WriteString("; ")
			}
			if mode == guard.Report {
				b.WriteString("only reported: ")
			}
			fmt.Fprintf(&b, "%s +%d (%s)", Signal(s), f.points, f.why)
		}
	}
	d := guard.Decision{Outcome: guard.Deny, Evidence: guard.Evidence{Where: "score " + strconv.Itoa(score), Got: b.String()}}
	switch a {
	case Deny:
		d.Reason, d.Evidence.Want = guard.BotDenied, "less than deny, "+strconv.Itoa(g.p.Deny)
	case Tarpit:
		d.Reason, d.Evidence.Want = guard.BotTarpitted, "less than tarpit, "+strconv.Itoa(g.p.Tarpit)
	case Slow:
		d.Outcome, d.Reason, d.Evidence.Want = guard.Amend, guard.BotSuspected, "less than slow, "+strconv.Itoa(g.p.Slow)
	case Challenge:
		d.Outcome, d.Reason, d.Evidence.Want = guard.Amend, guard.BotSuspected, "less than challenge, "+strconv.Itoa(g.p.Challenge)
	case Allow:
	}
	return d
}
