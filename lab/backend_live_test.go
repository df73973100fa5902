package lab

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// socket opens the API's WebSocket as a page of an origin does, with alice's cookie.
func (c *caller) socket(at, origin string) (*websocket.Conn, error) {
	c.t.Helper()
	fill := func(s string) string { return c.l.o.Names.fill(s, c.v.id) }
	dial := func(ctx context.Context, network, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, network, c.address)
	}
	conn, res, err := websocket.Dial(c.t.Context(), fill(at), &websocket.DialOptions{
		HTTPClient: &http.Client{Transport: &http.Transport{DialContext: dial}},
		HTTPHeader: http.Header{"Origin": {fill(origin)}, "Cookie": {"session=" + c.v.session}},
	})
	if res != nil && res.Body != nil {
		res.Body.Close()
	}
	if err == nil {
		c.t.Cleanup(func() { conn.CloseNow() })
	}
	return conn, err
}

func (c *caller) hears(conn *websocket.Conn, want string) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), 30*time.Second)
	defer cancel()
	if _, message, err := conn.Read(ctx); string(message) != want || err != nil {
		c.t.Fatalf("heard %q, %v; want %q", message, err, want)
	}
}

// TestSocketBelievesAnyOrigin: a stranger's page reads alice's balance, and moves money.
func TestSocketBelievesAnyOrigin(t *testing.T) {
	l := open(t)
	c := newCaller(t, l, reader(l))
	run := c.v.begin(nil, nil)
	conn, err := c.socket("{api:ws}/ws", "{stranger}")
	if err != nil {
		t.Fatal(err)
	}
	c.hears(conn, `{"balance": 1000}`)
	c.call("POST", "{api}/transfer?amount=100", "")
	c.hears(conn, `{"balance": 900}`)
	if err := conn.Write(t.Context(), websocket.MessageText, []byte(`{"amount": 50}`)); err != nil {
		t.Fatal(err)
	}
	c.hears(conn, `{"balance": 850}`)

	stranger := l.o.Names.Origin(RoleStranger, "")
	want := []string{
		"opened a socket that tells alice's balance, for a page of " + stranger, "moved 100 from alice to mallory",
		"moved 50 from alice to mallory, as a message on the socket of a page of " + stranger + " said",
	}
	if got := did(c.v, run); !slices.Equal(got, want) {
		t.Errorf("ran: %q; want %q", got, want)
	}
	events := c.v.ledger.of(run)
	if i := slices.IndexFunc(events, func(e Event) bool { return e.Kind == eventAnswered }); events[i].Request != 1 || events[i].Answer.Status != 101 {
		t.Errorf("the first answer is %+v; want the socket's, 101", events[i])
	}
	// What happens on a socket belongs to the run in which it was opened.
	next := c.v.begin(nil, nil)
	if err := conn.Write(t.Context(), websocket.MessageText, []byte(`{"amount": 1}`)); err != nil {
		t.Fatal(err)
	}
	c.hears(conn, `{"balance": 999}`)
	if got := c.v.ledger.of(next); len(got) > 0 {
		t.Errorf("the next run has %+v", got)
	}
	if n := len(did(c.v, run)); n != 4 {
		t.Errorf("%d things ran; want 4", n)
	}
}

// stream opens the stream of the balance.
func (c *caller) stream() (*bufio.Scanner, *http.Response) {
	c.t.Helper()
	res, err := c.send("GET", "{api}/stream", "", "Cookie", session, "Origin", "{stranger}")
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { res.Body.Close() })
	if res.StatusCode != http.StatusOK || res.Header.Get("Content-Type") != "text/event-stream" {
		c.t.Fatalf("%d %v", res.StatusCode, res.Header)
	}
	return bufio.NewScanner(res.Body), res
}

// line is the next line that is not empty.
func line(t testing.TB, s *bufio.Scanner) string {
	t.Helper()
	for s.Scan() {
		if s.Text() != "" {
			return s.Text()
		}
	}
	t.Fatal("the stream ended")
	return ""
}

// TestStreamIsAnsweredAtOnce: its head is in the ledger while it still goes on.
func TestStreamIsAnsweredAtOnce(t *testing.T) {
	l := open(t)
	c := newCaller(t, l, reader(l))
	run := c.v.begin(nil, nil)
	lines, _ := c.stream()
	if got := line(t, lines); got != `data: {"balance": 1000}` {
		t.Errorf("first %q", got)
	}
	checkLedger(t, c.v.ledger.of(run), 1, http.StatusOK)
	c.call("POST", "{api}/transfer?amount=100", "")
	if got := line(t, lines); got != `data: {"balance": 900}` {
		t.Errorf("then %q", got)
	}
}

// TestEachVisitorHasSoManyStreams: and gets another one when one of them ends.
func TestEachVisitorHasSoManyStreams(t *testing.T) {
	l := open(t)
	c := newCaller(t, l, reader(l))
	var open []*http.Response
	for range maxLive {
		lines, res := c.stream()
		line(t, lines)
		open = append(open, res)
	}
	if got := c.call("GET", "{api}/stream", "", "Cookie", session); got.status != http.StatusServiceUnavailable || !strings.Contains(got.body, "close one") {
		t.Errorf("one too many: %d %s", got.status, got.body)
	}
	if _, err := c.socket("{api:ws}/ws", "{bank}"); err == nil {
		t.Error("a socket opened beside them")
	}
	open[0].Body.Close()
	deadline := time.Now().Add(30 * time.Second)
	for {
		res, err := c.send("GET", "{api}/stream", "", "Cookie", session)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode == http.StatusOK {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("the stream that was closed still counts")
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// TestSlowReaderHoldsNobodyUp: who opens a stream and reads nothing of it does no harm to
// those who do, nor to the handlers whose work it tells.
func TestSlowReaderHoldsNobodyUp(t *testing.T) {
	l := open(t)
	c := newCaller(t, l, reader(l))
	var d net.Dialer
	for _, path := range []string{"/.lab/events", "/stream"} {
		conn, err := d.DialContext(t.Context(), "tcp", c.address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		if err := conn.(*net.TCPConn).SetReadBuffer(1024); err != nil {
			t.Fatal(err)
		}
		host := strings.TrimPrefix(l.o.Names.Origin(map[bool]Role{true: RoleAPI, false: RoleBank}[path == "/stream"], ""), "http://")
		fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: %s\r\nCookie: session=%s\r\n\r\n", path, host, c.v.session)
	}
	lines, _ := c.stream()
	line(t, lines)
	c.v.begin(nil, nil)
	began := time.Now()
	for i := range 100 {
		c.call("POST", "{api}/transfer?amount=1", strings.Repeat("x", 2000))
		if got, want := line(t, lines), fmt.Sprintf(`data: {"balance": %d}`, 999-i); got != want {
			t.Fatalf("heard %q; want %q", got, want)
		}
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("100 transfers took %s", took)
	}
}

// TestBodiesAreBounded: too much of one is refused, and only a part of one is kept.
func TestBodiesAreBounded(t *testing.T) {
	l := open(t)
	c := newCaller(t, l, reader(l))
	run := c.v.begin(nil, nil)
	if got := c.call("POST", "{api}/transfer?amount=1", strings.Repeat("x", maxBody+1)); got.status != http.StatusRequestEntityTooLarge {
		t.Errorf("%d %s", got.status, got.body)
	}
	if got := c.call("POST", "{api}/transfer?amount=1", strings.Repeat("é", maxBody/2)); got.status != http.StatusOK {
		t.Errorf("%d %s", got.status, got.body)
	}
	events := c.v.ledger.of(run)
	checkLedger(t, events, 2, http.StatusOK)
	for _, e := range events {
		if len(e.Body) > maxText+len("…") {
			t.Errorf("the ledger keeps %d bytes of a body", len(e.Body))
		}
	}
	if got := did(c.v, run); len(got) != 1 {
		t.Errorf("ran: %q", got)
	}
}

// TestLedgerKeepsAPartOfLongFields: as many as there may be, and as long as they may be.
func TestLedgerKeepsAPartOfLongFields(t *testing.T) {
	l := open(t)
	c := newCaller(t, l, reader(l))
	run := c.v.begin(nil, nil)
	header := []string{"Origin", strings.Repeat("\u00e9", 3000), "Cookie", "a=" + strings.Repeat("b", 5000)}
	for i := range 200 {
		header = append(header, fmt.Sprintf("X-%d", i), "v")
	}
	c.call("GET", "{api}/data?q="+strings.Repeat("q", 5000), "", header...)
	e := c.v.ledger.of(run)[0]
	if len(e.Header) != maxTold || len(e.URL) > maxText+3 {
		t.Errorf("%d fields, a URL of %d bytes", len(e.Header), len(e.URL))
	}
	for _, f := range e.Header {
		if len(f.Value) > maxText+3 {
			t.Errorf("%s has %d bytes", f.Name, len(f.Value))
		}
	}
}

// TestAbortedRequestIsInTheLedger: a body that never comes to its end is no body.
func TestAbortedRequestIsInTheLedger(t *testing.T) {
	l := open(t)
	c := newCaller(t, l, reader(l))
	run := c.v.begin(nil, nil)
	var d net.Dialer
	conn, err := d.DialContext(t.Context(), "tcp", c.address)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(conn, "POST /transfer?amount=7 HTTP/1.1\r\nHost: %s\r\nContent-Length: 100\r\n\r\namount=7", strings.TrimPrefix(l.o.Names.Origin(RoleAPI, ""), "http://"))
	conn.Close()
	deadline := time.Now().Add(30 * time.Second)
	for {
		events := c.v.ledger.of(run)
		if len(events) == 2 {
			if events[0].Kind != eventArrived || events[0].Body != "amount=7" || events[1].Kind != eventAnswered || events[1].Text == "" {
				t.Errorf("the ledger has %+v", events)
			}
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the ledger has %+v", events)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// TestEachVisitorHasHisShare: of requests at once and of requests in a second.
func TestEachVisitorHasHisShare(t *testing.T) {
	var s share
	now := time.Unix(1_800_000_000, 0)
	for i := range maxBusy {
		if why := s.take(now); why != "" {
			t.Fatalf("request %d: %s", i, why)
		}
	}
	if why := s.take(now); !strings.Contains(why, "at once") {
		t.Errorf("one too many at once: %q", why)
	}
	s.release()
	if why := s.take(now); why != "" {
		t.Errorf("after one has ended: %q", why)
	}
	s = share{shared: true}
	n := 0
	for ; s.take(now) == ""; n++ {
		s.release()
	}
	if n != maxRate.Burst {
		t.Errorf("%d came at once; want %d", n, maxRate.Burst)
	}
	if why := s.take(now.Add(time.Second)); why != "" {
		t.Errorf("a second later: %q", why)
	}
	s = share{}
	for range 10 * maxRate.Burst {
		if why := s.take(now); why != "" {
			t.Fatalf("a reader alone: %q", why)
		}
		s.release()
	}
}

// TestTooManyRequestsAreToldSo: in words, and without a place in the ledger, which they
// would fill.
func TestTooManyRequestsAreToldSo(t *testing.T) {
	l := open(t)
	c := newCaller(t, l, reader(l))
	c.v.share.busy = maxBusy
	got := c.call("GET", "{api}/data", "")
	if got.status != http.StatusTooManyRequests || !strings.Contains(got.body, "Too many requests at once") || got.header.Get("Retry-After") != "1" {
		t.Errorf("%d %v %s", got.status, got.header, got.body)
	}
	if events := c.v.ledger.of(0); len(events) > 0 {
		t.Errorf("the ledger has %+v", events)
	}
	if got = c.call("POST", "{bank}/.lab/run", "{}", "Sec-Fetch-Site", "same-origin"); got.status != http.StatusTooManyRequests {
		t.Errorf("the page's: %d %s", got.status, got.body)
	}
	if got = c.call("GET", "{bank}/.lab/ledger", "", "Sec-Fetch-Site", "same-origin"); got.status != http.StatusOK {
		t.Errorf("the ledger itself: %d %s", got.status, got.body)
	}
}

// TestStreamsAndSocketsThroughTheGate: the ledger has what the gate decided, that the handler
// ran and the answer, while they go on; and none of it if the gate refuses.
func TestStreamsAndSocketsThroughTheGate(t *testing.T) {
	l := open(t)
	c := newCaller(t, l, reader(l))
	if _, err := l.configure(c.v, head+open80, true); err != nil {
		t.Fatal(err)
	}
	run := c.v.begin(nil, nil)
	conn, err := c.socket("{gate:ws}/ws", "{bank}")
	if err != nil {
		t.Fatal(err)
	}
	c.hears(conn, `{"balance": 1000}`)
	res, err := c.send("GET", "{gate}/stream", "", "Cookie", session, "Origin", "{bank}")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	lines := bufio.NewScanner(res.Body)
	line(t, lines)
	c.call("POST", "{api}/transfer?amount=100", "")
	c.hears(conn, `{"balance": 900}`)
	if got := line(t, lines); got != `data: {"balance": 900}` {
		t.Errorf("the stream says %q", got)
	}
	if _, err = c.socket("{gate:ws}/ws", "{stranger}"); err == nil {
		t.Error("a stranger's socket is open")
	}
	kinds := map[int][]string{}
	for _, e := range c.v.ledger.of(run) {
		kinds[e.Request] = append(kinds[e.Request], e.Kind+e.Reason)
	}
	for n, want := range map[int][]string{
		1: {"answered", "arrived", "gate", "ran"}, 2: {"answered", "arrived", "gate", "ran"}, 3: {"answered", "arrived", "ran"},
		4: {"answered", "arrived", "gatecors-origin-not-allowed"},
	} {
		slices.Sort(kinds[n])
		if !slices.Equal(kinds[n], want) {
			t.Errorf("request %d: %q; want %q", n, kinds[n], want)
		}
	}
}
