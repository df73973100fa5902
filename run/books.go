package run

import (
	"fmt"
	"log/slog"

	"github.com/moat-gateway/moat/config"
	"github.com/moat-gateway/moat/store/ledger"
)

// books is the file in which what has been spent of budgets is kept. Once it is open it stays the same until the
// gate is started anew: another one would have forgotten what has been spent.
type books struct {
	log    *slog.Logger
	ledger *ledger.Ledger // nil until a configuration has budgets and no Valkey
}

// use has the gate keep its budgets in the file, if that is what its configuration says.
func (b *books) use(l *config.Loaded) error {
	if l.SpentFile == "" {
		return nil
	}
	if b.ledger == nil {
		opened, created, err := ledger.Open(l.SpentFile)
		if err != nil {
			return fmt.Errorf("store.file: %w", err)
		}
		if b.ledger = opened; created {
			b.log.Warn("budgets begin at nothing: the file is new", slog.String("file", l.SpentFile))
		}
	}
	l.Gateway.Spent = b.ledger
	return nil
}

func (b *books) close() {
	if b.ledger == nil {
		return
	}
	if err := b.ledger.Close(); err != nil {
		b.log.Error("the exact figures of budgets are not written: the next start counts up to a thirty-second of each cap more", slog.Any("error", err))
	}
}
