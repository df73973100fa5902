package bot

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// DirectoryPath is where an agent publishes its keys.
	DirectoryPath = "/.well-known/http-message-signatures-directory"
	// MaxDirectoryBytes bounds what is read of it, and maxDirectoryKeys the keys that are kept.
	MaxDirectoryBytes = 64 << 10
	maxDirectoryKeys  = 32

	directoryTimeout = 5 * time.Second
	// defaultKeyTTL is how long keys are fresh where the agent does not say, within the other two.
	defaultKeyTTL, minKeyTTL, maxKeyTTL = time.Hour, time.Minute, 24 * time.Hour
	// staleKeys is for how long after that they are used while newer ones cannot be had.
	staleKeys = 24 * time.Hour
	// fetchInterval is how often an agent is asked at most, whatever its requests look like.
	fetchInterval = 30 * time.Second
)

// agent is a robot that signs, and its keys.
type agent struct {
	robot, url string
	keys       atomic.Pointer[keySnapshot]

	mu     sync.Mutex
	flight chan struct{} // closed when the fetch under way ends; nil if there is none
	asked  time.Time     // when the last fetch began
	fault  error         // of the last fetch
}

// keySnapshot is what is known of an agent's keys. It is immutable.
type keySnapshot struct {
	keys          map[string]ed25519.PublicKey // by their thumbprint
	fixed         bool                         // they are the configuration's
	refresh, dead time.Time
}

func (s *keySnapshot) usable(now time.Time) bool { return s.fixed || now.Before(s.dead) }

var errNoKeys = errors.New("its keys could not be fetched yet")

// key returns the key of that name. It waits for a fetch only where it has none that would do.
//
// Package jwt has a cache of an issuer's keys too. That one must wait, since a request without a
// verified token goes nowhere, and it gives a flood of unknown keys a budget of fetches; here nobody
// has to wait for long, and one interval bounds all.
func (r *Robots) key(ctx context.Context, a *agent, id string, now time.Time) (ed25519.PublicKey, error) {
	s := a.keys.Load()
	if s == nil || !s.fixed && (!now.Before(s.refresh) || s.keys[id] == nil) {
		done := r.fetch(a, now)
		if s == nil || !s.usable(now) || s.keys[id] == nil {
			if done != nil {
				r.wait(ctx, done)
			}
			s = a.keys.Load()
		}
	}
	if s == nil || !s.usable(now) {
		return nil, a.unknown()
	}
	if k := s.keys[id]; k != nil {
		return k, nil
	}
	if !s.fixed && !now.Before(s.refresh) {
		return nil, a.unknown() // it may be among the newer ones
	}
	return nil, fmt.Errorf("%s has no key of that keyid", a.url)
}

func (a *agent) unknown() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.fault != nil {
		return fmt.Errorf("%w: %w", errNoKeys, a.fault)
	}
	return errNoKeys
}

// fetch begins a fetch of an agent's keys, or joins the one under way. It returns nil if the agent
// was asked a short time ago.
func (r *Robots) fetch(a *agent, now time.Time) <-chan struct{} {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.flight != nil || !a.asked.IsZero() && now.Sub(a.asked) < fetchInterval {
		return a.flight
	}
	a.asked = now
	done := make(chan struct{})
	a.flight = done
	go func() {
		keys, ttl, err := r.directory(a.url)
		if err == nil { // else those that are there serve until they are dead
			a.keys.Store(&keySnapshot{keys: keys, refresh: now.Add(ttl), dead: now.Add(ttl + staleKeys)})
		}
		a.mu.Lock()
		a.flight, a.fault = nil, err
		a.mu.Unlock()
		close(done)
	}()
	return done
}

// directory fetches the keys of an agent. That it is served under the agent's name, over TLS, is what
// binds them to it; a signature of the directory itself is for those who let others host theirs.
func (r *Robots) directory(at string) (map[string]ed25519.PublicKey, time.Duration, error) {
	ctx, cancel := context.WithTimeout(context.Background(), directoryTimeout)
	defer cancel()
	res, err := r.policy.Fetch(ctx, at+DirectoryPath)
	if err != nil {
		return nil, 0, err
	}
	defer res.Body.Close() //nolint:errcheck // nothing follows from it.
	if res.StatusCode != http.StatusOK {
		return nil, 0, fmt.Errorf("status %d", res.StatusCode)
	}
	body, err := io.ReadAll(io.LimitReader(res.Body, MaxDirectoryBytes+1))
	if err != nil {
		return nil, 0, err
	}
	if len(body) > MaxDirectoryBytes {
		return nil, 0, fmt.Errorf("longer than %d bytes", MaxDirectoryBytes)
	}
	keys, err := parseKeys(body)
	return keys, keyTTL(res.Header), err
}

// keyTTL is how long an answer is fresh: what max-age says, within bounds.
func keyTTL(h http.Header) time.Duration {
	for directive := range strings.SplitSeq(strings.ToLower(strings.Join(h["Cache-Control"], ",")), ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(directive), "=")
		switch name {
		case "no-store", "no-cache":
			return minKeyTTL
		case "max-age":
			if n, err := strconv.ParseUint(strings.Trim(value, `"`), 10, 31); err == nil {
				return min(max(time.Duration(n)*time.Second, minKeyTTL), maxKeyTTL)
			}
		}
	}
	return defaultKeyTTL
}

// parseKeys reads the Ed25519 keys of a JWK Set (RFC 8037), by their thumbprint (RFC 7638). Others are
// left out.
func parseKeys(body []byte) (map[string]ed25519.PublicKey, error) {
	var set struct {
		Keys []struct{ Kty, Crv, X, Use, D string }
	}
	if err := json.Unmarshal(body, &set); err != nil {
		return nil, errors.New(`no JWK Set, which is an object with a list "keys"`)
	}
	keys := make(map[string]ed25519.PublicKey)
	for _, k := range set.Keys {
		if k.D != "" {
			return nil, errors.New("a key is private; give the public one alone")
		}
		if k.Kty != "OKP" || k.Crv != "Ed25519" || k.Use != "" && k.Use != "sig" || len(keys) == maxDirectoryKeys {
			continue
		}
		public, err := base64.RawURLEncoding.Strict().DecodeString(k.X)
		if err != nil || len(public) != ed25519.PublicKeySize {
			continue
		}
		keys[thumbprint(public)] = public
	}
	if len(keys) == 0 {
		return nil, errors.New("no Ed25519 key for signatures in it")
	}
	return keys, nil
}

// thumbprint is what a signature's keyid has to be.
func thumbprint(public ed25519.PublicKey) string {
	sum := sha256.Sum256([]byte(`{"crv":"Ed25519","kty":"OKP","x":"` + base64.RawURLEncoding.EncodeToString(public) + `"}`))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}
