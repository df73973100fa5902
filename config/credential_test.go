package config

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/moat-gateway/moat/gateway"
)

// A secret that is exchanged in its file is used from the next load on, and the exchange
// costs no request.
func TestRotatedSecretIsUsedWithoutARestart(t *testing.T) {
	var seen sync.Map
	upstream := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { seen.Store(r.Header.Get("Authorization"), true) }))
	defer upstream.Close()
	dir := t.TempDir()
	secret, file := filepath.Join(dir, "key.txt"), filepath.Join(dir, "moat.yaml")
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(secret, "the-first-key\n")
	write(file, `version: 1
public_origins: [http://gate.example]
dangerously_allow_insecure_public_origins: true
upstreams: {model: {url: "`+upstream.URL+`", credential: {bearer: "${file:key.txt}"}}}
routes: [{match: /, upstream: model, auth: public, browserless: allow}]
`)
	load := func() gateway.Config {
		t.Helper()
		l, err := Load(file)
		if err != nil {
			t.Fatal(err)
		}
		return l.Gateway
	}
	g, err := gateway.New(load(), nil)
	if err != nil {
		t.Fatal(err)
	}
	var clients sync.WaitGroup
	served, stop := make(chan int), make(chan struct{})
	for range 4 {
		clients.Go(func() {
			for {
				w := httptest.NewRecorder()
				g.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "http://gate.example/", nil))
				select {
				case served <- w.Code:
				case <-stop:
					return
				}
			}
		})
	}
	serve20 := func() {
		t.Helper()
		for range 20 {
			if code := <-served; code != http.StatusOK {
				t.Errorf("status %d while a secret is exchanged", code)
			}
		}
	}
	serve20()
	write(secret, "the-second-key\n")
	if err = g.Reload(load()); err != nil {
		t.Fatal(err)
	}
	serve20()
	close(stop)
	clients.Wait()
	for _, key := range []string{"Bearer the-first-key", "Bearer the-second-key"} {
		if _, ok := seen.Load(key); !ok {
			t.Errorf("%s was not used", key)
		}
	}
}
