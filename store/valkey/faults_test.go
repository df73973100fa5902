package valkey_test

import (
	"context"
	"errors"
	"io"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/moat-gateway/moat/guard/ratelimit"
	"github.com/moat-gateway/moat/store/valkey"
	"github.com/moat-gateway/moat/store/valkey/valkeytest"
)

func TestAServerThatIsDownAtTheStart(t *testing.T) {
	server := valkeytest.Start(t)
	server.Kill()
	begun := time.Now()
	c := client{t, open(t, patient(valkey.Config{Addresses: []string{server.Addr}}))}
	if took := time.Since(begun); took > 900*time.Millisecond {
		t.Errorf("Open took %s", took)
	}
	hasAll(t, c.unavailable(demand("a", slow)).Error(), "connection refused", server.Addr)
	if s := c.Stats(); s.State != valkey.Down || s.Nodes != 1 || s.LastError == nil {
		t.Errorf("%+v", s)
	}
	server.Restart()
	eventually(t, "the store is up", func() bool { return c.Stats().State == valkey.Up })
	c.allow(demand("a", slow))
}

func TestAServerThatIsKilledAndComesBackEmpty(t *testing.T) {
	server := valkeytest.Start(t)
	c := client{t, open(t, patient(valkey.Config{Addresses: []string{server.Addr}}))}
	for range slow.Burst {
		c.allow(demand("a", slow))
	}
	c.deny(demand("a", slow))
	nodes := c.Nodes()
	server.Kill()
	eventually(t, "the store is down", func() bool {
		_, _, err := c.take(demand("b", slow))
		return err != nil && c.Stats().State == valkey.Down
	})
	if c.Nodes() != nodes {
		t.Errorf("%d nodes, want as many as last known, %d", c.Nodes(), nodes)
	}
	// While it is down a refusal is still known, and everything else fails at once.
	c.deny(demand("a", slow))
	spared := c.Stats().Spared
	begun := time.Now()
	for range 1000 {
		c.unavailable(demand("b", slow))
	}
	if took := time.Since(begun); took > 500*time.Millisecond {
		t.Errorf("1,000 Takes took %s", took)
	}
	if got := c.Stats().Spared - spared; got != 1000 {
		t.Errorf("spared %d of 1000", got)
	}
	// It knows neither debts nor scripts.
	server.Restart()
	eventually(t, "the store is up", func() bool { return c.Stats().State == valkey.Up })
	c.allow(demand("b", slow))
}

// One that was started anew while nobody asked costs no request.
func TestARestartBetweenRequestsIsNotNoticed(t *testing.T) {
	server := valkeytest.Start(t)
	c := client{t, open(t, patient(valkey.Config{Addresses: []string{server.Addr}}))}
	for range 3 {
		// Several connections are open, of which none is good afterwards.
		var all sync.WaitGroup
		for range 20 {
			all.Go(func() { c.take(demand("a", slow)) })
		}
		all.Wait()
		server.MustDo("SCRIPT", "FLUSH")
		c.allow(demand("b", slow))
		server.Kill()
		server.Restart()
		if c.Stats().State != valkey.Up {
			t.Log("the store asked for itself, just then")
			eventually(t, "the store is up", func() bool { return c.Stats().State == valkey.Up })
		}
		c.allow(demand("b", slow))
	}
}

// load asks from many goroutines until it is ended.
type load struct {
	asked, failed atomic.Int64
	slowest       atomic.Int64 // nanoseconds
	waited        atomic.Int64 // Takes of more than 5 ms
	end           func()
}

func startLoad(c client, goroutines int) *load {
	l := &load{}
	done := make(chan struct{})
	var wg sync.WaitGroup
	for i := range goroutines {
		wg.Go(func() {
			d := []ratelimit.Demand{demand(string(rune('a'+i)), ratelimit.Limit{Count: 1_000_000, Per: time.Second})}
			r := make([]ratelimit.Result, 1)
			for {
				select {
				case <-done:
					return
				default:
				}
				begun := time.Now()
				_, err := c.Take(c.Context(), d, r)
				took := int64(time.Since(begun))
				l.asked.Add(1)
				if err != nil {
					l.failed.Add(1)
					time.Sleep(time.Millisecond)
				}
				for old := l.slowest.Load(); took > old && !l.slowest.CompareAndSwap(old, took); old = l.slowest.Load() {
				}
				if took > int64(5*time.Millisecond) {
					l.waited.Add(1)
				}
			}
		})
	}
	l.end = sync.OnceFunc(func() { close(done); wg.Wait() })
	c.Cleanup(l.end)
	return l
}

// A server that is stopped without being ended keeps its connections, and answers to
// nothing. That is what makes gateways stall.
func TestAServerThatIsPausedCostsSomeRequestsTheTimeout(t *testing.T) {
	server := valkeytest.Start(t)
	c := client{t, open(t, valkey.Config{Addresses: []string{server.Addr}})}
	load := startLoad(c, 32)
	time.Sleep(100 * time.Millisecond)
	before := runtime.NumGoroutine()
	load.slowest.Store(0)
	server.Pause()
	eventually(t, "the store is down", func() bool { return c.Stats().State == valkey.Down })
	time.Sleep(100 * time.Millisecond)
	waited := load.waited.Load()
	time.Sleep(700 * time.Millisecond)
	if n := load.waited.Load() - waited; n > 64 {
		t.Errorf("%d Takes took more than 5 ms while the store was down", n)
	}
	if now := runtime.NumGoroutine(); now > before+20 {
		t.Errorf("%d goroutines, %d before", now, before)
	}
	server.Continue()
	eventually(t, "the store is up", func() bool { return c.Stats().State == valkey.Up })
	load.end()
	t.Logf("%d Takes, %d failed, the slowest took %s", load.asked.Load(), load.failed.Load(), time.Duration(load.slowest.Load()))
	if took := time.Duration(load.slowest.Load()); took > 400*time.Millisecond {
		t.Errorf("a Take took %s", took)
	}
	c.allow(demand("z", slow))
}

// proxy delays what passes between a store and its server.
type proxy struct {
	addr         string
	accept, each atomic.Int64 // nanoseconds, before a connection is served and before each answer
	cut          atomic.Bool  // the next answer is not passed on, and its connection is closed
}

func startProxy(t *testing.T, to string) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{addr: l.Addr().String()}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			go p.serve(in, to)
		}
	}()
	return p
}

func (p *proxy) serve(in net.Conn, to string) {
	defer in.Close()
	time.Sleep(time.Duration(p.accept.Load()))
	out, err := net.Dial("tcp", to)
	if err != nil {
		return
	}
	defer out.Close()
	go func() {
		io.Copy(out, in)
		out.Close()
	}()
	buf := make([]byte, 64<<10)
	for {
		n, err := out.Read(buf)
		if err != nil {
			return
		}
		time.Sleep(time.Duration(p.each.Load()))
		if p.cut.CompareAndSwap(true, false) {
			return
		}
		if _, err := in.Write(buf[:n]); err != nil {
			return
		}
	}
}

func TestASlowServerCostsSomeRequestsTheTimeout(t *testing.T) {
	thorough(t)
	server := valkeytest.Start(t)
	p := startProxy(t, server.Addr)
	c := client{t, open(t, valkey.Config{Addresses: []string{p.addr}})}
	load := startLoad(c, 32)
	time.Sleep(100 * time.Millisecond)
	p.each.Store(int64(300 * time.Millisecond))
	eventually(t, "the store is down", func() bool { return c.Stats().State == valkey.Down })
	time.Sleep(50 * time.Millisecond)
	waited := load.waited.Load()
	time.Sleep(2 * time.Second)
	if n := load.waited.Load() - waited; n > 64 {
		t.Errorf("%d Takes took more than 5 ms while the store was down", n)
	}
	p.each.Store(0)
	eventually(t, "the store is up", func() bool { return c.Stats().State == valkey.Up })
	load.end()
	if took := time.Duration(load.slowest.Load()); took > 400*time.Millisecond {
		t.Errorf("a Take took %s", took)
	}
}

// A connection that takes longer to make than a request may wait is made all the same.
func TestAHandshakeMayTakeLongerThanARequest(t *testing.T) {
	authority := valkeytest.NewAuthority(t)
	server := valkeytest.StartTLS(t, authority, time.Now().Add(time.Hour))
	p := startProxy(t, server.Addr)
	p.accept.Store(int64(200 * time.Millisecond))
	c := client{t, open(t, valkey.Config{Addresses: []string{p.addr}, TLS: authority.Trust(), Timeout: 150 * time.Millisecond})}
	eventually(t, "the store is up", func() bool { return c.Stats().State == valkey.Up })
	c.allow(demand("a", slow))
}

// A caller who has gone says nothing about the server.
func TestACallerWhoLeaves(t *testing.T) {
	server := valkeytest.Start(t)
	p := startProxy(t, server.Addr)
	c := client{t, open(t, patient(valkey.Config{Addresses: []string{p.addr}}))}
	p.each.Store(int64(300 * time.Millisecond))
	for range 10 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		begun := time.Now()
		_, err := c.Take(ctx, []ratelimit.Demand{demand("a", slow)}, make([]ratelimit.Result, 1))
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, valkey.ErrUnavailable) {
			t.Errorf("got %v", err)
		}
		if took := time.Since(begun); took > 150*time.Millisecond {
			t.Errorf("took %s", took)
		}
	}
	if s := c.Stats(); s.State != valkey.Up || s.Timeouts != 0 {
		t.Errorf("%+v", s)
	}
}

func TestCloseEndsAllThatWasStarted(t *testing.T) {
	noneLeft(t)
	server := valkeytest.Start(t)
	gone := valkeytest.Start(t)
	gone.Kill()
	paused := valkeytest.Start(t)
	for _, addr := range []string{server.Addr, gone.Addr, paused.Addr} {
		s, err := valkey.Open(t.Context(), valkey.Config{Addresses: []string{addr}})
		if err != nil {
			t.Fatal(err)
		}
		c := client{t, s}
		for range 10 {
			c.take(demand("a", slow))
		}
		if addr == paused.Addr {
			paused.Pause()
		}
		begun := time.Now()
		s.Close()
		s.Close()
		if took := time.Since(begun); took > time.Second {
			t.Errorf("Close took %s", took)
		}
		c.unavailable(demand("a", slow))
		noneLeft(t)
	}
}
