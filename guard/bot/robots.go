package bot

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"
)

// A Robot is a program that the operator wants to know, and knows how to tell: by its addresses,
// by its signature, or by either.
type Robot struct {
	Name string
	// UserAgent is a token that its User-Agent has, without regard to case, such as "Googlebot".
	// With it go Domains.
	UserAgent string
	// Domains are those that its addresses resolve to, and that resolve back, such as "googlebot.com".
	Domains []string
	// Agent is the URL in its Signature-Agent, such as "https://agent.example".
	Agent string
	// Keys is a JWK Set with its Ed25519 keys. Without it they are fetched from Agent.
	Keys []byte
}

// RobotsPolicy says which robots are known.
type RobotsPolicy struct {
	Robots []Robot
	// Wait bounds how long a request is held while a name or keys are looked up. Zero holds none.
	Wait time.Duration
	// Resolver resolves addresses and names; nil stands for the system's.
	Resolver *net.Resolver
	// ResolveTimeout bounds both look-ups of an address together; 0 stands for 2 s.
	ResolveTimeout time.Duration
	// Fetch fetches a directory of keys, from where and in how many bytes its caller allows. It is
	// needed if a Robot has an Agent without Keys.
	Fetch func(ctx context.Context, url string) (*http.Response, error)
}

// Robots tells the robots that prove who they are from those that only say so. It is safe for
// concurrent use.
type Robots struct {
	policy RobotsPolicy
	names  *names
	agents map[string]*agent // by the URL of Signature-Agent
	nonces *nonces
}

// Proof is what is known of a robot's claim.
type Proof uint8

const (
	// NoClaim: the request names no robot that is known here.
	NoClaim Proof = iota
	// Unverified: it names one, and nobody knows yet, or could find out.
	Unverified
	// Verified: it is that robot.
	Verified
	// Refuted: it is not: its address is of another domain, or its signature is wrong.
	Refuted
)

// Claim is the robot that a request says that it is from.
type Claim struct {
	Robot string // "" with NoClaim
	Proof Proof
	// Signed says that the claim was a signature (Web Bot Auth), and not a User-Agent.
	Signed bool
	// Why is what was found, for the operator.
	Why string
}

// maxDomains bounds the domains of a robot.
const maxDomains = 32

// NewRobots compiles a policy. The error holds each fault of it.
func NewRobots(p RobotsPolicy) (*Robots, error) {
	if p.Resolver == nil {
		p.Resolver = net.DefaultResolver
	}
	if p.ResolveTimeout == 0 {
		p.ResolveTimeout = 2 * time.Second
	}
	r := &Robots{policy: p, names: newNames(), agents: make(map[string]*agent), nonces: &nonces{until: make(map[[16]byte]time.Time)}}
	var errs []error
	for i := range p.Robots {
		if err := r.add(&p.Robots[i]); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", p.Robots[i].Name, err))
		}
	}
	return r, errors.Join(errs...)
}

func (r *Robots) add(robot *Robot) error {
	byName, bySignature := robot.UserAgent != "" || len(robot.Domains) > 0, robot.Agent != "" || len(robot.Keys) > 0
	switch {
	case !byName && !bySignature:
		return errors.New("nothing to tell it by: give user_agent and domains, or agent")
	case byName && (robot.UserAgent == "" || len(robot.Domains) == 0):
		return errors.New("user_agent and domains go together: the one is what it says, the others prove it")
	case len(robot.Domains) > maxDomains:
		return fmt.Errorf("more than %d domains", maxDomains)
	}
	for _, d := range robot.Domains {
		if err := checkDomain(d); err != nil {
			return fmt.Errorf("domain %q: %w", d, err)
		}
	}
	if !bySignature {
		return nil
	}
	if robot.Agent == "" {
		return errors.New("keys without agent, which is the URL that its signatures name")
	}
	at, err := agentURL(robot.Agent)
	if err != nil {
		return fmt.Errorf("agent %q: %w", robot.Agent, err)
	}
	if r.agents[at] != nil {
		return fmt.Errorf("agent %q is that of %s too", robot.Agent, r.agents[at].robot)
	}
	a := &agent{robot: robot.Name, url: at}
	if len(robot.Keys) > 0 {
		keys, err := parseKeys(robot.Keys)
		if err != nil {
			return fmt.Errorf("keys: %w", err)
		}
		a.keys.Store(&keySnapshot{keys: keys, fixed: true})
	} else if r.policy.Fetch == nil {
		return errors.New("its keys cannot be fetched here")
	}
	r.agents[at] = a
	return nil
}

// checkDomain wants a name of at least two labels: every address under "com" would pass for one.
func checkDomain(d string) error {
	labels := strings.Split(d, ".")
	if len(d) > 253 || len(labels) < 2 {
		return errors.New("not a domain such as googlebot.com, without a dot in front")
	}
	for _, l := range labels {
		if l == "" || len(l) > 63 || strings.Trim(strings.ToLower(l), "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
			return errors.New("not a domain such as googlebot.com, without a dot in front")
		}
	}
	return nil
}

// agentURL is an agent's URL in the one spelling in which it is compared. It is an origin: that is
// what a directory's well-known path belongs to.
func agentURL(s string) (string, error) {
	u, err := url.Parse(s)
	switch {
	case err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || strings.Trim(u.Path, "/") != "":
		return "", errors.New("not a URL such as https://agent.example")
	case u.Scheme != "https" && (u.Scheme != "http" || !loopbackHost(u.Hostname())):
		return "", errors.New("its keys would come without TLS; write https://")
	}
	return u.Scheme + "://" + authority(u.Host, u.Scheme), nil
}

func loopbackHost(host string) bool {
	return host == "localhost" || strings.HasSuffix(host, ".localhost")
}

// Identify says which robot a request is from. Secure says that the client speaks TLS.
//
// It holds the request while something is looked up that nobody has asked for lately, for Wait at
// most. After that the claim is Unverified: the request is then judged as any other, neither as the
// robot nor as an impostor, and the answer serves the next one.
func (r *Robots) Identify(ctx context.Context, req *http.Request, client netip.Addr, secure bool, now time.Time) Claim {
	if len(r.agents) > 0 && req.Header["Signature-Input"] != nil {
		if c := r.signed(ctx, req, secure, now); c.Proof != NoClaim {
			return c
		}
	}
	if says := req.Header["User-Agent"]; len(says) == 1 {
		for i := range r.policy.Robots {
			if robot := &r.policy.Robots[i]; robot.UserAgent != "" && containsFold(says[0], robot.UserAgent) {
				return r.resolved(ctx, robot, client.Unmap(), now)
			}
		}
	}
	return Claim{}
}

// containsFold is strings.Contains without regard to ASCII case, and without a copy.
func containsFold(s, part string) bool {
	for i := 0; i+len(part) <= len(s); i++ {
		if strings.EqualFold(s[i:i+len(part)], part) {
			return true
		}
	}
	return false
}

// Inherit takes over what is remembered, before r is used: a nonce that was spent before a reload is
// spent after it.
func (r *Robots) Inherit(old *Robots) {
	r.names, r.nonces = old.names, old.nonces
	for at, a := range r.agents {
		if before := old.agents[at]; before != nil {
			if s := before.keys.Load(); s != nil && !s.fixed && a.keys.Load() == nil {
				a.keys.Store(s)
			}
		}
	}
}
