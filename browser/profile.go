package browser

import "time"

// Profile is the browser whose behaviour is modelled: the standard's, or where it departs
// from it. The fields are the departures; Departures says where each comes from.
type Profile struct {
	Name string

	// UnsafeUserAgent: a User-Agent set by script is a CORS-unsafe request-header.
	UnsafeUserAgent bool
	// SafeClientHints: DPR, Width, Viewport-Width and Save-Data are safe whatever their value.
	SafeClientHints bool
	// WildcardCoversAuthorization: Access-Control-Allow-Headers: * allows Authorization.
	WildcardCoversAuthorization bool
	// RedirectsBreakSameSite: a redirect through another site makes a request cross-site
	// for SameSite cookies.
	RedirectsBreakSameSite bool
	// LaxByDefault: a cookie without SameSite is taken for Lax.
	LaxByDefault bool
	// LaxAllowUnsafe is how long such a cookie still goes with a top-level POST.
	LaxAllowUnsafe time.Duration
	// MaxPreflightAge caps Access-Control-Max-Age.
	MaxPreflightAge time.Duration
	// LocalNetworkAccess: requests to narrower address spaces need a permission.
	LocalNetworkAccess bool
	// LocalPagesReachLoopback: only pages of the public network need the permission.
	LocalPagesReachLoopback bool
	// PreflightTellsMode: preflights carry Sec-Fetch-Mode also to URLs that are not
	// trustworthy.
	PreflightTellsMode bool
	// DowngradeIsByScheme: for the referrer, a step down is one from https to http, even
	// to this machine, and one from http on this machine is none.
	DowngradeIsByScheme bool
	// ReferrerNeverGrows: after a redirect no more is told than was told before it.
	ReferrerNeverGrows bool
	// OnlyNavigationsHideOrigin: the referrer policy turns the Origin header of forms into
	// null, and not that of other requests without CORS; and only as it was at first.
	OnlyNavigationsHideOrigin bool
	// RedirectsHideOrigin: a request without CORS that was redirected to another origin
	// has the Origin null, also when the redirect came from the page's own.
	RedirectsHideOrigin bool
	// CacheModeCoversPreflights: a request that asks for a fresh answer is not allowed by a
	// remembered preflight either.
	CacheModeCoversPreflights bool
	// StreamsAreCORS: a stream as body turns mode same-origin into cors.
	StreamsAreCORS bool
	// ElementsTellOrigin: elements that ask by CORS send Origin also to the page's own.
	ElementsTellOrigin bool
	// PartitionsThirdPartyCookies: what a site sets in another site's tab is kept for that
	// tab's site only.
	PartitionsThirdPartyCookies bool
	// UpgradesMixedImages: http images of a secure page are asked for over https.
	UpgradesMixedImages bool
	// PreflightsForgetRedirects: the Sec-Fetch-Site of a preflight looks at its own URL only.
	PreflightsForgetRedirects bool
	// StorageAccessHeader: credentialed requests to other sites carry
	// Sec-Fetch-Storage-Access; and Origin, if that is "inactive".
	StorageAccessHeader bool
	// PreflightsTellStorageAccess: so do their preflights.
	PreflightsTellStorageAccess bool
	// WebSocketsTellMetadata: WebSockets carry the Sec-Fetch headers.
	WebSocketsTellMetadata bool
	// CrossSiteReferrerIsOrigin: no referrer policy tells another site, unless by a
	// navigation of the tab, more than the page's origin.
	CrossSiteReferrerIsOrigin bool
	// SandboxedPagesTellReferrer: what a sandboxed document asks for by other means than
	// fetch and XMLHttpRequest carries Referer, with its origin.
	SandboxedPagesTellReferrer bool
	// SandboxedPagesAreThirdParty: what a sandboxed document asks for is a third party's to
	// cookies, even of the tab's site.
	SandboxedPagesAreThirdParty bool
	// SitesIgnoreScheme: http and https of one host are one site to cookies and, where both
	// are trustworthy, to Sec-Fetch-Site.
	SitesIgnoreScheme bool
	// FetchHeadersStayApart: values of one name that script gave to fetch are judged one by
	// one, and a name that stands there twice is asked for twice.
	FetchHeadersStayApart bool
	// SafeValuesAreUnlimited: there is no bound on all safelisted values together.
	SafeValuesAreUnlimited bool
	// StreamsAreText: fetch knows no stream as body and takes it for text.
	StreamsAreText bool
	// ListenersForcePreflight: a listener on xhr.upload needs a preflight also if there is
	// no body.
	ListenersForcePreflight bool
	// PreflightsTellPage: a preflight carries the page's origin, and is held against it,
	// also where redirects make the request's own "null"; one to the page's own origin is
	// not held against it.
	PreflightsTellPage bool
	// RedirectsRepeatPreflight: what had a preflight, or has unsafe headers from the start,
	// has one after each redirect, even if it became a GET without them.
	RedirectsRepeatPreflight bool
	// ChecksRedirectedPreflights: a preflight that is answered with a redirect is held
	// against the CORS check first.
	ChecksRedirectedPreflights bool
	// MethodsAreJudgedFirst: the method is held against Access-Control-Allow-Methods before
	// Access-Control-Allow-Headers is parsed.
	MethodsAreJudgedFirst bool
	// NarrowPermits: a remembered preflight only covers what its answer names, not what "*"
	// allowed, and only requests of the same credentials mode; it is forgotten when a
	// request fails the CORS check. None is remembered that came after a redirect from
	// another origin, or has an Access-Control-Max-Age that is no number. But they are for
	// sandboxed documents, too.
	NarrowPermits bool
	// CacheKeepsApart: the HTTP cache does not answer requests with another Origin, or with
	// credentials where there were none, or the other way round.
	CacheKeepsApart bool
	// CacheKeepsWithheld: the HTTP cache also keeps answers that fail the CORS check.
	CacheKeepsWithheld bool
	// FewStatusesCached: the HTTP cache uses no errors but 410, and redirects only if they
	// say themselves how long.
	FewStatusesCached bool
	// OnlyCORSMindsCredentials: only requests under CORS refuse redirects to URLs that hold
	// credentials.
	OnlyCORSMindsCredentials bool
	// UpgradesAreRedirects: a redirect to an http image that is asked for over https instead
	// counts as one to another origin.
	UpgradesAreRedirects bool
	// LocalPagesMixImages: a page on this machine lets redirected images come over http.
	LocalPagesMixImages bool
	// FormsAreConfirmed: the browser asks the user, who is taken to refuse, before it sends
	// a form from a secure page, also one of this machine, over http; but not at redirects.
	FormsAreConfirmed bool
	// NoPings: <a ping> sends nothing.
	NoPings bool
	// ORBParses: opaque response blocking leaves out what has a type of JavaScript, and of
	// the rest what is JSON does not pass.
	ORBParses bool
	// MistypedStylesheetsFail: a stylesheet of a wrong type has an error event.
	MistypedStylesheetsFail bool
	// BlocksTell: script learns of what CSP blocks, from frames' error events, sendBeacon's
	// false and a WebSocket constructor that throws; and of frames that mixed content blocks.
	BlocksTell bool
}
