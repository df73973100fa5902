package lab

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"embed"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"path"
	"slices"
	"strings"
	"sync"
	"time"
)

// dist is what web builds: see web/README.md.
//
//go:embed web/dist
var dist embed.FS

// pagePolicy is the page's own. What the lessons do is done in the stage, a frame with a
// policy of its own.
const pagePolicy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; worker-src 'self'; frame-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// modelPolicy is that of the worker in which the browser's model runs: WebAssembly, and its
// own files.
const modelPolicy = "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; connect-src 'self'"

// stagePolicy is that of the stage: it may do to the lab's origins what a page without a
// policy does to everybody.
func (l *Lab) stagePolicy(v *visitor) string {
	var all []string
	for r, origin := range l.o.Names.Origins(v.id) {
		all = append(all, origin, l.o.Names.fill("{"+string(r)+":ws}", v.id))
	}
	slices.Sort(all)
	origins := strings.Join(all, " ")
	// "localhost:" is for who forgets the scheme: what a browser says of that is a lesson.
	return "default-src " + origins + " data: blob: localhost: 'unsafe-inline'; script-src " + origins +
		"; object-src 'none'; base-uri 'none'; form-action " + origins + "; frame-ancestors 'self'"
}

// types are those of the page's files: what the system says of .js is not always so.
var types = map[string]string{
	".html": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8",
	".svg": "image/svg+xml", ".json": "application/json", ".wasm": "application/wasm",
}

// serveFile answers with a file of the page.
func (l *Lab) serveFile(w http.ResponseWriter, r *http.Request) {
	name := strings.TrimPrefix(path.Clean("/"+r.URL.Path), "/")
	if name == "" {
		name = "index.html"
	}
	policy := pagePolicy
	if name == "model/worker.js" {
		policy = modelPolicy
	}
	sendFile(w, r, name, policy)
}

// serveStage answers with the frame in which the lessons' requests are made.
func (l *Lab) serveStage(w http.ResponseWriter, r *http.Request, v *visitor) {
	sendFile(w, r, "stage.html", l.stagePolicy(v))
}

func sendFile(w http.ResponseWriter, r *http.Request, name, policy string) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		http.Error(w, "This is a page.", http.StatusMethodNotAllowed)
		return
	}
	h := w.Header()
	h.Set("Content-Security-Policy", policy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-cache")
	f, ok := files()[name]
	if !ok {
		http.Error(w, "There is no such page.", http.StatusNotFound)
		return
	}
	if f.zipped != nil {
		h.Set("Vary", "Accept-Encoding")
		if strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
			h.Set("Content-Encoding", "gzip")
			f = f.zipped
		}
	}
	body, err := f.body()
	if err != nil {
		http.Error(w, "This file cannot be read: "+err.Error(), http.StatusInternalServerError)
		return
	}
	if kind := types[path.Ext(name)]; kind != "" {
		h.Set("Content-Type", kind)
	}
	h.Set("ETag", body.tag)
	http.ServeContent(w, r, name, time.Time{}, bytes.NewReader(body.text))
}

// file is one of the page's.
type file struct {
	body func() (body, error)
	// zipped is the compressed copy. All browsers take that as it is.
	zipped *file
}

type body struct {
	text []byte
	tag  string
}

// files are the page's, by name. Each is read, unpacked and hashed once, when somebody asks
// for it first: to do so costs much more than to ask.
var files = sync.OnceValue(func() map[string]*file {
	all := make(map[string]*file)
	once := func(read func() ([]byte, error)) *file {
		return &file{body: sync.OnceValues(func() (body, error) {
			text, err := read()
			return body{text, fmt.Sprintf("%q", fmt.Sprintf("%x", sha256.Sum256(text))[:32])}, err
		})}
	}
	err := fs.WalkDir(dist, "web/dist", func(at string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name := strings.TrimPrefix(at, "web/dist/")
		all[name] = once(func() ([]byte, error) { return dist.ReadFile(at) })
		if wasm, ok := strings.CutSuffix(name, ".gz"); ok && strings.HasSuffix(wasm, ".wasm") {
			all[wasm] = once(func() ([]byte, error) { return unzipped(at) })
			all[wasm].zipped = all[name]
		}
		return nil
	})
	if err != nil {
		panic(err) // it is part of the program
	}
	return all
})

// unzipped is a file of which dist has the compressed copy only.
func unzipped(at string) ([]byte, error) {
	zipped, err := dist.ReadFile(at)
	if err != nil {
		return nil, err
	}
	z, err := gzip.NewReader(bytes.NewReader(zipped))
	if err != nil {
		return nil, err
	}
	return io.ReadAll(z)
}

// serveScript answers with a lesson's script.js. A sandboxed stage has no origin, and so
// asks for modules by CORS; there is nothing secret in one.
func (l *Lab) serveScript(w http.ResponseWriter, name string) {
	found := l.lesson(strings.TrimSuffix(name, ".js"))
	if found == nil || found.Script == "" {
		http.Error(w, "There is no such script.", http.StatusNotFound)
		return
	}
	w.Header().Set("Content-Type", types[".js"])
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Access-Control-Allow-Origin", "*")
	_, _ = io.WriteString(w, found.Script)
}

// serveProbe tells a page on another of the lab's sites whether its browser let a cookie
// come along, and sets that cookie: whoever blocks third-party cookies sees half of the
// lessons differ.
func (l *Lab) serveProbe(w http.ResponseWriter, r *http.Request, v *visitor) {
	origin := r.Header.Get("Origin")
	if !slices.Contains(slices.Collect(maps.Values(l.o.Names.Origins(v.id))), origin) {
		http.Error(w, "Only the lab's own pages ask this.", http.StatusForbidden)
		return
	}
	w.Header().Set("Access-Control-Allow-Origin", origin)
	w.Header().Set("Access-Control-Allow-Credentials", "true")
	w.Header().Set("Vary", "Origin")
	w.Header().Set("Set-Cookie", "lab-probe=1; Path=/.lab/probe; Max-Age=60; SameSite=None; Secure; HttpOnly")
	_, err := r.Cookie("lab-probe")
	writeJSON(w, http.StatusOK, map[string]bool{"cookie": err == nil})
}
