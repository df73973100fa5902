package guard

import "net/http"

// Reason is why a Decision fell as it did. The set is closed; a code, once
// released, keeps its meaning. docs/reasons.md is generated from the table below.
type Reason uint8

// The reasons, in the order of the data path.
const (
	// OK is the reason of a request that nothing objects to.
	OK Reason = iota

	FramingLengthConflict
	FramingDuplicateLength
	FramingLength
	FramingTransferEncoding
	FramingFoldedHeader
	FramingLineEnd
	FramingHeaderName
	FramingHeadSize

	HostNotAllowed
	PathAmbiguous
	RouteNotFound

	ClientAddrUnreadable

	CORSOriginAllowed
	CORSPreflightApproved
	CORSOriginMalformed
	CORSOriginNotAllowed
	CORSMethodNotAllowed
	CORSHeaderNotAllowed
	CORSRequestHeadersOversize

	MethodNotAllowed
	MethodOverride
	BodyTooLarge
	BodyTooSlow

	CrossSiteOriginAllowed
	CrossSiteSameSite
	CrossSiteRequest
	CrossSiteOpaqueOrigin
	CrossSiteEmbed
	CrossSiteWebSocket
	CrossSitePrefetch
	CrossSiteBrowserless

	RateLimited
	RateLimitedTogether
	RateLimitedNew
	TooManyAtOnce
	RateLimitUnavailable

	ScrubForgedHeader

	UpstreamUnreachable
	UpstreamTimeout
	UpstreamBadResponse
	UpstreamAborted
	RequestAborted
	RequestMalformed

	numReasons
)

// NumReasons is the size of the set: every Reason is below it.
const NumReasons = int(numReasons)

type reason struct {
	code   string
	step   Kind
	status int    // of the refusal; 0 where the reason refuses nothing
	title  string // to the client: what happened, and nothing about the policy
	cause  string // to the operator: what the guard saw
	fix    string // to the operator: the change that lets a legitimate request pass
}

var reasons = [numReasons]reason{
	OK: {code: "ok", step: RouteStep, title: "Nothing objects"},

	FramingLengthConflict: {
		"framing-length-conflict", Wire, http.StatusBadRequest, "The request's length is ambiguous",
		"The head has both Content-Length and Transfer-Encoding: two parsers can disagree about where the request ends, which is how one request is smuggled inside another (RFC 9112 section 6.3).",
		"Send one of the two. If a proxy in front of moat forwards both, mend that proxy.",
	},
	FramingDuplicateLength: {
		"framing-duplicate-length", Wire, http.StatusBadRequest, "The request's length is ambiguous",
		"The head has more than one Content-Length, equal or not (RFC 9112 section 6.3).",
		"Send Content-Length once.",
	},
	FramingLength: {
		"framing-length", Wire, http.StatusBadRequest, "The request's length is malformed",
		"Content-Length is not a plain decimal number (RFC 9110 section 8.6).",
		"Send digits only: no sign, no list, no blanks inside.",
	},
	FramingTransferEncoding: {
		"framing-transfer-encoding", Wire, http.StatusBadRequest, "The request's transfer coding is not accepted",
		"Transfer-Encoding is something other than a single \"chunked\", or comes in an HTTP/1.0 request (RFC 9112 section 6.1).",
		"Send \"Transfer-Encoding: chunked\" once, in HTTP/1.1, or a Content-Length.",
	},
	FramingFoldedHeader: {
		"framing-folded-header", Wire, http.StatusBadRequest, "A header line is folded",
		"A header line begins with a blank: obsolete line folding, which parsers read differently (RFC 9112 section 5.2).",
		"Send each header field on one line.",
	},
	FramingLineEnd: {
		"framing-line-end", Wire, http.StatusBadRequest, "A line of the head ends wrongly",
		"A line ends in a bare LF, or holds a bare CR or a NUL (RFC 9112 section 2.2).",
		"End each line with CRLF.",
	},
	FramingHeaderName: {
		"framing-header-name", Wire, http.StatusBadRequest, "A header name is malformed",
		"There is a blank before the colon, no colon, or no name (RFC 9112 section 5.1).",
		"Send \"Name: value\" without a blank before the colon.",
	},
	FramingHeadSize: {
		"framing-head-size", Wire, http.StatusRequestHeaderFieldsTooLarge, "The request's head is too large",
		"Request line and headers together exceed limits.header_bytes.",
		"Send fewer or shorter headers, often cookies; or raise limits.header_bytes.",
	},

	HostNotAllowed: {
		"host-not-allowed", Host, http.StatusMisdirectedRequest, "This host is not served here",
		"The Host is not that of any public origin. A page that rebinds its own DNS name to this address, or a forged Host, looks like this.",
		"If clients really use this name, add its origin to public_origins.",
	},
	PathAmbiguous: {
		"path-ambiguous", RouteStep, http.StatusBadRequest, "The path is ambiguous",
		"The path holds a dot segment, an empty segment, a backslash, a control character or an encoded slash: the upstream might resolve it to a path other than the one that was checked.",
		"Send the path in its plain form. Where the upstream needs encoded slashes, write encoded_slash: allow on the route.",
	},
	RouteNotFound: {
		"route-not-found", RouteStep, http.StatusNotFound, "Nothing is served here",
		"No route matches this host, method and path. What is not declared is refused.",
		"Add a route that matches, or mend the URL.",
	},

	ClientAddrUnreadable: {
		"client-address-unreadable", ClientAddr, http.StatusBadRequest, "The client's address cannot be told",
		"A trusted proxy's forwarding header holds, at the place that decides, something that is not an address.",
		"Make the trusted proxy append the peer's address to the header that trusted_proxies.header names.",
	},

	CORSOriginAllowed:     {code: "cors-origin-allowed", step: CORS, title: "The origin is allowed"},
	CORSPreflightApproved: {code: "cors-preflight-approved", step: CORS, title: "The preflight is approved"},
	CORSOriginMalformed: {
		"cors-origin-malformed", CORS, http.StatusForbidden, "The Origin header is malformed",
		"There is more than one Origin, or its value is no serialized origin (RFC 6454 section 6.2). No browser sends this.",
		"Send at most one Origin, as scheme://host[:port].",
	},
	CORSOriginNotAllowed: {
		"cors-origin-not-allowed", CORS, http.StatusForbidden, "This origin may not call this API",
		"A page of an origin that the policy does not list made the request. The upstream has not seen it.",
		"If the page is yours, add its origin to the policy's origins.",
	},
	CORSMethodNotAllowed: {
		"cors-method-not-allowed", CORS, http.StatusForbidden, "The method is not allowed",
		"A preflight from an allowed origin asks for a method that the route does not allow. The browser will not send the request.",
		"If the page needs it, add the method to the route's methods.",
	},
	CORSHeaderNotAllowed: {
		"cors-header-not-allowed", CORS, http.StatusForbidden, "A header is not allowed",
		"A preflight from an allowed origin asks for a request header that the policy does not list. The browser will not send the request.",
		"If the page needs it, add the header to cors.request_headers.",
	},
	CORSRequestHeadersOversize: {
		"cors-request-headers-oversize", CORS, http.StatusForbidden, "The preflight asks for too many headers",
		"Access-Control-Request-Headers is longer than any list that could be allowed. No browser of an honest page sends this.",
		"Ask for fewer headers.",
	},

	MethodNotAllowed: {
		"method-not-allowed", Bounds, http.StatusMethodNotAllowed, "The method is not allowed",
		"The route does not list the request's method. CONNECT and TRACE never pass.",
		"If clients need it, add the method to the route's methods.",
	},
	MethodOverride: {
		"method-override", Bounds, http.StatusBadRequest, "Method override headers are not accepted",
		"A header asks the upstream to treat the request as another method than the one that was checked.",
		"Send the method itself; or, if the upstream must have the header, write method_override: allow on the route.",
	},
	BodyTooLarge: {
		"body-too-large", Bounds, http.StatusRequestEntityTooLarge, "The body is too large",
		"The body exceeds limits.body_bytes.",
		"Send less, or raise limits.body_bytes on the route.",
	},
	BodyTooSlow: {
		"body-too-slow", Bounds, http.StatusRequestTimeout, "The body came too slowly",
		"No byte of the body came within limits.body_idle.",
		"Send the body without pauses, or raise limits.body_idle.",
	},

	CrossSiteOriginAllowed: {code: "cross-site-origin-allowed", step: CrossSite, title: "The calling origin is listed"},
	CrossSiteSameSite:      {code: "cross-site-same-site", step: CrossSite, title: "The caller is of the same site, which the policy allows"},
	CrossSiteRequest: {
		"cross-site-request", CrossSite, http.StatusForbidden, "Another site may not do this",
		"A page of an origin that is neither this one nor listed would have changed state here, with the user's cookies if there are any: cross-site request forgery.",
		"If the page is yours, add its origin to the policy's origins; if it is a sibling subdomain, same_site: allow.",
	},
	CrossSiteOpaqueOrigin: {
		"cross-site-opaque-origin", CrossSite, http.StatusForbidden, "An opaque origin may not do this",
		"The Origin is null: a sandboxed frame, a file or data: page, or a redirect across origins. Anyone can make one, so it cannot be listed.",
		"Call from a page that has an origin.",
	},
	CrossSiteEmbed: {
		"cross-site-embed", CrossSite, http.StatusForbidden, "Another site may not embed this",
		"A page of another site asked for this without CORS, as an image, a script, a stylesheet, a frame or a no-cors fetch does.",
		"If others may embed what the route serves, write embed: allow on it.",
	},
	CrossSiteWebSocket: {
		"cross-site-websocket", CrossSite, http.StatusForbidden, "Another site may not open a WebSocket here",
		"The WebSocket handshake comes from an origin that is neither this one nor listed. CORS does not apply to WebSockets: only this check stands between a stranger's page and the socket.",
		"If the page is yours, add its origin to the policy's origins.",
	},
	CrossSitePrefetch: {
		"cross-site-prefetch", CrossSite, http.StatusForbidden, "This may not be prefetched",
		"The route is declared side_effects: true, and the browser fetches it on speculation (Sec-Purpose: prefetch), without anybody having asked.",
		"Make the page ask only when the user does.",
	},
	CrossSiteBrowserless: {
		"cross-site-browserless", CrossSite, http.StatusForbidden, "Only pages in a browser may call this",
		"Neither Origin nor Sec-Fetch-Site came: curl, a script, a webhook, a mobile app, or a browser of before 2023.",
		"Where such clients are wanted, write browserless: allow on the route. It keeps honest tools out, not forgers: any client can send these headers.",
	},

	RateLimited: {
		"rate-limited", RateLimit, http.StatusTooManyRequests, "Too many requests",
		"The client's address, or a network around it, has used up the limit that the record names.",
		"Wait as Retry-After says. If honest clients meet this, raise the limit, lower the route's cost, or give their network a tier.",
	},
	RateLimitedTogether: {
		"rate-limited-together", RateLimit, http.StatusServiceUnavailable, "Too many requests at the moment, from everybody together",
		"A limit that all clients share is used up, or as many requests of all clients together are under way as its at_once allows.",
		"Raise the limit if the upstream can bear it; look with moat limits for who uses most.",
	},
	RateLimitedNew: {
		"rate-limited-new", RateLimit, http.StatusServiceUnavailable, "Too many new clients at the moment",
		"More clients than the limit allows came that had not been seen lately: a crowd, or somebody with very many addresses. Clients that are known are not affected.",
		"Raise the limit if the crowd is honest.",
	},
	TooManyAtOnce: {
		"too-many-at-once", RateLimit, http.StatusTooManyRequests, "Too many requests at the same time",
		"The client has as many requests under way as the limit's at_once allows.",
		"Wait for one of them to end; or raise at_once.",
	},
	RateLimitUnavailable: {
		"rate-limit-unavailable", RateLimit, http.StatusServiceUnavailable, "Requests cannot be counted at the moment",
		"The store that the limits are shared through does not answer, and the route says store_down: deny.",
		"Mend the store; or write store_down: local, which counts in each process alone meanwhile.",
	},

	ScrubForgedHeader: {
		"scrub-forged-header", Scrub, 0, "",
		"The client sent a header that only moat or a trusted proxy may set. It was removed, and the request went on.",
		"Nothing, unless a proxy of yours sets it: then name that proxy in trusted_proxies.",
	},

	UpstreamUnreachable: {
		"upstream-unreachable", Upstream, http.StatusBadGateway, "The service behind the gate is unreachable",
		"No connection to the upstream could be made.",
		"Start the upstream, or mend its url.",
	},
	UpstreamTimeout: {
		"upstream-timeout", Upstream, http.StatusGatewayTimeout, "The service behind the gate took too long",
		"The upstream did not begin to answer within the upstream's response_timeout.",
		"Make the upstream faster, or raise response_timeout.",
	},
	UpstreamBadResponse: {
		"upstream-bad-response", Upstream, http.StatusBadGateway, "The service behind the gate answered nonsense",
		"The upstream's answer was no valid HTTP, or the connection broke before its head was complete.",
		"Look at the upstream's own log at this time.",
	},
	UpstreamAborted: {
		"upstream-aborted", Upstream, 0, "",
		"The upstream's answer broke off in its body. The client's connection was aborted too, so that the part cannot pass for the whole.",
		"Look at the upstream's own log at this time.",
	},
	RequestAborted: {
		"request-aborted", Upstream, 0, "",
		"The client went away before the answer was complete.",
		"Nothing: clients do that.",
	},
	RequestMalformed: {
		"request-malformed", Wire, http.StatusBadRequest, "The body's framing is malformed",
		"The chunked coding of the body broke the rules of RFC 9112 section 7.1, so where the request ends cannot be told.",
		"Send well-formed chunks, or a Content-Length.",
	},
}

func (r Reason) entry() *reason {
	if r < numReasons {
		return &reasons[r]
	}
	return &reasons[OK]
}

// String returns the reason's stable code.
func (r Reason) String() string { return r.entry().code }

// Step is the step of the data path that gives this reason.
func (r Reason) Step() Kind { return r.entry().step }

// Status is the HTTP status of a refusal for this reason, or 0 if it refuses nothing.
func (r Reason) Status() int { return r.entry().status }

// Title is what the client is told: what happened, nothing of the policy.
func (r Reason) Title() string { return r.entry().title }

// Cause is what the operator is told.
func (r Reason) Cause() string { return r.entry().cause }

// Fix is the change that lets a legitimate request pass.
func (r Reason) Fix() string { return r.entry().fix }

// Reasons returns the whole set, in the order of the data path.
func Reasons() []Reason {
	all := make([]Reason, numReasons)
	for i := range all {
		all[i] = Reason(i)
	}
	return all
}

// ParseReason returns the Reason with that code.
func ParseReason(code string) (Reason, bool) {
	for i := range reasons {
		if reasons[i].code == code {
			return Reason(i), true
		}
	}
	return OK, false
}
