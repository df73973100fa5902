package credential

import (
	"strconv"
	"strings"
)

// withoutParams removes from a query the parameters with the given folded names. All
// others stay as they are, byte for byte.
//
// Servers differ in what they take for a name: some ignore case and blanks in front, take
// a dot or a bracket for an underscore, end it at a bracket, or split at semicolons too. A parameter
// goes if any of them could take it for one of ours.
func withoutParams(query string, names map[string]bool) string {
	if query == "" {
		return ""
	}
	var b strings.Builder
	for query != "" {
		n := strings.IndexAny(query, "&;") + 1
		if n == 0 {
			n = len(query)
		}
		part := query[:n]
		query = query[n:]
		name, _, _ := strings.Cut(strings.TrimRight(part, "&;"), "=")
		name = strings.TrimLeft(unescape(name), "+ ")
		base, _, _ := strings.Cut(name, "[")
		if !has(names, name) && !has(names, base) {
			b.WriteString(part)
		}
	}
	return strings.TrimSuffix(b.String(), "&")
}

// unescape decodes what can be decoded, as lenient servers do, %u0041 included.
func unescape(s string) string {
	if !strings.Contains(s, "%") {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		from, to := i+1, i+3
		if i+1 < len(s) && (s[i+1] == 'u' || s[i+1] == 'U') {
			from, to = i+2, i+6
		}
		if s[i] == '%' && to <= len(s) {
			if c, err := strconv.ParseUint(s[from:to], 16, 16); err == nil && c < 256 {
				b.WriteByte(byte(c))
				i = to - 1
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
