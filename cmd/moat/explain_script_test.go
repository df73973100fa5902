package main

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/moat-gateway/moat/explain"
)

// logs are what the backends were asked, by the directory of the script.
var (
	logMu sync.Mutex
	logs  = map[string][]string{}
)

// backend NAME starts a server whose paths say how it behaves. It lives as long as the
// script.
func backend(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) != 1 {
		ts.Fatalf("usage: backend NAME")
	}
	over, work := make(chan struct{}), ts.Getenv("WORK")
	mux := http.NewServeMux()
	on := func(path string, serve http.HandlerFunc) {
		mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
			logMu.Lock()
			line := r.Method + " " + r.URL.RequestURI()
			for _, name := range []string{"Cookie", "Authorization"} {
				if v := r.Header.Get(name); v != "" {
					line += " " + name + ":" + v
				}
			}
			logs[work] = append(logs[work], line)
			logMu.Unlock()
			serve(w, r)
		})
	}
	allow := func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Access-Control-Allow-Origin", r.Header.Get("Origin"))
		h.Set("Access-Control-Allow-Credentials", "true")
		h.Set("Access-Control-Allow-Methods", r.Header.Get("Access-Control-Request-Method"))
		h.Set("Access-Control-Allow-Headers", r.Header.Get("Access-Control-Request-Headers"))
		h.Set("Content-Type", "application/json")
	}
	on("/silent/", func(http.ResponseWriter, *http.Request) {})
	on("/express/", func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("X-Powered-By", "Express") })
	on("/allow/", func(w http.ResponseWriter, r *http.Request) { allow(w, r); fmt.Fprint(w, "{}") })
	on("/preflight-only/", func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodOptions {
			allow(w, r)
		}
	})
	on("/refuse/", func(w http.ResponseWriter, r *http.Request) {
		allow(w, r)
		if r.Method != http.MethodOptions {
			w.WriteHeader(http.StatusForbidden)
		}
	})
	on("/html/", func(w http.ResponseWriter, r *http.Request) {
		allow(w, r)
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprint(w, "<!doctype html><title>Log in</title>")
	})
	on("/login/", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/html/", http.StatusFound) })
	on("/loop/", func(w http.ResponseWriter, r *http.Request) {
		allow(w, r)
		http.Redirect(w, r, "/loop/", http.StatusFound)
	})
	on("/inside/", func(w http.ResponseWriter, r *http.Request) {
		allow(w, r)
		http.Redirect(w, r, "http://127.0.0.2:"+port(r.Host)+"/allow/", http.StatusFound)
	})
	on("/hang/", func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-over:
		case <-r.Context().Done():
		}
	})
	on("/terminal/", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Access-Control-Allow-Origin", "https://\xc2\x9b31m.example \u202e")
	})
	srv := httptest.NewServer(mux)
	ts.Defer(func() { close(over); srv.Close() })
	ts.Setenv(args[0], srv.Listener.Addr().String())
	ts.Setenv("PORT", port(srv.Listener.Addr().String()))
}

func port(hostport string) string {
	_, p, _ := net.SplitHostPort(hostport)
	return p
}

// backendAsked REQUEST... compares what the backend was asked since the last time.
func backendAsked(ts *testscript.TestScript, _ bool, want []string) {
	logMu.Lock()
	defer logMu.Unlock()
	got := strings.Join(logs[ts.Getenv("WORK")], ", ")
	if got != strings.Join(want, ", ") {
		ts.Fatalf("the backend was asked %q, want %q", got, want)
	}
	delete(logs, ts.Getenv("WORK"))
}

// validate FILE judges JSON by the published schema.
func validate(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) != 1 {
		ts.Fatalf("usage: validate FILE")
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(explain.Schema()))
	ts.Check(err)
	c := jsonschema.NewCompiler()
	ts.Check(c.AddResource("explain.schema.json", doc))
	s, err := c.Compile("explain.schema.json")
	ts.Check(err)
	report, err := jsonschema.UnmarshalJSON(strings.NewReader(ts.ReadFile(args[0])))
	ts.Check(err)
	ts.Check(s.Validate(report))
}
