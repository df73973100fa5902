package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/moat-gateway/moat/config"
)

func initCommand() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:       "init CASE",
		Short:     "Write a commented configuration to begin with",
		Long:      "Writes a configuration for one of the cases:\n\n  " + strings.Join(config.Starters(), "\n  ") + "\n\nIt never overwrites a file.",
		ValidArgs: config.Starters(),
		Args:      cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			choices := "moat init " + strings.Join(config.Starters(), " | ")
			if len(args) == 0 {
				return usageError{errors.New("no case chosen"), choices}
			}
			text, ok := config.Starter(args[0])
			if !ok {
				return usageError{fmt.Errorf("%q: no such case", args[0]), choices}
			}
			if file == "-" {
				_, err := cmd.OutOrStdout().Write(text)
				return err
			}
			out, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644) //nolint:gosec // the user named it; it holds no secret.
			if errors.Is(err, fs.ErrExist) {
				return hintedError{fmt.Errorf("%s: exists already", file), "choose another name with --output, or - for standard output"}
			}
			if err != nil {
				return err
			}
			_, err = out.Write(text)
			if err = errors.Join(err, out.Close()); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s written. Next: edit it, then\n  moat check %s\n  moat run --config %s\n", file, file, file)
			return nil
		},
	}
	cmd.Flags().StringVarP(&file, "output", "o", "moat.yaml", "the `file` to write, or - for standard output")
	return cmd
}
