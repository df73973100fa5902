// Command pipelinetable compares whole pipelines in front of an upstream that answers at once:
// moat's gateway, beside CORS, JWT and rate limit middleware around httputil.ReverseProxy. It
// runs BenchmarkServe of package gateway and BenchmarkPipeline of this module in turn, and
// prints a Markdown table of what each takes over its own plain proxying.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "pipelinetable: error:", err)
		stop()
		os.Exit(1)
	}
}

// sample is one benchmark's result.
type sample struct{ ns, bytes, allocs float64 }

// half is a test binary with one half of the contestants. Each row is held against plain.
type half struct {
	dir, pkg, bench, plain string
	binary                 string
	// over are the results of each round, less those of plain in the same one.
	over   map[string][]sample
	names  []string // in the order of the benchmarks
	plains []sample
}

func run(ctx context.Context) error {
	rounds := flag.Int("rounds", 9, "rounds, in which both halves take turns")
	each := flag.Duration("time", 300*time.Millisecond, "for each row, in each round")
	flag.Parse()
	if *rounds < 1 || *each <= 0 || flag.NArg() > 0 {
		return errors.New("usage: pipelinetable [-rounds N] [-time D], both above 0")
	}
	moat, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", "github.com/moat-gateway/moat").Output()
	if err != nil {
		return fmt.Errorf("moat's source: %w; run this command in the module bench", err)
	}
	tmp, err := os.MkdirTemp("", "moat-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp) //nolint:errcheck // what is left is in the system's temporary directory.
	halves := []*half{
		{dir: strings.TrimSpace(string(moat)), pkg: "./gateway", bench: `^BenchmarkServe$/^(plain|cors\+.*user)$/^moat$`, plain: "plain/moat"},
		{dir: ".", pkg: "github.com/moat-gateway/moat/bench", bench: "^BenchmarkPipeline$", plain: "plain/ReverseProxy"},
	}
	for i, h := range halves {
		h.over, h.binary = make(map[string][]sample), filepath.Join(tmp, strconv.Itoa(i)+".test")
		cmd := exec.CommandContext(ctx, "go", "test", "-c", "-o", h.binary, h.pkg) //nolint:gosec // our own packages.
		cmd.Dir, cmd.Stderr = h.dir, os.Stderr
		if err = cmd.Run(); err != nil {
			return fmt.Errorf("build %s: %w", h.pkg, err)
		}
	}
	for i := range *rounds {
		for j := range halves {
			if err = halves[(i+j)%len(halves)].round(ctx, tmp, *each); err != nil {
				return err
			}
		}
		fmt.Fprintf(os.Stderr, "round %d of %d\n", i+1, *rounds)
	}
	fmt.Println("| pipeline | over its own plain proxying: least/median ns | B | allocations |")
	fmt.Println("| --- | --- | --- | --- |")
	for _, h := range halves {
		base := middle(h.plains, func(s sample) float64 { return s.ns })
		fmt.Printf("| %s | itself: %.0f ns | %.0f | %.0f |\n", h.plain, base, h.plains[0].bytes, h.plains[0].allocs)
		for _, name := range h.names {
			all := h.over[name]
			ns := func(s sample) float64 { return s.ns }
			fmt.Printf("| %s | %.0f/%.0f | %.0f | %.0f |\n", name, ns(slices.MinFunc(all, func(a, b sample) int { return cmp.Compare(a.ns, b.ns) })), middle(all, ns),
				middle(all, func(s sample) float64 { return s.bytes }), middle(all, func(s sample) float64 { return s.allocs }))
		}
	}
	return nil
}

var result = regexp.MustCompile(`(?m)^Benchmark\w+/(\S+?)(?:-\d+)?\s+\d+\s+([\d.]+) ns/op\s+([\d.]+) B/op\s+([\d.]+) allocs/op`)

// round runs the half once.
func (h *half) round(ctx context.Context, tmp string, each time.Duration) error {
	cmd := exec.CommandContext(ctx, h.binary, "-test.run", "^$", "-test.bench", h.bench, "-test.benchtime", each.String()) //nolint:gosec // what was built above.
	cmd.Dir, cmd.Stderr = tmp, os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("%s: %w\n%s", h.pkg, err, out)
	}
	got := make(map[string]sample)
	var names []string
	for _, m := range result.FindAllStringSubmatch(string(out), -1) {
		var s sample
		for i, to := range []*float64{&s.ns, &s.bytes, &s.allocs} {
			if *to, err = strconv.ParseFloat(m[i+2], 64); err != nil {
				return err
			}
		}
		if got[m[1]] = s; m[1] != h.plain {
			names = append(names, m[1])
		}
	}
	plain, ok := got[h.plain]
	if !ok || len(names) == 0 {
		return fmt.Errorf("%s: no results:\n%s", h.pkg, out)
	}
	h.names, h.plains = names, append(h.plains, plain)
	for _, name := range names {
		s := got[name]
		h.over[name] = append(h.over[name], sample{s.ns - plain.ns, s.bytes - plain.bytes, s.allocs - plain.allocs})
	}
	return nil
}

// middle is the median of what is looked at.
func middle(all []sample, of func(sample) float64) float64 {
	list := make([]float64, len(all))
	for i, s := range all {
		list[i] = of(s)
	}
	slices.Sort(list)
	return list[len(list)/2]
}
