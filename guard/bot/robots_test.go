package bot

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// patience is how long a test waits for what must happen. It is no measure of how long it takes.
const patience = time.Minute

// zone is a DNS server on loopback.
type zone struct {
	mu      sync.Mutex
	names   map[string][]string     // by address: the names that it resolves to
	addrs   map[string][]netip.Addr // by name
	refuses bool                    // SERVFAIL to everything
	hold    chan struct{}           // nil, or closed when questions may be answered
	asked   atomic.Int64            // for pointers
}

func newZone(t *testing.T) (*zone, *net.Resolver) {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	z := &zone{names: make(map[string][]string), addrs: make(map[string][]netip.Addr)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 1500)
		for {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			question := append([]byte(nil), buf[:n]...)
			go func() {
				z.mu.Lock()
				hold := z.hold
				z.mu.Unlock()
				if hold != nil {
					<-hold
				}
				if answer, err := z.answer(question); err == nil {
					_, _ = conn.WriteTo(answer, from)
				}
			}()
		}
	}()
	t.Cleanup(func() {
		conn.Close()
		<-done
	})
	return z, &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "udp", conn.LocalAddr().String())
	}}
}

func (z *zone) answer(question []byte) ([]byte, error) {
	var p dnsmessage.Parser
	head, err := p.Start(question)
	if err != nil {
		return nil, err
	}
	q, err := p.Question()
	if err != nil {
		return nil, err
	}
	z.mu.Lock()
	defer z.mu.Unlock()
	reply := dnsmessage.Message{Header: dnsmessage.Header{ID: head.ID, Response: true, RecursionAvailable: true}, Questions: []dnsmessage.Question{q}}
	add := func(body dnsmessage.ResourceBody) {
		reply.Answers = append(reply.Answers, dnsmessage.Resource{Header: dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class, TTL: 60}, Body: body})
	}
	known := false
	switch q.Type { //nolint:exhaustive // a resolver asks for nothing else here
	case dnsmessage.TypePTR:
		z.asked.Add(1)
		for addr, names := range z.names {
			if arpa(netip.MustParseAddr(addr)) == q.Name.String() {
				for _, n := range names {
					known = true
					add(&dnsmessage.PTRResource{PTR: dnsmessage.MustNewName(n)})
				}
			}
		}
	case dnsmessage.TypeA, dnsmessage.TypeAAAA:
		addrs, ok := z.addrs[q.Name.String()]
		known = ok
		for _, a := range addrs {
			if a.Is4() && q.Type == dnsmessage.TypeA {
				add(&dnsmessage.AResource{A: a.As4()})
			} else if a.Is6() && q.Type == dnsmessage.TypeAAAA {
				add(&dnsmessage.AAAAResource{AAAA: a.As16()})
			}
		}
	}
	switch {
	case z.refuses:
		reply.RCode, reply.Answers = dnsmessage.RCodeServerFailure, nil
	case !known:
		reply.RCode = dnsmessage.RCodeNameError
	}
	return reply.Pack()
}

// arpa is the name under which an address is looked up.
func arpa(a netip.Addr) string {
	var b strings.Builder
	if a.Is4() {
		v := a.As4()
		return fmt.Sprintf("%d.%d.%d.%d.in-addr.arpa.", v[3], v[2], v[1], v[0])
	}
	v := a.As16()
	for i := len(v) - 1; i >= 0; i-- {
		fmt.Fprintf(&b, "%x.%x.", v[i]&15, v[i]>>4)
	}
	return b.String() + "ip6.arpa."
}

func (z *zone) set(f func()) {
	z.mu.Lock()
	defer z.mu.Unlock()
	f()
}

var googlebot = Robot{Name: "google", UserAgent: "Googlebot", Domains: []string{"googlebot.com", "google.com"}}

// says is a request that calls itself so.
func says(userAgent string) *http.Request {
	req := toAPI("/")
	req.Header.Set("User-Agent", userAgent)
	return req
}

const asGooglebot = "Mozilla/5.0 (compatible; googlebot/2.1; +http://www.google.com/bot.html)"

func TestRobotsAreToldByTheirAddress(t *testing.T) {
	z, resolver := newZone(t)
	z.set(func() {
		z.names = map[string][]string{
			"192.0.2.1":   {"crawl-1.googlebot.com."},
			"192.0.2.2":   {"crawl-2.googlebot.com."},                  // which resolves to another address
			"192.0.2.3":   {"host.example.", "crawl-3.GoogleBot.com."}, // the second will do
			"192.0.2.4":   {"evilgooglebot.com."},                      // not below the domain
			"192.0.2.5":   {"crawl-5.googlebot.com.evil.example."},     // nor this
			"192.0.2.6":   {"nowhere.googlebot.com."},                  // which does not exist
			"192.0.2.7":   {"google.com."},                             // the domain itself
			"2001:db8::1": {"crawl-6.googlebot.com."},
			"192.0.2.8":   {"a.example.", "b.example.", "c.example.", "d.example.", "e.example.", "f.example.", "g.example.", "h.example.", "i.example.", "j.example."},
		}
		z.addrs = map[string][]netip.Addr{
			"crawl-1.googlebot.com.":              {netip.MustParseAddr("192.0.2.200"), netip.MustParseAddr("192.0.2.1")},
			"crawl-2.googlebot.com.":              {netip.MustParseAddr("192.0.2.201")},
			"crawl-3.GoogleBot.com.":              {netip.MustParseAddr("192.0.2.3")},
			"evilgooglebot.com.":                  {netip.MustParseAddr("192.0.2.4")},
			"crawl-5.googlebot.com.evil.example.": {netip.MustParseAddr("192.0.2.5")},
			"google.com.":                         {netip.MustParseAddr("192.0.2.7")},
			"crawl-6.googlebot.com.":              {netip.MustParseAddr("2001:db8::1")},
		}
	})
	r := newRobots(t, RobotsPolicy{Robots: []Robot{googlebot}, Resolver: resolver, Wait: patience, ResolveTimeout: patience})
	for _, c := range []struct {
		client, says string
		want         Proof
		why          string
	}{
		{"192.0.2.1", asGooglebot, Verified, "crawl-1.googlebot.com"},
		{"::ffff:192.0.2.1", "GOOGLEBOT", Verified, "crawl-1.googlebot.com"},
		{"2001:db8::1", asGooglebot, Verified, "crawl-6.googlebot.com"},
		{"192.0.2.3", asGooglebot, Verified, ""},
		{"192.0.2.7", asGooglebot, Verified, ""},
		{"192.0.2.2", asGooglebot, Refuted, "and back"},
		{"192.0.2.4", asGooglebot, Refuted, "and back"},
		{"192.0.2.5", asGooglebot, Refuted, "and back"},
		{"192.0.2.6", asGooglebot, Refuted, "and back"},
		{"192.0.2.8", asGooglebot, Refuted, "and back"},
		{"192.0.2.99", asGooglebot, Refuted, "resolves to no name"},
		{"192.0.2.99", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0", NoClaim, ""},
		{"192.0.2.1", "", NoClaim, ""},
	} {
		t.Run(c.client+" "+c.says, func(t *testing.T) {
			wantProof(t, r.Identify(t.Context(), says(c.says), netip.MustParseAddr(c.client), true, start), c.want, c.why)
		})
	}
	wantProof(t, r.Identify(t.Context(), toAPI("/"), robotAddr, true, start), NoClaim, "")
}

func TestAnswersAreKeptForATime(t *testing.T) {
	z, resolver := newZone(t)
	good, bad := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	z.set(func() {
		z.names[good.String()] = []string{"crawl.googlebot.com."}
		z.addrs["crawl.googlebot.com."] = []netip.Addr{good}
	})
	r := newRobots(t, RobotsPolicy{Robots: []Robot{googlebot}, Resolver: resolver, Wait: patience, ResolveTimeout: patience})
	at := func(client netip.Addr, when time.Duration, want Proof, asked int64) {
		t.Helper()
		wantProof(t, r.Identify(t.Context(), says(asGooglebot), client, true, start.Add(when)), want, "")
		if got := z.asked.Load(); got != asked {
			t.Fatalf("after %s: %d questions, want %d", when, got, asked)
		}
	}
	at(good, 0, Verified, 1)
	at(bad, 0, Refuted, 2)
	at(good, 59*time.Minute, Verified, 2)
	at(bad, 4*time.Minute, Refuted, 2)
	at(bad, 6*time.Minute, Refuted, 3)
	z.set(func() { z.refuses = true })
	// Nobody can tell: that holds for half a minute, and is no lie.
	before := z.asked.Load()
	wantProof(t, r.Identify(t.Context(), says(asGooglebot), good, true, start.Add(2*time.Hour)), Unverified, "could not be looked up")
	tries := z.asked.Load() - before
	wantProof(t, r.Identify(t.Context(), says(asGooglebot), good, true, start.Add(2*time.Hour+10*time.Second)), Unverified, "could not be looked up")
	if got := z.asked.Load() - before; got != tries {
		t.Fatalf("%d questions after %d", got, tries)
	}
	z.set(func() { z.refuses = false })
	wantProof(t, r.Identify(t.Context(), says(asGooglebot), good, true, start.Add(2*time.Hour+time.Minute)), Verified, "")

	// A reload keeps them, for a robot of the same domains.
	z.set(func() { z.refuses = true })
	next := newRobots(t, RobotsPolicy{Robots: []Robot{googlebot, {Name: "other", UserAgent: "other", Domains: []string{"other.example"}}}, Resolver: resolver, Wait: patience, ResolveTimeout: patience})
	next.Inherit(r)
	wantProof(t, next.Identify(t.Context(), says(asGooglebot), good, true, start.Add(2*time.Hour+time.Minute)), Verified, "")
	wantProof(t, next.Identify(t.Context(), says("other"), good, true, start.Add(2*time.Hour+time.Minute)), Unverified, "")
}

func TestRequestIsNotHeldForASlowServer(t *testing.T) {
	z, resolver := newZone(t)
	client := netip.MustParseAddr("192.0.2.1")
	hold := make(chan struct{})
	z.set(func() {
		z.hold = hold
		z.names[client.String()] = []string{"crawl.googlebot.com."}
		z.addrs["crawl.googlebot.com."] = []netip.Addr{client}
	})
	r := newRobots(t, RobotsPolicy{Robots: []Robot{googlebot}, Resolver: resolver, Wait: time.Millisecond, ResolveTimeout: patience})
	for range 20 { // each returns though the server answers nobody, and all ask once
		wantProof(t, r.Identify(t.Context(), says(asGooglebot), client, true, start), Unverified, "being looked up")
	}
	r.names.mu.Lock()
	under := len(r.names.flights)
	r.names.mu.Unlock()
	if under != 1 {
		t.Errorf("%d look-ups for one address", under)
	}
	for i := range 100 { // and no more than so many are under way
		wantProof(t, r.Identify(t.Context(), says(asGooglebot), netip.AddrFrom4([4]byte{198, 51, 100, byte(i)}), true, start), Unverified, "being looked up")
	}
	r.names.mu.Lock()
	under = len(r.names.flights)
	r.names.mu.Unlock()
	if under != maxLookups {
		t.Errorf("%d look-ups under way, want %d", under, maxLookups)
	}
	close(hold)
	z.set(func() { z.hold = nil })
	// A request that is gone waits for nothing.
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	r.policy.Wait = time.Hour
	r.Identify(gone, says(asGooglebot), netip.MustParseAddr("203.0.113.1"), true, start)
	wantProof(t, r.Identify(t.Context(), says(asGooglebot), client, true, start), Verified, "")
}

func TestMemoryOfAnswersIsBounded(t *testing.T) {
	n := newNames()
	robot := question{"googlebot.com", netip.MustParseAddr("192.0.2.1")}
	n.keep(robot, answer{proof: Verified, until: start.Add(time.Hour)}, start)
	for i := range 3 * maxAnswers {
		q := question{"googlebot.com", netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})}
		n.keep(q, answer{proof: Refuted, until: start.Add(time.Minute)}, start)
	}
	if len(n.no) > maxAnswers || len(n.yes) != 1 {
		t.Errorf("%d and %d answers", len(n.no), len(n.yes))
	}
	if a, ok := n.known(robot, start); !ok || a.proof != Verified {
		t.Error("impostors pushed the robot out")
	}
}

func TestNobodyCostsNothing(t *testing.T) {
	r := newRobots(t, RobotsPolicy{Robots: []Robot{googlebot, {Name: "agent", Agent: "https://agent.example", Keys: jwks(newSigner('a').public())}}})
	req := says("Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0")
	if n := testing.AllocsPerRun(100, func() { r.Identify(t.Context(), req, robotAddr, true, start) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
