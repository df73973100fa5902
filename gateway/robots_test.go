package gateway_test

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/moat-gateway/moat/gateway"
	"github.com/moat-gateway/moat/guard"
	"github.com/moat-gateway/moat/guard/bot"
	"github.com/moat-gateway/moat/guard/ticket/tickettest"
)

// robot is one that signs its requests, and publishes its key. It knows the standards by itself.
type robot struct {
	*httptest.Server
	key     ed25519.PrivateKey
	agent   string
	fetches atomic.Int64
}

func newRobot(t *testing.T) *robot {
	t.Helper()
	r := &robot{key: ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.URL.Path != "/.well-known/http-message-signatures-directory" {
			http.NotFound(w, req)
			return
		}
		r.fetches.Add(1)
		w.Header().Set("Content-Type", "application/http-message-signatures-directory+json")
		fmt.Fprintf(w, `{"keys":[{"kty":"OKP","crv":"Ed25519","x":%q}]}`, r.x())
	}))
	t.Cleanup(r.Close)
	r.agent = "http://localhost" + r.URL[strings.LastIndex(r.URL, ":"):]
	return r
}

func (r *robot) x() string {
	return base64.RawURLEncoding.EncodeToString(r.key.Public().(ed25519.PublicKey))
}

// sign signs a request for a host.
func (r *robot) sign(req *http.Request, host, nonce string) *http.Request {
	id := sha256.Sum256([]byte(`{"crv":"Ed25519","kty":"OKP","x":"` + r.x() + `"}`))
	now := time.Now().Unix()
	params := fmt.Sprintf(`("@authority" "signature-agent");created=%d;expires=%d;keyid="%s";nonce="%s";tag="web-bot-auth"`,
		now, now+300, base64.RawURLEncoding.EncodeToString(id[:]), nonce)
	base := `"@authority": ` + host + "\n" + `"signature-agent": "` + r.agent + "\"\n" + `"@signature-params": ` + params
	req.Header.Set("User-Agent", "curl/8.1")
	req.Header.Set("Signature-Agent", `"`+r.agent+`"`)
	req.Header.Set("Signature-Input", "s="+params)
	req.Header.Set("Signature", "s=:"+base64.StdEncoding.EncodeToString(ed25519.Sign(r.key, []byte(base)))+":")
	return req
}

func TestSignedRobotsPassWhereProgramsDoNot(t *testing.T) {
	b, r := newBackend(t, nil), newRobot(t)
	conf := configFor(t, b.URL, func(c *gateway.Config) {
		c.Routes[0].CrossSite.AllowBrowserless = true // robots are no browsers
		c.Bots = &gateway.Bots{Policy: bot.Policy{Modes: bot.DefaultModes(), Deny: 30}, Robots: []bot.Robot{{Name: "mine", Agent: r.agent}}}
	})
	g := newGateway(t, conf)
	wants := func(name string, req *http.Request, status int, code guard.Reason) {
		t.Helper()
		res := serve(g, req)
		got := new(strings.Builder)
		if res.Write(got); res.StatusCode != status || code != guard.OK && !strings.Contains(got.String(), code.String()) {
			t.Errorf("%s: %s\nwant %d %s", name, got, status, code)
		}
	}
	const host = "api.example.com"
	wants("a program", request("GET", "", "User-Agent", "curl/8.1"), 403, guard.BotDenied)
	wants("the robot", r.sign(request("GET", ""), host, "1"), 200, guard.OK)
	wants("the robot's request again", r.sign(request("GET", ""), host, "1"), 403, guard.BotSignatureInvalid)
	wants("its request to another host", r.sign(request("GET", ""), "other.example", "2"), 403, guard.BotSignatureInvalid)
	stranger := newRobot(t)
	wants("a robot that nobody knows", stranger.sign(request("GET", ""), host, "3"), 403, guard.BotDenied)
	if r.fetches.Load() != 1 || stranger.fetches.Load() != 0 {
		t.Errorf("%d and %d fetches; want 1 and, from whom the operator does not list, none", r.fetches.Load(), stranger.fetches.Load())
	}
	if err := g.Reload(conf); err != nil {
		t.Fatal(err)
	}
	wants("a request of before the reload", r.sign(request("GET", ""), host, "1"), 403, guard.BotSignatureInvalid)
	wants("the robot after it", r.sign(request("GET", ""), host, "4"), 200, guard.OK)
	if r.fetches.Load() != 1 {
		t.Errorf("%d fetches, the reload's among them", r.fetches.Load())
	}
}

// A request for a ticket is judged twice, by its head and by what the page's script saw; its nonce counts once,
// and is worth nothing on any other path.
func TestARobotsNonceCountsOnce(t *testing.T) {
	b, r := newBackend(t, nil), newRobot(t)
	g := newGateway(t, configFor(t, b.URL, ticketed(), func(c *gateway.Config) {
		c.Routes[0].CrossSite.AllowBrowserless = true
		c.Bots = &gateway.Bots{Policy: bot.Policy{Modes: bot.DefaultModes(), Deny: 30}, Robots: []bot.Robot{{Name: "mine", Agent: r.agent}}}
	}))
	const host = "api.example.com"
	asks := func() *http.Request {
		var v tickettest.Visit
		doc, err := v.Open()
		if err != nil {
			t.Fatal(err)
		}
		return wantsTicket([]byte(strings.TrimSuffix(string(doc), "}") + `,"signs":15}`))
	}
	if code := codeOf(t, serve(g, r.sign(asks(), host, "1"))); code != "" {
		t.Errorf("the robot gets no ticket: %s", code)
	}
	for name, again := range map[string]*http.Request{
		"for a ticket": asks(), "for the route": request("GET", ""), "for another path": httptest.NewRequest("HEAD", self+"/x", http.NoBody),
	} {
		if res := serve(g, r.sign(again, host, "1")); res.StatusCode != http.StatusForbidden {
			t.Errorf("%s: the nonce counts again: %s", name, res.Status)
		}
	}
	// On a route that asks for a ticket it needs one: it has proved who it is, and no more.
	if code := codeOf(t, serve(g, r.sign(request("GET", ""), host, "2"))); code != guard.TicketMissing.String() {
		t.Errorf("without a ticket: %q", code)
	}
	if b.ran.Load() != 0 {
		t.Error("something reached the upstream")
	}
}
