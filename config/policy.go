package config

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/net/http/httpguts"

	"github.com/moat-gateway/moat/guard/cors"
	"github.com/moat-gateway/moat/web"
)

// setKey tells lists of origins apart that compile to different sets. Routes that
// inherit a list share its set.
type setKey struct {
	path string
	opt  web.OriginSetOptions
}

// once reports whether the list at path has not been judged yet, with credentials or
// without: thousands of routes can inherit it.
func (c *compiler) once(path string, credentials bool) bool {
	key := fmt.Sprint(path, credentials)
	seen := c.judged[key]
	c.judged[key] = true
	return !seen
}

// policy judges a policy, or what a route makes of it; where says where a field of it
// stands.
func (c *compiler) policy(p *policy, where func(field string) string) *web.OriginSet {
	set := c.origins(p, where("origins"))
	if set.Any() && p.CORS.Credentials {
		at := where("cors.credentials")
		if own := where("origins"); strings.HasPrefix(own, "routes") && !strings.HasPrefix(at, "routes") {
			at = own // what the route itself adds is what is wrong
		}
		c.fault(at, "", `any page could act with its visitors' cookies: credentials is true and origins is "*"; list the origins`)
	}
	c.methods(where("methods"), p.Methods)
	c.headerNames(where("cors.request_headers"), p.CORS.RequestHeaders, p.CORS.Credentials, func(one []string) cors.Policy {
		return cors.Policy{Credentials: p.CORS.Credentials, RequestHeaders: one}
	})
	c.headerNames(where("cors.exposed_headers"), p.CORS.ExposedHeaders, p.CORS.Credentials, func(one []string) cors.Policy {
		return cors.Policy{Credentials: p.CORS.Credentials, ExposedHeaders: one}
	})
	if p.CORS.MaxAge > cors.ChromeMaxAge {
		c.warn(where("cors.max_age"), "", fmt.Sprintf("Chromium remembers a preflight for at most %.0fh", cors.ChromeMaxAge.Hours()))
	}
	c.scrubAlso(where("scrub.also"), p.Scrub.Also)
	c.scrubPass(where("scrub.pass"), p.Scrub.Pass)
	return set
}

// origins compiles the list at path.
func (c *compiler) origins(p *policy, path string) *web.OriginSet {
	key := setKey{path, web.OriginSetOptions{
		DangerouslyAllowPublicSuffix: p.PublicSuffix, DangerouslyAllowInsecureOrigins: p.InsecureOrigins,
		DangerouslyAllowAnyLocalhostPort: c.f.Development.AnyLocalhostPort,
	}}
	if set, ok := c.sets[key]; ok {
		return set
	}
	set, faults := web.NewOriginSet(p.Origins, key.opt)
	c.sets[key] = set
	for _, e := range faults {
		if e.Value == "" {
			continue // the decoder has complained
		}
		_, reason := originFault(e.Value, e)
		if e.PublicSuffix {
			reason += ", or set dangerously_allow_public_suffix"
		}
		c.fault(item(path, e.Index), e.Value, reason)
	}
	listed := make(map[string]bool, len(p.Origins))
	for _, o := range p.Origins {
		listed[o] = true
	}
	for i, o := range p.Origins {
		if other := coveredBy(o, listed); other != "" {
			c.warn(item(path, i), o, fmt.Sprintf("%q covers it already", other))
		}
	}
	return set
}

// originFault takes apart what package web says about an origin.
func originFault(s string, err error) (value, reason string) {
	var suggest string
	var (
		oe *web.OriginError
		pe *web.PatternError
	)
	switch {
	case errors.As(err, &oe):
		value, reason, suggest = oe.Value, oe.Reason, oe.Suggest
	case errors.As(err, &pe):
		value, reason, suggest = pe.Value, pe.Reason, pe.Suggest
	default:
		return s, err.Error()
	}
	if suggest != "" {
		reason += fmt.Sprintf("; write %q", suggest)
	}
	return value, reason
}

// coveredBy returns the pattern of the list that covers the entry, or "". It tries the
// patterns that could: one for each domain above, and those with any port.
func coveredBy(entry string, listed map[string]bool) string {
	scheme, host, ok := strings.Cut(entry, "://")
	if !ok {
		return ""
	}
	port := ""
	if i := strings.LastIndexByte(host, ':'); i > strings.LastIndexByte(host, ']') {
		host, port = host[:i], host[i:]
	}
	if all := scheme + "://" + host + ":*"; port != ":*" && listed[all] {
		return all
	}
	base := strings.TrimPrefix(host, "*.")
	for {
		if _, base, ok = strings.Cut(base, "."); !ok {
			return ""
		}
		for _, p := range []string{port, ":*"} {
			if above := scheme + "://*." + base + p; listed[above] {
				return above
			}
		}
	}
}

func (c *compiler) methods(path string, list []string) {
	if !c.once(path, false) {
		return
	}
	if len(list) == 0 {
		c.fault(path, "", "none, so every request would be refused")
	}
	for i, m := range list {
		if m != "" {
			c.method(item(path, i), m, m)
		}
	}
}

// method judges the name of a method in a value, and reports whether it can be allowed.
func (c *compiler) method(path, value, m string) bool {
	err := cors.CheckMethod(m)
	if err != nil {
		c.fault(path, value, strings.TrimPrefix(err.Error(), fmt.Sprintf("%q: ", m)))
	}
	return err == nil
}

// headerNames judges each name alone, as the only one in a policy of package cors, so
// that its fault has a place.
func (c *compiler) headerNames(path string, list []string, credentials bool, alone func(one []string) cors.Policy) {
	if !c.once(path, credentials) {
		return
	}
	for i, n := range list {
		if n == "" {
			continue
		}
		_, faults := cors.New(alone(list[i : i+1]))
		for _, err := range faults {
			_, reason, _ := strings.Cut(err.Error(), ": ")
			for _, quoted := range []string{n, strings.ToLower(n)} {
				reason = strings.TrimPrefix(reason, fmt.Sprintf("%q: ", quoted))
			}
			c.fault(item(path, i), n, reason)
		}
	}
}

func (c *compiler) scrubAlso(path string, names []string) {
	if !c.once(path, false) {
		return
	}
	for i, n := range names {
		if n != "" && !httpguts.ValidHeaderFieldName(strings.TrimSuffix(n, "*")) {
			c.fault(item(path, i), n, "not a header name")
		}
	}
}

func (c *compiler) scrubPass(path string, names []string) {
	if !c.once(path, false) {
		return
	}
	for i, n := range names {
		folded := web.FoldName(n)
		switch at := item(path, i); {
		case n == "":
		case !httpguts.ValidHeaderFieldName(n) || strings.Contains(n, "*"):
			c.fault(at, n, "not a header name")
		case c.owned[folded] != "":
			c.fault(at, n, c.owned[folded]+" sets this header, and a client must not be able to pose as moat")
		case folded == "x-forwarded-for" || folded == "x-forwarded-proto" || folded == "x-forwarded-host":
			c.fault(at, n, "moat sets this header itself")
		}
	}
}
