package explain

import (
	"cmp"
	"errors"
	"slices"
	"strconv"
	"strings"

	"github.com/moat-gateway/moat/browser"
)

// The kinds of errors that are not, or not only, CORS: what Diagnosis.Other says.
const (
	OtherCSP          = "csp"           // the page's Content-Security-Policy
	OtherMixedContent = "mixed-content" // http from a page over https
	OtherORB          = "orb"           // Opaque Response Blocking, or its forerunner CORB
	OtherCORP         = "corp"          // the answer's Cross-Origin-Resource-Policy
	OtherLNA          = "lna"           // Local Network Access
	OtherNetwork      = "network"       // there was no answer: DNS, TCP, TLS
	OtherAPI          = "api"           // script called fetch in a way for which it throws
	OtherWarning      = "warning"       // nothing was blocked, yet
	OtherUnknown      = "unknown"       // the text is what script sees, whatever happened
)

// Diagnosis is what an error text from a browser's console says.
type Diagnosis struct {
	// Browser is "chrome", "firefox" or "safari", or empty if others say the same.
	Browser string `json:"browser,omitempty"`
	// CORS is Chromium's name of what failed. It is empty if the text is not about CORS,
	// or fits several: those are the Candidates, the likeliest first.
	CORS       browser.CORSError   `json:"cors_error,omitempty"`
	Candidates []browser.CORSError `json:"candidates,omitempty"`
	// Other is the kind of error if it is not about CORS. Local Network Access has both:
	// Chromium reports it as a CORS error, though no CORS header helps.
	Other string `json:"other,omitempty"`
	// Firefox is Firefox's name of the reason, if the text is Firefox's:
	// "CORSMissingAllowOrigin".
	Firefox string `json:"firefox,omitempty"`

	URL            string      `json:"url,omitempty"`
	RedirectedFrom string      `json:"redirected_from,omitempty"`
	Origin         string      `json:"origin,omitempty"`
	API            browser.API `json:"api,omitempty"`
	// Method and Header are those that the text names; Value is the value that came.
	Method string `json:"method,omitempty"`
	Header string `json:"header,omitempty"`
	Value  string `json:"value,omitempty"`
	// Status is the answer's, if the text tells it.
	Status int `json:"status,omitempty"`
	// NetError is Chromium's name of a network error: "net::ERR_CONNECTION_REFUSED".
	NetError string `json:"net_error,omitempty"`
	// Directive is that of the Content-Security-Policy, with its sources if they came.
	Directive string `json:"directive,omitempty"`
	// Text is what was pasted, on one line.
	Text string `json:"text"`
}

// phrase is a piece of text by which an error is known.
type phrase struct {
	text    string
	browser string
	cors    []browser.CORSError
	other   string
	// also are further words that must come between here and the next error.
	also string
	// read takes details from what is before and behind.
	read func(d *Diagnosis, before, match, after string)
	// vague is set if the text only follows on an error that another text names, and
	// leads if that other text is behind it in the same message.
	vague, leads bool
}

const preflightPrefix = "response to preflight request doesn't pass access control check"

func one(names ...browser.CORSError) []browser.CORSError { return names }

// either lists a failure of the actual request and its twin at the preflight, for those
// browsers whose text does not say which.
func either(name browser.CORSError) []browser.CORSError {
	return []browser.CORSError{name, "Preflight" + name}
}

// phrases are the texts of Chrome, Firefox and Safari, in lower case, with straight quotes
// and one space between words. Those of Chrome of 2015 to 2018, which forums still quote,
// are among them. A text that contains another comes before it.
var phrases = []phrase{
	// Chromium, blink/renderer/platform/loader/cors/cors_error_string.cc.
	{text: "must not be the wildcard '*' when the request's credentials mode is 'include'", browser: "chrome", cors: one(browser.WildcardOriginNotAllowed), read: originHeader},
	{text: "a wildcard '*' cannot be used in the 'access-control-allow-origin' header when the credentials flag is true", browser: "chrome", cors: one(browser.WildcardOriginNotAllowed), read: originHeader},
	{text: "no 'access-control-allow-origin' header is present on the requested resource", browser: "chrome", cors: one(browser.MissingAllowOriginHeader), read: originHeader},
	{text: "'access-control-allow-origin' header contains multiple values '", browser: "chrome", cors: one(browser.MultipleAllowOriginValues), read: quotedOrigin("', but only one")},
	{text: "'access-control-allow-origin' header contains the invalid value '", browser: "chrome", cors: one(browser.InvalidAllowOriginValue), read: quotedOrigin("'")},
	{text: "'access-control-allow-origin' header has a value '", browser: "chrome", cors: one(browser.AllowOriginMismatch), read: quotedOrigin("' that is not equal")},
	{text: "the value of the 'access-control-allow-credentials' header in the response is '", browser: "chrome", cors: one(browser.InvalidAllowCredentials), read: quotedCredentials},
	{text: "credentials flag is 'true', but the 'access-control-allow-credentials' header is '", browser: "chrome", cors: one(browser.InvalidAllowCredentials), read: quotedCredentials},
	{text: "cross origin requests are only supported for protocol schemes", browser: "chrome", cors: one(browser.CorsDisabledScheme)},
	{text: "url scheme \"", also: "\" is not supported", browser: "chrome", cors: one(browser.CorsDisabledScheme)},
	{text: "it does not have http ok status", browser: "chrome", cors: one(browser.PreflightInvalidStatus)},
	{text: "response for preflight has invalid http status code", browser: "chrome", cors: one(browser.PreflightInvalidStatus), read: statusBehind},
	{text: "response for preflight does not have http ok status", browser: "chrome", cors: one(browser.PreflightInvalidStatus)},
	{text: "redirect is not allowed for a preflight request", browser: "chrome", cors: one(browser.PreflightDisallowedRedirect)},
	{text: "response for preflight is invalid (redirect)", browser: "chrome", cors: one(browser.PreflightDisallowedRedirect)},
	{text: "cannot parse access-control-allow-methods response header field in preflight response", browser: "chrome", cors: one(browser.InvalidAllowMethodsPreflightResponse), read: header("Access-Control-Allow-Methods")},
	{text: "cannot parse access-control-allow-headers response header field in preflight response", browser: "chrome", cors: one(browser.InvalidAllowHeadersPreflightResponse), read: header("Access-Control-Allow-Headers")},
	{text: "is not allowed by access-control-allow-methods in preflight response", browser: "chrome", cors: one(browser.MethodDisallowedByPreflightResponse), read: methodBefore},
	{text: "is not allowed by access-control-allow-headers in preflight response", browser: "chrome", cors: one(browser.HeaderDisallowedByPreflightResponse), read: headerBefore},
	{text: "' contains a username and password, which is disallowed", browser: "chrome", cors: one(browser.RedirectContainsCredentials)},
	{text: "permission was denied for this request to access the", browser: "chrome", cors: one(browser.LocalNetworkAccessPermissionDenied), other: OtherLNA},
	{text: "the request client is not a secure context and the resource is in more-private address space", browser: "chrome", cors: one(browser.InsecureLocalNetwork), other: OtherLNA},
	{text: "request had a target ip address space of", browser: "chrome", cors: one(browser.InvalidLocalNetworkAccess), other: OtherLNA},
	{text: "cross origin requests are not allowed by request mode", browser: "chrome", cors: one(browser.DisallowedByMode)},
	{text: `request mode is "same-origin" but the url's origin is not same as the request origin`, browser: "chrome", cors: one(browser.DisallowedByMode), read: originBehind},
	{text: `request mode is "no-cors" but the redirect mode is not "follow"`, browser: "chrome", cors: one(browser.NoCorsRedirectModeNotFollow)},
	{text: "is unsupported in no-cors mode", browser: "chrome", other: OtherAPI, read: methodBefore},
	{text: "authorization will not be covered by the wildcard symbol (*) in cors", browser: "chrome", other: OtherWarning, read: header("Authorization")},
	{text: "has been blocked by cors policy", browser: "chrome", other: OtherUnknown, vague: true, leads: true},

	// Firefox, dom/locales/en-US/chrome/security/security.properties. The names are those
	// of the pages at MDN, without the version that some have.
	{text: "reason: cors disabled", browser: "firefox", other: OtherUnknown, read: firefox("CORSDisabled")},
	{text: "reason: cors request did not succeed", browser: "firefox", other: OtherNetwork, read: firefox("CORSDidNotSucceed")},
	{text: "reason: cors header 'origin' cannot be added", browser: "firefox", other: OtherUnknown, read: firefox("CORSOriginHeaderNotAdded")},
	{text: "reason: cors request external redirect not allowed", browser: "firefox", cors: firefoxNames["CORSExternalRedirectNotAllowed"], read: firefox("CORSExternalRedirectNotAllowed")},
	{text: "reason: cors request not http", browser: "firefox", cors: firefoxNames["CORSRequestNotHttp"], read: firefox("CORSRequestNotHttp")},
	{text: "reason: cors header 'access-control-allow-origin' missing", browser: "firefox", cors: firefoxNames["CORSMissingAllowOrigin"], read: firefox("CORSMissingAllowOrigin")},
	{text: "reason: multiple cors header 'access-control-allow-origin' not allowed", browser: "firefox", cors: firefoxNames["CORSMultipleAllowOriginNotAllowed"], read: firefox("CORSMultipleAllowOriginNotAllowed")},
	{text: "reason: cors header 'access-control-allow-origin' does not match '", browser: "firefox", cors: firefoxNames["CORSAllowOriginNotMatchingOrigin"], read: firefox("CORSAllowOriginNotMatchingOrigin")},
	{text: "reason: credential is not supported if the cors header 'access-control-allow-origin' is '*'", browser: "firefox", cors: firefoxNames["CORSNotSupportingCredentials"], read: firefox("CORSNotSupportingCredentials")},
	{text: "reason: did not find method in cors header 'access-control-allow-methods'", browser: "firefox", cors: firefoxNames["CORSMethodNotFound"], read: firefox("CORSMethodNotFound")},
	{text: "reason: expected 'true' in cors header 'access-control-allow-credentials'", browser: "firefox", cors: firefoxNames["CORSMissingAllowCredentials"], read: firefox("CORSMissingAllowCredentials")},
	{text: "reason: cors preflight response did not succeed", browser: "firefox", cors: firefoxNames["CORSPreflightDidNotSucceed"], read: firefox("CORSPreflightDidNotSucceed")},
	{text: "reason: cors preflight channel did not succeed", browser: "firefox", cors: firefoxNames["CORSPreflightDidNotSucceed"], read: firefox("CORSPreflightDidNotSucceed")},
	{text: "in cors header 'access-control-allow-methods'", also: "invalid token", browser: "firefox", cors: firefoxNames["CORSInvalidAllowMethod"], read: firefox("CORSInvalidAllowMethod")},
	{text: "in cors header 'access-control-allow-headers' from cors preflight channel", browser: "firefox", cors: firefoxNames["CORSMissingAllowHeaderFromPreflight"], read: firefox("CORSMissingAllowHeaderFromPreflight")},
	{text: "in cors header 'access-control-allow-headers'", also: "invalid token", browser: "firefox", cors: firefoxNames["CORSInvalidAllowHeader"], read: firefox("CORSInvalidAllowHeader")},
	{text: "is not allowed according to header 'access-control-allow-headers' from cors preflight response", browser: "firefox", cors: firefoxNames["CORSMissingAllowHeaderFromPreflight"], read: firefox("CORSMissingAllowHeaderFromPreflight")},
	{text: "the `authorization` header is not covered", browser: "firefox", other: OtherWarning, read: firefox("CORSAllowHeaderFromPreflightDeprecation")},
	{text: "security error: content at", also: "may not load data from", browser: "firefox", cors: one(browser.DisallowedByMode), read: firefoxSameOrigin},
	{text: "local network access permission required", also: "secure context: false", browser: "firefox", cors: one(browser.InsecureLocalNetwork), other: OtherLNA, read: firefoxLocal},
	{text: "local network access permission required", browser: "firefox", cors: one(browser.LocalNetworkAccessPermissionDenied), other: OtherLNA, read: firefoxLocal},
	// The page at MDN is the same in all languages.
	{text: "/cors/errors/cors", browser: "firefox", other: OtherUnknown, read: firefoxPage},
	{text: "cross-origin request blocked: the same origin policy disallows reading the remote resource", browser: "firefox", other: OtherUnknown, vague: true, leads: true},

	// WebKit, Source/WebCore/loader/CrossOriginAccessControl.cpp and
	// CrossOriginPreflightResultCache.cpp.
	{text: "cannot use wildcard in access-control-allow-origin when credentials flag is true", browser: "safari", cors: either(browser.WildcardOriginNotAllowed), read: originHeader},
	{text: "access-control-allow-origin cannot contain more than one origin", browser: "safari", cors: either(browser.MultipleAllowOriginValues), read: originHeader},
	{text: "is not allowed by access-control-allow-origin", browser: "safari", read: safariOrigin},
	{text: `credentials flag is true, but access-control-allow-credentials is not "true"`, browser: "safari", cors: either(browser.InvalidAllowCredentials), read: header("Access-Control-Allow-Credentials")},
	// WebKit looks at the status before it looks at the header; Chromium would name a
	// missing header first. The text says the status, so does the diagnosis.
	{text: "preflight response is not successful", browser: "safari", cors: one(browser.PreflightInvalidStatus), read: safariStatus},
	{text: "is not allowed by access-control-allow-methods", browser: "safari", cors: one(browser.MethodDisallowedByPreflightResponse), read: methodBefore},
	{text: "is not allowed by access-control-allow-headers", browser: "safari", cors: one(browser.HeaderDisallowedByPreflightResponse), read: headerBefore},
	{text: "header access-control-allow-methods has an invalid value:", browser: "safari", cors: one(browser.InvalidAllowMethodsPreflightResponse), read: header("Access-Control-Allow-Methods")},
	{text: "header access-control-allow-headers has an invalid value:", browser: "safari", cors: one(browser.InvalidAllowHeadersPreflightResponse), read: header("Access-Control-Allow-Headers")},
	{text: "not allowed to follow a cross-origin cors redirection with non cors scheme", browser: "safari", cors: one(browser.CorsDisabledScheme)},
	{text: "cross origin requests are only supported for http", browser: "safari", cors: one(browser.CorsDisabledScheme)},
	{text: "cross origin requests are not allowed when using same-origin fetch mode", browser: "safari", cors: one(browser.DisallowedByMode)},
	{text: "has credentials", also: "redirection url", browser: "safari", cors: one(browser.RedirectContainsCredentials)},
	{text: "not allowed to follow a redirection while loading", browser: "safari", other: OtherAPI, read: urlBehind},
	{text: "due to access control checks", browser: "safari", other: OtherUnknown, vague: true},

	// Content Security Policy.
	{text: "violates the following content security policy directive", browser: "chrome", other: OtherCSP, read: cspDirective},
	{text: "because it violates the document's content security policy", browser: "chrome", other: OtherCSP},
	{text: "directive of the content security policy", browser: "safari", other: OtherCSP, read: safariCSP},
	{text: "(report-only policy) the page's settings would block", browser: "firefox", other: OtherWarning, read: cspDirective},
	{text: "(report-only policy) the page's settings observed", browser: "firefox", other: OtherWarning, read: cspDirective},
	{text: "the page's settings blocked", browser: "firefox", other: OtherCSP, read: cspDirective},
	{text: "net::err_blocked_by_csp", browser: "chrome", other: OtherCSP, read: netErrorBefore},
	{text: "(blocked:csp)", browser: "chrome", other: OtherCSP},

	// Mixed content.
	{text: "mixed content:", also: "this request has been blocked", browser: "chrome", other: OtherMixedContent, read: mixedContent},
	{text: "mixed content:", browser: "chrome", other: OtherWarning, read: mixedContent},
	{text: "blocked loading mixed", browser: "firefox", other: OtherMixedContent, read: urlBehind},
	{text: "[blocked] the page at", browser: "safari", other: OtherMixedContent, read: safariMixed},
	{text: "(blocked:mixed-content)", browser: "chrome", other: OtherMixedContent},

	// Opaque Response Blocking, Cross-Origin-Resource-Policy.
	{text: "net::err_blocked_by_orb", browser: "chrome", other: OtherORB, read: netErrorBefore},
	{text: "cross-origin read blocking (corb) blocked cross-origin response", browser: "chrome", other: OtherORB, read: urlBehind},
	{text: "was blocked by opaqueresponseblocking", browser: "firefox", other: OtherORB, read: urlBefore},
	{text: "net::err_blocked_by_response", browser: "chrome", other: OtherCORP, read: netErrorBefore},
	{text: "was blocked due to its cross-origin-resource-policy header", browser: "firefox", other: OtherCORP, read: urlBefore},
	{text: "because it violates the resource's cross-origin-resource-policy response header", browser: "safari", other: OtherCORP, read: urlBefore},

	// The network's. net::ERR_FAILED stands for anything that the browser itself stopped.
	{text: "net::err_blocked_by_local_network_access_checks", browser: "chrome", other: OtherLNA, read: netErrorBefore},
	{text: "net::err_blocked_by_private_network_access_checks", browser: "chrome", other: OtherLNA, read: netErrorBefore},
	{text: "net::err_failed", browser: "chrome", other: OtherUnknown, read: netErrorBefore, vague: true},
	{text: "net::err_", browser: "chrome", other: OtherNetwork, read: netErrorBefore},

	// What script gets to see: the same, whatever happened.
	{text: "failed to fetch", browser: "chrome", other: OtherUnknown, vague: true},
	{text: "networkerror when attempting to fetch resource", browser: "firefox", other: OtherUnknown, vague: true},
	{text: "typeerror: load failed", browser: "safari", other: OtherUnknown, vague: true},
	{text: "network error", also: "", other: OtherUnknown, vague: true},
}

// firefoxNames are Firefox's reasons.
var firefoxNames = map[string][]browser.CORSError{
	"CORSDisabled":                            nil,
	"CORSDidNotSucceed":                       nil,
	"CORSOriginHeaderNotAdded":                nil,
	"CORSExternalRedirectNotAllowed":          {browser.RedirectContainsCredentials, browser.PreflightDisallowedRedirect},
	"CORSRequestNotHttp":                      {browser.CorsDisabledScheme},
	"CORSMissingAllowOrigin":                  either(browser.MissingAllowOriginHeader),
	"CORSMultipleAllowOriginNotAllowed":       either(browser.MultipleAllowOriginValues),
	"CORSAllowOriginNotMatchingOrigin":        append(either(browser.AllowOriginMismatch), either(browser.InvalidAllowOriginValue)...),
	"CORSNotSupportingCredentials":            either(browser.WildcardOriginNotAllowed),
	"CORSMethodNotFound":                      {browser.MethodDisallowedByPreflightResponse},
	"CORSMissingAllowCredentials":             either(browser.InvalidAllowCredentials),
	"CORSPreflightDidNotSucceed":              {browser.PreflightInvalidStatus, browser.PreflightDisallowedRedirect},
	"CORSInvalidAllowMethod":                  {browser.InvalidAllowMethodsPreflightResponse},
	"CORSInvalidAllowHeader":                  {browser.InvalidAllowHeadersPreflightResponse},
	"CORSMissingAllowHeaderFromPreflight":     {browser.HeaderDisallowedByPreflightResponse},
	"CORSAllowHeaderFromPreflightDeprecation": nil,
}

// starts are the words with which a console begins a message: what is before them belongs
// to another.
var starts = []string{
	"access to ", "cross-origin request blocked:", "cross-origin request warning:", "fetch api cannot load ",
	"xmlhttprequest cannot load ", "eventsource cannot load ", "mixed content:", "connecting to '", "loading the ",
	"content-security-policy:", "content security policy:", "security error:", "local network access permission required", "failed to load resource:", "typeerror:", "uncaught ",
	"the resource at ", "blocked loading ", "[blocked] ", "[error] ", "[warning] ", "cancelled load to ", "[report only] ",
	"unhandled promise rejection:", "get http", "put http", "post http", "head http", "patch http", "delete http", "options http",
}

// weakStarts begin a message too, but also stand within some.
var weakStarts = []string{"origin ", "refused to ", "preflight response is ", "request header field ", "method "}

// maxMessage is how long the message around a phrase can be.
const maxMessage = 8 << 10

// Decode reads error texts as they are copied from the console of Chrome, Firefox or
// Safari, in any number. It knows those of CORS and those that are taken for CORS.
func Decode(text string) ([]Diagnosis, error) {
	if len(text) > maxPaste/4 {
		return nil, tooLarge("console", len(text), maxPaste/4, "paste only the lines of the error")
	}
	d := newDecoder(text)
	d.find()
	if len(d.found) == 0 {
		d.fallBack()
	}
	d.join()
	if len(d.found) == 0 {
		return nil, errors.New(`console: no error of a browser is known in this text; paste the red line from the console that begins with "Access to fetch at" (Chrome), "Cross-Origin Request Blocked" (Firefox) or "Origin … is not allowed by" (Safari), or copy the request as cURL from the network panel`)
	}
	return d.found, nil
}

// decoder looks for phrases. lower is text in lower case; places in both are the same.
type decoder struct {
	text, lower string
	found       []Diagnosis
	vague       []bool
}

func newDecoder(text string) *decoder {
	text = strings.ToValidUTF8(text, "\ufffd")
	text = strings.NewReplacer("‘", "'", "’", "'", "‚", "'", "´", "'", "“", `"`, "”", `"`, "„", `"`, "«", `"`, "»", `"`, "\u00a0", " ", "\u202f", " ").Replace(text)
	text = strings.Join(strings.Fields(text), " ")
	return &decoder{text: text, lower: lowerASCII(text)}
}

// hit is a phrase at a place.
type hit struct {
	*phrase
	at, end int
}

// find finds all phrases and reads the messages around them.
func (d *decoder) find() {
	hits := d.hits()
	from := 0
	for i, h := range hits {
		until := min(len(d.text), h.end+maxMessage)
		if i+1 < len(hits) {
			until = min(until, hits[i+1].at)
		}
		next := d.nextStart(h.end, until)
		if h.leads && next < 0 && i+1 < len(hits) && until == hits[i+1].at {
			continue
		}
		if next >= 0 {
			until = next
		}
		d.add(d.diagnose(h, d.message(max(from, h.at-maxMessage), h.at), d.text[h.end:until]), h.vague)
		if len(d.found) == maxParts {
			return
		}
		from = h.end
	}
}

// hits are the phrases in the text, in order and without overlaps. The first of the list
// that fits a place counts.
func (d *decoder) hits() []hit {
	var hits []hit
	taken := make([]bool, len(d.lower))
	for i := range phrases {
		p := &phrases[i]
		at := 0
		for range 2 * maxParts {
			j := strings.Index(d.lower[at:], p.text)
			if j < 0 {
				break
			}
			start, end := at+j, at+j+len(p.text)
			at = end
			if slices.Contains(taken[start:end], true) || p.also != "" && !d.near(start, end, p.also) {
				continue
			}
			for k := start; k < end; k++ {
				taken[k] = true
			}
			hits = append(hits, hit{p, start, end})
		}
	}
	slices.SortFunc(hits, func(a, b hit) int { return a.at - b.at })
	return hits
}

// near reports whether further words come within the same message.
func (d *decoder) near(start, end int, words string) bool {
	until := min(len(d.lower), end+maxMessage)
	if j := d.nextStart(end, until); j >= 0 {
		until = j
	}
	return strings.Contains(d.lower[max(0, start-300):start], words) || strings.Contains(d.lower[end:until], words)
}

// message is the text before a phrase that belongs to it.
func (d *decoder) message(from, at int) string {
	for _, words := range [][]string{starts, weakStarts} {
		begin := -1
		for _, s := range words {
			if j := strings.LastIndex(d.lower[from:at], s); j > begin && d.boundary(from+j) {
				begin = j
			}
		}
		if begin >= 0 {
			return d.text[from+begin : at]
		}
	}
	return d.text[from:at]
}

// boundary reports whether a word begins at i.
func (d *decoder) boundary(i int) bool {
	return i == 0 || !isNameByte(d.lower[i-1]) && d.lower[i-1] != '-' && d.lower[i-1] != '\''
}

func (d *decoder) nextStart(from, until int) int {
	next := -1
	for _, s := range starts {
		if j := strings.Index(d.lower[from:until], s); j >= 0 && (next < 0 || from+j < next) && d.boundary(from+j) {
			next = from + j
		}
	}
	return next
}

func (d *decoder) add(x Diagnosis, vague bool) {
	d.found = append(d.found, x)
	d.vague = append(d.vague, vague)
}

func (d *decoder) diagnose(h hit, before, after string) Diagnosis {
	match := d.text[h.at:h.end]
	x := Diagnosis{Browser: h.browser, Other: h.other, Text: cut(withoutSource(before+match+after), 2000)}
	x.setCORS(h.cors)
	x.readAround(before, after)
	if h.read != nil {
		h.read(&x, before, match, after)
	}
	if strings.Contains(lowerASCII(before), preflightPrefix) {
		x.toPreflight()
	}
	if strings.Contains(lowerASCII(before), "blocked by cors policy") {
		x.Browser = "chrome" // before 2019 its texts were those that Safari still has
	}
	return x
}

// withoutSource takes away the place in the code that consoles put behind a message:
// "app.js:12".
func withoutSource(text string) string {
	text = strings.TrimSpace(text)
	for range 3 {
		i := strings.LastIndexByte(text, ' ') + 1
		file, line, ok := strings.Cut(text[i:], ":")
		if !ok || i == 0 || file == "" || strings.Trim(line, "0123456789:") != "" || line == "" {
			break
		}
		text = strings.TrimSpace(text[:i])
	}
	return text
}

func (x *Diagnosis) setCORS(names []browser.CORSError) {
	x.CORS, x.Candidates = "", nil
	if len(names) == 1 {
		x.CORS = names[0]
	} else if len(names) > 1 {
		x.Candidates = slices.Clone(names)
	}
}

// toPreflight changes the name of a check to that of the same check at the preflight.
func (x *Diagnosis) toPreflight() {
	if slices.Contains([]browser.CORSError{
		browser.WildcardOriginNotAllowed, browser.MissingAllowOriginHeader, browser.MultipleAllowOriginValues,
		browser.InvalidAllowOriginValue, browser.AllowOriginMismatch, browser.InvalidAllowCredentials,
	}, x.CORS) {
		x.CORS = "Preflight" + x.CORS
	}
}

// cut shortens a text.
func cut(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	return strings.ToValidUTF8(s[:limit], "") + hidden
}

// between returns what stands between two texts, the first of which is looked for without
// regard to case.
func between(s, left, right string) (string, bool) {
	i := strings.Index(lowerASCII(s), left)
	if i < 0 {
		return "", false
	}
	s = s[i+len(left):]
	j := strings.Index(lowerASCII(s), right)
	if j < 0 {
		return "", false
	}
	return cut(s[:j], maxValue), true
}

// readAround reads what the messages of a browser have in common.
func (x *Diagnosis) readAround(before, after string) {
	all := before + " " + after
	if kind, ok := between(before, "access to ", " at '"); ok {
		x.API = apis[lowerASCII(kind)]
		x.URL, _ = between(before, " at '", "' ")
	}
	if from, ok := between(before, "(redirected from '", "')"); ok {
		x.RedirectedFrom = from
	}
	if origin, ok := between(before, "from origin '", "'"); ok {
		x.Origin = origin
	} else if origin, ok := between(after, "origin '", "' is therefore not allowed access"); ok {
		x.Origin = origin
	}
	if _, rest, ok := cutFold(before, "remote resource at "); ok {
		x.URL = firstURL(rest)
	}
	for _, verb := range []struct {
		text string
		api  browser.API
	}{
		{"fetch api cannot load ", browser.Fetch},
		{"xmlhttprequest cannot load ", browser.XHR},
		{"eventsource cannot load ", browser.EventSource},
	} {
		if _, rest, ok := cutFold(all, verb.text); ok {
			x.API = verb.api
			x.URL = cmp.Or(x.URL, firstURL(rest))
		}
	}
	if _, rest, ok := cutFold(after, "status code: "); ok {
		x.Status = leadingNumber(rest)
	}
}

// apis are Chromium's words for what asks.
var apis = map[string]browser.API{
	"fetch": browser.Fetch, "xmlhttprequest": browser.XHR, "script": browser.Script, "css stylesheet": browser.Stylesheet,
	"css style sheet": browser.Stylesheet, "font": browser.Font, "image": browser.Image, "eventsource": browser.EventSource,
	"resource": browser.EventSource, "internal resource": "", "video": "", "audio": "",
}

func cutFold(s, sep string) (before, after string, ok bool) {
	i := strings.Index(lowerASCII(s), sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

// firstURL takes the URL that comes next, without what the sentence puts behind it.
func firstURL(s string) string {
	i := -1
	for _, scheme := range []string{"http://", "https://", "ws://", "wss://", "file:///", "data:"} {
		if j := strings.Index(lowerASCII(cut(s, maxURL)), scheme); j >= 0 && (i < 0 || j < i) {
			i = j
		}
	}
	if i < 0 {
		return ""
	}
	s = s[i:]
	if j := strings.IndexAny(s, " \"'<>`"); j >= 0 {
		s = s[:j]
	}
	return cut(strings.TrimRight(s, ".,;:!?)"), maxURL)
}

func lastURL(s string) string {
	i := strings.LastIndex(s, "://")
	if i < 0 {
		return ""
	}
	for i > 0 && isNameByte(s[i-1]) {
		i--
	}
	return firstURL(s[i:])
}

func leadingNumber(s string) int {
	n := 0
	for n < len(s) && n < 3 && '0' <= s[n] && s[n] <= '9' {
		n++
	}
	v, err := strconv.Atoi(s[:n])
	if err != nil {
		return 0 // "(null)", as Firefox says for none
	}
	return v
}

func originHeader(d *Diagnosis, _, _, _ string) { d.Header = "Access-Control-Allow-Origin" }

func header(name string) func(d *Diagnosis, _, _, _ string) {
	return func(d *Diagnosis, _, _, after string) {
		d.Header = name
		if d.Browser == "safari" && strings.HasPrefix(after, " ") && d.CORS != "" {
			d.Value = cut(strings.TrimSpace(after), 1000)
		}
	}
}

// quotedOrigin takes the value that follows, up to end.
func quotedOrigin(end string) func(d *Diagnosis, _, _, after string) {
	return func(d *Diagnosis, _, _, after string) {
		d.Header = "Access-Control-Allow-Origin"
		if value, _, ok := cutFold(after, end); ok {
			d.Value = cut(value, 1000)
		}
	}
}

func quotedCredentials(d *Diagnosis, _, _, after string) {
	d.Header = "Access-Control-Allow-Credentials"
	d.Value, _, _ = strings.Cut(cut(after, 1000), "'")
}

func statusBehind(d *Diagnosis, _, _, after string) {
	d.Status = leadingNumber(strings.TrimSpace(after))
}

// wordBefore is the last word.
func wordBefore(before string) string {
	word := strings.TrimSpace(before)
	word = strings.Trim(word[strings.LastIndexByte(word, ' ')+1:], `'"`)
	if !isToken(word) {
		return ""
	}
	return word
}

func methodBefore(d *Diagnosis, before, _, _ string) { d.Method = wordBefore(before) }

func headerBefore(d *Diagnosis, before, _, _ string) { d.Header = wordBefore(before) }

func originBehind(d *Diagnosis, _, _, after string) { d.Origin = pageOrigin(firstURL(after)) }

func urlBehind(d *Diagnosis, _, _, after string) { d.URL = firstURL(after) }

func urlBefore(d *Diagnosis, before, _, _ string) { d.URL = lastURL(before) }

// firefox reads the details of a reason.
func firefox(name string) func(d *Diagnosis, before, match, after string) {
	return func(d *Diagnosis, before, match, after string) {
		d.Firefox = name
		token, _ := between(before[max(0, len(before)-2000):]+match, "token '", "'")
		switch name {
		case "CORSAllowOriginNotMatchingOrigin":
			d.Header = "Access-Control-Allow-Origin"
			d.Value, _, _ = strings.Cut(cut(after, 1000), "'")
		case "CORSMissingAllowOrigin", "CORSMultipleAllowOriginNotAllowed", "CORSNotSupportingCredentials":
			d.Header = "Access-Control-Allow-Origin"
		case "CORSMissingAllowCredentials":
			d.Header = "Access-Control-Allow-Credentials"
		case "CORSMethodNotFound":
			d.Header = "Access-Control-Allow-Methods"
		case "CORSInvalidAllowMethod":
			d.Header, d.Value = "Access-Control-Allow-Methods", token
		case "CORSInvalidAllowHeader":
			d.Header, d.Value = "Access-Control-Allow-Headers", token
		case "CORSMissingAllowHeaderFromPreflight":
			if d.Header = token; token == "" {
				d.Header = wordBefore(before)
			}
		case "CORSAllowHeaderFromPreflightDeprecation":
			d.Header = "Authorization"
		case "CORSPreflightDidNotSucceed":
			d.byStatus()
		}
	}
}

func firefoxSameOrigin(d *Diagnosis, _, _, after string) {
	page, rest, _ := cutFold(after, "may not load data from")
	d.Origin, d.URL = pageOrigin(firstURL(page)), firstURL(rest)
}

func firefoxLocal(d *Diagnosis, _, _, after string) {
	page, rest, _ := cutFold(after, "attempting to access target")
	_, initiator, _ := cutFold(page, "initiator")
	d.Origin, d.URL = pageOrigin(firstURL(initiator)), firstURL(rest)
}

// byStatus tells a redirect of the preflight from another bad status, if the status came.
func (x *Diagnosis) byStatus() {
	switch {
	case x.Status >= 300 && x.Status <= 399:
		x.setCORS(one(browser.PreflightDisallowedRedirect))
	case x.Status != 0:
		x.setCORS(one(browser.PreflightInvalidStatus))
	}
}

// firefoxPage reads the address of the page at MDN about a reason.
func firefoxPage(d *Diagnosis, before, match, after string) {
	n := 0
	for n < len(after) && n < 60 && (isNameByte(after[n]) || '0' <= after[n] && after[n] <= '9') {
		n++
	}
	name := "CORS" + after[:n]
	for known, names := range firefoxNames {
		if !strings.EqualFold(known, strings.TrimRight(name, "0123456789")) {
			continue
		}
		firefox(known)(d, before, match, after)
		d.setCORS(names)
		if d.Other = ""; len(names) == 0 {
			d.Other = map[string]string{"CORSDidNotSucceed": OtherNetwork, "CORSAllowHeaderFromPreflightDeprecation": OtherWarning}[known]
			if d.Other == "" {
				d.Other = OtherUnknown
			}
		}
	}
	if d.Status == 0 {
		d.Status = anyStatus(before)
		if d.Firefox == "CORSPreflightDidNotSucceed" {
			d.byStatus()
		}
	}
	// In other languages the URL is the first, before that of the page.
	if url := firstURL(before); d.URL == "" && !strings.Contains(url, "developer.mozilla.org") {
		d.URL = url
	}
}

// anyStatus finds a number of three digits between a colon and a full stop, as it ends
// Firefox's messages in every language.
func anyStatus(s string) int {
	for word := range strings.FieldsSeq(s[max(0, len(s)-200):]) {
		number, ok := strings.CutSuffix(word, ".")
		if status := leadingNumber(number); ok && len(number) == 3 && status >= 100 {
			return status
		}
	}
	return 0
}

func safariOrigin(d *Diagnosis, before, _, _ string) {
	d.Header = "Access-Control-Allow-Origin"
	d.Origin = lastURL(before)
	if word := strings.TrimSpace(before); d.Origin == "" && strings.HasSuffix(lowerASCII(word), "origin null") {
		d.Origin = "null"
	}
	names := one(browser.MissingAllowOriginHeader, browser.AllowOriginMismatch, browser.InvalidAllowOriginValue)
	// A preflight with a bad status gets another message, and this one tells the status
	// of the answer that was looked at.
	if d.Status == 0 || d.Status >= 200 && d.Status <= 299 {
		names = append(names, browser.PreflightMissingAllowOriginHeader, browser.PreflightAllowOriginMismatch, browser.PreflightInvalidAllowOriginValue)
	}
	d.setCORS(names)
}

func safariStatus(d *Diagnosis, _, _, _ string) { d.byStatus() }

// cspDirective reads Chrome's and Firefox's.
func cspDirective(d *Diagnosis, before, _, after string) {
	d.URL = cmp.Or(lastURL(before), d.URL)
	if d.Browser == "firefox" {
		d.URL = firstURL(after)
	}
	if directive, ok := between(after, `directive: "`, `"`); ok {
		d.Directive = directive
	} else if directive, ok := between(after, `: "`, `"`); ok && d.Browser == "chrome" {
		d.Directive = directive
	} else if directive, ok := between(after, `("`, `")`); ok {
		d.Directive = directive
	}
}

// safariCSP reads "… does not appear in the connect-src directive of the Content Security
// Policy."
func safariCSP(d *Diagnosis, before, _, _ string) {
	d.URL = lastURL(before)
	d.Directive = wordBefore(before)
}

func mixedContent(d *Diagnosis, _, _, after string) {
	if page, ok := between(after, "the page at '", "'"); ok {
		d.Origin = pageOrigin(page)
	}
	_, rest, _ := cutFold(after, "but requested")
	d.URL = firstURL(rest)
}

// pageOrigin is the origin of a page's URL, or empty.
func pageOrigin(raw string) string {
	u, ok := pageURL(raw)
	if !ok {
		return ""
	}
	return u.Scheme + "://" + u.Host
}

func safariMixed(d *Diagnosis, _, _, after string) {
	page, rest, _ := cutFold(after, " insecure content from ")
	d.Origin, d.URL = pageOrigin(firstURL(page)), firstURL(rest)
}

// netErrorBefore reads "GET https://… net::ERR_…".
func netErrorBefore(d *Diagnosis, before, match, after string) {
	d.NetError = netError("net::ERR_" + match[len("net::ERR_"):] + after)
	if detail, ok := strings.CutPrefix(after, "."); ok && strings.HasSuffix(d.NetError, match[len("net::ERR_"):]) {
		detail, _, _ = strings.Cut(detail, " ")
		if isToken(detail) {
			d.NetError += "." + detail
		}
	}
	d.URL = lastURL(before)
	if d.URL == "" {
		d.URL = firstURL(after)
	}
	words := strings.Fields(before)
	for i, word := range words {
		if i+1 < len(words) && words[i+1] == d.URL && isToken(word) && strings.ToUpper(word) == word {
			d.Method = word
		}
	}
	if d.NetError == "net::ERR_BLOCKED_BY_CLIENT" {
		d.Other = OtherUnknown // an extension
	}
}

// fallBack looks for the names of header fields, for texts in other languages.
func (d *decoder) fallBack() {
	var names []browser.CORSError
	var named string
	for _, field := range []struct {
		name  string
		names []browser.CORSError
	}{
		{"Access-Control-Allow-Credentials", either(browser.InvalidAllowCredentials)},
		{"Access-Control-Allow-Methods", one(browser.MethodDisallowedByPreflightResponse, browser.InvalidAllowMethodsPreflightResponse)},
		{"Access-Control-Allow-Headers", one(browser.HeaderDisallowedByPreflightResponse, browser.InvalidAllowHeadersPreflightResponse)},
		{"Access-Control-Allow-Origin", slices.Concat(
			either(browser.MissingAllowOriginHeader), either(browser.AllowOriginMismatch), either(browser.WildcardOriginNotAllowed),
			either(browser.MultipleAllowOriginValues), either(browser.InvalidAllowOriginValue))},
	} {
		if strings.Contains(d.lower, lowerASCII(field.name)) && named == "" {
			named, names = field.name, field.names
		}
	}
	// Prose names the header too; an error also names a URL.
	url := firstURL(d.text)
	if named == "" || url == "" || !strings.Contains(d.lower, "cors") && !strings.Contains(d.lower, "cross-origin") {
		return
	}
	x := Diagnosis{Candidates: names, Header: named, URL: url, Text: cut(d.text, 2000)}
	d.add(x, false)
}

// join puts together what belongs to one error: Safari spreads it over lines, and script
// reports each a second time, vaguely.
func (d *decoder) join() {
	specific := slices.Contains(d.vague, false)
	var found []Diagnosis
	var vague []bool
	for i, x := range d.found {
		last := len(found) - 1
		switch {
		case d.vague[i] && specific:
			if last >= 0 && found[last].Browser == x.Browser && (x.URL == "" || found[last].URL == "" || found[last].URL == x.URL) {
				found[last].complete(x)
				continue
			}
			explained := func(y Diagnosis) bool { return y.URL == x.URL && y.NetError != x.NetError }
			if x.URL == "" || slices.ContainsFunc(d.found, explained) {
				continue
			}
		case last >= 0 && found[last].Firefox == "CORSExternalRedirectNotAllowed" && x.Firefox == "CORSPreflightDidNotSucceed" && found[last].URL == x.URL:
			// Firefox says both of a redirected preflight.
			found[last].setCORS(one(browser.PreflightDisallowedRedirect))
			found[last].complete(x)
			continue
		case last >= 0 && found[last].repeats(x):
			found[last].complete(x)
			continue
		case d.vague[i] && last >= 0 && found[last].Browser == x.Browser:
			found[last].complete(x)
			continue
		}
		found, vague = append(found, x), append(vague, d.vague[i])
	}
	d.found, d.vague = found, vague
}

// repeats reports whether y says the same again.
func (x *Diagnosis) repeats(y Diagnosis) bool {
	same := func(a, b string) bool { return a == "" || b == "" || a == b }
	return x.Browser == y.Browser && x.Other == y.Other && x.CORS == y.CORS && slices.Equal(x.Candidates, y.Candidates) &&
		same(x.URL, y.URL) && same(x.Origin, y.Origin) && same(x.Header, y.Header) && same(x.Method, y.Method) &&
		same(x.Value, y.Value) && same(x.NetError, y.NetError) && same(x.Directive, y.Directive)
}

// complete takes from y what x lacks.
func (x *Diagnosis) complete(y Diagnosis) {
	x.URL, x.Origin = cmp.Or(x.URL, y.URL), cmp.Or(x.Origin, y.Origin)
	x.Method, x.Header = cmp.Or(x.Method, y.Method), cmp.Or(x.Header, y.Header)
	x.NetError, x.Directive = cmp.Or(x.NetError, y.NetError), cmp.Or(x.Directive, y.Directive)
	x.Value, x.Firefox = cmp.Or(x.Value, y.Value), cmp.Or(x.Firefox, y.Firefox)
	if x.API == "" {
		x.API = y.API
	}
	if x.Status == 0 {
		x.Status = y.Status
	}
}
