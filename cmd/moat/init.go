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
	var file, document, upstream string
	cmd := &cobra.Command{
		Use:       "init CASE | --openapi FILE --upstream URL",
		Short:     "Write a commented configuration to begin with",
		Long:      "Writes a configuration for one of the cases:\n\n  " + strings.Join(config.Starters(), "\n  ") + "\n\nor for the API that an OpenAPI document describes: a route for each path, with who may call\nas its securitySchemes say. It never overwrites a file.",
		ValidArgs: config.Starters(),
		Args:      cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			choices := "moat init " + strings.Join(config.Starters(), " | ")
			text, err := starter(args, file, document, upstream, choices)
			if err != nil {
				return err
			}
			if file == "-" {
				_, err = cmd.OutOrStdout().Write(text)
				return err
			}
			out, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644) //nolint:gosec // the user named it; it holds no secret.
			if errors.Is(err, fs.ErrExist) {
				return hintedError{fmt.Errorf("%s: exists already", file), "choose another name with --output, or - for standard output"}
			}
			if errors.Is(err, fs.ErrNotExist) {
				return hintedError{err, "make the folder first, or choose another name with --output"}
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
	cmd.Flags().StringVar(&document, "openapi", "", "derive the routes from this OpenAPI document, 3.0 or 3.1")
	cmd.Flags().StringVar(&upstream, "upstream", "", "the `URL` of the backend, with --openapi")
	cmd.Flags().StringVarP(&file, "output", "o", "moat.yaml", "the `file` to write, or - for standard output")
	return cmd
}

// starter is the text of the file to write.
func starter(args []string, file, document, upstream, choices string) ([]byte, error) {
	switch {
	case document != "" && len(args) > 0:
		return nil, usageError{errors.New("a case and --openapi: choose one of them"), choices + " | --openapi FILE --upstream URL"}
	case document != "" && upstream == "":
		return nil, usageError{errors.New("--openapi without --upstream"), "moat init --openapi " + document + " --upstream http://127.0.0.1:3000"}
	case document == "" && upstream != "":
		return nil, usageError{errors.New("--upstream without --openapi"), choices}
	case document != "":
		name := file
		if file == "-" {
			name = "moat.yaml"
		}
		return config.Derive(name, document, upstream, config.Machine())
	case len(args) == 0:
		return nil, usageError{errors.New("no case chosen"), choices}
	}
	text, ok := config.Starter(args[0])
	if !ok {
		return nil, usageError{fmt.Errorf("%q: no such case", args[0]), choices}
	}
	return text, nil
}
