package client_test

import (
	"bytes"
	"compress/gzip"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/moat-gateway/moat/client"
)

// maxGzip bounds what every page loads.
const maxGzip = 4096

func TestClientIsSmall(t *testing.T) {
	for _, f := range client.Files() {
		if f.Name == "solver.js" {
			continue // comes only when there is a challenge
		}
		var zipped bytes.Buffer
		w, err := gzip.NewWriterLevel(&zipped, gzip.BestCompression)
		if err != nil {
			t.Fatal(err)
		}
		w.Write(f.Body)
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if len(f.Body) == 0 || zipped.Len() > maxGzip {
			t.Errorf("%s has %d bytes, %d gzipped; want at most %d", f.Name, len(f.Body), zipped.Len(), maxGzip)
		}
	}
}

// node runs a script of this folder. make setup installs node and what is in package.json.
func node(t *testing.T, args ...string) []byte {
	t.Helper()
	if testing.Short() {
		t.Skip("runs node, which takes seconds: run without -short (make test does)")
	}
	path, err := exec.LookPath("node")
	if err != nil {
		t.Fatal("node is not in PATH; run make setup")
	}
	out, err := exec.CommandContext(t.Context(), path, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("node %v: %v\n%s", args, err, out)
	}
	return out
}

func TestDistIsCurrent(t *testing.T) {
	fresh := t.TempDir()
	node(t, "build.mjs", fresh)
	built, err := os.ReadDir(fresh)
	if err != nil {
		t.Fatal(err)
	}
	committed, err := os.ReadDir("dist")
	if err != nil {
		t.Fatal(err)
	}
	if len(built) != len(committed) {
		t.Errorf("the build makes %d files, dist has %d", len(built), len(committed))
	}
	for _, entry := range built {
		want, err := os.ReadFile(filepath.Join(fresh, entry.Name()))
		if err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(filepath.Join("dist", entry.Name()))
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("dist/%s is not what src gives (%v); run npm run build in client", entry.Name(), err)
		}
	}
}

func TestClient(t *testing.T) {
	files, err := filepath.Glob("test/*.test.mjs")
	if err != nil || len(files) == 0 {
		t.Fatalf("no tests (%v)", err)
	}
	node(t, append([]string{"--test"}, files...)...)
}
