package config

import (
	"bytes"
	"crypto/tls"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/moat-gateway/moat/gateway"
	"github.com/moat-gateway/moat/guard/budget"
	"github.com/moat-gateway/moat/guard/clientaddr"
	"github.com/moat-gateway/moat/guard/ratelimit"
	"github.com/moat-gateway/moat/store/valkey"
	"github.com/moat-gateway/moat/web"
)

// Loaded is a configuration without faults.
type Loaded struct {
	Gateway gateway.Config
	Server  gateway.ServerConfig
	// Valkey is the store that the rate limits are shared through, or nil. Whoever runs the
	// gateway opens it, and puts it into Gateway.SharedLimits.
	Valkey *valkey.Config
	// SpentFile is where what has been spent of budgets is kept, or "". Whoever runs the gateway opens it,
	// unless there is a Valkey, and puts it into Gateway.Spent.
	SpentFile string
	// KeyFiles are those with API keys. Whoever runs the gateway opens them, and puts what
	// they hold into Gateway.Callers.Keys, which has one for each.
	KeyFiles []KeyFile
	// Tests are those of the file. They have not been run.
	Tests []Test
	// Warnings do not keep the gate from starting.
	Warnings Faults
	// Files are all that were read: watch them for changes.
	Files []string

	source       *file
	at           map[string]position
	text         []byte
	valkeyPEM    []byte                             // the certificates of Valkey, to tell whether it is the same
	certificates []*atomic.Pointer[tls.Certificate] // of Server.Listeners; nil without TLS
}

// KeyFile is a file with API keys.
type KeyFile struct {
	// Source is its name under auth.
	Source string
	// Path is as this machine has it.
	Path string
}

// Renew puts the certificates of next, which was loaded later, in the place of those
// that l's listeners serve. It returns the names of the settings that differ and take
// effect only when the gate is started anew.
func (l *Loaded) Renew(next *Loaded) (restart []string) {
	for i, cert := range l.certificates {
		for j, newer := range next.certificates {
			if cert != nil && newer != nil && l.source.Listen[i].Address == next.source.Listen[j].Address {
				cert.Store(newer.Load())
			}
		}
	}
	was, is := reflect.ValueOf(l.source.bound()), reflect.ValueOf(next.source.bound())
	for _, f := range fields[was.Type()] {
		switch f.name {
		case "listen", "admin", "limits", "shutdown", "store":
			if !reflect.DeepEqual(was.FieldByIndex(f.index).Interface(), is.FieldByIndex(f.index).Interface()) {
				restart = append(restart, f.name)
			}
		}
	}
	// What remembers uses keeps its size: another one would have forgotten them.
	if was, is := l.Gateway.Tickets, next.Gateway.Tickets; was != nil && is != nil && was.Memory != is.Memory {
		restart = append(restart, "tickets.memory")
	}
	return restart
}

// SameStore reports whether next, which was loaded later, has the same Valkey: then it
// need not be opened anew.
func (l *Loaded) SameStore(next *Loaded) bool {
	return (l.Valkey == nil) == (next.Valkey == nil) &&
		reflect.DeepEqual(l.source.Store.Valkey, next.source.Store.Valkey) && bytes.Equal(l.valkeyPEM, next.valkeyPEM)
}

// bound is the file without what can change while the gate listens: which certificates
// it has.
func (f *file) bound() file {
	b := *f
	b.Store.Valkey = valkeyStore{} // is exchanged while the gate runs
	b.Listen = slices.Clone(f.Listen)
	for i := range b.Listen {
		if b.Listen[i].TLS != (keyPair{}) {
			b.Listen[i].TLS = keyPair{Certificate: "any", Key: "any"}
		}
	}
	return b
}

// compiler judges what the fields of a decoded file mean together. It runs even if the
// decoder found faults, so that all are told at once; what the decoder has already
// complained about holds its default or nothing, and is passed over.
type compiler struct {
	*decoder
	f    *file
	out  *Loaded
	sets map[setKey]*web.OriginSet
	// judged are the lists that once has been asked about.
	judged map[string]bool
	// owned are the headers that moat sets on requests, folded, and the upstream's path.
	owned map[string]string
	// used are the paths of the upstreams and policies that a route names.
	used map[string]bool
	// rules are the rate limits that have no fault.
	rules map[string]ratelimit.Rule
	// budgetRules are the budgets that have no fault.
	budgetRules map[string]budget.Rule
	// modes are those in which the rate limits are in force, a bit for each.
	modes map[string]uint
	// documents are those that routes hold bodies to.
	documents map[documentKey]*compiledDocument
	// byName and byMatch are the indexes of the routes.
	byName, byMatch map[string]int
}

func (d *decoder) compile() (*Loaded, error) {
	c := &compiler{
		decoder: d, f: d.root, out: &Loaded{source: d.root},
		sets: make(map[setKey]*web.OriginSet), judged: make(map[string]bool), owned: make(map[string]string), used: make(map[string]bool),
		budgetRules: make(map[string]budget.Rule),
		rules:       make(map[string]ratelimit.Rule), modes: make(map[string]uint), documents: make(map[documentKey]*compiledDocument), byName: make(map[string]int), byMatch: make(map[string]int),
	}
	c.publicOrigins()
	c.trust()
	c.server()
	c.store()
	for _, name := range keys(c.f.Upstreams) {
		c.upstream(name)
	}
	for _, name := range keys(c.f.RateLimits) {
		c.rateLimit(name)
	}
	for _, name := range keys(c.f.Budgets) {
		c.budget(name)
	}
	for _, name := range keys(c.f.Policies) {
		p := c.f.Policies[name]
		path := join("policies", name)
		c.policy(&p, func(field string) string { return join(path, field) })
	}
	c.auth()
	c.routes()
	c.csrfOrigins()
	c.alerts()
	c.tickets()
	c.bots()
	c.budgetStore()
	c.unused()
	for i := range c.f.Tests {
		c.test(i)
	}
	c.out.Gateway.Overrides = d.dangerous
	if len(d.faults) > 0 {
		return nil, d.faults.sorted()
	}
	c.out.Warnings, c.out.Files = d.warnings.sorted(), d.files
	c.out.at = d.at
	return c.out, nil
}

func (c *compiler) publicOrigins() {
	if c.has("public_origins") && c.f.PublicOrigins != nil && len(c.f.PublicOrigins) == 0 {
		c.fault("public_origins", "", "none, so every request would be refused")
	}
	for i, s := range c.f.PublicOrigins {
		path := item("public_origins", i)
		o, err := web.ParseOrigin(s)
		switch {
		case s == "": // the decoder has complained
		case strings.Contains(s, "*"):
			c.fault(path, s, "no pattern can stand here; list each origin under which clients know the gate")
		case err != nil:
			value, reason := originFault(s, err)
			c.fault(path, value, reason)
		case o.Scheme() != "https" && o.Scheme() != "http":
			c.fault(path, s, "the gate serves https: and http: only")
		case o.Scheme() == "http" && !o.Loopback() && !c.f.InsecurePublicOrigins:
			c.fault(path, s, "pages of an http: origin are anybody's on the network path; write https:, which is right behind a proxy that ends TLS too, or set dangerously_allow_insecure_public_origins")
		default:
			c.out.Gateway.PublicOrigins = append(c.out.Gateway.PublicOrigins, o)
		}
	}
}

func (c *compiler) trust() {
	t := c.f.TrustedProxies
	c.out.Gateway.Trust = clientaddr.Trust{Proxies: t.From, Header: clientaddr.Header(t.Header), Host: t.Host}
	c.out.Gateway.ClientAddrMode = t.Mode
	if c.has("trusted_proxies.from") && t.From != nil && len(t.From) == 0 {
		c.fault("trusted_proxies.from", "", "names no proxy; remove the block if there is none")
	}
	c.ranges("trusted_proxies.from", t.From)
}

func (c *compiler) unused() {
	for _, name := range keys(c.f.RateLimits) {
		if path := join("rate_limits", name); !c.used[path] {
			c.warn(path, "", "no route uses it")
		}
	}
	for _, name := range keys(c.f.Models) {
		if path := join("models", name); !c.used[path] {
			c.warn(path, "", "no route offers it")
		}
	}
	for _, name := range keys(c.f.Budgets) {
		if path := join("budgets", name); !c.used[path] {
			c.warn(path, "", "no route uses it")
		}
	}
	for _, name := range keys(c.f.Auth) {
		if path := join("auth", name); !c.used[path] {
			c.warn(path, "", "no route names it")
		}
	}
	for _, name := range keys(c.f.Upstreams) {
		if path := join("upstreams", name); !c.used[path] {
			c.warn(path, "", "no route uses it")
		}
	}
	for _, name := range keys(c.f.Policies) {
		if path := join("policies", name); !c.used[path] {
			c.warn(path, "", "no route uses it")
		}
	}
}
