package assertion

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/moat-gateway/moat/guard/identity"
)

// value is what a header says of a principal, or "" if there is no such thing.
func (s source) value(p *identity.Principal, room int) (string, error) {
	var w writer
	var err error
	switch s.what {
	case "sub":
		err = w.item(p.Subject())
	case "iss":
		err = w.item(p.Issuer())
	case "source":
		err = w.item(p.Source())
	case "method":
		err = w.item(p.Method().String())
	case "credential":
		err = w.item(p.Credential())
	case "id":
		err = w.item(id(p))
	case "scopes":
		err = w.list(p.Scopes())
	case "roles":
		err = w.list(p.Roles())
	case "claim":
		v, _ := p.Claim(s.path)
		err = w.claim(v)
	}
	if err == nil && w.Len() > room {
		err = fmt.Errorf("more than %d bytes would be said about the caller; name single claims", MaxBytes)
	}
	return w.String(), err
}

// id is the principal's ID, or "" for one who has no name: all of those would share it.
func id(p *identity.Principal) string {
	if p.Subject() == "" {
		return ""
	}
	return p.ID()
}

// writer makes a header's value: items with commas between, without blanks. A byte of an item
// that is not visible ASCII, and each of %+," is percent-encoded (RFC 3986 section 2.1), so
// that neither a line nor an item can end where it does not, and decoders of URLs read it back,
// those of forms too, who take + for a blank. The quote is for parsers of lists who know
// quoted strings.
type writer struct{ strings.Builder }

// list writes items. Empty ones are no values: parsers of lists skip them (RFC 9110 section 5.6.1).
func (w *writer) list(items []string) error {
	for _, s := range items {
		if err := w.item(s); err != nil {
			return err
		}
	}
	return nil
}

var (
	errUTF8   = errors.New("a value is not UTF-8")
	errNested = errors.New("a value holds an object or a list of lists, which a header cannot say; name a claim inside it, or carry it in the token")
)

func (w *writer) item(s string) error {
	switch {
	case s == "":
		return nil
	case len(s) > MaxBytes || w.Len() > MaxBytes:
		return fmt.Errorf("more than %d bytes would be said about the caller; name single claims", MaxBytes)
	case !utf8.ValidString(s):
		return errUTF8 // decoders replace what is wrong: two names could become one
	}
	if w.Len() > 0 {
		w.WriteByte(',')
	}
	const hex = "0123456789ABCDEF"
	for i := range len(s) {
		if c := s[i]; c > ' ' && c < 0x7f && c != '%' && c != ',' && c != '+' && c != '"' {
			w.WriteByte(c)
		} else {
			w.WriteByte('%')
			w.WriteByte(hex[c>>4])
			w.WriteByte(hex[c&15])
		}
	}
	return nil
}

// claim writes a JSON value: a text, a number, true or false, or a list of those.
func (w *writer) claim(v any) error {
	list, ok := v.([]any)
	if !ok {
		return w.scalar(v)
	}
	for _, v := range list {
		if err := w.scalar(v); err != nil {
			return err
		}
	}
	return nil
}

func (w *writer) scalar(v any) error {
	switch v := v.(type) {
	case nil:
		return nil
	case string:
		return w.item(v)
	case bool, int64, float64:
		text, err := json.Marshal(v)
		if err != nil {
			return err
		}
		return w.item(string(text))
	}
	return errNested
}
