package ticket

import (
	"crypto/sha256"
	"errors"
	"hash"
	"io"
)

// ErrBodyDiffers is the error of a body that is not the one that the proof covers.
var ErrBodyDiffers = errors.New("the body is not the one that the ticket's proof covers")

// bodyRoom is what is read ahead: a body up to here is checked before anybody else sees
// a byte of it.
const bodyRoom = 64 << 10

// Body lets a body through and holds its last byte back until the whole has the digest
// of the proof. So whoever reads it never gets the whole of another body, however large.
type Body struct {
	src    io.ReadCloser
	want   [sha256.Size]byte
	sum    hash.Hash
	buf    []byte
	r      int // handed out up to here
	safe   int // may be handed out up to here
	w      int // read up to here
	closed error
}

// NewBody wraps a body that has to have this SHA-256. Its length is not above 0 if it is not known.
func NewBody(src io.ReadCloser, length int64, digest [sha256.Size]byte) *Body {
	room := int64(bodyRoom)
	if length > 0 {
		room = min(room, length)
	}
	// One byte more: a body that fills the rest has not ended yet.
	return &Body{src: src, want: digest, sum: sha256.New(), buf: make([]byte, room+1)}
}

// Fill reads ahead as much as there is room for. Its error is ErrBodyDiffers, or that of
// the body itself; Read returns it too.
func (b *Body) Fill() error {
	for b.closed == nil && b.w < len(b.buf) {
		b.fill()
	}
	if errors.Is(b.closed, io.EOF) {
		return nil
	}
	return b.closed
}

// fill reads once. There is room.
func (b *Body) fill() {
	n, err := b.src.Read(b.buf[b.w:])
	b.sum.Write(b.buf[b.w : b.w+n])
	b.w += n
	switch {
	case errors.Is(err, io.EOF) && [sha256.Size]byte(b.sum.Sum(nil)) != b.want:
		b.closed = ErrBodyDiffers
	case errors.Is(err, io.EOF):
		b.safe, b.closed = b.w, io.EOF
	case err != nil:
		b.closed = err
	case n > 0:
		b.safe = b.w - 1
	}
}

// Read hands out what may be.
func (b *Body) Read(p []byte) (int, error) {
	for b.r == b.safe && b.closed == nil {
		b.w = copy(b.buf, b.buf[b.r:b.w])
		b.r, b.safe = 0, 0
		b.fill()
	}
	n := copy(p, b.buf[b.r:b.safe])
	b.r += n
	if b.r == b.safe && b.closed != nil {
		return n, b.closed
	}
	return n, nil
}

// Close closes the body.
func (b *Body) Close() error { return b.src.Close() }
