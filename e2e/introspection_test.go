package e2e

import (
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/moat-gateway/moat/guard"
	"github.com/moat-gateway/moat/guard/identity/introspection"
)

// A certified provider says whose its opaque tokens are, and that one is no longer good.
func TestAProviderIsAskedAboutItsTokens(t *testing.T) {
	site := startLogin(t, oidcConfig{}, nil)
	browser := site.browser()
	site.signIn(browser, "alice")
	status, token := site.get(browser, "/token")
	if status != http.StatusOK || token == "" || strings.Contains(token, ".") {
		t.Fatalf("%d, %q is no opaque token", status, token)
	}

	p := introspection.Policy{
		Source: "staff", URL: site.provider.issuer + "/token/introspection", ClientID: "site", ClientSecret: "the-site's-own-secret", Issuer: site.provider.issuer,
	}
	verifier := func(p introspection.Policy) *introspection.Verifier {
		v, newErr := introspection.New(p, nil)
		if newErr != nil {
			t.Fatal(newErr)
		}
		return v
	}
	v, now := verifier(p), time.Now()
	for range 3 {
		who, d := v.Verify(t.Context(), token, now)
		if d.Reason != guard.IdentityVerified || who.ID() != "staff|alice" || !who.HasScope("openid") || !who.Expires().After(now) {
			t.Fatalf("%+v, %+v", who, d)
		}
	}
	if _, d := v.Verify(t.Context(), token+"x", now); d.Reason != guard.TokenInactive {
		t.Errorf("a made-up token: %+v", d)
	}
	if n := site.provider.count("/token/introspection"); n != 2 {
		t.Errorf("%d questions", n)
	}
	stranger := p
	stranger.ClientSecret = "another"
	if _, d := verifier(stranger).Verify(t.Context(), token, now); d.Reason != guard.IdentityUnavailable || !strings.Contains(d.Evidence.Got, "401") {
		t.Errorf("with another secret: %+v", d)
	}
	others := p
	others.Audiences = []string{"https://api.example.com"}
	if _, d := verifier(others).Verify(t.Context(), token, now); d.Reason != guard.TokenAudienceWrong {
		t.Errorf("for another audience: %+v", d)
	}

	revoke := newForm(t, site.provider.issuer+"/token/revocation", url.Values{"token": {token}})
	revoke.SetBasicAuth("site", url.QueryEscape("the-site's-own-secret"))
	res, err := client.Do(revoke)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if text, readErr := io.ReadAll(res.Body); res.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s, %v", res.Status, text, readErr)
	}
	if _, d := v.Verify(t.Context(), token, now.Add(59*time.Second)); d.Reason != guard.IdentityVerified {
		t.Errorf("remembered: %+v", d)
	}
	if _, d := v.Verify(t.Context(), token, now.Add(time.Minute)); d.Reason != guard.TokenInactive {
		t.Errorf("revoked: %+v", d)
	}
}
