// Package dashboard is the page of the admin listener. It holds the page's files and no data:
// the page asks the listener that it comes from, and nobody else.
package dashboard

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"fmt"
	"io/fs"
	"net/http"
	"path"
	"strings"
	"sync"
	"time"
)

// dist is what web builds: see web/README.md.
//
//go:embed web/dist
var dist embed.FS

// Path is where the page's files are, other than the page itself.
const Path = "/dashboard/"

// policy lets the page run its own script and ask its own origin. What clients have sent stands
// in the page as text; if it ever stood there as markup, this would keep it from running.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"

// types are those of the page's files: what the system says of .js is not always so.
var types = map[string]string{
	".html": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8", ".svg": "image/svg+xml",
}

type file struct {
	text []byte
	tag  string
}

var files = sync.OnceValue(func() map[string]file {
	all := make(map[string]file)
	err := fs.WalkDir(dist, "web/dist", func(at string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := dist.ReadFile(at)
		all[strings.TrimPrefix(at, "web/dist/")] = file{text, fmt.Sprintf("%q", fmt.Sprintf("%x", sha256.Sum256(text))[:32])}
		return err
	})
	if err != nil {
		panic(err) // it is part of the program
	}
	return all
})

// Serve answers with the page, or with one of its files.
func Serve(w http.ResponseWriter, r *http.Request) {
	name := strings.TrimPrefix(r.URL.Path, Path)
	if r.URL.Path == "/" {
		name = "index.html"
	}
	h := w.Header()
	f, ok := files()[name]
	if !ok {
		http.Error(w, "There is no such file.", http.StatusNotFound)
		return
	}
	h.Set("Content-Security-Policy", policy)
	h.Set("Content-Type", types[path.Ext(name)])
	h.Set("Cache-Control", "no-cache")
	h.Set("ETag", f.tag)
	http.ServeContent(w, r, name, time.Time{}, bytes.NewReader(f.text))
}
