package config

import (
	"net/http"
	"slices"

	"github.com/moat-gateway/moat/gateway"
	"github.com/moat-gateway/moat/guard/egress"
)

// fetch judges what the route at a path fetches, and that it has one source of answers.
func (c *compiler) fetch(r *route, at string) *gateway.Fetch {
	path := join(at, "fetch")
	upstream, fetches := c.has(join(at, "upstream")), c.has(path)
	switch {
	case !upstream && !fetches:
		if !slices.Contains(c.faulty, at) { // then all of it is missing, and that has been told
			c.fault(join(at, "upstream"), "", "missing; write the name of an upstream, or fetch")
		}
		return nil
	case !fetches:
		return nil
	case upstream:
		c.fault(path, "", "stands beside upstream; a route has one of them")
	}
	f := &r.Fetch
	if c.has(join(path, "hosts")) && f.Hosts != nil && len(f.Hosts) == 0 {
		c.fault(join(path, "hosts"), "", "none, so nothing could be fetched")
	}
	for i, h := range f.Hosts {
		if err := egress.CheckHost(h); err != nil && h != "" {
			c.fault(item(join(path, "hosts"), i), h, err.Error())
		}
	}
	for i, t := range f.ContentTypes {
		if err := egress.CheckContentType(t); err != nil && t != "" {
			c.fault(item(join(path, "content_types"), i), t, err.Error())
		}
	}
	if method, _, _ := cutPattern(r.Match); method != "" && method != http.MethodGet && method != http.MethodHead {
		c.fault(join(at, "match"), r.Match, "only GET and HEAD fetch; write GET in the place of "+method)
	} else if !slices.Contains(r.Override.Methods, http.MethodGet) && !slices.Contains(r.Override.Methods, http.MethodHead) && len(r.Override.Methods) > 0 {
		c.fault(join(at, "match"), r.Match, "only GET and HEAD fetch, and methods lists neither, so every request would be refused")
	}
	for i, p := range f.AllowNetworks {
		if p.IsValid() && p.Bits() == 0 {
			c.fault(item(join(path, "dangerously_allow_networks"), i), p.String(), "holds every address; list the ranges that are meant")
		}
	}
	if len(f.AllowNetworks) > 0 {
		c.dangerous = append(c.dangerous, join(path, "dangerously_allow_networks"))
	}
	return &gateway.Fetch{Param: f.Param, Policy: egress.Policy{
		Hosts: f.Hosts, MaxBytes: int64(f.MaxBytes), Timeout: f.Timeout, Redirects: f.Redirects, ContentTypes: f.ContentTypes,
		DangerouslyAllowNetworks: f.AllowNetworks,
	}}
}
