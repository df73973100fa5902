// Package credential puts a credential into requests to an upstream, in the place of the
// caller's own, and sees to it that the upstream's answers do not tell it.
//
// It protects a secret that pages must not have: the key of a provider, the password of a
// service. Callers neither see it nor choose where it goes, and what they send in its place
// is removed: headers of the same name in any spelling, query parameters of the same name,
// and, unless they are meant to pass, their Authorization and cookies.
//
// It believes the upstream, and a token endpoint, with the secret. An upstream that repeats it is
// masked where it does so literally, URL-escaped, as a JSON text or in the base64 of Basic;
// one that tells it in another encoding, a part at a time, or through a WebSocket is not.
// What a caller does with the upstream by way of the credential is not this package's concern.
package credential

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/textproto"
	"net/url"
	"slices"
	"strings"

	"golang.org/x/net/http/httpguts"

	"github.com/moat-gateway/moat/guard"
	"github.com/moat-gateway/moat/web"
)

// MinSecret is the length in bytes of the shortest secret: masking a shorter one would
// mask ordinary text.
const MinSecret = 8

// maxSecret bounds a secret and a token, so that every form of them fits into the buffer
// of whoever copies an answer.
const maxSecret = 4096

// Policy is a credential: what is put into each request. Its parts add up.
type Policy struct {
	// Headers are set as they are.
	Headers map[string]string
	// Bearer is a token of RFC 6750.
	Bearer string
	// Basic is a name and a password of RFC 7617.
	Basic Basic
	// Query are parameters of the URL.
	Query map[string]string
	// OAuth fetches a bearer token, and keeps it fresh.
	OAuth OAuth
	// Secrets are more texts that no answer may hold: the parts of Headers that are secret,
	// if others than the whole value, or what follows the scheme in it, are.
	Secrets []string
	// DangerouslyAllowEcho passes answers as they are, so that they may be compressed, and
	// asked for in ranges. An upstream that repeats the secret tells it to the caller.
	DangerouslyAllowEcho bool
}

// Zero reports whether the policy puts nothing into a request.
func (p *Policy) Zero() bool {
	return len(p.Headers) == 0 && p.Bearer == "" && p.Basic == (Basic{}) && len(p.Query) == 0 && p.OAuth.TokenURL == ""
}

// hidden is what a Policy prints as.
const hidden = "[credential]"

// Format writes a placeholder, whatever the verb: a Policy is full of secrets, and stands in
// configurations that are easily logged.
func (Policy) Format(f fmt.State, _ rune) { io.WriteString(f, hidden) } //nolint:errcheck // a Formatter has nobody to tell.

// MarshalText returns a placeholder, for JSON and slog.
func (Policy) MarshalText() ([]byte, error) { return []byte(hidden), nil }

// Basic is a name and a password.
type Basic struct{ Username, Password string }

// Guard is a compiled Policy. It is safe for concurrent use.
type Guard struct {
	headers http.Header
	query   string          // as it stands in a URL
	names   map[string]bool // of the headers, folded
	params  map[string]bool // of the query, folded
	mask    *mask           // of what does not change; nil if answers are not looked at
	tokens  *tokens         // nil without OAuth
}

// New compiles a Policy, or says everything that is wrong with it, without repeating a
// secret. A Guard that it replaces, or nil, hands over its OAuth token, if it is for the same client.
func New(p Policy, old *Guard) (*Guard, error) {
	g := &Guard{headers: make(http.Header), names: make(map[string]bool), params: make(map[string]bool)}
	var errs []error
	secrets := slices.Clone(p.Secrets)
	for _, name := range slices.Sorted(maps.Keys(p.Headers)) {
		errs = append(errs, g.header(name, p.Headers[name]))
		secret := p.Headers[name]
		if _, rest, _ := strings.Cut(secret, " "); len(rest) >= MinSecret {
			secret = rest
		}
		secrets = append(secrets, secret)
	}
	if p.Bearer != "" {
		errs = append(errs, g.header("Authorization", "Bearer "+p.Bearer))
		secrets = append(secrets, p.Bearer)
	}
	if p.Basic != (Basic{}) {
		if strings.Contains(p.Basic.Username, ":") {
			errs = append(errs, errors.New("basic: the name holds a colon, which ends it (RFC 7617 section 2)"))
		}
		both := base64.StdEncoding.EncodeToString([]byte(p.Basic.Username + ":" + p.Basic.Password))
		errs = append(errs, g.header("Authorization", "Basic "+both))
		secrets = append(secrets, p.Basic.Password, both)
	}
	for _, name := range slices.Sorted(maps.Keys(p.Query)) {
		folded := web.FoldName(name)
		if folded == "" || g.params[folded] {
			errs = append(errs, fmt.Errorf("query: %q: no name, or set twice", name))
		}
		g.params[folded] = true
		g.query += "&" + url.QueryEscape(name) + "=" + url.QueryEscape(p.Query[name])
		secrets = append(secrets, p.Query[name])
	}
	g.query = strings.TrimPrefix(g.query, "&")
	if p.OAuth.TokenURL != "" {
		if g.names["authorization"] {
			errs = append(errs, errors.New("oauth: Authorization is set already"))
		}
		g.names["authorization"] = true
		secrets = append(secrets, p.OAuth.ClientSecret)
		var err error
		if g.tokens, err = newTokens(p.OAuth, secrets, old); err != nil {
			errs = append(errs, fmt.Errorf("oauth: %w", err))
		}
	}
	for _, s := range secrets {
		errs = append(errs, CheckSecret(s))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	if g.mask = newMask(secrets); p.DangerouslyAllowEcho {
		g.mask = nil
	}
	return g, nil
}

func (g *Guard) header(name, value string) error {
	folded := web.FoldName(name)
	switch {
	case !httpguts.ValidHeaderFieldName(name) || !httpguts.ValidHeaderFieldValue(value):
		return fmt.Errorf("headers: %q: not a header name, or a value with control characters", name)
	case g.names[folded]:
		return fmt.Errorf("headers: %q: set twice", name)
	}
	g.names[folded] = true
	g.headers.Set(name, value)
	return nil
}

// CheckSecret says why a text cannot be a secret.
func CheckSecret(s string) error {
	switch {
	case len(s) < MinSecret:
		return fmt.Errorf("a secret of less than %d bytes could not be told from ordinary text in an answer that repeats it; use a longer one", MinSecret)
	case len(s) > maxSecret:
		return fmt.Errorf("a secret of more than %d bytes is longer than any credential", maxSecret)
	case strings.Trim(s, "*") == "":
		return errors.New("a secret of asterisks could not be masked with them")
	}
	return nil
}

// StripCaller removes from h, in place and in any spelling, what browsers and clients
// identify themselves with: Authorization, Proxy-Authorization and cookies.
func StripCaller(h http.Header) {
	for name := range h {
		if has(callers, name) {
			delete(h, name)
		}
	}
}

var callers = map[string]bool{"authorization": true, "proxy-authorization": true, "cookie": true, "cookie2": true}

// has reports whether a name is, folded, in the set. It does not allocate for a name of
// ordinary length.
func has(set map[string]bool, name string) bool {
	var b [64]byte
	return set[string(web.AppendFolded(b[:0], name))]
}

// Sent is a credential as it went out with one request.
type Sent struct {
	tokens *tokens
	token  *token // nil without OAuth
	mask   *mask
}

// Use puts the credential into a request to the upstream: into its headers and its URL,
// both in place. It waits only for a token that is not there yet, and denies if there is none to be
// had.
func (g *Guard) Use(ctx context.Context, h http.Header, u *url.URL) (*Sent, guard.Decision) {
	s := &Sent{tokens: g.tokens, mask: g.mask}
	for name := range h {
		if has(g.names, name) {
			delete(h, name)
		}
	}
	if g.query != "" {
		u.RawQuery = strings.TrimSuffix(g.query+"&"+withoutParams(u.RawQuery, g.params), "&")
	}
	maps.Copy(h, g.headers)
	if g.mask != nil {
		// In another encoding, or in two parts, the secret would not be found in the answer.
		h["Accept-Encoding"] = identity
		delete(h, "Accept-Charset")
		delete(h, "Range")
		delete(h, "If-Range")
	}
	if g.tokens == nil {
		return s, guard.Decision{}
	}
	t, d := g.tokens.get(ctx)
	if d.Denied() {
		return nil, d
	}
	if s.token = t; s.mask != nil {
		s.mask = t.mask
	}
	h["Authorization"] = t.header
	return s, guard.Decision{}
}

// identity is never changed by the transport.
var identity = []string{"identity"}

// Answer masks the secret in the upstream's answer: in its headers at once, in its body
// and trailers while they are read. It calls echoed, if it has to mask anything, once, with
// where it was. It denies an answer in which the secret could not be found.
func (s *Sent) Answer(res *http.Response, echoed func(where string)) guard.Decision {
	if res.StatusCode == http.StatusUnauthorized && s.token != nil {
		s.tokens.refused(s.token)
	}
	if s.mask == nil {
		return guard.Decision{}
	}
	for _, coding := range res.Header["Content-Encoding"] {
		if coding != "" && !strings.EqualFold(coding, "identity") {
			return guard.Denial(guard.UpstreamBadResponse, "Content-Encoding", "", "no encoding: the request asked for none, so that the credential can be found in the answer")
		}
	}
	told := false
	once := func(where string) {
		if !told {
			told = true
			echoed(where)
		}
	}
	if where := s.mask.headers(res.Header); where != "" {
		once("the answer's " + where)
	}
	if res.StatusCode == http.StatusSwitchingProtocols {
		return guard.Decision{} // the body is the connection
	}
	res.Body = newBody(s.mask, res, once)
	return guard.Decision{}
}

// Interim masks the secret in the headers of an interim answer.
func (s *Sent) Interim(h textproto.MIMEHeader) {
	if s.mask != nil {
		s.mask.headers(http.Header(h))
	}
}

// Text masks the secret in an error's text, which may hold what the upstream sent.
func (s *Sent) Text(text string) string {
	if s.mask == nil {
		return "not told: it may hold the credential"
	}
	text, _ = s.mask.text(text)
	return text
}
