package gateway

import (
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/moat-gateway/moat/guard"
	"github.com/moat-gateway/moat/guard/body"
	"github.com/moat-gateway/moat/guard/bounds"
	"github.com/moat-gateway/moat/guard/budget"
	"github.com/moat-gateway/moat/guard/credential"
	"github.com/moat-gateway/moat/guard/ticket"
	"github.com/moat-gateway/moat/web"
	"github.com/moat-gateway/moat/wire"
)

// outgoing is the request to the upstream and what belongs to it. It shares the header
// map of the client's request, which the gate owns.
type outgoing struct {
	req    *http.Request
	url    url.URL
	values [3]string
	trace  httptrace.ClientTrace
	sent   *credential.Sent // nil if moat adds no credential

	// mu guards w's header between the transport's goroutine, which passes interim
	// responses on, and the handler's. final is set when RoundTrip has returned.
	mu       sync.Mutex
	w        http.ResponseWriter
	final    bool
	interims int
}

// maxInterims is how many interim responses of an upstream are passed on.
const maxInterims = 32

// forward sends an admitted request to its upstream and the answer to the client,
// streaming both ways.
func (g *Gateway) forward(st *state, x *exchange, w http.ResponseWriter, r *http.Request) {
	up := x.route.upstream
	out := g.outgoing(x, w, r)
	d := out.prove(x)
	if !d.Denied() {
		d = out.validate(x, r)
	}
	if !d.Denied() {
		d = out.price(st, x, r)
	}
	if !d.Denied() {
		d = out.authenticate(st, x, r)
	}
	if d.Denied() {
		x.tellBudget(w.Header(), d)
		x.leaveUnread(w, r)
		g.end(st, x, w, r, d)
		return
	}

	x.budget.Sent()
	start := time.Now()
	res, err := up.transport.RoundTrip(out.req)
	out.mu.Lock()
	out.final = true
	out.mu.Unlock()
	if err != nil {
		if refused, ok := errors.AsType[*body.BodyError](err); ok {
			x.tellFaults(refused.Faults)
		}
		if x.body != nil && r.Context().Err() != nil {
			err = errors.Join(x.body.Err(), err)
		}
		x.leaveUnread(w, r)
		d := upstreamFailure(r, err)
		if d.Reason == guard.UpstreamUnreachable {
			x.budget.Settle(budget.Amount{}) // nobody has got it
		}
		if d.Evidence.Got == err.Error() {
			d.Evidence.Got = out.errorText(err)
		}
		g.end(st, x, w, r, d)
		return
	}
	x.route.stats.answered(res.StatusCode, time.Since(start))
	if res.StatusCode != http.StatusSwitchingProtocols { // a tunnel counts both ways itself
		res.Body = x.budget.Count(res.Body)
	}
	st.failed(x, r, res.StatusCode)
	if d := g.confidential(st, x, out, r, res); d.Denied() {
		res.Body.Close() //nolint:errcheck // it will not be used.
		x.leaveUnread(w, r)
		g.end(st, x, w, r, d)
		return
	}
	g.harden(st, x, r, res.Header)
	if x.route.model != nil {
		keepAccount(res.Header)
	}
	x.call.meter(res)
	g.inspect(st, x, r, res)
	if wantsEmbedding(x.route, r) {
		g.embed(st, x, r, res)
	}
	if res.StatusCode == http.StatusSwitchingProtocols {
		g.tunnel(st, x, w, r, res)
		return
	}
	x.leaveUnread(w, r)
	err = g.copyResponse(x.route, w, r, res)
	res.Body.Close() //nolint:errcheck // nothing is left to lose.
	if err != nil {
		var gone clientGone
		if r.Context().Err() != nil || errors.As(err, &gone) {
			x.route.stats.count(guard.RequestAborted, guard.Enforce)
		} else {
			g.obs.record(st, x, r, guard.Denial(guard.UpstreamAborted, "the upstream's body", out.errorText(err), "a whole body"), guard.Enforce)
		}
		// The part must not pass for the whole: HTTP/1.1 closes, HTTP/2 resets.
		panic(http.ErrAbortHandler)
	}
	x.route.stats.count(guard.OK, guard.Enforce)
}

func (g *Gateway) outgoing(x *exchange, w http.ResponseWriter, r *http.Request) *outgoing {
	up := x.route.upstream
	o := &outgoing{url: *r.URL, w: w}
	o.trace.Got1xxResponse = o.interim
	o.req = r.WithContext(httptrace.WithClientTrace(r.Context(), &o.trace))
	o.url.Scheme, o.url.Host = up.scheme, up.host
	if up.prefix != nil {
		o.url.Path, o.url.RawPath = joinPath(up.prefix, r.URL)
	}
	o.req.URL, o.req.RequestURI = &o.url, ""
	if !up.preserveHost {
		o.req.Host = ""
	}
	h := r.Header
	if wantsEmbedding(x.route, r) {
		askForPlain(h)
	}
	o.values[0], o.values[1], o.values[2] = x.clientText(r), "http", r.Host
	if x.secure {
		o.values[1] = "https"
	}
	h["X-Forwarded-For"], h["X-Forwarded-Proto"], h["X-Forwarded-Host"] = o.values[0:1:1], o.values[1:2:2], o.values[2:3:3]
	if h["User-Agent"] == nil {
		h["User-Agent"] = noUserAgent
	}
	if x.upgrade != "" {
		h["Connection"], h["Upgrade"] = []string{"Upgrade"}, []string{x.upgrade}
	}
	o.req.Trailer = nil
	o.req.Close = false
	if r.ContentLength == 0 {
		o.req.Body = http.NoBody
		return o
	}
	x.bound(r)
	o.req.Body = x.budget.Count(r.Body)
	if x.body != nil {
		// An upstream may answer before it has read everything. Without this, net/http
		// holds an HTTP/1.1 answer back until the client has sent its next bytes.
		http.NewResponseController(w).EnableFullDuplex() //nolint:errcheck // HTTP/2 needs none, and says so.
	}
	if len(r.Trailer) > 0 {
		o.passTrailer(x.route, r)
	}
	return o
}

// prove has the upstream get the whole of the body only if the ticket's proof covers it. In
// report mode nothing is held back.
func (o *outgoing) prove(x *exchange) guard.Decision {
	if !x.honoured.Hashed || x.route.modes[guard.Ticket] != guard.Enforce {
		return guard.Decision{}
	}
	body := ticket.NewBody(o.req.Body, o.req.ContentLength, x.honoured.Digest)
	o.req.Body = body
	if errors.Is(body.Fill(), ticket.ErrBodyDiffers) {
		return bodyDiffers
	}
	return guard.Decision{} // what else is wrong with it is found by whoever reads it
}

var bodyDiffers = guard.Denial(guard.TicketBodyDiffers, "body", "another SHA-256", "the one in the ticket's proof")

// bound holds the request's body to the route's bounds, before anybody reads it.
func (x *exchange) bound(r *http.Request) {
	if x.body != nil || x.w == nil || r.ContentLength == 0 {
		return
	}
	switch x.route.modes[guard.Bounds] {
	case guard.Enforce:
		x.body = x.route.bounds.Body(x.w, r, nil)
	case guard.Report:
		y := *x // the closure outlives this frame; the others' x need not
		x.body = x.route.bounds.Body(x.w, r, func(e *bounds.BodyError) {
			first := y.spared == guard.OK
			x.obs.record(nil, &y, r, e.Decision(), guard.Report)
			if first && !y.refused { // what is noted on y nobody reads any more
				y.route.stats.spared[y.spared].Add(1)
			}
		})
	case guard.Off:
		return
	}
	r.Body = x.body
}

// leaveUnread ends an HTTP/1.1 connection with its answer if the request's body has not
// been read to the end: nobody will, and with full duplex net/http cannot tell such a
// rest from the next request.
func (x *exchange) leaveUnread(w http.ResponseWriter, r *http.Request) {
	if x.body != nil && r.ProtoMajor == 1 && !x.body.Ended() {
		w.Header()["Connection"] = []string{"close"}
	}
}

// noUserAgent keeps the transport from adding its own. The transport does not change it.
var noUserAgent = []string{""}

// clientText is the client's address as text. That of an IPv4 peer stands in RemoteAddr
// already; the others are made anew, in their canonical form.
func (x *exchange) clientText(r *http.Request) string {
	if host, _, ok := strings.Cut(r.RemoteAddr, ":"); ok && x.peer && host != "" && host[0] != '[' {
		return host
	}
	return x.client.String()
}

func joinPath(prefix, u *url.URL) (path, raw string) {
	path = strings.TrimSuffix(prefix.Path, "/") + u.Path
	if prefix.RawPath == "" && u.RawPath == "" {
		return path, ""
	}
	return path, strings.TrimSuffix(prefix.EscapedPath(), "/") + u.EscapedPath()
}

// interim passes an interim response on (RFC 9110 section 15.2), 103 Early Hints among
// them. 100 is the server's own business.
func (o *outgoing) interim(code int, header textproto.MIMEHeader) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.interims++
	if code == http.StatusContinue || o.final || !o.req.ProtoAtLeast(1, 1) || o.interims > maxInterims {
		return nil
	}
	if o.sent != nil {
		o.sent.Interim(header)
	}
	h := o.w.Header()
	var added []string
	for k, v := range header {
		// Cookies are hardened in the final response, which can set all of them.
		if h[k] == nil && !ownedResponseHeader(k) && !isCORSHeader(k) && k != "Set-Cookie" {
			h[k] = v
			added = append(added, k)
		}
	}
	o.w.WriteHeader(code)
	for _, k := range added {
		delete(h, k)
	}
	return nil
}

// passTrailer passes those request trailers on that the client announced and may send.
func (o *outgoing) passTrailer(rt *route, r *http.Request) {
	o.req.Trailer = make(http.Header, len(r.Trailer))
	for name := range r.Trailer {
		if rt.scrub.Trailer(name) {
			o.req.Trailer[name] = nil
		}
	}
	o.req.Body = &trailerBody{ReadCloser: o.req.Body, in: r, out: o.req.Trailer}
}

// trailerBody fills in the announced trailers when the body has been read.
type trailerBody struct {
	io.ReadCloser
	in  *http.Request
	out http.Header
}

func (b *trailerBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if errors.Is(err, io.EOF) {
		for name := range b.out {
			b.out[name] = b.in.Trailer[name]
		}
	}
	return n, err
}

// ownedResponseHeader reports whether the upstream's header of that name is not passed
// on: it belongs to one connection, or to the gate.
func ownedResponseHeader(name string) bool {
	switch name {
	case "Connection", "Keep-Alive", "Proxy-Connection", "Transfer-Encoding", "Trailer", "Upgrade", "Te",
		"Proxy-Authenticate", "Proxy-Authorization", "Http2-Settings":
		return true
	}
	return false
}

func isCORSHeader(name string) bool {
	return len(name) > 15 && name[0] == 'A' && strings.HasPrefix(name, "Access-Control-")
}

// copyResponse streams an answer to the client. Its header values are moved, not copied.
func (g *Gateway) copyResponse(rt *route, w http.ResponseWriter, r *http.Request, res *http.Response) error {
	h := w.Header()
	passCORS := rt.passCORS || rt.modes[guard.CORS] != guard.Enforce
	if conn := res.Header["Connection"]; conn != nil {
		for _, line := range conn {
			for name := range strings.SplitSeq(line, ",") {
				delete(res.Header, textproto.CanonicalMIMEHeaderKey(strings.Trim(name, " \t")))
			}
		}
	}
	limited, ours := h["Ratelimit"] != nil, h["Cache-Control"] != nil
	for k, v := range res.Header {
		switch {
		case ownedResponseHeader(k):
		case limited && (k == "Ratelimit" || k == "Ratelimit-Policy"):
			// The state of the upstream's limit beside the policy of ours would mean nothing.
		case k == "Vary":
			mergeVary(h, v)
		case k == "Set-Cookie":
			h[k] = append(h[k], v...) // the gate may have one of its own
		case ours && k == "Cache-Control":
			h[k] = privately(v) // a cookie of the gate's own is in the answer, and is for nobody else
		case ours && (strings.HasSuffix(k, "-Cache-Control") || k == "Surrogate-Control"):
			// For shared caches alone (RFC 9213).
		case isCORSHeader(k):
			// Two Access-Control-Allow-Origin, ours and theirs, would make the browser
			// refuse both.
			if passCORS {
				h[k] = v
			}
		default:
			h[k] = v
		}
	}
	streaming := res.ContentLength < 0 || strings.HasPrefix(res.Header.Get("Content-Type"), "text/event-stream")
	announced := len(res.Trailer)
	if announced > 0 {
		names := make([]string, 0, announced)
		for name := range res.Trailer {
			if passTrailer(name) {
				names = append(names, name)
			}
		}
		h["Trailer"] = []string{strings.Join(names, ", ")}
	}
	w.WriteHeader(res.StatusCode)
	if err := g.copyBody(w, r, res.Body, streaming); err != nil {
		return err
	}
	if len(res.Trailer) == 0 {
		return nil
	}
	// Trailers that were not announced go under http.TrailerPrefix.
	if announced == 0 {
		flush(w)
	}
	for name, v := range res.Trailer {
		if !passTrailer(name) {
			continue
		}
		if announced != len(res.Trailer) {
			name = http.TrailerPrefix + name
		}
		h[name] = v
	}
	return nil
}

// privately is Cache-Control as it was said, but that no shared cache may keep the answer.
func privately(lines []string) []string {
	if slices.ContainsFunc(lines, func(line string) bool { return web.ListContains(line, "private") || web.ListContains(line, "no-store") }) {
		return lines
	}
	kept := []string{"private"}
	for _, line := range lines {
		for directive := range strings.SplitSeq(line, ",") {
			directive = strings.Trim(directive, " \t")
			if name, _, _ := strings.Cut(strings.ToLower(directive), "="); name != "" && name != "public" && name != "s-maxage" {
				kept = append(kept, directive)
			}
		}
	}
	return []string{strings.Join(kept, ", ")}
}

// passTrailer reports whether an upstream's trailer of that name is passed on: one that a
// cache could merge into the gate's own headers is not.
func passTrailer(name string) bool {
	return !isCORSHeader(name) && !ownedResponseHeader(name) && name != "Set-Cookie" && name != "Vary"
}

func mergeVary(h http.Header, upstream []string) {
	ours := h["Vary"]
	if len(ours) == 0 {
		h["Vary"] = upstream
		return
	}
	h["Vary"] = upstream
	for _, line := range ours {
		web.AddVary(h, line)
	}
}

var buffers = sync.Pool{New: func() any { b := make([]byte, 32<<10); return &b }}

// copyBody copies until EOF. A stream is flushed after every read, and its head at once,
// so that an event is never older than the upstream's write.
func (g *Gateway) copyBody(w http.ResponseWriter, r *http.Request, body io.Reader, streaming bool) error {
	if streaming {
		flush(w)
	}
	unread := g.patience(w, r)
	buf, _ := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	for {
		n, err := body.Read(*buf)
		if n > 0 {
			unread(true)
			if _, wErr := w.Write((*buf)[:n]); wErr != nil {
				return clientGone{wErr}
			}
			if streaming {
				flush(w)
			}
			unread(false)
		}
		if err != nil {
			if errors.Is(err, io.EOF) {
				unread(true) // what is still buffered goes out when the handler is done
				return nil
			}
			return err
		}
	}
}

// patience bounds, on HTTP/2, how long a write may wait for a client that does not open
// its window: the connection below is not blocked by that, so wire does not see it. The
// function is called before and after each write.
func (g *Gateway) patience(w http.ResponseWriter, r *http.Request) func(writing bool) {
	idle := time.Duration(g.writeIdle.Load())
	if r.ProtoMajor < 2 || idle <= 0 {
		return func(bool) {}
	}
	rc := http.NewResponseController(w)
	return func(writing bool) {
		var until time.Time // none: between two events a stream may be silent
		if writing {
			until = time.Now().Add(idle)
		}
		rc.SetWriteDeadline(until) //nolint:errcheck // the server's own writers have deadlines.
	}
}

// clientGone is an answer that could not be written.
type clientGone struct{ error }

func flush(w http.ResponseWriter) {
	http.NewResponseController(w).Flush() //nolint:errcheck // a writer that cannot flush sends when it can.
}

// upstreamFailure says why no answer came.
func upstreamFailure(r *http.Request, err error) guard.Decision {
	var (
		refused *body.BodyError
		tooMuch *bounds.BodyError
		framing *wire.FramingError
		op      *net.OpError
		timeout interface{ Timeout() bool }
	)
	switch {
	case errors.As(err, &refused):
		return refused.Decision
	case errors.As(err, &tooMuch):
		return tooMuch.Decision()
	case errors.Is(err, ticket.ErrBodyDiffers):
		return bodyDiffers
	case errors.As(err, &framing):
		return guard.Denial(framing.Reason, "body", "", "well-formed chunks")
	case r.Context().Err() != nil:
		return guard.Denial(guard.RequestAborted, "the client's connection", "closed", "open until the answer is complete")
	case errors.As(err, &timeout) && timeout.Timeout():
		return guard.Denial(guard.UpstreamTimeout, "the upstream", err.Error(), "an answer within response_timeout")
	case errors.As(err, &op) && op.Op == "dial":
		return guard.Denial(guard.UpstreamUnreachable, "the upstream", err.Error(), "a connection")
	}
	return guard.Denial(guard.UpstreamBadResponse, "the upstream", err.Error(), "a valid HTTP answer")
}
