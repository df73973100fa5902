package explain

import (
	"slices"
	"strings"

	"github.com/moat-gateway/moat/browser"
)

// An explanation is made to be shown to others, so that it keeps nothing that may be
// secret: neither the values of cookies and of fields such as Authorization, nor bodies.

func redactQuestion(q Question) Question {
	q.Request.Header = redactHeader(q.Request.Header)
	q.Request.Body = redactBody(q.Request.Body)
	q.Cookies = slices.Clone(q.Cookies)
	for i := range q.Cookies {
		q.Cookies[i].SetCookie = redactSetCookie(q.Cookies[i].SetCookie)
	}
	q.Notes = nil // they stand among the explanation's
	return q
}

func redactTrace(t *browser.Trace) {
	for i := range t.Exchanges {
		x := &t.Exchanges[i]
		redactMessage(&x.Message)
		x.Answer.Header, x.Answer.Body = redactHeader(x.Answer.Header), ""
	}
}

func redactMessage(m *browser.Message) {
	m.Header, m.Body = redactHeader(m.Header), redactBody(m.Body)
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
		h[i].Value = redactField(f.Name, f.Value)
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
