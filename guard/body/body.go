// Package body holds parameters and bodies to what the route declares: strict JSON, a JSON
// Schema, or an OpenAPI document.
//
// It protects an upstream from what two parsers read differently (names that occur twice, text
// behind the end, invalid UTF-8), from values and parameters that nobody declared, and from bodies
// that cost more to read than to send. What passes is forwarded byte for byte; what it says about
// a refusal names places and rules, and never a value that came.
//
// It does not know what values mean: a valid order can be somebody else's. Bodies of declared
// types other than JSON and forms are not looked into. The size of any body is bounded before
// (see bounds). Documents are the operator's; bodies, parameters and answers are hostile.
package body

import (
	"context"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/moat-gateway/moat/guard"
)

// DefaultBytes is the largest body that is read whole where nothing else is said.
const DefaultBytes = 1 << 20

// Policy says what a route's requests are like. One of API, Schema and StrictJSON is set.
type Policy struct {
	// API has parameters, content types and bodies judged by an OpenAPI document.
	API *API
	// Schema has bodies be JSON that fits it.
	Schema *Schema
	// StrictJSON has bodies be JSON of any shape.
	StrictJSON bool
	// Types are accepted beside JSON where there is no API: forms are held to what Multipart says,
	// and others pass unread.
	Types []string
	// Bytes is the largest body that is read whole: JSON, and forms but multipart ones; 0 means DefaultBytes.
	Bytes int64
	// JSON bounds JSON, in bodies and in parameters.
	JSON JSON
	// Multipart bounds multipart/form-data.
	Multipart Multipart
	// Responses has answers judged by the API.
	Responses bool
}

// Guard is a compiled Policy: immutable, and safe for concurrent use.
type Guard struct {
	p        Policy
	content  contents // without an API
	required bool
}

// New compiles a Policy.
func New(p Policy) *Guard {
	if p.Bytes == 0 {
		p.Bytes = DefaultBytes
	}
	p.Multipart = p.Multipart.withDefaults()
	g := &Guard{p: p, content: make(contents), required: p.Schema != nil}
	if p.API != nil {
		return g
	}
	g.content["application/json"] = &Content{kind: jsonContent, schema: p.Schema}
	for _, t := range p.Types {
		if t = strings.ToLower(t); g.content[t] == nil {
			g.content[t] = &Content{kind: kindOf(t)}
		}
	}
	return g
}

type contentKind uint8

const (
	passed contentKind = iota
	jsonContent
	formContent
	multipartContent
)

func kindOf(mediaType string) contentKind {
	switch mediaType = strings.ToLower(mediaType); {
	case mediaType == "application/json", strings.HasSuffix(mediaType, "+json"):
		return jsonContent
	case mediaType == "application/x-www-form-urlencoded":
		return formContent
	case mediaType == "multipart/form-data":
		return multipartContent
	}
	return passed
}

// Content is what a body has to be.
type Content struct {
	kind      contentKind
	schema    *Schema
	types     *types
	unknown   bool // fields that are not declared are refused
	api       bool
	partTypes map[string][]string // of the fields of a multipart form
}

// Match is what the head of a request has told about the rest of the exchange.
type Match struct {
	// Operation is nil without an API.
	Operation *Operation
	// Content is what the body has to be; nil if there is none.
	Content *Content
	// Boundary is that of a multipart body.
	Boundary string
	// Faults are what a refusal tells the client.
	Faults []Fault
}

// Decide judges the head of a request: path, query, headers, cookies, and whether its body is of a
// declared type. It changes nothing.
func (g *Guard) Decide(ctx context.Context, r *http.Request) (m Match, d guard.Decision) {
	content, required := g.content, g.required && takesBody(r.Method)
	if g.p.API != nil {
		if m.Operation, m.Faults, d = g.p.API.decide(ctx, r); d.Denied() {
			return m, d
		}
		content, required = m.Operation.content, m.Operation.required
	}
	if r.ContentLength == 0 {
		if required {
			m.Faults = []Fault{{Pointer: "#", Detail: "required"}}
			d = guard.Denial(guard.BodyInvalid, "body", "none", "a body")
		}
		return m, d
	}
	if e := r.Header["Content-Encoding"]; len(e) > 1 || len(e) == 1 && !strings.EqualFold(e[0], "identity") {
		return m, guard.Denial(guard.BodyEncoded, "Content-Encoding", e[0], "none")
	}
	types := r.Header["Content-Type"]
	if len(types) != 1 {
		return m, guard.Denial(guard.BodyTypeNotAllowed, "Content-Type", strconv.Itoa(len(types))+" lines", content.want())
	}
	mediaType, params, err := mime.ParseMediaType(types[0])
	if err == nil {
		if g.p.API == nil && kindOf(mediaType) == jsonContent {
			mediaType = "application/json" // whatever Types say: one schema is for all JSON
		}
		m.Content = content.find(mediaType)
	}
	switch {
	case m.Content == nil:
		return m, guard.Denial(guard.BodyTypeNotAllowed, "Content-Type", types[0], content.want())
	case m.Content.kind == passed:
		return m, d
	case !plain(types[0], params):
		return m, guard.Denial(guard.BodyTypeNotAllowed, "Content-Type", types[0], `charset and boundary once, and no * or \ in parameters`)
	case params["charset"] != "" && !strings.EqualFold(params["charset"], "utf-8"):
		// A parser that believes it reads other characters than were judged.
		return m, guard.Denial(guard.BodyTypeNotAllowed, "Content-Type", types[0], "charset=utf-8, or none")
	case m.Content.kind == multipartContent:
		if m.Boundary = params["boundary"]; !validBoundary(m.Boundary) {
			return m, guard.Denial(guard.BodyTypeNotAllowed, "Content-Type", types[0], "a boundary of 1 to 70 characters (RFC 2046 section 5.1.1), none of them a comma")
		}
	case r.ContentLength > g.p.Bytes:
		return m, guard.Denial(guard.BodyTooLarge, "Content-Length", strconv.FormatInt(r.ContentLength, 10), "at most "+strconv.FormatInt(g.p.Bytes, 10)+" (body.bytes)")
	}
	return m, d
}

// plain reports whether every reader finds the parameters that mime has found. RFC 2231 has one in
// two spellings, of which mime takes the one that most readers do not know; not all know a quoted
// pair; and some, PHP's and Rack's among them, take the first or the last "boundary=" of the text,
// also if it is a part of another value.
func plain(contentType string, params map[string]string) bool {
	if strings.ContainsAny(contentType, `*\`) {
		return false
	}
	text := strings.ToLower(contentType)
	if _, ok := params["charset"]; strings.Count(text, "charset=") > 1 || !ok && strings.Contains(text, "charset=") {
		return false
	}
	if _, ok := params["boundary"]; !ok {
		return true
	}
	_, rest, found := strings.Cut(text, "boundary")
	return found && strings.HasPrefix(rest, "=") && !strings.Contains(rest, "boundary=")
}

func takesBody(method string) bool {
	return method != http.MethodGet && method != http.MethodHead && method != http.MethodDelete && method != http.MethodOptions
}

// want lists what is accepted.
func (c contents) want() string {
	if len(c) == 0 {
		return "no body"
	}
	names := make([]string, 0, len(c))
	for name := range c {
		names = append(names, name)
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}

// Whole reports whether the body has to be read whole before anybody else sees it, and how large
// it may be.
func (g *Guard) Whole(c *Content) (bytes int64, ok bool) {
	return g.p.Bytes, c != nil && (c.kind == jsonContent || c.kind == formContent)
}

// Streamed reports whether the body is judged while it passes: see Multipart.
func (*Guard) Streamed(c *Content) bool { return c != nil && c.kind == multipartContent }

// Body judges a whole body. Its error is that of ctx: then the body was not judged.
func (g *Guard) Body(ctx context.Context, m *Match, text []byte) ([]Fault, guard.Decision, error) {
	c := m.Content
	if len(text) == 0 && !g.required && (m.Operation == nil || !m.Operation.required) {
		return nil, guard.Decision{}, nil // of chunks, and there were none
	}
	var v any
	size := len(text)
	if c.kind == formContent {
		form, fault := c.form(string(text))
		if fault != nil {
			return refused(guard.BodyMalformed, []Fault{*fault})
		}
		v = form
	} else if fault := g.p.JSON.Check(text); fault != nil {
		return refused(guard.BodyMalformed, []Fault{*fault})
	}
	if c.schema == nil {
		return nil, guard.Decision{}, nil
	}
	faults, err := c.schema.evaluate(ctx, size, func() any {
		if c.kind == formContent {
			return v
		}
		return decode(text)
	})
	if err != nil || len(faults) == 0 {
		return nil, guard.Decision{}, err
	}
	return refused(guard.BodyInvalid, faults)
}

func refused(reason guard.Reason, faults []Fault) ([]Fault, guard.Decision, error) {
	return faults, faults[0].denial(reason), nil
}

// form makes of a urlencoded form what its schema looks at.
func (c *Content) form(text string) (map[string]any, *Fault) {
	pairs, wrong := pairsOf(text)
	if wrong != "" {
		return nil, &Fault{Pointer: "#", Detail: wrong}
	}
	out := make(map[string]any)
	for _, pr := range pairs {
		if fault := c.add(out, pr.name, pr.value); fault != nil {
			return nil, fault
		}
	}
	return out, nil
}

// add puts a field of a form into what its schema looks at. A field that is not declared as a list
// occurs once: which one counts depends on who reads.
func (c *Content) add(out map[string]any, name, value string) *Fault {
	t := c.types.of(name)
	if t != nil && t.array {
		values, _ := out[name].([]any)
		out[name] = append(values, t.items.read(value))
		return nil
	}
	if _, twice := out[name]; twice && c.schema != nil {
		return &Fault{Pointer: pointerTo([]string{name}), Detail: "the field occurs twice"}
	}
	if t != nil && t.object && (JSON{}).Check([]byte(value)) == nil {
		out[name] = decode([]byte(value))
		return nil
	}
	out[name] = t.read(value)
	return nil
}

// Handler refuses what Decide and Body refuse, and passes the rest to next with the same body.
func (g *Guard) Handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		m, d := g.Decide(r.Context(), r)
		r2 := *r
		if !d.Denied() {
			d = g.read(&r2, &m)
		}
		if d.Denied() {
			var members []string
			if len(m.Faults) > 0 {
				members = []string{Member(m.Faults)}
			}
			guard.Refuse(w, d.Reason, "", members...)
			return
		}
		next.ServeHTTP(w, &r2)
	})
}
