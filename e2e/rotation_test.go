package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	josejwt "github.com/go-jose/go-jose/v4/jwt"
)

// rotationFile is a gate whose callers say in all ways who they are, and whose secrets are
// files. Those in brackets are what rotates.
const rotationFile = `version: 1
listen: {listen}
admin: {admin}
public_origins: ["{origin}"]
identity_keys: ["${file:{dir}/identity-1}"]
upstreams:
  app: {url: "http://{backend}", identity: {token: {header: X-Identity, audience: app, lifetime: 5s}}}
auth:
  shared: {jwt: {issuer: shared, audience: app, algorithms: HS256, secrets: ["${file:{dir}/shared-1}"]}}
  file: {jwt: {issuer: file, audience: app, algorithms: ES256, jwks_file: "{dir}/jwks", revoked_file: "{dir}/revoked"}}
  url: {jwt: {issuer: url, audience: app, algorithms: ES256, jwks_url: "{issuer}/jwks"}}
  partners: {api_key: {file: "{dir}/keys.db"}}
csrf: {secrets: ["${file:{dir}/csrf-1}"], session_cookies: connect.sid}
routes:
  - {match: /api/, upstream: app, auth: [shared, file, url, partners], authorize: authenticated, browserless: allow}
  - {match: /web/, upstream: app, auth: public}
`

// rotation is a gate whose secrets are exchanged while its users call.
type rotation struct {
	t      *testing.T
	dir    string
	gate   *moat
	issuer *keySet
	// asked is how often the issuer was asked for its keys.
	asked atomic.Int64
	app   identifiedApp
	users []*user
}

// keySet is what an issuer publishes.
type keySet struct {
	mu   sync.Mutex
	keys []*issuerKey
}

func (s *keySet) publish(keys ...*issuerKey) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keys = keys
}

func (s *keySet) text() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	var set jose.JSONWebKeySet
	for _, k := range s.keys {
		set.Keys = append(set.Keys, jose.JSONWebKey{Key: k.private.Public(), KeyID: k.id})
	}
	text, _ := json.Marshal(set) // of such keys has no fault
	return text
}

// issuerKey is one that an issuer signs with.
type issuerKey struct {
	id      string
	private *ecdsa.PrivateKey
}

func newIssuerKey(t *testing.T, id string) *issuerKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return &issuerKey{id, k}
}

func (k *issuerKey) signs() jose.SigningKey {
	return jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: k.private, KeyID: k.id}}
}

// bearers are callers with tokens of a key: one whom the gate knows, and one who is new each time.
func bearers(t *testing.T, issuer string, key jose.SigningKey) []func(*http.Request) {
	t.Helper()
	signer, err := jose.NewSigner(key, nil)
	if err != nil {
		t.Fatal(err)
	}
	known := bearer(mint(t, signer, issuer, "alice"))
	return []func(*http.Request){known, func(r *http.Request) { bearer(mint(t, signer, issuer, "bob"))(r) }}
}

func bearer(token string) func(*http.Request) {
	return func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+token) }
}

func mint(t *testing.T, signer jose.Signer, issuer, sub string) string {
	token, err := josejwt.Signed(signer).Claims(map[string]any{"iss": issuer, "aud": "app", "sub": sub, "exp": time.Now().Add(time.Hour).Unix(), "jti": rand.Text()}).Serialize()
	if err != nil {
		t.Error(err)
	}
	return token
}

// identifiedApp is an upstream that believes nobody without a token of the gate, and fetches
// the gate's keys only when those that it has are old.
type identifiedApp struct {
	mu      sync.Mutex
	gate    string
	keys    jose.JSONWebKeySet
	fetched time.Time
	fetches int
	last    string // the key of the last token
}

// cachedFor is how long it keeps the gate's keys: a short day.
const cachedFor = 300 * time.Millisecond

func (a *identifiedApp) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if strings.HasPrefix(r.URL.Path, "/api/") {
		if err := a.identify(r); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
	}
	io.WriteString(w, "done")
}

func (a *identifiedApp) identify(r *http.Request) error {
	token, err := josejwt.ParseSigned(r.Header.Get("X-Identity"), []jose.SignatureAlgorithm{jose.ES256})
	if err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if time.Since(a.fetched) > cachedFor {
		if err = tryJSON(a.gate+"/.moat/jwks.json", &a.keys); err != nil {
			return err
		}
		a.fetched = time.Now()
		a.fetches++
	}
	var claims josejwt.Claims
	if err = token.Claims(&a.keys, &claims); err != nil {
		return fmt.Errorf("of key %q: %w", token.Headers[0].KeyID, err)
	}
	a.last = token.Headers[0].KeyID
	return claims.Validate(josejwt.Expected{Issuer: a.gate, AnyAudience: josejwt.Audience{"app"}, Time: time.Now()})
}

func (a *identifiedApp) seen() (keys, fetches int, last string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.keys.Keys), a.fetches, a.last
}

// user calls again and again with credentials that are good, so nobody may refuse it.
type user struct {
	name, path string
	// mu is held by each call, so that none is under way with what is being withdrawn.
	mu     sync.Mutex
	good   []func(*http.Request)
	served atomic.Int64
}

func (u *user) shows(good ...func(*http.Request)) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.good = good
}

// call returns the code of the refusal, or "" if it was served.
func (r *rotation) call(path string, show func(*http.Request)) string {
	req, err := http.NewRequestWithContext(r.t.Context(), http.MethodGet, r.gate.origin+path, http.NoBody)
	if err != nil {
		return err.Error()
	}
	show(req)
	res, err := sieger.Do(req)
	if err != nil {
		return err.Error()
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return err.Error()
	}
	if code := codeOf(res.StatusCode, body); code != "500" {
		return code
	}
	return string(body)
}

// hammer has the user call until stop is closed.
func (r *rotation) hammer(u *user, stop <-chan struct{}) {
	for i := 0; ; i++ {
		select {
		case <-stop:
			return
		case <-time.After(pause):
		}
		u.mu.Lock()
		code := r.call(u.path, u.good[i%len(u.good)])
		u.mu.Unlock()
		if code != "" {
			r.t.Errorf("%s was refused: %s", u.name, code)
			return
		}
		u.served.Add(1)
	}
}

// goOn returns when each user was served some more.
func (r *rotation) goOn() {
	r.t.Helper()
	for _, u := range r.users {
		enough := u.served.Load() + 10
		eventually(r.t, u.name+" is served", func() (string, bool) {
			n := u.served.Load()
			return fmt.Sprint(n), n >= enough || r.t.Failed()
		})
	}
	if r.t.Failed() {
		r.t.FailNow()
	}
}

// write exchanges a file, as a secret's mount does.
func (r *rotation) write(name, text string) {
	r.t.Helper()
	exchange(r.t, filepath.Join(r.dir, name), text)
}

// list has the configuration name these files, where it names others that are called so.
func (r *rotation) list(yaml, name string, numbers ...int) string {
	var all []string
	for _, n := range numbers {
		all = append(all, fmt.Sprintf(`"${file:%s/%s-%d}"`, r.dir, name, n))
	}
	return regexp.MustCompile(`\["[^]]*/`+name+`-[^]]*\]`).ReplaceAllLiteralString(yaml, "["+strings.Join(all, ", ")+"]")
}

// becomes waits until calls that show something are answered so, and logs how long it took.
func (r *rotation) becomes(what, path string, show func(*http.Request), want string) {
	r.t.Helper()
	start := time.Now()
	eventually(r.t, what+" becomes "+want, func() (string, bool) {
		code := r.call(path, show)
		return code, code == want
	})
	r.t.Logf("%s: %q after %s", what, want, time.Since(start).Round(time.Millisecond))
}

// key runs `moat key` with the arguments, and returns what it prints.
func (r *rotation) key(args ...string) string {
	r.t.Helper()
	cmd := exec.CommandContext(r.t.Context(), moatCommand(r.t), append(append([]string{"key"}, args...), "--file", filepath.Join(r.dir, "keys.db"))...)
	out, err := cmd.Output()
	if err != nil {
		r.t.Fatalf("%s: %v", cmd, err)
	}
	return strings.TrimSpace(string(out))
}

func apiKey(text string) func(*http.Request) {
	return func(r *http.Request) { r.Header.Set("X-Api-Key", text) }
}

// keyID is the public part of an API key.
func keyID(text string) string { return strings.Split(text, "_")[1] }

// page is one of a browser that has the upstream's session, and a token that it got just now.
func (r *rotation) page(browser *string) func(*http.Request) {
	r.t.Helper()
	const session = "connect.sid=s%3Aalice"
	own := func(req *http.Request) {
		req.Header.Set("Origin", r.gate.origin)
		req.Header.Set("Sec-Fetch-Site", "same-origin")
		req.Header.Set("Cookie", session+*browser)
	}
	req := newGet(r.t, r.gate.origin+"/.moat/csrf")
	own(req)
	at := fetchPage(r.t, client, req)
	var got struct{ Token, Header string }
	if err := json.Unmarshal([]byte(at.body), &got); err != nil || got.Token == "" {
		r.t.Fatalf("no token: %s %s", at.Status, at.body)
	}
	for _, c := range at.Cookies() {
		if c.Name == "__Host-moat-csrf-id" {
			*browser = "; " + c.Name + "=" + c.Value
		}
	}
	return func(req *http.Request) {
		req.Method = http.MethodPost
		own(req)
		req.Header.Set(got.Header, got.Token)
	}
}

func privatePEM(t *testing.T, k *ecdsa.PrivateKey) string {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

// secret writes a new one to a file of that name.
func (r *rotation) secret(name string) jose.SigningKey {
	r.t.Helper()
	text := rand.Text() + rand.Text()
	r.write(name, text)
	return jose.SigningKey{Algorithm: jose.HS256, Key: []byte(text)}
}

// Whoever is a user stays one while every secret is exchanged, twice where that takes two
// steps, and whatever is withdrawn is refused. What is written meanwhile and at fault has no
// effect, and the log says what it is without saying the secret.
func TestReloadRotatesSecretsWithoutRefusingAUser(t *testing.T) {
	thorough(t)
	t.Parallel()
	r := &rotation{t: t, dir: t.TempDir(), issuer: new(keySet)}
	issuer := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		r.asked.Add(1)
		w.Write(r.issuer.text())
	}))
	t.Cleanup(issuer.Close)
	backend := httptest.NewServer(&r.app)
	t.Cleanup(backend.Close)

	// The issuer at the URL publishes a key before it uses it.
	url1, url2, url3, url4 := newIssuerKey(t, "url-1"), newIssuerKey(t, "url-2"), newIssuerKey(t, "url-3"), newIssuerKey(t, "url-4")
	r.issuer.publish(url1, url2)
	file1, file2 := newIssuerKey(t, "file-1"), newIssuerKey(t, "file-2")
	r.write("jwks", string((&keySet{keys: []*issuerKey{file1}}).text()))
	r.write("revoked", "# nobody yet\n")
	shared1 := r.secret("shared-1")
	r.secret("csrf-1")
	r.write("identity-1", privatePEM(t, newIssuerKey(t, "").private))
	partner1 := r.key("create", "--owner", "acme", "--expires", "1h")
	expiring := r.key("create", "--owner", "acme", "--expires", "1h")

	r.gate = startMoat(t, strings.NewReplacer("{dir}", r.dir, "{issuer}", issuer.URL, "{backend}", strings.TrimPrefix(backend.URL, "http://")).Replace(rotationFile))
	r.app.gate = r.gate.origin
	browser := ""
	was := map[string][]func(*http.Request){
		"shared": bearers(t, "shared", shared1), "file": bearers(t, "file", file1.signs()), "url": bearers(t, "url", url1.signs()),
		"partner": {apiKey(partner1)}, "page": {r.page(&browser)},
	}
	now := make(map[string][]func(*http.Request))
	users := make(map[string]*user)
	stop := make(chan struct{})
	var calling sync.WaitGroup
	for name, good := range was {
		u := &user{name: name, path: "/api/" + name, good: good}
		if name == "page" {
			u.path = "/web/page"
		}
		users[name] = u
		r.users = append(r.users, u)
		calling.Go(func() { r.hammer(u, stop) })
	}
	defer calling.Wait()
	defer close(stop)
	r.goOn()
	both := func(name string) { users[name].shows(append(was[name], now[name]...)...) }
	becomes := func(name, want string) {
		t.Helper()
		show := was[name][0]
		if want == "" {
			show = now[name][0]
		}
		r.becomes(name, users[name].path, show, want)
	}

	// What is new comes beside what is old; nobody tells the gate.
	now["shared"], now["file"] = bearers(t, "shared", r.secret("shared-2")), bearers(t, "file", file2.signs())
	r.secret("csrf-2")
	r.write("identity-2", privatePEM(t, newIssuerKey(t, "").private))
	r.write("jwks", string((&keySet{keys: []*issuerKey{file1, file2}}).text()))
	yaml := r.gate.read(t)
	yaml = r.list(yaml, "shared", 2, 1)
	yaml = r.list(yaml, "csrf", 2, 1)
	yaml = r.list(yaml, "identity", 1, 2)
	r.gate.write(t, yaml)
	partner2 := r.key("rotate", keyID(partner1), "--grace", "1h")
	r.key("rotate", keyID(expiring), "--grace", "1s")
	now["partner"] = []func(*http.Request){apiKey(partner2)}
	for _, name := range []string{"shared", "file", "partner"} {
		becomes(name, "")
		both(name)
	}
	now["page"] = []func(*http.Request){r.page(&browser)}
	both("page")
	asked := r.asked.Load()
	now["url"] = bearers(t, "url", url2.signs())
	both("url")
	r.goOn()
	if n := r.asked.Load(); n != asked {
		t.Errorf("the issuer was asked %d times for keys that the gate had", n-asked)
	}
	r.becomes("a key whose time of grace is over", "/api/partner", apiKey(expiring), "api-key-revoked")

	// The issuer rotates without having told anybody.
	r.issuer.publish(url1, url2, url3)
	now["url"] = append(now["url"], bearers(t, "url", url3.signs())...)
	both("url")
	r.goOn()
	if n := r.asked.Load(); n != asked+1 {
		t.Errorf("the issuer was asked %d times for its new key", n-asked)
	}

	// The upstream knows both keys that speak for the gate, so the other one signs.
	_, fetches, first := r.app.seen()
	eventually(t, "the upstream fetches both keys", func() (string, bool) {
		n, f, _ := r.app.seen()
		return fmt.Sprint(n, f), n == 2 && f > fetches
	})
	yaml = r.list(yaml, "identity", 2, 1)
	r.gate.write(t, yaml)
	r.gate.signal(syscall.SIGHUP)
	eventually(t, "the new key signs", func() (string, bool) {
		_, _, last := r.app.seen()
		return last, last != first
	})
	promoted := time.Now()
	r.goOn()

	r.faults(yaml)

	// A user is thrown out; the others with the same key stay.
	signer, err := jose.NewSigner(file2.signs(), nil)
	if err != nil {
		t.Fatal(err)
	}
	mallory := bearer(mint(t, signer, "file", "mallory"))
	r.becomes("mallory", "/api/file", mallory, "")
	r.write("revoked", "# nobody yet\nsub mallory\n")
	r.becomes("mallory", "/api/file", mallory, "token-revoked")

	// What is old goes, once nobody uses it.
	for name, u := range users {
		u.shows(now[name]...)
	}
	time.Sleep(time.Until(promoted.Add(5 * time.Second))) // the lifetime of what the old key has signed
	r.key("revoke", keyID(partner1))
	r.write("jwks", string((&keySet{keys: []*issuerKey{file2}}).text()))
	yaml = r.list(yaml, "shared", 2)
	yaml = r.list(yaml, "csrf", 2)
	yaml = r.list(yaml, "identity", 2)
	r.gate.write(t, yaml)
	r.gate.signal(syscall.SIGHUP)
	becomes("shared", "token-signature-invalid")
	becomes("file", "token-key-unknown")
	becomes("page", "csrf-token-invalid")
	becomes("partner", "api-key-revoked")
	users["url"].shows(bearers(t, "url", url3.signs())...)
	r.issuer.publish(url3, url4)
	r.becomes("a key of the issuer that is new", "/api/url", bearers(t, "url", url4.signs())[0], "")
	becomes("url", "token-key-unknown")
	eventually(t, "the upstream has only the new key", func() (string, bool) {
		n, _, last := r.app.seen()
		return fmt.Sprint(n), n == 1 && last != first
	})

	// Reloads without a pause cost nobody anything either.
	for i := range 40 {
		r.gate.write(t, fmt.Sprintf("%s# %d\n", yaml, i))
		r.gate.signal(syscall.SIGHUP)
		time.Sleep(4 * pause)
	}
	r.goOn()
	// Nothing changes any more, so nothing is read any more.
	before := ""
	eventually(t, "the gate comes to rest", func() (string, bool) {
		now := r.gate.metric(`moat_reloads_total{result="applied"}`)
		same := now == before
		before = now
		time.Sleep(1500 * time.Millisecond)
		return now, same
	})
	for _, u := range r.users {
		t.Logf("%s: %d calls", u.name, u.served.Load())
	}
}

// faults writes what is at fault while users call.
func (r *rotation) faults(good string) {
	r.t.Helper()
	const canary = "CANARY-swordfish"
	for _, f := range []struct{ name, text, said string }{
		{"moat.yaml", strings.Replace(good, "auth: public", "auth: pubic", 1), `"pubic"`},
		{"moat.yaml", r.list(good, "shared", 1, 9), "shared-9"},
		{"moat.yaml", strings.Replace(good, "algorithms: HS256", "algorithms: none", 1), "algorithms [none]"},
		{"shared-2", canary, "auth.shared.jwt.secrets[0]"},
		{"csrf-2", canary, "csrf.secrets[0]"},
		{"identity-2", "-----BEGIN PRIVATE KEY-----\n" + canary + "\n-----END PRIVATE KEY-----\n", "identity_keys[0]"},
		{"jwks", `{"keys": [{"kty": "oct", "k": "` + canary + `"}]}`, "private or a secret"},
		{"jwks", canary, "not a JSON object"},
		{"revoked", "sub alice\nnonsense " + canary + "\n", "line 2"},
	} {
		path := filepath.Join(r.dir, f.name)
		if f.name == "moat.yaml" {
			path = r.gate.file
		}
		kept, err := os.ReadFile(path)
		if err != nil {
			r.t.Fatal(err)
		}
		before := len(r.gate.log("configuration is at fault"))
		exchange(r.t, path, f.text)
		r.gate.signal(syscall.SIGHUP)
		eventually(r.t, "the log says what is wrong with "+f.name, func() (string, bool) {
			said := ""
			for _, l := range r.gate.log("configuration is at fault")[before:] {
				said += l.text("fault") + "\n"
			}
			return said, strings.Contains(said, r.gate.file+":") && strings.Contains(said, f.said)
		})
		r.goOn()
		exchange(r.t, path, string(kept))
	}
	if len(r.gate.log("configuration not reloaded: the old one stays in force")) == 0 {
		r.t.Error("the log does not say that the old configuration stays")
	}
	if strings.Contains(r.gate.stderr.String(), canary) {
		r.t.Errorf("the log says a secret:\n%s", &r.gate.stderr)
	}
}

// exchange replaces a file whole.
func exchange(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}
