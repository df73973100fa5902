package text

import (
	"slices"
	"strings"

	"github.com/moat-gateway/moat/browser"
	"github.com/moat-gateway/moat/explain"
)

// Where the lanes are, and where the words beside them begin.
const (
	lanesHeading = "page  browser  network  backend"
	wordsColumn  = 33
	minWords     = 36 // below that there are no lanes
)

var laneAt = map[explain.Party]int{explain.ThePage: 1, explain.TheBrowser: 8, explain.TheNetwork: 17, explain.TheBackend: 26}

func (p *printer) lanes(events []explain.Event) {
	if p.width < wordsColumn+minWords {
		p.narrow(events)
		return
	}
	p.line(p.paint(dim, lanesHeading))
	for i := range events {
		ev := &events[i]
		room := p.width - wordsColumn
		for j, l := range titleLines(ev, room) {
			gutter := rails()
			if j == 0 {
				gutter = arrow(ev)
			}
			if ev.Failed {
				l = p.paint(red, l)
			}
			p.line(p.gutter(gutter, ev.Failed && j == 0) + l)
		}
		for _, d := range ev.Details {
			for _, l := range detailLines(d, room) {
				p.line(p.gutter(rails(), false) + p.paint(dim, l))
			}
		}
	}
}

// titleLines: a URL is shortened to a line, a sentence is broken.
func titleLines(ev *explain.Event, room int) []string {
	title := clean(ev.Title)
	if ev.From != ev.To && ev.To != explain.ThePage {
		return []string{shorten(title, room)}
	}
	lines := fill(title, room)
	for i := range lines {
		lines[i] = shorten(lines[i], room)
	}
	return lines
}

// detailLines: a header field is shortened to a line, a sentence is broken.
func detailLines(d string, room int) []string {
	d = clean(d)
	if strings.Contains(d, ": ") {
		return []string{shortField(d, room)}
	}
	lines := fill(d, room)
	for i := range lines {
		lines[i] = shorten(lines[i], room)
	}
	return lines
}

// gutter paints the lanes of one line.
func (p *printer) gutter(cells []rune, failed bool) string {
	s := string(cells)
	if i := strings.IndexRune(s, '✗'); i >= 0 && failed {
		return p.paint(dim, s[:i]) + p.paint(red, "✗") + p.paint(dim, s[i+len("✗"):])
	}
	return p.paint(dim, s)
}

func emptyGutter() []rune { return []rune(strings.Repeat(" ", wordsColumn)) }

// rails are the lanes where nothing happens.
func rails() []rune {
	g := emptyGutter()
	for _, party := range []explain.Party{explain.ThePage, explain.TheBrowser, explain.TheBackend} {
		g[laneAt[party]] = '│'
	}
	return g
}

// arrow draws who sends to whom.
func arrow(ev *explain.Event) []rune {
	g := rails()
	from, to := laneAt[ev.From], laneAt[ev.To]
	if from == to {
		if ev.Failed {
			g[from] = '✗'
		}
		return g
	}
	low, high := min(from, to), max(from, to)
	for i := low + 1; i < high; i++ {
		g[i] = '─'
	}
	if from < to {
		g[from], g[to-1] = '├', '▶'
	} else {
		g[from], g[to+1] = '┤', '◀'
	}
	if ev.Failed && ev.To == explain.TheNetwork {
		g[to-1], g[to] = '─', '✗'
	} else if ev.Failed {
		g[to] = '✗'
	}
	return g
}

// narrow tells the same in words.
func (p *printer) narrow(events []explain.Event) {
	for i := range events {
		ev := &events[i]
		who := string(ev.From) + " → " + string(ev.To)
		if ev.From == ev.To {
			who = string(ev.From)
		}
		title := who + ": " + clean(ev.Title)
		for _, l := range fill(title, p.width) {
			l = shorten(l, p.width)
			if ev.Failed {
				l = p.paint(red, l)
			}
			p.line(l)
		}
		for _, d := range ev.Details {
			for _, l := range detailLines(d, p.width-len(indent)) {
				p.line(indent + p.paint(dim, l))
			}
		}
	}
}

func (p *printer) failure(f *explain.Failure) {
	if f == nil {
		return
	}
	p.section("What failed: " + clean(f.Step))
	found := f.Text
	if len(f.Needed) > 0 {
		found, _, _ = strings.Cut(found, "; needed: ") // it stands below
	}
	p.paragraph(indent, upperSentence(found))
	if len(f.Came) > 0 || len(f.Needed) > 0 {
		p.field("came", p.headerLines(cameOf(f))...)
		p.field("needed", p.headerLines(neededOf(f))...)
	}
	if f.CORS != "" {
		p.field("Chrome", string(f.CORS))
	}
	if f.Firefox != "" {
		p.field("Firefox", f.Firefox)
	}
	if f.Docs != "" {
		p.field("see", f.Docs)
	}
	if f.Link != "" {
		p.field("standard", f.Link)
	}
}

// upperSentence makes a sentence of a step's text.
func upperSentence(s string) string {
	if s == "" {
		return s
	}
	if c := s[0]; c >= 'a' && c <= 'z' {
		s = string(c-'a'+'A') + s[1:]
	}
	if !strings.HasSuffix(s, ".") {
		s += "."
	}
	return s
}

func cameOf(f *explain.Failure) []string {
	var lines []string
	for _, c := range f.Came {
		lines = append(lines, fieldText(c))
	}
	for _, n := range f.Needed {
		if n.Name != ":status" && !f.Came.Has(n.Name) {
			lines = append(lines, "(no "+n.Name+")")
		}
	}
	return lines
}

func neededOf(f *explain.Failure) []string {
	var lines []string
	for _, n := range f.Needed {
		lines = append(lines, fieldText(n))
	}
	if len(lines) == 0 {
		return []string{"–"}
	}
	return lines
}

func fieldText(f browser.Field) string {
	if f.Name == ":status" {
		return "status " + f.Value
	}
	return f.Name + ": " + f.Value
}

func (p *printer) headerLines(lines []string) []string {
	for i := range lines {
		lines[i] = shortField(clean(lines[i]), p.width-len(indent)-9)
	}
	return lines
}

func (p *printer) pending(e *explain.Explanation) {
	x := e.Pending
	if x == nil {
		return
	}
	title := "Not sent: "
	switch e.Source {
	case explain.FromRecord:
		title = "Not in the file: the answer to "
	case explain.FromPolicy:
		title = "Not known: the answer to "
	case explain.FromServer, explain.FromConsole:
	}
	p.section(title + shorten(clean(x.Method+" "+x.URL), p.width-len(title)))
	p.paragraph(indent, upperSentence(x.Why))
	if len(x.Needed) > 0 {
		p.paragraph(indent, "For script to read the answer, it must have:")
		for _, n := range x.Needed {
			p.line(indent + indent + shortField(clean(fieldText(n)), p.width-4))
		}
	}
}

func (p *printer) mend(e *explain.Explanation, wanted []explain.Target) {
	instead := func(c explain.Change) bool { return c.Instead }
	first := slices.DeleteFunc(slices.Clone(e.Changes), instead)
	p.changes("What to change", first)
	if len(e.Mends) > 0 {
		p.grant(e, wanted)
	}
	p.changes("Or instead", slices.DeleteFunc(slices.Clone(e.Changes), func(c explain.Change) bool { return !c.Instead }))
}

func (p *printer) changes(title string, all []explain.Change) {
	if len(all) == 0 {
		return
	}
	p.section(title)
	for i := range all {
		p.change(&all[i])
	}
}

// grant says what the server has to allow, and writes it down for those who asked.
func (p *printer) grant(e *explain.Explanation, wanted []explain.Target) {
	guessed := false
	if len(wanted) == 0 {
		wanted = ofServer(e)
		guessed = len(wanted) > 0
	}
	p.section("What the server has to grant")
	if e.Failure == nil || len(e.Failure.Needed) == 0 {
		p.paragraph(indent, "CORS, to the page's origin and to no other.")
	} else {
		p.paragraph(indent, "What is needed above, to the page's origin and to no other.")
	}
	shown := 0
	var names []string
	for i := range e.Mends {
		m := &e.Mends[i]
		names = append(names, string(m.Target))
		if slices.Contains(wanted, m.Target) {
			p.code(m, guessed)
			shown++
		}
	}
	if shown == len(e.Mends) {
		return
	}
	p.blank()
	lead := "To have it written down for your server"
	if shown > 0 {
		lead = "For another server"
	}
	p.paragraph(indent, lead+": --for "+strings.Join(names, ", ")+" or all.")
}

func (p *printer) change(c *explain.Change) {
	title := clean(c.Title)
	if rest, ok := strings.CutPrefix(title, "Or "); ok && c.Instead && rest != "" {
		title = strings.ToUpper(rest[:1]) + rest[1:] // the heading says it
	}
	p.paragraph(indent, title+" ("+string(c.Who)+"). "+c.Text)
	p.example(c.Example)
}

func (p *printer) code(m *explain.Mend, guessed bool) {
	title := m.Title
	if guessed {
		title += ", which seems to be what answered"
	}
	p.blank()
	p.paragraph(indent, clean(title)+". In "+m.File+":")
	p.blank()
	p.example(m.Code)
	if m.Note != "" {
		p.blank()
		p.paragraph(indent, m.Note)
	}
}

// example writes code, line by line.
func (p *printer) example(code string) {
	if code == "" {
		return
	}
	for l := range strings.Lines(code) {
		l = strings.TrimRight(l, "\n")
		tabs := len(l) - len(strings.TrimLeft(l, "\t"))
		p.line(indent + indent + l[:tabs] + clean(l[tabs:]))
	}
}

func (p *printer) notes(notes []string) {
	if len(notes) == 0 {
		return
	}
	p.section("To be known")
	for _, n := range notes {
		lines := fill(clean(n), p.width-4)
		for i, l := range lines {
			mark := "– "
			if i > 0 {
				mark = "  "
			}
			p.line(indent + mark + l)
		}
	}
}

// gate writes what a policy decided, a table for each request.
func (p *printer) gate(steps []explain.GateStep) {
	request := ""
	for i := range steps {
		s := &steps[i]
		if s.Request != request {
			request = s.Request
			p.section("What moat decides about " + shorten(clean(request), p.width-24))
		}
		words := s.Outcome
		if words == "report" {
			words = "would deny"
		}
		line := pad(s.Step, 15) + pad(words, 17) + s.Code
		if s.Outcome == "deny" {
			line = p.paint(red, line)
		}
		p.line(indent + line)
		p.gateDetails(s)
	}
}

func (p *printer) gateDetails(s *explain.GateStep) {
	detail := func(name, value string) {
		if value == "" {
			return
		}
		const margin = "                 " // as wide as indent and step
		for i, l := range fill(clean(value), p.width-len(margin)-8) {
			if i > 0 {
				name = ""
			}
			p.line(margin + pad(name, 8) + shorten(l, p.width-len(margin)-8))
		}
	}
	detail("cause", s.Cause)
	detail("seen", s.Seen)
	detail("wanted", s.Want)
	switch {
	case s.Where != "":
		detail("line", s.Where+"  "+s.Written)
	case s.Field != "":
		detail("setting", s.Field+", which the file leaves out")
	}
	if s.Outcome == "deny" || s.Outcome == "report" {
		detail("fix", s.Fix)
		p.line(strings.Repeat(" ", 17) + pad("see", 8) + "docs/reasons.md#" + s.Code)
	}
}

func pad(s string, width int) string {
	return s + strings.Repeat(" ", max(1, width-columns(s)))
}
