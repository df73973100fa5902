// Command moat-otel is `moat run --config FILE` that also traces, by OpenTelemetry.
//
// Where traces go and how many is said in the environment, as the OpenTelemetry specification
// has it: OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_EXPORTER_OTLP_HEADERS, OTEL_TRACES_SAMPLER and the
// like. docs/operate.md has an example.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	"github.com/moat-gateway/moat/config"
	"github.com/moat-gateway/moat/gateway"
	moatotel "github.com/moat-gateway/moat/otel"
	"github.com/moat-gateway/moat/run"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	go func() {
		<-ctx.Done()
		stop() // a second signal ends the process at once
	}()
	err := serve(ctx, os.Args[1:], os.Stderr, nil)
	switch {
	case errors.Is(err, flag.ErrHelp):
	case errors.Is(err, errUsage):
		os.Exit(2)
	case err != nil:
		for line := range strings.Lines(err.Error()) {
			fmt.Fprintf(os.Stderr, "moat-otel: error: %s\n", strings.TrimSuffix(line, "\n"))
		}
		os.Exit(1)
	}
}

// errUsage is a wrong command line, which has been told.
var errUsage = errors.New("usage")

func serve(ctx context.Context, args []string, stderr io.Writer, started func(gateway.Addresses)) error {
	flags := flag.NewFlagSet("moat-otel", flag.ContinueOnError)
	flags.SetOutput(stderr)
	file := flags.String("config", "", "the configuration `file`")
	asJSON := flags.Bool("log-json", false, "log as JSON")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return err
		}
		return errUsage
	}
	if *file == "" || flags.NArg() > 0 {
		fmt.Fprintln(stderr, "usage: moat-otel --config FILE")
		return errUsage
	}
	log := slog.New(slog.NewTextHandler(stderr, nil))
	if *asJSON {
		log = slog.New(slog.NewJSONHandler(stderr, nil))
	}
	provider, err := provide(ctx, log)
	if err != nil {
		return err
	}
	t := moatotel.New(provider)
	err = run.Gate(ctx, log, func() (*config.Loaded, error) { return config.Load(*file) }, run.Options{Configure: t.Configure, Handler: t.Handler, Started: started})

	last, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	t.Wait(last)
	return errors.Join(err, provider.Shutdown(last)) // sends what is left
}

// provide makes what the environment asks for. What this program does not have is an error: who
// asked for it would wait for traces that nobody sends.
func provide(ctx context.Context, log *slog.Logger) (*sdktrace.TracerProvider, error) {
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) { log.Error("tracing", slog.Any("error", err)) }))
	res, err := resource.New(ctx, resource.WithAttributes(attribute.String("service.name", "moat")), resource.WithTelemetrySDK(), resource.WithFromEnv())
	if err != nil {
		return nil, fmt.Errorf("OTEL_RESOURCE_ATTRIBUTES: %w", err)
	}
	protocol := cmp.Or(os.Getenv("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"), os.Getenv("OTEL_EXPORTER_OTLP_PROTOCOL"), "http/protobuf")
	switch exporter := cmp.Or(os.Getenv("OTEL_TRACES_EXPORTER"), "otlp"); {
	case exporter == "none" || os.Getenv("OTEL_SDK_DISABLED") == "true":
		return sdktrace.NewTracerProvider(sdktrace.WithSampler(sdktrace.NeverSample())), nil
	case exporter != "otlp":
		return nil, fmt.Errorf("OTEL_TRACES_EXPORTER: %q: only otlp and none", exporter)
	case protocol != "http/protobuf":
		return nil, fmt.Errorf("OTEL_EXPORTER_OTLP_PROTOCOL: %q: only http/protobuf; collectors listen for it on port 4318", protocol)
	}
	exporter, err := otlptracehttp.New(ctx)
	if err != nil {
		return nil, err
	}
	// The sampler is that of OTEL_TRACES_SAMPLER, and the batches are those of OTEL_BSP_*.
	return sdktrace.NewTracerProvider(sdktrace.WithBatcher(exporter), sdktrace.WithResource(res)), nil
}
