package gateway_test

import (
	"io"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/moat-gateway/moat/gateway"
	"github.com/moat-gateway/moat/guard/body"
)

// One who sends slowly does not keep all others out: a client has a share of the memory in which
// bodies are judged.
func TestOneClientCannotHoldTheRoomOfAll(t *testing.T) {
	b := newBackend(t, nil)
	const large = 16 << 20
	g := newGateway(t, configFor(t, b.URL, route(func(r *gateway.Route) {
		r.CrossSite.AllowBrowserless = true
		r.Bounds.BodyBytes, r.Bounds.BodyIdle, r.Body = large, 0, &body.Policy{StrictJSON: true, Bytes: large}
	})))
	post := func(from string, text io.Reader) string {
		r := httptest.NewRequest("POST", self+"/v1/items", text)
		r.RemoteAddr = from
		r.Header.Set("Content-Type", "application/json")
		return codeOf(t, serve(g, r))
	}
	text := func() io.Reader { return strings.NewReader(`"` + strings.Repeat("x", large-2) + `"`) }
	const mallory = "[2001:db8:0:1::1]:4711"
	var slow [3]*io.PipeWriter
	var sends sync.WaitGroup
	for i := range slow {
		var body io.Reader
		body, slow[i] = io.Pipe()
		sends.Go(func() {
			if code := post(mallory, body); code != "" {
				t.Errorf("a slow body: %s", code)
			}
		})
		if _, err := io.WriteString(slow[i], `"`+strings.Repeat("x", large*3/4)); err != nil {
			t.Fatal(err)
		}
	}
	if code := post("[2001:db8:0:1:2::7]:4711", text()); code != "body-no-room" {
		t.Errorf("a fourth of the same /64: %q", code)
	}
	for _, other := range []string{"[2001:db8:0:2::1]:4711", "203.0.113.7:4711"} {
		if code := post(other, text()); code != "" {
			t.Errorf("%s: %q", other, code)
		}
	}
	if code := post(mallory, strings.NewReader(`{}`)); code != "" {
		t.Errorf("a small one beside it: %q", code)
	}
	for _, w := range slow {
		io.WriteString(w, `"`)
		w.Close()
	}
	sends.Wait()
	if code := post(mallory, text()); code != "" {
		t.Errorf("a large one afterwards: %q", code)
	}
	if n := b.ran.Load(); n != 7 {
		t.Errorf("%d bodies reached the upstream", n)
	}
}
