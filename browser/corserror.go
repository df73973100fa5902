package browser

// CORSError is Chromium's name of a failure
// (https://chromedevtools.github.io/devtools-protocol/tot/Network/#type-CorsError).
type CORSError string

// Those that Chromium can report. InvalidResponse, PreflightMissingAllowExternal,
// PreflightInvalidAllowExternal and InvalidLocalNetworkAccess are left in its protocol but
// nothing raises them any more.
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
	NoCorsRedirectModeNotFollow          CORSError = "NoCorsRedirectModeNotFollow"
)
