package demo

import (
	"fmt"
	"io"
	"strings"
)

// Guide writes what to open, what to click, and what to try with curl.
func (d *Demo) Guide(w io.Writer) error {
	var b strings.Builder
	line := func(format string, a ...any) { fmt.Fprintf(&b, format+"\n", a...) }
	o := d.origins

	line("The demo: a backend whose CORS is right, and which CORS cannot save.")
	line("")
	line("  %-16s %s", "stranger's page", o.Stranger)
	line("  %-16s %s", "friendly page", o.Friendly)
	line("  %-16s %s", "bare backend", o.Backend)
	line("  %-16s %s", "through moat", o.Gate)
	line("  %-16s %s/ledger", "ledger", o.Ledger)
	if d.addresses.Admin != "" {
		line("  %-16s http://%s", "moat admin", d.addresses.Admin)
	}
	line("")
	line("Open the stranger's page and press \"Run all\": the browser blocks, and the money")
	line("moves all the same. Through moat nothing moves. On the friendly page both work.")
	line("")
	line("No CORS binds curl. The bare backend serves anybody; moat answers:")
	data, why := "/api/data", "go run ./cmd/moat why <id>"
	if admin := d.addresses.Admin; admin != "" && admin != "127.0.0.1:9090" {
		why += " --admin " + admin
	}
	curls := []struct{ command, says string }{
		{"curl " + o.Backend + data, "served, and so is all else here"},
		{"curl " + o.Gate + data, "refused: this is no browser"},
		{"curl -H 'Origin: " + o.Stranger + "' " + o.Gate + data, "refused: an origin that is not listed"},
		{"curl -H 'Origin: " + o.Friendly + "' " + o.Gate + data, "served: a forged Origin is believed"},
		{why, "why, by the id in a refusal"},
	}
	width := 0
	for _, c := range curls {
		width = max(width, len(c.command))
	}
	for _, c := range curls {
		line("  %-*s  # %s", width, c.command, c.says)
	}
	line("An Origin is a browser's word about a page, never proof of who is calling.")
	_, err := io.WriteString(w, b.String())
	return err
}
