package gateway_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/textproto"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/moat-gateway/moat/gateway"
	"github.com/moat-gateway/moat/guard/credential"
)

const apiKey = "sk-proj-4fVx9QzL2mT7pWcR8yJn3KdHb6GsEoUa"

func withCredential(p credential.Policy) func(*gateway.Config) {
	return func(c *gateway.Config) {
		up := c.Upstreams["app"]
		up.Credential = p
		c.Upstreams["app"] = up
	}
}

func TestCredentialStandsInThePlaceOfTheCallers(t *testing.T) {
	for _, c := range []struct {
		name   string
		policy credential.Policy
		header string
		want   string
		query  string
	}{
		{"bearer", credential.Policy{Bearer: apiKey}, "Authorization", "Bearer " + apiKey, "page=2"},
		{"basic", credential.Policy{Basic: credential.Basic{Username: "moat", Password: "correct horse"}}, "Authorization", "Basic bW9hdDpjb3JyZWN0IGhvcnNl", "page=2"},
		{"header", credential.Policy{Headers: map[string]string{"x-api-key": apiKey}}, "X-Api-Key", apiKey, "page=2"},
		{"query", credential.Policy{Query: map[string]string{"key": "a/b c&d=e"}}, "", "", "key=a%2Fb+c%26d%3De&page=2"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBackend(t, nil)
			s := start(t, configFor(t, b.URL, plain, withCredential(c.policy)))
			res := do(t, client(t, s), "GET", "/v1/items?page=2", nil, "Authorization", "Bearer the-callers", "Proxy-Authorization", "Basic x", "Cookie", "sid=1",
				"x_api_key", "the-callers", "X.Api.Key", "the-callers", "cookie2", "x", "X-Other", "passes")
			if res.StatusCode != 200 {
				t.Fatalf("status %d", res.StatusCode)
			}
			got := b.last.Load()
			if c.header != "" && !slices.Equal(got.Header[c.header], []string{c.want}) {
				t.Errorf("%s: %q", c.header, got.Header[c.header])
			}
			if got.URL.RawQuery != c.query {
				t.Errorf("query %q, want %q", got.URL.RawQuery, c.query)
			}
			for name, values := range got.Header {
				if strings.Contains(strings.Join(values, ""), "the-callers") && c.name != "bearer" && c.header == name || name == "Cookie" || name == "Proxy-Authorization" {
					t.Errorf("the caller's %s arrived: %q", name, values)
				}
			}
			if got.Header.Get("Authorization") == "Bearer the-callers" || got.Header.Get("X-Other") != "passes" {
				t.Errorf("arrived: %v", got.Header)
			}
		})
	}
}

// A trailer could become a header behind the upstream's parser.
func TestCallerSendsNoHeaderOfOursAsATrailer(t *testing.T) {
	var trailers http.Header
	b := newBackend(t, func(_ http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		trailers = r.Trailer
	})
	s := start(t, configFor(t, b.URL, plain, withCredential(credential.Policy{Headers: map[string]string{"X-Api-Key": apiKey}})))
	r, err := http.NewRequestWithContext(t.Context(), "POST", "http://api.example.com/", strings.NewReader("body"))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Origin", app)
	r.ContentLength = -1
	r.Trailer = http.Header{"X-Api-Key": {"the-callers"}, "X_api_key": {"the-callers"}, "Authorization": {"the-callers"}, "X-Checksum": {"1"}}
	res, err := client(t, s).Do(r)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if len(trailers) != 1 || trailers.Get("X-Checksum") != "1" {
		t.Errorf("trailers %v", trailers)
	}
}

func TestWhetherTheCallersCredentialsPassIsTheRoutesToSay(t *testing.T) {
	for _, c := range []struct {
		name   string
		policy credential.Policy
		route  gateway.CallerCredentials
		passes bool
	}{
		{"no credential", credential.Policy{}, gateway.CallerCredentialsAuto, true},
		{"no credential, strip", credential.Policy{}, gateway.CallerCredentialsStrip, false},
		{"a credential", credential.Policy{Query: map[string]string{"key": apiKey}}, gateway.CallerCredentialsAuto, false},
		{"a credential, pass", credential.Policy{Query: map[string]string{"key": apiKey}}, gateway.CallerCredentialsPass, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBackend(t, func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Set-Cookie", "sid=2") })
			g := newGateway(t, configFor(t, b.URL, withCredential(c.policy), route(func(r *gateway.Route) { r.CallerCredentials = c.route })))
			res := serve(g, request("GET", app, "Authorization", "Bearer x", "Cookie", "sid=1"))
			got := b.last.Load().Header
			if (got["Authorization"] != nil) != c.passes || (got["Cookie"] != nil) != c.passes || (res.Header["Set-Cookie"] != nil) != c.passes {
				t.Errorf("arrived: %v; answered: %v", got, res.Header)
			}
		})
	}
}

// echoing is an upstream that repeats the request's Authorization wherever it can.
func echoing(w http.ResponseWriter, r *http.Request) {
	secret := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
	h := w.Header()
	switch r.URL.Path {
	case "/header":
		h.Set("X-Echo", "a "+secret+" b")
	case "/redirect":
		h.Set("Location", "https://elsewhere.example/?key="+url.QueryEscape(secret))
		w.WriteHeader(http.StatusFound)
	case "/body":
		io.WriteString(w, "{\"key\": \""+secret+"\"}")
	case "/pieces":
		for i := range secret {
			io.WriteString(w, secret[i:i+1])
			http.NewResponseController(w).Flush()
		}
	case "/trailer":
		h.Set("Trailer", "X-Echo")
		io.WriteString(w, "x")
		h.Set("X-Echo", secret)
	case "/late-trailer":
		io.WriteString(w, "x")
		http.NewResponseController(w).Flush()
		h.Set(http.TrailerPrefix+"X-Echo", secret)
	case "/hint":
		h.Set("Link", "<"+secret+">; rel=preload")
		w.WriteHeader(http.StatusEarlyHints)
		h.Del("Link")
		io.WriteString(w, "x")
	case "/error":
		h.Set("X-Echo", secret)
		w.WriteHeader(http.StatusInternalServerError)
		io.WriteString(w, "cannot use "+secret)
	case "/cut":
		h.Set("Content-Length", "1000")
		h.Set("Content-Type", "text/event-stream")
		io.WriteString(w, secret)
	}
}

func TestSecretThatIsRepeatedIsMasked(t *testing.T) {
	b := newBackend(t, echoing)
	var log lockedBuffer
	s := startLogged(t, configFor(t, b.URL, plain, withCredential(credential.Policy{Bearer: apiKey})), &log)
	c := client(t, s)
	c.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	stars := strings.Repeat("*", len(apiKey))
	for _, path := range []string{"/header", "/redirect", "/body", "/pieces", "/trailer", "/late-trailer", "/error", "/cut"} {
		res := do(t, c, "GET", path, nil)
		body, err := io.ReadAll(res.Body)
		var all strings.Builder
		res.Header.Write(&all)
		res.Trailer.Write(&all)
		all.Write(body)
		if strings.Contains(all.String(), apiKey) || !strings.Contains(all.String(), stars) || (err != nil) != (path == "/cut") {
			t.Errorf("%s: %v\n%s", path, err, all.String())
		}
	}
	if n := strings.Count(recordsOf(t, s.Gateway), `"credential-echoed"`); n != 8 {
		t.Errorf("%d records of 8 answers", n)
	}
	var hints string
	trace := &httptrace.ClientTrace{Got1xxResponse: func(_ int, h textproto.MIMEHeader) error {
		hints += h.Get("Link")
		return nil
	}}
	r, err := http.NewRequestWithContext(httptrace.WithClientTrace(t.Context(), trace), "GET", "http://api.example.com/hint", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Origin", app)
	res, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if hints != "<"+stars+">; rel=preload" {
		t.Errorf("hints %q", hints)
	}
	for name, text := range everythingTold(t, s.Gateway, &log) {
		if strings.Contains(text, apiKey) {
			t.Errorf("%s tells the secret:\n%s", name, text)
		}
	}
	if !strings.Contains(log.String(), "credential masked in an answer") {
		t.Errorf("the log does not say so:\n%s", log.String())
	}
}

func recordsOf(t *testing.T, g *gateway.Gateway) string {
	t.Helper()
	_, records, _ := admin(t, g, "GET", "/decisions")
	return records
}

// everythingTold is all that the operator is told.
func everythingTold(t *testing.T, g *gateway.Gateway, log *lockedBuffer) map[string]string {
	t.Helper()
	_, metrics, _ := admin(t, g, "GET", "/metrics")
	return map[string]string{"the log": log.String(), "metrics": metrics, "the records": recordsOf(t, g)}
}

// What the transport says about a broken answer holds the bytes that came.
func TestErrorsAboutTheUpstreamTellNoSecret(t *testing.T) {
	for name, answer := range map[string]string{
		"no HTTP":             apiKey + "\r\n\r\n",
		"status":              "HTTP/1.1 " + apiKey + "\r\n\r\n",
		"header":              "HTTP/1.1 200 OK\r\n" + apiKey + "\r\n\r\n",
		"length":              "HTTP/1.1 200 OK\r\nContent-Length: " + apiKey + "\r\n\r\n",
		"coding":              "HTTP/1.1 200 OK\r\nTransfer-Encoding: " + apiKey + "\r\n\r\n",
		"chunk":               "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + apiKey + "\r\n",
		"trailer":             "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n" + apiKey + "\r\n\r\n",
		"upgrade":             "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: " + apiKey + "\r\n\r\n",
		"encoded":             "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 0\r\n\r\n",
		"encoded by the name": "HTTP/1.1 200 OK\r\nContent-Encoding: " + apiKey + "\r\nContent-Length: 0\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			up := rawUpstream(t, func(c net.Conn) { io.WriteString(c, answer) })
			var log lockedBuffer
			s := startLogged(t, configFor(t, up, plain, withCredential(credential.Policy{Bearer: apiKey})), &log)
			r, err := http.NewRequestWithContext(t.Context(), "GET", "http://api.example.com/", nil)
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("Origin", app)
			if res, err := client(t, s).Do(r); err == nil {
				body, _ := io.ReadAll(res.Body)
				res.Body.Close()
				if res.StatusCode == 200 && name != "chunk" && name != "trailer" || strings.Contains(fmt.Sprint(res.Header, string(body)), apiKey) {
					t.Errorf("answered %d %v %s", res.StatusCode, res.Header, body)
				}
			}
			told := everythingTold(t, s.Gateway, &log)
			for what, text := range told {
				if strings.Contains(text, apiKey) {
					t.Errorf("%s tells the secret:\n%s", what, text)
				}
			}
			if !strings.Contains(told["the records"], "upstream-") {
				t.Errorf("no record:\n%s", told["the records"])
			}
		})
	}
}

func TestAnswersToACredentialAreNeitherEncodedNorPartial(t *testing.T) {
	b := newBackend(t, nil)
	for _, echo := range []bool{false, true} {
		g := newGateway(t, configFor(t, b.URL, withCredential(credential.Policy{Bearer: apiKey, DangerouslyAllowEcho: echo})))
		serve(g, request("GET", app, "Accept-Encoding", "gzip, br", "Range", "bytes=0-9", "If-Range", `"1"`, "Accept-Charset", "utf-16"))
		h := b.last.Load().Header
		if want := map[bool]string{false: "identity", true: "gzip, br"}[echo]; h.Get("Accept-Encoding") != want || (h["Range"] != nil) != echo || (h["If-Range"] != nil) != echo || (h["Accept-Charset"] != nil) != echo {
			t.Errorf("echo allowed %v: arrived %v", echo, h)
		}
	}
}

func TestMaskDoesNotDelayAStream(t *testing.T) {
	next := make(chan string)
	b := newBackend(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		http.NewResponseController(w).Flush()
		for event := range next {
			io.WriteString(w, event)
			http.NewResponseController(w).Flush()
		}
	})
	s := start(t, configFor(t, b.URL, plain, withCredential(credential.Policy{Bearer: apiKey})))
	res := do(t, client(t, s), "GET", "/events", nil)
	for _, event := range []string{"data: one\n\n", "data: sk-proj-\n\n", "data: three\n\n"} {
		next <- event // and nothing more until it has arrived
		got := make([]byte, len(event))
		if _, err := io.ReadFull(res.Body, got); err != nil || string(got) != event {
			t.Fatalf("%q: %q, %v", event, got, err)
		}
	}
	close(next)
}

// No input of a caller chooses where the credential goes.
func TestUpstreamIsPinned(t *testing.T) {
	evil := newBackend(t, nil)
	evilHost := strings.TrimPrefix(evil.URL, "http://")
	b := newBackend(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Has("redirect") {
			http.Redirect(w, r, evil.URL, http.StatusTemporaryRedirect)
		}
	})
	s := start(t, configFor(t, b.URL, plain, withCredential(credential.Policy{Bearer: apiKey, Query: map[string]string{"key": apiKey}})))
	for _, head := range []string{
		"GET http://" + evilHost + "/ HTTP/1.1\r\nHost: api.example.com\r\n",
		"GET http://api.example.com/ HTTP/1.1\r\nHost: " + evilHost + "\r\n",
		"GET http://api.example.com@" + evilHost + "/ HTTP/1.1\r\nHost: api.example.com\r\n",
		"GET http://" + evilHost + "@api.example.com/ HTTP/1.1\r\nHost: api.example.com\r\n",
		"GET / HTTP/1.1\r\nHost: " + evilHost + "\r\n",
		"GET / HTTP/1.1\r\nHost: api.example.com@" + evilHost + "\r\n",
		"GET / HTTP/1.1\r\nHost: api.example.com\r\nX-Forwarded-Host: " + evilHost + "\r\nForwarded: host=" + evilHost + "\r\nX-Forwarded-Server: " + evilHost + "\r\n",
		"GET / HTTP/1.1\r\nHost: api.example.com\r\nX-Original-URL: " + evil.URL + "\r\nX-Rewrite-URL: " + evil.URL + "\r\nX-Host: " + evilHost + "\r\n",
		"GET //" + evilHost + "/ HTTP/1.1\r\nHost: api.example.com\r\n",
		"GET @" + evilHost + "/ HTTP/1.1\r\nHost: api.example.com\r\n",
		"GET /@" + evilHost + "/ HTTP/1.1\r\nHost: api.example.com\r\n",
		"GET /\\" + evilHost + "/ HTTP/1.1\r\nHost: api.example.com\r\n",
		"GET /?url=" + evil.URL + "&host=" + evilHost + " HTTP/1.1\r\nHost: api.example.com\r\n",
		"GET " + evilHost + " HTTP/1.1\r\nHost: api.example.com\r\n",
		"CONNECT " + evilHost + " HTTP/1.1\r\nHost: " + evilHost + "\r\n",
		"GET /?redirect HTTP/1.1\r\nHost: api.example.com\r\n",
	} {
		conn, err := net.Dial("tcp", s.addr)
		if err != nil {
			t.Fatal(err)
		}
		conn.SetDeadline(time.Now().Add(10 * time.Second))
		io.WriteString(conn, head+"Origin: "+app+"\r\nConnection: close\r\n\r\n")
		answer, err := io.ReadAll(conn)
		conn.Close()
		if err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 ") || strings.Contains(string(answer), apiKey) {
			t.Errorf("%q: %v\n%s", head, err, answer)
		}
		if strings.Contains(head, "redirect") && !strings.Contains(string(answer), "Location: "+evil.URL) {
			t.Errorf("the redirect is not passed on:\n%s", answer)
		}
	}
	if n := evil.ran.Load(); n != 0 {
		t.Errorf("another host got %d requests", n)
	}
	if b.ran.Load() == 0 {
		t.Error("nothing arrived where it should")
	}
}

// tokenServer is an OAuth token endpoint that checks what it is asked.
func tokenServer(t *testing.T, auth string) (url string, asked *atomic.Int64) {
	t.Helper()
	asked = new(atomic.Int64)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n := asked.Add(1)
		id, secret, basic := r.BasicAuth()
		if err := r.ParseForm(); err != nil {
			t.Error(err)
		}
		want := "audience=https%3A%2F%2Fcrm.example&grant_type=client_credentials&scope=read+write"
		if auth == "post" {
			want = "audience=https%3A%2F%2Fcrm.example&client_id=moat%3A1&client_secret=client%2Fsecret&grant_type=client_credentials&scope=read+write"
		}
		if r.Method != http.MethodPost || r.Header.Get("Content-Type") != "application/x-www-form-urlencoded" || r.PostForm.Encode() != want || r.URL.RawQuery != "" ||
			basic != (auth == "basic") || basic && (id != "moat%3A1" || secret != "client%2Fsecret") || r.Header.Get("Cookie") != "" {
			w.WriteHeader(http.StatusBadRequest)
			io.WriteString(w, `{"error":"invalid_request"}`)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"access_token":"%s-%d","token_type":"Bearer","expires_in":3600}`, apiKey, n)
	}))
	t.Cleanup(s.Close)
	return s.URL + "/token", asked
}

func oauth(tokenURL string, post bool) credential.Policy {
	return credential.Policy{OAuth: credential.OAuth{
		TokenURL: tokenURL, ClientID: "moat:1", ClientSecret: "client/secret", Scopes: []string{"read", "write"}, Audience: "https://crm.example", Post: post,
	}}
}

func TestOAuthTokenIsFetchedAndSharedAndMasked(t *testing.T) {
	for _, auth := range []string{"basic", "post"} {
		t.Run(auth, func(t *testing.T) {
			tokenURL, asked := tokenServer(t, auth)
			b := newBackend(t, echoing)
			conf := configFor(t, b.URL, plain, withCredential(oauth(tokenURL, auth == "post")))
			s := start(t, conf)
			c := client(t, s)
			var all sync.WaitGroup
			for range 20 {
				all.Go(func() {
					if res := do(t, c, "GET", "/x", nil, "Authorization", "Bearer the-callers"); res.StatusCode != 200 {
						t.Errorf("status %d", res.StatusCode)
					}
				})
			}
			all.Wait()
			if got := b.last.Load().Header.Get("Authorization"); got != "Bearer "+apiKey+"-1" || asked.Load() != 1 {
				t.Errorf("got %q, asked %d times", got, asked.Load())
			}
			if body := read(t, do(t, c, "GET", "/body", nil)); strings.Contains(body, apiKey) || !strings.Contains(body, strings.Repeat("*", len(apiKey)+2)) {
				t.Errorf("answered %s", body)
			}
			if err := s.Reload(conf); err != nil {
				t.Fatal(err)
			}
			do(t, c, "GET", "/x", nil)
			if asked.Load() != 1 {
				t.Error("a reload forgot the token")
			}
		})
	}
}

func TestNoTokenToBeHad(t *testing.T) {
	tokenURL, asked := tokenServer(t, "basic")
	b := newBackend(t, nil)
	var log lockedBuffer
	s := startLogged(t, configFor(t, b.URL, plain, withCredential(oauth(tokenURL, true))), &log) // not as it wants to be asked
	for range 20 {
		if p := problemOf(t, do(t, client(t, s), "POST", "/x", strings.NewReader("body"))); p.Code != "credential-unavailable" || p.Status != 503 {
			t.Fatalf("%+v", p)
		}
	}
	if n := asked.Load(); n == 0 || n > 4 || b.ran.Load() != 0 {
		t.Errorf("asked %d times for 20 requests, %d arrived", n, b.ran.Load())
	}
	told := everythingTold(t, s.Gateway, &log)
	if !strings.Contains(told["the records"], "it answered 400 invalid_request") {
		t.Errorf("the operator is not told why:\n%s", told["the records"])
	}
	for what, text := range told {
		if strings.Contains(text, "client/secret") || strings.Contains(text, "client%2Fsecret") {
			t.Errorf("%s tells the secret:\n%s", what, text)
		}
	}
}

// The head of a handshake is masked. What goes through the tunnel is the application's.
func TestWebSocketToAnUpstreamWithACredential(t *testing.T) {
	b := newBackend(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Echo", r.Header.Get("Authorization"))
		c, err := websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true})
		if err != nil {
			return
		}
		defer c.CloseNow()
		if kind, msg, err := c.Read(r.Context()); err == nil {
			c.Write(r.Context(), kind, msg)
		}
	})
	s := start(t, configFor(t, b.URL, plain, withCredential(credential.Policy{Bearer: apiKey})))
	c, res, err := websocket.Dial(t.Context(), "ws://"+s.addr+"/", &websocket.DialOptions{Host: "api.example.com", HTTPHeader: http.Header{"Origin": {app}, "Cookie": {"a=b"}}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.CloseNow()
	if got := res.Header.Get("X-Echo"); got != "Bearer "+strings.Repeat("*", len(apiKey)) {
		t.Errorf("the head tells %q", got)
	}
	if h := b.last.Load().Header; h.Get("Authorization") != "Bearer "+apiKey || h["Cookie"] != nil {
		t.Errorf("arrived: %v", h)
	}
	if err = c.Write(t.Context(), websocket.MessageText, []byte("hello")); err != nil {
		t.Fatal(err)
	}
	if _, got, err := c.Read(t.Context()); err != nil || string(got) != "hello" {
		t.Errorf("%q, %v", got, err)
	}
}
