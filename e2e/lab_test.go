package e2e

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/moat-gateway/moat/lab"
)

var (
	onlyLesson = flag.String("lab.lesson", "", "of the lab's lessons, play this one only")
	everyRun   = flag.Bool("lab.all", false, "play also the runs that try to break the lab's lessons")
)

// labWorld is a lab in this process, on a port of its own: what one test does in it no
// other sees.
type labWorld struct {
	origins map[lab.Role]string
	door    string
}

func startLab(t *testing.T) labWorld {
	t.Helper()
	return startLabAs(t, func(port string) (lab.Names, error) { return lab.Localhost("http", port), nil })
}

func startLabAs(t *testing.T, named func(port string) (lab.Names, error)) labWorld {
	t.Helper()
	var lc net.ListenConfig
	listener, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, err := net.SplitHostPort(listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	names, err := named(port)
	if err != nil {
		t.Fatal(err)
	}
	l := lab.New(lab.Options{Names: names, Lessons: labLessons(t), Log: slog.New(slog.DiscardHandler)})
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	over := make(chan error)
	go func() { over <- l.Serve(ctx, listener) }()
	t.Cleanup(func() {
		stop()
		<-over
	})
	return labWorld{origins: names.Origins(""), door: names.Door()}
}

func labLessons(t *testing.T) []lab.Lesson {
	t.Helper()
	lessons, err := lab.Lessons()
	if err != nil {
		t.Fatal(err)
	}
	return lessons
}

// labTab is a tab with the lab's page in it.
type labTab struct {
	*tab
	labWorld

	mu         sync.Mutex
	complaints []string
}

func newLabTab(t *testing.T, w labWorld) *labTab {
	t.Helper()
	p := &labTab{tab: newTab(t), labWorld: w}
	if err := chromedp.Listen(p.ctx, p.listen); err != nil {
		t.Fatal(err)
	}
	return p
}

// listen keeps what the page itself complains about. What the browser says of the requests
// that the lessons make is what they are about.
func (p *labTab) listen(event any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch e := event.(type) {
	case *log.EventEntryAdded:
		if !p.ofLesson(e.Entry) {
			p.complaints = append(p.complaints, fmt.Sprintf("%s: %s (%s)", e.Entry.Source, e.Entry.Text, e.Entry.URL))
		}
	case *runtime.EventExceptionThrown:
		p.complaints = append(p.complaints, "exception: "+e.ExceptionDetails.Text)
	case *runtime.EventConsoleAPICalled:
		if slices.Contains([]string{"error", "warning", "assert"}, string(e.Type)) {
			p.complaints = append(p.complaints, "console: "+string(e.Type))
		}
	}
}

func (p *labTab) ofLesson(e *log.Entry) bool {
	if strings.Contains(e.Text, "Content Security Policy") {
		return false
	}
	if strings.HasPrefix(e.Text, "WebSocket connection to ") {
		return true
	}
	switch string(e.Source) {
	case "network":
		u, err := url.Parse(e.URL)
		if err == nil && strings.HasPrefix(u.Path, "/.lab/script/") { // a lesson's own, and what it asked for
			return strings.HasPrefix(e.Text, "WebSocket connection to ")
		}
		return err == nil && !strings.HasPrefix(u.Path, "/.lab/") && u.Path != "/" && !strings.HasPrefix(u.Path, "/assets/")
	case "javascript":
		return strings.HasPrefix(e.Text, "Access to ") || strings.HasPrefix(e.Text, "Fetch API cannot load ")
	}
	return false
}

// unspoilt fails the test if the page complained, or asked anybody but the lab.
func (p *labTab) unspoilt() {
	p.t.Helper()
	p.mu.Lock()
	for _, c := range p.complaints {
		p.t.Errorf("the page complained: %s", c)
	}
	p.complaints = nil
	p.mu.Unlock()
	p.tab.mu.Lock()
	defer p.tab.mu.Unlock()
	for _, r := range p.requests {
		u, err := url.Parse(r.url)
		if err != nil {
			p.t.Errorf("the page asked %s: %v", r.url, err)
			continue
		}
		if host := u.Hostname(); u.Scheme != "data" && u.Scheme != "blob" && u.Scheme != "about" && host != "localhost" && !strings.HasSuffix(host, ".localhost") {
			p.t.Errorf("the page asked %s", r.url)
		}
	}
}

// place is where the page shows a run: on the site whose page makes it.
func (p *labTab) place(lesson *lab.Lesson, run *lab.Run, target lab.Role) string {
	return fmt.Sprintf("%s/#/lesson/%s/%s?target=%s", p.origins[run.From], lesson.Name, run.ID, target)
}

// until waits for an expression of the page to be true, or a text.
func (p *labTab) until(what, expression string) string {
	p.t.Helper()
	var seen string
	eventually(p.t, what, func() (string, bool) {
		v, err := p.tryEval("String(" + expression + ")")
		if err != nil {
			return err.Error(), false // a page that is on its way out may be the one that evaluates
		}
		if seen = v; v == "" {
			v, _ = p.tryEval(`location.href + ": " + document.body.innerText.slice(0, 2000)`)
			return v, false
		}
		return v, v != "" && v != "false" && v != "null" && v != "undefined"
	})
	return seen
}

// labEvent is what the ledger has, as far as it is looked at here.
type labEvent struct {
	Seq, Request int
	Kind         string
	Preflight    bool
	Outcome      string
	Reason       string
	Books        *lab.Books
}

// came is what the page shows of a run that is over, and what the ledger has of it.
type came struct {
	Facts     map[string]string
	Verdict   string // how many were predicted
	Tally     []string
	Agreement string
	Agrees    bool
	Fault     string
	Lanes     []struct{ Lane, Label, Title string }
	Ledger    []labEvent
}

// show goes to a run on the page.
func (p *labTab) show(lesson *lab.Lesson, run *lab.Run, target lab.Role) {
	p.t.Helper()
	p.open(p.place(lesson, run, target))
	p.until("the page shows the run", fmt.Sprintf(`document.querySelector("#setup-title")?.textContent === %s
		&& location.origin === %q
		&& (document.querySelector(".target") === null || document.querySelector(".target [aria-pressed=true]").textContent === %q)`,
		quoted(run.Title), p.origins[run.From], map[lab.Role]string{lab.RoleAPI: "bare API", lab.RoleGate: "through moat"}[target]))
}

// press presses a button with the keyboard: no matter where it is, and whether it moves.
func (p *labTab) press(selector string) {
	p.t.Helper()
	p.do("press "+selector, chromedp.SendKeys(chromedp.CSS(selector), kb.Enter))
}

// anew has the browser forget its cookies: an earlier run's would be a reader's mistake, and
// not the lesson's. Runs to which the cache matters ask for what is in none.
func (p *labTab) anew() {
	p.t.Helper()
	p.do("forget cookies", chromedp.Func(func(ctx context.Context, target *chromedp.Target) error {
		_, err := cdp.Call(ctx, target, network.ClearBrowserCookies, cdp.Empty{})
		return err
	}))
}

// signIn signs alice in for the run that is shown, and comes back.
func (p *labTab) signIn() {
	p.t.Helper()
	p.eval(`document.body.dataset.before = ""`)
	p.press("#sign-in")
	p.until("the browser is back from signing in", `document.body.dataset.before === undefined && document.querySelector(".sign-in [role=status] b") !== null`)
}

// run predicts, runs, and waits for the end.
func (p *labTab) make(want lab.Expect) came {
	p.t.Helper()
	for question, yes := range map[string]bool{"left": want.Left, "arrived": want.Arrived, "ran": want.Ran, "readable": want.Readable} {
		p.eval(fmt.Sprintf(`document.querySelector('input[name=%q][value=%q]').click() ?? ""`, question, word(yes)))
	}
	p.forget()
	p.press("#run")
	p.until("the run is over", `document.querySelector(".outcome") || document.querySelector(".fault").textContent ? "over" : ""`)
	text := p.eval(`(async () => {
		const text = (e) => e?.textContent.trim() ?? "";
		const all = (selector, f) => [...document.querySelectorAll(selector)].map(f);
		const number = document.querySelector(".lanes")?.dataset.run ?? 0;
		return JSON.stringify({
			facts: Object.fromEntries(all("[data-question]", (f) => [f.dataset.question, text(f.querySelector(".fact strong"))])),
			verdict: text(document.querySelector("#outcome-title")),
			tally: all(".tally li", text),
			agreement: text(document.querySelector(".agreement")),
			agrees: document.querySelector(".agreement.agrees") !== null,
			fault: text(document.querySelector(".fault")),
			lanes: all(".lanes .event", (e) => ({ lane: e.dataset.lane, label: text(e.querySelector(".event-label span:last-child")), title: text(e.querySelector(".event-title")) })),
			ledger: (await (await fetch("/.lab/ledger?run=" + number)).json()) ?? [],
		});
	})()`)
	var c came
	if err := json.Unmarshal([]byte(text), &c); err != nil {
		p.t.Fatalf("%v: %s", err, text)
	}
	return c
}

func word(yes bool) string {
	if yes {
		return "yes"
	}
	return "no"
}

// labCase is a run at a target, and what must become of it.
type labCase struct {
	lesson *lab.Lesson
	run    *lab.Run
	target lab.Role
	want   lab.Expect
}

func (c labCase) String() string { return fmt.Sprintf("%s/%s/%s", c.lesson.Name, c.run.ID, c.target) }

// labCases are the runs of a lesson, bare, and through moat where the lesson says what becomes
// of them there. Those that try to break it are as many again, which takes minutes: the model
// makes all of them in the tests of package lab, and make verify-lab has the browser make them.
func labCases(lesson *lab.Lesson) (all []labCase) {
	runs := lesson.Runs
	if *everyRun {
		runs = slices.Concat(runs, lesson.Break)
	}
	for _, run := range runs {
		if run.Only != lab.RoleGate {
			all = append(all, labCase{lesson, &run, lab.RoleAPI, run.Expect})
		}
		switch {
		case run.Gated != nil:
			all = append(all, labCase{lesson, &run, lab.RoleGate, *run.Gated})
		case run.Only == lab.RoleGate:
			all = append(all, labCase{lesson, &run, lab.RoleGate, run.Expect})
		}
	}
	return all
}

// check holds what came of a run against what the lesson says.
func (c labCase) check(t *testing.T, got came) {
	t.Helper()
	if got.Fault != "" {
		t.Fatalf("the page says: %s", got.Fault)
	}
	for question, yes := range map[string]bool{"left": c.want.Left, "arrived": c.want.Arrived, "ran": c.want.Ran, "readable": c.want.Readable} {
		if got.Facts[question] != word(yes) {
			t.Errorf("%s: %s; want %s", question, got.Facts[question], word(yes))
		}
	}
	if !strings.HasPrefix(got.Verdict, "4 of 4 right") {
		t.Errorf("what was predicted: %s", got.Verdict)
	}
	tally := strings.Join(got.Tally, "\n")
	for _, name := range []string{string(c.want.Error), c.want.Reason} {
		if name != "" && !strings.Contains(tally, name) {
			t.Errorf("the page does not name %s:\n%s", name, tally)
		}
	}
	// Scripts are told, but no model makes them; and the lab's own client is no browser.
	if c.run.Do == "" && c.run.From != lab.RoleLab && !got.Agrees {
		t.Errorf("model and browser: %s", got.Agreement)
	}
	c.checkLedger(t, got)
	if t.Failed() {
		t.Logf("lanes:\n%+v\nledger:\n%+v", got.Lanes, got.Ledger)
	}
}

func (c labCase) checkLedger(t *testing.T, got came) {
	t.Helper()
	var arrived, ran int
	alice := 1000
	for _, e := range got.Ledger {
		switch {
		case e.Kind == "arrived" && !e.Preflight:
			arrived++
		case e.Kind == "ran":
			ran++
		}
		if e.Books != nil {
			alice = e.Books.Alice
		}
	}
	// Of several requests the last one is predicted, and the ledger does not say which that is.
	if len(c.run.Requests) == 1 && ((arrived > 0) != c.want.Arrived || (ran > 0) != c.want.Ran) {
		t.Errorf("the ledger has %d requests that arrived and %d that ran", arrived, ran)
	}
	if alice-1000 != c.want.Alice {
		t.Errorf("by the ledger alice has %d; want %d", alice, 1000+c.want.Alice)
	}
	shown := map[string]int{}
	for _, e := range got.Lanes {
		shown[e.Lane]++
		if e.Lane == "backend" && e.Label == "the handler ran" {
			shown["ran"]++
		}
	}
	if shown["page"] == 0 || shown["ran"] != ran || arrived > 0 && (shown["network"] < 2 || shown["backend"] == 0) {
		t.Errorf("the lanes have %v; the ledger %d requests that arrived and %d that ran", shown, arrived, ran)
	}
}

// atTwoMinutes is the age at which a cookie without SameSite is no longer young.
const atTwoMinutes = 122 * time.Second

// theTable is the lesson that the page shows as a table: see TestLabTable.
const theTable = "quick-reference"

// waiting is a run for which alice signed in, and whose cookie has to grow old.
type waiting struct {
	labCase
	tab   *labTab
	since time.Time
}

// TestLabLessons makes the runs of every lesson in a real browser, through the page.
func TestLabLessons(t *testing.T) {
	thorough(t)
	t.Parallel()
	var (
		old   []waiting
		young [][]labCase // those of one tab, one after another
	)
	for _, lesson := range labLessons(t) {
		if *onlyLesson != "" && lesson.Name != *onlyLesson || lesson.Name == theTable {
			continue
		}
		tabs := map[lab.Role][]labCase{}
		for _, c := range labCases(&lesson) {
			if c.run.Age == 0 {
				tabs[c.run.From] = append(tabs[c.run.From], c)
				continue
			}
			p := newLabTab(t, startLab(t))
			p.show(c.lesson, c.run, c.target)
			p.signIn()
			old = append(old, waiting{c, p, time.Now()})
		}
		for _, cases := range tabs {
			young = slices.AppendSeq(young, slices.Chunk(cases, 8))
		}
	}
	if len(young) == 0 {
		t.Fatalf("-lab.lesson: there is no lesson %q", *onlyLesson)
	}
	// While their cookies grow old, all others have their turn. A run is mostly waiting, so
	// there are more at once than this machine may have cores.
	work := make(chan []labCase)
	var wait sync.WaitGroup
	for range 4 {
		wait.Go(func() {
			for cases := range work {
				playTogether(t, cases)
			}
		})
	}
	for _, cases := range young {
		work <- cases
	}
	close(work)
	wait.Wait()
	for _, w := range old {
		t.Run(w.String(), func(t *testing.T) {
			w.tab.t = t
			time.Sleep(time.Until(w.since.Add(atTwoMinutes)))
			w.check(t, w.tab.make(w.want))
			w.tab.unspoilt()
		})
	}
}

// playTogether makes runs in one tab.
func playTogether(t *testing.T, cases []labCase) {
	t.Helper()
	p := newLabTab(t, startLab(t))
	defer p.close()
	for _, c := range cases {
		t.Run(c.String(), func(t *testing.T) {
			p.t = t
			p.anew()
			p.show(c.lesson, c.run, c.target)
			if len(c.run.Cookies) > 0 {
				p.signIn()
			}
			c.check(t, p.make(c.want))
			p.unspoilt()
		})
	}
}
