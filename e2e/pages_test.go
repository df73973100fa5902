package e2e

import (
	"html/template"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
)

// startSite serves pages under a host name, which the browser takes to loopback, and
// returns their origin.
func startSite(t *testing.T, host string) string {
	t.Helper()
	server := httptest.NewServer(pages(t))
	t.Cleanup(server.Close)
	_, port, err := net.SplitHostPort(server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return "http://" + net.JoinHostPort(host, port)
}

func pages(t *testing.T) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) { show(t, w, blankPage, "") })
	mux.HandleFunc("GET /form", func(w http.ResponseWriter, r *http.Request) { show(t, w, formPage, r.FormValue("to")) })
	// An answer that sends the request on, with its method and its body.
	mux.HandleFunc("/on", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, r.URL.Query().Get("to"), http.StatusTemporaryRedirect)
	})
	return mux
}

// Both pages have an icon, so that the browser asks nobody for one.
var (
	blankPage = template.Must(template.New("blank").Parse(`<!doctype html>
<meta charset="utf-8"><title>A page</title><link rel="icon" href="data:,">
`))
	// formPage submits itself, as a page does that does not wait for anybody's click.
	formPage = template.Must(template.New("form").Parse(`<!doctype html>
<meta charset="utf-8"><title>A form</title><link rel="icon" href="data:,">
<form method="post" action="{{.}}"><input type="hidden" name="amount" value="50"></form>
<script>document.forms[0].submit()</script>
`))
)

func show(t *testing.T, w http.ResponseWriter, page *template.Template, to string) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	if err := page.Execute(w, to); err != nil {
		t.Error(err)
	}
}
