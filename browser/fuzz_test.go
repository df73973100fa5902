package browser

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// FuzzCase plays any case. Whatever the page, the cookies and the servers are, a preflight
// carries no credentials, what CORS lets script read was allowed by the answer, it comes
// to an end, and the same facts give the same trace.
func FuzzCase(f *testing.F) {
	files, _ := filepath.Glob("../vectors/browser/*.json")
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		var cases []json.RawMessage
		if err := json.Unmarshal(text, &cases); err != nil {
			f.Fatal(err)
		}
		for _, c := range cases {
			f.Add([]byte(c))
		}
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var c Case
		if json.NewDecoder(bytes.NewReader(text)).Decode(&c) != nil || len(c.Requests) > 4 {
			t.Skip()
		}
		traces, err := c.Run(noon)
		if err != nil {
			return
		}
		again, err := c.Run(noon)
		if err != nil || !reflect.DeepEqual(traces, again) {
			t.Errorf("the same case came out otherwise: %v", err)
		}
		for _, trace := range traces {
			holds(t, trace)
		}
	})
}

func holds(t *testing.T, trace Trace) {
	t.Helper()
	if len(trace.Exchanges) > 2*(maxRedirects+1) {
		t.Errorf("%d requests left the browser", len(trace.Exchanges))
	}
	for _, x := range trace.Exchanges {
		if x.Preflight && (x.Method != "OPTIONS" || x.Executed || x.Header.Has("Cookie") || x.Header.Has("Authorization") || x.Body != nil) {
			t.Errorf("a preflight carries nothing of the page's: %+v", x)
		}
		if strings.Contains(x.URL, "#") || strings.Contains(x.URL, "@") && strings.Contains(strings.SplitAfterN(x.URL, "/", 4)[2], "@") {
			t.Errorf("fragments and credentials stay in the browser: %s", x.URL)
		}
	}
	if v := trace.Verdict; v.Type == "cors" && v.Outcome == Readable {
		last := trace.Exchanges[len(trace.Exchanges)-1]
		if allow := last.Answer.Header.Value("Access-Control-Allow-Origin"); allow != "*" && allow != last.Header.Value("Origin") {
			t.Errorf("script reads what is allowed to %q, not to %q", allow, last.Header.Value("Origin"))
		}
	}
}

// FuzzSetCookie: no line makes a jar that sends a Secure cookie over http, or one of
// another host.
func FuzzSetCookie(f *testing.F) {
	for _, line := range []string{
		"a=1", "a=1; Path=/x; Domain=app.test; Secure; HttpOnly; SameSite=None; Partitioned; Max-Age=5",
		"__Host-a=1; Secure; Path=/", "=x", "a", "a=1; Expires=Wed, 21 Oct 2026 07:28:00 GMT", "a=1; Domain=.test", "__HOST-=", "; ;", "a=\x00",
	} {
		f.Add(line)
	}
	f.Fuzz(func(t *testing.T, line string) {
		b := New(&chromium)
		if b.SetCookie("https://api.app.test/dir/x", line, "", noon) != nil {
			return
		}
		for _, to := range []string{"http://api.app.test/dir/x", "https://evil.test/dir/x", "https://other.test/", "https://api.app.test.evil.test/dir/x"} {
			u, err := parseURL(to, nil)
			if err != nil {
				t.Fatal(err)
			}
			value, _ := b.Jar.header(b.Profile, u, cookieContext{sameSite: strict, partition: partitionKey(u.origin.Site(), false)}, noon)
			if to[:5] != "http:" && value != "" {
				t.Errorf("%q goes to %s: %s", line, to, value)
			}
			if to[:5] == "http:" && value != "" && strings.Contains(strings.ToLower(line), "__host-") && strings.HasPrefix(strings.ToLower(strings.TrimSpace(line)), "__host-") {
				t.Errorf("%q goes over http: %s", line, value)
			}
		}
	})
}
