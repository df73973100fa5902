package e2e

import (
	"os"
	"path/filepath"
	"sync"
	"testing"
)

// scratch holds what is made once for the whole package: the command that is under
// test, and the browser's profile.
var scratch string

func TestMain(m *testing.M) { os.Exit(runAll(m)) }

func runAll(m *testing.M) (code int) {
	var err error
	if scratch, err = os.MkdirTemp("", "moat-e2e-"); err != nil {
		panic(err)
	}
	defer os.RemoveAll(scratch)
	defer closeBrowser()
	return m.Run()
}

func scratchFile(name string) string { return filepath.Join(scratch, name) }

// thorough marks a test that starts real programs: it is not for the inner loop.
func thorough(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("starts real programs, and most such tests a browser, which takes seconds: run without -short (make test does)")
	}
}

// once makes something that all tests share, in the first test that needs it. If that
// test fails over it, the next one tries again.
type once[T any] struct {
	mu   sync.Mutex
	made bool
	it   T
}

func (o *once[T]) get(t *testing.T, construct func(*testing.T) T) T {
	t.Helper()
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.made {
		o.it = construct(t)
		o.made = true
	}
	return o.it
}
