package gateway_test

import (
	"crypto/tls"
	"net/http"
	"sync/atomic"
	"testing"

	"github.com/moat-gateway/moat/gateway"
)

func TestAHandlerStandsAroundTheGateOverTLSToo(t *testing.T) {
	b := newBackend(t, nil)
	cert := certificate(t)
	var seen atomic.Int32
	s := start(t, configFor(t, b.URL), func(c *gateway.ServerConfig) {
		c.Listeners[0].TLS = &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}
		c.Handler = func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { seen.Add(1); next.ServeHTTP(w, r) })
		}
	})
	tr := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	defer tr.CloseIdleConnections()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+s.addr+"/v1/items", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	res, err := tr.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if seen.Load() != 1 {
		t.Errorf("the handler saw %d requests of 1", seen.Load())
	}
}
