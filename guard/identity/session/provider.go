package session

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"github.com/moat-gateway/moat/guard"
)

const (
	// askTimeout bounds each question to the provider.
	askTimeout = 10 * time.Second
	// maxConns is how many connections it gets: a browser that begins sign-ins of its own making
	// can have it asked about codes that there are not.
	maxConns = 32
	// maxAnswer bounds each of its answers.
	maxAnswer = 256 << 10
	// renewAfter is the age from which what the provider says of itself, and its keys, are
	// fetched anew. While that fails the old ones count.
	renewAfter = time.Hour
	// keysEvery is how often its keys are fetched at most: anybody can send a logout token that
	// is signed with a key nobody has.
	keysEvery = 10 * time.Second
	// retryAfter is how long the provider is not asked again after it could not be reached. It
	// doubles with each failure in a row, up to retryMost.
	retryAfter = time.Second
	retryMost  = 30 * time.Second
)

// algorithms are those that ID tokens and logout tokens may be signed with.
var algorithms = []string{oidc.RS256, oidc.ES256, oidc.EdDSA, oidc.PS256}

// provider is what has been discovered of the provider: immutable.
type provider struct {
	oidc      *oidc.Provider
	conf      oauth2.Config // without RedirectURL
	userinfo  bool
	end       string // the end session endpoint, or ""
	tellsIss  bool   // it puts iss into its answers (RFC 9207)
	renewFrom time.Time
}

// discovery keeps what is known of the provider fresh.
type discovery struct {
	issuer, id, secret string
	scopes             []string
	client             *http.Client

	// mu guards what follows. It is never held while the provider is asked.
	mu       sync.Mutex
	current  *provider
	flight   chan struct{} // closed when the attempt under way is over; nil without one
	failures int
	retryAt  time.Time
	failure  string // of the last attempt
}

func newDiscovery(p *Policy) *discovery {
	rt := p.Transport
	if rt == nil {
		rt = &http.Transport{
			DialContext:       (&net.Dialer{Timeout: askTimeout}).DialContext,
			TLSClientConfig:   &tls.Config{MinVersion: tls.VersionTLS12},
			ForceAttemptHTTP2: true, MaxConnsPerHost: maxConns, MaxIdleConnsPerHost: 8, IdleConnTimeout: 30 * time.Second, MaxResponseHeaderBytes: maxAnswer,
		}
	}
	return &discovery{
		issuer: p.Issuer, id: p.ClientID, secret: p.ClientSecret, scopes: p.Scopes,
		client: &http.Client{
			Transport: &bounded{RoundTripper: rt}, Timeout: askTimeout,
			// A redirect would carry a code or a token to somewhere else.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
}

// same reports whether both know the same of the same provider.
func (d *discovery) same(e *discovery) bool {
	return d.issuer == e.issuer && d.id == e.id && d.secret == e.secret && slices.Equal(d.scopes, e.scopes)
}

// bounded is a transport whose answers end in an error where they are too large, and which
// fetches keys seldom.
type bounded struct {
	http.RoundTripper
	mu   sync.Mutex
	keys string // their URL
	at   time.Time
}

var (
	errTooLarge = fmt.Errorf("its answer is larger than %d bytes", maxAnswer)
	errTooSoon  = fmt.Errorf("no key of that name, and its keys were fetched within the last %s", keysEvery)
	errKeys     = errors.New("its keys cannot be fetched")
)

func (b *bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	if b.tooSoon(r.URL.String(), time.Now()) {
		return nil, errTooSoon
	}
	res, err := b.RoundTripper.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	res.Body = &boundedBody{res.Body, maxAnswer}
	return res, nil
}

func (b *bounded) tooSoon(u string, now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if u != b.keys {
		return false
	}
	soon := now.Sub(b.at) < keysEvery
	if !soon {
		b.at = now
	}
	return soon
}

// keysAt says where the keys are. New keys may be fetched at once.
func (b *bounded) keysAt(u string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.keys, b.at = u, time.Time{}
}

type boundedBody struct {
	io.ReadCloser
	left int
}

func (b *boundedBody) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, errTooLarge
	}
	n, err := b.ReadCloser.Read(p[:min(len(p), b.left)])
	b.left -= n
	return n, err
}

// context is for one question to the provider that no client's leaving ends.
func (d *discovery) context(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(oidc.ClientContext(context.WithoutCancel(ctx), d.client), askTimeout)
}

// get returns the provider. It waits only if nothing is known of it yet, and at most for
// askTimeout.
func (d *discovery) get(ctx context.Context, now time.Time) (*provider, guard.Decision) {
	d.mu.Lock()
	current, failure := d.current, d.failure
	if (current == nil || !now.Before(current.renewFrom)) && d.flight == nil && !now.Before(d.retryAt) {
		d.flight = make(chan struct{})
		go d.renew(ctx, d.flight, now)
	}
	flight := d.flight
	d.mu.Unlock()
	switch {
	case current != nil:
		return current, guard.Decision{}
	case flight == nil:
		return nil, d.unavailable(failure)
	}
	select {
	case <-flight:
	case <-ctx.Done():
		return nil, guard.Denial(guard.RequestAborted, "the client's connection", "closed", "open until the identity provider has answered")
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.current == nil {
		return nil, d.unavailable(d.failure)
	}
	return d.current, guard.Decision{}
}

func (d *discovery) unavailable(failure string) guard.Decision {
	return guard.Denial(guard.IdentityUnavailable, "the identity provider "+d.issuer, failure, "an answer")
}

// renew makes one attempt.
func (d *discovery) renew(ctx context.Context, flight chan struct{}, now time.Time) {
	ctx, cancel := d.context(ctx)
	defer cancel()
	began := time.Now()
	p, err := d.discover(ctx, now)
	now = now.Add(time.Since(began))
	d.mu.Lock()
	defer d.mu.Unlock()
	defer close(flight)
	d.flight = nil
	if err != nil {
		d.failure = short(err)
		d.retryAt = now.Add(min(retryAfter<<min(d.failures, 5), retryMost))
		d.failures++
		return
	}
	d.current, d.failures, d.failure, d.retryAt = p, 0, "", time.Time{}
}

func (d *discovery) discover(ctx context.Context, now time.Time) (*provider, error) {
	op, err := oidc.NewProvider(ctx, d.issuer)
	if err != nil {
		return nil, err
	}
	var m struct {
		Keys     string   `json:"jwks_uri"`
		End      string   `json:"end_session_endpoint"`
		TellsIss bool     `json:"authorization_response_iss_parameter_supported"`
		Auth     []string `json:"token_endpoint_auth_methods_supported"`
	}
	if err := op.Claims(&m); err != nil {
		return nil, err
	}
	endpoint := op.Endpoint()
	for _, e := range []struct{ name, url string }{
		{"authorization_endpoint", endpoint.AuthURL}, {"token_endpoint", endpoint.TokenURL}, {"jwks_uri", m.Keys},
	} {
		if err := checkURL(e.url, d.issuer); err != nil {
			return nil, fmt.Errorf("its %s is %w", e.name, err)
		}
	}
	for _, e := range []struct{ name, url string }{
		{"userinfo_endpoint", op.UserInfoEndpoint()}, {"end_session_endpoint", m.End},
	} {
		if err := checkURL(e.url, d.issuer); e.url != "" && err != nil {
			return nil, fmt.Errorf("its %s is %w", e.name, err)
		}
	}
	endpoint.AuthStyle = oauth2.AuthStyleInHeader // RFC 6749 section 2.3.1, and the default of discovery
	if d.secret == "" || len(m.Auth) > 0 && !slices.Contains(m.Auth, "client_secret_basic") {
		endpoint.AuthStyle = oauth2.AuthStyleInParams
	}
	if b, ok := d.client.Transport.(*bounded); ok {
		b.keysAt(m.Keys)
	}
	return &provider{
		oidc: op, userinfo: op.UserInfoEndpoint() != "", end: m.End, tellsIss: m.TellsIss, renewFrom: now.Add(renewAfter),
		conf: oauth2.Config{ClientID: d.id, ClientSecret: d.secret, Endpoint: endpoint, Scopes: d.scopes},
	}, nil
}

// checkURL says why a URL cannot be one of a provider. It is plain http only where the
// provider itself is, on this machine.
func checkURL(s, issuer string) error {
	u, err := url.Parse(s)
	switch {
	case err != nil || u.Hostname() == "" || u.User != nil || u.Fragment != "":
		return errors.New("not a URL such as https://login.example.com")
	case u.Scheme == "https":
		return nil
	case u.Scheme == "http" && loopback(u.Hostname()) && strings.HasPrefix(issuer, "http:"):
		return nil
	}
	return errors.New("without https: codes and tokens would be anybody's on the network path")
}

func loopback(host string) bool { return host == "localhost" || net.ParseIP(host).IsLoopback() }

// verify verifies a token that the provider has signed for this client, and returns what it
// says. The errors of go-oidc repeat the issuer and the audience, but nothing that is secret.
func (p *provider) verify(ctx context.Context, raw string, now time.Time) (*oidc.IDToken, error) {
	if len(raw) > maxToken {
		return nil, fmt.Errorf("it is longer than %d bytes", maxToken)
	}
	t, err := p.oidc.Verifier(&oidc.Config{
		ClientID: p.conf.ClientID, SupportedSigningAlgs: algorithms, Now: func() time.Time { return now },
	}).Verify(ctx, raw)
	if err != nil {
		// The errors of go-oidc are told by their text alone.
		switch text := err.Error(); {
		case strings.Contains(text, errTooSoon.Error()):
			return nil, errTooSoon
		case strings.Contains(text, "fetching keys"):
			return nil, fmt.Errorf("%w: %s", errKeys, text)
		}
		return nil, err
	}
	var more struct {
		AZP string `json:"azp"`
	}
	if err := t.Claims(&more); err != nil {
		return nil, err
	}
	// OpenID Connect Core section 3.1.3.7, rules 4 and 5.
	if len(t.Audience) > 1 && more.AZP == "" || more.AZP != "" && more.AZP != p.conf.ClientID {
		return nil, errors.New("its authorized party is another client")
	}
	return t, nil
}

// short bounds what an error says. It may repeat what the provider said, at any length.
func short(err error) string {
	text := strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '.'
		}
		return r
	}, err.Error())
	return text[:min(len(text), 200)]
}
