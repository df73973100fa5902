package ratelimit

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"

	"github.com/moat-gateway/moat/guard/identity"
)

// The names of a key's parts.
const (
	ofPrincipal = "principal"
	ofKey       = "api_key"
	ofAccount   = "account"
	ofClaim     = "claim:"
)

// maxPart is how long a part's value may be before its hash stands for it, in bytes.
const maxPart = 128

// who is Key.Who of a request.
func (r *rule) who(f *Facts) string {
	var room [192]byte
	b := room[:0]
	if p := f.Principal; p != nil {
		switch {
		case r.byCredential && p.Method() == identity.APIKey:
			b = appendValue(appendName(b, ofKey, ""), p.Source(), "|", p.Credential())
		case r.byPrincipal:
			b = appendValue(appendName(b, ofPrincipal, ""), p.ID())
		}
		for _, path := range r.byClaims {
			v, _ := p.Claim(path)
			s, _ := claimText(v)
			b = appendValue(appendName(b, ofClaim, path), s)
		}
	}
	if r.byAccount {
		b = appendValue(appendName(b, ofAccount, ""), foldAccount(f.Account))
	}
	return string(b)
}

// appendName begins a part. No two lists of parts are written alike: what separates them is
// escaped within them.
func appendName(b []byte, kind, path string) []byte {
	if len(b) > 0 {
		b = append(b, ',')
	}
	return append(appendEscaped(append(b, kind...), path), '=')
}

// appendValue ends a part. What stands for a long value is no value itself.
func appendValue(b []byte, value ...string) []byte {
	start := len(b)
	for _, v := range value {
		b = appendEscaped(b, v)
	}
	if len(b)-start > maxPart {
		sum := sha256.Sum256(b[start:])
		b = hex.AppendEncode(append(b[:start], '~'), sum[:16])
	}
	return b
}

const hexDigits = "0123456789ABCDEF"

// appendEscaped writes what is not printable, or means something in a key, as in a URL.
func appendEscaped(b []byte, s string) []byte {
	for i := range len(s) {
		switch c := s[i]; {
		case c <= ' ' || c >= 0x7f || c == '%' || c == ',' || c == '=' || c == '~':
			b = append(b, '%', hexDigits[c>>4], hexDigits[c&15])
		default:
			b = append(b, c)
		}
	}
	return b
}

// unescape reads what appendEscaped has written, and what somebody types without escapes.
func unescape(s string) string {
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) {
			if c, err := strconv.ParseUint(s[i+1:i+3], 16, 8); err == nil {
				b = append(b, byte(c))
				i += 2
				continue
			}
		}
		b = append(b, s[i])
	}
	return string(b)
}

// claimText is a claim as text, if it is one value.
func claimText(v any) (string, bool) {
	switch v := v.(type) {
	case string:
		return v, true
	case bool:
		return strconv.FormatBool(v), true
	case int64:
		return strconv.FormatInt(v, 10), true
	case float64:
		return strconv.FormatFloat(v, 'g', -1, 64), true
	}
	return "", false
}

// foldAccount makes one name of the ways to write it that servers take for the same, and
// that somebody who guesses would otherwise go through: blanks around it, case, characters that
// are not seen, and the compatibility forms of Unicode (NFKC). Names that only some servers
// take for the same share a limit.
func foldAccount(s string) string {
	if !isASCII(s) {
		s = norm.NFKC.String(strings.ToLower(norm.NFKC.String(strings.Map(visible, s))))
	}
	return strings.TrimSpace(strings.ToLower(s))
}

// visible drops the characters that nobody sees, and that programs often drop.
func visible(c rune) rune {
	if unicode.In(c, unicode.Cf, unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector) {
		return -1
	}
	return c
}

func isASCII(s string) bool {
	return !strings.ContainsFunc(s, func(c rune) bool { return c >= utf8.RuneSelf })
}

// parts are the names of the parts that keys of the rule have, of requests of a known
// principal or of nobody.
func (r Rule) parts(known bool) []string {
	var names []string
	if known {
		switch {
		case slices.Contains(r.By, Credential):
			names = append(names, ofKey)
		case slices.Contains(r.By, Principal):
			names = append(names, ofPrincipal)
		}
		for _, path := range r.ByClaims {
			names = append(names, ofClaim+string(appendEscaped(nil, path)))
		}
	}
	if r.NeedsAccount() {
		names = append(names, ofAccount)
	}
	return names
}

// parseWho reads Key.Who, of requests of a known principal or of nobody.
func (r Rule) parseWho(text string) (string, error) {
	var names []string
	var b []byte
	for part := range strings.SplitSeq(text, ",") {
		name, value, _ := strings.Cut(part, "=")
		names = append(names, name)
		b = appendName(b, name, "")
		switch {
		case isHash(value):
			b = append(b, value...)
		case name == ofAccount:
			b = appendValue(b, foldAccount(unescape(value)))
		default:
			b = appendValue(b, unescape(value))
		}
	}
	known := r.parts(true)
	if names[0] == ofPrincipal && known[0] == ofKey {
		known[0] = ofPrincipal // who shows no key
	}
	if !slices.Equal(names, known) && !slices.Equal(names, r.parts(false)) {
		return "", fmt.Errorf("%q: this limit counts by %s=…", text, strings.Join(r.parts(true), "=…,"))
	}
	return string(b), nil
}

// isPart reports whether a word of a key's text says who.
func isPart(word string) bool {
	name, _, ok := strings.Cut(word, "=")
	return ok && (name == ofPrincipal || name == ofKey || name == ofAccount || strings.HasPrefix(name, ofClaim))
}

// isHash reports whether the value is the hash of a long one.
func isHash(s string) bool {
	digits, ok := strings.CutPrefix(s, "~")
	_, err := hex.DecodeString(digits)
	return ok && err == nil && len(digits) == 32
}
