package ticket

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"io"
	"time"

	"github.com/moat-gateway/moat/guard"
)

// maxRequest is the longest document that asks for tickets.
const maxRequest = 4 << 10

// Request asks for a ticket.
type Request struct {
	Public    string `json:"public"`    // opens
	Ticket    string `json:"ticket"`    // renews, together with Proof
	Proof     string `json:"proof"`     //
	Challenge string `json:"challenge"` // the answer to a challenge, together with Solution
	Solution  string `json:"solution"`  //
	// Signs are the bits of docs/ticket-format.md: what the page's script sees of a program that
	// drives its browser. It is the client's word against itself; to have none proves nothing.
	Signs uint16 `json:"signs"`

	public  *ecdh.PublicKey
	visitor Visitor
	bind    Bind // of the ticket that is renewed
}

// Reply is the answer to a Request.
type Reply struct {
	Ticket   string `json:"ticket"`
	Uses     int    `json:"uses"`
	Lifetime int    `json:"lifetime"` // seconds
	Public   string `json:"public,omitempty"`
	Wrapping string `json:"wrapping,omitempty"`
	Key      string `json:"key"`
}

// Read reads a Request and checks what it proves. A renewal has proved that it comes from
// whoever got the ticket.
func (g *Guard) Read(now time.Time, body io.Reader) (*Request, guard.Decision) {
	text, err := io.ReadAll(io.LimitReader(body, maxRequest+1))
	if err != nil || len(text) > maxRequest {
		return nil, deny(guard.TicketMalformed, "a body that is too long, or broken off", "a document of docs/ticket-format.md")
	}
	var q Request
	dec := json.NewDecoder(bytes.NewReader(text))
	if err = dec.Decode(&q); err != nil || dec.More() {
		return nil, deny(guard.TicketMalformed, "not a JSON document", "a document of docs/ticket-format.md")
	}
	switch {
	case (q.Public == "") == (q.Ticket == ""):
		return nil, deny(guard.TicketMalformed, "", `either "public" or "ticket"`)
	case q.Public != "":
		return &q, q.readPublic()
	}
	return &q, g.readRenewal(now, &q)
}

func (q *Request) readPublic() guard.Decision {
	point, err := encoding.DecodeString(q.Public)
	if err == nil {
		q.public, err = ecdh.P256().NewPublicKey(point)
	}
	if err != nil {
		return deny(guard.TicketMalformed, "", `"public": base64url of an uncompressed point of P-256`)
	}
	return guard.Decision{}
}

func (g *Guard) readRenewal(now time.Time, q *Request) guard.Decision {
	p := proof{label: labelRenew}
	t, err := encoding.DecodeString(q.Ticket)
	mac, mErr := encoding.DecodeString(q.Proof)
	if err != nil || mErr != nil || copy(p.ticket[:], t) != len(t) || copy(p.mac[:], mac) != len(mac) || len(t) != size || len(mac) != proofSize {
		return deny(guard.TicketMalformed, "", `"ticket" and "proof", as long as they have to be`)
	}
	f, d := g.open(now, &p, renewable)
	if d.Denied() {
		return d
	}
	switch day := binary.BigEndian.Uint16(f.visitor[:]); {
	case f.class == classIssuer || f.flags != 0 || today(now)-day > 1:
		return deny(guard.TicketExpired, "a visit that is over", "one that began yesterday or today")
	case !f.newest: // the visitor's wrapping key is of the older secret
		return deny(guard.TicketKeyUnknown, "of an older secret", "a visit under the newest")
	}
	q.visitor, q.bind = f.visitor, f.bind
	return guard.Decision{}
}

func today(now time.Time) uint16 { return uint16(now.Unix() / 86400) } //nolint:gosec // until 2149.

// Renews reports whether the request renews a ticket.
func (q *Request) Renews() bool { return q.public == nil }

// Moved reports whether the ticket that is renewed was issued to another client.
func (q *Request) Moved(b Bind) bool { return q.Renews() && !q.bind.fits(b) }

// Issue answers a request that Read has read.
func (g *Guard) Issue(ctx context.Context, q *Request, now time.Time, origin string, bind Bind) (Reply, guard.Decision) {
	if !q.Renews() {
		q.visitor = newVisitor(now)
	}
	t, e, err := g.mint(ctx, now, &fields{visitor: q.visitor, uses: g.uses, origin: originOf(origin), bind: bind})
	if err != nil {
		return Reply{}, unavailable(err)
	}
	m, _ := e.macs.Get().(*mac)
	defer e.macs.Put(m)
	m.keyOf(e, &t)
	wrapping := g.wrappingKey(q.visitor)
	reply := g.reply(&t, g.uses, encoding.EncodeToString(wrap(wrapping, m.key[:], t[:])))
	if !q.Renews() {
		a, aErr := g.agree(now)
		if aErr != nil {
			return Reply{}, unavailable(aErr)
		}
		secret, aErr := a.private.ECDH(q.public)
		if aErr != nil {
			return Reply{}, deny(guard.TicketMalformed, "", `"public": base64url of an uncompressed point of P-256`)
		}
		key, aErr := hkdf.Key(sha256.New, secret, []byte(salt), "open"+string(q.visitor[:]), 32)
		if aErr != nil {
			return Reply{}, unavailable(aErr)
		}
		reply.Public, reply.Wrapping = a.public, encoding.EncodeToString(wrap(key, wrapping, nil))
	}
	return reply, guard.Decision{Reason: guard.OK}
}

// Embed issues a ticket whose key is told in the clear, for a page that is being served.
func (g *Guard) Embed(ctx context.Context, now time.Time, uses int, origin string, bind Bind) (Reply, error) {
	t, e, err := g.mint(ctx, now, &fields{visitor: newVisitor(now), uses: byte(min(uses, int(g.uses))), origin: originOf(origin), bind: bind}) //nolint:gosec // at most 32.
	if err != nil {
		return Reply{}, err
	}
	m, _ := e.macs.Get().(*mac)
	defer e.macs.Put(m)
	m.keyOf(e, &t)
	return g.reply(&t, byte(min(uses, int(g.uses))), encoding.EncodeToString(m.key[:])), nil //nolint:gosec // as above.
}

func newVisitor(now time.Time) (v Visitor) {
	binary.BigEndian.PutUint16(v[:], today(now))
	if _, err := rand.Read(v[2:]); err != nil {
		panic(err) // crypto/rand does not fail
	}
	return v
}

func (g *Guard) reply(t *[size]byte, uses byte, key string) Reply {
	return Reply{Ticket: encoding.EncodeToString(t[:]), Uses: int(uses), Lifetime: int(g.lifetime / time.Second), Key: key}
}

// mint numbers and seals a ticket: in the shared store if there is one that answers, in this process
// otherwise.
func (g *Guard) mint(ctx context.Context, now time.Time, f *fields) (t [size]byte, e *epochKeys, err error) {
	ks := g.process
	if g.shared != nil {
		var l Lineage
		if l, f.number, err = g.shared.Number(ctx); err == nil {
			ks = g.keysOfLineage(l)
		}
	}
	if ks == g.process {
		if _, f.number, err = g.local.Number(ctx); err != nil {
			return t, nil, err
		}
	}
	f.class, f.kid = ks.class, ks.roots[0].kid
	f.expires = uint32(now.Add(g.lifetime).Unix()) //nolint:gosec // until 2106.
	e = ks.at(&ks.roots[0], f.expires/epochSeconds)
	return f.seal(e), e, nil
}

// wrappingKey is the visitor's: the same each time, so it need not be kept.
func (g *Guard) wrappingKey(v Visitor) []byte {
	var msg [sha256.BlockSize + len(v)]byte
	copy(msg[sha256.BlockSize:], v[:])
	s := sum((*[32]byte)(g.wrapping[0]), msg[:])
	return s[:]
}

func wrap(key, plain, about []byte) []byte {
	block, err := aes.NewCipher(key)
	if err != nil {
		panic(err) // the key has 32 bytes
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		panic(err) // AES has the right block size
	}
	out := make([]byte, gcm.NonceSize(), gcm.NonceSize()+len(plain)+gcm.Overhead())
	if _, err = rand.Read(out); err != nil {
		panic(err) // crypto/rand does not fail
	}
	return gcm.Seal(out, out, plain, about)
}

// agree returns the key pair that opens visits, a new one each hour.
func (g *Guard) agree(now time.Time) (*agreement, error) {
	fresh := func() *agreement {
		if a := g.agreement.Load(); a != nil && now.Sub(a.made) < time.Hour {
			return a
		}
		return nil
	}
	if a := fresh(); a != nil {
		return a, nil
	}
	g.agreeing.Lock()
	defer g.agreeing.Unlock()
	if a := fresh(); a != nil {
		return a, nil
	}
	key, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	a := &agreement{private: key, public: encoding.EncodeToString(key.PublicKey().Bytes()), made: now}
	g.agreement.Store(a)
	return a, nil
}

func unavailable(err error) guard.Decision {
	return deny(guard.TicketUnavailable, err.Error(), "room, and a store that answers")
}
