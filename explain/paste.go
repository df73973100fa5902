package explain

import (
	"cmp"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/moat-gateway/moat/browser"
)

// What is pasted comes from anybody. These bounds are far above what people paste, and
// far below what hurts.
const (
	maxPaste  = 1 << 20 // a curl command, a fetch call, an error, in bytes
	maxValue  = 16 << 10
	maxURL    = 32 << 10
	maxBody   = 64 << 10 // beyond it a body's text is cut; nothing that is explained reads so far
	maxFields = 500
	maxParts  = 50 // commands, calls or errors in one paste
	maxNotes  = 40
)

// hidden stands for whatever could be a secret: the model needs none, and what is
// explained is shared.
const hidden = "…"

// The kinds of what can be pasted.
const (
	PastedCurl  = "curl"
	PastedFetch = "fetch"
	PastedHAR   = "har"
	PastedError = "error"
	PastedURL   = "url"
)

// Pasted is what a text turned out to be. One of the lists is filled, as Kind says.
type Pasted struct {
	Kind string `json:"kind"`
	// Questions are those of curl commands, fetch calls or a bare URL.
	Questions []Question `json:"questions,omitempty"`
	// Entries are those of a HAR file.
	Entries []Entry `json:"entries,omitempty"`
	// Diagnoses are those of error texts.
	Diagnoses []Diagnosis `json:"diagnoses,omitempty"`
}

// Paste finds out what it is given (curl commands, fetch calls, a HAR file, errors from a
// console or a bare URL) and reads it.
func Paste(text string) (*Pasted, error) {
	text = unwrapPaste(text)
	switch {
	case text == "":
		return nil, errNothingPasted
	case looksLikeJSON(text) || strings.HasPrefix(text, "<"):
		entries, err := FromHAR([]byte(text))
		if err != nil {
			return nil, err
		}
		return &Pasted{Kind: PastedHAR, Entries: entries}, nil
	case looksLikeCurl(text):
		questions, err := curlCommands(text)
		if err != nil {
			return nil, err
		}
		return &Pasted{Kind: PastedCurl, Questions: questions}, nil
	case looksLikeCode(text):
		return pasteFetch(text)
	}
	// A bare URL holds no white space. It comes before errors, which are found anywhere.
	if !strings.ContainsAny(text, " \t\r\n") && (hasPrefixFold(text, "https://") || hasPrefixFold(text, "http://")) {
		s := sent{source: "url", url: text}
		q, err := s.question()
		if err != nil {
			return nil, err
		}
		return &Pasted{Kind: PastedURL, Questions: []Question{*q}}, nil
	}
	diagnoses, err := Decode(text)
	switch {
	case err == nil:
		return &Pasted{Kind: PastedError, Diagnoses: diagnoses}, nil
	case strings.Contains(text, "fetch("):
		return pasteFetch(text)
	case hasFold(text, "Invoke-WebRequest") || hasFold(text, "Invoke-RestMethod"):
		return nil, errors.New("paste: this is PowerShell, which moat explain does not read; copy the request as cURL (bash) or as fetch instead")
	case hasFold(text, "XMLHttpRequest(") || hasFold(text, "axios") || hasFold(text, "$.ajax"):
		return nil, errors.New("paste: this is code, but has no call of fetch; run it, and copy its request from the browser's network panel as fetch or cURL")
	}
	return nil, err
}

func pasteFetch(text string) (*Pasted, error) {
	questions, err := fetchCalls(text)
	if err != nil {
		return nil, err
	}
	return &Pasted{Kind: PastedFetch, Questions: questions}, nil
}

var errNothingPasted = errors.New("paste: there is nothing; paste a curl command, a fetch call, a HAR file or the error from the browser's console")

// unwrapPaste takes away what clings to pasted text: a byte order mark, the fence of a
// Markdown block.
func unwrapPaste(text string) string {
	text = strings.TrimSpace(strings.TrimPrefix(text, "\ufeff"))
	if rest, ok := strings.CutPrefix(text, "```"); ok {
		if _, body, found := strings.Cut(rest, "\n"); found {
			text = strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(body), "```"))
		}
	}
	return text
}

func looksLikeJSON(text string) bool {
	if strings.HasPrefix(text, "[") {
		rest := strings.TrimLeft(text[1:], " \t\r\n")
		return strings.HasPrefix(rest, "{") || strings.HasPrefix(rest, "[") || strings.HasPrefix(rest, `"`) || rest == "]"
	}
	return strings.HasPrefix(text, "{")
}

func looksLikeCode(text string) bool {
	for _, start := range []string{
		"fetch(", "fetch (", "await ", "const ", "let ", "var ", "return ", "async ", "(async ", "void fetch",
		"window.fetch", "self.fetch", "globalThis.fetch", "//", "/*", "try {", "try{",
	} {
		if strings.HasPrefix(text, start) {
			return strings.Contains(text, "fetch")
		}
	}
	return false
}

func tooLarge(source string, size, limit int, wayOut string) error {
	return fmt.Errorf("%s: the text has %d bytes, more than the %d that moat explain reads; %s", source, size, limit, wayOut)
}

// sent is a request as a tool sends it or a browser sent it: the header fields that a
// browser sets by itself are among the others.
type sent struct {
	source string // for errors: "curl", "fetch", "har", "url"
	method string
	url    string
	header browser.Header
	body   *browser.Body
	// page is the document's URL, if known otherwise than from Referer and Origin.
	page string
	// recorded is set if it was copied from a browser rather than written by hand:
	// then its header fields are not all the script's.
	recorded bool
	// script are the names, in lower case, that a preflight listed: what of the unsafe
	// fields script set. It is nil if there was no preflight.
	script []string
	// credentials are those that fetch was given.
	credentials string
	// resource is Chrome's _resourceType.
	resource string
	// cookies are further names of cookies that were sent.
	cookies []string
	notes   []string

	origin, referer, site, mode, dest, acrm, acrh string
	activated, fromPreflight                      bool
	left, concealed                               []string
}

func (s *sent) note(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if len(s.notes) < maxNotes && !slices.Contains(s.notes, text) {
		s.notes = append(s.notes, text)
	}
}

// question turns the request into what a page would have to ask for.
func (s *sent) question() (*Question, error) {
	raw, target, err := s.target()
	if err != nil {
		return nil, err
	}
	header, err := s.sort()
	if err != nil {
		return nil, err
	}
	q := &Question{Request: browser.Request{URL: raw, Method: s.method, Body: s.body}}
	if header, err = s.preflighted(&q.Request, header); err != nil {
		return nil, err
	}
	s.findPage(q, target)
	s.findAPI(q, target, header)
	s.findCredentials(q, raw, target)
	if len(s.left) > 0 {
		s.note("Left out, because the browser itself sets them: %s.", list(s.left))
	}
	if len(s.concealed) > 0 {
		s.note("Values that may be secret were replaced by “%s”: %s.", hidden, list(s.concealed))
	}
	q.Notes = s.notes
	return q, nil
}

// target checks the URL and takes from it what must not stay.
func (s *sent) target() (string, *url.URL, error) {
	raw := strings.TrimSpace(s.url)
	if len(raw) > maxURL {
		return "", nil, fmt.Errorf("%s: the URL has %d bytes, more than the %d that moat explain reads; shorten its query", s.source, len(raw), maxURL)
	}
	u, err := url.Parse(raw)
	if err != nil {
		if wrong, ok := errors.AsType[*url.Error](err); ok {
			err = wrong.Err
		}
		return "", nil, fmt.Errorf("%s: %s is no URL (%w); give it as https://host/path", s.source, short(raw), err)
	}
	scheme := strings.ToLower(u.Scheme)
	switch scheme {
	case "http", "https", "ws", "wss":
	case "":
		if s.source != "fetch" {
			return "", nil, fmt.Errorf("%s: the URL %s has no scheme; give it as https://host/path", s.source, short(raw))
		}
		if u.Host != "" { // //host/path takes the page's scheme.
			return "", nil, fmt.Errorf("fetch: the URL %s takes its scheme from the page; write it out", short(raw))
		}
		return redactQuery(withoutFragment(raw)), nil, nil
	default:
		return "", nil, fmt.Errorf("%s: the URL %s is not http or https; CORS is only about those", s.source, short(raw))
	}
	if u.Hostname() == "" || u.Opaque != "" {
		return "", nil, fmt.Errorf("%s: the URL %s has no host; give it as https://host/path", s.source, short(raw))
	}
	if u.User != nil && s.source == "curl" {
		// curl takes them for -u, and does not send them in the URL.
		u.User = nil
		raw = u.String()
		s.header = append(slices.Clone(s.header), browser.Field{Name: "Authorization", Value: "Basic " + hidden})
		s.note("The user and password in the URL became an Authorization header field, as curl makes of them.")
	}
	raw = withoutFragment(raw)
	clean := cleanURL(raw)
	if clean != raw {
		s.note("What looks like a secret in the URL was replaced by “%s”.", hidden)
	}
	u.Scheme = scheme
	return clean, u, nil
}

// cleanURL takes secrets out of a URL. That there are a user and a password stays to be
// seen: fetch throws because of them.
func cleanURL(raw string) string {
	raw = withoutFragment(raw)
	if scheme, rest, ok := strings.Cut(raw, "://"); ok {
		end := len(rest)
		if i := strings.IndexAny(rest, "/?\\"); i >= 0 {
			end = i
		}
		if at := strings.LastIndexByte(rest[:end], '@'); at >= 0 {
			raw = scheme + "://" + url.PathEscape(hidden) + rest[at:]
		}
	}
	return redactQuery(raw)
}

func withoutFragment(raw string) string {
	raw, _, _ = strings.Cut(raw, "#")
	return raw
}

// sort goes through the header: what tells of the page and the browser is remembered and
// left out, what may be secret is replaced. What remains is for script to set.
func (s *sent) sort() (browser.Header, error) {
	if len(s.header) > maxFields {
		return nil, fmt.Errorf("%s: the request has %d header fields, more than the %d that moat explain reads; remove some", s.source, len(s.header), maxFields)
	}
	var rest browser.Header
	for _, f := range s.header {
		name := strings.ToLower(f.Name)
		if strings.HasPrefix(name, ":") { // HTTP/2's, as Chrome records them
			continue
		}
		if !isToken(f.Name) {
			return nil, fmt.Errorf("%s: %s is no name of a header field; remove it, or mend it", s.source, short(f.Name))
		}
		if len(f.Value) > maxValue {
			return nil, fmt.Errorf("%s: the value of %s has %d bytes, more than the %d that moat explain reads; shorten it", s.source, f.Name, len(f.Value), maxValue)
		}
		if strings.ContainsAny(f.Value, "\r\n\x00") {
			return nil, fmt.Errorf("%s: the value of %s has a line break or a NUL, which no header field can have; remove it", s.source, f.Name)
		}
		f.Value = strings.Trim(f.Value, " \t")
		if s.remember(name, f.Value) {
			continue
		}
		if s.browserSets(name, f.Value) {
			s.leave(f.Name)
			continue
		}
		if value := redactField(name, f.Value); value != f.Value {
			s.conceal(f.Name)
			f.Value = value
		}
		rest = append(rest, f)
	}
	return rest, nil
}

// remember keeps what a field tells of the page. It reports whether there is no more to
// say about it.
func (s *sent) remember(name, value string) bool {
	switch name {
	case "origin":
		s.origin = value
	case "referer":
		s.referer = value
	case "cookie":
		s.cookies = append(s.cookies, cookieNames(value)...)
	case "sec-fetch-site":
		s.site = strings.ToLower(value)
	case "sec-fetch-mode":
		s.mode = strings.ToLower(value)
	case "sec-fetch-dest":
		s.dest = strings.ToLower(value)
	case "sec-fetch-user":
		s.activated = value == "?1"
	case "access-control-request-method":
		s.acrm = value
	case "access-control-request-headers":
		s.acrh = value
	case "upgrade":
		if strings.EqualFold(value, "websocket") {
			s.mode = "websocket"
		}
		return false
	default:
		return false
	}
	return true
}

func (s *sent) leave(name string) {
	if !containsFold(s.left, name) {
		s.left = append(s.left, name)
	}
}

func (s *sent) conceal(name string) {
	if !containsFold(s.concealed, name) {
		s.concealed = append(s.concealed, name)
	}
}

// byBrowser are the fields that script cannot set
// (https://fetch.spec.whatwg.org/#forbidden-request-header) or that only browsers send.
var byBrowser = []string{
	"accept-charset", "accept-encoding", "alt-used", "connection", "content-length", "cookie2", "date", "dnt",
	"expect", "host", "keep-alive", "permissions-policy", "priority", "purpose", "te", "trailer",
	"transfer-encoding", "upgrade", "upgrade-insecure-requests", "user-agent", "via", "x-client-data",
}

// byBrowserOrScript are fields that browsers send by themselves and that script may set
// too. In a recording they are the browser's.
var byBrowserOrScript = []string{
	"accept-language", "cache-control", "device-memory", "downlink", "dpr", "if-modified-since",
	"if-none-match", "if-range", "last-event-id", "pragma", "rtt", "save-data", "viewport-width", "width",
}

// byValue are the fields that need no preflight if their value is harmless
// (https://fetch.spec.whatwg.org/#cors-safelisted-request-header). A preflight does not
// list those.
var byValue = []string{"accept", "accept-language", "content-language", "content-type", "range"}

func (s *sent) browserSets(name, value string) bool {
	if slices.Contains(byBrowser, name) || strings.HasPrefix(name, "sec-") || strings.HasPrefix(name, "proxy-") {
		return true
	}
	switch {
	case !s.recorded || slices.Contains(s.script, name):
		return false
	case slices.Contains(byBrowserOrScript, name):
		return true
	case name == "accept":
		return value == "*/*"
	case s.script != nil:
		// The preflight listed all that script set beyond the safelist.
		return !slices.Contains(byValue, name)
	}
	return false
}

// looksRecorded reports whether a browser wrote the header.
func looksRecorded(h browser.Header) bool {
	mozilla, typical := false, false
	for _, f := range h {
		name := strings.ToLower(f.Name)
		switch {
		case strings.HasPrefix(name, "sec-fetch-"), strings.HasPrefix(name, "sec-ch-ua"):
			return true
		case name == "user-agent":
			mozilla = strings.HasPrefix(f.Value, "Mozilla/")
		case name == "accept-language", name == "accept-encoding":
			typical = true
		}
	}
	return mozilla && typical
}

// preflighted handles somebody who sends a preflight by hand, as many do with curl: the
// question is then about the request that the preflight announces.
func (s *sent) preflighted(r *browser.Request, header browser.Header) (browser.Header, error) {
	if s.acrm == "" && s.acrh == "" {
		return header, nil
	}
	if s.acrm == "" || s.method != "OPTIONS" {
		s.leave("Access-Control-Request-Method/-Headers")
		return header, nil
	}
	if !isToken(s.acrm) {
		return nil, fmt.Errorf("%s: Access-Control-Request-Method: %s is no method; name one", s.source, short(s.acrm))
	}
	s.fromPreflight = true
	r.Method, r.Body = s.acrm, nil
	header = nil
	for name := range strings.SplitSeq(s.acrh, ",") {
		name = strings.TrimSpace(name)
		switch {
		case name == "":
		case !isToken(name):
			return nil, fmt.Errorf("%s: Access-Control-Request-Headers has %s, which is no name of a header field; mend it", s.source, short(name))
		case len(header) == maxFields:
			return nil, fmt.Errorf("%s: Access-Control-Request-Headers has more than %d names; remove some", s.source, maxFields)
		case strings.EqualFold(name, "content-type"):
			// It is listed only if it is none of the three that need no preflight.
			header = append(header, browser.Field{Name: name, Value: "application/json"})
		default:
			header = append(header, browser.Field{Name: name, Value: hidden})
		}
	}
	s.mode = "cors"
	s.note("This is a preflight. The question is about the %s request that it announces, with the header fields that it lists.", r.Method)
	return header, nil
}

// findPage finds out which page asked.
func (s *sent) findPage(q *Question, target *url.URL) {
	referer, fromReferer := pageURL(s.referer)
	origin, fromOrigin := pageURL(s.origin)
	page, known := pageURL(s.page)
	switch {
	case fromOrigin && known && sameOrigin(page, origin):
		q.Page.URL = page.String()
	case fromOrigin && fromReferer && sameOrigin(referer, origin):
		q.Page.URL = referer.String()
	case fromOrigin:
		q.Page.URL = origin.String()
		if fromReferer {
			s.note("Referer and Origin name different origins; the page is taken to be at Origin.")
		}
	case fromReferer && known && sameOrigin(page, referer):
		q.Page.URL = page.String()
	case fromReferer:
		q.Page.URL = referer.String()
	case known:
		q.Page.URL = page.String()
	}
	switch {
	case s.origin == "null" && s.mode != "navigate" && s.mode != "no-cors":
		q.Page.Sandboxed = true
		s.note("Origin was null: the page is taken to be sandboxed. A redirect between origins has the same effect.")
	case s.origin != "" && s.origin != "null" && !fromOrigin:
		s.note("Origin %s is no origin of a page on the web and was left out.", short(s.origin))
	}
	if q.Page.URL == "" && s.site == "same-origin" && target != nil {
		q.Page.URL = target.Scheme + "://" + target.Host + "/"
		s.note("Sec-Fetch-Site says same-origin: the page is taken to be at the target's origin.")
	}
	if s.site == "none" {
		s.note("Sec-Fetch-Site says none: the user asked for it, not a page.")
	}
}

// findAPI finds out what in the page asked.
func (s *sent) findAPI(q *Question, target *url.URL, header browser.Header) {
	r := &q.Request
	if s.method == "" {
		r.Method = "GET"
	}
	r.API = s.api(target, r, header)
	typ := essence(header.Value("Content-Type"))
	switch r.API {
	case browser.Fetch, browser.XHR:
		r.Header = header
		s.fetchBody(r, typ)
		if r.API == browser.Fetch && (s.mode == "no-cors" || s.mode == "same-origin") {
			r.Mode = s.mode
		}
		return
	case browser.Form:
		r.UserActivated = s.activated
		kinds := map[string]string{"multipart/form-data": "form-data", "text/plain": "plain"}
		if r.Body != nil {
			r.Body.Kind = cmp.Or(kinds[typ], "urlencoded")
		}
	case browser.Link:
		r.UserActivated = s.activated
	case browser.Beacon:
		s.beaconBody(r, header, typ)
	case browser.Image, browser.Script, browser.ModuleScript, browser.Stylesheet, browser.Font, browser.EventSource,
		browser.Ping, browser.WebSocket, browser.Frame:
		if !slices.Contains([]string{"GET", "HEAD"}, r.Method) && r.API != browser.Ping {
			s.note("A %s request cannot come from %s; the method was left as GET.", short(r.Method), r.API)
		}
		r.Method, r.Body = "", nil
	}
	for _, f := range header {
		s.leave(f.Name)
	}
}

// fetchBody says how script must have given the body, so that the browser adds the
// Content-Type that was sent, or none.
func (s *sent) fetchBody(r *browser.Request, typ string) {
	if r.Body == nil {
		return
	}
	if r.Body.Kind == "" {
		r.Body.Kind = "text"
	}
	if typ == "multipart/form-data" {
		r.Body.Kind, r.Body.Text = "form-data", ""
		r.Header = dropField(r.Header, "Content-Type")
	}
	if r.Body.Kind == "text" && typ == "" && s.recorded {
		r.Body.Kind = "buffer"
		s.note("The body was sent without Content-Type, as browsers send an ArrayBuffer or an untyped Blob.")
	}
	if len(r.Body.Text) > maxBody {
		r.Body.Text = strings.ToValidUTF8(r.Body.Text[:maxBody], "")
		s.note("The body's text was cut after %d bytes.", maxBody)
	}
}

func (s *sent) beaconBody(r *browser.Request, header browser.Header, typ string) {
	r.Method = ""
	if r.Body == nil {
		return
	}
	switch typ {
	case "text/plain":
		r.Body.Kind = "text"
	case "application/x-www-form-urlencoded":
		r.Body.Kind = "urlencoded"
	case "multipart/form-data":
		r.Body.Kind = "form-data"
	default:
		r.Body.Kind, r.Body.Type = "blob", header.Value("Content-Type")
	}
}

// api goes by the best evidence: the browser's own word, then Sec-Fetch-*.
func (s *sent) api(target *url.URL, r *browser.Request, header browser.Header) browser.API {
	if target != nil && (target.Scheme == "ws" || target.Scheme == "wss") || s.mode == "websocket" || s.resource == "websocket" {
		return browser.WebSocket
	}
	switch s.resource {
	case "fetch":
		return browser.Fetch
	case "xhr":
		return browser.XHR
	case "eventsource":
		return browser.EventSource
	case "ping":
		if essence(header.Value("Content-Type")) == "text/ping" {
			return browser.Ping
		}
		return browser.Beacon
	}
	dest := s.dest
	if dest == "" {
		dest = map[string]string{
			"document": "document", "stylesheet": "style", "image": "image", "font": "font",
			"script": "script", "media": "video", "texttrack": "track", "manifest": "manifest",
		}[s.resource]
	}
	if dest == "" && s.mode == "navigate" {
		dest = "document"
	}
	switch dest {
	case "image":
		return browser.Image
	case "script":
		return browser.Script
	case "style":
		return browser.Stylesheet
	case "font":
		return browser.Font
	case "iframe", "frame", "fencedframe", "embed", "object":
		if r.Method == "POST" {
			return browser.Form
		}
		return browser.Frame
	case "document":
		if r.Method == "POST" {
			return browser.Form
		}
		return browser.Link
	case "audio", "video", "track":
		s.note("Media (%s) is taken as an image: browsers ask for both in the same way.", dest)
		return browser.Image
	case "", "empty":
	default:
		s.note("Sec-Fetch-Dest %s is taken as fetch.", short(dest))
	}
	if s.recorded && strings.HasPrefix(header.Value("Accept"), "text/event-stream") && r.Method == "GET" && len(header) == 1 {
		return browser.EventSource
	}
	return browser.Fetch
}

// findCredentials says which cookies are in the jar, and whether the page asked to send
// them.
func (s *sent) findCredentials(q *Question, raw string, target *url.URL) {
	r := &q.Request
	seen := map[string]bool{}
	for _, name := range s.cookies {
		if seen[name] || len(seen) == maxFields {
			continue
		}
		seen[name] = true
		set := name + "=" + hidden
		// These prefixes let nobody guess.
		switch {
		case hasPrefixFold(name, "__Host-"):
			set += "; Path=/; Secure"
		case hasPrefixFold(name, "__Secure-"):
			set += "; Secure"
		}
		q.Cookies = append(q.Cookies, browser.Seed{URL: raw, SetCookie: set})
	}
	cross := true
	if page, ok := pageURL(q.Page.URL); ok && target != nil {
		cross = q.Page.Sandboxed || !sameOrigin(page, target)
	} else if s.site == "same-origin" || target == nil {
		cross = false
	}
	cookies := len(s.cookies) > 0 || s.credentials == "include"
	if len(s.cookies) > 0 {
		s.note("Cookies were sent. Only their names were kept; their SameSite is unknown and taken to be unset.")
	}
	if r.API == browser.Fetch && s.credentials != "" {
		r.Credentials = s.credentials
		return
	}
	if !cross {
		return
	}
	cors := s.mode == "cors"
	switch r.API {
	case browser.Fetch:
		if cookies {
			r.Credentials = "include"
		} else if s.recorded && !s.fromPreflight && r.Mode == "" {
			s.note("No cookies were sent: credentials are taken to be the default, same-origin.")
		}
	case browser.XHR, browser.EventSource:
		r.WithCredentials = cookies
	case browser.Image, browser.Script, browser.Stylesheet:
		if cors {
			r.CrossOrigin = "anonymous"
			if cookies {
				r.CrossOrigin = "use-credentials"
			}
		}
		if cors && r.API == browser.Script {
			s.note("A script that is fetched with CORS is taken as <script crossorigin>; a module behaves alike.")
		}
	case browser.Form, browser.Link, browser.ModuleScript, browser.Font, browser.Beacon, browser.Ping, browser.WebSocket, browser.Frame:
	}
}

// pageURL parses a URL that a page can have.
func pageURL(raw string) (*url.URL, bool) {
	if raw == "" || len(raw) > maxURL {
		return nil, false
	}
	u, err := url.Parse(cleanURL(raw))
	if err != nil || u.Hostname() == "" || u.Opaque != "" {
		return nil, false
	}
	u.Scheme = strings.ToLower(u.Scheme)
	u.User = nil
	if u.Path == "" {
		u.Path = "/"
	}
	return u, u.Scheme == "http" || u.Scheme == "https"
}

// sameOrigin compares scheme, host and port (https://html.spec.whatwg.org/#same-origin).
// It is for telling what was meant; the model decides with its own.
func sameOrigin(a, b *url.URL) bool {
	return originOf(a) == originOf(b)
}

func originOf(u *url.URL) string {
	scheme := map[string]string{"ws": "http", "wss": "https"}[u.Scheme]
	if scheme == "" {
		scheme = u.Scheme
	}
	port := u.Port()
	if scheme == "http" && port == "80" || scheme == "https" && port == "443" {
		port = ""
	}
	return scheme + "://" + strings.ToLower(u.Hostname()) + ":" + port
}

// cookieNames takes the names from a Cookie field. What has no name is all value.
func cookieNames(value string) []string {
	var names []string
	for pair := range strings.SplitSeq(value, ";") {
		name, _, ok := strings.Cut(pair, "=")
		name = strings.TrimSpace(name)
		if ok && isToken(name) && len(name) <= 256 && len(names) < maxFields {
			names = append(names, name)
		}
	}
	return names
}

// redactField replaces a field's value if it may be a secret.
func redactField(name, value string) string {
	name = strings.ToLower(name)
	switch {
	case value == "":
		return value
	case name == "authorization" || name == "proxy-authorization":
		return redactAuthorization(value)
	case name == "set-cookie":
		return redactSetCookie(value)
	case name == "location" || name == "content-location":
		return redactLocation(value)
	case strings.HasPrefix(name, "access-control-") || name == "www-authenticate":
		return value
	case name == "key" || strings.HasSuffix(name, "-key") || strings.HasSuffix(name, "_key"):
		return hidden
	}
	for _, part := range []string{
		"token", "secret", "api-key", "apikey", "api_key", "passw", "session", "auth", "csrf", "xsrf",
		"signature", "credential", "cookie", "jwt", "websocket-protocol",
	} {
		if strings.Contains(name, part) {
			return hidden
		}
	}
	return value
}

// redactAuthorization keeps the scheme, if it is one of those that everybody knows.
func redactAuthorization(value string) string {
	scheme, _, ok := strings.Cut(value, " ")
	if ok && containsFold([]string{"Basic", "Bearer", "Digest", "DPoP", "Negotiate", "NTLM", "Token", "ApiKey", "AWS4-HMAC-SHA256"}, scheme) {
		return scheme + " " + hidden
	}
	return hidden
}

// redactSetCookie keeps the name and the attributes, which decide where a cookie goes.
func redactSetCookie(value string) string {
	pair, attributes, more := strings.Cut(value, ";")
	name, _, ok := strings.Cut(pair, "=")
	if !ok {
		name = ""
	}
	clean := []string{strings.TrimSpace(name) + "=" + hidden}
	for attribute := range strings.SplitSeq(attributes, ";") {
		key, _, _ := strings.Cut(strings.TrimSpace(attribute), "=")
		if more && containsFold([]string{"Expires", "Max-Age", "Domain", "Path", "Secure", "HttpOnly", "SameSite", "Partitioned", "Priority"}, key) {
			clean = append(clean, strings.TrimSpace(attribute))
		}
	}
	return strings.Join(clean, "; ")
}

func redactLocation(value string) string {
	before, fragment, ok := strings.Cut(value, "#")
	clean := cleanURL(before)
	if ok && fragment != "" { // OAuth's implicit flow returns tokens there.
		clean += "#" + url.PathEscape(hidden)
	}
	return clean
}

// redactQuery replaces the values of query parameters that are meant to be secret. All
// else stays as it is, byte by byte: the URL is a key of the preflight cache and of rules.
func redactQuery(raw string) string {
	before, query, ok := strings.Cut(raw, "?")
	if !ok {
		return raw
	}
	parts := strings.Split(query, "&")
	for i, part := range parts {
		name, value, found := strings.Cut(part, "=")
		if found && value != "" && secretParameter(name) {
			parts[i] = name + "=" + url.QueryEscape(hidden)
		}
	}
	return before + "?" + strings.Join(parts, "&")
}

// secretEnds are what the names of secret query parameters end in, and secretNames are such
// names themselves.
var (
	secretEnds = []string{
		"token", "secret", "password", "passwd", "signature", "apikey", "_key", "-key", "authorization", "credential", "jwt",
		"sessionid", "session_id",
	}
	secretNames = []string{"sig", "auth", "pwd", "key", "code", "sid"}
)

func secretParameter(name string) bool {
	if plain, err := url.QueryUnescape(name); err == nil {
		name = plain
	}
	name = strings.ToLower(name)
	return slices.Contains(secretNames, name) ||
		slices.ContainsFunc(secretEnds, func(end string) bool { return strings.HasSuffix(name, end) })
}

func dropField(h browser.Header, name string) browser.Header {
	return slices.DeleteFunc(slices.Clone(h), func(f browser.Field) bool { return strings.EqualFold(f.Name, name) })
}

// essence is a media type without its parameters.
func essence(contentType string) string {
	contentType, _, _ = strings.Cut(contentType, ";")
	return strings.ToLower(strings.TrimSpace(contentType))
}

// isToken reports whether name is a token (RFC 9110, section 5.6.2).
func isToken(name string) bool {
	if name == "" || len(name) > 1024 {
		return false
	}
	for i := range len(name) {
		c := name[i]
		alnum := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
		if !alnum && strings.IndexByte("!#$%&'*+-.^_`|~", c) < 0 {
			return false
		}
	}
	return true
}

func containsFold(all []string, s string) bool {
	return slices.ContainsFunc(all, func(t string) bool { return strings.EqualFold(s, t) })
}

func hasPrefixFold(s, prefix string) bool {
	return len(s) >= len(prefix) && strings.EqualFold(s[:len(prefix)], prefix)
}

func hasFold(s, part string) bool {
	return strings.Contains(lowerASCII(s), lowerASCII(part))
}

// lowerASCII keeps every byte in its place.
func lowerASCII(s string) string {
	b := []byte(s)
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return string(b)
}

// short quotes a value for an error or a note. A value that was not understood may be a
// secret, so that little of it is shown.
func short(value string) string {
	const limit = 60
	if len(value) > limit {
		value = strings.ToValidUTF8(value[:limit], "") + hidden
	}
	return fmt.Sprintf("%q", value)
}

func list(names []string) string {
	const limit = 20
	if len(names) > limit {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:limit], ", "), len(names)-limit)
	}
	return strings.Join(names, ", ")
}
