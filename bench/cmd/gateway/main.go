// Command gateway measures the program moat as a whole: with the perf harness beside
// other gateways, or, with -refused, what a refusal costs beside a request that is
// served. It builds moat from the tree that this module is part of.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Output rules: the result goes to standard output, what is being done to standard
// error. A failure is one line "gateway: error: …", and a hint where there is one.

// hinted is an error with a way out.
type hinted struct {
	error
	hint string
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := run(ctx, os.Args[1:])
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err == nil {
		return
	}
	fmt.Fprintln(os.Stderr, "gateway: error:", err)
	if h, ok := errors.AsType[hinted](err); ok {
		fmt.Fprintln(os.Stderr, "gateway: hint:", h.hint)
	}
	stop()
	os.Exit(1)
}

func run(ctx context.Context, args []string) error {
	if len(args) == 1 && args[0] == backendArgument {
		return serveBackend(os.Stdin, os.Stdout)
	}
	if len(args) > 1 && args[0] == scenarioArgument {
		return serveScenario(args[1], args[2:])
	}
	flags := flag.NewFlagSet("gateway", flag.ContinueOnError)
	flags.Usage = func() {
		fmt.Fprint(os.Stderr, "usage: gateway [-harness DIR] [-- harness options]\n       gateway -refused [-rounds N] [-requests N] [-conns N]\n\n")
		flags.PrintDefaults()
	}
	harness := flags.String("harness", os.Getenv("MOAT_PERF"), "the perf harness's directory; $MOAT_PERF if not given")
	refused := flags.Bool("refused", false, "compare refused requests with served ones, without the harness")
	var l load
	flags.IntVar(&l.rounds, "rounds", 7, "with -refused: interleaved rounds")
	flags.IntVar(&l.requests, "requests", 20_000, "with -refused: requests of each kind in each round")
	flags.IntVar(&l.conns, "conns", 16, "with -refused: connections, kept alive")
	if err := flags.Parse(args); err != nil {
		return err
	}
	switch {
	case *refused && flags.NArg() > 0:
		return fmt.Errorf("-refused: takes no argument %q", flags.Arg(0))
	case *refused && (l.rounds < 1 || l.requests < 1 || l.conns < 1):
		return errors.New("-rounds, -requests and -conns must be above 0")
	case !*refused && *harness == "":
		return hinted{errors.New("no harness"), "give its directory with -harness or MOAT_PERF, or measure without it: -refused"}
	}

	dir, err := os.MkdirTemp("", "moat-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // what is left is in the system's temporary directory.
	if *refused {
		moat, bErr := build(ctx, dir)
		if bErr != nil {
			return bErr
		}
		return compareRefusals(ctx, os.Stdout, moat, dir, l)
	}
	own, err := writable(*harness, dir)
	if err != nil {
		return err
	}
	moat, err := build(ctx, dir)
	if err != nil {
		return err
	}
	return runHarness(ctx, own, moat, flags.Args())
}

// build builds moat as it is released, in the module that go.mod replaces it with.
func build(ctx context.Context, dir string) (string, error) {
	out, err := output(exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", "github.com/moat-gateway/moat"))
	if err != nil {
		return "", hinted{fmt.Errorf("moat's source: %w", err), "run this command in the module bench: go run ./cmd/gateway"}
	}
	moat := filepath.Join(dir, "moat")
	fmt.Fprintln(os.Stderr, "building moat")
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", moat, "./cmd/moat") //nolint:gosec // our own temporary directory.
	cmd.Dir = strings.TrimSpace(out)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if _, err := output(cmd); err != nil {
		return "", fmt.Errorf("build moat: %w", err)
	}
	return moat, nil
}

// output is what a command prints; its error holds what it says on standard error.
func output(cmd *exec.Cmd) (string, error) {
	out, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) && len(exit.Stderr) > 0 {
		return "", fmt.Errorf("%w: %s", err, strings.TrimSpace(string(exit.Stderr)))
	}
	return string(out), err
}

// scenarios are those of the harness that are run if none is named. moat does all.
const scenarios = "plain,cors,preflight"

// runHarness measures moat beside the harness's own rows. args go to the harness.
func runHarness(ctx context.Context, harness, moat string, args []string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	if command := self + moat; strings.ContainsAny(command, " \t\n|") {
		return hinted{fmt.Errorf("the harness splits commands at blanks, so it cannot run %q and %q", self, moat), "point TMPDIR at a directory without blanks in its name"}
	}
	extra := "moat|http://{addr}/|" + strings.Join([]string{self, scenarioArgument, moat, scenarioWords}, " ")
	if len(args) == 0 {
		args = []string{"-scenarios", scenarios}
	}
	cmd := exec.CommandContext(ctx, filepath.Join(harness, "bench.sh"), append([]string{"--extra", extra}, args...)...) //nolint:gosec // the operator's own harness.
	cmd.Dir, cmd.Stdout, cmd.Stderr = harness, os.Stdout, os.Stderr
	// It stops the gateways that it started when it is told to end.
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 20 * time.Second
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("harness: %w", err)
	}
	return nil
}

// writable returns the harness, or a copy of it in dir where it is read-only: it builds
// its programs inside its own directory.
func writable(harness, dir string) (string, error) {
	harness, err := filepath.Abs(harness)
	if err != nil {
		return "", err
	}
	info, err := os.Stat(filepath.Join(harness, "bench.sh")) //nolint:gosec // the operator's own harness.
	if errors.Is(err, fs.ErrNotExist) || err == nil && info.IsDir() {
		return "", hinted{fmt.Errorf("%s: no perf harness", harness), "it is the directory that holds bench.sh"}
	}
	if err != nil {
		return "", err
	}
	info, err = os.Stat(harness) //nolint:gosec // as above.
	if err != nil {
		return "", err
	}
	// The mode counts too: the superuser can write where nobody should.
	if info.Mode().Perm()&0o200 != 0 {
		if f, tErr := os.CreateTemp(harness, ".writable-"); tErr == nil {
			return harness, errors.Join(f.Close(), os.Remove(f.Name())) //nolint:gosec // what we have just made.
		}
	}
	fmt.Fprintln(os.Stderr, "the harness is read-only: working in a copy")
	own := filepath.Join(dir, "perf")
	return own, os.CopyFS(own, os.DirFS(harness))
}
