package bot

import (
	"bufio"
	"bytes"
	"encoding/json"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/moat-gateway/moat/guard"
)

// captured is a request as a browser sent it: testdata/browsers.jsonl has those of Chromium 156 and
// Firefox 153 on Debian, of 2026-11-21, over http and https, to this machine and to others, of
// every kind that a page makes.
type captured struct {
	Browser string      `json:"browser"`
	Scheme  string      `json:"scheme"`
	Proto   string      `json:"proto"`
	Method  string      `json:"method"`
	Host    string      `json:"host"`
	Target  string      `json:"target"`
	Headers [][2]string `json:"headers"`
	JA4     string      `json:"ja4"`
	HTTP2   string      `json:"http2"`
}

func capturedRequests(tb testing.TB) (all []captured) {
	tb.Helper()
	text, err := os.ReadFile("testdata/browsers.jsonl")
	if err != nil {
		tb.Fatal(err)
	}
	lines := bufio.NewScanner(bytes.NewReader(text))
	for lines.Scan() {
		var c captured
		if err = json.Unmarshal(lines.Bytes(), &c); err != nil {
			tb.Fatal(err)
		}
		all = append(all, c)
	}
	if len(all) < 200 {
		tb.Fatalf("only %d requests", len(all))
	}
	return all
}

func (c *captured) request(tb testing.TB) (*http.Request, Facts) {
	tb.Helper()
	u, err := url.ParseRequestURI(c.Target)
	if err != nil {
		tb.Fatal(err)
	}
	r := &http.Request{Method: c.Method, Host: c.Host, URL: u, RequestURI: c.Target, Header: make(http.Header), Proto: c.Proto, ProtoMajor: 1, ProtoMinor: 1}
	if c.Proto == "HTTP/2.0" {
		r.ProtoMajor, r.ProtoMinor = 2, 0
	}
	f := Facts{
		Now: time.Now(), Client: netip.MustParseAddr("192.0.2.1"), Secure: c.Scheme == "https", Direct: true,
		Trustworthy: c.Scheme == "https" || strings.HasPrefix(c.Host, "localhost:") || strings.HasPrefix(c.Host, "127.0.0.1:"),
		JA4:         c.JA4, HTTP2: c.HTTP2,
	}
	for _, h := range c.Headers {
		f.HeaderOrder = append(f.HeaderOrder, h[0])
		if !strings.EqualFold(h[0], "Host") {
			r.Header.Add(h[0], h[1])
		}
	}
	return r, f
}

// all enforces every signal, and acts on a single point.
func all() Policy {
	p := Policy{Challenge: 1}
	for s := range p.Modes {
		p.Modes[s] = guard.Enforce
	}
	return p
}

func newGuard(tb testing.TB, p Policy) *Guard {
	tb.Helper()
	g, err := New(p, nil)
	if err != nil {
		tb.Fatal(err)
	}
	return g
}

func TestWhatRealBrowsersSendGetsNoPoints(t *testing.T) {
	g := newGuard(t, all())
	kinds := map[string]int{}
	for _, c := range capturedRequests(t) {
		kinds[c.Browser+" "+c.Scheme+" "+c.Proto]++
		r, f := c.request(t)
		if v := g.Decide(r, f); v.Score != 0 {
			t.Errorf("%s: %s %s://%s%s: %+v", c.Browser, c.Method, c.Scheme, c.Host, c.Target, v.Decision.Evidence)
		}
	}
	for _, kind := range []string{"http HTTP/1.1", "https HTTP/1.1", "https HTTP/2.0"} {
		for _, browser := range []string{"chromium ", "firefox "} {
			if n := kinds[browser+kind]; n < 30 {
				t.Errorf("%s: only %d requests", browser+kind, n)
			}
		}
	}
}
