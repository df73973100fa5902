package body

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// What a document declares is worth nothing where the upstream reads another text than was judged.
func TestNoOtherCharsetThanIsJudged(t *testing.T) {
	g := New(Policy{StrictJSON: true})
	// RFC 2231: some readers take the one with the asterisk, and most the other.
	for _, ct := range []string{"application/json; charset=utf-7; charset*=utf-8''utf-8", "application/json; charset=utf-7; charset*0=utf-8"} {
		r := httptest.NewRequest("POST", "/u", strings.NewReader(`{"role":"+ACI-,+ACI-admin+ACI-:+ACI-1"}`))
		r.Header.Set("Content-Type", ct)
		if m, d := g.Decide(t.Context(), r); !d.Denied() {
			t.Errorf("%s passes as %v", ct, m.Content.kind)
		}
	}
}

// passesAsForm reports whether a form of user's fields passes.
func passesAsForm(t *testing.T, contentType, text string) bool {
	t.Helper()
	var schema any
	if err := json.Unmarshal([]byte(`{"type":"object","properties":{"role":{"enum":["user"]},"note":{"type":"string"}}}`), &schema); err != nil {
		t.Fatal(err)
	}
	api, faults := NewAPI(Files{"api.yaml": map[string]any{"openapi": "3.1.0", "paths": map[string]any{"/u": map[string]any{"post": map[string]any{
		"requestBody": map[string]any{"content": map[string]any{"multipart/form-data": map[string]any{"schema": schema}}},
	}}}}}, "api.yaml", APIOptions{RefuseUnknown: true})
	if faults != nil {
		t.Fatal(faults)
	}
	g := New(Policy{API: api})
	r := httptest.NewRequest("POST", "/u", strings.NewReader(text))
	r.Header.Set("Content-Type", contentType)
	m, d := g.Decide(t.Context(), r)
	if d.Denied() {
		return false
	}
	s := g.Multipart(t.Context(), &m, r.Body, nil)
	if s.Fill() != nil {
		return false
	}
	passed, err := io.ReadAll(s)
	return err == nil && string(passed) == text
}

func TestNoPartIsHidden(t *testing.T) {
	const disposition = `Content-Disposition: form-data; name=`
	inside := func(outer, inner string) string {
		return "--" + outer + "\r\n" + disposition + "\"note\"\r\n\r\n\r\n--" + inner + "\r\n" + disposition + "\"role\"\r\n\r\nadmin\r\n--" + inner + "--\r\n\r\n--" + outer + "--\r\n"
	}
	part := func(head, text string) string {
		return "--B\r\n" + disposition + head + "\r\n\r\n" + text + "\r\n--B--\r\n"
	}
	two := "--inner\r\n" + disposition + "\"note\"\r\n\r\n\r\n--outer\r\n" + disposition + "\"role\"\r\n\r\nadmin\r\n--outer--\r\n\r\n--inner--\r\n"
	bare := func(end string) string {
		return "--B\r\n" + disposition + "\"note\"\r\n\r\nx" + end + "--B" + end + disposition + "\"role\"" + end + end + "admin\r\n--B--\r\n"
	}
	for name, c := range map[string]struct{ contentType, text string }{
		"a boundary in two spellings":       {"multipart/form-data; boundary=outer; boundary*=utf-8''inner", two},
		"a boundary in pieces":              {"multipart/form-data; boundary=outer; boundary*0=inner", two},
		"a boundary behind LF alone":        {"multipart/form-data; boundary=B", bare("\n")},
		"a boundary behind CR alone":        {"multipart/form-data; boundary=B", bare("\r")},
		"a boundary with a quoted pair":     {`multipart/form-data; boundary="a\/b"`, inside("a/b", `a\/b`)},
		"a boundary with a comma":           {`multipart/form-data; boundary="a,b"`, inside("a,b", "a")},
		"a boundary in another's value":     {`multipart/form-data; x="boundary=evil"; boundary=good`, inside("good", `evil"`)},
		"a boundary behind its name":        {`multipart/form-data; x="boundary"; y=evil; boundary=good`, inside("good", "evil")},
		"a boundary in a boundary":          {`multipart/form-data; boundary="aboundary=b"`, inside("aboundary=b", "b")},
		"a form in another charset":         {`multipart/form-data; boundary=B; charset=utf-16le`, part(`"note"`, "ab")},
		"a form that names another charset": {"multipart/form-data; boundary=B", part(`"_charset_"`, "utf-16le")},
		"a parameter behind an escape":      {"multipart/form-data; boundary=B", part(`"note\"; filename=\"a.php"`, "x")},
		"parts in a part":                   {"multipart/form-data; boundary=B", part("\"note\"\r\nContent-Type: multipart/mixed; boundary=C", "--C\r\nContent-Disposition: file; filename=a.php\r\n\r\nx\r\n--C--")},
		"a field as a file without a name":  {"multipart/form-data; boundary=B", part(`"role"; filename=""`, "admin")},
		"a field in another charset":        {"multipart/form-data; boundary=B", "--B\r\n" + disposition + "\"note\"\r\nContent-Type: text/plain; charset=utf-16le\r\n\r\nab\r\n--B--\r\n"},
		"a field with two kinds of charset": {"multipart/form-data; boundary=B", "--B\r\n" + disposition + "\"note\"\r\nContent-Type: text/plain; charset*=x\r\n\r\nab\r\n--B--\r\n"},
	} {
		if passesAsForm(t, c.contentType, c.text) {
			t.Errorf("%s passes", name)
		}
	}
	for _, ct := range []string{"multipart/form-data; boundary=----WebKitFormBoundaryAb0", "multipart/form-data; boundary=----geckoformboundary7f", `multipart/form-data; charset=utf-8; boundary="=-B'()+_-./:=?="`} {
		_, b, _ := strings.Cut(ct, "boundary=")
		b = strings.Trim(b, `"`)
		if !passesAsForm(t, ct, "--"+b+"\r\n"+disposition+"\"note\"\r\n\r\nx\r\n--"+b+"--\r\n") {
			t.Errorf("%s is refused", ct)
		}
	}
	// What a browser sends for <input type=file> where nothing was chosen.
	if !passesAsForm(t, "multipart/form-data; boundary=B", part("\"note\"; filename=\"\"\r\nContent-Type: application/octet-stream", "")) {
		t.Error("a file that nobody chose is refused")
	}
	honest := "--B\r\n" + disposition + "\"note\"\r\nContent-Type: text/plain; charset=UTF-8\r\n\r\n-\n--A\r\n--\r\nB\r\n--B\r\n" + disposition + "\"role\"\r\n\r\nuser\r\n--B--\r\n"
	if !passesAsForm(t, "multipart/form-data; boundary=B", honest) {
		t.Error("an honest form is refused")
	}
}

// A fault goes to the operator's records, which hold no secret: ?TOKEN has no name that could be told.
func TestWhatStandsInTheQueryWithoutANameIsNotTold(t *testing.T) {
	api, faults := NewAPI(Files{"api.yaml": map[string]any{"openapi": "3.1.0", "paths": map[string]any{"/u": map[string]any{"get": map[string]any{}}}}}, "api.yaml", APIOptions{RefuseUnknown: true})
	if faults != nil {
		t.Fatal(faults)
	}
	g := New(Policy{API: api})
	for query, want := range map[string]string{
		"debug=1":                          "query debug",
		"sk-live-0123456789abcdefghijklmn": "query (a name that is not shown)",
		"a%20b=1":                          "query (a name that is not shown)",
	} {
		m, d := g.Decide(t.Context(), httptest.NewRequest("GET", "/u?"+query, http.NoBody))
		if !d.Denied() || len(m.Faults) != 1 || m.Faults[0].Parameter != want {
			t.Errorf("%s: %+v, %+v", query, d, m.Faults)
		}
	}
}

// apiOf compiles the paths of a document.
func apiOf(t *testing.T, paths string) *Guard {
	t.Helper()
	var doc any
	if err := json.Unmarshal([]byte(paths), &doc); err != nil {
		t.Fatal(err)
	}
	api, faults := NewAPI(Files{"api.yaml": map[string]any{"openapi": "3.1.0", "paths": doc}}, "api.yaml", APIOptions{})
	if faults != nil {
		t.Fatal(faults)
	}
	return New(Policy{API: api})
}

// decided is why a request of JSON is refused, or "ok".
func decided(t *testing.T, g *Guard, method, target, contentType, text string, cookie ...string) string {
	t.Helper()
	r := httptest.NewRequest(method, target, strings.NewReader(text))
	if text != "" {
		r.Header.Set("Content-Type", contentType)
	}
	r.Header["Cookie"] = cookie
	m, d := g.Decide(t.Context(), r)
	if _, whole := g.Whole(m.Content); whole && !d.Denied() {
		var err error
		if m.Faults, d, err = g.Body(t.Context(), &m, []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range m.Faults {
		return d.Reason.String() + " " + f.Where() + ": " + f.Detail
	}
	return d.Reason.String()
}

// An upstream that is less exact about paths takes a request for another operation's, which asks for more.
func TestNoOperationIsReachedInAnothersSpelling(t *testing.T) {
	g := apiOf(t, `{
		"/items/{id}": {"post": {"requestBody": {"content": {"application/json": {}}}}, "get": {}},
		"/items/import": {"post": {"requestBody": {"content": {"application/json": {"schema": {"required": ["reason"]}}}}}},
		"/items/{id}/tags/{tag}": {"get": {}}, "/items/{id}/tags/all": {"get": {}}
	}`)
	for path, want := range map[string]string{
		"POST /items/import": "body-invalid body #/reason: required", "POST /items/IMPORT": "operation-unknown", "POST /items/%49mport": "operation-unknown",
		"POST /items/import;a=b": "operation-unknown", "POST /items/import.": "operation-unknown", "POST /items/import%20": "operation-unknown",
		"GET /items/A/tags/All": "operation-unknown", "HEAD /items/A/tags/All": "operation-unknown",
		"POST /items/Imports": "ok", "POST /items/AB.": "ok", "GET /items/IMPORT": "ok", "GET /items/A/tags/B": "ok", "GET /items/A/tags/all": "ok",
	} {
		method, target, _ := strings.Cut(path, " ")
		text := "{}"
		if method != "POST" {
			text = ""
		}
		if got := decided(t, g, method, target, "application/json", text); got != want {
			t.Errorf("%s: %s, want %s", path, got, want)
		}
	}
}

// JSON has no other content type in which the schema is not asked.
func TestASchemaHoldsForEveryTypeOfJSON(t *testing.T) {
	g := apiOf(t, `{"/a": {"post": {"requestBody": {"content": {"*/*": {"schema": {"required": ["reason"]}}, "text/*": {}}}}}}`)
	for contentType, want := range map[string]string{
		"application/json": "body-invalid body #/reason: required", "application/x-www-form-urlencoded": "body-invalid body #/reason: required",
		"application/pdf": "ok", "text/x+json": "ok",
	} {
		if got := decided(t, g, "POST", "/a", contentType, "{}"); got != want {
			t.Errorf("%s: %s, want %s", contentType, got, want)
		}
	}
	schema, err := NewSchema(Files{"s": map[string]any{"required": []any{"reason"}}}, "s", SchemaOptions{})
	if err != nil {
		t.Fatal(err)
	}
	g = New(Policy{Schema: schema, Types: []string{"*/*", "application/ld+json"}})
	for _, contentType := range []string{"application/json", "application/vnd.a+json", "application/ld+json"} {
		if got := decided(t, g, "POST", "/a", contentType, "{}"); got != "body-invalid body #/reason: required" {
			t.Errorf("%s: %s", contentType, got)
		}
	}
}

// Upstreams read cookies that RFC 6265 does not allow, so these are judged too.
func TestCookiesThatAreNotAsTheyShouldBeAreJudged(t *testing.T) {
	g := apiOf(t, `{"/a": {"get": {"parameters": [{"name": "theme", "in": "cookie", "schema": {"type": "string", "maxLength": 4}}]}}}`)
	const long, quoted, twice = "parameter-invalid cookie theme: maxLength: 4", "parameter-invalid cookie theme: is quoted in a way that readers differ about", "parameter-invalid cookie theme: occurs twice"
	for cookie, want := range map[string]string{
		"theme=dark": "ok", `a=1; theme="dark"; b=2`: "ok", "theme=": "ok", "Theme=neither": "ok", "theme=a\"b": "ok",
		"theme=ne\"on": long, "theme=n\xc3\xa9\xc3\xa9on": long, `theme=ne\on`: long, "theme = purple": long, `theme="a b, c"`: long,
		`theme="a; b"`: quoted, `theme="\144"`: quoted, `theme="`: quoted, `theme="dark"; theme="`: twice,
	} {
		if got := decided(t, g, "GET", "/a", "", "", cookie); got != want {
			t.Errorf("%s: %s, want %s", cookie, got, want)
		}
	}
}

// Beside the room that its fields take, a form takes what is read ahead: however long it is, whether it is
// refused, and whether the upstream has begun to take it.
func TestWhatAFormHoldsIsBounded(t *testing.T) {
	g := New(Policy{StrictJSON: true, Types: []string{"multipart/form-data"}, Multipart: Multipart{PartBytes: 1 << 30, Parts: 1000, HeaderBytes: 16 << 10}})
	const long = 4 << 20
	begin := "--B\r\nContent-Disposition: form-data; name=a"
	for name, c := range map[string]struct {
		text   string
		passes bool
	}{
		"a large file":              {begin + "; filename=a\r\n\r\n" + strings.Repeat("x", long) + "\r\n--B--", true},
		"what looks like its end":   {begin + "; filename=a\r\n\r\n" + strings.Repeat("\r\n--", long/4) + "\r\n--B--", true},
		"a head without an end":     {begin + "\r\nX: " + strings.Repeat("x", long), false},
		"a field without an end":    {begin + "\r\n\r\n" + strings.Repeat("x", long), false},
		"fields without an end":     {strings.Repeat(begin+"\r\n\r\n\r\n", long/100), false},
		"a boundary without an end": {"--B" + strings.Repeat(" ", long), false},
	} {
		for _, mode := range []string{"enforce", "report"} {
			refused := false
			var report func(*BodyError)
			if mode == "report" {
				report = func(*BodyError) { refused = true }
			}
			s := g.Multipart(t.Context(), &Match{Content: g.content["multipart/form-data"], Boundary: "B"}, io.NopCloser(strings.NewReader(c.text)), report)
			s.Hold = func(int) bool { return true }
			err, most := s.Fill(), cap(s.buf)
			for p := make([]byte, 10_000); err == nil; most = max(most, cap(s.buf)+cap(s.value)) {
				_, err = s.Read(p)
			}
			if e, ok := errors.AsType[*BodyError](err); ok {
				refused = e.Decision.Denied()
			}
			if refused == c.passes || most > 4*ahead {
				t.Errorf("%s, %s: refused %v, and holds %d bytes", mode, name, refused, most)
			}
		}
	}
}

// Where a server makes one variable of X-Tenant and X_Tenant, there is no other one than was judged.
func TestAHeaderIsJudgedInEverySpelling(t *testing.T) {
	g := apiOf(t, `{"/a": {"get": {"parameters": [{"name": "X-Tenant", "in": "header", "schema": {"enum": ["acme"]}}]}}}`)
	for want, h := range map[string]http.Header{
		"":                              {"X-Tenant": {"acme"}, "X-Tenants": {"umbrella"}, "X_other": {"umbrella"}},
		"header X-Tenant: enum":         {"X_tenant": {"umbrella"}},
		"header X-Tenant: occurs twice": {"X-Tenant": {"acme"}, "X.tenant": {"umbrella"}},
	} {
		r := httptest.NewRequest("GET", "/a", http.NoBody)
		r.Header = h
		m, _ := g.Decide(t.Context(), r)
		told := ""
		for _, f := range m.Faults {
			told = f.Where() + ": " + f.Detail
		}
		if told != want {
			t.Errorf("%v: %q, want %q", h, told, want)
		}
	}
}

// A schema that branches in each level asks about the text at the bottom again and again. What that takes
// is charged by how long it is: names and strings that patterns are held against as much as values.
func TestLongTextsAreChargedForWhereSchemasBranch(t *testing.T) {
	long := strings.Repeat("a", 100_000)
	for name, c := range map[string][2]string{
		"a string":           {`{"properties": {"s": {"pattern": "^(a|b)*$"}}}`, `{"s":"` + long + `"}`},
		"a name":             {`{"propertyNames": {"pattern": "^(a|n)*$"}}`, `{"` + long + `":0}`},
		"a name of patterns": {`{"patternProperties": {"^(a|b)*c$": true}}`, `{"` + long + `":0}`},
		"an expression":      {`{"properties": {"s": {"format": "regex"}}}`, `{"s":"` + long[:100] + `"}`},
	} {
		var doc any
		if err := json.Unmarshal([]byte(`{"allOf": [{"properties": {"n": {"$ref": "#"}}}, {"properties": {"n": {"$ref": "#"}}}, `+c[0]+`]}`), &doc); err != nil {
			t.Fatal(err)
		}
		s, err := NewSchema(Files{"s": doc}, "s", SchemaOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for levels, want := range map[int]string{0: "", 2: "", 8: "takes too long to check"} {
			faults, err := s.Check(t.Context(), []byte(strings.Repeat(`{"n":`, levels)+c[1]+strings.Repeat("}", levels)))
			told := ""
			for _, f := range faults {
				told = f.Detail
			}
			if err != nil || told != want {
				t.Errorf("%s below %d levels: %q %v, want %q", name, levels, told, err, want)
			}
		}
	}
}
