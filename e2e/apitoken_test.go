package e2e

import (
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"
	"golang.org/x/oauth2"
)

const (
	apiName = "https://api.shop.test" // what the API is called in aud
	appBack = "https://app.shop.test/back"
)

// apiFile takes access tokens that pages send, of one provider and in both of its forms.
const apiFile = `version: 1
listen:
  - address: {listen}
    tls: {certificate: "{cert}", key: "{key}"}
admin: {admin}
public_origins: ["{origin}"]
upstreams:
  app: {url: "http://{express}", identity: {headers: {X-User: sub}}}
auth:
  tokens: {jwt: {issuer: "{issuer}", audience: "{name}", algorithms: RS256}}
  opaque: {introspection: {url: "{issuer}/token/introspection", client_id: gate, client_secret: "${file:{secret}}", cache_for: 1s}}
policies:
  api: {origins: ["{spa}"]}
routes:
  - {match: GET /app/me, upstream: app, auth: tokens, policy: api, authorize: {scopes: read}}
  - {match: POST /app/transfer, upstream: app, auth: tokens, policy: api, authorize: {scopes: write}}
  - {match: POST /app/orders/7, upstream: app, auth: opaque, policy: api, authorize: authenticated}
`

// counter is a gate before an API whose callers bring tokens along.
type counter struct {
	*tab

	backend  *express
	gate     *moat
	provider *oidcProvider
	cfg      oidcConfig
}

func openCounter(t *testing.T) *counter {
	t.Helper()
	spa := startTLS(t, "app.shop.test", pages(t))
	c := &counter{tab: newTab(t), backend: startNode(t, []string{"express/shop.js", spa}), cfg: oidcConfig{
		Keys: []json.RawMessage{newKey(t, "one")},
		Clients: []oidcClient{
			{ID: "app", Auth: "none", RedirectURIs: []string{appBack}, ResponseTypes: []string{"code"}, GrantTypes: []string{"authorization_code"}},
			{ID: "gate", Secret: siteSecret, RedirectURIs: []string{}, ResponseTypes: []string{}, GrantTypes: []string{"client_credentials"}},
		},
	}}
	c.provider = startOIDC(t, c.cfg)
	c.cfg.Port = c.provider.port
	c.gate = startMoatAt(t, "https://api.shop.test", func(*moat) string {
		return strings.NewReplacer("{secret}", secretFile(t, siteSecret), "{cert}", testAuthority(t).cert, "{key}", testAuthority(t).key,
			"{express}", c.backend.addr, "{issuer}", c.provider.issuer, "{spa}", spa, "{name}", apiName).Replace(apiFile)
	})
	c.open(spa)
	return c
}

// newKey is a private key for RS256.
func newKey(t *testing.T, id string) json.RawMessage {
	t.Helper()
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(jose.JSONWebKey{Key: private, KeyID: id, Algorithm: "RS256", Use: "sig"})
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// token is an access token that the app has got for alice: a JWT for a resource, and an opaque one
// for none.
func (c *counter) token(scope, resource string) string {
	c.t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		c.t.Fatal(err)
	}
	browser := &http.Client{Jar: jar, Timeout: patience, CheckRedirect: func(req *http.Request, _ []*http.Request) error {
		if strings.HasPrefix(req.URL.String(), appBack) {
			return http.ErrUseLastResponse
		}
		return nil
	}}
	app := oauth2.Config{ClientID: "app", RedirectURL: appBack, Scopes: []string{scope}, Endpoint: oauth2.Endpoint{
		AuthURL: c.provider.issuer + "/auth", TokenURL: c.provider.issuer + "/token", AuthStyle: oauth2.AuthStyleInParams,
	}}
	verifier, options := oauth2.GenerateVerifier(), []oauth2.AuthCodeOption{}
	if resource != "" {
		options = append(options, oauth2.SetAuthURLParam("resource", resource))
	}
	at := c.provider.signIn(browser, app.AuthCodeURL("state", append(options, oauth2.S256ChallengeOption(verifier))...), "alice")
	back, err := url.Parse(at.Header.Get("Location"))
	if err != nil || back.Query().Get("code") == "" {
		c.t.Fatalf("%s: %s, to %q: %v", at.Request.URL, at.body, at.Header.Get("Location"), err)
	}
	tok, err := app.Exchange(c.t.Context(), back.Query().Get("code"), append(options, oauth2.VerifierOption(verifier))...)
	if err != nil {
		c.t.Fatal(err)
	}
	return tok.AccessToken
}

// calls lets the page call, and tells what it sees: the status, whom the backend has run for or the
// reason, and the challenge.
func (c *counter) calls(method, path, token string) string {
	c.t.Helper()
	return c.run(c.gate.origin, fmt.Sprintf(`
		const answer = await fetch(api + %q, { method: %q, headers: %q ? { Authorization: "Bearer " + %[3]q } : {} });
		const body = await answer.json();
		return [answer.status, body.user ?? body.code, answer.headers.get("WWW-Authenticate")].join(" ").trim()`, path, method, token))
}

func TestPagesCallWithTokensInChromium(t *testing.T) {
	thorough(t)
	t.Parallel()
	c := openCounter(t)
	read, opaque := c.token("read", apiName), c.token("openid", "")
	if strings.Count(read, ".") != 2 || strings.Contains(opaque, ".") {
		t.Fatalf("the provider's tokens: %q, %q", read, opaque)
	}
	const invalid = `error="invalid_token"`
	for _, test := range []struct{ name, method, path, token, want, challenge string }{
		{"a good token", "GET", "/app/me", read, "200 alice", ""},
		{"none", "GET", "/app/me", "", "401 credentials-missing", "Bearer"},
		{"a token for another API", "GET", "/app/me", c.token("read", "https://other.shop.test"), "401 token-audience-wrong", invalid},
		{"a token that was changed", "GET", "/app/me", read[:len(read)-8] + "AAAAAAAA", "401 token-signature-invalid", invalid},
		{"an opaque token where JWTs are taken", "GET", "/app/me", opaque, "401 token-malformed", invalid},
		{"a token that may only read", "POST", "/app/transfer", read, "403 authorization-scope-missing", `error="insufficient_scope"`},
		{"a token that may write", "POST", "/app/transfer", c.token("write", apiName), "200 alice", ""},
		{"an opaque token", "POST", "/app/orders/7", opaque, "200 alice", ""},
		{"an opaque token that is made up", "POST", "/app/orders/7", opaque + "x", "401 token-inactive", invalid},
	} {
		t.Run(test.name, func(t *testing.T) {
			c.t = t
			got := c.calls(test.method, test.path, test.token)
			if !strings.HasPrefix(got, test.want) || !strings.Contains(got, test.challenge) || strings.HasPrefix(got, "2") && got != test.want {
				t.Errorf("the page saw %q, want %s … %s", got, test.want, test.challenge)
			}
		})
	}
	c.t = t
	// The gate answers preflights, which carry no credentials, though each call needs some.
	for _, route := range []string{"GET /app/me", "POST /app/transfer", "POST /app/orders/7"} {
		if n := c.gate.metric(`moat_decisions_total{mode="enforce",reason="cors-preflight-approved",route="` + route + `",step="cors"}`); n != "1" {
			t.Errorf("%s: %q preflights were approved", route, n)
		}
	}
	if ran := c.backend.ledger().Runs; ran["127.0.0.1 transfer alice"] != 1 || ran["127.0.0.1 order alice"] != 1 || len(ran) != 2 {
		t.Errorf("the backend ran %v", ran)
	}
	c.rotates(t)
	// The provider has no memory that outlives it, so it knows the opaque token no longer.
	if got := c.calls("POST", "/app/orders/7", opaque); !strings.HasPrefix(got, "401 token-inactive") {
		t.Errorf("the opaque token that has ended: %s", got)
	}
}

// rotates has the provider exchange its keys, again and again. It publishes the old one as long as tokens of
// it are valid, and signs with the new one at once.
func (c *counter) rotates(t *testing.T) {
	tokens := []string{c.token("read", apiName)}
	all := func(when string) {
		t.Helper()
		for i, token := range tokens {
			if got := c.calls("GET", "/app/me", token); got != "200 alice" {
				t.Errorf("%s, the token of key %d: %s", when, i, got)
			}
		}
	}
	for _, id := range []string{"two", "three", "four", "five", "six"} {
		all("before key " + id)
		c.provider.kill()
		all("without a provider")
		c.cfg.Keys = append([]json.RawMessage{newKey(t, id)}, c.cfg.Keys...)
		c.provider = startOIDC(t, c.cfg)
		tokens = append(tokens, c.token("read", apiName))
		all("with key " + id)
	}
}
