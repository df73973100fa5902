package lab

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// openShared is a lab for a class, as it is behind a server that ends TLS.
func openShared(t *testing.T) (l *Lab, address string) {
	t.Helper()
	var lc net.ListenConfig
	listener, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address = listener.Addr().String()
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	names, err := Public("https://lab.test:"+port, "https://elsewhere.test:"+port)
	if err != nil {
		t.Fatal(err)
	}
	l = New(Options{Names: names})
	serveUntilEnd(t, l, listener)
	return l, address
}

// enter comes in by the door, and says whose world the way leads to.
func enter(t *testing.T, l *Lab, address string) *visitor {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+address+"/", nil)
	if err != nil {
		t.Error(err)
		return nil
	}
	r.Host = strings.TrimPrefix(l.o.Names.Door(), "https://")
	res, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(r)
	if err != nil {
		t.Error(err)
		return nil
	}
	res.Body.Close()
	u, err := url.Parse(res.Header.Get("Location"))
	if err != nil || res.StatusCode != http.StatusSeeOther {
		t.Errorf("the door: %d, %v", res.StatusCode, err)
		return nil
	}
	_, id, _ := l.o.Names.Find(u.Host)
	return l.visitors.find(id, time.Now())
}

// TestFiftyVisitorsSeeNothingOfEachOther: each has books, a session, answers, a gate and a
// ledger of his own, and all of them are at work at once.
func TestFiftyVisitorsSeeNothingOfEachOther(t *testing.T) {
	const visitors, rounds = 50, 3
	l, address := openShared(t)
	all := make([]*caller, visitors)
	for i := range all {
		v := enter(t, l, address)
		if v == nil {
			t.Fatal("no visitor")
		}
		all[i] = newCaller(t, l, v)
	}
	if n := len(l.visitors.all); n != visitors {
		t.Fatalf("%d visitors; want %d", n, visitors)
	}
	var wg sync.WaitGroup
	for i, c := range all {
		wg.Go(func() { c.visit(i, all[(i+1)%visitors], rounds) })
	}
	wg.Wait()
	for i, c := range all {
		if got, want := c.v.booksNow().Alice, 1000-(i+1); got != want {
			t.Errorf("visitor %d: alice has %d; want %d", i, got, want)
		}
	}
}

// visit is what a reader's page does, as visitor i, beside whom another one is at work.
func (c *caller) visit(i int, other *caller, rounds int) {
	t := c.t
	post := func(path string, body any) reply {
		text, err := json.Marshal(body)
		if err != nil {
			t.Error(err)
		}
		return c.call("POST", "{bank}/.lab/"+path, string(text), "Sec-Fetch-Site", "same-origin")
	}
	// Every other visitor's gate lets the bank's page in.
	origin := []string{"{bank}", "{blog}"}[i%2]
	if got := post("config", map[string]string{"text": strings.Replace(head+open80, "['{bank}']", "['"+origin+"']", 1)}); !strings.Contains(got.body, `"ok":true`) {
		t.Errorf("visitor %d: config: %s", i, got.body)
	}
	for range rounds {
		var p prepared
		got := post("run", map[string]any{"target": "api", "composed": map[string]any{
			"id": "x", "title": "x", "from": "bank", "cookies": []string{"session={session}; Path=/"},
			"answers":  []any{map[string]any{"headers": [][]string{{"X-Visitor", fmt.Sprint(i)}, {"Access-Control-Allow-Origin", "{bank}"}}}},
			"requests": []any{map[string]any{"api": "fetch", "url": "{target}/me"}},
		}})
		if err := json.Unmarshal([]byte(got.body), &p); err != nil {
			t.Errorf("visitor %d: %v: %s", i, err, got.body)
			return
		}
		var cookie string
		for _, line := range c.call("GET", "{api}/sign-in", "").header["Set-Cookie"] {
			if value, _, _ := strings.Cut(line, ";"); strings.HasPrefix(value, "session=") && value != "session=" {
				cookie = value
			}
		}
		if cookie != "session="+c.v.session {
			t.Errorf("visitor %d: signed in with %q", i, cookie)
		}
		if got = c.call("POST", fmt.Sprintf("{api}/account/transfer?amount=%d", i+1), "", "Cookie", cookie); got.status != 200 || got.header.Get("X-Visitor") != fmt.Sprint(i) {
			t.Errorf("visitor %d: transfer: %d %v", i, got.status, got.header)
		}
		got = c.call("GET", "{api}/me", "", "Cookie", cookie)
		if want := fmt.Sprintf(`"balance":%d,`, 1000-(i+1)); !strings.Contains(got.body, want) {
			t.Errorf("visitor %d: me: %s; want %s", i, got.body, want)
		}
		if got.header.Get("Access-Control-Allow-Origin") != c.v.origins[RoleBank] {
			t.Errorf("visitor %d: %v", i, got.header)
		}
		// Another one's session is nobody's here.
		if got = c.call("GET", "{api}/me", "", "Cookie", "session="+other.v.session); got.status != http.StatusUnauthorized {
			t.Errorf("visitor %d: me with another's session: %d", i, got.status)
		}
		// Nor does a redirect or the proxy lead into another one's world.
		if got = c.call("GET", "{api}/redirect?to="+url.QueryEscape(other.v.origins[RoleAPI]+"/data"), ""); got.status != http.StatusBadRequest {
			t.Errorf("visitor %d: led to another's world: %d", i, got.status)
		}
		if got = c.call("GET", "{api}/proxy?url="+url.QueryEscape(other.v.origins[RoleAPI]+"/data"), ""); got.status != http.StatusBadGateway {
			t.Errorf("visitor %d: fetched from another's world: %d", i, got.status)
		}
		want := []int{200, 403}[i%2]
		if got = c.call("GET", "{gate}/data", "", "Origin", "{bank}", "Sec-Fetch-Site", "same-site", "Sec-Fetch-Mode", "cors"); got.status != want {
			t.Errorf("visitor %d: by the gate: %d; want %d", i, got.status, want)
		}
		c.checkOwn(i, p.Number)
	}
}

// checkOwn has the ledger of a run, as the page is told: all of it, and nothing of anybody
// else's.
func (c *caller) checkOwn(i, run int) {
	var events []Event
	got := c.call("GET", fmt.Sprintf("{bank}/.lab/ledger?run=%d", run), "", "Sec-Fetch-Site", "same-origin")
	if err := json.Unmarshal([]byte(got.body), &events); err != nil {
		c.t.Errorf("visitor %d: %v: %s", i, err, got.body)
	}
	var arrived []string
	for _, e := range events {
		if e.Kind == eventArrived {
			host, path, _ := strings.Cut(strings.TrimPrefix(e.URL, "https://"), "/")
			if _, id, _ := c.l.o.Names.Find(host); id != c.v.id {
				c.t.Errorf("visitor %d: the ledger has %s", i, e.URL)
			}
			path, _, _ = strings.Cut(path, "?")
			arrived = append(arrived, path)
		}
	}
	if want := []string{"sign-in", "account/transfer", "me", "me", "redirect", "proxy", "data"}; !slices.Equal(arrived, want) {
		c.t.Errorf("visitor %d: arrived %q; want %q", i, arrived, want)
	}
}
