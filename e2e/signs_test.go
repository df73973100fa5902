package e2e

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/moat-gateway/moat/guard"
)

// signsPage says which signs the client sent with its request for a ticket, and how its call was answered.
const signsPage = `<!doctype html><meta charset="utf-8"><title>A page</title><link rel="icon" href="data:,">
<script>
let asked;
const native = fetch;
fetch = (input, init) => {
  if (String(input).endsWith("/tickets")) asked = "signs " + JSON.parse(init.body).signs;
  return native(input, init);
};
</script>
<script src="/.moat/client.js"></script>
<script>
moat.fetch("/api/x").then((answer) => answer.status, String).then((said) => native("/said", { method: "POST", body: document.title = asked + ", " + said }));
</script>`

// signsSite is a site whose page says which signs its client has sent.
func signsSite(t *testing.T) (gate *moat, said chan string) {
	t.Helper()
	said = make(chan string, 1)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		io.WriteString(w, signsPage)
	})
	mux.HandleFunc("GET /api/x", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("POST /said", func(_ http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		said <- string(body)
	})
	backend := httptest.NewServer(mux)
	t.Cleanup(backend.Close)
	return startMoat(t, strings.NewReplacer("{backend}", backend.URL).Replace(`version: 1
listen: {listen}
admin: {admin}
public_origins: ["{origin}"]
tickets: {}
bots: {challenge: 1, slow: off, deny: off}
upstreams: {site: {url: "{backend}"}}
routes:
  - {match: /, upstream: site, auth: public}
  - {match: /api/, upstream: site, auth: public, tickets: require}
`)), said
}

func wantSaid(t *testing.T, said chan string, p *process, want string) {
	t.Helper()
	select {
	case got := <-said:
		if got != want {
			t.Errorf("the page says %q; want %q", got, want)
		}
	case <-p.done:
		t.Fatalf("the browser has ended: %v", p.err)
	case <-time.After(4 * patience): // a new profile takes its time
		t.Fatal("the page says nothing")
	}
}

func TestTheClientSeesThatAProgramDrivesTheBrowser(t *testing.T) {
	thorough(t)
	gate, said := signsSite(t)
	b := newTab(t)
	b.open(gate.origin + "/")
	select {
	case got := <-said:
		if want := "signs 3, 200"; got != want { // navigator.webdriver, and headless
			t.Errorf("the page says %q; want %q", got, want)
		}
		var found []string
		for _, d := range gate.decisions("") {
			if d.Code == guard.BotSuspected.String() {
				found = append(found, d.Method+" "+d.Path+": "+d.Got)
			}
		}
		if all := strings.Join(found, "\n"); !strings.Contains(all, "POST /.moat/tickets: headers +40 (") || !strings.Contains(all, "; client +60 (webdriver)") {
			t.Errorf("the gate finds\n%s", all)
		}
	case <-time.After(patience):
		t.Fatal("the page says nothing")
	}
}

// A window without anybody who drives it is what people have.
func TestTheClientSeesNothingInABrowserInAWindow(t *testing.T) {
	thorough(t)
	display := startDisplay(t)
	for name, flags := range map[string][]string{"a window": nil, "a private window": {"--incognito"}} {
		t.Run(name, func(t *testing.T) {
			gate, said := signsSite(t)
			home := t.TempDir()
			cmd := exec.Command(program(t, "chromium"), append(flags, "--user-data-dir="+filepath.Join(home, "profile"), "--no-sandbox", "--disable-gpu", "--disable-quic",
				"--no-first-run", "--no-default-browser-check", "--disable-background-networking", "--disable-component-update", "--disable-sync", "--password-store=basic", gate.origin+"/")...)
			cmd.Env = append(os.Environ(), "HOME="+home, "DISPLAY="+display)
			p := startProcess(t, cmd, func(p *process) { p.signal(syscall.SIGTERM) }, func(*process) {})
			wantSaid(t, said, p, "signs undefined, 200")
			wantNothingFound(t, gate)
		})
	}
}

func TestTheClientSeesNothingInFirefox(t *testing.T) {
	thorough(t)
	gate, said := signsSite(t)
	wantSaid(t, said, startFirefox(t, gate.origin+"/"), "signs undefined, 200")
	wantNothingFound(t, gate)
}

// wantNothingFound wants no signal to have given any point: neither those that count nor those that are reported.
func wantNothingFound(t *testing.T, gate *moat) {
	t.Helper()
	for _, d := range gate.decisions("") {
		t.Errorf("the gate finds %s on %s %s: %s", d.Code, d.Method, d.Path, d.Got)
	}
}

// startDisplay starts an X server whose screen nobody sees, and returns its name.
func startDisplay(t *testing.T) string {
	t.Helper()
	// The server chooses a free number, and writes it there when it is ready.
	path := filepath.Join(t.TempDir(), "display")
	number, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer number.Close()
	cmd := exec.Command(program(t, "xvfb"), "-displayfd", "3", "-screen", "0", "1280x900x24", "-nolisten", "tcp")
	cmd.ExtraFiles = []*os.File{number}
	p := startProcess(t, cmd, func(p *process) { p.signal(syscall.SIGTERM) }, func(*process) {})
	var display string
	eventually(t, "the display is ready", func() (string, bool) {
		text, rErr := os.ReadFile(path)
		if rErr != nil || p.ended() {
			t.Fatalf("Xvfb: %v, %v", rErr, p.err)
		}
		display = ":" + strings.TrimSpace(string(text))
		return display, strings.HasSuffix(string(text), "\n")
	})
	return display
}
