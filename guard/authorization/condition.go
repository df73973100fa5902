package authorization

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/types"

	"github.com/moat-gateway/moat/guard"
	"github.com/moat-gateway/moat/guard/identity"
)

// Bounds of a condition. Its text is the operator's; what it runs over is a stranger's.
const (
	maxText = 4 << 10 // bytes
	maxCost = 10_000  // of what loops, in CEL's units: one for each step, and for each ten bytes of text
)

// condition is a compiled expression.
type condition struct {
	text    string
	program cel.Program
	ast     *ast.AST
	pattern pattern
	vars    sync.Pool // of *vars
}

// variables are those of every condition, with their types.
var variables = map[string]*cel.Type{
	"principal.anonymous": cel.BoolType, "principal.sub": cel.StringType, "principal.iss": cel.StringType,
	"principal.source": cel.StringType, "principal.method": cel.StringType, "principal.credential": cel.StringType,
	"principal.scopes": cel.ListType(cel.StringType), "principal.roles": cel.ListType(cel.StringType),
	"principal.claims": cel.MapType(cel.StringType, cel.DynType),
	"request.method":   cel.StringType, "request.host": cel.StringType, "request.path": cel.StringType,
	"request.query": cel.MapType(cel.StringType, cel.ListType(cel.StringType)), "request.time": cel.TimestampType,
}

// environment is what conditions are compiled in, but for their paths' values.
var environment = sync.OnceValues(func() (*cel.Env, error) {
	options := []cel.EnvOption{
		cel.ParserExpressionSizeLimit(maxText),
		cel.ParserRecursionLimit(50),
		cel.ASTValidators(cel.ValidateDurationLiterals(), cel.ValidateTimestampLiterals(), cel.ValidateRegexLiterals()),
	}
	for name, t := range variables {
		options = append(options, cel.Variable(name, t))
	}
	return cel.NewEnv(options...)
})

// compile reads a condition for a route of the pattern.
func compile(text, route string) (*condition, error) {
	c := &condition{text: text}
	var err error
	if route != "" {
		if c.pattern, err = parsePattern(route); err != nil {
			return nil, fmt.Errorf("pattern %q: %w", route, err)
		}
	}
	env, err := environment()
	if err != nil {
		return nil, err
	}
	known := make(map[string]bool)
	for name := range variables {
		known[name] = true
	}
	var options []cel.EnvOption
	for _, name := range c.pattern.names() {
		options = append(options, cel.Variable("path."+name, cel.StringType))
		known["path."+name] = true
	}
	if env, err = env.Extend(options...); err != nil {
		return nil, err
	}
	parsed, issues := env.Parse(text)
	if issues.Err() != nil {
		return nil, faults(issues)
	}
	loops, err := names(parsed.NativeRep(), known)
	if err != nil {
		return nil, err
	}
	checked, issues := env.Check(parsed)
	if issues.Err() != nil {
		return nil, faults(issues)
	}
	c.ast = checked.NativeRep()
	switch t := checked.OutputType(); {
	case t.IsExactType(cel.DynType):
		return nil, errors.New("condition:1:1: may be anything; a condition is true or false: compare a claim, as in principal.claims.admin == true")
	case !t.IsExactType(cel.BoolType):
		return nil, fmt.Errorf("condition:1:1: is a %s; a condition is true or false, as path.sub == principal.sub is", t)
	}
	run := []cel.ProgramOption{cel.EvalOptions(cel.OptOptimize)}
	if loops {
		// To count costs four allocations. What does not loop takes each of its steps once, over
		// what the bounds of a request's head and of a token bound.
		run = append(run, cel.CostLimit(maxCost))
	}
	if c.program, err = env.Program(checked, run...); err != nil {
		return nil, fmt.Errorf("condition: %w", err)
	}
	c.vars.New = func() any { return &vars{c: c} }
	return c, nil
}

// faults are what CEL has found, each with its place.
func faults(issues *cel.Issues) error {
	var errs []error
	for _, e := range issues.Errors() {
		errs = append(errs, at(e.Location, e.Message+wayOut(e.Message)))
	}
	return errors.Join(errs...)
}

// wayOut is what CEL leaves unsaid.
func wayOut(message string) string {
	switch {
	case strings.HasPrefix(message, "undeclared reference") && !strings.Contains(message, "did you mean"):
		return "; a condition knows principal.…, request.… and path.…, and texts stand in quotes"
	case strings.HasPrefix(message, "found no matching overload"):
		return "; make both of one type, as in int(path.id) == 7"
	case strings.HasPrefix(message, "Syntax error: token recognition error at: '="):
		return "; equality is written =="
	case message == "invalid matches argument":
		return "; it is no regular expression (https://github.com/google/re2/wiki/Syntax)"
	}
	return ""
}

func at(l common.Location, message string) error {
	if l.Line() < 1 {
		return errors.New("condition: " + message)
	}
	return fmt.Errorf("condition:%d:%d: %s", l.Line(), l.Column()+1, message)
}

// names refuses what is no variable. CEL would say so of "principal" alone, and not which of
// its names is wrong. It reports whether there are loops, or patterns to match.
func names(a *ast.AST, known map[string]bool) (loops bool, err error) {
	var errs []error
	fault := func(e ast.Expr, format string, args ...any) {
		errs = append(errs, at(a.SourceInfo().GetStartLocation(e.ID()), fmt.Sprintf(format, args...)))
	}
	selected := make(map[int64]bool) // the identifiers that a name is selected of
	ast.PreOrderVisit(a.Expr(), ast.NewExprVisitor(func(e ast.Expr) {
		switch e.Kind() { //nolint:exhaustive // the others name nothing.
		case ast.SelectKind:
			of := e.AsSelect().Operand()
			if of.Kind() != ast.IdentKind || !root(of.AsIdent()) {
				return
			}
			selected[of.ID()] = true
			switch name := of.AsIdent() + "." + e.AsSelect().FieldName(); {
			case !known[name]:
				fault(of, "%s: no such value%s", name, nearest(name, known))
			case e.AsSelect().IsTestOnly():
				fault(of, "has(%s): has() is for claims, as in has(principal.claims.org); a condition that uses what is not there is refused", name)
			}
		case ast.IdentKind:
			if root(e.AsIdent()) && !selected[e.ID()] {
				fault(e, "%s: not a value by itself%s", e.AsIdent(), nearest(e.AsIdent(), known))
			}
		case ast.CallKind:
			if call := e.AsCall(); call.FunctionName() == "matches" && len(call.Args()) > 0 {
				loops = true
				if call.Args()[len(call.Args())-1].Kind() != ast.LiteralKind {
					// What a stranger writes is data. As a pattern it could match anything.
					fault(e, "matches: the pattern must stand in the condition, in quotes")
				}
			}
		case ast.ComprehensionKind:
			loops = true
		}
	}))
	return loops, errors.Join(errs...)
}

func root(ident string) bool { return ident == "principal" || ident == "request" || ident == "path" }

// decide evaluates the condition.
func (c *condition) decide(p *identity.Principal, r *http.Request, now time.Time) guard.Decision {
	v, _ := c.vars.Get().(*vars)
	v.p, v.r, v.now = p, r, now
	out, _, err := c.program.Eval(v)
	v.p, v.r = nil, nil
	c.vars.Put(v)
	switch {
	case err != nil:
		return guard.Denial(guard.AuthorizationConditionFailed, "condition", c.reason(err), c.text)
	case out != types.True:
		return guard.Denial(guard.AuthorizationConditionFalse, "condition", "false", c.text)
	}
	return guard.Decision{}
}

// reason says where and why a condition could not be evaluated. CEL's own words may go on to
// repeat what the request holds, so they are told up to the first thing quoted.
func (c *condition) reason(err error) string {
	if missing, ok := errors.AsType[absent](err); ok {
		return missing.Error()
	}
	words := err.Error()
	if i := strings.IndexAny(words, `:'"`); i >= 0 {
		words = words[:i]
	}
	if failed, ok := errors.AsType[*types.Err](err); ok {
		if l := c.ast.SourceInfo().GetStartLocation(failed.NodeID()); l != common.NoLocation {
			return fmt.Sprintf("%d:%d: %s", l.Line(), l.Column()+1, words)
		}
	}
	return words
}

// absent is a variable that the caller or the request does not have.
type absent string

func (a absent) Error() string { return string(a) + " is not there" }

// vars are the values of the variables, for one request.
type vars struct {
	c   *condition
	p   *identity.Principal
	r   *http.Request
	now time.Time
}

// Parent is that of cel.Activation: there is none.
func (*vars) Parent() cel.Activation { return nil }

// ResolveName finds a variable.
func (v *vars) ResolveName(name string) (any, bool) {
	value, ok := v.resolve(name)
	if value == nil && ok {
		return types.WrapErr(absent(name)), true
	}
	return value, ok
}

func (v *vars) resolve(name string) (value any, ok bool) {
	switch name {
	case "request.method":
		return types.String(v.r.Method), true
	case "request.host":
		return types.String(host(v.r.Host)), true
	case "request.path":
		if climbs(v.r.URL.Path) {
			return nil, true
		}
		return types.String(v.r.URL.Path), true
	case "request.query":
		q, err := url.ParseQuery(v.r.URL.RawQuery)
		if err != nil {
			return nil, true // two parsers could read it differently
		}
		return map[string][]string(q), true
	case "request.time":
		return types.Timestamp{Time: v.now}, true
	case "principal.anonymous":
		return types.Bool(v.p == nil), true
	}
	if path, ok := strings.CutPrefix(name, "path."); ok {
		if value, found := v.c.pattern.value(v.r.URL, path); found && !climbs(v.r.URL.Path) {
			return types.String(value), true
		}
		return nil, true
	}
	if !strings.HasPrefix(name, "principal.") {
		return nil, false
	}
	return v.principal(name), true
}

// principal is what the principal has, or nil.
func (v *vars) principal(name string) any {
	if v.p == nil {
		return nil
	}
	switch name {
	case "principal.sub":
		return present(v.p.Subject())
	case "principal.iss":
		return present(v.p.Issuer())
	case "principal.source":
		return present(v.p.Source())
	case "principal.method":
		return types.String(v.p.Method().String())
	case "principal.credential":
		return present(v.p.Credential())
	case "principal.scopes":
		return v.p.Scopes()
	case "principal.roles":
		return v.p.Roles()
	case "principal.claims":
		return v.p.Claims()
	}
	return nil
}

// present is a text that is there, or nil.
func present(s string) any {
	if s == "" {
		return nil
	}
	return types.String(s)
}

// host is a Host header without the port.
func host(s string) string {
	if h, _, err := net.SplitHostPort(s); err == nil {
		s = h
	}
	return strings.ToLower(s)
}

// nearest names the known value that was probably meant, or all.
func nearest(name string, known map[string]bool) string {
	root, _, _ := strings.Cut(name, ".")
	var list []string
	for k := range known {
		if strings.HasPrefix(k, root+".") {
			list = append(list, k)
		}
	}
	slices.SortFunc(list, func(a, b string) int {
		return cmp.Or(cmp.Compare(distance(name, a), distance(name, b)), cmp.Compare(a, b))
	})
	switch {
	case len(list) == 0:
		return "; the route's pattern has no {name}"
	case distance(name, list[0]) <= 2:
		return "; did you mean " + list[0] + "?"
	}
	slices.Sort(list)
	return "; there is " + strings.Join(list, ", ")
}

// distance is how many characters to add, drop or exchange to get from a to b.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		last := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := last
			if a[i] != b[j] {
				change++
			}
			last = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
