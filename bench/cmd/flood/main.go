// Command flood shows what becomes of legitimate clients while somebody floods the gate:
// how many of their requests are answered and how fast, before, during and after, without
// a rate limit and with one. The gate is moat run, the flood is wrk, the backend can do 200
// requests a second, and all of it is on this machine's loopback.
//
// The result goes to standard output as Markdown, what is being done to standard error.
package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := run(ctx, os.Args[1:])
	if err == nil || errors.Is(err, flag.ErrHelp) {
		return
	}
	fmt.Fprintln(os.Stderr, "flood: error:", err)
	stop()
	os.Exit(1)
}

const (
	// capacity is how many requests the backend does at a time, and each takes work.
	capacity = 1
	work     = 5 * time.Millisecond
	// legitimate clients each ask every pause.
	clients = 10
	pause   = 500 * time.Millisecond
	// patience is how long a legitimate client waits.
	patience = 2 * time.Second
)

// scenario is one flood against one configuration.
type scenario struct {
	name, limits string
	many         bool // the flood comes from random IPv6 networks, by a trusted proxy's word
}

const (
	perClient = "  client: 300/m burst 20\n"
	newcomers = "  newcomers: {limit: 20/s burst 50, by: new_address}\n"
)

var scenarios = []scenario{
	{"one address, no limit", "", false},
	{"one address, `client: 300/m burst 20`", perClient, false},
	{"a new IPv6 /64 for each request, no limit", "", true},
	{"a new /64 for each request, `client: 300/m burst 20`", perClient, true},
	{"the same, and `newcomers: {limit: 20/s burst 50, by: new_address}`", perClient + newcomers, true},
}

func run(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("flood", flag.ContinueOnError)
	seconds := flags.Int("seconds", 10, "length of the flood; half as long is measured before and after it")
	conns := flags.Int("conns", 32, "connections of the flood")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *seconds < 2 || *seconds > 60 || *conns < 1 || *conns > 256 {
		return errors.New("-seconds must be from 2 to 60, and -conns from 1 to 256")
	}
	wrk, err := exec.LookPath("wrk")
	if err != nil {
		return fmt.Errorf("%w: install wrk, which is the flood", err)
	}
	dir, err := os.MkdirTemp("", "flood")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // a temporary directory.
	moat := filepath.Join(dir, "moat")
	fmt.Fprintln(os.Stderr, "flood: building moat")
	root, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", "github.com/moat-gateway/moat").Output()
	if err != nil {
		return fmt.Errorf("moat's source: %w: run this command in the module bench", err)
	}
	build := exec.CommandContext(ctx, "go", "build", "-o", moat, "./cmd/moat") //nolint:gosec // our own temporary directory.
	build.Dir = strings.TrimSpace(string(root))
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("building moat: %w\n%s", err, out)
	}
	fmt.Println("| flood | | legitimate: answered | p50 | p99 | flood: asked | passed to the backend |")
	fmt.Println("| --- | --- | --- | --- | --- | --- | --- |")
	for _, s := range scenarios {
		fmt.Fprintln(os.Stderr, "flood:", s.name)
		f := flood{scenario: s, dir: dir, moat: moat, wrk: wrk, conns: *conns, length: time.Duration(*seconds) * time.Second}
		if err := f.run(ctx); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	return nil
}

// flood is one scenario on its way.
type flood struct {
	scenario

	dir, moat, wrk string
	conns          int
	length         time.Duration
	gate           string // its address
	fromFlood      atomic.Int64
}

func (f *flood) run(ctx context.Context) error {
	slots := make(chan struct{}, capacity)
	backend := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Legitimate") == "" {
			f.fromFlood.Add(1)
		}
		select {
		case slots <- struct{}{}:
			time.Sleep(work)
			<-slots
		case <-r.Context().Done():
			return
		}
		io.WriteString(w, "done\n") //nolint:errcheck // the client notices.
	})}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	go backend.Serve(l)   //nolint:errcheck // it is closed below.
	defer backend.Close() //nolint:errcheck // the run is over.
	stop, err := f.start(ctx, l.Addr().String())
	if err != nil {
		return err
	}
	defer stop()
	before := f.measure(ctx, f.length/2)
	asked, during, err := f.strike(ctx)
	if err != nil {
		return err
	}
	passed := f.fromFlood.Load()
	after := f.measure(ctx, f.length/2)
	name := f.name
	for _, row := range []struct {
		phase string
		p     *phase
	}{{"before", before}, {"during", during}, {"after", after}} {
		fmt.Printf("| %s | %s | %s ", name, row.phase, row.p)
		name = ""
		if row.p == during {
			fmt.Printf("| %.0f/s | %.0f/s |\n", float64(asked)/f.length.Seconds(), float64(passed)/f.length.Seconds())
		} else {
			fmt.Println("| | |")
		}
	}
	return ctx.Err()
}

// start runs the gate.
func (f *flood) start(ctx context.Context, backend string) (stop func(), err error) {
	trust := "trusted_proxies: {from: [127.0.0.0/8], header: X-Forwarded-For}\n"
	use, block := "", ""
	if f.limits != "" {
		block = "rate_limits:\n" + f.limits
		use = ", rate_limits: [client]"
		if strings.Contains(f.limits, "newcomers") {
			use = ", rate_limits: [client, newcomers]"
		}
	}
	config := filepath.Join(f.dir, "moat.yaml")
	text := "version: 1\nlisten: 127.0.0.1:0\nadmin: off\npublic_origins: [http://127.0.0.1]\n" + trust +
		"upstreams: {app: {url: http://" + backend + "}}\n" + block +
		"routes:\n  - {match: 127.0.0.1/, upstream: app, auth: public, browserless: allow" + use + "}\n"
	if err = os.WriteFile(config, []byte(text), 0o600); err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, f.moat, "run", "--config", config) //nolint:gosec // built above.
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	pipe, err := cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err = cmd.Start(); err != nil {
		return nil, err
	}
	stop = func() {
		cmd.Process.Signal(os.Interrupt) //nolint:errcheck // it may have ended.
		cmd.Wait()                       //nolint:errcheck // it was told to end.
	}
	address := regexp.MustCompile(`listen=\[?"?\[?(127\.0\.0\.1:[0-9]+)`)
	found := make(chan string, 1)
	go func() {
		var head bytes.Buffer
		buf := make([]byte, 4096)
		for {
			n, err := pipe.Read(buf)
			if m := address.FindSubmatch(head.Bytes()); head.Len() < 1<<16 {
				head.Write(buf[:n])
				if m == nil {
					if m = address.FindSubmatch(head.Bytes()); m != nil {
						found <- string(m[1])
					}
				}
			}
			if err != nil {
				close(found)
				return
			}
		}
	}()
	select {
	case f.gate = <-found:
	case <-time.After(10 * time.Second):
	}
	if f.gate == "" {
		stop()
		return nil, errors.New("the gate does not start")
	}
	return stop, nil
}

// script makes wrk invent a network for each request.
const script = `request = function()
  local a = string.format("2001:%x:%x:%x::1", math.random(0, 65535), math.random(0, 65535), math.random(0, 65535))
  return wrk.format("GET", "/", {["Host"] = "127.0.0.1", ["X-Forwarded-For"] = a})
end
`

// strike floods, and measures meanwhile.
func (f *flood) strike(ctx context.Context) (asked int, during *phase, err error) {
	args := []string{"-t1", "-c" + strconv.Itoa(f.conns), fmt.Sprintf("-d%ds", int(f.length.Seconds())), "--timeout", "10s", "-H", "Host: 127.0.0.1"}
	if f.many {
		file := filepath.Join(f.dir, "many.lua")
		seed := fmt.Sprintf("math.randomseed(%d)\n", rand.Uint32()) //nolint:gosec // addresses of a flood.
		if err = os.WriteFile(file, []byte(seed+script), 0o600); err != nil {
			return 0, nil, err
		}
		args = append(args, "-s", file)
	}
	cmd := exec.CommandContext(ctx, f.wrk, append(args, "http://"+f.gate+"/")...) //nolint:gosec // wrk, found in PATH.
	out := new(bytes.Buffer)
	cmd.Stdout, cmd.Stderr = out, out
	if err = cmd.Start(); err != nil {
		return 0, nil, err
	}
	during = f.measure(ctx, f.length)
	if err = cmd.Wait(); err != nil {
		return 0, nil, fmt.Errorf("wrk: %w\n%s", err, out)
	}
	m := regexp.MustCompile(`([0-9]+) requests in`).FindSubmatch(out.Bytes())
	if m == nil {
		return 0, nil, fmt.Errorf("wrk said:\n%s", out)
	}
	asked, err = strconv.Atoi(string(m[1]))
	return asked, during, err
}

// phase is what legitimate clients met.
type phase struct {
	mu        sync.Mutex
	asked     int
	latencies []time.Duration // of those that were answered
}

func (p *phase) String() string {
	at := func(q float64) string {
		if len(p.latencies) == 0 {
			return "—"
		}
		return fmt.Sprintf("%.0f ms", float64(p.latencies[min(int(q*float64(len(p.latencies))), len(p.latencies)-1)])/1e6)
	}
	slices.SortFunc(p.latencies, func(a, b time.Duration) int { return cmp.Compare(a, b) })
	return fmt.Sprintf("%d of %d | %s | %s", len(p.latencies), p.asked, at(0.5), at(0.99))
}

// measure has the legitimate clients ask for that long, each from an address of its own.
func (f *flood) measure(ctx context.Context, length time.Duration) *phase {
	p := new(phase)
	ctx, cancel := context.WithTimeout(ctx, length)
	defer cancel()
	var wg sync.WaitGroup
	for i := range clients {
		wg.Go(func() {
			tr := &http.Transport{}
			defer tr.CloseIdleConnections()
			c := &http.Client{Transport: tr, Timeout: patience}
			time.Sleep(pause * time.Duration(i) / clients)
			tick := time.NewTicker(pause)
			defer tick.Stop()
			for {
				p.ask(c, f.gate, fmt.Sprintf("198.51.%d.7", i))
				select {
				case <-ctx.Done():
					return
				case <-tick.C:
				}
			}
		})
	}
	wg.Wait()
	return p
}

func (p *phase) ask(c *http.Client, gate, address string) {
	r, err := http.NewRequestWithContext(context.Background(), http.MethodGet, "http://"+gate+"/", http.NoBody)
	if err != nil {
		panic(err) // an address that was listened on
	}
	r.Host = "127.0.0.1"
	r.Header.Set("X-Forwarded-For", address)
	r.Header.Set("X-Legitimate", "1")
	start := time.Now()
	res, err := c.Do(r)
	ok := err == nil && res.StatusCode == http.StatusOK
	if err == nil {
		_, err = io.Copy(io.Discard, res.Body)
		res.Body.Close() //nolint:errcheck // it was only read.
		ok = ok && err == nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asked++
	if ok {
		p.latencies = append(p.latencies, time.Since(start))
	}
}
