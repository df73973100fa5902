package browser

// API is what in a page makes the request.
type API string

// The ways in which a page can make a request.
const (
	Fetch        API = "fetch"
	XHR          API = "xhr"
	Form         API = "form"        // a submitted <form>, or form.submit()
	Link         API = "link"        // a followed <a>, or location = …
	Image        API = "img"         // <img>
	Script       API = "script"      // a classic <script>
	ModuleScript API = "module"      // <script type=module>
	Stylesheet   API = "stylesheet"  // <link rel=stylesheet>
	Font         API = "font"        // @font-face
	EventSource  API = "eventsource" // new EventSource()
	Beacon       API = "beacon"      // navigator.sendBeacon()
	Ping         API = "ping"        // <a ping>
	WebSocket    API = "websocket"   // new WebSocket()
	Frame        API = "iframe"      // <iframe>
)

// AddressSpace is where an address is, for Local Network Access
// (https://wicg.github.io/local-network-access/#ip-address-space-section).
type AddressSpace string

// The address spaces, from the widest to the narrowest.
const (
	Public   AddressSpace = "public"
	Local    AddressSpace = "local"    // RFC 1918, link-local, fc00::/7, .local
	Loopback AddressSpace = "loopback" // this machine
)

// Page is the document that makes the request.
type Page struct {
	// URL is the document's; http or https.
	URL string `json:"url"`
	// Ancestors are the URLs of the documents that frame it, nearest first. The last one
	// is the tab's.
	Ancestors []string `json:"ancestors,omitempty"`
	// Sandboxed is set for a frame (or document) that is sandboxed without
	// allow-same-origin: its origin is opaque, "null".
	Sandboxed bool `json:"sandboxed,omitempty"`
	// CSP is its Content-Security-Policy.
	CSP string `json:"csp,omitempty"`
	// COEP is its Cross-Origin-Embedder-Policy: "", "require-corp" or "credentialless".
	COEP string `json:"coep,omitempty"`
	// ReferrerPolicy is the document's; empty is the default,
	// strict-origin-when-cross-origin.
	ReferrerPolicy string `json:"referrer_policy,omitempty"`
}

// Body is what a request carries.
type Body struct {
	// Kind is how script gave it: "text", "urlencoded" (URLSearchParams, or a form of the
	// default enctype), "form-data" (FormData, or multipart), "plain" (a form of
	// text/plain), "blob", "buffer" (ArrayBuffer or view), "stream" (ReadableStream).
	Kind string `json:"kind"`
	// Type is the Blob's type.
	Type string `json:"type,omitempty"`
	Text string `json:"text,omitempty"`
}

// Request is what the page asks for, as it asks for it. Fields that an API does not have
// are ignored for that API.
type Request struct {
	API API `json:"api"`
	// URL may be relative to the page's.
	URL    string `json:"url"`
	Method string `json:"method,omitempty"`
	// Header is what script sets: fetch's headers, or setRequestHeader.
	Header Header `json:"headers,omitempty"`
	Body   *Body  `json:"body,omitempty"`

	// Mode, Credentials, Redirect, Cache and ReferrerPolicy are those of fetch's init;
	// empty is the default. ReferrerPolicy is also the attribute of elements.
	Mode           string `json:"mode,omitempty"`
	Credentials    string `json:"credentials,omitempty"`
	Redirect       string `json:"redirect,omitempty"`
	Cache          string `json:"cache,omitempty"`
	ReferrerPolicy string `json:"referrer_policy,omitempty"`

	// WithCredentials is that of XMLHttpRequest and EventSource.
	WithCredentials bool `json:"with_credentials,omitempty"`
	// UploadListener is set if script listens on xhr.upload.
	UploadListener bool `json:"upload_listener,omitempty"`
	// CrossOrigin is the attribute of <img>, <script>, <link>: "", "anonymous" or
	// "use-credentials".
	CrossOrigin string `json:"crossorigin,omitempty"`
	// UserActivated is set if the user clicked. Navigations only.
	UserActivated bool `json:"user_activated,omitempty"`
}
