package browser

import (
	"fmt"
	"time"
)

// Browser is one browser with what it remembers: cookies, preflights and answers. It is
// not safe for concurrent use. Make one with New.
type Browser struct {
	Profile *Profile
	Jar     Jar
	// BlockThirdPartyCookies is the user's setting.
	BlockThirdPartyCookies bool
	// LocalNetworkAllowed is set if the user granted pages the permission.
	LocalNetworkAllowed bool
	// Space says in which address space a host, with its port if it has one, is. SpaceOf
	// judges by name.
	Space func(hostport string) AddressSpace

	permits map[permitKey]*permit
	cache   map[string]cached
}

// New makes a browser that has been nowhere yet.
func New(p *Profile) *Browser {
	return &Browser{Profile: p, Space: SpaceOf, permits: map[permitKey]*permit{}, cache: map[string]cached{}}
}

// SetCookie puts a cookie into the jar as if an answer from the URL had set it, in a tab
// of the site of top ("" for the URL's own). It says why a browser would not keep it.
func (b *Browser) SetCookie(from, line, top string, at time.Time) error {
	u, err := parseURL(from, nil)
	if err != nil {
		return err
	}
	c := cookieContext{sameSite: strict, partition: partitionKey(u.origin.Site(), false)}
	if top != "" {
		t, bad := parseURL(top, nil)
		if bad != nil {
			return bad
		}
		if !b.Profile.sameSite(t.origin, u.origin) {
			c = cookieContext{thirdParty: true, partition: partitionKey(t.origin.Site(), true), partitionAll: b.Profile.PartitionsThirdPartyCookies}
		}
	}
	name, err := b.Jar.set(b.Profile, u, line, c, at)
	if err != nil {
		return fmt.Errorf("cookie %q: %w", name, err)
	}
	return nil
}

// Do makes the request in the page and follows it to its end. The server is asked for
// each request that leaves the browser.
func (b *Browser) Do(now time.Time, page Page, req Request, server Server) (Trace, error) {
	l, err := b.newLoad(now, page, req, server)
	if err != nil {
		return Trace{}, err
	}
	l.run()
	return l.t, nil
}

// Run plays the case from its beginning, at the given time.
func (c *Case) Run(now time.Time) ([]Trace, error) {
	return c.RunWith(now, c.Serve)
}

// RunWith is Run with another server than the case's own rules.
func (c *Case) RunWith(now time.Time, server Server) ([]Trace, error) {
	p, err := ProfileNamed(c.Browser.Profile)
	if err != nil {
		return nil, err
	}
	b := New(p)
	b.BlockThirdPartyCookies, b.LocalNetworkAllowed = c.Browser.BlockThirdPartyCookies, c.Browser.LocalNetworkAllowed
	b.Space = func(host string) AddressSpace {
		if s, ok := c.Browser.Addresses[host]; ok {
			return s
		}
		if name, _, ok := cutPort(host); ok {
			if s, listed := c.Browser.Addresses[name]; listed {
				return s
			}
		}
		return SpaceOf(host)
	}
	for _, s := range c.Browser.Cookies {
		if err := b.SetCookie(s.URL, s.SetCookie, s.Top, now.Add(-time.Duration(s.Age)*time.Second)); err != nil {
			return nil, err
		}
	}
	var traces []Trace
	for _, r := range c.Requests {
		t, err := b.Do(now, c.Page, r, server)
		if err != nil {
			return nil, err
		}
		traces = append(traces, t)
	}
	return traces, nil
}
