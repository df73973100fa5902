package lab

import (
	"bytes"
	"cmp"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"

	"go.yaml.in/yaml/v4"

	"github.com/moat-gateway/moat/browser"
)

// Lesson is one of lessons/. docs/lab.md says how to write one.
type Lesson struct {
	// Name is that of its folder.
	Name string `json:"name"`
	// Order sorts the lessons; Part is the heading that it stands under.
	Order int    `json:"order"`
	Part  string `json:"part"`
	Title string `json:"title"`
	// Letter is that of the scenario in the article that the lab grew from, if it has one.
	Letter string `json:"letter,omitempty"`
	// Summary is what one knows afterwards, in one sentence.
	Summary string `json:"summary"`
	// Text is text.md, as HTML.
	Text string `json:"text"`
	// Runs are what the reader does; Break are those with which he tries to break what he
	// has just learnt.
	Runs  []Run `json:"runs"`
	Break []Run `json:"break,omitempty"`
	// Mend is the defence, if moat is one.
	Mend *Mend `json:"mend,omitempty"`
	// Script is script.js, if there is one.
	Script string `json:"script,omitempty"`
}

// Run is something that a page does, and what becomes of it.
type Run struct {
	ID    string `json:"id"`
	Title string `json:"title"`
	// From is whose page does it. "lab" is the lab's own client, which is no browser: what
	// curl does.
	From Role `json:"from"`
	// Sandboxed has it done in an <iframe sandbox="allow-scripts allow-forms">.
	Sandboxed bool `json:"sandboxed,omitempty"`
	// Answers are what the API's middleware answers.
	Answers Answers `json:"answers,omitzero"`
	// Cookies are what the bank's API has set when the reader signed in there before, as
	// Set-Cookie lines. {session} stands for what the API knows alice by.
	Cookies []string `json:"cookies,omitempty"`
	// Age is how old these are, in seconds.
	Age int `json:"age,omitempty"`
	// Requests are made one after another; the last one is what is predicted. {target} is
	// the API, or moat in front of it; {once} in a URL keeps it out of what the browser
	// remembers of earlier runs.
	Requests []browser.Request `json:"requests,omitempty"`
	// Tickets has each request bring a ticket of moat's along, as its client in a page does it;
	// or the "same" one again. Only the battery can do this, so it is for mend.checks.
	Tickets TicketUse `json:"tickets,omitempty"`
	// Do is the name of a function in script.js that does it instead. Then only a real
	// browser can.
	Do string `json:"do,omitempty"`
	// Only says that it makes sense at one target only: "api" or "gate".
	Only Role `json:"only,omitempty"`
	// Expect is what becomes of it at the bare API.
	Expect Expect `json:"expect"`
	// Gated is what becomes of it with moat in front and the lesson's solution in force.
	Gated *Expect `json:"gated,omitempty"`
	// Attack says that it must not run through a gate that is configured well. Otherwise
	// it must, and be readable as Expect has it.
	Attack bool `json:"attack,omitempty"`
	// Why explains, as markdown in the file and HTML here.
	Why string `json:"why,omitempty"`

	// once is what {once} stands for.
	once string
}

// TicketUse is which ticket a request brings along.
type TicketUse string

const (
	ticketsEach TicketUse = "each"
	ticketsSame TicketUse = "same"
)

// Expect are the answers to the four questions, and what the browser calls the failure.
type Expect struct {
	Left     bool `json:"left"`
	Arrived  bool `json:"arrived"`
	Ran      bool `json:"ran"`
	Readable bool `json:"readable"`
	// Error is Chromium's name of it.
	Error browser.CORSError `json:"error,omitempty"`
	// Reason is moat's code, where the gate refused.
	Reason string `json:"reason,omitempty"`
	// Alice is what her balance changes by.
	Alice int `json:"alice,omitempty"`
}

// Mend is a gate to be configured.
type Mend struct {
	// Text is mend.md, as HTML.
	Text string `json:"text"`
	// Start is start.yaml, with which the reader begins; Solution is solution.yaml. Naive
	// is naive.yaml, which somebody might take for one.
	Start    string `json:"start"`
	Solution string `json:"solution"`
	Naive    string `json:"-"`
	// Checks are the battery: the lesson's own runs count, too.
	Checks []Run `json:"checks"`
}

//go:embed lessons
var lessonFiles embed.FS

// Lessons are those that the lab comes with, in order.
func Lessons() ([]Lesson, error) {
	root, err := fs.Sub(lessonFiles, "lessons")
	if err != nil {
		return nil, err
	}
	return ReadLessons(root)
}

// ReadLessons reads the folders of lessons. Whatever is wrong in any of them is an error.
func ReadLessons(root fs.FS) ([]Lesson, error) {
	named := map[string]Answers{}
	if err := readYAML(root, "answers.yaml", &named); err != nil {
		return nil, err
	}
	folders, err := fs.Glob(root, "*/lesson.yaml")
	if err != nil {
		return nil, err
	}
	var (
		lessons []Lesson
		faults  []error
	)
	for _, name := range folders {
		l, err := readLesson(root, path.Dir(name), named)
		if err != nil {
			faults = append(faults, err)
			continue
		}
		lessons = append(lessons, l)
	}
	slices.SortFunc(lessons, func(a, b Lesson) int {
		return cmp.Or(cmp.Compare(a.Order, b.Order), cmp.Compare(a.Name, b.Name))
	})
	return lessons, errors.Join(faults...)
}

func readLesson(root fs.FS, folder string, named map[string]Answers) (Lesson, error) {
	l := Lesson{}
	if err := readYAML(root, path.Join(folder, "lesson.yaml"), &l); err != nil {
		return l, err
	}
	l.Name = folder
	text := func(name string, required bool) (string, error) {
		b, err := fs.ReadFile(root, path.Join(folder, name))
		if errors.Is(err, fs.ErrNotExist) && !required {
			return "", nil
		}
		return string(b), err
	}
	var err error
	if l.Text, err = text("text.md", true); err != nil {
		return l, err
	}
	if l.Script, err = text("script.js", false); err != nil {
		return l, err
	}
	if l.Mend != nil {
		for name, to := range map[string]*string{"mend.md": &l.Mend.Text, "start.yaml": &l.Mend.Start, "naive.yaml": &l.Mend.Naive, "solution.yaml": &l.Mend.Solution} {
			if *to, err = text(name, true); err != nil {
				return l, err
			}
		}
		l.Mend.Text = html(l.Mend.Text)
	}
	l.Text = html(l.Text)
	lists := [][]Run{l.Runs, l.Break}
	if l.Mend != nil {
		lists = append(lists, l.Mend.Checks)
	}
	for _, runs := range lists {
		for i := range runs {
			if err := runs[i].compile(named); err != nil {
				return l, fmt.Errorf("%s/lesson.yaml: run %q: %w", folder, runs[i].ID, err)
			}
		}
	}
	return l, nil
}

// compile looks the answers' name up, and judges.
func (r *Run) compile(named map[string]Answers) error {
	if r.Answers.Name != "" {
		a, ok := named[r.Answers.Name]
		if !ok {
			return fmt.Errorf("answers: %q: not in answers.yaml", r.Answers.Name)
		}
		r.Answers = a
	}
	if !slices.Contains(sites, r.From) {
		return fmt.Errorf("from: %q: not bank, blog, stranger or lab", r.From)
	}
	if r.Tickets != "" && r.Tickets != ticketsEach && r.Tickets != ticketsSame {
		return fmt.Errorf("tickets: %.20q: neither each nor same", r.Tickets)
	}
	if (len(r.Requests) == 0) == (r.Do == "") {
		return errors.New("it needs requests, or the name of a function in script.js, and not both")
	}
	r.Why = html(r.Why)
	return judge(r.Answers.Rules, r.Cookies)
}

// readYAML reads a file by way of JSON, so that one set of tags describes both.
func readYAML(root fs.FS, name string, to any) error {
	b, err := fs.ReadFile(root, name)
	if err != nil {
		return err
	}
	var tree any
	if err = yaml.Unmarshal(b, &tree); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if b, err = json.Marshal(tree); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(to); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}
