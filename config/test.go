package config

import (
	"cmp"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/net/http/httpguts"

	"github.com/moat-gateway/moat/gateway"
	"github.com/moat-gateway/moat/guard"
	"github.com/moat-gateway/moat/guard/identity"
	"github.com/moat-gateway/moat/guard/identity/assume"
)

// allow is what a Test expects of a request that reaches the upstream.
const allow = "allow"

// expectable are the codes that the head of a request alone can lead to.
func expectable() []string {
	codes := []string{allow, guard.CORSPreflightApproved.String()}
	for _, r := range guard.Reasons() {
		if r.Status() != 0 && r.Step() != guard.Wire && r.Step() != guard.Upstream && r.Step() != guard.RateLimit && r.Step() != guard.Budget && r != guard.BodyTooSlow {
			codes = append(codes, r.String())
		}
	}
	return codes
}

// test judges the i-th test, which will be run later.
func (c *compiler) test(i int) {
	t, at := &c.f.Tests[i], item("tests", i)
	req := join(at, "request")
	if t.Expect != "" && !slices.Contains(expectable(), t.Expect) {
		reason := "not the code of a reason"
		if r, known := guard.ParseReason(t.Expect); known && r.Status() == 0 {
			reason = "refuses nothing; write allow for a request that passes"
		} else if known {
			reason = "no request is refused with this code by its head alone"
		}
		c.fault(join(at, "expect"), t.Expect, reason+c.didYouMean(t.Expect, slices.Values(expectable())))
	}
	if _, known := guard.ParseReason(t.Reports); !known && t.Reports != "" {
		c.fault(join(at, "reports"), t.Reports, "not the code of a reason"+c.didYouMean(t.Reports, slices.Values(expectable())))
	}
	if t.Request.URL != "" {
		u, err := url.Parse(t.Request.URL)
		switch {
		case err != nil, u.Scheme != "https" && u.Scheme != "http", u.Host == "":
			c.fault(join(req, "url"), "", "not an http: or https: URL as a client has it")
		case u.User != nil:
			c.fault(join(req, "url"), "", "no client sends a name and password in the URL; set a header")
		}
	}
	if !httpguts.ValidHeaderFieldName(t.Request.Method) {
		c.fault(join(req, "method"), t.Request.Method, "not a method name")
	}
	for _, h := range keys(t.Request.Headers) {
		value := t.Request.Headers[h]
		if _, err := strconv.ParseUint(value, 10, 63); http.CanonicalHeaderKey(h) == "Content-Length" && err != nil && value != "" {
			c.fault(join(join(req, "headers"), h), value, "not a number of bytes")
		}
		if !httpguts.ValidHeaderFieldValue(value) {
			c.fault(join(join(req, "headers"), h), "", "the value holds a control character")
		}
	}
	if _, ok := c.byName[t.Route]; !ok && t.Route != "" {
		c.fault(join(at, "route"), t.Route, "no route has this name"+c.didYouMean(t.Route, maps.Keys(c.byName)))
	}
	if as := t.Request.As; as.Auth != "" {
		if _, known := c.f.Auth[as.Auth]; !known {
			c.fault(join(join(req, "as"), "auth"), as.Auth, "none of the auth has this name"+c.didYouMean(as.Auth, maps.Keys(c.f.Auth)))
		}
		t.Request.As.method = c.f.Auth[as.Auth].method()
	}
	t.at = c.describe(at, t.Name, "")
	c.out.Tests = append(c.out.Tests, *t)
}

// Run asks g what it would do with the request, and returns a Fault if that is not what
// the test expects.
func (t Test) Run(g *gateway.Gateway) error {
	q := t.Request
	r, err := gateway.Vector{Method: q.Method, URL: q.URL, Headers: q.Headers, From: q.From}.Request()
	if err != nil {
		return t.failed(err.Error())
	}
	v := g.Decide(r, gateway.Assumed{Ticket: q.Ticket, CSRF: q.CSRF, Caller: q.As.principal()})
	got := allow
	if v.Decision.Ends() {
		got = v.Decision.Reason.String()
	}
	switch {
	case got != t.Expect:
		return t.failed(fmt.Sprintf("expected %s, got %s", t.Expect, got) + because(t.Expect, v))
	case t.Reports != "" && !slices.ContainsFunc(v.Reports, func(d guard.Decision) bool { return d.Reason.String() == t.Reports }):
		return t.failed(fmt.Sprintf("expected a report of %s, got %s", t.Reports, reports(v)))
	case t.Route != "" && t.Route != v.Route:
		return t.failed(fmt.Sprintf("expected route %q, got %q", t.Route, v.Route))
	}
	return nil
}

func (t Test) failed(reason string) error {
	f := t.at
	f.Reason = reason
	return f
}

// reports are the codes of what was only recorded.
func reports(v gateway.Verdict) string {
	var codes []string
	for _, d := range v.Reports {
		codes = append(codes, d.Reason.String())
	}
	return cmp.Or(strings.Join(codes, ", "), "none")
}

// because says what the gate saw.
func because(expected string, v gateway.Verdict) string {
	var b strings.Builder
	if v.Route == "" {
		b.WriteString(", and no route matches")
	} else {
		fmt.Fprintf(&b, " on route %q", v.Route)
	}
	if d := v.Decision; d.Denied() {
		fmt.Fprintf(&b, "; %s is %q, want %s; %s", d.Evidence.Where, d.Evidence.Got, d.Evidence.Want, d.Fix())
	}
	for _, d := range v.Reports {
		if d.Reason.String() == expected {
			fmt.Fprintf(&b, "; %s is in report mode, so it only recorded that", d.Reason.Step())
		}
	}
	return b.String()
}

// principal is the caller that a test takes for granted, or nil.
func (c testCaller) principal() *identity.Principal {
	if c.Auth == "" {
		return nil
	}
	claims := make(map[string]any)
	for name, value := range c.Claims {
		claims[name] = claimValue(value)
	}
	return assume.Principal(assume.Who{Source: c.Auth, Subject: c.Subject, Method: c.method, Scopes: c.Scopes, Roles: c.Roles, Claims: claims})
}

// method is how the callers of an auth are identified.
func (a auth) method() identity.Method {
	switch {
	case a.APIKey.File != "":
		return identity.APIKey
	case a.Introspection.URL != "":
		return identity.Introspection
	case a.Login.Issuer != "":
		return identity.Session
	}
	return identity.JWT
}
