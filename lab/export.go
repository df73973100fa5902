package lab

import (
	"bytes"
	"context"
	"embed"
	"errors"
	"fmt"
	"html/template"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

//go:embed export
var exportFiles embed.FS

var exportPages = template.Must(template.ParseFS(exportFiles, "export/*.html"))

// exportMark is the file that tells an export from any other folder. It lists the other
// files, so that the next export removes those, and nothing else.
const exportMark = ".moat-lab-export"

// ErrNoExport says that a folder has something in it that no export wrote.
var ErrNoExport = errors.New("there are files in it, and none that says that an export wrote them")

// Export writes the lessons and what becomes of their runs into dir, as pages that need no
// lab, no script and no network. The runs are made by the browser's model, at a lab of its
// own. The same lessons give the same bytes.
func Export(ctx context.Context, dir string, lessons []Lesson) error {
	// A name of this kind is looked up by nobody, so the usual port will do: it is left out
	// of an origin, and no page depends on a port that was free.
	names := Localhost("http", "80")
	files := map[string][]byte{}
	for i := range lessons {
		page, err := exportLesson(ctx, names, lessons, i)
		if err != nil {
			return fmt.Errorf("lesson %s: %w", lessons[i].Name, err)
		}
		files[path.Join("lessons", lessons[i].Name+".html")] = page
	}
	var index bytes.Buffer
	if err := exportPages.ExecuteTemplate(&index, "index.html", map[string]any{"Root": "", "Title": "moat lab", "Parts": partsOf(lessons), "Origins": exportOrigins(names)}); err != nil {
		return err
	}
	files["index.html"] = index.Bytes()
	style, err := exportFiles.ReadFile("export/lab.css")
	if err != nil {
		return err
	}
	files["lab.css"] = style
	return writeExport(dir, files)
}

// writeExport replaces an earlier export. It never leaves dir, whatever the mark says.
func writeExport(dir string, files map[string][]byte) error {
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // a site is for everybody to read
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close() //nolint:errcheck // nothing is written through it
	mark, err := root.ReadFile(exportMark)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		found, readErr := fs.ReadDir(root.FS(), ".")
		if readErr != nil {
			return readErr
		}
		if len(found) > 0 {
			return fmt.Errorf("%s: %w: %s, for instance", dir, ErrNoExport, found[0].Name())
		}
	case err != nil:
		return err
	}
	for name := range strings.Lines(string(mark)) {
		if err := root.Remove(strings.TrimSpace(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("an earlier export: %w", err)
		}
	}
	names := slices.Sorted(maps.Keys(files))
	// First of all, so that an export that was broken off is known for one.
	if err := root.WriteFile(exportMark, []byte(strings.Join(names, "\n")+"\n"), 0o644); err != nil {
		return err
	}
	for _, name := range names {
		if err := root.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return err
		}
		if err := root.WriteFile(name, files[name], 0o644); err != nil {
			return err
		}
	}
	return nil
}

// part is a heading and the lessons below it.
type part struct {
	Title   string
	Lessons []*Lesson
}

func partsOf(lessons []Lesson) (parts []part) {
	for i := range lessons {
		l := &lessons[i]
		if len(parts) == 0 || parts[len(parts)-1].Title != l.Part {
			parts = append(parts, part{Title: l.Part})
		}
		last := &parts[len(parts)-1]
		last.Lessons = append(last.Lessons, l)
	}
	return parts
}

// roleOrigin is whose origin it is.
type roleOrigin struct{ Role, Origin, What string }

func exportOrigins(n Names) []roleOrigin {
	var all []roleOrigin
	for _, r := range []struct {
		role Role
		what string
	}{
		{RoleBank, "the site whose users are at stake"},
		{RoleAPI, "its API, bare: it does what it is asked to"},
		{RoleGate, "moat, in front of the same API"},
		{RoleBlog, "a sibling subdomain: another origin, but the same site"},
		{RoleStranger, "anybody's page: another site"},
	} {
		all = append(all, roleOrigin{string(r.role), n.Origin(r.role, ""), r.what})
	}
	return all
}

// record is a run and what became of it.
type record struct {
	*Run
	// Page is whose page did it.
	Page string
	// WhyHTML is Run.Why, which is HTML.
	WhyHTML template.HTML
	// Bare is what became of it at the API, and Gated with moat in front. Either may be
	// nil.
	Bare, Gated *recorded
	Broke       bool
}

// recorded is what the four lanes show.
type recorded struct {
	Expect
	Moments []moment
}

// exportLesson makes all runs of a lesson, and its page.
func exportLesson(ctx context.Context, names Names, lessons []Lesson, i int) ([]byte, error) {
	lesson := &lessons[i]
	l := New(Options{Names: names, Lessons: lessons})
	defer l.visitors.close()
	v := l.visitors.find("", time.Now())
	// What is new every time, and secret, stands as its name.
	hidden := []string{v.session, "{session}", v.csrf, "{csrf}"}
	for pair := range slices.Chunk(v.keys.told, 2) {
		hidden = append(hidden, pair[1], pair[0])
	}
	made := func(run *Run, target Role, expect *Expect) (*recorded, error) {
		if target == RoleGate {
			if err := l.gateFor(v, lesson.Name, true); err != nil {
				return nil, err
			}
		}
		r, once, err := l.record(ctx, v, run, target, expect)
		if once != "" {
			hidden = append(hidden, once, "{once}")
		}
		return r, err
	}
	var (
		records []record
		err     error
	)
	for n, run := range slices.Concat(lesson.Runs, lesson.Break) {
		r := record{Run: &run, Page: names.Origin(run.From, ""), WhyHTML: template.HTML(run.Why), Broke: n >= len(lesson.Runs)} //nolint:gosec // as the text below
		if run.Only != RoleGate {
			if r.Bare, err = made(&run, RoleAPI, &run.Expect); err != nil {
				return nil, fmt.Errorf("run %s: %w", run.ID, err)
			}
		}
		if expect := gatedExpect(&run); expect != nil {
			if r.Gated, err = made(&run, RoleGate, expect); err != nil {
				return nil, fmt.Errorf("run %s, through the gate: %w", run.ID, err)
			}
		}
		records = append(records, r)
	}
	data := map[string]any{"Root": "../", "Title": lesson.Title, "Lesson": lesson, "Text": template.HTML(lesson.Text), "Records": records} //nolint:gosec // goldmark made it of the lesson's own text, and lets no markup through
	if lesson.Mend != nil {
		data["MendText"] = template.HTML(lesson.Mend.Text) //nolint:gosec // as above
	}
	if i > 0 {
		data["Before"] = &lessons[i-1]
	}
	if i < len(lessons)-1 {
		data["After"] = &lessons[i+1]
	}
	var page bytes.Buffer
	if err := exportPages.ExecuteTemplate(&page, "lesson.html", data); err != nil {
		return nil, err
	}
	return []byte(instant.ReplaceAllString(strings.NewReplacer(hidden...).Replace(page.String()), "{time}")), nil
}

// instant is a time as moat tells it, such as when a token expired.
var instant = regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ`)

func gatedExpect(run *Run) *Expect {
	switch {
	case run.Gated != nil:
		return run.Gated
	case run.Only == RoleGate:
		return &run.Expect
	}
	return nil
}

// record makes a run with the model, and tells what {once} was. What only a browser can do
// is told, not made.
func (l *Lab) record(ctx context.Context, v *visitor, run *Run, target Role, expect *Expect) (r *recorded, once string, err error) {
	if run.Do != "" {
		return &recorded{Expect: *expect}, "", nil
	}
	o, err := l.play(ctx, v, run, target, time.Now())
	if err != nil {
		return nil, "", err
	}
	return &recorded{o.Expect, moments(&o)}, o.made.once, nil
}
