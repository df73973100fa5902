package lab

import (
	"slices"
	"strings"
	"testing"
	"time"
)

// mended is a lesson whose solution is the text, with the runs as its battery.
func mended(yaml, checks string) map[string]string {
	return map[string]string{
		"x/lesson.yaml":   "title: X\norder: 1\npart: P\nsummary: S\nruns: []\nmend:\n  checks:\n" + checks,
		"x/text.md":       "text",
		"x/mend.md":       "mend",
		"x/start.yaml":    yaml,
		"x/naive.yaml":    yaml,
		"x/solution.yaml": yaml,
	}
}

// checksOf plays the battery, and says of each check whether it ran or why it was refused.
func checksOf(t *testing.T, yaml, checks string) []string {
	t.Helper()
	l := openWith(t, mended(yaml, checks))
	loaded, err := l.compile(reader(l), yaml)
	if err != nil {
		t.Fatal(err)
	}
	d, err := l.defend(t.Context(), reader(l), &l.o.Lessons[0], loaded)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, c := range d.Checks {
		word := c.Reason
		if c.Ran {
			word = strings.TrimSpace("ran " + word)
		}
		out = append(out, c.ID+": "+word)
	}
	return out
}

func check(id, more string) string {
	return "    - {id: " + id + ", title: T, expect: {left: true, arrived: true, ran: true, readable: true}, " + more + "}\n"
}

// TestGuardsOfMoatInTheLab: each of moat's guards that a lesson can be about has what it needs.
func TestGuardsOfMoatInTheLab(t *testing.T) {
	for name, c := range map[string]struct {
		yaml, checks string
		want         []string
	}{
		"CORS": {
			head + open80,
			check("own", "from: bank, requests: [{api: fetch, url: '{gate}/data'}]") + check("other", "from: stranger, requests: [{api: fetch, url: '{gate}/data'}]"),
			[]string{"own: ran", "other: cors-origin-not-allowed"},
		},
		"tokens": {
			head + "auth: {users: {jwt: {issuer: 'https://issuer.bank.test', audience: bank-api, algorithms: [ES256], jwks_file: jwks.json}}}\n" +
				"routes: [{match: /, upstream: bank, auth: users, authorize: authenticated, origins: ['{bank}']}]\n",
			check("good", bearer("token")) + check("expired", bearer("token:expired")) + check("altered", bearer("token:altered")) + check("none", bearer("token:none")) +
				check("confused", bearer("token:confused")) + check("other", bearer("token:other")) + check("nobody", "from: bank, requests: [{api: fetch, url: '{gate}/data'}]"),
			[]string{
				"good: ran", "expired: token-expired", "altered: token-signature-invalid", "none: token-algorithm-not-allowed",
				"confused: token-algorithm-not-allowed", "other: token-audience-wrong", "nobody: credentials-missing",
			},
		},
		"a shared secret": {
			head + "auth: {users: {jwt: {issuer: 'https://issuer.bank.test', audience: bank-api, algorithms: [HS256], secrets: '${env:JWT_SECRET}'}}}\n" +
				"routes: [{match: /, upstream: bank, auth: users, authorize: authenticated, origins: ['{bank}']}]\n",
			check("good", bearer("token:shared")) + check("other", bearer("token")),
			[]string{"good: ran", "other: token-algorithm-not-allowed"},
		},
		"API keys": {
			head + "auth: {programs: {api_key: {file: keys.db}}}\nroutes: [{match: /, upstream: bank, auth: programs, authorize: authenticated, browserless: allow}]\n",
			check("good", "from: lab, requests: [{api: fetch, url: '{gate}/data', headers: [[X-Api-Key, '{api_key}']]}]") +
				check("bad", "from: lab, requests: [{api: fetch, url: '{gate}/data', headers: [[X-Api-Key, 'moat_x']]}]"),
			[]string{"good: ran", "bad: api-key-unknown"},
		},
		"rate limits": {
			head + "rate_limits: {all: 2/h}\nroutes: [{match: /, upstream: bank, auth: public, browserless: allow, rate_limits: all}]\n",
			check("two", "from: lab, requests: ["+strings.Repeat("{api: fetch, url: '{gate}/data'}, ", 2)+"]") +
				check("three", "from: lab, requests: ["+strings.Repeat("{api: fetch, url: '{gate}/data'}, ", 3)+"]") +
				check("none-left-over", "from: lab, requests: [{api: fetch, url: '{gate}/data'}]"),
			[]string{"two: ran", "three: rate-limited", "none-left-over: ran"},
		},
		"tickets": {
			head + "tickets: {secrets: '${env:TICKET_SECRET}'}\nroutes: [{match: /, upstream: bank, auth: public, origins: ['{bank}'], tickets: require}]\n",
			check("with", "from: bank, tickets: each, requests: [{api: fetch, url: '{gate}/data'}, {api: fetch, url: '{gate}/data'}]") +
				check("without", "from: bank, requests: [{api: fetch, url: '{gate}/data'}]") +
				check("again", "from: bank, tickets: same, requests: [{api: fetch, url: '{gate}/data'}, {api: fetch, url: '{gate}/data'}]") +
				check("stranger", "from: stranger, tickets: each, requests: [{api: fetch, url: '{gate}/data'}]"),
			[]string{"with: ran", "without: ticket-missing", "again: ticket-used", "stranger: cors-origin-not-allowed"},
		},
		"CSRF": {
			head + "csrf: {secrets: '${env:CSRF_SECRET}', session_cookies: sid}\n" +
				"routes: [{match: /, upstream: bank, auth: public, origins: ['{bank}'], same_site: allow, cors: {credentials: true, request_headers: [content-type]}}]\n",
			check("with", "from: bank, cookies: ['sid=1'], requests: [{api: fetch, url: '{gate}/.moat/csrf', credentials: include}, "+
				"{api: fetch, url: '{gate}/transfer', method: POST, credentials: include, headers: [[X-CSRF-Token, '{answer:token}']]}]") +
				check("without", "from: bank, cookies: ['sid=1'], requests: [{api: form, url: '{gate}/transfer', method: POST}]"),
			[]string{"with: ran", "without: csrf-token-missing"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			if got := checksOf(t, c.yaml, c.checks); !slices.Equal(got, c.want) {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(c.want, "\n"))
			}
		})
	}
}

func bearer(name string) string {
	return "from: bank, requests: [{api: fetch, url: '{gate}/data', headers: [[Authorization, 'Bearer {" + name + "}']]}]"
}

// TestRunsRememberWhatABrowserDoes: a preflight once, and a cookie that an answer has set.
func TestRunsRememberWhatABrowserDoes(t *testing.T) {
	l := openWith(t, map[string]string{
		"answers.yaml":  "all: [{headers: [[Access-Control-Allow-Origin, '{bank}'], [Access-Control-Allow-Credentials, 'true']]}, {on: actual, headers: [[Set-Cookie, seen=1]]}, {on: preflight, headers: [[Access-Control-Allow-Methods, PUT]]}]",
		"x/text.md":     "text",
		"x/lesson.yaml": "title: X\norder: 1\npart: P\nsummary: S\nruns: [{id: twice, title: T, from: bank, answers: all, expect: {left: true, arrived: true, ran: true, readable: true}, requests: [{api: fetch, url: '{target}/transfer', method: PUT, credentials: include}, {api: fetch, url: '{target}/transfer', method: PUT, credentials: include}]}]",
	})
	o, err := l.play(t.Context(), reader(l), &l.o.Lessons[0].Runs[0], RoleAPI, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	var arrived []string
	for _, e := range o.Events {
		if e.Kind == eventArrived {
			cookies, _ := e.Header.Get("Cookie")
			arrived = append(arrived, strings.TrimSpace(e.Method+" "+cookies))
		}
	}
	if want := []string{"OPTIONS", "PUT", "PUT seen=1"}; !slices.Equal(arrived, want) || !o.Readable {
		t.Errorf("arrived %q, readable %v; want %q, readable", arrived, o.Readable, want)
	}
}

// TestRunsThatSayMoreOnASocket: what a message on a WebSocket did belongs to its run, each time.
func TestRunsThatSayMoreOnASocket(t *testing.T) {
	l := openWith(t, map[string]string{
		"x/text.md": "text",
		"x/lesson.yaml": "title: X\norder: 1\npart: P\nsummary: S\nruns: [{id: pays, title: T, from: bank, cookies: ['session={session}; Path=/'], expect: {left: true, arrived: true, ran: true, readable: true, alice: -50}, " +
			"requests: [{api: websocket, url: '{target:ws}/ws', body: {kind: text, text: '{\"amount\": 50}'}}]}]",
	})
	for range 30 {
		o, err := l.play(t.Context(), reader(l), &l.o.Lessons[0].Runs[0], RoleAPI, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		said := slices.ContainsFunc(o.Events, func(e Event) bool { return e.Kind == eventRan && strings.HasPrefix(e.Did, "moved 50") })
		if o.Alice != -50 || !said || !o.Readable {
			t.Fatalf("alice %d, in the ledger %v, readable %v; want -50, and both", o.Alice, said, o.Readable)
		}
	}
}
