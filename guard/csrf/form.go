package csrf

import (
	"bytes"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/url"
	"strings"
)

const (
	// formRoom is how much of a form is looked at.
	formRoom = 64 << 10
	// maxFields is the bound of net/url. Parts, which are dear to read, are looked at up to maxParts.
	maxFields = 10000
	maxParts  = 100
)

// inForm returns the values of the form's field, as far as they are in the first 64 KiB
// and the first 100 parts. Forms are read as net/http reads them.
func (g *Guard) inForm(r *http.Request) []string {
	types := r.Header["Content-Type"]
	if r.Body == nil || r.Body == http.NoBody || len(types) != 1 {
		return nil
	}
	media, params, _ := mime.ParseMediaType(types[0]) // a form is one, whatever follows its name; so net/http
	switch media {
	case "application/x-www-form-urlencoded":
		return urlencoded(head(r), g.field)
	case "multipart/form-data":
		if params["boundary"] != "" {
			return inParts(head(r), params["boundary"], g.field)
		}
	}
	return nil
}

// head reads the body's head and puts it back. It reads one byte more than there is room
// for, to tell whether the head is all.
func head(r *http.Request) []byte {
	b, err := io.ReadAll(io.LimitReader(r.Body, formRoom+1))
	r.Body = &body{bytes.NewReader(b), err, r.Body}
	return b
}

// body is a request's body with its head put back.
type body struct {
	head *bytes.Reader
	err  error // that reading the head ended with, if not at the body's end
	io.ReadCloser
}

// Read implements io.Reader.
func (b *body) Read(p []byte) (int, error) {
	if b.head.Len() > 0 {
		return b.head.Read(p)
	}
	if b.err != nil {
		return 0, b.err
	}
	return b.ReadCloser.Read(p)
}

// urlencoded returns the values of a field in the head of a form.
func urlencoded(head []byte, field string) (values []string) {
	if len(head) > formRoom {
		head = head[:bytes.LastIndexByte(head, '&')+1] // the last pair may go on
	}
	if bytes.Count(head, []byte("&")) >= maxFields {
		return nil
	}
	for pair := range strings.SplitSeq(string(head), "&") {
		if strings.Contains(pair, ";") {
			continue
		}
		name, value, _ := strings.Cut(pair, "=")
		name, err := url.QueryUnescape(name)
		if err != nil || name != field {
			continue
		}
		if value, err = url.QueryUnescape(value); err == nil {
			values = append(values, value)
		}
	}
	return values
}

// inParts returns the values of a field in the head of a multipart form: those of parts that
// have ended there.
func inParts(head []byte, boundary, field string) (values []string) {
	parts := multipart.NewReader(bytes.NewReader(head), boundary)
	for range maxParts {
		p, err := parts.NextPart()
		if err != nil {
			return values
		}
		if p.FormName() != field || p.FileName() != "" {
			continue
		}
		value, err := io.ReadAll(p)
		if err != nil {
			return values
		}
		values = append(values, string(value))
	}
	return values
}
