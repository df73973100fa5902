package apikey

import (
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// The parts of a key's text: moat_ID_SECRETCHECK.
const (
	prefix       = "moat_"
	idLength     = 8
	secretLength = 32 // 190 bits
	checkLength  = 6  // CRC-32 in base 62

	idEnd      = len(prefix) + idLength
	checked    = idEnd + len("_") + secretLength
	textLength = checked + checkLength
)

// What an operator may write down for a key, in bytes.
const (
	maxOwner  = 200
	maxNote   = 500
	maxScope  = 128
	maxScopes = 64
)

const base62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

// Key is what is known of an API key. It is not the key, and nobody can make that from it.
type Key struct {
	// ID is the public part of the text.
	ID string
	// Hash is the SHA-256 of the whole text.
	Hash [sha256.Size]byte
	// Owner is whose requests they are: Principal.Subject.
	Owner string
	// Note is for the operator.
	Note string
	// Scopes are how far the key reaches.
	Scopes []string
	// Created and Expires; a zero Expires means never.
	Created, Expires time.Time
	// Revoked is when the operator took the key back; zero if not. It is not compared with
	// the clock: that of the machine where it was revoked may be ahead.
	Revoked time.Time
	// ReplacedBy is the id of the key that took this one's place, or "". This one is good
	// until GraceUntil all the same.
	ReplacedBy string
	GraceUntil time.Time
	// LastUsed is to the minute, and zero if never.
	LastUsed time.Time
}

// Generate makes a key of what k says about its owner, note, scopes and expiry. The text is
// nowhere else: who does not keep it has lost it.
func Generate(k Key, now time.Time) (text string, made Key, err error) {
	body := prefix + random(idLength) + "_" + random(secretLength)
	digits := check(body)
	text = body + string(digits[:])
	made = Key{
		ID: text[len(prefix):idEnd], Hash: sha256.Sum256([]byte(text)), Owner: k.Owner, Note: k.Note, Scopes: slices.Clone(k.Scopes),
		Created: now.UTC().Truncate(time.Second), Expires: k.Expires.UTC().Truncate(time.Second),
	}
	if err = made.Validate(); err != nil {
		return "", Key{}, err
	}
	return text, made, nil
}

// random is n digits of base 62, each as likely as the others.
func random(n int) string {
	digits := make([]byte, 0, n)
	var b [64]byte
	for len(digits) < n {
		rand.Read(b[:]) // never fails
		for _, c := range b {
			// 248 is the largest multiple of 62 in a byte: what lies above would make the
			// first digits likelier.
			if c < 248 && len(digits) < n {
				digits = append(digits, base62[c%62])
			}
		}
	}
	return string(digits)
}

// check is the check digits of what stands before them. CRC-32 notices every change of a
// single character. It is no secret, and keeps nobody from making texts up.
func check(body string) (digits [checkLength]byte) {
	n := ^uint32(0) // by hand: what crc32 is given goes to the heap
	for i := range len(body) {
		n = crc32.IEEETable[n&0xff^uint32(body[i])] ^ n>>8
	}
	n = ^n
	for i := range digits {
		digits[checkLength-1-i] = base62[n%62]
		n /= 62
	}
	return digits
}

// parse finds the public id and the hash of a text that has the form of a key, check digits
// included.
func parse(text string) (id string, hash [sha256.Size]byte, ok bool) {
	if len(text) != textLength || text[:len(prefix)] != prefix || text[idEnd] != '_' {
		return "", hash, false
	}
	for i := len(prefix); i < textLength; i++ {
		if i != idEnd && !digit(text[i]) {
			return "", hash, false
		}
	}
	if digits := check(text[:checked]); string(digits[:]) != text[checked:] {
		return "", hash, false
	}
	var b [textLength]byte // of fixed size, so that it needs no memory
	copy(b[:], text)
	return text[len(prefix):idEnd], sha256.Sum256(b[:]), true
}

func digit(c byte) bool {
	return '0' <= c && c <= '9' || 'A' <= c && c <= 'Z' || 'a' <= c && c <= 'z'
}

// ID is the public id in a text that has the form of a key.
func ID(text string) (id string, ok bool) {
	id, _, ok = parse(text)
	return id, ok
}

// Validate says what is wrong with a key that somebody has described.
func (k *Key) Validate() error {
	switch {
	case len(k.ID) != idLength || strings.Trim(k.ID, base62) != "":
		return fmt.Errorf("id %q: not %d letters and digits", k.ID, idLength)
	case k.Hash == [sha256.Size]byte{}:
		return errors.New("no hash")
	case k.Owner == "":
		return errors.New("owner: missing; a key is somebody's")
	case len(k.Owner) > maxOwner || !plain(k.Owner):
		return fmt.Errorf("owner %.40q: want at most %d bytes of printable text without blanks around it", k.Owner, maxOwner)
	case len(k.Note) > maxNote || !plain(k.Note):
		return fmt.Errorf("note %.40q: want at most %d bytes of printable text without blanks around it", k.Note, maxNote)
	case len(k.Scopes) > maxScopes:
		return fmt.Errorf("scope: %d of them; want at most %d", len(k.Scopes), maxScopes)
	case k.Created.IsZero():
		return errors.New("created: missing")
	case !k.Expires.IsZero() && !k.Expires.After(k.Created):
		return fmt.Errorf("expires %s: want a time after it was made", k.Expires.Format(time.RFC3339))
	case (k.ReplacedBy == "") != k.GraceUntil.IsZero():
		return errors.New("replaced, but not until when; or the other way round")
	}
	for _, s := range k.Scopes {
		if s == "" || len(s) > maxScope || strings.ContainsFunc(s, notInScope) {
			return fmt.Errorf("scope %.40q: want at most %d visible ASCII characters without \" and \\ (RFC 6749 section 3.3)", s, maxScope)
		}
	}
	return nil
}

func plain(s string) bool {
	return utf8.ValidString(s) && strings.TrimSpace(s) == s && !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) })
}

func notInScope(r rune) bool {
	return r <= ' ' || r > '~' || r == '"' || r == '\\'
}

// State is what has become of a key.
type State string

// The states. A key is good if it is Active or Replaced.
const (
	Active   State = "active"
	Replaced State = "replaced" // good until its grace ends
	Expired  State = "expired"
	Revoked  State = "revoked" // or replaced, and its grace is over
)

// State is that of the key at a time.
func (k *Key) State(now time.Time) State {
	switch {
	case !k.Revoked.IsZero() || k.ReplacedBy != "" && !now.Before(k.GraceUntil):
		return Revoked
	case !k.Expires.IsZero() && !now.Before(k.Expires):
		return Expired
	case k.ReplacedBy != "":
		return Replaced
	}
	return Active
}
