package ticket

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"sync"
	"sync/atomic"
)

// The classes of tickets, by who knows what has been used of them.
const (
	classProcess = 0x10 // issued by this process
	classShared  = 0x11 // issued by one of those that share a store
	classIssuer  = 0x12 // issued by the page's own backend
)

const (
	salt = "moat ticket v1"
	// epochSeconds is how long a key issues tickets.
	epochSeconds = 3600
	// MinSecret is how many bytes a secret has at least.
	MinSecret = 32
)

// errShortSecret does not say what the secret is.
var errShortSecret = errors.New("a secret has at least 32 bytes")

// keys are those of one class and lineage: immutable but for what they remember.
type keys struct {
	class   byte
	lineage Lineage
	roots   []root // the first one issues
}

// root is a secret, for one class and lineage.
type root struct {
	secret []byte // pseudorandom: HKDF has extracted it
	kid    byte
	// epochs are the keys in use: at most two are, while an hour ends.
	epochs [4]atomic.Pointer[epochKeys]
}

// epochKeys open and issue the tickets that expire in one hour.
type epochKeys struct {
	epoch uint32
	block cipher.Block
	macs  sync.Pool // of *mac, under the key of tickets' keys
	// recent are tickets whose proofs fitted, as a page makes several calls with one. Nobody
	// can push them out with what he makes up.
	recent [1024]atomic.Pointer[recent]
}

type recent struct {
	ticket [size]byte
	key    [sha256.Size]byte
}

// slot is where a ticket is found again. A sealed block is as good as random.
func (e *epochKeys) slot(t *[size]byte) *atomic.Pointer[recent] {
	return &e.recent[binary.BigEndian.Uint16(t[14:])%uint16(len(e.recent))]
}

// mac is room for one verification.
type mac struct {
	h   hash.Hash
	key [sha256.Size]byte
	msg []byte
	// block is a sealed block: what goes through an interface would have to be on the heap.
	block [aes.BlockSize]byte
}

// extract turns the secrets into what keys are derived from.
func extract(secrets [][]byte) ([][]byte, error) {
	var all [][]byte
	for i, s := range secrets {
		if len(s) < MinSecret {
			return nil, fmt.Errorf("secret %d: %w, such as openssl rand -base64 32 makes", i+1, errShortSecret)
		}
		prk, err := hkdf.Extract(sha256.New, s, []byte(salt))
		if err != nil {
			return nil, err
		}
		all = append(all, prk)
	}
	return all, nil
}

func newKeys(class byte, l Lineage, secrets [][]byte) *keys {
	k := &keys{class: class, lineage: l, roots: make([]root, len(secrets))}
	for i, s := range secrets {
		k.roots[i].secret = s
		k.roots[i].kid = expand(s, "kid"+string(class)+string(l[:]), 1)[0]
	}
	return k
}

func expand(prk []byte, info string, n int) []byte {
	b, err := hkdf.Expand(sha256.New, prk, info, n)
	if err != nil {
		panic(err) // only for more than 8,160 bytes
	}
	return b
}

// find returns the keys that have the ticket's kid and fit its proof. Few secrets share one.
func (k *keys) find(p *proof) (e *epochKeys, first, known bool) {
	for i := range k.roots {
		if r := &k.roots[i]; r.kid == p.ticket[1] {
			known = true
			if e = k.at(r, expires(&p.ticket)/epochSeconds); p.fits(e) {
				return e, i == 0, true
			}
		}
	}
	return nil, false, known
}

// at returns the keys of an epoch. They are kept, and those of yesterday's tickets, which
// only renewals ask for, push out none that calls need.
func (k *keys) at(r *root, epoch uint32) *epochKeys {
	slot := &r.epochs[epoch%uint32(len(r.epochs))]
	old := slot.Load()
	if old != nil && old.epoch == epoch {
		return old
	}
	e := k.derive(r, epoch)
	if old == nil || old.epoch < epoch {
		slot.CompareAndSwap(old, e)
	}
	return e
}

func (k *keys) derive(r *root, epoch uint32) *epochKeys {
	info := binary.BigEndian.AppendUint32(append(append([]byte("ticket"), k.class), k.lineage[:]...), epoch)
	b := expand(r.secret, string(info), sha256.Size+aes.BlockSize)
	block, err := aes.NewCipher(b[sha256.Size:])
	if err != nil {
		panic(err) // only for another length
	}
	e := &epochKeys{epoch: epoch, block: block}
	e.macs.New = func() any {
		return &mac{h: hmac.New(sha256.New, b[:sha256.Size]), msg: make([]byte, 0, 512)}
	}
	return e
}

// keyOf puts the ticket's own key into m, and reports whether it had to be made.
func (m *mac) keyOf(e *epochKeys, t *[size]byte) (made bool) {
	if r := e.slot(t).Load(); r != nil && r.ticket == *t {
		m.key = r.key
		return false
	}
	m.h.Reset()
	m.msg = append(append(m.msg[:0], "ticket key"...), t[:]...)
	m.h.Write(m.msg)
	m.h.Sum(m.key[:0])
	return true
}

// sum is HMAC-SHA256 of the message under key, without the five allocations of hmac.New.
// The message's room begins with sha256.BlockSize bytes that are free.
func sum(key *[sha256.Size]byte, padded []byte) [sha256.Size]byte {
	outer := outerPad
	copy(padded, innerPad[:])
	subtle.XORBytes(padded, padded[:len(key)], key[:])
	subtle.XORBytes(outer[:], outer[:len(key)], key[:])
	inner := sha256.Sum256(padded)
	copy(outer[sha256.BlockSize:], inner[:])
	return sha256.Sum256(outer[:])
}

// The paddings of HMAC (RFC 2104). A message for sum begins with room for the inner one.
var (
	innerPad = [sha256.BlockSize]byte(bytes.Repeat([]byte{0x36}, sha256.BlockSize))
	outerPad = [sha256.BlockSize + sha256.Size]byte(bytes.Repeat([]byte{0x5c}, sha256.BlockSize+sha256.Size))
)
