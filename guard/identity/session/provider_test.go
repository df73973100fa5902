package session_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/moat-gateway/moat/guard"
	"github.com/moat-gateway/moat/guard/identity/session"
	"github.com/moat-gateway/moat/store/memory"
	"github.com/moat-gateway/moat/web"
)

const (
	issuer       = "https://login.example"
	origin       = "https://app.example"
	clientSecret = "the client's secret"
	loginPath    = "/.moat/login/staff"
)

// provider is one that a test can make lie. It is reached without a network. What a certified
// one does is shown in package e2e.
type provider struct {
	t        testing.TB
	key      *ecdsa.PrivateKey
	metadata map[string]any
	// claims are those of the next ID token, beside what every one has; nil leaves one out.
	claims   map[string]any
	userinfo map[string]any
	// sign makes a token of claims; nil stands for one as it should be.
	sign func(claims map[string]any) string
	// answer changes what the token endpoint answers, and handle answers at a path in the place
	// of the provider.
	answer  func(map[string]any)
	handle  map[string]http.HandlerFunc
	subject string
	life    int // of access tokens, in seconds

	mu    sync.Mutex
	asked map[string]int
	codes map[string]url.Values // what was asked for with the code
	live  string                // the refresh token that is honoured
	last  string                // the access token
	n     int
}

func newProvider(t testing.TB) *provider {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return &provider{
		t: t, key: key, claims: map[string]any{}, userinfo: map[string]any{"sub": "alice", "email": "alice@example.com"}, subject: "alice", life: 3600,
		metadata: map[string]any{
			"issuer": issuer, "authorization_endpoint": issuer + "/auth", "token_endpoint": issuer + "/token", "jwks_uri": issuer + "/keys",
			"userinfo_endpoint": issuer + "/userinfo", "end_session_endpoint": issuer + "/end?x=1",
		},
		handle: map[string]http.HandlerFunc{}, asked: map[string]int{}, codes: map[string]url.Values{},
	}
}

// RoundTrip implements http.RoundTripper.
func (p *provider) RoundTrip(r *http.Request) (*http.Response, error) {
	p.mu.Lock()
	p.asked[r.URL.Path]++
	h := p.handle[r.URL.Path]
	p.mu.Unlock()
	w := httptest.NewRecorder()
	switch {
	case h != nil:
		h(w, r)
	default:
		p.serve(w, r)
	}
	return w.Result(), r.Context().Err()
}

// at answers at a path in the place of the provider, or does so no more.
func (p *provider) at(path string, h http.HandlerFunc) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.handle[path] = h
}

func (p *provider) count(path string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.asked[path]
}

func (p *provider) serve(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	switch r.URL.Path {
	case "/.well-known/openid-configuration":
		json.NewEncoder(w).Encode(p.metadata)
	case "/keys":
		json.NewEncoder(w).Encode(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: p.key.Public(), KeyID: "1", Algorithm: "ES256", Use: "sig"}}})
	case "/userinfo":
		if r.Header.Get("Authorization") != "Bearer "+p.last {
			p.t.Errorf("userinfo is asked with %q", r.Header.Get("Authorization"))
		}
		json.NewEncoder(w).Encode(p.userinfo)
	case "/token":
		p.token(w, r)
	default:
		w.WriteHeader(http.StatusNotFound)
	}
}

func (p *provider) token(w http.ResponseWriter, r *http.Request) {
	r.ParseForm()
	if id, secret, _ := r.BasicAuth(); id != "gate" || secret != url.QueryEscape(clientSecret) {
		p.t.Errorf("the client is %q with %q", id, secret)
	}
	nonce := ""
	switch r.PostForm.Get("grant_type") {
	case "authorization_code":
		asked, ok := p.codes[r.PostForm.Get("code")]
		delete(p.codes, r.PostForm.Get("code"))
		sum := sha256.Sum256([]byte(r.PostForm.Get("code_verifier")))
		if !ok || asked.Get("code_challenge") != base64.RawURLEncoding.EncodeToString(sum[:]) || asked.Get("redirect_uri") != r.PostForm.Get("redirect_uri") {
			refuse(w, "invalid_grant")
			return
		}
		nonce = asked.Get("nonce")
	case "refresh_token":
		if r.PostForm.Get("refresh_token") != p.live {
			refuse(w, "invalid_grant")
			return
		}
	}
	p.n++
	p.live, p.last = "refresh-"+strconv.Itoa(p.n), "access-"+strconv.Itoa(p.n)
	answer := map[string]any{"access_token": p.last, "token_type": "Bearer", "expires_in": p.life, "refresh_token": p.live, "id_token": p.idToken(nonce)}
	if p.answer != nil {
		p.answer(answer)
	}
	json.NewEncoder(w).Encode(answer)
}

func refuse(w http.ResponseWriter, code string) {
	w.WriteHeader(http.StatusBadRequest)
	json.NewEncoder(w).Encode(map[string]string{"error": code, "error_description": "the secret is " + clientSecret})
}

func (p *provider) idToken(nonce string) string {
	sum := sha256.Sum256([]byte(p.last))
	claims := map[string]any{
		"iss": issuer, "aud": "gate", "sub": p.subject, "sid": "sid of " + p.subject, "nonce": nonce, "iat": time.Now().Unix(), "exp": time.Now().Add(time.Hour).Unix(),
		"at_hash": base64.RawURLEncoding.EncodeToString(sum[:16]), "roles": []string{"user"}, "scope": "read write",
	}
	if nonce == "" {
		delete(claims, "nonce")
	}
	return p.signed(claims, p.claims)
}

// signed makes a token of claims and what changes them.
func (p *provider) signed(claims, changes map[string]any) string {
	maps.Copy(claims, changes)
	maps.DeleteFunc(claims, func(_ string, v any) bool { return v == nil })
	if p.sign != nil {
		return p.sign(claims)
	}
	return jws(p.t, jose.ES256, p.key, claims)
}

func jws(t testing.TB, alg jose.SignatureAlgorithm, key crypto.PrivateKey, claims map[string]any) string {
	t.Helper()
	s, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: jose.JSONWebKey{Key: key, KeyID: "1"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	o, err := s.Sign(text)
	if err != nil {
		t.Fatal(err)
	}
	compact, err := o.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return compact
}

// unsigned makes a token that has alg none.
func unsigned(claims map[string]any) string {
	text, _ := json.Marshal(claims)
	return base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none"}`)) + "." + base64.RawURLEncoding.EncodeToString(text) + "."
}

// gate is a guard and its store.
type gate struct {
	t testing.TB
	*session.Guard
	store    *spy
	provider *provider
}

func newGate(t testing.TB, p *provider, change func(*session.Policy)) *gate {
	t.Helper()
	return gateOn(t, p, &spy{Store: memory.NewSessions(1 << 20)}, change)
}

func gateOn(t testing.TB, p *provider, s *spy, change func(*session.Policy)) *gate {
	t.Helper()
	g, err := session.New(policy(t, p, change), s, nil)
	if err != nil {
		t.Fatal(err)
	}
	return &gate{t, g, s, p}
}

func policy(t testing.TB, p *provider, change func(*session.Policy)) session.Policy {
	t.Helper()
	var origins []web.Origin
	for _, text := range []string{origin, "http://app.example", "https://other.example", "http://plain.example"} {
		o, err := web.ParseOrigin(text)
		if err != nil {
			t.Fatal(err)
		}
		origins = append(origins, o)
	}
	policy := session.Policy{
		Source: "staff", Issuer: issuer, ClientID: "gate", ClientSecret: clientSecret, Public: web.NewPublicOrigins(origins),
		ScopeClaim: "scope", RolesClaim: "roles", Transport: p,
	}
	if change != nil {
		change(&policy)
	}
	return policy
}

// spy is a store that can be told to fail, and counts.
type spy struct {
	session.Store
	fails error
	// failsDeleteAll is for a store that fails in between.
	failsDeleteAll bool

	mu      sync.Mutex
	touches int
	entries []session.Entry // that were put
}

func (s *spy) Put(ctx context.Context, e session.Entry) (bool, error) {
	s.mu.Lock()
	s.entries = append(s.entries, e)
	s.mu.Unlock()
	if s.fails != nil {
		return false, s.fails
	}
	return s.Store.Put(ctx, e)
}

func (s *spy) Get(ctx context.Context, id session.ID) (session.Entry, bool, error) {
	if s.fails != nil {
		return session.Entry{}, false, s.fails
	}
	return s.Store.Get(ctx, id)
}

func (s *spy) Touch(ctx context.Context, id session.ID, expires time.Time) error {
	s.touches++
	return s.Store.Touch(ctx, id, expires)
}

func (s *spy) DeleteAll(ctx context.Context, index session.ID) error {
	if s.failsDeleteAll {
		return errors.New("no connection")
	}
	return s.Store.DeleteAll(ctx, index)
}

// browser keeps cookies as one does, and knows one site alone.
type browser struct {
	g       *gate
	host    string
	cookies []*http.Cookie
}

func (g *gate) browser() *browser { return &browser{g: g, host: "app.example"} }

type handler func(http.ResponseWriter, *http.Request, time.Time) guard.Decision

func (b *browser) do(h handler, method, target, body string, change ...func(*http.Request)) (*http.Response, guard.Decision) {
	b.g.t.Helper()
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	r.Host = b.host
	if body != "" {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	for _, c := range b.cookies {
		r.AddCookie(&http.Cookie{Name: c.Name, Value: c.Value})
	}
	for _, f := range change {
		f(r)
	}
	w := httptest.NewRecorder()
	d := h(w, r, time.Now())
	res := w.Result()
	b.keep(res)
	if d.Denied() && (w.Body.Len() > 0 || res.Header.Get("Location") != "") {
		b.g.t.Errorf("a refusal has been answered: %q", w.Body)
	}
	if text := d.Evidence.Where + d.Evidence.Got + d.Evidence.Want; strings.Contains(text, clientSecret) ||
		strings.Contains(text, "access-") || strings.Contains(text, "refresh-") || strings.Contains(text, "eyJ") {
		b.g.t.Errorf("the evidence holds a secret: %q", text)
	}
	return res, d
}

// keep takes what an answer sets.
func (b *browser) keep(res *http.Response) {
	for _, c := range res.Cookies() {
		if !c.Secure || !c.HttpOnly || c.SameSite != http.SameSiteLaxMode || c.Path != "/" || c.Domain != "" || !strings.HasPrefix(c.Name, "__Host-") || c.MaxAge == 0 {
			b.g.t.Errorf("not a cookie for a session: %s", c)
		}
		b.forget(c.Name)
		if c.MaxAge > 0 {
			b.cookies = append(b.cookies, c)
		}
	}
}

func (b *browser) forget(name string) {
	var rest []*http.Cookie
	for _, c := range b.cookies {
		if c.Name != name {
			rest = append(rest, c)
		}
	}
	b.cookies = rest
}

func (b *browser) session() string {
	for _, c := range b.cookies {
		if c.Name == b.g.Cookie() {
			return c.Value
		}
	}
	return ""
}

// begin goes to the login page, and on to the provider, which gives a code: it returns the
// query that the provider sends the browser back with.
func (b *browser) begin(target string) url.Values {
	b.g.t.Helper()
	res, d := b.do(b.g.Login, "GET", target, "")
	to, err := url.Parse(res.Header.Get("Location"))
	if d.Denied() || err != nil || res.StatusCode != http.StatusFound || !strings.HasPrefix(to.String(), issuer+"/auth?") {
		b.g.t.Fatalf("login: %d to %q: %s %+v", res.StatusCode, to, d.Reason, d.Evidence)
	}
	q := to.Query()
	if q.Get("response_type") != "code" || q.Get("code_challenge_method") != "S256" || q.Get("client_id") != "gate" || len(q.Get("nonce")) < 43 || q.Get("scope") != "openid" {
		b.g.t.Errorf("asks the provider for %v", q)
	}
	p := b.g.provider
	p.mu.Lock()
	defer p.mu.Unlock()
	code := "code-" + rand.Text()
	p.codes[code] = q
	return url.Values{"code": {code}, "state": {q.Get("state")}}
}

func (b *browser) callback(q url.Values) (*http.Response, guard.Decision) {
	b.g.t.Helper()
	return b.do(b.g.Callback, "GET", "/.moat/callback/staff?"+q.Encode(), "")
}

func (b *browser) signIn() {
	b.g.t.Helper()
	res, d := b.callback(b.begin(loginPath))
	if d.Denied() || res.StatusCode != http.StatusSeeOther || b.session() == "" {
		b.g.t.Fatalf("%d, %s %+v", res.StatusCode, d.Reason, d.Evidence)
	}
}

func (b *browser) is(want guard.Reason) {
	b.g.t.Helper()
	p, d := b.g.Verify(b.g.t.Context(), b.session(), time.Now())
	if d.Reason != want || (p != nil) != (want == guard.IdentityVerified) {
		b.g.t.Errorf("the session: %s %+v, want %s", d.Reason, d.Evidence, want)
	}
}

func body(t testing.TB, res *http.Response) string {
	t.Helper()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
