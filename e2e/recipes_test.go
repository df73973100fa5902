package e2e

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/moat-gateway/moat/store/valkey/valkeytest"
)

const recipes = "../docs/recipes"

// recipe is a page of docs/recipes: its text, and the fenced blocks in it.
type recipe struct {
	t      *testing.T
	text   string
	blocks []codeBlock
	next   int
}

// codeBlock is a fenced block: the language after the fence, and what is in it.
type codeBlock struct{ language, text string }

func readRecipe(t *testing.T, name string) *recipe {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(recipes, name))
	if err != nil {
		t.Fatal(err)
	}
	r := &recipe{t: t, text: string(data)}
	inside := false
	for line := range strings.Lines(r.text) {
		fence, isFence := strings.CutPrefix(line, "```")
		switch {
		case isFence && !inside:
			r.blocks = append(r.blocks, codeBlock{language: strings.TrimSpace(fence)})
		case inside && !isFence:
			r.blocks[len(r.blocks)-1].text += line
		}
		inside = inside != isFence
	}
	if inside {
		t.Fatalf("%s: the last block does not end", name)
	}
	return r
}

// take is the next block, which has to be of that language.
func (r *recipe) take(language string) string {
	r.t.Helper()
	if r.next == len(r.blocks) || r.blocks[r.next].language != language {
		r.t.Fatalf("block %d of %d is none of %s: %+v", r.next+1, len(r.blocks), language, r.blocks[min(r.next, len(r.blocks)-1)])
	}
	r.next++
	return r.blocks[r.next-1].text
}

// only is the one block of a language.
func (r *recipe) only(language string) string {
	r.t.Helper()
	i := slices.IndexFunc(r.blocks, func(b codeBlock) bool { return b.language == language })
	if i < 0 || slices.ContainsFunc(r.blocks[i+1:], func(b codeBlock) bool { return b.language == language }) {
		r.t.Fatalf("no block of %s, or several", language)
	}
	return r.blocks[i].text
}

// cook is somebody who follows a recipe at another place: what it calls by one address has another one here.
type cook struct {
	t     *testing.T
	dir   string // where the shell is
	env   []string
	place *strings.Replacer
}

// shell has a shell run a block.
func (c *cook) shell(block string) *exec.Cmd {
	cmd := exec.Command("/bin/sh", "-eu", "-c", c.place.Replace(block))
	cmd.Dir = c.dir
	cmd.Env = append(cmd.Environ(), c.env...)
	return cmd
}

// run runs a block, and returns what it prints.
func (c *cook) run(block string) string {
	c.t.Helper()
	cmd := c.shell(block)
	out, err := cmd.Output()
	if err != nil {
		stderr := ""
		if exit, ok := err.(*exec.ExitError); ok { //nolint:errorlint // as it comes from Output.
			stderr = string(exit.Stderr)
		}
		c.t.Fatalf("%s: %v\n%s%s", block, err, out, stderr)
	}
	return string(out)
}

// prints holds what was printed against what a recipe shows. Three dots there stand for anything, any id and time for
// any other, and any number of blanks for another one.
func (c *cook) prints(got, shown string) {
	c.t.Helper()
	plain := func(s string) string {
		for _, x := range [][2]string{
			{`\r`, ""},
			{`\b[0-9a-z]{16}\b`, "ID"},
			{`\b\d\d:\d\d:\d\d\b`, "TIME"},
			{`\b\d\d\d\d-\d\d-\d\d \d\d:\d\dZ`, "DATE"},
			{`\b\dm\d\ds\b`, "WAIT"},
			{`\b[0-9A-Za-z]{8}( +active\b| of acme\b)`, "KEY$1"},
			{`[ \t]+`, " "},
			{`(?m) $`, ""},
		} {
			s = regexp.MustCompile(x[0]).ReplaceAllString(s, x[1])
		}
		return strings.TrimSpace(s)
	}
	parts := strings.Split(plain(c.place.Replace(shown)), "…")
	for i := range parts {
		parts[i] = regexp.QuoteMeta(parts[i])
	}
	if !regexp.MustCompile(`(?s)\A` + strings.Join(parts, ".*?") + `\z`).MatchString(plain(got)) {
		c.t.Errorf("printed\n%s\nthe recipe shows\n%s", got, shown)
	}
}

// Every recipe has a test, and every test a recipe.
func TestEveryRecipeIsExecuted(t *testing.T) {
	files, err := filepath.Glob(recipes + "/*.md")
	if err != nil {
		t.Fatal(err)
	}
	for i := range files {
		files[i] = filepath.Base(files[i])
	}
	if executed := []string{"authenticated.md", "public-ai.md"}; !slices.Equal(files, executed) {
		t.Errorf("there are the recipes %v, and tests for %v", files, executed)
	}
}

// TestRecipePublicAI does what docs/recipes/public-ai.md says, block by block, as a newcomer would.
func TestRecipePublicAI(t *testing.T) {
	thorough(t)
	r := readRecipe(t, "public-ai.md")
	page, model := startPage(t), startModel(t)
	c := &cook{t: t, dir: t.TempDir(), env: []string{"OPENAI_API_KEY=" + modelKey}}

	gate := c.start(r.take("sh"), page.origin, model)
	html := r.take("html")
	page.show(html, gate.origin)
	tab := newTab(t)
	tab.open(page.origin)
	streams(t, tab, model)

	c.prints(c.run(r.take("sh")), r.take("text")) // curl
	c.prints(c.run(r.take("sh")), r.take("text")) // moat why
	c.prints(c.run(r.take("sh")), r.take("text")) // moat limits
	c.prints(c.run(r.take("sh")), r.take("text")) // moat budget
	c.prints(c.run(r.take("sh")), r.take("text")) // the metrics
	if n := model.bill().Completions; n != 1 {
		t.Errorf("the model ran %d completions; want that of the page", n)
	}

	c.run(r.take("sh")) // moat init, moat check
	caddyfile, nginx, yaml := r.take("caddyfile"), r.take("nginx"), r.take("yaml")
	c.produce(page, html, model, caddyfile, nginx, yaml)

	if again, want := r.take("sh"), "go test -v -run TestPublicAI ./e2e\n"; again != want {
		t.Errorf("the attacks are run by %q; want %q", again, want)
	}
	if r.next != len(r.blocks) {
		t.Errorf("nothing executes the blocks after %d of %d", r.next, len(r.blocks))
	}
}

// OpenAI's own client for JavaScript, version 7.57.0, sends these in a browser. It wants a key, and sends what it gets.
const openAIHeaders = `{
	"Accept": "application/json", "Authorization": "Bearer none", "Content-Type": "application/json",
	"X-Stainless-Arch": "unknown", "X-Stainless-Lang": "js", "X-Stainless-OS": "Unknown", "X-Stainless-Package-Version": "7.57.0",
	"X-Stainless-Retry-Count": "0", "X-Stainless-Runtime": "browser:chrome", "X-Stainless-Runtime-Version": "156.0.0",
}`

// The preset lets the headers of that client pass, and takes its key away.
func TestRecipePublicAIWithOpenAIsClient(t *testing.T) {
	thorough(t)
	r := readRecipe(t, "public-ai.md")
	page, model := startPage(t), startModel(t)
	c := &cook{t: t, dir: t.TempDir()}
	gate := c.start(r.take("sh"), page.origin, model)
	page.show(r.take("html"), gate.origin)
	tab := newTab(t)
	tab.open(page.origin)
	if got := tab.eval(fmt.Sprintf(`moat.fetch(%q, { method: "POST", headers: %s, body: %q }).then((r) => r.text())`, gate.origin+chatPath, openAIHeaders, chat("sdk"))); !strings.HasSuffix(got, "data: [DONE]\n\n") {
		t.Errorf("the page got %q", got)
	}
	if b := model.bill(); b.Completions != 1 || b.Unauthorized != 0 || !slices.Contains(b.Headers, "x-stainless-lang") {
		t.Errorf("the model's bill: %+v", b)
	}
}

// start runs the one command, with ports of its own.
func (c *cook) start(block, page string, model *express) *moat {
	c.t.Helper()
	bin := c.t.TempDir()
	c.env = append(c.env, "PATH="+bin+":"+os.Getenv("PATH"))
	for range 5 {
		m := &moat{addr: freeAddress(c.t), admin: freeAddress(c.t)}
		_, port, _ := net.SplitHostPort(m.addr)
		m.origin = "http://localhost:" + port
		c.place = strings.NewReplacer("https://api.openai.example", "http://"+model.addr, "https://demo.example", page,
			"localhost:8080", "localhost:"+port, "127.0.0.1:8080", m.addr, "127.0.0.1:9090", m.admin, "sk-your-key", modelKey)
		script := fmt.Sprintf(`#!/bin/sh
case $1 in
run) echo $$ >%[2]s/pid; exec %[1]s "$@" --listen %[3]s --admin %[4]s --log-format json ;;
why | limits | budget) exec %[1]s "$@" --admin %[4]s ;;
esac
exec %[1]s "$@"
`, moatCommand(c.t), bin, m.addr, m.admin)
		if err := os.WriteFile(filepath.Join(bin, "moat"), []byte(script), 0o700); err != nil {
			c.t.Fatal(err)
		}
		if c.serve(m, block, bin) {
			return m
		}
	}
	c.t.Fatal("moat finds every port taken")
	return nil
}

// serve runs a block that ends with moat run, whose process id goes into bin. It is false if a port was taken.
func (c *cook) serve(m *moat, block, bin string) bool {
	c.t.Helper()
	// The shell waits for moat, so it is moat that is told to stop.
	m.process = startProcess(c.t, c.shell(block), func(p *process) {
		pid, err := os.ReadFile(filepath.Join(bin, "pid"))
		n, convErr := strconv.Atoi(strings.TrimSpace(string(pid)))
		if err == nil && convErr == nil && !p.ended() {
			syscall.Kill(n, syscall.SIGTERM)
		}
	}, func(*process) {})
	serving := false
	eventually(c.t, "moat serves", func() (string, bool) {
		serving = strings.Contains(m.stderr.String(), `"msg":"serving"`)
		return m.stderr.String(), serving || m.ended()
	})
	if !serving && !strings.Contains(m.stderr.String(), "address already in use") {
		c.t.Fatalf("%s: %v\n%s", block, m.err, &m.stderr)
	}
	return serving
}

// streams has the recipe's page talk to the model, and looks whether it hears each token as it is made.
func streams(t *testing.T, tab *tab, model *express) {
	t.Helper()
	before := model.bill().Tokens
	tab.eval(`window.heard = ""; window.over = chat("hold", (part) => { heard += part }); ""`)
	eventually(t, "the first token arrives while the second one is not made yet", func() (string, bool) {
		heard := tab.eval("heard")
		return heard, strings.Contains(heard, "word0")
	})
	if n, heard := model.bill().Tokens-before, tab.eval("heard"); n != 1 || strings.Contains(heard, "word1") {
		t.Errorf("the model has made %d tokens, and the page has %q; want one", n, heard)
	}
	model.release()
	tab.eval(`over.then(() => "")`)
	if heard := tab.eval("heard"); !strings.Contains(heard, "word5") || !strings.HasSuffix(heard, "data: [DONE]\n\n") {
		t.Errorf("at last the page has %q", heard)
	}
}

// produce follows the section on production, from the file that moat init wrote: two gates that share a
// Valkey, behind a Caddy and an nginx.
func (c *cook) produce(page *page, html string, model *express, caddyfile, nginx, yaml string) {
	c.t.Helper()
	const password = "correct horse"
	server := valkeytest.Start(c.t, "--requirepass", password)
	for name, value := range map[string]string{"OPENAI_API_KEY": modelKey, "MOAT_TICKET_SECRET": strings.Repeat("0123456789abcdef", 2), "VALKEY_PASSWORD": password} {
		c.t.Setenv(name, value)
	}
	written, err := os.ReadFile(filepath.Join(c.dir, "moat.yaml"))
	if err != nil {
		c.t.Fatal(err)
	}
	// The gates have to know where they will be reached, and those in front where the gates are.
	const front = "http://localhost:1"
	text, _, _ := strings.Cut(merged(string(written), yaml), "\ntests:\n") // they are about the file's own origins
	text = strings.NewReplacer("listen: 127.0.0.1:8080", "listen: {listen}\nadmin: {admin}", "https://api.demo.example", front,
		"https://api.openai.example", "http://"+model.addr, "https://demo.example", page.origin, "10.0.0.5:6379", server.Addr).Replace(text)
	one, other := startMoat(c.t, text), startMoat(c.t, text)
	viaCaddy, viaNginx := c.caddy(caddyfile, one.addr, other.addr), c.nginx(nginx, one.addr)
	for _, m := range []*moat{one, other} {
		m.write(c.t, strings.Replace(m.read(c.t), front, `"`+viaCaddy+`", "`+viaNginx+`"`, 1))
		m.signal(syscall.SIGHUP)
		eventually(c.t, "moat reads its file anew", func() (string, bool) { return m.stderr.String(), len(m.log("configuration reloaded")) > 0 })
	}

	page.show(html, viaCaddy)
	tab := newTab(c.t)
	tab.open(page.origin)
	streams(c.t, tab, model)
	// Caddy sends every other call to the other gate, and no ticket is got anew.
	for range 7 {
		if code := tab.eval(`chat("hello", () => {}).then(() => "", String)`); code != "" {
			c.t.Errorf("the page is refused: %s", code)
		}
	}
	for _, m := range []*moat{one, other} {
		if served := m.metric(`moat_decisions_total{mode="enforce",reason="ok",route="chat",step="route"}`); served != "4" {
			c.t.Errorf("one of two gates served %q of 8 calls", served)
		}
	}
	asked := 0
	for _, r := range tab.to(viaCaddy) {
		if strings.HasSuffix(r.url, "/.moat/tickets") {
			asked++
		}
	}
	if asked != 1 {
		c.t.Errorf("the page got tickets %d times; want once", asked)
	}

	page.show(html, viaNginx)
	tab.open(page.origin)
	streams(c.t, tab, model)
}

// caddy runs a Caddyfile of the recipe before two gates, and returns its origin.
func (c *cook) caddy(caddyfile, one, other string) string {
	c.t.Helper()
	var origin string
	startFront(c.t, func(addr string) *exec.Cmd {
		_, port, _ := net.SplitHostPort(addr)
		origin = "http://localhost:" + port
		dir := c.t.TempDir()
		file := filepath.Join(dir, "Caddyfile")
		text := "{\n\tadmin off\n}\n" + strings.NewReplacer("api.demo.example", origin, "127.0.0.1:8080", one+" "+other+" {\n\t\tlb_policy round_robin\n\t}").Replace(caddyfile)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			c.t.Fatal(err)
		}
		cmd := exec.Command(program(c.t, "caddy"), "run", "--config", file, "--adapter", "caddyfile")
		cmd.Env = append(cmd.Environ(), "XDG_DATA_HOME="+dir, "XDG_CONFIG_HOME="+dir)
		return cmd
	})
	return origin
}

// nginx runs a server block of the recipe before a gate, and returns its origin.
func (c *cook) nginx(block, gate string) string {
	c.t.Helper()
	var origin string
	startFront(c.t, func(addr string) *exec.Cmd {
		_, port, _ := net.SplitHostPort(addr)
		origin = "http://localhost:" + port
		dir := c.t.TempDir()
		file := filepath.Join(dir, "nginx.conf")
		text := strings.NewReplacer("{dir}", dir, "{code}", strings.NewReplacer("server {", "server {\n    listen "+addr+";", "api.demo.example", "localhost", "127.0.0.1:8080", gate).Replace(block)).Replace(nginxAround)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			c.t.Fatal(err)
		}
		return exec.Command(program(c.t, "nginx"), "-p", dir, "-c", file, "-e", "stderr")
	})
	return origin
}

// merged puts the settings of a block into a file that has them not, each under its top-level name.
func merged(file, block string) string {
	var name string
	sections := make(map[string]string)
	for line := range strings.Lines(block) {
		if !strings.HasPrefix(line, " ") {
			name = line
			continue
		}
		sections[name] += line
	}
	for name, lines := range sections {
		if strings.Count(file, "\n"+name) == 1 {
			file = strings.Replace(file, "\n"+name, "\n"+name+lines, 1)
		} else {
			file = strings.Replace(file, "\nroutes:\n", "\n"+name+lines+"\nroutes:\n", 1)
		}
	}
	return file
}
