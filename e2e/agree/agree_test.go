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

	cdpbrowser "github.com/chromedp/cdproto/browser"
	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/moat-gateway/moat/browser"
	"github.com/moat-gateway/moat/browser/browsertest"
	"github.com/moat-gateway/moat/e2e"
)

var (
	agreeCases = flag.Int("agree.cases", 400, "how many generated cases TestChromiumAgrees compares")
	agreeBrief = flag.Bool("agree.brief", false, "print disagreements as they are, in one line each, instead of shrinking them")
	agreeOld   = flag.Int("agree.old", 0, "how many more have cookies that are two minutes old, which takes as long")
	agreeSeed  = flag.Uint64("agree.seed", 0, "the seed of the cases; 0 takes a new one")
)

// TestChromiumAgrees holds the model against Chromium: the cases of vectors/browser, and
// as many again that are made up. What must agree are the requests that reach the servers,
// with the headers that the browser itself set; what script saw; and the names and texts
// that Chromium has for it.
func TestChromiumAgrees(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a browser, which takes seconds: run without -short (make test does)")
	}
	cases := vectors(t)
	known := len(cases)
	seed := *agreeSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	r := rand.New(rand.NewPCG(seed, 0))
	for len(cases) < known+*agreeCases {
		cases = append(cases, browsertest.Case(r))
	}
	for range *agreeOld {
		cases = append(cases, browsertest.Old(r))
	}
	t.Logf("%d vectors and %d generated cases, of the seed %d", known, len(cases)-known, seed)
	start := time.Now()
	var faults []disagreement
	var second int64
	for _, blocked := range []bool{false, true} {
		o := newObserver(t, blocked)
		old, young := partition(cases, blocked)
		aged := o.sowOld(t, old)
		found := append(o.compareAll(t, young), o.compareOld(t, aged)...)
		for i, d := range found {
			if !*agreeBrief && i < 3 {
				d = o.shrunk(t, d)
			}
			faults = append(faults, d)
		}
		second += o.second.Load()
	}
	kinds := map[string]int{}
	for _, f := range faults {
		kinds[f.kind()]++
		t.Errorf("seed %d:\n%s", seed, f)
	}
	t.Logf("%d of %d agree, %d of them on the second try, in %v; the others: %v",
		len(cases)-len(faults), len(cases), second, time.Since(start).Round(time.Second), kinds)
}

// vectors are the cases of vectors/browser.
func vectors(t *testing.T) []browser.Case {
	t.Helper()
	files, err := filepath.Glob("../../vectors/browser/*.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("no vectors: %v", err)
	}
	var all []browser.Case
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var cases []browser.Case
		if err := json.Unmarshal(text, &cases); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		all = append(all, cases...)
	}
	return all
}

// partition picks the cases in which third-party cookies are blocked, or are not (that is
// a setting of the whole browser), apart by whether they have cookies that must be old.
func partition(cases []browser.Case, blocked bool) (old, young []browser.Case) {
	for _, c := range cases {
		switch {
		case c.Browser.BlockThirdPartyCookies != blocked:
		case slices.ContainsFunc(c.Browser.Cookies, func(s browser.Seed) bool { return s.Age > 0 }):
			old = append(old, c)
		default:
			young = append(young, c)
		}
	}
	return old, young
}

// patience is how long a test waits for what must happen.
const patience = 20 * time.Second

// program finds a program in PATH, under any of the names it goes by.
func program(t *testing.T, name string) string {
	t.Helper()
	for _, p := range e2e.Programs {
		if p.Name != name {
			continue
		}
		for _, file := range p.FoundAs {
			if path, err := exec.LookPath(file); err == nil {
				return path
			}
		}
	}
	t.Fatalf("%s is not in PATH: make setup installs it", name)
	return ""
}

// moved puts a case below a path of its own.
func moved(c browser.Case, id string) browser.Case {
	text, err := json.Marshal(c)
	if err != nil {
		panic(err)
	}
	var out browser.Case
	if err := json.Unmarshal([]byte(strings.ReplaceAll(string(text), browsertest.Root, browsertest.Root+id+"/")), &out); err != nil {
		panic(err)
	}
	return out
}

// disagreement is a case that came out otherwise.
type disagreement struct {
	c    browser.Case
	diff []string
}

func (d disagreement) kind() string {
	first, _, _ := strings.Cut(d.diff[0], "\n")
	words := strings.Fields(first)
	return string(d.c.Requests[0].API) + " " + strings.Join(words[:min(2, len(words))], " ")
}

func (d disagreement) String() string {
	text, err := json.Marshal(d.c)
	if err != nil {
		panic(err)
	}
	return strings.Join(d.diff, "\n") + "\n" + string(text)
}

// observer is Chromium in the world, ready to be compared.
type observer struct {
	world *world
	ctx   context.Context
	next  int
	mu    sync.Mutex
	// second counts the cases that agreed only when they were played again.
	second atomic.Int64
	sownAt time.Time
}

func newObserver(t *testing.T, blockThirdPartyCookies bool) *observer {
	t.Helper()
	o := &observer{world: newWorld(t)}
	profile := t.TempDir()
	if err := os.MkdirAll(filepath.Join(profile, "Default"), 0o700); err != nil {
		t.Fatal(err)
	}
	// Debian's Chromium blocks third-party cookies in a new profile.
	mode := 0
	if blockThirdPartyCookies {
		mode = 1
	}
	if err := os.WriteFile(filepath.Join(profile, "Default", "Preferences"), fmt.Appendf(nil, `{"profile":{"cookie_controls_mode":%d}}`, mode), 0o600); err != nil {
		t.Fatal(err)
	}
	options := append(slices.Clone(chromedp.DefaultExecAllocatorOptions[:]),
		chromedp.ExecPath(program(t, "chromium")), chromedp.UserDataDir(profile),
		chromedp.NoSandbox, chromedp.DisableGPU,
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-component-update", true),
		chromedp.Flag("host-resolver-rules", o.world.resolver()),
		chromedp.Flag("ip-address-space-overrides", o.world.spaces()),
		chromedp.Flag("ignore-certificate-errors-spki-list", o.world.key),
		// Frames of other sites stay in their tab's process, so that one session sees all
		// requests. What is compared is decided in the network process.
		chromedp.Flag("disable-site-isolation-trials", true),
		chromedp.Flag("disable-features", "BackForwardCache,IsolateOrigins,site-per-process,IsolateSandboxedIframes,HttpsUpgrades,HttpsFirstBalancedModeAutoEnable"),
	)
	ctx, cancelAllocator := chromedp.NewExecAllocator(context.Background(), options...)
	ctx, cancel := chromedp.NewContext(ctx)
	t.Cleanup(func() {
		closing, cancelClosing := context.WithTimeout(ctx, patience)
		defer cancelClosing()
		chromedp.Cancel(closing)
		cancel()
		cancelAllocator()
	})
	if err := chromedp.Do(ctx); err != nil {
		t.Fatalf("Chromium: %v", err)
	}
	o.ctx = ctx
	return o
}

func (o *observer) id() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.next++
	return fmt.Sprintf("n%d", o.next)
}

// Bounds on what goes on at the same time.
const (
	agreeTabs  = 3
	agreeBatch = 20
)

// compareAll plays the cases, those of one page together, and returns those that came
// out otherwise.
func (o *observer) compareAll(t *testing.T, cases []browser.Case) []disagreement {
	t.Helper()
	groups := map[string][]browser.Case{}
	var order []string
	for i, c := range cases {
		key, err := json.Marshal(c.Page)
		if err != nil {
			t.Fatal(err)
		}
		k := fmt.Sprint(string(key), c.Browser.LocalNetworkAllowed)
		if leaves(c) {
			k += fmt.Sprint(" leaves ", i)
		}
		if len(groups[k]) == agreeBatch {
			order = append(order, fmt.Sprint(k, i))
			groups[fmt.Sprint(k, i)] = groups[k]
			groups[k] = nil
		}
		if groups[k] == nil && !slices.Contains(order, k) {
			order = append(order, k)
		}
		groups[k] = append(groups[k], c)
	}
	work := make(chan []browser.Case)
	var mu sync.Mutex
	var faults []disagreement
	var wait sync.WaitGroup
	for range agreeTabs {
		wait.Go(func() {
			tab := o.newTab(t)
			for group := range work {
				found, err := tab.compareTwice(group)
				mu.Lock()
				if err != nil {
					t.Errorf("%s: %v", group[0].Page.URL, err)
				}
				faults = append(faults, found...)
				mu.Unlock()
			}
		})
	}
	for _, k := range order {
		work <- groups[k]
	}
	close(work)
	wait.Wait()
	return faults
}

// leaves reports whether the case's request replaces the page.
func leaves(c browser.Case) bool {
	return c.Requests[0].API == browser.Form || c.Requests[0].API == browser.Link
}

// seen is what Chromium's protocol tells of one request of a page.
type seen struct {
	id            network.RequestID
	url           string
	over          bool
	corsError     string
	blockedReason string
	netError      string
}

// watch collects what Chromium tells of a tab.
type watch struct {
	mu      sync.Mutex
	seen    []*seen
	console []string
}

func (w *watch) note(event any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	find := func(id network.RequestID) *seen {
		for _, s := range w.seen {
			if s.id == id {
				return s
			}
		}
		return nil
	}
	switch e := event.(type) {
	case *network.EventRequestWillBeSent:
		preflight := e.Initiator != nil && e.Initiator.Type == network.InitiatorTypePreflight
		if !preflight && find(e.RequestID) == nil && strings.Contains(e.Request.URL, browsertest.Root) {
			w.seen = append(w.seen, &seen{id: e.RequestID, url: e.Request.URL})
		}
	case *network.EventWebSocketCreated:
		if strings.Contains(e.URL, browsertest.Root) {
			w.seen = append(w.seen, &seen{id: e.RequestID, url: e.URL})
		}
	case *network.EventWebSocketClosed:
		if s := find(e.RequestID); s != nil {
			s.over = true
		}
	case *network.EventLoadingFinished:
		if s := find(e.RequestID); s != nil {
			s.over = true
		}
	case *network.EventLoadingFailed:
		if s := find(e.RequestID); s != nil {
			s.over = true
			s.blockedReason, s.netError = string(e.BlockedReason), e.ErrorText
			if e.CorsErrorStatus != nil {
				s.corsError = string(e.CorsErrorStatus.CorsError)
			}
		}
	case *log.EventEntryAdded:
		if e.Entry != nil {
			w.console = append(w.console, e.Entry.Text)
		}
	}
}

func (w *watch) settled() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return !slices.ContainsFunc(w.seen, func(s *seen) bool { return !s.over })
}

// tab is a tab with cookies of its own.
type tab struct {
	*observer
	ctx context.Context
	watch
}

func (o *observer) newTab(t *testing.T) *tab {
	t.Helper()
	ctx, cancel := chromedp.NewContext(o.ctx, chromedp.WithNewBrowserContext())
	t.Cleanup(cancel)
	b := &tab{observer: o, ctx: ctx}
	if err := chromedp.Listen(ctx, b.note); err != nil {
		t.Fatal(err)
	}
	if _, err := chromedp.Call(ctx, log.Enable, cdp.Empty{}); err != nil {
		t.Fatal(err)
	}
	return b
}

// compareTwice plays those that disagree again, each alone: on a busy machine a preflight
// may be forgotten after its five seconds, and whether an answer that CORS withheld comes
// to lie in the cache is a race in the browser itself.
func (o *tab) compareTwice(group []browser.Case) ([]disagreement, error) {
	found, err := o.compare(group)
	var confirmed []disagreement
	for _, d := range found {
		again, failed := o.compare([]browser.Case{d.c})
		if failed != nil {
			return nil, failed
		}
		if len(again) == 0 {
			o.second.Add(1)
		}
		confirmed = append(confirmed, again...)
	}
	return confirmed, err
}

// compare plays the cases of one page and holds them against the model.
func (o *tab) compare(group []browser.Case) ([]disagreement, error) {
	ctx, stop := context.WithTimeout(o.ctx, patience)
	defer stop()
	if _, err := chromedp.Call(ctx, network.ClearBrowserCookies, cdp.Empty{}); err != nil {
		return nil, err
	}
	var staged []*played
	for _, c := range group {
		staged = append(staged, o.world.stage(c, o.id()))
	}
	if err := o.sow(ctx, staged); err != nil {
		return nil, fmt.Errorf("setting cookies: %w", err)
	}
	return o.observe(ctx, staged, group)
}

// observe plays what is staged and sown already.
func (o *tab) observe(ctx context.Context, staged []*played, group []browser.Case) ([]disagreement, error) {
	w := &o.watch
	w.mu.Lock()
	w.seen, w.console = nil, nil
	w.mu.Unlock()
	for _, p := range staged {
		defer o.world.strike(p)
	}
	if err := o.permit(ctx, group[0].Browser.LocalNetworkAllowed); err != nil {
		return nil, err
	}
	saw, err := o.playIn(ctx, staged)
	if err != nil {
		return nil, err
	}
	for deadline := time.Now().Add(5 * time.Second); !w.settled() && time.Now().Before(deadline); {
		time.Sleep(10 * time.Millisecond)
	}
	time.Sleep(60 * time.Millisecond) // what no script waits for
	now := time.Now()
	var found []disagreement
	for i, p := range staged {
		traces, err := p.Run(now)
		if err != nil {
			return nil, err
		}
		o.world.mu.Lock()
		arrived := slices.Clone(p.arrived)
		o.world.mu.Unlock()
		diff := compareCase(p, traces, arrived, saw[i], w)
		if len(diff) > 0 && !races(traces) {
			found = append(found, disagreement{group[i], diff})
		}
	}
	return found, nil
}

// permit is the user's word on Local Network Access.
func (o *tab) permit(ctx context.Context, allowed bool) error {
	setting := cdpbrowser.PermissionSettingDenied
	if allowed {
		setting = cdpbrowser.PermissionSettingGranted
	}
	for _, name := range []string{"local-network-access", "local-network", "loopback-network"} {
		_, err := chromedp.CallBrowser(ctx, cdpbrowser.SetPermission, cdpbrowser.SetPermissionParams{
			Permission: &cdpbrowser.PermissionDescriptor{Name: name}, Setting: setting,
			BrowserContextID: chromedp.FromContext(o.ctx).BrowserContextID,
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// aged is a tab with cookies that are left to grow old.
type aged struct {
	*tab
	staged []*played
	cases  []browser.Case
}

// sowOld sets the cookies of cases whose cookies shall be old, in tabs of their own.
func (o *observer) sowOld(t *testing.T, cases []browser.Case) []aged {
	t.Helper()
	var all []aged
	for group := range slices.Chunk(cases, 40) {
		a := aged{tab: o.newTab(t), cases: group}
		for _, c := range group {
			a.staged = append(a.staged, o.world.stage(c, o.id()))
		}
		if err := o.sow(a.ctx, a.staged); err != nil {
			t.Fatal(err)
		}
		all = append(all, a)
	}
	o.sownAt = time.Now()
	return all
}

// compareOld plays them when the time has come.
func (o *observer) compareOld(t *testing.T, all []aged) []disagreement {
	t.Helper()
	if len(all) > 0 {
		time.Sleep(time.Until(o.sownAt.Add(125 * time.Second)))
	}
	var faults []disagreement
	for _, a := range all {
		for i := range a.cases {
			found, err := a.observe(a.ctx, a.staged[i:i+1], a.cases[i:i+1])
			if err != nil {
				t.Error(err)
			}
			faults = append(faults, found...)
		}
	}
	return faults
}

// sow sets the cookies that the cases begin with, as their servers would: by answers to
// navigations, in the tab or in a frame of another site's.
func (o *observer) sow(ctx context.Context, staged []*played) error {
	byTop := map[string][]sown{}
	for _, p := range staged {
		for _, s := range p.Browser.Cookies {
			origin, _, _ := strings.Cut(s.URL, browsertest.Root)
			line := s.SetCookie
			if !strings.Contains(strings.ToLower(line), "path=") {
				line += "; Path=" + browsertest.Root + p.id
			}
			list := byTop[s.Top]
			i := slices.IndexFunc(list, func(x sown) bool { return x.origin == origin })
			if i < 0 {
				list, i = append(list, sown{origin: origin}), len(list)
			}
			list[i].lines = append(list[i].lines, line)
			byTop[s.Top] = list
		}
	}
	for _, list := range byTop {
		slices.SortFunc(list, func(a, b sown) int { return strings.Compare(a.origin, b.origin) })
	}
	for _, top := range slices.Sorted(maps.Keys(byTop)) {
		if err := o.sowIn(ctx, top, byTop[top]); err != nil {
			return err
		}
	}
	return nil
}

// sowIn sets cookies by a chain of redirects in the tab; or, one origin after another, in
// a frame of top's: there a redirect from another site counts as an ancestor.
func (o *observer) sowIn(ctx context.Context, top string, all []sown) error {
	atOnce := 1
	if top == "" {
		atOnce = 10 // a browser follows twenty redirects
	}
	for list := range slices.Chunk(all, atOnce) {
		token := o.id()
		o.world.mu.Lock()
		o.world.seeds[token] = list
		o.world.mu.Unlock()
		first := fmt.Sprintf("%s/seed/%s/0", list[0].origin, token)
		if top == "" {
			if err := chromedp.Do(ctx, chromedp.Navigate(first)); err != nil {
				return err
			}
			continue
		}
		url := strings.TrimSuffix(top, "/page") + "/tab-" + token
		url = strings.Replace(url, "test//", "test/", 1)
		o.world.mu.Lock()
		o.world.pages[url] = browser.Page{URL: first}
		o.world.mu.Unlock()
		if err := chromedp.Do(ctx, chromedp.Navigate(url)); err != nil {
			return err
		}
	}
	return nil
}

// saw is what script came to see of a request.
type saw struct {
	Script  string   `json:"script"`
	Headers []string `json:"headers"`
}

// openMu keeps pages that differ in their headers only from being served in place of each
// other.
var openMu sync.Mutex

func (o *observer) open(ctx context.Context, p browser.Page) error {
	openMu.Lock()
	defer openMu.Unlock()
	o.world.mu.Lock()
	o.world.pages[p.URL] = p
	for _, a := range p.Ancestors {
		o.world.pages[a] = p
	}
	o.world.mu.Unlock()
	url := p.URL
	if len(p.Ancestors) > 0 {
		url = p.Ancestors[len(p.Ancestors)-1]
	}
	return chromedp.Do(ctx, chromedp.Navigate(url))
}

func (o *observer) playIn(ctx context.Context, staged []*played) ([][]saw, error) {
	page := staged[0].Page
	if err := o.open(ctx, page); err != nil {
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
	options := []chromedp.EvaluateOption{chromedp.EvalAwaitPromise}
	if leaves(staged[0].Case) {
		if staged[0].Requests[0].UserActivated {
			options = append(options, func(p *runtime.EvaluateParams) { p.UserGesture = new(true) })
		}
	}
	start := time.Now()
	answer, err := chromedp.Run(ctx, chromedp.Evaluate[string](fmt.Sprintf("%s(%s).then(JSON.stringify)", run, text), options...))
	if leaves(staged[0].Case) {
		time.Sleep(300 * time.Millisecond)
		return [][]saw{{{Script: "?"}}}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("playing, after %v: %w: %s", time.Since(start), err, text)
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

// compared are the headers in which model and browser must agree.
var compared = []string{
	"Origin", "Cookie", "Referer", "Sec-Fetch-Dest", "Sec-Fetch-Mode", "Sec-Fetch-Site", "Sec-Fetch-User", "Sec-Fetch-Storage-Access",
	"Access-Control-Request-Method", "Access-Control-Request-Headers", "Authorization",
}

// sign is a request as it is compared.
func sign(m browser.Message, own func(cookie string) bool) string {
	parts := []string{m.Method, m.URL}
	for _, name := range compared {
		v, ok := m.Header.Get(name)
		if name == "Cookie" {
			v = strings.Join(slices.DeleteFunc(strings.Split(v, "; "), func(c string) bool { return !own(c) }), "; ")
			ok = v != ""
		}
		if ok {
			parts = append(parts, name+": "+v)
		}
	}
	return strings.Join(parts, "\n      ")
}

func compareCase(p *played, traces []browser.Trace, arrived []browser.Message, saws []saw, w *watch) []string {
	var diff []string
	// Cookies for all paths of a host also reach the other cases.
	own := func(cookie string) bool {
		name, _, _ := strings.Cut(cookie, "=")
		return !strings.HasPrefix(name, "__Host-") || slices.ContainsFunc(p.Browser.Cookies, func(s browser.Seed) bool { return strings.HasPrefix(s.SetCookie, name+"=") })
	}
	var want, got []string
	for _, t := range traces {
		for _, x := range t.Exchanges {
			if !x.FromCache {
				want = append(want, sign(x.Message, own))
			}
		}
	}
	for _, m := range arrived {
		got = append(got, sign(m, own))
	}
	if !slices.Equal(want, got) {
		diff = append(diff, fmt.Sprintf("requests differ:\n  model:   %s\n  browser: %s", strings.Join(want, "\n    "), strings.Join(got, "\n    ")))
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	var told []*seen
	for _, s := range w.seen {
		if strings.Contains(s.url, browsertest.Root+p.id+"/") {
			told = append(told, s)
		}
	}
	at := -1 // in told: what threw is not told of
	for i, t := range traces {
		v := t.Verdict
		if v.Outcome != browser.Threw {
			at++
		}
		if p.Requests[i].API == browser.Font && at < len(told) {
			// The answers are no fonts: what counts is whether the bytes were handed over.
			saws[i].Script = "load"
			if told[at].netError != "" || told[at].blockedReason != "" {
				saws[i].Script = "error"
			}
		}
		if i < len(saws) && saws[i].Script != "?" {
			// How the bytes were cut up is the test server's business.
			saws[i].Headers = slices.DeleteFunc(saws[i].Headers, func(n string) bool { return n == "transfer-encoding" })
			if saws[i].Script != v.Script {
				diff = append(diff, fmt.Sprintf("script saw %q; the model says %q", saws[i].Script, v.Script))
			} else if (p.Requests[i].API == browser.Fetch || p.Requests[i].API == browser.XHR) && v.Outcome == browser.Readable && v.Type != "basic" && !slices.Equal(saws[i].Headers, v.Headers) {
				diff = append(diff, fmt.Sprintf("headers readable: %v; the model says %v", saws[i].Headers, v.Headers))
			}
		}
		if v.Outcome == browser.Threw {
			continue
		}
		if at >= len(told) || told[at].netError == "net::ERR_ABORTED" || p.Requests[i].API == browser.WebSocket {
			if s := w.early(p); s != nil {
				told = append(told, s)
				told[min(at, len(told)-1)] = s
			}
		}
		if at >= len(told) {
			diff = append(diff, "nothing told of the request")
			break
		}
		s := told[at]
		if wordless(p.Requests[i].API, v) && (s.netError == "net::ERR_ABORTED" || s.netError == "") && s.corsError == "" && s.blockedReason == "" {
			continue
		}
		if v.Console != "" && !slices.Contains(w.console, v.Console) && v.CORS != browser.HeaderDisallowedByPreflightResponse {
			diff = append(diff, fmt.Sprintf("console says %q\n  the model says %q", w.about(p), v.Console))
		}
		told1 := fmt.Sprintf("cors %q blocked %q net %q", s.corsError, s.blockedReason, netName(s))
		want1 := fmt.Sprintf("cors %q blocked %q net %q", v.CORS, v.BlockedReason, v.NetError)
		if told1 != want1 {
			diff = append(diff, fmt.Sprintf("reason told: %s\n  the model says: %s", told1, want1))
		}
	}
	return diff
}

// races is the one known deviation: whether an answer that CORS withholds, and that says
// it may be kept, comes to lie in the cache is a race in Chromium between the end of the
// answer and the end of the request. The model says that it does not.
func races(traces []browser.Trace) bool {
	return slices.ContainsFunc(traces[:len(traces)-1], func(t browser.Trace) bool {
		if t.Verdict.CORS == "" || len(t.Exchanges) == 0 {
			return false
		}
		last := t.Exchanges[len(t.Exchanges)-1]
		return !last.Preflight && strings.Contains(last.Answer.Header.Value("Cache-Control"), "max-age")
	})
}

// wordless reports whether Chromium drops the request without a word of why.
func wordless(api browser.API, v browser.Verdict) bool {
	return v.BlockedReason == "origin" || v.Outcome == browser.Blocked && (api == browser.Beacon || api == browser.Ping)
}

// about are the console's lines about a case.
func (w *watch) about(p *played) []string {
	return slices.DeleteFunc(slices.Clone(w.console), func(text string) bool {
		return !strings.Contains(text, browsertest.Root+p.id+"/") && !strings.HasPrefix(text, "Framing '") // which names the origin only
	})
}

func mentioned(lines []string, what string) bool {
	return slices.ContainsFunc(lines, func(l string) bool { return strings.Contains(l, what) })
}

// early is what became of a request that ended before the network was asked, or between
// two hops, of which only the console tells.
func (w *watch) early(p *played) *seen {
	for _, text := range w.about(p) {
		switch {
		case strings.Contains(text, "Content Security Policy"):
			return &seen{blockedReason: "csp"}
		case strings.HasPrefix(text, "Mixed Content") && !mentioned(w.about(p), "Content Security Policy") && (strings.Contains(text, "has been blocked") || strings.Contains(text, "contains a form")):
			return &seen{blockedReason: "mixed-content"}
		case strings.HasPrefix(text, "WebSocket connection to"):
			if _, name, ok := strings.Cut(text, "net::"); ok {
				return &seen{netError: "net::" + name}
			}
		case strings.Contains(text, `Request mode is "same-origin"`):
			return &seen{corsError: "DisallowedByMode"}
		case strings.Contains(text, `Request mode is "no-cors"`):
			return &seen{corsError: "NoCorsRedirectModeNotFollow"}
		}
	}
	return nil
}

// netName is the net error where it is the reason, not only another word for a block.
func netName(s *seen) string {
	if s.corsError != "" || s.netError == "net::ERR_ABORTED" {
		return ""
	}
	return s.netError
}

// shrunk looks for the smallest case that still disagrees.
func (o *observer) shrunk(t *testing.T, d disagreement) disagreement {
	t.Helper()
	b := o.newTab(t)
	for range 40 {
		smaller := false
		for _, c := range simpler(d.c) {
			found, err := b.compare([]browser.Case{c})
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

// simpler are the cases that lack one thing.
func simpler(c browser.Case) []browser.Case {
	var all []browser.Case
	add := func(change func(*browser.Case)) {
		var d browser.Case
		text, _ := json.Marshal(c)
		_ = json.Unmarshal(text, &d)
		change(&d)
		after, _ := json.Marshal(d)
		if string(after) != string(text) {
			all = append(all, d)
		}
	}
	if len(c.Requests) > 1 {
		add(func(d *browser.Case) { d.Requests = d.Requests[:1] })
	}
	add(func(d *browser.Case) { d.Browser.Cookies = nil })
	for i := range c.Browser.Cookies {
		add(func(d *browser.Case) { d.Browser.Cookies = slices.Delete(d.Browser.Cookies, i, i+1) })
	}
	add(func(d *browser.Case) { d.Page.CSP = "" })
	add(func(d *browser.Case) { d.Page.COEP = "" })
	add(func(d *browser.Case) { d.Page.ReferrerPolicy = "" })
	add(func(d *browser.Case) { d.Page.Ancestors, d.Page.Sandboxed = nil, false })
	for i := range c.Requests {
		add(func(d *browser.Case) { d.Requests[i].ReferrerPolicy = "" })
		add(func(d *browser.Case) { d.Requests[i].Body = nil })
		add(func(d *browser.Case) { d.Requests[i].Credentials = "" })
		add(func(d *browser.Case) { d.Requests[i].Redirect = "" })
		add(func(d *browser.Case) { d.Requests[i].Method = "" })
		for j := range c.Requests[i].Header {
			add(func(d *browser.Case) { d.Requests[i].Header = slices.Delete(d.Requests[i].Header, j, j+1) })
		}
	}
	for i := range c.Answers {
		for j := range c.Answers[i].Answer.Header {
			add(func(d *browser.Case) {
				d.Answers[i].Answer.Header = slices.Delete(d.Answers[i].Answer.Header, j, j+1)
			})
		}
	}
	return all
}
