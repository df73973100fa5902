package config

import (
	"net/netip"
	"time"

	"github.com/moat-gateway/moat/guard"
	"github.com/moat-gateway/moat/guard/ratelimit"
)

// The structs below are the format of moat.yaml. Their tags are read by fields.go:
//
//	yaml:"name,required"   the field must be there
//	yaml:"name,short"      a scalar in place of the block stands for this field
//	yaml:"name,single"     one item may stand in place of the list
//	yaml:",inline"         the fields of this struct are fields of the block itself
//	default:"a b"          what holds where nothing is written; a list's items by blanks
//	enum:"a b"             the words that are accepted
//	or:"a"                 a word that is accepted beside the values of the type
//	range:"1s 24h"         the least and the greatest value
//	keys:"regexp"          what the names in a map look like
//	missing:"text"         what to do about a required field that is missing
//
// Their doc comments are the text of docs/config.md and of the JSON Schema.

// file is moat.yaml.
type file struct {
	// The version of this format.
	Version int `yaml:"version,required" enum:"1" missing:"write version: 1"`
	// Where clients connect: an address, or a list of addresses and blocks.
	Listen []listener `yaml:"listen,single" default:"127.0.0.1:8080"`
	// Where the operator connects: an address, a block, or `off`.
	Admin admin `yaml:"admin"`
	// The origins under which clients know the gate: what stands in the address bar
	// when a page is same-origin with the API. Requests for any other host are refused.
	PublicOrigins []string `yaml:"public_origins,required" missing:"list the origins under which clients know the gate, such as https://api.example.com"`
	// Accepts `http:` public origins of other machines. It is hardly ever needed: behind
	// a proxy that ends TLS the public origin is `https:` all the same.
	InsecurePublicOrigins bool `yaml:"dangerously_allow_insecure_public_origins" default:"false"`
	// The proxies in front of moat. Without this block nobody's forwarding headers are believed.
	TrustedProxies trustedProxies `yaml:"trusted_proxies"`
	// Bounds of a connection.
	Limits connectionLimits `yaml:"limits"`
	// How the gate stops.
	Shutdown shutdown `yaml:"shutdown"`
	// What only a developer's own machine may have.
	Development development `yaml:"development"`
	// The backends, by name.
	Upstreams map[string]upstream `yaml:"upstreams,required" keys:"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$" missing:"name at least one backend"`
	// Where the gate remembers what it has counted.
	Store store `yaml:"store"`
	// How much clients may ask for, by name. Policies and routes name the limits that hold
	// for them; whoever names the same limit shares it.
	RateLimits map[string]rateLimit `yaml:"rate_limits" keys:"^[A-Za-z0-9_][A-Za-z0-9_-]{0,63}$"`
	// What pages may do, by name. A route names the policy that it follows.
	Policies map[string]policy `yaml:"policies" keys:"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$"`
	// What is served. Whatever no route matches is refused.
	Routes []route `yaml:"routes,required" missing:"declare what is served; everything else is refused"`
	// Requests, and what the gate must decide about them. `moat check` runs them.
	Tests []Test `yaml:"tests"`
}

// listener is one address that clients connect to.
type listener struct {
	// `host:port`. An empty host stands for every interface.
	Address address `yaml:"address,required,short"`
	// Makes every connection a TLS one. Without it the listener speaks plain HTTP.
	TLS keyPair `yaml:"tls"`
	// The load balancers that begin each connection with a PROXY protocol header.
	// Connections from elsewhere are closed.
	ProxyProtocol []netip.Prefix `yaml:"proxy_protocol"`
}

// keyPair names the files of a certificate and its key, in PEM. A path counts from the
// configuration file. A reload reads them again.
type keyPair struct {
	// The certificate, followed by its intermediates.
	Certificate string `yaml:"certificate,required"`
	// The private key.
	Key string `yaml:"key,required"`
}

// admin is the operator's listener: health, metrics and recent decisions. It asks
// nobody for a password.
type admin struct {
	// `host:port` on this machine, or `off`.
	Address address `yaml:"address,short" default:"127.0.0.1:9090" or:"off"`
	// Accepts an address that other machines can reach. Whoever reaches it reads everything.
	NonLoopback bool `yaml:"dangerously_allow_non_loopback" default:"false"`
}

// trustedProxies are the proxies whose word on the client's address is believed.
type trustedProxies struct {
	// The address ranges from which they connect.
	From []netip.Prefix `yaml:"from,required"`
	// The header to which they append the address of their peer. The other one is not believed.
	Header string `yaml:"header,required" enum:"X-Forwarded-For Forwarded"`
	// Whether they set X-Forwarded-Host on every request, and so may speak for the client's Host. A proxy that does not passes on what the client wrote there. With Forwarded, the proxy's own element is believed anyway.
	Host bool `yaml:"host" default:"false"`
	// What becomes of a request whose client cannot be told from that header.
	Mode guard.Mode `yaml:"mode" default:"enforce" enum:"enforce report off"`
}

// connectionLimits bound what a client can make moat hold, and for how long.
type connectionLimits struct {
	// The largest head of a request: request line and headers.
	HeaderBytes size `yaml:"header_bytes" default:"32KiB" range:"1KiB 1MiB"`
	// From a connection's first byte to a whole head.
	HeaderTimeout time.Duration `yaml:"header_timeout" default:"10s"`
	// How long a connection may wait for its next request.
	Idle time.Duration `yaml:"idle" default:"60s"`
	// How long a client may go without taking a byte of its answer.
	WriteIdle time.Duration `yaml:"write_idle" default:"30s"`
}

// shutdown is how the gate stops.
type shutdown struct {
	// The time between telling load balancers, by /readyz, and accepting no more connections.
	Delay time.Duration `yaml:"delay" default:"0s" range:"0s 24h"`
	// How long requests under way may take.
	Grace time.Duration `yaml:"grace" default:"30s"`
}

// development is what only a developer's own machine may have.
type development struct {
	// Accepts `http://localhost:*` in lists of origins. It is refused while any
	// listener can be reached from other machines.
	AnyLocalhostPort bool `yaml:"dangerously_allow_any_localhost_port" default:"false"`
}

// upstream is a backend.
type upstream struct {
	// `http://`, `https://` or `h2c://` (HTTP/2 without TLS), a host, and a path, if one
	// is to be put before each request's.
	URL string `yaml:"url,required"`
	// Sends the client's Host instead of the URL's.
	PreserveHost bool `yaml:"preserve_host" default:"false"`
	// Headers that moat sets on each request. Clients cannot send them. The values are
	// secret, so each must come from a reference.
	Headers map[string]Secret `yaml:"headers" keys:"^[!#$%&'*+.^_|~0-9A-Za-z-]+$"`
	// Bounds connecting, TLS included.
	DialTimeout time.Duration `yaml:"dial_timeout" default:"5s"`
	// Bounds the wait for the head of the answer.
	ResponseTimeout time.Duration `yaml:"response_timeout" default:"60s"`
}

// store is where the gate remembers what it has counted.
type store struct {
	// How much memory the table of this process takes: 16 bytes for each address or network
	// that has debts. It never grows. When it is too small those are forgotten first who
	// came only once, and those last who go on being refused.
	Memory size `yaml:"memory" default:"16MiB" range:"64KiB 16GiB"`
	// The Valkey or Redis that processes share their rate limits through. Without it each
	// process counts alone. While it does not answer each counts alone too, its share.
	Valkey valkeyStore `yaml:"valkey"`
}

// valkeyStore is a Valkey or Redis, as processes reach it.
type valkeyStore struct {
	// `host:port` of the server; of the Sentinels; or of some nodes of the cluster.
	Addresses []address `yaml:"addresses,required,short,single"`
	// How the servers stand together.
	Mode string `yaml:"mode" default:"standalone" enum:"standalone sentinel cluster"`
	// The name that the Sentinels have for the primary.
	Master string `yaml:"master"`
	// The ACL user. Without one the password is that of the user `default`.
	Username string `yaml:"username"`
	// Its password: a reference.
	Password Secret `yaml:"password"`
	// The user for the Sentinels themselves.
	SentinelUsername string `yaml:"sentinel_username"`
	// Its password: a reference.
	SentinelPassword Secret `yaml:"sentinel_password"`
	// The number of the database. A cluster has only 0.
	Database int `yaml:"database" default:"0" range:"0 1000000"`
	// Speaks TLS, and checks the server's certificate.
	TLS valkeyTLS `yaml:"tls"`
	// What the names of all keys begin with. Gates that share their limits have the same.
	Prefix string `yaml:"prefix" default:"moat"`
	// How long a request may wait for the server.
	Timeout time.Duration `yaml:"timeout" default:"25ms" range:"5ms 1s"`
}

// valkeyTLS is how the server's certificate is checked. Paths count from the
// configuration file.
type valkeyTLS struct {
	// Whether TLS is spoken.
	Enabled bool `yaml:"enabled,short" default:"false"`
	// The certificates of the authorities that are trusted, in PEM, in the place of the system's.
	CA string `yaml:"ca"`
	// The name that the certificate must have. Without it that is the address's.
	ServerName string `yaml:"server_name"`
	// The client's own certificate, in PEM, if the server asks for one.
	Certificate string `yaml:"certificate"`
	// The key of the client's certificate.
	Key string `yaml:"key"`
}

// rateLimit bounds how much is asked for. A text in its place is the limit.
type rateLimit struct {
	// Requests per time, such as `60/m`, `60/m burst 20` or `5/10s`. The units are s, m, h
	// and d. The burst is how many may come at once; without one, all of them may.
	Limit ratelimit.Limit `yaml:"limit,short"`
	// How many requests may be under way at the same time; networks around an address may
	// have more. Each process counts its own.
	AtOnce int `yaml:"at_once" range:"1 1000000"`
	// Who is counted together: requests that agree in all of these. `address` is the
	// client's address and the networks around it. `new_address` counts clients that were
	// not here in the last ten minutes, once each. An empty list counts everybody together.
	By []string `yaml:"by,single" default:"address" enum:"address route method new_address"`
	// The networks around an address have more, for all of their clients together.
	Wider wider `yaml:"wider"`
	// Other limits for some addresses. The first that fits counts.
	Tiers []tier `yaml:"tiers"`
	// With a shared store: for how many requests a process takes room at once, to admit
	// them without asking again. It makes nearly all decisions local, and each process may
	// admit that many beyond the limit. 0 asks for each request.
	Lease int `yaml:"lease" default:"0" range:"0 1000000"`
}

// wider says how many times the limit the networks around an address have. A network that
// is off is not counted.
type wider struct {
	// An IPv4 /24: 256 addresses.
	IPv4Net24 factor `yaml:"ipv4_24" default:"16" or:"off"`
	// An IPv6 /56, which a household may have. A single IPv6 client is a /64.
	IPv6Net56 factor `yaml:"ipv6_56" default:"4" or:"off"`
	// An IPv6 /48, which some providers give to each customer.
	IPv6Net48 factor `yaml:"ipv6_48" default:"16" or:"off"`
}

// tier is another limit for some addresses.
type tier struct {
	// The address ranges.
	For []netip.Prefix `yaml:"for,required,single"`
	// Takes them out of the limit.
	Exempt bool `yaml:"exempt" default:"false"`
	// Their own limit. Without one they have that of all.
	Limit ratelimit.Limit `yaml:"limit"`
	// Their own number at the same time. Without one they have that of all.
	AtOnce int `yaml:"at_once" range:"1 1000000"`
}

// cost is what a request takes from the rate limits that hold for it.
type cost struct {
	// A request that passes.
	Request int `yaml:"request,short" default:"1" range:"0 1000000"`
	// A request that another guard refuses, such as one across sites. It takes what room
	// there is, and is refused all the same.
	Refused int `yaml:"refused" default:"0" range:"0 1000000"`
	// A preflight that the gate answers. It takes what room there is, and is answered all the same.
	Preflight int `yaml:"preflight" default:"0" range:"0 1000000"`
}

// policy says which pages may call, and what a request may be like.
type policy struct {
	// The pages that may call: `https://app.example.com`, `https://*.example.com` for
	// every subdomain, `https://app.example.com:*` for every port, or `*` alone. They
	// count for CORS, for requests across sites and for WebSockets alike.
	Origins []string `yaml:"origins"`
	// The methods that are allowed. A method in `match` narrows them.
	Methods []string `yaml:"methods" default:"GET HEAD POST PUT PATCH DELETE"`
	// Requests with neither Origin nor Sec-Fetch-Site: curl, webhooks, mobile apps.
	// This keeps honest tools out, not forgers.
	Browserless string `yaml:"browserless" default:"deny" enum:"allow deny"`
	// State changes by pages of the same site: sibling subdomains and other ports.
	SameSite string `yaml:"same_site" default:"deny" enum:"allow deny"`
	// Loading by other sites without CORS, as images, scripts and stylesheets.
	Embed string `yaml:"embed" default:"deny" enum:"allow deny"`
	// Declares that even GET changes state here, so it is guarded as POST is.
	SideEffects bool `yaml:"side_effects" default:"false"`
	// `%2F`, `%5C` and backslashes in paths.
	EncodedSlash string `yaml:"encoded_slash" default:"deny" enum:"allow deny"`
	// X-HTTP-Method-Override and its like.
	MethodOverride string `yaml:"method_override" default:"deny" enum:"allow deny"`
	// What the listed pages may send and read.
	CORS corsPolicy `yaml:"cors"`
	// Bounds of a body.
	Limits bodyLimits `yaml:"limits"`
	// The names of the rate limits that hold, all at once: a request that one of them
	// refuses costs the others nothing.
	RateLimits []string `yaml:"rate_limits,single"`
	// What a request costs. A number in its place is the cost of one that passes.
	Cost cost `yaml:"cost"`
	// What holds while the shared store does not answer. Local: each process counts alone,
	// and admits its share. Allow admits everything, deny nothing.
	StoreDown string `yaml:"store_down" default:"local" enum:"local allow deny"`
	// Changes to the set of headers that clients may not send.
	Scrub scrubPolicy `yaml:"scrub"`
	// Whether each guard's decision is carried out (enforce), only recorded (report), or not made (off).
	Modes modes `yaml:"modes"`
	// Accepts patterns such as `https://*.github.io`, which cover the pages of anybody
	// who registers there.
	PublicSuffix bool `yaml:"dangerously_allow_public_suffix" default:"false"`
	// Accepts `http:` origins of other machines. Whoever is on the network path can
	// speak for them.
	InsecureOrigins bool `yaml:"dangerously_allow_insecure_origins" default:"false"`
}

// corsPolicy is what the listed pages may send and read.
type corsPolicy struct {
	// Lets pages send cookies and read the answer. It cannot go with the origin `*`.
	Credentials bool `yaml:"credentials" default:"false"`
	// The request headers that script may set beyond the safelisted ones. `*` stands
	// for all but Authorization, and cannot go with credentials.
	RequestHeaders []string `yaml:"request_headers" default:"authorization content-type"`
	// The response headers that script may read beyond the safelisted ones. `*` stands
	// for all, and cannot go with credentials.
	ExposedHeaders []string `yaml:"exposed_headers"`
	// For how long a browser may remember a preflight: Chromium for at most 2h, others
	// for at most 24h. 0s forbids remembering.
	MaxAge time.Duration `yaml:"max_age" default:"2h" range:"0s 24h"`
	// Whether the upstream's own Access-Control-* headers are removed from its answers.
	UpstreamHeaders string `yaml:"upstream_headers" default:"strip" enum:"strip pass"`
}

// bodyLimits bound the body of a request.
type bodyLimits struct {
	// The largest body. 0 allows none.
	BodyBytes size `yaml:"body_bytes" default:"10MiB" or:"unlimited"`
	// The longest pause between two parts of the body.
	BodyIdle time.Duration `yaml:"body_idle" default:"30s"`
}

// scrubPolicy changes the set of headers that clients may not send, because upstreams
// believe them.
type scrubPolicy struct {
	// Names to remove too. A `*` at the end stands for any rest.
	Also []string `yaml:"also"`
	// Names to let through.
	Pass []string `yaml:"pass"`
}

// modes are how the guards act. The mode of the client address, which is told before
// there is a route, is trusted_proxies.mode.
type modes struct {
	// Removing headers that clients may not send.
	Scrub guard.Mode `yaml:"scrub" default:"enforce" enum:"enforce report off"`
	// Pages of origins that are not listed, and preflights.
	CORS guard.Mode `yaml:"cors" default:"enforce" enum:"enforce report off"`
	// Methods, method override, and the size and speed of bodies.
	Bounds guard.Mode `yaml:"bounds" default:"enforce" enum:"enforce report off"`
	// State changes, embedding and WebSockets by other sites, and browserless clients.
	CrossSite guard.Mode `yaml:"cross_site" default:"enforce" enum:"enforce report off"`
	// Requests beyond the rate limits.
	RateLimit guard.Mode `yaml:"rate_limit" default:"enforce" enum:"enforce report off"`
}

// route is what is served, to whom, and from where. Any field of a policy may stand here
// too: it counts before the policy's, field by field; a list replaces the policy's list.
type route struct {
	// A pattern of Go's net/http.ServeMux: `[METHOD ][HOST]/PATH`, with `{name}` for one
	// segment, `{name...}` or a slash at the end for all that follow, and `{$}` for the
	// end. The most specific pattern wins. GET includes HEAD.
	Match string `yaml:"match,required"`
	// The route's label in logs and metrics. Without it that is the pattern.
	Name string `yaml:"name"`
	// The name of the upstream that answers.
	Upstream string `yaml:"upstream,required"`
	// Who may call. Public: anybody whom the policy lets through.
	Auth string `yaml:"auth,required" enum:"public" missing:"nobody publishes a route by leaving a line out; write auth: public if anybody may call it"`
	// The name of the policy to follow. Without it the defaults of a policy hold, which
	// let only same-origin pages call.
	Policy string `yaml:"policy"`

	Override policy `yaml:",inline"`
}

// inherit puts the route's policy in place, before the route's own fields go on top.
func (r *route) inherit(f *file) {
	if p, ok := f.Policies[r.Policy]; ok {
		r.Override = p
	}
}

// Test is a request, and what the gate must decide about it.
type Test struct {
	// What the test shows.
	Name string `yaml:"name,required"`
	// The request.
	Request TestRequest `yaml:"request,required"`
	// `allow`, or the code of the reason for which it must be refused, such as
	// `cors-origin-not-allowed`. The code `cors-preflight-approved` is that of a preflight
	// that the gate answers.
	Expect string `yaml:"expect,required" missing:"write allow, or the code of a reason"`
	// The name of the route that must match.
	Route string `yaml:"route"`

	at Fault // where it stands
}

// TestRequest is a request as a client sends it.
type TestRequest struct {
	// The method.
	Method string `yaml:"method" default:"GET"`
	// The URL as the client has it: `https://api.example.com/v1/7`.
	URL string `yaml:"url,required"`
	// Header fields. Host stands for the URL's host, and Content-Length for a body.
	Headers map[string]string `yaml:"headers" keys:"^[!#$%&'*+.^_|~0-9A-Za-z-]+$"`
	// The address from which the connection comes.
	From netip.Addr `yaml:"from" default:"127.0.0.1"`
}
