// Package live asks real servers what package browser's model would ask them. What it
// sends, where it connects and how much it reads is bounded, because neither the request
// nor the server can be trusted: the one may be pasted, the other may redirect anywhere.
//
//   - Preflights are sent; the request itself only if Options.Send is set, because a
//     backend executes it.
//   - Header fields that can be credentials, and bodies, go to the host that the user named
//     and to no other, wherever it redirects; and from https not to http.
//   - A host that the user did not name is connected to only if its address is public.
//     That is checked on the address of the connection, so that no change of a name's
//     resolution gets around it.
//   - No redirect is followed here: the model asks for each hop. No cookie is kept. No
//     proxy is used.
package live

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/moat-gateway/moat/browser"
	"github.com/moat-gateway/moat/explain"
)

// The bounds of what is read of an answer.
const (
	maxBody   = 64 << 10
	maxHeader = 64 << 10
)

// DefaultTimeout bounds one exchange.
const DefaultTimeout = 10 * time.Second

// wholeTimeouts is how many times the timeout all exchanges together may take: a chain of
// twenty slow redirects is none that anybody waits for.
const wholeTimeouts = 6

// Options say what a Client may do.
type Options struct {
	// Named are the hosts that the user himself named, without port. Only they get
	// credentials, and only they may have a private address.
	Named []string
	// Send lets the request itself be sent, not only its preflight.
	Send bool
	// AllowPrivate lets hosts that the user did not name have private addresses.
	AllowPrivate bool
	// Timeout bounds one exchange; 0 stands for DefaultTimeout.
	Timeout time.Duration
	// Resolve has addresses for "host:port", as with curl's --resolve. Who lists a host
	// has named it.
	Resolve map[string]netip.Addr
	// RootCAs are the authorities to trust instead of the system's; nil for those.
	RootCAs *x509.CertPool
	// DangerouslySkipVerify accepts any certificate, which no browser does.
	DangerouslySkipVerify bool
	// LookupNetIP resolves names; nil stands for the system's resolver.
	LookupNetIP func(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// Client asks real servers. It is for one question; make one with New.
type Client struct {
	o      Options
	ctx    context.Context // a Client lives as long as the command that it belongs to
	cancel context.CancelFunc

	mu    sync.Mutex
	notes []string
	// refused is why the last connection was not allowed.
	refused error
	// secure is set once a host was asked over TLS.
	secure bool
}

// New returns a Client. ctx ends whatever it does; call Close when done.
func New(ctx context.Context, o Options) *Client {
	if o.Timeout <= 0 {
		o.Timeout = DefaultTimeout
	}
	if o.LookupNetIP == nil {
		o.LookupNetIP = net.DefaultResolver.LookupNetIP
	}
	named := make([]string, 0, len(o.Named)+len(o.Resolve))
	for _, h := range o.Named {
		named = append(named, canonical(h))
	}
	for hostport := range o.Resolve {
		if h, _, err := net.SplitHostPort(hostport); err == nil {
			named = append(named, canonical(h))
		}
	}
	o.Named = named
	ctx, cancel := context.WithTimeout(ctx, wholeTimeouts*o.Timeout)
	return &Client{o: o, ctx: ctx, cancel: cancel}
}

// Close ends whatever is under way.
func (c *Client) Close() { c.cancel() }

// Notes are what the reader should know about the exchanges, in sentences.
func (c *Client) Notes() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.notes)
}

func (c *Client) note(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if text := fmt.Sprintf(format, args...); !slices.Contains(c.notes, text) {
		c.notes = append(c.notes, text)
	}
}

func (c *Client) named(host string) bool { return slices.Contains(c.o.Named, canonical(host)) }

// trusts reports whether credentials may go to the URL: its host was named, and no redirect
// leads from TLS to plain text, where anybody on the way could read them.
func (c *Client) trusts(u *url.URL) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if u.Scheme == "https" || u.Scheme == "wss" {
		c.secure = true
	} else if c.secure {
		return false
	}
	return c.named(u.Hostname())
}

// canonical is a host as it is compared: in lower case, without brackets and final dot.
func canonical(host string) string {
	host = strings.ToLower(strings.TrimSuffix(strings.Trim(host, "[]"), "."))
	if a, err := netip.ParseAddr(host); err == nil {
		return a.Unmap().WithZone("").String()
	}
	return host
}

// Server is a browser.Server.
func (c *Client) Server(m browser.Message) browser.Answer {
	if !m.Preflight && !c.o.Send {
		return withheld("the request itself is sent only on demand, because a backend executes it")
	}
	u, err := url.Parse(m.URL)
	if err != nil || u.Hostname() == "" {
		return browser.Answer{Failure: "net::ERR_INVALID_URL"}
	}
	trusted := c.trusts(u)
	if !m.Preflight && m.Body != nil && m.Body.Text != "" && !trusted {
		return withheld("a redirect sends the body on to " + u.Scheme + "://" + u.Host + ", which was not named")
	}
	ctx, cancel := context.WithTimeout(c.ctx, c.o.Timeout)
	defer cancel()
	r, err := c.request(ctx, m, u, trusted)
	if err != nil {
		c.note("The request could not be built: %v.", err)
		return browser.Answer{Failure: "net::ERR_INVALID_ARGUMENT"}
	}
	_ = c.takeRefused() // an earlier connection may have gone to another address of its host
	transport := c.transport()
	defer transport.CloseIdleConnections()
	res, err := transport.RoundTrip(r)
	if err != nil {
		if refused := c.takeRefused(); refused != nil {
			return withheld(refused.Error())
		}
		name, text := netError(err, r.URL.Scheme)
		if text != "" {
			c.note("%s: %s.", u.Host, text)
		}
		return browser.Answer{Failure: name}
	}
	defer res.Body.Close() //nolint:errcheck // it was only read.
	a := browser.Answer{Status: res.StatusCode, Header: headerOf(res)}
	if res.StatusCode == http.StatusSwitchingProtocols {
		return a // the body is the connection
	}
	// What does not come in time is not needed: the header decides, and of the body only
	// its beginning counts.
	body, err := io.ReadAll(io.LimitReader(res.Body, maxBody))
	if err != nil {
		c.note("The body of the answer broke off or did not end in time; the browser's decision does not depend on it.")
	}
	a.Body = string(body)
	return a
}

func withheld(why string) browser.Answer { return browser.Answer{Failure: explain.Withheld + why} }

func headerOf(res *http.Response) browser.Header {
	names := make([]string, 0, len(res.Header))
	for name := range res.Header {
		names = append(names, name)
	}
	slices.Sort(names)
	var h browser.Header
	for _, name := range names {
		for _, v := range res.Header[name] {
			h = append(h, browser.Field{Name: name, Value: v})
		}
	}
	return h
}

// request turns the model's message into a real one.
func (c *Client) request(ctx context.Context, m browser.Message, u *url.URL, trusted bool) (*http.Request, error) {
	target := *u
	socket := u.Scheme == "ws" || u.Scheme == "wss"
	if socket {
		target.Scheme = strings.Replace(u.Scheme, "ws", "http", 1)
	}
	var body io.Reader
	if m.Body != nil && m.Body.Text != "" {
		body = strings.NewReader(m.Body.Text)
	}
	r, err := http.NewRequestWithContext(ctx, m.Method, target.String(), body)
	if err != nil {
		return nil, err
	}
	// A server may see that no browser asks; whatever it makes of that, it should not be
	// misled.
	r.Header.Set("User-Agent", "moat-explain")
	r.Header.Set("Accept", "*/*")
	own := map[string]bool{}
	for _, f := range m.Header {
		switch {
		case !trusted && !harmless(f.Name):
			c.note("%s was not sent to %s://%s: credentials go only to the host that was named.", f.Name, u.Scheme, u.Host)
			continue
		case strings.EqualFold(f.Name, "Cookie"):
			f.Value = knownCookies(f.Value)
			if f.Value == "" {
				c.note("Cookies were not sent: their values are not known.")
				continue
			}
		case strings.Contains(f.Value, "boundary="+hidden):
			f.Value = strings.ReplaceAll(f.Value, hidden, "moat")
		case strings.Contains(f.Value, hidden):
			c.note("%s was not sent: its value was left out when the request was read.", f.Name)
			continue
		}
		if !own[strings.ToLower(f.Name)] {
			r.Header.Del(f.Name)
			own[strings.ToLower(f.Name)] = true
		}
		r.Header.Add(f.Name, f.Value)
	}
	if socket {
		for name, value := range map[string]string{"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "bW9hdC1leHBsYWluLWtleQ=="} {
			r.Header.Set(name, value)
		}
	}
	return r, nil
}

// hidden stands in a question for what may be secret.
const hidden = "…"

// knownCookies are those of a Cookie field whose values are known.
func knownCookies(field string) string {
	var known []string
	for pair := range strings.SplitSeq(field, "; ") {
		if !strings.Contains(pair, hidden) {
			known = append(known, pair)
		}
	}
	return strings.Join(known, "; ")
}

// harmless reports whether a header field may go to a host that the user did not name: one
// that the browser sets, or one whose value is no secret. Any other may be a key, whatever
// it is called.
func harmless(name string) bool {
	name = strings.ToLower(name)
	switch name {
	case "origin", "referer", "accept", "accept-language", "content-language", "content-type", "range", "cache-control", "pragma":
		return true
	}
	return strings.HasPrefix(name, "sec-fetch-") || strings.HasPrefix(name, "access-control-request-")
}

// transport makes a connection of its own for each exchange, so that each is checked.
func (c *Client) transport() *http.Transport {
	return &http.Transport{
		Proxy:                  nil, // a proxy would connect where this cannot look
		DialContext:            c.dial,
		ForceAttemptHTTP2:      true,
		DisableKeepAlives:      true,
		DisableCompression:     true,
		TLSHandshakeTimeout:    c.o.Timeout,
		ResponseHeaderTimeout:  c.o.Timeout,
		MaxResponseHeaderBytes: maxHeader,
		TLSClientConfig: &tls.Config{
			MinVersion: tls.VersionTLS12, RootCAs: c.o.RootCAs,
			InsecureSkipVerify: c.o.DangerouslySkipVerify, //nolint:gosec // the user asked for it by name.
		},
	}
}

// dial connects to a host, and to a private address only if the user named the host.
func (c *Client) dial(ctx context.Context, network, hostport string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(hostport)
	if err != nil {
		return nil, err
	}
	d := net.Dialer{Timeout: c.o.Timeout}
	if addr, ok := c.o.Resolve[canonical(host)+":"+port]; ok {
		return d.DialContext(ctx, network, netip.AddrPortFrom(addr, mustPort(port)).String())
	}
	if !c.o.AllowPrivate && !c.named(host) {
		d.ControlContext = func(_ context.Context, _, address string, _ syscall.RawConn) error {
			return c.check(host, address)
		}
	}
	return d.DialContext(ctx, network, hostport)
}

func mustPort(port string) uint16 {
	a, err := netip.ParseAddrPort("0.0.0.0:" + port)
	if err != nil {
		return 0
	}
	return a.Port()
}

func (c *Client) check(host, address string) error {
	ap, err := netip.ParseAddrPort(address)
	if err == nil && public(ap.Addr()) {
		return nil
	}
	err = fmt.Errorf("it leads to %s, which has the private address %s and was not named", host, ap.Addr())
	if canonical(host) == canonical(ap.Addr().String()) {
		err = fmt.Errorf("it leads to the private address %s, which was not named", ap.Addr())
	}
	c.mu.Lock()
	c.refused = err
	c.mu.Unlock()
	return err
}

func (c *Client) takeRefused() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	err := c.refused
	c.refused = nil
	return err
}

// Space tells in which address space a host is, by what its name resolves to. A host that
// does not resolve, or that Resolve lists, is judged by its name.
func (c *Client) Space(hostport string) browser.AddressSpace {
	byName := browser.SpaceOf(hostport)
	u, err := url.Parse("http://" + hostport)
	if err != nil || byName != browser.Public || c.resolved(u.Hostname()) {
		return byName
	}
	if _, err = netip.ParseAddr(u.Hostname()); err == nil {
		return byName
	}
	ctx, cancel := context.WithTimeout(c.ctx, min(c.o.Timeout, 2*time.Second))
	defer cancel()
	addrs, err := c.o.LookupNetIP(ctx, "ip", u.Hostname())
	if err != nil || len(addrs) == 0 {
		return byName
	}
	space := browser.SpaceOf(addrs[0].Unmap().String())
	if space != browser.Public {
		c.note("%s resolves to %s, which is in the %s address space.", u.Hostname(), addrs[0].Unmap(), space)
	}
	return space
}

func (c *Client) resolved(host string) bool {
	for hostport := range c.o.Resolve {
		if h, _, err := net.SplitHostPort(hostport); err == nil && canonical(h) == canonical(host) {
			return true
		}
	}
	return false
}

// notPublic are the blocks that are not on the internet, or that carry an address within
// that may not be (https://www.iana.org/assignments/iana-ipv4-special-registry/).
var notPublic = prefixes(
	"0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
	"192.168.0.0/16", "198.18.0.0/15", "224.0.0.0/4", "240.0.0.0/4",
	"::/8", "64:ff9b::/96", "64:ff9b:1::/48", "100::/64", "2001::/32", "2002::/16", "fc00::/7", "fe80::/10", "fec0::/10", "ff00::/8",
)

func prefixes(list ...string) []netip.Prefix {
	all := make([]netip.Prefix, len(list))
	for i, s := range list {
		all[i] = netip.MustParsePrefix(s)
	}
	return all
}

func public(a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	return a.IsValid() && !slices.ContainsFunc(notPublic, func(p netip.Prefix) bool { return p.Contains(a) })
}

// RootCAs reads certificates to trust, in PEM.
func RootCAs(file string) (*x509.CertPool, error) {
	f, err := os.Open(file) //nolint:gosec // the user named it.
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // it was only read.
	pem, err := io.ReadAll(io.LimitReader(f, 16<<20))
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s holds no certificate", file)
	}
	return pool, nil
}
