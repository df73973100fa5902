package wire_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/moat-gateway/moat/guard"
	"github.com/moat-gateway/moat/wire"
)

const smuggled = "GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n"

// badHeads are heads that parsers are known to frame in different ways, or that
// hide such a line from some of them. Each is followed by what would be the
// smuggled request.
var badHeads = []struct {
	name string
	head string
	want guard.Reason
}{
	{"CL.TE", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", guard.FramingLengthConflict},
	{"TE.CL", "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n", guard.FramingLengthConflict},
	{"CL 0 and TE", "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n0\r\n\r\n", guard.FramingLengthConflict},

	{"two CL, equal", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\nContent-Length: 0\r\n\r\n", guard.FramingDuplicateLength},
	{"two CL, different", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\ncontent-length: 36\r\n\r\n", guard.FramingDuplicateLength},

	{"CL list", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0, 0\r\n\r\n", guard.FramingLength},
	{"CL signed", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: +0\r\n\r\n", guard.FramingLength},
	{"CL negative", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: -1\r\n\r\n", guard.FramingLength},
	{"CL empty", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length:\r\n\r\n", guard.FramingLength},
	{"CL hex", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0x0\r\n\r\n", guard.FramingLength},
	{"CL with a blank inside", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0 0\r\n\r\n", guard.FramingLength},
	{"CL with a vertical tab", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: \v0\r\n\r\n", guard.FramingLength},
	{"CL of 2^63", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 9223372036854775808\r\n\r\n", guard.FramingLength},
	{"CL of 2^64", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 18446744073709551616\r\n\r\n", guard.FramingLength},

	{"TE twice", "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", guard.FramingTransferEncoding},
	{"TE list", "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", guard.FramingTransferEncoding},
	{"TE twice in one", "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", guard.FramingTransferEncoding},
	{"TE identity", "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: identity\r\n\r\n", guard.FramingTransferEncoding},
	{"TE xchunked", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\nTransfer-Encoding: xchunked\r\n\r\n", guard.FramingTransferEncoding},
	{"TE quoted", "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: \"chunked\"\r\n\r\n", guard.FramingTransferEncoding},
	{"TE with a vertical tab", "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: \vchunked\r\n\r\n", guard.FramingTransferEncoding},
	{"TE with a form feed behind", "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\f\r\n\r\n", guard.FramingTransferEncoding},
	{"TE with a Kelvin sign", "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chun\u212aed\r\n\r\n", guard.FramingTransferEncoding},
	{"TE empty", "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding:\r\n\r\n", guard.FramingTransferEncoding},
	{"TE in HTTP/1.0", "POST / HTTP/1.0\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", guard.FramingTransferEncoding},
	{"TE in HTTP/1.2", "POST / HTTP/1.2\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", guard.FramingTransferEncoding},

	{"folded TE", "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding:\r\n chunked\r\n\r\n", guard.FramingTransferEncoding},
	{"folded value", "GET / HTTP/1.1\r\nHost: h\r\nX: a\r\n b\r\n\r\n", guard.FramingFoldedHeader},
	{"folded with a tab", "GET / HTTP/1.1\r\nHost: h\r\nX: a\r\n\tContent-Length: 36\r\n\r\n", guard.FramingFoldedHeader},
	{"blank before the first header", "GET / HTTP/1.1\r\n Host: h\r\n\r\n", guard.FramingFoldedHeader},

	{"bare LF everywhere", "GET / HTTP/1.1\nHost: h\n\n", guard.FramingLineEnd},
	{"bare LF after a header", "GET / HTTP/1.1\r\nHost: h\nX: y\r\n\r\n", guard.FramingLineEnd},
	{"bare LF for an empty line", "GET / HTTP/1.1\r\nHost: h\r\n\n", guard.FramingLineEnd},
	{"bare CR in a value", "GET / HTTP/1.1\r\nHost: h\r\nX: a\rContent-Length: 36\r\n\r\n", guard.FramingLineEnd},
	{"bare CR in the request line", "GET /\r HTTP/1.1\r\nHost: h\r\n\r\n", guard.FramingLineEnd},
	{"CR CR LF", "GET / HTTP/1.1\r\nHost: h\r\nX: a\r\r\n\r\n", guard.FramingLineEnd},
	{"bare CR before the request line", "\rGET / HTTP/1.1\r\nHost: h\r\n\r\n", guard.FramingLineEnd},
	{"NUL in a value", "GET / HTTP/1.1\r\nHost: h\r\nX: a\x00b\r\n\r\n", guard.FramingLineEnd},
	{"two empty lines before the request line", "\r\n\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n", guard.FramingLineEnd},

	{"blank before the colon", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length : 36\r\n\r\n", guard.FramingHeaderName},
	{"tab before the colon", "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding\t: chunked\r\n\r\n", guard.FramingHeaderName},
	{"no colon", "GET / HTTP/1.1\r\nHost: h\r\nX\r\n\r\n", guard.FramingHeaderName},
	{"empty name", "GET / HTTP/1.1\r\nHost: h\r\n: x\r\n\r\n", guard.FramingHeaderName},
	{"control in the name", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length\v: 36\r\n\r\n", guard.FramingHeaderName},
	{"NUL in the name", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length\x00: 36\r\n\r\n", guard.FramingHeaderName},
	{"not ASCII in the name", "POST / HTTP/1.1\r\nHost: h\r\nContent\u2010Length: 36\r\n\r\n", guard.FramingHeaderName},

	{"long value", "GET / HTTP/1.1\r\nHost: h\r\nX: " + strings.Repeat("x", 5000) + "\r\n\r\n", guard.FramingHeadSize},
	{"long target", "GET /" + strings.Repeat("x", 5000) + " HTTP/1.1\r\nHost: h\r\n\r\n", guard.FramingHeadSize},
	{"many headers", "GET / HTTP/1.1\r\nHost: h\r\n" + strings.Repeat("X: y\r\n", 700) + "\r\n", guard.FramingHeadSize},
	{"no end of line at all", strings.Repeat("x", 5000), guard.FramingHeadSize},
}

var smallHeads = option(func(o *wire.Options) { o.HeaderBytes = 4 << 10 })

func TestBadHeadIsRefusedAndNothingBehindItRuns(t *testing.T) {
	for _, c := range badHeads {
		t.Run(c.name, func(t *testing.T) {
			s := serve(t, echo, smallHeads)
			s.dial().send(c.head + smuggled).wantRefused(c.want)
			s.wantSeen()
		})
	}
}

func TestBadHeadIsRefusedWhenItComesByteByByte(t *testing.T) {
	for _, c := range badHeads {
		if c.want == guard.FramingHeadSize {
			continue // thousands of segments, and no other code than the sixty above
		}
		t.Run(c.name, func(t *testing.T) {
			s := serve(t, echo, smallHeads)
			s.dial().dribble(c.head).wantRefused(c.want)
			s.wantSeen()
		})
	}
}

func TestBadHeadIsRefusedInItsTurnAmongPipelinedRequests(t *testing.T) {
	for _, c := range badHeads {
		t.Run(c.name, func(t *testing.T) {
			s := serve(t, echo, smallHeads)
			conn := s.dial().send("POST /one HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nhi" +
				"POST /two HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n" + c.head + smuggled)
			conn.want(200, "POST /one [hi]")
			conn.want(200, "POST /two [abc]")
			conn.wantRefused(c.want)
			s.wantSeen("POST /one", "POST /two")
		})
	}
}

// While a handler runs, net/http reads one byte ahead.
func TestBadHeadThatArrivesWhileAHandlerRunsIsRefusedAfterIt(t *testing.T) {
	entered, finish := make(chan bool), make(chan bool)
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		entered <- true
		<-finish
		if err := r.Context().Err(); err != nil {
			t.Errorf("the running request was cancelled: %v", err)
		}
		echo(w, r)
	})
	c := s.dial().send("GET /slow HTTP/1.1\r\nHost: h\r\n\r\n")
	<-entered
	c.send("GET / HTTP/1.1\r\nHost: h\r\nContent-Length: x\r\n\r\n")
	time.Sleep(20 * time.Millisecond) // likely, though not certainly, read by now
	finish <- true
	c.want(200, "GET /slow []")
	c.wantRefused(guard.FramingLength)
	s.wantSeen("GET /slow")
}

func TestRefusalHasItsOwnContext(t *testing.T) {
	s := serve(t, echo)
	inner := s.server.Handler
	s.server.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(20 * time.Millisecond)
		if err := r.Context().Err(); err != nil {
			t.Errorf("a refusal was cancelled although its client is there: %v", err)
		}
		inner.ServeHTTP(w, r)
	})
	s.dial().send("GET / HTTP/1.1\nHost: h\n\n").wantRefused(guard.FramingLineEnd)
}

func TestRefusalArrivesAlthoughTheClientIsStillSending(t *testing.T) {
	s := serve(t, echo)
	c := s.dial().send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 600000\r\nContent-Length: 600000\r\n\r\n")
	c.send(strings.Repeat("x", 600000))
	c.wantRefused(guard.FramingDuplicateLength)
	s.wantSeen()
}

func TestRefusalCarriesASaneHostOnly(t *testing.T) {
	for _, c := range []struct{ host, want string }{
		{"Host: api.example:8080\r\n", "api.example:8080"},
		{"Host:   [::1]:80 \t\r\n", "[::1]:80"},
		{"hOST:api.example\r\n", "api.example"},
		{"Host: a\r\nHost: b\r\n", ""},
		{"Host: a b\r\n", ""},
		{"Host: a/b\r\n", ""},
		{"Host: " + strings.Repeat("a", 300) + "\r\n", ""},
		{"", ""},
	} {
		s := serve(t, echo)
		res := s.dial().send("GET / HTTP/1.1\r\n" + c.host + "X\r\n\r\n").wantRefused(guard.FramingHeaderName)
		if got := res.Header.Get("Refused-Host"); got != c.want {
			t.Errorf("%q gave host %q, want %q", c.host, got, c.want)
		}
	}
}

func TestGoodHeadsPass(t *testing.T) {
	for _, c := range []struct{ name, head, want string }{
		{"plain", "GET /a HTTP/1.1\r\nHost: h\r\n\r\n", "GET /a []"},
		{"HTTP/1.0", "GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", "GET /a []"},
		{"length", "POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc", "POST /a [abc]"},
		{"length in HTTP/1.0", "POST /a HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 3\r\n\r\nabc", "POST /a [abc]"},
		{"length with zeros and blanks", "POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: \t0003 \t\r\n\r\nabc", "POST /a [abc]"},
		{"length of 0", "POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n", "POST /a []"},
		{"length on a GET", "GET /a HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc", "GET /a [abc]"},
		{"chunked", "POST /a HTTP/1.1\r\nHost: h\r\ntransfer-encoding: \tChunKed \r\n\r\n1\r\na\r\n0000A\r\n0123456789\r\n0\r\n\r\n", "POST /a [a0123456789]"},
		{"chunk extensions", "POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1;x\r\na\r\n2;y=\"z;\"\r\nbc\r\n0;end\r\n\r\n", "POST /a [abc]"},
		{"empty value, odd names", "GET /a HTTP/1.1\r\nHost: h\r\nX:\r\n!#$%&'*+-.^_`|~: y\r\nContent-Lengths: z\r\n\r\n", "GET /a []"},
		{"one empty line first", "\r\nGET /a HTTP/1.1\r\nHost: h\r\n\r\n", "GET /a []"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := serve(t, echo)
			conn := s.dial()
			for range 3 {
				conn.send(c.head).want(200, c.want)
			}
			conn.dribble(c.head).want(200, c.want)
			conn.send(strings.Repeat(c.head, 20))
			for range 20 {
				conn.want(200, c.want)
			}
		})
	}
}

func TestEmptyLineAfterABodyIsDropped(t *testing.T) {
	for _, method := range []string{"POST", "PUT"} { // net/http alone forgives it after POST only
		s := serve(t, echo)
		c := s.dial().send(method + " /a HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\nx\r\nGET /b HTTP/1.1\r\nHost: h\r\n\r\n")
		c.want(200, method+" /a [x]")
		c.want(200, "GET /b []")
	}
}

func TestBadChunkedBodyEndsInAFramingErrorAndNothingBehindItRuns(t *testing.T) {
	for _, c := range []struct {
		name, body string
		want       guard.Reason
	}{
		{"no size", "\r\n", guard.RequestMalformed},
		{"no hex", "g\r\n", guard.RequestMalformed},
		{"0x", "0x1\r\na\r\n0\r\n\r\n", guard.RequestMalformed},
		{"sign", "+1\r\na\r\n0\r\n\r\n", guard.RequestMalformed},
		{"blank before the size", " 1\r\na\r\n0\r\n\r\n", guard.RequestMalformed},
		{"blank after the size", "1 \r\na\r\n0\r\n\r\n", guard.RequestMalformed},
		{"blank before an extension", "1 ;x\r\na\r\n0\r\n\r\n", guard.RequestMalformed},
		{"blank inside the size", "1 1\r\na\r\n0\r\n\r\n", guard.RequestMalformed},
		{"extension without size", ";x\r\na\r\n0\r\n\r\n", guard.RequestMalformed},
		{"size of 2^63", "8000000000000000\r\na", guard.RequestMalformed},
		{"size of 17 digits", "00000000000000001\r\na\r\n0\r\n\r\n", guard.RequestMalformed},
		{"bare LF after the size", "1\na\r\n0\r\n\r\n", guard.RequestMalformed},
		{"bare CR after the size", "1\ra\r\n0\r\n\r\n", guard.RequestMalformed},
		{"bare LF in an extension", "1;x\ny\r\na\r\n0\r\n\r\n", guard.RequestMalformed},
		{"NUL in an extension", "1;\x00\r\na\r\n0\r\n\r\n", guard.RequestMalformed},
		{"long extension", "1;" + strings.Repeat("x", 300) + "\r\na\r\n0\r\n\r\n", guard.RequestMalformed},
		{"many extensions", strings.Repeat("1;"+strings.Repeat("x", 200)+"\r\na\r\n", 50) + "0\r\n\r\n", guard.RequestMalformed},
		{"data longer than its size", "1\r\nab\r\n0\r\n\r\n", guard.RequestMalformed},
		{"bare LF after data", "1\r\na\n0\r\n\r\n", guard.RequestMalformed},
		{"bare LF after the last size", "0\n\r\n", guard.RequestMalformed},
		{"bare LF at the end", "0\r\n\n", guard.FramingLineEnd},
		{"folded trailer", "0\r\nX: a\r\n b\r\n\r\n", guard.FramingFoldedHeader},
		{"bare LF in a trailer", "0\r\nX: a\n\r\n", guard.FramingLineEnd},
		{"bare CR in a trailer", "0\r\nX: a\rb\r\n\r\n", guard.FramingLineEnd},
		{"nameless trailer", "0\r\n: a\r\n\r\n", guard.FramingHeaderName},
		{"request for a trailer", "0\r\n" + smuggled + "\r\n", guard.FramingHeaderName},
		{"length in a trailer", "0\r\nContent-Length: 5\r\n\r\n", guard.RequestMalformed},
		{"coding in a trailer", "0\r\nTransfer-Encoding: chunked\r\n\r\n", guard.RequestMalformed},
		{"host in a trailer", "0\r\nHost: h\r\n\r\n", guard.RequestMalformed},
		{"long trailer", "0\r\nX: " + strings.Repeat("x", 5000) + "\r\n\r\n", guard.RequestMalformed},
	} {
		const head = "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
		for _, before := range []string{"", "5\r\nfirst\r\n"} {
			t.Run(fmt.Sprintf("%s behind %d", c.name, len(before)), func(t *testing.T) {
				s := serve(t, echo)
				conn := s.dial().send(head + before + c.body + smuggled)
				conn.want(400, c.want.String())
				conn.wantEnd()
				s.wantSeen("POST /")

				if len(c.body) < 100 {
					conn = s.dial().dribble(head + before + c.body)
					conn.want(400, c.want.String())
					conn.wantEnd()
					s.wantSeen("POST /", "POST /")
				}
			})
		}
	}
}

// net/http takes a body whose error it met in Close for one that was read.
func TestBodyFaultThatNobodyReadEndsTheConnection(t *testing.T) {
	s := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		// In full duplex net/http reads no body before it answers.
		if err := http.NewResponseController(w).EnableFullDuplex(); err != nil {
			t.Error(err)
		}
		fmt.Fprint(w, "unread")
		if err := http.NewResponseController(w).Flush(); err != nil {
			t.Error(err)
		}
	})
	c := s.dial().send("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab" + smuggled)
	c.want(200, "unread")
	c.wantEnd()
	s.wantSeen("POST /")
}
