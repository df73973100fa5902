package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// express is express/server.js as a process: a backend whose CORS is right, and which
// nothing else protects.
type express struct {
	*process
	// addr is its host:port for other processes, origin what a browser calls it.
	addr, origin string
	control      string
}

// startExpress starts a backend whose CORS lists the origins.
func startExpress(t *testing.T, origins ...string) *express {
	t.Helper()
	return startNode(t, append([]string{"express/server.js"}, origins...))
}

// startNode starts a server that tells its ports when it is ready.
func startNode(t *testing.T, args []string, env ...string) *express {
	t.Helper()
	cmd := exec.Command(program(t, "node"), args...)
	// Express logs each refused body, with a stack, unless it is told that this is a test.
	cmd.Env = append(append(cmd.Environ(), "NODE_ENV=test"), env...)
	p := startProcess(t, cmd, func(p *process) { p.stdin.Close() }, func(p *process) {
		if p.err != nil {
			t.Errorf("%s, told to stop: %v", args[0], p.err)
		}
	})
	var ports struct{ Port, Control int }
	eventually(t, args[0]+" prints its ports", func() (string, bool) {
		if p.ended() {
			t.Fatalf("%s: %v\n%s\nare its packages there? make setup installs them", args[0], p.err, &p.stderr)
		}
		lines := p.stdout.lines()
		return p.stdout.String(), len(lines) == 1 && json.Unmarshal([]byte(lines[0]), &ports) == nil
	})
	return &express{
		process: p, addr: "127.0.0.1:" + strconv.Itoa(ports.Port), origin: "http://localhost:" + strconv.Itoa(ports.Port),
		control: "http://127.0.0.1:" + strconv.Itoa(ports.Control),
	}
}

// ledger is what a backend did since its last reset.
type ledger struct {
	// Balance is what is left of 1000.
	Balance int `json:"balance"`
	Deleted int `json:"deleted"`
	// Runs counts how often each handler ran.
	Runs map[string]int `json:"runs"`
	// Requests are all that arrived, preflights too.
	Requests []arrival `json:"requests"`
}

// arrival is a request as it reached the backend.
type arrival struct {
	Method  string         `json:"method"`
	Path    string         `json:"path"`
	Origin  string         `json:"origin"`
	Cookies []string       `json:"cookies"`
	Headers map[string]any `json:"headers"`
}

func (l ledger) runs() int {
	n := 0
	for _, times := range l.Runs {
		n += times
	}
	return n
}

// arrived lists the methods of the requests, in their order.
func (l ledger) arrived() string {
	var methods []string
	for _, r := range l.Requests {
		methods = append(methods, r.Method)
	}
	return strings.Join(methods, " ")
}

// cookies lists the names of all cookies that arrived.
func (l ledger) cookies() string {
	var names []string
	for _, r := range l.Requests {
		names = append(names, r.Cookies...)
	}
	slices.Sort(names)
	return strings.Join(slices.Compact(names), " ")
}

// ledger reads what the backend did.
func (e *express) ledger() ledger {
	e.t.Helper()
	var l ledger
	getJSON(e.t, e.control+"/__counts", &l)
	return l
}

func (e *express) reset()   { e.tell("reset") }
func (e *express) release() { e.tell("release") }

func (e *express) tell(what string) {
	e.t.Helper()
	res, err := client.Post(e.control+"/__"+what, "", nil)
	if err != nil {
		e.t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != http.StatusOK {
		e.t.Fatalf("%s: %s", what, res.Status)
	}
}

// client speaks to control ports only; what is under test is asked by real clients.
var client = &http.Client{Timeout: patience, Transport: &http.Transport{IdleConnTimeout: time.Second}}

func getJSON(t *testing.T, url string, v any) {
	t.Helper()
	if err := tryJSON(url, v); err != nil {
		t.Fatal(err)
	}
}

func tryJSON(url string, v any) error {
	res, err := client.Get(url)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", url, res.Status)
	}
	return json.NewDecoder(res.Body).Decode(v)
}
