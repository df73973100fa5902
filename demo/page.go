package demo

import (
	"bytes"
	"embed"
	"html/template"
	"net/http"
	"path"
	"strings"
	"time"
)

//go:embed page
var files embed.FS

var templates = template.Must(template.ParseFS(files, "page/*.html"))

// mediaTypes are stated here because what mime.TypeByExtension says depends on the
// machine, and browsers run no module that is not JavaScript by its type.
var mediaTypes = map[string]string{
	".css": "text/css; charset=utf-8",
	".js":  "text/javascript; charset=utf-8",
	".svg": "image/svg+xml",
}

// pageHandler serves the page of that name at "/", and beside it the style, the scripts
// and the icons that both pages share.
func pageHandler(name string, o origins) http.Handler {
	csp := contentSecurityPolicy(o)
	var page bytes.Buffer
	if err := templates.ExecuteTemplate(&page, name+".html", o); err != nil {
		panic(err) // plain fields in an embedded template
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(page.Bytes()))
	})
	mux.HandleFunc("GET /{file}", func(w http.ResponseWriter, r *http.Request) {
		file := r.PathValue("file")
		media := mediaTypes[path.Ext(file)]
		content, err := files.ReadFile("page/" + file)
		if media == "" || err != nil {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Type", media)
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(content))
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", csp)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		// The ports of another run may be the same while its pages are not.
		h.Set("Cache-Control", "no-store")
		// Stated because the attacks depend on it: under no-referrer a form would
		// send "Origin: null".
		h.Set("Referrer-Policy", "strict-origin-when-cross-origin")
		mux.ServeHTTP(w, r)
	})
}

// contentSecurityPolicy lets a page load its own files, talk to the demo's servers, and
// nothing else.
func contentSecurityPolicy(o origins) string {
	targets := o.Gate + " " + o.Backend
	return strings.Join([]string{
		"default-src 'none'",
		"script-src 'self'",
		"style-src 'self'",
		"img-src 'self' " + targets,
		"connect-src " + targets + " " + o.Ledger,
		"form-action " + targets,
		"frame-src " + targets,
		"base-uri 'none'",
		"frame-ancestors 'none'",
		"require-trusted-types-for 'script'",
	}, "; ")
}
