package wire_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/moat-gateway/moat/wire"
)

func showPeer(w http.ResponseWriter, r *http.Request) {
	local, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	fmt.Fprintf(w, "%s to %s", r.RemoteAddr, local)
}

func proxied(refused chan<- error, trusted ...string) setting {
	return option(func(o *wire.Options) {
		o.ProxyProtocol = []netip.Prefix{}
		for _, p := range trusted {
			o.ProxyProtocol = append(o.ProxyProtocol, netip.MustParsePrefix(p))
		}
		o.HandshakeTimeout = 500 * time.Millisecond
		o.Refused = func(_ net.Addr, err error) { refused <- err }
	})
}

const (
	v1 = "PROXY TCP4 203.0.113.7 192.0.2.1 40000 443\r\n"
	// v2 says the same in binary: signature, version 2 PROXY, TCP over IPv4,
	// 12 bytes of addresses and ports.
	v2signature = "\r\n\r\n\x00\r\nQUIT\n"
	v2          = v2signature + "\x21\x11\x00\x0c\xcb\x00\x71\x07\xc0\x00\x02\x01\x9c\x40\x01\xbb"
	v2local     = v2signature + "\x20\x00\x00\x00"
	v2localFake = v2signature + "\x20\x11\x00\x0c\xcb\x00\x71\x07\xc0\x00\x02\x01\x9c\x40\x01\xbb"
	v2udp       = v2signature + "\x21\x12\x00\x0c\xcb\x00\x71\x07\xc0\x00\x02\x01\x9c\x40\x01\xbb"
	request     = "GET / HTTP/1.1\r\nHost: h\r\n\r\n"
)

var v2unix = v2signature + "\x21\x31\x00\xd8" + strings.Repeat("\x00", 216)

func TestTrustedProxyNamesTheClient(t *testing.T) {
	for _, c := range []struct{ name, header, want string }{
		{"version 1", v1, "203.0.113.7:40000 to 192.0.2.1:443"},
		{"version 1, IPv6", "PROXY TCP6 2001:db8::7 2001:db8::1 40000 443\r\n", "[2001:db8::7]:40000 to [2001:db8::1]:443"},
		{"version 2", v2, "203.0.113.7:40000 to 192.0.2.1:443"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := serve(t, showPeer, proxied(make(chan error, 9), "10.0.0.0/8", "127.0.0.1/32"))
			conn := s.dial()
			conn.send(c.header+request).want(200, c.want)
			conn.send(request).want(200, c.want)

			conn = s.dial().send(c.header)
			conn.dribble(request).want(200, c.want)
		})
	}
}

func TestProxyMaySpeakForItself(t *testing.T) {
	for name, header := range map[string]string{
		"version 1": "PROXY UNKNOWN\r\n", "version 1 with addresses": "PROXY UNKNOWN 203.0.113.7 192.0.2.1 40000 443\r\n",
		"version 2": v2local, "version 2 with addresses": v2localFake,
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, showPeer, proxied(make(chan error, 9), "127.0.0.1/32"))
			c := s.dial()
			c.send(header+request).want(200, c.LocalAddr().String()+" to "+s.addr)
		})
	}
}

func TestVersion2HeaderMayComeByteByByte(t *testing.T) {
	s := serve(t, showPeer, proxied(make(chan error, 9), "127.0.0.1/32"), option(func(o *wire.Options) { o.HandshakeTimeout = patience }))
	s.dial().dribble(v2+request).want(200, "203.0.113.7:40000 to 192.0.2.1:443")
}

// wantShut checks that the connection ends without a byte. A reset is an end.
func (c *client) wantShut() {
	c.t.Helper()
	got, err := io.ReadAll(c.r)
	if len(got) > 0 {
		c.t.Fatalf("got %q, want nothing", got)
	}
	if err != nil && strings.Contains(err.Error(), "timeout") {
		c.t.Fatal("still open")
	}
}

func TestMissingOrBadProxyHeaderEndsTheConnection(t *testing.T) {
	for name, header := range map[string]string{
		"none":                   "",
		"junk":                   "JUNK\r\n",
		"NUL":                    "\x00\x00\x00",
		"cut short":              "PROXY TCP4 203.0.113.7",
		"unterminated":           "PROXY TCP4 " + strings.Repeat("1", 200),
		"bare LF":                "PROXY TCP4 203.0.113.7 192.0.2.1 40000 443\n",
		"no addresses":           "PROXY TCP4\r\n",
		"bad address":            "PROXY TCP4 203.0.113.777 192.0.2.1 40000 443\r\n",
		"IPv6 for IPv4":          "PROXY TCP4 2001:db8::7 192.0.2.1 40000 443\r\n",
		"bad port":               "PROXY TCP4 203.0.113.7 192.0.2.1 70000 443\r\n",
		"version 3":              v2signature + "\x31\x11\x00\x0c\xcb\x00\x71\x07\xc0\x00\x02\x01\x9c\x40\x01\xbb",
		"version 2 too short":    v2signature + "\x21\x11\x00\x04\xcb\x00\x71\x07",
		"version 2 of a giant":   v2signature + "\x21\x11\xff\xff\xcb\x00\x71\x07",
		"version 2 over UDP":     v2udp,
		"version 2 over Unix":    v2unix,
		"version 2 unspecified":  v2signature + "\x21\x00\x00\x00",
		"TLS instead":            "\x16\x03\x01\x00\x05hello",
		"header behind the head": request + v1,
	} {
		t.Run(name, func(t *testing.T) {
			refused := make(chan error, 9)
			s := serve(t, showPeer, proxied(refused, "127.0.0.1/32"))
			s.dial().send(header + request).wantShut()
			s.wantSeen()
			if err := <-refused; !strings.Contains(err.Error(), "PROXY header") {
				t.Fatal(err)
			}
		})
	}
}

func TestSilentProxyIsCut(t *testing.T) {
	refused := make(chan error, 9)
	s := serve(t, showPeer, proxied(refused, "127.0.0.1/32"))
	s.dial().wantShut()
	s.dial().send(v2[:15]).wantShut()
	<-refused
	<-refused
}

func TestUntrustedPeerIsDisconnected(t *testing.T) {
	for _, trusted := range [][]string{nil, {"10.0.0.0/8", "::1/128"}} {
		for _, header := range []string{"", v1, v2} {
			refused := make(chan error, 9)
			s := serve(t, showPeer, proxied(refused, trusted...))
			c := s.dial()
			_, _ = io.WriteString(c, header+request)
			c.wantShut()
			s.wantSeen()
			if err := <-refused; !strings.Contains(err.Error(), "not one of the proxies") {
				t.Fatal(err)
			}
		}
	}
}

func TestWithoutTheOptionAProxyHeaderIsABadHead(t *testing.T) {
	s := serve(t, showPeer)
	c := s.dial().send(v1 + request)
	res, err := http.ReadResponse(c.r, nil)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != http.StatusBadRequest {
		t.Fatal(res.Status)
	}
	s.wantSeen()
}

func TestProxyHeaderBeforeTLS(t *testing.T) {
	s := serve(t, showPeer, proxied(make(chan error, 9), "127.0.0.1/32"), overTLS(t),
		option(func(o *wire.Options) { o.HandshakeTimeout = patience }))
	for _, protocol := range []string{"http/1.1", "h2"} {
		tr := &http.Transport{
			TLSClientConfig:   trusting(protocol),
			ForceAttemptHTTP2: protocol == "h2",
			Dial: func(network, addr string) (net.Conn, error) { //nolint:staticcheck // no context is needed here
				c, err := net.Dial(network, addr)
				if err == nil {
					_, err = io.WriteString(c, v2)
				}
				return c, err
			},
		}
		defer tr.CloseIdleConnections()
		req, err := http.NewRequestWithContext(t.Context(), "GET", "https://"+s.addr, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		res, err := tr.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		got, err := io.ReadAll(res.Body)
		if err != nil || string(got) != "203.0.113.7:40000 to 192.0.2.1:443" || (res.ProtoMajor == 2) != (protocol == "h2") {
			t.Fatalf("%s %q, %v", res.Proto, got, err)
		}
	}
}
