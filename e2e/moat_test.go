package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

var command once[string]

// moatCommand is the path of the moat command, built from this tree.
func moatCommand(t *testing.T) string {
	t.Helper()
	return command.get(t, func(t *testing.T) string {
		t.Helper()
		path := scratchFile("moat")
		args := []string{"build", "-o", path}
		if raceDetector {
			args = append(args, "-race")
		}
		cmd := exec.CommandContext(t.Context(), "go", append(args, "../cmd/moat")...)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", cmd, err, out)
		}
		return path
	})
}

// moat is `moat run --config moat.yaml` as a process.
type moat struct {
	*process
	// addr is its host:port for other processes, origin what a browser calls it.
	addr, origin string
	plain, admin string
	file         string
}

// moatFile is what a user would write who has such a backend, with a few routes more so
// that each refusal can be seen. Its words in braces are filled in by the tests.
const moatFile = `version: 1
listen: {listen}
admin: {admin}
public_origins: ["{origin}"]
shutdown:
  grace: 10s

upstreams:
  express:
    url: "http://{express}"
  nobody:
    url: "http://{nobody}"

policies:
  pages:
    origins: ["{friendly}"]
    cors:
      credentials: true

routes:
  - {match: "/{$}", upstream: express, auth: public, policy: pages}
  - {match: /login, upstream: express, auth: public, policy: pages}
  - {match: /transfer, upstream: express, auth: public, policy: pages}
  - {match: /api/, upstream: express, auth: public, policy: pages}
  - {match: /events, upstream: express, auth: public, policy: pages}
  - {match: /slow, upstream: express, auth: public, policy: pages}
  - {match: /ws, upstream: express, auth: public, policy: pages}
  - {match: /down, upstream: nobody, auth: public, policy: pages}
  # Anybody may read this.
  - {match: /api/public, upstream: express, auth: public, origins: ["*"]}
  # A GET that changes state is declared.
  - {match: /delete, upstream: express, auth: public, policy: pages, side_effects: true}
  # Webhooks come from programs.
  - {match: POST /hook, upstream: express, auth: public, browserless: allow}
  - match: POST /api/note
    upstream: express
    auth: public
    policy: pages
    limits:
      body_bytes: 1KiB
`

// moatYAML fills the file in for a backend and a page that may call it. What only
// startMoat knows is left.
func moatYAML(backend *express, friendly string) string {
	return strings.NewReplacer("{express}", backend.addr, "{friendly}", friendly).Replace(moatFile)
}

// startMoat starts the gate with a moat.yaml.
func startMoat(t *testing.T, yaml string) *moat {
	t.Helper()
	return startMoatAt(t, "http://localhost", func(*moat) string { return yaml })
}

// startMoatAt starts the gate under a host name, with a moat.yaml that can depend on its origin
// and on the address of a second listener, plain.
func startMoatAt(t *testing.T, host string, yaml func(*moat) string) *moat {
	t.Helper()
	m := &moat{file: filepath.Join(t.TempDir(), "moat.yaml")}
	// The origin is in the file, so the port must be known before moat listens on it,
	// and somebody else may take it meanwhile.
	for range 5 {
		m.addr, m.admin = freeAddress(t), freeAddress(t)
		_, port, _ := net.SplitHostPort(m.addr)
		m.origin, m.plain = host+":"+port, freeAddress(t)
		fill := strings.NewReplacer("{listen}", m.addr, "{plain}", m.plain, "{admin}", m.admin, "{origin}", m.origin, "{port}", port, "{nobody}", freeAddress(t))
		m.write(t, fill.Replace(yaml(m)))
		if m.process = m.try(t); m.process != nil {
			return m
		}
	}
	t.Fatal("moat finds every port taken")
	return nil
}

// try returns nil if a port was taken.
func (m *moat) try(t *testing.T) *process {
	t.Helper()
	cmd := exec.Command(moatCommand(t), "run", "--config", m.file, "--log-format", "json")
	serving := false
	p := startProcess(t, cmd, func(p *process) {
		if !p.ended() {
			p.signal(syscall.SIGTERM)
		}
	}, func(p *process) {
		if !serving {
			return
		}
		if p.err != nil && !p.killed {
			t.Errorf("moat, told to stop: %v", p.err)
		}
		for _, line := range p.stderr.lines() {
			if strings.Contains(line, "panic") || strings.Contains(line, "DATA RACE") {
				t.Errorf("moat wrote: %s", line)
			}
		}
	})
	eventually(t, "moat serves", func() (string, bool) {
		serving = strings.Contains(p.stderr.String(), `"msg":"serving"`)
		return p.stderr.String(), serving || p.ended()
	})
	switch {
	case serving:
		return p
	case strings.Contains(p.stderr.String(), "address already in use"):
		return nil
	}
	t.Fatalf("moat: %v\n%s", p.err, &p.stderr)
	return nil
}

// write replaces moat.yaml as an editor does: whole, under its name.
func (m *moat) write(t *testing.T, yaml string) {
	t.Helper()
	next := m.file + ".new"
	if err := os.WriteFile(next, []byte(yaml), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(next, m.file); err != nil {
		t.Fatal(err)
	}
}

func (m *moat) read(t *testing.T) string {
	t.Helper()
	yaml, err := os.ReadFile(m.file)
	if err != nil {
		t.Fatal(err)
	}
	return string(yaml)
}

// freeAddress is a loopback address that nobody listens on.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// decision is what the admin listener tells of a refusal.
type decision struct {
	ID     string    `json:"id"`
	Time   time.Time `json:"time"`
	Route  string    `json:"route"`
	Step   string    `json:"step"`
	Code   string    `json:"code"`
	Mode   string    `json:"mode"`
	Status int       `json:"status"`
	Client string    `json:"client"`
	Method string    `json:"method"`
	Path   string    `json:"path"`
	Where  string    `json:"where"`
	Got    string    `json:"got"`
}

// decisions returns what the gate refused after the decision of that id, oldest first.
// What a browser asks for on its own account, the icon of a document, is left out.
func (m *moat) decisions(after string) []decision {
	m.t.Helper()
	var newest []decision
	getJSON(m.t, "http://"+m.admin+"/decisions?n=200", &newest)
	var all []decision
	for _, d := range newest {
		if d.ID == after {
			break
		}
		if d.Path != "/favicon.ico" {
			all = append([]decision{d}, all...)
		}
	}
	return all
}

// lastDecision is the id of the latest one, for decisions.
func (m *moat) lastDecision() string {
	m.t.Helper()
	if all := m.decisions(""); len(all) > 0 {
		return all[len(all)-1].ID
	}
	return ""
}

func codes(all []decision) string {
	var list []string
	for _, d := range all {
		list = append(list, d.Code)
	}
	return strings.Join(list, " ")
}

// metrics is all that the gate has to say in numbers.
func (m *moat) metrics() string {
	m.t.Helper()
	res, err := client.Get("http://" + m.admin + "/metrics")
	if err != nil {
		m.t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		m.t.Fatal(err)
	}
	return string(text)
}

// metric is the value of a series, spelled as the exposition format has it, or "".
func (m *moat) metric(series string) string {
	m.t.Helper()
	for line := range strings.Lines(m.metrics()) {
		if value, ok := strings.CutPrefix(line, series+" "); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// logLine is a line of moat's log.
type logLine map[string]any

func (l logLine) text(key string) string {
	if l[key] == nil {
		return ""
	}
	return fmt.Sprint(l[key])
}

// log returns the lines of the log that have that message.
func (m *moat) log(msg string) []logLine {
	m.t.Helper()
	var all []logLine
	for _, line := range m.stderr.lines() {
		var l logLine
		if err := json.Unmarshal([]byte(line), &l); err != nil {
			m.t.Errorf("moat --log-format json wrote %q: %v", line, err)
		}
		if l.text("msg") == msg {
			all = append(all, l)
		}
	}
	return all
}

// why runs `moat why` with the arguments, and returns what it prints.
func (m *moat) why(args ...string) string {
	m.t.Helper()
	cmd := exec.CommandContext(m.t.Context(), moatCommand(m.t), append([]string{"why", "--admin", m.admin}, args...)...)
	out, err := cmd.Output()
	if err != nil {
		m.t.Fatalf("%s: %v\n%s", cmd, err, out)
	}
	return string(out)
}
