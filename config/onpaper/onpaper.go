// Package onpaper asks a configuration what its gate would decide. Nothing is listened on,
// forwarded or counted: the answers are explain's, for those who would like to know before
// they run it.
package onpaper

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"net/url"
	"slices"

	"github.com/moat-gateway/moat/browser"
	"github.com/moat-gateway/moat/config"
	"github.com/moat-gateway/moat/explain"
	"github.com/moat-gateway/moat/gateway"
	"github.com/moat-gateway/moat/guard"
)

// Policy answers in a server's place with what moat would decide.
type Policy struct {
	loaded *config.Loaded
	gate   *gateway.Gateway
}

// New compiles the gate of a configuration.
func New(loaded *config.Loaded) (*Policy, error) {
	gate, err := gateway.New(loaded.Gateway, nil)
	if err != nil {
		return nil, err
	}
	return &Policy{loaded, gate}, nil
}

// Origin is the one under which clients know the gate, for URLs that leave it out.
func (s *Policy) Origin() string { return s.loaded.Gateway.PublicOrigins[0].String() }

// Decide rules on a request as it would leave the browser.
func (s *Policy) Decide(m browser.Message) explain.Ruling {
	r, err := asRequest(m)
	if err != nil {
		return explain.Ruling{Answer: browser.Answer{Failure: "net::ERR_INVALID_URL"}}
	}
	name := m.Method + " " + r.RequestURI
	v := s.gate.Decide(r, gateway.Assumed{})
	ruling := explain.Ruling{
		Steps: s.steps(name, v), Refused: v.Decision.Denied(), Passed: !v.Decision.Ends(),
		Answer: browser.Answer{Status: http.StatusOK, Header: headerFields(v.Header)},
	}
	switch {
	case v.Decision.Denied():
		ruling.Answer.Status = v.Decision.Reason.Status()
	case v.Decision.Ends():
		ruling.Answer.Status = http.StatusNoContent
	case m.Header.Has("Origin") && !s.speaksCORS(v.Route):
		ruling.Answer = browser.Answer{Failure: explain.Withheld + "the policy leaves CORS to the upstream, whose answer is not known"}
	case m.Header.Value("Upgrade") != "":
		ruling.Answer.Status = http.StatusSwitchingProtocols
	}
	return ruling
}

// asRequest is the request as a server would have read it.
func asRequest(m browser.Message) (*http.Request, error) {
	u, err := url.Parse(m.URL)
	if err != nil {
		return nil, err
	}
	r := &http.Request{
		Method: m.Method, URL: &url.URL{Path: u.Path, RawPath: u.RawPath, RawQuery: u.RawQuery}, Host: u.Host,
		RequestURI: u.RequestURI(), Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: make(http.Header), Body: http.NoBody, RemoteAddr: "192.0.2.1:1",
	}
	if u.Scheme == "https" || u.Scheme == "wss" {
		r.TLS = &tls.ConnectionState{}
	}
	for _, f := range m.Header {
		r.Header.Add(f.Name, f.Value)
	}
	if u.Scheme == "ws" || u.Scheme == "wss" {
		r.Header.Set("Connection", "Upgrade")
		r.Header.Set("Upgrade", "websocket")
	}
	if m.Body != nil {
		r.ContentLength = int64(len(m.Body.Text))
	}
	return r, nil
}

func headerFields(h http.Header) browser.Header {
	var all browser.Header
	names := make([]string, 0, len(h))
	for name := range h {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		for _, v := range h[name] {
			all = append(all, browser.Field{Name: name, Value: v})
		}
	}
	return all
}

func (s *Policy) route(name string) *gateway.Route {
	for i := range s.loaded.Gateway.Routes {
		if r := &s.loaded.Gateway.Routes[i]; r.Name == name {
			return r
		}
	}
	return nil
}

// speaksCORS reports whether moat itself sets the CORS headers of the route's answers.
func (s *Policy) speaksCORS(route string) bool {
	r := s.route(route)
	return r != nil && r.Modes[guard.CORS] == guard.Enforce
}

// steps tells what each step of the data path had to say.
func (s *Policy) steps(request string, v gateway.Verdict) []explain.GateStep {
	ended := v.Decision.Reason.Step()
	var all []explain.GateStep
	add := func(step explain.GateStep) {
		step.Request = request
		all = append(all, step)
	}
	for _, kind := range []guard.Kind{guard.Host, guard.RouteStep} {
		switch {
		case v.Decision.Denied() && ended == kind:
			add(s.step(v.Route, kind, v.Decision))
		case v.Decision.Denied() && ended < kind:
			add(explain.GateStep{Step: kind.String(), Outcome: "not reached"})
		default:
			add(s.passed(v.Route, kind))
		}
	}
	for _, kind := range guard.Guards() {
		i := slices.IndexFunc(v.Trail, func(t gateway.Step) bool { return t.Guard == kind })
		mode := s.mode(v.Route, kind)
		switch {
		case i < 0 && mode == guard.Off:
			add(s.placed(explain.GateStep{Step: kind.String(), Mode: mode.String(), Outcome: "off"}, v.Route, modeField(kind)))
		case i < 0:
			add(explain.GateStep{Step: kind.String(), Mode: mode.String(), Outcome: "not reached"})
		default:
			step := s.step(v.Route, kind, v.Trail[i].Decision)
			step.Mode = mode.String()
			if mode == guard.Report && v.Trail[i].Decision.Denied() {
				step.Outcome = "report"
			}
			add(step)
		}
	}
	return all
}

// passed is a step that always holds, and had no objection.
func (s *Policy) passed(route string, kind guard.Kind) explain.GateStep {
	step := explain.GateStep{Step: kind.String(), Outcome: "allow", Code: guard.OK.String()}
	if kind == guard.Host {
		return s.placed(step, "", "public_origins")
	}
	step.Seen = route
	return s.placed(step, route, "match")
}

func (s *Policy) step(route string, kind guard.Kind, d guard.Decision) explain.GateStep {
	step := explain.GateStep{Step: kind.String(), Outcome: d.Outcome.String(), Code: d.Reason.String()}
	if d.Denied() {
		step.Cause, step.Fix, step.Want = d.Reason.Cause(), d.Fix(), d.Evidence.Want
		step.Seen = fmt.Sprintf("%s: %.200q", d.Evidence.Where, d.Evidence.Got)
	}
	field := decidingField(d.Reason)
	if field == "" {
		return step
	}
	if global[field] {
		route = ""
	}
	return s.placed(step, route, field)
}

// placed adds which line of the file decided.
func (s *Policy) placed(step explain.GateStep, route, field string) explain.GateStep {
	p := s.loaded.Where(route, field)
	step.Where, step.Field, step.Written = p.String(), p.Field, p.Text
	return step
}

func (s *Policy) mode(route string, kind guard.Kind) guard.Mode {
	if kind == guard.ClientAddr {
		return s.loaded.Gateway.ClientAddrMode
	}
	if r := s.route(route); r != nil {
		return r.Modes[kind]
	}
	return guard.Enforce
}

func modeField(kind guard.Kind) string {
	if kind == guard.ClientAddr {
		return "trusted_proxies.mode"
	}
	return "modes." + kind.String()
}

// global are the fields that stand outside of routes and policies.
var global = map[string]bool{"public_origins": true, "routes": true, "trusted_proxies.header": true, "bots": true}

// decidingField is the setting on which a reason hangs; "" if there is none.
func decidingField(r guard.Reason) string {
	switch r {
	case guard.HostNotAllowed:
		return "public_origins"
	case guard.PathAmbiguous:
		return "encoded_slash"
	case guard.RouteNotFound:
		return "routes"
	case guard.ClientAddrUnreadable:
		return "trusted_proxies.header"
	case guard.CORSOriginAllowed, guard.CORSPreflightApproved, guard.CORSOriginNotAllowed,
		guard.CrossSiteOriginAllowed, guard.CrossSiteRequest, guard.CrossSiteWebSocket:
		return "origins"
	case guard.CORSMethodNotAllowed, guard.MethodNotAllowed:
		return "methods"
	case guard.CORSHeaderNotAllowed, guard.CORSRequestHeadersOversize:
		return "cors.request_headers"
	case guard.MethodOverride:
		return "method_override"
	case guard.BodyTooLarge:
		return "limits.body_bytes"
	case guard.BodyTooSlow:
		return "limits.body_idle"
	case guard.CrossSiteSameSite:
		return "same_site"
	case guard.CrossSiteEmbed:
		return "embed"
	case guard.CrossSitePrefetch:
		return "side_effects"
	case guard.CrossSiteBrowserless:
		return "browserless"
	case guard.RateLimited, guard.RateLimitedPrincipal, guard.RateLimitedAccount, guard.RateLimitedTogether, guard.RateLimitedNew, guard.TooManyAtOnce:
		return "rate_limits"
	case guard.AccountUnreadable:
		return "account"
	case guard.IdentityVerified, guard.CredentialsMissing, guard.CredentialsNotAccepted:
		return "auth"
	case guard.CSRFTokenValid, guard.CSRFTokenMissing, guard.CSRFTokenInvalid, guard.CSRFTokenExpired:
		return "modes.csrf"
	case guard.AuthorizationScopeMissing, guard.AuthorizationRoleMissing, guard.AuthorizationClaimDiffers,
		guard.AuthorizationConditionFalse, guard.AuthorizationConditionFailed:
		return "authorize"
	case guard.RateLimitUnavailable:
		return "store_down"
	case guard.TicketHonoured, guard.TicketMissing, guard.TicketMalformed, guard.TicketKeyUnknown, guard.TicketExpired,
		guard.TicketProofInvalid, guard.TicketOtherOrigin, guard.TicketMoved, guard.TicketUsed, guard.TicketBodyUnproved:
		return "tickets"
	case guard.BotVerified, guard.BotSuspected, guard.BotDenied, guard.BotTarpitted, guard.BotSignatureInvalid:
		return "bots"
	case guard.BudgetSettled, guard.BudgetSpent, guard.BudgetSpentTogether, guard.BudgetTooManyAtOnce, guard.BudgetStopped:
		return "budgets"
	case guard.ModelRequestUnreadable, guard.ModelNotAllowed, guard.ModelTokensTooMany, guard.ModelFieldNotAllowed, guard.ModelUsageEstimated:
		return "model"
	case guard.BodyTypeNotAllowed, guard.BodyEncoded, guard.BodyMalformed, guard.BodyInvalid, guard.OperationUnknown, guard.ParameterInvalid, guard.ResponseInvalid:
		return "body"
	case guard.ScrubForgedHeader:
		return "scrub.pass"
	case guard.EgressNotAllowed:
		return "fetch.hosts"
	case guard.EgressTooLarge:
		return "fetch.max_bytes"
	case guard.OK, guard.CORSOriginMalformed, guard.CrossSiteOpaqueOrigin,
		guard.FramingLengthConflict, guard.FramingDuplicateLength, guard.FramingLength, guard.FramingTransferEncoding,
		guard.FramingFoldedHeader, guard.FramingLineEnd, guard.FramingHeaderName, guard.FramingHeadSize,
		guard.UpstreamUnreachable, guard.UpstreamTimeout, guard.UpstreamBadResponse, guard.UpstreamAborted,
		guard.RequestAborted, guard.RequestMalformed,
		guard.TicketBodyDiffers, guard.TicketUnavailable, guard.ChallengeSolved, guard.ChallengeRequired, guard.ChallengeFailed,
		guard.EgressAddressNotAllowed, guard.CredentialUnavailable, guard.CredentialEchoed,
		guard.CredentialsAmbiguous, guard.CredentialsMalformed, guard.TokenMalformed, guard.TokenAlgorithmNotAllowed, guard.TokenIssuerUnknown,
		guard.TokenKeyUnknown, guard.TokenSignatureInvalid, guard.TokenExpired, guard.TokenNotYetValid, guard.TokenAudienceWrong,
		guard.TokenClaimMissing, guard.TokenRevoked, guard.TokenInactive, guard.APIKeyUnknown, guard.APIKeyExpired, guard.APIKeyRevoked,
		guard.SessionUnknown, guard.SessionExpired, guard.ProofMissing, guard.ProofInvalid, guard.ProofUsed, guard.IdentityUnavailable,
		guard.LoginStateUnknown, guard.LoginFailed, guard.LoginReturnNotAllowed, guard.BudgetUnavailable, guard.BodyNoRoom, guard.CookieHardened, guard.CookieDropped:
	}
	return ""
}
