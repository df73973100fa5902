package explain

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/moat-gateway/moat/browser"
	"github.com/moat-gateway/moat/web"
)

// Need is what a server has to grant so that a page can make its request and read the
// answer. It comes from what strangers wrote (a pasted command, a recording), so nothing
// in it is believed before Mends has looked at it.
type Need struct {
	// Origin is the page's.
	Origin string `json:"origin"`
	// API is the server's origin, as pages call it; "" if it is not known.
	API string `json:"api,omitempty"`
	// Methods are those that the page uses.
	Methods []string `json:"methods,omitempty"`
	// Headers are the names of the request headers for which a browser asks first.
	Headers []string `json:"headers,omitempty"`
	// Credentials is set if cookies shall travel.
	Credentials bool `json:"credentials,omitempty"`
	// Expose are the names of response headers that the page reads beyond the safelisted
	// ones (https://fetch.spec.whatwg.org/#cors-safelisted-response-header-name).
	Expose []string `json:"expose,omitempty"`
	// Preflight is set if the browser asks first although neither Methods nor Headers make
	// it do so: for a stream as body, or a listener on xhr.upload.
	Preflight bool `json:"preflight,omitempty"`
	// MaxAge is for how long a browser may remember the answer to a preflight. 0 leaves
	// it at the browser's 5 s.
	MaxAge time.Duration `json:"max_age,omitempty"`
}

// usualMaxAge is Chromium's cap, and moat.yaml's default.
const usualMaxAge = 2 * time.Hour

// NeedOf returns what the server that was asked last lacks. ok is false if no CORS header
// would mend the request, or none that may be granted; then Changes says what would.
func NeedOf(q Question, t *browser.Trace) (n Need, ok bool) {
	if !grantable(q, t) || len(t.Exchanges) == 0 {
		return Need{}, false
	}
	last := t.Exchanges[len(t.Exchanges)-1]
	n.Origin = last.Header.Value("Origin")
	if n.Origin == "" {
		n.Origin = servedOrigin(q.Page.URL)
	}
	if n.Origin == "null" || q.Page.Sandboxed {
		return Need{}, false // it is anybody's origin
	}
	n.API = servedOrigin(last.URL)
	n.Credentials = needsCredentials(q.Request)
	method := last.Method
	switch {
	case last.Preflight:
		n.Preflight = true
		method = last.Header.Value("Access-Control-Request-Method")
		n.Headers = listItems(last.Header.Value("Access-Control-Request-Headers"))
	case opaqueFetch(q, t):
		// Mode no-cors has dropped what it does not let through.
		n.Headers = unsafeHeaders(slices.Concat(last.Header, q.Request.Header))
	default:
		// The browser may have asked first, or remember an answer.
		n.Headers = unsafeHeaders(last.Header)
		n.Preflight = slices.ContainsFunc(t.Exchanges, func(e browser.Exchange) bool { return e.Preflight && e.URL == last.URL })
	}
	// What response headers are called has no business in a request; Changes says so.
	n.Headers = slices.DeleteFunc(n.Headers, misplacedHeader)
	n.Methods = []string{method}
	if n.Preflight || len(n.Headers) > 0 {
		n.MaxAge = usualMaxAge
	}
	return n, true
}

// unsafeHeaders are the names for which a browser asks first. What it sets itself is
// forbidden to script, and so is told apart by its name.
func unsafeHeaders(h browser.Header) []string {
	h = slices.DeleteFunc(slices.Clone(h), func(f browser.Field) bool { return browser.ForbiddenRequestHeader(f.Name, f.Value) })
	return new(browser.Profile).UnsafeRequestHeaders(h)
}

// grantable reports whether the request ended for the lack of a CORS header.
func grantable(q Question, t *browser.Trace) bool {
	switch t.Verdict.CORS {
	case browser.MissingAllowOriginHeader, browser.MultipleAllowOriginValues, browser.InvalidAllowOriginValue,
		browser.AllowOriginMismatch, browser.WildcardOriginNotAllowed, browser.InvalidAllowCredentials,
		browser.PreflightMissingAllowOriginHeader, browser.PreflightMultipleAllowOriginValues,
		browser.PreflightInvalidAllowOriginValue, browser.PreflightAllowOriginMismatch,
		browser.PreflightWildcardOriginNotAllowed, browser.PreflightInvalidAllowCredentials,
		browser.PreflightInvalidStatus,
		browser.InvalidAllowMethodsPreflightResponse, browser.InvalidAllowHeadersPreflightResponse,
		browser.MethodDisallowedByPreflightResponse, browser.HeaderDisallowedByPreflightResponse:
		return true
	case browser.PreflightDisallowedRedirect:
		// A redirect to a page for logging in goes away once preflights pass
		// authentication; any other redirect leads to a URL that was not asked yet.
		return redirectOf(t) == redirectElsewhere
	case browser.DisallowedByMode, browser.CorsDisabledScheme, browser.RedirectContainsCredentials,
		browser.InsecureLocalNetwork, browser.InvalidLocalNetworkAccess, browser.LocalNetworkAccessPermissionDenied,
		browser.NoCorsRedirectModeNotFollow:
		return false
	}
	// A page that asked for no-cors gave up reading; asking with cors it needs the grant.
	return opaqueFetch(q, t)
}

func opaqueFetch(q Question, t *browser.Trace) bool {
	return t.Verdict.Outcome == browser.Opaque && q.Request.API == browser.Fetch && q.Request.Mode == "no-cors"
}

// needsCredentials reports whether the request's credentials mode is "include".
func needsCredentials(r browser.Request) bool {
	switch r.API {
	case browser.Fetch:
		return r.Credentials == "include"
	case browser.XHR, browser.EventSource:
		return r.WithCredentials
	case browser.Image, browser.Script, browser.Stylesheet:
		return r.CrossOrigin == "" || r.CrossOrigin == "use-credentials"
	case browser.ModuleScript:
		return r.CrossOrigin == "use-credentials"
	case browser.Font:
		return false
	case browser.Beacon, browser.Ping, browser.Form, browser.Link, browser.Frame, browser.WebSocket:
		return true
	}
	return false
}

// Target is something in which the grant can be written down.
type Target string

// The targets, in the order in which Mends returns them.
const (
	ForMoat      Target = "moat"
	ForGo        Target = "go" // moat's guard/cors as a library
	ForGoNetHTTP Target = "go-net-http"
	ForNginx     Target = "nginx"
	ForCaddy     Target = "caddy"
	ForExpress   Target = "express"
	ForSpring    Target = "spring"
	ForFastAPI   Target = "fastapi"
)

// Mend is a change that makes one target grant a Need, and nothing else.
type Mend struct {
	Target Target `json:"target"`
	Title  string `json:"title"`
	// Language is that of Code, as syntax highlighters call it.
	Language string `json:"language"`
	// File says where Code goes.
	File string `json:"file"`
	Code string `json:"code"`
	// Note says what Code alone does not, in sentences.
	Note string `json:"note,omitempty"`
}

// Mends returns the change for each target. One of them is enough, and two are one too
// many: an origin that is allowed twice is refused by browsers.
//
// Every grant names its one origin, never "*" and never whatever the request says; and
// "Vary: Origin" goes with every answer.
//
// A Need that holds what no server should grant, or what could mean something else in
// somebody's configuration language, is refused: all of its faults are reported.
func Mends(n Need) ([]Mend, error) {
	g, err := n.grant()
	if err != nil {
		return nil, err
	}
	return []Mend{
		g.moat(), g.guard(), g.netHTTP(), g.nginx(), g.caddy(), g.express(), g.spring(), g.fastAPI(),
	}, nil
}

// grant is a Need that has been checked: every text in it consists of letters, digits and
// characters that are themselves between double quotes in each language that is written.
type grant struct {
	origin, api              web.Origin
	methods, headers, expose []string
	credentials, preflight   bool
	maxAge                   int // seconds
}

func (n *Need) grant() (grant, error) {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }

	g := grant{credentials: n.Credentials, preflight: n.Preflight, maxAge: int(n.MaxAge / time.Second)}
	var err error
	if g.origin, err = web.ParseOrigin(n.Origin); err != nil {
		fault("origin %.100q: %w", n.Origin, err)
	}
	if n.API == "" {
		n.API = "https://api.example"
	}
	if g.api, err = web.ParseOrigin(n.API); err != nil {
		fault("API %.100q: %w", n.API, err)
	} else if s := g.api.Scheme(); s != "http" && s != "https" {
		fault("API %.100q: only http and https are served", n.API)
	}
	// GET, HEAD and POST pass in a browser whatever a server lists
	// (https://fetch.spec.whatwg.org/#cors-preflight-fetch), so listing them grants nothing
	// and keeps the servers that enforce their list from refusing them.
	g.methods = []string{"GET", "HEAD", "POST"}
	for _, m := range n.Methods {
		if err = checkMethod(m); err != nil {
			fault("method %.60q: %w", m, err)
		} else if !slices.Contains(g.methods, m) {
			g.methods = append(g.methods, m)
			g.preflight = true
		}
	}
	g.headers = needNames(n.Headers, func(name string) {
		switch {
		case !plainName(name):
			fault("request header %.60q: not a name that could be written into a configuration", name)
		case browser.ForbiddenRequestHeader(name, ""):
			fault("request header %.60q: script cannot set it (https://fetch.spec.whatwg.org/#forbidden-request-header)", name)
		}
	})
	g.preflight = g.preflight || len(g.headers) > 0
	g.expose = needNames(n.Expose, func(name string) {
		switch {
		case !plainName(name):
			fault("response header %.60q: not a name that could be written into a configuration", name)
		case strings.EqualFold(name, "set-cookie"), strings.EqualFold(name, "set-cookie2"):
			fault("response header %.60q: script can never read it (https://fetch.spec.whatwg.org/#forbidden-response-header-name)", name)
		}
	})
	if n.MaxAge < 0 || n.MaxAge > 24*time.Hour {
		fault("max age %s: it is from 0s to 24h", n.MaxAge)
	}
	if len(faults) > 0 {
		return grant{}, errors.Join(faults...)
	}
	return g, nil
}

func checkMethod(m string) error {
	switch upper := strings.ToUpper(m); {
	case upper == "CONNECT" || upper == "TRACE" || upper == "TRACK":
		return errors.New("browsers refuse to send it (https://fetch.spec.whatwg.org/#forbidden-method)")
	case m == "" || len(m) > 40 || strings.Trim(upper, "ABCDEFGHIJKLMNOPQRSTUVWXYZ-") != "" || upper[0] == '-':
		return errors.New("not a method that could be written into a configuration")
	case m != upper:
		return fmt.Errorf("methods are case-sensitive; write %s", upper)
	}
	return nil
}

// plainName is narrower than a token of RFC 9110: of the other characters that a token
// may have, each means something in one of the languages, and no header uses them.
func plainName(name string) bool {
	if name == "" || len(name) > 100 {
		return false
	}
	for i := range len(name) {
		c := name[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '_' && c != '.' {
			return false
		}
	}
	return true
}

// needNames returns the names once each, in lower case and sorted, as browsers ask.
func needNames(list []string, check func(string)) []string {
	var names []string
	for _, n := range list {
		check(n)
		names = append(names, strings.ToLower(n))
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func listItems(list string) []string {
	var names []string
	for n := range strings.SplitSeq(list, ",") {
		if n = strings.Trim(n, " \t"); n != "" {
			names = append(names, n)
		}
	}
	return names
}

// insecure reports whether whoever is on the network path can speak for the origin.
func insecure(o web.Origin) bool { return o.Scheme() == "http" && !o.Loopback() }

// servedOrigin is the origin of an absolute URL as the model writes it, or "". That of a
// WebSocket's is the one that pages have.
func servedOrigin(absolute string) string {
	u, err := url.Parse(absolute)
	if err != nil {
		return ""
	}
	return urlOrigin(u)
}

func urlOrigin(u *url.URL) string {
	scheme := strings.ToLower(u.Scheme)
	if as, ok := map[string]string{"ws": "http", "wss": "https"}[scheme]; ok {
		scheme = as
	}
	host := strings.ToLower(u.Host)
	host = strings.TrimSuffix(host, map[string]string{"http": ":80", "https": ":443"}[scheme])
	o, err := web.ParseOrigin(scheme + "://" + host)
	if err != nil {
		return ""
	}
	return o.String()
}
