package config

import (
	"net/url"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/net/http/httpguts"

	"github.com/moat-gateway/moat/gateway"
	"github.com/moat-gateway/moat/guard/credential"
	"github.com/moat-gateway/moat/web"
)

func (c *compiler) upstream(name string) {
	u, path := c.f.Upstreams[name], join("upstreams", name)
	out := gateway.Upstream{
		URL: c.upstreamURL(join(path, "url"), u.URL), PreserveHost: u.PreserveHost,
		DialTimeout: u.DialTimeout, ResponseTimeout: u.ResponseTimeout,
	}
	out.Headers = c.headers(join(path, "headers"), path, u.Headers, &out.Credential)
	c.credential(path, &u, &out)
	c.told(path, &u, &out)
	if out.URL != nil {
		if c.out.Gateway.Upstreams == nil {
			c.out.Gateway.Upstreams = make(map[string]gateway.Upstream)
		}
		c.out.Gateway.Upstreams[name] = out
	}
}

// headers judges the headers at a path that moat sets for an upstream.
func (c *compiler) headers(path, upstream string, list map[string]Secret, p *credential.Policy) map[string]string {
	out, seen := make(map[string]string), make(map[string]bool)
	for _, h := range keys(list) {
		at, folded, value := join(path, h), web.FoldName(h), list[h].Reveal()
		switch {
		case value == "": // the decoder has complained
			continue
		case seen[folded]:
			c.fault(at, "", "set twice: upstreams take upper and lower case, and - _ . in header names, for the same")
		case folded == "host":
			c.fault(at, "", "the Host is that of the url, or the client's with preserve_host: true")
		case slices.Contains(ours, folded):
			c.fault(at, "", "moat or the connection sets this header itself")
		case !httpguts.ValidHeaderFieldValue(value):
			c.fault(at, "", "the value holds a control character")
		}
		c.secret(at, list[h], p)
		seen[folded] = true
		out[h] = value
		c.owned[folded] = upstream
	}
	return out
}

// ours are the request headers, folded, that no configuration sets.
var ours = []string{
	"connection", "content-length", "expect", "forwarded", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding",
	"upgrade", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto",
}

// upstreamURL reads a URL, and does not repeat what may be secret in a faulty one.
func (c *compiler) upstreamURL(path, s string) *url.URL {
	if s == "" {
		return nil
	}
	u, err := url.Parse(s)
	if err != nil || u.Opaque != "" {
		value := s
		if strings.ContainsAny(s, "@?") {
			value = ""
		}
		c.fault(path, value, "not a URL such as http://127.0.0.1:3000")
		return nil
	}
	clean := url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}
	fault := func(reason string) *url.URL {
		c.fault(path, clean.String(), reason)
		return nil
	}
	port, portErr := strconv.ParseUint(u.Port(), 10, 16)
	switch {
	case u.User != nil:
		return fault("has a name or password, which would end up in logs; set a header from ${env:NAME} instead")
	case !slices.Contains([]string{"http", "https", "h2c"}, u.Scheme):
		return fault("the scheme is none of http, https and h2c")
	case u.Hostname() == "":
		return fault("no host")
	case u.Port() != "" && (portErr != nil || port == 0), strings.HasSuffix(u.Host, ":"):
		return fault("the port is not a number from 1 to 65535")
	case u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		return fault("only a path can be put before each request's, no query and no fragment")
	}
	for i, l := range c.f.Listen {
		if u.Host == string(l.Address) {
			return fault("moat itself listens there (" + item("listen", i) + "), so it would call itself")
		}
	}
	return u
}
