// Package otel traces what the gate does, by OpenTelemetry: a span for each request, with what
// each guard decided as events, and below it one for the upstream's answer. It is a module of its own,
// so that what it needs is no part of the gate.
//
// A trace holds names of the configuration and codes of closed sets: the method, the route, the
// upstream, the status, the reasons. Nothing that a client sent is in it: no path, no query, no
// address, no name.
//
// A trusted proxy's trace is continued, and its word on sampling holds. Everybody else's is not:
// a stranger who could say "sampled" would decide what the operator pays for, and one who chose
// the trace's id would write into traces of others. Their requests begin traces of their own,
// without a link to what they sent, and the upstream gets nothing of it.
package otel

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/moat-gateway/moat/gateway"
	"github.com/moat-gateway/moat/guard"
)

// Tracer traces one gate.
type Tracer struct {
	tracer  trace.Tracer
	w3c     propagation.TraceContext
	proxies atomic.Pointer[[]netip.Prefix] // whose traces are continued
	under   sync.WaitGroup                 // the requests under way
}

// New returns a Tracer. What becomes of its spans is the provider's business.
func New(p trace.TracerProvider) *Tracer {
	return &Tracer{tracer: p.Tracer("github.com/moat-gateway/moat/otel")}
}

// Configure has a gate with that configuration tell the Tracer what it does. It goes into
// run.Options together with Handler.
func (t *Tracer) Configure(c *gateway.Config) {
	proxies := slices.Clone(c.Trust.Proxies)
	t.proxies.Store(&proxies)
	c.Observe = func(r *http.Request, v gateway.Verdict) {
		if s := servedOf(r.Context()); s != nil {
			s.observe(v)
		}
	}
	c.Transport = func(upstream string, next http.RoundTripper) http.RoundTripper {
		return &transport{t: t, next: next, upstream: attribute.String("moat.upstream", upstream)}
	}
}

// Handler begins a span for each request, and ends it with the answer.
func (t *Tracer) Handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		t.under.Add(1)
		defer t.under.Done()
		ctx, s := r.Context(), &served{ResponseWriter: w, method: methodOf(r)}
		if s.trusted = t.trusts(r.RemoteAddr); s.trusted {
			ctx = t.w3c.Extract(ctx, propagation.HeaderCarrier(r.Header))
		}
		ctx, s.span = t.tracer.Start(ctx, s.method, trace.WithSpanKind(trace.SpanKindServer), trace.WithAttributes(attribute.String("http.request.method", s.method)))
		defer s.end() // also when the gate cuts an answer off
		next.ServeHTTP(s, r.WithContext(context.WithValue(ctx, key{}, s)))
	})
}

// Wait waits for the spans of requests that end with the gate, tunnels among them, or for ctx. It
// is for when the gate has stopped, before its spans are sent.
func (t *Tracer) Wait(ctx context.Context) {
	ended := make(chan struct{})
	go func() {
		t.under.Wait()
		close(ended)
	}()
	select {
	case <-ended:
	case <-ctx.Done():
	}
}

func (t *Tracer) trusts(peer string) bool {
	proxies := t.proxies.Load()
	if proxies == nil || len(*proxies) == 0 {
		return false
	}
	a, err := netip.ParseAddrPort(peer)
	return err == nil && slices.ContainsFunc(*proxies, func(p netip.Prefix) bool { return p.Contains(a.Addr().Unmap()) })
}

// methodOf is the method, if it is one that everybody knows: a client can send any other.
func methodOf(r *http.Request) string {
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions, http.MethodConnect, http.MethodTrace:
		return r.Method
	}
	return "_OTHER"
}

type key struct{}

func servedOf(ctx context.Context) *served {
	s, _ := ctx.Value(key{}).(*served)
	return s
}

// served is a request under way, and the writer of its answer, which learns its status.
type served struct {
	http.ResponseWriter

	span    trace.Span
	method  string
	trusted bool // the peer's word on the trace counts

	mu       sync.Mutex // an interim response may be written by the transport's goroutine
	status   int        // 0 until there is one
	upgraded bool
	route    string
	told     int // steps of the trail that are events already
	last     guard.Reason
}

// Unwrap lets http.ResponseController through, to flush and to hijack.
func (s *served) Unwrap() http.ResponseWriter { return s.ResponseWriter }

// WriteHeader implements http.ResponseWriter.
func (s *served) WriteHeader(status int) {
	s.mu.Lock()
	if s.status == 0 && (status >= 200 || status == http.StatusSwitchingProtocols) {
		s.status = status
	}
	s.mu.Unlock()
	s.ResponseWriter.WriteHeader(status)
}

func (s *served) Write(p []byte) (int, error) {
	s.mu.Lock()
	if s.status == 0 {
		s.status = http.StatusOK
	}
	s.mu.Unlock()
	return s.ResponseWriter.Write(p)
}

// observe takes what the gate has decided. It is told once more if something happens afterwards.
func (s *served) observe(v gateway.Verdict) {
	s.route = v.Route
	if v.Decision.Ends() {
		s.last = v.Decision.Reason
	}
	if !s.span.IsRecording() {
		return
	}
	for _, step := range v.Trail[min(s.told, len(v.Trail)):] {
		if step.Decision == (guard.Decision{}) {
			continue // nothing to say
		}
		s.event(step.Guard, step.Mode, step.Decision)
	}
	s.told = len(v.Trail)
	d := v.Decision
	if n := len(v.Trail); d != (guard.Decision{}) && (n == 0 || v.Trail[n-1].Decision != d) {
		s.event(d.Reason.Step(), guard.Enforce, d) // of a step that no mode holds for, or after the guards
	}
}

func (s *served) event(step guard.Kind, mode guard.Mode, d guard.Decision) {
	s.span.AddEvent("decision", trace.WithAttributes(
		attribute.String("moat.step", step.String()), attribute.String("moat.reason", d.Reason.String()),
		attribute.String("moat.outcome", d.Outcome.String()), attribute.String("moat.mode", mode.String()),
	))
}

func (s *served) end() {
	defer s.span.End()
	if !s.span.IsRecording() {
		return
	}
	s.mu.Lock()
	status := s.status
	if status == 0 && s.upgraded {
		status = http.StatusSwitchingProtocols
	}
	s.mu.Unlock()
	attributes := []attribute.KeyValue{attribute.String("moat.reason", s.last.String()), attribute.String("moat.step", s.last.Step().String())}
	if s.route != "" {
		s.span.SetName(s.method + " " + s.route)
		attributes = append(attributes, attribute.String("http.route", s.route))
	}
	switch {
	case status == 0:
		// Without an answer: whoever asked is gone, or was cut off.
		attributes = append(attributes, attribute.String("error.type", "aborted"))
		s.span.SetStatus(codes.Error, "")
	case status >= 500 || s.last == guard.UpstreamAborted:
		s.span.SetStatus(codes.Error, "")
		fallthrough
	default:
		attributes = append(attributes, attribute.Int("http.response.status_code", status))
	}
	s.span.SetAttributes(attributes...)
}

// transport stands around that of an upstream.
type transport struct {
	t        *Tracer
	next     http.RoundTripper
	upstream attribute.KeyValue
}

// RoundTrip changes the headers of the request, which the gate leaves to it.
func (tr *transport) RoundTrip(r *http.Request) (*http.Response, error) {
	method := methodOf(r)
	ctx, span := tr.t.tracer.Start(r.Context(), method, trace.WithSpanKind(trace.SpanKindClient), trace.WithAttributes(attribute.String("http.request.method", method), tr.upstream))
	s := servedOf(ctx)
	r.Header.Del("Traceparent")
	r.Header.Del("Tracestate")
	if s == nil || !s.trusted {
		r.Header.Del("Baggage") // goes with a trace, and would pass for ours
	}
	tr.t.w3c.Inject(ctx, propagation.HeaderCarrier(r.Header))
	res, err := tr.next.RoundTrip(r)
	if err != nil {
		span.SetAttributes(attribute.String("error.type", errorType(err)))
		span.SetStatus(codes.Error, "") // the text may have the upstream's address in it
		span.End()
		return nil, err
	}
	span.SetAttributes(attribute.Int("http.response.status_code", res.StatusCode))
	if res.StatusCode >= 400 {
		span.SetStatus(codes.Error, "")
	}
	if res.StatusCode == http.StatusSwitchingProtocols {
		if s != nil {
			s.mu.Lock()
			s.upgraded = true
			s.mu.Unlock()
		}
		span.End() // the tunnel is the server's span
		return res, nil
	}
	if span.IsRecording() {
		res.Body = &body{ReadCloser: res.Body, span: span}
	}
	return res, nil
}

func errorType(err error) string {
	var timeout interface{ Timeout() bool }
	if errors.As(err, &timeout) && timeout.Timeout() {
		return "timeout"
	}
	if errors.Is(err, context.Canceled) {
		return "aborted"
	}
	return "_OTHER"
}

// body ends the span with the upstream's answer.
type body struct {
	io.ReadCloser

	span trace.Span
	end  sync.Once
}

func (b *body) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil {
		b.done(err)
	}
	return n, err
}

func (b *body) Close() error {
	b.done(io.EOF) // whoever closes early has what it wants
	return b.ReadCloser.Close()
}

func (b *body) done(err error) {
	b.end.Do(func() {
		if !errors.Is(err, io.EOF) {
			b.span.SetAttributes(attribute.String("error.type", errorType(err)))
			b.span.SetStatus(codes.Error, "")
		}
		b.span.End()
	})
}
