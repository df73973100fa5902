package assertion_test

import (
	"bufio"
	"bytes"
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"golang.org/x/net/http/httpguts"

	"github.com/moat-gateway/moat/guard/assertion"
	"github.com/moat-gateway/moat/guard/identity/assume"
)

// read decodes a header as docs/guards/assertion.md tells upstreams to.
func read(t *testing.T, lines []string, unescape func(string) (string, error)) (items []string) {
	t.Helper()
	if len(lines) > 1 {
		t.Fatalf("%q: more than one line", lines)
	}
	for _, line := range lines {
		for item := range strings.SplitSeq(line, ",") {
			s, err := unescape(item)
			if err != nil {
				t.Fatal(err)
			}
			items = append(items, s)
		}
	}
	return items
}

// overTheWire is what a server reads of a request that net/http sends.
func overTheWire(t *testing.T, r *http.Request) http.Header {
	t.Helper()
	for _, lines := range r.Header {
		if !httpguts.ValidHeaderFieldValue(lines[0]) {
			t.Fatalf("%q: a transport would not send it", lines)
		}
	}
	var wire bytes.Buffer
	if err := r.Write(&wire); err != nil {
		t.Fatal(err)
	}
	got, err := http.ReadRequest(bufio.NewReader(&wire))
	if err != nil {
		t.Fatal(err)
	}
	return got.Header
}

// FuzzHeaders wants that what a server reads is what the principal has, to decoders of URLs and of forms, and that nothing a principal is called adds a header.
func FuzzHeaders(f *testing.F) {
	g := newGuard(f, headers("X-Sub", "sub", "X-List", "claim:list", "X-Roles", "roles"), nil)
	for _, s := range []string{"alice", "", " a ", "a,b", "a\r\nX-Admin: 1", "%2C", "a+b", "Zoë", "\"a", "\\", "\x00", "a\xff", "\u2028", "; q=1", "=?utf-8?q?a?="} {
		f.Add(s, s, "b")
		f.Add("a", "", s)
	}
	f.Fuzz(func(t *testing.T, sub, first, second string) {
		p := assume.Principal(assume.Who{
			Source: "s", Subject: sub, Roles: []string{second, first}, Claims: map[string]any{"list": []any{first, second}},
		})
		r := httptest.NewRequest("GET", "http://upstream.example/", nil)
		if err := g.Set(r.Header, p, now); err != nil {
			if long := len(sub) + 2*len(first) + 2*len(second); utf8.ValidString(sub+"a"+first+"a"+second) && 3*long < assertion.MaxBytes-2 {
				t.Fatal(err)
			}
			return
		}
		got := overTheWire(t, r)
		for name := range got {
			if !slices.Contains([]string{"X-Sub", "X-List", "X-Roles", "User-Agent"}, name) {
				t.Errorf("%q was added", name)
			}
		}
		for _, unescape := range []func(string) (string, error){url.PathUnescape, url.QueryUnescape} {
			for name, want := range map[string][]string{"X-Sub": {sub}, "X-List": {first, second}, "X-Roles": p.Roles()} {
				want = slices.DeleteFunc(slices.Clone(want), func(s string) bool { return s == "" })
				if items := read(t, got[name], unescape); !slices.Equal(items, want) {
					t.Errorf("%s: %q, want %q", name, items, want)
				}
			}
		}
	})
}

// FuzzToken wants that a token says of a principal what it is, or that there is none.
func FuzzToken(f *testing.F) {
	s := newSigner(f, edwards(f))
	g := newGuard(f, policy(func(p *assertion.TokenPolicy) { p.Claims = []string{"name"} }), s)
	for _, text := range []string{"alice", "", "a b", "a\"b", "\\", "</script>", "\x00", "a\xff", "\ufffd", "\u2028", "Zoë"} {
		f.Add(text, "read", "admin", "x")
		f.Add("alice", text, text, text)
	}
	f.Fuzz(func(t *testing.T, sub, scope, role, name string) {
		p := assume.Principal(assume.Who{Source: "s", Subject: sub, Scopes: []string{scope, "z"}, Roles: []string{role}, Claims: map[string]any{"name": name}})
		h := http.Header{"X-Moat-Identity": {"mallory"}}
		if err := g.Set(h, p, now); err != nil {
			if len(h) != 0 {
				t.Errorf("%v, %q", err, h)
			}
			return
		}
		c := verify(t, s.JWKS(), h.Get("X-Moat-Identity"), now)
		if sub == "" {
			if _, there := c["sub"]; there {
				t.Error("nobody has a name")
			}
		} else if c["sub"] != "s|"+sub {
			t.Errorf("sub %q, want %q", c["sub"], sub)
		}
		if text, ok := c["scope"].(string); !ok || !slices.Equal(strings.Fields(text), p.Scopes()) {
			t.Errorf("scope %q, want %q", c["scope"], p.Scopes())
		}
		if !reflect.DeepEqual(c["roles"], []any{role}) || c["name"] != name {
			t.Errorf("roles %q, name %q, want %q and %q", c["roles"], c["name"], role, name)
		}
	})
}
