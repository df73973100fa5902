package gateway_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/moat-gateway/moat/gateway"
	"github.com/moat-gateway/moat/guard"
)

// watch opens a live tail, and returns once the gate says that it has begun.
func watch(t *testing.T, admin *httptest.Server, query string) (events *bufio.Reader, stop func(), status int) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, admin.URL+"/live"+query, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	res, err := admin.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { res.Body.Close() })
	events = bufio.NewReader(res.Body)
	if res.StatusCode == http.StatusOK {
		if kind, _ := event(t, events); kind != "watching" {
			t.Fatalf("the stream begins with %q", kind)
		}
	}
	return events, cancel, res.StatusCode
}

func event(t *testing.T, from *bufio.Reader) (kind, data string) {
	t.Helper()
	for {
		line, err := from.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		line = strings.TrimSuffix(line, "\n")
		if text, ok := strings.CutPrefix(line, "event: "); ok {
			kind = text
		} else if text, ok := strings.CutPrefix(line, "data: "); ok {
			data = text
		} else if line == "" && kind != "" {
			return kind, data
		}
	}
}

func TestLiveTellsWhatMatches(t *testing.T) {
	b := newBackend(t, nil)
	g := newGateway(t, configFor(t, b.URL))
	admin := httptest.NewUnstartedServer(g.Admin(false))
	admin.Config.ReadTimeout = 50 * time.Millisecond // a stream outlives the bound for a request
	admin.Start()
	t.Cleanup(admin.Close)
	all, _, _ := watch(t, admin, "")
	few, _, _ := watch(t, admin, "?reason=method-not-allowed&mode=enforce&client=192.0.2.")
	time.Sleep(100 * time.Millisecond)

	serve(g, request("GET", stranger))
	serve(g, request("BREW", ""))
	for _, want := range []guard.Reason{guard.CORSOriginNotAllowed, guard.MethodNotAllowed} {
		var rec gateway.Record
		kind, data := event(t, all)
		if err := json.Unmarshal([]byte(data), &rec); err != nil || kind != "record" || rec.Code != want.String() || rec.Cause == "" {
			t.Errorf("%s %s, %v; want %s", kind, data, err, want)
		}
	}
	if kind, data := event(t, few); kind != "record" || !strings.Contains(data, `"code":"method-not-allowed"`) {
		t.Errorf("the filter lets %s %s pass", kind, data)
	}
}

// TestLiveIsBounded: so many may watch and no more, and when one has gone there is room.
func TestLiveIsBounded(t *testing.T) {
	b := newBackend(t, nil)
	g := newGateway(t, configFor(t, b.URL))
	admin := httptest.NewServer(g.Admin(false))
	t.Cleanup(admin.Close)
	var stop func()
	for range 8 {
		_, stop, _ = watch(t, admin, "")
	}
	if _, _, status := watch(t, admin, ""); status != http.StatusServiceUnavailable {
		t.Errorf("the ninth stream: status %d; want 503", status)
	}
	stop()
	for range 100 {
		if _, _, status := watch(t, admin, ""); status == http.StatusOK {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Error("when one has gone there is no room")
}

// TestLiveHoldsNobodyUp: one who watches and reads nothing costs a flood nothing but the count
// of what was left out, and is told when he reads again.
func TestLiveHoldsNobodyUp(t *testing.T) {
	b := newBackend(t, nil)
	g := newGateway(t, configFor(t, b.URL))
	admin := httptest.NewServer(g.Admin(false))
	t.Cleanup(admin.Close)
	events, _, _ := watch(t, admin, "")
	const flood = 20_000
	for range flood {
		serve(g, request("GET", stranger))
	}
	shown, missed := 0, 0
	for shown+missed < flood {
		switch kind, data := event(t, events); kind {
		case "record":
			shown++
		case "missed", "beat":
			var n int
			if err := json.Unmarshal([]byte(data), &n); err != nil {
				t.Fatal(err)
			}
			missed += n
			serve(g, request("GET", app)) // nothing to record
		}
	}
	if shown > flood/2 || shown == 0 {
		t.Errorf("%d were shown and %d left out", shown, missed)
	}
	text := metrics(t, g)
	if want := fmt.Sprintf("moat_live_missed_total %d", missed); !strings.Contains(text, want) {
		t.Errorf("no %q among the metrics", want)
	}
}

func metrics(t *testing.T, g *gateway.Gateway) string {
	t.Helper()
	w := httptest.NewRecorder()
	r := httptest.NewRequest("GET", "http://localhost/metrics", http.NoBody)
	g.Admin(false).ServeHTTP(w, r)
	return w.Body.String()
}

// TestLiveDropsWhoTakesNothing: a connection whose other end reads no byte is closed, so that
// it does not take a place for ever.
func TestLiveDropsWhoTakesNothing(t *testing.T) {
	if testing.Short() {
		t.Skip("waits until the gate gives a reader up, ten seconds: run without -short (make test does)")
	}
	b := newBackend(t, nil)
	g := newGateway(t, configFor(t, b.URL))
	admin := httptest.NewUnstartedServer(g.Admin(false))
	admin.Listener = smallBuffers{admin.Listener} // what the system keeps for a reader is not read
	admin.Start()
	t.Cleanup(admin.Close)
	for range 8 {
		var d net.Dialer
		conn, err := d.DialContext(t.Context(), "tcp", admin.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		conn.(*net.TCPConn).SetReadBuffer(4 << 10) //nolint:forcetypeassert // it is one
		io.WriteString(conn, "GET /live HTTP/1.1\r\nHost: localhost\r\n\r\n")
	}
	long := request("GET", stranger)
	long.URL.Path = "/" + strings.Repeat("a", 250)
	for range 400 {
		for range 20 {
			serve(g, long)
		}
		if _, _, status := watch(t, admin, ""); status == http.StatusOK {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Error("who reads nothing keeps the place")
}

type smallBuffers struct{ net.Listener }

func (l smallBuffers) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil {
		err = c.(*net.TCPConn).SetWriteBuffer(4 << 10) //nolint:forcetypeassert // it is one
	}
	return c, err
}

// TestAdminServesNoOtherPage: what a page of another origin asks for is refused, whatever it is,
// and a link to the dashboard is not.
func TestAdminServesNoOtherPage(t *testing.T) {
	b := newBackend(t, nil)
	g := newGateway(t, configFor(t, b.URL))
	ask := func(method, path, host string, header ...string) *httptest.ResponseRecorder {
		r := httptest.NewRequest(method, "http://"+host+path, http.NoBody)
		for i := 0; i < len(header); i += 2 {
			r.Header.Set(header[i], header[i+1])
		}
		w := httptest.NewRecorder()
		ctx, cancel := context.WithCancel(t.Context())
		cancel() // a stream ends at once
		g.Admin(false).ServeHTTP(w, r.WithContext(ctx))
		return w
	}
	for _, path := range []string{"/", "/dashboard/index.js", "/live", "/series", "/decisions", "/decisions/x", "/top", "/reasons", "/metrics", "/limits", "/healthz"} {
		for _, site := range []string{"cross-site", "same-site"} {
			for _, mode := range []string{"no-cors", "cors", "websocket", ""} {
				if w := ask("GET", path, "localhost:9090", "Sec-Fetch-Site", site, "Sec-Fetch-Mode", mode); w.Code != http.StatusForbidden {
					t.Errorf("%s for a %s page (%s): status %d; want 403", path, site, mode, w.Code)
				}
			}
		}
		if w := ask("GET", path, "rebound.evil.test"); w.Code != http.StatusMisdirectedRequest {
			t.Errorf("%s for another Host: status %d; want 421", path, w.Code)
		}
		w := ask("GET", path, "127.0.0.1:9090", "Sec-Fetch-Site", "same-origin", "Sec-Fetch-Mode", "cors")
		if w.Code == http.StatusForbidden || w.Code == http.StatusMisdirectedRequest {
			t.Errorf("%s for its own page: status %d", path, w.Code)
		}
		if h := w.Header(); h.Get("X-Frame-Options") != "DENY" || h.Get("X-Content-Type-Options") != "nosniff" || h.Get("Access-Control-Allow-Origin") != "" ||
			h.Get("Cross-Origin-Resource-Policy") != "same-origin" || path != "/" && path != "/dashboard/index.js" && h.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: %v", path, h)
		}
	}
	if w := ask("GET", "/", "localhost:9090", "Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate"); w.Code != http.StatusOK {
		t.Errorf("a link to the dashboard: status %d", w.Code)
	}
	for _, h := range [][]string{{"Sec-Fetch-Site", "cross-site"}, {"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate"}, {"Origin", "https://evil.test"}, {"Origin", "null"}} {
		if w := ask("POST", "/budgets/stop", "localhost:9090", h...); w.Code != http.StatusForbidden {
			t.Errorf("POST with %v: status %d; want 403", h, w.Code)
		}
	}
}

// TestWouldRefuseCountsRequests: a request that two guards would have refused counts once, for
// the first; one that another guard has refused did not pass, and does not count.
func TestWouldRefuseCountsRequests(t *testing.T) {
	b := newBackend(t, nil)
	g := newGateway(t, configFor(t, b.URL, func(c *gateway.Config) {
		c.Routes[0].Modes[guard.CORS], c.Routes[0].Modes[guard.CrossSite] = guard.Report, guard.Report
	}))
	for range 3 {
		r := request("POST", stranger)
		r.Header.Set("Sec-Fetch-Site", "cross-site")
		serve(g, r)
	}
	serve(g, request("BREW", stranger))
	serve(g, request("GET", app))
	text := metrics(t, g)
	for _, want := range []string{
		`moat_would_refuse_total{reason="cors-origin-not-allowed",route="/",step="cors"} 3`,
		`moat_decisions_total{mode="report",reason="cors-origin-not-allowed",route="/",step="cors"} 4`,
		`moat_decisions_total{mode="enforce",reason="ok",route="/",step="route"} 4`,
	} {
		if !strings.Contains(text, want+"\n") {
			t.Errorf("no %s", want)
		}
	}
	if n := strings.Count(text, "\nmoat_would_refuse_total{"); n != 1 {
		t.Errorf("%d counters of what would be refused; want 1", n)
	}
}
