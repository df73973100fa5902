package gateway_test

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/moat-gateway/moat/gateway"
	"github.com/moat-gateway/moat/guard"
	"github.com/moat-gateway/moat/guard/bot"
	"github.com/moat-gateway/moat/guard/ticket/tickettest"
)

// What the page's script has seen is told where it came, whether or not something is done about it; and bits that nobody
// knows, or none, mean nothing.
func TestSignsAreToldWithTheRequestThatBroughtThem(t *testing.T) {
	for _, c := range []struct {
		signs      string
		mode       guard.Mode
		deny       int
		want, told string
	}{
		{"1", guard.Enforce, 60, "bot-denied", "enforce bot-denied client +60 (webdriver)"},
		{"1", guard.Enforce, 80, "", "enforce bot-suspected client +60 (webdriver)"},
		{"2", guard.Enforce, 80, "", "enforce bot-suspected client +40 (headless)"},
		{"4", guard.Enforce, 80, "", "enforce bot-suspected client +40 (patched)"},
		{"8", guard.Enforce, 80, "", "enforce bot-suspected client +60 (tool)"},
		{"1", guard.Report, 60, "", "report bot-denied client +60 (webdriver)"},
		{"65520", guard.Enforce, 60, "", ""},
		{"0", guard.Enforce, 60, "", ""},
		{"1", guard.Off, 60, "", ""},
	} {
		b := newBackend(t, nil)
		g := newGateway(t, configFor(t, b.URL, ticketed(), func(cfg *gateway.Config) {
			cfg.Bots = &gateway.Bots{Policy: bot.Policy{Modes: bot.DefaultModes(), Challenge: 20, Slow: 40, Deny: c.deny}}
			cfg.Tickets.ChallengeMode = guard.Off
			cfg.Routes[0].Modes[guard.Bot] = c.mode
		}))
		doc, err := new(tickettest.Visit).Open()
		if err != nil {
			t.Fatal(err)
		}
		r := wantsTicket([]byte(strings.TrimSuffix(string(doc), "}") + `,"signs":` + c.signs + "}"))
		for k, v := range map[string]string{
			"Accept": "*/*", "Accept-Encoding": "gzip, deflate, br, zstd", "Sec-Ch-Ua": `"Not:A-Brand";v="8", "Chromium";v="156"`,
			"Sec-Ch-Ua-Mobile": "?0", "Sec-Ch-Ua-Platform": `"Linux"`,
		} {
			r.Header.Set(k, v)
		}
		res := serve(g, r)
		if code := codeOf(t, res); code != c.want {
			body, _ := io.ReadAll(res.Body)
			t.Errorf("signs %s, %s: %q %s; want %q", c.signs, c.mode, code, body, c.want)
		}
		var told []string
		var all []gateway.Record
		if _, text, _ := admin(t, g, "GET", "/decisions"); json.Unmarshal([]byte(text), &all) != nil {
			t.Fatal(text)
		}
		for _, rec := range all {
			told = append(told, fmt.Sprintf("%s %s %s", rec.Mode, rec.Code, rec.Got))
		}
		if got := strings.Join(told, "\n"); got != c.told {
			t.Errorf("signs %s, %s: told\n%s\nwant\n%s", c.signs, c.mode, got, c.told)
		}
	}
}
