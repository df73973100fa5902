package body

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/moat-gateway/moat/guard"
)

func validText(s string) bool { return utf8.ValidString(s) }

// APIOptions change what an OpenAPI document means here.
type APIOptions struct {
	// Prefix is what the paths of requests begin with before those of the document. Without one
	// the paths of its servers count.
	Prefix string
	// RefuseUnknown refuses parameters of the query that an operation does not declare, and
	// properties about which its schemas say nothing.
	RefuseUnknown bool
	// Responses has answers judged too.
	Responses bool
}

// API is a compiled OpenAPI document: immutable, and safe for concurrent use.
type API struct {
	// Warnings are what may not be meant.
	Warnings []*DocumentError

	prefixes []string
	// paths are by their number of segments; the most specific first.
	paths map[int][]*pathItem
}

// pathItem is a path of the document.
type pathItem struct {
	path       string
	segments   []segment
	folded     []segment // of the path in lower case
	operations map[string]*Operation
}

// segment is a part of a path between slashes: text, and names between it.
type segment struct {
	text  []string // around the names, so there is one more
	names []string
}

// Operation is a compiled operation of a document.
type Operation struct {
	// Method and Path are as the document has them.
	Method, Path string

	params                    []parameter
	needsQuery, refuseUnknown bool
	content                   contents
	required                  bool // a body
	responses                 map[string]contents
}

// contents are by media types and ranges of them, in lower case.
type contents map[string]*Content

// compileAPI is an OpenAPI document on its way to an API.
type compileAPI struct {
	api       *API
	o         APIOptions
	root      string
	source    Files // as they stand
	requests  *prepared
	responses *prepared
	faults    []*DocumentError
}

// prepared is a copy of the files whose schemas are rewritten for one direction.
type prepared struct {
	p       *preparer
	e       *engine
	schemas map[place]*Schema
}

// NewAPI compiles the OpenAPI document of that name, 3.0 or 3.1, or says all that is wrong with it.
func NewAPI(files Files, name string, o APIOptions) (*API, []*DocumentError) {
	c := &compileAPI{api: &API{paths: make(map[int][]*pathItem)}, o: o, root: name, source: files}
	doc, _ := files[name].(map[string]any)
	version, _ := doc["openapi"].(string)
	v30 := strings.HasPrefix(version, "3.0.")
	switch {
	case v30, strings.HasPrefix(version, "3.1."):
	case doc["swagger"] != nil:
		return nil, []*DocumentError{{name, "/swagger", "is of before OpenAPI 3; moat reads 3.0 and 3.1: convert the document first"}}
	default:
		return nil, []*DocumentError{{name, "/openapi", fmt.Sprintf("is %q; moat reads OpenAPI 3.0 and 3.1, which say 3.0.x or 3.1.x here", version)}}
	}
	if dialect, ok := doc["jsonSchemaDialect"].(string); ok && dialect != "https://spec.openapis.org/oas/3.1/dialect/base" && dialect != "https://json-schema.org/draft/2020-12/schema" {
		return nil, []*DocumentError{{name, "/jsonSchemaDialect", "is neither that of OpenAPI 3.1 nor draft 2020-12; moat knows these"}}
	}
	c.requests = c.prepare(v30, inRequest)
	if o.Responses {
		c.responses = c.prepare(v30, inResponse)
	}
	c.prefixes(doc)
	root := place{name, "/paths"}
	paths, _ := doc["paths"].(map[string]any)
	type found struct {
		op   map[string]any
		at   place
		item place
		to   *pathItem
	}
	var ops []found
	for _, path := range slices.Sorted(maps.Keys(paths)) {
		if !strings.HasPrefix(path, "/") {
			continue // an extension
		}
		at := c.deref(root.to(path))
		item, _ := c.source.get(at).(map[string]any)
		if item == nil {
			continue
		}
		to := &pathItem{path: path, segments: segmentsOf(path), folded: segmentsOf(strings.ToLower(path)), operations: make(map[string]*Operation)}
		c.api.paths[len(to.segments)] = append(c.api.paths[len(to.segments)], to)
		for _, method := range []string{"get", "put", "post", "delete", "options", "head", "patch"} {
			if op, ok := item[method].(map[string]any); ok {
				ops = append(ops, found{op, at.to(method), at, to})
			}
		}
	}
	// Schemas are prepared before the first is compiled: they lead to one another.
	for pass := range 2 {
		for _, f := range ops {
			op := c.operation(f.to.path, strings.ToUpper(f.at.ptr[strings.LastIndexByte(f.at.ptr, '/')+1:]), f.op, f.at, f.item)
			f.to.operations[op.Method] = op
		}
		if pass > 0 {
			break
		}
		for _, pr := range []*prepared{c.requests, c.responses} {
			if pr == nil {
				continue
			}
			var err error
			if pr.e, err = newEngine(pr.p); err != nil {
				c.fail(place{name, ""}, err)
				return nil, c.faults
			}
		}
	}
	for _, items := range c.api.paths {
		slices.SortStableFunc(items, func(a, b *pathItem) int { return specific(a.segments, b.segments) })
	}
	if len(c.faults) > 0 {
		return nil, uniqueFaults(c.faults)
	}
	c.api.Warnings = uniqueFaults(c.api.Warnings)
	return c.api, nil
}

func uniqueFaults(f []*DocumentError) []*DocumentError {
	slices.SortStableFunc(f, func(a, b *DocumentError) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Pointer, b.Pointer), cmp.Compare(a.Reason, b.Reason))
	})
	return slices.CompactFunc(f, func(a, b *DocumentError) bool { return *a == *b })
}

func (c *compileAPI) prepare(v30 bool, way direction) *prepared {
	p := &preparer{files: c.source.clone(), v30: v30, root: c.root, way: way, refuse: c.o.RefuseUnknown && way == inRequest, seen: make(map[place]bool), from: make(map[place]place)}
	p.warning = func(at place, text string) {
		c.api.Warnings = append(c.api.Warnings, &DocumentError{at.file, at.ptr, text})
	}
	return &prepared{p: p, schemas: make(map[place]*Schema)}
}

func (c *compileAPI) fail(at place, err error) {
	if d, ok := errors.AsType[*DocumentError](err); ok {
		c.faults = append(c.faults, d)
		return
	}
	c.faults = append(c.faults, &DocumentError{at.file, at.ptr, err.Error()})
}

func (c *compileAPI) wrong(at place, reason string) {
	c.faults = append(c.faults, &DocumentError{at.file, at.ptr, reason})
}

// deref follows $ref from a place that is no schema.
func (c *compileAPI) deref(at place) place {
	for range maxRefs {
		node, _ := c.source.get(at).(map[string]any)
		ref, ok := node["$ref"].(string)
		if !ok {
			return at
		}
		to := at.follow(ref)
		if c.source.get(to) == nil {
			c.wrong(at, "$ref \""+ref+"\" leads nowhere in the document or a file beside it, and nothing is fetched")
			return at
		}
		at = to
	}
	c.wrong(at, "$ref leads in a circle")
	return at
}

// schema is the one at a place, prepared in the first pass and compiled in the second. A place
// without one has nil.
func (c *compileAPI) schema(pr *prepared, at place) *Schema {
	if c.source.get(at) == nil {
		return nil
	}
	if pr.e == nil {
		pr.p.schema(at, true, false)
		return nil
	}
	s, ok := pr.schemas[at]
	if !ok {
		var err error
		if s, err = pr.e.compile(at); err != nil {
			c.fail(at, err)
		}
		pr.schemas[at] = s
	}
	return s
}

func (c *compileAPI) prefixes(doc map[string]any) {
	if c.o.Prefix != "" {
		c.api.prefixes = []string{strings.TrimSuffix(c.o.Prefix, "/")}
		return
	}
	for i, s := range list(doc["servers"]) {
		server, _ := s.(map[string]any)
		text, _ := server["url"].(string)
		vars, _ := server["variables"].(map[string]any)
		for name, v := range vars {
			m, _ := v.(map[string]any)
			value, _ := m["default"].(string)
			text = strings.ReplaceAll(text, "{"+name+"}", value)
		}
		u, err := url.Parse(text)
		if err != nil {
			c.wrong(place{c.root, "/servers"}.to(itoa(i), "url"), "not a URL")
			continue
		}
		c.api.prefixes = append(c.api.prefixes, strings.TrimSuffix(u.Path, "/"))
	}
	if len(c.api.prefixes) == 0 {
		c.api.prefixes = []string{""}
	}
	slices.SortFunc(c.api.prefixes, func(a, b string) int { return cmp.Or(len(b)-len(a), cmp.Compare(a, b)) })
	c.api.prefixes = slices.Compact(c.api.prefixes)
}

func (c *compileAPI) operation(path, method string, node map[string]any, at, item place) *Operation {
	op := &Operation{Method: method, Path: path, refuseUnknown: c.o.RefuseUnknown}
	declared := make(map[string]place)
	var order []string
	for _, from := range []place{item.to("parameters"), at.to("parameters")} {
		for i := range list(c.source.get(from)) {
			p := c.deref(from.to(itoa(i)))
			m, _ := c.source.get(p).(map[string]any)
			name, _ := m["name"].(string)
			in, _ := m["in"].(string)
			if name == "" {
				continue // kin-openapi has said so
			}
			key := in + " " + name
			if _, twice := declared[key]; !twice {
				order = append(order, key)
			}
			declared[key] = p
		}
	}
	for _, key := range order {
		if p, ok := c.parameter(declared[key]); ok {
			op.params = append(op.params, p)
			op.needsQuery = op.needsQuery || p.in == "query" && p.required
		}
	}
	if node["requestBody"] != nil {
		b := c.deref(at.to("requestBody"))
		m, _ := c.source.get(b).(map[string]any)
		op.required, _ = m["required"].(bool)
		op.content = c.contents(c.requests, b.to("content"))
	}
	if c.responses == nil {
		return op
	}
	op.responses = make(map[string]contents)
	responses, _ := node["responses"].(map[string]any)
	for _, code := range slices.Sorted(maps.Keys(responses)) {
		if strings.HasPrefix(code, "x-") {
			continue
		}
		op.responses[strings.ToUpper(code)] = c.contents(c.responses, c.deref(at.to("responses", code)).to("content"))
	}
	return op
}

func (c *compileAPI) parameter(at place) (parameter, bool) {
	m, _ := c.source.get(at).(map[string]any)
	p := parameter{types: new(types)}
	p.name, _ = m["name"].(string)
	p.in, _ = m["in"].(string)
	p.required, _ = m["required"].(bool)
	p.allowEmpty, _ = m["allowEmptyValue"].(bool)
	p.style, _ = m["style"].(string)
	if p.in == "header" && slices.Contains([]string{"accept", "content-type", "authorization"}, strings.ToLower(p.name)) {
		return p, false // OpenAPI has these ignored
	}
	defaults := map[string]string{"query": "form", "cookie": "form", "path": "simple", "header": "simple"}
	p.style = cmp.Or(p.style, defaults[p.in])
	p.explode = p.style == "form"
	if v, ok := m["explode"].(bool); ok {
		p.explode = v
	}
	if defaults[p.in] == "" {
		c.wrong(at.to("in"), "is none of query, path, header and cookie")
		return p, false
	}
	known := map[string][]string{"query": {"form", "spaceDelimited", "pipeDelimited", "deepObject"}, "path": {"simple"}, "header": {"simple"}, "cookie": {"form"}}
	if !slices.Contains(known[p.in], p.style) {
		c.wrong(at.to("style"), "moat does not read parameters of the "+p.in+" in the style "+p.style+"; use "+defaults[p.in])
		return p, false
	}
	schema := at.to("schema")
	if content, ok := m["content"].(map[string]any); ok {
		for mediaType := range content {
			if kindOf(mediaType) != jsonContent {
				c.wrong(at.to("content", mediaType), "moat reads parameters of content application/json alone; write schema in the place of content")
				return p, false
			}
			p.json, schema = true, at.to("content", mediaType, "schema")
		}
	}
	p.schema = c.schema(c.requests, schema)
	if c.source.get(schema) != nil {
		p.types = typesOf(c.requests.p.files, schema)
	}
	if p.in == "cookie" && p.explode && (p.types.array || p.types.object) && !p.json {
		c.wrong(at, "a list or object in a cookie needs explode: false")
		return p, false
	}
	return p, true
}

// contents are the media types at a place, and their schemas.
func (c *compileAPI) contents(pr *prepared, at place) contents {
	m, _ := c.source.get(at).(map[string]any)
	out := make(contents, len(m))
	for _, name := range slices.Sorted(maps.Keys(m)) {
		mediaType, _, err := mime.ParseMediaType(name)
		if err != nil {
			c.wrong(at.to(name), "not a media type")
			continue
		}
		one := at.to(name)
		content := &Content{kind: kindOf(mediaType), api: true}
		if schema := one.to("schema"); (content.kind != passed || strings.HasSuffix(mediaType, "/*")) && c.source.get(schema) != nil {
			content.schema = c.schema(pr, schema)
			content.types = typesOf(pr.p.files, schema)
			content.unknown = c.o.RefuseUnknown
		}
		encoding, _ := c.source.get(one.to("encoding")).(map[string]any)
		for field := range encoding {
			e, _ := encoding[field].(map[string]any)
			text, ok := e["contentType"].(string)
			if !ok {
				continue
			}
			if content.partTypes == nil {
				content.partTypes = make(map[string][]string)
			}
			for t := range strings.SplitSeq(text, ",") {
				content.partTypes[field] = append(content.partTypes[field], strings.ToLower(strings.TrimSpace(t)))
			}
		}
		out[mediaType] = content
	}
	return out
}

// find is the content of a media type: by its name, or by the narrowest range that holds it.
func (c contents) find(mediaType string) *Content {
	if found := c[mediaType]; found != nil {
		return found
	}
	group, _, _ := strings.Cut(mediaType, "/")
	for _, r := range []string{group + "/*", "*/*"} {
		if found := c[r]; found != nil {
			one := *found
			one.kind = kindOf(mediaType) // a range's schema is for the JSON and the forms in it
			return &one
		}
	}
	return nil
}

// segmentsOf takes a path of a document apart.
func segmentsOf(path string) []segment {
	var out []segment
	for part := range strings.SplitSeq(strings.TrimPrefix(path, "/"), "/") {
		var s segment
		for {
			text, rest, open := strings.Cut(part, "{")
			s.text = append(s.text, text)
			name, after, closed := strings.Cut(rest, "}")
			if !open || !closed {
				break
			}
			s.names = append(s.names, name)
			part = after
		}
		out = append(out, s)
	}
	return out
}

// specific orders paths: text before names, as OpenAPI has it.
func specific(a, b []segment) int {
	for i := range a {
		if n := cmp.Compare(len(a[i].names), len(b[i].names)); n != 0 {
			return n
		}
		if n := cmp.Compare(len(strings.Join(b[i].text, "")), len(strings.Join(a[i].text, ""))); n != 0 {
			return n
		}
	}
	return 0
}

// match adds what the names stand for, or reports that the segment is another one.
func (s *segment) match(text string, out []pair) ([]pair, bool) {
	if len(s.names) == 0 {
		return out, text == s.text[0]
	}
	rest, ok := strings.CutPrefix(text, s.text[0])
	if !ok {
		return out, false
	}
	for i, name := range s.names {
		end := len(rest)
		switch after := s.text[i+1]; {
		case i == len(s.names)-1:
			if end -= len(after); end < 0 || rest[end:] != after {
				return out, false
			}
		case after != "":
			if end = strings.Index(rest, after); end < 0 {
				return out, false
			}
		}
		if end == 0 {
			return out, false
		}
		out = append(out, pair{name, rest[:end]})
		rest = rest[end:][min(len(s.text[i+1]), len(rest)-end):]
	}
	return out, true
}

// find is the most specific of the paths that is that of the parts, and what its names stand for.
func find(items []*pathItem, parts []string, segments func(*pathItem) []segment) (*pathItem, []pair) {
items:
	for _, item := range items {
		var names []pair
		for i, s := range segments(item) {
			var same bool
			if names, same = s.match(parts[i], names); !same {
				continue items
			}
		}
		return item, names
	}
	return nil, nil
}

func (i *pathItem) operation(method string) *Operation {
	op := i.operations[method]
	if op == nil && method == http.MethodHead {
		op = i.operations[http.MethodGet]
	}
	return op
}

// foldSegments makes of a path what an upstream could read that knows no case, parameters behind a
// semicolon, nor dots and blanks at the end, and reports whether that is another one. Gateway does
// the same for routes.
func foldSegments(parts []string) (changed bool) {
	for i, part := range parts {
		folded, _, _ := strings.Cut(strings.ToLower(part), ";")
		folded = strings.TrimRight(folded, ". ")
		changed = changed || folded != part
		parts[i] = folded
	}
	return changed
}

// operation is the one of a request, and the parameters in its path; or nil.
func (a *API) operation(method string, u *url.URL) (*Operation, []pair) {
	escaped := u.EscapedPath()
	for _, prefix := range a.prefixes {
		path, ok := strings.CutPrefix(escaped, prefix)
		if !ok || !strings.HasPrefix(path, "/") {
			continue
		}
		parts := strings.Split(path[1:], "/")
		for i := range parts {
			parts[i] = unescape(parts[i])
		}
		item, names := find(a.paths[len(parts)], parts, func(item *pathItem) []segment { return item.segments })
		if item == nil {
			continue
		}
		op := item.operation(method)
		if op == nil {
			continue // the path is that one, and has no such operation
		}
		if foldSegments(parts) {
			other, _ := find(a.paths[len(parts)], parts, func(item *pathItem) []segment { return item.folded })
			if other != nil && other != item && other.operation(method) != nil {
				return nil, nil // an upstream that is less exact would take it for that one
			}
		}
		return op, names
	}
	return nil, nil
}

// Operations are those of the document, each with a path that a request for it could have.
func (a *API) Operations() []Sample {
	var out []Sample
	for _, items := range a.paths {
		for _, item := range items {
			path := item.path
			for _, s := range item.segments {
				for _, name := range s.names {
					path = strings.ReplaceAll(path, "{"+name+"}", "x")
				}
			}
			for method := range item.operations {
				for _, prefix := range a.prefixes {
					out = append(out, Sample{Method: method, Path: item.path, Request: prefix + path})
				}
			}
		}
	}
	slices.SortFunc(out, func(a, b Sample) int {
		return cmp.Or(cmp.Compare(a.Path, b.Path), cmp.Compare(a.Method, b.Method), cmp.Compare(a.Request, b.Request))
	})
	return out
}

// Sample is an operation of a document, and the path of a request that could be for it.
type Sample struct{ Method, Path, Request string }

// decide judges the head of a request by its operation.
func (a *API) decide(ctx context.Context, r *http.Request) (*Operation, []Fault, guard.Decision) {
	op, path := a.operation(r.Method, r.URL)
	if op == nil {
		return nil, nil, guard.Denial(guard.OperationUnknown, "operation", r.Method+" "+r.URL.Path, "an operation of the OpenAPI document, in its own spelling")
	}
	var faults []Fault
	op.head(ctx, r, path, &faults)
	op.query(ctx, r, &faults)
	if len(faults) > 0 {
		faults = faults[:min(len(faults), maxFaults)]
		return op, faults, faults[0].denial(guard.ParameterInvalid)
	}
	return op, nil, guard.Decision{}
}
