package main

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
	"slices"
)

// session gets tickets as the page's client does. It is written after docs/ticket-format.md, as an attacker would.
type session struct {
	// ask sends a document to the gate, and returns its answer.
	ask                   func(document map[string]string) ([]byte, error)
	ticket, key, wrapping []byte
	uses, spent           int
}

var base64url = base64.RawURLEncoding

type answer struct {
	Ticket, Public, Wrapping, Key string
	Uses                          int
}

func (s *session) open() error {
	private, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	a, ticket, err := s.answer(map[string]string{"public": base64url.EncodeToString(private.PublicKey().Bytes())})
	if err != nil {
		return err
	}
	point, err := base64url.DecodeString(a.Public)
	if err != nil {
		return err
	}
	public, err := ecdh.P256().NewPublicKey(point)
	if err != nil {
		return err
	}
	secret, err := private.ECDH(public)
	if err != nil {
		return err
	}
	opener, err := hkdf.Key(sha256.New, secret, []byte("moat ticket v1"), "open"+string(ticket[6:14]), 32)
	if err != nil {
		return err
	}
	if s.wrapping, err = unwrap(opener, a.Wrapping, nil); err != nil {
		return err
	}
	return s.keep(a, ticket)
}

func (s *session) renew() error {
	a, ticket, err := s.answer(map[string]string{
		"ticket": base64url.EncodeToString(s.ticket), "proof": base64url.EncodeToString(mac(s.key, []byte("renew"), s.ticket)),
	})
	if err != nil {
		return err
	}
	return s.keep(a, ticket)
}

func (s *session) answer(document map[string]string) (a answer, ticket []byte, err error) {
	text, err := s.ask(document)
	if err != nil {
		return a, nil, err
	}
	if err = json.Unmarshal(text, &a); err != nil {
		return a, nil, err
	}
	if ticket, err = base64url.DecodeString(a.Ticket); err == nil && len(ticket) != 30 {
		err = errors.New("no ticket")
	}
	return a, ticket, err
}

func (s *session) keep(a answer, ticket []byte) (err error) {
	s.ticket, s.uses, s.spent = ticket, a.Uses, 0
	s.key, err = unwrap(s.wrapping, a.Key, ticket)
	return err
}

// token is good for one GET of the target.
func (s *session) token(target string) (string, error) {
	var err error
	switch {
	case s.ticket == nil:
		err = s.open()
	case s.spent == s.uses:
		err = s.renew()
	}
	if err != nil {
		return "", err
	}
	index := []byte{byte(s.spent)} //nolint:gosec // at most 32
	s.spent++
	length := binary.BigEndian.AppendUint16(nil, uint16(len(target))) //nolint:gosec // a short path
	proof := mac(s.key, []byte("call"), s.ticket, index, []byte{3}, []byte("GET"), length, []byte(target), []byte{0})
	return base64url.EncodeToString(slices.Concat(s.ticket, index, proof)), nil
}

func mac(key []byte, parts ...[]byte) []byte {
	h := hmac.New(sha256.New, key)
	for _, p := range parts {
		h.Write(p)
	}
	return h.Sum(nil)[:16]
}

func unwrap(key []byte, wrapped string, about []byte) ([]byte, error) {
	text, err := base64url.DecodeString(wrapped)
	if err != nil || len(text) < 12 {
		return nil, errors.New("not wrapped as the format says")
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		return nil, err
	}
	return gcm.Open(nil, text[:12], text[12:], about)
}
