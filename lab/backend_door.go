package lab

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/moat-gateway/moat/browser"
	"github.com/moat-gateway/moat/guard/ratelimit"
)

// What is taken from one visitor, so that everybody gets his share of the machine.
const (
	maxBody  = 64 << 10         // of a body; more is a 413
	maxText  = 2000             // of a text in the ledger
	maxBusy  = 24               // requests at once
	maxLive  = 8                // streams and sockets at once, which are among these
	maxLife  = 2 * time.Minute  // of a stream or a socket
	maxWrite = 10 * time.Second // until a reader takes what is written to a stream
)

// maxRate is what a visitor of a shared lab gets: more than somebody needs who presses every
// button there is. A reader alone has his machine to himself.
var maxRate = ratelimit.Limit{Count: 50, Per: time.Second, Burst: 500}

// share is what a visitor uses just now.
type share struct {
	shared     bool
	mu         sync.Mutex
	tat        int64
	busy, live int
}

// take begins a request, unless there are too many.
func (s *share) take(now time.Time) (refused string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	tat, result := maxRate.Take(s.tat, now.UnixMicro(), 1)
	switch {
	case s.shared && !result.Allowed:
		return "Too many requests: this lab takes 50 a second from each visitor. Wait a moment."
	case s.busy == maxBusy:
		return "Too many requests at once: this lab takes 24 from each visitor. Let some end."
	}
	s.tat = tat
	s.busy++
	return ""
}

func (s *share) release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.busy--
}

// takeLive begins a stream or a socket.
func (s *share) takeLive() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.live == maxLive {
		return false
	}
	s.live++
	return true
}

func (s *share) releaseLive() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.live--
}

// serveAPI answers as the API does, bare or with moat in front, and keeps the ledger.
func (l *Lab) serveAPI(w http.ResponseWriter, r *http.Request, v *visitor, role Role) {
	if r.URL.Path == "/favicon.ico" { // a tab that shows an answer asks for it, and no lesson does
		http.NotFound(w, r)
		return
	}
	if why := v.share.take(time.Now()); why != "" {
		w.Header().Set("Retry-After", "1")
		http.Error(w, why, http.StatusTooManyRequests)
		return
	}
	defer v.share.release()
	r, whole := v.arrived(w, r, role)
	recorder := &recorder{ResponseWriter: w, noted: func(a browser.Answer) {
		e := Event{Kind: eventAnswered, Answer: &a}
		if r.Context().Err() != nil {
			e.Text = "the client had gone by then"
		}
		v.ledger.note(callOf(r), e)
	}}
	finished := false
	defer func() {
		switch {
		case !finished:
			v.ledger.note(callOf(r), Event{Kind: eventAnswered, Text: "broken off"})
		default: // net/http answers 200 for a handler that says nothing
			recorder.note(http.StatusOK, nil)
		}
	}()
	switch {
	case !whole:
		refuse(recorder, http.StatusRequestEntityTooLarge, "the lab takes bodies of up to 64 KiB, whole and within half a minute")
	case role == RoleGate:
		l.serveGate(recorder, r, v)
	default:
		v.api().ServeHTTP(recorder, r)
	}
	finished = true
}

// callKey is where a request's place in the ledger is kept on its way through the gate.
type callKey struct{}

func callOf(r *http.Request) call {
	c, _ := r.Context().Value(callKey{}).(call)
	return c
}

// ownClient marks what the lab's own client sends. Nothing depends on it but a label.
const ownClient = "Lab-Client"

// arrived notes that a request reached a server. whole reports whether its body did.
func (v *visitor) arrived(w http.ResponseWriter, r *http.Request, to Role) (_ *http.Request, whole bool) {
	c := v.ledger.arrive()
	e := Event{
		Kind: eventArrived, To: to, Method: cut(r.Method), URL: cut(v.origins[to] + r.URL.RequestURI()),
		Preflight: isPreflight(r), Curl: r.Header.Get(ownClient) != "",
	}
	r.Header.Del(ownClient)
	e.Header = headerOf(r)
	body, err := io.ReadAll(io.LimitReader(r.Body, maxBody+1))
	e.Body = cut(strings.ToValidUTF8(string(body), "\uFFFD"))
	v.ledger.note(c, e)
	// The server's deadline was for the body: the answer may be a stream.
	_ = http.NewResponseController(w).SetReadDeadline(time.Time{})
	r = r.WithContext(context.WithValue(r.Context(), callKey{}, c))
	r.Body = io.NopCloser(bytes.NewReader(body))
	return r, err == nil && len(body) <= maxBody
}

// cut shortens a text for the ledger.
func cut(s string) string {
	if len(s) <= maxText {
		return s
	}
	return strings.ToValidUTF8(s[:maxText], "") + "…"
}

// told are the fields that say something about security; the others are the same for every
// request of a browser.
var told = []string{
	"Origin", "Referer", "Cookie", "Authorization", "Content-Type", "Access-Control-Request-Method", "Access-Control-Request-Headers",
	"Sec-Fetch-Site", "Sec-Fetch-Mode", "Sec-Fetch-Dest", "Sec-Fetch-User", "Upgrade", "Accept",
}

// maxTold bounds the fields of a request that the ledger has.
const maxTold = 40

func headerOf(r *http.Request) browser.Header {
	var h browser.Header
	add := func(name string) {
		for _, value := range r.Header.Values(name) {
			if len(h) < maxTold {
				h = append(h, browser.Field{Name: name, Value: cut(value)})
			}
		}
	}
	for _, name := range told {
		add(name)
	}
	var own []string
	for name := range r.Header {
		if strings.HasPrefix(name, "X-") || strings.HasPrefix(name, "Moat-") {
			own = append(own, name)
		}
	}
	slices.Sort(own)
	for _, name := range own {
		add(name)
	}
	return h
}

// ran notes what a handler did.
func (v *visitor) ran(r *http.Request, did string) {
	books := v.booksNow()
	v.ledger.note(callOf(r), Event{Kind: eventRan, Did: cut(did), Books: &books})
}

// recorder notes the head of an answer before it leaves: whoever has got the answer finds
// it in the ledger.
type recorder struct {
	http.ResponseWriter
	noted  func(browser.Answer)
	status int
	done   bool
}

// note notes the answer, once, with how its body begins: browsers sniff.
func (w *recorder) note(status int, body []byte) {
	if w.done {
		return
	}
	if w.status == 0 {
		w.status = status
	}
	w.done = true
	w.noted(browser.Answer{Status: w.status, Header: answered(w.Header()), Body: strings.ToValidUTF8(string(body[:min(len(body), maxSniffed)]), "\uFFFD")})
}

const maxSniffed = 200

func (w *recorder) WriteHeader(status int) {
	if w.status == 0 && (status >= 200 || status == http.StatusSwitchingProtocols) {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *recorder) Write(b []byte) (int, error) {
	w.note(http.StatusOK, b)
	return w.ResponseWriter.Write(b)
}

// Hijack is what a WebSocket begins with.
func (w *recorder) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(w.ResponseWriter).Hijack()
	if err == nil {
		w.note(http.StatusSwitchingProtocols, nil)
	}
	return conn, rw, err
}

// Unwrap gives http.ResponseController the writer below.
func (w *recorder) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// answered are the fields of an answer, by name.
func answered(h http.Header) browser.Header {
	var all browser.Header
	for name, values := range h {
		for _, value := range values {
			all = append(all, browser.Field{Name: name, Value: cut(value)})
		}
	}
	slices.SortStableFunc(all, func(a, b browser.Field) int { return strings.Compare(a.Name, b.Name) })
	return all
}
