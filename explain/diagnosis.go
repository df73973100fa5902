package explain

import (
	"slices"
	"strings"

	"github.com/moat-gateway/moat/browser"
)

// ExplainDiagnosis explains an error text, without asking anybody. What the text does not
// tell stays open: which of several failures it was, which headers came.
func ExplainDiagnosis(d Diagnosis) *Explanation {
	d.Text, d.Value = WithoutSecrets(d.Text), WithoutSecrets(d.Value)
	e := &Explanation{Source: FromConsole, Browser: d.profile(), Outcome: Blocked, Question: d.question()}
	names := d.Candidates
	if d.CORS != "" {
		names = []browser.CORSError{d.CORS}
	}
	if len(names) == 0 && d.Other == OtherLNA {
		names = []browser.CORSError{browser.LocalNetworkAccessPermissionDenied}
	}
	if len(names) == 0 {
		e.notCORS(d)
		return e
	}
	info := names[0].Info()
	e.Summary = info.Title + "."
	e.Executed = reached(names)
	e.Failure = &Failure{
		Step: info.Step, Link: info.Link, Text: info.Cause,
		CORS: names[0], Console: shownRaw(d.Text), Firefox: info.Firefox, Docs: docsOf(names[0]),
	}
	e.Trace.Verdict = browser.Verdict{Outcome: browser.Blocked, CORS: names[0], Console: shownRaw(d.Text), Firefox: info.Firefox}
	if d.Header != "" && d.Value != "" && strings.HasPrefix(strings.ToLower(d.Header), "access-control-") {
		e.Failure.Came = browser.Header{{Name: shownRaw(d.Header), Value: shownRaw(d.Value)}}
	}
	if len(names) > 1 {
		e.Summary = "The text fits several failures. The likeliest: " + lowerArticle(info.Title) + "."
		for _, n := range names[1:] {
			e.Notes = append(e.Notes, "It may also be "+string(n)+": "+n.Info().Title+". See "+docsOf(n)+".")
		}
	}
	e.Changes = append(e.Changes, Change{Code: "console", Who: whoMends(names[0]), Title: "Mend it", Text: info.Mend})
	e.mendByText(d, names[0])
	e.Lanes = consoleLanes(e.Question, e.Executed.Answer)
	return e
}

// profile is the name of the model that comes nearest to the browser that said it.
func (x *Diagnosis) profile() string {
	switch x.Browser {
	case "chrome":
		return "chromium"
	case "firefox":
		return "firefox"
	}
	return "standard"
}

// question is as much of one as the text tells.
func (x *Diagnosis) question() Question {
	var q Question
	if u, ok := pageURL(x.Origin); ok {
		q.Page.URL = u.String()
	}
	q.Page.Sandboxed = x.Origin == "null"
	q.Request = browser.Request{API: x.API, URL: shownRaw(redactURL(x.URL)), Method: shownRaw(x.Method)}
	if x.RedirectedFrom != "" {
		q.Request.URL = shownRaw(redactURL(x.RedirectedFrom))
	}
	return q
}

// reached is what came to the backend, if all the failures that it may be agree.
func reached(names []browser.CORSError) Executed {
	var first Executed
	for i, n := range names {
		info := n.Info()
		x := Executed{ExecutedNo, info.Reached}
		switch {
		case strings.HasPrefix(info.Reached, "Everything"):
			x.Answer = ExecutedYes
		case strings.HasPrefix(info.Reached, "Only the preflight"):
			x.Answer = ExecutedPreflight
		}
		switch {
		case i == 0:
			first = x
		case x.Answer != first.Answer:
			return Executed{ExecutedUnknown, "The text does not tell. Without a preflight the backend executed the request before the browser blocked it; with one, it got an OPTIONS and nothing more. The network panel shows which."}
		}
	}
	return first
}

func whoMends(name browser.CORSError) Who {
	switch name {
	case browser.DisallowedByMode, browser.NoCorsRedirectModeNotFollow, browser.CorsDisabledScheme,
		browser.InsecureLocalNetwork, browser.InvalidLocalNetworkAccess:
		return ByPage
	case browser.LocalNetworkAccessPermissionDenied:
		return ByUser
	case browser.WildcardOriginNotAllowed, browser.MissingAllowOriginHeader, browser.MultipleAllowOriginValues,
		browser.InvalidAllowOriginValue, browser.AllowOriginMismatch, browser.InvalidAllowCredentials,
		browser.PreflightInvalidStatus, browser.PreflightDisallowedRedirect, browser.PreflightWildcardOriginNotAllowed,
		browser.PreflightMissingAllowOriginHeader, browser.PreflightMultipleAllowOriginValues,
		browser.PreflightInvalidAllowOriginValue, browser.PreflightAllowOriginMismatch,
		browser.PreflightInvalidAllowCredentials, browser.InvalidAllowMethodsPreflightResponse,
		browser.InvalidAllowHeadersPreflightResponse, browser.MethodDisallowedByPreflightResponse,
		browser.HeaderDisallowedByPreflightResponse, browser.RedirectContainsCredentials:
	}
	return ByServer
}

// mendByText writes out the changes, if the text tells the origin and a header would help.
func (e *Explanation) mendByText(d Diagnosis, name browser.CORSError) {
	t := &browser.Trace{Verdict: browser.Verdict{CORS: name}}
	if d.Origin == "" || d.Origin == "null" || !grantable(e.Question, t) {
		return
	}
	n := Need{Origin: d.Origin, API: servedOrigin(d.URL)}
	if d.Method != "" {
		n.Methods = []string{d.Method}
	}
	if name == browser.HeaderDisallowedByPreflightResponse && d.Header != "" && !misplacedHeader(d.Header) {
		n.Headers = []string{d.Header}
	}
	n.Credentials = slices.Contains([]browser.CORSError{
		browser.WildcardOriginNotAllowed, browser.InvalidAllowCredentials,
		browser.PreflightWildcardOriginNotAllowed, browser.PreflightInvalidAllowCredentials,
	}, name)
	if info := name.Info(); strings.Contains(info.Reached, "preflight") {
		n.Preflight, n.MaxAge = true, usualMaxAge
	}
	mends, err := Mends(n)
	if err != nil {
		return // what the text names is nothing that a server should grant
	}
	e.Mends = mends
	e.Failure.Needed = neededBy(n, name)
	e.Notes = append(e.Notes, "The text names one thing that is lacking. What else the request needs (other headers, cookies), asking the server tells.")
}

func neededBy(n Need, name browser.CORSError) browser.Header {
	if name == browser.MethodDisallowedByPreflightResponse {
		return browser.Header{{Name: "Access-Control-Allow-Methods", Value: shownRaw(commas(n.Methods))}}
	}
	if name == browser.HeaderDisallowedByPreflightResponse {
		return browser.Header{{Name: "Access-Control-Allow-Headers", Value: shownRaw(commas(n.Headers))}}
	}
	h := browser.Header{{Name: "Access-Control-Allow-Origin", Value: n.Origin}}
	if n.Credentials {
		h = append(h, browser.Field{Name: "Access-Control-Allow-Credentials", Value: "true"})
	}
	return h
}

// notCORS is about texts that are not of CORS.
func (e *Explanation) notCORS(d Diagnosis) {
	change := func(code string, who Who, title, text string) {
		e.Changes = append(e.Changes, Change{Code: code, Who: who, Title: title, Text: text})
	}
	e.Executed = Executed{ExecutedNo, "No. The browser sent nothing."}
	e.Failure = &Failure{Step: d.Other, Console: shownRaw(d.Text)}
	switch d.Other {
	case OtherCSP:
		e.Summary = "The page's own Content-Security-Policy forbids it; this is not CORS."
		e.Failure.Step, e.Failure.Link = "Content Security Policy", "https://w3c.github.io/webappsec-csp/#should-block-request"
		e.Failure.Text = "The policy of the page does not list the URL."
		if d.Directive != "" {
			e.Failure.Text = "The page's policy has the directive " + shown(d.Directive) + ", and it does not list the URL."
		}
		change("csp", ByPage, "List the API in the page's own policy", "Add the API's origin to connect-src (or the directive that is named) of the page's Content-Security-Policy. No header of the API changes it.")
	case OtherMixedContent:
		e.Summary = "A secure page asks for something over http; this is not CORS."
		e.Failure.Step, e.Failure.Link = "mixed content", "https://w3c.github.io/webappsec-mixed-content/#should-block-fetch"
		e.Failure.Text = "The page came over https, the URL is http."
		change("mixed-content", ByServer, "Serve the API over https", "And let the page call it by https. No CORS header helps.")
	case OtherORB, OtherCORP:
		e.Summary = "An element asked for something that other sites' pages may not embed; this is not CORS."
		e.Failure.Step, e.Failure.Link = "opaque response blocking", "https://github.com/annevk/orb"
		e.Failure.Text = "The answer is data (JSON, HTML …), and an element such as <img> or <script> asked for it."
		e.Executed = Executed{ExecutedYes, "Yes. The request was sent and executed; the browser keeps the answer out of the page."}
		change("orb", ByPage, "Fetch data with fetch", "Read data with fetch and CORS. If it is an image or a script after all, the server must say so in Content-Type.")
		if d.Other == OtherCORP {
			e.Failure.Step, e.Failure.Link = "Cross-Origin-Resource-Policy check", "https://fetch.spec.whatwg.org/#cross-origin-resource-policy-check"
			e.Failure.Text = "The answer's Cross-Origin-Resource-Policy, or its absence under the page's Cross-Origin-Embedder-Policy, keeps it from pages of other origins."
			e.Changes = nil
			change("corp", ByServer, "Let other sites embed the resource", "If they may: Cross-Origin-Resource-Policy: cross-origin on the answer.")
		}
	case OtherNetwork:
		e.Outcome = Unknown
		e.Summary = "No answer came; this is not CORS."
		e.Failure.Step = "network"
		e.Failure.Text = "No answer came."
		if d.NetError != "" {
			e.Summary = "No answer came, which is not CORS: " + netErrorText(d.NetError) + "."
			e.Failure.Text = upperFirst(netErrorText(d.NetError)) + "."
		}
		if maybeArrived(d.NetError) || d.NetError == "" {
			e.Executed = Executed{ExecutedUnknown, "The text does not tell. The server's log does."}
		} else {
			e.Executed = Executed{ExecutedNo, "No. Nothing of it reached the backend."}
		}
		change("network", ByServer, "Is the server there?", "Look whether it runs, whether host and port are right, and open the URL in a tab to see what its certificate is like.")
	case OtherAPI:
		e.Summary = "Script called the API in a way that it refuses; nothing was sent."
		e.Failure.Step, e.Failure.Text = "Request constructor", "The call throws before anything is sent."
		e.Failure.Link = "https://fetch.spec.whatwg.org/#dom-request"
		change("api", ByPage, "Mend the call", "The text says what is wrong with it.")
	case OtherWarning:
		e.Outcome = Allowed
		e.Summary = "This is a warning: nothing was blocked, yet."
		e.Failure = nil
		e.Executed = Executed{ExecutedUnknown, "The text does not tell; a warning keeps nothing from being sent."}
	default:
		e.Outcome = Unknown
		e.Summary = "This is all that script is told, whatever happened: CORS, a server that is down, a bad certificate."
		e.Failure.Step, e.Failure.Text = "fetch", "Script learns no reason. The console has it, in a line above or below this one."
		e.Executed = Executed{ExecutedUnknown, "The text does not tell."}
		change("console", ByPage, "Look into the console", "Press F12, make the request again, and paste the line that begins with \"Access to\" (Chrome), \"Cross-Origin Request Blocked\" (Firefox) or \"Origin\" (Safari). Or ask the server: moat explain --from PAGE URL.")
	}
}

// consoleLanes are as much as a text tells.
func consoleLanes(q Question, a ExecutedAnswer) []Event {
	if q.Request.URL == "" {
		return nil
	}
	if q.Request.API == "" {
		q.Request.API = browser.Fetch
	}
	all := []Event{callEvent(q)}
	switch a {
	case ExecutedYes:
		all = append(all, Event{From: TheBrowser, To: TheBackend, Title: "the request"}, Event{From: TheBackend, To: TheBrowser, Title: "the answer", Failed: true})
	case ExecutedPreflight:
		all = append(all, Event{From: TheBrowser, To: TheBackend, Title: "OPTIONS (preflight)"}, Event{From: TheBackend, To: TheBrowser, Title: "its answer", Failed: true})
	case ExecutedNo:
		all = append(all, Event{From: TheBrowser, To: TheBrowser, Title: "not sent", Failed: true})
	case ExecutedUnknown:
	}
	return append(all, Event{From: TheBrowser, To: ThePage, Title: "a failure without a reason", Failed: true})
}

// lowerArticle lets a title go on a sentence.
func lowerArticle(title string) string {
	for _, article := range []string{"The ", "A ", "An "} {
		if strings.HasPrefix(title, article) {
			return strings.ToLower(article) + title[len(article):]
		}
	}
	return title
}
