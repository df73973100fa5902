// Package egresstest has a name server for tests: what a name resolves to is the test's to
// say, each time anew.
package egresstest

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
)

// Resolver returns a resolver that asks a name server on loopback. Its answers are those of
// lookup, which is called for each question, with the name in lower case and without a dot at its end,
// and with 4 or 6, the version of IP that is asked for.
func Resolver(t testing.TB, lookup func(name string, version int) []netip.Addr) *net.Resolver {
	t.Helper()
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 1500)
		for {
			n, from, rErr := conn.ReadFromUDPAddrPort(buf)
			if rErr != nil {
				return
			}
			if answer := answer(buf[:n], lookup); answer != nil {
				conn.WriteToUDPAddrPort(answer, from) //nolint:errcheck // a resolver that gets no answer asks again.
			}
		}
	}()
	t.Cleanup(func() {
		conn.Close() //nolint:errcheck // nobody asks any more.
		<-done
	})
	return &net.Resolver{
		PreferGo: true,
		Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "udp", conn.LocalAddr().String())
		},
	}
}

// answer is the message that answers another one, or nil if that is none.
func answer(question []byte, lookup func(string, int) []netip.Addr) []byte {
	var m dnsmessage.Message
	if m.Unpack(question) != nil || len(m.Questions) != 1 {
		return nil
	}
	q := m.Questions[0]
	m.Response, m.Authoritative, m.Additionals = true, true, nil
	version := map[dnsmessage.Type]int{dnsmessage.TypeA: 4, dnsmessage.TypeAAAA: 6}[q.Type]
	head := dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class}
	for _, a := range lookup(strings.ToLower(strings.TrimSuffix(q.Name.String(), ".")), version) {
		switch {
		case a.Is4() && version == 4:
			m.Answers = append(m.Answers, dnsmessage.Resource{Header: head, Body: &dnsmessage.AResource{A: a.As4()}})
		case !a.Is4() && version == 6:
			m.Answers = append(m.Answers, dnsmessage.Resource{Header: head, Body: &dnsmessage.AAAAResource{AAAA: a.As16()}})
		}
	}
	packed, err := m.Pack()
	if err != nil {
		return nil
	}
	return packed
}
