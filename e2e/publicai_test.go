package e2e

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"

	"github.com/moat-gateway/moat/store/valkey/valkeytest"
)

// TestPublicAI is the story of an API without login that is there for one site's visitors, and of those
// who want it without the site.
func TestPublicAI(t *testing.T) {
	thorough(t)
	recipe, page := readRecipe(t, "public-ai.md"), startPage(t)
	s := &siege{t: t, page: page.origin, model: startModel(t)}
	s.gate = startMoat(t, publicYAML(t, s.model, s.page, "rate_limits: []"))
	page.show(recipe.only("html"), s.gate.origin)
	late := s.keep()
	seen := s.visitor()
	s.driven()
	s.curls()
	s.elsewhere()
	s.copies(seen)
	s.scripts()
	s.busy()
	s.powerCut()
	s.shared()
	s.late(late)
	s.scrapers()
	s.rows = append(s.rows[1:], s.rows[0]) // the one that drives a browser comes first, as it has to be quiet, and is told last
	t.Log("\n" + s.table())
	if !t.Failed() {
		s.told(recipe.text)
	}
}

// seen is what the network tab shows of a visit.
type seen struct {
	// call is a call's token, and body what it sent. kept is a token that script in the page
	// kept for itself, and keptBody what it is for.
	call, body, kept, keptBody string
	// asked is what the page sent for its ticket, reply the answer.
	asked, reply string
}

// visitor is somebody who opens the page and talks to the model.
func (s *siege) visitor() seen {
	t := s.t
	t.Helper()
	tab := newTab(t)
	var (
		mu     sync.Mutex
		all    []string // every event of the network, as JSON
		see    seen
		ticket network.RequestID
	)
	if err := chromedp.Listen(tab.ctx, func(event any) {
		text, err := json.Marshal(event)
		mu.Lock()
		defer mu.Unlock()
		if err == nil {
			all = append(all, string(text))
		}
		e, ok := event.(*network.EventRequestWillBeSent)
		if !ok || e.Request.Method != http.MethodPost {
			return
		}
		var body []byte
		for _, part := range e.Request.PostDataEntries {
			body = append(body, part.Bytes...)
		}
		if strings.HasSuffix(e.Request.URL, "/.moat/tickets") {
			ticket, see.asked = e.RequestID, string(body)
		} else if token, _ := e.Request.Headers["moat-ticket"].(string); token != "" && see.call == "" {
			see.call, see.body = token, string(body)
		}
	}); err != nil {
		t.Fatal(err)
	}
	tab.open(s.page)
	streams(t, tab, s.model)
	// A warm call is one request: no ticket is fetched, and no preflight made.
	tab.settled(s.gate.origin)
	tab.forget()
	tab.eval(`chat("again", () => {}).then(() => "")`)
	if sent := tab.to(s.gate.origin); len(sent) != 1 || sent[0].status != http.StatusOK {
		t.Errorf("a warm call made the requests %+v; want one", sent)
	}
	b := s.model.bill()
	if b.Completions != 2 || b.Prompts["hold"] != 1 || b.Prompts["again"] != 1 || slices.Contains(b.Headers, "moat-ticket") {
		t.Errorf("the model's bill: %+v", b)
	}
	see.keptBody = string(chat("kept"))
	see.kept = tab.eval(fmt.Sprintf(`(async () => {
		let token;
		const kept = moat({ nativeFetch: (to, init) => {
			if (to instanceof Request && to.headers.has("moat-ticket")) { token = to.headers.get("moat-ticket"); return Promise.reject(new TypeError("kept")) }
			return fetch(to, init);
		} });
		await kept(%q, { method: "POST", headers: { "Content-Type": "application/json" }, body: %q }).catch(() => {});
		return token;
	})()`, s.gate.origin+chatPath, see.keptBody))
	tab.do("read the answer that had the ticket", chromedp.Func(func(ctx context.Context, tab *chromedp.Target) error {
		r, err := cdp.Call(ctx, tab, network.GetResponseBody, network.GetResponseBodyParams{RequestID: ticket})
		see.reply = string(r.Body)
		return err
	}))
	document := tab.eval("document.documentElement.outerHTML")
	mu.Lock()
	defer mu.Unlock()
	for where, text := range map[string]string{
		"the page": document, "the network tab": strings.Join(all, "\n") + see.reply, "the gate's log": s.gate.stderr.String(), "the gate's decisions": s.gate.why("--json"), "the gate's metrics": s.gate.metrics(),
	} {
		if strings.Contains(text, modelKey) || text == "" {
			t.Errorf("the provider's key in %s (%d bytes)", where, len(text))
		}
	}
	if see.call == "" || see.asked == "" || see.kept == "" || see.reply == "" {
		t.Fatalf("not all is seen: %+v", see)
	}
	return see
}

const oneLine = "nothing: one line of shell"

func (s *siege) curls() {
	body := string(chat("curl"))
	plain := []string{"-H", "Content-Type: application/json", "-d", body}
	forged := append([]string{"-H", "Origin: " + s.page}, plain...)
	browser := append([]string{
		"-A", chrome, "-H", "Accept-Language: en", "-H", "Sec-Fetch-Site: same-site", "-H", "Sec-Fetch-Mode: cors", "-H", "Sec-Fetch-Dest: empty",
	}, forged...)
	for _, c := range []struct {
		name string
		args []string
	}{
		{"curl", plain},
		{"curl, the Origin forged", forged},
		{"curl, all that a browser says forged", browser},
		{"curl, with a provider's key of its own", append([]string{"-H", "Authorization: Bearer sk-other"}, browser...)},
	} {
		s.attack(c.name, 0, oneLine, func(a *attempt) {
			_, code, _ := strings.Cut(curl(a.T, append(c.args, s.gate.origin+chatPath)...).says(), " ")
			a.said(code)
		})
	}
}

// elsewhere is a page of somebody else, in a browser that does what pages tell it to.
func (s *siege) elsewhere() {
	evil := startSite(s.t, "evil.test")
	s.attack("a page elsewhere: `fetch` with CORS and without, a beacon, a form, asking for a ticket", 0, "a page that people visit", func(a *attempt) {
		tab := newTab(a.T)
		tab.open(evil)
		since := s.gate.lastDecision()
		tab.run(s.gate.origin, fmt.Sprintf(`
			const to = api + %q, body = %q;
			await saw(fetch(to, { method: "POST", headers: { "Content-Type": "application/json" }, body }));
			await saw(fetch(to, { method: "POST", body }));
			await saw(fetch(to, { method: "POST", body, mode: "no-cors" }));
			navigator.sendBeacon(to, body);
			add("iframe", { name: "frame" });
			const form = add("form", { method: "post", action: to, enctype: "text/plain", target: "frame" });
			form.append(Object.assign(document.createElement("input"), { name: body.slice(0, -2), value: '"}' }));
			form.submit();
			await saw(fetch(api + "/.moat/tickets", { method: "POST", body: JSON.stringify({ public: "" }) }));
			return ""`, chatPath, chat("elsewhere")))
		var all []decision
		eventually(a.T, "the gate refuses all of them", func() (string, bool) {
			all = s.gate.decisions(since)
			return codes(all), len(all) >= 6
		})
		for _, d := range all {
			a.said(d.Code)
		}
	})
}

// copies are those who have seen everything that one visitor's browser sent and got.
func (s *siege) copies(seen seen) {
	agent := newTab(s.t).eval("navigator.userAgent")
	asCurl := func(a *attempt, token, body string) {
		_, code, _ := strings.Cut(curl(a.T, "-A", agent, "-H", "Origin: "+s.page, "-H", "Content-Type: application/json", "-H", "Sec-Fetch-Site: same-site",
			"-H", "Moat-Ticket: "+token, "-d", body, s.gate.origin+chatPath).says(), " ")
		a.said(code)
	}
	s.attack("a call copied from the network tab", 0, oneLine, func(a *attempt) { asCurl(a, seen.call, seen.body) })
	s.attack("a call that the page made and has not sent, in a program", 0, oneLine, func(a *attempt) {
		thief := s.caller(a.T)
		thief.agent = "curl/8.14.1"
		a.said(thief.call(http.MethodPost, chatPath, seen.kept, []byte(seen.keptBody)))
	})
	s.attack("the same, in a program that says it is the same browser, from the same network, twice", 1, "script in the page, for each call", func(a *attempt) {
		asCurl(a, seen.kept, seen.keptBody)
		asCurl(a, seen.kept, seen.keptBody)
	})
	s.attack("the answer of `/.moat/tickets`, copied from the network tab", 0, "nothing, and it is of no use", func(a *attempt) {
		// The key is there, but under one that the browser keeps to itself. So the thief tries
		// what there is for a key, and asks again with what the browser asked with.
		var r struct{ Ticket, Key, Wrapping string }
		if err := json.Unmarshal([]byte(seen.reply), &r); err != nil {
			a.Fatal(err)
		}
		raw := func(text string) []byte {
			b, err := base64.RawURLEncoding.DecodeString(text)
			if err != nil {
				a.Fatal(err)
			}
			return b
		}
		thief := s.caller(a.T)
		if _, err := thief.visit.Open(); err != nil { // it has a key pair, though another one
			a.Fatal(err)
		}
		thief.visit.Ticket = raw(r.Ticket)
		body := []byte(seen.body)
		for _, key := range [][]byte{raw(r.Key), raw(r.Key)[:32], raw(r.Key)[12:44], raw(r.Key)[28:], nil} {
			thief.visit.Key = key
			a.said(thief.call(http.MethodPost, chatPath, thief.token(body), body))
			if code := thief.renew(); code != "ticket-proof-invalid" {
				a.Errorf("renewed: %q", code)
			}
		}
		if status, again := thief.send(http.MethodPost, "/.moat/tickets", "", []byte(seen.asked)); status != http.StatusOK || thief.visit.Take(again) == nil {
			a.Errorf("asked again with the browser's public key: %d %s", status, again)
		}
	})
}

// scripts are those who write a program for what they have seen.
func (s *siege) scripts() {
	const replays = 1000
	s.attack("1,000 replays of one call at the same time", 1, "the call that it is entitled to", func(a *attempt) {
		c := s.caller(a.T)
		c.mustOpen()
		body := chat("replay")
		token := c.token(body)
		var wg sync.WaitGroup
		start := make(chan struct{})
		for range replays {
			wg.Go(func() {
				<-start
				a.said(c.call(http.MethodPost, chatPath, token, body))
			})
		}
		close(start)
		wg.Wait()
	})
	s.attack("calls spliced from others", 0, "a visit", func(a *attempt) {
		c, d := s.caller(a.T), s.caller(a.T)
		c.mustOpen()
		d.mustOpen()
		mine, other := chat("splice"), chat("SPLICE")
		token := c.token(mine)
		head, digest, _ := strings.Cut(token, ".")
		_, otherDigest, _ := strings.Cut(c.token(other), ".")
		foreign, _, _ := strings.Cut(d.token(mine), ".")
		models := c.visit.Token(http.MethodGet, "/v1/models", nil)
		for _, x := range []struct {
			method, path, token string
			body                []byte
		}{
			{"POST", chatPath, token, other},                                  // another body
			{"POST", chatPath, head + "." + otherDigest, other},               // and its digest
			{"POST", chatPath, head, mine},                                    // no digest
			{"POST", chatPath, head + ".stream", mine},                        // a stream
			{"POST", chatPath + "?user=2", token, mine},                       // another query
			{"POST", chatPath, models, nil},                                   // another path and method
			{"POST", chatPath, models + "." + digest, mine},                   // and a body
			{"POST", chatPath, head[:40] + foreign[40:] + "." + digest, mine}, // one ticket, the other's proof
			{"POST", chatPath, foreign[:40] + head[40:] + "." + digest, mine},
			{"POST", chatPath, token + ", " + c.token(mine), mine}, // two
		} {
			a.said(c.call(x.method, x.path, x.token, x.body))
		}
	})
	s.attack("32 calls of one ticket in any order, each of them twice", 32, "the calls that it is entitled to", func(a *attempt) {
		c := s.caller(a.T)
		c.mustOpen()
		var tokens []string
		for range c.visit.Uses {
			tokens = append(tokens, c.token(chat("order")))
		}
		slices.Reverse(tokens)
		for _, token := range append(slices.Concat(tokens[16:], tokens[:16]), tokens...) {
			a.said(c.call(http.MethodPost, chatPath, token, chat("order")))
		}
	})
	s.attack("a 33rd call of one ticket", 0, "a visit", func(a *attempt) {
		c := s.caller(a.T)
		c.mustOpen()
		for _, index := range []int{32, 33, 63, 255} {
			a.said(c.call(http.MethodPost, chatPath, c.visit.TokenAt(index, http.MethodPost, chatPath, chat("more")), chat("more")))
		}
	})
}

// busy is somebody who opens the page while others open visit after visit from the same address: the browser works for
// its ticket, and nobody notices but the gate.
func (s *siege) busy() {
	s.t.Helper()
	const solved = `moat_decisions_total{mode="enforce",reason="challenge-solved",route="moat tickets",step="challenge"}`
	for range 12 {
		s.caller(s.t).mustOpen()
	}
	before := s.gate.metric(solved)
	tab := newTab(s.t)
	tab.open(s.page)
	if said := tab.eval(`chat("busy", () => {}).then(() => "", String)`); said != "" || s.model.bill().Prompts["busy"] != 1 {
		s.t.Errorf("a visitor among many: %s", said)
	}
	if after := s.gate.metric(solved); after == before {
		s.t.Errorf("the page solved no challenge: %s before and after", after)
	}
}

// powerCut is who keeps calls until the gate has forgotten that they were used. The secret is the same
// before and after.
func (s *siege) powerCut() {
	s.attack("calls kept until the gate was killed (`kill -9`) and started again", 1, "a visit; the one is the call before the kill", func(a *attempt) {
		gate := startMoat(a.T, publicYAML(a.T, s.model, s.page, "rate_limits: []"))
		c := s.caller(a.T)
		c.gate = gate
		c.mustOpen()
		body := chat("power cut")
		used, kept := c.token(body), c.token(body)
		a.said(c.call(http.MethodPost, chatPath, used, body))
		gate.kill()
		if gate.process = gate.try(a.T); gate.process == nil {
			a.Fatal("the port was taken meanwhile")
		}
		a.said(c.call(http.MethodPost, chatPath, used, body))
		a.said(c.call(http.MethodPost, chatPath, kept, body))
		if code := c.renew(); code != "ticket-key-unknown" {
			a.Errorf("renewed: %q", code)
		}
	})
}

// shared is who replays a call at two gates that share a Valkey, until that is killed, and after.
func (s *siege) shared() {
	server := valkeytest.Start(s.t)
	gates := make([]*moat, 2)
	for i := range gates {
		// A busy machine is no outage.
		gates[i] = startMoat(s.t, publicYAML(s.t, s.model, s.page, "rate_limits: []")+"store: {valkey: {addresses: "+server.Addr+", timeout: 1s}}\n")
	}
	body := chat("shared")
	at := func(t *testing.T, gate int) *caller {
		c := s.caller(t)
		c.gate = gates[gate]
		return c
	}
	// Ready is when a ticket of either is good at the other.
	for i := range gates {
		eventually(s.t, "the gates share their tickets", func() (string, bool) {
			c := at(s.t, i)
			if code := c.open(); code != "" {
				return code, false
			}
			code := at(s.t, 1-i).call(http.MethodPost, chatPath, c.token(body), body)
			return code, code == ""
		})
	}
	// replay sends one call to both gates many times, and does something after the first hundred answers.
	replay := func(a *attempt, token string, n int, then func()) {
		var (
			wg       sync.WaitGroup
			answered atomic.Int64
		)
		start := make(chan struct{})
		for i := range n {
			wg.Go(func() {
				<-start
				a.said(at(a.T, i%2).call(http.MethodPost, chatPath, token, body))
				if answered.Add(1) == 100 {
					then()
				}
			})
		}
		close(start)
		wg.Wait()
	}
	s.attack("1,000 replays at the same time, at two gates that share a Valkey", 1, "the call that it is entitled to", func(a *attempt) {
		c := at(a.T, 0)
		c.mustOpen()
		replay(a, c.token(body), 1000, func() {})
	})
	s.attack("calls kept until one of these gates was killed and started again", 2, "the calls that it is entitled to", func(a *attempt) {
		c := at(a.T, 1)
		c.mustOpen()
		used, kept := c.token(body), c.token(body)
		a.said(c.call(http.MethodPost, chatPath, used, body))
		gates[0].kill()
		if gates[0].process = gates[0].try(s.t); gates[0].process == nil {
			a.Fatal("the port was taken meanwhile")
		}
		// It has to hear from the store before it knows what the other one knows. What it does not know it refuses.
		var code string
		eventually(a.T, "the gate that was started knows the call", func() (string, bool) {
			code = at(a.T, 0).call(http.MethodPost, chatPath, used, body)
			return code, code != "ticket-key-unknown"
		})
		a.said(code)
		a.said(at(a.T, 0).call(http.MethodPost, chatPath, kept, body))
	})
	s.measure("1,000 replays while Valkey is killed, and 100 after it has come back without its memory", "the call that it is entitled to", func(a *attempt) {
		c := at(a.T, 0)
		c.mustOpen()
		token := c.token(body)
		replay(a, token, 1000, server.Kill)
		// Meanwhile each gate has tickets of its own, as soon as it knows that the store is gone. A
		// ticket that it issued just before is one of the store's.
		eventually(a.T, "without the store a visitor of one gate is served", func() (string, bool) {
			alone := at(a.T, 1)
			code := alone.open()
			if code == "" {
				code = alone.call(http.MethodPost, chatPath, alone.token(body), body)
			}
			return code, code == ""
		})
		server.Restart()
		eventually(a.T, "the gates share their tickets again", func() (string, bool) {
			again := at(a.T, 0)
			if code := again.open(); code != "" {
				return code, false
			}
			code := at(a.T, 1).call(http.MethodPost, chatPath, again.token([]byte("{}")), []byte("{}"))
			return code, code == "400" // the model's word on the body
		})
		replay(a, token, 100, func() {})
		// The one that was alone is not counted.
		if n := a.through() - 1; n > 1 {
			a.Errorf("%d of the replays were honoured", n)
		}
		a.got = "1 of 1,100 at most"
		var said []string
		for code := range a.codes {
			if !slices.Contains([]string{"ticket-used", "ticket-unavailable", "ticket-key-unknown"}, code) {
				said = append(said, code)
			}
		}
		if said != nil {
			a.Errorf("refused with %v", said)
		}
		a.codes = map[string]int{"ticket-used": 0, "ticket-unavailable": 0, "ticket-key-unknown": 0} // which of them when, is a matter of time
	})
}

// hoard is what somebody keeps for later.
type hoard struct {
	*caller

	token string
	body  []byte
	ends  time.Time // at the latest
}

// keep gets a ticket from a gate whose tickets live for the shortest time.
func (s *siege) keep() hoard {
	c := s.caller(s.t)
	c.gate = startMoat(s.t, publicYAML(s.t, s.model, s.page, "lifetime: 10s"))
	c.mustOpen()
	body := chat("late")
	const slack = 5 * time.Second // of clocks, see docs/guards/ticket.md
	return hoard{c, c.token(body), body, time.Now().Add(time.Duration(c.visit.Lifetime)*time.Second + slack + time.Second)}
}

func (s *siege) late(k hoard) {
	s.attack("a call kept until its ticket has expired", 0, "a visit", func(a *attempt) {
		time.Sleep(time.Until(k.ends))
		a.said(k.call(http.MethodPost, chatPath, k.token, k.body))
	})
	s.measure("the expired ticket renewed, and renewed again, 40 times", "a visit", func(a *attempt) {
		old, got, start := k.visit, 0, time.Now()
		for range 40 {
			fresh := *k.caller
			fresh.visit = old
			if a.said(fresh.renew()) == "" {
				got++
				k.visit = fresh.visit
			}
		}
		// The first ticket was got long enough ago.
		if most := 31 + int(time.Since(start).Seconds()/2); got < 30 || got > most || a.codes["rate-limited"] != 40-got {
			a.Errorf("%d tickets; want from 30 to %d; refused: %v", got, most, a.codes)
		}
		if code := k.call(http.MethodPost, chatPath, k.caller.token(k.body), k.body); code != "" || a.through() != 1 {
			a.Errorf("a call with the last ticket: %q", code)
		}
		a.got = "30 tickets, then 30 a minute"
	})
}
