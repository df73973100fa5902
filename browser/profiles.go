package browser

import (
	"fmt"
	"time"
)

// ProfileNamed returns "chromium" (also for ""), "firefox" or "standard".
func ProfileNamed(name string) (*Profile, error) {
	switch name {
	case "", "chromium":
		p := chromium
		return &p, nil
	case "firefox":
		p := firefox
		return &p, nil
	case "standard":
		p := standard
		return &p, nil
	}
	return nil, fmt.Errorf("browser profile %.40q is not known; write chromium, firefox or standard", name)
}

var standard = Profile{
	Name: "standard", UnsafeUserAgent: true, RedirectsBreakSameSite: true,
	LaxByDefault: true, LaxAllowUnsafe: 2 * time.Minute, MaxPreflightAge: 24 * time.Hour,
	LocalNetworkAccess: true, UpgradesMixedImages: true,
}

var chromium = Profile{
	Name: "chromium", SafeClientHints: true, WildcardCoversAuthorization: true,
	LaxByDefault: true, LaxAllowUnsafe: 2 * time.Minute, MaxPreflightAge: 2 * time.Hour,
	LocalNetworkAccess: true, UpgradesMixedImages: true, StorageAccessHeader: true, PreflightsForgetRedirects: true,
	LocalPagesReachLoopback: true, PreflightTellsMode: true,
	DowngradeIsByScheme: true, ReferrerNeverGrows: true, OnlyNavigationsHideOrigin: true, ElementsTellOrigin: true, StreamsAreCORS: true, CacheModeCoversPreflights: true, RedirectsHideOrigin: true,
}

var firefox = Profile{
	Name: "firefox", UnsafeUserAgent: true, WildcardCoversAuthorization: true, MaxPreflightAge: 24 * time.Hour,
	RedirectsBreakSameSite: true, PartitionsThirdPartyCookies: true, SitesIgnoreScheme: true,
	SandboxedPagesTellReferrer: true, SandboxedPagesAreThirdParty: true,
	StorageAccessHeader: true, PreflightsTellStorageAccess: true, WebSocketsTellMetadata: true,
	DowngradeIsByScheme: true, ReferrerNeverGrows: true, CrossSiteReferrerIsOrigin: true,
	FetchHeadersStayApart: true, SafeValuesAreUnlimited: true, StreamsAreText: true, ListenersForcePreflight: true,
	PreflightsTellPage: true, PreflightsForgetRedirects: true, RedirectsRepeatPreflight: true,
	ChecksRedirectedPreflights: true, MethodsAreJudgedFirst: true, NarrowPermits: true,
	CacheKeepsApart: true, CacheKeepsWithheld: true, CacheModeCoversPreflights: true, FewStatusesCached: true, OnlyCORSMindsCredentials: true,
	UpgradesMixedImages: true, UpgradesAreRedirects: true, LocalPagesMixImages: true, FormsAreConfirmed: true,
	NoPings: true, ORBParses: true, MistypedStylesheetsFail: true, BlocksTell: true,
}
