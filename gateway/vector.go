package gateway

import (
	"cmp"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/moat-gateway/moat/guard"
	"github.com/moat-gateway/moat/guard/identity"
	"github.com/moat-gateway/moat/guard/identity/assume"
)

// Vector is a request on paper: what a client sends, as far as it decides.
type Vector struct {
	Method string `json:"method"`
	// URL is http: or https:, as the client has it.
	URL string `json:"url"`
	// Headers by name. Host stands for the URL's host, and Content-Length for a body.
	Headers map[string]string `json:"headers"`
	// From is the address from which the connection comes.
	From netip.Addr `json:"from"`
}

// Request makes the request that a server would have read.
func (v Vector) Request() (*http.Request, error) {
	u, err := url.Parse(v.URL)
	if err != nil {
		return nil, err
	}
	r := &http.Request{
		Method: v.Method, URL: &url.URL{Path: cmp.Or(u.Path, "/"), RawPath: u.RawPath, RawQuery: u.RawQuery}, Host: u.Host,
		RequestURI: u.RequestURI(), Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: make(http.Header), Body: http.NoBody, RemoteAddr: netip.AddrPortFrom(v.From, 1).String(),
	}
	if u.Scheme == "https" {
		r.TLS = &tls.ConnectionState{}
	}
	for name, value := range v.Headers {
		switch name = http.CanonicalHeaderKey(name); name {
		case "Host":
			r.Host = value
		case "Content-Length":
			if r.ContentLength, err = strconv.ParseInt(value, 10, 64); err != nil {
				return nil, err
			}
		}
		if name != "Host" {
			r.Header[name] = append(r.Header[name], value)
		}
	}
	return r, nil
}

// sentHeaders are the request headers that a record keeps: those that guards decide by and
// that hold no secret. Those that decide most stand first.
var sentHeaders = [...]string{
	"Origin", "Sec-Fetch-Site", "Sec-Fetch-Mode", "Sec-Fetch-Dest", "Sec-Fetch-User", "Sec-Purpose",
	"Access-Control-Request-Method", "Access-Control-Request-Headers", "Content-Type", "Content-Length", "Content-Encoding",
	"Upgrade", "Connection", "X-Http-Method", "X-Http-Method-Override", "X-Method-Override",
	"User-Agent", "Accept", "Accept-Language", "Sec-Ch-Ua", "Sec-Ch-Ua-Mobile", "Sec-Ch-Ua-Platform",
}

const (
	// sentBytes bounds the header values of a record, all together.
	sentBytes = 1 << 10
	// sentParams and paramBytes bound what a record keeps of a query: the names alone, and
	// only what looks like one.
	sentParams, paramBytes = 16, 24
)

// sent is what a record keeps of the request, to make it once more.
type sent struct {
	secure  bool
	host    string
	rawPath string      // "" unless it differs from the path
	query   string      // names without values
	headers []string    // name, value, …
	left    bool        // something did not fit
	as      *assume.Who // nil if nobody is known
}

// keep notes what the request said. Credentials, cookies, tickets, values of the query and
// the body are not among it.
func (x *exchange) keep(r *http.Request) sent {
	s := sent{secure: x.secure, host: bound(r, r.Host), query: paramNames(r.URL.RawQuery)}
	if len(r.URL.Path) > evidenceBytes || len(r.URL.RawPath) > evidenceBytes {
		s.left = true
	} else {
		s.rawPath = bound(r, r.URL.RawPath)
	}
	room := sentBytes
	var most [24]string
	out := most[:0]
	for _, name := range sentHeaders {
		v := r.Header[name]
		if len(v) == 0 {
			continue
		}
		if len(v) > 1 || len(v[0]) > min(room, evidenceBytes) {
			s.left = true
			continue
		}
		room -= len(v[0])
		out = append(out, name, v[0])
	}
	if x.upgrade != "" && r.Header["Upgrade"] == nil { // what the hop-by-hop headers had said
		out = append(out, "Connection", "Upgrade", "Upgrade", x.upgrade)
	}
	if r.ContentLength > 0 && r.Header["Content-Length"] == nil {
		out = append(out, "Content-Length", strconv.FormatInt(r.ContentLength, 10))
	}
	s.headers = slices.Clone(out)
	if c := x.caller; c != nil {
		s.as = &assume.Who{Source: c.Source(), Subject: bound(r, c.Subject()), Method: c.Method(), Scopes: few(c.Scopes()), Roles: few(c.Roles())}
		s.left = s.left || len(s.as.Scopes) < len(c.Scopes()) || len(s.as.Roles) < len(c.Roles())
	}
	return s
}

// few keeps as many texts as a record has room for.
func few(list []string) []string {
	room := sentBytes
	for i, text := range list {
		if room -= len(text) + 16; room < 0 {
			return slices.Clone(list[:i])
		}
	}
	return list
}

// paramNames keeps the names of a query that look like names. A secret without a name, or one
// that is a name, is not kept.
func paramNames(raw string) string {
	if raw == "" {
		return ""
	}
	var b strings.Builder
	b.Grow(min(len(raw), sentParams*(paramBytes+2)))
	for n := 0; raw != "" && n < sentParams; n++ {
		var param string
		param, raw, _ = strings.Cut(raw, "&")
		name, _, named := strings.Cut(param, "=")
		if !named || name == "" || len(name) > paramBytes || strings.ContainsFunc(name, func(c rune) bool {
			return c >= 0x80 || c != '_' && c != '-' && c != '.' && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9')
		}) {
			continue
		}
		if b.Len() > 0 {
			b.WriteByte('&')
		}
		b.WriteString(name)
		b.WriteByte('=')
	}
	return b.String()
}

// Reproduction is how a decision can be had again.
type Reproduction struct {
	// Request is what is kept of it; nil if that cannot be written down.
	Request *Vector `json:"request,omitempty"`
	// Same says that the request on paper leads to the same decision, under the configuration
	// in force. Only then there is a Test.
	Same bool `json:"same"`
	// Because says why not, or what is missing.
	Because string `json:"because,omitempty"`
	// Test is an item for tests in moat.yaml, which moat check runs.
	Test string `json:"test,omitempty"`
	// Curl is the request as a command for a shell.
	Curl string `json:"curl,omitempty"`
	// Trail is what each guard decided on paper, up to the one that ended the request.
	Trail []TrailStep `json:"trail,omitempty"`
}

// TrailStep is a Step in words.
type TrailStep struct {
	Guard   string `json:"guard"`
	Mode    string `json:"mode"`
	Outcome string `json:"outcome"`
	Code    string `json:"code"`
}

// reproduce makes the recorded request once more, on paper, and looks whether it leads to the
// same decision.
func (g *Gateway) reproduce(rec *Record) Reproduction {
	reason, known := guard.ParseReason(rec.Code)
	out := Reproduction{Because: unrepeatable(reason)}
	v, left, err := rec.vector()
	if err != nil || !known {
		out.Because = "The request cannot be written down: its host or its path is none, or too long to have been kept."
		return out
	}
	out.Request, out.Curl = &v, curl(v, rec.sent.as != nil)
	reported := rec.Mode != guard.Enforce.String()
	switch {
	case reason == guard.BotSuspected && !reported:
		out.Because = "The request went on. It only cost more, and no test can expect that."
		return out
	case out.Because != "":
		out.Because = "No test can have it again. " + out.Because
		return out
	}
	var got Verdict
	// What was taken for granted, as far as the request must have had it to get here.
	for _, a := range [...]Assumed{{}, {Ticket: true}, {CSRF: true}, {Ticket: true, CSRF: true}} {
		if a.Ticket && reason.Step() <= guard.Ticket || a.CSRF && reason.Step() <= guard.CSRF {
			continue
		}
		r, err := v.Request()
		if err != nil {
			break
		}
		a.Fresh, a.Caller = true, rec.sent.caller()
		got = g.Decide(r, a)
		if out.Same = leadsTo(got, reason, reported) && got.Route == rec.Route; out.Same {
			out.Test = test(rec, v, a, got)
			break
		}
	}
	for _, s := range got.Trail {
		out.Trail = append(out.Trail, TrailStep{s.Guard.String(), s.Mode.String(), s.Decision.Outcome.String(), s.Decision.Reason.String()})
	}
	switch {
	case out.Same:
	case left:
		out.Because = "A part of the request was not kept: a header that came twice, is too long, or cannot stand in moat.yaml."
	default:
		now := "lets it pass"
		if got.Decision.Ends() {
			now = "decides " + got.Decision.Reason.String()
		}
		out.Because = "On paper the configuration in force " + now + ". It has changed since, or what decided is not kept: the body, values of the query, credentials, how the connection was made, or what else the client did."
	}
	return out
}

// leadsTo reports whether a verdict is for that reason.
func leadsTo(v Verdict, reason guard.Reason, reported bool) bool {
	if !reported {
		return v.Decision.Denied() && v.Decision.Reason == reason
	}
	return slices.ContainsFunc(v.Reports, func(d guard.Decision) bool { return d.Reason == reason })
}

// unrepeatable says why a decision for that reason cannot be had on paper, or "".
func unrepeatable(r guard.Reason) string {
	switch r.Step() {
	case guard.Host, guard.RouteStep, guard.ClientAddr, guard.CORS, guard.CrossSite: // the head alone decides
	case guard.Wire:
		return "The bytes of the connection decided, before there was a request that one could write down."
	case guard.RateLimit:
		return "It depends on what was asked before: the same request is refused or passes, as the limit has room."
	case guard.Budget:
		return "It depends on what was spent before, or on what the body asks for, and a record has neither."
	case guard.Challenge:
		return "It depends on who asked for tickets before, and on a solution that counts once."
	case guard.Ticket:
		if r != guard.TicketMissing {
			return "It depends on a ticket and its proof, which are good once and are not kept."
		}
	case guard.Identity:
		if r != guard.CredentialsMissing {
			return "It depends on a credential, and none is kept."
		}
	case guard.CSRF:
		if r != guard.CSRFTokenMissing {
			return "It depends on a token of a session, and none is kept."
		}
	case guard.Authorization:
		if r != guard.AuthorizationScopeMissing && r != guard.AuthorizationRoleMissing {
			return "It depends on the caller's claims, which are not kept. Write those that decide under the test's as.claims."
		}
	case guard.Bot:
		if r == guard.BotSignatureInvalid {
			return "It depends on a signature, and none is kept."
		}
	case guard.Body:
		if r != guard.BodyTypeNotAllowed && r != guard.BodyEncoded && r != guard.OperationUnknown {
			return "It depends on the body or on values of the query, which are not kept."
		}
	case guard.Bounds:
		if r == guard.BodyTooSlow {
			return "It depends on how slowly the body came."
		}
	case guard.Upstream, guard.Credential, guard.Egress, guard.Cookie:
		return "The gate had let the request pass; this came of what stands behind it, or of an answer or a cookie."
	case guard.Scrub:
		return "It depends on a header that only a proxy may send, and those are not kept."
	}
	return ""
}

// vector is the recorded request. left says that it is not whole.
func (r *Record) vector() (v Vector, left bool, err error) {
	u := url.URL{Scheme: "http", Host: r.sent.host, Path: r.Path, RawPath: r.sent.rawPath, RawQuery: r.sent.query}
	if r.sent.secure {
		u.Scheme = "https"
	}
	v = Vector{Method: r.Method, URL: u.String(), Headers: make(map[string]string)}
	back, err := url.Parse(v.URL)
	if err != nil || back.Host != r.sent.host || back.Host == "" || back.Path != r.Path || r.Path == "" {
		return v, true, cmp.Or(err, errors.New("not a URL"))
	}
	if v.From, err = netip.ParseAddr(r.Client); err != nil {
		v.From = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	left = r.sent.left
	for i := 0; i+1 < len(r.sent.headers); i += 2 {
		if name, value := r.sent.headers[i], r.sent.headers[i+1]; plain(value) {
			v.Headers[name] = value
		} else {
			left = true
		}
	}
	if who := r.sent.as; who != nil {
		for _, text := range slices.Concat([]string{who.Source, who.Subject}, who.Scopes, who.Roles) {
			if !plain(text) {
				return v, true, errors.New("not plain")
			}
		}
	}
	return v, left, nil
}

// plain reports whether a text can stand in moat.yaml and in a shell as it is: a client must
// not put a reference to a file or to a variable there, for whoever pastes it.
func plain(s string) bool {
	return !strings.Contains(s, "${") && !strings.ContainsFunc(s, func(c rune) bool { return c < ' ' || c > '~' })
}

// caller is who made the request, as a test takes it for granted; nil if nobody is known.
func (s *sent) caller() *identity.Principal {
	if s.as == nil {
		return nil
	}
	return assume.Principal(*s.as)
}

// names are the vector's headers, in the order of sentHeaders.
func (v Vector) names() (names []string) {
	for _, name := range sentHeaders {
		if _, ok := v.Headers[name]; ok {
			names = append(names, name)
		}
	}
	return names
}

// test writes an item for tests in moat.yaml. JSON's strings are YAML's, too.
func test(rec *Record, v Vector, a Assumed, got Verdict) string {
	var b strings.Builder
	expect := "allow"
	if got.Decision.Ends() {
		expect = got.Decision.Reason.String()
	}
	fmt.Fprintf(&b, "  - name: %s\n    request:\n      method: %s\n      url: %s\n", quoted(rec.Code+", "+rec.ID), quoted(v.Method), quoted(v.URL))
	if names := v.names(); len(names) > 0 {
		b.WriteString("      headers:\n")
		for _, name := range names {
			fmt.Fprintf(&b, "        %s: %s\n", name, quoted(v.Headers[name]))
		}
	}
	fmt.Fprintf(&b, "      from: %s\n", quoted(v.From.String()))
	if a.Ticket {
		b.WriteString("      ticket: true\n")
	}
	if a.CSRF {
		b.WriteString("      csrf: true\n")
	}
	if who := a.Caller; who != nil {
		fmt.Fprintf(&b, "      as:\n        auth: %s\n        sub: %s\n", quoted(who.Source()), quoted(who.Subject()))
		if len(who.Scopes()) > 0 {
			fmt.Fprintf(&b, "        scopes: %s\n", quoted(who.Scopes()))
		}
		if len(who.Roles()) > 0 {
			fmt.Fprintf(&b, "        roles: %s\n", quoted(who.Roles()))
		}
	}
	fmt.Fprintf(&b, "    expect: %s\n", expect)
	if rec.Mode != guard.Enforce.String() {
		fmt.Fprintf(&b, "    reports: %s\n", rec.Code)
	}
	if got.Route != "" {
		fmt.Fprintf(&b, "    route: %s\n", quoted(got.Route))
	}
	return b.String()
}

func quoted(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err) // strings
	}
	return string(text)
}

// curl writes the request as a command. What curl would add by itself is left out.
func curl(v Vector, known bool) string {
	var b strings.Builder
	b.WriteString("curl --include --globoff --path-as-is")
	if v.Method != http.MethodGet {
		b.WriteString(" --request " + shell(v.Method))
	}
	for _, name := range v.names() {
		if name == "Content-Length" && v.Headers[name] != "0" {
			continue // the body is not kept, and a client that promises one has to send it
		}
		text := name + ": " + v.Headers[name]
		if v.Headers[name] == "" {
			text = name + ";"
		}
		b.WriteString(" \\\n  --header " + shell(text))
	}
	for _, name := range []string{"User-Agent", "Accept"} {
		if _, ok := v.Headers[name]; !ok {
			b.WriteString(" \\\n  --header " + shell(name+":"))
		}
	}
	b.WriteString(" \\\n  " + shell(v.URL))
	if known {
		b.WriteString(" # and the caller's credentials")
	}
	return b.String()
}

// shell quotes a text for every POSIX shell.
func shell(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
