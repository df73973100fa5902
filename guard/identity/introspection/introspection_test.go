package introspection_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/moat-gateway/moat/guard"
	"github.com/moat-gateway/moat/guard/identity"
	"github.com/moat-gateway/moat/guard/identity/introspection"
)

var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// server is an authorization server with the answers that a test gives it.
type server struct {
	*httptest.Server
	mu      sync.Mutex
	answers map[string]string // by token; what it does not know is not active
	asked   int
}

func newServer(t testing.TB) *server {
	t.Helper()
	s := &server{answers: make(map[string]string)}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id, secret, _ := r.BasicAuth()
		if r.Method != http.MethodPost || id != "moat%3Agate" || secret != "s%3Fcret%26+" || r.Header.Get("Idempotency-Key") != "" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		if r.FormValue("token_type_hint") != "access_token" {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		s.mu.Lock()
		s.asked++
		answer, ok := s.answers[r.PostFormValue("token")]
		s.mu.Unlock()
		if !ok {
			answer = `{"active":false}`
		}
		w.Header().Set("Content-Type", "application/json;charset=UTF-8")
		io.WriteString(w, answer)
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *server) set(token, answer string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answers[token] = answer
}

// questions is how many were asked since it was last called.
func (s *server) questions() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.asked
	s.asked = 0
	return n
}

func policy(u string) introspection.Policy {
	return introspection.Policy{Source: "staff", URL: u, ClientID: "moat:gate", ClientSecret: "s?cret& "}
}

func newVerifier(t testing.TB, p introspection.Policy) *introspection.Verifier {
	t.Helper()
	v, err := introspection.New(p, nil)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// The answer of RFC 7662 section 2.2, as far as this verifier reads it.
const example = `{
	"active": true, "client_id": "l238j323ds-23ij4", "username": "jdoe", "scope": "read write dolphin", "sub": "Z5O3upPC88QrAjx00dis",
	"aud": "https://protected.example.net/resource", "iss": "https://server.example.com/", "exp": 1919419200, "iat": 1419350238,
	"extension_field": "twenty-seven"}`

func TestTheAnswersOfTheStandard(t *testing.T) {
	s := newServer(t)
	s.set("2YotnFZFEjr1zCsicMWpAA", example)
	p := policy(s.URL)
	p.Issuer, p.Audiences = "https://server.example.com/", []string{"https://protected.example.net/resource"}
	v := newVerifier(t, p)
	who, d := v.Verify(t.Context(), "2YotnFZFEjr1zCsicMWpAA", now)
	if d.Reason != guard.IdentityVerified || d.Denied() {
		t.Fatal(d)
	}
	field, _ := who.Claim("extension_field")
	if who.ID() != "staff|Z5O3upPC88QrAjx00dis" || who.Method() != identity.Introspection || who.Issuer() != "https://server.example.com/" || field != "twenty-seven" {
		t.Errorf("%+v", who)
	}
	if !reflect.DeepEqual(who.Scopes(), []string{"dolphin", "read", "write"}) || len(who.Roles()) != 0 || who.Expires().Unix() != 1919419200 || who.Confirmation() != "" {
		t.Errorf("%+v", who)
	}
	if who, d = v.Verify(t.Context(), "mF_9.B5f-4.1JqM", now); who != nil || d.Reason != guard.TokenInactive {
		t.Error(d)
	}
}

func TestWhatAnAnswerHasToSay(t *testing.T) {
	soon, past := now.Add(time.Hour).Unix(), now.Add(-time.Second).Unix()
	for answer, want := range map[string]guard.Reason{
		`{"active":true,"sub":"a"}`:                                      guard.IdentityVerified,
		`{"active":true,"sub":"a","aud":["x","orders"]}`:                 guard.IdentityVerified,
		`{"active":false,"sub":"a"}`:                                     guard.TokenInactive,
		`{"active":"true","sub":"a"}`:                                    guard.IdentityUnavailable,
		`{"active":1,"sub":"a"}`:                                         guard.IdentityUnavailable,
		`{"active":null,"sub":"a"}`:                                      guard.IdentityUnavailable,
		`{"sub":"a"}`:                                                    guard.IdentityUnavailable,
		`{"active":false,"active":true,"sub":"a"}`:                       guard.IdentityUnavailable,
		`{"Active":true,"sub":"a"}`:                                      guard.IdentityUnavailable,
		`[{"active":true,"sub":"a"}]`:                                    guard.IdentityUnavailable,
		``:                                                               guard.IdentityUnavailable,
		`{"active":true}`:                                                guard.TokenClaimMissing,
		`{"active":true,"sub":""}`:                                       guard.TokenClaimMissing,
		`{"active":true,"sub":7}`:                                        guard.TokenClaimMissing,
		`{"active":true,"username":"a"}`:                                 guard.TokenClaimMissing,
		`{"active":true,"sub":"a","iss":"https://as.example"}`:           guard.IdentityVerified,
		`{"active":true,"sub":"a","iss":"https://as.example/"}`:          guard.TokenIssuerUnknown,
		`{"active":true,"sub":"a","iss":["https://as.example"]}`:         guard.TokenIssuerUnknown,
		`{"active":true,"sub":"a","iss":null}`:                           guard.TokenIssuerUnknown,
		fmt.Sprintf(`{"active":true,"sub":"a","exp":%d}`, soon):          guard.IdentityVerified,
		fmt.Sprintf(`{"active":true,"sub":"a","exp":%d.5}`, soon):        guard.IdentityVerified,
		fmt.Sprintf(`{"active":true,"sub":"a","exp":%d}`, past):          guard.TokenExpired,
		fmt.Sprintf(`{"active":true,"sub":"a","exp":%d}`, now.Unix()):    guard.TokenExpired,
		fmt.Sprintf(`{"active":true,"sub":"a","exp":"%d"}`, soon):        guard.TokenClaimMissing,
		`{"active":true,"sub":"a","exp":0}`:                              guard.TokenClaimMissing,
		`{"active":true,"sub":"a","exp":null}`:                           guard.TokenClaimMissing,
		`{"active":true,"sub":"a","exp":9223372036854775807}`:            guard.TokenClaimMissing,
		`{"active":true,"sub":"a","exp":1e300}`:                          guard.TokenClaimMissing,
		fmt.Sprintf(`{"active":true,"sub":"a","nbf":%d}`, soon):          guard.TokenNotYetValid,
		fmt.Sprintf(`{"active":true,"sub":"a","nbf":%d}`, now.Unix()+30): guard.IdentityVerified,
		`{"active":true,"sub":"a","nbf":9223372036854775807}`:            guard.TokenClaimMissing,
		`{"active":true,"sub":"a","nbf":"now"}`:                          guard.TokenClaimMissing,
		`{"active":true,"sub":"a","cnf":{"jkt":"0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"}}`:      guard.IdentityVerified,
		`{"active":true,"sub":"a","cnf":{"x5t#S256":"A4DtL2JmUMhAsvJj5tKyn64SqzmuXbMrJa0n761y5v0"}}`: guard.TokenClaimMissing,
		`{"active":true,"sub":"a","cnf":{"jkt":"a","x5t#S256":"b"}}`:                                 guard.TokenClaimMissing,
		`{"active":true,"sub":"a","cnf":{}}`:                                                         guard.TokenClaimMissing,
		`{"active":true,"sub":"a","cnf":null}`:                                                       guard.TokenClaimMissing,
	} {
		t.Run(answer, func(t *testing.T) {
			s := newServer(t)
			s.set("secret-token", answer)
			p := policy(s.URL)
			p.Issuer = "https://as.example"
			who, d := newVerifier(t, p).Verify(t.Context(), "secret-token", now)
			if d.Reason != want || d.Denied() == (who != nil) {
				t.Errorf("%s, want %s", d.Reason, want)
			}
			if strings.Contains(fmt.Sprint(d), "secret-token") {
				t.Errorf("the token is in %+v", d)
			}
		})
	}
}

func TestAnAudienceThatIsAskedForHasToBeThere(t *testing.T) {
	for aud, want := range map[string]guard.Reason{
		`,"aud":"orders"`:                           guard.IdentityVerified,
		`,"aud":["billing","orders"]`:               guard.IdentityVerified,
		`,"aud":"other"`:                            guard.IdentityVerified,
		`,"aud":["billing"]`:                        guard.TokenAudienceWrong,
		`,"aud":"billing orders"`:                   guard.TokenAudienceWrong, // one, with a blank in it
		`,"aud":[["orders"]]`:                       guard.TokenAudienceWrong,
		`,"aud":{"orders":true}`:                    guard.TokenAudienceWrong,
		`,"aud":[]`:                                 guard.TokenAudienceWrong,
		`,"aud":"` + strings.Repeat("a", 999) + `"`: guard.TokenAudienceWrong,
		``: guard.TokenAudienceWrong,
	} {
		s := newServer(t)
		s.set("t", `{"active":true,"sub":"a"`+aud+`}`)
		p := policy(s.URL)
		p.Audiences = []string{"orders", "other"}
		if _, d := newVerifier(t, p).Verify(t.Context(), "t", now); d.Reason != want || len(d.Evidence.Got) > 200 {
			t.Errorf("%s: %+v, want %s", aud, d, want)
		}
	}
}

func TestScopesAndRolesComeFromTheClaimsThatArePointedAt(t *testing.T) {
	s := newServer(t)
	s.set("t", `{"active":true,"sub":"a","jti":"j1","scp":["b","a"],"scope":"none","realm_access":{"roles":["admin"]},"cnf":{"jkt":"thumb"}}`)
	p := policy(s.URL)
	p.ScopeClaim, p.RolesClaim = "scp", "realm_access.roles"
	who, d := newVerifier(t, p).Verify(t.Context(), "t", now)
	if who == nil || !reflect.DeepEqual(who.Scopes(), []string{"a", "b"}) || !reflect.DeepEqual(who.Roles(), []string{"admin"}) {
		t.Fatal(who, d)
	}
	if who.Credential() != "j1" || who.Confirmation() != "thumb" || who.Issuer() != s.URL {
		t.Errorf("%+v", who)
	}
}

func TestAServerThatCannotSayLetsNobodyIn(t *testing.T) {
	good := func(w http.ResponseWriter) {
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, `{"active":true,"sub":"a"}`)
	}
	elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		t.Error("a redirect was followed")
		good(w)
	}))
	defer elsewhere.Close()
	for name, test := range map[string]struct {
		serve func(w http.ResponseWriter)
		got   string
	}{
		"another status":  {func(w http.ResponseWriter) { w.WriteHeader(500); good(w) }, "it answered 500"},
		"no content":      {func(w http.ResponseWriter) { w.WriteHeader(204) }, "it answered 204"},
		"a redirect":      {func(w http.ResponseWriter) { w.Header().Set("Location", elsewhere.URL); w.WriteHeader(307) }, "it answered 307"},
		"it knows us not": {func(w http.ResponseWriter) { w.WriteHeader(401) }, "it answered 401: it does not accept the gate's client_id and client_secret"},
		"another type": {func(w http.ResponseWriter) {
			w.Header().Set("Content-Type", "text/html")
			io.WriteString(w, `{"active":true,"sub":"a"}`)
		}, "its answer is not application/json"},
		"a JWT": {func(w http.ResponseWriter) {
			w.Header().Set("Content-Type", "application/token-introspection+jwt")
			io.WriteString(w, "a.b.c")
		}, "its answer is not application/json"},
		"no type": {func(w http.ResponseWriter) {
			w.Header()["Content-Type"] = nil
			io.WriteString(w, `{"active":true,"sub":"a"}`)
		}, "its answer is not application/json"},
		"too much": {func(w http.ResponseWriter) {
			w.Header().Set("Content-Type", "application/json")
			io.WriteString(w, `{"active":true,"sub":"a","x":"`+strings.Repeat("x", 64<<10)+`"}`)
		}, "its answer is larger than 65536 bytes"},
		"the token, broken": {func(w http.ResponseWriter) {
			w.Header().Set("Content-Type", "application/json")
			io.WriteString(w, `{"secret-token`)
		}, "its answer: not JSON"},
		"it hangs up": {func(http.ResponseWriter) { panic(http.ErrAbortHandler) }, "it did not answer in HTTP"},
		"not HTTP": {func(w http.ResponseWriter) {
			conn, _, err := w.(http.Hijacker).Hijack()
			if err == nil {
				io.WriteString(conn, "secret-token\r\n\r\n")
				conn.Close()
			}
		}, "it did not answer in HTTP"},
	} {
		t.Run(name, func(t *testing.T) {
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { test.serve(w) }))
			defer s.Close()
			who, d := newVerifier(t, policy(s.URL)).Verify(t.Context(), "secret-token", now)
			if who != nil || d.Reason != guard.IdentityUnavailable || d.Evidence.Got != test.got {
				t.Errorf("%+v, want %q", d, test.got)
			}
		})
	}
	gone := httptest.NewServer(nil)
	gone.Close()
	if _, d := newVerifier(t, policy(gone.URL)).Verify(t.Context(), "t", now); d.Reason != guard.IdentityUnavailable || !strings.Contains(d.Evidence.Got, "connection refused") {
		t.Errorf("%+v", d)
	}
	if _, d := newVerifier(t, policy("https"+strings.TrimPrefix(elsewhere.URL, "http"))).Verify(t.Context(), "t", now); d.Reason != guard.IdentityUnavailable {
		t.Errorf("%+v", d)
	}
}

func TestATokenThatNobodyWouldMakeIsNotAskedAbout(t *testing.T) {
	s := newServer(t)
	v := newVerifier(t, policy(s.URL))
	for _, token := range []string{"", strings.Repeat("a", 16<<10+1)} {
		if _, d := v.Verify(t.Context(), token, now); d.Reason != guard.TokenMalformed {
			t.Error(d.Reason)
		}
	}
	if s.questions() != 0 || v.Recognizes("") || !v.Recognizes("a") {
		t.Error("asked")
	}
}

func TestWhichServersAreNotAsked(t *testing.T) {
	for u, want := range map[string]string{
		"http://login.example/introspect":      "without https",
		"http://localhost.example/introspect":  "without https",
		"https://u:p@login.example/introspect": "not a URL",
		"login.example/introspect":             "not a URL",
		"file:///introspect":                   "not a URL",
		"https:///introspect":                  "not a URL",
		"https://login.example/#introspect":    "not a URL",
		"http://login.example:port/":           "not a URL",
	} {
		if _, err := introspection.New(policy(u), nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", u, err, want)
		}
	}
	for _, u := range []string{"https://login.example/introspect", "http://localhost:1/i", "http://127.0.0.2/i", "http://[::1]:8/i"} {
		if _, err := introspection.New(policy(u), nil); err != nil {
			t.Errorf("%s: %v", u, err)
		}
	}
	p := policy("https://login.example/")
	p.ClientID = ""
	if _, err := introspection.New(p, nil); err == nil {
		t.Error("it asks as nobody")
	}
}

func TestAnswersAreRemembered(t *testing.T) {
	s := newServer(t)
	s.set("lasting", `{"active":true,"sub":"a"}`)
	s.set("short", fmt.Sprintf(`{"active":true,"sub":"a","exp":%d}`, now.Add(20*time.Second).Unix()))
	v := newVerifier(t, policy(s.URL))
	ask := func(token string, after time.Duration, want guard.Reason, questions int) {
		t.Helper()
		_, d := v.Verify(t.Context(), token, now.Add(after))
		if n := s.questions(); d.Reason != want || n != questions {
			t.Errorf("%s after %v: %s and %d questions, want %s and %d", token, after, d.Reason, n, want, questions)
		}
	}
	ask("lasting", 0, guard.IdentityVerified, 1)
	ask("lasting", 59*time.Second, guard.IdentityVerified, 0)
	ask("lasting", 60*time.Second, guard.IdentityVerified, 1)
	ask("short", 0, guard.IdentityVerified, 1)
	ask("short", 19*time.Second, guard.IdentityVerified, 0)
	ask("short", 20*time.Second, guard.TokenExpired, 0) // there is nothing to ask
	ask("none", 0, guard.TokenInactive, 1)
	s.set("none", `{"active":true,"sub":"a"}`)
	ask("none", 9*time.Second, guard.TokenInactive, 0)
	ask("none", 10*time.Second, guard.IdentityVerified, 1)

	s.set("lasting", `{"active":false}`) // revoked
	ask("lasting", 119*time.Second, guard.IdentityVerified, 0)
	ask("lasting", 120*time.Second, guard.TokenInactive, 1)
	s.set("lasting", `nothing`) // the server cannot say
	ask("lasting", 131*time.Second, guard.IdentityUnavailable, 1)
	ask("lasting", 131500*time.Millisecond, guard.IdentityUnavailable, 0)
	ask("lasting", 132*time.Second, guard.IdentityUnavailable, 1)
}

func TestStaleAnswersCountOnlyIfTheyMay(t *testing.T) {
	s := newServer(t)
	p := policy(s.URL)
	p.StaleFor = 5 * time.Minute
	for name, test := range map[string]struct {
		stale  time.Duration
		then   string
		after  time.Duration
		reason guard.Reason
	}{
		"closed unless said otherwise": {0, `broken`, 61 * time.Second, guard.IdentityUnavailable},
		"still":                        {5 * time.Minute, `broken`, 6*time.Minute - time.Second, guard.IdentityVerified},
		"no longer":                    {5 * time.Minute, `broken`, 6 * time.Minute, guard.IdentityUnavailable},
		"the server says no":           {5 * time.Minute, `{"active":false}`, 61 * time.Second, guard.TokenInactive},
		"the token has expired":        {time.Hour, `broken`, 30 * time.Minute, guard.TokenExpired},
	} {
		t.Run(name, func(t *testing.T) {
			p.StaleFor = test.stale
			v := newVerifier(t, p)
			s.set("t", fmt.Sprintf(`{"active":true,"sub":"a","exp":%d}`, now.Add(30*time.Minute).Unix()))
			if _, d := v.Verify(t.Context(), "t", now); d.Reason != guard.IdentityVerified {
				t.Fatal(d)
			}
			s.set("t", test.then)
			for range 2 { // the second one is not asked for, and must say the same
				if who, d := v.Verify(t.Context(), "t", now.Add(test.after)); d.Reason != test.reason || d.Denied() == (who != nil) {
					t.Errorf("%s, want %s", d.Reason, test.reason)
				}
			}
		})
	}
	// What was revoked does not come back when the server goes away.
	p.StaleFor = time.Hour
	v := newVerifier(t, p)
	for i, step := range []struct {
		answer string
		want   guard.Reason
	}{
		{`{"active":true,"sub":"a"}`, guard.IdentityVerified},
		{`{"active":false}`, guard.TokenInactive},
		{`broken`, guard.IdentityUnavailable},
	} {
		s.set("r", step.answer)
		if _, d := v.Verify(t.Context(), "r", now.Add(time.Duration(i)*time.Minute)); d.Reason != step.want {
			t.Errorf("%d: %s, want %s", i, d.Reason, step.want)
		}
	}
}

// transport answers in the place of a server, so that time can be a test's own.
type transport func(token string) string

func (f transport) RoundTrip(r *http.Request) (*http.Response, error) {
	b, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	form, err := url.ParseQuery(string(b))
	if err != nil {
		return nil, err
	}
	got := make(chan string, 1)
	go func() { got <- f(form.Get("token")) }()
	select {
	case answer := <-got:
		return &http.Response{StatusCode: 200, Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(strings.NewReader(answer))}, nil
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
}

func faked(f transport) introspection.Policy {
	p := policy("https://login.example/introspect")
	p.Transport = f
	return p
}

func TestOneQuestionForAllWhoAskAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int32
		v := newVerifier(t, faked(func(string) string {
			asked.Add(1)
			time.Sleep(time.Second)
			return `{"active":true,"sub":"a"}`
		}))
		for range 100 {
			go func() {
				if _, d := v.Verify(t.Context(), "t", time.Now()); d.Reason != guard.IdentityVerified {
					t.Error(d)
				}
			}()
		}
		synctest.Wait()
		time.Sleep(2 * time.Second)
		if asked.Load() != 1 {
			t.Errorf("%d questions", asked.Load())
		}
	})
}

func TestAClientThatGoesAwayEndsNobodysQuestion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newVerifier(t, faked(func(string) string { time.Sleep(time.Second); return `{"active":true,"sub":"a"}` }))
		ctx, cancel := context.WithCancel(t.Context())
		reasons := make(chan guard.Reason, 2)
		for _, ctx := range []context.Context{ctx, t.Context()} {
			go func() {
				_, d := v.Verify(ctx, "t", time.Now())
				reasons <- d.Reason
			}()
			synctest.Wait() // the first one asks
		}
		cancel()
		if first, second := <-reasons, <-reasons; first != guard.RequestAborted || second != guard.IdentityVerified {
			t.Errorf("%s, %s", first, second)
		}
	})
}

func TestAServerThatDoesNotAnswerIsNotWaitedForLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newVerifier(t, faked(func(string) string { time.Sleep(time.Minute); return `{"active":true,"sub":"a"}` }))
		begin := time.Now()
		_, d := v.Verify(t.Context(), "t", begin)
		if took := time.Since(begin); d.Reason != guard.IdentityUnavailable || d.Evidence.Got != "it did not answer in time" || took != 3*time.Second {
			t.Errorf("%+v after %v", d, took)
		}
		time.Sleep(time.Minute)
	})
}

// A flood of made-up tokens asks few questions, and shuts out nobody who was let in before.
func TestAFloodOfJunk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked, most, atOnce atomic.Int32
		p := faked(func(token string) string {
			asked.Add(1)
			if n := atOnce.Add(1); n > most.Load() {
				most.Store(n)
			}
			defer atOnce.Add(-1)
			if strings.HasPrefix(token, "good") {
				time.Sleep(time.Millisecond)
				return `{"active":true,"sub":"a"}`
			}
			time.Sleep(10 * time.Millisecond)
			return `{"active":false}`
		})
		p.CacheFor = 2 * time.Second
		v := newVerifier(t, p)
		if _, d := v.Verify(t.Context(), "good", time.Now()); d.Reason != guard.IdentityVerified {
			t.Fatal(d)
		}
		asked.Store(0)
		refused := make(map[guard.Reason]int)
		var (
			mu sync.Mutex
			wg sync.WaitGroup
		)
		const seconds = 10
		for i := range seconds * 1000 {
			wg.Go(func() {
				_, d := v.Verify(t.Context(), fmt.Sprint("junk", i), time.Now())
				mu.Lock()
				defer mu.Unlock()
				refused[d.Reason]++
			})
			if i%100 == 0 {
				if _, d := v.Verify(t.Context(), "good", time.Now()); d.Reason != guard.IdentityVerified {
					t.Errorf("after %d: %+v", i, d)
				}
			}
			time.Sleep(time.Millisecond)
		}
		wg.Wait()
		time.Sleep(time.Second)
		// 100 at once, 100 each second, and the good one every 2 seconds.
		if n := asked.Load(); n > 100+seconds*100+seconds/2+2 || n < seconds*100 {
			t.Errorf("%d questions", n)
		}
		if most.Load() > 64 || refused[guard.TokenInactive]+refused[guard.IdentityUnavailable] != seconds*1000 || refused[guard.IdentityUnavailable] < 8500 {
			t.Errorf("%d at once, %v", most.Load(), refused)
		}

		// Tokens that turn out to be good cost nothing of what junk may ask.
		asked.Store(0)
		for i := range 1000 {
			if _, d := v.Verify(t.Context(), fmt.Sprint("good", i), time.Now()); d.Reason != guard.IdentityVerified {
				t.Fatalf("good%d: %+v", i, d)
			}
		}
	})
}

func TestHowManyQuestionsAreAskedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := false
		p := faked(func(string) string {
			if slow {
				time.Sleep(time.Second)
			}
			return `{"active":true,"sub":"a"}`
		})
		p.MaxInFlight, p.CacheFor = 8, time.Second
		v := newVerifier(t, p)
		for i := range 10 {
			v.Verify(t.Context(), fmt.Sprint("known", i), time.Now())
		}
		time.Sleep(2 * time.Second)
		slow = true
		count := func(prefix string, want int) {
			t.Helper()
			var admitted atomic.Int32
			for i := range 10 {
				go func() {
					if _, d := v.Verify(t.Context(), fmt.Sprint(prefix, i), time.Now()); d.Reason == guard.IdentityVerified {
						admitted.Add(1)
					}
				}()
			}
			synctest.Wait()
			t.Cleanup(func() {
				if n := int(admitted.Load()); n != want {
					t.Errorf("%d of %s, want %d", n, prefix, want)
				}
			})
		}
		count("stranger", 6)
		count("known", 2)
		time.Sleep(2 * time.Second)
	})
}

func TestWhatIsRememberedIsBounded(t *testing.T) {
	s := newServer(t)
	p := policy(s.URL)
	p.CacheEntries, p.MaxRefused = 10, 1000
	v := newVerifier(t, p)
	big := strings.Repeat("x", 3<<10)
	for i := range 10 {
		s.set(fmt.Sprint("good", i), `{"active":true,"sub":"a"}`)
		s.set(fmt.Sprint("big", i), `{"active":true,"sub":"a","x":"`+big+`"}`)
	}
	remembered := func(prefix string, n int) (known int) {
		for i := range n {
			v.Verify(t.Context(), fmt.Sprint(prefix, i), now)
		}
		s.questions()
		for i := range n { // the earliest first: newcomers take each other's place
			if v.Verify(t.Context(), fmt.Sprint(prefix, i), now); s.questions() == 0 {
				known++
			}
		}
		return known
	}
	if n := remembered("good", 5); n != 5 {
		t.Errorf("%d of 5 good ones", n)
	}
	if n := remembered("junk", 100); n < 5 || n > 10 { // and it is in a table of its own
		t.Errorf("%d of 100 refused ones", n)
	}
	if n := remembered("good", 5); n != 5 {
		t.Errorf("%d of 5 good ones", n)
	}
	for i := range 100 { // what is asked for all the time is not forgotten for what is not
		s.set(fmt.Sprint("other", i), `{"active":true,"sub":"a"}`)
		v.Verify(t.Context(), fmt.Sprint("other", i), now)
		s.questions()
		if v.Verify(t.Context(), "good0", now); i > 0 && s.questions() > 0 {
			t.Errorf("forgotten for the %dth other", i)
		}
	}
	for i := range 10 { // each counts as 4 of 10
		v.Verify(t.Context(), fmt.Sprint("big", i), now)
		s.questions()
		if v.Verify(t.Context(), fmt.Sprint("big", i), now); s.questions() > 0 {
			t.Errorf("the %dth large one was not remembered", i)
		}
	}
	if n := remembered("big", 10); n > 2 {
		t.Errorf("%d that count as 4, in 10", n)
	}
}

func TestAReloadForgetsNothingThatStillHolds(t *testing.T) {
	s := newServer(t)
	s.set("t", `{"active":true,"sub":"a","aud":"orders"}`)
	p := policy(s.URL)
	before := newVerifier(t, p)
	before.Verify(t.Context(), "t", now)
	for name, test := range map[string]struct {
		change    func(*introspection.Policy)
		questions int
	}{
		"nothing changed":  {func(*introspection.Policy) {}, 0},
		"a timeout":        {func(p *introspection.Policy) { p.Timeout = time.Second }, 0},
		"another source":   {func(p *introspection.Policy) { p.Source = "other" }, 1},
		"an audience":      {func(p *introspection.Policy) { p.Audiences = []string{"orders"} }, 1},
		"another claim":    {func(p *introspection.Policy) { p.ScopeClaim = "scp" }, 1},
		"another issuer":   {func(p *introspection.Policy) { p.Issuer = "https://as.example" }, 1},
		"another endpoint": {func(p *introspection.Policy) { p.URL += "/other" }, 1},
	} {
		changed := p
		test.change(&changed)
		v, err := introspection.New(changed, before)
		if err != nil {
			t.Fatal(err)
		}
		s.questions()
		if _, d := v.Verify(t.Context(), "t", now); d.Reason != guard.IdentityVerified || s.questions() != test.questions {
			t.Errorf("%s: %s, %d questions wanted", name, d.Reason, test.questions)
		}
	}
}

// FuzzAnswer wants that whoever is let in was said to be active, by name, in an answer that
// other parsers read in the same way.
func FuzzAnswer(f *testing.F) {
	for _, s := range []string{example, `{"active":true,"sub":"a","exp":2e9}`, `{"active":false}`, `{"active":true,"active":false,"sub":"a"}`, `{"active":true,"sub":"a","nbf":1e18,"cnf":{"jkt":"x"}}`, `{"active":true,"sub":"a","nbF":1e18}`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, answer string) {
		v := newVerifier(t, faked(func(string) string { return answer }))
		who, d := v.Verify(t.Context(), "the-token", now)
		if who == nil {
			if !d.Denied() || d.Reason.Step() != guard.Identity {
				t.Errorf("nobody, and %+v", d)
			}
			return
		}
		var claims map[string]any // a struct would take nbF for nbf
		if err := json.Unmarshal([]byte(answer), &claims); err != nil {
			t.Fatalf("%q: %v", answer, err)
		}
		if claims["active"] != true || claims["sub"] != who.Subject() || who.Subject() == "" {
			t.Errorf("%q let %q in", answer, who.Subject())
		}
		if nbf, ok := claims["nbf"].(float64); ok && nbf > float64(now.Unix()+31) {
			t.Errorf("%q is let in too early", answer)
		}
		if exp, ok := claims["exp"].(float64); ok && exp < float64(now.Unix()) {
			t.Errorf("%q has expired", answer)
		}
	})
}

func BenchmarkVerify(b *testing.B) {
	s := newServer(b)
	token := strings.Repeat("a", 43)
	s.set(token, example)
	p := policy(s.URL)
	v := newVerifier(b, p)
	v.Verify(b.Context(), token, now)
	b.Run("remembered", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			v.Verify(b.Context(), token, now)
		}
	})
	b.Run("remembered, in parallel", func(b *testing.B) {
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				v.Verify(b.Context(), token, now)
			}
		})
	})
	at := now
	b.Run("asked", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			at = at.Add(time.Minute)
			v.Verify(b.Context(), token, at)
		}
	})
}
