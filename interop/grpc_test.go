// Package interop runs moat between real peers whose libraries the product itself must
// not depend on.
package interop

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/reflection"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"

	"github.com/moat-gateway/moat/config"
	"github.com/moat-gateway/moat/gateway"
)

const moatYAML = `version: 1
listen: 127.0.0.1:0
admin: off
public_origins: [http://grpc.example.com]
dangerously_allow_insecure_public_origins: true
upstreams:
  svc: {url: "h2c://UPSTREAM"}
routes:
  - {match: "POST /", upstream: svc, auth: public, browserless: allow, limits: {body_bytes: unlimited}}
`

func TestGRPCPassesUnharmed(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := grpc.NewServer(grpc.UnaryInterceptor(func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, h grpc.UnaryHandler) (any, error) {
		if md, ok := metadata.FromIncomingContext(ctx); !ok || md.Get("x-real-ip") != nil {
			t.Errorf("arrived: %v", md)
		}
		return h(ctx, req)
	}))
	hs := health.NewServer()
	healthpb.RegisterHealthServer(srv, hs)
	reflection.Register(srv)
	go srv.Serve(l)
	defer srv.Stop()

	loaded, err := config.Parse("moat.yaml", []byte(strings.ReplaceAll(moatYAML, "UPSTREAM", l.Addr().String())), config.Options{})
	if err != nil {
		t.Fatal(err)
	}
	g, err := gateway.New(loaded.Gateway, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	serving, stopped := make(chan string, 1), make(chan error, 1)
	go func() {
		stopped <- g.Serve(ctx, loaded.Server, func(a gateway.Addresses) { serving <- a.Listeners[0] })
	}()
	defer func() { cancel(); <-stopped }()

	conn, err := grpc.NewClient("passthrough:///"+<-serving, grpc.WithAuthority("grpc.example.com"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	client := healthpb.NewHealthClient(conn)

	// Unary, and an error in the trailers.
	ctx = metadata.AppendToOutgoingContext(ctx, "x-real-ip", "6.6.6.6")
	res, err := client.Check(ctx, &healthpb.HealthCheckRequest{})
	if err != nil || res.GetStatus() != healthpb.HealthCheckResponse_SERVING {
		t.Errorf("Check: %v, %v", res, err)
	}
	if _, err = client.Check(ctx, &healthpb.HealthCheckRequest{Service: "nosuch"}); status.Code(err) != codes.NotFound {
		t.Errorf("Check of an unknown service: %v", err)
	}

	// The server streams: each message comes when it is sent.
	watch, err := client.Watch(ctx, &healthpb.HealthCheckRequest{Service: "svc"})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []healthpb.HealthCheckResponse_ServingStatus{
		healthpb.HealthCheckResponse_SERVICE_UNKNOWN, healthpb.HealthCheckResponse_SERVING, healthpb.HealthCheckResponse_NOT_SERVING,
	} {
		if want != healthpb.HealthCheckResponse_SERVICE_UNKNOWN {
			hs.SetServingStatus("svc", want)
		}
		if res, err = watch.Recv(); err != nil || res.GetStatus() != want {
			t.Fatalf("Watch: %v, %v; want %v", res, err, want)
		}
	}

	// Both sides stream: each answer comes before the next question.
	info, err := reflectionpb.NewServerReflectionClient(conn).ServerReflectionInfo(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := info.Send(&reflectionpb.ServerReflectionRequest{MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{}}); err != nil {
			t.Fatal(err)
		}
		if res, err := info.Recv(); err != nil || len(res.GetListServicesResponse().GetService()) != 3 {
			t.Fatalf("ServerReflectionInfo: %v, %v", res, err)
		}
	}
	if err := info.CloseSend(); err != nil {
		t.Error(err)
	}
}
