package gateway_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/moat-gateway/moat/gateway"
	"github.com/moat-gateway/moat/guard"
	"github.com/moat-gateway/moat/guard/identity/apikey"
	"github.com/moat-gateway/moat/guard/identity/introspection"
	"github.com/moat-gateway/moat/guard/identity/jwt"
	"github.com/moat-gateway/moat/guard/identity/session"
)

// What was verified under a configuration is worth what the next one says of it.
func TestAReloadForbidsWhatWasVerifiedBefore(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, `{"active":true,"sub":"alice","aud":"api","iss":"https://as.example","scope":"read","perms":""}`)
	}))
	defer server.Close()
	text, key, err := apikey.Generate(apikey.Key{Owner: "acme", Scopes: []string{"read"}}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	b := newBackend(t, nil)
	signed := token(t, "alice", "scope", "read", "roles", []string{"staff"}, "jti", "one", "iat", time.Now().Unix())
	base := func(change func(*gateway.Config)) gateway.Config {
		c := configFor(t, b.URL, known(func(r *gateway.Route) {
			r.Sources, r.Authorize.Scopes = []string{"accounts", "partners", "opaque"}, []string{"read"}
		}))
		set := new(apikey.Set)
		set.Replace([]apikey.Key{key})
		c.Callers.JWT[0].RolesClaim = "roles"
		c.Callers.Keys[0].Set = set
		c.Callers.Introspection = []introspection.Policy{{Source: "opaque", URL: server.URL, ClientID: "moat"}}
		if change != nil {
			change(&c)
		}
		return c
	}
	g := newGateway(t, base(nil))
	asked := map[string][]string{"jwt": bearer(signed), "key": {"X-Api-Key", text}, "opaque": bearer("opaque")}
	status := func(kind string) int { return serve(g, request("GET", app, asked[kind]...)).StatusCode }
	for name, test := range map[string]struct {
		kind   string
		change func(c *gateway.Config)
	}{
		"audience":       {"jwt", func(c *gateway.Config) { c.Callers.JWT[0].Audiences = []string{"other"} }},
		"issuer":         {"jwt", func(c *gateway.Config) { c.Callers.JWT[0].Issuer = "https://other.example" }},
		"secret":         {"jwt", func(c *gateway.Config) { c.Callers.JWT[0].Secret = []byte(strings.Repeat("n", 48)) }},
		"type":           {"jwt", func(c *gateway.Config) { c.Callers.JWT[0].Types = []string{"at+jwt"} }},
		"required claim": {"jwt", func(c *gateway.Config) { c.Callers.JWT[0].Required = []string{"org"} }},
		"proof":          {"jwt", func(c *gateway.Config) { c.Callers.JWT[0].RequireProof = true }},
		"scope claim":    {"jwt", func(c *gateway.Config) { c.Callers.JWT[0].ScopeClaim = "perms" }},
		"roles claim": {"jwt", func(c *gateway.Config) {
			c.Callers.JWT[0].RolesClaim = ""
			c.Routes[0].Authorize.Roles = []string{"staff"}
		}},
		"revocation":          {"jwt", func(c *gateway.Config) { c.Callers.JWT[0].Revoked, _ = jwt.ParseRevocations([]byte("jti one")) }},
		"source of the route": {"jwt", func(c *gateway.Config) { c.Routes[0].Sources = []string{"partners"} }},
		"name of the source": {"jwt", func(c *gateway.Config) {
			c.Callers.JWT[0].Source = "renamed"
			c.Routes[0].Sources = []string{"partners"}
		}},
		"no issuer":      {"jwt", func(c *gateway.Config) { c.Callers.JWT = nil; c.Routes[0].Sources = []string{"partners"} }},
		"key taken away": {"key", func(c *gateway.Config) { c.Callers.Keys[0].Set = nil }},
		"key's scopes": {"key", func(c *gateway.Config) {
			less := key
			less.Scopes = nil
			c.Callers.Keys[0].Set.Replace([]apikey.Key{less})
		}},
		"key's header":          {"key", func(c *gateway.Config) { c.Callers.Keys[0].Header = "X-Other" }},
		"introspected audience": {"opaque", func(c *gateway.Config) { c.Callers.Introspection[0].Audiences = []string{"other"} }},
		"introspected issuer":   {"opaque", func(c *gateway.Config) { c.Callers.Introspection[0].Issuer = "https://other.example" }},
		"introspected scopes":   {"opaque", func(c *gateway.Config) { c.Callers.Introspection[0].ScopeClaim = "perms" }},
	} {
		t.Run(name, func(t *testing.T) {
			for kind := range asked {
				if got := status(kind); got != http.StatusOK {
					t.Fatalf("%s before: %d", kind, got)
				}
			}
			if err := g.Reload(base(test.change)); err != nil {
				t.Fatal(err)
			}
			if got := status(test.kind); got == http.StatusOK {
				t.Error("it is accepted still")
			}
			if err := g.Reload(base(nil)); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// Reloads under load refuse no good caller, let nobody else in, and leave nothing running.
func TestReloadsUnderLoad(t *testing.T) {
	var keys *httptest.Server
	keys = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if r.Method == http.MethodPost {
			io.WriteString(w, `{"active":true,"sub":"alice"}`)
			return
		}
		fmt.Fprintf(w, `{"issuer":%q,"jwks_uri":%q,"keys":[]}`, keys.URL, keys.URL)
	}))
	defer keys.Close()
	b := newBackend(t, nil)
	conf := func(i int) gateway.Config {
		c := configFor(t, b.URL, known(func(r *gateway.Route) { r.Sources = []string{"accounts", "opaque", "staff"} }))
		c.Callers.JWT = append(c.Callers.JWT, jwt.Issuer{Source: "found", Issuer: keys.URL, Audiences: []string{fmt.Sprint(i)}, Algorithms: []string{"ES256"}, Discover: true})
		c.Callers.Introspection = []introspection.Policy{{Source: "opaque", URL: keys.URL, ClientID: "moat", ClientSecret: fmt.Sprint(i % 3), Timeout: time.Minute}}
		c.Callers.Logins = []session.Policy{{Source: "staff", Issuer: keys.URL, ClientID: fmt.Sprint("moat", i%3)}}
		return c
	}
	g := newGateway(t, conf(0))
	good, stop := token(t, "alice"), make(chan struct{})
	var wrong atomic.Int32
	var all sync.WaitGroup
	before := runtime.NumGoroutine()
	for range 4 {
		all.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				for _, try := range []struct {
					headers []string
					want    int
				}{
					{bearer(good), 200},
					{bearer("opaque"), 200},
					{bearer(good + "x"), 401},
					{nil, 401},
					{[]string{"Cookie", "__Host-moat-session-staff=" + strings.Repeat("A", 43)}, 401},
				} {
					if res := serve(g, request("GET", app, try.headers...)); res.StatusCode != try.want {
						wrong.Add(1)
						t.Errorf("%v: %d", try.headers, res.StatusCode)
					}
				}
			}
		})
	}
	for i := range 40 {
		if err := g.Reload(conf(i)); err != nil {
			t.Fatal(err)
		}
	}
	close(stop)
	all.Wait()
	keys.CloseClientConnections()
	b.CloseClientConnections()
	for end := time.Now().Add(30 * time.Second); runtime.NumGoroutine() > before+10 && time.Now().Before(end); {
		time.Sleep(20 * time.Millisecond)
	}
	if n := runtime.NumGoroutine(); n > before+10 {
		t.Errorf("%d goroutines, %d before", n, before)
	}
}

// What the gate has read of a body, and then refused, is no request of its own.
func TestTheRestOfARefusedBodyIsNoRequest(t *testing.T) {
	b := newBackend(t, nil)
	g := newGateway(t, configFor(t, b.URL, cookieSession, route(func(r *gateway.Route) { r.Modes[guard.CrossSite] = guard.Off })))
	front := httptest.NewServer(g)
	defer front.Close()
	inside := "GET /inside HTTP/1.1\r\nHost: api.example.com\r\nSec-Fetch-Site: none\r\n\r\n"
	for _, size := range []int{10, 64 << 10, 300 << 10} {
		body := strings.Repeat("a", size) + inside
		conn, err := (&net.Dialer{}).DialContext(context.Background(), "tcp", front.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		go fmt.Fprintf(conn, "POST / HTTP/1.1\r\nHost: api.example.com\r\nCookie: sid=1\r\nContent-Type: application/x-www-form-urlencoded\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", len(body), body)
		br := bufio.NewReader(conn)
		res, err := http.ReadResponse(br, nil)
		if err != nil || res.StatusCode != http.StatusForbidden {
			t.Fatalf("%d: %v %v", size, res, err)
		}
		io.Copy(io.Discard, res.Body)
		conn.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
		if _, err = http.ReadResponse(br, nil); err == nil {
			t.Errorf("%d: a second answer", size)
		}
		conn.Close()
	}
	if b.ran.Load() != 0 {
		t.Error("the backend ran")
	}
}
