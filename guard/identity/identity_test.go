package identity_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/moat-gateway/moat/guard"
	"github.com/moat-gateway/moat/guard/identity"
	"github.com/moat-gateway/moat/guard/identity/assume"
	"github.com/moat-gateway/moat/guard/identity/internal/principal"
)

// known is a verifier that knows the credentials which begin with its prefix and go on with
// the name of a source.
type known struct {
	prefix string
	method identity.Method
}

func (k known) Recognizes(text string) bool { return strings.HasPrefix(text, k.prefix) }

func (k known) Verify(_ context.Context, text string, _ time.Time) (*identity.Principal, guard.Decision) {
	source := strings.TrimPrefix(text, k.prefix)
	if source == "bad" {
		return nil, guard.Denial(guard.TokenSignatureInvalid, "token", "", "")
	}
	return assume.Principal(assume.Who{Source: source, Subject: "alice", Method: k.method}), guard.Decision{Reason: guard.IdentityVerified}
}

var policy = identity.Policy{
	Sources:   []string{"accounts", "partners", "staff"},
	Bearer:    []identity.Verifier{known{"ey-", identity.JWT}, known{"key-", identity.APIKey}},
	KeyHeader: "x-api-key", Keys: known{"key-", identity.APIKey},
	Cookie: "__Host-moat", Sessions: known{"", identity.Session}, Login: "/.moat/login/staff",
	ProofAlgorithms: []string{"ES256"},
}

func TestWhoIsFoundAndWhoIsRefused(t *testing.T) {
	anonymous := policy
	anonymous.Anonymous = true
	tests := map[string]struct {
		policy identity.Policy
		header http.Header
		source string // of the Principal
		reason guard.Reason
	}{
		"nothing is shown":             {policy, http.Header{}, "", guard.CredentialsMissing},
		"nothing need be shown":        {anonymous, http.Header{}, "", guard.OK},
		"what is shown must be good":   {anonymous, header("Authorization", "Bearer ey-bad"), "", guard.TokenSignatureInvalid},
		"a token":                      {policy, header("Authorization", "Bearer ey-accounts"), "accounts", guard.IdentityVerified},
		"the scheme's case":            {policy, header("Authorization", "bEARER ey-accounts"), "accounts", guard.IdentityVerified},
		"a key as a token":             {policy, header("Authorization", "Bearer key-partners"), "partners", guard.IdentityVerified},
		"a key in its header":          {policy, header("X-Api-Key", "key-partners"), "partners", guard.IdentityVerified},
		"a key in two":                 {policy, header("X-Api-Key", "key-partners", "X-Api-Key", "key-partners"), "", guard.CredentialsAmbiguous},
		"a token and a key":            {policy, header("X-Api-Key", "key-partners", "Authorization", "Bearer ey-accounts"), "", guard.CredentialsAmbiguous},
		"two tokens":                   {policy, header("Authorization", "Bearer ey-accounts", "Authorization", "Bearer ey-accounts"), "", guard.CredentialsAmbiguous},
		"an empty key":                 {policy, header("X-Api-Key", ""), "", guard.CredentialsMalformed},
		"Basic":                        {policy, header("Authorization", "Basic YTpi"), "", guard.CredentialsNotAccepted},
		"no scheme":                    {policy, header("Authorization", "ey-accounts"), "", guard.CredentialsNotAccepted},
		"no token":                     {policy, header("Authorization", "Bearer "), "", guard.CredentialsMalformed},
		"two blanks":                   {policy, header("Authorization", "Bearer  ey-accounts"), "", guard.CredentialsMalformed},
		"a list":                       {policy, header("Authorization", "Bearer ey-accounts, Bearer ey-accounts"), "", guard.CredentialsMalformed},
		"too long":                     {policy, header("Authorization", "Bearer ey-"+strings.Repeat("a", 16<<10)), "", guard.CredentialsMalformed},
		"no known form":                {policy, header("Authorization", "Bearer abc"), "", guard.TokenMalformed},
		"a source that is not listed":  {policy, header("Authorization", "Bearer ey-others"), "", guard.CredentialsNotAccepted},
		"a session":                    {policy, header("Cookie", "a=b; __Host-moat=staff; c=d"), "staff", guard.IdentityVerified},
		"a session beside a token":     {policy, header("Cookie", "__Host-moat=staff", "Authorization", "Bearer ey-accounts"), "accounts", guard.IdentityVerified},
		"a session beside a bad token": {policy, header("Cookie", "__Host-moat=staff", "Authorization", "Bearer ey-bad"), "", guard.TokenSignatureInvalid},
		"two sessions":                 {policy, header("Cookie", "__Host-moat=staff; __Host-moat=staff"), "", guard.CredentialsAmbiguous},
		"two sessions in two lines":    {policy, header("Cookie", "__Host-moat=staff", "Cookie", "__Host-moat=other"), "", guard.CredentialsAmbiguous},
		"another cookie":               {policy, header("Cookie", "moat=staff; x__Host-moat=staff"), "", guard.CredentialsMissing},
		"keys of nobody":               {identity.Policy{KeyHeader: "X-Api-Key"}, header("X-Api-Key", "key-partners"), "", guard.CredentialsMissing},
		"the zero policy":              {identity.Policy{}, header("Authorization", "Bearer ey-accounts"), "", guard.CredentialsNotAccepted},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			r := httptest.NewRequest("GET", "/", nil)
			r.Header = test.header
			p, d := identity.New(test.policy).Decide(r, time.Now())
			source := ""
			if p != nil {
				source = p.Source()
			}
			if source != test.source || d.Reason != test.reason {
				t.Errorf("%q, %s; want %q, %s", source, d.Reason, test.source, test.reason)
			}
		})
	}
}

func TestTheChallengeSaysHowToComeIn(t *testing.T) {
	const session = `Cookie realm="moat", form-action="/.moat/login/staff", cookie-name="__Host-moat"`
	tests := map[string]struct {
		policy identity.Policy
		header http.Header
		want   []string
	}{
		"nothing was shown": {policy, http.Header{}, []string{`DPoP algs="ES256"`, `Bearer realm="moat"`, session}},
		"a bad token": {policy, header("Authorization", "Bearer ey-bad"), []string{
			`DPoP algs="ES256", error="invalid_token", error_description="The token is not accepted"`,
			`Bearer realm="moat", error="invalid_token", error_description="The token is not accepted"`, session,
		}},
		"keys alone": {identity.Policy{KeyHeader: "X-Api-Key", Keys: known{}}, http.Header{}, []string{`ApiKey realm="moat", header="X-Api-Key"`}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			g := identity.New(test.policy)
			h := g.Handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("passed") }))
			r, w := httptest.NewRequest("GET", "/", nil), httptest.NewRecorder()
			r.Header = test.header
			h.ServeHTTP(w, r)
			if got := w.Header().Values("WWW-Authenticate"); w.Code != http.StatusUnauthorized || strings.Join(got, "\n") != strings.Join(test.want, "\n") {
				t.Errorf("%d\n%s\nwant\n%s", w.Code, strings.Join(got, "\n"), strings.Join(test.want, "\n"))
			}
		})
	}
}

func TestAHandlerBehindIsToldWhoCalls(t *testing.T) {
	h := identity.New(policy).Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if p := identity.FromContext(r.Context()); p == nil || p.Subject() != "alice" || p.ID() != "accounts|alice" {
			t.Errorf("%+v", p)
		}
	}))
	r := httptest.NewRequest("GET", "/", nil)
	r.Header = header("Authorization", "Bearer ey-accounts")
	h.ServeHTTP(httptest.NewRecorder(), r)
	if p := identity.FromContext(t.Context()); p != nil {
		t.Errorf("%+v", p)
	}
}

// bound vouches for tokens that somebody has to prove that they are his.
type bound struct{ known }

func (bound) Verify(context.Context, string, time.Time) (*identity.Principal, guard.Decision) {
	p := principal.New(principal.Facts{Source: "accounts", Subject: "alice", Method: identity.JWT, Confirmation: "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"})
	return p, guard.Decision{Reason: guard.IdentityVerified}
}

func TestAHandlerThatAsksForNoProofTakesNoBoundToken(t *testing.T) {
	h := identity.New(identity.Policy{Sources: policy.Sources, Bearer: []identity.Verifier{bound{known{"ey-", identity.JWT}}}}).
		Handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("passed") }))
	r, w := httptest.NewRequest("GET", "/", nil), httptest.NewRecorder()
	r.Header = header("Authorization", "Bearer ey-accounts")
	h.ServeHTTP(w, r)
	if w.Code != http.StatusUnauthorized || !strings.Contains(w.Body.String(), "proof-missing") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

func header(pairs ...string) http.Header {
	h := make(http.Header)
	for i := 0; i < len(pairs); i += 2 {
		h[pairs[i]] = append(h[pairs[i]], pairs[i+1])
	}
	return h
}
