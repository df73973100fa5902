// Package valkeytest starts real servers for tests: Valkey or Redis, whichever is
// installed, on loopback, at ports that the system chooses. They end with the test. There
// is no stand-in: what a store does when its server is killed, paused or replaced can only
// be seen with one that is.
package valkeytest

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	client "github.com/valkey-io/valkey-go"
)

// FoundAs are the executables that will do, the preferred one first.
var FoundAs = []string{"valkey-server", "redis-server"}

// patience is how long something may take that must happen. Only a failure takes all.
const patience = 15 * time.Second

// T is what is needed of a *testing.T.
type T interface {
	Helper()
	Cleanup(f func())
	Failed() bool
	Fatalf(format string, args ...any)
	Logf(format string, args ...any)
	TempDir() string
}

// Server is a server process.
type Server struct {
	// Addr is where it listens.
	Addr string

	t    T
	path string
	args []string
	dir  string
	// What Do needs.
	tls                *tls.Config
	username, password string

	cmd  *exec.Cmd
	done chan struct{}
	log  *log
}

// Start starts a server. Options are those of its command line.
func Start(t T, options ...string) *Server {
	t.Helper()
	return start(t, func(port, dir string) []string {
		return append(common(dir), append([]string{"--port", port}, options...)...)
	})
}

func common(dir string) []string {
	return []string{"--bind", "127.0.0.1", "--dir", dir, "--save", "", "--appendonly", "no"}
}

// start starts a server at a port that is free. Nothing keeps it so until the server has
// it, so another one is tried if it is taken.
func start(t T, args func(port, dir string) []string) *Server {
	t.Helper()
	short := flag.Lookup("test.short") // nil outside of go test
	if s, ok := t.(interface{ Skip(args ...any) }); ok && short != nil && short.Value.String() == "true" {
		s.Skip("starts a real server: run without -short (make test does)")
	}
	path, err := find()
	if err != nil {
		t.Fatalf("%v", err)
	}
	dir := t.TempDir()
	for range 5 {
		addr, port := freePort(t)
		s := &Server{Addr: addr, t: t, args: args(port, dir), path: path, dir: dir}
		if err = s.launch(); err == nil {
			t.Cleanup(s.end)
			return s
		}
		if !strings.Contains(s.log.String(), "in use") {
			t.Fatalf("%s: %v\n%s", path, err, s.log)
		}
	}
	t.Fatalf("found no port to listen at")
	return nil
}

func find() (string, error) {
	for _, name := range FoundAs {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("none of %q is in PATH; run make setup", FoundAs)
}

// highest is the highest port that leaves a node of a cluster its second one, 10,000 above.
const highest = 1<<16 - 1 - 10_000

func freePort(t T) (addr, port string) {
	t.Helper()
	for range 100 {
		l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatalf("%v", err)
		}
		addr = l.Addr().String()
		l.Close() //nolint:errcheck // it has only been listening
		_, port, _ = strings.Cut(addr, ":")
		if n, err := strconv.Atoi(port); err == nil && n <= highest {
			break
		}
	}
	return addr, port
}

// launch starts the process, and waits until it accepts connections.
func (s *Server) launch() error {
	s.log = &log{ready: make(chan struct{})}
	s.cmd = exec.Command(s.path, s.args...) //nolint:noctx,gosec // it ends by end, and what it is comes from FoundAs.
	s.cmd.Dir, s.cmd.Stdout, s.cmd.Stderr = s.dir, s.log, s.log
	endWithParent(s.cmd)
	s.done = make(chan struct{})
	started := make(chan error, 1)
	go func(cmd *exec.Cmd, done chan struct{}) {
		// Linux ends the process with the thread that started it.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			cmd.Wait() //nolint:errcheck // most are killed
		}
		close(done)
	}(s.cmd, s.done)
	if err := <-started; err != nil {
		return err
	}
	select {
	case <-s.log.ready:
		return nil
	case <-s.done:
		return errors.New("ended at once")
	case <-time.After(patience):
		s.Kill()
		return fmt.Errorf("not ready within %s", patience)
	}
}

// Kill ends the server as a crash does, and waits until it has gone.
func (s *Server) Kill() {
	s.signal(syscall.SIGKILL)
	<-s.done
}

// Restart starts a server that was killed, at the same address. It is empty.
func (s *Server) Restart() {
	s.t.Helper()
	if err := s.launch(); err != nil {
		s.t.Fatalf("%s again: %v\n%s", s.path, err, s.log)
	}
}

// Pause stops the server without ending it: connections stay, and nobody answers.
func (s *Server) Pause() { s.signal(syscall.SIGSTOP) }

// Continue ends a Pause.
func (s *Server) Continue() { s.signal(syscall.SIGCONT) }

func (s *Server) signal(sig syscall.Signal) {
	if err := s.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		s.t.Fatalf("%s: %v", sig, err)
	}
}

// Do makes the server execute a command, as a user who may do everything, and returns its
// answer as text.
func (s *Server) Do(args ...string) (string, error) {
	one, err := client.NewClient(client.ClientOption{
		InitAddress: []string{s.Addr}, TLSConfig: s.tls, Username: s.username, Password: s.password,
		ForceSingleClient: true, DisableCache: true, ClientSetInfo: []string{}, RingScaleEachConn: 2,
		ConnWriteTimeout: patience,
	})
	if err != nil {
		if one != nil {
			one.Close()
		}
		return "", err
	}
	defer one.Close()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	m, err := one.Do(ctx, one.B().Arbitrary(args...).Build()).ToMessage()
	if err != nil {
		return "", err
	}
	if n, err := m.ToInt64(); err == nil {
		return strconv.FormatInt(n, 10), nil
	}
	if text, err := m.ToString(); err == nil {
		return text, nil
	}
	return m.String(), nil
}

// MustDo is Do for what must not fail.
func (s *Server) MustDo(args ...string) string {
	s.t.Helper()
	said, err := s.Do(args...)
	if err != nil {
		s.t.Fatalf("server %s: %s: %v", s.Addr, args[0], err)
	}
	return said
}

func (s *Server) end() {
	select {
	case <-s.done:
	default:
		s.Kill()
	}
	if s.t.Failed() {
		s.t.Logf("server %s:\n%s", s.Addr, s.log)
	}
}

// log is what a server writes.
type log struct {
	mu    sync.Mutex
	buf   bytes.Buffer
	ready chan struct{}
	once  sync.Once
}

func (l *log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.buf.Write(p)
	if said := l.buf.Bytes(); bytes.Contains(said, []byte("Ready to accept connections")) || bytes.Contains(said, []byte("+monitor master")) {
		l.once.Do(func() { close(l.ready) })
	}
	return len(p), nil
}

func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// eventually waits until a look succeeds.
func eventually(t T, what string, look func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !look(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %s", what, patience)
		}
	}
}

// write puts a file into a directory.
func write(t T, dir, name, text string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatalf("%v", err)
	}
	return path
}
