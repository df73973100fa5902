package e2e

import (
	"encoding/json"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"strconv"
	"strings"
	"testing"

	"github.com/moat-gateway/moat/guard"
)

// loopbackJar keeps Secure cookies of plain http, as browsers do of this machine alone.
type loopbackJar struct{ *cookiejar.Jar }

func (j loopbackJar) SetCookies(u *url.URL, cookies []*http.Cookie) {
	j.Jar.SetCookies(secured(u), cookies)
}

func (j loopbackJar) Cookies(u *url.URL) []*http.Cookie { return j.Jar.Cookies(secured(u)) }

func secured(u *url.URL) *url.URL {
	s := *u
	s.Scheme = "https"
	return &s
}

// The whole: a page of the gate's own origin whose users sign in, in front of a backend that
// knows nothing of it.
func TestAUserSignsInAtTheGateAndIsKnownBehindIt(t *testing.T) {
	thorough(t)
	backend := startExpress(t)
	_, port, _ := net.SplitHostPort(freeAddress(t))
	t.Setenv("MOAT_STAFF_SECRET", "the gate's own secret")
	// The provider is not there yet when the gate starts.
	gate := startMoat(t, strings.NewReplacer("{express}", backend.addr, "{provider}", "http://127.0.0.1:"+port).Replace(`version: 1
listen: {listen}
admin: {admin}
public_origins: ["{origin}"]
upstreams:
  express: {url: "http://{express}", identity: {headers: {X-User: sub, X-User-Roles: roles}}}
auth:
  staff:
    login: {issuer: "{provider}", client_id: gate, client_secret: "${env:MOAT_STAFF_SECRET}", scopes: [profile, offline_access], roles_claim: roles}
routes:
  - {match: "/{$}", upstream: express, auth: public}
  - {match: /api/, upstream: express, auth: staff, authorize: authenticated}
  - {match: /transfer, upstream: express, auth: staff, authorize: {roles: admin}}
  - {match: /api/public, upstream: express, auth: staff, authorize: authenticated, caller_credentials: exchange}
`))
	n, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	provider := startOIDC(t, oidcConfig{Port: n, Clients: []oidcClient{{
		ID: "gate", Secret: "the gate's own secret", RedirectURIs: []string{gate.origin + "/.moat/callback/staff"}, ResponseTypes: []string{"code"},
		GrantTypes: []string{"authorization_code", "refresh_token"}, PostLogoutURIs: []string{gate.origin + "/"},
		Backchannel: gate.origin + "/.moat/backchannel/staff", BackchannelSID: true,
	}}})
	browser := func() *http.Client {
		jar, err := cookiejar.New(nil)
		if err != nil {
			t.Fatal(err)
		}
		return &http.Client{Jar: loopbackJar{jar}, Timeout: patience}
	}
	// navigates adds what a browser says of a navigation, and of all that it is redirected to.
	navigates := func(req *http.Request, site string) *http.Request {
		req.Header.Set("Accept", "text/html")
		req.Header.Set("Sec-Fetch-Mode", "navigate")
		req.Header.Set("Sec-Fetch-Dest", "document")
		req.Header.Set("Sec-Fetch-Site", site)
		return req
	}
	// script is what a page of the gate does with fetch.
	script := func(c *http.Client, method, path, token string) shownPage {
		req, err := http.NewRequestWithContext(t.Context(), method, gate.origin+path, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Sec-Fetch-Mode", "cors")
		req.Header.Set("Sec-Fetch-Dest", "empty")
		req.Header.Set("Sec-Fetch-Site", "same-origin")
		if method != http.MethodGet {
			req.Header.Set("Origin", gate.origin)
		}
		if token != "" {
			req.Header.Set("X-Csrf-Token", token)
		}
		return fetchPage(t, c, req)
	}
	is := func(at shownPage, status int, code guard.Reason) {
		t.Helper()
		if at.StatusCode != status || code != guard.OK && !strings.Contains(at.body, `"`+code.String()+`"`) {
			t.Fatalf("%s %s: %s %s, want %d %s", at.Request.Method, at.Request.URL, at.Status, at.body, status, code)
		}
	}
	csrf := func(c *http.Client) string {
		var answer struct{ Token string }
		if at := script(c, http.MethodGet, "/.moat/csrf", ""); json.Unmarshal([]byte(at.body), &answer) != nil || answer.Token == "" {
			t.Fatalf("no CSRF token: %s %s", at.Status, at.body)
		}
		return answer.Token
	}

	alice, second := browser(), browser()
	is(script(alice, http.MethodGet, "/api/data", ""), http.StatusUnauthorized, guard.CredentialsMissing)
	for _, c := range []*http.Client{alice, second} {
		at := fetchPage(t, c, navigates(newGet(t, gate.origin+"/api/data?a=1"), "none")) // and is sent to sign in
		at = fetchPage(t, c, navigates(newForm(t, at.Request.URL.String(), url.Values{"login": {"alice"}}), "cross-site"))
		if is(at, http.StatusOK, guard.OK); at.Request.URL.String() != gate.origin+"/api/data?a=1" {
			t.Errorf("back at %s", at.Request.URL)
		}
	}
	last := backend.ledger().Requests[len(backend.ledger().Requests)-1]
	if last.Headers["x-user"] != "alice" || last.Headers["x-user-roles"] != "user" || len(last.Cookies) > 0 || last.Headers["authorization"] != nil {
		t.Errorf("the backend got %v and the cookies %v", last.Headers, last.Cookies)
	}
	if at := script(alice, http.MethodGet, "/.moat/session/staff", ""); !strings.Contains(at.body, `"subject":"alice"`) {
		t.Errorf("the page is told %s %s", at.Status, at.body)
	}
	is(script(alice, http.MethodPost, "/transfer", csrf(alice)), http.StatusForbidden, guard.AuthorizationRoleMissing)

	// The provider's own token, where the route says so.
	is(script(alice, http.MethodGet, "/api/public", ""), http.StatusOK, guard.OK)
	last = backend.ledger().Requests[len(backend.ledger().Requests)-1]
	token, _ := last.Headers["authorization"].(string)
	req := newGet(t, provider.issuer+"/me")
	req.Header.Set("Authorization", token)
	if at := fetchPage(t, client, req); at.StatusCode != http.StatusOK || !strings.Contains(at.body, `"alice"`) {
		t.Errorf("the token %q: %s %s", token, at.Status, at.body)
	}

	// A stranger's page signs nobody out.
	is(fetchPage(t, alice, navigates(newForm(t, gate.origin+"/.moat/logout/staff", nil), "cross-site")), http.StatusForbidden, guard.CrossSiteRequest)
	is(script(alice, http.MethodGet, "/api/data", ""), http.StatusOK, guard.OK)
	at := script(alice, http.MethodPost, "/.moat/logout/staff", csrf(alice))
	if is(at, http.StatusOK, guard.OK); !strings.Contains(at.body, `"location":"`+provider.issuer+"/session/end?") {
		t.Errorf("signed out, to go to %s", at.body)
	}
	is(script(alice, http.MethodGet, "/api/data", ""), http.StatusUnauthorized, guard.CredentialsMissing)
	is(script(second, http.MethodGet, "/api/data", ""), http.StatusOK, guard.OK)

	// And the provider ends the other one.
	provider.signOut(second, fetchPage(t, second, newGet(t, provider.issuer+"/session/end")))
	eventually(t, "the session has ended", func() (string, bool) {
		at := script(second, http.MethodGet, "/api/data", "")
		return at.body, at.StatusCode == http.StatusUnauthorized
	})
	if n := provider.count("backchannel success"); n != 1 {
		t.Errorf("%d logout tokens were accepted", n)
	}
	for _, line := range gate.stderr.lines() {
		for _, secret := range []string{"the gate's own secret", strings.TrimPrefix(token, "Bearer ")} {
			if strings.Contains(line, secret) {
				t.Errorf("the log holds a secret: %s", line)
			}
		}
	}
}
