package explain

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

var (
	nginxLine   = regexp.MustCompile(`(?m)(^|[{;\s])add_header\s`)
	apacheLine  = regexp.MustCompile(`(?im)^\s*Header\s+(always\s+|onsuccess\s+)?(set|setifempty|add|append|merge|echo|edit\*?|unset)\s`)
	expressCall = regexp.MustCompile(`\bcors\s*\(|\b(res|response|reply|ctx)\s*\.\s*(header|set|setHeader|append)\s*\(`)
)

// nginxWord is a word of nginx's language. Quotes keep it from being an operator.
type nginxWord struct {
	text   string
	quoted bool
}

// nginxWords takes the text apart.
func nginxWords(text string) ([]nginxWord, error) {
	var words []nginxWord
	for i := 0; i < len(text); {
		switch c := text[i]; c {
		case ' ', '\t', '\r', '\n':
			i++
		case '#':
			if end := strings.IndexByte(text[i:], '\n'); end >= 0 {
				i += end
			} else {
				i = len(text)
			}
		case ';', '{', '}', '(', ')':
			words = append(words, nginxWord{text: string(c)})
			i++
		case '"', '\'':
			var s strings.Builder
			j := i + 1
			for ; j < len(text) && text[j] != c; j++ {
				if text[j] == '\\' && j+1 < len(text) && text[j+1] == c {
					j++
				}
				s.WriteByte(text[j])
			}
			if j >= len(text) {
				return nil, fmt.Errorf("line %d: a string (%c) is not closed", 1+strings.Count(text[:i], "\n"), c)
			}
			words = append(words, nginxWord{s.String(), true})
			i = j + 1
		default:
			// A pattern may hold parentheses and braces; it ends with white space.
			j := i
			for depth := 0; j < len(text); j++ {
				c := text[j]
				if c == '\\' {
					j++
					continue
				}
				if strings.IndexByte(" \t\r\n;", c) >= 0 || c == '{' && depth == 0 && (j == i || text[j-1] != '$') || c == ')' && depth == 0 {
					break
				}
				depth += strings.Count("(", string(c)) - strings.Count(")", string(c))
			}
			j = min(max(j, i+1), len(text))
			words = append(words, nginxWord{text: text[i:j]})
			i = j
		}
	}
	return words, nil
}

var nginxVariable = regexp.MustCompile(`\$(\w+|\{\w+\})`)

func nginxParts(text string) []part {
	var parts []part
	at := 0
	for _, m := range nginxVariable.FindAllStringSubmatchIndex(text, -1) {
		if m[0] > at {
			parts = append(parts, part{text: text[at:m[0]]})
		}
		parts = append(parts, part{name: strings.Trim(text[m[2]:m[3]], "{}")})
		at = m[1]
	}
	if at < len(text) {
		parts = append(parts, part{text: text[at:]})
	}
	return parts
}

// nginx reads add_header, and the map, if, set and return on which it hangs.
func (s *Snippet) nginx(text string) error {
	words, err := nginxWords(text)
	if err != nil {
		return err
	}
	s.nested = true
	type block struct {
		number int
		kind   string
		source string // of a map
		target string
		when   []condition
	}
	open := []block{{}}
	blocks, locations := 0, 0
	var line []nginxWord
	for _, w := range words {
		in := &open[len(open)-1]
		if w.quoted || w.text != ";" && w.text != "{" && w.text != "}" {
			line = append(line, w)
			continue
		}
		switch w.text {
		case "}":
			if len(open) > 1 {
				open = open[:len(open)-1]
			}
		case "{":
			if len(open) > 20 {
				return fmt.Errorf("blocks are nested more than 20 deep")
			}
			blocks++
			b := block{number: blocks, when: slices.Clone(in.when)}
			if len(line) > 0 {
				b.kind = line[0].text
			}
			switch b.kind {
			case "map":
				if len(line) == 3 {
					b.source, b.target = strings.TrimPrefix(line[1].text, "$"), strings.TrimPrefix(line[2].text, "$")
				}
			case "if":
				b.when = append(b.when, s.nginxCondition(line[1:]))
			case "location":
				if locations++; locations > 1 {
					s.note("It has several locations: of those that set headers, the last one counts here. Paste one alone to see what it does.")
				}
			}
			open = append(open, b)
		case ";":
			switch {
			case in.kind == "map" && len(line) == 2:
				s.nginxEntry(in.source, in.target, line[0], line[1])
			case len(line) >= 3 && line[0].text == "add_header":
				value := line[2].text
				always := len(line) > 3 && line[3].text == "always"
				if !always {
					s.note("add_header without always leaves the header out of errors, such as 401 and 404: the page cannot read those.")
				}
				s.settings = append(s.settings, setting{name: line[1].text, value: nginxParts(value), when: in.when, add: true, block: in.number})
			case len(line) == 3 && line[0].text == "set":
				name := strings.TrimPrefix(line[1].text, "$")
				s.vars[name] = append(s.vars[name], setting{name: name, value: nginxParts(line[2].text), when: in.when})
			case len(line) >= 2 && line[0].text == "return":
				if status, err := strconv.Atoi(line[1].text); err == nil && status >= 200 && status < 600 {
					s.statuses = append(s.statuses, setting{value: []part{{text: line[1].text}}, when: in.when})
				}
			}
		}
		line = line[:0]
	}
	if len(s.statuses) == 0 {
		s.note("Who answers a preflight (OPTIONS) is not in the snippet. Its status is taken to be 204.")
	}
	s.unknownVariables()
	return nil
}

// nginxEntry is a line of a map. Texts come before patterns, and of those the first counts.
func (s *Snippet) nginxEntry(source, target string, key, value nginxWord) {
	entry := setting{name: target, value: nginxParts(value.text)}
	m := matcher{text: strings.TrimPrefix(key.text, `\`)}
	pattern, ok := strings.CutPrefix(key.text, "~")
	if ok {
		rest, fold := strings.CutPrefix(pattern, "*")
		if m, ok = s.patternOf(rest, fold); !ok {
			return
		}
	}
	entry.when = []condition{{name: source, any: []matcher{m}}}
	list := s.vars[target]
	switch {
	case key.text == "default":
		entry.when = nil
		s.vars[target] = append([]setting{entry}, list...)
	case m.pattern != nil:
		at := slices.IndexFunc(list, func(x setting) bool { return len(x.when) > 0 })
		if at < 0 {
			at = len(list)
		}
		s.vars[target] = slices.Insert(list, at, entry)
	default:
		s.vars[target] = append(list, entry)
	}
}

// nginxCondition reads what stands between if and its block. One that is not known does
// not hold.
func (s *Snippet) nginxCondition(line []nginxWord) condition {
	var words []string
	for _, w := range line {
		if !w.quoted && (w.text == "(" || w.text == ")") {
			continue
		}
		words = append(words, w.text)
	}
	never := condition{name: varMethod}
	if len(words) == 0 || !strings.HasPrefix(words[0], "$") {
		s.note("A condition of an if could not be read and is taken not to hold.")
		return never
	}
	c := condition{name: strings.TrimPrefix(words[0], "$")}
	if len(words) == 1 {
		return condition{name: c.name, any: []matcher{{}, {text: "0"}}, not: true}
	}
	operator := words[1]
	operand := strings.Join(words[2:], " ")
	if len(words) == 2 { // "=GET" in one word
		i := strings.LastIndexAny(operator, "=~*") + 1
		operator, operand = operator[:i], operator[i:]
	}
	c.not = strings.HasPrefix(operator, "!")
	switch strings.TrimPrefix(operator, "!") {
	case "=":
		c.any = []matcher{{text: operand}}
	case "~", "~*":
		m, ok := s.patternOf(operand, strings.HasSuffix(operator, "*"))
		if !ok {
			return never
		}
		c.any = []matcher{m}
	default:
		s.note("A condition of an if could not be read and is taken not to hold.")
		return never
	}
	return c
}

// unknownVariables notes what the values depend on and the snippet does not say.
func (s *Snippet) unknownVariables() {
	known := func(name string) bool {
		return name == varOrigin || name == varMethod || name == varHeaders || len(s.vars[name]) > 0
	}
	each := func(g setting) {
		for _, p := range g.value {
			if p.name != "" && !known(p.name) {
				s.note("%.40s depends on %.40q, which the snippet does not say; it was left out.", g.name, p.name)
			}
		}
		for _, c := range g.when {
			if !known(c.name) {
				s.note("%.40s is set on a condition on %.40q, which the snippet does not say; it was left out.", g.name, c.name)
			}
		}
	}
	for _, g := range s.settings {
		each(g)
	}
	for _, name := range sortedKeys(s.vars) {
		for _, g := range s.vars[name] {
			each(g)
		}
	}
}

var apacheVariable = regexp.MustCompile(`%\{([^}]*)\}[ei]|%\{HTTP:([^}]*)\}`)

// apache reads Header, and SetEnvIf on which it hangs.
func (s *Snippet) apache(text string) {
	for line := range strings.SplitSeq(strings.ReplaceAll(text, "\\\n", " "), "\n") {
		words := apacheWords(line)
		if len(words) == 0 || strings.HasPrefix(words[0], "#") || strings.HasPrefix(words[0], "<") {
			continue
		}
		switch strings.ToLower(words[0]) {
		case "setenvif", "setenvifnocase":
			s.apacheVariable(words)
		case "header":
			s.apacheHeader(words[1:])
		case "rewritecond", "rewriterule":
			if slices.Contains(words, "%{REQUEST_METHOD}") || strings.Contains(words[len(words)-1], "R=") {
				s.note("Rewrite rules are not read: whether they answer the preflight is not known. Its status is taken to be 204.")
			}
		}
	}
	s.unknownVariables()
}

func apacheWords(line string) []string {
	var words []string
	for line = strings.TrimSpace(line); line != ""; line = strings.TrimLeft(line, " \t\r") {
		if line[0] == '"' {
			if q, err := strconv.QuotedPrefix(line); err == nil {
				// Apache's backslash escapes nothing but a quote.
				words = append(words, strings.ReplaceAll(q[1:len(q)-1], `\"`, `"`))
				line = line[len(q):]
				continue
			}
			if inner, rest, ok := strings.Cut(line[1:], `"`); ok {
				words = append(words, inner)
				line = rest
				continue
			}
		}
		i := strings.IndexAny(line, " \t\r")
		if i < 0 {
			i = len(line)
		}
		words = append(words, line[:i])
		line = line[i:]
	}
	return words
}

// apacheVariable reads SetEnvIf Origin PATTERN NAME=VALUE.
func (s *Snippet) apacheVariable(words []string) {
	if len(words) < 4 || !strings.EqualFold(words[1], "Origin") {
		return
	}
	m, ok := s.patternOf(words[2], strings.EqualFold(words[0], "SetEnvIfNoCase"))
	if !ok {
		return
	}
	for _, w := range words[3:] {
		name, value, given := strings.Cut(w, "=")
		v := setting{name: name, value: []part{{text: "1"}}, when: []condition{{name: varOrigin, any: []matcher{m}}}}
		switch {
		case given && strings.Contains(value, "$"):
			if value != "$0" {
				s.note("%.40s=%.40s is taken to be the whole Origin.", name, value)
			}
			v.value = []part{{name: varOrigin}}
		case given:
			v.value = []part{{text: value}}
		}
		if len(s.vars[name]) == 0 {
			s.vars[name] = []setting{{name: name}} // empty for other origins
		}
		s.vars[name] = append(s.vars[name], v)
	}
}

// apacheHeader reads what stands behind Header.
func (s *Snippet) apacheHeader(words []string) {
	if len(words) > 0 && (strings.EqualFold(words[0], "always") || strings.EqualFold(words[0], "onsuccess")) {
		words = words[1:]
	}
	if len(words) < 3 {
		return
	}
	action := strings.ToLower(words[0])
	switch action {
	case "set", "setifempty", "add", "append", "merge":
	default:
		s.note("Header %.20s is not read.", action)
		return
	}
	value := strings.TrimPrefix(words[2], "expr=")
	g := setting{name: words[1], add: action != "set"}
	at := 0
	for _, m := range apacheVariable.FindAllStringSubmatchIndex(value, -1) {
		if m[0] > at {
			g.value = append(g.value, part{text: value[at:m[0]]})
		}
		name := value[max(m[2], m[4]):max(m[3], m[5])]
		if strings.EqualFold(name, "Origin") && len(s.vars[name]) == 0 {
			name = varOrigin
		}
		g.value = append(g.value, part{name: name})
		at = m[1]
	}
	if rest := value[at:]; rest != "" {
		g.value = append(g.value, part{text: rest})
	}
	for _, w := range words[3:] {
		if name, ok := strings.CutPrefix(w, "env="); ok {
			unset, not := strings.CutPrefix(name, "!")
			g.when = append(g.when, condition{name: unset, any: []matcher{{}}, not: !not})
			continue
		}
		if strings.HasPrefix(w, "expr=") || strings.HasPrefix(w, "early") {
			s.note("%.40s is set on a condition that is not read; it is taken to hold.", g.name)
		}
	}
	s.settings = append(s.settings, g)
}
