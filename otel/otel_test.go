package otel_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace/noop"
	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	common "go.opentelemetry.io/proto/otlp/common/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/moat-gateway/moat/config"
	"github.com/moat-gateway/moat/gateway"
	moatotel "github.com/moat-gateway/moat/otel"
	"github.com/moat-gateway/moat/run"
)

// receiver takes OTLP over HTTP, as a collector does.
type receiver struct {
	*httptest.Server
	mu    sync.Mutex
	spans []*tracepb.Span
}

func receive(t *testing.T) *receiver {
	t.Helper()
	rec := &receiver{}
	rec.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		var req collector.ExportTraceServiceRequest
		if err == nil {
			err = proto.Unmarshal(body, &req)
		}
		if err != nil || r.URL.Path != "/v1/traces" {
			t.Errorf("%s: %v", r.URL.Path, err)
		}
		rec.mu.Lock()
		defer rec.mu.Unlock()
		for _, rs := range req.GetResourceSpans() {
			for _, ss := range rs.GetScopeSpans() {
				rec.spans = append(rec.spans, ss.GetSpans()...)
			}
		}
	}))
	t.Cleanup(rec.Close)
	return rec
}

// upstream is a real backend, which notes the headers of a trace.
type upstream struct {
	*httptest.Server
	mu   sync.Mutex
	last http.Header
}

func newUpstream(t *testing.T) *upstream {
	t.Helper()
	u := &upstream{}
	u.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		u.mu.Lock()
		u.last = r.Header.Clone()
		u.mu.Unlock()
		switch r.URL.Path {
		case "/events":
			w.Header().Set("Content-Type", "text/event-stream")
			for i := range 3 {
				fmt.Fprintf(w, "data: %d\n\n", i)
				http.NewResponseController(w).Flush()
				<-r.Context().Done() // the client has the first one, and goes
			}
		case "/socket":
			conn, rw, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
			line, _ := rw.ReadString('\n')
			io.WriteString(conn, "echo "+line)
		case "/broken":
			w.WriteHeader(http.StatusInternalServerError)
		case "/cut":
			w.Header().Set("Content-Length", "100")
			io.WriteString(w, "half")
		default:
			io.WriteString(w, "ok")
		}
	}))
	t.Cleanup(u.Close)
	return u
}

const file = `version: 1
listen: 127.0.0.1:0
admin: "off"
public_origins: [http://gate.localhost]
%s
upstreams: {app: {url: "%s"}, nobody: {url: "http://127.0.0.1:1"}}
policies:
  open: {browserless: allow}
  tried: {browserless: allow, modes: {bounds: report}}
routes:
  - {match: /, name: all, upstream: app, auth: public, policy: open}
  - {match: /strict, name: strict, upstream: app, auth: public}
  - {match: /tried, name: tried, upstream: app, auth: public, policy: tried, methods: [GET]}
  - {match: /gone, name: gone, upstream: nobody, auth: public, policy: open}
`

// gate runs a traced gate as moat-otel does, and returns its address. stop ends it, and sends
// what has not been sent.
func gate(t *testing.T, rec *receiver, text string, o ...sdktrace.TracerProviderOption) (addr string, stop func()) {
	t.Helper()
	exporter, err := otlptracehttp.New(t.Context(), otlptracehttp.WithEndpointURL(rec.URL+"/v1/traces"))
	if err != nil {
		t.Fatal(err)
	}
	provider := sdktrace.NewTracerProvider(append(o, sdktrace.WithBatcher(exporter))...)
	tr := moatotel.New(provider)
	ctx, cancel := context.WithCancel(t.Context())
	started, stopped := make(chan string, 1), make(chan error, 1)
	go func() {
		stopped <- run.Gate(ctx, slog.New(slog.DiscardHandler), func() (*config.Loaded, error) { return config.Parse("moat.yaml", []byte(text), config.Options{}) },
			run.Options{Configure: tr.Configure, Handler: tr.Handler, Started: func(a gateway.Addresses) { started <- a.Listeners[0] }})
	}()
	select {
	case err = <-stopped:
		t.Fatal(err)
	case addr = <-started:
	}
	return addr, func() {
		t.Helper()
		cancel()
		if sErr := <-stopped; sErr != nil {
			t.Error(sErr)
		}
		tr.Wait(context.WithoutCancel(ctx))
		if sErr := provider.Shutdown(context.WithoutCancel(ctx)); sErr != nil {
			t.Error(sErr)
		}
	}
}

func ask(t *testing.T, method, url string, headers ...string) (*http.Response, error) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	r.Host = "gate.localhost"
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}} // that would ask again where an answer is cut off
	res, err := client.Do(r)
	if err == nil {
		_, err = io.ReadAll(res.Body)
		res.Body.Close()
	}
	return res, err
}

// text is a span as a line: its kind, name, attributes in the order of their names, and events.
func text(s *tracepb.Span) string {
	join := func(kvs []*common.KeyValue) string {
		var parts []string
		for _, kv := range kvs {
			v := kv.GetValue().GetStringValue()
			if v == "" {
				v = fmt.Sprint(kv.GetValue().GetIntValue())
			}
			parts = append(parts, strings.TrimPrefix(strings.TrimPrefix(kv.GetKey(), "moat."), "http.")+"="+v)
		}
		slices.Sort(parts)
		return strings.Join(parts, " ")
	}
	out := fmt.Sprintf("%s %q %s", strings.TrimPrefix(s.GetKind().String(), "SPAN_KIND_"), s.GetName(), join(s.GetAttributes()))
	if s.GetStatus().GetCode() == tracepb.Status_STATUS_CODE_ERROR {
		out += " ERROR" + s.GetStatus().GetMessage()
	}
	for _, e := range s.GetEvents() {
		out += "; " + e.GetName() + " " + join(e.GetAttributes())
	}
	return out
}

// What a request went through stands in its span, with the upstream's below, and nothing that
// the client sent.
func TestSpansOfRequests(t *testing.T) {
	rec, up := receive(t), newUpstream(t)
	addr, stop := gate(t, rec, fmt.Sprintf(file, "", up.URL))
	base := "http://" + addr
	const canary = "?token=CANARY"
	for _, c := range []struct {
		method, path string
		status       int
		headers      []string
	}{
		{"GET", "/CANARY/x", 200, []string{"User-Agent", "CANARY", "X-CANARY", "CANARY"}},
		{"GET", "/broken", 500, nil},
		{"GET", "/strict", 403, nil},
		{"GET", "/gone", 502, nil},
		{"CANARY", "/x", 405, nil},
		{"POST", "/tried", 200, nil},
		{"GET", "/x%2fCANARY", 400, nil},
	} {
		if res, err := ask(t, c.method, base+c.path+canary, c.headers...); err != nil || res.StatusCode != c.status {
			t.Errorf("%s %s: %v, %v", c.method, c.path, res, err)
		}
	}
	if _, err := ask(t, "GET", base+"/cut"); err == nil {
		t.Error("half an answer passes for a whole one")
	}
	stop()

	var got []string
	byID := make(map[string]*tracepb.Span)
	for _, s := range rec.spans {
		got = append(got, text(s))
		byID[string(s.GetSpanId())] = s
		if strings.Contains(s.String(), "CANARY") {
			t.Errorf("what the client sent: %v", s)
		}
	}
	slices.Sort(got)
	want := []string{
		`CLIENT "GET" request.method=GET response.status_code=200 upstream=app`,
		`CLIENT "POST" request.method=POST response.status_code=200 upstream=app`,
		`CLIENT "GET" error.type=_OTHER request.method=GET response.status_code=200 upstream=app ERROR`,
		`CLIENT "GET" error.type=_OTHER request.method=GET upstream=nobody ERROR`,
		`CLIENT "GET" request.method=GET response.status_code=500 upstream=app ERROR`,
		`SERVER "GET all" reason=ok request.method=GET response.status_code=200 route=all step=route`,
		`SERVER "GET all" reason=ok request.method=GET response.status_code=500 route=all step=route ERROR`,
		`SERVER "GET all" reason=path-ambiguous request.method=GET response.status_code=400 route=all step=route; decision mode=enforce outcome=deny reason=path-ambiguous step=route`,
		`SERVER "GET all" reason=upstream-aborted request.method=GET response.status_code=200 route=all step=upstream ERROR; decision mode=enforce outcome=deny reason=upstream-aborted step=upstream`,
		`SERVER "GET gone" reason=upstream-unreachable request.method=GET response.status_code=502 route=gone step=upstream ERROR; decision mode=enforce outcome=deny reason=upstream-unreachable step=upstream`,
		`SERVER "GET strict" reason=cross-site-browserless request.method=GET response.status_code=403 route=strict step=cross_site; decision mode=enforce outcome=deny reason=cross-site-browserless step=cross_site`,
		`SERVER "POST tried" reason=ok request.method=POST response.status_code=200 route=tried step=route; decision mode=report outcome=deny reason=method-not-allowed step=bounds`,
		`SERVER "_OTHER all" reason=method-not-allowed request.method=_OTHER response.status_code=405 route=all step=bounds; decision mode=enforce outcome=deny reason=method-not-allowed step=bounds`,
	}
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("spans:\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	for _, s := range rec.spans {
		parent := byID[string(s.GetParentSpanId())]
		if server := s.GetKind() == tracepb.Span_SPAN_KIND_SERVER; server != (parent == nil) || !server && (parent.GetKind() != tracepb.Span_SPAN_KIND_SERVER || string(parent.GetTraceId()) != string(s.GetTraceId())) {
			t.Errorf("%s: its parent is %v", text(s), parent)
		}
	}
}

const (
	theirs  = "4bf92f3577b34da6a3ce929d0e0e4736"
	sampled = "00-" + theirs + "-00f067aa0ba902b7-01"
	dropped = "00-" + theirs + "-00f067aa0ba902b7-00"
)

// The trace of a trusted proxy goes on, and its word on sampling holds. A stranger's does
// not: neither can it have itself sampled, nor keep itself from it, nor write into a trace.
func TestWhoseTraceGoesOn(t *testing.T) {
	const proxies = "trusted_proxies: {from: [127.0.0.1/32], header: X-Forwarded-For}"
	never, always := sdktrace.TraceIDRatioBased(0), sdktrace.AlwaysSample()
	for _, c := range []struct {
		name, trust, sent string
		root              sdktrace.Sampler
		spans             int
		goesOn            bool
	}{
		{"a stranger who wants to be sampled", "", sampled, never, 0, false},
		{"a stranger who wants not to be", "", dropped, always, 2, false},
		{"a trusted proxy that samples", proxies, sampled, never, 2, true},
		{"a trusted proxy that does not", proxies, dropped, always, 0, true},
		{"a trusted proxy that says nothing", proxies, "", always, 2, false},
		{"a trusted proxy that says what is no trace", proxies, "00-CANARY", always, 2, false},
		{"behind a proxy that is not in the list", strings.Replace(proxies, "127.0.0.1/32", "10.0.0.0/8", 1), sampled, never, 0, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			rec, up := receive(t), newUpstream(t)
			addr, stop := gate(t, rec, fmt.Sprintf(file, c.trust, up.URL), sdktrace.WithSampler(sdktrace.ParentBased(c.root)))
			if res, err := ask(t, "GET", "http://"+addr+"/x", "Traceparent", c.sent, "Tracestate", "vendor=theirs", "Baggage", "user=theirs"); err != nil || res.StatusCode != 200 {
				t.Fatal(res, err)
			}
			stop()
			up.mu.Lock()
			h := up.last
			up.mu.Unlock()
			parts := strings.Split(h.Get("Traceparent"), "-")
			if len(h["Traceparent"]) != 1 || len(parts) != 4 || (parts[1] == theirs) != c.goesOn || (parts[3] == "01") != (c.spans > 0) {
				t.Errorf("the upstream got %q", h["Traceparent"])
			}
			if (h.Get("Tracestate") != "") != c.goesOn || (h.Get("Baggage") != "") != (c.trust == proxies) {
				t.Errorf("the upstream got Tracestate %q, Baggage %q", h["Tracestate"], h["Baggage"])
			}
			if len(rec.spans) != c.spans {
				t.Errorf("%d spans; want %d", len(rec.spans), c.spans)
			}
			for _, s := range rec.spans {
				if fmt.Sprintf("%x", s.GetTraceId()) == theirs != c.goesOn || len(s.GetLinks()) > 0 {
					t.Errorf("trace %x, links %v", s.GetTraceId(), s.GetLinks())
				}
				if s.GetKind() == tracepb.Span_SPAN_KIND_CLIENT && len(parts) == 4 && fmt.Sprintf("%x", s.GetSpanId()) != parts[2] {
					t.Errorf("the upstream's parent is %s, and not the span %x", parts[2], s.GetSpanId())
				}
			}
		})
	}
}

// Events and WebSockets pass a traced gate as they pass any.
func TestStreamsAndTunnelsPass(t *testing.T) {
	rec, up := receive(t), newUpstream(t)
	addr, stop := gate(t, rec, fmt.Sprintf(file, "", up.URL))

	ctx, cancel := context.WithCancel(t.Context())
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/events", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	r.Host = "gate.localhost"
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	// The upstream has no more to say until we go: whatever buffers would keep this for ever.
	if line, rErr := bufio.NewReader(res.Body).ReadString('\n'); line != "data: 0\n" {
		t.Errorf("%q, %v", line, rErr)
	}
	cancel()
	res.Body.Close()

	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(conn, "GET /socket HTTP/1.1\r\nHost: gate.localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhello\n")
	answer, err := io.ReadAll(conn)
	if err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 101 ") || !strings.HasSuffix(string(answer), "\r\n\r\necho hello\n") {
		t.Errorf("%q, %v", answer, err)
	}
	conn.Close()
	stop()

	var got []string
	for _, s := range rec.spans {
		// Whether the gate first finds that the client is gone, or that its own call is over, nobody knows.
		got = append(got, strings.TrimSuffix(strings.Replace(text(s), "error.type=aborted ", "", 1), " ERROR"))
	}
	slices.Sort(got)
	want := []string{
		`CLIENT "GET" request.method=GET response.status_code=101 upstream=app`,
		`CLIENT "GET" request.method=GET response.status_code=200 upstream=app`,
		`SERVER "GET all" reason=ok request.method=GET response.status_code=101 route=all step=route`,
		`SERVER "GET all" reason=ok request.method=GET response.status_code=200 route=all step=route`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("spans:\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// BenchmarkTracing is what a request costs the gate, over real connections, without tracing,
// with none of the requests sampled, and with all of them.
func BenchmarkTracing(b *testing.B) {
	for _, c := range []struct {
		name    string
		sampler sdktrace.Sampler // nil for no tracing
	}{{"none", nil}, {"noop", nil}, {"sampled-none", sdktrace.NeverSample()}, {"sampled-1%", sdktrace.TraceIDRatioBased(.01)}, {"sampled-all", sdktrace.AlwaysSample()}} {
		b.Run(c.name, func(b *testing.B) {
			up := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
			defer up.Close()
			sink := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { io.Copy(io.Discard, r.Body) }))
			defer sink.Close()
			l, err := config.Parse("moat.yaml", []byte(fmt.Sprintf(file, "", up.URL)), config.Options{})
			if err != nil {
				b.Fatal(err)
			}
			handler := func(h http.Handler) http.Handler { return h }
			switch {
			case c.sampler != nil:
				exporter, eErr := otlptracehttp.New(b.Context(), otlptracehttp.WithEndpointURL(sink.URL+"/v1/traces"))
				if eErr != nil {
					b.Fatal(eErr)
				}
				provider := sdktrace.NewTracerProvider(sdktrace.WithSampler(c.sampler), sdktrace.WithBatcher(exporter))
				defer provider.Shutdown(context.Background())
				t := moatotel.New(provider)
				t.Configure(&l.Gateway)
				handler = t.Handler
			case c.name == "noop":
				t := moatotel.New(noop.NewTracerProvider())
				t.Configure(&l.Gateway)
				handler = t.Handler
			}
			g, err := gateway.New(l.Gateway, nil)
			if err != nil {
				b.Fatal(err)
			}
			srv := httptest.NewServer(handler(g))
			defer srv.Close()
			r, err := http.NewRequestWithContext(b.Context(), http.MethodGet, srv.URL+"/x", http.NoBody)
			if err != nil {
				b.Fatal(err)
			}
			r.Host = "gate.localhost"
			client := &http.Client{Transport: &http.Transport{}}
			b.ReportAllocs()
			for b.Loop() {
				res, dErr := client.Do(r)
				if dErr != nil || res.StatusCode != http.StatusOK {
					b.Fatal(res, dErr)
				}
				io.Copy(io.Discard, res.Body)
				res.Body.Close()
			}
		})
	}
}
