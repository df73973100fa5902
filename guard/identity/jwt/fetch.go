package jwt

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"
)

const (
	fetchTimeout = 5 * time.Second
	maxAnswer    = 512 << 10
	maxHead      = 16 << 10
)

// newClient follows no redirect: the URL in the configuration is the one that is trusted.
func newClient() *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			Proxy:             http.ProxyFromEnvironment,
			DialContext:       (&net.Dialer{Timeout: fetchTimeout}).DialContext,
			TLSClientConfig:   &tls.Config{MinVersion: tls.VersionTLS12},
			ForceAttemptHTTP2: true, DisableKeepAlives: true, MaxResponseHeaderBytes: maxHead,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

func loopback(host string) bool {
	a, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && a.IsLoopback()
}

// fetch fetches the keys, and where they are where that is to be discovered.
func (k *keySet) fetch(ctx context.Context) ([]*key, time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	from := k.source.url
	if from == "" {
		var err error
		if from, err = k.discover(ctx); err != nil {
			return nil, 0, fmt.Errorf("discovery: %w", err)
		}
	}
	text, h, err := k.read(ctx, from)
	if err != nil {
		return nil, 0, err
	}
	keys, _, err := readSet(text)
	if err != nil {
		return nil, 0, fmt.Errorf("%s: %w", from, err)
	}
	return keys, lifetime(h), nil
}

// discover finds the URL of the keys (OpenID Connect Discovery 1.0 section 4, and, where that
// is not found, RFC 8414 section 3).
func (k *keySet) discover(ctx context.Context) (string, error) {
	u, err := url.Parse(k.source.issuer)
	if err != nil {
		return "", err // New has checked it
	}
	openid := strings.TrimSuffix(k.source.issuer, "/") + "/.well-known/openid-configuration"
	oauth := u.Scheme + "://" + u.Host + "/.well-known/oauth-authorization-server" + strings.TrimSuffix(u.EscapedPath(), "/")
	text, _, err := k.read(ctx, openid)
	if errors.Is(err, errNotFound) {
		text, _, err = k.read(ctx, oauth)
	}
	if err != nil {
		return "", err
	}
	var metadata struct {
		Issuer string `json:"issuer"`
		Keys   string `json:"jwks_uri"`
	}
	if err = json.Unmarshal(text, &metadata); err != nil {
		return "", errors.New("the answer is not JSON, or not of the right form")
	}
	if metadata.Issuer != k.source.issuer {
		// Else one issuer of several on a host could speak for another one.
		return "", fmt.Errorf("the answer is of issuer %s, not %s", shown(metadata.Issuer), k.source.issuer)
	}
	if err = checkURL(metadata.Keys); err == nil && u.Scheme == "https" && !strings.HasPrefix(metadata.Keys, "https:") {
		err = errors.New("it is not https, as the issuer is")
	}
	if err != nil {
		return "", fmt.Errorf("jwks_uri %s: %w", shown(metadata.Keys), err)
	}
	return metadata.Keys, nil
}

var errNotFound = errors.New("status 404")

func (k *keySet) read(ctx context.Context, from string) ([]byte, http.Header, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, from, http.NoBody)
	if err != nil {
		return nil, nil, err
	}
	req.Header.Set("Accept", "application/jwk-set+json, application/json")
	resp, err := k.client.Do(req)
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close() //nolint:errcheck // nothing follows from it.
	switch resp.StatusCode {
	case http.StatusOK:
	case http.StatusNotFound:
		return nil, nil, fmt.Errorf("%s: %w", from, errNotFound)
	default:
		return nil, nil, fmt.Errorf("%s: status %d", from, resp.StatusCode)
	}
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", from, err)
	}
	if len(text) > maxAnswer {
		return nil, nil, fmt.Errorf("%s: longer than %d bytes", from, maxAnswer)
	}
	return text, resp.Header, nil
}

// lifetime is how long an answer is fresh: what max-age says, within bounds.
func lifetime(h http.Header) time.Duration {
	for _, line := range h["Cache-Control"] {
		for directive := range strings.SplitSeq(line, ",") {
			name, value, _ := strings.Cut(strings.ToLower(strings.TrimSpace(directive)), "=")
			switch name {
			case "no-store", "no-cache":
				return minTTL
			case "max-age":
				if n, err := strconv.ParseUint(strings.Trim(value, `"`), 10, 31); err == nil {
					return min(max(time.Duration(n)*time.Second, minTTL), maxTTL)
				}
			}
		}
	}
	return defaultTTL
}
