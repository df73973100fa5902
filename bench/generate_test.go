package bench

import (
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"time"
)

// The generators draw from small pools, so that what a request has and what a policy
// lists often nearly meet.

func pick[T any](r *rand.Rand, from ...T) T { return from[r.IntN(len(from))] }

// one reports true once in n times.
func one(r *rand.Rand, n int) bool { return r.IntN(n) == 0 }

func some(r *rand.Rand, from ...string) (list []string) {
	for _, s := range from {
		if one(r, 2) {
			list = append(list, s)
		}
	}
	r.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	return list
}

var (
	bases   = []string{"example.com", "example.org", "b.example.com", "a.b.example.com", "xn--bcher-kva.example", "example.co.uk", "1a.example.net"}
	labels  = []string{"a", "b", "app", "evil", "a-b", "x_y", "1", "xn--bcher-kva", "example"}
	methods = []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PURGE"}
	headers = []string{"authorization", "content-type", "x-a", "x-b", "x-request-id", "accept", "x-requested-with"}
)

// originEntry is an entry of a list of origins that all contestants accept.
func originEntry(r *rand.Rand) string {
	switch r.IntN(12) {
	case 0:
		return pick(r, "http://localhost:5173", "http://127.0.0.1:8080", "http://[::1]:3000", "https://[2001:db8::1]", "https://192.0.2.7", "http://*.localhost:3000")
	case 1, 2, 3:
		return "https://*." + pick(r, bases...) + pick(r, "", "", "", ":8443", ":*")
	case 4, 5:
		return "https://" + pick(r, bases...) + ":*"
	}
	host := pick(r, bases...)
	for one(r, 2) {
		host = pick(r, labels...) + "." + host
	}
	return "https://" + host + pick(r, "", "", "", ":8443", ":1")
}

func corsPolicy(r *rand.Rand) Policy {
	p := Policy{
		Public: []string{"https://api.example.net"}, Credentials: one(r, 2),
		Methods: some(r, methods...), RequestHeaders: some(r, headers...),
		ExposedHeaders: some(r, "x-a", "X-Request-Id", "ETag"),
		MaxAge:         pick(r, 0, -1, time.Second, 10*time.Minute, 24*time.Hour),
	}
	if one(r, 10) {
		p.Methods = nil
	}
	if one(r, 6) {
		p.Methods = some(r, "GET", "HEAD", "POST")
	}
	if one(r, 6) {
		p.RequestHeaders = nil
	}
	if one(r, 12) {
		p.Public = append(p.Public, "http://localhost:8080")
	}
	for range 1 + r.IntN(5) {
		p.Origins = append(p.Origins, originEntry(r))
	}
	if p.Credentials && slices.ContainsFunc(p.Origins, func(o string) bool { return strings.Contains(o, "*.localhost") }) {
		// jub0bs counts localhost as a public suffix.
		p.Credentials = false
	}
	if !p.Credentials {
		if one(r, 5) {
			p.Origins = []string{"*"}
		}
		if one(r, 5) {
			p.RequestHeaders = append(p.RequestHeaders, "*")
		}
		if one(r, 5) {
			p.ExposedHeaders = append(p.ExposedHeaders, "*")
		}
	}
	return p
}

func crossSitePolicy(r *rand.Rand) Policy {
	p := Policy{
		Public:      []string{"https://api.example.net"},
		SideEffects: one(r, 4), AllowSameSite: one(r, 4), AllowEmbed: one(r, 3), AllowBrowserless: one(r, 2),
	}
	if one(r, 3) {
		p.Public = append(p.Public, "http://localhost:8080", "https://api.example.net:8443")
	}
	for range r.IntN(4) {
		p.Origins = append(p.Origins, originEntry(r))
	}
	if one(r, 8) {
		p.Origins = []string{"*"}
	}
	return p
}

// someOrigin is an Origin header: one that the policy lists, one that nearly is, or
// nonsense.
func someOrigin(r *rand.Rand, p Policy) string {
	var o string
	switch {
	case one(r, 40):
		return ""
	case one(r, 12):
		o = pick(r, "null", "https://", "https://evil.test", "file://", "http://api.example.net", "https://api.example.net/", "https://evil@api.example.net")
	case one(r, 8) || len(p.Origins) == 0:
		o = pick(r, p.Public...)
	case one(r, 4):
		o = originEntry(r)
	default:
		o = pick(r, p.Origins...)
	}
	o = strings.Replace(o, "://*.", "://"+pick(r, labels...)+"."+pick(r, "", "", "", pick(r, labels...)+"."), 1)
	if host, ok := strings.CutSuffix(o, ":*"); ok {
		o = host + pick(r, "", ":1", ":8443", ":65535")
	}
	if !one(r, 4) {
		return o
	}
	scheme, rest, _ := strings.Cut(o, "://")
	host, port, _ := strings.Cut(rest, ":")
	switch r.IntN(14) {
	case 0:
		return "http://" + rest
	case 1:
		return scheme + "://evil" + rest // not below the base
	case 2:
		return scheme + "://" + pick(r, labels...) + "." + rest
	case 3:
		return strings.ToUpper(o)
	case 4:
		return scheme + "://evil@" + rest
	case 5:
		return scheme + "://evil.test/." + rest
	case 6:
		return scheme + "://" + host + "." // the root's dot
	case 7:
		return scheme + "://" + host + pick(r, ":443", ":80", ":0", ":65536", ":08443", ":", ":x", ":8443")
	case 8:
		return o + pick(r, "/", ".evil.test", " ", "/x", "#", ",https://evil.test")
	case 9:
		return scheme + "://." + rest
	case 10:
		return scheme + "://" + strings.Replace(rest, ".", "..", 1)
	case 11:
		return scheme + "://" + strings.Repeat("a", pick(r, 63, 64, 300)) + "." + rest
	case 12:
		return scheme + "://" + strings.Repeat("a.", 121) + rest
	}
	_, parent, _ := strings.Cut(host, ".")
	if port != "" {
		parent += ":" + port
	}
	return scheme + "://" + parent
}

func corsRequest(r *rand.Rand, c *testCase) {
	c.Method = pick(r, methods...)
	c.Host = pick(r, "api.example.net", "api.example.net", "api.example.net:443", "other.example.net", "localhost:8080", "")
	switch {
	case one(r, 20):
		c.Headers["Origin"] = []string{someOrigin(r, c.Policy), someOrigin(r, c.Policy)}
	case !one(r, 20):
		c.Headers["Origin"] = []string{someOrigin(r, c.Policy)}
	}
	if one(r, 4) {
		c.Headers["Sec-Fetch-Site"] = []string{pick(r, "same-origin", "same-site", "cross-site", "none")}
	}
	if one(r, 3) {
		return
	}
	c.Method = http.MethodOptions
	if one(r, 30) {
		c.Method = pick(r, methods...)
	}
	asked := pick(r, methods...)
	if len(c.Policy.Methods) > 0 && one(r, 2) {
		asked = pick(r, c.Policy.Methods...)
	}
	switch r.IntN(30) {
	case 0:
		asked = strings.ToLower(asked)
	case 1:
		asked = pick(r, "", "*", "P UT", strings.Repeat("A", 70))
	case 2:
		c.Headers["Access-Control-Request-Method"] = []string{asked, pick(r, methods...)}
	case 3:
		return
	}
	if c.Headers["Access-Control-Request-Method"] == nil {
		c.Headers["Access-Control-Request-Method"] = []string{asked}
	}
	if lines := requestedHeaders(r, c.Policy); lines != nil {
		c.Headers["Access-Control-Request-Headers"] = lines
	}
}

// requestedHeaders are lines of Access-Control-Request-Headers, as browsers write them
// or as what proxies and forgers make of them. Nil means none.
func requestedHeaders(r *rand.Rand, p Policy) []string {
	if one(r, 5) {
		return nil
	}
	names := some(r, headers...)
	if !one(r, 3) {
		names = nil
		for _, n := range p.RequestHeaders {
			if n != "*" && one(r, 2) {
				names = append(names, n)
			}
		}
	}
	if len(p.RequestHeaders) == 0 && one(r, 3) {
		names = some(r, "accept", "content-type", "x-requested-with")
	}
	slices.Sort(names)
	if one(r, 2) {
		return []string{strings.Join(names, ",")}
	}
	list := slices.Clone(names)
	if slices.Contains(p.RequestHeaders, "*") && one(r, 6) {
		list = append(list, "b@d")
	}
	for range 1 + r.IntN(2) {
		switch r.IntN(7) {
		case 0:
			r.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
		case 1:
			for i := range list {
				list[i] = http.CanonicalHeaderKey(list[i])
			}
		case 2:
			for i := range list {
				list[i] = strings.Repeat(" ", r.IntN(4)) + list[i] + strings.Repeat("\t", r.IntN(4))
			}
		case 3:
			for range pick(r, 1, 3, 15, 17, 20, 30) {
				list = slices.Insert(list, r.IntN(len(list)+1), "")
			}
		case 4:
			if len(list) > 0 {
				list = append(list, pick(r, list...))
			}
		case 5:
			list = append(list, pick(r, "*", "x-unlisted", "b@d", "b@d", strings.Repeat("x", 300), strings.Repeat(" ", 300)))
		case 6:
			list = append([]string{""}, list...)
		}
	}
	// Several lines.
	var lines []string
	for len(list) > 0 {
		n := len(list)
		if one(r, 2) {
			n = 1 + r.IntN(n)
		}
		lines = append(lines, strings.Join(list[:n], ","))
		list = list[n:]
	}
	return lines
}

func crossSiteRequest(r *rand.Rand, c *testCase) {
	c.Method = pick(r, methods...)
	c.Host = pick(r, "api.example.net", "api.example.net", "api.example.net", "API.example.net", "api.example.net:443", "api.example.net:8443", "other.example.net", "localhost:8080", "")
	if !one(r, 4) {
		c.Headers["Origin"] = []string{someOrigin(r, c.Policy)}
		if one(r, 3) {
			c.Headers["Origin"] = []string{pick(r, "https://", "http://", "https://evil@") + c.Host + pick(r, "", "", "/x")}
		}
	}
	if !one(r, 3) {
		c.Headers["Sec-Fetch-Site"] = []string{pick(r, "same-origin", "same-site", "cross-site", "none", "cross-site", "nonsense")}
		c.Headers["Sec-Fetch-Mode"] = []string{pick(r, "no-cors", "cors", "navigate", "websocket")}
		c.Headers["Sec-Fetch-Dest"] = []string{pick(r, "empty", "image", "document")}
	}
	if one(r, 8) {
		c.Headers["Upgrade"] = pick(r, []string{"websocket"}, []string{"h2c, WebSocket"}, []string{"h2c"}, []string{"x", "websocket"})
	}
	if one(r, 8) {
		c.Headers["Sec-Purpose"] = []string{pick(r, "prefetch", "prefetch;prerender", "other")}
	}
}
