package browser

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// load is a request on its way through the standard's algorithms.
type load struct {
	b      *Browser
	p      *Profile
	now    time.Time
	page   Page
	req    Request
	server Server
	api    api
	t      Trace

	// The page.
	from    location
	opaque  bool     // its origin is "null"
	top     location // the tab
	thirdly bool     // some frame on the way to the top is of another site

	// The request (https://fetch.spec.whatwg.org/#concept-request).
	method, mode, credentials, redirect, policy, dest string
	header                                            Header
	body                                              *Body
	forced                                            bool // use-CORS-preflight flag
	crossed                                           bool // what was asked last was under CORS
	asked                                             bool // it needed a preflight, if only for another origin
	urls                                              []location
	policies                                          []string // the referrer policies of the earlier urls
	cors                                              bool     // response tainting is "cors"
	tainted                                           bool     // redirect-tainted origin
	left                                              bool     // without CORS, it was at another origin: its response tainting is "opaque"
}

func knownAPIs() string {
	var names []string
	for a := range apis {
		names = append(names, string(a))
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}

func partitionKey(site string, crossSiteAncestor bool) string {
	if crossSiteAncestor {
		return site + " cross-site"
	}
	return site
}

func (b *Browser) newLoad(now time.Time, page Page, req Request, server Server) (*load, error) {
	l := &load{b: b, p: b.Profile, now: now, page: page, req: req, server: server, opaque: page.Sandboxed}
	var ok bool
	if l.api, ok = apis[req.API]; !ok {
		return nil, fmt.Errorf("request: API %.40q is not known; known are %s", req.API, knownAPIs())
	}
	var err error
	if l.from, err = parseURL(page.URL, nil); err != nil {
		return nil, fmt.Errorf("page: %w", err)
	}
	l.top = l.from
	for _, a := range page.Ancestors {
		if l.top, err = parseURL(a, nil); err != nil {
			return nil, fmt.Errorf("page: ancestor: %w", err)
		}
		if !l.p.sameSite(l.top.origin, l.from.origin) {
			l.thirdly = true
		}
	}
	return l, nil
}

// origin is the request's origin as it is serialized into headers and compared in checks.
func (l *load) origin() string {
	if l.opaque || l.tainted {
		return "null"
	}
	return l.from.origin.String()
}

func (l *load) url() location { return l.urls[len(l.urls)-1] }

func (l *load) navigation() bool { return l.mode == "navigate" }

// sameOriginAs reports whether a URL is of the page's origin.
func (l *load) sameOriginAs(u location) bool { return !l.opaque && u.origin == l.from.origin }

// step notes a step that passed, fail the one that ends it all.
func (l *load) step(algorithm, link, format string, args ...any) {
	l.t.Steps = append(l.t.Steps, Step{
		Algorithm: algorithm, Link: link, Text: fmt.Sprintf(format, args...), Exchange: len(l.t.Exchanges),
	})
}

func (l *load) fail(algorithm, link, format string, args ...any) {
	l.step(algorithm, link, format, args...)
	l.t.Steps[len(l.t.Steps)-1].Failed = true
}

// Where the standard's algorithms are.
const (
	fetchStandard  = "https://fetch.spec.whatwg.org/"
	linkMethod     = fetchStandard + "#forbidden-method"
	linkRequest    = fetchStandard + "#dom-request"
	linkMainFetch  = fetchStandard + "#concept-main-fetch"
	linkBadPort    = fetchStandard + "#port-blocking"
	linkUnsafe     = fetchStandard + "#cors-unsafe-request-header-names"
	linkHTTPFetch  = fetchStandard + "#concept-http-fetch"
	linkPreflight  = fetchStandard + "#cors-preflight-fetch"
	linkCache      = fetchStandard + "#concept-cache"
	linkNetwork    = fetchStandard + "#concept-http-network-or-cache-fetch"
	linkRedirect   = fetchStandard + "#concept-http-redirect-fetch"
	linkCORSCheck  = fetchStandard + "#concept-cors-check"
	linkCORP       = fetchStandard + "#cross-origin-resource-policy-check"
	linkFiltered   = fetchStandard + "#concept-filtered-response"
	linkNoSniff    = fetchStandard + "#should-response-to-request-be-blocked-due-to-nosniff?"
	linkForbidden  = fetchStandard + "#forbidden-request-header"
	linkCSP        = "https://w3c.github.io/webappsec-csp/#should-block-request"
	linkMixed      = "https://w3c.github.io/webappsec-mixed-content/#should-block-fetch"
	linkUpgrade    = "https://w3c.github.io/webappsec-mixed-content/#upgrade-algorithm"
	linkLNA        = "https://wicg.github.io/local-network-access/#integration-with-fetch"
	linkORB        = "https://github.com/annevk/orb"
	linkCookies    = "https://www.rfc-editor.org/rfc/rfc6265bis#section-5.8.3"
	linkSetCookie  = "https://www.rfc-editor.org/rfc/rfc6265bis#section-5.7"
	linkWebSockets = "https://websockets.spec.whatwg.org/#concept-websocket-establish"
	linkSSE        = "https://html.spec.whatwg.org/#sse-processing-model"
)

// run is the whole way, from the API's call to what script sees.
func (l *load) run() {
	if !l.prepare() {
		return
	}
	if !l.mainFetch() {
		return
	}
	for {
		a, ok := l.httpFetch()
		if !ok {
			return
		}
		to, ok := l.redirectTarget(a)
		if !ok {
			l.finish(a)
			return
		}
		if !l.follow(a, to) {
			return
		}
	}
}

// api is what an API makes of a request before the page has a say, and what script sees
// of it when it fails.
type api struct {
	mode, credentials, dest, method string
	// failed is what script sees of a failure, never the reason; throws what it sees if
	// the call itself fails.
	failed, throws string
	// element is set where markup makes the request.
	element bool
}

var apis = map[API]api{
	Fetch:        {"cors", "same-origin", "empty", "", "TypeError", "TypeError", false},
	XHR:          {"cors", "same-origin", "empty", "", "error", "throws", false},
	EventSource:  {"cors", "same-origin", "empty", "GET", "error", "error", false},
	ModuleScript: {"cors", "same-origin", "script", "GET", "error", "error", true},
	Font:         {"cors", "same-origin", "font", "GET", "error", "error", true},
	Image:        {"no-cors", "include", "image", "GET", "error", "error", true},
	Script:       {"no-cors", "include", "script", "GET", "error", "error", true},
	Stylesheet:   {"no-cors", "include", "style", "GET", "error", "error", true},
	Beacon:       {"no-cors", "include", "empty", "POST", "true", "TypeError", false},
	Ping:         {"no-cors", "include", "empty", "POST", "", "", false},
	Form:         {"navigate", "include", "document", "", "error page", "error page", false},
	Link:         {"navigate", "include", "document", "GET", "error page", "error page", false},
	Frame:        {"navigate", "include", "iframe", "GET", "load", "load", false},
	WebSocket:    {"websocket", "include", "websocket", "GET", "error", "throws", false},
}

// prepare turns the API's call into a request; it is false if the API throws.
func (l *load) prepare() bool {
	l.mode, l.credentials, l.dest, l.method = l.api.mode, l.api.credentials, l.api.dest, l.api.method
	l.redirect, l.body = "follow", l.req.Body
	l.policy = l.req.ReferrerPolicy
	if l.policy == "" {
		l.policy = l.page.ReferrerPolicy
	}
	if !knownReferrerPolicy(l.policy) {
		l.policy = defaultReferrerPolicy
	}
	if l.method == "" {
		l.method = l.req.Method
	}
	if l.method == "" {
		l.method = "GET"
	}
	u, err := parseURL(l.req.URL, l.from.url)
	if err != nil {
		return l.throw("URL parser", "https://url.spec.whatwg.org/#concept-url-parser", "%v", err)
	}
	l.urls = []location{u}
	switch l.req.API {
	case Fetch:
		return l.prepareFetch()
	case XHR:
		return l.prepareXHR()
	case EventSource:
		if l.req.WithCredentials {
			l.credentials = "include"
		}
	case Image, Script, Stylesheet, ModuleScript:
		l.crossOrigin()
	case Beacon:
		l.prepareBody()
		if len(l.p.UnsafeRequestHeaders(l.header)) > 0 {
			l.mode = "cors"
		}
	case Ping:
		l.body = &Body{Kind: "text", Text: "PING"}
		l.header.add("Content-Type", "text/ping")
	case Form:
		return l.prepareForm()
	case WebSocket:
		return l.prepareWebSocket()
	case Link, Frame, Font:
	}
	return true
}

// crossOrigin is the attribute of that name
// (https://html.spec.whatwg.org/#create-a-potential-cors-request).
func (l *load) crossOrigin() {
	switch l.req.CrossOrigin {
	case "use-credentials":
		l.mode, l.credentials = "cors", "include"
	case "":
	default:
		l.mode, l.credentials = "cors", "same-origin"
	}
}

// setHeaders takes over what script set, without what a browser never lets it set.
func (l *load) setHeaders(keep func(Field) bool) bool {
	for _, f := range l.req.Header {
		f.Value = strings.Trim(f.Value, " \t\r\n")
		if !token(f.Name) || contains(f.Value, func(c byte) bool { return c == 0 || c == '\n' || c == '\r' }) {
			return l.throw("Headers.append", fetchStandard+"#concept-headers-append", "%.60q is no header name and value", f.Name+": "+f.Value)
		}
		if ForbiddenRequestHeader(f.Name, f.Value) {
			l.step("forbidden request-header", linkForbidden, "script cannot set %s: it is dropped silently", f.Name)
			continue
		}
		if !keep(f) {
			l.step("request-no-cors guard", fetchStandard+"#no-cors-safelisted-request-header-name", "mode no-cors drops %s silently", f.Name)
			continue
		}
		if i := slices.IndexFunc(l.header, func(o Field) bool { return strings.EqualFold(o.Name, f.Name) }); i >= 0 && (l.req.API != Fetch || !l.p.FetchHeadersStayApart) {
			l.header[i].Value += ", " + f.Value
			continue
		}
		l.header.add(f.Name, f.Value)
	}
	return true
}

func all(Field) bool { return true }

// prepareFetch is https://fetch.spec.whatwg.org/#dom-request.
func (l *load) prepareFetch() bool {
	r := l.req
	if l.url().credentials() {
		return l.throw("Request constructor", linkRequest, "the URL holds credentials, which fetch refuses")
	}
	if forbiddenMethod(l.method) {
		return l.throw("Request constructor", linkMethod, "%s is a forbidden method", l.method)
	}
	if !token(l.method) {
		return l.throw("Request constructor", linkMethod, "%.40q is no method", l.method)
	}
	l.method = normalizeMethod(l.method)
	if r.Mode != "" {
		l.mode = r.Mode
	}
	if r.Credentials != "" {
		l.credentials = r.Credentials
	}
	if r.Redirect != "" {
		l.redirect = r.Redirect
	}
	switch l.mode {
	case "cors", "same-origin":
		if !l.setHeaders(all) {
			return false
		}
	case "no-cors":
		if !safelistedMethod(l.method) {
			return l.throw("Request constructor", linkRequest, "mode no-cors allows only GET, HEAD and POST, not %s", l.method)
		}
		ok := l.setHeaders(func(f Field) bool {
			switch strings.ToLower(f.Name) {
			case "accept", "accept-language", "content-language", "content-type":
				return l.p.safelistedHeader(f.Name, f.Value)
			}
			return false
		})
		if !ok {
			return false
		}
	default:
		return l.throw("Request constructor", linkRequest, "fetch has no mode %.40q", l.mode)
	}
	if r.Cache == "only-if-cached" && l.mode != "same-origin" {
		return l.throw("Request constructor", linkRequest, "cache only-if-cached needs mode same-origin")
	}
	if r.Body != nil && (l.method == "GET" || l.method == "HEAD") {
		return l.throw("Request constructor", linkRequest, "a %s request cannot have a body", l.method)
	}
	if r.Body != nil && r.Body.Kind == "stream" && l.p.StreamsAreText {
		l.body = &Body{Kind: "text", Text: "[object ReadableStream]"}
	} else if r.Body != nil && r.Body.Kind == "stream" {
		if l.mode == "no-cors" {
			return l.throw("Request constructor", linkRequest, "a stream as body needs mode cors or same-origin")
		}
		l.forced = true
		if l.p.StreamsAreCORS {
			l.mode = "cors"
		}
	}
	l.prepareBody()
	return true
}

func (l *load) prepareXHR() bool {
	if forbiddenMethod(l.method) {
		return l.throw("XMLHttpRequest.open", "https://xhr.spec.whatwg.org/#the-open()-method", "%s is a forbidden method", l.method)
	}
	if !token(l.method) {
		return l.throw("XMLHttpRequest.open", "https://xhr.spec.whatwg.org/#the-open()-method", "%.40q is no method", l.method)
	}
	l.method = normalizeMethod(l.method)
	if !l.setHeaders(all) {
		return false
	}
	if l.req.WithCredentials {
		l.credentials = "include"
	}
	if l.method == "GET" || l.method == "HEAD" {
		l.body = nil
	}
	l.forced = l.req.UploadListener && (l.body != nil || l.p.ListenersForcePreflight)
	l.prepareBody()
	return true
}

// prepareBody adds the Content-Type that a body brings along
// (https://fetch.spec.whatwg.org/#concept-bodyinit-extract).
func (l *load) prepareBody() {
	if l.body == nil || l.header.Has("Content-Type") {
		return
	}
	var kind string
	switch l.body.Kind {
	case "text":
		kind = "text/plain;charset=UTF-8"
	case "urlencoded":
		kind = "application/x-www-form-urlencoded;charset=UTF-8"
	case "form-data":
		kind = "multipart/form-data; boundary=…"
	case "blob":
		kind = strings.ToLower(l.body.Type)
	}
	if kind == "" || l.mode == "no-cors" && l.req.API == Fetch && !l.p.safelistedHeader("Content-Type", kind) {
		return
	}
	l.header.add("Content-Type", kind)
}

func (l *load) prepareForm() bool {
	l.method = strings.ToUpper(l.method)
	if l.method != "POST" {
		u := *l.url().url
		u.RawQuery, u.ForceQuery = "", true
		if l.body != nil {
			u.RawQuery = l.body.Text
		}
		l.urls[0].url = &u
		l.method, l.body = "GET", nil
		return true
	}
	kind := "application/x-www-form-urlencoded"
	if l.body != nil {
		switch l.body.Kind {
		case "form-data":
			kind = "multipart/form-data; boundary=…"
		case "plain":
			kind = "text/plain"
		}
	}
	l.header.add("Content-Type", kind)
	return true
}

func (l *load) prepareWebSocket() bool {
	u := l.url()
	scheme := map[string]string{"http": "ws", "https": "wss", "ws": "ws", "wss": "wss"}[u.url.Scheme]
	copied := *u.url
	copied.Scheme = scheme
	l.urls[0].url = &copied
	return true
}
