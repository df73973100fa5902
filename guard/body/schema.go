package body

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"path"
	"regexp"
	"regexp/syntax"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/santhosh-tekuri/jsonschema/v6/kind"
	"golang.org/x/text/message"
)

// Files are documents by their names, as trees of JSON: what $ref leads to is one of them or a
// fault. Nothing is ever fetched.
type Files map[string]any

// DocumentError is what is wrong with a document, and where.
type DocumentError struct {
	// File is a name in Files, and Pointer a JSON Pointer into it, without "#".
	File, Pointer string
	Reason        string
}

func (e *DocumentError) Error() string { return e.File + "#" + e.Pointer + ": " + e.Reason }

// base is what names of files are made URLs with. Nobody can be asked for it.
const base = "moat:///"

// engine compiles schemas: the one thing that decides about values, for JSON Schema of every draft
// and for OpenAPI 3.0 and 3.1 alike. kin-openapi's own validator compiles a schema anew for each
// value, and where that fails goes on with the rules of 3.0, so it is not asked.
type engine struct {
	c *jsonschema.Compiler
	n int
	// from says which $ref leads to a place.
	from map[place]place
}

func newEngine(p *preparer) (*engine, error) {
	files := p.files
	e := &engine{c: jsonschema.NewCompiler(), from: p.from}
	e.c.UseLoader(nowhere{})
	e.c.AssertFormat()
	e.c.AssertVocabs()
	for name, check := range formats {
		e.c.RegisterFormat(&jsonschema.Format{Name: name, Validate: check})
	}
	e.c.RegisterVocabulary(&jsonschema.Vocabulary{URL: base + "vocabulary", Compile: compileMeter})
	for name, doc := range files {
		if err := e.c.AddResource(base+name, doc); err != nil {
			return nil, &DocumentError{File: name, Reason: err.Error()}
		}
	}
	return e, nil
}

// nowhere is the loader of what is not among the files.
type nowhere struct{}

func (nowhere) Load(string) (any, error) {
	return nil, errors.New("is not in the document or a file beside it, and nothing is fetched")
}

// formats are moat's own, and those of OpenAPI that bound integers, which JSON Schema leaves out.
var formats = map[string]func(any) error{"int32": fits(32), "int64": fits(64), regex: isRegex}

// isRegex only parses: what "x{1000}" stands for takes a hundred times as long to compile.
func isRegex(v any) error {
	s, ok := v.(string)
	if !ok {
		return nil
	}
	_, err := syntax.Parse(s, syntax.Perl)
	return err
}

var errRange = errors.New("out of range")

func fits(bits uint) func(any) error {
	limit := new(big.Rat).SetInt(new(big.Int).Lsh(big.NewInt(1), bits-1))
	least := new(big.Rat).Neg(limit)
	return func(v any) error {
		n, ok := v.(json.Number)
		if !ok {
			return nil
		}
		r, ok := new(big.Rat).SetString(n.String())
		if !ok || !r.IsInt() || r.Cmp(limit) >= 0 || r.Cmp(least) < 0 {
			return errRange
		}
		return nil
	}
}

// compile compiles the schema at a place.
func (e *engine) compile(at place) (*Schema, error) {
	// The value stands in an object under the number of the evaluation that it belongs to: its
	// location says, wherever the evaluation is, whose account it is on.
	e.n++
	target := map[string]any{"$ref": at.url()}
	full := base + ".whole/" + strconv.Itoa(e.n)
	quick := base + ".valid/" + strconv.Itoa(e.n)
	s := &Schema{}
	for url, doc := range map[string]any{
		full:  map[string]any{"additionalProperties": target},
		quick: map[string]any{"not": map[string]any{"additionalProperties": target}},
	} {
		if err := e.c.AddResource(url, doc); err != nil {
			return nil, &DocumentError{at.file, at.ptr, err.Error()}
		}
	}
	var err error
	if s.full, err = e.c.Compile(full); err == nil {
		s.invalid, err = e.c.Compile(quick)
	}
	if err != nil {
		return nil, e.explain(at, err)
	}
	return s, nil
}

const notRE2 = "the pattern %q is none of Go's (RE2), which never take more than linear time: %v; write it without lookarounds and backreferences"

var inFiles = regexp.MustCompile(`moat:///([^"#\s]*)(?:#([^"\s]*))?`)

// explain finds out which place the compiler complains about.
func (e *engine) explain(at place, err error) error {
	reason := err.Error()
	var (
		invalid *jsonschema.SchemaValidationError
		re      *jsonschema.InvalidRegexError
		load    *jsonschema.LoadURLError
		gone    *jsonschema.JSONPointerNotFoundError
	)
	found := &DocumentError{File: at.file, Pointer: at.ptr}
	url := ""
	switch {
	case errors.As(err, &re):
		url, reason = re.URL, fmt.Sprintf(notRE2, re.Regex, re.Err)
	case errors.As(err, &invalid):
		url, reason = invalid.URL, "not a schema"
		if v, ok := errors.AsType[*jsonschema.ValidationError](invalid.Err); ok {
			if l := leaf(v); l != nil {
				url, reason = strings.TrimSuffix(url, "/")+"/"+strings.Join(l.InstanceLocation, "/"), "not a schema: "+l.ErrorKind.LocalizedString(printer)
				if f, ok := l.ErrorKind.(*kind.Format); ok && f.Want == "regex" {
					reason = fmt.Sprintf(notRE2, f.Got, f.Err)
				}
			}
		}
	case errors.As(err, &load):
		reason = fmt.Sprintf("$ref %q %v", strings.TrimPrefix(load.URL, base), load.Err)
	case errors.As(err, &gone):
		url, reason = gone.URL, "not there"
		if m := inFiles.FindStringSubmatch(url); m != nil {
			if from, ok := e.from[place{m[1], unescape(m[2])}]; ok {
				return &DocumentError{from.file, from.ptr + "/$ref", "leads nowhere"}
			}
		}
	default:
		url = reason
	}
	if m := inFiles.FindStringSubmatch(url); m != nil && !strings.HasPrefix(m[1], ".") {
		found.File, found.Pointer = m[1], unescape(m[2])
	}
	found.Reason = strings.ReplaceAll(reason, base, "")
	return found
}

var printer = message.NewPrinter(message.MatchLanguage("en"))

func leaf(v *jsonschema.ValidationError) *jsonschema.ValidationError {
	for len(v.Causes) > 0 {
		v = v.Causes[0]
	}
	return v
}

// place is a JSON Pointer into a file, both as they stand.
type place struct{ file, ptr string }

func (p place) url() string { return base + p.file + "#" + fragment.Replace(p.ptr) }

// fragment encodes what a URL's fragment cannot hold.
var fragment = strings.NewReplacer("%", "%25", " ", "%20", `"`, "%22", "<", "%3C", ">", "%3E", "{", "%7B", "}", "%7D", "^", "%5E", "`", "%60", "|", "%7C", `\`, "%5C", "#", "%23")

func (p place) to(tokens ...string) place {
	for _, t := range tokens {
		p.ptr += "/" + escapeToken.Replace(t)
	}
	return p
}

// A token of a JSON Pointer, RFC 6901 section 4.
var (
	escapeToken   = strings.NewReplacer("~", "~0", "/", "~1")
	unescapeToken = strings.NewReplacer("~1", "/", "~0", "~")
)

// follow is the place that a $ref at p means.
func (p place) follow(ref string) place {
	file, ptr, _ := strings.Cut(ref, "#")
	out := place{p.file, unescape(ptr)}
	if file != "" {
		out.file = path.Join(path.Dir(p.file), unescape(file))
	}
	return out
}

// get is what stands at a place, or nil.
func (f Files) get(p place) any {
	v := f[p.file]
	if p.ptr == "" {
		return v
	}
	for tok := range strings.SplitSeq(strings.TrimPrefix(p.ptr, "/"), "/") {
		if strings.Contains(tok, "~") {
			tok = unescapeToken.Replace(tok)
		}
		switch in := v.(type) {
		case map[string]any:
			v = in[tok]
		case []any:
			i, err := strconv.Atoi(tok)
			if err != nil || i < 0 || i >= len(in) {
				return nil
			}
			v = in[i]
		default:
			return nil
		}
	}
	return v
}

// Schema is a compiled schema: immutable, and safe for concurrent use.
type Schema struct {
	// invalid accepts what the schema refuses: it stops at the first fault and describes none.
	invalid, full *jsonschema.Schema
}

const (
	// evaluations is how many schemas an evaluation may apply to the values of a body of any size,
	// and perByte how many more for each of its bytes. A schema that branches in each level of a
	// recursion would otherwise take a time that doubles with each level of the body.
	evaluations, perByte = 50_000, 4
	// explanations bounds the second look at what is refused, which remembers every fault.
	explanations = 20_000
)

// run is an evaluation under way.
type run struct {
	id   string
	left int
}

// runs bounds how many evaluations are under way: each takes memory, some 50 times that of its
// body at worst, and none waits for anybody.
var (
	runs    = make([]*run, max(2, runtime.GOMAXPROCS(0)))
	waiting = make(chan *run, len(runs))
)

func init() {
	for i := range runs {
		runs[i] = &run{id: strconv.Itoa(i)}
		waiting <- runs[i]
	}
}

// tooCostly ends an evaluation that has used up what it may.
type tooCostly struct{}

// Check says what is wrong with a text that has been checked, or with the values in it.
// Its error is that of ctx.
func (s *Schema) Check(ctx context.Context, text []byte) ([]Fault, error) {
	return s.evaluate(ctx, len(text), func() any { return decode(text) })
}

func (s *Schema) evaluate(ctx context.Context, size int, value func() any) ([]Fault, error) {
	var r *run
	select {
	case r = <-waiting:
	default:
		select {
		case r = <-waiting:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	defer func() { waiting <- r }()
	v := map[string]any{r.id: value()}
	r.left = evaluations + perByte*size
	err, done := r.try(s.invalid, v)
	switch {
	case !done:
		return []Fault{{Pointer: "#", Detail: "takes too long to check"}}, nil
	case err != nil:
		return nil, nil
	}
	r.left = explanations
	if err, done = r.try(s.full, v); !done || err == nil {
		return []Fault{{Pointer: "#", Detail: "contradicts the schema in too many places to tell"}}, nil
	}
	return faultsOf(err), nil
}

// try evaluates; done says that it came to an end. What panics has not accepted anything.
func (r *run) try(s *jsonschema.Schema, v any) (found *jsonschema.ValidationError, done bool) {
	defer func() {
		if p := recover(); p != nil {
			if _, ok := p.(tooCostly); !ok {
				panic(p)
			}
		}
	}()
	err := s.Validate(v)
	errors.As(err, &found)
	return found, true
}

// charge takes the cost of one step of the evaluation that a location belongs to.
func charge(location []string, cost int) {
	if len(location) == 0 {
		return // a name, looked at alone; its object has been charged for
	}
	i, err := strconv.Atoi(location[0])
	if err != nil || i >= len(runs) {
		return
	}
	if runs[i].left -= cost; runs[i].left < 0 {
		panic(tooCostly{})
	}
}

// The keywords below are moat's own; prepare puts them into the place of those of JSON Schema.
const (
	// unique and enum say what uniqueItems and enum do, in time that does not grow with the square
	// of what is compared, whatever is sent.
	unique, enum = "x-moat-unique", "x-moat-enum"
	// regex is the format of that name, which costs what it takes to read one.
	regex = "x-moat-regex"
	// never refuses any value, and its text says why.
	never = "x-moat-never"
)

// meter charges for each schema that is applied to a value, and has moat's own keywords.
type meter struct {
	cost, names int
	pattern     bool // of strings
	patterns    int  // of names
	unique      bool
	regex       bool
	enum        map[string]struct{}
	nested      bool // some value of the enum is an array or object
	never       string
}

func compileMeter(_ *jsonschema.CompilerContext, obj map[string]any) (jsonschema.SchemaExt, error) {
	m := &meter{cost: 1, names: 1}
	for _, k := range []string{"allOf", "anyOf", "oneOf"} {
		list, _ := obj[k].([]any)
		m.cost += len(list)
	}
	patterns, _ := obj["patternProperties"].(map[string]any)
	m.names += len(patterns)
	m.patterns = len(patterns)
	if obj["propertyNames"] != nil {
		m.patterns++
	}
	m.pattern = obj["pattern"] != nil
	m.unique, _ = obj[unique].(bool)
	m.regex = obj["format"] == regex
	m.never, _ = obj[never].(string)
	if list, ok := obj[enum].([]any); ok {
		m.enum = make(map[string]struct{}, len(list))
		for _, v := range list {
			m.enum[string(canonical(nil, v))] = struct{}{}
			m.nested = m.nested || composite(v)
		}
	}
	return m, nil
}

// Validate implements jsonschema.SchemaExt.
func (m *meter) Validate(ctx *jsonschema.ValidatorContext, v any) {
	cost := m.cost
	switch v := v.(type) {
	case string:
		cost += len(v) / 64
		if m.pattern {
			cost += len(v) / perPattern
		}
		if m.regex {
			cost += len(v) * perRegex
		}
	case []any:
		cost += len(v)
		if m.unique {
			again, size := repeats(v)
			cost += size / perCanonical
			if again {
				ctx.AddError(broken("uniqueItems"))
			}
		}
	case map[string]any:
		cost += len(v) * m.names
		if m.patterns > 0 {
			size := 0
			for name := range v {
				size += len(name)
			}
			cost += m.patterns * size / perPattern
		}
	}
	charge(ctx.ValueLocation(), cost)
	if m.enum != nil {
		if composite(v) && !m.nested {
			ctx.AddError(broken("enum")) // without a look at all that it holds
		} else {
			text := canonical(nil, v)
			charge(ctx.ValueLocation(), len(text)/perCanonical)
			if _, ok := m.enum[string(text)]; !ok {
				ctx.AddError(broken("enum"))
			}
		}
	}
	if m.never != "" {
		ctx.AddError(broken(m.never))
	}
}

// broken is a rule of moat's own keywords that a value breaks.
type broken string

// KeywordPath implements jsonschema.ErrorKind.
func (b broken) KeywordPath() []string { return []string{string(b)} }

// LocalizedString implements jsonschema.ErrorKind.
func (b broken) LocalizedString(*message.Printer) string { return string(b) }

const (
	// perCanonical is how many bytes of canonical text cost one step.
	perCanonical = 4
	// perPattern is how many bytes that a pattern is held against cost one step.
	perPattern = 8
	// perRegex is how many steps a byte of a regular expression costs.
	perRegex = 64
)

func composite(v any) bool {
	switch v.(type) {
	case []any, map[string]any:
		return true
	}
	return false
}

// repeats reports whether an item occurs twice, and how much text was compared.
func repeats(list []any) (again bool, size int) {
	seen := make(map[string]struct{}, len(list))
	var buf []byte
	for _, v := range list {
		buf = canonical(buf[:0], v)
		size += len(buf)
		if _, ok := seen[string(buf)]; ok {
			return true, size
		}
		seen[string(buf)] = struct{}{}
	}
	return false, size
}

// canonical appends a text that two values have in common only if JSON Schema holds them for equal.
func canonical(b []byte, v any) []byte {
	switch v := v.(type) {
	case nil:
		return append(b, 'n')
	case bool:
		return strconv.AppendBool(b, v)
	case string:
		b = strconv.AppendInt(append(b, '"'), int64(len(v)), 10)
		return append(append(b, ':'), v...)
	case []any:
		b = strconv.AppendInt(append(b, '['), int64(len(v)), 10)
		for _, item := range v {
			b = canonical(append(b, ','), item)
		}
		return b
	case map[string]any:
		names := make([]string, 0, len(v))
		for name := range v {
			names = append(names, name)
		}
		slices.Sort(names)
		b = strconv.AppendInt(append(b, '{'), int64(len(v)), 10)
		for _, name := range names {
			b = canonical(canonical(append(b, ','), name), v[name])
		}
		return b
	}
	return canonicalNumber(append(b, '#'), fmt.Sprint(v))
}

// canonicalNumber appends the sign, the digits and the power of ten of a number.
func canonicalNumber(b []byte, text string) []byte {
	mantissa, exponent, _ := strings.Cut(strings.ToLower(text), "e")
	power, _ := strconv.Atoi(exponent)
	negative := strings.HasPrefix(mantissa, "-")
	whole, part, _ := strings.Cut(strings.TrimPrefix(mantissa, "-"), ".")
	digits := strings.TrimLeft(whole+part, "0")
	power -= len(part)
	if digits == "" {
		return append(b, '0')
	}
	short := strings.TrimRight(digits, "0")
	power += len(digits) - len(short)
	if negative {
		b = append(b, '-')
	}
	return strconv.AppendInt(append(append(b, short...), 'e'), int64(power), 10)
}

// faultsOf are the faults in a tree of errors: the first of them, in the order of their places.
func faultsOf(err *jsonschema.ValidationError) []Fault {
	var out []Fault
	collect(err, &out, false)
	if len(out) == 0 {
		collect(err, &out, true)
		// The objects around it count as not evaluated with all that they hold.
		depth := 0
		for _, f := range out {
			depth = max(depth, strings.Count(f.Pointer, "/"))
		}
		out = slices.DeleteFunc(out, func(f Fault) bool { return strings.Count(f.Pointer, "/") < depth })
	}
	slices.SortFunc(out, func(a, b Fault) int {
		return cmp.Or(cmp.Compare(a.Pointer, b.Pointer), cmp.Compare(a.Detail, b.Detail))
	})
	out = slices.Compact(out)
	return out[:min(len(out), maxFaults)]
}

// collect gathers the faults in a tree. What is "unevaluated" says something only alone: where
// another rule is broken, the schemas that would have evaluated it do not count.
func collect(e *jsonschema.ValidationError, out *[]Fault, unevaluated bool) {
	at := e.InstanceLocation
	if len(at) > 0 {
		at = at[1:] // the number of the evaluation
	}
	tell := func(detail string, deeper ...string) {
		*out = append(*out, Fault{Pointer: pointerTo(slices.Concat(at, deeper)), Detail: detail})
	}
	switch k := e.ErrorKind.(type) {
	case *kind.Schema, *kind.Group, *kind.AllOf, *kind.Reference:
		for _, cause := range e.Causes {
			collect(cause, out, unevaluated)
		}
	case *kind.Required:
		for _, name := range k.Missing {
			tell("required", name)
		}
	case *kind.DependentRequired:
		for _, name := range k.Missing {
			tell("dependentRequired", name)
		}
	case *kind.Dependency:
		for _, name := range k.Missing {
			tell("dependencies", name)
		}
	case *kind.AdditionalProperties:
		for _, name := range k.Properties {
			tell(notDeclared, name)
		}
	case *kind.PropertyNames:
		tell("propertyNames", k.Property)
	case *kind.FalseSchema:
		if unevaluated == (strings.HasSuffix(e.SchemaURL, "/unevaluatedProperties") || strings.HasSuffix(e.SchemaURL, "/unevaluatedItems")) {
			tell(notDeclared)
		}
	case *kind.Type:
		tell("type: " + strings.Join(k.Want, " or "))
	case *kind.Format:
		tell("format: " + strings.TrimPrefix(k.Want, "x-moat-"))
	case *kind.OneOf:
		if len(k.Subschemas) > 0 {
			tell("oneOf: more than one fits")
		} else {
			tell("oneOf: none fits")
		}
	case *kind.AnyOf:
		tell("anyOf: none fits")
	case *kind.Minimum:
		tell("minimum: " + decimal(k.Want))
	case *kind.Maximum:
		tell("maximum: " + decimal(k.Want))
	case *kind.ExclusiveMinimum:
		tell("exclusiveMinimum: " + decimal(k.Want))
	case *kind.ExclusiveMaximum:
		tell("exclusiveMaximum: " + decimal(k.Want))
	case *kind.MultipleOf:
		tell("multipleOf: " + decimal(k.Want))
	case *kind.MinLength:
		tell("minLength: " + strconv.Itoa(k.Want))
	case *kind.MaxLength:
		tell("maxLength: " + strconv.Itoa(k.Want))
	case *kind.MinItems:
		tell("minItems: " + strconv.Itoa(k.Want))
	case *kind.MaxItems:
		tell("maxItems: " + strconv.Itoa(k.Want))
	case *kind.MinProperties:
		tell("minProperties: " + strconv.Itoa(k.Want))
	case *kind.MaxProperties:
		tell("maxProperties: " + strconv.Itoa(k.Want))
	default:
		tell(strings.Join(e.ErrorKind.KeywordPath(), " "))
	}
}

func decimal(r *big.Rat) string {
	if r.IsInt() {
		return r.Num().String()
	}
	f, _ := r.Float64()
	return strconv.FormatFloat(f, 'g', -1, 64)
}
