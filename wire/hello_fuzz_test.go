package wire

import (
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
)

// helloSeeds are what clients open a connection with.
var helloSeeds = []string{
	ordinary,
	preface + "\x00\x00\x06\x04\x00\x00\x00\x00\x00\x00\x02\x00\x00\x00\x00" + "\x00\x00\x04\x08\x00\x00\x00\x00\x00\x00\xbf\x00\x01" +
		"\x00\x00\x05\x02\x00\x00\x00\x00\x03\x00\x00\x00\x00\xc8" + "\x00\x00\x08\x01\x05\x00\x00\x00\x01\x82\x86\x84\x41\x01h\x58\x00",
	preface + "\x00\x00\x00\x04\x00\x00\x00\x00\x00" + "\x00\x00\x01\x01\x00\x00\x00\x00\x01\x82" + "\x00\x00\x02\x09\x04\x00\x00\x00\x01\x86\x84",
	preface + "\x00\x00\x03\x01\x0d\x00\x00\x00\x01\x01\x82\x00", // padded
	preface + "\x00\x00\x03\x01\x2c\x00\x00\x00\x01\xff\x82\x00", // padded beyond its end, with a priority that is not there
	preface + "\x00\x00\x04\x01\x04\x00\x00\x00\x01\x3f\xff\xff\xff",
	preface + "\xff\xff\xff\x01\x04\x00\x00\x00\x01",
	preface + "\x00\x00\x00\x09\x04\x00\x00\x00\x01",
	"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n",
}

// FuzzHello: what is told does not depend on how the bytes are cut, and is bounded.
func FuzzHello(f *testing.F) {
	for i, s := range helloSeeds {
		f.Add([]byte(s), uint64(i))
	}
	f.Add([]byte(preface+strings.Repeat("\x00\x00\x06\x04\x00\x00\x00\x00\x00\x00\x02\x00\x00\x00\x00", 3000)), uint64(0))
	f.Fuzz(func(t *testing.T, data []byte, seed uint64) {
		whole := new(tap)
		done := whole.see(data)
		want := whole.hello.Load()
		if done != (want != nil) || !done && len(data) >= maxHello || len(whole.held) > len(data) {
			t.Fatalf("done %v with %v, holds %d", done, want, len(whole.held))
		}
		if want != nil {
			size := len(want.HTTP2)
			for _, n := range want.HeaderOrder {
				size += len(n)
			}
			if size > 6<<10 || len(want.HeaderOrder) > maxNames {
				t.Fatalf("%d bytes, %d names", size, len(want.HeaderOrder))
			}
		}
		if len(data) >= maxHello { // where the bound lies then depends on the cuts
			return
		}
		rnd := rand.New(rand.NewPCG(seed, 1))
		pieces := new(tap)
		for rest := data; len(rest) > 0; {
			n := 1 + rnd.IntN(min(len(rest), 40))
			if pieces.see(rest[:n]) {
				break
			}
			rest = rest[n:]
		}
		if got := pieces.hello.Load(); !reflect.DeepEqual(got, want) {
			t.Fatalf("%q\nin pieces %+v\nat once   %+v", data, got, want)
		}
	})
}

// BenchmarkHello is what a connection costs once, if somebody asks.
func BenchmarkHello(b *testing.B) {
	b.Run("HTTP1", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if !new(tap).see([]byte(ordinary)) {
				b.Fatal("not whole")
			}
		}
	})
	b.Run("HTTP2", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if !new(tap).see([]byte(helloSeeds[1])) {
				b.Fatal("not whole")
			}
		}
	})
	b.Run("JA4", func(b *testing.B) {
		b.ReportAllocs()
		h := chromium106()
		for b.Loop() {
			ja4(h)
		}
	})
}
