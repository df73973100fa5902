package e2e

import (
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

const (
	// modelKey is what must not be seen anywhere but between the gate and the model.
	modelKey = "sk-demo-8f14e45fceea167a5a36dedd4bea2543"
	chatPath = "/v1/chat/completions"
	chrome   = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/156.0.0.0 Safari/537.36"
)

// bill is what the model did since its last reset: the one judge of what got through.
type bill struct {
	Completions  int            `json:"completions"`
	Tokens       int            `json:"tokens"`
	Unauthorized int            `json:"unauthorized"`
	Prompts      map[string]int `json:"prompts"`
	// Headers are the names of those of the last completion.
	Headers []string `json:"headers"`
}

func (e *express) bill() bill {
	e.t.Helper()
	var b bill
	getJSON(e.t, e.control+"/__counts", &b)
	return b
}

func startModel(t *testing.T) *express {
	t.Helper()
	return startNode(t, []string{"express/model.js"}, "MODEL_KEY="+modelKey)
}

// publicFile is a gate in front of the model for one page's visitors. It has no rate limit on
// calls, so that whatever is refused is refused for its ticket.
const publicFile = `version: 1
listen: {listen}
admin: {admin}
public_origins: ["{origin}"]
upstreams:
  model:
    url: "http://{model}"
    headers:
      Authorization: "Bearer ${file:{secrets}/model}"
tickets:
  secrets: "${file:{secrets}/tickets}"
  {tickets}
policies:
  demo: {origins: ["{page}"], tickets: require}
routes:
  - {match: POST /v1/chat/completions, upstream: model, auth: public, policy: demo}
  - {match: GET /v1/models, upstream: model, auth: public, policy: demo}
`

// publicYAML fills in a gate's file. The secrets are in files, as those of a container are.
func publicYAML(t *testing.T, model *express, page, tickets string) string {
	t.Helper()
	secrets := t.TempDir()
	for name, text := range map[string]string{"model": modelKey, "tickets": "0123456789abcdef0123456789abcdef"} {
		if err := os.WriteFile(filepath.Join(secrets, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return strings.NewReplacer("{model}", model.addr, "{page}", page, "{secrets}", secrets, "{tickets}", tickets).Replace(publicFile)
}

// presetYAML is what `moat run --preset public-ai` stands for, behind a proxy that tells addresses.
func presetYAML(t *testing.T, model *express, page string) string {
	t.Helper()
	preset, err := os.ReadFile("../config/starters/public-ai.yaml")
	if err != nil {
		t.Fatal(err)
	}
	key := filepath.Join(t.TempDir(), "key")
	if err = os.WriteFile(key, []byte(modelKey), 0o600); err != nil {
		t.Fatal(err)
	}
	text, _, _ := strings.Cut(string(preset), "\ntests:\n") // they are about the file's own origins
	for _, x := range [][2]string{
		{"listen: 127.0.0.1:8080", "listen: {listen}\nadmin: {admin}"},
		{"https://api.demo.example", `"{origin}"`},
		{"https://api.openai.example", "http://" + model.addr},
		{"https://demo.example", page},
		{"${env:OPENAI_API_KEY}", "${file:" + key + "}"},
		{"spent.db", filepath.Join(t.TempDir(), "spent.db")},
		// What is refused is to be refused for the limits.
		{"tokens: 100000,", "tokens: 1000000000,"},
		{"tokens: 1000000}", "tokens: 1000000000}"},
		{"spend: 5}", "spend: 100000}"},
		{"spend: 50}", "spend: 100000}"},
	} {
		if strings.Count(text, x[0]) != 1 {
			t.Fatalf("the preset has %q %d times; want once:\n%s", x[0], strings.Count(text, x[0]), text)
		}
		text = strings.Replace(text, x[0], x[1], 1)
	}
	return text
}

// page is the site's own page.
type page struct {
	origin string
	html   atomic.Pointer[string]
}

func startPage(t *testing.T) *page {
	t.Helper()
	p := new(page)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		io.WriteString(w, `<!doctype html><meta charset="utf-8"><title>A demo</title><link rel="icon" href="data:,">`+*p.html.Load())
	}))
	t.Cleanup(server.Close)
	p.origin = strings.Replace(server.URL, "127.0.0.1", "localhost", 1)
	return p
}

// show has the page be that of a recipe, before that gate.
func (p *page) show(recipe, gate string) {
	html := strings.ReplaceAll(recipe, "http://localhost:8080", gate)
	p.html.Store(&html)
}

// siege is all attackers before one gate, and what became of them.
type siege struct {
	t     *testing.T
	page  string // the origin of the site's own page
	model *express
	gate  *moat
	rows  []row
}

// row is a line of the table in docs/recipes/public-ai.md.
type row struct {
	attacker string
	got      string
	refused  []string
	cost     string
}

// attempt is one attacker at work.
type attempt struct {
	*testing.T

	siege  *siege
	before bill

	mu    sync.Mutex
	tries int
	codes map[string]int
	// got and cost are what the table says. Where got is empty it is the numbers.
	got, cost string
}

// said notes what the attacker was answered: the code of a refusal, or "" if it was served.
func (a *attempt) said(code string) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.tries++
	if code != "" {
		a.codes[code]++
	}
	return code
}

// attack lets an attacker try. What got through is what the model says, whatever the attacker was told.
func (s *siege) attack(name string, through int, cost string, try func(*attempt)) {
	s.t.Helper()
	s.measure(name, cost, func(a *attempt) {
		try(a)
		if got := a.through(); got != through {
			a.Errorf("the model ran %d completions; want %d (of %d calls; refused: %v)", got, through, a.tries, a.codes)
		}
		if refused := a.tries - through; refused > 0 && len(a.codes) == 0 || refused == 0 && len(a.codes) > 0 {
			a.Errorf("%d calls were refused, with %v", refused, a.codes)
		}
	})
}

// measure is attack where what gets through is a matter of time: try says what it may be.
func (s *siege) measure(name, cost string, try func(*attempt)) {
	s.t.Helper()
	s.t.Run(name, func(t *testing.T) {
		a := &attempt{T: t, siege: s, before: s.model.bill(), codes: make(map[string]int), cost: cost}
		try(a)
		if after := s.model.bill(); after.Unauthorized != 0 {
			t.Error("the model got a request without its key")
		}
		if a.got == "" {
			a.got = fmt.Sprintf("%s of %s", thousands(a.through()), thousands(a.tries))
		}
		s.rows = append(s.rows, row{attacker: name, got: a.got, refused: slices.Sorted(maps.Keys(a.codes)), cost: a.cost})
	})
}

// through is how many completions the model ran for the attacker.
func (a *attempt) through() int { return a.siege.model.bill().Completions - a.before.Completions }

// thousands writes a number as people read it.
func thousands(n int) string {
	text := strconv.Itoa(n)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}

// table is the rows as docs/recipes/public-ai.md has them.
func (s *siege) table() string {
	var b strings.Builder
	fmt.Fprintln(&b, "| attacker | got through | refused with | what it cost |")
	fmt.Fprintln(&b, "|-|-|-|-|")
	for _, r := range s.rows {
		fmt.Fprintf(&b, "%s %s |\n", r, r.cost)
	}
	return b.String()
}

// told holds the table against the recipe's, but for what it cost.
func (s *siege) told(recipe string) {
	s.t.Helper()
	_, told, ok := strings.Cut(recipe, "\n|-|-|-|-|\n")
	if !ok {
		s.t.Fatal("the recipe has no table of attackers")
	}
	lines := strings.Split(strings.TrimSpace(told), "\n")
	for i, r := range s.rows {
		if i >= len(lines) || !strings.HasPrefix(lines[i], r.String()+" ") {
			s.t.Errorf("line %d of the recipe's table is not\n%s", i+1, r)
		}
	}
	if len(lines) != len(s.rows) {
		s.t.Errorf("the recipe has %d lines; want %d", len(lines), len(s.rows))
	}
}

// String is the line without what it cost, which is no property of the gate.
func (r row) String() string {
	refused := "—"
	if len(r.refused) > 0 {
		refused = "`" + strings.Join(r.refused, "`, `") + "`"
	}
	return fmt.Sprintf("| %s | %s | %s |", r.attacker, r.got, refused)
}
