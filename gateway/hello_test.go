package gateway_test

import (
	"crypto/tls"
	"net/http"
	"testing"

	"github.com/moat-gateway/moat/gateway"
	"github.com/moat-gateway/moat/guard"
	"github.com/moat-gateway/moat/guard/bot"
)

// A Go program that calls itself Chromium is told by its connection: over TLS, over HTTP/2, and over
// both; and from the reload on that asks for it.
func TestConnectionsTellPrograms(t *testing.T) {
	var modes [bot.NumSignals]guard.Mode
	judged := func(s ...bot.Signal) *gateway.Bots {
		for i := range modes {
			modes[i] = guard.Off
		}
		for _, one := range s {
			modes[one] = guard.Enforce
		}
		return &gateway.Bots{Policy: bot.Policy{Modes: modes, Deny: 40}}
	}
	b, cert := newBackend(t, nil), certificate(t)
	for _, c := range []struct {
		name       string
		secure, h2 bool
		signal     bot.Signal
		status     int
	}{
		{"TLS", true, false, bot.JA4, 403},
		{"HTTP/2 over TLS", true, true, bot.JA4, 403},
		{"its settings", true, true, bot.HTTP2, 403},
		{"HTTP/2 without TLS", false, true, bot.HTTP2, 403},
		{"HTTP/1.1 without TLS", false, false, bot.HTTP2, 200},
	} {
		t.Run(c.name, func(t *testing.T) {
			conf := configFor(t, b.URL, func(k *gateway.Config) { k.Routes[0].CrossSite.AllowBrowserless = true })
			scheme := "http://"
			s := start(t, conf, func(k *gateway.ServerConfig) {
				if c.secure {
					scheme, k.Listeners[0].TLS = "https://", &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}
				}
			})
			var p http.Protocols
			p.SetHTTP1(!c.h2)
			p.SetHTTP2(c.h2)
			p.SetUnencryptedHTTP2(c.h2 && !c.secure)
			get := func(want int) {
				t.Helper()
				tr := &http.Transport{Protocols: &p, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
				defer tr.CloseIdleConnections()
				req, err := http.NewRequestWithContext(t.Context(), "GET", scheme+s.addr, http.NoBody)
				if err != nil {
					t.Fatal(err)
				}
				req.Host = "api.example.com"
				req.Header.Set("User-Agent", "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/156.0.0.0 Safari/537.36")
				res, err := tr.RoundTrip(req)
				if err != nil {
					t.Fatal(err)
				}
				res.Body.Close()
				if res.StatusCode != want {
					t.Errorf("%d, want %d", res.StatusCode, want)
				}
			}
			get(200)
			conf.Bots = judged(c.signal)
			if err := s.Reload(conf); err != nil {
				t.Fatal(err)
			}
			get(c.status)
			conf.Bots = nil
			if err := s.Reload(conf); err != nil {
				t.Fatal(err)
			}
			get(200)
		})
	}
}
