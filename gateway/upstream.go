package gateway

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/moat-gateway/moat/guard/assertion"
	"github.com/moat-gateway/moat/guard/credential"
)

const (
	defaultDialTimeout     = 5 * time.Second
	defaultResponseTimeout = 60 * time.Second
	// maxResponseHead bounds the head of an upstream's answer.
	maxResponseHead = 1 << 20
	// maxIdlePerHost is how many connections to an upstream wait for the next request.
	maxIdlePerHost = 1024
)

// upstream is a compiled Upstream.
type upstream struct {
	name         string
	scheme, host string // of the connection
	prefix       *url.URL
	preserveHost bool
	credential   *credential.Guard // nil if moat adds nothing to requests
	speaks       bool              // the credential stands in the place of the caller's
	owned        []string          // the headers that it sets
	identity     *assertion.Guard  // nil if the upstream is told nothing about the caller
	transport    http.RoundTripper
	close        func()
}

// newUpstream compiles an Upstream. old is the one that it replaces, or nil.
func newUpstream(name string, u Upstream, old *upstream) (*upstream, error) {
	var errs []error
	if u.URL == nil {
		return nil, errors.New("url: not set")
	}
	if u.URL.Host == "" {
		errs = append(errs, fmt.Errorf("url: %q: no host", u.URL.Redacted()))
	}
	if u.URL.User != nil {
		errs = append(errs, fmt.Errorf("url: %q: a password in a URL ends up in logs; set a header from ${env:NAME} instead", u.URL.Redacted()))
	}
	if u.URL.RawQuery != "" || u.URL.Fragment != "" {
		errs = append(errs, fmt.Errorf("url: %q: only a path can be put before each request's", u.URL.Redacted()))
	}
	up := &upstream{name: name, scheme: u.URL.Scheme, host: u.URL.Host, preserveHost: u.PreserveHost}
	if u.URL.Path != "" && u.URL.Path != "/" {
		up.prefix = u.URL
	}
	var protocols http.Protocols
	switch u.URL.Scheme {
	case "http":
		protocols.SetHTTP1(true)
	case "https":
		protocols.SetHTTP1(true)
		protocols.SetHTTP2(true)
	case "h2c":
		up.scheme = "http"
		protocols.SetUnencryptedHTTP2(true)
	default:
		errs = append(errs, fmt.Errorf("url: %q: the scheme is http, https or h2c", u.URL.Redacted()))
	}
	if err := up.setCredential(u, old); err != nil {
		errs = append(errs, err)
	}
	if u.DialTimeout == 0 {
		u.DialTimeout = defaultDialTimeout
	}
	if u.ResponseTimeout == 0 {
		u.ResponseTimeout = defaultResponseTimeout
	}
	dialer := &net.Dialer{Timeout: u.DialTimeout, KeepAlive: 30 * time.Second}
	t := &http.Transport{
		DialContext:           dialer.DialContext,
		Protocols:             &protocols,
		TLSHandshakeTimeout:   u.DialTimeout,
		ResponseHeaderTimeout: u.ResponseTimeout,
		// Long enough that an upstream with credentials to check can say 100 or refuse.
		ExpectContinueTimeout:  time.Second,
		IdleConnTimeout:        90 * time.Second,
		MaxIdleConnsPerHost:    maxIdlePerHost,
		MaxResponseHeaderBytes: maxResponseHead,
		DisableCompression:     true, // bytes pass as they are
	}
	up.transport, up.close = t, t.CloseIdleConnections
	return up, errors.Join(errs...)
}
