package gateway

import (
	"context"
	"errors"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"time"

	"github.com/moat-gateway/moat/guard"
	"github.com/moat-gateway/moat/guard/bot"
	"github.com/moat-gateway/moat/guard/egress"
)

// robotsWait is how long a request that names a robot is held while its proof is looked up.
const robotsWait = 250 * time.Millisecond

// compileRobots lets the keys of robots be fetched from where their agents are, and from nowhere else.
func (b *Bots) compileRobots() (*bot.Robots, error) {
	if len(b.Robots) == 0 {
		return nil, nil //nolint:nilnil // there are none
	}
	p := egress.Policy{
		MaxBytes: bot.MaxDirectoryBytes, Timeout: 5 * time.Second, Resolver: b.Resolver,
		ContentTypes: []string{"application/http-message-signatures-directory+json", "application/jwk-set+json", "application/json"},
	}
	for _, r := range b.Robots {
		u, err := url.Parse(r.Agent)
		if err != nil || u.Host == "" || len(r.Keys) > 0 || slices.Contains(p.Hosts, u.Host) {
			continue // what is wrong with it is told below
		}
		p.Hosts = append(p.Hosts, u.Host)
		if u.Scheme == "http" { // which only a robot on this machine may have
			p.DangerouslyAllowNetworks = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}
		}
	}
	from, err := egress.New(p)
	if err != nil {
		return nil, err
	}
	return bot.NewRobots(bot.RobotsPolicy{
		Robots: b.Robots, Wait: robotsWait, Resolver: b.Resolver,
		Fetch: func(ctx context.Context, at string) (*http.Response, error) {
			res, d, err := from.Fetch(ctx, http.MethodGet, at, nil)
			if d.Outcome == guard.Deny {
				err = errors.New(d.Reason.String() + ": " + d.Evidence.Where + " is " + d.Evidence.Got + ", want " + d.Evidence.Want)
			}
			return res, err
		},
	})
}
