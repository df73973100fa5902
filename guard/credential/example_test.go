package credential_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"

	"github.com/moat-gateway/moat/guard/credential"
)

// A reverse proxy of the standard library that hides a key.
func ExampleGuard_Transport() {
	provider := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "not a key: %s; cookies: %d", r.Header.Get("Authorization"), len(r.Cookies()))
	}))
	defer provider.Close()
	target, err := url.Parse(provider.URL)
	if err != nil {
		panic(err)
	}
	g, err := credential.New(credential.Policy{Bearer: "sk-a-long-secret"}, nil)
	if err != nil {
		panic(err)
	}
	proxy := &httputil.ReverseProxy{
		Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(target) },
		Transport: g.Transport(http.DefaultTransport, func(where string) { fmt.Println("masked in", where) }),
	}
	r := httptest.NewRequest(http.MethodGet, "/v1/models", nil)
	r.Header.Set("Authorization", "Bearer the-callers-own")
	r.Header.Set("Cookie", "session=1")
	w := httptest.NewRecorder()
	proxy.ServeHTTP(w, r)
	answer, err := io.ReadAll(w.Result().Body)
	fmt.Println(string(answer), err)
	// Output:
	// masked in the answer's body
	// not a key: Bearer ****************; cookies: 0 <nil>
}
