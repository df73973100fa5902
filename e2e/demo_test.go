package e2e

import (
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"
)

// demoLedger is what the demo's backend did.
type demoLedger struct {
	Balances map[string]int `json:"balances"`
	Notes    []int          `json:"notes"`
	Requests []struct {
		Method string `json:"method"`
		Path   string `json:"path"`
		Via    string `json:"via"`
		Ran    bool   `json:"ran"`
	} `json:"requests"`
}

// runsVia counts the requests that reached a handler.
func (l demoLedger) runsVia(via string) int {
	n := 0
	for _, r := range l.Requests {
		if r.Via == via && r.Ran {
			n++
		}
	}
	return n
}

// demo is `moat run --demo` as a process.
type demo struct {
	*moat
	stranger, friendly, ledger string
}

func startDemo(t *testing.T) demo {
	t.Helper()
	d := demo{moat: &moat{admin: freeAddress(t)}}
	cmd := exec.Command(moatCommand(t), "run", "--demo", "--listen", freeAddress(t), "--admin", d.admin, "--log-format", "json")
	d.process = startProcess(t, cmd, func(p *process) {
		if !p.ended() {
			p.signal(syscall.SIGTERM)
		}
	}, func(p *process) {
		if p.err != nil {
			t.Errorf("moat run --demo, told to stop: %v", p.err)
		}
	})
	// It tells what to open, and that is what is opened here.
	guide := regexp.MustCompile(`(?m)^ +(stranger's page|friendly page|through moat|ledger) +(http://\S+)$`)
	eventually(t, "the demo prints its guide", func() (string, bool) {
		text := d.stdout.String()
		for _, m := range guide.FindAllStringSubmatch(text, -1) {
			switch m[1] {
			case "stranger's page":
				d.stranger = m[2]
			case "friendly page":
				d.friendly = m[2]
			case "through moat":
				d.origin = m[2]
			case "ledger":
				d.ledger = m[2]
			}
		}
		return text + d.stderr.String(), d.stranger != "" && d.friendly != "" && d.origin != "" && d.ledger != "" || d.ended()
	})
	if d.ended() {
		t.Fatalf("moat run --demo: %v\n%s", d.err, &d.stderr)
	}
	return d
}

func (d demo) read() demoLedger {
	d.t.Helper()
	var l demoLedger
	getJSON(d.t, d.ledger, &l)
	return l
}

func TestDemo(t *testing.T) {
	thorough(t)
	t.Parallel()
	d := startDemo(t)
	b := newTab(t)

	b.open(d.stranger)
	b.click("#run-all")
	var status string
	eventually(t, "all attacks are over", func() (string, bool) {
		status = b.eval(`document.querySelector("#status").textContent`)
		return status, b.eval(`String(document.querySelector("#run-all").disabled)`) == "false" && strings.HasPrefix(status, "Bare backend:")
	})
	if want := "Bare backend: 6 of 7 reached the handler, Alice lost 200. Through moat: 0 of 7 reached the handler, Alice lost 0."; status != want {
		t.Errorf("the page says %q; want %q", status, want)
	}
	rows := b.eval(`[...document.querySelectorAll("#summary tbody tr")].map((r) => [...r.cells].slice(1, 3).map((c) => c.textContent).join(" | ")).join("\n")`)
	if got := strings.Count(rows, "yes: Alice −50 | no"); got != 4 || strings.Contains(rows, "| yes") {
		t.Errorf("the page's table is\n%s", rows)
	}
	l := d.read()
	if l.Balances["alice"] != 800 || l.Balances["mallory"] != 200 || len(l.Notes) != 9 || l.runsVia("bare") != 6 || l.runsVia("moat") != 0 {
		t.Errorf("the ledger has %v, %d notes, %d handler runs bare and %d through moat", l.Balances, len(l.Notes), l.runsVia("bare"), l.runsVia("moat"))
	}
	if refused := d.decisions(""); len(refused) < 7 {
		t.Errorf("moat refused %d requests; want one for each of seven attacks: %s", len(refused), codes(refused))
	}

	b.open(d.friendly)
	b.click("#reset")
	refused := len(d.decisions(""))
	for _, id := range []string{"data", "transfer", "stream"} {
		for _, target := range []string{"bare", "moat"} {
			b.click("#" + id + " ." + target + " button")
			did := `document.querySelectorAll("#` + id + ` .` + target + ` dd")[1].textContent`
			eventually(t, id+", "+target, func() (string, bool) {
				text := b.eval(did)
				return text, strings.Contains(text, "the handler ran once")
			})
		}
	}
	l = d.read()
	if l.Balances["alice"] != 980 || l.Balances["bob"] != 20 || l.runsVia("bare") != 3 || l.runsVia("moat") != 3 {
		t.Errorf("the ledger has %v, %d handler runs bare and %d through moat; want every button to work both ways", l.Balances, l.runsVia("bare"), l.runsVia("moat"))
	}
	if more := d.decisions(""); len(more) != refused {
		t.Errorf("moat refused something of the friendly page: %s", codes(more[refused:]))
	}
}
