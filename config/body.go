package config

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"path"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"github.com/getkin/kin-openapi/openapi3"
	yaml "go.yaml.in/yaml/v4"

	"github.com/moat-gateway/moat/guard/body"
)

// bodyPolicy says what the parameters and bodies of requests are like: by one of openapi, schema
// and json.
type bodyPolicy struct {
	// A file with the OpenAPI document (3.0 or 3.1) of the API: path, query, headers, cookies, content types and
	// bodies have to be what it declares. A path counts from the configuration file; $ref leads to the document's own folder at most.
	OpenAPI string `yaml:"openapi"`
	// A file with the JSON Schema that bodies have to fit, draft 2020-12 unless its $schema says another one.
	Schema string `yaml:"schema"`
	// Strict: bodies have to be JSON, of any shape.
	JSON string `yaml:"json" enum:"strict"`
	// What the paths of requests begin with before those of the OpenAPI document. Without it the paths of its servers count.
	Prefix string `yaml:"prefix"`
	// What is not declared: parameters of the query, properties, fields of forms. Pass: what the document does not forbid passes. Refuse: a
	// schema that declares properties is read as if it said that there are no others.
	Unknown string `yaml:"unknown" default:"pass" enum:"pass refuse"`
	// Judges the upstream's answers by the OpenAPI document. They are never changed or held up; what is wrong is recorded.
	Responses string `yaml:"responses" default:"off" enum:"off report"`
	// The content types that are accepted beside JSON, where there is no OpenAPI document. Forms are held to their
	// bounds; others pass unread.
	Types []string `yaml:"types,single"`
	// The largest body that is read whole to be judged: JSON, and forms but multipart ones. All together take 128 MiB at most.
	Bytes size `yaml:"bytes" default:"1MiB" range:"1B 16MiB"`
	// How deep arrays and objects may stand in one another.
	Depth int `yaml:"depth" default:"32" range:"1 128"`
	// Exact refuses numbers that are another one as an IEEE 754 double, which is how most languages read them.
	Numbers string `yaml:"numbers" default:"any" enum:"any exact"`
	// Bounds of multipart/form-data, which is judged while it passes.
	Multipart multipartPolicy `yaml:"multipart"`
}

// multipartPolicy bounds multipart/form-data.
type multipartPolicy struct {
	// How many parts there may be.
	Parts int `yaml:"parts" default:"32" range:"1 1000"`
	// The largest part. One that is no file has 64 KiB at most.
	PartBytes size `yaml:"part_bytes" default:"10MiB" range:"1B 16GiB"`
	// The largest head of a part.
	HeaderBytes size `yaml:"header_bytes" default:"1KiB" range:"64B 16KiB"`
	// Plain: no paths, no control characters, and none of `: * ? " < > |`.
	FileNames string `yaml:"file_names" default:"plain" enum:"plain any"`
	// The content types of files that are accepted, such as image/png or `image/*`. Without any each is.
	Types []string `yaml:"types,single"`
	// The same for the fields that are named here.
	Fields map[string][]string `yaml:"fields" keys:"^.{1,64}$"`
}

// document is an OpenAPI document or JSON Schema that was read, with the files beside it.
type document struct {
	root  string // the file's name in its folder
	shown string // the file, as it may be told
	files body.Files
	text  map[string][]byte
	at    map[string]map[string]position // by file and JSON Pointer
}

// compiledDocument is what a document means under some options.
type compiledDocument struct {
	doc    *document
	api    *body.API
	schema *body.Schema
	routes []int // that use it
}

// documentKey tells documents apart that compile to different things.
type documentKey struct {
	name, prefix      string
	openapi           bool
	unknown, response string
}

// bodies judges what the route of that index says about bodies.
func (c *compiler) bodies(i int, p *bodyPolicy, where func(field string) string) *body.Policy {
	at := where("body")
	field := func(name string) string { return where(join("body", name)) }
	kinds := 0
	for _, set := range []bool{p.OpenAPI != "", p.Schema != "", p.JSON != ""} {
		if set {
			kinds++
		}
	}
	switch {
	case kinds == 0:
		if (c.has(at) || !reflect.DeepEqual(*p, defaultOf[bodyPolicy]())) && c.once(at+" empty", false) && c.clean(at) {
			c.fault(at, "", "says how, and not what; write openapi or schema with a file, or json: strict")
		}
		return nil
	case kinds > 1:
		if c.once(at+" many", false) {
			c.fault(at, "", "has more than one of openapi, schema and json; write the one that says most")
		}
		return nil
	}
	if at := field("unknown"); p.JSON != "" && p.Unknown == "refuse" && c.once(at+" json", false) {
		c.fault(at, p.Unknown, "needs openapi or schema: json: strict takes any properties, as nothing declares one")
	}
	if p.OpenAPI == "" {
		for _, name := range []string{"prefix", "responses"} {
			if c.has(field(name)) && c.once(field(name)+" alone", false) {
				c.fault(field(name), "", "needs openapi; without a document there is nothing to hold it to")
			}
		}
	} else if len(p.Types) > 0 && c.once(field("types"), false) {
		c.fault(field("types"), "", "the OpenAPI document says which content types there are; declare them there")
	}
	if p.Prefix != "" && (!strings.HasPrefix(p.Prefix, "/") || strings.HasSuffix(p.Prefix, "/") || cleaned(p.Prefix) != p.Prefix) && c.once(field("prefix"), false) {
		c.fault(field("prefix"), p.Prefix, "not the beginning of a path; write it like /v1")
	}
	for j, t := range p.Types {
		c.mediaType(item(field("types"), j), t)
	}
	out := &body.Policy{
		StrictJSON: p.JSON != "", Types: p.Types, Bytes: int64(p.Bytes), JSON: body.JSON{Depth: p.Depth, Exact: p.Numbers == "exact"}, Responses: p.Responses == "report",
		Multipart: body.Multipart{Parts: p.Multipart.Parts, PartBytes: int64(p.Multipart.PartBytes), HeaderBytes: int(p.Multipart.HeaderBytes), AnyFileName: p.Multipart.FileNames == "any"},
	}
	for j, t := range p.Multipart.Types {
		c.mediaType(item(field("multipart.types"), j), t)
	}
	out.Multipart.Types = map[string][]string{}
	if len(p.Multipart.Types) > 0 {
		out.Multipart.Types[""] = p.Multipart.Types
	}
	for _, name := range keys(p.Multipart.Fields) {
		for j, t := range p.Multipart.Fields[name] {
			c.mediaType(item(join(field("multipart.fields"), name), j), t)
		}
		out.Multipart.Types[name] = p.Multipart.Fields[name]
	}
	if p.JSON != "" {
		return out
	}
	name, path := p.OpenAPI, field("openapi")
	if name == "" {
		name, path = p.Schema, field("schema")
	}
	d := c.document(documentKey{name, p.Prefix, p.OpenAPI != "", p.Unknown, p.Responses}, path)
	d.routes = append(d.routes, i)
	out.API, out.Schema = d.api, d.schema
	return out
}

// mediaType judges a content type in a list.
func (c *compiler) mediaType(at, text string) {
	group, name, ok := strings.Cut(text, "/")
	if text == "" || ok && group != "" && name != "" && text == strings.ToLower(text) && !strings.ContainsAny(text, " ;,\"") && (group != "*" || name == "*") || !c.once(at, false) {
		return
	}
	c.fault(at, text, "not a content type in lower case, such as image/png or image/*")
}

// document reads and compiles a document, once for all routes that mean the same by it.
func (c *compiler) document(k documentKey, at string) *compiledDocument {
	if d := c.documents[k]; d != nil {
		return d
	}
	d := &compiledDocument{}
	c.documents[k] = d
	for other, before := range c.documents {
		if other.name == k.name && before.doc != nil {
			d.doc = before.doc
		}
	}
	check := func(*document, []*body.DocumentError) {}
	if d.doc == nil {
		if d.doc = c.readDocument(k.name, at); d.doc == nil {
			return d
		}
		if k.openapi {
			check = c.checkOpenAPI
		}
	}
	root := d.doc.root
	var faults []*body.DocumentError
	if k.openapi {
		d.api, faults = body.NewAPI(d.doc.files, root, body.APIOptions{Prefix: k.prefix, RefuseUnknown: k.unknown == "refuse", Responses: k.response == "report"})
		if d.api != nil {
			for _, w := range d.api.Warnings {
				c.warnings = append(c.warnings, d.doc.fault(w))
			}
		}
	} else {
		var err error
		var fault *body.DocumentError
		if d.schema, err = body.NewSchema(d.doc.files, root, body.SchemaOptions{RefuseUnknown: k.unknown == "refuse"}); errors.As(err, &fault) {
			faults = append(faults, fault)
		}
	}
	for _, f := range faults {
		c.faults = append(c.faults, d.doc.fault(f))
	}
	if d.api == nil && k.openapi && slices.ContainsFunc(faults, func(f *body.DocumentError) bool { return f.Pointer == "/openapi" || f.Pointer == "/swagger" }) {
		return d // of another version everything would be wrong
	}
	check(d.doc, faults)
	return d
}

// fault puts what is wrong with a document in its place.
func (d *document) fault(e *body.DocumentError) Fault {
	at := d.locate(e.File, e.Pointer)
	reason := e.Reason
	if len(reason) > 4*maxValue {
		reason = strings.ToValidUTF8(reason[:4*maxValue], "") + "…"
	}
	what := e.Pointer
	if what != "" {
		what = "#" + what
	}
	return Fault{File: d.path(e.File), Line: at.line, Col: at.col, What: what, Reason: reason}
}

// path is a file of the document, as it may be told.
func (d *document) path(file string) string {
	if file == d.root {
		return d.shown
	}
	return path.Join(path.Dir(d.shown), file)
}

// locate finds where a pointer stands, or else what is around it.
func (d *document) locate(file, pointer string) position {
	for {
		if at, ok := d.at[file][pointer]; ok {
			return at
		}
		i := strings.LastIndexByte(pointer, '/')
		if i < 0 {
			return position{line: 1, col: 1}
		}
		pointer = pointer[:i]
	}
}

const (
	// maxBeside is how many files a document may be made of.
	maxBeside = 200
	// maxNodes bounds what a document's files hold, aliases followed.
	maxNodes = 500_000
)

// readDocument reads the document at a path and the files that its $ref lead to.
func (c *compiler) readDocument(name, at string) *document {
	doc := &document{root: path.Base(filepath.ToSlash(name)), shown: filepath.ToSlash(c.path(name)), files: make(body.Files), text: make(map[string][]byte), at: make(map[string]map[string]position)}
	dir := path.Dir(filepath.ToSlash(name))
	if raw := c.locate(at).raw; raw != "" {
		doc.shown = raw // what a reference stands for is not told
	}
	before := len(c.faults)
	nodes := 0
	type wanted struct {
		file string
		from Fault
	}
	queue := []wanted{{doc.root, c.describe(at, name, "")}}
	for len(queue) > 0 {
		next := queue[0]
		queue = queue[1:]
		if _, ok := doc.files[next.file]; ok {
			continue
		}
		fail := func(reason string) {
			next.from.Reason = reason
			c.faults = append(c.faults, next.from)
		}
		if len(doc.files) == maxBeside {
			fail(fmt.Sprintf("the document is made of more than %d files", maxBeside))
			break
		}
		text, err := c.read(path.Join(dir, next.file))
		if err != nil && strings.Contains(name, "://") {
			fail("nothing is fetched: put the document beside this file, and write its name")
			return nil
		}
		if err != nil {
			fail("the file " + cannotRead(err))
			doc.files[next.file] = nil
			continue
		}
		doc.text[next.file] = text
		t := tree{doc: doc, file: next.file, at: make(map[string]position), nodes: &nodes}
		doc.at[next.file] = t.at
		doc.files[next.file] = t.parse(text)
		for _, f := range t.faults {
			c.faults = append(c.faults, doc.fault(f))
		}
		for _, r := range t.refs {
			file, reason := beside(next.file, r.ref)
			from := doc.fault(&body.DocumentError{File: next.file, Pointer: r.pointer, Reason: reason})
			from.Value = r.ref
			if reason != "" {
				c.faults = append(c.faults, from)
			} else if file != "" {
				queue = append(queue, wanted{file, from})
			}
		}
	}
	if len(c.faults) > before {
		return nil
	}
	return doc
}

// beside is the file that a $ref leads to, or "" for the same one.
func beside(from, ref string) (file, reason string) {
	name, _, _ := strings.Cut(ref, "#")
	u, err := url.Parse(name)
	switch {
	case name == "":
		return "", ""
	case err != nil:
		return "", "not a reference"
	case u.Scheme != "" || u.Host != "" || strings.HasPrefix(name, "/") || strings.Contains(name, `\`):
		return "", "$ref leads out of the document's folder, and nothing is fetched; put the file beside the document, and write its name"
	}
	file = path.Join(path.Dir(from), u.Path)
	if file == ".." || strings.HasPrefix(file, "../") {
		return "", "$ref leads out of the document's folder; put the file into it, or below"
	}
	return file, ""
}

// tree makes of a YAML or JSON text what JSON has, and remembers where it stands.
type tree struct {
	doc    *document
	file   string
	at     map[string]position
	nodes  *int
	refs   []reference
	faults []*body.DocumentError
}

type reference struct{ pointer, ref string }

func (t *tree) parse(text []byte) any {
	d := &decoder{report: report{file: t.doc.path(t.file), at: make(map[string]position)}}
	n := d.parse(text)
	if n == nil {
		for _, f := range d.faults {
			if err := json.Unmarshal(text, new(any)); err != nil && path.Ext(t.file) == ".json" {
				f.Reason = err.Error() // YAML's would say nothing to who writes JSON
			}
			t.at[""] = position{line: f.Line, col: f.Col}
			t.faults = append(t.faults, &body.DocumentError{File: t.file, Reason: f.Reason})
		}
		return nil
	}
	return t.value(n, "", 0)
}

func (t *tree) fault(pointer, reason string) {
	t.faults = append(t.faults, &body.DocumentError{File: t.file, Pointer: pointer, Reason: reason})
}

var escapePointer = strings.NewReplacer("~", "~0", "/", "~1")

func (t *tree) value(n *yaml.Node, pointer string, depth int) any {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	t.at[pointer] = position{line: n.Line, col: n.Column}
	*t.nodes++
	switch {
	case *t.nodes > maxNodes || depth > 100:
		if *t.nodes <= maxNodes+1 {
			*t.nodes = maxNodes + 1
			t.fault(pointer, fmt.Sprintf("the document is deeper than 100 levels, or has more than %d values with what aliases stand for", maxNodes))
		}
		return nil
	case n.Kind == yaml.SequenceNode:
		out := make([]any, len(n.Content))
		for i, item := range n.Content {
			out[i] = t.value(item, fmt.Sprintf("%s/%d", pointer, i), depth+1)
		}
		return out
	case n.Kind == yaml.MappingNode:
		out := make(map[string]any, len(n.Content)/2)
		for i := 0; i+1 < len(n.Content); i += 2 {
			key := n.Content[i]
			at := pointer + "/" + escapePointer.Replace(key.Value)
			if key.Kind != yaml.ScalarNode || key.ShortTag() == "!!merge" {
				t.fault(at, "a key that is no text; write it out")
				continue
			}
			if _, twice := out[key.Value]; twice {
				t.fault(at, fmt.Sprintf("%q is written twice", key.Value))
			}
			out[key.Value] = t.value(n.Content[i+1], at, depth+1)
			t.at[at] = position{line: key.Line, col: key.Column}
			if ref, ok := out[key.Value].(string); ok && key.Value == "$ref" {
				t.refs = append(t.refs, reference{at, ref})
			}
		}
		return out
	}
	return t.scalar(n, pointer)
}

func (t *tree) scalar(n *yaml.Node, pointer string) any {
	switch n.ShortTag() {
	case "!!null":
		return nil
	case "!!bool":
		return strings.EqualFold(n.Value, "true")
	case "!!int", "!!float":
		number := jsonNumber(n.Value)
		if number == nil {
			var f float64
			if err := n.Decode(&f); err == nil {
				number = jsonNumber(fmt.Sprint(f))
			}
		}
		if number == nil {
			t.fault(pointer, fmt.Sprintf("%q is no number that JSON has", n.Value))
		}
		return number
	}
	return n.Value
}

// checkOpenAPI has kin-openapi judge the document as such. It does not look at schemas' patterns,
// examples and defaults: moat compiles the schemas itself, and the others decide nothing. What it says
// again of the faults before, or for each $ref that leads to one, is not told.
func (c *compiler) checkOpenAPI(doc *document, before []*body.DocumentError) {
	root := doc.root
	// It may say where the schema or parameter stands that is around a fault; an operation can have others.
	told := make(map[string]bool)
	for _, f := range before {
		for p := f.Pointer; strings.Count(p, "/") > 3 || p != "" && !strings.HasPrefix(p, "/paths/"); p = p[:strings.LastIndexByte(p, '/')] {
			at := doc.locate(f.File, p)
			told[fmt.Sprint(doc.path(f.File), at.line, at.col)] = true
		}
	}
	add := func(err error) {
		if strings.Contains(err.Error(), `unresolved ref: "#`) {
			return // it does not know the schema that is a whole file; moat does, or says so
		}
		f := Fault{File: doc.path(root), Line: 1, Col: 1, Reason: strings.Join(strings.Fields(err.Error()), " ")}
		if at, ok := originOf(err); ok {
			f.Line, f.Col = at.Line, max(at.Column, 1)
			if at.File != "" {
				f.File = doc.path(at.File)
			}
		}
		if len(f.Reason) > 4*maxValue {
			f.Reason = strings.ToValidUTF8(f.Reason[:4*maxValue], "") + "…"
		}
		at := fmt.Sprint(f.File, f.Line, f.Col)
		same := at + f.Reason[strings.LastIndex(f.Reason, ": ")+1:] // in front of it is by which way it got there
		if told[at] || told[same] {
			return
		}
		told[same] = true
		c.faults = append(c.faults, f)
	}
	defer func() {
		if p := recover(); p != nil {
			add(fmt.Errorf("cannot be read as OpenAPI: %v", p))
		}
	}()
	t, err := doc.openAPI()
	if err != nil {
		if len(before) == 0 { // it does not say where
			add(err)
		}
		return
	}
	err = t.Validate(context.Background(), openapi3.EnableMultiError(), openapi3.DisableExamplesValidation(), openapi3.DisableSchemaPatternValidation(), openapi3.DisableSchemaDefaultsValidation())
	var many openapi3.MultiError
	switch {
	case err == nil:
	case errors.As(err, &many):
		for _, e := range many {
			add(e)
		}
	default:
		add(err)
	}
}

// openAPI has kin-openapi read the document. It gets the files that were read, and no others.
func (d *document) openAPI() (*openapi3.T, error) {
	loader := openapi3.NewLoader()
	loader.IncludeOrigin = true
	loader.IsExternalRefsAllowed = true
	loader.ReadFromURIFunc = func(_ *openapi3.Loader, u *url.URL) ([]byte, error) {
		if text, ok := d.text[path.Clean(u.Path)]; ok && u.Scheme == "" && u.Host == "" {
			return text, nil
		}
		return nil, fmt.Errorf("%s: not beside the document", u.Path)
	}
	root := d.root
	return loader.LoadFromDataWithPath(d.text[root], &url.URL{Path: root})
}

// originOf finds where kin-openapi says that a fault stands: many of its errors have a field Origin.
func originOf(err error) (openapi3.Location, bool) {
	for ; err != nil; err = errors.Unwrap(err) {
		v := reflect.Indirect(reflect.ValueOf(err))
		if v.Kind() != reflect.Struct {
			continue
		}
		if f := v.FieldByName("Origin"); f.IsValid() {
			if o, ok := reflect.TypeAssert[*openapi3.Origin](f); ok && o != nil && o.Key != nil {
				return *o.Key, true
			}
		}
	}
	return openapi3.Location{}, false
}

// operations says which operations no route leads to, and which routes lead to none.
func (c *compiler) operations(mux *http.ServeMux) {
	hosts := []string{""}
	for _, o := range c.out.Gateway.PublicOrigins {
		hosts = append(hosts, o.Host())
	}
	leads := make(map[string]bool) // a document's name and an operation
	reached := make(map[int]bool)
	missing := make(map[string]Fault)
	for _, k := range slices.SortedFunc(maps.Keys(c.documents), func(a, b documentKey) int { return cmp.Compare(fmt.Sprint(a), fmt.Sprint(b)) }) {
		d := c.documents[k]
		if d.api == nil {
			continue
		}
		for _, op := range d.api.Operations() {
			key := k.name + " " + op.Method + " " + op.Path
			for _, host := range hosts {
				h, pattern := mux.Handler(&http.Request{Method: op.Method, Host: host, URL: &url.URL{Path: op.Request}})
				_, serves := h.(http.HandlerFunc) // and is no redirect to the path with a slash, which the gate does not give
				if i, ok := c.byMatch[pattern]; ok && serves && slices.Contains(d.routes, i) && c.allows(i, op.Method) {
					leads[key], reached[i] = true, true
				}
			}
			at := d.doc.locate(d.doc.root, "/paths/"+escapePointer.Replace(op.Path)+"/"+strings.ToLower(op.Method))
			missing[key] = Fault{File: d.doc.shown, Line: at.line, Col: at.col, What: op.Method + " " + op.Path, Reason: "no route leads to this operation"}
		}
		for _, i := range d.routes {
			if !reached[i] {
				c.warn(join(item("routes", i), "match"), c.f.Routes[i].Match, "matches no operation of "+d.doc.shown+", so every request is refused; see the paths of its servers, or prefix")
			}
		}
	}
	for _, key := range keys(missing) {
		if !leads[key] {
			c.warnings = append(c.warnings, missing[key])
		}
	}
}

// allows reports whether a route's methods let the method pass.
func (c *compiler) allows(i int, method string) bool {
	return slices.Contains(c.f.Routes[i].Override.Methods, method)
}

// jsonNumber is a number as JSON writes it, or nil.
func jsonNumber(text string) any {
	text = strings.TrimPrefix(text, "+")
	if !strings.ContainsAny(text, "0123456789") || (body.JSON{}).Check([]byte(text)) != nil {
		return nil
	}
	return json.Number(text)
}
