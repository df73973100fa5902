package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// process is a child.
type process struct {
	addr  string
	cmd   *exec.Cmd
	stdin io.Closer
	done  chan struct{}
}

// start starts a child whose output goes to log.
func start(ctx context.Context, log *os.File, name string, args ...string) (*process, error) {
	p := &process{cmd: exec.CommandContext(ctx, name, args...), done: make(chan struct{})} //nolint:gosec // what we have built.
	p.cmd.Stdout, p.cmd.Stderr = log, log
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go p.wait()
	return p, nil
}

func (p *process) wait() {
	p.cmd.Wait() //nolint:errcheck // stopped by a signal, or its log says why.
	close(p.done)
}

func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// stop ends the child, gently at first.
func (p *process) stop() {
	if p.stdin != nil {
		p.stdin.Close() //nolint:errcheck // it ends with its standard input.
	}
	p.cmd.Process.Signal(syscall.SIGTERM) //nolint:errcheck // it may have ended.
	select {
	case <-p.done:
	case <-time.After(5 * time.Second):
		p.cmd.Process.Kill() //nolint:errcheck // it may have ended.
		<-p.done
	}
}

// cpu is the processor time that all threads of the process have used. It is read from
// schedstat, which counts nanoseconds; stat counts ticks of 10 ms.
func (p *process) cpu() (time.Duration, error) {
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", p.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	var sum time.Duration
	for _, f := range files {
		b, err := os.ReadFile(f) //nolint:gosec // of a child of ours.
		if errors.Is(err, os.ErrNotExist) {
			continue // the thread has ended
		}
		if err != nil {
			return 0, err
		}
		ns, _, _ := strings.Cut(string(b), " ")
		n, err := strconv.ParseInt(ns, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", f, err)
		}
		sum += time.Duration(n)
	}
	if sum == 0 {
		return 0, hinted{errors.New("/proc has no processor times of moat's threads"), "the kernel must be built with CONFIG_SCHED_INFO"}
	}
	return sum, nil
}

// peakRSS is the most memory that the process has had, in KiB.
func (p *process) peakRSS() (int, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			return strconv.Atoi(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")))
		}
	}
	return 0, errors.New("/proc says nothing of the peak memory")
}

// backendArgument makes this program the backend, so that its work is not moat's and
// not the client's. It ends with its standard input, and so with its parent.
const backendArgument = "backend"

func startBackend(ctx context.Context) (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p := &process{cmd: exec.CommandContext(ctx, self, backendArgument), done: make(chan struct{})} //nolint:gosec // ourselves.
	p.cmd.Stderr = os.Stderr
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err = p.cmd.Start(); err != nil {
		return nil, err
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	go p.wait()
	if err != nil {
		p.stop()
		return nil, fmt.Errorf("it does not say where it listens: %w", err)
	}
	p.addr = strings.TrimSpace(line)
	return p, nil
}

// serveBackend answers every request with 1 KiB of JSON, until stdin ends.
func serveBackend(stdin io.Reader, stdout io.Writer) error {
	l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // it ends with the process.
	if err != nil {
		return err
	}
	body := []byte(`{"items":"` + strings.Repeat("x", 1024-len(`{"items":""}`)) + `"}`)
	srv := &http.Server{
		ReadHeaderTimeout: 10 * time.Second,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.Write(body)
		}),
	}
	failed := make(chan error, 1)
	go func() { failed <- srv.Serve(l) }()
	if _, err := fmt.Fprintln(stdout, l.Addr()); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() {
		_, err := io.Copy(io.Discard, stdin)
		ended <- err
	}()
	select {
	case err := <-failed:
		return err
	case err := <-ended:
		return errors.Join(err, srv.Close())
	}
}
