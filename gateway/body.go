package gateway

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"net/http"
	"net/netip"
	"runtime"
	"strconv"
	"strings"
	"sync"

	"github.com/moat-gateway/moat/guard"
	"github.com/moat-gateway/moat/guard/body"
)

// maxHeld bounds the bodies that are in memory to be judged, of all requests together. Beyond it
// a body that has to be judged is refused, and none passes unjudged.
const maxHeld = 128 << 20

// maxHeldByOne is how much of it a client may have: one who sends slowly could keep all others out.
const maxHeldByOne = maxHeld / 2

// room is what such bodies take, of all clients and of each: an address, or the /64 of one.
type room struct {
	mu  sync.Mutex
	all int64
	by  map[netip.Addr]int64 // those that have some, so connections bound it
}

// take adds to what a client has, and reports whether that is not too much. A client that is not
// known has no share, since it may be anybody.
func (r *room) take(client netip.Addr, n int64) bool {
	if client = client.Unmap(); client.Is6() {
		client = netip.PrefixFrom(client, 64).Masked().Addr()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.by == nil {
		r.by = make(map[netip.Addr]int64)
	}
	r.all += n
	if r.by[client] += n; r.by[client] == 0 {
		delete(r.by, client)
	}
	return r.all <= maxHeld && (!client.IsValid() || r.by[client] <= maxHeldByOne)
}

// expects judges what the head of the request tells about parameters and body.
func (x *exchange) expects(r *http.Request) (d guard.Decision) {
	x.match, d = x.route.body.Decide(r.Context(), r)
	if d.Denied() {
		x.tellFaults(x.match.Faults)
	}
	return d
}

// tellFaults has a refusal tell the client what is wrong, and where. In report mode nobody is told.
func (x *exchange) tellFaults(faults []body.Fault) {
	if len(faults) > 0 && x.route.modes[guard.Body] == guard.Enforce {
		x.members = append(x.members, body.Member(faults))
	}
}

// validate judges the body of the request: read whole where its values count, and otherwise while
// it passes. What the upstream gets are the same bytes.
func (o *outgoing) validate(x *exchange, r *http.Request) guard.Decision {
	rt, mode := x.route, guard.Off
	if rt.body != nil {
		mode = rt.modes[guard.Body]
	}
	if mode == guard.Off || x.match.Content == nil {
		return guard.Decision{}
	}
	if rt.body.Streamed(x.match.Content) {
		return o.stream(x, r, mode)
	}
	limit, whole := rt.body.Whole(x.match.Content)
	if !whole {
		return guard.Decision{}
	}
	text, d := o.whole(x, r, limit)
	if !d.Denied() {
		var (
			faults []body.Fault
			err    error
		)
		if faults, d, err = rt.body.Body(r.Context(), &x.match, text); err != nil {
			return guard.Denial(guard.RequestAborted, "the client's connection", "closed", "open until the answer is complete")
		}
		x.tellFaults(faults)
	}
	if d.Denied() && mode == guard.Report && d.Reason != guard.RequestAborted {
		x.obs.record(nil, x, r, d, guard.Report)
		return guard.Decision{}
	}
	return d
}

func (o *outgoing) stream(x *exchange, r *http.Request, mode guard.Mode) guard.Decision {
	var report func(*body.BodyError)
	if mode == guard.Report {
		y := *x // the transport's goroutine may still read when this request's is done
		report = func(e *body.BodyError) { y.obs.record(nil, &y, r, e.Decision, guard.Report) }
	}
	s := x.route.body.Multipart(r.Context(), &x.match, o.req.Body, report)
	b := &wholeBody{Reader: s, src: s, obs: x.obs, client: x.client}
	s.Hold, x.whole, o.req.Body = b.hold, b, b
	if e, ok := errors.AsType[*body.BodyError](s.Fill()); ok {
		x.tellFaults(e.Faults)
		return e.Decision
	}
	return guard.Decision{} // what else is wrong with it is found by whoever reads it
}

// wholeBody is a request's body that has been read, in the place of its stream.
type wholeBody struct {
	io.Reader
	src    io.Closer
	obs    *observer
	client netip.Addr

	mu     sync.Mutex
	held   int64
	closed bool
}

// Close gives the room back. The transport closes a body when it has sent it, long before the
// answer may end.
func (b *wholeBody) Close() error {
	b.mu.Lock()
	b.obs.held.take(b.client, -b.held)
	b.held, b.closed = 0, true
	b.mu.Unlock()
	return b.src.Close()
}

func (b *wholeBody) hold(n int) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed { // the transport may read on for a moment
		return false
	}
	b.held += int64(n)
	return b.obs.held.take(b.client, int64(n))
}

// whole reads the request's body to its end, and has the upstream get the same bytes. If it is
// larger than most, or there is no room, the body is left as it was.
func (o *outgoing) whole(x *exchange, r *http.Request, most int64) ([]byte, guard.Decision) {
	const first = 4 << 10
	src := o.req.Body
	b := &wholeBody{src: src, obs: x.obs, client: x.client}
	x.whole = b
	room := int64(first)
	if r.ContentLength > 0 {
		room = min(room, r.ContentLength)
	}
	// One byte more: a body that fills the rest has not ended yet.
	text := make([]byte, 0, room+1)
	d := guard.Decision{}
	ok := b.hold(cap(text))
	for ok {
		n, err := src.Read(text[len(text):cap(text)])
		text = text[:len(text)+n]
		if errors.Is(err, io.EOF) {
			b.Reader = bytes.NewReader(text)
			o.req.Body = b
			return text, d
		}
		if err != nil {
			if x.body != nil && r.Context().Err() != nil {
				err = errors.Join(x.body.Err(), err)
			}
			if d = upstreamFailure(r, err); d.Reason == guard.UpstreamBadResponse {
				d = guard.Denial(guard.RequestAborted, "the client's connection", "closed", "open until the answer is complete")
			}
			break
		}
		if int64(len(text)) > most {
			d = guard.Denial(guard.BodyTooLarge, "body", "more", "at most "+strconv.FormatInt(most, 10)+" bytes")
			break
		}
		if len(text) == cap(text) {
			larger := min(2*int64(cap(text)), most+1)
			if ok = b.hold(int(larger) - cap(text)); ok {
				text = append(make([]byte, 0, larger), text...)
			}
		}
	}
	if !ok {
		d = guard.Denial(guard.BodyNoRoom, "bodies in memory", "more", "at most "+strconv.Itoa(maxHeld)+" bytes together, and "+strconv.Itoa(maxHeldByOne)+" of one client")
	}
	b.Reader = io.MultiReader(bytes.NewReader(text), src)
	o.req.Body = b
	return nil, d
}

const (
	// maxAnswer bounds how much of an answer is kept to be judged, in bytes.
	maxAnswer = 1 << 20
	// maxAnswers bounds the answers that are kept at the same time, in bytes.
	maxAnswers = 32 << 20
)

// The reasons why an answer was not judged.
const (
	skippedLarge = iota
	skippedEncoded
	skippedBusy
	numSkipped
)

var skippedNames = [numSkipped]string{"large", "encoded", "busy"}

// judging bounds the answers that are being judged. None waits: an answer that finds no place is
// counted and not judged.
var judging = make(chan struct{}, runtime.GOMAXPROCS(0))

// inspect judges the answer, as a report. Nothing waits for it: the body is copied as it passes,
// and judged when it has passed.
func (g *Gateway) inspect(_ *state, x *exchange, r *http.Request, res *http.Response) {
	rt := x.route
	if rt.body == nil || rt.modes[guard.Body] == guard.Off || !rt.body.Inspects() || res.StatusCode == http.StatusSwitchingProtocols {
		return
	}
	content, d := rt.body.Answer(&x.match, res)
	if d.Denied() {
		g.obs.record(nil, x, r, d, guard.Report)
	}
	if content == nil {
		return
	}
	encoding := res.Header.Get("Content-Encoding")
	switch {
	case encoding != "" && !strings.EqualFold(encoding, "gzip"):
		g.skip(rt, skippedEncoded)
	case res.ContentLength > maxAnswer:
		g.skip(rt, skippedLarge)
	default:
		y := exchange{route: rt, client: x.client, caller: x.caller, obs: x.obs}
		res.Body = &tap{ReadCloser: res.Body, g: g, x: &y, r: r, content: content, gzip: encoding != ""}
	}
}

func (g *Gateway) skip(rt *route, why int) {
	if rt.stats.unchecked[why].Add(1) == 1 {
		g.obs.log.Warn("an answer was not checked; later ones are counted in moat_responses_unchecked_total", "route", rt.name, "why", skippedNames[why])
	}
}

// tap copies an answer while it passes.
type tap struct {
	io.ReadCloser
	g       *Gateway
	x       *exchange
	r       *http.Request
	content *body.Content
	gzip    bool
	text    []byte
	held    int64
	state   tapState
}

type tapState uint8

const (
	tapCopies tapState = iota
	tapEnded           // the whole answer has passed
	tapDone
)

// Read implements io.Reader.
func (t *tap) Read(p []byte) (int, error) {
	n, err := t.ReadCloser.Read(p)
	if t.state == tapCopies {
		t.copy(p[:n])
	}
	if t.state == tapCopies && errors.Is(err, io.EOF) {
		t.state = tapEnded
	}
	return n, err
}

func (t *tap) copy(p []byte) {
	if len(t.text)+len(p) > maxAnswer {
		t.drop(skippedLarge)
		return
	}
	before := cap(t.text)
	t.text = append(t.text, p...)
	if grown := int64(cap(t.text) - before); grown > 0 {
		t.held += grown
		if t.g.obs.heldAnswers.Add(grown) > maxAnswers {
			t.drop(skippedBusy)
		}
	}
}

func (t *tap) drop(why int) {
	t.state = tapDone
	t.text = nil
	t.g.obs.heldAnswers.Add(-t.held)
	t.g.skip(t.x.route, why)
}

// Close implements io.Closer. It has the copy judged if the answer is whole.
func (t *tap) Close() error {
	switch t.state {
	case tapCopies:
		t.g.obs.heldAnswers.Add(-t.held) // cut off: it is somebody else's fault
	case tapEnded:
		select {
		case judging <- struct{}{}:
			go t.judge()
		default:
			t.drop(skippedBusy)
		}
	case tapDone:
	}
	t.state = tapDone
	return t.ReadCloser.Close()
}

func (t *tap) judge() {
	defer func() {
		t.g.obs.heldAnswers.Add(-t.held)
		<-judging
	}()
	text := t.text
	if t.gzip {
		z, err := gzip.NewReader(bytes.NewReader(text))
		if err == nil {
			text, err = io.ReadAll(io.LimitReader(z, maxAnswer+1))
		}
		if err != nil {
			t.g.skip(t.x.route, skippedEncoded)
			return
		}
		if len(text) > maxAnswer {
			t.g.skip(t.x.route, skippedLarge)
			return
		}
	}
	d, err := t.x.route.body.AnswerBody(context.Background(), t.content, text)
	if err == nil && d.Denied() {
		t.g.obs.record(nil, t.x, t.r, d, guard.Report)
	}
}
