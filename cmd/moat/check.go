package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/moat-gateway/moat/config"
	"github.com/moat-gateway/moat/gateway"
)

func checkCommand() *cobra.Command {
	var strict bool
	cmd := &cobra.Command{
		Use:   "check FILE",
		Short: "Validate a configuration and run the tests in it",
		Long:  "Reads a configuration as moat run would, says everything that is wrong with it,\nand runs the tests written in it: request → expected decision.",
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
			for _, w := range loaded.Warnings {
				fmt.Fprintf(cmd.ErrOrStderr(), "moat: warning: %v\n", w)
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
			case strict && len(loaded.Warnings) > 0:
				return errFailed(fmt.Sprintf("%s: %d warnings, and --strict", args[0], len(loaded.Warnings)))
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s: ok, %d routes, %d tests passed\n", args[0], len(loaded.Gateway.Routes), len(loaded.Tests))
			return nil
		},
	}
	cmd.Flags().BoolVar(&strict, "strict", false, "fail on warnings too")
	return cmd
}
