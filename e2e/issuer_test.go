package e2e

import (
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/moat-gateway/moat/guard/ticket"
	"github.com/moat-gateway/moat/guard/ticket/tickettest"
)

// The page's backend of docs/recipes/issue-ticket.mjs issues tickets that the gate honours once.
func TestATicketOfAPagesOwnBackendIsHonouredOnce(t *testing.T) {
	thorough(t)
	const page, secret = "https://demo.example", "a page's backend and the gate have this in common"
	t.Setenv("MOAT_ISSUER_SECRET", secret)
	backend := startExpress(t, page)
	gate := startMoat(t, strings.NewReplacer(
		"policies:\n", "tickets: {issuers: {web: \"${env:MOAT_ISSUER_SECRET}\"}}\n\npolicies:\n",
		"- {match: /api/,", "- {match: GET /api/data, tickets: require, upstream: express, auth: public, policy: pages}\n  - {match: /api/,",
	).Replace(moatYAML(backend, page)))
	started := time.Now()

	issue := func() (v tickettest.Visit) {
		cmd := exec.CommandContext(t.Context(), program(t, "node"), "../docs/recipes/issue-ticket.mjs", page)
		cmd.Env = append(os.Environ(), "MOAT_ISSUER_SECRET="+secret)
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%v", err)
		}
		if err = v.Take(out); err != nil {
			t.Fatalf("%s: %v", out, err)
		}
		return v
	}
	call := func(token string) int {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, gate.origin+"/api/data", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Origin", page)
		req.Header.Set(ticket.Header, token)
		res, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		return res.StatusCode
	}
	early := issue()
	if status := call(early.Token(http.MethodGet, "/api/data", nil)); status != http.StatusUnauthorized {
		t.Errorf("it may have been used before the gate started: %d", status)
	}
	// What the backend issues from now on cannot have been: clocks may differ by 5 s.
	time.Sleep(time.Until(started.Add(6 * time.Second)))
	v := issue()
	for i := range v.Uses {
		token := v.TokenAt(i, http.MethodGet, "/api/data", nil)
		if first, second := call(token), call(token); first != http.StatusOK || second != http.StatusUnauthorized {
			t.Errorf("use %d: %d, then %d", i, first, second)
		}
	}
	if n := backend.ledger().Runs["data"]; n != v.Uses {
		t.Errorf("the backend ran %d times", n)
	}
}
