package jwt

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// defaultTTL is how long keys are fresh where the issuer does not say, within minTTL and maxTTL.
	defaultTTL, minTTL, maxTTL = 5 * time.Minute, time.Minute, 24 * time.Hour
	// lateness is for how long after their TTL keys are used without waiting for newer ones.
	lateness = 5 * time.Minute
	// renewInterval is how often, over time, tokens that do not fit the keys can have them
	// fetched in vain, and renewBurst how often at once.
	renewInterval, renewBurst = 30 * time.Second, 3
	// retryEmpty and retryStale are the pauses after a fetch that failed, without keys that
	// may be used and with.
	retryEmpty, retryStale = 2 * time.Second, 30 * time.Second
	// maxCandidates is how many signatures one token can have checked.
	maxCandidates = 8
)

// never is later than anything.
var never = time.Unix(1<<40, 0)

// snapshot is what is known of an issuer's keys. It is immutable.
type snapshot struct {
	keys []*key
	// number changes when the keys do, not when they are fetched again.
	number uint64
	// From refresh on newer keys are fetched, from late on they are waited for, and from dead
	// on these are not used.
	refresh, late, dead time.Time
}

// keySet fetches and keeps the keys of an issuer. It has no goroutine but the one of a fetch:
// requests start it, one at a time, and Close waits for it.
type keySet struct {
	source keySource
	stale  time.Duration
	client *http.Client

	current atomic.Pointer[snapshot]

	// mu guards what follows. It is not held while fetching.
	mu      sync.Mutex
	holders int
	ctx     context.Context // of fetches; ends with the last holder
	cancel  context.CancelFunc
	flight  chan struct{} // closed when the fetch under way ends; nil if there is none
	failed  time.Time     // when the last fetch failed; zero if it did not
	fault   error         // why
	tat     time.Time     // of fetches in vain (GCRA)
}

// keySource says where keys come from.
type keySource struct {
	url     string   // of a JWK Set, or
	issuer  string   // to discover, or
	jwks    []byte   // keys themselves, or
	secrets [][]byte // shared ones
}

func newKeySet(conf *Issuer, stale time.Duration) (*keySet, error) {
	k := &keySet{source: keySource{url: conf.JWKSURL, jwks: conf.JWKS}, stale: stale}
	var keys []*key
	var err error
	switch {
	case len(conf.Secret) > 0:
		k.source.secrets = append([][]byte{conf.Secret}, conf.PastSecrets...)
		keys, err = secretKeys(k.source.secrets, conf.Algorithms)
	case len(conf.JWKS) > 0:
		keys, err = staticKeys(conf.JWKS)
	case conf.Discover:
		k.source.issuer = conf.Issuer
		err = checkURL(conf.Issuer)
	default:
		err = checkURL(conf.JWKSURL)
	}
	if err != nil {
		return nil, err
	}
	if keys != nil {
		k.current.Store(&snapshot{keys: keys, refresh: never, late: never, dead: never})
	}
	k.client = newClient()
	return k, nil
}

func (k *keySet) sameAs(other *keySet) bool {
	a, b := k.source, other.source
	return a.url == b.url && a.issuer == b.issuer && bytes.Equal(a.jwks, b.jwks) && slices.EqualFunc(a.secrets, b.secrets, bytes.Equal) &&
		k.stale == other.stale
}

func (k *keySet) hold() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.holders++; k.holders == 1 {
		k.ctx, k.cancel = context.WithCancel(context.Background())
	}
}

func (k *keySet) release() {
	k.mu.Lock()
	k.holders--
	f := k.flight
	last := k.holders == 0
	if last {
		k.cancel()
	}
	k.mu.Unlock()
	if last && f != nil {
		<-f
	}
}

// get returns the keys, and has newer ones fetched when it is time. It waits only where there
// are none that may be used, or nobody has asked for them for long: an answer cannot be late
// for every request while the issuer is down.
func (k *keySet) get(ctx context.Context, now time.Time) (*snapshot, error) {
	s := k.current.Load()
	if s != nil && now.Before(s.refresh) {
		return s, nil
	}
	k.mu.Lock()
	f := k.flight
	if ctx.Err() == nil { // nobody fetches for who is gone
		f = k.start(now, false)
	}
	failing := !k.failed.IsZero()
	k.mu.Unlock()
	usable := s != nil && now.Before(s.dead)
	if f != nil && (!usable || !failing && !now.Before(s.late)) {
		if err := wait(ctx, f); err != nil && !usable {
			return nil, err
		}
		s = k.current.Load()
	}
	if s == nil || !now.Before(s.dead) {
		k.mu.Lock()
		defer k.mu.Unlock()
		return nil, cmp.Or(k.fault, errNoKeys)
	}
	return s, nil
}

var (
	errNoKeys  = errors.New("there are none yet")
	errAborted = errors.New("the request ended while the keys were fetched")
)

func wait(ctx context.Context, f chan struct{}) error {
	select {
	case <-f:
		return nil
	case <-ctx.Done():
		return errAborted
	}
}

// renew looks for newer keys than seen, for a token that does not fit these. What finds newer
// ones costs nothing, so that an issuer can rotate as often as it likes; what is in vain is
// bounded, so that a flood of bad tokens does not become one of fetches.
func (k *keySet) renew(ctx context.Context, now time.Time, seen *snapshot) (*snapshot, bool) {
	newer := func() (*snapshot, bool) {
		s := k.current.Load()
		return s, s.number != seen.number
	}
	for own := false; !own; {
		k.mu.Lock()
		if s, ok := newer(); ok { // keys are installed under the lock: none come between this and the next line
			k.mu.Unlock()
			return s, true
		}
		f := k.flight // may have been answered before the issuer had the new key: then once more
		if own = f == nil; own && ctx.Err() == nil && k.mayRenew(now) {
			f = k.start(now, true)
		}
		k.mu.Unlock()
		if f == nil || wait(ctx, f) != nil {
			return nil, false
		}
	}
	return newer()
}

func (k *keySet) mayRenew(now time.Time) bool {
	fetched := k.source.jwks == nil && k.source.secrets == nil
	return fetched && k.tat.Sub(now) <= (renewBurst-1)*renewInterval && !k.pausing(now)
}

func (k *keySet) pausing(now time.Time) bool {
	pause := retryStale
	if s := k.current.Load(); s == nil || !now.Before(s.dead) {
		pause = retryEmpty
	}
	return !k.failed.IsZero() && now.Sub(k.failed) < pause
}

// unchanged reports whether a token that did not fit the keys of that number cannot fit now.
func (k *keySet) unchanged(number uint64, now time.Time) bool {
	s := k.current.Load()
	if s == nil || s.number != number || !now.Before(s.refresh) {
		return false
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	return !k.mayRenew(now)
}

// stillHas reports whether a key that was good once is good yet.
func (k *keySet) stillHas(ctx context.Context, one *key, now time.Time) bool {
	if s := k.current.Load(); !now.Before(s.refresh) {
		if _, err := k.get(ctx, now); err != nil {
			return false
		}
	}
	return !one.gone.Load()
}

// start begins a fetch, or joins the one under way; it returns nil while there is to be none.
// It is called with mu held.
func (k *keySet) start(now time.Time, renewing bool) chan struct{} {
	if k.flight != nil || k.holders == 0 || k.pausing(now) {
		return k.flight
	}
	if renewing {
		k.tat = later(k.tat, now).Add(renewInterval)
	}
	f, ctx := make(chan struct{}), k.ctx
	k.flight = f
	go func() {
		began := time.Now()
		keys, ttl, err := k.fetch(ctx)
		k.mu.Lock()
		defer k.mu.Unlock()
		k.flight, k.failed, k.fault = nil, time.Time{}, err
		if err != nil {
			k.failed = now.Add(time.Since(began))
		} else if k.install(keys, ttl, now) && renewing {
			k.tat = k.tat.Add(-renewInterval)
		}
		close(f)
	}()
	return f
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// install makes keys the current ones, and reports whether they are others than before. A key
// that was there already stays the same one, so that what it has verified stays verified.
func (k *keySet) install(keys []*key, ttl time.Duration, now time.Time) (changed bool) {
	s := &snapshot{refresh: now.Add(ttl), late: now.Add(ttl + lateness), dead: now.Add(ttl + k.stale)}
	var before []*key
	if old := k.current.Load(); old != nil {
		before, s.number = old.keys, old.number
	}
	for _, next := range keys {
		if i := slices.IndexFunc(before, next.sameAs); i >= 0 {
			next = before[i]
		} else {
			changed = true
		}
		s.keys = append(s.keys, next)
	}
	var gone []*key
	for _, old := range before {
		if !slices.Contains(s.keys, old) {
			gone = append(gone, old)
		}
	}
	if changed = changed || len(gone) > 0; changed {
		s.number++
	}
	k.current.Store(s)
	for _, old := range gone {
		old.gone.Store(true)
	}
	return changed
}

// find returns the keys that a token may be signed with. A key without a name may be any.
func (s *snapshot) find(id, algorithm string) []*key {
	var found []*key
	for _, one := range s.keys {
		if (id == "" || one.id == "" || one.id == id) && slices.Contains(one.algorithms, algorithm) {
			found = append(found, one)
		}
	}
	return found
}
