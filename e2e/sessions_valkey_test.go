package e2e

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	josejwt "github.com/go-jose/go-jose/v4/jwt"

	"github.com/moat-gateway/moat/store/valkey/valkeytest"
)

// balancedFile is a gate behind a balancer, whose users sign in at it, or bring tokens.
const balancedFile = `version: 1
listen: {address: "{listen}", tls: {certificate: "{dir}/cert", key: "{dir}/key"}}
admin: {admin}
public_origins: ["https://app.example.com"]
{store}
rate_limits:
  user: {limit: 24/d burst 5, by: principal}
upstreams: {app: {url: "http://{backend}", identity: {headers: {X-User: id}}}}
auth:
  staff: {login: {issuer: "{issuer}", client_id: site, client_secret: "${file:{dir}/client}"}}
  api: {jwt: {issuer: api, audience: app, algorithms: HS256, secrets: "${file:{dir}/shared}"}}
  partners: {api_key: {file: "{dir}/keys.db"}}
csrf: {secrets: "${file:{dir}/csrf}", session_cookies: connect.sid}
policies:
  page: {origins: ["https://page.example.net"], browserless: allow, authorize: authenticated, cors: {credentials: true}}
routes:
  - {match: /app/, upstream: app, auth: [staff, api, partners], policy: page}
  - {match: /limited/, upstream: app, auth: [staff, api], policy: page, rate_limits: user}
  - {match: /own/, upstream: app, auth: public}
`

// balanced are gates behind one name, as a balancer has them.
type balanced struct {
	t        *testing.T
	dir      string
	gates    []*moat
	provider *oidcProvider
	shared   []byte
	trusts   *x509.CertPool
	// at is the gate that the balancer chooses for the next connection.
	at atomic.Int32
}

const balancedOrigin = "https://app.example.com"

// startBalanced starts a provider and n gates.
func startBalanced(t *testing.T, n int, store string) *balanced {
	t.Helper()
	b := &balanced{t: t, dir: t.TempDir(), shared: []byte(rand.Text() + rand.Text()), trusts: x509.NewCertPool()}
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "hello "+r.Header.Get("X-User"))
	}))
	t.Cleanup(backend.Close)
	// The certificate of net/http's own tests is one for *.example.com.
	certified := httptest.NewTLSServer(nil)
	defer certified.Close()
	b.trusts.AddCert(certified.Certificate())
	key, err := x509.MarshalPKCS8PrivateKey(certified.TLS.Certificates[0].PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"cert": string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certified.Certificate().Raw})), "key": string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})),
		"client": "the-site's-own-secret", "shared": string(b.shared), "csrf": rand.Text() + rand.Text(),
	} {
		if err = os.WriteFile(filepath.Join(b.dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	b.key("create", "--owner", "first")
	b.provider = startOIDC(t, oidcConfig{Clients: []oidcClient{{
		ID: "site", Secret: "the-site's-own-secret", RedirectURIs: []string{balancedOrigin + "/.moat/callback/staff"}, ResponseTypes: []string{"code"},
		GrantTypes: []string{"authorization_code", "refresh_token"}, PostLogoutURIs: []string{balancedOrigin + "/"},
	}}})
	fill := strings.NewReplacer("{dir}", b.dir, "{store}", store, "{backend}", strings.TrimPrefix(backend.URL, "http://"), "{issuer}", b.provider.issuer)
	for range n {
		b.gates = append(b.gates, startMoat(t, fill.Replace(balancedFile)))
	}
	return b
}

func (b *balanced) key(args ...string) string {
	b.t.Helper()
	return (&rotation{t: b.t, dir: b.dir}).key(args...)
}

// browser is one with its own cookies. The name of the gates leads it to the balancer.
func (b *balanced) browser() *http.Client {
	jar, err := cookiejar.New(nil)
	if err != nil {
		b.t.Fatal(err)
	}
	dial := func(ctx context.Context, network, addr string) (net.Conn, error) {
		if addr == "app.example.com:443" {
			addr = b.gates[b.at.Load()].addr
		}
		return new(net.Dialer).DialContext(ctx, network, addr)
	}
	return &http.Client{
		Jar: jar, Timeout: patience,
		Transport: &http.Transport{DialContext: dial, TLSClientConfig: &tls.Config{RootCAs: b.trusts, MinVersion: tls.VersionTLS12}, DisableKeepAlives: true},
	}
}

// says asks one of the gates, and returns the code of its refusal, or the answer.
func (b *balanced) says(c *http.Client, gate int, path string, change func(*http.Request)) string {
	b.t.Helper()
	b.at.Store(int32(gate))
	req := newGet(b.t, balancedOrigin+path)
	if change != nil {
		change(req)
	}
	return b.answer(c, req)
}

func (b *balanced) answer(c *http.Client, req *http.Request) string {
	res, err := c.Do(req)
	if err != nil {
		return err.Error()
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return err.Error()
	}
	if res.StatusCode == http.StatusOK {
		return string(body)
	}
	// A page of another origin has to be able to read why.
	if origin := req.Header.Get("Origin"); res.Header.Get("Access-Control-Allow-Origin") != origin && origin != balancedOrigin {
		b.t.Errorf("%s: %s, which the page at %s cannot read", req.URL, res.Status, origin)
	}
	return fmt.Sprint(res.StatusCode, " ", codeOf(res.StatusCode, body))
}

func (b *balanced) want(c *http.Client, path string, change func(*http.Request), want string) {
	b.t.Helper()
	for gate := range b.gates {
		if got := b.says(c, gate, path, change); got != want {
			b.t.Errorf("%s at gate %d: %q; want %q", path, gate, got, want)
		}
	}
}

func (b *balanced) becomes(c *http.Client, path string, change func(*http.Request), want string) {
	b.t.Helper()
	for gate := range b.gates {
		eventually(b.t, fmt.Sprintf("%s at gate %d becomes %q", path, gate, want), func() (string, bool) {
			got := b.says(c, gate, path, change)
			return got, got == want
		})
	}
}

// signIn signs in at one gate; the other is the one that the provider's answer comes to.
func (b *balanced) signIn(c *http.Client, name string) {
	b.t.Helper()
	b.at.Store(0)
	at := fetchPage(b.t, c, newGet(b.t, balancedOrigin+"/.moat/login/staff?return=/app/"))
	b.at.Store(int32(len(b.gates) - 1))
	if strings.HasPrefix(at.Request.URL.String(), b.provider.issuer+"/interaction/") {
		at = fetchPage(b.t, c, newForm(b.t, at.Request.URL.String(), url.Values{"login": {name}}))
	}
	if at.StatusCode != http.StatusOK || at.body != "hello staff|"+name {
		b.t.Fatalf("after signing in: %s at %s\n%s", at.Status, at.Request.URL, at.body)
	}
}

// fromPage has a request come from the page of another site that may call.
func fromPage(r *http.Request) {
	r.Header.Set("Origin", "https://page.example.net")
	r.Header.Set("Sec-Fetch-Site", "cross-site")
}

// form has a request be one of the gates' own page, with a CSRF token.
func form(token string) func(*http.Request) {
	return func(r *http.Request) {
		r.Method = http.MethodPost
		r.Header.Set("Origin", balancedOrigin)
		r.Header.Set("Sec-Fetch-Site", "same-origin")
		r.Header.Set("X-CSRF-Token", token)
	}
}

// csrf gets a token from a gate.
func (b *balanced) csrf(c *http.Client, gate int) string {
	b.t.Helper()
	var got struct{ Token string }
	text := b.says(c, gate, "/.moat/csrf", func(r *http.Request) {
		r.Header.Set("Origin", balancedOrigin)
		r.Header.Set("Sec-Fetch-Site", "same-origin")
	})
	if json.Unmarshal([]byte(text), &got) != nil || got.Token == "" {
		b.t.Fatalf("no token: %s", text)
	}
	return got.Token
}

// token is one of the issuer; bound to the key, if there is one.
func (b *balanced) token(sub string, key *ecdsa.PrivateKey) string {
	b.t.Helper()
	claims := map[string]any{"iss": "api", "aud": "app", "sub": sub, "exp": time.Now().Add(time.Hour).Unix()}
	if key != nil {
		print, err := (&jose.JSONWebKey{Key: key.Public()}).Thumbprint(crypto.SHA256)
		if err != nil {
			b.t.Fatal(err)
		}
		claims["cnf"] = map[string]any{"jkt": base64.RawURLEncoding.EncodeToString(print)}
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.HS256, Key: b.shared}, nil)
	if err != nil {
		b.t.Fatal(err)
	}
	text, err := josejwt.Signed(signer).Claims(claims).Serialize()
	if err != nil {
		b.t.Fatal(err)
	}
	return text
}

// proof shows a token with a new proof that the caller has its key (RFC 9449).
func (b *balanced) proof(token string, key *ecdsa.PrivateKey, path string) func(*http.Request) {
	b.t.Helper()
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: key}, (&jose.SignerOptions{EmbedJWK: true}).WithType("dpop+jwt"))
	if err != nil {
		b.t.Fatal(err)
	}
	sum := sha256.Sum256([]byte(token))
	proof, err := josejwt.Signed(signer).Claims(map[string]any{
		"htm": "GET", "htu": balancedOrigin + path, "iat": time.Now().Unix(), "jti": rand.Text(), "ath": base64.RawURLEncoding.EncodeToString(sum[:]),
	}).Serialize()
	if err != nil {
		b.t.Fatal(err)
	}
	return func(r *http.Request) {
		r.Header.Set("Authorization", "DPoP "+token)
		r.Header.Set("DPoP", proof)
	}
}

// Two processes with one store are one gate to their users; and while the store is gone,
// whoever needs it is refused, in words that a page can read, and nobody else is.
func TestProcessesShareTheirUsers(t *testing.T) {
	thorough(t)
	t.Parallel()
	server := valkeytest.Start(t)
	b := startBalanced(t, 2, `store: {valkey: {addresses: "`+server.Addr+`", timeout: 500ms}} # a busy machine is no outage`)
	alice, bob, program := b.browser(), b.browser(), b.browser()
	b.want(alice, "/app/", nil, "401 credentials-missing")
	b.signIn(alice, "alice")
	b.signIn(bob, "bob")
	b.want(alice, "/app/", nil, "hello staff|alice")
	b.want(bob, "/app/", fromPage, "hello staff|bob")

	// A token of one is good at the other; without it a change is refused.
	first, second := b.csrf(alice, 0), b.csrf(alice, 1)
	b.want(alice, "/app/change", form(first), "hello staff|alice")
	b.want(alice, "/app/change", form(second), "hello staff|alice")
	b.want(alice, "/app/change", form(""), "403 csrf-token-missing")
	b.want(bob, "/app/change", form(first), "403 csrf-token-invalid")

	// A proof is good once, wherever.
	key := newIssuerKey(t, "").private
	bound, free := b.token("robot", key), b.token("robot", nil)
	for round := range 4 {
		proof := b.proof(bound, key, "/app/robot")
		one, other := b.says(program, round%2, "/app/robot", proof), b.says(program, (round+1)%2, "/app/robot", proof)
		if one != "hello api|robot" || other != "401 proof-used" {
			t.Errorf("a proof is answered %q, and then %q", one, other)
		}
	}

	// A user has one limit, with whatever he calls, whichever gate.
	for name, show := range map[string]func(*http.Request){"alice": nil, "robot": bearer(free)} {
		c, served := alice, 0
		if name == "robot" {
			c = program
		}
		for i := range 12 {
			switch got := b.says(c, i%2, "/limited/", show); got {
			case "hello staff|alice", "hello api|robot":
				served++
			case "429 rate-limited-principal":
			default:
				t.Errorf("%s: %s", name, got)
			}
		}
		if served != 5 {
			t.Errorf("%s was served %d times; want 5", name, served)
		}
	}

	// Whoever signs out at one has signed out at the other.
	if got := b.says(alice, 1, "/.moat/logout/staff", form(first)); !strings.Contains(got, `"location"`) {
		t.Fatalf("signing out: %s", got)
	}
	b.want(alice, "/app/", nil, "401 credentials-missing")
	b.want(bob, "/app/", nil, "hello staff|bob")
	b.signIn(alice, "alice")
	twin := b.browser()
	b.signIn(twin, "alice")
	b.want(twin, "/app/", nil, "hello staff|alice")
	b.at.Store(0)
	everywhere := newForm(t, balancedOrigin+"/.moat/logout/staff", url.Values{"everywhere": {"1"}})
	form(b.csrf(alice, 0))(everywhere)
	if got := b.answer(alice, everywhere); !strings.Contains(got, `"location"`) {
		t.Fatalf("signing out everywhere: %s", got)
	}
	b.want(twin, "/app/", nil, "401 session-unknown")

	b.outage(server, bob, program, key)
}

// outage takes the store away, first for a while, and then with all that it knew.
func (b *balanced) outage(server *valkeytest.Server, bob, program *http.Client, key *ecdsa.PrivateKey) {
	b.t.Helper()
	bound, free := b.token("robot", key), b.token("robot", nil)
	carol := b.browser() // signs out in vain, which may happen after all when the store goes on
	b.signIn(carol, "carol")
	token := b.csrf(carol, 0)
	stop := make(chan struct{})
	var calling sync.WaitGroup
	for gate := range b.gates {
		// Whoever brings a token calls all the time.
		calling.Go(func() {
			c := &http.Client{Timeout: patience, Transport: &http.Transport{
				DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
					return new(net.Dialer).DialContext(ctx, network, b.gates[gate].addr)
				},
				TLSClientConfig: &tls.Config{RootCAs: b.trusts, MinVersion: tls.VersionTLS12},
			}}
			defer c.CloseIdleConnections()
			for n := 0; ; n++ {
				select {
				case <-stop:
					b.t.Logf("gate %d: %d calls with a token", gate, n)
					return
				case <-time.After(2 * pause):
				}
				req := newGet(b.t, balancedOrigin+"/app/robot")
				bearer(free)(req)
				if got := b.answer(c, req); got != "hello api|robot" {
					b.t.Errorf("with a token: %s", got)
				}
			}
		})
	}
	defer calling.Wait()
	defer close(stop)

	down := func() {
		b.t.Helper()
		b.becomes(bob, "/app/", fromPage, "503 identity-unavailable")
		b.becomes(carol, "/.moat/logout/staff", form(token), "503 identity-unavailable")
		for gate := range b.gates {
			if got := b.says(program, gate, "/app/robot", b.proof(bound, key, "/app/robot")); got != "503 identity-unavailable" {
				b.t.Errorf("a proof at gate %d while none is remembered: %s", gate, got)
			}
		}
	}
	server.Pause()
	down()
	server.Continue()
	b.becomes(bob, "/app/", fromPage, "hello staff|bob")
	server.Kill()
	down()
	server.Restart()
	b.becomes(bob, "/app/", fromPage, "401 session-unknown")
	b.signIn(bob, "bob")
	b.want(bob, "/app/", fromPage, "hello staff|bob")
	b.want(bob, "/app/change", form(b.csrf(bob, 0)), "hello staff|bob")
	for gate := range b.gates {
		if got := b.says(program, gate, "/app/robot", b.proof(bound, key, "/app/robot")); got != "hello api|robot" {
			b.t.Errorf("a proof at gate %d: %s", gate, got)
		}
	}
}

// What is in files outlives a gate that is killed; sessions in its memory do not, and their
// users are told so.
func TestAGateIsKilledAndStartsAgain(t *testing.T) {
	thorough(t)
	t.Parallel()
	b := startBalanced(t, 1, "")
	alice, partner := b.browser(), b.browser()
	b.signIn(alice, "alice")
	u, err := url.Parse(balancedOrigin)
	if err != nil {
		t.Fatal(err)
	}
	page := b.browser()
	page.Jar.SetCookies(u, []*http.Cookie{{Name: "connect.sid", Value: "s%3Aalice", Secure: true}})
	token, key := b.csrf(page, 0), apiKey(b.key("create", "--owner", "acme"))
	b.want(page, "/own/change", form(token), "hello ")
	b.becomes(partner, "/app/", key, "hello partners|acme")

	gate := b.gates[0]
	gate.kill()
	if gate.process = gate.try(t); gate.process == nil {
		t.Fatal("somebody has taken the port")
	}
	b.want(partner, "/app/", key, "hello partners|acme")
	b.want(page, "/own/change", form(token), "hello ")
	b.want(page, "/own/change", form(""), "403 csrf-token-missing")
	b.want(alice, "/app/", nil, "401 session-unknown")
	b.want(alice, "/app/", fromPage, "401 session-unknown")
	b.signIn(alice, "alice")
	b.want(alice, "/app/", nil, "hello staff|alice")
}
