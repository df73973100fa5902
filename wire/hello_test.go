package wire_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/moat-gateway/moat/wire"
)

// showHello answers with what is known of the connection, and whether the request has TLS.
func showHello(w http.ResponseWriter, r *http.Request) {
	_ = json.NewEncoder(w).Encode(struct {
		Hello *wire.Hello
		TLS   bool
	}{wire.HelloOf(r.Context()), r.TLS != nil})
}

// watched has a server look at its connections' first bytes.
func watched(t *testing.T) setting {
	return func(s *site, o *wire.Options) {
		o.Hello = func() bool { return true }
		s.server.ConnContext = wire.ConnContext
		if o.TLS != nil {
			s.server.Handler = wire.RestoreTLS(s.server.Handler)
		}
	}
}

type told struct {
	Hello *wire.Hello
	TLS   bool
}

func (c *client) wantHello(want *wire.Hello) {
	c.t.Helper()
	res, err := http.ReadResponse(c.r, nil)
	if err != nil {
		c.t.Fatal(err)
	}
	if got := readTold(c.t, res); !reflect.DeepEqual(got.Hello, want) {
		c.t.Fatalf("%+v, want %+v", got.Hello, want)
	}
}

func readTold(t *testing.T, res *http.Response) (got told) {
	t.Helper()
	defer res.Body.Close()
	if err := json.NewDecoder(res.Body).Decode(&got); err != nil {
		t.Fatal(err)
	}
	return got
}

func TestHeaderOrderOfHTTP1(t *testing.T) {
	s := serve(t, showHello, watched(t))
	const first = "GET / HTTP/1.1\r\nHost: h\r\nuser-agent: x\r\nACCEPT:*/*\r\nCookie: a=b\r\nCookie: c=d\r\n\r\n"
	want := &wire.Hello{HeaderOrder: []string{"Host", "user-agent", "ACCEPT", "Cookie", "Cookie"}}
	c := s.dial().send(first)
	c.wantHello(want)
	c.send("GET / HTTP/1.1\r\nHost: h\r\nOther: x\r\n\r\n").wantHello(want) // it is the first request's
	s.dial().dribble(first).wantHello(want)
	s.dial().send("\r\n" + first + first).wantHello(want)
	s.dial().send("GET / HTTP/1.0\r\n\r\n").wantHello(&wire.Hello{HeaderOrder: []string{}})
}

func TestHeaderOrderIsBounded(t *testing.T) {
	s := serve(t, showHello, watched(t), option(func(o *wire.Options) { o.HeaderBytes = 256 << 10 }), configure(func(h *http.Server) { h.MaxHeaderBytes = 512 << 10 }))
	var many strings.Builder
	for i := range 500 {
		fmt.Fprintf(&many, "X-%d: y\r\n", i)
	}
	c := s.dial().send("GET / HTTP/1.1\r\nHost: h\r\n" + strings.Repeat("L", 200) + ": y\r\n" + many.String() + "\r\n")
	res, err := http.ReadResponse(c.r, nil)
	if err != nil {
		t.Fatal(err)
	}
	got := readTold(t, res).Hello.HeaderOrder
	if len(got) != 64 || got[1] != strings.Repeat("L", 64) || got[63] != "X-61" {
		t.Errorf("%d names: %q", len(got), got)
	}
	// A head that does not end within the bound is served, and its order is not known.
	s.dial().send("GET / HTTP/1.1\r\nHost: h\r\nX: " + strings.Repeat("y", 100<<10) + "\r\n\r\n").wantHello(&wire.Hello{})
}

func TestRefusedHeadTellsNothing(t *testing.T) {
	s := serve(t, echo, watched(t))
	inner := s.server.Handler
	s.server.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if h := wire.HelloOf(r.Context()); h == nil || h.HeaderOrder != nil {
			t.Errorf("%+v", h)
		}
		inner.ServeHTTP(w, r)
	})
	s.dial().send("GET / HTTP/1.1\r\nHost: h\r\nX : y\r\n\r\n").want(400, "framing-header-name")
}

func TestNothingIsLookedAtWithoutBeingAsked(t *testing.T) {
	asked := 0
	for _, o := range []setting{
		configure(func(h *http.Server) { h.ConnContext = wire.ConnContext }),
		func(s *site, o *wire.Options) {
			watched(t)(s, o)
			o.Hello = func() bool { asked++; return false }
		},
	} {
		s := serve(t, showHello, o)
		s.dial().send("GET / HTTP/1.1\r\nHost: h\r\n\r\n").wantHello(nil)
		s.dial().send("GET / HTTP/1.1\r\nHost: h\r\n\r\n").wantHello(nil)
	}
	if asked != 2 {
		t.Errorf("asked %d times, for two connections", asked)
	}
}

// get sends a request over a connection of its own.
func get(t *testing.T, tr *http.Transport, url string) told {
	t.Helper()
	defer tr.CloseIdleConnections()
	req, err := http.NewRequestWithContext(t.Context(), "GET", url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("User-Agent", "go")
	res, err := tr.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	return readTold(t, res)
}

// goHTTP2 is what Go 1.26's client says of itself in HTTP/2, by hand from its frames:
// ENABLE_PUSH 0, INITIAL_WINDOW_SIZE 4 MiB, MAX_FRAME_SIZE 16 KiB, MAX_HEADER_LIST_SIZE 10 MiB; a
// window of 1 GiB more; authority, method, path, scheme.
const goHTTP2 = "2:0;4:4194304;5:16384;6:10485760|1073741824|0|a,m,p,s"

func TestHelloOfGo(t *testing.T) {
	for _, c := range []struct {
		name    string
		h2, tls bool
		want    wire.Hello
	}{
		{"HTTP/1.1", false, false, wire.Hello{HeaderOrder: []string{"Host", "User-Agent", "Accept-Encoding"}}},
		{"HTTP/2 by prior knowledge", true, false, wire.Hello{HTTP2: goHTTP2, HeaderOrder: []string{"user-agent", "accept-encoding"}}},
		{"HTTP/1.1 over TLS", false, true, wire.Hello{JA4: "t13i131000_f57a46bbacb6_", HeaderOrder: []string{"Host", "User-Agent", "Accept-Encoding"}}},
		{"HTTP/2 over TLS", true, true, wire.Hello{JA4: "t13i1311h2_f57a46bbacb6_", HTTP2: goHTTP2, HeaderOrder: []string{"user-agent", "accept-encoding"}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			settings, scheme := []setting{watched(t)}, "http://"
			if c.tls {
				settings, scheme = []setting{overTLS(t), watched(t)}, "https://"
			}
			s := serve(t, showHello, settings...)
			var p http.Protocols
			p.SetHTTP1(!c.h2)
			p.SetHTTP2(c.h2)
			p.SetUnencryptedHTTP2(c.h2 && !c.tls)
			var first *wire.Hello
			for range 10 {
				conf := trusting()
				conf.NextProtos = nil
				got := get(t, &http.Transport{Protocols: &p, TLSClientConfig: conf}, scheme+s.addr)
				if got.TLS != c.tls {
					t.Fatalf("Request.TLS: %v", got.TLS)
				}
				if first == nil {
					first = got.Hello
				}
				if !reflect.DeepEqual(got.Hello, first) {
					t.Fatalf("%+v after %+v", got.Hello, first)
				}
			}
			if !strings.HasPrefix(first.JA4, c.want.JA4) || (first.JA4 == "") == c.tls {
				t.Errorf("JA4 %s, want %s…", first.JA4, c.want.JA4)
			}
			if first.JA4 = c.want.JA4; !reflect.DeepEqual(*first, c.want) {
				t.Errorf("%+v, want %+v", *first, c.want)
			}
		})
	}
}

func TestHelloBehindAPROXYHeader(t *testing.T) {
	for _, encrypted := range []bool{false, true} {
		s := serve(t, showHello, option(func(o *wire.Options) {
			if encrypted {
				o.TLS = testTLS(t)
			}
			o.ProxyProtocol = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
		}), watched(t))
		dial := func(ctx context.Context, network, addr string) (net.Conn, error) {
			var d net.Dialer
			c, err := d.DialContext(ctx, network, addr)
			if err == nil {
				_, err = io.WriteString(c, "PROXY TCP4 192.0.2.1 192.0.2.2 1234 443\r\n")
			}
			return c, err
		}
		scheme := map[bool]string{false: "http://", true: "https://"}[encrypted]
		got := get(t, &http.Transport{DialContext: dial, TLSClientConfig: trusting(), ForceAttemptHTTP2: true}, scheme+s.addr)
		if got.Hello == nil || (got.Hello.JA4 != "") != encrypted || (got.Hello.HTTP2 != "") != encrypted || !slices.Contains(got.Hello.HeaderOrder, "Accept-Encoding") && !slices.Contains(got.Hello.HeaderOrder, "accept-encoding") {
			t.Errorf("TLS %v: %+v", encrypted, got.Hello)
		}
	}
}

func TestOwnGetConfigForClientStaysInForce(t *testing.T) {
	asked := make(chan string, 2)
	s := serve(t, showHello, option(func(o *wire.Options) {
		inner := testTLS(t)
		inner.NextProtos = []string{"http/1.1"}
		o.TLS = &tls.Config{GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
			asked <- h.ServerName
			return inner, nil
		}}
	}), watched(t))
	conf := trusting("h2", "http/1.1")
	conf.ServerName = "a.example"
	got := get(t, &http.Transport{TLSClientConfig: conf}, "https://"+s.addr)
	if got.Hello == nil || !strings.HasPrefix(got.Hello.JA4, "t13d") || got.Hello.HTTP2 != "" {
		t.Errorf("%+v", got.Hello)
	}
	if name := <-asked; name != "a.example" {
		t.Errorf("it was asked about %q", name)
	}
}

// frames writes HTTP/2 frames as a client would.
func frames(t *testing.T, write func(f *http2.Framer, block func(...string) []byte)) string {
	t.Helper()
	var out, head bytes.Buffer
	enc := hpack.NewEncoder(&head)
	out.WriteString(http2.ClientPreface)
	write(http2.NewFramer(&out, nil), func(fields ...string) []byte {
		head.Reset()
		for i := 0; i < len(fields); i += 2 {
			if err := enc.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]}); err != nil {
				t.Fatal(err)
			}
		}
		return bytes.Clone(head.Bytes())
	})
	return out.String()
}

var getFields = []string{":method", "GET", ":scheme", "http", ":path", "/", ":authority", "h", "b", "1", "a", "2"}

func TestHTTP2(t *testing.T) {
	write := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name  string
		bytes string
		want  wire.Hello
	}{
		{"bare", frames(t, func(f *http2.Framer, block func(...string) []byte) {
			write(f.WriteSettings())
			write(f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block(getFields...), EndHeaders: true, EndStream: true}))
		}), wire.Hello{HTTP2: "|00|0|m,s,p,a", HeaderOrder: []string{"b", "a"}}},
		{"everything", frames(t, func(f *http2.Framer, block func(...string) []byte) {
			write(f.WriteSettings(http2.Setting{ID: 0x1a1a, Val: 7}, http2.Setting{ID: 4, Val: 65536}, http2.Setting{ID: 1, Val: 4096}))
			write(f.WriteWindowUpdate(0, 12517377))
			write(f.WriteWindowUpdate(0, 1))
			write(f.WritePriority(3, http2.PriorityParam{Weight: 200}))
			write(f.WritePriority(5, http2.PriorityParam{StreamDep: 3, Exclusive: true, Weight: 0}))
			write(f.WriteRawFrame(0x5b, 0xff, 0, []byte("a frame that nobody knows")))
			write(f.WriteHeaders(http2.HeadersFrameParam{
				StreamID: 7, BlockFragment: block(getFields...), EndHeaders: true, EndStream: true, PadLength: 9,
				Priority: http2.PriorityParam{StreamDep: 3, Weight: 41},
			}))
		}), wire.Hello{HTTP2: "4:65536;1:4096|12517377|3:0:0:201,5:1:3:1|m,s,p,a", HeaderOrder: []string{"b", "a"}}},
		{"in pieces", frames(t, func(f *http2.Framer, block func(...string) []byte) {
			write(f.WriteSettings(http2.Setting{ID: 2, Val: 0}))
			whole := block(getFields...)
			write(f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: whole[:3], EndStream: true}))
			write(f.WriteContinuation(1, false, whole[3:6]))
			write(f.WriteContinuation(1, true, whole[6:]))
		}), wire.Hello{HTTP2: "2:0|00|0|m,s,p,a", HeaderOrder: []string{"b", "a"}}},
		{"more than 32 KiB", frames(t, func(f *http2.Framer, block func(...string) []byte) {
			write(f.WriteSettings(http2.Setting{ID: 2, Val: 0}))
			for range 5 {
				write(f.WriteRawFrame(0x5b, 0, 0, make([]byte, 8<<10)))
			}
			write(f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block(getFields...), EndHeaders: true, EndStream: true}))
		}), wire.Hello{HTTP2: "2:0|00|0|"}},
	} {
		for _, cut := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, cut %v", c.name, cut), func(t *testing.T) {
				if cut && len(c.bytes) > 1000 {
					return
				}
				told := make(chan *wire.Hello, 1)
				s := serve(t, func(_ http.ResponseWriter, r *http.Request) { told <- wire.HelloOf(r.Context()) }, watched(t))
				if d := s.dial(); cut {
					d.dribble(c.bytes)
				} else {
					d.send(c.bytes)
				}
				if got := <-told; !reflect.DeepEqual(*got, c.want) {
					t.Errorf("%+v, want %+v", *got, c.want)
				}
			})
		}
	}
}

// Nobody scans what a client sends that has agreed on HTTP/2.
func TestHTTP1BehindAnAgreementOnHTTP2GetsNowhere(t *testing.T) {
	for _, first := range []string{
		"GET / HTTP/1.1\r\nHost: h\r\n\r\n",
		"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n",
		"PRI * HTTP/1.1\r\nHost: h\r\n\r\n",
	} {
		s := serve(t, echo, overTLS(t), watched(t))
		c := dialTLS(t, s.addr, "h2").send(first + http2.ClientPreface + "GET /b HTTP/1.1\r\nHost: h\r\n\r\n")
		_, _ = io.Copy(io.Discard, c.r)
		s.wantSeen()
	}
}

// RFC 9113 section 9.2.2 lets a server end such a connection, and net/http does, looked at or not.
func TestHTTP2WithAnOldCipherSuiteIsEnded(t *testing.T) {
	for _, settings := range [][]setting{{overTLS(t)}, {overTLS(t), watched(t)}} {
		s := serve(t, echo, settings...)
		conf := trusting()
		conf.MaxVersion, conf.CipherSuites = tls.VersionTLS12, []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA}
		tr := &http.Transport{TLSClientConfig: conf, ForceAttemptHTTP2: true}
		defer tr.CloseIdleConnections()
		req, err := http.NewRequestWithContext(t.Context(), "GET", "https://"+s.addr, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		refused, err := tr.RoundTrip(req)
		if err == nil {
			refused.Body.Close()
			t.Error("it was answered")
		}
		s.wantSeen()
		conf = conf.Clone()
		conf.CipherSuites = []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256}
		tr = &http.Transport{TLSClientConfig: conf, ForceAttemptHTTP2: true}
		defer tr.CloseIdleConnections()
		res, err := tr.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.ProtoMajor != 2 {
			t.Error(res.Proto)
		}
	}
}

// A server that stops lets the requests on such a connection end.
func TestShutdownWaitsForLookedAtHTTP2(t *testing.T) {
	entered, finish := make(chan bool), make(chan bool)
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		entered <- true
		<-finish
		showHello(w, r)
	}, overTLS(t), watched(t))
	got := make(chan told, 1)
	go func() {
		got <- get(t, &http.Transport{TLSClientConfig: trusting(), ForceAttemptHTTP2: true}, "https://"+s.addr)
	}()
	<-entered
	stopped := make(chan error, 1)
	go func() { stopped <- s.server.Shutdown(context.Background()) }()
	finish <- true
	if h := <-got; h.Hello == nil || h.Hello.HTTP2 != goHTTP2 || !h.TLS {
		t.Errorf("%+v", h)
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}
