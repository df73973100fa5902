package ticket

import (
	"net/http"
	"strings"
)

// Header is the request header that carries a token.
const Header = "Moat-Ticket"

// Where else a token can stand: at the end of the Accept header, and of the query.
const (
	acceptMark = ";moat="
	queryMark  = "moat="
	passMark   = "moat-pass"
)

// found is a request's token, and the path and query without it.
type found struct{ token, target string }

// find finds the token: the header counts before Accept, and that before the query.
func find(r *http.Request) found {
	whole := target(r)
	if v := r.Header[Header]; len(v) > 0 {
		return found{strings.Join(v, ", "), whole} // two are none
	}
	if v := r.Header["Accept"]; len(v) > 0 {
		if i := strings.LastIndex(v[len(v)-1], acceptMark); i >= 0 {
			return found{v[len(v)-1][i+len(acceptMark):], whole}
		}
	}
	rest, tok, _ := cutQuery(whole)
	return found{tok, rest}
}

// target is path and query as they came.
func target(r *http.Request) string {
	if r.RequestURI != "" {
		return r.RequestURI
	}
	return r.URL.RequestURI()
}

// cutQuery cuts a token off the end of a target's query. Whatever else has that name is the
// upstream's, and so is a path.
func cutQuery(s string) (rest, tok string, ok bool) {
	q, i := strings.IndexByte(s, '?'), strings.LastIndex(s, queryMark)
	if q < 0 || i <= q || i-1 != q && s[i-1] != '&' || !new(proof).parse(s[i+len(queryMark):]) {
		return s, "", false
	}
	return s[:i-1], s[i+len(queryMark):], true
}

// Strip takes token and pass out of a request, wherever they stand: nobody behind the gate
// has a use for them.
func Strip(r *http.Request) {
	delete(r.Header, Header)
	for _, line := range r.Header["Cookie"] {
		if strings.Contains(line, passMark) {
			stripPass(r.Header)
			break
		}
	}
	for i, v := range r.Header["Accept"] {
		if j := strings.LastIndex(v, acceptMark); j >= 0 {
			r.Header["Accept"][i] = v[:j]
		}
	}
	if rest, _, ok := cutQuery("?" + r.URL.RawQuery); ok {
		r.URL.RawQuery = strings.TrimPrefix(rest, "?")
		r.URL.ForceQuery = rest == "?" // proved with an empty query: "/a?" is not "/a"
	}
	if rest, _, ok := cutQuery(r.RequestURI); ok {
		r.RequestURI = rest
	}
}
