package browser

// Departure is a place where a browser does not do what the standard says.
type Departure struct {
	// Field is the Profile's field that it is about.
	Field string
	// Browsers are the profiles that depart.
	Browsers []string
	// Standard and Browser say what each does.
	Standard, Browser string
	// Source tells where the browser's part is known from. "measured" is by
	// make verify-browser, or where it says Firefox by its test there.
	Source string
}

// Departures are all of them. A test holds the list against the profiles: whatever a
// profile does otherwise than the standard's is here, and nothing else.
var Departures = []Departure{
	{
		"UnsafeUserAgent",
		[]string{"chromium"},
		"a User-Agent that script sets is a CORS-unsafe request-header (https://fetch.spec.whatwg.org/#cors-safelisted-request-header)",
		"it asks for no permission",
		"measured",
	},
	{
		"SafeClientHints",
		[]string{"chromium"},
		"client hints are CORS-unsafe request-headers",
		"Device-Memory, DPR, Width, Viewport-Width, RTT, Downlink with a number, and Save-Data: on, ask for no permission",
		"measured; https://wicg.github.io/client-hints-infrastructure/#cors-safelisted-request-header",
	},
	{
		"WildcardCoversAuthorization",
		[]string{"chromium"},
		"Access-Control-Allow-Headers: * does not cover Authorization (https://fetch.spec.whatwg.org/#cors-non-wildcard-request-header-name)",
		"it does, with a warning in the console",
		"measured",
	},
	{
		"RedirectsBreakSameSite",
		[]string{"chromium", "firefox"},
		"a redirect through another site makes a request cross-site for SameSite cookies (RFC 6265bis section 5.2)",
		"only the page and the URL that is asked now count",
		"measured",
	},
	{
		"MaxPreflightAge",
		[]string{"chromium"},
		"Access-Control-Max-Age has no cap; the model takes Firefox's 24 hours",
		"two hours are the most",
		"https://developer.mozilla.org/docs/Web/HTTP/Reference/Headers/Access-Control-Max-Age",
	},
	{
		"LocalPagesReachLoopback",
		[]string{"chromium"},
		"a page of the local network needs the user's permission to ask for this machine (https://wicg.github.io/local-network-access/)",
		"only pages of the public network do",
		"measured",
	},
	{
		"PreflightTellsMode",
		[]string{"chromium"},
		"Sec-Fetch headers only go to potentially trustworthy URLs (https://w3c.github.io/webappsec-fetch-metadata/)",
		"a preflight says Sec-Fetch-Mode: cors to any",
		"measured",
	},
	{
		"PreflightsForgetRedirects",
		[]string{"chromium"},
		"a preflight has the URL list of its request, so that its Sec-Fetch-Site remembers the hops before",
		"it looks at its own URL only",
		"measured",
	},
	{
		"StorageAccessHeader",
		[]string{"chromium"},
		"Sec-Fetch-Storage-Access is a draft (https://privacycg.github.io/storage-access-headers/)",
		"credentialed requests from another site's page carry it",
		"measured",
	},
	{
		"DowngradeIsByScheme",
		[]string{"chromium"},
		"a referrer is withheld on the way from a potentially trustworthy URL to one that is not (https://w3c.github.io/webappsec-referrer-policy/)",
		"on the way from https to http, also to this machine; and not from http on this machine",
		"measured",
	},
	{
		"ReferrerNeverGrows",
		[]string{"chromium"},
		"the referrer is determined anew for each hop",
		"what an earlier hop was not told, no later one is",
		"measured",
	},
	{
		"OnlyNavigationsHideOrigin",
		[]string{"chromium"},
		"the referrer policy turns Origin into null on requests that are not CORS (https://fetch.spec.whatwg.org/#append-a-request-origin-header)",
		"on navigations, such as forms, alone, and only by the policy with which they began",
		"measured",
	},
	{
		"RedirectsHideOrigin",
		[]string{"chromium"},
		"Origin becomes null when a redirect leads from an origin that is not the page's to a third",
		"without CORS it does for any redirect to another origin, also from the page's own",
		"measured",
	},
	{
		"ElementsTellOrigin",
		[]string{"chromium"},
		"a GET to the page's own origin has no Origin header",
		"one that an element makes by CORS (crossorigin, type=module, a font) has",
		"measured",
	},
	{
		"StreamsAreCORS",
		[]string{"chromium"},
		"mode same-origin never leaves the origin",
		"with a stream as body it is taken for cors",
		"measured",
	},
	{
		"CacheModeCoversPreflights",
		[]string{"chromium"},
		"the cache mode says nothing about the preflight cache",
		"a request that asks for a fresh answer (no-store, reload, no-cache, or If-None-Match and the like) asks for permission anew",
		"measured",
	},
	{
		"LaxByDefault",
		[]string{"firefox"},
		"a cookie without SameSite counts as Lax (RFC 6265bis section 5.7)",
		"it counts as None",
		"measured; the preference network.cookie.sameSite.laxByDefault",
	},
	{
		"LaxAllowUnsafe",
		[]string{"firefox"},
		"such a cookie travels with a top-level POST for two minutes",
		"it always travels",
		"as LaxByDefault",
	},
	{
		"PartitionsThirdPartyCookies",
		[]string{"firefox"},
		"third-party cookies are shared among the tabs of all sites",
		"each tab's site has its own (Total Cookie Protection)",
		"measured; the preference network.cookie.cookieBehavior",
	},
	{
		"LocalNetworkAccess",
		[]string{"firefox"},
		"a page of the public network needs a permission to ask for a narrower one",
		"not modelled",
		"the preference network.lna.enabled differs between channels",
	},
}
