package e2e

import (
	"bytes"
	"encoding/base64"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/moat-gateway/moat/config"
	"github.com/moat-gateway/moat/gateway"
	"github.com/moat-gateway/moat/guard/ticket/tickettest"
)

// tamperings is how many tokens are made up.
const tamperings = 10_000

// parts are the fields of a token before it is encoded: where each ends (docs/ticket-format.md).
var parts = []int{1, 2, 6, 14, 20, 21, 22, 26, 30, 31, 47}

// No token that differs from a good one anywhere is honoured, nor one that is put together from parts of
// good ones, nor a good one on another call. This asks the whole gate, without sockets in front.
func TestTamperedTokensAreNeverHonoured(t *testing.T) {
	const page, api = "https://demo.example", "https://api.demo.example"
	var ran atomic.Int64
	model := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { ran.Add(1) }))
	t.Cleanup(model.Close)
	yaml := strings.NewReplacer("{listen}", "127.0.0.1:8080", "{admin}", "127.0.0.1:9090", "{origin}", api, "{model}", strings.TrimPrefix(model.URL, "http://"),
		"{page}", page, "{secrets}", t.TempDir(), "{tickets}", "rate_limits: []\n  challenge: {mode: \"off\"}").Replace(publicFile)
	loaded, err := config.Parse("moat.yaml", []byte(yaml), config.Options{ReadFile: func(string) ([]byte, error) { return []byte("0123456789abcdef0123456789abcdef"), nil }, Getenv: os.LookupEnv})
	if err != nil {
		t.Fatal(err)
	}
	gate, err := gateway.New(loaded.Gateway, nil)
	if err != nil {
		t.Fatal(err)
	}
	ask := func(method, path, client, agent, token string, body []byte) (code string, answer []byte) {
		r := httptest.NewRequest(method, api+path, bytes.NewReader(body))
		r.RequestURI, r.RemoteAddr = path, client+":4711"
		for name, value := range map[string]string{
			"Origin": page, "Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty", "User-Agent": agent, "Accept-Language": "en",
		} {
			r.Header.Set(name, value)
		}
		if token != "" {
			r.Header["Moat-Ticket"] = []string{token}
		}
		w := httptest.NewRecorder()
		gate.ServeHTTP(w, r)
		answer, _ = io.ReadAll(w.Body)
		return codeOf(w.Code, answer), answer
	}
	const home = "192.0.2.1"
	open := func(v *tickettest.Visit) {
		doc, err := v.Open()
		if err != nil {
			t.Fatal(err)
		}
		code, answer := ask(http.MethodPost, "/.moat/tickets", home, chrome, "", doc)
		if code != "" {
			t.Fatal(code)
		}
		if err = v.Take(answer); err != nil {
			t.Fatal(err)
		}
	}
	visits := make([]tickettest.Visit, 3)
	for i := range visits {
		open(&visits[i])
	}
	// Good tokens for one and the same call, and others that are good elsewhere.
	body := chat("tamper")
	var good, elsewhere []string
	for i := range visits {
		v := &visits[i]
		for range 2 {
			good = append(good, v.Token(http.MethodPost, chatPath, body))
		}
		elsewhere = append(elsewhere, v.Token(http.MethodPost, chatPath, chat("other")), v.Token(http.MethodGet, "/v1/models", nil), v.Token(http.MethodPost, chatPath+"?a", body), v.StreamToken(http.MethodPost, chatPath))
	}

	seed := rand.Uint64()
	random := rand.New(rand.NewPCG(seed, 0))
	pick := func(from []string) string { return from[random.IntN(len(from))] }
	var spent tickettest.Visit
	codes := make(map[string]int)
	for n := range tamperings {
		method, path, client, agent, sent := http.MethodPost, chatPath, home, chrome, body
		var token string
		switch random.IntN(6) {
		case 0: // bits
			raw, digest := decodeToken(t, pick(good))
			all := append(raw, digest...)
			for range 1 + random.IntN(8) {
				all[random.IntN(len(all))] ^= 1 << random.IntN(8)
			}
			token = encodeToken(all[:len(raw)], all[len(raw):])
		case 1: // fields of another token
			raw, digest := decodeToken(t, pick(good))
			other, otherDigest := decodeToken(t, pick(append(slices.Clone(good), elsewhere...)))
			for range 1 + random.IntN(3) {
				i := random.IntN(len(parts))
				from := 0
				if i > 0 {
					from = parts[i-1]
				}
				copy(raw[from:parts[i]], other[from:parts[i]])
			}
			if random.IntN(4) == 0 {
				digest = otherDigest
			}
			token = encodeToken(raw, digest)
		case 2: // characters
			text := []byte(pick(good))
			text[random.IntN(len(text))] = byte(' ' + random.IntN(95))
			token = string(text)
		case 3: // its length
			text := pick(good)
			switch at := random.IntN(len(text)); random.IntN(3) {
			case 0:
				token = text[:at]
			case 1:
				token = text[:at] + text[at+1:]
			default:
				token = text[:at] + string(text[random.IntN(len(text))]) + text[at:]
			}
		case 4: // another index
			raw, digest := decodeToken(t, pick(good))
			raw[30] = byte(random.IntN(256))
			token = encodeToken(raw, digest)
		default: // another call, or another caller
			token = pick(good)
			switch random.IntN(6) {
			case 0:
				method = []string{"PUT", "GET", "post", "PATCH"}[random.IntN(4)]
			case 1:
				path += []string{"?", "?a", "/", "?moat=" + pick(good)}[random.IntN(4)]
			case 2, 3: // which spends the call: its use is marked before its body is read
				if spent.Next == spent.Uses {
					open(&spent)
				}
				token = spent.Token(http.MethodPost, chatPath, body)
				if sent = body[:random.IntN(len(body))]; random.IntN(2) == 0 {
					sent = bytes.Clone(body)
					sent[random.IntN(len(sent))] ^= 1 << random.IntN(8)
				}
			case 4:
				client = []string{"192.0.3.1", "198.51.100.7"}[random.IntN(2)]
			default:
				agent = []string{"curl/8", "Mozilla/5.0 Firefox/150.0", ""}[random.IntN(3)]
			}
		}
		if slices.Contains(good, token) && method == http.MethodPost && path == chatPath && client == home && agent == chrome && bytes.Equal(sent, body) {
			continue // nothing has changed
		}
		code, _ := ask(method, path, client, agent, token, sent)
		if code == "" || ran.Load() > 0 {
			t.Fatalf("seed %d, number %d: %s %s with %q from %s, %q: %s honoured", seed, n, method, path, token, client, agent, sent)
		}
		codes[code]++
	}
	if codes["ticket-used"] > 0 {
		t.Errorf("%d were refused because another one had been honoured", codes["ticket-used"])
	}
	t.Logf("seed %d: %v", seed, codes)
	// None of that has spent a good one.
	for _, token := range good {
		if code, _ := ask(http.MethodPost, chatPath, home, chrome, token, body); code != "" {
			t.Errorf("a good token: %s", code)
		}
	}
	if int(ran.Load()) != len(good) {
		t.Errorf("the model ran %d times; want %d", ran.Load(), len(good))
	}
}

func decodeToken(t *testing.T, text string) (raw, digest []byte) {
	t.Helper()
	head, tail, _ := strings.Cut(text, ".")
	raw, err := base64.RawURLEncoding.DecodeString(head)
	if err != nil {
		t.Fatal(err)
	}
	if tail != "" && tail != "stream" {
		if digest, err = base64.RawURLEncoding.DecodeString(tail); err != nil {
			t.Fatal(err)
		}
	}
	return raw, digest
}

func encodeToken(raw, digest []byte) string {
	text := base64.RawURLEncoding.EncodeToString(raw)
	if len(digest) > 0 {
		text += "." + base64.RawURLEncoding.EncodeToString(digest)
	}
	return text
}
