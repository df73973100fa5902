package lab

import (
	"bytes"
	"compress/gzip"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// maxFirstLoad bounds what a reader loads before the first screen, gzipped. The model comes
// later.
const maxFirstLoad = 150 << 10

func TestPageIsSmall(t *testing.T) {
	var zipped bytes.Buffer
	loaded := map[string]bool{}
	var load func(name string)
	load = func(name string) {
		if loaded[name] {
			return
		}
		loaded[name] = true
		text := content(t, "web/dist", name)
		w := gzip.NewWriter(&zipped)
		w.Write(text)
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		for _, m := range loadsAtOnce.FindAllStringSubmatch(string(text), -1) {
			load(m[1])
		}
	}
	load("index.html")
	asks := httptest.NewRequest("GET", "/.lab/boot", nil)
	asks.Host = "bank.localhost:7700"
	asks.Header.Set("Accept-Encoding", "gzip")
	lessons, err := Lessons()
	if err != nil {
		t.Fatal(err)
	}
	told := httptest.NewRecorder()
	New(Options{Names: Localhost("http", "7700"), Lessons: lessons}).ServeHTTP(told, asks)
	if told.Code != 200 || told.Header().Get("Content-Encoding") != "gzip" {
		t.Errorf("boot: %d, %v", told.Code, told.Header())
	}
	zipped.Write(told.Body.Bytes())
	if len(loaded) < 3 || zipped.Len() > maxFirstLoad {
		t.Errorf("the page loads %d files, %d bytes gzipped; want at most %d", len(loaded), zipped.Len(), maxFirstLoad)
	}
	t.Logf("%d bytes gzipped", zipped.Len())
}

// loadsAtOnce finds what a file of the page refers to, and not what import() loads when it
// is needed, such as the editor.
var loadsAtOnce = regexp.MustCompile(`(?:\b(?:src|href)="/|\b(?:from|import)\s*"\./)([\w./-]+\.(?:js|css))"`)

// What is committed in web/dist is what the sources give, the model included.
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
	built := distFiles(t, fresh)
	if got, want := strings.Join(distFiles(t, "web/dist"), " "), strings.Join(built, " "); got != want {
		t.Errorf("dist has %s; the build makes %s", got, want)
	}
	for _, name := range built {
		if !bytes.Equal(content(t, "web/dist", name), content(t, fresh, name)) {
			t.Errorf("web/dist/%s is not what the sources give; run make lab-page", name)
		}
	}
}

func distFiles(t *testing.T, dir string) (names []string) {
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

// content is a file's, unzipped, for another gzip may pack the same in another way; nil if
// there is no such file.
func content(t *testing.T, dir, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, filepath.FromSlash(name)))
	if err != nil || !strings.HasSuffix(name, ".gz") {
		return b
	}
	z, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	if b, err = io.ReadAll(z); err != nil {
		t.Fatal(err)
	}
	return b
}

// askSite asks a site of the lab, and none of its listeners.
func (l *Lab) askSite(t *testing.T, role Role, path string, header ...string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, l.o.Names.Origin(role, "")+path, http.NoBody)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	l.ServeHTTP(w, r)
	return w
}

func TestPageFilesComeWithTheirPolicies(t *testing.T) {
	l := open(t)
	policy := func(role Role, path string) string {
		return l.askSite(t, role, path).Header().Get("Content-Security-Policy")
	}
	for _, role := range sites {
		w := l.askSite(t, role, "/")
		if w.Code != http.StatusOK || !strings.Contains(w.Body.String(), `<div id="app">`) {
			t.Errorf("%s: status %d: no page", role, w.Code)
		}
		if p := policy(role, "/"); !strings.Contains(p, "default-src 'none'") || strings.Contains(p, "unsafe") || strings.Contains(p, "http:") {
			t.Errorf("%s: the page's policy is %q", role, p)
		}
	}
	if p := policy(RoleBank, "/.lab/stage"); !strings.Contains(p, "frame-ancestors 'self'") || !strings.Contains(p, l.o.Names.Origin(RoleAPI, "")) || strings.Contains(p, "*") {
		t.Errorf("the stage's policy is %q", p)
	}
	if p := policy(RoleBank, "/model/worker.js"); !strings.Contains(p, "'wasm-unsafe-eval'") {
		t.Errorf("the worker's policy is %q", p)
	}

	w := l.askSite(t, RoleLab, "/model/moat.wasm", "Accept-Encoding", "gzip, br")
	if w.Code != http.StatusOK || w.Header().Get("Content-Encoding") != "gzip" || w.Header().Get("Content-Type") != "application/wasm" {
		t.Errorf("moat.wasm: status %d, %v", w.Code, w.Header())
	}
	if w = l.askSite(t, RoleLab, "/model/moat.wasm"); !bytes.HasPrefix(w.Body.Bytes(), []byte("\x00asm")) || w.Header().Get("Content-Encoding") != "" {
		t.Errorf("moat.wasm for who takes no gzip: status %d, %v", w.Code, w.Header())
	}
	w = l.askSite(t, RoleLab, "/index.js")
	if again := l.askSite(t, RoleLab, "/index.js", "If-None-Match", w.Header().Get("ETag")); w.Code != http.StatusOK || again.Code != http.StatusNotModified {
		t.Errorf("index.js: status %d, and %d if it has not changed", w.Code, again.Code)
	}
	for _, path := range []string{"/no-such", "/model", "/.lab/script/no-such.js", "/.lab/script/.js"} {
		if w = l.askSite(t, RoleLab, path); w.Code != http.StatusNotFound {
			t.Errorf("%s: status %d, want 404", path, w.Code)
		}
	}
}

// TestPageFilesArePreparedOnce: to unpack the model takes far more than to ask for it.
func TestPageFilesArePreparedOnce(t *testing.T) {
	l := open(t)
	ask := func(header ...string) *httptest.ResponseRecorder {
		return l.askSite(t, RoleLab, "/model/moat.wasm", header...)
	}
	plain, zipped := ask(), ask("Accept-Encoding", "gzip")
	if tag := plain.Header().Get("ETag"); tag == "" || tag == zipped.Header().Get("ETag") || zipped.Header().Get("Vary") != "Accept-Encoding" {
		t.Errorf("ETag %q, and %q of the other copy", tag, zipped.Header().Get("ETag"))
	}
	mib, _ := spent(func() {
		for range 20 {
			if w := ask("If-None-Match", plain.Header().Get("ETag")); w.Code != http.StatusNotModified {
				t.Errorf("status %d", w.Code)
			}
		}
	})
	if mib > 2 {
		t.Errorf("20 requests allocate %d MiB", mib)
	}
}

// The probe answers the lab's own sites, across origins, and nobody else.
func TestProbeTellsWhetherCookiesGoAlong(t *testing.T) {
	l := open(t)
	bank := l.o.Names.Origin(RoleBank, "")
	for cookie, want := range map[string]string{"other=1": `{"cookie":false}`, "lab-probe=1": `{"cookie":true}`} {
		w := l.askSite(t, RoleStranger, "/.lab/probe", "Origin", bank, "Sec-Fetch-Site", "cross-site", "Cookie", cookie)
		if got := strings.TrimSpace(w.Body.String()); got != want || w.Header().Get("Access-Control-Allow-Origin") != bank {
			t.Errorf("with cookie %q: %s, %v; want %s", cookie, got, w.Header(), want)
		}
		if set := w.Header().Get("Set-Cookie"); !strings.Contains(set, "SameSite=None; Secure") {
			t.Errorf("Set-Cookie is %q", set)
		}
	}
	for _, origin := range []string{"", "null", "http://evil.test"} {
		if w := l.askSite(t, RoleStranger, "/.lab/probe", "Origin", origin); w.Code != http.StatusForbidden || w.Header().Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("origin %q: status %d, %v", origin, w.Code, w.Header())
		}
	}
}
