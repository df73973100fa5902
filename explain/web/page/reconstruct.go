package page

import (
	"net/url"
	"time"

	"github.com/moat-gateway/moat/browser"
	"github.com/moat-gateway/moat/explain"
)

// reconstruct finds a situation in which a browser says just that. It returns nil if the
// model comes to another result, so what is shown is never at odds with the error.
func reconstruct(d *explain.Diagnosis, name browser.CORSError, now time.Time) (*browser.Case, []string) {
	r := newReconstruction(d)
	r.fail(name)
	traces, err := r.c.Run(now)
	if err != nil || len(traces) != 1 || traces[0].Verdict.CORS != name {
		return nil, nil
	}
	return &r.c, r.notes
}

type reconstruction struct {
	d     *explain.Diagnosis
	c     browser.Case
	notes []string
	// origin is the page's, and host the server's.
	origin, host string
}

func newReconstruction(d *explain.Diagnosis) *reconstruction {
	r := &reconstruction{d: d}
	page, target := d.Origin, d.URL
	if d.RedirectedFrom != "" {
		target = d.RedirectedFrom
	}
	if page == "null" {
		r.c.Page.Sandboxed, page = true, ""
	}
	if page == "" {
		page = "https://app.example"
		r.note("The text does not tell which page asks: " + page + " is assumed.")
	}
	if target == "" {
		target = "https://api.example/"
		r.note("The text does not tell which URL was asked: " + target + " is assumed.")
	}
	r.origin = page
	if r.c.Page.Sandboxed {
		r.origin = "null"
	}
	if u, err := url.Parse(target); err == nil {
		r.host = u.Host
	}
	r.c.Page.URL = page + "/"
	q := browser.Request{API: d.API, URL: target, Method: d.Method}
	if q.API == "" {
		q.API = browser.Fetch
	}
	r.c.Requests = []browser.Request{q}
	return r
}

func (r *reconstruction) note(text string) { r.notes = append(r.notes, text) }

func (r *reconstruction) request() *browser.Request { return &r.c.Requests[0] }

// answer adds a rule; names and values alternate.
func (r *reconstruction) answer(on string, status int, fields ...string) {
	a := browser.Answer{Status: status}
	for i := 0; i+1 < len(fields); i += 2 {
		a.Header = append(a.Header, browser.Field{Name: fields[i], Value: fields[i+1]})
	}
	r.c.Answers = append(r.c.Answers, browser.Rule{On: on, Answer: a})
}

const (
	acao = "Access-Control-Allow-Origin"
	acac = "Access-Control-Allow-Credentials"
	acam = "Access-Control-Allow-Methods"
	acah = "Access-Control-Allow-Headers"
)

// value is the one that the text quotes, or else a usual one.
func (r *reconstruction) value(usual string) string {
	if r.d.Value != "" {
		return r.d.Value
	}
	return usual
}

func (r *reconstruction) include() {
	// Each API has one of these, and ignores the others.
	q := r.request()
	if q.API == browser.Fetch {
		q.Credentials = "include"
	} else {
		q.WithCredentials, q.CrossOrigin = true, "use-credentials"
	}
}

// asked makes the browser ask first.
func (r *reconstruction) asked() {
	q := r.request()
	switch q.Method {
	case "", "POST":
		q.Method = "POST"
		q.Header = append(q.Header, browser.Field{Name: "Content-Type", Value: "application/json"})
		q.Body = &browser.Body{Kind: "text", Text: "{}"}
		r.note("The text does not tell what made the browser ask first: a POST of JSON is assumed.")
	case "GET", "HEAD":
		q.Header = append(q.Header, browser.Field{Name: "Authorization", Value: "Bearer …"})
		r.note("The text does not tell what made the browser ask first: an Authorization header is assumed.")
	}
}

// fail arranges that the browser finds the fault.
func (r *reconstruction) fail(name browser.CORSError) {
	status := r.d.Status
	if status == 0 {
		status = 200
	}
	q := r.request()
	switch name {
	case browser.MissingAllowOriginHeader:
		r.element()
		r.hop()
		r.answer("actual", status)
	case browser.MultipleAllowOriginValues:
		r.element()
		r.answer("actual", status, acao, r.value(r.origin+", *"))
	case browser.InvalidAllowOriginValue:
		r.element()
		r.answer("actual", status, acao, r.value(""))
	case browser.AllowOriginMismatch:
		r.element()
		r.answer("actual", status, acao, r.value("https://another.example"))
	case browser.WildcardOriginNotAllowed:
		r.include()
		r.answer("actual", status, acao, "*")
	case browser.InvalidAllowCredentials:
		r.include()
		if r.d.Value == "" {
			r.answer("actual", status, acao, r.origin)
		} else {
			r.answer("actual", status, acao, r.origin, acac, r.d.Value)
		}
	case browser.PreflightMissingAllowOriginHeader:
		r.asked()
		r.answer("preflight", status)
	case browser.PreflightMultipleAllowOriginValues:
		r.asked()
		r.answer("preflight", status, acao, r.value(r.origin+", *"))
	case browser.PreflightInvalidAllowOriginValue:
		r.asked()
		r.answer("preflight", status, acao, r.value(""))
	case browser.PreflightAllowOriginMismatch:
		r.asked()
		r.answer("preflight", status, acao, r.value("https://another.example"))
	case browser.PreflightWildcardOriginNotAllowed:
		r.asked()
		r.include()
		r.answer("preflight", status, acao, "*")
	case browser.PreflightInvalidAllowCredentials:
		r.asked()
		r.include()
		if r.d.Value == "" {
			r.answer("preflight", status, acao, r.origin)
		} else {
			r.answer("preflight", status, acao, r.origin, acac, r.d.Value)
		}
	case browser.PreflightInvalidStatus:
		r.asked()
		if r.d.Status == 0 {
			status = 405
			r.note("The text does not tell the preflight's status: 405 is assumed.")
		}
		r.answer("preflight", status, acao, r.origin)
	case browser.PreflightDisallowedRedirect:
		r.asked()
		if r.d.Status == 0 {
			status = 302
		}
		r.answer("preflight", status, "Location", "/login")
	case browser.InvalidAllowMethodsPreflightResponse:
		r.asked()
		r.answer("preflight", status, acao, r.origin, acam, r.value("GET POST"))
	case browser.InvalidAllowHeadersPreflightResponse:
		r.asked()
		r.answer("preflight", status, acao, r.origin, acah, r.value("X-A X-B"))
	case browser.MethodDisallowedByPreflightResponse:
		if q.Method == "" {
			q.Method = "PUT"
			r.note("The text does not tell the method: PUT is assumed.")
		}
		r.answer("preflight", status, acao, r.origin, acam, "GET, POST")
	case browser.HeaderDisallowedByPreflightResponse:
		header := r.d.Header
		if header == "" || header == acah {
			header = "authorization"
			r.note("The text does not tell the header: authorization is assumed.")
		}
		value := "…"
		if header == "content-type" {
			value = "application/json"
			q.Method, q.Body = "POST", &browser.Body{Kind: "text", Text: "{}"}
		}
		q.Header = browser.Header{{Name: header, Value: value}}
		r.answer("preflight", status, acao, r.origin, acam, "GET, HEAD, POST, PUT, PATCH, DELETE")
	case browser.RedirectContainsCredentials:
		r.answer("actual", 302, acao, r.origin, "Location", "https://user:password@"+r.host+"/next")
	case browser.DisallowedByMode:
		q.Mode = "same-origin"
	case browser.NoCorsRedirectModeNotFollow:
		q.Mode, q.Redirect = "no-cors", "error"
	case browser.InsecureLocalNetwork, browser.LocalNetworkAccessPermissionDenied:
		r.c.Browser.Addresses = map[string]browser.AddressSpace{r.host: browser.Local}
		r.answer("", 200, acao, r.origin)
	case browser.CorsDisabledScheme, browser.InvalidLocalNetworkAccess:
		// The text says it all.
	}
}

// element has the attribute without which an element does not ask by CORS.
func (r *reconstruction) element() {
	q := r.request()
	if q.API == browser.Image || q.API == browser.Script || q.API == browser.Stylesheet {
		q.CrossOrigin = "anonymous"
	}
}

// hop is the redirect of which the text tells.
func (r *reconstruction) hop() {
	if r.d.RedirectedFrom == "" || r.d.URL == "" {
		return
	}
	r.c.Answers = append(r.c.Answers, browser.Rule{URL: r.d.RedirectedFrom, On: "actual", Answer: browser.Answer{
		Status: 302, Header: browser.Header{{Name: acao, Value: r.origin}, {Name: "Location", Value: r.d.URL}},
	}})
}
