package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// site is a small real site behind moat: pages and an API that asks for tickets. Each visit of it has
// a client address of its own, so that moat's memory of one says nothing about the next.
type site struct {
	origin string
	admin  string
	// done gets what a page says when its calls are over; calls counts what the API answered.
	done  chan string
	calls atomic.Int64

	visitor  atomic.Int64
	upstream *http.Server
	relay    net.Listener
	gate     string // where moat listens
	moat     *exec.Cmd
	log      string
}

const pageHTML = `<!doctype html><html lang="en"><meta charset="utf-8"><title>Shop</title><link rel="stylesheet" href="/style.css">
<h1>Shop</h1><p><a href="/about">About</a></p><ul id="items"></ul><script src="/.moat/client.js"></script><script src="/app.js"></script></html>`

// appJS is the page's own script. It says when it is done to whoever drives the browser, and to
// the upstream, for the browsers that nobody drives.
const appJS = `(async () => {
  let said = "ok";
  try {
    const calls = +(new URLSearchParams(location.search).get("calls") ?? CALLS);
    for (let n = 0; n < calls; n++) {
      const answer = await moat.fetch("/api/items/" + n % 200);
      if (!answer.ok) throw new Error("item " + n + ": " + answer.status);
      const item = await answer.json();
      if (n < 5) items.append(Object.assign(document.createElement("li"), { textContent: item.name }));
    }
  } catch (error) {
    said = String(error);
  }
  await fetch("/done", { method: "POST", body: said });
  document.title = "done: " + said;
})();`

func (s *site) handler() http.Handler {
	mux := http.NewServeMux()
	static := func(path, kind, text string) {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", kind)
			w.Header().Set("Cache-Control", "no-store")
			io.WriteString(w, text) //nolint:errcheck // a client that is gone misses nothing
		})
	}
	static("/{$}", "text/html; charset=utf-8", pageHTML)
	static("/about", "text/html; charset=utf-8", pageHTML)
	static("/app.js", "text/javascript", strings.Replace(appJS, "CALLS", fmt.Sprint(callsOfVisit), 1))
	static("/style.css", "text/css", "body{font-family:sans-serif}")
	mux.HandleFunc("GET /api/items/{n}", func(w http.ResponseWriter, r *http.Request) {
		s.calls.Add(1)
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "no-store")
		json.NewEncoder(w).Encode(map[string]string{"name": "Item " + r.PathValue("n"), "price": "12.00"}) //nolint:errcheck // as above
	})
	mux.HandleFunc("POST /done", func(_ http.ResponseWriter, r *http.Request) {
		said, err := io.ReadAll(io.LimitReader(r.Body, 1<<10))
		if err != nil {
			said = []byte(err.Error())
		}
		select {
		case s.done <- string(said):
		default: // nobody waits
		}
	})
	return mux
}

// moatYAML has every signal count, and nothing be done about it.
const moatYAML = `version: 1
listen:
  - {address: "{gate}", tls: {certificate: site.pem, key: site.key}, proxy_protocol: [127.0.0.1/32]}
admin: "{admin}"
public_origins: ["{origin}"]
upstreams:
  site: {url: "http://{upstream}"}
rate_limits: {plenty: 1000/s}
tickets: {rate_limits: plenty, challenge: {mode: "off"}}
{bots}
policies:
  site: {modes: {bot: report, ticket: report, cross_site: report}}
routes:
  - {match: /, upstream: site, auth: public, policy: site}
  - {match: /api/, upstream: site, auth: public, policy: site, tickets: require}
`

// startSite starts the upstream, moat and the relay in front of it.
func startSite(ctx context.Context, dir, moat, bots string) (_ *site, err error) {
	s := &site{done: make(chan string, 1), log: filepath.Join(dir, "moat.log")}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	up, err := listen(ctx)
	if err != nil {
		return nil, err
	}
	s.upstream = &http.Server{Handler: s.handler(), ReadHeaderTimeout: 10 * time.Second}
	go s.upstream.Serve(up) //nolint:errcheck // closed at the end
	if s.relay, err = listen(ctx); err != nil {
		return nil, err
	}
	_, port, err := net.SplitHostPort(s.relay.Addr().String())
	if err != nil {
		return nil, err
	}
	s.origin = "https://localhost:" + port
	if s.gate, err = freeAddress(ctx); err != nil {
		return nil, err
	}
	if s.admin, err = freeAddress(ctx); err != nil {
		return nil, err
	}
	yaml := strings.NewReplacer("{gate}", s.gate, "{admin}", s.admin, "{origin}", s.origin, "{upstream}", up.Addr().String(), "{bots}", bots).Replace(moatYAML)
	file := filepath.Join(dir, "moat.yaml")
	if err = os.WriteFile(file, []byte(yaml), 0o600); err != nil {
		return nil, err
	}
	log, err := os.Create(s.log)
	if err != nil {
		return nil, err
	}
	defer log.Close() //nolint:errcheck // moat has its own descriptor of it
	s.moat = program(ctx, moat, "run", "--config", file, "--log-format", "json")
	s.moat.Stderr = log
	if err = start(s.moat); err != nil {
		return nil, err
	}
	go s.accept()
	for range 200 {
		if text, rErr := os.ReadFile(s.log); rErr == nil && bytes.Contains(text, []byte(`"msg":"serving"`)) {
			return s, nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	text, err := os.ReadFile(s.log)
	return nil, errors.Join(fmt.Errorf("moat does not serve:\n%s", text), err)
}

func (s *site) close() {
	if s.relay != nil {
		s.relay.Close() //nolint:errcheck // nothing is written to it
	}
	if s.moat != nil && s.moat.Process != nil {
		end(s.moat)
	}
	s.upstream.Close() //nolint:errcheck // nobody waits for an answer any more
}

func listen(ctx context.Context) (net.Listener, error) {
	return new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
}

func freeAddress(ctx context.Context) (string, error) {
	l, err := listen(ctx)
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// address is the one that a visitor comes from: of a prefix for documentation, each in a /48 of its own.
func address(visitor int64) string { return fmt.Sprintf("2001:db8:%x::7", visitor) }

// accept hands connections to moat byte by byte, behind a PROXY protocol header that says who the visitor is: what
// moat sees of TLS and HTTP/2 is the tool's own.
func (s *site) accept() {
	for {
		in, err := s.relay.Accept()
		if err != nil {
			return
		}
		go func() {
			defer in.Close()                    //nolint:errcheck // either end may close
			out, err := net.Dial("tcp", s.gate) //nolint:noctx // to this machine
			if err != nil {
				return
			}
			defer out.Close() //nolint:errcheck // as above
			if _, err = fmt.Fprintf(out, "PROXY TCP6 %s 2001:db8::1 40000 443\r\n", address(s.visitor.Load())); err != nil {
				return
			}
			go func() {
				io.Copy(out, in)                //nolint:errcheck // either end may close
				out.(*net.TCPConn).CloseWrite() //nolint:errcheck,forcetypeassert // dialled as tcp
			}()
			io.Copy(in, out) //nolint:errcheck // as above
		}()
	}
}

// authority makes the certificate authority of this run, ca.pem, and the site's certificate, site.pem and site.key, in dir.
func authority(dir string) error {
	now := time.Now()
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano()), Subject: pkix.Name{CommonName: "moat eval-bots"}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano() + 1), Subject: pkix.Name{CommonName: "localhost"}, NotBefore: ca.NotBefore, NotAfter: ca.NotAfter,
		DNSNames: []string{"localhost"}, KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, caKey.Public(), caKey)
	if err != nil {
		return err
	}
	leafDER, err := x509.CreateCertificate(rand.Reader, leaf, ca, key.Public(), caKey)
	if err != nil {
		return err
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	for name, block := range map[string]*pem.Block{
		"ca.pem": {Type: "CERTIFICATE", Bytes: caDER}, "site.pem": {Type: "CERTIFICATE", Bytes: leafDER}, "site.key": {Type: "PRIVATE KEY", Bytes: secret},
	} {
		if err = os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// program is a command that leads a process group of its own, which ends with ctx.
func program(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...) //nolint:gosec // the harness's own choice
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

func start(cmd *exec.Cmd) error {
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("%s: %w", cmd.Path, err)
	}
	return nil
}

// end stops a process and all that it has started.
func end(cmd *exec.Cmd) {
	over := make(chan struct{})
	go func() {
		cmd.Wait() //nolint:errcheck // it was told to stop
		close(over)
	}()
	syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) //nolint:errcheck // it may be gone
	select {
	case <-over:
	case <-time.After(5 * time.Second):
	}
	syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) //nolint:errcheck // as above
	<-over
}
