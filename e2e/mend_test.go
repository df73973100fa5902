package e2e

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	model "github.com/moat-gateway/moat/browser"
	"github.com/moat-gateway/moat/config"
	"github.com/moat-gateway/moat/explain"
)

// mendOrigin is that of the pages, where a need has no other.
const mendOrigin = "https://app.example"

// mendNeeds are what pages ask for. Each target's code is made for one of them and tried
// with its requests.
var mendNeeds = []struct {
	name string
	need explain.Need
}{
	{"plain GET", explain.Need{Methods: []string{"GET"}}},
	{"JSON POST", explain.Need{Methods: []string{"POST"}, Headers: []string{"content-type"}, MaxAge: 2 * time.Hour}},
	{"PUT with a token and cookies", explain.Need{
		Methods: []string{"PUT"}, Headers: []string{"authorization", "x-request-id"}, Credentials: true, MaxAge: time.Minute,
	}},
	{"DELETE", explain.Need{Methods: []string{"DELETE"}}},
	// nginx's hash tables do not take so long a key.
	{"a page with a long name", explain.Need{
		Origin: "https://a-rather-long-name-of-a-preview.deployments.app.example:8443", Methods: []string{"PATCH"}, MaxAge: time.Hour,
	}},
	{"GET that reads a header", explain.Need{Methods: []string{"GET"}, Expose: []string{"x-total-count"}, Credentials: true}},
}

// mended is a server as its File and Code say.
type mended struct {
	base string // the URL without a path
	// extra are paths besides those of every backend, and the status that each gives.
	extra map[string]int
	// refuses is set if requests of other pages do not run.
	refuses bool
}

func TestMendsGrantWhatIsNeededAndNothingElse(t *testing.T) {
	thorough(t)
	programs := startMendedGo(t)
	for target, start := range map[explain.Target]func(*testing.T, int, string) mended{
		explain.ForNginx:   startMendedNginx,
		explain.ForCaddy:   startMendedCaddy,
		explain.ForExpress: startMendedExpress,
		explain.ForMoat:    startMendedMoat,
		explain.ForGo: func(_ *testing.T, i int, _ string) mended {
			return mended{base: "http://" + programs["go"+strconv.Itoa(i)], refuses: true}
		},
		explain.ForGoNetHTTP: func(_ *testing.T, i int, _ string) mended {
			return mended{base: "http://" + programs["net"+strconv.Itoa(i)]}
		},
	} {
		for i, c := range mendNeeds {
			t.Run(string(target)+"/"+c.name, func(t *testing.T) {
				start(t, i, newMendBackend(t, cmp.Or(c.need.Origin, mendOrigin))).prove(t, c.need)
			})
		}
	}
}

// mendCode is a target's code for one of mendNeeds.
func mendCode(t *testing.T, target explain.Target, i int, api string) string {
	t.Helper()
	n := mendNeeds[i].need
	n.Origin, n.API = cmp.Or(n.Origin, mendOrigin), api
	all, err := explain.Mends(n)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range all {
		if m.Target == target {
			return m.Code
		}
	}
	t.Fatalf("there is no mend for %s", target)
	return ""
}

// mendPaths are what every backend serves, for every method.
var mendPaths = map[string]int{"/items": 200, "/missing": 404, "/guarded": 401, "/broken": 500}

func (m mended) prove(t *testing.T, need explain.Need) {
	t.Helper()
	need.Origin = cmp.Or(need.Origin, mendOrigin)
	_, host, _ := strings.Cut(need.Origin, "://")
	paths := maps.Clone(mendPaths)
	maps.Copy(paths, m.extra)
	preflighted := need.Preflight || len(need.Headers) > 0 || !slices.Contains([]string{"GET", "HEAD", "POST"}, need.Methods[0])
	for path, status := range paths {
		actual := m.exchange(t, need.Methods[0], path, need.Origin, need)
		if actual.Answer.Status != status {
			t.Errorf("%s %s: %d, not %d", actual.Method, path, actual.Answer.Status, status)
		}
		var preflight *model.Exchange
		if preflighted {
			e := m.exchange(t, "OPTIONS", path, need.Origin, need)
			preflight = &e
		}
		judge(t, need, preflight, actual)
	}
	// The page is granted what it needs, and not whatever it asks for.
	greedy := need
	greedy.Methods, greedy.Headers = []string{"LOCK"}, []string{"x-not-needed"}
	if h := m.exchange(t, "OPTIONS", "/items", need.Origin, greedy).Answer.Header; lists(h, "Access-Control-Allow-Headers", "x-not-needed") ||
		lists(h, "Access-Control-Allow-Headers", "*") || lists(h, "Access-Control-Allow-Methods", "LOCK") || lists(h, "Access-Control-Allow-Methods", "*") {
		t.Errorf("a preflight is granted more than the need: %q", h)
	}
	for _, stranger := range []string{
		"https://stranger.example", need.Origin + ".stranger.example", "https://x" + host, "https://x." + host, need.Origin + "0",
		"http://" + host, strings.ReplaceAll(need.Origin, ".", "x"), need.Origin + ":81", need.Origin + "/", "null",
	} {
		for path := range paths {
			strange := m.exchange(t, need.Methods[0], path, stranger, need)
			deny(t, strange)
			if m.refuses && strange.Answer.Status != 403 {
				t.Errorf("%s of %s: %d; the guard lets it run", path, stranger, strange.Answer.Status)
			}
		}
		if preflighted {
			deny(t, m.exchange(t, "OPTIONS", "/items", stranger, need))
		}
	}
	// An answer to nobody's page must not be taken from a cache for a page's.
	deny(t, m.exchange(t, "GET", "/items", "", need))
}

// judge tells whether a browser lets the page of a need read the answer. The preflight is
// nil where a browser makes none.
func judge(t *testing.T, need explain.Need, preflight *model.Exchange, actual model.Exchange) {
	t.Helper()
	about := func(e *model.Exchange) string {
		return fmt.Sprintf("%s %s: %d %q", e.Method, e.URL, e.Answer.Status, e.Answer.Header)
	}
	for _, e := range []*model.Exchange{preflight, &actual} {
		if e == nil {
			continue
		}
		h := e.Answer.Header
		if got := h.Values("Access-Control-Allow-Origin"); len(got) != 1 || got[0] != need.Origin {
			t.Errorf("Access-Control-Allow-Origin is %q\n%s", got, about(e))
		}
		credentials := h.Values("Access-Control-Allow-Credentials")
		if need.Credentials && !slices.Equal(credentials, []string{"true"}) || !need.Credentials && len(credentials) > 0 {
			t.Errorf("Access-Control-Allow-Credentials is %q\n%s", credentials, about(e))
		}
		if !lists(h, "Vary", "Origin") {
			t.Errorf("Vary lacks Origin\n%s", about(e))
		}
	}
	reads(t, need, preflight, actual)
	for _, name := range need.Expose {
		if !lists(actual.Answer.Header, "Access-Control-Expose-Headers", name) {
			t.Errorf("%s is not exposed\n%s", name, about(&actual))
		}
	}
	if preflight == nil {
		return
	}
	if preflight.Answer.Status != http.StatusNoContent {
		t.Errorf("the preflight is answered with %d\n%s", preflight.Answer.Status, about(preflight))
	}
	for _, name := range need.Headers {
		if !lists(preflight.Answer.Header, "Access-Control-Allow-Headers", name) {
			t.Errorf("%s is not allowed\n%s", name, about(preflight))
		}
	}
	for _, method := range need.Methods {
		if !lists(preflight.Answer.Header, "Access-Control-Allow-Methods", method) {
			t.Errorf("%s is not allowed\n%s", method, about(preflight))
		}
	}
	if got := preflight.Answer.Header.Values("Access-Control-Max-Age"); need.MaxAge > 0 && !slices.Equal(got, []string{strconv.Itoa(int(need.MaxAge.Seconds()))}) {
		t.Errorf("Access-Control-Max-Age is %q\n%s", got, about(preflight))
	}
}

// deny asserts that no page may read the answer.
func deny(t *testing.T, e model.Exchange) {
	t.Helper()
	if e.Answer.Header.Has("Access-Control-Allow-Origin") || !lists(e.Answer.Header, "Vary", "Origin") {
		t.Errorf("%s %s of %q: %d %q", e.Method, e.URL, e.Header.Value("Origin"), e.Answer.Status, e.Answer.Header)
	}
}

func lists(h model.Header, name, item string) bool {
	for one := range strings.SplitSeq(h.Value(name), ",") {
		if strings.EqualFold(strings.TrimSpace(one), item) {
			return true
		}
	}
	return false
}

// exchange sends a request of the need as a browser would. OPTIONS stands for its
// preflight.
func (m mended) exchange(t *testing.T, method, path, origin string, need explain.Need) model.Exchange {
	t.Helper()
	e := model.Exchange{Message: model.Message{Method: method, URL: m.base + path, Preflight: method == "OPTIONS"}}
	add := func(name, value string) { e.Header = append(e.Header, model.Field{Name: name, Value: value}) }
	switch {
	case origin == "":
		add("Sec-Fetch-Site", "none")
	case e.Preflight:
		add("Origin", origin)
		add("Access-Control-Request-Method", need.Methods[0])
		if len(need.Headers) > 0 {
			add("Access-Control-Request-Headers", strings.Join(need.Headers, ","))
		}
	default:
		add("Origin", origin)
		add("Sec-Fetch-Site", "cross-site")
		add("Sec-Fetch-Mode", "cors")
		for _, name := range need.Headers {
			add(name, map[string]string{"content-type": "application/json", "authorization": "Bearer x"}[name])
		}
	}
	r, err := http.NewRequestWithContext(t.Context(), method, e.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range e.Header {
		r.Header.Add(f.Name, f.Value)
	}
	res, err := mendClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	e.Answer.Status = res.StatusCode
	for name, values := range res.Header {
		for _, v := range values {
			e.Answer.Header = append(e.Answer.Header, model.Field{Name: name, Value: v})
		}
	}
	return e
}

// mendClient follows no redirects and keeps no connection, so that a program that is told
// to stop waits for none.
var mendClient = &http.Client{
	Timeout:       patience,
	Transport:     &http.Transport{DisableKeepAlives: true},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

// newMendBackend starts a server that knows neither CORS nor OPTIONS, except that at /own
// it says what a gateway has to replace. It returns its address.
func newMendBackend(t *testing.T, page string) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		status := mendPaths[r.URL.Path]
		switch {
		case r.Method == http.MethodOptions:
			status = http.StatusMethodNotAllowed
		case r.URL.Path == "/own":
			h.Add("Access-Control-Allow-Origin", "*")
			h.Add("Access-Control-Allow-Origin", page)
			h.Set("Access-Control-Allow-Credentials", "true")
			h.Set("Vary", "Accept-Encoding")
			status = http.StatusOK
		case status == 0:
			status = http.StatusNotFound
		}
		h.Set("X-Total-Count", "7")
		w.WriteHeader(status)
	}))
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

// placed puts what the user has into the code, in the place that is meant for it.
func placed(t *testing.T, code string, oldnew ...string) string {
	t.Helper()
	for i := 0; i < len(oldnew); i += 2 {
		if strings.Count(code, oldnew[i]) != 1 {
			t.Fatalf("%q is not in the code just once:\n%s", oldnew[i], code)
		}
		code = strings.Replace(code, oldnew[i], oldnew[i+1], 1)
	}
	return code
}

// startFront starts a program that serves an address of this machine. The address has to
// be known before the program takes it, and somebody else may do so meanwhile.
func startFront(t *testing.T, command func(addr string) *exec.Cmd) string {
	t.Helper()
	var last *process
	for range 5 {
		addr := freeAddress(t)
		serving := false
		last = startProcess(t, command(addr), func(p *process) {
			if !p.ended() {
				p.signal(syscall.SIGTERM)
			}
		}, func(p *process) {
			if serving && p.err != nil {
				t.Errorf("%s, told to stop: %v", p.cmd, p.err)
			}
		})
		eventually(t, "the program serves", func() (string, bool) {
			conn, err := net.Dial("tcp", addr)
			if serving = err == nil && !last.ended(); err == nil {
				conn.Close()
			}
			return last.stderr.String(), serving || last.ended()
		})
		if serving {
			return addr
		}
		if !strings.Contains(last.stderr.String(), "ddress already in use") {
			break
		}
	}
	t.Fatalf("%s: %v\n%s", last.cmd, last.err, &last.stderr)
	return ""
}

func writeMend(t *testing.T, name, content string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func startMendedNginx(t *testing.T, i int, backend string) mended {
	t.Helper()
	code := placed(t, mendCode(t, explain.ForNginx, i, ""), "# … listen, server_name and the locations, as they are …", `
    listen {listen};
    location / { proxy_pass http://{backend}; }
    location = /guarded { auth_basic guarded; auth_basic_user_file /dev/null; proxy_pass http://{backend}; }
    location = /down { proxy_pass http://{nobody}; }`)
	addr := startFront(t, func(addr string) *exec.Cmd {
		dir := t.TempDir()
		text := strings.Replace(nginxAround, "{code}", code, 1)
		file := writeMend(t, "nginx.conf", strings.NewReplacer("{dir}", dir, "{listen}", addr, "{backend}", backend, "{nobody}", freeAddress(t)).Replace(text))
		return exec.Command(program(t, "nginx"), "-p", dir, "-c", file, "-e", "stderr")
	})
	return mended{base: "http://" + addr, extra: map[string]int{"/own": 200, "/down": 502}}
}

func startMendedCaddy(t *testing.T, i int, backend string) mended {
	t.Helper()
	addr := startFront(t, func(addr string) *exec.Cmd {
		dir := t.TempDir()
		code := placed(t, mendCode(t, explain.ForCaddy, i, "http://"+addr),
			"# … basic_auth, forward_auth and the rest, as they are …", `basicauth /guarded {
			somebody `+mendPassword+`
		}
		reverse_proxy /down `+freeAddress(t),
			"127.0.0.1:3000", backend)
		file := writeMend(t, "Caddyfile", "{\n\tadmin off\n}\n"+code)
		cmd := exec.Command(program(t, "caddy"), "run", "--config", file, "--adapter", "caddyfile")
		cmd.Env = append(cmd.Environ(), "XDG_DATA_HOME="+dir, "XDG_CONFIG_HOME="+dir)
		return cmd
	})
	return mended{base: "http://" + addr, extra: map[string]int{"/own": 200, "/down": 502}}
}

// mendPassword is what `caddy hash-password` makes of "opens".
const mendPassword = `$2a$14$NmnRvEARwsotp6A.S/4OXOFLdZRw5Ca/WNlSQgzjZ1lueCdkUie56`

func startMendedExpress(t *testing.T, i int, _ string) mended {
	t.Helper()
	script := `const express = require("express");
const app = express();
` + mendCode(t, explain.ForExpress, i, "") + `
app.use("/guarded", (req, res) => res.status(401).end());
app.all("/items", (req, res) => res.set("X-Total-Count", "7").json({}));
app.all("/broken", () => { throw new Error("broken"); });
const server = app.listen(0, "127.0.0.1", () => console.log(server.address().port));
process.stdin.on("end", () => process.exit(0)).resume();
`
	modules, err := filepath.Abs("express/node_modules")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program(t, "node"), writeMend(t, "app.js", script))
	cmd.Env = append(cmd.Environ(), "NODE_ENV=test", "NODE_PATH="+modules)
	return mended{base: "http://127.0.0.1:" + startMendedProgram(t, cmd)}
}

// startMendedProgram starts a program that prints one line when it is ready, and ends
// with its stdin.
func startMendedProgram(t *testing.T, cmd *exec.Cmd) (line string) {
	t.Helper()
	p := startProcess(t, cmd, func(p *process) { p.stdin.Close() }, func(p *process) {
		if p.err != nil {
			t.Errorf("%s, told to stop: %v", p.cmd, p.err)
		}
	})
	eventually(t, "the program says where it serves", func() (string, bool) {
		if p.ended() {
			t.Fatalf("%s: %v\n%s", p.cmd, p.err, &p.stderr)
		}
		lines := p.stdout.lines()
		if len(lines) > 0 {
			line = lines[0]
		}
		return p.stderr.String(), line != ""
	})
	return line
}

func startMendedMoat(t *testing.T, i int, backend string) mended {
	t.Helper()
	const origin = "http://localhost:1"
	m := startMoat(t, placed(t, mendCode(t, explain.ForMoat, i, origin),
		origin, "{origin}", "listen: 127.0.0.1:8080", "listen: {listen}\nadmin: {admin}", "127.0.0.1:3000", backend))
	return mended{base: m.origin, extra: map[string]int{"/own": 200}, refuses: true}
}

// startMendedGo builds one program of the Go code for all needs, and returns the address
// at which each is served.
func startMendedGo(t *testing.T) map[string]string {
	t.Helper()
	var b strings.Builder
	b.WriteString(`package main

import (
	"encoding/json"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/moat-gateway/moat/guard/cors"
	"github.com/moat-gateway/moat/web"
)

var _ = time.Second

func main() {
	mux := http.NewServeMux()
	for path, status := range map[string]int{"/items": 200, "/guarded": 401, "/broken": 500} {
		mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("X-Total-Count", "7")
			if r.Method == http.MethodOptions {
				http.Error(w, "no", http.StatusMethodNotAllowed)
			} else if status != http.StatusOK {
				http.Error(w, "no", status)
			}
		})
	}
	addresses := map[string]string{}
	for name, handler := range map[string]http.Handler{
`)
	for i := range mendNeeds {
		fmt.Fprintf(&b, "\t\t\"go%d\": guarded%d(mux),\n\t\t\"net%d\": allowPage%d(mux),\n", i, i, i, i)
	}
	b.WriteString(`	} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			log.Fatal(err)
		}
		addresses[name] = l.Addr().String()
		go http.Serve(l, handler)
	}
	json.NewEncoder(os.Stdout).Encode(addresses)
	io.Copy(io.Discard, os.Stdin)
}
`)
	for i := range mendNeeds {
		fmt.Fprintf(&b, "\nfunc guarded%d(mux http.Handler) http.Handler {\n%s\treturn handler\n}\n", i, mendCode(t, explain.ForGo, i, ""))
		fmt.Fprintf(&b, "\n%s", strings.ReplaceAll(mendCode(t, explain.ForGoNetHTTP, i, ""), "allowPage", "allowPage"+strconv.Itoa(i)))
	}
	file := writeMend(t, "main.go", b.String())
	built := filepath.Join(filepath.Dir(file), "mended")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-o", built, file)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s\n%s", cmd, err, out, &b)
	}
	var addresses map[string]string
	if err := json.Unmarshal([]byte(startMendedProgram(t, exec.Command(built))), &addresses); err != nil {
		t.Fatal(err)
	}
	return addresses
}

// Every moat.yaml is valid, and decides as it is meant to, without starting anything.
func TestMendedMoatFilesAreValid(t *testing.T) {
	for _, need := range []explain.Need{
		{Origin: mendOrigin},
		{Origin: mendOrigin, API: "https://api.example", Methods: []string{"PUT"}, Credentials: true},
		{Origin: "http://localhost:5173", API: "http://localhost:8080", Headers: []string{"X-A", "x-b"}, Expose: []string{"x-c"}, MaxAge: time.Second},
		{Origin: "http://app.example", API: "http://api.example:8081", Methods: []string{"PROPFIND", "M-SEARCH", "OPTIONS"}},
		{Origin: "http://[::1]:3000", API: "http://[::1]:8080", Methods: []string{"DELETE"}},
		{Origin: "capacitor://localhost", Headers: []string{"authorization"}},
		{Origin: "chrome-extension://abcdefghijklmnop", MaxAge: 24 * time.Hour, Preflight: true},
	} {
		all, err := explain.Mends(need)
		if err != nil {
			t.Error(err)
			continue
		}
		for _, m := range all {
			if m.Target != explain.ForMoat {
				continue
			}
			if _, err := config.Parse("moat.yaml", []byte(m.Code), config.Options{}); err != nil {
				t.Errorf("%v\n%s", err, m.Code)
			}
		}
	}
}

// reads asks the browser model whether the page comes to read the answer.
func reads(t *testing.T, need explain.Need, preflight *model.Exchange, actual model.Exchange) {
	t.Helper()
	request := model.Request{API: model.Fetch, URL: actual.URL, Method: actual.Method}
	if need.Credentials {
		request.Credentials = "include"
	}
	for _, name := range need.Headers {
		value := "1"
		if strings.EqualFold(name, "Content-Type") {
			value = "application/json"
		}
		request.Header = append(request.Header, model.Field{Name: name, Value: value})
	}
	p, err := model.ProfileNamed("chromium")
	if err != nil {
		t.Fatal(err)
	}
	b := model.New(p)
	b.LocalNetworkAllowed = true // the servers of the tests are on this machine
	trace, err := b.Do(time.Now(), model.Page{URL: need.Origin + "/"}, request, func(m model.Message) model.Answer {
		if !m.Preflight {
			return actual.Answer
		}
		if preflight == nil {
			t.Errorf("the browser asks first, and the need says that it does not")
			return model.Answer{Status: http.StatusNotFound}
		}
		return preflight.Answer
	})
	if err != nil {
		t.Fatal(err)
	}
	if v := trace.Verdict; v.Outcome != model.Readable || v.Status != actual.Answer.Status {
		t.Errorf("%s %s: a browser does not let the page read the answer: %+v", actual.Method, actual.URL, v)
	}
}

// nginxAround is what an nginx that a test starts has around its servers.
const nginxAround = `daemon off;
master_process off;
pid {dir}/nginx.pid;
events {}
http {
    access_log off;
    client_body_temp_path {dir}/body;
    proxy_temp_path {dir}/proxy;
    fastcgi_temp_path {dir}/fastcgi;
    uwsgi_temp_path {dir}/uwsgi;
    scgi_temp_path {dir}/scgi;
{code}}
`
