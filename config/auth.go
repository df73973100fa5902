package config

import (
	"cmp"
	"crypto"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"

	"github.com/moat-gateway/moat/gateway"
	"github.com/moat-gateway/moat/guard"
	"github.com/moat-gateway/moat/guard/assertion"
	"github.com/moat-gateway/moat/guard/authorization"
	"github.com/moat-gateway/moat/guard/cookie"
	"github.com/moat-gateway/moat/guard/csrf"
	"github.com/moat-gateway/moat/guard/identity"
	"github.com/moat-gateway/moat/guard/identity/introspection"
	"github.com/moat-gateway/moat/guard/identity/jwt"
	"github.com/moat-gateway/moat/guard/identity/session"
	"github.com/moat-gateway/moat/guard/ratelimit"
	"github.com/moat-gateway/moat/web"
)

// public is the auth of a route that anybody may call.
const public = "public"

// authKinds are the blocks of which an auth has one.
var authKinds = []string{"jwt", "api_key", "introspection", "login"}

// minSecret is the least secret that others could try to guess offline, in bytes.
const minSecret = 32

// signingIn is the limit on signing in: each time is two requests.
var signingIn = ratelimit.Rule{
	Name: "sign-in", Limit: ratelimit.Limit{Count: 60, Per: time.Minute, Burst: 60}, By: []ratelimit.Fact{ratelimit.Address},
	Wider: ratelimit.Wider{IPv4Net24: 16, IPv6Net56: 4, IPv6Net48: 16},
}

// auth judges the ways in which callers say who they are.
func (c *compiler) auth() {
	out := &gateway.Callers{RateLimits: []ratelimit.Rule{signingIn}}
	c.out.Gateway.Callers = out
	for _, name := range keys(c.f.Auth) {
		a, path := c.f.Auth[name], join("auth", name)
		if name == public {
			c.fault(path, "", "public is the word for anybody; choose another name")
		}
		var kinds []string
		for _, kind := range authKinds {
			if c.has(join(path, kind)) {
				kinds = append(kinds, kind)
			}
		}
		switch {
		case len(kinds) == 0 && c.clean(path):
			c.fault(path, "", "says nothing; write jwt, api_key, introspection or login")
			continue
		case len(kinds) > 1:
			c.fault(path, "", strings.Join(kinds, " and ")+"; give each a name of its own, and let routes list both")
			continue
		case len(kinds) == 0:
			continue
		}
		switch at := join(path, kinds[0]); kinds[0] {
		case "jwt":
			c.jwt(at, name, &a.JWT)
		case "api_key":
			c.apiKey(at, name, &a.APIKey)
		case "introspection":
			c.introspection(at, name, &a.Introspection)
		case "login":
			c.login(at, name, &a.Login)
		}
	}
	c.csrf()
	for i, s := range c.f.IdentityKeys {
		at := item("identity_keys", i)
		key, err := assertion.ParseKey([]byte(s.Reveal()))
		if err != nil && s.Reveal() != "" {
			c.fault(at, "", err.Error())
			continue
		}
		out.IdentityKeys = append(out.IdentityKeys, key)
	}
}

func (c *compiler) jwt(path, name string, j *jwtAuth) {
	out := jwt.Issuer{
		Source: name, Issuer: j.Issuer, Audiences: j.Audience, Algorithms: j.Algorithms, JWKSURL: j.JWKSURL, Types: j.Types, Leeway: j.Leeway, MaxAge: j.MaxAge,
		Required: j.RequiredClaims, ScopeClaim: j.ScopeClaim, RolesClaim: j.RolesClaim, RequireProof: j.Proof == "require",
	}
	for i, s := range j.Secrets {
		if i == 0 {
			out.Secret = []byte(s.Reveal())
		} else {
			out.PastSecrets = append(out.PastSecrets, []byte(s.Reveal()))
		}
		if n := len(s.Reveal()); n < minSecret && c.clean(item(join(path, "secrets"), i)) {
			c.fault(item(join(path, "secrets"), i), "", fmt.Sprintf("has %d bytes, and whoever guesses it makes tokens; use %d or more", n, minSecret))
		}
	}
	sources := 0
	for _, field := range []string{"jwks_url", "jwks_file", "secrets"} {
		if c.has(join(path, field)) {
			sources++
		}
	}
	if sources > 1 {
		c.fault(path, "", "jwks_url, jwks_file and secrets exclude each other; write the one that the issuer's keys come from")
		return
	}
	out.Discover = sources == 0
	if j.JWKSFile != "" {
		out.JWKS, _ = c.pem(join(path, "jwks_file"), j.JWKSFile)
	}
	if j.RevokedFile != "" {
		text, ok := c.pem(join(path, "revoked_file"), j.RevokedFile)
		if ok {
			var err error
			if out.Revoked, err = jwt.ParseRevocations(text); err != nil {
				c.fault(join(path, "revoked_file"), j.RevokedFile, err.Error())
			}
		}
	}
	if !c.clean(path) {
		return
	}
	if v, err := jwt.New(jwt.Policy{Issuers: []jwt.Issuer{out}}, nil); err != nil {
		c.faultLines(path, err)
		return
	} else {
		v.Close()
	}
	for _, other := range c.out.Gateway.Callers.JWT {
		if i := slices.IndexFunc(j.Audience, func(a string) bool { return slices.Contains(other.Audiences, a) }); other.Issuer == j.Issuer && i >= 0 {
			c.fault(item(join(path, "audience"), i), j.Audience[i], "auth."+other.Source+" has this issuer and this audience, so whose token it is could not be told")
		}
	}
	c.out.Gateway.Callers.JWT = append(c.out.Gateway.Callers.JWT, out)
}

// faultLines turns each line of an error about what stands at a path or below it into a
// fault. What a reference stands for is not told, so then nothing of the error is.
func (c *compiler) faultLines(path string, err error) {
	for at, p := range c.at {
		if p.raw != "" && !strings.Contains(at, "secret") && (at == path || strings.HasPrefix(at, path+".")) {
			c.fault(at, "", "what the reference stands for cannot stand here, or not with the rest of the block")
			return
		}
	}
	for line := range strings.Lines(err.Error()) {
		c.fault(path, "", strings.TrimSpace(line))
	}
}

func (c *compiler) apiKey(path, name string, k *apiKeyAuth) {
	if !httpguts.ValidHeaderFieldName(k.Header) || strings.EqualFold(k.Header, "authorization") || strings.EqualFold(k.Header, "cookie") {
		c.fault(join(path, "header"), k.Header, "not a header for API keys; X-Api-Key is usual, and Authorization: Bearer is read anyway")
	}
	if !c.clean(path) {
		return
	}
	c.out.KeyFiles = append(c.out.KeyFiles, KeyFile{Source: name, Path: c.path(k.File)})
	c.out.Gateway.Callers.Keys = append(c.out.Gateway.Callers.Keys, gateway.Keys{Source: name, Header: k.Header})
}

func (c *compiler) introspection(path, name string, i *introspectionAuth) {
	out := introspection.Policy{
		Source: name, URL: i.URL, ClientID: i.ClientID, ClientSecret: i.ClientSecret.Reveal(), Issuer: i.Issuer, Audiences: i.Audience,
		ScopeClaim: i.ScopeClaim, RolesClaim: i.RolesClaim, CacheFor: i.CacheFor, StaleFor: i.StaleFor, Timeout: i.Timeout,
	}
	if !c.clean(path) {
		return
	}
	if _, err := introspection.New(out, nil); err != nil {
		c.faultLines(path, err)
		return
	}
	c.out.Gateway.Callers.Introspection = append(c.out.Gateway.Callers.Introspection, out)
}

func (c *compiler) login(path, name string, l *loginAuth) {
	out := session.Policy{
		Source: name, Issuer: l.Issuer, ClientID: l.ClientID, ClientSecret: l.ClientSecret.Reveal(), Scopes: l.Scopes, Lifetime: l.Lifetime, Idle: l.Idle,
		ScopeClaim: l.ScopeClaim, RolesClaim: l.RolesClaim, Home: l.Home, SignOutAtProvider: l.SignOutAtProvider,
	}
	out.Public = web.NewPublicOrigins(c.out.Gateway.PublicOrigins)
	if l.Idle > l.Lifetime {
		c.fault(join(path, "idle"), "", "longer than the lifetime, so it never counts")
	}
	if !c.clean(path) {
		return
	}
	if _, err := session.New(out, nil, nil); err != nil {
		c.faultLines(path, err)
		return
	}
	c.out.Gateway.Callers.Logins = append(c.out.Gateway.Callers.Logins, out)
}

func (c *compiler) csrf() {
	f, path := &c.f.CSRF, "csrf"
	out := csrf.Policy{
		SessionCookies: f.SessionCookies, Rolling: f.Rolling, Header: f.Header, Field: f.Field, Cookie: f.Cookie, Lifetime: f.Lifetime, AllowThirdParty: f.ThirdParty == "allow",
	}
	for i, s := range f.Secrets {
		out.Secrets = append(out.Secrets, []byte(s.Reveal()))
		if n := len(s.Reveal()); n < csrf.MinSecret && c.clean(item(join(path, "secrets"), i)) {
			c.fault(item(join(path, "secrets"), i), "", fmt.Sprintf("has %d bytes, and a secret for tokens has %d or more; make one with openssl rand -base64 32", n, minSecret))
		}
	}
	ambient := len(f.SessionCookies) > 0 || slices.ContainsFunc(slices.Collect(maps.Values(c.f.Auth)), func(a auth) bool { return a.Login.Issuer != "" })
	if ambient && c.out.Valkey != nil && len(f.Secrets) == 0 {
		c.fault(join(path, "secrets"), "", "missing: processes that share a store take each other's tokens, so they need the same secret; write secrets: ${env:MOAT_CSRF_SECRET} or another reference to it")
	}
	if c.has(path) && !ambient {
		c.warn(path, "", "has no effect: no session_cookies are named, and nobody signs in at moat")
	}
	if !c.clean(path) {
		return
	}
	complete := out
	if len(out.Secrets) == 0 {
		complete.Secrets = [][]byte{make([]byte, csrf.MinSecret)} // the gate makes one up
	}
	if _, err := csrf.New(complete); err != nil {
		c.faultLines(path, err)
	}
	c.out.Gateway.Callers.CSRF = out
}

// hardened judges how the cookies of a route's upstream are.
func (c *compiler) hardened(p *cookiePolicy, where string) cookie.Policy {
	out := cookies(p)
	if _, err := cookie.New(out); err != nil && c.clean(where) && c.once(where, false) {
		c.faultLines(where, err)
	}
	return out
}

// callers judges who may call a route.
func (c *compiler) callers(r *route, at string, field func(string) string, out *gateway.Route) {
	p := &r.Override
	out.Anonymous = p.Anonymous == "allow"
	if p.CSRF == "require" {
		out.CSRF = gateway.CSRFRequire
	}
	where := field("authorize")
	empty := p.Authorize.Who == "" && len(p.Authorize.Scopes)+len(p.Authorize.Roles)+len(p.Authorize.Claims) == 0 && p.Authorize.If == ""
	if slices.Contains(r.Auth, public) {
		if len(r.Auth) > 1 {
			c.fault(join(at, "auth"), "", "public is anybody, so the others mean nothing; write anonymous: allow on the route if callers may, but need not, say who they are")
		}
		if c.has(join(at, "authorize")) {
			c.fault(join(at, "authorize"), "", "auth is public, so nobody is known; write in auth how callers say who they are")
		}
		out.Auth = gateway.AuthPublic
		return
	}
	out.Auth = gateway.AuthRequired
	kinds := make(map[identity.Method]string)
	for i, name := range r.Auth {
		if name == "" {
			continue
		}
		switch _, known := c.f.Auth[name]; {
		case known:
		case slices.Contains(authKinds, name):
			c.fault(item(join(at, "auth"), i), name, "a kind, and not the name of one; write auth: {callers: {"+name+": …}} at the top of the file, and callers here")
			continue
		default:
			c.fault(item(join(at, "auth"), i), name, "none of the auth has this name; write public if anybody may call"+c.didYouMean(name, maps.Keys(c.f.Auth)))
			continue
		}
		c.used[join("auth", name)] = true
		out.Sources = append(out.Sources, name)
		kind := c.f.Auth[name].method()
		if other := kinds[kind]; other != "" && kind != identity.JWT {
			c.fault(item(join(at, "auth"), i), name, fmt.Sprintf("of the same kind as %q, and it could not be told whose credential came", other))
		}
		kinds[kind] = name
	}
	if len(r.Auth) == 0 && c.clean(join(at, "auth")) && !slices.Contains(c.faulty, at) {
		c.fault(join(at, "auth"), "", "none, so nobody could call; write public if anybody may")
	}
	if empty && len(out.Sources) > 0 && c.clean(where) {
		c.fault(join(at, "match"), r.Match, "authorize is missing: who is known may not therefore do everything; write authorize: authenticated if everybody whom auth lets through may call")
		return
	}
	a := authorization.Policy{Scopes: p.Authorize.Scopes, Roles: p.Authorize.Roles, Condition: p.Authorize.If, Pattern: r.Match}
	for _, claim := range keys(p.Authorize.Claims) {
		if a.Claims == nil {
			a.Claims = make(map[string]any)
		}
		a.Claims[claim] = claimValue(p.Authorize.Claims[claim])
	}
	if _, err := authorization.New(a); err != nil && c.clean(where) && c.clean(join(at, "match")) && c.once(where+" of "+r.Match, false) {
		c.faultLines(where, err)
	}
	out.Authorize = a
	c.sameName(r, at, where)
	if p.Modes.Identity == guard.Off {
		means := "refuses everybody"
		if p.Authorize.Who != "" || p.Modes.Authorization != guard.Enforce {
			means = "refuses nobody, and anybody may call"
		}
		c.warn(field("modes.identity"), "off", "nobody is asked, so authorize "+means)
	}
	login := slices.ContainsFunc(r.Auth, func(name string) bool { return c.f.Auth[name].method() == identity.Session })
	if login && p.Modes.CSRF == guard.Off && p.Modes.CrossSite != guard.Enforce {
		c.warn(field("modes.csrf"), "off", "cross_site is not enforced either, so pages of sibling subdomains can act as the user who visits them")
	}
}

// sameName warns where two issuers can give one name to two people, and nothing tells them apart.
func (c *compiler) sameName(r *route, at, where string) {
	issuers := make(map[string]bool)
	for _, name := range r.Auth {
		a := c.f.Auth[name]
		if iss := cmp.Or(a.JWT.Issuer, a.Introspection.Issuer, a.Login.Issuer); iss != "" {
			issuers[iss] = true
		}
	}
	if len(issuers) < 2 {
		return
	}
	says := func(text string, words ...string) bool {
		return slices.ContainsFunc(words, func(w string) bool { return strings.Contains(text, w) })
	}
	if text := r.Override.Authorize.If; says(text, "principal.sub") && !says(text, "principal.source", "principal.iss") {
		c.warn(where, "", "principal.sub alone tells nobody apart here: auth lists several issuers, and each gives out names as it likes; compare principal.source, too")
	}
	told := slices.Collect(maps.Values(c.f.Upstreams[r.Upstream].Identity.Headers))
	if slices.Contains(told, "sub") && !slices.ContainsFunc([]string{"id", "source", "iss"}, func(w string) bool { return slices.Contains(told, w) }) {
		c.warn(join(at, "upstream"), r.Upstream, "its identity headers tell sub alone, and auth lists several issuers, each of which gives out names as it likes; tell id or source, too")
	}
}

// claimValue is the value of a claim as a token has it: true, a number, or a text.
func claimValue(s string) any {
	if b, err := strconv.ParseBool(s); err == nil && (s == "true" || s == "false") {
		return b
	}
	if i, err := strconv.ParseInt(s, 10, 64); err == nil && strconv.FormatInt(i, 10) == s {
		return i
	}
	return s
}

// cookies is how the upstream's cookies are hardened.
func cookies(p *cookiePolicy) cookie.Policy {
	return cookie.Policy{
		SameSite:      map[string]cookie.SameSite{"lax": cookie.AtLeastLax, "strict": cookie.Strict, "none": cookie.None, "keep": cookie.Keep}[p.SameSite],
		AllowInsecure: !p.Secure, HTTPOnly: p.HTTPOnly, Script: p.Script, HostPrefix: p.HostPrefix, SecurePrefix: p.SecurePrefix, Partitioned: p.Partitioned,
		HostOnly: p.Domain == "host", MaxBytes: p.MaxBytes,
	}
}

// told judges what an upstream is told about callers.
func (c *compiler) told(upstream string, u *upstream, out *gateway.Upstream) {
	path, i := join(upstream, "identity"), &u.Identity
	if !c.has(path) {
		return
	}
	out.Identity = assertion.Policy{Headers: i.Headers}
	if c.has(join(path, "token")) {
		out.Identity.Token = &assertion.TokenPolicy{Header: i.Token.Header, Audience: i.Token.Audience, Subject: i.Token.Subject, Claims: i.Token.Claims, Lifetime: i.Token.Lifetime}
		if c.out.Valkey != nil && len(c.f.IdentityKeys) == 0 {
			c.warn(join(path, "token"), "", "each process that shares the store signs with a key of its own, and an upstream that has asked one for its keys refuses the others' tokens; write identity_keys")
		}
	}
	if len(i.Headers) == 0 && out.Identity.Token == nil && c.clean(path) {
		c.fault(path, "", "says nothing; write headers or token")
		return
	}
	if !c.clean(path) {
		return
	}
	g, err := assertion.New(out.Identity, c.anySigner())
	if err != nil {
		c.faultLines(path, err)
		return
	}
	authorization := u.Credential.Bearer.Reveal() != "" || u.Credential.Basic.Username != "" || u.Credential.OAuth.TokenURL != "" || c.owned["authorization"] == upstream
	if at := join(path, "token.header"); out.Identity.Token != nil && strings.EqualFold(i.Token.Header, "authorization") && authorization {
		c.fault(at, "", "the upstream has a credential in Authorization; name another header, such as X-Identity")
	}
	for _, name := range g.Names() {
		folded := web.FoldName(name)
		if c.owned[folded] == upstream {
			c.fault(path, name, "the upstream's headers or credential set it, too")
		}
		c.owned[folded] = upstream
	}
}

// csrfOrigins are those of the pages that call with cookies: they may get a token.
func (c *compiler) csrfOrigins() {
	c.out.Gateway.Callers.Origins = c.together(func(r *gateway.Route, _ func(string) string) bool {
		return r.CORS.Credentials && !r.Origins.Any()
	})
}

// anySigner is one to judge policies with.
func (c *compiler) anySigner() *assertion.Signer {
	key, err := assertion.GenerateKey()
	if err != nil {
		return nil
	}
	s, _ := assertion.NewSigner([]crypto.Signer{key}, "https://moat.example") // has no fault
	return s
}
