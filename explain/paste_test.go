package explain_test

import (
	"encoding/json"
	"flag"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/moat-gateway/moat/browser"
	"github.com/moat-gateway/moat/explain"
)

var updatePaste = flag.Bool("update-paste", false, "write testdata/paste anew")

// pasteSamples are the pasted texts of a kind, by name.
func pasteSamples(t testing.TB, kind string) map[string]string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join("testdata", "paste", kind, "*"))
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for _, path := range paths {
		if strings.HasSuffix(path, ".json") {
			continue
		}
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		all[path] = string(text)
	}
	if len(all) == 0 {
		t.Fatalf("there are no samples of %s", kind)
	}
	return all
}

// TestPasteReadsWhatBrowsersCopy compares with answers that were reviewed.
func TestPasteReadsWhatBrowsersCopy(t *testing.T) {
	for _, kind := range []string{"curl", "fetch", "har", "console"} {
		for path, text := range pasteSamples(t, kind) {
			t.Run(filepath.Base(path), func(t *testing.T) {
				pasted, err := explain.Paste(text)
				if err != nil {
					t.Fatal(err)
				}
				got, err := json.MarshalIndent(pasted, "", "  ")
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, '\n')
				if strings.Contains(string(got), "SECRET") {
					t.Errorf("a secret is left in\n%s", got)
				}
				golden := strings.TrimSuffix(path, filepath.Ext(path)) + ".json"
				if *updatePaste {
					if err = os.WriteFile(golden, got, 0o600); err != nil {
						t.Fatal(err)
					}
				}
				want, err := os.ReadFile(golden)
				if err != nil {
					t.Fatal(err)
				}
				if string(got) != string(want) {
					t.Errorf("got\n%s\nwant\n%s", got, want)
				}
			})
		}
	}
}

func TestPasteTellsKindsApart(t *testing.T) {
	for text, want := range map[string]string{
		"curl https://api.example/":                                         explain.PastedCurl,
		"$ curl https://api.example/":                                       explain.PastedCurl,
		"\ufeff```sh\ncurl https://api.example/\n```":                       explain.PastedCurl,
		"/usr/bin/curl.exe\thttps://api.example/ -s":                        explain.PastedCurl,
		`fetch("https://api.example/")`:                                     explain.PastedFetch,
		`const r = await fetch("https://api.example/")`:                     explain.PastedFetch,
		`button.onclick = () => fetch("https://api.example/")`:              explain.PastedFetch,
		"HTTPS://api.example/a?b=c":                                         explain.PastedURL,
		"Uncaught (in promise) TypeError: Failed to fetch":                  explain.PastedError,
		`GET https://a.example/ net::ERR_FAILED` + "\nfetch(\"https://a\")": explain.PastedError,
	} {
		pasted, err := explain.Paste(text)
		if err != nil {
			t.Errorf("%q: %v", text, err)
		} else if pasted.Kind != want {
			t.Errorf("%q is taken for %s, not for %s", text, pasted.Kind, want)
		}
	}
}

func TestPasteSaysWhatToPasteInstead(t *testing.T) {
	for text, want := range map[string]string{
		"":                                "there is nothing",
		" ":                               "there is nothing",
		"<!doctype html><title>x</title>": "HTML",
		"{}":                              "no log.entries",
		"[{}]":                            "no HAR file",
		"hello":                           "no error of a browser is known",
		"Invoke-WebRequest -Uri https://api.example/":         "PowerShell",
		"axios.get('https://api.example/')":                   "no call of fetch",
		"ftp://api.example/":                                  "no error of a browser is known",
		"how do I set Access-Control-Allow-Origin":            "no error of a browser is known",
		strings.Repeat("x", 2<<20):                            "more than",
		"curl " + strings.Repeat("x", 2<<20):                  "more than",
		"fetch(" + strings.Repeat("x", 2<<20):                 "more than",
		"https://api.example/" + strings.Repeat("x", 100_000): "the URL has",
	} {
		if _, err := explain.Paste(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60q: error %v, want one with %q", text, err, want)
		}
	}
}

func TestPasteReadsSeveral(t *testing.T) {
	for text, want := range map[string]int{
		"curl https://a.example/ ;\ncurl https://b.example/":             2,
		"curl ^\"https://a.example/^\" &\ncurl ^\"https://b.example/^\"": 2,
		"curl https://a.example/\n\ncurl https://b.example/\n":           2,
		"fetch('https://a.example/');\nfetch('https://b.example/');":     2,
		"curl https://a.example/ && echo done; curl https://b.example":   2,
	} {
		pasted, err := explain.Paste(text)
		if err != nil {
			t.Errorf("%q: %v", text, err)
		} else if len(pasted.Questions) != want {
			t.Errorf("%q gives %d questions, not %d", text, len(pasted.Questions), want)
		}
	}
}

// checkQuestion is the property of every question: nothing secret in it, and a URL that a
// browser fetches.
func checkQuestion(t *testing.T, q explain.Question) {
	t.Helper()
	u, err := url.Parse(q.Request.URL)
	if err != nil {
		t.Fatalf("URL %q: %v", q.Request.URL, err)
	}
	schemes := []string{"http", "https"}
	if q.Request.API == browser.WebSocket {
		schemes = append(schemes, "ws", "wss")
	}
	if u.Scheme == "" {
		if u.Host != "" {
			t.Fatalf("URL %q takes the page's scheme", q.Request.URL)
		}
	} else if !slices.Contains(schemes, u.Scheme) || u.Host == "" {
		t.Fatalf("URL %q is not http or https", q.Request.URL)
	}
	if q.Page.URL != "" {
		if page, err := url.Parse(q.Page.URL); err != nil || page.Scheme != "http" && page.Scheme != "https" || page.Host == "" {
			t.Fatalf("page %q is not http or https (%v)", q.Page.URL, err)
		}
	}
	checkHeader(t, q.Request.Header)
	for _, name := range []string{"Cookie", "Host", "Origin", "Referer", "Sec-Fetch-Mode", "Content-Length", "User-Agent"} {
		if q.Request.Header.Has(name) {
			t.Fatalf("script cannot set %s: %v", name, q.Request.Header)
		}
	}
	for _, c := range q.Cookies {
		if _, value, _ := strings.Cut(c.SetCookie, "="); !strings.HasPrefix(value, "…") {
			t.Fatalf("cookie %q keeps its value", c.SetCookie)
		}
	}
	if len(q.Notes) > 60 {
		t.Fatalf("there are %d notes", len(q.Notes))
	}
}

func checkHeader(t *testing.T, h browser.Header) {
	t.Helper()
	for _, f := range h {
		switch name := strings.ToLower(f.Name); {
		case f.Value == "":
		case name == "authorization" || name == "proxy-authorization":
			if _, value, ok := strings.Cut(f.Value, " "); f.Value != "…" && (!ok || value != "…") {
				t.Fatalf("%s keeps its value: %q", f.Name, f.Value)
			}
		case name == "set-cookie":
			if _, value, _ := strings.Cut(f.Value, "="); !strings.HasPrefix(value, "…") {
				t.Fatalf("%s keeps its value: %q", f.Name, f.Value)
			}
		}
		if strings.ContainsAny(f.Value, "\r\n\x00") {
			t.Fatalf("%s has a line break: %q", f.Name, f.Value)
		}
	}
}

// leaks fails if a secret that was put in comes out.
func leaks(t *testing.T, secret string, v any) {
	t.Helper()
	out, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(out), secret) {
		t.Fatalf("a secret is left in %s", out)
	}
}
