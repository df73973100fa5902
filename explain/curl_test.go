package explain_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/moat-gateway/moat/browser"
	"github.com/moat-gateway/moat/explain"
)

func TestFromCurlSplitsWordsAsShellsDo(t *testing.T) {
	for text, want := range map[string]string{
		`curl https://a.example/ -d 'a b'"c d"e\ f`:                        "a bc de f",
		`curl https://a.example/ -d $'a\'b\n\x41\u00e9\101\u{'`:            "a'b\nAéA\\u{",
		`curl https://a.example/ -d "a\"b\\c\d\$e"`:                        `a"b\c\d$e`,
		"curl https://a.example/ \\\n -d a\\\nb":                           "ab",
		"curl https://a.example/ \\\r\n -d ab":                             "ab",
		"curl https://a.example/\n  -d ab":                                 "ab", // a lost backslash
		`curl https://a.example/ -d a#b # -d c`:                            "a#b",
		`curl https://a.example/ -d ""`:                                    "",
		`curl https://a.example/ -d 'é'`:                                   "é",
		`curl https://a.example/ -d é -d "$HOME"`:                          "é&$HOME",
		`curl https://a.example/ -da -d=b --data=c`:                        "a&=b&c",
		`curl https://a.example/ -d a 2>&1 >/dev/null -d b`:                "a&b",
		`curl https://a.example/ -d @- <<< 'text'`:                         "text\n",
		"curl https://a.example/ -d @- <<-EOF\n\ta\n\tb\n\tEOF\n":          "a\nb\n",
		`curl https://a.example/ --data-urlencode "a=b c" --data-raw '@x'`: "a=b+c&@x",
		`curl https://a.example/ --json '{"a":' --json '1}'`:               `{"a":1}`,
		`curl "https://a.example/" ^` + "\n" + ` --data "{\"a\":\"b^c\"}"`: `{"a":"bc"}`,
		`curl ^"https://a.example/^" --data-raw ^"a^&b^%^20c^"`:            "a&b%20c",
		"curl ^\"https://a.example/^\" ^\r\n --data-raw ^\"a^\r\n\r\nb^\"": "a\r\nb",
		`curl ^"https://a.example/^" -d ^"C:\\dir\\^"`:                     `C:\\dir\`,
	} {
		q, err := explain.FromCurl(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if q.Request.Body == nil || strings.ReplaceAll(q.Request.Body.Text, "\r", "") != strings.ReplaceAll(want, "\r", "") {
			t.Errorf("%s: body %+v, want %q", text, q.Request.Body, want)
		}
	}
}

func TestFromCurlReadsOptions(t *testing.T) {
	for _, c := range []struct {
		text, method, url string
		header            string // "name: value; …"
		body              string // its kind
	}{
		{"curl https://a.example/x", "GET", "https://a.example/x", "", ""},
		{"curl a.example", "GET", "http://a.example", "", ""},
		{"curl localhost:3000/x", "GET", "http://localhost:3000/x", "", ""},
		{"curl --url https://a.example/ -I", "HEAD", "https://a.example/", "", ""},
		{"curl -sSLkv --compressed --http1.1 -m 3 --max-time=4 -o /dev/null https://a.example/", "GET", "https://a.example/", "", ""},
		{"curl -XPUT https://a.example/", "PUT", "https://a.example/", "", ""},
		{"curl --request=patch https://a.example/", "patch", "https://a.example/", "", ""},
		{"curl https://a.example/#top", "GET", "https://a.example/", "", ""},
		{"curl -G https://a.example/?a=1 -d b=2 --data-urlencode 'c=d e'", "GET", "https://a.example/?a=1&b=2&c=d+e", "", ""},
		{"curl --url-query 'q=a b' https://a.example/", "GET", "https://a.example/?q=a+b", "", ""},
		{"curl https://a.example/ -d a", "POST", "https://a.example/", "Content-Type: application/x-www-form-urlencoded", "text"},
		{"curl https://a.example/ -d a -H 'content-type: text/plain'", "POST", "https://a.example/", "content-type: text/plain", "text"},
		{"curl https://a.example/ -d a -H 'Content-Type:'", "POST", "https://a.example/", "", "buffer"},
		{"curl https://a.example/ --json '{}'", "POST", "https://a.example/", "Content-Type: application/json; Accept: application/json", "text"},
		{"curl https://a.example/ -F a=b -F f=@photo.png", "POST", "https://a.example/", "", "form-data"},
		{"curl https://a.example/ -F a=b -H 'Content-Type: multipart/form-data'", "POST", "https://a.example/", "", "form-data"},
		{"curl https://a.example/ -d @body.json -H 'X-Empty;' -H 'Accept:'", "POST", "https://a.example/", "X-Empty: ; Content-Type: application/x-www-form-urlencoded", "text"},
		{"curl https://a.example/ -u a:b", "GET", "https://a.example/", "Authorization: Basic …", ""},
		{"curl https://a:b@a.example/", "GET", "https://a.example/", "Authorization: Basic …", ""},
		{"curl https://a.example/ --oauth2-bearer abc", "GET", "https://a.example/", "Authorization: Bearer …", ""},
		{"curl https://a.example/ -r 0-99", "GET", "https://a.example/", "Range: bytes=0-99", ""},
		{"curl https://a.example/ -A agent -e https://p.example/q -x http://proxy:3128", "GET", "https://a.example/", "", ""},
		{"curl https://a.example/ -H 'Accept-Language: de' -H 'Cache-Control: no-cache'", "GET", "https://a.example/", "Accept-Language: de; Cache-Control: no-cache", ""},
		{"curl -- https://a.example/", "GET", "https://a.example/", "", ""},
		{"curl https://a.example/?sig=abc\\&x=1", "GET", "https://a.example/?sig=%E2%80%A6&x=1", "", ""},
	} {
		q, err := explain.FromCurl(c.text)
		if err != nil {
			t.Errorf("%s: %v", c.text, err)
			continue
		}
		var header []string
		for _, f := range q.Request.Header {
			header = append(header, f.Name+": "+f.Value)
		}
		body := ""
		if q.Request.Body != nil {
			body = q.Request.Body.Kind
		}
		if q.Request.API != browser.Fetch || q.Request.Method != c.method || q.Request.URL != c.url || strings.Join(header, "; ") != c.header || body != c.body {
			t.Errorf("%s: %+v with %q and body %q", c.text, q.Request, header, body)
		}
		checkQuestion(t, *q)
	}
}

func TestFromCurlFindsThePageAndItsCredentials(t *testing.T) {
	for _, c := range []struct {
		text, page, credentials string
		api                     browser.API
		cookies                 int
	}{
		{"curl https://api.example/", "", "", browser.Fetch, 0},
		{"curl https://api.example/ -b a=1", "", "include", browser.Fetch, 1},
		{"curl https://api.example/ -H 'Origin: https://app.example'", "https://app.example/", "", browser.Fetch, 0},
		{"curl https://api.example/ -H 'Origin: https://app.example' -b 'a=1; b=2; a=3'", "https://app.example/", "include", browser.Fetch, 2},
		{"curl https://api.example/ -H 'Referer: https://app.example/x?y' -H 'Cookie: a=1'", "https://app.example/x?y", "include", browser.Fetch, 1},
		{"curl https://api.example/ -H 'Referer: https://api.example/x' -b a=1", "https://api.example/x", "", browser.Fetch, 1},
		{"curl https://api.example:443/ -H 'Origin: https://API.example' -b a=1", "https://API.example/", "", browser.Fetch, 1},
		{"curl https://api.example/ -H 'Referer: https://x.example/' -H 'Origin: https://app.example'", "https://app.example/", "", browser.Fetch, 0},
		{"curl https://api.example/ -H 'Sec-Fetch-Site: same-origin' -b a=1", "https://api.example/", "", browser.Fetch, 1},
		{"curl https://api.example/ -H 'Sec-Fetch-Dest: style'", "", "", browser.Stylesheet, 0},
		{"curl https://api.example/ -H 'Sec-Fetch-Dest: font'", "", "", browser.Font, 0},
		{"curl https://api.example/ -H 'Sec-Fetch-Dest: script'", "", "", browser.Script, 0},
		{"curl https://api.example/ -H 'Sec-Fetch-Dest: iframe' -H 'Sec-Fetch-Mode: navigate'", "", "", browser.Frame, 0},
		{"curl https://api.example/ -H 'Sec-Fetch-Mode: navigate'", "", "", browser.Link, 0},
		{"curl https://api.example/ -d a=b -H 'Sec-Fetch-Mode: navigate'", "", "", browser.Form, 0},
		{"curl wss://api.example/ -H 'Origin: https://app.example'", "https://app.example/", "", browser.WebSocket, 0},
	} {
		q, err := explain.FromCurl(c.text)
		if err != nil {
			t.Errorf("%s: %v", c.text, err)
			continue
		}
		if q.Page.URL != c.page || q.Request.Credentials != c.credentials || q.Request.API != c.api || len(q.Cookies) != c.cookies {
			t.Errorf("%s: page %q, %+v, cookies %v", c.text, q.Page.URL, q.Request, q.Cookies)
		}
		checkQuestion(t, *q)
	}
	q, err := explain.FromCurl("curl https://api.example/ -H 'Origin: null'")
	if err != nil || !q.Page.Sandboxed {
		t.Errorf("Origin: null is not taken for a sandbox: %+v, %v", q, err)
	}
	q, err = explain.FromCurl("curl https://api.example/ -H 'Sec-Fetch-Mode: no-cors'")
	if err != nil || q.Request.Mode != "no-cors" {
		t.Errorf("no-cors is lost: %+v, %v", q, err)
	}
	q, err = explain.FromCurl("curl https://api.example/ -b a=1 -H 'Sec-Fetch-Mode: cors' -H 'Sec-Fetch-Dest: image'")
	if err != nil || q.Request.CrossOrigin != "use-credentials" {
		t.Errorf("crossorigin is lost: %+v, %v", q, err)
	}
}

func TestFromCurlTellsWhatItAssumed(t *testing.T) {
	for text, want := range map[string]string{
		"curl -k https://a.example/":                      "certificates",
		"curl a.example":                                  "no scheme",
		"curl https://a.example/ -x p:1":                  "--proxy",
		"curl https://a.example/ -d @f":                   `"@f"`,
		"curl https://a.example/ -b jar.txt":              "cookie file",
		"curl https://a.example/ https://b.example/":      "1 more",
		"curl https://a.example/ --next https://b/":       "--next",
		"curl https://a.example/?a=1&b=2":                 "unquoted &",
		"curl https://a.example/ | jq .":                  "left out",
		"curl https://a.example/{a,b}":                    "braces",
		"curl https://a.example/ -H \"X: $Y\"":            "$Y",
		"curl https://a.example/ -H 'Host: b.example'":    "Host",
		"curl https://a.example/ -H 'X-Api-Key: k'":       "X-Api-Key",
		"curl https://a.example/; curl https://b.example": "first command",
	} {
		q, err := explain.FromCurl(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
		} else if !slices.ContainsFunc(q.Notes, func(n string) bool { return strings.Contains(n, want) }) {
			t.Errorf("%s: no note has %q: %q", text, want, q.Notes)
		}
	}
}

func TestFromCurlRefuses(t *testing.T) {
	for text, want := range map[string]string{
		"":                                          "does not begin with a curl command",
		"wget https://a.example/":                   "does not begin with a curl command",
		"curl -s":                                   "no URL",
		"curl https://a.example/ --foo":             `option "--foo" is not known to moat explain; remove it`,
		"curl https://a.example/ -sW":               `option "-W" is not known`,
		"curl https://a.example/ -H":                `option "-H" lacks its value`,
		"curl https://a.example/ --max-time":        `option "--max-time" lacks its value`,
		"curl https://a.example/ --get=1":           `option "--get" takes no value`,
		"curl 'https://a.example/":                  "not closed",
		`curl "https://a.example/`:                  "not closed",
		"curl $'https://a.example/":                 "not closed",
		`curl ^"https://a.example/`:                 "not closed",
		"curl ftp://a.example/":                     "not http or https",
		"curl file:///etc/passwd":                   "not http or https",
		"curl https://":                             "no host",
		"curl 'https://a b/'":                       "no URL",
		"curl $API/x":                               `variable "$API"`,
		"curl ${API}/x":                             `variable "${API}"`,
		"curl https://a.example/$(id)":              "command substitution",
		"curl https://a.example/`id`":               "command substitution",
		"curl https://a.example/ -H @f":             "from a file",
		"curl https://a.example/ -K f":              "from a file",
		"curl https://a.example/ -T f":              "sends a file",
		"curl https://a.example/ -H 'a b: c'":       "no name of a header field",
		"curl https://a.example/ -H nocolon":        "no colon",
		"curl https://a.example/ -X 'A B'":          "no method",
		"curl https://a.example/ -H $'a: b\\nc: d'": "line break",
		"curl https://a.example/ -X OPTIONS -H 'Access-Control-Request-Method: A B'": "no method",
		"curl https://a.example/ " + strings.Repeat("-H a:b ", 600):                  "more than",
	} {
		q, err := explain.FromCurl(text)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.80s: %+v, error %v, want one with %q", text, q, err, want)
		}
	}
}

func FuzzFromCurl(f *testing.F) {
	for _, text := range pasteSamples(f, "curl") {
		f.Add(text)
	}
	f.Add("curl https://a.example/ -d @- <<EOF\nx\nEOF\n")
	f.Add(`curl ^"https://a.example/^" ^` + "\n-H ^\"a: b^\"")
	f.Add(`curl "https://a.example/$X" -d $'\x41\c\777' 2>&1 & curl b`)
	f.Fuzz(func(t *testing.T, text string) {
		if q, err := explain.FromCurl(text); err == nil {
			checkQuestion(t, *q)
		}
		const secret = "QvSecretZ"
		if strings.Contains(text, secret) {
			return
		}
		with := `curl -H "Cookie: s=` + secret + `" -H "Authorization: Bearer ` + secret + `" -b s=` + secret + " -u a:" + secret + " " + strings.TrimPrefix(text, "curl")
		if q, err := explain.FromCurl(with); err == nil {
			leaks(t, secret, q)
		}
	})
}
