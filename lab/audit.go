package lab

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"math/big"
	"net/http"
	"path"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/moat-gateway/moat/browser"
	"github.com/moat-gateway/moat/config"
	"github.com/moat-gateway/moat/config/onpaper"
	"github.com/moat-gateway/moat/explain"
	"github.com/moat-gateway/moat/gateway"
	"github.com/moat-gateway/moat/guard"
	"github.com/moat-gateway/moat/web"
)

// auditAnswer is what there is to say about a configuration that somebody pasted.
type auditAnswer struct {
	// Kind is "moat.yaml", or that of the snippet.
	Kind     string  `json:"kind"`
	Faults   []fault `json:"faults,omitempty"`
	Warnings []fault `json:"warnings,omitempty"`
	// Notes say what was assumed, or could not be read.
	Notes []string `json:"notes,omitempty"`
	// Page is the page that is taken for one's own.
	Page string `json:"page,omitempty"`
	// Headers are what a snippet has the server answer to that page.
	Headers []auditHeaders `json:"headers,omitempty"`
	// Questions are what could be asked, the worst first.
	Questions []auditQuestion `json:"questions,omitempty"`
	// Mend is what grants that page what it needs, and nobody else.
	Mend *explain.Mend `json:"mend,omitempty"`
}

// auditHeaders are the fields of the answer to one request.
type auditHeaders struct {
	Title  string         `json:"title"`
	Header browser.Header `json:"headers"`
}

// auditQuestion is a request, and what becomes of it.
type auditQuestion struct {
	Title string `json:"title"`
	// From is the page's origin; "curl" is no page.
	From    string `json:"from"`
	Request string `json:"request"`
	// Attack is set if it should not get through; otherwise it should.
	Attack bool `json:"attack"`
	// Level is "danger", "warning", "open" (nothing here is against it) or "fine".
	Level    string `json:"level"`
	Outcome  string `json:"outcome"`
	Executed bool   `json:"executed"`
	Readable bool   `json:"readable"`
	// Reason is moat's code, if it refused.
	Reason string `json:"reason,omitempty"`
	Why    string `json:"why"`
	// Change is what to do about it.
	Change      string               `json:"change,omitempty"`
	Explanation *explain.Explanation `json:"explanation,omitempty"`
}

const (
	levelDanger  = "danger"
	levelWarning = "warning"
	levelOpen    = "open"
	levelFine    = "fine"
)

var levels = []string{levelDanger, levelWarning, levelOpen, levelFine}

func (l *Lab) serveAudit(w http.ResponseWriter, r *http.Request, v *visitor) {
	var a struct {
		Text string `json:"text"`
	}
	if !asked(w, r, &a) || !l.work(w, r, v) {
		return
	}
	defer l.rest(v)
	answer, err := audit(l.o.Names.fill(a.Text, v.id, "{backend}", "http://127.0.0.1:9"), time.Now())
	if err != nil {
		writeJSON(w, http.StatusBadRequest, map[string]string{"error": err.Error()})
		return
	}
	writeJSON(w, http.StatusOK, answer)
}

var looksLikeMoat = regexp.MustCompile(`(?m)^(routes|upstreams|public_origins|policies|rate_limits|trusted_proxies)\s*:`)

// audit reads a text and asks what it lets happen. It looks at nothing but the text.
func audit(text string, now time.Time) (*auditAnswer, error) {
	if strings.TrimSpace(text) == "" {
		return nil, errors.New("there is nothing to audit; paste a moat.yaml, or what sets your server's headers")
	}
	if looksLikeMoat.MatchString(text) {
		return auditMoat(text, now)
	}
	if reason := tooMuch(text, maxSnippets); reason != "" {
		return nil, errors.New("in the lab " + reason + "; take that pattern out")
	}
	s, err := explain.FromSnippet(text)
	if err != nil {
		return nil, err
	}
	return auditSnippet(s, now)
}

// auditor puts the questions to one server.
type auditor struct {
	now    time.Time
	own    string // the origin of the page that is welcome
	api    string
	answer *auditAnswer
	ask    func(explain.Setting, explain.Question) (*explain.Explanation, error)
	judge  func(*auditQuestion)
}

const stranger = "https://evil.example"

// page is a document of the origin.
func page(origin string) browser.Page { return browser.Page{URL: origin + "/"} }

func (a *auditor) put(title string, attack bool, p browser.Page, r browser.Request) {
	setting := explain.Setting{Now: a.now, Space: func(string) browser.AddressSpace { return browser.Public }}
	e, err := a.ask(setting, explain.Question{Page: p, Request: r})
	if err != nil {
		return // the configuration's own names make no question here
	}
	q := auditQuestion{
		Title: title, From: strings.TrimSuffix(p.URL, "/"), Request: described(r), Attack: attack,
		Outcome: string(e.Outcome), Executed: e.Executed.Answer == explain.ExecutedYes, Readable: e.Trace.Verdict.Outcome == browser.Readable,
		Why: e.Summary, Explanation: e,
	}
	a.judge(&q)
	a.answer.Questions = append(a.answer.Questions, q)
}

// described is a request in a few words.
func described(r browser.Request) string {
	text := string(r.API) + ": " + r.URL
	if r.Method != "" {
		text = string(r.API) + ": " + r.Method + " " + r.URL
	}
	if r.Body != nil {
		text += ", " + r.Body.Kind
	}
	if r.Header.Has("Content-Type") {
		text += ", " + r.Header.Value("Content-Type")
	}
	if r.Credentials == "include" {
		text += ", with cookies"
	}
	return text
}

// The requests that are put.
func read(url string, credentials bool) browser.Request {
	r := browser.Request{API: browser.Fetch, URL: url}
	if credentials {
		r.Credentials = "include"
	}
	return r
}

func writeOf(url string) browser.Request {
	return browser.Request{
		API: browser.Fetch, Method: http.MethodPost, URL: url, Body: &browser.Body{Kind: "text", Text: "{}"},
		Header: browser.Header{{Name: "Content-Type", Value: "application/json"}},
	}
}

func formPost(url string) browser.Request {
	return browser.Request{API: browser.Form, Method: http.MethodPost, URL: url, Body: &browser.Body{Kind: "urlencoded", Text: "amount=50"}}
}

// sandboxed is a document of the stranger's whose origin is null.
func sandboxed() browser.Page {
	return browser.Page{URL: stranger + "/", Sandboxed: true, Ancestors: []string{stranger + "/"}}
}

// maxDots bounds the dots of a name for which a lookalike is made.
const maxDots = 4

// lookalike are origins that a careless comparison takes for the own one: that of its
// beginning, of its end, or by a pattern whose dots are any letter.
func lookalike(own string) []string {
	scheme, host, _ := strings.Cut(own, "://")
	name, _, _ := strings.Cut(host, ":")
	all := []string{scheme + "://" + name + ".evil.example"}
	if o, err := web.ParseOrigin(own); err == nil {
		// Of the registrable domain: other subdomains may be meant.
		all = append(all, scheme+"://evil"+strings.TrimPrefix(o.Site(), scheme+"://"))
	}
	dots := 0
	for i, c := range name {
		if c == '.' && dots < maxDots {
			all = append(all, scheme+"://"+name[:i]+"x"+name[i+1:])
			dots++
		}
	}
	return all
}

func sameSite(a, b string) bool {
	x, err := web.ParseOrigin(a)
	if err != nil {
		return false
	}
	y, err := web.ParseOrigin(b)
	return err == nil && x.Site() == y.Site()
}

// sort has the worst first.
func (a *auditAnswer) sort() {
	slices.SortStableFunc(a.Questions, func(x, y auditQuestion) int {
		return slices.Index(levels, x.Level) - slices.Index(levels, y.Level)
	})
}

// auditSnippet asks a server that has these headers, and no other defence.
func auditSnippet(s *explain.Snippet, now time.Time) (*auditAnswer, error) {
	answer := &auditAnswer{Kind: string(s.Kind), Notes: s.Notes, Page: "https://app.example.com"}
	for _, o := range s.Origins() {
		if parsed, err := web.ParseOrigin(o); err == nil && !parsed.Loopback() {
			answer.Page = parsed.String()
			break
		}
	}
	const api = "https://api.example.net"
	a := &auditor{now: now, own: answer.Page, api: api, answer: answer, judge: judgeSnippet, ask: func(setting explain.Setting, q explain.Question) (*explain.Explanation, error) {
		return setting.Explain(q, func(m browser.Message) browser.Answer {
			answer := s.Serve(m)
			if strings.HasPrefix(m.URL, "wss:") {
				answer.Status = http.StatusSwitchingProtocols // by a server that compares no Origin
			}
			return answer
		})
	}}
	credentials := s.Serve(browser.Message{Method: http.MethodGet, Header: browser.Header{{Name: "Origin", Value: a.own}}}).Header.Value("Access-Control-Allow-Credentials") == "true"
	for _, preflight := range []bool{false, true} {
		title, m := "GET", browser.Message{Method: http.MethodGet, Header: browser.Header{{Name: "Origin", Value: a.own}}}
		if preflight {
			title, m.Method, m.Preflight = "Preflight of a POST with Content-Type", http.MethodOptions, true
			m.Header = append(m.Header, browser.Field{Name: "Access-Control-Request-Method", Value: "POST"}, browser.Field{Name: "Access-Control-Request-Headers", Value: "content-type"})
		}
		answer.Headers = append(answer.Headers, auditHeaders{title, s.Serve(m).Header})
	}
	a.put("Your page reads", false, page(a.own), read(api+"/account", credentials))
	a.put("Your page sends JSON", false, page(a.own), writeOf(api+"/transfer"))
	a.put("A stranger's page reads with the user's cookies", true, page(stranger), read(api+"/account", true))
	a.put("A stranger's page reads without cookies", true, page(stranger), read(api+"/data", false))
	transfer := writeOf(api + "/transfer")
	transfer.Credentials = "include"
	a.put("A stranger's page sends JSON with the user's cookies", true, page(stranger), transfer)
	a.put("A sandboxed frame, whose origin is null, reads with cookies", true, sandboxed(), read(api+"/account", true))
	for _, o := range lookalike(a.own) {
		a.put("A page whose name resembles yours reads with cookies", true, page(o), read(api+"/account", true))
	}
	if rest, ok := strings.CutPrefix(a.own, "https://"); ok {
		a.put("Your page's name without TLS reads with cookies", true, page("http://"+rest), read(api+"/account", true))
	}
	a.put("A stranger's form posts", true, page(stranger), formPost(api+"/transfer"))
	a.put("A stranger's image asks for a GET that does something", true, page(stranger), browser.Request{API: browser.Image, URL: api + "/transfer?amount=50"})
	a.put("A stranger's page opens a WebSocket", true, page(stranger), browser.Request{API: browser.WebSocket, URL: "wss://api.example.net/updates"})
	answer.Questions = append(answer.Questions, auditQuestion{
		Title: "curl, or any program", From: "curl", Request: "curl " + api + "/account", Attack: true, Level: levelOpen, Outcome: string(explain.Allowed),
		Executed: true, Readable: true, Why: "No header of an answer keeps a program from asking and reading: CORS is a rule that browsers follow.",
		Change: "Ask for credentials (a session, a token, a key), and limit how often anybody may call.",
	})
	answer.Warnings = warnings(s, a.own)
	if mends, err := explain.Mends(explain.Need{Origin: a.own, API: api, Methods: []string{"GET", "POST"}, Headers: []string{"content-type"}, Credentials: credentials}); err == nil {
		target := map[explain.SnippetKind]explain.Target{explain.SnippetNginx: explain.ForNginx, explain.SnippetExpress: explain.ForExpress}[s.Kind]
		for _, m := range mends {
			if m.Target == target || target == "" && m.Target == explain.ForMoat {
				answer.Mend = &m
			}
		}
	}
	answer.sort()
	return answer, nil
}

// judgeSnippet says how bad an outcome is where headers are all there is.
func judgeSnippet(q *auditQuestion) {
	request := q.Explanation.Question.Request
	switch {
	case !q.Attack && !q.Readable:
		q.Level, q.Change = levelWarning, "See the explanation: it names the header that is lacking."
	case !q.Attack:
		q.Level = levelFine
	case q.Readable && request.Credentials == "include":
		q.Level = levelDanger
		q.Why = "This page gets what the signed-in user would get, and reads it. " + q.Why
		q.Change = "Compare the Origin with a list of whole origins, and send Access-Control-Allow-Origin and Access-Control-Allow-Credentials to those alone."
		if strings.HasPrefix(q.From, "http://") {
			q.Change = "List https origins only: whoever sits in the user's network can be any http page."
		}
	case q.Executed && request.API == browser.WebSocket:
		q.Level = levelOpen
		q.Why = "CORS does not apply to WebSockets: the stranger's page opens one, with the cookies that travel, and reads what comes."
		q.Change = "Compare the handshake's Origin with the list before you accept it."
	case q.Executed && q.Readable:
		q.Level = levelWarning
		q.Why = "Every page may read this. That is right for public data alone, and not for a server that trusts whoever is in its network."
		q.Change = "If it is not meant for everybody, name the origins that may read."
	case q.Executed && request.Credentials == "include":
		q.Level = levelFine // it only reads, and the answer is withheld
	case q.Executed:
		q.Level = levelOpen
		q.Why = "The handler runs, with the cookies that travel: these headers only decide who may read the answer."
		q.Change = "Refuse it at the server: compare Origin and Sec-Fetch-Site with what you expect, let no GET change anything, and set SameSite on the session's cookie."
	default:
		q.Level = levelFine
	}
}

// warnings are about what no single request shows.
func warnings(s *explain.Snippet, own string) []fault {
	to := func(origin string) browser.Header {
		return s.Serve(browser.Message{Method: http.MethodGet, Header: browser.Header{{Name: "Origin", Value: origin}}}).Header
	}
	var all []fault
	warn := func(field, reason string) { all = append(all, fault{Field: field, Reason: reason}) }
	const allow = "Access-Control-Allow-Origin"
	mine, other := to(own), to(stranger)
	if mine.Value(allow) != other.Value(allow) && !strings.Contains(strings.ToLower(mine.Value("Vary")), "origin") && mine.Value("Vary") != "*" {
		warn("Vary", "The answer depends on the Origin, and does not say so: a cache may give one page the answer that was made for another, which then cannot read it. Add Vary: Origin to every answer.")
	}
	if mine.Value(allow) == "*" && mine.Value("Access-Control-Allow-Credentials") == "true" {
		warn(allow, "Browsers refuse * where cookies travel: this combination grants nothing with credentials. Name the origin. Do not repeat whatever Origin comes.")
	}
	if n := len(mine.Values(allow)); n > 1 {
		warn(allow, "The header is sent more than once. Browsers then refuse the answer, even if the values are equal: set it in one place.")
	} else if strings.Contains(mine.Value(allow), ",") {
		warn(allow, "It lists several origins. The header takes one; choose the one that asks, after comparing it with the list, and add Vary: Origin.")
	}
	return all
}

// auditMoat asks what a moat.yaml would decide. It looks at no file and no environment
// variable, and reaches nobody.
func auditMoat(text string, now time.Time) (*auditAnswer, error) {
	answer := &auditAnswer{Kind: "moat.yaml"}
	if err := bounded(text); err != nil {
		answer.Faults = faultsIn(err)
		return answer, nil
	}
	stands := false
	loaded, err := config.Parse("moat.yaml", []byte(text), config.Options{
		Now: now,
		Getenv: func(string) (string, bool) {
			stands = true
			return placeholder, true
		},
		ReadFile: func(name string) ([]byte, error) {
			stands = true
			return placeholderFile(name)
		},
	})
	var faults config.Faults
	switch {
	case errors.As(err, &faults):
		answer.Faults = faultsOf(faults)
	case err != nil:
		return nil, err
	}
	if stands {
		answer.Notes = append(answer.Notes, "Environment variables and files are not looked up here. Placeholders stand for them, so that a fault may be about those.")
	}
	if err != nil {
		return answer, nil
	}
	if manyPieces(&loaded.Gateway) {
		at := loaded.Where("", "routes")
		answer.Faults = append(answer.Faults, fault{max(at.Line, 1), max(at.Col, 1), "routes", "in the lab " + tooManyPieces})
		return answer, nil
	}
	answer.Warnings = faultsOf(loaded.Warnings)
	small(&loaded.Gateway)
	policy, err := onpaper.New(loaded)
	if err != nil {
		answer.Faults = append(answer.Faults, fault{Line: 1, Col: 1, Reason: err.Error()})
		return answer, nil
	}
	a := &auditor{now: now, api: policy.Origin(), answer: answer, judge: judgeMoat, ask: func(setting explain.Setting, q explain.Question) (*explain.Explanation, error) {
		return setting.ExplainPolicy(q, policy.Decide)
	}}
	routes := slices.Clone(loaded.Gateway.Routes)
	// The widest pattern first: it is what most requests meet.
	slices.SortStableFunc(routes, func(x, y gateway.Route) int { return len(pathOf(x)) - len(pathOf(y)) })
	if len(routes) > maxAudited {
		answer.Notes = append(answer.Notes, "It has many routes: only the widest are asked.")
		routes = routes[:maxAudited]
	}
	for i := range routes {
		a.route(policy, &routes[i], ownPage(&routes[i], text, a.api), i == 0)
	}
	if len(routes) > 0 {
		answer.Page = ownPage(&routes[0], text, a.api)
	}
	answer.sort()
	return answer, nil
}

// maxAudited bounds the routes that are asked.
const maxAudited = 12

// small has the gate's tables take little memory: nobody will call it.
func small(c *gateway.Config) {
	c.LimitMemory = 64 << 10
	if c.Tickets != nil {
		c.Tickets.Memory = 64 << 10
	}
}

var originInText = regexp.MustCompile(`https?://[A-Za-z0-9.:\[\]-]+`)

// ownPage is an origin that the text names and the route lists, or else the gate's own.
func ownPage(r *gateway.Route, text, public string) string {
	if r.Origins != nil {
		for _, o := range originInText.FindAllString(text, 1000) {
			if r.Origins.Lists(o) {
				return o
			}
		}
	}
	return public
}

// pathOf is a path that the route's pattern matches.
func pathOf(r gateway.Route) string {
	pattern := r.Pattern
	if _, after, ok := strings.Cut(pattern, " "); ok {
		pattern = after
	}
	i := strings.IndexByte(pattern, '/')
	if i < 0 {
		return "/"
	}
	p := wildcard.ReplaceAllString(pattern[i:], "1")
	return strings.ReplaceAll(p, "{$}", "")
}

var wildcard = regexp.MustCompile(`\{[^}$][^}]*\}`)

// route asks about one route; the first one is asked everything.
func (a *auditor) route(policy *onpaper.Policy, r *gateway.Route, own string, everything bool) {
	url := a.api + path.Clean("/"+pathOf(*r))
	if strings.HasSuffix(pathOf(*r), "/") && !strings.HasSuffix(url, "/") {
		url += "/"
	}
	takes := func(method string) bool {
		only, _, narrowed := strings.Cut(r.Pattern, " ")
		return (!narrowed || only == method) && (len(r.Methods) == 0 || slices.Contains(r.Methods, method))
	}
	credentials := r.CORS.Credentials
	if takes(http.MethodGet) {
		a.put("Your page reads", false, page(own), read(url, credentials))
		a.put("A stranger's page reads, with cookies", true, page(stranger), read(url, true))
		if r.CrossSite.SideEffects || everything {
			a.put("A stranger's image asks for it", true, page(stranger), browser.Request{API: browser.Image, URL: url})
		}
	}
	if takes(http.MethodPost) {
		a.put("Your page sends JSON", false, page(own), writeOf(url))
		a.put("A stranger's form posts", true, page(stranger), formPost(url))
	}
	if everything {
		if takes(http.MethodPost) {
			a.put("A stranger's page sends JSON", true, page(stranger), writeOf(url))
			a.put("A sandboxed frame's form posts: its origin is null", true, sandboxed(), formPost(url))
			if o, err := web.ParseOrigin(a.api); err == nil && !r.CrossSite.AllowSameSite {
				_, site, _ := strings.Cut(o.Site(), "://")
				if sibling := o.Scheme() + "://blog." + site; r.Origins == nil || !r.Origins.Lists(sibling) {
					a.put("A form on a sibling subdomain posts", true, page(sibling), formPost(url))
				}
			}
		}
		for _, o := range lookalike(own) {
			if r.Origins == nil || !r.Origins.Lists(o) || !sameSite(o, own) { // a subdomain that is listed is meant to be
				a.put("A page whose name resembles yours reads", true, page(o), read(url, true))
			}
		}
		a.put("A stranger's page opens a WebSocket", true, page(stranger), browser.Request{API: browser.WebSocket, URL: strings.Replace(url, "http", "ws", 1)})
	}
	a.curl(policy, url, takes)
}

// curl asks as a program does, without credentials.
func (a *auditor) curl(policy *onpaper.Policy, url string, takes func(string) bool) {
	method := http.MethodPost
	if takes(http.MethodGet) {
		method = http.MethodGet
	}
	ruling := policy.Decide(browser.Message{Method: method, URL: url})
	q := auditQuestion{
		Title: "curl, or any program, without credentials", From: "curl", Request: "curl -X " + method + " " + url, Attack: true,
		Level: levelFine, Outcome: string(explain.Refused), Executed: ruling.Passed, Readable: ruling.Passed, Why: "moat refuses it.",
	}
	for _, step := range ruling.Steps {
		if step.Outcome == "deny" {
			q.Reason, q.Why = step.Code, "moat refuses it: "+step.Code+"."
		}
	}
	switch q.Reason {
	case "":
		q.Level, q.Outcome = levelOpen, string(explain.Allowed)
		q.Why = "Any program may call this route: nobody is asked who they are."
		q.Change = "If it is not meant for everybody, set auth to a source of callers. A rate limit bounds what one address can do."
	case guard.CrossSiteBrowserless.String():
		q.Why += " It has neither Origin nor Sec-Fetch-Site. That keeps honest programs out; others write these headers themselves."
	}
	a.answer.Questions = append(a.answer.Questions, q)
}

// judgeMoat says how bad it is that a request passed, or did not.
func judgeMoat(q *auditQuestion) {
	q.Level = levelFine
	for _, step := range q.Explanation.Gate {
		if step.Outcome == "deny" {
			q.Reason = step.Code
		}
	}
	if !q.Attack {
		switch q.Reason {
		case "":
			if !q.Readable && q.Explanation.Pending == nil {
				q.Level = levelWarning
			}
		case guard.CredentialsMissing.String(), guard.TicketMissing.String(), guard.CSRFTokenMissing.String():
			q.Why = "The route asks for what this question does not have: " + q.Reason + ". A caller who has it passes."
		default:
			q.Level = levelWarning
			for _, c := range q.Explanation.Changes {
				q.Change = c.Text
			}
		}
		return
	}
	request := q.Explanation.Question.Request
	unsafe := request.Method == http.MethodPost || request.API == browser.WebSocket
	if !q.Executed {
		return
	}
	q.Why = "moat passes it on, and the upstream executes it."
	if q.Explanation.Pending != nil {
		q.Why += " Whether the page may read the answer, the upstream decides."
	}
	q.Change = loosened(q.Explanation.Gate)
	switch {
	case unsafe, q.Readable && request.Credentials == "include":
		q.Level = levelDanger
		if q.Change == "" {
			q.Change = "Take " + q.From + " out of what the route's policy allows."
		}
	default:
		q.Level = levelOpen
		if q.Change == "" {
			q.Change = "If this GET changes anything, set side_effects: true on its route: then images, links and prefetches of other sites are refused."
		}
	}
}

// loosened names the guards that are not enforced, and where that is written.
func loosened(steps []explain.GateStep) string {
	var all []string
	for _, step := range steps {
		if step.Step != guard.CORS.String() && step.Step != guard.CrossSite.String() || step.Mode == "" || step.Mode == guard.Enforce.String() {
			continue
		}
		text := "Set modes." + step.Step + " to enforce: it is " + step.Mode + "."
		if !slices.Contains(all, text) {
			all = append(all, text)
		}
	}
	return strings.Join(all, " ")
}

// placeholder stands for what the environment holds.
const placeholder = "placeholder-0123456789abcdef0123456789abcdef"

// placeholderFile stands for a file: a certificate and its key, or else a secret.
func placeholderFile(name string) ([]byte, error) {
	switch strings.ToLower(path.Ext(name)) {
	case ".pem", ".crt", ".cer", ".key":
		return placeholderPEM()
	}
	return []byte(placeholder), nil
}

var placeholderPEM = sync.OnceValues(func() ([]byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(10, 0, 0), DNSNames: []string{"placeholder.invalid"}}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})...), nil
})
