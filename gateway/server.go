package gateway

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"time"

	"github.com/moat-gateway/moat/wire"
)

// ServerConfig is where a gate listens, and the bounds of a connection.
type ServerConfig struct {
	Listeners []Listener
	// Admin is the address of the operator's listener, or "" for none.
	Admin string
	// AdminAnyHost serves the admin listener to any Host header.
	AdminAnyHost bool
	// HeaderBytes bounds the head of a request.
	HeaderBytes int
	// HeaderTimeout bounds the time from a connection's first byte to a whole head.
	HeaderTimeout time.Duration
	// Idle is how long a connection may wait for its next request.
	Idle time.Duration
	// WriteIdle is how long a client may go without taking a byte of its answer.
	WriteIdle time.Duration
	// Grace is how long requests under way may take after the server was told to stop.
	Grace time.Duration
	// Handler, if set, stands around the gate on each of the Listeners.
	Handler func(http.Handler) http.Handler
	// Delay is the time between telling load balancers to stop sending and no longer
	// accepting connections.
	Delay time.Duration
}

// Listener is one address that clients connect to.
type Listener struct {
	Address string
	TLS     *tls.Config
	// ProxyProtocol names the peers that must send a PROXY protocol header. Empty
	// means that nobody sends one.
	ProxyProtocol []netip.Prefix
}

// Addresses are those that a server really listens on.
type Addresses struct {
	Listeners []string
	Admin     string
}

// Serve listens and serves until ctx is done, then drains: it stops accepting, lets
// requests under way finish within Grace, and closes tunnels. started is called once
// all listeners are open. The error says why it could not serve, or that Grace was
// over before everything had finished.
func (g *Gateway) Serve(ctx context.Context, c ServerConfig, started func(Addresses)) error {
	errorLog := log.New(g.obs, "", 0)
	g.writeIdle.Store(int64(c.WriteIdle))
	var (
		lc        net.ListenConfig
		addrs     Addresses
		servers   []*http.Server
		listeners []net.Listener
	)
	var handler http.Handler = g
	if c.Handler != nil {
		handler = c.Handler(g)
	}
	closeAll := func() {
		for _, l := range listeners {
			l.Close() //nolint:errcheck // the error that made us stop counts.
		}
	}
	listen := func(setting, address string) (net.Listener, error) {
		l, err := lc.Listen(ctx, "tcp", address)
		if err != nil {
			closeAll()
			return nil, fmt.Errorf("%s: %w", setting, err)
		}
		listeners = append(listeners, l)
		return l, nil
	}
	for _, cfg := range c.Listeners {
		l, err := listen("listen", cfg.Address)
		if err != nil {
			return err
		}
		addrs.Listeners = append(addrs.Listeners, l.Addr().String())
		if len(cfg.ProxyProtocol) == 0 {
			cfg.ProxyProtocol = nil // an empty list that is there would trust nobody and close all
		}
		listeners[len(listeners)-1] = wire.Listen(l, wire.Options{
			TLS: cfg.TLS, ProxyProtocol: cfg.ProxyProtocol, HeaderBytes: c.HeaderBytes,
			HeadTimeout: c.HeaderTimeout, HandshakeTimeout: c.HeaderTimeout, WriteIdle: c.WriteIdle,
			Hello: func() bool { return g.state.Load().bots != nil },
			Refused: func(peer net.Addr, err error) {
				g.obs.log.Debug("connection refused", slog.String("peer", peer.String()), slog.Any("error", err))
			},
		})
		srv := &http.Server{
			Handler: handler, ErrorLog: errorLog,
			ReadHeaderTimeout: c.HeaderTimeout, IdleTimeout: c.Idle,
			// HTTP/1.1 heads are bounded in wire; net/http adds some slack of its own.
			MaxHeaderBytes: c.HeaderBytes,
			// "OPTIONS *" is no exception to deny by default.
			DisableGeneralOptionsHandler: true,
			Protocols:                    protocols(),
			HTTP2:                        &http.HTTP2Config{WriteByteTimeout: c.WriteIdle, SendPingTimeout: c.Idle},
			ConnContext:                  wire.ConnContext,
		}
		if cfg.TLS != nil {
			srv.Handler = wire.RestoreTLS(handler)
		}
		servers = append(servers, srv)
	}
	if c.Admin != "" {
		l, err := listen("admin", c.Admin)
		if err != nil {
			return err
		}
		addrs.Admin = l.Addr().String()
		servers = append(servers, &http.Server{
			Handler: g.Admin(c.AdminAnyHost), ErrorLog: errorLog,
			ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 60 * time.Second,
		})
	}
	sampling, stopSampling := context.WithCancel(ctx)
	defer stopSampling()
	go g.obs.series.run(sampling)
	failed := make(chan error, len(servers))
	for i, srv := range servers {
		go func() {
			if err := srv.Serve(listeners[i]); !errors.Is(err, http.ErrServerClosed) {
				failed <- err
			}
		}()
	}
	go g.alerts.run(ctx)
	if started != nil {
		started(addrs)
	}
	select {
	case err := <-failed:
		for _, srv := range servers {
			srv.Close() //nolint:errcheck // as in closeAll.
		}
		return fmt.Errorf("serve: %w", err)
	case <-ctx.Done():
		return g.shutdown(c, servers)
	}
}

// protocols are all of them. On a listener with TLS, wire decides who comes with HTTP/2, by ALPN alone.
func protocols() *http.Protocols {
	var p http.Protocols
	p.SetHTTP1(true)
	p.SetHTTP2(true)
	p.SetUnencryptedHTTP2(true)
	return &p
}

// shutdown drains. The admin server goes last: it tells that we are draining.
func (g *Gateway) shutdown(c ServerConfig, servers []*http.Server) error {
	g.Drain()
	time.Sleep(c.Delay)
	ctx, cancel := context.WithTimeout(context.Background(), c.Grace)
	defer cancel()
	front, admin := servers[:len(c.Listeners)], servers[len(c.Listeners):]
	done := make(chan error, len(front))
	for _, srv := range front {
		go func() { done <- srv.Shutdown(ctx) }()
	}
	var errs []error
	for range front {
		if err := <-done; err != nil {
			errs = append(errs, fmt.Errorf("shutdown: requests were still under way after %s: %w", c.Grace, err))
		}
	}
	g.CloseTunnels()
	for _, srv := range front {
		srv.Close() //nolint:errcheck // what is left had its time.
	}
	for _, srv := range admin {
		srv.Close() //nolint:errcheck // its clients ask again.
	}
	return errors.Join(errs...)
}
