// Package text writes explanations for people who read a terminal.
//
// The rules of the output:
//
//   - The first line is the verdict: whether the page gets what it wants and, if not,
//     whether the backend has done the work all the same. Who reads nothing else has it.
//   - Then, each under a heading at the left margin: whether the backend executed it, what
//     travelled, the step that failed with the header that came and the one that was
//     needed, and how to mend it. What is not the case has no heading.
//   - What travelled is drawn as lanes: page, browser, network, backend, from left to
//     right. An arrow that ends early ended there. The words stand to the right of the
//     lanes; on a terminal too narrow for that, there are no lanes, only words.
//   - No line is wider than the terminal, except code and links, which break when they are
//     broken. A long value of a header is shortened in its middle: its two ends tell most.
//   - Code stands as it has to be written, indented, with nothing in front of its lines, so
//     that it can be copied.
//   - Colour says nothing that the words do not say. There is some on a terminal and none
//     elsewhere: green for what passes, red for what does not, yellow for what cannot be
//     told, dim for lanes. Nothing blinks, nothing smiles.
//   - Where the terminal does not take UTF-8, everything is ASCII.
//   - What strangers wrote (headers, URLs) never reaches the terminal with control
//     characters in it.
package text

import (
	"io"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/moat-gateway/moat/explain"
)

// Options say how to write.
type Options struct {
	// Width is the terminal's, in columns; 0 stands for 80.
	Width int
	// Color allows escape sequences, and ASCII nothing beyond ASCII.
	Color, ASCII bool
	// For are the targets whose change is written out. If it is empty, that is the one of
	// the server that answered, as far as its header tells.
	For []explain.Target
}

const (
	defaultWidth = 80
	minWidth     = 60  // names of errors need that much
	maxWidth     = 120 // longer lines are hard to read
	indent       = "  "
)

// Write writes an explanation.
func Write(w io.Writer, e *explain.Explanation, o Options) error {
	p := newPrinter(o)
	p.verdict(e)
	p.section("Did the backend execute it?")
	p.paragraph(indent, e.Executed.Text)
	p.gate(e.Gate)
	if len(e.Lanes) > 0 {
		p.blank()
		p.lanes(e.Lanes)
	}
	p.failure(e.Failure)
	p.pending(e)
	p.mend(e, o.For)
	p.notes(e.Notes)
	return p.flush(w)
}

// summaryMargin is as wide as the word for an outcome, and two blanks.
const summaryMargin = "         "

// Line writes an explanation in a single line: the outcome, and the summary.
func Line(w io.Writer, name string, e *explain.Explanation, o Options) error {
	p := newPrinter(o)
	word := string(e.Outcome)
	p.line(p.paint(colorOf(e.Outcome), word) + strings.Repeat(" ", len(summaryMargin)-len(word)) + shorten(clean(name), p.width-len(summaryMargin)))
	p.paragraph(summaryMargin, e.Summary)
	return p.flush(w)
}

// Heading writes the line that stands above one of several explanations.
func Heading(w io.Writer, title string, o Options) error {
	p := newPrinter(o)
	p.line(p.paint(bold, shorten(clean(title), p.width)))
	p.blank()
	return p.flush(w)
}

// Count writes how many of the explanations came to what.
func Count(w io.Writer, all []*explain.Explanation, o Options) error {
	p := newPrinter(o)
	var parts []string
	for _, outcome := range []explain.Outcome{explain.Allowed, explain.Blocked, explain.Refused, explain.Unknown} {
		n := 0
		for _, e := range all {
			if e.Outcome == outcome {
				n++
			}
		}
		if n > 0 {
			parts = append(parts, p.paint(colorOf(outcome), strconv.Itoa(n)+" "+string(outcome)))
		}
	}
	requests := " cross-origin requests: "
	if len(all) == 1 {
		requests = " cross-origin request: "
	}
	p.blank()
	p.line(strconv.Itoa(len(all)) + requests + strings.Join(parts, ", "))
	return p.flush(w)
}

type printer struct {
	b     strings.Builder
	width int
	color bool
	ascii bool
}

func newPrinter(o Options) *printer {
	width := o.Width
	if width <= 0 {
		width = defaultWidth
	}
	if o.ASCII {
		width -= 2 // an ellipsis is that much wider
	}
	return &printer{width: min(max(width, minWidth), maxWidth), color: o.Color, ascii: o.ASCII}
}

func (p *printer) flush(w io.Writer) error {
	text := p.b.String()
	if p.ascii {
		text = toASCII(text)
	}
	_, err := io.WriteString(w, text)
	return err
}

// line writes one line as it is.
func (p *printer) line(s string) {
	p.b.WriteString(strings.TrimRight(s, " "))
	p.b.WriteByte('\n')
}

func (p *printer) blank() { p.b.WriteByte('\n') }

func (p *printer) section(title string) {
	p.blank()
	p.line(p.paint(bold, title))
}

// paragraph fills lines with words.
func (p *printer) paragraph(margin, s string) {
	for _, l := range fill(clean(s), p.width-len(margin)) {
		p.line(margin + shorten(l, p.width-len(margin)))
	}
}

// field writes a name and what belongs to it, under each other over several lines.
func (p *printer) field(name string, values ...string) {
	const column = 9
	for i, v := range values {
		if i > 0 {
			name = ""
		}
		p.line(indent + name + strings.Repeat(" ", max(1, column-len(name))) + v)
	}
}

// clean takes out what could steer a terminal.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n', r == '\t', r == '\r':
			return ' '
		case r < 0x20, r >= 0x7f && r < 0xa0, r == utf8.RuneError,
			r >= 0x200b && r <= 0x200f, r >= 0x2028 && r <= 0x202e, r >= 0x2060 && r <= 0x206f, r == 0xfeff,
			r == 0x061c, r == 0x180e, r >= 0xfff9 && r <= 0xfffb, r >= 0xe0000 && r <= 0xe007f:
			return -1
		}
		return r
	}, s)
}

// fill breaks a text into lines of at most width columns. A word that is longer stands on
// a line of its own.
func fill(s string, width int) []string {
	var lines []string
	current := ""
	for word := range strings.FieldsSeq(s) {
		switch {
		case current == "":
			current = word
		case columns(current)+1+columns(word) <= width:
			current += " " + word
		default:
			lines = append(lines, current)
			current = word
		}
	}
	if current != "" {
		lines = append(lines, current)
	}
	return lines
}

// columns is the width of a text. That some characters are wider than others only makes a
// line of a stranger's text a little long.
func columns(s string) int { return utf8.RuneCountInString(s) }

// shorten cuts out the middle of a text that is wider than width.
func shorten(s string, width int) string {
	if columns(s) <= width {
		return s
	}
	r := []rune(s)
	head := (width - 1) * 2 / 3
	tail := width - 1 - head
	return string(r[:head]) + "…" + string(r[len(r)-tail:])
}

// shortField cuts out the middle of a header field's value, as long as something of it is
// left.
func shortField(s string, width int) string {
	name, value, ok := strings.Cut(s, ": ")
	room := width - columns(name) - len(": ")
	if !ok || room < 12 {
		return shorten(s, width)
	}
	return name + ": " + shorten(value, room)
}

type color string

const (
	bold   color = "1"
	dim    color = "2"
	red    color = "31"
	green  color = "32"
	yellow color = "33"
)

func (p *printer) paint(c color, s string) string {
	if !p.color || c == "" || s == "" {
		return s
	}
	return "\x1b[" + string(c) + "m" + s + "\x1b[0m"
}

func colorOf(o explain.Outcome) color {
	switch o {
	case explain.Allowed:
		return green
	case explain.Blocked, explain.Refused:
		return red
	case explain.Unknown:
	}
	return yellow
}

func (p *printer) verdict(e *explain.Explanation) {
	for _, l := range fill(clean(e.Summary), p.width) {
		p.line(p.paint(colorOf(e.Outcome), shorten(l, p.width)))
	}
}

// toASCII replaces what is drawn, and whatever else is not ASCII.
func toASCII(s string) string {
	s = strings.NewReplacer("│", "|", "├", "|", "┤", "|", "─", "-", "▶", ">", "◀", "<", "✗", "x", "…", "...", "–", "-", "“", `"`, "”", `"`, "‘", "'", "’", "'", "→", "->", "·", "-").Replace(s)
	return strings.Map(func(r rune) rune {
		if r >= 0x80 {
			return '?'
		}
		return r
	}, s)
}

// ofServer is the target that the answers' own header names.
func ofServer(e *explain.Explanation) []explain.Target {
	for _, x := range slices.Backward(e.Trace.Exchanges) {
		for _, name := range []string{"X-Powered-By", "Server", "Via"} {
			value := strings.ToLower(x.Answer.Header.Value(name))
			for _, known := range []struct {
				word   string
				target explain.Target
			}{
				{"express", explain.ForExpress},
				{"uvicorn", explain.ForFastAPI},
				{"hypercorn", explain.ForFastAPI},
				{"nginx", explain.ForNginx},
				{"openresty", explain.ForNginx},
				{"caddy", explain.ForCaddy},
			} {
				if strings.Contains(value, known.word) {
					return []explain.Target{known.target}
				}
			}
		}
	}
	return nil
}
