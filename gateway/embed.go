package gateway

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"strconv"
	"strings"

	"golang.org/x/net/html"

	"github.com/moat-gateway/moat/guard"
	"github.com/moat-gateway/moat/guard/challenge"
	"github.com/moat-gateway/moat/guard/ratelimit"
)

const (
	// embeddedUses is how many calls the ticket in a page is good for: its first ones.
	// Whoever asks for pages without running them gets no more than this.
	embeddedUses = 8
	// embedWithin is how far into a document its head begins at the latest.
	embedWithin = 16 << 10
)

// wantsEmbedding reports whether the request is one for a page that gets a ticket: the
// user goes there, or a frame does.
func wantsEmbedding(rt *route, r *http.Request) bool {
	return rt.tickets == TicketsEmbedded && rt.modes[guard.Ticket] != guard.Off && r.Method == http.MethodGet && r.Header.Get("Sec-Fetch-Mode") == "navigate"
}

// askForPlain has the upstream send a page that a ticket can be put into: whole, and not
// compressed.
func askForPlain(h http.Header) {
	for _, name := range []string{"Accept-Encoding", "If-None-Match", "If-Modified-Since", "If-Range", "Range"} {
		delete(h, name)
	}
}

// embed puts the first ticket of a page into its HTML, so that its first call need not
// wait for one. It stands in an element that is data to a browser, so that no policy about
// scripts applies to it. Where the client would have to solve a challenge first, or has asked
// for too much, the page goes as it is.
func (g *Gateway) embed(st *state, x *exchange, r *http.Request, res *http.Response) {
	kind, params, err := mime.ParseMediaType(res.Header.Get("Content-Type"))
	if err != nil || kind != "text/html" || strings.HasPrefix(strings.ToLower(params["charset"]), "utf-16") ||
		res.StatusCode != http.StatusOK || res.Header.Get("Content-Encoding") != "" {
		return
	}
	script, ok := g.firstTicket(st, x, r)
	if !ok {
		return
	}
	res.Body = &insertion{ReadCloser: res.Body, text: script}
	if res.ContentLength >= 0 {
		res.ContentLength += int64(len(script))
		res.Header["Content-Length"] = []string{strconv.FormatInt(res.ContentLength, 10)}
	}
	// The page is this visitor's now.
	for _, name := range []string{"Etag", "Last-Modified", "Accept-Ranges", "Expires", "Content-Digest", "Repr-Digest", "Cdn-Cache-Control", "Surrogate-Control"} {
		delete(res.Header, name)
	}
	res.Header["Cache-Control"] = []string{"no-store"}
}

func (g *Gateway) firstTicket(st *state, x *exchange, r *http.Request) (script []byte, ok bool) {
	f := visitor(x, r)
	if t := st.tickets; t.mode != guard.Off {
		switch _, d := t.asks.Decide(r.Context(), f, challenge.Answer{}, t.once); {
		case d.Denied() && t.mode == guard.Enforce:
			return nil, false
		case d.Denied():
			t.asks.Count(f)
		}
	}
	for _, limits := range st.tickets.issuing.limits {
		if limits == nil {
			continue
		}
		grant, d := limits.Decide(r.Context(), ratelimit.Facts{Client: x.client, Route: st.tickets.issuing.name, Method: http.MethodPost})
		grant.Release()
		if d.Denied() {
			return nil, false
		}
	}
	scheme := "http://"
	if x.secure {
		scheme = "https://"
	}
	reply, err := st.tickets.guard.Embed(r.Context(), f.Now, embeddedUses, scheme+r.Host, f.Bind)
	if err != nil {
		return nil, false
	}
	text, err := json.Marshal(reply) // escapes what could end the element
	if err != nil {
		return nil, false
	}
	return []byte(`<script type="application/json" id="moat-ticket">` + string(text) + `</script>`), true
}

// insertion is a body into which a text is put, at the beginning of the document's head.
type insertion struct {
	io.ReadCloser
	text []byte
	out  []byte // to be handed out
	done bool   // the text is in
	err  error
}

func (b *insertion) Read(p []byte) (int, error) {
	for !b.done {
		b.place()
	}
	if len(b.out) > 0 {
		n := copy(p, b.out)
		b.out = b.out[n:]
		return n, nil
	}
	if b.err != nil {
		return 0, b.err
	}
	return b.ReadCloser.Read(p)
}

// place reads until the place for the text is known.
func (b *insertion) place() {
	chunk := make([]byte, 4<<10)
	n, err := b.ReadCloser.Read(chunk)
	b.out = append(b.out, chunk[:n]...)
	at, found := headAt(b.out)
	if !found && err == nil && len(b.out) < embedWithin {
		return
	}
	b.done, b.err = true, err
	if err == nil || errors.Is(err, io.EOF) {
		b.out = bytes.Join([][]byte{b.out[:at], b.text, b.out[at:]}, nil)
	}
}

// headAt is the place right after the head's start tag. Where that is left out, it is after
// the last tag that must stand before: found says that nothing that follows can change it.
func headAt(doc []byte) (at int, found bool) {
	// A byte order mark is one only at the beginning. A doctype after anything else is none.
	at = len(doc) - len(bytes.TrimPrefix(doc, []byte("\ufeff")))
	z := html.NewTokenizer(bytes.NewReader(doc[at:]))
	for pos := at; ; {
		kind := z.Next()
		pos += len(z.Raw())
		switch kind {
		case html.ErrorToken:
			return at, false
		case html.DoctypeToken:
			at = pos
		case html.StartTagToken, html.SelfClosingTagToken:
			switch name, _ := z.TagName(); string(name) {
			case "head":
				return pos, pos < len(doc) || doc[len(doc)-1] == '>'
			case "html":
				at = pos
			default:
				return at, true // the head has begun without a tag
			}
		case html.TextToken:
			if len(bytes.TrimSpace(z.Raw())) > 0 && pos < len(doc) {
				return at, true
			}
		case html.CommentToken, html.EndTagToken:
		}
	}
}
