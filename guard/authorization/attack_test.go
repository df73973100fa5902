package authorization_test

import (
	"bufio"
	"net/http"
	"net/http/httptest"
	"net/url"
	pathpkg "path"
	"strings"
	"testing"

	"github.com/moat-gateway/moat/guard"
	"github.com/moat-gateway/moat/guard/authorization"
	"github.com/moat-gateway/moat/guard/identity"
	"github.com/moat-gateway/moat/guard/identity/assume"
)

func build(t testing.TB, p authorization.Policy) *authorization.Guard {
	t.Helper()
	g, err := authorization.New(p)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// get is a request as it stands on the wire.
func get(t testing.TB, target string) *http.Request {
	t.Helper()
	r, err := http.ReadRequest(bufio.NewReader(strings.NewReader("GET " + target + " HTTP/1.1\r\nHost: api.example\r\n\r\n")))
	if err != nil {
		t.Fatalf("%q: %v", target, err)
	}
	return r
}

// Alice asks for what is not hers, and what is hers in other words.
func TestTheUserMayReadOnlyHisOwn(t *testing.T) {
	const own = "path.sub == principal.sub"
	for _, c := range []struct {
		pattern, condition, target string
		want                       guard.Reason
	}{
		{"/users/{sub}", own, "/users/alice", guard.OK},
		{"/users/{sub}", own, "/users/%61lice", guard.OK}, // the same, to every server
		{"/users/{sub}", own, "/users/bob", guard.AuthorizationConditionFalse},
		{"/users/{sub}", own, "/users/Alice", guard.AuthorizationConditionFalse},
		{"/users/{sub}", own, "/users/%2561lice", guard.AuthorizationConditionFalse}, // twice
		{"/users/{sub}", own, "/users/alice%00", guard.AuthorizationConditionFalse},
		{"/users/{sub}", own, "/users/alice%20", guard.AuthorizationConditionFalse},
		{"/users/{sub}", own, "/users/alice;x=bob", guard.AuthorizationConditionFalse},
		{"/users/{sub}", own, "/users/alice%2Fbob", guard.AuthorizationConditionFalse},
		{"/users/{sub}", own, "/users/alice%2F..%2Fbob", guard.AuthorizationConditionFailed},
		{"/users/{sub}", own, "/users/..%2Fusers%2Fbob", guard.AuthorizationConditionFailed},
		{"/users/{sub}", own, "/users/%D0%B0lice", guard.AuthorizationConditionFalse},     // a Cyrillic а
		{"/users/{sub}", own, "/users/%EF%BD%81lice", guard.AuthorizationConditionFalse},  // a wide ａ
		{"/users/{sub}", own, "/users/alice%E2%80%8B", guard.AuthorizationConditionFalse}, // a blank of no width
		{"/users/{sub}", own, "/users/alice?sub=bob&sub=alice", guard.OK},                 // a query is no path
		{"/users/{sub}", own, "/users/bob?sub=alice", guard.AuthorizationConditionFalse},  // either way
		{"/users/{sub}", own, "/users/", guard.AuthorizationConditionFailed},              // no value
		{"/users/{sub}", own, "/users/alice/", guard.AuthorizationConditionFailed},        // another pattern's
		{"/users/{sub}", own, "//users/alice", guard.AuthorizationConditionFailed},        // none
		{"/users/{sub}/{rest...}", own, "/users/alice/orders/7", guard.OK},                // below
		{"/users/{sub}/{rest...}", own, "/users/alice/", guard.OK},                        // nothing below
		{"/users/{sub}/{rest...}", own, "/users/alice/../bob", guard.AuthorizationConditionFailed},
		{"/users/{sub}/{rest...}", own, "/users/alice/%2e%2E/bob", guard.AuthorizationConditionFailed},
		{"/users/{sub}/{rest...}", own, "/users/alice/..%2Fbob", guard.AuthorizationConditionFailed},
		{"/users/{sub}/{rest...}", own, "/users/alice/..%5Cbob", guard.AuthorizationConditionFailed},
		{"/users/{sub}/{rest...}", own, "/users/alice/..;/bob", guard.AuthorizationConditionFailed}, // Tomcat
		{"/users/{sub}/{rest...}", own, "/users/alice/.hidden", guard.OK},
		{"/users/{sub...}", own, "/users/alice", guard.OK},
		{"/users/{sub...}", own, "/users/alice/orders", guard.AuthorizationConditionFalse},
		{"/users/{sub...}", own, "/users/", guard.AuthorizationConditionFalse},
		{"/users/{sub}/{$}", own, "/users/alice/", guard.OK},
		{"/users/{sub}/{$}", own, "/users/alice/x", guard.AuthorizationConditionFailed},
		{"/users/{sub}", `request.path == "/users/" + principal.sub`, "/users/alice", guard.OK},
		{"/users/{sub}", `request.path.startsWith("/users/" + principal.sub + "/")`, "/users/alice/%2e%2e/bob", guard.AuthorizationConditionFailed},
		{"/users", `request.query.user == [principal.sub]`, "/users?user=alice", guard.OK},
		{"/users", `request.query.user == [principal.sub]`, "/users?user=alice&user=bob", guard.AuthorizationConditionFalse},
		{"/users", `request.query.user == [principal.sub]`, "/users?user=alice&User=bob", guard.OK}, // names are told by case: see the page
		{"/users", `request.query.user == [principal.sub]`, "/users?user=alice;user=bob", guard.AuthorizationConditionFailed},
		{"/users", `request.query.user == [principal.sub]`, "/users?user=alice&a=%zz", guard.AuthorizationConditionFailed},
	} {
		g := build(t, authorization.Policy{Condition: c.condition, Pattern: c.pattern})
		if d := g.Decide(alice, get(t, c.target), noon); d.Reason != c.want {
			t.Errorf("%s of %s: %s, %+v; want %s", c.target, c.pattern, d.Reason, d.Evidence, c.want)
		}
	}
}

// Whatever is allowed is alice's, as it stands and after any server has resolved it.
func FuzzTheUserMayReadOnlyHisOwn(f *testing.F) {
	for _, s := range []string{"/users/alice/x", "/users/alice/%2e%2e/bob", "/users/alice/..;a/bob", "/users/alice/a%5C..%5C..%5Cbob", "/users/alice/%252e", "/users/al%69ce/.%2F"} {
		f.Add(s)
	}
	g := build(f, authorization.Policy{Condition: "path.sub == principal.sub", Pattern: "/users/{sub}/{rest...}"})
	f.Fuzz(func(t *testing.T, target string) {
		u, err := url.ParseRequestURI(target)
		if err != nil {
			return
		}
		r := &http.Request{Method: http.MethodGet, URL: u, Host: "h"}
		if g.Decide(alice, r, noon).Denied() {
			return
		}
		for _, path := range []string{u.Path, strings.ReplaceAll(u.Path, `\`, "/"), strings.ReplaceAll(u.Path, ";", "/;")} {
			if p := pathpkg.Clean(path); p != "/users/alice" && !strings.HasPrefix(p, "/users/alice/") {
				t.Errorf("%q is %q to a server", target, p)
			}
		}
	})
}

// What an operator reads has neither a query's value nor what a caller's claims hold beyond
// the one that decided.
func TestEvidenceHoldsNoSecrets(t *testing.T) {
	const secret = "s3cr3t"
	who := assume.Principal(assume.Who{
		Source: "accounts", Subject: "alice", Method: identity.JWT,
		Claims: map[string]any{"org": "acme", "list": []any{secret}, "object": map[string]any{"a": secret}, "token": secret},
	})
	for _, p := range []authorization.Policy{
		{Claims: map[string]any{"list": "x"}},
		{Claims: map[string]any{"object": "x"}},
		{Claims: map[string]any{"missing": "x"}},
		{Condition: `request.query.q == ["x"]`},
		{Condition: `int(request.query.q[0]) == 7`},
		{Condition: `timestamp(request.query.q[0]) == request.time`},
		{Condition: `principal.claims[request.query.q[0]] == 7`},
		{Condition: `principal.claims.token < 7`},
		{Condition: `int(principal.claims.token) < 7`},
		{Condition: `bytes(request.query.q[0]) == b"a" || request.query[request.query.q[0]] == ["a"]`},
	} {
		d := build(t, p).Decide(who, get(t, "/x?q="+secret), noon)
		if !d.Denied() || strings.Contains(d.Evidence.Where+d.Evidence.Got+d.Evidence.Want, secret) {
			t.Errorf("%+v: %+v", p, d)
		}
	}
}

func TestEvidence(t *testing.T) {
	type policy = authorization.Policy
	for _, c := range []struct {
		policy policy
		who    *identity.Principal
		want   guard.Evidence
	}{
		{policy{Scopes: []string{"profile", "orders:write"}}, alice, guard.Evidence{Where: "scopes", Got: "orders:read profile", Want: "orders:write"}},
		{policy{Scopes: []string{"profile"}}, nil, guard.Evidence{Where: "scopes", Got: "nobody is known", Want: "profile"}},
		{policy{Roles: []string{"admin", "owner"}}, alice, guard.Evidence{Where: "roles", Got: "editor", Want: "admin or owner"}},
		{policy{Claims: map[string]any{"org": "umbrella"}}, alice, guard.Evidence{Where: "claim org", Got: `"acme"`, Want: `"umbrella"`}},
		{policy{Claims: map[string]any{"groups": "owners"}}, alice, guard.Evidence{Where: "claim groups", Got: "a list of 3 without it", Want: `"owners"`}},
		{policy{Claims: map[string]any{"plan": true}}, alice, guard.Evidence{Where: "claim plan", Got: "no such claim", Want: "true"}},
		{policy{Claims: map[string]any{"realm": int64(1)}}, alice, guard.Evidence{Where: "claim realm", Got: "an object", Want: "1"}},
		{policy{Claims: map[string]any{"nothing": int64(1)}}, alice, guard.Evidence{Where: "claim nothing", Got: "null", Want: "1"}},
		{policy{Condition: `principal.sub == "bob"`}, alice, guard.Evidence{Where: "condition", Got: "false", Want: `principal.sub == "bob"`}},
		{policy{Condition: `principal.sub == "bob"`}, nil, guard.Evidence{Where: "condition", Got: "principal.sub is not there", Want: `principal.sub == "bob"`}},
		{policy{Condition: `true && principal.claims.plan == "pro"`}, alice, guard.Evidence{Where: "condition", Got: "1:25: no such key", Want: `true && principal.claims.plan == "pro"`}},
	} {
		if d := build(t, c.policy).Decide(c.who, get(t, "/"), noon); d.Evidence != c.want {
			t.Errorf("%+v; want %+v", d.Evidence, c.want)
		}
	}
}

func TestHandlerTellsTheClientItsScopes(t *testing.T) {
	for _, c := range []struct {
		policy    authorization.Policy
		status    int
		challenge string
	}{
		{authorization.Policy{}, http.StatusOK, ""},
		{authorization.Policy{Scopes: []string{"a:b", "c"}}, http.StatusForbidden, `Bearer error="insufficient_scope", scope="a:b c"`},
		{authorization.Policy{Roles: []string{"admin"}}, http.StatusForbidden, ""},
		{authorization.Policy{Condition: "false"}, http.StatusForbidden, ""},
	} {
		h := build(t, c.policy).Handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
		w := httptest.NewRecorder()
		h.ServeHTTP(w, get(t, "/"))
		if got := w.Header().Get("WWW-Authenticate"); w.Code != c.status || got != c.challenge {
			t.Errorf("%+v: %d %s", c.policy, w.Code, got)
		}
	}
}

func BenchmarkDecide(b *testing.B) {
	for _, c := range []struct {
		name   string
		policy authorization.Policy
	}{
		{"scopes", authorization.Policy{Scopes: []string{"profile", "orders:read"}, Roles: []string{"admin", "editor"}, Claims: map[string]any{"org": "acme"}}},
		{"own", authorization.Policy{Condition: "path.sub == principal.sub", Pattern: "/users/{sub}"}},
		{"longer", authorization.Policy{Condition: `path.sub == principal.sub || "admin" in principal.roles || principal.claims.org == "acme" && request.method == "GET"`, Pattern: "/users/{sub}"}},
	} {
		b.Run(c.name, func(b *testing.B) {
			g, r := build(b, c.policy), get(b, "/users/alice")
			b.ReportAllocs()
			for b.Loop() {
				if d := g.Decide(alice, r, noon); d.Denied() {
					b.Fatal(d)
				}
			}
		})
	}
	b.Run("compile", func(b *testing.B) {
		for b.Loop() {
			build(b, authorization.Policy{Condition: "path.sub == principal.sub", Pattern: "/users/{sub}"})
		}
	})
}
