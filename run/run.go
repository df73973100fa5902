// Package run is what `moat run` does with a configuration: it opens the stores and files that
// it names, serves, and exchanges it for a newer one while it serves. It is a package so that
// a program with more to it, such as otel/cmd/moat-otel, is that same gate.
package run

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	stdlog "log"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"runtime/debug"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/moat-gateway/moat/config"
	"github.com/moat-gateway/moat/gateway"
	"github.com/moat-gateway/moat/store/valkey"
)

// watchEvery is how often the configuration's files are looked at. Polling sees every
// way of replacing a file, a mounted secret's symbolic link included.
const watchEvery = time.Second

// gcPercent lets the heap grow to three times what is live before it is collected. A
// gate's live heap is a few MiB and its garbage is all per request, so this is a
// twentieth of its CPU for some 5 MiB. GOGC, if set, has the last word.
const gcPercent = 200

// Options are what a program adds to the gate. The zero Options add nothing.
type Options struct {
	// Started is called once, when all listeners are open.
	Started func(gateway.Addresses)
	// Configure may add to each configuration before it takes effect: Observe and Transport, say.
	Configure func(*gateway.Config)
	// Handler stands around the gate, for clients; not around the admin listener.
	Handler func(http.Handler) http.Handler
}

// Gate serves until ctx is done, and reloads on SIGHUP and when a file changes. load reads the
// configuration, now and at each reload.
func Gate(ctx context.Context, log *slog.Logger, load func() (*config.Loaded, error), o Options) error {
	if configure := o.Configure; configure != nil {
		read := load
		load = func() (*config.Loaded, error) {
			l, err := read()
			if err == nil {
				configure(&l.Gateway)
			}
			return l, err
		}
	}
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	// What an upstream sends without having been asked net/http prints here, and it may hold
	// a credential. The gate has a log of its own.
	stdlog.SetOutput(io.Discard)
	first, err := load()
	if err != nil {
		return err
	}
	watched := first.Files
	seen := fingerprint(watched)
	warn(log, first)
	shared, err := openShared(first)
	if err != nil {
		return err
	}
	current := first
	stores := &sharedStore{now: shared}
	defer stores.exchange(nil)
	shared.use(&first.Gateway)
	books := &books{log: log}
	defer books.close()
	if err = books.use(first); err != nil {
		return err
	}
	keyFiles := newKeyFiles(log)
	defer keyFiles.close()
	if err = keyFiles.use(first); err != nil {
		return err
	}
	g, err := gateway.New(first.Gateway, log)
	if err != nil {
		return err
	}
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	go func() {
		tick := time.NewTicker(watchEvery)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-hup:
			case <-tick.C:
				if fingerprint(watched) == seen {
					continue
				}
			}
			// Taken before loading, so that a change meanwhile is seen next time.
			seen = fingerprint(watched)
			next, applied := reload(log, g, current, stores, books, keyFiles, load)
			if applied {
				current = next
			}
			// What is at fault may be mended by a file that it names for the first time.
			if next != nil && !slices.Equal(next.Files, watched) {
				watched = next.Files
				seen = [sha256.Size]byte{} // they may have changed meanwhile: read them once more
			}
		}
	}()
	server := first.Server
	server.Handler = o.Handler
	err = g.Serve(ctx, server, func(a gateway.Addresses) {
		log.Info("serving", slog.Any("listen", a.Listeners), slog.String("admin", a.Admin))
		if o.Started != nil {
			o.Started(a)
		}
	})
	if err == nil {
		log.Info("stopped")
	}
	return err
}

// shared is the store that limits and tickets are shared through.
type shared struct {
	*valkey.Store
	tickets  *valkey.Tickets // or nil
	lifetime time.Duration   // of the tickets
}

// openShared opens the store, if there is one. It need not be up: until it is, each process
// is alone.
func openShared(l *config.Loaded) (*shared, error) {
	if l.Valkey == nil {
		return nil, nil
	}
	store, err := valkey.Open(context.Background(), *l.Valkey)
	if err != nil {
		return nil, err
	}
	return &shared{Store: store}, nil
}

// use has the gate share what it remembers through s, which may be nil.
func (s *shared) use(c *gateway.Config) {
	if s == nil {
		return
	}
	c.SharedLimits = s.Store
	c.Spent = s.Budgets()
	c.Callers.Sessions = s.Sessions()
	if c.Tickets == nil {
		return
	}
	// What was remembered for shorter lives may be forgotten too early for longer ones.
	if life := c.Tickets.Policy.Lifetime; s.tickets == nil || life > s.lifetime {
		s.tickets, s.lifetime = s.Tickets(life), life
	}
	c.Tickets.Shared = s.tickets
}

// sharedStore is the store of the configuration in force.
type sharedStore struct {
	mu  sync.Mutex
	now *shared // or nil
}

func (s *sharedStore) current() *shared {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now
}

// exchange puts next in the place of the store, which is closed once the requests under
// way have asked it.
func (s *sharedStore) exchange(next *shared) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if old := s.now; old != nil && next != nil {
		time.AfterFunc(2*valkey.MaxTimeout, old.Close)
	} else if old != nil {
		old.Close() // nothing takes its place: the gate has stopped, or counts alone
	}
	s.now = next
}

// reload exchanges the configuration, or says why the old one stays. Of one that is refused
// Files are known, or nothing.
func reload(
	log *slog.Logger, g *gateway.Gateway, current *config.Loaded, stores *sharedStore, books *books, keyFiles *keyFiles, load func() (*config.Loaded, error),
) (next *config.Loaded, applied bool) {
	next, err := load()
	shared := stores.current()
	opened := false
	if err == nil && !current.SameStore(next) {
		shared, err = openShared(next)
		opened = true
	}
	if err == nil {
		err = books.use(next)
	}
	if err == nil {
		err = keyFiles.use(next)
	}
	if err != nil {
		g.ReloadRefused()
	} else {
		shared.use(&next.Gateway)
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
		return next, false
	}
	keyFiles.keep(next)
	warn(log, next)
	for _, name := range current.Renew(next) {
		log.Warn("setting takes effect only at the next start", slog.String("setting", name))
	}
	log.Info("configuration reloaded")
	return next, true
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
