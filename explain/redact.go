package explain

import (
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/moat-gateway/moat/browser"
)

// An explanation is made to be shown to others, so that it keeps nothing that may be
// secret: neither the values of cookies and of fields such as Authorization, nor bodies.

var (
	userInText      = regexp.MustCompile(`//[^\s/?#]*@`)
	fragmentInText  = regexp.MustCompile(`#[^\s"'<>#]*=[^\s"'<>]*`)
	fragmentOfURL   = regexp.MustCompile(`#[^\s"'<>]+`)
	parameterInText = regexp.MustCompile(`(?i)((?:[?&]|%3f|%26)(?:[^\s?&#="'<>]*(?:` + strings.Join(secretEnds, "|") + `)|` +
		strings.Join(secretNames, "|") + `)(?:=|%3d))[^\s&#"'<>]+`)
)

// WithoutSecrets is a text from which is taken what URLs in it hold of secrets: users and
// passwords, tokens in the query or the fragment.
func WithoutSecrets(text string) string {
	text = userInText.ReplaceAllString(text, "//"+url.PathEscape(hidden)+"@")
	text = parameterInText.ReplaceAllString(text, "${1}"+url.QueryEscape(hidden))
	return fragmentInText.ReplaceAllString(text, "#"+url.PathEscape(hidden))
}

// redactURL is WithoutSecrets for what is a URL as a whole.
func redactURL(raw string) string { return WithoutSecrets(cleanURL(raw)) }

func redactQuestion(q Question) Question {
	q.Page.URL, q.Request.URL = redactURL(q.Page.URL), redactURL(q.Request.URL)
	q.Page.CSP = WithoutSecrets(q.Page.CSP)
	q.Page.Ancestors = slices.Clone(q.Page.Ancestors)
	for i, a := range q.Page.Ancestors {
		q.Page.Ancestors[i] = redactURL(a)
	}
	q.Request.Header = redactRequestHeader(q.Request.Header)
	q.Request.Body = redactBody(q.Request.Body)
	q.Cookies = slices.Clone(q.Cookies)
	for i := range q.Cookies {
		c := &q.Cookies[i]
		c.URL, c.Top, c.SetCookie = redactURL(c.URL), redactURL(c.Top), redactSetCookie(c.SetCookie)
	}
	q.Notes = nil // they stand among the explanation's
	return q
}

// withoutValues is the text of a step, which may quote a field that is no header field at
// all, without the field's value.
func withoutValues(text string, h browser.Header) string {
	for i, f := range redactRequestHeader(h) {
		start := strings.Index(text, strings.TrimSuffix(strconv.Quote(f.Name+": "), `"`))
		if start < 0 || f.Value == h[i].Value {
			continue
		}
		if quoted, err := strconv.QuotedPrefix(text[start:]); err == nil {
			text = text[:start] + strconv.Quote(f.Name+": "+f.Value) + text[start+len(quoted):]
		}
	}
	return text
}

func redactTrace(t *browser.Trace) {
	for i := range t.Exchanges {
		x := &t.Exchanges[i]
		redactMessage(&x.Message)
		x.Answer.Header, x.Answer.Body = redactHeader(x.Answer.Header), ""
	}
	t.Steps = slices.Clone(t.Steps)
	for i := range t.Steps {
		t.Steps[i].Text = WithoutSecrets(t.Steps[i].Text)
	}
	t.Verdict.Console = WithoutSecrets(fragmentOfURL.ReplaceAllString(t.Verdict.Console, ""))
}

func redactMessage(m *browser.Message) {
	m.URL, m.Header, m.Body = redactURL(m.URL), redactRequestHeader(m.Header), redactBody(m.Body)
}

// redactRequestHeader keeps the values of fields that everybody knows. Any other may be a
// key, whatever it is called.
func redactRequestHeader(h browser.Header) browser.Header {
	h = redactHeader(h)
	for i, f := range h {
		if name := strings.ToLower(f.Name); name != "cookie" && name != "authorization" && f.Value != "" && !tellsNoSecret(name) {
			h[i].Value = hidden
		}
	}
	return h
}

func tellsNoSecret(name string) bool {
	switch name {
	case "accept", "accept-charset", "accept-encoding", "accept-language", "cache-control", "connection",
		"content-language", "content-length", "content-type", "date", "dnt", "host", "if-match", "if-modified-since",
		"if-none-match", "if-range", "if-unmodified-since", "origin", "pragma", "prefer", "priority", "range", "referer",
		"save-data", "te", "upgrade", "upgrade-insecure-requests", "user-agent", "via",
		"x-http-method", "x-http-method-override", "x-method-override", "x-requested-with":
		return true
	}
	return strings.HasPrefix(name, "access-control-request-") || strings.HasPrefix(name, "sec-") && name != "sec-websocket-protocol"
}

func redactHeader(h browser.Header) browser.Header {
	h = slices.Clone(h)
	for i, f := range h {
		if strings.EqualFold(f.Name, "Cookie") {
			h[i].Value = strings.Join(cookieNames(f.Value), "="+hidden+"; ")
			if h[i].Value != "" {
				h[i].Value += "=" + hidden
			}
			continue
		}
		h[i].Value = WithoutSecrets(redactField(f.Name, f.Value))
	}
	return h
}

func redactBody(b *browser.Body) *browser.Body {
	if b == nil || b.Text == "" {
		return b
	}
	copied := *b
	copied.Text = hidden
	return &copied
}

// redactError is the text of an error about a cookie, which does not repeat its value.
func redactError(err error) string { return strings.TrimSuffix(shownRaw(err.Error()), ".") }
