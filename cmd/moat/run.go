package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/moat-gateway/moat/config"
	"github.com/moat-gateway/moat/gateway"
	"github.com/moat-gateway/moat/store/valkey"
)

// watchEvery is how often the configuration's files are looked at. Polling sees every
// way of replacing a file, a mounted secret's symbolic link included.
const watchEvery = time.Second

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
	flags.BoolVar(&f.zero.Credentials, "credentials", false, "let the pages send cookies")
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
		return runGate(ctx, log, load, func(gateway.Addresses) {
			d.Guide(cmd.OutOrStdout()) //nolint:errcheck // the servers serve, told or not.
		})
	}
	return runGate(ctx, log, load, nil)
}

// loader returns what reads the configuration, now and at each reload.
func (f *runFlags) loader(cmd *cobra.Command) (func() (*config.Loaded, error), error) {
	var zero []string
	for _, name := range []string{"upstream", "origin", "public-origin", "allow-header", "credentials", "rate-limit", "browserless", "report"} {
		if cmd.Flags().Changed(name) {
			zero = append(zero, "--"+name)
		}
	}
	switch {
	case f.demo && (f.config != "" || zero != nil):
		return nil, usageError{errors.New("--demo brings its own configuration"), "leave out --config and " + strings.Join(append(zero, "its like"), ", ")}
	case f.demo:
		return nil, nil
	case f.config != "" && (zero != nil || f.zero.Listen != "" || f.zero.Admin != ""):
		return nil, usageError{errors.New("--config says everything; no other flag about it can stand beside"), "write it into " + f.config}
	case f.config != "":
		return func() (*config.Loaded, error) { return config.Load(f.config) }, nil
	case f.zero.Upstream == "":
		return nil, usageError{errors.New("nothing to stand in front of: neither --upstream, nor --config, nor --demo"), "moat run --demo shows what this is about; moat run --help has the rest"}
	}
	return func() (*config.Loaded, error) { return config.Zero(f.zero) }, nil
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

// gcPercent lets the heap grow to three times what is live before it is collected. A
// gate's live heap is a few MiB and its garbage is all per request, so this is a
// twentieth of its CPU for some 5 MiB. GOGC, if set, has the last word.
const gcPercent = 200

// runGate serves until ctx is done, and reloads on SIGHUP and when a file changes.
func runGate(ctx context.Context, log *slog.Logger, load func() (*config.Loaded, error), started func(gateway.Addresses)) error {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	first, err := load()
	if err != nil {
		return err
	}
	warn(log, first)
	shared, err := openShared(first)
	if err != nil {
		return err
	}
	current := first
	stores := &sharedStore{store: shared}
	defer stores.exchange(nil)
	use(&first.Gateway, shared)
	g, err := gateway.New(first.Gateway, log)
	if err != nil {
		return err
	}
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	go func() {
		seen := fingerprint(current.Files)
		tick := time.NewTicker(watchEvery)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-hup:
			case <-tick.C:
				if fingerprint(current.Files) == seen {
					continue
				}
			}
			// Taken before loading, so that a change meanwhile is seen next time.
			seen = fingerprint(current.Files)
			if next := reload(log, g, current, stores, load); next != nil {
				current = next
				seen = fingerprint(current.Files)
			}
		}
	}()
	err = g.Serve(ctx, first.Server, func(a gateway.Addresses) {
		log.Info("serving", slog.Any("listen", a.Listeners), slog.String("admin", a.Admin))
		if started != nil {
			started(a)
		}
	})
	if err == nil {
		log.Info("stopped")
	}
	return err
}

// openShared opens the store that the rate limits are shared through, if there is one. It
// need not be up: until it is, each process counts alone.
func openShared(l *config.Loaded) (*valkey.Store, error) {
	if l.Valkey == nil {
		return nil, nil
	}
	return valkey.Open(context.Background(), *l.Valkey)
}

// sharedStore is the store of the configuration in force.
type sharedStore struct {
	mu    sync.Mutex
	store *valkey.Store // or nil
}

func (s *sharedStore) current() *valkey.Store {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.store
}

// exchange puts next in the place of the store, which is closed once the requests under
// way have asked it.
func (s *sharedStore) exchange(next *valkey.Store) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if old := s.store; old != nil && next != nil {
		time.AfterFunc(2*valkey.MaxTimeout, old.Close)
	} else if old != nil {
		old.Close() // nothing takes its place: the gate has stopped, or counts alone
	}
	s.store = next
}

// use has the gate share its limits through s, which may be nil.
func use(c *gateway.Config, s *valkey.Store) {
	if s != nil {
		c.SharedLimits = s
	}
}

// reload exchanges the configuration, or says why the old one stays.
func reload(log *slog.Logger, g *gateway.Gateway, current *config.Loaded, stores *sharedStore, load func() (*config.Loaded, error)) *config.Loaded {
	next, err := load()
	shared := stores.current()
	opened := false
	if err == nil && !current.SameStore(next) {
		shared, err = openShared(next)
		opened = true
	}
	if err != nil {
		g.ReloadRefused()
	} else {
		use(&next.Gateway, shared)
		err = g.Reload(next.Gateway)
	}
	switch {
	case err == nil && opened:
		stores.exchange(shared)
	case opened && shared != nil:
		shared.Close()
	}
	if err != nil {
		if faults, ok := errors.AsType[config.Faults](err); ok {
			for _, f := range faults {
				log.Error("configuration is at fault", slog.String("fault", f.Error()))
			}
		} else {
			log.Error("configuration is at fault", slog.Any("fault", err))
		}
		log.Error("configuration not reloaded: the old one stays in force")
		return nil
	}
	warn(log, next)
	for _, name := range current.Renew(next) {
		log.Warn("setting takes effect only at the next start", slog.String("setting", name))
	}
	log.Info("configuration reloaded")
	return next
}

func warn(log *slog.Logger, l *config.Loaded) {
	for _, w := range l.Warnings {
		log.Warn("configuration", slog.String("warning", w.Error()))
	}
}

// fingerprint changes when the content of one of the files does.
func fingerprint(files []string) [sha256.Size]byte {
	h := sha256.New()
	for _, name := range files {
		b, err := os.ReadFile(name) //nolint:gosec // the operator's own files.
		fmt.Fprintf(h, "%q %d %v\n", name, len(b), err != nil)
		h.Write(b)
	}
	return [sha256.Size]byte(h.Sum(nil))
}
