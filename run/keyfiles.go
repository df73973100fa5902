package run

import (
	"fmt"
	"log/slog"

	"github.com/moat-gateway/moat/config"
	"github.com/moat-gateway/moat/store/keyfile"
)

// KeyFileError is a file of API keys that cannot be opened.
type KeyFileError struct {
	config.KeyFile
	Err error
}

func (e *KeyFileError) Error() string {
	return fmt.Sprintf("auth.%s.api_key.file: %v", e.Source, e.Err)
}

// Unwrap returns the reason.
func (e *KeyFileError) Unwrap() error { return e.Err }

// keyFiles are the files with API keys that are in use, by path. They stay open across reloads:
// what they know of last uses is not lost.
type keyFiles struct {
	log  *slog.Logger
	open map[string]*keyfile.File
}

func newKeyFiles(log *slog.Logger) *keyFiles {
	return &keyFiles{log: log, open: make(map[string]*keyfile.File)}
}

// use opens what the configuration names and is not open yet.
func (k *keyFiles) use(l *config.Loaded) error {
	for i, f := range l.KeyFiles {
		file := k.open[f.Path]
		if file == nil {
			var err error
			if file, err = keyfile.Open(f.Path, k.report(f)); err != nil {
				return &KeyFileError{f, err}
			}
			k.open[f.Path] = file
		}
		l.Gateway.Callers.Keys[i].Set = file.Keys()
	}
	return nil
}

func (k *keyFiles) report(f config.KeyFile) func(error) {
	return func(err error) {
		if err == nil {
			k.log.Info("file of API keys can be used again", slog.String("auth", f.Source))
			return
		}
		k.log.Error("file of API keys cannot be used: the keys known before stay in force", slog.String("auth", f.Source), slog.Any("error", err))
	}
}

// keep closes what the configuration in force does not name.
func (k *keyFiles) keep(l *config.Loaded) {
	named := make(map[string]bool)
	for _, f := range l.KeyFiles {
		named[f.Path] = true
	}
	for path, f := range k.open {
		if !named[path] {
			k.closeFile(path, f)
		}
	}
}

func (k *keyFiles) close() {
	for path, f := range k.open {
		k.closeFile(path, f)
	}
}

func (k *keyFiles) closeFile(path string, f *keyfile.File) {
	if err := f.Close(); err != nil {
		k.log.Error("last uses of API keys not written", slog.Any("error", err))
	}
	delete(k.open, path)
}
