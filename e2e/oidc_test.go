package e2e

import (
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// oidcClient is how a client is registered at the provider (OpenID Connect Dynamic Client
// Registration section 2).
type oidcClient struct {
	ID           string   `json:"client_id"`
	Secret       string   `json:"client_secret,omitempty"`
	Auth         string   `json:"token_endpoint_auth_method,omitempty"`
	RedirectURIs []string `json:"redirect_uris"`
	GrantTypes   []string `json:"grant_types"`
	// ResponseTypes is empty, and not missing, for one that signs nobody in.
	ResponseTypes  []string `json:"response_types"`
	PostLogoutURIs []string `json:"post_logout_redirect_uris,omitempty"`
	Backchannel    string   `json:"backchannel_logout_uri,omitempty"`
	BackchannelSID bool     `json:"backchannel_logout_session_required,omitempty"`
	Signed         string   `json:"id_token_signed_response_alg,omitempty"`
}

// oidcConfig is what oidc/server.js is told.
type oidcConfig struct {
	Port    int            `json:"port,omitempty"`
	Clients []oidcClient   `json:"clients"`
	TTL     map[string]int `json:"ttl,omitempty"` // of "AccessToken" and others, in seconds
	// Claims is "id_token" where they are to be in the ID token too, and not in userinfo alone.
	Claims string `json:"claims,omitempty"`
	// Keys are private keys as JWKs; the first of an algorithm signs. Without any it makes them up.
	Keys []json.RawMessage `json:"keys,omitempty"`
}

// oidcProvider is oidc/server.js as a process: a certified provider whose accounts need no
// password.
type oidcProvider struct {
	*process
	issuer, control string
	port            int
}

// startOIDC starts a provider.
func startOIDC(t *testing.T, cfg oidcConfig) *oidcProvider {
	t.Helper()
	text, err := json.Marshal(cfg)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program(t, "node"), "oidc/server.js")
	cmd.Env = append(cmd.Environ(), "OIDC="+string(text))
	p := startProcess(t, cmd, func(p *process) { p.stdin.Close() }, func(p *process) {
		if p.err != nil && !p.killed {
			t.Errorf("the provider, told to stop: %v", p.err)
		}
	})
	var ports struct{ Port, Control int }
	eventually(t, "the provider prints its ports", func() (string, bool) {
		if p.ended() {
			t.Fatalf("oidc/server.js: %v\n%s\nare its packages there? make setup installs them", p.err, &p.stderr)
		}
		lines := p.stdout.lines()
		return p.stdout.String(), len(lines) == 1 && json.Unmarshal([]byte(lines[0]), &ports) == nil
	})
	return &oidcProvider{
		process: p, issuer: "http://127.0.0.1:" + strconv.Itoa(ports.Port), control: "http://127.0.0.1:" + strconv.Itoa(ports.Control), port: ports.Port,
	}
}

// count is how often something was asked for: a path, or "grant refresh_token" and the like.
func (p *oidcProvider) count(what string) int {
	p.t.Helper()
	counts := map[string]int{}
	getJSON(p.t, p.control+"/__counts", &counts)
	return counts[what]
}

// revokeAll ends all refresh tokens, as an administrator does.
func (p *oidcProvider) revokeAll() {
	p.t.Helper()
	res, err := client.Post(p.control+"/__revoke", "", nil)
	if err != nil {
		p.t.Fatal(err)
	}
	res.Body.Close()
}

var formAction = regexp.MustCompile(`action="([^"]*)"|name="xsrf" value="([^"]*)"`)

// shownPage is what a user sees after all redirects.
type shownPage struct {
	*http.Response
	body string
}

func fetchPage(t *testing.T, c *http.Client, req *http.Request) shownPage {
	t.Helper()
	res, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return shownPage{res, string(body)}
}

func newGet(t *testing.T, u string) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, u, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	return req
}

func newForm(t *testing.T, u string, form url.Values) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, u, strings.NewReader(form.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return req
}

// signIn goes to a login page of the gate, and types a name where the provider asks for one.
func (p *oidcProvider) signIn(c *http.Client, login, name string) shownPage {
	p.t.Helper()
	at := fetchPage(p.t, c, newGet(p.t, login))
	if strings.HasPrefix(at.Request.URL.String(), p.issuer+"/interaction/") {
		at = fetchPage(p.t, c, newForm(p.t, at.Request.URL.String(), url.Values{"login": {name}}))
	}
	return at
}

// signOut is what the user's browser does at the provider's page that asks whether to.
func (p *oidcProvider) signOut(c *http.Client, at shownPage) shownPage {
	p.t.Helper()
	form := formAction.FindAllStringSubmatch(at.body, -1)
	if len(form) != 2 {
		p.t.Fatalf("%s is no form to sign out:\n%s", at.Request.URL, at.body)
	}
	return fetchPage(p.t, c, newForm(p.t, form[0][1], url.Values{"xsrf": {form[1][2]}, "logout": {"yes"}}))
}
