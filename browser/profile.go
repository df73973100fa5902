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
}
