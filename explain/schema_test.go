package explain_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/moat-gateway/moat/browser"
	"github.com/moat-gateway/moat/explain"
)

var update = flag.Bool("update", false, "write the generated files and the golden ones")

// The published schema follows from the types: go test ./explain -run Generated -update.
func TestGeneratedSchemaIsCurrent(t *testing.T) {
	g := schemaOf{docs: map[string]string{}, enums: map[string][]string{}, defs: map[string]any{}}
	g.read(t, ".")
	g.read(t, "../browser")
	g.define(reflect.TypeFor[explain.Report]())
	root := map[string]any{
		"$schema":     "https://json-schema.org/draft/2020-12/schema",
		"$id":         "https://github.com/moat-gateway/moat/blob/main/explain/explain.schema.json",
		"title":       "What moat explain --json prints",
		"description": "Fields may be added; what a field means is not changed.",
		"$ref":        "#/$defs/Report",
		"$defs":       g.defs,
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(root); err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile("explain.schema.json", b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if !bytes.Equal(explain.Schema(), b.Bytes()) {
		t.Error("explain.schema.json is not current: run make docs")
	}
}

// schemaOf writes down types: docs has the comments of types and fields, enums the
// constants of types of strings.
type schemaOf struct {
	docs  map[string]string
	enums map[string][]string
	defs  map[string]any
}

// read takes comments and constants from a package's source.
func (g *schemaOf) read(t *testing.T, dir string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	pkg := filepath.Base(dir)
	if dir == "." {
		pkg = "explain"
	}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		for _, decl := range f.Decls {
			if gen, ok := decl.(*ast.GenDecl); ok {
				g.declared(pkg, gen)
			}
		}
	}
}

func (g *schemaOf) declared(pkg string, gen *ast.GenDecl) {
	note := func(name string, c *ast.CommentGroup) { g.docs[name] = strings.Join(strings.Fields(c.Text()), " ") }
	for _, spec := range gen.Specs {
		switch s := spec.(type) {
		case *ast.TypeSpec:
			note(pkg+"."+s.Name.Name, gen.Doc)
			st, ok := s.Type.(*ast.StructType)
			if !ok {
				continue
			}
			// A comment may stand over several fields. Then it names each of them.
			var doc *ast.CommentGroup
			for _, fld := range st.Fields.List {
				if fld.Doc != nil {
					doc = fld.Doc
				}
				for _, n := range fld.Names {
					if fld.Doc != nil || strings.Contains(doc.Text(), n.Name) {
						note(pkg+"."+s.Name.Name+"."+n.Name, doc)
					}
				}
			}
		case *ast.ValueSpec:
			typ, ok := s.Type.(*ast.Ident)
			if !ok {
				continue
			}
			for _, v := range s.Values {
				if lit, ok := v.(*ast.BasicLit); ok && lit.Kind == token.STRING {
					if text, err := strconv.Unquote(lit.Value); err == nil {
						g.enums[pkg+"."+typ.Name] = append(g.enums[pkg+"."+typ.Name], text)
					}
				}
			}
		}
	}
}

// open are the enums that have an empty value as well: what was not followed to its end
// has no verdict, what was read from a text may name no API.
var open = []string{"browser.Outcome", "browser.API"}

func (g *schemaOf) define(t reflect.Type) map[string]any {
	switch t {
	case reflect.TypeFor[browser.Field]():
		return map[string]any{"type": "array", "items": map[string]any{"type": "string"}, "minItems": 2, "maxItems": 2}
	case reflect.TypeFor[time.Time]():
		return map[string]any{"type": "string", "format": "date-time"}
	}
	switch t.Kind() { //nolint:exhaustive // the rest panics.
	case reflect.Pointer:
		return g.define(t.Elem())
	case reflect.Slice:
		return map[string]any{"type": "array", "items": g.define(t.Elem())}
	case reflect.Map:
		return map[string]any{"type": "object", "additionalProperties": g.define(t.Elem())}
	case reflect.Bool:
		return map[string]any{"type": "boolean"}
	case reflect.Int:
		return map[string]any{"type": "integer"}
	case reflect.String:
		s := map[string]any{"type": "string"}
		if values := g.enums[t.String()]; len(values) > 0 {
			if slices.Contains(open, t.String()) {
				values = append(slices.Clone(values), "")
			}
			s["enum"] = values
		}
		return s
	case reflect.Struct:
		name := t.Name()
		if _, ok := g.defs[name]; !ok {
			def := map[string]any{"type": "object"}
			g.defs[name] = def
			properties, required := map[string]any{}, []string{}
			g.fields(t, properties, &required)
			def["properties"], def["required"] = properties, required
			if d := g.docs[t.String()]; d != "" {
				def["description"] = d
			}
		}
		return map[string]any{"$ref": "#/$defs/" + name}
	default:
		panic("no schema for " + t.String())
	}
}

func (g *schemaOf) fields(t reflect.Type, properties map[string]any, required *[]string) {
	for f := range t.Fields() {
		tag, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if f.Anonymous && tag == "" {
			g.fields(f.Type, properties, required)
			continue
		}
		if !f.IsExported() || tag == "-" {
			continue
		}
		s := g.define(f.Type)
		if d := g.docs[t.String()+"."+f.Name]; d != "" {
			s["description"] = d
		}
		properties[tag] = s
		if !strings.Contains(options, "omit") {
			*required = append(*required, tag)
		}
	}
}

// compileSchema is for judging explanations.
func compileSchema(t testing.TB) *jsonschema.Schema {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(explain.Schema()))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err = c.AddResource("explain.schema.json", doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("explain.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// validate fails if an explanation is not of the published form.
func validate(t testing.TB, s *jsonschema.Schema, all ...*explain.Explanation) {
	t.Helper()
	b, err := json.Marshal(explain.Report{Explanations: all})
	if err != nil {
		t.Fatal(err)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Validate(doc); err != nil {
		t.Fatalf("%v\n%s", err, b)
	}
}
