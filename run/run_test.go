package run_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	stdlog "log"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/moat-gateway/moat/alert"
	"github.com/moat-gateway/moat/config"
	"github.com/moat-gateway/moat/gateway"
	"github.com/moat-gateway/moat/run"
)

// locked is a buffer that several goroutines write to.
type locked struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *locked) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *locked) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// An upstream that sends more than its answer, as one with a wrong Content-Length does, has
// net/http print the rest.
func TestWhatAnUpstreamSendsUnaskedIsNotPrinted(t *testing.T) {
	const secret = "CANARY-a-key-that-is-long"
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer lis.Close()
	left := make(chan struct{})
	go func() {
		defer close(left)
		c, aErr := lis.Accept()
		if aErr != nil {
			return
		}
		defer c.Close()
		c.Read(make([]byte, 4096))
		io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx"+secret)
		io.Copy(io.Discard, c) // until the gate closes, having seen the rest
	}()
	t.Setenv("MOAT_TEST_KEY", secret)
	var printed locked
	stdlog.SetOutput(&printed)
	defer stdlog.SetOutput(os.Stderr)
	load := func() (*config.Loaded, error) {
		return config.Zero(config.ZeroConfig{
			Upstream: "http://" + lis.Addr().String(), Listen: "127.0.0.1:0", Admin: "off", PublicOrigins: []string{"http://gate.localhost"},
			Browserless: "allow", Credential: []string{"Authorization: Bearer ${env:MOAT_TEST_KEY}"},
		}, config.Machine())
	}
	ctx, stop := context.WithCancel(t.Context())
	started, stopped := make(chan string, 1), make(chan error, 1)
	go func() {
		stopped <- run.Gate(ctx, slog.New(slog.NewTextHandler(&printed, nil)), load, run.Options{Started: func(a gateway.Addresses) { started <- a.Listeners[0] }})
	}()
	select {
	case err = <-stopped:
		t.Fatal(err)
	case addr := <-started:
		r, rErr := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+addr+"/", nil)
		if rErr != nil {
			t.Fatal(rErr)
		}
		r.Host = "gate.localhost"
		res, doErr := http.DefaultClient.Do(r)
		if doErr != nil || res.StatusCode != http.StatusOK {
			t.Fatal(res, doErr)
		}
		res.Body.Close()
	}
	<-left
	stop()
	if err = <-stopped; err != nil {
		t.Error(err)
	}
	if text := printed.String(); strings.Contains(text, secret) || !strings.Contains(text, "serving") {
		t.Errorf("printed:\n%s", text)
	}
}

// begin runs a gate. end stops it, and waits.
func begin(t *testing.T, load func() (*config.Loaded, error), started func(gateway.Addresses)) (stopped <-chan error, end func()) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	over := make(chan error, 1)
	go func() { over <- run.Gate(ctx, slog.New(slog.DiscardHandler), load, run.Options{Started: started}) }()
	return over, func() {
		t.Helper()
		stop()
		if err := <-over; err != nil {
			t.Error(err)
		}
	}
}

// Who exchanges a file while the gate is reading it gets what was written last.
func TestAChangeWhileTheConfigurationIsReadIsSeen(t *testing.T) {
	if testing.Short() {
		t.Skip("the gate looks once a second: run without -short (make test does)")
	}
	name := filepath.Join(t.TempDir(), "moat.yaml")
	write := func(comment string) {
		text := "version: 1\nlisten: 127.0.0.1:0\nadmin: \"off\"\npublic_origins: [http://gate.localhost]\nupstreams: {app: {url: \"http://127.0.0.1:9\"}}\n" +
			"routes: [{match: /, upstream: app, auth: public}] # " + comment + "\n"
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Error(err)
		}
	}
	write("first")
	loads := make(chan int, 16)
	n := 0
	load := func() (*config.Loaded, error) {
		l, err := config.Load(name)
		if n++; n == 2 {
			write("third") // after it was read
		}
		loads <- n
		return l, err
	}
	stopped, end := begin(t, load, func(gateway.Addresses) { write("second") })
	for loaded := 0; loaded < 3; {
		select {
		case err := <-stopped:
			t.Fatal(err)
		case loaded = <-loads:
		case <-time.After(time.Minute):
			t.Fatalf("the file was read %d times; want 3", loaded)
		}
	}
	end()
}

// A configuration that names a file which is not there yet, as where the two are mounted apart,
// is taken when the file comes.
func TestAFileThatIsMissingMendsTheConfiguration(t *testing.T) {
	if testing.Short() {
		t.Skip("the gate looks once a second: run without -short (make test does)")
	}
	dir := t.TempDir()
	name, secret := filepath.Join(dir, "moat.yaml"), filepath.Join(dir, "secret")
	write := func(headers string) {
		text := "version: 1\nlisten: 127.0.0.1:0\nadmin: \"off\"\npublic_origins: [http://gate.localhost]\nupstreams: {app: {url: \"http://127.0.0.1:9\"" + headers + "}}\n" +
			"routes: [{match: /, upstream: app, auth: public}]\n"
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Error(err)
		}
	}
	write("")
	loads := make(chan error, 16)
	load := func() (*config.Loaded, error) {
		l, err := config.Load(name)
		loads <- err
		return l, err
	}
	stopped, end := begin(t, load, func(gateway.Addresses) { write(", headers: {X-Proof: \"${file:secret}\"}") })
	<-loads
	refused := false
	for done := false; !done; {
		select {
		case err := <-stopped:
			t.Fatal(err)
		case err := <-loads:
			if done = refused && err == nil; !refused && err != nil {
				refused = true
				if err = os.WriteFile(secret, []byte("a proof that is long enough"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
		case <-time.After(time.Minute):
			t.Fatalf("refused: %v; never taken", refused)
		}
	}
	end()
}

// What needs a person is told to the receiver once, by a gate that runs as a user runs it; a
// reload in between changes nothing about that.
func TestAReceiverIsToldOnceAcrossReloads(t *testing.T) {
	if testing.Short() {
		t.Skip("the gate looks once a second: run without -short (make test does)")
	}
	got := make(chan alert.Message, 16)
	receiver := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var m alert.Message
		if err := json.NewDecoder(r.Body).Decode(&m); err != nil {
			t.Error(err)
		}
		got <- m
	}))
	defer receiver.Close()
	t.Setenv("ALERT_SECRET", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
	name := filepath.Join(t.TempDir(), "moat.yaml")
	write := func(rest string) {
		text := "version: 1\nlisten: 127.0.0.1:0\nadmin: \"off\"\npublic_origins: [http://gate.localhost]\nupstreams: {app: {url: \"http://127.0.0.1:9\"}}\n" +
			"alerts:\n  instance: gate-1\n  webhooks: {ops: {url: \"" + receiver.URL + "\", secrets: \"${env:ALERT_SECRET}\"}}\n" +
			"  rules: {refused: {on: refused, threshold: 3}, reload: {on: reload_refused}}\n" +
			"routes: [{match: /, upstream: app, auth: public}]\n" + rest
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Error(err)
		}
	}
	write("")
	loads := make(chan error, 16)
	load := func() (*config.Loaded, error) {
		l, err := config.Load(name)
		loads <- err
		return l, err
	}
	started := make(chan string, 1)
	stopped, end := begin(t, load, func(a gateway.Addresses) { started <- a.Listeners[0] })
	var addr string
	select {
	case err := <-stopped:
		t.Fatal(err)
	case addr = <-started:
	}
	<-loads
	refuse := func() {
		for range 3 {
			r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+addr+"/", http.NoBody) // as curl asks
			if err != nil {
				t.Fatal(err)
			}
			r.Host = "gate.localhost"
			if res, dErr := http.DefaultClient.Do(r); dErr != nil || res.StatusCode != http.StatusForbidden {
				t.Fatal(res, dErr)
			}
		}
	}
	refuse()
	if m := <-got; m.Type != alert.Firing || m.Data.Rule != "refused" || m.Data.Value != 3 || m.Data.Instance != "gate-1" || len(m.Data.Top) != 1 || m.Data.Top[0].Reason != "cross-site-browserless" {
		t.Errorf("told %+v", m)
	}
	write("# the same\n")
	if err := <-loads; err != nil {
		t.Fatal(err)
	}
	refuse()
	write("no-such-field: 1\n")
	if m := <-got; m.Type != alert.Firing || m.Data.Rule != "reload" {
		t.Errorf("told %+v; want of the reload, and nothing in between", m)
	}
	end()
	if len(got) > 0 {
		t.Errorf("told %+v besides", <-got)
	}
}
