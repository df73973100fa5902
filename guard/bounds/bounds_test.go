package bounds_test

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/moat-gateway/moat/guard"
	"github.com/moat-gateway/moat/guard/bounds"
)

func TestDecide(t *testing.T) {
	g := bounds.New(bounds.Policy{Methods: []string{"GET", "POST", "TRACE"}, BodyBytes: 10})
	decide := func(want guard.Reason, method string, body int, headers ...string) {
		t.Helper()
		r := httptest.NewRequest(method, "/", strings.NewReader(strings.Repeat("x", body)))
		for i := 0; i < len(headers); i += 2 {
			r.Header[headers[i]] = []string{headers[i+1]}
		}
		if d := g.Decide(r); d.Reason != want {
			t.Errorf("%s with %d bytes %v: %s, want %s", method, body, headers, d.Reason, want)
		}
	}
	decide(guard.OK, "GET", 0)
	decide(guard.OK, "POST", 10)
	decide(guard.BodyTooLarge, "POST", 11)
	decide(guard.MethodNotAllowed, "DELETE", 0)
	decide(guard.MethodNotAllowed, "get", 0)
	decide(guard.MethodNotAllowed, "TRACE", 0) // not even if listed
	decide(guard.MethodNotAllowed, "CONNECT", 0)
	for _, n := range []string{"X-Http-Method-Override", "X-Http-Method", "X-Method-Override", "x_http_method_override", "X.HTTP.Method"} {
		decide(guard.MethodOverride, "POST", 0, n, "DELETE")
	}
	decide(guard.OK, "POST", 0, "X-Http-Methods", "DELETE")
}

func TestHandler(t *testing.T) {
	var read int
	var readErr error
	h := bounds.New(bounds.Policy{Methods: []string{"GET", "POST"}, BodyBytes: 10}).Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		read, readErr = len(b), err
	}))
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("PUT", "/", nil))
	if w.Code != http.StatusMethodNotAllowed || w.Header().Get("Allow") != "GET, POST" {
		t.Errorf("%d, Allow %q", w.Code, w.Header().Get("Allow"))
	}
	for size, tooLarge := range map[int]bool{9: false, 10: false, 11: true, 100: true} {
		// A reader without a known length: only streaming tells.
		r := httptest.NewRequest("POST", "/", io.MultiReader(strings.NewReader(strings.Repeat("x", size))))
		h.ServeHTTP(httptest.NewRecorder(), r)
		var be *bounds.BodyError
		if errors.As(readErr, &be) != tooLarge || read > 10 {
			t.Errorf("%d bytes: read %d, %v", size, read, readErr)
		}
		if tooLarge && be.Decision().Reason != guard.BodyTooLarge {
			t.Errorf("%d bytes: %s", size, be.Decision().Reason)
		}
	}
}

func TestSlowBodyIsCut(t *testing.T) {
	result := make(chan error, 1)
	srv := httptest.NewServer(bounds.New(bounds.Policy{Methods: []string{"POST"}, BodyBytes: -1, BodyIdle: 50 * time.Millisecond}).Handler(
		http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			_, err := io.Copy(io.Discard, r.Body)
			result <- err
		})))
	defer srv.Close()
	body, stall := io.Pipe()
	defer stall.Close()
	go func() {
		stall.Write([]byte("a beginning"))
	}()
	req, err := http.NewRequestWithContext(t.Context(), "POST", srv.URL, body)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		if res, doErr := srv.Client().Do(req); doErr == nil {
			res.Body.Close()
		}
	}()
	var be *bounds.BodyError
	if err := <-result; !errors.As(err, &be) || be.Reason != guard.BodyTooSlow {
		t.Errorf("%v, want body-too-slow", err)
	}
}

func TestDeadlineDoesNotOutliveTheBody(t *testing.T) {
	srv := httptest.NewServer(bounds.New(bounds.Policy{Methods: []string{"POST"}, BodyBytes: -1, BodyIdle: 50 * time.Millisecond}).Handler(
		http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body)
			select {
			case <-r.Context().Done():
				t.Error("the body's deadline ended the request")
			case <-time.After(200 * time.Millisecond):
			}
			w.WriteHeader(http.StatusNoContent)
		})))
	defer srv.Close()
	res, err := srv.Client().Post(srv.URL, "text/plain", io.MultiReader(strings.NewReader("done")))
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != http.StatusNoContent {
		t.Error(res.Status)
	}
}

func TestReportedBodyPassesWhole(t *testing.T) {
	var told []guard.Reason
	g := bounds.New(bounds.Policy{Methods: []string{"POST"}, BodyBytes: 10})
	r := httptest.NewRequest("POST", "/", strings.NewReader(strings.Repeat("x", 100)))
	b := g.Body(httptest.NewRecorder(), r, func(e *bounds.BodyError) { told = append(told, e.Reason) })
	n, err := io.Copy(io.Discard, io.MultiReader(b))
	if n != 100 || err != nil || len(told) != 1 || told[0] != guard.BodyTooLarge {
		t.Errorf("%d bytes, %v, told %v", n, err, told)
	}
}

// However a body is cut into reads, the bound falls at the same byte.
func FuzzBody(f *testing.F) {
	f.Add(uint8(11), uint8(10), uint8(3))
	f.Fuzz(func(t *testing.T, size, limit, step uint8) {
		g := bounds.New(bounds.Policy{Methods: []string{"POST"}, BodyBytes: int64(limit)})
		r := httptest.NewRequest("POST", "/", io.MultiReader(strings.NewReader(strings.Repeat("x", int(size)))))
		b := g.Body(httptest.NewRecorder(), r, nil)
		total, buf := 0, make([]byte, int(step)+1)
		for {
			n, err := b.Read(buf)
			total += n
			if err != nil {
				var be *bounds.BodyError
				if tooLarge := errors.As(err, &be); tooLarge != (size > limit) || total != int(min(size, limit)) {
					t.Fatalf("%d bytes, bound %d: read %d, %v", size, limit, total, err)
				}
				return
			}
		}
	})
}
