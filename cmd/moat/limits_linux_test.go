package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/moat-gateway/moat/config"
	"github.com/moat-gateway/moat/gateway"
)

// terminal opens a terminal of that size. What is written to keys is typed, and what is
// read from it is drawn.
func terminal(t *testing.T, rows, cols uint16) (keys, tty *os.File) {
	t.Helper()
	keys, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { keys.Close() })
	ioctl := func(request uintptr, arg unsafe.Pointer) {
		if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, keys.Fd(), request, uintptr(arg)); errno != 0 {
			t.Fatal(errno)
		}
	}
	var unlock, n int32
	ioctl(syscall.TIOCSPTLCK, unsafe.Pointer(&unlock))
	ioctl(syscall.TIOCGPTN, unsafe.Pointer(&n))
	ioctl(syscall.TIOCSWINSZ, unsafe.Pointer(&[4]uint16{rows, cols}))
	tty, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tty.Close() })
	return keys, tty
}

// watch starts moat limits --watch on a terminal.
func watch(t *testing.T, admin string, env ...string) (keys *os.File, cmd *exec.Cmd) {
	t.Helper()
	keys, tty := terminal(t, 24, 80)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd = exec.CommandContext(t.Context(), exe)
	cmd.Args = []string{"moat", "limits", "--watch", "--admin", admin} // see TestMain
	cmd.Env = append(os.Environ(), append([]string{"TERM=xterm", "NO_COLOR=", "COLUMNS="}, env...)...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = tty, tty, tty
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	tty.Close()
	return keys, cmd
}

// drawn reads from a terminal until it has seen text, or for ten seconds.
func drawn(t *testing.T, keys *os.File, text string) string {
	t.Helper()
	var all strings.Builder
	buf := make([]byte, 1<<16)
	watchdog := time.AfterFunc(10*time.Second, func() { keys.Close() })
	defer watchdog.Stop()
	for !strings.Contains(all.String(), text) {
		n, err := keys.Read(buf)
		all.Write(buf[:n])
		if err != nil {
			t.Fatalf("no %q in %q: %v", text, all.String(), err)
		}
	}
	return all.String()
}

func limitedGate(t *testing.T) (g *gateway.Gateway, ask func(path, client string)) {
	t.Helper()
	l, err := config.Zero(config.ZeroConfig{Upstream: "http://127.0.0.1:1", Origins: []string{"https://app.example"}, Browserless: "allow", RateLimit: "60/h burst 1"}, config.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if g, err = gateway.New(l.Gateway, nil); err != nil {
		t.Fatal(err)
	}
	return g, func(path, client string) {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "http://localhost:8080"+path, http.NoBody)
		r.RemoteAddr = client + ":4711"
		g.ServeHTTP(httptest.NewRecorder(), r)
	}
}

func TestWatchDrawsInPlaceAndLeavesTheTerminalAsItWas(t *testing.T) {
	g, ask := limitedGate(t)
	admin := httptest.NewServer(g.Admin(false))
	defer admin.Close()
	for i := range 100 {
		for range 3 {
			ask("/", fmt.Sprintf("192.0.2.%d", i))
		}
	}
	keys, cmd := watch(t, admin.Listener.Addr().String())
	first := drawn(t, keys, "full")
	frame, ok := strings.CutPrefix(first, "\x1b[?1049h\x1b[?25l\x1b[H")
	if !ok {
		t.Errorf("it begins with %q", first[:min(40, len(first))])
	}
	lines := strings.Split(frame, "\r\n")
	if len(lines) > 24 {
		t.Errorf("%d lines on a terminal of 24", len(lines))
	}
	for _, l := range lines {
		for _, code := range []string{bold, dim, red, "\x1b[0m", "\x1b[K", "\x1b[J"} {
			l = strings.ReplaceAll(l, code, "")
		}
		if len([]rune(l)) > 80 || strings.Contains(l, "\x1b") {
			t.Errorf("%q on a terminal of 80 columns", l)
		}
	}
	for _, want := range []string{"and 12 more", "192.0.2.", "Top talkers of 300 requests", "client: 960/h burst 16", bold} {
		if !strings.Contains(frame, want) {
			t.Errorf("no %q in:\n%s", want, strings.ReplaceAll(frame, "\x1b", "␛"))
		}
	}

	// It looks again, and says so when there is nobody to ask.
	ask("/", "203.0.113.7")
	drawn(t, keys, "Top talkers of 301 requests")
	admin.Close()
	drawn(t, keys, "asking again: no answer from the admin listener")

	if _, err := keys.WriteString("\x03"); err != nil {
		t.Fatal(err)
	}
	last := drawn(t, keys, "\x1b[?25h\x1b[?1049l")
	if err := cmd.Wait(); err != nil {
		t.Errorf("after ctrl-C: %v", err)
	}
	if !strings.HasSuffix(last, "\x1b[?25h\x1b[?1049l") {
		t.Errorf("it ends with %q", last[max(0, len(last)-40):])
	}
}

func TestWatchHasNoColoursIfTheyAreNotWanted(t *testing.T) {
	g, ask := limitedGate(t)
	admin := httptest.NewServer(g.Admin(false))
	defer admin.Close()
	ask("/", "192.0.2.7")
	keys, cmd := watch(t, admin.Listener.Addr().String(), "NO_COLOR=1")
	if frame := drawn(t, keys, "full"); strings.Contains(frame, "\x1b[1m") || strings.Contains(frame, "\x1b[2m") {
		t.Errorf("%q", frame)
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	drawn(t, keys, "\x1b[?25h\x1b[?1049l")
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

func TestWatchOfNoGateLeavesTheTerminalAlone(t *testing.T) {
	keys, cmd := watch(t, "127.0.0.1:1")
	if out := drawn(t, keys, "hint: is moat running"); strings.Contains(out, "\x1b") {
		t.Errorf("%q", out)
	}
	if err := cmd.Wait(); err == nil {
		t.Error("it worked")
	}
}
