package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/moat-gateway/moat/config"
	"github.com/moat-gateway/moat/gateway"
	"github.com/moat-gateway/moat/run"
)

type runFlags struct {
	zero      config.ZeroConfig
	config    string
	demo      bool
	logFormat string
}

func runCommand() *cobra.Command {
	var f runFlags
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Stand in front of a backend",
		Long: "Without a file, one backend and the pages that may call it:\n\n" +
			"  moat run --upstream http://localhost:3000 --origin http://localhost:5173\n\n" +
			"A model provider's API for the visitors of a page, whose key never leaves here:\n\n" +
			"  export OPENAI_API_KEY=…\n" +
			"  moat run --upstream https://api.openai.example --origin https://demo.example --preset public-ai \\\n    --model gpt-5-mini=0.25/2\n\n" +
			"With a file (moat init writes one to begin with):\n\n" +
			"  moat run --config moat.yaml\n\n" +
			"To see it happen, with nothing else:\n\n" +
			"  moat run --demo",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return serve(cmd, &f) },
	}
	flags := cmd.Flags()
	flags.StringVar(&f.zero.Upstream, "upstream", "", "the backend's `URL` (http, https or h2c)")
	flags.StringArrayVar(&f.zero.Origins, "origin", nil, "an `origin` whose pages may call; repeatable, patterns as https://*.example.com")
	flags.StringVar(&f.zero.Listen, "listen", "", "the `address` to listen on (default 127.0.0.1:8080)")
	flags.StringVar(&f.zero.Admin, "admin", "", "the operator's `address`, or off (default 127.0.0.1:9090)")
	flags.StringArrayVar(&f.zero.PublicOrigins, "public-origin", nil, "an `origin` under which clients know the gate; repeatable")
	flags.StringArrayVar(&f.zero.AllowHeaders, "allow-header", nil, "a request `header` that script may set, beside Authorization and Content-Type; repeatable")
	flags.StringArrayVar(&f.zero.Credential, "credential", nil, "a `header` that moat sets in the place of the caller's, its secret a reference, in single quotes: 'Authorization: Bearer ${env:NAME}'; repeatable")
	flags.BoolVar(&f.zero.Credentials, "credentials", false, "let the pages send cookies")
	flags.StringVar(&f.zero.Preset, "preset", "", "begin with a `case`: "+strings.Join(config.Presets(), ", ")+" (moat init writes it to a file)")
	flags.StringArrayVar(&f.zero.Models, "model", nil, "a model that the preset's page may call, and the prices of a million tokens of input and output: `NAME=0.25/2`; repeatable")
	flags.StringVar(&f.zero.RateLimit, "rate-limit", "", "how much each client may ask for, such as \"60/m burst 20\"")
	flags.StringVar(&f.zero.Browserless, "browserless", "", "allow or deny requests without Origin and Sec-Fetch-Site, as curl sends them (default deny)")
	flags.BoolVar(&f.zero.Report, "report", false, "refuse nothing; record what would be refused")
	flags.StringVar(&f.config, "config", "", "the configuration `file`")
	flags.BoolVar(&f.demo, "demo", false, "start a sample backend and two pages, and stand in front of it")
	flags.StringVar(&f.logFormat, "log-format", "text", "text or json")
	return cmd
}

func serve(cmd *cobra.Command, f *runFlags) error {
	log, err := newLog(cmd.ErrOrStderr(), f.logFormat)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	go func() {
		<-ctx.Done()
		stop() // a second signal ends the process at once
	}()

	load, err := f.loader(cmd)
	if err != nil {
		return err
	}
	if f.demo {
		d, demoLoad, dErr := startDemo(f)
		if dErr != nil {
			return dErr
		}
		defer d.Close() //nolint:errcheck // the process ends.
		load = demoLoad
		return run.Gate(ctx, log, load, run.Options{Started: func(gateway.Addresses) {
			d.Guide(cmd.OutOrStdout()) //nolint:errcheck // the servers serve, told or not.
		}})
	}
	err = run.Gate(ctx, log, load, run.Options{})
	if missing, ok := errors.AsType[*run.KeyFileError](err); ok {
		return noSuchFile(missing.Path, err)
	}
	if errors.Is(err, syscall.EADDRINUSE) {
		return hintedError{err, "another program has this address, perhaps another moat: stop that one, or choose another address"}
	}
	return err
}

// loader returns what reads the configuration, now and at each reload.
func (f *runFlags) loader(cmd *cobra.Command) (func() (*config.Loaded, error), error) {
	var given []string
	for _, name := range []string{"config", "upstream", "origin", "public-origin", "allow-header", "credential", "credentials", "rate-limit", "browserless", "report", "preset", "model"} {
		if cmd.Flags().Changed(name) {
			given = append(given, "--"+name)
		}
	}
	switch {
	case f.demo && given != nil:
		return nil, usageError{errors.New("--demo brings its own configuration"), "leave out " + strings.Join(given, ", ")}
	case f.demo:
		return nil, nil
	case f.config != "" && (len(given) > 1 || f.zero.Listen != "" || f.zero.Admin != ""):
		return nil, usageError{errors.New("--config says everything; no other flag about it can stand beside"), "write it into " + f.config}
	case f.config != "":
		return func() (*config.Loaded, error) { return config.Load(f.config) }, nil
	case f.zero.Upstream == "":
		return nil, usageError{errors.New("nothing to stand in front of: neither --upstream, nor --config, nor --demo"), "moat run --demo shows what this is about; moat run --help has the rest"}
	}
	return func() (*config.Loaded, error) { return config.Zero(f.zero, config.Machine()) }, nil
}

func newLog(w io.Writer, format string) (*slog.Logger, error) {
	switch format {
	case "text":
		return slog.New(slog.NewTextHandler(w, nil)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, nil)), nil
	}
	return nil, usageError{fmt.Errorf("--log-format: %q: unknown format", format), "text or json"}
}
