package wire_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/moat-gateway/moat/guard"
	"github.com/moat-gateway/moat/wire"
)

func TestThousandRequestsOnOneConnection(t *testing.T) {
	conns := &counter{}
	s := serve(t, echo, configure(func(h *http.Server) { h.ConnState = conns.hook }))
	c := s.dial()
	for i := range 1000 {
		if i%3 == 0 {
			c.send(fmt.Sprintf("POST /%d HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nbody", i)).want(200, fmt.Sprintf("POST /%d [body]", i))
			continue
		}
		c.send(fmt.Sprintf("GET /%d HTTP/1.1\r\nHost: h\r\n\r\n", i)).want(200, fmt.Sprintf("GET /%d []", i))
	}
	if n := conns.n.Load(); n != 1 {
		t.Fatalf("%d connections, want 1", n)
	}
}

func TestClientThatLeavesCancelsItsRequest(t *testing.T) {
	for _, more := range []string{"", "GET /unfinished HT", "\r", "GET /next HTTP/1.1\r\nHost: h\r\nX"} {
		t.Run(fmt.Sprintf("behind %q", more), func(t *testing.T) {
			entered, cancelled := make(chan bool), make(chan bool, 1)
			s := serve(t, func(_ http.ResponseWriter, r *http.Request) {
				entered <- true
				select {
				case <-r.Context().Done():
					cancelled <- true
				case <-time.After(patience):
					cancelled <- false
				}
			})
			c := s.dial().send("GET / HTTP/1.1\r\nHost: h\r\n\r\n" + more)
			<-entered
			c.Close()
			if !<-cancelled {
				t.Fatal("the handler was not told that its client has gone")
			}
			s.wantSeen("GET /")
		})
	}
}

func TestNextHeadSurvivesTheWatchOverTheRunningHandler(t *testing.T) {
	const next = "GET /next HTTP/1.1\r\nHost: h\r\nX: y\r\n\r\n"
	for _, cut := range []int{0, 1, 5, len(next) - 1, len(next)} {
		t.Run(fmt.Sprint(cut), func(t *testing.T) {
			entered, finish := make(chan bool, 1), make(chan bool, 1)
			s := serve(t, func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/slow" {
					entered <- true
					<-finish
				}
				echo(w, r)
			})
			c := s.dial().send("GET /slow HTTP/1.1\r\nHost: h\r\n\r\n")
			<-entered
			c.send(next[:cut])
			time.Sleep(10 * time.Millisecond)
			finish <- true
			c.want(200, "GET /slow []")
			c.send(next[cut:])
			c.want(200, "GET /next []")
			c.send(next).want(200, "GET /next []")
		})
	}
}

func TestExpectContinue(t *testing.T) {
	s := serve(t, echo)
	c := s.dial().send("POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n")
	c.want(100, "")
	c.send("abc").want(200, "POST / [abc]")
	c.send("GET /after HTTP/1.1\r\nHost: h\r\n\r\n").want(200, "GET /after []")
}

func TestLargeUploads(t *testing.T) {
	const size = 8 << 20
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		n, err := io.Copy(io.Discard, r.Body)
		fmt.Fprintf(w, "%d %v %s", n, err, r.Trailer.Get("Sum"))
	})
	tr := &http.Transport{}
	defer tr.CloseIdleConnections()
	for _, c := range []struct {
		name   string
		length int64
		want   string
	}{{"length", size, "8388608 <nil> "}, {"chunked", -1, "8388608 <nil> seven"}} {
		t.Run(c.name, func(t *testing.T) {
			for range 2 {
				req, err := http.NewRequestWithContext(t.Context(), "POST", "http://"+s.addr, io.LimitReader(zeros{}, size))
				if err != nil {
					t.Fatal(err)
				}
				req.ContentLength = c.length
				if c.length < 0 {
					req.Trailer = http.Header{"Sum": {"seven"}}
				}
				res, err := tr.RoundTrip(req)
				if err != nil {
					t.Fatal(err)
				}
				defer res.Body.Close()
				if got, _ := io.ReadAll(res.Body); string(got) != c.want {
					t.Fatalf("got %q, want %q", got, c.want)
				}
			}
		})
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

func TestTrailerReachesTheHandler(t *testing.T) {
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %v %s", body, err, r.Trailer.Get("Sum"))
	})
	const req = "POST / HTTP/1.1\r\nHost: h\r\nTrailer: Sum\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nSum: 7\r\nOther: x\r\n\r\n"
	c := s.dial()
	c.send(req).want(200, "abc <nil> 7")
	c.dribble(req).want(200, "abc <nil> 7")
	c.send(req + req)
	c.want(200, "abc <nil> 7")
	c.want(200, "abc <nil> 7")
}

func TestClosingAnIncompleteRequestRunsNothing(t *testing.T) {
	s := serve(t, echo)
	c := s.dial().send("GET / HTTP/1.1\r\nHost: h\r\nX: y\r\n")
	if err := c.Conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	c.wantEnd()
	s.wantSeen()
}

// hijackEcho switches protocols and then returns every byte it is sent.
func hijackEcho(t *testing.T, wrap func(net.Conn) net.Conn) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") == "" {
			echo(w, r)
			return
		}
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		wire.Passthrough(wrap(conn))
		io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n")
		io.Copy(conn, io.MultiReader(io.LimitReader(rw, int64(rw.Reader.Buffered())), conn))
	}
}

type wrapped struct{ net.Conn }

func (w wrapped) NetConn() net.Conn { return w.Conn }

func TestHijackedConnectionPassesAnything(t *testing.T) {
	const upgrade = "GET / HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n"
	const alien = "\x00\n\r\nContent-Length: 1\nContent-Length: 2\n\n \x81\x05hello"
	for name, wrap := range map[string]func(net.Conn) net.Conn{
		"bare":    func(c net.Conn) net.Conn { return c },
		"wrapped": func(c net.Conn) net.Conn { return wrapped{wrapped{c}} },
	} {
		for _, early := range []string{"", "\x00", alien[:7], alien} {
			t.Run(fmt.Sprintf("%s with %d early bytes", name, len(early)), func(t *testing.T) {
				s := serve(t, hijackEcho(t, wrap))
				c := s.dial()
				c.send("GET /before HTTP/1.1\r\nHost: h\r\n\r\n").want(200, "GET /before []")
				c.send(upgrade+early).want(101, "")
				c.send(alien[len(early):] + strings.Repeat(alien, 1000))
				if err := c.Conn.(*net.TCPConn).CloseWrite(); err != nil {
					t.Fatal(err)
				}
				got, err := io.ReadAll(c.r)
				if err != nil || string(got) != strings.Repeat(alien, 1001) {
					t.Fatalf("echo of %d bytes, %v; want %d", len(got), err, 1001*len(alien))
				}
			})
		}
	}
}

func TestUpgradeRequestMayHaveABody(t *testing.T) {
	for _, framing := range []struct{ header, body string }{
		{"Content-Length: 6", "abcdef"},
		{"Transfer-Encoding: chunked", "6\r\nabcdef\r\n0\r\nT: u\r\n\r\n"},
	} {
		for cut := range framing.body {
			read := make(chan string, 1)
			s := serve(t, func(w http.ResponseWriter, r *http.Request) {
				body, err := io.ReadAll(r.Body)
				read <- fmt.Sprintf("%s %v", body, err)
				hijackEcho(t, func(c net.Conn) net.Conn { return c })(w, r)
			})
			c := s.dial().send("POST / HTTP/1.1\r\nHost: h\r\nUpgrade: echo\r\n" + framing.header + "\r\n\r\n" + framing.body[:cut])
			time.Sleep(time.Millisecond) // so that the rest comes in a segment of its own
			c.send(framing.body[cut:] + "\x00\n\n").want101()
			if got := <-read; got != "abcdef <nil>" {
				t.Fatal(got)
			}
			got := make([]byte, 3)
			if _, err := io.ReadFull(c.r, got); err != nil || string(got) != "\x00\n\n" {
				t.Fatalf("cut at %d: %q, %v", cut, got, err)
			}
		}
	}
}

func TestRequestBehindARefusedUpgradeIsStillScanned(t *testing.T) {
	const upgrade = "POST /ws HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 2\r\n\r\nhi"
	s := serve(t, echo)
	c := s.dial().send(upgrade + "GET /next HTTP/1.1\r\nHost: h\r\n\r\n" + upgrade + "GET /bad HTTP/1.1\nHost: h\n\n")
	c.want(200, "POST /ws [hi]")
	c.want(200, "GET /next []")
	c.want(200, "POST /ws [hi]")
	c.wantRefused(guard.FramingLineEnd)
	s.wantSeen("POST /ws", "GET /next", "POST /ws")
}

func TestClientThatLeavesCancelsItsUpgrade(t *testing.T) {
	entered, cancelled := make(chan bool), make(chan bool, 1)
	s := serve(t, func(_ http.ResponseWriter, r *http.Request) {
		entered <- true
		select {
		case <-r.Context().Done():
			cancelled <- true
		case <-time.After(patience):
			cancelled <- false
		}
	})
	c := s.dial().send("GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\n\r\nearly")
	<-entered
	c.Close()
	if !<-cancelled {
		t.Fatal("the handler was not told that its client has gone")
	}
}

func TestPassthroughOfAForeignConnection(t *testing.T) {
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	wire.Passthrough(a)
	wire.Passthrough(wrapped{wrapped{}})
}

func TestHTTP2WithPriorKnowledge(t *testing.T) {
	s := serve(t, echo)
	var p http.Protocols
	p.SetUnencryptedHTTP2(true)
	tr := &http.Transport{Protocols: &p}
	defer tr.CloseIdleConnections()
	for range 3 {
		body := strings.Repeat("\n\x00bytes that HTTP/1.1 heads must not have\r", 1000)
		req, err := http.NewRequestWithContext(t.Context(), "POST", "http://"+s.addr+"/h2", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		res, err := tr.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		got, err := io.ReadAll(res.Body)
		if err != nil || res.ProtoMajor != 2 || string(got) != "POST /h2 ["+body+"]" {
			t.Fatalf("%s %d bytes, %v", res.Proto, len(got), err)
		}
	}
}

func TestHTTP2PrefaceThatComesByteByByte(t *testing.T) {
	s := serve(t, echo)
	c := s.dial().dribble("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").send("\x00\x00\x00\x04\x00\x00\x00\x00\x00")
	settings := make([]byte, 9)
	if _, err := io.ReadFull(c.r, settings); err != nil || settings[3] != 4 {
		t.Fatalf("got %x, %v; want a SETTINGS frame", settings, err)
	}
}

func TestHTTP2PrefaceIsNoWayAroundTheScanner(t *testing.T) {
	for _, head := range []string{
		"PRI * HTTP/2.0\r\n\r\nSN\r\n\r\n",
		"PRI * HTTP/2.0\r\n\r\n",
		"PRI * HTTP/2.0\r\nTransfer-Encoding: chunked\r\n\r\n",
		"GET /first HTTP/1.1\r\nHost: h\r\n\r\nPRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
	} {
		s := serve(t, echo)
		c := s.dial().send(head + "GET /behind HTTP/1.1\nHost: h\n\n" + smuggled)
		_, _ = io.Copy(io.Discard, c.r)
		for _, seen := range s.seen() {
			if strings.Contains(seen, "behind") || strings.Contains(seen, "smuggled") {
				t.Errorf("%q let %q through", head, seen)
			}
		}
	}
}

func TestSlowHeadIsCut(t *testing.T) {
	s := serve(t, echo,
		configure(func(h *http.Server) { h.IdleTimeout = patience }),
		option(func(o *wire.Options) { o.HeadTimeout = 300 * time.Millisecond }))
	c := s.dial()
	c.send("GET /one HTTP/1.1\r\nHost: h\r\n\r\n").want(200, "GET /one []")
	time.Sleep(500 * time.Millisecond) // idle between requests, which is no fault
	c.send("GET /two HTTP/1.1\r\nHost: h\r\n\r\n").want(200, "GET /two []")
	start := time.Now()
	c.send("GET /three HTTP/1.1\r\nHost")
	c.wantEnd()
	if took := time.Since(start); took > patience/2 {
		t.Fatalf("cut after %v", took)
	}
	s.wantSeen("GET /one", "GET /two")
}

func TestSlowNextHeadDoesNotCancelTheRequestAtHand(t *testing.T) {
	entered := make(chan bool)
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		entered <- true
		select {
		case <-r.Context().Done():
			t.Error("cancelled")
		case <-time.After(300 * time.Millisecond):
		}
		echo(w, r)
	}, option(func(o *wire.Options) { o.HeadTimeout = 50 * time.Millisecond }))
	c := s.dial().send("GET /one HTTP/1.1\r\nHost: h\r\n\r\nGET /tw")
	<-entered
	c.want(200, "GET /one []")
}

func TestReadDeadlineOfAHandlerHolds(t *testing.T) {
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if err := http.NewResponseController(w).SetReadDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
			t.Error(err)
		}
		_, err := io.ReadAll(r.Body)
		w.WriteHeader(http.StatusRequestTimeout)
		fmt.Fprint(w, err != nil)
	})
	c := s.dial().send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nabc")
	c.want(408, "true")
}

func TestShutdownWaitsForTheRequestInFlight(t *testing.T) {
	entered, finish := make(chan bool), make(chan bool)
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		entered <- true
		<-finish
		echo(w, r)
	})
	c := s.dial().send("GET / HTTP/1.1\r\nHost: h\r\n\r\n")
	<-entered
	down := make(chan error, 1)
	go func() { down <- s.server.Shutdown(context.Background()) }()
	finish <- true
	c.want(200, "GET / []")
	if err := <-down; err != nil {
		t.Fatal(err)
	}
}

// A client may read the answer while it writes the body.
func TestResponseBeforeTheBodyEnds(t *testing.T) {
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		rc := http.NewResponseController(w)
		if err := rc.EnableFullDuplex(); err != nil {
			t.Error(err)
		}
		in := bufio.NewReader(r.Body)
		for {
			line, err := in.ReadString('\n')
			if err != nil {
				return
			}
			fmt.Fprint(w, strings.ToUpper(line))
			if err := rc.Flush(); err != nil {
				return
			}
		}
	})
	c := s.dial().send("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n2\r\na\n\r\n")
	res, err := http.ReadResponse(c.r, nil)
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 2)
	for _, letter := range "abcdef" {
		if _, err := io.ReadFull(res.Body, buf); err != nil || !bytes.Equal(buf, []byte{byte(letter) - 32, '\n'}) {
			t.Fatalf("got %q, %v", buf, err)
		}
		c.send(fmt.Sprintf("2\r\n%c\n\r\n", letter+1))
	}
	c.send("0\r\n\r\n")
	if _, err := io.Copy(io.Discard, res.Body); err != nil {
		t.Fatal(err)
	}
	c.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n").want(200, "")
}
