package explain

import (
	"regexp"
	"slices"
	"strconv"
	"strings"
)

var (
	// A pattern where a value stands; the parser of fetch calls knows none.
	jsPattern = regexp.MustCompile(`([:\[,(=]\s*)/([^/*\n\\](?:[^/\n\\]|\\.)*|\\.(?:[^/\n\\]|\\.)*)/([a-z]*)`)
	corsCall  = regexp.MustCompile(`\bcors\s*\(`)
	setCall   = regexp.MustCompile(`\b(?:res|response|reply|ctx)\s*\.\s*(header|set|setHeader|append)\s*\(`)
	// A list before which the Origin is looked up.
	listCheck = regexp.MustCompile(`(\w+)\s*\.\s*(?:includes|indexOf|has)\s*\(\s*(?:req\.headers\.origin|req\.headers\[['"]origin['"]\]|req\.(?:get|header)\(['"]Origin['"]\)|\w*[oO]rigin)\s*\)`)
)

const patternMark = "\x00pattern "

// express reads what cors() is given, and headers that are set on the answer.
func (s *Snippet) express(text string) {
	text = jsPattern.ReplaceAllStringFunc(text, func(found string) string {
		m := jsPattern.FindStringSubmatch(found)
		return m[1] + strconv.Quote(patternMark+m[3]+" "+m[2])
	})
	p := &jsParser{text: text, vars: map[string]js{}, seen: map[int]bool{}}
	_ = p.scan() // for its constants; what it cannot read is no fault here
	arguments := func(at int) ([]js, bool) {
		p.i, p.depth, p.fatal = at, 0, false
		items, err := p.list(")")
		return items, err == nil
	}
	for _, m := range corsCall.FindAllStringIndex(text, maxSettings) {
		args, ok := arguments(m[1])
		switch {
		case !ok:
			s.note("What cors() is given holds code, which is not run: put in the value that it gives, such as the list of origins.")
		case len(args) == 0:
			s.corsOptions(js{kind: jsObject})
		case args[0].kind == jsObject:
			s.corsOptions(args[0])
		default:
			s.note("cors() is given %.40q, which the snippet does not say: paste its definition along.", orName(args[0], "a value"))
		}
	}
	var listed []matcher
	if m := listCheck.FindStringSubmatch(text); m != nil {
		listed = s.originsOf(p.vars[m[1]])
	}
	for _, m := range setCall.FindAllStringSubmatchIndex(text, maxSettings) {
		args, ok := arguments(m[1])
		if !ok {
			s.note("A header is set to what code gives, which is not run; it was left out.")
			continue
		}
		s.expressHeader(text[m[2]:m[3]], args, listed)
	}
}

func (s *Snippet) expressHeader(call string, args []js, listed []matcher) {
	pairs := []jsField{}
	switch {
	case len(args) == 1 && args[0].kind == jsObject:
		pairs = args[0].fields
	case len(args) == 2 && args[0].kind == jsString:
		pairs = append(pairs, jsField{args[0].text, args[1]})
	}
	for _, pair := range pairs {
		if !isToken(pair.key) {
			continue
		}
		g := setting{name: pair.key, add: call == "append"}
		switch v := pair.value; {
		case v.kind == jsUnknown && strings.HasSuffix(strings.ToLower(v.name), "origin"),
			v.kind == jsCall && len(v.items) == 1 && strings.EqualFold(v.items[0].text, "origin"),
			v.kind == jsUnknown && strings.HasSuffix(v.name, "headers[…]"):
			g.value = []part{{name: varOrigin}}
			if len(listed) > 0 {
				g.when = []condition{{name: varOrigin, any: listed}}
			} else {
				s.note("%.40s repeats the request's Origin. If a condition around it decides for which origins, it is not read.", g.name)
			}
		case v.kind == jsArray:
			g.value = []part{{text: joined(v)}}
		default:
			text, ok := v.string()
			if !ok || text.name != "" {
				s.note("%.40s is set to what the snippet does not say; it was left out.", g.name)
				continue
			}
			g.value = []part{{text: text.text}}
		}
		s.settings = append(s.settings, g)
	}
}

// joined are the texts of a list, or the text.
func joined(v js) string {
	if v.kind != jsArray {
		text, _ := v.string()
		return text.text
	}
	var all []string
	for _, item := range v.items {
		if text, ok := item.string(); ok {
			all = append(all, text.text)
		}
	}
	return strings.Join(all, ",")
}

// originsOf reads a text, a pattern or a list of these.
func (s *Snippet) originsOf(v js) []matcher {
	if v.kind == jsArray {
		var all []matcher
		for _, item := range v.items {
			if item.kind != jsArray {
				all = append(all, s.originsOf(item)...)
			}
		}
		return all
	}
	if v.kind != jsString || v.name != "" {
		return nil
	}
	rest, ok := strings.CutPrefix(v.text, patternMark)
	if !ok {
		return []matcher{{text: v.text}}
	}
	flags, pattern, _ := strings.Cut(rest, " ")
	if m, ok := s.patternOf(pattern, strings.Contains(flags, "i")); ok {
		return []matcher{m}
	}
	return nil
}

// corsOptions is what the package cors makes of its options
// (https://github.com/expressjs/cors#configuration-options).
func (s *Snippet) corsOptions(options js) {
	var anyOrigin []condition
	preflight := []condition{{name: varMethod, any: []matcher{{text: "OPTIONS"}}}}
	set := func(name string, when []condition, value ...part) {
		s.settings = append(s.settings, setting{name: name, value: value, when: when})
	}
	origin, given := options.get("origin")
	patterns := s.originsOf(origin)
	switch {
	case !given, origin.kind == jsString && origin.text == "*":
		set("Access-Control-Allow-Origin", anyOrigin, part{text: "*"})
	case origin.kind == jsNumber && origin.text == "false":
		return
	case origin.kind == jsNumber && origin.text == "true":
		set("Access-Control-Allow-Origin", anyOrigin, part{name: varOrigin})
		set("Vary", anyOrigin, part{text: "Origin"})
	case origin.kind == jsString && origin.name == "" && !strings.HasPrefix(origin.text, patternMark):
		set("Access-Control-Allow-Origin", anyOrigin, part{text: origin.text})
		set("Vary", anyOrigin, part{text: "Origin"})
	case origin.kind == jsArray || len(patterns) > 0:
		if len(patterns) > 0 {
			set("Access-Control-Allow-Origin", []condition{{name: varOrigin, any: patterns}}, part{name: varOrigin})
		}
		set("Vary", anyOrigin, part{text: "Origin"})
	default:
		s.note("The origin option is %.40q, which the snippet does not say: put in the origins.", orName(origin, "code"))
	}
	if v, ok := options.get("credentials"); ok && v.text == "true" {
		set("Access-Control-Allow-Credentials", anyOrigin, part{text: "true"})
	}
	if v, ok := options.get("exposedHeaders"); ok {
		set("Access-Control-Expose-Headers", anyOrigin, part{text: joined(v)})
	}
	methods := "GET,HEAD,PUT,PATCH,POST,DELETE"
	if v, ok := options.get("methods"); ok {
		methods = joined(v)
	}
	set("Access-Control-Allow-Methods", preflight, part{text: methods})
	if v, ok := options.get("allowedHeaders"); ok {
		set("Access-Control-Allow-Headers", preflight, part{text: joined(v)})
	} else {
		set("Access-Control-Allow-Headers", preflight, part{name: varHeaders})
	}
	if v, ok := options.get("maxAge"); ok {
		set("Access-Control-Max-Age", preflight, part{text: joined(v)})
	}
	if v, ok := options.get("optionsSuccessStatus"); ok {
		if status, err := strconv.Atoi(v.text); err == nil && status >= 200 && status < 600 {
			s.statuses = append(s.statuses, setting{value: []part{{text: v.text}}, when: slices.Clone(preflight)})
		}
	}
}
