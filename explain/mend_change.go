package explain

import (
	"encoding/json"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/moat-gateway/moat/browser"
	"github.com/moat-gateway/moat/web"
)

// Who has to make a change.
type Who string

// Those who can.
const (
	ByPage   Who = "page"   // its developer
	ByServer Who = "server" // the API's developer or operator
	ByUser   Who = "user"   // who sits in front of the browser
)

// Change is something other than a grant of CORS that mends a request, or is to be mended
// along with it.
type Change struct {
	// Code names the kind of change, for tests and for links.
	Code  string `json:"code"`
	Who   Who    `json:"who"`
	Title string `json:"title"`
	// Text says why, and what to do, in sentences.
	Text string `json:"text"`
	// Language and Example are what has to be written, where that can be told.
	Language string `json:"language,omitempty"`
	Example  string `json:"example,omitempty"`
	// Instead is set if the change makes the server's grant, or a part of it, unnecessary.
	Instead bool `json:"instead,omitempty"`
}

// Changes returns what has to be changed besides the server's CORS headers, the most
// needed first. What it quotes of the request and the answers is as hostile as they are:
// it has no control characters, but is not escaped for HTML.
func Changes(q Question, t *browser.Trace) []Change {
	if t.Verdict.Outcome == browser.Readable && t.Verdict.CORS == "" {
		return cookieChanges(q, t)
	}
	var all []Change
	for _, find := range []func(Question, *browser.Trace) []Change{
		opaqueOrigin, corsChanges, beforeSending, embedding, noAnswer, headerChanges, cookieChanges,
	} {
		all = append(all, find(q, t)...)
	}
	return all
}

// opaqueOrigin is about requests whose Origin is "null".
func opaqueOrigin(q Question, t *browser.Trace) []Change {
	if t.Verdict.CORS == "" || len(t.Exchanges) == 0 {
		return nil
	}
	const never = `Do not allow the origin "null": every sandboxed frame and local file has it, so it lets anybody in.`
	last := t.Exchanges[len(t.Exchanges)-1]
	switch {
	case q.Page.Sandboxed:
		return []Change{{
			Code: "sandbox", Who: ByPage, Title: "Make the request outside the sandbox",
			Text: "The frame is sandboxed, so its origin is opaque and the browser sends Origin: null. " + never +
				" Let the page around it make the request and hand the answer over with postMessage, or serve the frame from an origin of its own and add allow-same-origin to its sandbox.",
		}}
	case last.Header.Value("Origin") == "null":
		return []Change{{
			Code: "redirect-taint", Who: ByPage, Title: "Call the last URL directly",
			Text:     "The request was redirected from one foreign origin to another, and from there on the browser sends Origin: null. " + never,
			Language: "javascript", Example: fetchCall(last.URL),
		}}
	}
	return nil
}

// Kinds of redirects that a preflight can meet.
const (
	redirectNone      = ""
	redirectScheme    = "https"
	redirectSlash     = "slash"
	redirectHost      = "host"
	redirectMoved     = "moved"
	redirectElsewhere = "elsewhere"
)

// redirectOf says what kind of redirect answered the last request.
func redirectOf(t *browser.Trace) string {
	last, from, to, ok := redirected(t)
	if !ok {
		return redirectNone
	}
	sameRest := from.EscapedPath() == to.EscapedPath() && from.RawQuery == to.RawQuery
	switch {
	case sameRest && from.Hostname() == to.Hostname() && from.Scheme == "http" && to.Scheme == "https":
		return redirectScheme
	case sameRest && from.Host != to.Host:
		return redirectHost
	case from.Host == to.Host && from.EscapedPath() != to.EscapedPath() &&
		strings.TrimSuffix(from.EscapedPath(), "/") == strings.TrimSuffix(to.EscapedPath(), "/"):
		return redirectSlash
	case last.Answer.Status == 301 || last.Answer.Status == 308:
		return redirectMoved
	}
	return redirectElsewhere
}

func redirected(t *browser.Trace) (last *browser.Exchange, from, to *url.URL, ok bool) {
	if len(t.Exchanges) == 0 {
		return nil, nil, nil, false
	}
	last = &t.Exchanges[len(t.Exchanges)-1]
	location, found := last.Answer.Header.Get("Location")
	from, err := url.Parse(last.URL)
	if !found || last.Answer.Status < 300 || last.Answer.Status > 399 || err != nil {
		return nil, nil, nil, false
	}
	if to, err = from.Parse(location); err != nil {
		return nil, nil, nil, false
	}
	return last, from, to, true
}

// corsChanges is about failures that Chromium has a CORS error for.
func corsChanges(q Question, t *browser.Trace) []Change {
	var last browser.Exchange
	if len(t.Exchanges) > 0 {
		last = t.Exchanges[len(t.Exchanges)-1]
	}
	switch t.Verdict.CORS {
	case browser.PreflightDisallowedRedirect:
		return preflightRedirect(t)
	case browser.PreflightInvalidStatus:
		return []Change{preflightStatus(last.Answer.Status)}
	case browser.MultipleAllowOriginValues, browser.PreflightMultipleAllowOriginValues:
		return []Change{{
			Code: "two-layers", Who: ByServer, Title: "Let one layer speak CORS, and only one",
			Text: "Access-Control-Allow-Origin came as " + shown(strings.Join(last.Answer.Header.Values("Access-Control-Allow-Origin"), ", ")) +
				". Browsers take one value only, even if both are right. Most often the server sets it and the proxy in front adds its own: remove it from one of them.",
		}}
	case browser.WildcardOriginNotAllowed, browser.PreflightWildcardOriginNotAllowed,
		browser.InvalidAllowCredentials, browser.PreflightInvalidAllowCredentials:
		if r := q.Request; r.API != browser.Fetch && r.API != browser.XHR && r.API != browser.EventSource {
			return nil
		}
		return []Change{{
			Code: "no-credentials", Who: ByPage, Title: "Or make the request without credentials", Instead: true,
			Text:     "If the API does not go by cookies, and a token in Authorization is none, the page need not ask for credentials.",
			Language: "javascript", Example: only(q.Request.API == browser.Fetch, `credentials: "omit"`) +
				only(q.Request.API != browser.Fetch, "withCredentials: false"),
		}}
	case browser.MissingAllowOriginHeader:
		if s := last.Answer.Status; s >= 400 {
			return []Change{{
				Code: "error-answer", Who: ByServer, Title: "Look at the error behind it",
				Text: "The server answered with " + statusText(s) + ". The browser hides that, because error answers too need the CORS headers; the changes below set them, and then the page can read what went wrong.",
			}}
		}
	case browser.MethodDisallowedByPreflightResponse:
		m := last.Header.Value("Access-Control-Request-Method")
		if up := strings.ToUpper(m); up != m {
			return []Change{{
				Code: "method-case", Who: ByPage, Title: "Write the method in upper case",
				Text:     "Methods are case-sensitive, and browsers put only DELETE, GET, HEAD, OPTIONS, POST and PUT into upper case: " + shown(m) + " is another method than " + shown(up) + ".",
				Language: "javascript", Example: "method: " + scriptString(up),
			}}
		}
	case browser.RedirectContainsCredentials:
		return []Change{{
			Code: "redirect-credentials", Who: ByServer, Title: "Redirect to a URL without user and password",
			Text: "The answer's Location holds user:password@, which browsers refuse after a CORS request. Send the client there without them, or let the page call the last URL directly.",
		}}
	case browser.DisallowedByMode:
		return []Change{{
			Code: "mode-same-origin", Who: ByPage, Title: "Ask with mode cors",
			Text:     "The page asks with mode same-origin, and the URL is of another origin. Nothing that the server sends changes that.",
			Language: "javascript", Example: `mode: "cors"`,
		}}
	case browser.CorsDisabledScheme:
		return []Change{{
			Code: "scheme", Who: ByPage, Title: "Call an http or https URL",
			Text: "CORS exists for http and https only: serve the resource by one of them.",
		}}
	case browser.NoCorsRedirectModeNotFollow:
		return []Change{{
			Code: "no-cors-redirect", Who: ByPage, Title: "Ask with mode cors, or follow redirects",
			Text:     "Mode no-cors goes only with redirect: follow.",
			Language: "javascript", Example: `mode: "cors"`,
		}}
	case browser.LocalNetworkAccessPermissionDenied:
		return []Change{{
			Code: "local-network-permission", Who: ByUser, Title: "Allow the page to reach the local network",
			Text: "The page is on a wider network than the API. The browser asks its user for the permission, and no header of the server replaces it: grant it in the site's settings. For development, serve the page from localhost as well; for visitors, give the API a public address or let the page's own server pass the request on.",
		}}
	case browser.InsecureLocalNetwork:
		return []Change{{
			Code: "local-network-insecure", Who: ByPage, Title: "Serve the page over https",
			Text: "Only a secure page may ask for the permission to reach the local network. With https the browser asks its user; no header of the server replaces that.",
		}}
	case browser.InvalidLocalNetworkAccess:
		return []Change{{
			Code: "local-network-space", Who: ByPage, Title: "Write the address space in which the API is",
			Text: "The call announces with targetAddressSpace another address space than the API turned out to be in. Correct it, or leave it out if page and API are both secure.",
		}}
	case browser.InvalidAllowOriginValue, browser.AllowOriginMismatch, browser.PreflightMissingAllowOriginHeader,
		browser.PreflightInvalidAllowOriginValue, browser.PreflightAllowOriginMismatch,
		browser.InvalidAllowMethodsPreflightResponse, browser.InvalidAllowHeadersPreflightResponse,
		browser.HeaderDisallowedByPreflightResponse:
		// The grant mends them.
	}
	if opaqueFetch(q, t) {
		return []Change{{
			Code: "mode-no-cors", Who: ByPage, Title: "Ask with mode cors",
			Text:     "With mode no-cors script never reads the answer, whatever the server sends. It does not get around CORS.",
			Language: "javascript", Example: `mode: "cors"`,
		}}
	}
	return nil
}

func preflightRedirect(t *browser.Trace) []Change {
	c := Change{Code: "preflight-redirect", Who: ByPage, Title: "Call the final URL", Language: "javascript"}
	_, from, to, ok := redirected(t)
	if !ok {
		c.Text, c.Language = "The preflight was answered with a redirect, and browsers follow none. Call the URL that answers by itself.", ""
		return []Change{c}
	}
	to.User, to.Fragment, to.RawFragment = nil, "", ""
	c.Example = fetchCall(to.String())
	const follow = " Browsers follow no redirect of a preflight."
	switch redirectOf(t) {
	case redirectScheme:
		c.Text = "The server sends http on to https." + follow
	case redirectSlash:
		c.Text = "The server adds or removes the slash at the end of the path." + follow
	case redirectHost:
		c.Text = "The server sends " + shown(from.Host) + " on to " + shown(to.Host) + "." + follow
	case redirectMoved:
		c.Text = "The resource has moved." + follow
	default:
		c = Change{
			Code: "preflight-login", Who: ByServer, Title: "Answer preflights before authentication",
			Text: "The preflight was sent to " + shown(to.String()) + "." + follow + " A preflight never carries credentials, so whatever sends strangers away to log in must let it pass. If that is no login, call the final URL instead.",
		}
	}
	return []Change{c}
}

func preflightStatus(s int) Change {
	c := Change{Code: "preflight-status", Who: ByServer, Title: "Answer the preflight with 204"}
	c.Text = "The preflight was answered with " + statusText(s) + "; browsers take 200 to 299 only. "
	switch s {
	case 401, 403, 407:
		c.Code, c.Title = "preflight-auth", "Answer preflights before authentication"
		c.Text += "A preflight never carries credentials, so authentication must let it pass: the CORS layer comes first."
	case 404, 405, 501:
		c.Code, c.Title = "preflight-route", "Route OPTIONS"
		c.Text += "The path is not served for OPTIONS: the CORS layer has to answer before the router looks for a handler."
	case 429, 503:
		c.Text += "Do not count preflights against a limit of requests."
	default:
		c.Text += "Let the CORS layer answer, so that the preflight does not reach the handler."
	}
	return c
}

// beforeSending is about what keeps a request in the browser.
func beforeSending(q Question, t *browser.Trace) []Change {
	target := targetOf(q, t)
	switch t.Verdict.BlockedReason {
	case "mixed-content":
		c := Change{
			Code: "mixed-content", Who: ByServer, Title: "Serve the API over https",
			Text: "The page is secure and the URL is http, so the browser does not send the request at all. No header of the API changes that.",
		}
		if target != nil && (target.Scheme == "http" || target.Scheme == "ws") {
			secure := *target
			secure.Scheme = map[string]string{"http": "https", "ws": "wss"}[target.Scheme]
			if secure.Port() == "" {
				c.Text += " Then let the page call it:"
				c.Language, c.Example = "javascript", callOf(q, secure.String())
			}
		}
		return []Change{c}
	case "csp":
		c := Change{
			Code: "csp", Who: ByPage, Title: "List the API in the page's own Content-Security-Policy",
			Text: "The page's policy does not let it connect there. That is the page's header, or its <meta>, and not the API's.",
		}
		if target != nil && target.Host != "" {
			c.Language, c.Example = "http", "Content-Security-Policy: "+cspWith(q.Page.CSP, q.Request.API, target.Scheme+"://"+target.Host)
		}
		return []Change{c}
	}
	return nil
}

// targetOf is the URL that the browser was about to ask, or nil.
func targetOf(q Question, t *browser.Trace) *url.URL {
	if _, _, to, ok := redirected(t); ok {
		return to
	}
	page, err := url.Parse(q.Page.URL)
	if err != nil {
		return nil
	}
	to, err := page.Parse(strings.Trim(q.Request.URL, "\t\n\f\r "))
	if err != nil {
		return nil
	}
	if q.Request.API == browser.WebSocket {
		to.Scheme = strings.Replace(to.Scheme, "http", "ws", 1)
	}
	return to
}

// cspDirectives are those that can govern an API, the most specific first
// (https://w3c.github.io/webappsec-csp/#directive-fallback-list).
func cspDirectives(api browser.API) []string {
	switch api {
	case browser.Image:
		return []string{"img-src", "default-src"}
	case browser.Font:
		return []string{"font-src", "default-src"}
	case browser.Script, browser.ModuleScript:
		return []string{"script-src-elem", "script-src", "default-src"}
	case browser.Stylesheet:
		return []string{"style-src-elem", "style-src", "default-src"}
	case browser.Frame:
		return []string{"frame-src", "child-src", "default-src"}
	case browser.Form, browser.Link:
		return []string{"form-action"}
	case browser.Fetch, browser.XHR, browser.EventSource, browser.Beacon, browser.Ping, browser.WebSocket:
	}
	return []string{"connect-src", "default-src"}
}

// cspWith is the policy with one source more, and nothing else changed. Several policies,
// separated by commas, all have to allow it.
func cspWith(policy string, api browser.API, source string) string {
	names := cspDirectives(api)
	var policies []string
	for one := range strings.SplitSeq(shownRaw(policy), ",") {
		var directives []string
		sources := map[string]string{}
		for d := range strings.SplitSeq(one, ";") {
			d = strings.Join(strings.Fields(d), " ")
			if d == "" {
				continue
			}
			directives = append(directives, d)
			name, rest, _ := strings.Cut(d, " ")
			if _, twice := sources[strings.ToLower(name)]; !twice {
				sources[strings.ToLower(name)] = rest
			}
		}
		i := slices.IndexFunc(names, func(n string) bool { _, has := sources[n]; return has })
		if i >= 0 {
			allowed := strings.TrimSpace(strings.ReplaceAll(sources[names[i]], "'none'", "") + " " + source)
			if names[i] == "default-src" {
				directives = append(directives, names[0]+" "+allowed)
			} else {
				at := slices.IndexFunc(directives, func(d string) bool {
					name, _, _ := strings.Cut(d, " ")
					return strings.EqualFold(name, names[i])
				})
				directives[at] = names[i] + " " + allowed
			}
		}
		policies = append(policies, strings.Join(directives, "; "))
	}
	return strings.Join(policies, ", ")
}

// embedding is about what a page loads without CORS.
func embedding(q Question, t *browser.Trace) []Change {
	reason := t.Verdict.BlockedReason
	switch {
	case strings.HasPrefix(reason, "corp-"):
		c := Change{
			Code: "corp", Who: ByServer, Title: "Let other sites embed the resource",
			Language: "http", Example: "Cross-Origin-Resource-Policy: cross-origin",
		}
		switch {
		case strings.HasSuffix(reason, "-by-coep"):
			c.Text = "The page has a Cross-Origin-Embedder-Policy, so whatever it embeds from elsewhere must say that it may be. Or load it with CORS: crossorigin on the element, and the page's origin allowed by the server."
		case strings.HasPrefix(reason, "corp-not-same-site"):
			c.Text = "The answer says Cross-Origin-Resource-Policy: same-site, and the page is of another site. It is the server's word on who may embed it; script that reads data needs CORS instead."
		default:
			c.Text = "The answer says Cross-Origin-Resource-Policy: same-origin, and the page is of another origin. It is the server's word on who may embed it; script that reads data needs CORS instead."
		}
		return []Change{c}
	case strings.HasPrefix(reason, "coep-"):
		return []Change{{
			Code: "coep", Who: ByServer, Title: "Give the framed document the policy too",
			Text:     "The page has a Cross-Origin-Embedder-Policy, and every document that it frames needs one.",
			Language: "http", Example: "Cross-Origin-Embedder-Policy: require-corp",
		}}
	case t.Verdict.NetError == "net::ERR_BLOCKED_BY_ORB":
		return []Change{{
			Code: "orb", Who: ByPage, Title: "Fetch data with fetch",
			Text:     "The answer is data (JSON, HTML, XML …) and an element such as <img> or <script> asked for it. Browsers keep such data out of the page's process. Read it with CORS; if it is an image or a script after all, the server must say so in Content-Type.",
			Language: "javascript", Example: fetchCall(safeURL(targetOf(q, t))),
		}}
	}
	return nil
}

// noAnswer is about answers that never came.
func noAnswer(_ Question, t *browser.Trace) []Change {
	if t.Verdict.Outcome != browser.Failed {
		return nil
	}
	c := Change{
		Code: "network", Who: ByServer, Title: "This is not CORS: no answer came",
		Text: "The browser says " + shown(t.Verdict.NetError) + ". Script is told as little as when CORS fails, but no header mends it.",
	}
	switch e := t.Verdict.NetError; {
	case strings.Contains(e, "ERR_CERT_"):
		c.Text += " Open the API's URL in a tab to see what is wrong with its certificate."
	case strings.Contains(e, "ERR_CONNECTION_REFUSED"), strings.Contains(e, "ERR_NAME_NOT_RESOLVED"):
		c.Text += " Is the server running, and are host and port right?"
	case strings.Contains(e, "ERR_ALPN_"):
		c.Text += " A stream as body needs HTTP/2, which browsers speak over https only."
	case strings.Contains(e, "ERR_TOO_MANY_REDIRECTS"):
		c.Text += " The redirects run in a circle."
	}
	return []Change{c}
}

// misplacedHeader reports headers of answers that pages send in the belief that they
// help. They never do, and make the browser ask first.
func misplacedHeader(name string) bool {
	return len(name) > 15 && strings.EqualFold(name[:15], "access-control-")
}

// headerChanges is about request headers that the page could do without.
func headerChanges(q Question, t *browser.Trace) []Change {
	if t.Verdict.CORS == "" || len(t.Exchanges) == 0 {
		return nil
	}
	last := t.Exchanges[len(t.Exchanges)-1]
	if !last.Preflight {
		return nil
	}
	method := last.Header.Value("Access-Control-Request-Method")
	asked := listItems(last.Header.Value("Access-Control-Request-Headers"))
	var wrong, needless []string
	for _, name := range asked {
		switch {
		case misplacedHeader(name):
			wrong = append(wrong, name)
		case name == "content-type" && q.Request.Body == nil:
			needless = append(needless, name)
		case name == "x-requested-with", name == "cache-control", name == "pragma", name == "expires":
			needless = append(needless, name)
		}
	}
	var all []Change
	if len(wrong) > 0 {
		all = append(all, Change{
			Code: "response-header-sent", Who: ByPage, Title: "Do not send " + shown(commas(wrong)),
			Text: "That is a header of answers. In a request it grants nothing, and makes the browser ask first.",
		})
	}
	if len(needless) > 0 {
		c := Change{
			Code: "needless-header", Who: ByPage, Title: "Or do without " + shown(commas(needless)), Instead: true,
			Text: "The request would most likely be answered just the same. Then the server need not allow the header.",
		}
		if len(wrong)+len(needless) == len(asked) && (method == "GET" || method == "HEAD" || method == "POST") && q.Request.Body == nil {
			c.Text += " And the browser would not ask first."
		}
		all = append(all, c)
	}
	return all
}

// cookieChanges is about cookies of the API that did not travel.
func cookieChanges(q Question, t *browser.Trace) []Change {
	target := targetOf(q, t)
	var sent []string
	seen := false
	for _, e := range t.Exchanges {
		if e.Preflight {
			continue
		}
		seen = true
		if u, err := url.Parse(e.URL); err == nil {
			target = u
		}
		for pair := range strings.SplitSeq(e.Header.Value("Cookie"), ";") {
			name, _, _ := strings.Cut(strings.TrimSpace(pair), "=")
			sent = append(sent, name)
		}
	}
	if target == nil || !needsCredentials(q.Request) {
		return nil
	}
	navigation := q.Request.API == browser.Link || q.Request.API == browser.Form
	api, err := web.ParseOrigin(urlOrigin(target))
	if err != nil || navigation && !seen {
		return nil
	}
	var all []Change
	for _, s := range q.Cookies {
		k := readSetCookie(s.SetCookie)
		set, perr := url.Parse(s.URL)
		if perr != nil || slices.Contains(sent, k.name) || !k.goesTo(strings.ToLower(set.Hostname()), strings.ToLower(target.Hostname())) {
			continue
		}
		all = append(all, k.change(foreign(q.Page, api), seen, api)...)
	}
	return all
}

// foreign reports whether the page, or a document that frames it, is of another site.
func foreign(p browser.Page, api web.Origin) bool {
	for _, u := range append([]string{p.URL}, p.Ancestors...) {
		o, err := web.ParseOrigin(servedOrigin(u))
		if err != nil || !web.SameSite(o, api) {
			return true
		}
	}
	return p.Sandboxed
}

type cookieLine struct {
	name, domain, sameSite string
	secure, partitioned    bool
	rest                   []string // the attributes that stay
}

func readSetCookie(line string) cookieLine {
	pair, attributes, _ := strings.Cut(line, ";")
	name, _, _ := strings.Cut(pair, "=")
	k := cookieLine{name: strings.TrimSpace(name)}
	for a := range strings.SplitSeq(attributes, ";") {
		a = strings.TrimSpace(a)
		name, value, _ := strings.Cut(a, "=")
		switch strings.ToLower(strings.TrimSpace(name)) {
		case "":
		case "samesite":
			k.sameSite = strings.ToLower(strings.TrimSpace(value))
		case "secure":
			k.secure = true
		case "partitioned":
			k.partitioned = true
		case "domain":
			k.domain = strings.ToLower(strings.TrimPrefix(strings.TrimSpace(value), "."))
			k.rest = append(k.rest, a)
		default:
			k.rest = append(k.rest, a)
		}
	}
	return k
}

// goesTo reports whether a cookie that set by one host belongs to another.
func (k *cookieLine) goesTo(from, to string) bool {
	if k.domain == "" {
		return from == to
	}
	return to == k.domain || strings.HasSuffix(to, "."+k.domain)
}

// line is the header with other attributes. The value may be a secret, and stays out.
func (k *cookieLine) line(attributes ...string) string {
	return "Set-Cookie: " + shownRaw(strings.Join(slices.Concat([]string{k.name + "=…"}, k.rest, attributes), "; "))
}

func (k *cookieLine) change(foreign, seen bool, api web.Origin) []Change {
	c := Change{Who: ByServer, Language: "http"}
	insecureAPI := api.Scheme() != "https" && !api.Loopback()
	switch {
	case insecureAPI && (foreign || k.secure && seen):
		return []Change{{
			Code: "cookie-https", Who: ByServer, Title: "Serve the API over https",
			Text: "A Secure cookie goes over https only, and only a Secure cookie may go to another site.",
		}}
	case !foreign:
		return nil
	case k.sameSite != "none" || !k.secure:
		c.Code, c.Title = "cookie-samesite", "Let the cookie "+shown(k.name)+" travel from another site"
		c.Text = map[string]string{
			"strict": "It is SameSite=Strict, so it never goes with another site's request.",
			"lax":    "It is SameSite=Lax, so another site's script never sends it.",
			"none":   "It is SameSite=None without Secure, which browsers do not keep.",
		}[k.sameSite]
		if c.Text == "" {
			c.Text = "It has no SameSite, which Chromium takes for Lax, so another site's script never sends it."
		}
		c.Text += " With None every site's forms and images send it too, so the API must tell forged requests by Origin and Sec-Fetch-Site. Better, where you can: give page and API names of one site, such as app.example and api.app.example, and leave the cookie as it is."
		c.Example = k.line("Secure", "SameSite=None")
	case seen && !k.partitioned:
		c.Code, c.Title = "cookie-third-party", "Give page and API names of one site"
		c.Text = "The cookie " + shown(k.name) + " may travel, but the browser blocks third-party cookies or keeps them apart. As a partitioned cookie, set from within this page, it travels again, for this page's site alone."
		c.Example = k.line("Secure", "SameSite=None", "Partitioned")
	default:
		return nil
	}
	return []Change{c}
}

// shown is a text of a stranger between quotes, short and without control characters.
func shown(s string) string {
	s = shownRaw(s)
	if len(s) > 120 {
		s = strings.ToValidUTF8(s[:120], "") + "…"
	}
	return `"` + s + `"`
}

// shownRaw leaves out what could steer a terminal.
func shownRaw(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r < 0x20 || r >= 0x7f && r < 0xa0 || r == 0xfffd,
			r >= 0x200b && r <= 0x200f, r >= 0x2028 && r <= 0x202e, r >= 0x2060 && r <= 0x206f, r == 0xfeff,
			r == 0x061c, r == 0x180e, r >= 0xfff9 && r <= 0xfffb, r >= 0xe0000 && r <= 0xe007f:
			return -1
		}
		return r
	}, s)
}

func statusText(s int) string {
	if s == 0 {
		return "no status"
	}
	return "status " + strconv.Itoa(s)
}

// scriptString is a string literal of JavaScript that is also safe within HTML.
func scriptString(s string) string {
	b, err := json.Marshal(shownRaw(s))
	if err != nil {
		return `""`
	}
	return string(b)
}

func fetchCall(u string) string { return "fetch(" + scriptString(u) + ", …)" }

// callOf is how the API's call begins with another URL.
func callOf(q Question, u string) string {
	switch q.Request.API {
	case browser.WebSocket:
		return "new WebSocket(" + scriptString(u) + ")"
	case browser.EventSource:
		return "new EventSource(" + scriptString(u) + ")"
	case browser.Fetch, browser.XHR, browser.Beacon, browser.Ping, browser.Form, browser.Link, browser.Frame,
		browser.Image, browser.Script, browser.ModuleScript, browser.Stylesheet, browser.Font:
	}
	return fetchCall(u)
}

// safeURL is the URL without what must not be repeated.
func safeURL(u *url.URL) string {
	if u == nil {
		return ""
	}
	copied := *u
	copied.User, copied.Fragment, copied.RawFragment = nil, "", ""
	return copied.String()
}
