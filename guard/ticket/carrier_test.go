package ticket_test

import (
	"bufio"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/moat-gateway/moat/guard/ticket"
)

// FuzzWhatIsProvedIsWhatIsSent has an attacker put a token that was made for one target into
// another, wherever he likes, and wants that nobody behind the gate sees any but the first.
func FuzzWhatIsProvedIsWhatIsSent(f *testing.F) {
	for _, sent := range []string{
		"/a?moat=@", "/a&moat=@", "/a?b=1&moat=@", "/a?moat=1&moat=@", "/a?x&moat=@&moat=@", "/a?moat=@#b", "/a??moat=@", "/a?b?moat=@", "/a?&moat=@", "/a?&&moat=@",
		"/a?%6Doat=@", "/a;moat=@", "/a/moat=@", "/a?moat=@.stream", "//a?moat=@", "http://b/a?moat=@", "/a%3Fmoat=@", "/a?moat=@&", "/%61?moat=@", "/a?moat=@?moat=@",
	} {
		f.Add("/a", sent)
		f.Add("/a?b=1", sent)
		f.Add("/a?", sent)
	}
	s := newSite(f)
	f.Fuzz(func(t *testing.T, proved, sent string) {
		want, err := url.ParseRequestURI(proved)
		if err != nil {
			return
		}
		sent = strings.ReplaceAll(sent, "@", s.visit.TokenAt(0, "GET", proved, nil))
		r, err := http.ReadRequest(bufio.NewReader(strings.NewReader("GET " + sent + " HTTP/1.1\r\nHost: api.example\r\nUser-Agent: " + chrome + "\r\n\r\n")))
		if err != nil {
			return
		}
		if _, d := s.Decide(t.Context(), r, ticket.Facts{Now: s.now, Client: home, Dry: true}); d.Denied() {
			return
		}
		ticket.Strip(r)
		if r.RequestURI != proved || r.URL.RequestURI() != want.RequestURI() {
			t.Errorf("proved %q, sent %q: whoever is behind sees %q and %q", proved, sent, r.RequestURI, r.URL.RequestURI())
		}
	})
}
