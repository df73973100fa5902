package body

import (
	"context"
	"mime"
	"net/http"
	"strconv"

	"github.com/moat-gateway/moat/guard"
)

// Inspects reports whether answers are judged.
func (g *Guard) Inspects() bool { return g.p.API != nil && g.p.Responses }

// Answer judges the head of an answer. content is what its body has to be; nil if it is not looked into.
func (g *Guard) Answer(m *Match, res *http.Response) (content *Content, d guard.Decision) {
	op := m.Operation
	if op == nil {
		return nil, guard.Decision{}
	}
	code := strconv.Itoa(res.StatusCode)
	declared, ok := op.responses[code]
	for _, other := range []string{code[:1] + "XX", "DEFAULT"} {
		if !ok {
			declared, ok = op.responses[other]
		}
	}
	if !ok {
		return nil, guard.Denial(guard.ResponseInvalid, "status", code, "a status that the operation declares")
	}
	empty := res.ContentLength == 0 || res.StatusCode == http.StatusNoContent || res.StatusCode == http.StatusNotModified
	if empty || res.Request != nil && res.Request.Method == http.MethodHead {
		return nil, guard.Decision{}
	}
	text := res.Header.Get("Content-Type")
	mediaType, _, err := mime.ParseMediaType(text)
	if err == nil {
		content = declared.find(mediaType)
	}
	if content == nil {
		return nil, guard.Denial(guard.ResponseInvalid, "Content-Type", text, declared.want())
	}
	if content.kind != jsonContent {
		return nil, guard.Decision{}
	}
	return content, guard.Decision{}
}

// AnswerBody judges the body of an answer.
func (g *Guard) AnswerBody(ctx context.Context, c *Content, text []byte) (guard.Decision, error) {
	faults := []Fault(nil)
	if fault := g.p.JSON.Check(text); fault != nil {
		faults = []Fault{*fault}
	} else if c.schema != nil {
		var err error
		if faults, err = c.schema.Check(ctx, text); err != nil {
			return guard.Decision{}, err
		}
	}
	if len(faults) == 0 {
		return guard.Decision{}, nil
	}
	return faults[0].denial(guard.ResponseInvalid), nil
}
