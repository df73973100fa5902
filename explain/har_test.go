package explain_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/moat-gateway/moat/browser"
	"github.com/moat-gateway/moat/explain"
)

func TestFromHARRefuses(t *testing.T) {
	chrome, err := os.ReadFile(filepath.Join("testdata", "paste", "har", "chrome.har"))
	if err != nil {
		t.Fatal(err)
	}
	entry := `{"request":{"method":"GET","url":"https://a.example/","headers":[` + strings.Repeat(`{"name":"a","value":"b"},`, 600) + `{}]},"response":{}}`
	for text, want := range map[string]string{
		"":                                    "empty",
		"  \n":                                "empty",
		"<html>":                              "HTML",
		"curl https://a.example/":             "no HAR file",
		"{}":                                  "no log.entries",
		`{"log":{}}`:                          "no log.entries",
		`{"log":null}`:                        "no log.entries",
		`{"log":{"entries":null}}`:            "no log.entries",
		`{"log":{"entries":[]}}`:              "no request over http",
		`{"log":{"entries":{}}}`:              `"log.entries" is of type object`,
		`{"log":{"entries":[1]}}`:             "is of type number",
		`{"log":{"entries":[,]}}`:             "no JSON at byte",
		string(chrome[:len(chrome)/2]):        "ends in the middle",
		"\xff\xfe{\x00":                       "UTF-16",
		`{"log":{"entries":[` + entry + `]}}`: "more than 500 header fields",
		`{"log":{"entries":[` + strings.Repeat(`{},`, 10000) + `{}]}}`: "10001 requests",
		strings.Repeat(" ", 65<<20):                                    "65 MB",
	} {
		entries, err := explain.FromHAR([]byte(text))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60q: %d entries, error %v, want one with %q", text, len(entries), err, want)
		}
	}
}

// harOf is a file with such entries.
func harOf(entries ...string) []byte {
	return []byte(`{"log":{"pages":[{"id":"p","title":"https://app.example/"}],"entries":[` + strings.Join(entries, ",") + `]}}`)
}

func harEntryOf(method, url, header string, status int, answer string) string {
	return fmt.Sprintf(`{"pageref":"p","_resourceType":"fetch","request":{"method":%q,"url":%q,"headers":[%s]},"response":{"status":%d,"headers":[%s]}}`, method, url, header, status, answer)
}

func harField(name, value string) string {
	return fmt.Sprintf(`{"name":%q,"value":%q}`, name, value)
}

func TestFromHARPairsPreflights(t *testing.T) {
	origin := harField("Origin", "https://app.example")
	ask := func(method string) string {
		return origin + "," + harField("Access-Control-Request-Method", method) + "," + harField("Access-Control-Request-Headers", "authorization")
	}
	put := harEntryOf("PUT", "https://api.example/x", origin, 200, "")
	preflight := harEntryOf("OPTIONS", "https://api.example/x", ask("PUT"), 204, "")
	for name, c := range map[string]struct {
		file []byte
		want string // method@index:answers, …
	}{
		"before":        {harOf(preflight, put), "PUT@1:2"},
		"behind":        {harOf(put, preflight), "PUT@0:2"},
		"alone":         {harOf(preflight), "PUT@0:1"},
		"other method":  {harOf(harEntryOf("OPTIONS", "https://api.example/x", ask("DELETE"), 204, ""), put), "DELETE@0:1 PUT@1:1"},
		"other URL":     {harOf(harEntryOf("OPTIONS", "https://api.example/y", ask("PUT"), 204, ""), put), "PUT@0:1 PUT@1:1"},
		"other origin":  {harOf(preflight, harEntryOf("PUT", "https://api.example/x", harField("Origin", "https://b.example"), 200, "")), "PUT@0:1 PUT@1:1"},
		"twice":         {harOf(preflight, put, preflight, put), "PUT@1:2 PUT@3:2"},
		"one cached":    {harOf(preflight, put, put), "PUT@1:2 PUT@2:1"},
		"plain OPTIONS": {harOf(harEntryOf("OPTIONS", "https://api.example/x", origin, 204, ""), put), "OPTIONS@0:1 PUT@1:1"},
	} {
		entries, err := explain.FromHAR(c.file)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		var got []string
		for _, e := range entries {
			got = append(got, fmt.Sprintf("%s@%d:%d", e.Request.Method, e.Index, len(e.Recorded)))
			if !e.CrossOrigin {
				t.Errorf("%s: %s is not cross-origin", name, e.Request.URL)
			}
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
	entries, err := explain.FromHAR(harOf(preflight, put))
	if err != nil {
		t.Fatal(err)
	}
	if v := entries[0].Request.Header.Value("Authorization"); v != "…" {
		t.Errorf("the Authorization that the preflight lists is %q", v)
	}
	rules := entries[0].Rules()
	if len(rules) != 2 || rules[0].On != "preflight" || rules[1].On != "actual" || rules[0].Answer.Status != 204 {
		t.Errorf("rules %+v", rules)
	}
}

func TestFromHARJoinsRedirects(t *testing.T) {
	hop := func(from, to string) string {
		return harEntryOf("GET", from, harField("Origin", "https://app.example"), 302, harField("Location", to))
	}
	entries, err := explain.FromHAR(harOf(hop("https://api.example/a", "/b?token=SECRET"), hop("https://api.example/b?token=SECRET", "https://c.example/#SECRET"),
		harEntryOf("GET", "https://c.example/", "", 200, ""), hop("https://api.example/loop", "/loop")))
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != 2 || len(entries[0].Recorded) != 3 || len(entries[1].Recorded) != 1 {
		t.Fatalf("entries %+v", entries)
	}
	leaks(t, "SECRET", entries)
}

func TestFromHARMarksCrossOrigin(t *testing.T) {
	for url, want := range map[string]bool{
		"https://app.example/x": false, "https://app.example:443/x": false, "http://app.example/x": true,
		"https://api.app.example/x": true, "https://app.example:8443/": true, "wss://app.example/": false, "wss://b.example/": true,
	} {
		entries, err := explain.FromHAR(harOf(harEntryOf("GET", url, "", 200, "")))
		if err != nil {
			t.Fatal(err)
		}
		if entries[0].CrossOrigin != want {
			t.Errorf("%s: cross-origin %v, want %v", url, entries[0].CrossOrigin, want)
		}
	}
}

func TestFromHARTakesJoinedFieldsApart(t *testing.T) {
	entries, err := explain.FromHAR(harOf(harEntryOf("GET", "https://api.example/", "", 200,
		harField("Access-Control-Allow-Origin", "https://app.example\nhttps://app.example"))))
	if err != nil {
		t.Fatal(err)
	}
	if n := len(entries[0].Recorded[0].Answer.Header.Values("access-control-allow-origin")); n != 2 {
		t.Errorf("there are %d fields", n)
	}
}

func FuzzFromHAR(f *testing.F) {
	for _, text := range pasteSamples(f, "har") {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		entries, err := explain.FromHAR(data)
		if err != nil {
			return
		}
		for _, e := range entries {
			checkQuestion(t, e.Question)
			for _, r := range e.Recorded {
				checkHeader(t, r.Answer.Header)
				if r.On != "preflight" && r.On != "actual" {
					t.Fatalf("a rule is on %q", r.On)
				}
			}
			c := browser.Case{Page: e.Page, Requests: []browser.Request{e.Request}, Answers: e.Rules()}
			if _, err := json.Marshal(c); err != nil {
				t.Fatal(err)
			}
		}
	})
}
