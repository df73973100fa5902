package config

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"net/netip"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/moat-gateway/moat/guard"
	"github.com/moat-gateway/moat/guard/budget"
	"github.com/moat-gateway/moat/guard/ratelimit"
)

var update = flag.Bool("update", false, "write the generated files and the golden ones")

// TestGeneratedFilesAreCurrent compares the JSON Schema and docs/config.md with what
// the structs of file.go say now.
func TestGeneratedFilesAreCurrent(t *testing.T) {
	g := generator{docs: readDocs(t)}
	compareGolden(t, "moat.schema.json", g.schema(t))
	compareGolden(t, "../docs/config.md", g.reference(t))
}

// compareGolden compares a file with what it should hold, or with -update writes it.
func compareGolden(t *testing.T, name string, want []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(name, want, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	got, err := os.ReadFile(name)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%s is not current (%v); run go test ./config -update\nit should be\n%s", name, err, want)
	}
}

// generator writes what follows from the structs: docs holds the comment of each type,
// by its name, and of each field, by "type.Field".
type generator struct {
	docs map[string]string
	defs map[string]any
}

func readDocs(t *testing.T) map[string]string {
	t.Helper()
	docs := make(map[string]string)
	for _, name := range glob(t, "*.go") {
		if !strings.HasSuffix(name, "_test.go") {
			readDocsOf(t, name, docs)
		}
	}
	return docs
}

func readDocsOf(t *testing.T, name string, docs map[string]string) {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	note := func(name string, c *ast.CommentGroup) { docs[name] = strings.Join(strings.Fields(c.Text()), " ") }
	for _, decl := range f.Decls {
		gen, ok := decl.(*ast.GenDecl)
		if !ok {
			continue
		}
		for _, spec := range gen.Specs {
			ts, isType := spec.(*ast.TypeSpec)
			if !isType {
				continue
			}
			note(ts.Name.Name, gen.Doc)
			st, isStruct := ts.Type.(*ast.StructType)
			if !isStruct {
				continue
			}
			for _, fld := range st.Fields.List {
				for _, n := range fld.Names {
					note(ts.Name.Name+"."+n.Name, fld.Doc)
				}
			}
		}
	}
}

// doc is the comment of a field of t.
func (g *generator) doc(t *testing.T, in reflect.Type, f field) string {
	t.Helper()
	for _, i := range f.index[:len(f.index)-1] {
		in = in.Field(i).Type
	}
	text := g.docs[in.Name()+"."+in.Field(f.index[len(f.index)-1]).Name]
	if text == "" {
		t.Errorf("%s: the field %s has no doc comment", in, f.name)
	}
	return text
}

const referencePattern = `\$\{(env|file):[^}]+\}`

// patterns are what scalars look like as text.
var patterns = map[reflect.Type]string{
	durationType:                       `^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$`,
	thresholdType:                      `^[0-9]+(\.[0-9]+)?%?$`,
	sizeType:                           `^[0-9]+(B|KB|MB|GB|KiB|MiB|GiB)?$`,
	reflect.TypeFor[ratelimit.Limit](): `^[0-9]+ */ *[0-9]*(s|m|h|d)(,? +burst +[0-9]+)?$`,
	reflect.TypeFor[address]():         `:[0-9]{1,5}$`,
	reflect.TypeFor[netip.Addr]():      `^[0-9A-Fa-f:.]+$`,
	reflect.TypeFor[budget.Money]():    `^[0-9]+([.][0-9]{1,9})?$`,
	reflect.TypeFor[netip.Prefix]():    `^[0-9A-Fa-f:.]+/[0-9]{1,3}$`,
}

func (g *generator) schema(t *testing.T) []byte {
	t.Helper()
	g.defs = map[string]any{
		"reference": map[string]any{
			"description": "A text with a reference to an environment variable, ${env:NAME}, or to a file, ${file:PATH}.",
			"type":        "string", "pattern": referencePattern,
		},
	}
	g.define(t, reflect.TypeFor[file]())
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	err := enc.Encode(map[string]any{
		"$schema": "https://json-schema.org/draft/2020-12/schema",
		"$id":     "https://github.com/moat-gateway/moat/blob/main/config/moat.schema.json",
		"title":   "moat.yaml", "$ref": "#/$defs/file", "$defs": g.defs,
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// define describes a struct, and returns a reference to it.
func (g *generator) define(t *testing.T, typ reflect.Type) map[string]any {
	t.Helper()
	ref := map[string]any{"$ref": "#/$defs/" + typ.Name()}
	if g.defs[typ.Name()] != nil {
		return ref
	}
	block := map[string]any{"type": "object", "additionalProperties": false}
	def := block
	properties, required := make(map[string]any), []string{}
	for _, f := range fields[typ] {
		p := g.typed(t, f.typ, f)
		p["description"] = g.doc(t, typ, f)
		if f.def != "" {
			p["default"] = defaultValue(f)
		}
		properties[f.name] = p
		if f.required {
			required = append(required, f.name)
		}
		if f.short {
			def = map[string]any{"anyOf": []any{g.typed(t, f.typ, f), block}}
		}
	}
	block["properties"] = properties
	if len(required) > 0 {
		block["required"] = required
	}
	def["description"] = g.docs[typ.Name()]
	g.defs[typ.Name()] = def
	return ref
}

func (g *generator) typed(t *testing.T, typ reflect.Type, f field) map[string]any {
	t.Helper()
	pattern, patterned := patterns[typ]
	if f.or != "" {
		pattern += "|^" + f.or + "$"
	}
	pattern += "|" + referencePattern
	switch {
	case typ == reflect.TypeFor[bool]():
		return map[string]any{"type": "boolean"}
	case typ == reflect.TypeFor[int]():
		if len(f.enum) > 0 {
			return map[string]any{"type": "integer", "enum": []any{json.Number(strings.Join(f.enum, ""))}}
		}
		return map[string]any{"type": "integer", "minimum": f.least, "maximum": f.greatest}
	case typ == reflect.TypeFor[price]():
		return anyOf(map[string]any{"type": "number", "minimum": 0, "maximum": 10_000}, map[string]any{"type": "string", "pattern": pricePattern.String()})
	case typ == reflect.TypeFor[factor]():
		return anyOf(map[string]any{"type": "integer", "minimum": 1, "maximum": 1 << 16}, map[string]any{"const": f.or})
	case len(f.enum) > 0 && (typ == reflect.TypeFor[string]() || typ == reflect.TypeFor[guard.Mode]()):
		words := []any{map[string]any{"enum": f.enum}}
		for _, word := range f.enum {
			if prefix, open := strings.CutSuffix(word, "NAME"); open {
				words = append(words, map[string]any{"type": "string", "pattern": "^" + prefix + "."})
			}
		}
		return map[string]any{"anyOf": append(words, map[string]any{"$ref": "#/$defs/reference"})}
	case typ == reflect.TypeFor[string]():
		return map[string]any{"type": "string", "minLength": 1}
	case typ == secretType:
		return map[string]any{"$ref": "#/$defs/reference"}
	case typ == thresholdType:
		return anyOf(map[string]any{"type": "integer", "minimum": 1, "maximum": 1e9}, map[string]any{"type": "string", "pattern": pattern})
	case typ == sizeType:
		number := map[string]any{"type": "integer", "minimum": f.least}
		if f.bounds != "" {
			number["maximum"] = f.greatest
		}
		return anyOf(number, map[string]any{"type": "string", "pattern": pattern})
	case typ == reflect.TypeFor[budget.Money]():
		return anyOf(map[string]any{"type": "number", "exclusiveMinimum": 0}, map[string]any{"type": "string", "pattern": pattern})
	case patterned:
		return map[string]any{"type": "string", "pattern": pattern}
	case typ.Kind() == reflect.Slice:
		items := g.typed(t, typ.Elem(), f)
		list := map[string]any{"type": "array", "items": items}
		if f.single {
			return anyOf(items, list)
		}
		return list
	case typ.Kind() == reflect.Map:
		return map[string]any{
			"type": "object", "additionalProperties": g.typed(t, typ.Elem(), field{}), "propertyNames": map[string]any{"pattern": f.keys.String()},
		}
	case typ.Kind() == reflect.Struct && fields[typ] != nil:
		return g.define(t, typ)
	}
	t.Fatalf("no schema for the type %s", typ)
	return nil
}

func anyOf(schemas ...any) map[string]any { return map[string]any{"anyOf": schemas} }

// defaultValue is a default as JSON.
func defaultValue(f field) any {
	switch {
	case f.typ == reflect.TypeFor[bool]():
		return f.def == "true"
	case f.typ.Kind() == reflect.Slice && !f.single:
		return strings.Fields(f.def)
	}
	return f.def
}

// reference is docs/config.md.
func (g *generator) reference(t *testing.T) []byte {
	t.Helper()
	example, err := os.ReadFile("testdata/good/example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, intro, example)
	g.section(t, &b, reflect.TypeFor[file](), "")
	return b.Bytes()
}

const intro = "<!-- Written by go test ./config -update from config/file.go. Do not edit. -->\n" + `
# Configuration reference

moat reads one YAML file. ` + "`moat check moat.yaml`" + ` says everything that is wrong with it, at once, as
` + "`file:line:column: field: value: reason`" + `, and runs the file's own tests. A file with a fault never starts a gate and
never replaces the configuration of a running one. [moat.schema.json](../config/moat.schema.json) is the JSON Schema, for editors.

A complete file:

` + "```yaml\n%s```" + `

## How values are written

- **Durations** are numbers with a unit: ` + "`500ms`, `30s`, `5m`, `2h`, `1h30m`" + `. Unless said otherwise they are from 1ms to 24h.
- **Sizes** are bytes, or numbers with a unit: ` + "`64KiB`, `10MiB`" + ` (powers of 1024), ` + "`64KB`, `10MB`" + ` (powers of 1000).
- **Addresses** are ` + "`host:port`" + `; **address ranges** are ` + "`10.0.0.0/8`" + `, or ` + "`10.1.2.3/32`" + ` for a single one.
- **Modes** are ` + "`enforce`" + `, ` + "`report`" + ` (run the same check and record what it would have done) and ` + "`off`" + `.
- ` + "`${env:NAME}`" + ` and ` + "`${file:PATH}`" + ` stand for an environment variable, and for the content of a file without the newline at
  its end. They may stand in any text, size, duration or address, but not in true, false and names. A path counts from the directory of the
  configuration file. What they stand for never appears in a message. Within ` + "`{ }` and `[ ]`" + ` YAML wants them in quotes.
- Anchors and aliases are YAML's own. Merge keys (` + "`<<`" + `) are refused: name a policy instead.
- A setting whose name begins with ` + "`dangerously_`" + ` gives up a protection. Each one in force is logged at every start and shows in the
  metric ` + "`moat_dangerous_setting`" + `.
`

// section documents a block, and then the blocks in it.
func (g *generator) section(t *testing.T, b *bytes.Buffer, typ reflect.Type, path string) {
	t.Helper()
	title, level := "Top level", "##"
	if path != "" {
		title, level = "`"+path+"`", "##"+strings.Repeat("#", min(2, strings.Count(strings.Replace(path, ".NAME", "", 1), ".")))
	}
	fmt.Fprintf(b, "\n%s %s\n\n", level, title)
	if path != "" {
		_, text, _ := strings.Cut(g.docs[typ.Name()], " ")
		text = strings.TrimPrefix(strings.TrimPrefix(text, "is "), "are ")
		b.WriteString(strings.ToUpper(text[:1]) + text[1:] + "\n\n")
	}
	b.WriteString("| field | type | default | meaning |\n|---|---|---|---|\n")
	inlined := false
	for _, f := range fields[typ] {
		if inlined = inlined || f.inlined; !f.inlined {
			fmt.Fprintf(b, "| `%s` | %s | %s | %s |\n", f.name, typeName(f), defaultText(f), strings.ReplaceAll(g.doc(t, typ, f), "|", `\|`))
		}
	}
	if inlined {
		b.WriteString("| any field of a policy | | the policy's | See [`policies.NAME`](#policiesname). |\n")
	}
	for _, f := range fields[typ] {
		below, at := f.typ, join(path, f.name)
		switch {
		case f.inlined:
			continue
		case below.Kind() == reflect.Map:
			below, at = below.Elem(), at+".NAME"
		case below.Kind() == reflect.Slice:
			below, at = below.Elem(), at+"[]"
		}
		if fields[below] != nil {
			g.section(t, b, below, at)
		}
	}
}

func typeName(f field) string {
	names := map[reflect.Type]string{
		durationType: "duration", sizeType: "size", secretType: "reference", thresholdType: "number or share", reflect.TypeFor[bool](): "true, false",
		reflect.TypeFor[string](): "text", reflect.TypeFor[int](): "number", reflect.TypeFor[address](): "address", reflect.TypeFor[ratelimit.Limit](): "limit", reflect.TypeFor[factor](): "number", reflect.TypeFor[price](): "price", reflect.TypeFor[budget.Money](): "amount",
		reflect.TypeFor[netip.Addr](): "IP address", reflect.TypeFor[netip.Prefix](): "address range",
	}
	name := func(typ reflect.Type) string {
		if n := names[typ]; n != "" {
			return n
		}
		for _, f := range fields[typ] {
			if f.short && f.single {
				return names[f.typ.Elem()] + ", a list of them, or block"
			} else if f.short {
				return names[f.typ] + " or block"
			}
		}
		return "block"
	}
	var text string
	switch {
	case len(f.enum) > 0:
		text = "`" + strings.Join(f.enum, "`, `") + "`"
	case f.typ.Kind() == reflect.Map:
		text = "name: " + name(f.typ.Elem())
	case f.single:
		text = name(f.typ.Elem()) + ", or a list of them"
	case f.typ.Kind() == reflect.Slice:
		text = "list: " + name(f.typ.Elem())
	default:
		text = name(f.typ)
	}
	if f.or != "" {
		text += ", or `" + f.or + "`"
	}
	if _, scalar := scalars[f.typ]; scalar && f.bounds != "" && f.bounds != "from 1ms to 24h" {
		text += " " + f.bounds
	}
	return text
}

func defaultText(f field) string {
	switch {
	case f.required:
		return "**required**"
	case f.def == "":
		return ""
	case f.typ.Kind() == reflect.Slice && !f.single:
		return "`[" + strings.Join(strings.Fields(f.def), ", ") + "]`"
	}
	return "`" + f.def + "`"
}
