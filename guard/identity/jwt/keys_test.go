package jwt_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/moat-gateway/moat/guard"
	"github.com/moat-gateway/moat/guard/identity/jwt"
)

// keyServer is an issuer's server of keys.
type keyServer struct {
	*httptest.Server
	answer  atomic.Pointer[http.HandlerFunc]
	fetches atomic.Int64
}

func newKeyServer(t testing.TB, signers ...signer) *keyServer {
	t.Helper()
	k := new(keyServer)
	k.serve(t, signers...)
	k.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		k.fetches.Add(1)
		(*k.answer.Load())(w, r)
	}))
	t.Cleanup(k.Close)
	return k
}

// serve has it answer with these keys.
func (k *keyServer) serve(t testing.TB, signers ...signer) {
	t.Helper()
	set := jwks(t, signers...)
	k.answerWith(func(w http.ResponseWriter, _ *http.Request) { w.Write(set) })
}

func (k *keyServer) answerWith(h http.HandlerFunc) { k.answer.Store(&h) }

func (k *keyServer) fail() {
	k.answerWith(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) })
}

// issuer is one whose keys come from there.
func (k *keyServer) issuer() jwt.Issuer {
	conf := accounts(nil)
	conf.JWKSURL = k.URL
	return conf
}

// fetched wants that so many fetches were made.
func (k *keyServer) fetched(t testing.TB, want int64) {
	t.Helper()
	if got := k.fetches.Load(); got != want {
		t.Fatalf("%d fetches, want %d", got, want)
	}
}

// eventually waits for what a fetch in the background brings.
func eventually(t testing.TB, what string, done func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for !done() {
		select {
		case <-ctx.Done():
			t.Fatalf("not in 30 s: %s", what)
		case <-time.After(time.Millisecond):
		}
	}
}

// long is a lifetime that outlives every test's clock.
var long = claims{"exp": start.Add(1000 * time.Hour).Unix()}

func TestFirstTokensWaitForOneFetch(t *testing.T) {
	s := newSigner(t, "one")
	server := newKeyServer(t, s)
	v := verifier(t, server.issuer())
	server.fetched(t, 0)
	var wg sync.WaitGroup
	for range 16 {
		token := s.sign(t, long)
		wg.Go(func() {
			if _, d := v.Verify(t.Context(), token, start); d.Denied() {
				t.Error(told(d))
			}
		})
	}
	wg.Wait()
	server.fetched(t, 1)
}

func TestKeysAreFetchedAnewWhenTheirTimeIsOver(t *testing.T) {
	for header, ttl := range map[string]time.Duration{
		"": 5 * time.Minute, "max-age=600": 10 * time.Minute, "public, Max-Age=600": 10 * time.Minute, "max-age=1": time.Minute,
		"no-store": time.Minute, "max-age=99999999": 24 * time.Hour, "max-age=soon": 5 * time.Minute,
	} {
		s := newSigner(t, "one")
		set := jwks(t, s)
		server := newKeyServer(t)
		server.answerWith(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Cache-Control", header)
			w.Write(set)
		})
		v := verifier(t, server.issuer())
		token := s.sign(t, long)
		allow(t, v, token, 0)
		allow(t, v, token, ttl-time.Second)
		server.fetched(t, 1)
		allow(t, v, token, ttl)
		eventually(t, "a second fetch with "+header, func() bool { return server.fetches.Load() == 2 })
	}
}

func TestAWithdrawnKeyIsNotAcceptedAfterTheNextFetch(t *testing.T) {
	one, two := newSigner(t, "one"), newSigner(t, "two")
	server := newKeyServer(t, one, two)
	v := verifier(t, server.issuer())
	old, present := one.sign(t, long), two.sign(t, long)
	allow(t, v, old, 0)
	allow(t, v, present, 0)
	server.serve(t, two)
	allow(t, v, old, 4*time.Minute) // nobody knows yet
	// When the time is over, the first request has the keys fetched and does not wait.
	eventually(t, "the token of the withdrawn key is refused", func() bool {
		_, d := v.Verify(t.Context(), old, start.Add(5*time.Minute))
		return d.Reason == guard.TokenKeyUnknown
	})
	allow(t, v, present, 5*time.Minute)

	// After a night without requests the first one waits.
	server.serve(t, one)
	deny(t, v, present, 12*time.Hour, guard.TokenKeyUnknown)
	allow(t, v, old, 12*time.Hour)
}

func TestRotationRefusesNoValidToken(t *testing.T) {
	one := newSigner(t, "key-0")
	server := newKeyServer(t, one)
	v := verifier(t, server.issuer())
	previous := one
	allow(t, v, one.sign(t, long), 0)
	for n := 1; n < 20; n++ { // many more in the same second than could be in vain
		next := newSigner(t, fmt.Sprintf("key-%d", n))
		server.serve(t, previous, next)
		allow(t, v, next.sign(t, long), 0)
		allow(t, v, previous.sign(t, long), 0)
		previous = next
	}
	server.fetched(t, 20)
}

func TestAKeyThatIsReplacedUnderItsNameIsFound(t *testing.T) {
	for _, name := range []string{"", "signing"} {
		before, after := newSigner(t, name), newSigner(t, name)
		server := newKeyServer(t, before)
		v := verifier(t, server.issuer())
		allow(t, v, before.sign(t, long), 0)
		server.serve(t, after)
		allow(t, v, after.sign(t, long), 0)
		deny(t, v, before.sign(t, long), 0, guard.TokenSignatureInvalid)
	}
}

func TestAFloodOfBadTokensIsNoFloodOfFetches(t *testing.T) {
	s, stranger := newSigner(t, "one"), newSigner(t, "one")
	server := newKeyServer(t, s)
	v := verifier(t, server.issuer())
	good := s.sign(t, long)
	allow(t, v, good, 0)
	server.fetched(t, 1)
	flood := func(after time.Duration) {
		for n := range 50 {
			stranger.id = fmt.Sprintf("kid-%d-%d", n, after)
			deny(t, v, stranger.sign(t, long), after, guard.TokenKeyUnknown)
			stranger.id = "one"
			deny(t, v, stranger.sign(t, claims{"jti": n}), after, guard.TokenSignatureInvalid)
		}
	}
	flood(0)
	server.fetched(t, 1+3)
	flood(29 * time.Second)
	server.fetched(t, 1+3)
	flood(30 * time.Second)
	server.fetched(t, 1+4)
	flood(60 * time.Second)
	server.fetched(t, 1+5)
	allow(t, v, good, time.Minute)

	// What finds newer keys is not counted: here the flood itself finds them, as soon as it may.
	next := newSigner(t, "two")
	server.serve(t, s, next)
	deny(t, v, next.sign(t, long), 89*time.Second, guard.TokenKeyUnknown)
	allow(t, v, next.sign(t, long), 90*time.Second)
}

func TestWhatWasBadIsGoodWhenTheKeysSaySo(t *testing.T) {
	before, after := newSigner(t, ""), newSigner(t, "")
	server := newKeyServer(t, before)
	v := verifier(t, server.issuer())
	for n := range 3 { // until there is no fetch left
		deny(t, v, after.sign(t, claims{"jti": n}), 0, guard.TokenSignatureInvalid)
	}
	server.serve(t, after)
	token := after.sign(t, long)
	deny(t, v, token, 0, guard.TokenSignatureInvalid)
	deny(t, v, token, time.Second, guard.TokenSignatureInvalid)
	allow(t, v, token, 30*time.Second)
}

func TestKeysStayGoodWhileTheIssuerDoesNotAnswer(t *testing.T) {
	s := newSigner(t, "one")
	server := newKeyServer(t, s)
	v, err := jwt.New(jwt.Policy{Issuers: []jwt.Issuer{server.issuer()}, StaleFor: 6 * time.Hour}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	seen := s.sign(t, long)
	allow(t, v, seen, 0)
	server.fail()
	allow(t, v, seen, time.Hour)
	allow(t, v, s.sign(t, long), time.Hour)
	allow(t, v, s.sign(t, long), 6*time.Hour+4*time.Minute)
	end := 6*time.Hour + 5*time.Minute
	d := deny(t, v, seen, end, guard.IdentityUnavailable)
	if !strings.Contains(d.Evidence.Got, "502") || !strings.Contains(d.Evidence.Where, "accounts") {
		t.Errorf("the evidence is %+v", d.Evidence)
	}
	deny(t, v, s.sign(t, long), end, guard.IdentityUnavailable)
	server.serve(t, s)
	allow(t, v, seen, end+time.Minute)
}

func TestAnIssuerThatDoesNotAnswerIsAskedOnceInAWhile(t *testing.T) {
	s := newSigner(t, "one")
	server := newKeyServer(t, s)
	server.fail()
	v := verifier(t, server.issuer())
	for range 20 {
		deny(t, v, s.sign(t, long), 0, guard.IdentityUnavailable)
	}
	server.fetched(t, 1)
	server.serve(t, s)
	deny(t, v, s.sign(t, long), time.Second, guard.IdentityUnavailable)
	allow(t, v, s.sign(t, long), 5*time.Second)
	server.fetched(t, 2)

	server.fail()
	for n := range 20 {
		allow(t, v, s.sign(t, long), time.Hour+time.Duration(n)*time.Second)
	}
	server.fetched(t, 3)
}

func TestARequestWaitsNoLongerThanItLives(t *testing.T) {
	s := newSigner(t, "one")
	server := newKeyServer(t)
	asked, gone := make(chan struct{}), make(chan struct{})
	server.answerWith(func(_ http.ResponseWriter, r *http.Request) {
		close(asked)
		<-r.Context().Done()
		close(gone)
	})
	v := verifier(t, server.issuer())
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-asked
		cancel()
	}()
	if _, d := v.Verify(ctx, s.sign(t, long), start); d.Reason != guard.IdentityUnavailable {
		t.Fatal(told(d))
	}
	v.Close() // ends the fetch
	<-gone
	deny(t, v, s.sign(t, long), time.Hour, guard.IdentityUnavailable)
	server.fetched(t, 1)
}

func TestAnswersThatAreNotBelieved(t *testing.T) {
	s := newSigner(t, "one")
	good := newKeyServer(t, s)
	many := make([]signer, 65)
	for i := range many {
		many[i] = s
	}
	for name, h := range map[string]http.HandlerFunc{
		"a redirect": func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, good.URL, http.StatusFound) },
		"an error":   func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500); w.Write(jwks(t, s)) },
		"no content": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(204) },
		"too much": func(w http.ResponseWriter, _ *http.Request) {
			w.Write([]byte(`{"keys":[]` + strings.Repeat(" ", 512<<10) + "}"))
		},
		"too many keys":    func(w http.ResponseWriter, _ *http.Request) { w.Write(jwks(t, many...)) },
		"a page":           func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("<html>")) },
		"no set":           func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("{}")) },
		"a set of nothing": func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte(`{"keys":null}`)) },
		"half an answer": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "9999")
			w.Write([]byte(`{"keys":`))
		},
	} {
		server := newKeyServer(t)
		server.answerWith(h)
		v := verifier(t, server.issuer())
		if d := deny(t, v, s.sign(t, long), 0, guard.IdentityUnavailable); d.Evidence.Got == "" {
			t.Errorf("%s: no evidence", name)
		}
	}
	good.fetched(t, 0)
}

// An empty set is an answer: the issuer has withdrawn all keys.
func TestAnEmptySetWithdrawsAllKeys(t *testing.T) {
	s := newSigner(t, "one")
	server := newKeyServer(t, s)
	v := verifier(t, server.issuer())
	allow(t, v, s.sign(t, long), 0)
	server.serve(t)
	deny(t, v, s.sign(t, long), time.Hour, guard.TokenKeyUnknown)
}

func TestDiscovery(t *testing.T) {
	s := newSigner(t, "one")
	keys := newKeyServer(t, s)
	for name, c := range map[string]struct {
		path, issuerPath string
		metadata         func(url string) map[string]any
		want             guard.Reason
	}{
		"OpenID Connect": {
			"/.well-known/openid-configuration", "",
			func(url string) map[string]any { return map[string]any{"issuer": url, "jwks_uri": keys.URL} }, guard.IdentityVerified,
		},
		"OpenID Connect, issuer with a path": {
			"/realms/one/.well-known/openid-configuration", "/realms/one",
			func(url string) map[string]any { return map[string]any{"issuer": url, "jwks_uri": keys.URL} }, guard.IdentityVerified,
		},
		"OpenID Connect, issuer with a slash": {
			"/.well-known/openid-configuration", "/",
			func(url string) map[string]any { return map[string]any{"issuer": url, "jwks_uri": keys.URL} }, guard.IdentityVerified,
		},
		"RFC 8414": {
			"/.well-known/oauth-authorization-server/tenant", "/tenant",
			func(url string) map[string]any { return map[string]any{"issuer": url, "jwks_uri": keys.URL} }, guard.IdentityVerified,
		},
		"another issuer's": {
			"/.well-known/openid-configuration", "",
			func(string) map[string]any { return map[string]any{"issuer": issuer, "jwks_uri": keys.URL} }, guard.IdentityUnavailable,
		},
		"keys in the clear": {
			"/.well-known/openid-configuration", "",
			func(url string) map[string]any {
				return map[string]any{"issuer": url, "jwks_uri": "http://keys.example/"}
			}, guard.IdentityUnavailable,
		},
		"keys in a file": {
			"/.well-known/openid-configuration", "",
			func(url string) map[string]any { return map[string]any{"issuer": url, "jwks_uri": "file:///etc/keys"} }, guard.IdentityUnavailable,
		},
		"no keys": {
			"/.well-known/openid-configuration", "",
			func(url string) map[string]any { return map[string]any{"issuer": url} }, guard.IdentityUnavailable,
		},
		"nothing there": {"/elsewhere", "", func(string) map[string]any { return nil }, guard.IdentityUnavailable},
	} {
		t.Run(name, func(t *testing.T) {
			server := newKeyServer(t)
			conf := accounts(nil)
			conf.Issuer, conf.Discover = server.URL+c.issuerPath, true
			server.answerWith(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path != c.path {
					http.NotFound(w, r)
					return
				}
				json.NewEncoder(w).Encode(c.metadata(conf.Issuer))
			})
			v := verifier(t, conf)
			_, d := v.Verify(t.Context(), s.sign(t, claims{"iss": conf.Issuer}), start)
			if d.Reason != c.want {
				t.Errorf("%s, want %s", told(d), c.want)
			}
		})
	}
}

func TestAReloadRefusesNobody(t *testing.T) {
	s := newSigner(t, "one")
	server := newKeyServer(t, s)
	conf := server.issuer()
	old := verifier(t, conf)
	seen, unseen := s.sign(t, long), s.sign(t, claims{"jti": "unseen"})
	allow(t, old, seen, 0)
	server.fail()

	for name, change := range map[string]func(*jwt.Issuer){
		"nothing":   func(*jwt.Issuer) {},
		"audiences": func(i *jwt.Issuer) { i.Audiences = []string{"api", "more"} },
		"leeway":    func(i *jwt.Issuer) { i.Leeway = time.Minute },
	} {
		next := conf
		change(&next)
		v, err := jwt.New(jwt.Policy{Issuers: []jwt.Issuer{next}}, old)
		if err != nil {
			t.Fatal(err)
		}
		allow(t, v, seen, 0)
		allow(t, v, unseen, 0)
		allow(t, old, seen, 0) // requests that began before
		if name == "nothing" && testing.AllocsPerRun(10, func() { allow(t, v, seen, 0) }) > 2 {
			t.Error("a token that was verified before the reload is verified again")
		}
		v.Close()
		allow(t, old, seen, 0)
	}
	server.fetched(t, 1)

	// The keys live on in the last Verifier that has them.
	v, err := jwt.New(jwt.Policy{Issuers: []jwt.Issuer{conf}}, old)
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	old.Close()
	server.serve(t, s)
	allow(t, v, unseen, 40*time.Minute)
	server.fetched(t, 2)
}

func TestSecretsAreRotatedByReloads(t *testing.T) {
	sign := func(secret byte) signer {
		k := bytes.Repeat([]byte{secret}, 32)
		return signer{"", "HS256", k, k}
	}
	with := func(before *jwt.Verifier, secret byte, past ...byte) *jwt.Verifier {
		conf := accounts(nil)
		conf.Algorithms, conf.Secret = []string{"HS256"}, bytes.Repeat([]byte{secret}, 32)
		for _, p := range past {
			conf.PastSecrets = append(conf.PastSecrets, bytes.Repeat([]byte{p}, 32))
		}
		v, err := jwt.New(jwt.Policy{Issuers: []jwt.Issuer{conf}}, before)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(v.Close)
		return v
	}
	old, next := sign(1).sign(t, nil), sign(2).sign(t, nil)
	one := with(nil, 1)
	allow(t, one, old, 0)
	deny(t, one, next, 0, guard.TokenSignatureInvalid)
	both := with(one, 2, 1)
	allow(t, both, old, 0)
	allow(t, both, next, 0)
	two := with(both, 2)
	allow(t, two, next, 0)
	deny(t, two, old, 0, guard.TokenSignatureInvalid)
}

func TestAReloadTakesAwayWhatItTakesAway(t *testing.T) {
	one, two := newSigner(t, "one"), newSigner(t, "two")
	conf := accounts(jwks(t, one, two))
	old := verifier(t, conf)
	token := one.sign(t, long)
	allow(t, old, token, 0)
	for name, c := range map[string]struct {
		change func(*jwt.Issuer)
		want   guard.Reason
	}{
		"the key":       {func(i *jwt.Issuer) { i.JWKS = jwks(t, two) }, guard.TokenKeyUnknown},
		"the audience":  {func(i *jwt.Issuer) { i.Audiences = []string{"other"} }, guard.TokenAudienceWrong},
		"the issuer":    {func(i *jwt.Issuer) { i.Issuer = "https://other.example" }, guard.TokenIssuerUnknown},
		"the algorithm": {func(i *jwt.Issuer) { i.Algorithms = []string{"RS256"} }, guard.TokenAlgorithmNotAllowed},
		"a claim":       {func(i *jwt.Issuer) { i.Required = []string{"org"} }, guard.TokenClaimMissing},
		"its age":       {func(i *jwt.Issuer) { i.MaxAge = time.Minute }, guard.TokenExpired},
		"trust": {func(i *jwt.Issuer) {
			r, err := jwt.ParseRevocations([]byte("sub alice"))
			if err != nil {
				t.Fatal(err)
			}
			i.Revoked = r
		}, guard.TokenRevoked},
	} {
		next := conf
		c.change(&next)
		v, err := jwt.New(jwt.Policy{Issuers: []jwt.Issuer{next}}, old)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		deny(t, v, token, 2*time.Minute, c.want)
		allow(t, old, token, 2*time.Minute)
		v.Close()
	}
}

// Keys rotate while eight clients call, each with a token of the newest key, in its first
// moment or later.
func TestRotationUnderLoadRefusesNoValidToken(t *testing.T) {
	const rotations, clients = 40, 8
	keys := make([]signer, rotations+1)
	tokens := make([][]string, rotations+1)
	for n := range keys {
		keys[n] = newSigner(t, fmt.Sprintf("key-%d", n))
		for c := range clients {
			tokens[n] = append(tokens[n], keys[n].sign(t, claims{"jti": fmt.Sprint(n, c), "exp": long["exp"]}))
		}
	}
	server := newKeyServer(t, keys[0])
	v := verifier(t, server.issuer())
	allow(t, v, tokens[0][0], 0)
	var newest atomic.Int64
	var stop atomic.Bool
	var wg sync.WaitGroup
	for c := range clients {
		wg.Go(func() {
			for call := 0; !stop.Load(); call++ {
				token := tokens[newest.Load()][(c+call)%clients]
				if _, d := v.Verify(t.Context(), token, start); d.Denied() {
					t.Error(told(d))
					return
				}
			}
		})
	}
	for n := 1; n <= rotations && !t.Failed(); n++ {
		server.serve(t, keys[:n+1]...)
		newest.Store(int64(n))
		if _, d := v.Verify(t.Context(), tokens[n][0], start); d.Denied() {
			t.Error(told(d))
		}
		if n == rotations/2 {
			stranger := newSigner(t, "nobody")
			deny(t, v, stranger.sign(t, long), 0, guard.TokenKeyUnknown)
		}
	}
	stop.Store(true)
	wg.Wait()
	server.fetched(t, 1+rotations+1) // of the stranger one
}

func TestNobodyWaitsForAnIssuerThatHangs(t *testing.T) {
	s := newSigner(t, "one")
	server := newKeyServer(t, s)
	v := verifier(t, server.issuer())
	seen := s.sign(t, long)
	allow(t, v, seen, 0)
	asked, over := make(chan struct{}), make(chan struct{})
	server.answerWith(func(_ http.ResponseWriter, r *http.Request) {
		close(asked)
		<-r.Context().Done()
		close(over)
	})
	allow(t, v, seen, 5*time.Minute)
	<-asked
	allow(t, v, seen, 5*time.Minute)
	allow(t, v, s.sign(t, long), 9*time.Minute)
	select {
	case <-over:
		t.Error("a request waited until the fetch was given up")
	default:
	}
	v.Close()
	<-over
}

func TestReloadsUnderLoadRefuseNoValidToken(t *testing.T) {
	s := newSigner(t, "one")
	server := newKeyServer(t, s)
	conf := server.issuer()
	var present atomic.Pointer[jwt.Verifier]
	v := verifier(t, conf)
	present.Store(v)
	var stop atomic.Bool
	var wg sync.WaitGroup
	for c := range 4 {
		seen := s.sign(t, claims{"jti": c})
		wg.Go(func() {
			for !stop.Load() {
				if _, d := present.Load().Verify(t.Context(), seen, start); d.Denied() {
					t.Error(told(d))
					return
				}
			}
		})
	}
	for n := range 100 {
		conf.Leeway = time.Duration(n%2) * time.Second
		next, err := jwt.New(jwt.Policy{Issuers: []jwt.Issuer{conf}}, v)
		if err != nil {
			t.Fatal(err)
		}
		present.Store(next)
		allow(t, next, s.sign(t, claims{"jti": -n}), 0)
		v.Close()
		v = next
	}
	stop.Store(true)
	wg.Wait()
	v.Close()
	server.fetched(t, 1)
}
