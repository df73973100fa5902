package body

import (
	"maps"
	"net/url"
	"slices"
	"strings"
)

func unescape(s string) string {
	if out, err := url.PathUnescape(s); err == nil {
		return out
	}
	return s
}

// direction is which way the values go that a schema is for.
type direction uint8

const (
	anyway direction = iota
	inRequest
	inResponse
)

// preparer rewrites schemas so that the engine reads them as their document means them: the
// dialect of OpenAPI 3.0 as JSON Schema 2020-12, discriminators as conditions, and some keywords
// as moat's own. It follows $ref from the schemas that are in use.
type preparer struct {
	files Files
	// v30 says that the document is OpenAPI 3.0, and root which it is; "" for a JSON Schema.
	v30     bool
	root    string
	way     direction
	refuse  bool // what schemas do not declare is refused
	seen    map[place]bool
	from    map[place]place // which $ref leads to a place
	warning func(at place, text string)
}

// The keywords that hold schemas: for the value itself, for values within it, and for neither.
var (
	inPlaceLists = []string{"allOf", "anyOf", "oneOf"}
	inPlaceMaps  = []string{"dependentSchemas", "$defs", "definitions"}
	inPlace      = []string{"then", "else"}
	asides       = []string{"not", "if", "contains", "propertyNames", "contentSchema"}
	withinLists  = []string{"items", "prefixItems"}
	withinMaps   = []string{"properties", "patternProperties"}
	within       = []string{"items", "additionalItems", "additionalProperties", "unevaluatedItems", "unevaluatedProperties"}
)

// schema prepares the one at a place, and what it leads to. whole says that it is all that is
// said about a value; closed, that nothing is to be added to it.
func (p *preparer) schema(at place, whole, closed bool) {
	node, ok := p.files.get(at).(map[string]any)
	if !ok {
		return // true and false
	}
	if whole && p.refuse && !closed && p.declares(at, make(map[place]bool)) {
		_, says := node["additionalProperties"]
		if _, told := node["unevaluatedProperties"]; !says && !told {
			defer func() { node["unevaluatedProperties"] = false }()
		}
	}
	if p.seen[at] {
		return
	}
	p.seen[at] = true
	if ref, ok := node["$ref"].(string); ok {
		if p.v30 { // what stands beside it means nothing
			clear(node)
			node["$ref"] = ref
		}
		p.from[at.follow(ref)] = at
		p.schema(at.follow(ref), false, closed)
	}
	if p.root != "" {
		p.dialect(at, node)
		p.discriminate(at, node)
		p.oneWay(at, node)
	}
	move(node, "enum", enum)
	if node["format"] == "regex" {
		node["format"] = regex
	}
	if node["uniqueItems"] == true {
		move(node, "uniqueItems", unique)
	}
	for _, k := range inPlaceLists {
		p.list(at.to(k), node[k], false, closed)
	}
	for _, k := range inPlaceMaps {
		p.named(at.to(k), node[k], false, closed)
	}
	for _, k := range inPlace {
		p.schema(at.to(k), false, closed)
	}
	for _, k := range asides {
		p.schema(at.to(k), false, true)
	}
	for _, k := range withinLists {
		p.list(at.to(k), node[k], true, closed)
	}
	for _, k := range withinMaps {
		p.named(at.to(k), node[k], true, closed)
	}
	for _, k := range within {
		p.schema(at.to(k), true, closed)
	}
}

func (p *preparer) list(at place, v any, whole, closed bool) {
	list, _ := v.([]any)
	for i := range list {
		p.schema(at.to(itoa(i)), whole, closed)
	}
}

func (p *preparer) named(at place, v any, whole, closed bool) {
	m, _ := v.(map[string]any)
	for _, name := range slices.Sorted(maps.Keys(m)) {
		p.schema(at.to(name), whole, closed)
	}
}

func move(node map[string]any, from, to string) {
	if v, ok := node[from]; ok {
		delete(node, from)
		node[to] = v
	}
}

// declares reports whether a schema says anything about the properties of its value. One that
// does not is for values of any shape.
func (p *preparer) declares(at place, seen map[place]bool) bool {
	node, ok := p.files.get(at).(map[string]any)
	if !ok || seen[at] {
		return false
	}
	seen[at] = true
	if node["properties"] != nil || node["patternProperties"] != nil {
		return true
	}
	if ref, ok := node["$ref"].(string); ok && p.declares(at.follow(ref), seen) {
		return true
	}
	for _, k := range inPlaceLists {
		list, _ := node[k].([]any)
		for i := range list {
			if p.declares(at.to(k, itoa(i)), seen) {
				return true
			}
		}
	}
	return p.declares(at.to("then"), seen) || p.declares(at.to("else"), seen)
}

// dialect takes what OpenAPI 3.0 spells in its own way.
func (p *preparer) dialect(at place, node map[string]any) {
	if nullable, ok := node["nullable"].(bool); ok {
		typ, typed := node["type"].(string)
		switch {
		case !p.v30:
			p.warning(at, `nullable is of OpenAPI 3.0 and means nothing here; write type: [..., "null"]`)
		case nullable && !typed:
			p.warning(at, "nullable means nothing without a type beside it")
		case nullable:
			node["type"] = []any{typ, "null"}
		}
		delete(node, "nullable")
	}
	if !p.v30 {
		return
	}
	for bound, exclusive := range map[string]string{"minimum": "exclusiveMinimum", "maximum": "exclusiveMaximum"} {
		excluded, ok := node[exclusive].(bool)
		if !ok {
			continue
		}
		delete(node, exclusive)
		if v, told := node[bound]; excluded && told {
			delete(node, bound)
			node[exclusive] = v
		}
	}
}

// discriminate makes of a discriminator what it means: the property says which of the schemas
// counts, so the others are not even tried.
func (p *preparer) discriminate(at place, node map[string]any) {
	d, _ := node["discriminator"].(map[string]any)
	delete(node, "discriminator")
	name, _ := d["propertyName"].(string)
	keyword := "oneOf"
	if node[keyword] == nil {
		keyword = "anyOf"
	}
	branches, _ := node[keyword].([]any)
	if name == "" || len(branches) == 0 {
		return // a hint about schemas that extend this one
	}
	targets := make(map[place]string)
	values := make(map[string]string)
	for _, b := range branches {
		m, _ := b.(map[string]any)
		ref, ok := m["$ref"].(string)
		if !ok {
			return
		}
		target := at.follow(ref)
		targets[target] = ref
		values[target.ptr[strings.LastIndexByte(target.ptr, '/')+1:]] = ref
	}
	mapping, _ := d["mapping"].(map[string]any)
	for _, value := range slices.Sorted(maps.Keys(mapping)) {
		to, _ := mapping[value].(string)
		target := at.follow(to)
		if named := (place{p.root, "/components/schemas/" + to}); p.files.get(named) != nil {
			target = named
		}
		ref, ok := targets[target]
		if !ok {
			p.warning(at.to("discriminator", "mapping", value), "leads to none of the schemas beside it, so the value is refused")
			continue
		}
		values[value] = ref
	}
	delete(node, keyword)
	known := make([]any, 0, len(values))
	all, _ := node["allOf"].([]any)
	all = slices.Clone(all)
	first := map[string]any{"type": "object", "required": []any{name}, "properties": map[string]any{name: map[string]any{}}}
	all = append(all, first)
	for _, value := range slices.Sorted(maps.Keys(values)) {
		known = append(known, value)
		all = append(all, map[string]any{
			"if":   map[string]any{"required": []any{name}, "properties": map[string]any{name: map[string]any{"const": value}}},
			"then": map[string]any{"$ref": values[value]},
		})
	}
	first["properties"] = map[string]any{name: map[string]any{"enum": known}}
	node["allOf"] = all
}

// oneWay refuses in a request what is readOnly, and in an answer what is writeOnly: whoever may
// set what only the server sets has more rights than he should. Neither has to be there.
func (p *preparer) oneWay(at place, node map[string]any) {
	flag := map[direction]string{inRequest: "readOnly", inResponse: "writeOnly"}[p.way]
	props, _ := node["properties"].(map[string]any)
	for name := range props {
		prop := at.to("properties", name)
		if flag == "" || !p.flagged(prop, flag, 0) {
			continue
		}
		props[name] = map[string]any{never: flag}
		if required, ok := node["required"].([]any); ok {
			node["required"] = slices.DeleteFunc(slices.Clone(required), func(v any) bool { return v == name })
		}
	}
}

func (p *preparer) flagged(at place, flag string, depth int) bool {
	node, _ := p.files.get(at).(map[string]any)
	ref, isRef := node["$ref"].(string)
	if node[flag] == true && (!isRef || !p.v30) {
		return true
	}
	return isRef && depth < maxRefs && p.flagged(at.follow(ref), flag, depth+1)
}

// maxRefs bounds how many $ref lead from one to the next.
const maxRefs = 32

// clone copies a tree, so that it can be rewritten.
func clone(v any) any {
	switch v := v.(type) {
	case map[string]any:
		out := make(map[string]any, len(v))
		for k, item := range v {
			out[k] = clone(item)
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i, item := range v {
			out[i] = clone(item)
		}
		return out
	}
	return v
}

func (f Files) clone() Files {
	out := make(Files, len(f))
	for name, doc := range f {
		out[name] = clone(doc)
	}
	return out
}

// SchemaOptions change what a JSON Schema means.
type SchemaOptions struct {
	// RefuseUnknown refuses properties about which the schema says nothing.
	RefuseUnknown bool
}

// NewSchema compiles the JSON Schema in the file of that name: draft 2020-12, unless its $schema
// says another one. Its error is a *DocumentError.
func NewSchema(files Files, name string, o SchemaOptions) (*Schema, error) {
	files = files.clone()
	if root, ok := files[name].(map[string]any); ok && o.RefuseUnknown {
		if dialect, _ := root["$schema"].(string); strings.Contains(dialect, "draft-0") {
			return nil, &DocumentError{name, "/$schema", "unknown: refuse needs unevaluatedProperties, which drafts before 2019-09 do not have; write additionalProperties: false in the schema, or use draft 2020-12"}
		}
	}
	p := &preparer{files: files, refuse: o.RefuseUnknown, seen: make(map[place]bool), from: make(map[place]place)}
	p.schema(place{name, ""}, true, false)
	e, err := newEngine(p)
	if err != nil {
		return nil, err
	}
	return e.compile(place{name, ""})
}
