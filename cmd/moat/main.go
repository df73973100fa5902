// Command moat protects an HTTP API where CORS cannot: it stands in front of a backend
// and decides whether a request is honoured at all.
//
// Output rules: what was asked for goes to standard output, everything else to standard
// error. An error is one line "moat: error: …" that names place, value and reason,
// followed by "moat: hint: …" where there is a way out. Exit codes: 0 it worked, 1 it
// did not, 2 the command line is wrong; moat explain has more of them.
package main

import (
	"errors"
	"fmt"
	"os"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/moat-gateway/moat/config"
	"github.com/moat-gateway/moat/explain"
)

func main() { os.Exit(execute(os.Args[1:])) }

// execute runs a command line and returns its exit code.
func execute(args []string) int {
	root := &cobra.Command{
		Use:           "moat",
		Short:         "A gateway that protects HTTP APIs where CORS cannot",
		Long:          "moat stands in front of a backend and decides whether a request is honoured at all,\nsays why, and proves it. Begin with: moat run --demo",
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.NoArgs,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.AddCommand(runCommand(), checkCommand(), initCommand(), whyCommand(), limitsCommand(), budgetCommand(), alertCommand(), keyCommand(), explainCommand(), labCommand(), schemaCommand(), versionCommand())
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usageError{err, fmt.Sprintf("%s --help lists the flags", cmd.CommandPath())}
	})
	root.SetArgs(args)
	cmd, err := root.ExecuteC()
	if err == nil {
		return 0
	}
	if code, ok := errors.AsType[exitCode](err); ok {
		return int(code)
	}
	report(cmd, err)
	var usage usageError
	if errors.As(err, &usage) || isCobraUsage(err) || faultyFlags(err) {
		return 2
	}
	return 1
}

// faultyFlags recognizes faults of what stands on the command line in place of a file.
func faultyFlags(err error) bool {
	faults, ok := errors.AsType[config.Faults](err)
	return ok && len(faults) > 0 && faults[0].File == ""
}

// usageError is a wrong command line.
type usageError struct {
	error
	hint string
}

func (e usageError) Unwrap() error { return e.error }

// hintedError is an error with a way out.
type hintedError struct {
	error
	hint string
}

func (e hintedError) Unwrap() error { return e.error }

// report prints an error by the rules above. Each fault of a configuration is a line.
func report(cmd *cobra.Command, err error) {
	if faults, ok := errors.AsType[config.Faults](err); ok {
		for _, f := range faults {
			fmt.Fprintf(os.Stderr, "moat: error: %v\n", f)
		}
	} else {
		fmt.Fprintf(os.Stderr, "moat: error: %v\n", err)
	}
	var (
		usage  usageError
		hinted hintedError
	)
	switch {
	case errors.As(err, &usage) && usage.hint != "":
		fmt.Fprintf(os.Stderr, "moat: hint: %s\n", usage.hint)
	case errors.As(err, &hinted):
		fmt.Fprintf(os.Stderr, "moat: hint: %s\n", hinted.hint)
	case isCobraUsage(err):
		what := "says what it takes"
		if cmd.HasSubCommands() {
			what = "lists the commands"
		}
		fmt.Fprintf(os.Stderr, "moat: hint: %s --help %s\n", cmd.CommandPath(), what)
	}
}

// isCobraUsage recognizes cobra's own complaints about a command line, which have no type.
func isCobraUsage(err error) bool {
	var (
		usage  usageError
		hinted hintedError
		faults config.Faults
		failed errFailed
	)
	if errors.As(err, &usage) || errors.As(err, &hinted) || errors.As(err, &faults) || errors.As(err, &failed) {
		return false
	}
	return hasAnyPrefix(err.Error(), "unknown command", "unknown flag", "accepts ", "requires ", "required flag", "if any flags in the group", "at least one of the flags")
}

func hasAnyPrefix(s string, prefixes ...string) bool {
	for _, p := range prefixes {
		if len(s) >= len(p) && s[:len(p)] == p {
			return true
		}
	}
	return false
}

// errFailed is a failure that needs no hint.
type errFailed string

func (e errFailed) Error() string { return string(e) }

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version", Args: cobra.NoArgs,
		Run: func(cmd *cobra.Command, _ []string) {
			version := "(unreleased)"
			if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" && info.Main.Version != "(devel)" {
				version = info.Main.Version
			}
			fmt.Fprintln(cmd.OutOrStdout(), "moat", version)
		},
	}
}

func schemaCommand() *cobra.Command {
	return &cobra.Command{
		Use:       "schema [moat.yaml | explain]",
		Short:     "Print the JSON Schema of moat.yaml, or of moat explain --json",
		ValidArgs: []string{"moat.yaml", "explain"},
		Args:      cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			schema := config.Schema()
			switch {
			case len(args) == 0 || args[0] == "moat.yaml":
			case args[0] == "explain":
				schema = explain.Schema()
			default:
				return usageError{fmt.Errorf("%q: no such schema", args[0]), "moat schema moat.yaml | explain"}
			}
			_, err := cmd.OutOrStdout().Write(schema)
			return err
		},
	}
}
