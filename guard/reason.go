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
	RateLimitedPrincipal
	RateLimitedAccount
	RateLimitedTogether
	RateLimitedNew
	TooManyAtOnce
	RateLimitUnavailable
	AccountUnreadable

	BotVerified
	BotSuspected
	BotDenied
	BotTarpitted
	BotSignatureInvalid

	TicketHonoured
	TicketMissing
	TicketMalformed
	TicketKeyUnknown
	TicketExpired
	TicketProofInvalid
	TicketOtherOrigin
	TicketMoved
	TicketUsed
	TicketBodyUnproved
	TicketBodyDiffers
	TicketUnavailable

	ChallengeSolved
	ChallengeRequired
	ChallengeFailed

	IdentityVerified
	CredentialsMissing
	CredentialsAmbiguous
	CredentialsMalformed
	CredentialsNotAccepted
	TokenMalformed
	TokenAlgorithmNotAllowed
	TokenIssuerUnknown
	TokenKeyUnknown
	TokenSignatureInvalid
	TokenExpired
	TokenNotYetValid
	TokenAudienceWrong
	TokenClaimMissing
	TokenRevoked
	TokenInactive
	APIKeyUnknown
	APIKeyExpired
	APIKeyRevoked
	SessionUnknown
	SessionExpired
	ProofMissing
	ProofInvalid
	ProofUsed
	IdentityUnavailable
	LoginStateUnknown
	LoginFailed
	LoginReturnNotAllowed

	CSRFTokenValid
	CSRFTokenMissing
	CSRFTokenInvalid
	CSRFTokenExpired

	AuthorizationScopeMissing
	AuthorizationRoleMissing
	AuthorizationClaimDiffers
	AuthorizationConditionFalse
	AuthorizationConditionFailed

	BudgetSettled
	BudgetSpent
	BudgetSpentTogether
	BudgetTooManyAtOnce
	BudgetStopped
	BudgetUnavailable
	ModelRequestUnreadable
	ModelNotAllowed
	ModelTokensTooMany
	ModelFieldNotAllowed
	ModelUsageEstimated

	BodyNoRoom
	BodyTypeNotAllowed
	BodyEncoded
	BodyMalformed
	BodyInvalid
	OperationUnknown
	ParameterInvalid
	ResponseInvalid

	ScrubForgedHeader

	EgressNotAllowed
	EgressAddressNotAllowed
	EgressTooLarge

	CredentialUnavailable
	CredentialEchoed

	UpstreamUnreachable
	UpstreamTimeout
	UpstreamBadResponse
	UpstreamAborted
	RequestAborted
	RequestMalformed

	CookieHardened
	CookieDropped

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
		"The body exceeds limits.body_bytes; or one that has to be read whole, body.bytes; or a part of a form, body.multipart.part_bytes.",
		"Send less, or raise the limit on the route.",
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
	RateLimitedPrincipal: {
		"rate-limited-principal", RateLimit, http.StatusTooManyRequests, "Too many requests",
		"The user, API key or tenant that makes the request has used up the limit that the record names, from whichever addresses.",
		"Wait as Retry-After says. If honest callers meet this, raise the limit, lower the route's cost, or give them a tier.",
	},
	RateLimitedAccount: {
		"rate-limited-account", RateLimit, http.StatusTooManyRequests, "Too many attempts",
		"The account that the request names has been tried too often, from whichever addresses: somebody guesses its password, or tries stolen ones.",
		"Wait as Retry-After says. If an account's owner meets this, raise the limit, or clear it with moat limits reset.",
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
	AccountUnreadable: {
		"account-unreadable", RateLimit, http.StatusBadRequest, "The account cannot be told",
		"The route counts attempts for each account, and the request names none that is certain to be the one that the upstream reads: two of them, a body of another type, or one that is malformed or too long.",
		"Send the account once, in the field that the route's account names; or mend that setting.",
	},

	BotVerified: {code: "bot-verified", step: Bot, title: "The robot is who it says it is"},
	BotSuspected: {
		"bot-suspected", Bot, 0, "",
		"The signals that the evidence names make the client look like a program, not like the browser that it says it is. The route's bots settings made its request dearer, or its challenge harder, and let it go on.",
		"Look at which signal said so. If honest clients meet this, set that signal to report, or raise the score from which something is done.",
	},
	BotDenied: {
		"bot-denied", Bot, http.StatusForbidden, "Automated requests are not served here",
		"The signals that the evidence names make the client look like a program, not like the browser that it says it is, and their score reaches bots.deny.",
		"Look at which signal said so. If honest clients meet this, set that signal to report, raise deny, or list the client as a known robot.",
	},
	BotTarpitted: {
		"bot-tarpitted", Bot, http.StatusForbidden, "Automated requests are not served here",
		"The signals that the evidence names reach bots.tarpit: the client was kept waiting, and then refused.",
		"Look at which signal said so. If honest clients meet this, set that signal to report, or raise tarpit.",
	},
	BotSignatureInvalid: {
		"bot-signature-invalid", Bot, http.StatusForbidden, "The robot's signature is not valid",
		"The request is signed as by a robot that is known here (Web Bot Auth, RFC 9421), and the signature is malformed, expired, used before, or not that robot's.",
		"Let the robot's operator mend its signature, or its published keys; or take the robot off the list.",
	},

	TicketHonoured: {code: "ticket-honoured", step: Ticket, title: "The ticket is good for this call"},
	TicketMissing: {
		"ticket-missing", Ticket, http.StatusUnauthorized, "This call needs a ticket",
		"The route asks for tickets, and the request has none. Only pages that load moat's client, and whoever does as it does, have one.",
		"Make the page's calls through moat's client; where clients are no pages, write tickets: off on the route.",
	},
	TicketMalformed: {
		"ticket-malformed", Ticket, http.StatusUnauthorized, "The ticket is malformed",
		"The token is not one of docs/ticket-format.md: its length, its alphabet, its class, or an index beyond its uses.",
		"Send the token as the client made it.",
	},
	TicketKeyUnknown: {
		"ticket-key-unknown", Ticket, http.StatusUnauthorized, "The ticket is no longer known",
		"It was issued under a secret that is not configured here, by a gate process that is gone, or before the shared store lost its memory.",
		"Nothing: the client gets a new one. If it happens all the time, give all processes the same secret and store.",
	},
	TicketExpired: {
		"ticket-expired", Ticket, http.StatusUnauthorized, "The ticket has expired",
		"Its time is over, or it claims to live longer than any ticket does.",
		"Nothing: the client gets a new one.",
	},
	TicketProofInvalid: {
		"ticket-proof-invalid", Ticket, http.StatusUnauthorized, "The ticket's proof is not that of this request",
		"The proof does not fit the ticket, the index, the method, the path, the query and the body together: something was changed, copied to another request, or made up.",
		"If honest pages meet this, something between them and the gate rewrites paths or queries: let the gate see what the page asked for.",
	},
	TicketOtherOrigin: {
		"ticket-other-origin", Ticket, http.StatusForbidden, "The ticket was issued to a page of another origin",
		"The request's Origin is not that of the page that got the ticket.",
		"Make each page get its own tickets.",
	},
	TicketMoved: {
		"ticket-moved", Ticket, http.StatusUnauthorized, "The ticket was issued to another network or browser",
		"The client's IPv4 /24 or IPv6 /48, or the family of its browser, is not that to which the ticket was issued: it roams, or the ticket was copied.",
		"Nothing: the client gets a new one, perhaps with a challenge.",
	},
	TicketUsed: {
		"ticket-used", Ticket, http.StatusUnauthorized, "The ticket has been used",
		"A request with this ticket and index has been honoured already. This is a replay, or a client that repeats a request by itself.",
		"Make the client use a fresh index for each request; moat's client does.",
	},
	TicketBodyUnproved: {
		"ticket-body-unproved", Ticket, http.StatusUnauthorized, "The ticket's proof does not cover the body",
		"The request has a body, and its token no digest of it, or it says that the body is a stream, which the route does not accept.",
		"Send a body that can be hashed first; or write streamed_body: allow in the route's tickets.",
	},
	TicketBodyDiffers: {
		"ticket-body-differs", Ticket, http.StatusBadRequest, "The body is not the one that the ticket's proof covers",
		"The body's SHA-256 is not the one in the proof. The upstream has not got the whole of it.",
		"If honest pages meet this, something between them and the gate changes bodies.",
	},
	TicketUnavailable: {
		"ticket-unavailable", Ticket, http.StatusServiceUnavailable, "Tickets cannot be checked at the moment",
		"The shared store that knows which tickets have been used does not answer, or the memory for them is full.",
		"Mend the store; or raise tickets.memory.",
	},

	ChallengeSolved: {code: "challenge-solved", step: Challenge, title: "The challenge is solved"},
	ChallengeRequired: {
		"challenge-required", Challenge, http.StatusUnauthorized, "A little work is asked for first",
		"Many visitors come from around this address, or from everywhere, or the client does not look like a page in a browser. A visitor's browser solves the challenge by itself.",
		"Nothing: the client solves it. If quiet visitors meet it, raise what is quiet in tickets.challenge.",
	},
	ChallengeFailed: {
		"challenge-failed", Challenge, http.StatusUnauthorized, "The challenge is not solved",
		"The solution is wrong, late, of another client, easier than what is asked for now, or has been used.",
		"Nothing: the client gets a new challenge.",
	},

	IdentityVerified: {code: "identity-verified", step: Identity, title: "The caller is known"},
	CredentialsMissing: {
		"credentials-missing", Identity, http.StatusUnauthorized, "This needs credentials",
		"The route asks who calls, and the request says nothing: no token, no API key and no session that the route accepts.",
		"Send credentials of a kind that the route's auth names; or, if anybody may call, write auth: public.",
	},
	CredentialsAmbiguous: {
		"credentials-ambiguous", Identity, http.StatusBadRequest, "The request has more than one credential",
		"It has two Authorization headers, or a token and an API key: two servers can disagree about whose request this is (RFC 6750 section 2).",
		"Send one.",
	},
	CredentialsMalformed: {
		"credentials-malformed", Identity, http.StatusBadRequest, "The credentials are malformed",
		"The Authorization header is not a scheme, one blank and a token (RFC 9110 section 11.4), or is longer than any token that is accepted.",
		"Send \"Authorization: Bearer TOKEN\".",
	},
	CredentialsNotAccepted: {
		"credentials-not-accepted", Identity, http.StatusUnauthorized, "These credentials are not accepted here",
		"The credential is of a kind, or of an issuer, that the gate knows, but that the route's auth does not name.",
		"If such callers are meant, name their auth on the route.",
	},
	TokenMalformed: {
		"token-malformed", Identity, http.StatusUnauthorized, "The token is malformed",
		"It is no JWT in compact form, has a header that is not accepted (crit, jwk, jku, x5u, x5c, b64, zip, enc), a member twice, or is too large (RFC 7515, RFC 8725).",
		"Send the token as its issuer made it.",
	},
	TokenAlgorithmNotAllowed: {
		"token-algorithm-not-allowed", Identity, http.StatusUnauthorized, "The token is not accepted",
		"The token's alg is not in its issuer's list, or does not fit the key. \"none\", and a public key used as an HMAC secret, look like this (RFC 8725 section 3.1).",
		"If the issuer really signs so, add the algorithm to its algorithms.",
	},
	TokenIssuerUnknown: {
		"token-issuer-unknown", Identity, http.StatusUnauthorized, "The token is not accepted",
		"The token's iss is that of no issuer in the configuration.",
		"If its users are meant to call, add the issuer under auth.",
	},
	TokenKeyUnknown: {
		"token-key-unknown", Identity, http.StatusUnauthorized, "The token is not accepted",
		"The issuer's key set has no key with the token's kid, or none that fits its algorithm, and was fetched too lately to be fetched again.",
		"If the issuer has just rotated, wait a minute. Otherwise the token is another's, or jwks_url is.",
	},
	TokenSignatureInvalid: {
		"token-signature-invalid", Identity, http.StatusUnauthorized, "The token is not accepted",
		"The signature is not that of the issuer's key over this header and these claims: something was changed, or made up.",
		"Get a new token from the issuer.",
	},
	TokenExpired: {
		"token-expired", Identity, http.StatusUnauthorized, "The token has expired",
		"exp has passed, leeway included; or the token is older than max_age allows.",
		"Get a new token. If fresh ones meet this, compare the clocks.",
	},
	TokenNotYetValid: {
		"token-not-yet-valid", Identity, http.StatusUnauthorized, "The token is not valid yet",
		"nbf or iat lies in the future, beyond the leeway.",
		"Compare the clocks; leeway forgives up to what it says.",
	},
	TokenAudienceWrong: {
		"token-audience-wrong", Identity, http.StatusUnauthorized, "The token is for another service",
		"aud does not hold an audience that the configuration names. A token that a user gave to another service must not open this one.",
		"Ask the issuer for a token for this audience.",
	},
	TokenClaimMissing: {
		"token-claim-missing", Identity, http.StatusUnauthorized, "The token is not accepted",
		"The token lacks a claim that is required, has one of the wrong type, or its typ says that it is another kind of token, such as an ID token (RFC 8725 section 3.11).",
		"Look at the evidence for the claim, and have the issuer add it.",
	},
	TokenRevoked: {
		"token-revoked", Identity, http.StatusUnauthorized, "The token has been revoked",
		"The token, its subject or its session is in the list of what was revoked.",
		"Nothing: somebody meant it so.",
	},
	TokenInactive: {
		"token-inactive", Identity, http.StatusUnauthorized, "The token is not accepted",
		"The authorization server was asked, and says that the token is not active (RFC 7662), or not for this service.",
		"Get a new token.",
	},
	APIKeyUnknown: {
		"api-key-unknown", Identity, http.StatusUnauthorized, "The API key is not accepted",
		"No key with this text has been made here, or its check digits are wrong: a typo, a key of another installation, or a guess.",
		"Make a key with moat key create.",
	},
	APIKeyExpired: {
		"api-key-expired", Identity, http.StatusUnauthorized, "The API key has expired",
		"The time that the key was made for is over.",
		"Make a new one with moat key rotate.",
	},
	APIKeyRevoked: {
		"api-key-revoked", Identity, http.StatusUnauthorized, "The API key has been revoked",
		"The key was revoked, or replaced by a rotation whose time of grace is over.",
		"Nothing: somebody meant it so.",
	},
	SessionUnknown: {
		"session-unknown", Identity, http.StatusUnauthorized, "Please sign in again",
		"The session cookie names no session: the user has signed out, the session was replaced or revoked, or the store has lost it.",
		"Nothing: the user signs in again.",
	},
	SessionExpired: {
		"session-expired", Identity, http.StatusUnauthorized, "Please sign in again",
		"The session was idle for too long, or has reached its lifetime.",
		"Nothing: the user signs in again. If that is too often, raise idle or lifetime.",
	},
	ProofMissing: {
		"proof-missing", Identity, http.StatusUnauthorized, "The token needs a proof of possession",
		"The token is bound to a key (cnf.jkt), or must be, and came without a DPoP proof, or as a plain Bearer token (RFC 9449 section 7.1). A stolen token looks like this.",
		"Send \"Authorization: DPoP TOKEN\" and a DPoP header.",
	},
	ProofInvalid: {
		"proof-invalid", Identity, http.StatusUnauthorized, "The proof of possession is not accepted",
		"The DPoP proof is not one of this token's key over this method, this URL and this token, or is not fresh (RFC 9449 section 4.3).",
		"Make a new proof for each request. If fresh ones meet this, compare the clocks, and public_origins with the URL that clients use.",
	},
	ProofUsed: {
		"proof-used", Identity, http.StatusUnauthorized, "The proof of possession has been used",
		"A proof with this jti has been accepted already. This is a replay, or a client that sends one proof twice.",
		"Make a new proof for each request.",
	},
	IdentityUnavailable: {
		"identity-unavailable", Identity, http.StatusServiceUnavailable, "Credentials cannot be checked at the moment",
		"The issuer's keys, the introspection endpoint or the store of the sessions could not be reached, and nothing that is still valid was remembered.",
		"Look at the evidence, and mend what it names.",
	},
	LoginStateUnknown: {
		"login-state-unknown", Identity, http.StatusBadRequest, "This sign-in was not begun in this browser",
		"The answer of the identity provider does not fit a sign-in that this browser has begun in the last ten minutes. Somebody who wants a victim signed in as himself looks like this; so do the back button, and cookies that are blocked.",
		"Begin again at the page.",
	},
	LoginFailed: {
		"login-failed", Identity, http.StatusBadGateway, "Signing in did not work",
		"The identity provider refused, could not be reached, or answered with a token that does not verify.",
		"Look at the evidence.",
	},
	LoginReturnNotAllowed: {
		"login-return-not-allowed", Identity, http.StatusBadRequest, "The address to return to is not accepted",
		"After signing in or out the browser was to be sent somewhere that is no path of this gate: an open redirect.",
		"Name a path, such as /app.",
	},

	CSRFTokenValid: {code: "csrf-token-valid", step: CSRF, title: "The token is that of the session"},
	CSRFTokenMissing: {
		"csrf-token-missing", CSRF, http.StatusForbidden, "A token is missing",
		"The request would change state with the user's cookies, and has no CSRF token, neither in the header nor in a form's field. A page that cannot read the token made it, or a page of yours that does not send it yet.",
		"Send what GET /.moat/csrf answers, in the header that it names or in the form's field.",
	},
	CSRFTokenInvalid: {
		"csrf-token-invalid", CSRF, http.StatusForbidden, "The token is not that of this session",
		"The CSRF token was made for another session, with another secret, or made up. After signing in or out a page has to get a new one.",
		"Get a new one from GET /.moat/csrf.",
	},
	CSRFTokenExpired: {
		"csrf-token-expired", CSRF, http.StatusForbidden, "The token has expired",
		"The CSRF token is older than csrf.lifetime allows.",
		"Get a new one from GET /.moat/csrf.",
	},

	AuthorizationScopeMissing: {
		"authorization-scope-missing", Authorization, http.StatusForbidden, "The credentials do not reach this far",
		"The caller is known, and lacks a scope that the route asks for.",
		"Give the token or the key the scope, or take it off the route's authorize.",
	},
	AuthorizationRoleMissing: {
		"authorization-role-missing", Authorization, http.StatusForbidden, "The caller may not do this",
		"The caller is known, and has none of the roles that the route asks for.",
		"Give the user the role; or, if the issuer calls roles by another name, set roles_claim.",
	},
	AuthorizationClaimDiffers: {
		"authorization-claim-differs", Authorization, http.StatusForbidden, "The caller may not do this",
		"A claim is missing, or has not the value that the route asks for.",
		"Look at the evidence for the claim.",
	},
	AuthorizationConditionFalse: {
		"authorization-condition-false", Authorization, http.StatusForbidden, "The caller may not do this",
		"The route's condition is not true for this caller and this request: for instance, the object is another user's.",
		"Look at the condition in the evidence.",
	},
	AuthorizationConditionFailed: {
		"authorization-condition-failed", Authorization, http.StatusForbidden, "The caller may not do this",
		"The route's condition could not be evaluated: it names a claim that the caller has not, compares what cannot be compared, or costs too much. What cannot be decided is denied.",
		"Guard the access, as in has(principal.claims.org) && …, or mend the condition.",
	},

	BudgetSettled: {code: "budget-settled", step: Budget, title: "The call is within its budgets"},
	BudgetSpent: {
		"budget-spent", Budget, http.StatusTooManyRequests, "The quota is used up",
		"The visitor, caller or network has used up the budget that the record names, or what is left of it does not cover what the call may cost.",
		"Wait until the budget begins anew, as Retry-After says. If honest visitors meet this, raise its cap.",
	},
	BudgetSpentTogether: {
		"budget-spent-together", Budget, http.StatusTooManyRequests, "The quota of this site is used up",
		"A budget that all share is used up, or what is left of it does not cover what the call may cost.",
		"Wait until the budget begins anew; or raise its cap. Look with moat budget for who used most.",
	},
	BudgetTooManyAtOnce: {
		"budget-too-many-at-once", Budget, http.StatusTooManyRequests, "Too many calls at the same time",
		"The visitor, caller or network has as many calls under way as the budget's at_once allows.",
		"Wait for one of them to end; or raise at_once.",
	},
	BudgetStopped: {
		"budget-stopped", Budget, http.StatusServiceUnavailable, "This service is stopped for the moment",
		"The operator has pulled the kill switch: nothing that costs money is passed on.",
		"Run moat budget resume when it may go on.",
	},
	BudgetUnavailable: {
		"budget-unavailable", Budget, http.StatusServiceUnavailable, "Spending cannot be counted at the moment",
		"The store that holds what has been spent does not answer, or cannot be written. What cannot be counted is not spent.",
		"Mend the store: the record says what is wrong with it.",
	},
	ModelRequestUnreadable: {
		"model-request-unreadable", Budget, http.StatusBadRequest, "The call to the model cannot be read",
		"The body is not one JSON object of the API that the route's model names, so nobody can tell what it would cost.",
		"Send what that API documents, uncompressed.",
	},
	ModelNotAllowed: {
		"model-not-allowed", Budget, http.StatusBadRequest, "This model is not offered here",
		"The call asks for a model that is not among the route's models.",
		"Add the model and its prices to the route's model.models, or ask for another one.",
	},
	ModelTokensTooMany: {
		"model-tokens-too-many", Budget, http.StatusBadRequest, "The call asks for more tokens than are offered here",
		"What the call asks for, in all answers together, exceeds the route's max_tokens, or its input exceeds max_input_tokens.",
		"Ask for fewer, or raise the route's bound.",
	},
	ModelFieldNotAllowed: {
		"model-field-not-allowed", Budget, http.StatusBadRequest, "The call asks for something that is not offered here",
		"The call has a field or a part whose cost nobody here can bound: a tool that the provider runs, media, a file, an earlier conversation, or a field that is not known.",
		"Leave it out; or allow it by name in the route's model settings.",
	},
	ModelUsageEstimated: {
		"model-usage-estimated", Budget, 0, "",
		"The answer of the model broke off before the provider's figures came, or had none. The call was charged with the most that it could have cost.",
		"If clients hang up, nothing. If answers that are whole end so, the provider sends no figures: see the route's model.ask_for_usage.",
	},

	BodyNoRoom: {
		"body-no-room", Body, http.StatusServiceUnavailable, "Too many bodies are being checked at the moment",
		"The bodies that are in memory to be checked, of all requests together, take 128 MiB. Many large ones at once look like this, or slow senders.",
		"Lower body.bytes to what honest bodies need, and limit requests per client; clients may try again.",
	},
	BodyTypeNotAllowed: {
		"body-type-not-allowed", Body, http.StatusUnsupportedMediaType, "The content type is not accepted here",
		"The request's Content-Type is not among those that the route, or its OpenAPI document, declares.",
		"Send a declared content type, with the body that it names; or declare this one.",
	},
	BodyEncoded: {
		"body-encoded", Body, http.StatusUnsupportedMediaType, "A compressed body is not accepted here",
		"The request has a Content-Encoding, and the gate does not decompress what strangers send.",
		"Send the body as it is.",
	},
	BodyMalformed: {
		"body-malformed", Body, http.StatusBadRequest, "The body is malformed",
		"The body is not strict JSON, or not what its content type says: a name that occurs twice, too deep nesting, text behind the end, invalid UTF-8, or more parts than the route allows.",
		"Send one value, each name once, and nothing behind it.",
	},
	BodyInvalid: {
		"body-invalid", Body, http.StatusUnprocessableEntity, "The body is not what this operation accepts",
		"The body is well-formed and contradicts the schema of the route, or of its OpenAPI document, at the place that the record names.",
		"Mend the value at that place; or the schema, if it is right.",
	},
	OperationUnknown: {
		"operation-unknown", Body, http.StatusNotFound, "There is no such operation here",
		"The route's OpenAPI document declares no operation for this path and method.",
		"Mend the URL; or add the operation to the document.",
	},
	ParameterInvalid: {
		"parameter-invalid", Body, http.StatusBadRequest, "A parameter is not what this operation accepts",
		"A parameter of the path, the query, the headers or the cookies is missing, not declared, or contradicts its schema in the route's OpenAPI document.",
		"Mend the parameter that the record names; or the document, if the parameter is right.",
	},
	ResponseInvalid: {
		"response-invalid", Body, 0, "",
		"The upstream's answer contradicts the route's OpenAPI document at the place that the record names. It was passed on: answers are only reported.",
		"Mend the upstream, or the document. An answer that has more than it should may tell callers what they should not know.",
	},

	ScrubForgedHeader: {
		"scrub-forged-header", Scrub, 0, "",
		"The client sent a header that only moat or a trusted proxy may set. It was removed, and the request went on.",
		"Nothing, unless a proxy of yours sets it: then name that proxy in trusted_proxies.",
	},

	EgressNotAllowed: {
		"egress-not-allowed", Egress, http.StatusForbidden, "This address may not be fetched",
		"The URL that the caller wants fetched, or one that it redirects to, has a scheme, host or port that the route does not list, or what it holds has a content type that is not listed.",
		"If it is meant to be fetched, add its host to the route's fetch.hosts, or the type to fetch.content_types.",
	},
	EgressAddressNotAllowed: {
		"egress-address-not-allowed", Egress, http.StatusForbidden, "This address may not be fetched",
		"The host resolves to an address that is not public: private, loopback, link-local, a cloud's metadata service or another special range. A host that changes its addresses to reach inside looks like this.",
		"Nothing on a public host. What is inside belongs behind an upstream of its own.",
	},
	EgressTooLarge: {
		"egress-too-large", Egress, http.StatusBadGateway, "The answer is too large",
		"What was fetched is larger than the route's fetch.max_bytes.",
		"Raise fetch.max_bytes if it is meant to be fetched.",
	},

	CredentialUnavailable: {
		"credential-unavailable", Credential, http.StatusServiceUnavailable, "The service behind the gate cannot be used at the moment",
		"The credential for the upstream could not be got: its token endpoint does not answer, or refuses.",
		"Look at the evidence and at the token endpoint.",
	},
	CredentialEchoed: {
		"credential-echoed", Credential, 0, "",
		"The upstream's answer held the credential that moat had sent it. It was masked.",
		"Find out why the upstream repeats credentials. Whoever sees its answers elsewhere may have it.",
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

	CookieHardened: {
		"cookie-hardened", Cookie, 0, "",
		"The upstream set a cookie with fewer restrictions than the route's cookies ask for. They were added, and the answer went on.",
		"Make the upstream set them itself; or, if the cookie must be as it is, name it in cookies.",
	},
	CookieDropped: {
		"cookie-dropped", Cookie, 0, "",
		"A cookie was removed: the upstream's was too large or malformed, or the client sent one under a name that only the gate's own, hardened cookie may have.",
		"Look at the evidence for its name.",
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
