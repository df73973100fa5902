package explain

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/moat-gateway/moat/browser"
)

// SnippetKind is the language of a Snippet.
type SnippetKind string

// The languages.
const (
	SnippetNginx   SnippetKind = "nginx"
	SnippetApache  SnippetKind = "apache"
	SnippetExpress SnippetKind = "express"
	SnippetHeaders SnippetKind = "headers" // header lines as they come
)

// Snippet is the part of a server's configuration that sets the headers of its answers.
// Nothing of it is run: what depends on more than the request's Origin and method is left
// out, and noted.
type Snippet struct {
	Kind SnippetKind
	// Notes say what was assumed or left out.
	Notes []string

	settings []setting
	statuses []setting // of preflights; the value is the status
	vars     map[string][]setting
	// nested has the settings of the innermost block count alone, as nginx does.
	nested bool
}

// setting is a header or a variable, and for which requests it is set.
type setting struct {
	name  string
	value []part
	when  []condition
	add   bool // besides what is there
	block int
}

// part is text, or the value of a variable.
type part struct{ text, name string }

// condition holds if the variable has one of the values.
type condition struct {
	name string
	any  []matcher
	not  bool
}

// matcher is a text, or a pattern if that is set.
type matcher struct {
	text    string
	pattern *regexp.Regexp
}

// The variables of a request, by their names in nginx.
const (
	varOrigin  = "http_origin"
	varMethod  = "request_method"
	varHeaders = "http_access_control_request_headers"
)

const (
	maxSnippet  = 64 << 10
	maxSettings = 500
	maxPattern  = 1000
)

// FromSnippet reads lines of nginx, Apache or Express that set headers of answers, or such
// header lines themselves.
func FromSnippet(text string) (*Snippet, error) {
	if len(text) > maxSnippet {
		return nil, tooLarge("snippet", len(text), maxSnippet, "leave only what sets headers")
	}
	s := &Snippet{vars: map[string][]setting{}}
	var err error
	switch {
	case nginxLine.MatchString(text):
		s.Kind = SnippetNginx
		err = s.nginx(text)
	case expressCall.MatchString(text):
		s.Kind = SnippetExpress
		s.express(text)
	case apacheLine.MatchString(text):
		s.Kind = SnippetApache
		s.apache(text)
	default:
		s.Kind = SnippetHeaders
		err = s.lines(text)
	}
	if err != nil {
		return nil, fmt.Errorf("snippet: %w", err)
	}
	if len(s.settings) == 0 {
		return nil, errors.New("snippet: no header is set in it; paste add_header of nginx, Header set of Apache, cors() or res.set of Express, or lines such as Access-Control-Allow-Origin: https://app.example.com")
	}
	if len(s.settings) > maxSettings {
		return nil, fmt.Errorf("snippet: it sets %d headers, more than the %d that are read", len(s.settings), maxSettings)
	}
	return s, nil
}

func (s *Snippet) note(format string, args ...any) {
	if n := fmt.Sprintf(format, args...); len(s.Notes) < 20 && !slices.Contains(s.Notes, n) {
		s.Notes = append(s.Notes, n)
	}
}

// Origins are the origins that the snippet names, in the order in which they stand there.
func (s *Snippet) Origins() []string {
	var all []string
	add := func(text string) {
		if (strings.HasPrefix(text, "https://") || strings.HasPrefix(text, "http://")) && !slices.Contains(all, text) {
			all = append(all, text)
		}
	}
	each := func(settings []setting) {
		for _, g := range settings {
			for _, p := range g.value {
				add(p.text)
			}
			for _, c := range g.when {
				for _, m := range c.any {
					add(m.text)
				}
			}
		}
	}
	for _, g := range s.settings {
		if strings.EqualFold(g.name, "Access-Control-Allow-Origin") {
			each([]setting{g})
		}
	}
	for _, name := range sortedKeys(s.vars) {
		each(s.vars[name])
	}
	return all
}

func sortedKeys(m map[string][]setting) []string {
	names := make([]string, 0, len(m))
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// Serve answers a request as a server with these settings does, as far as they tell.
func (s *Snippet) Serve(m browser.Message) browser.Answer {
	q := answering{s: s, request: m}
	a := browser.Answer{Status: 200}
	if m.Preflight {
		a.Status = 204
	}
	for _, g := range s.statuses {
		if q.holds(g.when) {
			if text, ok := q.text(g.value); ok {
				a.Status, _ = strconv.Atoi(text)
				break
			}
		}
	}
	inForce := 0
	for _, g := range s.settings {
		if s.nested && g.block > inForce && q.holds(g.when) {
			inForce = g.block
		}
	}
	for _, g := range s.settings {
		if s.nested && g.block != inForce || !q.holds(g.when) {
			continue
		}
		if !g.add {
			a.Header = slices.DeleteFunc(a.Header, func(f browser.Field) bool { return strings.EqualFold(f.Name, g.name) })
		}
		// A line break in a value is a slip of the paste: no server sends one.
		if value, ok := q.text(g.value); ok && value != "" && isToken(g.name) && !strings.ContainsAny(value, "\r\n\x00") {
			a.Header = append(a.Header, browser.Field{Name: g.name, Value: value})
		}
	}
	return a
}

// answering is one request, as the settings see it.
type answering struct {
	s       *Snippet
	request browser.Message
	depth   int
	effort  int // variables that were looked up
}

func (q *answering) holds(when []condition) bool {
	for _, c := range when {
		value, ok := q.variable(c.name)
		if !ok || slices.ContainsFunc(c.any, func(m matcher) bool { return m.fits(value) }) == c.not {
			return false
		}
	}
	return true
}

func (m matcher) fits(value string) bool {
	if m.pattern != nil {
		return m.pattern.MatchString(value)
	}
	return m.text == value
}

// text is a value; ok is false if a part of it is not known.
func (q *answering) text(parts []part) (text string, ok bool) {
	for _, p := range parts {
		if p.name == "" {
			text += p.text
			continue
		}
		value, ok := q.variable(p.name)
		if !ok {
			return "", false
		}
		if text += value; len(text) > maxSnippet {
			return "", false
		}
	}
	return text, true
}

// variable is the value that the last setting gives it whose conditions hold.
func (q *answering) variable(name string) (value string, ok bool) {
	switch name {
	case varOrigin:
		return q.request.Header.Value("Origin"), true
	case varMethod:
		return q.request.Method, true
	case varHeaders:
		return q.request.Header.Value("Access-Control-Request-Headers"), true
	}
	if q.effort++; q.depth > 5 || q.effort > 2000 { // variables of variables, or each other's
		return "", false
	}
	q.depth++
	defer func() { q.depth-- }()
	for _, g := range slices.Backward(q.s.vars[name]) {
		if q.holds(g.when) {
			return q.text(g.value)
		}
	}
	return "", len(q.s.vars[name]) > 0
}

// patternOf compiles a pattern of the snippet; without one that can be read nothing fits.
func (s *Snippet) patternOf(text string, fold bool) (m matcher, ok bool) {
	if len(text) > maxPattern {
		s.note("A pattern of more than %d characters was left out.", maxPattern)
		return matcher{}, false
	}
	prefix := ""
	if fold {
		prefix = "(?i)"
	}
	re, err := regexp.Compile(prefix + strings.ReplaceAll(text, `\/`, "/"))
	if err != nil {
		s.note("The pattern %.80q cannot be read here and was taken to fit nothing.", text)
		return matcher{}, false
	}
	return matcher{pattern: re}, true
}

var headerLine = regexp.MustCompile(`^[<>\s]*([!#$%&'*+.^_|~0-9A-Za-z-]+)\s*:\s*(.*?)\s*$`)

// lines reads header lines, as curl -i and the network panel show them.
func (s *Snippet) lines(text string) error {
	for i, line := range strings.Split(text, "\n") {
		line = strings.TrimRight(line, "\r")
		if trimmed := strings.TrimLeft(line, "<> \t"); trimmed == "" || strings.HasPrefix(trimmed, "HTTP/") || strings.HasPrefix(trimmed, "#") {
			continue
		}
		f := headerLine.FindStringSubmatch(line)
		if f == nil {
			return fmt.Errorf("line %d: %.60q is no header line, and neither nginx, Apache nor Express that sets one", i+1, line)
		}
		s.settings = append(s.settings, setting{name: f[1], value: []part{{text: f[2]}}, add: true})
	}
	s.note("The lines are taken for the answer to every request, the preflight among them, whatever its Origin.")
	return nil
}
