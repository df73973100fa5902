package credential

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/iotest"
)

// masked reads an answer's body through a mask, in the pieces that the upstream sends.
func masked(t testing.TB, secrets []string, pieces ...string) (out string, echoes []string) {
	t.Helper()
	return maskedBy(t, func(r io.Reader) io.Reader { return r }, secrets, pieces...)
}

// maskedBy has the body read by a reader of its own kind.
func maskedBy(t testing.TB, reader func(io.Reader) io.Reader, secrets []string, pieces ...string) (out string, echoes []string) {
	t.Helper()
	readers := make([]io.Reader, len(pieces))
	for i, p := range pieces {
		readers[i] = strings.NewReader(p)
	}
	res := &http.Response{Body: io.NopCloser(io.MultiReader(readers...))}
	b, err := io.ReadAll(reader(newBody(newMask(secrets), res, func(where string) { echoes = append(echoes, where) })))
	if err != nil {
		t.Fatal(err)
	}
	return string(b), echoes
}

func TestEveryFormOfASecretIsMaskedAndNothingElse(t *testing.T) {
	const secret = `sk-a/b+c="d\e&<é>`
	for _, form := range []string{
		secret, "sk-a%2Fb%2Bc%3D%22d%5Ce%26%3C%C3%A9%3E", "sk-a%2fb%2bc%3d%22d%5ce%26%3c%c3%a9%3e", `sk-a/b+c=\"d\\e\u0026\u003cé\u003e`,
		`sk-a\/b+c="d\e&<é>`, "sk-a/b+c=&#34;d\\e&amp;&lt;é&gt;",
	} {
		got, echoes := masked(t, []string{secret}, "key: "+form+", sk-a/b")
		if want := "key: " + strings.Repeat("*", len(form)) + ", sk-a/b"; got != want || len(echoes) == 0 {
			t.Errorf("%s: got %s, %d echoes", form, got, len(echoes))
		}
	}
	if got, echoes := masked(t, []string{secret}, "sk-a/b+c is the beginning of one"); got != "sk-a/b+c is the beginning of one" || echoes != nil {
		t.Errorf("got %q, %v", got, echoes)
	}
}

func TestASecretIsFoundAcrossPieces(t *testing.T) {
	const secret = "abcabcabd"
	text := "abcabcabcabd abcabcab-abcabcabdabcabcabd"
	want := "abc********* abcabcab-******************"
	for i := range text {
		for j := i; j < len(text); j++ {
			if got, _ := masked(t, []string{secret}, text[:i], text[i:j], text[j:]); got != want {
				t.Fatalf("in pieces of %d, %d: %q", i, j, got)
			}
		}
	}
}

// Whoever reads in pieces shorter than a secret reads the same.
func TestReaderWithAShortBuffer(t *testing.T) {
	const secret, text = "sk-a-long-secret", "a sk-a-long-secret, sk-a-lon"
	for name, reader := range map[string]func(io.Reader) io.Reader{"bytes": iotest.OneByteReader, "halves": iotest.HalfReader} {
		if got, echoes := maskedBy(t, reader, []string{secret}, text[:7], text[7:]); got != "a ****************, sk-a-lon" || len(echoes) == 0 {
			t.Errorf("%s: %q", name, got)
		}
	}
}

// A stream's event reaches the client when the upstream sends it: only what may be the
// beginning of a secret waits.
func TestNothingIsHeldBackButTheBeginningOfASecret(t *testing.T) {
	in, feed := io.Pipe()
	b := newBody(newMask([]string{"sk-secret"}), &http.Response{Body: in}, func(string) {})
	buf := make([]byte, 1024)
	for _, c := range []struct {
		sent   []string
		passed string
	}{
		{[]string{"data: 1\n\n"}, "data: 1\n\n"},
		{[]string{"data: sk"}, "data: "},
		{[]string{"y\n\n"}, "sky\n\n"},
		{[]string{"s", "k-secret!"}, "*********!"},
	} {
		go func() {
			for _, piece := range c.sent {
				io.WriteString(feed, piece)
			}
		}()
		n, err := b.Read(buf)
		if err != nil || string(buf[:n]) != c.passed {
			t.Errorf("%q: got %q, %v", c.sent, buf[:n], err)
		}
	}
}

func TestWhatIsHeldBackIsGivenOutAtTheEnd(t *testing.T) {
	broken := errors.New("broken")
	res := &http.Response{Body: io.NopCloser(io.MultiReader(strings.NewReader("x sk-sec"), iotest.ErrReader(broken)))}
	b := newBody(newMask([]string{"sk-secret"}), res, func(string) {})
	got, err := io.ReadAll(b)
	if string(got) != "x sk-sec" || !errors.Is(err, broken) {
		t.Errorf("got %q, %v", got, err)
	}
}

// reference masks a whole text: the leftmost secret, of those the longest, and so on.
func reference(text string, needles []needle) string {
	out := []byte(text)
	for i := 0; i < len(out); {
		n := 0
		for _, nd := range needles {
			if strings.HasPrefix(text[i:], nd.str) {
				n = max(n, len(nd.str))
			}
		}
		copy(out[i:], strings.Repeat("*", n))
		i += max(n, 1)
	}
	return string(out)
}

// Whatever the pieces, no secret is in what comes out, and everything else is unchanged.
func FuzzMask(f *testing.F) {
	f.Add("sk-secret", "password1", "a sk-secret, password1 and sk-secretsk-secret", []byte{3, 1, 7})
	f.Add("aaaaaaaa", "aaaaaaaab", "aaaaaaaaaaaaaaaaaaaab", []byte{1})
	f.Add("p/ss w&rd", "12345678", "p%2Fss+w%26rd p%2fss%20w%26rd p\\/ss", []byte{5})
	f.Fuzz(func(t *testing.T, one, two, text string, cuts []byte) {
		if CheckSecret(one) != nil || CheckSecret(two) != nil || len(text) > 4096 || strings.Contains(one+two, "*") {
			t.Skip("not a secret")
		}
		secrets := []string{one, two}
		m := newMask(secrets)
		rest, pieces := text, []string(nil)
		for i := 0; rest != "" && len(cuts) > 0; i++ {
			n := min(int(cuts[i%len(cuts)])%37+1, len(rest))
			pieces = append(pieces, rest[:n])
			rest = rest[n:]
		}
		got, echoes := masked(t, secrets, append(pieces, rest)...)
		if want := reference(text, m.needles); got != want {
			t.Fatalf("%q with %q, %q in %q: got %q, want %q", text, one, two, pieces, got, want)
		}
		for _, n := range m.needles {
			if strings.Contains(got, n.str) {
				t.Fatalf("%q shows in %q", n.str, got)
			}
		}
		if whole, found := m.text(text); whole != got || found != (got != text) || found != (len(echoes) > 0) {
			t.Fatalf("as one text: %q, %v; echoes %v", whole, found, echoes)
		}
	})
}

// endless is a body of the same text again and again.
type endless struct{ text []byte }

func (e endless) Read(p []byte) (int, error) {
	n := 0
	for n < len(p) {
		n += copy(p[n:], e.text)
	}
	return n, nil
}

func (endless) Close() error { return nil }

func bodies() map[string][]byte {
	var binary []byte
	for i := uint32(1); len(binary) < 64<<10; i = i*1664525 + 1013904223 {
		binary = append(binary, byte(i>>24))
	}
	return map[string][]byte{
		"json":   []byte(strings.Repeat(`{"id":"chatcmpl-7QyqpwdfhqwajicIEznoc6Q47XAyW","choices":[{"delta":{"content":" and so"},"index":0,"finish_reason":null}]}`+"\n", 512)),
		"prose":  []byte(strings.Repeat("It was the best of times, it was the worst of times, it was the age of wisdom. ", 800)),
		"binary": binary,
	}
}

var benchSecrets = []string{"sk-proj-4fVx9QzL2mT7pWcR8yJn3KdHb6GsEoUa"}

func TestLookingForSecretsDoesNotAllocate(t *testing.T) {
	b := newBody(newMask(benchSecrets), &http.Response{Body: endless{bodies()["json"]}}, func(string) {})
	buf := make([]byte, 32<<10)
	if n := testing.AllocsPerRun(100, func() { b.Read(buf) }); n != 0 {
		t.Errorf("%v allocations for a piece of a body", n)
	}
}

func BenchmarkMask(b *testing.B) {
	texts := bodies()
	for _, name := range []string{"json", "prose", "binary"} {
		for forms, secrets := range map[string][]string{"one": benchSecrets, "basic": {"correct horse battery", "bW9hdDpjb3JyZWN0IGhvcnNlIGJhdHRlcnk="}} {
			b.Run(name+"/"+forms, func(b *testing.B) {
				r := newBody(newMask(secrets), &http.Response{Body: endless{texts[name]}}, func(string) {})
				buf := make([]byte, 32<<10)
				b.SetBytes(int64(len(buf)))
				b.ReportAllocs()
				for b.Loop() {
					r.Read(buf)
				}
			})
		}
	}
	b.Run("copy only", func(b *testing.B) {
		buf := make([]byte, 32<<10)
		b.SetBytes(int64(len(buf)))
		for b.Loop() {
			endless{texts["json"]}.Read(buf)
		}
	})
}
