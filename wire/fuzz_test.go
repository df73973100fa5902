package wire

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/moat-gateway/moat/guard"
)

// seeds are streams that take the scanner through each of its phases.
var seeds = []string{
	"GET / HTTP/1.1\r\nHost: h\r\n\r\n",
	"\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabcGET / HTTP/1.1\r\nHost: h\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3;x\r\nabc\r\n0\r\nT: u\r\n\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\nGET / HTTP/1.1\r\nHost: h\nX",
	"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\nabc\r\n0\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nT: u\r\n v\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nT: u\x03v\r\nX: y\r\n\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n",
	"POST / HTTP/1.0\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\n",
	"GET / HTTP/1.1\r\nHost: h\r\nX: y\r\n z\r\n\r\n",
	"GET / HTTP/1.1\r\nHost : h\r\n\r\n",
	"GET / HTTP/1.1\r\nHost: h\r\nX: y\rz\r\n\r\n",
	"GET / HTTP/1.1\r\nHost: h\r\nUpgrade: x\r\n\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n\x00",
	"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nUpgrade: x\r\n\r\nContent-Length",
	"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nUpgrade: x\r\n\r\n0\r\nT: " + strings.Repeat("u", 600) + "\r\n\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n",
	"GET / HTTP/1.1\r\nHost: h\r\nX: " + strings.Repeat("y", 300) + "\r\n\r\n",
	"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\n\x00",
	"PRI * HTTP/2.0\r\n\r\nGET / HTTP/1.1\r\nHost: h\n\n",
	"CONNECT h:1 HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\nxHEAD / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\nx",
}

// words are what random bytes hardly ever spell.
var words = []string{
	"\r\n", "\r\n\r\n", "\n", "\r", " ", "\t", "\x00", ":", ",", ";", "0", "1", "3", "a",
	"GET / HTTP/1.1\r\n", "POST /x HTTP/1.1\r\n", "PUT / HTTP/1.0\r\n", "HEAD / HTTP/1.2\r\n", "CONNECT h:1 HTTP/1.1\r\n",
	"Host: h\r\n", "Host: i\r\n", "X: y\r\n", "Upgrade: x\r\n", "Connection: close\r\n", "Expect: 100-continue\r\n", "Trailer: T\r\n",
	"Content-Length: 3\r\n", "Content-Length: 0\r\n", "content-length:5 \r\n", "Content-Length", "Content-Length: 3, 3\r\n",
	"Transfer-Encoding: chunked\r\n", "TRANSFER-ENCODING:\tChunked\r\n", "Transfer-Encoding", "chunked", "identity",
	"3\r\nabc\r\n", "1;x=y\r\na\r\n", "0\r\n\r\n", "0\r\n", "0;x\r\nT: u\r\n\r\n", "00\r\nT: u\r\n", "ffffffffffffffff\r\n",
	"GET / HTTP/1.1\r\nHost: h\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc",
	"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n",
	preface, "PRI * HTTP/2.0\r\n",
}

// spell reads data as a text in those words, if it is to.
func spell(data []byte, spelled bool) []byte {
	if !spelled {
		return data
	}
	var b []byte
	for _, c := range data[:min(len(data), 200)] {
		if int(c) < 4*len(words) {
			b = append(b, words[int(c)%len(words)]...)
		} else {
			b = append(b, c)
		}
	}
	return b
}

func addSeeds(f *testing.F) {
	f.Helper()
	for i, s := range seeds {
		f.Add([]byte(s), false, uint64(i))
	}
	rnd := rand.New(rand.NewPCG(1, 1))
	for i := range 200 {
		text := make([]byte, 1+rnd.IntN(20))
		for j := range text {
			text[j] = byte(rnd.IntN(len(words)))
		}
		f.Add(text, true, uint64(i))
	}
}

// cuts is a connection that delivers a stream in pieces of random length, with a
// timeout here and there.
type cuts struct {
	net.Conn
	data []byte
	rnd  *rand.Rand // nil: all at once
}

func (c *cuts) Read(p []byte) (int, error) {
	if len(c.data) == 0 {
		return 0, io.EOF
	}
	n := min(len(p), len(c.data))
	if c.rnd != nil {
		if c.rnd.IntN(8) == 0 {
			return 0, os.ErrDeadlineExceeded
		}
		if c.rnd.IntN(2) == 0 {
			n = min(n, 3)
		}
		n = 1 + c.rnd.IntN(n)
	}
	copy(p, c.data[:n])
	c.data = c.data[n:]
	return n, nil
}

func (c *cuts) SetReadDeadline(time.Time) error { return nil }

// drain reads all that a scanned connection delivers, and how it ends.
func drain(data []byte, rnd *rand.Rand) (delivered []byte, end error) {
	c := newPlain(&cuts{data: data, rnd: rnd}, nil, &Options{HeaderBytes: minHeaderBytes})
	for {
		p := make([]byte, 8<<10)
		if rnd != nil {
			p = p[:2+rnd.IntN(40)] // a single byte would be net/http's watch
			if rnd.IntN(8) == 0 {
				p = p[:1]
			}
		}
		n, err := c.Read(p)
		delivered = append(delivered, p[:n]...)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
		case err != nil && len(p) == 1 && c.scan.undecided():
			// The watch saw the client leave, or too much to hold. It does not judge.
		case err != nil:
			return delivered, err
		}
	}
}

// FuzzCuts: neither the verdict nor the bytes delivered depend on how a stream
// is cut into segments, how it is read, or how often reads time out.
func FuzzCuts(f *testing.F) {
	addSeeds(f)
	f.Fuzz(func(t *testing.T, data []byte, spelled bool, seed uint64) {
		data = spell(data, spelled)
		want, wantEnd := drain(data, nil)
		for i := range uint64(4) {
			got, end := drain(data, rand.New(rand.NewPCG(seed, i)))
			if !bytes.Equal(got, want) || fmt.Sprint(end) != fmt.Sprint(wantEnd) {
				t.Fatalf("%q\nat once delivers %q, %v\nin pieces      %q, %v", data, want, wantEnd, got, end)
			}
		}
	})
}

// bounds returns where the messages that the scanner passes end, with what it
// found their framing to be: a length, or -1 for chunked.
func bounds(data []byte) (stream []byte, ends []int, lengths []int64) {
	s := scanner{max: 1 << 10}
	start, length := 0, int64(0)
	for i := 1; i <= len(data); i++ {
		s.upgrade = false
		before := s.phase
		n, why := s.scan(data[start:i])
		if why != guard.OK {
			break
		}
		if n == 0 && s.dropEmptyLine(data[start:i]) {
			start = i
			continue
		}
		stream = append(stream, data[start:start+n]...)
		start += n
		if before == inHead && n > 0 {
			length = 0
			switch s.phase {
			case inLength:
				length = s.left
			case inChunkSize:
				length = -1
			case inHead, inChunkExtension, inChunkLF, inChunkData, inChunkDataCR, inChunkDataLF, inTrailer, passed:
			}
		}
		if n > 0 && s.phase == inHead {
			ends = append(ends, len(stream))
			lengths = append(lengths, length)
		}
	}
	return stream, ends, lengths
}

// FuzzAgreement: where the scanner sees a message end, net/http sees it end too,
// unless net/http refuses its head.
func FuzzAgreement(f *testing.F) {
	addSeeds(f)
	f.Fuzz(func(t *testing.T, data []byte, spelled bool, _ uint64) {
		data = spell(data, spelled)
		stream, ends, lengths := bounds(data)
		src := bytes.NewReader(stream)
		br := bufio.NewReader(src)
		for i, end := range ends {
			req, err := http.ReadRequest(br)
			if err != nil {
				return // refused: net/http's server ends the connection here
			}
			if req.Method == "PRI" {
				return // so it does here
			}
			got := req.ContentLength
			if len(req.TransferEncoding) > 0 {
				got = -1
			}
			if got != lengths[i] {
				t.Fatalf("%q\nmessage %d: net/http has length %d, the scanner %d", stream, i, got, lengths[i])
			}
			if _, err = io.Copy(io.Discard, req.Body); err != nil {
				if !badTrailer(err) {
					t.Fatalf("%q\nmessage %d: net/http refuses a body that was passed: %v", stream, i, err)
				}
				return
			}
			if at := len(stream) - src.Len() - br.Buffered(); at != end {
				t.Fatalf("%q\nmessage %d: net/http ends it at %d, the scanner at %d", stream, i, at, end)
			}
		}
	})
}

// badTrailer reports whether net/http objects to a value in a trailer. It reads nothing
// of the connection after that value.
func badTrailer(err error) bool {
	return strings.Contains(err.Error(), "malformed MIME header line")
}

func TestEveryByteOfAStreamMayComeAlone(t *testing.T) {
	for _, s := range seeds {
		want, wantEnd := drain([]byte(s), nil)
		c := newPlain(&oneByOne{Reader: iotest.OneByteReader(strings.NewReader(s))}, nil, &Options{HeaderBytes: minHeaderBytes})
		got, end := io.ReadAll(struct{ io.Reader }{c})
		if wantEnd == io.EOF { //nolint:errorlint // what ReadAll swallows is exactly this
			wantEnd = nil
		}
		if !bytes.Equal(got, want) || fmt.Sprint(end) != fmt.Sprint(wantEnd) {
			t.Errorf("%q\nat once delivers %q, %v\nbyte by byte   %q, %v", s, want, wantEnd, got, end)
		}
	}
}

type oneByOne struct {
	net.Conn
	io.Reader
}

func (c *oneByOne) Read(p []byte) (int, error) { return c.Reader.Read(p) }
