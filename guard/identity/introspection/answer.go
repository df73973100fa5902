package introspection

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/moat-gateway/moat/guard"
	"github.com/moat-gateway/moat/guard/identity"
	"github.com/moat-gateway/moat/guard/identity/internal/principal"
)

const (
	// maxAnswer bounds the server's answer, and its head, in bytes.
	maxAnswer = 64 << 10
	// leeway is how far the server's clock may be ahead of this one.
	leeway = 30 * time.Second
	// latest is the last second that a date may name: beyond, time.Time overflows.
	latest = 1 << 40
)

func unavailable(got string) guard.Decision {
	return guard.Denial(guard.IdentityUnavailable, "the introspection endpoint", got, "an answer about the token")
}

func expired(exp time.Time) guard.Decision {
	return guard.Denial(guard.TokenExpired, "exp", exp.Format(time.RFC3339), "a time to come")
}

// question asks the server (RFC 7662 section 2.1), and judges its answer, which was size
// bytes long. Nothing of the token, nor of an answer that was not understood, is in the
// Decision: a server may repeat the token.
func (v *Verifier) question(ctx context.Context, text string, now time.Time) (p *identity.Principal, size int, d guard.Decision) {
	form := url.Values{"token": {text}, "token_type_hint": {"access_token"}}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, v.p.URL, strings.NewReader(form.Encode()))
	if err != nil {
		return nil, 0, unavailable("its URL is malformed")
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Accept", "application/json")
	req.Header["Idempotency-Key"] = nil                                                // not sent: it lets the Transport ask again if a connection that was kept has gone
	req.SetBasicAuth(url.QueryEscape(v.p.ClientID), url.QueryEscape(v.p.ClientSecret)) // encoded first: RFC 6749 section 2.3.1
	// Not a Client: a redirect would carry the token and the secret to somewhere else.
	res, err := v.p.Transport.RoundTrip(req)
	if err != nil {
		return nil, 0, unavailable(unreached(ctx, err))
	}
	defer res.Body.Close() //nolint:errcheck // it was only read.
	body, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer+1))
	media, _, _ := mime.ParseMediaType(res.Header.Get("Content-Type"))
	switch {
	case err != nil:
		return nil, 0, unavailable(unreached(ctx, err))
	case res.StatusCode == http.StatusUnauthorized || res.StatusCode == http.StatusForbidden:
		return nil, 0, unavailable("it answered " + strconv.Itoa(res.StatusCode) + ": it does not accept the gate's client_id and client_secret")
	case res.StatusCode != http.StatusOK:
		return nil, 0, unavailable("it answered " + strconv.Itoa(res.StatusCode))
	case len(body) > maxAnswer:
		return nil, 0, unavailable("its answer is larger than " + strconv.Itoa(maxAnswer) + " bytes")
	case media != "application/json":
		return nil, 0, unavailable("its answer is not application/json")
	}
	p, d = v.judge(body, now)
	return p, len(body), d
}

// unreached says what kept the server from answering, and repeats nothing that it said.
func unreached(ctx context.Context, err error) string {
	if ctx.Err() != nil {
		return "it did not answer in time"
	}
	if cert, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return cert.Error()
	}
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "dial" {
		return op.Error()
	}
	return "it did not answer in HTTP"
}

// judge reads an answer (RFC 7662 section 2.2).
func (v *Verifier) judge(body []byte, now time.Time) (*identity.Principal, guard.Decision) {
	claims, err := principal.ParseClaims(body)
	if err != nil {
		return nil, unavailable("its answer: " + err.Error())
	}
	switch active := claims["active"]; active {
	case true:
	case false:
		return nil, guard.Denial(guard.TokenInactive, "the introspection endpoint", "active: false", "active: true")
	default:
		return nil, unavailable(`its answer has no "active" that is true or false`)
	}
	if iss, ok := claims["iss"]; ok && v.p.Issuer != "" && iss != v.p.Issuer {
		return nil, guard.Denial(guard.TokenIssuerUnknown, "iss", show(iss), v.p.Issuer)
	}
	if len(v.p.Audiences) > 0 && !slices.ContainsFunc(audiences(claims["aud"]), func(a string) bool { return slices.Contains(v.p.Audiences, a) }) {
		return nil, guard.Denial(guard.TokenAudienceWrong, "aud", show(claims["aud"]), "one of "+strings.Join(v.p.Audiences, ", "))
	}
	exp, ok := date(claims, "exp")
	switch {
	case !ok:
		return nil, missing("exp", "a number of seconds, or none")
	case !exp.IsZero() && !now.Before(exp):
		return nil, expired(exp)
	}
	nbf, ok := date(claims, "nbf")
	switch {
	case !ok:
		return nil, missing("nbf", "a number of seconds, or none")
	case now.Add(leeway).Before(nbf):
		return nil, guard.Denial(guard.TokenNotYetValid, "nbf", nbf.Format(time.RFC3339), "a time that has come")
	}
	sub, _ := claims["sub"].(string)
	if sub == "" {
		return nil, missing("sub", "a name")
	}
	f := principal.Facts{Source: v.p.Source, Method: principal.Introspection, Issuer: v.p.Issuer, Subject: sub, Claims: claims, Expires: exp}
	if f.Issuer == "" {
		f.Issuer = v.p.URL
	}
	if cnf, bound := claims["cnf"]; bound {
		// A token that is bound to a key by other means, such as a client's certificate,
		// would be a plain bearer token here, and whoever has stolen it could use it.
		if f.Confirmation = thumbprint(cnf); f.Confirmation == "" {
			return nil, missing("cnf", "jkt alone: the gate checks no other proof of possession")
		}
	}
	scopes, _ := principal.Lookup(claims, v.p.ScopeClaim)
	f.Scopes = principal.Strings(scopes)
	if v.p.RolesClaim != "" {
		roles, _ := principal.Lookup(claims, v.p.RolesClaim)
		f.Roles = principal.Strings(roles)
	}
	f.Credential, _ = claims["jti"].(string)
	return principal.New(f), verified
}

func missing(claim, want string) guard.Decision {
	return guard.Denial(guard.TokenClaimMissing, claim, "missing, or of another type", want)
}

// audiences are those of a token: a string or a list of them (RFC 7519 section 4.1.3). One
// with a blank in it is still one.
func audiences(aud any) []string {
	if s, ok := aud.(string); ok {
		return []string{s}
	}
	return principal.Strings(aud)
}

// date reads a NumericDate (RFC 7519 section 2). It is zero if there is none.
func date(claims map[string]any, name string) (t time.Time, ok bool) {
	switch n := claims[name].(type) {
	case int64:
		return time.Unix(n, 0).UTC(), 0 < n && n < latest
	case float64:
		return time.Unix(int64(n), 0).UTC(), 0 < n && n < latest
	case nil:
		_, null := claims[name]
		return time.Time{}, !null
	}
	return time.Time{}, false
}

// thumbprint is that of the key to which a token is bound (RFC 9449 section 6.2).
func thumbprint(cnf any) string {
	m, _ := cnf.(map[string]any)
	if len(m) != 1 {
		return ""
	}
	s, _ := m["jkt"].(string)
	return s
}

// show makes a claim fit to be evidence: not endless.
func show(claim any) string {
	s := fmt.Sprint(claim)
	return s[:min(len(s), 200)]
}
