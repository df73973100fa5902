package main

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/spf13/cobra"

	"github.com/moat-gateway/moat/config"
	"github.com/moat-gateway/moat/gateway"
	"github.com/moat-gateway/moat/store/keyfile"
	"github.com/moat-gateway/moat/store/ledger"
)

func checkCommand() *cobra.Command {
	var strict bool
	cmd := &cobra.Command{
		Use:   "check FILE",
		Short: "Validate a configuration and run the tests in it",
		Long:  "Reads a configuration as moat run would, says everything that is wrong with it,\nand runs the tests written in it: request → expected decision. Files of API keys are\nread, and never changed; of the file of budgets it is looked whether moat run could write it.",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			loaded, err := config.Load(args[0])
			if err != nil {
				return err
			}
			g, err := gateway.New(loaded.Gateway, nil)
			if err != nil {
				return err
			}
			warnings := 0
			warn := func(format string, args ...any) {
				warnings++
				fmt.Fprintf(cmd.ErrOrStderr(), "moat: warning: "+format+"\n", args...)
			}
			for _, w := range loaded.Warnings {
				warn("%v", w)
			}
			if err := checkKeyFiles(loaded, warn); err != nil {
				return err
			}
			if err := checkSpentFile(loaded, warn); err != nil {
				return err
			}
			failed := 0
			for _, t := range loaded.Tests {
				if err := t.Run(g); err != nil {
					failed++
					fmt.Fprintf(cmd.ErrOrStderr(), "moat: error: %v\n", err)
				}
			}
			switch {
			case failed > 0:
				return errFailed(fmt.Sprintf("%s: %d of %d tests failed", args[0], failed, len(loaded.Tests)))
			case strict && warnings > 0:
				return errFailed(fmt.Sprintf("%s: %d warnings, and --strict", args[0], warnings))
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s: ok, %d routes, %d tests passed\n", args[0], len(loaded.Gateway.Routes), len(loaded.Tests))
			return nil
		},
	}
	cmd.Flags().BoolVar(&strict, "strict", false, "fail on warnings too")
	return cmd
}

// checkKeyFiles reads the files as moat run would. One that is not there is worth a warning:
// where a configuration is checked is often not where it runs.
func checkKeyFiles(l *config.Loaded, warn func(format string, args ...any)) error {
	for _, f := range l.KeyFiles {
		switch keys, err := keyfile.List(f.Path); {
		case errors.Is(err, fs.ErrNotExist):
			warn("auth.%s.api_key.file: %v, and moat run does not start without it; moat key create --file %s --owner NAME makes it", f.Source, err, f.Path)
		case err != nil:
			return fmt.Errorf("auth.%s.api_key.file: %w", f.Source, err)
		case len(keys) == 0:
			warn("auth.%s.api_key.file: %s: holds no key, so nobody can call with one", f.Source, f.Path)
		}
	}
	return nil
}

// checkSpentFile looks whether moat run could write the file of budgets. The folder and who may write
// there can differ where the gate runs, so these are worth a warning.
func checkSpentFile(l *config.Loaded, warn func(format string, args ...any)) error {
	if l.SpentFile == "" {
		return nil
	}
	err := ledger.Check(l.SpentFile)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, fs.ErrPermission):
		warn("%v: store.file: %v; moat run does not start like this", l.Where("", "store.file"), err)
	case err != nil:
		return fmt.Errorf("%v: store.file: %w", l.Where("", "store.file"), err)
	}
	return nil
}
