package bench

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/moat-gateway/moat/guard/ticket"
	"github.com/moat-gateway/moat/guard/ticket/tickettest"
	"github.com/moat-gateway/moat/store/memory"
)

// BenchmarkTickets checks a call that carries its right to be made, and marks it as used: moat's ticket and proof;
// the one-time token that people build, a JWT with a jti and a map of those that were seen, which proves
// nothing about the call; and one HMAC of a short message, to have a measure of this machine.
func BenchmarkTickets(b *testing.B) {
	b.Run("hmac", func(b *testing.B) {
		h := hmac.New(sha256.New, make([]byte, 32))
		msg, out := make([]byte, 64), make([]byte, 0, 32)
		b.ReportAllocs()
		for b.Loop() {
			h.Reset()
			h.Write(msg)
			h.Sum(out)
		}
	})
	for _, method := range []string{"GET", "POST"} {
		b.Run("moat/"+method, func(b *testing.B) { benchTicket(b, method) })
	}
	b.Run("jwt", benchJWT)
}

func benchTicket(b *testing.B, method string) {
	const target = "/v1/chat?stream=1"
	now, client := time.Now(), netip.MustParseAddr("192.0.2.7")
	g, err := ticket.New(ticket.Policy{Secrets: [][]byte{make([]byte, 32)}}, memory.NewTickets(1<<30, ticket.DefaultLifetime), nil)
	if err != nil {
		b.Fatal(err)
	}
	var visit tickettest.Visit
	doc, err := visit.Open()
	if err != nil {
		b.Fatal(err)
	}
	body, bodyBytes := "", []byte(nil)
	if method == "POST" {
		body = `{"messages":[]}`
		bodyBytes = []byte(body)
	}
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	if body == "" {
		r = httptest.NewRequest(method, target, http.NoBody)
	}
	r.Header.Set("User-Agent", "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/156.0.0.0 Safari/537.36")
	r.Header.Set("Origin", "https://demo.example")
	// Tokens are made ahead, so that the clock stands still seldom.
	fresh := func() string {
		if visit.Next == visit.Uses {
			if visit.Ticket != nil {
				if doc, err = visit.Renew(); err != nil {
					b.Fatal(err)
				}
			}
			q, d := g.Read(now, bytes.NewReader(doc))
			if d.Denied() {
				b.Fatal(d.Reason)
			}
			reply, d := g.Issue(b.Context(), q, now, "https://demo.example", ticket.BindTo(client, r.UserAgent()))
			if d.Denied() {
				b.Fatal(d.Reason)
			}
			text, jErr := json.Marshal(reply)
			if jErr != nil || visit.Take(text) != nil {
				b.Fatal(jErr)
			}
		}
		return visit.Token(method, target, bodyBytes)
	}
	header := []string{""}
	r.Header[ticket.Header] = header
	ahead(b, fresh, func(token string) {
		header[0] = token
		if _, d := g.Decide(b.Context(), r, ticket.Facts{Now: now, Client: client}); d.Denied() {
			b.Fatal(d.Reason)
		}
	})
}

// ahead measures check on tokens that are made some thousands at a time.
func ahead(b *testing.B, fresh func() string, check func(string)) {
	var tokens []string
	b.ReportAllocs()
	for b.Loop() {
		if len(tokens) == 0 {
			b.StopTimer()
			for range 8192 {
				tokens = append(tokens, fresh())
			}
			b.StartTimer()
		}
		check(tokens[0])
		tokens = tokens[1:]
	}
}

func benchJWT(b *testing.B) {
	key := make([]byte, 32)
	var mu sync.Mutex
	seen := make(map[string]time.Time)
	parser := jwt.NewParser(jwt.WithValidMethods([]string{"HS256"}), jwt.WithExpirationRequired())
	n := 0
	ahead(b, func() string {
		n++
		text, err := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.RegisteredClaims{ID: strconv.Itoa(n), ExpiresAt: jwt.NewNumericDate(time.Now().Add(time.Minute))}).SignedString(key)
		if err != nil {
			b.Fatal(err)
		}
		return text
	}, func(text string) {
		var claims jwt.RegisteredClaims
		if _, err := parser.ParseWithClaims(text, &claims, func(*jwt.Token) (any, error) { return key, nil }); err != nil {
			b.Fatal(err)
		}
		mu.Lock()
		_, used := seen[claims.ID]
		seen[claims.ID] = claims.ExpiresAt.Time
		mu.Unlock()
		if used {
			b.Fatal("used")
		}
	})
}
