package credential

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/http/httpguts"

	"github.com/moat-gateway/moat/guard"
)

const (
	// fetchTimeout bounds one attempt to get a token.
	fetchTimeout = 10 * time.Second
	// maxTokenAnswer bounds the token endpoint's answer.
	maxTokenAnswer = 64 << 10
	// retryAfter is how long no attempt is made after a failed one. It doubles with each
	// failure in a row, up to retryMost.
	retryAfter = time.Second
	retryMost  = 30 * time.Second
	// refusedAfter is the age from which a token is taken for revoked when the upstream
	// answers 401: a token that has just been fetched would be followed by one like it, and an
	// upstream that refuses all of them would cause a fetch for each request.
	refusedAfter = 10 * time.Second
	// leastLife is the shortest life of a token that is worth having.
	leastLife = 10 * time.Second
	// lifetime is that of a token whose endpoint does not say.
	lifetime = time.Hour
)

// OAuth is the client credentials grant of RFC 6749 section 4.4.
type OAuth struct {
	// TokenURL is the token endpoint: https, or http on this machine.
	TokenURL string
	// ClientID and ClientSecret are what the client has been given there.
	ClientID, ClientSecret string
	// Scopes and Audience are asked for, if there are any.
	Scopes   []string
	Audience string
	// Post puts the secret into the body of the request, in the place of Basic.
	Post bool
	// Transport reaches the token endpoint. Nil stands for one that uses no proxy.
	Transport http.RoundTripper
}

// sameClient reports whether both are for the same tokens. The secret may differ: a token
// outlives the secret that it was got with.
func (o *OAuth) sameClient(p *OAuth) bool {
	return o.TokenURL == p.TokenURL && o.ClientID == p.ClientID && o.Audience == p.Audience && slices.Equal(o.Scopes, p.Scopes)
}

// token is an access token: immutable.
type token struct {
	text            string
	header          []string // of Authorization
	mask            *mask    // of the static secrets too
	got             time.Time
	renewAt, expiry time.Time
}

// tokens keeps one token fresh.
type tokens struct {
	conf   OAuth
	static []string // the secrets beside the token

	// mu guards what follows. It is never held while the endpoint is asked.
	mu       sync.Mutex
	current  *token
	flight   chan struct{} // closed when the attempt under way is over; nil without one
	failures int
	retryAt  time.Time
	failure  string // of the last attempt
}

func newTokens(conf OAuth, static []string, old *Guard) (*tokens, error) {
	if err := CheckTokenURL(conf.TokenURL); err != nil {
		return nil, err
	}
	if conf.ClientID == "" {
		return nil, errors.New("no client id")
	}
	if conf.Transport == nil {
		conf.Transport = &http.Transport{
			DialContext:       (&net.Dialer{Timeout: fetchTimeout}).DialContext,
			TLSClientConfig:   &tls.Config{MinVersion: tls.VersionTLS12},
			ForceAttemptHTTP2: true, DisableKeepAlives: true, MaxResponseHeaderBytes: maxTokenAnswer,
		}
	}
	t := &tokens{conf: conf, static: static}
	if old == nil || old.tokens == nil || !old.tokens.conf.sameClient(&conf) {
		return t, nil
	}
	old.tokens.mu.Lock()
	defer old.tokens.mu.Unlock()
	if tok := old.tokens.current; tok != nil {
		same := *tok
		same.mask = t.maskWith(tok.text)
		t.current = &same
	}
	return t, nil
}

func (t *tokens) maskWith(token string) *mask { return newMask(append(slices.Clone(t.static), token)) }

// CheckTokenURL says why a URL cannot be that of a token endpoint. It does not repeat it: a
// faulty one may hold a secret.
func CheckTokenURL(s string) error {
	u, err := url.Parse(s)
	if err != nil || u.Hostname() == "" || u.User != nil || u.Fragment != "" || u.Scheme != "https" && u.Scheme != "http" {
		return errors.New("not a URL such as https://login.example.com/oauth/token")
	}
	if u.Scheme == "http" && !loopback(u.Hostname()) {
		return errors.New("without https: the client's secret would be anybody's on the network path")
	}
	return nil
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip.IsLoopback()
}

// get returns a token that is valid. It waits for one only if there is none: one that
// is about to expire is renewed meanwhile.
func (t *tokens) get(ctx context.Context) (*token, guard.Decision) {
	for {
		now := time.Now()
		t.mu.Lock()
		current, failure := t.current, t.failure
		valid := current != nil && now.Before(current.expiry)
		if (!valid || !now.Before(current.renewAt)) && t.flight == nil && !now.Before(t.retryAt) {
			t.flight = make(chan struct{})
			go t.renew(t.flight) //nolint:gosec // no request may end what others wait for.
		}
		flight := t.flight
		t.mu.Unlock()
		switch {
		case valid:
			return current, guard.Decision{}
		case flight == nil:
			return nil, guard.Denial(guard.CredentialUnavailable, "the token endpoint", failure, "a token")
		}
		select {
		case <-flight:
		case <-ctx.Done():
			return nil, guard.Denial(guard.RequestAborted, "the client's connection", "closed", "open until there is a token")
		}
	}
}

// refused says that the upstream has answered 401 to a token.
func (t *tokens) refused(tok *token) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.current == tok && time.Since(tok.got) >= refusedAfter {
		t.current = nil
	}
}

// renew makes one attempt.
func (t *tokens) renew(flight chan struct{}) {
	ctx, cancel := context.WithTimeout(context.Background(), fetchTimeout)
	defer cancel()
	began := time.Now()
	text, life, failure := t.fetch(ctx)
	t.mu.Lock()
	defer t.mu.Unlock()
	defer close(flight)
	t.flight = nil
	if failure != "" {
		t.failure = failure
		t.retryAt = time.Now().Add(min(retryAfter<<min(t.failures, 5), retryMost))
		t.failures++
		return
	}
	t.failures, t.failure, t.retryAt = 0, "", time.Time{}
	t.current = &token{
		text: text, header: []string{"Bearer " + text}, mask: t.maskWith(text),
		got: time.Now(), expiry: began.Add(life), renewAt: began.Add(life - min(life/5, 5*time.Minute)),
	}
}

// fetch asks the endpoint. What it says about a failure repeats nothing that the endpoint
// said, beyond the codes of RFC 6749: it has the client's secret, and may repeat that.
func (t *tokens) fetch(ctx context.Context) (text string, life time.Duration, failure string) {
	form := url.Values{"grant_type": {"client_credentials"}}
	if len(t.conf.Scopes) > 0 {
		form.Set("scope", strings.Join(t.conf.Scopes, " "))
	}
	if t.conf.Audience != "" {
		form.Set("audience", t.conf.Audience)
	}
	if t.conf.Post {
		form.Set("client_id", t.conf.ClientID)
		form.Set("client_secret", t.conf.ClientSecret)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, t.conf.TokenURL, strings.NewReader(form.Encode()))
	if err != nil {
		return "", 0, "its URL is malformed"
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Accept", "application/json")
	if !t.conf.Post {
		req.SetBasicAuth(url.QueryEscape(t.conf.ClientID), url.QueryEscape(t.conf.ClientSecret)) // encoded first: RFC 6749 section 2.3.1
	}
	// Not a Client: a redirect would carry the secret to somewhere else.
	res, err := t.conf.Transport.RoundTrip(req)
	if err != nil {
		return "", 0, unreached(ctx, err)
	}
	defer res.Body.Close() //nolint:errcheck // it was only read.
	data, err := io.ReadAll(io.LimitReader(res.Body, maxTokenAnswer+1))
	switch {
	case err != nil:
		return "", 0, unreached(ctx, err)
	case len(data) > maxTokenAnswer:
		return "", 0, "its answer is larger than " + strconv.Itoa(maxTokenAnswer) + " bytes"
	}
	var answer struct {
		AccessToken string      `json:"access_token"`
		TokenType   string      `json:"token_type"`
		ExpiresIn   json.Number `json:"expires_in"`
		Error       string      `json:"error"`
	}
	err = json.Unmarshal(data, &answer)
	if res.StatusCode != http.StatusOK {
		failure = "it answered " + strconv.Itoa(res.StatusCode)
		if slices.Contains(errorCodes, answer.Error) {
			failure += " " + answer.Error
		}
		return "", 0, failure
	}
	switch {
	case err != nil:
		return "", 0, "its answer is not the JSON of RFC 6749 section 5.1"
	case answer.TokenType != "" && !strings.EqualFold(answer.TokenType, "bearer"):
		return "", 0, "its token is not of the type bearer"
	case !httpguts.ValidHeaderFieldValue(answer.AccessToken), CheckSecret(answer.AccessToken) != nil:
		return "", 0, "its access_token is missing, too short, too long or not of the form of one"
	}
	life = lifetime
	if s, sErr := answer.ExpiresIn.Float64(); sErr == nil && s > 0 {
		life = time.Duration(min(s, (365*24*time.Hour).Seconds()) * float64(time.Second))
	}
	if life < leastLife {
		return "", 0, "its token expires within " + leastLife.String()
	}
	return answer.AccessToken, life, ""
}

// errorCodes are those of RFC 6749 section 5.2.
var errorCodes = []string{"invalid_request", "invalid_client", "invalid_grant", "unauthorized_client", "unsupported_grant_type", "invalid_scope"}

// unreached says why no answer came, in words that hold nothing which came.
func unreached(ctx context.Context, err error) string {
	var (
		op   *net.OpError
		cert *tls.CertificateVerificationError
	)
	switch {
	case ctx.Err() != nil:
		return "it did not answer within " + fetchTimeout.String()
	case errors.As(err, &cert):
		return cert.Error()
	case errors.As(err, &op) && op.Op == "dial":
		return op.Error()
	}
	return "it did not answer in HTTP"
}
