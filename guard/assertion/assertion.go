package assertion

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"

	"github.com/moat-gateway/moat/guard/identity"
	"github.com/moat-gateway/moat/web"
)

// MaxBytes is how long all that is said about one principal may be, in bytes of header
// values. Servers bound the head of a request: with 8 KiB for a line, or 16 for all lines.
const MaxBytes = 8 << 10

// ErrExpired is the error of Set for a principal whose credential ends before a token could
// begin: its verifier's leeway let it pass.
var ErrExpired = errors.New("assertion: the caller's credential has expired, and a token may not outlive it")

// Policy says what an upstream is told.
type Policy struct {
	// Headers are the names of headers, and what of the principal each holds: sub, iss, source,
	// method, scopes, roles, credential, id, or "claim:" and the path of a claim.
	Headers map[string]string
	// Token is a signed token, or nil.
	Token *TokenPolicy
}

// Guard is a compiled Policy. It is safe for concurrent use, and remembers what it has said
// about at most 16,384 principals.
type Guard struct {
	names   []string // in canonical form; the token's is the last one
	sources []source // of the headers, in the order of names
	token   *token   // or nil
	table   *table
}

// source is where a header's value comes from.
type source struct {
	what string
	path string // of a claim
}

// New compiles a Policy, or says everything that is wrong with it.
func New(p Policy, s *Signer) (*Guard, error) {
	g := &Guard{table: newTable()}
	var errs []error
	if len(p.Headers) == 0 && p.Token == nil {
		errs = append(errs, errors.New("nothing is said about the caller: name headers, or a token"))
	}
	folded := make(map[string]string)
	for _, name := range slices.Sorted(maps.Keys(p.Headers)) {
		src, err := parseSource(p.Headers[name])
		if err != nil {
			errs = append(errs, fmt.Errorf("headers: %s: %w", name, err))
		}
		if err = claimName(folded, name); err != nil {
			errs = append(errs, fmt.Errorf("headers: %w", err))
		}
		g.names, g.sources = append(g.names, http.CanonicalHeaderKey(name)), append(g.sources, src)
	}
	if p.Token != nil {
		name := http.CanonicalHeaderKey(p.Token.Header)
		// A caller's own token stands there, and the upstream believes it: none but a better one may.
		if name != "Authorization" {
			if err := claimName(folded, p.Token.Header); err != nil {
				errs = append(errs, fmt.Errorf("token: header: %w", err))
			}
		}
		var err error
		if g.token, err = newToken(*p.Token, s); err != nil {
			errs = append(errs, fmt.Errorf("token: %w", err))
		}
		g.names = append(g.names, name)
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return g, nil
}

var plain = []string{"sub", "iss", "source", "method", "scopes", "roles", "credential", "id"}

func parseSource(text string) (source, error) {
	if path, ok := strings.CutPrefix(text, "claim:"); ok && path != "" {
		return source{"claim", path}, nil
	}
	if !slices.Contains(plain, text) {
		return source{}, fmt.Errorf(`%q is nothing that is known of a caller; it is one of %s, or "claim:" and a path`, text, strings.Join(plain, ", "))
	}
	return source{what: text}, nil
}

// claimName adds a header's name to those that are taken, if it may be.
func claimName(taken map[string]string, name string) error {
	folded := web.FoldName(name)
	switch other, twice := taken[folded]; {
	case !httpguts.ValidHeaderFieldName(name):
		return fmt.Errorf("%q is no name of a header", name)
	case twice:
		return fmt.Errorf("%q and %q are one header to many servers; set one", other, name)
	case reserved(folded):
		return fmt.Errorf("%q means something else to servers, or moat sets it; take another name, such as X-User", name)
	}
	taken[folded] = name
	return nil
}

// others are names, folded, that HTTP or the gate gives another meaning. A name that ends in
// "*" stands for all that begin so.
var others = []string{
	"host", "connection", "keep-alive", "proxy-*", "te", "trailer", "transfer-encoding", "upgrade", "http2-settings", "content-*",
	"expect", "accept", "accept-*", "access-control-*", "authorization", "cookie", "cookie2", "origin", "referer", "sec-*", "range",
	"if-*", "cache-control", "pragma", "date", "via", "forwarded", "x-forwarded-*", "x-http-method*", "x-method-override", "moat-ticket",
}

// kept are the names below X-Forwarded- that only ever meant the user, to those who come from oauth2-proxy.
var kept = []string{"x-forwarded-user", "x-forwarded-email", "x-forwarded-groups", "x-forwarded-preferred-username"}

func reserved(folded string) bool {
	return !slices.Contains(kept, folded) && slices.ContainsFunc(others, func(o string) bool {
		prefix, open := strings.CutSuffix(o, "*")
		return folded == o || open && strings.HasPrefix(folded, prefix)
	})
}

// Names are the headers that only the gate may set: no client may send one, to whichever
// route and in any spelling. Authorization is not among them, as callers need it elsewhere;
// Set replaces or removes it.
func (g *Guard) Names() []string {
	return slices.DeleteFunc(slices.Clone(g.names), func(n string) bool { return n == "Authorization" })
}

// Set tells in h who calls. Each of the guard's headers is set, or absent where the principal
// has no such value, or there is none; all are absent if there is an error: then the request
// must not go on, as a part of what is known of a caller is something else. Other spellings
// of the names are not looked for: see Scrub. The values must not be changed in place.
func (g *Guard) Set(h http.Header, p *identity.Principal, now time.Time) error {
	var values []string
	var err error
	if p != nil {
		values, err = g.values(p, now.Unix())
	}
	for i, name := range g.names {
		if values == nil || values[i] == "" {
			delete(h, name)
		} else {
			h[name] = values[i : i+1 : i+1]
		}
	}
	return err
}

// Scrub removes the guard's headers from h, in any spelling. It is for requests from which the
// scrub guard has not removed Names: because it only reports, for instance.
func (g *Guard) Scrub(h http.Header) {
	for name := range h {
		if slices.ContainsFunc(g.names, func(n string) bool { return web.FoldName(n) == web.FoldName(name) }) {
			delete(h, name)
		}
	}
}

// values are what the headers hold, in the order of names; "" stands for none.
func (g *Guard) values(p *identity.Principal, now int64) ([]string, error) {
	known, place := g.table.find(p)
	if known != nil && known.fresh(now) {
		return known.values, nil
	}
	if known != nil && known.good(now) && !known.renewing.CompareAndSwap(false, true) {
		return known.values, nil // somebody else makes the next one
	}
	e, err := g.make(p, now)
	if err != nil {
		return nil, err
	}
	place.Store(e)
	return e.values, nil
}

// make says everything anew.
func (g *Guard) make(p *identity.Principal, now int64) (*entry, error) {
	e := &entry{principal: p, values: make([]string, 0, len(g.names)), made: now, expires: now + renewHeaders}
	room := MaxBytes
	for i, src := range g.sources {
		v, err := src.value(p, room)
		if err != nil {
			return nil, fmt.Errorf("assertion: header %s: %w", g.names[i], err)
		}
		e.values, room = append(e.values, v), room-len(v)
	}
	e.renew = e.expires
	if g.token != nil {
		if err := g.token.add(e, room); err != nil {
			return nil, err
		}
	}
	return e, nil
}

// renewHeaders is for how many seconds headers are remembered without a token. They do not
// change; so the table knows who has been here lately.
const renewHeaders = 300

// lifetime is the policy's, in whole seconds.
func lifetime(d time.Duration) (int64, error) {
	d = cmp.Or(d, DefaultLifetime)
	if d < minLifetime || d > maxLifetime {
		return 0, fmt.Errorf("lifetime %s: it is between %s and %s", d, minLifetime, maxLifetime)
	}
	return int64(d / time.Second), nil
}
