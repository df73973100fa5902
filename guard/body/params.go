package body

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/moat-gateway/moat/web"
)

func itoa(i int) string { return strconv.Itoa(i) }

// types are what a schema lets a value be, as far as its text tells: they say how a parameter's
// text is read.
type types struct {
	number, integer, boolean, text, array, object bool
	items                                         *types
	props                                         map[string]*types
	rest                                          *types
}

// typesOf looks at a schema that has been prepared.
func typesOf(files Files, at place) *types {
	t := new(types)
	t.learn(files, at, 0)
	return t
}

func (t *types) learn(files Files, at place, depth int) {
	node, ok := files.get(at).(map[string]any)
	if !ok || depth > maxRefs {
		return
	}
	for _, name := range append(list(node["type"]), node["type"]) {
		switch name {
		case "number":
			t.number = true
		case "integer":
			t.number, t.integer = true, true
		case "boolean":
			t.boolean = true
		case "string":
			t.text = true
		case "array":
			t.array = true
		case "object":
			t.object = true
		}
	}
	if ref, ok := node["$ref"].(string); ok {
		t.learn(files, at.follow(ref), depth+1)
	}
	for _, k := range inPlaceLists {
		for i := range list(node[k]) {
			t.learn(files, at.to(k, itoa(i)), depth+1)
		}
	}
	if node["items"] != nil {
		t.items = new(types)
		t.items.learn(files, at.to("items"), depth+1)
	}
	props, _ := node["properties"].(map[string]any)
	for name := range props {
		if t.props == nil {
			t.props = make(map[string]*types)
		}
		if t.props[name] == nil {
			t.props[name] = new(types)
		}
		t.props[name].learn(files, at.to("properties", name), depth+1)
	}
	if _, ok := node["additionalProperties"].(map[string]any); ok {
		t.rest = new(types)
		t.rest.learn(files, at.to("additionalProperties"), depth+1)
	}
}

func list(v any) []any {
	l, _ := v.([]any)
	return l
}

func (t *types) of(name string) *types {
	if t != nil && t.props[name] != nil {
		return t.props[name]
	}
	if t != nil {
		return t.rest
	}
	return nil
}

// read makes a value of a text. JSON's spelling alone counts for numbers: other readers differ
// about "+1", "0x1" and "01".
func (t *types) read(s string) any {
	if t == nil {
		return s
	}
	if t.number && s != "" && (s[0] == '-' || '0' <= s[0] && s[0] <= '9') && (JSON{}).Check([]byte(s)) == nil && !strings.ContainsAny(s, " \t\r\n") {
		if !t.integer || isInteger(s) {
			return json.Number(s)
		}
	}
	if t.boolean && (s == "true" || s == "false") {
		return s == "true"
	}
	return s
}

// isInteger reports whether every reader of integers reads it: 1.0 and 1e3 are integers to JSON
// Schema alone.
func isInteger(s string) bool { return !strings.ContainsAny(s, ".eE") }

// parameter is one of an operation.
type parameter struct {
	name, in   string
	required   bool
	style      string
	explode    bool
	allowEmpty bool
	schema     *Schema
	types      *types
	// json says that the value is a JSON text.
	json bool
}

func (p *parameter) fault(detail string) *Fault {
	return &Fault{Parameter: p.in + " " + p.name, Detail: detail}
}

// check judges a parameter's value.
func (p *parameter) check(ctx context.Context, size int, v any) *Fault {
	if p.schema == nil {
		return nil
	}
	faults, err := p.schema.evaluate(ctx, size, func() any { return v })
	if err != nil {
		return p.fault("was not checked in time")
	}
	if len(faults) > 0 && p.types != nil && p.types.text {
		// A schema that lets a value be a text, too, is asked about the text.
		if n, ok := v.(json.Number); ok {
			return p.check(ctx, size, n.String())
		}
	}
	if len(faults) == 0 {
		return nil
	}
	detail := faults[0].Detail
	if faults[0].Pointer != "#" {
		detail = faults[0].Pointer[1:] + " " + detail
	}
	return p.fault(detail)
}

// text reads a value that is one text, by its style: simple, and form without explode.
func (p *parameter) text(s string) (any, *Fault) {
	switch {
	case p.json:
		if f := (JSON{}).Check([]byte(s)); f != nil {
			return nil, p.fault(f.Detail)
		}
		return decode([]byte(s)), nil
	case p.types == nil || !p.types.array && !p.types.object:
		return p.types.read(s), nil
	}
	separator := ","
	switch p.style {
	case "spaceDelimited":
		separator = " "
	case "pipeDelimited":
		separator = "|"
	}
	parts := strings.Split(s, separator)
	if s == "" {
		parts = nil
	}
	if p.types.array {
		out := make([]any, len(parts))
		for i, part := range parts {
			out[i] = p.types.items.read(strings.Trim(part, " "))
		}
		return out, nil
	}
	out := make(map[string]any)
	if p.explode {
		for _, part := range parts {
			name, value, ok := strings.Cut(part, "=")
			if _, twice := out[name]; !ok || twice {
				return nil, p.fault("is not name=value, each name once")
			}
			out[name] = p.types.of(name).read(value)
		}
		return out, nil
	}
	if len(parts)%2 != 0 {
		return nil, p.fault("is not name,value,...")
	}
	for i := 0; i < len(parts); i += 2 {
		if _, twice := out[parts[i]]; twice {
			return nil, p.fault("a name occurs twice")
		}
		out[parts[i]] = p.types.of(parts[i]).read(parts[i+1])
	}
	return out, nil
}

// pair is a name and value of a query or a form.
type pair struct{ name, value string }

// maxPairs bounds how many pairs a query or form has.
const maxPairs = 1000

// pairsOf reads a query or form (the URL standard's application/x-www-form-urlencoded). What
// readers differ about is refused.
func pairsOf(s string) ([]pair, string) {
	if s == "" {
		return nil, ""
	}
	var out []pair
	for part := range strings.SplitSeq(s, "&") {
		if part == "" {
			continue
		}
		if strings.Contains(part, ";") {
			return nil, "holds a semicolon, which some read as a separator"
		}
		if len(out) == maxPairs {
			return nil, "has more than " + itoa(maxPairs) + " pairs"
		}
		name, value, _ := strings.Cut(part, "=")
		n, err := url.QueryUnescape(name)
		v, vErr := url.QueryUnescape(value)
		if err != nil || vErr != nil {
			return nil, "holds a percent sign that encodes nothing"
		}
		if strings.ContainsRune(n, 0) || !validText(n) || !validText(v) {
			return nil, "is not UTF-8"
		}
		out = append(out, pair{n, v})
	}
	return out, ""
}

// query judges the parameters of the query.
func (op *Operation) query(ctx context.Context, r *http.Request, out *[]Fault) {
	if r.URL.RawQuery == "" && !op.needsQuery {
		return
	}
	pairs, wrong := pairsOf(r.URL.RawQuery)
	if wrong != "" {
		*out = append(*out, Fault{Parameter: "query", Detail: wrong})
		return
	}
	taken := make([]bool, len(pairs))
	for i := range op.params {
		p := &op.params[i]
		if p.in != "query" {
			continue
		}
		v, size, found, f := p.inPairs(pairs, taken)
		switch {
		case f != nil:
		case !found && p.required:
			f = p.fault("required")
		case found && (size > 0 || !p.allowEmpty):
			f = p.check(ctx, size, v)
		}
		if f != nil {
			*out = append(*out, *f)
		}
	}
	if !op.refuseUnknown {
		return
	}
	for i, t := range taken {
		if !t && len(*out) < maxFaults {
			*out = append(*out, Fault{Parameter: "query " + madeUp(pairs[i].name), Detail: notDeclared})
		}
	}
}

// madeUp is the name of a parameter that nobody declared, if it looks like one: what stands there
// without a name, as in ?TOKEN, may be a secret.
func madeUp(name string) string {
	const plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-[]"
	if name == "" || len(name) > 24 || strings.Trim(name, plain) != "" {
		return "(a name that is not shown)"
	}
	return name
}

// cut bounds a name that a sender made up.
func cut(s string) string {
	if len(s) > 64 {
		return strings.ToValidUTF8(s[:64], "") + "..."
	}
	return s
}

// inPairs finds the parameter among the pairs of a query or form.
func (p *parameter) inPairs(pairs []pair, taken []bool) (v any, size int, found bool, f *Fault) {
	var values []string
	object := make(map[string]any)
	for i, pr := range pairs {
		switch {
		case p.style == "deepObject" && p.types != nil && p.types.object:
			name, ok := strings.CutPrefix(pr.name, p.name+"[")
			name, closed := strings.CutSuffix(name, "]")
			if !ok || !closed || strings.ContainsAny(name, "[]") {
				continue
			}
			if _, twice := object[name]; twice {
				f = p.fault("a name occurs twice")
			}
			object[name], found = p.types.of(name).read(pr.value), true
		case p.types != nil && p.types.object && p.explode && !p.json:
			if p.types.props[pr.name] == nil {
				continue
			}
			if _, twice := object[pr.name]; twice {
				f = p.fault("a name occurs twice")
			}
			object[pr.name], found = p.types.of(pr.name).read(pr.value), true
		case pr.name != p.name:
			continue
		default:
			values = append(values, pr.value)
		}
		taken[i] = true
		size += len(pr.value)
	}
	switch {
	case f != nil || len(object) > 0:
		return object, size, found, f
	case len(values) == 0:
		return nil, 0, false, nil
	case p.types != nil && p.types.array && p.explode && !p.json:
		out := make([]any, len(values))
		for i, s := range values {
			out[i] = p.types.items.read(s)
		}
		return out, size, true, nil
	case len(values) > 1:
		// Which of them counts depends on who reads: two readers, two requests.
		return nil, 0, true, p.fault("occurs twice")
	}
	v, f = p.text(values[0])
	return v, size, true, f
}

// fields are the values of a header, in whatever spelling: many servers make one variable of
// X-Tenant and X_Tenant.
func fields(h http.Header, name string) []string {
	key := http.CanonicalHeaderKey(name)
	values := slices.Clip(h[key])
	for other, more := range h {
		if other != key && strings.ContainsAny(other, "_.~!#$%&'*+^`|") && web.FoldName(other) == web.FoldName(name) {
			values = append(values, more...)
		}
	}
	return values
}

// cookies are the values of a cookie, without the quotes around them. Package http leaves out those
// that RFC 6265 does not allow, which many upstreams read. What still begins with a quote goes on
// behind a semicolon for some, or holds escapes.
func cookies(lines []string, name string) (values []string) {
	for _, line := range lines {
		for part := range strings.SplitSeq(line, ";") {
			n, v, _ := strings.Cut(part, "=")
			if strings.Trim(n, " \t") != name {
				continue
			}
			v = strings.Trim(v, " \t")
			if len(v) > 1 && v[0] == '"' && strings.IndexAny(v[1:], `"\`) == len(v)-2 {
				v = v[1 : len(v)-1]
			}
			values = append(values, v)
		}
	}
	return values
}

// head judges the parameters of the path, the headers and the cookies.
func (op *Operation) head(ctx context.Context, r *http.Request, path []pair, out *[]Fault) {
	for i := range op.params {
		p := &op.params[i]
		var values []string
		switch p.in {
		case "path":
			if j := slices.IndexFunc(path, func(pr pair) bool { return pr.name == p.name }); j >= 0 {
				values = []string{path[j].value}
			}
		case "header":
			values = fields(r.Header, p.name)
			if len(values) > 1 && p.types != nil && p.types.array {
				values = []string{strings.Join(values, ",")} // RFC 9110 section 5.3
			}
		case "cookie":
			values = cookies(r.Header["Cookie"], p.name)
		default:
			continue
		}
		var f *Fault
		switch {
		case len(values) == 0 && p.required:
			f = p.fault("required")
		case len(values) > 1:
			f = p.fault("occurs twice")
		case len(values) == 1 && !validText(values[0]):
			f = p.fault("is not UTF-8")
		case p.in == "cookie" && len(values) == 1 && strings.HasPrefix(values[0], `"`):
			f = p.fault("is quoted in a way that readers differ about")
		case len(values) == 1:
			var v any
			if v, f = p.text(values[0]); f == nil {
				f = p.check(ctx, len(values[0]), v)
			}
		}
		if f != nil {
			*out = append(*out, *f)
		}
	}
}
