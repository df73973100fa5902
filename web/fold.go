package web

// FoldName maps a header name to the form in which careless servers compare it: lower
// case, with "_" and "." taken for "-". CGI-style variables (X_REAL_IP) are why.
func FoldName(name string) string {
	return string(AppendFolded(make([]byte, 0, len(name)), name))
}

// AppendFolded appends the folded name to b.
func AppendFolded(b []byte, name string) []byte {
	for i := range len(name) {
		c := name[i]
		switch {
		case 'A' <= c && c <= 'Z':
			c += 'a' - 'A'
		case c == '_', c == '.':
			c = '-'
		}
		b = append(b, c)
	}
	return b
}
