package config

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"mime/multipart"
	"net"
	"net/http"
	"net/http/httptest"
	"net/textproto"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/moat-gateway/moat/gateway"
	"github.com/moat-gateway/moat/guard"
)

func TestStrictJSON(t *testing.T) {
	g := newBodyGate(t, fmt.Sprintf(anyRoute, "json: strict, bytes: 64KiB, depth: 8, types: [text/csv]"))
	malformed := func(where, text string) {
		t.Helper()
		g.refuse(guard.BodyMalformed, where, "POST", "/", jsonType, text)
	}
	g.pass("POST", "/", jsonType, goodOrder)
	g.pass("POST", "/", "application/ld+json", ` [1e3, "\u00e9", {}] `)
	g.pass("POST", "/", "text/csv; charset=latin1", "a;b\r\n{{{")
	g.pass("POST", "/", "", "")
	g.pass("GET", "/?a=1&a=2", "", "")
	malformed("#/a: the name occurs twice", `{"a":1,"\u0061":2}`)
	malformed("#: something stands behind the end", `{} {}`)
	malformed("#: ends too early", ` `)
	malformed("#/0: a string is not UTF-8", "[\"\xff\"]")
	malformed("#/0: a string holds an escape that stands for no character", `["\ud800"]`)
	malformed("#/0: not JSON", `[NaN]`)
	malformed("#/0: a number is out of range", `[1e999]`)
	malformed("#: begins with a byte order mark", "\ufeff{}")
	malformed("#/0/0/0/0/0/0/0/0: deeper than 8 levels", strings.Repeat("[", 30000))
	g.refuse(guard.BodyTooLarge, "", "POST", "/", jsonType, `"`+strings.Repeat("x", 64<<10)+`"`)
	g.refuse(guard.BodyTypeNotAllowed, "", "POST", "/", "application/xml", "<x/>")
	g.refuse(guard.BodyTypeNotAllowed, "", "POST", "/", "application/json, text/csv", "{}")
}

// What a schema costs is bounded by the size of the body, whatever the schema and whatever is sent.
func TestHostileBodiesForASchema(t *testing.T) {
	g := newBodyGate(t, fmt.Sprintf(anyRoute, "schema: hostile.yaml"))
	g.pass("POST", "/", jsonType, `{"tree":{"kind":"a","left":{"kind":"b","left":{"kind":"a"}}},"tags":[["a","b"],["a\u0004b"]],"kind":3.0,"deep":[]}`)
	g.refuse(guard.BodyInvalid, "#/tags: uniqueItems", "POST", "/", jsonType, `{"tags":[["a",1.0],["a",10e-1]]}`)
	g.refuse(guard.BodyInvalid, "#/kind: enum", "POST", "/", jsonType, `{"kind":4000}`)
	g.refuse(guard.BodyInvalid, "#: required", "POST", "/", "", "")
	g.pass("GET", "/", "", "")
	// Each level doubles the branches that a naive evaluation tries.
	deep := `{"tree":` + strings.Repeat(`{"left":`, 28) + `{}` + strings.Repeat("}", 28) + "}"
	g.refuse(guard.BodyInvalid, "#: takes too long to check", "POST", "/", jsonType, deep)
	// Lists that a careless hash takes for one another, so that each is compared with all.
	var same strings.Builder
	same.WriteString(`{"tags":[`)
	for i := range 8000 {
		if i > 0 {
			same.WriteByte(',')
		}
		same.WriteString(`["a`)
		for bit := range 13 {
			if i>>bit&1 == 1 {
				same.WriteString(`","`)
			} else {
				same.WriteString(`\u0004`)
			}
		}
		same.WriteString(`"]`)
	}
	same.WriteString("]}")
	g.pass("POST", "/", jsonType, same.String())
	g.pass("POST", "/", jsonType, `{"numbers":[`+strings.Repeat("1e308,", 50_000)+`0e99999]}`)
	g.refuse(guard.BodyMalformed, "#/numbers/0: a number is out of range", "POST", "/", jsonType, `{"numbers":[0e99999999999999999999]}`)
	g.refuse(guard.BodyMalformed, "#/numbers/0: a number is out of range", "POST", "/", jsonType, `{"numbers":[1e999999]}`)
	g.refuse(guard.BodyInvalid, "#/numbers/0: type: number", "POST", "/", jsonType, `{"numbers":[`+strings.Repeat(`"",`, 1000)+`""]}`)
	g.refuse(guard.BodyInvalid, "#: contradicts the schema in too many places to tell", "POST", "/", jsonType, `{"numbers":[`+strings.Repeat(`[],`, 200_000)+`[]]}`)
	g.refuse(guard.BodyInvalid, "#/word: pattern", "POST", "/", jsonType, `{"word":"`+strings.Repeat("a", 120_000)+`!"}`)
	g.refuse(guard.BodyInvalid, "#: contradicts the schema in too many places to tell", "POST", "/", jsonType, `{"word":"`+strings.Repeat("a", 900_000)+`!"}`)
}

// status sends bytes as they are, and returns the first line of what comes back. The connection of a
// refused body may stay open as long as its client is waited for.
func (g *bodyGate) status(text string) string {
	g.t.Helper()
	c, err := net.Dial("tcp", strings.TrimPrefix(g.url, "http://"))
	if err != nil {
		g.t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, text); err != nil {
		g.t.Fatal(err)
	}
	line, _ := bufio.NewReader(c).ReadString('\n')
	return strings.TrimSpace(line)
}

func (g *bodyGate) seen() (begun int, last string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.arrived) > 0 {
		last = g.arrived[len(g.arrived)-1]
	}
	return g.begun, last
}

func TestBodiesAsTheyComeFromTheWire(t *testing.T) {
	g := newBodyGate(t, fmt.Sprintf(anyRoute, "json: strict, bytes: 1KiB"))
	head := "POST /x HTTP/1.1\r\nHost: api.example.com\r\nConnection: close\r\nContent-Type: application/json\r\n"
	for _, c := range []struct{ want, text, arrives string }{
		{"200 OK", "Transfer-Encoding: chunked\r\n\r\n3\r\n[\"\xc3\r\n3\r\n\xa9\"]\r\n0\r\n\r\n", "[\"é\"]"}, // in the middle of a character
		{"200 OK", "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", ""},
		{"200 OK", "Transfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n2\r\n{}\r\n0\r\nX-Sum: 1\r\n\r\n", "{}"},
		{"413 Request Entity Too Large", "Transfer-Encoding: chunked\r\n\r\n401\r\n" + strings.Repeat(" ", 1025) + "\r\n", ""},
		{"413 Request Entity Too Large", "Expect: 100-continue\r\nContent-Length: 1025\r\n\r\n", ""},
		{"415 Unsupported Media Type", "Expect: 100-continue\r\nContent-Encoding: br\r\nContent-Length: 4\r\n\r\n", ""},
		{"400 Bad Request", "Content-Length: 7\r\n\r\n{\"a\":1]", ""},
		{"400 Bad Request", "Transfer-Encoding: chunked\r\n\r\n3\r\n{}{\r\n0\r\n\r\n", ""},
	} {
		before, _ := g.seen()
		got := g.status(head + c.text)
		if got != "HTTP/1.1 "+c.want {
			t.Errorf("%.60q: %s, want %s", c.text, got, c.want)
		}
		begun, last := g.seen()
		if passes := c.want == "200 OK"; (begun != before) != passes || passes && last != c.arrives {
			t.Errorf("%.60q: %s; the upstream has heard of %d requests more, the last with %q", c.text, got, begun-before, last)
		}
	}
	// A client that waits for 100 Continue gets it, and then its answer.
	c, err := net.Dial("tcp", strings.TrimPrefix(g.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	io.WriteString(c, head+"Expect: 100-continue\r\nContent-Length: 7\r\n\r\n")
	buf := make([]byte, 25)
	if _, err = io.ReadFull(c, buf); err != nil || string(buf) != "HTTP/1.1 100 Continue\r\n\r\n" {
		t.Fatalf("%q, %v", buf, err)
	}
	io.WriteString(c, `{"a":1}`)
	b, _ := io.ReadAll(c)
	if _, last := g.seen(); !strings.HasPrefix(string(b), "HTTP/1.1 200 ") || last != `{"a":1}` {
		t.Errorf("%q, arrived %q", b, last)
	}
	// A body that is cut off reaches nobody.
	before, _ := g.seen()
	half, err := net.Dial("tcp", strings.TrimPrefix(g.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(half, head+"Content-Length: 70\r\n\r\n{\"a\":1}")
	half.Close()
	g.pass("POST", "/", jsonType, `{}`)
	if begun, _ := g.seen(); begun != before+1 {
		t.Error("half a body reached the upstream")
	}
}

// part is a part of a multipart form.
type part struct{ disposition, contentType, text string }

func form(t *testing.T, parts ...part) (contentType, text string) {
	t.Helper()
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	for _, p := range parts {
		h := textproto.MIMEHeader{"Content-Disposition": {p.disposition}}
		if p.contentType != "" {
			h.Set("Content-Type", p.contentType)
		}
		pw, err := w.CreatePart(h)
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(pw, p.text)
	}
	w.Close()
	return w.FormDataContentType(), b.String()
}

func TestMultipart(t *testing.T) {
	g := newBodyGate(t, fmt.Sprintf(anyRoute, "openapi: shop.yaml, multipart: {parts: 4, part_bytes: 256KiB, header_bytes: 256B}"))
	title, picture := part{`form-data; name="title"`, "", "a\r\n--b\r\n"}, part{`form-data; name="picture"; filename="a b.png"`, "image/png", "\x89PNG\r\n\x1a\n\x00"}
	send := func(parts ...part) {
		t.Helper()
		ct, text := form(t, parts...)
		g.pass("POST", "/v1/pictures", ct, text)
	}
	refuse := func(reason guard.Reason, where string, parts ...part) {
		t.Helper()
		ct, text := form(t, parts...)
		g.refuse(reason, where, "POST", "/v1/pictures", ct, text)
	}
	send(title, picture)
	send(picture, title, part{`form-data; name="rank"`, "", "7"})
	send(title, picture, part{`form-data; name="tags"`, "", "x"}, part{`form-data; name="tags"`, "", "y"})
	big := picture
	big.text = strings.Repeat("\r\n--x", 30_000) // past what is read ahead, and full of what looks like a boundary
	send(title, big)
	send(part{`form-data; name="title"`, "", ""}, part{picture.disposition, picture.contentType, ""})
	refuse(guard.BodyInvalid, "#/picture: required", title)
	refuse(guard.BodyInvalid, "#/rank: type: integer", title, picture, part{`form-data; name="rank"`, "", "x"})
	refuse(guard.BodyInvalid, "#/role: not declared", title, picture, part{`form-data; name="role"`, "", "admin"})
	refuse(guard.BodyInvalid, "#/title: maxLength: 40", part{title.disposition, "", strings.Repeat("x", 41)}, picture)
	refuse(guard.BodyMalformed, "#/title: the field occurs twice", title, title, picture)
	refuse(guard.BodyMalformed, "#/picture: the field occurs twice", title, picture, picture)
	refuse(guard.BodyMalformed, "#: more than 4 parts", title, picture, part{`form-data; name="tags"`, "", "x"}, part{`form-data; name="tags"`, "", "y"}, part{`form-data; name="tags"`, "", "z"})
	refuse(guard.BodyTypeNotAllowed, "#/picture: the part's content type is not accepted", title, part{picture.disposition, "image/svg+xml", "<svg/>"})
	refuse(guard.BodyTypeNotAllowed, "#/picture: the part's content type is not accepted", title, part{picture.disposition, "", "x"})
	for _, name := range []string{"../../etc/passwd", `..\\x`, "a/b", "", ".", "..", "a:b", strings.Repeat("n", 100) + "/x"} {
		refuse(guard.BodyMalformed, "#/picture: the file's name is not plain", title, part{`form-data; name="picture"; filename="` + name + `"`, "image/png", "x"})
	}
	refuse(guard.BodyMalformed, "#: a part is not form-data with a name", part{`form-data; filename="x"`, "", "x"})
	refuse(guard.BodyMalformed, "#: a part is not form-data with a name", part{`attachment; name="title"`, "", "x"})
	refuse(guard.BodyMalformed, "#: a part is not form-data with a name", part{`form-data; name="picture"; filename="a.png"; filename*=utf-8''b.exe`, "image/png", "x"})
	refuse(guard.BodyMalformed, "#: the head of a part is larger than 256 bytes", part{`form-data; name="title"`, "text/plain; x=" + strings.Repeat("y", 300), "x"})
	refuse(guard.BodyMalformed, "#/title: the field is not UTF-8", part{title.disposition, "", "\xff"}, picture)
	refuse(guard.BodyTooLarge, "#/title: larger than 65536 bytes", part{title.disposition, "", strings.Repeat("x", 65<<10)})
	ct := "multipart/form-data; boundary=b"
	good := "--b\r\nContent-Disposition: form-data; name=title\r\n\r\nx\r\n--b\r\nContent-Disposition: form-data; name=picture; filename=p\r\nContent-Type: image/png\r\n\r\nx\r\n--b--"
	g.pass("POST", "/v1/pictures", ct, good)
	g.pass("POST", "/v1/pictures", ct, good+"\r\n")
	for where, text := range map[string]string{
		"#: does not begin with its boundary":           "x" + good,
		"#/picture: something stands behind the end":    good + "\r\nGET / HTTP/1.1",
		"#/picture: ends too early":                     strings.TrimSuffix(good, "\r\n--b--"),
		"#/picture: a boundary has something behind it": strings.TrimSuffix(good, "--") + " x",
		"#: ends too early":                             "--b\r\nContent-Disp",
		"#: the head of a part is malformed":            strings.Replace(good, "Content-Disposition:", "Content-Disposition :", 1),
		"#: a part is encoded (RFC 7578 section 4.7)":   strings.Replace(good, "\r\n\r\n", "\r\nContent-Transfer-Encoding: base64\r\n\r\n", 1),
		"#: a part has two Content-Disposition":         strings.Replace(good, "\r\n\r\n", "\r\nContent-Disposition: form-data; name=picture\r\n\r\n", 1),
	} {
		g.refuse(guard.BodyMalformed, where, "POST", "/v1/pictures", ct, text)
	}
	g.refuse(guard.BodyTypeNotAllowed, "", "POST", "/v1/pictures", "multipart/form-data", good)
	g.refuse(guard.BodyTypeNotAllowed, "", "POST", "/v1/pictures", `multipart/form-data; boundary="b\""`, good)
	// What turns out wrong late ends a request that has begun, and its end never arrives.
	late := big
	late.text = strings.Repeat("y", 257<<10)
	contentType, text := form(t, title, late)
	g.mu.Lock()
	before := len(g.arrived)
	g.mu.Unlock()
	res := g.send("POST", "/v1/pictures", contentType, text)
	if b, _ := io.ReadAll(res.Body); res.StatusCode != http.StatusRequestEntityTooLarge || !bytes.Contains(b, []byte(`"pointer":"#/picture"`)) {
		t.Errorf("%d %s", res.StatusCode, b)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.arrived) != before {
		t.Error("a part that is too large arrived whole")
	}
}

// Report mode changes nothing, and says what enforcing would have refused.
func TestBodiesInReportMode(t *testing.T) {
	g := newBodyGate(t, "  - {match: /, name: all, upstream: app, auth: public, policy: open, modes: {body: report}, body: {openapi: shop.yaml, bytes: 2KiB}}\n")
	contentType, twice := form(t, part{`form-data; name="title"`, "", "x"}, part{`form-data; name="title"`, "", strings.Repeat("long ", 40_000)})
	g.pass("POST", "/v1/orders", jsonType, "{nonsense")
	g.pass("POST", "/v1/orders", jsonType, `{"items":[]}`)
	g.pass("POST", "/v1/orders", jsonType, strings.Repeat(" ", 3000))
	g.pass("POST", "/v1/pictures", contentType, twice)
	g.pass("PATCH", "/nowhere", "text/plain", "x", "Content-Encoding", "gzip")
	got := g.recorded()
	for _, want := range []string{"body-malformed body #", "body-invalid body #/items", "body-too-large ", "body-too-large body #/title", "operation-unknown operation"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is not recorded: %s", want, got)
		}
	}
}

// recorded are the decisions that the operator sees, a line each.
func (g *bodyGate) recorded() string {
	g.t.Helper()
	w := httptest.NewRecorder()
	g.gate.Admin(false).ServeHTTP(w, httptest.NewRequest("GET", "http://127.0.0.1/decisions", nil))
	var records []gateway.Record
	if err := json.Unmarshal(w.Body.Bytes(), &records); err != nil {
		g.t.Fatalf("%v: %s", err, w.Body)
	}
	var b strings.Builder
	for _, rec := range records {
		fmt.Fprintln(&b, rec.Code, rec.Where, rec.Got, rec.Want)
	}
	return b.String()
}

// Neither the client nor the operator is told a value that came.
func TestRefusalsHoldNoValues(t *testing.T) {
	g := newBodyGate(t, fmt.Sprintf(anyRoute, "openapi: shop.yaml, unknown: refuse"))
	const secret = "hunter2-canary"
	var told strings.Builder
	for _, text := range []string{
		`{"id":"` + secret + `"}`, `{"note":["` + secret + `"]}`, `{"items":[{"sku":"` + secret + `","quantity":"` + secret + `"}]}`, `{"pay":{"kind":"` + secret + `"}}`,
		strings.Replace(goodOrder, "{", `{"password":"`+secret+`",`, 1), `{"note":"` + secret, `["` + secret + `"]`, `{"items":"` + secret + `"}`,
	} {
		b, _ := io.ReadAll(g.send("POST", "/v1/orders", jsonType, text).Body)
		told.Write(b)
	}
	for _, path := range []string{"/v1/orders?limit=" + secret, "/v1/orders?page=%7B%22" + secret, "/v1/orders?state=" + secret} {
		b, _ := io.ReadAll(g.send("GET", path, "", "").Body)
		told.Write(b)
	}
	b, _ := io.ReadAll(g.send("GET", "/v1/orders", "", "", "X-Tenant", secret, "Cookie", "theme="+secret).Body)
	told.Write(b)
	if strings.Contains(told.String(), secret) || !strings.Contains(told.String(), "#/password") {
		t.Error("a client is told a value:", told.String())
	}
	if got := g.recorded(); strings.Contains(got, secret) {
		t.Error("the operator is told a value:", got)
	}
}

func TestResponsesAreReported(t *testing.T) {
	g := newBodyGate(t, fmt.Sprintf(anyRoute, "openapi: shop.yaml, responses: report"))
	good := `[{"id":"7c0e6b0a-63a5-4b1c-9d3e-0d2f3a1b4c5d","items":[{"sku":"A-1001","quantity":1}],"pay":{"kind":"bill","company":"x"}}]`
	answer := func(status int, contentType, text string, headers ...string) {
		t.Helper()
		g.mu.Lock()
		g.answer = func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", contentType)
			for i := 0; i < len(headers); i += 2 {
				w.Header().Set(headers[i], headers[i+1])
			}
			w.WriteHeader(status)
			io.WriteString(w, text)
		}
		g.mu.Unlock()
		res := g.send("GET", "/v1/orders", "", "")
		if b, _ := io.ReadAll(res.Body); string(b) != text || res.StatusCode != status {
			t.Errorf("%d %.80q, want %d %.80q", res.StatusCode, b, status, text)
		}
	}
	// What is judged has passed before: wait until it has been.
	wait := func(want string, n int) string {
		t.Helper()
		var got string
		for range 2000 {
			if got = g.recorded(); strings.Count(got, want) == n {
				return got
			}
			time.Sleep(5 * time.Millisecond)
		}
		t.Fatalf("%q is not recorded %d times:\n%s", want, n, got)
		return ""
	}
	answer(200, jsonType, good)
	answer(200, jsonType, strings.Replace(good, `"kind":"bill","company":"x"`, `"kind":"card","token":"hunter2-canary"`, 1))
	wait("response-invalid body #/0/pay/token  writeOnly", 1)
	answer(200, jsonType, `[{"a":1}`)
	wait("response-invalid body #/0  ends too early", 1)
	answer(500, "text/html", "<h1>stack trace</h1>")
	wait("response-invalid status 500", 1)
	answer(200, "text/html", "<h1>hello</h1>")
	answer(200, jsonType, `"`+strings.Repeat("x", 1<<20)+`"`)
	answer(200, jsonType, "x", "Content-Encoding", "br")
	got := wait("response-invalid Content-Type text/html application/json", 1)
	if strings.Contains(got, "hunter2") || strings.Count(got, "\n") != 4 {
		t.Error("more is recorded:", got)
	}
	w := httptest.NewRecorder()
	g.gate.Admin(false).ServeHTTP(w, httptest.NewRequest("GET", "http://127.0.0.1/metrics", nil))
	for _, want := range []string{`moat_responses_unchecked_total{route="/",why="large"} 1`, `moat_responses_unchecked_total{route="/",why="encoded"} 1`} {
		if !strings.Contains(w.Body.String(), want) {
			t.Errorf("no %s", want)
		}
	}
}

// A record says of a rule what it asks for, and of anything else what was found.
func TestRecordsTellWhatWasFoundFromWhatIsWanted(t *testing.T) {
	g := newBodyGate(t, fmt.Sprintf(anyRoute, "openapi: shop.yaml, unknown: refuse"))
	for _, text := range []string{`{"a":1,"a":2}`, strings.Replace(goodOrder, "{", `{"extra":1,`, 1), `{}`} {
		g.send("POST", "/v1/orders", jsonType, text)
	}
	w := httptest.NewRecorder()
	g.gate.Admin(false).ServeHTTP(w, httptest.NewRequest("GET", "http://127.0.0.1/decisions", nil))
	var records []gateway.Record
	if err := json.Unmarshal(w.Body.Bytes(), &records); err != nil {
		t.Fatalf("%v: %s", err, w.Body)
	}
	var got []string
	for _, r := range records { // newest first
		got = append(got, fmt.Sprintf("%s found %q wanted %q", r.Where, r.Got, r.Want))
	}
	want := []string{
		`body #/items found "" wanted "required"`,
		`body #/extra found "not declared" wanted ""`,
		`body #/a found "the name occurs twice" wanted ""`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("records\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}
