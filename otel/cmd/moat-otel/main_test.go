package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/moat-gateway/moat/gateway"
)

// The program as its users run it: the environment says where traces go and how many, and what
// is left is sent when it stops.
func TestTheEnvironmentSaysWhereTracesGo(t *testing.T) {
	for sampler, want := range map[string]int{"": 1, "parentbased_always_on": 1, "parentbased_traceidratio": 0} {
		t.Run(sampler, func(t *testing.T) {
			got := make(chan *collector.ExportTraceServiceRequest, 10)
			rec := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				body, err := io.ReadAll(r.Body)
				var req collector.ExportTraceServiceRequest
				if err == nil {
					err = proto.Unmarshal(body, &req)
				}
				if err != nil || r.Header.Get("X-Team") != "gate" {
					t.Errorf("%v, %v", r.Header, err)
				}
				got <- &req
			}))
			defer rec.Close()
			for name, value := range map[string]string{
				"OTEL_EXPORTER_OTLP_ENDPOINT": rec.URL, "OTEL_EXPORTER_OTLP_HEADERS": "X-Team=gate", "OTEL_SERVICE_NAME": "edge",
				"OTEL_TRACES_SAMPLER": sampler, "OTEL_TRACES_SAMPLER_ARG": "0",
			} {
				if value != "" {
					t.Setenv(name, value)
				}
			}
			file := filepath.Join(t.TempDir(), "moat.yaml")
			if err := os.WriteFile(file, []byte("version: 1\nlisten: 127.0.0.1:0\nadmin: \"off\"\npublic_origins: [http://gate.localhost]\n"+
				"upstreams: {app: {url: \"http://127.0.0.1:1\"}}\nroutes: [{match: /, upstream: app, auth: public}]\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			ctx, stop := context.WithCancel(t.Context())
			started, stopped := make(chan string, 1), make(chan error, 1)
			go func() {
				stopped <- serve(ctx, []string{"--config", file}, io.Discard, func(a gateway.Addresses) { started <- a.Listeners[0] })
			}()
			select {
			case err := <-stopped:
				t.Fatal(err)
			case addr := <-started:
				r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+addr+"/", http.NoBody)
				if err != nil {
					t.Fatal(err)
				}
				r.Host = "gate.localhost"
				if res, dErr := http.DefaultClient.Do(r); dErr != nil || res.StatusCode != http.StatusForbidden {
					t.Fatal(res, dErr)
				}
			}
			stop()
			if err := <-stopped; err != nil {
				t.Error(err)
			}
			if len(got) != want {
				t.Fatalf("%d batches; want %d", len(got), want)
			}
			if want == 1 {
				if text := (<-got).String(); !strings.Contains(text, "edge") || !strings.Contains(text, "cross-site-browserless") {
					t.Error(text)
				}
			}
		})
	}
}

// What nobody would send is refused, and not forgotten.
func TestWhatItDoesNotHaveIsAnError(t *testing.T) {
	for _, c := range []struct{ name, value string }{{"OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"}, {"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/json"}, {"OTEL_TRACES_EXPORTER", "zipkin"}} {
		t.Run(c.name, func(t *testing.T) {
			t.Setenv(c.name, c.value)
			if err := serve(t.Context(), []string{"--config", "none.yaml"}, io.Discard, nil); err == nil || !strings.Contains(err.Error(), c.value) {
				t.Error(err)
			}
		})
	}
	var said bytes.Buffer
	if err := serve(t.Context(), nil, &said, nil); !errors.Is(err, errUsage) || !strings.Contains(said.String(), "--config FILE") {
		t.Errorf("%v: %s", err, said.String())
	}
	t.Setenv("OTEL_TRACES_EXPORTER", "none")
	if err := serve(t.Context(), []string{"--config", "none.yaml"}, io.Discard, nil); err == nil || !strings.Contains(err.Error(), "none.yaml") {
		t.Error(err)
	}
}
