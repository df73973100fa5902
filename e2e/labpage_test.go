package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/moat-gateway/moat/lab"
)

func labLesson(t *testing.T, name string) *lab.Lesson {
	t.Helper()
	for _, l := range labLessons(t) {
		if l.Name == name {
			return &l
		}
	}
	t.Fatalf("there is no lesson %q", name)
	return nil
}

// write puts a text into the lesson's editor in the place of what is there, and waits until the
// page has it: the editor tells the page when it finds time.
func (p *labTab) write(lesson *lab.Lesson, text string) {
	p.t.Helper()
	const content = `document.querySelector(".defend .editor-host").firstElementChild?.shadowRoot?.querySelector(".cm-content")`
	p.eval(`(document.querySelector(".defend").scrollIntoView(), "")`)
	p.until("the editor is there", content+" !== undefined && "+content+" !== null")
	has := fmt.Sprintf(`localStorage.getItem(%s) === %s`, quoted("draft "+lesson.Name), quoted(text))
	// What the debugger inserts while the page is busy does not always arrive. Somebody who types sees that.
	for try := 0; try < 3 && p.eval("String("+has+")") != "true"; try++ {
		p.eval("(" + content + `.focus(), "")`)
		p.do("write into the editor", chromedp.Func(func(ctx context.Context, target *chromedp.Target) error {
			if err := chromedp.Do(ctx, chromedp.KeyEvent("a", chromedp.KeyModifiers(kb.ModifierCtrl))); err != nil {
				return err
			}
			// Deleted first: in the place of a selection, Chromium puts text with the selection's style.
			if err := chromedp.Do(ctx, chromedp.KeyEvent(kb.Delete)); err != nil {
				return err
			}
			_, err := cdp.Call(ctx, target, input.InsertText, input.InsertTextParams{Text: text})
			return err
		}))
		p.eval(`new Promise((done) => setTimeout(() => done(""), 500))`)
	}
	p.until("the page has what was written", has)
}

// defend plays the battery, and returns the score.
func (p *labTab) defend() string {
	p.t.Helper()
	p.eval(`document.querySelector(".battery")?.setAttribute("data-old", "") ?? ""`)
	p.press("#defend")
	p.until("the battery is over", `document.querySelector("#defend").textContent === "Run the battery" && document.querySelector(".battery:not(.stale)") !== null`)
	return p.eval(`document.querySelector(".score").textContent.trim()`)
}

// TestLabDefend: what a lesson begins with does not hold, nor what one may take for a
// solution; the solution does; and a fault is shown at its line.
func TestLabDefend(t *testing.T) {
	thorough(t)
	t.Parallel()
	for _, name := range []string{"transfer", "same-site", "open-proxy"} {
		t.Run(name, func(t *testing.T) {
			lesson := labLesson(t, name)
			p := newLabTab(t, startLab(t))
			p.show(lesson, &lesson.Runs[0], lab.RoleAPI)
			p.until("the text to begin with is there", `document.querySelector(".defend .editor-host") !== null`)
			p.eval(`(document.querySelector(".defend").scrollIntoView(), "")`)
			if score := p.defend(); strings.Contains(score, "mended") {
				t.Errorf("the text to begin with is a solution: %s", score)
			}
			p.write(lesson, lesson.Mend.Naive)
			if score := p.defend(); strings.Contains(score, "mended") {
				t.Errorf("what is naive is a solution: %s", score)
			}
			p.write(lesson, lesson.Mend.Solution)
			if score := p.defend(); !strings.Contains(score, "mended") {
				t.Errorf("the solution is none: %s; failed: %s", score, p.eval(`[...document.querySelectorAll(".checks .failed p")].map((c) => c.textContent).join("; ")`))
			}
			p.write(lesson, lesson.Mend.Solution+"\nnonsense: true\n")
			line := p.until("the fault is shown", `(document.querySelector(".fault-list")?.innerText.replaceAll("\n", " ").match(/.*nonsense.*/) ?? [""])[0]`)
			if want := fmt.Sprintf("line %d", strings.Count(lesson.Mend.Solution, "\n")+2); !strings.Contains(line, want) {
				t.Errorf("the fault is shown as %q; want %s", line, want)
			}
			p.unspoilt()
		})
	}
}

// TestLabTable has each site's page make all of its cells, and holds them against the lesson.
func TestLabTable(t *testing.T) {
	thorough(t)
	t.Parallel()
	p := newLabTab(t, startLab(t))
	type cell struct{ title, text string }
	want := map[lab.Role][]cell{} // in the order in which the page makes them
	for _, run := range labLesson(t, theTable).Runs {
		text := "stopped"
		switch {
		case run.Expect.Readable:
			text = "read"
		case run.Expect.Ran:
			text = "done, hidden"
		}
		want[run.From] = append(want[run.From], cell{strings.Replace(run.Title, " · ", ", ", 1), text})
	}
	for from, cells := range want {
		t.Run(string(from), func(t *testing.T) {
			p.t = t
			p.open(p.origins[from] + "/#/reference")
			p.until("the table is there", `document.querySelector(".policies button") !== null`)
			p.press(".policies .actions button")
			for _, c := range cells {
				eventually(t, c.title, func() (string, bool) {
					label := p.eval(fmt.Sprintf(`[...document.querySelectorAll(".policies .cell")].find((c) => c.ariaLabel.startsWith(%s))?.ariaLabel ?? "no such cell"`, quoted(c.title+": ")))
					_, found, _ := strings.Cut(label, ": ")
					if found != "not run yet" && found != c.text {
						t.Fatalf("%s: %s; want %s", c.title, found, c.text)
					}
					return label, found == c.text
				})
			}
			p.unspoilt()
		})
	}
}

// TestLabShared: readers of one lab do not see one another's world. It is made of hosts below
// localhost, for over http only these get Sec-Fetch headers and cookies with Secure.
func TestLabShared(t *testing.T) {
	thorough(t)
	t.Parallel()
	w := startLabAs(t, func(port string) (lab.Names, error) {
		return lab.Public("http://class.localhost:"+port, "http://elsewhere.localhost:"+port)
	})
	lesson := labLesson(t, "transfer")
	run := &lesson.Runs[0]
	var wait sync.WaitGroup
	for i := range 4 {
		wait.Go(func() {
			t.Run(fmt.Sprint("reader ", i), func(t *testing.T) {
				p := newLabTab(t, w)
				p.open(w.door)
				// Every reader gets hosts of his own; the page knows them.
				p.until("the page is there", `document.querySelector("main h1") !== null`)
				origins := p.eval(`fetch("/.lab/boot").then((r) => r.json()).then((b) => JSON.stringify(b.origins))`)
				p.origins = nil
				if err := json.Unmarshal([]byte(origins), &p.origins); err != nil {
					t.Fatal(err)
				}
				c := labCase{lesson, run, lab.RoleAPI, run.Expect}
				p.show(lesson, run, lab.RoleAPI)
				c.check(t, p.make(run.Expect))
				p.unspoilt()
			})
		})
	}
	wait.Wait()
}

// axe is the engine that judges whether people with disabilities can use a page.
func axe(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "lab", "web", "node_modules", "axe-core", "axe.min.js"))
	if err != nil {
		t.Fatalf("%v; run make setup", err)
	}
	return string(b)
}

// labScreens are all there are, by their fragment; a lesson is shown as its reader leaves it.
func labScreens() []string {
	return []string{"/", "/lesson/transfer/steal", "/lesson/same-site", "/reference", "/tool/composer", "/tool/audit", "/tool/decoder"}
}

func (p *labTab) look(scheme string, width int64) {
	p.t.Helper()
	p.do("look", chromedp.Func(func(ctx context.Context, target *chromedp.Target) error {
		if _, err := cdp.Call(ctx, target, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{
			{Name: "prefers-color-scheme", Value: scheme}, {Name: "prefers-reduced-motion", Value: "reduce"},
		}}); err != nil {
			return err
		}
		_, err := cdp.Call(ctx, target, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{Width: width, Height: 800, DeviceScaleFactor: 1})
		return err
	}))
}

// TestLabIsUsable: on every screen, light and dark, axe-core finds no serious fault, nothing
// scrolls sideways at the width of a phone, and nothing moves for those who want it so.
func TestLabIsUsable(t *testing.T) {
	thorough(t)
	t.Parallel()
	engine := axe(t)
	p := newLabTab(t, startLab(t))
	for _, screen := range labScreens() {
		for _, scheme := range []string{"light", "dark"} {
			t.Run(screen+" "+scheme, func(t *testing.T) {
				p.t = t
				p.look(scheme, 1280)
				p.open(p.origins[lab.RoleStranger] + "/#" + screen)
				p.until("the screen is there", `document.querySelector("main h1") !== null`)
				if strings.HasPrefix(screen, "/lesson/transfer") {
					p.press("#run")
					p.until("the run is over", `document.querySelector(".outcome") !== null`)
				}
				// Its own script is refused by the page's policy, so it is handed to the debugger.
				p.eval(engine + `; ""`)
				found := p.eval(`axe.run(document, { resultTypes: ["violations"] }).then((r) => r.violations
					.filter((v) => v.impact === "serious" || v.impact === "critical")
					.map((v) => v.id + ": " + v.help + ": " + v.nodes.map((n) => n.html.slice(0, 160) + " " + n.any.map((a) => a.message).join("; ")).join(" | ")).join("\n"))`)
				if found != "" {
					t.Errorf("axe-core:\n%s", found)
				}
				if moving := p.eval(`document.getAnimations().filter((a) => a.playState === "running" && a.effect.getComputedTiming().duration > 100).length + ""`); moving != "0" {
					t.Errorf("%s things move", moving)
				}
				p.look(scheme, 360)
				if wide := p.eval(`[...document.querySelectorAll("body *")].filter((e) => document.documentElement.scrollWidth > innerWidth && e.getBoundingClientRect().right > innerWidth + 1).slice(0, 5).map((e) => e.outerHTML.slice(0, 120)).join("\n")`); wide != "" {
					t.Errorf("wider than a phone:\n%s", wide)
				}
			})
		}
	}
}

// TestLabByKeyboard goes from the first page to the end of a lesson without a mouse.
func TestLabByKeyboard(t *testing.T) {
	thorough(t)
	t.Parallel()
	p := newLabTab(t, startLab(t))
	p.open(p.origins[lab.RoleLab] + "/")
	p.until("the first page is there", `document.querySelector("main .button.main") !== null`)
	p.tabTo(`.button.main`)
	p.do("enter", chromedp.KeyEvent(kb.Enter))
	p.until("the lesson is there", `document.querySelector("#run") !== null && location.host.startsWith("stranger.")`)
	for _, question := range []string{"left", "arrived", "ran", "readable"} {
		p.tabTo(fmt.Sprintf("input[name=%q]", question))
		p.do("answer", chromedp.KeyEvent(" "))
	}
	p.tabTo("#run")
	p.do("enter", chromedp.KeyEvent(kb.Enter))
	p.until("the run is over", `document.querySelector(".outcome") !== null`)
	if verdict := p.eval(`document.querySelector("#outcome-title").textContent`); !strings.HasPrefix(verdict, "3 of 4 right") {
		t.Errorf("yes to all: %s; want 3 of 4 right, for the stranger cannot read it", verdict)
	}
	p.unspoilt()
}

// tabTo presses Tab until that has the focus, and holds that one can see where it is.
func (p *labTab) tabTo(selector string) {
	p.t.Helper()
	for range 80 {
		p.do("tab", chromedp.KeyEvent(kb.Tab))
		if p.eval(fmt.Sprintf(`String(document.activeElement.matches(%q))`, selector)) == "true" {
			if p.eval(`String(document.activeElement.matches(":focus-visible"))`) != "true" {
				p.t.Errorf("%s has the focus, and one does not see it", selector)
			}
			return
		}
	}
	p.t.Fatalf("no number of Tabs leads to %s", selector)
}
