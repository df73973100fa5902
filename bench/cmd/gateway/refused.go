package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"
)

// target is how many times as much a served request should cost as a refused one: if it
// is not much cheaper to refuse, a flood of refused requests is as good as any flood.
const target = 3

// starts is how often the time to the first answer is measured.
const starts = 10

// load is how many requests are sent, and how.
type load struct{ rounds, requests, conns int }

// kind is a kind of request. All go over the same connections, and have the headers
// that browsers send.
type kind struct {
	name   string
	method string
	path   string
	host   string // "" for the right one
	header string // whole lines
	status int    // that moat must answer
}

const (
	listed   = "Origin: https://app.example.com\r\nSec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: cors\r\nSec-Fetch-Dest: empty\r\n"
	stranger = "Origin: https://stranger.example\r\nSec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: cors\r\nSec-Fetch-Dest: empty\r\n"
	items    = "/v1/items?page=2&sort=name"
)

// kinds are the kinds of requests; the first is served.
var kinds = []kind{
	{name: "served", method: "GET", path: items, header: listed, status: http.StatusOK},
	{name: "stranger's Origin", method: "GET", path: items, header: stranger, status: http.StatusForbidden},
	{name: "unknown route", method: "GET", path: "/no/such/route", header: listed, status: http.StatusNotFound},
	{name: "unknown host", method: "GET", path: items, host: "rebound.example", header: listed, status: http.StatusMisdirectedRequest},
	{
		name: "preflight denied", method: "OPTIONS", path: items, status: http.StatusForbidden,
		header: stranger + "Access-Control-Request-Method: PUT\r\nAccess-Control-Request-Headers: authorization,content-type\r\n",
	},
}

func (k kind) bytes(addr string) []byte {
	host := cmp.Or(k.host, addr)
	return []byte(k.method + " " + k.path + " HTTP/1.1\r\nHost: " + host + "\r\n" +
		"User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/150.0.0.0 Safari/537.36\r\n" +
		"Accept: application/json, text/plain, */*\r\nAccept-Language: en-GB,en;q=0.9\r\nAccept-Encoding: gzip, deflate, br\r\n" +
		"Cookie: theme=dark; sid=3f9c2b7a51e84d0f\r\n" + k.header + "\r\n")
}

// config is what moat runs with: one route, so that there is something besides it.
const config = `version: 1
listen: %[1]s
admin: off
public_origins: ["http://%[1]s"]
upstreams:
  backend: {url: "http://%[2]s"}
routes:
  - match: /v1/
    name: items
    upstream: backend
    auth: public
    origins: ["https://app.example.com"]
    browserless: allow
    cors: {credentials: true}
`

// compareRefusals measures what moat's own process spends on a request of each kind.
func compareRefusals(ctx context.Context, w io.Writer, moat, dir string, l load) error {
	if runtime.GOOS != "linux" {
		return hinted{fmt.Errorf("-refused cannot measure on %s: it reads the processor time of a process's threads from /proc", runtime.GOOS), "run it on Linux"}
	}
	backend, err := startBackend(ctx)
	if err != nil {
		return fmt.Errorf("backend: %w", err)
	}
	defer backend.stop()

	fmt.Fprintln(os.Stderr, "starting moat", starts, "times")
	var first []float64
	for range starts {
		gate, took, sErr := startMoat(ctx, moat, dir, backend.addr)
		if sErr != nil {
			return sErr
		}
		gate.stop()
		first = append(first, float64(took.Microseconds())/1000)
	}

	gate, _, err := startMoat(ctx, moat, dir, backend.addr)
	if err != nil {
		return err
	}
	defer gate.stop()
	d, err := dial(ctx, gate.addr, l.conns)
	if err != nil {
		return err
	}
	defer d.close()
	cost := make([][]spent, len(kinds)) // by kind and round
	for r := -1; r < l.rounds; r++ {    // round -1 warms up
		fmt.Fprintf(os.Stderr, "\rround %d of %d ", r+1, l.rounds)
		for i := range kinds {
			k := (i + max(r, 0)) % len(kinds)
			s, mErr := measure(ctx, gate, backend, d, kinds[k], l.requests)
			if mErr != nil {
				return fmt.Errorf("%s: %w", kinds[k].name, mErr)
			}
			if r >= 0 {
				cost[k] = append(cost[k], s)
			}
		}
	}
	fmt.Fprintln(os.Stderr)
	peak, err := gate.peakRSS()
	if err != nil {
		return err
	}

	_, err = io.WriteString(w, table(cost, l)+fmt.Sprintf("Connections that moat closed: %d. Start to first answer: median %.1f ms of %d (%.1f-%.1f). Peak RSS: %.1f MiB.\n",
		d.redials, median(first), starts, slices.Min(first), slices.Max(first), float64(peak)/1024))
	return err
}

// spent is processor time in µs for one request.
type spent struct{ gate, backend float64 }

func (s spent) all() float64 { return s.gate + s.backend }

// measure returns what the gate and the backend spend on one request of n.
func measure(ctx context.Context, gate, backend *process, d *driver, k kind, n int) (spent, error) {
	var before, after [2]time.Duration
	for i, p := range []*process{gate, backend} {
		var err error
		if before[i], err = p.cpu(); err != nil {
			return spent{}, err
		}
	}
	if err := d.drive(ctx, k, n); err != nil {
		return spent{}, err
	}
	for i, p := range []*process{gate, backend} {
		var err error
		if after[i], err = p.cpu(); err != nil {
			return spent{}, err
		}
	}
	each := func(i int) float64 { return float64((after[i] - before[i]).Nanoseconds()) / 1000 / float64(n) }
	return spent{each(0), each(1)}, nil
}

// table is the result; cost is by kind and round.
func table(cost [][]spent, l load) string {
	var b strings.Builder
	fmt.Fprintf(&b, "Processor time for a request: %d interleaved rounds of %d requests of each kind over %d connections. The backend is Go's own server, and does nothing. Ratios are medians of those within each round.\n\n", l.rounds, l.requests, l.conns)
	b.WriteString("| request | status | moat, median µs | least-most | backend, µs | served/refused, moat alone | with the backend |\n|-|-|-|-|-|-|-|\n")
	missed := 0
	for i, k := range kinds {
		alone := column(cost[i], func(s spent) float64 { return s.gate })
		ratio := func(what func(spent) float64) float64 {
			ratios := make([]float64, l.rounds)
			for r := range ratios {
				ratios[r] = what(cost[0][r]) / what(cost[i][r])
			}
			return median(ratios)
		}
		gate, all := ratio(func(s spent) float64 { return s.gate }), ratio(spent.all)
		if i > 0 && gate < target {
			missed++
		}
		fmt.Fprintf(&b, "| %s | %d | %.1f | %.1f-%.1f | %.1f | %.2f | %.2f |\n", k.name, k.status, median(alone), slices.Min(alone), slices.Max(alone),
			median(column(cost[i], func(s spent) float64 { return s.backend })), gate, all)
	}
	verdict := "met"
	if missed > 0 {
		verdict = fmt.Sprintf("missed by %d of %d kinds", missed, len(kinds)-1)
	}
	fmt.Fprintf(&b, "\nTarget: a served request costs moat alone at least %d times a refused one: %s.\n", target, verdict)
	return b.String()
}

func column(cost []spent, what func(spent) float64) []float64 {
	v := make([]float64, len(cost))
	for i, s := range cost {
		v[i] = what(s)
	}
	return v
}

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	if n := len(v); n%2 == 0 {
		return (v[n/2-1] + v[n/2]) / 2
	}
	return v[len(v)/2]
}

// startMoat starts moat before the backend, and returns when it has answered, with the
// time from its start until then.
func startMoat(ctx context.Context, moat, dir, backend string) (*process, time.Duration, error) {
	addr, err := freeAddress(ctx)
	if err != nil {
		return nil, 0, err
	}
	file := filepath.Join(dir, "moat.yaml")
	if wErr := os.WriteFile(file, fmt.Appendf(nil, config, addr, backend), 0o600); wErr != nil {
		return nil, 0, wErr
	}
	log, err := os.Create(filepath.Join(dir, "moat.log")) //nolint:gosec // our own temporary directory.
	if err != nil {
		return nil, 0, err
	}
	defer log.Close() //nolint:errcheck // the process has its own.
	began := time.Now()
	p, err := start(ctx, log, moat, "run", "--config", file)
	if err != nil {
		return nil, 0, err
	}
	p.addr = addr
	request := kinds[0].bytes(addr)
	for {
		status, aErr := ask(ctx, addr, request)
		took := time.Since(began)
		switch {
		case aErr == nil && status == kinds[0].status:
			return p, took, nil
		case aErr == nil:
			p.stop()
			return nil, 0, fmt.Errorf("moat answers %d, want %d", status, kinds[0].status)
		case p.ended() || took > 10*time.Second || ctx.Err() != nil:
			p.stop()
			said, rErr := os.ReadFile(log.Name())
			return nil, 0, errors.Join(fmt.Errorf("moat does not answer: %w\n%s", aErr, strings.TrimSpace(string(said))), rErr, ctx.Err())
		}
		time.Sleep(200 * time.Microsecond)
	}
}

// ask sends one request over a new connection.
func ask(ctx context.Context, addr string, request []byte) (status int, err error) {
	c, err := dialOne(ctx, addr)
	if err != nil {
		return 0, err
	}
	defer c.Close() //nolint:errcheck // its request has been answered.
	return c.exchange(request)
}

func freeAddress(ctx context.Context) (string, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// driver sends requests over connections that it keeps alive.
type driver struct {
	addr    string
	conns   []*conn
	redials int
}

type conn struct {
	net.Conn
	r *bufio.Reader
}

func dialOne(ctx context.Context, addr string) (*conn, error) {
	d := net.Dialer{Timeout: time.Second}
	c, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	return &conn{c, bufio.NewReaderSize(c, 16<<10)}, nil
}

func dial(ctx context.Context, addr string, n int) (*driver, error) {
	d := &driver{addr: addr}
	for range n {
		c, err := dialOne(ctx, addr)
		if err != nil {
			d.close()
			return nil, err
		}
		d.conns = append(d.conns, c)
	}
	return d, nil
}

func (d *driver) close() {
	for _, c := range d.conns {
		c.Close() //nolint:errcheck // all its requests have been answered, or an error says why not.
	}
}

var errClosing = errors.New("the connection is about to be closed")

// exchange sends a request and reads the whole answer. errClosing comes with a status.
func (c *conn) exchange(request []byte) (status int, err error) {
	if err = c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return 0, err
	}
	if _, err = c.Write(request); err != nil {
		return 0, err
	}
	res, err := http.ReadResponse(c.r, nil)
	if err != nil {
		return 0, err
	}
	_, err = io.Copy(io.Discard, res.Body)
	if err = errors.Join(err, res.Body.Close()); err != nil {
		return 0, err
	}
	if res.Close {
		return res.StatusCode, errClosing
	}
	return res.StatusCode, nil
}

// drive sends n requests, shared out among the connections.
func (d *driver) drive(ctx context.Context, k kind, n int) error {
	var (
		wg      sync.WaitGroup
		errs    = make([]error, len(d.conns))
		redials = make([]int, len(d.conns))
		request = k.bytes(d.addr)
	)
	for i := range d.conns {
		share := n / len(d.conns)
		if i < n%len(d.conns) {
			share++
		}
		wg.Go(func() {
			for range share {
				if ctx.Err() != nil {
					errs[i] = ctx.Err()
					return
				}
				status, err := d.conns[i].exchange(request)
				if errors.Is(err, errClosing) {
					d.conns[i].Close() //nolint:errcheck // the other side closes it too.
					redials[i]++
					d.conns[i], err = dialOne(ctx, d.addr)
				}
				if err == nil && status != k.status {
					err = fmt.Errorf("answered %d, want %d", status, k.status)
				}
				if err != nil {
					errs[i] = err
					return
				}
			}
		})
	}
	wg.Wait()
	for _, r := range redials {
		d.redials += r
	}
	return errors.Join(errs...)
}
