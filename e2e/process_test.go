package e2e

import (
	"bytes"
	"io"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

const (
	// patience is how long a test waits for what must happen. The machine may be busy;
	// only a failure takes all of it.
	patience = 30 * time.Second
	// pause is between two looks.
	pause = 5 * time.Millisecond
)

// eventually looks until a look succeeds, or fails with what the last one found.
func eventually(t *testing.T, what string, look func() (found string, ok bool)) {
	t.Helper()
	found, ok := look()
	for deadline := time.Now().Add(patience); !ok; found, ok = look() {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %s; at last: %s", what, patience, found)
		}
		time.Sleep(pause)
	}
}

// process is a program that runs beside the test.
type process struct {
	t              *testing.T
	cmd            *exec.Cmd
	stdin          io.Closer
	stdout, stderr output

	done   chan struct{}
	err    error // valid when done is closed
	killed bool  // by the test
}

// startProcess runs a program until the test ends. Then stop asks it to end, and inspect
// looks at how it did. A test that fails logs what the program wrote to stderr.
func startProcess(t *testing.T, cmd *exec.Cmd, stop, inspect func(*process)) *process {
	t.Helper()
	p := &process{t: t, cmd: cmd, done: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = &p.stdout, &p.stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.stdin = in
	endWithParent(cmd)
	started := make(chan error, 1)
	go func() {
		// Linux ends such a child with the thread that started it, so the thread has to
		// stay for as long as the child.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			p.err = cmd.Wait()
			close(p.done)
		}
	}()
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stop(p)
		select {
		case <-p.done:
		case <-time.After(patience):
			cmd.Process.Kill()
			<-p.done
			t.Errorf("%s did not stop within %s", cmd.Path, patience)
		}
		inspect(p)
		if t.Failed() {
			t.Logf("%s\n%s", cmd, &p.stderr)
		}
	})
	return p
}

func (p *process) signal(s syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Errorf("%s: %v", s, err)
	}
}

// kill ends the process as a power cut does.
func (p *process) kill() {
	p.t.Helper()
	p.killed = true
	p.signal(syscall.SIGKILL)
	<-p.done
}

// wait waits for the process to end, and returns what its end says of it.
func (p *process) wait() error {
	p.t.Helper()
	select {
	case <-p.done:
		return p.err
	case <-time.After(patience):
		p.t.Fatalf("%s did not end within %s", p.cmd.Path, patience)
		return nil
	}
}

func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// output is what a process has written.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// lines are those that are complete.
func (o *output) lines() []string {
	all := strings.Split(o.String(), "\n")
	return all[:len(all)-1]
}
