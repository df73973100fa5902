package ticket

import (
	"crypto/subtle"
	"encoding/base64"
	"encoding/binary"
	"net/netip"
	"strings"
)

const (
	size      = 30 // of a ticket
	proofSize = 16
	tokenSize = size + 1 + proofSize
	tokenText = 63 // characters of base64url
	// MaxUses is the most calls that one ticket is good for.
	MaxUses = 32
)

// flagPass marks a ticket that a browser without script brings along in a cookie.
const flagPass = 1

var encoding = base64.RawURLEncoding.Strict()

// fields are what a ticket says.
type fields struct {
	keys       *keys // that opened it
	newest     bool  // of these, the one that issues
	class, kid byte
	expires    uint32 // Unix seconds
	visitor    Visitor
	number     uint64 // below 1<<48
	uses       byte
	flags      byte
	origin     uint32
	bind       Bind
}

// Visitor tells one chain of tickets from another: whoever opens gets a new one, and
// keeps it when renewing. It says nothing about who somebody is.
type Visitor [8]byte

// Bind is what a ticket says of the client that it was issued to: three bytes of its
// network and the family of its browser. A zero byte of the family, or three zero bytes of the network,
// say nothing.
type Bind [4]byte

// BindTo tells a client by its network, an IPv4 /24 or an IPv6 /48, and by what its User-Agent
// says it is. People change neither often, and a ticket that was copied to another
// machine or program hardly fits.
func BindTo(client netip.Addr, userAgent string) Bind {
	client = client.Unmap()
	var b Bind
	h := uint32(0)
	switch {
	case client.Is4():
		a := client.As4()
		h = fnv1a(a[:3])
	case client.Is6():
		a := client.As16()
		h = fnv1a(a[:6])
	}
	b[0], b[1], b[2], b[3] = byte(h>>16), byte(h>>8), byte(h), family(userAgent)
	return b
}

func family(userAgent string) byte {
	switch {
	case strings.Contains(userAgent, "Chrome/"):
		return 1
	case strings.Contains(userAgent, "Firefox/"):
		return 2
	case strings.Contains(userAgent, "Safari/"):
		return 3
	}
	return 255
}

// fits reports whether a client is the one that the ticket was issued to.
func (b Bind) fits(client Bind) bool {
	return (b[0]|b[1]|b[2] == 0 || [3]byte(b[:3]) == [3]byte(client[:3])) && (b[3] == 0 || b[3] == client[3])
}

// originOf is how a ticket tells origins apart. It is sealed, so nobody can look for
// another origin of the same number.
func originOf(serialized string) uint32 {
	h := uint32(2166136261)
	for i := range len(serialized) {
		h = (h ^ uint32(serialized[i])) * 16777619
	}
	return h
}

func fnv1a(b []byte) uint32 {
	h := uint32(2166136261)
	for _, c := range b {
		h = (h ^ uint32(c)) * 16777619
	}
	return h
}

// seal makes the ticket.
func (f *fields) seal(e *epochKeys) (t [size]byte) {
	t[0], t[1] = f.class, f.kid
	binary.BigEndian.PutUint32(t[2:], f.expires)
	copy(t[6:], f.visitor[:])
	p := t[14:]
	binary.BigEndian.PutUint64(p, f.number<<16) // 48 bits, then room for the next two
	p[6], p[7] = f.uses, f.flags
	binary.BigEndian.PutUint32(p[8:], f.origin)
	copy(p[12:], f.bind[:])
	e.block.Encrypt(p, p)
	return t
}

// read says what a ticket says. It is true only if a proof fits.
func (f *fields) read(t *[size]byte, block *[16]byte) {
	f.class, f.kid, f.expires = t[0], t[1], expires(t)
	copy(f.visitor[:], t[6:14])
	f.number = binary.BigEndian.Uint64(block[:]) >> 16
	f.uses, f.flags = block[6], block[7]
	f.origin = binary.BigEndian.Uint32(block[8:])
	copy(f.bind[:], block[12:])
}

func expires(t *[size]byte) uint32 { return binary.BigEndian.Uint32(t[2:]) }

// The kinds of a body in a proof.
const (
	bodyNone     = 0
	bodyHashed   = 1
	bodyStreamed = 2
)

// proof is a ticket, and what shows that it comes from whoever has its key.
type proof struct {
	ticket [size]byte
	mac    [proofSize]byte
	// label says what is proved. For "call" it is the rest, too.
	label          string
	index          byte
	method, target string
	body           byte
	digest         [32]byte
	// opened is the ticket's sealed block, once the proof has fitted.
	opened [16]byte
}

// parse reads a token's text: it has one spelling.
func (p *proof) parse(s string) bool {
	head, tail, dotted := strings.Cut(s, ".")
	if len(head) != tokenText {
		return false
	}
	var raw [tokenSize]byte
	if !decode(raw[:], head) {
		return false
	}
	copy(p.ticket[:], raw[:])
	p.index = raw[size]
	copy(p.mac[:], raw[size+1:])
	switch {
	case !dotted:
		p.body = bodyNone
	case tail == "stream":
		p.body = bodyStreamed
	default:
		p.body = bodyHashed
		return decode(p.digest[:], tail)
	}
	return true
}

// decode fills dst from text, base64url of just that length. It takes two thirds of the
// standard library's time, and a token's text is most of what a call's check costs beside
// cryptography. Each value has one spelling: bits that no byte has are zero.
func decode(dst []byte, text string) bool {
	if len(text) != encoding.EncodedLen(len(dst)) {
		return false
	}
	var bad uint32
	i, j := 0, 0
	for ; i+4 <= len(text) && j+3 <= len(dst); i, j = i+4, j+3 {
		q, o := text[i:i+4], dst[j:j+3:j+3]
		a, b, c, d := digits[q[0]], digits[q[1]], digits[q[2]], digits[q[3]]
		v := a<<18 | b<<12 | c<<6 | d
		o[0], o[1], o[2] = byte(v>>16), byte(v>>8), byte(v) //nolint:gosec // three bytes of four.
		bad |= a | b | c | d
	}
	v, bits := uint32(0), 0
	for ; i < len(text); i++ { // at most three characters
		d := digits[text[i]]
		v, bits, bad = v<<6|d&63, bits+6, bad|d
	}
	for ; j < len(dst); j++ {
		bits -= 8
		dst[j] = byte(v >> bits) //nolint:gosec // one of them.
	}
	return bad < noDigit && v&(1<<bits-1) == 0
}

// digits are the values of the characters; those of others are noDigit.
var digits = func() (all [256]uint32) {
	for i := range all {
		all[i] = noDigit
	}
	for i, c := range alphabet {
		all[c] = uint32(i)
	}
	return all
}()

const (
	alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	noDigit  = 1 << 28
)

// fits reports whether these keys have made the ticket, and its own key the proof.
func (p *proof) fits(e *epochKeys) bool {
	if len(p.method) > 255 || len(p.target) > 65535 {
		return false
	}
	m, _ := e.macs.Get().(*mac)
	defer e.macs.Put(m)
	want, made := p.sum(e, m)
	if subtle.ConstantTimeCompare(want[:], p.mac[:]) != 1 {
		return false
	}
	if made {
		e.slot(&p.ticket).Store(&recent{p.ticket, m.key})
	}
	copy(m.block[:], p.ticket[14:])
	e.block.Decrypt(m.block[:], m.block[:])
	p.opened = m.block
	return true
}

// sum is what the proof has to be.
func (p *proof) sum(e *epochKeys, m *mac) (want [proofSize]byte, made bool) {
	made = m.keyOf(e, &p.ticket)
	msg := append(m.msg[:0], innerPad[:]...)
	msg = append(append(msg, p.label...), p.ticket[:]...)
	if p.label == labelCall {
		msg = append(msg, p.index, byte(len(p.method))) //nolint:gosec // fits has checked both lengths.
		msg = append(msg, p.method...)
		msg = binary.BigEndian.AppendUint16(msg, uint16(len(p.target))) //nolint:gosec // as above.
		msg = append(msg, p.target...)
		msg = append(msg, p.body)
		if p.body == bodyHashed {
			msg = append(msg, p.digest[:]...)
		}
	}
	m.msg = msg
	s := sum(&m.key, msg)
	copy(want[:], s[:])
	return want, made
}

// What a proof is for.
const (
	labelCall  = "call"
	labelRenew = "renew"
	labelPass  = "pass"
)
