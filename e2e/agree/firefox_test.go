package agree

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/moat-gateway/moat/browser"
	"github.com/moat-gateway/moat/browser/browsertest"
)

var (
	firefoxCases = flag.Int("firefox.cases", 150, "how many generated cases TestFirefoxAgrees compares")
	firefoxSeed  = flag.Uint64("firefox.seed", 8, "the seed of the cases; 0 takes a new one")
	firefoxBrief = flag.Bool("firefox.brief", false, "print disagreements as they are instead of shrinking them")
)

// TestFirefoxAgrees holds the model's firefox profile against Firefox: the cases of
// vectors/browser, and some that are made up (always the same unless a seed is given:
// Firefox has more corners than the profile knows), but for those about what only
// Chromium can be told: where the hosts are, and whether third-party cookies are blocked.
// What must agree are the requests that reach the servers, with the headers that Firefox
// itself set; what script saw; and the reasons that the console gives, word for word.
// firefoxDeviations are the exceptions.
func TestFirefoxAgrees(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a browser, which takes seconds: run without -short (make test does)")
	}
	var cases []browser.Case
	add := func(c browser.Case) {
		if !c.Browser.BlockThirdPartyCookies && !narrow(c) {
			c.Browser.Profile = "firefox"
			cases = append(cases, c)
		}
	}
	for _, c := range vectors(t) {
		add(c)
	}
	known := len(cases)
	seed := *firefoxSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	r := rand.New(rand.NewPCG(seed, 0))
	for len(cases) < known+*firefoxCases {
		add(browsertest.Case(r))
	}
	t.Logf("%d vectors and %d generated cases, of the seed %d", known, len(cases)-known, seed)
	f := newFirefox(t)
	start := time.Now()
	faults := f.compareAll(t, cases)
	kinds := map[string]int{}
	for i, d := range faults {
		if !*firefoxBrief && i < 3 {
			d = f.shrunk(d)
		}
		kinds[d.kind()]++
		if *firefoxBrief {
			text, _ := json.Marshal(d.c)
			t.Errorf("%s\n%s", strings.Join(d.diff, "\n"), text)
			continue
		}
		t.Errorf("seed %d:\n%s", seed, d)
	}
	t.Logf("%d of %d agree, %d of them on the second try, in %v; the others: %v",
		len(cases)-len(faults), len(cases), f.second.Load(), time.Since(start).Round(time.Second), kinds)
}

// narrow reports whether a case has to do with hosts that are not of the public network:
// here all of them are this machine's, and Firefox cannot be told otherwise.
func narrow(c browser.Case) bool {
	text, err := json.Marshal([]any{c.Page, c.Requests, c.Answers, c.Browser.Cookies})
	if err != nil {
		panic(err)
	}
	for host := range browsertest.Addresses {
		if strings.Contains(string(text), "//"+host) {
			return true
		}
	}
	return false
}

// firefox is Firefox in the world. It is driven over WebDriver BiDi, which it speaks
// itself, and led to the world by a SOCKS proxy.
type firefox struct {
	world *world
	bidi  *bidi

	// tabs is held while tabs are made and removed: Firefox mixes up those of one moment.
	tabs sync.Mutex

	mu      sync.Mutex
	next    int
	console []string
	// second counts the cases that agreed only when they were played again.
	second atomic.Int64
}

func newFirefox(t *testing.T) *firefox {
	t.Helper()
	f := &firefox{world: newWorld(t)}
	host, port := newSOCKS(t, f.world)
	profile := t.TempDir()
	var js strings.Builder
	for name, value := range map[string]any{
		"network.proxy.type": 1, "network.proxy.socks": host, "network.proxy.socks_port": port,
		"network.proxy.socks_version": 5, "network.proxy.socks_remote_dns": true,
		"network.proxy.allow_hijacking_localhost": true,
		// Everything is on this machine, and the proxy hides even that.
		"network.lna.enabled": false, "network.lna.blocking": false,
		// Navigations go where they are told.
		"dom.security.https_first": false, "dom.security.https_first_schemeless": false,
		// Over HTTP/2 Firefox joins fields of one name and no longer knows that there were two.
		"network.http.http2.enabled": false,
		// A slow cache is not to race the network.
		"network.http.rcwn.enabled": false,
		// What is compared is decided outside the pages' processes, so a few will do.
		"fission.webContentIsolationStrategy": 0, "dom.ipc.processCount": 2,
		// Firefox is to talk to nobody but the world.
		"app.update.disabledForTesting": true, "browser.safebrowsing.malware.enabled": false,
		"browser.safebrowsing.phishing.enabled": false, "toolkit.telemetry.server": "data:,",
		"datareporting.policy.dataSubmissionEnabled": false, "app.normandy.enabled": false,
		"network.captive-portal-service.enabled": false, "network.connectivity-service.enabled": false,
		"services.settings.server": "data:,", "network.trr.mode": 5,
	} {
		text, err := json.Marshal(value)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&js, "user_pref(%q, %s);\n", name, text)
	}
	if err := os.WriteFile(filepath.Join(profile, "user.js"), []byte(js.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program(t, "firefox"), "--headless", "--no-remote", "--profile", profile, "--remote-debugging-port=0")
	cmd.Env = append(os.Environ(), "HOME="+profile, "MOZ_CRASHREPORTER_DISABLE=1")
	f.bidi = startBiDi(t, cmd, f.hear)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	err := f.bidi.call(ctx, "session.new", map[string]any{
		"capabilities": map[string]any{"alwaysMatch": map[string]any{
			"acceptInsecureCerts": true, "unhandledPromptBehavior": map[string]any{"default": "dismiss"},
		}},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.bidi.call(ctx, "session.subscribe", map[string]any{"events": []string{"log.entryAdded"}}, nil); err != nil {
		t.Fatal(err)
	}
	return f
}

func (f *firefox) hear(method string, params json.RawMessage) {
	var entry struct {
		Text string `json:"text"`
	}
	if method != "log.entryAdded" || json.Unmarshal(params, &entry) != nil {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.console = append(f.console, entry.Text)
}

// about are the console's lines about a case.
func (f *firefox) about(p *played) []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(f.console), func(text string) bool {
		return !strings.Contains(text, browsertest.Root+p.id+"/")
	})
}

func (f *firefox) id() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.next++
	return fmt.Sprintf("f%d", f.next)
}

// Bounds on what goes on at the same time.
const (
	firefoxTabs  = 3
	firefoxBatch = 20
)

// compareAll plays the cases, those of one page together, and returns those that came
// out otherwise.
func (f *firefox) compareAll(t *testing.T, cases []browser.Case) []disagreement {
	t.Helper()
	var groups [][]browser.Case
	open := map[string]int{}
	for i, c := range cases {
		key, err := json.Marshal(c.Page)
		if err != nil {
			t.Fatal(err)
		}
		k := string(key)
		if leaves(c) {
			k = fmt.Sprint(i)
		}
		at, ok := open[k]
		if !ok || len(groups[at]) == firefoxBatch {
			at = len(groups)
			open[k], groups = at, append(groups, nil)
		}
		groups[at] = append(groups[at], c)
	}
	work := make(chan []browser.Case)
	var mu sync.Mutex
	var faults []disagreement
	var wait sync.WaitGroup
	for range firefoxTabs {
		wait.Go(func() {
			for group := range work {
				found, err := f.compareTwice(group)
				mu.Lock()
				if err != nil {
					t.Errorf("%s: %v", group[0].Page.URL, err)
				}
				faults = append(faults, found...)
				mu.Unlock()
			}
		})
	}
	for _, g := range groups {
		work <- g
	}
	close(work)
	wait.Wait()
	return faults
}

// tab makes a tab with cookies and caches of its own.
func (f *firefox) tab(ctx context.Context) (id string, forget func(), err error) {
	f.tabs.Lock()
	defer f.tabs.Unlock()
	var user struct {
		UserContext string `json:"userContext"`
	}
	if err = f.bidi.call(ctx, "browser.createUserContext", nil, &user); err != nil {
		return "", nil, err
	}
	forget = func() {
		f.tabs.Lock()
		defer f.tabs.Unlock()
		late, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
		defer cancel()
		_ = f.bidi.call(late, "browser.removeUserContext", map[string]any{"userContext": user.UserContext}, nil)
	}
	var made struct {
		Context string `json:"context"`
	}
	for range 3 {
		short, cancelShort := context.WithTimeout(ctx, patience/2)
		err = f.bidi.call(short, "browsingContext.create", map[string]any{"type": "tab", "userContext": user.UserContext}, &made)
		cancelShort()
		if err == nil {
			break
		}
	}
	return made.Context, forget, err
}

func (f *firefox) navigate(ctx context.Context, tab, url string) error {
	return f.bidi.call(ctx, "browsingContext.navigate", map[string]any{"context": tab, "url": url, "wait": "complete"}, nil)
}

// compareTwice plays those that disagree again, each alone, and once more if they still do:
// on a busy machine a preflight may be forgotten after its five seconds, and a line of the
// console come too late. What is really otherwise is so each time.
func (f *firefox) compareTwice(group []browser.Case) ([]disagreement, error) {
	found, err := f.compare(group)
	var confirmed []disagreement
	for _, d := range found {
		still := []disagreement{d}
		for try := 0; try < 2 && len(still) > 0; try++ {
			var failed error
			if still, failed = f.compare([]browser.Case{d.c}); failed != nil {
				return nil, failed
			}
		}
		if len(still) == 0 {
			f.second.Add(1)
		}
		confirmed = append(confirmed, still...)
	}
	return confirmed, err
}

// compare plays the cases of one page and holds them against the model.
func (f *firefox) compare(group []browser.Case) ([]disagreement, error) {
	ctx, stop := context.WithTimeout(context.Background(), 2*patience)
	defer stop()
	tab, forget, err := f.tab(ctx)
	if forget != nil {
		defer forget()
	}
	if err != nil {
		return nil, err
	}
	var staged []*played
	for _, c := range group {
		p := f.world.stage(c, f.id())
		defer f.world.strike(p)
		staged = append(staged, p)
	}
	if err = f.sow(ctx, tab, staged); err != nil {
		return nil, fmt.Errorf("setting cookies: %w", err)
	}
	saw, err := f.play(ctx, tab, staged)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	traces, expected := make([][]browser.Trace, len(staged)), 0
	for i, p := range staged {
		if traces[i], err = p.Run(now); err != nil {
			return nil, err
		}
		for _, t := range traces[i] {
			expected += len(t.Exchanges)
		}
	}
	f.settle(staged, expected)
	var found []disagreement
	for i, p := range staged {
		f.world.mu.Lock()
		arrived := slices.Clone(p.arrived)
		f.world.mu.Unlock()
		if diff := compareFirefox(p, traces[i], firefoxPlay{arrived, saw[i], f.about(p)}); len(diff) > 0 {
			found = append(found, disagreement{group[i], diff})
		}
	}
	return found, nil
}

// settle waits until nothing more comes, and a while longer for what should come.
func (f *firefox) settle(staged []*played, expected int) {
	count := func() (n int) {
		f.world.mu.Lock()
		defer f.world.mu.Unlock()
		for _, p := range staged {
			n += len(p.arrived)
		}
		return n
	}
	until := time.Now().Add(2 * time.Second)
	for last := -1; last != count() || last < expected && time.Now().Before(until); time.Sleep(100 * time.Millisecond) {
		last = count()
	}
}

// sow sets the cookies that the cases begin with, as their servers would.
func (f *firefox) sow(ctx context.Context, tab string, staged []*played) error {
	byTop := map[string][]sown{}
	for _, p := range staged {
		for _, s := range p.Browser.Cookies {
			origin, _, _ := strings.Cut(s.URL, browsertest.Root)
			list := byTop[s.Top]
			i := slices.IndexFunc(list, func(x sown) bool { return x.origin == origin })
			if i < 0 {
				list, i = append(list, sown{origin: origin}), len(list)
			}
			list[i].lines = append(list[i].lines, s.SetCookie)
			byTop[s.Top] = list
		}
	}
	for _, top := range slices.Sorted(maps.Keys(byTop)) {
		list := byTop[top]
		slices.SortFunc(list, func(a, b sown) int { return strings.Compare(a.origin, b.origin) })
		for _, s := range list {
			token := f.id()
			url := s.origin + "/seed/" + token + "/0"
			f.world.mu.Lock()
			f.world.seeds[token] = []sown{s}
			if top != "" {
				seed := url
				url = strings.Replace(strings.TrimSuffix(top, "/page")+"/tab-"+token, "test//", "test/", 1)
				f.world.pages[url] = browser.Page{URL: seed}
			}
			f.world.mu.Unlock()
			if err := f.navigate(ctx, tab, url); err != nil {
				return err
			}
		}
	}
	return nil
}

func (f *firefox) open(ctx context.Context, tab string, p browser.Page) error {
	openMu.Lock()
	defer openMu.Unlock()
	f.world.mu.Lock()
	f.world.pages[p.URL] = p
	for _, a := range p.Ancestors {
		f.world.pages[a] = p
	}
	f.world.mu.Unlock()
	url := p.URL
	if len(p.Ancestors) > 0 {
		url = p.Ancestors[len(p.Ancestors)-1]
	}
	return f.navigate(ctx, tab, url)
}

func (f *firefox) play(ctx context.Context, tab string, staged []*played) ([][]saw, error) {
	page := staged[0].Page
	if err := f.open(ctx, tab, page); err != nil {
		return nil, fmt.Errorf("opening the page: %w", err)
	}
	var requests [][]browser.Request
	for _, p := range staged {
		requests = append(requests, p.Requests)
	}
	text, err := json.Marshal(requests)
	if err != nil {
		return nil, err
	}
	run := "all"
	if len(page.Ancestors) > 0 {
		run = "within"
	}
	leaving := leaves(staged[0].Case)
	answer, err := f.bidi.evaluate(ctx, tab, fmt.Sprintf("%s(%s).then(JSON.stringify)", run, text),
		leaving && staged[0].Requests[0].UserActivated)
	if leaving { // and takes its answer with it
		return [][]saw{{{Script: "?"}}}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("playing: %w: %s", err, text)
	}
	var all [][]saw
	if err := json.Unmarshal([]byte(answer), &all); err != nil {
		return nil, err
	}
	if len(all) != len(staged) {
		return nil, errors.New("the page told of other cases than it was given")
	}
	return all, nil
}

// shrunk looks for the smallest case that still disagrees.
func (f *firefox) shrunk(d disagreement) disagreement {
	for range 40 {
		smaller := false
		for _, c := range simpler(d.c) {
			found, err := f.compare([]browser.Case{c})
			if err == nil && len(found) == 1 {
				d, smaller = found[0], true
				break
			}
		}
		if !smaller {
			break
		}
	}
	return d
}
