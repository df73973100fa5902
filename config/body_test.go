package config

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/moat-gateway/moat/gateway"
	"github.com/moat-gateway/moat/guard"
)

// bodyGate is a gate in front of a real upstream that keeps every body that reaches it whole.
type bodyGate struct {
	t       *testing.T
	url     string
	gate    *gateway.Gateway
	mu      sync.Mutex
	arrived []string
	begun   int
	answer  http.HandlerFunc
}

// newBodyGate loads routes, as YAML, with the documents in testdata/openapi beside them.
func newBodyGate(t *testing.T, routes string) *bodyGate {
	t.Helper()
	g := &bodyGate{t: t}
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		g.mu.Lock()
		g.begun++
		g.mu.Unlock()
		b, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		g.mu.Lock()
		g.arrived = append(g.arrived, string(b))
		answer := g.answer
		g.mu.Unlock()
		if answer != nil {
			answer(w, r)
		}
	}))
	t.Cleanup(upstream.Close)
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS("testdata/openapi")); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(dir, "moat.yaml")
	text := "version: 1\npublic_origins: [https://api.example.com]\nupstreams: {app: {url: " + upstream.URL + "}}\npolicies: {open: {browserless: allow}}\nroutes:\n" + routes
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := Load(name)
	if err != nil {
		t.Fatal(err)
	}
	if g.gate, err = gateway.New(l.Gateway, nil); err != nil {
		t.Fatal(err)
	}
	front := httptest.NewServer(g.gate)
	t.Cleanup(front.Close)
	g.url = front.URL
	return g
}

func (g *bodyGate) send(method, path, contentType, text string, headers ...string) *http.Response {
	g.t.Helper()
	r, err := http.NewRequestWithContext(g.t.Context(), method, g.url+path, strings.NewReader(text))
	if err != nil {
		g.t.Fatal(err)
	}
	r.Host = "api.example.com"
	if contentType != "" {
		r.Header.Set("Content-Type", contentType)
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	res, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { res.Body.Close() })
	return res
}

// pass expects that the upstream gets the same bytes.
func (g *bodyGate) pass(method, path, contentType, text string, headers ...string) {
	g.t.Helper()
	g.mu.Lock()
	before := len(g.arrived)
	g.mu.Unlock()
	res := g.send(method, path, contentType, text, headers...)
	if res.StatusCode != http.StatusOK {
		b, _ := io.ReadAll(res.Body)
		g.t.Errorf("%s %s %.80q: %d %s", method, path, text, res.StatusCode, b)
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.arrived) != before+1 || g.arrived[before] != text {
		g.t.Errorf("%s %s %.80q: did not arrive byte for byte", method, path, text)
	}
}

// problemErrors is what a refusal tells.
type problemErrors struct {
	Code   string
	Errors []struct{ Pointer, Parameter, Detail string }
}

// refuse expects a refusal, and that nothing reaches the upstream. where is the first place that
// it names and its rule; "" for none.
func (g *bodyGate) refuse(want guard.Reason, where, method, path, contentType, text string, headers ...string) {
	g.t.Helper()
	g.mu.Lock()
	before := g.begun
	g.mu.Unlock()
	res := g.send(method, path, contentType, text, headers...)
	b, _ := io.ReadAll(res.Body)
	var p problemErrors
	if err := json.Unmarshal(b, &p); err != nil {
		g.t.Errorf("%s %s %.80q: %d %s", method, path, text, res.StatusCode, b)
		return
	}
	told := ""
	if len(p.Errors) > 0 {
		told = p.Errors[0].Pointer + p.Errors[0].Parameter + ": " + p.Errors[0].Detail
	}
	if p.Code != want.String() || told != where || res.StatusCode != want.Status() {
		g.t.Errorf("%s %s %.80q: %d %s %q, want %s %q", method, path, text, res.StatusCode, p.Code, told, want, where)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.begun != before {
		g.t.Errorf("%s %s %.80q: the upstream has heard of it", method, path, text)
	}
}

const (
	jsonType   = "application/json"
	goodOrder  = `{"note":null,"items":[{"sku":"A-1001","quantity":2,"price":4.25,"parts":[{"sku":"B-0001","quantity":1}]}],"pay":{"kind":"bill","company":"Example Ltd"}}`
	anyRoute   = "  - {match: /, upstream: app, auth: public, policy: open, body: {%s}}\n"
	goodDevice = `{"at":"2026-11-21T10:00:00Z","kind":"heat","value":21.5,"unit":null,"place":[1.5,2],"version":2}`
)

func TestOpenAPI30(t *testing.T) {
	g := newBodyGate(t, fmt.Sprintf(anyRoute, "openapi: shop.yaml"))
	post := func(want, items string) {
		t.Helper()
		g.refuse(guard.BodyInvalid, want, "POST", "/v1/orders", jsonType, `{"items":`+items+`,"pay":{"kind":"bill","company":"x"}}`)
	}
	g.pass("POST", "/v1/orders", jsonType, goodOrder)
	g.pass("POST", "/v1/orders", "application/json; charset=UTF-8", strings.ReplaceAll(goodOrder, ":", " :\n\t"))
	g.pass("POST", "/v1/orders", jsonType, `{"items":[{"sku":"A-1001","quantity":1,"colour":"red"}],"pay":{"kind":"Card","token":"12345678"}}`)
	post("#/items/0/sku: required", `[{"quantity":1}]`)
	post("#/items/0/quantity: exclusiveMinimum: 0", `[{"sku":"A-1001","quantity":0}]`)
	post("#/items/0/quantity: type: integer", `[{"sku":"A-1001","quantity":"1"}]`)
	post("#/items/0/sku: pattern", `[{"sku":"hunter2","quantity":1}]`)
	post("#/items/0/parts/0/quantity: maximum: 99", `[{"sku":"A-1001","quantity":1,"parts":[{"sku":"A-1001","quantity":100}]}]`)
	post("#/items: uniqueItems", `[{"sku":"A-1001","quantity":1},{"quantity":1.0,"sku":"A-1001"}]`)
	post("#/items: minItems: 1", `[]`)
	post("#/items/0/price: multipleOf: 0.01", `[{"sku":"A-1001","quantity":1,"price":0.001}]`)
	invalid := func(where, text string) {
		t.Helper()
		g.refuse(guard.BodyInvalid, where, "POST", "/v1/orders", jsonType, text)
	}
	invalid("#/id: readOnly", strings.Replace(goodOrder, "{", `{"id":"7c0e6b0a-63a5-4b1c-9d3e-0d2f3a1b4c5d",`, 1))
	invalid("#/pay/kind: enum", strings.Replace(goodOrder, "bill", "cheque", 1))
	invalid("#/pay/token: required", strings.Replace(goodOrder, "bill", "card", 1))
	invalid("#/pay: type: object", `{"items":[{"sku":"A-1001","quantity":1}],"pay":null}`)
	invalid("#: type: object", `[]`)
	g.refuse(guard.BodyInvalid, "#: required", "POST", "/v1/orders", "", "")
	g.refuse(guard.BodyMalformed, "#/note: the name occurs twice", "POST", "/v1/orders", jsonType, `{"note":"a","note":"b"}`)
	g.refuse(guard.BodyTypeNotAllowed, "", "POST", "/v1/orders", "text/plain", goodOrder)
	g.refuse(guard.BodyTypeNotAllowed, "", "POST", "/v1/orders", "application/json; charset=utf-16", goodOrder)
	g.refuse(guard.BodyTypeNotAllowed, "", "POST", "/v1/orders", "", goodOrder)
	g.refuse(guard.BodyTypeNotAllowed, "", "POST", "/v1/orders", jsonType, goodOrder, "Content-Type", "text/plain")
	g.refuse(guard.BodyEncoded, "", "POST", "/v1/orders", jsonType, goodOrder, "Content-Encoding", "gzip")
	g.refuse(guard.BodyTypeNotAllowed, "", "GET", "/v1/orders", jsonType, goodOrder)
	g.refuse(guard.OperationUnknown, "", "PUT", "/v1/orders", jsonType, goodOrder)
	g.refuse(guard.OperationUnknown, "", "GET", "/orders", "", "")
	g.refuse(guard.OperationUnknown, "", "GET", "/v1/orders/a/b", "", "")

	get := func(query string, headers ...string) {
		t.Helper()
		g.pass("GET", "/v1/orders"+query, "", "", headers...)
	}
	param := func(where, query string, headers ...string) {
		t.Helper()
		g.refuse(guard.ParameterInvalid, where, "GET", "/v1/orders"+query, "", "", headers...)
	}
	get("")
	get("?limit=100&state=open&state=paid&ids=1,2,3&filter[city]=x&filter[gift]=true&unknown=1", "X-Tenant", "acme", "Cookie", "theme=dark; other=1")
	get("?page=%7B%22after%22:%22x%22%7D")
	param("query limit: maximum: 100", "?limit=101")
	param("query limit: type: integer", "?limit=1e1")
	param("query limit: type: integer", "?limit=0x10")
	param("query limit: type: integer", "?limit=")
	param("query limit: occurs twice", "?limit=1&limit=2")
	param("query state: /1 enum", "?state=open&state=lost")
	param("query ids: maxItems: 3", "?ids=1,2,3,4")
	param("query ids: /1 type: integer", "?ids=1,x")
	param("query filter: /evil not declared", "?filter[evil]=1")
	param("query filter: a name occurs twice", "?filter[city]=1&filter[city]=2")
	param("query page: /after required", "?page=%7B%7D")
	param("query page: the name occurs twice", "?page=%7B%22after%22:%22x%22,%22after%22:%22y%22%7D")
	param("query: holds a percent sign that encodes nothing", "?limit=%zz")
	param("query: holds a semicolon, which some read as a separator", "?a=1;limit=1000")
	param("query: is not UTF-8", "?a=%ff")
	param("header X-Tenant: pattern", "", "X-Tenant", "ACME")
	param("header X-Tenant: occurs twice", "", "X-Tenant", "acme", "X-Tenant", "umbrella")
	param("cookie theme: enum", "", "Cookie", "theme=neon")
	param("cookie theme: occurs twice", "", "Cookie", "theme=dark; theme=light")
	g.pass("GET", "/v1/orders/7c0e6b0a-63a5-4b1c-9d3e-0d2f3a1b4c5d", "", "")
	g.pass("HEAD", "/v1/orders/latest", "", "")
	g.refuse(guard.ParameterInvalid, "path id: format: uuid", "GET", "/v1/orders/7", "", "")
	g.pass("PUT", "/v1/orders/7/invoice.pdf", "application/pdf", "%PDF {{{")
	g.pass("PUT", "/v1/orders/7/invoice.xml", "text/xml", "<x>")
	g.pass("PUT", "/v1/orders/7/invoice.xml", "", "")
	g.refuse(guard.ParameterInvalid, "path id: format: int32", "PUT", "/v1/orders/2147483648/invoice.pdf", "application/pdf", "x")
	g.refuse(guard.ParameterInvalid, "path format: enum", "PUT", "/v1/orders/7/invoice.exe", "application/pdf", "x")
	g.refuse(guard.BodyTypeNotAllowed, "", "PUT", "/v1/orders/7/invoice.pdf", jsonType, "{}")
	g.pass("POST", "/v1/pictures", "application/x-www-form-urlencoded", "title=a+b&rank=3&other=1")
	g.refuse(guard.BodyInvalid, "#/rank: minimum: 1", "POST", "/v1/pictures", "application/x-www-form-urlencoded", "title=a&rank=0")
	g.refuse(guard.BodyMalformed, "#/title: the field occurs twice", "POST", "/v1/pictures", "application/x-www-form-urlencoded", "title=a&title=b")
}

func TestUnknownIsRefused(t *testing.T) {
	g := newBodyGate(t, fmt.Sprintf(anyRoute, "openapi: shop.yaml, unknown: refuse"))
	g.pass("POST", "/v1/orders", jsonType, goodOrder)
	g.refuse(guard.BodyInvalid, "#/role: not declared", "POST", "/v1/orders", jsonType, strings.Replace(goodOrder, "{", `{"role":"admin",`, 1))
	g.refuse(guard.BodyInvalid, "#/items/0/parts/0/x: not declared", "POST", "/v1/orders", jsonType, strings.Replace(goodOrder, `"sku":"B`, `"x":1,"sku":"B`, 1))
	g.refuse(guard.BodyInvalid, "#/pay/token: not declared", "POST", "/v1/orders", jsonType, strings.Replace(goodOrder, `"company"`, `"token":"x","company"`, 1))
	g.refuse(guard.ParameterInvalid, "query unknown: not declared", "GET", "/v1/orders?unknown=1", "", "")
	g.refuse(guard.BodyInvalid, "#/other: not declared", "POST", "/v1/pictures", "application/x-www-form-urlencoded", "title=a&other=1")
}

func TestOpenAPI31(t *testing.T) {
	g := newBodyGate(t, fmt.Sprintf(anyRoute, "openapi: devices.yaml, prefix: /api"))
	one := "application/vnd.example.reading+json"
	const path = "/api/devices/d-1/readings"
	g.pass("POST", path+"?dry=true", one, goodDevice)
	g.pass("POST", path, jsonType, "["+goodDevice+"]")
	g.pass("POST", path, one, `{"at":"2026-11-21T10:00:00Z","kind":"place","value":{"any":["thing"]}}`)
	bad := func(where, old, with string) {
		t.Helper()
		g.refuse(guard.BodyInvalid, where, "POST", path, one, strings.Replace(goodDevice, old, with, 1))
	}
	bad("#/unit: type: null or string", `null`, `7`)
	bad("#/version: const", `2}`, `3}`)
	bad("#/value: type: number", `21.5`, `true`)
	bad("#/value: exclusiveMinimum: -274", `21.5`, `-300`)
	bad("#/place/0: maximum: 180", `[1.5,2]`, `[200,2]`)
	bad("#/place/2: not declared", `[1.5,2]`, `[1,2,3]`)
	bad("#/x: not declared", `{"at"`, `{"x":1,"at"`)
	bad("#/at: format: date-time", `2026-11-21T`, `2026-13-21T`)
	bad("#/kind: enum", `heat`, `cold`)
	g.refuse(guard.BodyInvalid, "#: contains", "POST", path, jsonType, "["+strings.Replace(strings.Replace(goodDevice, "heat", "door", 1), "21.5", "true", 1)+"]")
	g.refuse(guard.ParameterInvalid, "query dry: type: boolean", "POST", path+"?dry=yes", one, goodDevice)
	g.refuse(guard.OperationUnknown, "", "POST", "/devices/d-1/readings", one, goodDevice)
}
