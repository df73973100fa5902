package config

import (
	"strings"

	"golang.org/x/net/http/httpguts"

	"github.com/moat-gateway/moat/gateway"
	"github.com/moat-gateway/moat/guard/credential"
	"github.com/moat-gateway/moat/web"
)

// credential judges what moat puts into an upstream's requests, beside its headers.
func (c *compiler) credential(upstream string, u *upstream, out *gateway.Upstream) {
	path, cr, p := join(upstream, "credential"), &u.Credential, &out.Credential
	p.DangerouslyAllowEcho = u.AllowEcho
	p.Headers = c.headers(join(path, "headers"), upstream, cr.Headers, p)
	setters := make(map[string]string) // who sets each header, folded
	for h := range u.Headers {
		setters[web.FoldName(h)] = join(join(upstream, "headers"), h)
	}
	set := func(at, header string) {
		if other := setters[header]; other != "" {
			c.fault(at, "", other+" sets the same header; remove one of them")
		}
		setters[header] = at
	}
	for _, h := range keys(cr.Headers) {
		set(join(join(path, "headers"), h), web.FoldName(h))
	}
	if at := join(path, "bearer"); c.has(at) {
		set(at, "authorization")
		c.secret(at, cr.Bearer, p)
		c.headerValue(at, cr.Bearer)
		p.Bearer = cr.Bearer.Reveal()
	}
	if at := join(path, "basic"); c.has(at) {
		set(at, "authorization")
		c.secret(join(at, "password"), cr.Basic.Password, p)
		if strings.Contains(cr.Basic.Username, ":") {
			c.fault(join(at, "username"), "", "holds a colon, which ends it (RFC 7617 section 2)")
		}
		p.Basic = credential.Basic{Username: cr.Basic.Username, Password: cr.Basic.Password.Reveal()}
	}
	if at := join(path, "oauth"); c.has(at) {
		set(at, "authorization")
		c.oauth(at, &cr.OAuth, p)
	}
	params := make(map[string]bool)
	for _, name := range keys(cr.Query) {
		at := join(join(path, "query"), name)
		if folded := web.FoldName(name); params[folded] {
			c.fault(at, "", "set twice: some servers take upper and lower case, and - _ . in names, for the same")
		} else {
			params[folded] = true
		}
		c.secret(at, cr.Query[name], p)
		if p.Query == nil {
			p.Query = make(map[string]string)
		}
		p.Query[name] = cr.Query[name].Reveal()
	}
	if c.has(path) && p.Zero() && c.clean(path) {
		c.fault(path, "", "says nothing; write bearer, basic, oauth, headers or query")
	}
	if u.AllowEcho && p.Zero() && len(u.Headers) == 0 {
		c.warn(join(upstream, "dangerously_allow_echo"), "", "moat sends this upstream no secret that it could repeat")
	}
}

func (c *compiler) oauth(path string, o *oauthCredential, p *credential.Policy) {
	c.secret(join(path, "client_secret"), o.ClientSecret, p)
	for i, s := range o.Scopes {
		if strings.ContainsAny(s, " \"\\") {
			c.fault(item(join(path, "scopes"), i), s, "a scope holds no blank, quote or backslash (RFC 6749 section 3.3); write each as an item of the list")
		}
	}
	p.OAuth = credential.OAuth{
		TokenURL: o.TokenURL, ClientID: o.ClientID, ClientSecret: o.ClientSecret.Reveal(), Scopes: o.Scopes, Audience: o.Audience, Post: o.Auth == "post",
	}
	if at := join(path, "token_url"); o.TokenURL != "" {
		if err := credential.CheckTokenURL(o.TokenURL); err != nil {
			c.fault(at, "", err.Error())
		}
	}
}

// secret notes what answers must not hold, and refuses what could not be masked there.
func (c *compiler) secret(path string, s Secret, p *credential.Policy) {
	for _, part := range s.parts {
		if err := credential.CheckSecret(part); err != nil && part != "" {
			c.fault(path, "", err.Error())
			return
		}
		p.Secrets = append(p.Secrets, part)
	}
}

func (c *compiler) headerValue(path string, s Secret) {
	if !httpguts.ValidHeaderFieldValue(s.Reveal()) {
		c.fault(path, "", "the value holds a control character")
	}
}

// callerCredentials is what becomes of the caller's Authorization and cookies.
func callerCredentials(word string) gateway.CallerCredentials {
	return map[string]gateway.CallerCredentials{
		"strip": gateway.CallerCredentialsStrip, "pass": gateway.CallerCredentialsPass, "exchange": gateway.CallerCredentialsExchange,
	}[word]
}
