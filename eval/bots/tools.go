package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/moat-gateway/moat/eval/bots/job"
)

// callsOfVisit is how many calls of the API a visit makes after the page.
const callsOfVisit = 5

// patience is how long a visit may take: a new profile of Firefox on a busy machine takes a minute.
const patience = 3 * time.Minute

// The tiers, from the cheapest to whoever moat must let pass.
const (
	tierNaive      = "HTTP tool"
	tierHeaders    = "HTTP tool with a browser's headers"
	tierImitation  = "imitates a browser's TLS, or runs the page's client"
	tierHeadless   = "driven browser, headless"
	tierHeadful    = "driven browser, in a window"
	tierAlone      = "headless browser that nobody drives"
	tierPerson     = "browser as a person has it"
	tierPersonBare = "the same, without a window"
	tierBusy       = "the same, on a page that calls 150 times on end"
)

// tool is something that visits the site.
type tool struct {
	name, tier string
	// person is for browsers as people have them: what moat finds in these is a false positive.
	person bool
	// open prepares it; what it returns makes a visit. It fails with a missing if something is not installed.
	open func(context.Context, *bench, *site) (*runner, error)
	// costs has it measured how much CPU and memory 1,000 answers take.
	costs bool
	// calls that a visit makes, if not callsOfVisit.
	calls int
}

// runner makes visits.
type runner struct {
	visit func(ctx context.Context, calls int) error
	// pid is that of the process that stays between visits; 0 if each starts its own, which began then tells.
	pid   int
	began func(pid int)
	// took is the CPU time of the last visit, where its process has ended with it.
	took  time.Duration
	close func()
}

// missing is the error of a tool that is not there.
type missing struct{ what, from string }

func (m missing) Error() string { return fmt.Sprintf("%s is missing (%s)", m.what, m.from) }

func found(what, from string, names ...string) (string, error) {
	for _, name := range names {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", missing{what, from}
}

// ordered are headers in the order in which a browser sends them.
type ordered = [][2]string

const chromeUA = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/%s.0.0.0 Safari/537.36"

// navigation is what Chrome of that version sends when a user goes to a page, as copied from its developer tools.
func navigation(version string) ordered {
	return ordered{
		{"sec-ch-ua", chromeBrands(version)},
		{"sec-ch-ua-mobile", "?0"},
		{"sec-ch-ua-platform", `"Linux"`},
		{"upgrade-insecure-requests", "1"},
		{"user-agent", fmt.Sprintf(chromeUA, version)},
		{"accept", "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8,application/signed-exchange;v=b3;q=0.7"},
		{"sec-fetch-site", "none"},
		{"sec-fetch-mode", "navigate"},
		{"sec-fetch-user", "?1"},
		{"sec-fetch-dest", "document"},
		{"accept-encoding", "gzip, deflate, br, zstd"},
		{"accept-language", "en-US,en;q=0.9"},
		{"priority", "u=0, i"},
	}
}

// script is what it sends with a page's fetch.
func script(version, origin string) ordered {
	return ordered{
		{"sec-ch-ua-platform", `"Linux"`},
		{"user-agent", fmt.Sprintf(chromeUA, version)},
		{"sec-ch-ua", chromeBrands(version)},
		{"sec-ch-ua-mobile", "?0"},
		{"accept", "*/*"},
		{"sec-fetch-site", "same-origin"},
		{"sec-fetch-mode", "cors"},
		{"sec-fetch-dest", "empty"},
		{"referer", origin + "/"},
		{"accept-encoding", "gzip, deflate, br, zstd"},
		{"accept-language", "en-US,en;q=0.9"},
		{"priority", "u=1, i"},
	}
}

func chromeBrands(version string) string {
	return `"Chromium";v="` + version + `", "Not)A;Brand";v="24", "Google Chrome";v="` + version + `"`
}

// newJob is a visit for a tool that is a process; with headers it sends those of Chrome of that version.
func (b *bench) newJob(s *site, calls int, version string) job.Job {
	j := job.Job{Origin: s.origin, CA: b.file("ca.pem"), Calls: calls}
	if version != "" {
		j.Page, j.Call = navigation(version), script(version, s.origin)
	}
	return j
}

// each starts a process for each visit.
func each(command func(ctx context.Context, calls int) (*exec.Cmd, error)) *runner {
	r := &runner{began: func(int) {}, close: func() {}}
	r.visit = func(ctx context.Context, calls int) error {
		cmd, err := command(ctx, calls)
		if err != nil {
			return err
		}
		var said bytes.Buffer
		cmd.Stdout, cmd.Stderr = io.Discard, &said
		if err = start(cmd); err != nil {
			return err
		}
		r.began(cmd.Process.Pid)
		if err = cmd.Wait(); err != nil {
			return fmt.Errorf("%w: %s", err, tail(said.String()))
		}
		r.took = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
		return nil
	}
	return r
}

func tail(text string) string { return text[max(0, len(text)-300):] }

// withJob is a tool that gets its visit as a job in JSON.
func withJob(version string, args func(*bench) ([]string, error), change func(*bench, *job.Job)) func(context.Context, *bench, *site) (*runner, error) {
	return func(_ context.Context, b *bench, s *site) (*runner, error) {
		command, err := args(b)
		if err != nil {
			return nil, err
		}
		return each(func(ctx context.Context, calls int) (*exec.Cmd, error) {
			j := b.newJob(s, calls, version)
			if change != nil {
				change(b, &j)
			}
			text, err := json.Marshal(j)
			if err != nil {
				return nil, err
			}
			cmd := program(ctx, command[0], append(slices.Clip(command[1:]), string(text))...)
			cmd.Env = append(os.Environ(), "NODE_EXTRA_CA_CERTS="+j.CA) // Node takes it from nowhere else
			return cmd, nil
		}), nil
	}
}

func built(name string) func(*bench) ([]string, error) {
	return func(b *bench) ([]string, error) { return []string{b.file(name)}, nil }
}

func nodeScript(b *bench) ([]string, error) {
	path, err := found("node", "apt: nodejs", "node")
	return []string{path, b.script("fetch.mjs")}, err
}

func python(how string) func(*bench) ([]string, error) {
	return func(b *bench) ([]string, error) {
		path, err := found("python3", "apt: python3", "python3")
		return []string{path, b.script("fetch.py"), how}, err
	}
}

func curl(version string) func(context.Context, *bench, *site) (*runner, error) {
	return func(_ context.Context, b *bench, s *site) (*runner, error) {
		path, err := found("curl", "apt: curl", "curl")
		if err != nil {
			return nil, err
		}
		return each(func(ctx context.Context, calls int) (*exec.Cmd, error) {
			j := b.newJob(s, calls, version)
			common := []string{"--silent", "--show-error", "--fail", "--cacert", j.CA, "--output", os.DevNull}
			with := func(headers ordered) (all []string) {
				for _, h := range headers {
					all = append(all, "--header", h[0]+": "+h[1])
				}
				return all
			}
			args := append(append(slices.Clip(common), with(j.Page)...), s.origin+"/")
			for n := range calls {
				args = append(append(append(append(args, "--next"), common...), with(j.Call)...), j.Item(n))
			}
			return program(ctx, path, args...), nil
		}), nil
	}
}

func wget(_ context.Context, b *bench, s *site) (*runner, error) {
	path, err := found("wget", "apt: wget", "wget")
	if err != nil {
		return nil, err
	}
	return each(func(ctx context.Context, calls int) (*exec.Cmd, error) {
		j := b.newJob(s, calls, "")
		args := []string{"--no-verbose", "--ca-certificate", j.CA, "--no-hsts", "--output-document", os.DevNull, s.origin + "/"}
		for n := range calls {
			args = append(args, j.Item(n))
		}
		return program(ctx, path, args...), nil
	}), nil
}

// Flags that change nothing that a site could see: no first-run pages, nothing in the background.
var quietChromium = []string{
	"--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--no-default-browser-check", "--disable-background-networking",
	"--disable-component-update", "--disable-sync", "--password-store=basic",
}

// quietFirefox is user.js of its profiles, for the same.
const quietFirefox = `user_pref("browser.aboutwelcome.enabled", false);
user_pref("browser.shell.checkDefaultBrowser", false);
user_pref("browser.startup.homepage_override.mstone", "ignore");
user_pref("datareporting.policy.dataSubmissionEnabled", false);
user_pref("toolkit.telemetry.enabled", false);
user_pref("app.normandy.enabled", false);
user_pref("app.update.disabledForTesting", true);
user_pref("services.settings.server", "data:,");
user_pref("network.captive-portal-service.enabled", false);
user_pref("network.connectivity-service.enabled", false);
`

// trust has the browsers of a home directory, and the Firefox of a profile that is there, trust the run's authority.
func (b *bench) trust(ctx context.Context, db string) error {
	certutil, err := found("certutil", "apt: libnss3-tools", "certutil")
	if err != nil {
		return err
	}
	if err = os.MkdirAll(db, 0o700); err != nil {
		return err
	}
	for _, args := range [][]string{
		{"-N", "-d", "sql:" + db, "--empty-password"},
		{"-A", "-d", "sql:" + db, "-n", "moat eval-bots", "-t", "C,,", "-i", b.file("ca.pem")},
	} {
		if out, cErr := program(ctx, certutil, args...).CombinedOutput(); cErr != nil {
			return fmt.Errorf("certutil %s: %w: %s", args[0], cErr, out)
		}
	}
	return nil
}

// home is a new home directory whose browsers trust the authority.
func (b *bench) home(ctx context.Context) (string, error) {
	dir, err := os.MkdirTemp(b.dir, "home-")
	if err != nil {
		return "", err
	}
	return dir, b.trust(ctx, filepath.Join(dir, ".pki", "nssdb"))
}

// environment has a browser live in that home, and show its windows to nobody.
func (b *bench) environment(home string, window bool) ([]string, error) {
	env := append(os.Environ(), "HOME="+home, "MOZ_CRASHREPORTER_DISABLE=1", "XDG_CONFIG_HOME="+home, "XDG_CACHE_HOME="+home)
	if !window {
		return env, nil
	}
	if b.display == "" {
		return nil, missing{"Xvfb", "apt: xvfb"}
	}
	return append(env, "DISPLAY="+b.display), nil
}

// alone is a browser that is started with the page's address, as a person's click would, and told nothing else. Each visit is a
// new profile.
func alone(window bool, command func(b *bench, ctx context.Context, home, url string) (*exec.Cmd, error)) func(context.Context, *bench, *site) (*runner, error) {
	return func(ctx context.Context, b *bench, s *site) (*runner, error) {
		r := &runner{began: func(int) {}, close: func() {}}
		if _, err := command(b, ctx, b.dir, s.origin); err != nil {
			return nil, err
		}
		r.visit = func(ctx context.Context, calls int) error {
			home, err := b.home(ctx)
			if err != nil {
				return err
			}
			defer os.RemoveAll(home) //nolint:errcheck // the whole directory goes at the end
			cmd, err := command(b, ctx, home, fmt.Sprintf("%s/?calls=%d", s.origin, calls))
			if err != nil {
				return err
			}
			if cmd.Env, err = b.environment(home, window); err != nil {
				return err
			}
			select {
			case <-s.done: // of a visit that was given up
			default:
			}
			if err = start(cmd); err != nil {
				return err
			}
			defer end(cmd)
			r.began(cmd.Process.Pid)
			select {
			case said := <-s.done:
				if said != "ok" {
					return errors.New(said)
				}
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		if _, err := b.environment(b.dir, window); err != nil {
			return nil, err
		}
		return r, nil
	}
}

func chromium(more ...string) func(*bench, context.Context, string, string) (*exec.Cmd, error) {
	return func(_ *bench, ctx context.Context, home, url string) (*exec.Cmd, error) {
		path, err := foundChromium()
		if err != nil {
			return nil, err
		}
		args := append(append([]string{"--user-data-dir=" + filepath.Join(home, "profile")}, quietChromium...), more...)
		return program(ctx, path, append(args, url)...), nil
	}
}

func foundChromium() (string, error) {
	return found("chromium", "apt: chromium", "chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
}

func firefox(more ...string) func(*bench, context.Context, string, string) (*exec.Cmd, error) {
	return func(b *bench, ctx context.Context, home, url string) (*exec.Cmd, error) {
		path, err := found("firefox", "apt: firefox-esr", "firefox-esr", "firefox")
		if err != nil || home == b.dir {
			return nil, err
		}
		profile := filepath.Join(home, "profile")
		if err = b.trust(ctx, profile); err != nil {
			return nil, err
		}
		if err = os.WriteFile(filepath.Join(profile, "user.js"), []byte(quietFirefox), 0o600); err != nil {
			return nil, err
		}
		return program(ctx, path, append(more, "--no-remote", "--profile", profile, url)...), nil
	}
}

// driven is a Chromium that a library drives. It stays; each visit is a profile of its own in it.
func driven(library string, window, hidden bool) func(context.Context, *bench, *site) (*runner, error) {
	return func(ctx context.Context, b *bench, s *site) (*runner, error) {
		node, err := found("node", "apt: nodejs", "node")
		if err != nil {
			return nil, err
		}
		browser, err := foundChromium()
		if err != nil {
			return nil, err
		}
		if _, err = os.Stat(filepath.Join(b.here, "node_modules", library+"-core")); err != nil {
			return nil, missing{library + "-core", "npm ci in eval/bots"}
		}
		home, err := b.home(ctx)
		if err != nil {
			return nil, err
		}
		options := map[string]any{"executablePath": browser, "headless": !window, "args": quietChromium}
		if hidden {
			options["args"] = append([]string{"--disable-blink-features=AutomationControlled"}, quietChromium...)
			if !window {
				options["userAgent"] = fmt.Sprintf(chromeUA, b.chromium)
			}
		}
		text, err := json.Marshal(options)
		if err != nil {
			return nil, err
		}
		cmd := program(ctx, node, b.script("drive.mjs"), library, string(text))
		if cmd.Env, err = b.environment(home, window); err != nil {
			return nil, err
		}
		in, err := cmd.StdinPipe()
		if err != nil {
			return nil, err
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			return nil, err
		}
		var said bytes.Buffer
		cmd.Stderr = &said
		if err = start(cmd); err != nil {
			return nil, err
		}
		lines := bufio.NewScanner(out)
		r := &runner{pid: cmd.Process.Pid, began: func(int) {}, close: func() {
			in.Close() //nolint:errcheck // it ends the driver
			end(cmd)
		}}
		r.visit = func(_ context.Context, calls int) error { // ctx ends the process, and with it the wait
			fmt.Fprintf(in, "%s/?calls=%d\n", s.origin, calls)
			if !lines.Scan() {
				return fmt.Errorf("%s is gone: %s", library, tail(said.String()))
			}
			if line := lines.Text(); line != "ok" {
				return errors.New(line)
			}
			return nil
		}
		return r, nil
	}
}

// tools are all of them.
func tools(chromiumVersion string) []tool {
	const imitated = "133" // the latest Chrome that the library imitates
	clientOf := func(b *bench, j *job.Job) { j.Client = filepath.Join(b.root, "client", "dist", "client.mjs") }
	withTickets := func(_ *bench, j *job.Job) { j.Tickets = true }
	return []tool{
		{name: "curl", tier: tierNaive, open: curl(""), costs: true},
		{name: "wget", tier: tierNaive, open: wget},
		{name: "Go net/http", tier: tierNaive, open: withJob("", built("nethttp"), nil), costs: true},
		{name: "Node fetch (undici)", tier: tierNaive, open: withJob("", nodeScript, nil)},
		{name: "Python urllib", tier: tierNaive, open: withJob("", python("urllib"), nil)},
		{name: "Python http.client", tier: tierNaive, open: withJob("", python("http.client"), nil)},
		{name: "curl, Chrome's headers", tier: tierHeaders, open: curl(chromiumVersion), costs: true},
		{name: "Go net/http, Chrome's headers", tier: tierHeaders, open: withJob(chromiumVersion, built("nethttp"), nil)},
		{name: "Node fetch, Chrome's headers", tier: tierHeaders, open: withJob(chromiumVersion, nodeScript, nil)},
		{name: "Python http.client, Chrome's headers", tier: tierHeaders, open: withJob(chromiumVersion, python("http.client"), nil)},
		{name: "tls-client, as Chrome " + imitated, tier: tierImitation, open: withJob(imitated, built("tlsclient"), nil), costs: true},
		{name: "the page's client in Node, Chrome's headers", tier: tierImitation, open: withJob(chromiumVersion, nodeScript, clientOf), costs: true},
		{name: "tls-client with the page's client rewritten", tier: tierImitation, open: withJob(imitated, built("tlsclient"), withTickets), costs: true},
		{name: "tls-client, a scrape of 150 items", tier: tierImitation, open: withJob(imitated, built("tlsclient"), nil), calls: 150},
		{name: "the page's client in Node, 150 items", tier: tierImitation, open: withJob(chromiumVersion, nodeScript, clientOf), calls: 150},
		{name: "Playwright", tier: tierHeadless, open: driven("playwright", false, false)},
		{name: "Puppeteer", tier: tierHeadless, open: driven("puppeteer", false, false), costs: true},
		{name: "ChromeDriver (as Selenium uses it)", tier: tierHeadless, open: webdriver(false)},
		{name: "Playwright, webdriver and user agent hidden", tier: tierHeadless, open: driven("playwright", false, true)},
		{name: "Playwright in a window", tier: tierHeadful, open: driven("playwright", true, false)},
		{name: "Puppeteer in a window", tier: tierHeadful, open: driven("puppeteer", true, false)},
		{name: "ChromeDriver in a window", tier: tierHeadful, open: webdriver(true)},
		{name: "Playwright in a window, webdriver hidden", tier: tierHeadful, open: driven("playwright", true, true)},
		{name: "Chromium --headless", tier: tierAlone, open: alone(false, chromium("--headless"))},
		{name: "Chromium", tier: tierPerson, person: true, open: alone(true, chromium()), costs: true},
		{name: "Chromium, private window", tier: tierPerson, person: true, open: alone(true, chromium("--incognito"))},
		{name: "Chromium, busy page", tier: tierBusy, open: alone(true, chromium()), calls: 150},
		{name: "Firefox", tier: tierPerson, person: true, open: alone(true, firefox())},
		{name: "Firefox --headless", tier: tierPersonBare, person: true, open: alone(false, firefox("--headless"))},
	}
}

// browser says that the tool is one, or has one.
func (t *tool) browser() bool {
	return !strings.Contains(tierNaive+tierHeaders+tierImitation, t.tier)
}
