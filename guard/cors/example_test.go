package cors_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"time"

	"github.com/moat-gateway/moat/guard/cors"
	"github.com/moat-gateway/moat/web"
)

func Example() {
	origins, faults := web.NewOriginSet([]string{"https://app.example.com"}, web.OriginSetOptions{})
	for _, f := range faults {
		panic(f)
	}
	self, err := web.ParseOrigin("https://api.example.com")
	if err != nil {
		panic(err)
	}
	g, errs := cors.New(cors.Policy{
		Origins: origins, Public: web.NewPublicOrigins([]web.Origin{self}),
		Methods: []string{"GET", "POST"}, RequestHeaders: []string{"Content-Type"}, MaxAge: 2 * time.Hour,
	})
	for _, e := range errs {
		panic(e)
	}
	// The guard goes around the whole mux, not around one method's handler: it has to
	// see OPTIONS.
	mux := http.NewServeMux()
	mux.HandleFunc("POST /transfer", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "money moved") })
	h := g.Handler(mux)

	for _, origin := range []string{"https://app.example.com", "https://stranger.example"} {
		r := httptest.NewRequest("POST", "https://api.example.com/transfer", nil)
		r.Header.Set("Origin", origin)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		fmt.Println(w.Code, w.Body)
	}
	// Output:
	// 200 money moved
	// 403 {"type":"https://github.com/moat-gateway/moat/blob/main/docs/reasons.md#cors-origin-not-allowed","title":"This origin may not call this API","status":403,"code":"cors-origin-not-allowed"}
}
