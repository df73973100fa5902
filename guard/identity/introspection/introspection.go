package introspection

import (
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/moat-gateway/moat/guard"
	"github.com/moat-gateway/moat/guard/identity"
	"github.com/moat-gateway/moat/guard/identity/internal/recent"
)

const (
	// maxToken is the longest token that the server is asked about, in bytes.
	maxToken = 16 << 10
	// retryAfter is how long nothing is asked about a token after the server could not say.
	retryAfter = time.Second
	// answerUnit is the length of an answer that counts as one entry of the cache.
	answerUnit = 1 << 10
)

// Policy says whom to ask, and what of the answer to believe.
type Policy struct {
	// Source is the name that the configuration has for this server.
	Source string
	// URL is the introspection endpoint: https, or http on this machine.
	URL string
	// ClientID and ClientSecret are what the gate has been given there.
	ClientID, ClientSecret string
	// Issuer is what iss must be, where the answer has one. The Principal has it too; URL
	// stands there if it is "".
	Issuer string
	// Audiences are those of which aud must hold one. Without any it is not looked at.
	Audiences []string
	// ScopeClaim and RolesClaim are the paths of claims: "scope", and none, if they are "".
	ScopeClaim, RolesClaim string
	// CacheFor is how long a good answer is remembered, if the token does not expire before:
	// 60 s if it is 0. RefusedFor is that of a bad one: 10 s.
	CacheFor, RefusedFor time.Duration
	// StaleFor is for how much longer a good answer counts while the server cannot be asked.
	StaleFor time.Duration
	// Timeout bounds one question: 3 s if it is 0.
	Timeout time.Duration
	// CacheEntries is how many answers of up to 1 KiB are remembered, and how many refusals:
	// 10,000 if it is 0. A longer answer counts for several.
	CacheEntries int
	// MaxInFlight is how many questions are asked at once: 64 if it is 0. A quarter of them is
	// kept for tokens that have been good before.
	MaxInFlight int
	// MaxRefused is how many questions a second may be asked about other tokens that are not
	// answered with a good token, and how many at once after a pause: 100 if it is 0.
	MaxRefused int
	// Transport reaches the server. Nil stands for one that uses no proxy.
	Transport http.RoundTripper
}

// Verifier finds out whose an opaque token is.
type Verifier struct {
	p       Policy
	good    *recent.Table[answer]
	refused *recent.Table[refusal]

	// mu guards what follows. It is never held while the server is asked.
	mu        sync.Mutex
	flights   map[recent.Digest]*flight
	strangers int       // the flights for tokens that are not known to have been good
	spent     time.Time // when the questions that came to nothing will have been forgotten
}

// answer is one that let somebody in.
type answer struct {
	principal *identity.Principal
	until     time.Time // it is remembered
}

// refusal is one that did not, or none.
type refusal struct {
	decision guard.Decision
	until    time.Time
}

// flight is a question that is being asked, for all who want to know.
type flight struct {
	done      chan struct{} // closed when what follows is set
	principal *identity.Principal
	decision  guard.Decision
}

// New makes a Verifier. It knows what the one before it had learnt, if that asked the same
// server in the same way; before may be nil.
func New(p Policy, before *Verifier) (*Verifier, error) {
	if err := checkURL(p.URL); err != nil {
		return nil, err
	}
	if p.ClientID == "" {
		return nil, errors.New("no client id: the server has to know who asks (RFC 7662 section 2.1)")
	}
	p.ScopeClaim = cmp.Or(p.ScopeClaim, "scope")
	p.CacheFor = cmp.Or(p.CacheFor, time.Minute)
	p.RefusedFor = cmp.Or(p.RefusedFor, 10*time.Second)
	p.Timeout = cmp.Or(p.Timeout, 3*time.Second)
	p.CacheEntries = cmp.Or(p.CacheEntries, 10_000)
	p.MaxInFlight = cmp.Or(p.MaxInFlight, 64)
	p.MaxRefused = cmp.Or(p.MaxRefused, 100)
	if p.Transport == nil {
		p.Transport = &http.Transport{
			DialContext:       (&net.Dialer{Timeout: p.Timeout}).DialContext,
			TLSClientConfig:   &tls.Config{MinVersion: tls.VersionTLS12},
			ForceAttemptHTTP2: true, MaxIdleConnsPerHost: p.MaxInFlight, IdleConnTimeout: 90 * time.Second,
			DisableCompression: true, MaxResponseHeaderBytes: maxAnswer,
		}
	}
	v := &Verifier{p: p, flights: make(map[recent.Digest]*flight)}
	if before != nil && before.p.saysWhat(&p) {
		v.good, v.refused = before.good, before.refused
	} else {
		v.good, v.refused = recent.New[answer](p.CacheEntries, 1), recent.New[refusal](p.CacheEntries, 1)
	}
	return v, nil
}

// saysWhat reports whether an answer means the same under both. The secret may differ, and
// how long answers are remembered.
func (p *Policy) saysWhat(q *Policy) bool {
	return p.Source == q.Source && p.URL == q.URL && p.ClientID == q.ClientID && p.Issuer == q.Issuer && p.ScopeClaim == q.ScopeClaim &&
		p.RolesClaim == q.RolesClaim && p.CacheEntries == q.CacheEntries && slices.Equal(p.Audiences, q.Audiences)
}

func checkURL(s string) error {
	u, err := url.Parse(s)
	if err != nil || u.Hostname() == "" || u.User != nil || u.Fragment != "" || u.Scheme != "https" && u.Scheme != "http" {
		return errors.New("not a URL such as https://login.example.com/introspect")
	}
	if ip := net.ParseIP(u.Hostname()); u.Scheme == "http" && u.Hostname() != "localhost" && !ip.IsLoopback() {
		return errors.New("without https: tokens and the gate's secret would be anybody's on the network path")
	}
	return nil
}

// Recognizes takes any text for a token: an opaque one has no form of its own. So this
// verifier is the last to be asked.
func (v *Verifier) Recognizes(text string) bool { return text != "" }

// Verify says whose token it is.
func (v *Verifier) Verify(ctx context.Context, text string, now time.Time) (*identity.Principal, guard.Decision) {
	if text == "" || len(text) > maxToken {
		return nil, guard.Denial(guard.TokenMalformed, "token", strconv.Itoa(len(text))+" bytes", "1 to "+strconv.Itoa(maxToken))
	}
	d := sha256.Sum256([]byte(text))
	if p, decision, ok := v.remembered(d, now); ok {
		return p, decision
	}
	if ctx.Err() != nil {
		return nil, aborted
	}
	f := v.join(d, text, now)
	select {
	case <-f.done:
		return v.orStale(d, now, f.principal, f.decision)
	case <-ctx.Done(): // others may be waiting: the question goes on
		return nil, aborted
	}
}

var aborted = guard.Denial(guard.RequestAborted, "the client's connection", "closed", "open until its token was verified")

var verified = guard.Decision{Reason: guard.IdentityVerified}

// remembered answers without asking.
func (v *Verifier) remembered(d recent.Digest, now time.Time) (p *identity.Principal, decision guard.Decision, ok bool) {
	if a, known := v.good.Get(&d); known {
		switch exp := a.principal.Expires(); {
		case now.Before(a.until):
			return a.principal, verified, true
		case !exp.IsZero() && !now.Before(exp):
			return nil, expired(exp), true
		}
	}
	if r, known := v.refused.Get(&d); known && now.Before(r.until) {
		p, decision = v.orStale(d, now, nil, r.decision)
		return p, decision, true
	}
	return nil, decision, false
}

// orStale is what was found out; or, if the server could not be asked, what it said before,
// where that may count.
func (v *Verifier) orStale(d recent.Digest, now time.Time, p *identity.Principal, decision guard.Decision) (*identity.Principal, guard.Decision) {
	if decision.Reason != guard.IdentityUnavailable || v.p.StaleFor <= 0 {
		return p, decision
	}
	a, known := v.good.Get(&d)
	if !known || !now.Before(a.until.Add(v.p.StaleFor)) {
		return p, decision
	}
	if exp := a.principal.Expires(); !exp.IsZero() && !now.Before(exp) {
		return nil, expired(exp)
	}
	return a.principal, verified
}

// join finds the question that is being asked about a token, or asks it. The flight that it
// returns is over at once if there is no room.
func (v *Verifier) join(d recent.Digest, text string, now time.Time) *flight {
	v.mu.Lock()
	defer v.mu.Unlock()
	if f := v.flights[d]; f != nil {
		return f
	}
	f := &flight{done: make(chan struct{})}
	var ok bool
	if f.principal, f.decision, ok = v.remembered(d, now); ok { // since we last looked
		close(f.done)
		return f
	}
	_, known := v.good.Get(&d)
	if full := v.full(known, now); full != "" {
		f.decision = unavailable(full)
		close(f.done)
		return f
	}
	v.flights[d] = f
	if !known {
		v.strangers++
		v.spent = later(v.spent, now).Add(v.each())
	}
	go v.ask(f, d, text, known, now)
	return f
}

// full says why there is no room for another question. Who was let in before is not shut
// out by those who were not.
func (v *Verifier) full(known bool, now time.Time) string {
	switch {
	case len(v.flights) >= v.p.MaxInFlight:
		return strconv.Itoa(v.p.MaxInFlight) + " questions are being asked"
	case known:
	case v.strangers >= max(v.p.MaxInFlight*3/4, 1):
		return strconv.Itoa(v.strangers) + " questions about unknown tokens are being asked"
	case later(v.spent, now).Add(v.each()).Sub(now) > time.Second:
		return strconv.Itoa(v.p.MaxRefused) + " questions in the last second were not answered with a good token"
	}
	return ""
}

// each is what a question adds to spent.
func (v *Verifier) each() time.Duration { return time.Second / time.Duration(v.p.MaxRefused) }

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// ask puts the question, and remembers the answer.
func (v *Verifier) ask(f *flight, d recent.Digest, text string, known bool, now time.Time) {
	ctx, cancel := context.WithTimeout(context.Background(), v.p.Timeout)
	defer cancel()
	var size int
	f.principal, size, f.decision = v.question(ctx, text, now)
	switch {
	case f.principal != nil:
		until := now.Add(v.p.CacheFor)
		if exp := f.principal.Expires(); !exp.IsZero() && exp.Before(until) {
			until = exp
		}
		v.good.Put(&d, answer{f.principal, until}, 1+size/answerUnit)
	case f.decision.Reason == guard.IdentityUnavailable:
		v.refused.Put(&d, refusal{f.decision, now.Add(retryAfter)}, 1)
	default:
		v.good.Remove(&d)
		v.refused.Put(&d, refusal{f.decision, now.Add(v.p.RefusedFor)}, 1)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	delete(v.flights, d)
	if !known {
		v.strangers--
		if f.principal != nil {
			v.spent = v.spent.Add(-v.each())
		}
	}
	close(f.done)
}
