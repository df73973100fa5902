package explain

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/moat-gateway/moat/browser"
)

// FromCurl reads a curl command: typed by hand, or copied as cURL (bash or cmd) from the
// network panel of Chrome, Firefox or Safari. The question is what would happen if a page
// made that request with fetch. If the text does not tell which page, Page.URL is empty.
//
// Nothing is run and no file is read. Values of cookies and of fields such as
// Authorization are not kept.
func FromCurl(text string) (*Question, error) {
	questions, err := curlCommands(text)
	if err != nil {
		return nil, err
	}
	first := &questions[0]
	if more := len(questions) - 1; more > 0 {
		first.Notes = append(first.Notes, fmt.Sprintf("Only the first command was read; %d more were left out.", more))
	}
	return first, nil
}

// looksLikeCurl reports whether the text begins with a curl command.
func looksLikeCurl(text string) bool {
	text = withoutPrompt(text)
	end := strings.IndexAny(text, " \t\r\n")
	return end > 0 && isCurl(text[:end])
}

func isCurl(word string) bool {
	word = word[strings.LastIndexAny(word, `/\`)+1:]
	return strings.EqualFold(word, "curl") || strings.EqualFold(word, "curl.exe")
}

// withoutPrompt takes away what terminals put before a command.
func withoutPrompt(text string) string {
	text = strings.TrimSpace(text)
	for _, prompt := range []string{"$ ", "% ", "> ", "# ", "sudo "} {
		if rest, ok := strings.CutPrefix(text, prompt); ok {
			return strings.TrimSpace(rest)
		}
	}
	return text
}

// curlCommands reads one command after another, as they are copied with “Copy all”.
func curlCommands(text string) ([]Question, error) {
	if len(text) > maxPaste {
		return nil, tooLarge("curl", len(text), maxPaste, "shorten the body")
	}
	text = withoutPrompt(unwrapPaste(text))
	if !looksLikeCurl(text) {
		return nil, errNoCurl
	}
	split := splitBash
	if looksLikeCmd(text) {
		split = splitCmd
	}
	var questions []Question
	for rest := text; strings.TrimSpace(rest) != ""; {
		c, err := split(withoutPrompt(rest))
		switch {
		case err != nil && len(questions) > 0:
			return questions, nil // what follows is not the command that was asked about
		case err != nil:
			return nil, err
		}
		rest = c.rest
		if len(c.words) == 0 {
			continue
		}
		if !isCurl(c.words[0].text) {
			if len(questions) == 0 {
				return nil, errNoCurl
			}
			last := &questions[len(questions)-1]
			note := "What follows the curl command was left out."
			if c.afterAmpersand {
				note = "An unquoted & ended the command, as it does in a shell; put the URL in quotes if more belongs to it."
			}
			if !slices.Contains(last.Notes, note) {
				last.Notes = append(last.Notes, note)
			}
			continue
		}
		if len(questions) == maxParts {
			return nil, fmt.Errorf("curl: there are more than %d commands; paste fewer", maxParts)
		}
		q, err := c.question()
		if err != nil {
			return nil, err
		}
		questions = append(questions, *q)
		if c.ampersand && strings.TrimSpace(rest) != "" {
			rest = ampersandMark + rest
		}
	}
	return questions, nil
}

var errNoCurl = errors.New("curl: the text does not begin with a curl command; paste all of it, from the word curl on")

// ampersandMark leads what follows an unquoted &. The NUL cannot come from a shell.
const ampersandMark = "\x00"

// word is a word of a command line.
type word struct {
	text string
	// variable is the first of a shell's variables that stand in it unexpanded.
	variable string
}

// command is a command line that was split into words.
type command struct {
	words                     []word
	rest                      string // what follows it
	stdin                     *string
	ampersand, afterAmpersand bool
	notes                     []string
}

// looksLikeCmd reports whether the command is for the Windows command processor: it has a
// ^ outside of quotes that quotes, or joins lines.
func looksLikeCmd(text string) bool {
	for i := 0; i < len(text); i++ {
		switch c := text[i]; c {
		case '\\':
			i++
		case '\'', '"':
			for i++; i < len(text) && text[i] != c; i++ {
				if text[i] == '\\' && c == '"' {
					i++
				}
			}
		case '^':
			next := text[i+1:]
			if strings.HasPrefix(next, `"`) || strings.HasPrefix(next, "\n") || strings.HasPrefix(next, "\r\n") {
				return true
			}
		}
	}
	return false
}

// splitCmd splits as cmd.exe and then the C library do: the first takes the carets, the
// second the quotes and backslashes.
func splitCmd(text string) (*command, error) {
	c := &command{}
	text, c.afterAmpersand = strings.CutPrefix(text, ampersandMark)
	var line strings.Builder
	quoted := false
	i := 0
scan:
	for ; i < len(text); i++ {
		switch b := text[i]; {
		case b == '"':
			quoted = !quoted
			line.WriteByte(b)
		case b == '^' && !quoted:
			if strings.HasPrefix(text[i+1:], "\r\n") {
				i++
			}
			if strings.HasPrefix(text[i+1:], "\n") { // joined; what follows is literal
				i++
				if strings.HasPrefix(text[i+1:], "\r\n") {
					i++
				}
			}
			if i++; i < len(text) {
				line.WriteByte(text[i])
			}
		case b == '\n', b == '&' && !quoted, b == '|' && !quoted:
			c.ampersand = b == '&'
			break scan
		case b == '\r':
		default:
			line.WriteByte(b)
		}
	}
	if i < len(text) {
		c.rest = strings.TrimLeft(text[i:], "&|\r\n\t ")
	}
	return c, c.splitArguments(line.String())
}

// splitArguments splits as Microsoft's C library does
// (https://learn.microsoft.com/cpp/c-language/parsing-c-command-line-arguments).
func (c *command) splitArguments(line string) error {
	var w strings.Builder
	inWord, quoted, skip := false, false, false
	end := func() {
		if inWord && !skip {
			c.words = append(c.words, word{text: w.String()})
		}
		if inWord {
			skip = false
		}
		inWord = false
		w.Reset()
	}
	for i := 0; i < len(line); i++ {
		switch b := line[i]; {
		case b == '\\':
			n := 1
			for i+n < len(line) && line[i+n] == '\\' {
				n++
			}
			inWord = true
			i += n - 1
			if i+1 < len(line) && line[i+1] == '"' {
				w.WriteString(strings.Repeat(`\`, n/2))
				if n%2 == 1 {
					w.WriteByte('"')
					i++
				}
				continue
			}
			w.WriteString(strings.Repeat(`\`, n))
		case b == '"' && quoted && i+1 < len(line) && line[i+1] == '"':
			w.WriteByte('"')
			i++
		case b == '"':
			quoted, inWord = !quoted, true
		case (b == ' ' || b == '\t') && !quoted:
			end()
		case b == '>' && !quoted:
			end()
			skip = true
		default:
			inWord = true
			w.WriteByte(b)
		}
	}
	if quoted {
		return errUnterminated(`"`)
	}
	end()
	return nil
}

func errUnterminated(quote string) error {
	return fmt.Errorf("curl: a quote (%s) is not closed; paste the whole command", quote)
}

// bash splits a POSIX shell's command line, with Bash's $'…' and here-strings
// (https://www.gnu.org/software/bash/manual/bash.html#Quoting). It expands nothing.
type bash struct {
	command
	text   string
	i      int
	word   strings.Builder
	in     bool // within a word
	name   string
	take   func(word) // what to do with the next word, if not to append it
	here   string     // the delimiter of a here-document that begins on the next line
	indent bool       // its tabs are stripped
}

func splitBash(text string) (*command, error) {
	b := &bash{}
	b.text, b.afterAmpersand = strings.CutPrefix(text, ampersandMark)
	for b.i < len(b.text) {
		done, err := b.step()
		if err != nil {
			return nil, err
		}
		if done {
			break
		}
	}
	b.end()
	b.rest = b.text[b.i:]
	return &b.command, nil
}

func (b *bash) end() {
	if !b.in {
		return
	}
	w := word{b.word.String(), b.name}
	b.in, b.name = false, ""
	b.word.Reset()
	if b.take != nil {
		b.take(w)
		b.take = nil
		return
	}
	b.words = append(b.words, w)
}

func (b *bash) put(s string) {
	b.in = true
	b.word.WriteString(s)
}

// step reads what comes next. done is set at the end of the command.
func (b *bash) step() (done bool, err error) {
	c := b.text[b.i]
	b.i++
	switch c {
	case ' ', '\t', '\r':
		b.end()
	case '\n':
		b.end()
		return b.newline(), nil
	case '\\':
		if strings.HasPrefix(b.text[b.i:], "\r\n") {
			b.i++
		}
		switch {
		case b.i == len(b.text):
		case b.text[b.i] == '\n':
			b.i++
		default:
			_, n := utf8.DecodeRuneInString(b.text[b.i:])
			b.put(b.text[b.i : b.i+n])
			b.i += n
		}
	case '\'':
		inner, rest, ok := strings.Cut(b.text[b.i:], "'")
		if !ok {
			return false, errUnterminated("'")
		}
		b.put(inner)
		b.i = len(b.text) - len(rest)
	case '"':
		return false, b.double()
	case '$':
		return false, b.dollar(false)
	case '`':
		return false, errSubstitution("`")
	case '#':
		if b.in {
			b.put("#")
			break
		}
		for b.i < len(b.text) && b.text[b.i] != '\n' {
			b.i++
		}
	case '<', '>':
		b.redirect(c)
	case '|', '&', ';':
		return b.operator(c), nil
	default:
		b.put(b.text[b.i-1 : b.i])
	}
	return false, nil
}

// newline ends the command, unless what follows can only belong to it.
func (b *bash) newline() (done bool) {
	if b.here != "" {
		b.hereDocument()
	}
	rest := strings.TrimLeft(b.text[b.i:], " \t\r\n")
	if len(b.words) == 0 || rest == "" {
		return false
	}
	option := len(rest) > 1 && rest[0] == '-' && rest[1] != ' '
	target := strings.HasPrefix(strings.TrimLeft(rest, `'"`), "http")
	if option || target {
		b.notes = append(b.notes, "A line did not end in \\ although the command goes on; the lines were joined.")
		return false
	}
	return true
}

func (b *bash) hereDocument() {
	var text strings.Builder
	for b.i < len(b.text) {
		line, rest, _ := strings.Cut(b.text[b.i:], "\n")
		b.i = len(b.text) - len(rest)
		if b.indent {
			line = strings.TrimLeft(line, "\t")
		}
		if strings.TrimRight(line, "\r") == b.here {
			break
		}
		text.WriteString(line + "\n")
	}
	s := text.String()
	b.stdin, b.here = &s, ""
}

func (b *bash) operator(c byte) (done bool) {
	b.end()
	if c == '&' && strings.HasPrefix(b.text[b.i:], ">") { // &> redirects both outputs
		b.i++
		b.redirect('>')
		return false
	}
	double := b.i < len(b.text) && b.text[b.i] == c
	for b.i < len(b.text) && strings.IndexByte("|&;\r\n\t ", b.text[b.i]) >= 0 {
		b.i++
	}
	b.ampersand = c == '&' && !double
	return len(b.words) > 0
}

func (b *bash) redirect(c byte) {
	// The number before it is a file descriptor.
	if _, err := strconv.ParseUint(b.word.String(), 10, 8); err != nil {
		b.end()
	}
	b.in, b.name = false, ""
	b.word.Reset()
	n := 1
	for b.i < len(b.text) && (b.text[b.i] == c || strings.IndexByte("&|-", b.text[b.i]) >= 0) && n < 4 {
		b.indent = b.text[b.i] == '-'
		n++
		b.i++
	}
	b.take = func(word) {}
	if c != '<' {
		return
	}
	switch {
	case strings.HasSuffix(b.text[:b.i], "<<<"):
		b.take = func(w word) { s := w.text + "\n"; b.stdin = &s }
	case strings.HasSuffix(strings.TrimSuffix(b.text[:b.i], "-"), "<<"):
		b.take = func(w word) { b.here = w.text }
	}
}

func (b *bash) double() error {
	b.in = true
	for b.i < len(b.text) {
		c := b.text[b.i]
		b.i++
		switch c {
		case '"':
			return nil
		case '\\':
			if b.i == len(b.text) {
				break
			}
			next := b.text[b.i]
			switch {
			case next == '\n':
			case strings.IndexByte("$`\"\\", next) >= 0:
				b.word.WriteByte(next)
			default:
				b.put(`\`)
				continue
			}
			b.i++
		case '$':
			if err := b.dollar(true); err != nil {
				return err
			}
		case '`':
			return errSubstitution("`")
		default:
			b.word.WriteByte(c)
		}
	}
	return errUnterminated(`"`)
}

func errSubstitution(how string) error {
	return fmt.Errorf("curl: a command substitution (%s) is not run; put in what it gives", how)
}

// dollar reads what follows a $. A variable stays as it stands.
func (b *bash) dollar(quoted bool) error {
	rest := b.text[b.i:]
	switch {
	case strings.HasPrefix(rest, "("):
		return errSubstitution("$(")
	case strings.HasPrefix(rest, "'") && !quoted:
		b.i++
		return b.ansi()
	case strings.HasPrefix(rest, `"`) && !quoted:
		b.i++
		return b.double()
	case strings.HasPrefix(rest, "{"):
		inner, _, ok := strings.Cut(rest, "}")
		if !ok {
			return errUnterminated("${")
		}
		b.variable("$" + inner + "}")
		return nil
	}
	n := 0
	for n < len(rest) && (isNameByte(rest[n]) || n > 0 && '0' <= rest[n] && rest[n] <= '9') {
		n++
	}
	if n == 0 {
		b.put("$")
		return nil
	}
	b.variable("$" + rest[:n])
	return nil
}

func (b *bash) variable(text string) {
	b.i += len(text) - 1
	b.put(text)
	if b.name == "" {
		b.name = text
	}
}

func isNameByte(c byte) bool {
	return c == '_' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
}

// ansi reads $'…' from behind the quote.
func (b *bash) ansi() error {
	b.in = true
	for b.i < len(b.text) {
		c := b.text[b.i]
		b.i++
		switch {
		case c == '\'':
			return nil
		case c != '\\' || b.i == len(b.text):
			b.word.WriteByte(c)
		default:
			b.i += ansiEscape(&b.word, b.text[b.i:])
		}
	}
	return errUnterminated("$'")
}

// ansiEscape writes what an escape stands for; s begins behind the backslash. It returns
// how many bytes it took.
func ansiEscape(w *strings.Builder, s string) int {
	digits := func(from, most, base int) (uint64, int) {
		end := from
		for end < len(s) && end < from+most {
			if _, err := strconv.ParseUint(s[end:end+1], base, 8); err != nil {
				break
			}
			end++
		}
		v, err := strconv.ParseUint(s[from:end], base, 32)
		if err != nil {
			return 0, 0
		}
		return v, end - from
	}
	c := s[0]
	if i := strings.IndexByte("abeEfnrtv", c); i >= 0 {
		w.WriteByte("\a\b\x1b\x1b\f\n\r\t\v"[i])
		return 1
	}
	switch c {
	case 'x':
		if v, n := digits(1, 2, 16); n > 0 {
			w.WriteByte(byte(v & 0xff))
			return 1 + n
		}
	case 'u', 'U':
		most := map[byte]int{'u': 4, 'U': 8}[c]
		if v, n := digits(1, most, 16); n > 0 {
			w.WriteRune(rune(min(v, utf8.MaxRune+1)))
			return 1 + n
		}
	case 'c':
		if len(s) > 1 {
			w.WriteByte(s[1] & 0x1f)
			return 2
		}
	case '0', '1', '2', '3', '4', '5', '6', '7':
		v, n := digits(0, 3, 8)
		w.WriteByte(byte(v & 0xff))
		return n
	case '\\', '\'', '"', '?':
		w.WriteByte(c)
		return 1
	}
	w.WriteByte('\\')
	return 0
}

// The options of curl (https://curl.se/docs/manpage.html) that change nothing in what a
// page would do, by whether they take a value.
const (
	quietFlags = ` silent show-error verbose include show-headers compressed location fail fail-with-body fail-early
		http0.9 http1.0 http1.1 http2 http2-prior-knowledge http3 http3-only ipv4 ipv6 buffer no-buffer progress-bar
		progress-meter no-progress-meter remote-name remote-name-all remote-header-name remote-time create-dirs
		parallel parallel-immediate path-as-is tcp-nodelay tcp-fastopen keepalive no-keepalive alpn no-alpn
		tlsv1 tlsv1.0 tlsv1.1 tlsv1.2 tlsv1.3 sslv2 sslv3 ssl ssl-reqd styled-output trace-time trace-ids
		disable raw junk-session-cookies retry-all-errors retry-connrefused basic clobber no-clobber
		remove-on-error use-ascii sessionid no-sessionid cert-status ca-native suppress-connect-headers `
	quietValues = ` output output-dir write-out dump-header stderr trace trace-ascii trace-config connect-timeout
		max-time max-redirs max-filesize retry retry-delay retry-max-time limit-rate speed-limit speed-time rate
		cookie-jar libcurl keepalive-time expect100-timeout parallel-max tls-max ciphers tls13-ciphers curves
		proto proto-default proto-redir happy-eyeballs-timeout-ms etag-save hsts alt-svc create-file-mode `
	// What a page cannot ask for is left out, and the reader is told.
	toldFlags = ` insecure location-trusted digest ntlm negotiate anyauth netrc netrc-optional proxytunnel
		proxy-insecure post301 post302 post303 doh-insecure `
	toldValues = ` proxy preproxy socks4 socks4a socks5 socks5-hostname noproxy proxy-user proxy-header resolve
		connect-to unix-socket abstract-unix-socket cacert capath cert cert-type key key-type pass pinnedpubkey
		doh-url dns-servers interface local-port netrc-file `
	readFlags  = ` head get globoff next `
	readValues = ` request header data data-raw data-binary data-ascii data-urlencode json form form-string user
		oauth2-bearer cookie user-agent referer url url-query range upload-file config `
)

// curlShort are the one-letter options.
var curlShort = map[byte]string{
	'X': "request", 'H': "header", 'd': "data", 'F': "form", 'u': "user", 'b': "cookie", 'A': "user-agent",
	'e': "referer", 'I': "head", 'G': "get", 'L': "location", 'k': "insecure", 's': "silent", 'S': "show-error",
	'v': "verbose", 'i': "include", 'o': "output", 'O': "remote-name", 'J': "remote-header-name",
	'R': "remote-time", 'x': "proxy", 'm': "max-time", 'f': "fail", 'g': "globoff", 'N': "no-buffer",
	'w': "write-out", 'D': "dump-header", 'c': "cookie-jar", 'j': "junk-session-cookies", 'E': "cert",
	'T': "upload-file", 'K': "config", 'n': "netrc", 'p': "proxytunnel", 'U': "proxy-user", 'r': "range",
	'y': "speed-time", 'Y': "speed-limit", '#': "progress-bar", '0': "http1.0", '1': "tlsv1", '2': "sslv2",
	'3': "sslv3", '4': "ipv4", '6': "ipv6", 'q': "disable", 'Z': "parallel", ':': "next", 'B': "use-ascii",
}

// curlOption says what an option is.
type curlOption struct{ takesValue, quiet, told bool }

// curlOptions are the options by their long names.
var curlOptions = func() map[string]curlOption {
	all := map[string]curlOption{}
	for names, option := range map[string]curlOption{
		quietFlags:  {quiet: true},
		quietValues: {quiet: true, takesValue: true},
		toldFlags:   {told: true},
		toldValues:  {told: true, takesValue: true},
		readFlags:   {},
		readValues:  {takesValue: true},
	} {
		for name := range strings.FieldsSeq(names) {
			all[name] = option
		}
	}
	return all
}()

// curl is a command whose options are being read.
type curl struct {
	sent
	stdin    *string
	urls     []word
	query    []string
	data     strings.Builder
	hasData  bool
	form     bool
	get      bool
	head     bool
	globoff  bool
	next     bool
	json     bool
	removed  []string // names given as "Name:"
	explicit string   // -X
}

// question reads the options.
func (c *command) question() (*Question, error) {
	r := curl{sent: sent{source: "curl", notes: c.notes}, stdin: c.stdin}
	for args := c.words[1:]; len(args) > 0 && !r.next; {
		arg := args[0]
		args = args[1:]
		var err error
		switch {
		case strings.HasPrefix(arg.text, "--") && len(arg.text) > 2:
			args, err = r.long(arg, args)
		case strings.HasPrefix(arg.text, "-") && len(arg.text) > 1 && arg.text != "--":
			args, err = r.short(arg, args)
		case arg.text != "--":
			r.urls = append(r.urls, arg)
		}
		if err != nil {
			return nil, err
		}
	}
	return r.finish()
}

func (r *curl) long(arg word, args []word) ([]word, error) {
	name, value, attached := strings.Cut(arg.text[2:], "=")
	option, ok := curlOptions[name]
	switch {
	case !ok:
		return nil, fmt.Errorf("curl: option %s is not known to moat explain; remove it", short("--"+name))
	case !option.takesValue && attached:
		return nil, fmt.Errorf("curl: option %s takes no value; remove what follows the =", short("--"+name))
	case !option.takesValue:
		return args, r.apply(name, word{})
	case attached:
		return args, r.apply(name, word{value, arg.variable})
	case len(args) == 0:
		return nil, errNoValue("--" + name)
	}
	return args[1:], r.apply(name, args[0])
}

// short reads letters in a bundle, such as -sSL; the first that takes a value takes the
// rest.
func (r *curl) short(arg word, args []word) ([]word, error) {
	for i := 1; i < len(arg.text); i++ {
		letter := "-" + arg.text[i:i+1]
		name, ok := curlShort[arg.text[i]]
		if !ok {
			return nil, fmt.Errorf("curl: option %s is not known to moat explain; remove it", short(letter))
		}
		if !curlOptions[name].takesValue {
			if err := r.apply(name, word{}); err != nil {
				return nil, err
			}
			continue
		}
		if rest := arg.text[i+1:]; rest != "" {
			return args, r.apply(name, word{rest, arg.variable})
		}
		if len(args) == 0 {
			return nil, errNoValue(letter)
		}
		return args[1:], r.apply(name, args[0])
	}
	return args, nil
}

func errNoValue(option string) error {
	return fmt.Errorf("curl: option %s lacks its value; paste the whole command, or remove the option", short(option))
}

func (r *curl) apply(name string, v word) error {
	switch option := curlOptions[name]; {
	case option.quiet:
		return nil
	case name == "insecure":
		r.note("--insecure was left out: a browser checks certificates.")
		return nil
	case option.told:
		r.note("--%s was left out: a page has no say in that.", name)
		return nil
	}
	if v.variable != "" {
		r.note("%s was left as it stands: no shell puts in its value here.", short(v.variable))
	}
	value := v.text
	switch name {
	case "request":
		if v.variable != "" || !isToken(value) {
			return fmt.Errorf("curl: -X %s is no method; put one in, such as GET", short(value))
		}
		r.explicit = value
	case "header":
		return r.field(value)
	case "data", "data-ascii", "data-binary":
		r.addData(r.file(value))
	case "data-raw":
		r.addData(value)
	case "data-urlencode":
		r.addData(r.urlencode(value))
	case "json":
		r.data.WriteString(r.file(value)) // pieces are joined without an &
		r.json, r.hasData = true, true
	case "form", "form-string":
		r.form = true
		if _, content, _ := strings.Cut(value, "="); name == "form" && (strings.HasPrefix(content, "@") || strings.HasPrefix(content, "<")) {
			r.note("The file of a form field is not read; it does not matter to what a browser does.")
		}
	case "user":
		r.header = append(r.header, browser.Field{Name: "Authorization", Value: "Basic " + hidden})
		r.note("-u became an Authorization header field, as script would have to set it.")
	case "oauth2-bearer":
		r.header = append(r.header, browser.Field{Name: "Authorization", Value: "Bearer " + hidden})
	case "cookie":
		if !strings.Contains(value, "=") && value != "" {
			r.note("The cookie file of -b is not read; give cookies as -b name=value.")
			return nil
		}
		r.cookies = append(r.cookies, cookieNames(value)...)
	case "user-agent":
		r.header = append(r.header, browser.Field{Name: "User-Agent", Value: value})
	case "referer":
		r.referer, _, _ = strings.Cut(value, ";")
	case "url":
		r.urls = append(r.urls, v)
	case "url-query":
		if strings.HasPrefix(value, "+") {
			value = value[1:]
		} else {
			value = r.urlencode(value)
		}
		r.query = append(r.query, value)
	case "range":
		r.header = append(r.header, browser.Field{Name: "Range", Value: "bytes=" + value})
	case "head":
		r.head = true
	case "get":
		r.get = true
	case "globoff":
		r.globoff = true
	case "next":
		r.next = true
		r.note("What follows --next was left out.")
	case "upload-file":
		return errors.New("curl: -T sends a file, which moat explain does not read; use -X PUT with --data-raw instead")
	case "config":
		return errors.New("curl: -K takes options from a file, which moat explain does not read; put its options in their place")
	}
	return nil
}

// field reads the value of -H.
func (r *curl) field(value string) error {
	if strings.HasPrefix(value, "@") {
		return fmt.Errorf("curl: -H %s takes header fields from a file, which moat explain does not read; put them in its place", short(value))
	}
	name, content, ok := strings.Cut(value, ":")
	if strings.HasPrefix(value, ":") { // HTTP/2's, as old versions of Chrome copied them
		return nil
	}
	if !ok {
		if name, ok = strings.CutSuffix(value, ";"); !ok {
			// The value is not shown: whoever forgot the colon may have pasted a secret.
			return errors.New(`curl: the value of a -H has no colon; write it as -H "Name: value"`)
		}
		r.header = append(r.header, browser.Field{Name: strings.TrimSpace(name)})
		return nil
	}
	name, content = strings.TrimSpace(name), strings.Trim(content, " \t")
	if content == "" {
		r.removed = append(r.removed, name)
		return nil
	}
	if len(r.header) >= maxFields {
		return fmt.Errorf("curl: there are more than %d header fields; remove some", maxFields)
	}
	r.header = append(r.header, browser.Field{Name: name, Value: content})
	return nil
}

// file returns what -d sends: a file's content is not known.
func (r *curl) file(value string) string {
	if !strings.HasPrefix(value, "@") {
		return value
	}
	if value == "@-" && r.stdin != nil {
		return *r.stdin
	}
	r.note("The file %s is not read; what is in it does not matter to what a browser does.", short(value))
	return ""
}

func (r *curl) urlencode(value string) string {
	at := strings.IndexAny(value, "=@")
	if at < 0 {
		return url.QueryEscape(value)
	}
	name, content := value[:at], value[at+1:]
	if value[at] == '@' {
		content = r.file("@" + content)
	}
	if name == "" {
		return url.QueryEscape(content)
	}
	return name + "=" + url.QueryEscape(content)
}

func (r *curl) addData(value string) {
	if r.hasData {
		r.data.WriteByte('&')
	}
	r.data.WriteString(value)
	r.hasData = true
}

// finish puts the options together, as curl does.
func (r *curl) finish() (*Question, error) {
	if err := r.findURL(); err != nil {
		return nil, err
	}
	r.recorded = looksRecorded(r.header)
	r.method = "GET"
	switch {
	case r.head:
		r.method = "HEAD"
	case r.get:
		if r.hasData {
			r.query = append(r.query, r.data.String())
		}
		r.hasData = false
	case r.form, r.hasData:
		r.method = "POST"
	}
	if r.explicit != "" {
		r.method = r.explicit
	}
	if len(r.query) > 0 {
		r.url = withQuery(r.url, strings.Join(r.query, "&"))
	}
	r.findBody()
	return r.question()
}

func (r *curl) findURL() error {
	if len(r.urls) == 0 {
		return errors.New("curl: the command has no URL; paste all of it")
	}
	target := r.urls[0]
	if more := len(r.urls) - 1; more > 0 {
		r.note("Only the first of the URLs was read; %d more were left out.", more)
	}
	if target.variable != "" {
		return fmt.Errorf("curl: the URL has the shell's variable %s; put its value in", short(target.variable))
	}
	r.url = strings.TrimSpace(target.text)
	if !strings.Contains(r.url, "://") && r.url != "" {
		r.url = "http://" + r.url
		r.note("The URL had no scheme; curl takes http.")
	}
	if strings.ContainsAny(r.url, "{}") && !r.globoff {
		r.note("The braces in the URL were taken as they stand; curl would expand them.")
	}
	return nil
}

func withQuery(raw, query string) string {
	before, fragment, found := strings.Cut(raw, "#")
	switch {
	case !strings.Contains(before, "?"):
		before += "?"
	case !strings.HasSuffix(before, "?") && !strings.HasSuffix(before, "&"):
		before += "&"
	}
	before += query
	if found {
		before += "#" + fragment
	}
	return before
}

func (r *curl) findBody() {
	if r.form {
		r.body = &browser.Body{Kind: "form-data"}
		return
	}
	if !r.hasData {
		return
	}
	r.body = &browser.Body{Kind: "text", Text: r.data.String()}
	typ, accept := "application/x-www-form-urlencoded", ""
	if r.json {
		typ, accept = "application/json", "application/json"
	}
	switch {
	case containsFold(r.removed, "Content-Type"):
		r.body.Kind = "buffer"
		r.note("The body is sent without Content-Type, as a page does with an ArrayBuffer or an untyped Blob.")
	case !r.header.Has("Content-Type"):
		r.header = append(r.header, browser.Field{Name: "Content-Type", Value: typ})
		if !r.json {
			r.note("-d sends Content-Type: %s unless told otherwise.", typ)
		}
	}
	if accept != "" && !r.header.Has("Accept") && !containsFold(r.removed, "Accept") {
		r.header = append(r.header, browser.Field{Name: "Accept", Value: accept})
	}
}
