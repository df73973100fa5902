package credential

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/moat-gateway/moat/guard"
)

// endpoint is a token endpoint without a network, so that tests can turn its clock.
type endpoint struct {
	asked  atomic.Int64
	takes  time.Duration
	answer func(n int64) (status int, body string)
}

func (e *endpoint) RoundTrip(r *http.Request) (*http.Response, error) {
	n := e.asked.Add(1)
	select {
	case <-time.After(e.takes):
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
	status, body := e.answer(n)
	if status == 0 {
		return nil, errors.New(body)
	}
	return &http.Response{StatusCode: status, Body: io.NopCloser(strings.NewReader(body))}, nil
}

// grants answers with tokens token-0001, token-0002 and so on, of that life.
func grants(life string) func(int64) (int, string) {
	return func(n int64) (int, string) {
		return 200, fmt.Sprintf(`{"access_token":"token-%04d","token_type":"Bearer","expires_in":%s}`, n, life)
	}
}

func withOAuth(t *testing.T, e *endpoint, old *Guard) *Guard {
	t.Helper()
	g, err := New(Policy{OAuth: OAuth{TokenURL: "https://login.example/token", ClientID: "moat", ClientSecret: "client-secret", Transport: e}}, old)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// used is the token of a request, or the reason why there is none.
func used(g *Guard) string {
	_, token := send(g)
	return token
}

func send(g *Guard) (*Sent, string) {
	h := make(http.Header)
	s, d := g.Use(context.Background(), h, new(url.URL))
	if d.Denied() {
		return nil, d.Reason.String() + ": " + d.Evidence.Got
	}
	return s, strings.TrimPrefix(h.Get("Authorization"), "Bearer ")
}

func TestTokenIsFetchedOnceAndRenewedBeforeItExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &endpoint{takes: time.Second, answer: grants("100")}
		g := withOAuth(t, e, nil)
		var all sync.WaitGroup
		for range 100 {
			all.Go(func() {
				if got := used(g); got != "token-0001" {
					t.Errorf("got %s", got)
				}
			})
		}
		all.Wait()
		if n := e.asked.Load(); n != 1 {
			t.Fatalf("the endpoint was asked %d times for one token", n)
		}
		time.Sleep(78 * time.Second) // it is 79 s old
		if got := used(g); got != "token-0001" || e.asked.Load() != 1 {
			t.Errorf("got %s after 79 s, asked %d times", got, e.asked.Load())
		}
		time.Sleep(2 * time.Second)
		if got := used(g); got != "token-0001" { // nobody waits for the next one
			t.Errorf("got %s while it is renewed", got)
		}
		time.Sleep(2 * time.Second)
		if got := used(g); got != "token-0002" || e.asked.Load() != 2 {
			t.Errorf("got %s, asked %d times", got, e.asked.Load())
		}
	})
}

func TestOldTokenIsUsedUntilItReallyExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &endpoint{answer: func(n int64) (int, string) {
			if n > 1 {
				return 503, "{}"
			}
			return grants("100")(n)
		}}
		g := withOAuth(t, e, nil)
		used(g)
		for range 99 {
			time.Sleep(time.Second)
			if got := used(g); got != "token-0001" {
				t.Fatalf("got %s", got)
			}
		}
		synctest.Wait()
		before := e.asked.Load()
		if before > 6 { // from 80 s on: at 0, 1, 3, 7 and 15 s
			t.Errorf("the endpoint was asked %d times", before)
		}
		time.Sleep(time.Second)
		if got := used(g); got != "credential-unavailable: it answered 503" {
			t.Errorf("got %s after its end", got)
		}
	})
}

func TestEndpointThatFailsIsNotAskedAgainAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		up := false
		e := &endpoint{answer: func(n int64) (int, string) {
			if !up {
				return 400, `{"error":"invalid_client","error_description":"client-secret is wrong"}`
			}
			return grants("100")(n)
		}}
		g := withOAuth(t, e, nil)
		for range 3000 { // five minutes
			if got := used(g); got != "credential-unavailable: it answered 400 invalid_client" {
				t.Fatalf("got %s", got)
			}
			time.Sleep(100 * time.Millisecond)
		}
		if n := e.asked.Load(); n < 10 || n > 16 { // after 1, 2, 4, 8, 16, 30, 30 s and so on
			t.Errorf("the endpoint was asked %d times in five minutes", n)
		}
		up = true
		time.Sleep(retryMost)
		if got := used(g); !strings.HasPrefix(got, "token-") {
			t.Errorf("got %s when it works again", got)
		}
	})
}

func TestTokenThatTheUpstreamRefusesIsReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &endpoint{answer: grants("3600")}
		g := withOAuth(t, e, nil)
		refuse := func() string {
			s, token := send(g)
			s.Answer(&http.Response{StatusCode: 401, Body: http.NoBody}, nil)
			return token
		}
		time.Sleep(time.Second)
		for range 50 { // an upstream that refuses every token causes no fetch for each
			refuse()
		}
		if n := e.asked.Load(); n != 1 {
			t.Errorf("a young token was replaced: asked %d times", n)
		}
		time.Sleep(refusedAfter)
		old, _ := send(g)
		refuse()
		if got := used(g); got != "token-0002" {
			t.Errorf("got %s", got)
		}
		time.Sleep(refusedAfter)
		old.Answer(&http.Response{StatusCode: 401, Body: http.NoBody}, nil) // of the token before
		if got := used(g); got != "token-0002" || e.asked.Load() != 2 {
			t.Errorf("a late answer to the old token replaced the new one: %s", got)
		}
	})
}

func TestCallerThatGoesAwayDoesNotEndTheFetch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &endpoint{takes: time.Second, answer: grants("100")}
		g := withOAuth(t, e, nil)
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if _, d := g.Use(ctx, make(http.Header), new(url.URL)); d.Reason != guard.RequestAborted {
			t.Errorf("got %+v", d)
		}
		if got := used(g); got != "token-0001" {
			t.Errorf("got %s", got)
		}
	})
}

func TestReloadKeepsTheToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &endpoint{answer: grants("100")}
		g := withOAuth(t, e, nil)
		used(g)
		e.answer = func(int64) (int, string) { return 503, "" }
		next, err := New(Policy{OAuth: OAuth{TokenURL: "https://login.example/token", ClientID: "moat", ClientSecret: "rotated-secret", Transport: e}}, g)
		if err != nil {
			t.Fatal(err)
		}
		if got := used(next); got != "token-0001" {
			t.Errorf("with a new secret: %s", got)
		}
		other, err := New(Policy{OAuth: OAuth{TokenURL: "https://login.example/token", ClientID: "moat", ClientSecret: "client-secret", Scopes: []string{"admin"}, Transport: e}}, g)
		if err != nil {
			t.Fatal(err)
		}
		if got := used(other); got != "credential-unavailable: it answered 503" {
			t.Errorf("with other scopes: %s", got)
		}
	})
}

func TestAnswersOfATokenEndpoint(t *testing.T) {
	for name, c := range map[string]struct {
		status int
		body   string
		want   string
	}{
		"expires_in as a text": {200, `{"access_token":"token-text","token_type":"bearer","expires_in":"60"}`, "token-text"},
		"no type, no life":     {200, `{"access_token":"token-bare"}`, "token-bare"},
		"an endless life":      {200, `{"access_token":"token-endless","expires_in":1e300}`, "token-endless"},
		"another type":         {200, `{"access_token":"token-mac1","token_type":"mac"}`, "credential-unavailable: its token is not of the type bearer"},
		"no token":             {200, `{}`, "credential-unavailable: its access_token is missing, too short, too long or not of the form of one"},
		"a line end":           {200, `{"access_token":"token\r\nX: y"}`, "credential-unavailable: its access_token is missing, too short, too long or not of the form of one"},
		"a short life":         {200, `{"access_token":"token-short","expires_in":1}`, "credential-unavailable: its token expires within 10s"},
		"no JSON":              {200, `access_token=client-secret`, "credential-unavailable: its answer is not the JSON of RFC 6749 section 5.1"},
		"too much":             {200, `{"access_token":"` + strings.Repeat("x", maxTokenAnswer) + `"}`, "credential-unavailable: its answer is larger than 65536 bytes"},
		"a redirect":           {307, `client-secret`, "credential-unavailable: it answered 307"},
		"an unknown error":     {401, `{"error":"client-secret"}`, "credential-unavailable: it answered 401"},
		"no answer":            {0, `malformed HTTP response "client-secret"`, "credential-unavailable: it did not answer in HTTP"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := &endpoint{answer: func(int64) (int, string) { return c.status, c.body }}
				if got := used(withOAuth(t, e, nil)); got != c.want {
					t.Errorf("got %s, want %s", got, c.want)
				}
			})
		})
	}
	t.Run("never", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			e := &endpoint{takes: time.Hour, answer: grants("100")}
			if got := used(withOAuth(t, e, nil)); got != "credential-unavailable: it did not answer within 10s" {
				t.Errorf("got %s", got)
			}
		})
	})
}

func TestTokenIsMasked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, token := send(withOAuth(t, &endpoint{answer: grants("100")}, nil))
		res := &http.Response{Header: http.Header{"X-Echo": {token + " client-secret"}}, Body: http.NoBody}
		echoed := 0
		if d := s.Answer(res, func(string) { echoed++ }); d.Denied() || res.Header.Get("X-Echo") != "********** *************" || echoed != 1 {
			t.Errorf("%+v, %v, %d", d, res.Header, echoed)
		}
	})
}
