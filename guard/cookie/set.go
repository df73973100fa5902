package cookie

import (
	"strconv"
	"strings"

	"github.com/moat-gateway/moat/guard"
)

// maxAttribute is how long an attribute's value is at most: browsers ignore the attribute
// otherwise (RFC 6265bis section 5.6).
const maxAttribute = 1024

const blanks = " \t"

type attribute uint8

const (
	other attribute = iota
	secureAttr
	httpOnlyAttr
	sameSiteAttr
	domainAttr
	pathAttr
	partitionedAttr
)

var attributes = [...]string{
	secureAttr: "secure", httpOnlyAttr: "httponly", sameSiteAttr: "samesite", domainAttr: "domain", pathAttr: "path", partitionedAttr: "partitioned",
}

// attributeOf reads an attribute as browsers do.
func attributeOf(av string) (a attribute, value string) {
	name, value, _ := strings.Cut(av, "=")
	name, value = strings.Trim(name, blanks), strings.Trim(value, blanks)
	if len(value) > maxAttribute {
		return other, ""
	}
	for i, s := range attributes {
		if s != "" && equalFold(name, s) {
			return attribute(i), value
		}
	}
	return other, ""
}

// equalFold compares without regard to the case of ASCII letters. strings.EqualFold would
// take "ſecure" for Secure, which no browser does.
func equalFold(s, lower string) bool {
	return len(s) == len(lower) && hasPrefixFold(s, lower)
}

func hasPrefixFold(s, lower string) bool {
	if len(s) < len(lower) {
		return false
	}
	for i := range len(lower) {
		c := s[i]
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		if c != lower[i] {
			return false
		}
	}
	return true
}

// cut cuts a Set-Cookie line into its parts. A pair without "=" is a value without a name.
func cut(line string) (pair, name, value, rest string) {
	pair, rest = line, ""
	if i := strings.IndexByte(line, ';'); i >= 0 {
		pair, rest = line[:i], line[i:]
	}
	name, value, ok := strings.Cut(pair, "=")
	if !ok {
		name, value = "", pair
	}
	return pair, strings.Trim(name, blanks), strings.Trim(value, blanks), rest
}

func nameOf(line string) string {
	_, name, _, _ := cut(line)
	return name
}

// next cuts the first attribute off what begins with ";".
func next(rest string) (av, more string) {
	if i := strings.IndexByte(rest[1:], ';'); i >= 0 {
		return rest[1 : i+1], rest[i+1:]
	}
	return rest[1:], ""
}

// found is what a line says of the attributes that matter. The last one of a name counts.
type found struct {
	count    [len(attributes)]int
	sameSite string // "", Lax, Strict or None
	path     string
}

func read(rest string) (f found) {
	for rest != "" {
		var av string
		av, rest = next(rest)
		a, value := attributeOf(av)
		f.count[a]++
		switch a { //nolint:exhaustive // the others' values say nothing.
		case sameSiteAttr:
			f.sameSite = sameSiteOf(value)
		case pathAttr:
			f.path = value
		}
	}
	return f
}

func sameSiteOf(value string) string {
	switch {
	case equalFold(value, "lax"):
		return "Lax"
	case equalFold(value, "strict"):
		return "Strict"
	case equalFold(value, "none"):
		return "None"
	}
	return ""
}

// prefixed is what browsers ask of a cookie whose name begins so, in whatever case (RFC
// 6265bis section 5.7). Secure they ask of all.
type prefixed struct {
	prefix         string
	host, httpOnly bool
}

// prefixes has the longer ones first.
var prefixes = [...]prefixed{
	{"__host-http-", true, true},
	{"__host-", true, false},
	{"__secure-", false, false},
	{"__http-", false, true},
}

func prefixOf(name string) prefixed {
	for _, p := range prefixes {
		if hasPrefixFold(name, p.prefix) {
			return p
		}
	}
	return prefixed{}
}

// change is what becomes of a line.
type change struct {
	drop [len(attributes)]bool
	add  []string
	said []string
}

func (c *change) replace(a attribute, by string) {
	c.drop[a] = true
	c.append(by)
}

func (c *change) append(attr string) {
	c.add, c.said = append(c.add, attr), append(c.said, attr)
}

// harden returns the line with what it lacks, or "" if no browser should get it.
func (g *Guard) harden(line string, secure bool) (string, guard.Decision) {
	pair, name, value, rest := cut(line)
	prefix := g.prefixFor(name, secure)
	if fault := g.fault(line, prefix+name, value); fault != "" {
		return "", dropped(name, fault)
	}
	needs := prefixOf(prefix + name)
	bare := (prefix + name)[len(needs.prefix):]
	f := read(rest)
	var c change
	if prefix != "" {
		c.said = append(c.said, prefix)
	}
	if (needs.host || g.hostOnly) && f.count[domainAttr] > 0 {
		c.drop[domainAttr] = true
		c.said = append(c.said, "no Domain")
	}
	if needs.host && f.path != "/" {
		c.replace(pathAttr, "Path=/")
	}
	if want := g.wantSameSite(&f); want != "" {
		c.replace(sameSiteAttr, "SameSite="+want)
		f.sameSite = want
	}
	apart := f.count[partitionedAttr] > 0
	if secure && !apart && g.partitioned.covers(name, bare) {
		apart = true
		c.append("Partitioned")
	}
	// Browsers ignore the cookie otherwise, where it is not for the policy to say.
	if f.count[secureAttr] == 0 && (secure && !g.allowInsecure || needs.prefix != "" || apart || f.sameSite == "None") {
		c.append("Secure")
	}
	if f.count[httpOnlyAttr] == 0 && (needs.httpOnly || g.hides(name, bare)) {
		c.append("HttpOnly")
	}
	if len(c.said) == 0 {
		return line, guard.Decision{}
	}
	return c.apply(pair, prefix, rest), guard.Decision{
		Outcome: guard.Amend, Reason: guard.CookieHardened,
		Evidence: guard.Evidence{Where: "Set-Cookie", Got: name, Want: strings.Join(c.said, ", ")},
	}
}

// apply writes the line. What does not change keeps its bytes.
func (c *change) apply(pair, prefix, rest string) string {
	var b strings.Builder
	b.Grow(len(pair) + len(rest) + 80)
	begin := len(pair) - len(strings.TrimLeft(pair, blanks))
	b.WriteString(pair[:begin])
	b.WriteString(prefix)
	b.WriteString(pair[begin:])
	for rest != "" {
		var av string
		av, rest = next(rest)
		if a, _ := attributeOf(av); !c.drop[a] {
			b.WriteByte(';')
			b.WriteString(av)
		}
	}
	for _, attr := range c.add {
		b.WriteString("; ")
		b.WriteString(attr)
	}
	return b.String()
}

// prefixFor is what the browser is to keep the cookie with. Over plain http it would not.
func (g *Guard) prefixFor(name string, secure bool) string {
	switch {
	case !secure, name == "", prefixOf(name).prefix != "":
		return ""
	case g.host.match(name):
		return hostPrefix
	case g.secureNames.match(name):
		return securePrefix
	}
	return ""
}

// fault says why browsers would ignore the cookie, or take it for something else.
func (g *Guard) fault(line, name, value string) string {
	for i := range len(line) {
		if c := line[i]; c < ' ' && c != '\t' || c == 0x7f {
			return "no control characters"
		}
	}
	switch {
	case name == "" && value == "":
		return "a name or a value"
	case name == "" && prefixOf(value).prefix != "":
		return "a name" // it would come back as that of a cookie with a prefix
	case len(name)+len(value) > g.maxBytes:
		return "at most " + strconv.Itoa(g.maxBytes) + " bytes"
	}
	return ""
}

// wantSameSite is the value that has to be set in the place of all that there are, or "".
func (g *Guard) wantSameSite(f *found) string {
	want := f.sameSite
	switch g.sameSite {
	case Keep:
		return ""
	case Strict:
		want = "Strict"
	case AtLeastLax:
		if want == "None" {
			want = "Lax"
		}
	case None:
	}
	if want == "" {
		want = "Lax"
	}
	if want == f.sameSite && f.count[sameSiteAttr] == 1 {
		return ""
	}
	return want
}

// hides reports whether script must not read the cookie.
func (g *Guard) hides(name, bare string) bool {
	switch {
	case name == "", g.script.covers(name, bare):
		return false
	case g.sessions:
		return looksLikeSession(bare)
	}
	return g.httpOnly.covers(name, bare)
}

// looksLikeSession reports whether a cookie's name is like those of sessions and tokens.
// CSRF tokens, which script has to read, are none.
func looksLikeSession(name string) bool {
	name = strings.ToLower(name)
	has := func(s string) bool { return strings.Contains(name, s) }
	switch {
	case has("csrf"), has("xsrf"):
		return false
	case has("sess"), strings.HasSuffix(name, "sid"), has("token"), has("jwt"), has("remember"):
		return true
	}
	return has("auth") && !has("author")
}
