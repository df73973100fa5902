package web

// FoldName maps a header name to the form in which careless servers compare it: lower
// case, with whatever is no letter and no digit taken for "-". CGI-style variables, where
// X-Real-IP, X.Real.IP and X~Real~IP are all X_REAL_IP, are why.
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
		case (c < 'a' || c > 'z') && (c < '0' || c > '9'):
			c = '-'
		}
		b = append(b, c)
	}
	return b
}
