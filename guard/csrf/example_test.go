package csrf_test

import (
	"crypto/rand"
	"fmt"
	"net/http"
	"net/http/httptest"
	"time"

	"github.com/moat-gateway/moat/guard/csrf"
)

// A server with sessions, behind the guard.
func Example() {
	secret := make([]byte, 32) // from the configuration, so that a restart voids no token
	rand.Read(secret)
	g, err := csrf.New(csrf.Policy{Secrets: [][]byte{secret}, SessionCookies: []string{"session"}})
	if err != nil {
		panic(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /.moat/csrf", func(w http.ResponseWriter, r *http.Request) { g.Issue(w, r, time.Now()) })
	mux.HandleFunc("POST /transfer", func(http.ResponseWriter, *http.Request) { fmt.Println("transferred") })
	h := g.Handler(mux)

	forged := httptest.NewRequest("POST", "/transfer", nil)
	forged.Header.Set("Cookie", "session=alice")
	w := httptest.NewRecorder()
	h.ServeHTTP(w, forged)
	fmt.Println(w.Code)
	// Output: 403
}
