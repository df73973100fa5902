package lab

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/moat-gateway/moat/config"
)

// levelsOf are the worst levels by the beginning of the questions' titles.
func levelsOf(a *auditAnswer, title string) string {
	for _, q := range a.Questions { // the worst first
		if strings.HasPrefix(q.Title, title) {
			return q.Level
		}
	}
	return "not asked"
}

func TestAuditOfSnippets(t *testing.T) {
	const (
		reads     = "A stranger's page reads with the user's cookies"
		null      = "A sandboxed frame"
		lookalike = "A page whose name resembles yours"
		ownReads  = "Your page reads"
	)
	for _, c := range []struct {
		name, text, kind string
		want             map[string]string
		warns            string
	}{
		{
			"everybody's origin with credentials", "app.use(cors({origin: true, credentials: true}))", "express",
			map[string]string{reads: levelDanger, null: levelDanger, lookalike: levelDanger, ownReads: levelFine},
			"",
		},
		{
			"a star", "add_header Access-Control-Allow-Origin * always;", "nginx",
			map[string]string{reads: levelFine, "A stranger's page reads without": levelWarning, ownReads: levelFine, "Your page sends JSON": levelWarning},
			"",
		},
		{
			"a star with credentials", "Access-Control-Allow-Origin: *\nAccess-Control-Allow-Credentials: true", "headers",
			map[string]string{reads: levelFine, ownReads: levelWarning},
			"Browsers refuse *",
		},
		{
			"a pattern that does not end", `add_header Access-Control-Allow-Credentials true;
			if ($http_origin ~ "^https://app\.example\.com") { add_header Access-Control-Allow-Origin $http_origin; add_header Access-Control-Allow-Credentials true; }`, "nginx",
			map[string]string{reads: levelFine, null: levelFine, lookalike: levelDanger},
			"Add Vary: Origin",
		},
		{
			"null", "Header set Access-Control-Allow-Origin \"null\"\nHeader set Access-Control-Allow-Credentials true", "apache",
			map[string]string{null: levelDanger, reads: levelFine},
			"",
		},
		{
			"as it should be", `app.use(cors({origin: ["https://shop.example"], credentials: true, allowedHeaders: ["content-type"]}))`, "express",
			map[string]string{reads: levelFine, null: levelFine, lookalike: levelFine, ownReads: levelFine, "Your page sends JSON": levelFine, "A stranger's form": levelOpen, "curl": levelOpen},
			"",
		},
		{
			"two values", "Access-Control-Allow-Origin: https://shop.example\nAccess-Control-Allow-Origin: https://shop.example", "headers",
			map[string]string{ownReads: levelWarning},
			"more than once",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, err := audit(c.text, time.Now())
			if err != nil {
				t.Fatal(err)
			}
			if a.Kind != c.kind {
				t.Errorf("it is taken for %q; want %q", a.Kind, c.kind)
			}
			for title, level := range c.want {
				if got := levelsOf(a, title); got != level {
					t.Errorf("%s: %s; want %s", title, got, level)
				}
			}
			warned := ""
			for _, f := range a.Warnings {
				warned += f.Reason
			}
			if !strings.Contains(warned, c.warns) || c.warns == "" && warned != "" {
				t.Errorf("it warns %q; want %q", warned, c.warns)
			}
			if a.Mend == nil || !strings.Contains(a.Mend.Code, a.Page) {
				t.Errorf("the mend %+v does not name the page %s", a.Mend, a.Page)
			}
		})
	}
}

// TestAuditOfPatterns: what the classic slips of a pattern let in is asked, and what a careful
// one lists is not.
func TestAuditOfPatterns(t *testing.T) {
	nginx := func(pattern string) string {
		return `map $http_origin $allowed { "~` + pattern + `" $http_origin; }
			add_header Access-Control-Allow-Origin $allowed always; add_header Access-Control-Allow-Credentials true always; add_header Vary Origin always;`
	}
	ifs := func(pattern string) string {
		return `if ($http_origin ~ "` + pattern + `") { add_header Access-Control-Allow-Origin $http_origin; add_header Access-Control-Allow-Credentials true; add_header Vary Origin; }`
	}
	express := func(origin string) string { return "app.use(cors({origin: " + origin + ", credentials: true}))" }
	for _, c := range []struct {
		name, text string
		danger     []string
	}{
		{"dots that are any letter", ifs("^https://app.example.com$"), []string{"https://appxexample.com", "https://app.examplexcom"}},
		{"the same in a map", nginx("^https://app.example.com$"), []string{"https://appxexample.com", "https://app.examplexcom"}},
		{"no beginning", express(`["https://example.com", /example\.com$/]`), []string{"https://evilexample.com"}},
		{"anything before the name", ifs(`^https://.*example\.com$`), []string{"https://evilexample.com", "https://appxexample.com"}},
		{"as it should be", ifs(`^https://app\.example\.com$`), nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, err := audit(c.text, time.Now())
			if err != nil {
				t.Fatal(err)
			}
			var danger []string
			for _, q := range a.Questions {
				if q.Level == levelDanger && strings.HasPrefix(q.Title, "A page whose name resembles yours") {
					danger = append(danger, q.From)
				}
			}
			if !slices.Equal(danger, c.danger) {
				t.Errorf("with the page %s dangerous are %q; want %q", a.Page, danger, c.danger)
			}
		})
	}
}

// TestAuditOfListedSubdomains: a pattern of moat's has whole labels, so who is below it was
// meant; but below a public suffix is anybody.
func TestAuditOfListedSubdomains(t *testing.T) {
	for origins, want := range map[string]string{
		"[https://app.example.com, https://*.example.com]":                                    levelFine,
		"[https://app.github.io, https://*.github.io], dangerously_allow_public_suffix: true": levelOpen,
	} {
		text := strings.Replace(loose, "[https://app.example.com]", origins, 1)
		a, err := audit(strings.Replace(text, "cors: report, cross_site: off", "cors: enforce, cross_site: enforce", 1), time.Now())
		if err != nil || len(a.Faults) > 0 {
			t.Fatal(err, a)
		}
		if got := levelsOf(a, "A page whose name resembles yours"); got != want {
			t.Errorf("%s: %s; want %s", origins, got, want)
		}
	}
}

// TestLookalikesAreBounded: a name of many dots makes no more questions than one of a few.
func TestLookalikesAreBounded(t *testing.T) {
	if all := lookalike("https://" + strings.Repeat("a.", 100) + "example"); len(all) != 2+maxDots {
		t.Errorf("%d lookalikes: %q", len(all), all)
	}
}

// TestAuditOfStarters: the configurations that moat itself gives to begin with have nothing
// dangerous in them, and their own pages work.
func TestAuditOfStarters(t *testing.T) {
	for _, name := range config.Starters() {
		t.Run(name, func(t *testing.T) {
			text, _ := config.Starter(name)
			a, err := audit(string(text), time.Now())
			if err != nil {
				t.Fatal(err)
			}
			if len(a.Faults) > 0 || len(a.Questions) == 0 {
				t.Fatalf("faults %+v, %d questions", a.Faults, len(a.Questions))
			}
			for _, q := range a.Questions {
				if q.Level == levelDanger || q.Level == levelWarning {
					t.Errorf("%s: %s from %s, %s: %s %s", q.Level, q.Title, q.From, q.Request, q.Reason, q.Why)
				}
			}
		})
	}
}

const loose = `version: 1
listen: 127.0.0.1:8080
public_origins: [https://api.example.com]
upstreams: {api: {url: "http://127.0.0.1:1"}}
policies:
  p: {origins: [https://app.example.com], browserless: allow, modes: {cors: report, cross_site: off}}
routes:
  - {match: /, name: all, upstream: api, auth: public, policy: p}
`

func TestAuditOfALooseMoat(t *testing.T) {
	a, err := audit(loose, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if len(a.Faults) > 0 {
		t.Fatal(a.Faults)
	}
	for title, level := range map[string]string{"A stranger's form": levelDanger, "curl": levelOpen, "Your page reads": levelFine, "Your page sends JSON": levelFine} {
		if got := levelsOf(a, title); got != level {
			t.Errorf("%s: %s; want %s", title, got, level)
		}
	}
	if q := a.Questions[0]; !strings.Contains(q.Change, "modes.cross_site") {
		t.Errorf("the change for %q is %q", q.Title, q.Change)
	}
}

// TestAuditReachesNobody: upstreams, issuers and files of a stranger's text are named, not
// asked.
func TestAuditReachesNobody(t *testing.T) {
	called := false
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { called = true }))
	defer s.Close()
	t.Setenv("LAB_AUDIT_SECRET", "the secret of the lab's own environment")
	text := strings.Replace(loose, "http://127.0.0.1:1", s.URL, 1) + "csrf: {secrets: [\"${env:LAB_AUDIT_SECRET}\"]}\n"
	a, err := audit(text, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	said, err := json.Marshal(a)
	if err != nil {
		t.Fatal(err)
	}
	if called || strings.Contains(string(said), "own environment") || len(a.Questions) == 0 {
		t.Errorf("called %v, %d questions, said %s", called, len(a.Questions), said)
	}
}

// TestAuditIsBounded: a large text with large tables takes little memory and time.
func TestAuditIsBounded(t *testing.T) {
	large := strings.Replace(loose, "browserless: allow", "rate_limits: [r0]", 1) + "store: {memory: 16GiB}\nrate_limits:\n"
	for i := range 3000 {
		large += fmt.Sprintf("  r%d: {limit: 60/m}\n", i)
	}
	routes := loose
	for i := range 2000 {
		routes += fmt.Sprintf("  - {match: /r%d/, upstream: api, auth: public, policy: p}\n", i)
	}
	for name, text := range map[string]string{
		"tables": large, "routes": routes,
		"aliases": "routes: &a [x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c]\npolicies: [*d,*d,*d,*d,*d,*d,*d,*d]\n",
		"headers": strings.Repeat("A: b\n", 400), "quotes": strings.Repeat("cors(", 10000), "braces": strings.Repeat("{", 60000),
	} {
		t.Run(name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			start := time.Now()
			a, err := audit(text, time.Now())
			took := time.Since(start)
			runtime.ReadMemStats(&after)
			faults := 0
			if a != nil {
				faults = len(a.Faults)
			}
			t.Logf("%d bytes: %d MiB allocated in %v; error %v, %d faults", len(text), (after.TotalAlloc-before.TotalAlloc)>>20, took, err, faults)
			if n := after.TotalAlloc - before.TotalAlloc; n > 256<<20 {
				t.Errorf("it took %d MiB", n>>20)
			}
			if a != nil && len(a.Faults)+len(a.Questions) == 0 {
				t.Error("nothing was said")
			}
		})
	}
}

// TestToolsOfThePage: what the tools ask of the lab.
func TestToolsOfThePage(t *testing.T) {
	l := New(Options{Names: Localhost("http", "7700")})
	const bank = "bank.localhost:7700"
	for _, c := range []struct {
		name, method, path, body string
		status                   int
		says                     string
	}{
		{"an audit", "POST", "audit", `{"text": "Access-Control-Allow-Origin: *"}`, 200, `"kind":"headers"`},
		{"the lab's own names", "POST", "audit", `{"text": "add_header Access-Control-Allow-Origin {bank};"}`, 200, `"Access-Control-Allow-Origin","http://bank.localhost:7700"`},
		{"a moat.yaml with faults", "POST", "audit", `{"text": "version: 1\nroutes: []\n"}`, 200, `"faults":[{"line":`},
		{"nothing", "POST", "audit", `{"text": " "}`, 400, "nothing to audit"},
		{"prose", "POST", "audit", `{"text": "is this safe?"}`, 400, "line 1"},
		{"too much", "POST", "audit", `{"text": "` + strings.Repeat("x", maxAsked) + `"}`, 400, "error"},
		{"the reasons", "GET", "reasons", "", 200, `"cors-origin-not-allowed":{"title":`},
		{"the named answers", "GET", "answers", "", 200, `"listed":[{"headers":`},
	} {
		w := to(l, c.method, bank, "/.lab/"+c.path, c.body, "Origin", "http://"+bank)
		if w.Code != c.status || !strings.Contains(w.Body.String(), c.says) {
			t.Errorf("%s: %d %.300s; want %d and %s", c.name, w.Code, w.Body, c.status, c.says)
		}
	}
}
