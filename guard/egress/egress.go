// Package egress decides which destinations the gate itself reaches on a caller's behalf:
// a URL that a caller names is fetched only if its host is listed, and only from addresses of
// the public Internet.
//
// It protects what only the gate can reach from whoever chooses the URL: loopback, the networks around
// it, a cloud's metadata service. The address is checked when it is dialled, the very one that
// is, so a name that resolves to something else the second time gains nothing. Every redirect is
// checked as the first URL was. What comes back carries nothing that acts in the gate's origin.
//
// It believes the resolver with which address a listed host has, and the listed hosts with
// what they answer. It protects nobody from a listed host that redirects to
// another listed one, and hides nothing from the listed hosts but the caller.
package egress

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"maps"
	"mime"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/moat-gateway/moat/guard"
)

const (
	// maxURL bounds a URL, and maxHead an answer's head, in bytes.
	maxURL  = 8 << 10
	maxHead = 64 << 10
	// dialTimeout bounds connecting to one address.
	dialTimeout = 5 * time.Second
)

// Policy says what may be fetched. The zero Policy refuses everything.
type Policy struct {
	// Hosts are those that may be fetched from: "api.example", "*.example" for exactly one
	// label, each with ":port" for that port in the place of the scheme's own.
	Hosts []string
	// MaxBytes bounds a body; 0 allows none.
	MaxBytes int64
	// Timeout bounds everything, from the name's resolution to the body's last byte; 0 stands for 10 s.
	Timeout time.Duration
	// Redirects is how many are followed.
	Redirects int
	// ContentTypes are those that are passed on: "text/plain", or "image/*" for every image but SVG,
	// which can hold script and has to be listed by its own name. Empty stands for DefaultContentTypes.
	ContentTypes []string
	// DangerouslyAllowNetworks are address ranges that may be reached though they are not public.
	DangerouslyAllowNetworks []netip.Prefix
	// Resolver resolves the names; nil stands for the system's.
	Resolver *net.Resolver
	// Dial connects to an address and port that have been found to be allowed; nil stands for
	// the system's network. It is never given a name.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// DefaultContentTypes are data and pictures: nothing that a browser would run as a page.
func DefaultContentTypes() []string { return []string{"application/json", "text/plain", "image/*"} }

// Guard is a compiled Policy: immutable, and safe for concurrent use.
type Guard struct {
	hosts     []host
	policy    Policy
	transport *http.Transport
}

// New compiles a Policy, or says everything that is wrong with it.
func New(p Policy) (*Guard, error) {
	g := &Guard{policy: p}
	if g.policy.Timeout == 0 {
		g.policy.Timeout = 10 * time.Second
	}
	if len(p.ContentTypes) == 0 {
		g.policy.ContentTypes = DefaultContentTypes()
	}
	var errs []error
	for _, text := range p.Hosts {
		h, err := parseHost(text)
		if err != nil {
			errs = append(errs, fmt.Errorf("hosts: %q: %w", text, err))
		}
		g.hosts = append(g.hosts, h)
	}
	for _, t := range p.ContentTypes {
		if err := CheckContentType(t); err != nil {
			errs = append(errs, fmt.Errorf("content types: %q: %w", t, err))
		}
	}
	dialer := &net.Dialer{Timeout: dialTimeout, Resolver: p.Resolver, ControlContext: g.control}
	dial := dialer.DialContext
	if p.Dial != nil {
		dial = g.dial
	}
	g.transport = &http.Transport{ // no Proxy: one would resolve the name itself
		DialContext:            dial,
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout:    dialTimeout,
		ForceAttemptHTTP2:      true,
		MaxIdleConns:           64,
		IdleConnTimeout:        30 * time.Second,
		MaxResponseHeaderBytes: maxHead,
		DisableCompression:     true, // what is bounded is what arrives
	}
	return g, errors.Join(errs...)
}

// Close closes idle connections.
func (g *Guard) Close() { g.transport.CloseIdleConnections() }

// addressError is an address that is not dialled.
type addressError struct{ addr netip.Addr }

func (e *addressError) Error() string { return e.addr.String() + " is not a public address" }

// control refuses an address after the name has been resolved, right before the socket
// connects to it: there is no second resolution that could come out otherwise.
func (g *Guard) control(_ context.Context, _, address string, _ syscall.RawConn) error {
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		return &addressError{}
	}
	return g.check(ap.Addr().Unmap())
}

func (g *Guard) check(a netip.Addr) error {
	if !Public(a) && !within(g.policy.DangerouslyAllowNetworks, a) {
		return &addressError{a}
	}
	return nil
}

// dial has Policy.Dial connect to the first allowed address of a name that answers.
func (g *Guard) dial(ctx context.Context, network, address string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	addrs, err := cmp.Or(g.policy.Resolver, net.DefaultResolver).LookupNetIP(ctx, "ip", host)
	for _, a := range addrs {
		a = a.Unmap()
		if err = g.check(a); err != nil {
			continue
		}
		var conn net.Conn
		if conn, err = g.policy.Dial(ctx, network, net.JoinHostPort(a.String(), port)); err == nil {
			return conn, nil
		}
	}
	return nil, err
}

// Fetch gets what a caller asks for: method is GET or HEAD, raw the URL, and h the caller's
// headers, of which Accept and Accept-Language go along. The answer has only headers that say
// what its body is. Its body has to be closed, and ends in a *TooLargeError where it exceeds the
// bound without having declared so. An error means that no answer came.
func (g *Guard) Fetch(ctx context.Context, method, raw string, h http.Header) (*http.Response, guard.Decision, error) {
	if method != http.MethodGet && method != http.MethodHead {
		return nil, guard.Denial(guard.MethodNotAllowed, "method", method, "GET or HEAD"), nil
	}
	u, d := g.Decide(raw)
	if d.Denied() {
		return nil, d, nil
	}
	ctx, cancel := context.WithTimeout(ctx, g.policy.Timeout)
	for hops := 0; ; hops++ {
		res, err := g.transport.RoundTrip(outgoing(ctx, method, u, h))
		if err != nil {
			cancel()
			if address, ok := errors.AsType[*addressError](err); ok {
				return nil, guard.Denial(guard.EgressAddressNotAllowed, "the address of "+u.Host, address.addr.String(), "a public address"), nil
			}
			return nil, guard.Decision{}, err
		}
		next, isRedirect := redirect(res)
		if !isRedirect {
			return g.answer(res, cancel)
		}
		res.Body.Close() //nolint:errcheck // a redirect's body is of no use.
		if hops == g.policy.Redirects {
			cancel()
			return nil, guard.Denial(guard.EgressNotAllowed, "redirects", withoutQuery(next), fmt.Sprintf("at most %d", g.policy.Redirects)), nil
		}
		if next, err = resolve(u, next); err == nil {
			u, d = g.Decide(next)
		}
		if err != nil || d.Denied() {
			cancel()
			return nil, guard.Denial(guard.EgressNotAllowed, "Location", withoutQuery(next), "a URL of a listed host"), nil
		}
	}
}

// outgoing is a request that tells nothing about the caller but what it would like to read.
func outgoing(ctx context.Context, method string, u *url.URL, caller http.Header) *http.Request {
	h := http.Header{"User-Agent": {"moat"}, "Accept-Encoding": {"identity"}}
	for _, name := range []string{"Accept", "Accept-Language"} {
		if v := caller[name]; v != nil {
			h[name] = v
		}
	}
	r := &http.Request{Method: method, URL: u, Host: u.Host, Header: h, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1}
	return r.WithContext(ctx)
}

// redirect returns where an answer leads to.
func redirect(res *http.Response) (location string, ok bool) {
	switch res.StatusCode {
	case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther, http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		return res.Header.Get("Location"), true
	}
	return "", false
}

// resolve makes a Location a whole URL.
func resolve(base *url.URL, location string) (string, error) {
	if location == "" {
		return "", errors.New("no Location")
	}
	if unprintable(location) {
		return location, errors.New("malformed")
	}
	u, err := base.Parse(location)
	if err != nil {
		return location, err
	}
	return u.String(), nil
}

// passed are the headers of an answer that are passed on.
var passed = []string{"Content-Type", "Content-Length", "Etag", "Last-Modified", "Cache-Control"}

// answer makes an answer what the caller may see.
func (g *Guard) answer(res *http.Response, cancel context.CancelFunc) (*http.Response, guard.Decision, error) {
	refuse := func(d guard.Decision) (*http.Response, guard.Decision, error) {
		res.Body.Close() //nolint:errcheck // it will not be used.
		cancel()
		return nil, d, nil
	}
	if coding := res.Header.Get("Content-Encoding"); coding != "" && !strings.EqualFold(coding, "identity") {
		return refuse(guard.Denial(guard.UpstreamBadResponse, "Content-Encoding", coding, "no encoding: the request asked for none"))
	}
	contentType := res.Header.Get("Content-Type")
	fits := g.passes(contentType)
	if success := res.StatusCode < 300; success && !fits && res.StatusCode != http.StatusNoContent {
		return refuse(guard.Denial(guard.EgressNotAllowed, "Content-Type of the answer", contentType, strings.Join(g.policy.ContentTypes, ", ")))
	}
	if res.ContentLength > g.policy.MaxBytes {
		return refuse(TooLarge(g.policy.MaxBytes))
	}
	h := make(http.Header)
	for _, name := range passed {
		if v := res.Header[name]; len(v) > 0 {
			h[name] = v[:1]
		}
	}
	// Should a browser open this as a page all the same, it acts for nobody.
	h["X-Content-Type-Options"] = []string{"nosniff"}
	h["Content-Security-Policy"] = []string{"sandbox; default-src 'none'"}
	// A new Response: the transport would put trailers into the other one.
	out := &http.Response{StatusCode: res.StatusCode, Proto: res.Proto, ProtoMajor: res.ProtoMajor, ProtoMinor: res.ProtoMinor, Header: h, ContentLength: res.ContentLength}
	body := &bounded{ReadCloser: res.Body, left: g.policy.MaxBytes, most: g.policy.MaxBytes, cancel: cancel}
	if !fits { // an error page: its status is enough
		for _, name := range []string{"Content-Type", "Content-Length", "Etag", "Last-Modified"} {
			delete(h, name)
		}
		out.ContentLength, body.empty = 0, true
	}
	out.Body = body
	return out, guard.Decision{}, nil
}

// passes reports whether an answer of that type is passed on.
func (g *Guard) passes(contentType string) bool {
	t, _, err := mime.ParseMediaType(contentType)
	if err != nil {
		return false
	}
	if slices.ContainsFunc(g.policy.ContentTypes, func(c string) bool { return strings.EqualFold(c, t) }) {
		return true
	}
	kind, sub, _ := strings.Cut(t, "/")
	return !strings.HasPrefix(sub, "svg") && slices.ContainsFunc(g.policy.ContentTypes, func(c string) bool { return strings.EqualFold(c, kind+"/*") })
}

// CheckContentType says why a text cannot stand in ContentTypes.
func CheckContentType(s string) error {
	kind, sub, ok := strings.Cut(s, "/")
	t, params, err := mime.ParseMediaType(strings.Replace(s, "/*", "/x", 1))
	switch {
	case !ok || strings.Contains(kind, "*"):
		return errors.New("not a type such as text/plain or image/*")
	case err != nil || len(params) > 0 || t == "" || sub != "*" && strings.Contains(sub, "*"):
		return errors.New("not a type such as text/plain or image/*; parameters do not count")
	}
	return nil
}

// TooLarge is the decision about a body that exceeds the bound.
func TooLarge(most int64) guard.Decision {
	return guard.Denial(guard.EgressTooLarge, "the answer's body", "", fmt.Sprintf("at most %d bytes", most))
}

// TooLargeError ends a body that exceeds the bound.
type TooLargeError struct{ Most int64 }

func (e *TooLargeError) Error() string {
	return fmt.Sprintf("the answer has more than %d bytes", e.Most)
}

// bounded is a body that ends in an error beyond its bound.
type bounded struct {
	io.ReadCloser
	left, most int64
	empty      bool
	cancel     context.CancelFunc
}

func (b *bounded) Read(p []byte) (int, error) {
	if b.empty {
		return 0, io.EOF
	}
	if int64(len(p)) > b.left+1 {
		p = p[:b.left+1] // one more, to tell an end from an excess
	}
	n, err := b.ReadCloser.Read(p)
	if int64(n) > b.left {
		n = int(b.left)
		err = &TooLargeError{b.most}
	}
	b.left -= int64(n)
	return n, err
}

// Close ends the fetch.
func (b *bounded) Close() error {
	defer b.cancel()
	return b.ReadCloser.Close()
}

// Handler answers with what the URL in the query parameter of that name holds, for those who
// use the guard without the gateway.
func (g *Guard) Handler(param string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		res, d, err := g.Fetch(r.Context(), r.Method, r.URL.Query().Get(param), r.Header)
		switch {
		case err != nil:
			guard.Refuse(w, guard.UpstreamUnreachable, "")
			return
		case d.Denied():
			guard.Refuse(w, d.Reason, "")
			return
		}
		defer res.Body.Close() //nolint:errcheck // it was only read.
		maps.Copy(w.Header(), res.Header)
		w.WriteHeader(res.StatusCode)
		if _, err = io.Copy(w, res.Body); err != nil {
			panic(http.ErrAbortHandler) // the part must not pass for the whole
		}
	})
}
