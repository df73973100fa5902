package jwt

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/moat-gateway/moat/guard"
)

// maxRevocations is the longest text of revocations, in bytes.
const maxRevocations = 16 << 20

// Revocations are tokens that are not good any more, by their jti, sid or sub. They are
// immutable; nil revokes nothing.
type Revocations struct {
	jti, sid map[string]struct{}
	// sub has, for each subject, the time before which its tokens were issued that are revoked.
	sub map[string]int64
}

// ParseRevocations reads a list of revocations, one a line:
//
//	jti 7f3c…                              # one token
//	sid 08a5…                              # all tokens of one session
//	sub auth0|5f7c                         # all tokens of a subject
//	sub alice before 2026-11-21T16:00:00Z  # those that were issued before
//
// A value with a blank or a "#" stands in double quotes, as in Go. What is after "#" is a comment.
func ParseRevocations(text []byte) (*Revocations, error) {
	if len(text) > maxRevocations {
		return nil, fmt.Errorf("longer than %d bytes", maxRevocations)
	}
	r := &Revocations{jti: make(map[string]struct{}), sid: make(map[string]struct{}), sub: make(map[string]int64)}
	n := 0
	for line := range bytes.Lines(text) {
		n++
		words, err := split(string(line))
		if err == nil && len(words) > 0 {
			err = r.add(words)
		}
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
	}
	return r, nil
}

// split splits a line into words.
func split(line string) (words []string, err error) {
	for {
		line = strings.TrimLeft(line, " \t\r\n")
		if line == "" || line[0] == '#' {
			return words, nil
		}
		word := line
		if line[0] == '"' {
			if word, err = strconv.QuotedPrefix(line); err != nil {
				return nil, errors.New("the quote does not end")
			}
		} else if i := strings.IndexAny(line, " \t\r\n"); i >= 0 {
			word = line[:i]
		}
		line = line[len(word):]
		if word[0] == '"' {
			if word, err = strconv.Unquote(word); err != nil {
				return nil, errors.New("the quoted text is malformed")
			}
		}
		words = append(words, word)
	}
}

var errForm = errors.New(`want "jti X", "sid X", "sub X" or "sub X before 2026-01-02T15:04:05Z"`)

func (r *Revocations) add(words []string) error {
	if len(words) < 2 || words[1] == "" {
		return errForm
	}
	kind, value := words[0], words[1]
	switch {
	case kind == "jti" && len(words) == 2:
		r.jti[value] = struct{}{}
	case kind == "sid" && len(words) == 2:
		r.sid[value] = struct{}{}
	case kind == "sub" && len(words) == 2:
		r.sub[value] = maxDate
	case kind == "sub" && len(words) == 4 && words[2] == "before":
		t, err := time.Parse(time.RFC3339, words[3])
		if err != nil {
			return fmt.Errorf("the time is not like 2026-01-02T15:04:05Z: %q", words[3])
		}
		r.sub[value] = max(r.sub[value], t.Unix())
	default:
		return errForm
	}
	return nil
}

// judge judges a token whose signature is good. One that does not say when it was issued may
// have been at any time.
func (r *Revocations) judge(e *entry) guard.Decision {
	if r == nil {
		return guard.Decision{}
	}
	if before, ok := r.sub[e.principal.Subject()]; ok && (before == maxDate || e.issued < before) {
		return revoked("sub", e.principal.Subject())
	}
	if _, ok := r.jti[e.jti]; ok {
		return revoked("jti", e.jti)
	}
	if _, ok := r.sid[e.sid]; ok {
		return revoked("sid", e.sid)
	}
	return guard.Decision{}
}

func revoked(claim, value string) guard.Decision {
	return denial(guard.TokenRevoked, claim, value, "one that is not in the list of revocations")
}
