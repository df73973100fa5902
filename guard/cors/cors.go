// Package cors is the server's side of the CORS protocol
// (https://fetch.spec.whatwg.org/#http-cors-protocol), and its enforcement.
//
// It protects a backend from work that a browser asks for on behalf of a page whose
// origin the policy does not list: such a request ends here with 403, where an
// ordinary CORS middleware would let the backend run and only hide the answer.
//
// It does not protect from anything that is no browser: any other client sends the
// Origin header that it likes. It believes Origin and Sec-Fetch-Site as what a
// browser says of a page, never as who is calling.
//
// The handler behind Guard.Handler must not set Access-Control-* headers itself.
package cors

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"

	"github.com/moat-gateway/moat/guard"
	"github.com/moat-gateway/moat/web"
)

// ChromeMaxAge is the longest time for which Chromium remembers a preflight
// (Firefox: a day); a larger Access-Control-Max-Age gains nothing there.
const ChromeMaxAge = 7200 * time.Second

// maxEmpty is how many empty elements a preflight's header list may have. RFC 9110
// section 5.6.1.2 asks to bear a reasonable number, without becoming a way to make us
// work. maxBlanks is how many blanks may stand around a name.
const (
	maxEmpty  = 16
	maxBlanks = 16
)

// Policy says which pages may call, and how.
type Policy struct {
	// Origins lists the callers. Nil lists none: only same-origin pages may call.
	Origins *web.OriginSet
	// Public is what this server is called from outside. Nil makes Sec-Fetch-Site
	// the only sign of a same-origin request.
	Public *web.PublicOrigins
	// Credentials lets pages send cookies and read the answer
	// (Access-Control-Allow-Credentials). It cannot go with an OriginSet of "*".
	Credentials bool
	// Methods are those that a preflight may ask for. Case matters.
	Methods []string
	// RequestHeaders are the header names that a preflight may ask for, in any case;
	// "*" stands for all but Authorization, and cannot go with Credentials.
	RequestHeaders []string
	// ExposedHeaders are the response headers that script may read beyond the
	// safelisted ones; "*" stands for all, and cannot go with Credentials.
	ExposedHeaders []string
	// MaxAge is for how long a browser may remember a preflight. 0 sends no header,
	// which browsers take as 5 s; a negative one forbids remembering.
	MaxAge time.Duration
}

// Guard is a compiled Policy: immutable, and safe for concurrent use.
type Guard struct {
	origins     *web.OriginSet
	public      *web.PublicOrigins
	credentials bool
	methods     []string
	headers     map[string]struct{}
	anyHeader   bool
	longest     int // of the names in headers

	allowMethods, allowHeaders, expose, maxAge string
}

// New compiles a Policy. It reports all faults at once.
func New(p Policy) (*Guard, []error) {
	g := &Guard{
		origins: p.Origins, public: p.Public, credentials: p.Credentials,
		headers: make(map[string]struct{}),
	}
	if g.origins == nil {
		g.origins = &web.OriginSet{}
	}
	if g.public == nil {
		g.public = web.NewPublicOrigins(nil)
	}
	var faults []error
	if g.origins.Any() && p.Credentials {
		faults = append(faults, fmt.Errorf(`credentials: true: any page could act with its visitors' cookies, because origins is "*"; list the origins`))
	}
	for _, m := range p.Methods {
		if err := CheckMethod(m); err != nil {
			faults = append(faults, fmt.Errorf("methods: %w", err))
			continue
		}
		g.methods = append(g.methods, m)
	}
	g.allowMethods = strings.Join(p.Methods, ",")

	names, anyName, errs := headerNames("request_headers", p.RequestHeaders, p.Credentials)
	faults = append(faults, errs...)
	g.anyHeader = anyName
	for _, n := range names {
		if forbiddenRequestHeader(n) {
			faults = append(faults, fmt.Errorf("request_headers: %q: script cannot set this header (https://fetch.spec.whatwg.org/#forbidden-request-header); remove it", n))
		}
		g.headers[n] = struct{}{}
		g.longest = max(g.longest, len(n))
	}
	if anyName {
		names = append([]string{"*"}, names...)
	}
	g.allowHeaders = strings.Join(names, ",")

	names, anyName, errs = headerNames("exposed_headers", p.ExposedHeaders, p.Credentials)
	faults = append(faults, errs...)
	if slices.Contains(names, "set-cookie") || slices.Contains(names, "set-cookie2") {
		faults = append(faults, fmt.Errorf(`exposed_headers: "set-cookie": script can never read it (https://fetch.spec.whatwg.org/#forbidden-response-header-name); remove it`))
	}
	if anyName {
		names = append([]string{"*"}, names...)
	}
	g.expose = strings.Join(names, ",")

	switch {
	case p.MaxAge < 0:
		g.maxAge = "0"
	case p.MaxAge > 24*time.Hour:
		faults = append(faults, fmt.Errorf("max_age: %s: no browser remembers a preflight for over 24h, Chromium for at most %s", p.MaxAge, ChromeMaxAge))
	case p.MaxAge > 0:
		g.maxAge = strconv.Itoa(int(p.MaxAge / time.Second))
	}
	return g, faults
}

// CheckMethod returns an error unless m is a method that a route may allow.
func CheckMethod(m string) error {
	switch {
	case m == "*":
		return errors.New(`"*": list the methods; what is not declared does not pass`)
	case !httpguts.ValidHeaderFieldName(m): // both are RFC 9110 tokens
		return fmt.Errorf("%q: not a method name", m)
	case strings.EqualFold(m, http.MethodConnect), strings.EqualFold(m, http.MethodTrace), strings.EqualFold(m, "TRACK"):
		return fmt.Errorf("%q: never passes the gate, and browsers refuse to send it (https://fetch.spec.whatwg.org/#forbidden-method)", m)
	case m != strings.ToUpper(m):
		return fmt.Errorf("%q: methods are case-sensitive; write %q", m, strings.ToUpper(m))
	}
	return nil
}

func headerNames(field string, list []string, credentials bool) (names []string, anyName bool, faults []error) {
	for _, n := range list {
		switch {
		case n == "*" && credentials:
			faults = append(faults, fmt.Errorf(`%s: "*": with credentials browsers take it for a header of that name; list the headers`, field))
		case n == "*":
			anyName = true
		case !httpguts.ValidHeaderFieldName(n):
			faults = append(faults, fmt.Errorf("%s: %q: not a header name", field, n))
		default:
			names = append(names, strings.ToLower(n))
		}
	}
	slices.Sort(names)
	return slices.Compact(names), anyName, faults
}

func forbiddenRequestHeader(lower string) bool {
	if strings.HasPrefix(lower, "sec-") || strings.HasPrefix(lower, "proxy-") {
		return true
	}
	switch lower {
	case "accept-charset", "accept-encoding", "access-control-request-headers", "access-control-request-method",
		"connection", "content-length", "cookie", "cookie2", "date", "dnt", "expect", "host", "keep-alive", "origin",
		"referer", "set-cookie", "te", "trailer", "transfer-encoding", "upgrade", "via":
		return true
	}
	return false
}

// IsPreflight reports whether r is a CORS-preflight request
// (https://fetch.spec.whatwg.org/#cors-preflight-request): an OPTIONS with neither
// header is an ordinary request.
func IsPreflight(r *http.Request) bool { return isPreflight(r, r.Header["Origin"]) }

func isPreflight(r *http.Request, origin []string) bool {
	return r.Method == http.MethodOptions && len(origin) > 0 && len(r.Header["Access-Control-Request-Method"]) > 0
}

// Lists reports whether r comes from a page whose origin the policy lists.
func (g *Guard) Lists(r *http.Request) bool {
	origin := r.Header["Origin"]
	return len(origin) == 1 && (g.origins.Any() || g.origins.Lists(origin[0]))
}

// Decide judges a request. It reads the method, the Host and the headers, changes
// nothing, and does not allocate.
//
//   - OK: no CORS request, or a same-origin one
//   - CORSOriginAllowed: an actual request from a listed origin
//   - CORSPreflightApproved (Answer): the gate answers, the backend never sees it
//   - a denial: the request, or the one that a preflight announces, must not run
func (g *Guard) Decide(r *http.Request) guard.Decision {
	origin := r.Header["Origin"]
	reason, got := g.judge(r, origin, isPreflight(r, origin))
	d := guard.Decision{Outcome: guard.Deny, Reason: reason, Evidence: guard.Evidence{Got: got}}
	switch reason { //nolint:exhaustive // judge gives no other.
	case guard.CORSPreflightApproved:
		d.Outcome = guard.Answer
	case guard.OK, guard.CORSOriginAllowed:
		d.Outcome = guard.Allow
	case guard.CORSOriginMalformed:
		d.Evidence.Where, d.Evidence.Want = "Origin", "one Origin"
	case guard.CORSOriginNotAllowed:
		d.Evidence.Where, d.Evidence.Want = "Origin", "an origin of the policy's list"
	case guard.CORSMethodNotAllowed:
		d.Evidence.Where, d.Evidence.Want = "Access-Control-Request-Method", g.allowMethods
	case guard.CORSHeaderNotAllowed:
		d.Evidence.Where, d.Evidence.Want = "Access-Control-Request-Headers", g.allowHeaders
	case guard.CORSRequestHeadersOversize:
		d.Evidence.Where, d.Evidence.Want = "Access-Control-Request-Headers", "each name once"
	}
	return d
}

// judge finds the reason, and what in the request it is about.
func (g *Guard) judge(r *http.Request, origin []string, preflight bool) (reason guard.Reason, got string) {
	if len(origin) == 0 {
		return guard.OK, ""
	}
	if len(origin) > 1 {
		return guard.CORSOriginMalformed, origin[1]
	}
	switch {
	case g.origins.Any() || g.origins.Lists(origin[0]):
	case preflight:
		// Browsers send none for their own origin.
		return guard.CORSOriginNotAllowed, origin[0]
	case g.public.SameOrigin(origin[0], r.Host):
		// Browsers send Origin with same-origin requests too, if not GET or HEAD.
		return guard.OK, ""
	case sameOriginFetch(r.Header):
		// The browser says that the page has this URL's own origin. So it is when TLS
		// ends in front of us, and with "Origin: null" from a form under the
		// no-referrer policy.
		return guard.OK, ""
	default:
		return guard.CORSOriginNotAllowed, origin[0]
	}
	if !preflight {
		return guard.CORSOriginAllowed, ""
	}
	return g.preflight(r.Header)
}

// preflight judges what the browser asks for, after its origin has been accepted.
func (g *Guard) preflight(h http.Header) (reason guard.Reason, got string) {
	method := h["Access-Control-Request-Method"]
	if len(method) > 1 || !slices.Contains(g.methods, method[0]) {
		// GET, HEAD and POST would pass in the browser whatever we list
		// (https://fetch.spec.whatwg.org/#cors-preflight-fetch step 7.5), so the refusal
		// has to be in the status.
		return guard.CORSMethodNotAllowed, method[0]
	}
	if g.anyHeader {
		return guard.CORSPreflightApproved, ""
	}
	names, empty := len(g.headers), maxEmpty
	for _, line := range h["Access-Control-Request-Headers"] {
		for more := true; more; {
			// Browsers send the names once each, in lower case, sorted, without blanks.
			// Proxies have been seen to reorder, split and recase them, so the set counts.
			var name string
			name, line, more = g.cut(line)
			switch {
			case name == "":
				empty--
			case !g.allows(name):
				return guard.CORSHeaderNotAllowed, name
			default:
				names--
			}
			if empty < 0 || names < 0 {
				return guard.CORSRequestHeadersOversize, line
			}
		}
	}
	return guard.CORSPreflightApproved, ""
}

// cut splits the first element off a list. It looks no further than the longest
// allowed name could reach, so its cost does not grow with the line.
func (g *Guard) cut(line string) (name, rest string, more bool) {
	if line == "" || line[0] == ',' {
		return "", strings.TrimPrefix(line, ","), line != ""
	}
	limit := g.longest + maxBlanks
	if i := strings.IndexByte(line[:min(len(line), limit+1)], ','); i >= 0 {
		return strings.Trim(line[:i], " \t"), line[i+1:], true
	}
	if len(line) > limit {
		return line[:limit], "", false // longer than any allowed name, so refused
	}
	return strings.Trim(line, " \t"), "", false
}

func (g *Guard) allows(name string) bool {
	if len(name) > g.longest {
		return false
	}
	if _, ok := g.headers[name]; ok {
		return true
	}
	var b [64]byte
	lower := b[:0]
	for i := range len(name) {
		c := name[i]
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		lower = append(lower, c)
	}
	_, ok := g.headers[string(lower)]
	return ok
}

func sameOriginFetch(h http.Header) bool {
	v := h["Sec-Fetch-Site"]
	return len(v) == 1 && v[0] == "same-origin"
}

// The values of answers that end here. A refusal reaches no other handler, and the
// capacity leaves nothing to append to, so sharing is safe.
var (
	varyOrigin    = []string{"Origin"}
	varyPreflight = []string{"Origin, Access-Control-Request-Method, Access-Control-Request-Headers"}
	anyOrigin     = []string{"*"}
	isTrue        = []string{"true"}
)

// SetHeaders sets the CORS headers and Vary that belong to Decide's Decision d for r,
// so that whatever is answered afterwards, by the backend or by another guard that
// refuses, can be read by the page that may read it. It allocates once where the
// answer carries CORS headers, and not at all for a refused origin.
func (g *Guard) SetHeaders(h http.Header, r *http.Request, d guard.Decision) {
	origin := r.Header["Origin"]
	g.setHeaders(h, origin, isPreflight(r, origin), d.Reason)
}

func (g *Guard) setHeaders(h http.Header, from []string, preflight bool, reason guard.Reason) {
	if preflight {
		g.setPreflight(h, from, reason)
		return
	}
	// "*" goes out with every answer, also where no Origin asks: it may be in a cache, and
	// lacks the header then, when a page asks for it by CORS.
	allowed := reason == guard.CORSOriginAllowed || g.origins.Any() && reason.Status() == 0
	if !allowed {
		switch {
		case g.origins.Any():
		case reason.Status() != 0 && !hasVary(h):
			h["Vary"] = varyOrigin
		default:
			web.AddVary(h, "Origin")
		}
		return
	}
	// No slice is shared between answers, because handlers may edit them; what is
	// Origin's can be the request's own.
	var values []string
	switch {
	case g.expose != "":
		values = new([3]string)[:]
	case g.credentials:
		values = new([2]string)[:]
	default:
		values = new([1]string)[:]
	}
	if g.origins.Any() {
		values[0] = "*"
		h["Access-Control-Allow-Origin"] = values[0:1:1]
	} else {
		h["Access-Control-Allow-Origin"] = from[:1:1]
		// Vary goes out with every answer, for a cache must not give one origin's answer
		// (or that of a request without Origin) to another.
		if !hasVary(h) {
			values[0] = "Origin"
			h["Vary"] = values[0:1:1]
		} else {
			web.AddVary(h, "Origin")
		}
	}
	if g.credentials {
		values[1] = "true"
		h["Access-Control-Allow-Credentials"] = values[1:2:2]
	}
	if g.expose != "" {
		values[2] = g.expose
		h["Access-Control-Expose-Headers"] = values[2:3:3]
	}
}

// setPreflight sets the headers of an answer to a preflight. Only an approval gets
// slices of its own; a refusal reaches nobody who could edit them.
func (g *Guard) setPreflight(h http.Header, from []string, reason guard.Reason) {
	if reason != guard.CORSPreflightApproved {
		if !hasVary(h) {
			h["Vary"] = varyPreflight
		} else {
			addVaryPreflight(h)
		}
		if reason == guard.CORSOriginNotAllowed || reason == guard.CORSOriginMalformed {
			return
		}
		// The origin is allowed, so its page's developer may see why the rest is not.
		h["Access-Control-Allow-Origin"] = from[:1:1]
		if g.origins.Any() {
			h["Access-Control-Allow-Origin"] = anyOrigin
		}
		if g.credentials {
			h["Access-Control-Allow-Credentials"] = isTrue
		}
		return
	}
	values := new([5]string)
	if !hasVary(h) {
		values[0] = varyPreflight[0]
		h["Vary"] = values[0:1:1]
	} else {
		addVaryPreflight(h)
	}
	h["Access-Control-Allow-Origin"] = from[:1:1]
	if g.origins.Any() {
		h["Access-Control-Allow-Origin"] = []string{"*"}
	}
	if g.credentials {
		values[1] = "true"
		h["Access-Control-Allow-Credentials"] = values[1:2:2]
	}
	if g.allowMethods != "" {
		values[2] = g.allowMethods
		h["Access-Control-Allow-Methods"] = values[2:3:3]
	}
	if g.allowHeaders != "" {
		values[3] = g.allowHeaders
		h["Access-Control-Allow-Headers"] = values[3:4:4]
	}
	if g.maxAge != "" {
		values[4] = g.maxAge
		h["Access-Control-Max-Age"] = values[4:5:5]
	}
}

// hasVary spares an empty header map, the usual one, the look-up.
func hasVary(h http.Header) bool { return len(h) > 0 && h["Vary"] != nil }

func addVaryPreflight(h http.Header) {
	web.AddVary(h, "Origin")
	web.AddVary(h, "Access-Control-Request-Method")
	web.AddVary(h, "Access-Control-Request-Headers")
}

// Handler answers preflights, refuses what the policy does not allow, and passes the
// rest to next with its CORS headers set.
func (g *Guard) Handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		origin := r.Header["Origin"]
		preflight := isPreflight(r, origin)
		reason, _ := g.judge(r, origin, preflight)
		g.setHeaders(w.Header(), origin, preflight, reason)
		switch {
		case reason == guard.CORSPreflightApproved:
			w.WriteHeader(http.StatusNoContent)
		case reason.Status() == 0:
			next.ServeHTTP(w, r)
		case preflight:
			w.WriteHeader(reason.Status()) // browsers show no body of it
		default:
			guard.Refuse(w, reason, "")
		}
	})
}
