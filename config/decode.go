package config

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	yaml "go.yaml.in/yaml/v4"
)

const (
	// maxFile bounds every file that is read, in bytes, but for tables, which maxTable bounds.
	maxFile, maxTable = 1 << 20, 64 << 20
	// maxAliased bounds how many nodes are decoded by way of aliases, so that a small
	// file cannot stand for a huge one.
	maxAliased = 100_000
)

// decoder lays a YAML tree over a struct, and collects every fault on the way. It goes
// no deeper than the struct does, whatever the tree is like.
type decoder struct {
	report
	opts      Options
	root      *file
	files     []string // that were read
	dangerous []string // paths of the dangerous settings in force
	aliases   int      // how many we are in
	aliased   int      // nodes decoded in them
}

// parse reads the one document of a file. Faults of syntax end it: what follows them
// means nothing.
func (d *decoder) parse(data []byte) *yaml.Node {
	if len(data) > maxFile {
		d.syntax(1, 1, fmt.Sprintf("the file is larger than %d bytes", maxFile))
		return nil
	}
	if line, col, reason := unreadable(data); reason != "" {
		d.syntax(line, col, reason)
		return nil
	}
	// Keys that are set twice get a fault with a better text from pairs.
	l, err := yaml.NewLoader(bytes.NewReader(data), yaml.WithUniqueKeys(false))
	if err != nil {
		d.syntax(1, 1, err.Error())
		return nil
	}
	var doc, second yaml.Node
	err = l.Load(&doc)
	if errors.Is(err, io.EOF) || err == nil && len(doc.Content) == 0 {
		d.syntax(1, 1, "the file is empty")
		return nil
	}
	if err == nil {
		if err = l.Load(&second); errors.Is(err, io.EOF) {
			return doc.Content[0]
		}
	}
	var le *yaml.LoadError
	switch {
	case err == nil:
		d.syntax(second.Line, second.Column, "a second document begins here; moat reads one")
	case errors.As(err, &le):
		d.syntax(le.Mark.Line, le.Mark.Column, syntaxReason(data, le))
	default:
		d.syntax(1, 1, err.Error())
	}
	return nil
}

func (d *decoder) syntax(line, col int, reason string) {
	d.faults = append(d.faults, Fault{File: d.file, Line: max(line, 1), Col: max(col, 1), What: "yaml", Reason: reason})
}

// syntaxReason is what the parser says, or what is known to lie behind it.
func syntaxReason(data []byte, e *yaml.LoadError) string {
	reason := e.Message
	if e.ContextMsg != "" {
		reason += ", " + e.ContextMsg
	}
	lines := strings.Split(string(data), "\n")
	if e.Mark.Line < 1 || e.Mark.Line > len(lines) {
		return reason
	}
	for i := e.Mark.Line; i > 0 && i >= e.Mark.Line-1; i-- { // what begins in a line may be missed in the next
		if strings.Contains(lines[i-1], "\u00a0") {
			return fmt.Sprintf("line %d has a no-break space (U+00A0), which is no blank in YAML; write a blank", i)
		}
	}
	switch line := lines[e.Mark.Line-1]; {
	case strings.HasPrefix(strings.TrimLeft(line, " "), "\t"):
		return "a tab in the indentation; YAML indents with blanks"
	case strings.Contains(line, "${"):
		return reason + `; within { } and [ ] a reference needs quotes, as "${env:NAME}"`
	}
	return reason
}

// unreadable finds bytes that no YAML file may hold; the parser would not say where.
func unreadable(data []byte) (line, col int, reason string) {
	line, col = 1, 1
	for i := 0; i < len(data); {
		r, n := utf8.DecodeRune(data[i:])
		switch {
		case r == utf8.RuneError && n == 1:
			return line, col, "not UTF-8"
		case unicode.IsControl(r) && !strings.ContainsRune("\t\n\r\u0085", r), r == '\uFFFE', r == '\uFFFF':
			return line, col, fmt.Sprintf("the control character %U", r)
		case r == '\r' && bytes.HasPrefix(data[i+1:], []byte("\n")):
		case strings.ContainsRune("\n\r\u0085\u2028\u2029", r):
			line, col = line+1, 0
		}
		i += n
		col++
	}
	return 0, 0, ""
}

// value decodes a node into v.
func (d *decoder) value(n *yaml.Node, v reflect.Value, path string, f field) {
	if n.Kind == yaml.AliasNode {
		d.aliases++
		defer func() { d.aliases-- }()
		n = n.Alias
	}
	if d.aliases > 0 && d.overBudget(path) {
		return
	}
	d.at[path] = position{line: n.Line, col: n.Column}
	t := v.Type()
	s, isScalar := scalars[t]
	switch {
	case n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null":
		d.fault(path, "", "empty; "+cmp.Or(f.block, "give it a value or remove the line"))
	case n.Tag != "" && !strings.HasPrefix(n.ShortTag(), "!!"):
		d.fault(path, n.Tag, "tags mean nothing here; remove it")
	case isScalar:
		d.scalar(n, v, path, f, s)
	case t.Kind() == reflect.Slice:
		d.list(n, v, path, f)
	case t.Kind() == reflect.Map:
		d.named(n, v, path, f)
	default:
		d.block(n, v, path, f)
	}
}

func (d *decoder) overBudget(path string) bool {
	d.aliased++
	if d.aliased == maxAliased {
		d.fault(path, "", fmt.Sprintf("aliases stand for more than %d values by now; use policies instead", maxAliased))
	}
	return d.aliased >= maxAliased
}

// have says what a node is, for a fault about what it is not.
func have(n *yaml.Node) string {
	switch n.Kind { //nolint:exhaustive // the others never get here.
	case yaml.SequenceNode:
		return "not a list"
	case yaml.MappingNode:
		return "not a block"
	}
	return ""
}

func (d *decoder) scalar(n *yaml.Node, v reflect.Value, path string, f field, s scalar) {
	value := n.Value
	if v.Type() == secretType {
		value = ""
	}
	switch {
	case n.Kind != yaml.ScalarNode && len(f.enum) > 1:
		d.fault(path, "", "write "+oneOf(f.enum)+", "+have(n))
		return
	case n.Kind != yaml.ScalarNode:
		d.fault(path, "", "want "+s.want+", "+have(n))
		return
	case !slices.Contains(s.tags, n.ShortTag()):
		reason := checkEnum(n.Value, f)
		if reason == "" {
			reason = "want " + s.want
		}
		if len(f.enum) == 0 && v.Type() == reflect.TypeFor[string]() {
			reason += fmt.Sprintf("; put it in quotes: %q", n.Value)
		} else if _, wrong := s.parse(n.Value, f); wrong == "" && n.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle) != 0 {
			reason += "; remove the quotes"
		}
		d.fault(path, value, reason)
		return
	case n.Value == "":
		d.fault(path, "", "empty; give it a value or remove the line")
		return
	case v.Type() == secretType && !strings.Contains(n.Value, "${"):
		d.fault(path, "", "a secret must not stand in this file; write ${env:NAME} or ${file:PATH}")
		return
	}
	expanded := n.Value
	var values []string
	if strings.Contains(n.Value, "${") {
		raw := n.Value
		if v.Type() == secretType { // the text around the references may be secret too
			raw = cmp.Or(strings.Join(references.FindAllString(raw, -1), " "), "${")
		}
		d.at[path] = position{line: n.Line, col: n.Column, raw: raw}
		var ok bool
		if expanded, values, ok = d.expand(n.Value, path); !ok {
			return
		}
		if expanded == "" {
			d.fault(path, "", "stands for nothing: what it refers to is empty")
			return
		}
	}
	parsed, reason := s.parse(expanded, f)
	if reason != "" {
		d.fault(path, value, reason)
		return
	}
	if secret, isSecret := parsed.(Secret); isSecret {
		secret.parts = values
		parsed = secret
	}
	v.Set(reflect.ValueOf(parsed).Convert(v.Type()))
	if on, isBool := parsed.(bool); isBool && on && strings.HasPrefix(f.name, "dangerously_") {
		d.dangerous = append(d.dangerous, path)
	}
}

func (d *decoder) list(n *yaml.Node, v reflect.Value, path string, f field) {
	items := n.Content
	if n.Kind != yaml.SequenceNode {
		if !f.single {
			reason := "want a list"
			if n.Kind == yaml.ScalarNode {
				reason = fmt.Sprintf("want a list; write %q", "["+n.Value+"]")
			}
			d.fault(path, "", reason)
			return
		}
		items = []*yaml.Node{n}
	}
	v.Set(reflect.MakeSlice(v.Type(), len(items), len(items))) // replaces a list that was inherited
	seen := make(map[any]int)
	_, scalarItems := scalars[v.Type().Elem()]
	for i, c := range items {
		e := v.Index(i)
		if def, ok := defaults[e.Type()]; ok {
			e.Set(def)
		}
		d.value(c, e, item(path, i), f)
		if !scalarItems || e.IsZero() || !e.Comparable() {
			continue
		}
		if first, twice := seen[e.Interface()]; twice {
			d.warn(item(path, i), c.Value, fmt.Sprintf("listed twice, first as item %d", first))
		} else {
			seen[e.Interface()] = i
		}
	}
}

// named decodes a map, whose keys are names that the file gives.
func (d *decoder) named(n *yaml.Node, v reflect.Value, path string, f field) {
	if n.Kind != yaml.MappingNode {
		d.fault(path, "", "want a block of names and their values")
		return
	}
	v.Set(reflect.MakeMap(v.Type()))
	for _, p := range d.pairs(n, path) {
		at := join(path, p.name)
		if !f.keys.MatchString(p.name) {
			d.at[at] = position{line: p.key.Line, col: p.key.Column}
			d.fault(at, p.name, "not a name that can stand here")
			continue
		}
		e := reflect.New(v.Type().Elem()).Elem()
		if def, ok := defaults[e.Type()]; ok {
			e.Set(def)
		}
		d.value(p.value, e, at, field{})
		v.SetMapIndex(reflect.ValueOf(p.name), e)
	}
}

// block decodes the fields of a struct, in the struct's order: what others refer to
// comes first.
func (d *decoder) block(n *yaml.Node, v reflect.Value, path string, self field) {
	known := fields[v.Type()]
	if n.Kind != yaml.MappingNode {
		short := slices.IndexFunc(known, func(f field) bool { return f.short })
		if short < 0 || n.Kind != yaml.ScalarNode {
			d.fault(path, "", cmp.Or(self.block, "want a block"+with(known)))
			return
		}
		f := known[short]
		if len(f.enum) == 1 && n.Value != f.enum[0] {
			var others []string
			for _, other := range known[short+1:] {
				others = append(others, other.name)
			}
			d.fault(path, n.Value, "write "+f.enum[0]+", or a block with "+oneOf(others))
			return
		}
		d.value(n, v.FieldByIndex(f.index), path, f)
		return
	}
	given := make(map[string]*yaml.Node)
	for _, p := range d.pairs(n, path) {
		if slices.ContainsFunc(known, func(f field) bool { return f.name == p.name }) {
			given[p.name] = p.value
			continue
		}
		at := join(path, p.name)
		d.at[at] = position{line: p.key.Line, col: p.key.Column}
		d.fault(at, "", "no such field"+d.suggestField(p.name, v.Type()))
	}
	inherited := false
	for _, f := range known {
		if f.inlined && !inherited {
			inherited = true
			if heir, ok := reflect.TypeAssert[interface{ inherit(*file) }](v.Addr()); ok {
				heir.inherit(d.root)
			}
		}
		if c := given[f.name]; c != nil {
			d.value(c, v.FieldByIndex(f.index), join(path, f.name), f)
		} else if f.required {
			reason := "missing"
			if f.missing != "" {
				reason += "; " + f.missing
			}
			d.fault(join(path, f.name), "", reason)
		}
	}
}

// maxListed is how many fields are listed where one of them is wanted.
const maxListed = 16

// with lists the fields of a block, if they are few.
func with(known []field) string {
	if len(known) > maxListed {
		return " of fields"
	}
	return " with " + oneOf(fieldNames(known))
}

func fieldNames(known []field) (names []string) {
	for _, f := range known {
		names = append(names, f.name)
	}
	return names
}

// modeOf says which field is the mode of what has none of its name under modes.
var modeOf = map[string]string{
	"client_address": "trusted_proxies.mode", "challenge": "tickets.challenge.mode", "model": "modes.budget, which is about calls to models too",
	"openapi": "modes.body", "schema": "modes.body",
}

// suggestField finds the field that was probably meant: one of that name in a block below, or
// where the file has it; or one with a similar name.
func (d *decoder) suggestField(name string, in reflect.Type) string {
	known := fields[in]
	if mode := modeOf[name]; mode != "" && in == reflect.TypeFor[modes]() {
		return "; its mode is " + mode
	}
	for _, f := range known {
		for _, below := range fields[f.typ] {
			if plain(below.name) == plain(name) {
				return fmt.Sprintf("; did you mean %q?", f.name+"."+below.name)
			}
		}
	}
	names := fieldNames(known)
	switch {
	case in == reflect.TypeFor[modes](): // its names are those of blocks elsewhere
	case slices.Contains(fieldNames(fields[reflect.TypeFor[policy]()]), name):
		return "; it belongs to a route or a policy"
	case slices.Contains(fieldNames(fields[reflect.TypeFor[route]()]), name):
		return "; it belongs to a route"
	case slices.Contains(fieldNames(fields[reflect.TypeFor[file]()]), name):
		return "; it belongs to the top of the file"
	}
	near := d.didYouMean(name, slices.Values(names))
	switch {
	case near != "":
		return near
	case len(names) > maxListed:
		return "; docs/config.md has them all"
	}
	return "; there is " + strings.Join(names, ", ")
}

// pair is a key and its value.
type pair struct {
	name       string
	key, value *yaml.Node
}

// pairs returns what a mapping holds, without the keys that are no names.
func (d *decoder) pairs(n *yaml.Node, path string) []pair {
	var out []pair
	lines := make(map[string]int)
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := n.Content[i]
		tag := key.ShortTag()
		first, twice := lines[key.Value]
		var reason string
		switch {
		case tag == "!!merge":
			reason = "merge keys are not supported; a policy serves many routes"
		case key.Kind != yaml.ScalarNode, tag != "!!str":
			reason = "the name of a field must be plain text"
		case twice:
			reason = fmt.Sprintf("set twice, first in line %d", first)
		default:
			lines[key.Value] = key.Line
			out = append(out, pair{key.Value, key, n.Content[i+1]})
			continue
		}
		what := path
		if key.Value != "" {
			what = join(path, key.Value)
		}
		d.faults = append(d.faults, Fault{File: d.file, Line: key.Line, Col: key.Column, What: what, Reason: reason})
	}
	return out
}
