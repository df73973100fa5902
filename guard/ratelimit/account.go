package ratelimit

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/url"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxLook is how much of a body is looked through for an account.
const maxLook = 64 << 10

// ReadAccount finds the account that a request wants to get into: the field of that name in
// a JSON object (where dots in it lead into objects), in a form (urlencoded or multipart) or
// in the query, or else the user of Basic credentials. It returns "" if there is none.
//
// The account must be the one that the upstream will read, or a limit would count another.
// So it is an error if the request names one twice, be it under names that only some servers
// take for the same (in another case, name[], user.name for user_name), or if it cannot be
// read for certain: a body of another type, encoded, malformed, or longer than 64 KiB; a field
// that is no text. Such a request should not go on.
//
// The body is there again afterwards, byte for byte: what was read, and then the rest.
func ReadAccount(r *http.Request, field string) (string, error) {
	var found []string
	if lines := r.Header["Authorization"]; len(lines) > 0 {
		user, _, ok := r.BasicAuth()
		scheme, _, _ := strings.Cut(lines[0], " ")
		switch {
		case len(lines) > 1, !ok && strings.EqualFold(scheme, "Basic"):
			return "", errors.New("account: the Authorization header is malformed, or there are two")
		case ok:
			found = append(found, user)
		}
	}
	if field != "" {
		query, err := ofForm(r.URL.RawQuery, field)
		if err != nil {
			return "", fmt.Errorf("account: query: %w", err)
		}
		inBody, err := ofBody(r, field)
		if err != nil {
			return "", fmt.Errorf("account: body: %w", err)
		}
		found = append(append(found, query...), inBody...)
	}
	switch {
	case len(found) == 0:
		return "", nil
	case len(found) > 1:
		return "", errors.New("account: named in more than one place")
	case !utf8.ValidString(found[0]) || strings.ContainsFunc(found[0], unicode.IsControl):
		// Some servers end a text at a NUL.
		return "", errors.New("account: not UTF-8, or with control characters")
	}
	return found[0], nil
}

// look reads the body, and puts it back.
func look(r *http.Request) ([]byte, error) {
	if r.ContentLength > maxLook {
		return nil, errTooLong
	}
	var b bytes.Buffer
	_, err := b.ReadFrom(io.LimitReader(r.Body, maxLook+1))
	rest := io.Reader(r.Body)
	if err != nil {
		rest = failed{err} // the upstream is to see what we have seen
	}
	read := b.Bytes()
	r.Body = &restored{io.MultiReader(bytes.NewReader(read), rest), r.Body}
	switch {
	case err != nil:
		return nil, errors.New("it ends early")
	case len(read) > maxLook:
		return nil, errTooLong
	}
	return read, nil
}

var errTooLong = fmt.Errorf("longer than %d bytes", maxLook)

// restored is a body of which some has been read, and stands before the rest.
type restored struct {
	io.Reader
	io.Closer
}

// failed is the rest of a body that could not be read.
type failed struct{ err error }

func (f failed) Read([]byte) (int, error) { return 0, f.err }

// ofBody finds the field in the body.
func ofBody(r *http.Request, field string) ([]string, error) {
	if r.Body == nil || r.Body == http.NoBody {
		return nil, nil
	}
	body, err := look(r)
	if err != nil || len(body) == 0 {
		return nil, err
	}
	h := r.Header
	if len(h["Content-Type"]) != 1 || len(h["Content-Encoding"]) > 0 {
		return nil, errors.New("has not one Content-Type, or is encoded")
	}
	kind, params, err := mime.ParseMediaType(h["Content-Type"][0])
	charset := params["charset"]
	switch {
	case err != nil || strings.Contains(h["Content-Type"][0], "*") || charset != "" && !strings.EqualFold(charset, "utf-8"):
		return nil, errors.New("its Content-Type is malformed, or of another charset than UTF-8")
	case kind == "application/x-www-form-urlencoded":
		return ofForm(string(body), field)
	case kind == "multipart/form-data":
		return ofMultipart(body, params["boundary"], field)
	case kind == "application/json", strings.HasPrefix(kind, "application/") && strings.HasSuffix(kind, "+json"):
		return ofJSON(body, field)
	}
	return nil, errors.New("neither JSON nor a form")
}

// form names are written in more ways than one: PHP takes user.name and user[name for
// user_name, and ASP.NET looks at no case. What is left of a name is what all of them look at.
var sameInForms = strings.NewReplacer(".", "_", " ", "_", "[", "_")

// isField reports whether some server may take the name in a form for the field's. It is an
// error if it is that of an element, such as field[] or field[0].
func isField(name, field string) (bool, error) {
	plain, want := sameInForms.Replace(strings.TrimLeft(name, " ")), sameInForms.Replace(field)
	switch {
	case strings.ContainsFunc(name, unicode.IsControl):
		return false, errors.New("the form has a name with control characters")
	case strings.EqualFold(plain, want):
		return true, nil
	case len(plain) > len(want) && strings.EqualFold(plain[:len(want)], want) && strings.TrimLeft(name, " ")[len(want)] == '[':
		return false, errors.New("the field is a list or an object")
	}
	return false, nil
}

// ofForm finds the field in an urlencoded form.
func ofForm(form, field string) (found []string, err error) {
	values, err := url.ParseQuery(form)
	if err != nil {
		return nil, errors.New("the form is malformed")
	}
	for name, list := range values {
		ok, err := isField(name, field)
		if err != nil {
			return nil, err
		}
		if ok {
			found = append(found, list...)
		}
	}
	return found, nil
}

// ofMultipart finds the field in a form of many parts.
func ofMultipart(body []byte, boundary, field string) (found []string, err error) {
	malformed := errors.New("the form is malformed")
	if boundary == "" {
		return nil, malformed
	}
	for parts := multipart.NewReader(bytes.NewReader(body), boundary); ; {
		p, err := parts.NextRawPart()
		if errors.Is(err, io.EOF) {
			return found, nil
		}
		if err != nil || len(p.Header["Content-Disposition"]) != 1 || p.FormName() == "" {
			return nil, malformed
		}
		ok, err := isField(p.FormName(), field)
		if err != nil {
			return nil, err
		}
		if !ok {
			continue
		}
		// A file, or a part in an encoding of its own, is read by each server as it likes.
		value, err := io.ReadAll(p)
		if err != nil || p.FileName() != "" || p.Header["Content-Transfer-Encoding"] != nil {
			return nil, malformed
		}
		found = append(found, string(value))
	}
}

// ofJSON finds the field in an object.
func ofJSON(body []byte, field string) (found []string, err error) {
	if !utf8.Valid(body) || !json.Valid(body) {
		return nil, errors.New("not JSON in UTF-8")
	}
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.UseNumber()
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return nil, errors.New("not an object")
	}
	return ofObject(dec, strings.Split(field, "."))
}

// ofObject finds the field at a path below an object whose brace has been read. The names on
// the way are compared without case, as Go's own decoder does.
func ofObject(dec *json.Decoder, path []string) ([]string, error) {
	var found []string
	for dec.More() {
		name, err := dec.Token()
		if err != nil {
			return nil, err
		}
		if key, _ := name.(string); !strings.EqualFold(key, path[0]) {
			var other json.RawMessage
			if err = dec.Decode(&other); err != nil {
				return nil, err
			}
			continue
		}
		value, err := dec.Token()
		if err != nil {
			return nil, err
		}
		number, isNumber := value.(json.Number)
		text, isText := value.(string)
		switch {
		case value == nil: // as good as not there
		case value == json.Delim('{') && len(path) > 1:
			below, belowErr := ofObject(dec, path[1:])
			if belowErr != nil {
				return nil, belowErr
			}
			found = append(found, below...)
		case isNumber && len(path) == 1 && !strings.ContainsAny(number.String(), ".eE"):
			found = append(found, number.String())
		case isText && len(path) == 1:
			found = append(found, text)
		default:
			return nil, errors.New("the field is no text")
		}
	}
	_, err := dec.Token()
	return found, err
}
