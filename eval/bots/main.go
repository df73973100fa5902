// Command bots measures what moat's bot signals tell of real tools and of real browsers, over TLS, and what getting past
// each layer costs. `make eval-bots` runs it; docs/bots.md has what it printed.
//
// Nothing is done about what is found: the guard reports, and its own records are what is counted. The tables go to
// standard output as Markdown, what is being done to standard error. It runs on Linux, on loopback only, in a bounded number of visits, and ends
// what it has started.
package main

import (
	"bufio"
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
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := run(ctx, os.Args[1:])
	if err == nil || errors.Is(err, flag.ErrHelp) {
		return
	}
	fmt.Fprintln(os.Stderr, "eval-bots: error:", err)
	os.Exit(1) //nolint:gocritic // stop has nothing left to do
}

// bench is what all visits share.
type bench struct {
	root, here, dir string
	display         string // of Xvfb; "" without
	chromium        string // the major version, for copied headers
}

func (b *bench) file(name string) string   { return filepath.Join(b.dir, name) }
func (b *bench) script(name string) string { return filepath.Join(b.here, "scripts", name) }

func progress(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "eval-bots: "+format+"\n", args...)
}

func run(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("eval-bots", flag.ContinueOnError)
	ofTools := flags.Int("tools", 50, "visits of each tool that is no browser")
	ofBrowsers := flags.Int("browsers", 20, "visits of each browser")
	only := flags.String("only", "", "measure the tools whose name matches this `regexp`")
	costs := flags.Bool("costs", true, "measure what 1,000 answers cost")
	lanes := flags.Int("lanes", 2, "visits at the same time, each with a moat of its own")
	longest := flags.Duration("longest", 20*time.Minute, "give up after that")
	if err := flags.Parse(args); err != nil {
		return err
	}
	chosen, err := regexp.Compile(*only)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, *longest)
	defer cancel()

	b, err := prepare(ctx)
	if b != nil && b.dir != "" {
		defer os.RemoveAll(b.dir) //nolint:errcheck // a temporary directory
	}
	if err != nil {
		return err
	}
	if xvfb, xErr := b.startDisplay(ctx); xErr != nil {
		progress("%v: no browser gets a window", xErr)
	} else {
		defer end(xvfb)
	}
	var all []tool
	for _, t := range tools(b.chromium) {
		if chosen.MatchString(t.name) {
			all = append(all, t)
		}
	}
	if len(all) == 0 {
		return fmt.Errorf("no tool has a name that matches %q", *only)
	}

	began := time.Now()
	outcomes := make([]outcome, len(all))
	next := make(chan int, len(all))
	for _, browsers := range []bool{true, false} { // what takes longest begins first
		for i := range all {
			if all[i].browser() == browsers {
				next <- i
			}
		}
	}
	close(next)
	var sites []*site
	for lane := range max(1, *lanes) {
		dir := filepath.Join(b.dir, fmt.Sprint("lane", lane))
		if err = os.Mkdir(dir, 0o700); err != nil {
			return err
		}
		for _, name := range []string{"site.pem", "site.key"} {
			if err = os.Link(b.file(name), filepath.Join(dir, name)); err != nil {
				return err
			}
		}
		s, sErr := startSite(ctx, dir, b.file("moat"), botsYAML)
		if sErr != nil {
			return sErr
		}
		defer s.close()
		sites = append(sites, s)
	}
	var wg sync.WaitGroup
	for _, s := range sites {
		wg.Go(func() {
			for i := range next {
				n := *ofTools
				if all[i].browser() {
					n = *ofBrowsers
				}
				outcomes[i] = visits(ctx, b, s, &all[i], n)
			}
		})
	}
	wg.Wait()
	took := time.Since(began)
	if *costs { // alone: two at a time would slow each other
		for i := range all {
			if all[i].costs && outcomes[i].missing == nil {
				outcomes[i].cost = priced(ctx, b, sites[0], &all[i])
			}
		}
	}
	b.versions(context.WithoutCancel(ctx))
	fmt.Printf("Visits took %s.\n\n", took.Round(time.Second))
	print(all, outcomes)
	if err = ctx.Err(); err != nil {
		return fmt.Errorf("given up, so this is not all: %w", err)
	}
	return verify(all, outcomes)
}

// prepare builds what is needed.
func prepare(ctx context.Context) (*bench, error) {
	here, err := os.Getwd()
	if err != nil {
		return nil, err
	}
	if _, err = os.Stat(filepath.Join(here, "scripts", "drive.mjs")); err != nil {
		return nil, fmt.Errorf("run in eval/bots, as make eval-bots does: %w", err)
	}
	b := &bench{here: here, root: filepath.Join(here, "..", "..")}
	if b.dir, err = os.MkdirTemp("", "moat-eval-bots-"); err != nil {
		return nil, err
	}
	for name, from := range map[string]string{"moat": b.root, "nethttp": here, "tlsclient": here} {
		pkg := "./" + name
		if name == "moat" {
			pkg = "./cmd/moat"
		}
		progress("building %s", name)
		cmd := program(ctx, "go", "build", "-o", b.file(name), pkg)
		cmd.Dir, cmd.Stderr = from, os.Stderr
		if err = cmd.Run(); err != nil {
			return b, fmt.Errorf("go build %s: %w", pkg, err)
		}
	}
	b.chromium = "156"
	if path, cErr := foundChromium(); cErr == nil {
		if m := regexp.MustCompile(`\d+`).FindString(version(ctx, path, "--version")); m != "" {
			b.chromium = m
		}
	}
	return b, authority(b.dir)
}

// startDisplay starts an X server whose screen nobody sees.
func (b *bench) startDisplay(ctx context.Context) (*exec.Cmd, error) {
	path, err := found("Xvfb", "apt: xvfb", "Xvfb")
	if err != nil {
		return nil, err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer r.Close() //nolint:errcheck // it has been read
	cmd := program(ctx, path, "-displayfd", "3", "-screen", "0", "1280x900x24", "-nolisten", "tcp")
	cmd.ExtraFiles = []*os.File{w}
	err = start(cmd)
	w.Close() //nolint:errcheck // the server has its own descriptor of it
	if err != nil {
		return nil, err
	}
	number, err := bufio.NewReader(r).ReadString('\n')
	if err != nil {
		end(cmd)
		return nil, fmt.Errorf("Xvfb tells no display: %w", err) //nolint:staticcheck // its name
	}
	b.display = ":" + strings.TrimSpace(number)
	return cmd, nil
}

// visits makes n visits, and has moat's verdict on each.
func visits(ctx context.Context, b *bench, s *site, t *tool, n int) (o outcome) {
	began := time.Now()
	defer func() {
		o.took = time.Since(began)
		progress("%s: %d visits, %d failed, median score %d, %d with all signals, in %s", t.name, o.visits, o.failed, median(o.scores), median(o.all), o.took.Round(time.Second))
	}()
	r, err := t.open(ctx, b, s)
	if err != nil {
		if gone := (missing{}); errors.As(err, &gone) {
			o.missing = gone
		} else {
			o.failed, o.fault = n, err
		}
		return o
	}
	defer r.close()
	calls := cmp.Or(t.calls, callsOfVisit)
	for range n {
		s.visitor.Add(1)
		visiting, cancel := context.WithTimeout(ctx, patience)
		before := s.calls.Load()
		err = r.visit(visiting, calls)
		cancel()
		if got := s.calls.Load() - before; err == nil && got != int64(calls) {
			err = fmt.Errorf("%d of %d calls arrived", got, calls)
		}
		var v verdict
		if err == nil {
			v, err = s.verdict(ctx, address(s.visitor.Load()))
		}
		if ctx.Err() != nil {
			return o // the visit was given up
		}
		if err != nil {
			o.failed, o.fault = o.failed+1, err
			if o.failed > 3 { // it will not get better
				return o
			}
			continue
		}
		o.count(v)
	}
	return o
}

func priced(ctx context.Context, b *bench, s *site, t *tool) cost {
	r, err := t.open(ctx, b, s)
	if err != nil {
		progress("%s: %v", t.name, err)
		return cost{}
	}
	defer r.close()
	c, err := s.measure(ctx, r)
	if err != nil {
		progress("%s: cost: %v", t.name, err)
		return cost{}
	}
	progress("%s: first answer %s, %d answers %s, %d MiB", t.name, c.first, answersMeasured, c.cpu, c.memory>>20)
	return c
}

// version is the first line that a program says of itself.
func version(ctx context.Context, path string, arg string) string {
	out, err := program(ctx, path, arg).Output()
	if err != nil {
		return "?"
	}
	first, _, _ := strings.Cut(string(out), "\n")
	return strings.TrimSpace(first)
}

func (b *bench) versions(ctx context.Context) {
	all := []string{runtime.Version()}
	for _, names := range []string{"curl", "wget", "node", "python3", "chromium,chromium-browser,google-chrome", "firefox-esr,firefox"} {
		if path, err := found(names, "", strings.Split(names, ",")...); err == nil {
			text := version(ctx, path, "--version")
			if names == "node" {
				text = "Node.js " + text
			}
			if cut, _, ok := strings.Cut(text, " ("); ok && strings.HasPrefix(text, "curl") {
				text = cut
			}
			all = append(all, text)
		}
	}
	fmt.Printf("%s. %s, %d CPUs. %s.\n\n", time.Now().UTC().Format("2006-01-02 15:04 MST"), cmp.Or(cpuModel(), "unknown CPU"), runtime.NumCPU(), strings.Join(all, ", "))
}

func cpuModel() string {
	text, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return ""
	}
	_, rest, _ := strings.Cut(string(text), "model name")
	line, _, _ := strings.Cut(rest, "\n")
	return strings.TrimSpace(strings.TrimLeft(line, "\t :"))
}
