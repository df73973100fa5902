package credential

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/moat-gateway/moat/guard"
)

func TestCallersParametersOfOurNameAreRemoved(t *testing.T) {
	g, err := New(Policy{Query: map[string]string{"api_key": "the/secret"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for query, want := range map[string]string{
		"":                    "",
		"a=1&b=%zz&c;d=&&=":   "a=1&b=%zz&c;d=&&=",
		"api_key=x":           "",
		"a=1&api_key=x&b=2":   "a=1&b=2",
		"a=1;api_key=x&b=2":   "a=1;b=2",
		"%61pi%5Fkey=x":       "",
		"API_KEY":             "",
		"api.key=x&api-key=x": "",
		"api_key[]=x":         "",
		"api[key=x":           "",
		"%20api_key=x":        "",
		"+api_key=x":          "",
		"%u0061pi_key=x":      "",
		"api_keys=x":          "api_keys=x",
		"q=api_key=x":         "q=api_key=x",
		"a=1&api_key=x":       "a=1",
	} {
		u := &url.URL{RawQuery: query}
		if _, d := g.Use(t.Context(), make(http.Header), u); d.Denied() || u.RawQuery != strings.TrimSuffix("api_key=the%2Fsecret&"+want, "&") {
			t.Errorf("%s: got %s, want %s", query, u.RawQuery, want)
		}
	}
}

// What is left of a query has no parameter of our name, in any parser's eyes that this test
// knows, and our own comes first.
func FuzzQuery(f *testing.F) {
	f.Add("a=1&key=x;Key=y&%6bey=z")
	f.Add("k%65y[]=x&&;;key")
	g, err := New(Policy{Query: map[string]string{"key": "the-secret"}}, nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, query string) {
		u := &url.URL{RawQuery: query}
		if _, d := g.Use(t.Context(), make(http.Header), u); d.Denied() {
			t.Fatal(d)
		}
		rest, ok := strings.CutPrefix(u.RawQuery, "key=the-secret")
		if !ok || rest != "" && rest[0] != '&' {
			t.Fatalf("%q: %q", query, u.RawQuery)
		}
		for part := range strings.FieldsFuncSeq(rest, func(r rune) bool { return r == '&' || r == ';' }) {
			name, _, _ := strings.Cut(part, "=")
			if decoded, uErr := url.QueryUnescape(name); uErr == nil && strings.EqualFold(decoded, "key") && len(decoded) == 3 {
				t.Fatalf("%q: %q", query, u.RawQuery)
			}
		}
		if strings.Count(u.RawQuery, "")-len("key=the-secret&") > strings.Count(query, "")+1 {
			t.Fatalf("%q grew: %q", query, u.RawQuery)
		}
	})
}

func TestFaultyPoliciesAreRefusedWithoutTheirSecrets(t *testing.T) {
	const secret = "CANARY-secret"
	for name, c := range map[string]struct {
		p    Policy
		want string
	}{
		"short":         {Policy{Bearer: "CANARY"}, "less than 8 bytes"},
		"long":          {Policy{Bearer: strings.Repeat("CANARY", 1000)}, "more than 4096 bytes"},
		"asterisks":     {Policy{Bearer: "**********"}, "asterisks"},
		"control":       {Policy{Bearer: secret + "\r\nX: y"}, "control characters"},
		"two":           {Policy{Bearer: secret, Basic: Basic{"u", secret}}, "set twice"},
		"two spellings": {Policy{Headers: map[string]string{"X-Key": secret, "x_key": secret}}, "set twice"},
		"no header":     {Policy{Headers: map[string]string{"a b": secret}}, "not a header name"},
		"a colon":       {Policy{Basic: Basic{"a:b", secret}}, "colon"},
		"no parameter":  {Policy{Query: map[string]string{"": secret}}, "no name"},
		"oauth twice":   {Policy{Bearer: secret, OAuth: OAuth{TokenURL: "https://login.example/", ClientID: "moat", ClientSecret: secret}}, "set already"},
		"no TLS":        {Policy{OAuth: OAuth{TokenURL: "http://login.example/", ClientID: "moat", ClientSecret: secret}}, "without https"},
		"user info":     {Policy{OAuth: OAuth{TokenURL: "https://u:CANARY@login.example/", ClientID: "moat", ClientSecret: secret}}, "not a URL"},
		"no client":     {Policy{OAuth: OAuth{TokenURL: "http://localhost/", ClientSecret: secret}}, "no client id"},
	} {
		if _, err := New(c.p, nil); err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "CANARY") {
			t.Errorf("%s: %v, want %s", name, err, c.want)
		}
	}
}

func TestPolicyDoesNotPrint(t *testing.T) {
	p := Policy{Bearer: "CANARY", Headers: map[string]string{"A": "CANARY"}, OAuth: OAuth{ClientSecret: "CANARY"}, Basic: Basic{Password: "CANARY"}}
	holder := struct {
		P Policy
		M map[string]Policy
	}{p, map[string]Policy{"k": p}}
	var log strings.Builder
	slog.New(slog.NewTextHandler(&log, nil)).Info("m", "policy", p, "holder", holder)
	slog.New(slog.NewJSONHandler(&log, nil)).Info("m", "policy", p, "holder", holder)
	for _, text := range []string{log.String(), fmt.Sprint(p, holder), fmt.Sprintf("%+v %#v %s %q", p, holder, p, holder)} {
		if strings.Contains(text, "CANARY") || !strings.Contains(text, "[credential]") {
			t.Error(text)
		}
	}
}

func TestStripCaller(t *testing.T) {
	h := http.Header{"Authorization": {"x"}, "authorization": {"x"}, "Proxy_Authorization": {"x"}, "Cookie": {"x"}, "COOKIE": {"x"}, "Cookie2": {"x"}, "X-Authorization": {"x"}, "Accept": {"x"}}
	if StripCaller(h); len(h) != 2 || h["Accept"] == nil || h["X-Authorization"] == nil {
		t.Errorf("left: %v", h)
	}
}

type answers func(*http.Request) (*http.Response, error)

func (f answers) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestTransportDeniesAndLeavesTheRequestAlone(t *testing.T) {
	g, err := New(Policy{Bearer: "sk-a-long-secret", Query: map[string]string{"key": "sk-a-long-secret"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://api.example/?key=x", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer x")
	encoded := answers(func(*http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: 200, Header: http.Header{"Content-Encoding": {"br"}}, Body: http.NoBody}, nil
	})
	_, err = g.Transport(encoded, nil).RoundTrip(r)
	var denied *DeniedError
	if !errors.As(err, &denied) || denied.Decision.Reason != guard.UpstreamBadResponse || r.URL.RawQuery != "key=x" || r.Header.Get("Authorization") != "Bearer x" {
		t.Errorf("%v; the request is %s %v", err, r.URL, r.Header)
	}
	unavailable, err := New(Policy{OAuth: OAuth{TokenURL: "https://login.example/", ClientID: "moat", ClientSecret: "client-secret", Transport: answers(func(*http.Request) (*http.Response, error) {
		return nil, io.ErrUnexpectedEOF
	})}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err = unavailable.Transport(encoded, nil).RoundTrip(r); !errors.As(err, &denied) || denied.Decision.Reason != guard.CredentialUnavailable {
		t.Error(err)
	}
}
