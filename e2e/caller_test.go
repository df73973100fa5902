package e2e

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/moat-gateway/moat/guard/challenge/challengetest"
	"github.com/moat-gateway/moat/guard/ticket/tickettest"
)

// caller is a program that sends what a page's script would make a browser send, as far as
// a program can know.
type caller struct {
	t     *testing.T
	gate  *moat
	page  string
	agent string
	from  string // what a trusted proxy in front says of its address
	visit tickettest.Visit
	// hashes counts those that were computed for puzzles, tickets those that were got.
	hashes, tickets int
	// served are the addresses from which completions were got.
	served map[string]bool
}

func (s *siege) caller(t *testing.T) *caller {
	return &caller{t: t, gate: s.gate, page: s.page, agent: chrome, served: make(map[string]bool)}
}

// sieger lets many connections be open at once, and keeps them.
var sieger = &http.Client{Timeout: 4 * patience, Transport: &http.Transport{MaxIdleConnsPerHost: 1000, IdleConnTimeout: time.Second}}

// send sends a request, and returns the status, and the body if it is wanted: of 200, or a refusal.
func (c *caller) send(method, path, token string, body []byte) (status int, answer []byte) {
	r, err := http.NewRequest(method, c.gate.origin+path, bytes.NewReader(body))
	if err != nil {
		c.t.Error(err)
		return 0, nil
	}
	for name, value := range map[string]string{
		"Origin": c.page, "Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty",
		"User-Agent": c.agent, "Accept-Language": "en", "Content-Type": "application/json", "Moat-Ticket": token, "X-Forwarded-For": c.from,
	} {
		if value != "" {
			r.Header.Set(name, value)
		}
	}
	res, err := sieger.Do(r)
	if err != nil {
		c.t.Error(err)
		return 0, nil
	}
	defer res.Body.Close()
	if answer, err = io.ReadAll(res.Body); err != nil {
		c.t.Error(err)
	}
	return res.StatusCode, answer
}

// call sends a call with a token, and returns the code of its refusal, or "" if it was served.
func (c *caller) call(method, path, token string, body []byte) string {
	return codeOf(c.send(method, path, token, body))
}

func codeOf(status int, answer []byte) string {
	if status == http.StatusOK {
		return ""
	}
	var p struct{ Code string }
	if json.Unmarshal(answer, &p) != nil || p.Code == "" {
		return fmt.Sprint(status)
	}
	return p.Code
}

// chat is a call's body.
func chat(prompt string) []byte {
	return fmt.Appendf(nil, `{"model":"demo-1","stream":true,"messages":[{"role":"user","content":%q}]}`, prompt)
}

// token is that of the next call.
func (c *caller) token(body []byte) string { return c.visit.Token(http.MethodPost, chatPath, body) }

// ask gets a ticket for a document, and solves the challenge if there is one.
func (c *caller) ask(doc []byte, err error) string {
	if err != nil {
		c.t.Error(err)
		return "error"
	}
	for range 4 {
		status, answer := c.send(http.MethodPost, "/.moat/tickets", "", doc)
		if status == http.StatusOK {
			if err = c.visit.Take(answer); err != nil {
				c.t.Error(err)
			}
			c.tickets++
			return ""
		}
		code := codeOf(status, answer)
		if code != "challenge-required" && code != "challenge-failed" {
			return code
		}
		if doc, err = c.solve(doc, answer); err != nil {
			c.t.Error(err)
			return "error"
		}
	}
	return "challenge-required"
}

func (c *caller) solve(doc, refusal []byte) ([]byte, error) {
	var p struct {
		Challenge struct {
			Token         string
			Puzzles, Bits int
		}
	}
	if err := json.Unmarshal(refusal, &p); err != nil {
		return nil, err
	}
	fields := make(map[string]string)
	if err := json.Unmarshal(doc, &fields); err != nil {
		return nil, err
	}
	solution := challengetest.Solve(p.Challenge.Token, p.Challenge.Puzzles, p.Challenge.Bits)
	fields["challenge"], fields["solution"] = p.Challenge.Token, solution
	nonces, err := base64.RawURLEncoding.DecodeString(solution)
	if err != nil {
		return nil, err
	}
	// The solver counts up from zero, so each nonce says how many hashes it took.
	for n := range slices.Chunk(nonces, 4) {
		c.hashes += int(n[0])<<24 + int(n[1])<<16 + int(n[2])<<8 + int(n[3]) + 1
	}
	return json.Marshal(fields)
}

// open opens a visit anew.
func (c *caller) open() string { return c.ask(c.visit.Open()) }

func (c *caller) mustOpen() {
	c.t.Helper()
	if code := c.open(); code != "" {
		c.t.Fatalf("no ticket: %s", code)
	}
}

func (c *caller) renew() string { return c.ask(c.visit.Renew()) }
