package valkey

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	client "github.com/valkey-io/valkey-go"
)

const (
	// dialTimeout bounds the making of a connection, with the look-up of the name and the
	// TLS handshake. No request waits for it.
	dialTimeout = time.Second
	// askTimeout bounds the question to one Sentinel.
	askTimeout = 250 * time.Millisecond
	// A connection that carries nothing is probed after idle, and given up after three
	// probes: something on the way may have forgotten it.
	idle = 15 * time.Second
	// buffer is what a connection reads and writes at once.
	buffer = 32 << 10
)

var (
	errConnecting = errors.New("not connected yet")
	errQueueFull  = errors.New("more requests wait for the server than it answers in time")
	errTimeout    = errors.New("no answer in time")
	errClosed     = errors.New("the store is closed")
	errDial       = errors.New("no connection")
	errReply      = errors.New("the server answers what the script does not say")
	errPeriod     = errors.New("the server's clock is in another period each time it is asked")
	errLater      = errors.New("to be connected later")
)

// conn holds the client, which holds the connections.
type conn struct {
	s       *Store
	current atomic.Pointer[client.Client]
	making  sync.Mutex
	// sentinel is the one that is asked first, and primary what it said last.
	sentinel atomic.Uint32
	primary  atomic.Pointer[string]
}

// get returns the client, made if there is none.
func (c *conn) get() (client.Client, error) {
	if current := c.current.Load(); current != nil {
		return *current, nil
	}
	c.making.Lock()
	defer c.making.Unlock()
	if current := c.current.Load(); current != nil {
		return *current, nil
	}
	if c.s.ctx.Err() != nil {
		return nil, errClosed
	}
	connect := c.single
	if c.s.cfg.Mode == Cluster {
		connect = c.cluster
	}
	made, err := connect()
	if err != nil {
		return nil, err
	}
	c.current.Store(&made)
	return made, nil
}

// drop closes a client, for the next call to make another.
func (c *conn) drop(old client.Client) {
	c.making.Lock()
	defer c.making.Unlock()
	if current := c.current.Load(); current != nil && *current == old {
		c.current.Store(nil)
		old.Close()
	}
}

func (c *conn) close() {
	c.making.Lock()
	defer c.making.Unlock()
	if current := c.current.Swap(nil); current != nil {
		(*current).Close()
	}
}

// options are what all modes share. Calls come from the lanes' workers, a few at a time
// and in batches, so each takes a connection of the pool for itself, writes, and reads:
// the client's own pipelining would put a queue behind the queue. Nothing is done twice
// behind our back, and nothing is cached.
func (c *conn) options() client.ClientOption {
	cfg := &c.s.cfg
	return client.ClientOption{
		InitAddress:           cfg.Addresses,
		Username:              cfg.Username,
		Password:              cfg.Password,
		TLSConfig:             cfg.TLS,
		SelectDB:              cfg.DB,
		DialCtxFn:             c.dial,
		Dialer:                net.Dialer{Timeout: dialTimeout, KeepAlive: -1}, // dial has its own
		ConnWriteTimeout:      cfg.Timeout,
		DisableAutoPipelining: true,
		DisableRetry:          true,
		DisableCache:          true,
		ClientSetInfo:         []string{},
		BlockingPoolSize:      2 * lanes * workers,
		ReadBufferEachConn:    buffer,
		WriteBufferEachConn:   buffer,
		RingScaleEachConn:     4,
		ClusterOption:         client.ClusterOption{MaxMovedRedirections: 3},
	}
}

// single makes the client of one server.
func (c *conn) single() (client.Client, error) { return newSingle(c.options()) }

// newSingle makes the client of one server. It connects when it is used, not now: made so,
// it exists even if the first connection fails, and has none that nobody uses, with
// goroutines that panic if something is said to them unasked.
func newSingle(o client.ClientOption) (client.Client, error) {
	var made atomic.Bool
	dial := o.DialCtxFn
	o.ForceSingleClient = true
	o.DialCtxFn = func(ctx context.Context, addr string, d *net.Dialer, t *tls.Config) (net.Conn, error) {
		if !made.Load() {
			return nil, errLater
		}
		return dial(ctx, addr, d, t)
	}
	one, err := client.NewClient(o)
	made.Store(true)
	if one == nil {
		return nil, err
	}
	return one, nil
}

// cluster makes the client of a cluster, which asks a node for the others.
func (c *conn) cluster() (client.Client, error) {
	made, err := client.NewClient(c.options())
	if err != nil {
		return nil, err
	}
	if made.Mode() != client.ClientModeCluster {
		made.Close()
		return nil, errNoCluster
	}
	return made, nil
}

// dial connects within dialTimeout, however short the time is that is left to the call
// that a connection is made for: otherwise a server whose handshake takes longer than a
// request may wait would never be reached.
func (c *conn) dial(_ context.Context, addr string, _ *net.Dialer, t *tls.Config) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(c.s.ctx, dialTimeout)
	defer cancel()
	if c.s.cfg.Mode == Sentinel {
		var err error
		if addr, err = c.askPrimary(ctx); err != nil {
			return nil, fmt.Errorf("%w: %w", errDial, err)
		}
		c.primary.Store(&addr)
	}
	nc, err := connect(ctx, addr, t)
	if err != nil {
		return nil, fmt.Errorf("%w to %s: %w", errDial, addr, err)
	}
	return nc, nil
}

func connect(ctx context.Context, addr string, t *tls.Config) (net.Conn, error) {
	d := net.Dialer{KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: idle, Interval: idle / 3, Count: 3}}
	nc, err := d.DialContext(ctx, "tcp", addr)
	if err != nil || t == nil {
		return nc, err
	}
	if t.ServerName == "" {
		t = t.Clone()
		t.ServerName, _, _ = net.SplitHostPort(addr) // it has been dialed
	}
	tc := tls.Client(nc, t)
	if err := tc.HandshakeContext(ctx); err != nil {
		nc.Close() //nolint:errcheck // the handshake's error says more
		if isTimeout(err) {
			return nil, fmt.Errorf("no TLS handshake in time (%w); does the server speak TLS there?", err)
		}
		return nil, err
	}
	return tc, nil
}

// askPrimary asks the Sentinels for the server that may be written to, first the one that
// knew it last.
func (c *conn) askPrimary(ctx context.Context) (string, error) {
	addrs := c.s.cfg.Addresses
	first := c.sentinel.Load()
	var errs []error
	for i := range addrs {
		n := (first + uint32(i)) % uint32(len(addrs)) //nolint:gosec // a handful
		got, err := c.ask(ctx, addrs[n])
		if err == nil {
			c.sentinel.Store(n)
			return got, nil
		}
		errs = append(errs, fmt.Errorf("sentinel %s: %w", addrs[n], err))
	}
	return "", errors.Join(errs...)
}

// lost is told that a connection has been. If it was closed, so were the others to that
// server, and they are not tried one after the other. In a cluster there are other servers.
func (c *conn) lost(old client.Client, why error) {
	if c.s.cfg.Mode != Cluster && !isTimeout(why) && !errors.Is(why, errDial) {
		c.drop(old)
	}
}

// replica is told that the server which is written to does not take it. If a Sentinel has
// said that it would, then that one is behind: another one is asked next.
func (c *conn) replica(old client.Client) {
	c.sentinel.Add(1)
	c.drop(old)
}

// follow leaves a primary that the Sentinels have replaced. Most of them close their
// connections or refuse to be written to, but one that has been replaced by hand, or has
// been cut off, goes on for some seconds as if nothing had happened, with debts that others
// do not see.
func (c *conn) follow() {
	old, was := c.current.Load(), c.primary.Load()
	if c.s.cfg.Mode != Sentinel || old == nil || was == nil {
		return
	}
	ctx, cancel := context.WithTimeout(c.s.ctx, dialTimeout)
	defer cancel()
	if is, err := c.askPrimary(ctx); err == nil && is != *was {
		c.drop(*old)
	}
}

func (c *conn) ask(ctx context.Context, addr string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	cfg := &c.s.cfg
	o := c.options()
	o.InitAddress = []string{addr}
	o.Username, o.Password, o.SelectDB, o.ConnWriteTimeout = cfg.SentinelUsername, cfg.SentinelPassword, 0, askTimeout
	o.DialCtxFn = func(_ context.Context, addr string, _ *net.Dialer, t *tls.Config) (net.Conn, error) {
		return connect(ctx, addr, t)
	}
	one, err := newSingle(o)
	if err != nil {
		return "", err
	}
	defer one.Close()
	said, err := one.Do(ctx, one.B().SentinelGetMasterAddrByName().Master(cfg.Master).Build()).AsStrSlice()
	switch {
	case client.IsValkeyNil(err):
		return "", fmt.Errorf("knows no master %q", cfg.Master)
	case err != nil:
		return "", err
	case len(said) != 2:
		return "", fmt.Errorf("answered %q", said)
	}
	return net.JoinHostPort(said[0], said[1]), nil
}

var errNoCluster = errors.New("the server is not part of a cluster; set the mode to standalone")

func isReadOnly(e *client.ValkeyError) bool { return strings.HasPrefix(e.Error(), "READONLY") }

// hints say what an operator can do about what a server says.
var hints = []struct{ prefix, hint string }{
	{"WRONGPASS", "check the user name and the password"},
	{"NOAUTH", "the server wants a user name and a password"},
	{"NOPERM", "the user lacks a permission; the documentation of store/valkey has the rules to give it"},
	{"READONLY", "the server is a replica; name the primary, or use Sentinel or Cluster mode"},
	{"MOVED", "the server is part of a cluster; set the mode to cluster"},
	{"OOM", "the server has reached its maxmemory and evicts nothing"},
	{"LOADING", "the server is reading its data set, and answers when it has"},
	{"ERR unknown command", "the server is too old; Valkey 7.2 or Redis 6.2 is needed"},
}

// explain turns an error of the client into one for operators. Passwords are never in it.
func (s *Store) explain(err error) error {
	text := s.describe(err)
	for _, secret := range []string{s.cfg.Password, s.cfg.SentinelPassword} {
		if secret != "" && strings.Contains(text, secret) {
			return errors.New(strings.ReplaceAll(text, secret, "(password)"))
		}
	}
	if text == err.Error() {
		return err
	}
	return &explained{text, err}
}

func (s *Store) describe(err error) string {
	text := err.Error()
	said, isSaid := client.IsValkeyErr(err)
	var authority x509.UnknownAuthorityError
	var name x509.HostnameError
	switch {
	case isSaid:
		for _, h := range hints {
			if strings.HasPrefix(said.Error(), h.prefix) {
				return text + "; " + h.hint
			}
		}
	case errors.As(err, &authority):
		return text + "; give its authority in the TLS configuration"
	case errors.As(err, &name):
		return text + "; give the address or the ServerName that it has"
	case errors.Is(err, errDial):
	case isTimeout(err):
		return errTimeout.Error()
	case s.cfg.TLS == nil && (errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET)):
		return text + "; does the server want TLS?"
	}
	return text
}

// explained is an error with more to say.
type explained struct {
	text string
	error
}

func (e *explained) Error() string { return e.text }

func (e *explained) Unwrap() error { return e.error }
