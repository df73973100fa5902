package browser

import "strings"

// CORSError is Chromium's name of a failure
// (https://chromedevtools.github.io/devtools-protocol/tot/Network/#type-CorsError).
// docs/cors has a page for each.
type CORSError string

// Those that Chromium 156 reports. InvalidResponse, PreflightMissingAllowExternal,
// PreflightInvalidAllowExternal and a few more are left in its protocol, but nothing
// raises them any more.
const (
	DisallowedByMode                     CORSError = "DisallowedByMode"
	WildcardOriginNotAllowed             CORSError = "WildcardOriginNotAllowed"
	MissingAllowOriginHeader             CORSError = "MissingAllowOriginHeader"
	MultipleAllowOriginValues            CORSError = "MultipleAllowOriginValues"
	InvalidAllowOriginValue              CORSError = "InvalidAllowOriginValue"
	AllowOriginMismatch                  CORSError = "AllowOriginMismatch"
	InvalidAllowCredentials              CORSError = "InvalidAllowCredentials"
	CorsDisabledScheme                   CORSError = "CorsDisabledScheme"
	PreflightInvalidStatus               CORSError = "PreflightInvalidStatus"
	PreflightDisallowedRedirect          CORSError = "PreflightDisallowedRedirect"
	PreflightWildcardOriginNotAllowed    CORSError = "PreflightWildcardOriginNotAllowed"
	PreflightMissingAllowOriginHeader    CORSError = "PreflightMissingAllowOriginHeader"
	PreflightMultipleAllowOriginValues   CORSError = "PreflightMultipleAllowOriginValues"
	PreflightInvalidAllowOriginValue     CORSError = "PreflightInvalidAllowOriginValue"
	PreflightAllowOriginMismatch         CORSError = "PreflightAllowOriginMismatch"
	PreflightInvalidAllowCredentials     CORSError = "PreflightInvalidAllowCredentials"
	InvalidAllowMethodsPreflightResponse CORSError = "InvalidAllowMethodsPreflightResponse"
	InvalidAllowHeadersPreflightResponse CORSError = "InvalidAllowHeadersPreflightResponse"
	MethodDisallowedByPreflightResponse  CORSError = "MethodDisallowedByPreflightResponse"
	HeaderDisallowedByPreflightResponse  CORSError = "HeaderDisallowedByPreflightResponse"
	RedirectContainsCredentials          CORSError = "RedirectContainsCredentials"
	InsecureLocalNetwork                 CORSError = "InsecureLocalNetwork"
	LocalNetworkAccessPermissionDenied   CORSError = "LocalNetworkAccessPermissionDenied"
	InvalidLocalNetworkAccess            CORSError = "InvalidLocalNetworkAccess"
	NoCorsRedirectModeNotFollow          CORSError = "NoCorsRedirectModeNotFollow"
)

// CORSErrorInfo is what there is to say about a CORSError, for people.
type CORSErrorInfo struct {
	// Step is the algorithm of the standard that fails, and Link leads to it.
	Step, Link string
	// Title says it in a few plain words, without a full stop.
	Title string
	// Cause is what the browser found.
	Cause string
	// Reached is what came to the server all the same.
	Reached string
	// Mend is the way out.
	Mend string
	// Firefox is Firefox's name of the reason, as MDN has it: "CORSMissingAllowOrigin".
	// It is empty if Firefox has none. FirefoxText is its console's text, and Safari that
	// of Safari's, for a call of fetch; in both, words in capitals (URL, ORIGIN, PAGE, VALUE,
	// METHOD, HEADER, STATUS, LOCATION, ADDRESS) stand for what is particular. They are
	// empty if the console says nothing, or nothing of its own.
	Firefox, FirefoxText, Safari string
}

// CORSErrors returns all names, in the order in which a request comes by the steps that
// raise them.
func CORSErrors() []CORSError {
	names := make([]CORSError, len(corsErrors))
	for i, e := range corsErrors {
		names[i] = e.name
	}
	return names
}

// Info returns what there is to say about the error. It is empty for a name that is none.
func (e CORSError) Info() CORSErrorInfo {
	for i := range corsErrors {
		if corsErrors[i].name == e {
			return corsErrors[i].info
		}
	}
	return CORSErrorInfo{}
}

// The steps that raise CORS errors.
const (
	stepMainFetch = "main fetch"
	stepRedirect  = "HTTP-redirect fetch"
	stepLocal     = "Local Network Access check"
	stepPreflight = "CORS-preflight fetch"
	stepCORSCheck = "CORS check"

	mainFetchLink = "https://fetch.spec.whatwg.org/#concept-main-fetch"
	redirectLink  = "https://fetch.spec.whatwg.org/#concept-http-redirect-fetch"
	localLink     = "https://wicg.github.io/local-network-access/#integration-with-fetch"
	preflightLink = "https://fetch.spec.whatwg.org/#cors-preflight-fetch"
	corsCheckLink = "https://fetch.spec.whatwg.org/#concept-cors-check"
)

// What reached the server.
const (
	reachedNothing   = "Nothing. The browser refused before it sent anything."
	reachedPreflight = "Only the preflight: an OPTIONS without cookies. Your handler for the request itself did not run. If redirects came first, what they passed through did run."
	reachedAll       = "Everything. Your request was executed by whatever answered it, with all that it changes; the browser withholds only the answer."
)

// Firefox's texts; what follows is the reason.
const (
	firefoxBlocked = "Cross-Origin Request Blocked: The Same Origin Policy disallows reading the remote resource at URL. (Reason: "
	// The one text in which Firefox puts the URL in quotes.
	firefoxQuoted = "Cross-Origin Request Blocked: The Same Origin Policy disallows reading the remote resource at ‘URL’. (Reason: "
)

// Safari says the reason in one line, and in the next which request it was.
const safariNext = "\nFetch API cannot load URL due to access control checks."

// The texts that a plain request and its preflight share.
const (
	firefoxMissing     = firefoxBlocked + "CORS header ‘Access-Control-Allow-Origin’ missing). Status code: STATUS."
	firefoxMismatch    = firefoxBlocked + "CORS header ‘Access-Control-Allow-Origin’ does not match ‘VALUE’)."
	firefoxMultiple    = firefoxBlocked + "Multiple CORS header ‘Access-Control-Allow-Origin’ not allowed)."
	firefoxWildcard    = firefoxQuoted + "Credential is not supported if the CORS header ‘Access-Control-Allow-Origin’ is ‘*’)."
	firefoxLocal       = "Local Network Access permission required: top-level site “PAGE”, initiator “PAGE”, attempting to access target “URL” (ADDRESS) via fetch. Secure context: "
	firefoxStatus      = firefoxBlocked + "CORS preflight response did not succeed). Status code: STATUS."
	firefoxCredentials = firefoxBlocked + "expected ‘true’ in CORS header ‘Access-Control-Allow-Credentials’)."

	safariOrigin      = "Origin ORIGIN is not allowed by Access-Control-Allow-Origin. Status code: STATUS" + safariNext
	safariMultiple    = "Access-Control-Allow-Origin cannot contain more than one origin." + safariNext
	safariWildcard    = "Cannot use wildcard in Access-Control-Allow-Origin when credentials flag is true." + safariNext
	safariCredentials = `Credentials flag is true, but Access-Control-Allow-Credentials is not "true".` + safariNext
	safariStatus      = "Preflight response is not successful. Status code: STATUS" + safariNext
)

var corsErrors = [...]struct {
	name CORSError
	info CORSErrorInfo
}{
	{DisallowedByMode, CORSErrorInfo{
		stepMainFetch, mainFetchLink,
		"The page asked for its own origin only, and the URL is another's",
		"The request's mode is \"same-origin\", so the page itself forbade the browser to go anywhere else; the URL's scheme, host or port differs from the page's.",
		reachedNothing,
		"If the URL is right, remove mode: \"same-origin\" from the call, and let that server answer with CORS headers. If you meant your own server, mend the URL: http and https, or two ports, are two origins.",
		"", "Security Error: Content at PAGE may not load data from URL.",
		"Fetch API cannot load URL. Cross origin requests are not allowed when using same-origin fetch mode.",
	}},
	{NoCorsRedirectModeNotFollow, CORSErrorInfo{
		stepMainFetch, mainFetchLink,
		"Mode no-cors cannot be combined with a redirect mode",
		"The call sets mode: \"no-cors\" and redirect: \"error\" or \"manual\". In mode no-cors redirects are always followed, so that nothing can be learned from them.",
		reachedNothing,
		"Remove redirect from the call. If you want to see the answer, remove mode: \"no-cors\" too, and let the server answer with CORS headers.",
		"", "", "",
	}},
	{CorsDisabledScheme, CORSErrorInfo{
		stepMainFetch, mainFetchLink,
		"The URL's scheme cannot be asked across origins",
		"The URL, or the one that a redirect led to, is neither http nor https: ftp:, ws:, blob: of another origin, or something like localhost:3000 without http://, where localhost: is read as the scheme.",
		"Nothing, if the page itself asked for such a URL. After a redirect: everything up to the redirect was executed.",
		"Write the URL with http:// or https://. If a redirect leads there, mend its Location.",
		"CORSRequestNotHttp", firefoxBlocked + "CORS request not http).",
		"Fetch API cannot load URL. Cross origin requests are only supported for HTTP.",
	}},
	{InsecureLocalNetwork, CORSErrorInfo{
		stepLocal, localLink,
		"A page that is not secure may not reach into the local network",
		"The page came over plain http from the internet, and the URL's host is in the local network or on the user's own machine. CORS headers have no part in this.",
		"Nothing. The connection may have been opened; no request was sent on it.",
		"Serve the page over https; the browser then asks the user for permission. While developing, serve page and API from the same kind of address, both on localhost.",
		"", firefoxLocal + "False", "",
	}},
	{LocalNetworkAccessPermissionDenied, CORSErrorInfo{
		stepLocal, localLink,
		"The user did not allow this site to reach into the local network",
		"A page from the internet calls a host in the local network or on the user's own machine. For that the browser needs the user's permission, and it was refused, dismissed, or could not be asked for, as in a frame that was not delegated it or in a browser without windows. CORS headers have no part in this.",
		"Nothing. The connection may have been opened; no request was sent on it.",
		"Let the user allow it, when asked or in the site's settings. A frame needs allow=\"local-network; loopback-network\" from the page around it. If the host should be public, look at what its name resolves to: a VPN or a split DNS often gives a private address.",
		"", firefoxLocal + "True", "",
	}},
	{InvalidLocalNetworkAccess, CORSErrorInfo{
		stepLocal, localLink,
		"The host is not in the network that the call announced",
		"The call sets targetAddressSpace, and the host turned out to be in another address space: \"local\" is the local network, \"loopback\" the user's own machine.",
		"Nothing. The connection may have been opened; no request was sent on it.",
		"Write the address space in which the host really is, or remove targetAddressSpace, if page and API are both on https.",
		"", "", "",
	}},
	{RedirectContainsCredentials, CORSErrorInfo{
		stepRedirect, redirectLink,
		"A redirect leads to a URL with a user name or password in it",
		"The answer is a redirect, and its Location has the form https://user:password@host/. Across origins that is not followed, lest one server log the user in at another.",
		"Everything up to the redirect was executed. The URL in Location was not asked.",
		"Send a Location without user name and password. If the target wants them, let the page send an Authorization header, or let your server make that call itself.",
		"CORSDidNotSucceed", firefoxBlocked + "CORS request did not succeed). Status code: (null).",
		"Cross-origin redirection to LOCATION denied by Cross-Origin Resource Sharing policy: redirection URL LOCATION has credentials" + safariNext,
	}},
	{PreflightDisallowedRedirect, CORSErrorInfo{
		stepPreflight, preflightLink,
		"The preflight was answered with a redirect",
		"The OPTIONS that asks for permission got a redirect, and a preflight is never redirected. Usual reasons: http to https, a slash at the URL's end, www, or a login page, to which whatever carries no cookie is sent; a preflight never carries one.",
		reachedPreflight,
		"Call the URL that the redirect leads to. If it leads to a login page, answer OPTIONS before authentication.",
		"CORSExternalRedirectNotAllowed", firefoxBlocked + "CORS request external redirect not allowed).\n" + firefoxStatus,
		safariStatus,
	}},
	{PreflightMissingAllowOriginHeader, CORSErrorInfo{
		stepPreflight, preflightLink,
		"The answer to the preflight lacks Access-Control-Allow-Origin",
		"The browser asked with an OPTIONS whether the page may send this request, and the answer does not say so: nothing on the server handles OPTIONS here, or something in front of it (authentication, a 404, a proxy's error page) answered instead.",
		reachedPreflight,
		"Answer OPTIONS at this URL, before authentication, with a 2xx and Access-Control-Allow-Origin set to the page's origin.",
		"CORSMissingAllowOrigin", firefoxMissing, safariOrigin,
	}},
	{PreflightMultipleAllowOriginValues, CORSErrorInfo{
		stepPreflight, preflightLink,
		"The answer to the preflight has more than one Access-Control-Allow-Origin",
		"The answer to the OPTIONS has the header twice, or several values in it. One origin is all it may hold. Mostly two layers each add it: the application and the proxy in front.",
		reachedPreflight,
		"Let one layer answer preflights. A list of origins belongs in the server's configuration, never in the header: send back the one that asked, if it is on the list.",
		"CORSMultipleAllowOriginNotAllowed", firefoxMultiple, safariMultiple,
	}},
	{PreflightInvalidAllowOriginValue, CORSErrorInfo{
		stepPreflight, preflightLink,
		"Access-Control-Allow-Origin in the answer to the preflight is no origin",
		"The answer to the OPTIONS has the header, and its value is empty or no URL: often a variable that is not set, or a host without https://.",
		reachedPreflight,
		"Send the page's origin in full, such as https://app.example.",
		"CORSAllowOriginNotMatchingOrigin", firefoxMismatch, safariOrigin,
	}},
	{PreflightAllowOriginMismatch, CORSErrorInfo{
		stepPreflight, preflightLink,
		"The answer to the preflight allows another origin",
		"The answer to the OPTIONS allows one origin, and it is not the page's. They are compared as text: scheme, host and port, without a slash at the end.",
		reachedPreflight,
		"Add the page's origin to the server's list, and send back the one that asked, with Vary: Origin.",
		"CORSAllowOriginNotMatchingOrigin", firefoxMismatch, safariOrigin,
	}},
	{PreflightWildcardOriginNotAllowed, CORSErrorInfo{
		stepPreflight, preflightLink,
		"The answer to the preflight allows \"*\", and the request is to carry cookies",
		"The request would carry the user's cookies (credentials: \"include\" or withCredentials), and then \"*\" does not count as an answer, not even to the OPTIONS, which carries none.",
		reachedPreflight,
		"If the API needs no cookies, do not send them. If it does, answer with the page's origin and Access-Control-Allow-Credentials: true, for listed origins only.",
		"CORSNotSupportingCredentials", firefoxWildcard, safariWildcard,
	}},
	{PreflightInvalidAllowCredentials, CORSErrorInfo{
		stepPreflight, preflightLink,
		"The answer to the preflight does not allow cookies",
		"The request would carry the user's cookies (credentials: \"include\" or withCredentials), and the answer to the OPTIONS does not have Access-Control-Allow-Credentials with exactly the value true, in lower case and once.",
		reachedPreflight,
		"If the API needs no cookies, do not send them. If it does, send Access-Control-Allow-Credentials: true with the answer to OPTIONS and with every other.",
		"CORSMissingAllowCredentials", firefoxCredentials, safariCredentials,
	}},
	{PreflightInvalidStatus, CORSErrorInfo{
		stepPreflight, preflightLink,
		"The preflight was answered with an error status",
		"The answer to the OPTIONS allows the page's origin, but its status is not between 200 and 299. Mostly it is 401 or 403, because authentication comes first, or 404 or 405, because nothing handles OPTIONS at this URL.",
		reachedPreflight,
		"Answer OPTIONS with 204, before authentication: a preflight never carries cookies or an Authorization header, so it cannot be authenticated.",
		"CORSPreflightDidNotSucceed", firefoxStatus,
		safariStatus,
	}},
	{InvalidAllowMethodsPreflightResponse, CORSErrorInfo{
		stepPreflight, preflightLink,
		"Access-Control-Allow-Methods cannot be read",
		"The header in the answer to the OPTIONS is no list of methods: something other than a comma stands between them, or there are quotes or brackets.",
		reachedPreflight,
		"Send the methods with commas between them: GET, PUT, DELETE.",
		"CORSInvalidAllowMethod", firefoxBlocked + "invalid token ‘VALUE’ in CORS header ‘Access-Control-Allow-Methods’).",
		"Header Access-Control-Allow-Methods has an invalid value: VALUE" + safariNext,
	}},
	{InvalidAllowHeadersPreflightResponse, CORSErrorInfo{
		stepPreflight, preflightLink,
		"Access-Control-Allow-Headers cannot be read",
		"The header in the answer to the OPTIONS is no list of header names: something other than a comma stands between them, or there are quotes, colons or brackets.",
		reachedPreflight,
		"Send the names with commas between them: Content-Type, Authorization.",
		"CORSInvalidAllowHeader", firefoxBlocked + "invalid token ‘VALUE’ in CORS header ‘Access-Control-Allow-Headers’).",
		"Header Access-Control-Allow-Headers has an invalid value: VALUE" + safariNext,
	}},
	{MethodDisallowedByPreflightResponse, CORSErrorInfo{
		stepPreflight, preflightLink,
		"The answer to the preflight does not allow the method",
		"The request's method is not in Access-Control-Allow-Methods. Methods are compared letter for letter: put is not PUT, and fetch sends patch just as it is written. \"*\" only counts without cookies.",
		reachedPreflight,
		"Name the method in Access-Control-Allow-Methods of the answer to OPTIONS. In the page, write PATCH in capitals. GET, HEAD and POST never need to be listed.",
		"CORSMethodNotFound", firefoxBlocked + "Did not find method in CORS header ‘Access-Control-Allow-Methods’).",
		"Method METHOD is not allowed by Access-Control-Allow-Methods." + safariNext,
	}},
	{HeaderDisallowedByPreflightResponse, CORSErrorInfo{
		stepPreflight, preflightLink,
		"The answer to the preflight does not allow a header of the request",
		"The request has a header that is not in Access-Control-Allow-Headers. \"*\" only counts without cookies, and for Authorization not in the standard. If several are missing, the browser names one of them.",
		reachedPreflight,
		"Name every header that the page sets in Access-Control-Allow-Headers of the answer to OPTIONS, Authorization too. Or do not send the header.",
		"CORSMissingAllowHeaderFromPreflight", firefoxBlocked + "header ‘HEADER’ is not allowed according to header ‘Access-Control-Allow-Headers’ from CORS preflight response).",
		"Request header field HEADER is not allowed by Access-Control-Allow-Headers." + safariNext,
	}},
	{MissingAllowOriginHeader, CORSErrorInfo{
		stepCORSCheck, corsCheckLink,
		"The answer lacks Access-Control-Allow-Origin",
		"The answer came from another origin and does not say that this page may read it. That may be your handler's answer, or one from something in front of it: an error page, a rate limit, a login page after a redirect. The status does not matter, the header does.",
		reachedAll,
		"Send Access-Control-Allow-Origin with the page's origin, on errors too, with Vary: Origin.",
		"CORSMissingAllowOrigin", firefoxMissing, safariOrigin,
	}},
	{MultipleAllowOriginValues, CORSErrorInfo{
		stepCORSCheck, corsCheckLink,
		"The answer has more than one Access-Control-Allow-Origin",
		"The header is there twice, even if with equal values, or has several values in it. One origin is all it may hold. Mostly two layers each add it: the application and the proxy in front.",
		reachedAll,
		"Let one layer set the header. A list of origins belongs in the server's configuration, never in the header: send back the one that asked, if it is on the list.",
		"CORSMultipleAllowOriginNotAllowed", firefoxMultiple, safariMultiple,
	}},
	{InvalidAllowOriginValue, CORSErrorInfo{
		stepCORSCheck, corsCheckLink,
		"Access-Control-Allow-Origin is no origin",
		"The header's value is empty or no URL: often a variable that is not set, or a host without https://.",
		reachedAll,
		"Send the page's origin in full, such as https://app.example.",
		"CORSAllowOriginNotMatchingOrigin", firefoxMismatch, safariOrigin,
	}},
	{AllowOriginMismatch, CORSErrorInfo{
		stepCORSCheck, corsCheckLink,
		"The answer allows another origin",
		"Access-Control-Allow-Origin names an origin, and it is not the page's. They are compared as text: scheme, host and port, without a slash at the end. It may also be an answer that was meant for another page and cached without Vary: Origin.",
		reachedAll,
		"Add the page's origin to the server's list, and send back the one that asked, with Vary: Origin.",
		"CORSAllowOriginNotMatchingOrigin", firefoxMismatch, safariOrigin,
	}},
	{WildcardOriginNotAllowed, CORSErrorInfo{
		stepCORSCheck, corsCheckLink,
		"The answer allows \"*\", and the request carried cookies",
		"The page sent the request with the user's cookies (credentials: \"include\", withCredentials or crossorigin=\"use-credentials\"), and then \"*\" does not count: anybody's page could read what is the user's.",
		reachedAll,
		"If the API needs no cookies, do not send them. If it does, answer with the page's origin and Access-Control-Allow-Credentials: true, for listed origins only.",
		"CORSNotSupportingCredentials", firefoxWildcard, safariWildcard,
	}},
	{InvalidAllowCredentials, CORSErrorInfo{
		stepCORSCheck, corsCheckLink,
		"The answer does not allow cookies",
		"The page sent the request with the user's cookies (credentials: \"include\", withCredentials or crossorigin=\"use-credentials\"), and the answer does not have Access-Control-Allow-Credentials with exactly the value true, in lower case and once.",
		reachedAll,
		"If the API needs no cookies, do not send them. If it does, send Access-Control-Allow-Credentials: true, for listed origins only.",
		"CORSMissingAllowCredentials", firefoxCredentials, safariCredentials,
	}},
}

// ConsoleFacts are what Chromium's console tells about a failure.
type ConsoleFacts struct {
	Error CORSError `json:"error"`
	API   API       `json:"api"`
	// URL is the one that failed, with its fragment. For RedirectContainsCredentials it is
	// the one that answered with the redirect.
	URL string `json:"url"`
	// FirstURL is the one that the page asked for, if a redirect led from it to URL.
	FirstURL string `json:"first_url,omitempty"`
	// Origin is the page's; "null" if it is opaque. It stays the page's where redirects
	// made the Origin header "null".
	Origin string `json:"origin"`
	// Parameter is the value or the name that is at fault: Chromium's
	// corsErrorStatus.failedParameter.
	Parameter string `json:"parameter,omitempty"`
	// Space is in which address space the URL's host is, and TargetSpace in which the call
	// says it is. They only matter to Local Network Access.
	Space       AddressSpace `json:"space,omitempty"`
	TargetSpace AddressSpace `json:"target_space,omitempty"`
}

// Text is the line in Chromium 156's console, to the letter. It is empty where the console
// says nothing. testdata/console.json has the measurements.
func (f ConsoleFacts) Text() string {
	if text, ok := f.ofFetchAPI(); ok {
		return text
	}
	f.Parameter = escapeValue(f.Parameter)
	kind, reason := f.kind(), f.reason()
	if kind == "" || reason == "" {
		return ""
	}
	text := "Access to " + kind + " at '" + f.URL + "' "
	if f.redirected() {
		text += "(redirected from '" + f.FirstURL + "') "
	}
	return text + "from origin '" + f.Origin + "' has been blocked by CORS policy: " + reason
}

func (f ConsoleFacts) redirected() bool { return f.FirstURL != "" && f.FirstURL != f.URL }

// ofFetchAPI is for what fetch() itself refuses, before anything comes to the network.
func (f ConsoleFacts) ofFetchAPI() (text string, ok bool) {
	if f.API != Fetch || f.redirected() {
		return "", false
	}
	cannot := "Fetch API cannot load " + elideURL(f.URL) + ". "
	if f.Error == DisallowedByMode {
		return cannot + `Request mode is "same-origin" but the URL's origin is not same as the request origin ` + f.Origin + ".", true
	}
	if f.Error == NoCorsRedirectModeNotFollow {
		return cannot + `Request mode is "no-cors" but the redirect mode is not "follow".`, true
	}
	if f.Error == CorsDisabledScheme {
		scheme, _, _ := strings.Cut(f.URL, ":")
		return cannot + `URL scheme "` + scheme + `" is not supported.`, true
	}
	return "", false
}

// elideURL shortens a URL to 1024 bytes as Chromium does, from its middle.
func elideURL(url string) string {
	const most, head, tail = 1024, 511, 510
	if len(url) <= most {
		return url
	}
	return url[:head] + "..." + url[len(url)-tail:]
}

// escapeValue writes what is not printable ASCII as Chromium does, byte by byte: \u00E9.
func escapeValue(value string) string {
	const hex = "0123456789ABCDEF"
	var b strings.Builder
	for _, c := range []byte(value) {
		if c < ' ' || c >= 0x7f {
			b.WriteString(`\u00`)
			b.WriteByte(hex[c>>4])
			c = hex[c&0xf]
		}
		b.WriteByte(c)
	}
	return b.String()
}

// kind is what Chromium calls that which was asked for.
func (f ConsoleFacts) kind() string {
	switch f.API {
	case Fetch:
		return "fetch"
	case XHR:
		return "XMLHttpRequest"
	case Image:
		return "image"
	case Script, ModuleScript:
		return "script"
	case Stylesheet:
		return "CSS stylesheet"
	case Font:
		return "font"
	case EventSource, Beacon, Ping:
		return "resource"
	case Form, Link, Frame, WebSocket:
		// CORS does not apply to them. A frame can fail Local Network Access, silently.
	}
	return ""
}

// reason is the text from where it is about the error.
func (f ConsoleFacts) reason() string {
	// Chromium once advised no-cors here. What is left of that only fetch gets.
	valid := ""
	if f.API == Fetch {
		valid = " Have the server send the header with a valid value."
	}
	with := ""
	if f.API == XHR {
		with = " The credentials mode of requests initiated by the XMLHttpRequest is controlled by the withCredentials attribute."
	}
	before := ""
	if strings.HasPrefix(string(f.Error), "Preflight") {
		before = "Response to preflight request doesn't pass access control check: "
	}
	switch f.Error {
	case MissingAllowOriginHeader, PreflightMissingAllowOriginHeader:
		return before + "No 'Access-Control-Allow-Origin' header is present on the requested resource."
	case MultipleAllowOriginValues, PreflightMultipleAllowOriginValues:
		return before + "The 'Access-Control-Allow-Origin' header contains multiple values '" + f.Parameter + "', but only one is allowed." + valid
	case InvalidAllowOriginValue, PreflightInvalidAllowOriginValue:
		return before + "The 'Access-Control-Allow-Origin' header contains the invalid value '" + f.Parameter + "'." + valid
	case AllowOriginMismatch, PreflightAllowOriginMismatch:
		return before + "The 'Access-Control-Allow-Origin' header has a value '" + f.Parameter + "' that is not equal to the supplied origin." + valid
	case WildcardOriginNotAllowed, PreflightWildcardOriginNotAllowed:
		return before + "The value of the 'Access-Control-Allow-Origin' header in the response must not be the wildcard '*' when the request's credentials mode is 'include'." + with
	case InvalidAllowCredentials, PreflightInvalidAllowCredentials:
		return before + "The value of the 'Access-Control-Allow-Credentials' header in the response is '" + f.Parameter + "' which must be 'true' when the request's credentials mode is 'include'." + with
	case PreflightInvalidStatus:
		return before + "It does not have HTTP ok status."
	case PreflightDisallowedRedirect:
		return before + "Redirect is not allowed for a preflight request."
	case InvalidAllowMethodsPreflightResponse:
		return "Cannot parse Access-Control-Allow-Methods response header field in preflight response."
	case InvalidAllowHeadersPreflightResponse:
		return "Cannot parse Access-Control-Allow-Headers response header field in preflight response."
	case MethodDisallowedByPreflightResponse:
		return "Method " + f.Parameter + " is not allowed by Access-Control-Allow-Methods in preflight response."
	case HeaderDisallowedByPreflightResponse:
		return "Request header field " + f.Parameter + " is not allowed by Access-Control-Allow-Headers in preflight response."
	case RedirectContainsCredentials:
		// Chromium leaves the location out, lest it print the password.
		return "Redirect location '" + f.Parameter + "' contains a username and password, which is disallowed for cross-origin requests."
	case CorsDisabledScheme:
		return "Cross origin requests are only supported for protocol schemes: chrome, chrome-experimental-site-token-provider, chrome-extension, chrome-untrusted, data, http, https, isolated-app."
	case InsecureLocalNetwork:
		return "The request client is not a secure context and the resource is in more-private address space `" + string(f.Space) + "`."
	case LocalNetworkAccessPermissionDenied:
		return "Permission was denied for this request to access the `" + string(f.Space) + "` address space."
	case InvalidLocalNetworkAccess:
		return "Request had a target IP address space of `" + string(f.TargetSpace) + "` yet the resource is in address space `" + string(f.Space) + "`."
	case DisallowedByMode, NoCorsRedirectModeNotFollow:
		// Only fetch can raise them; see ofFetchAPI.
	}
	return ""
}
