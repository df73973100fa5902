package lab

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/moat-gateway/moat/config"
)

// openWith starts a lab that teaches only what is in the files.
func openWith(t *testing.T, files map[string]string) *Lab {
	t.Helper()
	root := fstest.MapFS{"answers.yaml": {Data: []byte("none: []")}}
	for name, text := range files {
		root[name] = &fstest.MapFile{Data: []byte(text)}
	}
	lessons, err := ReadLessons(root)
	if err != nil {
		t.Fatal(err)
	}
	var lc net.ListenConfig
	listener, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, err := net.SplitHostPort(listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	l := New(Options{Names: Localhost("http", port), Lessons: lessons})
	serveUntilEnd(t, l, listener)
	return l
}

func serveUntilEnd(t *testing.T, l *Lab, listeners ...net.Listener) {
	t.Helper()
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error)
	go func() { done <- l.Serve(ctx, listeners...) }()
	t.Cleanup(func() {
		stop()
		<-done
	})
}

func reader(l *Lab) *visitor { return l.visitors.find("", time.Now()) }

const head = `version: 1
public_origins: ["{gate}"]
upstreams: {bank: {url: "{backend}"}}
`

const open80 = "routes: [{match: /, upstream: bank, auth: public, origins: ['{bank}']}]\n"

// TestMoatYAMLReachesNothingOutside: whoever writes one may be a visitor of a shared lab.
func TestMoatYAMLReachesNothingOutside(t *testing.T) {
	l := openWith(t, nil)
	route := "routes: [{match: /, upstream: bank, auth: %, authorize: authenticated, origins: ['{bank}']}]\n"
	jwt := func(more string) string {
		return head + "auth: {users: {jwt: {issuer: 'https://issuer.bank.test', audience: bank-api, algorithms: [ES256]" + more + "}}}\n" + strings.Replace(route, "%", "users", 1)
	}
	for name, c := range map[string]struct{ text, want string }{
		"another upstream":    {strings.Replace(head, "{backend}", "http://127.0.0.1:22", 1) + open80, "every upstream is {backend}"},
		"its other scheme":    {strings.Replace(head, "{backend}", "https://"+backendName, 1) + open80, "every upstream is {backend}"},
		"a second upstream":   {strings.Replace(head, "upstreams: {", "upstreams: {meta: {url: 'http://169.254.169.254'}, ", 1) + open80, "every upstream is {backend}"},
		"a token endpoint":    {strings.Replace(head, `"{backend}"`, `"{backend}", credential: {oauth: {token_url: 'http://127.0.0.1:1', client_id: a, client_secret: '${env:A_SECRET}'}}`, 1) + open80, "no authorization server"},
		"Valkey":              {head + "store: {valkey: '127.0.0.1:6379'}\n" + open80, "no Valkey"},
		"an issuer's URL":     {jwt(", jwks_url: 'http://127.0.0.1:1/jwks'"), "no issuer can be asked"},
		"discovery":           {jwt(""), "no issuer can be asked"},
		"introspection":       {head + "auth: {users: {introspection: {url: 'http://127.0.0.1:1', client_id: a, client_secret: '${env:A_SECRET}'}}}\n" + strings.Replace(route, "%", "users", 1), "no authorization server"},
		"an OpenID provider":  {head + "auth: {users: {login: {issuer: 'http://127.0.0.1:1', client_id: a}}}\n" + strings.Replace(route, "%", "users", 1), "no OpenID provider"},
		"a file":              {head + "identity_keys: '${file:/etc/hostname}'\n" + open80, "does not exist"},
		"the environment":     {strings.Replace(head, `"{backend}"`, `"{backend}", headers: {X-A: '${env:PATH}'}`, 1) + open80, "not set"},
		"a certificate":       {head + "listen: {address: '127.0.0.1:0', tls: {certificate: /etc/hostname, key: /etc/hostname}}\n" + open80, "does not exist"},
		"more than one reads": {head + "#" + strings.Repeat("x", maxConfig) + "\n" + open80, "the lab takes"},
		"too many routes":     {head + "routes:\n" + manyRoutes(maxPieces), "no more than"},
	} {
		t.Run(name, func(t *testing.T) {
			loaded, faults := l.put(reader(l), "", c.text)
			if loaded != nil || !slices.ContainsFunc(faults, func(f fault) bool { return strings.Contains(f.Reason, c.want) }) {
				t.Errorf("faults %+v; want one that says %q", faults, c.want)
			}
		})
	}
	if _, faults := l.put(reader(l), "", jwt(", jwks_file: jwks.json")); faults != nil {
		t.Errorf("an issuer whose keys are in jwks.json: %+v", faults)
	}
}

func manyRoutes(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString("  - {match: /r" + strings.Repeat("x", i) + ", upstream: bank, auth: public}\n")
	}
	return b.String()
}

// TestFaultsStandAtTheirLine: what is told is what the reader sees in the editor.
func TestFaultsStandAtTheirLine(t *testing.T) {
	l := openWith(t, nil)
	_, faults := l.put(reader(l), "", head+"routes:\n  - {match: /, upstream: bank, auth: pubic}\n")
	if len(faults) != 1 || faults[0].Line != 5 || !strings.Contains(faults[0].Reason, "public") {
		t.Errorf("faults %+v; want one in line 5 that names public", faults)
	}
	_, faults = l.put(reader(l), "", strings.Replace(head, "{backend}", "http://192.0.2.1", 1)+open80)
	if len(faults) != 1 || faults[0].Line != 3 {
		t.Errorf("faults %+v; want one in line 3", faults)
	}
	loaded, faults := l.put(reader(l), "", head+"listen: 127.0.0.1:1\n"+open80)
	if loaded == nil || len(loaded.Warnings) != 1 || loaded.Warnings[0].Line != 4 {
		t.Errorf("faults %+v, loaded %+v; want a warning about line 4", faults, loaded)
	}
}

// TestFaultyTextLeavesTheGateAsItWas also at faults that only the gateway itself finds.
func TestFaultyTextLeavesTheGateAsItWas(t *testing.T) {
	l := openWith(t, nil)
	if _, faults := l.put(reader(l), "", head+open80); faults != nil {
		t.Fatal(faults)
	}
	before := reader(l).inForce.Load()
	if _, faults := l.put(reader(l), "", head); faults == nil {
		t.Error("no routes, and no fault")
	}
	if reader(l).inForce.Load() != before {
		t.Error("the gate has been exchanged")
	}
	if _, err := l.compile(reader(l), head); !errors.As(err, new(config.Faults)) {
		t.Errorf("%v: not of type Faults", err)
	}
}

// TestCompilingIsBounded, whatever somebody writes.
func TestCompilingIsBounded(t *testing.T) {
	l := openWith(t, nil)
	condition := func(text string) string {
		return head + "auth: {u: {jwt: {issuer: 'https://issuer.bank.test', audience: bank-api, algorithms: [ES256], jwks_file: jwks.json}}}\n" +
			"routes: [{match: /, upstream: bank, auth: u, authorize: {if: '" + text + "'}}]\n"
	}
	for name, text := range map[string]string{
		"nested parentheses": condition(strings.Repeat("(", 10000) + "true" + strings.Repeat(")", 10000)),
		"nested loops":       condition(strings.Repeat("[1,2,3,4,5,6,7,8,9].all(x, ", 300) + "true" + strings.Repeat(")", 300)),
		"deep YAML":          head + strings.Repeat("[", 15000),
		"aliases of aliases": head + "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c]\ne: [*d,*d,*d,*d,*d,*d,*d,*d]\n" + open80,
	} {
		start := time.Now()
		if _, faults := l.put(reader(l), "", text); len(faults) == 0 {
			t.Errorf("%s: no fault", name)
		}
		if took := time.Since(start); took > 5*time.Second {
			t.Errorf("%s: %v", name, took)
		}
	}
}

// TestGateOfALesson: the reader's own text if one was accepted, else the lesson's solution,
// else the lab's.
func TestGateOfALesson(t *testing.T) {
	files := mended(head+"routes: [{match: /data, upstream: bank, auth: public, browserless: allow}]\n", check("read", "from: lab, requests: [{api: fetch, url: '{target}/data'}]"))
	files["y/lesson.yaml"], files["y/text.md"] = "title: Y\norder: 2\npart: P\nsummary: S\nruns: []\n", "text"
	l := openWith(t, files)
	host := l.o.Names.Origin(RoleBank, "")[len("http://"):]
	run := &l.o.Lessons[0].Mend.Checks[0]
	reason := func(lesson string) string {
		t.Helper()
		if err := l.gateFor(reader(l), lesson, true); err != nil {
			t.Fatal(err)
		}
		o, err := l.play(t.Context(), reader(l), run, RoleGate, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		return o.Reason
	}
	defend := func(text string) Defended {
		t.Helper()
		body, err := json.Marshal(map[string]string{"lesson": "x", "text": text})
		if err != nil {
			t.Fatal(err)
		}
		var d Defended
		w := to(l, "POST", host, "/.lab/defend", string(body))
		if err := json.Unmarshal(w.Body.Bytes(), &d); err != nil || w.Code != 200 {
			t.Fatalf("%d %s", w.Code, w.Body)
		}
		return d
	}
	if got := reason("x"); got != "" {
		t.Errorf("with the solution: %s", got)
	}
	if got := reason("y"); got != "cross-site-browserless" {
		t.Errorf("with the lab's own: %s", got)
	}
	if d := defend(head + open80); !d.OK || d.Working != 0 || d.Legitimate != 1 || d.Checks[0].Reason != "cross-site-browserless" || d.Checks[0].Why == "" {
		t.Errorf("a text that refuses the program: %+v", d)
	}
	if got := reason("x"); got != "cross-site-browserless" {
		t.Errorf("with the reader's own: %s", got)
	}
	if d := defend(head); d.OK || len(d.Faults) == 0 || len(d.Checks) != 0 {
		t.Errorf("a text at fault: %+v", d)
	}
	if got := reason("x"); got != "cross-site-browserless" {
		t.Errorf("after one at fault: %s; want the one before", got)
	}
	if d := defend(l.o.Lessons[0].Mend.Solution); !d.Passed() {
		t.Errorf("the solution: %+v", d)
	}
	if got := reader(l).achieve(nil)["x"]; !got.Mended {
		t.Errorf("progress: %+v", got)
	}
}

// TestGateForgetsLimitsBetweenRuns, so that they come out the same each time, and no tickets: a
// page goes on with those that it has, and a used one must stay used.
func TestGateForgetsLimitsBetweenRuns(t *testing.T) {
	l := openWith(t, nil)
	gateway := func(text string) any {
		t.Helper()
		if _, faults := l.put(reader(l), "", text); faults != nil {
			t.Fatal(faults)
		}
		if err := l.gateFor(reader(l), "", true); err != nil {
			t.Fatal(err)
		}
		return reader(l).inForce.Load().gateway
	}
	limits := head + "rate_limits: {all: 2/h}\nroutes: [{match: /, upstream: bank, auth: public, rate_limits: all}]\n"
	if gateway(limits) == gateway(limits) {
		t.Error("limits: the gate is still the one of the run before")
	}
	tickets := head + "routes: [{match: /, upstream: bank, auth: public, origins: ['{bank}'], tickets: require}]\n"
	if gateway(tickets) != gateway(tickets) {
		t.Error("tickets: the gate has been exchanged")
	}
}
