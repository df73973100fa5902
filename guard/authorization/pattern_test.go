package authorization

import (
	"bufio"
	"net/http"
	"net/http/httptest"
	pathpkg "path"
	"strings"
	"testing"
)

// A value is what http.ServeMux gives the handler, or is not there.
func FuzzValuesAreThoseOfServeMux(f *testing.F) {
	for _, pattern := range []string{"/users/{sub}", "/users/{sub}/{$}", "/{a}/x/{b...}", "/a%2Fb/{c}/", "/{$}", "GET /x/{y}", "/", "/{a}/{b}/{c}"} {
		for _, path := range []string{
			"/users/alice", "/users/al%69ce", "/users/a%2Fb", "/users/a%2fb", "/users/..", "/users/%2e%2e", "/users/a/../b", "/users//", "/users/", "/users/a/",
			"/a%2Fb/c/d", "/a/x/", "/a/x/b/c%2Fd", "/", "", "/x/%zz", "/x/a;b", "/x/%00", "/x/%25", "/%61/%78/%2e/e",
		} {
			f.Add(pattern, path)
		}
	}
	f.Fuzz(func(t *testing.T, text, path string) {
		p, err := parsePattern(text)
		if err != nil {
			return
		}
		r, err := http.ReadRequest(bufio.NewReader(strings.NewReader("GET " + path + " HTTP/1.1\r\nHost: h\r\n\r\n")))
		if err != nil || r.URL.Host != "" || r.URL.Opaque != "" {
			return
		}
		head := text[:strings.IndexByte(text, '/')]
		if i := strings.IndexAny(head, " \t"); i >= 0 {
			r.Method, head = head[:i], strings.TrimLeft(head[i:], " \t")
		}
		if strings.Contains(head, ":") {
			return // ServeMux takes ports off hosts, so it matches nothing
		}
		r.Host = head
		want := make(map[string]string)
		mux := http.NewServeMux()
		mux.HandleFunc(text, func(_ http.ResponseWriter, r *http.Request) {
			for _, name := range p.names() {
				want[name] = r.PathValue(name)
			}
		})
		mux.ServeHTTP(httptest.NewRecorder(), r)
		for _, name := range p.names() {
			got, ok := p.value(r.URL, name)
			value, matched := want[name]
			// ServeMux sends who writes a path in another way than its own somewhere else.
			if ok != matched && (matched || pathpkg.Clean(r.URL.EscapedPath()) == r.URL.EscapedPath()) || ok && matched && got != value {
				t.Errorf("%q of %q in %q: %q, %v; ServeMux has %q, %v", name, text, path, got, ok, value, matched)
			}
		}
	})
}
