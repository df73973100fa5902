package csrf

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
)

const field = "csrf_token"

// Forms are read as net/http reads them, and the body is what it was.
func FuzzForm(f *testing.F) {
	for _, b := range []string{
		"", "csrf_token=a", "a=b&csrf_token=x+y%20z&csrf_token=", "csrf%5ftoken=a", "csrf_token=a;b", "csrf_token=%zz", "=csrf_token", "&&csrf_token",
	} {
		f.Add("application/x-www-form-urlencoded", b)
	}
	const part = "Content-Disposition: form-data; name=\"csrf_token\""
	for _, b := range []string{
		"--x\r\n" + part + "\r\n\r\nabc\r\n--x--\r\n",
		"--x\r\n" + part + "; filename=\"f\"\r\n\r\nabc\r\n--x--\r\n",
		"--x\r\n" + part + "\r\nContent-Type: text/plain\r\n\r\nabc\r\n--x\r\n" + part + "\r\n\r\n\r\n--x--",
		"--x\n" + part + "\nContent-Transfer-Encoding: quoted-printable\n\n=41\n--x--\n",
		"--x\r\n" + part + "\r\n\r\nabc",
		"preamble --x",
	} {
		f.Add("multipart/form-data; boundary=x", b)
		f.Add("multipart/form-data; boundary=x; a", b)
		f.Add("multipart/mixed; boundary=x", b)
	}
	g := &Guard{field: field}
	f.Fuzz(func(t *testing.T, mime, text string) {
		if len(text) > formRoom || strings.Count(text, "\n--") >= maxParts {
			return
		}
		r := &http.Request{Method: "POST", Header: http.Header{"Content-Type": {mime}}, Body: io.NopCloser(iotest.OneByteReader(strings.NewReader(text))), ContentLength: int64(len(text))}
		got := g.inForm(r)
		after, err := io.ReadAll(r.Body)
		if err != nil || string(after) != text || r.ContentLength != int64(len(text)) {
			t.Fatalf("the body was %q, and is %q, %v", text, after, err)
		}
		r.Body = io.NopCloser(bytes.NewReader(after))
		if err = r.ParseMultipartForm(1 << 20); err != nil && !errors.Is(err, http.ErrNotMultipart) {
			return // net/http gives up at a fault, and has no form
		}
		if want := r.PostForm[field]; !slices.Equal(got, want) {
			t.Fatalf("%q, where net/http reads %q", got, want)
		}
	})
}

func TestOnlyAFormsHeadIsLookedAt(t *testing.T) {
	long := strings.Repeat("x", formRoom)
	tests := map[string]struct {
		mime, body string
		want       []string
	}{
		"first, of a long form":           {"application/x-www-form-urlencoded", "csrf_token=a&b=" + long, []string{"a"}},
		"last, of a long form":            {"application/x-www-form-urlencoded", "b=" + long + "&csrf_token=a", nil},
		"over the edge":                   {"application/x-www-form-urlencoded", "b=" + long[:formRoom-16] + "&csrf_token=abc", nil},
		"up to the edge":                  {"application/x-www-form-urlencoded", "b=" + long[:formRoom-15] + "&csrf_token=a", []string{"a"}},
		"too many fields":                 {"application/x-www-form-urlencoded", "csrf_token=a" + strings.Repeat("&", maxFields), nil},
		"first, of long parts":            {"multipart/form-data; boundary=x", partOf("csrf_token", "a") + partOf("b", long) + "--x--", []string{"a"}},
		"last, of long parts":             {"multipart/form-data; boundary=x", partOf("b", long) + partOf("csrf_token", "a") + "--x--", nil},
		"a part over the edge":            {"multipart/form-data; boundary=x", partOf("csrf_token", long) + "--x--", nil},
		"too many parts":                  {"multipart/form-data; boundary=x", strings.Repeat("--x\r\n\r\n\r\n", maxParts) + partOf("csrf_token", "a") + "--x--", nil},
		"a multipart form of no boundary": {"multipart/form-data", partOf("csrf_token", "a") + "--x--", nil},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			r := httptest.NewRequest("POST", "/", strings.NewReader(test.body))
			r.Header.Set("Content-Type", test.mime)
			if got := (&Guard{field: field}).inForm(r); !slices.Equal(got, test.want) {
				t.Errorf("%q, want %q", got, test.want)
			}
			if after, err := io.ReadAll(r.Body); err != nil || string(after) != test.body {
				t.Errorf("the body of %d bytes has %d, %v", len(test.body), len(after), err)
			}
		})
	}
}

func partOf(name, value string) string {
	return "--x\r\nContent-Disposition: form-data; name=" + name + "\r\n\r\n" + value + "\r\n"
}

// The rest of a body flows as it did, its error comes where it came, and it is closed.
func TestTheBodyIsPutBack(t *testing.T) {
	broken := errors.New("the client is gone")
	tests := map[string]struct {
		src  io.Reader
		want string
		err  error
	}{
		"long":               {strings.NewReader(strings.Repeat("a", 3*formRoom)), strings.Repeat("a", 3*formRoom), nil},
		"broken in the head": {io.MultiReader(strings.NewReader("a=b"), iotest.ErrReader(broken)), "a=b", broken},
		"broken behind":      {io.MultiReader(strings.NewReader(strings.Repeat("a", 2*formRoom)), iotest.ErrReader(broken)), strings.Repeat("a", 2*formRoom), broken},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			src := &closer{Reader: test.src}
			r := &http.Request{Method: "POST", Header: http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}, Body: src, ContentLength: -1}
			(&Guard{field: field}).inForm(r)
			if src.read > formRoom+1 {
				t.Errorf("%d bytes were read ahead", src.read)
			}
			after, err := io.ReadAll(r.Body)
			if !errors.Is(err, test.err) || string(after) != test.want || r.ContentLength != -1 {
				t.Errorf("%d bytes, %v", len(after), err)
			}
			if r.Body.Close(); !src.closed {
				t.Error("it is not closed")
			}
		})
	}
}

type closer struct {
	io.Reader
	read   int
	closed bool
}

func (c *closer) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.read += n
	return n, err
}

func (c *closer) Close() error {
	c.closed = true
	return nil
}
