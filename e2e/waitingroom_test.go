package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
)

func TestABrowserWithoutScriptWaitsAndArrives(t *testing.T) {
	thorough(t)
	backend := startExpress(t, "https://friendly.test")
	gate := startMoat(t, strings.ReplaceAll(moatYAML(backend, "https://friendly.test"),
		"- {match: /api/,", "- {match: GET /api/data, tickets: {use: require, no_script: allow}, upstream: express, auth: public, policy: pages}\n  - {match: /api/,"))
	b := newTab(t)
	b.do("switch script off", chromedp.Func(func(ctx context.Context, tab *chromedp.Target) error {
		_, err := cdp.Call(ctx, tab, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true})
		return err
	}))
	const target = "/api/data?q=1%26&r=a"
	b.open(gate.origin + target)
	if n := backend.ledger().Runs["data"]; n != 0 {
		t.Errorf("%d requests reached the backend before the wait", n)
	}
	eventually(t, "the browser arrives", func() (string, bool) {
		n := backend.ledger().Runs["data"]
		return fmt.Sprint(n), n == 1
	})
	// The pass is good for seven more.
	for range 7 {
		b.open(gate.origin + target)
	}
	if n := backend.ledger().Runs["data"]; n != 8 {
		t.Errorf("%d of 8 navigations reached the backend", n)
	}
	b.open(gate.origin + target)
	if n := backend.ledger().Runs["data"]; n != 8 {
		t.Errorf("the ninth did, too: %d", n)
	}
}
