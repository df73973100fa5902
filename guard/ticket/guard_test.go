package ticket_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/moat-gateway/moat/guard"
	"github.com/moat-gateway/moat/guard/ticket"
	"github.com/moat-gateway/moat/guard/ticket/tickettest"
	"github.com/moat-gateway/moat/store/memory"
)

const (
	demo    = "https://demo.example"
	chrome  = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/156.0.0.0 Safari/537.36"
	firefox = "Mozilla/5.0 (X11; Linux x86_64; rv:153.0) Gecko/20100101 Firefox/153.0"
)

var (
	secret = bytes.Repeat([]byte{7}, 32)
	issuer = bytes.Repeat([]byte{9}, 32)
	home   = netip.MustParseAddr("192.0.2.7")
	now    = time.Unix(1_800_000_000, 0)
)

// site is a gate's guard and one visitor of its pages.
type site struct {
	*ticket.Guard
	t     testing.TB
	visit tickettest.Visit
	now   time.Time
}

func newGuard(t testing.TB, change func(*ticket.Policy)) *ticket.Guard {
	t.Helper()
	p := ticket.Policy{Secrets: [][]byte{secret}, Issuers: [][]byte{issuer}}
	if change != nil {
		change(&p)
	}
	g, err := ticket.New(p, memory.NewTickets(1<<20, ticket.DefaultLifetime), nil)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func newSite(t testing.TB) *site {
	t.Helper()
	s := &site{Guard: newGuard(t, nil), t: t, now: now}
	doc, err := s.visit.Open()
	if err != nil {
		t.Fatal(err)
	}
	s.take(s.ask(doc, home, chrome))
	return s
}

// ask sends a document to the gate, and wants its answer.
func (s *site) ask(doc []byte, from netip.Addr, agent string) []byte {
	s.t.Helper()
	q, d := s.Read(s.now, bytes.NewReader(doc))
	if d.Denied() {
		s.t.Fatalf("%s: %s", doc, d.Reason)
	}
	reply, d := s.Issue(s.t.Context(), q, s.now, demo, ticket.BindTo(from, agent))
	if d.Denied() {
		s.t.Fatalf("%s: %s", doc, d.Reason)
	}
	text, err := json.Marshal(reply)
	if err != nil {
		s.t.Fatal(err)
	}
	return text
}

func (s *site) take(reply []byte) {
	s.t.Helper()
	if err := s.visit.Take(reply); err != nil {
		s.t.Fatalf("%s: %v", reply, err)
	}
}

// call is a call of the site's page, with a token in the header.
func call(method, target, body, token string) *http.Request {
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	if body == "" {
		r = httptest.NewRequest(method, target, http.NoBody)
	}
	r.Header.Set("Origin", demo)
	r.Header.Set("User-Agent", chrome)
	if token != "" {
		r.Header.Set(ticket.Header, token)
	}
	return r
}

func (s *site) decide(r *http.Request) guard.Decision {
	_, d := s.Decide(s.t.Context(), r, ticket.Facts{Now: s.now, Client: home, Pass: true})
	return d
}

func (s *site) want(r *http.Request, reason guard.Reason, about string) {
	s.t.Helper()
	if d := s.decide(r); d.Reason != reason || d.Denied() != (reason.Status() != 0) {
		s.t.Errorf("%s: %s %s (%+v), want %s", about, d.Outcome, d.Reason, d.Evidence, reason)
	}
}

const (
	target = "/v1/chat?stream=1"
	prompt = `{"messages":[]}`
)

func TestATicketIsGoodForEachOfItsCallsOnce(t *testing.T) {
	s := newSite(t)
	if s.visit.Uses != 32 || s.visit.Lifetime != 120 {
		t.Fatalf("%d uses, %d s", s.visit.Uses, s.visit.Lifetime)
	}
	for i := range s.visit.Uses {
		tok := s.visit.TokenAt(i, "POST", target, []byte(prompt))
		s.want(call("POST", target, prompt, tok), guard.TicketHonoured, "first use")
		s.want(call("POST", target, prompt, tok), guard.TicketUsed, "replay")
	}
	s.want(call("POST", target, prompt, s.visit.TokenAt(32, "POST", target, []byte(prompt))), guard.TicketMalformed, "beyond its uses")
	doc, err := s.visit.Renew()
	if err != nil {
		t.Fatal(err)
	}
	chain := s.visit.Ticket[6:14]
	s.take(s.ask(doc, home, chrome))
	if !bytes.Equal(chain, s.visit.Ticket[6:14]) {
		t.Error("renewing has changed the visitor")
	}
	s.want(call("GET", target, "", s.visit.Token("GET", target, nil)), guard.TicketHonoured, "after renewing")
}

func TestAProofCoversTheWholeCall(t *testing.T) {
	s := newSite(t)
	tok := func() string { return s.visit.Token("POST", target, []byte(prompt)) }
	other := newSite(t)
	for _, c := range []struct {
		about string
		r     *http.Request
		want  guard.Reason
	}{
		{"another method", call("PUT", target, prompt, tok()), guard.TicketProofInvalid},
		{"another path", call("POST", "/v1/admin?stream=1", prompt, tok()), guard.TicketProofInvalid},
		{"another query", call("POST", "/v1/chat?stream=0", prompt, tok()), guard.TicketProofInvalid},
		{"no query", call("POST", "/v1/chat", prompt, tok()), guard.TicketProofInvalid},
		{"another spelling of the path", call("POST", "/v1/%63hat?stream=1", prompt, tok()), guard.TicketProofInvalid},
		{"another digest", call("POST", target, prompt, tok()[:63]+"."+strings.Repeat("A", 43)), guard.TicketProofInvalid},
		{"the digest left out", call("POST", target, prompt, tok()[:63]), guard.TicketBodyUnproved},
		{"the body left out", call("POST", target, "", tok()), guard.TicketBodyDiffers},
		{"a stream where that is not accepted", call("POST", target, prompt, s.visit.StreamToken("POST", target)), guard.TicketBodyUnproved},
		{"none", call("POST", target, prompt, ""), guard.TicketMissing},
		{"of another process", call("POST", target, prompt, other.visit.Token("POST", target, []byte(prompt))), guard.TicketKeyUnknown},
		{"not a token", call("POST", target, prompt, "x"), guard.TicketMalformed},
		{"a token with blanks", call("POST", target, prompt, " "+tok()), guard.TicketMalformed},
	} {
		s.want(c.r, c.want, c.about)
	}
	r := call("POST", target, prompt, tok())
	r.Header.Add(ticket.Header, tok())
	s.want(r, guard.TicketMalformed, "two")
	r = call("POST", target, prompt, s.visit.StreamToken("POST", target))
	if _, d := s.Decide(t.Context(), r, ticket.Facts{Now: now, Client: home, StreamedBody: true}); d.Denied() {
		t.Errorf("a stream where it is accepted: %s", d.Reason)
	}
}

func TestATicketIsItsClientsAndItsPages(t *testing.T) {
	s := newSite(t)
	moved := func(change func(*http.Request, *ticket.Facts)) guard.Reason {
		r, x := call("GET", target, "", s.visit.Token("GET", target, nil)), ticket.Facts{Now: now, Client: home}
		change(r, &x)
		_, d := s.Decide(t.Context(), r, x)
		return d.Reason
	}
	for _, c := range []struct {
		about  string
		change func(*http.Request, *ticket.Facts)
		want   guard.Reason
	}{
		{"a neighbour's address", func(_ *http.Request, x *ticket.Facts) { x.Client = netip.MustParseAddr("192.0.2.200") }, guard.TicketHonoured},
		{"mapped", func(_ *http.Request, x *ticket.Facts) { x.Client = netip.MustParseAddr("::ffff:192.0.2.7") }, guard.TicketHonoured},
		{"another network", func(_ *http.Request, x *ticket.Facts) { x.Client = netip.MustParseAddr("198.51.100.7") }, guard.TicketMoved},
		{"IPv6", func(_ *http.Request, x *ticket.Facts) { x.Client = netip.MustParseAddr("2001:db8::7") }, guard.TicketMoved},
		{"another browser", func(r *http.Request, _ *ticket.Facts) { r.Header.Set("User-Agent", firefox) }, guard.TicketMoved},
		{"curl", func(r *http.Request, _ *ticket.Facts) { r.Header.Set("User-Agent", "curl/8") }, guard.TicketMoved},
		{"another page", func(r *http.Request, _ *ticket.Facts) { r.Header.Set("Origin", "https://evil.test") }, guard.TicketOtherOrigin},
		{"a same-origin GET has no Origin", func(r *http.Request, _ *ticket.Facts) { r.Header.Del("Origin") }, guard.TicketHonoured},
		{"at its end", func(_ *http.Request, x *ticket.Facts) { x.Now = now.Add(120 * time.Second) }, guard.TicketHonoured},
		{"too late", func(_ *http.Request, x *ticket.Facts) { x.Now = now.Add(126 * time.Second) }, guard.TicketExpired},
		{"too early", func(_ *http.Request, x *ticket.Facts) { x.Now = now.Add(-6 * time.Second) }, guard.TicketExpired},
	} {
		if got := moved(c.change); got != c.want {
			t.Errorf("%s: %s, want %s", c.about, got, c.want)
		}
	}
}

func TestTheTokenTravelsWhereNoHeaderCan(t *testing.T) {
	s := newSite(t)
	for about, r := range map[string]*http.Request{
		"Accept": func() *http.Request {
			r := call("GET", target, "", "")
			r.Header.Set("Accept", "*/*;moat="+s.visit.Token("GET", target, nil))
			return r
		}(),
		"end of a query":        call("GET", target+"&moat="+s.visit.Token("GET", target, nil), "", ""),
		"query of its own":      call("GET", "/v1/events?moat="+s.visit.Token("GET", "/v1/events", nil), "", ""),
		"no path, but a query":  call("GET", "/?moat="+s.visit.Token("GET", "/", nil), "", ""),
		"an empty query before": call("GET", "/?&moat="+s.visit.Token("GET", "/?", nil), "", ""),
	} {
		s.want(r, guard.TicketHonoured, about)
		ticket.Strip(r)
		if f := r.RequestURI + r.URL.String() + r.Header.Get("Accept") + r.Header.Get(ticket.Header); strings.Contains(f, "moat") {
			t.Errorf("%s: still there: %s", about, f)
		}
		s.want(r, guard.TicketMissing, about+", stripped")
	}
	r := call("GET", target+"&moat="+s.visit.Token("GET", target, nil), "", s.visit.Token("GET", target, nil))
	s.want(r, guard.TicketProofInvalid, "two of them: the one in the header covers the other")
}

func TestWhatCannotBeRenewed(t *testing.T) {
	s := newSite(t)
	renewal := func(v *tickettest.Visit) []byte {
		doc, err := v.Renew()
		if err != nil {
			t.Fatal(err)
		}
		return doc
	}
	good := renewal(&s.visit)
	forged := s.visit
	forged.Key = bytes.Repeat([]byte{1}, 32)
	for _, c := range []struct {
		about string
		g     *ticket.Guard
		doc   string
		after time.Duration
		want  guard.Reason
	}{
		{"long expired", s.Guard, string(good), 25 * time.Hour, guard.TicketExpired},
		{"without its key", s.Guard, string(renewal(&forged)), 0, guard.TicketProofInvalid},
		{"of another process", newGuard(t, nil), string(good), 0, guard.TicketKeyUnknown},
		{"not JSON", s.Guard, "x", 0, guard.TicketMalformed},
		{"two documents", s.Guard, string(good) + string(good), 0, guard.TicketMalformed},
		{"too long", s.Guard, `{"public":"` + strings.Repeat("A", 5000) + `"}`, 0, guard.TicketMalformed},
		{"neither", s.Guard, `{}`, 0, guard.TicketMalformed},
		{"both", s.Guard, `{"public":"A","ticket":"A"}`, 0, guard.TicketMalformed},
		{"no point of the curve", s.Guard, `{"public":"` + base64.RawURLEncoding.EncodeToString(bytes.Repeat([]byte{4}, 65)) + `"}`, 0, guard.TicketMalformed},
	} {
		if _, d := c.g.Read(now.Add(c.after), strings.NewReader(c.doc)); d.Reason != c.want {
			t.Errorf("%s: %s, want %s", c.about, d.Reason, c.want)
		}
	}
	if q, d := s.Read(now.Add(23*time.Hour), bytes.NewReader(good)); d.Denied() || !q.Renews() || q.Moved(ticket.BindTo(home, chrome)) || !q.Moved(ticket.BindTo(home, firefox)) {
		t.Errorf("a laptop that slept: %v %s", q, d.Reason)
	}
}

func TestRotationRefusesNoValidCall(t *testing.T) {
	used := memory.NewTickets(1<<20, ticket.DefaultLifetime)
	with := func(secrets ...[]byte) *ticket.Guard {
		g, err := ticket.New(ticket.Policy{Secrets: secrets}, used, nil)
		if err != nil {
			t.Fatal(err)
		}
		return g
	}
	s := &site{Guard: with(secret), t: t, now: now}
	doc, err := s.visit.Open()
	if err != nil {
		t.Fatal(err)
	}
	s.take(s.ask(doc, home, chrome))
	s.Guard = with(issuer, secret)
	s.want(call("GET", target, "", s.visit.Token("GET", target, nil)), guard.TicketHonoured, "after a new secret came in front")
	doc, err = s.visit.Renew()
	if err != nil {
		t.Fatal(err)
	}
	if _, d := s.Read(now, bytes.NewReader(doc)); d.Reason != guard.TicketKeyUnknown {
		t.Errorf("renewing under the old secret: %s", d.Reason)
	}
	if doc, err = s.visit.Open(); err != nil {
		t.Fatal(err)
	}
	s.take(s.ask(doc, home, chrome))
	s.Guard = with(issuer)
	s.want(call("GET", target, "", s.visit.Token("GET", target, nil)), guard.TicketHonoured, "after the old secret is gone")
}

func TestATicketOfThePagesBackend(t *testing.T) {
	s := newSite(t)
	at := time.Now() // since the store began to remember
	issue := func(change func(*tickettest.Issued)) {
		t.Helper()
		i := tickettest.Issued{Secret: issuer, Class: 0x12, Expires: uint32(at.Add(2 * time.Minute).Unix()), Number: 4711, Uses: 2}
		rand.Read(i.Visitor[:])
		change(&i)
		var err error
		if s.visit.Ticket, s.visit.Key, err = i.Make(); err != nil {
			t.Fatal(err)
		}
		s.visit.Next = 0
	}
	tok := func() *http.Request {
		return call("POST", target, prompt, s.visit.Token("POST", target, []byte(prompt)))
	}
	later := at.Add(3 * time.Minute)
	fresh := func(i *tickettest.Issued) { i.Expires = uint32(later.Add(2 * time.Minute).Unix()) }

	s.now = at
	issue(func(*tickettest.Issued) {})
	s.want(tok(), guard.TicketUsed, "it may have been used before the gate started")
	s.now = later
	issue(fresh)
	first := tok()
	s.want(first, guard.TicketHonoured, "first use")
	s.want(first, guard.TicketUsed, "replay")
	s.want(tok(), guard.TicketHonoured, "second use")
	s.want(tok(), guard.TicketMalformed, "beyond its uses")
	issue(func(i *tickettest.Issued) { fresh(i); i.Expires += 3600 })
	s.want(tok(), guard.TicketExpired, "longer than any ticket lives")
	issue(func(i *tickettest.Issued) { fresh(i); i.Secret = secret })
	s.want(tok(), guard.TicketKeyUnknown, "of nobody that is known")
	issue(func(i *tickettest.Issued) { fresh(i); i.Bind = [4]byte(ticket.BindTo(home, firefox)) })
	s.want(tok(), guard.TicketMoved, "bound to another browser")
	doc, err := s.visit.Renew()
	if err != nil {
		t.Fatal(err)
	}
	if _, d := s.Read(s.now, bytes.NewReader(doc)); d.Reason != guard.TicketExpired {
		t.Errorf("it cannot be renewed: %s", d.Reason)
	}
}

func TestAPassIsForNavigations(t *testing.T) {
	s := newSite(t)
	c, err := s.Pass(t.Context(), now, true, ticket.BindTo(home, chrome))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(c.String(), "__Host-moat-pass=") || !c.Secure || !c.HttpOnly || c.SameSite != http.SameSiteStrictMode || c.Path != "/" {
		t.Errorf("%s", c)
	}
	nav := func(change func(*http.Request)) *http.Request {
		r := call("GET", "/page", "", "")
		r.Header.Del("Origin")
		r.Header.Set("Sec-Fetch-Mode", "navigate")
		r.Header.Set("Cookie", "theme=dark; "+c.Name+"="+c.Value)
		if change != nil {
			change(r)
		}
		return r
	}
	s.want(nav(func(r *http.Request) { r.Header.Set("Sec-Fetch-Mode", "cors") }), guard.TicketMissing, "script")
	s.want(nav(func(r *http.Request) { r.Header.Set("User-Agent", firefox) }), guard.TicketMoved, "another browser")
	s.want(nav(func(r *http.Request) { r.Header.Add("Cookie", c.Name+"="+c.Value) }), guard.TicketMissing, "twice")
	if _, d := s.Decide(t.Context(), nav(nil), ticket.Facts{Now: s.now, Client: home}); d.Reason != guard.TicketMissing {
		t.Errorf("where no pass is good: %s", d.Reason)
	}
	forged := []byte(c.Value)
	copy(forged[50:], strings.Map(func(c rune) rune { return 'A' + (c+1)%26 }, c.Value[50:51]))
	s.want(nav(func(r *http.Request) { r.Header.Set("Cookie", c.Name+"="+string(forged)) }), guard.TicketProofInvalid, "forged")
	s.want(nav(func(r *http.Request) { r.Header.Add("Cookie", "moat-pass="+string(forged)) }), guard.TicketHonoured, "beside one that a sibling's page has set")
	for range ticket.PassUses - 1 {
		s.want(nav(nil), guard.TicketHonoured, "navigation")
	}
	s.want(nav(nil), guard.TicketUsed, "one too many")
}

func TestSignsAreReadWhereThereAreAny(t *testing.T) {
	s := newSite(t)
	doc, err := new(tickettest.Visit).Open()
	if err != nil {
		t.Fatal(err)
	}
	with := func(signs string) string { return strings.TrimSuffix(string(doc), "}") + `,"signs":` + signs + "}" }
	for text, want := range map[string]uint16{string(doc): 0, with("0"): 0, with("3"): 3, with("65535"): 65535} {
		q, d := s.Read(s.now, strings.NewReader(text))
		if d.Denied() || q.Signs != want {
			t.Errorf("%s: %s, signs %d; want %d", text, d.Reason, q.Signs, want)
		}
	}
	for _, signs := range []string{"-1", "65536", "1.5", `"webdriver"`, "[1]", "true"} {
		if _, d := s.Read(s.now, strings.NewReader(with(signs))); d.Reason != guard.TicketMalformed {
			t.Errorf("signs %s: %s; want %s", signs, d.Reason, guard.TicketMalformed)
		}
	}
}

func TestABodyIsHeldBackUntilItIsProved(t *testing.T) {
	for _, size := range []int{0, 1, 100, 64<<10 - 1, 64 << 10, 64<<10 + 1, 300 << 10} {
		text := make([]byte, size)
		rand.Read(text)
		for name, reader := range map[string]func() io.Reader{
			"whole": func() io.Reader { return bytes.NewReader(text) }, "in pieces": func() io.Reader { return iotest.HalfReader(bytes.NewReader(text)) },
			"with its end": func() io.Reader { return iotest.DataErrReader(bytes.NewReader(text)) },
		} {
			for _, length := range []int64{int64(size), -1, 1} { // the last is not true
				b := ticket.NewBody(io.NopCloser(reader()), length, sha256.Sum256(text))
				if err := b.Fill(); err != nil {
					t.Errorf("%s, %d bytes: %v", name, size, err)
				}
				if got, err := io.ReadAll(b); err != nil || !bytes.Equal(got, text) {
					t.Errorf("%s: %d bytes of %d, %v", name, len(got), size, err)
				}
				b = ticket.NewBody(io.NopCloser(reader()), length, [32]byte{})
				if err := b.Fill(); size <= 64<<10 && length != 1 && !errors.Is(err, ticket.ErrBodyDiffers) {
					t.Errorf("%s, %d bytes: a small body is judged before it is read: %v", name, size, err)
				}
				if got, err := io.ReadAll(b); !errors.Is(err, ticket.ErrBodyDiffers) || len(got) >= max(size, 1) {
					t.Errorf("%s: another body: %d bytes of %d, %v", name, len(got), size, err)
				}
			}
		}
	}
}

// failing is a store that does not answer.
type failing struct{ ticket.Store }

func (failing) Lineage() (ticket.Lineage, time.Time, bool) {
	return ticket.Lineage{}, time.Time{}, false
}

func (failing) Number(context.Context) (ticket.Lineage, uint64, error) {
	return ticket.Lineage{}, 0, errors.New("no answer")
}

func TestWithoutItsSharedStoreAProcessIssuesItsOwn(t *testing.T) {
	g, err := ticket.New(ticket.Policy{Secrets: [][]byte{secret}}, memory.NewTickets(1<<20, ticket.DefaultLifetime), failing{})
	if err != nil {
		t.Fatal(err)
	}
	s := &site{Guard: g, t: t, now: now}
	doc, err := s.visit.Open()
	if err != nil {
		t.Fatal(err)
	}
	s.take(s.ask(doc, home, chrome))
	tok := s.visit.Token("GET", target, nil)
	s.want(call("GET", target, "", tok), guard.TicketHonoured, "in this process")
	s.want(call("GET", target, "", tok), guard.TicketUsed, "replay")
	s.visit.Ticket[0] = 0x11
	s.want(call("GET", target, "", s.visit.Token("GET", target, nil)), guard.TicketKeyUnknown, "of the store")
}

func TestPolicyFaults(t *testing.T) {
	for about, p := range map[string]ticket.Policy{
		"no secret": {}, "a short secret": {Secrets: [][]byte{[]byte("hunter2")}}, "too long a life": {Secrets: [][]byte{secret}, Lifetime: time.Hour},
		"too many uses": {Secrets: [][]byte{secret}, Uses: 33}, "an issuer's short secret": {Secrets: [][]byte{secret}, Issuers: [][]byte{{1}}},
	} {
		if _, err := ticket.New(p, memory.NewTickets(1<<20, ticket.DefaultLifetime), nil); err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", about, err)
		}
	}
}

// No bit of a token can be changed, nor any part of it exchanged with another's.
func FuzzTokens(f *testing.F) {
	s := newSite(f)
	s.t = f
	a := s.visit.TokenAt(0, "POST", target, []byte(prompt))
	b := s.visit.TokenAt(1, "POST", target, []byte(prompt))
	f.Add(0, byte(1), 0, 0)
	f.Add(40, byte(0), 10, 20)
	f.Fuzz(func(t *testing.T, at int, flip byte, from, to int) {
		raw := []byte(a)
		if at >= 0 && at < len(raw) {
			raw[at] ^= flip
		}
		if from >= 0 && from <= to && to <= len(b) {
			copy(raw[from:to], b[from:to])
		}
		if string(raw) == a || string(raw) == b {
			return
		}
		if _, d := s.Decide(context.Background(), call("POST", target, prompt, string(raw)), ticket.Facts{Now: now, Client: home, Dry: true, StreamedBody: true}); !d.Denied() {
			t.Fatalf("%q is honoured", raw)
		}
	})
}

func FuzzRequests(f *testing.F) {
	s := newSite(f)
	doc, err := s.visit.Renew()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(doc)
	open, err := new(tickettest.Visit).Open()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(open)
	f.Fuzz(func(t *testing.T, text []byte) {
		q, d := s.Read(now, bytes.NewReader(text))
		if d.Denied() {
			return
		}
		var got struct{ Ticket, Proof string }
		var want struct{ Ticket, Proof string }
		if json.Unmarshal(text, &got) != nil || json.Unmarshal(doc, &want) != nil || q.Renews() && got != want {
			t.Fatalf("%s renews", text)
		}
	})
}
