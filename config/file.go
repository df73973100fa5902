package config

import (
	"net/netip"
	"time"

	"github.com/moat-gateway/moat/guard"
	"github.com/moat-gateway/moat/guard/identity"
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
//	block:"text"           what to write where something else stands than the block
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
	// The language models that routes may offer, by the names that calls have for them, and what they cost.
	Models map[string]modelPrices `yaml:"models" keys:"^[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,127}$"`
	// How much visitors, callers, networks and the whole site may spend in an hour, a day or a month, by name. Policies
	// and routes name the budgets that hold for them; whoever names the same budget shares it.
	Budgets map[string]budgetRule `yaml:"budgets" keys:"^[A-Za-z0-9_][A-Za-z0-9_-]{0,63}$"`
	// Short-lived proofs that pages bring along, for routes that ask for them.
	Tickets tickets `yaml:"tickets"`
	// The ways in which callers say who they are, by name. Routes name those that they accept.
	Auth map[string]auth `yaml:"auth" keys:"^[a-z0-9][a-z0-9_-]{0,63}$"`
	// Tokens against cross-site request forgery, where cookies say who calls.
	CSRF csrfTokens `yaml:"csrf"`
	// What moat signs tokens to upstreams with: references to private keys in PEM, P-256 or
	// Ed25519, the newest first. The public ones are at /.moat/jwks.json. Without any each
	// process makes one up when it starts.
	IdentityKeys []Secret `yaml:"identity_keys,single"`
	// What pages may do, by name. A route names the policy that it follows.
	Policies map[string]policy `yaml:"policies" keys:"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$"`
	// What becomes of clients that look like programs.
	Bots bots `yaml:"bots" block:"write bots: {} to take all its defaults, or a block with the fields that differ, such as deny"`
	// Who is told, by webhook, when something needs a person.
	Alerts alerts `yaml:"alerts"`
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
	// Headers that moat sets on each request, such as a proof that it comes from moat.
	// Clients cannot send them. The values are secret, so each must come from a reference.
	Headers map[string]Secret `yaml:"headers" keys:"^[!#$%&'*+.^_|~0-9A-Za-z-]+$"`
	// The credential that moat puts into each request, in the place of the caller's.
	Credential upstreamCredential `yaml:"credential"`
	// What moat tells the upstream about the caller, once it knows who that is.
	Identity upstreamIdentity `yaml:"identity"`
	// Passes answers without looking for secrets in them, so that they may be compressed and
	// asked for in ranges. An upstream that repeats what moat sends it tells callers the secret.
	AllowEcho bool `yaml:"dangerously_allow_echo" default:"false"`
	// Bounds connecting, TLS included.
	DialTimeout time.Duration `yaml:"dial_timeout" default:"5s"`
	// Bounds the wait for the head of the answer.
	ResponseTimeout time.Duration `yaml:"response_timeout" default:"60s"`
}

// upstreamCredential is what moat puts into each request to the upstream, in the place of
// the caller's Authorization and cookies. Each secret is a reference, and has 8 bytes or more. Where an answer
// repeats one it is masked.
type upstreamCredential struct {
	// A bearer token or API key: `Authorization: Bearer …`.
	Bearer Secret `yaml:"bearer"`
	// A name and a password: `Authorization: Basic …`.
	Basic basicCredential `yaml:"basic"`
	// A token that is fetched, and renewed before it expires: the client credentials grant
	// of OAuth 2.0.
	OAuth oauthCredential `yaml:"oauth"`
	// Headers, such as `X-Api-Key`.
	Headers map[string]Secret `yaml:"headers" keys:"^[!#$%&'*+.^_|~0-9A-Za-z-]+$"`
	// Parameters of the query, such as `key`. Callers' parameters of that name are removed.
	Query map[string]Secret `yaml:"query" keys:"^[A-Za-z0-9._~-]{1,64}$"`
}

// upstreamIdentity is what moat tells the upstream about the caller. A caller cannot send
// these headers, to whichever route. Where the route does not know who calls they are absent.
type upstreamIdentity struct {
	// Headers, and what of the caller each holds: `sub`, `iss`, `source`, `method`, `scopes`, `roles`,
	// `credential`, `id`, or `claim:NAME`.
	Headers map[string]string `yaml:"headers" keys:"^[!#$%&'*+.^_|~0-9A-Za-z-]+$"`
	// A short-lived JWT that moat signs.
	Token upstreamToken `yaml:"token"`
}

// upstreamToken is a short-lived JWT about the caller.
type upstreamToken struct {
	// The header that holds it. In `Authorization` it takes the place of the caller's own token.
	Header string `yaml:"header" default:"Authorization"`
	// Its aud: what the upstream calls itself.
	Audience string `yaml:"audience,required"`
	// What its sub is: `id`, which no two callers share, or `sub`, which is for upstreams whose callers come from one source.
	Subject string `yaml:"subject" default:"id" enum:"id sub"`
	// The claims of the caller to carry over, beside scope and roles.
	Claims []string `yaml:"claims,single"`
	// How long it lives.
	Lifetime time.Duration `yaml:"lifetime" default:"60s" range:"5s 1h"`
}

// basicCredential is a name and a password (RFC 7617).
type basicCredential struct {
	// The name.
	Username string `yaml:"username,required"`
	// The password: a reference.
	Password Secret `yaml:"password,required"`
}

// oauthCredential is a client of an OAuth 2.0 authorization server (RFC 6749 section 4.4).
type oauthCredential struct {
	// The token endpoint: `https://`, or `http://` on this machine.
	TokenURL string `yaml:"token_url,required"`
	// The client's id.
	ClientID string `yaml:"client_id,required"`
	// The client's secret: a reference.
	ClientSecret Secret `yaml:"client_secret,required"`
	// The scopes to ask for.
	Scopes []string `yaml:"scopes"`
	// The audience to ask for, where the server wants one.
	Audience string `yaml:"audience"`
	// Whether the secret goes to the token endpoint as Basic or in the body.
	Auth string `yaml:"auth" default:"basic" enum:"basic post"`
}

// store is where the gate remembers what it has counted.
type store struct {
	// How much memory the table of this process takes: 16 bytes for each address or network
	// that has debts. It never grows. When it is too small those are forgotten first who
	// came only once, and those last who go on being refused.
	Memory size `yaml:"memory" default:"16MiB" range:"64KiB 16GiB"`
	// The file in which this process keeps what has been spent of budgets, so that a restart forgets nothing. It is made
	// if there is none. A path counts from the configuration file. Budgets need it, or `valkey`.
	File string `yaml:"file"`
	// The Valkey or Redis that processes share their rate limits and budgets through. Without it each
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
	// not here in the last ten minutes, once each. `principal` is who makes the request, `api_key`
	// the key that it shows, and `claim:NAME` a claim of the principal, such as a tenant's; a
	// request of nobody who is known is counted by its address instead. `account` is the account that
	// a login names. An empty list counts everybody together.
	By []string `yaml:"by,single" default:"address" enum:"address route method new_address principal api_key account claim:NAME"`
	// The networks around an address have more, for all of their clients together.
	Wider wider `yaml:"wider"`
	// Other limits for some addresses or callers. The first that fits counts.
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

// tier is another limit for some addresses, or for callers who have some claim.
type tier struct {
	// The address ranges.
	For []netip.Prefix `yaml:"for,single"`
	// A claim of the caller, such as `plan`. Write this or `for`.
	Claim string `yaml:"claim"`
	// The values of the claim. If that is a list, one of them is enough.
	Values []string `yaml:"values,single"`
	// Takes them out of the limit.
	Exempt bool `yaml:"exempt" default:"false"`
	// Their own limit. Without one they have that of all.
	Limit ratelimit.Limit `yaml:"limit"`
	// Their own number at the same time. Without one they have that of all.
	AtOnce int `yaml:"at_once" range:"1 1000000"`
}

// tickets are what pages get from the gate, and bring along with each call.
type tickets struct {
	// What tickets are made with: references to secrets of 32 bytes or more, the newest first. To rotate, put
	// a new one in front and remove the old one a day later. Without any each process makes one up when it
	// starts, so that a restart voids its tickets and no other process knows them.
	Secrets []Secret `yaml:"secrets,single"`
	// Secrets with which the pages' own backends issue tickets, by name.
	Issuers map[string]Secret `yaml:"issuers" keys:"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$"`
	// How long a ticket lives.
	Lifetime time.Duration `yaml:"lifetime" default:"2m" range:"10s 10m"`
	// How many calls it is good for.
	Uses int `yaml:"uses" default:"32" range:"1 32"`
	// How much memory may be taken to remember what has been used. Half of it is for tickets that have not
	// expired, 4 bytes each: when it is full none are issued. Half is for challenges that were solved, and
	// for each use of a backend's own ticket, 17 bytes each: when it is full none is honoured.
	Memory size `yaml:"memory" default:"64MiB" range:"64KiB 16GiB"`
	// The names of the rate limits on getting tickets. Without any it is 30/m for each client.
	RateLimits []string `yaml:"rate_limits,single"`
	// When a browser has to work for its tickets.
	Challenge challengePolicy `yaml:"challenge"`
}

// challengePolicy says how many visits may be opened, each minute, before the browsers that open more have
// to work for them: twice the work for twice as many.
type challengePolicy struct {
	// From one address.
	QuietAddress ratelimit.Limit `yaml:"quiet_address" default:"5/m"`
	// From an IPv4 /24 or an IPv6 /48.
	QuietNetwork ratelimit.Limit `yaml:"quiet_network" default:"30/m"`
	// From everywhere together.
	QuietAll ratelimit.Limit `yaml:"quiet_all" default:"1000/m"`
	// The most work: 2^max_bits hashes.
	MaxBits int `yaml:"max_bits" default:"22" range:"15 26"`
	// Whether challenges are asked (enforce), only recorded (report), or not made (off).
	Mode guard.Mode `yaml:"mode" default:"enforce" enum:"enforce report off"`
}

// auth is one way in which callers say who they are. It has one of these blocks.
type auth struct {
	// Access tokens that an issuer has signed.
	JWT jwtAuth `yaml:"jwt"`
	// Keys that `moat key` makes.
	APIKey apiKeyAuth `yaml:"api_key"`
	// Opaque tokens, about which the authorization server is asked.
	Introspection introspectionAuth `yaml:"introspection"`
	// Signing in at moat, with an OpenID provider. The page gets a cookie, and never sees a token.
	Login loginAuth `yaml:"login"`
}

// jwtAuth accepts JWTs in Authorization. Exactly one of jwks_url, jwks_file and secrets says
// what they are verified with; without any the issuer's discovery document does.
type jwtAuth struct {
	// Exactly the token's iss.
	Issuer string `yaml:"issuer,required"`
	// What the API is called in the token's aud: one of these must stand there.
	Audience []string `yaml:"audience,required,single"`
	// The algorithms that the issuer signs with, such as RS256, ES256 or EdDSA.
	Algorithms []string `yaml:"algorithms,required,single"`
	// Where the issuer publishes its keys.
	JWKSURL string `yaml:"jwks_url"`
	// A file with the issuer's public keys: a JWK Set, or PEM.
	JWKSFile string `yaml:"jwks_file"`
	// Secrets shared with the issuer, for HS256 and its like: references, the newest first. Whoever has one can
	// make tokens.
	Secrets []Secret `yaml:"secrets,single"`
	// The values of typ that are accepted. Without any: `JWT`, `at+jwt`, or none.
	Types []string `yaml:"types,single"`
	// How far clocks may differ.
	Leeway time.Duration `yaml:"leeway" default:"60s" range:"0s 10m"`
	// How old a token may be, by its iat. Without it only exp counts.
	MaxAge time.Duration `yaml:"max_age" range:"1s 8760h"`
	// Claims that must be there.
	RequiredClaims []string `yaml:"required_claims,single"`
	// The claim that holds the scopes; dots lead into objects. Without it: scope, or scp.
	ScopeClaim string `yaml:"scope_claim"`
	// The claim that holds the roles, such as `realm_access.roles`.
	RolesClaim string `yaml:"roles_claim"`
	// Proofs of possession (DPoP). Allow: tokens that are bound to a key need one. Require: all tokens must be bound.
	Proof string `yaml:"proof" default:"allow" enum:"allow require"`
	// A file that lists what was revoked: a line each, such as `jti ID`, `sub NAME` or `sub NAME before TIME`.
	RevokedFile string `yaml:"revoked_file"`
}

// apiKeyAuth accepts keys that moat key has made, in a header of their own or as a bearer token.
type apiKeyAuth struct {
	// The file that moat key create has made. A path counts from the configuration file.
	File string `yaml:"file,required"`
	// The header that holds the key.
	Header string `yaml:"header" default:"X-Api-Key"`
}

// introspectionAuth asks an authorization server about opaque tokens (RFC 7662).
type introspectionAuth struct {
	// The introspection endpoint: `https://`, or `http://` on this machine.
	URL string `yaml:"url,required"`
	// The client's id at the server.
	ClientID string `yaml:"client_id,required"`
	// The client's secret: a reference.
	ClientSecret Secret `yaml:"client_secret,required"`
	// What iss must be, where the server says it.
	Issuer string `yaml:"issuer"`
	// What the API is called in aud: one of these must stand there.
	Audience []string `yaml:"audience,single"`
	// The member that holds the scopes.
	ScopeClaim string `yaml:"scope_claim" default:"scope"`
	// The member that holds the roles.
	RolesClaim string `yaml:"roles_claim"`
	// For how long an answer counts. A token that is revoked may pass that much longer.
	CacheFor time.Duration `yaml:"cache_for" default:"60s" range:"1s 1h"`
	// For how long an answer counts that would have to be asked for anew, while the server does not answer. 0s denies.
	StaleFor time.Duration `yaml:"stale_for" default:"0s" range:"0s 24h"`
	// Bounds the wait for the server.
	Timeout time.Duration `yaml:"timeout" default:"3s" range:"100ms 30s"`
}

// loginAuth signs users in with an OpenID provider: authorization code with PKCE.
type loginAuth struct {
	// The provider's issuer, whose discovery document says the rest.
	Issuer string `yaml:"issuer,required"`
	// What moat is called there.
	ClientID string `yaml:"client_id,required"`
	// Its secret: a reference. A public client has none.
	ClientSecret Secret `yaml:"client_secret"`
	// The scopes to ask for. openid is always among them; offline_access gets a refresh token.
	Scopes []string `yaml:"scopes,single" default:"openid"`
	// How long a session lasts at most.
	Lifetime time.Duration `yaml:"lifetime" default:"12h" range:"5m 720h"`
	// How long it lasts while nothing is asked for.
	Idle time.Duration `yaml:"idle" default:"1h" range:"1m 720h"`
	// The claim of the ID token that holds the scopes.
	ScopeClaim string `yaml:"scope_claim"`
	// The claim that holds the roles.
	RolesClaim string `yaml:"roles_claim"`
	// Where users are sent who have signed in or out and named no other path.
	Home string `yaml:"home" default:"/"`
	// Whether signing out signs out at the provider too.
	SignOutAtProvider bool `yaml:"sign_out_at_provider" default:"true"`
}

// csrfTokens are how pages prove that they are those of the session. The token is at /.moat/csrf.
type csrfTokens struct {
	// What tokens are made with: references to secrets of 32 bytes or more, the newest first. Without any each
	// process makes one up when it starts.
	Secrets []Secret `yaml:"secrets,single"`
	// The upstreams' own cookies that say who calls, such as connect.sid. Those of `login` count by themselves.
	SessionCookies []string `yaml:"session_cookies,single"`
	// Those of session_cookies whose value changes with each answer, as that of a session kept in the cookie
	// itself does. Tokens are bound to the browser alone then.
	Rolling []string `yaml:"rolling,single"`
	// Pages of other sites that call with cookies: browsers have to send the gate's own along, too.
	ThirdParty string `yaml:"third_party" default:"deny" enum:"allow deny"`
	// The header that brings the token.
	Header string `yaml:"header" default:"X-CSRF-Token"`
	// The field that brings it in a form.
	Field string `yaml:"field" default:"csrf_token"`
	// The cookie that brings it to script. Its name begins with `__Host-`, so that no other host can plant it.
	Cookie string `yaml:"cookie" default:"__Host-moat-csrf"`
	// How long a token lives.
	Lifetime time.Duration `yaml:"lifetime" default:"2h" range:"1m 24h"`
}

// authorize says which of the callers that are known may call: all that is written must hold.
// A word in its place is who.
type authorize struct {
	// Authenticated: everybody whom auth lets through.
	Who string `yaml:"who,short" enum:"authenticated"`
	// Scopes that the credential must have, all of them.
	Scopes []string `yaml:"scopes,single"`
	// Roles of which the caller must have one.
	Roles []string `yaml:"roles,single"`
	// Claims, and the value that each must have, or hold if it is a list. `true`, `false` and numbers stand for such, not for texts.
	Claims map[string]string `yaml:"claims" keys:"^[!-~]{1,256}$"`
	// A condition in CEL over principal, request and path, such as `path.sub == principal.sub`.
	If string `yaml:"if"`
}

// cookiePolicy hardens the cookies that the upstream sets.
type cookiePolicy struct {
	// Lax: cookies without SameSite, or with None, become Lax. None lets those with None be. Strict makes all Strict. Keep changes none.
	SameSite string `yaml:"same_site" default:"lax" enum:"lax strict none keep"`
	// Adds Secure where the public origin is https.
	Secure bool `yaml:"secure" default:"true"`
	// Names of cookies that script must not read; a `*` at the end stands for any rest. Without any: those that look like a session's.
	HTTPOnly []string `yaml:"http_only,single"`
	// Names of cookies that script has to read.
	Script []string `yaml:"script,single"`
	// Names of cookies that browsers get as `__Host-NAME`, and the upstream as NAME: no other host of the site can plant them.
	HostPrefix []string `yaml:"host_prefix,single"`
	// Names of those that browsers get as `__Secure-NAME`: nobody can set them over plain http.
	SecurePrefix []string `yaml:"secure_prefix,single"`
	// Names of cookies that browsers keep apart for each top-level site.
	Partitioned []string `yaml:"partitioned,single"`
	// Host drops Domain, so that no subdomain gets the cookie.
	Domain string `yaml:"domain" default:"keep" enum:"keep host"`
	// The largest cookie, in bytes; larger ones are dropped.
	MaxBytes int `yaml:"max_bytes" default:"4096" range:"64 4096"`
}

// ticketPolicy is what a route does with tickets. A word in its place is the use.
type ticketPolicy struct {
	// Require: calls must bring a ticket along. Embed: HTML that passes gets the first ticket of its page.
	Use string `yaml:"use,short" default:"off" enum:"off require embed"`
	// Bodies that are streams, which script cannot hash before it sends them. A ticket's proof does
	// not cover them; all else it does.
	StreamedBody string `yaml:"streamed_body" default:"deny" enum:"allow deny"`
	// Lets browsers without script in that go there: after a wait, for 8 navigations.
	NoScript string `yaml:"no_script" default:"deny" enum:"allow deny"`
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
	// A request whose credentials are wrong; and, where the policy names an account, one that the upstream answers with 401 or 403.
	FailedAuth int `yaml:"failed_auth" default:"10" range:"0 1000000"`
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
	// What parameters and bodies are like. Without it nobody looks into them.
	Body bodyPolicy `yaml:"body" block:"write body: {openapi: FILE}, {schema: FILE} or {json: strict}"`
	// The names of the rate limits that hold, all at once: a request that one of them
	// refuses costs the others nothing.
	RateLimits []string `yaml:"rate_limits,single"`
	// What calls may ask of a provider of language models, where the upstream is one.
	Model modelPolicy `yaml:"model" block:"write model: {api: openai-chat, max_tokens: 1000}, or with another api and bound"`
	// The names of the budgets that hold, all at once.
	Budgets []string `yaml:"budgets,single"`
	// What a request costs. A number in its place is the cost of one that passes.
	Cost cost `yaml:"cost"`
	// Whether calls must bring tickets along.
	Tickets ticketPolicy `yaml:"tickets"`
	// Which of the callers that are known may call. A route whose auth is not public must have it.
	Authorize authorize `yaml:"authorize"`
	// Requests that show no credentials. Those that are shown must be good in any case.
	Anonymous string `yaml:"anonymous" default:"deny" enum:"allow deny"`
	// CSRF tokens. Auto: for requests that change state and have a session's cookie. Require: also without a session, as for a login form.
	CSRF string `yaml:"csrf" default:"auto" enum:"auto require"`
	// How the upstream's cookies are hardened.
	Cookies cookiePolicy `yaml:"cookies"`
	// Where a request names the account that somebody wants to get into: a field of its JSON or form, such as `username`, or `basic`. Rate limits by account count it.
	Account string `yaml:"account"`
	// What holds while the shared store does not answer. Local: each process counts alone,
	// and admits its share. Allow admits everything, deny nothing.
	StoreDown string `yaml:"store_down" default:"local" enum:"local allow deny"`
	// The caller's own Authorization, API key and cookies. Auto: stripped where the upstream has a
	// credential of ours, or an Authorization in its headers; without the cookies, where it is told who calls; and passed elsewhere. With strip
	// the cookies that the upstream sets are removed from its answers, too. Exchange: a session of `login` becomes the access token that the
	// provider gave it. API keys pass only with pass, and moat's own cookies never.
	CallerCredentials string `yaml:"caller_credentials" default:"auto" enum:"auto strip pass exchange"`
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
	// Clients that look like programs. Each signal has a mode of its own besides.
	Bot guard.Mode `yaml:"bot" default:"enforce" enum:"enforce report off"`
	// Calls without a ticket, or with one that is not good for them.
	Ticket guard.Mode `yaml:"ticket" default:"enforce" enum:"enforce report off"`
	// Requests whose caller is not known.
	Identity guard.Mode `yaml:"identity" default:"enforce" enum:"enforce report off"`
	// State changes with a session's cookie and no token.
	CSRF guard.Mode `yaml:"csrf" default:"enforce" enum:"enforce report off"`
	// Callers who are known, and may not do this.
	Authorization guard.Mode `yaml:"authorization" default:"enforce" enum:"enforce report off"`
	// Calls beyond a budget, and calls to models that ask for more than is offered.
	Budget guard.Mode `yaml:"budget" default:"enforce" enum:"enforce report off"`
	// Parameters and bodies that are not what the route declares.
	Body guard.Mode `yaml:"body" default:"enforce" enum:"enforce report off"`
	// Cookies that the upstream sets.
	Cookie guard.Mode `yaml:"cookie" default:"enforce" enum:"enforce report off"`
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
	// The name of the upstream that answers. A route has either this or `fetch`.
	Upstream string `yaml:"upstream"`
	// Answers with what callers name by URL, from listed hosts on the Internet.
	Fetch fetch `yaml:"fetch"`
	// Who may call: the names of what stands under `auth`. Public: anybody whom the policy lets through.
	Auth []string `yaml:"auth,required,single" missing:"nobody publishes a route by leaving a line out; write auth: public if anybody may call it"`
	// The name of the policy to follow. Without it the defaults of a policy hold, which
	// let only same-origin pages call.
	Policy string `yaml:"policy"`

	Override policy `yaml:",inline"`
}

// fetch says what a route fetches for its callers. They are told the content of the answer
// and nothing else; no cookie and no header of theirs goes out but Accept and Accept-Language.
type fetch struct {
	// The hosts that may be fetched from: `api.example.com`; `*.example.com` for exactly one
	// label; `api.example.com:8443` for another port than the scheme's own.
	Hosts []string `yaml:"hosts,required,single" missing:"list the hosts that may be fetched from"`
	// The parameter of the query that holds the URL.
	Param string `yaml:"param" default:"url"`
	// The largest body.
	MaxBytes size `yaml:"max_bytes" default:"5MiB" range:"1B 1GiB"`
	// Bounds everything, from the resolution of the name to the last byte.
	Timeout time.Duration `yaml:"timeout" default:"10s" range:"100ms 10m"`
	// How many redirects are followed. Each is checked as the URL itself is.
	Redirects int `yaml:"redirects" default:"3" range:"0 10"`
	// The content types that are passed on. `image/*` stands for all images but SVG, which
	// can hold script.
	ContentTypes []string `yaml:"content_types" default:"application/json text/plain image/*"`
	// Address ranges that may be reached although they are not public. Whoever may call
	// the route reaches every listed host in them.
	AllowNetworks []netip.Prefix `yaml:"dangerously_allow_networks,single"`
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
	// The code of a reason for which a guard in report mode must object, and be overruled.
	Reports string `yaml:"reports"`
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
	// Takes it for granted that the request has a ticket that is good for it.
	Ticket bool `yaml:"ticket" default:"false"`
	// Takes it for granted that the request has a CSRF token of its session.
	CSRF bool `yaml:"csrf" default:"false"`
	// Takes it for granted who calls.
	As testCaller `yaml:"as"`
	// The address from which the connection comes.
	From netip.Addr `yaml:"from" default:"127.0.0.1"`
}

// testCaller is who makes a test's request.
type testCaller struct {
	// The name of what stands under auth.
	Auth string `yaml:"auth,required"`
	// The caller's name there.
	Subject string `yaml:"sub,required"`
	// The scopes of the credential.
	Scopes []string `yaml:"scopes,single"`
	// The roles of the caller.
	Roles []string `yaml:"roles,single"`
	// The claims.
	Claims map[string]string `yaml:"claims" keys:"^[!-~]{1,256}$"`

	method identity.Method // of the auth
}
