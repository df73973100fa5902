package alert

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/moat-gateway/moat/guard/egress"
)

const (
	// maxQueue is how many messages wait for one webhook.
	maxQueue = 64
	// firstPause is the pause after the first failure. Each one doubles it, up to longestPause.
	firstPause, longestPause = 2 * time.Second, 5 * time.Minute
	// maxAge is how long an unanswered message is repeated, and maxRefusedAge how long one is
	// that the receiver refuses: what is wrong may be mended on its side, but others wait behind.
	maxAge, maxRefusedAge = 24 * time.Hour, 10 * time.Minute
	// maxAnswer is how much of a receiver's answer is read.
	maxAnswer = 4 << 10
)

// Format is how a message's body looks.
type Format uint8

const (
	// JSON is a Message.
	JSON Format = iota
	// Slack is a text for an incoming webhook of Slack, or of what understands the same.
	Slack
)

// Policy is where messages go, and how.
type Policy struct {
	Name string
	// URL is https, or http on this machine.
	URL *url.URL
	// Secrets sign; a receiver needs one of them. Without any nothing is signed.
	Secrets [][]byte
	Format  Format
	// Timeout bounds one attempt; 0 stands for 10 s.
	Timeout time.Duration
	// RootCAs are trusted with the receiver's certificate; nil stands for the system's.
	RootCAs *x509.CertPool
	// DangerouslyAllowNetworks are address ranges that may be reached though they are not public.
	DangerouslyAllowNetworks []netip.Prefix
}

// ParseSecret reads a secret as the libraries of Standard Webhooks do: base64 of 24 to 64
// bytes, with or without "whsec_" before it.
func ParseSecret(s string) ([]byte, error) {
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(s, "whsec_"))
	switch {
	case err != nil:
		return nil, errors.New("not base64; openssl rand -base64 32 makes a secret")
	case len(key) < 24 || len(key) > 64:
		return nil, fmt.Errorf("stands for %d bytes, and 24 to 64 are needed; openssl rand -base64 32 makes a secret", len(key))
	}
	return key, nil
}

// Local reports whether a URL's host is this machine.
func Local(u *url.URL) bool {
	a, err := netip.ParseAddr(u.Hostname())
	return u.Hostname() == "localhost" || err == nil && a.Unmap().IsLoopback()
}

// Webhook sends messages to one receiver. Its Policy can be exchanged while it does.
type Webhook struct {
	log    *slog.Logger
	policy atomic.Pointer[Policy]
	client *http.Client

	sent, failed, dropped atomic.Uint64

	// mu is never held across a send.
	mu      sync.Mutex
	queue   []queued
	sending bool
}

type queued struct {
	id  string
	at  time.Time
	msg Message
}

// NewWebhook returns a Webhook for the policy.
func NewWebhook(p Policy, log *slog.Logger) *Webhook {
	w := &Webhook{log: log}
	w.Use(p)
	dialer := &net.Dialer{Timeout: 5 * time.Second, ControlContext: w.control}
	w.client = &http.Client{
		// A redirect is not what the operator wrote, and would carry the message elsewhere.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		// No Proxy: one would resolve the name itself. No connection is kept: messages are rare.
		Transport: &http.Transport{DialTLSContext: w.dialTLS(dialer), DialContext: dialer.DialContext, DisableKeepAlives: true, MaxResponseHeaderBytes: 64 << 10},
	}
	return w
}

// Use exchanges the policy. What waits is sent by the new one.
func (w *Webhook) Use(p Policy) {
	if p.Timeout == 0 {
		p.Timeout = 10 * time.Second
	}
	w.policy.Store(&p)
}

// Name is the webhook's.
func (w *Webhook) Name() string { return w.policy.Load().Name }

// Counts are the messages that arrived, the attempts that failed, and the messages that were
// given up or gave way.
func (w *Webhook) Counts() (sent, failed, dropped uint64) {
	return w.sent.Load(), w.failed.Load(), w.dropped.Load()
}

func (w *Webhook) dialTLS(d *net.Dialer) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		host, _, err := net.SplitHostPort(address)
		if err != nil {
			return nil, err
		}
		t := tls.Dialer{NetDialer: d, Config: &tls.Config{ServerName: host, RootCAs: w.policy.Load().RootCAs, MinVersion: tls.VersionTLS12}}
		return t.DialContext(ctx, network, address)
	}
}

// control refuses an address that the policy does not allow: the very one that is connected to,
// so a name that resolves to something else the second time gains nothing.
func (w *Webhook) control(_ context.Context, _, address string, _ syscall.RawConn) error {
	p := w.policy.Load()
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		return err
	}
	a := ap.Addr().Unmap()
	if egress.Public(a) || Local(p.URL) && a.IsLoopback() || slices.ContainsFunc(p.DangerouslyAllowNetworks, func(n netip.Prefix) bool { return n.Contains(a) }) {
		return nil
	}
	return fmt.Errorf("%s is no address of the public Internet; if it is meant, list its range in dangerously_allow_networks", a)
}

// Send has the message sent, now or later, as long as ctx lasts. It does not wait.
func (w *Webhook) Send(ctx context.Context, m Message) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.queue) == maxQueue {
		w.queue = w.queue[1:]
		w.dropped.Add(1)
		w.log.Error("alert dropped: too many wait", slog.String("webhook", w.Name()))
	}
	w.queue = append(w.queue, queued{id: "msg_" + rand.Text(), at: time.Now(), msg: m})
	if !w.sending {
		w.sending = true
		go w.deliver(ctx)
	}
}

// Drop forgets what waits: whom the configuration names no longer is told nothing more.
func (w *Webhook) Drop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.dropped.Add(uint64(len(w.queue)))
	w.queue = nil
}

// deliver sends what waits, in its order, until nothing does.
func (w *Webhook) deliver(ctx context.Context) {
	pause := firstPause
	for {
		w.mu.Lock()
		if len(w.queue) == 0 || ctx.Err() != nil {
			w.sending = false
			w.mu.Unlock()
			return
		}
		next := w.queue[0]
		w.mu.Unlock()

		a := w.attempt(ctx, next)
		if a.Error == "" {
			w.sent.Add(1)
			w.take(next)
			pause = firstPause
			continue
		}
		w.failed.Add(1)
		w.log.Warn("alert not delivered", slog.String("webhook", w.Name()), slog.String("id", next.id), slog.String("error", a.Error))
		patience := maxAge
		if a.refused() {
			patience = maxRefusedAge
		}
		if time.Since(next.at)+pause > patience {
			if w.take(next) {
				w.dropped.Add(1)
				w.log.Error("alert given up", slog.String("webhook", w.Name()), slog.String("id", next.id), slog.String("rule", next.msg.Data.Rule))
			}
			pause = firstPause
			continue
		}
		select {
		case <-ctx.Done():
		case <-time.After(jittered(pause)):
		}
		pause = min(2*pause, longestPause)
	}
}

// take removes a message, which may have given way meanwhile.
func (w *Webhook) take(q queued) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.queue) == 0 || w.queue[0].id != q.id {
		return false
	}
	w.queue = w.queue[1:]
	return true
}

// jittered is a time from half of d to d: gates that failed together do not come back together.
func jittered(d time.Duration) time.Duration {
	n, err := rand.Int(rand.Reader, big.NewInt(int64(d/2)))
	if err != nil {
		return d
	}
	return d/2 + time.Duration(n.Int64())
}

// Attempt is what became of one attempt to send.
type Attempt struct {
	Webhook string `json:"webhook"`
	// Status and Answer are the receiver's, if it answered; Answer is the beginning of the body.
	Status int    `json:"status,omitempty"`
	Answer string `json:"answer,omitempty"`
	// Error says why it failed, or is "".
	Error string `json:"error,omitempty"`
}

// refused reports whether the receiver has understood, and does not want the message.
func (a Attempt) refused() bool {
	switch a.Status {
	case http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests:
		return false
	}
	return a.Status >= 300 && a.Status < 500
}

// Try sends a message at once, and once.
func (w *Webhook) Try(ctx context.Context, m Message) Attempt {
	a := w.attempt(ctx, queued{id: "msg_" + rand.Text(), msg: m})
	if a.Error == "" {
		w.sent.Add(1)
	} else {
		w.failed.Add(1)
	}
	return a
}

func (w *Webhook) attempt(ctx context.Context, q queued) Attempt {
	p := w.policy.Load()
	a := Attempt{Webhook: p.Name}
	body, err := p.body(q.msg)
	if err != nil {
		a.Error = err.Error()
		return a
	}
	ctx, cancel := context.WithTimeout(ctx, p.Timeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, p.URL.String(), bytes.NewReader(body))
	if err != nil {
		a.Error = "the URL is malformed"
		return a
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("User-Agent", "moat")
	p.sign(r.Header, q.id, time.Now(), body)
	res, err := w.client.Do(r)
	if err != nil {
		if ue, ok := errors.AsType[*url.Error](err); ok { // it has the URL, which may be secret
			err = ue.Err
		}
		a.Error = err.Error()
		if errors.Is(err, context.DeadlineExceeded) {
			a.Error = "no answer in time"
		}
		return a
	}
	defer res.Body.Close()                                     //nolint:errcheck // it was only read.
	text, _ := io.ReadAll(io.LimitReader(res.Body, maxAnswer)) // the status has been read, which counts
	a.Status, a.Answer = res.StatusCode, excerpt(text)
	switch {
	case a.Status >= 300 && a.Status < 400:
		a.Error = fmt.Sprintf("answered %d: redirects are not followed", a.Status)
	case a.Status < 200 || a.Status >= 300:
		a.Error = fmt.Sprintf("answered %d", a.Status)
	}
	return a
}

// excerpt is what of an answer fits in a line.
func excerpt(b []byte) string {
	const most = 200
	if len(b) > most {
		b = b[:most]
	}
	return strings.Join(strings.Fields(strings.ToValidUTF8(string(b), "")), " ")
}

// sign sets the headers of Standard Webhooks. The timestamp is the attempt's, as a receiver
// refuses old ones.
func (p *Policy) sign(h http.Header, id string, now time.Time, body []byte) {
	stamp := strconv.FormatInt(now.Unix(), 10)
	h.Set("Webhook-Id", id)
	h.Set("Webhook-Timestamp", stamp)
	var signatures []string
	for _, secret := range p.Secrets {
		mac := hmac.New(sha256.New, secret)
		fmt.Fprintf(mac, "%s.%s.", id, stamp)
		mac.Write(body)
		signatures = append(signatures, "v1,"+base64.StdEncoding.EncodeToString(mac.Sum(nil)))
	}
	if signatures != nil {
		h.Set("Webhook-Signature", strings.Join(signatures, " "))
	}
}

func (p *Policy) body(m Message) ([]byte, error) {
	if p.Format == JSON {
		return json.Marshal(m)
	}
	d := &m.Data
	// Names of rules hold no character that means something to Slack: see config.
	text := fmt.Sprintf("moat %s: *%s* is %s (%s %s, threshold %s)", d.Instance, d.Rule, d.State, d.On, d.amount(d.Value), d.amount(d.Threshold))
	lines := []string{text}
	for _, c := range d.Top {
		lines = append(lines, fmt.Sprintf("• %d × %s", c.Count, c.Reason))
	}
	return json.Marshal(map[string]string{"text": strings.Join(lines, "\n")})
}

func (d *Data) amount(v float64) string {
	if d.Unit == "share" {
		return strconv.FormatFloat(100*v, 'f', 1, 64) + " %"
	}
	return strconv.FormatFloat(v, 'f', -1, 64)
}
