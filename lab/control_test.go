package lab

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

// to asks the lab's handler, as from a browser: what stands in headers is name, value, …
func to(l http.Handler, method, host, path, body string, headers ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	r.Host = host
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	l.ServeHTTP(w, r)
	return w
}

// TestControlIsForItsOwnPageAlone: what a page asks of the lab it asks of its own origin.
func TestControlIsForItsOwnPageAlone(t *testing.T) {
	l := New(Options{Names: Localhost("http", "7700")})
	const bank = "bank.localhost:7700"
	for _, c := range []struct {
		name, method, path, host string
		headers                  []string
		want                     int
	}{
		{"its own page", "POST", "reset", bank, []string{"Sec-Fetch-Site", "same-origin", "Origin", "http://" + bank}, 200},
		{"its own page, in a browser that tells only Origin", "POST", "reset", bank, []string{"Origin", "http://" + bank}, 200},
		{"curl", "POST", "reset", bank, nil, 200},
		{"the address bar", "GET", "boot", bank, []string{"Sec-Fetch-Site", "none"}, 200},

		{"the lab's stranger", "POST", "reset", bank, []string{"Sec-Fetch-Site", "cross-site", "Origin", "http://stranger.localhost:7700"}, 403},
		{"the sibling", "POST", "reset", bank, []string{"Sec-Fetch-Site", "same-site", "Origin", "http://blog.bank.localhost:7700"}, 403},
		{"another port of this machine", "POST", "reset", bank, []string{"Origin", "http://bank.localhost:9"}, 403},
		{"a stranger's site in the same browser", "POST", "play", "localhost:7700", []string{"Sec-Fetch-Site", "cross-site", "Origin", "https://evil.example"}, 403},
		{"its image", "GET", "ledger", "localhost:7700", []string{"Sec-Fetch-Site", "cross-site"}, 403},
		{"its sandboxed frame", "POST", "play", "localhost:7700", []string{"Origin", "null"}, 403},
		{"its stream", "GET", "events", "localhost:7700", []string{"Sec-Fetch-Site", "cross-site", "Origin", "https://evil.example"}, 403},
		{"a name that was rebound to this machine", "POST", "reset", "rebound.evil.example:7700", []string{"Sec-Fetch-Site", "same-origin", "Origin", "http://rebound.evil.example:7700"}, 421},
		{"the same with the lab's name in it", "POST", "reset", "localhost:7700.evil.example", nil, 421},
		{"the address", "POST", "reset", "127.0.0.1:7700", nil, 421},
		{"another port", "POST", "reset", "localhost:7701", nil, 421},
	} {
		if got := to(l, c.method, c.host, "/.lab/"+c.path, "{}", c.headers...).Code; got != c.want {
			t.Errorf("%s: %s %s at %s: %d; want %d", c.name, c.method, c.path, c.host, got, c.want)
		}
	}
	for _, path := range []string{"boot", "ledger", "schema"} {
		for name := range to(l, "GET", bank, "/.lab/"+path, "", "Origin", "http://"+bank).Header() {
			if strings.HasPrefix(name, "Access-Control-") {
				t.Errorf("%s lets other origins read it: %s", path, name)
			}
		}
	}
	if got := to(l, "POST", "api.bank.localhost:7700", "/.lab/reset", "", "Sec-Fetch-Site", "same-origin").Code; got != http.StatusNotFound {
		t.Errorf("the API has a control: %d", got)
	}
}

// TestPolicies: no page frames the lab's, and the stage reaches the lab's origins alone.
func TestPolicies(t *testing.T) {
	l := New(Options{Names: Localhost("http", "7700")})
	page := to(l, "GET", "bank.localhost:7700", "/", "").Header().Get("Content-Security-Policy")
	for _, want := range []string{"default-src 'none'", "frame-ancestors 'none'", "connect-src 'self'"} {
		if !strings.Contains(page, want) {
			t.Errorf("the page's policy %q lacks %q", page, want)
		}
	}
	stage := l.stagePolicy(reader(l))
	if strings.Contains(stage, "*") || strings.Contains(stage, "http: ") || !strings.Contains(stage, "ws://gate.bank.localhost:7700") || !strings.Contains(stage, "frame-ancestors 'self'") {
		t.Errorf("the stage's policy is %q", stage)
	}
}

func shared(t *testing.T) *Lab {
	t.Helper()
	names, err := Public("https://lab.example", "https://stranger.example")
	if err != nil {
		t.Fatal(err)
	}
	l := New(Options{Names: names})
	t.Cleanup(l.visitors.close)
	return l
}

// come goes through the door, and returns the visitor's id.
func come(t *testing.T, l *Lab, headers ...string) (id string, w *httptest.ResponseRecorder) {
	t.Helper()
	w = to(l, "GET", "lab.example", "/", "", headers...)
	rest, ours := strings.CutPrefix(w.Header().Get("Location"), "https://lab-")
	id, whole := strings.CutSuffix(rest, ".lab.example/")
	if w.Code != http.StatusSeeOther || !ours || !whole || !isVisitor(id) {
		t.Fatalf("the door: %d, Location %q", w.Code, w.Header().Get("Location"))
	}
	return id, w
}

func TestEveryVisitorHasHostsOfHisOwn(t *testing.T) {
	l := shared(t)
	id, w := come(t, l)
	cookie := w.Result().Cookies()[0]
	if cookie.Name != "__Host-lab-visitor" || !cookie.Secure || !cookie.HttpOnly || cookie.SameSite != http.SameSiteLaxMode {
		t.Errorf("the cookie is %v", cookie)
	}
	if again, _ := come(t, l, "Cookie", cookie.Name+"="+cookie.Value); again != id {
		t.Errorf("who came again is %q; want %q", again, id)
	}
	if other, _ := come(t, l); other == id {
		t.Error("two visitors are one")
	}
	for _, c := range []struct {
		host string
		want int
	}{
		{"lab-" + id + ".lab.example", 200},
		{"BANK-" + strings.ToUpper(id) + ".lab.example", 200},
		{"api-" + id + ".lab.example", 404}, // the API has no such path
		{"stranger-" + id + ".stranger.example", 200},
		{"stranger-" + id + ".lab.example", 421},
		{"bank-" + strings.Repeat("a", visitorLength) + ".lab.example", 404},
		{"bank-.lab.example", 421},
		{"bank-" + id + ".lab.example.evil.example", 421},
		{"bank.lab.example", 421},
	} {
		if got := to(l, "GET", c.host, "/", "").Code; got != c.want {
			t.Errorf("%s: %d; want %d", c.host, got, c.want)
		}
	}
	// Whoever ends TLS in front is asked for the name that came, and for nothing else.
	if got := to(l, "GET", "evil.example", "/", "", "X-Forwarded-Host", "lab-"+id+".lab.example", "Forwarded", "host=lab.example").Code; got != 421 {
		t.Errorf("a forwarded host is believed: %d", got)
	}
}

func TestDoorIsForPeopleWhoComeByThemselves(t *testing.T) {
	l := shared(t)
	for name, c := range map[string]struct {
		method, path string
		headers      []string
	}{
		"another page's image":  {"GET", "/", []string{"Sec-Fetch-Mode", "no-cors"}},
		"another page's fetch":  {"GET", "/", []string{"Sec-Fetch-Mode", "cors"}},
		"another page's form":   {"POST", "/", []string{"Sec-Fetch-Mode", "navigate"}},
		"another path":          {"GET", "/.lab/boot", nil},
		"an id that he made up": {"GET", "/x", []string{"Cookie", "__Host-lab-visitor=aaaaaaaaaaaaa"}},
	} {
		if w := to(l, c.method, "lab.example", c.path, "", c.headers...); w.Code < 400 {
			t.Errorf("%s: %d", name, w.Code)
		}
	}
	if n := len(l.visitors.all); n != 0 {
		t.Errorf("%d visitors have come", n)
	}
}

// TestLabIsBounded: in how many come, how fast, and how long it remembers them.
func TestLabIsBounded(t *testing.T) {
	l := shared(t)
	refused := 0
	for range 2 * comings { // which leaves room for those that a slow machine lets in meanwhile
		if to(l, "GET", "lab.example", "/", "").Code == http.StatusTooManyRequests {
			refused++
		}
	}
	if refused == 0 || refused > comings {
		t.Errorf("of %d comings from one address %d were refused", 2*comings, refused)
	}
	now := time.Now()
	for l.visitors.come(now) != nil {
	}
	if n := len(l.visitors.all); n != maxVisitors {
		t.Fatalf("%d visitors; want %d", n, maxVisitors)
	}
	var one *visitor
	for _, v := range l.visitors.all {
		one = v
	}
	address, err := one.backend.open(http.NotFoundHandler())
	if err != nil {
		t.Fatal(err)
	}
	stays := l.visitors.come(now.Add(maxIdle + time.Second))
	if stays == nil || len(l.visitors.all) != 1 {
		t.Fatalf("a new visitor after all others have been away: %v, of %d", stays, len(l.visitors.all))
	}
	if c, err := net.DialTimeout("tcp", address, time.Second); err == nil {
		c.Close()
		t.Error("the listener of a visitor who was forgotten is still open")
	}
	if _, err := one.backend.open(http.NotFoundHandler()); err == nil {
		t.Error("it can be opened again")
	}
}

// TestFiftyVisitorsAtOnceDoNotMeet: each moves another amount, through a gate of his own, and
// finds his own books, ledger and moat.yaml.
func TestFiftyVisitorsAtOnceDoNotMeet(t *testing.T) {
	l := shared(t)
	var all sync.WaitGroup
	for i := 1; i <= 50; i++ {
		id, _ := come(t, l)
		all.Go(func() {
			own := func(method, path, body string) string {
				w := to(l, method, "bank-"+id+".lab.example", "/.lab/"+path, body, "Sec-Fetch-Site", "same-origin")
				if w.Code != http.StatusOK {
					t.Errorf("visitor %d: %s: %d %s", i, path, w.Code, w.Body)
				}
				return w.Body.String()
			}
			text, err := json.Marshal(strings.Replace(head, "upstreams:", fmt.Sprintf("# visitor %d\nupstreams:", i), 1) + open80)
			if err != nil {
				t.Error(err)
			}
			own("POST", "config", `{"text":`+string(text)+`}`)
			out := own("POST", "play", fmt.Sprintf(`{"target":"gate","composed":{"id":"a","title":"T","from":"bank","expect":{"left":true,"arrived":true,"ran":true,"readable":true},`+
				`"requests":[{"api":"fetch","url":"{gate}/transfer?amount=%d","method":"POST"}]}}`, i))
			var o Outcome
			if err := json.Unmarshal([]byte(out), &o); err != nil || o.Alice != -i || !o.Readable {
				t.Errorf("visitor %d: %v, outcome %s", i, err, out)
			}
			if ledger := own("GET", "ledger?run=1", ""); strings.Count(ledger, `"arrived"`) != 1 || !strings.Contains(ledger, fmt.Sprintf("amount=%d\"", i)) {
				t.Errorf("visitor %d has the ledger %s", i, ledger)
			}
			if f := l.visitors.find(id, time.Now()).inForce.Load(); !strings.Contains(f.text, fmt.Sprintf("# visitor %d\n", i)) {
				t.Errorf("visitor %d has the moat.yaml %q", i, f.text)
			}
		})
	}
	all.Wait()
}

func TestProgressIsMerged(t *testing.T) {
	l := openWith(t, mended(head+open80, ""))
	host := l.o.Names.Origin(RoleBank, "")[len("http://"):]
	tell := func(body string) string {
		return strings.TrimSpace(to(l, "POST", host, "/.lab/progress", body).Body.String())
	}
	tell(`{"x":{"predicted":2,"of":4,"mended":false}}`)
	tell(`{"x":{"predicted":0,"of":0,"mended":true}, "gone":{"predicted":1,"of":1}, "y":{"predicted":-1,"of":1}}`)
	if got, want := tell(`{"x":{"predicted":1,"of":4,"mended":false}}`), `{"x":{"predicted":2,"of":4,"mended":true}}`; got != want {
		t.Errorf("merged %s; want %s", got, want)
	}
}

// TestComposedRunsReachOnlyTheWorldOfTheirVisitor, and not this machine or the network.
func TestComposedRunsReachOnlyTheWorldOfTheirVisitor(t *testing.T) {
	hit := make(chan string, 10)
	victim := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { hit <- r.URL.Path }))
	defer victim.Close()
	l := shared(t)
	id, _ := come(t, l)
	other, _ := come(t, l)
	for _, url := range []string{victim.URL + "/x", "https://api-" + other + ".lab.example/data", "https://lab.example/", "http://169.254.169.254/", "file:///etc/hostname"} {
		for _, from := range []string{"lab", "bank"} {
			w := to(l, "POST", "lab-"+id+".lab.example", "/.lab/play", `{"target":"api","composed":{"id":"a","title":"T","from":"`+from+`","requests":[{"api":"fetch","url":"`+url+`"}],"expect":{}}}`, "Sec-Fetch-Site", "same-origin")
			var o Outcome
			if err := json.Unmarshal(w.Body.Bytes(), &o); w.Code == 200 && (err != nil || o.Arrived || o.Ran || o.Readable) {
				t.Errorf("%s from %s: %d %s", url, from, w.Code, w.Body)
			}
		}
	}
	if len(hit) > 0 {
		t.Errorf("another server was asked for %s", <-hit)
	}
	if events := l.visitors.find(other, time.Now()).ledger.of(0); len(events) > 0 {
		t.Errorf("another visitor's API was asked: %+v", events)
	}
}

// TestLargeAndFaultyQuestionsAreRefused in words that the page can show.
func TestLargeAndFaultyQuestionsAreRefused(t *testing.T) {
	l := openWith(t, mended(head+open80, ""))
	host := l.o.Names.Origin(RoleBank, "")[len("http://"):]
	for name, c := range map[string]struct{ path, body string }{
		"no JSON":          {"run", "x"},
		"a field too many": {"run", `{"lesson":"x","run":"y","target":"api","more":1}`},
		"no such lesson":   {"run", `{"lesson":"nope","run":"y","target":"api"}`},
		"no such target":   {"run", `{"lesson":"x","run":"y","target":"bank"}`},
		"nothing to mend":  {"defend", `{"lesson":"nope","text":""}`},
		"too much":         {"config", `{"text":"` + strings.Repeat("x", maxAsked) + `"}`},
		"many requests":    {"play", `{"target":"api","composed":{"from":"lab","requests":[` + strings.TrimSuffix(strings.Repeat(`{"api":"fetch","url":"{api}/data"},`, maxRequests+1), ",") + `]}}`},
	} {
		w := to(l, "POST", host, "/.lab/"+c.path, c.body)
		var told struct{ Error string }
		if err := json.Unmarshal(w.Body.Bytes(), &told); err != nil || w.Code != http.StatusBadRequest || told.Error == "" {
			t.Errorf("%s: %d %s", name, w.Code, w.Body)
		}
	}
}

// TestListenerHoldsOut: the stream outlives the times that others have, and its number is bounded.
func TestListenerHoldsOut(t *testing.T) {
	l := openWith(t, nil)
	v := reader(l)
	address, err := v.front.open(l.world(v))
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Timeout: 10 * time.Second}
	listen := func() *http.Response {
		r, err := http.NewRequestWithContext(t.Context(), "GET", "http://"+address+"/.lab/events", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Host = l.o.Names.Origin(RoleBank, "")[len("http://"):]
		res, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { res.Body.Close() })
		return res
	}
	first := listen()
	for range maxListeners - 1 {
		listen()
	}
	if res := listen(); res.StatusCode != http.StatusTooManyRequests {
		t.Errorf("one tab more than %d: %d", maxListeners, res.StatusCode)
	}
	v.ledger.note(v.ledger.arrive(), Event{Kind: eventRan, Did: "something"})
	var got bytes.Buffer
	for !strings.Contains(got.String(), "something") {
		if _, err := io.CopyN(&got, first.Body, 1); err != nil {
			t.Fatalf("the stream ended after %q: %v", got.String(), err)
		}
	}
}

// TestFaultOfAHandlerEndsItsConnectionAlone, and is told.
func TestFaultOfAHandlerEndsItsConnectionAlone(t *testing.T) {
	l := New(Options{Names: Localhost("http", "7700")})
	defer func() {
		if why := recover(); why != http.ErrAbortHandler { //nolint:errorlint // it is that value
			t.Errorf("it ends with %v", why)
		}
	}()
	l.front = http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("broken") })
	l.o.Names.door = "door:7700"
	to(l, "GET", "door:7700", "/", "")
}

// TestControlTakesTheVisitorsShare also of what is only read.
func TestControlTakesTheVisitorsShare(t *testing.T) {
	l := shared(t)
	id, _ := come(t, l)
	host := "bank-" + id + ".lab.example"
	ask := func(l *Lab, host, path string) *httptest.ResponseRecorder {
		return to(l, "GET", host, "/.lab/"+path, "")
	}
	hasty := 0
	for range 2 * maxRate.Burst {
		if w := ask(l, host, "ledger"); w.Code == http.StatusTooManyRequests {
			hasty++
			if !strings.Contains(w.Body.String(), "Wait a moment") || w.Header().Get("Retry-After") == "" {
				t.Fatalf("%s %v", w.Body, w.Header())
			}
		}
	}
	if hasty == 0 {
		t.Error("nobody is too hasty in a shared lab")
	}
	own := New(Options{Names: Localhost("http", "7700")})
	const bank = "bank.localhost:7700"
	for range 2 * maxRate.Burst {
		if w := ask(own, bank, "ledger"); w.Code != http.StatusOK {
			t.Fatalf("alone: %d %s", w.Code, w.Body)
		}
	}
	v := reader(own)
	for range maxBusy {
		v.reading.take(time.Now())
	}
	for _, path := range []string{"ledger", "boot", "stage", "reasons", "answers", "schema"} {
		if w := ask(own, bank, path); w.Code != http.StatusTooManyRequests || !strings.Contains(w.Body.String(), "at once") {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
	}
	v.reading.release()
	if w := ask(own, bank, "ledger"); w.Code != http.StatusOK {
		t.Errorf("after one has ended: %d", w.Code)
	}
}
