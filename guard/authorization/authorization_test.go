package authorization_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/moat-gateway/moat/guard"
	"github.com/moat-gateway/moat/guard/authorization"
	"github.com/moat-gateway/moat/guard/identity"
	"github.com/moat-gateway/moat/guard/identity/assume"
)

var noon = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

var alice = assume.Principal(assume.Who{
	Source: "accounts", Subject: "alice", Method: identity.JWT, Credential: "t-1",
	Scopes: []string{"orders:read", "profile"}, Roles: []string{"editor"},
	Claims: map[string]any{
		"org": "acme", "admin": false, "level": int64(7), "rate": 2.5, "nothing": nil,
		"groups": []any{"staff", int64(4), []any{"inner"}}, "realm": map[string]any{"plan": "pro"}, "a.b": "dotted",
	},
})

// nobody is an API key's owner without a name: what is missing is not an empty text.
var nobody = assume.Principal(assume.Who{Source: "keys", Method: identity.APIKey})

func TestDecide(t *testing.T) {
	type policy = authorization.Policy
	condition := func(s string) policy { return policy{Condition: s, Pattern: "GET /users/{sub}"} }
	for _, c := range []struct {
		name   string
		policy policy
		who    *identity.Principal
		target string
		want   guard.Reason
	}{
		{"nothing is asked of nobody", policy{}, nil, "/", guard.OK},
		{"nothing is asked", policy{}, alice, "/", guard.OK},

		{"a scope", policy{Scopes: []string{"profile"}}, alice, "/", guard.OK},
		{"all scopes", policy{Scopes: []string{"profile", "orders:read"}}, alice, "/", guard.OK},
		{"one of two scopes", policy{Scopes: []string{"profile", "orders:write"}}, alice, "/", guard.AuthorizationScopeMissing},
		{"a scope is not its beginning", policy{Scopes: []string{"orders"}}, alice, "/", guard.AuthorizationScopeMissing},
		{"nor what it begins", policy{Scopes: []string{"profile:read"}}, alice, "/", guard.AuthorizationScopeMissing},
		{"case", policy{Scopes: []string{"Profile"}}, alice, "/", guard.AuthorizationScopeMissing},
		{"a scope, of nobody", policy{Scopes: []string{"profile"}}, nil, "/", guard.AuthorizationScopeMissing},

		{"one of the roles", policy{Roles: []string{"admin", "editor"}}, alice, "/", guard.OK},
		{"none of the roles", policy{Roles: []string{"admin", "owner"}}, alice, "/", guard.AuthorizationRoleMissing},
		{"a scope is no role", policy{Roles: []string{"profile"}}, alice, "/", guard.AuthorizationRoleMissing},
		{"a role, of nobody", policy{Roles: []string{"editor"}}, nil, "/", guard.AuthorizationRoleMissing},

		{"a text", policy{Claims: map[string]any{"org": "acme"}}, alice, "/", guard.OK},
		{"another text", policy{Claims: map[string]any{"org": "acm"}}, alice, "/", guard.AuthorizationClaimDiffers},
		{"false", policy{Claims: map[string]any{"admin": false}}, alice, "/", guard.OK},
		{"true", policy{Claims: map[string]any{"admin": true}}, alice, "/", guard.AuthorizationClaimDiffers},
		{"a number", policy{Claims: map[string]any{"level": int64(7)}}, alice, "/", guard.OK},
		{"a number is no text", policy{Claims: map[string]any{"level": "7"}}, alice, "/", guard.AuthorizationClaimDiffers},
		{"in a list", policy{Claims: map[string]any{"groups": "staff"}}, alice, "/", guard.OK},
		{"a number in a list", policy{Claims: map[string]any{"groups": int64(4)}}, alice, "/", guard.OK},
		{"in a list within the list", policy{Claims: map[string]any{"groups": "inner"}}, alice, "/", guard.AuthorizationClaimDiffers},
		{"below", policy{Claims: map[string]any{"realm.plan": "pro"}}, alice, "/", guard.OK},
		{"a dotted name", policy{Claims: map[string]any{"a.b": "dotted"}}, alice, "/", guard.OK},
		{"an object", policy{Claims: map[string]any{"realm": "pro"}}, alice, "/", guard.AuthorizationClaimDiffers},
		{"null", policy{Claims: map[string]any{"nothing": ""}}, alice, "/", guard.AuthorizationClaimDiffers},
		{"a fraction", policy{Claims: map[string]any{"rate": int64(2)}}, alice, "/", guard.AuthorizationClaimDiffers},
		{"no such claim", policy{Claims: map[string]any{"plan": "pro"}}, alice, "/", guard.AuthorizationClaimDiffers},
		{"one claim of two", policy{Claims: map[string]any{"org": "acme", "level": int64(8)}}, alice, "/", guard.AuthorizationClaimDiffers},
		{"a claim, of nobody", policy{Claims: map[string]any{"org": "acme"}}, nil, "/", guard.AuthorizationClaimDiffers},

		{"the user's own", condition("path.sub == principal.sub"), alice, "/users/alice", guard.OK},
		{"another user's", condition("path.sub == principal.sub"), alice, "/users/bob", guard.AuthorizationConditionFalse},
		{"a user's, of nobody", condition("path.sub == principal.sub"), nil, "/users/alice", guard.AuthorizationConditionFailed},
		{"a path of another route", condition("path.sub == principal.sub"), alice, "/orders/alice", guard.AuthorizationConditionFailed},
		{"all of it", policy{Scopes: []string{"profile"}, Roles: []string{"editor"}, Claims: map[string]any{"org": "acme"}, Condition: "true"}, alice, "/", guard.OK},
		{"the condition beside", policy{Scopes: []string{"profile"}, Condition: "false"}, alice, "/", guard.AuthorizationConditionFalse},

		{"nobody, by name", condition("principal.anonymous"), nil, "/users/x", guard.OK},
		{"somebody", condition("principal.anonymous"), alice, "/users/x", guard.AuthorizationConditionFalse},
		{"not being somebody", condition(`principal.sub != "bob"`), nil, "/users/x", guard.AuthorizationConditionFailed},
		{"not having a scope", condition(`!("banned" in principal.scopes)`), nil, "/users/x", guard.AuthorizationConditionFailed},
		{"no subject is not an empty one", condition(`principal.sub == ""`), nobody, "/users/x", guard.AuthorizationConditionFailed},
		{"no issuer", condition(`principal.iss != "https://evil.test"`), nobody, "/users/x", guard.AuthorizationConditionFailed},
		{"no claims", condition(`has(principal.claims.org)`), nobody, "/users/x", guard.AuthorizationConditionFalse},

		{"everything else", condition(`principal.source == "accounts" && principal.method == "jwt" && principal.credential == "t-1" &&
			"profile" in principal.scopes && principal.roles == ["editor"] && principal.claims.org == "acme" && principal.claims.level > 5 &&
			"staff" in principal.claims.groups && principal.claims.realm.plan == "pro" && principal.claims["a.b"] == "dotted" &&
			request.method == "GET" && request.host == "api.example" && request.path == "/users/alice" &&
			request.query.q == ["1", "a&b"] && request.time < timestamp("2026-12-01T00:00:00Z") && request.time.getHours() == 12`), alice, "/users/alice?q=1&q=a%26b", guard.OK},
		{"a claim that is not there", condition(`principal.claims.plan == "pro"`), alice, "/users/x", guard.AuthorizationConditionFailed},
		{"a claim that is asked for first", condition(`has(principal.claims.plan) && principal.claims.plan == "pro"`), alice, "/users/x", guard.AuthorizationConditionFalse},
		{"below a claim that is no object", condition(`principal.claims.org.plan == "pro"`), alice, "/users/x", guard.AuthorizationConditionFailed},
		{"a claim of another type", condition(`principal.claims.org == 7`), alice, "/users/x", guard.AuthorizationConditionFalse},
		{"an order between types", condition(`principal.claims.org < 7`), alice, "/users/x", guard.AuthorizationConditionFailed},
		{"a query value that is not there", condition(`request.query.q == ["1"]`), alice, "/users/x", guard.AuthorizationConditionFailed},
		{"a query value given twice", condition(`request.query.user == [principal.sub]`), alice, "/users/x?user=alice&user=bob", guard.AuthorizationConditionFalse},
		{"a query that is malformed", condition(`request.query.user == [principal.sub]`), alice, "/users/x?user=alice;user=bob", guard.AuthorizationConditionFailed},
		{"what costs too much", condition(`request.path.matches("^(/|a|users)*$")`), alice, "/users/" + strings.Repeat("a", 60_000), guard.AuthorizationConditionFailed},
		{"a loop that costs too much", condition(`request.query.q.all(a, request.query.q.all(b, a == b))`), alice, "/users/x?" + strings.Repeat("q=1&", 200), guard.AuthorizationConditionFailed},
	} {
		t.Run(c.name, func(t *testing.T) {
			g, err := authorization.New(c.policy)
			if err != nil {
				t.Fatal(err)
			}
			r := httptest.NewRequest(http.MethodGet, "https://API.example:8443"+c.target, nil)
			if d := g.Decide(c.who, r, noon); d.Reason != c.want || d.Denied() != (c.want != guard.OK) {
				t.Errorf("%s, %+v; want %s", d.Reason, d.Evidence, c.want)
			}
		})
	}
}

func TestNewSaysWhatIsWrong(t *testing.T) {
	type policy = authorization.Policy
	condition := func(s string) policy { return policy{Condition: s, Pattern: "GET /users/{user}/{rest...}"} }
	for _, c := range []struct {
		policy policy
		want   string
	}{
		{policy{Scopes: []string{"a b"}}, `scope "a b": not a scope; use printable ASCII without blanks, quotes and backslashes (RFC 6749 section 3.3)`},
		{policy{Scopes: []string{`a"`}}, `scope "a\"": not a scope; use printable ASCII without blanks, quotes and backslashes (RFC 6749 section 3.3)`},
		{policy{Roles: []string{""}}, `a role has no name`},
		{policy{Claims: map[string]any{"a": 1.5}}, `claim "a": compared with a float64; use a text, a whole number, true or false, or a condition`},
		{condition(`principal.subject == "a"`), `condition:1:1: principal.subject: no such value; there is principal.anonymous, principal.claims, principal.credential, principal.iss, principal.method, principal.roles, principal.scopes, principal.source, principal.sub`},
		{condition(`principal.subb == "a"`), `condition:1:1: principal.subb: no such value; did you mean principal.sub?`},
		{condition(`path.use == "a"`), `condition:1:1: path.use: no such value; did you mean path.user?`},
		{condition(`path["user"] == "a"`), `condition:1:1: path: not a value by itself; there is path.rest, path.user`},
		{policy{Condition: `path.user == "a"`, Pattern: "/users"}, `condition:1:1: path.user: no such value; the route's pattern has no {name}`},
		{condition(`request.header.x == "a"`), `condition:1:1: request.header: no such value; there is request.host, request.method, request.path, request.query, request.time`},
		{condition(`principal == null`), `condition:1:1: principal: not a value by itself; there is principal.anonymous, principal.claims, principal.credential, principal.iss, principal.method, principal.roles, principal.scopes, principal.source, principal.sub`},
		{condition(`has(principal.sub)`), `condition:1:5: has(principal.sub): has() is for claims, as in has(principal.claims.org); a condition that uses what is not there is refused`},
		{condition(`user == "a"`), `condition:1:1: undeclared reference to 'user'; a condition knows principal.…, request.… and path.…, and texts stand in quotes`},
		{condition(`path.user == 7`), `condition:1:11: found no matching overload for '_==_' applied to '(string, int)'; make both of one type, as in int(path.id) == 7`},
		{condition(`path.user`), `condition:1:1: is a string; a condition is true or false, as path.sub == principal.sub is`},
		{condition(`principal.claims.admin`), `condition:1:1: may be anything; a condition is true or false: compare a claim, as in principal.claims.admin == true`},
		{condition(`path.user == `), `condition:1:14: Syntax error: mismatched input '<EOF>' expecting {'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}`},
		{condition(`path.user = principal.sub`), `condition:1:11: Syntax error: token recognition error at: '= '; equality is written ==
condition:1:13: Syntax error: mismatched input 'principal' expecting <EOF>`},
		{condition(`path.user.matches(principal.sub)`), `condition:1:18: matches: the pattern must stand in the condition, in quotes`},
		{condition(`path.user.matches("(")`), `condition:1:19: invalid matches argument; it is no regular expression (https://github.com/google/re2/wiki/Syntax)`},
		{condition(`path.user.match("a")`), `condition:1:16: undeclared reference to 'match' (did you mean 'matches'?)`},
		{condition(strings.Repeat("(", 100) + "true" + strings.Repeat(")", 100)), `condition: expression recursion limit exceeded: 50`},
		{condition(strings.Repeat("!", 5000) + "true"), `condition: expression code point size exceeds limit: size: 5004, limit 4096`},
		{policy{Condition: "true", Pattern: "/users/{a}/{a}"}, `pattern "/users/{a}/{a}": parsing "/users/{a}/{a}": at offset 11: duplicate wildcard name "a"`},
		{policy{Condition: "true", Pattern: "users"}, `pattern "users": parsing "users": at offset 0: host/path missing /`},
	} {
		_, err := authorization.New(c.policy)
		if err == nil || err.Error() != c.want {
			t.Errorf("%+v:\n%v\nwant\n%s", c.policy, err, c.want)
		}
	}
}
