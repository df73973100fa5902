// Package bounds holds a request to the methods and the size that its route declares.
//
// It protects an upstream from methods that nobody meant to offer, from headers that
// turn one method into another behind the gate's back, and from bodies that are too
// large or come too slowly. Bodies are counted as they stream, never buffered.
//
// It does not look into the body. The head's size is bounded before (see wire).
package bounds

import (
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/moat-gateway/moat/guard"
	"github.com/moat-gateway/moat/web"
)

// Policy bounds the requests of a route.
type Policy struct {
	// Methods are allowed; no other is. Case matters. TRACE and CONNECT cannot be
	// among them.
	Methods []string
	// BodyBytes is the largest body, in bytes. 0 allows none; negative, any size.
	BodyBytes int64
	// BodyIdle is the longest pause between two reads of the body. 0 means no bound.
	BodyIdle time.Duration
	// AllowMethodOverride lets X-HTTP-Method-Override and its like reach the upstream.
	AllowMethodOverride bool
}

// Guard is a compiled Policy: immutable, and safe for concurrent use.
type Guard struct {
	p       Policy
	methods map[string]struct{}
	allow   []string
}

// New compiles a Policy.
func New(p Policy) *Guard {
	g := &Guard{p: p, methods: make(map[string]struct{}, len(p.Methods)), allow: []string{strings.Join(p.Methods, ", ")}}
	for _, m := range p.Methods {
		g.methods[m] = struct{}{}
	}
	delete(g.methods, http.MethodTrace)
	delete(g.methods, http.MethodConnect)
	return g
}

// overrides reports whether a header asks to take the request for another method.
// Frameworks read several spellings as one, so "-", "_" and "." count as the same.
func overrides(name string) bool {
	switch len(name) {
	case len("x-http-method"), len("x-method-override"), len("x-http-method-override"):
	default:
		return false
	}
	switch web.FoldName(name) {
	case "x-http-method", "x-method-override", "x-http-method-override":
		return true
	}
	return false
}

// Overrides is the header that asks to take the request for another method, or "".
func Overrides(h http.Header) string {
	for name := range h {
		if overrides(name) {
			return name
		}
	}
	return ""
}

// Decide judges a request by its head. It changes nothing and does not allocate when
// it allows.
func (g *Guard) Decide(r *http.Request) guard.Decision {
	if !g.p.AllowMethodOverride {
		if name := Overrides(r.Header); name != "" {
			return guard.Denial(guard.MethodOverride, name, r.Header[name][0], "the method itself")
		}
	}
	if _, ok := g.methods[r.Method]; !ok {
		return guard.Denial(guard.MethodNotAllowed, "method", r.Method, g.allow[0])
	}
	if g.p.BodyBytes >= 0 && r.ContentLength > g.p.BodyBytes {
		return guard.Denial(guard.BodyTooLarge, "Content-Length", strconv.FormatInt(r.ContentLength, 10), "at most "+strconv.FormatInt(g.p.BodyBytes, 10))
	}
	return guard.Decision{}
}

// SetHeaders sets what a refusal for d must carry (RFC 9110 section 15.5.6: Allow).
func (g *Guard) SetHeaders(h http.Header, d guard.Decision) {
	switch d.Reason { //nolint:exhaustive // only these two carry headers.
	case guard.MethodNotAllowed:
		h["Allow"] = g.allow
	case guard.BodyTooLarge:
		// What is left of the body is not worth reading.
		h["Connection"] = []string{"close"}
	}
}

// BodyError is what reading a body past its bounds returns.
type BodyError struct {
	Reason guard.Reason
	Limit  int64
}

func (e *BodyError) Error() string {
	if e.Reason == guard.BodyTooSlow {
		return "no byte of the body came in time"
	}
	return fmt.Sprintf("the body exceeds %d bytes", e.Limit)
}

// Decision is the refusal that belongs to the error.
func (e *BodyError) Decision() guard.Decision {
	if e.Reason == guard.BodyTooSlow {
		return guard.Denial(e.Reason, "body", "a pause", "limits.body_idle")
	}
	return guard.Denial(e.Reason, "body", "more", "at most "+strconv.FormatInt(e.Limit, 10)+" bytes")
}

// Body returns r's body held to the bounds: reading it past them returns a *BodyError.
// w is the response that belongs to r; its connection's read deadline is moved. With
// report, the body passes whole, and report is told once what would have ended it.
func (g *Guard) Body(w http.ResponseWriter, r *http.Request, report func(*BodyError)) *Body {
	left := g.p.BodyBytes
	if left < 0 {
		left = math.MaxInt64
	}
	return &Body{inner: r.Body, rc: http.NewResponseController(w), left: left, limit: g.p.BodyBytes, idle: g.p.BodyIdle, report: report}
}

// Body is a request's body held to its bounds.
type Body struct {
	inner  io.ReadCloser
	limit  int64
	idle   time.Duration
	report func(*BodyError)
	closed atomic.Bool
	ended  atomic.Bool

	// reading guards left, set and err. It is held while a Read waits for bytes.
	reading sync.Mutex
	left    int64
	set     time.Time
	err     error

	// mu guards rc, which Close takes away: an upstream's goroutine may still read
	// when the handler is done, and must not touch the connection's next request.
	mu sync.Mutex
	rc *http.ResponseController
}

// Close ends what a later Read may do. It does not wait for a Read that is under way,
// and leaves the request's own body to the server, which closes it after its answer
// has gone out.
func (b *Body) Close() error {
	b.mu.Lock()
	b.rc = nil
	b.mu.Unlock()
	b.closed.Store(true)
	return nil
}

// Ended reports whether the body has been read to its end.
func (b *Body) Ended() bool { return b.ended.Load() }

func (b *Body) deadline(t time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.rc != nil {
		b.rc.SetReadDeadline(t) //nolint:errcheck // a ResponseWriter without deadlines, as in a unit test, has no pauses to bound.
	}
}

// Err returns the error that reading ended with: nil, io.EOF, a *BodyError, or what the
// connection said. net/http cancels a request's context when its connection fails, so
// whoever reads for us may have given up before Read returned; Err waits for that Read,
// and must not be called while a healthy client may still be sending.
func (b *Body) Err() error {
	b.reading.Lock()
	defer b.reading.Unlock()
	return b.err
}

// Read implements io.Reader.
func (b *Body) Read(p []byte) (int, error) {
	b.reading.Lock()
	defer b.reading.Unlock()
	switch {
	case b.err != nil:
		return 0, b.err
	case b.closed.Load():
		return 0, http.ErrBodyReadAfterClose
	case b.report != nil:
		return b.watch(p)
	case b.idle > 0:
		// Moving a deadline costs; a body that flows moves it eight times per idle period.
		if now := time.Now(); now.Sub(b.set) > b.idle/8 {
			b.set = now
			b.deadline(now.Add(b.idle))
		}
	}
	// One byte past the bound tells a body that is just full from one that is too large.
	if b.left < math.MaxInt64 && int64(len(p)) > b.left {
		p = p[:b.left+1]
	}
	n, err := b.read(p)
	if int64(n) > b.left {
		n, err = int(b.left), &BodyError{guard.BodyTooLarge, b.limit}
	}
	b.left -= int64(n)
	if err == nil {
		return n, nil
	}
	var timeout interface{ Timeout() bool }
	if errors.As(err, &timeout) && timeout.Timeout() {
		err = &BodyError{guard.BodyTooSlow, b.limit}
	} else if b.idle > 0 {
		// The connection lives on, and its next request must not inherit the deadline.
		b.deadline(time.Time{})
	}
	b.err = err
	return n, err
}

func (b *Body) read(p []byte) (int, error) {
	n, err := b.inner.Read(p)
	if errors.Is(err, io.EOF) {
		b.ended.Store(true)
	}
	return n, err
}

// watch is Read without consequences.
func (b *Body) watch(p []byte) (int, error) {
	begin := time.Now()
	n, err := b.read(p)
	b.left -= int64(n)
	switch {
	case b.limit >= 0 && b.left < 0:
		b.report(&BodyError{guard.BodyTooLarge, b.limit})
		b.limit = -1
	case b.idle > 0 && time.Since(begin) > b.idle:
		b.report(&BodyError{guard.BodyTooSlow, b.limit})
		b.idle = 0
	}
	b.err = err
	return n, err
}

// Handler refuses what Decide refuses, and passes the rest to next with its body bounded.
func (g *Guard) Handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if d := g.Decide(r); d.Denied() {
			g.SetHeaders(w.Header(), d)
			guard.Refuse(w, d.Reason, "")
			return
		}
		if r.ContentLength != 0 {
			r2 := *r
			r2.Body = g.Body(w, r, nil)
			r = &r2
		}
		next.ServeHTTP(w, r)
	})
}
