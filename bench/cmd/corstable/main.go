// Command corstable measures moat's cors and crosssite guards beside the packages that
// do the same, and prints one Markdown table.
//
// All contestants of a row are measured right after one another, in several rounds that
// begin with another contestant each. A ratio is the median over rounds of the ratio
// within the round, so that it survives what else the machine does.
package main

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/moat-gateway/moat/bench"
)

// bound is what a request that was made to be expensive may cost, in ns.
const bound = 300

func main() {
	testing.Init()
	rounds := flag.Int("rounds", 7, "interleaved rounds")
	each := flag.Duration("time", 20*time.Millisecond, "how long to measure one contestant in one round")
	rows := flag.String("rows", "", "regular expression: measure only the rows that match")
	counts := flag.String("origins", "1,100,10000", "lengths of the list of origins")
	flag.Parse()
	if err := run(os.Stdout, *rounds, *each, *rows, *counts); err != nil {
		fmt.Fprintln(os.Stderr, "corstable: error:", err)
		os.Exit(1)
	}
}

// line is one row of the table: what a group does with one kind of request.
type line struct {
	row     bench.Row
	origins int
	cells   []*cell // ours is the first
}

// cell is what one contestant did.
type cell struct {
	contestant    bench.Contestant
	ns            []float64 // by round
	bytes, allocs int64
}

func run(w io.Writer, rounds int, each time.Duration, rows, counts string) error {
	match, err := regexp.Compile(rows)
	if err != nil {
		return fmt.Errorf("-rows: %w", err)
	}
	ns, err := numbers(counts)
	if err != nil {
		return fmt.Errorf("-origins: %w", err)
	}
	if rounds < 1 || each <= 0 {
		return errors.New("-rounds and -time must be above 0")
	}
	if err = flag.Set("test.benchtime", each.String()); err != nil {
		return fmt.Errorf("-time: %w", err)
	}
	lines, err := layout(match, ns)
	if err != nil {
		return err
	}
	for r := range rounds {
		for _, l := range lines {
			for i := range l.cells {
				c := l.cells[(i+r)%len(l.cells)]
				res := testing.Benchmark(func(b *testing.B) { l.row.Benchmark(b, c.contestant, l.origins) })
				if res.N == 0 {
					return fmt.Errorf("%s: %s with %d origins could not be measured", c.contestant.Name, l.row.Name, l.origins)
				}
				c.ns = append(c.ns, float64(res.T.Nanoseconds())/float64(res.N))
				c.bytes, c.allocs = res.AllocedBytesPerOp(), res.AllocsPerOp()
			}
		}
	}
	_, err = io.WriteString(w, report(lines, rounds, each))
	return err
}

func numbers(list string) ([]int, error) {
	var ns []int
	for s := range strings.SplitSeq(list, ",") {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 {
			return nil, fmt.Errorf("%q is not a number above 0", s)
		}
		ns = append(ns, n)
	}
	return ns, nil
}

// layout makes the table's lines, and has every contestant of each answer once.
func layout(match *regexp.Regexp, counts []int) ([]*line, error) {
	var lines []*line
	for _, row := range bench.Rows() {
		if !match.MatchString(row.Name) {
			continue
		}
		for _, g := range row.Groups {
			for _, n := range counts {
				l := &line{row: row, origins: n}
				for _, c := range append([]bench.Contestant{g.Ours}, g.Theirs...) {
					if _, err := row.Exchange(c, n); err != nil {
						return nil, err
					}
					l.cells = append(l.cells, &cell{contestant: c})
				}
				lines = append(lines, l)
			}
		}
	}
	if len(lines) == 0 {
		return nil, fmt.Errorf("-rows: %q matches no row", match)
	}
	return lines, nil
}

func report(lines []*line, rounds int, each time.Duration) string {
	var b strings.Builder
	columns := []bench.Contestant{bench.Jub0bs, bench.RS, bench.Std}
	fmt.Fprintf(&b, "Least and median ns of %d interleaved rounds of %s, B and allocations of one request; × is how many times as long as ours it takes.\n\n", rounds, each)
	b.WriteString("| request | origins | guard | ours |")
	for _, c := range columns {
		fmt.Fprintf(&b, " %s | × |", c.Name)
	}
	fmt.Fprintf(&b, "\n|%s\n", strings.Repeat("-|", 4+2*len(columns)))
	for _, l := range lines {
		fmt.Fprintf(&b, "| %s | %d | %s | %s |", l.row.Name, l.origins, l.guard(), l.cells[0])
		for _, column := range columns {
			c := l.cell(column)
			if c == nil {
				b.WriteString(" | |")
				continue
			}
			fmt.Fprintf(&b, " %s | %.2f |", c, c.over(l.cells[0]))
		}
		b.WriteByte('\n')
	}
	fmt.Fprintf(&b, "\nTargets: ahead of every other on every row; at most %d ns where the request was made to be expensive.", bound)
	if missed := misses(lines); len(missed) > 0 {
		fmt.Fprintf(&b, " Missed:\n\n- %s\n", strings.Join(missed, "\n- "))
		return b.String()
	}
	b.WriteString(" All are met.\n")
	return b.String()
}

// misses says where the targets are not met, each row of the same guard once.
func misses(lines []*line) []string {
	var (
		names []string
		rows  = make(map[string][]string)
	)
	miss := func(l *line, format string, args ...any) {
		name := l.row.Name + " (" + l.guard() + ")"
		if rows[name] == nil {
			names = append(names, name)
		}
		rows[name] = append(rows[name], strconv.Itoa(l.origins)+" origins: "+fmt.Sprintf(format, args...))
	}
	for _, l := range lines {
		ours := l.cells[0]
		for _, c := range l.cells[1:] {
			if ratio := c.over(ours); ratio < 1 {
				miss(l, "%s takes %.2f of our time", c.contestant.Name, ratio)
			}
		}
		if least := slices.Min(ours.ns); l.row.Adversarial && least > bound {
			miss(l, "%.0f ns", least)
		}
	}
	for i, name := range names {
		names[i] = name + ": " + strings.Join(rows[name], "; ")
	}
	return names
}

// guard names the guard that the line is about.
func (l *line) guard() string {
	if name := l.cells[0].contestant.Name; name != bench.Moat.Name {
		return name
	}
	return "cors"
}

// cell is the contestant's, or nil if it does not run the row.
func (l *line) cell(c bench.Contestant) *cell {
	for _, other := range l.cells {
		if other.contestant.Name == c.Name {
			return other
		}
	}
	return nil
}

func (c *cell) String() string {
	return fmt.Sprintf("%.0f/%.0f ns, %d B, %d", slices.Min(c.ns), median(c.ns), c.bytes, c.allocs)
}

// over is the median of the ratios of c to d within each round.
func (c *cell) over(d *cell) float64 {
	ratios := make([]float64, len(c.ns))
	for i := range ratios {
		ratios[i] = c.ns[i] / d.ns[i]
	}
	return median(ratios)
}

// median sorts a copy of v, which has at least one element.
func median[T cmp.Ordered](v []T) T {
	v = slices.Clone(v)
	slices.Sort(v)
	return v[len(v)/2]
}
