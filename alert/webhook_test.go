package alert

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

const secretText = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

func secret(t *testing.T, s string) []byte {
	t.Helper()
	key, err := ParseSecret(s)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func parse(t *testing.T, s string) *url.URL {
	t.Helper()
	u, err := url.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func message(rule string) Message {
	return Message{Type: Firing, Timestamp: time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC), Data: Data{
		Rule: rule, On: "refused", State: "firing", Value: 132, Threshold: 100, Unit: "requests", Window: 300,
		Since: time.Date(2026, 6, 1, 11, 59, 0, 0, time.UTC), Instance: "gate-1", Top: []Count{{"rate-limited", "rate_limit", 132}},
	}}
}

// The example of the specification, as its libraries test it.
func TestTheSignatureIsThatOfStandardWebhooks(t *testing.T) {
	key, err := base64.StdEncoding.DecodeString("plJ3nmyCDGBKInavdOK15jsl")
	if err != nil {
		t.Fatal(err)
	}
	h := make(http.Header)
	p := Policy{Secrets: [][]byte{key}}
	p.sign(h, "msg_loFOjxBNrRLzqYUf", time.Unix(1731705121, 0), []byte(`{"event_type":"ping","data":{"success":true}}`))
	if got := h.Get("Webhook-Signature"); got != "v1,rAvfW3dJ/X/qxhsaXPOyyCGmRKsaKWcsNccKXlIktD0=" {
		t.Errorf("signature %s", got)
	}
}

// verify is a receiver's check, in another language and with nothing of ours.
const verify = `
const crypto = require('node:crypto');
const {id, stamp, signatures, body, secret} = JSON.parse(require('fs').readFileSync(0));
const key = Buffer.from(secret.replace(/^whsec_/, ''), 'base64');
const want = crypto.createHmac('sha256', key).update(id + '.' + stamp + '.').update(Buffer.from(body, 'base64')).digest();
console.log(signatures.split(' ').filter(s => s.startsWith('v1,') && crypto.timingSafeEqual(want, Buffer.from(s.slice(3), 'base64'))).length);
`

func TestAReceiverVerifiesWhatItGets(t *testing.T) {
	got := make(chan map[string]any, 1)
	srv := httptest.NewTLSServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil || r.Method != http.MethodPost || r.Header.Get("Content-Type") != "application/json" || r.URL.Path != "/hook" {
			t.Errorf("%s %s, %v, %v", r.Method, r.URL, r.Header, err)
		}
		got <- map[string]any{"id": r.Header.Get("Webhook-Id"), "stamp": r.Header.Get("Webhook-Timestamp"), "signatures": r.Header.Get("Webhook-Signature"), "body": body}
	}))
	defer srv.Close()
	roots := x509.NewCertPool()
	roots.AddCert(srv.Certificate())
	w := NewWebhook(Policy{
		Name: "ops", URL: parse(t, srv.URL+"/hook"), RootCAs: roots,
		Secrets: [][]byte{secret(t, "bmV3IHNlY3JldCB3aXRoIG1vcmUgdGhhbiAyNCBieXRlcw=="), secret(t, secretText)},
	}, slog.New(slog.DiscardHandler))
	w.Send(t.Context(), message("guessing"))
	m := <-got
	m["secret"] = secretText
	in, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "node", "-e", verify)
	cmd.Stdin = bytes.NewReader(in)
	out, err := cmd.CombinedOutput()
	if err != nil || strings.TrimSpace(string(out)) != "1" {
		t.Errorf("node finds %s of the signatures good (%v); want 1 of the 2", out, err)
	}
	body, _ := m["body"].([]byte)
	const want = `{"type":"alert.firing","timestamp":"2026-06-01T12:00:00Z","data":{"rule":"guessing","on":"refused","state":"firing","value":132,"threshold":100,` +
		`"unit":"requests","window_seconds":300,"since":"2026-06-01T11:59:00Z","instance":"gate-1","top_reasons":[{"reason":"rate-limited","step":"rate_limit","count":132}]}}`
	if string(body) != want {
		t.Errorf("body %s\nwant %s", body, want)
	}
}

func TestSecrets(t *testing.T) {
	for _, s := range []string{secretText, strings.TrimPrefix(secretText, "whsec_"), base64.StdEncoding.EncodeToString(make([]byte, 64))} {
		if _, err := ParseSecret(s); err != nil {
			t.Errorf("%s: %v", s, err)
		}
	}
	for _, s := range []string{"", "whsec_", "not base64 at all, but long enough", base64.StdEncoding.EncodeToString(make([]byte, 23)), base64.StdEncoding.EncodeToString(make([]byte, 65))} {
		if _, err := ParseSecret(s); err == nil || s != "" && strings.Contains(err.Error(), s) {
			t.Errorf("%q: %v", s, err)
		}
	}
}

// What has no TLS to a stranger's machine, leads elsewhere, or resolves to where only the gate
// can go is not sent.
func TestWhereMessagesDoNotGo(t *testing.T) {
	asked := make(chan string, 10)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked <- r.URL.Path
		if r.URL.Path == "/redirect" {
			http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
		}
	}))
	defer srv.Close()
	_, port, err := net.SplitHostPort(srv.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	try := func(u string, allowed ...netip.Prefix) string {
		w := NewWebhook(Policy{Name: "ops", URL: parse(t, u), DangerouslyAllowNetworks: allowed}, slog.New(slog.DiscardHandler))
		return w.Try(t.Context(), message("x")).Error
	}
	if e := try(srv.URL + "/redirect"); e != "answered 307: redirects are not followed" {
		t.Errorf("a redirect: %s", e)
	}
	if paths := <-asked; paths != "/redirect" || len(asked) != 0 {
		t.Errorf("asked for %s, and %d more", paths, len(asked))
	}
	// A name of another machine that leads here, as a receiver's whose resolver is not its own may.
	w := NewWebhook(Policy{Name: "ops", URL: parse(t, "http://127.0.0.1:"+port+"/")}, slog.New(slog.DiscardHandler))
	elsewhere := *w.policy.Load()
	elsewhere.URL = parse(t, "http://10.0.0.1:"+port+"/")
	w.policy.Store(&elsewhere)
	if err := w.control(t.Context(), "tcp", "127.0.0.1:"+port, nil); err == nil {
		t.Error("another machine's name leads to this one")
	}
	for _, a := range []string{"10.1.2.3", "192.168.1.1", "169.254.169.254", "[fd00::1]", "[::ffff:10.0.0.1]", "100.64.0.1"} {
		if e := try("http://" + a + ":9/"); !strings.Contains(e, "is no address of the public Internet") {
			t.Errorf("%s: %s", a, e)
		}
		if strings.Contains(try("http://"+a+":9/"), "?") {
			t.Errorf("%s: the error has the URL", a)
		}
	}
	if err := func() error {
		p := elsewhere
		p.DangerouslyAllowNetworks = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
		w.Use(p)
		return w.control(t.Context(), "tcp", "10.1.2.3:443", nil)
	}(); err != nil {
		t.Errorf("a range that is allowed: %v", err)
	}
	if len(asked) != 0 {
		t.Errorf("%d requests arrived", len(asked))
	}
}

// receiver is a real server in the bubble of a synctest, reached through pipes. It is down until
// up; what it does with a request is handle's.
type receiver struct {
	conns  chan net.Conn
	mu     sync.Mutex
	up     bool
	handle http.HandlerFunc
	rules  []string // of the messages that arrived
	ids    []string
	stamps []string
	tries  []time.Time
}

func (r *receiver) Accept() (net.Conn, error) {
	c, ok := <-r.conns
	if !ok {
		return nil, net.ErrClosed
	}
	return c, nil
}

func (r *receiver) Close() error {
	close(r.conns)
	return nil
}

func (r *receiver) Addr() net.Addr { return &net.TCPAddr{} }

func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	var m Message
	json.NewDecoder(req.Body).Decode(&m)
	r.mu.Lock()
	r.rules, r.ids, r.stamps = append(r.rules, m.Data.Rule), append(r.ids, req.Header.Get("Webhook-Id")), append(r.stamps, req.Header.Get("Webhook-Timestamp"))
	handle := r.handle
	r.mu.Unlock()
	if handle != nil {
		handle(w, req)
	}
}

func (r *receiver) set(up bool, handle http.HandlerFunc) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.up, r.handle = up, handle
}

// seen is what has arrived.
func (r *receiver) seen() (rules, ids, stamps []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.rules), slices.Clone(r.ids), slices.Clone(r.stamps)
}

// inBubble runs f with a receiver and its webhook, where time passes when all wait.
func inBubble(t *testing.T, f func(t *testing.T, r *receiver, w *Webhook)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := &receiver{conns: make(chan net.Conn)}
		srv := &http.Server{Handler: r}
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			srv.Serve(r)
		}()
		w := NewWebhook(Policy{Name: "ops", URL: parse(t, "http://127.0.0.1/"), Secrets: [][]byte{secret(t, secretText)}}, slog.New(slog.DiscardHandler))
		w.client.Transport = &http.Transport{DisableKeepAlives: true, DialContext: func(context.Context, string, string) (net.Conn, error) {
			r.mu.Lock()
			r.tries = append(r.tries, time.Now())
			up := r.up
			r.mu.Unlock()
			if !up {
				return nil, &net.OpError{Op: "dial", Err: io.ErrClosedPipe}
			}
			ours, theirs := net.Pipe()
			r.conns <- theirs
			return ours, nil
		}}
		f(t, r, w)
		srv.Close()
		<-ended
	})
}

func TestAReceiverThatComesBackGetsEverythingOnceAndInOrder(t *testing.T) {
	inBubble(t, func(t *testing.T, r *receiver, w *Webhook) {
		ctx, stop := context.WithCancel(t.Context())
		for _, name := range []string{"a", "b", "c"} {
			w.Send(ctx, message(name))
		}
		time.Sleep(2 * time.Hour)
		r.mu.Lock()
		tries := r.tries
		r.mu.Unlock()
		if len(tries) < 20 || len(tries) > 70 {
			t.Errorf("%d attempts in 2 h", len(tries))
		}
		for i := 1; i < len(tries); i++ {
			if pause := tries[i].Sub(tries[i-1]); pause < time.Second || pause > longestPause {
				t.Errorf("a pause of %s", pause)
			} else if i > 10 && pause < longestPause/2 {
				t.Errorf("a pause of %s after %d failures", pause, i)
			}
		}
		r.set(true, nil)
		time.Sleep(10 * time.Minute)
		if rules, _, _ := r.seen(); !slices.Equal(rules, []string{"a", "b", "c"}) {
			t.Errorf("arrived: %v", rules)
		}
		if sent, failed, dropped := w.Counts(); sent != 3 || failed != uint64(len(tries)) || dropped != 0 {
			t.Errorf("sent %d, failed %d, dropped %d; %d attempts", sent, failed, dropped, len(tries))
		}
		stop()
	})
}

func TestAFloodOfMessagesIsBounded(t *testing.T) {
	inBubble(t, func(t *testing.T, r *receiver, w *Webhook) {
		for i := range 10 * maxQueue {
			w.Send(t.Context(), message(string(rune('0'+i%10))+strings.Repeat("x", i/maxQueue)))
		}
		w.mu.Lock()
		if n := len(w.queue); n != maxQueue {
			t.Errorf("%d wait", n)
		}
		w.mu.Unlock()
		r.set(true, nil)
		time.Sleep(time.Hour)
		if sent, _, dropped := w.Counts(); sent != maxQueue || dropped != 9*maxQueue {
			t.Errorf("sent %d, dropped %d", sent, dropped)
		}
		rules, _, _ := r.seen()
		if last := rules[len(rules)-1]; !strings.HasSuffix(last, "xxxxxxxxx") {
			t.Errorf("the newest is lost: the last is %s", last)
		}
	})
}

func TestWhoIsNamedNoLongerIsToldNothing(t *testing.T) {
	inBubble(t, func(t *testing.T, r *receiver, w *Webhook) {
		w.Send(t.Context(), message("a"))
		w.Send(t.Context(), message("b"))
		time.Sleep(time.Minute)
		w.Drop()
		r.set(true, nil)
		time.Sleep(24 * time.Hour)
		if rules, _, _ := r.seen(); len(rules) > 0 {
			t.Errorf("told %v", rules)
		}
		if sent, _, dropped := w.Counts(); sent != 0 || dropped != 2 {
			t.Errorf("sent %d, dropped %d", sent, dropped)
		}
	})
}

// A receiver that takes the connection and says nothing costs one attempt's time, and nobody
// who sends waits for it.
func TestASlowReceiverHoldsNobodyUp(t *testing.T) {
	inBubble(t, func(t *testing.T, r *receiver, w *Webhook) {
		r.set(true, func(_ http.ResponseWriter, req *http.Request) { <-req.Context().Done() })
		before := time.Now()
		w.Send(t.Context(), message("slow"))
		if time.Since(before) != 0 {
			t.Error("who sends waits")
		}
		time.Sleep(11 * time.Second)
		if _, failed, _ := w.Counts(); failed != 1 {
			t.Errorf("%d attempts failed after 11 s", failed)
		}
		r.set(true, nil)
		time.Sleep(time.Minute)
		if sent, _, _ := w.Counts(); sent != 1 {
			t.Errorf("sent %d", sent)
		}
		_, ids, stamps := r.seen()
		if stamps[0] == stamps[len(stamps)-1] {
			t.Error("the timestamp is not the attempt's, so the receiver would take it for a replay")
		}
		if ids = slices.Compact(ids); len(ids) != 1 || !strings.HasPrefix(ids[0], "msg_") {
			t.Errorf("one message, ids %v", ids)
		}
	})
}

// Other messages wait behind one that the receiver does not want, so that one gives way early;
// what no receiver has seen is kept for a day.
func TestWhatIsGivenUpAndWhen(t *testing.T) {
	for _, c := range []struct {
		name   string
		up     bool
		status int
		kept   time.Duration // still tried
		gone   time.Duration // given up
	}{
		{"nobody there", false, 0, 23 * time.Hour, 25 * time.Hour},
		{"the receiver is broken", true, 503, 23 * time.Hour, 25 * time.Hour},
		{"too many requests", true, 429, 23 * time.Hour, 25 * time.Hour},
		{"not found, as in the middle of a deployment", true, 404, time.Minute, 15 * time.Minute},
		{"it does not believe the signature", true, 401, time.Minute, 15 * time.Minute},
		{"moved", true, 302, time.Minute, 15 * time.Minute},
	} {
		t.Run(c.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, r *receiver, w *Webhook) {
				r.set(c.up, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(c.status) })
				w.Send(t.Context(), message("first"))
				time.Sleep(c.kept)
				if _, _, dropped := w.Counts(); dropped != 0 {
					t.Errorf("given up within %s", c.kept)
				}
				time.Sleep(c.gone - c.kept)
				if _, _, dropped := w.Counts(); dropped != 1 {
					t.Errorf("not given up within %s", c.gone)
				}
				r.set(true, nil)
				w.Send(t.Context(), message("next"))
				time.Sleep(time.Hour)
				if sent, _, _ := w.Counts(); sent != 1 {
					t.Error("the next one does not arrive")
				}
			})
		})
	}
}

func TestOnlySuccessIsSuccess(t *testing.T) {
	status := 0
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		io.WriteString(w, "what\nthe receiver\tsays "+strings.Repeat("x", 10000))
	}))
	defer srv.Close()
	w := NewWebhook(Policy{Name: "ops", URL: parse(t, srv.URL)}, slog.New(slog.DiscardHandler))
	for _, status = range []int{200, 201, 202, 300, 302, 400, 410, 500} {
		a := w.Try(t.Context(), message("x"))
		if ok := a.Error == ""; ok != (status < 300) || a.Status != status || len(a.Answer) > 200 || !strings.HasPrefix(a.Answer, "what the receiver says") {
			t.Errorf("%d: %+v", status, a)
		}
	}
}

func TestSlackGetsAText(t *testing.T) {
	p := Policy{Format: Slack}
	m := message("guessing")
	b, err := p.body(m)
	if err != nil {
		t.Fatal(err)
	}
	if want := `{"text":"moat gate-1: *guessing* is firing (refused 132, threshold 100)\n• 132 × rate-limited"}`; string(b) != want {
		t.Errorf("%s\nwant %s", b, want)
	}
	m.Data.Unit, m.Data.Value, m.Data.Threshold, m.Data.Top = "share", 0.123, 0.1, nil
	if b, err = p.body(m); err != nil || string(b) != `{"text":"moat gate-1: *guessing* is firing (refused 12.3 %, threshold 10.0 %)"}` {
		t.Errorf("%s, %v", b, err)
	}
}

// A URL may be as secret as a password is, and so may what it redirects to.
func TestNoLogHasAURLOrASecret(t *testing.T) {
	var log bytes.Buffer
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotFound) }))
	ctx, stop := context.WithCancel(t.Context())
	for _, u := range []string{srv.URL + "/CANARY?CANARY=CANARY", "http://127.0.0.1:1/CANARY", "https://10.0.0.1/CANARY"} {
		w := NewWebhook(Policy{Name: "ops", URL: parse(t, u), Secrets: [][]byte{[]byte("CANARYCANARYCANARYCANARY")}}, slog.New(slog.NewTextHandler(&log, nil)))
		a := w.Try(ctx, message("x"))
		if a.Error == "" || strings.Contains(a.Error, "CANARY") {
			t.Errorf("%s: %q", u, a.Error)
		}
	}
	srv.Close()
	stop()
	if strings.Contains(log.String(), "CANARY") {
		t.Error(log.String())
	}
}
