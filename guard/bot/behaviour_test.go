package bot

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"sync"
	"testing"
	"time"
	"unsafe"
)

// visitor makes requests one after another, and remembers the last verdict.
type visitor struct {
	t     *testing.T
	g     *Guard
	facts Facts
	agent string
	last  Verdict
}

func newVisitor(t *testing.T, g *Guard) *visitor {
	t.Helper()
	v := &visitor{t: t, g: g, facts: honest, agent: fox}
	v.facts.Now = time.Now()
	return v
}

func (v *visitor) wait(d time.Duration) { v.facts.Now = v.facts.Now.Add(d) }

func (v *visitor) ask(path, mode, dest string) {
	v.t.Helper()
	accept := "*/*"
	if mode == "navigate" {
		accept = "text/html"
	}
	v.last = v.g.Decide(head(v.t, with("GET "+path+" HTTP/1.1\nHost: api.example\nUser-Agent: "+v.agent+"\n"+foxCall, "Accept: "+accept, "Sec-Fetch-Mode: "+mode, "Sec-Fetch-Dest: "+dest)), v.facts)
}

func (v *visitor) call(path string)  { v.t.Helper(); v.ask(path, "cors", "empty") }
func (v *visitor) visit(path string) { v.t.Helper(); v.ask(path, "navigate", "document") }
func (v *visitor) load(path string)  { v.t.Helper(); v.ask(path, "no-cors", "image") }

func (v *visitor) want(evidence string) {
	v.t.Helper()
	if got := v.last.Decision.Evidence.Got; got != evidence {
		v.t.Errorf("%q; want %q", got, evidence)
	}
}

func TestPeopleAndTheirPagesGetNoPoints(t *testing.T) {
	r := rand.New(rand.NewPCG(8, 1))
	for name, act := range map[string]func(v *visitor){
		"somebody who reads": func(v *visitor) {
			for page := range 15 {
				v.visit(fmt.Sprintf("/page/%d", page))
				for part := range 12 {
					v.wait(time.Duration(r.IntN(40)) * time.Millisecond)
					v.load(fmt.Sprintf("/img/%d/%d", page, part))
				}
				for range 4 {
					v.call(fmt.Sprintf("/v1/%d/%d", page, r.IntN(3)))
				}
				v.wait(time.Duration(5+r.ExpFloat64()*40) * time.Second)
			}
		},
		"a page that polls": func(v *visitor) {
			v.visit("/")
			for range 1000 {
				v.wait(5 * time.Second)
				v.call("/v1/status")
				v.call("/v1/messages")
			}
		},
		"a dashboard that loads all at once": func(v *visitor) {
			v.visit("/")
			v.facts.Tickets = SpendsTicket
			for i := range 60 {
				v.call(fmt.Sprintf("/v1/widget/%d", i))
			}
		},
		"a page that chats": func(v *visitor) {
			v.visit("/")
			for range 50 {
				v.facts.Tickets = AsksForTicket
				v.call("/.moat/tickets")
				v.facts.Tickets = SpendsTicket
				for range 4 {
					v.wait(time.Duration(3+r.ExpFloat64()*20) * time.Second)
					v.call("/v1/chat")
				}
			}
		},
		"a tab that is left open": func(v *visitor) {
			for range 100 {
				v.wait(11 * time.Minute)
				v.call("/v1/status")
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			v := newVisitor(t, newGuard(t, all()))
			v.facts.Pages = true
			act(v)
			v.want("")
		})
	}
}

func TestProgramsShowByWhatTheyDo(t *testing.T) {
	for name, c := range map[string]struct {
		act  func(v *visitor)
		want string
	}{
		"paths at even intervals": {func(v *visitor) {
			for i := range 40 {
				v.wait(time.Second + time.Duration(i%3)*50*time.Millisecond)
				v.call(fmt.Sprintf("/v1/items/%d", i))
			}
		}, "behaviour +20 (new paths at even intervals)"},
		"many paths": {func(v *visitor) {
			r := rand.New(rand.NewPCG(8, 2))
			for i := range 300 {
				v.wait(time.Duration(r.ExpFloat64() * float64(time.Second)))
				v.call(fmt.Sprintf("/v1/items/%d", i))
			}
		}, "behaviour +20 (a hundred paths within ten minutes)"},
		"calls without a page": {func(v *visitor) {
			v.facts.Pages = true
			for i := range 35 {
				v.wait(time.Duration(1+i%7*i%5) * time.Second)
				v.call("/v1/chat")
			}
		}, "behaviour +20 (calls, and no page that makes them)"},
		"pages without parts": {func(v *visitor) {
			others := newVisitor(t, v.g)
			others.facts.Client = netip.MustParseAddr("203.0.113.9")
			for i := range 40 {
				others.load(fmt.Sprintf("/img/%d", i))
			}
			for i := range 25 {
				v.wait(time.Duration(1+i%7*i%5) * time.Second)
				v.visit(fmt.Sprintf("/page/%d", i%4))
			}
		}, "behaviour +20 (pages, and nothing that they load)"},
		"tickets that are not used": {func(v *visitor) {
			v.facts.Tickets = AsksForTicket
			for range 6 {
				v.wait(7 * time.Second)
				v.call("/.moat/tickets")
			}
		}, "behaviour +30 (tickets that are not used)"},
		"tickets that are used without a pause": {func(v *visitor) {
			v.facts.Tickets = SpendsTicket
			for range 150 {
				v.wait(120 * time.Millisecond)
				v.call("/v1/chat")
			}
		}, "behaviour +20 (a hundred calls without a pause)"},
	} {
		t.Run(name, func(t *testing.T) {
			v := newVisitor(t, newGuard(t, all()))
			c.act(v)
			v.want(c.want)
			v.wait(11 * time.Minute)
			v.facts.Tickets = NoTicket
			v.call("/v1/later")
			v.want("") // what is past is forgotten
		})
	}
}

func TestWhoIsCountedTogether(t *testing.T) {
	g := newGuard(t, all())
	hoard := func(addr, agent string) string {
		v := newVisitor(t, g)
		v.facts.Client, v.agent, v.facts.Tickets = netip.MustParseAddr(addr), agent, AsksForTicket
		v.call("/.moat/tickets")
		return v.last.Decision.Evidence.Got
	}
	for range 6 {
		hoard("2001:db8::1", fox)
	}
	const found = "behaviour +30 (tickets that are not used)"
	for _, c := range []struct {
		addr, agent, want string
	}{
		{"2001:db8::ffff", fox, found},
		{"2001:db8:0:1::1", fox, ""}, // another /64
		{"2001:db8::1", strings153, ""},
		{"192.0.2.1", fox, ""},
	} {
		if got := hoard(c.addr, c.agent); got != c.want {
			t.Errorf("%s: %q; want %q", c.addr, got, c.want)
		}
	}
}

// strings153 is a Firefox on another system.
const strings153 = "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:153.0) Gecko/20100101 Firefox/153.0"

func TestWhatScriptSawIsRemembered(t *testing.T) {
	g := newGuard(t, all())
	v := newVisitor(t, g)
	r := head(t, "POST /.moat/tickets HTTP/1.1\nHost: api.example\nOrigin: https://api.example\nUser-Agent: "+fox+"\n"+foxCall)
	if got := g.Client(r, v.facts, Webdriver|Headless).Decision.Evidence.Got; got != "client +60 (webdriver)" { // 100, bounded by its weight
		t.Error(got)
	}
	v.call("/v1/a")
	v.want("client +30 (webdriver)")
	for range 20 { // and as long as he comes
		v.wait(9 * time.Minute)
		v.call("/v1/a")
	}
	v.want("client +30 (webdriver)")
	v.wait(11 * time.Minute)
	v.call("/v1/a")
	v.want("")
	v.facts.Dry = true
	g.Client(r, v.facts, 1<<15) // which means nothing
	v.call("/v1/a")
	v.want("")
}

func TestDryRequestsAreNotNoted(t *testing.T) {
	v := newVisitor(t, newGuard(t, all()))
	v.facts.Dry, v.facts.Tickets = true, AsksForTicket
	for range 20 {
		v.call("/.moat/tickets")
	}
	v.want("")
}

// A flood of visitors costs no memory, and makes nobody suspect: neither those who have never been
// there, nor those who were.
func TestAFloodOfVisitorsCostsNoMemoryAndHarmsNobody(t *testing.T) {
	if size := unsafe.Sizeof(visitors{}); size > 2<<20 {
		t.Errorf("the table takes %d bytes", size)
	}
	g := newGuard(t, all())
	quiet := newVisitor(t, g)
	quiet.visit("/")
	busy := newVisitor(t, g)
	busy.facts.Client = netip.MustParseAddr("198.51.100.1")
	busy.facts.Tickets = AsksForTicket
	for range 50 {
		busy.call("/.moat/tickets")
	}
	r := head(t, "GET /v1 HTTP/1.1\nHost: api.example\nUser-Agent: "+fox+"\n"+foxCall)
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	var floods sync.WaitGroup
	for worker := range uint64(4) {
		floods.Go(func() {
			rnd := rand.New(rand.NewPCG(worker, 8))
			f := honest
			f.Now = busy.facts.Now
			for range 50_000 {
				var a [16]byte
				binary.BigEndian.PutUint64(a[:], rnd.Uint64())
				f.Client = netip.AddrFrom16(a)
				if v := g.Decide(r, f); v.Score != 0 {
					t.Errorf("%s: %+v", f.Client, v)
					return
				}
			}
		})
	}
	floods.Wait()
	if after := heap(); after > before+1<<20 {
		t.Errorf("200,000 visitors took %d bytes", after-before)
	}
	quiet.visit("/")
	quiet.want("")
	busy.call("/.moat/tickets")
	busy.want("behaviour +30 (tickets that are not used)") // who comes often is not pushed out by who comes once
	runtime.KeepAlive(g)
}

func BenchmarkFlood(b *testing.B) {
	g := newGuard(b, all())
	r := head(b, "GET /v1 HTTP/1.1\nHost: api.example\nUser-Agent: "+fox+"\n"+foxCall)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		rnd := rand.New(rand.NewPCG(rand.Uint64(), 8))
		f := honest
		f.Now = time.Now()
		for pb.Next() {
			var a [16]byte
			binary.BigEndian.PutUint64(a[:], rnd.Uint64())
			f.Client = netip.AddrFrom16(a)
			g.Decide(r, f)
		}
	})
}
