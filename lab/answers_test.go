package lab

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/moat-gateway/moat/browser"
)

func rule(name, value string) Rule { return Rule{Header: browser.Header{{Name: name, Value: value}}} }

// TestRulesOfAReaderAreJudged: they make heads of answers, and nothing else.
func TestRulesOfAReaderAreJudged(t *testing.T) {
	for says, rules := range map[string][]Rule{
		"":                               {rule("Access-Control-Allow-Origin", "{origin}"), rule("Set-Cookie", "a=b"), {On: "preflight", Status: 599, Path: "/x", Origin: []string{"null"}}},
		"more than the 50":               make([]Rule, maxRules+1),
		"neither preflight nor actual":   {{On: "both"}},
		"not between 200 and 599":        {{Status: 101}},
		"not a header name":              {rule("A B", "x")},
		"a line break in its value":      {rule("A", "x\r\nSet-Cookie: y")},
		"Transfer-encoding: says where":  {rule("Transfer-encoding", "x")},
		"content-length: says where":     {rule("content-length", "1")},
		"CONNECTION: says where":         {rule("CONNECTION", "close")},
		"x-accel-redirect: is about":     {rule("x-accel-redirect", "/inner")},
		"X-Sendfile: is about":           {rule("X-Sendfile", "/etc/passwd")},
		"clear-site-data: is about":      {rule("clear-site-data", `"cookies"`)},
		"headers: 101 fields":            {{Header: make(browser.Header, maxFields+1)}},
		"answers and cookies: 16385 byt": {rule("A", strings.Repeat("x", maxWritten-3))},
	} {
		err := judge(rules, []string{"a=b"})
		if says == "" && err != nil || says != "" && (err == nil || !strings.Contains(err.Error(), says)) {
			t.Errorf("got %v; want %q", err, says)
		}
	}
	if err := judge(nil, []string{strings.Repeat("{session}", maxWritten/9+1)}); err == nil {
		t.Error("cookies without end")
	}
}

// TestHeadOfAnAnswerIsBounded: by whatever the rules make of a long Origin.
func TestHeadOfAnAnswerIsBounded(t *testing.T) {
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.Header.Set("Origin", strings.Repeat("o", 30<<10))
	h := http.Header{}
	status := answer([]Rule{{Status: 418}, rule("A", "{origin}"), rule("B", strings.Repeat("{origin}", 1000)), rule("C", "c")}, r, false, h)
	if size := len(h.Get("A")) + len(h.Get("B")); size == 0 || size > maxHead || status != 418 {
		t.Errorf("%d, %d bytes", status, size)
	}
}
