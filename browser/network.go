package browser

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// mainFetch is what is checked before anything leaves
// (https://fetch.spec.whatwg.org/#concept-main-fetch).
func (l *load) mainFetch() bool {
	if l.req.API == Ping && l.p.NoPings {
		l.fail("hyperlink auditing", "https://html.spec.whatwg.org/#hyperlink-auditing", "this browser sends no pings")
		return l.blocked("other", "")
	}
	if !trustworthy(l.urls[0].origin) { // which redirects are not asked
		l.urls[0] = l.upgraded(l.urls[0])
	}
	u := l.url()
	if d := cspBlocks(l.page.CSP, l.req.API, l.from, u, false); d != "" {
		l.fail("Content Security Policy", linkCSP, "the page's own policy, %q, does not allow %s", d, u)
		l.blocked("csp", "")
		switch {
		case l.req.API == Beacon && l.p.BlocksTell:
			l.t.Verdict.Script = "false"
		case l.req.API == Frame && l.p.BlocksTell:
			l.t.Verdict.Script = "error"
		case l.req.API == WebSocket && l.p.BlocksTell:
			l.t.Verdict.Script = l.api.throws
		}
		return false
	}
	// The standard asks this last, which makes no difference but to the name of the failure.
	if !l.enter() || !l.mixedContent() {
		return false
	}
	u = l.url()
	if badPorts[u.url.Port()] {
		l.fail("port blocking", linkBadPort, "port %s is on the list of ports that browsers never talk HTTP to", u.url.Port())
		return l.netError("net::ERR_UNSAFE_PORT")
	}
	return true
}

// enter decides how the request to the current URL is made: in the clear, or under CORS.
func (l *load) enter() bool {
	u := l.url()
	switch l.mode {
	case "navigate", "websocket":
		return true
	case "same-origin":
		if !l.sameOriginAs(u) || l.tainted {
			l.fail("main fetch", linkMainFetch, "the mode is same-origin and %s is not the page's origin", u.origin)
			if len(l.urls) > 1 {
				return l.blocked("origin", "")
			}
			return l.corsFailed(corsFault{DisallowedByMode, ""})
		}
		return true
	case "no-cors":
		if l.redirect != "follow" && !l.sameOriginAs(u) {
			l.fail("main fetch", linkMainFetch, "mode no-cors must follow redirects")
			return l.corsFailed(corsFault{NoCorsRedirectModeNotFollow, ""})
		}
		l.left = l.left || !l.sameOriginAs(u)
		return true
	}
	if l.cors {
		return true
	}
	if l.sameOriginAs(u) {
		l.step("main fetch", linkMainFetch, "%s is the page's own origin: CORS does not apply", u.origin)
		return true
	}
	l.cors = true
	l.step("main fetch", linkMainFetch, "%s is not the page's origin, %s: the answer must pass the CORS check", u.origin, l.origin())
	return true
}

// mixedContent is https://w3c.github.io/webappsec-mixed-content/: a secure page asks for
// nothing over http, except on this machine.
func (l *load) mixedContent() bool {
	u := l.url()
	if trustworthy(u.origin) || l.req.API == Link || !l.secureTree() && !l.confirmed() {
		return true
	}
	if l.req.API == Form && l.p.FormsAreConfirmed && len(l.urls) > 1 {
		return true
	}
	if l.p.LocalNetworkAccess && l.req.API != Form && namedLocal(u) {
		l.step("mixed content", linkMixed, "http is let through to a private address and to .local: the user is asked about the local network instead")
		return true
	}
	if l.leniently() {
		l.step("mixed content", linkMixed, "an image may come over http, after a redirect")
		return true
	}
	if l.req.API == Form && l.method == "GET" && len(l.urls) > 1 {
		return true
	}
	l.fail("mixed content", linkMixed, "the page is secure (https), the URL is not")
	if l.req.API == WebSocket {
		return l.throw("WebSocket constructor", linkWebSockets, "a secure page may not open an insecure WebSocket")
	}
	l.blocked("mixed-content", "")
	switch {
	case l.req.API == Beacon && len(l.urls) == 1:
		l.t.Verdict.Script = "false"
	case l.req.API == Form && len(l.urls) > 1:
		l.t.Verdict.BlockedReason, l.t.Verdict.NetError = "other", "net::ERR_BLOCKED_BY_CLIENT"
	case l.req.API == Frame:
		l.t.Verdict.Script = "" // not even an event
		if l.p.BlocksTell && len(l.urls) == 1 {
			l.t.Verdict.Script = "error"
		}
	}
	return false
}

// upgraded is https://w3c.github.io/webappsec-mixed-content/#upgrade-algorithm. The name .local
// keeps an image from it only where the page itself asks for that, not after a redirect.
func (l *load) upgraded(u location) location {
	if l.req.API != Image || !l.p.UpgradesMixedImages || !l.secureTree() || u.url.Scheme != "http" || isAddress(u) || namedLocal(u) && len(l.urls) == 0 || l.leniently() {
		return u
	}
	secure := *u.url
	secure.Scheme = "https"
	next, err := parseURL(secure.String(), nil)
	if err != nil {
		return u
	}
	l.step("mixed content", linkUpgrade, "a secure page's image is asked for over https instead")
	return next
}

// leniently reports whether an image is let through over http, with a warning: one that
// was first asked of a host whose name says that it is this machine, or near it.
func (l *load) leniently() bool {
	if l.p.LocalPagesMixImages {
		return l.req.API == Image && len(l.urls) > 0 && l.from.origin.Loopback()
	}
	return l.req.API == Image && len(l.urls) > 0 && SpaceOf(l.urls[0].origin.Host()) != Public
}

// confirmed reports whether the browser asks the user before it sends a form from this
// page over http, and so does not send it here.
func (l *load) confirmed() bool {
	return l.req.API == Form && l.p.FormsAreConfirmed && trustworthy(l.from.origin)
}

// secureTree reports whether the page or one that frames it came over https.
func (l *load) secureTree() bool {
	return l.from.url.Scheme == "https" || l.top.url.Scheme == "https"
}

// namedLocal reports whether the URL itself says that it is of the local network.
func namedLocal(u location) bool {
	return SpaceOf(u.origin.Host()) == Local && (isAddress(u) || strings.HasSuffix(u.origin.Host(), ".local"))
}

func isAddress(u location) bool {
	h := strings.Trim(u.origin.Host(), "[]")
	return strings.Contains(h, ":") || strings.Trim(h, "0123456789.") == ""
}

// localNetwork is the check of Local Network Access, made when the connection stands.
func (l *load) localNetwork() bool {
	if !l.p.LocalNetworkAccess || l.req.API == Link || l.req.API == Form {
		return true
	}
	rank := map[AddressSpace]int{Public: 0, Local: 1, Loopback: 2}
	u := l.url()
	page, target := l.b.Space(l.from.url.Host), l.b.Space(u.url.Host)
	if rank[target] <= rank[page] || l.p.LocalPagesReachLoopback && page != Public {
		return true
	}
	if !l.secureContext() {
		l.fail("Local Network Access check", linkLNA, "a page of the %s network that is not a secure context asks for %s, in the %s one", page, u.origin.Host(), target)
		return l.corsFailed(corsFault{InsecureLocalNetwork, ""})
	}
	if !l.b.LocalNetworkAllowed {
		l.fail("Local Network Access check", linkLNA, "a page of the %s network asks for %s, in the %s one, and the user did not allow that", page, u.origin.Host(), target)
		return l.corsFailed(corsFault{LocalNetworkAccessPermissionDenied, ""})
	}
	l.step("Local Network Access check", linkLNA, "%s is in the %s network, and the user allowed that", u.origin.Host(), target)
	return true
}

// secureContext is https://html.spec.whatwg.org/#secure-context.
func (l *load) secureContext() bool {
	for _, a := range l.page.Ancestors {
		if u, err := parseURL(a, nil); err == nil && !trustworthy(u.origin) {
			return false
		}
	}
	return trustworthy(l.from.origin)
}

// httpFetch makes one request, with a preflight before it if there must be one
// (https://fetch.spec.whatwg.org/#concept-http-fetch).
func (l *load) httpFetch() (Answer, bool) {
	if !l.localNetwork() {
		return Answer{}, false
	}
	if l.p.RedirectsRepeatPreflight && l.mode == "cors" {
		l.asked = l.asked || len(l.unsafeHeaders()) > 0
	}
	if l.cors && !l.preflight() {
		return Answer{}, false
	}
	if l.body != nil && l.body.Kind == "stream" && l.url().origin.Scheme() == "http" {
		l.fail("HTTP-network fetch", linkNetwork, "a stream as body needs HTTP/2 or HTTP/3, which browsers only speak over TLS")
		return Answer{}, l.netError("net::ERR_ALPN_NEGOTIATION_FAILED")
	}
	l.crossed = l.cors
	m := l.message()
	a, cachedAnswer := l.b.lookup(l, m)
	if !cachedAnswer {
		a = l.server(m)
	}
	x := Exchange{Message: m, Answer: a, Executed: !cachedAnswer && a.Failure == "", FromCache: cachedAnswer}
	l.t.Exchanges = append(l.t.Exchanges, x)
	if cachedAnswer {
		l.step("HTTP cache", linkCache, "the browser still has an answer to %s: nothing reached the server", m.URL)
	} else {
		l.step("HTTP-network fetch", linkNetwork, "%s %s left the browser: the backend executes it, whatever the browser makes of the answer", m.Method, m.URL)
	}
	if a.Failure != "" {
		l.fail("HTTP-network fetch", linkNetwork, "no answer: %s", a.Failure)
		return a, l.netError(a.Failure)
	}
	if !cachedAnswer {
		l.keepCookies(a)
	}
	// An answer that is withheld from the page is dropped on its way, and not kept; a
	// redirect came whole.
	if !cachedAnswer && (isRedirect(a.Status) || l.p.CacheKeepsWithheld) {
		l.b.store(l, m, a)
	}
	if l.cors {
		if fault := corsCheck(a.Header, l.origin(), l.credentials == "include"); fault != nil {
			if l.p.NarrowPermits {
				delete(l.b.permits, l.permitKey())
			}
			l.fail("CORS check", linkCORSCheck, "%s", l.faultText(fault))
			return a, l.corsFailed(*fault)
		}
		l.step("CORS check", linkCORSCheck, "Access-Control-Allow-Origin is %q, and the request's origin %s", a.Header.Value("Access-Control-Allow-Origin"), l.origin())
	}
	if l.mode == "no-cors" || l.mode == "navigate" && l.req.API == Frame && l.page.COEP != "" {
		if f := corpBlocks(a.Header, l.page.COEP, l.from, l.opaque, l.url().origin, l.sendsCredentials()); f != nil {
			l.fail("Cross-Origin-Resource-Policy check", linkCORP, "the answer's Cross-Origin-Resource-Policy, or its absence, keeps it from pages of other origins (%s)", f.reason)
			return a, l.blocked(f.reason, f.netError)
		}
	}
	if isRedirect(a.Status) {
		return a, true
	}
	if l.mode == "no-cors" && l.api.element && !l.sameOriginAs(l.url()) && (l.p.ORBParses && orbParses(a) || !l.p.ORBParses && orbBlocks(a)) {
		l.fail("opaque response blocking", linkORB, "an answer of type %q is nothing that another site's page may show or run", essence(a.Header.Value("Content-Type")))
		return a, l.netError("net::ERR_BLOCKED_BY_ORB")
	}
	if !cachedAnswer && (l.mode != "no-cors" || l.sameOriginAs(l.url()) || !orbBlocks(a)) {
		l.b.store(l, m, a)
	}
	return a, true
}

func (l *load) faultText(f *corsFault) string {
	need := "needed: Access-Control-Allow-Origin: " + l.origin()
	switch strings.TrimPrefix(string(f.name), "Preflight") {
	case string(MissingAllowOriginHeader):
		return "the answer has no Access-Control-Allow-Origin; " + need
	case string(WildcardOriginNotAllowed):
		return "Access-Control-Allow-Origin is *, which does not count for a credentialed request; " + need
	case string(InvalidAllowCredentials):
		return "Access-Control-Allow-Credentials is " + strconv.Quote(f.parameter) + "; needed: true"
	case string(MultipleAllowOriginValues):
		return "Access-Control-Allow-Origin has several values, " + strconv.Quote(f.parameter) + "; " + need
	}
	return "Access-Control-Allow-Origin is " + strconv.Quote(f.parameter) + "; " + need
}

// unsafeHeaders are the request's, for which a preflight must ask.
func (l *load) unsafeHeaders() []string { return l.p.UnsafeRequestHeaders(l.header) }

// preflight is https://fetch.spec.whatwg.org/#cors-preflight-fetch, if one is needed; it
// is false if the request may not be made.
func (l *load) preflight() bool {
	unsafe := l.unsafeHeaders()
	if !l.forced && !l.asked && safelistedMethod(l.method) && len(unsafe) == 0 {
		l.step("HTTP fetch", linkHTTPFetch, "method and headers are safelisted: no preflight")
		return true
	}
	l.asked = l.p.RedirectsRepeatPreflight
	u := l.url()
	include := l.credentials == "include"
	key := l.permitKey()
	if m := l.b.permits[key]; m != nil && (!l.tainted || !l.p.NarrowPermits) && (!l.p.CacheModeCoversPreflights || !l.freshCopy()) {
		if l.now.Before(m.until) && (m.include == include || m.include && !l.p.NarrowPermits) && m.covers(l.p, l.method, unsafe) == nil {
			l.step("CORS-preflight cache", fetchStandard+"#concept-cache-match", "an earlier preflight still allows it: none is sent")
			return true
		}
		delete(l.b.permits, key)
	}
	l.step("HTTP fetch", linkHTTPFetch, "%s: the browser asks first", l.whyPreflight(unsafe))
	m := Message{Method: "OPTIONS", URL: u.wire(), Preflight: true}
	m.Header.add("Access-Control-Request-Method", l.method)
	if len(unsafe) > 0 {
		m.Header.add("Access-Control-Request-Headers", strings.Join(unsafe, ","))
	}
	m.Header.add("Origin", l.preflightOrigin())
	if r := l.referrer(); r != "" {
		m.Header.add("Referer", r)
	}
	chain := l.urls
	if l.p.PreflightsForgetRedirects {
		chain = chain[len(chain)-1:]
	}
	l.fetchMetadata(&m, "cors", chain)
	a := l.server(m)
	l.t.Exchanges = append(l.t.Exchanges, Exchange{Message: m, Answer: a})
	if a.Failure != "" {
		l.fail("CORS-preflight fetch", linkPreflight, "no answer to the preflight: %s", a.Failure)
		return l.netError(a.Failure)
	}
	return l.evaluatePreflight(a, key, unsafe)
}

// permitKey is what a preflight for the current URL is remembered by.
func (l *load) permitKey() permitKey {
	return permitKey{partitionKey(l.top.origin.Site(), false), l.preflightOrigin(), l.url().String()}
}

// preflightOrigin is the origin that a preflight tells.
func (l *load) preflightOrigin() string {
	if l.p.PreflightsTellPage && !l.opaque {
		return l.from.origin.String()
	}
	return l.origin()
}

func (l *load) whyPreflight(unsafe []string) string {
	var why []string
	if !safelistedMethod(l.method) {
		why = append(why, l.method+" is no CORS-safelisted method")
	}
	if len(unsafe) > 0 {
		why = append(why, strings.Join(unsafe, ", ")+" needs permission")
	}
	switch {
	case l.forced && l.req.API == XHR:
		why = append(why, "script listens to the upload")
	case l.forced:
		why = append(why, "the body is a stream")
	case len(why) == 0:
		why = append(why, "the request needed a preflight before it was redirected")
	}
	return strings.Join(why, "; ")
}

// evaluatePreflight judges the answer, in Chromium's order.
func (l *load) evaluatePreflight(a Answer, key permitKey, unsafe []string) bool {
	include := l.credentials == "include"
	refuse := func(f corsFault, text string) bool {
		l.fail("CORS-preflight fetch", linkPreflight, "%s", text)
		return l.corsFailed(f)
	}
	if isRedirect(a.Status) && !l.p.ChecksRedirectedPreflights {
		return refuse(corsFault{PreflightDisallowedRedirect, ""}, "the preflight was answered with a redirect, which is not followed")
	}
	ownURL := l.p.PreflightsTellPage && l.sameOriginAs(l.url())
	if f := corsCheck(a.Header, l.preflightOrigin(), include); f != nil && !ownURL {
		f.name = preflightNames[f.name]
		return refuse(*f, l.faultText(f))
	}
	if isRedirect(a.Status) {
		return refuse(corsFault{PreflightDisallowedRedirect, ""}, "the preflight was answered with a redirect, which is not followed")
	}
	if a.Status < 200 || a.Status > 299 {
		return refuse(corsFault{PreflightInvalidStatus, strconv.Itoa(a.Status)}, "the preflight was answered with status "+strconv.Itoa(a.Status)+"; needed: 200 to 299")
	}
	m, f := newPermit(a.Header, include)
	if l.p.MethodsAreJudgedFirst && f != nil && f.name == InvalidAllowHeadersPreflightResponse && m.covers(l.p, l.method, nil) != nil {
		f = nil // that fault comes first
	}
	if f != nil {
		return refuse(*f, "the list in "+map[CORSError]string{InvalidAllowMethodsPreflightResponse: "Access-Control-Allow-Methods"}[f.name]+" cannot be parsed")
	}
	if f := m.covers(l.p, l.method, unsafe); f != nil {
		if f.name == MethodDisallowedByPreflightResponse {
			return refuse(*f, "Access-Control-Allow-Methods is "+strconv.Quote(a.Header.Value("Access-Control-Allow-Methods"))+"; needed: "+f.parameter)
		}
		return refuse(*f, "Access-Control-Allow-Headers is "+strconv.Quote(a.Header.Value("Access-Control-Allow-Headers"))+"; needed: "+f.parameter)
	}
	l.step("CORS-preflight fetch", linkPreflight, "the preflight's answer allows it")
	// An opaque origin is like no other, so nothing is remembered for it.
	if age := l.p.preflightAge(a.Header); age > 0 && !m.wildAuthorization(unsafe) && (l.origin() != "null" || l.opaque && l.p.NarrowPermits) {
		m.until = l.now.Add(age)
		if l.p.NarrowPermits {
			star := func(s string) bool { return s == "*" }
			m.methods, m.headers = slices.DeleteFunc(m.methods, star), slices.DeleteFunc(m.headers, star)
		}
		l.b.permits[key] = m
	}
	return true
}

// message builds the request as it leaves (https://fetch.spec.whatwg.org/#concept-http-network-or-cache-fetch).
func (l *load) message() Message {
	m := Message{Method: l.method, URL: l.url().wire(), Header: slices.Clone(l.header), Body: l.body}
	if o := l.originHeader(); o != "" {
		m.Header.add("Origin", o)
	}
	if r := l.referrer(); r != "" && l.mode != "websocket" {
		m.Header.add("Referer", r)
	}
	l.fetchMetadata(&m, l.mode, l.urls)
	if l.sendsCredentials() {
		value, kept := l.b.Jar.header(l.p, l.url(), l.cookies(), l.now)
		if value != "" {
			m.Header.add("Cookie", value)
		}
		for _, k := range kept {
			l.step("cookie retrieval", linkCookies, "the cookie %q stays behind: %s", k.name, k.why)
		}
	}
	return m
}

// sendsCredentials is includeCredentials of HTTP-network-or-cache fetch.
func (l *load) sendsCredentials() bool {
	if l.page.COEP == "credentialless" && l.mode == "no-cors" && l.left {
		return false
	}
	return l.credentials == "include" || l.credentials == "same-origin" && !l.cors && l.sameOriginAs(l.url()) && !l.left
}

// originHeader is https://fetch.spec.whatwg.org/#append-a-request-origin-header.
func (l *load) originHeader() string {
	if l.cors || l.mode == "websocket" || l.mode == "cors" && l.p.ElementsTellOrigin && l.api.element {
		return l.origin()
	}
	// A server that has to decide whether to ask for its cookies is told who asks.
	inactive := l.p.StorageAccessHeader && l.credentials == "include" && l.storageAccess() == "inactive"
	if (l.method == "GET" || l.method == "HEAD") && !inactive {
		return ""
	}
	if l.p.RedirectsHideOrigin && l.urls[0].origin != l.url().origin {
		return "null"
	}
	policy, to := l.policy, l.url()
	if l.p.OnlyNavigationsHideOrigin && len(l.urls) > 1 {
		policy, to = l.policies[0], l.urls[0]
	}
	if l.mode != "cors" && (l.navigation() || !l.p.OnlyNavigationsHideOrigin) && hidesOrigin(policy, l.from, to) {
		return "null"
	}
	return l.origin()
}

// referrer is empty if there is none: a document of an opaque origin never tells, and
// neither does a ping.
func (l *load) referrer() string {
	if l.opaque && (!l.p.SandboxedPagesTellReferrer || l.req.API == Fetch || l.req.API == XHR) || l.req.API == Ping {
		return ""
	}
	r := referrer(l.referrerPolicy(), l.from, l.url(), l.p.DowngradeIsByScheme, l.opaque || l.tainted && l.p.PreflightsTellPage)
	if !l.p.ReferrerNeverGrows || len(l.urls) == 1 {
		return r
	}
	// What an earlier hop was not told, no later one is.
	for i := range l.urls[:len(l.urls)-1] {
		if earlier := referrer(l.policies[i], l.from, l.urls[i], l.p.DowngradeIsByScheme, false); len(earlier) < len(r) {
			r = earlier
		}
	}
	return r
}

// referrerPolicy is the one that counts for the current URL.
func (l *load) referrerPolicy() string {
	if !l.p.CrossSiteReferrerIsOrigin || l.req.API == Link || l.req.API == Form {
		return l.policy
	}
	if abroad := l.opaque || l.req.API == Frame && l.strayed(); !abroad && l.p.sameSite(l.from.origin, l.url().origin) {
		return l.policy
	}
	switch l.policy {
	case "unsafe-url", "no-referrer-when-downgrade", "origin-when-cross-origin":
		return defaultReferrerPolicy
	}
	return l.policy
}

// fetchMetadata adds the Sec-Fetch headers (https://w3c.github.io/webappsec-fetch-metadata/),
// which only go to potentially trustworthy URLs.
func (l *load) fetchMetadata(m *Message, mode string, chain []location) {
	if !trustworthy(l.url().origin) || l.mode == "websocket" && !l.p.WebSocketsTellMetadata {
		if m.Preflight && l.p.PreflightTellsMode {
			m.Header.add("Sec-Fetch-Mode", mode)
		}
		return
	}
	dest := l.dest
	if dest == "websocket" {
		dest = "empty"
	}
	m.Header.add("Sec-Fetch-Dest", dest)
	m.Header.add("Sec-Fetch-Mode", mode)
	site := "same-origin"
	for _, u := range chain {
		if l.sameOriginAs(u) {
			continue
		}
		if l.opaque || !l.p.sameSiteForMetadata(l.from.origin, u.origin) {
			site = "cross-site"
			break
		}
		site = "same-site"
	}
	m.Header.add("Sec-Fetch-Site", site)
	if l.p.StorageAccessHeader && (!m.Preflight || l.p.PreflightsTellStorageAccess) && l.credentials == "include" {
		if status := l.storageAccess(); status != "" {
			m.Header.add("Sec-Fetch-Storage-Access", status)
		}
	}
	if l.navigation() && l.req.UserActivated {
		m.Header.add("Sec-Fetch-User", "?1")
	}
}

// storageAccess is https://privacycg.github.io/storage-access-headers/.
func (l *load) storageAccess() string {
	c := l.cookies()
	if l.req.API == Link || l.req.API == Form || c.sameSite == strict {
		return ""
	}
	switch {
	case l.p.PartitionsThirdPartyCookies && (l.tainted || !c.thirdParty):
		return ""
	case l.p.PartitionsThirdPartyCookies && !trustworthy(l.url().origin):
		return "" // it has no word for these
	case l.p.PartitionsThirdPartyCookies && l.p.sameSite(l.top.origin, l.url().origin):
		return "inactive"
	case l.p.PartitionsThirdPartyCookies:
		return "none"
	case !l.b.BlockThirdPartyCookies:
		return "active"
	case sameSite(l.top.origin, l.url().origin):
		return "inactive"
	}
	return "none"
}

// cookies tells what the surroundings mean for cookies
// (RFC 6265bis section 5.2, https://html.spec.whatwg.org/#site-for-cookies).
func (l *load) cookies() cookieContext {
	u := l.url()
	if l.req.API == Link || l.req.API == Form {
		c := cookieContext{sameSite: strict, partition: partitionKey(u.origin.Site(), false)}
		if l.opaque || !l.p.sameSite(l.from.origin, u.origin) || l.p.RedirectsBreakSameSite && l.strayed() {
			c.sameSite = laxUnsafe
			if l.method == "GET" || l.method == "HEAD" {
				c.sameSite = lax
			}
		}
		return c
	}
	c := cookieContext{
		thirdParty:      l.thirdly || l.opaque && l.p.SandboxedPagesAreThirdParty || !l.p.sameSite(l.top.origin, u.origin),
		blockThirdParty: l.b.BlockThirdPartyCookies, partitionAll: l.p.PartitionsThirdPartyCookies,
	}
	if !c.thirdParty && !l.opaque && l.p.sameSite(l.from.origin, u.origin) && (!l.p.RedirectsBreakSameSite || !l.strayed()) {
		c.sameSite = strict
	}
	c.partition = partitionKey(l.top.origin.Site(), c.thirdParty || l.opaque)
	return c
}

// strayed reports whether the request passed another site on its way.
func (l *load) strayed() bool {
	return slices.ContainsFunc(l.urls, func(u location) bool { return !l.p.sameSite(l.from.origin, u.origin) })
}

// keepCookies stores what the answer sets, whatever CORS says of it.
func (l *load) keepCookies(a Answer) {
	if !l.sendsCredentials() {
		return
	}
	x := &l.t.Exchanges[len(l.t.Exchanges)-1]
	c := l.cookies()
	if l.req.API == Link || l.req.API == Form {
		c.sameSite = strict // a top-level navigation may set any
	}
	for _, line := range a.Header.Values("Set-Cookie") {
		name, err := l.b.Jar.set(l.p, l.url(), line, c, l.now)
		if err != nil {
			l.step("cookie storage", linkSetCookie, "the cookie %q is not kept: %v", name, err)
			continue
		}
		x.Stored = append(x.Stored, name)
	}
}

func isRedirect(status int) bool {
	switch status {
	case 301, 302, 303, 307, 308:
		return true
	}
	return false
}

// minds reports whether a redirect to a URL with credentials ends the request.
func (l *load) minds() bool {
	switch {
	case l.navigation():
		return l.req.API == Frame && !l.p.OnlyCORSMindsCredentials
	case l.req.API == Beacon || l.req.API == Ping:
		return l.mode == "cors"
	}
	return l.mode == "cors" || !l.p.OnlyCORSMindsCredentials
}

// maxRedirects is https://fetch.spec.whatwg.org/#concept-http-redirect-fetch, step 6.
const maxRedirects = 20

// redirectTarget is where the answer sends the request; ok is false if it is no redirect.
func (l *load) redirectTarget(a Answer) (string, bool) {
	if !isRedirect(a.Status) || l.mode == "websocket" {
		return "", false
	}
	to, ok := a.Header.Get("Location")
	return to, ok
}

// follow is https://fetch.spec.whatwg.org/#concept-http-redirect-fetch.
func (l *load) follow(a Answer, to string) bool {
	const name = "HTTP-redirect fetch"
	old := l.url()
	next, err := parseURL(to, old.url)
	secret := err == nil && l.minds() && next.credentials()
	if secret && l.mode == "cors" && l.redirect != "manual" && (l.cors || !l.sameOriginAs(next)) {
		l.fail(name, linkRedirect, "the redirect's URL holds credentials")
		return l.corsFailed(corsFault{RedirectContainsCredentials, ""})
	}
	if err != nil && l.redirect != "manual" {
		l.fail(name, linkRedirect, "%v", err)
		l.netError("net::ERR_UNSAFE_REDIRECT")
		if l.req.API == Frame && l.p.BlocksTell {
			l.t.Verdict.Script = ""
		}
		return false
	}
	switch l.redirect {
	case "error":
		l.fail(name, linkRedirect, "the answer redirects, and the page asked for redirect: \"error\"")
		l.netError("net::ERR_FAILED")
		l.t.Verdict.Firefox = "" // its console says nothing
		return false
	case "manual":
		l.step(name, linkRedirect, "the page asked for redirect: \"manual\": it sees that there was one, and nothing else")
		l.t.Verdict = Verdict{Outcome: Opaque, Type: "opaqueredirect", Script: "opaqueredirect 0"}
		return false
	}
	if secret {
		l.fail(name, linkRedirect, "the redirect's URL holds credentials")
		l.blocked("origin", "")
		if l.req.API == Frame {
			l.t.Verdict.Script = "" // not even an event
		}
		return false
	}
	if to := next; l.p.UpgradesAreRedirects && !l.sameOriginAs(to) {
		next = l.upgraded(next)
		l.tainted = l.tainted || next.origin != to.origin
	} else {
		next = l.upgraded(next)
	}
	if next.url.Fragment == "" {
		next.url.Fragment = old.url.Fragment
	}
	if a.Status != 303 && l.body != nil && l.body.Kind == "stream" {
		l.fail(name, linkRedirect, "a stream cannot be sent a second time")
		return l.netError("net::ERR_INVALID_ARGUMENT")
	}
	if len(l.urls) > maxRedirects {
		l.fail(name, linkRedirect, "more than 20 redirects")
		return l.netError("net::ERR_TOO_MANY_REDIRECTS")
	}
	l.rewriteMethod(a.Status)
	if old.origin != next.origin {
		l.header = l.header.without(func(f Field) bool { return strings.EqualFold(f.Name, "Authorization") })
		if !l.sameOriginAs(old) {
			l.tainted = true
		}
	}
	l.policies = append(l.policies, l.policy)
	l.policy = policyFrom(a.Header.Value("Referrer-Policy"), l.policy)
	l.urls = append(l.urls, next)
	l.step(name, linkRedirect, "%d: on to %s", a.Status, next)
	if !l.enter() {
		return false
	}
	if d := cspBlocks(l.page.CSP, l.req.API, l.from, next, true); d != "" {
		l.fail("Content Security Policy", linkCSP, "the page's own policy, %q, does not allow %s", d, next)
		if l.req.API == Frame {
			return l.blocked("", "net::ERR_BLOCKED_BY_CSP")
		}
		return l.blocked("csp", "")
	}
	if !l.mixedContent() {
		return false
	}
	return true
}

// rewriteMethod turns POST into GET where the standard says so; the body goes.
func (l *load) rewriteMethod(status int) {
	if (status == 301 || status == 302) && l.method == "POST" || status == 303 && l.method != "GET" && l.method != "HEAD" {
		l.method, l.body = "GET", nil
		l.header = l.header.without(func(f Field) bool {
			switch strings.ToLower(f.Name) {
			case "content-encoding", "content-language", "content-location", "content-type", "content-length":
				return true
			}
			return false
		})
	}
}

// cached is an answer in the HTTP cache, with the request's fields that it varies by.
type cached struct {
	// vary has the values of the request's fields that it varies by; nil is Vary: *.
	vary   map[string]string
	answer Answer
	until  time.Time
}

func (l *load) cacheKey(url string) string {
	key := partitionKey(l.top.origin.Site(), l.thirdly || l.opaque) + " " + url
	if l.p.CacheKeepsApart && !l.sendsCredentials() {
		key = "anonymous " + key
	}
	return key
}

// lookup is the HTTP cache, for GET and as far as max-age goes.
func (b *Browser) lookup(l *load, m Message) (Answer, bool) {
	if m.Method != "GET" || l.opaque || l.freshCopy() || slices.ContainsFunc(l.header, asksAnew) {
		return Answer{}, false
	}
	if c, ok := b.cache[l.cacheKey(m.URL)]; ok {
		fresh := c.until.After(l.now) || l.req.Cache == "force-cache" || l.req.Cache == "only-if-cached"
		if fresh && c.vary != nil && maps.Equal(c.vary, l.selecting(m, c.answer)) {
			return c.answer, true
		}
	}
	return Answer{}, false
}

// freshCopy reports whether the cache mode, or a condition that script set, asks for an
// answer of the server's.
func (l *load) freshCopy() bool {
	return l.req.Cache == "reload" || l.req.Cache == "no-cache" || l.bypassesCache()
}

// bypassesCache reports whether the request neither uses nor feeds the cache
// (https://fetch.spec.whatwg.org/#http-network-or-cache-fetch, step 8.16).
func (l *load) bypassesCache() bool {
	return l.req.Cache == "no-store" || slices.ContainsFunc(l.header, func(f Field) bool {
		switch strings.ToLower(f.Name) {
		case "if-modified-since", "if-none-match", "if-unmodified-since", "if-match", "if-range":
			return true
		}
		return false
	})
}

// asksAnew reports whether script itself asks caches for a fresh answer.
func asksAnew(f Field) bool {
	name := strings.ToLower(f.Name)
	return (name == "cache-control" || name == "pragma") && strings.EqualFold(f.Value, "no-cache")
}

// selecting are the fields of a request that Vary names (RFC 9111 section 4.1), nil if it
// names all.
func (l *load) selecting(m Message, a Answer) map[string]string {
	values := map[string]string{}
	if l.p.CacheKeepsApart {
		values["origin"] = m.Header.Value("Origin")
	}
	for name := range strings.SplitSeq(a.Header.Value("Vary"), ",") {
		switch name = strings.ToLower(strings.Trim(name, " \t")); {
		case name == "*":
			return nil
		case name == "accept" && !m.Header.Has(name):
			values[name] = l.dest // the browser's own differs by what is asked for
		case name != "":
			values[name] = m.Header.Value(name)
		}
	}
	return values
}

func (b *Browser) store(l *load, m Message, a Answer) {
	if m.Method != "GET" || l.opaque || l.bypassesCache() {
		return
	}
	var age time.Duration
	switch a.Status {
	case 300, 301, 308, 410: // fresh until said otherwise (RFC 9110 section 15.1)
		if !b.Profile.FewStatusesCached {
			age = 365 * 24 * time.Hour
		}
	case 200, 203, 204:
	case 206, 401, 407:
		return
	default: // only if the answer says so itself
		if b.Profile.FewStatusesCached && !isRedirect(a.Status) ||
			!strings.Contains(strings.ToLower(a.Header.Value("Cache-Control")), "max-age") {
			return
		}
	}
	for d := range strings.SplitSeq(a.Header.Value("Cache-Control"), ",") {
		name, value, _ := strings.Cut(strings.ToLower(strings.Trim(d, " \t")), "=")
		switch name {
		case "no-store":
			return
		case "no-cache":
			age = 0
		case "max-age":
			n, _ := strconv.Atoi(strings.Trim(value, `"`))
			age = time.Duration(n) * time.Second
		}
	}
	// One that is not fresh only serves those who do not mind (cache: force-cache).
	b.cache[l.cacheKey(m.URL)] = cached{vary: l.selecting(m, a), answer: a, until: l.now.Add(age)}
}
