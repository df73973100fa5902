// Package tickettest does what a page's client does with tickets, for tests of whoever
// stands behind the gate. It is written from docs/ticket-format.md, and shares no code with
// package ticket.
package tickettest

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
)

var base64url = base64.RawURLEncoding

// Visit is a page's side of a chain of tickets. Its fields are what an attacker can get at
// who writes a client of its own; a browser keeps the keys from its script.
type Visit struct {
	Ticket   []byte
	Key      []byte // the ticket's
	Uses     int
	Lifetime int // seconds
	Next     int // the index of the next call

	private  *ecdh.PrivateKey
	wrapping []byte
}

// Open is the document that opens a visit.
func (v *Visit) Open() ([]byte, error) {
	private, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	v.private = private
	return json.Marshal(map[string]string{"public": base64url.EncodeToString(private.PublicKey().Bytes())})
}

// Renew is the document that renews the visit's ticket.
func (v *Visit) Renew() ([]byte, error) {
	proof := sum(v.Key, append([]byte("renew"), v.Ticket...))[:16]
	return json.Marshal(map[string]string{"ticket": base64url.EncodeToString(v.Ticket), "proof": base64url.EncodeToString(proof)})
}

// Take takes the answer to either document, or the one that a page is served with.
func (v *Visit) Take(reply []byte) error {
	var r struct {
		Ticket, Public, Wrapping, Key string
		Uses, Lifetime                int
	}
	if err := json.Unmarshal(reply, &r); err != nil {
		return err
	}
	raw := make(map[string][]byte)
	for name, text := range map[string]string{"ticket": r.Ticket, "public": r.Public, "wrapping": r.Wrapping, "key": r.Key} {
		b, err := base64url.DecodeString(text)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		raw[name] = b
	}
	ticket := raw["ticket"]
	if len(ticket) != 30 {
		return fmt.Errorf("a ticket of %d bytes", len(ticket))
	}
	if r.Public != "" {
		public, err := ecdh.P256().NewPublicKey(raw["public"])
		if err != nil {
			return err
		}
		secret, err := v.private.ECDH(public)
		if err != nil {
			return err
		}
		agreed, err := hkdf.Key(sha256.New, secret, []byte("moat ticket v1"), "open"+string(ticket[6:14]), 32)
		if err != nil {
			return err
		}
		if v.wrapping, err = unwrap(agreed, raw["wrapping"], nil); err != nil {
			return fmt.Errorf("wrapping key: %w", err)
		}
	}
	key := raw["key"]
	if len(key) != 32 { // told in the clear
		var err error
		if key, err = unwrap(v.wrapping, key, ticket); err != nil {
			return fmt.Errorf("key: %w", err)
		}
	}
	v.Ticket, v.Key, v.Uses, v.Lifetime, v.Next = ticket, key, r.Uses, r.Lifetime, 0
	return nil
}

func unwrap(key, sealed, about []byte) ([]byte, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		return nil, err
	}
	if len(sealed) < gcm.NonceSize() {
		return nil, errors.New("too short")
	}
	return gcm.Open(nil, sealed[:gcm.NonceSize()], sealed[gcm.NonceSize():], about)
}

// Token is the token of the next call. A nil body is none.
func (v *Visit) Token(method, target string, body []byte) string {
	v.Next++
	return v.TokenAt(v.Next-1, method, target, body)
}

// TokenAt is the token of the call with that index.
func (v *Visit) TokenAt(index int, method, target string, body []byte) string {
	if len(body) == 0 {
		return v.token(index, method, target, []byte{0}, "")
	}
	digest := sha256.Sum256(body)
	return v.token(index, method, target, append([]byte{1}, digest[:]...), "."+base64url.EncodeToString(digest[:]))
}

// StreamToken is the token of the next call, whose body is a stream.
func (v *Visit) StreamToken(method, target string) string {
	v.Next++
	return v.token(v.Next-1, method, target, []byte{2}, ".stream")
}

func (v *Visit) token(index int, method, target string, body []byte, suffix string) string {
	msg := append([]byte("call"), v.Ticket...)
	msg = append(msg, byte(index), byte(len(method))) //nolint:gosec // a test's own.
	msg = append(msg, method...)
	msg = binary.BigEndian.AppendUint16(msg, uint16(len(target))) //nolint:gosec // a test's own.
	msg = append(append(msg, target...), body...)
	raw := append(append([]byte{}, v.Ticket...), byte(index)) //nolint:gosec // a test's own.
	return base64url.EncodeToString(append(raw, sum(v.Key, msg)[:16]...)) + suffix
}

// Issued is a ticket as a page's own backend makes it.
type Issued struct {
	Secret  []byte
	Class   byte
	Lineage [16]byte
	Expires uint32
	Visitor [8]byte
	Number  uint64
	Uses    byte
	Flags   byte
	Origin  uint32
	Bind    [4]byte
}

// Make makes the ticket and its key.
func (i *Issued) Make() (ticket, key []byte, err error) {
	class := append([]byte{i.Class}, i.Lineage[:]...)
	kid, err := hkdf.Key(sha256.New, i.Secret, []byte("moat ticket v1"), "kid"+string(class), 1)
	if err != nil {
		return nil, nil, err
	}
	epoch := binary.BigEndian.AppendUint32(class, i.Expires/3600)
	k, err := hkdf.Key(sha256.New, i.Secret, []byte("moat ticket v1"), "ticket"+string(epoch), 48)
	if err != nil {
		return nil, nil, err
	}
	ticket = append([]byte{i.Class, kid[0]}, binary.BigEndian.AppendUint32(nil, i.Expires)...)
	ticket = append(ticket, i.Visitor[:]...)
	block := binary.BigEndian.AppendUint64(nil, i.Number)[2:]
	block = binary.BigEndian.AppendUint32(append(block, i.Uses, i.Flags), i.Origin)
	block = append(block, i.Bind[:]...)
	c, err := aes.NewCipher(k[32:])
	if err != nil {
		return nil, nil, err
	}
	c.Encrypt(block, block)
	ticket = append(ticket, block...)
	return ticket, sum(k[:32], append([]byte("ticket key"), ticket...)), nil
}

func sum(key, msg []byte) []byte {
	h := hmac.New(sha256.New, key)
	h.Write(msg)
	return h.Sum(nil)
}
