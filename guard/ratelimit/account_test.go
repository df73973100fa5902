package ratelimit_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/moat-gateway/moat/guard/ratelimit"
)

const (
	asJSON = "application/json"
	asForm = "application/x-www-form-urlencoded"
	asMany = "multipart/form-data; boundary=b"
)

// part is a part of a multipart body with the boundary b.
func part(head, value string) string {
	return "--b\r\nContent-Disposition: form-data; " + head + "\r\n\r\n" + value + "\r\n"
}

func TestReadAccount(t *testing.T) {
	const bad = "an error"
	for _, c := range []struct{ name, field, kind, target, body, want string }{
		{"JSON", "email", asJSON, "/", `{"a":[1,{"email":"x"}],"email":"bob@c.test","b":{"email":"y"}}`, "bob@c.test"},
		{"JSON, below", "user.email", asJSON, "/", `{"email":"x","user":{"email":"bob"}}`, "bob"},
		{"JSON, in escapes", "email", asJSON, "/", `{"\u0065mail":"b\u006fb"}`, "bob"},
		{"JSON of another name", "email", "application/vnd.api+json; charset=UTF-8", "/", `{"email":"bob"}`, "bob"},
		{"a whole number", "id", asJSON, "/", `{"id":123}`, "123"},
		{"another spelling of a number", "id", asJSON, "/", `{"id":1.23e2}`, bad},
		{"null", "email", asJSON, "/", `{"email":null}`, ""},
		{"JSON without it", "email", asJSON, "/", `{"name":"bob"}`, ""},
		{"twice", "email", asJSON, "/", `{"email":"bob","email":"eve"}`, bad},
		{"twice the same", "email", asJSON, "/", `{"email":"bob","email":"bob"}`, bad},
		{"twice, in another case", "email", asJSON, "/", `{"email":"bob","eMail":"eve"}`, bad},
		{"twice, in an escape", "email", asJSON, "/", `{"email":"bob","\u0065mail":"eve"}`, bad},
		{"twice, below", "user.email", asJSON, "/", `{"user":{"email":"bob"},"user":{"email":"eve"}}`, bad},
		{"an operator in its place", "email", asJSON, "/", `{"email":{"$ne":null}}`, bad},
		{"a list", "email", asJSON, "/", `{"email":["bob"]}`, bad},
		{"true", "email", asJSON, "/", `{"email":true}`, bad},
		{"a text on the way", "user.email", asJSON, "/", `{"user":"bob"}`, bad},
		{"a batch", "email", asJSON, "/", `[{"email":"bob"}]`, bad},
		{"two values", "email", asJSON, "/", `{"email":"bob"}{"email":"eve"}`, bad},
		{"no JSON", "email", asJSON, "/", `{"email":"bob",}`, bad},
		{"a byte order mark", "email", asJSON, "/", "\ufeff" + `{"email":"bob"}`, bad},
		{"no UTF-8", "email", asJSON, "/", "{\"email\":\"b\xff\"}", bad},
		{"a NUL", "email", asJSON, "/", `{"email":"bob\u0000eve"}`, bad},

		{"form", "email", asForm, "/", "a=b&email=bob%40c.test&c", "bob@c.test"},
		{"form without it", "email", asForm, "/", "a=b", ""},
		{"form, twice", "email", asForm, "/", "email=bob&email=eve", bad},
		{"form, in another case alone", "email", asForm, "/", "EMAIL=bob", "bob"},
		{"form, in another case beside", "email", asForm, "/", "email=bob&Email=eve", bad},
		{"form, a list", "email", asForm, "/", "email[]=bob", bad},
		{"form, a list beside", "email", asForm, "/", "email=bob&email[0]=eve", bad},
		{"form, as PHP has it", "user_name", asForm, "/", "user_name=bob&user.name=eve", bad},
		{"form, as PHP has it too", "user_name", asForm, "/", "user_name=bob&+user[name=eve", bad},
		{"form, a longer name", "email", asForm, "/", "email=bob&email2=eve", "bob"},
		{"form, a name that ends early", "email", asForm, "/", "email=bob&email%00x=eve", bad},
		{"form with a semicolon", "email", asForm, "/", "a=b;email=bob", bad},
		{"form in a bad encoding", "email", asForm, "/", "email=%zz", bad},

		{"parts", "email", asMany, "/", part(`name="a"`, "x") + part(`name="email"`, "bob") + "--b--\r\n", "bob"},
		{"parts, twice", "email", asMany, "/", part(`name="email"`, "bob") + part(`name="email"`, "eve") + "--b--\r\n", bad},
		{"parts, a file", "email", asMany, "/", part(`name="email"; filename="f"`, "bob") + "--b--\r\n", bad},
		{"parts, encoded", "email", asMany, "/", part("name=\"email\"\r\nContent-Transfer-Encoding: base64", "Ym9i") + "--b--\r\n", bad},
		{"parts, two dispositions", "email", asMany, "/", part("name=\"email\"\r\nContent-Disposition: form-data; name=\"a\"", "bob") + "--b--\r\n", bad},
		{"parts, without an end", "email", asMany, "/", part(`name="email"`, "bob"), bad},
		{"parts without a boundary", "email", "multipart/form-data", "/", "", ""},
		{"parts without a boundary, some", "email", "multipart/form-data", "/", "x", bad},

		{"query", "email", "", "/?email=bob", "", "bob"},
		{"query beside the body", "email", asForm, "/?email=bob", "email=eve", bad},
		{"query beside JSON", "email", asJSON, "/?email=bob", `{"email":"bob"}`, bad},
		{"a bad query", "email", asJSON, "/?a;b", `{"email":"bob"}`, bad},
		{"nothing", "email", "", "/", "", ""},
		{"no field", "", asForm, "/?=bob", "=bob&[]=eve", ""},
		{"another type", "email", "text/plain", "/", `{"email":"bob"}`, bad},
		{"no type", "email", "", "/", `{"email":"bob"}`, bad},
		{"another charset", "email", "application/json; charset=utf-16", "/", `{"email":"bob"}`, bad},
		{"too long", "email", asForm, "/", "email=bob&a=" + strings.Repeat("a", 64<<10), bad},
		{"as long as may be", "email", asForm, "/", "email=bob&a=" + strings.Repeat("a", 64<<10-12), "bob"},
	} {
		t.Run(c.name, func(t *testing.T) {
			for chunked, body := range map[bool]io.Reader{false: strings.NewReader(c.body), true: iotest.OneByteReader(strings.NewReader(c.body))} {
				r := httptest.NewRequest(http.MethodPost, c.target, body)
				if c.kind != "" {
					r.Header.Set("Content-Type", c.kind)
				}
				length := r.ContentLength
				got, err := ratelimit.ReadAccount(r, c.field)
				if err != nil {
					got = bad
				}
				if got != c.want {
					t.Errorf("%q, %v; want %q", got, err, c.want)
				}
				if after, err := io.ReadAll(r.Body); string(after) != c.body || err != nil || r.ContentLength != length {
					t.Errorf("chunked %v: the body is %.100q, %v", chunked, after, err)
				}
			}
		})
	}
}

func TestReadAccountOfCredentials(t *testing.T) {
	basic := func(user string) string {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.SetBasicAuth(user, "secret")
		return r.Header.Get("Authorization")
	}
	for _, c := range []struct {
		name   string
		header http.Header
		target string
		want   string
	}{
		{"Basic", header("Authorization", basic("bob")), "/", "bob"},
		{"Bearer", header("Authorization", "Bearer abc"), "/?email=bob", "bob"},
		{"Basic beside the field", header("Authorization", basic("bob")), "/?email=eve", "an error"},
		{"Basic that is none", header("Authorization", "basic !"), "/", "an error"},
		{"two", header("Authorization", basic("bob"), "Authorization", basic("eve")), "/", "an error"},
		{"a NUL", header("Authorization", basic("bob\x00eve")), "/", "an error"},
		{"two types", header("Content-Type", asJSON, "Content-Type", asForm), "/", "an error"},
		{"an encoding", header("Content-Type", asJSON, "Content-Encoding", "gzip"), "/", "an error"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := httptest.NewRequest(http.MethodPost, c.target, http.NoBody)
			if strings.Contains(c.name, "types") || strings.Contains(c.name, "encoding") {
				r = httptest.NewRequest(http.MethodPost, c.target, strings.NewReader(`{"email":"bob"}`))
			}
			r.Header = c.header
			got, err := ratelimit.ReadAccount(r, "email")
			if err != nil {
				got = "an error"
			}
			if got != c.want {
				t.Errorf("%q, %v; want %q", got, err, c.want)
			}
		})
	}
}

func header(pairs ...string) http.Header {
	h := make(http.Header)
	for i := 0; i < len(pairs); i += 2 {
		h[pairs[i]] = append(h[pairs[i]], pairs[i+1])
	}
	return h
}

var errGone = errors.New("gone")

func TestAReadThatFailsIsSeenByTheUpstreamToo(t *testing.T) {
	r := httptest.NewRequest(http.MethodPost, "/", io.MultiReader(strings.NewReader(`{"email":"bob"`), iotest.ErrReader(errGone)))
	r.Header.Set("Content-Type", asJSON)
	if got, err := ratelimit.ReadAccount(r, "email"); err == nil {
		t.Errorf("%q", got)
	}
	if after, err := io.ReadAll(r.Body); string(after) != `{"email":"bob"` || !errors.Is(err, errGone) {
		t.Errorf("%q, %v", after, err)
	}
}

// What a server finds that decodes with net/http and encoding/json is what ReadAccount has
// told, unless that was an error; and the body is as it came.
func FuzzReadAccount(f *testing.F) {
	for _, s := range []string{`{"email":"bob"}`, `{"Email":"bob","email":null}`, `{"a":{"email":[]},"email":"\ud800"}`} {
		f.Add(0, s, "")
	}
	f.Add(1, "email=bob&a=b", "email=eve")
	f.Add(1, "email[=bob&e%6dail=", "a;b")
	f.Add(2, part(`name="email"`, "bob")+"--b--\r\n", "")
	f.Add(2, part(`name=email; x`, "bob")+"--b--", "email")
	f.Fuzz(func(t *testing.T, kind int, body, query string) {
		kinds := []string{asJSON, asForm, asMany}
		kind = int(uint(kind) % uint(len(kinds)))
		r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(body))
		r.URL.RawQuery = query
		r.Header.Set("Content-Type", kinds[kind])
		got, err := ratelimit.ReadAccount(r, "email")
		after, readErr := io.ReadAll(r.Body)
		if readErr != nil || string(after) != body {
			t.Fatalf("the body is %q, %v", after, readErr)
		}
		if err != nil {
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(after))
		var want string
		switch kinds[kind] {
		case asJSON:
			var login struct{ Email string }
			json.Unmarshal(after, &login)
			want = login.Email
		case asForm:
			want = r.PostFormValue("email")
		case asMany:
			form, err := multipart.NewReader(r.Body, "b").ReadForm(1 << 20)
			if err == nil && len(form.Value["email"]) > 0 {
				want = form.Value["email"][0]
			}
		}
		if want == "" {
			want = r.URL.Query().Get("email")
		}
		if want != "" && got != want {
			t.Errorf("%q, a server reads %q", got, want)
		}
	})
}
