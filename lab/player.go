package lab

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"mime/multipart"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/coder/websocket"

	"github.com/moat-gateway/moat/browser"
	"github.com/moat-gateway/moat/gateway"
	"github.com/moat-gateway/moat/guard/ticket"
	"github.com/moat-gateway/moat/guard/ticket/tickettest"
)

// player makes the requests of a run, as a browser or as a plain client.
type player struct {
	ctx     context.Context //nolint:containedctx // a run is one call, and browser.Server has no other way in
	lab     *Lab
	visitor *visitor
	address string // of the visitor's world
	browser *browser.Browser
	// answers are the texts of the JSON answers so far, by name, as {answer:NAME}.
	answers []string
	visit   *tickettest.Visit // moat's tickets, once there are some
	token   string            // the last one's proof
}

// newPlayer is a player whose browser has been nowhere yet. Third-party cookies are allowed,
// or half of the lessons would show nothing.
func (l *Lab) newPlayer(ctx context.Context, v *visitor) (*player, error) {
	address, err := v.front.open(l.world(v))
	if err != nil {
		return nil, err
	}
	profile, err := browser.ProfileNamed("chromium")
	if err != nil {
		return nil, err
	}
	b := browser.New(profile)
	b.Space = func(string) browser.AddressSpace { return browser.Loopback }
	return &player{ctx: ctx, lab: l, visitor: v, address: address, browser: b}, nil
}

// signIn goes to the target's sign-in as the reader does, at the time at which the run says
// that he was there.
func (p *player) signIn(run *Run, page browser.Page, target Role, now time.Time) error {
	if len(run.Cookies) == 0 || run.From == RoleLab {
		return nil
	}
	page.Sandboxed, page.Ancestors = false, nil
	at := now.Add(-time.Duration(run.Age) * time.Second)
	visit := browser.Request{API: browser.Link, URL: p.lab.o.Names.Origin(target, p.visitor.id) + "/sign-in", UserActivated: true}
	if _, err := p.browser.Do(at, page, visit, p.ask); err != nil {
		return fmt.Errorf("run %q: sign-in: %w", run.ID, err)
	}
	return nil
}

// answersIn puts what the page has read before in the place of {answer:NAME}.
func (p *player) answersIn(r browser.Request) browser.Request {
	replacer := strings.NewReplacer(p.answers...)
	r.URL, r.Header = replacer.Replace(r.URL), fillHeader(r.Header, replacer.Replace)
	if r.Body != nil {
		body := *r.Body
		body.Text = replacer.Replace(body.Text)
		r.Body = &body
	}
	return r
}

// prove adds the proof of a ticket to a request, as moat's client in the page does. With
// ticketsSame it is the one of the request before: a replay.
func (p *player) prove(r *browser.Request, use TicketUse, page browser.Page, target Role, now time.Time) error {
	if p.visit == nil {
		p.visit = &tickettest.Visit{}
		opening, err := p.visit.Open()
		if err != nil {
			return err
		}
		var reply string
		_, err = p.browser.Do(now, page, browser.Request{
			API: browser.Fetch, Method: http.MethodPost, URL: p.lab.o.Names.Origin(target, p.visitor.id) + gateway.OwnPath + "tickets",
			Header: browser.Header{{Name: "Content-Type", Value: "application/json"}}, Body: &browser.Body{Kind: "text", Text: string(opening)},
		}, func(m browser.Message) browser.Answer {
			a := p.ask(m)
			reply = a.Body
			return a
		})
		if err != nil {
			return err
		}
		if p.visit.Take([]byte(reply)) != nil {
			return nil // the gate gives none, and what comes now will show it
		}
	}
	if len(p.visit.Ticket) == 0 {
		return nil
	}
	if p.token == "" || use != ticketsSame {
		u, err := url.Parse(r.URL)
		if err != nil {
			return err
		}
		var body []byte
		if r.Body != nil {
			body = []byte(r.Body.Text)
		}
		method := r.Method
		if method == "" {
			method = http.MethodGet
		}
		p.token = p.visit.Token(method, u.RequestURI(), body)
	}
	r.Header = append(slices.Clone(r.Header), browser.Field{Name: ticket.Header, Value: p.token})
	return nil
}

// askFor is how long an answer may take.
const askFor = 5 * time.Second

// ask sends a message to the visitor's world, whatever its host's address is.
func (p *player) ask(m browser.Message) browser.Answer {
	r, failure := p.request(m)
	if failure != "" {
		return browser.Answer{Failure: failure}
	}
	plain := func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, p.address)
	}
	client := http.Client{
		// Also what is https comes in without TLS here: it would end in this process anyway.
		Transport:     &http.Transport{DisableKeepAlives: r.Header.Get("Upgrade") == "", DisableCompression: true, DialContext: plain, DialTLSContext: plain},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	ctx, stop := context.WithTimeout(p.ctx, askFor)
	defer stop()
	if r.Header.Get("Upgrade") != "" {
		return talk(ctx, &client, r, m.Body)
	}
	res, err := client.Do(r.WithContext(ctx))
	if err != nil {
		return browser.Answer{Failure: "net::ERR_CONNECTION_FAILED"}
	}
	defer res.Body.Close() //nolint:errcheck // it was only read
	a := browser.Answer{Status: res.StatusCode, Header: answered(res.Header)}
	if !strings.HasPrefix(res.Header.Get("Content-Type"), "text/event-stream") { // which may never end
		text, _ := io.ReadAll(io.LimitReader(res.Body, maxBody))
		a.Body = string(text)
		p.remember(text)
	}
	return a
}

// talk opens a WebSocket, sends what the page does, and waits for the first that comes. That is
// about nothing but the opening; so where something was sent, it waits for the next one too.
func talk(ctx context.Context, client *http.Client, r *http.Request, body *browser.Body) browser.Answer {
	conn, res, err := websocket.Dial(ctx, r.URL.String(), &websocket.DialOptions{HTTPClient: client, HTTPHeader: r.Header}) //nolint:bodyclose // it says that nobody need
	if res == nil {
		return browser.Answer{Failure: "net::ERR_CONNECTION_FAILED"}
	}
	a := browser.Answer{Status: res.StatusCode, Header: answered(res.Header)}
	if err != nil {
		return a
	}
	defer conn.CloseNow() //nolint:errcheck // nothing is left to lose
	messages := 1
	if body != nil {
		messages = 2
		if err := conn.Write(ctx, websocket.MessageText, []byte(body.Text)); err != nil {
			return a
		}
	}
	ctx, stop := context.WithTimeout(ctx, time.Second)
	defer stop()
	for range messages {
		_, text, err := conn.Read(ctx)
		if err != nil {
			break
		}
		a.Body = string(text)
	}
	return a
}

// request is the message as net/http has it; or failure says why a browser could not send it.
func (p *player) request(m browser.Message) (r *http.Request, failure string) {
	u, err := url.Parse(m.URL)
	if err != nil {
		return nil, "net::ERR_INVALID_URL"
	}
	if _, id, ok := p.lab.o.Names.Find(u.Host); !ok || id != p.visitor.id {
		return nil, "net::ERR_NAME_NOT_RESOLVED" // the world ends here
	}
	socket := strings.HasPrefix(u.Scheme, "ws")
	u.Scheme = strings.Replace(u.Scheme, "ws", "http", 1)
	h := http.Header{}
	for _, f := range m.Header {
		h.Add(f.Name, f.Value)
	}
	var body io.Reader
	if m.Body != nil && !socket {
		text, kind := encoded(m.Body)
		body = strings.NewReader(text)
		if kind != "" && (h.Get("Content-Type") == "" || m.Body.Kind == "form-data") {
			h.Set("Content-Type", kind)
		}
	}
	method := m.Method
	if method == "" {
		method = http.MethodGet
	}
	if r, err = http.NewRequestWithContext(p.ctx, method, u.String(), body); err != nil {
		return nil, "net::ERR_INVALID_ARGUMENT"
	}
	if r.Header = h; socket {
		h.Set("Upgrade", "websocket")
	}
	return r, ""
}

// encoded is a body as it is sent, and its type where the message does not say that.
func encoded(b *browser.Body) (text, contentType string) {
	switch b.Kind {
	case "urlencoded":
		return b.Text, "application/x-www-form-urlencoded"
	case "form-data":
		var buf bytes.Buffer
		w := multipart.NewWriter(&buf)
		fields, _ := url.ParseQuery(b.Text)
		for name, values := range fields {
			for _, value := range values {
				w.WriteField(name, value) //nolint:errcheck // to a buffer
			}
		}
		w.Close() //nolint:errcheck // to a buffer
		return buf.String(), w.FormDataContentType()
	}
	return b.Text, ""
}

// remember keeps the texts of a JSON object, for what the page sends next.
func (p *player) remember(text []byte) {
	var object map[string]any
	if json.Unmarshal(text, &object) != nil {
		return
	}
	for name, value := range object {
		if s, ok := value.(string); ok {
			p.answers = append([]string{"{answer:" + name + "}", s}, p.answers...) // the newest counts
		}
	}
}
