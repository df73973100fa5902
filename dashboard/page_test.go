package dashboard

import (
	"bytes"
	"compress/gzip"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func get(t *testing.T, path string, header ...string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, http.NoBody)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	Serve(w, r)
	return w
}

// TestPageRunsOnlyItsOwn: no file of the page has script or style inside, or names another host.
func TestPageRunsOnlyItsOwn(t *testing.T) {
	page := get(t, "/")
	if page.Code != http.StatusOK || !strings.Contains(page.Body.String(), `<div id="app">`) {
		t.Fatalf("status %d: no page", page.Code)
	}
	for _, want := range []string{"default-src 'none'", "script-src 'self'", "frame-ancestors 'none'", "form-action 'none'", "base-uri 'none'", "require-trusted-types-for 'script'"} {
		if p := page.Header().Get("Content-Security-Policy"); !strings.Contains(p, want) || strings.Contains(p, "unsafe") || strings.Contains(p, "*") {
			t.Errorf("the policy has no %s: %s", want, p)
		}
	}
	if inline := regexp.MustCompile(`<script>|<script [^>]*>[^<]|<style|\son\w+=|style=`).FindString(page.Body.String()); inline != "" {
		t.Errorf("the page has %s", inline)
	}
	foreign := regexp.MustCompile(`https?://[\w.-]+`)
	for name, f := range files() {
		for _, host := range foreign.FindAllString(string(f.text), -1) {
			if host != "http://www.w3.org" { // the names of SVG and its like
				t.Errorf("%s names %s", name, host)
			}
		}
		path := Path + name
		if w := get(t, path); w.Code != http.StatusOK || w.Header().Get("Content-Type") == "" || w.Header().Get("Content-Security-Policy") == "" {
			t.Errorf("%s: status %d, %v", path, w.Code, w.Header())
		} else if again := get(t, path, "If-None-Match", w.Header().Get("ETag")); again.Code != http.StatusNotModified {
			t.Errorf("%s: status %d if it has not changed", path, again.Code)
		}
	}
	for _, path := range []string{Path, Path + "no-such.js", Path + "../page.go", Path + "web/dist/index.js"} {
		if w := get(t, path); w.Code != http.StatusNotFound {
			t.Errorf("%s: status %d; want 404", path, w.Code)
		}
	}
}

func TestPageIsSmall(t *testing.T) {
	var zipped bytes.Buffer
	for _, f := range files() {
		w := gzip.NewWriter(&zipped)
		w.Write(f.text)
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if most := 40 << 10; len(files()) < 4 || zipped.Len() > most {
		t.Errorf("%d files, %d bytes gzipped; want at most %d", len(files()), zipped.Len(), most)
	}
	t.Logf("%d bytes gzipped", zipped.Len())
}

// What is committed in web/dist is what the sources give.
func TestPageIsCurrent(t *testing.T) {
	if testing.Short() {
		t.Skip("runs node and the compiler, which takes seconds: run without -short (make test does)")
	}
	node, err := exec.LookPath("node")
	if err != nil {
		t.Fatal("node is not in PATH; run make setup")
	}
	fresh := t.TempDir()
	cmd := exec.CommandContext(t.Context(), node, "build.mjs", fresh)
	cmd.Dir = "web"
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("node build.mjs: %v\n%s", err, out)
	}
	built := names(t, fresh)
	if got := names(t, "web/dist"); !slices.Equal(got, built) {
		t.Errorf("dist has %v; the build makes %v", got, built)
	}
	for _, name := range built {
		if !bytes.Equal(content(t, "web/dist", name), content(t, fresh, name)) {
			t.Errorf("web/dist/%s is not what the sources give; run make dashboard-page", name)
		}
	}
}

func names(t *testing.T, dir string) (names []string) {
	t.Helper()
	err := fs.WalkDir(os.DirFS(dir), ".", func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			names = append(names, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func content(t *testing.T, dir, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, filepath.FromSlash(name)))
	if err != nil {
		t.Error(err)
	}
	return b
}
