package ticket

import (
	"cmp"
	"context"
	"crypto/ecdh"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/moat-gateway/moat/guard"
)

const (
	// DefaultLifetime is how long a ticket lives where the policy does not say.
	DefaultLifetime = 2 * time.Minute
	// slack is what the clocks of processes that share a secret may differ by.
	slack = 5 * time.Second
	// renewable is how long after its end a ticket can be renewed: a laptop sleeps.
	renewable = 24 * time.Hour
	// spaceIssuer and SpaceChallenge are the spaces of Store.Once.
	spaceIssuer = 1
	// SpaceChallenge is for solved challenges.
	SpaceChallenge = 2
)

// Policy is what tickets are like.
type Policy struct {
	// Secrets have 32 random bytes or more each. The first one issues, all are honoured:
	// to rotate, put a new one in front, and take the old one away a day later. Processes
	// that share a Store have the same.
	Secrets [][]byte
	// Issuers are the secrets that the page's own backends issue tickets with.
	Issuers [][]byte
	// Lifetime of a ticket; 0 means DefaultLifetime, and more than MaxLifetime is refused.
	Lifetime time.Duration
	// Uses is how many calls a ticket is good for; 0 means MaxUses, which is the most.
	Uses int
}

// Guard is a compiled Policy: immutable, and safe for concurrent use. Its memory is in
// its Stores.
type Guard struct {
	lifetime time.Duration
	uses     byte
	secrets  [][]byte // extracted
	wrapping [][]byte // of each secret, what visitors' wrapping keys are made of
	local    Store
	process  *keys
	shared   Store // or nil
	// sharedKeys are those of the shared store's lineage, as far as it is known.
	sharedKeys atomic.Pointer[keys]
	issuers    *keys
	agreement  atomic.Pointer[agreement]
	agreeing   sync.Mutex
}

// agreement is the gate's half of the key agreement. It lives for an hour.
type agreement struct {
	private *ecdh.PrivateKey
	public  string
	made    time.Time
}

// New compiles a Policy. Uses are remembered in local, and in shared where there is one: then
// tickets are good in every process that shares it, and while it does not answer, those
// issued meanwhile only in the process that issued them.
func New(p Policy, local, shared Store) (*Guard, error) {
	g := &Guard{lifetime: cmp.Or(p.Lifetime, DefaultLifetime), uses: byte(cmp.Or(p.Uses, MaxUses)), local: local, shared: shared} //nolint:gosec // checked below.
	var errs []error
	if g.lifetime < time.Second || g.lifetime > MaxLifetime {
		errs = append(errs, fmt.Errorf("lifetime %s: it is between 1s and %s", g.lifetime, MaxLifetime))
	}
	if p.Uses < 0 || p.Uses > MaxUses {
		errs = append(errs, fmt.Errorf("uses %d: a ticket is good for 1 to %d calls", p.Uses, MaxUses))
	}
	if len(p.Secrets) == 0 {
		errs = append(errs, errors.New("no secret"))
	}
	var err error
	if g.secrets, err = extract(p.Secrets); err != nil {
		errs = append(errs, err)
	}
	issuers, err := extract(p.Issuers)
	if err != nil {
		errs = append(errs, fmt.Errorf("issuers: %w", err))
	}
	l, _, ok := local.Lineage()
	if !ok {
		errs = append(errs, errors.New("the store of this process has no lineage"))
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	for _, s := range g.secrets {
		g.wrapping = append(g.wrapping, expand(s, "wrapping keys", 32))
	}
	g.process, g.issuers = newKeys(classProcess, l, g.secrets), newKeys(classIssuer, Lineage{}, issuers)
	return g, nil
}

// Facts are what a request is judged by.
type Facts struct {
	Now time.Time
	// Client is the client's address, as package clientaddr tells it.
	Client netip.Addr
	// StreamedBody accepts bodies that the proof does not cover, as the token says openly.
	StreamedBody bool
	// Pass accepts a pass in the place of a token: nothing of the request is proved then.
	Pass bool
	// Dry marks nothing as used.
	Dry bool
}

// Honoured is what is known of a call that was let through. The zero value is known of one that had no
// ticket, in a mode that does not ask for one.
type Honoured struct {
	Visitor Visitor
	// Hashed says that the body has to have this SHA-256: see NewBody.
	Hashed bool
	Digest [32]byte
}

// Decide judges a call. It changes nothing of the request; see Strip.
func (g *Guard) Decide(ctx context.Context, r *http.Request, x Facts) (Honoured, guard.Decision) {
	at := find(r)
	if at.token == "" {
		return g.decidePass(ctx, r, x)
	}
	p := proof{label: labelCall, method: r.Method, target: at.target}
	if !p.parse(at.token) {
		return Honoured{}, deny(guard.TicketMalformed, "", "a token of docs/ticket-format.md")
	}
	if p.body == bodyNone && r.ContentLength != 0 || p.body == bodyStreamed && !x.StreamedBody {
		return Honoured{}, deny(guard.TicketBodyUnproved, bodyNames[p.body], "the SHA-256 of the body")
	}
	if p.body == bodyHashed && r.ContentLength == 0 {
		return Honoured{}, deny(guard.TicketBodyDiffers, "no body", "the body that the proof covers")
	}
	f, d := g.open(x.Now, &p, slack)
	if d.Denied() {
		return Honoured{}, d
	}
	if d = f.meant(r, x.Client); d.Denied() {
		return Honoured{}, d
	}
	if p.index >= f.uses || f.flags != 0 {
		return Honoured{}, deny(guard.TicketMalformed, "", "an index below the ticket's uses")
	}
	if !x.Dry {
		if d = g.use(ctx, &f, p.index); d.Denied() {
			return Honoured{}, d
		}
	}
	return Honoured{Visitor: f.visitor, Hashed: p.body == bodyHashed, Digest: p.digest}, guard.Decision{Reason: guard.TicketHonoured}
}

var bodyNames = [...]string{bodyNone: "no digest", bodyHashed: "a digest", bodyStreamed: "a stream"}

// deny never says what the token was: it may be good yet.
func deny(r guard.Reason, got, want string) guard.Decision {
	return guard.Denial(r, "ticket", got, want)
}

// open reads a ticket whose proof fits one of the keys that it may be of, and that
// expired at most late ago.
func (g *Guard) open(now time.Time, p *proof, late time.Duration) (f fields, d guard.Decision) {
	t := &p.ticket
	ks := g.keysOf(t[0])
	if ks == nil {
		return f, deny(guard.TicketKeyUnknown, className(t[0]), "a ticket that is known here")
	}
	exp, at := int64(expires(t)), now.Unix()
	if at > exp+int64(late/time.Second) || exp > at+int64((g.lifetime+slack)/time.Second) {
		return f, deny(guard.TicketExpired, time.Unix(exp, 0).UTC().Format(time.RFC3339), "a time that is not over, and not too far ahead")
	}
	e, first, known := ks.find(p)
	switch {
	case !known:
		return f, deny(guard.TicketKeyUnknown, className(t[0]), "a ticket that is known here")
	case e == nil:
		return f, deny(guard.TicketProofInvalid, "", "a proof over this method, path, query and body")
	}
	f.read(t, &p.opened)
	f.keys, f.newest = ks, first
	return f, guard.Decision{}
}

func className(class byte) string {
	switch class {
	case classProcess:
		return "of another process"
	case classShared:
		return "of a shared store's past, or of one that does not answer"
	case classIssuer:
		return "of an unknown issuer"
	}
	return "of an unknown class"
}

// keysOf are the keys of a class, or nil.
func (g *Guard) keysOf(class byte) *keys {
	switch class {
	case classProcess:
		return g.process
	case classIssuer:
		if g.shared != nil {
			if _, _, ok := g.shared.Lineage(); !ok {
				return nil // the client can get another one meanwhile
			}
		}
		return g.issuers
	case classShared:
		if g.shared == nil {
			return nil
		}
		if l, _, ok := g.shared.Lineage(); ok {
			return g.keysOfLineage(l)
		}
	}
	return nil
}

func (g *Guard) keysOfLineage(l Lineage) *keys {
	if k := g.sharedKeys.Load(); k != nil && k.lineage == l {
		return k
	}
	k := newKeys(classShared, l, g.secrets)
	g.sharedKeys.Store(k)
	return k
}

// meant reports whether the ticket is this client's, and this page's.
func (f *fields) meant(r *http.Request, client netip.Addr) guard.Decision {
	if origin := r.Header["Origin"]; f.origin != 0 && len(origin) > 0 && originOf(origin[0]) != f.origin {
		// Without an Origin the request is a same-origin GET, or none that script made.
		return deny(guard.TicketOtherOrigin, origin[0], "the origin of the page that got the ticket")
	}
	if !f.bind.fits(BindTo(client, userAgent(r))) {
		return deny(guard.TicketMoved, "another network or browser", "the client that got the ticket")
	}
	return guard.Decision{}
}

func userAgent(r *http.Request) string {
	if v := r.Header["User-Agent"]; len(v) > 0 {
		return v[0]
	}
	return ""
}

// use marks a use, and lets only the first one through.
func (g *Guard) use(ctx context.Context, f *fields, index byte) guard.Decision {
	first, err := false, error(nil)
	switch f.class {
	case classProcess:
		first, err = g.local.Use(ctx, f.keys.lineage, f.number, index)
	case classShared:
		first, err = g.shared.Use(ctx, f.keys.lineage, f.number, index)
	case classIssuer:
		first, err = g.useIssued(ctx, f, index)
	}
	switch {
	case err != nil:
		return deny(guard.TicketUnavailable, err.Error(), "a store that answers")
	case !first:
		return deny(guard.TicketUsed, "", "a use that is the first")
	}
	return guard.Decision{}
}

// useIssued marks a use of a ticket that a page's backend has numbered. All processes that
// know the issuer have to agree, so no other store will do while the shared one does not
// answer.
func (g *Guard) useIssued(ctx context.Context, f *fields, index byte) (bool, error) {
	s := g.shared
	if s == nil {
		s = g.local
	}
	// Two issuers may have given the same number.
	id := uint64(f.kid)<<53 | f.number<<5 | uint64(index)
	return once(ctx, s, spaceIssuer, id, time.Unix(int64(f.expires), 0), g.lifetime+slack)
}

// Once marks what somebody else has numbered and lets live for lifetime, in the store that
// most processes share, and reports whether it was the first to do so. While that does not
// answer, each process remembers alone.
func (g *Guard) Once(ctx context.Context, space uint8, id uint64, exp time.Time, lifetime time.Duration) (bool, error) {
	s := g.local
	if g.shared != nil {
		// Asked and not answered is another matter: then it may have been marked.
		if _, _, ok := g.shared.Lineage(); ok {
			s = g.shared
		}
	}
	return once(ctx, s, space, id, exp, lifetime)
}

// once does not honour what may have been honoured before the store began to remember.
func once(ctx context.Context, s Store, space uint8, id uint64, exp time.Time, lifetime time.Duration) (bool, error) {
	remembered := func() (bool, error) {
		_, since, ok := s.Lineage()
		if !ok {
			return false, errNoLineage
		}
		return !exp.Before(since.Add(lifetime)), nil
	}
	if ok, err := remembered(); !ok || err != nil {
		return false, err
	}
	if first, err := s.Once(ctx, space, id, exp.Add(slack)); !first || err != nil {
		return false, err
	}
	return remembered() // still: another lineage may have begun meanwhile
}

var errNoLineage = errors.New("the shared store does not answer")

// Handler refuses what Decide refuses, and passes the rest to next without its token. It takes the
// connection's peer for the client.
func (g *Guard) Handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h, d := g.Decide(r.Context(), r, Facts{Now: time.Now(), Client: peer(r)})
		if d.Denied() {
			Refuse(w, d.Reason, "")
			return
		}
		r = r.Clone(r.Context()) // the caller's request is not ours to change
		Strip(r)
		if h.Hashed {
			body := NewBody(r.Body, r.ContentLength, h.Digest)
			if errors.Is(body.Fill(), ErrBodyDiffers) {
				guard.Refuse(w, guard.TicketBodyDiffers, "")
				return
			}
			r.Body = body
		}
		next.ServeHTTP(w, r)
	})
}

func peer(r *http.Request) netip.Addr {
	ap, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	return ap.Addr().Unmap().WithZone("")
}

// SetHeaders names, beside a 401, what would have been accepted (RFC 9110 section 11.6.1).
func SetHeaders(h http.Header, d guard.Reason) {
	if d.Status() == http.StatusUnauthorized {
		h["Www-Authenticate"] = scheme
	}
}

var scheme = []string{"Moat-Ticket"}

// Refuse is guard.Refuse, with what a 401 has to say.
func Refuse(w http.ResponseWriter, reason guard.Reason, id string) {
	SetHeaders(w.Header(), reason)
	guard.Refuse(w, reason, id)
}
