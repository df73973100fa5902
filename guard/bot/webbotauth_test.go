package bot

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dunglas/httpsfv"
)

var robotAddr = netip.MustParseAddr("192.0.2.7")

// start is when the tests' signatures are made.
var start = time.Unix(1735689600, 0)

func (p Proof) String() string { return [...]string{"none", "unverified", "verified", "refuted"}[p] }

func jwks(public ...ed25519.PublicKey) []byte {
	var keys []string
	for _, k := range public {
		keys = append(keys, `{"kty":"OKP","crv":"Ed25519","use":"sig","x":"`+base64.RawURLEncoding.EncodeToString(k)+`"}`)
	}
	return []byte(`{"keys":[` + strings.Join(keys, ",") + `]}`)
}

func newRobots(t testing.TB, p RobotsPolicy) *Robots {
	t.Helper()
	r, err := NewRobots(p)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// wantProof holds a claim against what is expected of it.
func wantProof(t testing.TB, c Claim, want Proof, why string) {
	t.Helper()
	if c.Proof != want || !strings.Contains(c.Why, why) || (c.Robot == "") != (want == NoClaim) {
		t.Errorf("%s: %s (%s), want %s (%s)", c.Robot, c.Proof, c.Why, want, why)
	}
}

func TestPublishedSignatures(t *testing.T) {
	text, err := os.ReadFile("../../vectors/webbotauth/signatures.json")
	if err != nil {
		t.Fatal(err)
	}
	var vectors []struct {
		Name, Agent, Key, Method, Host, Target, Base, Proof, Why string
		Now                                                      time.Time
		Headers                                                  map[string]string
	}
	if err = json.Unmarshal(text, &vectors); err != nil || len(vectors) < 9 {
		t.Fatal(len(vectors), err)
	}
	for _, v := range vectors {
		t.Run(v.Name, func(t *testing.T) {
			public, err := base64.RawURLEncoding.DecodeString(v.Key)
			if err != nil {
				t.Fatal(err)
			}
			req := httptest.NewRequest(v.Method, v.Target, http.NoBody)
			req.Host = v.Host
			for name, value := range v.Headers {
				req.Header.Set(name, value)
			}
			input, err := dictionary(req.Header, "Signature-Input")
			if err != nil {
				t.Fatal(err)
			}
			label := input.Names()[0]
			member, _ := input.Get(label)
			base, err := signatureBase(req, true, member.(httpsfv.InnerList))
			if err != nil || v.Base != "" && base != v.Base {
				t.Fatalf("%v\n%s\nwant\n%s", err, base, v.Base)
			}
			if v.Why != "not one of that key" {
				signatures, err := dictionary(req.Header, "Signature")
				if err != nil {
					t.Fatal(err)
				}
				member, _ = signatures.Get(label)
				if !ed25519.Verify(public, []byte(base), member.(httpsfv.Item).Value.([]byte)) {
					t.Error("the published signature does not verify")
				}
			}
			r := newRobots(t, RobotsPolicy{Robots: []Robot{{Name: "agent", Agent: v.Agent, Keys: jwks(public)}}})
			c := r.Identify(t.Context(), req, robotAddr, true, v.Now)
			if c.Proof.String() != v.Proof || !strings.Contains(c.Why, v.Why) {
				t.Errorf("%s (%s), want %s (%s)", c.Proof, c.Why, v.Proof, v.Why)
			}
			if c.Proof == Verified && strings.Contains(v.Headers["Signature-Input"], "nonce=") {
				wantProof(t, r.Identify(t.Context(), req, robotAddr, true, v.Now), Refuted, "used before")
			}
		})
	}
}

// RFC 8037 appendix A.3, and the keyid of the drafts' examples.
func TestThumbprint(t *testing.T) {
	for x, want := range map[string]string{
		"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo": "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k",
		"JrQLj5P_89iXES9-vFgrIy29clF9CC_oPPsw3c5D0bs": "poqkLGiymh_W0uP6PZFw-dvez3QJT5SolqXBCW38r0U",
	} {
		public, err := base64.RawURLEncoding.DecodeString(x)
		if err != nil || thumbprint(public) != want {
			t.Errorf("%s, %v; want %s", thumbprint(public), err, want)
		}
	}
}

// signer is a robot that signs.
type signer struct {
	key   ed25519.PrivateKey
	agent string
}

func newSigner(seed byte) signer {
	return signer{ed25519.NewKeyFromSeed([]byte(strings.Repeat(string(seed), ed25519.SeedSize))), "https://agent.example"}
}

func (s signer) public() ed25519.PublicKey { return s.key.Public().(ed25519.PublicKey) }

// sign signs a request as the draft asks for, at a time.
func (s signer) sign(t testing.TB, req *http.Request, components, nonce string, created time.Time, life time.Duration) {
	t.Helper()
	req.Header.Set("Signature-Agent", `sig1="`+s.agent+`"`)
	params := fmt.Sprintf(`(%s);created=%d;expires=%d;keyid="%s";alg="ed25519"`, components, created.Unix(), created.Add(life).Unix(), thumbprint(s.public()))
	if nonce != "" {
		params += `;nonce="` + nonce + `"`
	}
	s.signAs(t, req, params+`;tag="web-bot-auth"`)
}

func (s signer) signAs(t testing.TB, req *http.Request, params string) {
	t.Helper()
	req.Header.Set("Signature-Input", "sig1="+params)
	input, err := dictionary(req.Header, "Signature-Input")
	if err != nil {
		t.Fatal(err)
	}
	member, _ := input.Get("sig1")
	base, err := signatureBase(req, true, member.(httpsfv.InnerList))
	if err != nil {
		base = "nothing that can be signed"
	}
	req.Header.Set("Signature", "sig1=:"+base64.StdEncoding.EncodeToString(ed25519.Sign(s.key, []byte(base)))+":")
}

const usual = `"@authority" "signature-agent";key="sig1"`

func toAPI(target string) *http.Request {
	req := httptest.NewRequest("GET", target, http.NoBody)
	req.Host = "api.example"
	return req
}

func (s signer) robots(t testing.TB) *Robots {
	t.Helper()
	return newRobots(t, RobotsPolicy{Robots: []Robot{{Name: "agent", Agent: s.agent, Keys: jwks(newSigner('z').public(), s.public())}}})
}

func TestSignatureCoversWhatItSays(t *testing.T) {
	s := newSigner('a')
	everything := `"@method" "@authority" "@scheme" "@path" "@query" "@target-uri" "@request-target" "host" "accept" "x-list" "dict";key="b" ` + `"signature-agent";key="sig1"`
	signed := func() *http.Request {
		req := toAPI("/a%2Fb/c?d=e")
		req.Header["Accept"] = []string{"text/html", "  */* "}
		req.Header["X-List"] = []string{""}
		req.Header["Dict"] = []string{`a=1, b=("x" y);q=0.5`, `c`}
		s.sign(t, req, everything, "", start, time.Minute)
		return req
	}
	r := s.robots(t)
	wantProof(t, r.Identify(t.Context(), signed(), robotAddr, true, start), Verified, "https://agent.example")
	req := signed()
	req.Header["Accept"] = []string{"text/html, */*"} // the same value (RFC 9421 section 2.1)
	req.Host = "API.example:443"
	req.Header["Dict"] = []string{`b=("x"   y);q=0.5, z`}
	wantProof(t, r.Identify(t.Context(), req, robotAddr, true, start), Refuted, "not one of that key") // host is covered as it was sent
	for name, change := range map[string]func(*http.Request){
		"method":          func(r *http.Request) { r.Method = "POST" },
		"authority":       func(r *http.Request) { r.Host = "other.example" },
		"path":            func(r *http.Request) { r.RequestURI = "/a/b/c?d=e" },
		"query":           func(r *http.Request) { r.RequestURI = "/a%2Fb/c?d=f" },
		"no query":        func(r *http.Request) { r.RequestURI = "/a%2Fb/c" },
		"field":           func(r *http.Request) { r.Header.Set("Accept", "text/html, */*, x/y") },
		"field gone":      func(r *http.Request) { r.Header.Del("Accept") },
		"member":          func(r *http.Request) { r.Header.Set("Dict", `b=("x" z);q=0.5`) },
		"member gone":     func(r *http.Request) { r.Header.Set("Dict", "a=1") },
		"member nonsense": func(r *http.Request) { r.Header.Set("Dict", "==") },
		"expires": func(r *http.Request) {
			r.Header.Set("Signature-Input", strings.Replace(r.Header.Get("Signature-Input"), fmt.Sprint(start.Unix()+60), fmt.Sprint(start.Unix()+61), 1))
		},
		"created": func(r *http.Request) {
			r.Header.Set("Signature-Input", strings.Replace(r.Header.Get("Signature-Input"), fmt.Sprint(start.Unix()), fmt.Sprint(start.Unix()+1), 1))
		},
		"nonce": func(r *http.Request) {
			r.Header.Set("Signature-Input", r.Header.Get("Signature-Input")+`;nonce="x"`)
		},
		"fewer components": func(r *http.Request) {
			r.Header.Set("Signature-Input", strings.Replace(r.Header.Get("Signature-Input"), `"@method" `, "", 1))
		},
		"order of components": func(r *http.Request) {
			r.Header.Set("Signature-Input", strings.Replace(r.Header.Get("Signature-Input"), `"@method" "@authority"`, `"@authority" "@method"`, 1))
		},
		"another key": func(r *http.Request) {
			r.Header.Set("Signature-Input", strings.Replace(r.Header.Get("Signature-Input"), thumbprint(s.public()), thumbprint(newSigner('z').public()), 1))
		},
		"signature": func(r *http.Request) {
			sig := []byte(r.Header.Get("Signature"))
			sig[10] ^= 1
			r.Header.Set("Signature", string(sig))
		},
	} {
		t.Run(name, func(t *testing.T) {
			req := signed()
			change(req)
			if c := r.Identify(t.Context(), req, robotAddr, true, start); c.Proof != Refuted {
				t.Errorf("%s (%s)", c.Proof, c.Why)
			}
		})
	}
	wantProof(t, r.Identify(t.Context(), signed(), robotAddr, false, start), Refuted, "not one of that key") // the scheme
}

func TestSignatureProfile(t *testing.T) {
	s := newSigner('a')
	id := thumbprint(s.public())
	params := func(components, rest string) func(*http.Request) {
		return func(r *http.Request) { s.signAs(t, r, "("+components+")"+rest) }
	}
	good := fmt.Sprintf(`;created=%d;expires=%d;keyid="%s";tag="web-bot-auth"`, start.Unix(), start.Unix()+60, id)
	header := func(name string, lines ...string) func(*http.Request) {
		return func(r *http.Request) { r.Header[name] = lines }
	}
	r := s.robots(t)
	for _, c := range []struct {
		name string
		make func(*http.Request)
		at   time.Duration
		want Proof
		why  string
	}{
		{"good", params(usual, good), 0, Verified, ""},
		{"@target-uri in the place of @authority", params(`"@target-uri" "signature-agent";key="sig1"`, good), 0, Verified, ""},
		{"the whole of Signature-Agent", params(`"@authority" "signature-agent"`, good), 0, Verified, ""},
		{"a minute before it was made", params(usual, good), -time.Minute, Verified, ""},
		{"longer before it was made", params(usual, good), -time.Minute - time.Second, Refuted, "future"},
		{"in its last second", params(usual, good), 59 * time.Second, Verified, ""},
		{"when it expires", params(usual, good), time.Minute, Refuted, "expired"},
		{"no target", params(`"signature-agent";key="sig1"`, good), 0, Refuted, "neither @authority nor @target-uri"},
		{"Signature-Agent not covered", params(`"@authority"`, good), 0, Refuted, "does not cover Signature-Agent"},
		{"a component twice", params(`"@authority" "@authority" "signature-agent"`, good), 0, Refuted, "twice"},
		{"a field that is not there", params(`"@authority" "signature-agent" "x-none"`, good), 0, Refuted, "is not in the request"},
		{"a derived component that nobody knows", params(`"@authority" "signature-agent" "@status"`, good), 0, Unverified, "not supported"},
		{"@query-param", params(`"@authority" "signature-agent" "@query-param";name="a"`, good), 0, Unverified, "not supported"},
		{"sf", params(`"@authority" "signature-agent";sf`, good), 0, Unverified, "not supported"},
		{"an upper-case field", params(`"@authority" "signature-agent" "Accept"`, good), 0, Unverified, "not supported"},
		{"too many components", params(usual+strings.Repeat(` "x"`, 40), good), 0, Refuted, "more than 32"},
		{"no expires", params(usual, strings.Replace(good, "expires", "e", 1)), 0, Refuted, "lacks"},
		{"no created", params(usual, strings.Replace(good, "created", "c", 1)), 0, Refuted, "lacks"},
		{"no keyid", params(usual, strings.Replace(good, "keyid", "k", 1)), 0, Refuted, "lacks"},
		{"expires as a string", params(usual, strings.Replace(good, "expires=", `expires="x";e=`, 1)), 0, Refuted, "lacks"},
		{"expires before created", params(usual, strings.Replace(good, "expires=", "expires=1;e=", 1)), 0, Refuted, "before it was made"},
		{"another algorithm", params(usual, good+`;alg="rsa-pss-sha512"`), 0, Unverified, "only ed25519"},
		{"an unknown key", params(usual, strings.Replace(good, id, "x", 1)), 0, Refuted, "has no key of that keyid"},
		{"for another purpose", params(usual, strings.Replace(good, "web-bot-auth", "other", 1)), 0, NoClaim, ""},
		{"without a tag", params(usual, strings.Replace(good, "tag", "t", 1)), 0, NoClaim, ""},
		{"no list", header("Signature-Input", `sig1="x";tag="web-bot-auth"`), 0, NoClaim, ""},
		{"nonsense in Signature-Input", header("Signature-Input", `sig1=("@authority";created=`), 0, Refuted, "no dictionary"},
		{"long Signature-Input", header("Signature-Input", `a=1, `+strings.Repeat("b", 5000)), 0, Refuted, "longer"},
		{"no Signature", func(r *http.Request) { params(usual, good)(r); r.Header.Del("Signature") }, 0, Refuted, "no 64 bytes"},
		{"another label", func(r *http.Request) {
			params(usual, good)(r)
			r.Header.Set("Signature", strings.Replace(r.Header.Get("Signature"), "sig1", "sig2", 1))
		}, 0, Refuted, "no 64 bytes"},
		{"a short signature", func(r *http.Request) { params(usual, good)(r); r.Header.Set("Signature", "sig1=:AAAA:") }, 0, Refuted, "no 64 bytes"},
		{"nonsense in Signature", func(r *http.Request) { params(usual, good)(r); r.Header.Set("Signature", "sig1=:") }, 0, Refuted, "no dictionary"},
		{"an agent that is not known", func(r *http.Request) {
			r.Header.Set("Signature-Agent", `sig1="https://other.example"`)
			params(usual, good)(r)
		}, 0, NoClaim, ""},
		{"an agent in another spelling", func(r *http.Request) {
			r.Header.Set("Signature-Agent", `sig1="https://AGENT.example/"`)
			params(usual, good)(r)
		}, 0, Verified, ""},
		{"no agent, and a known key", func(r *http.Request) {
			r.Header.Del("Signature-Agent")
			params(`"@authority"`, good)(r)
		}, 0, Verified, ""},
		{"no agent, and an unknown key", func(r *http.Request) {
			r.Header.Del("Signature-Agent")
			params(`"@authority"`, strings.Replace(good, id, "x", 1))(r)
		}, 0, NoClaim, ""},
		{"one signature for another purpose and one for this", func(r *http.Request) {
			params(usual, good)(r)
			r.Header["Signature-Input"] = append([]string{`proxy=("@method");tag="proxy"`}, r.Header["Signature-Input"]...)
		}, 0, Verified, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			req := toAPI("/")
			req.Header.Set("Signature-Agent", `sig1="https://agent.example"`)
			c.make(req)
			wantProof(t, r.Identify(t.Context(), req, robotAddr, true, start.Add(c.at)), c.want, c.why)
		})
	}
}

func TestNonceCountsOnce(t *testing.T) {
	s := newSigner('a')
	r := s.robots(t)
	use := func(r *Robots, nonce string, at time.Duration) Claim {
		req := toAPI("/")
		s.sign(t, req, usual, nonce, start, 10*time.Hour)
		return r.Identify(t.Context(), req, robotAddr, true, start.Add(at))
	}
	wantProof(t, use(r, "one", 0), Verified, "")
	wantProof(t, use(r, "one", 0), Refuted, "used before")
	wantProof(t, use(r, "one", 59*time.Minute), Refuted, "used before")
	wantProof(t, use(r, "one", time.Hour), Refuted, "expired") // the nonce is forgotten now, and it does not matter
	wantProof(t, use(r, "two", 0), Verified, "")
	wantProof(t, use(r, "", 0), Verified, "")
	wantProof(t, use(r, "", 0), Verified, "") // without a nonce nothing tells a copy

	reloaded := s.robots(t)
	reloaded.Inherit(r)
	wantProof(t, use(reloaded, "two", 0), Refuted, "used before")

	// A bad signature spends no nonce.
	req := toAPI("/")
	s.sign(t, req, usual, "three", start, time.Minute)
	req.Host = "other.example"
	wantProof(t, r.Identify(t.Context(), req, robotAddr, true, start), Refuted, "not one of that key")
	wantProof(t, use(r, "three", 0), Verified, "")

	// Of many at once, one.
	req = toAPI("/")
	s.sign(t, req, usual, "four", start, time.Minute)
	var good atomic.Int64
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			if r.Identify(t.Context(), req, robotAddr, true, start).Proof == Verified {
				good.Add(1)
			}
		})
	}
	if wg.Wait(); good.Load() != 1 {
		t.Errorf("%d of 16 copies passed", good.Load())
	}
}

func TestMemoryOfNoncesIsBounded(t *testing.T) {
	n := nonces{until: make(map[[16]byte]time.Time)}
	for i := range maxNonces {
		if err := n.spend("k", fmt.Sprint(i), start.Add(time.Minute), start); err != nil {
			t.Fatal(err)
		}
	}
	if err := n.spend("k", "one more", start.Add(time.Minute), start); !errors.Is(err, errManyNonces) {
		t.Fatal(err)
	}
	if err := n.spend("k", "0", start.Add(2*time.Minute), start.Add(time.Minute)); err != nil || len(n.until) != 1 {
		t.Fatal(err, len(n.until))
	}
}

// directory is an agent's server of keys.
type directory struct {
	answer  atomic.Pointer[func() (*http.Response, error)]
	fetches atomic.Int64
	url     atomic.Value
}

func (d *directory) serve(body []byte, cache string) {
	d.with(func() (*http.Response, error) {
		return &http.Response{StatusCode: 200, Header: http.Header{"Cache-Control": {cache}}, Body: io.NopCloser(strings.NewReader(string(body)))}, nil
	})
}

func (d *directory) with(f func() (*http.Response, error)) { d.answer.Store(&f) }

func (d *directory) fetch(_ context.Context, url string) (*http.Response, error) {
	d.fetches.Add(1)
	d.url.Store(url)
	return (*d.answer.Load())()
}

func TestKeysAreFetchedOnceAndKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, next := newSigner('a'), newSigner('b')
		var d directory
		d.serve(jwks(s.public()), "max-age=600")
		r := newRobots(t, RobotsPolicy{Robots: []Robot{{Name: "agent", Agent: s.agent}}, Fetch: d.fetch, Wait: 200 * time.Millisecond})
		identify := func(s signer) Claim {
			req := toAPI("/")
			s.sign(t, req, usual, "", time.Now(), time.Minute)
			return r.Identify(t.Context(), req, robotAddr, true, time.Now())
		}
		fetched := func(want int64) {
			t.Helper()
			synctest.Wait()
			if got := d.fetches.Load(); got != want {
				t.Fatalf("%d fetches, want %d", got, want)
			}
		}
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() { wantProof(t, identify(s), Verified, "") })
		}
		wg.Wait()
		fetched(1)
		if got := d.url.Load(); got != "https://agent.example/.well-known/http-message-signatures-directory" {
			t.Errorf("fetched %v", got)
		}
		// A key that is not there has it asked for again, once in a while.
		wantProof(t, identify(next), Refuted, "no key of that keyid")
		fetched(1)
		time.Sleep(fetchInterval)
		d.serve(jwks(s.public(), next.public()), "max-age=600")
		wantProof(t, identify(next), Verified, "")
		wantProof(t, identify(newSigner('c')), Refuted, "no key of that keyid")
		fetched(2)
		// What is out of date serves while newer is fetched, and for a day if that fails.
		d.with(func() (*http.Response, error) { return nil, io.ErrUnexpectedEOF })
		time.Sleep(10 * time.Minute)
		wantProof(t, identify(s), Verified, "")
		fetched(3)
		wantProof(t, identify(newSigner('c')), Unverified, "could not be fetched")
		fetched(3)
		time.Sleep(23 * time.Hour)
		wantProof(t, identify(s), Verified, "")
		fetched(4)
		time.Sleep(time.Hour)
		wantProof(t, identify(s), Unverified, "could not be fetched")
		fetched(5)
		d.serve(jwks(next.public()), "")
		time.Sleep(time.Minute)
		wantProof(t, identify(s), Refuted, "no key of that keyid")
	})
}

func TestSlowDirectoryHoldsNobodyLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSigner('a')
		var d directory
		d.with(func() (*http.Response, error) {
			time.Sleep(3 * time.Second)
			return &http.Response{StatusCode: 200, Body: io.NopCloser(strings.NewReader(string(jwks(s.public()))))}, nil
		})
		r := newRobots(t, RobotsPolicy{Robots: []Robot{{Name: "agent", Agent: s.agent}}, Fetch: d.fetch, Wait: 200 * time.Millisecond})
		req := toAPI("/")
		began := time.Now()
		s.sign(t, req, usual, "", began, time.Minute)
		wantProof(t, r.Identify(t.Context(), req, robotAddr, true, began), Unverified, "could not be fetched yet")
		if took := time.Since(began); took != 200*time.Millisecond { // of the test's own clock
			t.Errorf("it was held for %s", took)
		}
		time.Sleep(3 * time.Second)
		synctest.Wait()
		wantProof(t, r.Identify(t.Context(), req, robotAddr, true, time.Now()), Verified, "")
	})
}

func TestBadDirectories(t *testing.T) {
	s := newSigner('a')
	for name, answer := range map[string]func() (*http.Response, error){
		"404":        func() (*http.Response, error) { return httptest404(), nil },
		"no JSON":    body("<html>"),
		"no keys":    body("{}"),
		"other keys": body(`{"keys":[{"kty":"RSA"},{"kty":"OKP","crv":"X25519","x":"AA"},{"kty":"OKP","crv":"Ed25519","x":"AA"}]}`),
		"private":    body(`{"keys":[{"kty":"OKP","crv":"Ed25519","d":"AA","x":"` + base64.RawURLEncoding.EncodeToString(s.public()) + `"}]}`),
		"encryption": body(strings.Replace(string(jwks(s.public())), `"sig"`, `"enc"`, 1)),
		"too large":  body(strings.Repeat(" ", MaxDirectoryBytes) + string(jwks(s.public()))),
	} {
		t.Run(name, func(t *testing.T) {
			var d directory
			d.with(answer)
			r := newRobots(t, RobotsPolicy{Robots: []Robot{{Name: "agent", Agent: s.agent}}, Fetch: d.fetch, Wait: time.Minute})
			req := toAPI("/")
			s.sign(t, req, usual, "", start, time.Minute)
			wantProof(t, r.Identify(t.Context(), req, robotAddr, true, start), Unverified, "could not be fetched")
		})
	}
}

func body(text string) func() (*http.Response, error) {
	return func() (*http.Response, error) {
		return &http.Response{StatusCode: 200, Body: io.NopCloser(strings.NewReader(text))}, nil
	}
}

func httptest404() *http.Response {
	return &http.Response{StatusCode: 404, Body: io.NopCloser(strings.NewReader(""))}
}

func TestRobotsThatCannotBeTold(t *testing.T) {
	keys := jwks(newSigner('a').public())
	for want, robots := range map[string][]Robot{
		"nothing to tell it by":  {{Name: "r"}},
		"go together":            {{Name: "r", UserAgent: "x"}},
		"domains go":             {{Name: "r", Domains: []string{"a.example"}}},
		`domain "com"`:           {{Name: "r", UserAgent: "x", Domains: []string{"com"}}},
		`domain ".a.example"`:    {{Name: "r", UserAgent: "x", Domains: []string{".a.example"}}},
		"without TLS":            {{Name: "r", Agent: "http://a.example", Keys: keys}},
		"not a URL":              {{Name: "r", Agent: "https://a.example/keys", Keys: keys}},
		"keys without agent":     {{Name: "r", Keys: keys}},
		"no JWK Set":             {{Name: "r", Agent: "https://a.example", Keys: []byte("x")}},
		"that of r too":          {{Name: "r", Agent: "https://a.example", Keys: keys}, {Name: "s", Agent: "https://A.example/", Keys: keys}},
		"cannot be fetched here": {{Name: "r", Agent: "https://a.example"}},
	} {
		if _, err := NewRobots(RobotsPolicy{Robots: robots}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

// TestSignatureOfNode has another implementation sign: testdata/sign.mjs, with nothing but node:crypto.
func TestSignatureOfNode(t *testing.T) {
	if testing.Short() {
		t.Skip("runs node, which takes a second: run without -short (make test does)")
	}
	path, err := exec.LookPath("node")
	if err != nil {
		t.Fatal("node is not in PATH; run make setup")
	}
	out, err := exec.CommandContext(t.Context(), path, "testdata/sign.mjs").Output()
	if err != nil {
		t.Fatal(err)
	}
	var told struct {
		JWKS     json.RawMessage
		KeyID    string
		Requests []struct {
			Method, Host, Target string
			Headers              map[string]string
			Now                  int64
			Tampered             bool
		}
	}
	if err = json.Unmarshal(out, &told); err != nil || len(told.Requests) < 6 {
		t.Fatalf("%v in %s", err, out)
	}
	r := newRobots(t, RobotsPolicy{Robots: []Robot{{Name: "agent", Agent: "https://agent.example", Keys: told.JWKS}}})
	for i, v := range told.Requests {
		req := httptest.NewRequest(v.Method, v.Target, http.NoBody)
		req.Host = v.Host
		for name, value := range v.Headers {
			req.Header.Set(name, value)
		}
		want := Verified
		if v.Tampered {
			want = Refuted
		}
		if c := r.Identify(t.Context(), req, robotAddr, true, time.Unix(v.Now, 0)); c.Proof != want {
			t.Errorf("request %d, %s %s: %s (%s), want %s", i, v.Method, v.Target, c.Proof, c.Why, want)
		}
	}
}

// FuzzIdentify: whatever is in the three fields, nothing panics, and nothing but a signature of the key
// verifies.
func FuzzIdentify(f *testing.F) {
	s := newSigner('a')
	good := toAPI("/")
	s.sign(f, good, usual, "n", start, time.Minute)
	f.Add(good.Header.Get("Signature-Input"), good.Header.Get("Signature"), good.Header.Get("Signature-Agent"), "GET", "/")
	f.Add(`sig1=();tag="web-bot-auth"`, "sig1=:AA==:", `"https://agent.example"`, "GET", "*")
	f.Add(`sig1=("@path";req ("x"));tag="web-bot-auth";created=1`, "", "https://agent.example", "", "http://x?")
	f.Fuzz(func(t *testing.T, input, sig, agent, method, target string) {
		r := s.robots(t)
		req := toAPI("/")
		req.Method, req.RequestURI = method, target
		req.Header["Signature-Input"], req.Header["Signature"], req.Header["Signature-Agent"] = []string{input}, []string{sig}, []string{agent}
		c := r.Identify(t.Context(), req, robotAddr, true, start)
		if c.Proof == Verified && !strings.Contains(sig, strings.Trim(strings.TrimPrefix(good.Header.Get("Signature"), "sig1"), "=:")[:60]) {
			t.Fatalf("%q verified", sig)
		}
	})
}

func BenchmarkIdentify(b *testing.B) {
	s := newSigner('a')
	r := s.robots(b)
	signed, plain := toAPI("/"), toAPI("/")
	s.sign(b, signed, usual, "", start, time.Minute)
	plain.Header.Set("User-Agent", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0")
	for name, req := range map[string]*http.Request{"signed": signed, "nobody": plain} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				r.Identify(b.Context(), req, robotAddr, true, start)
			}
		})
	}
}
