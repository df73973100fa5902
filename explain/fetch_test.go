package explain_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/moat-gateway/moat/browser"
	"github.com/moat-gateway/moat/explain"
)

func TestFromFetchReadsCalls(t *testing.T) {
	for _, c := range []struct {
		text, method, url, header, body, text2 string
	}{
		{`fetch("https://a.example/")`, "GET", "https://a.example/", "", "", ""},
		{`await fetch('https://a.example/');`, "GET", "https://a.example/", "", "", ""},
		{"fetch(`https://a.example/`).then(r => r.json()).catch(e => {})", "GET", "https://a.example/", "", "", ""},
		{`window . fetch ( "https://a.example/" , ) `, "GET", "https://a.example/", "", "", ""},
		{`globalThis.fetch("https://a" + ".example" + '/x')`, "GET", "https://a.example/x", "", "", ""},
		{`fetch("/relative")`, "GET", "/relative", "", "", ""},
		{`fetch("/x", {referrer: "https://app.example/y"})`, "GET", "https://app.example/x", "", "", ""},
		{`fetch(new URL("/x", "https://a.example/y"))`, "GET", "https://a.example/x", "", "", ""},
		{`fetch(new Request("https://a.example/", {method: "PUT"}))`, "PUT", "https://a.example/", "", "", ""},
		{`const u = "https://a.example"; let o = {method: "put"}; fetch(u + "/x", o)`, "put", "https://a.example/x", "", "", ""},
		{`const cfg = {api: {url: 'https://a.example'}}; fetch(cfg.api.url)`, "GET", "https://a.example", "", "", ""},
		{"const a = `https://a.example`; fetch(`${a}/u/${id}?x=${encodeURIComponent('a b')}`)", "GET", "https://a.example/u/id?x=a%20b", "", "", ""},
		{`fetch("https://a.example/", {headers: {"A": 'b', c: "d", 'E-F': 5, },})`, "GET", "https://a.example/", "A: b; c: d; E-F: 5", "", ""},
		{`fetch("https://a.example/", {headers: [["A", "b"], ["A", "c"]]})`, "GET", "https://a.example/", "A: b; A: c", "", ""},
		{`fetch("https://a.example/", {headers: new Headers({A: "b"})})`, "GET", "https://a.example/", "A: b", "", ""},
		{`fetch("https://a.example/", {headers: {Authorization: "Bearer " + token}})`, "GET", "https://a.example/", "Authorization: Bearer …", "", ""},
		{`fetch("https://a.example/", {headers: {Authorization: "Basic " + btoa("a:b")}})`, "GET", "https://a.example/", "Authorization: Basic …", "", ""},
		{`const h = {A: "b"}; fetch("https://a.example/", {headers: {...h, C: "d"}})`, "GET", "https://a.example/", "A: b; C: d", "", ""},
		{`fetch("https://a.example/", {method: "POST", body: "a\x41\u{1F600}\u00e9\n\'"})`, "POST", "https://a.example/", "", "text", "aA😀é\n'"},
		{`fetch("https://a.example/", {method: "POST", body: JSON.stringify({a: [1, -2.5, true, null, "x\"y"], "b": {}})})`, "POST", "https://a.example/", "", "text", `{"a":[1,-2.5,true,null,"x\"y"],"b":{}}`},
		{`fetch("https://a.example/", {method: "POST", body: new URLSearchParams({a: "b c", d: 1})})`, "POST", "https://a.example/", "", "urlencoded", "a=b+c&d=1"},
		{`fetch("https://a.example/", {method: "POST", body: new URLSearchParams("a=b").toString()})`, "POST", "https://a.example/", "", "text", "a=b"},
		{`fetch("https://a.example/", {method: "POST", body: new FormData(form)})`, "POST", "https://a.example/", "", "form-data", ""},
		{`fetch("https://a.example/", {method: "POST", body: formData})`, "POST", "https://a.example/", "", "form-data", ""},
		{`fetch("https://a.example/", {method: "POST", body: data})`, "POST", "https://a.example/", "", "text", ""},
		{`fetch("https://a.example/", {method: "POST", body: new Blob(["{}"], {type: "application/json"})})`, "POST", "https://a.example/", "", "blob", ""},
		{`fetch("https://a.example/", {method: "POST", body: new Uint8Array([1, 2])})`, "POST", "https://a.example/", "", "buffer", ""},
		{`fetch("https://a.example/", {method: "POST", body: new TextEncoder().encode("x")})`, "POST", "https://a.example/", "", "buffer", ""},
		{`fetch("https://a.example/", {method: null, headers: undefined, body: null, signal: AbortSignal.timeout(5000)})`, "GET", "https://a.example/", "", "", ""},
		{"fetch(\"https://a.example/\", // where\n{ /* how */ method: 'PUT' })", "PUT", "https://a.example/", "", "", ""},
		{`try { const r = await fetch("https://a.example/", {method: "PUT"}).then(r => r.json()); } catch (e) { alert('fetch("x")') }`, "PUT", "https://a.example/", "", "", ""},
	} {
		q, err := explain.FromFetch(c.text)
		if err != nil {
			t.Errorf("%s: %v", c.text, err)
			continue
		}
		var header []string
		for _, f := range q.Request.Header {
			header = append(header, f.Name+": "+f.Value)
		}
		kind, text := "", ""
		if b := q.Request.Body; b != nil {
			kind, text = b.Kind, b.Text
		}
		if q.Request.API != browser.Fetch || q.Request.Method != c.method || q.Request.URL != c.url || strings.Join(header, "; ") != c.header || kind != c.body || text != c.text2 {
			t.Errorf("%s: %+v with %q and body %q %q", c.text, q.Request, header, kind, text)
		}
		checkQuestion(t, *q)
	}
}

func TestFromFetchReadsOptions(t *testing.T) {
	q, err := explain.FromFetch(`fetch("https://a.example/", {mode: "no-cors", credentials: "omit", redirect: "manual", cache: "no-store",
		referrer: "", headers: {Cookie: "a=b"}, withCredentials: true})`)
	if err != nil {
		t.Fatal(err)
	}
	r := q.Request
	if r.Mode != "no-cors" || r.Credentials != "omit" || r.Redirect != "manual" || r.Cache != "no-store" || r.ReferrerPolicy != "no-referrer" {
		t.Errorf("options are lost: %+v", r)
	}
	if !slices.ContainsFunc(q.Notes, func(n string) bool { return strings.Contains(n, "withCredentials") }) {
		t.Errorf("nothing is said of withCredentials: %q", q.Notes)
	}
	checkQuestion(t, *q)
}

func TestFromFetchNamesWhatItNeeds(t *testing.T) {
	for text, want := range map[string]string{
		"":                        "no call of fetch",
		"prefetch('x')":           "no call of fetch",
		"store.fetch('x')":        "no call of fetch",
		`// fetch("https://x/")`:  "no call of fetch",
		"fetch()":                 "no URL",
		"fetch(url)":              `"url"`,
		"fetch(`${API}/x`)":       `"API"`,
		"fetch(`https://${h}/x`)": `"h"`,
		"fetch(API + '/x')":       `"API"`,
		"fetch(process.env.API || 'https://a.example')":               `"process.env.API"`,
		"fetch(apiUrl('/x'))":                                         "apiUrl(…)",
		"fetch({})":                                                   "not a string",
		"fetch('https://a.example/', options)":                        `"options"`,
		"fetch('https://a.example/', {headers: h})":                   `"h"`,
		"fetch('https://a.example/', {headers: {...h}})":              "...h is not known",
		"fetch('https://a.example/', {method: m})":                    `"m"`,
		"fetch('https://a.example/', {credentials: c})":               `"c"`,
		"fetch('https://a.example/', {mode: 'CORS'})":                 "for which fetch throws",
		"fetch('https://a.example/', {credentials: true})":            "for which fetch throws",
		"fetch('https://a.example/', {headers: {'Content-Type': t}})": "decides whether there is a preflight",
		"fetch('https://a.example/', {headers: {'a b': 'c'}})":        "no name of a header field",
		"fetch('https://a.example/', {headers: {A: 'b\\nc'}})":        "line break",
		"fetch('https://a.example/', {method: 'A B'})":                "method",
		"fetch('https://a.example/', {method: 'PUT'":                  "the text ends",
		"fetch('https://a.example/":                                   "the text ends",
		"fetch('https://a.example/\n')":                               "line 1: a string",
		"fetch(`https://a.example/":                                   "not closed",
		"fetch('https://a.example/' /*":                               "comment is not closed",
		"x;\n\nfetch('https://a.example/', {a: b => c})":              "line 3",
		"fetch('https://a.example/', {body: function() {}})":          "function",
		"fetch('ftp://a.example/')":                                   "not http or https",
		"fetch('javascript:alert(1)')":                                "not http or https",
		"fetch('//a.example/')":                                       "scheme from the page",
		"fetch(" + strings.Repeat("(", 1000):                          "too involved",
		"fetch('https://a.example/', " + strings.Repeat("[", 1000):    "too involved",
		"fetch('https://a.example/', " + strings.Repeat("-", 1000):    "not expected",
		"fetch(" + strings.Repeat("`${", 1000):                        "too involved",
		"const a = 'x'.repeat(9); fetch(a)":                           "repeat",
		strings.Repeat("fetch('https://a.example/');", 51):            "more than 50 calls",
	} {
		q, err := explain.FromFetch(text)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.80s: %+v, error %v, want one with %q", text, q, err, want)
		}
	}
}

// A few lines can stand for endless text.
func TestFromFetchStaysSmall(t *testing.T) {
	for _, text := range []string{
		"let a='0123456789'; " + strings.Repeat("a=a+a; let a=a+a; ", 60) + "fetch('https://a.example/'+a)",
		"let a=[1,1]; " + strings.Repeat("let a=[a,a]; ", 50) + "fetch('https://a.example/', {method:'POST', body: JSON.stringify(a)})",
		"let a={b:1}; " + strings.Repeat("let a={...a,...a}; ", 50) + "fetch('https://a.example/')",
		strings.Repeat("const a=/*", 50_000),
		strings.Repeat("const a=[1,", 50_000),
		strings.Repeat("const a=`${", 50_000),
		strings.Repeat("fetch.", 100_000),
		"fetch(a" + strings.Repeat(".a", 100_000) + ")",
	} {
		if q, err := explain.FromFetch(text); err == nil {
			checkQuestion(t, *q)
			if q.Request.Body != nil && len(q.Request.Body.Text) > 128<<10 {
				t.Errorf("%.40s: the body has %d bytes", text, len(q.Request.Body.Text))
			}
		}
	}
}

func FuzzFromFetch(f *testing.F) {
	for _, text := range pasteSamples(f, "fetch") {
		f.Add(text)
	}
	f.Add("fetch(`https://a.example/${a.b[1]?.c}`, {headers: new Headers([['a', `b`]]), body: a ? b : c})")
	f.Fuzz(func(t *testing.T, text string) {
		if q, err := explain.FromFetch(text); err == nil {
			checkQuestion(t, *q)
		}
		const secret = "QvSecretZ"
		if strings.Contains(text, secret) {
			return
		}
		with := strings.Replace(text, `"headers": {`, `"headers": {"Cookie": "s=`+secret+`", "authorization": "Bearer `+secret+`",`, 1)
		if q, err := explain.FromFetch(with); err == nil {
			leaks(t, secret, q)
		}
	})
}
