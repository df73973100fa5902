package ticket

import (
	"cmp"
	"context"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/moat-gateway/moat/guard"
)

const (
	// PassUses is how many navigations a pass is good for.
	PassUses = 8
	// passText is the length of a pass: ticket and proof, in base64url.
	passText = 62
)

// PassCookie is the name of the cookie that holds a pass. Only a secure one can have the
// prefix that keeps other hosts from setting it (RFC 6265bis section 4.1.3.2).
func PassCookie(secure bool) string {
	if secure {
		return "__Host-moat-pass"
	}
	return "moat-pass"
}

// Pass issues what a browser without script brings along: a ticket that needs no proof,
// good for a few navigations.
func (g *Guard) Pass(ctx context.Context, now time.Time, secure bool, bind Bind) (*http.Cookie, error) {
	t, e, err := g.mint(ctx, now, &fields{visitor: newVisitor(now), uses: min(PassUses, g.uses), flags: flagPass, bind: bind})
	if err != nil {
		return nil, err
	}
	m, _ := e.macs.Get().(*mac)
	defer e.macs.Put(m)
	proves, _ := (&proof{label: labelPass, ticket: t}).sum(e, m)
	return &http.Cookie{ //nolint:gosec // over plain HTTP a secure cookie would be lost.
		Name: PassCookie(secure), Value: encoding.EncodeToString(append(t[:], proves[:]...)), Path: "/",
		MaxAge: int(g.lifetime / time.Second), Secure: secure, HttpOnly: true, SameSite: http.SameSiteStrictMode,
	}, nil
}

// decidePass judges a request without a token. A pass is good for what a user does by
// following links and sending forms: whatever script or another page does has to prove
// itself.
func (g *Guard) decidePass(ctx context.Context, r *http.Request, x Facts) (Honoured, guard.Decision) {
	text, mode := passOf(r), r.Header["Sec-Fetch-Mode"]
	// Over plain http: no browser says what it does.
	if !x.Pass || text == "" || mode != nil && mode[0] != "navigate" {
		return Honoured{}, deny(guard.TicketMissing, "", "a ticket")
	}
	raw, err := encoding.DecodeString(text)
	if err != nil || len(raw) != size+proofSize {
		return Honoured{}, deny(guard.TicketMalformed, "", "a pass as it was given")
	}
	f, d := g.open(x.Now, &proof{label: labelPass, ticket: [size]byte(raw), mac: [proofSize]byte(raw[size:])}, slack)
	if d.Denied() {
		return Honoured{}, d
	}
	if f.flags != flagPass {
		return Honoured{}, deny(guard.TicketMalformed, "", "a pass as it was given")
	}
	if d = f.meant(r, x.Client); d.Denied() || x.Dry {
		return Honoured{Visitor: f.visitor}, d
	}
	for i := range f.uses {
		if d = g.use(ctx, &f, i); !d.Denied() {
			return Honoured{Visitor: f.visitor}, guard.Decision{Reason: guard.TicketHonoured}
		}
		if d.Reason != guard.TicketUsed {
			return Honoured{}, d
		}
	}
	return Honoured{}, d
}

// passOf finds the pass without parsing all cookies: there must be one. That with the prefix
// counts first, for a sibling's page can set one without.
func passOf(r *http.Request) string {
	var texts [2]string
	for _, line := range r.Header["Cookie"] {
		for c := range strings.SplitSeq(line, ";") {
			name, value := cutCookie(c)
			i := slices.Index(passNames, name)
			if i < 0 {
				continue
			}
			if texts[i] != "" || len(value) != passText {
				value = "-" // which is no pass
			}
			texts[i] = value
		}
	}
	if text := cmp.Or(texts[0], texts[1]); len(text) == passText {
		return text
	}
	return ""
}

// ProbeCookie is the name of the cookie by which a browser shows that it keeps a pass.
func ProbeCookie(secure bool) string { return PassCookie(secure) + "-probe" }

var (
	passNames = []string{PassCookie(true), PassCookie(false)}
	ownNames  = append([]string{ProbeCookie(true), ProbeCookie(false)}, passNames...)
)

func cutCookie(pair string) (name, value string) {
	name, value, _ = strings.Cut(strings.Trim(pair, " "), "=")
	return name, value
}

// stripPass takes the gate's own out of the cookies.
func stripPass(h http.Header) {
	var rest []string
	for _, line := range h["Cookie"] {
		pairs := slices.DeleteFunc(strings.Split(line, ";"), func(c string) bool {
			name, _ := cutCookie(c)
			return slices.Contains(ownNames, name)
		})
		if len(pairs) > 0 {
			rest = append(rest, strings.TrimLeft(strings.Join(pairs, ";"), " "))
		}
	}
	if h["Cookie"] = rest; rest == nil {
		delete(h, "Cookie")
	}
}
