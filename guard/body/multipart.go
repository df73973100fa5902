package body

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"io"
	"mime"
	"net/http"
	"net/textproto"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/moat-gateway/moat/guard"
)

// Multipart bounds multipart/form-data (RFC 7578). Each 0 stands for the default.
type Multipart struct {
	// Parts is how many there may be; 32.
	Parts int
	// PartBytes is the largest part; 10 MiB. A part that is no file has 64 KiB at most.
	PartBytes int64
	// HeaderBytes is the largest head of a part; 1 KiB.
	HeaderBytes int
	// Types are the content types of parts that are accepted, such as image/png or image/*, by the
	// name of the field; under "" for all others. Without any each is.
	Types map[string][]string
	// AnyFileName accepts file names that are paths, or have control characters.
	AnyFileName bool
}

// maxField bounds a part that is no file. Those that a schema looks at are held in memory.
const maxField = 64 << 10

func (p Multipart) withDefaults() Multipart {
	if p.Parts == 0 {
		p.Parts = 32
	}
	if p.PartBytes == 0 {
		p.PartBytes = 10 << 20
	}
	if p.HeaderBytes == 0 {
		p.HeaderBytes = 1 << 10
	}
	return p
}

// validBoundary has no comma, at which some readers end a boundary.
func validBoundary(s string) bool {
	if s == "" || len(s) > 70 || s[len(s)-1] == ' ' {
		return false
	}
	return !strings.ContainsFunc(s, func(r rune) bool {
		return (r < '0' || r > '9') && (r|0x20 < 'a' || r|0x20 > 'z') && !strings.ContainsRune("'()+_-./:=? ", r)
	})
}

// BodyError is what reading a body returns that is refused while it passes.
type BodyError struct {
	// Faults are what a refusal tells the client.
	Faults   []Fault
	Decision guard.Decision
}

func (e *BodyError) Error() string {
	return e.Decision.Evidence.Where + ": " + cmp.Or(e.Decision.Evidence.Got, e.Decision.Evidence.Want)
}

// ahead is how much of a multipart body is judged before anybody else sees a byte of it.
const ahead = 64 << 10

// Stream is a multipart body that is judged while it passes. Whoever reads it gets no byte that
// has not been judged, and never the end of a body that is refused.
type Stream struct {
	src    io.ReadCloser
	ctx    context.Context //nolint:containedctx // that of the request, of which this is the body.
	g      *Guard
	c      *Content
	report func(*BodyError)

	buf        []byte
	from, safe int // may be handed out
	at         int // judged up to here
	err        error

	mark   []byte // CRLF, two hyphens and the boundary
	state  partState
	parts  int
	head   int // where the head of the part begins
	size   int64
	file   bool
	noName bool // of a file: nothing was chosen, and there is nothing in it
	field  string
	value  []byte
	fields []pair
	text   int // bytes of the fields

	// Hold, if set, is asked for room for text that is kept until the form is whole.
	Hold func(bytes int) bool
}

type partState uint8

const (
	beforeFirst partState = iota
	afterMark
	inHead
	inPart
	afterLast
)

// Multipart returns the body, judged while it passes. With report nothing is held back, and report
// is told once what would have ended it.
func (g *Guard) Multipart(ctx context.Context, m *Match, src io.ReadCloser, report func(*BodyError)) *Stream {
	return &Stream{
		src: src, ctx: ctx, g: g, c: m.Content, report: report, mark: []byte("\r\n--" + m.Boundary), buf: make([]byte, 0, 8<<10),
	}
}

// Fill reads ahead and judges what there is room for. Its error is a *BodyError, or that of the
// body itself.
func (s *Stream) Fill() error {
	for s.err == nil && len(s.buf) < ahead {
		s.fill()
	}
	if errors.Is(s.err, io.EOF) {
		return nil
	}
	return s.err
}

// Read implements io.Reader.
func (s *Stream) Read(p []byte) (int, error) {
	for s.from == s.safe && s.err == nil {
		s.fill()
	}
	n := copy(p, s.buf[s.from:s.safe])
	s.from += n
	if s.from == s.safe && s.err != nil {
		return n, s.err
	}
	return n, nil
}

// Close implements io.Closer.
func (s *Stream) Close() error { return s.src.Close() }

// fill reads once more, and judges it.
func (s *Stream) fill() {
	if s.from > 0 && s.from == s.safe {
		// With report more has been handed out than judged.
		drop := min(s.from, s.at)
		switch s.state { //nolint:exhaustive // the others begin at s.at.
		case inHead:
			drop = min(drop, s.head)
		case reported:
			drop = s.from
		}
		s.buf = append(s.buf[:0], s.buf[drop:]...)
		s.at, s.head, s.from, s.safe = s.at-drop, s.head-drop, s.from-drop, s.safe-drop
	}
	s.buf = slices.Grow(s.buf, 4<<10)
	n, err := s.src.Read(s.buf[len(s.buf):cap(s.buf)])
	s.buf = s.buf[:len(s.buf)+n]
	if s.report == nil || s.state != reported {
		if e := s.judge(errors.Is(err, io.EOF)); e != nil {
			if s.report == nil {
				s.err = e
				return
			}
			s.report(e)
			s.state, s.value, s.fields = reported, nil, nil
		}
	}
	if s.report != nil || errors.Is(err, io.EOF) {
		s.safe = len(s.buf)
	}
	s.err = err
}

// reported is the state of a body that is only reported, and has been.
const reported partState = 255

func (s *Stream) deny(reason guard.Reason, f Fault) *BodyError {
	return &BodyError{[]Fault{f}, f.denial(reason)}
}

func (s *Stream) malformed(detail string) *BodyError {
	f := Fault{Pointer: "#", Detail: detail}
	if s.field != "" {
		f.Pointer = pointerTo([]string{s.field})
	}
	return s.deny(guard.BodyMalformed, f)
}

// judge goes as far as the bytes that are there allow. What has been judged may be handed out, but
// the last boundary only when the whole is good.
func (s *Stream) judge(end bool) *BodyError {
	for {
		rest := s.buf[s.at:]
		switch s.state { //nolint:exhaustive // nothing is judged when it has been reported.
		case beforeFirst:
			// RFC 2046 lets text stand before the first boundary; no client sends any, and parsers
			// differ about it.
			first := s.mark[2:]
			if len(rest) < len(first) && !end {
				return nil
			}
			if !bytes.HasPrefix(rest, first) {
				return s.malformed("does not begin with its boundary")
			}
			s.at += len(first)
			s.state = afterMark
		case afterMark:
			if len(rest) < 2 && !end {
				return nil
			}
			switch {
			case bytes.HasPrefix(rest, []byte("\r\n")):
				s.safe, s.at = s.at+2, s.at+2
				s.head, s.state, s.field = s.at, inHead, ""
				if s.parts++; s.parts > s.g.p.Multipart.Parts {
					return s.malformed("more than " + itoa(s.g.p.Multipart.Parts) + " parts")
				}
			case bytes.HasPrefix(rest, []byte("--")):
				s.at += 2
				s.state = afterLast
			default:
				return s.malformed("a boundary has something behind it")
			}
		case inHead:
			i := bytes.Index(s.buf[s.head:], []byte("\r\n\r\n"))
			if i > s.g.p.Multipart.HeaderBytes || i < 0 && len(s.buf)-s.head > s.g.p.Multipart.HeaderBytes {
				return s.malformed("the head of a part is larger than " + itoa(s.g.p.Multipart.HeaderBytes) + " bytes")
			}
			if i < 0 {
				if end {
					return s.malformed("ends too early")
				}
				return nil
			}
			if e := s.partHead(s.buf[s.head : s.head+i]); e != nil {
				return e
			}
			// The mark may begin with the end of the head: a part can be empty.
			s.at = s.head + i + 2
			s.size, s.value, s.state = -2, nil, inPart
			if e := s.content(end); e != nil {
				return e
			}
			if s.state == inPart {
				return nil
			}
		case inPart:
			if e := s.content(end); e != nil {
				return e
			}
			if s.state == inPart {
				return nil
			}
		case afterLast:
			if tail := string(rest); tail != "" && tail != "\r\n" && (tail != "\r" || end) {
				return s.malformed("something stands behind the end")
			}
			if !end {
				return nil
			}
			return s.whole()
		default:
			return nil
		}
	}
}

// content takes what belongs to the part, up to the next boundary or what could be its beginning.
func (s *Stream) content(end bool) *BodyError {
	rest := s.buf[s.at:]
	i := bytes.Index(rest, s.mark)
	take := i
	if i < 0 {
		if end {
			return s.malformed("ends too early")
		}
		take = max(0, len(rest)-len(s.mark)+1)
	}
	// Some end a line with LF or CR alone, and would see another part there.
	for _, bare := range [...]string{"\n", "\r"} {
		if j := bytes.Index(rest, append([]byte(bare), s.mark[2:]...)); j >= 0 && (i < 0 || j < i) {
			return s.malformed("a boundary is not on a line of its own")
		}
	}
	s.size += int64(take)
	if s.noName && s.size > 0 {
		return s.malformed("the file's name is not plain") // some read it as a field
	}
	limit := s.g.p.Multipart.PartBytes
	if !s.file {
		limit = min(limit, maxField)
		if s.Hold != nil && !s.Hold(take) {
			return s.deny(guard.BodyNoRoom, Fault{Pointer: "#", Detail: "no room"})
		}
		s.value = append(s.value, rest[:take]...)
	}
	if s.size > limit {
		f := Fault{Pointer: pointerTo([]string{s.field}), Detail: "larger than " + itoa(int(limit)) + " bytes"}
		return s.deny(guard.BodyTooLarge, f)
	}
	s.at += take
	s.safe = s.at
	if i < 0 {
		return nil
	}
	s.at += len(s.mark)
	s.state = afterMark
	if s.file {
		return nil
	}
	value := s.value[min(2, len(s.value)):]                                                         // the end of the head
	if !utf8.Valid(value) || s.field == "_charset_" && !strings.EqualFold(string(value), "utf-8") { // RFC 7578 section 4.6
		return s.malformed("the field is not UTF-8")
	}
	if s.c.schema != nil {
		s.keep(string(value))
	}
	return nil
}

// keep remembers a field. What its text stands for may take much more memory, and is made when all are judged.
func (s *Stream) keep(value string) {
	s.fields = append(s.fields, pair{s.field, value})
	s.text += len(value)
	s.value = nil
}

// partHead judges the head of a part.
func (s *Stream) partHead(head []byte) *BodyError {
	var disposition, partType string
	for line := range strings.SplitSeq(string(head), "\r\n") {
		name, value, ok := strings.Cut(line, ":")
		if !ok || name == "" || strings.ContainsAny(name, " \t") || strings.ContainsAny(line, "\r\n\x00") {
			return s.malformed("the head of a part is malformed")
		}
		value = strings.Trim(value, " \t")
		switch textproto.CanonicalMIMEHeaderKey(name) {
		case "Content-Disposition":
			if disposition != "" {
				return s.malformed("a part has two Content-Disposition")
			}
			disposition = value
		case "Content-Type":
			if partType != "" {
				return s.malformed("a part has two Content-Type")
			}
			partType = value
		case "Content-Transfer-Encoding":
			if v := strings.ToLower(value); v != "binary" && v != "8bit" && v != "7bit" {
				return s.malformed("a part is encoded (RFC 7578 section 4.7)")
			}
		}
	}
	kind, params, err := mime.ParseMediaType(disposition)
	if err != nil || kind != "form-data" || params["name"] == "" || !utf8.ValidString(params["name"]) || strings.Contains(strings.ToLower(disposition), "name*") || strings.Contains(disposition, `\"`) {
		// Where a backslash is no escape, what stands behind \" is another parameter. Browsers write %22.
		return s.malformed("a part is not form-data with a name")
	}
	s.field = cut(params["name"])
	fileName, isFile := params["filename"]
	s.file, s.noName = isFile, isFile && fileName == ""
	if isFile && !s.noName && !s.g.p.Multipart.AnyFileName && !plainFileName(fileName) {
		return s.malformed("the file's name is not plain")
	}
	if e := s.partType(partType); e != nil {
		return e
	}
	if isFile && s.c.schema != nil {
		s.keep("")
	}
	return nil
}

func (s *Stream) partType(text string) *BodyError {
	mediaType := "text/plain"
	if s.file {
		mediaType = "application/octet-stream"
	}
	if text != "" {
		var err error
		var params map[string]string
		if mediaType, params, err = mime.ParseMediaType(text); err != nil || !plain(text, params) {
			return s.malformed("the part's Content-Type is malformed")
		}
		if mediaType == "multipart/mixed" { // some look for parts in it
			return s.malformed("a part has parts (RFC 7578 section 4.3)")
		}
		if c := params["charset"]; !s.file && c != "" && !strings.EqualFold(c, "utf-8") && !strings.EqualFold(c, "us-ascii") {
			return s.malformed("a field is not UTF-8, as its Content-Type says")
		}
	}
	accepted := s.c.partTypes[s.field]
	if accepted == nil {
		accepted = s.g.p.Multipart.Types[s.field]
	}
	if accepted == nil && s.file {
		accepted = s.g.p.Multipart.Types[""]
	}
	group, _, _ := strings.Cut(mediaType, "/")
	if s.noName || accepted == nil || slices.Contains(accepted, mediaType) || slices.Contains(accepted, group+"/*") || slices.Contains(accepted, "*/*") {
		return nil
	}
	return s.deny(guard.BodyTypeNotAllowed, Fault{Pointer: pointerTo([]string{s.field}), Detail: "the part's content type is not accepted"})
}

// plainFileName refuses names that are more than that to some file system.
func plainFileName(name string) bool {
	return name != "." && name != ".." && len(name) <= 255 && utf8.ValidString(name) &&
		!strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f || strings.ContainsRune(`/\:*?"<>|`, r) })
}

// whole judges the fields together, when there are no more.
func (s *Stream) whole() *BodyError {
	if s.c.schema == nil {
		return nil
	}
	var malformed *Fault
	faults, err := s.c.schema.evaluate(s.ctx, s.text, func() any {
		form := make(map[string]any)
		for _, f := range s.fields {
			if malformed = s.c.add(form, f.name, f.value); malformed != nil {
				break
			}
		}
		return form
	})
	if malformed != nil {
		return s.deny(guard.BodyMalformed, *malformed)
	}
	if err != nil {
		return &BodyError{nil, guard.Denial(guard.RequestAborted, "body", "", "a client that waits")}
	}
	if len(faults) == 0 {
		return nil
	}
	_, d, _ := refused(guard.BodyInvalid, faults)
	return &BodyError{faults, d}
}

// read reads and judges the body of a request, and puts it back.
func (g *Guard) read(r *http.Request, m *Match) guard.Decision {
	if g.Streamed(m.Content) {
		s := g.Multipart(r.Context(), m, r.Body, nil)
		r.Body = s
		if e, ok := errors.AsType[*BodyError](s.Fill()); ok {
			m.Faults = e.Faults
			return e.Decision
		}
		return guard.Decision{}
	}
	limit, whole := g.Whole(m.Content)
	if !whole {
		return guard.Decision{}
	}
	text, err := io.ReadAll(io.LimitReader(r.Body, limit+1))
	switch {
	case err != nil:
		return guard.Denial(guard.RequestAborted, "body", "", "a whole body")
	case int64(len(text)) > limit:
		return guard.Denial(guard.BodyTooLarge, "body", "more", "at most "+itoa(int(limit))+" bytes")
	}
	faults, d, err := g.Body(r.Context(), m, text)
	if err != nil {
		return guard.Denial(guard.RequestAborted, "body", "", "a client that waits")
	}
	m.Faults = faults
	r.Body = io.NopCloser(bytes.NewReader(text))
	return d
}
