package session

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"html/template"
	"net/http"
	"strings"

	"github.com/moat-gateway/moat/guard"
)

//go:embed page.html
var pageSource string

var page = template.Must(template.New("page").Parse(pageSource))

// pagePolicy lets the page have its own style sheet, and nothing else.
var pagePolicy = func() string {
	_, style, _ := strings.Cut(pageSource, "<style>")
	style, _, _ = strings.Cut(style, "</style>")
	sum := sha256.Sum256([]byte(style))
	return "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
}()

// WritePage tells a person whose sign-in was refused what happened, and where to begin again.
// It tells no more than the problem document does that programs get: see guard.Refuse.
func WritePage(w http.ResponseWriter, reason guard.Reason, id, again string) {
	var b bytes.Buffer
	if err := page.Execute(&b, struct{ Title, Code, ID, Again string }{reason.Title(), reason.String(), id, again}); err != nil {
		panic(err) // into memory, of texts
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", pagePolicy)
	h.Set("Cache-Control", "no-store")
	h.Set("Referrer-Policy", "no-referrer") // the path can hold a code
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(reason.Status())
	w.Write(b.Bytes())
}
