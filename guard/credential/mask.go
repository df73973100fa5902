package credential

import (
	"bytes"
	"encoding/json"
	"errors"
	"html"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// mask finds secrets, and puts asterisks in their place. It is immutable.
type mask struct {
	needles []needle
	longest int
}

// needle is one form of one secret.
type needle struct {
	text []byte
	str  string
	// rare is the offset of the byte that ordinary text has least: the search looks for it
	// with IndexByte, which passes over some 30 bytes in a step.
	rare int
}

func newMask(secrets []string) *mask {
	m := new(mask)
	var forms []string
	for _, s := range secrets {
		forms = append(forms, spellings(s)...)
	}
	slices.Sort(forms)
	for _, form := range slices.Compact(forms) {
		m.needles = append(m.needles, needle{text: []byte(form), str: form, rare: rarest(form)})
		m.longest = max(m.longest, len(form))
	}
	return m
}

// spellings are the forms in which a server that repeats a secret may write it: as it is,
// in a URL, in JSON, in HTML.
func spellings(s string) []string {
	quoted, _ := json.Marshal(s) // a string always can be
	inJSON := strings.Trim(string(quoted), `"`)
	query, path := url.QueryEscape(s), url.PathEscape(s)
	return []string{
		s, query, path, lowerHex(query), lowerHex(path), inJSON, strings.ReplaceAll(s, "/", `\/`), html.EscapeString(s),
	}
}

// lowerHex turns %2F into %2f.
func lowerHex(s string) string {
	b := []byte(s)
	for i := 0; i+2 < len(b); i++ {
		if b[i] == '%' {
			copy(b[i:], bytes.ToLower(b[i:i+3]))
		}
	}
	return string(b)
}

// common are bytes of ordinary text, the most frequent first.
const common = " etaoinsrhldcum\",fpgwybv:.kx0123456789-_/jqz\n=<>{}[]()ESTAINORCLDMPBFHGUWVYKXJQZ"

// rarest is the offset of the byte of s that is least common.
func rarest(s string) int {
	best, rank := 0, -1
	for i := range len(s) {
		r := strings.IndexByte(common, s[i])
		if r < 0 {
			r = len(common)
		}
		if r > rank {
			best, rank = i, r
		}
	}
	return best
}

// index is where the needle is in b at or after from, or len(b).
func (n *needle) index(b []byte, from int) int {
	for i := from + n.rare; i < len(b); i++ {
		skip := bytes.IndexByte(b[i:], n.text[n.rare])
		if skip < 0 {
			break
		}
		i += skip
		if bytes.HasPrefix(b[i-n.rare:], n.text) {
			return i - n.rare
		}
	}
	return len(b)
}

// partial is where b ends in the beginning of the needle, at or after from, or len(b).
func (n *needle) partial(b []byte, from int) int {
	for i := max(from, len(b)-len(n.text)+1); i < len(b); i++ {
		skip := bytes.IndexByte(b[i:], n.text[0])
		if skip < 0 {
			break
		}
		i += skip
		if bytes.HasPrefix(n.text, b[i:]) {
			return i
		}
	}
	return len(b)
}

// apply masks the secrets in b, the leftmost first and of those the longest. Unless b is
// the last of a text, the bytes at its end that could be the beginning of a secret are left, for
// a call with what follows them; hold is their number. next has room for a number per needle.
func (m *mask) apply(b []byte, next []int, last bool) (hold int, found bool) {
	for i := range next {
		next[i] = -1
	}
	for pos := 0; ; found = true {
		start, length, part := len(b), 0, len(b)
		for i := range m.needles {
			n := &m.needles[i]
			if next[i] < pos {
				next[i] = n.index(b, pos)
			}
			if next[i] < start || next[i] == start && len(n.text) > length {
				start, length = next[i], len(n.text)
			}
			if !last {
				part = min(part, n.partial(b, pos))
			}
		}
		// What begins earlier, or at the same place and is longer, may yet turn out to be
		// the one that counts.
		if part <= start {
			return len(b) - part, found
		}
		pos = start + length
		for i := start; i < pos; i++ {
			b[i] = '*'
		}
	}
}

// text masks a whole text.
func (m *mask) text(s string) (masked string, found bool) {
	if !slices.ContainsFunc(m.needles, func(n needle) bool { return strings.Contains(s, n.str) }) {
		return s, false
	}
	b := []byte(s)
	m.apply(b, make([]int, len(m.needles)), true)
	return string(b), true
}

// headers masks the values of h, in place, and says which of them held a secret, if one did.
func (m *mask) headers(h http.Header) (where string) {
	for name, values := range h {
		for i, v := range values {
			if masked, found := m.text(v); found {
				values[i] = masked
				where = "header " + name
			}
		}
	}
	return where
}

// body masks an answer's body, and its trailers, while it is read. It holds back no byte
// that cannot be the beginning of a secret, so a stream is not delayed.
type body struct {
	io.ReadCloser
	mask   *mask
	res    *http.Response
	echoed func(where string)
	next   []int
	held   []byte // read, but not known to be harmless
	err    error  // of the reader below, until what is held has been given out
	spare  []byte // for a reader whose own buffer is too short
	ready  []byte // of spare, masked, and not yet given out
}

func newBody(m *mask, res *http.Response, echoed func(where string)) *body {
	return &body{ReadCloser: res.Body, mask: m, res: res, echoed: echoed, next: make([]int, len(m.needles)), held: make([]byte, 0, m.longest)}
}

// Read fills p at once if it is longer than any form of a secret.
func (b *body) Read(p []byte) (n int, err error) {
	if len(p) > b.mask.longest && len(b.ready) == 0 {
		return b.fill(p)
	}
	if len(b.ready) == 0 {
		if b.spare == nil {
			b.spare = make([]byte, b.mask.longest+4096)
		}
		n, err = b.fill(b.spare)
		b.ready = b.spare[:n]
	}
	n = copy(p, b.ready)
	b.ready = b.ready[n:]
	return n, err
}

// fill reads into p, which is longer than any form of a secret: bytes, or an error.
func (b *body) fill(p []byte) (int, error) {
	for b.err == nil {
		kept := copy(p, b.held)
		n, err := b.ReadCloser.Read(p[kept:])
		b.err = err
		read := p[:kept+n]
		hold, found := b.mask.apply(read, b.next, err != nil)
		if found {
			b.echoed("the answer's body")
		}
		b.held = append(b.held[:0], read[len(read)-hold:]...)
		if errors.Is(err, io.EOF) {
			if where := b.mask.headers(b.res.Trailer); where != "" {
				b.echoed("the answer's trailer")
			}
		}
		if given := len(read) - hold; given > 0 || err == nil && n == 0 {
			return given, nil
		}
	}
	return 0, b.err
}
